//! What is left of data, and what is told about the rest.

use std::sync::{Arc, Mutex};

use serde_json::{Value as Json, json};
use tailwater_config::{Errors, parse};
use tailwater_pdata::otlp::{Encoded, Limits, json as otlp_json};
use tailwater_pdata::{Entry, Map, Value};
use tailwater_pipeline::ack::AckSink;
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{AckToken, Counts, Permit};

use super::*;

#[derive(Default)]
struct Out(Vec<Batch>);

impl Output for Out {
    fn emit(&mut self, batch: Batch) {
        self.0.push(batch);
    }
    fn now(&self) -> Mono {
        Mono::default()
    }
}

#[derive(Default)]
struct Told(Mutex<Vec<(Outcome, Counts)>>);

impl AckSink for Told {
    fn settled(&self, _: u64, outcome: Outcome, counts: &Counts) {
        self.0.lock().unwrap().push((outcome, counts.clone()));
    }
}

fn decode(yaml: &str) -> Result<FilterSettings, String> {
    let node = parse(yaml, "a.yaml").map_err(|e| e.to_string())?;
    let mut errors = Errors::new();
    let mut section = Section::new(&node, "processors::filter", &mut errors);
    let settings = FilterSettings::decode(&mut section);
    section.finish();
    errors.into_result(settings).map_err(|e| e.to_string())
}

/// What is left, the outcome, and how many were filtered and dropped.
fn run(yaml: &str, data: impl Into<Payload>) -> (Vec<Part>, (Outcome, u32, u32)) {
    let settings = decode(yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"));
    let mut processor = FilterProcessor::new(settings);
    let told = Arc::new(Told::default());
    let part = Part {
        data: data.into(),
        ack: AckToken::new(told.clone(), 0),
        permit: Permit::none(),
    };
    let mut out = Out::default();
    processor.process(Batch::of(part), &mut out);
    let parts: Vec<Part> = out.0.into_iter().flat_map(|b| b.parts).collect();
    let mut left = Vec::new();
    for part in parts {
        left.push(Part {
            data: part.data,
            ack: AckToken::detached(),
            permit: Permit::none(),
        });
        part.ack.resolve(Outcome::Delivered);
    }
    let settled = told
        .0
        .lock()
        .unwrap()
        .pop()
        .expect("the duty is settled once");
    let (outcome, counts) = settled;
    (left, (outcome, counts.filtered, counts.dropped_total()))
}

fn settle(parts: Vec<Part>) -> Vec<Payload> {
    let settle = |part: Part| {
        part.ack.resolve(Outcome::Delivered);
        part.data
    };
    parts.into_iter().map(settle).collect()
}

fn record(body: &str, severity: u8, attributes: &[(&str, Value)]) -> Entry {
    Entry {
        body: Value::str(body),
        severity,
        attributes: attributes.iter().cloned().collect(),
        resource: [("service.name", "shop")].into_iter().collect::<Map>(),
        scope_name: "lib".into(),
        ..Entry::default()
    }
}

/// Bodies of the records that are left, and the account.
fn logs(yaml: &str) -> (String, (Outcome, u32, u32)) {
    let records = [
        record(
            "GET /healthz",
            9,
            &[("path", "/healthz".into()), ("status", 200.into())],
        ),
        record(
            "GET /a",
            9,
            &[("path", "/a".into()), ("status", 200.into())],
        ),
        record(
            "GET /b",
            17,
            &[("path", "/b".into()), ("status", 500.into())],
        ),
        record("odd", 0, &[]),
    ];
    let (left, account) = run(yaml, tailwater_pdata::LogsBatch::from_entries(&records));
    let mut bodies = Vec::new();
    for data in settle(left) {
        for batch in data.into_logs() {
            bodies.extend(
                batch
                    .to_entries()
                    .into_iter()
                    .map(|e| e.body.as_ref().to_display_string()),
            );
        }
    }
    (bodies.join("|"), account)
}

const ALL: &str = "GET /healthz|GET /a|GET /b|odd";

#[test]
fn records_are_left_out_where_a_condition_holds() {
    for (yaml, want, filtered) in [
        ("{}", ALL, 0),
        (
            r#"log_conditions: ['log.attributes["path"] == "/healthz"']"#,
            "GET /a|GET /b|odd",
            1,
        ),
        (
            r#"log_conditions: ['IsMatch(log.body, "^GET") and log.severity_number < SEVERITY_NUMBER_WARN', 'log.body == "odd"']"#,
            "GET /b",
            3,
        ),
        (
            r#"log_conditions: ['resource.attributes["service.name"] == "shop"']"#,
            "",
            4,
        ),
        (
            r#"log_conditions: ['resource.attributes["service.name"] == "other"']"#,
            ALL,
            0,
        ),
        (r#"log_conditions: ['scope.name == "lib"']"#, "", 4),
        (
            "log_conditions:\n- context: log\n  conditions: ['attributes[\"status\"] >= 500', 'attributes[\"status\"] == nil']",
            "GET /healthz|GET /a",
            2,
        ),
        (
            "log_conditions:\n- conditions: ['log.attributes[\"status\"] >= 500']\n- conditions: ['log.body == \"odd\"']",
            "GET /healthz|GET /a",
            2,
        ),
        // The older form, without names of contexts.
        (
            r#"logs: {log_record: ['attributes["path"] == "/a"', 'body == "odd"']}"#,
            "GET /healthz|GET /b",
            2,
        ),
        (
            r#"logs: {resource: ['attributes["service.name"] == "shop"']}"#,
            "",
            4,
        ),
        // One that cannot be told leaves nothing out.
        (
            r#"log_conditions: ['log.attributes["path"]["x"] == 1', 'log.body == "odd"']"#,
            "GET /healthz|GET /a|GET /b",
            1,
        ),
        (
            r#"{error_mode: silent, log_conditions: ['HasPrefix(log.attributes["path"], "/a")']}"#,
            "GET /healthz|GET /b|odd",
            1,
        ),
        // include and exclude.
        (
            "logs: {include: {match_type: strict, bodies: ['GET /a', odd]}}",
            "GET /a|odd",
            2,
        ),
        (
            "logs: {exclude: {match_type: regexp, bodies: ['^GET']}}",
            "odd",
            3,
        ),
        (
            "logs: {include: {match_type: strict, severity_number: {min: INFO}}, exclude: {match_type: strict, record_attributes: [{key: path, value: /a}]}}",
            "GET /healthz|GET /b",
            2,
        ),
        (
            "logs: {include: {match_type: strict, resource_attributes: [{key: service.name, value: other}]}}",
            "",
            4,
        ),
        (
            "logs: {include: {match_type: strict, severity_texts: [ERROR]}}",
            "",
            4,
        ),
        (
            "{logs: {exclude: {match_type: strict, bodies: [odd]}}, log_conditions: ['log.severity_number == 17']}",
            "GET /healthz|GET /a",
            2,
        ),
    ] {
        let (left, (outcome, counted, dropped)) = logs(yaml);
        assert_eq!(
            (left.as_str(), counted, dropped),
            (want, filtered, 0),
            "{yaml}"
        );
        let want_outcome = match left.is_empty() {
            true => Outcome::Filtered,
            false => Outcome::Delivered,
        };
        assert_eq!(outcome, want_outcome, "{yaml}");
    }
}

/// Guarantee: with `propagate` an error gives the batch up, counted by its reason; nothing of it goes on.
#[test]
fn an_error_that_is_propagated_gives_the_batch_up() {
    let (left, account) = logs(
        r#"{error_mode: propagate, log_conditions: ['HasPrefix(log.attributes["path"], "/x")']}"#,
    );
    assert_eq!((left.as_str(), account), ("", (Outcome::Refused, 0, 4)));
    let mixed = "error_mode: propagate\nlog_conditions:\n- error_mode: ignore\n  conditions: ['HasPrefix(log.attributes[\"path\"], \"/x\")']";
    assert_eq!(logs(mixed).0, ALL);
}

fn encoded(signal: Signal, body: &Json) -> Encoded {
    let text = body.to_string();
    let body = otlp_json::to_proto(signal, text.as_bytes(), &Limits::default()).unwrap();
    Encoded::parse(signal, body, &Limits::default()).unwrap()
}

fn attribute(key: &str, value: &str) -> Json {
    json!([{"key": key, "value": {"stringValue": value}}])
}

/// Names of the spans that are left.
fn spans(yaml: &str) -> (String, (Outcome, u32, u32)) {
    let span = |name: &str, kind: u32, code: u32, parent: &str| {
        json!({"name": name, "kind": kind, "status": {"code": code, "message": "m"}, "parentSpanId": parent,
            "traceId": "000102030405060708090a0b0c0d0e0f", "spanId": "0102030405060708",
            "startTimeUnixNano": "1000000000", "endTimeUnixNano": "3000000000",
            "attributes": attribute("http.route", &format!("/{name}"))})
    };
    let request = json!({"resourceSpans": [
        {"resource": {"attributes": attribute("service.name", "shop")},
         "scopeSpans": [{"scope": {"name": "lib", "version": "1"}, "spans": [
            span("a", 2, 0, ""), span("b", 3, 2, "1112131415161718")]}]},
        {"resource": {"attributes": attribute("service.name", "cart")},
         "scopeSpans": [{"scope": {"name": "other"}, "spans": [span("c", 1, 1, "")]}]},
    ]});
    let (left, account) = run(yaml, encoded(Signal::Traces, &request));
    (found(settle(left), "name"), account)
}

/// The texts of the fields `key`, but for those of scopes, in order.
fn found(data: Vec<Payload>, key: &str) -> String {
    fn collect(json: &Json, key: &str, out: &mut Vec<String>) {
        match json {
            Json::Array(items) => items.iter().for_each(|i| collect(i, key, out)),
            Json::Object(map) => {
                for (k, v) in map {
                    match v {
                        Json::String(text) if k == key => out.push(text.clone()),
                        _ if k == "scope" => {}
                        v => collect(v, key, out),
                    }
                }
            }
            _ => {}
        }
    }
    let mut out = Vec::new();
    for payload in data {
        let Payload::Encoded(encoded) = payload else {
            panic!("it stays encoded");
        };
        let mut text = Vec::new();
        otlp_json::from_proto(encoded.signal(), &encoded.body(), &mut text).unwrap();
        collect(&serde_json::from_slice(&text).unwrap(), key, &mut out);
    }
    out.join(" ")
}

#[test]
fn spans_are_left_out_where_they_lie() {
    for (yaml, want, filtered) in [
        ("{}", "a b c", 0),
        (r#"trace_conditions: ['span.name == "a"']"#, "b c", 1),
        (
            r#"traces: {span: ['kind == SPAN_KIND_CLIENT', 'status.code == STATUS_CODE_OK']}"#,
            "a",
            2,
        ),
        (
            r#"trace_conditions: ['span.kind.string == "Server"']"#,
            "b c",
            1,
        ),
        (
            r#"trace_conditions: ['span.status.message == "m" and span.attributes["http.route"] == "/c"']"#,
            "a b",
            1,
        ),
        ("trace_conditions: ['IsRootSpan()']", "b", 2),
        (
            r#"trace_conditions: ['span.parent_span_id == SpanID("1112131415161718")']"#,
            "a c",
            1,
        ),
        (
            r#"trace_conditions: ['span.trace_id.string == "000102030405060708090a0b0c0d0e0f"']"#,
            "",
            3,
        ),
        (
            r#"trace_conditions: ['span.end_time - span.start_time > Duration("1s") and span.name != "a"']"#,
            "a",
            2,
        ),
        (
            r#"trace_conditions: ['resource.attributes["service.name"] == "shop"']"#,
            "c",
            2,
        ),
        (
            r#"trace_conditions: ['resource.attributes["service.name"] == "shop" and span.name == "a"']"#,
            "b c",
            1,
        ),
        (r#"trace_conditions: ['scope.name == "other"']"#, "a b", 1),
        (
            r#"trace_conditions: ['span.attributes["none"] + 1 == 2']"#,
            "a b c",
            0,
        ),
        (
            "spans: {include: {match_type: strict, services: [cart]}}",
            "c",
            2,
        ),
        (
            "spans: {exclude: {match_type: regexp, span_names: ['[ab]']}}",
            "c",
            2,
        ),
        ("log_conditions: ['true == true']", "a b c", 0),
    ] {
        if yaml.contains("'true == true'") {
            assert!(
                decode(yaml)
                    .unwrap_err()
                    .contains("no path says what it is about")
            );
            continue;
        }
        let (left, (_, counted, dropped)) = spans(yaml);
        assert_eq!(
            (left.as_str(), counted, dropped),
            (want, filtered, 0),
            "{yaml}"
        );
    }
    let propagated =
        r#"{error_mode: propagate, trace_conditions: ['span.attributes["none"] + 1 == 2']}"#;
    assert_eq!(spans(propagated), (String::new(), (Outcome::Refused, 0, 3)));
}

/// Guarantee: events are left out where they lie; their spans stay, and are what is counted.
#[test]
fn events_are_left_out_where_they_lie() {
    let event =
        |name: &str, level: &str| json!({"name": name, "attributes": attribute("level", level)});
    let request = json!({"resourceSpans": [{"scopeSpans": [{"spans": [
        {"status": {"message": "a"}, "events": [event("log", "debug"), event("log", "error"), event("retry", "debug")]},
        {"status": {"message": "b"}, "events": [event("retry", "info")]},
    ]}]}]});
    for (yaml, want, filtered) in [
        ("{}", "log log retry retry", 0),
        (
            r#"trace_conditions: ['spanevent.attributes["level"] == "debug"']"#,
            "log retry",
            0,
        ),
        (r#"traces: {spanevent: ['name == "retry"']}"#, "log log", 0),
        (
            r#"trace_conditions: [{context: spanevent, conditions: ['name == "retry" and span.status.message == "b"']}]"#,
            "log log retry",
            0,
        ),
        (
            r#"trace_conditions: ['span.status.message == "b"', 'spanevent.event_index > 0']"#,
            "log",
            1,
        ),
    ] {
        let (left, (_, counted, dropped)) = run(yaml, encoded(Signal::Traces, &request));
        let data = settle(left);
        let messages = if filtered == 0 { "a b" } else { "a" };
        assert_eq!(found(data.clone(), "message"), messages, "{yaml}");
        assert_eq!(
            (found(data, "name").as_str(), counted, dropped),
            (want, filtered, 0),
            "{yaml}"
        );
    }
}

fn points(yaml: &str) -> (String, u32) {
    let point = |unit: &str, value: Json| {
        let mut point = json!({"attributes": attribute("host", unit), "timeUnixNano": "5"});
        point
            .as_object_mut()
            .unwrap()
            .extend(value.as_object().unwrap().clone());
        point
    };
    let request = json!({"resourceMetrics": [{"resource": {"attributes": attribute("container", "app")},
    "scopeMetrics": [{"metrics": [
        {"name": "cpu", "unit": "1", "description": "used", "gauge": {"dataPoints": [
            point("h1", json!({"asDouble": 0.5})), point("h2", json!({"asDouble": 0.9}))]}},
        {"name": "requests", "sum": {"aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [
            point("h1", json!({"asInt": "7"}))]}},
        {"name": "latency", "histogram": {"aggregationTemporality": 1, "dataPoints": [
            point("h1", json!({"count": "3", "sum": 1.5, "bucketCounts": ["3"]}))]}},
    ]}]}]});
    let (left, (_, filtered, _)) = run(yaml, encoded(Signal::Metrics, &request));
    let data = settle(left);
    let names = found(data.clone(), "name");
    let hosts = found(data, "stringValue").replace("app ", "");
    (format!("{names}: {hosts}"), filtered)
}

#[test]
fn metrics_and_points_are_left_out_where_they_lie() {
    let all = "cpu requests latency: h1 h2 h1 h1";
    for (yaml, want, filtered) in [
        ("{}", all, 0),
        (
            r#"metrics: {metric: ['HasAttrOnDatapoint("host", "h2")']}"#,
            "requests latency: h1 h1",
            2,
        ),
        (
            r#"metric_conditions: ['not HasAttrKeyOnDatapoint("host")']"#,
            all,
            0,
        ),
        (
            r#"metric_conditions: ['metric.name == "cpu"']"#,
            "requests latency: h1 h1",
            2,
        ),
        (
            r#"metrics: {metric: ['type == METRIC_DATA_TYPE_SUM and is_monotonic == true']}"#,
            "cpu latency: h1 h2 h1",
            1,
        ),
        (
            "metric_conditions: ['metric.aggregation_temporality == AGGREGATION_TEMPORALITY_DELTA']",
            "cpu requests: h1 h2 h1",
            1,
        ),
        (
            r#"metric_conditions: ['metric.unit == "1" and metric.description == "used"']"#,
            "requests latency: h1 h1",
            2,
        ),
        (
            "metric_conditions: ['datapoint.value_double > 0.8']",
            "cpu requests latency: h1 h1 h1",
            1,
        ),
        (
            r#"metrics: {datapoint: ['metric.name == "cpu" and attributes["host"] == "h1"']}"#,
            "cpu requests latency: h2 h1 h1",
            1,
        ),
        (
            "metric_conditions: ['datapoint.value_int == 7']",
            "cpu latency: h1 h2 h1",
            1,
        ),
        (
            "metric_conditions: ['datapoint.count == 3 and datapoint.sum == 1.5']",
            "cpu requests: h1 h2 h1",
            1,
        ),
        (
            r#"metric_conditions: ['resource.attributes["container"] == "app"']"#,
            ": ",
            4,
        ),
        (
            "metrics: {include: {match_type: strict, metric_names: [cpu, latency]}}",
            "cpu latency: h1 h2 h1",
            1,
        ),
        (
            "metrics: {exclude: {match_type: regexp, metric_names: ['^c', '^l']}}",
            "requests: h1",
            3,
        ),
        (
            "metrics: {exclude: {match_type: strict, resource_attributes: [{key: container, value: app}]}}",
            ": ",
            4,
        ),
        (
            "metrics: {include: {match_type: strict, metric_names: [cpu], resource_attributes: [{key: container, value: app}]}}",
            "cpu: h1 h2",
            2,
        ),
    ] {
        let got = points(yaml);
        assert_eq!((got.0.as_str(), got.1), (want, filtered), "{yaml}");
    }
}

/// Guarantee: what is wrong is told where it is, and nothing is read and ignored.
#[test]
fn mistakes_of_a_section_are_told() {
    for (yaml, part) in [
        (
            r#"log_conditions: ['log.atributes["a"] == 1']"#,
            r#"a.yaml:1:18: processors::filter::log_conditions::0: column 1: log has no path "atributes""#,
        ),
        (
            r#"log_conditions: ['body == "x"']"#,
            "no path says what it is about: begin paths with one of resource, scope, log",
        ),
        (
            r#"log_conditions: ['log.body == "x" and severity_number == 1']"#,
            "write log.severity_number",
        ),
        (
            r#"log_conditions: ['span.name == "x"']"#,
            "the paths begin with span, which cannot be reached together here",
        ),
        (
            r#"log_conditions: ['log.body == "x"', {conditions: []}]"#,
            "a list of strings or of groups, not of both",
        ),
        (
            "log_conditions: [{context: span, conditions: []}]",
            "allowed: resource, scope, log",
        ),
        (
            "log_conditions: [{contex: log}]",
            r#"did you mean "context"?"#,
        ),
        ("log_conditions: [1, 2]", "a string"),
        ("error_mode: ignored", r#"did you mean "ignore"?"#),
        (
            "logs: {log_records: ['true']}",
            r#"did you mean "log_record"?"#,
        ),
        (
            "logs: {log_record: ['true'], include: {match_type: strict, bodies: [a]}}",
            "cannot be used together with log_record",
        ),
        (
            "logs: {include: {bodies: [a]}}",
            "is required: strict or regexp",
        ),
        (
            "logs: {include: {bodies: [a], severity_number: {min: INFO}}}",
            "is required: strict or regexp",
        ),
        (
            "{traces: {span: ['true']}, spans: {include: {match_type: strict, services: [a]}}}",
            "cannot be used together with resource, span and spanevent of traces",
        ),
        (
            "metrics: {include: {match_type: expr, expressions: ['x']}}",
            "as conditions of OTTL",
        ),
        (
            r#"metric_conditions: ['resource.schema_url == "x"']"#,
            "can be read for logs only",
        ),
        ("profiles: {}", "profiles are no signal"),
        (
            r#"metrics: {datapoint: ['HasAttrOnDatapoint("a", "b")']}"#,
            "HasAttrOnDatapoint stands in the context metric, not in datapoint",
        ),
    ] {
        let error = decode(yaml)
            .err()
            .unwrap_or_else(|| panic!("{yaml} is taken"));
        assert!(
            error.contains(part),
            "{yaml}\n  said {error}\n  want {part}"
        );
    }
}

/// Guarantee: a severity alone needs no match_type, as in the collector.
#[test]
fn a_severity_alone_is_compared() {
    for (yaml, left) in [
        ("logs: {include: {severity_number: {min: INFO}}}", 1),
        ("logs: {include: {severity_number: {min: WARN}}}", 0),
        ("logs: {exclude: {severity_number: {min: INFO}}}", 0),
    ] {
        let entry = Entry {
            severity: 9,
            ..Entry::default()
        };
        let logs = tailwater_pdata::LogsBatch::from_entries(&[entry]);
        let (parts, _) = run(yaml, logs);
        let rows: usize = parts.iter().map(|p| p.data.items()).sum();
        assert_eq!(rows, left, "{yaml}");
    }
}
