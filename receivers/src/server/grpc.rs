//! Requests over gRPC: unary calls, which are five bytes before a message and trailers behind it. The answer
//! is a message without fields.
//!
//! Source: grpc/grpc, doc/PROTOCOL-HTTP2.md and doc/compression.md.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::http::Extensions;
use hyper::{Method, Request, Response, StatusCode};
use tailwater_pdata::Signal;

use super::answer::Answer;
use super::body::{Body, BodyError, Reading, Work, decode};
use super::client::Peer;
use super::guard::Guard;
use super::inflate::{Encoding, InflateError};
use super::intake::Intake;
use super::options::{GrpcOptions, Limits};
use super::protocol::{Form, Protocol};
use super::room::Hold;
use super::stats::Stats;
use super::status::{Code, Status};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const CONTENT: HeaderValue = HeaderValue::from_static("application/grpc");
/// What messages may be compressed with.
const ACCEPTED: HeaderValue = HeaderValue::from_static("gzip,snappy,zstd");
/// Flag and length of a message.
const PREFIX_BYTES: usize = 5;
/// An empty response: not compressed, no bytes.
const EMPTY_MESSAGE: &[u8] = &[0; PREFIX_BYTES];

/// The service behind a listener.
pub struct GrpcService {
    protocol: Arc<dyn Protocol>,
    intake: Arc<Intake>,
    stats: Arc<Stats>,
    message_bytes_max: usize,
    include_metadata: bool,
    guard: Guard,
    limits: Limits,
}

impl GrpcService {
    /// A service that hands requests to `intake`.
    pub fn new(
        protocol: Arc<dyn Protocol>,
        intake: Arc<Intake>,
        stats: Arc<Stats>,
        options: &GrpcOptions,
        guard: Guard,
        limits: &Limits,
    ) -> GrpcService {
        GrpcService {
            protocol,
            intake,
            stats,
            message_bytes_max: options.message_bytes_max,
            include_metadata: options.include_metadata,
            guard,
            limits: limits.clone(),
        }
    }

    /// Answers one call.
    pub async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Response<Answer> {
        self.stats.listener.requests.inc();
        let kind = request.headers().get(CONTENT_TYPE);
        if !kind.is_some_and(|k| is_grpc(k.as_bytes())) {
            self.stats.listener.rejected_requests.inc();
            let mut response = Response::new(Answer::default());
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return response;
        }
        let kind = kind.cloned().unwrap_or(CONTENT);
        match self.call(request, peer).await {
            Ok(()) => success(kind),
            Err(status) => failure(&status, kind),
        }
    }

    async fn call(&self, request: Request<Incoming>, peer: &Peer) -> Result<(), Status> {
        let reject = |status| {
            self.stats.listener.rejected_requests.inc();
            status
        };
        let (head, body) = request.into_parts();
        let client_time = client_time(&head.headers).map_err(reject)?;
        let signal = self.signal(&head.method, head.uri.path()).map_err(reject)?;
        let encoding = encoding(&head.headers).map_err(reject)?;
        self.guard.check(&head.headers).await.map_err(reject)?;
        let place = self.intake.place(peer.share()).map_err(reject)?;
        let begin = tokio::time::Instant::now();
        let mut hold = Hold::of(&self.intake.room, peer.share());
        let message = self
            .read(body, &head.extensions, client_time, &mut hold)
            .await
            .map_err(reject)?;
        let (message, compressed) = unframe(message).map_err(reject)?;
        let encoding = chosen(encoding, compressed).map_err(reject)?;
        let work = Work {
            protocol: self.protocol.clone(),
            signal,
            form: Form::Proto,
            encodings: (encoding, Encoding::Identity),
            bytes_max: self.message_bytes_max,
            digest: self.intake.remembers(),
        };
        let message = Body::Whole(message);
        let decoded = decode(work, message, hold).await.map_err(reject)?;
        let client = peer.sent(&head, &self.guard, self.include_metadata);
        let pending = self.intake.offer(decoded, client, place, &self.stats)?;
        let time = self.limits.request_timeout;
        let left = client_time.map_or(time, |t| t.saturating_sub(begin.elapsed()).min(time));
        pending.answer(left).await.map_err(|status| {
            let late = client_time.is_some_and(|t| begin.elapsed() >= t);
            if late && status.code == Code::Unavailable {
                // As a client expects it that has set the limit itself.
                return Status::new(Code::DeadlineExceeded, status.message);
            }
            status
        })
    }

    fn signal(&self, method: &Method, path: &str) -> Result<Signal, Status> {
        let unknown = |what: &str| Status::new(Code::Unimplemented, format!("unknown {what}"));
        if method != Method::POST {
            return Err(unknown("method of HTTP"));
        }
        let Some(signal) = self.protocol.called(path) else {
            return Err(unknown("service or method"));
        };
        if !self.intake.takes(signal) {
            return Err(unknown(&format!("service: no pipeline takes {signal}")));
        }
        Ok(signal)
    }

    async fn read(
        &self,
        body: Incoming,
        extensions: &Extensions,
        client_time: Option<Duration>,
        hold: &mut Hold,
    ) -> Result<Bytes, Status> {
        let max = self.message_bytes_max;
        let time = self.limits.body_timeout;
        let time = client_time.map_or(time, |t| t.min(time));
        let reading = Reading::new(time, max.saturating_add(PREFIX_BYTES)).on(extensions);
        let look = |so_far: &[u8]| match message_length(so_far) {
            Some(length) if length > max => Err(Refused::TooLarge(length)),
            length => Ok(length.map(|length| length + PREFIX_BYTES)),
        };
        let body = reading.read(body, hold, look).await;
        body.map_err(|refused| refused.status(max))
    }
}

enum Refused {
    TooLarge(usize),
    Body(BodyError),
}

impl From<BodyError> for Refused {
    fn from(e: BodyError) -> Refused {
        Refused::Body(e)
    }
}

impl Refused {
    fn status(self, max: usize) -> Status {
        let too_large = |what: String| {
            let text = format!("received message larger than max ({what} vs. {max})");
            Status::new(Code::ResourceExhausted, text)
        };
        match self {
            Refused::TooLarge(length) => too_large(length.to_string()),
            Refused::Body(BodyError::TooLong) => too_large("more than one message".to_owned()),
            Refused::Body(BodyError::Bomb) => Status::new(
                Code::ResourceExhausted,
                InflateError::TooLarge(max).to_string(),
            ),
            Refused::Body(BodyError::NoRoom) => Status::unavailable("no room for the message now"),
            Refused::Body(BodyError::Late) => {
                Status::unavailable("the message did not arrive in time")
            }
            Refused::Body(BodyError::MadeWay) => {
                Status::unavailable("the message had not arrived when room was needed")
            }
            Refused::Body(BodyError::Broken(problem)) => {
                Status::new(Code::InvalidArgument, problem)
            }
        }
    }
}

/// `application/grpc` with protobuf, which is also what is meant without a word.
fn is_grpc(content_type: &[u8]) -> bool {
    let kind = content_type
        .split(|b| *b == b';')
        .next()
        .unwrap_or_default();
    matches!(
        kind.trim_ascii(),
        b"application/grpc" | b"application/grpc+proto"
    )
}

/// The length that the prefix of the message tells, once it is there.
fn message_length(so_far: &[u8]) -> Option<usize> {
    let length = so_far.get(1..PREFIX_BYTES)?;
    Some(length.iter().fold(0, |n, b| n << 8 | usize::from(*b)))
}

/// The only message, and whether it is compressed.
///
/// # Errors
/// There is none, more than one, or a part of one.
pub fn unframe(mut body: Bytes) -> Result<(Bytes, bool), Status> {
    let bad = |text: &str| Status::new(Code::Internal, text);
    let Some(length) = message_length(&body) else {
        return Err(bad("the message is missing or cut off"));
    };
    let compressed = match body[0] {
        0 => false,
        1 => true,
        _ => return Err(bad("the flags of the message are unknown")),
    };
    body.advance(PREFIX_BYTES);
    match body.len() {
        n if n < length => Err(bad("the message is cut off")),
        n if n > length => Err(bad("more than one message in a unary call")),
        _ => Ok((body, compressed)),
    }
}

/// `grpc-encoding`.
fn encoding(headers: &HeaderMap) -> Result<Encoding, Status> {
    let Some(name) = headers.get(GRPC_ENCODING) else {
        return Ok(Encoding::Identity);
    };
    let known = name.to_str().ok().and_then(Encoding::of);
    let known = known.filter(|e| {
        use Encoding::{Gzip, Identity, Snappy, Zstd};
        matches!(e, Identity | Gzip | Snappy | Zstd)
    });
    known.ok_or_else(|| {
        let text = format!("unknown grpc-encoding {name:?}");
        Status::new(Code::Unimplemented, text)
    })
}

fn chosen(encoding: Encoding, compressed: bool) -> Result<Encoding, Status> {
    match (compressed, encoding) {
        (false, _) => Ok(Encoding::Identity),
        (true, Encoding::Identity) => {
            let text = "the message is compressed, but grpc-encoding does not say how";
            Err(Status::new(Code::Internal, text))
        }
        (true, encoding) => Ok(encoding),
    }
}

/// `grpc-timeout`: up to eight digits and a unit.
fn client_time(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(GRPC_TIMEOUT) else {
        return Ok(None);
    };
    let parsed = value.to_str().ok().and_then(parse_time);
    let bad = || Status::new(Code::Internal, "malformed grpc-timeout");
    parsed.map(Some).ok_or_else(bad)
}

fn parse_time(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let n: u64 = digits.parse().ok().filter(|_| plain)?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

fn success(kind: HeaderValue) -> Response<Answer> {
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    let body = Answer::with_trailers(Bytes::from_static(EMPTY_MESSAGE), trailers);
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(GRPC_ACCEPT, ACCEPTED);
    response
}

/// An answer of nothing but a head, which stands for the trailers.
fn failure(status: &Status, kind: HeaderValue) -> Response<Answer> {
    let mut response = Response::new(Answer::default());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(GRPC_ACCEPT, ACCEPTED);
    headers.insert(GRPC_STATUS, HeaderValue::from(status.code as u16));
    // Both are printable ASCII by the way they are made.
    if let Ok(message) = HeaderValue::from_str(&status.grpc_message()) {
        headers.insert(GRPC_MESSAGE, message);
    }
    if let Some(Ok(details)) = status.grpc_details().map(|d| HeaderValue::from_str(&d)) {
        headers.insert(GRPC_DETAILS, details);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_clients() {
        for (text, expect) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("99999999M", Some(Duration::from_secs(99_999_999 * 60))),
            ("10S", Some(Duration::from_secs(10))),
            ("0m", Some(Duration::ZERO)),
            ("7u", Some(Duration::from_micros(7))),
            ("7n", Some(Duration::from_nanos(7))),
            ("", None),
            ("S", None),
            ("123456789S", None),
            ("+1S", None),
            ("1s", None),
            ("1\u{e4}", None),
        ] {
            assert_eq!(parse_time(text), expect, "{text:?}");
        }
    }

    #[test]
    fn frames_are_taken_apart() {
        let frame = |bytes: &[u8]| unframe(Bytes::copy_from_slice(bytes));
        let ok = |text: &[u8], c| Ok((Bytes::copy_from_slice(text), c));
        assert_eq!(frame(b"\0\0\0\0\0"), ok(b"", false));
        assert_eq!(frame(b"\x01\0\0\0\x02ab"), ok(b"ab", true));
        for (bytes, part) in [
            (&b""[..], "missing"),
            (b"\0\0\0\0", "missing"),
            (b"\x02\0\0\0\0", "flags"),
            (b"\0\0\0\0\x03ab", "cut off"),
            (b"\0\0\0\0\x01ab", "more than one"),
            (b"\0\xff\xff\xff\xffab", "cut off"),
        ] {
            let status = frame(bytes).unwrap_err();
            assert!(status.message.contains(part), "{bytes:?}: {status:?}");
        }
    }

    #[test]
    fn kinds_of_content() {
        for (text, expect) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc; charset=utf-8", true),
            ("application/grpc+json", false),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(text.as_bytes()), expect, "{text}");
        }
    }
}
