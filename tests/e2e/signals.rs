//! Metrics and traces through processors and exporters, with the real binary: OTLP comes in, and what
//! comes out is what the configuration makes of it.

use serde_json::{Value, json};
use tailwater_pdata::Signal;
use tailwater_pdata::otlp::json::from_proto;
use tailwater_testkit::otlp::{Kind, OtlpStandIn};
use tailwater_tests::agent::free_port;
use tailwater_tests::otlp_client::HttpClient;
use tailwater_tests::rig::{Rig, tail};

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
