//! What a value is, and making another type of it.

use std::borrow::Cow;

use tailwater_pdata::Value;

use crate::error::Fault;
use crate::field::{Context, Field, Kind};
use crate::scene::Cx;
use crate::value::Val;

use super::{Arg, Function, Takes, as_text, f, hex, literal, p, unhex, val, wrong};

const KEY: &[super::Param] = &[p("key", Takes::Text)];
const KEY_VALUE: &[super::Param] = &[p("key", Takes::Text), p("expected_val", Takes::Text)];
const TARGET: &[super::Param] = &[p("target", Takes::Value(Kind::Any))];

pub(super) const FUNCTIONS: &[Function] = &[
    f("Bool", TARGET, Kind::Bool, bool_of),
    f("Double", TARGET, Kind::Double, double_of),
    f("Int", TARGET, Kind::Int, int_of),
    f("String", TARGET, Kind::Text, string_of),
    f("Hex", TARGET, Kind::Text, hex_of),
    f("IsBool", TARGET, Kind::Bool, |a, cx| {
        is(a, cx, |v| matches!(v, Val::Bool(_)))
    }),
    f("IsDouble", TARGET, Kind::Bool, |a, cx| {
        is(a, cx, |v| matches!(v, Val::Double(_)))
    }),
    f("IsInt", TARGET, Kind::Bool, |a, cx| {
        is(a, cx, |v| matches!(v, Val::Int(_)))
    }),
    f("IsList", TARGET, Kind::Bool, |a, cx| {
        is(a, cx, |v| matches!(v, Val::List(_)))
    }),
    f("IsMap", TARGET, Kind::Bool, |a, cx| {
        is(a, cx, |v| matches!(v, Val::Map(_)))
    }),
    f("IsString", TARGET, Kind::Bool, |a, cx| {
        is(a, cx, |v| matches!(v, Val::Str(_)))
    }),
    f("IsEmpty", TARGET, Kind::Bool, |a, cx| is(a, cx, is_empty)),
    f("Log", TARGET, Kind::Double, logarithm),
    f("TraceID", TARGET, Kind::Bytes, |a, cx| {
        id("TraceID", 16, a, cx)
    }),
    f("SpanID", TARGET, Kind::Bytes, |a, cx| {
        id("SpanID", 8, a, cx)
    }),
    f("IsValidLuhn", TARGET, Kind::Bool, luhn),
    Function {
        pure: false,
        ..f("IsRootSpan", &[], Kind::Bool, is_root_span)
    },
    Function {
        pure: false,
        context: Some(Context::Metric),
        ..f("HasAttrKeyOnDatapoint", KEY, Kind::Bool, has_key)
    },
    Function {
        pure: false,
        context: Some(Context::Metric),
        ..f("HasAttrOnDatapoint", KEY_VALUE, Kind::Bool, has_value)
    },
];

type Done<'a> = Result<Val<'a>, Fault>;

fn is<'a>(args: &'a [Arg], cx: &Cx<'a>, test: fn(&Val<'_>) -> bool) -> Done<'a> {
    Ok(Val::Bool(test(&val(args, 0, cx)?)))
}

fn is_empty(value: &Val<'_>) -> bool {
    match value {
        Val::Nil => true,
        Val::Bool(b) => !b,
        Val::Int(i) | Val::Duration(i) => *i == 0,
        Val::Double(d) => *d == 0.0,
        Val::Str(s) => s.is_empty(),
        // An id that is not set is all zeros.
        Val::Bytes(b) => b.iter().all(|b| *b == 0) && matches!(b.len(), 0 | 8 | 16),
        Val::Time(_) => false,
        Val::List(l) => l.is_empty(),
        Val::Map(m) => m.is_empty(),
    }
}

fn utf8(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text).ok()
}

fn bool_of<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    Ok(match val(args, 0, cx)? {
        Val::Bool(b) => Val::Bool(b),
        Val::Int(i) => Val::Bool(i != 0),
        Val::Double(d) => Val::Bool(d != 0.0),
        Val::Str(s) => match &*s {
            b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Val::Bool(true),
            b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Val::Bool(false),
            _ => return Err(Fault::failed("Bool", "the text is neither true nor false")),
        },
        Val::Nil => Val::Nil,
        other => return Err(wrong("Bool", "a boolean, a number or text", &other)),
    })
}

fn number(text: &[u8]) -> Option<f64> {
    let text = utf8(text)?;
    // Rust knows the same forms as Go but for hexadecimal ones and underscores, and takes no others.
    text.parse().ok()
}

fn double_of<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    Ok(match val(args, 0, cx)? {
        Val::Double(d) => Val::Double(d),
        Val::Int(i) => Val::Double(i as f64),
        Val::Bool(b) => Val::Double(f64::from(u8::from(b))),
        Val::Str(s) => match number(&s) {
            Some(d) => Val::Double(d),
            None => return Err(Fault::failed("Double", "the text is no number")),
        },
        Val::Nil => Val::Nil,
        other => return Err(wrong("Double", "a boolean, a number or text", &other)),
    })
}

fn int_of<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    Ok(match val(args, 0, cx)? {
        Val::Int(i) => Val::Int(i),
        Val::Double(d) => Val::Int(d as i64),
        Val::Bool(b) => Val::Int(i64::from(b)),
        Val::Str(s) => utf8(&s)
            .and_then(|s| s.parse().ok())
            .map_or(Val::Nil, Val::Int),
        Val::Nil => Val::Nil,
        other => return Err(wrong("Int", "a boolean, a number or text", &other)),
    })
}

fn string_of<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let value = val(args, 0, cx)?;
    // The collector writes a time as JSON, which has quotes.
    let quoted = matches!(value, Val::Time(_));
    Ok(match as_text(value) {
        Some(text) if quoted => Val::text(format!("\"{}\"", String::from_utf8_lossy(&text))),
        text => text.map_or(Val::Nil, Val::Str),
    })
}

fn hex_of<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    Ok(Val::text(match val(args, 0, cx)? {
        Val::Bool(b) => hex(&[u8::from(b)]),
        Val::Int(i) => hex(&i.to_be_bytes()),
        Val::Double(d) => hex(&d.to_be_bytes()),
        Val::Str(b) | Val::Bytes(b) => hex(&b),
        Val::Nil => String::new(),
        other => return Err(wrong("Hex", "text, bytes, a boolean or a number", &other)),
    }))
}

fn logarithm<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    const PLACE: &str = "Log";
    let d = match val(args, 0, cx)? {
        Val::Double(d) => d,
        Val::Int(i) => i as f64,
        Val::Bool(b) => f64::from(u8::from(b)),
        Val::Str(s) => number(&s).ok_or_else(|| Fault::failed(PLACE, "the text is no number"))?,
        other => return Err(wrong(PLACE, "a number", &other)),
    };
    match d > 0.0 {
        true => Ok(Val::Double(d.ln())),
        false => Err(Fault::failed(PLACE, "the number is not above 0")),
    }
}

fn id<'a>(place: &'static str, length: usize, args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let bytes = match val(args, 0, cx)? {
        Val::Bytes(bytes) => bytes,
        Val::Str(text) => match unhex(&text) {
            Some(bytes) => Cow::Owned(bytes),
            None => return Err(Fault::failed(place, "the text is not hexadecimal")),
        },
        other => return Err(wrong(place, "bytes or hexadecimal text", &other)),
    };
    match bytes.len() == length {
        true => Ok(Val::Bytes(bytes)),
        false => {
            let why = format!("{} bytes where {length} are needed", bytes.len());
            Err(Fault::failed(place, why))
        }
    }
}

fn luhn<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    const PLACE: &str = "IsValidLuhn";
    let digits = match val(args, 0, cx)? {
        Val::Int(i) => Cow::Owned(i.to_string().into_bytes()),
        Val::Str(text) => text,
        other => return Err(wrong(PLACE, "digits or an integer", &other)),
    };
    if digits.is_empty() {
        return Ok(Val::Bool(false));
    }
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(Fault::failed(PLACE, "the text is not of digits alone"));
    }
    let weighed = digits.iter().rev().enumerate().map(|(i, d)| {
        let d = u64::from(d - b'0');
        match (i % 2, d * 2) {
            (0, _) => d,
            (_, twice @ 10..) => twice - 9,
            (_, twice) => twice,
        }
    });
    Ok(Val::Bool(weighed.sum::<u64>() % 10 == 0))
}

fn is_root_span<'a>(_: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    Ok(Val::Bool(match cx.scene.get(Field::ParentSpanId) {
        Val::Bytes(id) => id.iter().all(|b| *b == 0),
        _ => false,
    }))
}

/// Whether any point of the metric has an attribute that `is_meant` says true to.
fn any_point(args: &[Arg], cx: &Cx<'_>, is_meant: impl Fn(&Value) -> bool) -> bool {
    let Val::List(points) = cx.scene.get(Field::PointAttributes) else {
        return false;
    };
    let key = literal(args, 0, "");
    points.iter().any(|attributes| match attributes {
        Value::Map(map) => map.get(key).is_some_and(&is_meant),
        _ => false,
    })
}

fn has_key<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    Ok(Val::Bool(any_point(args, cx, |_| true)))
}

fn has_value<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let wanted = literal(args, 1, "");
    Ok(Val::Bool(any_point(args, cx, |value| match value {
        Value::Str(text) => **text == *wanted,
        _ => false,
    })))
}
