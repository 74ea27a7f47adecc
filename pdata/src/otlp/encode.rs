//! Log records to protobuf, straight from columns.

use std::borrow::Cow;
use std::ops::Range;

use super::Encoded;
use super::value::{put_map, put_pair, put_value};
use super::wire::{Open, put_bytes, put_i32, put_i64, put_number};
use crate::column::Column;
use crate::logs::LogsBatch;
use crate::value::{Map, ValueRef};

/// Appends `batch` as one `resource_logs` field, or as several if rows have resources of their own. A
/// batch without rows is nothing.
///
/// Times before 1970 are unset. Text that is not UTF-8 (receivers can be told to keep it) becomes
/// `bytes_value`; as a name or severity text its bad bytes become U+FFFD.
pub fn encode_logs(batch: &LogsBatch, out: &mut Vec<u8>) {
    if batch.is_empty() {
        return;
    }
    if !batch.resource_rows.is_empty() {
        for part in batch.clone().split_by_resource() {
            encode_logs(&part, out);
        }
        return;
    }
    resource_logs(batch, &batch.resource, out, |out| records(batch, out));
}

/// Appends a `resource_logs` field of `resource` and the scope of `batch`, with the records that `records`
/// appends.
fn resource_logs(
    batch: &LogsBatch,
    attributes: &Map,
    out: &mut Vec<u8>,
    records: impl FnOnce(&mut Vec<u8>),
) {
    // Most of a batch is its text; four bytes of length are for 2 MiB and more.
    let width = if batch.text.heap_bytes() < 1 << 20 {
        3
    } else {
        4
    };
    let resource_logs = Open::field(out, 1, width);
    let rest = batch.otlp.as_deref().map(|o| &*o.resource);
    let resource = Open::field(out, 1, 2);
    put_map(out, 1, attributes);
    if let Some(rest) = rest {
        put_unless_zero(out, 2, rest.dropped_attributes);
        out.extend_from_slice(&rest.entity_refs);
    }
    resource.close(out);
    let scope_logs = Open::field(out, 2, width);
    scope(batch, out);
    records(out);
    put_text(out, 3, batch.scope.schema_url.as_bytes());
    scope_logs.close(out);
    put_text(out, 3, rest.map_or(&[], |r| r.schema_url.as_bytes()));
    resource_logs.close(out);
}

impl Encoded {
    /// Log records as a request.
    pub fn from_logs<'a>(batches: impl IntoIterator<Item = &'a LogsBatch>) -> Encoded {
        let (mut out, mut items) = (Vec::new(), 0);
        for batch in batches {
            encode_logs(batch, &mut out);
            items += batch.rows();
        }
        Encoded::known(crate::Signal::Logs, out.into(), items)
    }

    /// A few records of a batch as a request. Costs what they cost, however large the batch is.
    ///
    /// # Panics
    /// The batch has no such row.
    pub fn from_rows(batch: &LogsBatch, rows: &[usize]) -> Encoded {
        let mut out = Vec::new();
        let record = |row: usize, out: &mut Vec<u8>| {
            let open = Open::field(out, 2, 2);
            head(batch, row, out);
            for (key, column) in batch.attributes.iter() {
                if let Some(value) = batch.value(column, row) {
                    put_pair(out, 6, key, value);
                }
            }
            tail(batch, row, out);
            open.close(out);
        };
        if batch.resource_rows.is_empty() {
            resource_logs(batch, &batch.resource, &mut out, |out| {
                rows.iter().for_each(|row| record(*row, out));
            });
        } else {
            for row in rows {
                resource_logs(batch, &batch.resource_of(*row), &mut out, |out| {
                    record(*row, out);
                });
            }
        }
        Encoded::known(crate::Signal::Logs, out.into(), rows.len())
    }
}

fn put_unless_zero(out: &mut Vec<u8>, number: u32, value: u32) {
    if value != 0 {
        put_number(out, number, value.into());
    }
}

/// Appends a `string`, unless it is empty.
fn put_text(out: &mut Vec<u8>, number: u32, text: &[u8]) {
    if !text.is_empty() {
        put_bytes(out, number, utf8(text).as_bytes());
    }
}

fn utf8(text: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(text)
}

fn scope(batch: &LogsBatch, out: &mut Vec<u8>) {
    let scope = &*batch.scope;
    let open = Open::field(out, 1, 1);
    put_text(out, 1, scope.name.as_bytes());
    put_text(out, 2, scope.version.as_bytes());
    put_map(out, 3, &scope.attributes);
    put_unless_zero(out, 4, scope.dropped_attributes);
    open.close(out);
}

/// A column of attributes with what is the same in many rows encoded once.
struct Attribute<'a> {
    key: &'a str,
    column: &'a Column,
    /// Where the constant, or each value of the dictionary, is.
    encoded: Vec<Range<usize>>,
}

/// Gives the columns, and what they point into.
fn attributes(batch: &LogsBatch) -> (Vec<Attribute<'_>>, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut encode = |key: &str, value: ValueRef<'_>| {
        let from = bytes.len();
        put_pair(&mut bytes, 6, key, value);
        from..bytes.len()
    };
    let columns = batch.attributes.iter().map(|(key, column)| Attribute {
        key,
        column,
        encoded: match column {
            Column::Const(v) => vec![encode(key, v.as_ref())],
            Column::Dict { values, .. } => values.iter().map(|v| encode(key, v.as_ref())).collect(),
            Column::Slices(_) | Column::Cells(_) => Vec::new(),
        },
    });
    (columns.collect(), bytes)
}

fn records(batch: &LogsBatch, out: &mut Vec<u8>) {
    let (attributes, encoded) = attributes(batch);
    // Records of a batch are alike, so the length of the last says how wide that of the next is.
    let mut width = 2;
    for row in 0..batch.rows() {
        let open = Open::field(out, 2, width);
        head(batch, row, out);
        for a in &attributes {
            let known = match a.column {
                Column::Const(_) => a.encoded.first(),
                Column::Dict { codes, .. } => a.encoded.get(usize::from(codes[row])),
                column => {
                    if let Some(value) = batch.value(column, row) {
                        put_pair(out, 6, a.key, value);
                    }
                    None
                }
            };
            if let Some(range) = known {
                out.extend_from_slice(&encoded[range.clone()]);
            }
        }
        tail(batch, row, out);
        width = open.close(out);
    }
}

/// The fields before the attributes.
fn head(batch: &LogsBatch, row: usize, out: &mut Vec<u8>) {
    put_time(out, 1, batch.time.get(row));
    put_unless_zero(out, 2, batch.severity.get(row).into());
    if let Some(text) = batch.severity_text(row) {
        match text {
            ValueRef::Str(s) => put_text(out, 3, s),
            other => put_text(out, 3, other.to_display_string().as_bytes()),
        }
    }
    if let Some(body) = batch.body(row) {
        put_value(out, 5, body);
    }
}

/// The fields behind the attributes.
fn tail(batch: &LogsBatch, row: usize, out: &mut Vec<u8>) {
    put_unless_zero(out, 7, batch.dropped_attributes(row));
    if let Some(trace) = &batch.trace {
        if trace.flags[row] != 0 {
            put_i32(out, 8, trace.flags[row]);
        }
        put_id(out, 9, &trace.trace_id[row]);
        put_id(out, 10, &trace.span_id[row]);
    }
    put_time(out, 11, batch.observed.get(row));
    put_text(out, 12, batch.event_name(row).unwrap_or_default());
}

fn put_time(out: &mut Vec<u8>, number: u32, time: i64) {
    if time > 0 {
        put_i64(out, number, time as u64);
    }
}

fn put_id(out: &mut Vec<u8>, number: u32, id: &[u8]) {
    if id.iter().any(|&b| b != 0) {
        put_bytes(out, number, id);
    }
}
