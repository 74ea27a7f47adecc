//! The vectors that restate the tests of the collector's exporter.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;
use tailwater_pdata::{Entry, LogsBatch, Map, Value};

use super::front::tests::export_all;
use super::line::{self, LineRecord};
use super::options::LokiOptions;

fn vectors() -> Vec<(String, Json)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/loki");
    let files = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path());
    let read = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (
            path.display().to_string(),
            serde_json::from_str(&text).unwrap(),
        )
    };
    files.map(read).collect()
}

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => n
            .as_i64()
            .map_or_else(|| Value::Double(n.as_f64().unwrap()), Value::Int),
        Json::String(s) => Value::str(s),
        Json::Array(a) => Value::List(a.iter().map(value).collect()),
        Json::Object(_) => Value::Map(map(json)),
    }
}

fn map(json: &Json) -> Map {
    let entries = json.as_object().into_iter().flatten();
    entries.map(|(k, v)| (k.as_str(), value(v))).collect()
}

fn id<const N: usize>(json: &Json) -> [u8; N] {
    let text = json.as_str().unwrap_or_default();
    let byte = |i: usize| u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok();
    std::array::from_fn(|i| byte(i).unwrap_or(0))
}

fn entry(record: &Json, resource: &Json) -> Entry {
    Entry {
        body: value(&record["body"]),
        attributes: map(&record["attributes"]),
        resource: map(resource),
        severity: record["severity_number"].as_u64().unwrap_or(0) as u8,
        severity_text: record["severity_text"].as_str().unwrap_or_default().into(),
        trace_id: id(&record["trace_id"]),
        span_id: id(&record["span_id"]),
        ..Entry::default()
    }
}

fn batch(record: &Json, resource: &Json, scope: &Json) -> LogsBatch {
    let mut logs = LogsBatch::from_entries(&[entry(record, resource)]);
    let text = |key: &str| scope[key].as_str().unwrap_or_default().into();
    let s = std::sync::Arc::make_mut(&mut logs.scope);
    (s.name, s.version) = (text("name"), text("version"));
    logs
}

fn check_line(name: &str, vector: &Json) {
    let input = &vector["input"];
    let logs = batch(&input["record"], &input["resource"], &input["scope"]);
    let record = LineRecord {
        logs: &logs,
        row: 0,
        hidden_attributes: &[],
        hidden_resource: &[],
    };
    let mut out = Vec::new();
    match vector["config"]["format"].as_str() {
        Some("json") => line::json(&record, &mut out),
        Some("logfmt") => line::logfmt(&record, &mut out),
        other => panic!("{name}: format {other:?}"),
    }
    let got = String::from_utf8(out).unwrap();
    assert_eq!(
        Some(got.as_str()),
        vector["expect"]["line"].as_str(),
        "{name}"
    );
}

type Streams = BTreeMap<String, BTreeMap<String, Vec<String>>>;

fn check_streams(name: &str, vector: &Json) {
    let mut batches = Vec::new();
    let list = |json: &Json| json.as_array().cloned().unwrap_or_default();
    for resource in list(&vector["input"]["resource_logs"]) {
        for scope in list(&resource["scope_logs"]) {
            for record in list(&scope["records"]) {
                batches.push(batch(&record, &resource["resource"], &scope["scope"]));
            }
        }
    }
    assert_eq!(vector["config"]["loki"], serde_json::json!({}), "{name}");
    let mut got = Streams::new();
    for (tenant, labels, line) in export_all(LokiOptions::default(), batches) {
        let tenant = got.entry(tenant.unwrap_or_default()).or_default();
        tenant.entry(labels).or_default().push(line);
    }
    let mut want = Streams::new();
    for (tenant, streams) in vector["expect"]["tenants"].as_object().unwrap() {
        for stream in list(streams) {
            let text = |v: &Json| v.as_str().unwrap().to_owned();
            let lines = list(&stream["lines"]).iter().map(text).collect();
            let streams = want.entry(tenant.clone()).or_default();
            streams.insert(text(&stream["labels"]), lines);
        }
    }
    assert_eq!(got, want, "{name}");
}

#[test]
fn the_collectors_own_cases_give_the_same_streams_and_lines() {
    let vectors = vectors();
    assert!(vectors.len() >= 6, "the vectors are missing");
    for (name, vector) in vectors {
        match vector["kind"].as_str() {
            Some("loki_line") => check_line(&name, &vector),
            Some("loki") => check_streams(&name, &vector),
            other => panic!("{name}: kind {other:?}"),
        }
    }
}
