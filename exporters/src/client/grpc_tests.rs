use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tailwater_pipeline::pem::PemSource;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use tokio_rustls::TlsAcceptor;

use super::connect::Io;
use super::names::Addresses;
use super::test_server::{LONG, pem, run};
use super::*;
use crate::delivery::{Reply, SendError, SendErrorKind};
use crate::test_config::decode_json;

const METHOD: &str = "/test.Service/Export";

/// Data, then trailers; or neither.
pub(super) struct Answer(Vec<Frame<Bytes>>);

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = (!self.0.is_empty()).then(|| self.0.remove(0));
        Poll::Ready(next.map(Ok))
    }
}

fn trailers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        let name = hyper::header::HeaderName::from_static(name);
        (name, value.parse().unwrap())
    };
    pairs.iter().map(pair).collect()
}

pub(super) fn done(message: &[u8]) -> Response<Answer> {
    let mut data = vec![0, 0, 0, 0, message.len() as u8];
    data.extend_from_slice(message);
    let ok = trailers(&[("grpc-status", "0")]);
    Response::new(Answer(vec![Frame::data(data.into()), Frame::trailers(ok)]))
}

/// What arrived.
pub(super) struct Call {
    head: http_parts::Parts,
    body: Bytes,
}

mod http_parts {
    pub use hyper::http::request::Parts;
}

#[derive(Clone)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
    /// Ends all connections there are.
    close: Arc<Notify>,
}

pub(super) async fn serve<F>(
    at: &str,
    answer: impl Fn(usize, Call) -> F + Send + Sync + 'static,
) -> Server
where
    F: Future<Output = Response<Answer>> + Send + 'static,
{
    serve_with(at, None, answer).await
}

/// A server, with TLS if `tls` says how.
async fn serve_with<F>(
    at: &str,
    tls: Option<TlsAcceptor>,
    answer: impl Fn(usize, Call) -> F + Send + Sync + 'static,
) -> Server
where
    F: Future<Output = Response<Answer>> + Send + 'static,
{
    let listener = TcpListener::bind(at).await.unwrap();
    let server = Server {
        address: listener.local_addr().unwrap(),
        connections: Arc::default(),
        calls: Arc::default(),
        close: Arc::default(),
    };
    let (own, answer) = (server.clone(), Arc::new(answer));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            own.connections.fetch_add(1, Ordering::SeqCst);
            let (own, answer, tls) = (own.clone(), answer.clone(), tls.clone());
            tokio::spawn(async move {
                let stream: Box<dyn Io> = match tls {
                    None => Box::new(stream),
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        Err(_) => return,
                    },
                };
                let close = own.close.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let n = own.calls.fetch_add(1, Ordering::SeqCst);
                    let answer = answer.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        Ok::<_, hyper::Error>(answer(n, Call { head, body }).await)
                    }
                });
                let connection = http2::Builder::new(TokioExecutor::new());
                let connection = connection.serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    _ = connection => {}
                    () = close.notified() => {}
                }
            });
        }
    });
    server
}

impl Server {
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

pub(super) fn options(address: SocketAddr) -> GrpcOptions {
    let endpoint = Endpoint::parse(&format!("http://{address}")).unwrap();
    GrpcOptions {
        timeout: LONG,
        ..GrpcOptions::new(endpoint)
    }
}

pub(super) fn parts(options: GrpcOptions) -> GrpcParts {
    GrpcParts {
        proxy_env: ProxyEnv::default(),
        ..GrpcParts::new(options)
    }
}

fn client(options: GrpcOptions) -> Arc<GrpcClient> {
    Arc::new(GrpcClient::new(parts(options)).unwrap())
}

pub(super) async fn call(client: &GrpcClient) -> Result<Reply, SendError> {
    let body = vec![Bytes::from_static(b"a "), Bytes::from_static(b"body")];
    client.call(METHOD, &HeaderMap::new(), body).await
}

#[test]
fn a_call_has_what_grpc_wants_and_its_trailers_are_read() {
    run(async {
        let server = serve("127.0.0.1:0", |_, call| async move {
            let h = |name: &str| call.head.headers[name].to_str().unwrap().to_owned();
            assert_eq!(call.head.uri.path(), METHOD);
            assert_eq!(call.head.uri.authority().unwrap(), "other.example:1");
            assert_eq!(
                (h("te"), h("content-type")),
                ("trailers".into(), "application/grpc".into())
            );
            assert_eq!(h("grpc-timeout"), "20000m");
            assert_eq!((h("user-agent"), h("x-bin")), ("me".into(), "AQI".into()));
            assert_eq!(h("authorization"), "Bearer t");
            assert_eq!(&call.body[..], b"\0\0\0\0\x06a body");
            done(b"yes")
        })
        .await;
        let options = GrpcOptions {
            authority: Some("other.example:1".into()),
            user_agent: Some("me".into()),
            headers: vec![("X-Bin".into(), "\u{1}\u{2}".into())],
            auth: AuthOptions::Bearer { token: "t".into() },
            ..options(server.address)
        };
        let reply = call(&client(options)).await.unwrap();
        assert_eq!(reply.headers["grpc-status"], "0");
        let (compressed, message) = message(&reply.body).unwrap();
        assert_eq!((compressed, &message[..]), (false, &b"yes"[..]));
    });
}

#[test]
fn an_answer_may_be_headers_only_or_no_grpc_at_all() {
    run(async {
        let server = serve("127.0.0.1:0", |n, _| async move {
            let mut response = Response::new(Answer(Vec::new()));
            if n == 0 {
                let refusal = trailers(&[("grpc-status", "14"), ("grpc-message", "no%20room")]);
                *response.headers_mut() = refusal;
            } else {
                *response.status_mut() = hyper::StatusCode::BAD_GATEWAY;
            }
            response
        })
        .await;
        let client = client(options(server.address));
        let reply = call(&client).await.unwrap();
        assert_eq!(reply.headers["grpc-status"], "14");
        assert!(message(&reply.body).is_none());
        assert_eq!(call(&client).await.unwrap().status, 502);
    });
}

#[test]
fn many_calls_share_one_connection() {
    run(async {
        let gate = Arc::new(tokio::sync::Barrier::new(20));
        let wait = gate.clone();
        let server = serve("127.0.0.1:0", move |_, _| {
            let wait = wait.clone();
            async move {
                wait.wait().await;
                done(b"")
            }
        })
        .await;
        let client = client(options(server.address));
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let client = client.clone();
            calls.spawn(async move { call(&client).await.unwrap().status });
        }
        while let Some(done) = calls.join_next().await {
            assert_eq!(done.unwrap(), 200);
        }
        assert_eq!((server.connections(), client.open_connections()), (1, 1));
    });
}

#[test]
fn a_connection_that_ended_is_replaced() {
    run(async {
        let server = serve("127.0.0.1:0", |_, _| async { done(b"") }).await;
        let client = client(options(server.address));
        for n in 1..=3 {
            call(&client).await.unwrap();
            assert_eq!(server.connections(), n);
            server.close.notify_waiters();
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_call_that_dies_with_its_first_connection_is_an_error() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                drop(listener.accept().await);
            }
        });
        let error = call(&client(options(address))).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Broken);
    });
}

/// Always knows the same addresses.
struct Fixed(Vec<SocketAddr>);

impl Resolver for Fixed {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> Addresses<'a> {
        Box::pin(async move { Ok(self.0.clone()) })
    }
}

fn named(addresses: Vec<SocketAddr>, balancer: Balancer) -> Arc<GrpcClient> {
    let endpoint = Endpoint::parse(&format!("http://otlp.example:{}", addresses[0].port()));
    let options = GrpcOptions {
        timeout: LONG,
        balancer,
        ..GrpcOptions::new(endpoint.unwrap())
    };
    let parts = GrpcParts {
        resolver: Arc::new(Fixed(addresses)),
        ..parts(options)
    };
    Arc::new(GrpcClient::new(parts).unwrap())
}

#[test]
fn calls_go_to_all_addresses_by_turns_or_to_one() {
    run(async {
        let one = serve("127.0.0.1:0", |_, _| async { done(b"") }).await;
        let two = serve("127.0.0.1:0", |_, _| async { done(b"") }).await;
        let both = vec![one.address, two.address];
        let client = named(both.clone(), Balancer::RoundRobin);
        for _ in 0..10 {
            call(&client).await.unwrap();
        }
        assert_eq!((one.calls(), two.calls()), (5, 5));
        assert_eq!((one.connections(), two.connections()), (1, 1));
        let client = named(both, Balancer::PickFirst);
        for _ in 0..10 {
            call(&client).await.unwrap();
        }
        assert_eq!((one.calls(), two.calls()), (15, 5));
    });
}

#[test]
fn an_address_that_cannot_be_reached_is_passed_over() {
    run(async {
        let one = serve("127.0.0.1:0", |_, _| async { done(b"") }).await;
        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = unused.local_addr().unwrap();
        drop(unused);
        for balancer in [Balancer::RoundRobin, Balancer::PickFirst] {
            let client = named(vec![dead, one.address], balancer);
            for _ in 0..4 {
                call(&client).await.unwrap();
            }
        }
        assert_eq!((one.calls(), one.connections()), (8, 2));
    });
}

#[test]
fn a_silent_server_costs_the_time_of_the_call_and_its_connection() {
    run(async {
        let server = serve("127.0.0.1:0", |n, _| async move {
            if n == 0 {
                std::future::pending::<()>().await;
            }
            done(b"")
        })
        .await;
        let client = client(GrpcOptions {
            timeout: Duration::from_millis(200),
            ..options(server.address)
        });
        let error = call(&client).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Timeout);
        assert_eq!(client.open_connections(), 0);
        while call(&client).await.is_err() {}
        assert!(server.connections() >= 2);
    });
}

#[test]
fn waiting_for_a_server_takes_no_longer_than_the_call_may() {
    run(async {
        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = unused.local_addr().unwrap();
        drop(unused);
        let at_once = client(options(address));
        let error = call(&at_once).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Connect);
        let waiting = client(GrpcOptions {
            wait_for_ready: true,
            ..options(address)
        });
        let (reply, _) = tokio::join!(call(&waiting), async {
            tokio::task::yield_now().await;
            serve(&address.to_string(), |_, _| async { done(b"") }).await
        });
        assert_eq!(reply.unwrap().status, 200);
    });
}

#[test]
fn a_proxy_is_asked_for_a_tunnel_to_a_plain_server_too() {
    run(async {
        let server = serve("127.0.0.1:0", |_, _| async { done(b"") }).await;
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = proxy.local_addr().unwrap();
        let (to, asked) = (
            server.address,
            Arc::new(std::sync::Mutex::new(String::new())),
        );
        let seen = asked.clone();
        tokio::spawn(async move {
            let (mut client, _) = proxy.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            *seen.lock().unwrap() = String::from_utf8(head).unwrap();
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let mut server = tokio::net::TcpStream::connect(to).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
        let options = GrpcOptions {
            timeout: LONG,
            ..GrpcOptions::new(Endpoint::parse("http://otlp.example:4317").unwrap())
        };
        let client = GrpcClient::new(GrpcParts {
            proxy_env: ProxyEnv {
                https: Some(format!("http://{at}")),
                ..ProxyEnv::default()
            },
            ..parts(options)
        });
        call(&client.unwrap()).await.unwrap();
        let asked = asked.lock().unwrap().clone();
        assert!(
            asked.starts_with("CONNECT otlp.example:4317 HTTP/1.1"),
            "{asked}"
        );
    });
}

#[test]
fn an_answer_without_end_is_cut_off() {
    run(async {
        let server = serve("127.0.0.1:0", |_, _| async {
            let piece = Bytes::from(vec![0; 1 << 20]);
            Response::new(Answer((0..6).map(|_| Frame::data(piece.clone())).collect()))
        })
        .await;
        let error = call(&client(options(server.address))).await.unwrap_err();
        assert!(error.message.contains("longer than"), "{error}");
    });
}

#[test]
fn over_tls_the_server_has_to_speak_http_2() {
    use super::test_server::{Server, accept_tls, echo};
    run(async {
        let server = Server::start(|_, stream| echo(&mut accept_tls(stream, "server1", false)));
        let url = format!("https://localhost:{}", server.address.port());
        let mut options = options(server.address);
        options.endpoint = Endpoint::parse(&url).unwrap();
        options.tls.ca = Some(PemSource::File(pem("ca1.pem").into()));
        let error = call(&client(options)).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Tls);
        assert!(error.message.contains("HTTP/2"), "{error}");
    });
}

#[test]
fn over_tls_calls_share_a_connection_that_both_know_each_other_by() {
    let config = super::test_server::server_config("server1", true, &[b"h2"]);
    run(async {
        let tls = Some(TlsAcceptor::from(config));
        let server = serve_with("127.0.0.1:0", tls, |_, call| async move {
            assert_eq!(call.head.uri.scheme_str(), Some("https"));
            done(b"")
        })
        .await;
        let mut options = options(server.address);
        let url = format!("https://localhost:{}", server.address.port());
        options.endpoint = Endpoint::parse(&url).unwrap();
        options.tls.ca = Some(PemSource::File(pem("ca1.pem").into()));
        options.tls.cert = Some(PemSource::File(pem("client1.pem").into()));
        options.tls.key = Some(PemSource::File(pem("client1.key").into()));
        let known = client(options.clone());
        for _ in 0..3 {
            assert_eq!(call(&known).await.unwrap().headers["grpc-status"], "0");
        }
        assert_eq!((server.connections(), server.calls()), (1, 3));
        options.tls.ca = Some(PemSource::File(pem("ca2.pem").into()));
        let error = call(&client(options)).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Tls);
    });
}

#[test]
fn a_peer_that_answers_no_ping_is_left() {
    run(async {
        // Takes the connection and is silent from then on.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = GrpcOptions {
            keepalive: Some(Keepalive {
                time: Duration::from_millis(50),
                timeout: Duration::from_millis(50),
                permit_without_stream: false,
            }),
            ..options(listener.local_addr().unwrap())
        };
        let server = tokio::spawn(async move { listener.accept().await.unwrap() });
        let error = call(&client(options)).await.unwrap_err();
        assert_eq!(
            error.kind,
            SendErrorKind::Broken,
            "long before its time is over"
        );
        server.await.unwrap();
    });
}

fn decode(config: serde_json::Value) -> Result<Option<GrpcOptions>, String> {
    decode_json(&config, GrpcOptions::decode)
}

#[test]
fn endpoints_are_read_as_the_collector_does() {
    for (endpoint, insecure, https, host, port) in [
        ("h:1", false, true, "h", 1),
        ("h:1", true, false, "h", 1),
        ("http://h:1", false, false, "h", 1),
        ("https://h:1", true, true, "h", 1),
        ("dns:///h:1", true, false, "h", 1),
        ("[::1]:4317", true, false, "::1", 4317),
    ] {
        let got = decode(json!({"endpoint": endpoint, "tls": {"insecure": insecure}}));
        let e = got.unwrap().unwrap().endpoint;
        assert_eq!(
            (e.https, e.host.as_str(), e.port),
            (https, host, port),
            "{endpoint}"
        );
    }
}

#[test]
fn sockets_in_the_file_system_are_named_by_their_paths() {
    for (endpoint, insecure, path) in [
        ("unix:///run/otlp.sock", true, "/run/otlp.sock"),
        ("unix:otlp.sock", false, "otlp.sock"),
        ("unix:/otlp.sock", false, "/otlp.sock"),
    ] {
        let got = decode(json!({"endpoint": endpoint, "tls": {"insecure": insecure}}));
        let got = got.unwrap().unwrap();
        assert_eq!(got.socket.as_deref(), Some(std::path::Path::new(path)));
        assert_eq!(got.endpoint.https, !insecure, "{endpoint}");
        assert_eq!(got.endpoint.authority(), "localhost");
    }
}

/// Guarantee: calls share a connection to a socket in the file system, whatever proxy there is for others, and
/// find the server again that took its place.
#[test]
fn calls_go_over_a_socket_in_the_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("otlp.sock");
    run(async {
        let mut options = options("127.0.0.1:1".parse().unwrap());
        options.endpoint = Endpoint::parse("http://localhost").unwrap();
        options.socket = Some(path.clone());
        let client = client(options);
        let error = call(&client).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Connect);
        assert!(error.message.contains("otlp.sock"), "{error}");
        for round in 1..=2 {
            let listener = tokio::net::UnixListener::bind(&path).unwrap();
            let server = tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                let service = service_fn(|request: Request<Incoming>| async move {
                    let authority = request.uri().authority().unwrap();
                    assert_eq!(authority.as_str(), "localhost");
                    Ok::<_, Infallible>(done(b""))
                });
                let connection = http2::Builder::new(TokioExecutor::new());
                let _ = connection
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
            for _ in 0..3 {
                let answer = call(&client).await.unwrap();
                assert_eq!(answer.headers["grpc-status"], "0", "{round}");
            }
            assert_eq!(client.open_connections(), 1);
            server.abort();
            assert!(server.await.unwrap_err().is_cancelled());
            std::fs::remove_file(&path).unwrap();
        }
    });
}

/// Says the next addresses each time it is asked, the last ones for ever.
struct Moving(Vec<SocketAddr>, AtomicUsize);

impl Resolver for Moving {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> Addresses<'a> {
        let n = self.1.fetch_add(1, Ordering::SeqCst);
        let now = self.0[n.min(self.0.len() - 1)];
        Box::pin(std::future::ready(Ok(vec![now])))
    }
}

/// Guarantee: a server that still works is left when its name has moved.
#[test]
fn a_name_that_moved_is_followed() {
    for balancer in [Balancer::RoundRobin, Balancer::PickFirst] {
        run(async {
            let old = serve("127.0.0.1:0", |_, _| async { done(b"") }).await;
            let new = serve("127.0.0.1:0", |_, _| async { done(b"") }).await;
            let endpoint = Endpoint::parse("http://otlp.example:4317").unwrap();
            let options = GrpcOptions {
                timeout: LONG,
                balancer,
                ..GrpcOptions::new(endpoint)
            };
            let moving = Moving(vec![old.address, new.address], AtomicUsize::new(0));
            let client = GrpcClient::new(GrpcParts {
                resolver: Arc::new(moving),
                ..parts(options)
            });
            let client = client.unwrap();
            for _ in 0..2 {
                call(&client).await.unwrap();
            }
            assert_eq!((old.calls(), new.calls()), (2, 0), "{balancer:?}");
            tokio::time::pause();
            tokio::time::advance(super::names::LOOK_AGAIN).await;
            tokio::time::resume();
            // The question is asked beside the calls: one more may go to the old address.
            let followed = async {
                while new.calls() == 0 {
                    call(&client).await.unwrap();
                }
            };
            tokio::time::timeout(LONG, followed)
                .await
                .expect("it follows");
            let before = old.calls();
            for _ in 0..4 {
                call(&client).await.unwrap();
            }
            assert_eq!((old.calls(), new.connections()), (before, 1));
            assert_eq!(client.open_connections(), 1, "{balancer:?}");
        });
    }
}

/// Guarantee: a pair of certificate and key that is replaced is used with the next call, over a new
/// connection; while it does not fit, the connection there is goes on.
#[test]
fn a_pair_that_is_replaced_is_shown_to_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let place = |to: &str| dir.path().join(to);
    let replace = |from: &str, to: &str| {
        std::fs::copy(pem(from), place("new")).unwrap();
        std::fs::rename(place("new"), place(to)).unwrap();
    };
    replace("client1.pem", "cert");
    replace("client1.key", "key");
    let config = super::test_server::server_config("server1", true, &[b"h2"]);
    run(async {
        let tls = Some(TlsAcceptor::from(config));
        let server = serve_with("127.0.0.1:0", tls, |_, _| async { done(b"") }).await;
        let mut options = options(server.address);
        let url = format!("https://localhost:{}", server.address.port());
        options.endpoint = Endpoint::parse(&url).unwrap();
        options.tls.ca = Some(PemSource::File(pem("ca1.pem").into()));
        options.tls.cert = Some(PemSource::File(place("cert")));
        options.tls.key = Some(PemSource::File(place("key")));
        let client = client(options);
        call(&client).await.unwrap();
        replace("client2.pem", "cert");
        for _ in 0..2 {
            call(&client).await.unwrap();
        }
        assert_eq!(server.connections(), 1, "the pair does not fit yet");
        replace("client2.key", "key");
        for _ in 0..2 {
            call(&client).await.unwrap();
        }
        assert_eq!(server.connections(), 2);
        assert_eq!(client.open_connections(), 1);
    });
}

#[test]
fn every_option_has_its_effect() {
    let got = decode(json!({
        "endpoint": "h:1", "timeout": "1s", "connect_timeout": "2s", "headers": {"a": "b"},
        "keepalive": {"time": "3s", "permit_without_stream": true}, "wait_for_ready": true,
        "balancer_name": "pick_first", "authority": "x:1", "user_agent": "u",
        "bearer_token": "t", "read_buffer_size": 1, "write_buffer_size": 1,
        "tls": {"server_name_override": "n"},
    }));
    let expect = GrpcOptions {
        timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(2),
        headers: vec![("a".into(), "b".into())],
        keepalive: Some(Keepalive {
            time: Duration::from_secs(3),
            timeout: Duration::from_secs(10),
            permit_without_stream: true,
        }),
        wait_for_ready: true,
        balancer: Balancer::PickFirst,
        authority: Some("x:1".into()),
        user_agent: Some("u".into()),
        auth: AuthOptions::Bearer { token: "t".into() },
        tls: TlsOptions {
            server_name_override: Some("n".into()),
            ..TlsOptions::default()
        },
        ..GrpcOptions::new(Endpoint::parse("https://h:1").unwrap())
    };
    assert_eq!(got.unwrap().unwrap(), expect);
    let keepalive = |written: serde_json::Value| {
        let config = json!({"endpoint": "h:1", "keepalive": written, "balancer_name": ""});
        let options = decode(config).unwrap().unwrap();
        assert_eq!(options.balancer, Balancer::PickFirst);
        options.keepalive.map(|k| k.time.as_secs())
    };
    assert_eq!(keepalive(json!({})), Some(10));
    // As in the collector.
    assert_eq!(keepalive(serde_json::Value::Null), None);
    assert_eq!(keepalive(json!({"enabled": false})), None);
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (config, part) in [
        (json!({}), "endpoint"),
        (json!({"endpoint": ""}), "endpoint"),
        (json!({"endpoint": "h"}), "port is missing"),
        (json!({"endpoint": "xds:///x"}), "xds:// is not supported"),
        (json!({"endpoint": "unix://x"}), "absolute path"),
        (json!({"endpoint": "unix:"}), "path of the socket"),
        (json!({"endpoint": "dns://8.8.8.8/h:1"}), "name server"),
        (json!({"endpoint": "http://h:1/v1"}), "has a path"),
        (
            json!({"endpoint": "h:1", "balancer_name": "xds"}),
            "round_robin",
        ),
        (
            json!({"endpoint": "h:1", "middlewares": [{"id": "a"}]}),
            "middlewares",
        ),
        (
            json!({"endpoint": "h:1", "headers": {"grpc-x": "1"}}),
            "cannot be configured",
        ),
        (json!({"endpoint": "h:1", "authority": "a b"}), "authority"),
        (
            json!({"endpoint": "h:1", "keepalive": {"time": "0s"}}),
            "time",
        ),
        (
            json!({"endpoint": "h:1", "bearer_token": "s3cret\n"}),
            "bearer_token",
        ),
        (
            json!({"endpoint": "h:1", "proxy_url": "http://p"}),
            "proxy_url",
        ),
    ] {
        let error = decode(config.clone()).expect_err(&config.to_string());
        assert!(
            error.contains(part) && !error.contains("s3cret"),
            "{config}: {error}"
        );
    }
}
