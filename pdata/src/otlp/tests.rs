//! The walker on bytes made by hand.

use super::*;
use crate::Signal;

/// A field with a length.
pub(super) fn len(number: u8, body: &[u8]) -> Vec<u8> {
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

/// A request with one log record, whose fields are `record`.
pub(super) fn log(record: &[u8]) -> Vec<u8> {
    len(1, &len(2, &len(2, record)))
}

fn parse(signal: Signal, body: &[u8]) -> Result<usize, WireError> {
    parse_within(signal, body, &Limits::default())
}

fn parse_within(signal: Signal, body: &[u8], limits: &Limits) -> Result<usize, WireError> {
    Encoded::parse(signal, body.to_vec().into(), limits).map(|e| e.items())
}

#[test]
fn what_is_not_protobuf_is_refused_with_its_place() {
    let cases: [(&[u8], Problem, &str, usize); 12] = [
        (b"\x09\0\0\0", Problem::Truncated, "time_unix_nano", 7),
        (b"\x1a\x05abc", Problem::Truncated, "severity_text", 7),
        (b"\x10\xff", Problem::Truncated, "severity_number", 7),
        (
            b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            Problem::Varint,
            "severity_number",
            7,
        ),
        (
            b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            Problem::Varint,
            "severity_number",
            7,
        ),
        (b"\x02\0", Problem::Number, "", 6),
        (b"\x82\x80\x80\x80\x10\0", Problem::Number, "", 6),
        (b"\xa3\x06\xa4\x06", Problem::Type(3), "", 6),
        (b"\xa6\x06", Problem::Type(6), "", 6),
        (
            b"\x08\0",
            Problem::Mismatch {
                found: 0,
                wanted: 1,
            },
            "time_unix_nano",
            7,
        ),
        (b"\x1a\x02\xc3\x28", Problem::Utf8, "severity_text", 8),
        (
            b"\x2a\x03\x0a\x01\xff",
            Problem::Utf8,
            "body.string_value",
            10,
        ),
    ];
    for (record, problem, field, offset) in cases {
        let e = parse(Signal::Logs, &log(record)).expect_err(field);
        let path = "resource_logs.scope_logs.log_records";
        let path = match field {
            "" => path.to_string(),
            field => format!("{path}.{field}"),
        };
        assert_eq!((e.problem, &*e.path, e.offset), (problem, &*path, offset));
        assert!(!problem.is_limit());
    }
    let e = parse(Signal::Logs, b"\x0a\x01").expect_err("cut");
    assert_eq!(
        e.to_string(),
        "a value reaches beyond the end of its message, at byte 1 of resource_logs"
    );
}

/// Guarantee: a field whose tag takes two bytes is judged as others are, known or not.
#[test]
fn a_long_tag_is_read_as_a_short_one() {
    let span = |fields: &[u8]| len(1, &len(2, &len(2, fields)));
    let items =
        |fields: &[u8]| parse(Signal::Traces, &span(fields)).map_err(|e| (e.problem, e.path));
    for right in [
        &b"\x85\x01abcd"[..],
        b"\x85\x01abcd\x85\x01abcd\x2a\x01n",
        b"\x85\x81\0abcd\x2a\x01n",
        b"\x85\x02abcd\x2a\x01n",
        b"\x80\x02\x01",
    ] {
        assert_eq!(items(right), Ok(1), "{right:?}");
    }
    let flags = "resource_spans.scope_spans.spans.flags";
    let spans = "resource_spans.scope_spans.spans";
    let (found, wanted) = (0, 5);
    for (wrong, problem, path) in [
        (&b"\x85\x01abc"[..], Problem::Truncated, flags),
        (b"\x85\x01", Problem::Truncated, flags),
        (b"\x85", Problem::Truncated, spans),
        (b"\x80\x01\x01", Problem::Mismatch { found, wanted }, flags),
        (b"\x85\x02abc", Problem::Truncated, spans),
    ] {
        assert_eq!(items(wrong), Err((problem, path.into())), "{wrong:?}");
    }
    assert_eq!(parse(Signal::Logs, &log(b"\x85\x01abcd")).ok(), Some(1));
}

#[test]
fn numbers_may_be_packed_where_they_repeat() {
    let histogram = |point: &[u8]| len(1, &len(2, &len(2, &len(9, &len(1, point)))));
    let exponential = |point: &[u8]| len(1, &len(2, &len(2, &len(10, &len(1, point)))));
    let counts = [&len(6, &[0; 16])[..], b"\x31\0\0\0\0\0\0\0\0"].concat();
    assert_eq!(parse(Signal::Metrics, &histogram(&counts)), Ok(1));
    let e = parse(Signal::Metrics, &histogram(&len(6, &[0; 15]))).expect_err("15 bytes");
    assert_eq!(e.problem, Problem::Packed);
    let buckets = len(8, &[&len(2, b"\x01\xff\x01")[..], b"\x10\x01"].concat());
    assert_eq!(parse(Signal::Metrics, &exponential(&buckets)), Ok(1));
    let e = parse(Signal::Metrics, &exponential(&len(8, &len(2, b"\x01\xff")))).expect_err("cut");
    assert_eq!(e.problem, Problem::Truncated);
}

#[test]
fn unknown_fields_are_passed_over_but_must_be_whole() {
    let unknown = [&len(15, b"\xff\xff")[..], b"\x78\x01", b"\xfd\x7f\0\0\0\0"].concat();
    assert_eq!(parse(Signal::Logs, &log(&unknown)), Ok(1));
    assert_eq!(parse(Signal::Logs, &unknown), Ok(0));
    let e = parse(Signal::Logs, b"\x7a\x03ab").expect_err("cut");
    assert_eq!((e.problem, &*e.path), (Problem::Truncated, "the request"));
}

#[test]
fn each_limit_refuses_by_name_and_allows_what_is_just_within() {
    let mut value = Vec::new();
    for _ in 0..30 {
        value = len(5, &len(1, &value));
    }
    let limits = Limits::default();
    assert_eq!(parse(Signal::Logs, &log(&len(5, &value))), Ok(1));
    let deeper = log(&len(5, &len(5, &len(1, &value))));
    let e = parse(Signal::Logs, &deeper).expect_err("66 levels");
    assert_eq!(e.problem, Problem::Depth(64));
    let limits = Limits {
        depth: usize::MAX,
        ..limits
    };
    assert_eq!(parse_within(Signal::Logs, &deeper, &limits), Ok(1));

    let three = len(1, &len(2, &len(2, b"").repeat(3)));
    for (items, ok) in [(3, true), (2, false)] {
        let limits = Limits { items, ..limits };
        let e = parse_within(Signal::Logs, &three, &limits);
        assert_eq!(
            e.map_err(|e| e.problem),
            if ok { Ok(3) } else { Err(Problem::Items(2)) }
        );
    }
    for (scopes, ok) in [(2, true), (1, false)] {
        let limits = Limits { scopes, ..limits };
        let e = parse_within(Signal::Logs, &three, &limits);
        let wanted = if ok { Ok(3) } else { Err(Problem::Scopes(1)) };
        assert_eq!(e.map_err(|e| e.problem), wanted);
    }
    let two = log(&len(6, b"").repeat(2));
    for (attributes, ok) in [(2, true), (1, false)] {
        let limits = Limits {
            attributes,
            ..limits
        };
        let e = parse_within(Signal::Logs, &[&two[..], &two].concat(), &limits);
        assert_eq!(
            e.map_err(|e| e.problem),
            if ok {
                Ok(2)
            } else {
                Err(Problem::Attributes(1))
            }
        );
    }
}

/// Guarantee: what is in events and links of spans counts and is checked as everywhere, whether it is passed
/// with its span or walked.
#[test]
fn what_is_in_items_is_within_the_limits_too() {
    let pair = len(9, &[len(1, b"k"), len(2, &len(1, b"v"))].concat());
    let event = |pairs: usize| {
        let attributes = [len(1, b"k"), len(2, &len(1, b"v"))].concat();
        len(
            11,
            &[len(2, b"name"), len(3, &attributes).repeat(pairs)].concat(),
        )
    };
    let flags = b"\x85\x01\x01\x01\0\0".to_vec();
    let spans = |span: &[Vec<u8>]| {
        let spans = len(2, &span.concat()).repeat(3);
        len(1, &len(2, &spans))
    };
    let limits = |depth, attributes| Limits {
        depth,
        attributes,
        ..Limits::default()
    };
    let whole = spans(&[flags.clone(), event(2), len(15, b""), pair.clone(), pair]);
    let path = "resource_spans.scope_spans.spans.events.attributes";
    for (depth, attributes, wanted) in [
        (6, 2, Ok(3)),
        (64, 2, Ok(3)),
        (64, 1, Err((Problem::Attributes(1), path.to_owned()))),
        (5, 2, Err((Problem::Depth(5), format!("{path}.value")))),
        (4, 2, Err((Problem::Depth(4), path.to_owned()))),
    ] {
        let found = parse_within(Signal::Traces, &whole, &limits(depth, attributes));
        let found = found.map_err(|e| (e.problem, e.path.to_string()));
        assert_eq!(found, wanted, "{depth} {attributes}");
    }
    for (field, problem, name) in [
        (flags[..4].to_vec(), Problem::Truncated, "flags"),
        (len(11, b"\x12\x01\xff"), Problem::Utf8, "events.name"),
        (len(13, b"\x0a\x05a"), Problem::Truncated, "links.trace_id"),
        (len(15, b"\x18\xff"), Problem::Truncated, "status.code"),
    ] {
        let e = parse(Signal::Traces, &spans(&[event(1), field])).expect_err(name);
        let path = format!("resource_spans.scope_spans.spans.{name}");
        assert_eq!((e.problem, &*e.path), (problem, &*path));
    }
}

#[test]
fn of_a_metric_with_two_kinds_of_data_the_last_counts() {
    let points = |n| len(1, b"").repeat(n);
    let metric = |data: &[Vec<u8>]| len(1, &len(2, &len(2, &data.concat())));
    let gauge = |n| len(5, &points(n));
    let sum = |n| len(7, &points(n));
    for (data, items) in [
        (vec![gauge(2), gauge(3)], 5),
        (vec![gauge(2), sum(3)], 3),
        (vec![gauge(2), sum(3), gauge(1)], 1),
    ] {
        let body = [metric(&[gauge(7)]), metric(&data)].concat();
        assert_eq!(parse(Signal::Metrics, &body), Ok(7 + items));
    }
}

#[test]
fn requests_side_by_side_are_one_request() {
    let one = Encoded::parse(Signal::Logs, log(b"\x10\x09").into(), &Limits::default()).unwrap();
    let mut both = one.clone();
    both.append(one.clone());
    assert_eq!((both.items(), both.chunks().len()), (2, 2));
    let whole = Encoded::parse(Signal::Logs, both.body(), &Limits::default()).unwrap();
    assert_eq!(whole, both);
    assert_eq!(whole.items(), 2);
    assert_ne!(whole, one);
}

#[test]
fn bombs_are_refused_where_they_pass_the_limit() {
    // Lists in lists, as deep as there is room for: lengths are refused from outside in.
    let mut bomb = Vec::new();
    while bomb.len() < 1 << 16 {
        bomb = len(5, &len(1, &bomb));
    }
    let e = parse(Signal::Logs, &log(&len(5, &bomb))).expect_err("thousands of levels");
    assert_eq!(e.problem, Problem::Depth(64));
    assert!(e.path.ends_with("array_value.values") || e.path.ends_with("array_value"));
    // A million of the smallest messages there are.
    let million = [0x12, 0].repeat(1_000_001);
    let e = parse(Signal::Logs, &len(1, &len(2, &million))).expect_err("a million records");
    assert_eq!(e.problem, Problem::Items(1_000_000));
    assert_eq!(
        parse(Signal::Logs, &len(1, &len(2, &million[2..]))),
        Ok(1_000_000)
    );
    let e = parse(Signal::Traces, &[0x0a, 0].repeat(100_001)).expect_err("many resources");
    assert_eq!(e.problem, Problem::Scopes(100_000));
    // Lengths of more than there is, in every place of a request.
    let whole = log(&[len(5, &len(1, b"text")), len(6, &len(1, b"key"))].concat());
    for at in 0..whole.len() {
        let mut body = whole.clone();
        body.splice(at..at + 1, [0xff, 0xff, 0xff, 0xff, 0x0f]);
        let _ = parse(Signal::Logs, &body);
        body.truncate(at);
        let _ = parse(Signal::Logs, &body);
    }
}
