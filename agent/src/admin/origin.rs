//! What a browser was made to send by a page of somebody else.
//!
//! A page that a browser shows may send requests to every address that the browser reaches, loopback ones
//! too; and by a name of its own that leads to such an address it may even read the answers (DNS
//! rebinding). The token keeps such pages out where there is one. At a socket that SSH or a proxy forwards
//! there is none; so this is asked of each request, at each way in.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::Uri;
use hyper::header::{HOST, HeaderName, ORIGIN};

/// Where the page is from that made the request; browsers say so to addresses they trust.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is turned away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Foreign {
    /// It was sent to a name that is not the agent's.
    Host,
    /// The page that sent it is from elsewhere.
    Site,
}

/// Whether a request is of somebody else's making. `own` is the name of the configured endpoint;
/// `page` says that a file of the page is asked for, which a link elsewhere may lead to.
pub fn foreign(uri: &Uri, headers: &HeaderMap, own: Option<&str>, page: bool) -> Option<Foreign> {
    let host = uri.authority().map(|a| a.as_str().as_bytes());
    let host = host.or_else(|| headers.get(HOST).map(|h| h.as_bytes()));
    // No browser leaves it out.
    let host = host.map(String::from_utf8_lossy);
    if host.as_deref().is_some_and(|h| !is_own(name_of(h), own)) {
        return Some(Foreign::Host);
    }
    if page {
        return None;
    }
    let same = match (headers.get(FETCH_SITE), headers.get(ORIGIN)) {
        (Some(site), _) => matches!(site.as_bytes(), b"same-origin" | b"none"),
        (None, Some(origin)) => {
            let origin = String::from_utf8_lossy(origin.as_bytes());
            let place = origin.split_once("://").map(|(_, place)| place);
            place.is_some_and(|p| host.is_some_and(|h| h.eq_ignore_ascii_case(p)))
        }
        (None, None) => true,
    };
    (!same).then_some(Foreign::Site)
}

/// The name of `name:port`.
pub fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// An address leads nowhere else than where it says, and nobody else may have `localhost`.
fn is_own(name: &str, own: Option<&str>) -> bool {
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let lower = name.to_ascii_lowercase();
    bare.unwrap_or(name).parse::<IpAddr>().is_ok()
        || lower == "localhost"
        || lower.ends_with(".localhost")
        || own.is_some_and(|own| own.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uri: &str, headers: &[(&'static str, &str)], page: bool) -> Option<Foreign> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        foreign(&uri.parse().unwrap(), &map, Some("agent.internal"), page)
    }

    /// Guarantee: only by an address, `localhost` or the configured name is anything had.
    #[test]
    fn names_of_others_lead_nowhere() {
        for host in [
            "127.0.0.1:8890",
            "127.0.0.1",
            "[::1]:8890",
            "[::1]",
            "localhost:1",
            "LOCALHOST",
            "a.localhost:8890",
            "agent.internal:8890",
            "Agent.Internal",
        ] {
            assert_eq!(of("/v1/graph", &[("host", host)], false), None, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8890",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "evillocalhost",
            "",
            "127.0.0.1:80@evil.example",
            "agent.internal.evil.example",
        ] {
            for page in [false, true] {
                let got = of("/", &[("host", host)], page);
                assert_eq!(got, Some(Foreign::Host), "{host}");
            }
        }
        // The whole address of a request counts before its header.
        let got = of(
            "http://evil.example/v1/graph",
            &[("host", "localhost")],
            false,
        );
        assert_eq!(got, Some(Foreign::Host));
        assert_eq!(of("/v1/graph", &[], false), None);
    }

    /// Guarantee: pages of others get nothing but the page, which says nothing.
    #[test]
    fn pages_of_others_get_nothing() {
        let host = ("host", "localhost:8890");
        let of = |header, page| of("/v1/config", &[host, header], page);
        for fine in [
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "none"),
            ("origin", "http://localhost:8890"),
        ] {
            assert_eq!(of(fine, false), None, "{fine:?}");
        }
        for not in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", ""),
            ("origin", "http://evil.example"),
            ("origin", "http://localhost:8891"),
            ("origin", "null"),
        ] {
            assert_eq!(of(not, false), Some(Foreign::Site), "{not:?}");
            assert_eq!(of(not, true), None, "{not:?}");
        }
    }
}
