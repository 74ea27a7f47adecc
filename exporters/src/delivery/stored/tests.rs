use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};
use tailwater_pipeline::ack::NoSink;
use tailwater_pipeline::clock::SystemClock;
use tailwater_pipeline::fs::SimFs;
use tailwater_pipeline::{AckSink, AckToken, AckWindow, Counts, DropReason, Front};
use tailwater_telemetry::metrics::{Accounting, Exposition, SERIES_MAX_DEFAULT};

use super::super::test_sockets::Sockets;
use super::super::{
    Delivery, DeliveryParts, Judge, Reply, RetryOptions, SendError, SendErrorKind, Transport,
    Verdict,
};
use super::*;

const LONG: Duration = Duration::from_secs(20);
const DIR: &str = "/queue";

/// A destination that is there or not, and remembers what it got.
#[derive(Default)]
struct Destination {
    up: AtomicBool,
    got: Mutex<Vec<Bytes>>,
}

impl Transport for Destination {
    async fn send(&self, _: &HeaderMap, body: Vec<Bytes>) -> Result<Reply, SendError> {
        if !self.up.load(Ordering::SeqCst) {
            return Err(SendError::new(SendErrorKind::Connect, "refused"));
        }
        self.got.lock().unwrap().push(body.concat().into());
        Ok(Reply {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            truncated: false,
        })
    }
}

struct Plain;

impl<D: Duty> Judge<D> for Plain {
    fn judge(
        &self,
        request: &mut OutgoingRequest<D>,
        result: Result<Reply, SendError>,
    ) -> Verdict<D> {
        match result {
            Ok(_) if request.body[0].starts_with(b"bad") => Verdict::Drop {
                reason: DropReason::Rejected,
                cause: "bad".into(),
            },
            Ok(_) => Verdict::Delivered,
            Err(e) => e.verdict(),
        }
    }
}

struct Rig {
    queue: StoredQueue,
    delivery: Delivery<Acks>,
    to: Arc<Destination>,
    window: AckWindow<u32>,
    metrics: Arc<MetricsRegistry>,
    clock: Arc<SystemClock>,
    _sockets: Sockets,
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

fn options() -> QueueOptions {
    QueueOptions {
        storage: Some("file_storage".into()),
        ..QueueOptions::default()
    }
}

impl Rig {
    fn new(fs: &SimFs, options: QueueOptions, up: bool) -> Rig {
        let clock = Arc::new(SystemClock::default());
        let metrics = Arc::new(MetricsRegistry::new(
            Exposition::default(),
            SERIES_MAX_DEFAULT,
        ));
        let mut delivery = Delivery::new(DeliveryParts {
            name: "otlp".into(),
            queue: options.sending(),
            retry: RetryOptions {
                initial_interval: Duration::from_millis(5),
                max_interval: Duration::from_millis(5),
                ..RetryOptions::default()
            },
            seed: 1,
            clock: clock.clone(),
        });
        delivery.expose_sending(&metrics, Signal::Logs);
        let mut queue = StoredQueue::new(StoredParts {
            name: "otlp".into(),
            signal: Signal::Logs,
            dir: DIR.into(),
            options,
            fs: Arc::new(fs.clone()),
            clock: clock.clone(),
            seed: 1,
            metrics: metrics.clone(),
        });
        let to = Arc::new(Destination::default());
        to.up.store(up, Ordering::SeqCst);
        let sockets = Sockets::new();
        delivery.start(&sockets.handle, to.clone(), Arc::new(Plain));
        queue.start(delivery.handle()).unwrap();
        Rig {
            queue,
            delivery,
            to,
            window: AckWindow::new(Arc::new(NoSink), 0),
            metrics,
            clock,
            _sockets: sockets,
        }
    }

    fn submit(&mut self, body: &str) {
        let mut acks = Acks::new();
        acks.add(self.window.reserve(1, 3, 1), 3);
        let body = vec![Bytes::from(body.to_owned())];
        let r = OutgoingRequest::new(body, Arc::default(), None, vec![], 3, acks);
        self.queue.intake().submit(r);
    }

    /// Waits until `n` batches that were submitted are settled, and returns the records dropped.
    fn settled(&mut self, n: usize) -> u32 {
        let (mut settled, mut dropped) = (0, 0);
        wait_for("batches are settled", || {
            let front = self.window.advance(|s| {
                settled += 1;
                dropped += s.counts.dropped_total();
            });
            assert!(!matches!(front, Front::Rewind(_)), "{front:?}");
            settled == n
        });
        dropped
    }

    fn got(&self) -> Vec<Bytes> {
        let mut got = self.to.got.lock().unwrap().clone();
        got.sort();
        got
    }

    fn shows(&self, line: &str) {
        wait_for(line, || self.metrics.render().contains(line));
    }

    fn stop(&mut self) -> u64 {
        self.queue.close();
        self.delivery.stop(self.clock.now().after(LONG));
        self.queue.finish()
    }
}

#[test]
fn what_is_on_disk_is_acknowledged_and_sent_when_the_destination_is_back() {
    let fs = SimFs::new(1);
    let mut rig = Rig::new(&fs, options(), false);
    for body in ["a", "b", "bad"] {
        rig.submit(body);
    }
    assert_eq!(rig.settled(3), 0);
    rig.shows("otelcol_exporter_queue_size{exporter=\"otlp\",data_type=\"logs\"} 3");
    rig.to.up.store(true, Ordering::SeqCst);
    rig.shows("otelcol_exporter_queue_size{exporter=\"otlp\",data_type=\"logs\"} 0");
    assert_eq!(rig.got(), ["a", "b", "bad"]);
    rig.shows("otelcol_exporter_sent_log_records{exporter=\"otlp\"} 6");
    rig.shows("otelcol_exporter_send_failed_log_records{exporter=\"otlp\"} 3");
    let account = Accounting::new(&rig.metrics, "queue", "otlp", DropReason::NAMES).snapshot();
    account.check().unwrap();
    assert!(account.is_settled());
    assert_eq!(account.delivered.records, 6);
    assert_eq!(rig.stop(), 0);
    let mut rig = Rig::new(&fs, options(), true);
    rig.submit("c");
    wait_for("it is sent", || !rig.got().is_empty());
    assert_eq!(rig.got(), ["c"], "nothing comes again");
    rig.stop();
}

/// Hears of each acknowledgement, and asks at once how much is shown to be stored.
struct Curious {
    metrics: Arc<MetricsRegistry>,
    heard: Mutex<Vec<f64>>,
}

impl AckSink for Curious {
    fn settled(&self, _: u64, _: Outcome, _: &Counts) {
        let shown = self.metrics.render();
        let stored = shown
            .lines()
            .find(|l| l.starts_with("tailwater_queue_stored_requests{"));
        let number = stored.and_then(|l| l.rsplit(' ').next()?.parse().ok());
        self.heard.lock().unwrap().push(number.unwrap_or(0.0));
    }
}

#[test]
fn what_is_acknowledged_is_shown() {
    let fs = SimFs::new(9);
    let mut rig = Rig::new(&fs, options(), false);
    let curious = Arc::new(Curious {
        metrics: rig.metrics.clone(),
        heard: Mutex::default(),
    });
    for n in 1..=20 {
        let mut acks = Acks::new();
        acks.add(AckToken::new(curious.clone(), n), 1);
        let body = vec![Bytes::from_static(b"x")];
        let r = OutgoingRequest::new(body, Arc::default(), None, vec![], 1, acks);
        rig.queue.intake().submit(r);
        wait_for("it is acknowledged", || {
            curious.heard.lock().unwrap().len() as u64 == n
        });
    }
    let heard = curious.heard.lock().unwrap();
    let expected: Vec<f64> = (1..=20).map(f64::from).collect();
    assert_eq!(*heard, expected);
    drop(heard);
    rig.stop();
}

#[test]
fn a_stop_while_the_destination_is_down_deletes_nothing() {
    let fs = SimFs::new(2);
    let bodies: Vec<String> = (0..50).map(|n| format!("{n:02}")).collect();
    for round in 0..2 {
        let mut rig = Rig::new(&fs, options(), false);
        for body in &bodies[round * 25..][..25] {
            rig.submit(body);
        }
        rig.settled(25);
        assert_eq!(rig.stop(), 0);
        rig.submit("late");
        let front = rig.window.advance(|_| panic!("it is not taken"));
        assert_eq!(front, Front::Rewind(Outcome::Retry));
    }
    let mut rig = Rig::new(&fs, options(), true);
    wait_for("all are sent", || rig.got().len() == 50);
    rig.stop();
    assert_eq!(rig.got(), bodies);
}

#[test]
fn what_was_acknowledged_survives_power_loss() {
    for seed in 0..40 {
        let fs = SimFs::new(seed);
        let mut rig = Rig::new(&fs, options(), seed % 2 == 0);
        let mut bodies = Vec::new();
        for n in 0..10 {
            let body = format!("{n}");
            rig.submit(&body);
            rig.settled(1);
            bodies.push(body);
        }
        fs.halt_at(fs.operations());
        rig.stop();
        fs.crash(seed);
        let before = rig.got();
        let mut rig = Rig::new(&fs, options(), true);
        wait_for("all are sent, before or after", || {
            let mut got = [before.clone(), rig.got()].concat();
            got.sort();
            got.dedup();
            got == bodies
        });
        rig.stop();
    }
}

/// Guarantee: what the disk does not give back is an alarm, not damage: it is sent once it can be read.
#[test]
fn what_cannot_be_read_is_sent_later() {
    for sizer in [Sizer::Requests, Sizer::Items] {
        let fs = SimFs::new(5);
        let options = QueueOptions { sizer, ..options() };
        let mut rig = Rig::new(&fs, options.clone(), false);
        for body in ["a", "b", "c"] {
            rig.submit(body);
        }
        rig.settled(3);
        rig.stop();
        let names = fs.list(Path::new(DIR)).unwrap();
        let segments = names
            .iter()
            .filter(|n| n.to_str().unwrap().ends_with(".queue"));
        let paths: Vec<_> = segments.map(|n| Path::new(DIR).join(n)).collect();
        paths
            .iter()
            .for_each(|path| fs.set_unreadable(path, 44..1 << 20));
        let mut rig = Rig::new(&fs, options, true);
        let label = "{exporter=\"otlp\",data_type=\"logs\"}";
        rig.shows(&format!("tailwater_queue_disk_failures{label} 1"));
        rig.shows(&format!("tailwater_queue_damaged_requests{label} 0"));
        assert!(rig.got().is_empty());
        paths.iter().for_each(|path| fs.set_unreadable(path, 0..0));
        wait_for("all are sent", || rig.got() == ["a", "b", "c"]);
        rig.shows(&format!("tailwater_queue_damaged_requests{label} 0"));
        rig.stop();
    }
}

#[test]
fn a_full_queue_says_so_and_opens_again() {
    for (sizer, size) in [
        (Sizer::Requests, 4),
        (Sizer::Items, 12),
        (Sizer::Bytes, 1 << 16),
    ] {
        let fs = SimFs::new(3);
        let options = QueueOptions {
            queue_size: size,
            sizer,
            ..options()
        };
        let body = match sizer {
            Sizer::Bytes => "x".repeat(17_000),
            Sizer::Requests | Sizer::Items => "x".to_owned(),
        };
        let mut rig = Rig::new(&fs, options.clone(), false);
        for _ in 0..3 {
            rig.submit(&body);
        }
        rig.settled(3);
        let intake = rig.queue.intake();
        wait_for("half full", || intake.admission() == Admission::Scarce);
        // Of bytes, the last one has no room left: it waits unacknowledged.
        rig.submit(&body);
        wait_for("full", || intake.admission() == Admission::Closed);
        rig.stop();
        let rig = Rig::new(&fs, options, false);
        let intake = rig.queue.intake();
        let full = match sizer {
            Sizer::Bytes => Admission::Scarce,
            Sizer::Requests | Sizer::Items => Admission::Closed,
        };
        assert_eq!(intake.admission(), full, "known before anything is read");
        rig.to.up.store(true, Ordering::SeqCst);
        wait_for("there is room", || intake.admission() == Admission::Open);
        let mut rig = rig;
        rig.stop();
    }
}

#[test]
fn what_has_no_room_waits_and_is_not_lost() {
    let fs = SimFs::new(4);
    let options = QueueOptions {
        queue_size: 1 << 16,
        sizer: Sizer::Bytes,
        ..options()
    };
    let mut rig = Rig::new(&fs, options, false);
    for _ in 0..6 {
        rig.submit(&"x".repeat(17_000));
    }
    rig.settled(3);
    rig.to.up.store(true, Ordering::SeqCst);
    rig.settled(3);
    wait_for("all are sent", || rig.got().len() == 6);
    rig.stop();
}

#[test]
fn a_request_larger_than_the_queue_is_dropped_and_counted() {
    let fs = SimFs::new(5);
    let options = QueueOptions {
        queue_size: 1 << 16,
        sizer: Sizer::Bytes,
        ..options()
    };
    let mut rig = Rig::new(&fs, options, true);
    rig.submit(&"x".repeat(1 << 17));
    assert_eq!(rig.settled(1), 3);
    rig.shows("otelcol_exporter_enqueue_failed_log_records{exporter=\"otlp\"} 3");
    rig.stop();
}

#[test]
fn while_the_disk_is_full_nothing_is_acknowledged_and_nothing_lost() {
    let fs = SimFs::new(6);
    let mut rig = Rig::new(&fs, options(), true);
    rig.submit("a");
    rig.settled(1);
    fs.set_capacity_bytes(Some(fs.used_bytes()));
    rig.submit(&"b".repeat(100_000));
    let intake = rig.queue.intake();
    wait_for("it has to wait", || intake.admission() == Admission::Closed);
    rig.shows("tailwater_queue_disk_failures{exporter=\"otlp\",data_type=\"logs\"} ");
    assert_eq!(rig.window.advance(|_| panic!("not stored")), Front::Waiting);
    fs.set_capacity_bytes(None);
    rig.settled(1);
    wait_for("both are sent", || rig.got().len() == 2);
    rig.stop();
}

#[test]
fn damage_is_skipped_and_counted() {
    let fs = SimFs::new(7);
    let mut rig = Rig::new(&fs, options(), false);
    for body in ["aaaa", "bbbb", "cccc"] {
        rig.submit(body);
        rig.settled(1);
    }
    rig.stop();
    let names = fs.list(Path::new(DIR)).unwrap();
    let segment = names
        .iter()
        .find(|n| n.to_string_lossy().ends_with(".queue"));
    let path = Path::new(DIR).join(segment.unwrap());
    let mut content = fs.content(&path).unwrap();
    let at = content.windows(4).position(|w| w == b"bbbb").unwrap();
    content[at] ^= 1;
    fs.set_content(&path, content);
    let mut rig = Rig::new(&fs, options(), true);
    rig.shows("tailwater_queue_damaged_requests{exporter=\"otlp\",data_type=\"logs\"} 1");
    wait_for("the others are sent", || rig.got().len() == 2);
    assert_eq!(rig.got(), ["aaaa", "cccc"]);
    rig.stop();
}
