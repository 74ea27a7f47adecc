//! What becomes of data. Rows with a `source` restate what the collector's `redactionprocessor` does.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use tailwater_config::parse;
use tailwater_pdata::otlp::{Encoded, Limits, json as otlp_json};
use tailwater_pdata::{Column, Entry, LogsBatch, Value};
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{AckToken, Outcome, Permit};

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

fn decode_rules(yaml: &str) -> Result<(Rules, Vec<String>), String> {
    let node = parse(yaml, "a.yaml").map_err(|e| e.to_string())?;
    let mut errors = Errors::new();
    let mut section = Section::new(&node, "processors::redaction", &mut errors);
    let rules = Rules::decode(&mut section);
    section.finish();
    let warnings = errors.take_warnings().into_iter().map(|w| w.message);
    let warnings = warnings.collect();
    errors
        .into_result((rules, warnings))
        .map_err(|e| e.to_string())
}

fn run(yaml: &str, data: impl Into<Payload>) -> Vec<Payload> {
    let (rules, _) = decode_rules(yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"));
    let mut processor = RedactionProcessor::new(rules, None);
    let part = Part {
        data: data.into(),
        ack: AckToken::detached(),
        permit: Permit::none(),
    };
    let mut out = Out::default();
    processor.process(Batch::of(part), &mut out);
    let settled = out.0.into_iter().map(|part| {
        part.ack.resolve(Outcome::Delivered);
        part.data
    });
    settled.collect()
}

fn map(pairs: &[(&str, Value)]) -> Map {
    pairs.iter().cloned().collect()
}

/// JSON as a value.
fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => n
            .as_i64()
            .map_or_else(|| Value::Double(n.as_f64().unwrap()), Value::Int),
        Json::String(text) => Value::str(text),
        Json::Array(items) => Value::List(items.iter().map(value).collect()),
        Json::Object(fields) => Value::Map(Map::from_unique(
            fields.iter().map(|(k, v)| (k.as_str(), value(v))),
        )),
    }
}

fn text(value: &Value) -> String {
    value.as_ref().to_display_string()
}

/// Body and attributes of one record after the processor, each as JSON with sorted keys.
fn record(yaml: &str, body: &Json, attributes: &Json) -> (String, String) {
    let Value::Map(attributes) = value(attributes) else {
        panic!("attributes are a map")
    };
    let entry = Entry {
        body: value(body),
        attributes,
        ..Entry::default()
    };
    let mut left = run(yaml, LogsBatch::from_entries(&[entry]));
    let Some(Payload::Logs(logs)) = left.pop() else {
        panic!("one batch of records")
    };
    let entry = logs.entry(0);
    (text(&entry.body), text(&Value::Map(entry.attributes)))
}

#[test]
fn attributes_are_removed_masked_allowed_and_ignored_in_this_order() {
    // source: contrib processor/redactionprocessor processor.go processAttrs, README
    for (yaml, attributes, want) in [
        ("{}", json!({"a": 1, "b": "x"}), json!({})),
        (
            "allowed_keys: [a]",
            json!({"a": 1, "b": "x"}),
            json!({"a": 1}),
        ),
        (
            "{allowed_keys: [a], ignored_keys: [b]}",
            json!({"a": 1, "b": "x", "c": 2}),
            json!({"a": 1, "b": "x"}),
        ),
        (
            "{ignored_key_patterns: ['^safe_']}",
            json!({"safe_x": "4", "unsafe_x": "4"}),
            json!({"safe_x": "4"}),
        ),
        (
            "{allow_all_keys: true, blocked_values: ['4[0-9]{12}(?:[0-9]{3})?']}",
            json!({"a": "visa 4111111111111111 and 4111111111111112", "b": "x", "n": 4111111111111111_i64}),
            json!({"a": "visa **** and ****", "b": "x", "n": 4111111111111111_i64}),
        ),
        (
            "{allow_all_keys: true, redact_all_types: true, blocked_values: ['4[0-9]{12}(?:[0-9]{3})?']}",
            json!({"n": 4111111111111111_i64, "m": {"card": "4111111111111111"}, "k": 7}),
            json!({"n": "****", "m": "{\"card\":\"****\"}", "k": 7}),
        ),
        (
            "{allow_all_keys: true, blocked_key_patterns: ['.*token.*', 'api_key']}",
            json!({"my_token": "s", "api_key": 7, "n": "x", "token_lines": "a\nb"}),
            json!({"my_token": "****", "api_key": "****", "n": "x", "token_lines": "****\n****"}),
        ),
        (
            "{allow_all_keys: true, blocked_values: ['mycompany.com'], allowed_values: ['support.mycompany.com']}",
            json!({"a": "x@mycompany.com", "b": "x@support.mycompany.com"}),
            json!({"a": "x@****", "b": "x@support.mycompany.com"}),
        ),
        (
            "{allow_all_keys: true, blocked_key_patterns: [token], allowed_values: ['^ok$']}",
            json!({"token": "ok", "token2": "no"}),
            json!({"token": "ok", "token2": "****"}),
        ),
        (
            "{allow_all_keys: true, blocked_key_patterns: [token], ignored_keys: [token]}",
            json!({"token": "kept"}),
            json!({"token": "kept"}),
        ),
        // One pattern after the other, on what the one before left.
        (
            "{allow_all_keys: true, blocked_values: ['a+', '[*]{4}b']}",
            json!({"x": "aab"}),
            json!({"x": "****"}),
        ),
        (
            "{allow_all_keys: true, blocked_values: ['.*']}",
            json!({"x": "****", "n": 1}),
            json!({"x": "****", "n": "****"}),
        ),
    ] {
        let (_, got) = record(yaml, &Json::Null, &attributes);
        assert_eq!(got, text(&value(&want)), "{yaml}");
    }
}

#[test]
fn values_are_hashed_by_each_function() {
    // RFC 1321, FIPS 180-4 and FIPS 202 of "abc"; HMACs computed with OpenSSL.
    let key = "k".repeat(64);
    for (function, want) in [
        ("md5".to_owned(), "900150983cd24fb0d6963f7d28e17f72"),
        (
            "sha1".to_owned(),
            "a9993e364706816aba3e25717850c26c9cd0d89d",
        ),
        (
            "sha3".to_owned(),
            "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532",
        ),
        (format!("hmac-sha256, hmac_key: {key}"), HMAC_256),
        (format!("hmac-sha512, hmac_key: {key}"), HMAC_512),
    ] {
        let yaml =
            format!("{{allow_all_keys: true, blocked_values: [abc], hash_function: {function}}}");
        let (body, got) = record(&yaml, &json!("<abc>"), &json!({"a": "abc"}));
        assert_eq!(got, format!("{{\"a\":\"{want}\"}}"), "{function}");
        assert_eq!(body, format!("<{want}>"));
    }
}

const HMAC_256: &str = "ae0c0e4a2340cf50185eb46aaa8723f4769153661612e212fb0d1fa3170c6202";
const HMAC_512: &str = "22be598dd2e4425a27eaf71925dc97ec2feb2274e363300211c16d741451004d6888b3234fefe88410b1d50e645f6661ec931978fa3399d9c7fdf0aa905b9ac3";

#[test]
fn bodies_are_masked_wherever_the_value_is() {
    // source: contrib processor/redactionprocessor processor.go processLogBody, redactLogBodyRecursive
    let masks = "allow_all_keys: true, blocked_values: ['4[0-9]{15}']";
    for (yaml, body, want) in [
        (masks, json!("pan 4111111111111111."), json!("pan ****.")),
        (masks, json!(4111111111111111_i64), json!("****")),
        (masks, json!("none"), json!("none")),
        (
            masks,
            json!({"a": {"b": ["4111111111111111", 1]}, "c": 4111111111111111_i64}),
            json!({"a": {"b": ["****", 1]}, "c": "****"}),
        ),
        (
            "allowed_keys: [a, b]",
            json!({"a": {"b": 1, "x": 2}, "x": 3}),
            json!({"a": {"b": 1}}),
        ),
        (
            "allowed_keys: [a]",
            json!([{"a": 1, "x": 2}]),
            json!([{"a": 1}]),
        ),
        (
            "allowed_keys: [a]",
            json!("text stays"),
            json!("text stays"),
        ),
        (
            "allow_all_keys: true, blocked_key_patterns: [token]",
            json!({"token": {"deep": 1}, "l": [{"token": "x"}]}),
            json!({"token": "****", "l": [{"token": "****"}]}),
        ),
        (
            "allow_all_keys: true, ignored_keys: [raw], blocked_values: [x]",
            json!({"raw": "x", "cooked": "x"}),
            json!({"raw": "x", "cooked": "****"}),
        ),
        (
            "allow_all_keys: true, allowed_values: [ok], blocked_values: [x]",
            json!("x ok"),
            json!("x ok"),
        ),
    ] {
        let (got, _) = record(&format!("{{{yaml}}}"), &body, &json!({}));
        assert_eq!(got, text(&value(&want)), "{yaml}");
    }
}

#[test]
fn ready_made_patterns_are_masked_behind_the_values() {
    let yaml = "{allow_all_keys: true, patterns: [ipv4, email, card], blocked_values: [secret]}";
    let body =
        "secret of ann@example.com from 10.0.0.1:80, 4111 1111 1111 1111 not 4111 1111 1111 1112";
    let (got, _) = record(yaml, &json!(body), &json!({}));
    assert_eq!(
        got,
        "**** of **** from ****:80, **** not 4111 1111 1111 1112"
    );
}

#[test]
fn summaries_tell_numbers_and_keys_and_add_up() {
    // source: contrib processor/redactionprocessor processor.go addMetaAttrs, makeAllowList
    let rules =
        "allowed_keys: [a, b, ok], ignored_keys: [i], blocked_values: [x], allowed_values: [fine]";
    let attributes = json!({"b": "x", "a": "xx", "i": 1, "z": 1, "y": 2, "ok": "fine x"});
    let body = json!({"a": {"b": "x"}, "y": 1, "i": 2, "ok": "fine"});
    let info = json!({"a": "********", "b": "****", "i": 1, "ok": "fine x",
        "redaction.redacted.count": 2, "redaction.masked.count": 2, "redaction.allowed.count": 1,
        "redaction.ignored.count": 1, "redaction.body.redacted.count": 1, "redaction.body.masked.count": 1,
        "redaction.body.allowed.count": 1, "redaction.body.ignored.count": 1});
    let (_, got) = record(&format!("{{{rules}, summary: info}}"), &body, &attributes);
    assert_eq!(got, text(&value(&info)));
    let mut debug = info;
    for (key, keys) in [
        ("redaction.redacted.keys", "y,z"),
        ("redaction.masked.keys", "a,b"),
        ("redaction.allowed.keys", "ok"),
        ("redaction.body.redacted.keys", "y"),
        ("redaction.body.masked.keys", "a.b"),
        ("redaction.body.allowed.keys", "ok"),
    ] {
        debug[key] = json!(keys);
    }
    let yaml = format!("{{{rules}, summary: debug}}");
    let (_, got) = record(&yaml, &body, &attributes);
    assert_eq!(got, text(&value(&debug)));
    // What the first processor told stays behind a second one, which adds what it did itself.
    let again = "{allowed_keys: [a], summary: debug, blocked_values: ['[*]{8}']}";
    let (_, got) = record(again, &Json::Null, &serde_json::from_str(&got).unwrap());
    let got: Json = serde_json::from_str(&got).unwrap();
    assert_eq!(got["redaction.redacted.keys"], "b,i,ok,y,z");
    assert_eq!(got["redaction.redacted.count"], 5);
    assert_eq!(got["redaction.masked.keys"], "a,a,b");
    assert_eq!(got["redaction.masked.count"], 3);
    assert_eq!(got["redaction.body.masked.count"], 1);
}

#[test]
fn lists_in_bodies_are_told_by_position_and_single_values_as_body() {
    let yaml = "{allow_all_keys: true, blocked_values: [x], summary: debug}";
    for (body, want) in [
        (json!("x"), "body"),
        (json!(["a", {"k": ["x", "y"]}]), "[1].k.[0]"),
    ] {
        let (_, got) = record(yaml, &body, &json!({}));
        let got: Json = serde_json::from_str(&got).unwrap();
        assert_eq!(got["redaction.body.masked.keys"], want);
        assert_eq!(got["redaction.body.masked.count"], 1);
    }
}

/// Guarantees the same in each form that a column has, that rows stay apart, and that resource and scope
/// are redacted, too.
#[test]
fn columns_of_every_form_are_redacted_row_by_row() {
    let text = Bytes::from_static(b"plain x-ray");
    let mut logs = LogsBatch::from_lines(text, &[(0, 5), (6, 5), (0, 5)]);
    logs.attributes.set("const", Column::Const("x".into()));
    let dict = Column::dict(vec![0, 1, 255], vec!["x".into(), "y".into()]);
    logs.attributes.set("dict", dict);
    let cell = logs.cell(&"an x".into());
    logs.set_attribute(1, "cells", cell);
    logs.set_attribute(2, "cells", tailwater_pdata::Cell::Int(3));
    let slices = [(0, 5), (6, 1)].map(|(at, len)| tailwater_pdata::Slice::shared(at, len));
    let slices = vec![slices[0], tailwater_pdata::Slice::ABSENT, slices[1]];
    logs.attributes.set("slices", Column::Slices(slices));
    logs.resource = Arc::new(map(&[("host", "x".into())]));
    logs.scope = Arc::new(Scope {
        attributes: map(&[("s", "x".into())]),
        ..Scope::default()
    });
    let yaml = "{allow_all_keys: true, blocked_values: [x], summary: info}";
    let Some(Payload::Logs(logs)) = run(yaml, logs).pop() else {
        panic!("records")
    };
    let rows: Vec<String> = logs
        .to_entries()
        .iter()
        .map(|e| {
            format!(
                "{} {}",
                super::tests::text(&e.body),
                super::tests::text(&Value::Map(e.attributes.clone()))
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            r#"plain {"const":"****","dict":"****","redaction.masked.count":2,"slices":"plain"}"#,
            r#"****-ray {"cells":"an ****","const":"****","dict":"y","redaction.body.masked.count":1,"redaction.masked.count":2}"#,
            r#"plain {"cells":3,"const":"****","redaction.masked.count":2,"slices":"****"}"#,
        ]
    );
    let told = map(&[
        ("host", "****".into()),
        ("redaction.masked.count", 1.into()),
    ]);
    assert_eq!(*logs.resource, told);
    let told = map(&[("s", "****".into()), ("redaction.masked.count", 1.into())]);
    assert_eq!(logs.scope.attributes, told);
}

/// Guarantees that a resource which batches share is looked at once, and stays shared.
#[test]
fn a_shared_resource_stays_shared() {
    let (rules, _) = decode_rules("{allow_all_keys: true, blocked_values: [x]}").unwrap();
    let mut processor = RedactionProcessor::new(rules, None);
    let resource = Arc::new(map(&[("host", "x".into())]));
    let mut out = Out::default();
    for _ in 0..3 {
        let mut logs = LogsBatch::from_lines(Bytes::from_static(b"a"), &[(0, 1)]);
        logs.resource = resource.clone();
        let part = Part {
            data: logs.into(),
            ack: AckToken::detached(),
            permit: Permit::none(),
        };
        processor.process(Batch::of(part), &mut out);
    }
    let resources: Vec<Arc<Map>> = out
        .0
        .drain(..)
        .map(|part| {
            part.ack.resolve(Outcome::Delivered);
            let Payload::Logs(logs) = part.data else {
                panic!("records")
            };
            logs.resource
        })
        .collect();
    assert_eq!(*resources[0], map(&[("host", "****".into())]));
    assert!(resources.iter().all(|r| Arc::ptr_eq(r, &resources[0])));
}

fn encoded(signal: Signal, body: &Json) -> Encoded {
    let text = body.to_string();
    let body = otlp_json::to_proto(signal, text.as_bytes(), &Limits::default()).unwrap();
    Encoded::parse(signal, body, &Limits::default()).unwrap()
}

fn as_json(mut left: Vec<Payload>) -> Json {
    let Some(Payload::Encoded(encoded)) = left.pop() else {
        panic!("it stays encoded")
    };
    let mut text = Vec::new();
    otlp_json::from_proto(encoded.signal(), &encoded.body(), &mut text).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// A list of attributes of texts.
fn list(pairs: &[(&str, &str)]) -> Json {
    let pair = |(key, value): &(&str, &str)| json!({"key": key, "value": {"stringValue": value}});
    pairs.iter().map(pair).collect()
}

fn spans(of: impl Fn(&str) -> Json) -> Json {
    json!({"resourceSpans": [{"resource": {"attributes": of("r")}, "scopeSpans": [{
        "scope": {"name": "lib", "attributes": of("s")}, "spans": [{"name": "GET x", "traceId": "000102030405060708090a0b0c0d0e0f",
            "attributes": of("a"),
            "events": [{"name": "e", "attributes": of("e")}, {"name": "f"}],
            "links": [{"traceId": "100102030405060708090a0b0c0d0e0f", "attributes": of("l")}],
            "status": {"message": "x"}}]}]}]})
}

/// Guarantees that all lists of attributes of a trace are redacted, and nothing else of it.
#[test]
fn spans_events_and_links_are_redacted() {
    let before = spans(|key| list(&[(key, "an x"), ("other", "y")]));
    let want = spans(|key| list(&[(key, "an ****"), ("other", "y")]));
    let rules = "{allow_all_keys: true, blocked_values: [x]}";
    let got = as_json(run(rules, encoded(Signal::Traces, &before)));
    assert_eq!(got, as_json(vec![encoded(Signal::Traces, &want).into()]));
    let got = as_json(run(
        "{allowed_keys: [other]}",
        encoded(Signal::Traces, &before),
    ));
    let want = spans(|_| list(&[("other", "y")]));
    assert_eq!(got, as_json(vec![encoded(Signal::Traces, &want).into()]));
}

/// Guarantees the same for points of every kind and their exemplars.
#[test]
fn points_and_exemplars_are_redacted() {
    let metrics = |of: &dyn Fn(&str) -> Json| {
        let exemplars = || json!([{"asDouble": 1.0, "filteredAttributes": of("x")}]);
        let number = || json!({"dataPoints": [{"asDouble": 1.0, "attributes": of("p"), "exemplars": exemplars()}]});
        let histogram = || json!({"dataPoints": [{"attributes": of("p"), "exemplars": exemplars()}], "aggregationTemporality": 2});
        json!({"resourceMetrics": [{"resource": {"attributes": of("r")}, "scopeMetrics": [{"scope": {"attributes": of("s")}, "metrics": [
            {"name": "g", "gauge": number()}, {"name": "c", "sum": number()}, {"name": "h", "histogram": histogram()},
            {"name": "e", "exponentialHistogram": histogram()},
            {"name": "q", "summary": {"dataPoints": [{"attributes": of("p")}]}}]}]}]})
    };
    let before = metrics(&|key| list(&[(key, "an x")]));
    let want = metrics(&|key| list(&[(key, "an ****")]));
    let rules = "{allow_all_keys: true, blocked_values: [x]}";
    let got = as_json(run(rules, encoded(Signal::Metrics, &before)));
    assert_eq!(got, as_json(vec![encoded(Signal::Metrics, &want).into()]));
}

/// Guarantees that what is not touched keeps its bytes, and that a key that comes twice hides nothing.
#[test]
fn lists_without_a_find_keep_their_bytes_and_twins_hide_nothing() {
    let rules = "{allow_all_keys: true, blocked_values: [x]}";
    let clean = encoded(Signal::Traces, &spans(|key| list(&[(key, "clean")])));
    let Some(Payload::Encoded(after)) = run(rules, clean.clone()).pop() else {
        panic!("it stays encoded")
    };
    assert_eq!(after, clean);
    let twice = spans(|key| list(&[(key, "x"), (key, "clean")]));
    let got = as_json(run(rules, encoded(Signal::Traces, &twice)));
    let want = spans(|key| list(&[(key, "clean")]));
    assert_eq!(got, as_json(vec![encoded(Signal::Traces, &want).into()]));
}

#[test]
fn log_records_that_came_by_otlp_are_redacted() {
    let request = json!({"resourceLogs": [{"resource": {"attributes": list(&[("r", "x")])}, "scopeLogs": [{"logRecords": [
        {"body": {"stringValue": "an x"}, "attributes": list(&[("a", "x")])}]}]}]});
    let left = run(
        "{allow_all_keys: true, blocked_values: [x]}",
        encoded(Signal::Logs, &request),
    );
    let [Payload::Logs(logs)] = &left[..] else {
        panic!("one batch of records")
    };
    let entry = logs.entry(0);
    assert_eq!(entry.body, "an ****".into());
    assert_eq!(entry.attributes, map(&[("a", "****".into())]));
    assert_eq!(entry.resource, map(&[("r", "****".into())]));
}

#[test]
fn mistakes_are_errors_that_say_where_and_what_is_allowed() {
    for (yaml, want) in [
        (
            "blocked_values: ['(']",
            "a.yaml:1:18: processors::redaction::blocked_values::0: is not a valid regular expression",
        ),
        (
            "{allow_all_keys: true, patterns: [emial]}",
            "did you mean \"email\"?",
        ),
        ("patterns: [email, email]", "\"email\" is there twice"),
        ("hash_function: sha256", "md5"),
        (
            "hash_function: hmac-sha256",
            "hmac-sha256 needs an hmac_key of 32 bytes at least",
        ),
        (
            "{hash_function: hmac-sha512, hmac_key: short}",
            "hmac-sha512 needs an hmac_key of 64 bytes at least",
        ),
        (
            "{hash_function: md5, hmac_key: x}",
            "is used with hash_function hmac-sha256 or hmac-sha512 only",
        ),
        ("summary: verbose", "debug"),
        (
            "url_sanitizer: {enabled: true}",
            "url_sanitizer: is not supported",
        ),
        (
            "db_sanitizer: {sql: {enabled: true}}",
            "db_sanitizer: is not supported",
        ),
        ("skip_conditions: []", "skip_conditions: is not supported"),
        ("allowed_key: [a]", "unknown option \"allowed_key\""),
    ] {
        let error = decode_rules(yaml).err().unwrap_or_default();
        assert!(error.contains(want), "{yaml}: {error}");
    }
    let secret = decode_rules("{hash_function: hmac-sha256, hmac_key: hunter2}")
        .err()
        .unwrap();
    assert!(!secret.contains("hunter2"), "{secret}");
}

#[test]
fn rules_that_remove_everything_warn_and_those_that_do_nothing_are_idle() {
    let (_, warnings) = decode_rules("patterns: [email]").unwrap();
    assert!(warnings[0].contains("every attribute"), "{warnings:?}");
    let (rules, warnings) = decode_rules("allow_all_keys: true").unwrap();
    assert!(warnings.is_empty() && rules.is_idle());
    for yaml in [
        "allowed_keys: [a]",
        "{allow_all_keys: true, patterns: [email]}",
        "{allow_all_keys: true, ignored_keys: [a], summary: info}",
    ] {
        assert!(!decode_rules(yaml).unwrap().0.is_idle(), "{yaml}");
    }
}

/// Guarantees that a pattern which matches everywhere cannot make data many times as large.
#[test]
fn masks_do_not_make_text_many_times_as_long() {
    let key = "k".repeat(64);
    let yaml = format!(
        "{{allow_all_keys: true, blocked_values: ['.'], blocked_key_patterns: [k], hash_function: hmac-sha512, hmac_key: {key}}}"
    );
    let long = "a\n".repeat(20_000);
    let (body, attributes) = record(&yaml, &json!(long), &json!({"k": long}));
    assert_eq!(body.len(), 128);
    assert_eq!(attributes.len(), 128 + r#"{"k":""}"#.len());
}

proptest! {
    /// Guarantees that nothing that is blocked is left, in any form of value, whatever is around it.
    #[test]
    fn nothing_blocked_is_left(parts in proptest::collection::vec("[a-wy-z \\n]{0,8}|x+", 1..6), nest in 0usize..4) {
        let joined = parts.concat();
        let mut body = json!(joined);
        for i in 0..nest {
            body = match i % 2 { 0 => json!({"k": body, "n": i}), _ => json!([body, joined]) };
        }
        let yaml = "{allow_all_keys: true, redact_all_types: true, blocked_values: ['x+']}";
        let (got, attributes) = record(yaml, &body, &json!({"a": body}));
        prop_assert!(!got.contains('x') && !attributes.contains('x'), "{got} {attributes}");
        prop_assert_eq!(got.matches("****").count() > 0, joined.contains('x'));
    }
}
