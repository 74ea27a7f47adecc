//! Both transports of the server.

use std::convert::Infallible;
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use sha1::{Digest, Sha1};
use tailwater_opamp::proto::{AgentToServer, ServerToAgent};
use tailwater_opamp::{InstanceUid, frame, unframe};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use super::{Fault, State};

type Shared = Arc<Mutex<State>>;
type Reply = Response<Full<Bytes>>;

/// Takes connections until it is dropped.
pub(super) async fn accept(listener: TcpListener, state: Shared, changes: watch::Receiver<u64>) {
    let mut tasks = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let (state, changes) = (state.clone(), changes.clone());
        tasks.spawn(async move {
            let service = service_fn(|r| answer(r, state.clone(), changes.clone()));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            // A broken connection is the agent's affair.
            let _ = connection.await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Shared,
    changes: watch::Receiver<u64>,
) -> Result<Reply, std::io::Error> {
    let wrong = |what: String| state.lock().expect("no panic").violations.push(what);
    if request.uri().path() != "/v1/opamp" {
        wrong(format!("path {}", request.uri()));
    }
    if let Some(refused) = refuse(&state, &request) {
        return Ok(refused);
    }
    match request.headers().get("content-type").map(|v| v.as_bytes()) {
        Some(b"application/x-protobuf") => plain(request, &state).await,
        Some(other) => {
            wrong(format!("content type {other:?}"));
            Ok(status(StatusCode::UNSUPPORTED_MEDIA_TYPE))
        }
        None => Ok(upgrade(request, state, changes)),
    }
}

/// Who may not come in now.
fn refuse(state: &Shared, request: &Request<Incoming>) -> Option<Reply> {
    let mut s = state.lock().expect("no panic");
    if let Some(until) = s.away_until.take()
        && Instant::now() < until
    {
        s.violations.push("came back before it was told to".into());
    }
    let given = request.headers().get("authorization");
    if s.token
        .as_ref()
        .is_some_and(|t| given.is_none_or(|g| g != t.as_str()))
    {
        return Some(status(StatusCode::UNAUTHORIZED));
    }
    if let Some(Fault::Status503(seconds)) = s.faults.front().cloned() {
        s.faults.pop_front();
        s.away_until = Some(Instant::now() + std::time::Duration::from_secs(seconds));
        s.agents.values_mut().for_each(super::Seen::lost);
        let mut reply = status(StatusCode::SERVICE_UNAVAILABLE);
        let value = seconds.to_string().parse().expect("a header");
        reply.headers_mut().insert("retry-after", value);
        return Some(reply);
    }
    s.let_in += 1;
    None
}

fn status(status: StatusCode) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = status;
    reply
}

/// A request with a message.
async fn plain(request: Request<Incoming>, state: &Shared) -> Result<Reply, std::io::Error> {
    let broken = || std::io::Error::other("closed as the test wants it");
    let headers = request.headers().clone();
    {
        let mut s = state.lock().expect("no panic");
        s.under_way += 1;
        if s.under_way > 1 {
            s.violations
                .push("a request before the answer to the last one".into());
        }
    }
    let body = request.into_body().collect().await;
    let body = body.map(|b| b.to_bytes());
    let mut s = state.lock().expect("no panic");
    s.under_way -= 1;
    let body = body.map_err(|_| broken())?;
    let body = match headers.get("content-encoding").map(|v| v.as_bytes()) {
        Some(b"gzip") => {
            let mut out = Vec::new();
            let read = flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut out);
            read.expect("gzip");
            out
        }
        None => body.to_vec(),
        Some(other) => {
            s.violations.push(format!("content encoding {other:?}"));
            return Ok(status(StatusCode::BAD_REQUEST));
        }
    };
    let Ok(message) = AgentToServer::decode(&body[..]) else {
        s.violations.push("no AgentToServer".into());
        return Ok(status(StatusCode::BAD_REQUEST));
    };
    let uid = InstanceUid::from_bytes(&message.instance_uid).map(|u| u.to_string());
    let said = headers
        .get("opamp-instance-uid")
        .and_then(|v| v.to_str().ok());
    if said != uid.as_deref() {
        s.violations
            .push(format!("OpAMP-Instance-UID {said:?} for {uid:?}"));
    }
    let answer = s.take(&message, false).ok_or_else(broken)?;
    let zips = headers.get("accept-encoding").is_some_and(|v| v == "gzip");
    if !zips {
        s.violations.push("Accept-Encoding".into());
    }
    let packed = {
        use std::io::Write;
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(&answer.encode_to_vec())?;
        out.finish()?
    };
    let mut reply = Response::new(Full::new(Bytes::from(packed)));
    let kind = "application/x-protobuf".parse().expect("a header");
    reply.headers_mut().insert("content-type", kind);
    let gzip = "gzip".parse().expect("a header");
    reply.headers_mut().insert("content-encoding", gzip);
    Ok(reply)
}

/// A handshake for a WebSocket.
fn upgrade(mut request: Request<Incoming>, state: Shared, changes: watch::Receiver<u64>) -> Reply {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let good = header("upgrade").eq_ignore_ascii_case("websocket")
        && header("connection").eq_ignore_ascii_case("upgrade")
        && header("sec-websocket-version") == "13";
    let key = header("sec-websocket-key");
    if !good || BASE64_STANDARD.decode(&key).map(|k| k.len()) != Ok(16) {
        let mut s = state.lock().expect("no panic");
        s.violations
            .push(format!("no handshake: {:?}", request.headers()));
        return status(StatusCode::BAD_REQUEST);
    }
    let guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let accept = BASE64_STANDARD.encode(Sha1::digest(format!("{key}{guid}").as_bytes()));
    let upgrading = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrading.await else {
            return;
        };
        let io = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        let _ = converse(socket, &state, changes).await;
    });
    let mut reply = status(StatusCode::SWITCHING_PROTOCOLS);
    for (name, value) in [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-accept", &accept),
    ] {
        reply
            .headers_mut()
            .insert(name, value.parse().expect("a header"));
    }
    reply
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;
type Failure = tokio_tungstenite::tungstenite::Error;

async fn converse(
    mut socket: Socket,
    state: &Shared,
    mut changes: watch::Receiver<u64>,
) -> Result<Infallible, Failure> {
    let mut first = true;
    let mut uid = Vec::new();
    let mut pushed = None;
    let closed = || Failure::ConnectionClosed;
    loop {
        let message = tokio::select! {
            message = socket.next() => message.ok_or_else(closed)??,
            _ = changes.changed() => {
                let answer = {
                    let s = state.lock().expect("no panic");
                    s.agents.get(&uid).and_then(|seen| s.desired.push(seen))
                };
                // An agent is offered something once while it has not answered.
                if let Some(answer) = answer.filter(|a| pushed.as_ref() != Some(a)) {
                    socket.send(Message::Binary(frame(&answer).into())).await?;
                    pushed = Some(answer);
                }
                continue;
            }
        };
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Close(_) => {
                let mut s = state.lock().expect("no panic");
                let gone = s.agents.get(&uid).is_some_and(|seen| seen.gone);
                if !gone {
                    s.violations.push("closed without a farewell".into());
                }
                return Err(closed());
            }
            Message::Ping(_) | Message::Pong(_) => continue,
            other => {
                let mut s = state.lock().expect("no panic");
                s.violations.push(format!("{other:?}"));
                return Err(closed());
            }
        };
        let answer: Option<ServerToAgent> = {
            let mut s = state.lock().expect("no panic");
            match unframe::<AgentToServer>(&bytes) {
                Ok(message) => {
                    uid.clone_from(&message.instance_uid);
                    s.take(&message, std::mem::take(&mut first))
                }
                Err(e) => {
                    s.violations.push(e.to_string());
                    None
                }
            }
        };
        let answer = answer.ok_or_else(closed)?;
        socket.send(Message::Binary(frame(&answer).into())).await?;
    }
}
