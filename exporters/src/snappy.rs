//! An encoder of the snappy block format, tuned for log text.
//!
//! It emits the elements of the format (literals and copies, see `format_description.txt` of the
//! snappy project) and nothing else: the length in front of a block is written by whoever puts
//! fragments together. A fragment covers at most 64 KiB of input and never refers to what is
//! before it, so fragments can be compressed while their input is hot in the cache and be
//! concatenated later, in any order.
//!
//! Where it differs from the usual encoder: matches are found through a hash of eight bytes, so
//! that there are fewer and longer ones, and a match is extended backwards over the literal before
//! it. Log lines repeat long pieces, so this is faster than the four byte hash and compresses
//! about as well. Any snappy decoder reads the output.
//!
//! This is the one file of the product that uses `unsafe`: unchecked loads and stores in the
//! match loop. Each block says why its accesses are in bounds; tests compare with the `snap` crate.
#![allow(unsafe_code)]

use std::ptr;

/// Most input bytes of one fragment: copies reach back at most this far.
pub const FRAGMENT_BYTES: usize = 64 << 10;

/// log2 of the slots of the hash table: 16 KiB, which stays in the L1 cache.
const TABLE_BITS: u32 = 13;
/// The same for short inputs, so that clearing the table does not cost more than compressing.
const SMALL_TABLE_BITS: u32 = 9;
/// Inputs up to this length use the small table.
const SMALL_INPUT_BYTES: usize = 1 << 11;
/// Inputs shorter than this are not searched for matches.
const SEARCH_BYTES_MIN: usize = 32;
/// The search for matches ends this far before the end of the input.
const MARGIN_BYTES: usize = 16;
/// Bytes that a match has at least; they are hashed and compared as one word.
const MATCH_BYTES: usize = 8;
/// After every 32 positions without a match the step grows by one.
const SKIP_SHIFT: u32 = 5;
/// Room that is needed beyond the length of the input. A copy takes at most 3 bytes for at least
/// 8 of input (3 for each further 64), a literal at most 3 more than its bytes, and at most one
/// literal stands between two copies; so the output is at most 3 bytes longer than the input, and
/// stores may overshoot it by 32.
const SLACK_BYTES: usize = 64;

/// A fragment encoder with its hash table. Reuse it: creating one allocates.
#[derive(Debug)]
pub struct Encoder {
    table: Box<[u16]>,
}

impl Default for Encoder {
    fn default() -> Encoder {
        Encoder {
            table: vec![0; 1 << TABLE_BITS].into_boxed_slice(),
        }
    }
}

impl Encoder {
    /// Appends `input` to `out`, as one fragment for each 64 KiB of it.
    pub fn append(&mut self, input: &[u8], out: &mut Vec<u8>) {
        for fragment in input.chunks(FRAGMENT_BYTES) {
            out.reserve(fragment.len() + SLACK_BYTES);
            let table = &mut self.table[..];
            // SAFETY: the fragment is 1..=64 KiB long, `out` has room for it and the slack beyond
            // its length, and both tables have at least the slots that BITS names.
            unsafe {
                let start = out.as_mut_ptr().add(out.len());
                let end = if fragment.len() <= SMALL_INPUT_BYTES {
                    encode::<SMALL_TABLE_BITS>(fragment, table, start)
                } else {
                    encode::<TABLE_BITS>(fragment, table, start)
                };
                let written = end.offset_from(start) as usize;
                out.set_len(out.len() + written);
            }
        }
    }
}

/// Appends one literal element with all of `bytes` to `out`: for tests and for callers that must
/// not have their bytes mixed with others.
#[cfg(test)]
pub fn append_literal(bytes: &[u8], out: &mut Vec<u8>) {
    for part in bytes.chunks(FRAGMENT_BYTES) {
        let n = part.len() - 1;
        match n {
            0..60 => out.push((n << 2) as u8),
            60..256 => out.extend_from_slice(&[60 << 2, n as u8]),
            _ => out.extend_from_slice(&[61 << 2, n as u8, (n >> 8) as u8]),
        }
        out.extend_from_slice(part);
    }
}

/// # Safety
/// Eight bytes at `p` must be readable.
#[inline(always)]
unsafe fn load(p: *const u8) -> u64 {
    // SAFETY: the caller's promise; any alignment is allowed.
    u64::from_le(unsafe { p.cast::<u64>().read_unaligned() })
}

#[inline(always)]
fn slot<const BITS: u32>(word: u64) -> usize {
    (word.wrapping_mul(0x9E37_79B1_85EB_CA87) >> (64 - BITS)) as usize
}

/// Writes the elements of `input` to `out` and returns the end of what it wrote.
///
/// # Safety
/// `input` must be 1..=64 KiB long, `table` must have `1 << BITS` slots at least, and
/// `input.len() + SLACK_BYTES` bytes at `out` must be writable.
#[inline(always)]
unsafe fn encode<const BITS: u32>(input: &[u8], table: &mut [u16], mut out: *mut u8) -> *mut u8 {
    let n = input.len();
    let base = input.as_ptr();
    debug_assert!((1..=FRAGMENT_BYTES).contains(&n) && table.len() >= 1 << BITS);
    // SAFETY: positions below `n - MARGIN_BYTES` can be loaded from as words. Slots hold positions
    // that were loaded from before, or 0. `slot` is below 1 << BITS. `out` is within its room as
    // the comment at SLACK_BYTES shows.
    unsafe {
        if n < SEARCH_BYTES_MIN {
            return literal(out, base, n, n);
        }
        table[..1 << BITS].fill(0);
        let slots = table.as_mut_ptr();
        let limit = n - MARGIN_BYTES;
        let (mut at, mut written) = (1, 0);
        'next: while at < limit {
            let mut skip = 1 << SKIP_SHIFT;
            let from = loop {
                let word = load(base.add(at));
                let slot = slots.add(slot::<BITS>(word));
                let candidate = usize::from(*slot);
                *slot = at as u16;
                if load(base.add(candidate)) == word {
                    break candidate;
                }
                let step = skip >> SKIP_SHIFT;
                at += step;
                skip += step;
                if at >= limit {
                    break 'next;
                }
            };
            let distance = at - from;
            let back = common_before(input, at, distance, written);
            let start = at - back;
            if start > written {
                out = literal(out, base.add(written), start - written, n - written);
            }
            at = common_end(input, at + MATCH_BYTES, distance);
            out = copy(out, distance, at - start);
            written = at;
            if at < limit {
                // The match was not hashed; one position of it is enough to find the next repeat.
                *slots.add(slot::<BITS>(load(base.add(at - 2)))) = (at - 2) as u16;
            }
        }
        if written < n {
            out = literal(out, base.add(written), n - written, n - written);
        }
        out
    }
}

/// How many bytes before `at` equal those `distance` earlier, but not beyond `floor`.
///
/// # Safety
/// `distance <= at`, `floor <= at` and `at` must be within `input`.
#[inline(always)]
unsafe fn common_before(input: &[u8], at: usize, distance: usize, floor: usize) -> usize {
    let base = input.as_ptr();
    let max = (at - floor).min(at - distance);
    let mut n = 0;
    // SAFETY: n < max keeps both positions at or above 0 and below `at`.
    while n < max && unsafe { *base.add(at - 1 - n) == *base.add(at - 1 - n - distance) } {
        n += 1;
    }
    n
}

/// The end of the match that has reached `at`, with the bytes `distance` earlier.
///
/// # Safety
/// `distance <= at` and `at <= input.len()`.
#[inline(always)]
unsafe fn common_end(input: &[u8], mut at: usize, distance: usize) -> usize {
    let (base, n) = (input.as_ptr(), input.len());
    // SAFETY: words are loaded only where eight bytes are left; the earlier one lies before it.
    unsafe {
        while at + 8 <= n {
            let differs = load(base.add(at)) ^ load(base.add(at - distance));
            if differs != 0 {
                return at + (differs.trailing_zeros() / 8) as usize;
            }
            at += 8;
        }
        while at < n && *base.add(at) == *base.add(at - distance) {
            at += 1;
        }
    }
    at
}

/// Writes a literal of the `n` bytes at `from`, of which `readable` may be read.
///
/// # Safety
/// `1 <= n <= readable`, `readable` bytes at `from` must be readable and `n + 35` bytes at `out`
/// writable.
#[inline(always)]
unsafe fn literal(mut out: *mut u8, from: *const u8, n: usize, readable: usize) -> *mut u8 {
    let code = n - 1;
    // SAFETY: at most 3 bytes of header, then n bytes, or 32 where both sides have them.
    unsafe {
        if code < 60 {
            *out = (code << 2) as u8;
            out = out.add(1);
        } else if code < 256 {
            *out = 60 << 2;
            *out.add(1) = code as u8;
            out = out.add(2);
        } else {
            *out = 61 << 2;
            *out.add(1) = code as u8;
            *out.add(2) = (code >> 8) as u8;
            out = out.add(3);
        }
        if n <= 32 && readable >= 32 {
            // A fixed length becomes two vector moves instead of a call.
            ptr::copy_nonoverlapping(from, out, 32);
        } else {
            ptr::copy_nonoverlapping(from, out, n);
        }
        out.add(n)
    }
}

/// Writes copies of `n` bytes from `distance` bytes back.
///
/// # Safety
/// `n >= 8`, `1 <= distance < 65536`, and `3 * n.div_ceil(60)` bytes at `out` must be writable.
#[inline(always)]
unsafe fn copy(mut out: *mut u8, distance: usize, mut n: usize) -> *mut u8 {
    let [low, high, ..] = (distance as u32).to_le_bytes();
    // SAFETY: each element is 3 bytes at most, the number of elements is as promised.
    unsafe {
        let put = |out: *mut u8, len: usize| {
            *out = ((len - 1) << 2) as u8 | 2;
            *out.add(1) = low;
            *out.add(2) = high;
            out.add(3)
        };
        // What is left must be 4 at least, for the short form of the element.
        while n >= 68 {
            out = put(out, 64);
            n -= 64;
        }
        if n > 64 {
            out = put(out, 60);
            n -= 60;
        }
        if n >= 12 || distance >= 2048 {
            return put(out, n);
        }
        *out = ((distance >> 8) << 5 | (n - 4) << 2 | 1) as u8;
        *out.add(1) = low;
        out.add(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    fn check(input: &[u8]) -> usize {
        let mut out = preamble(input.len());
        let head = out.len();
        Encoder::default().append(input, &mut out);
        let fragments = input.len().div_ceil(FRAGMENT_BYTES);
        assert!(out.len() - head <= input.len() + 3 * fragments);
        let back = snap::raw::Decoder::new().decompress_vec(&out);
        assert_eq!(back.as_deref(), Ok(input), "length {}", input.len());
        out.len()
    }

    /// Lines with a common shape and changing fields, as logs have them.
    fn log_text(seed: u64, len: usize) -> Vec<u8> {
        let mut rng = tailwater_pipeline::clock::Rng64::new(seed);
        let mut out = Vec::with_capacity(len + 200);
        while out.len() < len {
            let level = ["info", "warn", "error"][rng.below(3) as usize];
            let (a, b) = (rng.next_u64(), rng.below(100_000));
            let line = format!(
                "{{\"level\":\"{level}\",\"msg\":\"request completed\",\"trace\":\"{a:016x}\",\"user\":{b}}}\n"
            );
            out.extend_from_slice(line.as_bytes());
        }
        out.truncate(len);
        out
    }

    #[test]
    fn every_short_length_decodes_to_its_input() {
        let text = log_text(1, 700);
        let lengths = if cfg!(miri) { 0..200 } else { 0..700 };
        for len in lengths {
            check(&text[..len]);
            check(&vec![b'x'; len]);
        }
    }

    #[test]
    fn lengths_around_a_fragment_decode_to_their_input() {
        let text = log_text(2, 3 * FRAGMENT_BYTES);
        let edges = [
            SMALL_INPUT_BYTES - 1,
            SMALL_INPUT_BYTES,
            SMALL_INPUT_BYTES + 1,
            FRAGMENT_BYTES - 1,
            FRAGMENT_BYTES,
            FRAGMENT_BYTES + 1,
            FRAGMENT_BYTES + 40,
            2 * FRAGMENT_BYTES,
            3 * FRAGMENT_BYTES,
        ];
        for len in if cfg!(miri) { &edges[..3] } else { &edges[..] } {
            check(&text[..*len]);
            check(&vec![0; *len]);
        }
    }

    #[test]
    fn log_text_compresses_nearly_as_well_as_with_snap() {
        let text = log_text(3, if cfg!(miri) { 1 << 12 } else { 1 << 20 });
        let ours = check(&text);
        let snap = snap::raw::Encoder::new()
            .compress_vec(&text)
            .map_or(0, |v| v.len());
        assert!(ours * 10 <= snap * 11, "{ours} against {snap}");
    }

    #[test]
    fn fragments_can_be_put_together_in_any_order() {
        let (a, b) = (log_text(4, 1000), log_text(4, 1500));
        let mut e = Encoder::default();
        let mut out = preamble(a.len() + b.len() + 3);
        e.append(&b, &mut out);
        append_literal(b"abc", &mut out);
        e.append(&a, &mut out);
        let back = snap::raw::Decoder::new().decompress_vec(&out);
        assert_eq!(back, Ok([&b[..], b"abc", &a].concat()));
    }

    /// Random, repeating, periodic and log-like pieces one after another.
    fn input() -> impl Strategy<Value = Vec<u8>> {
        let piece = (0u8..5, 0usize..9000, 1usize..70, any::<u64>());
        proptest::collection::vec(piece, 0..9).prop_map(|pieces| {
            let mut out: Vec<u8> = Vec::new();
            for (kind, len, period, seed) in pieces {
                let len = if cfg!(miri) { len / 40 } else { len };
                let mut rng = tailwater_pipeline::clock::Rng64::new(seed);
                match kind {
                    0 => out.extend((0..len).map(|_| rng.next_u64() as u8)),
                    1 => out.extend((0..len).map(|_| rng.below(2) as u8)),
                    2 => out.extend((0..len).map(|i| (i % period) as u8)),
                    3 => out.extend(log_text(seed, len)),
                    _ => {
                        let from = rng.below(out.len() as u64 + 1) as usize;
                        out.extend_from_within(from..(from + len).min(out.len()));
                    }
                }
            }
            out.truncate(70_000);
            out
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 20 } else { 300 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]
        #[test]
        fn any_input_decodes_to_itself(input in input()) {
            check(&input);
        }
    }
}
