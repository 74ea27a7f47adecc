//! Connections.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tailwater_pipeline::listeners::Listeners;
use tailwater_pipeline::{Admission, Outcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::stand::{LONG, Stand};

fn yaml(tcp: &str, more: &str) -> String {
    format!("{{tcp: {{listen_address: '127.0.0.1:0'{tcp}}}, protocol: rfc5424{more}}}")
}

fn message(n: usize) -> String {
    format!("<165>1 2003-10-11T22:14:15.003Z h a - ID{n} [x@1 k=\"v\"] text {n}")
}

/// Whether a record is of the message with this number, taken apart.
fn is_of(record: &str, n: usize) -> bool {
    record.starts_with("10 1065910455 ")
        && record.contains(&format!(" message=text {n} msg_id=ID{n} "))
}

/// Guarantee: messages are found by each way of marking them off, in pieces of any size, and taken apart.
#[tokio::test]
async fn messages_come_in_any_pieces() {
    let lines: Vec<String> = (0..20).map(message).collect();
    let counted = |m: &String| format!("{} {m}", m.len());
    for (more, bytes) in [
        ("", lines.join("\n")),
        (
            ", enable_octet_counting: true",
            lines.iter().map(counted).collect(),
        ),
        (
            ", non_transparent_framing_trailer: LF",
            lines.join("\n") + "\n",
        ),
        (
            ", non_transparent_framing_trailer: NUL",
            lines.join("\0") + "\0",
        ),
    ] {
        for piece in [7, 100, 10_000] {
            let stand = Stand::new(&yaml("", more));
            let mut stream = stand.connect().await;
            stream.set_nodelay(true).unwrap();
            for piece in bytes.as_bytes().chunks(piece) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(stream);
            stand.until_delivered(20).await;
            let delivered = stand.delivered();
            assert!(
                (0..20).all(|n| is_of(&delivered[n], n)),
                "{more} {piece}: {delivered:#?}"
            );
        }
    }
}

/// Guarantee: what is no message of the protocol is passed on as it is, with `on_error: drop` it is dropped
/// and counted; operators behind the parser see what it found.
#[tokio::test]
async fn broken_messages_follow_on_error() {
    let operators = ", operators: [{type: filter, expr: 'attributes.msg_id == \"ID1\"'}]";
    for (on_error, left, lost) in [("send", 2, 0), ("drop", 1, 1)] {
        let stand = Stand::new(&yaml("", &format!(", on_error: {on_error}{operators}")));
        let bytes = format!("{}\nnonsense\n{}\n", message(0), message(1));
        stand.send(bytes.as_bytes()).await;
        stand.until_delivered(left).await;
        let account = stand.account(0);
        assert_eq!(account.read.records, 3);
        let dropped: u64 = account.dropped.iter().map(|(_, a)| a.records).sum();
        assert_eq!(dropped, lost, "{account:?}");
        let filtered: u64 = account.filtered.iter().map(|(_, a)| a.records).sum();
        assert_eq!(filtered, 1);
    }
}

/// Guarantee: a destination that takes nothing makes senders wait, and then gets everything, once and in
/// order; memory stays within its bound meanwhile.
#[tokio::test]
async fn senders_wait_where_there_is_no_room() {
    let stand = Stand::new(&yaml("", ", limits: {in_flight_bytes_max: 1MiB}"));
    stand.destination().admit(Admission::Closed);
    let mut stream = stand.connect().await;
    let n_max = 4_000;
    // More than the system keeps between both ends.
    let long = format!("k=\"{}\"", "v".repeat(5000));
    let writing = tokio::spawn(async move {
        for n in 0..n_max {
            let line = message(n).replace("k=\"v\"", &long) + "\n";
            stream.write_all(line.as_bytes()).await.unwrap();
        }
    });
    let in_flight = |s: &Stand| s.metric("tailwater_receiver_in_flight_bytes", "syslog");
    stand.until("no room", |s| in_flight(s) > 500_000.0).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!writing.is_finished() && in_flight(&stand) < 2_000_000.0);
    stand.destination().admit(Admission::Open);
    stand.until_delivered(n_max).await;
    writing.await.unwrap();
    let delivered = stand.delivered();
    assert!((0..n_max).all(|n| is_of(&delivered[n], n)));
    assert_eq!(stand.account(0).delivered.records, n_max as u64);
}

/// Guarantee: a receiver that takes the place of another one at its address goes on with its connections,
/// in the middle of a message; the sender notices nothing, and nothing is lost or twice.
#[tokio::test]
async fn connections_go_on_with_the_next_receiver() {
    let listeners = Arc::<Listeners>::default();
    let port = {
        // Shared is what was asked for by the same address.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let yaml = yaml("", "").replace(":0'", &format!(":{port}'"));
    let mut stand = Stand::with_lanes(&yaml, &["one"], &listeners);
    let mut stream = stand.connect().await;
    let mut sent = 0;
    let mut delivered = Vec::new();
    for _ in 0..5 {
        let line = message(sent) + "\n" + &message(sent + 1) + "\n";
        stream
            .write_all(&line.as_bytes()[..line.len() - 9])
            .await
            .unwrap();
        stand
            .until("the first one", |s| !s.delivered().is_empty())
            .await;
        let next = Stand::with_lanes(&yaml, &["one"], &listeners);
        stand.stop().await;
        delivered.extend(stand.delivered());
        drop(std::mem::replace(&mut stand, next));
        stream
            .write_all(&line.as_bytes()[line.len() - 9..])
            .await
            .unwrap();
        stand
            .until("the second one", |s| !s.delivered().is_empty())
            .await;
        sent += 2;
    }
    stand.stop().await;
    delivered.extend(stand.delivered());
    assert_eq!(delivered.len(), sent);
    assert!((0..sent).all(|n| is_of(&delivered[n], n)), "{delivered:#?}");
}

/// Guarantee: where the next receiver wants TLS, what has come over a connection without it is taken, and the
/// connection is closed.
#[tokio::test]
async fn a_next_receiver_with_tls_takes_what_has_come() {
    let listeners = Arc::<Listeners>::default();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!(":{}'", free.local_addr().unwrap().port());
    drop(free);
    let tls = format!(
        ", tls: {{cert_file: '{}', key_file: '{}'}}",
        pem("server1.pem"),
        pem("server1.key")
    );
    let plain = yaml("", "").replace(":0'", &port);
    let mut first = Stand::with_lanes(&plain, &["one"], &listeners);
    let mut stream = first.connect().await;
    let bytes = message(0) + "\n" + &message(1);
    stream.write_all(bytes.as_bytes()).await.unwrap();
    first.until_delivered(1).await;
    let secure = yaml(&tls, "").replace(":0'", &port);
    let next = Stand::with_lanes(&secure, &["one"], &listeners);
    first.stop().await;
    next.until_delivered(1).await;
    assert!(is_of(&next.delivered()[0], 1));
    let closed = tokio::time::timeout(LONG, stream.read_u8()).await;
    assert!(closed.expect("it is closed").is_err());
}

/// Guarantee: when a receiver stops and there is no next one, what has come is taken first, unfinished
/// messages and what operators hold back included.
#[tokio::test]
async fn a_stop_takes_what_has_come() {
    let recombine = ", operators: [{type: recombine, combine_field: body, is_first_entry: 'body contains \"ID0\"'}]";
    for (more, expect) in [("", 3), (recombine, 1)] {
        let mut stand = Stand::new(&yaml("", more));
        let mut stream = stand.connect().await;
        let bytes = [message(0), message(1), message(2)].join("\n");
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let open = |s: &Stand| s.metric("tailwater_receiver_connections", "tcp") == 1.0;
        stand.until("connected", open).await;
        stand.stop().await;
        let delivered = stand.delivered();
        assert_eq!(delivered.len(), expect, "{delivered:#?}");
        assert!(delivered.iter().any(|record| record.contains("text 2")));
        assert!(stand.account(0).is_settled());
        let closed = tokio::time::timeout(LONG, stream.read_u8()).await;
        assert!(closed.expect("it is closed").is_err());
    }
}

/// Guarantee: a message that is longer than allowed is cut and counted, and so are messages of connections
/// that together hold more than there is room for; what is behind them is taken.
#[tokio::test]
async fn long_messages_are_cut() {
    let stand = Stand::new(&yaml(", max_log_size: 64KiB", ", on_error: send_quiet"));
    let long = "x".repeat(100 << 10) + "\n" + &message(1) + "\n";
    stand.send(long.as_bytes()).await;
    stand.until_delivered(3).await;
    assert_eq!(
        stand.metric("tailwater_receiver_split_messages", "tcp"),
        1.0
    );
    assert!(is_of(&stand.delivered()[2], 1));
    let more = ", on_error: send_quiet, limits: {in_flight_bytes_max: 1MiB}";
    let stand = Stand::new(&yaml(", max_log_size: 8MiB", more));
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut stream = stand.connect().await;
        let bytes = "y".repeat(300 << 10);
        stream.write_all(bytes.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    let cut = |s: &Stand| s.metric("tailwater_receiver_split_messages", "tcp") > 0.0;
    stand.until("cut", cut).await;
    let incoming = stand.metric("tailwater_receiver_incoming_bytes", "syslog");
    assert!(incoming <= f64::from(512 << 10), "{incoming}");
    drop(streams);
    let all = |s: &Stand| {
        let text: usize = s.delivered().iter().map(|r| r.matches('y').count()).sum();
        text == 8 * (300 << 10)
    };
    stand.until("every byte is there", all).await;
}

/// Guarantee: there are no more connections than allowed, and those on which nothing comes are closed.
#[tokio::test]
async fn connections_are_bounded() {
    let tcp = ", max_connections: 2, connection_idle_timeout: 200ms";
    let stand = Stand::new(&yaml(tcp, ""));
    let mut streams = [
        stand.connect().await,
        stand.connect().await,
        stand.connect().await,
    ];
    for stream in &mut streams {
        let closed = tokio::time::timeout(LONG, stream.read_u8()).await;
        assert!(closed.expect("it is closed").is_err());
    }
    let name = "tailwater_receiver_connections_refused";
    assert_eq!(stand.metric(name, "tcp"), 1.0);
    stand.send(message(1).as_bytes()).await;
    stand.until_delivered(1).await;
}

/// Guarantee: NULs without end, and a connection that breaks, hang nothing and take no memory.
#[tokio::test]
async fn senseless_bytes_pass() {
    let stand = Stand::new(&yaml(", max_log_size: 64KiB", ""));
    let mut stream = stand.connect().await;
    for _ in 0..64 {
        stream.write_all(&[0; 16 << 10]).await.unwrap();
    }
    stream.write_all(b"\n").await.unwrap();
    stream.set_zero_linger().unwrap();
    drop(stream);
    stand.send(message(1).as_bytes()).await;
    stand
        .until("the next one", |s| {
            s.delivered().iter().any(|r| is_of(r, 1))
        })
        .await;
}

fn pem(name: &str) -> String {
    format!(
        "{}/../exporters/src/client/test_certs/{name}",
        env!("CARGO_MANIFEST_DIR")
    )
}

/// Guarantee: with TLS messages come over it, and nothing comes without it.
#[tokio::test]
async fn messages_come_over_tls() {
    let tls = format!(
        ", tls: {{cert_file: '{}', key_file: '{}'}}",
        pem("server1.pem"),
        pem("server1.key")
    );
    let mut stand = Stand::new(&yaml(&tls, ""));
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(pem("ca1.pem")).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream: TcpStream = stand.connect().await;
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await.unwrap();
    stand.send(message(0).as_bytes()).await;
    stream.write_all(message(1).as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let open = |s: &Stand| s.metric("tailwater_receiver_connections", "tcp") == 1.0;
    stand.until("one is left", open).await;
    stand.stop().await;
    let delivered = stand.delivered();
    assert!(
        delivered.len() == 1 && is_of(&delivered[0], 1),
        "{delivered:#?}"
    );
}

/// Guarantee: of two destinations each gets everything, and one that hands back does not make the other get
/// it again.
#[tokio::test]
async fn each_destination_gets_everything_once() {
    let stand = Stand::with_lanes(&yaml("", ""), &["one", "two"], &Default::default());
    stand.destinations[1].set(Some(Outcome::Retry));
    let lines: Vec<String> = (0..100).map(message).collect();
    stand.send(lines.join("\n").as_bytes()).await;
    stand.until_delivered(100).await;
    let again = |s: &Stand| s.destinations[1].offered() >= 200;
    stand.until("offered again", again).await;
    stand.destinations[1].set(Some(Outcome::Delivered));
    let there = |s: &Stand| s.destinations[1].count() == 100;
    stand.until("delivered to both", there).await;
    assert_eq!(stand.delivered().len(), 100);
    assert_eq!(stand.account(1).delivered.records, 100);
}
