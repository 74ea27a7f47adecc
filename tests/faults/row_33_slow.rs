//! Row 33: clients that are slow, stop half-way, say wrong lengths, or never read.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use tailwater_tests::fault_row::Row;
use tailwater_tests::rig::tail;
use tailwater_tests::wait;

use super::attack::http2::{self, frame};
use super::attack::{Target, is_closed, raw};

const PASS: &str = "connection closed <= 10 s; 0 crash";
/// When a connection has to be closed at the latest.
const CLOSED_MAX: Duration = Duration::from_secs(10);
const HEAD: &str = "POST /v1/logs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";

/// A connection that trickles.
struct Slow {
    stream: TcpStream,
    kind: &'static str,
    /// What comes again and again, a piece at a time; nothing, if it is silent.
    drops: Vec<u8>,
    closed: Option<Duration>,
}

impl Slow {
    fn new(port: u16, kind: &'static str, begin: &[u8], drops: &[u8]) -> Slow {
        let mut stream = raw(port).expect("it listens");
        stream.write_all(begin).expect("sent");
        stream.set_nonblocking(true).expect("a socket");
        Slow {
            stream,
            kind,
            drops: drops.to_vec(),
            closed: None,
        }
    }
}

/// Each kind of slow client, `each` times.
fn slow_clients(target: &Target, each: usize) -> Vec<Slow> {
    let hello = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(http2::SETTINGS, 0, 0, &[]),
    ]
    .concat();
    let call = frame(http2::HEADERS, http2::END_HEADERS, 1, &http2::head());
    let call = [hello.clone(), call].concat();
    let drop = frame(http2::DATA, 0, 1, &[0]);
    let body = format!("{HEAD}Content-Length: 1000000\r\n\r\n");
    let chunked = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n");
    let mut all = Vec::new();
    for _ in 0..each {
        let (http, grpc) = (target.http, target.grpc);
        all.extend([
            Slow::new(http, "silence", b"", b""),
            Slow::new(http, "a slow head", b"POST /v1/logs HTTP/1.1\r\nA: ", b"a"),
            Slow::new(http, "a slow body", body.as_bytes(), b" "),
            Slow::new(http, "slow chunks", chunked.as_bytes(), b"1\r\n \r\n"),
            Slow::new(http, "hello of HTTP/2", &hello, b""),
            Slow::new(grpc, "silence to gRPC", b"", b""),
            Slow::new(grpc, "hello to gRPC", &hello, b""),
            Slow::new(grpc, "a slow message", &call, &drop),
        ]);
    }
    all
}

/// Lets all trickle until each is closed, or too much time has passed.
fn trickle(all: &mut [Slow]) {
    let begin = Instant::now();
    while all.iter().any(|s| s.closed.is_none()) && begin.elapsed() < 2 * CLOSED_MAX {
        for slow in all.iter_mut().filter(|s| s.closed.is_none()) {
            let _ = slow.stream.write(&slow.drops);
            if is_closed(&slow.stream) {
                slow.closed = Some(begin.elapsed());
            }
        }
        wait::let_pass(Duration::from_millis(100));
    }
}

/// With times of two seconds, so that the test is short.
fn short_times(otlp: &mut serde_json::Value) {
    let http = &mut otlp["protocols"]["http"];
    http["read_header_timeout"] = json!("2s");
    http["idle_timeout"] = json!("2s");
    let server = json!({"max_connection_idle": "2s"});
    otlp["protocols"]["grpc"]["keepalive"] = json!({"server_parameters": server});
    otlp["limits"] = json!({"body_timeout": "2s"});
}

/// Guarantees that clients which trickle are let go, each kind of them, and cost tailing nothing.
#[test]
fn slow_clients_are_let_go() {
    const EACH: usize = 60;
    let mut row = Row::new(33, "slowloris, half-open connections")
        .how(format!(
            "{EACH} clients of each kind, a piece each 100 ms or nothing: heads, bodies, chunks, messages of \
             gRPC, hello of HTTP/2; with read_header_timeout, idle_timeout, body_timeout and max_connection_idle \
             of 2 s"
        ))
        .pass(PASS);
    let target = Target::start("slow", short_times);
    let all = target.under(&mut row, |target| {
        let mut all = slow_clients(target, EACH);
        trickle(&mut all);
        all
    });
    let left: Vec<_> = all.iter().filter(|s| s.closed.is_none()).collect();
    let kinds: Vec<_> = left.iter().map(|s| s.kind).take(8).collect();
    assert!(left.is_empty(), "{} left: {kinds:?}", left.len());
    let slowest = all.iter().max_by_key(|s| s.closed).expect("some");
    let slowest = (slowest.kind, slowest.closed.unwrap_or_default());
    row.held(
        slowest.1 <= CLOSED_MAX,
        format!(
            "all closed after {:.1} s at most ({})",
            slowest.1.as_secs_f64(),
            slowest.0
        ),
    );
    target.finish(&mut row);
    row.record();
}

/// Guarantees that clients which send and never read hold nothing up, and are let go.
#[test]
fn clients_that_never_read_are_let_go() {
    const CLIENTS: usize = 4;
    let mut row = Row::new(33, "answers that are never read")
        .how(format!(
            "{CLIENTS} clients send requests until nothing more is taken from them, and read nothing; times of 2 s"
        ))
        .pass(PASS);
    let target = Target::start("never-read", short_times);
    let slowest = target.under(&mut row, |target| {
        let request = format!("{HEAD}Content-Length: 1\r\n\r\n.").repeat(500);
        let mut all = Vec::new();
        let mut sent = 0;
        for _ in 0..CLIENTS {
            let mut stream = raw(target.http).expect("it listens");
            // Ends when the agent's answers have filled all buffers.
            let begin = Instant::now();
            while begin.elapsed() < 3 * CLOSED_MAX && stream.write_all(request.as_bytes()).is_ok() {
                sent += request.len();
            }
            all.push(stream);
        }
        println!("{} MiB of requests were taken", sent >> 20);
        // None is read, so what tells that it is closed is that it cannot be written to.
        let begin = Instant::now();
        let gone = || {
            all.iter().all(|mut stream| {
                let written = stream.write(b"P");
                written.is_err_and(|e| e.kind() != std::io::ErrorKind::WouldBlock)
            })
        };
        all.iter()
            .for_each(|s| s.set_nonblocking(true).expect("a socket"));
        let gone = wait::within(3 * CLOSED_MAX, gone);
        assert!(gone, "{}", tail(&target.agent.log()));
        begin.elapsed()
    });
    row.held(
        slowest <= CLOSED_MAX,
        format!("all closed after {:.1} s at most", slowest.as_secs_f64()),
    );
    target.finish(&mut row);
    row.record();
}

/// Guarantees that a length that is wrong, or more than is allowed, is answered or ends the connection; and
/// what comes behind is never taken for something else that counts.
#[test]
fn lengths_that_are_wrong_are_answered() {
    let mut row = Row::new(33, "Content-Length that lies, oversized messages")
        .how("0, shorter and longer than the body, two that differ, none, beyond all limits; times of 2 s")
        .pass(PASS);
    let target = Target::start("lengths", short_times);
    let mut slowest = Duration::ZERO;
    target.under(&mut row, |target| {
        for (kind, text, expect) in [
            (
                "0",
                format!("{HEAD}Content-Length: 0\r\n\r\n"),
                "HTTP/1.1 400",
            ),
            (
                "shorter",
                format!("{HEAD}Content-Length: 2\r\n\r\n{{}}GARBAGE \r\n\r\n"),
                "HTTP/1.1 200",
            ),
            (
                "longer",
                format!("{HEAD}Content-Length: 20\r\n\r\n{{}}"),
                "HTTP/1.1 503",
            ),
            (
                "two",
                format!("{HEAD}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}"),
                "HTTP/1.1 400",
            ),
            ("none", format!("{HEAD}\r\n"), "HTTP/1.1 400"),
            (
                "a word",
                format!("{HEAD}Content-Length: many\r\n\r\n"),
                "HTTP/1.1 400",
            ),
            (
                "beyond all limits",
                format!(
                    "{HEAD}Content-Length: 99999999999\r\n\r\n{}",
                    " ".repeat(21 << 20)
                ),
                "HTTP/1.1 400",
            ),
        ] {
            let begin = Instant::now();
            let mut stream = raw(target.http).expect("it listens");
            // It may be answered and closed before all of it is sent.
            let _ = stream.write_all(text.as_bytes());
            let answer = std::cell::RefCell::new(Vec::new());
            stream.set_nonblocking(true).expect("a socket");
            let closed = wait::within(2 * CLOSED_MAX, || {
                read_some(&stream, &mut answer.borrow_mut())
            });
            assert!(closed, "{kind}: not closed");
            let answer = answer.into_inner();
            let text = String::from_utf8_lossy(&answer);
            // A reset may overtake the answer to what is too long.
            let answered =
                text.starts_with(expect) || kind == "beyond all limits" && text.is_empty();
            assert!(answered, "{kind}: {text:?}");
            slowest = slowest.max(begin.elapsed());
        }
    });
    row.held(
        slowest <= CLOSED_MAX,
        format!("all closed after {:.1} s at most", slowest.as_secs_f64()),
    );
    target.finish(&mut row);
    row.record();
}

/// Reads what there is; whether the other side has closed.
fn read_some(mut stream: &TcpStream, to: &mut Vec<u8>) -> bool {
    use std::io::{ErrorKind, Read};
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return true,
            Ok(n) => to.extend_from_slice(&piece[..n]),
            Err(e) => return e.kind() != ErrorKind::WouldBlock,
        }
    }
}
