//! Request bodies: entries are compressed while they are hot, a body is put together at the end.
//!
//! A body is a snappy block: `length | elements`. Entries of a stream are appended to its raw
//! buffer, and every 64 KiB of it become a finished fragment. When the request is closed, the
//! headers of the streams, which hold lengths that are only known then, go in front of their
//! fragments; headers and the entries that did not fill a fragment are compressed together, so
//! that a request with many small streams still compresses well.

use std::sync::Arc;

use bytes::Bytes;
use tailwater_pipeline::BufferPool;

use super::compress::{CompressionEncoder, Compressor, Elements};
use super::decode::{self, DecodeError};
use super::wire;
use crate::snappy::FRAGMENT_BYTES;

/// Raw buffers that are kept for the next request, at most this many bytes.
const POOL_BYTES_MAX: usize = 4 << 20;

/// Most bytes of the length in front of a body.
const VARINT_BYTES_MAX: usize = 10;

/// The entries of one stream in an open request.
#[derive(Debug, Default)]
pub(super) struct StreamBuffer {
    /// Encoded entries that are not compressed yet; shorter than a fragment between calls.
    raw: Vec<u8>,
    /// Snappy elements of the encoded entries before those.
    sealed: Elements,
    /// Bytes of entries that `sealed` stands for.
    sealed_bytes: usize,
    entries: u32,
    newest: i64,
    oldest: i64,
    disordered: bool,
}

impl StreamBuffer {
    /// Bytes of all encoded entries.
    pub fn entries_bytes(&self) -> usize {
        self.sealed_bytes + self.raw.len()
    }

    /// Number of entries.
    #[cfg(test)]
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// True without entries.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Time of the newest entry; meaningless without entries.
    pub fn newest(&self) -> i64 {
        self.newest
    }

    /// Time of the oldest entry; meaningless without entries.
    pub fn oldest(&self) -> i64 {
        self.oldest
    }
}

/// Spare raw buffers, of all sizes.
#[derive(Debug, Default)]
struct Pool {
    free: Vec<Vec<u8>>,
    bytes: usize,
}

impl Pool {
    fn take(&mut self) -> Vec<u8> {
        let buffer = self.free.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }

    fn give(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity > 0 && self.bytes + capacity <= POOL_BYTES_MAX {
            buffer.clear();
            self.bytes += capacity;
            self.free.push(buffer);
        }
    }
}

/// Compresses entries and puts bodies together. One per shard; it holds all scratch memory.
#[derive(Debug)]
pub(super) struct BodyWriter {
    compressor: Compressor,
    /// Uncompressed bytes of the body that is being put together, less than a fragment.
    hot: Vec<u8>,
    body: Elements,
    raw_pool: Pool,
    chunks: Arc<BufferPool>,
    /// An entry this much older than the newest one before it makes its stream be sorted.
    disorder_max_ns: i64,
}

impl BodyWriter {
    /// `disorder_max_ns`: how far back in time an entry may go without its stream being sorted.
    pub fn new(kind: CompressionEncoder, disorder_max_ns: i64) -> BodyWriter {
        BodyWriter {
            compressor: Compressor::new(kind),
            hot: Vec::new(),
            body: Elements::default(),
            raw_pool: Pool::default(),
            chunks: Arc::default(),
            disorder_max_ns,
        }
    }

    /// Appends an entry; see [`wire::put_entry`] for the arguments.
    #[inline]
    pub fn push(
        &mut self,
        stream: &mut StreamBuffer,
        time: i64,
        line: &[&[u8]],
        metadata: &[&[u8]],
    ) {
        if stream.entries == 0 {
            stream.raw = self.raw_pool.take();
            (stream.newest, stream.oldest) = (time, time);
        }
        if time >= stream.newest {
            stream.newest = time;
        } else {
            stream.oldest = stream.oldest.min(time);
            stream.disordered |= stream.newest.saturating_sub(time) > self.disorder_max_ns;
        }
        stream.entries += 1;
        wire::put_entry(&mut stream.raw, time, line, metadata);
        if stream.raw.len() >= FRAGMENT_BYTES {
            self.seal(stream);
        }
    }

    #[cold]
    #[inline(never)]
    fn seal(&mut self, stream: &mut StreamBuffer) {
        let full = stream.raw.len() / FRAGMENT_BYTES * FRAGMENT_BYTES;
        self.compressor
            .append(&stream.raw[..full], &mut stream.sealed, &self.chunks);
        stream.sealed_bytes += full;
        stream.raw.copy_within(full.., 0);
        stream.raw.truncate(stream.raw.len() - full);
    }

    /// Begins a body whose streams together take `raw_bytes`, as [`wire::stream_len`] counts them.
    pub fn begin(&mut self, raw_bytes: usize) {
        self.hot.clear();
        self.body = Elements::default();
        let length = self.body.room(VARINT_BYTES_MAX, &self.chunks);
        wire::put_varint(length, raw_bytes as u64);
    }

    /// Moves the entries of a stream into the body; the buffer is empty afterwards.
    pub fn stream(&mut self, labels: &str, stream: &mut StreamBuffer) {
        if stream.disordered
            && let Err(error) = self.sort(stream)
        {
            // Unsorted entries can still be accepted.
            tracing::error!(%error, labels, "A stream cannot be sorted.");
        }
        wire::put_stream_header(&mut self.hot, labels, stream.entries_bytes());
        let done = std::mem::take(stream);
        if !done.sealed.is_empty() {
            self.compressor
                .append(&self.hot, &mut self.body, &self.chunks);
            self.hot.clear();
            self.body.append(done.sealed, &self.chunks);
        }
        self.hot.extend_from_slice(&done.raw);
        self.cool();
        self.raw_pool.give(done.raw);
    }

    /// Appends bytes of the message as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.hot.extend_from_slice(bytes);
        self.cool();
    }

    /// Compresses full fragments of the bytes that wait.
    fn cool(&mut self) {
        let full = self.hot.len() / FRAGMENT_BYTES * FRAGMENT_BYTES;
        if full > 0 {
            self.compressor
                .append(&self.hot[..full], &mut self.body, &self.chunks);
            self.hot.copy_within(full.., 0);
            self.hot.truncate(self.hot.len() - full);
        }
    }

    /// The finished body, in chunks that belong one behind the other.
    pub fn end(&mut self) -> Vec<Bytes> {
        self.compressor
            .append(&self.hot, &mut self.body, &self.chunks);
        self.hot.clear();
        std::mem::take(&mut self.body).into_chunks(&self.chunks)
    }

    /// Puts the entries in order of time; equal times keep their order. The slow path: everything
    /// that was compressed is decompressed again.
    #[cold]
    fn sort(&mut self, stream: &mut StreamBuffer) -> Result<(), DecodeError> {
        let sealed = stream.sealed.concat();
        let mut raw = decode::decompress_elements(&sealed, stream.sealed_bytes)?;
        raw.extend_from_slice(&stream.raw);
        let mut entries = decode::entries(&raw, 0..raw.len())?;
        entries.sort_by_key(|e| e.time);
        stream.sealed = Elements::default();
        stream.sealed_bytes = 0;
        stream.raw.clear();
        stream.disordered = false;
        for entry in entries {
            stream.raw.extend_from_slice(&raw[entry.field]);
            if stream.raw.len() >= FRAGMENT_BYTES {
                self.seal(stream);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::oracle;
    use super::*;
    use proptest::prelude::*;

    const MINUTE_NS: i64 = 60_000_000_000;

    /// Labels, and time and line of each entry.
    type Stream = (String, Vec<(i64, Vec<u8>)>);

    /// Puts `streams` (labels, entries of (time, line)) into one body and returns its messages.
    fn round_trip(writer: &mut BodyWriter, streams: &[Stream]) -> (Vec<u8>, oracle::Push) {
        let mut buffers: Vec<StreamBuffer> = streams.iter().map(|_| Default::default()).collect();
        let longest = streams.iter().map(|s| s.1.len()).max().unwrap_or(0);
        // Interleaved, as they come in.
        for i in 0..longest {
            for (buffer, (_, entries)) in buffers.iter_mut().zip(streams) {
                if let Some((time, line)) = entries.get(i) {
                    let (a, b) = line.split_at(line.len() / 3);
                    writer.push(buffer, *time, &[a, b], &[]);
                }
            }
        }
        let sizes = buffers.iter().zip(streams);
        let total = sizes.map(|(b, s)| wire::stream_len(s.0.len(), b.entries_bytes()));
        writer.begin(total.sum());
        for (buffer, (labels, entries)) in buffers.iter_mut().zip(streams) {
            assert_eq!(buffer.entries() as usize, entries.len());
            writer.stream(labels, buffer);
            assert!(buffer.is_empty());
        }
        let body = writer.end().concat();
        let push = oracle::decode(&body);
        (body, push)
    }

    fn messages(streams: &[Stream]) -> oracle::Push {
        let entry = |(time, line): &(i64, Vec<u8>)| oracle::Entry::new(*time, line, &[]);
        let stream = |(labels, entries): &Stream| oracle::Stream {
            labels: labels.clone(),
            entries: entries.iter().map(entry).collect(),
        };
        oracle::Push {
            streams: streams.iter().map(stream).collect(),
        }
    }

    fn lines(seed: i64, n: i64, len: usize) -> Vec<(i64, Vec<u8>)> {
        let line = |i: i64| format!("{} line {i} {:x}", "=".repeat(len), (seed ^ i) * 7_919);
        (0..n).map(|i| (1_000 + i, line(i).into_bytes())).collect()
    }

    #[test]
    fn a_body_decodes_to_what_prost_would_have_encoded() {
        for kind in [CompressionEncoder::Tailwater, CompressionEncoder::Snap] {
            let mut writer = BodyWriter::new(kind, MINUTE_NS);
            for (n, len) in [(1, 0), (1, 200_000), (3, 70_000), (2_000, 100), (700, 300)] {
                let streams = [
                    ("{a=\"1\"}".to_owned(), lines(1, n, len)),
                    ("{a=\"2\"}".to_owned(), lines(2, 1, 10)),
                    ("{a=\"3\"}".to_owned(), lines(3, n / 2 + 1, len)),
                ];
                let (_, push) = round_trip(&mut writer, &streams);
                assert_eq!(push, messages(&streams), "{kind:?} {n} {len}");
            }
        }
    }

    /// Guarantee: content that does not compress, over many chunks, arrives whole and in order.
    #[test]
    fn a_body_of_many_chunks_decodes_to_its_entries() {
        let mut rng = tailwater_pipeline::clock::Rng64::new(5);
        let mut noise = |n: usize| -> Vec<(i64, Vec<u8>)> {
            let mut line = || (0..400).map(|_| rng.next_u64() as u8).collect();
            (0..n as i64).map(|i| (i, line())).collect()
        };
        let streams: Vec<_> = [3_000, 2, 400, 1_000, 90]
            .iter()
            .enumerate()
            .map(|(i, n)| (format!("{{s=\"{i}\"}}"), noise(*n)))
            .collect();
        for kind in [CompressionEncoder::Tailwater, CompressionEncoder::Snap] {
            let mut writer = BodyWriter::new(kind, MINUTE_NS);
            for _ in 0..2 {
                assert_eq!(round_trip(&mut writer, &streams).1, messages(&streams));
            }
        }
    }

    #[test]
    fn entries_far_out_of_order_are_sorted_and_equal_times_keep_their_order() {
        let mut writer = BodyWriter::new(CompressionEncoder::Tailwater, MINUTE_NS);
        let mut entries = lines(1, 1_500, 90);
        for (i, (time, _)) in entries.iter_mut().enumerate() {
            *time = (i as i64 * 7 % 50) * 10 * MINUTE_NS;
        }
        let (_, push) = round_trip(&mut writer, &[("{a=\"1\"}".into(), entries.clone())]);
        entries.sort_by_key(|e| e.0);
        assert_eq!(push, messages(&[("{a=\"1\"}".into(), entries)]));
    }

    #[test]
    fn entries_slightly_out_of_order_are_left_as_they_are() {
        let mut writer = BodyWriter::new(CompressionEncoder::Tailwater, MINUTE_NS);
        let entries = vec![(5, b"a".to_vec()), (3, b"b".to_vec())];
        let streams = [("{a=\"1\"}".to_owned(), entries)];
        assert_eq!(round_trip(&mut writer, &streams).1, messages(&streams));
        let mut strict = BodyWriter::new(CompressionEncoder::Tailwater, 0);
        let (_, push) = round_trip(&mut strict, &streams);
        let times: Vec<_> = push.streams[0].entries.iter().map(|e| e.time()).collect();
        assert_eq!(times, [3, 5]);
    }

    #[test]
    fn many_small_streams_compress_together() {
        let mut writer = BodyWriter::new(CompressionEncoder::Tailwater, MINUTE_NS);
        let labels = |i| format!("{{namespace=\"production\", pod=\"orders-{i}\"}}");
        let streams: Vec<_> = (0..200).map(|i| (labels(i), lines(1, 2, 30))).collect();
        let (body, push) = round_trip(&mut writer, &streams);
        assert_eq!(push, messages(&streams));
        let raw = prost::Message::encoded_len(&push);
        assert!(body.len() * 3 < raw, "{} of {raw}", body.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_entries_come_back(
            streams in proptest::collection::vec(
                ("[a-z{}=\"]{1,40}", proptest::collection::vec((0i64..1_000, 0usize..3_000), 1..60)), 1..5),
        ) {
            let mut writer = BodyWriter::new(CompressionEncoder::Tailwater, MINUTE_NS);
            let expand = |(time, len): &(i64, usize)| (*time, vec![*len as u8; *len]);
            let streams: Vec<_> = streams
                .into_iter()
                .map(|(labels, entries)| (labels, entries.iter().map(expand).collect()))
                .collect();
            for _ in 0..2 {
                let (_, push) = round_trip(&mut writer, &streams);
                prop_assert_eq!(push, messages(&streams));
            }
        }
    }
}
