//! Over real sockets, against a server that answers as Loki does.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tailwater_pdata::{Entry, LogsBatch};
use tailwater_pipeline::ack::NoSink;
use tailwater_pipeline::clock::SystemClock;
use tailwater_pipeline::shard::ShardWaker;
use tailwater_pipeline::{AckWindow, Batch, Front, LogsPart, Permit};
use tailwater_telemetry::metrics::{Exposition, SERIES_MAX_DEFAULT};

use super::super::wire::oracle;
use super::*;
use crate::delivery::test_sockets::Sockets;
use crate::test_config::decode_json;

const LONG: Duration = Duration::from_secs(20);

/// What a request brought: the tenant and the lines by stream.
type Stored = Vec<(Option<String>, Vec<(String, Vec<String>)>)>;
/// Decides about a request: its number, from 0, and its messages.
type Rule = dyn Fn(usize, &oracle::Push) -> (u16, String) + Send + Sync;

/// A server that stores what its rule answers with 204.
struct FakeLoki {
    url: String,
    stored: Arc<Mutex<Stored>>,
}

fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?.to_lowercase();
    let length = |l: &str| l.strip_prefix("content-length: ")?.parse().ok();
    let mut body = vec![0; head.lines().find_map(length)?];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

impl FakeLoki {
    fn start(rule: Arc<Rule>) -> FakeLoki {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/loki/api/v1/push", listener.local_addr().unwrap());
        let stored = Arc::new(Mutex::new(Stored::new()));
        let (store, count) = (stored.clone(), Arc::new(AtomicUsize::new(0)));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (rule, store, count) = (rule.clone(), store.clone(), count.clone());
                std::thread::spawn(move || serve(stream, &*rule, &store, &count));
            }
        });
        FakeLoki { url, stored }
    }

    /// The lines that were stored, in order within their streams.
    fn lines(&self) -> Vec<String> {
        let stored = self.stored.lock().unwrap();
        let streams = stored.iter().flat_map(|(_, streams)| streams);
        streams.flat_map(|(_, lines)| lines.clone()).collect()
    }
}

fn serve(mut stream: TcpStream, rule: &Rule, store: &Mutex<Stored>, count: &AtomicUsize) {
    stream.set_read_timeout(Some(LONG)).unwrap();
    while let Some((head, body)) = read_request(&mut stream) {
        assert!(head.starts_with("post /loki/api/v1/push http/1.1"));
        assert!(head.contains("content-type: application/x-protobuf"));
        let push = oracle::decode(&body);
        let n = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let (status, text) = rule(n, &push);
        if status == 204 {
            let tenant = head.lines().find_map(|l| l.strip_prefix("x-scope-orgid: "));
            let text = |e: oracle::Entry| String::from_utf8(e.line).unwrap();
            let lines = |s: oracle::Stream| (s.labels, s.entries.into_iter().map(text).collect());
            let streams = push.streams.into_iter().map(lines).collect();
            store
                .lock()
                .unwrap()
                .push((tenant.map(str::to_owned), streams));
        }
        let length = text.len();
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{text}");
        // 204 has no body and must not announce one.
        let answer = match status {
            204 => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            _ => answer,
        };
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

struct Rig {
    node: LokiExporter,
    front: Box<dyn Exporter>,
    window: AckWindow<u64>,
    clock: Arc<SystemClock>,
    _sockets: Sockets,
}

fn rig(url: &str, extra: Value) -> Rig {
    let mut config = json!({
        "endpoint": url,
        "labels": {"resource": {"pod": "pod"}},
        "retry_on_failure": {"initial_interval": "10ms", "max_interval": "50ms"},
    });
    let (Value::Object(config_map), Value::Object(extra)) = (&mut config, extra) else {
        panic!("objects");
    };
    config_map.extend(extra);
    let settings = decode_json(&config, LokiSettings::decode).unwrap().unwrap();
    let (sockets, clock) = (Sockets::new(), Arc::new(SystemClock::default()));
    let parts = LokiParts {
        name: "loki/test".into(),
        settings,
        clock: clock.clone(),
        seed: 1,
        runtime: sockets.handle.clone(),
        authenticators: Default::default(),
        connections: Default::default(),
        queue_dir: None,
    };
    let metrics = MetricsRegistry::new(Exposition::default(), SERIES_MAX_DEFAULT);
    let metrics = Arc::new(metrics);
    let mut node = LokiExporter::new(parts, &metrics).unwrap();
    let shard = ShardHandle {
        index: 0,
        waker: Arc::new(ShardWaker::default()),
    };
    let front = node.front(&shard);
    node.start().unwrap();
    Rig {
        node,
        front,
        window: AckWindow::new(Arc::new(NoSink), 0),
        clock,
        _sockets: sockets,
    }
}

impl Rig {
    fn export(&mut self, pod: &str, lines: &[String]) {
        let entry = |line: &String| Entry {
            time: self.clock.wall_ns(),
            body: line.as_str().into(),
            resource: [("pod", pod)].into_iter().collect(),
            ..Entry::default()
        };
        let entries: Vec<_> = lines.iter().map(entry).collect();
        let logs = LogsBatch::from_entries(&entries);
        let ack = self.window.reserve(0, lines.len() as u32, 1);
        let permit = Permit::none();
        let now = self.clock.now();
        self.front
            .export(Batch::of(LogsPart { logs, ack, permit }), now);
        self.front.tick(now);
    }

    /// Waits until everything is settled; returns the number of dropped records.
    fn settle(&mut self) -> u32 {
        let mut dropped = 0;
        let end = Instant::now() + LONG;
        loop {
            let front = self.window.advance(|s| dropped += s.counts.dropped_total());
            match front {
                Front::Empty | Front::Held => return dropped,
                Front::Rewind(outcome) => panic!("not delivered: {outcome:?}"),
                Front::Waiting => assert!(Instant::now() < end, "nothing settled in time"),
            }
            std::thread::yield_now();
        }
    }
}

fn numbered(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("line {i}")).collect()
}

#[test]
fn everything_arrives_in_order_though_the_server_fails_at_first() {
    let rule = |n: usize, _: &oracle::Push| match n {
        0 => (503, "cannot accept more requests".to_owned()),
        1 => (500, "oops".to_owned()),
        2 => (429, "Ingestion rate limit exceeded".to_owned()),
        _ => (204, String::new()),
    };
    let loki = FakeLoki::start(Arc::new(rule));
    let mut rig = rig(&loki.url, json!({"tenant_id": "team-1"}));
    let lines = numbered(500);
    for chunk in lines.chunks(50) {
        rig.export("a", chunk);
    }
    assert_eq!(rig.settle(), 0);
    assert_eq!(loki.lines(), lines);
    let stored = loki.stored.lock().unwrap();
    assert!(
        stored
            .iter()
            .all(|(tenant, _)| tenant.as_deref() == Some("team-1"))
    );
    assert_eq!(rig.node.delivery().stats().sent_items(), 500);
}

#[test]
fn only_what_the_server_can_never_take_is_dropped() {
    let rule = |_: usize, push: &oracle::Push| {
        let mut entries = push.streams.iter().flat_map(|s| &s.entries);
        match entries.any(|e| e.line == b"line 7") {
            true => (500, "label name is empty".to_owned()),
            false => (204, String::new()),
        }
    };
    let loki = FakeLoki::start(Arc::new(rule));
    let mut rig = rig(&loki.url, json!({}));
    rig.export("a", &numbered(30));
    rig.export("b", &["other".to_owned()]);
    assert_eq!(rig.settle(), 1);
    let mut got = loki.lines();
    got.sort();
    let mut want = numbered(30);
    want.remove(7);
    want.push("other".to_owned());
    want.sort();
    assert_eq!(got, want);
}

#[test]
fn a_stream_that_is_not_taken_holds_up_no_other() {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    let rule = move |_: usize, push: &oracle::Push| {
        let bad = push.streams.iter().any(|s| s.labels.contains("bad"));
        if bad && count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 4 {
            let text = "maximum active stream limit exceeded when trying to create stream {pod=\"bad\"}, reduce";
            return (429, text.to_owned());
        }
        (204, String::new())
    };
    let loki = FakeLoki::start(Arc::new(rule));
    let mut rig = rig(&loki.url, json!({}));
    for round in 0..3 {
        for pod in ["good", "bad", "fine"] {
            rig.export(pod, &[format!("{pod} {round}")]);
        }
    }
    assert_eq!(rig.settle(), 0);
    assert!(refused.load(std::sync::atomic::Ordering::SeqCst) > 4);
    let mut got = loki.lines();
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 9);
}

#[test]
fn what_is_not_sent_at_a_stop_goes_back_to_its_source() {
    let rule = |_: usize, _: &oracle::Push| (401, "no org id".to_owned());
    let loki = FakeLoki::start(Arc::new(rule));
    let mut rig = rig(&loki.url, json!({}));
    rig.export("a", &numbered(3));
    let deadline = rig.clock.now().after(Duration::from_millis(300));
    rig.front.flush(rig.clock.now());
    assert_eq!(rig.node.stop(deadline), 3);
    let front = rig.window.advance(|_| panic!("nothing was delivered"));
    assert!(matches!(front, Front::Rewind(_)));
}
