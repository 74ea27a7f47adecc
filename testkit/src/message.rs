//! The self-describing message every test line carries: `tw-<writer> <seq> <crc> <pad>`.
//!
//! `writer` and `seq` are decimal, `crc` is the CRC-32 (eight lower-case hex digits) of the text
//! before it and of the pad, so that a cut, joined or altered line is recognised. The pad uses
//! only characters that no format of ours escapes, so a message is found again inside JSON,
//! logfmt or an unparsed CRI line.

use crate::crc::crc32;

/// Characters of the pad. 64 of them, so six random bits choose one; no quote, no backslash.
const ALPHABET: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 =";

/// The first bytes of every message.
const PREFIX: &[u8] = b"tw-";

/// What [`find`] made of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A whole, undamaged message.
    Valid {
        /// Who wrote it.
        writer: u32,
        /// Its number, counted from 0 for each writer.
        seq: u64,
    },
    /// Something that began as a message of this writer but is cut or altered.
    Corrupt {
        /// Who wrote it, as far as the damaged text can be believed.
        writer: u32,
    },
    /// No message at all.
    Foreign,
}

/// Appends the message (`writer`, `seq`) with `pad_bytes` bytes of pad drawn from `pad_seed`.
pub fn append(out: &mut Vec<u8>, writer: u32, seq: u64, pad_seed: u64, pad_bytes: usize) {
    let start = out.len();
    out.extend_from_slice(format!("tw-{writer} {seq} ").as_bytes());
    let crc_at = out.len();
    out.extend_from_slice(b"00000000 ");
    let pad_at = out.len();
    let mut state = pad_seed;
    let mut bits = 0;
    for n in 0..pad_bytes {
        if n % 10 == 0 {
            bits = crate::rng::splitmix64(&mut state);
        }
        out.push(ALPHABET[(bits & 63) as usize]);
        bits >>= 6;
    }
    let crc = crc32(crc32(0, &out[start..crc_at]), &out[pad_at..]);
    out[crc_at..crc_at + 8].copy_from_slice(&format_crc(crc));
}

/// Looks for a message in a line.
///
/// A message at the very start must reach to the end of the line. One further inside (a line
/// shipped as JSON, say) ends where a character stands that no pad has.
pub fn find(line: &[u8]) -> Found {
    let mut damaged = None;
    let mut from = 0;
    while let Some(at) = next_prefix(line, from) {
        let rest = &line[at..];
        let rest = if at == 0 {
            rest
        } else {
            &rest[..embedded_len(rest)]
        };
        match parse(rest) {
            Found::Foreign => {}
            Found::Corrupt { writer } => damaged = damaged.or(Some(writer)),
            valid => return valid,
        }
        from = at + PREFIX.len();
    }
    damaged.map_or(Found::Foreign, |writer| Found::Corrupt { writer })
}

fn next_prefix(line: &[u8], from: usize) -> Option<usize> {
    let tail = line.get(from..)?;
    tail.windows(PREFIX.len())
        .position(|window| window == PREFIX)
        .map(|at| from + at)
}

/// Where an embedded message ends: at the first character after the prefix that is not pad.
fn embedded_len(text: &[u8]) -> usize {
    let body = &text[PREFIX.len()..];
    PREFIX.len()
        + body
            .iter()
            .position(|byte| !is_pad(*byte))
            .unwrap_or(body.len())
}

fn is_pad(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b' ' || byte == b'='
}

/// Reads a text that starts with the prefix as exactly one message.
fn parse(text: &[u8]) -> Found {
    let Some((writer, after_writer)) = number(&text[PREFIX.len()..]) else {
        return Found::Foreign;
    };
    let Ok(writer) = u32::try_from(writer) else {
        return Found::Foreign;
    };
    let damaged = Found::Corrupt { writer };
    let Some((seq, after_seq)) = number(after_writer) else {
        return damaged;
    };
    let head = &text[..text.len() - after_seq.len()];
    let Some((stated, pad)) = after_seq.split_at_checked(8) else {
        return damaged;
    };
    let Some((b' ', pad)) = pad.split_first() else {
        return damaged;
    };
    let crc = crc32(crc32(0, head), pad);
    if stated == format_crc(crc) {
        Found::Valid { writer, seq }
    } else {
        damaged
    }
}

/// Eight lower-case hex digits, without allocating.
fn format_crc(crc: u32) -> [u8; 8] {
    std::array::from_fn(|n| b"0123456789abcdef"[(crc >> (28 - 4 * n)) as usize & 15])
}

/// A decimal number followed by one space; returns what comes after the space.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = text.split_at(digits);
    let (b' ', rest) = rest.split_first()? else {
        return None;
    };
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(writer: u32, seq: u64, pad_bytes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        append(&mut out, writer, seq, 99, pad_bytes);
        out
    }

    fn wrapped(before: &str, message: &[u8], after: &str) -> Vec<u8> {
        [before.as_bytes(), message, after.as_bytes()].concat()
    }

    #[test]
    fn a_message_is_found_again_bare_and_inside_other_formats() {
        let m = message(3, 42, 33);
        let valid = Found::Valid { writer: 3, seq: 42 };
        assert_eq!(find(&m), valid);
        for (before, after) in [
            ("2024-01-02T15:04:05.000000006Z stdout F ", ""),
            ("{\"log\":\"", "\\n\",\"stream\":\"stdout\"}"),
            ("{\"path\":\"/x/tw-9/tw-1 y\",\"body\":\"", "\"}"),
            ("msg=\"", "\" level=info"),
        ] {
            assert_eq!(find(&wrapped(before, &m, after)), valid, "{before}");
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_noticed() {
        let m = message(3, 42, 20);
        for len in 0..m.len() {
            assert!(
                !matches!(find(&m[..len]), Found::Valid { .. }),
                "cut at {len}"
            );
        }
        for at in 0..m.len() {
            let mut bad = m.clone();
            bad[at] ^= 1;
            assert!(
                !matches!(find(&bad), Found::Valid { .. }),
                "changed at {at}"
            );
        }
        assert_eq!(find(&m[..m.len() - 1]), Found::Corrupt { writer: 3 });
        assert_eq!(find(&wrapped("", &m, "\n")), Found::Corrupt { writer: 3 });
        assert_eq!(
            find(&wrapped("", &m, "tw-3 43 ")),
            Found::Corrupt { writer: 3 }
        );
    }

    #[test]
    fn texts_without_a_message_are_foreign() {
        for text in [
            "",
            "tw",
            "tw-",
            "tw-x 1 ",
            "tw-99999999999 1 ",
            "GET /index.html",
        ] {
            assert_eq!(find(text.as_bytes()), Found::Foreign, "{text}");
        }
    }

    #[test]
    fn pads_have_the_length_asked_for_and_differ_by_seed() {
        assert_eq!(
            message(1, 0, 0),
            b"tw-1 0 "
                .iter()
                .copied()
                .chain(crc_of("tw-1 0 "))
                .collect::<Vec<_>>()
        );
        assert_eq!(message(1, 0, 500).len(), message(1, 0, 0).len() + 500);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        append(&mut a, 1, 1, 5, 40);
        append(&mut b, 1, 1, 6, 40);
        assert_ne!(a, b);
    }

    fn crc_of(text: &str) -> Vec<u8> {
        format!("{:08x} ", crc32(0, text.as_bytes())).into_bytes()
    }
}
