//! Loki's `PushRequest` in protobuf, written directly.
//!
//! The messages are those of `pkg/push/push.proto` of Loki, as far as a client sends them:
//!
//! ```text
//! PushRequest { repeated Stream streams = 1 }
//! Stream      { string labels = 1; repeated Entry entries = 2 }
//! Entry       { Timestamp timestamp = 1; string line = 2; repeated Pair metadata = 3 }
//! Timestamp   { int64 seconds = 1; int32 nanos = 2 }
//! Pair        { string name = 1; string value = 2 }
//! ```
//!
//! Every length is known before the message is written, so nothing is staged or patched.

/// Tag of `PushRequest.streams`, `Stream.labels`, `Entry.timestamp` and `Pair.name`.
pub(super) const FIELD_1_BYTES: u8 = 0x0a;
/// Tag of `Stream.entries`, `Entry.line` and `Pair.value`.
pub(super) const FIELD_2_BYTES: u8 = 0x12;
/// Tag of `Entry.metadata`.
pub(super) const FIELD_3_BYTES: u8 = 0x1a;
/// Tag of `Timestamp.seconds`.
pub(super) const FIELD_1_VARINT: u8 = 0x08;
/// Tag of `Timestamp.nanos`.
pub(super) const FIELD_2_VARINT: u8 = 0x10;

const NANOS_PER_SECOND: i64 = 1_000_000_000;
/// Longest varint.
const VARINT_BYTES_MAX: usize = 10;
/// Most bytes of an entry besides its line and metadata: its own tag and length, the timestamp
/// with two numbers, and the tag and length of the line.
pub(super) const ENTRY_OVERHEAD_BYTES_MAX: usize = 3 * (1 + VARINT_BYTES_MAX) + 2 + 6;

/// Bytes of `v` as a varint, 1 to 10.
#[inline]
pub(super) fn varint_len(v: u64) -> usize {
    // 9/64 is slightly more than 1/7 of a bit count up to 64.
    ((63 - (v | 1).leading_zeros() as usize) * 9 + 73) / 64
}

/// Appends `v` as a varint.
#[inline]
pub(super) fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Room for what stands before the line of an entry.
const HEAD_BYTES: usize = ENTRY_OVERHEAD_BYTES_MAX + 8;

/// The head of an entry, written where it stays: bytes that were written one by one are slow to
/// copy.
struct Head<'a> {
    bytes: &'a mut [u8; HEAD_BYTES],
    len: usize,
}

impl Head<'_> {
    #[inline]
    fn put(&mut self, b: u8) {
        self.bytes[self.len] = b;
        self.len += 1;
    }

    #[inline]
    fn varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.put(v as u8 | 0x80);
            v >>= 7;
        }
        self.put(v as u8);
    }
}

/// Appends an entry (as field 2 of a stream). `time` is in ns since the epoch. The line is the
/// parts of `line` one after another; `metadata` is any number of pieces that
/// [`put_pair`] wrote.
#[inline]
pub(super) fn put_entry(out: &mut Vec<u8>, time: i64, line: &[&[u8]], metadata: &[&[u8]]) {
    let line_len: usize = line.iter().map(|part| part.len()).sum();
    let metadata_len: usize = metadata.iter().map(|part| part.len()).sum();
    // Negative numbers are sign-extended to 64 bits, as protobuf's int64 is.
    let seconds = time.div_euclid(NANOS_PER_SECOND) as u64;
    let nanos = time.rem_euclid(NANOS_PER_SECOND) as u64;
    let with = |n: u64| if n == 0 { 0 } else { 1 + varint_len(n) };
    let time_len = with(seconds) + with(nanos);
    let line_field = match line_len {
        0 => 0,
        n => 1 + varint_len(n as u64) + n,
    };
    let body_len = 2 + time_len + line_field + metadata_len;
    out.reserve(HEAD_BYTES + line_len + metadata_len);
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    let mut head = Head {
        bytes: out[start..]
            .first_chunk_mut()
            .expect("as many bytes were appended"),
        len: 0,
    };
    head.put(FIELD_2_BYTES);
    head.varint(body_len as u64);
    head.put(FIELD_1_BYTES);
    head.put(time_len as u8);
    if seconds != 0 {
        head.put(FIELD_1_VARINT);
        head.varint(seconds);
    }
    if nanos != 0 {
        head.put(FIELD_2_VARINT);
        head.varint(nanos);
    }
    if line_len != 0 {
        head.put(FIELD_2_BYTES);
        head.varint(line_len as u64);
    }
    let end = start + head.len;
    out.truncate(end);
    for part in line {
        out.extend_from_slice(part);
    }
    for part in metadata {
        out.extend_from_slice(part);
    }
}

/// Appends a pair of structured metadata (as field 3 of an entry).
pub(super) fn put_pair(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let field = |s: &[u8]| match s.len() {
        0 => 0,
        n => 1 + varint_len(n as u64) + n,
    };
    out.push(FIELD_3_BYTES);
    put_varint(out, (field(name) + field(value)) as u64);
    for (tag, text) in [(FIELD_1_BYTES, name), (FIELD_2_BYTES, value)] {
        if !text.is_empty() {
            out.push(tag);
            put_varint(out, text.len() as u64);
            out.extend_from_slice(text);
        }
    }
}

/// The name of pairs of structured metadata, encoded once for all of them.
#[derive(Clone, Debug)]
pub(super) struct PairName {
    /// Field 1 of the pair and the tag of field 2, which is not empty in what is written.
    field: Vec<u8>,
    /// Where the name begins in `field`.
    start: usize,
    /// `field` with the tag of the pair in front and a byte for each of the two lengths that are
    /// not known yet. Of a fixed length, so that it is copied without a call.
    short: [u8; SHORT_BYTES],
    /// Bytes of `short`; 0 if the name is too long for it.
    short_len: usize,
}

/// Room for names of up to 32 bytes.
const SHORT_BYTES: usize = 38;

impl PairName {
    /// A name that is not empty.
    pub fn new(name: &str) -> PairName {
        let mut field = Vec::with_capacity(name.len() + 8);
        field.push(FIELD_1_BYTES);
        put_varint(&mut field, name.len() as u64);
        let start = field.len();
        field.extend_from_slice(name.as_bytes());
        field.push(FIELD_2_BYTES);
        let (mut short, mut short_len) = ([0; SHORT_BYTES], 0);
        if let Some(room) = short.get_mut(2..field.len() + 2) {
            room.copy_from_slice(&field);
            short_len = field.len() + 3;
            short[0] = FIELD_3_BYTES;
        }
        if short_len > SHORT_BYTES {
            short_len = 0;
        }
        PairName {
            field,
            start,
            short,
            short_len,
        }
    }

    /// Bytes of the name.
    #[inline]
    pub fn len(&self) -> usize {
        self.field.len() - 1 - self.start
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        let name = &self.field[self.start..self.field.len() - 1];
        std::str::from_utf8(name).expect("new() copied it from a str")
    }

    /// Appends the pair of the name and `value`, which must not be empty: what [`put_pair`]
    /// appends.
    #[inline]
    pub fn put(&self, out: &mut Vec<u8>, value: &[u8]) {
        let message = self.field.len() + varint_len(value.len() as u64) + value.len();
        out.reserve(message + SHORT_BYTES);
        if message < 0x80 && self.short_len > 0 {
            let start = out.len();
            out.extend_from_slice(&self.short);
            out.truncate(start + self.short_len);
            // Filled in where they stand: a copy that is changed first and copied again would
            // have to wait for the single bytes to be written.
            out[start + 1] = message as u8;
            out[start + self.short_len - 1] = value.len() as u8;
        } else {
            out.push(FIELD_3_BYTES);
            put_varint(out, message as u64);
            out.extend_from_slice(&self.field);
            put_varint(out, value.len() as u64);
        }
        out.extend_from_slice(value);
    }
}

/// Bytes of a stream (as field 1 of a request) whose label string takes `labels_bytes` and whose
/// encoded entries take `entries_bytes`.
pub(super) fn stream_len(labels_bytes: usize, entries_bytes: usize) -> usize {
    let message = stream_message_len(labels_bytes, entries_bytes);
    1 + varint_len(message as u64) + message
}

fn stream_message_len(labels_bytes: usize, entries_bytes: usize) -> usize {
    1 + varint_len(labels_bytes as u64) + labels_bytes + entries_bytes
}

/// Appends what stands before the entries of a stream: its tag, its length and its labels.
pub(super) fn put_stream_header(out: &mut Vec<u8>, labels: &str, entries_bytes: usize) {
    out.push(FIELD_1_BYTES);
    put_varint(out, stream_message_len(labels.len(), entries_bytes) as u64);
    out.push(FIELD_1_BYTES);
    put_varint(out, labels.len() as u64);
    out.extend_from_slice(labels.as_bytes());
}

/// The messages for `prost`, the oracle of the tests.
#[cfg(test)]
pub(super) mod oracle {
    /// `PushRequest`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Push {
        #[prost(message, repeated, tag = "1")]
        pub streams: Vec<Stream>,
    }
    /// `Stream`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Stream {
        #[prost(string, tag = "1")]
        pub labels: String,
        #[prost(message, repeated, tag = "2")]
        pub entries: Vec<Entry>,
    }
    /// `Entry`; the line as bytes, because a file may hold any.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Entry {
        #[prost(message, optional, tag = "1")]
        pub timestamp: Option<Timestamp>,
        #[prost(bytes = "vec", tag = "2")]
        pub line: Vec<u8>,
        #[prost(message, repeated, tag = "3")]
        pub metadata: Vec<Pair>,
    }
    /// `Timestamp`.
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Timestamp {
        #[prost(int64, tag = "1")]
        pub seconds: i64,
        #[prost(int32, tag = "2")]
        pub nanos: i32,
    }
    /// `Pair`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Pair {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub value: String,
    }

    impl Entry {
        pub fn new(time: i64, line: &[u8], metadata: &[(&str, &str)]) -> Entry {
            let pair = |(name, value): &(&str, &str)| Pair {
                name: (*name).into(),
                value: (*value).into(),
            };
            Entry {
                timestamp: Some(Timestamp {
                    seconds: time.div_euclid(1_000_000_000),
                    nanos: time.rem_euclid(1_000_000_000) as i32,
                }),
                line: line.to_vec(),
                metadata: metadata.iter().map(pair).collect(),
            }
        }

        /// ns since the epoch.
        pub fn time(&self) -> i64 {
            let t = self.timestamp.unwrap_or_default();
            t.seconds * 1_000_000_000 + i64::from(t.nanos)
        }
    }

    /// The messages of a request body.
    pub fn decode(body: &[u8]) -> Push {
        let raw = snap::raw::Decoder::new().decompress_vec(body).unwrap();
        prost::Message::decode(&raw[..]).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::oracle::{Entry, Push, Stream};
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    #[test]
    fn golden_bytes_of_a_request() {
        let mut entries = Vec::new();
        let mut metadata = Vec::new();
        put_pair(&mut metadata, b"k", b"v");
        put_entry(&mut entries, 1_000_000_002, &[b"he", b"llo"], &[&metadata]);
        let mut out = Vec::new();
        put_stream_header(&mut out, "{a=\"b\"}", entries.len());
        assert_eq!(out.len() + entries.len(), stream_len(7, entries.len()));
        out.extend_from_slice(&entries);
        let want = b"\x0a\x20\x0a\x07{a=\"b\"}\x12\x15\x0a\x04\x08\x01\x10\x02\x12\x05hello\x1a\x06\x0a\x01k\x12\x01v";
        assert_eq!(out, want);
    }

    #[test]
    fn a_varint_has_the_length_that_was_computed() {
        for shift in 0..64 {
            for v in [1u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_varint(&mut out, v);
                assert_eq!(out.len(), varint_len(v), "{v}");
            }
        }
    }

    #[test]
    fn a_name_that_was_encoded_before_gives_the_same_pair() {
        for (name_len, value_len) in [
            (1, 1),
            (6, 100),
            (6, 127),
            (32, 1),
            (33, 1),
            (127, 128),
            (128, 3),
            (300, 20_000),
        ] {
            let (name, value) = ("n".repeat(name_len), vec![b'v'; value_len]);
            let (mut got, mut want) = (Vec::new(), Vec::new());
            let encoded = PairName::new(&name);
            assert_eq!((encoded.as_str(), encoded.len()), (&*name, name_len));
            encoded.put(&mut got, &value);
            put_pair(&mut want, name.as_bytes(), &value);
            assert_eq!(got, want);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn what_is_written_is_what_prost_writes(
            labels in ".{0,300}",
            entries in proptest::collection::vec(
                (any::<i64>(), proptest::collection::vec(any::<u8>(), 0..300),
                 proptest::collection::vec((".{0,9}", ".{0,200}"), 0..4)), 0..6),
        ) {
            let mut body = Vec::new();
            let mut want = Stream { labels: labels.clone(), entries: Vec::new() };
            for (time, line, pairs) in &entries {
                let mut metadata = Vec::new();
                for (k, v) in pairs {
                    put_pair(&mut metadata, k.as_bytes(), v.as_bytes());
                }
                let (a, b) = line.split_at(line.len() / 2);
                put_entry(&mut body, *time, &[a, b], &[&metadata]);
                let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                want.entries.push(Entry::new(*time, line, &pairs));
            }
            let mut out = Vec::new();
            if labels.is_empty() {
                return Ok(()); // a stream always has labels
            }
            put_stream_header(&mut out, &labels, body.len());
            out.extend_from_slice(&body);
            prop_assert_eq!(out, Push { streams: vec![want] }.encode_to_vec());
        }
    }
}
