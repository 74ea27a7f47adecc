//! Reads our own request bodies back: to sort, to split, to isolate what the destination rejected.
//!
//! Only bodies that this exporter wrote come here, but nothing is taken for granted: every length
//! is checked, and a body that does not decode is an error, not a panic.

use std::ops::Range;

use bytes::Bytes;

use super::wire::{
    FIELD_1_BYTES, FIELD_1_VARINT, FIELD_2_BYTES, FIELD_2_VARINT, FIELD_3_BYTES, put_varint,
};

/// Largest message that is decompressed.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// `detected_level` and its value, which Loki adds to entries that have none, and to spare.
const ADDED_BYTES_MAX: usize = 32;

/// Why a body could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum DecodeError {
    /// Not a snappy block.
    #[error("snappy: {0}")]
    Snappy(String),
    /// Longer than anything we write.
    #[error("the message claims {0} bytes")]
    TooLong(usize),
    /// The message ends in the middle of something, or holds something we never write.
    #[error("protobuf: unexpected byte or end at {0}")]
    Protobuf(usize),
}

/// One entry of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct EntryView {
    /// ns since the epoch.
    pub time: i64,
    /// The whole field in the message, tag and length included.
    pub field: Range<usize>,
    /// The line in the message.
    pub line: Range<usize>,
    /// The fields of the structured metadata in the message.
    pub metadata: Range<usize>,
}

/// One stream of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct StreamView {
    /// The label string in the message.
    pub labels: Range<usize>,
    /// Its entries.
    pub entries: Vec<EntryView>,
}

/// A request that was read back.
#[derive(Debug)]
pub(super) struct RequestView {
    /// The message.
    pub raw: Vec<u8>,
    /// Its streams, in order.
    pub streams: Vec<StreamView>,
}

impl RequestView {
    /// Reads a body that is given in chunks.
    pub fn decode(body: &[Bytes]) -> Result<RequestView, DecodeError> {
        let raw = match body {
            [one] => decompress(one)?,
            many => decompress(&many.concat())?,
        };
        let streams = streams(&raw)?;
        Ok(RequestView { raw, streams })
    }

    /// The label string of a stream.
    pub fn labels(&self, stream: &StreamView) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.raw[stream.labels.clone()])
    }

    /// The line of an entry.
    pub fn line(&self, entry: &EntryView) -> &[u8] {
        &self.raw[entry.line.clone()]
    }

    /// The structured metadata of an entry.
    pub fn metadata(&self, entry: &EntryView) -> Result<Vec<(String, String)>, DecodeError> {
        let mut reader = Reader::new(&self.raw, entry.metadata.clone());
        let mut pairs = Vec::new();
        while let Some(tag) = reader.tag()? {
            let pair = reader.field_of(tag, FIELD_3_BYTES)?;
            let mut inner = Reader::new(&self.raw, pair);
            let (mut name, mut value) = (0..0, 0..0);
            while let Some(tag) = inner.tag()? {
                match tag {
                    FIELD_1_BYTES => name = inner.delimited()?,
                    FIELD_2_BYTES => value = inner.delimited()?,
                    _ => return Err(inner.error()),
                }
            }
            let text = |r: Range<usize>| String::from_utf8_lossy(&self.raw[r]).into_owned();
            pairs.push((text(name), text(value)));
        }
        Ok(pairs)
    }

    /// An upper bound of what an entry counts against a rate: its line and the names and values of
    /// its metadata, also those that Loki adds.
    pub fn weight(entry: &EntryView) -> u64 {
        (entry.field.len() + ADDED_BYTES_MAX) as u64
    }

    /// Number of entries.
    pub fn entries(&self) -> usize {
        self.streams.iter().map(|s| s.entries.len()).sum()
    }
}

fn decompress(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let len = snap::raw::decompress_len(body).map_err(|e| DecodeError::Snappy(e.to_string()))?;
    if len > MESSAGE_BYTES_MAX {
        return Err(DecodeError::TooLong(len));
    }
    let mut decoder = snap::raw::Decoder::new();
    decoder
        .decompress_vec(body)
        .map_err(|e| DecodeError::Snappy(e.to_string()))
}

/// Decompresses snappy elements that stand for `len` bytes.
pub(super) fn decompress_elements(elements: &[u8], len: usize) -> Result<Vec<u8>, DecodeError> {
    if len == 0 {
        return Ok(Vec::new());
    }
    let mut block = Vec::with_capacity(elements.len() + 5);
    put_varint(&mut block, len as u64);
    block.extend_from_slice(elements);
    decompress(&block)
}

struct Reader<'a> {
    raw: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    /// A reader of a part of `raw`; a part beyond its end is cut.
    fn new(raw: &'a [u8], part: Range<usize>) -> Reader<'a> {
        let end = part.end.min(raw.len());
        Reader {
            raw,
            at: part.start.min(end),
            end,
        }
    }

    fn error(&self) -> DecodeError {
        DecodeError::Protobuf(self.at)
    }

    /// The next tag; all tags we write are one byte. `None` at the end.
    fn tag(&mut self) -> Result<Option<u8>, DecodeError> {
        if self.at == self.end {
            return Ok(None);
        }
        self.at += 1;
        Ok(Some(self.raw[self.at - 1]))
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut v = 0u64;
        for shift in (0..64).step_by(7) {
            let Some(b) = self.tag()? else { break };
            v |= u64::from(b & 0x7f) << shift;
            if b < 0x80 {
                return Ok(v);
            }
        }
        Err(self.error())
    }

    fn delimited(&mut self) -> Result<Range<usize>, DecodeError> {
        let len = self.varint()?;
        let start = self.at;
        let end = usize::try_from(len)
            .ok()
            .and_then(|len| start.checked_add(len))
            .filter(|end| *end <= self.end)
            .ok_or(self.error())?;
        self.at = end;
        Ok(start..end)
    }

    fn field_of(&mut self, tag: u8, wanted: u8) -> Result<Range<usize>, DecodeError> {
        if tag != wanted {
            return Err(self.error());
        }
        self.delimited()
    }
}

fn streams(raw: &[u8]) -> Result<Vec<StreamView>, DecodeError> {
    let mut reader = Reader::new(raw, 0..raw.len());
    let mut streams = Vec::new();
    while let Some(tag) = reader.tag()? {
        let message = reader.field_of(tag, FIELD_1_BYTES)?;
        let end = message.end;
        let mut inner = Reader::new(raw, message);
        let Some(tag) = inner.tag()? else {
            return Err(inner.error());
        };
        let labels = inner.field_of(tag, FIELD_1_BYTES)?;
        let entries = entries(raw, inner.at..end)?;
        streams.push(StreamView { labels, entries });
    }
    Ok(streams)
}

/// The entries in a part of a message.
pub(super) fn entries(raw: &[u8], part: Range<usize>) -> Result<Vec<EntryView>, DecodeError> {
    let mut reader = Reader::new(raw, part);
    let mut entries = Vec::new();
    loop {
        let start = reader.at;
        let Some(tag) = reader.tag()? else {
            return Ok(entries);
        };
        let message = reader.field_of(tag, FIELD_2_BYTES)?;
        entries.push(entry(raw, start..message.end, message)?);
    }
}

fn entry(raw: &[u8], field: Range<usize>, message: Range<usize>) -> Result<EntryView, DecodeError> {
    let end = message.end;
    let mut reader = Reader::new(raw, message);
    let (mut time, mut line, mut metadata) = (0i64, end..end, end..end);
    loop {
        let start = reader.at;
        match reader.tag()? {
            None => break,
            Some(FIELD_1_BYTES) => time = timestamp(raw, reader.delimited()?)?,
            Some(FIELD_2_BYTES) => line = reader.delimited()?,
            Some(FIELD_3_BYTES) => {
                // Metadata is the last field; what follows must be metadata too.
                metadata = start..end;
                reader.delimited()?;
                while let Some(tag) = reader.tag()? {
                    reader.field_of(tag, FIELD_3_BYTES)?;
                }
            }
            Some(_) => return Err(reader.error()),
        }
    }
    Ok(EntryView {
        time,
        field,
        line,
        metadata,
    })
}

fn timestamp(raw: &[u8], message: Range<usize>) -> Result<i64, DecodeError> {
    let mut reader = Reader::new(raw, message);
    let (mut seconds, mut nanos) = (0i64, 0i64);
    while let Some(tag) = reader.tag()? {
        match tag {
            FIELD_1_VARINT => seconds = reader.varint()? as i64,
            FIELD_2_VARINT => nanos = reader.varint()? as i64,
            _ => return Err(reader.error()),
        }
    }
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

#[cfg(test)]
mod tests {
    use super::super::wire::{put_entry, put_pair, put_stream_header};
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Vec<u8> {
        let mut metadata = Vec::new();
        put_pair(&mut metadata, b"k", b"v");
        put_pair(&mut metadata, b"empty", b"");
        let mut entries = Vec::new();
        put_entry(&mut entries, -5, &[b"one"], &[&metadata]);
        put_entry(&mut entries, i64::MAX, &[], &[]);
        let mut raw = Vec::new();
        put_stream_header(&mut raw, "{a=\"b\"}", entries.len());
        raw.extend_from_slice(&entries);
        put_stream_header(&mut raw, "{c=\"d\"}", entries.len());
        raw.extend_from_slice(&entries);
        raw
    }

    #[test]
    fn a_request_comes_back_as_it_was_written() {
        let raw = sample();
        let block = snap::raw::Encoder::new().compress_vec(&raw).unwrap();
        let (a, b) = block.split_at(9);
        let chunks = [Bytes::copy_from_slice(a), Bytes::copy_from_slice(b)];
        let view = RequestView::decode(&chunks).unwrap();
        assert_eq!((view.raw == raw, view.entries()), (true, 4));
        assert_eq!(view.labels(&view.streams[1]), "{c=\"d\"}");
        let [one, two] = &view.streams[0].entries[..] else {
            panic!("two entries");
        };
        assert_eq!((one.time, view.line(one)), (-5, &b"one"[..]));
        assert_eq!((two.time, view.line(two)), (i64::MAX, &b""[..]));
        let pairs = [
            ("k".to_owned(), "v".to_owned()),
            ("empty".into(), "".into()),
        ];
        assert_eq!(view.metadata(one).unwrap(), pairs);
        assert!(view.metadata(two).unwrap().is_empty());
        assert_eq!(one.field.end, two.field.start);
    }

    #[test]
    fn a_cut_message_is_an_error() {
        let raw = sample();
        let whole = streams(&raw).unwrap().len();
        let complete = (1..raw.len()).filter(|n| streams(&raw[..*n]).is_ok());
        assert_eq!(
            (whole, complete.count()),
            (2, 1),
            "only between the two streams"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_input_makes_it_panic(
            noise in proptest::collection::vec(any::<u8>(), 0..60),
            flips in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..4),
        ) {
            let _ = RequestView::decode(&[noise.clone().into()]);
            let _ = streams(&noise);
            let mut raw = sample();
            for (at, b) in flips {
                let n = raw.len();
                raw[usize::from(at) % n] = b;
            }
            if let Ok(streams) = streams(&raw) {
                let view = RequestView { raw, streams };
                for s in &view.streams {
                    for e in &s.entries {
                        let _ = (view.line(e), view.metadata(e), view.labels(s));
                    }
                }
            }
        }
    }
}
