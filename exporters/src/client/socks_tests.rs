//! Against a SOCKS server on loopback, written from the RFCs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use hyper::{HeaderMap, StatusCode};

use super::test_server::*;
use super::*;
use crate::delivery::SendErrorKind;

/// What a SOCKS server was told: the offered ways to log in, who logged in, and where to connect to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Told {
    methods: Vec<u8>,
    login: Option<(String, String)>,
    to: String,
}

/// How a SOCKS server behaves.
#[derive(Clone)]
struct Behaviour {
    /// The way to log in that it chooses.
    method: u8,
    /// Whether it takes the login.
    login: u8,
    /// What it answers to the request: the code, and the address behind it.
    reply: Vec<u8>,
    /// Where its connections really lead.
    to: String,
}

impl Behaviour {
    /// One that connects to `to`, whatever it is asked for.
    fn leading_to(to: &Server) -> Behaviour {
        Behaviour {
            method: 0,
            login: 0,
            reply: vec![5, 0, 0, 1, 127, 0, 0, 1, 4, 56],
            to: to.address.to_string(),
        }
    }

    fn start(self) -> (Server, mpsc::Receiver<Told>) {
        let (tx, told) = mpsc::channel();
        let tx = Mutex::new(tx);
        let server = Server::start(move |_, stream| {
            let tx = tx.lock().unwrap().clone();
            // A client that goes away in between is a result, too.
            let _ = self.serve(stream, &tx);
        });
        (server, told)
    }

    fn serve(&self, mut stream: TcpStream, tx: &mpsc::Sender<Told>) -> std::io::Result<()> {
        let mut told = Told::default();
        let [version, count] = bytes(&mut stream)?;
        assert_eq!(version, 5);
        told.methods = text(&mut stream, count)?;
        stream.write_all(&[5, self.method])?;
        if self.method == 2 {
            let [version, length] = bytes(&mut stream)?;
            assert_eq!(version, 1);
            let user = text(&mut stream, length)?;
            let [length] = bytes(&mut stream)?;
            let password = text(&mut stream, length)?;
            let string = |text: Vec<u8>| String::from_utf8(text).unwrap();
            told.login = Some((string(user), string(password)));
            stream.write_all(&[1, self.login])?;
        }
        if ![0, 2].contains(&self.method) || self.login != 0 {
            tx.send(told).ok();
            return Ok(());
        }
        let [version, command, reserved, kind] = bytes(&mut stream)?;
        assert_eq!((version, command, reserved), (5, 1, 0));
        let host = match kind {
            1 => std::net::Ipv4Addr::from(bytes::<4>(&mut stream)?).to_string(),
            4 => std::net::Ipv6Addr::from(bytes::<16>(&mut stream)?).to_string(),
            3 => {
                let [length] = bytes(&mut stream)?;
                String::from_utf8(text(&mut stream, length)?).unwrap()
            }
            other => panic!("kind of address {other}"),
        };
        let port = u16::from_be_bytes(bytes(&mut stream)?);
        told.to = format!("{host} {port}");
        tx.send(told).ok();
        stream.write_all(&self.reply)?;
        let opened = self.reply.starts_with(&[5, 0, 0]) && self.reply.len() > 6;
        if !opened {
            return Ok(());
        }
        let up = TcpStream::connect(&self.to)?;
        let (mut from, mut down) = (up.try_clone()?, stream.try_clone()?);
        std::thread::spawn(move || copy(&mut from, &mut down));
        copy(&mut stream, &mut { up });
        Ok(())
    }
}

fn bytes<const N: usize>(stream: &mut TcpStream) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn text(stream: &mut TcpStream, length: u8) -> std::io::Result<Vec<u8>> {
    let mut text = vec![0; usize::from(length)];
    stream.read_exact(&mut text)?;
    Ok(text)
}

fn copy(from: &mut TcpStream, to: &mut TcpStream) {
    std::io::copy(from, to).ok();
    to.shutdown(std::net::Shutdown::Write).ok();
}

fn through(proxy: &Server, login: &str) -> ClientOptions {
    ClientOptions {
        proxy_url: Some(format!("socks5://{login}{}", proxy.address)),
        ..ClientOptions::default()
    }
}

/// Guarantee: requests go through the tunnel as if there were no proxy, over a connection that stays, to a
/// name that the proxy alone knows, or an address of either kind.
#[test]
fn plain_requests_go_through_a_tunnel() {
    for (url, to) in [
        ("http://name.test/push", "name.test 80"),
        ("http://10.1.2.3:3100/push", "10.1.2.3 3100"),
        ("http://[2001:db8::1]:3100/push", "2001:db8::1 3100"),
    ] {
        let server = Server::echo();
        let (proxy, told) = Behaviour::leading_to(&server).start();
        let client = client(through(&proxy, ""));
        let to_it = Endpoint::parse(url).unwrap();
        for _ in 0..3 {
            let reply = run(post(&client, &to_it));
            // Each runtime takes its connections along.
            let head = String::from_utf8(reply.unwrap().body.to_vec()).unwrap();
            assert!(head.starts_with("POST /push HTTP/1.1\r\n"), "{head}");
            assert!(!head.to_lowercase().contains("proxy-"), "{head}");
            let expect = Told {
                methods: vec![0],
                login: None,
                to: to.to_owned(),
            };
            assert_eq!(told.recv_timeout(LONG).unwrap(), expect);
        }
        run(async {
            for _ in 0..3 {
                post(&client, &to_it).await.unwrap();
            }
        });
        assert_eq!((proxy.connections(), server.connections()), (4, 4));
    }
}

/// Guarantee: user and password of the URL are told to the proxy where it asks, and only then; the answer's
/// address may be of any kind, and not a byte of TLS behind it is lost.
#[test]
fn tls_goes_through_a_tunnel_with_a_login() {
    let addresses: [&[u8]; 3] = [
        &[1, 127, 0, 0, 1, 0, 80],
        &[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 80],
        b"\x03\x05proxy\0P",
    ];
    for (method, address) in [2, 0, 2].into_iter().zip(addresses) {
        let server = Server::start(|_, stream| echo(&mut accept_tls(stream, "server1", false)));
        let behaviour = Behaviour {
            method,
            reply: [&[5, 0, 0], address].concat(),
            ..Behaviour::leading_to(&server)
        };
        let (proxy, told) = behaviour.start();
        let ca = tailwater_pipeline::pem::PemSource::File(pem("ca1.pem").into());
        let client = client(ClientOptions {
            tls: TlsOptions {
                ca: Some(ca),
                ..TlsOptions::default()
            },
            ..through(&proxy, "us%3Aer:p%40w@")
        });
        // The certificate is checked against a name that only the proxy can resolve.
        let to = Endpoint::parse("https://other.test/push").unwrap();
        let reply = run(post(&client, &to)).unwrap();
        assert_eq!(reply.status, StatusCode::OK);
        let login = (method == 2).then(|| ("us:er".to_owned(), "p@w".to_owned()));
        let expect = Told {
            methods: vec![0, 2],
            login,
            to: "other.test 443".to_owned(),
        };
        assert_eq!(told.recv_timeout(LONG).unwrap(), expect);
    }
}

/// Guarantee: whatever a proxy refuses is an error of the connection that says what it was, and shows no
/// password.
#[test]
fn refusals_are_named() {
    let server = Server::echo();
    let good = Behaviour::leading_to(&server);
    let method = |method| Behaviour {
        method,
        ..good.clone()
    };
    let reply = |reply: &[u8]| Behaviour {
        reply: reply.to_vec(),
        ..good.clone()
    };
    let refused = |code: u8| reply(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
    let login = Behaviour {
        login: 1,
        ..method(2)
    };
    for (behaviour, part) in [
        (method(0xff), "none of the offered ways"),
        (method(1), "not offered: 1"),
        (login, "refused the user or password"),
        (refused(1), "answered 1: general failure"),
        (refused(2), "2: not allowed by its rules"),
        (refused(3), "3: network unreachable"),
        (refused(4), "4: host unreachable"),
        (refused(5), "5: connection refused"),
        (refused(6), "6: time to live expired"),
        (refused(7), "7: command not supported"),
        (refused(8), "8: kind of address not supported"),
        (refused(99), "99: unknown reason"),
        (reply(&[4, 0, 0, 1]), "does not speak SOCKS 5"),
        (reply(&[5, 0, 0, 9]), "unknown kind of address: 9"),
        (reply(&[5, 2]), "eof"),
    ] {
        let (proxy, _told) = behaviour.start();
        let client = client(through(&proxy, "user:s3cret@"));
        let to = Endpoint::parse("http://name.test/push").unwrap();
        let error = run(post(&client, &to)).unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Connect, "{error}");
        let text = error.to_string();
        let place = format!("CONNECT name.test:80 through socks5://{}", proxy.address);
        assert!(text.contains(&place) && text.contains(part), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
    assert_eq!(server.connections(), 0);
}

/// Guarantee: without a login none is offered, and a proxy that wants one is told nothing.
#[test]
fn a_login_that_is_wanted_and_missing_is_said() {
    let server = Server::echo();
    for (method, part) in [
        (0xff, "may hold a user and password"),
        (2, "not offered: 2"),
    ] {
        let behaviour = Behaviour {
            method,
            login: 1,
            ..Behaviour::leading_to(&server)
        };
        let (proxy, _told) = behaviour.start();
        let client = client(through(&proxy, ""));
        let error = run(post(
            &client,
            &Endpoint::parse("http://name.test/").unwrap(),
        ));
        let text = error.unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    }
}

/// Guarantee: what speaks something else, or nothing, does not hold an attempt for longer than
/// `connect_timeout`, and a name that does not fit is not sent.
#[test]
fn what_is_no_socks_proxy_is_found_out() {
    let http = Server::start(|_, mut stream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").ok();
        std::io::copy(&mut stream, &mut std::io::sink()).ok();
    });
    let silent = Server::start(|_, mut stream| {
        std::io::copy(&mut stream, &mut std::io::sink()).ok();
    });
    let long = format!("http://{}/", "a".repeat(256));
    for (proxy, url, part) in [
        (&http, "http://name.test/", "began its answer with 72"),
        (&silent, "http://name.test/", "no answer to CONNECT"),
        (&silent, &long, "longer than 255 bytes"),
    ] {
        let client = client(ClientOptions {
            connect_timeout: Duration::from_millis(100),
            ..through(proxy, "")
        });
        let error = run(post(&client, &Endpoint::parse(url).unwrap())).unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Connect, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

/// Guarantee: the environment may name such a proxy, for plain requests and for gRPC.
#[test]
fn the_environment_may_name_one() {
    let server = Server::echo();
    let (proxy, told) = Behaviour::leading_to(&server).start();
    let client = HttpClient::new(ClientParts {
        proxy_env: ProxyEnv {
            http: Some(format!("socks5h://{}", proxy.address)),
            ..ProxyEnv::default()
        },
        ..parts(ClientOptions::default())
    });
    let to = Endpoint::parse("http://name.test/push").unwrap();
    run(post(&client.unwrap(), &to)).unwrap();
    assert_eq!(told.recv_timeout(LONG).unwrap().to, "name.test 80");

    // That the call gets there is enough here.
    let (tx, begin) = mpsc::channel();
    let tx = Mutex::new(tx);
    let server = Server::start(move |_, mut stream| {
        let preface = bytes::<24>(&mut stream).unwrap();
        tx.lock().unwrap().send(preface).unwrap();
    });
    let (proxy, told) = Behaviour::leading_to(&server).start();
    let options = GrpcOptions {
        timeout: LONG,
        ..GrpcOptions::new(Endpoint::parse("http://otlp.test:4317").unwrap())
    };
    let client = GrpcClient::new(GrpcParts {
        proxy_env: ProxyEnv {
            https: Some(format!("socks5://{}", proxy.address)),
            ..ProxyEnv::default()
        },
        ..GrpcParts::new(options)
    });
    let client = client.unwrap();
    let call = run(client.call("/a.B/C", &HeaderMap::new(), vec![]));
    assert!(call.is_err(), "{call:?}");
    assert_eq!(told.recv_timeout(LONG).unwrap().to, "otlp.test 4317");
    let preface = begin.recv_timeout(LONG).unwrap();
    assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
}
