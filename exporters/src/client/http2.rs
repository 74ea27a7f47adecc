//! HTTP/2: connections that requests share, and what tells that one of them is gone.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use foldhash::HashMap;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::header::{CONNECTION, HOST};
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::body::Chunks;
use super::connect::Connection;
use super::endpoint::Endpoint;
use super::http::{config_error, is_reset};
use super::pool::{Key, Reaper};
use crate::delivery::SendError;

/// Largest headers or trailers of an answer that are read.
const HEADERS_BYTES_MAX: u32 = 64 << 10;
/// What a server may send ahead of an answer over HTTP, on one stream and on one connection. No more
/// than the first 64 KiB of an answer are read.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// Looks after a connection that is quiet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ping {
    /// How long nothing came before the server is asked for a sign.
    pub after: Duration,
    /// How long the sign is waited for before the connection is given up.
    pub timeout: Duration,
    /// Also while no request is under way.
    pub while_idle: bool,
}

/// How connections are made.
pub(super) fn builder(ping: Option<Ping>) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(HEADERS_BYTES_MAX);
    if let Some(ping) = ping {
        builder
            .keep_alive_interval(ping.after)
            .keep_alive_timeout(ping.timeout)
            .keep_alive_while_idle(ping.while_idle);
    }
    builder
}

/// One connection, shared by the requests over it.
#[derive(Clone)]
pub(super) struct Channel {
    sender: http2::SendRequest<Chunks>,
    /// Where it leads: to the server or its proxy.
    pub peer: SocketAddr,
    /// How TLS was made, if it was.
    pub secured: Option<Arc<ClientConfig>>,
    /// Signs of life of the server.
    answers: Arc<AtomicU64>,
    serial: u64,
}

impl Channel {
    /// Begins to speak HTTP/2 over `connection`. `serial` tells channels apart.
    pub async fn open(
        builder: &http2::Builder<TokioExecutor>,
        connection: Connection,
        serial: u64,
    ) -> Result<Channel, hyper::Error> {
        let Connection {
            io, peer, secured, ..
        } = connection;
        let (sender, driver) = builder.handshake(TokioIo::new(io)).await?;
        // Ends when the senders are dropped or the server closes; its error is the senders' too.
        tokio::spawn(async move { driver.await.ok() });
        Ok(Channel {
            sender,
            peer,
            secured,
            answers: Arc::default(),
            serial,
        })
    }

    /// Sends a request, and gives the head of the answer.
    pub async fn send(&self, request: Request<Chunks>) -> Result<Response<Incoming>, hyper::Error> {
        let mut sender = self.sender.clone();
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        self.answers.fetch_add(1, Ordering::Relaxed);
        Ok(response)
    }

    /// How many answers have begun to come.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether both are the same connection.
    pub fn is(&self, other: &Channel) -> bool {
        self.serial == other.serial
    }
}

/// Whether a request failed before the server saw it, or because its connection is gone.
pub(super) fn is_gone(e: &hyper::Error) -> bool {
    let stream = stream_error(e);
    let untouched = stream.is_some_and(|e| e.reason() == Some(h2::Reason::REFUSED_STREAM));
    e.is_canceled() || e.is_closed() || is_reset(e) || untouched || stream.is_none()
}

/// The error, if it is of one request and the connection goes on.
fn stream_error(e: &hyper::Error) -> Option<&h2::Error> {
    use std::error::Error as _;
    let inner = e.source().and_then(|s| s.downcast_ref::<h2::Error>());
    inner.filter(|e| e.is_reset())
}

/// Makes a request for HTTP/1.1 one for HTTP/2: what `Host` says is part of the address, and a
/// connection has no headers of its own.
pub(super) fn translate(
    mut request: Request<Chunks>,
    endpoint: &Endpoint,
) -> Result<Request<Chunks>, SendError> {
    let host = request.headers_mut().remove(HOST);
    request.headers_mut().remove(CONNECTION);
    let authority = match &host {
        Some(host) => host.as_bytes().to_vec(),
        None => endpoint.authority().into_bytes(),
    };
    let uri = Uri::builder()
        .scheme(endpoint.scheme())
        .authority(authority.as_slice())
        .path_and_query(endpoint.path.as_str())
        .build();
    *request.uri_mut() = uri.map_err(|e| config_error(format!("{endpoint}: {e}")))?;
    Ok(request)
}

/// A connection that is kept for more requests.
struct Kept {
    channel: Channel,
    /// Requests under way, plus one.
    users: Arc<()>,
    used: Instant,
}

#[derive(Default)]
struct Inner {
    kept: HashMap<Key, Kept>,
    turns: HashMap<Key, Arc<tokio::sync::Mutex<()>>>,
    /// Servers that chose HTTP/1.1 when they were asked last.
    plain: HashSet<Key>,
    reaper: Reaper,
}

impl Inner {
    /// Forgets connections that have ended or that nobody has used for `timeout`.
    fn prune(&mut self, timeout: Duration) {
        self.kept.retain(|_, kept| {
            let idle = Arc::strong_count(&kept.users) == 1;
            let old = idle && !timeout.is_zero() && kept.used.elapsed() >= timeout;
            !old && !kept.channel.is_closed()
        });
    }
}

/// A connection in use.
pub(super) struct InUse {
    pub channel: Channel,
    _user: Arc<()>,
}

/// The HTTP/2 connections of one client, at most one to each server. Locked for moments, once or twice
/// per request.
pub(super) struct Channels {
    inner: Arc<Mutex<Inner>>,
    builder: http2::Builder<TokioExecutor>,
    idle_timeout: Duration,
    /// False: each connection has one request.
    keep: bool,
    serial: AtomicU64,
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(|e| e.into_inner())
}

impl Channels {
    /// None yet; they are closed when they were idle for `idle_timeout` (zero: never).
    pub fn new(ping: Option<Ping>, idle_timeout: Duration, keep: bool) -> Channels {
        let mut builder = builder(ping);
        builder
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        Channels {
            inner: Arc::default(),
            builder,
            idle_timeout,
            keep,
            serial: AtomicU64::new(0),
        }
    }

    /// The connection to a server, if there is one that works and `is_current`; another one is left.
    pub fn take(&self, key: &Key, is_current: impl Fn(&Channel) -> bool) -> Option<InUse> {
        let mut inner = lock(&self.inner);
        inner.prune(self.idle_timeout);
        let kept = inner.kept.get_mut(key)?;
        if !is_current(&kept.channel) {
            inner.kept.remove(key);
            return None;
        }
        kept.used = Instant::now();
        Some(InUse {
            channel: kept.channel.clone(),
            _user: kept.users.clone(),
        })
    }

    /// Waits until nobody else connects to the server, as requests may share what comes of it. A server
    /// that does not know HTTP/2 is not waited for.
    pub async fn turn(&self, key: &Key) -> Option<OwnedMutexGuard<()>> {
        let turn = {
            let mut inner = lock(&self.inner);
            if inner.plain.contains(key) || !self.keep {
                return None;
            }
            inner.turns.entry(key.clone()).or_default().clone()
        };
        Some(turn.lock_owned().await)
    }

    /// Notes that the server chose HTTP/1.1.
    pub fn is_plain(&self, key: &Key) {
        lock(&self.inner).plain.insert(key.clone());
    }

    /// Begins to speak HTTP/2 over a connection, which then is for other requests, too.
    pub async fn open(&self, key: &Key, connection: Connection) -> Result<InUse, hyper::Error> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let channel = Channel::open(&self.builder, connection, serial).await?;
        let users = Arc::new(());
        let in_use = InUse {
            channel: channel.clone(),
            _user: users.clone(),
        };
        let mut inner = lock(&self.inner);
        inner.plain.remove(key);
        if !self.keep {
            return Ok(in_use);
        }
        let kept = Kept {
            channel,
            users,
            used: Instant::now(),
        };
        inner.kept.insert(key.clone(), kept);
        let timeout = self.idle_timeout;
        if !timeout.is_zero() {
            let channels = Arc::downgrade(&self.inner);
            inner.reaper.begin(reap(channels, timeout));
        }
        Ok(in_use)
    }

    /// It is not for other requests any more.
    pub fn forget(&self, channel: &Channel) {
        lock(&self.inner)
            .kept
            .retain(|_, kept| !kept.channel.is(channel));
    }

    /// A request over it has ended.
    pub fn used(&self, channel: &Channel) {
        let mut inner = lock(&self.inner);
        let kept = inner.kept.values_mut().find(|k| k.channel.is(channel));
        if let Some(kept) = kept {
            kept.used = Instant::now();
        }
    }

    /// Connections now.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        let mut inner = lock(&self.inner);
        inner.prune(self.idle_timeout);
        inner.kept.len()
    }
}

/// Closes idle connections when their time is over. Ends when there are none.
async fn reap(channels: Weak<Mutex<Inner>>, timeout: Duration) {
    loop {
        let next = {
            let Some(inner) = channels.upgrade() else {
                return;
            };
            let mut inner = lock(&inner);
            inner.prune(timeout);
            let oldest = inner.kept.values().map(|k| k.used).min();
            if oldest.is_none() {
                inner.reaper.rest();
            }
            // One in use for longer than that is looked at again after as long.
            oldest.map(|used| (used + timeout).max(Instant::now() + timeout / 8))
        };
        let Some(next) = next else { return };
        tokio::time::sleep_until(next).await;
    }
}
