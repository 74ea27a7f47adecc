//! The row form of one record, for places where clarity matters more than speed.

use std::sync::Arc;

use crate::column::Cell;
use crate::logs::{LogsBatch, TraceColumns};
use crate::text::Slice;
use crate::value::{Map, Value};

/// One log record with everything it owns: what tests compare, what detailed output prints.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// ns since the epoch, 0 = unset.
    pub time: i64,
    /// ns since the epoch, 0 = unset.
    pub observed: i64,
    /// OTLP severity number, 0 = unspecified.
    pub severity: u8,
    /// Severity text, empty = unset.
    pub severity_text: String,
    /// The body; `Null` = empty.
    pub body: Value,
    /// Record attributes.
    pub attributes: Map,
    /// Resource attributes.
    pub resource: Map,
    /// Name of the instrumentation scope, empty = unset.
    pub scope_name: String,
    /// Trace id, all zero = unset.
    pub trace_id: [u8; 16],
    /// Span id, all zero = unset.
    pub span_id: [u8; 8],
    /// Trace flags.
    pub flags: u32,
    /// Event name, empty = unset.
    pub event_name: String,
    /// Attributes that were left out before.
    pub dropped_attributes: u32,
}

impl LogsBatch {
    /// The record at `row` in row form.
    pub fn entry(&self, row: usize) -> Entry {
        let trace = self.trace.as_deref();
        let text = self.severity_text(row).and_then(|v| v.to_str_lossy());
        Entry {
            time: self.time.get(row),
            observed: self.observed.get(row),
            severity: self.severity.get(row),
            severity_text: text.map(|t| t.into_owned()).unwrap_or_default(),
            body: self.body(row).map(|v| v.to_value()).unwrap_or_default(),
            attributes: self.attributes_of(row),
            resource: self.resource_of(row),
            scope_name: String::from_utf8_lossy(self.scope_name(row)).into_owned(),
            trace_id: trace.map(|t| t.trace_id[row]).unwrap_or_default(),
            span_id: trace.map(|t| t.span_id[row]).unwrap_or_default(),
            flags: trace.map(|t| t.flags[row]).unwrap_or_default(),
            event_name: String::from_utf8_lossy(self.event_name(row).unwrap_or_default())
                .into_owned(),
            dropped_attributes: self.dropped_attributes(row),
        }
    }

    /// All records in row form.
    pub fn to_entries(&self) -> Vec<Entry> {
        (0..self.rows()).map(|row| self.entry(row)).collect()
    }

    /// A batch of `entries`. Their resources and the names of their scopes may differ.
    pub fn from_entries(entries: &[Entry]) -> LogsBatch {
        let n = entries.len();
        let mut b = LogsBatch::from_slices(Default::default(), vec![Slice::ABSENT; n]);
        if let Some(first) = entries.first() {
            b.resource = Arc::new(first.resource.clone());
            if !first.scope_name.is_empty() {
                Arc::make_mut(&mut b.scope).name = first.scope_name.as_str().into();
            }
        }
        for (row, e) in entries.iter().enumerate() {
            b.time.each_mut(n)[row] = e.time;
            b.observed.each_mut(n)[row] = e.observed;
            b.severity.each_mut(n)[row] = e.severity;
            if e.body != Value::Null {
                let cell = b.cell(&e.body);
                b.set_body(row, cell);
            }
            if !e.severity_text.is_empty() {
                let slice = b.text.push(e.severity_text.as_bytes());
                b.set_severity_text(row, Cell::Str(slice));
            }
            for (k, v) in e.attributes.iter() {
                let cell = b.cell(v);
                b.set_attribute(row, k, cell);
            }
            b.set_resource_of(row, &e.resource);
            if e.scope_name.as_bytes() != b.scope_name(row) {
                let name = b.text.push(e.scope_name.as_bytes());
                b.set_scope_name(row, name);
            }
            if e.trace_id != [0; 16] || e.span_id != [0; 8] || e.flags != 0 {
                let t = b.trace_mut();
                t.trace_id[row] = e.trace_id;
                t.span_id[row] = e.span_id;
                t.flags[row] = e.flags;
            }
            if !e.event_name.is_empty() {
                let name = b.text.push(e.event_name.as_bytes());
                let names = &mut b.otlp.get_or_insert_default().event_name;
                names.resize(n, Slice::ABSENT);
                names[row] = name;
            }
            if e.dropped_attributes != 0 {
                let dropped = &mut b.otlp.get_or_insert_default().dropped_attributes;
                dropped.resize(n, 0);
                dropped[row] = e.dropped_attributes;
            }
        }
        b
    }

    /// The trace columns, created with unset ids when there are none.
    pub fn trace_mut(&mut self) -> &mut TraceColumns {
        let n = self.rows;
        self.trace.get_or_insert_with(|| {
            Box::new(TraceColumns {
                trace_id: vec![[0; 16]; n],
                span_id: vec![[0; 8]; n],
                flags: vec![0; n],
            })
        })
    }

    fn set_resource_of(&mut self, row: usize, wanted: &Map) {
        if *self.resource == *wanted && self.resource_rows.is_empty() {
            return;
        }
        let current = self.resource_of(row);
        for (k, v) in wanted.iter() {
            if current.get(k) != Some(v) {
                let cell = self.cell(v);
                self.set_resource_attribute(row, k, cell);
            }
        }
        for (k, _) in current.iter() {
            if wanted.get(k).is_none() {
                self.set_resource_attribute(row, k, Cell::Absent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_the_way_through_columns() {
        let a = Entry {
            time: 5,
            severity: 9,
            severity_text: "INFO".into(),
            body: "hello".into(),
            attributes: [("n", Value::Int(1)), ("l", Value::List(vec![Value::Null]))]
                .into_iter()
                .collect(),
            resource: [("host", "a")].into_iter().collect(),
            ..Entry::default()
        };
        let b = Entry {
            body: Value::Map([("k", 1.5)].into_iter().collect()),
            attributes: [("other", true)].into_iter().collect(),
            resource: [("zone", "b")].into_iter().collect(),
            trace_id: [1; 16],
            ..Entry::default()
        };
        let batch = LogsBatch::from_entries(&[a.clone(), b.clone()]);
        assert_eq!(batch.to_entries(), [a.clone(), b.clone()]);
        let parts = batch.split_by_resource();
        assert_eq!(
            parts
                .iter()
                .flat_map(|p| p.to_entries())
                .collect::<Vec<_>>(),
            [a, b]
        );
    }
}
