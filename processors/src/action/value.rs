//! What `hash` and `convert` make of one value.

use sha2::{Digest, Sha256};
use tailwater_pdata::{Value, ValueRef};

/// The types an attribute can be converted to (`converted_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConvertTo {
    /// Text.
    String,
    /// A 64 bit integer.
    Int,
    /// A double.
    Double,
}

/// A computed value. Text is in the scratch buffer that was given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Made {
    /// The value stays as it is.
    Keep,
    /// The text in the scratch buffer.
    Text,
    /// An integer.
    Int(i64),
    /// A double.
    Double(f64),
}

impl Made {
    /// As an owned value; `None` = the old one stays.
    pub(crate) fn into_value(self, scratch: &[u8]) -> Option<Value> {
        match self {
            Made::Keep => None,
            Made::Text => Some(Value::str(String::from_utf8_lossy(scratch))),
            Made::Int(i) => Some(Value::Int(i)),
            Made::Double(d) => Some(Value::Double(d)),
        }
    }
}

/// Converts as the collector's `convert` action does; what cannot be converted stays.
pub(crate) fn convert(value: ValueRef<'_>, to: ConvertTo, scratch: &mut Vec<u8>) -> Made {
    match (to, value) {
        (ConvertTo::String, ValueRef::Str(_)) => Made::Keep,
        (ConvertTo::String, other) => {
            scratch.clear();
            other.write_string(scratch);
            Made::Text
        }
        (ConvertTo::Int, ValueRef::Double(d)) => Made::Int(d as i64),
        (ConvertTo::Int, ValueRef::Bool(b)) => Made::Int(i64::from(b)),
        (ConvertTo::Int, ValueRef::Str(text)) => utf8(text)
            .and_then(|t| t.parse().ok())
            .map_or(Made::Keep, Made::Int),
        (ConvertTo::Double, ValueRef::Int(i)) => Made::Double(i as f64),
        (ConvertTo::Double, ValueRef::Bool(b)) => Made::Double(f64::from(u8::from(b))),
        (ConvertTo::Double, ValueRef::Str(text)) => utf8(text)
            .and_then(parse_double)
            .map_or(Made::Keep, Made::Double),
        _ => Made::Keep,
    }
}

fn utf8(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text).ok()
}

/// A double from text. A number that is too large is an error, as it is in Go.
pub(crate) fn parse_double(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    let spelled_out = text.bytes().any(|b| b.eq_ignore_ascii_case(&b'n'));
    (value.is_finite() || spelled_out).then_some(value)
}

/// SHA-256 in lower-case hexadecimal digits of the bytes of a value: text as it is, booleans as
/// one byte, numbers as 8 bytes little endian. Bytes, lists and maps give empty text.
pub(crate) fn hash(value: ValueRef<'_>, scratch: &mut Vec<u8>) -> Made {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digest = match value {
        ValueRef::Str(text) => Sha256::digest(text),
        ValueRef::Bool(b) => Sha256::digest([u8::from(b)]),
        ValueRef::Int(i) => Sha256::digest(i.to_le_bytes()),
        ValueRef::Double(d) => Sha256::digest(d.to_bits().to_le_bytes()),
        _ => {
            scratch.clear();
            return Made::Text;
        }
    };
    scratch.clear();
    for byte in digest {
        scratch.push(DIGITS[usize::from(byte >> 4)]);
        scratch.push(DIGITS[usize::from(byte & 15)]);
    }
    Made::Text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(f: impl FnOnce(&mut Vec<u8>) -> Made) -> Option<Value> {
        let mut scratch = b"left over".to_vec();
        let made = f(&mut scratch);
        made.into_value(&scratch)
    }

    #[test]
    fn what_cannot_be_converted_stays() {
        use ConvertTo::{Double, Int, String};
        for (from, to, want) in [
            (Value::str("-12"), Int, Some(Value::Int(-12))),
            (Value::str("12.0"), Int, None),
            (Value::str(" 1"), Int, None),
            (Value::Double(-1.9), Int, Some(Value::Int(-1))),
            (Value::Bool(true), Int, Some(Value::Int(1))),
            (Value::Int(3), Int, None),
            (Value::Null, Int, None),
            (Value::str("1e2"), Double, Some(Value::Double(100.0))),
            (Value::str("1e999"), Double, None),
            (
                Value::str("-inf"),
                Double,
                Some(Value::Double(f64::NEG_INFINITY)),
            ),
            (Value::str("x"), Double, None),
            (Value::Int(2), Double, Some(Value::Double(2.0))),
            (Value::Bool(false), Double, Some(Value::Double(0.0))),
            (Value::Double(99.1), String, Some(Value::str("99.1"))),
            (Value::Bool(false), String, Some(Value::str("false"))),
            (
                Value::List(vec![Value::Int(1)]),
                String,
                Some(Value::str("[1]")),
            ),
            (Value::str("same"), String, None),
        ] {
            assert_eq!(
                made(|s| convert(from.as_ref(), to, s)),
                want,
                "{from:?} to {to:?}"
            );
        }
    }

    #[test]
    fn values_without_bytes_hash_to_empty_text() {
        for value in [Value::Null, Value::List(vec![Value::Int(1)])] {
            assert_eq!(
                made(|s| hash(value.as_ref(), s)),
                Some(Value::str("")),
                "{value:?}"
            );
        }
        // From FIPS 180-4's example: SHA-256 of "abc".
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(
            made(|s| hash(Value::str("abc").as_ref(), s)),
            Some(Value::str(abc))
        );
    }
}
