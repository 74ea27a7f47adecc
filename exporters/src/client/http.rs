//! The client itself: one attempt, from headers to answer.

use std::error::Error as _;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, PROXY_AUTHORIZATION,
    TRANSFER_ENCODING, USER_AGENT,
};
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;

use tailwater_pipeline::auth::Authenticators;
use tailwater_pipeline::connections::Connections;

use super::auth::Credentials;
use super::body::Chunks;
use super::connect::{Connection, Connector, is_tls_refusal};
use super::cookies::Jar;
use super::endpoint::Endpoint;
use super::expiry::Expiry;
use super::http_shared::Way;
use super::http2::Channels;
use super::names::{Names, Resolver, SystemResolver};
use super::options::ClientOptions;
use super::pool::{Key, Limits, Pool, Usable};
use super::proxy::{self, Proxy, ProxyEnv};
use super::tls::{Protocol, TlsSource};
use super::{ClientError, proxy::ProxyError};
use crate::delivery::{Reply, SendError, SendErrorKind, Transport};

/// Largest part of an answer's body that is read. The connection of a longer one is closed.
pub const RESPONSE_BYTES_MAX: usize = 64 << 10;

/// What a client is made of.
pub struct ClientParts {
    /// Its options.
    pub options: ClientOptions,
    /// The extensions that `auth::authenticator` may name.
    pub authenticators: Authenticators,
    /// The environment's proxies; they count if `proxy_url` is not set.
    pub proxy_env: ProxyEnv,
    /// Finds addresses.
    pub resolver: Arc<dyn Resolver>,
    /// Value of the `User-Agent` header.
    pub user_agent: String,
    /// Shows when certificates end.
    pub expiry: Option<Expiry>,
    /// Largest part of an answer's body that is read. Default [`RESPONSE_BYTES_MAX`].
    pub response_bytes_max: usize,
    /// Among whose connections those of the client before it may be, and whose they are; `None`: it has its own.
    pub kept: Option<(Arc<Connections>, String)>,
}

impl ClientParts {
    /// The usual parts: the process's environment, the system's resolver, our name.
    pub fn new(options: ClientOptions) -> ClientParts {
        ClientParts {
            options,
            authenticators: Authenticators::default(),
            proxy_env: ProxyEnv::of_process(),
            resolver: Arc::new(SystemResolver),
            user_agent: super::user_agent(),
            expiry: None,
            response_bytes_max: RESPONSE_BYTES_MAX,
            kept: None,
        }
    }
}

/// What a client has open, and opens more with: it may outlive the client.
pub(super) struct Open {
    /// What it depends on.
    options: ClientOptions,
    pub connector: Connector,
    pool: Pool,
    /// `None`: HTTP/1.1 only.
    pub shared: Option<Channels>,
}

impl Open {
    /// Nothing is connected yet.
    fn new(
        o: ClientOptions,
        resolver: Arc<dyn Resolver>,
        expiry: Option<Expiry>,
    ) -> Result<Open, ClientError> {
        let protocol = match o.http2 {
            true => Protocol::Either,
            false => Protocol::Http1,
        };
        let ping = o.http2_ping();
        let shared = || Channels::new(ping, o.idle_conn_timeout, !o.disable_keep_alives);
        Ok(Open {
            shared: o.http2.then(shared),
            connector: Connector {
                names: Names::new(resolver),
                tls: TlsSource::new(o.tls.clone(), protocol, expiry)?,
                timeout: o.connect_timeout,
                protocol,
            },
            pool: Pool::new(Limits {
                idle_max: o.max_idle_conns,
                idle_per_key_max: o.max_idle_conns_per_host,
                open_per_key_max: o.max_conns_per_host,
                idle_timeout: o.idle_conn_timeout,
                disabled: o.disable_keep_alives,
            }),
            options: o,
        })
    }
}

/// An HTTP client: a pool of HTTP/1.1 connections, and shared HTTP/2 connections where TLS agrees on
/// them.
pub struct HttpClient {
    pub(super) open: Arc<Open>,
    credentials: Credentials,
    cookies: Option<Jar>,
    headers: HeaderMap,
    user_agent: HeaderValue,
    proxy: Option<Proxy>,
    proxy_env: ProxyEnv,
    pub(super) timeout: Duration,
    close_each: bool,
    pub(super) response_bytes_max: usize,
}

impl HttpClient {
    /// Builds a client; connects to nothing. Reads certificate and secret files, so that mistakes
    /// show here.
    pub fn new(parts: ClientParts) -> Result<HttpClient, ClientError> {
        let o = parts.options;
        let proxy = o
            .proxy_url
            .as_deref()
            .map(|url| proxy::parse("proxy_url", url))
            .transpose()?;
        let user_agent =
            HeaderValue::from_str(&parts.user_agent).map_err(|_| ClientError::Header {
                name: "User-Agent".into(),
                problem: "not a header value",
            })?;
        let of_connections = o.of_connections();
        let open = || Open::new(of_connections.clone(), parts.resolver, parts.expiry);
        let open = match &parts.kept {
            Some((all, owner)) => all.of(owner, |o: &Open| o.options == of_connections, open)?,
            None => Arc::new(open()?),
        };
        Ok(HttpClient {
            open,
            credentials: Credentials::new(&o.auth, &parts.authenticators)
                .map_err(ClientError::Auth)?,
            cookies: o.cookies.then(Jar::default),
            headers: header_map(&o.headers)?,
            user_agent,
            proxy,
            proxy_env: parts.proxy_env,
            timeout: o.timeout,
            close_each: o.disable_keep_alives,
            response_bytes_max: parts.response_bytes_max,
        })
    }

    /// Sends one request and reads its answer, within the client's timeout. Redirects are not
    /// followed: they are answers like others. Must run on a tokio runtime.
    ///
    /// If a connection from the pool turns out to have been closed by the server before it
    /// answered anything, the request is sent once more on a new one.
    pub async fn send(
        &self,
        method: Method,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        body: Vec<Bytes>,
    ) -> Result<Reply, SendError> {
        let attempt = pin!(async {
            let reply = self.attempt(method, endpoint, headers, body).await?;
            if let Some(jar) = &self.cookies {
                jar.note(endpoint, &reply.headers);
            }
            Ok(reply)
        });
        in_time(self.timeout, endpoint, attempt).await
    }

    async fn attempt(
        &self,
        method: Method,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        body: Vec<Bytes>,
    ) -> Result<Reply, SendError> {
        let proxy = self
            .proxy_for(endpoint)
            .map_err(|e| config_error(e.to_string()))?;
        let key = Key {
            https: endpoint.https,
            host_port: endpoint.host_port(),
            proxy: proxy.as_ref().map(|proxy| proxy.server.host_port()),
        };
        // What a proxy for HTTP takes itself is addressed to it.
        let taker = proxy.as_ref().filter(|proxy| proxy.takes_requests());
        let taker = taker.filter(|_| !endpoint.https);
        let make = || {
            let uri = match taker {
                Some(_) => format!("http://{}{}", endpoint.authority(), endpoint.path),
                None => endpoint.path.clone(),
            };
            let built = Request::builder().method(method.clone()).uri(uri);
            let built = built.body(Chunks::new(body.clone()));
            let mut request = built.map_err(|e| config_error(format!("{endpoint}: {e}")))?;
            *request.headers_mut() = self.all_headers(endpoint, headers, taker)?;
            Ok(request)
        };
        // Mostly there is no second one.
        let mut first = Some(make()?);
        let mut request = || first.take().map_or_else(make, Ok);
        let server = proxy.as_ref().map_or(endpoint, |proxy| &proxy.server);
        loop {
            while let Some(in_use) = self.shared(endpoint, server, &key) {
                let shared = Box::pin(self.exchange_shared(endpoint, &in_use, request()?));
                match shared.await {
                    Err(Failure::ClosedBeforeAnswer(_)) => {}
                    Ok(reply) => return Ok(reply),
                    Err(Failure::Other(e)) => return Err(e),
                }
            }
            let permit = self.open.pool.permit(&key).await;
            if let Some(answer) = self.pooled(endpoint, server, &key, &mut request).await {
                return answer;
            }
            // Rare, and what it needs would make each attempt as large.
            let way = Box::pin(self.open(endpoint, proxy.as_ref(), &key)).await?;
            // Requests share it, so it counts once, however many there are.
            let (in_use, is_new) = match way {
                Way::Shared(in_use, is_new) => (in_use, is_new),
                Way::Alone(connection) => {
                    return Box::pin(self.alone(endpoint, key, connection, request()?)).await;
                }
            };
            drop(permit);
            let shared = Box::pin(self.exchange_shared(endpoint, &in_use, request()?));
            match shared.await {
                Err(Failure::ClosedBeforeAnswer(_)) if !is_new => {}
                Err(Failure::ClosedBeforeAnswer(e)) => {
                    self.open.connector.names.avoid(in_use.channel.peer);
                    return Err(e);
                }
                Ok(reply) => return Ok(reply),
                Err(Failure::Other(e)) => return Err(e),
            }
        }
    }

    /// Over a connection from the pool; `None` if there is none that works.
    async fn pooled(
        &self,
        endpoint: &Endpoint,
        server: &Endpoint,
        key: &Key,
        request: &mut impl FnMut() -> Result<Request<Chunks>, SendError>,
    ) -> Option<Result<Reply, SendError>> {
        while let Some(usable) = self.open.pool.take(key) {
            let names = &self.open.connector.names;
            let moved = !names.is_current(server, usable.peer);
            if moved || !self.open.connector.tls.is_current(&usable.secured) {
                continue;
            }
            let request = match request() {
                Ok(request) => request,
                Err(e) => return Some(Err(e)),
            };
            match self.exchange(endpoint, key, usable, request).await {
                Ok(reply) => return Some(Ok(reply)),
                Err(Failure::ClosedBeforeAnswer(_)) => {}
                Err(Failure::Other(e)) => return Some(Err(e)),
            }
        }
        None
    }

    /// Over a new connection that is this request's alone.
    async fn alone(
        &self,
        endpoint: &Endpoint,
        key: Key,
        connection: Connection,
        request: Request<Chunks>,
    ) -> Result<Reply, SendError> {
        let Connection {
            io, peer, secured, ..
        } = connection;
        let (sender, connection) = http1::handshake(TokioIo::new(io))
            .await
            .map_err(|e| broken(endpoint, &e))?;
        // Ends when the sender is dropped or the server closes; its error is the sender's too.
        tokio::spawn(async move { connection.await.ok() });
        let usable = Usable {
            sender,
            peer,
            secured,
        };
        match self.exchange(endpoint, &key, usable, request).await {
            Ok(reply) => Ok(reply),
            Err(Failure::ClosedBeforeAnswer(e) | Failure::Other(e)) => {
                // It was not idle before: something is wrong there.
                self.open.connector.names.avoid(peer);
                Err(e)
            }
        }
    }

    pub(super) fn proxy_for(&self, endpoint: &Endpoint) -> Result<Option<Proxy>, ProxyError> {
        match &self.proxy {
            Some(proxy) => Ok(Some(proxy.clone())),
            None => self.proxy_env.proxy_for(endpoint),
        }
    }

    /// The exporter's headers, then credentials, then the configured ones, then what an extension makes of
    /// them; and those for `taker`, a proxy
    /// that takes the request itself.
    pub(super) fn all_headers(
        &self,
        endpoint: &Endpoint,
        own: &HeaderMap,
        taker: Option<&Proxy>,
    ) -> Result<HeaderMap, SendError> {
        let mut headers = own.clone();
        headers
            .entry(USER_AGENT)
            .or_insert_with(|| self.user_agent.clone());
        self.credentials
            .add_to(&mut headers, endpoint.basic.as_ref())
            .map_err(config_error)?;
        let host = HeaderValue::from_str(&endpoint.authority())
            .map_err(|_| config_error(format!("{endpoint}: the host cannot be a header")))?;
        headers.insert(HOST, host);
        if let Some(jar) = &self.cookies {
            jar.add_to(endpoint, &mut headers);
        }
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        self.credentials
            .finish(&mut headers)
            .map_err(config_error)?;
        if let Some(basic) = taker.and_then(|proxy| proxy.server.basic.as_ref()) {
            headers.insert(PROXY_AUTHORIZATION, basic.clone());
        }
        if self.close_each {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(headers)
    }

    /// One request on one connection, which goes back to the pool if it can be used again.
    async fn exchange(
        &self,
        endpoint: &Endpoint,
        key: &Key,
        mut usable: Usable,
        request: Request<Chunks>,
    ) -> Result<Reply, Failure> {
        // The attempt is dropped when its time is over.
        let mut silence = Silence {
            client: self,
            peer: Some(usable.peer),
        };
        let response = match usable.sender.send_request(request).await {
            Ok(response) => response,
            Err(e) => {
                let closed = e.is_canceled() || e.is_closed() || e.is_incomplete_message();
                let error = broken(endpoint, &e);
                return Err(match closed || is_reset(&e) {
                    true => {
                        silence.peer = None;
                        Failure::ClosedBeforeAnswer(error)
                    }
                    false => Failure::Other(error),
                });
            }
        };
        let reply = read(response, self.response_bytes_max)
            .await
            .map_err(|e| Failure::Other(broken(endpoint, &e)))?;
        silence.peer = None;
        if !reply.truncated {
            self.open.pool.put(key.clone(), usable);
        }
        Ok(reply)
    }

    /// Idle connections now.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.open.pool.idle()
    }
}

/// Dropped with a peer, it says that the peer did not answer: other connections to it are not used
/// again, and other addresses of its name are tried before it.
struct Silence<'a> {
    client: &'a HttpClient,
    peer: Option<SocketAddr>,
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        if let Some(peer) = self.peer {
            self.client.open.pool.forget(peer);
            self.client.open.connector.names.avoid(peer);
        }
    }
}

pub(super) enum Failure {
    /// Nothing of an answer came; on a connection from the pool that is what it looks like when
    /// the server closed it while it was idle.
    ClosedBeforeAnswer(SendError),
    Other(SendError),
}

pub(super) async fn read(
    response: Response<Incoming>,
    bytes_max: usize,
) -> Result<Reply, hyper::Error> {
    let (head, mut incoming) = response.into_parts();
    let mut body = BytesMut::new();
    let mut truncated = false;
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        let room = bytes_max - body.len();
        body.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            truncated = true;
            break;
        }
    }
    Ok(Reply {
        status: head.status,
        headers: head.headers,
        body: body.freeze(),
        truncated,
    })
}

/// What comes of an attempt, or that `limit` (zero = none) is over. The attempt is borrowed: passed on by value, each
/// call would have room for it once more, and tasks are moved as a whole several times.
pub(super) async fn in_time<T>(
    limit: Duration,
    endpoint: &Endpoint,
    attempt: Pin<&mut impl Future<Output = Result<T, SendError>>>,
) -> Result<T, SendError> {
    if limit.is_zero() {
        return attempt.await;
    }
    let done = tokio::time::timeout(limit, attempt).await;
    done.unwrap_or_else(|_| {
        let message = format!("{endpoint}: no complete answer within {limit:?}");
        Err(SendError::new(SendErrorKind::Timeout, message))
    })
}

pub(super) fn config_error(message: String) -> SendError {
    SendError::new(SendErrorKind::Config, message)
}

fn io_source(e: &hyper::Error) -> Option<&std::io::Error> {
    e.source()?.downcast_ref()
}

pub(super) fn is_reset(e: &hyper::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    io_source(e).is_some_and(|io| matches!(io.kind(), ConnectionReset | BrokenPipe))
}

pub(super) fn broken(endpoint: &Endpoint, e: &hyper::Error) -> SendError {
    let mut message = format!("{endpoint}: {e}");
    let mut source = e.source();
    while let Some(inner) = source {
        message = format!("{message}: {inner}");
        source = inner.source();
    }
    // With TLS 1.3 the server says after the handshake that it does not want us.
    let refused = io_source(e).is_some_and(is_tls_refusal);
    let kind = match refused {
        true => SendErrorKind::Tls,
        false => SendErrorKind::Broken,
    };
    SendError::new(kind, message)
}

/// Configured headers. Those that belong to the connection are refused.
pub(super) fn header_map(configured: &[(String, String)]) -> Result<HeaderMap, ClientError> {
    let mut map = HeaderMap::new();
    for (name, value) in configured {
        let fail = |problem| ClientError::Header {
            name: name.clone(),
            problem,
        };
        let parsed: HeaderName = name.parse().map_err(|_| fail("not a header name"))?;
        if [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION].contains(&parsed) {
            return Err(fail("it is set by the client and cannot be configured"));
        }
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| fail("its value has characters that a header cannot carry"))?;
        value.set_sensitive(true);
        map.insert(parsed, value);
    }
    Ok(map)
}

/// Sends the requests of a [`Delivery`](crate::delivery::Delivery) as `POST` to one endpoint.
pub struct HttpSender {
    client: Arc<HttpClient>,
    endpoint: Endpoint,
}

impl HttpSender {
    /// A sender for `endpoint`.
    pub fn new(client: Arc<HttpClient>, endpoint: Endpoint) -> HttpSender {
        HttpSender { client, endpoint }
    }
}

impl Transport for HttpSender {
    async fn send(&self, headers: &HeaderMap, body: Vec<Bytes>) -> Result<Reply, SendError> {
        self.client
            .send(Method::POST, &self.endpoint, headers, body)
            .await
    }
}
