use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{HeaderValue, USER_AGENT};
use hyper::{HeaderMap, Method, StatusCode};

use super::names::Addresses;
use super::test_server::*;
use super::*;
use crate::delivery::SendErrorKind;

fn text(body: &Bytes) -> String {
    String::from_utf8(body.to_vec()).unwrap()
}

/// An address where nothing listens.
fn dead_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

#[test]
fn a_connection_is_used_again() {
    let server = Server::echo();
    let client = client(ClientOptions::default());
    run(async {
        for _ in 0..5 {
            let reply = post(&client, &server.endpoint("/push")).await.unwrap();
            assert_eq!(reply.status, StatusCode::OK);
        }
        assert_eq!(client.idle(), 1);
    });
    assert_eq!(server.connections(), 1);
}

#[test]
fn chunks_go_as_one_body_and_configured_headers_win() {
    let (tx, received) = mpsc::channel();
    let server = Server::start(move |_, mut stream| {
        while let Some(request) = receive(&mut stream) {
            tx.send(request).unwrap();
            answer(&mut stream, "204 No Content", "");
        }
    });
    let headers = vec![("x-scope-orgid".to_owned(), "configured".to_owned())];
    let client = client(ClientOptions {
        headers,
        ..ClientOptions::default()
    });
    let mut own = HeaderMap::new();
    own.insert("X-Scope-OrgID", HeaderValue::from_static("exporter"));
    own.insert("X-Own", HeaderValue::from_static("kept"));
    let body = vec![
        Bytes::from_static(b"one "),
        Bytes::new(),
        Bytes::from_static(b"two"),
    ];
    run(async {
        let to = server.endpoint("/push?a=b");
        client.send(Method::POST, &to, &own, body).await.unwrap();
    });
    let Received { head, body } = received.recv_timeout(LONG).unwrap();
    assert_eq!(body, b"one two");
    assert!(head.starts_with("POST /push?a=b HTTP/1.1\r\n"), "{head}");
    for line in [
        "x-scope-orgid: configured",
        "x-own: kept",
        "content-length: 7",
        &format!("host: {}", server.address),
        &format!("user-agent: Tailwater/{}", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    assert!(!head.contains("exporter"));
}

#[test]
fn an_exporter_may_name_itself() {
    let server = Server::echo();
    let client = client(ClientOptions::default());
    let mut own = HeaderMap::new();
    own.insert(USER_AGENT, HeaderValue::from_static("me/1"));
    let reply = run(client.send(Method::GET, &server.endpoint("/"), &own, vec![])).unwrap();
    assert!(text(&reply.body).contains("user-agent: me/1"));
}

#[test]
fn a_connection_that_the_server_closed_while_idle_costs_no_error() {
    // The first connection answers once, reads the second request and closes without an answer.
    let server = Server::start(|n, mut stream| {
        if n > 0 {
            return echo(&mut stream);
        }
        receive(&mut stream).expect("the first request");
        answer(&mut stream, "200 OK", "");
        receive(&mut stream).expect("the second request");
    });
    let client = client(ClientOptions::default());
    run(async {
        for _ in 0..2 {
            post(&client, &server.endpoint("/")).await.unwrap();
        }
    });
    assert_eq!(server.connections(), 2);
}

#[test]
fn an_answer_that_breaks_off_is_an_error_and_its_connection_is_not_kept() {
    let server = Server::start(|_, mut stream| {
        receive(&mut stream);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes!")
            .unwrap();
    });
    let client = client(ClientOptions::default());
    let error = run(post(&client, &server.endpoint("/"))).unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Broken);
    assert_eq!((client.idle(), server.connections()), (0, 1));
}

#[test]
fn no_answer_ends_with_the_timeout() {
    let server = Server::start(|_, mut stream| {
        receive(&mut stream);
        receive(&mut stream);
    });
    let timeout = Duration::from_millis(50);
    let client = client(ClientOptions {
        timeout,
        ..ClientOptions::default()
    });
    let error = run(post(&client, &server.endpoint("/x?key=secret"))).unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Timeout);
    assert!(
        error.message.contains("50ms") && error.message.contains("/x"),
        "{error}"
    );
    assert!(!error.message.contains("secret"), "{error}");
}

#[test]
fn a_huge_answer_is_cut_and_its_connection_closed() {
    let server = Server::start(|_, mut stream| {
        receive(&mut stream);
        let piece = vec![b'x'; 1 << 20];
        stream
            .write_all(b"HTTP/1.1 500 Oh\r\nContent-Length: 1073741824\r\n\r\n")
            .unwrap();
        while stream.write_all(&piece).is_ok() {}
    });
    let client = client(ClientOptions::default());
    let reply = run(post(&client, &server.endpoint("/"))).unwrap();
    assert_eq!(
        (reply.body.len(), reply.truncated),
        (RESPONSE_BYTES_MAX, true)
    );
    assert_eq!(
        (reply.status, client.idle()),
        (StatusCode::INTERNAL_SERVER_ERROR, 0)
    );
}

/// Gives fixed addresses and counts how often it is asked.
struct Fixed(Vec<SocketAddr>, AtomicUsize);

impl Resolver for Fixed {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> Addresses<'a> {
        self.1.fetch_add(1, Ordering::SeqCst);
        let found = match self.0.is_empty() {
            true => Err(io::Error::other("no such host")),
            false => Ok(self.0.clone()),
        };
        Box::pin(std::future::ready(found))
    }
}

fn client_at(addresses: Vec<SocketAddr>, options: ClientOptions) -> (HttpClient, Arc<Fixed>) {
    let resolver = Arc::new(Fixed(addresses, AtomicUsize::new(0)));
    let parts = ClientParts {
        resolver: resolver.clone(),
        ..parts(options)
    };
    (HttpClient::new(parts).unwrap(), resolver)
}

#[test]
fn every_address_is_tried_and_names_are_asked_for_rarely() {
    let server = Server::echo();
    let options = ClientOptions {
        disable_keep_alives: true,
        ..ClientOptions::default()
    };
    let (client, resolver) = client_at(vec![dead_address(), server.address], options);
    let to = Endpoint::parse("http://loki.test:3100/").unwrap();
    run(async {
        for _ in 0..2 {
            let reply = post(&client, &to).await.unwrap();
            let head = text(&reply.body);
            assert!(head.contains("host: loki.test:3100") && head.contains("connection: close"));
        }
    });
    assert_eq!(
        (resolver.1.load(Ordering::SeqCst), server.connections()),
        (1, 2)
    );
}

/// An address that takes no connection and does not say so; it lasts as long as what comes with it.
async fn silent_address() -> (SocketAddr, Vec<tokio::net::TcpStream>, TcpListener) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap().into_std().unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    let full = Duration::from_millis(300);
    while let Ok(stream) = tokio::time::timeout(full, tokio::net::TcpStream::connect(address)).await
    {
        waiting.push(stream.unwrap());
    }
    (address, waiting, listener)
}

#[test]
fn an_address_that_is_silent_delays_nothing() {
    let server = Server::echo();
    run(async {
        let (address, _waiting, _listener) = silent_address().await;
        let options = ClientOptions {
            connect_timeout: 100 * LONG,
            ..ClientOptions::default()
        };
        let (client, _) = client_at(vec![address, server.address], options);
        let to = Endpoint::parse("http://loki.test:3100/").unwrap();
        post(&client, &to).await.unwrap();
    });
}

#[test]
fn a_server_that_takes_requests_and_does_not_answer_is_left_for_another_address() {
    let stuck = Server::start(|_, mut stream| while receive(&mut stream).is_some() {});
    let server = Server::echo();
    let options = ClientOptions {
        timeout: Duration::from_millis(100),
        ..ClientOptions::default()
    };
    let (client, _) = client_at(vec![stuck.address, server.address], options);
    let to = Endpoint::parse("http://loki.test:3100/").unwrap();
    run(async {
        let error = post(&client, &to).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Timeout);
        post(&client, &to).await.unwrap();
    });
}

#[test]
fn a_server_that_closes_at_once_is_left_for_another_address() {
    let broken = Server::start(|_, mut stream| drop(receive(&mut stream)));
    let server = Server::echo();
    let (client, _) = client_at(
        vec![broken.address, server.address],
        ClientOptions::default(),
    );
    let to = Endpoint::parse("http://loki.test:3100/").unwrap();
    run(async {
        post(&client, &to).await.unwrap_err();
        post(&client, &to).await.unwrap();
    });
}

#[test]
fn idle_connections_to_a_server_that_became_silent_are_forgotten() {
    // Each connection answers once.
    let server = Server::start(|n, mut stream| {
        receive(&mut stream).expect("the first request");
        answer(&mut stream, "200 OK", "");
        match n {
            0..3 => while receive(&mut stream).is_some() {},
            _ => echo(&mut stream),
        }
    });
    let client = client(ClientOptions {
        timeout: Duration::from_secs(1),
        ..ClientOptions::default()
    });
    let to = server.endpoint("/");
    run(async {
        let (a, b, c) = tokio::join!(post(&client, &to), post(&client, &to), post(&client, &to));
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
        assert_eq!(client.idle(), 3);
        post(&client, &to).await.unwrap_err();
        assert_eq!(client.idle(), 0);
        post(&client, &to).await.unwrap();
    });
}

/// Says another address each time it is asked.
struct Moving(Vec<SocketAddr>, AtomicUsize);

impl Resolver for Moving {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> Addresses<'a> {
        let n = self.1.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(Ok(vec![
            self.0[n.min(self.0.len() - 1)],
        ])))
    }
}

#[test]
fn a_server_that_still_works_is_left_when_its_name_has_moved() {
    let (old, new) = (Server::echo(), Server::echo());
    let addresses = vec![old.address, new.address];
    let parts = ClientParts {
        resolver: Arc::new(Moving(addresses, AtomicUsize::new(0))),
        ..parts(ClientOptions::default())
    };
    let client = HttpClient::new(parts).unwrap();
    let to = Endpoint::parse("http://loki.test:3100/").unwrap();
    run(async {
        post(&client, &to).await.unwrap();
        post(&client, &to).await.unwrap();
        assert_eq!((old.connections(), new.connections()), (1, 0));
        tokio::time::pause();
        tokio::time::advance(super::names::LOOK_AGAIN).await;
        tokio::time::resume();
        for _ in 0..2 {
            post(&client, &to).await.unwrap();
        }
        assert_eq!((old.connections(), new.connections()), (1, 1));
    });
}

#[test]
fn a_server_that_cannot_be_reached_is_named_with_all_addresses() {
    let (a, b) = (dead_address(), dead_address());
    let to = Endpoint::parse("http://loki.test:3100/").unwrap();
    let (client, _) = client_at(vec![a, b], ClientOptions::default());
    let error = run(post(&client, &to)).unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Connect);
    for part in ["loki.test:3100".to_owned(), a.to_string(), b.to_string()] {
        assert!(error.message.contains(&part), "{error}");
    }
    let (client, _) = client_at(vec![], ClientOptions::default());
    let error = run(post(&client, &to)).unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Connect);
    assert!(
        error
            .message
            .contains("cannot resolve loki.test:3100: no such host"),
        "{error}"
    );
}

#[test]
fn a_plain_request_goes_through_the_proxy_whole() {
    let proxy = Server::echo();
    let url = format!("http://user:pw@{}", proxy.address);
    let client = client(ClientOptions {
        proxy_url: Some(url),
        ..ClientOptions::default()
    });
    let to = Endpoint::parse("http://loki.test/push?x=1").unwrap();
    let head = text(&run(post(&client, &to)).unwrap().body);
    assert!(
        head.starts_with("POST http://loki.test/push?x=1 HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("host: loki.test\r\n"), "{head}");
    assert!(
        head.contains("proxy-authorization: Basic dXNlcjpwdw=="),
        "{head}"
    );
}

#[test]
fn the_environment_names_a_proxy_and_its_exceptions() {
    let proxy = Server::echo();
    let server = Server::echo();
    let proxy_env = ProxyEnv {
        http: Some(proxy.address.to_string()),
        no_proxy: Some("direct.test".into()),
        ..ProxyEnv::default()
    };
    let resolver = Arc::new(Fixed(vec![server.address], AtomicUsize::new(0)));
    let parts = ClientParts {
        proxy_env,
        resolver,
        ..parts(ClientOptions::default())
    };
    let client = HttpClient::new(parts).unwrap();
    run(async {
        for (url, through) in [("http://loki.test/", true), ("http://direct.test/", false)] {
            let head = text(
                &post(&client, &Endpoint::parse(url).unwrap())
                    .await
                    .unwrap()
                    .body,
            );
            assert_eq!(head.starts_with("POST http://"), through, "{head}");
        }
    });
    assert_eq!((proxy.connections(), server.connections()), (1, 1));
}

#[test]
fn a_host_gets_no_more_connections_than_allowed() {
    let server = Server::echo();
    let options = ClientOptions {
        max_conns_per_host: 1,
        ..ClientOptions::default()
    };
    let client = client(options);
    let to = server.endpoint("/");
    run(async {
        let (a, b, c) = tokio::join!(post(&client, &to), post(&client, &to), post(&client, &to));
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
    });
    assert_eq!(server.connections(), 1);
}

#[test]
fn idle_connections_are_limited_in_number_and_time() {
    let (tx, closed) = mpsc::channel();
    let server = Server::start(move |_, mut stream| {
        echo(&mut stream);
        tx.send(()).ok();
    });
    let options = ClientOptions {
        max_idle_conns_per_host: 2,
        idle_conn_timeout: Duration::from_millis(40),
        ..ClientOptions::default()
    };
    let client = client(options);
    let to = server.endpoint("/");
    run(async {
        let (a, b, c) = tokio::join!(post(&client, &to), post(&client, &to), post(&client, &to));
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
        assert!(client.idle() <= 2);
        while client.idle() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    for _ in 0..server.connections() {
        closed
            .recv_timeout(LONG)
            .expect("every connection is closed");
    }
}

#[test]
fn options_that_cannot_work_are_refused_by_name() {
    let header = |name: &str, value: &str| ClientOptions {
        headers: vec![(name.into(), value.into())],
        ..ClientOptions::default()
    };
    for (options, part) in [
        (header("Content-Length", "1"), "Content-Length"),
        (header("bad name", "1"), "bad name"),
        (header("X-Key", "s3cret\n"), "X-Key"),
        (
            ClientOptions {
                proxy_url: Some("socks4://p".into()),
                ..ClientOptions::default()
            },
            "proxy_url",
        ),
    ] {
        let error = HttpClient::new(parts(options)).err().unwrap().to_string();
        assert!(error.contains(part) && !error.contains("s3cret"), "{error}");
    }
}

/// Guarantee: what a server sets, with any answer, it is told with the next requests, unless they are
/// configured to say something else; without `cookies` it is not.
#[test]
fn cookies_are_sent_back() {
    let server = Server::start(|_, mut stream| {
        while let Some(request) = receive(&mut stream) {
            let text = &request.head;
            let head = format!(
                "HTTP/1.1 503 Busy\r\nSet-Cookie: n=v; Path=/\r\nSet-Cookie: m=w\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            );
            stream.write_all(head.as_bytes()).unwrap();
        }
    });
    let configured = vec![("Cookie".to_owned(), "own=1".to_owned())];
    for (cookies, headers, expect) in [
        (true, vec![], Some("cookie: n=v; m=w\r\n")),
        (false, vec![], None),
        (true, configured, Some("cookie: own=1\r\n")),
    ] {
        let client = client(ClientOptions {
            cookies,
            headers,
            ..ClientOptions::default()
        });
        run(async {
            post(&client, &server.endpoint("/")).await.unwrap();
            let head = text(&post(&client, &server.endpoint("/")).await.unwrap().body);
            let line = head
                .split_inclusive("\r\n")
                .find(|l| l.starts_with("cookie:"));
            assert_eq!(line, expect, "{head}");
        });
    }
}
