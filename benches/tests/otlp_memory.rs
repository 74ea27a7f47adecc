//! Guarantee: whatever bytes come as OTLP, what they make us allocate stays in proportion to them.
//! The allocator counts, so these are numbers, not measurements.

use tailwater_benches::allocations::{self, CountingAllocator};
use tailwater_pdata::otlp::edit::{Attributes, Edit, Next, View};
use tailwater_pdata::otlp::{Encoded, Limits, decode_logs, json};
use tailwater_pdata::{LogsBatch, Signal};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Length of the inputs.
const BYTES: usize = 1 << 16;
/// Bytes of columns for each byte of a request: a scope of 6 bytes is a batch of about 560.
const DECODED_MAX: f64 = 128.0;
/// Bytes of a request, or of JSON, for each byte: a list that is changed is decoded and written anew.
const WRITTEN_MAX: f64 = 32.0;
/// What is free in any case: an error, a few empty vectors.
const FREE: usize = 16 << 10;

/// A field with a length.
fn field(number: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut n = body.len();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out.extend_from_slice(body);
    out
}

/// So many of `one` as fit into an input.
fn full(one: &[u8]) -> Vec<u8> {
    one.repeat(BYTES / one.len())
}

fn records(records: &[u8]) -> Vec<u8> {
    field(1, &field(2, records))
}

/// Requests of log records that are as small as possible for what they make.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let key = |n: u32| field(2, &field(6, &field(1, format!("{n:x}").as_bytes())));
    let keys = |n: u32| (0..n).flat_map(|n| field(6, &field(1, format!("{n:x}").as_bytes())));
    let list = |element: &[u8]| records(&field(2, &field(5, &field(5, &full(element)))));
    let mut deep = Vec::new();
    for _ in 0..29 {
        deep = field(5, &field(1, &deep));
    }
    let different: Vec<u8> = (0..8_000).flat_map(key).collect();
    let first = field(2, &keys(16).collect::<Vec<_>>());
    let scope = field(2, &[&first[..], &field(2, b"").repeat(64)].concat());
    let dense = field(2, &keys(400).collect::<Vec<_>>());
    vec![
        ("records", records(&full(&field(2, b"")))),
        (
            "records with a time",
            records(&full(&field(2, b"\x09\x01\0\0\0\0\0\0\0\x10\x01"))),
        ),
        (
            "records with a boolean",
            records(&full(&field(2, &field(5, b"\x10\x01")))),
        ),
        (
            "records with an id",
            records(&full(&field(2, &field(10, b"12345678")))),
        ),
        ("resources", full(&records(&field(2, b"")))),
        ("scopes", field(1, &full(&field(2, &field(2, b""))))),
        (
            "scopes whose first record has keys",
            field(1, &full(&scope)),
        ),
        ("records of different keys", records(&different)),
        (
            "keys of one record",
            records(&field(2, &keys(8_000).collect::<Vec<_>>())),
        ),
        ("records of many keys", records(&full(&dense))),
        ("empty values", list(&field(1, b""))),
        ("empty lists", list(&field(1, &field(5, b"")))),
        ("nested lists", records(&full(&field(2, &field(5, &deep))))),
        (
            "bytes",
            records(&full(&field(2, &field(5, &field(7, b""))))),
        ),
        (
            "bodies twice",
            records(&full(&field(2, &[field(5, b""), field(5, b"")].concat()))),
        ),
        ("not closed", b"\x0a\xff\xff\xff\x07".repeat(BYTES / 5)),
        ("lengths beyond the end", full(b"\x0a\xff\xff\xff\xff\x07")),
    ]
}

/// The most that `work` had allocated at once, for each byte of input.
fn peak<T>(bytes: usize, work: impl FnOnce() -> T) -> (T, f64) {
    let before = allocations::reset_peak();
    let out = work();
    let most = (allocations::peak() - before).max(0) as usize;
    (out, most.saturating_sub(FREE) as f64 / bytes as f64)
}

struct Add;

impl Edit for Add {
    fn resource(&mut self, attributes: &mut Attributes<'_>) -> Next {
        add(attributes);
        Next::Look
    }

    fn item(&mut self, _: &View<'_>, attributes: &mut Attributes<'_>) -> bool {
        add(attributes);
        true
    }
}

fn add(attributes: &mut Attributes<'_>) {
    attributes.update(|map| {
        map.insert("k", 1);
        true
    });
}

#[test]
fn memory_stays_in_proportion_to_the_input() {
    let limits = Limits::default();
    for (name, body) in hostile() {
        let bytes = body.len();
        let parse = || Encoded::parse(Signal::Logs, body.into(), &limits);
        let (parsed, of_parse) = peak(bytes, parse);
        assert_eq!(of_parse, 0.0, "{name}: parse");
        let Ok(logs) = parsed else {
            println!("{name}: refused");
            continue;
        };
        let (batches, of_decode) = peak(bytes, || decode_logs(&logs));
        let rows: usize = batches.iter().map(LogsBatch::rows).sum();
        let (again, of_encode) = peak(bytes, || Encoded::from_logs(&batches));
        assert_eq!((rows, again.items()), (logs.items(), rows), "{name}");
        drop((batches, again));
        let (_, of_split) = peak(bytes, || logs.clone().split(1000));
        let (_, of_edit) = peak(bytes, || logs.clone().edit(&mut Add));
        let mut text = Vec::new();
        let (_, of_json) = peak(bytes, || logs.write_json(&mut text));
        let (_, of_read) = peak(text.len(), || json::to_proto(Signal::Logs, &text, &limits));
        assert!(
            of_decode <= DECODED_MAX,
            "{name}: {of_decode} bytes of columns per byte"
        );
        let others = [of_encode, of_split, of_edit, of_json, of_read];
        assert!(
            others.iter().all(|of| *of <= WRITTEN_MAX),
            "{name}: {others:?} bytes per byte"
        );
        println!(
            "{name}: {rows} records, bytes per byte: decode {of_decode:.1}, encode {of_encode:.1}, \
             split {of_split:.1}, edit {of_edit:.1}, JSON {of_json:.1}, from JSON {of_read:.1}"
        );
    }
}
