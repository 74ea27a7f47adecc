//! The compressor behind a request body, and what it writes into.

use std::sync::Arc;

use bytes::Bytes;
use tailwater_pipeline::BufferPool;

use crate::snappy::{self, FRAGMENT_BYTES};

/// Room of a chunk. It is closed when the next fragment might not fit, that is half full; what was
/// never written to takes no memory.
const CHUNK_BYTES: usize = 128 << 10;
/// Fewer bytes are copied behind what is there, rather than sent as a chunk of their own.
const CHUNK_BYTES_MIN: usize = 32 << 10;

/// Snappy elements in chunks that never move while they grow.
#[derive(Debug, Default)]
pub(super) struct Elements {
    done: Vec<Bytes>,
    open: Vec<u8>,
}

impl Elements {
    /// True if nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty() && self.open.is_empty()
    }

    /// The buffer to append up to `bytes` to.
    pub fn room(&mut self, bytes: usize, pool: &Arc<BufferPool>) -> &mut Vec<u8> {
        if self.open.capacity() - self.open.len() < bytes {
            self.close(pool);
            self.open = pool.take(CHUNK_BYTES.max(bytes));
        }
        &mut self.open
    }

    /// Appends what `other` holds.
    pub fn append(&mut self, other: Elements, pool: &Arc<BufferPool>) {
        let Elements { done, open } = other;
        if !done.is_empty() {
            self.close(pool);
            self.done.extend(done);
        }
        if open.len() < CHUNK_BYTES_MIN {
            self.room(open.len(), pool).extend_from_slice(&open);
            pool.put(open);
        } else {
            self.close(pool);
            self.open = open;
        }
    }

    /// All of it in one piece.
    pub fn concat(&self) -> Vec<u8> {
        [self.done.concat().as_slice(), &self.open].concat()
    }

    /// The chunks.
    pub fn into_chunks(mut self, pool: &Arc<BufferPool>) -> Vec<Bytes> {
        self.close(pool);
        self.done
    }

    fn close(&mut self, pool: &Arc<BufferPool>) {
        let open = std::mem::take(&mut self.open);
        if open.is_empty() {
            pool.put(open);
        } else {
            self.done.push(pool.share(open));
        }
    }
}

/// Which encoder compresses. Both write the same format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CompressionEncoder {
    /// Our own, see [`snappy`].
    #[default]
    Tailwater,
    /// The `snap` crate.
    Snap,
}

/// Appends snappy elements. Reuse it: it holds a hash table.
#[derive(Debug)]
pub(super) enum Compressor {
    Tailwater(snappy::Encoder),
    Snap {
        encoder: Box<snap::raw::Encoder>,
        block: Vec<u8>,
    },
}

impl Compressor {
    pub fn new(kind: CompressionEncoder) -> Compressor {
        match kind {
            CompressionEncoder::Tailwater => Compressor::Tailwater(snappy::Encoder::default()),
            CompressionEncoder::Snap => Compressor::Snap {
                encoder: Box::new(snap::raw::Encoder::new()),
                block: vec![0; snap::raw::max_compress_len(FRAGMENT_BYTES)],
            },
        }
    }

    /// Appends `input` to `out` as elements, without a length in front.
    pub fn append(&mut self, input: &[u8], out: &mut Elements, pool: &Arc<BufferPool>) {
        for fragment in input.chunks(FRAGMENT_BYTES) {
            let out = out.room(snap::raw::max_compress_len(fragment.len()), pool);
            match self {
                Compressor::Tailwater(encoder) => encoder.append(fragment, out),
                Compressor::Snap { encoder, block } => {
                    let n = encoder
                        .compress(fragment, block)
                        .expect("the block has room for any fragment");
                    // `compress` writes a block: its length, then the elements.
                    out.extend_from_slice(
                        &block[super::wire::varint_len(fragment.len() as u64)..n],
                    );
                }
            }
        }
    }
}
