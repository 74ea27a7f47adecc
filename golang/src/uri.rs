//! URIs as Go's `net/url` reads them: those of requests, for `uri_parser`, and any, for the converter
//! `URL` of OTTL.

use tailwater_pdata::{Map, Value};

/// Why a text is no URI.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UriError {
    /// What is wrong, and where.
    #[error("not a URI: {what} at byte {at}")]
    Wrong {
        /// What is wrong.
        what: &'static str,
        /// Where in the text.
        at: usize,
    },
    /// Too many parameters.
    #[error("more than {0} parameters")]
    TooMany(usize),
}

pub(crate) fn error(what: &'static str, at: usize) -> UriError {
    UriError::Wrong { what, at }
}

/// A part of a URI.
#[derive(Debug, PartialEq)]
pub enum Part {
    /// As it stands in the text.
    Span(usize, usize),
    /// Decoded or encoded.
    Made(Vec<u8>),
}

/// The parts of the URI of a request. Operators keep them where they stand.
#[derive(Debug, Default, PartialEq)]
pub struct Parts {
    /// In lower case.
    pub scheme: Option<Part>,
    /// The name in front of a host, decoded.
    pub user: Option<Part>,
    /// What stands behind the name and a colon, decoded.
    pub password: Option<Part>,
    /// Decoded, without the brackets of an address.
    pub host: Option<Part>,
    /// Digits, or nothing.
    pub port: Option<Part>,
    /// As written where it is valid, else with escapes.
    pub path: Option<Part>,
    /// Where the query is, without its question mark.
    pub query: Option<(usize, usize)>,
}

impl Part {
    /// What it is, of the text that it was read from.
    pub(crate) fn bytes(self, text: &[u8]) -> Vec<u8> {
        match self {
            Part::Span(from, to) => text[from..to].to_vec(),
            Part::Made(made) => made,
        }
    }
}

impl Parts {
    /// Reads the URI of a request: absolute, or an absolute path. It has no fragment.
    ///
    /// # Errors
    /// It is none.
    pub fn read(text: &[u8]) -> Result<Parts, UriError> {
        let mut parts = Parts::default();
        if let Some(at) = text.iter().position(|b| *b < 0x20 || *b == 0x7f) {
            return Err(error("a control character", at));
        }
        if text.is_empty() {
            return Err(error("it is empty", 0));
        }
        if text == b"*" {
            parts.path = Some(Part::Span(0, 1));
            return Ok(parts);
        }
        let mut at = 0;
        if let Some(colon) = scheme(text)? {
            let scheme = &text[..colon];
            parts.scheme = Some(match scheme.iter().any(u8::is_ascii_uppercase) {
                true => Part::Made(scheme.to_ascii_lowercase()),
                false => Part::Span(0, colon),
            });
            at = colon + 1;
        }
        let mut end = text.len();
        if let Some(i) = memchr::memchr(b'?', &text[at..]) {
            parts.query = Some((at + i + 1, end));
            end = at + i;
        }
        if text[at..end].first() != Some(&b'/') {
            if parts.scheme.is_some() {
                // Opaque, as in mailto:a@b: it has no other parts.
                return Ok(parts);
            }
            return Err(error("neither a scheme nor an absolute path", 0));
        }
        if parts.scheme.is_some() && text[at..end].starts_with(b"//") {
            let from = at + 2;
            let slash = memchr::memchr(b'/', &text[from..end]);
            let to = slash.map_or(end, |i| from + i);
            parts.authority(text, from, to)?;
            at = to;
        }
        parts.path = Some(path(text, at, end)?);
        Ok(parts)
    }

    /// Reads what is between the slashes and the path.
    pub(crate) fn authority(
        &mut self,
        text: &[u8],
        from: usize,
        to: usize,
    ) -> Result<(), UriError> {
        let mut host_at = from;
        if let Some(i) = memchr::memrchr(b'@', &text[from..to]) {
            let (user, bad) = (&text[from..from + i], |b: &u8| {
                !b.is_ascii_alphanumeric() && !b"-._:~!$&'()*+,;=%@".contains(b)
            });
            if let Some(bad) = user.iter().position(bad) {
                return Err(error("a character that no user can have", from + bad));
            }
            host_at = from + i + 1;
            let colon = memchr::memchr(b':', user);
            let name_end = from + colon.unwrap_or(user.len());
            self.user = Some(decoded(text, from, name_end, Mode::Plain)?);
            if name_end < from + user.len() {
                let password = decoded(text, name_end + 1, from + user.len(), Mode::Plain)?;
                self.password = Some(password);
            }
        }
        let host = &text[host_at..to];
        let closed = match host.first() {
            Some(b'[') => {
                let close = memchr::memrchr(b']', host);
                Some(close.ok_or_else(|| error("a bracket that is never closed", host_at))?)
            }
            _ => None,
        };
        let after = closed.map_or(0, |i| i + 1);
        let colon = match closed {
            Some(_) => (after < host.len()).then_some(after),
            None => memchr::memrchr(b':', host),
        };
        let host_end = host_at + colon.unwrap_or(host.len());
        if let Some(colon) = colon {
            let port = &host[colon..];
            // An address of IPv6 needs brackets.
            let colons = closed.is_none() && host[..colon].contains(&b':');
            if port[0] != b':' || !port[1..].iter().all(u8::is_ascii_digit) || colons {
                return Err(error("a port that is no number", host_at + colon));
            }
            self.port = Some(Part::Span(host_at + colon + 1, to));
        }
        // Brackets are no part of the address in them.
        let (start, end) = match closed {
            Some(close) => (host_at + 1, host_at + close),
            None => (host_at, host_end),
        };
        self.host = Some(decoded(text, start, end, Mode::Host)?);
        Ok(())
    }
}

/// Where the colon behind a scheme is.
pub(crate) fn scheme(text: &[u8]) -> Result<Option<usize>, UriError> {
    for (i, b) in text.iter().enumerate() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if i > 0 => {}
            b':' if i == 0 => return Err(error("a scheme without a name", 0)),
            b':' => return Ok(Some(i)),
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// What may stand in a part and how `%` and `+` are read.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Mode {
    Plain,
    Host,
    Query,
}

pub(crate) fn unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~')
}

/// A part with its escapes decoded.
fn decoded(text: &[u8], from: usize, to: usize, mode: Mode) -> Result<Part, UriError> {
    let part = &text[from..to];
    if mode == Mode::Host {
        let bad = |b: &u8| {
            *b < 0x80 && *b != b'%' && !unreserved(*b) && !b"!$&'()*+,;=:[]<>\"".contains(b)
        };
        if let Some(i) = part.iter().position(bad) {
            return Err(error("a character that no host can have", from + i));
        }
    }
    match part
        .iter()
        .any(|b| *b == b'%' || (*b == b'+' && mode == Mode::Query))
    {
        false => Ok(Part::Span(from, to)),
        true => {
            let mut out = Vec::with_capacity(part.len());
            match decode(part, mode, &mut out) {
                None => Ok(Part::Made(out)),
                Some(at) => Err(error("an escape that is none", from + at)),
            }
        }
    }
}

/// Appends `part` decoded. Gives the place of an escape that is none.
pub(crate) fn decode(part: &[u8], mode: Mode, out: &mut Vec<u8>) -> Option<usize> {
    let mut at = 0;
    while at < part.len() {
        let b = part[at];
        at += 1;
        match b {
            b'%' => {
                let digit = |i: usize| Some(char::from(*part.get(i)?).to_digit(16)? as u8);
                let (Some(high), Some(low)) = (digit(at), digit(at + 1)) else {
                    return Some(at - 1);
                };
                // Hosts have escapes of bytes beyond ASCII and of % itself only.
                if mode == Mode::Host && high < 8 && (high, low) != (2, 5) {
                    return Some(at - 1);
                }
                out.push(high << 4 | low);
                at += 2;
            }
            b'+' if mode == Mode::Query => out.push(b' '),
            _ => out.push(b),
        }
    }
    None
}

/// The path as written if it is valid, else with escapes.
pub(crate) fn path(text: &[u8], from: usize, to: usize) -> Result<Part, UriError> {
    let part = &text[from..to];
    let plain = |b: &u8| unreserved(*b) || b"!$&'()*+,;=:@[]%/".contains(b);
    if part.iter().all(plain) {
        if memchr::memchr(b'%', part).is_some() {
            decoded(text, from, to, Mode::Plain)?;
        }
        return Ok(Part::Span(from, to));
    }
    let mut plain = Vec::with_capacity(part.len());
    if let Some(at) = decode(part, Mode::Plain, &mut plain) {
        return Err(error("an escape that is none", from + at));
    }
    let mut out = Vec::with_capacity(part.len() * 3);
    for b in plain {
        match unreserved(b) || b"$&+,/:;=@".contains(&b) {
            true => out.push(b),
            false => {
                let hex = |n: u8| b"0123456789ABCDEF"[usize::from(n)];
                out.extend([b'%', hex(b >> 4), hex(b & 15)]);
            }
        }
    }
    Ok(Part::Made(out))
}

/// The parameters of a query, each with its values. What is wrong is left out unless `strict`.
///
/// # Errors
/// A parameter that is wrong if `strict`, and more of them than `fields_max`.
pub fn parameters(query: &[u8], strict: bool, fields_max: usize) -> Result<Map, UriError> {
    let mut map = Map::new();
    let (mut found, mut at) = (0, 0);
    for pair in query.split(|b| *b == b'&') {
        let start = at;
        at += pair.len() + 1;
        if pair.is_empty() {
            continue;
        }
        found += 1;
        if found > fields_max {
            return Err(UriError::TooMany(fields_max));
        }
        let equals = memchr::memchr(b'=', pair);
        let key = &pair[..equals.unwrap_or(pair.len())];
        let value = equals.map_or(&[][..], |i| &pair[i + 1..]);
        let mut out = [Vec::new(), Vec::new()];
        let wrong = match memchr::memchr(b';', pair) {
            Some(_) => Some("a semicolon between parameters"),
            None => {
                let [k, v] = &mut out;
                let bad = decode(key, Mode::Query, k).or_else(|| decode(value, Mode::Query, v));
                bad.map(|_| "an escape that is none")
            }
        };
        match wrong {
            Some(what) if strict => return Err(error(what, start)),
            Some(_) => continue,
            None => {}
        }
        let [key, value] = out.map(|t| String::from_utf8_lossy(&t).into_owned());
        match map.get_mut(&key) {
            Some(Value::List(values)) => values.push(Value::from(value)),
            _ => {
                map.insert(key, Value::List(vec![Value::from(value)]));
            }
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts as text: scheme, user, host, port, path, query.
    fn read(text: &str) -> Result<[String; 6], UriError> {
        let bytes = text.as_bytes();
        let parts = Parts::read(bytes)?;
        let shown = |part: Option<Part>| match part {
            Some(Part::Span(from, to)) => text[from..to].to_owned(),
            Some(Part::Made(made)) => String::from_utf8_lossy(&made).into_owned(),
            None => String::new(),
        };
        let query = parts.query.map_or("", |(from, to)| &text[from..to]);
        Ok([
            shown(parts.scheme),
            shown(parts.user),
            shown(parts.host),
            shown(parts.port),
            shown(parts.path),
            query.to_owned(),
        ])
    }

    #[test]
    fn uris_are_read_as_go_reads_those_of_requests() {
        for (text, want) in [
            (
                "https://google.com:443/path?user=dev",
                ["https", "", "google.com", "443", "/path", "user=dev"],
            ),
            ("HTTP://a:b@Host/", ["http", "a", "Host", "", "/", ""]),
            ("http://u%40x@h", ["http", "u@x", "h", "", "", ""]),
            ("http://[::1]:80/x", ["http", "", "::1", "80", "/x", ""]),
            (
                "http://[fe80::1%25en0]/",
                ["http", "", "fe80::1%en0", "", "/", ""],
            ),
            ("/a%20b/c?x=1?y", ["", "", "", "", "/a%20b/c", "x=1?y"]),
            ("/a b#c", ["", "", "", "", "/a%20b%23c", ""]),
            ("//a/b", ["", "", "", "", "//a/b", ""]),
            ("*", ["", "", "", "", "*", ""]),
            ("mailto:a@b.c?s=1", ["mailto", "", "", "", "", "s=1"]),
            ("http://h:/p", ["http", "", "h", "", "/p", ""]),
            ("/caf\u{e9}", ["", "", "", "", "/caf%C3%A9", ""]),
        ] {
            assert_eq!(read(text), Ok(want.map(str::to_owned)), "{text}");
        }
        for text in [
            "",
            "a",
            "google.com/x",
            ":x",
            "http://h:8x/",
            "http://h:80:90/",
            "http://a b/",
            "http://[::1",
            "/%zz",
            "http://h/\u{1}",
            "http://u ser@h/",
            "http://h%41/",
            "1http://h/",
            "#a",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn parameters_are_lists_in_their_order() {
        let list = |values: &[&str]| Value::List(values.iter().map(|v| (*v).into()).collect());
        let map = parameters(b"a=1&b=x+y%21&a=2&c&&=z", true, 100).expect("a query");
        let want: Map = [
            ("a", list(&["1", "2"])),
            ("b", list(&["x y!"])),
            ("c", list(&[""])),
            ("", list(&["z"])),
        ]
        .into_iter()
        .collect();
        assert_eq!(map, want);
        assert!(parameters(b"a=%z", true, 100).is_err() && parameters(b"a;b", true, 100).is_err());
        let lenient = parameters(b"a=%z&b=1&c;d=2", false, 100).expect("the rest");
        assert_eq!(lenient.len(), 1);
    }
}
