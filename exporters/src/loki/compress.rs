//! The compressor behind a request body.

use super::snappy;

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
                block: vec![0; snap::raw::max_compress_len(snappy::FRAGMENT_BYTES)],
            },
        }
    }

    /// Appends `input` to `out` as elements, without a length in front.
    pub fn append(&mut self, input: &[u8], out: &mut Vec<u8>) {
        match self {
            Compressor::Tailwater(encoder) => encoder.append(input, out),
            Compressor::Snap { encoder, block } => {
                for fragment in input.chunks(snappy::FRAGMENT_BYTES) {
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
