//! Text that has a format.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tailwater_golang::csv::{Quotes, Values};
use tailwater_pdata::{Key, Map, Value};

use crate::error::Fault;
use crate::field::Kind;
use crate::scene::Cx;
use crate::value::Val;

use super::texts::PARTS_MAX;
use super::{
    Arg, Function, Takes, as_text, f, flag, grok, int, literal, map, opt, p, text, val, wrong,
};

const TEXT: Takes = Takes::Value(Kind::Text);

const CSV: &[super::Param] = &[
    p("target", TEXT),
    p("header", TEXT),
    opt("delimiter", Takes::Text),
    opt("header_delimiter", Takes::Text),
    opt(
        "mode",
        Takes::OneOf(&["strict", "lazyQuotes", "ignoreQuotes"]),
    ),
];

pub(super) const FUNCTIONS: &[Function] = &[
    f("ParseJSON", &[p("target", TEXT)], Kind::Any, parse_json),
    f(
        "ParseKeyValue",
        &[
            p("target", TEXT),
            opt("delimiter", Takes::Text),
            opt("pair_delimiter", Takes::Text),
        ],
        Kind::Map,
        parse_key_value,
    ),
    f(
        "ToKeyValueString",
        &[
            p("target", Takes::Value(Kind::Map)),
            opt("delimiter", Takes::Text),
            opt("pair_delimiter", Takes::Text),
            opt("sort_output", Takes::Bool),
        ],
        Kind::Text,
        to_key_value,
    ),
    f(
        "ParseInt",
        &[p("target", TEXT), p("base", Takes::Value(Kind::Int))],
        Kind::Int,
        parse_int,
    ),
    f(
        "ExtractPatterns",
        &[p("target", TEXT), p("pattern", Takes::NamedPattern)],
        Kind::Map,
        extract_patterns,
    ),
    Function {
        prepare: Some(grok::prepare),
        ..f(
            "ExtractGrokPatterns",
            &[
                p("target", TEXT),
                p("pattern", Takes::Text),
                opt("named_captures_only", Takes::Bool),
                opt("pattern_definitions", Takes::Texts),
            ],
            Kind::Map,
            extract_grok_patterns,
        )
    },
    Function {
        prepare: Some(prepare_csv),
        ..f("ParseCSV", CSV, Kind::Map, parse_csv)
    },
    f(
        "ParseSeverity",
        &[
            p("target", Takes::Value(Kind::Any)),
            p("mapping", Takes::Value(Kind::Map)),
        ],
        Kind::Text,
        parse_severity,
    ),
    f(
        "IsInCIDR",
        &[p("target", TEXT), p("networks", Takes::Networks)],
        Kind::Bool,
        is_in_cidr,
    ),
];

type Done<'a> = Result<Val<'a>, Fault>;

/// JSON as a value: each number is a double. Depth is limited by the reader.
struct Json(Value);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        Read.deserialize(deserializer).map(Json)
    }
}

struct Read;

impl<'de> DeserializeSeed<'de> for Read {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Read {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E: Error>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }
    fn visit_i64<E: Error>(self, i: i64) -> Result<Value, E> {
        Ok(Value::Double(i as f64))
    }
    fn visit_u64<E: Error>(self, i: u64) -> Result<Value, E> {
        Ok(Value::Double(i as f64))
    }
    fn visit_f64<E: Error>(self, d: f64) -> Result<Value, E> {
        Ok(Value::Double(d))
    }
    fn visit_str<E: Error>(self, s: &str) -> Result<Value, E> {
        Ok(Value::from(s))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element_seed(Read)? {
            list.push(item);
        }
        Ok(Value::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(Key, Value)> = Vec::new();
        while let Some(key) = access.next_key::<Cow<'de, str>>()? {
            entries.push((Key::from(&*key), access.next_value_seed(Read)?));
        }
        Ok(Value::Map(Map::from_entries(entries)))
    }
}

fn parse_json<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    const PLACE: &str = "ParseJSON";
    let text = text(PLACE, args, 0, cx)?;
    let text = String::from_utf8_lossy(&text);
    match serde_json::from_str::<Json>(&text) {
        Ok(Json(Value::Map(map))) => Ok(Val::Map(Cow::Owned(map))),
        Ok(Json(Value::List(list))) => Ok(Val::List(Cow::Owned(list))),
        Ok(_) => Err(Fault::failed(PLACE, "the text is no object and no list")),
        Err(e) => {
            let why = format!("not JSON at line {} column {}", e.line(), e.column());
            Err(Fault::failed(PLACE, why))
        }
    }
}

/// Cuts at each `delimiter` that is not in quotes; the quotes around a part are left out. Empty parts
/// are none.
fn cut_pairs<'t>(text: &'t str, delimiter: &str) -> Option<Vec<&'t str>> {
    let mut parts = Vec::new();
    let (mut start, mut at, mut quote) = (0, 0, None);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        let b = bytes[at];
        match quote {
            Some(open) if open == b => quote = None,
            Some(_) => {}
            None if matches!(b, b'"' | b'\'') => quote = Some(b),
            None if bytes[at..].starts_with(delimiter.as_bytes()) => {
                parts.push(&text[start..at]);
                at += delimiter.len();
                start = at;
                continue;
            }
            None => {}
        }
        at += 1;
    }
    parts.push(&text[start..]);
    parts.retain(|p| !p.is_empty());
    quote.is_none().then_some(parts)
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    let inner = |q: char| text.strip_prefix(q).and_then(|t| t.strip_suffix(q));
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

fn parse_key_value<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    const PLACE: &str = "ParseKeyValue";
    let text = text(PLACE, args, 0, cx)?;
    let text = String::from_utf8_lossy(&text);
    if text.is_empty() {
        return Err(Fault::failed(PLACE, "the text is empty"));
    }
    let (delimiter, pairs) = (literal(args, 1, "="), literal(args, 2, " "));
    let parts = cut_pairs(&text, pairs);
    let parts = parts.ok_or_else(|| Fault::failed(PLACE, "a quote has no end"))?;
    if parts.len() > PARTS_MAX {
        return Err(Fault::failed(PLACE, "the text has too many pairs"));
    }
    let mut entries: Vec<(Key, Value)> = Vec::with_capacity(parts.len());
    for part in parts {
        let (key, value) = part
            .split_once(delimiter)
            .ok_or_else(|| Fault::failed(PLACE, "a pair has no delimiter"))?;
        entries.push((unquoted(key).into(), unquoted(value).into()));
    }
    Ok(Val::Map(Cow::Owned(Map::from_entries(entries))))
}

fn to_key_value<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let map: Cow<'a, Map> = map("ToKeyValueString", args, 0, cx)?;
    let (delimiter, pairs) = (literal(args, 1, "="), literal(args, 2, " "));
    let mut entries: Vec<_> = map.iter().collect();
    if flag(args, 3, false) {
        entries.sort_by(|a, b| a.0.cmp(b.0));
    }
    let mut out = String::new();
    for (i, (key, value)) in entries.into_iter().enumerate() {
        if i > 0 {
            out.push_str(pairs);
        }
        let value = as_text(Val::from(value.as_ref())).unwrap_or_default();
        for (text, behind) in [(&**key, delimiter), (&*String::from_utf8_lossy(&value), "")] {
            let text = text.replace('"', "\\\"");
            let quote = if text.contains(delimiter) || text.contains(pairs) {
                "\""
            } else {
                ""
            };
            out.extend([quote, &text, quote]);
            out.push_str(behind);
        }
    }
    Ok(Val::text(out))
}

/// As Go's `ParseInt` reads it: with base 0 a prefix says the base, and underscores may be there.
fn parse_int<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    const PLACE: &str = "ParseInt";
    let text = text(PLACE, args, 0, cx)?;
    let base = int(PLACE, args, 1, cx)?;
    let text = String::from_utf8_lossy(&text);
    let bad = || {
        Fault::failed(
            PLACE,
            "the text is no number of this base that fits 64 bits",
        )
    };
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => ("-", &text[1..]),
        Some(b'+') => ("", &text[1..]),
        _ => ("", &*text),
    };
    let (base, digits): (u32, Cow<'_, str>) = match base {
        0 => {
            let (base, rest) = match digits.as_bytes() {
                [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
                [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
                [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
                [b'0', _, ..] => (8, &digits[1..]),
                _ => (10, digits),
            };
            let misplaced = rest.ends_with('_') || rest.contains("__");
            if misplaced || (base == 10 && rest.starts_with('_')) {
                return Err(bad());
            }
            (base, rest.replace('_', "").into())
        }
        2..=36 => (base as u32, digits.into()),
        _ => return Err(Fault::failed(PLACE, "a base is 0 or 2 to 36")),
    };
    if digits.starts_with(['+', '-']) {
        return Err(bad());
    }
    i64::from_str_radix(&format!("{sign}{digits}"), base)
        .map(Val::Int)
        .map_err(|_| bad())
}

fn extract_patterns<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let text = text("ExtractPatterns", args, 0, cx)?;
    let Some(Arg::Pattern(pattern)) = args.get(1) else {
        return Ok(Val::Nil);
    };
    let mut entries: Vec<(Key, Value)> = Vec::new();
    if let Some(found) = pattern.captures(&text) {
        for (i, name) in pattern.capture_names().enumerate() {
            let Some(name) = name else { continue };
            let group = found.get(i).map_or(&b""[..], |m| m.as_bytes());
            let group = String::from_utf8_lossy(group).into_owned();
            entries.push((name.into(), group.into()));
        }
    }
    Ok(Val::Map(Cow::Owned(Map::from_entries(entries))))
}

fn extract_grok_patterns<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    const PLACE: &str = "ExtractGrokPatterns";
    let text = text(PLACE, args, 0, cx)?;
    let Some(Arg::Grok(grok)) = args.get(1) else {
        return Ok(Val::Nil);
    };
    let found = grok.extract(&text);
    let found = found.map_err(|why| Fault::failed(PLACE, why))?;
    Ok(Val::Map(Cow::Owned(found)))
}

fn prepare_csv(args: &mut [Arg]) -> Result<(), String> {
    for arg in args.iter().skip(2).take(2) {
        if let Arg::Text(text) = arg
            && text.chars().count() != 1
        {
            return Err(format!("a delimiter is one character, not {text:?}"));
        }
    }
    Ok(())
}

fn parse_csv<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    const PLACE: &str = "ParseCSV";
    let (row, header) = (text(PLACE, args, 0, cx)?, text(PLACE, args, 1, cx)?);
    let header = String::from_utf8_lossy(&header);
    let delimiter = literal(args, 2, ",");
    if row.is_empty() || header.is_empty() {
        return Err(Fault::failed(PLACE, "the row or the header is empty"));
    }
    let names: Vec<&str> = header.split(literal(args, 3, delimiter)).collect();
    let mut values = Values::with_limit(PARTS_MAX);
    let read = match literal(args, 4, "strict") {
        "ignoreQuotes" => values.split(&row, delimiter.as_bytes()),
        "lazyQuotes" => values.read(&row, delimiter.as_bytes(), Quotes::Lazy),
        _ => values.read(&row, delimiter.as_bytes(), Quotes::Strict),
    };
    read.map_err(|e| Fault::failed(PLACE, e.to_string()))?;
    if values.all.len() != names.len() {
        let (wanted, found) = (names.len(), values.all.len());
        let why = format!("{found} values where the header has {wanted} names");
        return Err(Fault::failed(PLACE, why));
    }
    let value = |v: &tailwater_golang::csv::Value| {
        let text = if v.copied { &values.copied } else { &*row };
        let text = String::from_utf8_lossy(&text[v.start..v.end]);
        Value::from(text.into_owned())
    };
    let pairs = names.into_iter().map(Key::from);
    let pairs = pairs.zip(values.all.iter().map(value)).collect();
    Ok(Val::Map(Cow::Owned(Map::from_entries(pairs))))
}

/// The first severity of the mapping of which a criterion holds.
fn parse_severity<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    const PLACE: &str = "ParseSeverity";
    let level = val(args, 0, cx)?;
    if !matches!(level, Val::Str(_) | Val::Int(_)) {
        return Err(wrong(PLACE, "text or an integer", &level));
    }
    let mapping = map(PLACE, args, 1, cx)?;
    for (severity, criteria) in mapping.iter() {
        let Value::List(criteria) = criteria else {
            return Err(Fault::failed(PLACE, "a severity has no list of criteria"));
        };
        for criterion in criteria {
            let Value::Map(criterion) = criterion else {
                return Err(Fault::failed(PLACE, "a criterion is no map"));
            };
            let holds = is_severity(&level, criterion);
            if holds.map_err(|why| Fault::failed(PLACE, why))? {
                return Ok(Val::text(&**severity));
            }
        }
    }
    Err(Fault::failed(PLACE, "no criterion of the mapping holds"))
}

/// Whether a level is one of those that `equals` or `range` of a criterion say.
fn is_severity(level: &Val<'_>, criterion: &Map) -> Result<bool, &'static str> {
    match level {
        Val::Str(level) => match criterion.get("equals") {
            None => Ok(false),
            Some(Value::List(all)) => {
                let is = |v: &Value| matches!(v, Value::Str(text) if text.as_bytes() == &**level);
                Ok(all.iter().any(is))
            }
            Some(_) => Err("equals is no list"),
        },
        Val::Int(level) => {
            let (min, max) = match criterion.get("range") {
                None => return Ok(false),
                Some(Value::Str(text)) => match &**text {
                    "2xx" => (200, 299),
                    "3xx" => (300, 399),
                    "4xx" => (400, 499),
                    "5xx" => (500, 599),
                    _ => return Err("a range is none of 2xx, 3xx, 4xx and 5xx"),
                },
                Some(Value::Map(range)) => match (range.get("min"), range.get("max")) {
                    (Some(Value::Int(min)), Some(Value::Int(max))) => (*min, *max),
                    _ => return Err("a range has no integers min and max"),
                },
                Some(_) => return Err("a range is no map"),
            };
            Ok((min..=max).contains(level))
        }
        _ => Ok(false),
    }
}

/// A network as `10.0.0.0/8`.
pub(crate) fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits: u8 = bits.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (bits <= most).then_some((address, bits))
}

fn is_in_cidr<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    const PLACE: &str = "IsInCIDR";
    let text = text(PLACE, args, 0, cx)?;
    let address = std::str::from_utf8(&text)
        .ok()
        .and_then(|t| t.parse::<IpAddr>().ok());
    let (Some(address), Some(Arg::Networks(networks))) = (address, args.get(1)) else {
        return Ok(Val::Bool(false));
    };
    let within = |(network, bits): &(IpAddr, u8)| match (address.to_canonical(), network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(*bits)).unwrap_or(0);
            (u32::from(a) ^ u32::from(*n)) & mask == 0
        }
        (IpAddr::V6(a), IpAddr::V6(n)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(*bits)).unwrap_or(0);
            (u128::from(a) ^ u128::from(*n)) & mask == 0
        }
        _ => false,
    };
    Ok(Val::Bool(networks.iter().any(within)))
}
