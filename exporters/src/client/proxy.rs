//! Which proxy a request takes: `proxy_url`, or the environment as Go programs read it.

use std::fmt;
use std::net::IpAddr;

use super::endpoint::{Endpoint, percent_decoded};
use super::socks::{self, Login};

/// A server in between.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Proxy {
    /// Where it is. Of one for HTTP also who we are.
    pub server: Endpoint,
    /// What it speaks.
    pub kind: ProxyKind,
}

/// What a proxy speaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum ProxyKind {
    /// HTTP, over TLS if its endpoint says so: plain requests go to it, for anything else it is asked for a tunnel.
    Http,
    /// SOCKS 5: it is asked for a tunnel.
    Socks(Option<Login>),
}

impl Proxy {
    /// Whether it takes plain requests itself.
    pub fn takes_requests(&self) -> bool {
        self.kind == ProxyKind::Http
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            ProxyKind::Http => self.server.scheme(),
            ProxyKind::Socks(_) => "socks5",
        };
        write!(f, "{scheme}://{}", self.server.host_port())
    }
}

/// Why a proxy cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{source_name}: {problem}")]
pub struct ProxyError {
    /// The option or variable it comes from.
    pub source_name: &'static str,
    /// What is wrong.
    pub problem: String,
}

/// The environment variables that choose a proxy. Upper case wins over lower case.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ProxyEnv {
    /// `HTTP_PROXY`: for `http` endpoints.
    pub http: Option<String>,
    /// `HTTPS_PROXY`: for `https` endpoints.
    pub https: Option<String>,
    /// `NO_PROXY`: who is reached directly.
    pub no_proxy: Option<String>,
}

impl ProxyEnv {
    /// Reads the variables through `get`.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> ProxyEnv {
        let either = |upper: &str| {
            let lower = upper.to_ascii_lowercase();
            get(upper).or_else(|| get(&lower)).filter(|v| !v.is_empty())
        };
        ProxyEnv {
            http: either("HTTP_PROXY"),
            https: either("HTTPS_PROXY"),
            no_proxy: either("NO_PROXY"),
        }
    }

    /// Reads the variables of this process.
    pub fn of_process() -> ProxyEnv {
        ProxyEnv::read(|name| std::env::var(name).ok())
    }

    /// The proxy for `target`. As in Go: none for `localhost` and loopback addresses.
    pub(super) fn proxy_for(&self, target: &Endpoint) -> Result<Option<Proxy>, ProxyError> {
        let (name, url) = if target.https {
            ("HTTPS_PROXY", &self.https)
        } else {
            ("HTTP_PROXY", &self.http)
        };
        let Some(url) = url else { return Ok(None) };
        let loopback = target.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        if loopback || target.host.eq_ignore_ascii_case("localhost") {
            return Ok(None);
        }
        let exceptions = self.no_proxy.as_deref().unwrap_or_default();
        if exceptions.split(',').any(|e| excepts(e.trim(), target)) {
            return Ok(None);
        }
        let with_scheme = if url.contains("://") {
            url.clone()
        } else {
            format!("http://{url}")
        };
        parse(name, &with_scheme).map(Some)
    }
}

/// The proxy that `proxy_url` names: for every request, whatever the environment says.
pub(super) fn parse(source_name: &'static str, url: &str) -> Result<Proxy, ProxyError> {
    let fail = |problem: String| ProxyError {
        source_name,
        problem,
    };
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    match scheme.to_ascii_lowercase().as_str() {
        "socks5" | "socks5h" => parse_socks(rest).map_err(fail),
        "http" | "https" => {
            let server = Endpoint::parse(url).map_err(|e| fail(e.problem))?;
            let kind = ProxyKind::Http;
            Ok(Proxy { server, kind })
        }
        "" => Err(fail(
            "a URL with http://, https://, socks5:// or socks5h:// is needed".to_owned(),
        )),
        _ => Err(fail(
            "only http://, https://, socks5:// and socks5h:// proxies are supported".to_owned(),
        )),
    }
}

/// What stands behind `socks5://`.
fn parse_socks(rest: &str) -> Result<Proxy, String> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (userinfo, host) = match authority.rsplit_once('@') {
        Some((userinfo, host)) => (Some(userinfo), host),
        None => (None, authority),
    };
    let login = userinfo.map(|userinfo| {
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        Login::new(percent_decoded(user)?, percent_decoded(password)?)
    });
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    let mut server = Endpoint::parse(&format!("http://{host}")).map_err(|e| e.problem)?;
    if !server.has_port() {
        server.port = socks::PORT;
    }
    Ok(Proxy {
        server,
        kind: ProxyKind::Socks(login.transpose()?),
    })
}

/// One entry of `NO_PROXY`: `*`, an address, a range, or a domain, with an optional port. A domain
/// stands for itself and what is below it; with a leading dot (or `*.`) only for what is below.
fn excepts(entry: &str, target: &Endpoint) -> bool {
    if entry.is_empty() {
        return false;
    }
    if entry == "*" {
        return true;
    }
    let ip: Option<IpAddr> = target.host.parse().ok();
    if let Some((net, bits)) = entry.split_once('/') {
        let range = net.parse::<IpAddr>().ok().zip(bits.parse::<u32>().ok());
        return range
            .zip(ip)
            .is_some_and(|((net, bits), ip)| in_range(net, bits, ip));
    }
    let (host, port) = split_port(entry);
    if port.is_some_and(|p| p != target.port) {
        return false;
    }
    if let Ok(entry_ip) = host.parse::<IpAddr>() {
        return ip == Some(entry_ip);
    }
    let (host, name) = (host.to_ascii_lowercase(), target.host.to_ascii_lowercase());
    let name = name.trim_end_matches('.');
    let below = host.strip_prefix('*').unwrap_or(&host);
    match below.strip_prefix('.') {
        Some(_) => name.ends_with(below),
        None => {
            name == below
                || name
                    .strip_suffix(below)
                    .is_some_and(|rest| rest.ends_with('.'))
        }
    }
}

/// Host without brackets, and the port if there is one.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    if let Some(rest) = entry.strip_prefix('[') {
        let (host, after) = rest.split_once(']').unwrap_or((rest, ""));
        return (host, after.strip_prefix(':').and_then(|p| p.parse().ok()));
    }
    if entry.parse::<IpAddr>().is_ok() {
        return (entry, None);
    }
    match entry
        .rsplit_once(':')
        .map(|(host, port)| (host, port.parse()))
    {
        Some((host, Ok(port))) => (host, Some(port)),
        _ => (entry, None),
    }
}

fn in_range(net: IpAddr, bits: u32, ip: IpAddr) -> bool {
    match (net, ip) {
        (IpAddr::V4(n), IpAddr::V4(i)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            (n.to_bits() & mask) == (i.to_bits() & mask)
        }
        (IpAddr::V6(n), IpAddr::V6(i)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            (n.to_bits() & mask) == (i.to_bits() & mask)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(no_proxy: &str, url: &str) -> Option<u16> {
        let env = ProxyEnv {
            http: Some("plain:1".into()),
            https: Some("http://secure:2".into()),
            no_proxy: Some(no_proxy.into()),
        };
        env.proxy_for(&Endpoint::parse(url).unwrap())
            .unwrap()
            .map(|p| p.server.port)
    }

    #[test]
    fn the_scheme_of_the_endpoint_chooses_the_variable() {
        assert_eq!(choice("", "http://a.example/"), Some(1));
        assert_eq!(choice("", "https://a.example/"), Some(2));
        for local in ["http://localhost/", "http://127.0.0.2/", "https://[::1]/"] {
            assert_eq!(choice("", local), None, "{local}");
        }
    }

    #[test]
    fn no_proxy_is_read_as_go_does() {
        for (entry, url, direct) in [
            ("*", "http://a.example/", true),
            ("a.example", "http://a.example/", true),
            ("A.example", "http://b.a.Example/", true),
            ("a.example", "http://ba.example/", false),
            (".a.example", "http://a.example/", false),
            (".a.example", "http://b.a.example/", true),
            ("*.a.example", "http://b.a.example/", true),
            ("x, a.example:8080", "http://a.example:8080/", true),
            ("a.example:8080", "http://a.example/", false),
            ("10.0.0.0/8", "http://10.1.2.3/", true),
            ("10.0.0.0/8", "http://11.1.2.3/", false),
            ("0.0.0.0/0", "http://11.1.2.3/", true),
            ("10.1.2.3", "http://10.1.2.3/", true),
            ("10.1.2.3:80", "http://10.1.2.3/", true),
            ("fd00::/8", "http://[fd00::1]/", true),
            ("fd00::1", "http://[fd00::1]/", true),
            ("[fd00::1]:80", "http://[fd00::1]:81/", false),
            ("10.0.0.0/99", "http://10.0.0.1/", false),
            ("", "http://a.example/", false),
        ] {
            assert_eq!(choice(entry, url).is_none(), direct, "{entry} {url}");
        }
    }

    #[test]
    fn upper_case_variables_win_and_empty_ones_do_not_count() {
        let env = ProxyEnv::read(|name| match name {
            "HTTP_PROXY" => Some("up:1".into()),
            "http_proxy" => Some("low:1".into()),
            "https_proxy" => Some("low:2".into()),
            "NO_PROXY" => Some(String::new()),
            _ => None,
        });
        assert_eq!(env.http.as_deref(), Some("up:1"));
        assert_eq!((env.https.as_deref(), env.no_proxy), (Some("low:2"), None));
    }

    #[test]
    fn proxies_are_taken_apart() {
        let login = |user: &str, password: &str| Login::new(user.into(), password.into()).unwrap();
        let socks = |login: Option<Login>| ProxyKind::Socks(login);
        for (url, at, kind) in [
            ("http://p", "p:80", ProxyKind::Http),
            ("HTTP://u:pw@p:3128/", "p:3128", ProxyKind::Http),
            ("https://u:pw@p", "p:443", ProxyKind::Http),
            ("socks5://p", "p:1080", socks(None)),
            ("SOCKS5H://[::1]:9/x", "[::1]:9", socks(None)),
            ("socks5://u@p", "p:1080", socks(Some(login("u", "")))),
            (
                "socks5://u%40x:a:b%25@p:1",
                "p:1",
                socks(Some(login("u@x", "a:b%"))),
            ),
        ] {
            let proxy = parse("proxy_url", url).unwrap();
            assert_eq!(
                (proxy.server.host_port().as_str(), &proxy.kind),
                (at, &kind)
            );
            assert!(!format!("{proxy} {proxy:?}").contains("a:b"), "{url}");
        }
    }

    #[test]
    fn what_is_no_usable_proxy_says_why_and_shows_no_password() {
        let long = "s3cret".repeat(50);
        for (url, part) in [
            ("socks4://u:s3cret@p:1", "socks5h://"),
            ("u:s3cret@p:1", "http://"),
            ("socks5://u:s3cret@", "the host is missing"),
            ("socks5://u:s3cret@p:99999", "65535"),
            ("socks5://u:s3cret%@p", "% escape"),
            ("socks5://:s3cret@p", "1 to 255 bytes"),
            (&format!("socks5://u:{long}@p"), "1 to 255 bytes"),
        ] {
            let error = parse("proxy_url", url).unwrap_err().to_string();
            assert!(error.starts_with("proxy_url: "), "{error}");
            assert!(error.contains(part) && !error.contains("s3cret"), "{error}");
        }
    }
}
