//! What is counted, and what is told of it.

use std::sync::Mutex;

use prost::Message as _;
use tailwater_pdata::Entry;
use tailwater_pdata::otlp::{Limits, oracle as o};
use tailwater_pipeline::Counts;
use tailwater_pipeline::ack::{AckSink, DropReason};

use super::*;
use crate::testing::{cx, errors_of};

#[derive(Default)]
struct Sender(Mutex<Vec<(Outcome, Counts)>>);

impl AckSink for Sender {
    fn settled(&self, _: u64, outcome: Outcome, counts: &Counts) {
        self.0.lock().unwrap().push((outcome, counts.clone()));
    }
}

#[derive(Default)]
struct Handed(Vec<Part>);

impl Ways for Handed {
    fn emit(&mut self, _: usize, batch: Batch) {
        self.0.extend(batch.parts);
    }
}

fn run(yaml: &str, signal: Signal, data: Vec<Payload>) -> (Vec<Part>, Arc<Sender>) {
    let node = tailwater_config::parse(yaml, "c.yaml").unwrap();
    let mut errors = Errors::new();
    let settings = decode(&node, &"connectors::count".into(), &mut errors);
    let settings = settings.unwrap_or_else(|| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        panic!("{yaml}: {errors:?}")
    });
    assert_eq!(settings.gives(signal), Signal::Metrics);
    let connector = settings.build(&cx(signal), &["metrics"]).unwrap().unwrap();
    let sender = Arc::new(Sender::default());
    let part = |data| Part {
        data,
        ack: AckToken::new(sender.clone(), 0),
        permit: Permit::none(),
    };
    let mut handed = Handed::default();
    let parts = data.into_iter().map(part).collect();
    connector.pass(Batch { parts }, &mut handed);
    (handed.0, sender)
}

fn value(value: Option<&o::AnyValue>) -> String {
    match value.and_then(|v| v.value.as_ref()) {
        Some(o::Any::String(s)) => s.clone(),
        other => format!("{other:?}"),
    }
}

fn shown(parts: &[Part]) -> Vec<String> {
    let mut shown = Vec::new();
    for part in parts {
        let Payload::Encoded(request) = &part.data else {
            panic!("a request");
        };
        let metrics = o::Metrics::decode(request.body()).unwrap();
        for resource in metrics.resource_metrics {
            let list = resource.resource.unwrap_or_default().attributes;
            let of = list
                .first()
                .map(|p| value(p.value.as_ref()))
                .unwrap_or_default();
            let scope = &resource.scope_metrics[0];
            assert_eq!(scope.scope.as_ref().unwrap().name, SCOPE);
            for metric in &scope.metrics {
                let Some(o::Data::Sum(sum)) = &metric.data else {
                    panic!("a sum");
                };
                for p in &sum.data_points {
                    let Some(o::Number::Int(n)) = p.value else {
                        panic!("an integer");
                    };
                    let pairs = p.attributes.iter();
                    let pairs: Vec<String> = pairs.map(|p| value(p.value.as_ref())).collect();
                    let times = (p.start_time_unix_nano, p.time_unix_nano);
                    shown.push(format!(
                        "{of} {} [{}] {n} {}-{}",
                        metric.name,
                        pairs.join(","),
                        times.0,
                        times.1
                    ));
                }
            }
        }
    }
    shown
}

fn record(service: &str, env: Option<&str>, time: i64, body: &str) -> Entry {
    Entry {
        time,
        body: Value::str(body),
        attributes: env.iter().map(|e| ("env", *e)).collect(),
        resource: [("service.name", service)].into_iter().collect(),
        ..Entry::default()
    }
}

fn logs() -> Vec<Payload> {
    let batch = |records: &[Entry]| LogsBatch::from_entries(records).into();
    vec![
        batch(&[
            record("shop", Some("prod"), 5, "x"),
            record("shop", None, 3, "y"),
        ]),
        batch(&[record("cart", Some("test"), 7, "x")]),
        batch(&[record("shop", Some("prod"), 9, "z")]),
    ]
}

#[test]
fn records_are_counted() {
    for (yaml, want) in [
        (
            "{}",
            &[
                "shop log.record.count [] 3 3-9",
                "cart log.record.count [] 1 7-7",
            ][..],
        ),
        (
            r#"{logs: {a: {conditions: ['body == "x"', 'body == "z"']}, b: {attributes: [{key: env}]}}}"#,
            &[
                "shop a [] 2 3-9",
                "shop b [prod] 2 3-9",
                "cart a [] 1 7-7",
                "cart b [test] 1 7-7",
            ],
        ),
        (
            "{logs: {a: {attributes: [{key: env, default_value: none}, {key: service.name}]}}}",
            &[
                "shop a [prod,shop] 2 3-9",
                "shop a [none,shop] 1 3-9",
                "cart a [test,cart] 1 7-7",
            ],
        ),
        // An empty default is none.
        (
            r#"{logs: {a: {attributes: [{key: other, default_value: ""}]}}}"#,
            &[],
        ),
        // An error counts nothing, and keeps nothing else from being counted.
        (
            r#"{logs: {a: {conditions: ['ParseJSON(body)["k"] == 1', 'body == "y"']}}}"#,
            &["shop a [] 1 3-9"],
        ),
    ] {
        let (parts, sender) = run(yaml, Signal::Logs, logs());
        assert_eq!(shown(&parts), want, "{yaml}");
        let told = || sender.0.lock().unwrap().clone();
        if want.is_empty() {
            let filtered: Vec<(Outcome, u32)> =
                told().iter().map(|(o, c)| (*o, c.filtered)).collect();
            let all = Outcome::Filtered;
            assert_eq!(filtered, [(all, 2), (all, 1), (all, 1)]);
            continue;
        }
        assert_eq!(told().len(), 0, "not before the counts are delivered");
        for part in parts {
            // A point that the destination does not want is none of the records.
            part.ack.count_dropped(DropReason::TooOld, 1);
            part.ack.resolve(Outcome::Delivered);
        }
        let told = told();
        assert_eq!(told.len(), 3);
        assert!(
            told.iter()
                .all(|t| *t == (Outcome::Delivered, Counts::default()))
        );
    }
}

/// Guarantee: what is refused as a whole is refused of all records it was made of, for its reason.
#[test]
fn a_refusal_is_of_all_records() {
    let (parts, sender) = run("{}", Signal::Logs, logs());
    for part in parts {
        part.ack.count_dropped(DropReason::TooLarge, 2);
        part.ack.resolve(Outcome::Refused);
    }
    let told = sender.0.lock().unwrap();
    let of = |(o, c): &(Outcome, Counts)| (*o, c.dropped[DropReason::TooLarge as usize]);
    let refused = Outcome::Refused;
    let told: Vec<(Outcome, u32)> = told.iter().map(of).collect();
    assert_eq!(told, [(refused, 2), (refused, 1), (refused, 1)]);
}

#[test]
fn spans_and_events_are_counted() {
    let span = |name: &str, events: usize| o::Span {
        name: name.to_owned(),
        start_time_unix_nano: 4,
        end_time_unix_nano: 6,
        events: vec![
            o::Event {
                time_unix_nano: 5,
                ..Default::default()
            };
            events
        ],
        ..Default::default()
    };
    let traces = o::Traces {
        resource_spans: vec![
            o::ResourceSpans {
                scope_spans: vec![o::ScopeSpans {
                    spans: vec![span("a", 2), span("b", 0)],
                    ..Default::default()
                }],
                ..Default::default()
            },
            o::ResourceSpans::default(),
        ],
    };
    let body = traces.encode_to_vec().into();
    let request = Encoded::parse(Signal::Traces, body, &Limits::default()).unwrap();
    let count = |yaml| shown(&run(yaml, Signal::Traces, vec![request.clone().into()]).0);
    assert_eq!(
        count("{}"),
        [
            " trace.span.count [] 2 4-6",
            " trace.span.event.count [] 2 5-5"
        ]
    );
    // What is given for spans says nothing of events.
    assert_eq!(
        count(r#"{spans: {a: {conditions: ['name == "a"']}}}"#),
        [" a [] 1 4-6", " trace.span.event.count [] 2 5-5"]
    );
    assert_eq!(count("{spans: {}, spanevents: {}}"), [""; 0]);
}

#[test]
fn metrics_and_points_are_counted() {
    let metric = |name: &str, points: usize| o::Metric {
        name: name.to_owned(),
        data: Some(o::Data::Gauge(o::Gauge {
            data_points: vec![
                o::NumberPoint {
                    time_unix_nano: 8,
                    ..Default::default()
                };
                points
            ],
        })),
        ..Default::default()
    };
    let metrics = o::Metrics {
        resource_metrics: vec![o::ResourceMetrics {
            scope_metrics: vec![o::ScopeMetrics {
                metrics: vec![metric("a", 3), metric("b", 1)],
                ..Default::default()
            }],
            ..Default::default()
        }],
    };
    let body = metrics.encode_to_vec().into();
    let request: Encoded = Encoded::parse(Signal::Metrics, body, &Limits::default()).unwrap();
    let yaml = r#"{metrics: {m: {conditions: ['name == "a"']}}}"#;
    let parts = run(yaml, Signal::Metrics, vec![request.into()]).0;
    // The time of the test's clock, as metrics have none.
    let now = cx(Signal::Metrics).clock.wall_ns();
    assert_eq!(
        shown(&parts),
        [
            format!(" m [] 1 {now}-{now}"),
            " metric.datapoint.count [] 4 8-8".to_owned()
        ]
    );
}

#[test]
fn mistakes_are_told() {
    for (yaml, part) in [
        ("{span: {}}", "did you mean \"spans\"?"),
        (
            "{logs: {a: {conditions: ['bdy == 1']}}}",
            "logs::a::conditions::0: column 1",
        ),
        (
            "{logs: {a: {attributes: [{default_value: x}]}}}",
            "attributes::0",
        ),
        (
            "{logs: {a: {attributes: [{key: ''}]}}}",
            "attribute key missing",
        ),
        (
            "{logs: {a: {attributes: [{key: a, default_value: []}]}}}",
            "has to be a string",
        ),
        (
            "{metrics: {a: {attributes: [{key: a}]}}}",
            "are not supported for metrics",
        ),
        ("{logs: {'': {}}}", "metric name missing"),
        ("{profiles: {}}", "unknown option"),
    ] {
        let errors = errors_of(decode, yaml);
        assert!(
            errors.iter().any(|e| e.contains(part)),
            "{yaml}\n{errors:?}"
        );
    }
}
