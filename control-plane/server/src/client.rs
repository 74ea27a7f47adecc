//! The command line's client of the API.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::tls;

/// The largest answer, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// A request may take so long.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Whom to ask, as whom.
#[derive(Clone, Debug)]
pub struct Client {
    /// `http://host:port` or `https://host:port`.
    pub server: String,
    /// Given with each request.
    pub token: Option<String>,
    /// Whom to trust instead of the system's authorities.
    pub ca: Option<PathBuf>,
}

impl Client {
    /// Asks, and gives the answer.
    ///
    /// # Errors
    /// There is no answer, or it is a refusal; for people.
    pub async fn ask(&self, method: Method, path: &str, body: Option<String>) -> Result<Value> {
        let asked = tokio::time::timeout(TIMEOUT, self.exchange(method, path, body));
        asked
            .await
            .map_err(|_| anyhow!("{}: no answer within {TIMEOUT:?}", self.server))?
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<String>) -> Result<Value> {
        let uri: Uri = self
            .server
            .parse()
            .with_context(|| format!("{:?} is no URL", self.server))?;
        let host = uri.host().context("the server's URL has no host")?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => bail!("the server's URL must begin with http:// or https://"),
        };
        let name = host.trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let authority = uri.authority().map_or(host, |a| a.as_str());
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, authority);
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .context("the token holds what a header cannot")?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/yaml");
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())))?;
        let stream = TcpStream::connect((name, port)).await;
        let stream = stream.with_context(|| format!("cannot connect to {}", self.server))?;
        match secure {
            false => self.over(stream, request).await,
            true => {
                let config = tls::client(self.ca.as_deref()).map_err(|e| anyhow!(e))?;
                let name = ServerName::try_from(name.to_owned())?;
                let connector = tokio_rustls::TlsConnector::from(config);
                let stream = connector.connect(name, stream).await;
                self.over(
                    stream.with_context(|| format!("no TLS with {}", self.server))?,
                    request,
                )
                .await
            }
        }
    }

    async fn over<S>(&self, stream: S, request: Request<Full<Bytes>>) -> Result<Value>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let response = sender
            .send_request(request)
            .await
            .context("the connection broke")?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        let body = body
            .map_err(|e| anyhow!("the answer broke off: {e}"))?
            .to_bytes();
        drop(sender);
        driver.abort();
        let value: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(value);
        }
        match value["error"].as_str() {
            Some(text) => bail!("{text}"),
            None => bail!("{} answered {status}", self.server),
        }
    }
}
