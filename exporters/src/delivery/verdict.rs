//! What an attempt brought, and what it means.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};
use tailwater_pipeline::DropReason;

use super::request::OutgoingRequest;

/// How far a failure reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetryScope {
    /// This request only. If requests that fail for the first time keep failing without a success
    /// between them, the queue treats that as [`RetryScope::Destination`].
    Request,
    /// The streams of this request only: the destination is well and said no to them. However many
    /// requests that happens to, it says nothing about others.
    Lanes,
    /// Every request of the tenant: they wait, others go on.
    Tenant,
    /// Everything: the destination cannot be reached or takes nothing.
    Destination,
}

/// What becomes of a request after an attempt.
#[derive(Debug)]
pub enum Verdict<D> {
    /// All of it was accepted.
    Delivered,
    /// Accepted, except for some records that the destination gave up for good.
    DeliveredExcept {
        /// Records given up, by reason.
        dropped: Vec<(DropReason, u64)>,
    },
    /// Send the same bytes again later.
    Retry {
        /// How far the failure reaches.
        scope: RetryScope,
        /// The wait that the destination asked for: a floor for the backoff, cut at 15 minutes.
        after: Option<Duration>,
        /// For people.
        cause: Arc<str>,
    },
    /// Send these instead (made with [`OutgoingRequest::part`]). They take the place of the
    /// request in the order of its lanes, first to last. The records of the parts and the dropped
    /// ones must add up to the records of the request.
    Replace {
        /// The parts, in order.
        parts: Vec<OutgoingRequest<D>>,
        /// Records given up, by reason.
        dropped: Vec<(DropReason, u64)>,
    },
    /// Give the request up: it can never be accepted.
    Drop {
        /// Why.
        reason: DropReason,
        /// For people.
        cause: Arc<str>,
    },
    /// Nothing helps until a person changes something (credentials, tenant). Nothing is dropped:
    /// the scope waits and is tried again slowly, and an alarm is shown.
    Hold {
        /// What waits.
        scope: RetryScope,
        /// How long; without it, as long as retries wait at most, and at least 30 s.
        wait: Option<Duration>,
        /// For people.
        cause: Arc<str>,
    },
}

/// The wait where nothing was sent: files that are mended, or a server that is, are to be noticed
/// within 10 s, and trying costs no more than a handshake.
const LOCAL_WAIT: Duration = Duration::from_secs(8);

impl<D> Verdict<D> {
    /// The explanation for people, if the verdict has one.
    pub fn cause(&self) -> Option<Arc<str>> {
        match self {
            Verdict::Retry { cause, .. }
            | Verdict::Drop { cause, .. }
            | Verdict::Hold { cause, .. } => Some(cause.clone()),
            Verdict::Delivered | Verdict::DeliveredExcept { .. } | Verdict::Replace { .. } => None,
        }
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The body, cut at the client's limit.
    pub body: Bytes,
    /// True if the body was longer than the client's limit.
    pub truncated: bool,
}

/// What kind of failure kept an attempt from being answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendErrorKind {
    /// No connection: name resolution, refused, unreachable, timeout while connecting, proxy.
    Connect,
    /// A connection, but no secure one: certificate or protocol does not fit.
    Tls,
    /// No answer in time.
    Timeout,
    /// The connection broke before the answer was complete.
    Broken,
    /// Local configuration cannot work: certificate or secret files, header values.
    Config,
}

/// Why an attempt was not answered. All kinds may pass by themselves (files get mended, names
/// resolve again), so none of them is a reason to drop data.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SendError {
    /// What failed.
    pub kind: SendErrorKind,
    /// For people: what was tried and what went wrong.
    pub message: String,
}

impl SendError {
    /// An error of `kind`.
    pub fn new(kind: SendErrorKind, message: impl Into<String>) -> SendError {
        SendError {
            kind,
            message: message.into(),
        }
    }

    /// The verdict that fits the kind. Problems with the connection concern the whole destination;
    /// a timeout or a broken connection may be the fault of this request, so others are tried.
    pub fn verdict<D>(&self) -> Verdict<D> {
        let cause: Arc<str> = self.message.as_str().into();
        let scope = match self.kind {
            SendErrorKind::Connect => RetryScope::Destination,
            SendErrorKind::Timeout | SendErrorKind::Broken => RetryScope::Request,
            SendErrorKind::Tls | SendErrorKind::Config => {
                return Verdict::Hold {
                    scope: RetryScope::Destination,
                    wait: Some(LOCAL_WAIT),
                    cause,
                };
            }
        };
        Verdict::Retry {
            scope,
            after: None,
            cause,
        }
    }
}

/// Decides what an answer means. Called on the socket thread, once per attempt.
pub trait Judge<D>: Send + Sync + 'static {
    /// `request` is what was sent; parts for [`Verdict::Replace`] are made from it.
    fn judge(
        &self,
        request: &mut OutgoingRequest<D>,
        result: Result<Reply, SendError>,
    ) -> Verdict<D>;

    /// The queue gave a request up that was not judged as [`Verdict::Drop`]: its retries are used
    /// up. `cause` is what the last attempt brought.
    fn given_up(&self, _body: &[Bytes], _tenant: Option<&str>, _reason: DropReason, _cause: &str) {}

    /// A number that changes when [`Judge::divide`] may divide what it left as it was before.
    fn divisions(&self) -> u64 {
        0
    }

    /// Parts of a request that waits for others, in order, each lane in exactly one of them, if
    /// some of its lanes must not wait with the others. Nothing, if it can stay as it is.
    fn divide(&self, _request: &mut OutgoingRequest<D>) -> Vec<OutgoingRequest<D>> {
        Vec::new()
    }
}

/// Sends one request once, with a bound on the time it takes.
pub trait Transport: Send + Sync + 'static {
    /// Sends `body` with `headers` and waits for the answer.
    fn send(
        &self,
        headers: &HeaderMap,
        body: Vec<Bytes>,
    ) -> impl Future<Output = Result<Reply, SendError>> + Send;
}
