//! The same for log records, as columns and as they came.

use bytes::Bytes;
use tailwater_pdata::otlp::{Encoded, decode_logs};
use tailwater_pdata::{Entry, LogsBatch, Map, Signal, TraceColumns, Value};
use tailwater_pipeline::{Outcome, Payload};

use super::probability::Randomness;
use super::tests::{HALF, run, sampler};

/// An attribute.
type Pair = (&'static str, Value);
/// A record: its trace id and its attributes.
type Record = ([u8; 16], Vec<Pair>);

/// The hundred records of the collector's test.
fn hundred() -> Vec<Record> {
    let record = |i: u8| {
        let mut id = [0; 16];
        id[8..].fill(i);
        let mut attributes = Vec::new();
        if i.is_multiple_of(2) {
            let hex: String = match i {
                0 => String::new(),
                _ => id.iter().map(|b| format!("{b:02x}")).collect(),
            };
            let bytes = Value::Bytes(Bytes::copy_from_slice(&id));
            attributes.push(("foo", bytes));
            attributes.push(("bar", Value::str(hex)));
        }
        if i.is_multiple_of(4) {
            attributes.push(("priority", Value::Double(100.0)));
        }
        (id, attributes)
    };
    (0..100).map(record).collect()
}

fn batch(records: &[Record]) -> LogsBatch {
    let entries: Vec<Entry> = records
        .iter()
        .map(|(_, attributes)| Entry {
            attributes: attributes.iter().cloned().collect::<Map>(),
            ..Entry::default()
        })
        .collect();
    let mut logs = LogsBatch::from_entries(&entries);
    logs.trace = Some(Box::new(TraceColumns {
        trace_id: records.iter().map(|(id, _)| *id).collect(),
        span_id: vec![[0; 8]; records.len()],
        flags: vec![0; records.len()],
    }));
    logs
}

/// Records with their attributes, in a form that can be compared.
fn contents(data: Option<Payload>) -> Vec<Map> {
    let batches = data.into_iter().flat_map(Payload::into_logs);
    batches
        .flat_map(|logs| {
            let attributes: Vec<Map> = (0..logs.rows())
                .map(|row| logs.attributes_of(row))
                .collect();
            attributes
        })
        .collect()
}

#[test]
fn records_are_sampled_as_the_collector_does_in_both_forms() {
    for (yaml, expect) in [
        ("{sampling_percentage: 100}", 99),
        ("{sampling_percentage: 100, fail_closed: false}", 100),
        ("{sampling_percentage: 0}", 0),
        ("{sampling_percentage: 50}", 45),
        (
            "{sampling_percentage: 100, attribute_source: record, from_attribute: foo, fail_closed: false}",
            100,
        ),
        (
            "{sampling_percentage: 50, attribute_source: record, from_attribute: foo}",
            23,
        ),
        (
            "{sampling_percentage: 50, attribute_source: record, from_attribute: bar}",
            29,
        ),
        (
            "{sampling_percentage: 0, sampling_priority: priority, attribute_source: record, from_attribute: foo}",
            25,
        ),
        ("{sampling_percentage: 0, sampling_priority: priority}", 25),
        (
            "{sampling_percentage: 50, sampling_priority: priority, fail_closed: false}",
            57,
        ),
        (
            "{sampling_percentage: 100, sampling_priority: priority}",
            100,
        ),
    ] {
        let logs = batch(&hundred());
        let encoded = Encoded::from_logs([&logs]);
        assert_eq!(decode_logs(&encoded).len(), 1);
        let (columns, told) = run(&mut sampler(yaml, Signal::Logs), logs);
        let (request, _) = run(&mut sampler(yaml, Signal::Logs), encoded);
        let columns = contents(columns);
        assert_eq!(columns.len(), expect, "{yaml}");
        let [(outcome, filtered)] = told.0.lock().unwrap()[..] else {
            panic!("told once");
        };
        assert_eq!(filtered as usize, 100 - expect);
        let none = outcome == Outcome::Filtered;
        assert_eq!(none, expect == 0);
        assert_eq!(
            contents(request),
            columns,
            "{yaml}: both forms are the same"
        );
    }
}

/// The attributes of a record after sampling, in both forms; `None` if it is not sampled.
fn record(yaml: &str, tid: &str, attributes: &[Pair]) -> Option<Map> {
    let id = u128::from_str_radix(tid, 16).unwrap().to_be_bytes();
    let logs = batch(&[(id, attributes.to_vec())]);
    let encoded = Encoded::from_logs([&logs]);
    let (columns, _) = run(&mut sampler(yaml, Signal::Logs), logs);
    let (request, _) = run(&mut sampler(yaml, Signal::Logs), encoded);
    let (mut columns, request) = (contents(columns), contents(request));
    let sorted = |maps: &[Map]| -> Vec<Vec<String>> {
        let text = |m: &Map| m.iter().map(|(k, v)| format!("{k} {v:?}")).collect();
        let mut all: Vec<Vec<String>> = maps.iter().map(text).collect();
        all.iter_mut().for_each(|m| m.sort());
        all
    };
    assert_eq!(sorted(&columns), sorted(&request), "{yaml}");
    columns.pop()
}

#[test]
fn records_carry_what_was_done_in_attributes() {
    let rv = |bytes: &[u8], seed| {
        let text = Randomness::of_hash(bytes, seed).text();
        Value::str(String::from_utf8(text.to_vec()).unwrap())
    };
    let id = u128::from_str_radix(HALF, 16).unwrap().to_be_bytes();
    let (th, rand) = ("sampling.threshold", "sampling.randomness");
    for (yaml, tid, attributes, expect) in [
        (
            "{sampling_percentage: 100, mode: proportional}",
            HALF,
            vec![("ignored", Value::str("v"))],
            Some(vec![("ignored", Value::str("v")), (th, Value::str("0"))]),
        ),
        (
            "{sampling_percentage: 100, hash_seed: 22}",
            HALF,
            vec![("K", Value::str("V"))],
            Some(vec![
                ("K", Value::str("V")),
                (th, Value::str("0")),
                (rand, rv(&id, 22)),
            ]),
        ),
        (
            "{sampling_percentage: 100, attribute_source: record, from_attribute: r, hash_seed: 49}",
            HALF,
            vec![("r", Value::str("1234"))],
            Some(vec![
                ("r", Value::str("1234")),
                (th, Value::str("0")),
                (rand, rv(b"1234", 49)),
            ]),
        ),
        (
            "{sampling_percentage: 100, attribute_source: record, from_attribute: r}",
            HALF,
            vec![("r", Value::Int(1234))],
            Some(vec![
                ("r", Value::Int(1234)),
                (th, Value::str("0")),
                (rand, rv(b"1234", 0)),
            ]),
        ),
        ("{sampling_percentage: 0}", HALF, vec![], None),
        (
            "{sampling_percentage: 0, sampling_priority: p, sampling_precision: 6}",
            HALF,
            vec![
                (rand, Value::str("e6147c00000000")),
                ("p", Value::Double(10.125)),
            ],
            Some(vec![
                (rand, Value::str("e6147c00000000")),
                ("p", Value::Double(10.125)),
                (th, Value::str("e6147b")),
            ]),
        ),
        (
            "{sampling_percentage: 50, mode: proportional}",
            "fefefefefefefefefef0000000000000",
            vec![(th, Value::str("c"))],
            Some(vec![(th, Value::str("e"))]),
        ),
        (
            "{sampling_percentage: 50, mode: equalizing}",
            "fefefefefefefefefeb0000000000000",
            vec![(th, Value::str("c"))],
            None,
        ),
        (
            "{sampling_percentage: 50, mode: equalizing, fail_closed: false}",
            "fefefefefefefefefeb0000000000000",
            vec![(th, Value::str("c"))],
            Some(vec![(th, Value::str("0"))]),
        ),
        (
            "{sampling_percentage: 50, mode: equalizing, sampling_priority: p}",
            "fefefefefefefefefefefefefefefefe",
            vec![(th, Value::str("c")), ("p", Value::Int(37))],
            Some(vec![(th, Value::str("c")), ("p", Value::Int(37))]),
        ),
        (
            "{sampling_percentage: 100, fail_closed: false}",
            HALF,
            vec![(rand, Value::str("f2341234123412"))],
            Some(vec![(rand, Value::str("f2341234123412"))]),
        ),
        (
            "{sampling_percentage: 100}",
            HALF,
            vec![(rand, Value::str("short"))],
            None,
        ),
    ] {
        let got = record(yaml, tid, &attributes);
        assert_eq!(got, expect.map(|e| e.into_iter().collect()), "{yaml}");
    }
}
