//! Opens listeners: addresses of names, and sockets in the file system.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::runtime::Handle;

use super::config::{Endpoint, Family, Listen};

/// Connections that the kernel keeps for a listener that is busy.
const BACKLOG: u32 = 1024;

/// An open listener.
pub enum Bound {
    /// TCP.
    Tcp(TcpListener),
    /// A socket in the file system, removed on drop.
    Unix(UnixListener, SocketFile),
}

/// The name of a socket.
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Bound {
    /// Whether others than this machine reach it.
    pub fn is_exposed(&self) -> bool {
        match self {
            Bound::Tcp(listener) => listener
                .local_addr()
                .map_or(true, |addr| !addr.ip().to_canonical().is_loopback()),
            Bound::Unix(..) => false,
        }
    }

    /// Where it is, for messages.
    pub fn place(&self) -> String {
        match self {
            Bound::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|e| e.to_string(), |addr| addr.to_string()),
            Bound::Unix(_, file) => format!("unix://{}", file.0.display()),
        }
    }

    /// Its port, if it has one.
    pub fn port(&self) -> Option<u16> {
        match self {
            Bound::Tcp(listener) => Some(listener.local_addr().ok()?.port()),
            Bound::Unix(..) => None,
        }
    }
}

/// Opens a listener for `runtime`. Names are looked up by `names`: the thread for sockets alone may
/// read what that takes.
///
/// # Errors
/// What the system says.
pub fn bind(listen: &Listen, runtime: &Handle, names: &Handle) -> io::Result<Bound> {
    let _entered = runtime.enter();
    match &listen.endpoint {
        Endpoint::Unix(path) => bind_unix(path),
        Endpoint::Tcp { host, port } => {
            let addresses = addresses(host, *port, listen.family, names)?;
            let mut last = io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                "the name has no address of this kind",
            );
            for address in addresses {
                match bind_tcp(address) {
                    Ok(listener) => return Ok(Bound::Tcp(listener)),
                    Err(e) => last = e,
                }
            }
            Err(last)
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bind_unix(path: &Path) -> io::Result<Bound> {
    remove_stale(path)?;
    let listener = UnixListener::bind(path)?;
    Ok(Bound::Unix(listener, SocketFile(path.to_path_buf())))
}

/// A socket that nobody listens to is what a killed process left behind.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(e) => Err(e),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process listens there",
        )),
    }
}

fn addresses(host: &str, port: u16, family: Family, names: &Handle) -> io::Result<Vec<SocketAddr>> {
    let any_v6 = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    let any_v4 = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    let found = match (host, host.parse::<IpAddr>()) {
        // On Linux the first one listens on IPv4, too; without IPv6 there is the second.
        ("", _) => vec![any_v6, any_v4],
        (_, Ok(address)) => vec![address],
        (_, Err(_)) => look_up(host, names)?,
    };
    let fits = |address: &IpAddr| match family {
        Family::Any => true,
        Family::V4 => address.is_ipv4(),
        Family::V6 => address.is_ipv6(),
    };
    let found = found.into_iter().filter(fits);
    Ok(found.map(|ip| SocketAddr::new(ip, port)).collect())
}

fn look_up(host: &str, names: &Handle) -> io::Result<Vec<IpAddr>> {
    let (tell, told) = std::sync::mpsc::channel();
    let host = host.to_owned();
    names.spawn(async move {
        let found = tokio::net::lookup_host((host, 0)).await;
        let found = found.map(|all| all.map(|a| a.ip()).collect());
        // Nobody waits any more only if the agent has ended.
        let _ = tell.send(found);
    });
    let ended = |_| io::Error::other("the thread for sockets has ended");
    let mut found: Vec<IpAddr> = told.recv().map_err(ended)??;
    // As the collector: IPv4 of a name that has both.
    found.sort_by_key(IpAddr::is_ipv6);
    Ok(found)
}
