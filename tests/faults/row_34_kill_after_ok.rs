//! Row 34: OTLP is answered with success, then the agent is gone.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_testkit::otlp::{Answer, OtlpStandIn};
use tailwater_testkit::rng::Rng;
use tailwater_tests::agent::{Agent, free_port};
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::otlp_client::{GrpcClient, HttpClient, log_proto, metric_proto, span_proto};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

const PASS: &str = "with a queue on disk: acknowledged loss 0; otherwise success means delivered";

/// An agent that passes on OTLP, and a backend.
struct Way {
    rig: Rig,
    backend: OtlpStandIn,
    config: Value,
    grpc: u16,
    http: u16,
}

/// What was answered with success, and the senders' state.
#[derive(Default)]
struct Sent {
    acknowledged: Mutex<BTreeSet<String>>,
    next: AtomicU64,
    ended: AtomicBool,
}

impl Sent {
    fn count(&self) -> usize {
        self.acknowledged.lock().expect("no panic").len()
    }
}

impl Way {
    fn new(label: &str, durable: bool) -> Way {
        let rig = Rig::new(label);
        let backend = OtlpStandIn::start(None).expect("free ports");
        let (grpc, http) = (free_port().expect("a port"), free_port().expect("a port"));
        let at = |port: u16| json!({"endpoint": format!("127.0.0.1:{port}")});
        let pipeline = json!({"receivers": ["otlp"], "exporters": ["otlp_http"]});
        let mut config = json!({
            "receivers": {"otlp": {
                "protocols": {"grpc": at(grpc), "http": at(http)},
                "limits": {"request_timeout": "2s"},
            }},
            "exporters": {"otlp_http": {
                "endpoint": backend.http_url(),
                "retry_on_failure": {"initial_interval": "20ms", "max_interval": "100ms"},
            }},
            "service": {"pipelines": {"logs": pipeline, "metrics": pipeline, "traces": pipeline}},
        });
        if durable {
            let directory = rig.path("storage");
            fs::create_dir(&directory).expect("a directory");
            config["extensions"] = json!({"file_storage": {"directory": directory}});
            config["service"]["extensions"] = json!(["file_storage"]);
            config["exporters"]["otlp_http"]["sending_queue"] = json!({"storage": "file_storage"});
        }
        Way {
            rig,
            backend,
            config,
            grpc,
            http,
        }
    }

    fn start(&self) -> Agent {
        self.rig.start(&self.config)
    }

    /// Sends one request after the other, of all signals, until it is told to end.
    fn send(&self, sender: u64, sent: &Sent) {
        let grpc = GrpcClient::new(self.grpc);
        let mut client = HttpClient::connect(self.http);
        while !sent.ended.load(Ordering::SeqCst) {
            let n = sent.next.fetch_add(1, Ordering::SeqCst);
            // Of one length, so that none is the beginning of another.
            let name = format!("item-{n:09}");
            let (path, body) = match n % 3 {
                0 => ("/v1/logs", log_proto(&name)),
                1 => ("/v1/metrics", metric_proto(&name)),
                _ => ("/v1/traces", span_proto(&name)),
            };
            let success = if sender.is_multiple_of(2) && n.is_multiple_of(3) {
                grpc.export_logs("gzip", &body).is_ok_and(|code| code == 0)
            } else {
                let kind = "application/x-protobuf";
                let answer = client
                    .as_mut()
                    .map(|c| c.post(path, kind, "identity", &body));
                matches!(answer, Ok(Ok(answer)) if answer.status == 200)
            };
            if success {
                sent.acknowledged.lock().expect("no panic").insert(name);
            } else {
                client = HttpClient::connect(self.http);
                // Nobody is there for a while after a kill.
                wait::let_pass(Duration::from_millis(2));
            }
        }
    }

    /// What was acknowledged and has not arrived.
    fn missing(&self, sent: &Sent) -> Vec<String> {
        let mark = b"item-";
        let mut arrived = BTreeSet::new();
        for record in self.backend.records().iter().filter(|r| r.accepted) {
            for at in 0..record.body.len().saturating_sub(13) {
                if record.body[at..].starts_with(mark) {
                    let name = &record.body[at..at + 14];
                    arrived.insert(String::from_utf8_lossy(name).into_owned());
                }
            }
        }
        let acknowledged = sent.acknowledged.lock().expect("no panic");
        acknowledged.difference(&arrived).cloned().collect()
    }
}

/// Kills at random moments while senders send.
fn kills(row: &mut Row, durable: bool, kills: u64) {
    let way = Way::new("kill-after-ok", durable);
    let sent = Sent::default();
    let mut rng = Rng::new(34);
    std::thread::scope(|scope| {
        for sender in 0..4 {
            let (way, sent) = (&way, &sent);
            scope.spawn(move || way.send(sender, sent));
        }
        let mut agent = way.start();
        for kill in 0..kills {
            let down = durable && kill % 3 == 1;
            way.backend.set_answer(match down {
                true => Answer::unavailable(),
                false => Answer::Accept,
            });
            let (before, more) = (sent.count(), 1 + rng.below(40) as usize);
            let went_on = wait::within(wait::BOUND, || sent.count() >= before + more);
            if !went_on {
                sent.ended.store(true, Ordering::SeqCst);
                panic!("no success after kill {kill}:\n{}", tail(&agent.log()));
            }
            agent.kill();
            agent = way.start();
        }
        sent.ended.store(true, Ordering::SeqCst);
        way.backend.set_answer(Answer::Accept);
        let arrived = wait::within(wait::BOUND, || way.missing(&sent).is_empty());
        assert!(arrived, "{:?}\n{}", way.missing(&sent), tail(&agent.log()));
        agent.stop_clean();
    });
    assert_eq!(way.backend.errors(), Vec::<String>::new());
    row.reached(format!(
        "0 of {} acknowledged requests lost over {kills} kills",
        sent.count()
    ));
}

/// Guarantees that nothing that was answered with success is lost by SIGKILL, with a queue on disk and
/// without.
#[test]
fn kills_after_success_lose_nothing() {
    let count = scaled(50, 1000);
    for (durable, fault) in [
        (true, "kill -9 after success, queue on disk"),
        (false, "kill -9 after success, no queue on disk"),
    ] {
        let mut row = Row::new(34, fault)
            .how("four senders of logs, metrics and traces by both protocols; kills after 1 to 40 successes; \
                  with a queue on disk the backend is down for one kill of three")
            .pass(PASS);
        kills(&mut row, durable, count);
        row.record();
    }
}

/// Guarantees that SIGTERM while the backend is down loses nothing: with a queue on disk it is there after
/// the next start, and without it nothing was answered with success.
#[test]
fn stops_with_the_backend_down_lose_nothing() {
    for (durable, fault) in [
        (true, "SIGTERM with the backend down, queue on disk"),
        (false, "SIGTERM with the backend down, no queue on disk"),
    ] {
        let mut row = Row::new(34, fault)
            .how("four senders of logs, metrics and traces by both protocols while the backend answers 503")
            .pass(PASS);
        let mut way = Way::new("stop-down", durable);
        way.config["service"]["shutdown_timeout"] = json!("1s");
        way.backend.set_answer(Answer::unavailable());
        let sent = Sent::default();
        let agent = way.start();
        std::thread::scope(|scope| {
            for sender in 0..4 {
                let (way, sent) = (&way, &sent);
                scope.spawn(move || way.send(sender, sent));
            }
            let begun = wait::within(wait::BOUND, || match durable {
                true => sent.count() >= 100,
                // Before the exporter has any, a stop may hand them back without trying.
                false => agent.scrape().account("exporter").in_flight >= 1.0,
            });
            if !begun {
                sent.ended.store(true, Ordering::SeqCst);
                panic!("nothing was sent:\n{}", tail(&agent.log()));
            }
            // One signal: a second one would end the stop early.
            let code = agent.stop_within(wait::BOUND);
            sent.ended.store(true, Ordering::SeqCst);
            assert_eq!(code, if durable { 0 } else { 3 }, "exit code");
        });
        let count = sent.count();
        if durable {
            way.backend.set_answer(Answer::Accept);
            let agent = way.start();
            let arrived = wait::within(wait::BOUND, || way.missing(&sent).is_empty());
            assert!(arrived, "{:?}\n{}", way.missing(&sent), tail(&agent.log()));
            agent.stop_clean();
        } else {
            assert_eq!(count, 0, "answered with success, and nowhere");
        }
        row.reached(format!("0 of {count} acknowledged requests lost"));
        row.record();
    }
}
