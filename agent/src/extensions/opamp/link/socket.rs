//! A WebSocket (RFC 6455). The handshake is made by the agent's own HTTP client, so TLS, proxies and headers are
//! as everywhere.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::{SinkExt, StreamExt};
use hyper::StatusCode;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use sha1::{Digest, Sha1};
use tailwater_exporters::client::{Endpoint, HttpClient, Stream, Upgrade};
use tailwater_opamp::proto::{AgentToServer, ServerToAgent};
use tailwater_opamp::{InstanceUid, frame, unframe};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::http::{asked, unexpected};
use super::{Trouble, UID_HEADER, too_large};
use crate::extensions::opamp::random;

/// What the answer to a key is made with (RFC 6455, 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Buffers of a connection over which little goes.
const BUFFER_BYTES: usize = 8 << 10;
/// How long the other side may take to read a message.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long closing in order may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// See the module's documentation.
pub struct SocketLink {
    socket: WebSocketStream<Box<dyn Stream>>,
    from: String,
    bytes_max: usize,
}

impl SocketLink {
    /// Connects and makes the handshake.
    pub async fn open(
        client: &HttpClient,
        endpoint: &Endpoint,
        uid: InstanceUid,
        bytes_max: usize,
    ) -> Result<SocketLink, Trouble> {
        let key = BASE64_STANDARD.encode(random::<16>().map_err(Trouble::Lost)?);
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        for (name, text) in [
            (SEC_WEBSOCKET_KEY, key.clone()),
            (HeaderName::from_static(UID_HEADER), uid.to_string()),
        ] {
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(name, value);
            }
        }
        let answer = client.upgrade(endpoint, &headers).await;
        let stream = match answer.map_err(|e| Trouble::Lost(e.message))? {
            Upgrade::Switched(headers, stream) => {
                check(&headers, &key).map_err(|e| Trouble::Lost(format!("{endpoint}: {e}")))?;
                stream
            }
            Upgrade::Answered(reply) => {
                let text = unexpected(endpoint, reply.status, &reply.body);
                return Err(match reply.status {
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                        Trouble::Throttled(asked(&reply.headers), text)
                    }
                    _ => Trouble::Lost(text),
                });
            }
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(bytes_max))
            .max_frame_size(Some(bytes_max));
        let socket = WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await;
        Ok(SocketLink {
            socket,
            from: endpoint.to_string(),
            bytes_max,
        })
    }

    /// Sends a message.
    pub async fn send(&mut self, message: &AgentToServer) -> Result<(), Trouble> {
        let bytes = frame(message);
        if bytes.len() > self.bytes_max {
            return Err(Trouble::TooLarge(too_large(
                "a message",
                bytes.len(),
                self.bytes_max,
            )));
        }
        let sending = self.socket.send(Message::Binary(bytes.into()));
        match timeout(SEND_TIMEOUT, sending).await {
            Ok(sent) => sent.map_err(|e| self.lost(&e)),
            Err(_) => Err(Trouble::Lost(format!(
                "{}: a message is not read",
                self.from
            ))),
        }
    }

    /// The next message.
    pub async fn receive(&mut self) -> Result<ServerToAgent, Trouble> {
        loop {
            let message = match self.socket.next().await {
                Some(Ok(message)) => message,
                Some(Err(e)) => {
                    if matches!(e, Error::Capacity(_)) {
                        self.end(CloseCode::Size).await;
                    }
                    return Err(self.lost(&e));
                }
                None => return Err(Trouble::Lost(format!("{}: closed", self.from))),
            };
            match message {
                Message::Binary(bytes) => match unframe(&bytes) {
                    Ok(message) => return Ok(message),
                    Err(e) => {
                        self.end(CloseCode::Invalid).await;
                        return Err(Trouble::Lost(format!("{}: {e}", self.from)));
                    }
                },
                Message::Text(_) => {
                    self.end(CloseCode::Unsupported).await;
                    let text = format!(
                        "{}: a message of text, which none of the protocol is",
                        self.from
                    );
                    return Err(Trouble::Lost(text));
                }
                Message::Close(frame) => {
                    let why = frame.map(|f| format!(" ({} {})", f.code, f.reason));
                    let why = why.unwrap_or_default();
                    return Err(Trouble::Lost(format!(
                        "{} closed the connection{why}",
                        self.from
                    )));
                }
                // Answered by the library.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Closes in order, as far as the other side does.
    pub async fn close(mut self) {
        self.end(CloseCode::Normal).await;
        let ended = async { while let Some(Ok(_)) = self.socket.next().await {} };
        let _ = timeout(CLOSE_TIMEOUT, ended).await;
    }

    async fn end(&mut self, code: CloseCode) {
        let frame = CloseFrame {
            code,
            reason: "".into(),
        };
        // What cannot be closed in order is dropped.
        let _ = timeout(CLOSE_TIMEOUT, self.socket.close(Some(frame))).await;
    }

    fn lost(&self, e: &Error) -> Trouble {
        Trouble::Lost(format!("{}: {e}", self.from))
    }
}

/// Looks at the server's half of the handshake (RFC 6455, 4.1).
fn check(headers: &HeaderMap, key: &str) -> Result<(), &'static str> {
    let says = |name: HeaderName, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
        let mut words = values.flat_map(|v| v.split(','));
        words.any(|w| w.trim().eq_ignore_ascii_case(word))
    };
    if !says(UPGRADE, "websocket") || !says(CONNECTION, "upgrade") {
        return Err("it switches to another protocol than WebSocket");
    }
    let hash = Sha1::digest(format!("{key}{GUID}").as_bytes());
    let accept = headers.get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
    if accept != Some(BASE64_STANDARD.encode(hash).as_bytes()) {
        return Err("Sec-WebSocket-Accept does not fit");
    }
    if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS)
        || headers.contains_key(SEC_WEBSOCKET_PROTOCOL)
    {
        return Err("it uses an extension or a subprotocol that was not asked for");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455, 1.3.
    #[test]
    fn the_servers_half_of_the_handshake_is_checked() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let good = || {
            let mut headers = HeaderMap::new();
            headers.insert(UPGRADE, HeaderValue::from_static("WebSocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
            let accept = HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
            headers
        };
        assert_eq!(check(&good(), key), Ok(()));
        assert!(check(&good(), "AAAAAAAAAAAAAAAAAAAAAA==").is_err());
        for name in [UPGRADE, CONNECTION, SEC_WEBSOCKET_ACCEPT] {
            let mut headers = good();
            headers.insert(name, HeaderValue::from_static("x"));
            assert!(check(&headers, key).is_err());
        }
        let mut headers = good();
        let extension = HeaderValue::from_static("permessage-deflate");
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, extension);
        assert!(check(&headers, key).is_err());
    }
}
