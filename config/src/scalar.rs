//! The type of a plain scalar.
//!
//! Follows what Go's `yaml.v3` gives an untyped target, because that is what collector
//! configurations were written against: the YAML 1.2 core schema, with integers in every form of a
//! Go literal (so `0123` is octal, and `1_000` a thousand), and `yes`, `no`, `on`, `off` as
//! strings. One difference: a timestamp stays a string here.

use crate::node::NodeValue;

/// The value of a plain scalar. Every text has one; what is nothing else is a string.
pub(crate) fn resolve(text: &str) -> NodeValue {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return NodeValue::Null,
        "true" | "True" | "TRUE" => return NodeValue::Bool(true),
        "false" | "False" | "FALSE" => return NodeValue::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return NodeValue::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return NodeValue::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return NodeValue::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let first = text.as_bytes()[0];
    if !first.is_ascii_digit() && !matches!(first, b'+' | b'-' | b'.') {
        return NodeValue::Str(text.to_owned());
    }
    let number = if text.contains('_') && first != b'.' {
        resolve_number(&text.replace('_', ""))
    } else {
        resolve_number(text)
    };
    number.unwrap_or_else(|| NodeValue::Str(text.to_owned()))
}

fn resolve_number(text: &str) -> Option<NodeValue> {
    if let Some(value) = integer(text) {
        // Between 63 and 64 bits and beyond, the value is approximate; the text is kept.
        return Some(match i64::try_from(value) {
            Ok(value) => NodeValue::Int(value),
            Err(_) => NodeValue::Float(value as f64),
        });
    }
    if !is_float(text) {
        return None;
    }
    text.parse::<f64>()
        .ok()
        .filter(|x| x.is_finite())
        .map(NodeValue::Float)
}

/// An integer of at most 64 bits in the forms of a Go literal: a sign, then `0x`, `0o`, `0b` or
/// `0` for another base than ten.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = |prefix: &str| {
        let head = digits.get(..prefix.len())?;
        head.eq_ignore_ascii_case(prefix)
            .then(|| &digits[prefix.len()..])
    };
    let (digits, radix) = if let Some(rest) = lower("0x") {
        (rest, 16)
    } else if let Some(rest) = lower("0o") {
        (rest, 8)
    } else if let Some(rest) = lower("0b") {
        (rest, 2)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (&digits[1..], 8)
    } else {
        (digits, 10)
    };
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let magnitude = i128::from(u64::from_str_radix(digits, radix).ok()?);
    let value = if negative { -magnitude } else { magnitude };
    (value >= i128::from(i64::MIN)).then_some(value)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let digits = |s: &str| s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let whole = digits(rest);
    let mut rest = &rest[whole..];
    if let Some(after) = rest.strip_prefix('.') {
        let fraction = digits(after);
        if whole == 0 && fraction == 0 {
            return false;
        }
        rest = &after[fraction..];
    } else if whole == 0 {
        return false;
    }
    let Some(exponent) = rest.strip_prefix(['e', 'E']) else {
        return rest.is_empty();
    };
    let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    !exponent.is_empty() && digits(exponent) == exponent.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use NodeValue::{Bool, Float, Int, Null};

    #[test]
    fn plain_scalars_have_the_types_that_yaml_v3_gives_them() {
        for (text, expect) in [
            ("", Null),
            ("~", Null),
            ("NULL", Null),
            ("true", Bool(true)),
            ("FALSE", Bool(false)),
            ("0", Int(0)),
            ("-0", Int(0)),
            ("12", Int(12)),
            ("+12", Int(12)),
            ("-12", Int(-12)),
            ("1_000", Int(1000)),
            ("0123", Int(83)),
            ("-0123", Int(-83)),
            ("00", Int(0)),
            ("0o17", Int(15)),
            ("0x1F", Int(31)),
            ("-0x1f", Int(-31)),
            ("0b101", Int(5)),
            ("-0b101", Int(-5)),
            ("0xdeadbeef", Int(3_735_928_559)),
            ("9223372036854775807", Int(i64::MAX)),
            ("-9223372036854775808", Int(i64::MIN)),
            ("9223372036854775808", Float(9_223_372_036_854_775_808.0)),
            ("1e3", Float(1000.0)),
            ("1.5", Float(1.5)),
            ("1.", Float(1.0)),
            (".5", Float(0.5)),
            ("-.5", Float(-0.5)),
            ("1.5E-2", Float(0.015)),
            ("08", Float(8.0)),
            (".inf", Float(f64::INFINITY)),
            ("-.Inf", Float(f64::NEG_INFINITY)),
        ] {
            assert_eq!(resolve(text), expect, "{text:?}");
        }
        assert!(matches!(resolve(".nan"), Float(x) if x.is_nan()));
    }

    #[test]
    fn what_looks_like_a_value_but_is_none_is_a_string() {
        for text in [
            "yes",
            "no",
            "on",
            "off",
            "y",
            "n",
            "tRue",
            "nULL",
            "_1",
            "0x",
            "0b2",
            "0o8",
            "1e",
            "e3",
            "1.2.3",
            "+",
            "-",
            ".",
            "-.",
            "1e400",
            "0xg",
            "0x-1",
            "--1",
            "1 2",
            "10s",
            "0.0.0.0:1",
            "inf",
            "nan",
            "2023-03-20",
            "2023-03-20T03:17:55Z",
            "1:20",
        ] {
            assert_eq!(resolve(text), NodeValue::Str(text.to_owned()));
        }
    }
}
