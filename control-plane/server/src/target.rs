//! Requests to those who are told and asked: one at a time, each over a connection of its own. What may be secret of where they go
//! (the path, a user and a password, headers) is in no message.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::{secret, tls};

/// A request may take so long.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Where requests go.
#[derive(Clone)]
pub struct Target {
    secure: bool,
    /// `host:port` as it was written.
    authority: String,
    /// Without brackets.
    host: String,
    port: u16,
    /// Without a slash at the end.
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    ca: Option<PathBuf>,
}

/// Without what may be secret.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

impl Target {
    /// Reads a URL with `http` or `https`.
    ///
    /// # Errors
    /// What is wrong with it, without it.
    pub fn parse(url: &str) -> Result<Target, String> {
        let none = || "it is no URL that begins with http:// or https://".to_owned();
        let uri: Uri = url.parse().map_err(|_| none())?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(none()),
        };
        let whole = uri.authority().ok_or_else(none)?.as_str();
        let (user, authority) = match whole.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, whole),
        };
        let host = uri.host().ok_or_else(none)?.trim_matches(['[', ']']);
        if host.is_empty() {
            return Err(none());
        }
        let mut target = Target {
            secure,
            authority: authority.to_owned(),
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            path: uri.path().trim_end_matches('/').to_owned(),
            query: uri.query().map(str::to_owned),
            headers: HeaderMap::new(),
            ca: None,
        };
        if let Some(user) = user {
            let value = format!("Basic {}", BASE64_STANDARD.encode(decoded(user)));
            target.set(AUTHORIZATION, &value)?;
        }
        Ok(target)
    }

    /// A URL; or a file that nobody else may read, with the URL in its first line and a header in each other one.
    ///
    /// # Errors
    /// What is wrong, without what may be secret; for people.
    pub fn of(text: &str) -> Result<Target, String> {
        if text.starts_with("http://") || text.starts_with("https://") {
            return Target::parse(text);
        }
        let body = secret::read(Path::new(text))?;
        let mut lines = body.lines().map(str::trim);
        let lines = lines
            .by_ref()
            .filter(|l| !l.is_empty() && !l.starts_with('#'));
        let mut lines = lines.enumerate();
        let (_, url) = lines.next().ok_or_else(|| format!("{text}: it is empty"))?;
        let mut target = Target::parse(url).map_err(|e| format!("{text}: line 1: {e}"))?;
        for (i, line) in lines {
            let wrong = |e: &str| format!("{text}: line {}: {e}", i + 1);
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| wrong("a header is written as Name: value"))?;
            let name = name.trim().parse::<HeaderName>();
            let name = name.map_err(|_| wrong("the name of the header is none"))?;
            target.set(name, value.trim()).map_err(|e| wrong(&e))?;
        }
        Ok(target)
    }

    /// Trusts these instead of the system's authorities.
    #[must_use]
    pub fn trusting(self, ca: Option<PathBuf>) -> Target {
        Target { ca, ..self }
    }

    /// Sets a header; its value is in no message.
    ///
    /// # Errors
    /// A header cannot hold it.
    pub fn set(&mut self, name: HeaderName, value: &str) -> Result<(), String> {
        let value = HeaderValue::from_str(value);
        let mut value = value.map_err(|_| format!("{name} holds what a header cannot"))?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(())
    }

    /// Asks at `path` below where it is, and gives the answer, of at most `bytes_max`.
    ///
    /// # Errors
    /// There is none; for people.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
        bytes_max: usize,
    ) -> Result<Answer, String> {
        let asked = tokio::time::timeout(TIMEOUT, self.exchange(method, path, body, bytes_max));
        match asked.await {
            Ok(answer) => answer,
            Err(_) => Err(format!("{self}: no answer within {TIMEOUT:?}")),
        }
    }

    fn path_of(&self, path: &str) -> String {
        let mut whole = format!("{}{path}", self.path);
        if whole.is_empty() {
            whole.push('/');
        }
        if let Some(query) = &self.query {
            whole.push(if whole.contains('?') { '&' } else { '?' });
            whole.push_str(query);
        }
        whole
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
        bytes_max: usize,
    ) -> Result<Answer, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(self.path_of(path))
            .header(HOST, &self.authority);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some((content_type, _)) = &body {
            request = request.header(CONTENT_TYPE, *content_type);
        }
        let body = body.map(|(_, body)| body).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(body)));
        let request = request.map_err(|_| format!("{self}: no request can be made of it"))?;
        let failed = |what: &str, e: &dyn fmt::Display| format!("{self}: {what}: {e}");
        let stream = TcpStream::connect((&*self.host, self.port)).await;
        let stream = stream.map_err(|e| failed("cannot connect", &e))?;
        if !self.secure {
            return self.over(stream, request, bytes_max).await;
        }
        let config = tls::client(self.ca.as_deref())?;
        let name = ServerName::try_from(self.host.clone()).map_err(|e| failed("no name", &e))?;
        let connector = tokio_rustls::TlsConnector::from(config);
        let stream = connector.connect(name, stream).await;
        let stream = stream.map_err(|e| failed("no TLS", &e))?;
        self.over(stream, request, bytes_max).await
    }

    async fn over<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
        bytes_max: usize,
    ) -> Result<Answer, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broke = |e: &dyn fmt::Display| format!("{self}: the connection broke: {e}");
        let io = TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .map_err(|e| broke(&e))?;
        let driver = tokio::spawn(connection);
        let answer = async {
            let response = sender.send_request(request).await;
            let response = response.map_err(|e| broke(&e))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), bytes_max).collect();
            let body = body.await.map_err(|e| broke(&e))?.to_bytes();
            Ok(Answer { status, body })
        };
        let answer = answer.await;
        drop(sender);
        driver.abort();
        answer
    }
}

/// What is written with percent signs in a URL.
fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let escaped = more.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = &more[2..];
            }
            _ => {
                out.push(*first);
                rest = more;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Guarantee: nothing of a URL but scheme, host and port is shown, nor of a header.
    #[test]
    fn secrets_are_in_no_message() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("webhook");
        let text = "https://me:s%3Acret@hooks.example:8443/T0KEN/x?key=K3Y\n# why\nX-Auth: V4LUE\n";
        std::fs::write(&path, text).unwrap();
        let name = path.to_str().unwrap();
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&path, open).unwrap();
        assert!(Target::of(name).unwrap_err().contains("others may read it"));
        let own = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, own).unwrap();
        let target = Target::of(name).unwrap();
        let shown = format!("{target} {target:?} {:?}", target.headers);
        for secret in ["T0KEN", "K3Y", "V4LUE", "cret", "me:"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert_eq!(target.to_string(), "https://hooks.example:8443");
        assert_eq!(target.path_of(""), "/T0KEN/x?key=K3Y");
        assert_eq!(target.path_of("/a?b=c"), "/T0KEN/x/a?b=c&key=K3Y");
        assert_eq!(
            target.headers[AUTHORIZATION],
            format!("Basic {}", BASE64_STANDARD.encode("me:s:cret"))
        );
        assert_eq!(target.headers["x-auth"], "V4LUE");
        for wrong in ["ftp://a/", "http://", "a"] {
            std::fs::write(&path, wrong).unwrap();
            let said = Target::of(name).unwrap_err();
            assert!(said.contains("line 1"), "{said}");
        }
        std::fs::write(&path, "http://a\nX-Auth V4LUE").unwrap();
        let said = Target::of(name).unwrap_err();
        assert!(said.contains("line 2") && !said.contains("V4LUE"), "{said}");
    }

    #[test]
    fn addresses_and_ports_are_what_they_say() {
        let target = Target::parse("http://[::1]:3100").unwrap();
        assert_eq!(
            (&*target.host, target.port, &*target.path_of("")),
            ("::1", 3100, "/")
        );
        let target = Target::parse("https://loki.example/loki/").unwrap();
        assert_eq!((target.port, &*target.path_of("/api")), (443, "/loki/api"));
    }
}
