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
                });
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
        });
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
        });
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
        });
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
    metrics.revise(Level::Item, &mut |place| {
        let copy = place.at(Level::Item).clone();
        added += usize::from(place.add_metric(&copy));
        true
    });
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
