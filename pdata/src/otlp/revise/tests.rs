//! Guarantees: what is set at any depth is what it is to the structures of `prost`, and what is left
//! alone stays the same bytes.

use proptest::prelude::*;
use prost::Message as _;

use super::super::oracle as o;
use super::super::samples::Dice;
use super::super::{Encoded, Limits};
use super::*;

fn parse(signal: Signal, body: Vec<u8>) -> Encoded {
    Encoded::parse(signal, body.into(), &Limits::default()).expect("a request")
}

/// Numbers that are none are not equal to themselves.
fn shown(message: &impl std::fmt::Debug) -> String {
    format!("{message:?}")
}

const BYTES: FieldValue<'_> = FieldValue::Bytes(b"new");

fn number_of_points(metric: &o::Metric) -> usize {
    match &metric.data {
        Some(o::Data::Gauge(d)) => d.data_points.len(),
        Some(o::Data::Sum(d)) => d.data_points.len(),
        Some(o::Data::Histogram(d)) => d.data_points.len(),
        Some(o::Data::Exponential(d)) => d.data_points.len(),
        Some(o::Data::Summary(d)) => d.data_points.len(),
        None => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn nothing_changes_that_is_not_set(dice in prop::collection::vec(any::<u8>(), 0..800)) {
        let mut dice = Dice::new(&dice);
        for (signal, body, items) in [
            (Signal::Traces, dice.traces().encode_to_vec(), Level::Item),
            (Signal::Metrics, dice.metrics().encode_to_vec(), Level::Part),
            (Signal::Logs, dice.logs().encode_to_vec(), Level::Item),
        ] {
            let whole = parse(signal, body);
            for level in LEVELS {
                let (mut seen, mut same) = (0, whole.clone());
                same.revise(level, &mut |place| {
                    seen += 1;
                    place.level() == level && place.signal() == signal
                }).expect("little");
                prop_assert_eq!(&same, &whole);
                prop_assert!(level != items || seen == whole.items());
            }
        }
    }

    #[test]
    fn what_is_set_around_events_is_set(
        dice in prop::collection::vec(any::<u8>(), 0..800),
        drop in 1..6usize,
    ) {
        let mut want = Dice::new(&dice).traces();
        let mut traces = parse(Signal::Traces, want.encode_to_vec());
        let mut n = 0usize;
        traces.revise(Level::Part, &mut |place| {
            n += 1;
            place.at_mut(Level::Resource).set(None, "schema_url", BYTES);
            place.at_mut(Level::Resource).set(Some("resource"), "dropped_attributes_count", FieldValue::Number(9));
            place.at_mut(Level::Scope).set(Some("scope"), "version", BYTES);
            place.at_mut(Level::Item).set(None, "flags", FieldValue::Number(3));
            place.at_mut(Level::Item).set(Some("status"), "code", FieldValue::Number(2));
            place.at_mut(Level::Part).set(None, "name", BYTES);
            let index = FieldValue::Number(place.index() as u64);
            place.at_mut(Level::Part).set(None, "time_unix_nano", index);
            !n.is_multiple_of(drop)
        }).expect("little");
        let mut n = 0usize;
        for resource in &mut want.resource_spans {
            let before = n;
            for scope in &mut resource.scope_spans {
                let before = n;
                for span in &mut scope.spans {
                    if !span.events.is_empty() {
                        span.flags = 3;
                        span.status.get_or_insert_default().code = 2;
                    }
                    let mut at = 0;
                    span.events.retain_mut(|event| {
                        n += 1;
                        event.name = "new".into();
                        event.time_unix_nano = at;
                        at += 1;
                        !n.is_multiple_of(drop)
                    });
                }
                if n > before {
                    scope.scope.get_or_insert_default().version = "new".into();
                }
            }
            if n > before {
                resource.schema_url = "new".into();
                resource.resource.get_or_insert_default().dropped_attributes_count = 9;
            }
        }
        prop_assert_eq!(traces.items(), want.items());
        let got = o::Traces::decode(traces.body()).expect("a request");
        prop_assert_eq!(shown(&got), shown(&want));
    }

    #[test]
    fn what_is_set_around_points_is_set(dice in prop::collection::vec(any::<u8>(), 0..800)) {
        let want = Dice::new(&dice).metrics();
        // The zero that is negative is not sent.
        let mut want = o::Metrics::decode(&*want.encode_to_vec()).expect("a request");
        let mut metrics = parse(Signal::Metrics, want.encode_to_vec());
        metrics.revise(Level::Part, &mut |place| {
            place.at_mut(Level::Item).set(None, "unit", BYTES);
            if place.at(Level::Item).view().chosen() == Some("sum") {
                place.at_mut(Level::Item).set(Some("sum"), "is_monotonic", FieldValue::Number(1));
            }
            place.at_mut(Level::Part).set(None, "start_time_unix_nano", FieldValue::Number(7));
            place.at_mut(Level::Part).set(None, "as_int", FieldValue::Number(5));
            true
        }).expect("little");
        for resource in &mut want.resource_metrics {
            for metric in resource.scope_metrics.iter_mut().flat_map(|s| &mut s.metrics) {
                if number_of_points(metric) == 0 {
                    continue;
                }
                metric.unit = "new".into();
                match metric.data.as_mut() {
                    Some(o::Data::Gauge(d)) => d.data_points.iter_mut().for_each(|p| {
                        (p.start_time_unix_nano, p.value) = (7, Some(o::Number::Int(5)));
                    }),
                    Some(o::Data::Sum(d)) => {
                        d.is_monotonic = true;
                        d.data_points.iter_mut().for_each(|p| {
                            (p.start_time_unix_nano, p.value) = (7, Some(o::Number::Int(5)));
                        });
                    }
                    Some(o::Data::Histogram(d)) => {
                        d.data_points.iter_mut().for_each(|p| p.start_time_unix_nano = 7);
                    }
                    Some(o::Data::Exponential(d)) => {
                        d.data_points.iter_mut().for_each(|p| p.start_time_unix_nano = 7);
                    }
                    Some(o::Data::Summary(d)) => {
                        d.data_points.iter_mut().for_each(|p| p.start_time_unix_nano = 7);
                    }
                    None => {}
                }
            }
        }
        prop_assert_eq!(metrics.items(), want.items());
        let got = o::Metrics::decode(metrics.body()).expect("a request");
        prop_assert_eq!(shown(&got), shown(&want));
    }

    #[test]
    fn metrics_that_are_added_stand_behind_the_others(
        dice in prop::collection::vec(any::<u8>(), 0..800),
    ) {
        let want = Dice::new(&dice).metrics();
        // The zero that is negative is not sent.
        let mut want = o::Metrics::decode(&*want.encode_to_vec()).expect("a request");
        let mut metrics = parse(Signal::Metrics, want.encode_to_vec());
        metrics.revise(Level::Item, &mut |place| {
            if place.at(Level::Item).view().bytes("unit") != b"new" {
                let mut copy = place.at(Level::Item).clone();
                copy.set(None, "unit", BYTES);
                assert!(place.add_metric(&copy));
            }
            true
        }).expect("little");
        for scope in want.resource_metrics.iter_mut().flat_map(|r| &mut r.scope_metrics) {
            let mut copies = scope.metrics.clone();
            copies.retain(|m| m.unit != "new");
            copies.iter_mut().for_each(|m| m.unit = "new".into());
            scope.metrics.extend(copies);
        }
        prop_assert_eq!(metrics.items(), want.items());
        let got = o::Metrics::decode(metrics.body()).expect("a request");
        prop_assert_eq!(shown(&got), shown(&want));
    }
}

/// Guarantee: a visitor that adds a metric for each it is shown comes to an end.
#[test]
fn metrics_are_not_added_without_end() {
    let body = b"\x0a\x07\x12\x05\x12\x03\x0a\x01a".to_vec();
    let mut metrics = parse(Signal::Metrics, body);
    let mut added = 0;
    metrics
        .revise(Level::Item, &mut |place| {
            let copy = place.at(Level::Item).clone();
            added += usize::from(place.add_metric(&copy));
            true
        })
        .expect("little");
    assert_eq!(added, METRICS_MADE_MAX);
}

#[test]
fn fields_take_what_they_are_for() {
    let mut point = Draft::number_point();
    assert!(!point.set(None, "as_ints", FieldValue::Number(1)));
    assert!(!point.set(None, "as_int", FieldValue::Bytes(b"1")));
    assert!(!point.set(None, "exemplars", FieldValue::Number(1)));
    assert!(!point.set(Some("status"), "code", FieldValue::Number(1)));
    assert!(!point.is_changed());
    assert!(point.set(None, "as_double", FieldValue::Number(1.5f64.to_bits())));
    assert!(point.set(None, "as_int", FieldValue::Number(0)));
    assert!(!point.view().has("as_double") && point.view().has("as_int"));
    let mut metric = Draft::metric();
    assert!(metric.set(Some("gauge"), "data_points", FieldValue::Messages(&[point])));
    assert_eq!(metric.view().chosen(), Some("gauge"));
    assert_eq!(metric.as_metric().map(|m| m.points().count()), Some(1));
    metric.attributes(None, "metadata", |a| a.set("k", crate::ValueRef::Int(1)));
    metric.attributes(Some("resource"), "attributes", |_| {
        unreachable!("a metric has no resource")
    });
    assert_eq!(metric.view().pairs("metadata").count(), 1);
}

/// What a list of attributes is to the structures, of a key that comes twice the last one.
fn model(list: &[o::KeyValue]) -> crate::Map {
    let mut body = Vec::new();
    for pair in list {
        put_bytes(&mut body, 1, &pair.encode_to_vec());
    }
    let mut entries = crate::otlp::value::Entries::default();
    entries.decode(&body, 1);
    entries.into_map()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// Guarantee: the attributes of what is around items are the same list for all of them: what was done
    /// for one is what the next one sees, and what is there at the end is what the last ones left.
    #[test]
    fn attributes_around_items_are_changed_in_turn(
        dice in prop::collection::vec(any::<u8>(), 0..800),
        ops in prop::collection::vec((0..6u8, 0..4usize), 1..40),
    ) {
        const KEYS: [&str; 4] = ["a", "service.name", "new", ""];
        let mut traces = parse(Signal::Traces, Dice::new(&dice).traces().encode_to_vec());
        let before = o::Traces::decode(traces.body()).expect("a request");
        let heads: [(Level, Option<&str>); 3] = [
            (Level::Resource, Some("resource")),
            (Level::Scope, Some("scope")),
            (Level::Item, None),
        ];
        let start = |level: Level, index: [usize; 3]| {
            let resource = &before.resource_spans[index[0]];
            let scope = &resource.scope_spans[index[1]];
            match level {
                Level::Resource => model(&resource.resource.clone().unwrap_or_default().attributes),
                Level::Scope => model(&scope.scope.clone().unwrap_or_default().attributes),
                _ => model(&scope.spans[index[2]].attributes),
            }
        };
        // Where the events are.
        let mut places = Vec::new();
        for (r, resource) in before.resource_spans.iter().enumerate() {
            for (s, scope) in resource.scope_spans.iter().enumerate() {
                for (i, span) in scope.spans.iter().enumerate() {
                    places.extend(std::iter::repeat_n([r, s, i], span.events.len()));
                }
            }
        }
        let mut wanted: std::collections::BTreeMap<(u8, Vec<usize>), crate::Map> = Default::default();
        let mut n = 0;
        traces.revise(Level::Part, &mut |place| {
            let index = places[n];
            for (level, within) in heads {
                let (op, key) = ops[(n + level as usize) % ops.len()];
                let (key, value) = (KEYS[key], crate::Value::Int(n as i64));
                let at = (level as u8, index[..=level as usize].to_vec());
                let map = wanted.entry(at).or_insert_with(|| start(level, index));
                let draft = place.at_mut(level);
                let seen = draft.attribute(within, "attributes", key);
                assert_eq!(seen.as_ref().map(|f| f.as_ref()), map.get(key).map(|v| v.as_ref()));
                match op {
                    0 | 1 => {
                        draft.set_attribute(within, "attributes", key, value.as_ref());
                        map.insert(key, value);
                    }
                    2 => {
                        draft.remove_attribute(within, "attributes", key);
                        map.remove(key);
                    }
                    3 => {
                        draft.attributes(within, "attributes", |list| list.remove_if(|k| k < key));
                        map.retain(|k, _| &**k >= key);
                    }
                    4 => assert_eq!(draft.attributes_apart(within, "attributes").as_ref(), Some(&*map)),
                    _ => {
                        // The fields beside the list.
                        let count = FieldValue::Number(5);
                        draft.set(within, "dropped_attributes_count", count);
                    }
                }
            }
            n += 1;
            true
        }).expect("little");
        prop_assert_eq!(n, places.len());
        let after = o::Traces::decode(traces.body()).expect("a request");
        for ((level, index), map) in wanted {
            let resource = &after.resource_spans[index[0]];
            let scope = |i: usize| &resource.scope_spans[index[i]];
            let list = match level {
                0 => resource.resource.clone().unwrap_or_default().attributes,
                1 => scope(1).scope.clone().unwrap_or_default().attributes,
                _ => scope(1).spans[index[2]].attributes.clone(),
            };
            prop_assert_eq!(model(&list), map);
        }
    }
}

/// Spans without anything under a resource with so many attributes.
fn large(attributes: usize, spans: usize) -> Encoded {
    let pair = |n: usize| o::KeyValue {
        key: format!("key-{n}"),
        value: Some(o::AnyValue {
            value: Some(o::Any::String("v".repeat(100))),
        }),
    };
    let resource = o::Resource {
        attributes: (0..attributes).map(pair).collect(),
        ..Default::default()
    };
    let scope = o::ScopeSpans {
        spans: vec![o::Span::default(); spans],
        ..Default::default()
    };
    let traces = o::Traces {
        resource_spans: vec![o::ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![scope],
            ..Default::default()
        }],
    };
    parse(Signal::Traces, traces.encode_to_vec())
}

/// Guarantee: what reading and setting an attribute of a resource from each span costs does not depend on
/// how large the resource is.
#[test]
fn a_large_resource_is_not_gone_through_for_each_span() {
    let steps = |attributes: usize, spans: usize| {
        let mut traces = large(attributes, spans);
        let (before, mut n) = (super::super::wire::STEPS.get(), 0);
        traces
            .revise(Level::Item, &mut |place| {
                let resource = place.at_mut(Level::Resource);
                let (list, key) = ((Some("resource"), "attributes"), format!("key-{}", n % 50));
                let found = resource.attribute(list.0, list.1, "key-7");
                assert!(found.is_some());
                resource.set_attribute(list.0, list.1, &key, crate::ValueRef::Int(n));
                resource.set_attribute(list.0, list.1, "last", crate::ValueRef::Int(n));
                resource.remove_attribute(list.0, list.1, "key-60");
                place.at_mut(Level::Resource).set(None, "schema_url", BYTES);
                n += 1;
                true
            })
            .expect("linear");
        super::super::wire::STEPS.get() - before
    };
    let (many, spans) = (20_000, 5_000);
    let (resource, all) = (steps(many, 1), steps(many, spans));
    // Per span: a look for a key among so many others, and the span.
    assert!(all < resource + 250 * spans as u64, "{all} {resource}");
    assert!(resource < 200 * many as u64, "{resource}");
}

/// Guarantee: what has to go through all of a resource for each span, and what makes spans longer by all
/// of it, ends at its limit, and the request stays as it was.
#[test]
fn work_and_growth_have_limits() {
    let before = large(20_000, 5_000);
    let run = |visit: &mut dyn FnMut(&mut Place)| {
        let mut traces = before.clone();
        let mut shown = 0;
        let done = traces.revise(Level::Item, &mut |place| {
            shown += 1;
            visit(place);
            true
        });
        assert!(traces == before && shown < 1000);
        done
    };
    let list = (Some("resource"), "attributes");
    let work = run(&mut |place| {
        let all = place.at(Level::Resource).attributes_apart(list.0, list.1);
        assert_eq!(all.map(|m| m.len()), Some(20_000));
    });
    assert_eq!(work, Err(TooMuch::Work));
    let work = run(&mut |place| {
        let resource = place.at_mut(Level::Resource);
        resource.attributes(list.0, list.1, |list| list.remove_if(|_| false));
    });
    assert_eq!(work, Err(TooMuch::Work));
    let long = "x".repeat(1 << 20);
    let growth = run(&mut |place| {
        let value = FieldValue::Bytes(long.as_bytes());
        place.at_mut(Level::Item).set(None, "name", value);
    });
    assert_eq!(growth, Err(TooMuch::Growth));
    let mut n = 0;
    let growth = run(&mut |place| {
        n += 1;
        let resource = place.at_mut(Level::Resource);
        let value = crate::Value::str(&long);
        resource.set_attribute(list.0, list.1, &format!("k{n}"), value.as_ref());
    });
    assert_eq!(growth, Err(TooMuch::Growth));
}
