//! A push request after decoding, whatever form it came in, borrowing from the request body.

use std::borrow::Cow;

use crate::entry::Pair;

/// All streams of a request, in the order sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PushRequest<'a> {
    /// The streams; equal label sets may occur several times.
    pub streams: Vec<PushStream<'a>>,
}

/// One stream of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PushStream<'a> {
    /// The label string as sent.
    pub labels: Cow<'a, str>,
    /// Its entries, in the order sent.
    pub entries: Vec<PushEntry<'a>>,
}

/// One entry of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PushEntry<'a> {
    /// Unix time in nanoseconds. A time that does not fit, the year 1 of a missing timestamp
    /// included, is the nearest that does.
    pub ts_ns: i64,
    /// The line; any bytes.
    pub line: Cow<'a, [u8]>,
    /// Structured metadata as sent.
    pub metadata: Vec<Pair<'a>>,
}

impl PushEntry<'_> {
    /// What counts against rate limits: the line and the metadata's names and values.
    pub fn counted_bytes(&self) -> usize {
        self.line.len() + self.metadata_bytes()
    }

    /// Length of all names and values.
    pub fn metadata_bytes(&self) -> usize {
        self.metadata
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum()
    }
}

/// Encoded length of an entry in a stream message: tag, length and content.
pub(super) fn entry_wire_bytes(entry: &PushEntry<'_>) -> usize {
    let pair =
        |(name, value): &Pair<'_>| field_bytes(field_bytes(name.len()) + field_bytes(value.len()));
    let seconds = entry.ts_ns.div_euclid(crate::time::NANOS_PER_SECOND) as u64;
    let nanos = entry.ts_ns.rem_euclid(crate::time::NANOS_PER_SECOND) as u64;
    let number = |value: u64| {
        if value == 0 {
            0
        } else {
            1 + varint_bytes(value)
        }
    };
    let timestamp = field_bytes(number(seconds) + number(nanos));
    let metadata: usize = entry.metadata.iter().map(pair).sum();
    field_bytes(timestamp + field_bytes(entry.line.len()) + metadata)
}

/// Encoded length of a stream in a request, `entries` being the length of its entries.
pub(super) fn stream_wire_bytes(labels: &str, entries: usize) -> usize {
    field_bytes(field_bytes(labels.len()) + entries)
}

/// Tag (one byte), length and content of a length-delimited field.
fn field_bytes(content: usize) -> usize {
    1 + varint_bytes(content as u64) + content
}

fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros()).div_ceil(7) as usize
}
