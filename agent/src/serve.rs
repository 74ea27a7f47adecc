//! A small HTTP server for the agent's own pages: metrics and health.
//!
//! Bounded: headers are limited by the parser, bodies are not read, connections are limited in
//! number and time. An accept error (no descriptors left) pauses accepting, it does not end it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tailwater_pipeline::listeners::{Descriptor, Lent, Listeners};
use tokio::sync::{Semaphore, watch};

/// Connections at the same time.
const CONNECTIONS_MAX: usize = 64;
/// A connection that does not finish its headers in this time is closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A whole connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What a page answers.
pub struct Page {
    /// Status code.
    pub status: StatusCode,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

/// Answers a path; `None` = 404.
pub type Pages = Arc<dyn Fn(&str) -> Option<Page> + Send + Sync>;

/// A listening server. Dropping it stops it.
pub struct HttpServer {
    /// Where it listens.
    pub addr: SocketAddr,
    _lent: Lent,
    _stop: watch::Sender<()>,
}

/// Binds `endpoint` (`host:port`; port 0 = any) and serves `pages` on `runtime`.
pub fn serve(
    endpoint: &str,
    pages: Pages,
    listeners: &Listeners,
    runtime: &tokio::runtime::Handle,
) -> std::io::Result<HttpServer> {
    let lent = listeners.first_tcp(&addresses(endpoint, runtime)?)?;
    let Descriptor::Tcp(listener) = lent.descriptor()? else {
        return Err(std::io::Error::other("no TCP"));
    };
    let addr = listener.local_addr()?;
    let (stop, stopped) = watch::channel(());
    let guard = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    drop(guard);
    runtime.spawn(accept(listener, pages, stopped));
    Ok(HttpServer {
        addr,
        _lent: lent,
        _stop: stop,
    })
}

/// The addresses of `host:port`. Names are looked up by the thread for sockets: it alone may read what
/// that takes (see `sandbox`).
fn addresses(endpoint: &str, runtime: &tokio::runtime::Handle) -> std::io::Result<Vec<SocketAddr>> {
    if let Ok(addr) = endpoint.parse() {
        return Ok(vec![addr]);
    }
    let (tell, told) = std::sync::mpsc::channel();
    let endpoint = endpoint.to_owned();
    runtime.spawn(async move {
        let found = tokio::net::lookup_host(endpoint).await;
        // Nobody waits any more only if the agent has ended.
        let _ = tell.send(found.map(Iterator::collect));
    });
    let ended = |_| std::io::Error::other("the thread for sockets has ended");
    told.recv().map_err(ended)?
}

async fn accept(listener: tokio::net::TcpListener, pages: Pages, mut stop: watch::Receiver<()>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => return,
        };
        let stream = match stream {
            Ok((stream, _)) => stream,
            Err(e) => {
                tracing::warn!(error = %e, "cannot accept a connection; trying again soon");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let pages = pages.clone();
        tokio::spawn(async move {
            let service = service_fn(move |r| answer(r, pages.clone()));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // A broken connection is the client's affair.
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
            drop(slot);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    pages: Pages,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let page = match *request.method() {
        Method::GET | Method::HEAD => pages(request.uri().path()).unwrap_or(Page {
            status: StatusCode::NOT_FOUND,
            content_type: "text/plain; charset=utf-8",
            body: "not found\n".into(),
        }),
        _ => Page {
            status: StatusCode::METHOD_NOT_ALLOWED,
            content_type: "text/plain; charset=utf-8",
            body: "only GET\n".into(),
        },
    };
    let mut response = Response::new(Full::new(Bytes::from(page.body)));
    *response.status_mut() = page.status;
    let value = hyper::header::HeaderValue::from_static(page.content_type);
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, value);
    Ok(response)
}
