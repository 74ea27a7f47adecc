use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rustls::{CipherSuite, NamedGroup, ServerConnection, StreamOwned};
use tailwater_pipeline::pem::PemSource;
use tailwater_pipeline::tls::{Handshake, TlsVersion};

use super::test_server::*;
use super::*;
use crate::delivery::SendErrorKind;

fn file(name: &str) -> Option<PemSource> {
    Some(PemSource::File(PathBuf::from(pem(name))))
}

fn trusting(ca: &str) -> TlsOptions {
    TlsOptions {
        ca: file(ca),
        ..TlsOptions::default()
    }
}

fn with(tls: TlsOptions) -> ClientOptions {
    ClientOptions {
        tls,
        ..ClientOptions::default()
    }
}

/// A server with certificate `name` that echoes.
fn tls_server(name: &'static str, mutual: bool) -> Server {
    Server::start(move |_, stream| echo(&mut accept_tls(stream, name, mutual)))
}

fn https(server: &Server) -> Endpoint {
    Endpoint::parse(&format!("https://{}/push", server.address)).unwrap()
}

#[test]
fn a_server_of_a_trusted_authority_is_accepted_and_others_are_refused() {
    let server = tls_server("server1", false);
    let good = client(with(trusting("ca1.pem")));
    run(async {
        post(&good, &https(&server)).await.unwrap();
        post(&good, &https(&server)).await.unwrap();
    });
    assert_eq!(
        server.connections(),
        1,
        "TLS connections are used again too"
    );
    let bad = client(with(trusting("ca2.pem")));
    let error = run(post(&bad, &https(&server))).unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Tls);
    assert!(
        error.message.contains(&server.address.to_string()),
        "{error}"
    );
    assert!(error.message.contains("UnknownIssuer"), "{error}");
}

#[test]
fn skipping_verification_accepts_any_certificate() {
    let server = tls_server("server2", false);
    let tls = TlsOptions {
        insecure_skip_verify: true,
        ..TlsOptions::default()
    };
    run(post(&client(with(tls)), &https(&server))).unwrap();
}

#[test]
fn the_name_to_verify_can_be_given() {
    let server = tls_server("server1", false);
    for (name, fits) in [("other.test", true), ("elsewhere.test", false)] {
        let tls = TlsOptions {
            server_name_override: Some(name.into()),
            ..trusting("ca1.pem")
        };
        let result = run(post(&client(with(tls)), &https(&server)));
        assert_eq!(result.is_ok(), fits, "{name}: {result:?}");
    }
}

#[test]
fn every_version_alone_works() {
    let server = tls_server("server1", false);
    for version in [TlsVersion::V12, TlsVersion::V13] {
        let tls = TlsOptions {
            handshake: Handshake {
                min_version: version,
                max_version: version,
                ..Handshake::default()
            },
            ..trusting("ca1.pem")
        };
        run(post(&client(with(tls)), &https(&server))).unwrap();
    }
}

/// Guarantee: what is agreed on is among what is configured.
#[test]
fn suites_and_curves_are_those_configured() {
    use rustls::CipherSuite::{
        TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    };
    let (tx, agreed) = std::sync::mpsc::channel();
    let server = Server::start(move |_, stream| {
        let mut stream = accept_tls(stream, "server1", false);
        echo(&mut stream);
        let suite = stream.conn.negotiated_cipher_suite().map(|s| s.suite());
        let group = stream.conn.negotiated_key_exchange_group();
        tx.send((suite, group.map(|g| g.name()))).unwrap();
    });
    let wanted: [(CipherSuite, NamedGroup); 2] = [
        (
            TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            NamedGroup::secp384r1,
        ),
        (
            TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            NamedGroup::secp256r1,
        ),
    ];
    for (suite, curve) in wanted {
        let tls = TlsOptions {
            handshake: Handshake {
                max_version: TlsVersion::V12,
                suites: vec![suite],
                curves: vec![curve],
                ..Handshake::default()
            },
            ..trusting("ca1.pem")
        };
        run(post(&client(with(tls)), &https(&server))).unwrap();
        let got = agreed.recv_timeout(LONG).unwrap();
        assert_eq!(got, (Some(suite), Some(curve)));
    }
}

#[test]
fn a_client_certificate_is_shown() {
    let server = tls_server("server1", true);
    let tls = TlsOptions {
        cert: file("client1.pem"),
        key: Some(PemSource::Text(
            std::fs::read_to_string(pem("client1.key")).unwrap(),
        )),
        ..trusting("ca1.pem")
    };
    run(post(&client(with(tls)), &https(&server))).unwrap();
    // Said after the handshake, or before its end, as the version has it.
    for version in [TlsVersion::V12, TlsVersion::V13] {
        let tls = TlsOptions {
            handshake: Handshake {
                max_version: version,
                ..Handshake::default()
            },
            ..trusting("ca1.pem")
        };
        let error = run(post(&client(with(tls)), &https(&server))).unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Tls, "{error}");
    }
}

#[test]
fn an_address_without_a_secure_connection_is_left_for_another_one() {
    let server = tls_server("server1", false);
    // The wrong authority; and one that never says anything, for longer than an attempt may take.
    let stranger = tls_server("server2", false);
    let silent = Server::start(|_, mut stream| drop(stream.read_to_end(&mut Vec::new())));
    for first in [&stranger, &silent] {
        let parts = ClientParts {
            resolver: Arc::new(Both(vec![first.address, server.address])),
            ..parts(ClientOptions {
                timeout: std::time::Duration::from_millis(500),
                ..with(trusting("ca1.pem"))
            })
        };
        let client = HttpClient::new(parts).unwrap();
        let to = Endpoint::parse("https://localhost:3100/").unwrap();
        run(async {
            post(&client, &to).await.unwrap_err();
            post(&client, &to).await.unwrap();
        });
    }
}

/// Gives these addresses for every name.
struct Both(Vec<std::net::SocketAddr>);

impl Resolver for Both {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> super::names::Addresses<'a> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }
}

#[test]
fn a_connection_is_left_when_the_pair_is_replaced_and_kept_while_it_is_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let place = |to: &str| dir.path().join(to);
    let replace = |from: &str, to: &str| {
        std::fs::copy(pem(from), place("new")).unwrap();
        std::fs::rename(place("new"), place(to)).unwrap();
    };
    replace("client1.pem", "cert");
    replace("client1.key", "key");
    let server = tls_server("server1", true);
    let tls = TlsOptions {
        cert: Some(PemSource::File(place("cert"))),
        key: Some(PemSource::File(place("key"))),
        ..trusting("ca1.pem")
    };
    let client = client(with(tls));
    run(async {
        let to = https(&server);
        post(&client, &to).await.unwrap();
        replace("client2.pem", "cert");
        for _ in 0..2 {
            post(&client, &to).await.unwrap();
        }
        assert_eq!(server.connections(), 1, "the pair does not fit yet");
        std::fs::write(place("key"), "-----BEGIN PRIVATE KEY-----\nMIG").unwrap();
        post(&client, &to).await.unwrap();
        assert_eq!(server.connections(), 1, "half of a key");
        replace("client2.key", "key");
        for _ in 0..2 {
            post(&client, &to).await.unwrap();
        }
        assert_eq!(server.connections(), 2);
    });
}

#[test]
fn certificates_are_read_again_when_they_change_and_kept_when_they_break() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    std::fs::copy(pem("ca1.pem"), &path).unwrap();
    let server = tls_server("server2", false);
    let tls = TlsOptions {
        ca: Some(PemSource::File(path.clone())),
        ..TlsOptions::default()
    };
    let options = ClientOptions {
        disable_keep_alives: true,
        ..with(tls)
    };
    let client = client(options);
    run(async {
        let error = post(&client, &https(&server)).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Tls);
        std::fs::copy(pem("ca2.pem"), &path).unwrap();
        post(&client, &https(&server)).await.unwrap();
        std::fs::write(&path, "half a file").unwrap();
        post(&client, &https(&server))
            .await
            .expect("the last good certificates go on");
        std::fs::remove_file(&path).unwrap();
        post(&client, &https(&server))
            .await
            .expect("the last good certificates go on");
    });
}

#[test]
fn a_reload_interval_is_kept_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    std::fs::copy(pem("ca1.pem"), &path).unwrap();
    let server = tls_server("server2", false);
    let tls = TlsOptions {
        ca: Some(PemSource::File(path.clone())),
        reload_interval: std::time::Duration::from_secs(3600),
        ..TlsOptions::default()
    };
    let client = client(with(tls));
    std::fs::copy(pem("ca2.pem"), &path).unwrap();
    let error = run(post(&client, &https(&server))).unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Tls);
}

#[test]
fn mistakes_in_tls_options_show_when_the_client_is_built() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for (tls, part) in [
        (trusting("absent.pem"), "tls::ca_file: cannot read"),
        (
            TlsOptions {
                ca: Some(PemSource::File(empty)),
                ..TlsOptions::default()
            },
            "no certificate",
        ),
        (
            TlsOptions {
                cert: file("client1.pem"),
                ..trusting("ca1.pem")
            },
            "needs key_file",
        ),
        (
            TlsOptions {
                cert: file("client1.pem"),
                key: file("server1.key"),
                ..trusting("ca1.pem")
            },
            "tls::cert_file",
        ),
    ] {
        let error = HttpClient::new(parts(with(tls))).err().unwrap().to_string();
        assert!(error.contains(part), "{error}");
    }
}

/// A proxy that opens one tunnel to `to`, or answers with `refusal`.
fn tunnel_proxy(
    to: String,
    refusal: Option<&'static str>,
) -> (Server, std::sync::mpsc::Receiver<String>) {
    let (tx, heads) = std::sync::mpsc::channel();
    let tx = Mutex::new(tx);
    let server = Server::start(move |_, mut stream| {
        let Some(request) = receive(&mut stream) else {
            return;
        };
        tx.lock().unwrap().send(request.head).unwrap();
        if let Some(refusal) = refusal {
            return answer(&mut stream, refusal, "");
        }
        let up = TcpStream::connect(&to).unwrap();
        stream
            .write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
            .unwrap();
        let (mut up_read, mut down_write) = (up.try_clone().unwrap(), stream.try_clone().unwrap());
        std::thread::spawn(move || copy(&mut up_read, &mut down_write));
        copy(&mut stream, &mut { up });
    });
    (server, heads)
}

fn copy(from: &mut TcpStream, to: &mut TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    to.shutdown(std::net::Shutdown::Write).ok();
}

#[test]
fn tls_goes_through_a_tunnel_of_the_proxy() {
    let server = tls_server("server1", false);
    let (proxy, heads) = tunnel_proxy(server.address.to_string(), None);
    let proxy_url = Some(format!("http://user:pw@{}", proxy.address));
    let options = ClientOptions {
        proxy_url,
        ..with(trusting("ca1.pem"))
    };
    let client = client(options);
    // A name that only the proxy can resolve; the certificate is checked against it.
    let to = Endpoint::parse("https://other.test/push").unwrap();
    run(async {
        post(&client, &to).await.unwrap();
        post(&client, &to).await.unwrap();
    });
    assert_eq!((proxy.connections(), server.connections()), (1, 1));
    let head = heads.recv_timeout(LONG).unwrap();
    assert!(head.starts_with("CONNECT other.test:443 HTTP/1.1\r\nHost: other.test:443\r\n"));
    assert!(
        head.contains("Proxy-Authorization: Basic dXNlcjpwdw=="),
        "{head}"
    );
}

#[test]
fn a_proxy_that_refuses_the_tunnel_is_quoted() {
    let (proxy, _heads) = tunnel_proxy(String::new(), Some("407 Proxy Authentication Required"));
    let proxy_url = Some(format!("http://{}", proxy.address));
    let options = ClientOptions {
        proxy_url,
        ..with(trusting("ca1.pem"))
    };
    let to = Endpoint::parse("https://other.test/push").unwrap();
    let error = run(post(&client(options), &to)).unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Connect);
    assert!(
        error.message.contains("407 Proxy Authentication Required"),
        "{error}"
    );
}

fn through(proxy: &Server, tls: TlsOptions) -> ClientOptions {
    ClientOptions {
        proxy_url: Some(format!("https://user:pw@{}", proxy.address)),
        ..with(tls)
    }
}

/// Guarantee: a proxy that is spoken to over TLS takes plain requests whole, over connections that stay; it is
/// verified by its own name, and refused if it is not trusted.
#[test]
fn a_proxy_over_tls_takes_plain_requests() {
    let proxy = tls_server("server1", false);
    let tls = TlsOptions {
        server_name_override: Some("elsewhere.test".into()),
        ..trusting("ca1.pem")
    };
    let good = client(through(&proxy, tls));
    let to = Endpoint::parse("http://loki.test/push").unwrap();
    run(async {
        for _ in 0..2 {
            let reply = post(&good, &to).await.unwrap();
            let head = String::from_utf8(reply.body.to_vec()).unwrap();
            assert!(head.starts_with("POST http://loki.test/push HTTP/1.1\r\n"));
            assert!(head.contains("proxy-authorization: Basic dXNlcjpwdw=="));
        }
    });
    assert_eq!(proxy.connections(), 1);
    let bad = client(through(&proxy, trusting("ca2.pem")));
    let error = run(post(&bad, &to)).unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Tls);
    assert!(
        error.message.contains("proxy https://127.0.0.1:"),
        "{error}"
    );
    assert!(!error.message.contains("pw"), "{error}");
}

/// Guarantee: for TLS with the server, a proxy over TLS is asked for a tunnel, and both are verified, each by its name.
#[test]
fn tls_goes_through_a_tunnel_of_tls() {
    let proxy = Server::start(|_, stream| {
        let mut outer = accept_tls(stream, "server1", false);
        let asked = receive(&mut outer).unwrap().head;
        assert!(
            asked.starts_with("CONNECT name.test:443 HTTP/1.1\r\n"),
            "{asked}"
        );
        assert!(
            asked.contains("Proxy-Authorization: Basic dXNlcjpwdw=="),
            "{asked}"
        );
        outer.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let inner = ServerConnection::new(server_config("server1", false, &[])).unwrap();
        echo(&mut StreamOwned::new(inner, outer));
    });
    let to = Endpoint::parse("https://name.test/push").unwrap();
    for (name, fits) in [("other.test", true), ("elsewhere.test", false)] {
        let tls = TlsOptions {
            server_name_override: Some(name.into()),
            ..trusting("ca1.pem")
        };
        let result = run(post(&client(through(&proxy, tls)), &to));
        assert_eq!(result.is_ok(), fits, "{name}: {result:?}");
    }
}
