//! Sockets of a receiver, on a thread and a runtime of their own.
//!
//! Neither TCP nor UDP tells a sender what was taken. So a connection is read only as far as there is room,
//! and one whose receiver goes is left to the receiver that listens at its socket next, with what was read
//! of it. Without a next one, what has come is read before it is closed.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use rustix::net::sockopt;
use tailwater_pipeline::clock::Clock;
use tailwater_pipeline::listeners::{HandedOver, WeakLent};
use tailwater_telemetry::metrics::{ListenerMetrics, MessageMetrics};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::framing::{Framer, Framing};
use super::inflow::Inflow;
use super::intake::Intake;
use super::message::{Chunk, Senders, Transport};
use crate::input::frame::{Frames, Input, Token};
use crate::listen::{Bound, Datagrams, Socket, TlsSource};

/// Pause after a failed accept or read of a socket.
const FAILED_PAUSE: Duration = Duration::from_millis(200);
/// A connection must be secure within this time.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// A sender that is silent for so long is asked by the system for a sign.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(60);
/// When a receiver goes, a connection on which nothing comes for so long is at its end.
const QUIET_TIME: Duration = Duration::from_millis(50);
/// How long one is read at most then.
const END_TIME: Duration = Duration::from_secs(2);
/// Room for the next datagram, which may be so long.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// Bytes and number of datagrams that go to a shard together, about.
const TOGETHER_BYTES: usize = 64 << 10;
const TOGETHER_MAX: usize = 512;

/// What both kinds of sockets need.
#[derive(Clone)]
pub struct Common {
    /// Where messages go.
    pub intake: Arc<Intake>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where messages end.
    pub framing: Arc<Framing>,
    /// Counters of messages.
    pub messages: Arc<MessageMetrics>,
    /// Counters of the socket.
    pub listener: Arc<ListenerMetrics>,
}

/// A listener for connections.
pub struct TcpDoor {
    /// Certificates.
    pub tls: Option<TlsSource>,
    /// So many connections at once.
    pub connections_max: usize,
    /// One on which nothing comes for so long is closed.
    pub idle_timeout: Option<Duration>,
    /// What else it needs.
    pub common: Common,
}

/// A socket for datagrams.
pub struct UdpDoor {
    /// What gets them.
    pub datagrams: Datagrams,
    /// What else it needs.
    pub common: Common,
}

/// The thread of the sockets. Dropping it ends it, whatever is under way.
pub struct Server {
    stop: Option<watch::Sender<bool>>,
    thread: Option<JoinHandle<()>>,
}

/// A runtime for sockets.
///
/// # Errors
/// What the system says.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
}

impl Server {
    /// Serves on a thread of its own.
    ///
    /// # Errors
    /// There is no thread.
    pub fn start(
        runtime: tokio::runtime::Runtime,
        tcp: Option<(Bound, TcpDoor)>,
        udp: Option<UdpDoor>,
        intake: Arc<Intake>,
    ) -> io::Result<Server> {
        let (stop, stopped) = watch::channel(false);
        intake.open();
        let closing = Closing(intake);
        let thread = std::thread::Builder::new()
            .name("syslog".to_owned())
            .spawn(move || {
                let _closing = closing;
                runtime.block_on(run(tcp, udp, stopped));
                runtime.shutdown_background();
            })?;
        Ok(Server {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Nothing new comes in; what has come is taken.
    pub fn stop(&self) {
        if let Some(stop) = &self.stop {
            stop.send_replace(true);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        // Tells that nobody waits any more.
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Says that nothing comes any more, however the thread ends.
struct Closing(Arc<Intake>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn run(
    tcp: Option<(Bound, TcpDoor)>,
    udp: Option<UdpDoor>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut doors = JoinSet::new();
    if let Some((bound, tcp)) = tcp {
        doors.spawn(serve_tcp(bound, Arc::new(tcp), stopped.clone()));
    }
    if let Some(udp) = udp {
        doors.spawn(serve_udp(udp, stopped.clone()));
    }
    let all = async { while doors.join_next().await.is_some() {} };
    tokio::select! {
        () = all => {}
        // Fails when the server is dropped.
        () = async { while stopped.changed().await.is_ok() {} } => {}
    }
}

async fn stops(stop: &mut watch::Receiver<bool>) {
    // An error says that the server is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A place among the connections of a listener.
struct Place(Arc<TcpDoor>, Arc<AtomicUsize>);

impl Place {
    /// One that goes on with a connection has a place in any case: it had one.
    fn take(door: &Arc<TcpDoor>, open: &Arc<AtomicUsize>, goes_on: bool) -> Option<Place> {
        let before = open.fetch_add(1, Ordering::AcqRel);
        let listener = &door.common.listener;
        listener.connections.inc();
        let place = Place(door.clone(), open.clone());
        if before >= door.connections_max && !goes_on {
            listener.connections_refused.inc();
            return None;
        }
        Some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::AcqRel);
        self.0.common.listener.connections.dec();
    }
}

async fn serve_tcp(bound: Bound, door: Arc<TcpDoor>, mut stop: watch::Receiver<bool>) {
    let open = Arc::<AtomicUsize>::default();
    let mut connections = JoinSet::new();
    let (leave, left) = watch::channel(false);
    let next = bound.lent().downgrade();
    let Socket::Tcp(listener) = &bound.socket else {
        return;
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted.map(|(stream, peer)| (stream, peer, None)),
            handed = bound.lent().handed_over() => {
                // Of one that broke meanwhile nobody knows whose it was.
                let unknown = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
                let peer = handed.stream.peer_addr().unwrap_or(unknown);
                let stream = TcpStream::from_std(handed.stream);
                stream.map(|stream| (stream, peer, Some(handed.unread)))
            }
            _ = connections.join_next(), if !connections.is_empty() => continue,
            () = stops(&mut stop) => break,
        };
        match accepted {
            Ok((stream, peer, unread)) => {
                keep_alive(&stream);
                // Without a place it is closed.
                if let Some(place) = Place::take(&door, &open, unread.is_some()) {
                    let connection = Connection {
                        door: door.clone(),
                        next: next.clone(),
                        peer,
                        goes_on: unread.is_some(),
                        stop: left.clone(),
                        _place: place,
                    };
                    connections.spawn(connection.serve(stream, unread.unwrap_or_default()));
                }
            }
            Err(e) => {
                tracing::warn!(error = %e, "cannot accept a connection; trying again soon");
                tokio::time::sleep(FAILED_PAUSE).await;
            }
        }
    }
    // Who has the socket from here on is another one.
    drop(bound);
    leave.send_replace(true);
    while connections.join_next().await.is_some() {}
}

/// Has the system find out that a sender is gone that says nothing any more.
fn keep_alive(stream: &TcpStream) {
    // Without it the connection is there for longer, and nothing else changes.
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEP_ALIVE_AFTER);
}

/// What a connection needs.
struct Connection {
    door: Arc<TcpDoor>,
    /// Where it goes on when the receiver stops, if anybody is there.
    next: WeakLent,
    peer: SocketAddr,
    /// It was another one's before.
    goes_on: bool,
    stop: watch::Receiver<bool>,
    _place: Place,
}

impl Connection {
    /// Serves it to its end.
    async fn serve(self, stream: TcpStream, unread: Vec<u8>) {
        let local = stream.local_addr().ok();
        let mut reading = Reading {
            inflow: Inflow::new(&self.door.common.intake.incoming, unread),
            framer: Framer::default(),
            frames: Frames::default(),
            origin: (self.peer, local),
            log: self.door.common.intake.next_log(),
            door: &self.door,
            stop: self.stop.clone(),
        };
        let Some(tls) = &self.door.tls else {
            let mut stream = stream;
            let end = reading.read(&mut stream).await;
            if end == End::Stopped && self.next.is_held() {
                match self.leave(stream, reading.inflow.take()) {
                    None => return,
                    Some((back, unread)) => {
                        stream = back;
                        let incoming = &self.door.common.intake.incoming;
                        reading.inflow = Inflow::new(incoming, unread);
                    }
                }
            }
            return reading.finish(&mut stream, end).await;
        };
        if self.goes_on {
            // It is not secure, as it has to be now: what has come is taken.
            let mut stream = stream;
            return reading.finish(&mut stream, End::Stopped).await;
        }
        let secure = TlsAcceptor::from(tls.current()).accept(stream);
        // Whoever does not know TLS, or shows no certificate, is told by TLS itself.
        if let Ok(Ok(mut stream)) = tokio::time::timeout(HANDSHAKE_TIME, secure).await {
            let end = reading.read(&mut stream).await;
            reading.finish(&mut stream, end).await;
            // Says that this is the end, to a sender that listens.
            let _ = tokio::time::timeout(QUIET_TIME, stream.shutdown()).await;
        }
    }

    /// Leaves the connection to the next one who listens. It comes back if there is none.
    fn leave(&self, stream: TcpStream, unread: Vec<u8>) -> Option<(TcpStream, Vec<u8>)> {
        // Fails only where the runtime ends.
        let stream = stream.into_std().ok()?;
        let handed = HandedOver { stream, unread };
        let HandedOver { stream, unread } = self.next.hand_over(handed).err()?;
        Some((TcpStream::from_std(stream).ok()?, unread))
    }
}

/// Why reading has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// The sender closed the connection, or it broke.
    Closed,
    /// Nothing came for too long.
    Idle,
    /// The receiver stops.
    Stopped,
}

/// One connection.
struct Reading<'a> {
    door: &'a TcpDoor,
    inflow: Inflow,
    framer: Framer,
    frames: Frames,
    origin: (SocketAddr, Option<SocketAddr>),
    log: u64,
    stop: watch::Receiver<bool>,
}

impl Reading<'_> {
    async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> End {
        // What another one had read may be enough.
        self.cut(Input::More).await;
        loop {
            let has_space = self
                .inflow
                .make_space(self.door.common.framing.buffer_bytes_max());
            if !has_space {
                // Too much of other connections is not complete, so this message is cut here.
                self.door.common.messages.split_messages.inc();
                self.cut(Input::Flush).await;
                continue;
            }
            let idle = async {
                match self.door.idle_timeout {
                    Some(time) => tokio::time::sleep(time).await,
                    None => std::future::pending().await,
                }
            };
            let read = tokio::select! {
                biased;
                () = stops(&mut self.stop) => return End::Stopped,
                read = stream.read_buf(self.inflow.space()) => read,
                () = idle => return End::Idle,
            };
            match read {
                Ok(0) | Err(_) => return End::Closed,
                Ok(_) => self.cut(Input::More).await,
            }
        }
    }

    /// Takes what is left: if the receiver stops also what has come and was not read.
    async fn finish(mut self, stream: &mut (impl AsyncRead + Unpin), end: End) {
        let intake = &self.door.common.intake;
        let until = tokio::time::Instant::now() + END_TIME;
        let enough = self.door.common.framing.buffer_bytes_max();
        while end == End::Stopped && tokio::time::Instant::now() < until {
            if !intake.has_room(0) || !self.inflow.make_space(enough) {
                break;
            }
            let more = stream.read_buf(self.inflow.space());
            match tokio::time::timeout(QUIET_TIME, more).await {
                Ok(Ok(n)) if n > 0 => self.cut(Input::More).await,
                _ => break,
            }
        }
        self.cut(Input::Flush).await;
    }

    /// Hands on the messages that are there.
    async fn cut(&mut self, input: Input) {
        let door = self.door;
        let common = &door.common;
        loop {
            let content = self.inflow.content();
            self.framer
                .cut(&common.framing, content, input, &mut self.frames);
            let consumed = self.frames.consumed;
            if consumed == 0 {
                return;
            }
            let text = Bytes::copy_from_slice(&content[..consumed]);
            self.inflow.consume(consumed);
            let tokens = std::mem::take(&mut self.frames.tokens);
            let cuts = tokens.iter().filter(|t| t.cut).count();
            common.messages.split_messages.inc_by(cuts as u64);
            if !tokens.is_empty() {
                let chunk = Chunk {
                    text,
                    tokens,
                    senders: Senders::One(self.origin.0),
                    local: self.origin.1,
                    transport: Transport::Tcp,
                    log: self.log,
                    seen_ns: common.clock.wall_ns(),
                };
                // Who waits for room when the receiver stops has it in memory already.
                tokio::select! {
                    () = common.intake.wait_for_room(chunk.cost_bytes()) => {}
                    () = stops(&mut self.stop) => {}
                }
                common.intake.take(chunk);
            }
            // A flush leaves a cut character, which goes with the next one.
            if input != Input::Flush || self.inflow.content().is_empty() {
                return;
            }
        }
    }
}

async fn serve_udp(door: UdpDoor, mut stop: watch::Receiver<bool>) {
    let socket = &door.datagrams.socket;
    let mut gathering = Gathering::new(&door);
    loop {
        gathering.text.reserve(DATAGRAM_BYTES_MAX);
        let got = tokio::select! {
            biased;
            () = stops(&mut stop) => break,
            got = socket.recv_buf_from(&mut gathering.text) => got,
        };
        match got {
            Ok((_, peer)) => gathering.add(peer),
            Err(e) => {
                tracing::warn!(error = %e, "cannot read datagrams; trying again soon");
                tokio::time::sleep(FAILED_PAUSE).await;
                continue;
            }
        }
        gathering.gather();
        gathering.hand_on();
        // Others have their turn, too.
        tokio::task::yield_now().await;
    }
    // What is left is of the one who listens here next.
    while !door.datagrams.lent().is_shared() && gathering.gather() {
        gathering.hand_on();
    }
}

/// Datagrams that go to a shard together.
struct Gathering<'a> {
    door: &'a UdpDoor,
    text: Vec<u8>,
    /// Up to here it was looked at.
    begin: usize,
    datagrams: usize,
    tokens: Vec<Token>,
    peers: Vec<SocketAddr>,
    frames: Frames,
    log: u64,
    /// The last ones found no room.
    dropping: bool,
}

impl<'a> Gathering<'a> {
    fn new(door: &'a UdpDoor) -> Gathering<'a> {
        Gathering {
            door,
            text: Vec::new(),
            begin: 0,
            datagrams: 0,
            tokens: Vec::new(),
            peers: Vec::new(),
            frames: Frames::default(),
            log: door.common.intake.next_log(),
            dropping: false,
        }
    }

    /// Adds what is there already. False if that is nothing.
    fn gather(&mut self) -> bool {
        let before = self.datagrams;
        while self.text.len() < TOGETHER_BYTES && self.datagrams < TOGETHER_MAX {
            self.text.reserve(DATAGRAM_BYTES_MAX);
            match self.door.datagrams.socket.try_recv_buf_from(&mut self.text) {
                Ok((_, peer)) => self.add(peer),
                Err(_) => break,
            }
        }
        self.datagrams > before
    }

    /// Takes the messages of the datagram at the end.
    fn add(&mut self, peer: SocketAddr) {
        self.datagrams += 1;
        let framing = &self.door.common.framing;
        if framing.is_of_bytes() {
            // As in the collector: senders put line ends and NULs behind messages.
            let datagram = &self.text[self.begin..];
            let end = datagram.iter().rposition(|b| *b >= b' ');
            self.text
                .truncate(self.begin + end.map_or(0, |end| end + 1));
        }
        let mut framer = Framer::default();
        loop {
            let datagram = &self.text[self.begin..];
            framer.cut(framing, datagram, Input::Flush, &mut self.frames);
            let base = self.begin as u32;
            let cuts = self.frames.tokens.iter().filter(|t| t.cut).count();
            let split = &self.door.common.messages.split_messages;
            split.inc_by(cuts as u64);
            for t in &self.frames.tokens {
                self.peers.push(peer);
                self.tokens.push(Token {
                    from: base + t.from,
                    index: self.tokens.len() as u32,
                    start: base + t.start,
                    end: base + t.end,
                    next: base + t.next,
                    cut: t.cut,
                });
            }
            self.begin += self.frames.consumed;
            if self.frames.consumed == 0 || self.begin == self.text.len() {
                break;
            }
        }
        self.begin = self.text.len();
    }

    fn hand_on(&mut self) {
        let datagrams = std::mem::take(&mut self.datagrams);
        self.begin = 0;
        let tokens = std::mem::take(&mut self.tokens);
        let peers = std::mem::take(&mut self.peers);
        if tokens.is_empty() {
            self.text.clear();
            return;
        }
        let common = &self.door.common;
        let chunk = Chunk {
            text: Bytes::copy_from_slice(&self.text),
            tokens,
            senders: Senders::Each(peers),
            local: self.door.datagrams.socket.local_addr().ok(),
            transport: Transport::Udp,
            log: self.log,
            seen_ns: common.clock.wall_ns(),
        };
        self.text.clear();
        let taken = common.intake.take_or_drop(chunk);
        if !taken {
            common.messages.dropped_datagrams.inc_by(datagrams as u64);
            if !self.dropping {
                tracing::warn!(
                    "datagrams are dropped: there is no room, since too much is not delivered yet"
                );
            }
        }
        self.dropping = !taken;
    }
}
