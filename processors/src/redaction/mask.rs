//! What stands in place of what is not to be seen.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use sha3::Sha3_256;

/// What is put in place of a text (`hash_function`).
#[derive(Clone)]
pub enum Mask {
    /// Four asterisks.
    Asterisks,
    /// MD5, as 32 hexadecimal digits.
    Md5,
    /// SHA-1.
    Sha1,
    /// SHA3-256.
    Sha3,
    /// HMAC (RFC 2104) with SHA-256 and the key of the configuration.
    HmacSha256(Hmac<Sha256>),
    /// HMAC with SHA-512.
    HmacSha512(Hmac<Sha512>),
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mask::Asterisks => "Asterisks",
            Mask::Md5 => "Md5",
            Mask::Sha1 => "Sha1",
            Mask::Sha3 => "Sha3",
            Mask::HmacSha256(_) => "HmacSha256",
            Mask::HmacSha512(_) => "HmacSha512",
        })
    }
}

impl Mask {
    /// HMAC with SHA-256; the key is of any length.
    pub fn hmac_sha256(key: &[u8]) -> Mask {
        let mac = Hmac::new_from_slice(key);
        Mask::HmacSha256(mac.expect("HMAC takes keys of any length"))
    }

    /// HMAC with SHA-512; the key is of any length.
    pub fn hmac_sha512(key: &[u8]) -> Mask {
        let mac = Hmac::new_from_slice(key);
        Mask::HmacSha512(mac.expect("HMAC takes keys of any length"))
    }

    /// Appends what stands for `text`.
    pub(super) fn put(&self, text: &[u8], out: &mut Vec<u8>) {
        match self {
            Mask::Asterisks => out.extend_from_slice(b"****"),
            Mask::Md5 => put_hex(&Md5::digest(text), out),
            Mask::Sha1 => put_hex(&Sha1::digest(text), out),
            Mask::Sha3 => put_hex(&Sha3_256::digest(text), out),
            Mask::HmacSha256(mac) => {
                put_hex(&mac.clone().chain_update(text).finalize().into_bytes(), out)
            }
            Mask::HmacSha512(mac) => {
                put_hex(&mac.clone().chain_update(text).finalize().into_bytes(), out)
            }
        }
    }

    /// Appends what stands for a whole value: each line is replaced by itself, as the collector does.
    pub(super) fn put_lines(&self, text: &[u8], out: &mut Vec<u8>) {
        for (i, line) in text.split(|b| *b == b'\n').enumerate() {
            if i > 0 {
                out.push(b'\n');
            }
            self.put(line, out);
        }
    }
}

fn put_hex(digest: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in digest {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}
