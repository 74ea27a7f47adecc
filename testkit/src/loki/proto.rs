//! Reads the protobuf form of a push request (package `logproto`, file `push.proto`).
//!
//! ```text
//! PushRequest      1 streams            2 format (string)
//! StreamAdapter    1 labels (string)    2 entries    3 hash (uint64)
//! EntryAdapter     1 timestamp          2 line       3 structuredMetadata    4 parsed
//! LabelPairAdapter 1 name (string)      2 value (string)
//! Timestamp        1 seconds (int64)    2 nanos (int32)
//! ```
//! `format`, `hash`, `parsed` and unknown fields are skipped, as the server does. Everything else
//! is strict: a known field of another wire type, a group, field number 0, an over-long varint or
//! a length beyond the end is an error. Nothing is allocated per byte sent beyond the counted
//! streams, entries and pairs ([`ReadLimits`]).

use std::borrow::Cow;
use std::fmt;

use super::push::{PushEntry, PushRequest, PushStream};
use crate::entry::Pair;

/// Bounds on what one request may hold; they cap the memory decoding takes.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    /// Streams of a request.
    pub streams_max: usize,
    /// Entries of a request, over all its streams.
    pub entries_max: usize,
    /// Metadata pairs of a request, over all its entries.
    pub pairs_max: usize,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self {
            streams_max: 1_000_000,
            entries_max: 10_000_000,
            pairs_max: 20_000_000,
        }
    }
}

/// Why bytes are not a push request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadError {
    /// The message ends inside a field.
    Truncated,
    /// A varint of more than ten bytes or more than 64 bits.
    VarintTooLong,
    /// Field number 0 or above 2^29 - 1.
    FieldNumber,
    /// A wire type that does not exist, or a group.
    WireType(u8),
    /// A known field with a wire type that is not its own.
    FieldType(u32),
    /// A string field that is not UTF-8.
    Utf8,
    /// Nanoseconds outside of 0 to 999,999,999.
    Nanos(i64),
    /// More streams, entries or pairs than [`ReadLimits`] allows.
    TooMany(&'static str),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("unexpected EOF"),
            Self::VarintTooLong => f.write_str("proto: integer overflow"),
            Self::FieldNumber => f.write_str("proto: illegal tag"),
            Self::WireType(wire) => write!(f, "proto: illegal wireType {wire}"),
            Self::FieldType(field) => write!(f, "proto: wrong wireType for field {field}"),
            Self::Utf8 => f.write_str("proto: invalid UTF-8 in a string field"),
            Self::Nanos(nanos) => write!(f, "timestamp: nanos not in range [0, 1e9): {nanos}"),
            Self::TooMany(what) => write!(f, "more {what} than this server reads"),
        }
    }
}

impl std::error::Error for ReadError {}

/// Decodes a request, borrowing from `bytes`.
///
/// # Errors
/// See [`ReadError`].
pub fn read_push<'a>(bytes: &'a [u8], limits: &ReadLimits) -> Result<PushRequest<'a>, ReadError> {
    let mut counts = Counts {
        limits,
        streams: 0,
        entries: 0,
        pairs: 0,
    };
    let mut request = PushRequest::default();
    let mut reader = Reader { rest: bytes };
    while let Some((field, value)) = reader.field()? {
        if field == 1 {
            count(&mut counts.streams, limits.streams_max, "streams")?;
            request
                .streams
                .push(read_stream(value.bytes(field)?, &mut counts)?);
        }
    }
    Ok(request)
}

struct Counts<'l> {
    limits: &'l ReadLimits,
    streams: usize,
    entries: usize,
    pairs: usize,
}

fn count(counter: &mut usize, max: usize, what: &'static str) -> Result<(), ReadError> {
    *counter += 1;
    if *counter > max {
        Err(ReadError::TooMany(what))
    } else {
        Ok(())
    }
}

fn read_stream<'a>(bytes: &'a [u8], counts: &mut Counts<'_>) -> Result<PushStream<'a>, ReadError> {
    let mut stream = PushStream::default();
    let mut reader = Reader { rest: bytes };
    while let Some((field, value)) = reader.field()? {
        match field {
            1 => {
                let text = std::str::from_utf8(value.bytes(field)?).map_err(|_| ReadError::Utf8)?;
                stream.labels = Cow::Borrowed(text);
            }
            2 => {
                count(&mut counts.entries, counts.limits.entries_max, "entries")?;
                stream
                    .entries
                    .push(read_entry(value.bytes(field)?, counts)?);
            }
            _ => {}
        }
    }
    Ok(stream)
}

fn read_entry<'a>(bytes: &'a [u8], counts: &mut Counts<'_>) -> Result<PushEntry<'a>, ReadError> {
    // An absent timestamp is the year 1, which is before what nanoseconds in an i64 can say.
    let mut entry = PushEntry {
        ts_ns: i64::MIN,
        ..PushEntry::default()
    };
    let mut reader = Reader { rest: bytes };
    while let Some((field, value)) = reader.field()? {
        match field {
            1 => entry.ts_ns = read_timestamp(value.bytes(field)?)?,
            2 => entry.line = Cow::Borrowed(value.bytes(field)?),
            3 => {
                count(&mut counts.pairs, counts.limits.pairs_max, "metadata pairs")?;
                entry.metadata.push(read_pair(value.bytes(field)?)?);
            }
            _ => {}
        }
    }
    Ok(entry)
}

fn read_timestamp(bytes: &[u8]) -> Result<i64, ReadError> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    let mut reader = Reader { rest: bytes };
    while let Some((field, value)) = reader.field()? {
        match field {
            1 => seconds = value.varint(field)? as i64,
            2 => nanos = i64::from(value.varint(field)? as i32),
            _ => {}
        }
    }
    if !(0..crate::time::NANOS_PER_SECOND).contains(&nanos) {
        return Err(ReadError::Nanos(nanos));
    }
    Ok(seconds
        .saturating_mul(crate::time::NANOS_PER_SECOND)
        .saturating_add(nanos))
}

fn read_pair(bytes: &[u8]) -> Result<Pair<'_>, ReadError> {
    let mut pair = Pair::default();
    let mut reader = Reader { rest: bytes };
    while let Some((field, value)) = reader.field()? {
        match field {
            1 => pair.0 = text_or_spaces(value.bytes(field)?),
            2 => pair.1 = text_or_spaces(value.bytes(field)?),
            _ => {}
        }
    }
    Ok(pair)
}

/// Invalid UTF-8 in metadata becomes spaces, one for each broken sequence.
fn text_or_spaces(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => {
            let mut text = String::with_capacity(bytes.len());
            for chunk in bytes.utf8_chunks() {
                text.push_str(chunk.valid());
                if !chunk.invalid().is_empty() {
                    text.push(' ');
                }
            }
            Cow::Owned(text)
        }
    }
}

/// The value of one field.
enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Fixed 32 or 64 bits: no field of ours, its content does not matter.
    Fixed,
}

impl<'a> Value<'a> {
    fn bytes(self, field: u32) -> Result<&'a [u8], ReadError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(ReadError::FieldType(field)),
        }
    }

    fn varint(self, field: u32) -> Result<u64, ReadError> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(ReadError::FieldType(field)),
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The next field, or `None` at the end.
    fn field(&mut self) -> Result<Option<(u32, Value<'a>)>, ReadError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field = u32::try_from(tag >> 3).map_err(|_| ReadError::FieldNumber)?;
        if field == 0 || field >= 1 << 29 {
            return Err(ReadError::FieldNumber);
        }
        let value = match (tag & 7) as u8 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| ReadError::Truncated)?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            wire => return Err(ReadError::WireType(wire)),
        };
        Ok(Some((field, value)))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ReadError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(ReadError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, ReadError> {
        let mut value = 0u64;
        for n in 0..10 {
            let (byte, rest) = self.rest.split_first().ok_or(ReadError::Truncated)?;
            self.rest = rest;
            // The tenth byte has room for one bit only.
            if n == 9 && *byte > 1 {
                return Err(ReadError::VarintTooLong);
            }
            value |= u64::from(byte & 0x7f) << (7 * n);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ReadError::VarintTooLong)
    }
}

#[cfg(test)]
#[path = "proto_tests.rs"]
mod tests;
