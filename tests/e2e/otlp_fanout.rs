//! OTLP to two destinations, with the real binary: each has every request once, whatever the other does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tailwater_testkit::otlp::{Answer, OtlpStandIn};
use tailwater_tests::agent::free_addr;
use tailwater_tests::otlp_client::{HttpClient, log_proto};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

const PROTO: &str = "application/x-protobuf";
/// Requests that are sent, and senders at the same time.
const REQUESTS: usize = 120;
const SENDERS: usize = 12;

fn config(receive: SocketAddr, healthy: &OtlpStandIn, ill: &OtlpStandIn) -> Value {
    let exporter = |to: &OtlpStandIn| {
        json!({
            "endpoint": to.http_url(),
            "timeout": "500ms",
            "sending_queue": {"queue_size": 10},
            "retry_on_failure": {"initial_interval": "20ms", "max_interval": "100ms"},
        })
    };
    json!({
        "receivers": {"otlp": {"protocols": {"http": {
            "endpoint": receive.to_string(), "write_timeout": "300ms",
        }}}},
        "exporters": {"otlp_http/a": exporter(healthy), "otlp_http/b": exporter(ill)},
        "service": {"pipelines": {
            "logs": {"receivers": ["otlp"], "exporters": ["otlp_http/a", "otlp_http/b"]},
        }},
    })
}

/// Requests, made once: a sender that tries again sends the same bytes.
type Bodies = Arc<Vec<Vec<u8>>>;

fn bodies() -> Bodies {
    let body = |n| log_proto(&format!("request {n}"));
    Arc::new((0..REQUESTS).map(body).collect())
}

/// Sends each request until it is answered with success, or `rounds` times. Returns how many were.
fn send_all(to: SocketAddr, bodies: &Bodies, rounds: usize) -> usize {
    let next = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (next, done, bodies) = (next.clone(), done.clone(), bodies.clone());
            std::thread::spawn(move || {
                loop {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    let Some(body) = bodies.get(n) else {
                        return;
                    };
                    for _ in 0..rounds {
                        let mut client = HttpClient::connect(to.port()).expect("it listens");
                        let answer = client.post("/v1/logs", PROTO, "identity", body);
                        let status = answer.expect("an answer").status;
                        assert!(matches!(status, 200 | 503), "{status}");
                        if status == 200 {
                            done.fetch_add(1, Ordering::SeqCst);
                            break;
                        }
                    }
                }
            })
        })
        .collect();
    for sender in senders {
        sender.join().expect("no panic");
    }
    done.load(Ordering::SeqCst)
}

/// How often each request was accepted.
fn accepted(by: &OtlpStandIn) -> BTreeMap<Vec<u8>, usize> {
    let mut times = BTreeMap::new();
    for record in by.records().into_iter().filter(|r| r.accepted) {
        *times.entry(record.body).or_insert(0) += 1;
    }
    times
}

/// Guarantees that while one destination refuses, hangs or is gone, the other one gets every request at the
/// first attempt, that no further attempt repeats anything to it, and that the ill one gets each
/// request once when it is well again. Without a queue on disk, nothing is answered with success before.
#[test]
fn each_destination_has_each_request_once() {
    for illness in [Answer::unavailable(), Answer::Never, Answer::Close] {
        let rig = Rig::new("otlp-fanout");
        let start = || OtlpStandIn::start(None).expect("free ports");
        let (healthy, ill) = (start(), start());
        let bodies = bodies();
        let receive = free_addr();
        let agent = rig.start(&config(receive, &healthy, &ill));
        ill.set_answer(illness.clone());
        for round in 1..=2 {
            assert_eq!(
                send_all(receive, &bodies, 1),
                0,
                "{illness:?}: success in round {round}"
            );
            let times = accepted(&healthy);
            assert_eq!(
                times.len(),
                REQUESTS,
                "{illness:?}: round {round}\n{}",
                tail(&agent.log())
            );
            let repeats = times.values().sum::<usize>() - REQUESTS;
            assert_eq!(repeats, 0, "{illness:?}: round {round}");
        }
        assert!(accepted(&ill).is_empty());
        ill.set_answer(Answer::Accept);
        assert_eq!(send_all(receive, &bodies, 200), REQUESTS, "{illness:?}");
        for (name, destination) in [("healthy", &healthy), ("ill", &ill)] {
            let times = accepted(destination);
            let repeats = times.values().sum::<usize>() - times.len();
            assert_eq!((times.len(), repeats), (REQUESTS, 0), "{illness:?}: {name}");
            assert_eq!(destination.errors(), Vec::<String>::new());
        }
        let settled = wait::within(wait::BOUND, || {
            let scrape = agent.scrape();
            scrape.faults().is_empty()
                && scrape.sum("tailwater_receiver_remembered_requests", &[]) == 0.0
        });
        assert!(settled, "{:?}", agent.scrape().faults());
        agent.stop_clean();
    }
}

/// Guarantees that a destination that is down and has a queue on disk holds up neither the other nor the
/// answer: all is answered with success, and arrives once when it is back.
#[test]
fn with_a_queue_on_disk_nobody_waits() {
    let rig = Rig::new("otlp-fanout-stored");
    let start = || OtlpStandIn::start(None).expect("free ports");
    let (healthy, ill) = (start(), start());
    let bodies = bodies();
    let receive = free_addr();
    let mut config = config(receive, &healthy, &ill);
    let directory = rig.path("storage");
    std::fs::create_dir(&directory).expect("a directory");
    config["receivers"]["otlp"]["protocols"]["http"]["write_timeout"] = json!("20s");
    config["extensions"] = json!({"file_storage": {"directory": directory}});
    config["service"]["extensions"] = json!(["file_storage"]);
    config["exporters"]["otlp_http/b"]["sending_queue"] =
        json!({"queue_size": 1000, "storage": "file_storage"});
    let agent = rig.start(&config);
    ill.set_answer(Answer::Never);
    assert_eq!(
        send_all(receive, &bodies, 1),
        REQUESTS,
        "{}",
        tail(&agent.log())
    );
    assert_eq!(accepted(&healthy).len(), REQUESTS);
    ill.set_answer(Answer::Accept);
    let all = wait::within(wait::BOUND, || accepted(&ill).len() == REQUESTS);
    assert!(all, "{}", tail(&agent.log()));
    for destination in [&healthy, &ill] {
        assert_eq!(accepted(destination).values().sum::<usize>(), REQUESTS);
    }
    agent.stop_clean();
}
