//! Guarantee: `attributes` and `resource` change what came as OTLP, of any signal, where they are
//! asked to, and leave every other byte as it was.

use tailwater_config::{Errors, Section, parse};
use tailwater_pdata::otlp::edit::{Attributes, Edit, View};
use tailwater_pdata::otlp::{Encoded, Limits, decode_logs, json};
use tailwater_pdata::{LogsBatch, Signal};
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{AckToken, Batch, Outcome, Output, Part, Payload, Permit, Processor};
use tailwater_processors::attributes::{AttributesConfig, AttributesProcessor};
use tailwater_processors::resource::{ResourceProcessor, ResourceSettings};

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

const TRACES: &str = r#"{"resourceSpans":[
{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},"scopeSpans":[{"scope":{"name":"lib","version":"1.2"},"spans":[
{"name":"GET /a","kind":2,"attributes":[{"key":"n","value":{"intValue":"7"}}]},
{"name":"job","kind":1}]}]},
{"scopeSpans":[{"scope":{"name":"other"},"spans":[{"name":"GET /b","kind":3}]}]}]}"#;

const METRICS: &str = r#"{"resourceMetrics":[
{"resource":{"attributes":[{"key":"host","value":{"stringValue":"h1"}}]},"scopeMetrics":[{"metrics":[
{"name":"g1","gauge":{"dataPoints":[{"asInt":"1"},{"asInt":"2"}]}},
{"name":"s1","sum":{"dataPoints":[{"asDouble":3}],"aggregationTemporality":2,"isMonotonic":true}},
{"name":"h1","histogram":{"dataPoints":[{"count":"1","sum":1}]}},
{"name":"e1","exponentialHistogram":{"dataPoints":[{"count":"1"}]}},
{"name":"q1","summary":{"dataPoints":[{"count":"1"}]}}]}]},
{"scopeMetrics":[{"metrics":[{"name":"g1","gauge":{"dataPoints":[{"asInt":"4"}]}}]}]}]}"#;

const LOGS: &str = r#"{"resourceLogs":[
{"resource":{"attributes":[{"key":"host","value":{"stringValue":"h1"}}]},"scopeLogs":[{"scope":{"name":"lib"},"logRecords":[
{"severityNumber":9,"severityText":"info","body":{"stringValue":"AUTH ok"},"attributes":[{"key":"n","value":{"intValue":"7"}}]},
{"severityNumber":17,"body":{"stringValue":"failed"}},
{"body":{"intValue":"1"}}]}]},
{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"AUTH"}}]}]}]}"#;

fn request(signal: Signal) -> Encoded {
    let text = match signal {
        Signal::Logs => LOGS,
        Signal::Metrics => METRICS,
        Signal::Traces => TRACES,
    };
    let body = json::to_proto(signal, text.as_bytes(), &Limits::default()).expect("valid JSON");
    Encoded::parse(signal, body, &Limits::default()).expect("a request")
}

fn attributes(signal: Signal, yaml: &str) -> Result<Box<dyn Processor>, Errors> {
    let node = parse(yaml, "a.yaml")?;
    let mut errors = Errors::new();
    let mut section = Section::new(&node, "processors::attributes", &mut errors);
    let config = AttributesConfig::decode(&mut section);
    section.finish();
    let settings = config.for_signal(signal, &mut errors);
    errors.into_result(Box::new(AttributesProcessor::new(settings)) as Box<dyn Processor>)
}

fn process(processor: &mut dyn Processor, data: impl Into<Payload>) -> Payload {
    let part = Part {
        data: data.into(),
        ack: AckToken::detached(),
        permit: Permit::none(),
    };
    let mut out = Out::default();
    processor.process(Batch::of(part), &mut out);
    let mut parts: Vec<Part> = out.0.into_iter().flat_map(|b| b.parts).collect();
    let part = parts.pop().expect("one part comes out");
    assert!(parts.is_empty());
    part.ack.resolve(Outcome::Delivered);
    part.data
}

fn run(processor: &mut dyn Processor, encoded: Encoded) -> Encoded {
    match process(processor, encoded) {
        Payload::Encoded(encoded) => encoded,
        Payload::Logs(_) => panic!("what came as OTLP stays OTLP"),
    }
}

/// Whether each item has the attribute `mark`.
struct Marks(Vec<bool>);

impl Edit for Marks {
    fn item(&mut self, _: &View<'_>, attributes: &mut Attributes<'_>) -> bool {
        self.0.push(attributes.get("mark").is_some());
        true
    }
}

fn numbers(marks: &[bool]) -> Vec<usize> {
    (0..marks.len()).filter(|i| marks[*i]).collect()
}

fn marking(signal: Signal, conditions: &str) -> Box<dyn Processor> {
    let yaml =
        format!("{{{conditions}, actions: [{{key: mark, action: insert, value: [1, {{a: b}}]}}]}}");
    attributes(signal, &yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"))
}

/// The numbers, from 0, of the items that `include` and `exclude` select.
fn marked(signal: Signal, conditions: &str) -> Vec<usize> {
    let before = request(signal);
    let mut after = run(&mut *marking(signal, conditions), before.clone());
    Encoded::parse(signal, after.body(), &Limits::default()).expect("still a request");
    assert_eq!(after.items(), before.items());
    let mut marks = Marks(Vec::new());
    after.edit(&mut marks);
    let undo = "actions: [{key: mark, action: delete}]";
    let mut undo = attributes(signal, undo).unwrap_or_else(|e| panic!("{e}"));
    let restored = run(&mut *undo, after);
    assert_eq!(
        restored.body(),
        before.body(),
        "{conditions}: all else stays"
    );
    numbers(&marks.0)
}

#[test]
fn spans_are_selected_by_what_they_have() {
    for (conditions, want) in [
        ("include: null", vec![0, 1, 2]),
        (
            "include: {match_type: strict, services: [shop]}",
            vec![0, 1],
        ),
        (
            "include: {match_type: regexp, services: ['^<nil-']}",
            vec![2],
        ),
        (
            "include: {match_type: strict, span_names: [job, x]}",
            vec![1],
        ),
        (
            "include: {match_type: regexp, span_names: ['^GET']}",
            vec![0, 2],
        ),
        (
            "include: {match_type: strict, span_kinds: [SPAN_KIND_INTERNAL, SPAN_KIND_CLIENT]}",
            vec![1, 2],
        ),
        (
            "include: {match_type: regexp, span_kinds: [SERVER]}",
            vec![0],
        ),
        (
            "include: {match_type: strict, libraries: [{name: lib, version: '1.2'}]}",
            vec![0, 1],
        ),
        (
            "include: {match_type: strict, attributes: [{key: n, value: 7}]}",
            vec![0],
        ),
        (
            "include: {match_type: strict, resources: [{key: service.name}]}",
            vec![0, 1],
        ),
        (
            "include: {match_type: regexp, span_names: ['^GET'], services: [shop]}",
            vec![0],
        ),
        (
            "exclude: {match_type: strict, services: [shop], span_names: [job]}",
            vec![0, 2],
        ),
        (
            "include: {match_type: regexp, span_names: ['^GET']}, \
             exclude: {match_type: strict, services: [shop]}",
            vec![2],
        ),
        ("include: {match_type: strict, services: [none]}", vec![]),
    ] {
        assert_eq!(marked(Signal::Traces, conditions), want, "{conditions}");
    }
}

#[test]
fn points_of_every_kind_are_selected_by_metric_and_resource() {
    for (conditions, want) in [
        ("include: null", vec![0, 1, 2, 3, 4, 5, 6]),
        (
            "include: {match_type: strict, metric_names: [g1]}",
            vec![0, 1, 6],
        ),
        (
            "include: {match_type: regexp, metric_names: ['^[sheq]1$']}",
            vec![2, 3, 4, 5],
        ),
        (
            "include: {match_type: strict, resources: [{key: host, value: h1}]}",
            vec![0, 1, 2, 3, 4, 5],
        ),
        (
            "exclude: {match_type: strict, metric_names: [g1], resources: [{key: host}]}",
            vec![2, 3, 4, 5, 6],
        ),
    ] {
        assert_eq!(marked(Signal::Metrics, conditions), want, "{conditions}");
    }
}

/// The same records in columns.
fn marked_in_columns(conditions: &str) -> Vec<usize> {
    let mut processor = marking(Signal::Logs, conditions);
    let mut change = |logs: LogsBatch| match process(&mut *processor, logs) {
        Payload::Logs(logs) => logs.to_entries(),
        Payload::Encoded(_) => panic!("columns stay columns"),
    };
    let batches = decode_logs(&request(Signal::Logs));
    let entries: Vec<_> = batches.into_iter().flat_map(&mut change).collect();
    let marks = entries.iter().map(|e| e.attributes.get("mark").is_some());
    numbers(&marks.collect::<Vec<bool>>())
}

#[test]
fn log_records_are_selected_as_in_columns() {
    for (conditions, want) in [
        ("include: null", vec![0, 1, 2, 3]),
        (
            "include: {match_type: regexp, log_bodies: ['^AUTH', '^1']}",
            vec![0, 3],
        ),
        (
            "include: {match_type: strict, log_severity_texts: [info]}",
            vec![0],
        ),
        (
            "include: {match_type: strict, log_severity_texts: ['']}",
            vec![1, 2, 3],
        ),
        (
            "include: {match_type: strict, log_severity_number: {min: WARN}}",
            vec![1],
        ),
        (
            "include: {match_type: strict, log_severity_number: {min: WARN, match_undefined: true}}",
            vec![1, 2, 3],
        ),
        (
            "include: {match_type: strict, libraries: [{name: ''}]}",
            vec![3],
        ),
        (
            "exclude: {match_type: strict, resources: [{key: host}]}",
            vec![3],
        ),
        (
            "include: {match_type: strict, attributes: [{key: n, value: '7'}]}",
            vec![],
        ),
    ] {
        assert_eq!(marked(Signal::Logs, conditions), want, "{conditions}");
        assert_eq!(marked_in_columns(conditions), want, "{conditions}");
    }
}

#[test]
fn what_a_signal_does_not_have_is_refused_by_name_and_place() {
    for (signal, include, want) in [
        (Signal::Traces, "log_bodies: [a]", "include::log_bodies"),
        (
            Signal::Traces,
            "log_severity_number: {min: 1}",
            "include::log_severity_number",
        ),
        (Signal::Traces, "metric_names: [a]", "include::metric_names"),
        (
            Signal::Traces,
            "log_bodies: []",
            "at least one of services, span_names",
        ),
        (
            Signal::Traces,
            "span_kinds: [server]",
            "include::span_kinds",
        ),
        (Signal::Metrics, "services: [a]", "include::services"),
        (
            Signal::Metrics,
            "attributes: [{key: a}]",
            "include::attributes",
        ),
        (
            Signal::Metrics,
            "libraries: [{name: a}]",
            "include::libraries",
        ),
        (
            Signal::Metrics,
            "span_names: []",
            "at least one of metric_names, resources",
        ),
    ] {
        let yaml = format!(
            "{{include: {{match_type: strict, {include}}}, actions: [{{key: a, action: delete}}]}}"
        );
        let error = attributes(signal, &yaml).err().expect(&yaml).to_string();
        assert!(
            error.contains(want) && error.contains("a.yaml:1:"),
            "{yaml}: {error}"
        );
    }
}

#[test]
fn what_does_nothing_changes_no_byte() {
    let before = request(Signal::Traces);
    for (action, changes) in [
        ("{key: n, action: insert, value: 1}", true),
        ("{key: x, action: update, value: 1}", false),
        ("{key: x, action: insert, from_attribute: y}", false),
        ("{key: x, action: upsert, from_attribute: n}", true),
        ("{pattern: '^x', action: delete}", false),
        ("{pattern: '^n', action: delete}", true),
        ("{key: n, action: hash}", true),
        ("{key: n, action: convert, converted_type: int}", false),
        ("{key: n, action: convert, converted_type: string}", true),
        ("{key: n, action: extract, pattern: '(?P<a>7)'}", false),
        // Only the first of these two gives the second something to do.
        (
            "{key: x, action: insert, value: 1}, {key: x, action: delete}",
            false,
        ),
        (
            "{key: y, action: upsert, from_attribute: n}, {key: y, action: convert, converted_type: string}",
            true,
        ),
    ] {
        let yaml = format!("actions: [{action}]");
        let mut p = attributes(Signal::Traces, &yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"));
        let after = run(&mut *p, before.clone());
        assert_eq!(after.body() != before.body(), changes, "{yaml}");
    }
}

#[test]
fn resources_of_all_signals_are_changed_where_they_lie() {
    let resource = |yaml: &str, encoded: Encoded| {
        let node = parse(yaml, "a.yaml").expect("valid YAML");
        let mut errors = Errors::new();
        let mut section = Section::new(&node, "processors::resource", &mut errors);
        let settings = ResourceSettings::decode(&mut section);
        section.finish();
        assert!(errors.is_empty(), "{errors}");
        run(&mut ResourceProcessor::new(settings), encoded)
    };
    for signal in Signal::ALL {
        let before = request(signal);
        let put = "attributes: [{key: zone, action: upsert, value: z1}]";
        let after = resource(put, before.clone());
        let mut text = Vec::new();
        after.write_json(&mut text);
        let text = String::from_utf8(text).expect("JSON is text");
        let zone = r#"{"key":"zone","value":{"stringValue":"z1"}}"#;
        assert_eq!(text.matches(zone).count(), 2, "{text}");
        assert_eq!(after.items(), before.items());
        let again = resource(put, after.clone());
        assert_eq!(again.body(), after.body(), "nothing is left to do");
        let other = "attributes: [{key: absent, action: delete}]";
        assert_eq!(resource(other, before.clone()).body(), before.body());
    }
}
