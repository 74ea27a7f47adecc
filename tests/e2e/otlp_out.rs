//! Files to a backend that takes OTLP, with the real binary: both protocols, every compression, what
//! answers do, and the queue on disk.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_testkit::otlp::{Answer, Carrier, Kind, OtlpStandIn};
use tailwater_testkit::rng::Rng;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::agent::{Agent, free_addr};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

/// Kills, of each protocol half.
const KILLS: u64 = 100;

/// A rig, and a backend that tells its oracle.
fn rig(label: &str) -> (Rig, OtlpStandIn) {
    let rig = Rig::new(label);
    let backend = OtlpStandIn::start(Some(rig.oracle.hook())).expect("free ports");
    (rig, backend)
}

fn carrier_of(exporter: &str) -> Carrier {
    match exporter {
        "otlp_http" | "otlphttp" => Carrier::Http,
        _ => Carrier::Grpc,
    }
}

/// From the rig's logs to the backend, with the options of the exporter besides.
fn config(rig: &Rig, backend: [SocketAddr; 2], exporter: &str, options: Value) -> Value {
    let mut config = rig.config();
    let mut own = match carrier_of(exporter) {
        Carrier::Http => json!({"endpoint": format!("http://{}", backend[0])}),
        Carrier::Grpc => json!({
            "endpoint": backend[1].to_string(), "tls": {"insecure": true},
        }),
    };
    own["retry_on_failure"] = json!({"initial_interval": "20ms", "max_interval": "200ms"});
    for (key, value) in options.as_object().into_iter().flatten() {
        own[key] = value.clone();
    }
    config["exporters"] = json!({exporter: own});
    config["service"]["pipelines"]["logs"]["exporters"] = json!([exporter]);
    config
}

fn to(backend: &OtlpStandIn) -> [SocketAddr; 2] {
    [backend.http_addr(), backend.grpc_addr()]
}

/// With a queue on disk.
fn with_storage(rig: &Rig, mut config: Value, exporter: &str) -> Value {
    let directory = rig.path("storage");
    fs::create_dir_all(&directory).expect("a directory");
    config["extensions"] = json!({"file_storage": {"directory": directory}});
    config["service"]["extensions"] = json!(["file_storage"]);
    config["exporters"][exporter]["sending_queue"]["storage"] = "file_storage".into();
    config
}

/// Expects that the backend could read everything.
fn expect_readable(backend: &OtlpStandIn) {
    assert_eq!(backend.errors(), Vec::<String>::new());
}

/// Guarantees that lines arrive, byte for byte, whatever they are compressed with, and that they
/// are.
#[test]
fn every_compression_and_form_arrives() {
    let cases = [
        ("otlp_http", "gzip", "proto"),
        ("otlphttp", "zstd", "proto"),
        ("otlp_http", "zlib", "proto"),
        ("otlp_http", "deflate", "json"),
        ("otlp_http", "snappy", "proto"),
        ("otlp_http", "x-snappy-framed", "proto"),
        ("otlp_http", "lz4", "proto"),
        ("otlp_http", "none", "json"),
        ("otlp_http", "", "proto"),
        ("otlp_grpc", "gzip", ""),
        ("otlp", "zstd", ""),
        ("otlp_grpc", "snappy", ""),
        ("otlp_grpc", "none", ""),
    ];
    for (exporter, compression, form) in cases {
        let (rig, backend) = rig("otlp-forms");
        rig.writer(1, "app.log", |_| {})
            .write_lines(2_000)
            .expect("written");
        let mut options = json!({"compression": compression});
        if !form.is_empty() {
            options["encoding"] = form.into();
        }
        let agent = rig.start(&config(&rig, to(&backend), exporter, options));
        rig.wait_delivered(&agent);
        let labels = [("exporter", exporter)];
        let sent = || {
            agent
                .scrape()
                .sum("otelcol_exporter_sent_log_records", &labels)
        };
        assert!(
            wait::within(wait::BOUND, || sent() == 2_000.0),
            "{}",
            sent()
        );
        let queue = [("exporter", exporter), ("data_type", "logs")];
        let scrape = agent.scrape();
        assert_eq!(scrape.sum("otelcol_exporter_queue_size", &queue), 0.0);
        assert_eq!(
            scrape.sum("otelcol_exporter_queue_capacity", &queue),
            1_000.0
        );
        let report = rig.finish(agent);
        assert_eq!(report.totals.out_of_order, 0, "{exporter} {compression}");
        expect_readable(&backend);
        for record in backend.records() {
            assert_eq!(record.carrier, carrier_of(exporter));
            let (name, plain) = match record.carrier {
                Carrier::Http => ("content-encoding", "content-type"),
                Carrier::Grpc => ("grpc-encoding", "content-type"),
            };
            let sent = record.header(name).unwrap_or("");
            assert_eq!(
                sent,
                if compression == "none" {
                    ""
                } else {
                    compression
                }
            );
            if form == "json" {
                assert_eq!(record.header(plain), Some("application/json"));
            }
            if !sent.is_empty() {
                assert!(record.sent_bytes < record.body.len(), "{compression}");
            }
            let agent = record.header("user-agent").unwrap_or("");
            assert!(agent.starts_with("Tailwater/"), "{agent}");
        }
    }
}

/// Guarantees that an outage loses nothing: nobody listens, then it refuses, closes connections and
/// answers late.
#[test]
fn an_outage_is_waited_out() {
    for exporter in ["otlp_http", "otlp_grpc"] {
        let rig = Rig::new("otlp-outage");
        let at = [free_addr(), free_addr()];
        let mut writer = rig.writer(1, "app.log", |_| {});
        writer.write_lines(500).expect("written");
        let options = json!({"timeout": "2s"});
        let agent = rig.start(&config(&rig, at, exporter, options));
        let labels = [("exporter", exporter)];
        let retried = wait::within(wait::BOUND, || {
            agent.scrape().sum("tailwater_exporter_retries", &labels) >= 3.0
        });
        assert!(retried, "{}", tail(&agent.log()));
        let backend = OtlpStandIn::start_at(at[0], at[1], Some(rig.oracle.hook()));
        let backend = backend.expect("the ports are free still");
        rig.wait_delivered(&agent);
        for answer in [
            Answer::unavailable(),
            Answer::Close,
            Answer::Late(Duration::from_millis(100)),
            Answer::Never,
        ] {
            backend.script(vec![answer; 2]);
            writer.write_lines(500).expect("written");
            rig.wait_delivered(&agent);
            let used = wait::within(wait::BOUND, || {
                backend.scripted_left() == 0 || {
                    writer.write_lines(1).expect("written");
                    false
                }
            });
            assert!(used);
            rig.wait_delivered(&agent);
        }
        rig.finish(agent);
        expect_readable(&backend);
    }
}

/// Guarantees that the wait a server asks for is waited: `Retry-After` and `RetryInfo`.
#[test]
fn the_wait_that_is_asked_for_is_a_floor() {
    for exporter in ["otlp_http", "otlp_grpc"] {
        let (rig, backend) = rig("otlp-wait");
        backend.script([Answer::Refuse {
            http: 429,
            grpc: 8,
            message: "slow down".into(),
            retry_after: Some(2),
        }]);
        rig.writer(1, "app.log", |_| {})
            .write_lines(10)
            .expect("written");
        let agent = rig.start(&config(&rig, to(&backend), exporter, json!({})));
        rig.wait_delivered(&agent);
        let log = agent.log();
        let line = log
            .lines()
            .find(|l| l.contains("Will retry the request"))
            .unwrap_or("");
        assert!(line.contains("\"interval\": \"2s\""), "{line}");
        assert!(line.contains("slow down"), "{line}");
        rig.finish(agent);
    }
}

/// Guarantees that what can never be accepted is given up, counted and said; and that a partial success
/// counts as sent.
#[test]
fn refusals_are_counted_and_partial_success_is_sent() {
    for exporter in ["otlp_http", "otlp_grpc"] {
        let (rig, backend) = rig("otlp-refused");
        let mut writer = rig.writer(1, "app.log", |_| {});
        let agent = rig.start(&config(&rig, to(&backend), exporter, json!({})));
        backend.set_answer(Answer::Refuse {
            http: 400,
            grpc: 3,
            message: "never".into(),
            retry_after: None,
        });
        writer.write_lines(10).expect("written");
        let labels = [("exporter", exporter)];
        let failed = || {
            agent
                .scrape()
                .sum("otelcol_exporter_send_failed_log_records", &labels)
        };
        assert!(
            wait::within(wait::BOUND, || failed() == 10.0),
            "{}",
            tail(&agent.log())
        );
        let said = || agent.log().contains("Exporting failed. Dropping data.");
        assert!(wait::within(wait::BOUND, said), "{}", tail(&agent.log()));
        let dropped = [
            ("kind", "exporter"),
            ("component", exporter),
            ("reason", "rejected"),
        ];
        let scrape = agent.scrape();
        assert_eq!(scrape.sum("tailwater_records_dropped", &dropped), 10.0);
        backend.set_answer(Answer::Partial {
            rejected: 3,
            message: "some".into(),
        });
        writer.write_lines(10).expect("written");
        let sent = || {
            agent
                .scrape()
                .sum("otelcol_exporter_sent_log_records", &labels)
        };
        assert!(
            wait::within(wait::BOUND, || sent() == 10.0),
            "{}",
            tail(&agent.log())
        );
        let scrape = agent.scrape();
        let name = "tailwater_exporter_partial_success_rejected_items";
        assert!(scrape.sum(name, &labels) >= 3.0);
        assert_eq!(failed(), 10.0);
        let said = || agent.log().contains("Partial success response");
        assert!(wait::within(wait::BOUND, said), "{}", tail(&agent.log()));
        assert!(scrape.faults().is_empty(), "{:?}", scrape.faults());
        agent.stop_clean();
        assert_eq!(backend.items(Kind::Logs), 10);
    }
}

/// Guarantees that what is too large for the server arrives in pieces.
#[test]
fn what_is_too_large_arrives_in_pieces() {
    for exporter in ["otlp_http", "otlp_grpc"] {
        let (rig, backend) = rig("otlp-large");
        backend.set_answer(Answer::Limit(20_000));
        rig.writer(1, "app.log", |_| {})
            .write_lines(3_000)
            .expect("written");
        let agent = rig.start(&config(&rig, to(&backend), exporter, json!({})));
        rig.wait_delivered(&agent);
        rig.finish(agent);
        let records = backend.records();
        assert!(records.iter().any(|r| !r.accepted));
        assert!(
            records
                .iter()
                .filter(|r| r.accepted)
                .all(|r| r.body.len() <= 20_000)
        );
    }
}

/// Guarantees that a stop while nobody listens loses nothing of what is in the queue on disk: it is
/// acknowledged, the log is gone, and the next start sends it.
#[test]
fn a_stop_with_the_backend_down_keeps_what_is_on_disk() {
    for exporter in ["otlp_http", "otlp_grpc"] {
        let rig = Rig::new("otlp-stored-stop");
        let at = [free_addr(), free_addr()];
        let config = with_storage(&rig, config(&rig, at, exporter, json!({})), exporter);
        rig.writer(1, "app.log", |_| {})
            .write_lines(5_000)
            .expect("written");
        let agent = rig.start(&config);
        wait_stored(&agent, exporter, 5_000.0);
        agent.stop_clean();
        fs::remove_file(rig.logs("app.log")).expect("it is there");
        let backend = OtlpStandIn::start_at(at[0], at[1], Some(rig.oracle.hook()));
        let backend = backend.expect("the ports are free still");
        let agent = rig.start(&config);
        rig.wait_delivered(&agent);
        let empty = wait::within(wait::BOUND, || {
            let scrape = agent.scrape();
            scrape.sum("tailwater_queue_stored_requests", &[("exporter", exporter)]) == 0.0
        });
        assert!(empty);
        rig.finish(agent);
        // Nothing comes again.
        let agent = rig.start(&config);
        agent.stop_clean();
        assert_eq!(backend.items(Kind::Logs), 5_000);
    }
}

/// Waits until all of so many records were acknowledged by the exporter.
fn wait_stored(agent: &Agent, exporter: &str, records: f64) {
    let labels = [("kind", "exporter"), ("component", exporter)];
    let stored = wait::within(wait::BOUND, || {
        agent.scrape().sum("tailwater_records_delivered", &labels) == records
    });
    assert!(stored, "{}", tail(&agent.log()));
}

/// Guarantees that kills at any moment lose nothing, though positions have moved past what is on
/// disk only: the backend is there half of the time.
#[test]
fn kills_lose_nothing_of_what_is_in_the_queue_on_disk() {
    for exporter in ["otlp_http", "otlp_grpc"] {
        let (rig, backend) = rig("otlp-stored-kill");
        let options = json!({"sending_queue": {"queue_size": 200}});
        let config = config(&rig, to(&backend), exporter, options);
        let config = with_storage(&rig, config, exporter);
        let writer = rig.writer(1, "app.log", |_| {});
        let writer = LiveWriter::start(
            writer,
            LiveOptions {
                lines_per_second: 3_000,
                rotate_every_lines: None,
                lines_max: None,
            },
        );
        let writer = writer.expect("a thread");
        let mut rng = Rng::new(11);
        let mut found = 0;
        for n in 0..KILLS / 2 {
            backend.set_answer(match n % 4 {
                0 => Answer::Accept,
                1 => Answer::unavailable(),
                2 => Answer::Late(Duration::from_millis(30)),
                _ => Answer::Close,
            });
            let agent = rig.start(&config);
            wait::let_pass(Duration::from_millis(20 + rng.below(130)));
            found += u32::from(agent.log().contains("sending what was stored before"));
            agent.kill();
        }
        assert!(found > 0, "no kill left anything in the queue");
        writer.stop().expect("written");
        backend.set_answer(Answer::Accept);
        let agent = rig.start(&config);
        rig.wait_delivered(&agent);
        let faults = agent.scrape().faults();
        assert!(faults.is_empty(), "{faults:?}");
        agent.stop_clean();
        let report = rig.oracle.report();
        assert_eq!(report.totals.missing, 0, "{}", rig.summary());
        assert_eq!((report.foreign, report.unknown), (0, 0));
        expect_readable(&backend);
    }
}

/// A server of the Python packages `grpcio` and `opentelemetry-proto`, which prints what comes.
const PEER: &str = r#"
import sys, grpc
from concurrent import futures
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as m
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as s
class Logs(s.LogsServiceServicer):
    def Export(self, request, context):
        for r in request.resource_logs:
            for scope in r.scope_logs:
                for record in scope.log_records:
                    print(record.body.string_value, flush=False)
        sys.stdout.flush()
        return m.ExportLogsServiceResponse()
server = grpc.server(futures.ThreadPoolExecutor(4))
s.add_LogsServiceServicer_to_server(Logs(), server)
print("port", server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
"#;

/// Guarantees that a server that shares no code with us understands what we send. The interpreter is
/// `TAILWATER_OTLP_PYTHON`, or `python3`.
#[test]
fn a_server_of_grpc_itself_understands_it() {
    let python = std::env::var("TAILWATER_OTLP_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python)
        .args([
            "-c",
            "import grpc, opentelemetry.proto.collector.logs.v1.logs_service_pb2",
        ])
        .stderr(Stdio::null())
        .status();
    if !has.is_ok_and(|status| status.success()) {
        println!("SKIPPED: a peer of grpcio: {python} has no grpcio and opentelemetry-proto");
        return;
    }
    for compression in ["gzip", "none"] {
        let rig = Rig::new("otlp-peer");
        let out = rig.path("peer.out");
        let mut peer = Command::new(&python)
            .args(["-c", PEER])
            .stdin(Stdio::piped())
            .stdout(fs::File::create(&out).expect("a file"))
            .spawn()
            .expect("an interpreter");
        let text = || fs::read_to_string(&out).expect("a file");
        let port = wait::for_some(wait::BOUND, || {
            text()
                .lines()
                .next()?
                .strip_prefix("port ")?
                .parse::<u16>()
                .ok()
        });
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port.expect("it listens")));
        rig.writer(1, "app.log", |_| {})
            .write_lines(1_000)
            .expect("written");
        let options = json!({"compression": compression});
        let agent = rig.start(&config(&rig, [at, at], "otlp_grpc", options));
        let written = fs::read_to_string(rig.logs("app.log")).expect("a log");
        let arrived = wait::within(wait::BOUND, || {
            let got = text();
            got.split_once('\n')
                .is_some_and(|(_, lines)| lines == written)
        });
        assert!(arrived, "{compression}: {}", tail(&agent.log()));
        agent.stop_clean();
        // It ends with its input.
        drop(peer.stdin.take());
        peer.wait().expect("it ends");
    }
}
