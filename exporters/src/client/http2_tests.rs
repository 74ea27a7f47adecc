//! HTTP over TLS where the server chooses HTTP/2, over real sockets.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tailwater_pipeline::pem::PemSource;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::TlsAcceptor;

use super::names::Addresses;
use super::test_server::{LONG, parts, pem, post, run, server_config};
use super::*;
use crate::delivery::SendErrorKind;

/// What a server has seen of a request.
#[derive(Clone, Debug)]
struct Seen {
    version: Version,
    uri: String,
    headers: HeaderMap,
    body: Bytes,
}

/// A server with a certificate of `ca1` that speaks what ALPN agrees on.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Ends all connections there are.
    close: Arc<Notify>,
    /// Asks all HTTP/2 connections there are to end.
    leave: Arc<Notify>,
    /// Each answer takes a permit.
    answers: Arc<Semaphore>,
}

const BOTH: &[&[u8]] = &[b"h2", b"http/1.1"];

impl Server {
    async fn start(alpn: &[&[u8]]) -> Server {
        Server::asking(alpn, false).await
    }

    /// One that asks for a client certificate if `mutual`.
    async fn asking(alpn: &[&[u8]], mutual: bool) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            seen: Arc::default(),
            close: Arc::default(),
            leave: Arc::default(),
            answers: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        };
        let tls = TlsAcceptor::from(server_config("server1", mutual, alpn));
        let own = server.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                own.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(own.clone().serve(tls.clone(), stream));
            }
        });
        server
    }

    async fn serve(self, tls: TlsAcceptor, stream: TcpStream) {
        let Ok(stream) = tls.accept(stream).await else {
            return;
        };
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let own = self.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let own = own.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                own.seen.lock().unwrap().push(Seen {
                    version: head.version,
                    uri: head.uri.to_string(),
                    headers: head.headers,
                    body,
                });
                own.answers.acquire().await.unwrap().forget();
                let answer = Response::new(Full::new(Bytes::from_static(b"yes")));
                Ok::<_, hyper::Error>(answer)
            }
        });
        let io = TokioIo::new(stream);
        if !is_http2 {
            let connection = http1::Builder::new().serve_connection(io, service);
            tokio::select! {
                _ = connection => {}
                () = self.close.notified() => {}
            }
            return;
        }
        let connection = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        loop {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = self.close.notified() => return,
                () = self.leave.notified() => connection.as_mut().graceful_shutdown(),
            }
        }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::parse(&format!("https://{}/push?a=b", self.address)).unwrap()
    }

    async fn has_seen(&self, requests: usize) {
        while self.seen.lock().unwrap().len() < requests {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn options() -> ClientOptions {
    ClientOptions {
        tls: TlsOptions {
            ca: Some(PemSource::File(pem("ca1.pem").into())),
            ..TlsOptions::default()
        },
        ..ClientOptions::default()
    }
}

fn client(options: ClientOptions) -> HttpClient {
    HttpClient::new(parts(options)).unwrap()
}

/// Gives these addresses for every name, the first ones for the first questions.
struct Addressed(Mutex<Vec<Vec<SocketAddr>>>);

impl Resolver for Addressed {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> Addresses<'a> {
        let mut left = self.0.lock().unwrap();
        let now = match left.len() {
            1 => left[0].clone(),
            _ => left.remove(0),
        };
        Box::pin(std::future::ready(Ok(now)))
    }
}

fn client_at(addresses: Vec<Vec<SocketAddr>>, options: ClientOptions) -> HttpClient {
    let parts = ClientParts {
        resolver: Arc::new(Addressed(Mutex::new(addresses))),
        ..parts(options)
    };
    HttpClient::new(parts).unwrap()
}

/// Guarantee: requests at the same time share one connection, the first ones included, and say what
/// requests of HTTP/1.1 say.
#[test]
fn requests_share_a_connection() {
    run(async {
        let server = Server::start(BOTH).await;
        let client = client(ClientOptions {
            headers: vec![("X-Scope-OrgID".into(), "t".into())],
            ..options()
        });
        let to = server.endpoint();
        for _ in 0..3 {
            let (a, b, c) =
                tokio::join!(post(&client, &to), post(&client, &to), post(&client, &to));
            for reply in [a, b, c] {
                let reply = reply.unwrap();
                assert_eq!((reply.status.as_u16(), &reply.body[..]), (200, &b"yes"[..]));
            }
        }
        assert_eq!((server.connections(), client.shared_connections()), (1, 1));
        assert_eq!(client.idle(), 0);
        let seen = server.seen();
        assert_eq!(seen.len(), 9);
        for request in seen {
            assert_eq!(request.version, Version::HTTP_2);
            assert_eq!(request.uri, to.to_string() + "?a=b");
            assert_eq!(&request.body[..], b"a body");
            let header = |name: &str| request.headers[name].to_str().unwrap().to_owned();
            assert_eq!(
                (header("content-length"), header("x-scope-orgid")),
                ("6".into(), "t".into())
            );
            assert!(header("user-agent").starts_with("Tailwater/"));
            assert!(!request.headers.contains_key("host"));
        }
    });
}

#[test]
fn a_configured_host_is_the_authority() {
    run(async {
        let server = Server::start(BOTH).await;
        let client = client(ClientOptions {
            headers: vec![("Host".into(), "other.test".into())],
            ..options()
        });
        post(&client, &server.endpoint()).await.unwrap();
        assert_eq!(server.seen()[0].uri, "https://other.test/push?a=b");
    });
}

/// Guarantee: HTTP/1.1 is spoken with servers that choose it, and where HTTP/2 is switched off; and
/// connections are used again.
#[test]
fn http1_is_spoken_where_it_is_chosen() {
    run(async {
        let both = |http2| ClientOptions { http2, ..options() };
        for (alpn, options) in [
            (&[b"http/1.1" as &[u8]][..], both(true)),
            (&[], both(true)),
            (BOTH, both(false)),
        ] {
            let server = Server::start(alpn).await;
            let client = client(options);
            for _ in 0..3 {
                post(&client, &server.endpoint()).await.unwrap();
            }
            assert_eq!((server.connections(), client.idle()), (1, 1), "{alpn:?}");
            assert_eq!(client.shared_connections(), 0);
            assert!(server.seen().iter().all(|s| s.version == Version::HTTP_11));
        }
    });
}

/// Guarantee: a server that knows only HTTP/2 is reached, and plain requests stay HTTP/1.1.
#[test]
fn a_server_of_http2_only_is_reached() {
    run(async {
        let server = Server::start(&[b"h2"]).await;
        post(&client(options()), &server.endpoint()).await.unwrap();
        assert_eq!(server.seen()[0].version, Version::HTTP_2);
    });
}

#[test]
fn a_connection_that_the_server_closed_while_idle_costs_no_error() {
    run(async {
        let server = Server::start(BOTH).await;
        let client = client(options());
        let to = server.endpoint();
        post(&client, &to).await.unwrap();
        server.close.notify_waiters();
        post(&client, &to).await.unwrap();
        server.leave.notify_waiters();
        // One that it takes before its farewell arrives is answered, too.
        while client.shared_connections() > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        post(&client, &to).await.unwrap();
        assert_eq!((server.connections(), server.seen().len()), (3, 3));
    });
}

/// Guarantee: a server that wants to leave answers what it has, and what comes then goes elsewhere.
#[test]
fn requests_under_way_are_answered_by_a_server_that_leaves() {
    run(async {
        let server = Server::start(BOTH).await;
        let client = client(options());
        let to = server.endpoint();
        post(&client, &to).await.unwrap();
        server.answers.forget_permits(Semaphore::MAX_PERMITS);
        let later = async {
            server.has_seen(2).await;
            server.leave.notify_waiters();
            // Until the client knows that it leaves.
            while client.shared_connections() > 0 && server.connections() < 2 {
                let other = post(&client, &to);
                let _ = tokio::time::timeout(Duration::from_millis(20), other).await;
            }
            server.answers.add_permits(1000);
        };
        let (first, ()) = tokio::join!(post(&client, &to), later);
        first.unwrap();
        post(&client, &to).await.unwrap();
        assert_eq!(server.connections(), 2);
    });
}

#[test]
fn a_server_that_breaks_off_every_request_is_an_error() {
    run(async {
        let server = Server::start(BOTH).await;
        server.answers.forget_permits(Semaphore::MAX_PERMITS);
        let client = client(options());
        let close = async {
            server.has_seen(1).await;
            server.close.notify_waiters();
        };
        let to = server.endpoint();
        let (error, ()) = tokio::join!(post(&client, &to), close);
        assert_eq!(error.unwrap_err().kind, SendErrorKind::Broken);
        assert_eq!((server.connections(), client.shared_connections()), (1, 0));
    });
}

/// Guarantee: a server that takes requests and does not answer is left for another address.
#[test]
fn a_silent_server_is_left_for_another_address() {
    run(async {
        let (stuck, server) = (Server::start(BOTH).await, Server::start(BOTH).await);
        stuck.answers.forget_permits(Semaphore::MAX_PERMITS);
        let options = ClientOptions {
            timeout: Duration::from_secs(1),
            ..options()
        };
        let addresses = vec![stuck.address, server.address];
        let client = client_at(vec![addresses], options);
        let to = Endpoint::parse("https://localhost:3100/").unwrap();
        let error = post(&client, &to).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Timeout);
        assert_eq!(client.shared_connections(), 0);
        post(&client, &to).await.unwrap();
    });
}

#[test]
fn a_server_that_still_works_is_left_when_its_name_has_moved() {
    run(async {
        let (old, new) = (Server::start(BOTH).await, Server::start(BOTH).await);
        let client = client_at(vec![vec![old.address], vec![new.address]], options());
        let to = Endpoint::parse("https://localhost:3100/").unwrap();
        post(&client, &to).await.unwrap();
        post(&client, &to).await.unwrap();
        assert_eq!((old.connections(), new.connections()), (1, 0));
        tokio::time::pause();
        tokio::time::advance(super::names::LOOK_AGAIN).await;
        tokio::time::resume();
        for _ in 0..3 {
            post(&client, &to).await.unwrap();
        }
        assert_eq!((old.connections(), new.connections()), (1, 1));
    });
}

#[test]
fn a_connection_is_left_when_the_certificate_is_replaced() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        let replace = |from: &str, to: &Path| {
            std::fs::copy(pem(from), place("new")).unwrap();
            std::fs::rename(place("new"), to).unwrap();
        };
        replace("client1.pem", &place("cert"));
        replace("client1.key", &place("key"));
        let server = Server::asking(BOTH, true).await;
        let mut options = options();
        options.tls.cert = Some(PemSource::File(place("cert")));
        options.tls.key = Some(PemSource::File(place("key")));
        let client = client(options);
        for _ in 0..2 {
            post(&client, &server.endpoint()).await.unwrap();
        }
        assert_eq!(server.connections(), 1);
        replace("client2.pem", &place("cert"));
        replace("client2.key", &place("key"));
        for _ in 0..2 {
            post(&client, &server.endpoint()).await.unwrap();
        }
        assert_eq!((server.connections(), client.shared_connections()), (2, 1));
    });
}

#[test]
fn http2_goes_through_a_tunnel_of_the_proxy() {
    run(async {
        let server = Server::start(BOTH).await;
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = proxy.local_addr().unwrap();
        let (to, tunnels) = (server.address, Arc::new(AtomicUsize::new(0)));
        let count = tunnels.clone();
        tokio::spawn(async move {
            loop {
                let (mut down, _) = proxy.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(down.read_u8().await.unwrap());
                }
                assert!(head.starts_with(b"CONNECT other.test:443 "));
                down.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let mut up = TcpStream::connect(to).await.unwrap();
                tokio::spawn(async move { copy_bidirectional(&mut down, &mut up).await.ok() });
            }
        });
        let client = client(ClientOptions {
            proxy_url: Some(format!("http://{at}")),
            ..options()
        });
        let to = Endpoint::parse("https://other.test/push").unwrap();
        let (a, b) = tokio::join!(post(&client, &to), post(&client, &to));
        assert!(a.is_ok() && b.is_ok());
        assert_eq!(
            (tunnels.load(Ordering::SeqCst), server.connections()),
            (1, 1)
        );
        assert_eq!(server.seen()[0].version, Version::HTTP_2);
    });
}

/// Guarantee: limits of connections hold for those that are not shared, and hold up no request that
/// shares one.
#[test]
fn a_limit_of_connections_does_not_queue_requests_that_share_one() {
    run(async {
        let server = Server::start(BOTH).await;
        server.answers.forget_permits(Semaphore::MAX_PERMITS);
        let client = client(ClientOptions {
            max_conns_per_host: 1,
            ..options()
        });
        let to = server.endpoint();
        let both_there = async {
            server.has_seen(2).await;
            server.answers.add_permits(2);
        };
        let (a, b, ()) = tokio::join!(post(&client, &to), post(&client, &to), both_there);
        assert!(a.is_ok() && b.is_ok());
        assert_eq!(server.connections(), 1);
    });
}

#[test]
fn without_keep_alive_each_request_has_a_connection() {
    run(async {
        let server = Server::start(BOTH).await;
        let client = client(ClientOptions {
            disable_keep_alives: true,
            ..options()
        });
        for _ in 0..3 {
            post(&client, &server.endpoint()).await.unwrap();
        }
        assert_eq!((server.connections(), client.shared_connections()), (3, 0));
        let seen = server.seen();
        assert!(seen.iter().all(|s| !s.headers.contains_key("connection")));
    });
}

/// Guarantee: an idle connection is closed in time, one with a request under way is not.
#[test]
fn idle_connections_are_closed() {
    run(async {
        let server = Server::start(BOTH).await;
        let client = client(ClientOptions {
            idle_conn_timeout: Duration::from_millis(50),
            ..options()
        });
        server.answers.forget_permits(Semaphore::MAX_PERMITS);
        let held = async {
            server.has_seen(1).await;
            tokio::time::sleep(Duration::from_millis(150)).await;
            assert_eq!(client.shared_connections(), 1);
            server.answers.add_permits(1);
        };
        let to = server.endpoint();
        let (answer, ()) = tokio::join!(post(&client, &to), held);
        answer.unwrap();
        while client.shared_connections() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

/// Guarantee: with `http2_read_idle_timeout`, a server that is gone without a word is noticed while
/// nothing is sent.
#[test]
fn a_quiet_server_is_asked_for_a_sign() {
    run(async {
        // In between, everything stops.
        let server = Server::start(BOTH).await;
        let between = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = between.local_addr().unwrap();
        let (to, cut) = (server.address, Arc::new(Notify::new()));
        let cutting = cut.clone();
        tokio::spawn(async move {
            let (mut down, _) = between.accept().await.unwrap();
            let mut up = TcpStream::connect(to).await.unwrap();
            tokio::select! {
                _ = copy_bidirectional(&mut down, &mut up) => {}
                () = cutting.notified() => {}
            }
            // Open, and silent.
            std::future::pending::<Infallible>().await;
        });
        let client = client(ClientOptions {
            http2_read_idle_timeout: Duration::from_millis(50),
            http2_ping_timeout: Duration::from_secs(1),
            idle_conn_timeout: Duration::ZERO,
            ..options()
        });
        let to = Endpoint::parse(&format!("https://{at}/")).unwrap();
        post(&client, &to).await.unwrap();
        tokio::time::sleep(Duration::from_millis(250)).await;
        assert_eq!(client.shared_connections(), 1, "it gives signs");
        cut.notify_one();
        while client.shared_connections() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

/// Guarantee: a body that is larger than what a server lets come at once arrives whole.
#[test]
fn a_body_of_many_chunks_arrives_whole() {
    run(async {
        let server = Server::start(BOTH).await;
        let client = client(ClientOptions {
            timeout: LONG,
            ..options()
        });
        let chunk = Bytes::from(vec![7; 64 << 10]);
        let body = vec![chunk; 40];
        let mut headers = HeaderMap::new();
        headers.insert("x-own", HeaderValue::from_static("kept"));
        let to = server.endpoint();
        let reply = client.send(Method::POST, &to, &headers, body).await;
        assert_eq!(reply.unwrap().status, 200);
        let seen = server.seen();
        assert_eq!(seen[0].body.len(), 40 * (64 << 10));
        assert_eq!(seen[0].headers["x-own"], "kept");
    });
}
