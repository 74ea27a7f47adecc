//! OTLP/JSON for logs, as the OTLP specification's JSON mapping states it: 64 bit integers as
//! strings, ids in hex, bytes in base64, lowerCamelCase names.

use std::io::Write;

use crate::logs::LogsBatch;
use crate::number::Digits;
use crate::value::{Map, Value, ValueRef};

/// Appends `batches` as one `ExportLogsServiceRequest` JSON object, without a line end.
/// Batches must have been split by resource.
pub fn write_logs_json<'a>(batches: impl IntoIterator<Item = &'a LogsBatch>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"resourceLogs\":[");
    for (i, b) in batches.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        resource_logs(b, out);
    }
    out.extend_from_slice(b"]}");
}

fn resource_logs(b: &LogsBatch, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"resource\":{");
    attributes(b.resource.iter().map(|(k, v)| (&**k, v.as_ref())), out);
    out.extend_from_slice(b"},\"scopeLogs\":[{\"scope\":{");
    let mut sep = "";
    for (name, text) in [("name", &b.scope.name), ("version", &b.scope.version)] {
        if !text.is_empty() {
            put(out, format_args!("{sep}\"{name}\":"));
            string(text.as_bytes(), out);
            sep = ",";
        }
    }
    if !b.scope.attributes.is_empty() {
        out.extend_from_slice(sep.as_bytes());
        attributes(
            b.scope.attributes.iter().map(|(k, v)| (&**k, v.as_ref())),
            out,
        );
    }
    out.extend_from_slice(b"},\"logRecords\":[");
    for row in 0..b.rows() {
        if row > 0 {
            out.push(b',');
        }
        record(b, row, out);
    }
    out.extend_from_slice(b"]}]}");
}

fn record(b: &LogsBatch, row: usize, out: &mut Vec<u8>) {
    out.push(b'{');
    if b.time.get(row) != 0 {
        put(
            out,
            format_args!("\"timeUnixNano\":\"{}\",", b.time.get(row)),
        );
    }
    put(
        out,
        format_args!("\"observedTimeUnixNano\":\"{}\"", b.observed.get(row)),
    );
    if b.severity.get(row) != 0 {
        put(
            out,
            format_args!(",\"severityNumber\":{}", b.severity.get(row)),
        );
    }
    if let Some(ValueRef::Str(s)) = b.severity_text(row) {
        out.extend_from_slice(b",\"severityText\":");
        string(s, out);
    }
    if let Some(body) = b.body(row) {
        out.extend_from_slice(b",\"body\":");
        any_value(body, out);
    }
    let attrs = b
        .attributes
        .iter()
        .filter_map(|(k, c)| Some((&**k, b.value(c, row)?)));
    let mut attrs = attrs.peekable();
    if attrs.peek().is_some() {
        out.push(b',');
        attributes(attrs, out);
    }
    if let Some(t) = &b.trace {
        if t.flags[row] != 0 {
            put(out, format_args!(",\"flags\":{}", t.flags[row]));
        }
        hex("traceId", &t.trace_id[row], out);
        hex("spanId", &t.span_id[row], out);
    }
    out.push(b'}');
}

fn attributes<'a>(items: impl Iterator<Item = (&'a str, ValueRef<'a>)>, out: &mut Vec<u8>) {
    let mut first = true;
    out.extend_from_slice(b"\"attributes\":[");
    for (key, value) in items {
        out.extend_from_slice(if first { b"{\"key\":" } else { b",{\"key\":" });
        first = false;
        string(key.as_bytes(), out);
        out.extend_from_slice(b",\"value\":");
        any_value(value, out);
        out.push(b'}');
    }
    out.push(b']');
}

fn any_value(v: ValueRef<'_>, out: &mut Vec<u8>) {
    match v {
        ValueRef::Null => out.extend_from_slice(b"{}"),
        ValueRef::Bool(b) => put(out, format_args!("{{\"boolValue\":{b}}}")),
        ValueRef::Int(i) => put(out, format_args!("{{\"intValue\":\"{i}\"}}")),
        ValueRef::Double(d) => {
            out.extend_from_slice(b"{\"doubleValue\":");
            match d {
                d if d.is_nan() => out.extend_from_slice(b"\"NaN\""),
                d if d.is_infinite() => {
                    let sign: &[u8] = if d < 0.0 {
                        b"\"-Infinity\""
                    } else {
                        b"\"Infinity\""
                    };
                    out.extend_from_slice(sign);
                }
                d => double(d, out),
            }
            out.push(b'}');
        }
        ValueRef::Str(s) => {
            out.extend_from_slice(b"{\"stringValue\":");
            string(s, out);
            out.push(b'}');
        }
        ValueRef::Bytes(b) => {
            out.extend_from_slice(b"{\"bytesValue\":\"");
            base64(b, out);
            out.extend_from_slice(b"\"}");
        }
        ValueRef::List(l) => {
            out.extend_from_slice(b"{\"arrayValue\":{\"values\":[");
            for (i, v) in l.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                any_value(v.as_ref(), out);
            }
            out.extend_from_slice(b"]}}");
        }
        ValueRef::Map(m) => {
            out.extend_from_slice(b"{\"kvlistValue\":{\"values\":[");
            for (i, (k, v)) in m.iter().enumerate() {
                out.extend_from_slice(if i > 0 { b",{\"key\":" } else { b"{\"key\":" });
                string(k.as_bytes(), out);
                out.extend_from_slice(b",\"value\":");
                any_value(v.as_ref(), out);
                out.push(b'}');
            }
            out.extend_from_slice(b"]}}");
        }
    }
}

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

fn string(s: &[u8], out: &mut Vec<u8>) {
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

/// Standard alphabet with padding, RFC 4648 section 4.
fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
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

fn hex(name: &str, id: &[u8], out: &mut Vec<u8>) {
    if id.iter().all(|&b| b == 0) {
        return;
    }
    put(out, format_args!(",\"{name}\":\""));
    for b in id {
        put(out, format_args!("{b:02x}"));
    }
    out.push(b'"');
}

fn put(out: &mut Vec<u8>, args: std::fmt::Arguments<'_>) {
    out.write_fmt(args).expect("writing to a Vec cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Entry;

    #[test]
    fn a_record_with_everything_is_what_the_specification_shows() {
        let e = Entry {
            time: 1,
            observed: 2,
            severity: 9,
            severity_text: "Info".into(),
            body: "a\"b\u{1}\u{e9}".into(),
            attributes: [
                ("i", Value::Int(5)),
                ("d", Value::Double(0.5)),
                ("b", Value::Bytes(bytes::Bytes::from_static(b"\xff\xfe"))),
                ("m", Value::Map([("x", true)].into_iter().collect())),
                ("l", Value::List(vec![Value::Null])),
            ]
            .into_iter()
            .collect(),
            resource: [("host", "h")].into_iter().collect(),
            trace_id: [0xab; 16],
            flags: 1,
            ..Entry::default()
        };
        let mut out = Vec::new();
        write_logs_json([&LogsBatch::from_entries(&[e])], &mut out);
        let want = concat!(
            r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"host","value":{"stringValue":"h"}}]},"#,
            r#""scopeLogs":[{"scope":{},"logRecords":[{"timeUnixNano":"1","observedTimeUnixNano":"2","#,
            r#""severityNumber":9,"severityText":"Info","body":{"stringValue":"a\"b\u0001é"},"#,
            r#""attributes":[{"key":"i","value":{"intValue":"5"}},{"key":"d","value":{"doubleValue":0.5}},"#,
            r#"{"key":"b","value":{"bytesValue":"//4="}},"#,
            r#"{"key":"m","value":{"kvlistValue":{"values":[{"key":"x","value":{"boolValue":true}}]}}},"#,
            r#"{"key":"l","value":{"arrayValue":{"values":[{}]}}}],"#,
            r#""flags":1,"traceId":"abababababababababababababababab"}]}]}]}"#,
        );
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn the_output_is_json_for_any_text() {
        for bytes in [
            &b"\xff\xfe"[..],
            b"\x00\x1f\x7f",
            "\u{2028}".as_bytes(),
            b"\\\"/",
        ] {
            let mut b = LogsBatch::from_lines(bytes.to_vec().into(), &[(0, bytes.len() as u32)]);
            b.attributes.set("k", crate::Column::Const(1.0.into()));
            let mut out = Vec::new();
            write_logs_json([&b, &b], &mut out);
            let v: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(v["resourceLogs"].as_array().unwrap().len(), 2);
        }
    }
}
