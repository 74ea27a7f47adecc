//! Opening a connection: name, TCP, proxy, TLS.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::endpoint::Endpoint;
use super::tls::TlsSource;
use crate::delivery::{SendError, SendErrorKind};

/// Largest answer to `CONNECT` that is read.
const CONNECT_ANSWER_BYTES_MAX: usize = 16 << 10;
/// Least time that one address gets, if there is that much left.
const ADDRESS_TIME_MIN: Duration = Duration::from_millis(250);

/// The addresses of a host, in the order to try them.
pub type Addresses<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Finds addresses. Asked anew for every connection.
pub trait Resolver: Send + Sync {
    /// The addresses of `host` with `port`.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Addresses<'a>;
}

/// The system's resolver (`getaddrinfo`), on tokio's blocking threads.
#[derive(Debug, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Addresses<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// A connection, plain or not.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What opens connections for one client.
pub(super) struct Connector {
    pub resolver: Arc<dyn Resolver>,
    pub tls: TlsSource,
    pub timeout: Duration,
}

impl Connector {
    /// A connection to `target`, through `proxy` if there is one. For a plain target the proxy
    /// speaks HTTP itself; for TLS it is asked for a tunnel.
    pub async fn connect(
        &self,
        target: &Endpoint,
        proxy: Option<&Endpoint>,
    ) -> Result<Box<dyn Io>, SendError> {
        let deadline = Instant::now() + self.timeout;
        let tcp = match proxy {
            None => self.tcp(target, "", deadline).await?,
            Some(proxy) => {
                let mut tcp = self.tcp(proxy, "proxy ", deadline).await?;
                if target.https {
                    let tunnel = open_tunnel(&mut tcp, target, proxy.basic.as_ref());
                    let slow = || connect_error(format!("proxy {proxy}: no answer to CONNECT"));
                    timeout_at(deadline, tunnel).await.map_err(|_| slow())??;
                }
                tcp
            }
        };
        if !target.https {
            return Ok(Box::new(tcp));
        }
        let fail = |problem: String| {
            let name = target.host_port();
            SendError::new(SendErrorKind::Tls, format!("TLS with {name}: {problem}"))
        };
        let name = self.tls.server_name(&target.host).map_err(fail)?;
        let config = self.tls.current();
        let config = config.map_err(|e| SendError::new(SendErrorKind::Config, e.to_string()))?;
        let handshake = TlsConnector::from(config).connect(name, tcp);
        match timeout_at(deadline, handshake).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(e)) if is_tls_refusal(&e) => Err(fail(e.to_string())),
            Ok(Err(e)) => Err(connect_error(format!(
                "TLS with {}: {e}",
                target.host_port()
            ))),
            Err(_) => Err(connect_error(format!(
                "TLS with {}: no handshake within {:?}",
                target.host_port(),
                self.timeout
            ))),
        }
    }

    /// Tries every address of `server` until one answers.
    async fn tcp(
        &self,
        server: &Endpoint,
        what: &str,
        deadline: Instant,
    ) -> Result<TcpStream, SendError> {
        let name = format!("{what}{}", server.host_port());
        let addresses = self.addresses(server, &name, deadline).await?;
        let mut problems = Vec::new();
        for (i, address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / (addresses.len() - i) as u32;
            let until = Instant::now() + share.max(ADDRESS_TIME_MIN.min(left));
            match timeout_at(until, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Bodies are written whole; waiting to fill segments would only delay them.
                    stream
                        .set_nodelay(true)
                        .map_err(|e| connect_error(format!("{name}: {e}")))?;
                    return Ok(stream);
                }
                Ok(Err(e)) => problems.push(format!("{address}: {e}")),
                Err(_) => problems.push(format!("{address}: no answer")),
            }
        }
        Err(connect_error(format!(
            "cannot connect to {name}: {}",
            problems.join("; ")
        )))
    }

    async fn addresses(
        &self,
        server: &Endpoint,
        name: &str,
        deadline: Instant,
    ) -> Result<Vec<SocketAddr>, SendError> {
        if let Ok(ip) = server.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, server.port)]);
        }
        let found = self.resolver.resolve(&server.host, server.port);
        match timeout_at(deadline, found).await {
            Ok(Ok(addresses)) if addresses.is_empty() => Err(connect_error(format!(
                "cannot resolve {name}: it has no address"
            ))),
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(e)) => Err(connect_error(format!("cannot resolve {name}: {e}"))),
            Err(_) => Err(connect_error(format!(
                "cannot resolve {name}: no answer in time"
            ))),
        }
    }
}

fn connect_error(message: String) -> SendError {
    SendError::new(SendErrorKind::Connect, message)
}

/// True if one side refused the other's certificate or version, rather than the network failing.
fn is_tls_refusal(e: &io::Error) -> bool {
    e.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

/// Asks a proxy for a tunnel (RFC 9110, 9.3.6).
async fn open_tunnel(
    tcp: &mut TcpStream,
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
    tcp.write_all(&ask).await.map_err(broken)?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= CONNECT_ANSWER_BYTES_MAX {
            return Err(connect_error(format!(
                "CONNECT {name}: the proxy's answer is too long"
            )));
        }
        // Byte by byte: what follows the answer belongs to the tunnel.
        answer.push(tcp.read_u8().await.map_err(broken)?);
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
