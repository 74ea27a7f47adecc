//! The `json_parser` operator: a JSON object to attributes.

use tailwater_pdata::{Cell, Column, LogsBatch, Map, Slice, Value, ValueRef};

use super::container::text_of;
use super::embedded::Embedded;
use super::field::{Field, Root};
use super::json_shape::Shape;
use super::json_walk::{Range, Raw, RawField, unescape, walk};
use super::operator::{Operator, OperatorCx, Rows};
use super::record_error::RecordError;

/// Most fields of one record.
pub(super) const FIELDS_MAX: usize = 4096;

/// Columns beyond which the rest of a batch becomes a batch of its own. A column costs memory for
/// every row, so records that share no keys would otherwise cost the square of their number.
pub(super) const COLUMNS_MAX: usize = 512;

/// See the module. Strings without escapes stay where they are in the read buffer; the i-th key
/// of a record is probably the i-th key of the record before, so its column is known with it.
#[derive(Debug)]
pub(super) struct JsonParser {
    pub(super) parse_from: Field,
    /// `parse_from` is the body.
    pub(super) from_body: bool,
    pub(super) parse_to: Field,
    pub(super) parse_ints: bool,
    pub(super) embedded: Embedded,
    pub(super) scratch: Scratch,
}

/// Buffers that live as long as the operator.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    fields: Vec<RawField>,
    /// Keys of the last row, each with its column in the batch.
    shape: Shape,
    text: Vec<u8>,
}

impl JsonParser {
    fn parse(&mut self, batch: &mut LogsBatch, row: usize) -> Result<Slice, RecordError> {
        let text = match &batch.body {
            // The usual case.
            Column::Slices(bodies) if self.from_body && !bodies[row].is_absent() => bodies[row],
            _ => text_of(&self.parse_from, batch, row, "json_parser")?,
        };
        walk(
            batch.text.get(text),
            self.parse_ints,
            &mut self.scratch.shape,
            &mut self.scratch.fields,
        )
        .map_err(|e| RecordError::Json {
            what: e.what,
            at: e.at,
        })?;
        match self.scratch.fields.len() > FIELDS_MAX {
            true => Err(RecordError::TooManyFields(FIELDS_MAX)),
            false => Ok(text),
        }
    }

    /// Sets the fields as attributes of `row`.
    fn set_attributes(&mut self, batch: &mut LogsBatch, row: usize, text: Slice) {
        let Scratch {
            fields,
            shape,
            text: buffer,
        } = &mut self.scratch;
        for (i, field) in fields.iter_mut().enumerate() {
            let cell = cell(batch, text, &mut field.value, buffer);
            if field.key.is_escaped() {
                let key = string(batch.text.get(text), field.key);
                batch.set_attribute(row, &key, cell);
                continue;
            }
            let key = text.part(field.key.start as usize, field.key.len as usize);
            let at = shape.column(i).unwrap_or_else(|| {
                let at = column(batch, key);
                shape.keep_column(i, at);
                at
            });
            match batch.attributes.at_mut(at) {
                Some(Column::Cells(cells)) => cells[row] = cell,
                _ => {
                    let key = String::from_utf8_lossy(batch.text.get(key)).into_owned();
                    batch.set_attribute(row, &key, cell);
                }
            }
        }
    }

    /// The object as a map.
    fn map(&mut self, batch: &LogsBatch, text: Slice) -> Map {
        let bytes = batch.text.get(text);
        let value = |raw: &mut Raw| match raw {
            Raw::Null => Value::Null,
            Raw::Bool(b) => Value::Bool(*b),
            Raw::Int(i) => Value::Int(*i),
            Raw::Double(d) => Value::Double(*d),
            Raw::Str(range) => Value::from(string(bytes, *range)),
            Raw::Nested(v) => std::mem::take(v),
        };
        let fields = self.scratch.fields.iter_mut();
        fields
            .map(|f| (string(bytes, f.key), value(&mut f.value)))
            .collect()
    }
}

impl Operator for JsonParser {
    fn process(&mut self, batch: &mut LogsBatch, rows: &mut Rows, cx: &mut OperatorCx) {
        let to_attributes = self.parse_to.root == Root::Attributes && self.parse_to.keys.is_empty();
        let columns_max = batch.attributes.len() + COLUMNS_MAX;
        self.scratch.shape.forget_columns();
        for row in 0..rows.len() {
            if !rows.is_active(row) {
                continue;
            }
            if batch.attributes.len() > columns_max {
                rows.split(row);
                break;
            }
            match self.parse(batch, row) {
                Ok(text) if to_attributes => self.set_attributes(batch, row, text),
                Ok(text) => {
                    let map = self.map(batch, text);
                    self.parse_to.merge(batch, row, map);
                }
                Err(e) => rows.fail(row, || e),
            }
        }
        self.embedded.process(batch, rows, cx);
    }
}

/// The position of the column named by `key`, made if there is none.
fn column(batch: &mut LogsBatch, key: Slice) -> usize {
    let name = batch.text.get(key);
    if let Some(at) = batch
        .attributes
        .iter()
        .position(|(k, _)| k.as_bytes() == name)
    {
        return at;
    }
    let name = String::from_utf8_lossy(name).into_owned();
    // A key that is not UTF-8 may be there under its replaced name.
    if let Some(at) = batch.attributes.position(&name) {
        return at;
    }
    let cells = Column::Cells(vec![Cell::Absent; batch.rows()]);
    batch.attributes.set(name, cells)
}

fn cell(batch: &mut LogsBatch, text: Slice, raw: &mut Raw, buffer: &mut Vec<u8>) -> Cell {
    match raw {
        Raw::Null => Cell::Null,
        Raw::Bool(b) => Cell::Bool(*b),
        Raw::Int(i) => Cell::Int(*i),
        Raw::Double(d) => Cell::Double(*d),
        Raw::Str(range) => {
            let written = text.part(range.start as usize, range.len as usize);
            if !range.is_escaped() {
                return Cell::Str(written);
            }
            buffer.clear();
            unescape(batch.text.get(written), buffer);
            Cell::Str(batch.text.push(buffer))
        }
        Raw::Nested(v) => batch.big_cell(std::mem::take(v)),
    }
}

fn string(text: &[u8], range: Range) -> String {
    let mut out = Vec::new();
    unescape(range.of(text), &mut out);
    ValueRef::Str(&out).to_display_string()
}
