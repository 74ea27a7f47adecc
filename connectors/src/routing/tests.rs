//! What routes take, and what is told of it.

use std::sync::{Arc, Mutex};

use prost::Message as _;
use tailwater_config::parse;
use tailwater_pdata::otlp::{Encoded, Limits, oracle as o};
use tailwater_pdata::{Entry, Map, Value};
use tailwater_pipeline::ack::{AckSink, DropReason};
use tailwater_pipeline::client::ClientInfo;
use tailwater_pipeline::{AckToken, Counts, Outcome, Permit};

use super::*;
use crate::testing::{cx, errors_of};

/// A sender: told what became of its records, and known or not.
#[derive(Default)]
struct Sender {
    told: Mutex<Vec<(Outcome, Counts)>>,
    client: Option<Arc<ClientInfo>>,
}

impl AckSink for Sender {
    fn settled(&self, _: u64, outcome: Outcome, counts: &Counts) {
        self.told.lock().unwrap().push((outcome, counts.clone()));
    }
    fn client(&self) -> Option<Arc<ClientInfo>> {
        self.client.clone()
    }
}

/// What each way was handed.
#[derive(Default)]
struct Handed(Vec<Vec<Part>>);

impl Ways for Handed {
    fn emit(&mut self, way: usize, batch: Batch) {
        assert!(!batch.is_empty());
        self.0[way].extend(batch.parts);
    }
}

fn settings(yaml: &str) -> RoutingSettings {
    let node = parse(yaml, "c.yaml").unwrap();
    let mut errors = Errors::new();
    let mut section = Section::new(&node, "connectors::routing", &mut errors);
    let settings = RoutingSettings::decode(&mut section);
    section.finish();
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, [""; 0], "{yaml}");
    settings
}

/// Hands `data` to a connector with these ways. What each way got, by what `show` makes of it, and what the
/// sender is told once all of it is delivered.
fn route(
    yaml: &str,
    signal: Signal,
    ways: &[&str],
    data: impl Into<Payload>,
    client: Option<ClientInfo>,
    show: fn(&Payload) -> Vec<String>,
) -> (Vec<String>, (Outcome, u32, u32)) {
    let connector = settings(yaml).build(&cx(signal), ways).unwrap().unwrap();
    let sender = Arc::new(Sender {
        client: client.map(Arc::new),
        ..Sender::default()
    });
    let part = Part {
        data: data.into(),
        ack: AckToken::new(sender.clone(), 0),
        permit: Permit::none(),
    };
    let mut handed = Handed(ways.iter().map(|_| Vec::new()).collect());
    connector.pass(Batch::of(part), &mut handed);
    let mut shown = Vec::new();
    for parts in handed.0 {
        let texts: Vec<String> = parts.iter().flat_map(|p| show(&p.data)).collect();
        shown.push(texts.join(" "));
        let told = !sender.told.lock().unwrap().is_empty();
        assert!(!told || parts.is_empty(), "not before all is delivered");
        parts
            .into_iter()
            .for_each(|p| p.ack.resolve(Outcome::Delivered));
    }
    let told = sender
        .told
        .lock()
        .unwrap()
        .pop()
        .expect("it is settled once");
    let unrouted = told.1.dropped[DropReason::Unrouted as usize];
    assert_eq!(told.1.dropped_total(), unrouted);
    (shown, (told.0, told.1.filtered, unrouted))
}

fn record(body: &str, severity: u8) -> Entry {
    Entry {
        body: Value::str(body),
        severity,
        attributes: [("tenant", body)].into_iter().collect(),
        resource: [("service.name", "shop"), ("secret", "x")]
            .into_iter()
            .collect::<Map>(),
        ..Entry::default()
    }
}

fn bodies(data: &Payload) -> Vec<String> {
    let Payload::Logs(logs) = data else {
        panic!("columns");
    };
    let text = |e: Entry| {
        format!(
            "{}{}",
            e.body.as_ref().to_display_string(),
            e.resource.len()
        )
    };
    logs.to_entries().into_iter().map(text).collect()
}

fn logs(yaml: &str, ways: &[&str]) -> (Vec<String>, (Outcome, u32, u32)) {
    let records = [
        record("a", 9),
        record("b", 17),
        record("a", 17),
        record("c", 5),
    ];
    let batch = LogsBatch::from_entries(&records);
    route(yaml, Signal::Logs, ways, batch, None, bodies)
}

const WAYS: [&str; 3] = ["logs/1", "logs/2", "logs/3"];

#[test]
fn records_go_where_the_table_says() {
    let delivered = |filtered, unrouted| (Outcome::Delivered, filtered, unrouted);
    let filtered = |filtered, unrouted| (Outcome::Filtered, filtered, unrouted);
    for (yaml, want, told) in [
        // The first route that moves a record has it, in order; the others get the rest.
        (
            r#"{default_pipelines: [logs/3], table: [
                {context: log, condition: 'severity_number >= 17', pipelines: [logs/1]},
                {context: log, condition: 'attributes["tenant"] == "a"', pipelines: [logs/2]}]}"#,
            ["b2 a2", "a2", "c2"],
            delivered(0, 0),
        ),
        // Without a default the rest is dropped, and counted.
        (
            r#"{table: [
                {context: log, condition: 'body == "a"', pipelines: [logs/1, logs/2]}]}"#,
            ["a2 a2", "a2 a2", ""],
            filtered(0, 2),
        ),
        // What is copied is seen by the others.
        (
            r#"{default_pipelines: [logs/3], table: [
                {context: log, condition: 'body == "a"', action: copy, pipelines: [logs/1]},
                {context: log, statement: 'route() where severity_number == 17', pipelines: [logs/2]}]}"#,
            ["a2 a2", "b2 a2", "a2 c2"],
            delivered(0, 0),
        ),
        // Each pipeline gets its records in order, also where some of them are copied.
        (
            r#"{default_pipelines: [logs/3], table: [
                {context: log, condition: 'body == "a"', action: copy, pipelines: [logs/1]},
                {context: log, condition: 'severity_number == 17', action: copy, pipelines: [logs/1, logs/2]}]}"#,
            ["a2 b2 a2 a2", "b2 a2", "a2 b2 a2 c2"],
            delivered(0, 0),
        ),
        // Paths say what a route is about; without, it is the resource, as a whole.
        (
            r#"{table: [
                {condition: 'log.body == "c"', pipelines: [logs/3]},
                {condition: 'attributes["service.name"] == "shop"', pipelines: [logs/1]}]}"#,
            ["a2 b2 a2", "", "c2"],
            delivered(0, 0),
        ),
        // A statement changes what it takes, and nothing else.
        (
            r#"{default_pipelines: [logs/2], table: [
                {context: log, statement: 'delete_key(resource.attributes, "secret") where body == "a"', pipelines: [logs/1]},
                {context: resource, action: copy, statement: 'delete_matching_keys(attributes, ".*")', pipelines: [logs/3]}]}"#,
            ["a1 a1", "b2 c2", "b0 c0"],
            delivered(0, 0),
        ),
        // An error takes nothing.
        (
            r#"{error_mode: ignore, default_pipelines: [logs/2], table: [
                {context: log, condition: 'ParseJSON(body)["x"] == 1', pipelines: [logs/1]}]}"#,
            ["", "a2 b2 a2 c2", ""],
            delivered(0, 0),
        ),
        // Nobody is known to have sent it.
        (
            r#"{table: [
                {context: request, condition: 'request["x"] != "y"', pipelines: [logs/1]}]}"#,
            ["", "", ""],
            filtered(0, 4),
        ),
    ] {
        assert_eq!(
            logs(yaml, &WAYS),
            (want.map(str::to_owned).to_vec(), told),
            "{yaml}"
        );
    }
}

/// Guarantee: what pipelines get that lead elsewhere is filtered here, not lost and not unrouted.
#[test]
fn other_lanes_have_the_rest() {
    let yaml = r#"{default_pipelines: [logs/3], table: [
        {context: log, condition: 'severity_number >= 17', pipelines: [logs/1, logs/2]}]}"#;
    let (shown, told) = logs(yaml, &["logs/2"]);
    assert_eq!(
        (shown, told),
        (vec!["b2 a2".to_owned()], (Outcome::Filtered, 2, 0))
    );
}

/// Guarantee: an error that propagates gives up what it is in.
#[test]
fn errors_propagate() {
    let yaml = r#"{default_pipelines: [logs/1], table: [
        {context: log, condition: 'ParseJSON(body)["x"] == 1', pipelines: [logs/1]}]}"#;
    let connector = settings(yaml)
        .build(&cx(Signal::Logs), &["logs/1"])
        .unwrap();
    let sender = Arc::new(Sender::default());
    let part = Part {
        data: LogsBatch::from_entries(&[record("a", 1), record("b", 1)]).into(),
        ack: AckToken::new(sender.clone(), 0),
        permit: Permit::none(),
    };
    let mut handed = Handed(vec![Vec::new()]);
    connector.unwrap().pass(Batch::of(part), &mut handed);
    let told = sender.told.lock().unwrap().pop().unwrap();
    let dropped = told.1.dropped[DropReason::OperatorError as usize];
    assert_eq!(
        (told.0, dropped, handed.0[0].len()),
        (Outcome::Refused, 2, 0)
    );
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<o::KeyValue> {
    let pair = |(key, value): &(&str, &str)| o::KeyValue {
        key: (*key).to_owned(),
        value: Some(o::AnyValue {
            value: Some(o::Any::String((*value).to_owned())),
        }),
    };
    pairs.iter().map(pair).collect()
}

fn resource(name: &str) -> Option<o::Resource> {
    Some(o::Resource {
        attributes: pairs(&[("service.name", name)]),
        ..Default::default()
    })
}

fn traces() -> Encoded {
    let spans = |names: &[&str]| {
        let span = |name: &&str| o::Span {
            name: (*name).to_owned(),
            ..Default::default()
        };
        let spans = names.iter().map(span).collect();
        vec![o::ScopeSpans {
            spans,
            ..Default::default()
        }]
    };
    let of = |name, names: &[&str]| o::ResourceSpans {
        resource: resource(name),
        scope_spans: spans(names),
        ..Default::default()
    };
    let traces = o::Traces {
        resource_spans: vec![of("shop", &["a", "b", "a"]), of("cart", &["c", "a"])],
    };
    let body = traces.encode_to_vec().into();
    Encoded::parse(Signal::Traces, body, &Limits::default()).unwrap()
}

fn spans(data: &Payload) -> Vec<String> {
    let Payload::Encoded(request) = data else {
        panic!("a request");
    };
    let traces = o::Traces::decode(request.body()).unwrap();
    assert_eq!(traces.items(), request.items());
    let resource = |r: o::ResourceSpans| {
        let names = r.scope_spans.into_iter().flat_map(|s| s.spans);
        let names: Vec<String> = names.map(|s| s.name).collect();
        let attributes = r.resource.unwrap_or_default().attributes;
        format!("{}:{}", attributes.len(), names.concat())
    };
    traces.resource_spans.into_iter().map(resource).collect()
}

#[test]
fn spans_and_their_resources_go_where_the_table_says() {
    let ways = ["traces/1", "traces/2"];
    for (yaml, want) in [
        (
            r#"{default_pipelines: [traces/2], table: [
                {context: span, condition: 'name == "a"', pipelines: [traces/1]}]}"#,
            ["1:aa 1:a", "1:b 1:c"],
        ),
        (
            r#"{default_pipelines: [traces/2], table: [
                {statement: 'delete_key(resource.attributes, "service.name") where resource.attributes["service.name"] == "cart"', pipelines: [traces/1]}]}"#,
            ["0:ca", "1:aba"],
        ),
        // What a span route has taken is not there for that about its resource.
        (
            r#"{table: [
                {context: span, condition: 'name != "a"', pipelines: [traces/1]},
                {context: resource, condition: 'attributes["service.name"] == "shop"', pipelines: [traces/2]},
                {context: request, condition: 'request["X-Tenant"] == "t"', pipelines: [traces/1, traces/2]}]}"#,
            ["1:b 1:ca", "1:aa 1:a"],
        ),
    ] {
        let mut client = ClientInfo::default();
        client.add_metadata("x-tenant", "t");
        let client = Some(client);
        let (mut shown, told) = route(yaml, Signal::Traces, &ways, traces(), client, spans);
        let sort = |text: &String| {
            let mut parts: Vec<&str> = text.split(' ').collect();
            parts.sort_unstable();
            parts.join(" ")
        };
        let mut want = want.map(str::to_owned).to_vec();
        shown.iter_mut().for_each(|t| *t = sort(t));
        want.iter_mut().for_each(|t| *t = sort(t));
        assert_eq!((shown, told), (want, (Outcome::Delivered, 0, 0)), "{yaml}");
    }
}

#[test]
fn points_go_where_the_table_says() {
    let metric = |name: &str, values: &[i64]| o::Metric {
        name: name.to_owned(),
        data: Some(o::Data::Gauge(o::Gauge {
            data_points: values
                .iter()
                .map(|v| o::NumberPoint {
                    value: Some(o::Number::Int(*v)),
                    ..Default::default()
                })
                .collect(),
        })),
        ..Default::default()
    };
    let metrics = o::Metrics {
        resource_metrics: vec![o::ResourceMetrics {
            resource: resource("shop"),
            scope_metrics: vec![o::ScopeMetrics {
                metrics: vec![metric("cpu", &[1, 2, 3]), metric("mem", &[4, 1])],
                ..Default::default()
            }],
            ..Default::default()
        }],
    };
    let body = metrics.encode_to_vec().into();
    let request = Encoded::parse(Signal::Metrics, body, &Limits::default()).unwrap();
    let show = |data: &Payload| -> Vec<String> {
        let Payload::Encoded(request) = data else {
            panic!("a request");
        };
        let metrics = o::Metrics::decode(request.body()).unwrap();
        let all = metrics
            .resource_metrics
            .into_iter()
            .flat_map(|r| r.scope_metrics);
        let text = |m: o::Metric| {
            let Some(o::Data::Gauge(gauge)) = m.data else {
                panic!("a gauge");
            };
            format!("{}{}", m.name, gauge.data_points.len())
        };
        all.flat_map(|s| s.metrics).map(text).collect()
    };
    let yaml = r#"{default_pipelines: [metrics/3], table: [
        {context: datapoint, condition: 'value_int == 1', pipelines: [metrics/1]},
        {context: metric, condition: 'name == "cpu"', pipelines: [metrics/2]}]}"#;
    let ways = ["metrics/1", "metrics/2", "metrics/3"];
    let (shown, told) = route(yaml, Signal::Metrics, &ways, request, None, show);
    assert_eq!(shown, ["cpu1 mem1", "cpu2", "mem1"]);
    assert_eq!(told, (Outcome::Delivered, 0, 0));
}

#[test]
fn mistakes_are_told() {
    let row = |row: &str| format!("{{table: [{{{row}}}]}}");
    for (yaml, part) in [
        ("{}".to_owned(), "the routing table is empty"),
        ("{table: []}".to_owned(), "the routing table is empty"),
        (row("condition: 'true'"), "no pipelines defined"),
        (
            row("pipelines: [logs]"),
            "no condition or statement provided",
        ),
        (
            row("condition: 'true', statement: 'route()', pipelines: [logs]"),
            "both condition and statement provided",
        ),
        (
            row("context: spanevent, condition: 'true', pipelines: [logs]"),
            "table::0::context",
        ),
        (
            row("context: request, statement: 'route()', pipelines: [logs]"),
            "requires a 'condition'",
        ),
        (
            row("context: request, condition: 'request.x == 1', pipelines: [logs]"),
            r#"has to be request["key"] == "value""#,
        ),
        (
            row("context: log, statement: 'set(body, 1)', pipelines: [logs]"),
            "set cannot stand in a routing table; allowed: route, delete_key",
        ),
        (
            row("context: log, condition: 'bdy == 1', pipelines: [logs]"),
            "c.yaml:1:36: connectors::routing::table::0::condition: column 1: log has no path \"bdy\"",
        ),
        (
            row("action: mov, condition: 'true', pipelines: [logs]"),
            "did you mean \"move\"?",
        ),
        (
            "{match_once: true, table: [{condition: 'true', pipelines: [logs]}]}".to_owned(),
            "is not supported",
        ),
        (
            "{defaults: [logs], table: [{condition: 'true', pipelines: [logs]}]}".to_owned(),
            "unknown option",
        ),
    ] {
        let errors = errors_of(decode, &yaml);
        assert!(
            errors.iter().any(|e| e.contains(part)),
            "{yaml}\n{errors:?}\n{part}"
        );
    }
}

/// Guarantee: pipelines that are not behind the connector, and contexts of other signals, are refused where
/// they are written.
#[test]
fn what_does_not_fit_where_it_is_used_is_told() {
    let settings = settings(
        r#"{default_pipelines: [logs/2], table: [
            {context: span, condition: 'name == "a"', pipelines: [logs/1, logs/x]}]}"#,
    );
    let used = ConnectorUse {
        signal: Signal::Logs,
        behind: vec!["logs/1".into(), "logs/2".into()],
    };
    let mut errors = Errors::new();
    settings.check(&used, &mut errors);
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    let all = errors.join("\n");
    for part in [
        "connectors::routing::table::0::pipelines::1: pipeline \"logs/x\" does not begin with this connector",
        "is about the context span, but logs go into this connector; allowed: resource, log, request",
    ] {
        assert!(all.contains(part), "{all}\n{part}");
    }
}
