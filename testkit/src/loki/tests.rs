use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicI64, Ordering};

use super::encode::{encode_push, snappy};
use super::push::{PushEntry, PushRequest, PushStream};
use super::*;
use crate::entry::Pair;

mod faults;
mod limits;
mod wire;

/// 2024-01-02T15:04:05Z
const NOW: i64 = 1_704_207_845_000_000_000;
const SECOND: i64 = 1_000_000_000;

/// A server whose clock stands still at [`NOW`] until a test moves it.
struct Fixture {
    loki: FakeLoki,
    now: Arc<AtomicI64>,
}

fn start(change: impl FnOnce(&mut LokiOptions)) -> Fixture {
    let now = Arc::new(AtomicI64::new(NOW));
    let clock = Arc::clone(&now);
    let mut options = LokiOptions {
        now: Arc::new(move || clock.load(Ordering::SeqCst)),
        ..LokiOptions::default()
    };
    change(&mut options);
    Fixture {
        loki: FakeLoki::start(options).unwrap(),
        now,
    }
}

fn with(change: impl FnOnce(&mut LokiBehaviour)) -> Fixture {
    start(|options| change(&mut options.behaviour))
}

fn entry(ts_ns: i64, line: &str) -> PushEntry<'static> {
    PushEntry {
        ts_ns,
        line: line.as_bytes().to_vec().into(),
        metadata: Vec::new(),
    }
}

fn with_metadata(pairs: &[(&'static str, &str)]) -> PushEntry<'static> {
    let pair = |(name, value): &(&'static str, &str)| -> Pair<'static> {
        ((*name).into(), value.to_string().into())
    };
    PushEntry {
        metadata: pairs.iter().map(pair).collect(),
        ..entry(NOW, "m")
    }
}

fn stream(labels: &str, entries: Vec<PushEntry<'static>>) -> PushStream<'static> {
    PushStream {
        labels: labels.to_owned().into(),
        entries,
    }
}

/// A good entry in a stream of its own.
fn good(labels: &str) -> PushStream<'static> {
    stream(labels, vec![entry(NOW, "good")])
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Fixture {
    /// Sends bytes on a connection of its own; `None` when it is closed without an answer.
    fn raw(&self, bytes: &[u8]) -> Option<Answer> {
        let mut connection = TcpStream::connect(self.loki.addr()).unwrap();
        connection
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        // The server may answer and close before it has read everything.
        let _ = connection.write_all(bytes);
        let mut text = Vec::new();
        let _ = connection.read_to_end(&mut text);
        let text = String::from_utf8(text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some(Answer {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        })
    }

    fn post(&self, headers: &str, body: &[u8]) -> Option<Answer> {
        let length = body.len();
        let head = format!(
            "POST /loki/api/v1/push HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n\
             {headers}\r\n"
        );
        self.raw(&[head.as_bytes(), body].concat())
    }

    fn try_push(&self, streams: Vec<PushStream<'static>>) -> Option<Answer> {
        let body = snappy(&encode_push(&PushRequest { streams }));
        self.post("Content-Type: application/x-protobuf\r\n", &body)
    }

    fn push(&self, streams: Vec<PushStream<'static>>) -> Answer {
        self.try_push(streams).expect("the server answers")
    }

    /// Pushes and checks status and a part of the text.
    fn expect(&self, streams: Vec<PushStream<'static>>, status: u16, marker: &str) -> Answer {
        let answer = self.push(streams);
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.body.contains(marker), "{marker} not in {answer:?}");
        answer
    }

    fn get(&self, target: &str, headers: &str) -> Answer {
        let text = format!("GET {target} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        self.raw(text.as_bytes()).expect("the server answers")
    }

    fn lines(&self, labels: &str) -> Vec<String> {
        let entries = self.loki.entries(DEFAULT_TENANT, labels);
        entries
            .iter()
            .map(|e| String::from_utf8_lossy(&e.line).into_owned())
            .collect()
    }

    /// Every entry received is stored or counted as refused.
    fn assert_balanced(&self) {
        let stats = self.loki.stats();
        assert_eq!(
            stats.entries_received,
            stats.entries_accepted + stats.discarded_total(),
            "{stats:?}"
        );
    }

    fn discarded(&self, reason: &str) -> u64 {
        self.loki
            .stats()
            .discarded
            .get(reason)
            .copied()
            .unwrap_or_default()
    }
}
