//! OTLP in, OTLP out, with the real binary: all signals as the bytes they came as, and success that means
//! stored.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_testkit::otlp::{Answer, Carrier, Kind, OtlpStandIn};
use tailwater_testkit::rng::Rng;
use tailwater_tests::admin::Way;
use tailwater_tests::agent::{Agent, free_addr};
use tailwater_tests::otlp_client::field;
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::tls::certificate;
use tailwater_tests::wait;

const KILLS: u64 = 100;

/// One resource with an attribute, and one scope with `items`.
fn request(items: &[Vec<u8>]) -> Vec<u8> {
    let attribute = [field(1, b"service.name"), field(2, &field(1, b"test"))].concat();
    let scope: Vec<u8> = items.iter().flat_map(|item| field(2, item)).collect();
    let resource = [field(1, &field(1, &attribute)), field(2, &scope)].concat();
    field(1, &resource)
}

/// A request with `n` items, which say `text`.
fn message(kind: Kind, text: &str, n: usize) -> Vec<u8> {
    let item = |i: usize| {
        let text = format!("{text} {i}");
        match kind {
            Kind::Logs => field(5, &field(1, text.as_bytes())),
            Kind::Traces => [
                field(1, &[7; 16]),
                field(2, &[8; 8]),
                field(5, text.as_bytes()),
            ]
            .concat(),
            // A gauge with one point of 1.0.
            Kind::Metrics => {
                let point = [&[0x21], &1.0_f64.to_le_bytes()[..]].concat();
                [field(1, text.as_bytes()), field(5, &field(1, &point))].concat()
            }
        }
    };
    request(&(0..n).map(item).collect::<Vec<_>>())
}

/// The status of the answer to a request over HTTP; `None` without one.
fn post(to: SocketAddr, kind: Kind, body: &[u8]) -> Option<u16> {
    let path = match kind {
        Kind::Logs => "logs",
        Kind::Metrics => "metrics",
        Kind::Traces => "traces",
    };
    let head = format!(
        "POST /v1/{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(to).ok()?;
    stream.set_read_timeout(Some(wait::BOUND)).ok()?;
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let text = String::from_utf8_lossy(&answer);
    text.split(' ').nth(1)?.parse().ok()
}

fn config(receive: SocketAddr, exporter: &str, backend: &OtlpStandIn) -> Value {
    let mut own = match exporter {
        "otlp_http" => json!({"endpoint": backend.http_url()}),
        _ => json!({"endpoint": backend.grpc_addr().to_string(), "tls": {"insecure": true}}),
    };
    own["retry_on_failure"] = json!({"initial_interval": "20ms", "max_interval": "100ms"});
    let pipeline = json!({"receivers": ["otlp"], "exporters": [exporter]});
    json!({
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": receive.to_string()}}}},
        "exporters": {exporter: own},
        "service": {"pipelines": {
            "logs": pipeline, "metrics": pipeline, "traces": pipeline,
        }},
    })
}

const KINDS: [Kind; 3] = [Kind::Logs, Kind::Metrics, Kind::Traces];

/// Guarantees that requests of all signals leave as the bytes they came as, counted under the names of
/// their signal.
#[test]
fn all_signals_pass_through_unchanged() {
    for (exporter, carrier) in [("otlp_http", Carrier::Http), ("otlp_grpc", Carrier::Grpc)] {
        let rig = Rig::new("otlp-through");
        let backend = OtlpStandIn::start(None).expect("free ports");
        let receive = free_addr();
        let agent = rig.start(&config(receive, exporter, &backend));
        for kind in KINDS {
            let body = message(kind, "unchanged", 3);
            assert_eq!(
                post(receive, kind, &body),
                Some(200),
                "{}",
                tail(&agent.log())
            );
            let records = backend.records();
            let last = records.last().expect("it was sent before it was answered");
            assert_eq!((last.kind, last.carrier), (kind, carrier));
            assert_eq!((last.items, &last.body), (3, &body));
        }
        let labels = [("exporter", exporter)];
        for name in ["log_records", "metric_points", "spans"] {
            let sent = format!("otelcol_exporter_sent_{name}");
            let is_there = || agent.scrape().sum(&sent, &labels) == 3.0;
            assert!(wait::within(wait::BOUND, is_there), "{sent}");
            let failed = format!("otelcol_exporter_send_failed_{name}");
            assert!(agent.scrape().has(&failed), "{failed}");
        }
        let faults = agent.scrape().faults();
        assert!(faults.is_empty(), "{faults:?}");
        agent.stop_clean();
        assert_eq!(backend.errors(), Vec::<String>::new());
    }
}

/// Guarantees that one connector passes on all signals, each to the pipelines of its own, as the bytes they
/// came as; and that the answer is that of what is behind it.
#[test]
fn a_connector_passes_on_all_signals_and_the_answer() {
    let rig = Rig::new("otlp-through-connector");
    let backend = OtlpStandIn::start(None).expect("free ports");
    let receive = free_addr();
    let mut config = config(receive, "otlp_http", &backend);
    config["connectors"] = json!({"forward": null});
    let pipelines = ["logs", "metrics", "traces"].iter().flat_map(|signal| {
        let begin = json!({"receivers": ["otlp"], "exporters": ["forward"]});
        let end = json!({"receivers": ["forward"], "exporters": ["otlp_http"]});
        [
            (signal.to_string(), begin),
            (format!("{signal}/1"), end.clone()),
            (format!("{signal}/2"), end),
        ]
    });
    config["service"]["pipelines"] = Value::Object(pipelines.collect());
    let agent = rig.start(&config);
    for kind in KINDS {
        let body = message(kind, "unchanged", 3);
        let status = post(receive, kind, &body);
        assert_eq!(status, Some(200), "{}", tail(&agent.log()));
        // By both ways, before it was answered.
        assert_eq!(backend.items(kind), 6);
        let records = backend.records();
        let of_kind = records.iter().filter(|r| r.kind == kind);
        // Two that wait at the same time may be one request.
        let bodies: Vec<u8> = of_kind.flat_map(|r| r.body.clone()).collect();
        assert_eq!(bodies, [&body[..], &body].concat());
    }
    backend.set_answer(Answer::Refuse {
        http: 400,
        grpc: 3,
        message: "never".into(),
        retry_after: None,
    });
    for kind in KINDS {
        let status = post(receive, kind, &message(kind, "refused", 2));
        assert!(status.is_some_and(|s| s >= 400), "{status:?}");
    }
    let faults = agent.scrape().faults();
    assert!(faults.is_empty(), "{faults:?}");
    agent.stop_clean();
}

/// Logs by OTLP over HTTP to a backend that does not take them yet, with a queue on disk.
struct LeftScene {
    rig: Rig,
    backend: OtlpStandIn,
    receive: SocketAddr,
    with: Value,
}

impl LeftScene {
    fn new(label: &str) -> LeftScene {
        let rig = Rig::new(label);
        let backend = OtlpStandIn::start(None).expect("free ports");
        backend.set_answer(Answer::unavailable());
        let receive = free_addr();
        let mut with = config(receive, "otlp_http", &backend);
        let directory = rig.path("storage");
        fs::create_dir(&directory).expect("a directory");
        with["extensions"] = json!({"file_storage": {"directory": directory}});
        with["service"]["extensions"] = json!(["file_storage"]);
        with["service"]["admin"] = json!({"socket": rig.path("admin.sock")});
        with["service"]["telemetry"]["logs"] =
            json!({"level": "info", "sampling": {"enabled": false}});
        with["exporters"]["otlp_http"]["sending_queue"] = json!({"storage": "file_storage"});
        LeftScene {
            rig,
            backend,
            receive,
            with,
        }
    }

    /// Ten requests of two records.
    fn post(&self, agent: &Agent) {
        for n in 0..10 {
            let text = message(Kind::Logs, &format!("{n}"), 2);
            let status = post(self.receive, Kind::Logs, &text);
            assert_eq!(status, Some(200), "{}", tail(&agent.log()));
        }
    }

    /// What would change, in which only logs are kept on disk.
    fn plan(&self, wanted: &Value) -> String {
        let way = Way::Socket(self.rig.path("admin.sock"));
        let plan = way.ask("POST", "/v1/plan", &[], &wanted.to_string()).body;
        assert_eq!(plan.matches("keep ").count(), 1, "{plan}");
        plan
    }

    /// Waits until it is shown that the ten are left.
    fn wait_left(&self, agent: &Agent) {
        let labels = [("exporter", "otlp_http"), ("data_type", "logs")];
        let left = |what: &str| {
            let name = format!("tailwater_queue_left_{what}");
            agent.scrape().sum(&name, &labels)
        };
        let shown = wait::within(wait::BOUND, || left("requests") == 10.0);
        assert!(shown && left("bytes") > 0.0, "{}", tail(&agent.log()));
    }

    /// With the configuration of before the ten are delivered, and nothing is left.
    fn finish(self, agent: Agent) {
        self.backend.set_answer(Answer::Accept);
        assert!(agent.reload(&self.with), "{}", tail(&agent.log()));
        let all = wait::within(wait::BOUND, || self.backend.items(Kind::Logs) == 20);
        assert!(all, "{}", tail(&agent.log()));
        assert!(!agent.scrape().has("tailwater_queue_left_requests"));
        agent.stop_clean();
        let agent = self.rig.start(&self.with);
        assert!(!agent.scrape().has("tailwater_queue_left_requests"));
        agent.stop_clean();
    }
}

/// How often the log says this.
fn said(agent: &Agent, text: &str) -> usize {
    agent.log().matches(text).count()
}

/// Guarantees that what an exporter that goes has in its queue on disk is said in the plan and the log, is
/// shown by a metric, also after a restart, and is delivered when the exporter is back.
#[test]
fn what_stays_of_an_exporter_that_goes_is_said_and_delivered_later() {
    let scene = LeftScene::new("otlp-through-left");
    let mut without = scene.with.clone();
    without["exporters"] = json!({"debug": {}});
    for signal in ["logs", "metrics", "traces"] {
        without["service"]["pipelines"][signal]["exporters"] = json!(["debug"]);
    }
    let agent = scene.rig.start(&scene.with);
    scene.post(&agent);
    let plan = scene.plan(&without);
    assert!(plan.contains("keep 10 requests ("), "{plan}");
    assert!(
        plan.contains("queue on disk of exporter otlp_http (logs); configure it again"),
        "{plan}"
    );
    assert!(agent.reload(&without), "{}", tail(&agent.log()));
    scene.wait_left(&agent);
    let text = "exporter removed with requests in its queue on disk";
    assert_eq!(said(&agent, text), 1, "{}", tail(&agent.log()));
    agent.stop_clean();
    let agent = scene.rig.start(&without);
    scene.wait_left(&agent);
    let text = "requests are in a queue on disk that no exporter has";
    assert_eq!(said(&agent, text), 1, "{}", tail(&agent.log()));
    scene.finish(agent);
}

/// Guarantees the same of an exporter that stays, and has its queue in memory from then on; and if the
/// storage is not configured any more either, and if it is a kill that comes between.
#[test]
fn what_stays_in_a_queue_that_its_exporter_leaves_is_said_and_delivered_later() {
    let scene = LeftScene::new("otlp-through-left-queue");
    let mut without = scene.with.clone();
    let exporter = without["exporters"]["otlp_http"].as_object_mut();
    exporter.expect("a map").remove("sending_queue");
    without["extensions"] = json!({});
    without["service"]["extensions"] = json!([]);
    without["service"]["shutdown_timeout"] = json!("1s");
    let agent = scene.rig.start(&scene.with);
    scene.post(&agent);
    let plan = scene.plan(&without);
    assert!(plan.contains("keep 10 requests ("), "{plan}");
    assert!(
        plan.contains("queue on disk of exporter otlp_http (logs); it goes on without them"),
        "{plan}"
    );
    assert!(agent.reload(&without), "{}", tail(&agent.log()));
    scene.wait_left(&agent);
    let text = "exporter goes on without the queue on disk that it had";
    assert_eq!(said(&agent, text), 1, "{}", tail(&agent.log()));
    agent.kill();
    let agent = scene.rig.start(&without);
    scene.wait_left(&agent);
    scene.finish(agent);
}

/// Guarantees that one agent passes on to another over a socket in the file system, from within its sandbox.
#[test]
fn agents_meet_at_a_socket_in_the_file_system() {
    let (near, far) = (Rig::new("otlp-socket-near"), Rig::new("otlp-socket-far"));
    let backend = OtlpStandIn::start(None).expect("free ports");
    let (receive, socket) = (free_addr(), far.path("otlp.sock"));
    let socket = format!("unix://{}", socket.display());
    let mut first = config(receive, "otlp_grpc", &backend);
    first["exporters"]["otlp_grpc"]["endpoint"] = json!(socket);
    let mut second = config(receive, "otlp_http", &backend);
    second["receivers"]["otlp"]["protocols"] = json!({"grpc": {"endpoint": socket}});
    let (near, far) = (near.start(&first), far.start(&second));
    for kind in KINDS {
        let body = message(kind, "by socket", 3);
        assert_eq!(
            post(receive, kind, &body),
            Some(200),
            "{}",
            tail(&near.log())
        );
        assert_eq!(backend.items(kind), 3, "{}", tail(&far.log()));
    }
    near.stop_clean();
    far.stop_clean();
}

/// Guarantees that over TLS agents speak HTTP/2 with each other, unless that is switched off: only there
/// is the address of the receiver a piece of metadata.
#[test]
fn agents_meet_over_http2() {
    for http2 in [true, false] {
        let (near, far) = (Rig::new("otlp-http2-near"), Rig::new("otlp-http2-far"));
        let backend = OtlpStandIn::start(None).expect("free ports");
        let (receive, between) = (free_addr(), free_addr());
        let mut first = config(receive, "otlp_http", &backend);
        let exporter = &mut first["exporters"]["otlp_http"];
        exporter["endpoint"] = json!(format!("https://localhost:{}", between.port()));
        exporter["tls"] = json!({"ca_file": certificate("ca1.pem")});
        exporter["force_attempt_http2"] = json!(http2);
        exporter["cookies"] = json!({});
        let mut second = config(between, "otlp_http", &backend);
        let listener = &mut second["receivers"]["otlp"]["protocols"]["http"];
        listener["tls"] = json!({
            "cert_file": certificate("server1.pem"), "key_file": certificate("server1.key"),
        });
        listener["include_metadata"] = json!(true);
        second["processors"] = json!({"resource": {"attributes": [
            {"key": "address", "action": "insert", "from_context": "metadata.:authority"},
        ]}});
        second["service"]["pipelines"]["logs"]["processors"] = json!(["resource"]);
        let (near, far) = (near.start(&first), far.start(&second));
        for n in 1..=3 {
            let body = message(Kind::Logs, "over TLS", 3);
            let status = post(receive, Kind::Logs, &body);
            assert_eq!(status, Some(200), "{}", tail(&near.log()));
            assert_eq!(backend.items(Kind::Logs), 3 * n, "{}", tail(&far.log()));
        }
        let address = format!("localhost:{}", between.port());
        let said = |body: &[u8]| body.windows(address.len()).any(|w| w == address.as_bytes());
        for record in backend.records() {
            assert_eq!(said(&record.body), http2);
        }
        near.stop_clean();
        far.stop_clean();
    }
}

/// Guarantees that without a queue on disk, nothing is answered with success that the backend refused.
#[test]
fn a_refusal_of_the_backend_is_a_refusal() {
    let rig = Rig::new("otlp-through-refused");
    let backend = OtlpStandIn::start(None).expect("free ports");
    let receive = free_addr();
    let agent = rig.start(&config(receive, "otlp_grpc", &backend));
    backend.set_answer(Answer::Refuse {
        http: 400,
        grpc: 3,
        message: "never".into(),
        retry_after: None,
    });
    for kind in KINDS {
        let status = post(receive, kind, &message(kind, "refused", 2));
        assert!(status.is_some_and(|s| s >= 400), "{status:?}");
    }
    agent.stop_clean();
}

/// Guarantees that what was answered with success is not lost by kills, whatever the backend does:
/// it is on disk.
#[test]
fn what_was_acknowledged_survives_kills() {
    let rig = Rig::new("otlp-through-kill");
    let backend = OtlpStandIn::start(None).expect("free ports");
    let receive = free_addr();
    let mut config = config(receive, "otlp_grpc", &backend);
    let directory = rig.path("storage");
    fs::create_dir(&directory).expect("a directory");
    config["extensions"] = json!({"file_storage": {"directory": directory}});
    config["service"]["extensions"] = json!(["file_storage"]);
    config["exporters"]["otlp_grpc"]["sending_queue"] = json!({"storage": "file_storage"});
    let mut rng = Rng::new(5);
    let mut acknowledged = BTreeSet::new();
    for round in 0..KILLS {
        backend.set_answer(match round % 3 {
            0 => Answer::unavailable(),
            1 => Answer::Accept,
            _ => Answer::Close,
        });
        let agent = rig.start(&config);
        let end = 1 + rng.below(12);
        for n in 0..end {
            let kind = KINDS[(n % 3) as usize];
            let text = format!("kill {round:03} {n:03}");
            if post(receive, kind, &message(kind, &text, 2)) == Some(200) {
                acknowledged.insert(text);
            }
        }
        agent.kill();
    }
    assert!(acknowledged.len() as u64 >= KILLS);
    backend.set_answer(Answer::Accept);
    let agent = rig.start(&config);
    let missing = || {
        let records = backend.records();
        let accepted = records.iter().filter(|r| r.accepted);
        // The last item of a request, by which it is known that the request is there.
        let last = |at: &[u8]| at.len() == 14 && at.starts_with(b"kill ") && at.ends_with(b" 1");
        let names = accepted.flat_map(|r| {
            let found = r.body.windows(14).filter(|at| last(at));
            found.map(|at| String::from_utf8_lossy(&at[..12]).into_owned())
        });
        let arrived: BTreeSet<String> = names.collect();
        let missing = acknowledged.difference(&arrived);
        missing.cloned().collect::<Vec<_>>()
    };
    let all = wait::within(wait::BOUND, || missing().is_empty());
    assert!(all, "{:?}\n{}", missing(), tail(&agent.log()));
    agent.stop_clean();
    assert_eq!(backend.errors(), Vec::<String>::new());
}

/// Guarantees that a stop while the backend is down ends at once and with success, and loses nothing.
#[test]
fn a_stop_with_the_backend_down_keeps_what_was_acknowledged() {
    let rig = Rig::new("otlp-through-stop");
    let backend = OtlpStandIn::start(None).expect("free ports");
    let receive = free_addr();
    let mut config = config(receive, "otlp_http", &backend);
    let directory = rig.path("storage");
    fs::create_dir(&directory).expect("a directory");
    config["extensions"] = json!({"file_storage": {"directory": directory}});
    config["service"]["extensions"] = json!(["file_storage"]);
    config["exporters"]["otlp_http"]["sending_queue"] = json!({"storage": "file_storage"});
    backend.set_answer(Answer::unavailable());
    let agent = rig.start(&config);
    for n in 0..30 {
        let kind = KINDS[n % 3];
        let status = post(receive, kind, &message(kind, &format!("stop {n}"), 2));
        assert_eq!(status, Some(200), "{}", tail(&agent.log()));
    }
    assert_eq!(agent.stop_within(Duration::from_secs(20)), 0);
    backend.set_answer(Answer::Accept);
    let agent = rig.start(&config);
    let all = wait::within(wait::BOUND, || {
        KINDS.iter().all(|kind| backend.items(*kind) == 20)
    });
    assert!(all, "{}", tail(&agent.log()));
    agent.stop_clean();
}
