//! What becomes of records, in each form of the section.

use std::sync::{Arc, Mutex};

use tailwater_config::{Errors, parse};
use tailwater_pdata::{Entry, Map, Value};
use tailwater_pipeline::ack::AckSink;
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{AckToken, Counts, Permit};

use super::*;

mod encoded;
mod metrics;
mod spans;
mod whole;

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
struct Told(Mutex<Vec<(Outcome, u32)>>);

impl AckSink for Told {
    fn settled(&self, _: u64, outcome: Outcome, counts: &Counts) {
        self.0
            .lock()
            .unwrap()
            .push((outcome, counts.dropped_total()));
    }
}

fn decode(yaml: &str) -> Result<TransformSettings, String> {
    let node = parse(yaml, "a.yaml").map_err(|e| e.to_string())?;
    let mut errors = Errors::new();
    let mut section = Section::new(&node, "processors::transform", &mut errors);
    let settings = TransformSettings::decode(&mut section);
    section.finish();
    errors.into_result(settings).map_err(|e| e.to_string())
}

fn record(body: &str, attributes: &[(&str, Value)]) -> Entry {
    Entry {
        body: Value::str(body),
        attributes: attributes.iter().cloned().collect(),
        resource: [("service.name", "shop")].into_iter().collect::<Map>(),
        scope_name: "lib".into(),
        ..Entry::default()
    }
}

/// The records after the processor, and what their source is told.
fn run(yaml: &str) -> (Vec<Entry>, (Outcome, u32)) {
    let settings = decode(yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"));
    let mut processor = TransformProcessor::new(settings);
    let records = [
        record(
            r#"{"user":"ann","n":1}"#,
            &[("k", "v".into()), ("card", "4111111111111111".into())],
        ),
        record("no json", &[("k", "w".into())]),
    ];
    let told = Arc::new(Told::default());
    let part = Part {
        data: LogsBatch::from_entries(&records).into(),
        ack: AckToken::new(told.clone(), 0),
        permit: Permit::none(),
    };
    let mut out = Out::default();
    processor.process(Batch::of(part), &mut out);
    let mut entries = Vec::new();
    for part in out.0.into_iter().flat_map(Batch::into_logs) {
        entries.extend(part.logs.to_entries());
        part.ack.resolve(Outcome::Delivered);
    }
    let settled = told
        .0
        .lock()
        .unwrap()
        .pop()
        .expect("the duty is settled once");
    (entries, settled)
}

fn shown(map: &Map) -> String {
    Value::Map(map.clone()).as_ref().to_display_string()
}

#[test]
fn statements_change_records_one_after_another() {
    let yaml = r#"
log_statements:
  - merge_maps(log.attributes, ParseJSON(log.body), "upsert") where IsMatch(log.body, "^{")
  - set(log.attributes["user"], ToUpperCase(log.attributes["user"])) where log.attributes["user"] != nil
  - replace_pattern(log.attributes["card"], "\\d{12}(\\d{4})", "****$1")
  - delete_key(log.attributes, "k")
  - set(log.cache["short"], Substring(log.body, 0, 2))
  - set(log.attributes["short"], log.cache["short"])
"#;
    let (entries, told) = run(yaml);
    assert_eq!(
        shown(&entries[0].attributes),
        r#"{"card":"****1111","n":1,"short":"{\"","user":"ANN"}"#
    );
    assert_eq!(shown(&entries[1].attributes), r#"{"short":"no"}"#);
    assert_eq!(told, (Outcome::Delivered, 0));
}

#[test]
fn groups_have_contexts_conditions_and_modes() {
    let yaml = r#"
error_mode: propagate
log_statements:
  - context: resource
    statements:
      - set(attributes["env"], "prod")
  - context: scope
    statements: ['set(name, Concat([name, resource.attributes["env"]], "-"))']
  - context: log
    conditions: ['attributes["k"] == "v"', 'attributes["k"] == "none"']
    statements:
      - set(severity_text, "HIT")
      - set(attributes["env"], resource.attributes["env"])
  - error_mode: ignore
    statements:
      - set(log.attributes["x"], ParseJSON(log.body)["n"])
      - set(log.severity_number, SEVERITY_NUMBER_WARN)
"#;
    let (entries, told) = run(yaml);
    assert_eq!(told, (Outcome::Delivered, 0));
    let texts: Vec<&str> = entries.iter().map(|e| e.severity_text.as_str()).collect();
    assert_eq!(texts, ["HIT", ""]);
    for entry in &entries {
        assert_eq!(entry.resource.get("env"), Some(&Value::str("prod")));
        assert_eq!(entry.scope_name, "lib-prod");
        // The statement behind one that failed is carried out.
        assert_eq!(entry.severity, 13);
    }
    assert_eq!(entries[0].attributes.get("env"), Some(&Value::str("prod")));
    assert_eq!(entries[0].attributes.get("x"), Some(&Value::Double(1.0)));
    assert_eq!(shown(&entries[1].attributes), r#"{"k":"w"}"#);
}

/// Guarantee: a cache is a record's own, and each group begins with an empty one.
#[test]
fn a_cache_does_not_outlive_its_record_or_group() {
    let yaml = r#"
log_statements:
  - context: log
    statements:
      - set(attributes["old"], cache["k"])
      - set(cache["k"], attributes["k"])
  - context: log
    statements: ['set(attributes["old"], cache["k"])']
"#;
    for entry in run(yaml).0 {
        assert_eq!(entry.attributes.get("old"), None);
    }
}

#[test]
fn errors_end_what_their_mode_says() {
    let failing = r#"set(log.attributes["x"], ParseJSON(log.body))"#;
    for (mode, want) in [
        ("ignore", (2, Outcome::Delivered, 0)),
        ("silent", (2, Outcome::Delivered, 0)),
        ("propagate", (0, Outcome::Refused, 2)),
    ] {
        let yaml = format!("{{error_mode: {mode}, log_statements: ['{failing}']}}");
        let (entries, (outcome, dropped)) = run(&yaml);
        assert_eq!((entries.len(), outcome, dropped), want, "{mode}");
    }
    let settings = decode(&format!("log_statements: ['{failing}']")).unwrap();
    let mut processor = TransformProcessor::new(settings);
    let mut logs =
        LogsBatch::from_entries(&[record("x", &[]), record("{}", &[]), record("y", &[])]);
    processor.change(&mut logs, 0);
    assert_eq!(processor.report.errors(), 2);
    assert_eq!(processor.report.finish(), None);
    assert_eq!(processor.report.errors(), 0);
}

#[test]
fn published_statements_are_understood() {
    // Of examples of Dynatrace, Datadog and the Ops Agent of Google Cloud.
    let yaml = r#"
log_statements:
  - context: log
    statements:
      - replace_pattern(body, "(^|[\\s\"'])3\\s*[47](\\s*[0-9]){9}((\\s*[0-9]){4})($|[\\s\"'])", "$1**** $3$5")
      - set(attributes["ddtags"], "first_custom:tag, second_custom:tag")
      - delete_key(cache, "value") where (cache != nil and cache["value"] != nil)
      - set(cache["__field_0"], body["logging.googleapis.com/trace"]) where (body != nil and body["logging.googleapis.com/trace"] != nil)
      - set(trace_id.string, cache["__setif_value"]) where (cache != nil and cache["value"] != nil)
      - merge_maps(body, cache["__parsed_regex"], "upsert") where (cache != nil and cache["__parsed_regex"] != nil)
      - delete_key(body, "time") where ((body != nil and body["time"] != nil) and cache["__time_valid"] == true)
      - set(time, Time(body["time"], "%d/%b/%Y:%H:%M:%S %z")) where cache["__time_valid"] == true
      - set(severity_number, 0) where (cache != nil and cache["mapped_value"] != nil)
  - context: scope
    statements:
      - set(attributes["otelcol_signal"], attributes["otelcol.signal"]) where attributes["otelcol.signal"] != nil and not IsMap(attributes["otelcol.signal"])
      - delete_key(attributes, "otelcol.signal") where attributes["otelcol_signal"] != nil
"#;
    let (entries, _) = run(yaml);
    assert_eq!(
        entries[0]
            .attributes
            .get("ddtags")
            .map(|v| v.as_ref().to_display_string().len()),
        Some(35)
    );
}

#[test]
fn mistakes_of_a_section_are_told() {
    for (yaml, part) in [
        (
            r#"log_statements: ['set(log.atributes["a"], 1)']"#,
            r#"a.yaml:1:18: processors::transform::log_statements::0: column 5: log has no path "atributes""#,
        ),
        (
            r#"log_statements: ['set(attributes["a"], 1)']"#,
            "no path says what it is about",
        ),
        (
            r#"log_statements: ['set(log.body, body)']"#,
            "write log.body",
        ),
        (
            r#"log_statements: [{context: log, statements: ['sett(body, 1)']}]"#,
            "log_statements::0::statements::0: column 1: there is no editor",
        ),
        (
            r#"log_statements: [{context: log, statement: ['set(body, 1)']}]"#,
            r#"did you mean "statements"?"#,
        ),
        (
            r#"log_statements: [{context: log, conditions: ['body'], statements: ['set(body, 1)']}]"#,
            "a path alone is no condition",
        ),
        (
            r#"log_statements: [{context: log, statements: ['set_semconv_span_name("1.37.0")']}]"#,
            "stands in the context span, not in log",
        ),
        (
            r#"trace_statements: ['set_semconv_span_name("1.36.0")']"#,
            "unsupported semconv version",
        ),
        (
            r#"trace_statements: ['set_semconv_span_name("1.37.0", "")']"#,
            "cannot be an empty string",
        ),
        (
            r#"metric_statements: ['merge_histogram_buckets(1.5, method="limit_buckets")']"#,
            "has to be a positive whole number",
        ),
        (
            r#"metric_statements: ['convert_exponential_histogram_to_histogram("upper", [1.0])']"#,
            "the editor convert_exponential_histogram_to_histogram is not built",
        ),
        (
            r#"log_statements: ['set(log.body, 1)', {statements: []}]"#,
            "not of both",
        ),
        (
            "trace_statements: ['set(span.nam, \"x\")']",
            r#"column 5: span has no path "nam""#,
        ),
        (
            "trace_statements: ['set(metric.name, \"x\")']",
            "the paths begin with metric, which cannot be reached together here; allowed: resource, scope, span, spanevent",
        ),
        (
            "trace_statements: [{context: datapoint, statements: []}]",
            "allowed: resource, scope, span, spanevent",
        ),
        (
            "metric_statements: ['set(metric.type, 1)']",
            "can be read, but not yet changed",
        ),
        (
            "metric_statements: ['convert_sum_to_gauge() where datapoint.flags == 0']",
            "stands in the context metric, not in datapoint",
        ),
        (
            "metric_statements: [{context: metric, statements: ['scale_metric(\"x\")']}]",
            "the argument multiplier of scale_metric has to be a number",
        ),
        (
            "metric_statements: ['convert_gauge_to_sum(\"cumulativ\", true)']",
            r#"did you mean "cumulative"?"#,
        ),
        (
            "metric_statements: ['extract_percentile_metric(101.0)']",
            "percentile must be between 0 and 100",
        ),
        (
            "log_statements: [{context: log, statements: ['copy_metric()']}]",
            "stands in the context metric, not in log",
        ),
        ("flatten_data: true", "write flatten(log.attributes)"),
        ("error_mode: off", "allowed: ignore, silent, propagate"),
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
