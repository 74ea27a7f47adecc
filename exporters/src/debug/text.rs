//! Records as text for people, in the order and with the labels that the collector uses.

use std::io::Write;

use jiff::Timestamp;
use tailwater_pdata::{LogsBatch, ValueRef};

use super::options::Verbosity;

/// OTLP's severity numbers come in fours.
const SEVERITIES: [&str; 6] = ["Trace", "Debug", "Info", "Warn", "Error", "Fatal"];

/// Appends the text of some batches, one resource each. Nothing for [`Verbosity::Basic`].
pub(super) fn render(verbosity: Verbosity, batches: &[LogsBatch], out: &mut Vec<u8>) {
    for (i, batch) in batches.iter().enumerate() {
        match verbosity {
            Verbosity::Basic => {}
            Verbosity::Normal => normal(i, batch, out),
            Verbosity::Detailed => detailed(i, batch, out),
        }
    }
}

/// Appends formatted text. Writing to a vector cannot fail.
fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("writing to a vector cannot fail");
}

/// Appends data with its control characters escaped.
fn data(out: &mut Vec<u8>, bytes: &[u8]) {
    for c in String::from_utf8_lossy(bytes).chars() {
        if c.is_control() && c != '\t' {
            put(out, format_args!("{}", c.escape_default()));
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

fn plain(out: &mut Vec<u8>, value: ValueRef<'_>) {
    let mut text = Vec::new();
    value.write_string(&mut text);
    data(out, &text);
}

fn pairs<'a>(out: &mut Vec<u8>, all: impl Iterator<Item = (&'a str, ValueRef<'a>)>) {
    for (key, value) in all {
        out.push(b' ');
        data(out, key.as_bytes());
        out.push(b'=');
        plain(out, value);
    }
}

fn resource(b: &LogsBatch) -> impl Iterator<Item = (&str, ValueRef<'_>)> {
    b.resource.iter().map(|(k, v)| (&**k, v.as_ref()))
}

fn attributes(b: &LogsBatch, row: usize) -> impl Iterator<Item = (&str, ValueRef<'_>)> {
    b.attributes
        .iter()
        .filter_map(move |(k, c)| Some((&**k, b.value(c, row)?)))
}

fn normal(index: usize, b: &LogsBatch, out: &mut Vec<u8>) {
    put(out, format_args!("ResourceLog #{index}"));
    pairs(out, resource(b));
    put(out, format_args!("\nScopeLog #0"));
    if !b.scope.name.is_empty() {
        out.push(b' ');
        data(out, b.scope.name.as_bytes());
        if !b.scope.version.is_empty() {
            out.push(b'@');
            data(out, b.scope.version.as_bytes());
        }
    }
    pairs(
        out,
        b.scope.attributes.iter().map(|(k, v)| (&**k, v.as_ref())),
    );
    out.push(b'\n');
    for row in 0..b.rows() {
        if let Some(body) = b.body(row) {
            plain(out, body);
        }
        pairs(out, attributes(b, row));
        out.push(b'\n');
    }
}

fn detailed(index: usize, b: &LogsBatch, out: &mut Vec<u8>) {
    put(out, format_args!("ResourceLog #{index}\n"));
    list(out, "Resource attributes", resource(b));
    put(out, format_args!("ScopeLogs #0\nInstrumentationScope "));
    data(out, b.scope.name.as_bytes());
    out.push(b' ');
    data(out, b.scope.version.as_bytes());
    out.push(b'\n');
    let scope = b.scope.attributes.iter().map(|(k, v)| (&**k, v.as_ref()));
    list(out, "InstrumentationScope attributes", scope);
    for row in 0..b.rows() {
        record(b, row, out);
    }
}

fn record(b: &LogsBatch, row: usize, out: &mut Vec<u8>) {
    put(out, format_args!("LogRecord #{row}\n"));
    put(
        out,
        format_args!("ObservedTimestamp: {}\n", time(b.observed.get(row))),
    );
    put(
        out,
        format_args!("Timestamp: {}\nSeverityText: ", time(b.time.get(row))),
    );
    if let Some(text) = b.severity_text(row) {
        plain(out, text);
    }
    put(
        out,
        format_args!(
            "\nSeverityNumber: {}\nBody: ",
            severity(b.severity.get(row))
        ),
    );
    typed(out, b.body(row).unwrap_or(ValueRef::Null));
    out.push(b'\n');
    list(out, "Attributes", attributes(b, row));
    let trace = b.trace.as_deref();
    put(out, format_args!("Trace ID: "));
    hex(
        out,
        trace
            .and_then(|t| t.trace_id.get(row))
            .map_or(&[], |id| &id[..]),
    );
    put(out, format_args!("\nSpan ID: "));
    hex(
        out,
        trace
            .and_then(|t| t.span_id.get(row))
            .map_or(&[], |id| &id[..]),
    );
    let flags = trace.and_then(|t| t.flags.get(row)).copied().unwrap_or(0);
    put(out, format_args!("\nFlags: {flags}\n"));
}

/// A list of attributes under a title; nothing if it is empty.
fn list<'a>(out: &mut Vec<u8>, title: &str, all: impl Iterator<Item = (&'a str, ValueRef<'a>)>) {
    for (i, (key, value)) in all.enumerate() {
        if i == 0 {
            put(out, format_args!("{title}:\n"));
        }
        put(out, format_args!("     -> "));
        data(out, key.as_bytes());
        put(out, format_args!(": "));
        typed(out, value);
        out.push(b'\n');
    }
}

fn typed(out: &mut Vec<u8>, value: ValueRef<'_>) {
    let name = match value {
        ValueRef::Null => "Empty",
        ValueRef::Bool(_) => "Bool",
        ValueRef::Int(_) => "Int",
        ValueRef::Double(_) => "Double",
        ValueRef::Str(_) => "Str",
        ValueRef::Bytes(_) => "Bytes",
        ValueRef::List(_) => "Slice",
        ValueRef::Map(_) => "Map",
    };
    put(out, format_args!("{name}("));
    plain(out, value);
    out.push(b')');
}

fn hex(out: &mut Vec<u8>, id: &[u8]) {
    if id.iter().any(|b| *b != 0) {
        for byte in id {
            put(out, format_args!("{byte:02x}"));
        }
    }
}

fn time(ns: i64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string()
}

fn severity(number: u8) -> String {
    let Some(n) = number.checked_sub(1).filter(|n| *n < 24) else {
        return format!("Unspecified({number})");
    };
    let name = SEVERITIES[usize::from(n / 4)];
    match n % 4 {
        0 => format!("{name}({number})"),
        step => format!("{name}{}({number})", step + 1),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use tailwater_pdata::{Column, Scope, Severities, Times, TraceColumns, Value};

    use super::*;

    fn batch() -> LogsBatch {
        let mut b = LogsBatch::from_lines(Bytes::from_static(b"a\x1b[2Jb"), &[(0, 6)]);
        b.resource = Arc::new([("host", "h")].into_iter().collect());
        b.scope = Arc::new(Scope {
            name: "s".into(),
            version: "1".into(),
            ..Scope::default()
        });
        b.time = Times::Const(1_581_452_773_000_000_789);
        b.severity = Severities::Const(10);
        b.attributes.set("n", Column::Const(Value::Int(5)));
        b.trace = Some(Box::new(TraceColumns {
            trace_id: vec![[0xab; 16]],
            span_id: vec![[0; 8]],
            flags: vec![1],
        }));
        b
    }

    fn text(verbosity: Verbosity) -> String {
        let mut out = Vec::new();
        render(verbosity, &[batch()], &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn normal_is_a_line_per_record_with_escaped_control_characters() {
        let expect = "ResourceLog #0 host=h\nScopeLog #0 s@1\na\\u{1b}[2Jb n=5\n";
        assert_eq!(text(Verbosity::Normal), expect);
        assert_eq!(text(Verbosity::Basic), "");
    }

    #[test]
    fn detailed_shows_every_field() {
        let expect = "ResourceLog #0\nResource attributes:\n     -> host: Str(h)\n\
            ScopeLogs #0\nInstrumentationScope s 1\nLogRecord #0\n\
            ObservedTimestamp: 1970-01-01 00:00:00 +0000 UTC\n\
            Timestamp: 2020-02-11 20:26:13.000000789 +0000 UTC\n\
            SeverityText: \nSeverityNumber: Info2(10)\nBody: Str(a\\u{1b}[2Jb)\n\
            Attributes:\n     -> n: Int(5)\n\
            Trace ID: abababababababababababababababab\nSpan ID: \nFlags: 1\n";
        assert_eq!(text(Verbosity::Detailed), expect);
    }

    #[test]
    fn severities_are_named() {
        for (number, expect) in [
            (0, "Unspecified(0)"),
            (1, "Trace(1)"),
            (17, "Error(17)"),
            (24, "Fatal4(24)"),
            (25, "Unspecified(25)"),
        ] {
            assert_eq!(severity(number), expect);
        }
    }
}
