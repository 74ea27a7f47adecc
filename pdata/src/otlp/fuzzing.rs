//! What the codec must do with any bytes. Bodies of fuzz targets: they panic where it does not hold.
//!
//! The first byte of an input says which signal it is of: `l`, `m` or `t`.

use prost::Message;

use super::edit::{Attributes, Edit, Next, View};
use super::json::{from_proto, to_proto};
use super::{Encoded, Limits, PickLimits, Problem, WireError, decode_logs, oracle};
use crate::{Entry, LogsBatch, Signal};

/// As deep as `prost` reads.
const LIMITS: Limits = Limits {
    depth: Limits::DEPTH_MAX,
    items: usize::MAX,
    scopes: usize::MAX,
    attributes: usize::MAX,
};

fn signal(data: &[u8]) -> Option<(Signal, usize, &[u8])> {
    let (first, rest) = data.split_first()?;
    let signal = match first % 3 {
        0 => Signal::Logs,
        1 => Signal::Metrics,
        _ => Signal::Traces,
    };
    Some((signal, usize::from(first / 3), rest))
}

fn parse(signal: Signal, body: &[u8]) -> Result<Encoded, WireError> {
    Encoded::parse(signal, body.to_vec().into(), &LIMITS)
}

fn json(signal: Signal, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    from_proto(signal, body, &mut out).expect("a request");
    out
}

/// What `prost` reads of a request: the number of items, and all of it, encoded again.
fn by_prost(signal: Signal, body: &[u8]) -> Option<(usize, Vec<u8>)> {
    match signal {
        Signal::Logs => {
            let read = oracle::Logs::decode(body).ok()?;
            Some((read.items(), read.encode_to_vec()))
        }
        Signal::Metrics => {
            let read = oracle::Metrics::decode(body).ok()?;
            Some((read.items(), read.encode_to_vec()))
        }
        Signal::Traces => {
            let read = oracle::Traces::decode(body).ok()?;
            Some((read.items(), read.encode_to_vec()))
        }
    }
}

/// What `prost` refuses is refused; what it reads is the same after the way through JSON, so fields
/// given twice, in pieces or in any order are understood alike. Groups are refused by us alone.
pub fn agrees(signal: Signal, body: &[u8]) {
    match (parse(signal, body), by_prost(signal, body)) {
        (Ok(ours), Some((items, theirs))) => {
            assert_eq!(ours.items(), items);
            let text = json(signal, body);
            let again = to_proto(signal, &text, &LIMITS);
            // JSON is not read as deep as protobuf.
            let Ok(again) = again.map_err(|e| assert!(is_too_deep(&e.problem), "{e}")) else {
                return;
            };
            assert_eq!(json(signal, &again), text);
            assert_eq!(
                by_prost(signal, &again).map(|(items, _)| items),
                Some(items)
            );
            // In JSON there is one NaN.
            assert_eq!(json(signal, &theirs), text);
        }
        (Err(e), Some(_)) => assert_eq!(e.problem, Problem::Type(3), "{e}"),
        (Ok(_), None) => panic!("prost refuses it"),
        (Err(_), None) => {}
    }
}

fn is_too_deep(problem: &str) -> bool {
    problem.contains("recursion limit") || problem.contains("nested deeper")
}

/// Protobuf: read as `prost` does; cut, changed and turned into columns without a loss.
pub fn proto(data: &[u8]) {
    let Some((signal, max, body)) = signal(data) else {
        return;
    };
    agrees(signal, body);
    let Ok(whole) = parse(signal, body) else {
        return;
    };
    pieces(&whole, max % 16 + 1);
    each_item(&whole, max);
    changes(&whole);
    match signal {
        Signal::Logs => columns(&whole),
        Signal::Metrics => super::rewrite::fuzzing::agrees(&whole),
        Signal::Traces => {}
    }
}

fn pieces(whole: &Encoded, max: usize) {
    let pieces = whole.clone().split(max);
    let items = |pieces: &[Encoded]| pieces.iter().map(Encoded::items).sum::<usize>();
    assert_eq!(items(&pieces), whole.items());
    let mut head = whole.clone();
    let tail = head.split_off(max);
    assert_eq!(head.items() + tail.items(), whole.items());
    for piece in pieces.iter().chain([&head, &tail]) {
        let again = parse(whole.signal(), &piece.body()).expect("a piece is a request");
        assert_eq!(again.items(), piece.items());
    }
}

/// Each item is there by itself, and is JSON; cut short, too, in proportion to what is allowed.
fn each_item(whole: &Encoded, bytes: usize) {
    let all: Vec<usize> = (0..whole.items()).collect();
    let text_bytes = bytes % 8;
    let limits = [usize::MAX, bytes].map(|bytes| PickLimits { text_bytes, bytes });
    for limits in limits {
        let picked = whole.pick(&all, limits);
        assert_eq!(picked.len(), whole.items());
        // What is deeply nested is no JSON to who reads it here.
        for picked in picked.iter().filter(|_| limits.bytes < usize::MAX) {
            let mut out = b"{".to_vec();
            picked.write_json(&mut out);
            out.push(b'}');
            let read: Result<serde_json::Value, _> = serde_json::from_slice(&out);
            if let Err(e) = read {
                assert!(is_too_deep(&e.to_string()), "{e}");
            }
            assert!(out.len() < 600 + 40 * bytes, "{} of {bytes}", out.len());
        }
    }
}

struct Change;

impl Edit for Change {
    fn resource(&mut self, attributes: &mut Attributes<'_>) -> Next {
        mark(attributes);
        Next::Look
    }

    fn scope(&mut self, scope: &View<'_>, attributes: &mut Attributes<'_>) -> Next {
        assert!(std::str::from_utf8(scope.bytes("name")).is_ok());
        mark(attributes);
        Next::Look
    }

    fn item(&mut self, _: &View<'_>, attributes: &mut Attributes<'_>) -> bool {
        mark(attributes);
        true
    }
}

fn mark(attributes: &mut Attributes<'_>) {
    let seen = attributes
        .iter()
        .map(|(key, value)| (key, value.as_ref().to_value()));
    let seen: crate::Map = seen.collect();
    attributes.update(|map| {
        assert_eq!(*map, seen);
        map.insert("mark", 1);
        true
    });
    attributes.set("mark", crate::ValueRef::Bool(true));
    attributes.remove_if(|key| key != "mark");
    assert_eq!(attributes.iter().count(), 1);
}

struct Nothing;
impl Edit for Nothing {}

struct All(bool);
impl Edit for All {
    fn item(&mut self, _: &View<'_>, _: &mut Attributes<'_>) -> bool {
        self.0
    }
}

fn changes(whole: &Encoded) {
    let edited = |edit: &mut dyn Edit| {
        let mut edited = whole.clone();
        edited.edit(edit);
        let again = parse(whole.signal(), &edited.body());
        let again = again
            .map_err(|e| e.problem)
            .expect("what was changed is a request");
        assert_eq!(again.items(), edited.items());
        edited
    };
    assert_eq!(edited(&mut Nothing), *whole);
    assert_eq!(edited(&mut All(true)), *whole);
    assert_eq!(edited(&mut All(false)).items(), 0);
    assert_eq!(edited(&mut Change).items(), whole.items());
}

fn entries(batches: &[LogsBatch]) -> Vec<Entry> {
    batches.iter().flat_map(LogsBatch::to_entries).collect()
}

fn columns(whole: &Encoded) {
    let batches = decode_logs(whole);
    assert_eq!(
        batches.iter().map(LogsBatch::rows).sum::<usize>(),
        whole.items()
    );
    let again = Encoded::from_logs(&batches);
    assert_eq!(again.items(), whole.items());
    assert!(parse(Signal::Logs, &again.body()).is_ok());
    assert_eq!(entries(&decode_logs(&again)), entries(&batches));
}

/// JSON: what is taken is JSON, and comes back from protobuf as what it meant.
pub fn text(data: &[u8]) {
    let Some((signal, _, text)) = signal(data) else {
        return;
    };
    let Ok(body) = to_proto(signal, text, &LIMITS) else {
        return;
    };
    assert!(serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok());
    // The longest way of saying nothing is a fixed number of eight bytes in a list, for two of text.
    assert!(body.len() <= 8 * text.len());
    let written = json(signal, &body);
    match to_proto(signal, &written, &LIMITS) {
        Ok(again) => assert_eq!(again, body),
        Err(e) => assert!(is_too_deep(&e.problem), "{e}"),
    }
    agrees(signal, &body);
}
