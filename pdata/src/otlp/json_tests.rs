//! JSON both ways, against `prost` and `serde_json`.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use prost::Message;

use super::json::{from_proto, to_proto};
use super::oracle as o;
use super::samples::Dice;
use super::*;
use crate::{Column, Entry, LogsBatch, Signal, Value};

fn proto(signal: Signal, json: &str) -> Result<Vec<u8>, String> {
    let limits = Limits::default();
    let proto = to_proto(signal, json.as_bytes(), &limits).map_err(|e| e.to_string())?;
    Encoded::parse(signal, proto.clone(), &limits).expect("what we write");
    Ok(proto.to_vec())
}

fn json(signal: Signal, proto: &[u8]) -> String {
    let mut out = b"before".to_vec();
    from_proto(signal, proto, &mut out).expect("a request");
    String::from_utf8(out.split_off(6)).expect("UTF-8")
}

/// `M` is what `prost` reads and writes of this signal.
fn comes_back<M: Message + Default>(signal: Signal, wanted: &M) -> Result<(), TestCaseError> {
    let body = wanted.encode_to_vec();
    let text = json(signal, &body);
    prop_assert!(
        serde_json::from_str::<serde_json::Value>(&text).is_ok(),
        "{text}"
    );
    let again = proto(signal, &text).map_err(TestCaseError::fail)?;
    prop_assert_eq!(again.len(), body.len(), "{}", text);
    if signal != Signal::Metrics {
        // `prost` does not write the members of the `oneof`s of metrics by their numbers.
        prop_assert_eq!(&again, &body, "{}", text);
    }
    let read = M::decode(&*again).expect("what we write");
    prop_assert_eq!(read.encode_to_vec(), body, "{}", text);
    prop_assert_eq!(json(signal, &again), text);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests_come_back_byte_by_byte(dice in prop::collection::vec(any::<u8>(), 0..800)) {
        let (logs, metrics, traces) =
            (Dice::new(&dice).logs(), Dice::new(&dice).metrics(), Dice::new(&dice).traces());
        comes_back(Signal::Logs, &logs)?;
        comes_back(Signal::Metrics, &metrics)?;
        comes_back(Signal::Traces, &traces)?;
        for (signal, body, items) in [
            (Signal::Logs, logs.encode_to_vec(), logs.items()),
            (Signal::Metrics, metrics.encode_to_vec(), metrics.items()),
            (Signal::Traces, traces.encode_to_vec(), traces.items()),
        ] {
            let parsed = Encoded::parse(signal, body.into(), &Limits::default());
            prop_assert_eq!(parsed.map(|e| e.items()), Ok(items));
        }
    }

    /// What `prost` refuses is refused; what it reads is the same after the way through JSON, which
    /// means that fields given twice, in pieces or in any order are understood alike.
    #[test]
    fn damaged_requests_are_understood_as_prost_does(
        dice in prop::collection::vec(any::<u8>(), 0..300),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0..6usize, any::<u8>()), 0..4),
        twice in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        which in 0..3,
    ) {
        let mut dice = Dice::new(&dice);
        let mut body = match which {
            0 => dice.logs().encode_to_vec(),
            1 => dice.metrics().encode_to_vec(),
            _ => dice.traces().encode_to_vec(),
        };
        for (at, what, byte) in damage {
            let at = at.index(body.len() + 1);
            match what {
                0 => body.truncate(at),
                1 => body.insert(at, byte),
                2 => if let Some(b) = body.get_mut(at) { *b = byte },
                3 => if let Some(b) = body.get_mut(at) { *b ^= 1 << (byte % 8) },
                _ => {
                    let from = twice.0.index(body.len() + 1).min(at);
                    let piece = body[from..at].to_vec();
                    let to = twice.1.index(body.len() + 1);
                    body.splice(to..to, piece);
                }
            }
        }
        agree(&body);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A message in pieces, whose fields come again, is what `prost` makes of it.
    #[test]
    fn messages_in_pieces_are_merged_as_prost_does(
        dice in prop::collection::vec(any::<u8>(), 0..600),
        pieces in 1..5usize,
    ) {
        let mut dice = Dice::new(&dice);
        let item = |pieces: Vec<u8>| {
            let len = super::tests::len;
            len(1, &len(2, &len(2, &pieces)))
        };
        let metrics = (0..pieces).map(|_| dice.metric().encode_to_vec());
        agree(&item(metrics.collect::<Vec<_>>().concat()));
        let spans = (0..pieces).map(|_| dice.span().encode_to_vec());
        agree(&item(spans.collect::<Vec<_>>().concat()));
        let records = (0..pieces).map(|_| dice.record().encode_to_vec());
        agree(&item(records.collect::<Vec<_>>().concat()));
    }
}

/// We and `prost` say the same of these bytes, as a request of any signal.
fn agree(body: &[u8]) {
    Signal::ALL
        .into_iter()
        .for_each(|signal| fuzzing::agrees(signal, body));
}

/// The one record of a request, as protobuf and read back.
fn record(fields: &str) -> Result<String, String> {
    let text = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{{fields}}}]}}]}}]}}"#);
    let text = json(Signal::Logs, &proto(Signal::Logs, &text)?);
    let inner = text.strip_prefix(r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"#);
    Ok(inner
        .and_then(|t| t.strip_suffix("}]}]}]}"))
        .expect("a record")
        .into())
}

#[test]
fn more_is_read_than_is_written() {
    for (read, written) in [
        (r#""time_unix_nano":5"#, r#""timeUnixNano":"5""#),
        (
            r#""timeUnixNano":"18446744073709551615""#,
            r#""timeUnixNano":"18446744073709551615""#,
        ),
        (
            r#""timeUnixNano":18446744073709551615"#,
            r#""timeUnixNano":"18446744073709551615""#,
        ),
        (r#""timeUnixNano":"0""#, ""),
        (r#""timeUnixNano":null,"body":null,"attributes":null"#, ""),
        (r#""unknown":{"a":[1,{}]},"flags":"7""#, r#""flags":7"#),
        (r#""flags":1e2"#, r#""flags":100"#),
        (
            r#""severityNumber":"SEVERITY_NUMBER_INFO""#,
            r#""severityNumber":9"#,
        ),
        (r#""severityNumber":99"#, r#""severityNumber":99"#),
        (r#""severityNumber":-1"#, r#""severityNumber":-1"#),
        (r#""traceId":"ABcd""#, r#""traceId":"abcd""#),
        (r#""traceId":"""#, ""),
        (r#""body":{}"#, r#""body":{}"#),
        (
            r#""body":{"stringValue":""}"#,
            r#""body":{"stringValue":""}"#,
        ),
        (
            r#""body":{"intValue":"0","int_value":-9223372036854775808}"#,
            r#""body":{"intValue":"-9223372036854775808"}"#,
        ),
        (
            r#""body":{"intValue":1,"boolValue":false}"#,
            r#""body":{"boolValue":false}"#,
        ),
        (
            r#""body":{"boolValue":true,"intValue":1}"#,
            r#""body":{"intValue":"1"}"#,
        ),
        (
            r#""body":{"boolValue":true,"intValue":null}"#,
            r#""body":{}"#,
        ),
        (
            r#""body":{"doubleValue":"-Infinity"}"#,
            r#""body":{"doubleValue":"-Infinity"}"#,
        ),
        (
            r#""body":{"doubleValue":"NaN"}"#,
            r#""body":{"doubleValue":"NaN"}"#,
        ),
        (
            r#""body":{"doubleValue":-0}"#,
            r#""body":{"doubleValue":-0}"#,
        ),
        (
            r#""body":{"doubleValue":"-0"}"#,
            r#""body":{"doubleValue":-0}"#,
        ),
        (
            r#""body":{"doubleValue":"1e3"}"#,
            r#""body":{"doubleValue":1000}"#,
        ),
        (r#""body":{"doubleValue":7}"#, r#""body":{"doubleValue":7}"#),
        (
            r#""body":{"bytesValue":"_-8"}"#,
            r#""body":{"bytesValue":"/+8="}"#,
        ),
        (r#""body":{"bytesValue":""}"#, r#""body":{"bytesValue":""}"#),
        (
            r#""body":{"arrayValue":{"values":[null,{}]}}"#,
            r#""body":{"arrayValue":{"values":[{},{}]}}"#,
        ),
        (
            r#""attributes":[{"key":"a"}],"attributes":[{"key":"b"}]"#,
            r#""attributes":[{"key":"b"}]"#,
        ),
        (
            r#""eventName":"\u00e9\ud83d\ude00""#,
            "\"eventName\":\"\u{e9}\u{1f600}\"",
        ),
    ] {
        assert_eq!(record(read).as_deref(), Ok(written), "{read}");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_its_place() {
    for (read, wanted) in [
        (
            r#""timeUnixNano":-1"#,
            "not a whole number from 0 to 18446744073709551615",
        ),
        (
            r#""timeUnixNano":1.5"#,
            "not a whole number from 0 to 18446744073709551615",
        ),
        (
            r#""timeUnixNano":"1 ""#,
            "not a whole number from 0 to 18446744073709551615",
        ),
        (
            r#""timeUnixNano":1e30"#,
            "not a whole number from 0 to 18446744073709551615",
        ),
        (
            r#""flags":4294967296"#,
            "not a whole number from 0 to 4294967295",
        ),
        (
            r#""flags":{}"#,
            "invalid type: map, expected a whole number from 0 to 4294967295",
        ),
        (
            r#""severityNumber":"INFO""#,
            "not a number or name of the enumeration",
        ),
        (
            r#""severityNumber":"SEVERITY_NUMBER_X""#,
            "not a number or name of the enumeration",
        ),
        (r#""traceId":"abc""#, "not hexadecimal digits in pairs"),
        (r#""spanId":"xy""#, "not hexadecimal digits in pairs"),
        (
            r#""spanId":5"#,
            "invalid type: integer `5`, expected a string in hexadecimal",
        ),
        (
            r#""body":"text""#,
            "invalid type: string \"text\", expected an object",
        ),
        (r#""body":{"boolValue":1}"#, "not true or false"),
        (r#""body":{"boolValue":"true"}"#, "not true or false"),
        (r#""body":{"bytesValue":"a"}"#, "not base64"),
        (r#""body":{"bytesValue":"ab=c"}"#, "not base64"),
        (
            r#""body":{"doubleValue":"inf"}"#,
            r#"not a number, "NaN", "Infinity" or "-Infinity""#,
        ),
        (
            r#""body":{"stringValue":5}"#,
            "invalid type: integer `5`, expected a string",
        ),
        (r#""attributes":{}"#, "invalid type: map, expected a list"),
        (r#""severityText":"\ud800""#, "unexpected end of hex escape"),
    ] {
        let e = record(read).expect_err(read);
        assert!(e.starts_with(wanted), "{read}: {e}");
        assert!(e.contains(" in resourceLogs.scopeLogs.logRecords"), "{e}");
    }
    let e = to_proto(
        Signal::Logs,
        b"{\n \"resourceLogs\": 5}",
        &Limits::default(),
    );
    let e = e.expect_err("no list");
    assert_eq!((e.line, e.column, &*e.path), (2, 18, "resourceLogs"));
    for bad in ["", "[]", "{", "{} x", "null", "\u{feff}{}"] {
        let e = proto(Signal::Metrics, bad).expect_err(bad);
        assert!(e.ends_with("in the request"), "{e}");
    }
    let long = format!(r#""body":"{}""#, "\u{e9}".repeat(1 << 20));
    assert!(record(&long).expect_err("no object").len() < 400);
}

#[test]
fn json_is_not_read_deeper_than_allowed() {
    let nested = |n: usize| {
        let (open, close) = (r#"{"arrayValue":{"values":["#.repeat(n), "]}}".repeat(n));
        format!(r#""body":{open}{close}"#)
    };
    assert!(record(&nested(30)).is_ok());
    let e = record(&nested(31)).expect_err("66 levels");
    assert!(e.starts_with("messages are nested deeper than 64"), "{e}");
    let bomb = "[".repeat(1 << 20);
    for bomb in [
        &*bomb,
        &format!(r#"{{"a":{bomb}"#),
        &"{\"resourceLogs\":[".repeat(1 << 16),
    ] {
        assert!(proto(Signal::Logs, bomb).is_err());
    }
}

#[test]
fn from_proto_refuses_what_parse_refuses() {
    let mut out = b"before".to_vec();
    assert!(from_proto(Signal::Traces, b"\x0a\x05", &mut out).is_err());
    assert_eq!(out, b"before");
}

#[test]
fn a_batch_with_everything_is_what_the_specification_shows() {
    let e = Entry {
        time: 1,
        observed: 2,
        severity: 9,
        severity_text: "Info".into(),
        body: "a\"b\u{1}\u{e9}".into(),
        attributes: [
            ("i", Value::Int(5)),
            ("d", Value::Double(0.5)),
            ("b", Value::Bytes(bytes::Bytes::from_static(b"\xff\xfe"))),
            ("m", Value::Map([("x", true)].into_iter().collect())),
            ("l", Value::List(vec![Value::Null])),
        ]
        .into_iter()
        .collect(),
        resource: [("host", "h")].into_iter().collect(),
        trace_id: [0xab; 16],
        flags: 1,
        event_name: "event".into(),
        dropped_attributes: 3,
        ..Entry::default()
    };
    let mut out = Vec::new();
    Encoded::from_logs([&LogsBatch::from_entries(&[e])]).write_json(&mut out);
    let want = concat!(
        r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"host","value":{"stringValue":"h"}}]},"#,
        r#""scopeLogs":[{"scope":{},"logRecords":[{"timeUnixNano":"1","observedTimeUnixNano":"2","#,
        r#""severityNumber":9,"severityText":"Info","body":{"stringValue":"a\"b\u0001é"},"#,
        r#""attributes":[{"key":"i","value":{"intValue":"5"}},{"key":"d","value":{"doubleValue":0.5}},"#,
        r#"{"key":"b","value":{"bytesValue":"//4="}},"#,
        r#"{"key":"m","value":{"kvlistValue":{"values":[{"key":"x","value":{"boolValue":true}}]}}},"#,
        r#"{"key":"l","value":{"arrayValue":{"values":[{}]}}}],"droppedAttributesCount":3,"#,
        r#""flags":1,"traceId":"abababababababababababababababab","eventName":"event"}]}]}]}"#,
    );
    assert_eq!(String::from_utf8(out).unwrap(), want);
}

#[test]
fn the_output_is_json_for_any_text() {
    for bytes in [
        &b"\xff\xfe"[..],
        b"\x00\x1f\x7f",
        "\u{2028}".as_bytes(),
        b"\\\"/",
    ] {
        let mut b = LogsBatch::from_lines(bytes.to_vec().into(), &[(0, bytes.len() as u32)]);
        b.attributes.set("k", Column::Const(1.0.into()));
        let mut out = Vec::new();
        Encoded::from_logs([&b, &b]).write_json(&mut out);
        let v: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(v["resourceLogs"].as_array().unwrap().len(), 2);
    }
}

/// Payloads of the folder of shared data beside the workspace, if there is one.
fn shared(name: &str) -> Option<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/otlp");
    let path: PathBuf = folder.join(name);
    match std::fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(e) => {
            println!("skipped: {name} of the shared data: {e}");
            None
        }
    }
}

/// Compares both forms of a payload of others. Their encoder writes fields in the reverse order of
/// their numbers, ids that are empty, and messages that were not given.
fn both_forms<M: Message + Default + PartialEq>(signal: Signal, name: &str) {
    let (Some(text), Some(body)) = (
        shared(&format!("{name}.json")),
        shared(&format!("{name}.pb")),
    ) else {
        return;
    };
    let read = proto(signal, std::str::from_utf8(&text).expect("UTF-8")).expect(name);
    let written = json(signal, &body);
    let without = [r#","negative":{}"#, r#","status":{}"#];
    let without = without
        .iter()
        .fold(written.clone(), |w, s| w.replace(s, ""));
    if name != "fluent-bit/test_traces_001.in" {
        // There, ids were taken for base64.
        assert_eq!(json(signal, &read), without, "{name}: both files");
    }
    let again = proto(signal, &written).expect(name);
    assert_eq!(
        json(signal, &again),
        written,
        "{name}: JSON to protobuf to JSON"
    );
    let [ours, theirs] = [&again, &body].map(|b| M::decode(&b[..]).expect(name));
    assert!(ours == theirs, "{name}: protobuf to JSON to protobuf");
}

#[test]
fn payloads_of_others_come_back() {
    both_forms::<o::Logs>(Signal::Logs, "proto-examples/logs");
    both_forms::<o::Metrics>(Signal::Metrics, "proto-examples/metrics");
    both_forms::<o::Traces>(Signal::Traces, "proto-examples/trace");
    both_forms::<o::Logs>(Signal::Logs, "fluent-bit/routing_logs");
    both_forms::<o::Logs>(Signal::Logs, "fluent-bit/test_logs_001.in");
    both_forms::<o::Metrics>(Signal::Metrics, "fluent-bit/test_metrics_001.in");
    both_forms::<o::Traces>(Signal::Traces, "fluent-bit/test_traces_001.in");
}

/// Cases of another agent whose answer has other reasons than the form of OTLP: what is missing
/// there, lengths of ids, a value without meaning, and what it reads more leniently (a bad number, a
/// short name of an enumerator).
const OTHER_REASONS: [&str; 17] = [
    "logs invalid_span_id_length",
    "logs invalid_trace_id_length",
    "logs resource_valid_scope_missing",
    "logs scopeLogs_missing",
    "metrics invalid_gauge_datapoints_missing",
    "metrics invalid_scope_metrics_missing",
    "metrics invalid_sum_datapoints_missing",
    "metrics valid_invalid_numeric_skips_points",
    "traces invalid_parent_span_id",
    "traces invalid_trace_id",
    "traces link_invalid_span_id",
    "traces link_span_id_zero_length",
    "traces resourceSpans_missing",
    "traces scopeSpans_missing",
    "traces span_name_missing",
    "traces trace_id_zero_length",
    "traces valid_with_event_and_link",
];

#[test]
fn cases_of_others_are_taken_or_refused() {
    for (signal, name) in [
        (Signal::Logs, "logs"),
        (Signal::Metrics, "metrics"),
        (Signal::Traces, "traces"),
    ] {
        let Some(cases) = shared(&format!("fluent-bit/conversion-{name}.json")) else {
            continue;
        };
        let cases: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&cases).expect("cases");
        for (case, what) in cases {
            let case = format!("{name} {case}");
            let taken = proto(signal, &what["input"].to_string());
            let differs = taken.is_ok() != what.get("expected_error").is_none();
            assert_eq!(
                differs,
                OTHER_REASONS.contains(&&*case),
                "{case}: {taken:?}"
            );
        }
    }
}

/// Our own payloads, in which each field of each signal is set.
#[test]
fn payloads_of_ours_come_back_byte_by_byte() {
    for (signal, text) in [
        (
            Signal::Logs,
            include_str!("../../../fuzz/corpus/otlp_json/logs"),
        ),
        (
            Signal::Metrics,
            include_str!("../../../fuzz/corpus/otlp_json/metrics"),
        ),
        (
            Signal::Traces,
            include_str!("../../../fuzz/corpus/otlp_json/traces"),
        ),
    ] {
        // The first letter tells the fuzz target which signal it is.
        let text = &text[1..];
        let read = proto(signal, text).expect("a request");
        assert_eq!(json(signal, &read), text);
        agree(&read);
    }
}
