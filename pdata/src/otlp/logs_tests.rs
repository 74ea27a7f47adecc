//! Log records to and from columns, against `prost`.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use super::oracle::{self as o, Any};
use super::samples::Dice;
use super::*;
use crate::{
    Cell, Column, Entry, LogsBatch, Map, OtlpFields, ResourceFields, Scope, Signal, Value,
};

fn parse(body: impl Into<Bytes>) -> Encoded {
    Encoded::parse(Signal::Logs, body.into(), &Limits::default()).expect("a request")
}

/// What a batch says of a record, in the words of the oracle.
#[derive(Debug, PartialEq)]
struct Seen {
    entry: Entry,
    scope: Scope,
    resource: ResourceFields,
}

fn seen(batches: &[LogsBatch]) -> Vec<Seen> {
    let of = |b: &LogsBatch| {
        let fields = b.otlp.as_deref().map(|o| (*o.resource).clone());
        let (scope, resource) = ((*b.scope).clone(), fields.unwrap_or_default());
        let entries = b.to_entries().into_iter();
        let seen = entries.map(move |entry| Seen {
            entry,
            scope: scope.clone(),
            resource: resource.clone(),
        });
        seen.collect::<Vec<_>>()
    };
    batches.iter().flat_map(of).collect()
}

fn value(v: &o::AnyValue) -> Value {
    match &v.value {
        None => Value::Null,
        Some(Any::String(s)) => Value::str(s),
        Some(Any::Bool(b)) => Value::Bool(*b),
        Some(Any::Int(i)) => Value::Int(*i),
        Some(Any::Double(d)) => Value::Double(*d),
        Some(Any::Array(a)) => Value::List(a.values.iter().map(value).collect()),
        Some(Any::Map(m)) => Value::Map(map(&m.values)),
        Some(Any::Bytes(b)) => Value::Bytes(b.clone().into()),
    }
}

fn map(pairs: &[o::KeyValue]) -> Map {
    let pair = |p: &o::KeyValue| {
        (
            p.key.clone(),
            p.value.as_ref().map(value).unwrap_or_default(),
        )
    };
    pairs.iter().map(pair).collect()
}

fn time(ns: u64) -> i64 {
    ns.min(i64::MAX as u64) as i64
}

/// What `logs` has to become.
fn wanted(logs: &o::Logs) -> Vec<Seen> {
    let mut out = Vec::new();
    for r in &logs.resource_logs {
        let resource = r.resource.clone().unwrap_or_default();
        let refs = o::Resource {
            entity_refs: resource.entity_refs.clone(),
            ..Default::default()
        };
        for s in &r.scope_logs {
            let scope = s.scope.clone().unwrap_or_default();
            let record = |l: &o::LogRecord| Seen {
                entry: Entry {
                    time: time(l.time_unix_nano),
                    observed: time(l.observed_time_unix_nano),
                    severity: l.severity_number as u8,
                    severity_text: l.severity_text.clone(),
                    body: l.body.as_ref().map(value).unwrap_or_default(),
                    attributes: map(&l.attributes),
                    resource: map(&resource.attributes),
                    scope_name: scope.name.clone(),
                    trace_id: l.trace_id.as_slice().try_into().unwrap_or_default(),
                    span_id: l.span_id.as_slice().try_into().unwrap_or_default(),
                    flags: l.flags,
                    event_name: l.event_name.clone(),
                    dropped_attributes: l.dropped_attributes_count,
                },
                scope: Scope {
                    name: scope.name.as_str().into(),
                    version: scope.version.as_str().into(),
                    attributes: map(&scope.attributes),
                    dropped_attributes: scope.dropped_attributes_count,
                    schema_url: s.schema_url.as_str().into(),
                },
                resource: ResourceFields {
                    schema_url: r.schema_url.as_str().into(),
                    dropped_attributes: resource.dropped_attributes_count,
                    entity_refs: refs.encode_to_vec().into(),
                },
            };
            out.extend(s.log_records.iter().map(record));
        }
    }
    out
}

fn encode(batches: &[LogsBatch]) -> Vec<u8> {
    let mut out = Vec::new();
    batches.iter().for_each(|b| encode_logs(b, &mut out));
    out
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Nothing of a record is lost on the way to columns and back.
    #[test]
    fn columns_hold_what_prost_reads(dice in prop::collection::vec(any::<u8>(), 0..800)) {
        let logs = Dice::new(&dice).logs();
        let body = parse(logs.encode_to_vec());
        prop_assert_eq!(body.items(), logs.items());
        let batches = decode_logs(&body);
        prop_assert_eq!(seen(&batches), wanted(&logs));
        let again = encode(&batches);
        let read = o::Logs::decode(&*again).expect("what we encode");
        prop_assert_eq!(seen(&batches), wanted(&read));
        let encoded = parse(again);
        prop_assert_eq!(encoded.items(), logs.items());
        prop_assert_eq!(seen(&decode_logs(&encoded)), seen(&batches));
        prop_assert_eq!(Encoded::from_logs(&batches), encoded);
    }

    /// What has been walked is decoded without a panic, and holds as many records as was said.
    #[test]
    fn damaged_requests_are_refused_or_whole(
        dice in prop::collection::vec(any::<u8>(), 0..400),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut body = Dice::new(&dice).logs().encode_to_vec();
        body.push(0);
        body.truncate(cut.index(body.len()) + 1);
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Ok(encoded) = Encoded::parse(Signal::Logs, body.into(), &Limits::default()) {
            let rows = decode_logs(&encoded).iter().map(LogsBatch::rows).sum::<usize>();
            prop_assert_eq!(rows, encoded.items());
        }
    }
}

#[test]
fn values_given_twice_are_what_prost_makes_of_them() {
    let string = |s: &str| o::AnyValue {
        value: Some(Any::String(s.into())),
    };
    let list = |n| o::AnyValue {
        value: Some(Any::Array(o::ArrayValue {
            values: vec![string(n)],
        })),
    };
    let kv = |key: &str| o::AnyValue {
        value: Some(Any::Map(o::KeyValueList {
            values: vec![o::KeyValue {
                key: key.into(),
                value: Some(string("v")),
            }],
        })),
    };
    let bytes = o::AnyValue {
        value: Some(Any::Bytes(vec![1, 2])),
    };
    let empty = o::AnyValue { value: None };
    let values = [
        string("a"),
        list("x"),
        list("y"),
        kv("k"),
        kv("l"),
        bytes,
        empty,
    ];
    for (a, b) in values
        .iter()
        .flat_map(|a| values.iter().map(move |b| (a, b)))
    {
        let body = |v: &o::AnyValue| o::LogRecord {
            body: Some(v.clone()),
            ..Default::default()
        };
        let key = |v: Option<&o::AnyValue>, key: &str| o::KeyValue {
            key: key.into(),
            value: v.cloned(),
        };
        // Two bodies; an attribute with two values; two bodies' worth of fields in one.
        let mut record = [body(a).encode_to_vec(), body(b).encode_to_vec()].concat();
        let pair = [
            key(Some(a), "k").encode_to_vec(),
            key(Some(b), "").encode_to_vec(),
        ]
        .concat();
        record.extend(super::tests::len(6, &pair));
        let joined = [a.encode_to_vec(), b.encode_to_vec()].concat();
        let pair = [
            key(None, "j").encode_to_vec(),
            super::tests::len(2, &joined),
        ]
        .concat();
        record.extend(super::tests::len(6, &pair));
        let body = super::tests::log(&record);
        let wanted = wanted(&o::Logs::decode(&*body).expect("valid"));
        assert_eq!(seen(&decode_logs(&parse(body))), wanted, "{a:?} then {b:?}");
    }
}

#[test]
fn fields_may_come_in_any_order_and_in_pieces() {
    use super::tests::len;
    let record = len(2, &len(5, &len(1, b"text")));
    let scope = [
        record,
        len(3, b"url"),
        len(1, &len(1, b"na")),
        len(1, &len(2, b"1")),
    ]
    .concat();
    let pair = |k: &[u8]| len(1, &[len(1, k), len(2, &len(1, b"v"))].concat());
    let resource = [
        len(2, &scope),
        len(1, &pair(b"a")),
        len(3, b"r"),
        len(1, &pair(b"b")),
    ];
    let body = len(1, &resource.concat());
    let batches = decode_logs(&parse(body.clone()));
    assert_eq!(
        seen(&batches),
        wanted(&o::Logs::decode(&*body).expect("valid"))
    );
    assert_eq!(batches[0].resource.len(), 2);
    assert_eq!(
        (&*batches[0].scope.name, &*batches[0].scope.version),
        ("na", "1")
    );
}

#[test]
fn text_and_bytes_are_not_copied() {
    let record = |n: u8| o::LogRecord {
        body: Some(o::AnyValue {
            value: Some(Any::String(format!("line {n}"))),
        }),
        attributes: vec![o::KeyValue {
            key: "raw".into(),
            value: Some(o::AnyValue {
                value: Some(Any::Bytes(vec![n; 3])),
            }),
        }],
        ..Default::default()
    };
    let logs = o::Logs {
        resource_logs: vec![o::ResourceLogs {
            scope_logs: vec![o::ScopeLogs {
                log_records: vec![record(1), record(2)],
                ..Default::default()
            }],
            ..Default::default()
        }],
    };
    let body = parse(logs.encode_to_vec());
    let batch = decode_logs(&body).remove(0);
    let within = |bytes: &[u8]| body.body().as_ptr_range().contains(&bytes.as_ptr());
    for row in 0..2 {
        assert!(within(
            batch.body(row).and_then(|v| v.as_text()).expect("text")
        ));
        let Some(crate::ValueRef::Bytes(raw)) = batch.attribute(row, "raw") else {
            panic!("bytes");
        };
        assert!(within(raw));
    }
    assert!(batch.text.heap_bytes() <= body.len());
}

#[test]
fn a_key_that_comes_twice_has_its_last_value() {
    use super::tests::{len, log};
    let pair = |k: &[u8], v: &[u8]| len(6, &[len(1, k), len(2, &len(1, v))].concat());
    let record = [pair(b"a", b"1"), pair(b"b", b"2"), pair(b"a", b"3")].concat();
    let body = log(&record);
    let entry = decode_logs(&parse([&body[..], &body].concat()))[1].entry(0);
    let wanted: Map = [("a", "3"), ("b", "2")].into_iter().collect();
    assert_eq!(entry.attributes, wanted);
}

#[test]
fn records_without_a_common_key_take_memory_in_proportion() {
    use super::tests::len;
    let pair = |n: u32| len(6, &len(1, format!("{n:x}").as_bytes()));
    let records: Vec<u8> = (0..20_000).flat_map(|n| len(2, &pair(n))).collect();
    let body = parse(len(1, &len(2, &records)));
    let batches = decode_logs(&body);
    assert_eq!(batches.iter().map(LogsBatch::rows).sum::<usize>(), 20_000);
    let cells: usize = batches.iter().map(|b| b.rows() * b.attributes.len()).sum();
    assert!(
        cells < 20_000 * 4 * super::columns::CELLS_PER_ATTRIBUTE,
        "{cells} cells"
    );
    let entries: Vec<_> = batches.iter().flat_map(LogsBatch::to_entries).collect();
    let has = |(n, e): (usize, &Entry)| e.attributes.get(&format!("{n:x}")) == Some(&Value::Null);
    assert!(entries.iter().enumerate().all(has));
}

#[test]
fn many_keys_are_told_apart() {
    let pair = |n: u32| o::KeyValue {
        key: format!("key.{}", n % 1000),
        value: Some(o::AnyValue {
            value: Some(Any::Int(n.into())),
        }),
    };
    let pairs: Vec<_> = (0..1500).map(pair).collect();
    let logs = o::Logs {
        resource_logs: vec![o::ResourceLogs {
            resource: Some(o::Resource {
                attributes: pairs.clone(),
                ..Default::default()
            }),
            scope_logs: vec![o::ScopeLogs {
                log_records: vec![
                    o::LogRecord {
                        attributes: pairs,
                        ..Default::default()
                    };
                    2
                ],
                ..Default::default()
            }],
            ..Default::default()
        }],
    };
    let entries = decode_logs(&parse(logs.encode_to_vec()))[0].to_entries();
    for map in [&entries[1].attributes, &entries[1].resource] {
        assert_eq!(map.len(), 1000);
        assert_eq!(map.get("key.499"), Some(&Value::Int(1499)));
        assert_eq!(map.get("key.500"), Some(&Value::Int(500)));
    }
}

/// Batches as the product makes them, not as they are decoded.
#[test]
fn every_form_of_column_is_encoded() {
    let mut b = LogsBatch::from_lines(Bytes::from_static(b"a\xffb"), &[(0, 1), (1, 1), (2, 1)]);
    b.time = crate::Times::Each(vec![-5, 0, 7]);
    b.severity_text = Some(Column::dict(
        vec![0, 255, 1],
        vec!["INFO".into(), "WARN".into()],
    ));
    b.attributes.set("const", Column::Const(Value::Double(0.5)));
    b.attributes.set(
        "dict",
        Column::dict(vec![1, 0, 255], vec!["x".into(), "y".into()]),
    );
    let cell = b.cell(&Value::List(vec!["l".into(), Value::Null]));
    b.attributes
        .set("cells", Column::Cells(vec![Cell::Absent, cell, Cell::Null]));
    b.set_body(2, Cell::Absent);
    let cell = b.cell(&Value::str("other"));
    b.set_resource_all("host", "h".into());
    b.set_resource_attribute(1, "host", cell);
    b.otlp = Some(Box::new(OtlpFields {
        dropped_attributes: vec![0, 3, 0],
        resource: Arc::new(ResourceFields {
            schema_url: "u".into(),
            ..Default::default()
        }),
        ..Default::default()
    }));
    let decoded = decode_logs(&Encoded::from_logs([&b]));
    let hosts: Vec<_> = decoded
        .iter()
        .map(|d| (d.rows(), d.resource.get("host")))
        .collect();
    assert_eq!(hosts, [(2, Some(&"h".into())), (1, Some(&"other".into()))]);
    let mut found: Vec<_> = decoded.iter().flat_map(LogsBatch::to_entries).collect();
    found.swap(1, 2);
    let mut wanted = b.to_entries();
    wanted[0].time = 0;
    wanted[1].body = Value::Bytes(Bytes::from_static(b"\xff"));
    assert_eq!(found, wanted);
    assert!(
        decoded
            .iter()
            .all(|d| &*d.otlp.as_ref().expect("kept").resource.schema_url == "u")
    );
    assert!(Encoded::from_logs([&LogsBatch::default()]).is_empty());
}
