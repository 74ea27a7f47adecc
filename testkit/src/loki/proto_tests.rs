use super::*;
use crate::loki::encode::encode_push;
use crate::loki::push::{entry_wire_bytes, stream_wire_bytes};

fn read(bytes: &[u8]) -> Result<PushRequest<'_>, ReadError> {
    read_push(bytes, &ReadLimits::default())
}

fn sample() -> PushRequest<'static> {
    let entry = |ts_ns, line: &'static [u8], metadata| PushEntry {
        ts_ns,
        line: Cow::Borrowed(line),
        metadata,
    };
    let stream = |labels: &'static str, entries| PushStream {
        labels: labels.into(),
        entries,
    };
    PushRequest {
        streams: vec![
            stream(
                "{a=\"1\"}",
                vec![
                    entry(1_704_207_845_000_000_006, b"hello", vec![]),
                    entry(
                        0,
                        b"",
                        vec![("k".into(), "v".into()), ("n".into(), "".into())],
                    ),
                    entry(-1, b"\xff\x00", vec![]),
                ],
            ),
            stream(
                "{b=\"2\"}",
                vec![entry(5_000_000_000, &[b'x'; 300], vec![])],
            ),
            stream("{}", vec![]),
        ],
    }
}

#[test]
fn golden_bytes_are_read() {
    // Written by hand from push.proto: labels {a="1"}, hash 7, one entry at 1.000000002 s with
    // line "hi" and metadata k=<euro sign>; then format "x" and an unknown fixed32 field 9.
    let bytes = b"\x0a\x21\x0a\x07{a=\"1\"}\x12\x14\x0a\x04\x08\x01\x10\x02\x12\x02hi\
                  \x1a\x08\x0a\x01k\x12\x03\xe2\x82\xac\x18\x07\x12\x01x\x4d\x01\x02\x03\x04";
    let request = read(bytes).unwrap();
    assert_eq!(request.streams.len(), 1);
    assert_eq!(request.streams[0].labels, "{a=\"1\"}");
    let entry = &request.streams[0].entries[0];
    assert_eq!((entry.ts_ns, &*entry.line), (1_000_000_002, &b"hi"[..]));
    assert_eq!(entry.metadata, [("k".into(), "\u{20ac}".into())]);
}

#[test]
fn what_the_encoder_writes_is_read_back_and_has_the_length_predicted() {
    let request = sample();
    let bytes = encode_push(&request);
    assert_eq!(read(&bytes).unwrap(), request);
    let predicted: usize = request
        .streams
        .iter()
        .map(|s| stream_wire_bytes(&s.labels, s.entries.iter().map(entry_wire_bytes).sum()))
        .sum();
    assert_eq!(predicted, bytes.len());
}

#[test]
fn malformed_messages_are_refused_by_name() {
    let entry = |content: &[u8]| {
        let mut bytes = vec![0x0a, content.len() as u8 + 2, 0x12, content.len() as u8];
        bytes.extend_from_slice(content);
        bytes
    };
    let cases: Vec<(Vec<u8>, ReadError)> = vec![
        (vec![0x0a], ReadError::Truncated),
        (vec![0x0a, 5, 1], ReadError::Truncated),
        (
            vec![
                0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
            ],
            ReadError::Truncated,
        ),
        (vec![0x80; 11], ReadError::VarintTooLong),
        (
            [&[0x08][..], &[0xff; 9], &[2]].concat(),
            ReadError::VarintTooLong,
        ),
        (vec![0x02, 0], ReadError::FieldNumber),
        (vec![0x0b], ReadError::WireType(3)),
        (vec![0x0c], ReadError::WireType(4)),
        (vec![0x0e], ReadError::WireType(6)),
        (vec![0x08, 1], ReadError::FieldType(1)),
        (vec![0x0d, 1, 2, 3, 4], ReadError::FieldType(1)),
        (vec![0x0a, 3, 0x0a, 1, 0xff], ReadError::Utf8),
        (vec![0x09, 1, 2, 3], ReadError::Truncated),
        (entry(b"\x08\x01"), ReadError::FieldType(1)),
        (
            entry(b"\x0a\x06\x10\x80\x94\xeb\xdc\x03"),
            ReadError::Nanos(1_000_000_000),
        ),
        (
            entry(b"\x0a\x0b\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            ReadError::Nanos(-1),
        ),
        (entry(b"\x0a\x02\x0a\x00"), ReadError::FieldType(1)),
    ];
    for (bytes, expect) in cases {
        assert_eq!(read(&bytes), Err(expect), "{bytes:x?}");
    }
}

#[test]
fn a_missing_timestamp_is_ancient_and_an_empty_one_is_the_epoch() {
    let ts = |bytes: &[u8]| read(bytes).unwrap().streams[0].entries[0].ts_ns;
    assert_eq!(ts(b"\x0a\x05\x12\x03\x12\x01x"), i64::MIN);
    assert_eq!(ts(b"\x0a\x07\x12\x05\x0a\x00\x12\x01x"), 0);
}

#[test]
fn broken_utf8_in_metadata_becomes_spaces_and_in_lines_stays() {
    let bytes = b"\x0a\x11\x12\x0f\x0a\x00\x12\x02\xff\xfe\x1a\x07\x0a\x01k\x12\x02v\xff";
    let request = read(bytes).unwrap();
    let entry = &request.streams[0].entries[0];
    assert_eq!(&*entry.line, b"\xff\xfe");
    assert_eq!(entry.metadata, [("k".into(), "v ".into())]);
}

#[test]
fn counts_are_limited() {
    let bytes = encode_push(&sample());
    let limits = ReadLimits {
        streams_max: 3,
        entries_max: 4,
        pairs_max: 2,
    };
    assert!(read_push(&bytes, &limits).is_ok());
    for (limits, what) in [
        (
            ReadLimits {
                streams_max: 2,
                ..limits
            },
            "streams",
        ),
        (
            ReadLimits {
                entries_max: 3,
                ..limits
            },
            "entries",
        ),
        (
            ReadLimits {
                pairs_max: 1,
                ..limits
            },
            "metadata pairs",
        ),
    ] {
        assert_eq!(read_push(&bytes, &limits), Err(ReadError::TooMany(what)));
    }
}

#[test]
fn every_cut_and_random_damage_is_read_or_refused_without_a_panic() {
    let bytes = encode_push(&sample());
    for len in 0..bytes.len() {
        let _ = read(&bytes[..len]);
    }
    let mut rng = crate::rng::Rng::new(11);
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut damaged = bytes.clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(damaged.len() as u64) as usize;
            damaged[at] = rng.next_u64() as u8;
        }
        refused += u32::from(read(&damaged).is_err());
    }
    assert!(refused > 1_000, "{refused}");
}
