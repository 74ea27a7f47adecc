//! What becomes of spans, events, metrics and points. Examples of the documentation of the collector's
//! processor and of its users, restated.

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use tailwater_pdata::otlp::samples::Dice;
use tailwater_pdata::otlp::{Limits, json as otlp_json};

use super::metrics::{NEW, metrics};
use super::spans::{CHILD, SPAN, traces};
use super::{Out, Told, decode};
use crate::transform::*;
use std::sync::Arc;
use tailwater_pipeline::Permit;

pub(super) fn encoded(signal: Signal, json: &Json) -> Encoded {
    let text = json.to_string();
    let body = otlp_json::to_proto(signal, text.as_bytes(), &Limits::default()).unwrap();
    Encoded::parse(signal, body, &Limits::default()).unwrap()
}

/// What is left of a request, and what its source is told.
pub(super) fn run(yaml: &str, request: Encoded) -> (Option<Encoded>, (Outcome, u32)) {
    let settings = decode(yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"));
    let mut processor = TransformProcessor::new(settings);
    let told = Arc::new(Told::default());
    let part = Part {
        data: request.into(),
        ack: AckToken::new(told.clone(), 0),
        permit: Permit::none(),
    };
    let mut out = Out::default();
    processor.process(Batch::of(part), &mut out);
    let mut left = None;
    for part in out.0.into_iter().flat_map(|b| b.parts) {
        part.ack.resolve(Outcome::Delivered);
        let Payload::Encoded(encoded) = part.data else {
            panic!("it stays encoded");
        };
        left = Some(encoded);
    }
    let settled = told.0.lock().unwrap().pop();
    (left, settled.expect("the duty is settled once"))
}

/// The same as JSON.
pub(super) fn changed(signal: Signal, yaml: &str, request: &Json) -> Json {
    let (left, told) = run(yaml, encoded(signal, request));
    assert_eq!(told, (Outcome::Delivered, 0), "{yaml}");
    let left = left.unwrap();
    let mut text = Vec::new();
    otlp_json::from_proto(signal, &left.body(), &mut text).unwrap();
    let items = Encoded::parse(signal, left.body(), &Limits::default()).unwrap();
    assert_eq!(items.items(), left.items(), "{yaml}");
    serde_json::from_slice(&text).unwrap()
}

pub(super) fn statements(key: &str, context: &str, statements: &[&str]) -> String {
    let list: Vec<Json> = statements.iter().map(|s| json!(s)).collect();
    let group = json!([{"context": context, "statements": list}]);
    json!({"error_mode": "propagate", key: group}).to_string()
}

pub(super) fn attributes(pairs: &[(&str, &str)]) -> Json {
    let pair = |(key, value): &(&str, &str)| json!({"key": key, "value": {"stringValue": value}});
    pairs.iter().map(pair).collect()
}

/// Statements of a context, where to look then, and what is there; null if nothing is.
pub(super) type Row<'r> = (&'r str, &'r [&'r str], (&'r str, &'r str), Json);

/// The same with whole doubles as the numbers they are.
fn plain(json: &Json) -> Json {
    match json {
        Json::Number(n) => json!(n.as_f64()),
        Json::Array(items) => items.iter().map(plain).collect(),
        Json::Object(map) => map.iter().map(|(k, v)| (k.clone(), plain(v))).collect(),
        other => other.clone(),
    }
}

pub(super) fn check(key: &str, signal: Signal, request: &Json, table: &[Row<'_>]) {
    for (context, list, (place, rest), want) in table {
        let yaml = statements(key, context, list);
        let got = changed(signal, &yaml, request);
        let got = got.pointer(&format!("{place}{rest}"));
        let got = got.unwrap_or(&Json::Null);
        assert_eq!(plain(got), plain(want), "{yaml}");
    }
}

/// Guarantee: paths and editors say what a group is about, conditions hold it back, and each of its modes
/// does to spans and metrics what it does to log records.
#[test]
fn groups_have_contexts_conditions_and_modes_here_too() {
    let inferred = r#"
trace_statements:
  - set(span.attributes["event"], spanevent.name) where spanevent.name == "exception"
  - set(resource.attributes["seen"], true)
"#;
    let got = changed(Signal::Traces, inferred, &traces());
    let value = got.pointer(&format!("{SPAN}/attributes/2/value/stringValue"));
    assert_eq!(value, Some(&json!("exception")));
    let conditions = r#"
trace_statements:
  - conditions: ['span.kind == SPAN_KIND_SERVER']
    statements: ['set(span.name, "server")']
  - context: span
    error_mode: ignore
    statements: ['set(attributes["x"], 1 + attributes["none"])', 'set(attributes["y"], "z")']
"#;
    let got = changed(Signal::Traces, conditions, &traces());
    let name = |span: &str| got.pointer(&format!("{span}/name")).cloned();
    assert_eq!(
        (name(SPAN), name(CHILD)),
        (Some(json!("server")), Some(json!("child")))
    );
    let value = got.pointer(&format!("{CHILD}/attributes/0/value/stringValue"));
    assert_eq!(value, Some(&json!("z")));
    let editors = r#"metric_statements: ["convert_sum_to_gauge()", "extract_sum_metric(true) where metric.type == METRIC_DATA_TYPE_HISTOGRAM"]"#;
    let got = changed(Signal::Metrics, editors, &metrics());
    assert_eq!(
        got.pointer(&format!("{NEW}/name")),
        Some(&json!("latency_sum"))
    );
    for (mode, want) in [
        ("ignore", (true, Outcome::Delivered, 0)),
        ("silent", (true, Outcome::Delivered, 0)),
        ("propagate", (false, Outcome::Refused, 2)),
    ] {
        let yaml = format!(
            r#"{{error_mode: {mode}, trace_statements: ['set(span.name, ParseJSON(span.name)["a"])']}}"#
        );
        let (left, (outcome, dropped)) = run(&yaml, encoded(Signal::Traces, &traces()));
        assert_eq!((left.is_some(), outcome, dropped), want, "{mode}");
    }
}

#[test]
fn what_cannot_be_done_to_a_metric_is_an_error() {
    for (statement, context) in [
        ("extract_sum_metric(true)", "metric"),
        ("extract_count_metric(true) where name == \"cpu\"", "metric"),
        ("scale_metric(2.0) where name == \"exp\"", "metric"),
        (
            "aggregate_on_attributes(\"sum\") where name == \"rpc\"",
            "metric",
        ),
        ("set(kind.string, \"no kind\")", "span"),
        ("set(trace_id.string, \"00\")", "span"),
        ("set(dropped_events_count, 0 - 1)", "span"),
        ("set(bucket_counts, [1.5])", "datapoint"),
    ] {
        let (key, signal, request) = match context {
            "span" => ("trace_statements", Signal::Traces, traces()),
            _ => ("metric_statements", Signal::Metrics, metrics()),
        };
        let yaml = statements(key, context, &[statement]);
        let (left, (outcome, _)) = run(&yaml, encoded(signal, &request));
        assert_eq!((left, outcome), (None, Outcome::Refused), "{statement}");
    }
}

/// Guarantee: a statement that adds a metric for each, those it added included, comes to an end, is told,
/// and loses nothing.
#[test]
fn metrics_are_not_added_without_end() {
    let settings = decode("metric_statements: ['copy_metric(name=\"again\")']").unwrap();
    let mut report = Report::uncounted();
    let mut request = encoded(Signal::Metrics, &metrics());
    let before = request.items();
    change(&settings.metrics, &mut request, 0, &mut report);
    assert!(report.errors() > 0);
    assert!(request.items() > before);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// Guarantee: whatever a request is, statements end, what comes out is a request with as many spans as
    /// there were, and statements that hold for nothing change nothing.
    #[test]
    fn any_request_stays_a_request(dice in prop::collection::vec(any::<u8>(), 0..600), pick in 0..16usize) {
        let mut dice = Dice::new(&dice);
        let all = [
            ("span", "flatten(attributes)"), ("span", "stringify_all(attributes)"),
            ("span", r#"set(attributes["m"]["n"], attributes)"#), ("span", "set(trace_state, trace_id.string)"),
            ("spanevent", r#"merge_maps(attributes, resource.attributes, "upsert")"#),
            ("spanevent", "set(span.status.message, name)"), ("scope", "set(schema_url, name)"),
            ("resource", r#"set(attributes["a"], [1, {"b": nil}])"#),
            ("metric", "convert_sum_to_gauge()"), ("metric", r#"convert_gauge_to_sum("delta", true)"#),
            ("metric", r#"aggregate_on_attributes("sum")"#), ("metric", "scale_metric(-1.5)"),
            ("metric", "extract_count_metric(true) where type != 2"), ("metric", "set(unit, name)"),
            ("datapoint", "set(bucket_counts, [1, 2])"), ("datapoint", r#"set(metric.metadata["k"], sum)"#),
        ];
        let (context, statement) = all[pick];
        let (key, signal, body) = match context {
            "metric" | "datapoint" => ("metric_statements", Signal::Metrics, {
                use prost::Message as _;
                dice.metrics().encode_to_vec()
            }),
            _ => ("trace_statements", Signal::Traces, {
                use prost::Message as _;
                dice.traces().encode_to_vec()
            }),
        };
        let request = Encoded::parse(signal, body.into(), &Limits::default()).unwrap();
        let mut report = Report::uncounted();
        let mut changing = |statement: &str| {
            let yaml = json!({key: [{"context": context, "statements": [statement]}]}).to_string();
            let settings = decode(&yaml).unwrap();
            let mut changed = request.clone();
            change(settings.groups(signal), &mut changed, 1, &mut report);
            changed
        };
        let changed = changing(statement);
        let again = Encoded::parse(signal, changed.body(), &Limits::default()).unwrap();
        prop_assert_eq!(again.items(), changed.items());
        prop_assert!(signal == Signal::Metrics || changed.items() == request.items());
        let never = statement.split(" where ").next().unwrap();
        prop_assert_eq!(changing(&format!("{never} where 1 == 2")), request);
    }
}

/// Statements about whatever there may be, of which most can be compiled in some context.
fn statement() -> impl Strategy<Value = String> {
    let paths = [
        "attributes",
        "attributes[\"a\"]",
        "attributes[\"a\"][\"b\"]",
        "attributes[\"a\"][0]",
        "cache",
        "cache[\"c\"]",
        "resource.attributes",
        "resource.attributes[\"service.name\"]",
        "resource.schema_url",
        "resource.dropped_attributes_count",
        "scope.name",
        "scope.version",
        "scope.attributes[\"a\"]",
        "scope.schema_url",
        "name",
        "kind",
        "kind.string",
        "status.code",
        "status.message",
        "trace_id",
        "trace_id.string",
        "span_id",
        "parent_span_id.string",
        "trace_state",
        "start_time",
        "end_time",
        "start_time_unix_nano",
        "time",
        "time_unix_nano",
        "flags",
        "dropped_attributes_count",
        "dropped_events_count",
        "span.name",
        "span.attributes",
        "event_index",
        "description",
        "unit",
        "type",
        "aggregation_temporality",
        "is_monotonic",
        "metadata",
        "metadata[\"m\"]",
        "metric.name",
        "metric.aggregation_temporality",
        "value_int",
        "value_double",
        "count",
        "sum",
        "bucket_counts",
        "explicit_bounds",
        "scale",
        "zero_count",
        "positive.offset",
        "positive.bucket_counts",
        "negative.bucket_counts",
    ];
    let literals = [
        "1",
        "-1",
        "1.5",
        "true",
        "nil",
        "\"a\"",
        "\"Server\"",
        "[1, 2]",
        "[1.5]",
        "{\"a\": [1]}",
        "0x0102030405060708",
        "Now()",
        "UUID()",
        "SPAN_KIND_CLIENT",
        "9223372036854775807",
    ];
    let value = prop_oneof![
        prop::sample::select(paths.to_vec()),
        prop::sample::select(literals.to_vec())
    ];
    let path = prop::sample::select(paths.to_vec());
    let editors = prop::sample::select(vec![
        "set(@, #)",
        "set(@, #)",
        "set(@, #)",
        "merge_maps(@, #, \"upsert\")",
        "delete_key(@, \"a\")",
        "keep_keys(@, [\"a\", #])",
        "delete_matching_keys(@, \"a\")",
        "append(@, #)",
        "delete_index(@, 0)",
        "truncate_all(@, 2)",
        "limit(@, 1, [])",
        "flatten(@)",
        "stringify_all(@)",
        "replace_pattern(@, \"[a-z]\", \"$0$0\")",
        "replace_all_patterns(@, \"key\", \"a\", \"b\")",
        "convert_sum_to_gauge()",
        "convert_gauge_to_sum(\"delta\", true)",
        "copy_metric(unit=\"1\")",
        "extract_count_metric(true)",
        "extract_sum_metric(false)",
        "scale_metric(0.5)",
        "convert_summary_quantile_val_to_gauge()",
        "convert_summary_sum_val_to_sum(\"delta\", true)",
        "aggregate_on_attributes(\"min\", [])",
        "merge_histogram_buckets(0.1)",
    ]);
    (editors, path, value.clone(), prop::option::of(value)).prop_map(
        |(editor, path, value, condition)| {
            let statement = editor.replace('@', path).replace('#', value);
            match condition {
                Some(value) => format!("{statement} where {value} != nil"),
                None => statement,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    /// Guarantee: what can be compiled in a context can be carried out there on any request, and what
    /// comes out is a request; spans do not come or go.
    #[test]
    fn any_statement_leaves_a_request(
        statements in prop::collection::vec(statement(), 1..4),
        dice in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let mut dice = Dice::new(&dice);
        let bodies = [
            (TRACES, Signal::Traces, prost::Message::encode_to_vec(&dice.traces())),
            (METRICS, Signal::Metrics, prost::Message::encode_to_vec(&dice.metrics())),
        ];
        for (contexts, signal, body) in bodies {
            let whole = Encoded::parse(signal, body.into(), &Limits::default()).unwrap();
            for &context in contexts {
                let options = tailwater_ottl::Options { context, prefixed: false, encoded: false };
                let compiled = statements.iter().filter_map(|text| tailwater_ottl::Statement::compile(text, options).ok());
                let group = StatementGroup {
                    context,
                    mode: crate::ottl::ErrorMode::Ignore,
                    conditions: Vec::new(),
                    statements: compiled.collect(),
                };
                if group.statements.is_empty() {
                    continue;
                }
                let mut changed = whole.clone();
                change(&[group], &mut changed, 1, &mut Report::uncounted());
                let again = Encoded::parse(signal, changed.body(), &Limits::default());
                let again = again.unwrap_or_else(|e| panic!("{statements:?} in {context:?}: {e}"));
                prop_assert_eq!(again.items(), changed.items());
                prop_assert!(signal == Signal::Metrics || again.items() == whole.items());
            }
        }
    }
}
