//! Row 31: floods over gRPC and HTTP: connections, requests, streams that are reset, heads without an end.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::otlp_client::{HttpClient, log_json};
use tailwater_tests::wait;

use super::attack::http2::{self, frame};
use super::attack::{ADDED_MAX, Target, is_closed, raw};

const PASS: &str =
    "tailing rate >= 90 %; RSS <= budget; refused = RESOURCE_EXHAUSTED/503 with a retry hint";

fn memory(target: &Target, row: &mut Row) {
    let added = target.added_bytes();
    assert!(added < ADDED_MAX, "{} MiB more", added >> 20);
    row.reached(format!("memory + {} MiB at most", added >> 20));
}

/// What the connections of a flood have said before they are silent.
fn beginnings() -> [Vec<u8>; 4] {
    let head = "POST /v1/logs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    [
        Vec::new(),
        head.into(),
        format!("{head}Content-Length: 1000000\r\n\r\n{{").into(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
    ]
}

/// 10,000 connections that say nothing or stop half-way; how many are open in the end.
fn connections(target: &Target) -> usize {
    let beginnings = beginnings();
    let mut open = Vec::new();
    for n in 0..10_000 {
        let http = n % 4 != 3;
        let port = if http { target.http } else { target.grpc };
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        stream.set_nonblocking(true).expect("a socket");
        // Those before it may have had to make way already.
        let _ = (&stream).write(&beginnings[n % 4]);
        open.push(stream);
    }
    // An honest client gets through, though all places are taken.
    target.expect_heard();
    open.iter().filter(|stream| !is_closed(stream)).count()
}

/// Guarantees that 10,000 connections, at the default limits and when all of them are let in, cost tailing
/// nothing, memory little, and keep nobody out who has something to say.
#[test]
fn ten_thousand_connections_keep_nobody_out() {
    for (limit, fault) in [
        (None, "10,000 connections"),
        (Some(10_000), "10,000 connections, all of them let in"),
    ] {
        let mut row = Row::new(31, fault)
            .how("connections that say nothing, half a head, half a body, or hello in HTTP/2, to both ports")
            .pass(PASS);
        let target = Target::start("flood-connections", |otlp| {
            if let Some(limit) = limit {
                otlp["limits"] = json!({"connections_max": limit, "requests_max": 20_000});
            }
        });
        let open = target.under(&mut row, connections);
        match limit {
            None => assert!(open <= 2 * 1024, "{open}"),
            Some(_) => assert!(open > 7_000, "{open}"),
        }
        row.reached(format!(
            "{open} open at the end, and an honest sender heard"
        ));
        memory(&target, &mut row);
        target.finish(&mut row);
        row.record();
    }
}

/// Guarantees that requests beyond the limit are refused with a hint when to come again.
#[test]
fn too_many_requests_are_told_to_come_again() {
    let mut row = Row::new(31, "more requests than places")
        .how("100 places, taken by bodies that do not end; 400 requests more")
        .pass(PASS);
    let target = Target::start("flood-requests", |otlp| {
        otlp["limits"] = json!({"requests_max": 100, "body_timeout": "20s"});
    });
    let head = "POST /v1/logs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                Content-Length: 1000\r\n\r\n{";
    let refused = target.under(&mut row, |target| {
        let mut held = Vec::new();
        for _ in 0..100 {
            let mut client = target.client();
            client.send_raw(head.as_bytes()).expect("sent");
            held.push(client);
        }
        let taken = || {
            let scrape = target.agent.scrape();
            scrape.sum("tailwater_receiver_requests_in_flight", &[]) == 100.0
        };
        assert!(wait::within(wait::BOUND, taken), "{}", target.agent.log());
        let mut client = target.client();
        let refused = (0..400).filter(|_| {
            let body = log_json("too much");
            let answer = client.post("/v1/logs", "application/json", "identity", body.as_bytes());
            let answer = answer.expect("an answer");
            answer.status == 503 && answer.head.contains("retry-after: ")
        });
        refused.count()
    });
    assert_eq!(refused, 400);
    row.reached("400 of 400 refused with 503 and Retry-After");
    memory(&target, &mut row);
    target.finish(&mut row);
    row.record();
}

/// Does `attack` on connections of HTTP/2, two at a time, and on new ones when they are closed.
fn over_http2(
    port: u16,
    time: Duration,
    attack: impl Fn(&mut TcpStream) -> std::io::Result<()> + Sync,
) {
    let end = Instant::now() + time;
    let lane = || {
        while Instant::now() < end {
            let Ok(mut stream) = http2::connect(port) else {
                continue;
            };
            while Instant::now() < end && attack(&mut stream).is_ok() {
                // What it says is read, or it would stop to listen.
                if is_closed(&stream) {
                    break;
                }
                stream.set_nonblocking(false).expect("a socket");
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(lane);
        lane();
    });
}

/// Streams that are opened and reset at once, as of CVE-2023-44487.
fn rapid_reset(stream: &mut TcpStream, next: &mut u32) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    for _ in 0..100 {
        let id = *next;
        *next += 2;
        bytes.extend(frame(
            http2::HEADERS,
            http2::END_HEADERS,
            id,
            &http2::head(),
        ));
        bytes.extend(frame(http2::RST_STREAM, 0, id, &8u32.to_be_bytes()));
    }
    stream.write_all(&bytes)
}

/// A head that never ends, as of RUSTSEC-2024-0332.
fn endless_head(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut first = http2::head();
    http2::literal(&mut first, b"x-a", b"b");
    stream.write_all(&frame(http2::HEADERS, 0, 1, &first))?;
    let mut more = Vec::new();
    for _ in 0..100 {
        http2::literal(&mut more, b"x-header-of-some-length", &[b'a'; 100]);
    }
    loop {
        stream.write_all(&frame(http2::CONTINUATION, 0, 1, &more))?;
    }
}

/// Frames that want an answer, or have nothing in them.
fn small_frames(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    for _ in 0..200 {
        bytes.extend(frame(http2::PING, 0, 0, &[7; 8]));
        bytes.extend(frame(http2::SETTINGS, 0, 0, &[]));
    }
    bytes.extend(frame(http2::HEADERS, http2::END_HEADERS, 1, &http2::head()));
    for _ in 0..200 {
        bytes.extend(frame(http2::DATA, 0, 1, &[]));
    }
    bytes.extend(frame(http2::DATA, http2::END_STREAM, 1, &[]));
    stream.write_all(&bytes)
}

/// Guarantees that floods below the level of requests are cut off or borne: tailing goes on, memory stays
/// bounded, and honest senders are heard after it.
#[test]
fn floods_of_frames_stop_nothing() {
    let time = scaled(Duration::from_secs(2), Duration::from_secs(20));
    let mut row = Row::new(31, "rapid reset, CONTINUATION flood, small frames")
        .how(format!(
            "two connections each of them, opened again when they are closed, for {} s each",
            time.as_secs()
        ))
        .pass(PASS);
    let target = Target::start("flood-frames", |_| {});
    target.under(&mut row, |target| {
        // Stream ids count up within a connection; a new one begins again.
        let resets = AtomicU64::new(0);
        over_http2(target.grpc, time, |stream| {
            let mut next = 1;
            (0..1000).try_for_each(|_| {
                resets.fetch_add(100, Ordering::Relaxed);
                rapid_reset(stream, &mut next)
            })
        });
        println!("{} streams were reset", resets.into_inner());
        over_http2(target.grpc, time, endless_head);
        over_http2(target.grpc, time, |stream| {
            small_frames(stream)?;
            // Its stream is used up.
            Err(std::io::ErrorKind::ConnectionAborted.into())
        });
        // An answer to a head that is too long comes from HTTP/1.1 as well.
        let mut stream = raw(target.http).expect("it listens");
        let _ =
            stream.write_all(&[b"GET / HTTP/1.1\r\n", &b"A: b\r\n".repeat(100_000)[..]].concat());
    });
    memory(&target, &mut row);
    // Those that are still there make way or end by themselves.
    let heard = HttpClient::connect(target.http).is_ok();
    assert!(heard);
    target.finish(&mut row);
    row.record();
}
