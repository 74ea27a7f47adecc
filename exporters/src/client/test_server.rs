//! A server for tests: one thread per connection, whatever a test wants it to do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::{HeaderMap, Method};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::delivery::{Reply, SendError};

/// A bound on everything that must not hang.
pub(super) const LONG: Duration = Duration::from_secs(20);

/// A connection as a server sees it.
pub(super) trait Peer: Read + Write + Send {}
impl<T: Read + Write + Send> Peer for T {}

/// A request as it arrived.
#[derive(Debug)]
pub(super) struct Received {
    pub head: String,
    pub body: Vec<u8>,
}

/// Reads one request; `None` if the client closed.
pub(super) fn receive(peer: &mut dyn Peer) -> Option<Received> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if peer.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("heads are text");
    let length = head.lines().find_map(|l| {
        l.to_lowercase()
            .strip_prefix("content-length: ")?
            .parse()
            .ok()
    });
    let mut body = vec![0; length.unwrap_or(0)];
    peer.read_exact(&mut body).ok()?;
    Some(Received { head, body })
}

/// Answers one request.
pub(super) fn answer(peer: &mut dyn Peer, status: &str, body: &str) {
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
    peer.write_all(text.as_bytes()).expect("the client reads");
}

/// A listening server. Its threads end with its connections.
pub(super) struct Server {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// Runs `serve` for every connection, with its number from 0.
    pub fn start(serve: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, serve) = (connections.clone(), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), serve) = (stream, serve.clone()) else {
                    return;
                };
                stream.set_read_timeout(Some(LONG)).unwrap();
                let n = count.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || serve(n, stream));
            }
        });
        Server {
            address,
            connections,
        }
    }

    /// Answers every request of every connection with 200 and the request's head.
    pub fn echo() -> Server {
        Server::start(|_, mut stream| echo(&mut stream))
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Where it is.
    pub fn endpoint(&self, path: &str) -> Endpoint {
        Endpoint::parse(&format!("http://{}{path}", self.address)).unwrap()
    }
}

/// Answers every request with its own head.
pub(super) fn echo(peer: &mut dyn Peer) {
    while let Some(request) = receive(peer) {
        answer(peer, "200 OK", &request.head);
    }
}

/// A test certificate file.
pub(super) fn pem(name: &str) -> String {
    format!(
        "{}/src/client/test_certs/{name}",
        env!("CARGO_MANIFEST_DIR")
    )
}

/// How a server with certificate `name` makes TLS; asks for a client certificate of `ca1` if
/// `mutual`.
pub(super) fn server_config(name: &str, mutual: bool, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = CertificateDer::pem_file_iter(pem(&format!("{name}.pem"))).unwrap();
    let chain = chain.map(|c| c.unwrap()).collect();
    let key = PrivateKeyDer::from_pem_file(pem(&format!("{name}.key"))).unwrap();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = if mutual {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(pem("ca1.pem")).unwrap())
            .unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Arc::new(config)
}

/// The server side of TLS, see [`server_config`].
pub(super) fn accept_tls(
    stream: TcpStream,
    name: &str,
    mutual: bool,
) -> StreamOwned<ServerConnection, TcpStream> {
    let config = server_config(name, mutual, &[]);
    StreamOwned::new(ServerConnection::new(config).unwrap(), stream)
}

/// A client that ignores the environment of the test.
pub(super) fn client(options: ClientOptions) -> HttpClient {
    HttpClient::new(parts(options)).unwrap()
}

/// Parts of a client that ignores the environment of the test.
pub(super) fn parts(options: ClientOptions) -> ClientParts {
    ClientParts {
        proxy_env: ProxyEnv::default(),
        ..ClientParts::new(options)
    }
}

/// Runs `test` on a runtime like the agent's.
pub(super) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(LONG, test)
            .await
            .expect("it ends in time")
    })
}

/// Posts a small body.
pub(super) async fn post(client: &HttpClient, to: &Endpoint) -> Result<Reply, SendError> {
    let body = vec![Bytes::from_static(b"a "), Bytes::from_static(b"body")];
    client.send(Method::POST, to, &HeaderMap::new(), body).await
}
