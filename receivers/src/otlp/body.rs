//! Bodies: read within limits of bytes and time, and turned into what the pipelines take.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::http::Extensions;
use tailwater_pdata::Signal;
use tailwater_pdata::otlp::{Encoded, Limits, json};
use tokio::time::Instant;

use super::connections::{Connection, ReadingBody};
use super::inflate::{Encoding, InflateError};
use super::intake::Decoded;
use super::memory::Digest;
use super::room::Hold;
use super::status::{Code, Status};

/// A body of protobuf that is longer is looked through beside the sockets, so that it does not hold up
/// other connections: this many bytes take a fifth of a millisecond, about what handing over costs.
const INLINE_BYTES_MAX: usize = 256 << 10;
/// The same of JSON, which takes longer.
const INLINE_JSON_BYTES_MAX: usize = 16 << 10;
/// Room for what is said to come but has not: at least so much, and at most three times what has.
const AHEAD_BYTES: usize = 64 << 10;

/// Why a body was not read.
#[derive(Debug)]
pub enum BodyError {
    /// It is longer than allowed.
    TooLong,
    /// There is no room for it now.
    NoRoom,
    /// It took too long.
    Late,
    /// It had not come when another request needed what it had taken.
    MadeWay,
    /// The connection broke, or the client sent something else.
    Broken(String),
}

/// Until when, and how much, may be read.
pub struct Reading {
    /// When the body must be there.
    pub until: Instant,
    /// Its largest length.
    pub bytes_max: usize,
    _waits: Option<ReadingBody>,
}

impl Reading {
    /// A body that begins now.
    pub fn new(time: Duration, bytes_max: usize) -> Reading {
        Reading {
            until: Instant::now() + time,
            bytes_max,
            _waits: None,
        }
    }

    /// The same, of a request with these extensions: its connection is told that it is waited for.
    #[must_use]
    pub fn on(mut self, extensions: &Extensions) -> Reading {
        let connection = extensions.get::<Arc<Connection>>();
        self._waits = connection.map(Connection::read_body);
        self
    }

    /// Reads a body as a whole. `look` is shown what there is so far; it may end the reading early, and
    /// may tell how long the body will be.
    ///
    /// # Errors
    /// See [`BodyError`], and what `look` says.
    pub async fn read<E: From<BodyError>>(
        self,
        mut body: Incoming,
        hold: &mut Hold,
        mut look: impl FnMut(&[u8]) -> Result<Option<usize>, E>,
    ) -> Result<Bytes, E> {
        let told = body.size_hint().exact();
        let mut told = told.and_then(|n| usize::try_from(n).ok());
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        loop {
            let frame = tokio::select! {
                biased;
                frame = tokio::time::timeout_at(self.until, body.frame()) => frame,
                () = hold.wait() => return Err(BodyError::MadeWay.into()),
            };
            let frame = match frame.map_err(|_| E::from(BodyError::Late))? {
                None => {
                    hold.came();
                    return Ok(if all.is_empty() { first } else { all.freeze() });
                }
                Some(Err(e)) => return Err(BodyError::Broken(e.to_string()).into()),
                Some(Ok(frame)) => frame,
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let have = first.len().max(all.len()) + data.len();
            if have > self.bytes_max {
                return Err(BodyError::TooLong.into());
            }
            if !hold.grow(data.len()) {
                return Err(BodyError::NoRoom.into());
            }
            if first.is_empty() && all.is_empty() {
                // One piece is used as it is.
                first = data;
                told = look(&first)?.or(told);
                continue;
            }
            if have > all.capacity() {
                let ahead = (3 * have).max(AHEAD_BYTES);
                let wanted = told.unwrap_or(0).clamp(have, have + ahead);
                all.reserve(wanted.min(self.bytes_max) - all.len());
            }
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
            told = look(&all)?.or(told);
        }
    }
}

/// How a request is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// protobuf.
    Proto,
    /// JSON.
    Json,
}

/// What a body is.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// What it carries.
    pub signal: Signal,
    /// How it is written.
    pub form: Form,
    /// How it is compressed.
    pub encoding: Encoding,
    /// How many bytes it may inflate to.
    pub bytes_max: usize,
    /// Whether its digest is wanted.
    pub digest: bool,
}

/// Turns a body into what the pipelines take, off the thread of the sockets if that takes long.
///
/// # Errors
/// What the request is answered with.
pub async fn decode(kind: Kind, body: Bytes, hold: Hold) -> Result<Decoded, Status> {
    let inline_max = match kind.form {
        Form::Proto => INLINE_BYTES_MAX,
        Form::Json => INLINE_JSON_BYTES_MAX,
    };
    if kind.encoding == Encoding::Identity && body.len() <= inline_max {
        return decode_now(kind, body, hold);
    }
    let Some(turn) = hold.turn().await else {
        return Err(Status::unavailable("too many bodies wait to be decoded"));
    };
    let decoding = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        decode_now(kind, body, hold)
    });
    // Fails when the runtime ends, or by a panic, which is a bug that must not end the server.
    decoding.await.unwrap_or_else(|e| {
        tracing::error!(error = %e, "a request could not be decoded");
        Err(Status::new(
            Code::Internal,
            "the request could not be decoded",
        ))
    })
}

fn decode_now(kind: Kind, body: Bytes, mut hold: Hold) -> Result<Decoded, Status> {
    let invalid = |problem: String| Status::new(Code::InvalidArgument, problem);
    let plain = kind
        .encoding
        .inflate(body, kind.bytes_max, &mut |bytes| hold.grow(bytes));
    let plain = plain.map_err(|e| match e {
        InflateError::TooLarge(_) => Status::new(Code::ResourceExhausted, e.to_string()),
        InflateError::NoRoom => Status::unavailable(e.to_string()),
        InflateError::Broken { .. } => invalid(e.to_string()),
    })?;
    let limits = Limits::default();
    let proto = match kind.form {
        Form::Proto => plain,
        Form::Json => {
            json::to_proto(kind.signal, &plain, &limits).map_err(|e| invalid(e.to_string()))?
        }
    };
    let encoded =
        Encoded::parse(kind.signal, proto, &limits).map_err(|e| invalid(e.to_string()))?;
    let digest = kind.digest.then(|| Digest::of(&encoded));
    Ok(Decoded { encoded, digest })
}
