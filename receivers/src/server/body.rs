//! Bodies: read within limits of bytes and time, and turned into what the pipelines take.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::http::Extensions;
use tailwater_pdata::Signal;
use tokio::time::Instant;

use super::connections::{Connection, ReadingBody};
use super::inflate::{Encoding, InflateError};
use super::protocol::{Decoded, Form, Plain, Protocol};
use super::room::Hold;
use super::status::{Code, Status};

/// A body of protobuf that is longer is looked through beside the sockets, so that it does not hold up
/// other connections: this many bytes take a fifth of a millisecond, about what handing over costs.
const INLINE_BYTES_MAX: usize = 256 << 10;
/// The same of JSON, which takes longer.
const INLINE_JSON_BYTES_MAX: usize = 16 << 10;
/// Room for what is said to come but has not: at least so much, and at most three times what has.
const AHEAD_BYTES: usize = 64 << 10;
/// Pieces that bodies for a decoder are read in: small enough for the allocator to use them again at once.
const PIECE_BYTES: usize = 256 << 10;
/// Who has sent so much gets room for all that is said to come: what is grown out of is not given back to
/// the system at once, and would add up to a third of a long body.
const EARNEST_BYTES: usize = 1 << 20;

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
    /// It inflates to more than is allowed.
    Bomb,
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
        let mut told = told(&body);
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        loop {
            let before = first.len().max(all.len());
            let Some(data) = self.next(&mut body, hold, before, true).await? else {
                return Ok(if all.is_empty() { first } else { all.freeze() });
            };
            let have = before + data.len();
            if have == data.len() {
                // One piece is used as it is.
                first = data;
                told = look(&first)?.or(told);
                continue;
            }
            if have > all.capacity() {
                let ahead = match have {
                    EARNEST_BYTES.. => self.bytes_max,
                    _ => (3 * have).max(AHEAD_BYTES),
                };
                let wanted = told.unwrap_or(0).clamp(have, have.saturating_add(ahead));
                all.reserve(wanted.min(self.bytes_max) - all.len());
            }
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
            told = look(&all)?.or(told);
        }
    }

    /// Reads a body for a decoder, in pieces: they are not copied where it grows, and their memory is used
    /// again at once, which that of one of many MiB is not. Whether a long one is a bomb is found out when its
    /// begin is there.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub async fn read_pieces(
        self,
        encoding: Encoding,
        mut body: Incoming,
        hold: &mut Hold,
    ) -> Result<Vec<Bytes>, BodyError> {
        let mut all = Gathered::default();
        if self
            .gather(&mut body, hold, &mut all, EARNEST_BYTES)
            .await?
        {
            return Ok(all.pieces);
        }
        if inflates_too_far(encoding, all.pieces.clone(), self.bytes_max, hold).await {
            let have = all.bytes;
            drop(all);
            self.discard(&mut body, hold, have).await?;
            return Err(BodyError::Bomb);
        }
        self.gather(&mut body, hold, &mut all, usize::MAX).await?;
        Ok(all.pieces)
    }

    /// Reads until there are `upto` bytes, or the end, which is what the value says.
    async fn gather(
        &self,
        body: &mut Incoming,
        hold: &mut Hold,
        all: &mut Gathered,
        upto: usize,
    ) -> Result<bool, BodyError> {
        let mut open = BytesMut::new();
        let mut end = false;
        while all.bytes < upto {
            let Some(mut data) = self.next(body, hold, all.bytes, true).await? else {
                end = true;
                break;
            };
            all.bytes += data.len();
            if body.is_end_stream() && open.is_empty() {
                hold.came();
                all.pieces.push(data);
                return Ok(true);
            }
            while !data.is_empty() {
                if open.len() == open.capacity() {
                    let bytes = (3 * all.bytes).clamp(AHEAD_BYTES, PIECE_BYTES);
                    all.add(std::mem::replace(&mut open, BytesMut::with_capacity(bytes)));
                }
                let fits = data.len().min(open.capacity() - open.len());
                open.extend_from_slice(&data.split_to(fits));
            }
        }
        all.add(open);
        Ok(end)
    }

    /// Reads what comes behind `have` bytes and keeps nothing: who is still sending hears no answer.
    async fn discard(
        &self,
        body: &mut Incoming,
        hold: &mut Hold,
        mut have: usize,
    ) -> Result<(), BodyError> {
        while let Some(data) = self.next(body, hold, have, false).await? {
            have += data.len();
        }
        Ok(())
    }

    /// What comes next, behind `have` bytes; it takes room if it is to be kept.
    async fn next(
        &self,
        body: &mut Incoming,
        hold: &mut Hold,
        have: usize,
        keep: bool,
    ) -> Result<Option<Bytes>, BodyError> {
        loop {
            let frame = tokio::select! {
                biased;
                frame = tokio::time::timeout_at(self.until, body.frame()) => frame,
                () = hold.wait() => return Err(BodyError::MadeWay),
            };
            let frame = match frame.map_err(|_| BodyError::Late)? {
                None => {
                    hold.came();
                    return Ok(None);
                }
                Some(Err(e)) => return Err(BodyError::Broken(e.to_string())),
                Some(Ok(frame)) => frame,
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if data.is_empty() {
                continue;
            }
            if have + data.len() > self.bytes_max {
                return Err(BodyError::TooLong);
            }
            if keep && !hold.grow(data.len()) {
                return Err(BodyError::NoRoom);
            }
            return Ok(Some(data));
        }
    }
}

/// A body in pieces, as far as it has come.
#[derive(Default)]
struct Gathered {
    pieces: Vec<Bytes>,
    bytes: usize,
}

impl Gathered {
    fn add(&mut self, piece: BytesMut) {
        if !piece.is_empty() {
            self.pieces.push(piece.freeze());
        }
    }
}

/// Whether the begin of a body alone inflates to more than it may; off the thread of the sockets.
async fn inflates_too_far(
    encoding: Encoding,
    begin: Vec<Bytes>,
    bytes_max: usize,
    hold: &Hold,
) -> bool {
    let Some(turn) = hold.turn().await else {
        return false;
    };
    let measuring = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        encoding.exceeds(&begin, bytes_max)
    });
    // Where nothing is found out, decoding will.
    measuring.await.unwrap_or(false)
}

/// How long a body will be, if that is told.
fn told(body: &Incoming) -> Option<usize> {
    body.size_hint()
        .exact()
        .and_then(|n| usize::try_from(n).ok())
}

/// A body that was read.
#[derive(Debug)]
pub enum Body {
    /// In one piece.
    Whole(Bytes),
    /// In any number.
    Pieces(Vec<Bytes>),
}

impl Body {
    fn pieces(&self) -> &[Bytes] {
        match self {
            Body::Whole(whole) => std::slice::from_ref(whole),
            Body::Pieces(pieces) => pieces,
        }
    }
}

/// What is to be made of a body.
pub struct Work {
    /// Who knows how.
    pub protocol: Arc<dyn Protocol>,
    /// What it carries.
    pub signal: Signal,
    /// How it is written.
    pub form: Form,
    /// How it is compressed: outside, and inside of that.
    pub encodings: (Encoding, Encoding),
    /// How many bytes it may inflate to.
    pub bytes_max: usize,
    /// Whether its digest is wanted.
    pub digest: bool,
}

/// Turns a body into what the pipelines take, off the thread of the sockets if that takes long.
///
/// # Errors
/// What the request is answered with.
pub async fn decode(work: Work, body: Body, hold: Hold) -> Result<Decoded, Status> {
    let inline_max = match work.form {
        Form::Proto => INLINE_BYTES_MAX,
        Form::Json => INLINE_JSON_BYTES_MAX,
    };
    let length: usize = body.pieces().iter().map(Bytes::len).sum();
    let is_plain = work.encodings == (Encoding::Identity, Encoding::Identity);
    if is_plain && length <= inline_max {
        return decode_now(work, body, hold);
    }
    let Some(turn) = hold.turn().await else {
        return Err(Status::unavailable("too many bodies wait to be decoded"));
    };
    let decoding = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        decode_now(work, body, hold)
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

fn decode_now(work: Work, body: Body, mut hold: Hold) -> Result<Decoded, Status> {
    let (outside, inside) = work.encodings;
    let max = work.bytes_max;
    let mut room = |bytes| hold.grow(bytes);
    let plain = match body {
        Body::Whole(body) => outside.inflate(body, max, &mut room),
        Body::Pieces(pieces) => outside.inflate_pieces(&pieces, max, &mut room),
    };
    let plain = plain.and_then(|plain| inside.inflate(plain, max, &mut room));
    let plain = plain.map_err(|e| match e {
        InflateError::TooLarge(_) => Status::new(Code::ResourceExhausted, e.to_string()),
        InflateError::NoRoom => Status::unavailable(e.to_string()),
        InflateError::Broken { .. } => Status::new(Code::InvalidArgument, e.to_string()),
    })?;
    let request = Plain {
        signal: work.signal,
        form: work.form,
        body: plain,
        digest: work.digest,
    };
    work.protocol.decode(request, &mut room)
}
