//! A fast hash whose values may be stored: the same bytes give the same number in every version.
//!
//! Eight bytes a step, multiply and fold (the 128 bit product's halves are xored), in the manner
//! of wyhash. Not cryptographic: it tells files and lines apart together with other evidence.

const K0: u64 = 0x9E37_79B9_7F4A_7C15;
const K1: u64 = 0xD1B5_4A32_D192_ED03;

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

/// The stable 64 bit hash of `bytes`.
pub fn stable_hash(bytes: &[u8]) -> u64 {
    let mut h = K0 ^ bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for c in &mut chunks {
        let word = u64::from_le_bytes(c.try_into().expect("chunks_exact(8) gives 8 bytes"));
        h = fold(h ^ word, K1 ^ h.rotate_left(23));
    }
    let mut last = [0u8; 8];
    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    fold(h ^ u64::from_le_bytes(last), K0 ^ h.rotate_left(41))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_fixed_for_ever() {
        // Stored in checkpoints: changing these numbers makes an upgrade re-read files.
        assert_eq!(stable_hash(b""), 0xB42C_4EAB_52EC_81DB);
        assert_eq!(stable_hash(b"hello world"), 0xFDDC_9B27_DC03_E627);
    }

    #[test]
    fn close_inputs_differ() {
        let mut seen = std::collections::HashSet::new();
        for len in 0..64 {
            for at in 0..len.max(1) {
                let mut b = vec![b'x'; len];
                if len > 0 {
                    b[at] = b'y';
                }
                seen.insert(stable_hash(&b));
            }
        }
        assert_eq!(seen.len(), 1 + (1..64).sum::<usize>());
    }
}
