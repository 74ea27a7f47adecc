//! The listeners of a receiver and their connections, on a thread and a runtime of their own, so
//! that clients hold up neither reading nor sending.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::answer::Answer;
use super::client::Peer;
use super::connections::{Connection, Connections, Listed};
use super::grpc::GrpcService;
use super::http::HttpService;
use super::options::{GrpcOptions, HttpOptions};
use super::stats::Stats;
use crate::listen::{Bound, Socket, TlsSource};

/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// A connection must be secure, and begin to speak, within this time.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// The first bytes of HTTP/2 (RFC 9113, 3.4).
const HTTP2_PREFACE_BYTES: u64 = 24;
/// A connection that is asked to end and does not is closed after this time.
const END_TIME: Duration = Duration::from_secs(5);
/// How long the last answers may take after everything else has stopped.
const LAST_ANSWERS_TIME: Duration = Duration::from_secs(2);
/// Bytes of a head of HTTP/2.
const HEAD_BYTES_MAX: u32 = 16 << 10;
/// Bytes that one read of a connection of HTTP/1.1 may bring, which is what it keeps for its next one.
const READ_BYTES_MAX: usize = 48 << 10;
/// The same of a few connections: most bodies come in one piece, which is used as it is.
const WIDE_READ_BYTES_MAX: usize = 256 << 10;
/// So many of a listener's connections may be wide.
const WIDE_CONNECTIONS_MAX: usize = 64;
/// Bytes of bodies that a client may send ahead, on one stream and on one connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// What a listener serves.
pub enum Service {
    /// gRPC.
    Grpc(GrpcService),
    /// HTTP.
    Http(Box<HttpService>),
}

impl Service {
    async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Response<Answer> {
        match self {
            Service::Grpc(service) => service.answer(request, peer).await,
            Service::Http(service) => service.answer(request, peer).await,
        }
    }
}

/// How long connections live.
#[derive(Clone, Debug, Default)]
pub struct Lifetimes {
    /// The first request must have begun.
    pub first_request: Option<Duration>,
    /// A connection may be idle.
    pub idle: Option<Duration>,
    /// It is asked to end.
    pub age: Option<Duration>,
    /// It ends whatever is under way, after that.
    pub age_grace: Option<Duration>,
}

/// A listener that is ready to serve.
pub struct Listener {
    bound: Bound,
    parts: Arc<Parts>,
}

struct Parts {
    service: Service,
    tls: Option<TlsSource>,
    protocol: auto::Builder<TokioExecutor>,
    wide: Option<Wide>,
    lifetimes: Lifetimes,
    connections: Arc<Connections>,
    stats: Arc<Stats>,
}

/// How connections are served that are read in large pieces, and places for them: whoever comes first.
struct Wide {
    protocol: auto::Builder<TokioExecutor>,
    places: Semaphore,
}

impl Listener {
    /// Serves gRPC on `bound`.
    pub fn grpc(
        bound: Bound,
        service: GrpcService,
        tls: Option<TlsSource>,
        options: &GrpcOptions,
        connections_max: usize,
        stats: Arc<Stats>,
    ) -> Listener {
        let keepalive = &options.keepalive;
        let mut protocol = auto::Builder::new(TokioExecutor::new()).http2_only();
        protocol
            .http2()
            .max_concurrent_streams(options.streams_max)
            .keep_alive_interval(keepalive.ping_after)
            .keep_alive_timeout(keepalive.ping_timeout);
        http2_limits(&mut protocol);
        let lifetimes = Lifetimes {
            first_request: None,
            idle: keepalive.idle_max,
            age: keepalive.age_max,
            age_grace: keepalive.age_grace,
        };
        let service = Service::Grpc(service);
        Listener::new(
            bound,
            service,
            tls,
            (protocol, None),
            lifetimes,
            connections_max,
            stats,
        )
    }

    /// Serves HTTP/1.1 and HTTP/2 on `bound`.
    pub fn http(
        bound: Bound,
        service: HttpService,
        tls: Option<TlsSource>,
        options: &HttpOptions,
        connections_max: usize,
        stats: Arc<Stats>,
    ) -> Listener {
        let mut protocol = auto::Builder::new(TokioExecutor::new());
        protocol
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(options.header_timeout)
            .keep_alive(options.keep_alive)
            .max_buf_size(READ_BYTES_MAX);
        protocol.http2().max_concurrent_streams(256);
        http2_limits(&mut protocol);
        let mut wide = protocol.clone();
        wide.http1().max_buf_size(WIDE_READ_BYTES_MAX);
        let lifetimes = Lifetimes {
            first_request: options.header_timeout,
            idle: options.idle_timeout,
            age: None,
            age_grace: None,
        };
        let service = Service::Http(Box::new(service));
        let wide = Wide {
            protocol: wide,
            places: Semaphore::new(WIDE_CONNECTIONS_MAX),
        };
        Listener::new(
            bound,
            service,
            tls,
            (protocol, Some(wide)),
            lifetimes,
            connections_max,
            stats,
        )
    }

    fn new(
        bound: Bound,
        service: Service,
        tls: Option<TlsSource>,
        (protocol, wide): (auto::Builder<TokioExecutor>, Option<Wide>),
        lifetimes: Lifetimes,
        connections_max: usize,
        stats: Arc<Stats>,
    ) -> Listener {
        let parts = Parts {
            service,
            tls,
            protocol,
            wide,
            lifetimes,
            connections: Connections::new(connections_max),
            stats,
        };
        Listener {
            bound,
            parts: Arc::new(parts),
        }
    }

    async fn run(self, mut stop: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.bound) => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    tracing::warn!(error = %e, "cannot accept a connection; trying again soon");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let metrics = &self.parts.stats.listener;
            let listed = self.parts.connections.add();
            if !matches!(&listed, Some((_, false))) {
                metrics.connections_refused.inc();
            }
            let Some((listed, _)) = listed else {
                continue;
            };
            let parts = self.parts.clone();
            tokio::spawn(serve(parts, stream, peer, listed, stop.clone()));
        }
    }
}

fn http2_limits(protocol: &mut auto::Builder<TokioExecutor>) {
    protocol
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
}

/// What a client sends and gets.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn accept(bound: &Bound) -> io::Result<(Box<dyn Stream>, Peer)> {
    Ok(match &bound.socket {
        Socket::Tcp(listener) => {
            let (stream, address) = listener.accept().await?;
            // Answers are small and waited for.
            stream.set_nodelay(true)?;
            (
                Box::new(stream),
                Peer::at(Some(address.ip().to_canonical())),
            )
        }
        Socket::Unix(listener) => (Box::new(listener.accept().await?.0), Peer::at(None)),
    })
}

/// Serves one connection to its end.
async fn serve(
    parts: Arc<Parts>,
    stream: Box<dyn Stream>,
    peer: Peer,
    listed: Listed,
    stop: watch::Receiver<bool>,
) {
    let open = &parts.stats.listener.connections;
    open.inc();
    let connection = listed.connection.clone();
    tokio::select! {
        () = speak(&parts, stream, &peer, &connection, stop) => {}
        () = connection.make_way.notified() => {}
    }
    open.dec();
    drop(listed);
}

async fn speak(
    parts: &Arc<Parts>,
    stream: Box<dyn Stream>,
    peer: &Peer,
    connection: &Arc<Connection>,
    stop: watch::Receiver<bool>,
) {
    let stream: Box<dyn Stream> = match &parts.tls {
        None => stream,
        Some(tls) => {
            let secure = TlsAcceptor::from(tls.current()).accept(stream);
            match tokio::time::timeout(HANDSHAKE_TIME, secure).await {
                Ok(Ok(stream)) => Box::new(stream),
                // Whoever does not know TLS, or shows no certificate, is told by TLS itself.
                Ok(Err(_)) | Err(_) => return,
            }
        }
    };
    let stream = Counted {
        stream,
        connection: connection.clone(),
    };
    let service = service_fn(|mut request: Request<Incoming>| {
        let (parts, peer, active) = (parts.clone(), peer.clone(), connection.begin());
        // Whoever reads the body says so there.
        request.extensions_mut().insert(connection.clone());
        async move {
            let response = parts.service.answer(request, &peer).await;
            drop(active);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let wide = parts.wide.as_ref();
    let wide = wide.and_then(|wide| Some((&wide.protocol, wide.places.try_acquire().ok()?)));
    let protocol = wide.as_ref().map_or(&parts.protocol, |(wide, _)| wide);
    let serving = protocol.serve_connection(TokioIo::new(stream), service);
    let mut watch = Watch::new(&parts.lifetimes, connection, stop);
    let mut serving = pin!(serving);
    loop {
        tokio::select! {
            // A broken connection is the client's affair.
            _ = serving.as_mut() => return,
            end = watch.next() => match end {
                End::Ask => serving.as_mut().graceful_shutdown(),
                End::Close => return,
                End::Later => {}
            },
        }
    }
}

/// What is to become of a connection.
enum End {
    /// It is asked to end once its requests are answered.
    Ask,
    /// It is closed.
    Close,
    /// Nothing yet.
    Later,
}

/// Looks after the lifetime of one connection.
struct Watch<'a> {
    lifetimes: &'a Lifetimes,
    connection: &'a Arc<Connection>,
    stop: watch::Receiver<bool>,
    /// When it is asked to end, for its age.
    aged: Option<Instant>,
    /// It was asked to end; it is closed then.
    close_at: Option<Option<Instant>>,
}

impl<'a> Watch<'a> {
    fn new(
        lifetimes: &'a Lifetimes,
        connection: &'a Arc<Connection>,
        stop: watch::Receiver<bool>,
    ) -> Watch<'a> {
        // Connections that were opened at once do not all end at once: up to a tenth earlier or
        // later, by what their place in memory happens to be.
        let place = Arc::as_ptr(connection) as usize / 64 % 201;
        let factor = 0.9 + place as f64 / 1000.0;
        Watch {
            lifetimes,
            connection,
            stop,
            aged: lifetimes
                .age
                .map(|age| connection.opened + age.mul_f64(factor)),
            close_at: None,
        }
    }

    /// When the next thing happens to it if nothing changes.
    fn due(&self) -> Option<(Instant, bool)> {
        if let Some(close_at) = self.close_at {
            return close_at.map(|at| (at, true));
        }
        let opened = self.connection.opened;
        let idle_since = self.connection.idle_since();
        let silent = self.connection.received_bytes() < HTTP2_PREFACE_BYTES;
        let unused = !self.connection.was_used();
        let first = self.lifetimes.first_request.filter(|_| unused);
        let first = first.or(Some(HANDSHAKE_TIME).filter(|_| unused && silent));
        let first = first.map(|time| (opened + time, true));
        let idle = self.lifetimes.idle.zip(idle_since);
        let idle = idle.map(|(time, since)| (since + time, false));
        let aged = self.aged.map(|at| (at, false));
        [first, idle, aged].into_iter().flatten().min()
    }

    /// Waits for the next thing to do.
    async fn next(&mut self) -> End {
        let asked = self.close_at.is_some();
        let due = self.due().map(|(at, _)| at);
        // A request that ends begins a time of idleness, so it is looked again after that time.
        let idle = self.lifetimes.idle.filter(|_| !asked);
        let idle = idle.map(|time| Instant::now() + time);
        let at = [due, idle].into_iter().flatten().min();
        let timer = async {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = timer => {}
            _ = self.stop.wait_for(|stop| *stop), if !asked => {
                self.close_at = Some(None);
                return End::Ask;
            }
        }
        // What was due may be so no longer: a request has begun.
        match self.due() {
            Some((at, close)) if at <= Instant::now() => {
                if close {
                    return End::Close;
                }
                let aged = self.aged.is_some_and(|at| at <= Instant::now());
                let time = if aged {
                    self.lifetimes.age_grace
                } else {
                    Some(END_TIME)
                };
                self.close_at = Some(time.map(|time| Instant::now() + time));
                End::Ask
            }
            _ => End::Later,
        }
    }
}

/// Counts what comes in.
struct Counted {
    stream: Box<dyn Stream>,
    connection: Arc<Connection>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.connection.received(buf.filled().len() - before);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The thread of the listeners. Dropping it waits a moment for the last answers.
pub struct Server {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// A runtime for listeners. Beside its sockets there are threads for `decoders` requests to be decoded
/// and, so that these do not wait for them, for `checks` senders to be checked.
///
/// # Errors
/// What the system says.
pub fn runtime(kind: &str, decoders: usize, checks: usize) -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(decoders.max(1) + checks)
        .thread_name(format!("{kind}-decode"))
        .build()
}

impl Server {
    /// Runs `listeners` on a thread of their own, of this name.
    ///
    /// # Errors
    /// There is no thread.
    pub fn start(
        name: &str,
        runtime: tokio::runtime::Runtime,
        listeners: Vec<Listener>,
    ) -> io::Result<Server> {
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                runtime.block_on(run(listeners, stopped));
                // A request that is being decoded is not waited for.
                runtime.shutdown_background();
            })?;
        Ok(Server {
            stop,
            thread: Some(thread),
        })
    }

    /// No new connections; those there are end when their requests are answered.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        // Dropping the sender tells the thread that nothing is answered any more.
        let (gone, _) = watch::channel(false);
        drop(std::mem::replace(&mut self.stop, gone));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn run(listeners: Vec<Listener>, mut stopped: watch::Receiver<bool>) {
    let connections: Vec<_> = listeners
        .iter()
        .map(|l| l.parts.connections.clone())
        .collect();
    for listener in listeners {
        tokio::spawn(listener.run(stopped.clone()));
    }
    // Ends with an error when the server is dropped: then everything is settled.
    while stopped.changed().await.is_ok() {}
    let last = async {
        while connections.iter().any(|c| c.count() > 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let _ = tokio::time::timeout(LAST_ANSWERS_TIME, last).await;
}
