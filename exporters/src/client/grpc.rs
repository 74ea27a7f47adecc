//! gRPC calls with one request and one answer, over HTTP/2.
//!
//! Wire format: "gRPC over HTTP2" of the gRPC project. A message is five bytes of prefix (whether it
//! is compressed, and its length) and its bytes; what became of the call is in the trailers, or in the
//! headers of an answer without a message.
//!
//! Calls share connections: one to an address of the name that answers, or one to each of them, by
//! turns. A connection that ended, whose server is on its way out, or whose name or certificates
//! moved is replaced with the next call.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE, USER_AGENT};
use hyper::{HeaderMap, Method, Request, Response, Uri};

use tailwater_pipeline::auth::Authenticators;
use tailwater_pipeline::connections::Connections;

use super::auth::Credentials;
use super::body::Chunks;
use super::connect::{Connection, Connector};
use super::endpoint::Endpoint;
use super::expiry::Expiry;
use super::grpc_options::{Balancer, GrpcOptions};
use super::http::{broken, config_error, in_time};
use super::http2::{self, Channel, Ping};
use super::names::{Names, Resolver, SystemResolver};
use super::proxy::{Proxy, ProxyEnv};
use super::tls::{Protocol, TlsSource};
use super::{ClientError, proxy::ProxyError};
use crate::delivery::{Reply, SendError, SendErrorKind, Transport};

/// Largest message of an answer that is read, as gRPC has it by default.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Bytes in front of a message.
const PREFIX_BYTES: usize = 5;
/// The wait before connecting again, where a call waits for a server.
const CONNECT_PAUSE: Duration = Duration::from_millis(250);

/// The header that names how messages are compressed.
pub const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// What a client is made of.
pub struct GrpcParts {
    /// Its options.
    pub options: GrpcOptions,
    /// The extensions that `auth::authenticator` may name.
    pub authenticators: Authenticators,
    /// The environment's proxies.
    pub proxy_env: ProxyEnv,
    /// Finds addresses.
    pub resolver: Arc<dyn Resolver>,
    /// Value of the `user-agent` header, if the options name none.
    pub user_agent: String,
    /// Shows when certificates end.
    pub expiry: Option<Expiry>,
    /// Among whose connections those of the client before it may be, and whose they are; `None`: it has its own.
    pub kept: Option<(Arc<Connections>, String)>,
}

impl GrpcParts {
    /// The usual parts: the process's environment, the system's resolver, our name.
    pub fn new(options: GrpcOptions) -> GrpcParts {
        GrpcParts {
            options,
            authenticators: Authenticators::default(),
            proxy_env: ProxyEnv::of_process(),
            resolver: Arc::new(SystemResolver),
            user_agent: super::user_agent(),
            expiry: None,
            kept: None,
        }
    }
}

/// What a client has open, and opens more with: it may outlive the client.
struct Open {
    /// What it depends on.
    options: GrpcOptions,
    connector: Connector,
    channels: Mutex<Vec<Channel>>,
    serial: AtomicU64,
    /// Whose turn it is.
    turn: AtomicUsize,
    /// Held while a connection is made, so that calls share it.
    connecting: tokio::sync::Mutex<()>,
}

impl Open {
    /// Nothing is connected yet.
    fn new(
        o: GrpcOptions,
        resolver: Arc<dyn Resolver>,
        expiry: Option<Expiry>,
    ) -> Result<Open, ClientError> {
        Ok(Open {
            connector: Connector {
                names: Names::new(resolver),
                tls: TlsSource::new(o.tls.clone(), Protocol::Http2, expiry)?,
                timeout: o.connect_timeout,
                protocol: Protocol::Http2,
            },
            channels: Mutex::default(),
            serial: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
            connecting: tokio::sync::Mutex::default(),
            options: o,
        })
    }
}

/// A client of one server, which may have several addresses.
pub struct GrpcClient {
    endpoint: Endpoint,
    /// The server's socket in the file system.
    socket: Option<PathBuf>,
    open: Arc<Open>,
    credentials: Credentials,
    headers: HeaderMap,
    authority: String,
    proxy_env: ProxyEnv,
    options: Calls,
}

/// How calls are made.
struct Calls {
    timeout: Duration,
    balancer: Balancer,
    wait_for_ready: bool,
    keepalive: Option<super::grpc_options::Keepalive>,
}

impl GrpcClient {
    /// Builds a client; connects to nothing. Reads certificate and secret files, so that mistakes
    /// show here.
    pub fn new(parts: GrpcParts) -> Result<GrpcClient, ClientError> {
        let o = parts.options;
        let mut headers = super::grpc_options::metadata(&o.headers)?;
        let agent = o.user_agent.clone().unwrap_or(parts.user_agent);
        let agent = HeaderValue::from_str(&agent).map_err(|_| ClientError::Header {
            name: "user-agent".into(),
            problem: "not a header value",
        })?;
        headers.entry(USER_AGENT).or_insert(agent);
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let of_connections = o.of_connections();
        let open = || Open::new(of_connections.clone(), parts.resolver, parts.expiry);
        let open = match &parts.kept {
            Some((all, owner)) => all.of(owner, |o: &Open| o.options == of_connections, open)?,
            None => Arc::new(open()?),
        };
        Ok(GrpcClient {
            open,
            authority: o.authority.unwrap_or_else(|| o.endpoint.authority()),
            endpoint: o.endpoint,
            socket: o.socket,
            credentials: Credentials::new(&o.auth, &parts.authenticators)
                .map_err(ClientError::Auth)?,
            headers,
            proxy_env: parts.proxy_env,
            options: Calls {
                timeout: o.timeout,
                balancer: o.balancer,
                wait_for_ready: o.wait_for_ready,
                keepalive: o.keepalive,
            },
        })
    }

    fn channels(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.open.channels.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Calls `method` (`/package.Service/Method`) with a message in chunks, which is compressed if
    /// `own` has [`GRPC_ENCODING`]. The answer's headers are those in front of the message and the
    /// trailers together; its body is the message. Must run on a tokio runtime.
    ///
    /// If a connection that was used before turns out to be gone before the server answered
    /// anything, the call is made once more.
    pub async fn call(
        &self,
        method: &str,
        own: &HeaderMap,
        message: Vec<Bytes>,
    ) -> Result<Reply, SendError> {
        let attempt = pin!(self.attempt(method, own, message));
        in_time(self.options.timeout, &self.endpoint, attempt).await
    }

    async fn attempt(
        &self,
        method: &str,
        own: &HeaderMap,
        message: Vec<Bytes>,
    ) -> Result<Reply, SendError> {
        let mut body = Vec::with_capacity(message.len() + 1);
        body.push(prefix(own.contains_key(GRPC_ENCODING), &message)?);
        body.extend(message);
        let headers = self.all_headers(own)?;
        loop {
            let (channel, is_new) = self.channel().await?;
            let request = self.request(method, &headers, body.clone())?;
            match self.exchange(&channel, request).await {
                Ok(reply) => return Ok(reply),
                Err(Failure::Gone(_)) if !is_new => self.forget(&channel),
                Err(Failure::Gone(e)) => {
                    self.forget(&channel);
                    self.open.connector.names.avoid(channel.peer);
                    return Err(e);
                }
                Err(Failure::Other(e)) => return Err(e),
            }
        }
    }

    fn request(
        &self,
        method: &str,
        headers: &HeaderMap,
        body: Vec<Bytes>,
    ) -> Result<Request<Chunks>, SendError> {
        let uri = Uri::builder()
            .scheme(self.endpoint.scheme())
            .authority(self.authority.as_str())
            .path_and_query(method)
            .build();
        let uri = uri.map_err(|e| config_error(format!("{}: {e}", self.endpoint)))?;
        let mut request = Request::new(Chunks::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers.clone();
        Ok(request)
    }

    /// The exporter's headers, then credentials, then the configured ones, then what an extension makes of
    /// them.
    fn all_headers(&self, own: &HeaderMap) -> Result<HeaderMap, SendError> {
        let mut headers = own.clone();
        self.credentials
            .add_to(&mut headers, self.endpoint.basic.as_ref())
            .map_err(config_error)?;
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        self.credentials
            .finish(&mut headers)
            .map_err(config_error)?;
        if !self.options.timeout.is_zero() {
            headers.insert(GRPC_TIMEOUT, timeout_value(self.options.timeout));
        }
        Ok(headers)
    }

    /// Like the tools that gRPC users have: what `HTTPS_PROXY` names, also for plain connections,
    /// as a proxy can only be asked for a tunnel.
    fn proxy(&self) -> Result<Option<Proxy>, ProxyError> {
        self.proxy_env.proxy_for(&self.endpoint.with_tls())
    }

    /// A connection for the next call, and whether it was made for it.
    async fn channel(&self) -> Result<(Channel, bool), SendError> {
        let proxy = self.proxy().map_err(|e| config_error(e.to_string()))?;
        loop {
            let made = match (&proxy, self.options.balancer) {
                _ if self.socket.is_some() => self.any(&self.endpoint, None).await,
                (Some(proxy), _) => self.any(&proxy.server, Some(proxy)).await,
                (None, Balancer::PickFirst) => self.any(&self.endpoint, None).await,
                (None, Balancer::RoundRobin) => self.next_address().await,
            };
            match made {
                Err(e) if self.options.wait_for_ready && e.kind == SendErrorKind::Connect => {
                    // Until the time of the call is over.
                    tokio::time::sleep(CONNECT_PAUSE).await;
                }
                made => return made,
            }
        }
    }

    /// The connection there is, or a new one to the first address that answers. `server` is where
    /// connections lead.
    async fn any(
        &self,
        server: &Endpoint,
        proxy: Option<&Proxy>,
    ) -> Result<(Channel, bool), SendError> {
        let fixed = self.socket.is_some();
        let usable = |c: &Channel| fixed || self.open.connector.names.is_current(server, c.peer);
        if let Some(channel) = self.find(usable) {
            return Ok((channel, false));
        }
        let _one = self.open.connecting.lock().await;
        if let Some(channel) = self.find(usable) {
            return Ok((channel, false));
        }
        // Calls under way on others go on.
        self.channels().retain(|c| usable(c));
        let connection = match &self.socket {
            Some(path) => {
                self.open
                    .connector
                    .connect_socket(&self.endpoint, path)
                    .await?
            }
            None => self.open.connector.connect(&self.endpoint, proxy).await?,
        };
        Ok((self.open(connection).await?, true))
    }

    /// The connection to the address whose turn it is. An address that cannot be reached is passed
    /// over.
    async fn next_address(&self) -> Result<(Channel, bool), SendError> {
        let names = &self.open.connector.names;
        let addresses = names.current(&self.endpoint).await;
        let addresses = addresses.map_err(|e| {
            let message = format!("cannot resolve {}: {e}", self.endpoint.host_port());
            SendError::new(SendErrorKind::Connect, message)
        })?;
        self.channels().retain(|c| addresses.contains(&c.peer));
        let first = self.open.turn.fetch_add(1, Ordering::Relaxed);
        let mut last = None;
        for i in 0..addresses.len() {
            let address = addresses[(first + i) % addresses.len()];
            match self.at(address).await {
                Err(e) if e.kind == SendErrorKind::Connect => last = Some(e),
                found => return found,
            }
        }
        Err(last.unwrap_or_else(|| {
            SendError::new(SendErrorKind::Connect, "there is no address to connect to")
        }))
    }

    async fn at(&self, address: SocketAddr) -> Result<(Channel, bool), SendError> {
        let there = |c: &Channel| c.peer == address;
        if let Some(channel) = self.find(there) {
            return Ok((channel, false));
        }
        let _one = self.open.connecting.lock().await;
        if let Some(channel) = self.find(there) {
            return Ok((channel, false));
        }
        let connection = self
            .open
            .connector
            .connect_at(&self.endpoint, address)
            .await?;
        Ok((self.open(connection).await?, true))
    }

    /// A connection that works and that `wanted` wants.
    fn find(&self, wanted: impl Fn(&Channel) -> bool) -> Option<Channel> {
        let mut channels = self.channels();
        channels.retain(|c| !c.is_closed() && self.open.connector.tls.is_current(&c.secured));
        channels.iter().find(|c| wanted(c)).cloned()
    }

    fn forget(&self, channel: &Channel) {
        self.channels().retain(|c| !c.is(channel));
    }

    async fn open(&self, connection: Connection) -> Result<Channel, SendError> {
        let ping = self.options.keepalive.map(|k| Ping {
            after: k.time,
            timeout: k.timeout,
            while_idle: k.permit_without_stream,
        });
        let serial = self.open.serial.fetch_add(1, Ordering::Relaxed);
        let opened = Channel::open(&http2::builder(ping), connection, serial).await;
        let channel = opened.map_err(|e| broken(&self.endpoint, &e))?;
        self.channels().push(channel.clone());
        Ok(channel)
    }

    /// One call over one connection.
    async fn exchange(
        &self,
        channel: &Channel,
        request: Request<Chunks>,
    ) -> Result<Reply, Failure> {
        // The attempt is dropped when its time is over.
        let mut silence = Silence {
            client: self,
            channel: Some(channel),
            answers: channel.answers(),
        };
        let answer = match channel.send(request).await {
            Ok(response) => read(response).await,
            Err(e) => {
                silence.channel = None;
                let error = broken(&self.endpoint, &e);
                return Err(match http2::is_gone(&e) {
                    true => Failure::Gone(error),
                    false => Failure::Other(error),
                });
            }
        };
        silence.channel = None;
        answer.map_err(|problem| match problem {
            ReadError::Http(e) => Failure::Other(broken(&self.endpoint, &e)),
            ReadError::TooLong => {
                let message = format!(
                    "{}: the answer is longer than {MESSAGE_BYTES_MAX} bytes",
                    self.endpoint
                );
                Failure::Other(SendError::new(SendErrorKind::Broken, message))
            }
        })
    }

    /// Connections now.
    #[cfg(test)]
    pub(super) fn open_connections(&self) -> usize {
        let mut channels = self.channels();
        channels.retain(|c| !c.is_closed());
        channels.len()
    }
}

/// Dropped with a connection over which nobody got any answer meanwhile, it says that the server is
/// silent: the connection is not used again, and other addresses are tried before this one.
struct Silence<'a> {
    client: &'a GrpcClient,
    channel: Option<&'a Channel>,
    answers: u64,
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        if let Some(channel) = self.channel
            && channel.answers() == self.answers
        {
            self.client.forget(channel);
            self.client.open.connector.names.avoid(channel.peer);
        }
    }
}

enum Failure {
    /// The connection is gone and nothing of an answer came.
    Gone(SendError),
    Other(SendError),
}

enum ReadError {
    Http(hyper::Error),
    TooLong,
}

async fn read(response: Response<Incoming>) -> Result<Reply, ReadError> {
    let (head, mut incoming) = response.into_parts();
    let mut headers = head.headers;
    let mut body = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let frame = match frame.map_err(ReadError::Http)?.into_data() {
            Ok(data) => {
                if body.len() + data.len() > PREFIX_BYTES + MESSAGE_BYTES_MAX {
                    return Err(ReadError::TooLong);
                }
                body.extend_from_slice(&data);
                continue;
            }
            Err(frame) => frame,
        };
        if let Ok(trailers) = frame.into_trailers() {
            for name in trailers.keys() {
                headers.remove(name);
            }
            headers.extend(trailers);
        }
    }
    Ok(Reply {
        status: head.status,
        headers,
        body: body.freeze(),
        truncated: false,
    })
}

/// What stands in front of a message.
fn prefix(compressed: bool, message: &[Bytes]) -> Result<Bytes, SendError> {
    let length: usize = message.iter().map(Bytes::len).sum();
    let length = u32::try_from(length)
        .map_err(|_| config_error(format!("a message of {length} bytes cannot be sent")))?;
    let mut prefix = BytesMut::with_capacity(PREFIX_BYTES);
    prefix.put_u8(u8::from(compressed));
    prefix.put_u32(length);
    Ok(prefix.freeze())
}

/// Splits an answer's body: whether its message is compressed, and the message. `None` if it is no
/// whole message.
pub fn message(body: &Bytes) -> Option<(bool, Bytes)> {
    let flag = *body.first()?;
    let length = u32::from_be_bytes(body.get(1..PREFIX_BYTES)?.try_into().ok()?);
    let end = PREFIX_BYTES.checked_add(usize::try_from(length).ok()?)?;
    (flag <= 1 && end <= body.len()).then(|| (flag == 1, body.slice(PREFIX_BYTES..end)))
}

/// At most eight digits and a unit.
fn timeout_value(timeout: Duration) -> HeaderValue {
    let millis = timeout.as_millis();
    let text = match millis {
        0..=99_999_999 => format!("{}m", millis.max(1)),
        _ => format!("{}S", timeout.as_secs().min(99_999_999)),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("99999999S"))
}

/// Makes the requests of a [`Delivery`](crate::delivery::Delivery) calls of one method.
pub struct GrpcSender {
    client: Arc<GrpcClient>,
    method: &'static str,
}

impl GrpcSender {
    /// A sender that calls `method`, such as `/package.Service/Method`.
    pub fn new(client: Arc<GrpcClient>, method: &'static str) -> GrpcSender {
        GrpcSender { client, method }
    }
}

impl Transport for GrpcSender {
    async fn send(&self, headers: &HeaderMap, body: Vec<Bytes>) -> Result<Reply, SendError> {
        self.client.call(self.method, headers, body).await
    }
}
