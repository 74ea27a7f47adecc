//! HTTP/1.1 and gRPC as the benchmark and its floor speak them: a body in, an answer out.

use std::convert::Infallible;
use std::future::Future;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, Bytes};
use clap::ValueEnum;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, server};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tailwater_pdata::Signal;
use tokio::net::{TcpListener, TcpStream};

/// Bytes of bodies that a peer may send ahead, on a stream and on a connection.
const WINDOW_BYTES: u32 = 1 << 20;
/// Flag and length before a message of gRPC.
const PREFIX_BYTES: usize = 5;

/// A protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Carrier {
    /// OTLP over HTTP/1.1.
    Http,
    /// OTLP over gRPC.
    Grpc,
}

impl Carrier {
    /// Its name in tables and configurations.
    pub fn name(self) -> &'static str {
        match self {
            Carrier::Http => "http",
            Carrier::Grpc => "grpc",
        }
    }

    /// Where a signal is sent to.
    pub fn path(self, signal: Signal) -> &'static str {
        match (self, signal) {
            (Carrier::Http, Signal::Logs) => "/v1/logs",
            (Carrier::Http, Signal::Metrics) => "/v1/metrics",
            (Carrier::Http, Signal::Traces) => "/v1/traces",
            (Carrier::Grpc, Signal::Logs) => {
                "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
            }
            (Carrier::Grpc, Signal::Metrics) => {
                "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
            }
            (Carrier::Grpc, Signal::Traces) => {
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
            }
        }
    }

    /// The header that names a compression.
    fn encoding_header(self) -> &'static str {
        match self {
            Carrier::Http => "content-encoding",
            Carrier::Grpc => "grpc-encoding",
        }
    }
}

/// Compresses with the usual level.
///
/// # Errors
/// None in memory.
pub fn gzip(plain: &[u8]) -> Result<Bytes> {
    let out = Vec::with_capacity(plain.len() / 4 + 64);
    let mut encoder = GzEncoder::new(out, flate2::Compression::default());
    encoder.write_all(plain)?;
    Ok(encoder.finish()?.into())
}

/// Decompresses.
///
/// # Errors
/// It is not gzip.
pub fn gunzip(body: &[u8]) -> Result<Bytes> {
    let mut out = Vec::new();
    GzDecoder::new(body).read_to_end(&mut out)?;
    Ok(out.into())
}

/// A request as a server sees it.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its path.
    pub path: String,
    /// Its bytes, decompressed.
    pub plain: Bytes,
}

/// Serves one protocol on `listener` for ever; `take` decides whether a request is a success.
///
/// # Errors
/// A connection cannot be accepted.
pub async fn serve<F>(
    listener: TcpListener,
    carrier: Carrier,
    take: impl Fn(Message) -> F + Clone + Send + 'static,
) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let take = take.clone();
        let service = service_fn(move |request| {
            let take = take.clone();
            async move { Ok::<_, Infallible>(respond(carrier, request, take).await) }
        });
        let io = TokioIo::new(stream);
        match carrier {
            Carrier::Http => {
                let serving = server::conn::http1::Builder::new().serve_connection(io, service);
                tokio::spawn(async move { serving.await.ok() });
            }
            Carrier::Grpc => {
                let mut http2 = server::conn::http2::Builder::new(TokioExecutor::new());
                http2.initial_stream_window_size(WINDOW_BYTES);
                http2.initial_connection_window_size(WINDOW_BYTES);
                let serving = http2.serve_connection(io, service);
                tokio::spawn(async move { serving.await.ok() });
            }
        }
    }
}

async fn respond<F: Future<Output = Result<()>>>(
    carrier: Carrier,
    request: Request<Incoming>,
    take: impl Fn(Message) -> F,
) -> Response<BoxBody<Bytes, Infallible>> {
    let result = match receive(carrier, request).await {
        Ok(message) => take(message).await,
        Err(e) => Err(e),
    };
    if let Err(e) = &result {
        eprintln!("refused: {e:#}");
    }
    match carrier {
        Carrier::Http => {
            let mut response = Response::new(Full::new(Bytes::new()).boxed());
            *response.status_mut() = if result.is_ok() { 200 } else { 503 }
                .try_into()
                .expect("a status");
            response.headers_mut().insert(
                "content-type",
                HeaderValue::from_static("application/x-protobuf"),
            );
            response
        }
        Carrier::Grpc => {
            let code = HeaderValue::from_static(if result.is_ok() { "0" } else { "14" });
            let trailers: HeaderMap = [("grpc-status".parse().expect("a name"), code)]
                .into_iter()
                .collect();
            let empty = Full::new(Bytes::from_static(&[0; PREFIX_BYTES]));
            let body = empty.with_trailers(std::future::ready(Some(Ok(trailers))));
            let mut response = Response::new(body.boxed());
            response
                .headers_mut()
                .insert("content-type", HeaderValue::from_static("application/grpc"));
            response
        }
    }
}

async fn receive(carrier: Carrier, request: Request<Incoming>) -> Result<Message> {
    let (head, body) = request.into_parts();
    let mut body = body.collect().await?.to_bytes();
    let mut zipped = head
        .headers
        .get(carrier.encoding_header())
        .is_some_and(|e| e == "gzip");
    if carrier == Carrier::Grpc {
        ensure!(body.len() >= PREFIX_BYTES, "no message");
        zipped = body[0] == 1;
        body.advance(PREFIX_BYTES);
    }
    Ok(Message {
        path: head.uri.path().to_owned(),
        plain: if zipped { gunzip(&body)? } else { body },
    })
}

/// A client of one server; of HTTP with a connection for each request under way, of gRPC with one.
pub struct Client {
    to: SocketAddr,
    carrier: Carrier,
    idle: Mutex<Vec<http1::SendRequest<Full<Bytes>>>>,
    shared: tokio::sync::Mutex<Option<http2::SendRequest<Full<Bytes>>>>,
}

impl Client {
    /// A client; nothing is connected yet.
    pub fn new(to: SocketAddr, carrier: Carrier) -> Client {
        Client {
            to,
            carrier,
            idle: Mutex::default(),
            shared: tokio::sync::Mutex::default(),
        }
    }

    /// A body as it is sent, compressed or not.
    ///
    /// # Errors
    /// None in memory.
    pub fn pack(&self, plain: &Bytes, zip: bool) -> Result<Bytes> {
        let body = if zip { gzip(plain)? } else { plain.clone() };
        if self.carrier == Carrier::Http {
            return Ok(body);
        }
        let mut framed = Vec::with_capacity(body.len() + PREFIX_BYTES);
        framed.push(u8::from(zip));
        framed.extend_from_slice(&u32::try_from(body.len())?.to_be_bytes());
        framed.extend_from_slice(&body);
        Ok(framed.into())
    }

    /// Sends what [`Client::pack`] made and waits for success.
    ///
    /// # Errors
    /// It is none.
    pub async fn send(&self, path: &str, packed: Bytes, zip: bool) -> Result<()> {
        let grpc = self.carrier == Carrier::Grpc;
        let (uri, kind) = match grpc {
            true => (format!("http://{}{path}", self.to), "application/grpc"),
            false => (path.to_owned(), "application/x-protobuf"),
        };
        let mut request = Request::post(uri).header("content-type", kind);
        request = match grpc {
            true => request.header("te", "trailers"),
            false => request.header("host", "127.0.0.1"),
        };
        if zip {
            request = request.header(self.carrier.encoding_header(), "gzip");
        }
        let request = request.body(Full::new(packed))?;
        match self.carrier {
            Carrier::Http => self.over_http(request).await,
            Carrier::Grpc => self.over_grpc(request).await,
        }
    }

    async fn over_http(&self, request: Request<Full<Bytes>>) -> Result<()> {
        let idle = self.idle.lock().unwrap_or_else(|e| e.into_inner()).pop();
        let mut sender = match idle {
            Some(sender) => sender,
            None => {
                let (sender, connection) =
                    http1::handshake(TokioIo::new(self.connect().await?)).await?;
                tokio::spawn(async move { connection.await.ok() });
                sender
            }
        };
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{status}: {:?}", String::from_utf8_lossy(&body));
        }
        let mut idle = self.idle.lock().unwrap_or_else(|e| e.into_inner());
        idle.push(sender);
        Ok(())
    }

    async fn over_grpc(&self, request: Request<Full<Bytes>>) -> Result<()> {
        let mut sender = {
            let mut shared = self.shared.lock().await;
            match &*shared {
                Some(sender) => sender.clone(),
                None => {
                    let mut http2 = http2::Builder::new(TokioExecutor::new());
                    http2.initial_stream_window_size(WINDOW_BYTES);
                    http2.initial_connection_window_size(WINDOW_BYTES);
                    let io = TokioIo::new(self.connect().await?);
                    let (sender, connection) = http2.handshake(io).await?;
                    tokio::spawn(async move { connection.await.ok() });
                    shared.insert(sender).clone()
                }
            }
        };
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?;
        let status = head
            .headers
            .get("grpc-status")
            .or(body.trailers().and_then(|t| t.get("grpc-status")));
        match status {
            Some(status) if status == "0" => Ok(()),
            other => bail!("status {other:?}: {:?}", head.headers.get("grpc-message")),
        }
    }

    async fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.to).await;
        let stream = stream.with_context(|| format!("cannot connect to {}", self.to))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
