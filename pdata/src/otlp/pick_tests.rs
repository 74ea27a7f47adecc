//! Single items, against what cutting and writing the whole give.

use proptest::prelude::*;
use prost::Message;
use serde_json::{Map, Value, json};

use super::samples::Dice;
use super::tests::{len, log};
use super::*;
use crate::{Column, LogsBatch, Signal, Slice, Text};

const ALL: PickLimits = PickLimits {
    text_bytes: usize::MAX,
    bytes: usize::MAX,
};

fn parse(signal: Signal, body: Vec<u8>) -> Encoded {
    Encoded::parse(signal, body.into(), &Limits::default()).expect("a request")
}

fn shown(picked: &Picked) -> Value {
    let mut out = b"{".to_vec();
    picked.write_json(&mut out);
    out.push(b'}');
    let text = String::from_utf8(out).expect("text");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn list(value: &Value, key: &str) -> Vec<Value> {
    value[key].as_array().cloned().unwrap_or_default()
}

/// Whether a metric has a point, whatever it is of.
fn has_point(metric: &Value) -> bool {
    let all = metric.as_object().into_iter().flat_map(Map::values);
    all.into_iter()
        .any(|data| !list(data, "dataPoints").is_empty())
}

/// The one item of a request in JSON as [`Picked::write_json`] gives it.
fn alone(signal: Signal, request: &Value) -> Value {
    let (resources, scopes, items, name) = match signal {
        Signal::Logs => ("resourceLogs", "scopeLogs", "logRecords", "logRecord"),
        Signal::Metrics => ("resourceMetrics", "scopeMetrics", "metrics", "metric"),
        Signal::Traces => ("resourceSpans", "scopeSpans", "spans", "span"),
    };
    let mut found = Vec::new();
    for resource in list(request, resources) {
        for scope in list(&resource, scopes) {
            for item in list(&scope, items) {
                if signal == Signal::Metrics && !has_point(&item) {
                    continue;
                }
                let or_empty = |v: &Value| if v.is_null() { json!({}) } else { v.clone() };
                let mut one = json!({
                    "resource": or_empty(&resource["resource"]),
                    "scope": or_empty(&scope["scope"]),
                    name: item,
                });
                for (key, around) in [("resourceSchemaUrl", &resource), ("scopeSchemaUrl", &scope)]
                {
                    if !around["schemaUrl"].is_null() {
                        one[key] = around["schemaUrl"].clone();
                    }
                }
                found.push(one);
            }
        }
    }
    assert_eq!(found.len(), 1, "{request:#}");
    found.remove(0)
}

fn each_is_as_if_cut_out(whole: &Encoded) {
    let all: Vec<usize> = (0..whole.items()).collect();
    let picked = whole.pick(&all, ALL);
    assert_eq!(picked.len(), whole.items());
    for (i, picked) in picked.iter().enumerate() {
        let mut rest = whole.clone();
        let mut one = rest.split_off(i);
        if i == 0 {
            one = whole.clone();
        }
        let _ = one.split_off(1);
        let mut json = Vec::new();
        one.write_json(&mut json);
        let request = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(shown(picked), alone(whole.signal(), &request), "item {i}");
        assert!(!picked.is_cut());
        let again = whole.pick(&[i], ALL);
        assert_eq!(shown(&again[0]), shown(picked));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Guarantee: each item is found by its number, with its resource and its scope.
    #[test]
    fn each_item_is_picked_as_it_is(dice in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut dice = Dice::new(&dice);
        for (signal, body, more) in [
            (Signal::Traces, dice.traces().encode_to_vec(), dice.traces().encode_to_vec()),
            (Signal::Logs, dice.logs().encode_to_vec(), dice.logs().encode_to_vec()),
            (Signal::Metrics, dice.metrics().encode_to_vec(), dice.metrics().encode_to_vec()),
        ] {
            let mut whole = parse(signal, body);
            whole.append(parse(signal, more));
            each_is_as_if_cut_out(&whole);
        }
    }

    /// Guarantee: whatever the limits, what is kept is JSON in proportion to them, and says if it is
    /// not all.
    #[test]
    fn what_is_too_much_is_cut(
        dice in prop::collection::vec(any::<u8>(), 0..600),
        text_bytes in 0..40usize,
        bytes in 0..400usize,
    ) {
        let mut dice = Dice::new(&dice);
        for (signal, body) in [
            (Signal::Traces, dice.traces().encode_to_vec()),
            (Signal::Logs, dice.logs().encode_to_vec()),
            (Signal::Metrics, dice.metrics().encode_to_vec()),
        ] {
            let whole = parse(signal, body);
            let all: Vec<usize> = (0..whole.items()).collect();
            let full = whole.pick(&all, ALL);
            for (cut, full) in whole.pick(&all, PickLimits { text_bytes, bytes }).iter().zip(&full) {
                let differs = shown(cut) != shown(full);
                prop_assert!(!differs || cut.is_cut());
                let json = shown(cut).to_string().len();
                prop_assert!(json < 400 + 40 * bytes, "{json} of {bytes}");
            }
        }
    }
}

/// Guarantee: of a metric with two kinds of data the last one counts, also where it comes in pieces.
#[test]
fn points_are_those_that_count() {
    let point = |n: u8| len(1, &[0x31, n, 0, 0, 0, 0, 0, 0, 0]);
    let gauge = |n: u8| len(5, &point(n));
    let sum = |n: u8| len(7, &[&[0x10, 2][..], &point(n)].concat());
    let metric = [len(1, b"m"), gauge(1), sum(2), sum(3)].concat();
    let body = len(1, &len(2, &len(2, &metric)));
    let whole = parse(Signal::Metrics, body);
    assert_eq!(whole.items(), 2);
    let picked = whole.pick(&[1, 7], ALL);
    assert_eq!(picked.len(), 1);
    let metric = &shown(&picked[0])["metric"];
    assert_eq!(metric["sum"]["dataPoints"], json!([{"asInt": "3"}]));
    assert_eq!(metric["sum"]["aggregationTemporality"], 2);
    assert!(metric["gauge"].is_null());
}

/// Guarantee: a text is cut between characters, with a mark, and the rest stays.
#[test]
fn long_texts_are_cut_with_a_mark() {
    let body = len(5, &len(1, "ab\u{e9}cd".as_bytes()));
    let record = [body, len(3, b"INFO")].concat();
    let whole = parse(Signal::Logs, log(&record));
    let limits = PickLimits {
        text_bytes: 3,
        bytes: 1000,
    };
    let picked = &whole.pick(&[0], limits)[0];
    assert!(picked.is_cut());
    let record = &shown(picked)["logRecord"];
    assert_eq!(record["body"]["stringValue"], "ab\u{2026}");
    assert_eq!(record["severityText"], "INF\u{2026}");
}

/// Guarantee: a few rows of a batch are the same as those rows of all of it, also if rows have resources
/// of their own.
#[test]
fn rows_are_encoded_alone_as_they_are_together() {
    let slices = vec![
        Slice::shared(0, 1),
        Slice::shared(1, 1),
        Slice::shared(2, 1),
    ];
    let mut batch = LogsBatch::from_slices(Text::new("abc".into()), slices);
    batch.attributes.set("all", Column::Const("v".into()));
    let dict = Column::dict(vec![0, 255, 1], vec!["x".into(), "y".into()]);
    batch.attributes.set("some", dict);
    let mut rows_resources = batch.clone();
    let cell = rows_resources.cell(&"h".into());
    rows_resources.set_resource_attribute(1, "host", cell);
    for batch in [batch, rows_resources] {
        let whole = Encoded::from_logs([&batch]);
        for row in 0..3 {
            let one = Encoded::from_rows(&batch, &[row]);
            assert_eq!(one.items(), 1);
            let picked = &one.pick(&[0], ALL)[0];
            let body = shown(picked)["logRecord"]["body"].clone();
            assert_eq!(body["stringValue"], ["a", "b", "c"][row]);
            let all = whole.pick(&[0, 1, 2], ALL);
            let same = all.iter().filter(|p| shown(p) == shown(picked));
            assert_eq!(same.count(), 1, "row {row}");
        }
    }
}
