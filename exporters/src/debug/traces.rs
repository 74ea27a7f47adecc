//! Spans as text.

use tailwater_pdata::otlp::edit::View;

use super::text::{Text, hex, time};

const KINDS: [&str; 6] = [
    "Unspecified",
    "Internal",
    "Server",
    "Client",
    "Producer",
    "Consumer",
];
const CODES: [&str; 3] = ["Unset", "Ok", "Error"];

/// The name with a number; none if it has no name.
pub(super) fn name_of(names: &[&'static str], number: u64) -> &'static str {
    let at = usize::try_from(number).ok();
    at.and_then(|n| names.get(n).copied()).unwrap_or_default()
}

/// A line per span.
pub(super) fn normal(text: &mut Text<'_>, scope: &View<'_>) {
    for span in scope.messages("spans") {
        text.data(span.bytes("name"));
        let (trace, id) = (hex(span.bytes("trace_id")), hex(span.bytes("span_id")));
        text.put(format_args!(" {trace} {id}"));
        text.pairs(&span, "attributes", " ", " ");
        text.out.push(b'\n');
    }
}

/// Every field.
pub(super) fn detailed(text: &mut Text<'_>, scope: &View<'_>) {
    for (i, span) in scope.messages("spans").enumerate() {
        text.put(format_args!("Span #{i}\n"));
        field(text, "Trace ID", hex(span.bytes("trace_id")).as_bytes());
        field(
            text,
            "Parent ID",
            hex(span.bytes("parent_span_id")).as_bytes(),
        );
        field(text, "ID", hex(span.bytes("span_id")).as_bytes());
        field(text, "Name", span.bytes("name"));
        field(
            text,
            "Kind",
            name_of(&KINDS, span.number("kind")).as_bytes(),
        );
        let state = span.bytes("trace_state");
        if !state.is_empty() {
            field(text, "TraceState", state);
        }
        let (start, end) = (
            span.number("start_time_unix_nano"),
            span.number("end_time_unix_nano"),
        );
        field(text, "Start time", time(start).as_bytes());
        field(text, "End time", time(end).as_bytes());
        span.message("status", |status| {
            let code = name_of(&CODES, status.number("code"));
            field(text, "Status code", code.as_bytes());
            field(text, "Status message", status.bytes("message"));
        });
        for (label, name) in [
            ("DroppedAttributesCount", "dropped_attributes_count"),
            ("DroppedEventsCount", "dropped_events_count"),
            ("DroppedLinksCount", "dropped_links_count"),
        ] {
            field(text, label, span.number(name).to_string().as_bytes());
        }
        text.list("Attributes", 0, &span, "attributes");
        events(text, &span);
        links(text, &span);
    }
}

fn field(text: &mut Text<'_>, label: &str, value: &[u8]) {
    text.line(&format!("    {label:<15}"), value);
}

fn events(text: &mut Text<'_>, span: &View<'_>) {
    for (i, event) in span.messages("events").enumerate() {
        if i == 0 {
            text.put(format_args!("Events:\n"));
        }
        text.put(format_args!("SpanEvent #{i}\n"));
        text.line("     -> Name", event.bytes("name"));
        text.time("     -> Timestamp", event.number("time_unix_nano"));
        dropped_and_attributes(text, &event);
    }
}

fn links(text: &mut Text<'_>, span: &View<'_>) {
    for (i, link) in span.messages("links").enumerate() {
        if i == 0 {
            text.put(format_args!("Links:\n"));
        }
        text.put(format_args!("SpanLink #{i}\n"));
        text.id("     -> Trace ID", link.bytes("trace_id"));
        text.id("     -> ID", link.bytes("span_id"));
        text.line("     -> TraceState", link.bytes("trace_state"));
        dropped_and_attributes(text, &link);
    }
}

fn dropped_and_attributes(text: &mut Text<'_>, of: &View<'_>) {
    let dropped = of.number("dropped_attributes_count");
    text.put(format_args!("     -> DroppedAttributesCount: {dropped}\n"));
    // The second colon is the collector's.
    text.list("     -> Attributes:", 5, of, "attributes");
}
