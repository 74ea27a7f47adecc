//! Cutting requests, against what `prost` reads of the whole and of the pieces.

use proptest::prelude::*;
use prost::Message;

use super::oracle::{self as o, Data};
use super::samples::Dice;
use super::tests::len;
use super::*;
use crate::Signal;

fn parse(signal: Signal, body: Vec<u8>) -> Encoded {
    Encoded::parse(signal, body.into(), &Limits::default()).expect("a request")
}

/// Each item with all that is around it.
fn items(signal: Signal, body: &[u8]) -> Vec<String> {
    let mut out = Vec::new();
    match signal {
        Signal::Logs => {
            for r in &o::Logs::decode(body).expect("logs").resource_logs {
                for s in &r.scope_logs {
                    let around = (&r.resource, &r.schema_url, &s.scope, &s.schema_url);
                    out.extend(s.log_records.iter().map(|l| format!("{around:?} {l:?}")));
                }
            }
        }
        Signal::Traces => {
            for r in &o::Traces::decode(body).expect("traces").resource_spans {
                for s in &r.scope_spans {
                    let around = (&r.resource, &r.schema_url, &s.scope, &s.schema_url);
                    out.extend(s.spans.iter().map(|l| format!("{around:?} {l:?}")));
                }
            }
        }
        Signal::Metrics => {
            for r in &o::Metrics::decode(body).expect("metrics").resource_metrics {
                for s in &r.scope_metrics {
                    let around = (&r.resource, &r.schema_url, &s.scope, &s.schema_url);
                    for m in &s.metrics {
                        out.extend(points(m).iter().map(|p| format!("{around:?} {p}")));
                    }
                }
            }
        }
    }
    out
}

/// Each item without what is around it, but for its metric, sorted.
fn bare(signal: Signal, body: &[u8]) -> Vec<String> {
    let mut out: Vec<String> = match signal {
        Signal::Logs => {
            let resources = o::Logs::decode(body).expect("logs").resource_logs;
            let scopes = resources.into_iter().flat_map(|r| r.scope_logs);
            let records = scopes.flat_map(|s| s.log_records);
            records.map(|l| format!("{l:?}")).collect()
        }
        Signal::Traces => {
            let resources = o::Traces::decode(body).expect("traces").resource_spans;
            let scopes = resources.into_iter().flat_map(|r| r.scope_spans);
            scopes
                .flat_map(|s| s.spans)
                .map(|s| format!("{s:?}"))
                .collect()
        }
        Signal::Metrics => {
            let resources = o::Metrics::decode(body).expect("metrics").resource_metrics;
            let scopes = resources.into_iter().flat_map(|r| r.scope_metrics);
            scopes
                .flat_map(|s| s.metrics)
                .flat_map(|m| points(&m))
                .collect()
        }
    };
    out.sort();
    out
}

/// Each point as a metric by itself.
fn points(m: &o::Metric) -> Vec<String> {
    let mut out = Vec::new();
    macro_rules! each {
        ($kind:ident, $data:expr) => {
            for point in &$data.data_points {
                let mut one = $data.clone();
                one.data_points = vec![point.clone()];
                let data = Some(Data::$kind(one));
                out.push(format!("{:?}", o::Metric { data, ..m.clone() }));
            }
        };
    }
    match &m.data {
        None => {}
        Some(Data::Gauge(d)) => each!(Gauge, d),
        Some(Data::Sum(d)) => each!(Sum, d),
        Some(Data::Histogram(d)) => each!(Histogram, d),
        Some(Data::Exponential(d)) => each!(Exponential, d),
        Some(Data::Summary(d)) => each!(Summary, d),
    }
    out
}

/// What pieces must be: requests that say how many items they have, which are those of the whole.
fn are_whole(whole: &Encoded, pieces: &[Encoded]) -> Result<(), TestCaseError> {
    let mut found = Vec::new();
    for piece in pieces {
        let signal = whole.signal();
        let again = parse(signal, piece.body().to_vec());
        prop_assert_eq!(again.items(), piece.items());
        for (chunk, part) in piece.chunks().zip(piece.parts()) {
            prop_assert_eq!(parse(signal, chunk.to_vec()).items(), part.items);
        }
        found.extend(items(signal, &piece.body()));
    }
    prop_assert_eq!(found, items(whole.signal(), &whole.body()));
    Ok(())
}

fn cut(whole: &Encoded, max: usize) -> Result<(), TestCaseError> {
    let pieces = whole.clone().split(max);
    are_whole(whole, &pieces)?;
    let (last, full) = pieces.split_last().expect("one piece at least");
    prop_assert!(full.iter().all(|p| p.items() == max));
    prop_assert!(last.items() <= max);
    let mut head = whole.clone();
    let tail = head.split_off(max);
    prop_assert_eq!(head.items(), max.min(whole.items()));
    are_whole(whole, &[head, tail])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_hold_each_item_once_with_all_around_it(
        dice in prop::collection::vec(any::<u8>(), 0..800),
        max in 1..8usize,
    ) {
        let mut dice = Dice::new(&dice);
        for (signal, body, more) in [
            (Signal::Traces, dice.traces().encode_to_vec(), dice.traces().encode_to_vec()),
            (Signal::Logs, dice.logs().encode_to_vec(), dice.logs().encode_to_vec()),
            (Signal::Metrics, dice.metrics().encode_to_vec(), dice.metrics().encode_to_vec()),
        ] {
            let mut whole = parse(signal, body);
            whole.append(parse(signal, more));
            cut(&whole, max)?;
        }
    }

    /// Guarantees that regrouping keeps each item as it is, and that what it writes is well formed; with
    /// keys, that attributes move and are then gone.
    #[test]
    fn regrouping_keeps_each_item(dice in prop::collection::vec(any::<u8>(), 0..800)) {
        let mut dice = Dice::new(&dice);
        for (signal, body, more) in [
            (Signal::Traces, dice.traces().encode_to_vec(), dice.traces().encode_to_vec()),
            (Signal::Logs, dice.logs().encode_to_vec(), dice.logs().encode_to_vec()),
            (Signal::Metrics, dice.metrics().encode_to_vec(), dice.metrics().encode_to_vec()),
        ] {
            let mut whole = parse(signal, body);
            whole.append(parse(signal, more));
            let (together, told) = whole.group_by_attributes(&[]);
            prop_assert_eq!((told.grouped, told.left), (0, 0));
            prop_assert_eq!(bare(signal, &together.body()), bare(signal, &whole.body()));
            prop_assert_eq!(parse(signal, together.body().to_vec()).items(), whole.items());
            let keys = ["a".into(), "x".into()];
            let (moved, told) = whole.group_by_attributes(&keys);
            prop_assert_eq!(told.grouped + told.not_grouped, whole.items());
            prop_assert_eq!(parse(signal, moved.body().to_vec()).items(), whole.items());
            let (_, again) = moved.group_by_attributes(&keys);
            prop_assert_eq!((again.grouped, again.not_grouped), (0, whole.items()));
            prop_assert_eq!(again.resources, told.resources);
        }
    }

    /// Fields in any order, metrics in pieces.
    #[test]
    fn strange_metrics_lose_nothing(
        dice in prop::collection::vec(any::<u8>(), 0..800),
        pieces in 1..4usize,
        max in 1..4usize,
    ) {
        let mut dice = Dice::new(&dice);
        let mut metric = || len(2, &(0..pieces).flat_map(|_| dice.metric().encode_to_vec()).collect::<Vec<_>>());
        let scope = [metric(), len(3, b"url"), metric(), len(1, &len(1, b"scope"))].concat();
        let body = len(1, &[len(2, &scope), len(2, &metric()), len(3, b"u")].concat());
        let whole = parse(Signal::Metrics, body);
        are_whole(&whole, &whole.clone().split(max))?;
        let mut head = whole.clone();
        let tail = head.split_off(max);
        are_whole(&whole, &[head, tail])?;
    }
}

#[test]
fn what_is_not_cut_is_not_copied() {
    let resource = |n| len(1, &len(2, &len(2, b"\x10\x09").repeat(n)));
    let whole = parse(
        Signal::Logs,
        [resource(3), resource(4), resource(5)].concat(),
    );
    let body = whole.body();
    let within = |e: &Encoded| {
        let shares = |c: &&bytes::Bytes| body.as_ptr_range().contains(&c.as_ptr());
        e.chunks().filter(shares).count()
    };
    let mut head = whole.clone();
    let tail = head.split_off(7);
    assert_eq!(
        (head.items(), head.chunks().len(), within(&head)),
        (7, 1, 1)
    );
    assert_eq!(
        (tail.items(), tail.chunks().len(), within(&tail)),
        (5, 1, 1)
    );
    let mut head = whole.clone();
    let tail = head.split_off(5);
    assert_eq!((head.chunks().len(), within(&head)), (2, 1));
    assert_eq!((tail.chunks().len(), within(&tail)), (2, 1));
}

#[test]
fn the_ends_of_the_range_are_no_cuts() {
    let whole = parse(Signal::Logs, len(1, &len(2, &len(2, b"").repeat(3))));
    assert_eq!(whole.clone().split(0), std::slice::from_ref(&whole));
    assert_eq!(whole.clone().split(3), std::slice::from_ref(&whole));
    let mut head = whole.clone();
    assert!(head.split_off(3).is_empty());
    assert_eq!(head, whole);
    assert_eq!(head.split_off(0), whole);
    assert!(head.is_empty());
}
