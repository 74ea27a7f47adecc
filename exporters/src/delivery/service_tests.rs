use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};
use tailwater_pipeline::ack::NoSink;
use tailwater_pipeline::clock::{Clock, SystemClock};
use tailwater_pipeline::{AckWindow, Admission, DropReason, Front, Outcome, Wake};
use tailwater_telemetry::metrics::{Exposition, MetricsRegistry, SERIES_MAX_DEFAULT};

use super::test_sockets::Sockets;
use super::*;

const LONG: Duration = Duration::from_secs(20);

/// Answers by the first byte of the body: `d` delivered, `h` never, `f` connection refused.
struct FakeTransport {
    sent: mpsc::Sender<Vec<u8>>,
}

impl Transport for FakeTransport {
    async fn send(&self, _: &HeaderMap, body: Vec<Bytes>) -> Result<Reply, SendError> {
        let body = body.concat();
        self.sent.send(body.clone()).ok();
        match body[0] {
            b'h' => std::future::pending().await,
            b'f' => Err(SendError::new(SendErrorKind::Connect, "refused")),
            first => Ok(Reply {
                status: match first {
                    b'r' => StatusCode::BAD_REQUEST,
                    _ => StatusCode::NO_CONTENT,
                },
                headers: HeaderMap::new(),
                body: Bytes::new(),
                truncated: false,
            }),
        }
    }
}

struct FakeJudge {
    panics: AtomicUsize,
}

impl<D: Duty> Judge<D> for FakeJudge {
    fn judge(&self, _: &mut OutgoingRequest<D>, result: Result<Reply, SendError>) -> Verdict<D> {
        if self.panics.load(Ordering::SeqCst) > 0 {
            self.panics.fetch_sub(1, Ordering::SeqCst);
            panic!("a judge that panics, on purpose");
        }
        match result {
            Ok(reply) if reply.status == StatusCode::BAD_REQUEST => Verdict::Drop {
                reason: tailwater_pipeline::DropReason::Rejected,
                cause: "it is no good".into(),
            },
            Ok(_) => Verdict::Delivered,
            Err(e) => e.verdict(),
        }
    }
}

struct Rig {
    delivery: Delivery<Acks>,
    window: AckWindow<u32>,
    clock: Arc<SystemClock>,
    sent: mpsc::Receiver<Vec<u8>>,
    _sockets: Sockets,
}

impl Rig {
    fn new(queue: QueueOptions, panics: usize) -> Rig {
        let clock = Arc::new(SystemClock::default());
        let retry = RetryOptions {
            initial_interval: Duration::from_millis(5),
            ..RetryOptions::default()
        };
        let name = "test".into();
        let parts = DeliveryParts {
            name,
            queue,
            retry,
            seed: 1,
            clock: clock.clone(),
        };
        let mut delivery = Delivery::new(parts);
        let (tx, sent) = mpsc::channel();
        let sockets = Sockets::new();
        let judge = Arc::new(FakeJudge {
            panics: panics.into(),
        });
        delivery.start(&sockets.handle, Arc::new(FakeTransport { sent: tx }), judge);
        let window = AckWindow::new(Arc::new(NoSink), 0);
        Rig {
            delivery,
            window,
            clock,
            sent,
            _sockets: sockets,
        }
    }

    fn submit(&mut self, body: &'static str, lane: u64) {
        let mut acks = Acks::new();
        acks.add(self.window.reserve(1, 3, 1), 3);
        let body = vec![Bytes::from_static(body.as_bytes())];
        let r = OutgoingRequest::new(body, Arc::default(), None, vec![lane], 3, acks);
        self.delivery.handle().submit(r);
    }

    fn next_sent(&self) -> Vec<u8> {
        self.sent.recv_timeout(LONG).expect("something is sent")
    }

    fn front(&mut self) -> (Front, usize) {
        let mut n = 0;
        (self.window.advance(|_| n += 1), n)
    }

    fn stop(&mut self, after: Duration) -> u64 {
        self.delivery.stop(self.clock.now().after(after))
    }
}

#[test]
fn what_is_submitted_is_sent_and_resolved() {
    let mut rig = Rig::new(QueueOptions::default(), 0);
    for lane in 0..5 {
        rig.submit("d", lane % 2);
    }
    for _ in 0..5 {
        assert_eq!(rig.next_sent(), b"d");
    }
    assert_eq!(rig.stop(LONG), 0);
    assert_eq!(rig.front(), (Front::Empty, 5));
    assert_eq!(rig.delivery.handle().stats().sent_items(), 15);
}

#[test]
fn counters_are_shown_under_the_collectors_names() {
    let registry = MetricsRegistry::new(Exposition::default(), SERIES_MAX_DEFAULT);
    let mut rig = Rig::new(QueueOptions::default(), 0);
    rig.delivery
        .expose(&registry, tailwater_pdata::Signal::Logs);
    rig.submit("d", 1);
    rig.submit("d", 2);
    rig.submit("r", 3);
    assert_eq!(rig.stop(LONG), 0);
    let text = registry.render();
    for line in [
        "otelcol_exporter_sent_log_records{exporter=\"test\"} 6",
        "otelcol_exporter_send_failed_log_records{exporter=\"test\"} 3",
        "otelcol_exporter_queue_size{exporter=\"test\",data_type=\"logs\"} 0",
        "otelcol_exporter_queue_capacity{exporter=\"test\",data_type=\"logs\"} 1000",
        "tailwater_exporter_sent_bytes{exporter=\"test\"} 2",
        "tailwater_exporter_requests{exporter=\"test\"} 3",
        "tailwater_exporter_refused_requests{exporter=\"test\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
}

#[test]
fn a_stop_cuts_what_hangs_and_hands_everything_back() {
    let queue = QueueOptions {
        num_consumers: 1,
        ..QueueOptions::default()
    };
    let mut rig = Rig::new(queue, 0);
    rig.submit("h", 1);
    rig.submit("d", 1);
    rig.submit("d", 2);
    assert_eq!(rig.next_sent(), b"h");
    assert_eq!(rig.stop(Duration::from_millis(30)), 9);
    assert_eq!(rig.front().0, Front::Rewind(Outcome::Retry));
    rig.submit("d", 3);
    assert!(
        rig.sent.try_recv().is_err(),
        "nothing is sent after the stop"
    );
    assert_eq!(rig.delivery.handle().stats().queue_requests(), 0);
}

#[test]
fn a_stop_does_not_wait_for_a_dead_destination() {
    let mut rig = Rig::new(QueueOptions::default(), 0);
    rig.submit("f", 1);
    for _ in 0..3 {
        assert_eq!(rig.next_sent(), b"f", "it is tried again");
    }
    assert_eq!(rig.stop(Duration::from_secs(3600)), 3);
    assert_eq!(rig.front().0, Front::Rewind(Outcome::Retry));
    assert_eq!(rig.delivery.handle().stats().dropped_items(), 0);
}

#[test]
fn a_judge_that_panics_costs_an_attempt_and_nothing_else() {
    let mut rig = Rig::new(QueueOptions::default(), 1);
    rig.submit("d", 1);
    assert_eq!(
        (rig.next_sent(), rig.next_sent()),
        (b"d".to_vec(), b"d".to_vec())
    );
    assert_eq!(rig.stop(LONG), 0);
    assert_eq!(rig.front(), (Front::Empty, 1));
}

#[test]
fn shards_are_woken_when_there_is_room_again() {
    struct Count(Mutex<mpsc::Sender<()>>);
    impl Wake for Count {
        fn wake(&self) {
            self.0.lock().unwrap().send(()).ok();
        }
    }
    let queue = QueueOptions {
        queue_size: 2,
        ..QueueOptions::default()
    };
    let clock = Arc::new(SystemClock::default());
    let retry = RetryOptions::default();
    let parts = DeliveryParts {
        name: "t".into(),
        queue,
        retry,
        seed: 1,
        clock: clock.clone(),
    };
    let mut delivery: Delivery<Acks> = Delivery::new(parts);
    let handle = delivery.handle();
    let (tx, woken) = mpsc::channel();
    handle.add_waker(Arc::new(Count(Mutex::new(tx))));
    let body = || vec![Bytes::from_static(b"d")];
    let submit = |lane| {
        let r = OutgoingRequest::new(body(), Arc::default(), None, vec![lane], 1, Acks::new());
        handle.submit(r);
    };
    submit(1);
    assert_eq!(handle.admission(), Admission::Open);
    submit(2);
    assert_eq!(handle.admission(), Admission::Closed);
    assert!(woken.try_recv().is_err());
    let sockets = Sockets::new();
    let (tx, _sent) = mpsc::channel();
    let judge = Arc::new(FakeJudge { panics: 0.into() });
    delivery.start(&sockets.handle, Arc::new(FakeTransport { sent: tx }), judge);
    woken.recv_timeout(LONG).expect("woken");
    assert_eq!(handle.admission(), Admission::Open);
    assert_eq!(delivery.stop(clock.now().after(LONG)), 0);
    assert_eq!(handle.stats().dropped(DropReason::Rejected), 0);
}

#[test]
fn a_service_that_was_never_started_hands_everything_back() {
    let clock = Arc::new(SystemClock::default());
    let parts = DeliveryParts {
        name: "t".into(),
        queue: QueueOptions::default(),
        retry: RetryOptions::default(),
        seed: 1,
        clock: clock.clone(),
    };
    let mut delivery: Delivery<Acks> = Delivery::new(parts);
    let mut window: AckWindow<u32> = AckWindow::new(Arc::new(NoSink), 0);
    let mut acks = Acks::new();
    acks.add(window.reserve(1, 4, 1), 4);
    let body = vec![Bytes::from_static(b"d")];
    let r = OutgoingRequest::new(body, Arc::default(), None, vec![1], 4, acks);
    delivery.handle().submit(r);
    assert_eq!(delivery.stop(clock.now().after(LONG)), 4);
    assert_eq!(window.advance(|_| ()), Front::Rewind(Outcome::Retry));
}
