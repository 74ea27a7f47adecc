//! `service::admin`: where the running agent is asked and told. An option of ours.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::section::Section;

/// Longest path of a socket. Source: `sun_path` of unix(7).
const SOCKET_PATH_MAX: usize = 107;

/// Where the admin API is served: at least one of the two.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AdminOptions {
    /// A socket in the file system, for its owner alone.
    pub socket: Option<PathBuf>,
    /// An address of this machine alone.
    pub endpoint: Option<AdminEndpoint>,
}

/// HTTP on a loopback address, which whoever is on the machine reaches: so it wants a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdminEndpoint {
    /// `host:port`.
    pub address: String,
    /// The file with the token.
    pub token_file: PathBuf,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "socket",
        "own: Absolute path of a socket at which the [admin API](RELOAD.md#ways-in) is served, for its owner alone (mode 0600). Its directory is made if it is missing.",
    ),
    (
        "endpoint",
        "own: `host:port` at which it is served over HTTP, with the [status page](RELOAD.md#the-status-page); a loopback address. Needs `token_file`.",
    ),
    (
        "token_file",
        "own: Absolute path of the file with the token that clients of `endpoint` send as `Authorization: Bearer TOKEN`; 16 characters at least. It may be replaced while the agent runs.",
    ),
];

/// Reads the section.
pub(crate) fn decode(s: &mut Section<'_, '_>) -> AdminOptions {
    s.describe(OPTIONS);
    let socket = absolute(s, "socket");
    if socket.as_ref().is_some_and(|p| p.len() > SOCKET_PATH_MAX) {
        let text = format!("the path of a socket has at most {SOCKET_PATH_MAX} bytes");
        s.invalid("socket", text);
    }
    let address = s.string_optional("endpoint");
    let token_file = absolute(s, "token_file");
    if let Some(address) = &address
        && !is_loopback(address)
    {
        s.invalid(
            "endpoint",
            "must be a loopback address such as 127.0.0.1:8890; to reach it from elsewhere, put a \
             proxy with TLS in front of it",
        );
    }
    if socket.is_none() && address.is_none() && token_file.is_none() {
        s.error("name a socket, or an endpoint with a token_file");
    }
    let endpoint = match (address, token_file) {
        (Some(address), Some(token_file)) => Some(AdminEndpoint {
            address,
            token_file: token_file.into(),
        }),
        (Some(_), None) => {
            s.invalid(
                "endpoint",
                "wants a token: set token_file to a file that only the agent's user can read, with \
                 the output of `openssl rand -hex 32`",
            );
            None
        }
        (None, Some(_)) => {
            let text = "has no effect without an endpoint; a socket is guarded by its mode";
            s.invalid("token_file", text);
            None
        }
        (None, None) => None,
    };
    AdminOptions {
        socket: socket.map(PathBuf::from),
        endpoint,
    }
}

/// What a relative path means depends on where the agent is started.
fn absolute(s: &mut Section<'_, '_>, key: &str) -> Option<String> {
    let path = s.string_optional(key)?;
    if !path.starts_with('/') {
        s.invalid(key, "must be an absolute path");
    }
    Some(path)
}

/// Whether `host:port` names an address that only this machine reaches.
pub fn is_loopback(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else {
        return false;
    };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let ip = match bare {
        Some(v6) => v6.parse().map(IpAddr::V6).ok(),
        None => host.parse().map(IpAddr::V4).ok(),
    };
    let local = ip.is_some_and(|ip| ip.is_loopback()) || host.eq_ignore_ascii_case("localhost");
    local && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Errors, parse};

    fn read(yaml: &str) -> Result<AdminOptions, String> {
        let node = parse(yaml, "a.yaml").unwrap();
        let mut errors = Errors::new();
        let mut section = Section::new(&node, "service::admin", &mut errors);
        let options = decode(&mut section);
        section.finish();
        errors.into_result(options).map_err(|e| e.to_string())
    }

    #[test]
    fn a_socket_and_a_guarded_endpoint_of_this_machine_are_taken() {
        let both = read("{socket: /run/a, endpoint: 'localhost:1', token_file: /run/t}").unwrap();
        assert_eq!(both.socket, Some("/run/a".into()));
        assert_eq!(both.endpoint.unwrap().token_file, PathBuf::from("/run/t"));
        for address in ["127.0.0.1:13133", "127.9.9.9:0", "[::1]:80"] {
            assert!(read(&format!("{{endpoint: '{address}', token_file: /t}}")).is_ok());
        }
    }

    /// Guarantee: nothing that others could reach, or reach without a token, gets past validation.
    #[test]
    fn everything_else_is_refused_with_a_remedy() {
        for address in [
            "0.0.0.0:1",
            "10.0.0.1:1",
            "[::]:1",
            "::1:1",
            ":1",
            "127.0.0.1",
            "127.0.0.1:99999",
            "example.org:1",
            "localhost.example.org:1",
        ] {
            let text = read(&format!("{{endpoint: '{address}', token_file: /t}}")).unwrap_err();
            assert!(text.contains("loopback"), "{address}: {text}");
        }
        let long = format!("{{socket: /{}}}", "a".repeat(SOCKET_PATH_MAX));
        for (yaml, want) in [
            ("{}", "name a socket"),
            ("{endpoint: '127.0.0.1:1'}", "token_file"),
            ("{token_file: /t}", "without an endpoint"),
            ("{socket: a}", "absolute"),
            ("{socket: /a, token: b}", "token"),
            (&long, "107"),
        ] {
            let text = read(yaml).unwrap_err();
            assert!(text.contains(want), "{yaml}: {text}");
        }
    }
}
