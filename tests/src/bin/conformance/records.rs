//! Records between the vectors' JSON and the product's model.

use base64::Engine;
use serde_json::Value as Json;
use tailwater_pdata::{Entry, Map, Value};

/// A value. Bytes are written as `{"$base64": ...}`.
pub fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match n.as_i64() {
            Some(i) => Value::Int(i),
            None => Value::Double(n.as_f64().unwrap_or_default()),
        },
        Json::String(s) => Value::str(s),
        Json::Array(a) => Value::List(a.iter().map(value).collect()),
        Json::Object(o) => match o.get("$base64").and_then(Json::as_str) {
            Some(text) => Value::Bytes(base64_bytes(text).into()),
            None => Value::Map(map(json)),
        },
    }
}

/// A map; anything else is an empty one.
pub fn map(json: &Json) -> Map {
    json.as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| (k.as_str(), value(v)))
        .collect()
}

/// Decoded base64.
///
/// # Panics
/// When it is none: a vector is wrong then.
pub fn base64_bytes(text: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .expect("base64 in a vector")
}

fn hex<const N: usize>(json: &Json) -> [u8; N] {
    let text = json.as_str().unwrap_or_default();
    let mut out = [0; N];
    for (i, byte) in out.iter_mut().enumerate() {
        if let Some(pair) = text.get(2 * i..2 * i + 2) {
            *byte = u8::from_str_radix(pair, 16).expect("hexadecimal in a vector");
        }
    }
    out
}

/// An instant: RFC 3339, or local time in a zone (`2023-01-02T03:04:05@Europe/Rome`).
fn time_ns(text: &str) -> i64 {
    let time = match text.split_once('@') {
        Some((local, zone)) => {
            let local: jiff::civil::DateTime = local.parse().expect("a local time in a vector");
            local.in_tz(zone).expect("a zone in a vector").timestamp()
        }
        None => text.parse::<jiff::Timestamp>().expect("a time in a vector"),
    };
    i64::try_from(time.as_nanosecond()).expect("a time within the years we know")
}

/// One record; a time given as `${NOW:...}` is written out already.
pub fn entry(json: &Json) -> Entry {
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
    Entry {
        time: json
            .get("timestamp")
            .and_then(Json::as_str)
            .map_or(0, time_ns),
        severity: json["severity_number"].as_u64().unwrap_or(0) as u8,
        severity_text: text("severity_text"),
        body: json.get("body").map(value).unwrap_or_default(),
        attributes: map(&json["attributes"]),
        resource: map(&json["resource"]),
        scope_name: text("scope_name"),
        trace_id: hex(&json["trace_id"]),
        span_id: hex(&json["span_id"]),
        flags: u32::from(hex::<1>(&json["trace_flags"])[0]),
        ..Entry::default()
    }
}

/// A list of records; absent is none.
pub fn entries(json: &Json) -> Vec<Entry> {
    json.as_array().into_iter().flatten().map(entry).collect()
}

/// Only the fields named; all when none are.
pub fn only(entry: Entry, fields: Option<&Vec<Json>>) -> Result<Entry, String> {
    let Some(fields) = fields else {
        return Ok(entry);
    };
    let mut out = Entry::default();
    for field in fields {
        match field.as_str() {
            Some("timestamp") => out.time = entry.time,
            Some("body") => out.body = entry.body.clone(),
            Some("attributes") => out.attributes = entry.attributes.clone(),
            Some("resource") => out.resource = entry.resource.clone(),
            Some("severity_number") => out.severity = entry.severity,
            Some("severity_text") => out.severity_text = entry.severity_text.clone(),
            _ => return Err(format!("the comparison of {field} alone is not known")),
        }
    }
    Ok(out)
}

/// `${NOW:<strftime>}` in all texts of a vector, written out for the instant `now`.
pub fn write_now(json: &Json, now: jiff::Timestamp) -> Json {
    match json {
        Json::String(s) => Json::String(replace_now(s, now)),
        Json::Array(a) => a.iter().map(|v| write_now(v, now)).collect(),
        Json::Object(o) => o
            .iter()
            .map(|(k, v)| (k.clone(), write_now(v, now)))
            .collect(),
        other => other.clone(),
    }
}

fn replace_now(text: &str, now: jiff::Timestamp) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${NOW:") {
        let (before, from) = rest.split_at(at);
        let Some(end) = from.find('}') else { break };
        out += before;
        out += &now.strftime(&from["${NOW:".len()..end]).to_string();
        rest = &from[end + 1..];
    }
    out + rest
}
