//! Reading a request head and a chunk size: text in, fields out, no I/O.

use super::Request;

/// Why a head is not acceptable; each is answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadHead(pub(super) &'static str);

/// How long the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyLength {
    Bytes(usize),
    Chunked,
}

/// A parsed head and what it says about the connection.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) request: Request,
    pub(super) length: BodyLength,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
}

/// Parses request line and headers (RFC 9112, sections 3 and 5), the final empty line included.
pub(super) fn head(bytes: &[u8]) -> Result<Head, BadHead> {
    let text = std::str::from_utf8(bytes).map_err(|_| BadHead("head is not UTF-8"))?;
    let mut lines = text.split("\r\n");
    let mut parts = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(BadHead("malformed request line"));
    };
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(BadHead("malformed method"));
    }
    if !target.starts_with('/') {
        return Err(BadHead("malformed request target"));
    }
    let http_1_1 = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        _ => return Err(BadHead("unsupported HTTP version")),
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = Vec::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or(BadHead("malformed header"))?;
        if name.is_empty() || name.contains([' ', '\t']) {
            return Err(BadHead("malformed header name"));
        }
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let request = Request {
        method: method.to_owned(),
        path: percent_decode(path, false),
        query: query_pairs(query),
        headers,
        body: Vec::new(),
    };
    let length = body_length(&request)?;
    let connection = request
        .header("connection")
        .unwrap_or_default()
        .to_ascii_lowercase();
    let keep_alive = if http_1_1 {
        connection != "close"
    } else {
        connection == "keep-alive"
    };
    let expects_continue = request
        .header("expect")
        .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
    Ok(Head {
        request,
        length,
        keep_alive,
        expects_continue,
    })
}

/// RFC 9112 section 6.3; both lengths at once are refused, as request smuggling needs them.
fn body_length(request: &Request) -> Result<BodyLength, BadHead> {
    let mut lengths = request
        .headers
        .iter()
        .filter(|(name, _)| name == "content-length");
    let length = lengths.next().map(|(_, value)| value);
    if lengths.next().is_some() {
        return Err(BadHead("several Content-Length headers"));
    }
    match (request.header("transfer-encoding"), length) {
        (Some(_), Some(_)) => Err(BadHead("both Transfer-Encoding and Content-Length")),
        (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => Ok(BodyLength::Chunked),
        (Some(_), None) => Err(BadHead("unsupported Transfer-Encoding")),
        (None, Some(text)) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => text
            .parse()
            .map(BodyLength::Bytes)
            .map_err(|_| BadHead("Content-Length too large")),
        (None, Some(_)) => Err(BadHead("malformed Content-Length")),
        (None, None) => Ok(BodyLength::Bytes(0)),
    }
}

/// The size in a chunk header line without its line end; extensions are ignored.
pub(super) fn chunk_size(line: &[u8]) -> Result<usize, BadHead> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let rest = line[digits..].trim_ascii_start();
    if digits == 0 || !(rest.is_empty() || rest[0] == b';') {
        return Err(BadHead("malformed chunk size"));
    }
    let text = std::str::from_utf8(&line[..digits]).map_err(|_| BadHead("malformed chunk size"))?;
    usize::from_str_radix(text, 16).map_err(|_| BadHead("chunk size too large"))
}

fn query_pairs(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(name, true), percent_decode(value, true))
        })
        .collect()
}

/// Percent-decoding; a `%` not followed by two hex digits stands for itself.
fn percent_decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = bytes
            .get(at + 1..at + 3)
            .filter(|_| bytes[at] == b'%')
            .and_then(|hex| {
                let hex = std::str::from_utf8(hex).ok()?;
                hex.bytes()
                    .all(|b| b.is_ascii_hexdigit())
                    .then(|| u8::from_str_radix(hex, 16).ok())?
            });
        match (escaped, bytes[at]) {
            (Some(byte), _) => {
                out.push(byte);
                at += 2;
            }
            (None, b'+') if plus_is_space => out.push(b' '),
            (None, byte) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_split_into_its_fields() {
        let h = head(
            b"POST /a%20b?q=%7Bx%3D%221%22%7D&limit=5&z=a+b HTTP/1.1\r\nHost: h\r\n\
              CONTENT-length:  12 \r\nExpect: 100-Continue\r\n\r\n",
        )
        .unwrap();
        assert_eq!(
            (h.request.method.as_str(), h.request.path.as_str()),
            ("POST", "/a b")
        );
        assert_eq!(h.request.query_value("q"), Some("{x=\"1\"}"));
        assert_eq!(h.request.query_value("z"), Some("a b"));
        assert_eq!(h.length, BodyLength::Bytes(12));
        assert!(h.keep_alive && h.expects_continue);
    }

    #[test]
    fn the_connection_stays_open_as_the_version_says() {
        let keeps = |text: &str| head(text.as_bytes()).unwrap().keep_alive;
        assert!(keeps("GET / HTTP/1.1\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.1\r\nConnection: close\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
        assert!(keeps("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    }

    #[test]
    fn malformed_heads_are_refused() {
        for text in [
            "",
            "GET /",
            "GET / HTTP/1.1 x\r\n\r\n",
            "get / HTTP/1.1\r\n\r\n",
            "GET x HTTP/1.1\r\n\r\n",
            "GET / HTTP/2\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nname : v\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        ] {
            assert!(head(text.as_bytes()).is_err(), "{text}");
        }
        assert!(head(b"GET / HTTP/1.1\r\nx: \xff\r\n\r\n").is_err());
    }

    #[test]
    fn chunk_sizes_are_hex_with_optional_extensions() {
        assert_eq!(chunk_size(b"1aF"), Ok(0x1af));
        assert_eq!(chunk_size(b"0;x=y"), Ok(0));
        assert_eq!(chunk_size(b"5 ;x"), Ok(5));
        for bad in [&b""[..], b"x", b"5x", b"-1", b"fffffffffffffffff"] {
            assert!(chunk_size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn broken_percent_escapes_stand_for_themselves() {
        assert_eq!(percent_decode("%41%4", false), "A%4");
        assert_eq!(percent_decode("%zz%+1", false), "%zz%+1");
        assert_eq!(percent_decode("100%", true), "100%");
    }
}
