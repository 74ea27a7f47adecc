//! Clients that send too much, too slowly, or nothing.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tailwater_pipeline::Outcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::stand::*;

const PROTO: &str = "application/x-protobuf";

async fn open(port: u16, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// Everything that comes until the other side closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut all = Vec::new();
    // A reset is a way to close, too.
    let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut all))
        .await
        .expect("it is closed in time");
    String::from_utf8_lossy(&all).into_owned()
}

/// Guarantee: of a bomb nothing is taken in, whatever it is compressed with.
#[tokio::test]
async fn bombs_are_refused() {
    let yaml = "{protocols: {http: {endpoint: '127.0.0.1:0', max_request_body_size: 300000}}}";
    let stand = Stand::new(yaml);
    let plain = vec![0; 4 << 20];
    let level = flate2::Compression::default();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), level);
    gzip.write_all(&plain).unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), level);
    zlib.write_all(&plain).unwrap();
    let mut snappy = snap::write::FrameEncoder::new(Vec::new());
    snappy.write_all(&plain).unwrap();
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    lz4.write_all(&plain).unwrap();
    let zlib = zlib.finish().unwrap();
    for (encoding, body) in [
        ("gzip", gzip.finish().unwrap()),
        ("zlib", zlib.clone()),
        ("deflate", zlib),
        ("zstd", zstd::encode_all(&plain[..], 1).unwrap()),
        ("snappy", snappy.into_inner().unwrap()),
        ("lz4", lz4.finish().unwrap()),
    ] {
        assert!(body.len() < 300_000, "{encoding}: {}", body.len());
        let mut request = post("/v1/logs", PROTO, body);
        let value = encoding.parse().unwrap();
        request.headers_mut().insert("content-encoding", value);
        let answer = send(stand.http(), request).await;
        assert_eq!(answer.status, 400, "{encoding}: {answer:?}");
        assert!(
            answer.text().contains("inflates to more"),
            "{encoding}: {answer:?}"
        );
    }
    stand
        .until("room is free", |s| {
            s.metric("tailwater_receiver_incoming_bytes", "otlp") == 0.0
        })
        .await;
}

/// Guarantee: where a long body is judged by its begin, a bomb is refused and its sender hears so, though it goes
/// on sending; what is none arrives whole.
#[tokio::test]
async fn long_bodies_are_judged_by_their_begin() {
    // Room for half of the bomb.
    let yaml =
        "{protocols: {http: {endpoint: '127.0.0.1:0'}}, limits: {in_flight_bytes_max: 12MiB}}";
    let stand = Stand::new(yaml);
    stand.destination().set(Some(Outcome::Delivered));
    let mut bomb = snap::write::FrameEncoder::new(Vec::new());
    bomb.write_all(&vec![0; 256 << 20]).unwrap();
    let bomb = bomb.into_inner().unwrap();
    assert!(bomb.len() > 12 << 20, "{}", bomb.len());
    // Text that compresses to about half.
    let mut state = 1u32;
    let text = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b"0123456789abcdef"[(state >> 28) as usize]
    });
    let text = String::from_utf8(text.take(3 << 20).collect()).unwrap();
    let json = format!(
        r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{{"stringValue":"{text}"}}}}]}}]}}]}}"#
    );
    let mut honest = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    honest.write_all(json.as_bytes()).unwrap();
    let honest = honest.finish().unwrap();
    assert!(honest.len() > 3 << 19, "{}", honest.len());
    for (kind, encoding, body, status) in [
        (PROTO, "snappy", bomb, 400),
        ("application/json", "gzip", honest, 200),
    ] {
        let mut request = post("/v1/logs", kind, body);
        let value = encoding.parse().unwrap();
        request.headers_mut().insert("content-encoding", value);
        let answer = send(stand.http(), request).await;
        assert_eq!(answer.status, status, "{encoding}: {answer:?}");
        let refused = answer.text().contains("inflates to more");
        assert_eq!(refused, status == 400, "{encoding}: {answer:?}");
    }
    assert_eq!(stand.account(0).delivered.records, 1);
}

/// Guarantee: a body that is too long is refused before it has come, however its length is told.
#[tokio::test]
async fn bodies_that_are_too_long_are_refused_early() {
    let yaml = "{protocols: {http: {endpoint: '127.0.0.1:0', max_request_body_size: 1000}}}";
    let stand = Stand::new(yaml);
    let head = "POST /v1/logs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    let told = format!(
        "{head}Content-Length: 100000000\r\n\r\n{}",
        " ".repeat(1001)
    );
    let chunked = format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n3e9\r\n{}\r\n",
        " ".repeat(1001)
    );
    for text in [told, chunked] {
        let answer = rest(open(stand.http(), &text).await).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(answer.contains("max_request_body_size"), "{answer}");
    }
}

/// Guarantee: clients that do not finish heads or bodies lose their connections, and the room they
/// took is free again.
#[tokio::test]
async fn slow_clients_are_let_go() {
    let stand = Stand::new(
        "{protocols: {http: {endpoint: '127.0.0.1:0', read_header_timeout: 50ms, idle_timeout: \
         50ms}}, limits: {body_timeout: 50ms}}",
    );
    let port = stand.http();
    let head = "POST /v1/logs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    for (text, answered) in [
        (String::new(), false),
        (head.to_owned(), false),
        ("PRI * HTTP/2.0\r\n".to_owned(), false),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), false),
        (format!("{head}Content-Length: 10\r\n\r\n123"), true),
        (
            format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nab"),
            true,
        ),
    ] {
        let answer = rest(open(port, &text).await).await;
        let has_503 = answer.contains("HTTP/1.1 503") && answer.contains("in time");
        assert_eq!(has_503, answered, "{text:?}: {answer:?}");
    }
    stand
        .until("nothing is left", |s| {
            s.metric("tailwater_receiver_connections", "http") == 0.0
                && s.metric("tailwater_receiver_requests_in_flight", "otlp") == 0.0
        })
        .await;
}

/// Guarantee: however many connect and say nothing, whoever has something to say is heard.
#[tokio::test]
async fn idle_connections_do_not_keep_others_out() {
    let yaml = both(", limits: {connections_max: 20}");
    let stand = Stand::new(&yaml);
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(open(stand.http(), "").await);
    }
    let answer = send(stand.http(), post("/v1/logs", PROTO, ONE)).await;
    assert_eq!(answer.status, 200);
    stand
        .until("there are no more than allowed", |s| {
            s.metric("tailwater_receiver_connections", "http") <= 20.0
        })
        .await;
    assert!(stand.metric("tailwater_receiver_connections_refused", "http") >= 180.0);
}

/// Guarantee: where more is under way than allowed, requests are turned away at once, with a hint
/// when to come again; when it is delivered, they are taken.
#[tokio::test]
async fn what_has_no_room_is_turned_away() {
    let stand = Stand::new(&both(", limits: {in_flight_bytes_max: 1MiB}"));
    stand.destination().set(None);
    let large = |n: usize| {
        // One record with a body of n bytes.
        let put = |field: u8, inner: Vec<u8>| {
            let mut out = vec![field << 3 | 2];
            let mut length = inner.len();
            while length >= 0x80 {
                out.push(length as u8 | 0x80);
                length >>= 7;
            }
            out.push(length as u8);
            out.extend(inner);
            out
        };
        let text = put(1, vec![b'a'; n]);
        put(1, put(2, put(2, put(5, text))))
    };
    let first = tokio::spawn(send(stand.http(), post("/v1/logs", PROTO, large(400_000))));
    stand
        .until("it came", |s| s.destination().records() == 1)
        .await;
    let second = tokio::spawn(send(stand.http(), post("/v1/logs", PROTO, large(400_000))));
    stand
        .until("it came", |s| s.destination().records() == 2)
        .await;
    let answer = send(stand.http(), post("/v1/logs", PROTO, large(400_000))).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("retry-after")),
        (503, "1")
    );
    let client = GrpcClient::connect(stand.grpc()).await;
    let answer = client.call(&[], frame(0, &large(400_000))).await;
    assert_eq!(answer.code(), 14);
    stand.destination().set(Some(Outcome::Delivered));
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(second.await.unwrap().status, 200);
    let answer = client.call(&[], frame(0, &large(400_000))).await;
    assert_eq!(answer.code(), 0);
    assert_eq!(stand.account(0).delivered.records, 3);
}

/// Guarantee: there are never more requests than allowed at the same time.
#[tokio::test]
async fn requests_are_limited() {
    let stand = Stand::new(&both(", limits: {requests_max: 1}"));
    stand.destination().set(None);
    let first = tokio::spawn(send(stand.http(), post("/v1/logs", PROTO, ONE)));
    stand
        .until("it came", |s| s.destination().records() == 1)
        .await;
    let answer = send(stand.http(), post("/v1/logs", PROTO, ONE)).await;
    assert_eq!(answer.status, 503);
    stand.destination().set(Some(Outcome::Delivered));
    assert_eq!(first.await.unwrap().status, 200);
}

/// Messages of which the end does not come, each of `bytes`, over connections of their own; those that
/// were answered, as there is no room for them, are left out.
async fn half_sent(stand: &Stand, connections: usize, each: usize, bytes: usize) -> Vec<Half> {
    let mut halves = Vec::new();
    for _ in 0..connections {
        let stream = TcpStream::connect(("127.0.0.1", stand.grpc()))
            .await
            .unwrap();
        let shake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = shake.await.unwrap();
        tokio::spawn(connection);
        for _ in 0..each {
            let (tx, rx) = tokio::sync::mpsc::channel(1);
            let request = Request::post(
                "http://test/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            );
            let request = request.header("content-type", "application/grpc");
            let request = request.body(Slow(rx)).unwrap();
            let answer = tokio::spawn(sender.clone().send_request(request));
            // The length that is told is never reached.
            let message = [&[0, 0, 1, 0, 0][..], &vec![0; bytes]].concat();
            let _ = tx.send(Bytes::from(message)).await;
            halves.push(Half { _body: tx, answer });
        }
    }
    halves
}

struct Half {
    _body: tokio::sync::mpsc::Sender<Bytes>,
    answer: tokio::task::JoinHandle<Result<Response<Incoming>, hyper::Error>>,
}

/// A body that comes as a test sends it.
struct Slow(tokio::sync::mpsc::Receiver<Bytes>);

impl Body for Slow {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}

/// Guarantee: messages that are half sent over a few connections, however many there are, do not keep
/// out whoever sends whole ones, over either protocol; those that are too many are turned away at once.
#[tokio::test]
async fn half_sent_messages_do_not_take_every_place() {
    for (connections, each) in [(4, 64), (16, 16)] {
        let stand = Stand::new(&both(", limits: {requests_max: 64}"));
        let halves = half_sent(&stand, connections, each, 100).await;
        let turned_away = || halves.iter().filter(|h| h.answer.is_finished()).count();
        stand
            .until("the rest is turned away", |s| {
                let open = s.metric("tailwater_receiver_requests_in_flight", "otlp") as usize;
                turned_away() + open == halves.len() && (33..=64).contains(&open)
            })
            .await;
        for _ in 0..20 {
            let client = GrpcClient::connect(stand.grpc()).await;
            assert_eq!(client.call(&[], frame(0, ONE)).await.code(), 0);
            let answer = send(stand.http(), post("/v1/logs", PROTO, ONE)).await;
            assert_eq!(answer.status, 200);
        }
        drop(halves);
        stand
            .until("every place is free", |s| {
                s.metric("tailwater_receiver_requests_in_flight", "otlp") == 0.0
            })
            .await;
        assert_eq!(stand.account(0).delivered.records, 40);
    }
}

/// Guarantee: the same for the bytes of what is half sent.
#[tokio::test]
async fn half_sent_messages_do_not_take_all_the_room() {
    let stand = Stand::new(&both(", limits: {in_flight_bytes_max: 1MiB}"));
    // Half of it is for what comes in.
    let halves = half_sent(&stand, 2, 100, 8 << 10).await;
    let turned_away = || halves.iter().filter(|h| h.answer.is_finished()).count();
    stand
        .until("the rest is turned away", |s| {
            let open = s.metric("tailwater_receiver_requests_in_flight", "otlp") as usize;
            turned_away() + open == halves.len() && open < 64
        })
        .await;
    let many = ONE.repeat(1_200);
    for _ in 0..5 {
        let answer = send(stand.http(), post("/v1/logs", PROTO, many.clone())).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// Guarantee: one connection alone gets half of the places, and more than that is told to come again.
#[tokio::test]
async fn a_connection_has_no_more_places_than_it_leaves() {
    let stand = Stand::new(&both(", limits: {requests_max: 20}"));
    stand.destination().set(None);
    let client = GrpcClient::connect(stand.grpc()).await;
    let calls = (0..20).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.call(&[], frame(0, ONE)).await.code() })
    });
    let calls: Vec<_> = calls.collect();
    stand
        .until("half of them came", |s| {
            let answered = calls.iter().filter(|c| c.is_finished()).count();
            s.destination().records() == 10 && answered == 10
        })
        .await;
    stand.destination().set(Some(Outcome::Delivered));
    let mut codes = Vec::new();
    for call in calls {
        codes.push(call.await.unwrap());
    }
    codes.sort_unstable();
    assert_eq!(codes, [[0; 10], [14; 10]].concat());
}

/// Guarantee: a request whose delivery takes too long is answered, and counted by its end.
#[tokio::test]
async fn requests_end_in_time() {
    let stand = Stand::new(&both(", limits: {request_timeout: 50ms}"));
    stand.destination().set(None);
    let answer = send(stand.http(), post("/v1/logs", PROTO, ONE)).await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.text().contains("may be delivered still"),
        "{answer:?}"
    );
    stand.destination().set(Some(Outcome::Delivered));
    stand
        .until("it is counted", |s| {
            s.metric("otelcol_receiver_accepted_log_records", "http") == 1.0
        })
        .await;
}
