//! Log records from protobuf: text stays where it is, the rest becomes columns.

use std::sync::Arc;

use bytes::Bytes;

use super::Encoded;
use super::columns::{Builder, Keys, Record};
use super::value::{Entries, merged, text};
use super::wire::{Fields, Raw};
use crate::Signal;
use crate::column::Cell;
use crate::logs::{LogsBatch, ResourceFields, Scope};
use crate::value::Map;

/// The records of `logs` as columns over its bytes: a batch for each resource and scope, in order.
/// Where records have little in common, a scope becomes several batches, so that columns stay in
/// proportion to what came.
///
/// What a batch holds differently from the wire:
/// - times beyond 2262 (the end of `i64`) are at that end;
/// - severity numbers beyond 255 are unset, as are trace and span ids of a wrong length or of zeros
///   alone (as OTLP says);
/// - of an attribute that comes twice in one record, resource, scope or map, the last counts;
/// - an attribute without a value is one with an empty value;
/// - fields that this build does not know, and resources and scopes without records, are not there.
///
/// # Panics
///
/// If `logs` are not logs.
pub fn decode_logs(logs: &Encoded) -> Vec<LogsBatch> {
    assert_eq!(logs.signal(), Signal::Logs, "log records");
    let mut decoder = Decoder::default();
    for chunk in logs.parts() {
        for (number, raw) in Fields::new(&chunk.body, 0) {
            if let (1, Raw::Len(from, to)) = (number, raw) {
                decoder.resource_logs(&chunk.body.slice(from..to));
            }
        }
    }
    decoder.out
}

/// Something decoded, and the bytes it was decoded from: neighbours often have the same.
struct Last<T> {
    bytes: Bytes,
    url: Bytes,
    value: T,
}

/// Attributes, and what else a resource may have.
type Resource = (Arc<Map>, Option<Arc<ResourceFields>>);

#[derive(Default)]
struct Decoder {
    out: Vec<LogsBatch>,
    keys: Keys,
    resource: Option<Last<Resource>>,
    scope: Option<Last<Arc<Scope>>>,
}

/// The one message in fields 1 of `buf`, and the text in field 3.
fn heading(buf: &Bytes) -> (Bytes, Bytes) {
    let (mut message, mut url) = (None, Bytes::new());
    for (number, raw) in Fields::new(buf, 0) {
        match (number, raw) {
            (1, Raw::Len(from, to)) => {
                message = match message {
                    None => Some(buf.slice(from..to)),
                    Some(_) => Some(Bytes::from(merged(buf, 1))),
                }
            }
            (3, Raw::Len(from, to)) => url = buf.slice(from..to),
            _ => {}
        }
    }
    (message.unwrap_or_default(), url)
}

impl Decoder {
    fn resource_logs(&mut self, buf: &Bytes) {
        let (bytes, url) = heading(buf);
        match &self.resource {
            Some(last) if last.bytes == bytes && last.url == url => {}
            _ => {
                let value = resource(&bytes, &url);
                self.resource = Some(Last { bytes, url, value });
            }
        }
        for (number, raw) in Fields::new(buf, 0) {
            if let (2, Raw::Len(from, to)) = (number, raw) {
                self.scope_logs(&buf.slice(from..to));
            }
        }
    }

    fn scope_logs(&mut self, buf: &Bytes) {
        let is_record = |f: &(u32, Raw)| matches!(f, (2, Raw::Len(..)));
        let rows = Fields::new(buf, 0).filter(is_record).count();
        if rows == 0 {
            return;
        }
        let (bytes, url) = heading(buf);
        match &self.scope {
            Some(last) if last.bytes == bytes && last.url == url => {}
            _ => {
                let value = Arc::new(scope(&bytes, &url));
                self.scope = Some(Last { bytes, url, value });
            }
        }
        let mut builder = Builder::new(buf.clone(), rows, &mut self.keys);
        let mut done = Vec::new();
        for (number, raw) in Fields::new(buf, 0) {
            if let (2, Raw::Len(from, to)) = (number, raw) {
                if builder.is_sparse() {
                    // The next one probably ends as early.
                    let rows = builder.rows();
                    done.push(builder.finish());
                    builder = Builder::new(buf.clone(), rows, &mut self.keys);
                }
                record(buf, from, to, &mut builder);
            }
        }
        done.push(builder.finish());
        for mut batch in done {
            self.label(&mut batch);
            self.out.push(batch);
        }
    }

    /// Puts resource and scope of now into a batch.
    fn label(&self, batch: &mut LogsBatch) {
        if let Some(last) = &self.resource {
            batch.resource = last.value.0.clone();
            if let Some(fields) = &last.value.1 {
                batch.otlp.get_or_insert_default().resource = fields.clone();
            }
        }
        if let Some(last) = &self.scope {
            batch.scope = last.value.clone();
        }
    }
}

fn resource(buf: &Bytes, url: &Bytes) -> Resource {
    let mut entries = Entries::default();
    entries.decode(buf, 1);
    let mut rest = ResourceFields {
        schema_url: text(url).into(),
        ..ResourceFields::default()
    };
    let mut entity_refs = Vec::new();
    let mut fields = Fields::new(buf, 0);
    loop {
        let from = fields.at();
        match fields.next() {
            Some((2, Raw::Varint(n))) => rest.dropped_attributes = n as u32,
            Some((3, Raw::Len(_, to))) => entity_refs.extend_from_slice(&buf[from..to]),
            Some(_) => {}
            None => break,
        }
    }
    rest.entity_refs = entity_refs.into();
    let rest = (rest != ResourceFields::default()).then(|| Arc::new(rest));
    (Arc::new(entries.into_map()), rest)
}

fn scope(buf: &[u8], url: &[u8]) -> Scope {
    let mut scope = Scope {
        schema_url: text(url).into(),
        ..Scope::default()
    };
    for (number, raw) in Fields::new(buf, 0) {
        match (number, raw) {
            (1, Raw::Len(from, to)) => scope.name = text(&buf[from..to]).into(),
            (2, Raw::Len(from, to)) => scope.version = text(&buf[from..to]).into(),
            (4, Raw::Varint(n)) => scope.dropped_attributes = n as u32,
            _ => {}
        }
    }
    let mut entries = Entries::default();
    entries.decode(buf, 3);
    scope.attributes = entries.into_map();
    scope
}

/// Reads the record that is `buf[from..to]` into the next row.
fn record(buf: &[u8], from: usize, to: usize, builder: &mut Builder<'_>) {
    let mut r = Record::default();
    let mut bodies = 0;
    for (number, raw) in Fields::new(&buf[..to], from) {
        match (number, raw) {
            (1, Raw::I64(t)) => r.time = time(t),
            (2, Raw::Varint(n)) => r.severity = u8::try_from(n).unwrap_or(0),
            (3, Raw::Len(from, to)) => r.severity_text = builder.slice(from, to),
            (5, Raw::Len(from, to)) => {
                bodies += 1;
                r.body = (from, to);
            }
            (6, Raw::Len(from, to)) => builder.attribute(buf, from, to),
            (7, Raw::Varint(n)) => r.dropped_attributes = n as u32,
            (8, Raw::I32(flags)) => r.flags = flags,
            (9, Raw::Len(from, to)) => r.trace_id = buf[from..to].try_into().unwrap_or_default(),
            (10, Raw::Len(from, to)) => r.span_id = buf[from..to].try_into().unwrap_or_default(),
            (11, Raw::I64(t)) => r.observed = time(t),
            (12, Raw::Len(from, to)) => r.event_name = builder.slice(from, to),
            _ => {}
        }
    }
    let body = match bodies {
        0 => Cell::Absent,
        1 => builder.value(buf, r.body),
        _ => builder.computed(&merged(&buf[from..to], 5)),
    };
    builder.end_row(&r, body);
}

fn time(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}
