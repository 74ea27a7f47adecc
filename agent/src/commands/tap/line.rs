//! A record as one line for people.

use std::fmt::Write as _;

use serde_json::Value;
use tailwater_telemetry::rfc3339_nano;

use crate::commands::admin::{items, text};

/// The line of a record of a tap, without its end. Control characters are shown as escapes: what is in a
/// record must not move the cursor of who looks at it.
pub fn of(record: &Value) -> String {
    let mut out = String::new();
    if let Some(log) = record.get("logRecord") {
        let times = [log, log]
            .into_iter()
            .zip(["timeUnixNano", "observedTimeUnixNano"]);
        put_time(record, times, &mut out);
        put_text(severity(log), &mut out);
        put_text(&value_text(&log["body"]), &mut out);
        put_attributes(log, &mut out);
    } else if let Some(span) = record.get("span") {
        put_time(record, [(span, "startTimeUnixNano")], &mut out);
        put_span(span, &mut out);
    } else if let Some(metric) = record.get("metric") {
        put_metric(record, metric, &mut out);
    }
    if !items(&record["resource"], "attributes").is_empty() {
        out.push_str(" |");
        put_attributes(&record["resource"], &mut out);
    }
    if record["truncated"] == true {
        out.push_str(" (cut)");
    }
    out
}

/// Appends the first time that is set, or when the record passed.
fn put_time<'a>(
    record: &Value,
    times: impl IntoIterator<Item = (&'a Value, &'static str)>,
    out: &mut String,
) {
    let set = |(of, name): (&Value, &str)| whole(&of[name]).filter(|t| *t > 0);
    match times.into_iter().find_map(set) {
        Some(time) => out.push_str(&rfc3339_nano(time)),
        None => out.push_str(text(record, "time")),
    }
}

/// A whole number, which OTLP/JSON writes as text if it may be large.
fn whole(value: &Value) -> Option<i64> {
    value
        .as_i64()
        .or_else(|| value.as_str().and_then(|t| t.parse().ok()))
}

fn severity(log: &Value) -> &str {
    const NAMES: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
    let said = text(log, "severityText");
    let number = log["severityNumber"].as_u64().unwrap_or(0);
    match said.is_empty() && number > 0 {
        true => NAMES[(number as usize - 1).min(23) / 4],
        false => said,
    }
}

fn put_span(span: &Value, out: &mut String) {
    const KINDS: [&str; 6] = ["", "internal", "server", "client", "producer", "consumer"];
    const STATES: [&str; 3] = ["", "ok", "error"];
    let name = |names: &[&'static str], value: &Value| {
        let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
        number.and_then(|n| names.get(n).copied()).unwrap_or("")
    };
    put_text(text(span, "name"), out);
    put_text(name(&KINDS, &span["kind"]), out);
    let time = |name: &str| whole(&span[name]).unwrap_or(0);
    let took = time("endTimeUnixNano").saturating_sub(time("startTimeUnixNano"));
    let _ = write!(out, " {} ms", took as f64 / 1e6);
    put_text(name(&STATES, &span["status"]["code"]), out);
    put_text(text(&span["status"], "message"), out);
    for (label, field) in [
        ("trace", "traceId"),
        ("span", "spanId"),
        ("parent", "parentSpanId"),
    ] {
        if !text(span, field).is_empty() {
            let _ = write!(out, " {label}={}", text(span, field));
        }
    }
    put_attributes(span, out);
}

fn put_metric(record: &Value, metric: &Value, out: &mut String) {
    const KINDS: [&str; 5] = [
        "gauge",
        "sum",
        "histogram",
        "exponentialHistogram",
        "summary",
    ];
    let kind = KINDS.into_iter().find(|kind| !metric[*kind].is_null());
    let none = Value::Null;
    let point = kind.and_then(|kind| items(&metric[kind], "dataPoints").first());
    let point = point.unwrap_or(&none);
    put_time(record, [(point, "timeUnixNano")], out);
    put_text(text(metric, "name"), out);
    for (label, field) in [
        ("", "asInt"),
        ("", "asDouble"),
        ("count ", "count"),
        ("sum ", "sum"),
        ("min ", "min"),
        ("max ", "max"),
    ] {
        match &point[field] {
            Value::Null => {}
            Value::String(text) => put_text(&format!("{label}{text}"), out),
            number => put_text(&format!("{label}{number}"), out),
        }
    }
    put_text(text(metric, "unit"), out);
    let temporality = kind.map(|kind| metric[kind]["aggregationTemporality"].as_u64());
    let temporality = match temporality.flatten() {
        Some(1) => "delta ",
        Some(2) => "cumulative ",
        _ => "",
    };
    let _ = write!(out, " ({temporality}{})", kind.unwrap_or("no data"));
    put_attributes(point, out);
}

/// Appends ` text`, unless it is empty.
fn put_text(text: &str, out: &mut String) {
    if !text.is_empty() {
        out.push(' ');
        put_shown(text, out);
    }
}

fn put_shown(text: &str, out: &mut String) {
    for c in text.chars() {
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
}

/// Appends ` key=value` for each attribute.
fn put_attributes(of: &Value, out: &mut String) {
    for pair in items(of, "attributes") {
        put_text(text(pair, "key"), out);
        out.push('=');
        let value = value_text(&pair["value"]);
        let quoted = value.is_empty() || value.contains([' ', '"']);
        match quoted {
            true => put_shown(&format!("{:?}", value), out),
            false => put_shown(&value, out),
        }
    }
}

/// An `AnyValue` as text.
fn value_text(value: &Value) -> String {
    let Some((kind, value)) = value.as_object().and_then(|v| v.iter().next()) else {
        return String::new();
    };
    match (&**kind, value) {
        (_, Value::String(text)) => text.clone(),
        ("arrayValue", list) => {
            let values = items(list, "values").iter().map(value_text);
            format!("[{}]", values.collect::<Vec<_>>().join(", "))
        }
        ("kvlistValue", map) => {
            let pair = |p: &Value| format!("{}: {}", text(p, "key"), value_text(&p["value"]));
            let pairs = items(map, "values").iter().map(pair);
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
        (_, other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn attributes(pairs: &[(&str, Value)]) -> Value {
        let pair = |(key, value): &(&str, Value)| json!({"key": key, "value": value});
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn each_signal_is_one_line() {
        let resource =
            json!({"attributes": attributes(&[("host", json!({"stringValue": "h 1"}))])});
        let list = json!({"arrayValue": {"values": [{"intValue": "1"}, {"boolValue": true}]}});
        let map =
            json!({"kvlistValue": {"values": attributes(&[("x", json!({"doubleValue": 0.5}))])}});
        let log = json!({
            "resource": resource, "truncated": true, "time": "now",
            "logRecord": {
                "severityNumber": 17, "body": {"stringValue": "a\n\u{1b}[31mb"},
                "attributes": attributes(&[("l", list), ("m", map), ("e", json!({}))]),
            },
        });
        let want =
            "now ERROR a\\n\\u{1b}[31mb l=\"[1, true]\" m=\"{x: 0.5}\" e=\"\" | host=\"h 1\" (cut)";
        assert_eq!(of(&log), want);
        let metric = |data: Value| json!({"time": "now", "resource": {}, "metric": data});
        let point = json!({"timeUnixNano": "1000000000", "asInt": "7",
            "attributes": attributes(&[("a", json!({"stringValue": "b"}))])});
        let sum = json!({"name": "n", "unit": "By",
            "sum": {"aggregationTemporality": 2, "dataPoints": [point]}});
        let want = "1970-01-01T00:00:01Z n 7 By (cumulative sum) a=b";
        assert_eq!(of(&metric(sum)), want);
        let histogram = json!({"name": "h", "histogram": {"aggregationTemporality": 1,
            "dataPoints": [{"count": "3", "sum": 1.5, "max": 1}]}});
        assert_eq!(
            of(&metric(histogram)),
            "now h count 3 sum 1.5 max 1 (delta histogram)"
        );
        assert_eq!(of(&metric(json!({"name": "x"}))), "now x (no data)");
        let span = json!({"time": "now", "resource": {}, "span": {
            "name": "GET /", "kind": 2, "traceId": "0a", "spanId": "0b",
            "startTimeUnixNano": "1000000000", "endTimeUnixNano": "1002500000",
            "status": {"code": 2, "message": "no"},
        }});
        let want = "1970-01-01T00:00:01Z GET / server 2.5 ms error no trace=0a span=0b";
        assert_eq!(of(&span), want);
    }
}
