//! Where requests go.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::Uri;
use hyper::header::HeaderValue;

/// Why an endpoint cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("endpoint {endpoint:?}: {problem}")]
pub struct EndpointError {
    /// The endpoint with a password cut out.
    pub endpoint: String,
    /// What is wrong with it.
    pub problem: String,
}

/// A parsed `http://` or `https://` URL.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// True for `https`.
    pub https: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port, explicit or the scheme's.
    pub port: u16,
    /// Path and query, at least `/`.
    pub path: String,
    /// `Authorization: Basic` made from `user:password@`, if present.
    pub(super) basic: Option<HeaderValue>,
    explicit_port: bool,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the query, which may hold an API key.
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{}://{}{path}", self.scheme(), self.authority())
    }
}

impl Endpoint {
    /// Parses a URL such as `https://user:password@loki.example:3100/loki/api/v1/push`.
    pub fn parse(url: &str) -> Result<Endpoint, EndpointError> {
        let fail = |problem: &str| EndpointError {
            endpoint: without_password(url),
            problem: problem.to_owned(),
        };
        if !url.contains("://") {
            return Err(fail("a URL with http:// or https:// is needed"));
        }
        let uri: Uri = url.parse().map_err(|e| fail(&format!("not a URL: {e}")))?;
        let https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(fail("only http:// and https:// are supported")),
        };
        let authority = uri.authority().ok_or_else(|| fail("the host is missing"))?;
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        if host.is_empty() {
            return Err(fail("the host is missing"));
        }
        let userinfo = authority.as_str().rsplit_once('@').map(|(user, _)| user);
        let explicit = authority.as_str().rsplit('@').next().unwrap_or_default();
        let has_port = explicit
            .rsplit(']')
            .next()
            .unwrap_or_default()
            .contains(':');
        if has_port && authority.port_u16().is_none() {
            return Err(fail("the port is not a number up to 65535"));
        }
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        Ok(Endpoint {
            https,
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(if https { 443 } else { 80 }),
            path: if path.is_empty() {
                "/".to_owned()
            } else {
                path.to_owned()
            },
            basic: userinfo
                .map(basic_from_userinfo)
                .transpose()
                .map_err(|p| fail(&p))?,
            explicit_port: authority.port_u16().is_some(),
        })
    }

    /// The same server with `suffix` behind the path, one slash between them.
    pub fn join(&self, suffix: &str) -> Endpoint {
        let path = format!(
            "{}/{}",
            self.path.trim_end_matches('/'),
            suffix.trim_start_matches('/')
        );
        Endpoint {
            path,
            ..self.clone()
        }
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// Host, and the port if one was written, as in a `Host` header.
    pub fn authority(&self) -> String {
        let host = bracketed(&self.host);
        if self.explicit_port {
            format!("{host}:{}", self.port)
        } else {
            host
        }
    }

    /// The same server over TLS.
    pub fn with_tls(&self) -> Endpoint {
        Endpoint {
            https: true,
            ..self.clone()
        }
    }

    /// Whether a port was written.
    pub fn has_port(&self) -> bool {
        self.explicit_port
    }

    /// Host and port, always both.
    pub fn host_port(&self) -> String {
        format!("{}:{}", bracketed(&self.host), self.port)
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// `Basic` credentials (RFC 7617).
pub(super) fn basic(user: &str, password: &str) -> Result<HeaderValue, String> {
    if user.contains(':') {
        return Err("a user name must not contain a colon (RFC 7617)".to_owned());
    }
    let text = format!(
        "Basic {}",
        BASE64_STANDARD.encode(format!("{user}:{password}"))
    );
    let mut value = HeaderValue::from_str(&text).map_err(|e| e.to_string())?;
    value.set_sensitive(true);
    Ok(value)
}

fn basic_from_userinfo(userinfo: &str) -> Result<HeaderValue, String> {
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    basic(&percent_decoded(user)?, &percent_decoded(password)?)
}

/// A user or password without its % escapes.
pub(super) fn percent_decoded(text: &str) -> Result<String, String> {
    let bad = || "the user or password has a broken % escape".to_owned();
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        let mut digit = || {
            bytes
                .next()
                .and_then(|b| char::from(b).to_digit(16))
                .ok_or_else(bad)
        };
        let (high, low) = (digit()?, digit()?);
        out.push((high * 16 + low) as u8);
    }
    String::from_utf8(out).map_err(|_| bad())
}

/// For error texts.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://[REDACTED]{}", &rest[at..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (url, https, host, port, path, shown) in [
            (
                "http://loki:3100/push?x=1",
                false,
                "loki",
                3100,
                "/push?x=1",
                "http://loki:3100/push",
            ),
            ("https://loki", true, "loki", 443, "/", "https://loki/"),
            (
                "http://[::1]:80/a",
                false,
                "::1",
                80,
                "/a",
                "http://[::1]:80/a",
            ),
            ("https://[::1]", true, "::1", 443, "/", "https://[::1]/"),
            ("https://u:p%40@h:1/", true, "h", 1, "/", "https://h:1/"),
        ] {
            let e = Endpoint::parse(url).unwrap();
            let got = (e.https, e.host.as_str(), e.port, e.path.as_str());
            assert_eq!(got, (https, host, port, path), "{url}");
            assert_eq!(format!("{e}"), shown);
        }
        let e = Endpoint::parse("http://user:p%40ss@h/").unwrap();
        assert_eq!(e.basic.unwrap().to_str().unwrap(), "Basic dXNlcjpwQHNz");
    }

    #[test]
    fn what_is_not_a_url_is_named_without_its_password() {
        for (url, problem) in [
            ("loki:3100", "http:// or https://"),
            ("ftp://loki", "only http:// and https://"),
            ("http://", "not a URL"),
            ("http://h:99999/", "port"),
            ("http://me:secret@h:x/", "[REDACTED]"),
            ("http://me:%zz@h/", "escape"),
            ("", "http:// or https://"),
        ] {
            let text = Endpoint::parse(url).unwrap_err().to_string();
            assert!(text.contains(problem), "{url}: {text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn a_suffix_is_joined_with_one_slash() {
        let e = Endpoint::parse("http://h/otlp/").unwrap();
        assert_eq!(e.join("/v1/logs").path, "/otlp/v1/logs");
    }
}
