//! What all operators that parse have: where they read, where what they find goes, and what of the
//! record they set from it.

use tailwater_config::Section;
use tailwater_pdata::{Cell, Column, LogsBatch, Map, Slice, Value, ValueRef};

use super::container::text_of;
use super::decode::embedded;
use super::embedded::Embedded;
use super::field::{Field, Root};
use super::json_parser::COLUMNS_MAX;
use super::operator::{OperatorCx, Rows};
use super::options::{field, rootable_field};
use super::record_error::RecordError;

/// The options and the state of a parser that are not about its format.
#[derive(Debug)]
pub(super) struct Parsing {
    /// Type of the operator, for messages.
    name: &'static str,
    from: Field,
    from_body: bool,
    to: Field,
    embedded: Embedded,
    columns: FieldColumns,
}

impl Parsing {
    /// Reads `parse_from`, `parse_to` and what every parser can set.
    pub(super) fn decode(name: &'static str, s: &mut Section<'_, '_>) -> Parsing {
        let from = field(s, "parse_from").unwrap_or_else(Field::body);
        let to = rootable_field(s, "parse_to").unwrap_or_else(Field::attributes);
        let embedded = embedded(s, &to);
        Parsing {
            name,
            from_body: from == Field::body(),
            from,
            to,
            embedded,
            columns: FieldColumns::default(),
        }
    }

    /// Begins with a batch.
    pub(super) fn begin(&mut self, batch: &LogsBatch) {
        self.columns.begin(batch);
    }

    /// True if the rest of the batch has to come as a batch of its own, for the number of columns.
    pub(super) fn is_full(&self, batch: &LogsBatch) -> bool {
        self.columns.is_full(batch)
    }

    /// True if a time of the record is set by an option.
    pub(super) fn sets_time(&self) -> bool {
        self.embedded.time.is_some()
    }

    /// The text to parse.
    pub(super) fn text(&self, batch: &mut LogsBatch, row: usize) -> Result<Slice, RecordError> {
        match &batch.body {
            Column::Slices(s) if self.from_body && !s[row].is_absent() => Ok(s[row]),
            _ => text_of(&self.from, batch, row, self.name),
        }
    }

    /// As [`Parsing::text`], where bytes are taken for text.
    pub(super) fn text_or_bytes(
        &self,
        batch: &mut LogsBatch,
        row: usize,
    ) -> Result<Slice, RecordError> {
        match self.from.get(batch, row) {
            Some(ValueRef::Bytes(bytes)) => {
                let bytes = bytes.to_vec();
                Ok(batch.text.push(&bytes))
            }
            _ => self.text(batch, row),
        }
    }

    /// Sets fields of `row`. Of equal keys the last one counts.
    pub(super) fn set(&mut self, batch: &mut LogsBatch, row: usize, fields: &[(Slice, Cell)]) {
        if self.to.root == Root::Attributes && self.to.keys.is_empty() {
            for (i, (key, cell)) in fields.iter().enumerate() {
                self.columns.set(batch, row, i, *key, *cell);
            }
            return;
        }
        let text = |slice: Slice| String::from_utf8_lossy(batch.text.get(slice)).into_owned();
        let value = |cell: &Cell| match *cell {
            Cell::Absent | Cell::Null => Value::Null,
            Cell::Bool(b) => Value::Bool(b),
            Cell::Int(i) => Value::Int(i),
            Cell::Double(d) => Value::Double(d),
            Cell::Str(slice) => Value::from(text(slice)),
            Cell::Value(i) => batch.values().get(i as usize).cloned().unwrap_or_default(),
        };
        let entries = fields.iter().map(|(key, cell)| (text(*key), value(cell)));
        let map: Map = entries.collect();
        self.to.merge(batch, row, map);
    }

    /// Sets one value that is no map.
    pub(super) fn set_value(
        &self,
        batch: &mut LogsBatch,
        row: usize,
        value: Value,
    ) -> Result<(), RecordError> {
        let cell = batch.cell(&value);
        self.to.set(batch, row, cell)
    }

    /// What is done to the active rows when they are parsed.
    pub(super) fn finish(&self, batch: &mut LogsBatch, rows: &mut Rows, cx: &OperatorCx) {
        self.embedded.process(batch, rows, cx);
    }
}

/// Puts names of fields into a batch, once for all of its records.
pub(super) fn push_names<N: AsRef<str>>(names: &[N], batch: &mut LogsBatch, out: &mut Vec<Slice>) {
    out.clear();
    for name in names {
        let name = batch.text.push(name.as_ref().as_bytes());
        out.push(name);
    }
}

/// Attribute columns that records of one program fill: mostly the same keys in the same order, so
/// the column of the i-th key is looked up once per batch.
#[derive(Debug, Default)]
pub(super) struct FieldColumns {
    /// The i-th key and its column.
    known: Vec<(Vec<u8>, usize)>,
    columns_max: usize,
}

/// No column is known.
const UNKNOWN: usize = usize::MAX;
/// Keys that are remembered, and how long they may be in bytes.
const KNOWN_MAX: usize = 256;
const KEY_BYTES_MAX: usize = 256;

impl FieldColumns {
    /// Columns are those of another batch.
    pub(super) fn begin(&mut self, batch: &LogsBatch) {
        self.columns_max = columns(batch) + COLUMNS_MAX;
        for (_, column) in &mut self.known {
            *column = UNKNOWN;
        }
    }

    /// True if a record brought so many columns that the next one goes into another batch.
    pub(super) fn is_full(&self, batch: &LogsBatch) -> bool {
        columns(batch) > self.columns_max
    }

    /// Sets the i-th field of `row`.
    fn set(&mut self, batch: &mut LogsBatch, row: usize, i: usize, key: Slice, cell: Cell) {
        let name = batch.text.get(key);
        let at = match self.known.get(i) {
            Some((known, at)) if *at != UNKNOWN && known == name => *at,
            _ => self.find(batch, i, key),
        };
        if let (Some(Column::Slices(s)), Cell::Str(slice)) = (batch.attributes.at_mut(at), cell) {
            s[row] = slice;
            return;
        }
        if let Some((name, _)) = batch.attributes.at(at) {
            let name = name.clone();
            batch.set_attribute(row, &name, cell);
        }
    }

    /// The column of a key, made if there is none.
    fn find(&mut self, batch: &mut LogsBatch, i: usize, key: Slice) -> usize {
        let name = String::from_utf8_lossy(batch.text.get(key)).into_owned();
        let at = batch.attributes.position(&name).unwrap_or_else(|| {
            let column = Column::Slices(vec![Slice::ABSENT; batch.rows()]);
            batch.attributes.set(name.as_str(), column)
        });
        if i < KNOWN_MAX && key.len() <= KEY_BYTES_MAX {
            if self.known.len() <= i {
                self.known.resize(i + 1, (Vec::new(), UNKNOWN));
            }
            let (known, column) = &mut self.known[i];
            known.clear();
            known.extend_from_slice(batch.text.get(key));
            *column = at;
        }
        at
    }
}

/// Columns of a batch that a parser may add to.
fn columns(batch: &LogsBatch) -> usize {
    batch.attributes.len() + batch.resource_rows.len()
}
