//! Where a listener is: `endpoint` and `transport`.

use std::fmt;
use std::path::PathBuf;

use tailwater_config::Section;

/// What a listener is bound to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// Host (empty = all addresses) and port (0 = any).
    Address {
        /// Host name or address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A socket in the file system.
    Unix(PathBuf),
}

/// Which addresses a host name may stand for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// `tcp`.
    Any,
    /// `tcp4`.
    V4,
    /// `tcp6`.
    V6,
}

/// `endpoint` and `transport`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listen {
    /// Where.
    pub endpoint: Endpoint,
    /// Which addresses of the host.
    pub family: Family,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Tcp(Family),
    Unix,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "endpoint",
        "Where it listens: `host:port`, `:port` for all addresses, `unix:///path`.",
    ),
    (
        "transport",
        "Family of addresses; with unix `endpoint` is a path. Tcp unless set. A socket that a killed process left behind is replaced.",
    ),
];

impl Listen {
    /// Reads both options.
    pub fn decode(s: &mut Section<'_, '_>, default: &str) -> Listen {
        s.describe(OPTIONS);
        let transports = [
            ("tcp", Transport::Tcp(Family::Any)),
            ("tcp4", Transport::Tcp(Family::V4)),
            ("tcp6", Transport::Tcp(Family::V6)),
            ("unix", Transport::Unix),
        ];
        let transport = s.choice_optional("transport", &transports);
        let text = s.string("endpoint", default);
        let family = match transport {
            Some(Transport::Tcp(family)) => family,
            _ => Family::Any,
        };
        let endpoint = parse(&text, transport).unwrap_or_else(|problem| {
            s.invalid("endpoint", problem);
            // Decoding goes on to find other mistakes; nothing is built from this.
            Endpoint::Address {
                host: String::new(),
                port: 0,
            }
        });
        Listen { endpoint, family }
    }

    /// Reads `key`, which is required and has the form `host:port`.
    pub fn decode_address(s: &mut Section<'_, '_>, key: &str) -> Listen {
        let plain = Some(Transport::Tcp(Family::Any));
        let text = s.string_required(key);
        let parsed = text.map(|text| parse(&text, plain));
        let endpoint =
            parsed.and_then(|parsed| parsed.map_err(|_| s.invalid(key, "must be host:port")).ok());
        Listen {
            // Decoding goes on to find other mistakes; nothing is built from this.
            endpoint: endpoint.unwrap_or(Endpoint::Address {
                host: String::new(),
                port: 0,
            }),
            family: Family::Any,
        }
    }

    /// The system chooses a port, so that two of these do not collide.
    pub fn any_port(&self) -> bool {
        matches!(self.endpoint, Endpoint::Address { port: 0, .. })
    }
}

fn parse(text: &str, transport: Option<Transport>) -> Result<Endpoint, &'static str> {
    let with_scheme = text.strip_prefix("unix:");
    if let (Some(rest), None | Some(Transport::Unix)) = (with_scheme, transport) {
        return socket(rest.strip_prefix("//").unwrap_or(rest));
    }
    if transport == Some(Transport::Unix) {
        return socket(text);
    }
    if text.contains("://") {
        return Err("must be host:port without a scheme, or unix:///path");
    }
    const FORM: &str = "must be host:port, or unix:///path";
    let (host, port) = text.rsplit_once(':').ok_or(FORM)?;
    let port = port.parse().map_err(|_| FORM)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or(FORM)?,
        None if host.contains(':') => return Err("an IPv6 address must stand in brackets"),
        None => host,
    };
    Ok(Endpoint::Address {
        host: host.to_owned(),
        port,
    })
}

fn socket(path: &str) -> Result<Endpoint, &'static str> {
    // Source: unix(7); sun_path has 108 bytes with its final NUL.
    if path.len() > 107 {
        return Err("the path of a socket may have 107 bytes");
    }
    if !path.starts_with('/') {
        return Err("the path of a socket must be absolute, as in unix:///run/otlp.sock");
    }
    Ok(Endpoint::Unix(path.into()))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Address { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Endpoint::Address { host, port } => write!(f, "{host}:{port}"),
            Endpoint::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_endpoints() {
        let tcp = |host: &str, port| {
            Ok(Endpoint::Address {
                host: host.to_owned(),
                port,
            })
        };
        let unix = |path: &str| Ok(Endpoint::Unix(path.into()));
        let plain = Some(Transport::Tcp(Family::Any));
        for (text, transport, expect) in [
            ("localhost:4317", None, tcp("localhost", 4317)),
            (":4317", None, tcp("", 4317)),
            ("[::1]:1", plain, tcp("::1", 1)),
            ("unix:///run/a.sock", None, unix("/run/a.sock")),
            ("unix:/run/a.sock", None, unix("/run/a.sock")),
            ("/run/a.sock", Some(Transport::Unix), unix("/run/a.sock")),
            ("unix:///a", Some(Transport::Unix), unix("/a")),
        ] {
            assert_eq!(parse(text, transport), expect, "{text}");
        }
        for (text, transport, part) in [
            ("localhost", None, "host:port"),
            ("localhost:70000", None, "host:port"),
            ("::1:1", None, "brackets"),
            ("[::1:1", None, "host:port"),
            ("http://localhost:4318", None, "without a scheme"),
            ("unix:///a", plain, "without a scheme"),
            ("a.sock", Some(Transport::Unix), "absolute"),
            ("unix://a.sock", None, "absolute"),
        ] {
            let problem = parse(text, transport).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
        let long = format!("unix:///{}", "a".repeat(107));
        assert!(parse(&long, None).unwrap_err().contains("107"));
    }
}
