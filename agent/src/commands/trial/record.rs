//! Records as people write and read them: JSON of log records, fields by their paths, and what changed.

use std::fmt::Write as _;

use anyhow::{Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map as Object, Value as Json, json};
use tailwater_pdata::otlp::{Encoded, PickLimits};
use tailwater_pdata::{Entry, Map, Value};
use tailwater_pipeline::trial::Item;
use tailwater_telemetry::rfc3339_nano;

use crate::commands::tap::line;

/// Bytes of a metric or a span that are shown.
const LIMITS: PickLimits = PickLimits {
    text_bytes: 64 << 10,
    bytes: 256 << 10,
};
/// Items of a request that are shown.
const ITEMS_MAX: usize = 100;
/// The fields of a record in JSON.
const FIELDS: [&str; 12] = [
    "timestamp",
    "observed_timestamp",
    "severity_number",
    "severity_text",
    "body",
    "attributes",
    "resource",
    "scope_name",
    "trace_id",
    "span_id",
    "trace_flags",
    "event_name",
];

/// A record as JSON. What is not set is left out; a metric or a span is as in OTLP/JSON.
pub fn to_json(item: &Item) -> Vec<Json> {
    match item {
        Item::Log(entry) => vec![entry_json(entry)],
        Item::Encoded(encoded) => picked(encoded),
    }
}

fn picked(encoded: &Encoded) -> Vec<Json> {
    let wanted: Vec<usize> = (0..encoded.items().min(ITEMS_MAX)).collect();
    let json = |p: &tailwater_pdata::otlp::Picked| {
        let mut text = b"{".to_vec();
        p.write_json(&mut text);
        text.push(b'}');
        serde_json::from_slice(&text).unwrap_or_default()
    };
    encoded.pick(&wanted, LIMITS).iter().map(json).collect()
}

fn entry_json(e: &Entry) -> Json {
    let mut out = Object::new();
    let mut put = |key: &str, is_set: bool, value: &dyn Fn() -> Json| {
        if is_set {
            out.insert(key.to_owned(), value());
        }
    };
    put("timestamp", e.time != 0, &|| rfc3339_nano(e.time).into());
    put("observed_timestamp", e.observed != 0, &|| {
        rfc3339_nano(e.observed).into()
    });
    put("severity_number", e.severity != 0, &|| e.severity.into());
    put("severity_text", !e.severity_text.is_empty(), &|| {
        e.severity_text.clone().into()
    });
    put("body", !matches!(e.body, Value::Null), &|| {
        value_json(&e.body)
    });
    put("attributes", !e.attributes.is_empty(), &|| {
        map_json(&e.attributes)
    });
    put("resource", !e.resource.is_empty(), &|| {
        map_json(&e.resource)
    });
    put("scope_name", !e.scope_name.is_empty(), &|| {
        e.scope_name.clone().into()
    });
    put("trace_id", e.trace_id != [0; 16], &|| {
        hex(&e.trace_id).into()
    });
    put("span_id", e.span_id != [0; 8], &|| hex(&e.span_id).into());
    put("trace_flags", e.flags != 0, &|| {
        format!("{:02x}", e.flags).into()
    });
    put("event_name", !e.event_name.is_empty(), &|| {
        e.event_name.clone().into()
    });
    Json::Object(out)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

fn map_json(map: &Map) -> Json {
    let pairs = map.iter();
    Json::Object(pairs.map(|(k, v)| (k.to_string(), value_json(v))).collect())
}

fn value_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(b) => Json::from(*b),
        Value::Int(i) => Json::from(*i),
        // What JSON has no number for is text.
        Value::Double(d) => {
            serde_json::Number::from_f64(*d).map_or_else(|| Json::from(d.to_string()), Json::Number)
        }
        Value::Str(s) => Json::from(&**s),
        Value::Bytes(b) => json!({"$base64": STANDARD.encode(b)}),
        Value::List(list) => list.iter().map(value_json).collect(),
        Value::Map(map) => map_json(map),
    }
}

/// The record that JSON says, in the form of [`to_json`].
///
/// # Errors
/// A field that there is not, or is of another kind.
pub fn from_json(json: &Json) -> Result<Entry> {
    let Json::Object(fields) = json else {
        bail!("a record is an object with {}", FIELDS.join(", "));
    };
    let mut entry = Entry::default();
    for (key, value) in fields {
        let wrong = |wanted: &str| anyhow!("{key}: wanted {wanted}, found {value}");
        let text = || value.as_str().ok_or_else(|| wanted_text(key, value));
        match key.as_str() {
            "timestamp" => entry.time = time(text()?).ok_or_else(|| wrong("a time of RFC 3339"))?,
            "observed_timestamp" => {
                entry.observed = time(text()?).ok_or_else(|| wrong("a time of RFC 3339"))?;
            }
            "severity_number" => {
                let number = value.as_u64().filter(|n| *n <= 24);
                entry.severity = number.ok_or_else(|| wrong("a number from 0 to 24"))? as u8;
            }
            "severity_text" => entry.severity_text = text()?.to_owned(),
            "body" => entry.body = json_value(value)?,
            "attributes" => entry.attributes = json_map(key, value)?,
            "resource" => entry.resource = json_map(key, value)?,
            "scope_name" => entry.scope_name = text()?.to_owned(),
            "trace_id" => {
                entry.trace_id = unhex(text()?).ok_or_else(|| wrong("32 hexadecimal digits"))?;
            }
            "span_id" => {
                entry.span_id = unhex(text()?).ok_or_else(|| wrong("16 hexadecimal digits"))?;
            }
            "trace_flags" => {
                let [flags] = unhex(text()?).ok_or_else(|| wrong("2 hexadecimal digits"))?;
                entry.flags = u32::from(flags);
            }
            "event_name" => entry.event_name = text()?.to_owned(),
            _ => {
                let meant = tailwater_config::nearest(key, FIELDS);
                let meant = meant.map(|m| format!(", did you mean {m:?}?"));
                let meant = meant.unwrap_or_default();
                bail!(
                    "unknown field {key:?}{meant}; there are {}",
                    FIELDS.join(", ")
                );
            }
        }
    }
    Ok(entry)
}

fn wanted_text(key: &str, found: &Json) -> anyhow::Error {
    anyhow!("{key}: wanted text, found {found}")
}

fn time(text: &str) -> Option<i64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    let is_hex = text.len() == 2 * N && text.bytes().all(|b| b.is_ascii_hexdigit());
    for (i, byte) in out.iter_mut().enumerate().filter(|_| is_hex) {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    is_hex.then_some(out)
}

fn json_value(json: &Json) -> Result<Value> {
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match n.as_i64() {
            Some(i) => Value::Int(i),
            None => Value::Double(n.as_f64().unwrap_or_default()),
        },
        Json::String(s) => Value::str(s),
        Json::Array(list) => Value::List(list.iter().map(json_value).collect::<Result<_>>()?),
        Json::Object(o) => match o.get("$base64").and_then(Json::as_str) {
            Some(text) => Value::Bytes(STANDARD.decode(text)?.into()),
            None => Value::Map(json_map("", json)?),
        },
    })
}

fn json_map(key: &str, json: &Json) -> Result<Map> {
    let Json::Object(pairs) = json else {
        bail!("{key}: wanted an object, found {json}");
    };
    let mut map = Map::new();
    for (key, value) in pairs {
        map.insert(key.as_str(), json_value(value)?);
    }
    Ok(map)
}

/// The fields of a record by their paths, as operators write them. A metric or a span is one field.
pub fn fields(item: &Item) -> Vec<(String, Json)> {
    let Item::Log(_) = item else {
        let name = |json: &Json| {
            if json["span"].is_null() {
                "metric"
            } else {
                "span"
            }
        };
        let all = to_json(item);
        return all
            .iter()
            .map(|json| (name(json).to_owned(), Json::from(line::of(json))))
            .collect();
    };
    let mut out = Vec::new();
    for json in to_json(item) {
        for key in FIELDS {
            match (key, &json[key]) {
                (_, Json::Null) => {}
                ("body" | "attributes" | "resource", value) => flatten(key, value, &mut out),
                (_, value) => out.push((key.to_owned(), value.clone())),
            }
        }
    }
    out
}

fn flatten(path: &str, value: &Json, out: &mut Vec<(String, Json)>) {
    match value {
        Json::Object(pairs) if !pairs.is_empty() && !pairs.contains_key("$base64") => {
            for (key, value) in pairs {
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let path = match !key.is_empty() && key.chars().all(plain) {
                    true => format!("{path}.{key}"),
                    false => format!("{path}[{key:?}]"),
                };
                flatten(&path, value, out);
            }
        }
        value => out.push((path.to_owned(), value.clone())),
    }
}

/// What a step did to a field.
#[derive(Clone, PartialEq, Debug)]
pub struct Change {
    /// The path of the field.
    pub path: String,
    /// `None`: it was added.
    pub before: Option<Json>,
    /// `None`: it was removed.
    pub after: Option<Json>,
}

/// What is different in `after`, field by field, in the order of both.
pub fn changes(before: &Item, after: &Item) -> Vec<Change> {
    let (before, after) = (fields(before), fields(after));
    let find = |list: &[(String, Json)], path: &str| {
        let found = list.iter().find(|(p, _)| p == path);
        found.map(|(_, value)| value.clone())
    };
    let mut out = Vec::new();
    for (path, value) in &before {
        let now = find(&after, path);
        if now.as_ref() != Some(value) {
            out.push(Change {
                path: path.clone(),
                before: Some(value.clone()),
                after: now,
            });
        }
    }
    for (path, value) in after {
        if find(&before, &path).is_none() {
            out.push(Change {
                path,
                before: None,
                after: Some(value),
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(json: Json) -> Item {
        Item::Log(Box::new(from_json(&json).unwrap()))
    }

    #[test]
    fn a_record_is_read_as_it_is_written() {
        let all = json!({
            "timestamp": "2029-03-30T08:31:20.545192187Z", "observed_timestamp": "2030-01-01T00:00:00Z",
            "severity_number": 9, "severity_text": "INFO",
            "body": {"a": [1, 1.5, null, true], "b": {"$base64": "AAE="}},
            "attributes": {"log.file.path": "/a"}, "resource": {"host": "h"},
            "scope_name": "s", "trace_id": "0102030405060708090a0b0c0d0e0f10",
            "span_id": "0102030405060708", "trace_flags": "01", "event_name": "e",
        });
        assert_eq!(to_json(&item(all.clone())), [all]);
        assert_eq!(to_json(&item(json!({}))), [json!({})]);
    }

    #[test]
    fn what_is_no_record_is_named() {
        for (json, want) in [
            (json!("x"), "a record is an object"),
            (json!({"boddy": 1}), "did you mean \"body\"?"),
            (
                json!({"timestamp": "yesterday"}),
                "timestamp: wanted a time",
            ),
            (json!({"severity_number": 25}), "from 0 to 24"),
            (json!({"attributes": []}), "attributes: wanted an object"),
            (json!({"trace_id": "zz"}), "trace_id: wanted 32"),
            (json!({"span_id": "éééééééé"}), "span_id: wanted 16"),
            (json!({"scope_name": 1}), "scope_name: wanted text"),
        ] {
            let error = from_json(&json).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn changes_are_told_apart_by_path() {
        let before =
            item(json!({"body": "x", "attributes": {"a": 1, "k.d": {"n": 1}, "gone": "g"}}));
        let after = item(json!({"body": "x", "attributes": {"a": 1.5, "k.d": {"n": 1, "m": 2}}}));
        let change = |path: &str, before: Json, after: Json| Change {
            path: path.into(),
            before: Some(before).filter(|v| !v.is_null()),
            after: Some(after).filter(|v| !v.is_null()),
        };
        let want = [
            change("attributes.a", json!(1), json!(1.5)),
            change("attributes.gone", json!("g"), Json::Null),
            change("attributes[\"k.d\"].m", Json::Null, json!(2)),
        ];
        assert_eq!(changes(&before, &after), want);
        assert_eq!(changes(&after, &after), []);
        let whole = item(json!({"body": {}}));
        let body = change("body", json!("x"), json!({}));
        assert!(changes(&before, &whole).contains(&body));
    }
}
