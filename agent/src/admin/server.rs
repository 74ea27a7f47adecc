//! Where the admin API listens: a socket in the file system, for its owner alone, and HTTP on a
//! loopback address, with a token.
//!
//! Bounded as the agent's own pages are: headers by the parser, bodies by [`handlers`], connections in
//! number and time. When the way in goes, its connections end with the answer they wait for.

use std::convert::Infallible;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CACHE_CONTROL, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use tailwater_config::{AdminEndpoint, AdminOptions};
use tailwater_pipeline::listeners::{Descriptor, Lent, Listeners};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use super::handlers::{self, Api, Reply};
use super::tap::Streams;
use super::{origin, page};
use crate::extensions::htpasswd::same;
use crate::extensions::watched::Watched;
use crate::serve::addresses;

/// Connections at the same time at each way in.
const CONNECTIONS_MAX: usize = 16;
/// A connection that does not finish its headers in this time is closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A whole connection; one that a tap is read from as long as that may take.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Nobody else's page may load what is answered here.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// A shorter token could be guessed.
const TOKEN_BYTES_MIN: usize = 16;

/// A way in. Dropping it closes it.
pub struct AdminServer {
    _lent: Lent,
    _stop: watch::Sender<()>,
}

/// Who may come in, by which name the way in is known, and under which one changes are logged.
struct Gate {
    by: &'static str,
    token: Option<Watched<String>>,
    host: Option<String>,
}

impl Gate {
    /// Whether a request may come in. Takes the same time for every wrong token of the right length.
    fn lets_in(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let sent = headers.get(AUTHORIZATION).map(|v| v.as_bytes());
        let Some((scheme, sent)) = sent.and_then(|v| v.split_at_checked("Bearer ".len())) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"Bearer ") && same(sent, token.get().as_bytes())
    }
}

/// A token: one line that a header can carry.
fn token(text: &str) -> Result<String, String> {
    let token = text.trim();
    if token.len() < TOKEN_BYTES_MIN {
        return Err(format!(
            "a token has at least {TOKEN_BYTES_MIN} characters; `openssl rand -hex 32` makes one"
        ));
    }
    match token.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(token.to_owned()),
        false => Err("a token is one line of printable ASCII without spaces".to_owned()),
    }
}

/// Listens where `options` says.
///
/// # Errors
/// A socket, an address or the token is not to be had.
pub fn serve(
    options: &AdminOptions,
    api: &Arc<Api>,
    listeners: &Listeners,
    runtime: &Handle,
) -> Result<Vec<AdminServer>> {
    let mut servers = Vec::new();
    if let Some(path) = &options.socket {
        let lent = listen_at(path, listeners).with_context(|| {
            let path = path.display();
            format!("cannot listen at {path} for the admin API; set service::admin::socket to another path")
        })?;
        let gate = Gate {
            by: "admin socket",
            token: None,
            host: None,
        };
        servers.push(start(lent, gate, api, runtime)?);
    }
    if let Some(endpoint) = &options.endpoint {
        servers.push(serve_endpoint(endpoint, api, listeners, runtime)?);
    }
    Ok(servers)
}

fn serve_endpoint(
    endpoint: &AdminEndpoint,
    api: &Arc<Api>,
    listeners: &Listeners,
    runtime: &Handle,
) -> Result<AdminServer> {
    let AdminEndpoint {
        address,
        token_file,
    } = endpoint;
    let token =
        Watched::read(token_file, token).map_err(|e| anyhow!("service::admin::token_file: {e}"))?;
    let listen = || listeners.first_tcp(&addresses(address, runtime)?);
    let lent = listen().with_context(|| {
        format!("cannot listen on {address} for the admin API; set service::admin::endpoint to another address")
    })?;
    if lent.is_exposed() {
        let place = lent.place();
        return Err(anyhow!(
            "service::admin::endpoint: {address} is {place} on this machine, which others reach; \
             use 127.0.0.1"
        ));
    }
    let gate = Gate {
        by: "admin endpoint",
        token: Some(token),
        host: Some(origin::name_of(address).to_owned()),
    };
    start(lent, gate, api, runtime)
}

/// The directory is made for its owner alone if it is missing.
fn listen_at(path: &Path, listeners: &Listeners) -> io::Result<Lent> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    listeners.unix_private(path)
}

fn start(lent: Lent, gate: Gate, api: &Arc<Api>, runtime: &Handle) -> Result<AdminServer> {
    let (stop, stopped) = watch::channel(());
    let guard = runtime.enter();
    let socket = match lent.descriptor()? {
        Descriptor::Tcp(socket) => Socket::Tcp(TcpListener::from_std(socket)?),
        Descriptor::Unix(socket) => Socket::Unix(UnixListener::from_std(socket)?),
        Descriptor::Udp(_) => bail!("the admin API is served over connections"),
    };
    drop(guard);
    tracing::info!(address = lent.place(), "the admin API listens");
    runtime.spawn(accept(socket, Arc::new(gate), api.clone(), stopped));
    Ok(AdminServer {
        _lent: lent,
        _stop: stop,
    })
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Socket {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Socket::Tcp(socket) => Box::new(socket.accept().await?.0),
            Socket::Unix(socket) => Box::new(socket.accept().await?.0),
        })
    }
}

async fn accept(socket: Socket, gate: Arc<Gate>, api: Arc<Api>, mut stop: watch::Receiver<()>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = tokio::select! {
            slot = slots.clone().acquire_owned() => slot,
            _ = stop.changed() => return,
        };
        let stream = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stop.changed() => return,
        };
        match stream {
            Ok(stream) => {
                let (gate, api, stop) = (gate.clone(), api.clone(), stop.clone());
                tokio::spawn(async move {
                    let life = Arc::new(Life::new());
                    let serving = connection(stream, gate, api, stop, life.clone());
                    // A broken connection is the client's affair.
                    tokio::select! {
                        () = serving => {}
                        () = life.over() => {}
                    }
                    drop(slot);
                });
            }
            Err(e) => {
                tracing::warn!(error = %e, "cannot accept a connection; trying again soon");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// How long a connection may last.
struct Life(Mutex<(Instant, Option<Streams>)>);

impl Life {
    fn new() -> Life {
        Life(Mutex::new((Instant::now() + CONNECTION_TIMEOUT, None)))
    }

    /// What is answered takes its time.
    fn streams(&self, streams: &Streams) {
        let mut life = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *life = (life.0.max(streams.until), Some(streams.clone()));
    }

    /// Ends what is streamed.
    fn end(&self, why: &str) {
        let life = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(streams) = &life.1 {
            streams.probe.end(why);
        }
    }

    /// Returns when the time is up.
    async fn over(&self) {
        loop {
            let until = self.0.lock().unwrap_or_else(PoisonError::into_inner).0;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until.into()).await;
        }
    }
}

async fn answer(gate: &Gate, api: &Api, request: Request<Incoming>) -> Reply {
    let (uri, headers) = (request.uri(), request.headers());
    let file = page::find(request.method(), uri.path());
    if let Some(why) = origin::foreign(uri, headers, gate.host.as_deref(), file.is_some()) {
        tracing::warn!(
            by = gate.by,
            "a request of somebody else's page was turned away"
        );
        return handlers::foreign(why);
    }
    match file {
        Some(file) => page::answer(file, gate.token.is_some()),
        None if gate.lets_in(headers) => handlers::answer(api, request, gate.by).await,
        None => {
            tracing::warn!(by = gate.by, "a request without the token was turned away");
            handlers::unauthorized()
        }
    }
}

async fn connection(
    stream: Box<dyn Stream>,
    gate: Arc<Gate>,
    api: Arc<Api>,
    mut stop: watch::Receiver<()>,
    life: Arc<Life>,
) {
    let answering = life.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (gate, api, life) = (gate.clone(), api.clone(), answering.clone());
        async move {
            let mut response = answer(&gate, &api, request).await;
            for (name, value) in [
                (X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (CACHE_CONTROL, "no-store"),
                (RESOURCE_POLICY, "same-origin"),
            ] {
                let value = HeaderValue::from_static(value);
                response.headers_mut().insert(name, value);
            }
            if let Some(streams) = response.extensions().get() {
                life.streams(streams);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    // Both: a broken connection is the client's affair.
    tokio::select! {
        _ = serving.as_mut() => return,
        _ = stop.changed() => {
            life.end("this way in is closed");
            serving.as_mut().graceful_shutdown();
        }
    }
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, serving).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_testkit::tempdir::TempDir;

    /// Guarantee: only the token lets in, whole, and the one that the file holds now.
    #[test]
    fn only_the_token_lets_in() {
        let dir = TempDir::new("token").unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        let gate = Gate {
            by: "test",
            token: Some(Watched::read(&path, token).unwrap()),
            host: None,
        };
        let lets_in = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            gate.lets_in(&headers)
        };
        assert!(!gate.lets_in(&HeaderMap::new()));
        assert!(lets_in("Bearer 0123456789abcdef") && lets_in("bearer 0123456789abcdef"));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "0123456789abcdef",
            "Basic 0123456789abcdef",
            "Bearer 0123456789abcdeF",
            "Bearer 0123456789abcdef0",
        ] {
            assert!(!lets_in(wrong), "{wrong}");
        }
        let new = dir.path().join("new");
        std::fs::write(&new, "fedcba9876543210").unwrap();
        std::fs::rename(&new, &path).unwrap();
        assert!(!lets_in("Bearer 0123456789abcdef") && lets_in("Bearer fedcba9876543210"));
        for bad in ["", "short", "two words of a kind", "0123456789abcdef\nx"] {
            assert!(token(bad).is_err(), "{bad}");
        }
    }
}
