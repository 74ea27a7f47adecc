//! Takes connections: bounded in number, time and bytes. Agents and people come to one address.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::access::Denied;
use crate::api::{self, Api};
use crate::authority::{Caller, Shown};
use crate::port::{self, Port};
use crate::trust::REVOKED;

/// A handshake of TLS may take so long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers may take so long, and a connection may be without a request for so long.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// When agents are to come back to who stands by: the one that leads may be behind the same address.
const RETRY_SECONDS: &str = "5";
/// Largest headers of a request, bytes.
const HEADER_BYTES_MAX: usize = 16 << 10;

/// What a connection needs to know.
pub struct Server {
    /// For agents.
    pub port: Arc<Port>,
    /// For people.
    pub api: Arc<Api>,
    /// TLS, if there is any.
    pub tls: Option<TlsAcceptor>,
    /// So many connections at the same time.
    pub connections_max: usize,
    /// Connections that are open.
    pub connections: Arc<AtomicUsize>,
}

/// Takes connections until it is told to stop.
pub async fn serve(listener: TcpListener, server: Arc<Server>, mut stop: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(server.connections_max));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; trying again soon");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let server = server.clone();
        server.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            connection(stream, from, &server, slot).await;
        });
    }
}

/// A connection counts until its last byte, also over a WebSocket.
struct Slot {
    server: Arc<Server>,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.server.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn connection(
    stream: TcpStream,
    from: SocketAddr,
    server: &Arc<Server>,
    permit: tokio::sync::OwnedSemaphorePermit,
) {
    let slot = Slot {
        server: server.clone(),
        _permit: permit,
    };
    // Messages are small, and each is waited for.
    let _ = stream.set_nodelay(true);
    let Some(tls) = &server.tls else {
        return speak(stream, from, server, Caller::default(), slot).await;
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let chain = stream.get_ref().1.peer_certificates();
            let shows = chain.and_then(|c| c.first());
            let certificate = shows.and_then(Shown::of);
            if shows.is_some() && certificate.is_none() {
                return tracing::info!(%from, "the certificate cannot be read");
            }
            let caller = Caller {
                certificate,
                token: None,
            };
            speak(stream, from, server, caller, slot).await;
        }
        Ok(Err(error)) => tracing::info!(%from, %error, "no TLS"),
        Err(_) => tracing::info!(%from, "no TLS in time"),
    }
}

/// An I/O object that holds the place of its connection.
struct Held<S> {
    stream: S,
    _slot: Slot,
}

async fn speak<S>(stream: S, from: SocketAddr, server: &Arc<Server>, caller: Caller, slot: Slot)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let held = Held {
        stream,
        _slot: slot,
    };
    let service = service_fn(|request| {
        let (server, caller) = (server.clone(), caller.clone());
        async move { Ok::<_, Infallible>(route(&server, request, caller).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(held), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%from, %error, "a connection broke");
    }
}

async fn route(
    server: &Arc<Server>,
    request: Request<Incoming>,
    mut caller: Caller,
) -> Response<Full<Bytes>> {
    if request.uri().path() != port::PATH {
        return api::answer(&server.api, request).await;
    }
    if !server.api.leader.leads() {
        let mut response = refused(StatusCode::SERVICE_UNAVAILABLE, api::STANDS_BY);
        let value = HeaderValue::from_static(RETRY_SECONDS);
        response.headers_mut().insert(RETRY_AFTER, value);
        return response;
    }
    let trust = &server.port.trust;
    if trust.is_revoked(&caller) {
        return refused(StatusCode::FORBIDDEN, REVOKED);
    }
    let has_certificate = caller.certificate.is_some();
    if trust.needs_certificate && !has_certificate {
        return refused(StatusCode::FORBIDDEN, "a client certificate is needed\n");
    }
    // With a certificate of its own, an agent needs no token any more.
    let is_own = has_certificate && trust.authority.is_some();
    match server.api.access.agent(request.headers(), is_own) {
        Ok(token) => {
            caller.token = token;
            port::answer(&server.port, request, caller).await
        }
        Err(Denied::Unknown) => refused(StatusCode::UNAUTHORIZED, "a token is needed\n"),
        Err(Denied::Role | Denied::Foreign) => {
            refused(StatusCode::FORBIDDEN, "this token is not one of an agent\n")
        }
    }
}

fn refused(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    if status == StatusCode::UNAUTHORIZED {
        let value = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    response
}

mod held {
    //! All bytes pass through.

    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::Held;

    impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(cx, buf)
        }
    }

    impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    }
}
