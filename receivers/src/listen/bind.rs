//! Opens listeners: addresses of names, and sockets in the file system.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tailwater_pipeline::listeners::{Descriptor, Lent, Listeners};
use tokio::net::{TcpListener, UdpSocket, UnixListener};
use tokio::runtime::Handle;

use super::endpoint::{Endpoint, Family, Listen};

/// A listener that accepts.
pub struct Bound {
    /// What it accepts with.
    pub socket: Socket,
    /// Closed with the last who has it.
    lent: Lent,
}

/// See [`Bound`].
pub enum Socket {
    /// TCP.
    Tcp(TcpListener),
    /// A socket in the file system.
    Unix(UnixListener),
}

impl Bound {
    /// Accepts on `runtime` what comes to `lent`.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(lent: Lent, runtime: &Handle) -> io::Result<Bound> {
        let _entered = runtime.enter();
        let socket = match lent.descriptor()? {
            Descriptor::Tcp(socket) => Socket::Tcp(TcpListener::from_std(socket)?),
            Descriptor::Unix(socket) => Socket::Unix(UnixListener::from_std(socket)?),
            Descriptor::Udp(_) => {
                return Err(io::Error::other("there are no connections over UDP"));
            }
        };
        Ok(Bound { socket, lent })
    }

    /// What it was made of.
    pub fn lent(&self) -> &Lent {
        &self.lent
    }
}

/// A socket that gets datagrams.
pub struct Datagrams {
    /// What gets them.
    pub socket: UdpSocket,
    /// Closed with the last who has it.
    lent: Lent,
}

impl Datagrams {
    /// Gets on `runtime` what comes to `lent`.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(lent: Lent, runtime: &Handle) -> io::Result<Datagrams> {
        let _entered = runtime.enter();
        match lent.descriptor()? {
            Descriptor::Udp(socket) => Ok(Datagrams {
                socket: UdpSocket::from_std(socket)?,
                lent,
            }),
            _ => Err(io::Error::other("it is a socket for connections")),
        }
    }

    /// What it was made of.
    pub fn lent(&self) -> &Lent {
        &self.lent
    }
}

/// Opens a socket for datagrams. Names are looked up as by [`open`].
///
/// # Errors
/// What the system says.
pub fn open_datagrams(listen: &Listen, listeners: &Listeners, names: &Handle) -> io::Result<Lent> {
    match &listen.endpoint {
        Endpoint::Unix(_) => Err(io::Error::other("datagrams need host:port")),
        Endpoint::Address { host, port } => {
            listeners.first_udp(&addresses(host, *port, listen.family, names)?)
        }
    }
}

/// Opens a socket. Names are looked up by `names`: the thread for sockets alone may read what that
/// takes.
///
/// # Errors
/// What the system says.
pub fn open(listen: &Listen, listeners: &Listeners, names: &Handle) -> io::Result<Lent> {
    match &listen.endpoint {
        Endpoint::Unix(path) => listeners.unix(path),
        Endpoint::Address { host, port } => {
            listeners.first_tcp(&addresses(host, *port, listen.family, names)?)
        }
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
