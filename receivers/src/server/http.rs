//! Requests over HTTP: a POST to a path, protobuf or JSON. What the protocol has no part in is answered
//! with the collector's status codes and texts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CONTENT_ENCODING,
    CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER, VARY,
};
use hyper::{Method, Request, Response, StatusCode};
use tailwater_pdata::Signal;

use super::answer::Answer;
use super::body::{Body, BodyError, Reading, Work, decode};
use super::client::Peer;
use super::guard::Guard;
use super::inflate::{Encoding, InflateError};
use super::intake::Intake;
use super::options::{Cors, HttpOptions, Limits};
use super::protocol::{Form, Protocol};
use super::room::Hold;
use super::stats::Stats;
use super::status::{Code, Status};

/// The media type of protobuf.
pub const PROTO: &str = "application/x-protobuf";
/// The media type of JSON.
pub const JSON: &str = "application/json";
/// The media type of text.
pub const TEXT: &str = "text/plain";

/// Bytes of the headers of a request.
const HEADERS_BYTES_MAX: usize = 64 << 10;

/// The service behind a listener.
pub struct HttpService {
    protocol: Arc<dyn Protocol>,
    intake: Arc<Intake>,
    stats: Arc<Stats>,
    options: HttpOptions,
    guard: Guard,
    body_time: Duration,
    answer_time: Duration,
}

impl HttpService {
    /// A service that hands requests to `intake`.
    pub fn new(
        protocol: Arc<dyn Protocol>,
        intake: Arc<Intake>,
        stats: Arc<Stats>,
        options: &HttpOptions,
        guard: Guard,
        limits: &Limits,
    ) -> HttpService {
        let shorter = |own: Option<Duration>, all: Duration| own.map_or(all, |own| own.min(all));
        HttpService {
            protocol,
            intake,
            stats,
            options: options.clone(),
            guard,
            body_time: shorter(options.read_timeout, limits.body_timeout),
            answer_time: shorter(options.write_timeout, limits.request_timeout),
        }
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Response<Answer> {
        self.stats.listener.requests.inc();
        let origin = request.headers().get(ORIGIN).cloned();
        let mut response = match &self.options.cors {
            Some(cors) if is_preflight(&request) => preflight(cors, request.headers()),
            _ => self.respond(request, peer).await,
        };
        let headers = response.headers_mut();
        if let Some(cors) = &self.options.cors {
            share(cors, origin.as_ref(), headers);
        }
        for (name, value) in &self.options.response_headers {
            // What the answer says of itself wins.
            if !headers.contains_key(name) {
                headers.insert(name, value.clone());
            }
        }
        response
    }

    async fn respond(&self, request: Request<Incoming>, peer: &Peer) -> Response<Answer> {
        let rejected = |status, kind, text: &str| {
            self.stats.listener.rejected_requests.inc();
            plain(status, kind, text.to_owned())
        };
        let lengths = request.headers().iter();
        let lengths = lengths.map(|(name, value)| name.as_str().len() + value.len());
        if lengths.sum::<usize>() > HEADERS_BYTES_MAX {
            let text = "431 request header fields too large";
            return rejected(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, TEXT, text);
        }
        let Some(signal) = self.signal(request.uri().path()) else {
            return rejected(StatusCode::NOT_FOUND, TEXT, "404 page not found");
        };
        if request.method() != Method::POST {
            let text = "405 method not allowed, supported: [POST]";
            let mut response = rejected(StatusCode::METHOD_NOT_ALLOWED, TEXT, text);
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let Some(form) = form(request.headers()) else {
            let text = format!("415 unsupported media type, supported: [{JSON}, {PROTO}]");
            return rejected(StatusCode::UNSUPPORTED_MEDIA_TYPE, TEXT, &text);
        };
        let mut request = request;
        if !self.options.auth_params.is_empty() {
            let query = request.uri().query().map(str::to_owned);
            let query = query.unwrap_or_default();
            take_params(&self.options.auth_params, &query, request.headers_mut());
        }
        if let Err(status) = self.guard.check(request.headers()).await {
            self.stats.listener.rejected_requests.inc();
            return self.failure(&status, form);
        }
        match self.take(signal, form, request, peer).await {
            Ok(()) => self.protocol.success(form),
            Err(status) => self.failure(&status, form),
        }
    }

    fn failure(&self, status: &Status, form: Form) -> Response<Answer> {
        let mut response = self.protocol.failure(status, form);
        if let Some(seconds) = status.retry_after_seconds() {
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    fn signal(&self, path: &str) -> Option<Signal> {
        let known = self.protocol.posted_to(path);
        known.filter(|signal| self.intake.takes(*signal))
    }

    async fn take(
        &self,
        signal: Signal,
        form: Form,
        request: Request<Incoming>,
        peer: &Peer,
    ) -> Result<(), Status> {
        let reject = |status| {
            self.stats.listener.rejected_requests.inc();
            status
        };
        let begin = tokio::time::Instant::now();
        let (head, body) = request.into_parts();
        let told = self.encoding(&head.headers).map_err(reject)?;
        let encodings = self.protocol.encodings(form, told);
        let place = self.intake.place(peer.share()).map_err(reject)?;
        let mut hold = Hold::of(&self.intake.room, peer.share());
        let max = self.options.body_bytes_max;
        let reading = Reading::new(self.body_time, max).on(&head.extensions);
        let body = match outermost(encodings) {
            Encoding::Identity => {
                let look = |_: &[u8]| Ok::<_, BodyError>(None);
                let body = reading.read(body, &mut hold, look).await;
                body.map(Body::Whole)
            }
            encoding => {
                let pieces = reading.read_pieces(encoding, body, &mut hold).await;
                pieces.map(Body::Pieces)
            }
        };
        let body = body.map_err(|e| reject(refused(e, max)))?;
        let work = Work {
            protocol: self.protocol.clone(),
            signal,
            form,
            encodings,
            bytes_max: max,
            digest: self.intake.remembers(),
        };
        let decoded = decode(work, body, hold).await.map_err(reject)?;
        let client = peer.sent(&head, &self.guard, self.options.include_metadata);
        let pending = self.intake.offer(decoded, client, place, &self.stats)?;
        let left = self.answer_time.saturating_sub(begin.elapsed());
        pending.answer(left).await
    }

    fn encoding(&self, headers: &HeaderMap) -> Result<Encoding, Status> {
        let Some(name) = headers.get(CONTENT_ENCODING) else {
            return Ok(Encoding::Identity);
        };
        let known = name.to_str().ok().and_then(Encoding::of);
        let allowed = |e: &Encoding| *e == Encoding::Identity || self.options.encodings.contains(e);
        known.filter(allowed).ok_or_else(|| {
            let text = format!("unsupported Content-Encoding {name:?}");
            Status::new(Code::InvalidArgument, text)
        })
    }
}

/// Puts parameters of the query in place of the headers of their names.
fn take_params(wanted: &[HeaderName], query: &str, headers: &mut HeaderMap) {
    let pairs = || {
        query
            .split('&')
            .map(|p| p.split_once('=').unwrap_or((p, "")))
    };
    for name in wanted {
        let values = pairs().filter(|(key, _)| {
            unescape(key).is_some_and(|key| key.eq_ignore_ascii_case(name.as_str().as_bytes()))
        });
        let values: Vec<_> = values.map(|(_, value)| value).collect();
        if !values.is_empty() {
            headers.remove(name);
        }
        for value in values {
            // What no header can carry is as if it was not sent.
            let value = unescape(value).and_then(|v| HeaderValue::from_bytes(&v).ok());
            if let Some(mut value) = value {
                value.set_sensitive(true);
                headers.append(name, value);
            }
        }
    }
}

/// A part of a query without its escapes; `None` if one is broken.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            b => b,
        });
    }
    Some(out)
}

/// What the bytes that come are compressed with.
fn outermost((outside, inside): (Encoding, Encoding)) -> Encoding {
    match outside {
        Encoding::Identity => inside,
        outside => outside,
    }
}

fn refused(e: BodyError, max: usize) -> Status {
    match e {
        BodyError::TooLong => {
            let text = format!("the body has more than {max} bytes (max_request_body_size)");
            Status::new(Code::ResourceExhausted, text)
        }
        BodyError::NoRoom => Status::unavailable("no room for the body now"),
        BodyError::Late => Status::unavailable("the body did not arrive in time"),
        BodyError::MadeWay => Status::unavailable("the body had not arrived when room was needed"),
        BodyError::Bomb => Status::new(
            Code::ResourceExhausted,
            InflateError::TooLarge(max).to_string(),
        ),
        BodyError::Broken(problem) => Status::new(Code::InvalidArgument, problem),
    }
}

/// What the body is, by its media type.
fn form(headers: &HeaderMap) -> Option<Form> {
    let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case(PROTO) {
        Some(Form::Proto)
    } else if kind.eq_ignore_ascii_case(JSON) {
        Some(Form::Json)
    } else {
        None
    }
}

/// An answer of one piece.
pub fn plain(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Answer::data(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn is_preflight(request: &Request<Incoming>) -> bool {
    let asks = request
        .headers()
        .contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    request.method() == Method::OPTIONS && asks
}

/// Answers the question of a browser whether a page may send. Source: the Fetch standard, CORS.
fn preflight(cors: &Cors, asked: &HeaderMap) -> Response<Answer> {
    let text = |name: HeaderName| asked.get(name).and_then(|v| v.to_str().ok());
    let wanted = text(ACCESS_CONTROL_REQUEST_HEADERS).unwrap_or_default();
    let origin = text(ORIGIN).and_then(|o| cors.allow_origin(o));
    let method = text(ACCESS_CONTROL_REQUEST_METHOD).unwrap_or_default();
    let allowed = origin.is_some() && method == "POST" && cors.allows_headers(wanted);
    let mut response = Response::new(Answer::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let varies = "Access-Control-Request-Method, Access-Control-Request-Headers";
    headers.append(VARY, HeaderValue::from_static(varies));
    if !allowed {
        return response;
    }
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("POST"),
    );
    if let Some(wanted) = asked
        .get(ACCESS_CONTROL_REQUEST_HEADERS)
        .filter(|w| !w.is_empty())
    {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    if let Some(seconds) = cors.max_age() {
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(seconds));
    }
    response
}

/// Says in an answer that pages of `origin` may see it.
fn share(cors: &Cors, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    headers.append(VARY, HeaderValue::from_static("Origin"));
    let origin = origin.and_then(|o| o.to_str().ok());
    let Some(allowed) = origin.and_then(|o| cors.allow_origin(o)) else {
        return;
    };
    if let Ok(value) = HeaderValue::from_str(allowed) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, value);
    }
    headers.insert(
        ACCESS_CONTROL_ALLOW_CREDENTIALS,
        HeaderValue::from_static("true"),
    );
    if let Some(exposed) = cors.exposed()
        && let Ok(value) = HeaderValue::from_str(exposed)
    {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, value);
    }
}
