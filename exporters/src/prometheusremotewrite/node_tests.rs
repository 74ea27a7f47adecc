//! Over real sockets, against a server that answers as a receiver of remote write does.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use prost::Message;
use serde_json::{Value, json};
use tailwater_pipeline::ack::NoSink;
use tailwater_pipeline::clock::SystemClock;
use tailwater_pipeline::shard::ShardWaker;
use tailwater_pipeline::{AckWindow, Batch, Front, Part, Permit};
use tailwater_telemetry::metrics::{Exposition, SERIES_MAX_DEFAULT};

use super::super::oracle::{RequestV2, WriteRequest, as_v1};
use super::super::translate_tests::{NS, encoded, gauge, point, resource, text};
use super::*;
use crate::delivery::test_sockets::Sockets;
use crate::test_config::decode_json;

const LONG: Duration = Duration::from_secs(20);

/// An answer: status and headers, and the body.
type Answer = (String, String);
/// Decides about a request by its number, from 0.
type Rule = dyn Fn(usize) -> Answer + Send + Sync;

/// A server that keeps the requests that it answers with 2xx.
struct Receiver {
    url: String,
    kept: Arc<Mutex<Vec<(String, WriteRequest)>>>,
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

impl Receiver {
    fn start(rule: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/api/v1/write", listener.local_addr().unwrap());
        let kept = Arc::new(Mutex::new(Vec::new()));
        let rule: Arc<Rule> = Arc::new(rule);
        let (keep, count) = (kept.clone(), Arc::new(AtomicUsize::new(0)));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (rule, keep, count) = (rule.clone(), keep.clone(), count.clone());
                std::thread::spawn(move || serve(stream, &*rule, &keep, &count));
            }
        });
        Receiver { url, kept }
    }

    /// The values of all samples, as they came.
    fn values(&self) -> Vec<f64> {
        let kept = self.kept.lock().unwrap();
        let series = kept.iter().flat_map(|(_, request)| &request.timeseries);
        series.flat_map(|s| &s.samples).map(|s| s.value).collect()
    }
}

fn serve(
    mut stream: TcpStream,
    rule: &Rule,
    keep: &Mutex<Vec<(String, WriteRequest)>>,
    count: &AtomicUsize,
) {
    stream.set_read_timeout(Some(LONG)).unwrap();
    while let Some((head, body)) = read_request(&mut stream) {
        assert!(head.starts_with("post /api/v1/write http/1.1"));
        assert!(head.contains("content-encoding: snappy\r\n"));
        assert!(head.contains("user-agent: tailwater/"));
        let message = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
        let (status, text) = rule(count.fetch_add(1, Ordering::SeqCst));
        if status.starts_with('2') {
            let request = match head.contains("proto=io.prometheus.write.v2.request") {
                true => as_v1(&RequestV2::decode(&*message).unwrap()),
                false => WriteRequest::decode(&*message).unwrap(),
            };
            keep.lock().unwrap().push((head, request));
        }
        let length = text.len();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{text}");
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn says(status: &str, body: &str) -> Answer {
    (status.to_owned(), body.to_owned())
}

struct Rig {
    node: RemoteWriteExporter,
    front: Box<dyn Exporter>,
    window: AckWindow<u64>,
    clock: Arc<SystemClock>,
    _sockets: Sockets,
}

fn rig(url: &str, extra: Value) -> Rig {
    rig_in(url, extra, None)
}

/// With the queue in a directory.
fn rig_in(url: &str, extra: Value, queue_dir: Option<PathBuf>) -> Rig {
    let mut config = json!({
        "endpoint": url,
        "retry_on_failure": {"initial_interval": "10ms", "max_interval": "50ms"},
    });
    if let (Value::Object(map), Value::Object(extra)) = (&mut config, extra) {
        map.extend(extra);
    }
    let settings = decode_json(&config, RemoteWriteSettings::decode);
    let (sockets, clock) = (Sockets::new(), Arc::new(SystemClock::default()));
    let parts = RemoteWriteParts {
        queue_dir,
        name: "prometheus_remote_write/test".into(),
        settings: settings.unwrap().unwrap(),
        clock: clock.clone(),
        seed: 1,
        runtime: sockets.handle.clone(),
        authenticators: Default::default(),
        connections: Default::default(),
    };
    let metrics = MetricsRegistry::new(Exposition::default(), SERIES_MAX_DEFAULT);
    let mut node = RemoteWriteExporter::new(parts, &Arc::new(metrics)).unwrap();
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
    /// Sends one point of a gauge.
    fn send(&mut self, value: f64) {
        let g = gauge("g", vec![point(value, &[text("a", "1")])]);
        let data = encoded(vec![resource(&[], vec![g])]);
        let ack = self.window.reserve(0, data.items() as u32, 1);
        let part = Part {
            data: data.into(),
            ack,
            permit: Permit::none(),
        };
        self.front.export(Batch::of(part), self.clock.now());
    }

    /// Waits until everything is settled; returns the number of dropped points.
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

#[test]
fn a_series_arrives_in_order_though_the_receiver_fails_at_first() {
    let receiver = Receiver::start(|n| match n {
        0 => says("503 Busy\r\nRetry-After: 0", ""),
        1 => says("500 Oops", "oops"),
        2 => says("429 Slow\r\nRetry-After: 0", "slow down"),
        5 => says("502 Bad Gateway", ""),
        _ => says("204 No Content", ""),
    });
    let mut rig = rig(&receiver.url, json!({}));
    for i in 0..10 {
        rig.send(f64::from(i));
    }
    assert_eq!(rig.settle(), 0);
    let want: Vec<f64> = (0..10).map(f64::from).collect();
    assert_eq!(receiver.values(), want);
    let kept = receiver.kept.lock().unwrap();
    let (head, request) = &kept[0];
    assert!(head.contains("content-type: application/x-protobuf\r\n"));
    assert!(head.contains("x-prometheus-remote-write-version: 0.1.0\r\n"));
    let sample = &request.timeseries[0].samples[0];
    assert_eq!(sample.timestamp, (NS / 1_000_000) as i64);
    assert_eq!(rig.node.delivery().stats().sent_items(), 10);
    assert_eq!(rig.node.stop(rig.clock.now()), 0);
}

#[test]
fn what_is_refused_is_dropped_and_counted_and_others_go_on() {
    let receiver = Receiver::start(|n| match n {
        0 => says("400 Bad Request", "out of order sample"),
        1 => says("413 Too Large", "too large"),
        2 => says("401 Unauthorized", ""),
        3 => says("302 Found\r\nLocation: /", ""),
        _ => says("200 OK", ""),
    });
    let mut rig = rig(&receiver.url, json!({}));
    for i in 0..6 {
        rig.send(f64::from(i));
    }
    assert_eq!(rig.settle(), 4);
    assert_eq!(receiver.values(), [4.0, 5.0]);
    let stats = rig.node.delivery();
    let stats = stats.stats();
    use tailwater_pipeline::DropReason::{Rejected, TooLarge};
    assert_eq!((stats.dropped(Rejected), stats.dropped(TooLarge)), (3, 1));
}

#[test]
fn version_2_says_what_was_written() {
    const ALL: &str = "\r\nX-Prometheus-Remote-Write-Samples-Written: 1\
                       \r\nX-Prometheus-Remote-Write-Histograms-Written: 0\
                       \r\nX-Prometheus-Remote-Write-Exemplars-Written: 0";
    const NONE: &str = "\r\nX-Prometheus-Remote-Write-Samples-Written: 0";
    let receiver = Receiver::start(|n| match n {
        0 => says(&format!("204 No Content{ALL}"), ""),
        // Stored, though something else was wrong.
        1 => says(&format!("400 Bad Request{ALL}"), "bad exemplar"),
        2 => says(&format!("400 Bad Request{NONE}"), "out of order"),
        3 => says("415 Unsupported Media Type", "what is this"),
        // A receiver of version 1 that sees nothing in it.
        4 => says("200 OK", ""),
        5 => says(&format!("500 Oops{NONE}"), ""),
        _ => says(&format!("200 OK{ALL}"), ""),
    });
    let v2 = json!({"protobuf_message": "io.prometheus.write.v2.Request"});
    let mut rig = rig(&receiver.url, v2);
    for i in 0..6 {
        rig.send(f64::from(i));
    }
    assert_eq!(rig.settle(), 3);
    assert_eq!(rig.node.delivery().stats().sent_items(), 3);
    let kept = receiver.kept.lock().unwrap();
    let (head, request) = &kept[0];
    assert!(head.contains("x-prometheus-remote-write-version: 2.0.0\r\n"));
    let content = "content-type: application/x-protobuf;proto=io.prometheus.write.v2.request\r\n";
    assert!(head.contains(content));
    assert_eq!(request.timeseries[0].labels[0].value, "g");
}

/// Part of a request of several points: what is missing is counted, the rest is delivered.
#[test]
fn a_part_that_was_not_written_is_counted() {
    let receiver = Receiver::start(|_| {
        let head = "400 Bad Request\r\nX-Prometheus-Remote-Write-Samples-Written: 3";
        says(head, "two of them were too old")
    });
    let v2 = json!({"protobuf_message": "io.prometheus.write.v2.Request"});
    let mut rig = rig(&receiver.url, v2);
    let points = (0..5).map(|i| point(1.0, &[text("i", &i.to_string())]));
    let data = encoded(vec![resource(&[], vec![gauge("g", points.collect())])]);
    let ack = rig.window.reserve(0, 5, 1);
    let permit = Permit::none();
    let part = Part {
        data: data.into(),
        ack,
        permit,
    };
    rig.front.export(Batch::of(part), rig.clock.now());
    assert_eq!(rig.settle(), 2);
    assert_eq!(rig.node.delivery().stats().sent_items(), 3);
}

#[test]
fn what_is_not_sent_at_the_stop_is_handed_back() {
    let receiver = Receiver::start(|_| says("503 Busy", ""));
    let slow = json!({"retry_on_failure": {"initial_interval": "1h", "max_interval": "1h"}});
    let mut rig = rig(&receiver.url, slow);
    rig.send(1.0);
    rig.send(2.0);
    assert_eq!(rig.node.stop(rig.clock.now()), 2);
    let front = rig.window.advance(|_| panic!("nothing was delivered"));
    assert!(matches!(front, Front::Rewind(_)), "{front:?}");
}

/// What is acknowledged is on disk, and is sent by whoever comes after.
#[test]
fn what_is_on_disk_is_sent_after_a_stop_also_as_another_version() {
    let dir = tempfile::tempdir().unwrap();
    let queue_dir = || Some(dir.path().join("queue"));
    let busy = Receiver::start(|_| says("503 Busy", ""));
    let mut first = rig_in(&busy.url, json!({}), queue_dir());
    for i in 0..3 {
        first.send(f64::from(i));
    }
    assert_eq!(first.settle(), 0);
    assert!(busy.values().is_empty());
    assert_eq!(first.node.stop(first.clock.now()), 0);
    drop(first);
    // A success without a word about what was written is one for a request of version 1.
    let receiver = Receiver::start(|_| says("204 No Content", ""));
    let v2 = json!({"protobuf_message": "io.prometheus.write.v2.Request"});
    let second = rig_in(&receiver.url, v2, queue_dir());
    let stats = second.node.delivery().stats().clone();
    let end = Instant::now() + LONG;
    while stats.sent_items() < 3 {
        assert!(Instant::now() < end, "{stats:?}");
        std::thread::yield_now();
    }
    assert_eq!(receiver.values(), [0.0, 1.0, 2.0]);
    assert_eq!(stats.dropped_items(), 0);
}
