//! Loki's push API into the real binary: from an agent to an agent, by hand, through outages and changes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_testkit::loki::DEFAULT_TENANT;
use tailwater_testkit::loki::behaviour::Reach;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::agent::{Agent, free_port};
use tailwater_tests::otlp_client::{Answer, HttpClient, compress};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

const JSON: &str = "application/json";
const PATH: &str = "/loki/api/v1/push";

/// A rig whose agent takes pushes at a port and delivers to the sink.
struct Pushes {
    rig: Rig,
    config: Value,
    port: u16,
}

impl Pushes {
    fn new(label: &str) -> Pushes {
        let rig = Rig::new(label);
        let mut config = rig.config();
        let port = free_port().expect("a port");
        config["receivers"] = json!({"loki": {
            "protocols": {"http": {"endpoint": format!("127.0.0.1:{port}")}},
            "use_incoming_timestamp": true,
        }});
        config["exporters"]["loki"]["labels"] = json!({"attributes": {"job": "job"}});
        config["exporters"]["loki"]["structured_metadata"] = json!(true);
        config["service"]["pipelines"]["logs"]["receivers"] = json!(["loki"]);
        // Each change is waited for by what the log says of it.
        config["service"]["telemetry"]["logs"] =
            json!({"level": "info", "sampling": {"enabled": false}});
        Pushes { rig, config, port }
    }

    fn start(&self) -> Agent {
        self.rig.start(&self.config)
    }

    fn post(&self, encoding: &str, body: &[u8]) -> Answer {
        let mut client = HttpClient::connect(self.port).expect("it listens");
        let answer = client.post(PATH, JSON, encoding, body);
        answer.expect("an answer")
    }

    /// Lines of the sink of a tenant, with their time, labels and metadata.
    fn entries(&self, tenant: &str) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for labels in self.rig.loki.streams(tenant) {
            for entry in self.rig.loki.entries(tenant, &labels) {
                let line = String::from_utf8_lossy(&entry.line).into_owned();
                let rest = format!("{labels:?} {} {:?}", entry.ts_ns, entry.metadata);
                assert!(found.insert(line, rest).is_none(), "twice");
            }
        }
        found
    }
}

fn push(line: &str, ns: i64) -> Vec<u8> {
    let stream = json!({"job": "hand"});
    let values = json!([[ns.to_string(), line, {"trace": "t1"}]]);
    let push = json!({"streams": [{"stream": stream, "values": values}]});
    push.to_string().into_bytes()
}

/// Guarantee: a push by hand is at the destination when it is answered with 204, with its time, labels and
/// metadata; its tenant is that of its header; what is no push and what inflates too far is refused.
#[test]
fn pushes_by_hand_arrive() {
    let mut pushes = Pushes::new("loki-by-hand");
    pushes.rig.loki.set_behaviour(|b| b.auth_enabled = true);
    pushes.config["exporters"]["loki"]["tenant_id"] = json!("others");
    let http = &mut pushes.config["receivers"]["loki"]["protocols"]["http"];
    http["include_metadata"] = json!(true);
    http["max_request_body_size"] = json!(1 << 20);
    pushes.config["processors"]["attributes"] = json!({"actions": [
        {"key": "org", "from_context": "metadata.x-scope-orgid", "action": "upsert"},
    ]});
    pushes.config["service"]["pipelines"]["logs"]["processors"] = json!(["attributes", "batch"]);
    pushes.config["exporters"]["loki"]["tenant"] =
        json!({"from_attribute": "org", "allow": ["team-*"]});
    let agent = pushes.start();
    let now = pushes.rig.start_ns();
    for (encoding, line) in [("identity", "plain"), ("gzip", "zipped")] {
        let answer = pushes.post(encoding, &compress(encoding, &push(line, now)));
        assert_eq!(answer.status, 204, "{answer:?}\n{}", agent.log());
        let entries = pushes.entries("others");
        let entry = &entries[line];
        for part in ["hand", "trace", "t1", &now.to_string()] {
            assert!(entry.contains(part), "{line}: no {part} in {entry}");
        }
    }
    let body = push("of a team", now);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Type: {JSON}\r\nX-Scope-OrgID: team-a\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let mut client = HttpClient::connect(pushes.port).expect("it listens");
    let sent = client.send_raw(&[head.as_bytes(), &body].concat());
    sent.expect("it is open");
    assert_eq!(client.answer().expect("an answer").status, 204);
    assert!(pushes.entries("team-a").contains_key("of a team"));
    let bomb = vec![b' '; 64 << 20];
    for (encoding, body, status) in [
        ("identity", b"{".to_vec(), 400),
        ("identity", push(&"x".repeat(2 << 20), now), 413),
        ("gzip", compress("gzip", &bomb), 413),
    ] {
        let answer = pushes.post(encoding, &body);
        assert_eq!(answer.status, status, "{answer:?}");
    }
    assert!(agent.resident_bytes_peak() < 256 << 20, "it was inflated");
    let account = agent.scrape().account("receiver");
    assert_eq!((account.read, account.delivered), (3.0, 3.0));
    agent.stop_clean();
}

/// Guarantee: while the destination cannot be reached a push is no success, its sender is told when to come
/// again, and what it sends then arrives once.
#[test]
fn an_outage_is_told_to_who_pushes() {
    let mut pushes = Pushes::new("loki-outage");
    pushes.config["receivers"]["loki"]["limits"] = json!({"request_timeout": "300ms"});
    let agent = pushes.start();
    pushes.rig.loki.set_reach(Reach::Refused).expect("closed");
    let body = push("late", pushes.rig.start_ns());
    let answer = pushes.post("identity", &body);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.head.to_lowercase().contains("retry-after: 1"));
    pushes.rig.loki.set_reach(Reach::Up).expect("open");
    let there = wait::within(wait::BOUND, || pushes.post("identity", &body).status == 204);
    assert!(there, "{}", agent.log());
    let entries = pushes.entries(DEFAULT_TENANT);
    assert_eq!(entries.len(), 1, "the same push is the same entry");
    agent.stop_clean();
}

/// Guarantee: files that one agent tails and pushes to another arrive at the sink of that one, each line once,
/// while the receiver is changed and its destination goes away.
#[test]
fn changes_lose_and_repeat_nothing() {
    let mut pushes = Pushes::new("loki-agents");
    let rig = &pushes.rig;
    let taker = rig.start(&pushes.config);
    let mut config = rig.config();
    config["exporters"]["loki"]["endpoint"] =
        json!(format!("http://127.0.0.1:{}{PATH}", pushes.port));
    let (state, run) = (rig.path("sender"), rig.path("sender-run"));
    for directory in [&state, &run] {
        std::fs::create_dir_all(directory).expect("a directory");
    }
    let sender = Agent::start(&config, &state, &run);
    let options = LiveOptions {
        lines_per_second: 2_000,
        rotate_every_lines: None,
        lines_max: None,
    };
    let writer = rig.writer(1, "app.log", |_| {});
    let writer = LiveWriter::start(writer, options).expect("a thread");
    for n in 0..12 {
        if n == 4 {
            rig.loki.set_reach(Reach::Refused).expect("closed");
        }
        let receiver = &mut pushes.config["receivers"]["loki"];
        receiver["limits"] = json!({"requests_max": 100 + n});
        receiver["protocols"]["http"]["response_headers"] = json!({"X-Change": n.to_string()});
        pushes.config["processors"]["batch"]["send_batch_size"] = json!(1000 + n);
        let changed = taker.reload(&pushes.config);
        assert!(changed, "{n}: {}", tail(&taker.log()));
        if n == 8 {
            rig.loki.set_reach(Reach::Up).expect("open");
        }
        wait::let_pass(Duration::from_millis(50));
    }
    writer.stop().expect("written");
    rig.wait_delivered(&taker);
    let faults = sender.scrape().faults();
    assert!(faults.is_empty(), "{faults:?}\n{}", tail(&sender.log()));
    sender.stop_clean();
    let report = rig.finish(taker);
    println!("{:?}", report.totals);
}
