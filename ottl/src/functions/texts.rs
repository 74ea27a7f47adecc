//! Text.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose;
use tailwater_pdata::{Value, ValueRef};

use crate::compare::is_equal;
use crate::error::Fault;
use crate::field::Kind;
use crate::scene::Cx;
use crate::value::Val;

use super::{
    Arg, Function, Takes, as_text, f, flag, hex, int, literal, opt, p, plain_double, text, val,
    wrong,
};

const TEXT: Takes = Takes::Value(Kind::Text);
const ANY: Takes = Takes::Value(Kind::Any);
const INT: Takes = Takes::Value(Kind::Int);
const BASES: &[&str] = &["base64", "base64-raw", "base64-url", "base64-raw-url"];
const ENCODINGS: &[&str] = &[
    "base64",
    "base64-raw",
    "base64-url",
    "base64-raw-url",
    "utf-8",
    "us-ascii",
    "iso-8859-1",
];

pub(super) const FUNCTIONS: &[Function] = &[
    f(
        "IsMatch",
        &[p("target", ANY), p("pattern", Takes::Pattern)],
        Kind::Bool,
        is_match,
    ),
    f(
        "HasPrefix",
        &[p("target", TEXT), p("prefix", TEXT)],
        Kind::Bool,
        has_prefix,
    ),
    f(
        "HasSuffix",
        &[p("target", TEXT), p("suffix", TEXT)],
        Kind::Bool,
        has_suffix,
    ),
    f(
        "TrimPrefix",
        &[p("target", TEXT), p("prefix", TEXT)],
        Kind::Text,
        trim_prefix,
    ),
    f(
        "TrimSuffix",
        &[p("target", TEXT), p("suffix", TEXT)],
        Kind::Text,
        trim_suffix,
    ),
    f(
        "Trim",
        &[p("target", TEXT), opt("replacement", Takes::Text)],
        Kind::Text,
        trim,
    ),
    f(
        "Concat",
        &[p("vals", Takes::Values), p("delimiter", Takes::Text)],
        Kind::Text,
        concat,
    ),
    f(
        "Split",
        &[p("target", TEXT), p("delimiter", Takes::Text)],
        Kind::List,
        split,
    ),
    f(
        "Substring",
        &[
            p("target", TEXT),
            p("start", INT),
            p("length", INT),
            opt("utf8_safe", Takes::Bool),
        ],
        Kind::Text,
        substring,
    ),
    f("Len", &[p("target", ANY)], Kind::Int, len),
    f(
        "Index",
        &[p("target", ANY), p("value", ANY)],
        Kind::Int,
        index,
    ),
    f("ToLowerCase", &[p("target", TEXT)], Kind::Text, |a, cx| {
        case("ToLowerCase", "lower", a, cx)
    }),
    f("ToUpperCase", &[p("target", TEXT)], Kind::Text, |a, cx| {
        case("ToUpperCase", "upper", a, cx)
    }),
    f("ToSnakeCase", &[p("target", TEXT)], Kind::Text, |a, cx| {
        case("ToSnakeCase", "snake", a, cx)
    }),
    f("ToCamelCase", &[p("target", TEXT)], Kind::Text, |a, cx| {
        case("ToCamelCase", "camel", a, cx)
    }),
    f(
        "ConvertCase",
        &[
            p("target", TEXT),
            p(
                "to_case",
                Takes::OneOf(&["lower", "upper", "snake", "camel"]),
            ),
        ],
        Kind::Text,
        |a, cx| case("ConvertCase", literal(a, 1, "lower"), a, cx),
    ),
    f(
        "Base64Encode",
        &[p("target", TEXT), opt("variant", Takes::OneOf(BASES))],
        Kind::Text,
        base64_encode,
    ),
    f("Base64Decode", &[p("target", TEXT)], Kind::Text, |a, cx| {
        decode("Base64Decode", "base64", a, cx)
    }),
    f(
        "Decode",
        &[p("target", ANY), p("encoding", Takes::OneOf(ENCODINGS))],
        Kind::Text,
        |a, cx| decode("Decode", literal(a, 1, "utf-8"), a, cx),
    ),
];

type Done<'a> = Result<Val<'a>, Fault>;

fn is_match<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let Some(text) = as_text(val(args, 0, cx)?) else {
        return Ok(Val::Bool(false));
    };
    Ok(Val::Bool(match args.get(1) {
        Some(Arg::Pattern(pattern)) => pattern.is_match(&text),
        _ => false,
    }))
}

fn has_prefix<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let (value, prefix) = (
        text("HasPrefix", args, 0, cx)?,
        text("HasPrefix", args, 1, cx)?,
    );
    Ok(Val::Bool(value.starts_with(&prefix)))
}

fn has_suffix<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let (value, suffix) = (
        text("HasSuffix", args, 0, cx)?,
        text("HasSuffix", args, 1, cx)?,
    );
    Ok(Val::Bool(value.ends_with(&suffix)))
}

/// A part of a text, borrowed where the whole is.
fn part<'a>(text: Cow<'a, [u8]>, from: usize, to: usize) -> Val<'a> {
    Val::Str(match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[from..to]),
        Cow::Owned(mut text) => {
            text.truncate(to);
            text.drain(..from);
            Cow::Owned(text)
        }
    })
}

fn trim_prefix<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let (value, prefix) = (
        text("TrimPrefix", args, 0, cx)?,
        text("TrimPrefix", args, 1, cx)?,
    );
    let from = if value.starts_with(&prefix) {
        prefix.len()
    } else {
        0
    };
    let to = value.len();
    Ok(part(value, from, to))
}

fn trim_suffix<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let (value, suffix) = (
        text("TrimSuffix", args, 0, cx)?,
        text("TrimSuffix", args, 1, cx)?,
    );
    let less = if value.ends_with(&suffix) {
        suffix.len()
    } else {
        0
    };
    let to = value.len() - less;
    Ok(part(value, 0, to))
}

/// Takes any of the characters of the argument off both ends.
fn trim<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let value = text("Trim", args, 0, cx)?;
    let set = literal(args, 1, " ");
    let (from, to) = {
        let lossy = String::from_utf8_lossy(&value);
        if lossy.len() != value.len() {
            return Ok(Val::text(lossy.trim_matches(|c| set.contains(c))));
        }
        let start = lossy.trim_start_matches(|c| set.contains(c));
        let from = lossy.len() - start.len();
        (
            from,
            from + start.trim_end_matches(|c| set.contains(c)).len(),
        )
    };
    Ok(part(value, from, to))
}

/// Most parts that text is cut into.
pub(super) const PARTS_MAX: usize = 1 << 16;

/// Longest text that one function makes, in bytes.
pub(super) const MADE_BYTES_MAX: usize = 16 << 20;

fn concat<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let delimiter = literal(args, 1, "");
    let mut out = Vec::new();
    if let Some(Arg::Values(values)) = args.first() {
        for (i, value) in values.iter().enumerate() {
            if i > 0 {
                out.extend_from_slice(delimiter.as_bytes());
            }
            match value.eval(cx)? {
                Val::Str(text) => out.extend_from_slice(&text),
                Val::Bytes(bytes) => out.extend_from_slice(hex(&bytes).as_bytes()),
                Val::Nil => out.extend_from_slice(b"<nil>"),
                Val::Double(d) => out.extend_from_slice(plain_double(d).as_bytes()),
                Val::Time(_) | Val::Duration(_) => {}
                other => {
                    if let Some(value) = other.as_value() {
                        value.write_string(&mut out);
                    }
                }
            }
            if out.len() > MADE_BYTES_MAX {
                return Err(Fault::failed("Concat", "the result is too long"));
            }
        }
    }
    Ok(Val::Str(Cow::Owned(out)))
}

fn split<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let value = text("Split", args, 0, cx)?;
    let delimiter = literal(args, 1, "");
    let value = String::from_utf8_lossy(&value);
    let parts: Vec<Value> = match delimiter {
        "" => {
            let characters = value.chars().take(PARTS_MAX + 1);
            characters.map(|c| Value::from(c.to_string())).collect()
        }
        _ => value
            .split(delimiter)
            .take(PARTS_MAX + 1)
            .map(Value::from)
            .collect(),
    };
    if parts.len() > PARTS_MAX {
        return Err(Fault::failed("Split", "the text has too many parts"));
    }
    Ok(Val::List(Cow::Owned(parts)))
}

fn substring<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    const PLACE: &str = "Substring";
    let value = text(PLACE, args, 0, cx)?;
    let (start, length) = (int(PLACE, args, 1, cx)?, int(PLACE, args, 2, cx)?);
    let from = usize::try_from(start).map_err(|_| Fault::failed(PLACE, "start is below 0"))?;
    let length = usize::try_from(length).ok().filter(|l| *l > 0);
    let length = length.ok_or_else(|| Fault::failed(PLACE, "length is not above 0"))?;
    let to = from.checked_add(length).filter(|to| *to <= value.len());
    let to = to.ok_or_else(|| Fault::failed(PLACE, "start and length go beyond the text"))?;
    let (mut from, mut to) = (from, to);
    if flag(args, 3, false) {
        let continues = |at: usize| value.get(at).is_some_and(|b| b & 0xc0 == 0x80);
        while continues(from) {
            from += 1;
        }
        while to > from && continues(to) {
            to -= 1;
        }
        from = from.min(to);
    }
    Ok(part(value, from, to))
}

fn len<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let length = match val(args, 0, cx)? {
        Val::Str(b) | Val::Bytes(b) => b.len(),
        Val::List(l) => l.len(),
        Val::Map(m) => m.len(),
        other => return Err(wrong("Len", "text, a list or a map", &other)),
    };
    Ok(Val::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn index<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let found = match val(args, 0, cx)? {
        Val::Str(target) => {
            let wanted = text("Index", args, 1, cx)?;
            find(&target, &wanted)
        }
        Val::List(list) => {
            let wanted = val(args, 1, cx)?;
            list.iter().position(|item| is_equal(item, &wanted))
        }
        other => return Err(wrong("Index", "text or a list", &other)),
    };
    let position = found.and_then(|i| i64::try_from(i).ok());
    Ok(Val::Int(position.unwrap_or(-1)))
}

/// Where `wanted` begins in `text`, in linear time.
fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    match (std::str::from_utf8(text), std::str::from_utf8(wanted)) {
        (Ok(text), Ok(wanted)) => text.find(wanted),
        _ => String::from_utf8_lossy(text).find(&*String::from_utf8_lossy(wanted)),
    }
}

fn case<'a>(place: &'static str, to: &str, args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let value = text(place, args, 0, cx)?;
    let text = String::from_utf8_lossy(&value);
    Ok(Val::text(match to {
        "lower" if text.is_ascii() => text.to_ascii_lowercase(),
        "upper" if text.is_ascii() => text.to_ascii_uppercase(),
        // As in Go each character becomes one, or stays.
        "lower" => text.chars().map(|c| one(c, c.to_lowercase())).collect(),
        "upper" => text.chars().map(|c| one(c, c.to_uppercase())).collect(),
        "snake" => snake(&text),
        _ => camel(&text),
    }))
}

/// The only character of `to`, or `c` if there are more.
fn one(c: char, mut to: impl Iterator<Item = char>) -> char {
    match (to.next(), to.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

fn is_gap(b: u8) -> bool {
    matches!(b, b' ' | b'_' | b'-' | b'.')
}

/// `MyMetricName` to `my_metric_name`: words begin where the kind of character changes, and a run of
/// capitals is a word.
fn snake(text: &str) -> String {
    let bytes = text.trim().as_bytes();
    let mut out = Vec::with_capacity(bytes.len() + 8);
    let at = |i: usize| bytes.get(i).copied().unwrap_or(0);
    for (i, &b) in bytes.iter().enumerate() {
        if is_gap(b) {
            out.push(b'_');
            continue;
        }
        let next = at(i + 1);
        let (capital, small, digit) = (
            b.is_ascii_uppercase(),
            b.is_ascii_lowercase(),
            b.is_ascii_digit(),
        );
        let last_capital = i > 0 && at(i - 1).is_ascii_uppercase();
        if capital && next.is_ascii_lowercase() && last_capital {
            out.push(b'_');
        }
        out.push(b.to_ascii_lowercase());
        let changes = (capital && next.is_ascii_digit())
            || (small && (next.is_ascii_uppercase() || next.is_ascii_digit()))
            || (digit && next.is_ascii_alphabetic());
        if changes {
            out.push(b'_');
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `my_metric_name` to `MyMetricName`.
fn camel(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let (mut begins, mut after_capital) = (true, false);
    for &b in text.trim().as_bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' => {
                out.push(match (begins, after_capital) {
                    (true, _) => b.to_ascii_uppercase(),
                    // A run of capitals is one word.
                    (false, true) => b.to_ascii_lowercase(),
                    (false, false) => b,
                });
                begins = false;
            }
            b'0'..=b'9' => {
                out.push(b);
                begins = true;
            }
            _ => begins = is_gap(b),
        }
        after_capital = b.is_ascii_uppercase();
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn base64_encode<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let value = text("Base64Encode", args, 0, cx)?;
    Ok(Val::text(match literal(args, 1, "base64") {
        "base64-raw" => general_purpose::STANDARD_NO_PAD.encode(&*value),
        "base64-url" => general_purpose::URL_SAFE.encode(&*value),
        "base64-raw-url" => general_purpose::URL_SAFE_NO_PAD.encode(&*value),
        _ => general_purpose::STANDARD.encode(&*value),
    }))
}

fn decode<'a>(place: &'static str, encoding: &str, args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let bytes = match val(args, 0, cx)? {
        Val::Str(bytes) | Val::Bytes(bytes) => bytes,
        other => return Err(wrong(place, "text or bytes", &other)),
    };
    let decoded = match encoding {
        "base64" => general_purpose::STANDARD.decode(&*bytes).ok(),
        "base64-raw" => general_purpose::STANDARD_NO_PAD.decode(&*bytes).ok(),
        "base64-url" => general_purpose::URL_SAFE.decode(&*bytes).ok(),
        "base64-raw-url" => general_purpose::URL_SAFE_NO_PAD.decode(&*bytes).ok(),
        "iso-8859-1" => {
            let text: String = bytes.iter().map(|b| char::from(*b)).collect();
            Some(text.into_bytes())
        }
        "us-ascii" => {
            let lossy = |b: &u8| {
                if b.is_ascii() {
                    char::from(*b)
                } else {
                    '\u{fffd}'
                }
            };
            Some(bytes.iter().map(lossy).collect::<String>().into_bytes())
        }
        _ => Some(ValueRef::Str(&bytes).to_display_string().into_bytes()),
    };
    match decoded {
        Some(decoded) => Ok(Val::Str(Cow::Owned(decoded))),
        None => Err(Fault::failed(place, "the text is not of this encoding")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_change_where_the_collectors_do() {
        for (text, want) in [
            ("MyMetricName", "my_metric_name"),
            ("my_metric", "my_metric"),
            ("HTTPServer", "http_server"),
            ("JSONData", "json_data"),
            ("AnyKind of_string", "any_kind_of_string"),
            ("numbers2and55with000", "numbers_2_and_55_with_000"),
            ("some.metric-name", "some_metric_name"),
        ] {
            assert_eq!(snake(text), want, "{text}");
        }
        for (text, want) in [
            ("my_metric_name", "MyMetricName"),
            ("metric.name-x", "MetricNameX"),
            ("a1b", "A1B"),
            ("HTTP_server", "HttpServer"),
        ] {
            assert_eq!(camel(text), want, "{text}");
        }
    }
}
