//! Single items of a request, with what is around them, for people to look at.

use std::ops::Range;

use super::schema::{self, Kind, Message, Role};
use super::split::{count, heading};
use super::value::merged;
use super::wire::{Fields, Open, Raw, put_bytes, varint_len};
use super::{Encoded, json};
use crate::Signal;
use crate::json_text;

/// How much of an item is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PickLimits {
    /// Bytes of one text, or of bytes that are no text.
    pub text_bytes: usize,
    /// Bytes of the item, its scope and its resource together, as protobuf and nearly: what is begun
    /// when they are used up has its frame, and is empty.
    pub bytes: usize,
}

/// One log record, data point or span by itself, its scope and its resource.
#[derive(Clone, Debug)]
pub struct Picked {
    signal: Signal,
    /// `ResourceLogs` and the like without scopes.
    resource: Vec<u8>,
    /// `ScopeLogs` and the like without items.
    scope: Vec<u8>,
    /// `LogRecord`, `Span`, or `Metric` with one point.
    item: Vec<u8>,
    cut: bool,
}

impl Picked {
    /// True if something was left out for [`PickLimits`].
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Appends members of a JSON object, separated by commas, in the names of OTLP/JSON: `resource` and
    /// `scope`; `resourceSchemaUrl` and `scopeSchemaUrl` if they are set; and `logRecord`, `span`, or
    /// `metric` with the one point.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"resource\":");
        json::object(&schema::RESOURCE, &merged(&self.resource, 1), out);
        schema_url("resourceSchemaUrl", &self.resource, out);
        out.extend_from_slice(b",\"scope\":");
        json::object(&schema::SCOPE, &merged(&self.scope, 1), out);
        schema_url("scopeSchemaUrl", &self.scope, out);
        let (name, message) = match self.signal {
            Signal::Logs => ("logRecord", &schema::LOG_RECORD),
            Signal::Metrics => ("metric", &schema::METRIC),
            Signal::Traces => ("span", &schema::SPAN),
        };
        out.extend_from_slice(format!(",\"{name}\":").as_bytes());
        json::object(message, &self.item, out);
    }
}

/// Appends the text in field 3 of `buf`, if there is one.
fn schema_url(name: &str, buf: &[u8], out: &mut Vec<u8>) {
    let url = |f| match f {
        (3, Raw::Len(from, to)) if from < to => Some(&buf[from..to]),
        _ => None,
    };
    if let Some(url) = Fields::new(buf, 0).filter_map(url).last() {
        out.extend_from_slice(format!(",\"{name}\":").as_bytes());
        json_text::string(url, out);
    }
}

impl Encoded {
    /// The items with the numbers `wanted`, from 0 on, which are in order. In one pass, which stops at the
    /// last of them; only what is kept is copied. Numbers that there are not give nothing.
    pub fn pick(&self, wanted: &[usize], limits: PickLimits) -> Vec<Picked> {
        let mut picker = Picker {
            signal: self.signal(),
            wanted,
            limits,
            at: 0,
            levels: Vec::new(),
            data: 0,
            picked: Vec::new(),
        };
        let root = schema::request(self.signal());
        for chunk in self.parts() {
            if !picker.wants(chunk.items) {
                picker.at += chunk.items;
                continue;
            }
            picker.message(root, &chunk.body);
        }
        picker.picked
    }
}

struct Picker<'w> {
    signal: Signal,
    /// What is still to come.
    wanted: &'w [usize],
    limits: PickLimits,
    /// The number of the next item.
    at: usize,
    /// Of the messages around: which, and what it has besides items.
    levels: Vec<(&'static Message, Vec<u8>)>,
    /// Of the metric around: the number of its data.
    data: u32,
    picked: Vec<Picked>,
}

impl Picker<'_> {
    /// Whether one of the next `n` items is wanted.
    fn wants(&self, n: usize) -> bool {
        self.wanted.first().is_some_and(|next| *next < self.at + n)
    }

    fn message(&mut self, message: &'static Message, buf: &[u8]) {
        if message.role == Role::Metric {
            return self.metric(message, buf);
        }
        for (number, raw) in Fields::new(buf, 0) {
            if self.wanted.is_empty() {
                return;
            }
            let (Some(inner), Raw::Len(from, to)) = (message.towards_items(number), raw) else {
                continue;
            };
            let body = &buf[from..to];
            if inner.role == Role::Item {
                self.item(body);
                continue;
            }
            let items = count(inner, body);
            if !self.wants(items) {
                self.at += items;
                continue;
            }
            self.levels.push((inner, heading(inner, body)));
            self.message(inner, body);
            self.levels.pop();
        }
    }

    /// The data given last is what a metric has.
    fn metric(&mut self, message: &'static Message, buf: &[u8]) {
        let mut number = 0;
        let mut data: Vec<Range<usize>> = Vec::new();
        for field in Fields::new(buf, 0) {
            if let (n, Raw::Len(from, to)) = field
                && message.towards_items(n).is_some()
            {
                if n != number {
                    (number, data) = (n, Vec::new());
                }
                data.push(from..to);
            }
        }
        let Some(inner) = message.towards_items(number) else {
            return;
        };
        self.data = number;
        let headings = data.iter().map(|r| heading(inner, &buf[r.clone()]));
        self.levels
            .push((inner, headings.collect::<Vec<_>>().concat()));
        for range in data {
            self.message(inner, &buf[range]);
        }
        self.levels.pop();
    }

    fn item(&mut self, item: &[u8]) {
        let number = self.at;
        self.at += 1;
        if self.wanted.first() != Some(&number) {
            return;
        }
        self.wanted = &self.wanted[1..];
        let mut shrink = Shrink {
            text_max: self.limits.text_bytes,
            room: self.limits.bytes,
            cut: false,
        };
        let mut kept = Vec::new();
        let message = match self.signal {
            Signal::Logs => &schema::LOG_RECORD,
            Signal::Traces => &schema::SPAN,
            Signal::Metrics => &schema::METRIC,
        };
        match &self.levels[..] {
            [.., (_, metric), (data, around)] if self.signal == Signal::Metrics => {
                let data: &'static Message = data;
                shrink.message(message, metric, &mut kept);
                let open = Open::field(&mut kept, self.data, 2);
                shrink.message(data, around, &mut kept);
                if let Some(point) = data.towards_items(1) {
                    let open = Open::field(&mut kept, 1, 2);
                    shrink.message(point, item, &mut kept);
                    open.close(&mut kept);
                }
                open.close(&mut kept);
            }
            _ => shrink.message(message, item, &mut kept),
        }
        let mut around = |level: usize| {
            let mut kept = Vec::new();
            if let Some((message, heading)) = self.levels.get(level) {
                let message: &'static Message = message;
                shrink.message(message, heading, &mut kept);
            }
            kept
        };
        let (scope, resource) = (around(1), around(0));
        self.picked.push(Picked {
            signal: self.signal,
            resource,
            scope,
            item: kept,
            cut: shrink.cut,
        });
    }
}

/// Stands where a text was cut.
const CUT: &str = "\u{2026}";

/// Copies messages as far as there is room.
struct Shrink {
    text_max: usize,
    room: usize,
    cut: bool,
}

impl Shrink {
    /// Appends the fields of `buf`, a message, that are known, as far as they fit.
    fn message(&mut self, message: &'static Message, buf: &[u8], out: &mut Vec<u8>) {
        let mut fields = Fields::new(buf, 0);
        loop {
            let begin = fields.at();
            let Some((number, raw)) = fields.next() else {
                return;
            };
            let Some(field) = message.field(number) else {
                continue;
            };
            if self.room == 0 {
                self.cut = true;
                return;
            }
            let before = out.len();
            match (field.kind, raw) {
                (Kind::Message(inner, _), Raw::Len(from, to)) => {
                    // What is in it takes its own room.
                    self.room = self.room.saturating_sub(2);
                    let open = Open::field(out, number, varint_len((to - from) as u64).min(5));
                    self.message(inner, &buf[from..to], out);
                    open.close(out);
                    continue;
                }
                (Kind::Str, Raw::Len(from, to)) => self.text(number, &buf[from..to], out),
                (Kind::Bytes, Raw::Len(from, to)) => {
                    let max = self.text_max.min(self.room).min(to - from);
                    self.cut |= max < to - from;
                    put_bytes(out, number, &buf[from..from + max]);
                }
                // Ids, and numbers side by side.
                (_, Raw::Len(from, to)) if to - from > self.room => self.cut = true,
                _ => out.extend_from_slice(&buf[begin..fields.at()]),
            }
            self.room = self.room.saturating_sub(out.len() - before);
        }
    }

    fn text(&mut self, number: u32, bytes: &[u8], out: &mut Vec<u8>) {
        let max = self.text_max.min(self.room);
        if bytes.len() <= max {
            return put_bytes(out, number, bytes);
        }
        self.cut = true;
        let text = String::from_utf8_lossy(&bytes[..max]);
        // A part of a character is none.
        let whole = text.trim_end_matches('\u{fffd}');
        put_bytes(out, number, format!("{whole}{CUT}").as_bytes());
    }
}
