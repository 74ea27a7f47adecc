//! The two servers of the stand-in.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::read::{self, Kind, ReadError};
use super::{Answer, Carrier, Record, State};

/// Data and trailers, as far as there are any.
pub(super) struct Frames(Vec<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = (!self.0.is_empty()).then(|| self.0.remove(0));
        Poll::Ready(next.map(Ok))
    }
}

/// Closes the connection.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed on purpose")
    }
}

impl std::error::Error for Closed {}

/// Serves until it is stopped; then its connections are closed.
pub(super) async fn accept(
    listener: TcpListener,
    carrier: Carrier,
    state: Arc<State>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => continue,
            },
            _ = stopped.changed() => return,
        };
        state.inner().connections += 1;
        let (own, mut end) = (state.clone(), stopped.clone());
        let (close, mut closed) = watch::channel(false);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let (own, close) = (own.clone(), close.clone());
                async move {
                    let answered = handle(carrier, request, &own).await;
                    if answered.is_err() {
                        let _ = close.send(true);
                    }
                    answered
                }
            });
            let io = TokioIo::new(stream);
            let connection = async {
                let _ = match carrier {
                    Carrier::Http => http1::Builder::new().serve_connection(io, service).await,
                    Carrier::Grpc => {
                        let builder = http2::Builder::new(TokioExecutor::new());
                        builder.serve_connection(io, service).await
                    }
                };
            };
            tokio::select! {
                () = connection => {}
                _ = closed.changed() => {}
                _ = end.changed() => {}
            }
        });
    }
}

async fn handle(
    carrier: Carrier,
    request: Request<Incoming>,
    state: &State,
) -> Result<Response<Frames>, Closed> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return Err(Closed);
    };
    let body = body.to_bytes();
    let path = head.uri.path();
    let opened = match carrier {
        Carrier::Http => open_http(&head.method, path, &head.headers, &body),
        Carrier::Grpc => open_grpc(&head.method, path, &head.headers, &body),
    };
    let (kind, sent_bytes, plain, json) = match opened {
        Ok(opened) => opened,
        Err(ReadError(text)) => {
            state.error(format!("{carrier:?} {path}: {text}"));
            return Ok(refusal(carrier, 400, 3, &text, None));
        }
    };
    let read = match json {
        true => read::json(kind, &plain),
        false => read::proto(kind, &plain),
    };
    let message = match read {
        Ok(message) => message,
        Err(ReadError(text)) => {
            state.error(format!("{carrier:?} {path}: {text}"));
            return Ok(refusal(carrier, 400, 3, &text, None));
        }
    };
    let answer = match state.next_answer() {
        Answer::Limit(max) if plain.len() > max => Answer::Refuse {
            http: 413,
            grpc: 8,
            message: format!("grpc: received message after decompression larger than max {max}"),
            retry_after: None,
        },
        Answer::Limit(_) => Answer::Accept,
        answer => answer,
    };
    if let Answer::Late(wait) = &answer {
        tokio::time::sleep(*wait).await;
    }
    let accepted = matches!(
        answer,
        Answer::Accept | Answer::Partial { .. } | Answer::Late(_)
    );
    let headers = head.headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    });
    let record = Record {
        carrier,
        kind,
        headers: headers.collect(),
        sent_bytes,
        items: message.items,
        body: plain,
        accepted,
    };
    state.record(record, &message);
    answered(carrier, kind, json, answer).await
}

async fn answered(
    carrier: Carrier,
    kind: Kind,
    json: bool,
    answer: Answer,
) -> Result<Response<Frames>, Closed> {
    match answer {
        Answer::Accept | Answer::Late(_) | Answer::Limit(_) => {
            Ok(success(carrier, kind, json, None))
        }
        Answer::Partial { rejected, message } => {
            Ok(success(carrier, kind, json, Some((rejected, &message))))
        }
        Answer::Refuse {
            http,
            grpc,
            message,
            retry_after,
        } => Ok(refusal(carrier, http, grpc, &message, retry_after)),
        Answer::Close => Err(Closed),
        Answer::Never => std::future::pending().await,
    }
}

type Opened = (Kind, usize, Vec<u8>, bool);

fn open_http(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Opened, ReadError> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("")
    };
    if method != Method::POST {
        return Err(ReadError(format!("method {method}")));
    }
    let kind = match path {
        "/v1/logs" => Kind::Logs,
        "/v1/metrics" => Kind::Metrics,
        "/v1/traces" => Kind::Traces,
        _ => return Err(ReadError("path".to_owned())),
    };
    let json = match text("content-type") {
        "application/x-protobuf" => false,
        "application/json" => true,
        other => return Err(ReadError(format!("content type {other:?}"))),
    };
    let plain = read::decode(text("content-encoding"), body, false)?;
    Ok((kind, body.len(), plain, json))
}

fn open_grpc(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Opened, ReadError> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("")
    };
    if method != Method::POST || text("te") != "trailers" {
        return Err(ReadError("no gRPC call".to_owned()));
    }
    if text("content-type") != "application/grpc" {
        return Err(ReadError("content type".to_owned()));
    }
    let kind = match path {
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Kind::Logs,
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => Kind::Metrics,
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Kind::Traces,
        _ => return Err(ReadError("method".to_owned())),
    };
    let (prefix, message) = body
        .split_at_checked(5)
        .ok_or_else(|| ReadError("no message".to_owned()))?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if length as usize != message.len() {
        return Err(ReadError(format!(
            "a message of {length} bytes has {} bytes",
            message.len()
        )));
    }
    let encoding = text("grpc-encoding");
    let plain = match prefix[0] {
        0 => message.to_vec(),
        1 => read::decode(encoding, message, true)?,
        other => return Err(ReadError(format!("flag {other}"))),
    };
    Ok((kind, message.len(), plain, false))
}

fn success(
    carrier: Carrier,
    kind: Kind,
    json: bool,
    partial: Option<(i64, &str)>,
) -> Response<Frames> {
    let mut proto = Vec::new();
    if let Some((rejected, message)) = partial {
        let mut inner = vec![8];
        put_varint(&mut inner, rejected as u64);
        put_bytes(&mut inner, 2, message.as_bytes());
        put_bytes(&mut proto, 1, &inner);
    }
    if carrier == Carrier::Grpc {
        let ok = trailers(&[("grpc-status", "0")]);
        return Response::new(Frames(vec![
            Frame::data(framed(&proto)),
            Frame::trailers(ok),
        ]));
    }
    let (content_type, body) = match json {
        false => ("application/x-protobuf", proto),
        true => {
            let name = match kind {
                Kind::Logs => "rejectedLogRecords",
                Kind::Metrics => "rejectedDataPoints",
                Kind::Traces => "rejectedSpans",
            };
            let json = match partial {
                None => serde_json::json!({}),
                Some((rejected, message)) => serde_json::json!({"partialSuccess": {
                    name: rejected.to_string(), "errorMessage": message,
                }}),
            };
            ("application/json", json.to_string().into_bytes())
        }
    };
    let mut response = Response::new(Frames(vec![Frame::data(body.into())]));
    let value = HeaderValue::from_static(content_type);
    response.headers_mut().insert("content-type", value);
    response
}

fn refusal(
    carrier: Carrier,
    http: u16,
    grpc: u32,
    message: &str,
    retry_after: Option<u64>,
) -> Response<Frames> {
    // `google.rpc.Status`, with a `RetryInfo` if there is a wait.
    let mut status = vec![8];
    put_varint(&mut status, u64::from(grpc));
    put_bytes(&mut status, 2, message.as_bytes());
    if let Some(seconds) = retry_after {
        let (mut delay, mut info, mut any) = (vec![8], Vec::new(), Vec::new());
        put_varint(&mut delay, seconds);
        put_bytes(&mut info, 1, &delay);
        put_bytes(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
        put_bytes(&mut any, 2, &info);
        put_bytes(&mut status, 3, &any);
    }
    if carrier == Carrier::Grpc {
        // An answer without a message has its trailers in front.
        let mut response = Response::new(Frames(Vec::new()));
        let escaped: String = message
            .chars()
            .map(|c| {
                if c == ' ' {
                    "%20".to_owned()
                } else {
                    c.to_string()
                }
            })
            .collect();
        *response.headers_mut() = trailers(&[
            ("content-type", "application/grpc"),
            ("grpc-status", &grpc.to_string()),
            ("grpc-message", &escaped),
            ("grpc-status-details-bin", &base64(&status)),
        ]);
        return response;
    }
    let mut response = Response::new(Frames(vec![Frame::data(status.into())]));
    *response.status_mut() = StatusCode::from_u16(http).unwrap_or(StatusCode::BAD_REQUEST);
    let value = HeaderValue::from_static("application/x-protobuf");
    response.headers_mut().insert("content-type", value);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}

fn trailers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        let value = HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""));
        (HeaderName::from_static(name), value)
    };
    pairs.iter().map(pair).collect()
}

fn framed(message: &[u8]) -> Bytes {
    let mut out = vec![0];
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
    out.into()
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// RFC 4648, 4, without padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let mut word = [0; 3];
        word[..chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes([0, word[0], word[1], word[2]]);
        for i in 0..=chunk.len() {
            out.push(char::from(DIGITS[(word >> (18 - 6 * i) & 63) as usize]));
        }
    }
    out
}
