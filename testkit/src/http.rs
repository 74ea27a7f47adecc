//! A small HTTP/1.1 server on loopback, one thread per connection, made to misbehave on demand.
//!
//! RFC 9112 as far as clients of a push API use it: keep-alive, `Content-Length` and chunked
//! bodies, `Expect: 100-continue`. No TLS, no HTTP/2, no trailers kept. Everything a peer can
//! send has a limit ([`ServerLimits`]); the number of threads is bounded by the number of
//! connections allowed. Dropping the [`Server`] closes every connection and joins every thread.

mod connection;
mod parse;

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::ports;

/// How long [`Server::listen_again`] tries to get its port back.
const REBIND_TIME_MAX: Duration = Duration::from_secs(5);

/// Limits of a [`Server`] that do not change while it runs.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Request line and headers together; more is answered with 431.
    pub head_bytes_max: usize,
    /// Connections, and so threads, at once; further ones are answered with 503 and closed.
    pub connections_max: usize,
    /// How long a read or a write may make no progress before the connection is closed.
    pub io_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            head_bytes_max: 64 * 1024,
            connections_max: 256,
            // Loki's own default read timeout.
            io_timeout: Duration::from_secs(30),
        }
    }
}

/// A request with its whole body.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Upper case, as sent.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Query parameters, percent-decoded, in the order sent.
    pub query: Vec<(String, String)>,
    /// Header names in lower case, values without surrounding blanks, in the order sent.
    pub headers: Vec<(String, String)>,
    /// Transfer coding removed, content coding kept.
    pub body: Vec<u8>,
}

impl Request {
    /// The first value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The first value of a query parameter.
    pub fn query_value(&self, name: &str) -> Option<&str> {
        find(&self.query, name)
    }
}

fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
}

/// How a response body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pace {
    /// In one piece.
    #[default]
    Fast,
    /// `bytes` at a time with `pause` between.
    Slow {
        /// Bytes per write, at least 1.
        bytes: usize,
        /// The time between writes.
        pause: Duration,
    },
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Response {
    /// The status code; 204 and 304 are sent without body and length.
    pub status: u16,
    /// Headers besides `Content-Length` and `Connection`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// How the body is written.
    pub pace: Pace,
}

impl Response {
    /// A plain text answer.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self::typed(
            status,
            "text/plain; charset=utf-8",
            body.into().into_bytes(),
        )
    }

    /// An answer of the content type given.
    pub fn typed(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        Self {
            status,
            headers,
            body,
            pace: Pace::Fast,
        }
    }

    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }
}

/// What a handler wants done.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Send this and keep the connection.
    Send(Response),
    /// Close the connection without an answer.
    Close,
}

/// The behaviour behind a [`Server`]. Called from many threads.
pub trait Handler: Send + Sync + 'static {
    /// Called when the head is read and the body is not. `Some` ends the exchange there, and a
    /// [`Reply::Close`] then usually reaches the client as a connection reset, for the kernel
    /// answers unread data so.
    fn on_head(&self, head: &Request, stop: &StopSignal) -> Option<Reply>;

    /// The largest body read, in bytes after removing the transfer coding.
    fn body_bytes_max(&self) -> usize;

    /// The answer to a larger body; `bytes` is what was announced or already seen.
    fn on_oversized(&self, head: &Request, bytes: usize) -> Response;

    /// Answers a whole request.
    fn on_request(&self, request: Request, stop: &StopSignal) -> Reply;
}

/// Lets a handler wait without outliving its server.
#[derive(Debug, Default)]
pub struct StopSignal {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl StopSignal {
    /// Waits for `time`, or until the server stops. True when it stopped.
    pub fn wait(&self, time: Duration) -> bool {
        let guard = lock(&self.stopped);
        let wait = self
            .changed
            .wait_timeout_while(guard, time, |stopped| !*stopped);
        *wait.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits until the server stops.
    pub fn wait_for_stop(&self) {
        let guard = lock(&self.stopped);
        drop(self.changed.wait_while(guard, |stopped| !*stopped));
    }

    fn stop(&self) {
        *lock(&self.stopped) = true;
        self.changed.notify_all();
    }

    fn is_stopped(&self) -> bool {
        *lock(&self.stopped)
    }
}

/// A poisoned lock only means that another thread of a test panicked; the data is whole, for
/// nothing here panics while it changes shared state.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the accepting thread, the connection threads and the handle share.
struct Shared {
    handler: Arc<dyn Handler>,
    limits: ServerLimits,
    stop: StopSignal,
    state: Mutex<State>,
    idle: Condvar,
}

#[derive(Default)]
struct State {
    /// Whether new connections are wanted; false makes the accepting thread end.
    accepting: bool,
    next_id: u64,
    open: HashMap<u64, TcpStream>,
    accepted: u64,
}

/// A running server.
pub struct Server {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

impl Server {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// What binding or starting a thread fails with.
    pub fn start(handler: Arc<dyn Handler>, limits: ServerLimits) -> io::Result<Self> {
        let listener = ports::listen()?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            handler,
            limits,
            stop: StopSignal::default(),
            state: Mutex::default(),
            idle: Condvar::new(),
        });
        let server = Self {
            addr,
            shared,
            acceptor: Mutex::new(None),
        };
        server.spawn_acceptor(listener)?;
        Ok(server)
    }

    /// Where it listens. The same for the server's whole life.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections accepted so far.
    pub fn connections_accepted(&self) -> u64 {
        lock(&self.shared.state).accepted
    }

    /// Connections open now.
    pub fn connections_open(&self) -> usize {
        lock(&self.shared.state).open.len()
    }

    /// Closes every connection, with whatever is under way on it.
    pub fn close_connections(&self) {
        for stream in lock(&self.shared.state).open.values() {
            // Already closed is as good.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Stops listening and closes every connection: from now on connecting is refused.
    pub fn refuse(&self) {
        let mut acceptor = lock(&self.acceptor);
        if let Some(thread) = acceptor.take() {
            lock(&self.shared.state).accepting = false;
            // Wakes the thread out of `accept`; if this fails it was awake already.
            drop(TcpStream::connect_timeout(
                &self.addr,
                Duration::from_secs(1),
            ));
            // A panic there has been reported by the thread itself.
            let _ = thread.join();
        }
        self.close_connections();
    }

    /// Listens again after [`Server::refuse`], on the same port.
    ///
    /// # Errors
    /// Another process took the port and kept it for five seconds.
    pub fn listen_again(&self) -> io::Result<()> {
        if lock(&self.acceptor).is_some() {
            return Ok(());
        }
        let give_up = Instant::now() + REBIND_TIME_MAX;
        let listener = loop {
            match TcpListener::bind(self.addr) {
                Ok(listener) => break listener,
                Err(error) if Instant::now() >= give_up => return Err(error),
                Err(_) if self.shared.stop.wait(Duration::from_millis(10)) => return Ok(()),
                Err(_) => {}
            }
        };
        self.spawn_acceptor(listener)
    }

    fn spawn_acceptor(&self, listener: TcpListener) -> io::Result<()> {
        lock(&self.shared.state).accepting = true;
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name("testkit-accept".to_owned())
            .spawn(move || accept_loop(&listener, &shared))?;
        *lock(&self.acceptor) = Some(thread);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.stop();
        self.refuse();
        // Every wait ends with the stop signal and every socket is shut, so threads end soon; a
        // handler stuck elsewhere must not hang the test, hence the bound.
        let state = lock(&self.shared.state);
        let bound = Duration::from_secs(5);
        drop(
            self.shared
                .idle
                .wait_timeout_while(state, bound, |state| !state.open.is_empty()),
        );
    }
}

fn accept_loop(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        if !lock(&shared.state).accepting {
            return;
        }
        match accepted {
            Ok((stream, _)) => admit(stream, shared),
            // Out of descriptors, most likely: let some close first.
            Err(_) => drop(shared.stop.wait(Duration::from_millis(10))),
        }
    }
}

/// Starts a thread for a connection, or turns it away. A failure costs that connection only.
fn admit(stream: TcpStream, shared: &Arc<Shared>) {
    let Ok(registered) = stream.try_clone() else {
        return;
    };
    let id = {
        let mut state = lock(&shared.state);
        if state.open.len() >= shared.limits.connections_max {
            drop(state);
            connection::turn_away(stream);
            return;
        }
        state.accepted += 1;
        state.next_id += 1;
        let id = state.next_id;
        state.open.insert(id, registered);
        id
    };
    let for_thread = Arc::clone(shared);
    let spawned = std::thread::Builder::new()
        .name("testkit-conn".to_owned())
        .spawn(move || {
            let _registration = Registration {
                shared: &for_thread,
                id,
            };
            connection::serve(
                stream,
                &*for_thread.handler,
                &for_thread.limits,
                &for_thread.stop,
            );
        });
    if spawned.is_err() {
        lock(&shared.state).open.remove(&id);
    }
}

/// Takes a connection off the list when its thread ends, by panic too.
struct Registration<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        if let Some(stream) = state.open.remove(&self.id) {
            // The list holds a duplicate of the socket: without this the peer would wait.
            let _ = stream.shutdown(Shutdown::Both);
        }
        if state.open.is_empty() {
            self.shared.idle.notify_all();
        }
    }
}

#[cfg(test)]
mod tests;
