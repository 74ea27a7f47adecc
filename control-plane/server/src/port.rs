//! OpAMP over HTTP: a WebSocket, or a request for each message. Source: the specification, version 0.18,
//! "WebSocket Transport" and "Plain HTTP Transport".

mod plain;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode};
use tailwater_opamp::InstanceUid;
use tailwater_opamp::proto::{AgentToServer, ConnectionSettingsOffers, ServerToAgent};
use tokio::sync::{Notify, Semaphore, oneshot};

use crate::authority::Caller;
use crate::hub::{Attached, Counts, How, Hub};
use crate::now_ms;
use crate::trust::{REVOKED, Speaks, Trust};

/// Where agents speak to.
pub const PATH: &str = "/v1/opamp";
/// How long the other connection of an agent may take to show that it lives.
const CHALLENGE: Duration = Duration::from_secs(3);
/// So many bodies of requests are taken in at the same time.
const BODIES_MAX: usize = 64;

/// Limits of messages and times.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest message, after decompression.
    pub message_bytes_max: usize,
    /// A connection over which nothing came for so long is asked whether it lives, and after as long again it
    /// is closed.
    pub silence: Duration,
    /// How long it may take to send or to receive a message.
    pub message: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            message_bytes_max: 4 << 20,
            silence: Duration::from_secs(75),
            message: Duration::from_secs(30),
        }
    }
}

/// What answers agents.
pub struct Port {
    /// The agents.
    pub hub: Arc<Hub>,
    /// See [`Limits`].
    pub limits: Limits,
    /// For which agent a connection may speak.
    pub trust: Trust,
    bodies: Semaphore,
}

impl Port {
    /// One that brings agents to this hub.
    pub fn new(hub: Arc<Hub>, limits: Limits, trust: Trust) -> Port {
        Port {
            hub,
            limits,
            trust,
            bodies: Semaphore::new(BODIES_MAX),
        }
    }
}

/// Answers a request at [`PATH`].
pub async fn answer(
    port: &Arc<Port>,
    request: Request<Incoming>,
    caller: Caller,
) -> Response<Full<Bytes>> {
    let headers = request.headers();
    let upgrades = headers.get(UPGRADE).is_some();
    match *request.method() {
        Method::GET if upgrades => socket::upgrade(port, request, caller),
        Method::POST => match headers.get(CONTENT_TYPE).map(|v| v.as_bytes()) {
            Some(b"application/x-protobuf") => plain::answer(port, request, &caller).await,
            _ => text(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Content-Type must be application/x-protobuf\n",
            ),
        },
        _ => text(
            StatusCode::METHOD_NOT_ALLOWED,
            "OpAMP: a WebSocket handshake, or POST\n",
        ),
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

/// Who speaks for an agent.
enum Speaker {
    /// This connection, under a number.
    This(u64),
    /// Another one; this one gets another name.
    Other,
    /// Nobody: there is no room.
    Nobody,
    /// Not this one, for this reason.
    Not(&'static str),
}

/// Has a connection speak for an agent, if it may, and unless another one does and lives.
async fn speak_for(
    port: &Port,
    uid: InstanceUid,
    wake: Option<Arc<Notify>>,
    caller: &Caller,
) -> Speaker {
    let hub = &port.hub;
    let speaks = port.trust.speaks(uid, caller, now_ms());
    let how = match speaks {
        Speaks::Fully | Speaks::ToEnrol => How {
            anyway: false,
            is_enrolled: speaks == Speaks::Fully,
        },
        Speaks::UnderAnother => return Speaker::Other,
        Speaks::Not(why) => {
            Counts::add(&hub.counts.strangers);
            tracing::warn!(%uid, ?caller, "a connection may not speak for an agent: {why}");
            return Speaker::Not(why);
        }
    };
    if how.is_enrolled {
        shown(port, uid, caller).await;
    }
    match hub.attach(uid, wake.clone(), how, now_ms()) {
        Attached::As(connection) => return checked(port, uid, connection, caller),
        Attached::Full => return Speaker::Nobody,
        Attached::Taken(lives) => {
            if is_answered(lives).await {
                return Speaker::Other;
            }
        }
    }
    let how = How {
        anyway: true,
        ..how
    };
    match hub.attach(uid, wake, how, now_ms()) {
        Attached::As(connection) => checked(port, uid, connection, caller),
        _ => Speaker::Nobody,
    }
}

/// A certificate that was revoked meanwhile has expelled nobody yet.
fn checked(port: &Port, uid: InstanceUid, connection: u64, caller: &Caller) -> Speaker {
    match port.trust.is_revoked(caller) {
        false => Speaker::This(connection),
        true => {
            port.hub.detach(uid, connection, now_ms());
            Speaker::Not(REVOKED)
        }
    }
}

/// A certificate is shown: the first time that is written down.
async fn shown(port: &Port, uid: InstanceUid, caller: &Caller) {
    let (Some(authority), Some(shown)) = (&port.trust.authority, &caller.certificate) else {
        return;
    };
    let (authority, serial) = (authority.clone(), shown.serial.clone());
    // The store is on disk.
    let done = tokio::task::spawn_blocking(move || authority.shown(uid, &serial, now_ms())).await;
    if let Ok(Err(error)) = done {
        tracing::error!(%uid, "it is not kept that an agent shows its certificate: {error}");
    }
}

/// Another name for an agent whose name is taken, and the answer that gives it.
fn rename(port: &Port, uid: InstanceUid, message: AgentToServer, caller: &Caller) -> ServerToAgent {
    let new = new_uid();
    if let (Some(authority), Some(shown)) = (&port.trust.authority, &caller.certificate)
        && let Some(named) = shown.uid
    {
        authority.gave(new, named, now_ms());
    }
    tracing::info!(%uid, %new, "another agent has this name; this one gets another");
    port.hub.renamed(uid, message, new)
}

/// Answers the request of an agent for a certificate: by an offer of settings, or a refusal. None if it waits.
async fn certify(
    port: &Port,
    uid: InstanceUid,
    request: Vec<u8>,
    caller: &Caller,
) -> Option<Result<ConnectionSettingsOffers, String>> {
    let Some(authority) = port.trust.authority.clone() else {
        return Some(Err("certificates are not issued here".to_owned()));
    };
    let caller = caller.clone();
    let work = move || authority.request(uid, &request, &caller, now_ms());
    // The store is on disk.
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|_| Err("it failed; the log says why".to_owned()));
    if let Err(why) = &done {
        tracing::warn!(%uid, "an agent gets no certificate: {why}");
    }
    done.transpose()
}

async fn is_answered(lives: oneshot::Receiver<()>) -> bool {
    matches!(tokio::time::timeout(CHALLENGE, lives).await, Ok(Ok(())))
}

/// A name that nobody has.
fn new_uid() -> InstanceUid {
    let mut random = [0; 10];
    if let Err(error) = getrandom::fill(&mut random) {
        tracing::error!(%error, "the system gives no random bytes");
        random[..8].copy_from_slice(&now_ms().wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
    InstanceUid::v7(now_ms(), random)
}

/// The value of `Sec-WebSocket-Accept` for a handshake (RFC 6455, 4.2.2); none if it is no handshake.
fn accept_of(request: &Request<Incoming>) -> Option<String> {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use sha1::{Digest, Sha1};
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let header = |name: HeaderName| request.headers().get(name)?.to_str().ok();
    let has = |name, wanted: &str| {
        let listed = header(name).unwrap_or_default().split(',');
        listed
            .into_iter()
            .any(|v| v.trim().eq_ignore_ascii_case(wanted))
    };
    let key = header(SEC_WEBSOCKET_KEY)?;
    let is_good = has(UPGRADE, "websocket")
        && has(CONNECTION, "upgrade")
        && header(SEC_WEBSOCKET_VERSION) == Some("13")
        && BASE64_STANDARD.decode(key).is_ok_and(|k| k.len() == 16);
    let digest = || Sha1::digest(format!("{key}{GUID}").as_bytes());
    is_good.then(|| BASE64_STANDARD.encode(digest()))
}
