//! Lines that hold more than the body: JSON and logfmt, as the collector's exporter wrote them.

use std::io::Write;

use tailwater_pdata::{LogsBatch, Map, Value, ValueRef};

/// A record with the attributes that go into its line.
pub(super) struct LineRecord<'a> {
    /// The batch.
    pub logs: &'a LogsBatch,
    /// The row.
    pub row: usize,
    /// Names of record attributes that stay out.
    pub hidden_attributes: &'a [String],
    /// Names of resource attributes that stay out.
    pub hidden_resource: &'a [String],
}

impl<'a> LineRecord<'a> {
    fn attributes(&self) -> impl Iterator<Item = (&'a str, ValueRef<'a>)> {
        let (logs, row, hidden) = (self.logs, self.row, self.hidden_attributes);
        let columns = logs.attributes.iter();
        columns.filter_map(move |(k, c)| {
            let shown = !hidden.iter().any(|h| **h == **k);
            Some((&**k, logs.value(c, row).filter(|_| shown)?))
        })
    }

    fn resource(&self) -> impl Iterator<Item = (&'a str, ValueRef<'a>)> {
        let hidden = self.hidden_resource;
        map_items(&self.logs.resource).filter(move |(k, _)| !hidden.iter().any(|h| h == k))
    }

    fn trace(&self) -> ([u8; 16], [u8; 8], u32) {
        let trace = self.logs.trace.as_deref();
        trace.map_or(Default::default(), |t| {
            (t.trace_id[self.row], t.span_id[self.row], t.flags[self.row])
        })
    }

    fn severity_text(&self) -> &'a [u8] {
        let text = self.logs.severity_text(self.row);
        text.and_then(ValueRef::as_text).unwrap_or_default()
    }
}

fn map_items(map: &Map) -> impl Iterator<Item = (&str, ValueRef<'_>)> {
    map.iter().map(|(k, v)| (&**k, v.as_ref()))
}

fn put(out: &mut Vec<u8>, args: std::fmt::Arguments<'_>) {
    out.write_fmt(args).expect("writing to a Vec cannot fail");
}

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for b in bytes {
        out.push(DIGITS[usize::from(b >> 4)]);
        out.push(DIGITS[usize::from(b & 15)]);
    }
}

/// Appends the record as a JSON object: body, traceid, spanid, severity, flags, attributes,
/// resources, instrumentation_scope; what is empty is left out.
pub(super) fn json(record: &LineRecord<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.push(b'{');
    let key = |name: &str, out: &mut Vec<u8>| {
        if out.len() > start + 1 {
            out.push(b',');
        }
        put(out, format_args!("\"{name}\":"));
    };
    if let Some(body) = record.logs.body(record.row)
        && !matches!(body, ValueRef::Null)
    {
        key("body", out);
        json_value(body, out);
    }
    let (trace_id, span_id, flags) = record.trace();
    for (name, id) in [("traceid", &trace_id[..]), ("spanid", &span_id)] {
        if id.iter().any(|b| *b != 0) {
            key(name, out);
            out.push(b'"');
            hex(id, out);
            out.push(b'"');
        }
    }
    if !record.severity_text().is_empty() {
        key("severity", out);
        json_string(record.severity_text(), out);
    }
    if flags != 0 {
        key("flags", out);
        put(out, format_args!("{flags}"));
    }
    let mut items: Vec<_> = record.attributes().collect();
    if !items.is_empty() {
        key("attributes", out);
        json_object(&mut items, out);
    }
    let mut items: Vec<_> = record.resource().collect();
    if !items.is_empty() {
        key("resources", out);
        json_object(&mut items, out);
    }
    json_scope(record, key, out);
    out.push(b'}');
}

fn json_scope(record: &LineRecord<'_>, key: impl Fn(&str, &mut Vec<u8>), out: &mut Vec<u8>) {
    let scope = &record.logs.scope;
    let mut sep = "";
    for (name, text) in [("name", &scope.name), ("version", &scope.version)] {
        if !text.is_empty() {
            if sep.is_empty() {
                key("instrumentation_scope", out);
                out.push(b'{');
            }
            put(out, format_args!("{sep}\"{name}\":"));
            json_string(text.as_bytes(), out);
            sep = ",";
        }
    }
    if !scope.attributes.is_empty() {
        if sep.is_empty() {
            key("instrumentation_scope", out);
            out.push(b'{');
        }
        put(out, format_args!("{sep}\"attributes\":"));
        json_object(&mut map_items(&scope.attributes).collect(), out);
        sep = ",";
    }
    if !sep.is_empty() {
        out.push(b'}');
    }
}

/// Keys in order, as Go's encoder writes maps.
fn json_object(items: &mut Vec<(&str, ValueRef<'_>)>, out: &mut Vec<u8>) {
    items.sort_by(|a, b| a.0.cmp(b.0));
    out.push(b'{');
    for (i, (k, v)) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        json_string(k.as_bytes(), out);
        out.push(b':');
        json_value(*v, out);
    }
    out.push(b'}');
}

fn json_value(value: ValueRef<'_>, out: &mut Vec<u8>) {
    match value {
        ValueRef::Null => out.extend_from_slice(b"null"),
        ValueRef::Str(s) => json_string(s, out),
        ValueRef::Bytes(_) => {
            out.push(b'"');
            value.write_string(out);
            out.push(b'"');
        }
        ValueRef::Map(m) => json_object(&mut map_items(m).collect(), out),
        ValueRef::List(l) => {
            out.push(b'[');
            for (i, v) in l.iter().map(Value::as_ref).enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                json_value(v, out);
            }
            out.push(b']');
        }
        ValueRef::Bool(_) | ValueRef::Int(_) | ValueRef::Double(_) => value.write_string(out),
    }
}

/// Bytes that [`json_string`] has to look at: what is escaped, and the first byte of U+2028/9.
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut b = 0;
    while b < 0x20 {
        special[b] = true;
        b += 1;
    }
    let others = [b'"', b'\\', b'<', b'>', b'&', 0xe2];
    let mut i = 0;
    while i < others.len() {
        special[others[i] as usize] = true;
        i += 1;
    }
    special
};

/// A string as Go's `encoding/json` writes it: invalid UTF-8 becomes U+FFFD, and `<`, `>`, `&`,
/// U+2028 and U+2029 are escaped too.
fn json_string(text: &[u8], out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(text);
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut from = 0;
    let mut at = 0;
    while let Some(skip) = bytes[at..].iter().position(|b| SPECIAL[usize::from(*b)]) {
        at += skip;
        let (len, escaped): (usize, &[u8]) = match &bytes[at..] {
            [b'"', ..] => (1, b"\\\""),
            [b'\\', ..] => (1, b"\\\\"),
            [b'\n', ..] => (1, b"\\n"),
            [b'\r', ..] => (1, b"\\r"),
            [b'\t', ..] => (1, b"\\t"),
            [8, ..] => (1, b"\\b"),
            [12, ..] => (1, b"\\f"),
            [b'<', ..] => (1, b"\\u003c"),
            [b'>', ..] => (1, b"\\u003e"),
            [b'&', ..] => (1, b"\\u0026"),
            [0xe2, 0x80, 0xa8, ..] => (3, b"\\u2028"),
            [0xe2, 0x80, 0xa9, ..] => (3, b"\\u2029"),
            [0xe2, ..] => {
                at += 1;
                continue;
            }
            _ => (1, b""),
        };
        out.extend_from_slice(&bytes[from..at]);
        match escaped {
            b"" => put(out, format_args!("\\u{:04x}", bytes[at])),
            escaped => out.extend_from_slice(escaped),
        }
        at += len;
        from = at;
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

/// Appends the record as logfmt: the body (its own pairs if it is logfmt, else `msg`), traceID,
/// spanID, severity, flags, then attributes with the prefixes `attribute_`, `resource_` and
/// `instrumentation_scope_`. Nested values are joined by `_`.
pub(super) fn logfmt(record: &LineRecord<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    let mut pair = |key: &str, value: &[u8]| {
        if out.len() > start {
            out.push(b' ');
        }
        logfmt_pair(key, value, out);
    };
    match record.logs.body(record.row) {
        None | Some(ValueRef::Null) => {}
        Some(ValueRef::Str(text)) if is_logfmt(text) => pair("", text),
        Some(ValueRef::Map(m)) => {
            map_items(m).for_each(|(k, v)| logfmt_value(k, v, &mut pair));
        }
        Some(list @ ValueRef::List(_)) => logfmt_value("body", list, &mut pair),
        Some(other) => logfmt_value("msg", other, &mut pair),
    }
    let (trace_id, span_id, flags) = record.trace();
    for (name, id) in [("traceID", &trace_id[..]), ("spanID", &span_id)] {
        if id.iter().any(|b| *b != 0) {
            let mut text = Vec::new();
            hex(id, &mut text);
            pair(name, &text);
        }
    }
    if !record.severity_text().is_empty() {
        pair("severity", record.severity_text());
    }
    if flags != 0 {
        pair("flags", flags.to_string().as_bytes());
    }
    for (k, v) in record.attributes() {
        logfmt_value(&format!("attribute_{k}"), v, &mut pair);
    }
    for (k, v) in record.resource() {
        logfmt_value(&format!("resource_{k}"), v, &mut pair);
    }
    let scope = &record.logs.scope;
    for (name, text) in [("name", &scope.name), ("version", &scope.version)] {
        if !text.is_empty() {
            pair(&format!("instrumentation_scope_{name}"), text.as_bytes());
        }
    }
    for (k, v) in map_items(&scope.attributes) {
        let key = format!("instrumentation_scope_attribute_{k}");
        logfmt_value(&key, v, &mut pair);
    }
}

fn logfmt_value(key: &str, value: ValueRef<'_>, pair: &mut impl FnMut(&str, &[u8])) {
    match value {
        ValueRef::Map(m) => {
            for (k, v) in map_items(m) {
                logfmt_value(&format!("{key}_{k}"), v, pair);
            }
        }
        ValueRef::List(l) => {
            for (i, v) in l.iter().enumerate() {
                logfmt_value(&format!("{key}_{i}"), v.as_ref(), pair);
            }
        }
        scalar => {
            let mut text = Vec::new();
            scalar.write_string(&mut text);
            pair(key, &text);
        }
    }
}

/// Appends `key=value`; without a key the value is taken as it is.
fn logfmt_pair(key: &str, value: &[u8], out: &mut Vec<u8>) {
    if key.is_empty() {
        return out.extend_from_slice(value);
    }
    let allowed = |b: &u8| *b > b' ' && *b != b'=' && *b != b'"' && *b != 0x7f;
    out.extend(key.bytes().filter(allowed));
    out.push(b'=');
    let plain = |b: &u8| *b > b' ' && *b != b'=' && *b != b'"' && *b != b'\\' && *b != 0x7f;
    if value.iter().all(plain) && std::str::from_utf8(value).is_ok() {
        out.extend_from_slice(value);
    } else {
        logfmt_string(value, out);
    }
}

/// A quoted string with the escapes that logfmt has.
fn logfmt_string(text: &[u8], out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(text);
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            c if c < ' ' || c == '\u{7f}' => put(out, format_args!("\\u{:04x}", c as u32)),
            c => put(out, format_args!("{c}")),
        }
    }
    out.push(b'"');
}

/// True if all of `text` is `key=value` pairs, values bare or in quotes.
fn is_logfmt(text: &[u8]) -> bool {
    let mut rest = text.trim_ascii();
    if rest.is_empty() || rest.contains(&b'\n') {
        return false;
    }
    while !rest.is_empty() {
        let key = rest
            .iter()
            .position(|b| *b == b'=' || *b <= b' ' || *b == b'"');
        let Some(end) = key.filter(|end| *end > 0 && rest[*end] == b'=') else {
            return false;
        };
        rest = &rest[end + 1..];
        let value_end = match rest.first() {
            Some(b'"') => {
                let mut escaped = false;
                let close = rest[1..].iter().position(|b| {
                    let quote = *b == b'"' && !escaped;
                    escaped = *b == b'\\' && !escaped;
                    quote
                });
                match close {
                    Some(close) => close + 2,
                    None => return false,
                }
            }
            _ => rest.iter().position(|b| *b <= b' ').unwrap_or(rest.len()),
        };
        let value = &rest[..value_end];
        if value.first() != Some(&b'"') && value.iter().any(|b| *b == b'"' || *b == b'=') {
            return false;
        }
        rest = &rest[value_end..];
        if rest.first().is_some_and(|b| *b > b' ') {
            return false;
        }
        rest = rest.trim_ascii_start();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_pdata::Entry;

    fn lines(e: Entry, hidden: &[&str]) -> (String, String) {
        let logs = LogsBatch::from_entries(&[e]);
        let hidden: Vec<String> = hidden.iter().map(|h| (*h).to_owned()).collect();
        let record = LineRecord {
            logs: &logs,
            row: 0,
            hidden_attributes: &hidden,
            hidden_resource: &hidden,
        };
        let (mut a, mut b) = (Vec::new(), Vec::new());
        json(&record, &mut a);
        logfmt(&record, &mut b);
        (String::from_utf8(a).unwrap(), String::from_utf8(b).unwrap())
    }

    #[test]
    fn everything_that_is_not_hidden_is_in_the_line() {
        let nested: Map = [("k", Value::List(vec![Value::Int(1), "x y".into()]))]
            .into_iter()
            .collect();
        let e = Entry {
            body: "a<b>\n\"\u{2028}\u{1}".into(),
            attributes: [
                ("z", Value::Double(0.5)),
                ("a", nested.into()),
                ("gone", true.into()),
                ("n", Value::Null),
            ]
            .into_iter()
            .collect(),
            resource: [("gone", "x"), ("host", "h")].into_iter().collect(),
            scope_name: "s".into(),
            span_id: [1; 8],
            flags: 1,
            ..Entry::default()
        };
        let (json, logfmt) = lines(e, &["gone"]);
        assert_eq!(
            json,
            r#"{"body":"a\u003cb\u003e\n\"\u2028\u0001","spanid":"0101010101010101","flags":1,"attributes":{"a":{"k":[1,"x y"]},"n":null,"z":0.5},"resources":{"host":"h"},"instrumentation_scope":{"name":"s"}}"#
        );
        assert_eq!(
            logfmt,
            "msg=\"a<b>\\n\\\"\u{2028}\\u0001\" spanID=0101010101010101 flags=1 attribute_z=0.5 attribute_a_k_0=1 attribute_a_k_1=\"x y\" attribute_n= resource_host=h instrumentation_scope_name=s"
        );
        assert_eq!(lines(Entry::default(), &[]), ("{}".into(), String::new()));
    }

    #[test]
    fn json_strings_are_those_of_serde_but_for_gos_extra_escapes() {
        for text in [
            "",
            "plain",
            "\u{0}\u{1f} \"\\/\n\r\t\u{8}\u{c}\u{7f}",
            "\u{2027}\u{20ac}\u{e9}\u{1f600} end",
            "\u{2028}",
            "<a href=\"x\">&</a>",
        ] {
            let mut out = Vec::new();
            json_string(text.as_bytes(), &mut out);
            let back: String = serde_json::from_slice(&out).unwrap();
            assert_eq!(back, text);
            assert!(!out.iter().any(|b| b"<>&".contains(b)));
        }
        let mut out = Vec::new();
        json_string(b"a\xffb\xe2\x80", &mut out);
        assert_eq!(out, "\"a\u{fffd}b\u{fffd}\"".as_bytes());
    }

    #[test]
    fn bodies_that_are_logfmt_keep_their_pairs() {
        for (text, want) in [
            ("a=b", true),
            ("a=b c=\"d e\"  f=", true),
            ("a=\"x\\\"y\"", true),
            ("hello world", false),
            ("a=b c", false),
            ("a=\"b", false),
            ("a=\"b\"c=d", false),
            ("=b", false),
            ("a=b=c", false),
            ("", false),
        ] {
            assert_eq!(is_logfmt(text.as_bytes()), want, "{text}");
        }
    }
}
