//! Metrics and traces through processors and exporters, with the real binary: OTLP comes in, and what
//! comes out is what the configuration makes of it.

use std::time::Duration;

use serde_json::{Value, json};
use tailwater_pdata::Signal;
use tailwater_pdata::otlp::json::from_proto;
use tailwater_testkit::otlp::{Answer, Kind, OtlpStandIn};
use tailwater_tests::agent::free_port;
use tailwater_tests::otlp_client::{GrpcClient, HttpClient, log_proto};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

const SIGNALS: [(Signal, Kind, &str); 3] = [
    (Signal::Logs, Kind::Logs, "logs"),
    (Signal::Metrics, Kind::Metrics, "metrics"),
    (Signal::Traces, Kind::Traces, "traces"),
];

/// A request in JSON; the status of its answer.
fn post(port: u16, signal: &str, request: &Value) -> u16 {
    let mut client = HttpClient::connect(port).expect("the receiver listens");
    let body = request.to_string();
    let path = format!("/v1/{signal}");
    let answer = client.post(&path, "application/json", "identity", body.as_bytes());
    answer.expect("an answer").status
}

/// A pipeline for each signal, all alike, from a receiver of OTLP at `port`.
fn config(port: u16, processors: Value, exporters: Value) -> Value {
    let names = |v: &Value| -> Vec<String> {
        let map = v.as_object().expect("an object");
        map.keys().cloned().collect()
    };
    let pipeline = json!({"receivers": ["otlp"], "processors": names(&processors),
        "exporters": names(&exporters)});
    let endpoint = format!("127.0.0.1:{port}");
    json!({
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": endpoint}}}},
        "processors": processors,
        "exporters": exporters,
        "service": {"pipelines": {
            "logs": pipeline, "metrics": pipeline, "traces": pipeline,
        }},
    })
}

fn attribute(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// What the backend got of `kind` last, as JSON.
fn last(backend: &OtlpStandIn, signal: Signal, kind: Kind) -> Value {
    let records = backend.records();
    let record = records.iter().rfind(|r| r.kind == kind && r.accepted);
    let record = record.expect("it was sent before it was answered");
    let mut text = Vec::new();
    from_proto(signal, &record.body, &mut text).expect("a request");
    serde_json::from_slice(&text).expect("JSON")
}

const TRACE_ID: &str = "0102030405060708090a0b0c0d0e0f10";

/// A request of each signal with two items; `marks` are the attributes of each, `zone` those of the
/// resource.
fn request(signal: Signal, zone: &Value, marks: [&Value; 2]) -> Value {
    let resource = json!({"attributes": zone});
    match signal {
        Signal::Logs => json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{
        "scope": {"name": "lib"}, "logRecords": [
            {"body": {"stringValue": "a"}, "attributes": marks[0]},
            {"body": {"intValue": "1"}, "attributes": marks[1]},
        ]}]}]}),
        Signal::Metrics => json!({"resourceMetrics": [{"resource": resource, "scopeMetrics": [{
        "metrics": [
            {"name": "g", "gauge": {"dataPoints": [
                {"attributes": marks[0], "timeUnixNano": "7", "asDouble": 1.5}]}},
            {"name": "h", "histogram": {"dataPoints": [
                {"attributes": marks[1], "count": "3", "sum": 6.5,
                 "bucketCounts": ["1", "2"], "explicitBounds": [1.25]}],
                "aggregationTemporality": 2}},
        ]}]}]}),
        Signal::Traces => json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{
        "spans": [
            {"traceId": TRACE_ID, "spanId": "1112131415161718", "name": "GET /a", "kind": 2,
             "attributes": marks[0], "events": [{"timeUnixNano": "5", "name": "e"}]},
            {"traceId": TRACE_ID, "spanId": "1112131415161719", "name": "job",
             "attributes": marks[1], "status": {"code": 2}},
        ]}]}]}),
    }
}

/// Guarantees that `attributes` and `resource` change log records, data points and spans of requests as
/// configured, leave all else as it was, and that everything is accounted for.
#[test]
fn attributes_and_resource_change_all_signals() {
    let rig = Rig::new("signals-attributes");
    let backend = OtlpStandIn::start(None).expect("free ports");
    let port = free_port().expect("a free port");
    let processors = json!({
        "attributes": {"actions": [
            {"key": "secret", "action": "delete"},
            {"key": "env", "action": "upsert", "value": "prod"},
        ]},
        "resource": {"attributes": [
            {"key": "zone", "action": "insert", "value": "z1"},
            {"key": "host", "action": "hash"},
        ]},
    });
    let exporters = json!({"otlp_http": {"endpoint": backend.http_url()}});
    let agent = rig.start(&config(port, processors, exporters));
    // SHA-256 of h1.
    let hash = "33112ee14ee469c3eb52fe90322ec81dd404a0093d565a6d71ce77cbc8124e3b";
    for (signal, kind, name) in SIGNALS {
        let marked = json!([attribute("secret", "s"), attribute("n", "1")]);
        let before = json!([attribute("host", "h1")]);
        let sent = request(
            signal,
            &before,
            [&marked, &json!([attribute("env", "test")])],
        );
        assert_eq!(post(port, name, &sent), 200, "{}", tail(&agent.log()));
        let after = json!([attribute("host", hash), attribute("zone", "z1")]);
        let marks = json!([attribute("n", "1"), attribute("env", "prod")]);
        let want = request(signal, &after, [&marks, &json!([attribute("env", "prod")])]);
        assert_eq!(last(&backend, signal, kind), want, "{name}");
    }
    let scrape = agent.scrape();
    for (_, _, name) in SIGNALS {
        for processor in ["attributes", "resource"] {
            let labels = [("processor", processor), ("otel_signal", name)];
            let out = scrape.sum("otelcol_processor_outgoing_items", &labels);
            assert_eq!(out, 2.0, "{processor} {name}");
        }
    }
    let faults = scrape.faults();
    assert!(faults.is_empty(), "{faults:?}");
    agent.stop_clean();
    assert_eq!(backend.errors(), Vec::<String>::new());
}

/// Guarantees that `file` writes the requests of all signals into one file, each on a line of its own, and
/// that rotation loses none; and that `debug` shows all signals.
#[test]
fn file_and_debug_take_all_signals() {
    let rig = Rig::new("signals-file");
    let port = free_port().expect("a free port");
    let out = rig.path("out.json");
    let (brief, detailed) = (rig.path("brief.txt"), rig.path("detailed.txt"));
    let exporters = json!({
        "file": {"path": out, "rotation": {"max_megabytes": 1}},
        "file/packed": {"path": rig.path("out.bin"), "format": "proto", "compression": "zstd"},
        "debug": {"use_internal_logger": false, "output_paths": [brief]},
        "debug/detailed": {"verbosity": "detailed", "use_internal_logger": false,
            "output_paths": [detailed], "sampling_initial": 1, "sampling_thereafter": 100},
    });
    let agent = rig.start(&config(port, json!({}), exporters));
    let text = "x".repeat(2000);
    let mut sent = Vec::new();
    let posts = |n: usize| {
        let mark = json!([attribute("n", &format!("{n} {text}"))]);
        let (signal, _, name) = SIGNALS[n % 3];
        let other = json!([attribute("k", "v")]);
        let request = request(signal, &other, [&mark, &other]);
        (name, request)
    };
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..4)
            .map(|k| {
                scope.spawn(move || {
                    let mut sent = Vec::new();
                    for n in (k..600).step_by(4) {
                        let (name, request) = posts(n);
                        assert_eq!(post(port, name, &request), 200);
                        sent.push(request.to_string());
                    }
                    sent
                })
            })
            .collect();
        for sender in senders {
            sent.extend(sender.join().expect("it sent all"));
        }
    });
    agent.stop_clean();
    let lines = |path: &std::path::Path| -> Vec<String> {
        let text = std::fs::read_to_string(path).expect("text");
        text.lines().map(str::to_owned).collect()
    };
    let mut files = 0;
    let mut written = Vec::new();
    for entry in std::fs::read_dir(out.parent().expect("a directory")).expect("readable") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == "json") && path.to_string_lossy().contains("/out")
        {
            files += 1;
            written.extend(lines(&path));
        }
    }
    assert!(files > 1, "rotated");
    let parsed = |all: &[String]| -> Vec<String> {
        let one = |line: &String| {
            serde_json::from_str::<Value>(line)
                .expect("JSON")
                .to_string()
        };
        let mut all: Vec<String> = all.iter().map(one).collect();
        all.sort();
        all
    };
    assert_eq!(written.len(), 600);
    assert!(
        parsed(&written) == parsed(&sent),
        "what was sent is in the files"
    );
    let packed = std::fs::read(rig.path("out.bin")).expect("a file");
    let (mut rest, mut requests) = (&packed[..], 0);
    while let Some((length, behind)) = rest.split_first_chunk() {
        let (frame, behind) = behind.split_at(u32::from_be_bytes(*length) as usize);
        zstd::decode_all(frame).expect("a frame");
        (rest, requests) = (behind, requests + 1);
    }
    assert_eq!((requests, rest.len()), (600, 0));
    let brief = lines(&brief);
    for line in [
        r#"Logs {"resource logs": 1, "log records": 2}"#,
        r#"Metrics {"resource metrics": 1, "metrics": 2, "data points": 2}"#,
        r#"Traces {"resource spans": 1, "spans": 2}"#,
    ] {
        assert_eq!(brief.iter().filter(|l| *l == line).count(), 200, "{line}");
    }
    let detailed = lines(&detailed);
    for line in [
        "HistogramDataPoints #0",
        "    Kind           : Server",
        "Body: Str(a)",
    ] {
        assert!(detailed.iter().any(|l| l == line), "{line}");
    }
    let shown = detailed
        .iter()
        .filter(|l| l.starts_with("Traces {"))
        .count();
    assert!(
        (1..200).contains(&shown),
        "{shown} of 200 batches are shown"
    );
}

/// The hash of the collector's sampler, of which the lowest 14 bits decide.
fn hash(bytes: &[u8], seed: u32) -> u32 {
    let all = [&seed.to_le_bytes(), bytes].concat();
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(16_777_619);
    all.iter().fold(2_166_136_261, step) & 0x3fff
}

/// Guarantees that spans are sampled by their trace ids, whatever requests they come in, that what is
/// left out is filtered in the account, and that metrics are refused by name.
#[test]
fn spans_are_sampled_by_their_trace_ids() {
    let rig = Rig::new("signals-sampler");
    let backend = OtlpStandIn::start(None).expect("free ports");
    let port = free_port().expect("a free port");
    let processors = json!({"probabilistic_sampler": {"sampling_percentage": 25, "hash_seed": 22}});
    let exporters = json!({"otlp_http": {"endpoint": backend.http_url()}});
    let mut config = config(port, processors, exporters);
    let refused = rig.spawn(&config);
    let said = wait::for_some(wait::BOUND, || {
        let log = refused.log();
        let part = r#"processor "probabilistic_sampler" does not support metrics"#;
        log.contains(part).then_some(())
    });
    assert!(said.is_some(), "{}", tail(&refused.log()));
    refused.end_now();
    for signal in ["logs", "metrics"] {
        config["service"]["pipelines"][signal]["processors"] = json!([]);
    }
    let agent = rig.start(&config);
    let ids: Vec<u128> = (1..=400_u128)
        .map(|n| n * 0x0123_4567_89ab_cdef_1357_9bdf)
        .collect();
    let mut want = Vec::new();
    for ids in ids.chunks(20) {
        let span = |id: &u128| json!({"traceId": format!("{id:032x}"), "name": "n"});
        let spans: Vec<Value> = ids.iter().map(span).collect();
        let request = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
        assert_eq!(post(port, "traces", &request), 200);
        let sampled = ids.iter().filter(|id| hash(&id.to_be_bytes(), 22) < 4096);
        want.extend(sampled.map(|id| format!("{id:032x}")));
    }
    let mut got = Vec::new();
    for record in backend.records() {
        let mut text = Vec::new();
        from_proto(Signal::Traces, &record.body, &mut text).expect("a request");
        let request: Value = serde_json::from_slice(&text).expect("JSON");
        let spans = &request["resourceSpans"][0]["scopeSpans"][0]["spans"];
        for span in spans.as_array().expect("spans") {
            got.push(span["traceId"].as_str().expect("an id").to_owned());
            let state = span["traceState"].as_str().unwrap_or_default();
            assert!(
                state.starts_with("ot=rv:") && state.ends_with(";th:c"),
                "{state}"
            );
        }
    }
    assert_eq!(got, want);
    assert!((50..150).contains(&got.len()), "{}", got.len());
    let scrape = agent.scrape();
    let account = scrape.account("receiver");
    let (passed, left_out) = (got.len() as f64, 400.0 - got.len() as f64);
    assert_eq!(
        (account.read, account.delivered, account.filtered),
        (400.0, passed, left_out)
    );
    let name = "otelcol_processor_probabilistic_sampler_count_traces_sampled";
    for (sampled, count) in [("true", passed), ("false", left_out)] {
        let labels = [("policy", "trace_id_hash"), ("sampled", sampled)];
        assert_eq!(scrape.sum(name, &labels), count);
    }
    assert_eq!(scrape.faults(), Vec::<String>::new());
    agent.stop_clean();
    assert_eq!(backend.errors(), Vec::<String>::new());
}

/// Guarantees that lines of files are sampled by an attribute, that positions move past what is left out,
/// and that the account holds.
#[test]
fn lines_of_files_are_sampled_by_an_attribute() {
    let rig = Rig::new("signals-sampler-files");
    let backend = OtlpStandIn::start(None).expect("free ports");
    let input = rig.path("in.log");
    let line = |n: usize| format!("{{\"id\":\"line-{n}\"}}\n");
    std::fs::write(&input, (0..300).map(line).collect::<String>()).expect("written");
    let config = json!({
        "receivers": {"file_log": {"include": [input], "start_at": "beginning",
            "operators": [{"type": "json_parser"}]}},
        "processors": {"probabilistic_sampler": {"sampling_percentage": 50,
            "attribute_source": "record", "from_attribute": "id"}},
        "exporters": {"otlp_http": {"endpoint": backend.http_url()}},
        "service": {"pipelines": {"logs": {"receivers": ["file_log"],
            "processors": ["probabilistic_sampler"], "exporters": ["otlp_http"]}}},
    });
    let sampled = |n: &usize| hash(format!("line-{n}").as_bytes(), 0) < 8192;
    let want: Vec<String> = (0..300)
        .filter(sampled)
        .map(|n| format!("line-{n}"))
        .collect();
    let agent = rig.start(&config);
    let settled = || {
        let account = agent.scrape().account("receiver");
        account.read == 300.0 && account.in_flight == 0.0
    };
    assert!(wait::within(wait::BOUND, settled), "{}", tail(&agent.log()));
    let scrape = agent.scrape();
    let account = scrape.account("receiver");
    assert_eq!(account.delivered, want.len() as f64);
    assert_eq!(account.filtered, (300 - want.len()) as f64);
    assert_eq!(scrape.faults(), Vec::<String>::new());
    let lag = || agent.scrape().sum("tailwater_lag_bytes", &[]) == 0.0;
    assert!(wait::within(wait::BOUND, lag), "positions move past all");
    agent.stop_clean();
    let mut got = Vec::new();
    for record in backend.records() {
        let mut text = Vec::new();
        from_proto(Signal::Logs, &record.body, &mut text).expect("a request");
        let request: Value = serde_json::from_slice(&text).expect("JSON");
        for resource in request["resourceLogs"].as_array().expect("resources") {
            let records = &resource["scopeLogs"][0]["logRecords"];
            for record in records.as_array().expect("records") {
                let attributes = record["attributes"].as_array().expect("attributes");
                let of = |key: &str| {
                    let found = attributes.iter().find(|a| a["key"] == key);
                    found
                        .and_then(|a| a["value"]["stringValue"].as_str())
                        .map(str::to_owned)
                };
                assert_eq!(of("sampling.threshold").as_deref(), Some("8"));
                assert_eq!(of("sampling.randomness").map(|r| r.len()), Some(14));
                got.push(of("id").expect("an id"));
            }
        }
    }
    assert_eq!(got, want);
}

/// Guarantees that `memory_limiter` refuses requests while the agent holds data above its limit: they are
/// answered with 503 and UNAVAILABLE, counted for each signal, and nothing of them is kept; what was taken
/// before is delivered, and requests are taken again.
#[test]
fn a_memory_limiter_refuses_requests() {
    let rig = Rig::new("signals-limiter");
    let backend = OtlpStandIn::start(None).expect("free ports");
    let (port, grpc) = (free_port().expect("a port"), free_port().expect("a port"));
    // Less than the process ever has.
    let limiter = json!({"check_interval": "20ms", "limit_mib": 2, "spike_limit_mib": 1});
    let exporters = json!({"otlp_http": {"endpoint": backend.http_url(),
        "retry_on_failure": {"initial_interval": "20ms", "max_interval": "50ms"}}});
    let mut config = config(port, json!({"memory_limiter": limiter}), exporters);
    config["receivers"]["otlp"]["protocols"]["grpc"] =
        json!({"endpoint": format!("127.0.0.1:{grpc}")});
    backend.set_answer(Answer::unavailable());
    let agent = rig.start(&config);
    let mark = json!([attribute("k", "v")]);
    let request = |signal| request(signal, &mark, [&mark, &mark]);
    std::thread::scope(|scope| {
        let held = scope.spawn(|| post(port, "traces", &request(Signal::Traces)));
        let name = "tailwater_memory_limiter_limited";
        let limited = || {
            let tried = backend.requests() > 0;
            tried && agent.scrape().sum(name, &[]) == 1.0
        };
        assert!(wait::within(wait::BOUND, limited), "{}", tail(&agent.log()));
        // It is measured once per interval: the first time, there was nothing that refusing would free.
        wait::let_pass(Duration::from_secs(1));
        for (signal, _, name) in SIGNALS {
            assert_eq!(
                post(port, name, &request(signal)),
                503,
                "{}",
                tail(&agent.log())
            );
        }
        let client = GrpcClient::new(grpc);
        let code = client.export_logs("identity", &log_proto("refused"));
        assert_eq!(code.expect("an answer"), 14);
        let scrape = agent.scrape();
        for (items, count) in [("log_records", 3.0), ("metric_points", 2.0), ("spans", 2.0)] {
            let of = |kind: &str| format!("otelcol_processor_memory_limiter_{kind}_{items}");
            assert_eq!(scrape.sum(&of("refused"), &[]), count, "{items}");
            let taken = if items == "spans" { 2.0 } else { 0.0 };
            assert_eq!(scrape.sum(&of("accepted"), &[]), taken, "{items}");
            let refused = scrape.sum(&format!("otelcol_receiver_refused_{items}"), &[]);
            assert_eq!(refused, count, "{items}");
        }
        backend.set_answer(Answer::Accept);
        assert_eq!(held.join().expect("answered"), 200);
    });
    let again = || post(port, "logs", &request(Signal::Logs)) == 200;
    assert!(wait::within(wait::BOUND, again), "{}", tail(&agent.log()));
    assert_eq!(backend.items(Kind::Traces), 2);
    let scrape = agent.scrape();
    assert_eq!(scrape.faults(), Vec::<String>::new());
    let empty = || agent.scrape().sum("tailwater_data_bytes", &[]) == 0.0;
    assert!(wait::within(wait::BOUND, empty), "nothing is held");
    agent.stop_clean();
    assert_eq!(backend.errors(), Vec::<String>::new());
}
