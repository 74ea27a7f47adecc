//! The client over HTTP/2: which connections are shared, and one request over one of them.

use hyper::Request;

use super::body::Chunks;
use super::connect::Connection;
use super::endpoint::Endpoint;
use super::http::{Failure, HttpClient, broken, read};
use super::http2::{self, Channel, Channels, InUse};
use super::pool::Key;
use super::proxy::Proxy;
use crate::delivery::{Reply, SendError};

/// What there is for a request.
pub(super) enum Way {
    /// A connection for HTTP/1.1, which is this request's alone.
    Alone(Connection),
    /// One for HTTP/2, and whether it was made for this request.
    Shared(InUse, bool),
}

impl HttpClient {
    /// The shared connections that a request to `endpoint` may go over: those with TLS, which is where
    /// a server can say that it knows HTTP/2.
    fn shared_for(&self, endpoint: &Endpoint) -> Option<&Channels> {
        self.open.shared.as_ref().filter(|_| endpoint.https)
    }

    /// A shared connection that is there already.
    pub(super) fn shared(
        &self,
        endpoint: &Endpoint,
        server: &Endpoint,
        key: &Key,
    ) -> Option<InUse> {
        let current = |c: &Channel| {
            self.open.connector.names.is_current(server, c.peer)
                && self.open.connector.tls.is_current(&c.secured)
        };
        self.shared_for(endpoint)?.take(key, current)
    }

    /// Opens a connection, unless another request has opened one meanwhile that both can use.
    pub(super) async fn open(
        &self,
        endpoint: &Endpoint,
        proxy: Option<&Proxy>,
        key: &Key,
    ) -> Result<Way, SendError> {
        let Some(channels) = self.shared_for(endpoint) else {
            let connection = self.open.connector.connect(endpoint, proxy).await?;
            return Ok(Way::Alone(connection));
        };
        let _turn = channels.turn(key).await;
        let server = proxy.map_or(endpoint, |proxy| &proxy.server);
        if let Some(in_use) = self.shared(endpoint, server, key) {
            return Ok(Way::Shared(in_use, false));
        }
        let connection = self.open.connector.connect(endpoint, proxy).await?;
        if !connection.http2 {
            channels.is_plain(key);
            return Ok(Way::Alone(connection));
        }
        let opened = channels.open(key, connection).await;
        let in_use = opened.map_err(|e| broken(endpoint, &e))?;
        Ok(Way::Shared(in_use, true))
    }

    /// One request over a shared connection.
    pub(super) async fn exchange_shared(
        &self,
        endpoint: &Endpoint,
        in_use: &InUse,
        request: Request<Chunks>,
    ) -> Result<Reply, Failure> {
        let request = http2::translate(request, endpoint).map_err(Failure::Other)?;
        let channel = &in_use.channel;
        // The attempt is dropped when its time is over.
        let mut silence = Silence {
            client: self,
            channel: Some(channel),
            answers: channel.answers(),
        };
        let response = match channel.send(request).await {
            Ok(response) => response,
            Err(e) => {
                silence.channel = None;
                let error = broken(endpoint, &e);
                if !http2::is_gone(&e) {
                    return Err(Failure::Other(error));
                }
                self.forget_shared(channel);
                return Err(Failure::ClosedBeforeAnswer(error));
            }
        };
        let reply = read(response, self.response_bytes_max).await;
        silence.channel = None;
        if let Some(channels) = &self.open.shared {
            channels.used(channel);
        }
        reply.map_err(|e| Failure::Other(broken(endpoint, &e)))
    }

    fn forget_shared(&self, channel: &Channel) {
        if let Some(channels) = &self.open.shared {
            channels.forget(channel);
        }
    }

    /// Shared connections now.
    #[cfg(test)]
    pub(super) fn shared_connections(&self) -> usize {
        self.open.shared.as_ref().map_or(0, Channels::count)
    }
}

/// Dropped with a connection over which nobody got any answer meanwhile, it says that the server is
/// silent: the connection is not used again, and other addresses are tried before this one.
struct Silence<'a> {
    client: &'a HttpClient,
    channel: Option<&'a Channel>,
    answers: u64,
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        if let Some(channel) = self.channel
            && channel.answers() == self.answers
        {
            self.client.forget_shared(channel);
            self.client.open.connector.names.avoid(channel.peer);
        }
    }
}
