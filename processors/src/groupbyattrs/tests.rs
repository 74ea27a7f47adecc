//! What comes together, and whose duty it is. Rows with a `source` restate what the collector's
//! `groupbyattrsprocessor` does.

use std::collections::BTreeMap;
use std::sync::Mutex;

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use tailwater_config::parse;
use tailwater_pdata::otlp::{Limits, json as otlp_json};
use tailwater_pdata::{Entry, Map, Value};
use tailwater_pipeline::Outcome;
use tailwater_pipeline::ack::{AckSink, Counts, DropReason};
use tailwater_pipeline::clock::Mono;

use super::*;

#[derive(Default)]
struct Out(Vec<Part>);

impl Output for Out {
    fn emit(&mut self, batch: Batch) {
        self.0.extend(batch.parts);
    }
    fn now(&self) -> Mono {
        Mono::default()
    }
}

#[derive(Default)]
struct Told(Mutex<BTreeMap<u64, (Outcome, u32)>>, Option<&'static str>);

impl AckSink for Told {
    fn settled(&self, key: u64, outcome: Outcome, counts: &Counts) {
        let told = (outcome, counts.dropped_total());
        let before = self.0.lock().unwrap().insert(key, told);
        assert_eq!(before, None, "told once");
    }
    fn client(&self) -> Option<Arc<ClientInfo>> {
        let mut client = ClientInfo::default();
        client.add_metadata("tenant", self.1?);
        Some(Arc::new(client))
    }
}

fn decode_config(yaml: &str) -> Result<GroupByAttrsConfig, String> {
    let node = parse(yaml, "a.yaml").map_err(|e| e.to_string())?;
    let mut errors = Errors::new();
    let mut section = Section::new(&node, "processors::groupbyattrs", &mut errors);
    let config = GroupByAttrsConfig::decode(&mut section);
    section.finish();
    errors.into_result(config).map_err(|e| e.to_string())
}

fn processor(yaml: &str, signal: Signal) -> GroupByAttrs {
    GroupByAttrs {
        keys: decode_config(yaml).unwrap().keys,
        budget: Budget::new(1 << 30),
        meters: Meters::new(&MetricsRegistry::default(), "g", signal),
    }
}

fn encoded(signal: Signal, body: &Json) -> Encoded {
    let text = body.to_string();
    let body = otlp_json::to_proto(signal, text.as_bytes(), &Limits::default()).unwrap();
    Encoded::parse(signal, body, &Limits::default()).unwrap()
}

fn as_json(encoded: &Encoded) -> Json {
    let whole = Encoded::parse(encoded.signal(), encoded.body(), &Limits::default());
    let whole = whole.expect("what was written is well formed");
    assert_eq!(whole.items(), encoded.items());
    let mut text = Vec::new();
    otlp_json::from_proto(encoded.signal(), &encoded.body(), &mut text).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// What is left of one request.
fn run(yaml: &str, signal: Signal, body: &Json) -> Json {
    let mut out = Out::default();
    let part = Part {
        data: encoded(signal, body).into(),
        ack: AckToken::detached(),
        permit: Permit::none(),
    };
    processor(yaml, signal).process(Batch::of(part), &mut out);
    let part = out.0.pop().expect("one part");
    part.ack.resolve(Outcome::Delivered);
    match part.data {
        Payload::Encoded(encoded) => as_json(&encoded),
        Payload::Logs(_) => panic!("it stays encoded"),
    }
}

fn list(pairs: &[(&str, &str)]) -> Json {
    let pair = |(key, value): &(&str, &str)| json!({"key": key, "value": {"stringValue": value}});
    pairs.iter().map(pair).collect()
}

fn resource(pairs: &[(&str, &str)]) -> Json {
    json!({"attributes": list(pairs)})
}

#[test]
fn points_move_to_resources_that_say_what_they_said() {
    // source: contrib processor/groupbyattrsprocessor README, "Grouping metrics"
    let point = |host: &str| json!({"attributes": list(&[("host.name", host), ("id", "eth0")]), "asDouble": 1.0});
    let left = || json!({"attributes": list(&[("id", "eth0")]), "asDouble": 1.0});
    let hosts = |hosts: &[&str]| hosts.iter().map(|h| point(h)).collect::<Json>();
    let lefts = |n: usize| (0..n).map(|_| left()).collect::<Json>();
    let gauge = |name: &str, points: Json| json!({"name": name, "gauge": {"dataPoints": points}});
    let sum = |name: &str, points: Json| json!({"name": name, "sum": {"dataPoints": points, "aggregationTemporality": 2}});
    let of = |resource: Json, metrics: Json| json!({"resource": resource, "scopeMetrics": [{"metrics": metrics}]});
    let before = json!({"resourceMetrics": [of(
        resource(&[("host.name", "localhost"), ("source", "prom")]),
        json!([
            gauge("gauge-1", hosts(&["host-A", "host-A", "host-B"])),
            gauge("gauge-1", hosts(&["host-A", "host-A", "host-B"])),
            gauge("mixed-type", hosts(&["host-A", "host-A", "host-B"])),
            sum("mixed-type", hosts(&["host-A", "host-A"])),
            gauge("dont-move", json!([left()])),
        ]),
    )]});
    let want = json!({"resourceMetrics": [
        of(resource(&[("host.name", "host-A"), ("source", "prom")]),
            json!([gauge("gauge-1", lefts(4)), gauge("mixed-type", lefts(2)), sum("mixed-type", lefts(2))])),
        of(resource(&[("host.name", "host-B"), ("source", "prom")]),
            json!([gauge("gauge-1", lefts(2)), gauge("mixed-type", lefts(1))])),
        of(resource(&[("host.name", "localhost"), ("source", "prom")]),
            json!([gauge("dont-move", json!([left()]))])),
    ]});
    let got = run("keys: [host.name]", Signal::Metrics, &before);
    let want = encoded(Signal::Metrics, &want);
    assert_eq!(got["resourceMetrics"], as_json(&want)["resourceMetrics"]);
}

/// Attributes of a resource, and its scopes: names, each with the names of its spans.
type Spans<'t> = (&'t [(&'t str, &'t str)], &'t [(&'t str, &'t [&'t str])]);

/// A request of spans: of each resource, of each scope, names of spans.
fn traces(of: &[Spans<'_>]) -> Json {
    let span = |name: &&str| json!({"name": name});
    let scope = |(name, spans): &(&str, &[&str])| json!({"scope": {"name": name}, "spans": spans.iter().map(span).collect::<Json>()});
    let resource = |(r, scopes): &Spans<'_>| {
        json!({"resource": resource(r),
        "scopeSpans": scopes.iter().map(scope).collect::<Json>()})
    };
    json!({"resourceSpans": of.iter().map(resource).collect::<Json>()})
}

#[test]
fn without_keys_equal_resources_and_scopes_come_together() {
    // source: contrib processor/groupbyattrsprocessor README, "Compaction"
    let before = traces(&[
        (
            &[("host", "l"), ("a", "1")],
            &[("Mine", &["1"]), ("Other", &["2"])],
        ),
        (&[("a", "1"), ("host", "l")], &[("Mine", &["3"])]),
        (&[("host", "l"), ("a", "1")], &[("Mine", &["4"])]),
        (&[("host", "other")], &[("Mine", &["5"])]),
        (&[("host", "empty")], &[("Mine", &[])]),
    ]);
    let want = traces(&[
        (
            &[("host", "l"), ("a", "1")],
            &[("Mine", &["1", "3", "4"]), ("Other", &["2"])],
        ),
        (&[("host", "other")], &[("Mine", &["5"])]),
    ]);
    for yaml in ["{}", "keys: []", "keys: [none]"] {
        let got = run(yaml, Signal::Traces, &before);
        assert_eq!(got, as_json(&encoded(Signal::Traces, &want)), "{yaml}");
    }
}

/// Guarantees that what differs in anything but attributes stays apart, so that nothing of it is lost.
#[test]
fn nothing_of_resources_scopes_and_metrics_is_lost() {
    let spans = json!([{"name": "s"}]);
    let before = json!({"resourceSpans": [
        {"resource": {"droppedAttributesCount": 1}, "scopeSpans": [{"spans": spans}]},
        {"resource": {}, "scopeSpans": [{"spans": spans}], "schemaUrl": "u"},
        {"resource": {}, "scopeSpans": [
            {"scope": {"name": "a", "attributes": list(&[("k", "v")])}, "spans": spans},
            {"scope": {"name": "a"}, "spans": spans, "schemaUrl": "w"},
            {"scope": {"name": "a", "version": "2"}, "spans": spans}]},
    ]});
    let got = run("{}", Signal::Traces, &before);
    assert_eq!(got, as_json(&encoded(Signal::Traces, &before)));
    let metric = |more: Json| {
        let mut metric = json!({"name": "m", "sum": {"dataPoints": [{"asInt": "1"}], "aggregationTemporality": 2}});
        for (key, value) in more.as_object().unwrap() {
            metric[key] = value.clone();
        }
        metric
    };
    let delta = json!({"sum": {"dataPoints": [{"asInt": "1"}], "aggregationTemporality": 1}});
    let monotonic = json!({"sum": {"dataPoints": [{"asInt": "1"}], "aggregationTemporality": 2, "isMonotonic": true}});
    let metrics = [
        json!({}),
        json!({"unit": "s"}),
        json!({"description": "d"}),
        delta,
        monotonic,
    ]
    .map(metric);
    let before =
        json!({"resourceMetrics": [{"resource": {}, "scopeMetrics": [{"metrics": metrics}]}]});
    let got = run("{}", Signal::Metrics, &before);
    assert_eq!(
        got["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
            .as_array()
            .unwrap()
            .len(),
        5
    );
}

#[test]
fn mistakes_are_errors() {
    for (yaml, want) in [
        ("key: [a]", "unknown option \"key\""),
        ("keys: ['']", "a key cannot be empty"),
        ("keys: {a: 1}", "a list of strings"),
    ] {
        let error = decode_config(yaml).err().unwrap_or_default();
        assert!(error.contains(want), "{yaml}: {error}");
    }
}

fn entry(body: &str, attributes: &[(&str, Value)]) -> Entry {
    Entry {
        body: body.into(),
        attributes: attributes.iter().cloned().collect(),
        resource: [("r", "1")].into_iter().collect::<Map>(),
        ..Entry::default()
    }
}

/// Records after the processor, and whether each part stayed in columns.
fn logs(yaml: &str, parts: Vec<LogsBatch>) -> (Vec<Entry>, Vec<bool>) {
    let mut out = Out::default();
    let part = |logs: LogsBatch| Part {
        data: logs.into(),
        ack: AckToken::detached(),
        permit: Permit::none(),
    };
    let parts = parts.into_iter().map(part).collect();
    processor(yaml, Signal::Logs).process(Batch { parts }, &mut out);
    let columns = out
        .0
        .iter()
        .map(|p| matches!(p.data, Payload::Logs(_)))
        .collect();
    let mut entries = Vec::new();
    for part in out.0.into_iter().flat_map(Part::into_logs) {
        entries.extend(part.logs.to_entries());
        part.ack.resolve(Outcome::Delivered);
    }
    (entries, columns)
}

#[test]
fn log_records_move_with_what_they_have() {
    let records = [
        entry("a", &[("tenant", "x".into()), ("k", 1.into())]),
        entry("b", &[("tenant", "y".into()), ("r", "2".into())]),
        entry("c", &[("tenant", "x".into())]),
        entry("d", &[]),
    ];
    let (entries, _) = logs("keys: [tenant, r]", vec![LogsBatch::from_entries(&records)]);
    let seen: Vec<(String, String, String)> = entries
        .iter()
        .map(|e| {
            let text = |v: &Value| v.as_ref().to_display_string();
            (
                text(&e.body),
                text(&Value::Map(e.resource.clone())),
                text(&Value::Map(e.attributes.clone())),
            )
        })
        .collect();
    let row = |body: &str, resource: &str, attributes: &str| {
        (body.to_owned(), resource.to_owned(), attributes.to_owned())
    };
    assert_eq!(
        seen,
        [
            row("a", r#"{"r":"1","tenant":"x"}"#, r#"{"k":1}"#),
            row("c", r#"{"r":"1","tenant":"x"}"#, "{}"),
            row("b", r#"{"r":"2","tenant":"y"}"#, "{}"),
            row("d", r#"{"r":"1"}"#, "{}"),
        ]
    );
}

/// Guarantees that columns are not given up where they need not be.
#[test]
fn what_all_records_have_in_common_moves_as_a_whole() {
    let mut batch = LogsBatch::from_entries(&[entry("a", &[("k", 1.into())]), entry("b", &[])]);
    batch.attributes.set("file", Column::Const("f".into()));
    let (entries, columns) = logs("keys: [file, none]", vec![batch.clone()]);
    assert_eq!(columns, [true]);
    for entry in &entries {
        assert_eq!(entry.resource.get("file"), Some(&"f".into()));
        assert_eq!(entry.attributes.get("file"), None);
    }
    let mut other = batch.clone();
    other.set_resource_all("r", "other".into());
    let (entries, columns) = logs("{}", vec![batch.clone(), other, batch]);
    assert_eq!(
        columns,
        [false, true],
        "equal ones come together, the other one stays as it is"
    );
    let bodies: Vec<String> = entries
        .iter()
        .map(|e| e.body.as_ref().to_display_string())
        .collect();
    assert_eq!(bodies, ["a", "b", "a", "b", "a", "b"]);
}

/// Guarantees that parts which become one are answered with what becomes of it, each with counts of its own, and
/// that parts of different clients stay apart.
#[test]
fn every_part_is_answered() {
    let told = Arc::new(Told::default());
    let tenant = Arc::new(Told(Mutex::default(), Some("t")));
    let body = traces(&[(&[("host", "l")], &[("a", &["1", "2"])])]);
    let part = |sink: &Arc<Told>, key| Part {
        data: encoded(Signal::Traces, &body).into(),
        ack: AckToken::new(sink.clone(), key),
        permit: Permit::none(),
    };
    let parts = vec![part(&told, 1), part(&tenant, 2), part(&told, 3)];
    let mut out = Out::default();
    processor("{}", Signal::Traces).process(Batch { parts }, &mut out);
    let items: Vec<usize> = out.0.iter().map(|p| p.data.items()).collect();
    assert_eq!(items, [4, 2]);
    assert_eq!(out.0[1].ack.client().unwrap().metadata("tenant").len(), 1);
    for part in out.0 {
        part.ack
            .count_dropped(DropReason::Rejected, 3.min(part.data.items() as u32));
        part.ack.resolve(Outcome::Delivered);
    }
    let all: Vec<_> = told.0.lock().unwrap().clone().into_iter().collect();
    assert_eq!(
        all,
        [(1, (Outcome::Delivered, 2)), (3, (Outcome::Delivered, 1))]
    );
    assert_eq!(tenant.0.lock().unwrap()[&2], (Outcome::Delivered, 2));
}

/// Guarantees that a large resource and very many values do not make a request many times as large.
#[test]
fn large_resources_are_not_repeated_without_end() {
    let large = "x".repeat(1 << 20);
    let span = |i: usize| json!({"name": "s", "attributes": list(&[("k", &i.to_string())])});
    let body = json!({"resourceSpans": [{"resource": resource(&[("large", &large)]),
        "scopeSpans": [{"spans": (0..200).map(span).collect::<Json>()}]}]});
    let request = encoded(Signal::Traces, &body);
    let (after, told) = request.group_by_attributes(&["k".into()]);
    assert_eq!((after.items(), told.grouped + told.left), (200, 200));
    assert!(
        told.left > 100 && after.len() < 70 << 20,
        "{told:?} {}",
        after.len()
    );
}

proptest! {
    /// Guarantees that no item is lost, doubled or changed but for its keys, and that resources differ.
    #[test]
    fn items_are_all_there(spans in proptest::collection::vec((0u8..3, 0u8..2, proptest::option::of(0u8..4)), 0..40)) {
        let one = |i: usize, (r, s, key): &(u8, u8, Option<u8>)| {
            let key = key.map(|k| vec![("k", k.to_string())]).unwrap_or_default();
            let pairs: Vec<(&str, &str)> = key.iter().map(|(k, v)| (*k, v.as_str())).collect();
            json!({"resource": resource(&[("r", &r.to_string())]), "scopeSpans": [{"scope": {"name": s.to_string()},
                "spans": [{"name": i.to_string(), "attributes": list(&pairs)}]}]})
        };
        let body = json!({"resourceSpans": spans.iter().enumerate().map(|(i, s)| one(i, s)).collect::<Json>()});
        let request = encoded(Signal::Traces, &body);
        let (after, told) = request.group_by_attributes(&["k".into()]);
        prop_assert_eq!(after.items(), spans.len());
        prop_assert_eq!(told.grouped, spans.iter().filter(|s| s.2.is_some()).count());
        let after = as_json(&after);
        let none = Vec::new();
        let array = |json: &Json, key: &str| json[key].as_array().unwrap_or(&none).clone();
        let mut seen = BTreeMap::new();
        let mut resources = Vec::new();
        for r in array(&after, "resourceSpans") {
            prop_assert!(!resources.contains(&r["resource"]));
            resources.push(r["resource"].clone());
            for scope in array(&r, "scopeSpans") {
                for span in array(&scope, "spans") {
                    let i: usize = span["name"].as_str().unwrap().parse().unwrap();
                    prop_assert!(span["attributes"].as_array().is_none_or(Vec::is_empty));
                    let before = seen.insert(i, (r["resource"].clone(), scope["scope"]["name"].clone()));
                    prop_assert_eq!(before, None);
                }
            }
        }
        for (i, (r, s, key)) in spans.iter().enumerate() {
            let r = r.to_string();
            let key = key.map(|k| k.to_string());
            let mut pairs = vec![("r", r.as_str())];
            pairs.extend(key.iter().map(|k| ("k", k.as_str())));
            prop_assert_eq!(&seen[&i], &(resource(&pairs), json!(s.to_string())));
        }
    }
}
