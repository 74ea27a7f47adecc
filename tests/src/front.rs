//! What stands in front of the sink and spoils connections: cuts them in the middle of a request,
//! or answers without end.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::wait;

const PIECE_BYTES: usize = 16 * 1024;

/// How long one read or write may take before the connection is given up, so that no thread stays.
const IO_TIMEOUT: Duration = Duration::from_secs(60);

/// What is done to connections, those that are open included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// They are passed on.
    Pass,
    /// They are passed on at so many bytes a second each.
    Slow(u64),
    /// What arrives is read and goes nowhere.
    Swallow,
    /// A connection is reset once it has sent so many bytes more; until then it is passed on.
    CutAfter(u64),
    /// Whatever is sent is answered with a 500 whose body is so many bytes long.
    Endless(u64),
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    way: Mutex<Way>,
    stop: AtomicBool,
    cuts: AtomicU64,
    passed: AtomicU64,
    endless: AtomicU64,
    endless_bytes_max: AtomicU64,
}

impl Shared {
    fn way(&self) -> Way {
        *self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running front; it ends on drop, and its connections with it.
#[derive(Debug)]
pub struct Front {
    addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Front {
    /// Listens on a free port of 127.0.0.1 and passes on to `target`.
    ///
    /// # Errors
    /// What binding or starting a thread fails with.
    pub fn start(target: SocketAddr) -> io::Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), target)
    }

    /// As [`Front::start`], at an address of loopback.
    ///
    /// # Errors
    /// As [`Front::start`].
    pub fn start_at(addr: SocketAddr, target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr)?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            way: Mutex::new(Way::Pass),
            stop: AtomicBool::new(false),
            cuts: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            endless: AtomicU64::new(0),
            endless_bytes_max: AtomicU64::new(0),
        });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("front".into())
            .spawn(move || accept(&listener, &for_thread))?;
        Ok(Self {
            addr,
            shared,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URL of the push endpoint behind it.
    pub fn push_url(&self) -> String {
        format!("http://{}/loki/api/v1/push", self.addr)
    }

    /// Changes what is done.
    pub fn set(&self, way: Way) {
        *self
            .shared
            .way
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = way;
    }

    /// Bytes of requests that were passed on so far.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Acquire)
    }

    /// Connections that were cut so far.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::Acquire)
    }

    /// Answers without end that were begun, and how many bytes of one the peer took at most: what
    /// it read, and what the kernel's buffers of the connection hold.
    pub fn endless(&self) -> (u64, u64) {
        let most = self.shared.endless_bytes_max.load(Ordering::Acquire);
        (self.shared.endless.load(Ordering::Acquire), most)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Wakes the thread up; if that fails it has ended.
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            // A panic has been printed.
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((client, _)) = listener.accept() {
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        let shared = Arc::clone(shared);
        // Errors end the connection, which is what they are for.
        std::thread::spawn(move || serve(client, &shared).unwrap_or_default());
    }
}

fn serve(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut server = TcpStream::connect(shared.target)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(IO_TIMEOUT))?;
        stream.set_write_timeout(Some(IO_TIMEOUT))?;
    }
    let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
    let back = std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let mut piece = vec![0; PIECE_BYTES];
    let (mut way, mut sent) = (Way::Pass, 0);
    loop {
        // Looked at without being taken: what is unread when a socket is closed makes it a reset.
        let waiting = client.peek(&mut piece)?;
        if waiting == 0 || shared.stop.load(Ordering::Acquire) {
            break;
        }
        if shared.way() != way {
            (way, sent) = (shared.way(), 0);
        }
        let pass = match way {
            Way::Pass => waiting,
            Way::Swallow => {
                client.read_exact(&mut piece[..waiting])?;
                continue;
            }
            Way::Slow(rate) => {
                let tenth = usize::try_from(rate / 10).unwrap_or(waiting);
                wait::let_pass(Duration::from_millis(100));
                waiting.min(tenth.max(1))
            }
            Way::CutAfter(bytes) if sent >= bytes => {
                shared.cuts.fetch_add(1, Ordering::AcqRel);
                break;
            }
            Way::CutAfter(bytes) => waiting.min(usize::try_from(bytes - sent).unwrap_or(waiting)),
            Way::Endless(bytes) => return endless(&mut client, bytes, shared),
        };
        client.read_exact(&mut piece[..pass])?;
        server.write_all(&piece[..pass])?;
        sent += pass as u64;
        shared.passed.fetch_add(pass as u64, Ordering::AcqRel);
    }
    let _ = server.shutdown(Shutdown::Both);
    drop(client);
    let _ = back.join();
    Ok(())
}

fn endless(client: &mut TcpStream, bytes: u64, shared: &Shared) -> io::Result<()> {
    shared.endless.fetch_add(1, Ordering::AcqRel);
    write!(
        client,
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: {bytes}\r\n\r\n"
    )?;
    let piece = vec![b' '; PIECE_BYTES];
    let mut sent = 0;
    while sent < bytes && !shared.stop.load(Ordering::Acquire) {
        match client.write(&piece) {
            Ok(written) if written > 0 => sent += written as u64,
            _ => break,
        }
        shared.endless_bytes_max.fetch_max(sent, Ordering::AcqRel);
    }
    Ok(())
}
