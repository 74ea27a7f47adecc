//! What stands between an agent and its sink: a TLS server and a proxy.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tailwater_testkit::ports;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::exporter::Sockets;

/// Longest head of a request or an answer that a proxy reads, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A test certificate or key: authorities `ca1.pem` and `ca2.pem`; `server1`, `server2` (`.pem`,
/// `.key`) of each for localhost, other.test and 127.0.0.1; of the first `client1`, `client2`, and
/// `server_expired`, `client_expired`.
pub fn certificate(name: &str) -> PathBuf {
    let certs = "../exporters/src/client/test_certs";
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join(certs)
        .join(name)
}

/// A handshake as the server saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The name the client asked for; none for an address.
    pub name: Option<String>,
    /// What was agreed on.
    pub version: Option<ProtocolVersion>,
    /// The certificate that the client showed, if it did.
    pub client_certificate: Option<Vec<u8>>,
}

/// How a [`TlsFront`] behaves.
pub struct TlsServer {
    /// `server1`, `server2` or `server_expired`.
    pub certificate: &'static str,
    /// Accepts only clients with a certificate of `ca1`.
    pub mutual: bool,
    /// Accepts clients with a certificate of this authority, in DER, and those without any.
    pub clients: Option<Vec<u8>>,
    /// What it offers.
    pub versions: &'static [&'static SupportedProtocolVersion],
}

impl Default for TlsServer {
    fn default() -> Self {
        Self {
            certificate: "server1",
            mutual: false,
            clients: None,
            versions: rustls::ALL_VERSIONS,
        }
    }
}

impl TlsServer {
    fn config(&self) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(self.versions)
            .expect("versions");
        let builder = if self.mutual {
            let mut roots = RootCertStore::empty();
            let ca = CertificateDer::from_pem_file(certificate("ca1.pem")).expect("a certificate");
            roots.add(ca).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        } else if let Some(der) = &self.clients {
            let mut roots = RootCertStore::empty();
            roots.add(der.clone().into()).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            let verifier = verifier.allow_unauthenticated().build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let file = |end: &str| certificate(&format!("{}.{end}", self.certificate));
        let chain = CertificateDer::from_pem_file(file("pem")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(file("key")).expect("a key");
        builder.with_single_cert(vec![chain], key).expect("a pair")
    }
}

/// A server that takes TLS off and passes the rest on.
pub struct TlsFront {
    /// Where it listens.
    pub addr: SocketAddr,
    seen: Arc<Mutex<Vec<Handshake>>>,
    config: watch::Sender<Arc<ServerConfig>>,
    _sockets: Sockets,
}

impl TlsFront {
    /// Listens on a free loopback port until it is dropped.
    ///
    /// # Panics
    /// When there is no port, or the certificates cannot be read.
    pub fn start(server: &TlsServer, to: SocketAddr) -> Self {
        let (config, configs) = watch::channel(Arc::new(server.config()));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let book = seen.clone();
        let (sockets, addr) = listen(move |tcp| {
            let (mut configs, book) = (configs.clone(), book.clone());
            async move {
                let acceptor = TlsAcceptor::from(configs.borrow_and_update().clone());
                let mut tls = acceptor.accept(tcp).await?;
                let (_, session) = tls.get_ref();
                book.lock().expect("no panic").push(Handshake {
                    name: session.server_name().map(str::to_owned),
                    version: session.protocol_version(),
                    client_certificate: session
                        .peer_certificates()
                        .and_then(|chain| Some(chain.first()?.to_vec())),
                });
                let mut up = TcpStream::connect(to).await?;
                tokio::select! {
                    passed = copy_bidirectional(&mut tls, &mut up) => passed.map(|_| ()),
                    // The server starts again.
                    _ = configs.changed() => Ok(()),
                }
            }
        });
        Self {
            addr,
            seen,
            config,
            _sockets: sockets,
        }
    }

    /// Behaves in another way from now on. Connections end, as when a server starts again.
    ///
    /// # Panics
    /// When the certificates cannot be read.
    pub fn restart(&self, server: &TlsServer) {
        self.config.send_replace(Arc::new(server.config()));
    }

    /// The handshakes that succeeded.
    ///
    /// # Panics
    /// When its thread did.
    pub fn handshakes(&self) -> Vec<Handshake> {
        self.seen.lock().expect("no panic").clone()
    }
}

/// A proxy: tunnels for `CONNECT`, and passes on what it is asked for with a whole URL.
pub struct Proxy {
    /// Where it listens.
    pub addr: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    _sockets: Sockets,
}

impl Proxy {
    /// Listens on a free loopback port until it is dropped. Whatever host it is asked for, it
    /// connects to `to`.
    ///
    /// # Panics
    /// When there is no port.
    pub fn start(to: SocketAddr) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let book = seen.clone();
        let (sockets, addr) = listen(move |tcp| serve_proxy(tcp, to, book.clone()));
        Self {
            addr,
            seen,
            _sockets: sockets,
        }
    }

    /// The heads of the requests it got.
    ///
    /// # Panics
    /// When its thread did.
    pub fn heads(&self) -> Vec<String> {
        self.seen.lock().expect("no panic").clone()
    }
}

async fn serve_proxy(
    mut tcp: TcpStream,
    to: SocketAddr,
    book: Arc<Mutex<Vec<String>>>,
) -> io::Result<()> {
    loop {
        let head = read_head(&mut tcp).await?;
        book.lock().expect("no panic").push(head.clone());
        let mut up = TcpStream::connect(to).await?;
        if head.starts_with("CONNECT ") {
            tcp.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                .await?;
            return copy_bidirectional(&mut tcp, &mut up).await.map(|_| ());
        }
        // "POST http://host:port/path HTTP/1.1" without scheme and host.
        let Some((method, rest)) = head.split_once(" http://") else {
            return tcp
                .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                .await;
        };
        let path = rest.find('/').map_or("/ HTTP/1.1\r\n", |at| &rest[at..]);
        up.write_all(format!("{method} {path}").as_bytes()).await?;
        pass_body(&head, &mut tcp, &mut up).await?;
        let answer = read_head(&mut up).await?;
        tcp.write_all(answer.as_bytes()).await?;
        pass_body(&answer, &mut up, &mut tcp).await?;
    }
}

async fn read_head(from: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        head.push(from.read_u8().await?);
    }
    String::from_utf8(head).map_err(io::Error::other)
}

async fn pass_body(head: &str, from: &mut TcpStream, to: &mut TcpStream) -> io::Result<()> {
    let head = head.to_ascii_lowercase();
    let length = |line: &str| line.strip_prefix("content-length: ")?.parse().ok();
    let mut body = vec![0; head.lines().find_map(length).unwrap_or(0)];
    from.read_exact(&mut body).await?;
    to.write_all(&body).await
}

/// Runs `serve` for every connection to a free loopback port.
fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> (Sockets, SocketAddr)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let sockets = Sockets::start();
    let listener = ports::listen().expect("a loopback port");
    let addr = listener.local_addr().expect("an address");
    listener.set_nonblocking(true).expect("a socket");
    sockets.handle.spawn(async move {
        let listener = TcpListener::from_std(listener).expect("a socket");
        while let Ok((tcp, _)) = listener.accept().await {
            // A connection that breaks is what the test is about, or shows there.
            tokio::spawn(serve(tcp));
        }
    });
    (sockets, addr)
}
