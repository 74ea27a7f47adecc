//! Both forms of a push, and what is read of them.

use bytes::Bytes;
use proptest::prelude::*;

use super::proto;
use crate::loki::entries::{Problem, Push, STREAMS_MAX};
use crate::loki::{json, wire};
use crate::testing::text;

/// When it came: 2023-11-14T22:13:20Z.
const ARRIVED: i64 = 1_700_000_000_000_000_000;

fn read(form: fn(&Bytes, &mut Push<'_>) -> Result<(), Problem>, body: &[u8]) -> Vec<String> {
    try_read(form, body, true).unwrap_or_else(|problem| vec![format!("{problem:?}")])
}

fn try_read(
    form: fn(&Bytes, &mut Push<'_>) -> Result<(), Problem>,
    body: &[u8],
    incoming: bool,
) -> Result<Vec<String>, Problem> {
    let mut room = |_| true;
    let mut push = Push::new(incoming, ARRIVED, &mut room);
    form(&Bytes::copy_from_slice(body), &mut push)?;
    let rows = push.batches.iter();
    let rows = rows.flat_map(|b| (0..b.rows()).map(|row| text(b, row)));
    Ok(rows.collect())
}

/// Guarantee: labels and metadata become attributes, lines bodies, times those of the entries; what lies
/// in the wrong place means nothing.
#[test]
fn entries_become_records() {
    let push = proto(&[
        (
            r#"{job="a", __x__="no"}"#,
            &[
                (
                    1,
                    5,
                    b"one",
                    &[("trace", "t1"), ("job", "mine"), ("empty", "")],
                ),
                (2, 0, b"", &[]),
                (
                    3,
                    0,
                    b"bad \xff",
                    &[("b", "2"), ("trace", "t2"), ("b", "3")],
                ),
            ],
        ),
        ("{}", &[]),
        ("{", &[]),
        ("{host='h'}", &[(4, 0, b"two", &[])]),
    ]);
    assert_eq!(
        read(wire::read, &push),
        [
            "0 1 one | job=a job_extracted=mine trace=t1",
            "0 2  | job=a",
            "0 3 bad \u{fffd} | b=3 job=a trace=t2",
            "0 4 two | host=h",
        ]
    );
    let push = r#"{"more": [1], "streams": [
        {"values": [["1000000005", "one", {"trace": "t1", "job": "mine", "empty": ""}],
                    ["2000000000", ""], null,
                    ["3000000000", "bad \ud800", {"b": "2", "trace": "t2", "b": "3"}, 7]],
         "stream": {"job": "a", "__x__": "no", "none": ""}},
        {"stream": null, "values": null}, {},
        {"stream": {"host": "h\u00e4"}, "values": [["4000000000", "t\"w\no", null]]}
    ]}"#;
    assert_eq!(
        read(json::read, push.as_bytes()),
        [
            "0 1 one | job=a job_extracted=mine trace=t1",
            "0 2  | job=a",
            "0 3 bad \u{fffd}\u{fffd}\u{fffd} | b=3 job=a trace=t2",
            "0 4 t\"w\no | host=h\u{e4}",
        ]
    );
    assert_eq!(read(wire::read, b""), [""; 0]);
    assert_eq!(read(json::read, b"{}"), [""; 0]);
    assert_eq!(read(json::read, br#"{"streams": null}"#), [""; 0]);
}

/// Guarantee: without the option the time is that of arrival, and with it where an entry has none that a
/// record can have.
#[test]
fn times_of_records() {
    let push = proto(&[(
        "{}",
        &[
            (1, 0, b"a", &[]),
            (-1, 0, b"b", &[]),
            (i64::MAX, 0, b"c", &[]),
        ],
    )]);
    let times = |incoming| {
        let read = try_read(wire::read, &push, incoming).unwrap();
        let times = read.iter().map(|r| r.split(' ').nth(1).unwrap().to_owned());
        times.collect::<Vec<_>>()
    };
    assert_eq!(times(false), ["1700000000"; 3]);
    assert_eq!(times(true), ["1", "1700000000", "1700000000"]);
    // A stream of one entry without a time: {a="b"}, line x.
    let none = b"\x0a\x0e\x0a\x07{a=\"b\"}\x12\x03\x12\x01x";
    assert_eq!(
        try_read(wire::read, none, true).unwrap(),
        ["0 1700000000 x | a=b"]
    );
}

/// Guarantee: what is no push is refused with a reason.
#[test]
fn what_is_no_push_is_refused() {
    let many = proto(&vec![
        ("{a=\"b\"}", &[(1, 0, &b"x"[..], &[][..])][..]);
        STREAMS_MAX + 1
    ]);
    for (body, part) in [
        (&b"\x0a"[..], "cut off"),
        (b"\x0a\x05ab", "cut off"),
        (b"\x08\x01", "wrong type"),
        (b"\x0b", "unknown type"),
        (b"\x02\0", "without a number"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "64 bits"),
        (&proto(&[("{a=b}", &[(1, 0, b"x", &[])])]), "a quoted value"),
        (
            &proto(&[("{}", &[(1, 1_000_000_000, b"x", &[])])]),
            "nanoseconds",
        ),
        (&many, "10000 streams"),
    ] {
        let problem = try_read(wire::read, body, true).unwrap_err();
        assert!(format!("{problem:?}").contains(part), "{part}: {problem:?}");
    }
    for (body, part) in [
        ("", "EOF"),
        ("[]", "an object with streams"),
        ("{} x", "trailing"),
        (r#"{"streams": {}}"#, "an array of streams"),
        (r#"{"streams": [{"values": [[1, "x"]]}]}"#, "a string"),
        (
            r#"{"streams": [{"values": [["1.5", "x"]]}]}"#,
            "no number of ns",
        ),
        (r#"{"streams": [{"values": [["1"]]}]}"#, "without a line"),
        (r#"{"streams": [{"values": [["1", null]]}]}"#, "a string"),
        (
            r#"{"streams": [{"values": [["1", "x", {"a": 1}]]}]}"#,
            "a string",
        ),
        (r#"{"streams": [{"stream": {"a": 1}}]}"#, "a string"),
        (
            r#"{"streams": [{"labels": "{}", "entries": [{"ts": "", "line": ""}]}]}"#,
            "the older API",
        ),
    ] {
        let problem = try_read(json::read, body.as_bytes(), true).unwrap_err();
        assert!(format!("{problem:?}").contains(part), "{body}: {problem:?}");
    }
}

/// Guarantee: entries that have hardly a name in common do not take rows times columns, and all of them
/// are there.
#[test]
fn names_without_end_take_what_they_need() {
    let names: Vec<String> = (0..5000).map(|n| format!("name{n}")).collect();
    let pairs: Vec<[(&str, &str); 1]> = names.iter().map(|n| [(n.as_str(), "v")]).collect();
    let entries: Vec<super::Entry<'_>> = pairs.iter().map(|p| (1, 0, &b"x"[..], &p[..])).collect();
    let body = Bytes::from(proto(&[("{a=\"b\"}", &entries)]));
    let mut bytes = 0;
    let mut room = |more| {
        bytes += more;
        true
    };
    let mut push = Push::new(true, ARRIVED, &mut room);
    wire::read(&body, &mut push).unwrap();
    let rows: usize = push.batches.iter().map(|b| b.rows()).sum();
    assert_eq!(rows, 5000);
    let last = push.batches.last().unwrap();
    let record = text(last, last.rows() - 1);
    assert_eq!(record, "0 1 x | a=b name4999=v");
    assert!(bytes < 40 * body.len(), "{bytes} of {}", body.len());
}

/// Guarantee: no room is no mistake of the sender.
#[test]
fn a_push_without_room_is_told_so() {
    let body = Bytes::from(proto(&[("{}", &[(1, 0, b"x", &[])])]));
    let mut room = |_| false;
    let mut push = Push::new(true, ARRIVED, &mut room);
    assert_eq!(wire::read(&body, &mut push), Err(Problem::NoRoom));
}

fn name() -> impl Strategy<Value = String> {
    "[a-z]{1,3}"
}

proptest! {
    /// Guarantee: both forms of the same push are the same records, whatever stands in labels, lines and
    /// metadata.
    #[test]
    fn both_forms_say_the_same(
        streams in proptest::collection::vec(
            (
                proptest::collection::btree_map(name(), "[ -~\u{e4}\n]{0,6}", 0..4),
                proptest::collection::vec(
                    (
                        0..1_000_000_000_000_000_000i64,
                        any::<String>(),
                        proptest::collection::vec((name(), any::<String>()), 0..4),
                    ),
                    0..6,
                ),
            ),
            0..4,
        )
    ) {
        let label = |(name, value): (&String, &String)| {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            format!("{name}=\"{quoted}\"")
        };
        let mut object = Vec::new();
        let mut messages = Vec::new();
        for (labels, entries) in &streams {
            let texts: Vec<String> = labels.iter().map(label).collect();
            let pairs: Vec<Vec<(&str, &str)>> = entries
                .iter()
                .map(|(_, _, m)| m.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect())
                .collect();
            let encoded: Vec<super::Entry<'_>> = entries
                .iter()
                .zip(&pairs)
                .map(|((ns, line, _), pairs)| {
                    (ns / 1_000_000_000, ns % 1_000_000_000, line.as_bytes(), &pairs[..])
                })
                .collect();
            messages.extend(proto(&[(&format!("{{{}}}", texts.join(", ")), &encoded)]));
            let values: Vec<serde_json::Value> = entries
                .iter()
                .map(|(ns, line, metadata)| {
                    let metadata: serde_json::Map<_, _> = metadata
                        .iter()
                        .map(|(n, v)| (n.clone(), v.clone().into()))
                        .collect();
                    serde_json::json!([ns.to_string(), line, metadata])
                })
                .collect();
            object.push(serde_json::json!({"stream": labels, "values": values}));
        }
        let json = serde_json::json!({"streams": object}).to_string();
        // JSON has only the last of a name that comes twice; protobuf an empty one in between.
        let twice = streams.iter().flat_map(|(_, e)| e).any(|(_, _, m)| {
            (1..m.len()).any(|i| m[..i].iter().any(|(n, _)| *n == m[i].0))
        });
        prop_assume!(!twice);
        prop_assert_eq!(read(wire::read, &messages), read(json::read, json.as_bytes()));
    }

    /// Guarantee: no bytes make it panic, and a push that is cut off anywhere is refused or shorter.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..120usize) {
        let _ = try_read(wire::read, &bytes, true);
        let _ = try_read(json::read, &bytes, true);
        let whole = proto(&[
            (r#"{a="b"}"#, &[(1, 2, b"line", &[("m", "v")]), (3, 4, b"other", &[])]),
            (r#"{c="d"}"#, &[(5, 6, b"third", &[])]),
        ]);
        let part = &whole[..cut.min(whole.len() - 1)];
        if let Ok(read) = try_read(wire::read, part, true) {
            prop_assert!(read.len() < 3, "{:?}", read);
        }
    }
}
