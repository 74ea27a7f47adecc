//! Sockets that listen. They are the agent's and lent to nodes, so that one that takes the place of
//! another at the same address listens before that one stops, and no client is turned away between.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::net::{AddressFamily, SocketType, sockopt};

/// Connections that the kernel keeps for a listener that is busy.
const BACKLOG: i32 = 1024;

/// Who listens where. One per process.
#[derive(Debug, Default)]
pub struct Listeners {
    open: Mutex<Vec<Weak<Open>>>,
}

/// A socket, for as long as somebody has it.
#[derive(Debug)]
enum Open {
    Tcp(SocketAddr, TcpListener),
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

/// A listening socket. Another one for the same address shares it; it is closed with the last of them.
#[derive(Clone, Debug)]
pub struct Lent(Arc<Open>);

/// A descriptor of its own for a [`Lent`] socket, which does not block.
#[derive(Debug)]
pub enum Descriptor {
    /// TCP.
    Tcp(TcpListener),
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
            Open::Tcp(_, socket) => Descriptor::Tcp(socket.try_clone()?),
            Open::Unix(_, socket) => Descriptor::Unix(socket.try_clone()?),
        })
    }

    /// The address, if it is TCP.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &*self.0 {
            Open::Tcp(_, socket) => socket.local_addr().ok(),
            Open::Unix(..) => None,
        }
    }

    /// Where it is, for messages.
    pub fn place(&self) -> String {
        match &*self.0 {
            Open::Tcp(address, _) => self.local_addr().unwrap_or(*address).to_string(),
            Open::Unix(path, _) => format!("unix://{}", path.display()),
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
            address.port() != 0 && matches!(open, Open::Tcp(known, _) if *known == address)
        };
        self.lend(is, || Ok(Open::Tcp(address, listen_tcp(address)?)))
    }

    /// Listens on the first of `addresses` that can be had.
    ///
    /// # Errors
    /// What the system says of the last one.
    pub fn first_tcp(&self, addresses: &[SocketAddr]) -> io::Result<Lent> {
        let none = "the name has no address of this kind";
        let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, none);
        for address in addresses {
            match self.tcp(*address) {
                Ok(lent) => return Ok(lent),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Listens on a socket at `path`. One that a killed process left there is replaced.
    ///
    /// # Errors
    /// What the system says; another process listens there.
    pub fn unix(&self, path: &Path) -> io::Result<Lent> {
        let is = |open: &Open| matches!(open, Open::Unix(known, _) if known == path);
        self.lend(is, || Ok(Open::Unix(path.to_owned(), listen_unix(path)?)))
    }
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
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
        drop(first);
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
        assert!(!path.exists());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
