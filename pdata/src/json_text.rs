//! Pieces of JSON: text, numbers, bytes; and values as the collector's `AsString` gives them.

use std::io::Write;

use crate::number::Digits;
use crate::value::{Map, Value, ValueRef};

/// See [`ValueRef::write_string`].
pub(crate) fn write_as_string(v: ValueRef<'_>, out: &mut Vec<u8>) {
    match v {
        ValueRef::Null => {}
        ValueRef::Str(s) => out.extend_from_slice(s),
        ValueRef::Bytes(b) => base64(b, out),
        other => plain_json(other, out),
    }
}

/// Ordinary JSON, map keys sorted, as Go's encoder prints it.
fn plain_json(v: ValueRef<'_>, out: &mut Vec<u8>) {
    match v {
        ValueRef::Null => out.extend_from_slice(b"null"),
        ValueRef::Bool(b) => put(out, format_args!("{b}")),
        ValueRef::Int(i) => out.extend_from_slice(Digits::of(i).text()),
        ValueRef::Double(d) if d.is_finite() => double(d, out),
        ValueRef::Double(d) => put(out, format_args!("\"{d}\"")),
        ValueRef::Str(s) => string(s, out),
        ValueRef::Bytes(b) => {
            out.push(b'"');
            base64(b, out);
            out.push(b'"');
        }
        ValueRef::List(l) => list(l, out),
        ValueRef::Map(m) => map(m, out),
    }
}

fn list(l: &[Value], out: &mut Vec<u8>) {
    out.push(b'[');
    for (i, v) in l.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        plain_json(v.as_ref(), out);
    }
    out.push(b']');
}

fn map(m: &Map, out: &mut Vec<u8>) {
    let mut entries: Vec<_> = m.iter().collect();
    entries.sort_by(|a, b| a.0.cmp(b.0));
    out.push(b'{');
    for (i, (k, v)) in entries.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(k.as_bytes(), out);
        out.push(b':');
        plain_json(v.as_ref(), out);
    }
    out.push(b'}');
}

/// A double in JSON of protobuf: what is no number has a name.
pub(crate) fn any_double(d: f64, out: &mut Vec<u8>) {
    match d {
        d if d.is_nan() => out.extend_from_slice(b"\"NaN\""),
        f64::INFINITY => out.extend_from_slice(b"\"Infinity\""),
        f64::NEG_INFINITY => out.extend_from_slice(b"\"-Infinity\""),
        d => double(d, out),
    }
}

/// Go's shortest form: plain digits between 1e-6 and 1e21, else an exponent with a sign and two
/// digits (`strconv.FormatFloat` as `encoding/json` calls it).
fn double(d: f64, out: &mut Vec<u8>) {
    if let Some(digits) = Digits::of_whole(d) {
        return out.extend_from_slice(digits.text());
    }
    let a = d.abs();
    if a == 0.0 || (1e-6..1e21).contains(&a) {
        return put(out, format_args!("{d}"));
    }
    let text = format!("{d:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    // encoding/json turns e-09 into e-9
    let pad = if digits.len() < 2 && sign == '+' {
        "0"
    } else {
        ""
    };
    put(out, format_args!("{mantissa}e{sign}{pad}{digits}"));
}

/// A string with its quotes; bytes that are not UTF-8 become U+FFFD.
pub(crate) fn string(s: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let text = String::from_utf8_lossy(s);
    let bytes = text.as_bytes();
    let mut from = 0;
    for (i, &b) in bytes.iter().enumerate() {
        if b >= 0x20 && b != b'"' && b != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[from..i]);
        from = i + 1;
        match b {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            c => put(out, format_args!("\\u{c:04x}")),
        }
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Standard alphabet with padding, RFC 4648 section 4.
pub(crate) fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |w, &b| w << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let code = word >> (18 - 6 * i) & 63;
            out.push(if i <= chunk.len() {
                ALPHABET[code as usize]
            } else {
                b'='
            });
        }
    }
}

/// Decodes base64 of either alphabet of RFC 4648, with or without padding. False if it is not.
pub(crate) fn from_base64(text: &str, out: &mut Vec<u8>) -> bool {
    let text = text.as_bytes();
    let padding = text.iter().rev().take_while(|&&b| b == b'=').count();
    let digits = &text[..text.len() - padding];
    if digits.len() % 4 == 1 || (padding > 0 && (padding > 2 || !text.len().is_multiple_of(4))) {
        return false;
    }
    for chunk in digits.chunks(4) {
        let mut word = 0u32;
        for &b in chunk {
            let Some(code) = base64_code(b) else {
                return false;
            };
            word = word << 6 | u32::from(code);
        }
        let bytes = (word << (6 * (4 - chunk.len()))).to_be_bytes();
        out.extend_from_slice(&bytes[1..chunk.len()]);
    }
    true
}

fn base64_code(digit: u8) -> Option<u8> {
    Some(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    })
}

/// Hexadecimal digits, in small letters.
pub(crate) fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for b in bytes {
        out.push(DIGITS[usize::from(b >> 4)]);
        out.push(DIGITS[usize::from(b & 15)]);
    }
}

/// Decodes hexadecimal digits. False if they are not, or not in pairs.
pub(crate) fn from_hex(text: &str, out: &mut Vec<u8>) -> bool {
    let digit = |b: u8| char::from(b).to_digit(16);
    for pair in text.as_bytes().chunks(2) {
        let [Some(high), Some(low)] = [0, 1].map(|i| digit(*pair.get(i)?)) else {
            return false;
        };
        out.push((high << 4 | low) as u8);
    }
    true
}

fn put(out: &mut Vec<u8>, args: std::fmt::Arguments<'_>) {
    out.write_fmt(args).expect("writing to a Vec cannot fail");
}
