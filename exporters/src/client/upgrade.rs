//! A connection that goes on with another protocol (RFC 9110, 7.8), such as WebSocket.

use std::pin::pin;

use hyper::client::conn::http1;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::Chunks;
use super::endpoint::Endpoint;
use super::http::{HttpClient, broken, config_error, in_time, read};
use crate::delivery::{Reply, SendError};

/// A connection that speaks whatever was agreed on.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What a server says to the wish for another protocol.
pub enum Upgrade {
    /// It goes on with it; what it said, and the connection.
    Switched(HeaderMap, Box<dyn Stream>),
    /// Anything else.
    Answered(Reply),
}

impl HttpClient {
    /// Opens a connection that is this caller's alone and asks, with `GET` and `headers`, for another
    /// protocol on it. Proxies are asked for a tunnel. The client must be one for HTTP/1.1
    /// ([`ClientOptions::http2`](super::ClientOptions::http2) is false).
    ///
    /// # Errors
    /// No connection, or no answer within the client's timeout.
    pub async fn upgrade(
        &self,
        endpoint: &Endpoint,
        headers: &HeaderMap,
    ) -> Result<Upgrade, SendError> {
        let attempt = pin!(self.upgraded(endpoint, headers));
        in_time(self.timeout, endpoint, attempt).await
    }

    async fn upgraded(
        &self,
        endpoint: &Endpoint,
        headers: &HeaderMap,
    ) -> Result<Upgrade, SendError> {
        let proxy = self.proxy_for(endpoint);
        let proxy = proxy.map_err(|e| config_error(e.to_string()))?;
        let headers = self.all_headers(endpoint, headers, None)?;
        let connection = self
            .open
            .connector
            .connect_by(endpoint, proxy.as_ref(), true)
            .await?;
        let failed = |e: hyper::Error| broken(endpoint, &e);
        let io = TokioIo::new(connection.io);
        let (mut sender, connection) = http1::handshake(io).await.map_err(failed)?;
        tokio::spawn(async move { connection.with_upgrades().await.ok() });
        let request = Request::get(&endpoint.path).body(Chunks::new(Vec::new()));
        let mut request = request.map_err(|e| config_error(format!("{endpoint}: {e}")))?;
        *request.headers_mut() = headers;
        let response = sender.send_request(request).await.map_err(failed)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let reply = read(response, self.response_bytes_max).await;
            return reply.map(Upgrade::Answered).map_err(failed);
        }
        let headers = response.headers().clone();
        let upgraded = hyper::upgrade::on(response).await.map_err(failed)?;
        Ok(Upgrade::Switched(headers, Box::new(TokioIo::new(upgraded))))
    }
}
