//! The snappy encoder.

use crate::snappy::{Encoder, FRAGMENT_BYTES};

/// How often a stretch is repeated at most.
const REPEATS_MAX: usize = 64;

/// An encoder that is used again: any input decodes to itself with the `snap` crate, whatever the
/// pieces it is appended in, is at most three bytes per fragment longer, and what is in the output
/// already stays.
///
/// The first byte says where the input is divided, the second how often its end is repeated.
pub fn compression(data: &[u8]) {
    let Some(([at, repeats], text)) = data.split_first_chunk() else {
        return;
    };
    // Repeats reach lengths beyond a fragment from short inputs.
    let (first, second) = text.split_at(text.len() * usize::from(*at) / 255);
    let second = second.repeat(usize::from(*repeats) % REPEATS_MAX + 1);
    let whole = [first, &second].concat();
    let mut encoder = Encoder::default();
    check(&mut encoder, &[&whole], &whole);
    check(&mut encoder, &[first, &second], &whole);
    check(&mut encoder, &[&second, first], &[&second, first].concat());
}

fn check(encoder: &mut Encoder, pieces: &[&[u8]], want: &[u8]) {
    let mut out = preamble(want.len());
    let head = out.clone();
    for piece in pieces {
        let before = out.len();
        encoder.append(piece, &mut out);
        let most = piece.len() + 3 * piece.len().div_ceil(FRAGMENT_BYTES);
        assert!(
            out.len() - before <= most,
            "{} of {most}",
            out.len() - before
        );
    }
    assert!(out.starts_with(&head));
    let back = snap::raw::Decoder::new().decompress_vec(&out);
    assert!(
        back.as_deref() == Ok(want),
        "{} bytes: {:?}",
        want.len(),
        back.err()
    );
}

/// A length as snappy writes it in front of a block.
fn preamble(mut n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}
