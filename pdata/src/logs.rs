//! [`LogsBatch`]: the unit of log data.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use crate::column::{Cell, Column, Columns};
use crate::text::{Slice, Text};
use crate::value::{Map, Value, ValueRef};

/// Nanoseconds since the Unix epoch, for all rows or one per row. 0 means unset.
#[derive(Clone, Debug, PartialEq)]
pub enum Times {
    /// The same for every row.
    Const(i64),
    /// One per row.
    Each(Vec<i64>),
}

impl Times {
    /// The time of `row` in ns since the epoch, 0 = unset.
    #[inline]
    pub fn get(&self, row: usize) -> i64 {
        match self {
            Times::Const(t) => *t,
            Times::Each(v) => v[row],
        }
    }

    /// One slot per row, to write into.
    pub fn each_mut(&mut self, rows: usize) -> &mut Vec<i64> {
        if let Times::Const(t) = *self {
            *self = Times::Each(vec![t; rows]);
        }
        match self {
            Times::Each(v) => v,
            Times::Const(_) => unreachable!("made one per row above"),
        }
    }
}

/// OTLP severity numbers (0 = unspecified, 1..=24), for all rows or one per row.
#[derive(Clone, Debug, PartialEq)]
pub enum Severities {
    /// The same for every row.
    Const(u8),
    /// One per row.
    Each(Vec<u8>),
}

impl Severities {
    /// The severity number of `row`.
    #[inline]
    pub fn get(&self, row: usize) -> u8 {
        match self {
            Severities::Const(s) => *s,
            Severities::Each(v) => v[row],
        }
    }

    /// One slot per row, to write into.
    pub fn each_mut(&mut self, rows: usize) -> &mut Vec<u8> {
        if let Severities::Const(s) = *self {
            *self = Severities::Each(vec![s; rows]);
        }
        match self {
            Severities::Each(v) => v,
            Severities::Const(_) => unreachable!("made one per row above"),
        }
    }
}

/// Trace context per row; all-zero ids mean unset, as in OTLP.
#[derive(Clone, Debug, Default)]
pub struct TraceColumns {
    /// W3C trace ids.
    pub trace_id: Vec<[u8; 16]>,
    /// W3C span ids.
    pub span_id: Vec<[u8; 8]>,
    /// W3C trace flags in the low 8 bits.
    pub flags: Vec<u32>,
}

/// The instrumentation scope of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    /// Name, may be empty.
    pub name: Arc<str>,
    /// Version, may be empty.
    pub version: Arc<str>,
    /// Attributes.
    pub attributes: Map,
    /// How many attributes whoever made the scope left out.
    pub dropped_attributes: u32,
    /// Schema of the scope and its records, may be empty.
    pub schema_url: Arc<str>,
}

/// What only log records that came by OTLP have.
#[derive(Clone, Debug, Default)]
pub struct OtlpFields {
    /// Event name of each row, [`Slice::ABSENT`] = unset. Empty if no row has one.
    pub event_name: Vec<Slice>,
    /// Attributes that were left out before each row was sent. Empty if none were.
    pub dropped_attributes: Vec<u32>,
    /// What comes with the resource, shared between batches of the same origin.
    pub resource: Arc<ResourceFields>,
}

/// What a resource has besides its attributes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResourceFields {
    /// Schema of the resource, may be empty.
    pub schema_url: Arc<str>,
    /// How many attributes whoever made the resource left out.
    pub dropped_attributes: u32,
    /// `entity_refs` of the resource as protobuf fields, as they came.
    pub entity_refs: Bytes,
}

/// Where the rows of a file batch came from.
#[derive(Clone, Debug, Default)]
pub struct SourceRows {
    /// File offset that `rel` counts from (for gzip: in decompressed bytes).
    pub base: u64,
    /// Offset of each row's first byte, relative to `base`.
    pub rel: Vec<u32>,
}

/// Log records of one resource and one scope, as columns. Rows keep the order they were read in.
///
/// Invariant: every per-row vector has exactly [`Self::rows`] elements.
#[derive(Clone, Debug)]
pub struct LogsBatch {
    pub(crate) rows: usize,
    /// The text that slices point into.
    pub text: Text,
    /// Values that do not fit a cell.
    pub(crate) values: Vec<Value>,
    /// When the event happened, from the record itself.
    pub time: Times,
    /// When the record was seen. Deterministic under replay when `time` is unset.
    pub observed: Times,
    /// Severity numbers.
    pub severity: Severities,
    /// Severity texts as found in the record; absent = unset.
    pub severity_text: Option<Column>,
    /// Bodies; an absent body is OTLP's empty value.
    pub body: Column,
    /// Record attributes.
    pub attributes: Columns,
    /// Resource attributes, shared between batches of the same origin.
    pub resource: Arc<Map>,
    /// Resource attributes that differ between rows; they hide the ones of `resource` with the
    /// same name, an absent cell hides it as removed. Only inside an operator chain; see
    /// [`LogsBatch::split_by_resource`].
    pub resource_rows: Columns,
    /// Instrumentation scope.
    pub scope: Arc<Scope>,
    /// Names of the scope where rows have their own, [`Slice::ABSENT`] = that of `scope`; empty if
    /// no row has one. Only inside an operator chain; see [`LogsBatch::split_by_resource`].
    pub scope_names: Vec<Slice>,
    /// Trace context, if any row has one.
    pub trace: Option<Box<TraceColumns>>,
    /// File offsets of the rows, if they came from a file.
    pub source: Option<SourceRows>,
    /// What is rare and came by OTLP, so that it can be passed on.
    pub otlp: Option<Box<OtlpFields>>,
}

/// What every batch begins with, shared so that a batch does not allocate them.
static NO_ATTRIBUTES: LazyLock<Arc<Map>> = LazyLock::new(Arc::default);
static NO_SCOPE: LazyLock<Arc<Scope>> = LazyLock::new(Arc::default);

impl Default for LogsBatch {
    fn default() -> Self {
        LogsBatch::from_lines(Bytes::new(), &[])
    }
}

impl LogsBatch {
    /// A batch with one text body per line; `lines` are (offset, length) in `buf`.
    pub fn from_lines(buf: Bytes, lines: &[(u32, u32)]) -> LogsBatch {
        let bodies = lines
            .iter()
            .map(|&(off, len)| Slice::shared(off, len))
            .collect();
        LogsBatch::from_slices(Text::new(buf), bodies)
    }

    /// A batch with one text body per slice of `text`.
    pub fn from_slices(text: Text, bodies: Vec<Slice>) -> LogsBatch {
        LogsBatch {
            rows: bodies.len(),
            text,
            values: Vec::new(),
            time: Times::Const(0),
            observed: Times::Const(0),
            severity: Severities::Const(0),
            severity_text: None,
            body: Column::Slices(bodies),
            attributes: Columns::default(),
            resource: NO_ATTRIBUTES.clone(),
            resource_rows: Columns::default(),
            scope: NO_SCOPE.clone(),
            scope_names: Vec::new(),
            trace: None,
            source: None,
            otlp: None,
        }
    }

    /// Number of records.
    #[inline]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// True without records.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The body of `row`; `None` is an empty body.
    #[inline]
    pub fn body(&self, row: usize) -> Option<ValueRef<'_>> {
        self.body.get(row, &self.text, &self.values)
    }

    /// The value of `column` (a column of this batch) at `row`.
    #[inline]
    pub fn value<'a>(&'a self, column: &'a Column, row: usize) -> Option<ValueRef<'a>> {
        column.get(row, &self.text, &self.values)
    }

    /// The attribute `key` of `row`.
    pub fn attribute(&self, row: usize, key: &str) -> Option<ValueRef<'_>> {
        self.attributes.get(key).and_then(|c| self.value(c, row))
    }

    /// The resource attribute `key` of `row`.
    pub fn resource_attribute(&self, row: usize, key: &str) -> Option<ValueRef<'_>> {
        match self.resource_rows.get(key) {
            Some(c) => self.value(c, row),
            None => self.resource.get(key).map(Value::as_ref),
        }
    }

    /// The severity text of `row`.
    pub fn severity_text(&self, row: usize) -> Option<ValueRef<'_>> {
        self.severity_text.as_ref().and_then(|c| self.value(c, row))
    }

    /// The name of the scope of `row`.
    pub fn scope_name(&self, row: usize) -> &[u8] {
        match self.scope_names.get(row) {
            Some(name) if !name.is_absent() => self.text.get(*name),
            _ => self.scope.name.as_bytes(),
        }
    }

    /// Sets the name of the scope of one row.
    pub fn set_scope_name(&mut self, row: usize, name: Slice) {
        if self.scope_names.is_empty() {
            self.scope_names = vec![Slice::ABSENT; self.rows];
        }
        self.scope_names[row] = name;
    }

    /// The event name of `row`.
    pub fn event_name(&self, row: usize) -> Option<&[u8]> {
        let name = *self.otlp.as_ref()?.event_name.get(row)?;
        (!name.is_absent()).then(|| self.text.get(name))
    }

    /// How many attributes were left out before `row` was sent.
    pub fn dropped_attributes(&self, row: usize) -> u32 {
        let fields = self.otlp.as_ref();
        fields
            .and_then(|o| o.dropped_attributes.get(row).copied())
            .unwrap_or(0)
    }

    /// File offset of the first byte of `row`, if it came from a file.
    pub fn source_offset(&self, row: usize) -> Option<u64> {
        self.source.as_ref().map(|s| s.base + u64::from(s.rel[row]))
    }

    /// Puts an owned value into this batch as a cell; text goes to the arena.
    pub fn cell(&mut self, value: &Value) -> Cell {
        match value {
            Value::Null => Cell::Null,
            Value::Bool(b) => Cell::Bool(*b),
            Value::Int(i) => Cell::Int(*i),
            Value::Double(d) => Cell::Double(*d),
            Value::Str(s) => Cell::Str(self.text.push(s.as_bytes())),
            Value::Bytes(_) | Value::List(_) | Value::Map(_) => self.big_cell(value.clone()),
        }
    }

    /// Puts a map, list or bytes value into the batch's table.
    pub fn big_cell(&mut self, value: Value) -> Cell {
        self.values.push(value);
        Cell::Value((self.values.len() - 1) as u32)
    }

    /// The bytes of a slice of this batch.
    #[inline]
    pub fn bytes(&self, slice: Slice) -> &[u8] {
        self.text.get(slice)
    }

    /// The table that [`Cell::Value`] indexes.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// Bytes of memory this batch pins, for budgets. An estimate within a few percent.
    pub fn heap_bytes(&self) -> usize {
        let per_row = |c: &Column| match c {
            Column::Const(_) => 0,
            Column::Dict { .. } => 1,
            Column::Slices(_) => 8,
            Column::Cells(_) => 16,
        };
        let columns = self.attributes.iter().chain(self.resource_rows.iter());
        let cells: usize =
            columns.map(|(_, c)| per_row(c)).sum::<usize>() + per_row(&self.body) + 8 + 1 + 4;
        let big: usize = self.values.iter().map(Value::heap_bytes).sum();
        self.text.heap_bytes() + cells * self.rows + big + size_of::<LogsBatch>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_resource_columns_hide_the_shared_resource() {
        let mut b = LogsBatch::from_lines(Bytes::from_static(b"ab"), &[(0, 1), (1, 1)]);
        b.resource = Arc::new([("host", "h1"), ("zone", "z")].into_iter().collect());
        let cell = b.cell(&Value::str("h2"));
        b.resource_rows
            .set("host", Column::Cells(vec![cell, Cell::Absent]));
        assert_eq!(b.resource_attribute(0, "host"), Some(ValueRef::Str(b"h2")));
        assert_eq!(b.resource_attribute(1, "host"), None);
        assert_eq!(b.resource_attribute(1, "zone"), Some(ValueRef::Str(b"z")));
    }
}
