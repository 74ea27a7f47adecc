//! Sockets that listen. They are the agent's and lent to nodes, so that one that takes the place of
//! another at the same address listens before that one stops, and no client is turned away between.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::sync::Notify;

/// Connections that the kernel keeps for a listener that is busy.
const BACKLOG: i32 = 1024;
/// Bytes of datagrams that the kernel is asked to keep for a reader that is busy; it may allow less.
const DATAGRAM_BYTES: usize = 8 << 20;

/// Who listens where. One per process.
#[derive(Debug, Default)]
pub struct Listeners {
    open: Mutex<Vec<Weak<Open>>>,
}

/// A socket, for as long as somebody has it.
#[derive(Debug)]
enum Open {
    Tcp(SocketAddr, TcpListener, Handover),
    Udp(SocketAddr, UdpSocket),
    /// Its name is removed at the end.
    Unix(PathBuf, UnixListener),
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Open::Unix(path, _) = self {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Connections between two who listen at the same socket.
#[derive(Debug, Default)]
struct Handover {
    waiting: Mutex<Vec<HandedOver>>,
    news: Notify,
}

/// A connection that goes on with whoever listens at its socket next: of protocols in which a client that
/// is asked to go elsewhere does not know what of its data was taken.
#[derive(Debug)]
pub struct HandedOver {
    /// The connection. It does not block.
    pub stream: TcpStream,
    /// What was read of it and not taken.
    pub unread: Vec<u8>,
}

/// A listening socket. Another one for the same address shares it; it is closed with the last of them.
#[derive(Clone, Debug)]
pub struct Lent(Arc<Open>);

/// A socket that whoever has this does not have itself.
#[derive(Clone, Debug)]
pub struct WeakLent(Weak<Open>);

impl WeakLent {
    /// Leaves a connection to whoever has the socket.
    ///
    /// # Errors
    /// Nobody has it; the connection comes back.
    pub fn hand_over(&self, connection: HandedOver) -> Result<(), HandedOver> {
        let open = self.0.upgrade();
        let Some(Open::Tcp(_, _, handover)) = open.as_deref() else {
            return Err(connection);
        };
        let waiting = handover.waiting.lock();
        waiting
            .unwrap_or_else(PoisonError::into_inner)
            .push(connection);
        handover.news.notify_one();
        Ok(())
    }

    /// Whether anybody has it.
    pub fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }
}

/// A descriptor of its own for a [`Lent`] socket, which does not block.
#[derive(Debug)]
pub enum Descriptor {
    /// TCP.
    Tcp(TcpListener),
    /// UDP.
    Udp(UdpSocket),
    /// A socket in the file system.
    Unix(UnixListener),
}

impl Lent {
    /// A descriptor to accept connections with.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn descriptor(&self) -> io::Result<Descriptor> {
        Ok(match &*self.0 {
            Open::Tcp(_, socket, _) => Descriptor::Tcp(socket.try_clone()?),
            Open::Udp(_, socket) => Descriptor::Udp(socket.try_clone()?),
            Open::Unix(_, socket) => Descriptor::Unix(socket.try_clone()?),
        })
    }

    /// The address, if it is TCP or UDP.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &*self.0 {
            Open::Tcp(_, socket, _) => socket.local_addr().ok(),
            Open::Udp(_, socket) => socket.local_addr().ok(),
            Open::Unix(..) => None,
        }
    }

    /// Where it is, for messages.
    pub fn place(&self) -> String {
        match &*self.0 {
            Open::Tcp(address, ..) | Open::Udp(address, _) => {
                self.local_addr().unwrap_or(*address).to_string()
            }
            Open::Unix(path, _) => format!("unix://{}", path.display()),
        }
    }

    /// Whether somebody else has it, too, who may go on in the place of this one.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// The same socket, without having it.
    pub fn downgrade(&self) -> WeakLent {
        WeakLent(Arc::downgrade(&self.0))
    }

    /// The next connection that was left by another one who listened here; waits for it.
    pub async fn handed_over(&self) -> HandedOver {
        let Open::Tcp(_, _, handover) = &*self.0 else {
            return std::future::pending().await;
        };
        loop {
            let waiting = handover.waiting.lock();
            let next = waiting.unwrap_or_else(PoisonError::into_inner).pop();
            if let Some(next) = next {
                return next;
            }
            handover.news.notified().await;
        }
    }

    /// Whether others than this machine reach it.
    pub fn is_exposed(&self) -> bool {
        let address = self.local_addr();
        address.is_some_and(|a| !a.ip().to_canonical().is_loopback())
    }
}

impl Listeners {
    fn lend(
        &self,
        is: impl Fn(&Open) -> bool,
        open: impl FnOnce() -> io::Result<Open>,
    ) -> io::Result<Lent> {
        let mut known = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|open| open.strong_count() > 0);
        let mut there = known.iter().filter_map(Weak::upgrade);
        if let Some(open) = there.find(|open| is(open)) {
            return Ok(Lent(open));
        }
        let open = Arc::new(open()?);
        known.push(Arc::downgrade(&open));
        Ok(Lent(open))
    }

    /// Listens on `address`; port 0 is any that is free.
    ///
    /// # Errors
    /// What the system says.
    pub fn tcp(&self, address: SocketAddr) -> io::Result<Lent> {
        let is = |open: &Open| {
            address.port() != 0 && matches!(open, Open::Tcp(known, ..) if *known == address)
        };
        self.lend(is, || {
            let socket = listen_tcp(address)?;
            Ok(Open::Tcp(address, socket, Handover::default()))
        })
    }

    /// Gets the datagrams that come to `address`; port 0 is any that is free.
    ///
    /// # Errors
    /// What the system says.
    pub fn udp(&self, address: SocketAddr) -> io::Result<Lent> {
        let is = |open: &Open| {
            address.port() != 0 && matches!(open, Open::Udp(known, _) if *known == address)
        };
        self.lend(is, || Ok(Open::Udp(address, bind_udp(address)?)))
    }

    /// Listens on the first of `addresses` that can be had.
    ///
    /// # Errors
    /// What the system says of the last one.
    pub fn first_tcp(&self, addresses: &[SocketAddr]) -> io::Result<Lent> {
        first(addresses, |address| self.tcp(address))
    }

    /// [`Listeners::udp`] at the first of `addresses` that can be had.
    ///
    /// # Errors
    /// What the system says of the last one.
    pub fn first_udp(&self, addresses: &[SocketAddr]) -> io::Result<Lent> {
        first(addresses, |address| self.udp(address))
    }

    /// Listens on a socket at `path`. One that a killed process left there is replaced.
    ///
    /// # Errors
    /// What the system says; another process listens there.
    pub fn unix(&self, path: &Path) -> io::Result<Lent> {
        let is = |open: &Open| matches!(open, Open::Unix(known, _) if known == path);
        self.lend(is, || Ok(Open::Unix(path.to_owned(), listen_unix(path)?)))
    }

    /// As [`Listeners::unix`], for the owner alone: nobody else can connect, at no time.
    ///
    /// # Errors
    /// As [`Listeners::unix`].
    pub fn unix_private(&self, path: &Path) -> io::Result<Lent> {
        let is = |open: &Open| matches!(open, Open::Unix(known, _) if known == path);
        self.lend(is, || {
            Ok(Open::Unix(path.to_owned(), listen_private(path)?))
        })
    }
}

fn first(
    addresses: &[SocketAddr],
    open: impl Fn(SocketAddr) -> io::Result<Lent>,
) -> io::Result<Lent> {
    let none = "the name has no address of this kind";
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, none);
    for address in addresses {
        match open(*address) {
            Ok(lent) => return Ok(lent),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn socket(address: SocketAddr, kind: SocketType) -> io::Result<rustix::fd::OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, kind, flags, None)?)
}

fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(address, SocketType::DGRAM)?;
    // Less is no reason not to listen.
    let _ = sockopt::set_socket_recv_buffer_size(&socket, DATAGRAM_BYTES);
    rustix::net::bind(&socket, &address)?;
    Ok(UdpSocket::from(socket))
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, SocketType::STREAM)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    remove_stale(path)?;
    let socket = UnixListener::bind(path)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// On Linux the name gets the mode of the socket, so it is never open to others; what the system
/// made of it is looked at all the same.
fn listen_private(path: &Path) -> io::Result<UnixListener> {
    remove_stale(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600))?;
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(path)?)?;
    let mode = std::fs::symlink_metadata(path)?.permissions().mode();
    if mode & 0o177 != 0 {
        std::fs::remove_file(path)?;
        return Err(io::Error::other("the system does not keep it from others"));
    }
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// A socket that nobody listens to is what a killed process left behind.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(e) => Err(e),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process listens there",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpStream};

    /// Guarantee: an address is listened at as long as anybody has it, by one socket, and no longer.
    #[test]
    fn an_address_is_lent_more_than_once() {
        let listeners = Listeners::default();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (first, other) = (listeners.tcp(any).unwrap(), listeners.tcp(any).unwrap());
        assert_ne!(first.local_addr(), other.local_addr());
        let address = first.local_addr().unwrap();
        assert!(!first.is_exposed());
        drop(first);
        assert!(TcpStream::connect(address).is_err());
        let first = listeners.tcp(address).unwrap();
        let second = listeners.tcp(address).unwrap();
        drop(first);
        let Descriptor::Tcp(socket) = second.descriptor().unwrap() else {
            panic!("it is TCP");
        };
        TcpStream::connect(address).unwrap();
        assert!(
            socket.accept().is_ok(),
            "it is the same one, and does not block"
        );
        assert!(listeners.first_tcp(&[]).is_err());
    }

    /// Guarantee: whoever has a socket knows whether another one does, and gets each connection that one left
    /// there, with what was read of it, once.
    #[test]
    fn connections_go_on_with_the_next() {
        let listeners = Listeners::default();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let first = listeners.tcp(any).unwrap();
        assert!(!first.is_shared());
        let address = first.local_addr().unwrap();
        drop(first);
        let first = listeners.tcp(address).unwrap();
        let second = listeners.tcp(address).unwrap();
        assert!(first.is_shared());
        for unread in [b"a", b"b"] {
            let stream = TcpStream::connect(address).unwrap();
            let unread = unread.to_vec();
            let handed = HandedOver { stream, unread };
            assert!(first.downgrade().hand_over(handed).is_ok());
        }
        drop(first);
        assert!(!second.is_shared());
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().unwrap();
        runtime.block_on(async {
            let mut got = [second.handed_over().await, second.handed_over().await]
                .map(|handed| handed.unread);
            got.sort();
            assert_eq!(got, [b"a", b"b"]);
            let soon = std::time::Duration::from_millis(1);
            let more = tokio::time::timeout(soon, second.handed_over()).await;
            assert!(more.is_err(), "each once");
        });
        let weak = second.downgrade();
        let stream = TcpStream::connect(address).unwrap();
        assert!(weak.is_held());
        drop(second);
        assert!(!weak.is_held());
        let unread = Vec::new();
        assert!(weak.hand_over(HandedOver { stream, unread }).is_err());
    }

    /// Guarantee: datagrams that come to a shared socket are there for each who has it; UDP and TCP have
    /// ports of their own.
    #[test]
    fn datagrams_come_to_a_shared_socket() {
        let listeners = Listeners::default();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let first = listeners.udp(any).unwrap();
        let address = first.local_addr().unwrap();
        drop(first);
        let first = listeners.udp(address).unwrap();
        let second = listeners.first_udp(&[address]).unwrap();
        drop(first);
        let Descriptor::Udp(socket) = second.descriptor().unwrap() else {
            panic!("it is UDP");
        };
        let sender = UdpSocket::bind(any).unwrap();
        sender.send_to(b"one", address).unwrap();
        let mut bytes = [0; 8];
        let got = (0..1000).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            socket.recv(&mut bytes).ok()
        });
        assert_eq!(got, Some(3));
        assert!(listeners.first_udp(&[]).is_err());
    }

    /// Guarantee: a socket's name is there as long as somebody listens, one that was left behind is
    /// replaced, and one of somebody else is not.
    #[test]
    fn names_of_sockets_come_and_go_with_them() {
        let dir = std::env::temp_dir().join(format!("lent-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("s");
        drop(UnixListener::bind(&path).unwrap());
        let listeners = Listeners::default();
        let first = listeners.unix(&path).unwrap();
        let second = listeners.unix(&path).unwrap();
        assert!(Listeners::default().unix(&path).is_err());
        let own = dir.join("own");
        let private = listeners.unix_private(&own).unwrap();
        let mode = std::fs::metadata(&own).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(UnixStream::connect(&own).is_ok());
        drop(private);
        drop(first);
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
        assert!(!path.exists());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
