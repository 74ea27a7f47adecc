//! Opening a connection: name, TCP, proxy, TLS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::endpoint::Endpoint;
use super::names::Names;
use super::proxy::{Proxy, ProxyKind};
use super::socks;
use super::tls::{HTTP2, Protocol, TlsSource};
use crate::delivery::{SendError, SendErrorKind};

/// Largest answer to `CONNECT` that is read.
const CONNECT_ANSWER_BYTES_MAX: usize = 16 << 10;
/// How long one address is waited for before the next is tried beside it (RFC 8305, 5).
const ADDRESS_DELAY: Duration = Duration::from_millis(250);
/// How long what was sent may go without a sign of the peer. With the wait before the next attempt
/// less than 30 s: after that, a server that moved without a word is reached at its new address.
const PEER_SILENT_MAX: Duration = Duration::from_secs(20);
/// How long a connection may be quiet before the peer is asked whether it is there.
const QUIET_MAX: Duration = Duration::from_secs(15);

/// What stands for the address of a peer that has none.
const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A connection, plain or not.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open connection and where it leads: to the server or its proxy.
pub(super) struct Connection {
    pub io: Box<dyn Io>,
    pub peer: SocketAddr,
    /// How TLS was made, if it was.
    pub secured: Option<Arc<ClientConfig>>,
    /// HTTP/2 was agreed on while it was.
    pub http2: bool,
}

/// Dropped before it is settled, which is also what happens when an attempt takes too long, it has
/// other addresses of the name tried before `peer`.
struct Doubt<'a> {
    names: &'a Names,
    peer: Option<SocketAddr>,
}

impl Doubt<'_> {
    fn settled(mut self) {
        self.peer = None;
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if let Some(peer) = self.peer {
            self.names.avoid(peer);
        }
    }
}

/// What opens connections for one client.
pub(super) struct Connector {
    pub names: Names,
    pub tls: TlsSource,
    pub timeout: Duration,
    pub protocol: Protocol,
}

impl Connector {
    /// A connection to `target`, through `proxy` if there is one. For plain HTTP/1.1 one for HTTP
    /// takes the requests itself; for anything else a proxy is asked for a tunnel.
    pub async fn connect(
        &self,
        target: &Endpoint,
        proxy: Option<&Proxy>,
    ) -> Result<Connection, SendError> {
        let takes_it = proxy.is_some_and(Proxy::takes_requests);
        let tunnel = !takes_it || target.https || self.protocol == Protocol::Http2;
        self.connect_by(target, proxy, tunnel).await
    }

    /// As [`Connector::connect`]; a proxy is asked for a `tunnel` or not.
    pub async fn connect_by(
        &self,
        target: &Endpoint,
        proxy: Option<&Proxy>,
        tunnel: bool,
    ) -> Result<Connection, SendError> {
        let deadline = Instant::now() + self.timeout;
        // Boxed, as TLS is large and connecting is rare: whoever sends has room for it otherwise.
        let Some(proxy) = proxy else {
            let (tcp, peer) = self.tcp(target, "", deadline).await?;
            return Box::pin(self.over(target, None, tcp, peer, deadline)).await;
        };
        let (tcp, peer) = self.tcp(&proxy.server, "proxy ", deadline).await?;
        let tunnel = tunnel.then_some(proxy);
        if !proxy.server.https {
            return Box::pin(self.over(target, tunnel, tcp, peer, deadline)).await;
        }
        let (stream, config) = self.secure_proxy(proxy, tcp, peer, deadline).await?;
        let mut connection = Box::pin(self.over(target, tunnel, stream, peer, deadline)).await?;
        connection.secured.get_or_insert(config);
        Ok(connection)
    }

    /// As [`Connector::connect`], to `address` and no other.
    pub async fn connect_at(
        &self,
        target: &Endpoint,
        address: SocketAddr,
    ) -> Result<Connection, SendError> {
        let deadline = Instant::now() + self.timeout;
        let (tcp, peer) = self
            .first_of(vec![address], target.host_port(), deadline)
            .await?;
        Box::pin(self.over(target, None, tcp, peer, deadline)).await
    }

    /// A connection to `target` over the socket in the file system at `path`.
    pub async fn connect_socket(
        &self,
        target: &Endpoint,
        path: &Path,
    ) -> Result<Connection, SendError> {
        let deadline = Instant::now() + self.timeout;
        let fail = |problem: String| {
            connect_error(format!(
                "cannot connect to unix://{}: {problem}",
                path.display()
            ))
        };
        let connecting = timeout_at(deadline, UnixStream::connect(path)).await;
        let stream = connecting
            .map_err(|_| fail("no answer".to_owned()))?
            .map_err(|e| fail(e.to_string()))?;
        if target.https {
            return self.secure(target, stream, NO_ADDRESS, deadline).await;
        }
        Ok(Connection {
            io: Box::new(stream),
            peer: NO_ADDRESS,
            secured: None,
            http2: false,
        })
    }

    /// Makes of a connection what is wanted; first a tunnel through the proxy `tunnel` that it leads to.
    async fn over(
        &self,
        target: &Endpoint,
        tunnel: Option<&Proxy>,
        mut stream: impl Io + 'static,
        peer: SocketAddr,
        deadline: Instant,
    ) -> Result<Connection, SendError> {
        let doubt = Doubt {
            names: &self.names,
            peer: Some(peer),
        };
        if let Some(proxy) = tunnel {
            let tunnel = tunnel_through(proxy, &mut stream, target);
            let slow = || connect_error(format!("proxy {proxy}: no answer to CONNECT"));
            timeout_at(deadline, tunnel).await.map_err(|_| slow())??;
        }
        if !target.https {
            doubt.settled();
            return Ok(Connection {
                io: Box::new(stream),
                peer,
                secured: None,
                http2: false,
            });
        }
        let connection = self.secure(target, stream, peer, deadline).await?;
        doubt.settled();
        Ok(connection)
    }

    /// TLS with a proxy: as with the server, but with its own name and in HTTP/1.1. Also tells what it was made by.
    async fn secure_proxy(
        &self,
        proxy: &Proxy,
        tcp: TcpStream,
        peer: SocketAddr,
        deadline: Instant,
    ) -> Result<(impl Io + 'static, Arc<ClientConfig>), SendError> {
        let doubt = Doubt {
            names: &self.names,
            peer: Some(peer),
        };
        let with = format!("proxy {proxy}");
        let config = self.tls_config()?;
        let mut own = ClientConfig::clone(&config);
        own.alpn_protocols.clear();
        let name = ServerName::try_from(proxy.server.host.clone())
            .map_err(|_| tls_error(&with, "not a name that a certificate can have"))?;
        let stream = self
            .handshake(&with, name, Arc::new(own), tcp, deadline)
            .await?;
        doubt.settled();
        Ok((stream, config))
    }

    /// TLS with `target` over `stream`.
    async fn secure(
        &self,
        target: &Endpoint,
        stream: impl Io + 'static,
        peer: SocketAddr,
        deadline: Instant,
    ) -> Result<Connection, SendError> {
        let with = target.host_port();
        let name = self.tls.server_name(&target.host);
        let name = name.map_err(|problem| tls_error(&with, &problem))?;
        let config = self.tls_config()?;
        let stream = self
            .handshake(&with, name, config.clone(), stream, deadline)
            .await?;
        let session = stream.get_ref().1;
        self.tls
            .server_showed(session.peer_certificates().unwrap_or_default());
        let http2 = session.alpn_protocol() == Some(HTTP2);
        if self.protocol == Protocol::Http2 && !http2 {
            return Err(tls_error(&with, "the server does not speak HTTP/2"));
        }
        Ok(Connection {
            io: Box::new(stream),
            peer,
            secured: Some(config),
            http2,
        })
    }

    fn tls_config(&self) -> Result<Arc<ClientConfig>, SendError> {
        let config = self.tls.current();
        config.map_err(|e| SendError::new(SendErrorKind::Config, e.to_string()))
    }

    /// TLS over `stream` with what calls itself `name`, and is `with` in errors.
    async fn handshake<S: Io>(
        &self,
        with: &str,
        name: ServerName<'static>,
        config: Arc<ClientConfig>,
        stream: S,
        deadline: Instant,
    ) -> Result<TlsStream<S>, SendError> {
        let handshake = TlsConnector::from(config).connect(name, stream);
        match timeout_at(deadline, handshake).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(e)) if is_tls_refusal(&e) => Err(tls_error(with, &e.to_string())),
            Ok(Err(e)) => Err(connect_error(format!("TLS with {with}: {e}"))),
            Err(_) => Err(connect_error(format!(
                "TLS with {with}: no handshake within {:?}",
                self.timeout
            ))),
        }
    }

    /// Tries the addresses of `server`, the next one as soon as one fails or takes its time, until
    /// one answers.
    async fn tcp(
        &self,
        server: &Endpoint,
        what: &str,
        deadline: Instant,
    ) -> Result<(TcpStream, SocketAddr), SendError> {
        let name = format!("{what}{}", server.host_port());
        let found = timeout_at(deadline, self.names.addresses(server)).await;
        let found = found.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let addresses = found.map_err(|e| connect_error(format!("cannot resolve {name}: {e}")))?;
        self.first_of(addresses, name, deadline).await
    }

    /// Tries `addresses` of `name`, see [`Connector::tcp`].
    async fn first_of(
        &self,
        addresses: Vec<SocketAddr>,
        name: String,
        deadline: Instant,
    ) -> Result<(TcpStream, SocketAddr), SendError> {
        let mut left = addresses.into_iter();
        let mut silent = Vec::new();
        let mut trying = JoinSet::new();
        let mut problems = Vec::new();
        loop {
            if let Some(address) = left.next() {
                silent.push(address);
                trying.spawn(async move { (address, TcpStream::connect(address).await) });
            }
            let wait = match left.len() {
                0 => deadline,
                _ => deadline.min(Instant::now() + ADDRESS_DELAY),
            };
            tokio::select! {
                result = trying.join_next() => match result {
                    Some(Ok((address, Ok(stream)))) => {
                        let told = tell_kernel(&stream);
                        told.map_err(|e| connect_error(format!("{name}: {e}")))?;
                        silent.retain(|a| *a != address);
                        silent.into_iter().for_each(|a| self.names.avoid(a));
                        return Ok((stream, address));
                    }
                    Some(Ok((address, Err(e)))) => {
                        silent.retain(|a| *a != address);
                        self.names.avoid(address);
                        problems.push(format!("{address}: {e}"));
                    }
                    Some(Err(_)) => {}
                    None => break,
                },
                () = sleep_until(wait) => {
                    if wait == deadline {
                        break;
                    }
                }
            }
        }
        for address in silent {
            self.names.avoid(address);
            problems.push(format!("{address}: no answer"));
        }
        Err(connect_error(format!(
            "cannot connect to {name}: {}",
            problems.join("; ")
        )))
    }
}

/// What the kernel has to know of a connection.
fn tell_kernel(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    // Bodies are written whole; waiting to fill segments would only delay them.
    stream.set_nodelay(true)?;
    let silent = u32::try_from(PEER_SILENT_MAX.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, silent)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, QUIET_MAX)?;
    sockopt::set_tcp_keepintvl(stream, PEER_SILENT_MAX / 4)?;
    Ok(())
}

fn connect_error(message: String) -> SendError {
    SendError::new(SendErrorKind::Connect, message)
}

fn tls_error(with: &str, problem: &str) -> SendError {
    SendError::new(SendErrorKind::Tls, format!("TLS with {with}: {problem}"))
}

/// True if one side refused the other's certificate or version, rather than the network failing.
pub(super) fn is_tls_refusal(e: &io::Error) -> bool {
    e.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

/// Asks the proxy at the other end of `stream` for a tunnel, in its way.
async fn tunnel_through(
    proxy: &Proxy,
    stream: &mut impl Io,
    target: &Endpoint,
) -> Result<(), SendError> {
    match &proxy.kind {
        ProxyKind::Http => open_tunnel(stream, target, proxy.server.basic.as_ref()).await,
        ProxyKind::Socks(login) => {
            let opened = socks::open(stream, target, login.as_ref()).await;
            let name = target.host_port();
            opened.map_err(|e| connect_error(format!("CONNECT {name} through {proxy}: {e}")))
        }
    }
}

/// Asks a proxy for a tunnel (RFC 9110, 9.3.6).
async fn open_tunnel(
    stream: &mut impl Io,
    target: &Endpoint,
    credentials: Option<&HeaderValue>,
) -> Result<(), SendError> {
    let name = target.host_port();
    let broken = |e: io::Error| connect_error(format!("CONNECT {name} through the proxy: {e}"));
    let mut ask = format!("CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n").into_bytes();
    if let Some(value) = credentials {
        ask.extend_from_slice(b"Proxy-Authorization: ");
        ask.extend_from_slice(value.as_bytes());
        ask.extend_from_slice(b"\r\n");
    }
    ask.extend_from_slice(b"\r\n");
    stream.write_all(&ask).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= CONNECT_ANSWER_BYTES_MAX {
            return Err(connect_error(format!(
                "CONNECT {name}: the proxy's answer is too long"
            )));
        }
        // Byte by byte: what follows the answer belongs to the tunnel.
        answer.push(stream.read_u8().await.map_err(broken)?);
    }
    let line = answer.split(|b| *b == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let status = line.split(' ').nth(1).unwrap_or_default();
    if line.starts_with("HTTP/1.") && status.len() == 3 && status.starts_with('2') {
        return Ok(());
    }
    let shown: String = line.chars().filter(|c| !c.is_control()).take(200).collect();
    Err(connect_error(format!(
        "CONNECT {name}: the proxy answered {shown:?}"
    )))
}
