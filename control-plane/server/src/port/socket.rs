//! A WebSocket. Its buffers are small: thousands of agents are connected, and few speak at a time.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tailwater_opamp::proto::{AgentToServer, ServerToAgent};
use tailwater_opamp::{InstanceUid, frame, refusal, unframe};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::{Port, Speaker, accept_of, certify, rename, speak_for, text};
use crate::authority::Caller;
use crate::hub::{Counts, Hub};
use crate::now_ms;
use crate::trust::REVOKED;

/// Of each direction of a connection, bytes.
const BUFFER_BYTES: usize = 4096;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Answers a handshake, and speaks over what comes of it.
pub(super) fn upgrade(
    port: &Arc<Port>,
    mut request: Request<Incoming>,
    caller: Caller,
) -> Response<Full<Bytes>> {
    let Some(accept) = accept_of(&request) else {
        return text(
            StatusCode::BAD_REQUEST,
            "no WebSocket handshake of version 13\n",
        );
    };
    let Ok(accept) = HeaderValue::from_str(&accept) else {
        return text(StatusCode::BAD_REQUEST, "no WebSocket handshake\n");
    };
    let upgrading = hyper::upgrade::on(&mut request);
    // What is left of the request is not needed any more.
    drop(request);
    let port = port.clone();
    tokio::spawn(async move {
        let Ok(upgraded) = upgrading.await else {
            return;
        };
        let max = port.limits.message_bytes_max;
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(BUFFER_BYTES)
            .max_write_buffer_size(max.saturating_mul(2).max(4 * BUFFER_BYTES))
            .max_message_size(Some(max))
            .max_frame_size(Some(max));
        let io = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        let mut session = Session {
            socket,
            port: port.clone(),
            caller,
            wake: Arc::default(),
            speaks: None,
        };
        let ended = session.run().await;
        if let Some((uid, connection)) = session.speaks {
            port.hub.detach(uid, connection, now_ms());
        }
        if let Some(close) = ended {
            let closing = Box::pin(session.socket.close(Some(close)));
            let _ = timeout(port.limits.message, closing).await;
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

struct Session {
    socket: Socket,
    port: Arc<Port>,
    caller: Caller,
    wake: Arc<Notify>,
    /// For which agent, and under which number.
    speaks: Option<(InstanceUid, u64)>,
}

fn closing(code: CloseCode, reason: &'static str) -> Option<CloseFrame> {
    Some(CloseFrame {
        code,
        reason: reason.into(),
    })
}

impl Session {
    /// Speaks until the end. What to say at it; none if nobody hears it.
    async fn run(&mut self) -> Option<CloseFrame> {
        let mut heard = Instant::now();
        let mut asked = false;
        loop {
            let patience = match asked {
                true => self.port.limits.silence * 2,
                false => self.port.limits.silence,
            };
            let received = tokio::select! {
                received = self.socket.next() => received,
                () = self.wake.notified() => {
                    // What is seldom under way takes room only then.
                    if let Err(close) = Box::pin(self.woken()).await {
                        return close;
                    }
                    continue;
                }
                () = sleep_until(heard + patience) => {
                    if asked {
                        return None;
                    }
                    asked = true;
                    Box::pin(self.send(Message::Ping(Bytes::new()))).await?;
                    continue;
                }
            };
            (heard, asked) = (Instant::now(), false);
            if let Some((uid, connection)) = self.speaks
                && !self.port.hub.lives(uid, connection)
            {
                return self.replaced();
            }
            match received {
                Some(Ok(Message::Binary(bytes))) => {
                    if let Err(close) = Box::pin(self.take(&bytes)).await {
                        return close;
                    }
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    Counts::add(&self.port.hub.counts.refused);
                    return closing(CloseCode::Unsupported, "messages are binary");
                }
                Some(Err(tokio_tungstenite::tungstenite::Error::Capacity(_))) => {
                    Counts::add(&self.port.hub.counts.refused);
                    return closing(CloseCode::Size, "the message is too large");
                }
                Some(Ok(Message::Close(_))) | Some(Err(_)) | None => return None,
            }
        }
    }

    /// Takes a message, and answers. `Err` if this is the end.
    async fn take(&mut self, bytes: &[u8]) -> Result<(), Option<CloseFrame>> {
        let message: AgentToServer = match unframe(bytes) {
            Ok(message) => message,
            Err(error) => {
                Counts::add(&self.port.hub.counts.refused);
                let uid = self
                    .speaks
                    .map(|(uid, _)| uid.0.to_vec())
                    .unwrap_or_default();
                return self.say(&refusal(&uid, &error.to_string())).await;
            }
        };
        let Some(uid) = InstanceUid::from_bytes(&message.instance_uid) else {
            Counts::add(&self.port.hub.counts.refused);
            let text = "instance_uid must be 16 bytes";
            return self.say(&refusal(&message.instance_uid, text)).await;
        };
        let farewell = message.agent_disconnect.is_some();
        let connection = match self.speaks {
            Some((known, connection)) if known == uid => connection,
            other => {
                if let Some((known, connection)) = other {
                    self.speaks = None;
                    self.port.hub.detach(known, connection, now_ms());
                }
                match speak_for(&self.port, uid, Some(self.wake.clone()), &self.caller).await {
                    Speaker::This(connection) => {
                        self.speaks = Some((uid, connection));
                        connection
                    }
                    Speaker::Other => {
                        let answer = rename(&self.port, uid, message, &self.caller);
                        return self.say(&answer).await;
                    }
                    Speaker::Not(why) => {
                        self.say(&refusal(&uid.0, why)).await?;
                        return Err(closing(CloseCode::Policy, why));
                    }
                    Speaker::Nobody => {
                        self.say(&Hub::full(uid)).await?;
                        return Err(closing(CloseCode::Again, "no room"));
                    }
                }
            }
        };
        let Some(reply) = self.port.hub.received(uid, connection, message, now_ms()) else {
            return Err(self.replaced());
        };
        if farewell {
            // It does not wait for an answer.
            self.speaks = None;
            return Ok(());
        }
        let mut answer = reply.message;
        let mut refused = None;
        if let Some(request) = reply.request {
            // Seldom, and large.
            match Box::pin(certify(&self.port, uid, request, &self.caller)).await {
                Some(Ok(settings)) => answer.connection_settings = Some(settings),
                Some(Err(why)) => refused = Some(refusal(&uid.0, &why)),
                None => {}
            }
        }
        self.say(&answer).await?;
        match refused {
            Some(refused) => self.say(&refused).await,
            None => Ok(()),
        }
    }

    /// It speaks for nobody any more; what to say at the end.
    fn replaced(&mut self) -> Option<CloseFrame> {
        self.speaks = None;
        let why = match self.port.trust.is_revoked(&self.caller) {
            true => REVOKED,
            false => "another connection speaks for this agent",
        };
        closing(CloseCode::Policy, why)
    }

    /// There may be something to say.
    async fn woken(&mut self) -> Result<(), Option<CloseFrame>> {
        let Some((uid, connection)) = self.speaks else {
            return Ok(());
        };
        let Ok(push) = self.port.hub.push(uid, connection) else {
            return Err(self.replaced());
        };
        if push.is_challenged {
            self.send(Message::Ping(Bytes::new())).await.ok_or(None)?;
        }
        match push.message {
            Some(message) => self.say(&message).await,
            None => Ok(()),
        }
    }

    async fn say(&mut self, message: &ServerToAgent) -> Result<(), Option<CloseFrame>> {
        let message = Message::Binary(frame(message).into());
        self.send(message).await.ok_or(None)
    }

    /// None if the other end does not take it.
    async fn send(&mut self, message: Message) -> Option<()> {
        let sent = timeout(self.port.limits.message, self.socket.send(message)).await;
        matches!(sent, Ok(Ok(()))).then_some(())
    }
}
