//! Requests to others: to those who are told and asked, and to the API of a server. One at a time, each over a connection of its
//! own, in plain text or over TLS. What may be secret of where they go (the path, a user and a password, headers) is in no message.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION,
    USER_AGENT,
};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tailwater_control_plane::tls;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::secret;

/// An exchange may take so long, unless it is said otherwise.
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
    timeout: Duration,
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
    /// Where a redirect leads.
    pub location: Option<String>,
    /// All of its body.
    pub body: Bytes,
}

/// There was no answer; for people.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Trying again would not help.
    #[error("{0}")]
    Useless(String),
    /// It may be another time.
    #[error("{0}")]
    Passing(String),
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
            timeout: TIMEOUT,
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

    /// The API of a server: a URL of a command line, which others on the machine can see, so there is no secret in it,
    /// and the token that is given with each request.
    ///
    /// # Errors
    /// What is wrong with it, without what may be secret; for people.
    pub fn of_api(url: &str, token: Option<&str>) -> Result<Target, String> {
        let mut target = Target::parse(url).map_err(|e| match url.contains('@') {
            true => e,
            false => format!("{url:?}: {e}"),
        })?;
        if !target.headers.is_empty() {
            return Err("the URL holds a name or a password; give a token instead".to_owned());
        }
        if target.query.is_some() {
            return Err(format!("{target}: the URL must not have a query"));
        }
        if let Some(token) = token {
            let set = target.set(AUTHORIZATION, &format!("Bearer {token}"));
            set.map_err(|_| "the token holds what a header cannot".to_owned())?;
        }
        Ok(target)
    }

    /// Trusts these instead of the system's authorities.
    #[must_use]
    pub fn trusting(self, ca: Option<PathBuf>) -> Target {
        Target { ca, ..self }
    }

    /// An exchange may take so long.
    #[must_use]
    pub fn within(self, timeout: Duration) -> Target {
        Target { timeout, ..self }
    }

    /// Where a request goes, its path included: for people, of the API of a server.
    pub fn at(&self, path: &str) -> String {
        format!("{self}{}", self.path_of(path))
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

    /// Asks at `path` below where it is, and gives the answer, whatever it is, of at most `bytes_max`.
    ///
    /// # Errors
    /// There is none; for people.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
        bytes_max: usize,
    ) -> Result<Answer, Failure> {
        let asked =
            tokio::time::timeout(self.timeout, self.exchange(method, path, body, bytes_max));
        let late = |_| Failure::Passing(format!("{self}: no answer within {:?}", self.timeout));
        asked.await.map_err(late)?
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

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let agent = concat!("tailwater-control/", env!("CARGO_PKG_VERSION"));
        let mut request = Request::builder()
            .method(method)
            .uri(self.path_of(path))
            .header(HOST, &self.authority);
        for (name, value) in [(ACCEPT, "application/json"), (USER_AGENT, agent)] {
            if !self.headers.contains_key(&name) {
                request = request.header(name, value);
            }
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some((content_type, _)) = &body {
            request = request.header(CONTENT_TYPE, *content_type);
        }
        let body = body.map(|(_, body)| body).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(body)));
        // The reason could quote what is secret.
        request.map_err(|_| Failure::Useless(format!("{self}: no request can be made of it")))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
        bytes_max: usize,
    ) -> Result<Answer, Failure> {
        let request = self.request(method, path, body)?;
        let stream = TcpStream::connect((&*self.host, self.port)).await;
        let stream =
            stream.map_err(|e| Failure::Passing(format!("{self}: cannot connect: {e}")))?;
        if !self.secure {
            return self.over(stream, request, bytes_max).await;
        }
        let useless = |e: &dyn fmt::Display| Failure::Useless(format!("{self}: {e}"));
        let config = tls::client(self.ca.as_deref(), None).map_err(Failure::Useless)?;
        let name = ServerName::try_from(self.host.clone()).map_err(|e| useless(&e))?;
        let connector = tokio_rustls::TlsConnector::from(config);
        let stream = connector.connect(name, stream).await.map_err(|e| {
            let text = format!("{self}: no TLS: {e}");
            match e.kind() {
                // What TLS itself says: a certificate that is not trusted is trusted by no other try.
                ErrorKind::InvalidData => Failure::Useless(text),
                _ => Failure::Passing(text),
            }
        })?;
        self.over(stream, request, bytes_max).await
    }

    async fn over<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
        bytes_max: usize,
    ) -> Result<Answer, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broke =
            |e: &dyn fmt::Display| Failure::Passing(format!("{self}: the connection broke: {e}"));
        let io = TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .map_err(|e| broke(&e))?;
        let driver = tokio::spawn(connection);
        let answer = async {
            let response = sender.send_request(request).await;
            let response = response.map_err(|e| broke(&e))?;
            let status = response.status();
            let location = response.headers().get(LOCATION);
            let location = location.and_then(|l| l.to_str().ok()).map(str::to_owned);
            let body = Limited::new(response.into_body(), bytes_max).collect();
            let body = body.await.map_err(|e| broke(&e))?.to_bytes();
            Ok(Answer {
                status,
                location,
                body,
            })
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

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

    /// Guarantee: an API takes a token, which is shown nowhere, and no secret in its URL.
    #[test]
    fn an_api_has_a_token_and_no_secret_in_its_url() {
        let target = Target::of_api("https://[::1]:3000/grafana/", Some("s3cret")).unwrap();
        assert_eq!(target.at("/api/x"), "https://[::1]:3000/grafana/api/x");
        assert_eq!(target.headers[AUTHORIZATION], "Bearer s3cret");
        let shown = format!("{target} {target:?} {:?}", target.headers);
        assert!(!shown.contains("s3cret"), "{shown}");
        assert_eq!(Target::of_api("http://g", None).unwrap().port, 80);
        for (url, token, about) in [
            (
                "g:3000",
                None,
                "\"g:3000\": it is no URL that begins with http://",
            ),
            ("http://u:secret@g/", None, "a token instead"),
            ("ftp://u:secret@g/", None, "no URL"),
            ("http://g/?a=secret", None, "query"),
            ("http://g", Some("sec\nret"), "what a header cannot"),
        ] {
            let error = Target::of_api(url, token).unwrap_err();
            assert!(
                error.contains(about) && !error.contains("secret"),
                "{error}"
            );
        }
    }

    /// Guarantee: who hangs up may answer another time; what TLS itself refuses is not tried again.
    #[tokio::test]
    async fn failures_are_passing_or_useless() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = server.local_addr().unwrap();
        let answers: [&'static [u8]; 3] = [
            b"",
            b"no TLS at all",
            b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 2\r\n\r\nok",
        ];
        let serving = tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = server.accept().await.unwrap();
                let mut some = [0; 1024];
                let _ = stream.read(&mut some).await.unwrap();
                stream.write_all(answer).await.unwrap();
            }
        });
        for scheme in ["http", "https", "http"] {
            let target = Target::parse(&format!("{scheme}://{at}")).unwrap();
            let asked = target.ask(Method::GET, "/", None, 64).await;
            match (scheme, asked) {
                ("http", Ok(answer)) => {
                    assert_eq!(answer.location.as_deref(), Some("/x"));
                    assert_eq!(&*answer.body, b"ok");
                }
                ("http", Err(Failure::Passing(_))) | ("https", Err(Failure::Useless(_))) => {}
                (_, other) => panic!("{scheme}: {other:?}"),
            }
        }
        serving.await.unwrap();
        let gone = Target::parse(&format!("http://{at}")).unwrap();
        let asked = gone.ask(Method::GET, "/", None, 64).await;
        assert!(matches!(asked, Err(Failure::Passing(_))));
    }
}
