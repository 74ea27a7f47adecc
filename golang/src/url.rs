//! Any URI, and references to one that leave out its beginning, in decoded parts.

use crate::uri::{Mode, Part, Parts, UriError, decode, error, path, scheme, unreserved};

/// The parts of a URI.
#[derive(Debug, Default, PartialEq)]
pub struct Url {
    /// In lower case; empty if there is none.
    pub scheme: Vec<u8>,
    /// The name in front of the host and what is behind it and a colon.
    pub user: Option<(Vec<u8>, Option<Vec<u8>>)>,
    /// Without the brackets of an address.
    pub host: Vec<u8>,
    /// Digits; empty if there are none.
    pub port: Vec<u8>,
    /// Decoded.
    pub path: Vec<u8>,
    /// As it is written, without its question mark.
    pub query: Vec<u8>,
    /// Decoded, without its `#`.
    pub fragment: Vec<u8>,
    /// The whole, written anew: what has to be escaped is.
    pub normal: Vec<u8>,
}

impl Url {
    /// Reads a URI or a reference to one.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &[u8]) -> Result<Url, UriError> {
        let hash = memchr::memchr(b'#', text);
        let (text, fragment) = match hash {
            Some(at) => (&text[..at], &text[at + 1..]),
            None => (text, &[][..]),
        };
        if let Some(at) = text.iter().position(|b| *b < 0x20 || *b == 0x7f) {
            return Err(error("a control character", at));
        }
        let mut url = Url::default();
        let mut at = 0;
        if let Some(colon) = scheme(text)? {
            url.scheme = text[..colon].to_ascii_lowercase();
            at = colon + 1;
        }
        let mut end = text.len();
        let mark = memchr::memchr(b'?', &text[at..]).map(|i| at + i);
        if let Some(mark) = mark {
            url.query = text[mark + 1..].to_vec();
            end = mark;
        }
        let rest = &text[at..end];
        let mut written = url.scheme.clone();
        if at > 0 {
            written.push(b':');
        }
        if at > 0 && rest.first() != Some(&b'/') {
            // Opaque, as in mailto:a@b.
            written.extend_from_slice(rest);
        } else {
            let from = url.authority(text, at, end, &mut written)?;
            url.hierarchy(text, from, end, &mut written)?;
        }
        if mark.is_some() {
            written.push(b'?');
            written.extend_from_slice(&url.query);
        }
        if !fragment.is_empty() {
            if let Some(i) = decode(fragment, Mode::Plain, &mut url.fragment) {
                return Err(error("an escape that is none", text.len() + 1 + i));
            }
            written.push(b'#');
            let plain = |b: &u8| unreserved(*b) || b"!$&'()*+,/:;=?@[]%".contains(b);
            match fragment.iter().all(plain) {
                true => written.extend_from_slice(fragment),
                false => escape(&url.fragment, b"!$&()*+,/:;=?@", &mut written),
            }
        }
        url.normal = written;
        Ok(url)
    }

    /// Reads the host and what belongs to it, if there is one; where the path begins.
    fn authority(
        &mut self,
        text: &[u8],
        at: usize,
        end: usize,
        written: &mut Vec<u8>,
    ) -> Result<usize, UriError> {
        let rest = &text[at..end];
        let is_path = at == 0 && rest.starts_with(b"///");
        if is_path || !rest.starts_with(b"//") {
            return Ok(at);
        }
        let from = at + 2;
        let slash = memchr::memchr(b'/', &text[from..end]);
        let to = slash.map_or(end, |i| from + i);
        let mut parts = Parts::default();
        parts.authority(text, from, to)?;
        let host_at = memchr::memrchr(b'@', &text[from..to]).map_or(from, |i| from + i + 1);
        let bytes = |part: &mut Option<Part>| part.take().map(|part| part.bytes(text));
        self.host = bytes(&mut parts.host).unwrap_or_default();
        let port = bytes(&mut parts.port);
        let password = bytes(&mut parts.password);
        self.user = bytes(&mut parts.user).map(|user| (user, password));
        written.extend_from_slice(b"//");
        if let Some(user) = self.user_info() {
            written.extend_from_slice(&user);
            written.push(b'@');
        }
        let brackets = text.get(host_at) == Some(&b'[');
        written.extend(brackets.then_some(b'['));
        escape(&self.host, b"!$&'()*+,;=:[]<>\"", written);
        written.extend(brackets.then_some(b']'));
        if let Some(port) = port {
            written.push(b':');
            written.extend_from_slice(&port);
            self.port = port;
        }
        Ok(to)
    }

    /// Reads the path.
    fn hierarchy(
        &mut self,
        text: &[u8],
        from: usize,
        end: usize,
        written: &mut Vec<u8>,
    ) -> Result<(), UriError> {
        let part = &text[from..end];
        if from == 0 && part.first() != Some(&b'/') {
            let first = part.split(|b| *b == b'/').next().unwrap_or_default();
            if let Some(at) = memchr::memchr(b':', first) {
                return Err(error("a colon in the first part of a path", at));
            }
        }
        if let Some(i) = decode(part, Mode::Plain, &mut self.path) {
            return Err(error("an escape that is none", from + i));
        }
        written.extend(path(text, from, end)?.bytes(text));
        Ok(())
    }

    /// Name and password as they are written in front of a host.
    pub fn user_info(&self) -> Option<Vec<u8>> {
        let (name, password) = self.user.as_ref()?;
        let mut out = Vec::new();
        escape(name, b"$&+,;=", &mut out);
        if let Some(password) = password {
            out.push(b':');
            escape(password, b"$&+,;=", &mut out);
        }
        Some(out)
    }

    /// What is behind the last dot of the path.
    pub fn extension(&self) -> Option<&[u8]> {
        let dot = memchr::memrchr(b'.', &self.path)?;
        Some(&self.path[dot + 1..]).filter(|name| !name.is_empty())
    }
}

/// Appends `part` with escapes for all but letters, digits, `-_.~` and `kept`.
fn escape(part: &[u8], kept: &[u8], out: &mut Vec<u8>) {
    let hex = |n: u8| b"0123456789ABCDEF"[usize::from(n)];
    for b in part {
        match unreserved(*b) || kept.contains(b) {
            true => out.push(*b),
            false => out.extend([b'%', hex(b >> 4), hex(b & 15)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Scheme, user info, host, port, path, query, fragment, and the whole written anew.
    #[test]
    fn parts_are_those_that_go_finds() {
        for (given, want) in [
            (
                "HTTP://u%40:p%3A@h.example:80/a%20b.html?x=1#f%20g",
                "http|u%40:p%3A|h.example|80|/a b.html|x=1|f g|http://u%40:p%3A@h.example:80/a%20b.html?x=1#f%20g",
            ),
            ("https://h", "https||h|||||https://h"),
            ("http://[::1]:80/x", "http||::1|80|/x|||http://[::1]:80/x"),
            ("http://h:/x", "http||h||/x|||http://h:/x"),
            ("//h/p", "||h||/p|||//h/p"),
            ("///p", "||||///p|||///p"),
            ("/a b?q r#s t", "||||/a b|q r|s t|/a%20b?q r#s%20t"),
            ("a/b", "||||a/b|||a/b"),
            ("mailto:a@b?x", "mailto|||||x||mailto:a@b?x"),
            ("file:/x/y", "file||||/x/y|||file:/x/y"),
            ("file:///x", "file||||/x|||file:///x"),
            ("?", "|||||||?"),
            ("#", "|||||||"),
        ] {
            let url = Url::parse(given.as_bytes()).unwrap_or_else(|e| panic!("{given}: {e}"));
            let user = url.user_info().unwrap_or_default();
            let parts = [
                &url.scheme,
                &user,
                &url.host,
                &url.port,
                &url.path,
                &url.query,
                &url.fragment,
                &url.normal,
            ];
            assert_eq!(parts.map(|p| text(p)).join("|"), want, "{given}");
        }
        for given in [
            ":x",
            "1a:b",
            "a:b/c d:e\u{1}",
            "http://h:x/",
            "/%zz",
            "/a#%zz",
            "http://a b/",
        ] {
            assert!(Url::parse(given.as_bytes()).is_err(), "{given}");
        }
    }

    #[test]
    fn a_path_may_have_an_extension() {
        for (given, want) in [
            ("/a/b.tar.gz", Some("gz")),
            ("/a.b/c", Some("b/c")),
            ("/a.", None),
            ("/a", None),
        ] {
            let url = Url::parse(given.as_bytes()).unwrap();
            assert_eq!(
                url.extension().map(text),
                want.map(str::to_owned),
                "{given}"
            );
        }
    }
}
