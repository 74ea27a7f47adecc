//! OTLP into the real binary: every form, what success means, kills, stops, and hostile clients.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tailwater_testkit::loki::DEFAULT_TENANT;
use tailwater_testkit::loki::behaviour::Reach;
use tailwater_testkit::rng::Rng;
use tailwater_tests::agent::{Agent, free_port};
use tailwater_tests::otlp_client::{
    ENCODINGS, GRPC_ENCODINGS, GrpcClient, HttpClient, compress, log_json, log_proto,
};
use tailwater_tests::rig::Rig;
use tailwater_tests::wait;

const JSON: &str = "application/json";
const PROTO: &str = "application/x-protobuf";

/// A rig whose agents take OTLP at two ports.
struct Otlp {
    rig: Rig,
    config: Value,
    grpc: u16,
    http: u16,
}

impl Otlp {
    /// From OTLP to the sink of the rig.
    fn new(label: &str) -> Otlp {
        let rig = Rig::new(label);
        let mut config = rig.config();
        let (grpc, http) = (free_port().expect("a port"), free_port().expect("a port"));
        let at = |port: u16| json!({"endpoint": format!("127.0.0.1:{port}")});
        config["receivers"] = json!({"otlp": {"protocols": {"grpc": at(grpc), "http": at(http)}}});
        config["service"]["pipelines"]["logs"]["receivers"] = json!(["otlp"]);
        Otlp {
            rig,
            config,
            grpc,
            http,
        }
    }

    fn start(&self) -> Agent {
        self.rig.start(&self.config)
    }

    fn client(&self) -> HttpClient {
        HttpClient::connect(self.http).expect("it listens")
    }

    /// The lines that the sink has.
    fn lines(&self) -> BTreeSet<String> {
        let streams = self.rig.loki.streams(DEFAULT_TENANT);
        let entries = streams
            .iter()
            .flat_map(|labels| self.rig.loki.entries(DEFAULT_TENANT, labels));
        entries
            .map(|entry| String::from_utf8_lossy(&entry.line).into_owned())
            .collect()
    }
}

/// Guarantee: protobuf and JSON over HTTP and gRPC, with every compression, are in the file when
/// success is answered.
#[test]
fn every_form_is_written_before_success() {
    let mut otlp = Otlp::new("otlp-forms");
    let out = otlp.rig.path("out.json");
    otlp.config["exporters"] = json!({"file": {"path": out}, "debug": {}});
    otlp.config["service"]["pipelines"]["logs"]["exporters"] = json!(["file", "debug"]);
    otlp.config["processors"]["batch"]["timeout"] = json!("5ms");
    let agent = otlp.start();
    let written = |what: &str| {
        let text = fs::read_to_string(&out).expect("written");
        assert_eq!(text.matches(what).count(), 1, "{what}\n{}", agent.log());
    };
    let mut client = otlp.client();
    for encoding in ENCODINGS {
        for (kind, form) in [(JSON, "json"), (PROTO, "proto")] {
            let line = format!("line-http-{form}-{encoding}-end");
            let plain = match kind {
                JSON => log_json(&line).into_bytes(),
                _ => log_proto(&line),
            };
            let answer = client.post("/v1/logs", kind, encoding, &compress(encoding, &plain));
            let answer = answer.expect("an answer");
            assert_eq!(answer.status, 200, "{line}: {answer:?}");
            written(&line);
        }
    }
    let client = GrpcClient::new(otlp.grpc);
    for encoding in GRPC_ENCODINGS {
        let line = format!("line-grpc-{encoding}-end");
        let status = client.export_logs(encoding, &log_proto(&line));
        assert_eq!(status.expect("an answer"), 0, "{line}");
        written(&line);
    }
    let scrape = agent.scrape();
    let accepted = |transport| {
        let labels = [("receiver", "otlp"), ("transport", transport)];
        scrape.sum("otelcol_receiver_accepted_log_records", &labels)
    };
    assert_eq!((accepted("http"), accepted("grpc")), (14.0, 4.0));
    let account = scrape.account("receiver");
    assert_eq!((account.read, account.delivered), (36.0, 36.0), "two lanes");
    assert_eq!(account.unexplained(), 0.0);
    agent.stop_clean();
}

/// Guarantee: while the destination cannot be reached nothing is a success, a sender is told when
/// to come again, and what it sends later arrives.
#[test]
fn an_outage_is_told_to_the_sender() {
    let mut otlp = Otlp::new("otlp-outage");
    otlp.config["receivers"]["otlp"]["limits"] = json!({"request_timeout": "300ms"});
    let agent = otlp.start();
    otlp.rig.loki.set_reach(Reach::Refused).expect("closed");
    let mut client = otlp.client();
    let mut post = |line: &str| {
        let answer = client.post("/v1/logs", JSON, "identity", log_json(line).as_bytes());
        answer.expect("an answer")
    };
    for n in 0..3 {
        let answer = post(&format!("during-{n}"));
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.head.contains("retry-after: 1"), "{answer:?}");
    }
    otlp.rig.loki.set_reach(Reach::Up).expect("open");
    let there = wait::within(wait::BOUND, || post("after").status == 200);
    assert!(there, "{}", agent.log());
    assert!(otlp.lines().contains("after"));
    agent.stop_clean();
}

/// Guarantee: whatever was answered with success before a SIGKILL is at the destination, over 100
/// kills at random moments, by both protocols.
#[test]
fn kills_lose_nothing_that_was_acknowledged() {
    let mut otlp = Otlp::new("otlp-kill");
    otlp.config["processors"]["batch"]["timeout"] = json!("20ms");
    let acknowledged: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let (next, ended) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut agent = otlp.start();
    let senders: Vec<_> = (0..6)
        .map(|sender| {
            let (acknowledged, next, ended) = (acknowledged.clone(), next.clone(), ended.clone());
            let (grpc, http) = (otlp.grpc, otlp.http);
            std::thread::spawn(move || {
                let grpc = GrpcClient::new(grpc);
                let mut client = HttpClient::connect(http);
                while !ended.load(Ordering::SeqCst) {
                    let line = format!("line-{}", next.fetch_add(1, Ordering::SeqCst));
                    let body = log_proto(&line);
                    let success = if sender % 2 == 0 {
                        grpc.export_logs("gzip", &body).is_ok_and(|code| code == 0)
                    } else {
                        let answer = client
                            .as_mut()
                            .map(|c| c.post("/v1/logs", PROTO, "identity", &body));
                        matches!(answer, Ok(Ok(answer)) if answer.status == 200)
                    };
                    if success {
                        acknowledged.lock().expect("no panic").insert(line);
                    } else {
                        // Nobody is there for a while after a kill.
                        let found = wait::for_some(wait::BOUND, || {
                            let there = HttpClient::connect(http);
                            (there.is_ok() || ended.load(Ordering::SeqCst)).then_some(there)
                        });
                        client = found.expect("the agent comes again");
                    }
                }
            })
        })
        .collect();
    let mut rng = Rng::new(7);
    let count = || acknowledged.lock().expect("no panic").len();
    for kill in 0..100 {
        let (before, more) = (count(), 1 + rng.below(60) as usize);
        let went_on = wait::within(wait::BOUND, || count() >= before + more);
        assert!(
            went_on,
            "nothing is acknowledged after kill {kill}:\n{}",
            agent.log()
        );
        agent.kill();
        agent = otlp.start();
    }
    ended.store(true, Ordering::SeqCst);
    senders
        .into_iter()
        .for_each(|s| s.join().expect("no panic"));
    agent.stop_clean();
    let (there, acknowledged) = (otlp.lines(), acknowledged.lock().expect("no panic"));
    let lost: Vec<_> = acknowledged.difference(&there).collect();
    assert!(
        lost.is_empty(),
        "{} of {}: {lost:?}",
        lost.len(),
        acknowledged.len()
    );
    println!("{} acknowledged over 100 kills, 0 lost", acknowledged.len());
}

/// Guarantee: a stop answers what is under way: delivered by then, or to be sent again; never
/// silence, and never a success that is none.
#[test]
fn a_stop_answers_what_is_under_way() {
    let mut otlp = Otlp::new("otlp-stop");
    otlp.config["service"]["shutdown_timeout"] = json!("1s");
    let agent = otlp.start();
    otlp.rig.loki.set_reach(Reach::Refused).expect("closed");
    let request = std::thread::spawn({
        let mut client = otlp.client();
        move || client.post("/v1/logs", JSON, "identity", log_json("late").as_bytes())
    });
    // Before the exporter has it, a stop may hand it back without trying.
    let under_way = || agent.scrape().account("exporter").in_flight >= 1.0;
    assert!(wait::within(wait::BOUND, under_way), "{}", agent.log());
    let code = agent.stop_within(wait::BOUND);
    let answer = request.join().expect("no panic").expect("an answer");
    assert_eq!((answer.status, code), (503, 3), "{answer:?}");
    assert!(!otlp.lines().contains("late"));
}

/// Guarantee: an address that others reach is warned about, loudly and with what to do.
#[test]
fn an_open_door_is_said() {
    let mut otlp = Otlp::new("otlp-door");
    let endpoint = format!("0.0.0.0:{}", otlp.http);
    otlp.config["receivers"]["otlp"]["protocols"]["http"]["endpoint"] = json!(endpoint);
    let agent = otlp.start();
    let log = agent.log();
    assert!(log.contains("UNPROTECTED LISTENER"), "{log}");
    agent.stop_clean();
    otlp.config["receivers"]["otlp"]["refuse_unprotected"] = json!(true);
    let mut agent = otlp.rig.spawn(&otlp.config);
    let status = agent.wait_end(wait::BOUND).expect("it ends");
    assert_eq!(status.code(), Some(1));
    assert!(
        agent.log().contains("refuse_unprotected"),
        "{}",
        agent.log()
    );
}

/// The test holds more connections than a shell allows by default.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it is not allowed, connecting fails and says so.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Guarantee: bombs, 2,000 connections that say nothing or stop half-way, bodies that are too long
/// or cut off: tailing goes on, senders with something to say are heard, memory stays bounded, and
/// nothing is left of them.
#[test]
fn hostile_clients_stop_nothing() {
    allow_many_files();
    let mut otlp = Otlp::new("otlp-hostile");
    let files = otlp.rig.config()["receivers"]["filelog"].clone();
    otlp.config["receivers"]["filelog"] = files;
    otlp.config["service"]["pipelines"]["logs"]["receivers"] = json!(["filelog", "otlp"]);
    let http = &mut otlp.config["receivers"]["otlp"]["protocols"]["http"];
    http["read_header_timeout"] = json!("2s");
    otlp.config["receivers"]["otlp"]["limits"] = json!({"body_timeout": "2s"});
    let mut writer = otlp.rig.writer(1, "app.log", |_| {});
    let agent = otlp.start();
    let head = "POST /v1/logs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    let half = [
        String::new(),
        head.to_owned(),
        format!("{head}Content-Length: 1000000\r\n\r\n{{"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ];
    let mut idle = Vec::new();
    for n in 0..2000 {
        let port = if n % 4 == 3 { otlp.grpc } else { otlp.http };
        let mut client = HttpClient::connect(port).expect("it listens");
        // Those before it may have had to make way already.
        let _ = client.send_raw(half[n % 4].as_bytes());
        idle.push(client);
    }
    writer.write_lines(20_000).expect("written");
    let zeros = vec![0; 32 << 20];
    for encoding in ENCODINGS {
        if encoding == "identity" {
            continue;
        }
        let bomb = compress(encoding, &zeros);
        let answer = otlp.client().post("/v1/logs", PROTO, encoding, &bomb);
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 400, "{encoding}: {answer:?}");
        let answer = otlp
            .client()
            .post("/v1/logs", PROTO, encoding, &bomb[..bomb.len() / 2]);
        assert_eq!(
            answer.expect("an answer").status,
            400,
            "{encoding}, cut off"
        );
    }
    for encoding in ["gzip", "zstd", "snappy"] {
        let status = GrpcClient::new(otlp.grpc).export_logs(encoding, &zeros[..8 << 20]);
        assert_eq!(status.expect("an answer"), 8, "{encoding}");
    }
    let mut client = otlp.client();
    client
        .send_raw(format!("{head}Content-Length: 99999999999\r\n\r\n").as_bytes())
        .and_then(|()| client.send_raw(&vec![b' '; 21 << 20]))
        // It is answered before all of it is sent.
        .unwrap_or_default();
    let answer = client.answer();
    assert!(answer.is_err() || answer.is_ok_and(|a| a.status == 400));
    let answer = otlp
        .client()
        .post("/v1/logs", JSON, "identity", log_json("heard").as_bytes());
    assert_eq!(answer.expect("an answer").status, 200);
    otlp.rig.wait_delivered(&agent);
    let gone = || {
        let scrape = agent.scrape();
        let open = scrape.sum("tailwater_receiver_requests_in_flight", &[]);
        let bytes = scrape.sum("tailwater_receiver_incoming_bytes", &[]);
        (open, bytes) == (0.0, 0.0)
    };
    assert!(wait::within(wait::BOUND, gone), "{}", agent.log());
    drop(idle);
    let peak = agent.resident_bytes_peak();
    println!("peak of resident memory: {} MiB", peak >> 20);
    assert!(peak < 256 << 20, "{peak}");
    agent.stop_clean();
    assert!(otlp.lines().contains("heard"));
}
