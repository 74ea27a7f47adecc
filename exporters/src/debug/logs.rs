//! Log records as text.

use tailwater_pdata::otlp::edit::View;

use super::text::Text;

/// OTLP's severity numbers come in fours.
const SEVERITIES: [&str; 6] = ["Trace", "Debug", "Info", "Warn", "Error", "Fatal"];

/// A line per record.
pub(super) fn normal(text: &mut Text<'_>, scope: &View<'_>) {
    for record in scope.messages("log_records") {
        text.plain(record.value("body").as_ref());
        text.out.push(b' ');
        text.pairs(&record, "attributes", "", " ");
        text.out.push(b'\n');
    }
}

/// Every field.
pub(super) fn detailed(text: &mut Text<'_>, scope: &View<'_>) {
    for (i, record) in scope.messages("log_records").enumerate() {
        text.put(format_args!("LogRecord #{i}\n"));
        text.time(
            "ObservedTimestamp",
            record.number("observed_time_unix_nano"),
        );
        text.time("Timestamp", record.number("time_unix_nano"));
        text.line("SeverityText", record.bytes("severity_text"));
        let severity = severity(record.number("severity_number") as i32);
        text.put(format_args!("SeverityNumber: {severity}\n"));
        let event = record.bytes("event_name");
        if !event.is_empty() {
            text.line("EventName", event);
        }
        text.put(format_args!("Body: "));
        text.typed(record.value("body").as_ref());
        text.out.push(b'\n');
        text.list("Attributes", 0, &record, "attributes");
        text.id("Trace ID", record.bytes("trace_id"));
        text.id("Span ID", record.bytes("span_id"));
        text.put(format_args!("Flags: {}\n", record.number("flags")));
    }
}

/// The name and number of a severity. A number without a name has none, as in the collector.
fn severity(number: i32) -> String {
    let name = match usize::try_from(number) {
        Ok(0) => "Unspecified".into(),
        Ok(n @ 1..=24) => {
            let name = SEVERITIES[(n - 1) / 4];
            match (n - 1) % 4 {
                0 => name.into(),
                step => format!("{name}{}", step + 1),
            }
        }
        _ => String::new(),
    };
    format!("{name}({number})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_are_named() {
        for (number, expect) in [
            (0, "Unspecified(0)"),
            (1, "Trace(1)"),
            (10, "Info2(10)"),
            (17, "Error(17)"),
            (24, "Fatal4(24)"),
            (25, "(25)"),
            (-1, "(-1)"),
        ] {
            assert_eq!(severity(number), expect);
        }
    }
}
