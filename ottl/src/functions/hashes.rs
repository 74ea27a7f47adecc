//! Digests, as text in lower-case hexadecimal digits unless said otherwise.

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use twox_hash::{XxHash3_64, XxHash3_128};

use crate::error::Fault;
use crate::field::Kind;
use crate::scene::Cx;
use crate::value::Val;

use super::{Arg, Function, Takes, f, hex, p, text};

const VALUE: &[super::Param] = &[p("target", Takes::Value(Kind::Text))];
const TARGET: &[super::Param] = &[p("target", Takes::Value(Kind::Text))];

pub(super) const FUNCTIONS: &[Function] = &[
    f("MD5", VALUE, Kind::Text, |a, cx| {
        digest("MD5", a, cx, |b| hex(&Md5::digest(b)))
    }),
    f("SHA1", VALUE, Kind::Text, |a, cx| {
        digest("SHA1", a, cx, |b| hex(&Sha1::digest(b)))
    }),
    f("SHA256", VALUE, Kind::Text, |a, cx| {
        digest("SHA256", a, cx, |b| hex(&Sha256::digest(b)))
    }),
    f("SHA512", VALUE, Kind::Text, |a, cx| {
        digest("SHA512", a, cx, |b| hex(&Sha512::digest(b)))
    }),
    f("XXH3", TARGET, Kind::Text, |a, cx| {
        digest(
            "XXH3",
            a,
            cx,
            |b| hex(&XxHash3_64::oneshot(b).to_be_bytes()),
        )
    }),
    f("XXH128", TARGET, Kind::Text, |a, cx| {
        digest("XXH128", a, cx, |b| {
            hex(&XxHash3_128::oneshot(b).to_be_bytes())
        })
    }),
    f("FNV", VALUE, Kind::Int, fnv),
    f("Murmur3Hash", TARGET, Kind::Text, |a, cx| {
        digest("Murmur3Hash", a, cx, |b| hex(&murmur_32(b).to_le_bytes()))
    }),
    f("Murmur3Hash128", TARGET, Kind::Text, |a, cx| {
        digest("Murmur3Hash128", a, cx, |b| {
            let (low, high) = murmur_128(b);
            hex(&low.to_le_bytes()) + &hex(&high.to_le_bytes())
        })
    }),
];

type Done<'a> = Result<Val<'a>, Fault>;

fn digest<'a>(
    place: &'static str,
    args: &'a [Arg],
    cx: &Cx<'a>,
    of: fn(&[u8]) -> String,
) -> Done<'a> {
    Ok(Val::text(of(&text(place, args, 0, cx)?)))
}

/// FNV-1a of 64 bits, as an integer.
fn fnv<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let bytes = text("FNV", args, 0, cx)?;
    let step = |hash: u64, b: &u8| (hash ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, step);
    Ok(Val::Int(hash.cast_signed()))
}

/// Up to eight bytes as a little-endian number.
fn word(bytes: &[u8]) -> u64 {
    let byte = |n: u64, b: &u8| n << 8 | u64::from(*b);
    bytes.iter().rev().fold(0, byte)
}

/// MurmurHash3_x86_32 with seed 0; the constants are those of its public-domain definition.
fn murmur_32(bytes: &[u8]) -> u32 {
    let mix = |k: u32| {
        k.wrapping_mul(0xcc9e_2d51)
            .rotate_left(15)
            .wrapping_mul(0x1b87_3593)
    };
    let blocks = bytes.chunks_exact(4);
    let tail = word(blocks.remainder()) as u32;
    let mut hash = blocks.fold(0u32, |hash, block| {
        (hash ^ mix(word(block) as u32))
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64)
    });
    hash ^= mix(tail);
    hash ^= bytes.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

/// MurmurHash3_x64_128 with seed 0.
fn murmur_128(bytes: &[u8]) -> (u64, u64) {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let mix_1 = |k: u64| k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let mix_2 = |k: u64| k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let (mut h1, mut h2) = (0u64, 0u64);
    let blocks = bytes.chunks_exact(16);
    let tail = blocks.remainder();
    for block in blocks {
        h1 ^= mix_1(word(&block[..8]));
        h1 = h1.rotate_left(27).wrapping_add(h2);
        h1 = h1.wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 ^= mix_2(word(&block[8..]));
        h2 = h2.rotate_left(31).wrapping_add(h1);
        h2 = h2.wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let (low, high) = tail.split_at(tail.len().min(8));
    h2 ^= mix_2(word(high));
    h1 ^= mix_1(word(low));
    h1 ^= bytes.len() as u64;
    h2 ^= bytes.len() as u64;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    let end = |k: u64| {
        let k = (k ^ k >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let k = (k ^ k >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        k ^ k >> 33
    };
    (h1, h2) = (end(h1), end(h2));
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    (h1, h2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur_hashes_what_its_definition_hashes() {
        // Published test values of MurmurHash3 with seed 0.
        assert_eq!(murmur_32(b""), 0);
        assert_eq!(murmur_32(b"hello"), 0x248b_fa47);
        assert_eq!(murmur_32(b"hello, world"), 0x149b_bb7f);
        assert_eq!(
            murmur_32(b"The quick brown fox jumps over the lazy dog."),
            0xd5c4_8bfc
        );
        assert_eq!(murmur_128(b""), (0, 0));
        assert_eq!(
            murmur_128(b"hello"),
            (0xcbd8_a7b3_41bd_9b02, 0x5b1e_906a_48ae_1d19)
        );
        assert_eq!(
            murmur_128(b"The quick brown fox jumps over the lazy dog."),
            (0xcd99_481f_9ee9_02c9, 0x695d_a1a3_8987_b6e7)
        );
    }
}
