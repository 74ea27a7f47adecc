//! Cookies: what servers want to be told again (RFC 6265), such as which of several servers behind one
//! address a client belongs to.
//!
//! A client speaks with the servers that its configuration names, so a cookie goes back to the host that
//! set it and to no other: no list of the domains that many share is needed.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::HeaderMap;
use hyper::header::{COOKIE, HeaderValue, SET_COOKIE};
use tokio::time::Instant;

use super::endpoint::Endpoint;
use super::http_date::unix_ns;

/// Cookies that are kept; beyond it the oldest one goes.
const COOKIES_MAX: usize = 64;
/// Bytes of one, name and value; larger ones are ignored.
const COOKIE_BYTES_MAX: usize = 4 << 10;

struct Cookie {
    host: String,
    path: String,
    name: String,
    value: String,
    /// Only over TLS.
    secure: bool,
    until: Option<Instant>,
}

impl Cookie {
    fn is_for(&self, endpoint: &Endpoint) -> bool {
        let (path, own) = (path_of(endpoint), &*self.path);
        let below = path.strip_prefix(own);
        self.host.eq_ignore_ascii_case(&endpoint.host)
            && (endpoint.https || !self.secure)
            && below
                .is_some_and(|rest| rest.is_empty() || own.ends_with('/') || rest.starts_with('/'))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// The cookies of one client.
#[derive(Default)]
pub(super) struct Jar(Mutex<Vec<Cookie>>);

impl Jar {
    fn lock(&self) -> MutexGuard<'_, Vec<Cookie>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Adds what the server wants to be told to the headers of a request.
    pub fn add_to(&self, endpoint: &Endpoint, headers: &mut HeaderMap) {
        let now = Instant::now();
        let mut kept = self.lock();
        kept.retain(|cookie| !cookie.is_over(now));
        let mut wanted: Vec<_> = kept.iter().filter(|c| c.is_for(endpoint)).collect();
        wanted.sort_by_key(|c| std::cmp::Reverse(c.path.len()));
        let pairs = wanted.iter().map(|c| format!("{}={}", c.name, c.value));
        let text = pairs.collect::<Vec<_>>().join("; ");
        if text.is_empty() {
            return;
        }
        if let Ok(mut value) = HeaderValue::from_str(&text) {
            value.set_sensitive(true);
            headers.insert(COOKIE, value);
        }
    }

    /// Keeps what an answer sets.
    pub fn note(&self, endpoint: &Endpoint, answer: &HeaderMap) {
        for value in answer.get_all(SET_COOKIE) {
            let Some(cookie) = value.to_str().ok().and_then(|t| parse(t, endpoint)) else {
                continue;
            };
            let mut kept = self.lock();
            let same = |c: &Cookie| {
                (&c.host, &c.path, &c.name) == (&cookie.host, &cookie.path, &cookie.name)
            };
            kept.retain(|c| !same(c));
            if cookie.is_over(Instant::now()) {
                continue;
            }
            if kept.len() >= COOKIES_MAX {
                kept.remove(0);
            }
            kept.push(cookie);
        }
    }
}

fn path_of(endpoint: &Endpoint) -> &str {
    endpoint.path.split('?').next().unwrap_or("/")
}

/// The cookie that a `Set-Cookie` header sets, if it is for this host.
fn parse(text: &str, endpoint: &Endpoint) -> Option<Cookie> {
    let mut parts = text.split(';').map(str::trim);
    let (name, value) = parts.next()?.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() || name.len() + value.len() > COOKIE_BYTES_MAX {
        return None;
    }
    let directory = path_of(endpoint).rsplit_once('/').map_or("", |(d, _)| d);
    let mut cookie = Cookie {
        host: endpoint.host.clone(),
        path: if directory.is_empty() { "/" } else { directory }.to_owned(),
        name: name.to_owned(),
        value: value.to_owned(),
        secure: false,
        until: None,
    };
    let now = Instant::now();
    let (mut age, mut expires) = (None, None);
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        match &*key {
            "secure" => cookie.secure = true,
            "path" if value.starts_with('/') => cookie.path = value.to_owned(),
            "domain" if !is_within(&endpoint.host, value.trim_start_matches('.')) => return None,
            "max-age" => age = value.parse::<i64>().ok().or(age),
            "expires" => expires = date(value).or(expires),
            _ => {}
        }
    }
    let left = age.map(|seconds| u64::try_from(seconds).unwrap_or(0));
    let left = left.map(Duration::from_secs).or_else(|| {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let wall = i64::try_from(wall.as_nanos()).ok()?;
        let left = expires?.saturating_sub(wall);
        Some(Duration::from_nanos(u64::try_from(left).unwrap_or(0)))
    });
    // Later than can be told is never.
    cookie.until = left.and_then(|left| now.checked_add(left));
    Some(cookie)
}

/// Whether a host is `domain` or within it.
fn is_within(host: &str, domain: &str) -> bool {
    let (host, domain) = (host.to_ascii_lowercase(), domain.to_ascii_lowercase());
    let above = host.strip_suffix(&*domain);
    let above = above.filter(|_| host.parse::<std::net::IpAddr>().is_err() || host == domain);
    above.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// ns since the epoch of a date as servers write them in cookies (RFC 6265, 5.1.1).
fn date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ];
    let (mut clock, mut day, mut month, mut year) = (None, None, None, None);
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == ':';
    for part in text.split(|c| !is_part(c)).filter(|p| !p.is_empty()) {
        let number = part.parse::<i64>().ok().filter(|n| *n >= 0);
        let lower = part.to_ascii_lowercase();
        let named = MONTHS.iter().position(|m| lower.starts_with(m));
        match (number, part.len()) {
            (None, _) if clock.is_none() && part.contains(':') => {
                let numbers: Result<Vec<i64>, _> = part.split(':').map(str::parse).collect();
                let [hour, minute, second] = numbers.ok()?[..] else {
                    return None;
                };
                clock = Some((hour, minute, second));
            }
            (None, _) if month.is_none() => month = named.map(|m| m as i64 + 1),
            (Some(n), 1 | 2) if day.is_none() => day = Some(n),
            (Some(n), 2 | 4) if year.is_none() => {
                year = Some(match n {
                    0..70 => n + 2000,
                    70..100 => n + 1900,
                    n => n,
                });
            }
            _ => {}
        }
    }
    let year = year.filter(|y| *y >= 1601)?;
    unix_ns((year, month?, day?), clock?, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        Endpoint::parse(url).unwrap()
    }

    fn sent(jar: &Jar, url: &str) -> String {
        let mut headers = HeaderMap::new();
        jar.add_to(&endpoint(url), &mut headers);
        let value = headers.get(COOKIE).map(|v| v.to_str().unwrap());
        value.unwrap_or_default().to_owned()
    }

    fn set(jar: &Jar, url: &str, cookies: &[&str]) {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(SET_COOKIE, cookie.parse().unwrap());
        }
        jar.note(&endpoint(url), &headers);
    }

    /// Guarantee: a cookie goes back where it belongs, and nowhere else.
    #[test]
    fn cookies_go_back_where_they_belong() {
        let url = "https://a.example.com/v1/logs?x=1";
        for (cookie, to, expect) in [
            ("n=v", url, "n=v"),
            ("n=v", "https://a.example.com/v1/other", "n=v"),
            ("n=v", "https://A.example.com:99/v1", "n=v"),
            ("n=v", "https://a.example.com/v2", ""),
            ("n=v", "https://a.example.com/v11", ""),
            ("n=v", "https://b.example.com/v1/logs", ""),
            (" n = \"v=w\" ; HttpOnly", url, "n=\"v=w\""),
            ("n=v; Path=/", "http://a.example.com/", "n=v"),
            ("n=v; Path=/; Secure", "http://a.example.com/", ""),
            ("n=v; path=elsewhere", url, "n=v"),
            ("n=v; Path=/v1/", "https://a.example.com/v1/x", "n=v"),
            ("n=v; Path=/v1/logs", "https://a.example.com/v1", ""),
            ("n=v; Domain=.Example.com", url, "n=v"),
            (
                "n=v; Domain=example.com",
                "https://b.example.com/v1/logs",
                "",
            ),
            ("n=v; Domain=xample.com", url, ""),
            ("n=v; Domain=other.com", url, ""),
            ("n=v; Max-Age=60", url, "n=v"),
            ("n=v; Max-Age=0", url, ""),
            (
                "n=v; Max-Age=-5; Expires=Fri, 01 Jan 2100 00:00:00 GMT",
                url,
                "",
            ),
            (
                "n=v; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
                url,
                "n=v",
            ),
            ("n=v; Max-Age=soon", url, "n=v"),
            ("n=v; Max-Age=9223372036854775807", url, "n=v"),
            ("n=v; Expires=Thu, 01-Jan-1970 00:00:00 GMT", url, ""),
            ("n=v; Expires=Thu, 01-Jan-98 00:00:00 GMT", url, ""),
            ("n=v; Expires=whenever", url, "n=v"),
            ("n", url, ""),
            ("=v", url, ""),
        ] {
            let jar = Jar::default();
            set(&jar, url, &[cookie]);
            assert_eq!(sent(&jar, to), expect, "{cookie}, {to}");
        }
        let jar = Jar::default();
        set(&jar, "http://10.0.0.1/", &["n=v; Domain=0.0.1", "m=v"]);
        assert_eq!(sent(&jar, "http://10.0.0.1/"), "m=v");
    }

    #[test]
    fn a_cookie_is_replaced_deleted_and_ends() {
        let url = "http://h/a/b/c";
        let jar = Jar::default();
        set(&jar, url, &["n=1", "m=1; Path=/a", "o=1; Path=/"]);
        assert_eq!(sent(&jar, url), "n=1; m=1; o=1", "the longest path first");
        set(&jar, url, &["n=2", "m=; Path=/a; Max-Age=0"]);
        assert_eq!(sent(&jar, url), "n=2; o=1");
        set(&jar, url, &["n=3; Max-Age=0"]);
        assert_eq!(sent(&jar, url), "o=1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cookie_ends_in_time() {
        let url = "http://h/";
        let jar = Jar::default();
        set(&jar, url, &["n=1; Max-Age=60", "m=1"]);
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(sent(&jar, url), "n=1; m=1");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(sent(&jar, url), "m=1");
    }

    /// Guarantee: however many a server sets, and however large, memory is bounded.
    #[test]
    fn a_jar_has_a_bottom() {
        let url = "http://h/";
        let jar = Jar::default();
        let large = "x".repeat(COOKIE_BYTES_MAX);
        set(&jar, url, &[&format!("large={large}")]);
        assert_eq!(sent(&jar, url), "");
        for n in 0..1000 {
            set(&jar, url, &[&format!("n{n}=v")]);
        }
        assert_eq!(jar.lock().len(), COOKIES_MAX);
        assert!(sent(&jar, url).ends_with("n999=v"));
    }

    #[test]
    fn dates_as_servers_write_them() {
        for (text, seconds) in [
            ("Wed, 21 Oct 2015 07:28:00 GMT", 1_445_412_480),
            ("Wednesday, 21-Oct-15 07:28:00 GMT", 1_445_412_480),
            ("Wed Oct 21 07:28:00 2015", 1_445_412_480),
        ] {
            assert_eq!(date(text), Some(seconds * 1_000_000_000), "{text}");
        }
        for text in [
            "",
            "21 Oct 2015",
            "Oct 21 07:28 2015",
            "99 Oct 2015 07:28:00",
        ] {
            assert_eq!(date(text), None, "{text}");
        }
    }
}
