//! One event to one line, in the collector's console or JSON form.

use std::fmt::Debug;
use std::ops::Range;

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::redact::{REDACTED, is_secret_name, without_credentials};
use crate::json_text::{json_f64, json_string, push_escaped, push_json_string};
use crate::time_text::iso8601_millis;

/// Bytes of a message or a field's value that are written; what is longer is cut.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// The form of a line (`service::telemetry::logs::encoding`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Columns with tabs between them, for people.
    #[default]
    Console,
    /// One JSON object per line.
    Json,
}

/// A finished line with its newline.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub text: String,
    /// Where the level stands, for outputs that colour it.
    pub level_at: Range<usize>,
    pub level: Level,
}

/// The collector's word for a level; `trace` is below its lowest.
fn level_word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        _ => "debug",
    }
}

/// Collects the message and the fields (each as a JSON name and value) of an event.
#[derive(Default)]
struct Fields {
    message: String,
    pairs: String,
}

impl Fields {
    fn push(&mut self, name: &str, json: &str) {
        if !self.pairs.is_empty() {
            self.pairs.push_str(", ");
        }
        push_json_string(&mut self.pairs, name);
        self.pairs.push_str(": ");
        self.pairs.push_str(json);
    }

    fn push_text(&mut self, name: &str, text: &str) {
        let text = without_credentials(cut(text));
        if name == "message" {
            self.message = text.into_owned();
        } else if is_secret_name(name) {
            self.push(name, &json_string(REDACTED));
        } else {
            self.push(name, &json_string(&text));
        }
    }

    fn push_number(&mut self, name: &str, json: &str) {
        let secret = is_secret_name(name);
        let hidden = json_string(REDACTED);
        self.push(name, if secret { &hidden } else { json });
    }
}

/// `text`, or its beginning when it is too long.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.push_text(field.name(), &format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push_text(field.name(), value);
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        self.push_text(field.name(), &text);
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push_number(field.name(), &value.to_string());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push_number(field.name(), &value.to_string());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push_number(field.name(), if value { "true" } else { "false" });
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push_number(field.name(), &json_f64(value));
    }
}

/// What a line is made of besides the event.
pub(crate) struct Frame<'a> {
    pub encoding: Encoding,
    pub unix_ns: i64,
    /// Whether the place in the code is shown.
    pub caller: bool,
    /// Constant fields, name and JSON value.
    pub initial: &'a [(String, String)],
    /// Lines of the same place that were left out before this one.
    pub suppressed: u64,
}

/// The line of an event.
pub(crate) fn encode_event(event: &Event<'_>, frame: &Frame<'_>) -> Line {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let meta = event.metadata();
    encode(*meta.level(), &caller_of(meta), fields, frame)
}

/// The line that reports lines left out at `meta`.
pub(crate) fn encode_suppressed(
    meta: &tracing::Metadata<'_>,
    lines: u64,
    frame: &Frame<'_>,
) -> Line {
    let mut fields = Fields {
        message: "Similar log lines were left out.".into(),
        ..Fields::default()
    };
    fields.push("suppressed_lines", &lines.to_string());
    encode(*meta.level(), &caller_of(meta), fields, frame)
}

/// The place in the code, as `file:line`, or the module where that is not known.
fn caller_of(meta: &tracing::Metadata<'_>) -> String {
    match (meta.file(), meta.line()) {
        (Some(file), Some(line)) => {
            // Only the last two parts: whole paths say where it was compiled, not what it is.
            let mut parts = file.rmatch_indices('/').map(|(at, _)| at + 1);
            let from = parts.nth(1).unwrap_or(0);
            format!("{}:{line}", &file[from..])
        }
        _ => meta.target().to_owned(),
    }
}

fn encode(level: Level, caller: &str, mut fields: Fields, frame: &Frame<'_>) -> Line {
    for (name, json) in frame.initial {
        fields.push_number(name, json);
    }
    if frame.suppressed > 0 {
        fields.push("suppressed_lines", &frame.suppressed.to_string());
    }
    let time = iso8601_millis(frame.unix_ns);
    let word = level_word(level);
    let mut text = String::with_capacity(96 + fields.message.len() + fields.pairs.len());
    let start = match frame.encoding {
        Encoding::Console => {
            text.push_str(&time);
            text.push('\t');
            text.len()
        }
        Encoding::Json => {
            text.push_str("{\"level\":\"");
            text.len()
        }
    };
    text.push_str(word);
    let level_at = start..text.len();
    match frame.encoding {
        Encoding::Console => {
            if frame.caller {
                text.push('\t');
                text.push_str(caller);
            }
            text.push('\t');
            push_escaped(&mut text, &fields.message, false);
            if !fields.pairs.is_empty() {
                text.push_str("\t{");
                text.push_str(&fields.pairs);
                text.push('}');
            }
        }
        Encoding::Json => {
            text.push_str("\",\"ts\":\"");
            text.push_str(&time);
            text.push('"');
            if frame.caller {
                text.push_str(",\"caller\":");
                push_json_string(&mut text, caller);
            }
            text.push_str(",\"msg\":");
            push_json_string(&mut text, &fields.message);
            if !fields.pairs.is_empty() {
                text.push(',');
                text.push_str(&fields.pairs);
            }
            text.push('}');
        }
    }
    text.push('\n');
    Line {
        text,
        level_at,
        level,
    }
}
