//! Columns that grow row by row while records are decoded.

use std::collections::HashMap;

use bytes::Bytes;

use super::value::{self, KeyValue, text};
use super::wire::{Fields, Raw};
use crate::column::{Cell, Column, Columns, Key};
use crate::logs::{LogsBatch, Severities, Times, TraceColumns};
use crate::text::{Slice, Text};
use crate::value::Value;

/// Room that a column gets at once, in rows: more only comes with more records.
const ROWS_AHEAD: usize = 4096;
/// Columns of attributes that get that room. The others grow as they are filled.
const COLUMNS_AHEAD: usize = 16;
/// Up to this number of columns a key is looked for in all of them, beyond by hashing.
const COLUMNS_FEW: usize = 32;
/// Cells of all columns for each attribute that came, beyond which a batch is ended: records that
/// have hardly a key in common would take rows times columns.
pub(super) const CELLS_PER_ATTRIBUTE: usize = 16;
/// Cells that a batch may have in any case.
const CELLS_FREE: usize = 1024;

/// Names of columns of the batch before; the next one has mostly the same.
#[derive(Default)]
pub(super) struct Keys(Vec<Key>);

impl Keys {
    /// `key` as the name of column `i`.
    fn of(&mut self, i: usize, key: &[u8]) -> Key {
        match self.0.get(i) {
            Some(known) if known.as_bytes() == key => known.clone(),
            _ => {
                let new = Key::from(text(key));
                match self.0.get_mut(i) {
                    Some(slot) => *slot = new.clone(),
                    None => self.0.push(new.clone()),
                }
                new
            }
        }
    }
}

/// What one record has besides body and attributes.
pub(super) struct Record {
    pub time: i64,
    pub observed: i64,
    pub severity: u8,
    pub severity_text: Slice,
    /// Where its body is.
    pub body: (usize, usize),
    pub dropped_attributes: u32,
    pub flags: u32,
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub event_name: Slice,
}

impl Default for Record {
    fn default() -> Record {
        Record {
            time: 0,
            observed: 0,
            severity: 0,
            severity_text: Slice::ABSENT,
            body: (0, 0),
            dropped_attributes: 0,
            flags: 0,
            trace_id: [0; 16],
            span_id: [0; 8],
            event_name: Slice::ABSENT,
        }
    }
}

/// A value per row, of which most batches have only one.
struct Each<T> {
    all: T,
    each: Vec<T>,
}

impl<T: Copy + PartialEq> Each<T> {
    fn new(all: T) -> Each<T> {
        Each {
            all,
            each: Vec::new(),
        }
    }

    /// Adds `value` as that of `row`, the next one.
    #[inline]
    fn push(&mut self, row: usize, ahead: usize, value: T) {
        if !self.each.is_empty() {
            self.each.push(value);
        } else if row == 0 {
            self.all = value;
        } else if self.all != value {
            self.each.reserve(ahead);
            self.each.resize(row, self.all);
            self.each.push(value);
        }
    }
}

/// Text per row, until something else comes.
enum Cells {
    Text(Vec<Slice>),
    Any(Vec<Cell>),
}

impl Cells {
    fn new(ahead: usize) -> Cells {
        Cells::Text(Vec::with_capacity(ahead))
    }

    /// Sets the cell of `row`, the last one or the next one; rows between are absent.
    #[inline]
    fn set(&mut self, row: usize, cell: Cell) {
        match (&mut *self, cell) {
            (Cells::Text(v), Cell::Str(s)) => {
                v.resize(row, Slice::ABSENT);
                v.push(s);
            }
            (Cells::Any(v), cell) => {
                v.resize(row, Cell::Absent);
                v.push(cell);
            }
            (Cells::Text(v), cell) => {
                let mut cells = Vec::with_capacity(v.capacity());
                let wider = |s: &Slice| match s.is_absent() {
                    true => Cell::Absent,
                    false => Cell::Str(*s),
                };
                cells.extend(v.iter().map(wider));
                cells.resize(row, Cell::Absent);
                cells.push(cell);
                *self = Cells::Any(cells);
            }
        }
    }

    fn finish(self, rows: usize) -> Column {
        match self {
            Cells::Text(mut v) => {
                v.resize(rows, Slice::ABSENT);
                Column::Slices(v)
            }
            Cells::Any(mut v) => {
                v.resize(rows, Cell::Absent);
                Column::Cells(v)
            }
        }
    }
}

/// A batch that is being filled.
pub(super) struct Builder<'k> {
    keys: &'k mut Keys,
    batch: LogsBatch,
    source: Bytes,
    row: usize,
    /// Rows to make room for.
    ahead: usize,
    time: Each<i64>,
    observed: Each<i64>,
    severity: Each<u8>,
    body: Cells,
    severity_text: Option<Cells>,
    columns: Vec<(Key, Cells)>,
    index: HashMap<Key, usize>,
    /// The column that the next attribute probably belongs to.
    expected: usize,
    /// Attributes so far.
    attributes: usize,
}

impl<'k> Builder<'k> {
    /// A batch over `source`, of probably so many rows.
    pub fn new(source: Bytes, rows: usize, keys: &'k mut Keys) -> Builder<'k> {
        let ahead = rows.min(ROWS_AHEAD);
        Builder {
            keys,
            batch: LogsBatch::from_slices(Text::new(source.clone()), Vec::new()),
            source,
            row: 0,
            ahead,
            time: Each::new(0),
            observed: Each::new(0),
            severity: Each::new(0),
            body: Cells::new(ahead),
            severity_text: None,
            columns: Vec::new(),
            index: HashMap::new(),
            expected: 0,
            attributes: 0,
        }
    }

    /// True if the columns are so empty that the batch had better end.
    pub fn is_sparse(&self) -> bool {
        self.columns.len() * (self.row + 1) > self.attributes * CELLS_PER_ATTRIBUTE + CELLS_FREE
    }

    /// Text of the message as a slice; empty text is none.
    pub fn slice(&self, from: usize, to: usize) -> Slice {
        match to - from {
            0 => Slice::ABSENT,
            len => Slice::shared(from as u32, len as u32),
        }
    }

    /// The `AnyValue` that is `buf[start..end]` as a cell.
    #[inline]
    pub fn value(&mut self, buf: &[u8], (start, end): (usize, usize)) -> Cell {
        let mut cell = Cell::Null;
        for (number, raw) in Fields::new(&buf[..end], start) {
            cell = match (number, raw) {
                (1, Raw::Len(from, to)) => {
                    Cell::Str(Slice::shared(from as u32, (to - from) as u32))
                }
                (2, Raw::Varint(v)) => Cell::Bool(v != 0),
                (3, Raw::Varint(v)) => Cell::Int(v as i64),
                (4, Raw::I64(v)) => Cell::Double(f64::from_bits(v)),
                (7, Raw::Len(from, to)) if to == end => {
                    let bytes = self.source.slice(from..to);
                    self.batch.big_cell(Value::Bytes(bytes))
                }
                (5..=7, _) => return self.computed(&buf[start..end]),
                _ => cell,
            };
        }
        cell
    }

    /// An `AnyValue` that is not a plain one of the message as a cell.
    #[cold]
    pub fn computed(&mut self, buf: &[u8]) -> Cell {
        let value = value::decode(buf);
        self.batch.cell(&value)
    }

    /// Adds the attribute that is the `KeyValue` `buf[from..to]` to the row.
    #[inline]
    pub fn attribute(&mut self, buf: &[u8], from: usize, to: usize) {
        let pair = KeyValue::of(buf, from, to);
        let cell = match pair.value_range() {
            Some(range) => self.value(buf, range),
            None => pair.with_value(buf, |value| self.computed(value)),
        };
        let i = self.column(pair.key(buf));
        self.columns[i].1.set(self.row, cell);
        self.expected = i + 1;
        self.attributes += 1;
    }

    /// The column `key`, a new one if there is none.
    #[inline]
    fn column(&mut self, key: &[u8]) -> usize {
        match self.columns.get(self.expected) {
            Some((name, _)) if name.as_bytes() == key => self.expected,
            _ => self.find(key),
        }
    }

    fn find(&mut self, key: &[u8]) -> usize {
        let found = if self.columns.len() <= COLUMNS_FEW {
            let mut names = self.columns.iter();
            names.position(|(name, _)| name.as_bytes() == key)
        } else {
            if self.index.is_empty() {
                let names = self.columns.iter().enumerate();
                self.index = names.map(|(i, (name, _))| (name.clone(), i)).collect();
            }
            self.index.get(&*text(key)).copied()
        };
        found.unwrap_or_else(|| {
            let i = self.columns.len();
            let name = self.keys.of(i, key);
            if !self.index.is_empty() {
                self.index.insert(name.clone(), i);
            }
            let ahead = if i < COLUMNS_AHEAD { self.ahead } else { 0 };
            self.columns.push((name, Cells::new(ahead)));
            i
        })
    }

    /// Ends the row.
    pub fn end_row(&mut self, record: &Record, body: Cell) {
        let (row, ahead) = (self.row, self.ahead);
        self.time.push(row, ahead, record.time);
        self.observed.push(row, ahead, record.observed);
        self.severity.push(row, ahead, record.severity);
        if body != Cell::Absent {
            self.body.set(row, body);
        }
        if !record.severity_text.is_absent() {
            let texts = self.severity_text.get_or_insert_with(|| Cells::new(ahead));
            texts.set(row, Cell::Str(record.severity_text));
        }
        if record.trace_id != [0; 16] || record.span_id != [0; 8] || record.flags != 0 {
            let trace = self.batch.trace.get_or_insert_with(|| {
                Box::new(TraceColumns {
                    trace_id: Vec::with_capacity(ahead),
                    span_id: Vec::with_capacity(ahead),
                    flags: Vec::with_capacity(ahead),
                })
            });
            put(&mut trace.trace_id, row, record.trace_id, [0; 16]);
            put(&mut trace.span_id, row, record.span_id, [0; 8]);
            put(&mut trace.flags, row, record.flags, 0);
        }
        if record.dropped_attributes != 0 {
            let dropped = &mut self.batch.otlp.get_or_insert_default().dropped_attributes;
            put(dropped, row, record.dropped_attributes, 0);
        }
        if !record.event_name.is_absent() {
            let names = &mut self.batch.otlp.get_or_insert_default().event_name;
            put(names, row, record.event_name, Slice::ABSENT);
        }
        self.row += 1;
        self.expected = 0;
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.row
    }

    /// The batch.
    pub fn finish(self) -> LogsBatch {
        let rows = self.row;
        let mut batch = self.batch;
        batch.rows = rows;
        batch.time = match self.time.each.is_empty() {
            true => Times::Const(self.time.all),
            false => Times::Each(self.time.each),
        };
        batch.observed = match self.observed.each.is_empty() {
            true => Times::Const(self.observed.all),
            false => Times::Each(self.observed.each),
        };
        batch.severity = match self.severity.each.is_empty() {
            true => Severities::Const(self.severity.all),
            false => Severities::Each(self.severity.each),
        };
        batch.body = self.body.finish(rows);
        batch.severity_text = self.severity_text.map(|texts| texts.finish(rows));
        let columns = self.columns.into_iter();
        let columns = columns.map(|(name, cells)| (name, cells.finish(rows)));
        batch.attributes = Columns::from_unique(columns.collect());
        if let Some(trace) = &mut batch.trace {
            trace.trace_id.resize(rows, [0; 16]);
            trace.span_id.resize(rows, [0; 8]);
            trace.flags.resize(rows, 0);
        }
        if let Some(fields) = &mut batch.otlp {
            if !fields.dropped_attributes.is_empty() {
                fields.dropped_attributes.resize(rows, 0);
            }
            if !fields.event_name.is_empty() {
                fields.event_name.resize(rows, Slice::ABSENT);
            }
        }
        batch
    }
}

/// Adds the value of `row`; the rows before it that have none get `unset`.
fn put<T: Clone>(values: &mut Vec<T>, row: usize, value: T, unset: T) {
    values.resize(row, unset);
    values.push(value);
}
