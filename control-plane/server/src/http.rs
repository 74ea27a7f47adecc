//! One request over a connection of its own, in plain text or over TLS.

use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::tls;

/// The largest answer, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Whom to ask, as whom.
#[derive(Clone)]
pub struct Server {
    /// `http://host:port` or `https://host:port`, and a path that all others are below.
    pub url: String,
    /// Given with each request; never shown.
    pub token: Option<String>,
    /// Whom to trust instead of the system's authorities.
    pub ca: Option<PathBuf>,
    /// How long an exchange may take.
    pub timeout: Duration,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("url", &self.url).finish()
    }
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Where a redirect leads.
    pub location: Option<String>,
    /// All of it.
    pub body: Bytes,
}

/// There was no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Trying again would not help.
    #[error("{0}")]
    Useless(String),
    /// It may be another time.
    #[error("{0}")]
    Passing(String),
}

/// What is sent.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// Its media type.
    pub kind: &'static str,
    /// Its bytes.
    pub text: String,
}

/// The parts of a URL.
struct Target {
    secure: bool,
    name: String,
    port: u16,
    authority: String,
    path: String,
}

impl Target {
    fn of(url: &str) -> Result<Target, String> {
        let wrong = |why: &str| format!("{url:?} is no URL of a server: {why}");
        let uri: Uri = url.parse().map_err(|_| wrong("it cannot be read"))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("it must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
        if authority.as_str().contains('@') {
            // It would be shown in errors.
            return Err("the URL holds a name or a password; give a token instead".to_owned());
        }
        if uri.query().is_some() {
            return Err(wrong("it must not have a query"));
        }
        Ok(Target {
            secure,
            name: authority.host().trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            authority: authority.to_string(),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl Server {
    /// Asks, and gives the answer, whatever it is.
    ///
    /// # Errors
    /// There is no answer; for people.
    pub async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Body>,
    ) -> Result<Answer, Failure> {
        let asked = tokio::time::timeout(self.timeout, self.ask(method, path, body));
        let late =
            |_| Failure::Passing(format!("{}: no answer within {:?}", self.url, self.timeout));
        asked.await.map_err(late)?
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Body>) -> Result<Answer, Failure> {
        let target = Target::of(&self.url).map_err(Failure::Useless)?;
        let request = self.request(&target, method, path, body);
        let request = request.map_err(Failure::Useless)?;
        let stream = TcpStream::connect((target.name.as_str(), target.port)).await;
        let stream =
            stream.map_err(|e| Failure::Passing(format!("cannot connect to {}: {e}", self.url)))?;
        if !target.secure {
            return self.over(stream, request).await;
        }
        let config = tls::client(self.ca.as_deref()).map_err(Failure::Useless)?;
        let name = ServerName::try_from(target.name);
        let name = name.map_err(|e| Failure::Useless(format!("{}: {e}", self.url)))?;
        let stream = tokio_rustls::TlsConnector::from(config)
            .connect(name, stream)
            .await;
        // A certificate that is not trusted is trusted by no other try.
        let stream =
            stream.map_err(|e| Failure::Useless(format!("no TLS with {}: {e}", self.url)))?;
        self.over(stream, request).await
    }

    fn request(
        &self,
        target: &Target,
        method: Method,
        path: &str,
        body: Option<Body>,
    ) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", target.path))
            .header(HOST, &target.authority)
            .header(ACCEPT, "application/json")
            .header(
                USER_AGENT,
                concat!("tailwater-control/", env!("CARGO_PKG_VERSION")),
            );
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| "the token holds what a header cannot".to_owned())?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if let Some(body) = &body {
            request = request.header(CONTENT_TYPE, body.kind);
        }
        let text = body.map(|b| b.text).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(text)));
        request.map_err(|e| e.to_string())
    }

    async fn over<S>(&self, stream: S, request: Request<Full<Bytes>>) -> Result<Answer, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broke =
            |e: hyper::Error| Failure::Passing(format!("{}: the connection broke: {e}", self.url));
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(broke)?;
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(broke)?;
        let status = response.status();
        let location = response.headers().get(LOCATION);
        let location = location.and_then(|l| l.to_str().ok()).map(str::to_owned);
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        let body = body
            .map_err(|e| Failure::Passing(format!("{}: the answer broke off: {e}", self.url)))?
            .to_bytes();
        drop(sender);
        driver.abort();
        Ok(Answer {
            status,
            location,
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_secrets_in_them_refused() {
        let target = Target::of("https://[::1]:3000/grafana/").unwrap();
        assert!(target.secure);
        assert_eq!((&*target.name, target.port), ("::1", 3000));
        assert_eq!(target.path, "/grafana");
        assert_eq!(Target::of("http://g").unwrap().port, 80);
        for (url, about) in [
            ("g:3000", "http://"),
            ("http://u:secret@g/", "a token instead"),
            ("http://g/?a=b", "query"),
        ] {
            let error = Target::of(url).err().unwrap();
            assert!(
                error.contains(about) && !error.contains("secret"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let server = Server {
            url: "http://g".into(),
            token: Some("s3cret".into()),
            ca: None,
            timeout: Duration::from_secs(1),
        };
        assert!(!format!("{server:?}").contains("s3cret"));
    }
}
