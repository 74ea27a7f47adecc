//! The operators that change records without parsing them: `add`, `copy`, `filter`, `move`,
//! `noop` and `remove`.

use tailwater_pdata::{Cell, Column, LogsBatch, Value, ValueRef};

use super::expr::{Expr, Record, Template};
use super::field::{Field, Root};
use super::operator::{Operator, OperatorCx, Rows};
use super::record_error::RecordError;

/// `noop`: passes everything on.
#[derive(Debug)]
pub(super) struct Noop;

impl Operator for Noop {
    fn process(&mut self, _: &mut LogsBatch, _: &mut Rows, _: &mut OperatorCx) {}
}

/// What `add` sets.
#[derive(Debug)]
pub(super) enum Added {
    /// The same for every record.
    Value(Value),
    /// Computed for every record.
    Expr(Box<Template>),
}

/// `add`: sets a field.
#[derive(Debug)]
pub(super) struct Add {
    pub(super) field: Field,
    pub(super) value: Added,
}

impl Operator for Add {
    fn process(&mut self, batch: &mut LogsBatch, rows: &mut Rows, _: &mut OperatorCx) {
        if let Added::Value(value) = &self.value
            && rows.all_active()
            && !matches!(value, Value::Map(_))
        {
            match (self.field.root, &self.field.keys[..]) {
                (Root::Attributes, [key]) => {
                    batch
                        .attributes
                        .set(key.clone(), Column::Const(value.clone()));
                    return;
                }
                (Root::Resource, [key]) => {
                    batch.set_resource_all(key, value.clone());
                    return;
                }
                _ => {}
            }
        }
        for row in 0..rows.len() {
            if !rows.is_active(row) {
                continue;
            }
            let value = match &self.value {
                Added::Value(value) => Ok(value.clone()),
                Added::Expr(template) => evaluate(template, Record { batch, row }),
            };
            let result = value.and_then(|value| {
                let cell = batch.cell(&value);
                self.field.set(batch, row, cell)
            });
            if let Err(e) = result {
                rows.fail(row, || e);
            }
        }
    }
}

/// The value of a template: of any kind if it is one expression, else text.
fn evaluate(template: &Template, record: Record<'_>) -> Result<Value, RecordError> {
    if let Some(expr) = template.as_expr() {
        return Ok(expr.eval(record)?.to_value(record));
    }
    let mut text = Vec::new();
    template.render(record, &mut text)?;
    Ok(ValueRef::Str(&text).to_value())
}

/// `remove`: removes a field.
#[derive(Debug)]
pub(super) struct Remove {
    pub(super) field: Field,
}

impl Operator for Remove {
    fn process(&mut self, batch: &mut LogsBatch, rows: &mut Rows, _: &mut OperatorCx) {
        if rows.all_active() && remove_all(&self.field, batch) {
            return;
        }
        for row in 0..rows.len() {
            if !rows.is_active(row) {
                continue;
            }
            if let Err(e) = self.field.remove(batch, row) {
                rows.fail(row, || e);
            }
        }
    }
}

/// Removes a field that every row has; false if there may be rows without it.
fn remove_all(field: &Field, batch: &mut LogsBatch) -> bool {
    match (field.root, &field.keys[..]) {
        (Root::Body, []) => {
            batch.body = Column::Cells(vec![Cell::Absent; batch.rows()]);
            true
        }
        (Root::Attributes, []) => {
            batch.attributes.clear();
            true
        }
        (Root::Resource, []) => {
            batch.resource = Default::default();
            batch.resource_rows.clear();
            true
        }
        (Root::Attributes, [key]) => match batch.attributes.get(key) {
            Some(column) if is_everywhere(column) => batch.attributes.remove(key).is_some(),
            _ => false,
        },
        (Root::Resource, [key]) => {
            let shared = batch.resource_rows.get(key).is_none();
            if shared && batch.resource.get(key).is_some() {
                batch.remove_resource_all(key);
                return true;
            }
            false
        }
        _ => false,
    }
}

/// True if every row has a value in `column`.
fn is_everywhere(column: &Column) -> bool {
    match column {
        Column::Const(_) => true,
        Column::Dict { codes, values } => codes.iter().all(|&c| usize::from(c) < values.len()),
        Column::Slices(s) => s.iter().all(|s| !s.is_absent()),
        Column::Cells(c) => c.iter().all(|c| *c != Cell::Absent),
    }
}

/// `copy`, and `move` if the source is removed.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) from: Field,
    pub(super) to: Field,
    pub(super) remove: bool,
}

impl Transfer {
    /// Moves a whole attribute column by renaming it, if that gives the same.
    fn renamed(&self, batch: &mut LogsBatch) -> bool {
        let (Root::Attributes, [from]) = (self.from.root, &self.from.keys[..]) else {
            return false;
        };
        let (Root::Attributes, [to]) = (self.to.root, &self.to.keys[..]) else {
            return false;
        };
        if !self.remove || from == to || batch.attributes.get(to).is_some() {
            return false;
        }
        batch.attributes.get(from).is_some_and(is_everywhere)
            && batch.attributes.rename(from, to.clone())
    }

    fn transfer(&self, batch: &mut LogsBatch, row: usize) -> Result<(), RecordError> {
        let cell = self
            .from
            .cell(batch, row)
            .ok_or_else(|| self.from.missing())?;
        if self.remove {
            self.from.remove(batch, row)?;
        }
        self.to.set(batch, row, cell)
    }
}

impl Operator for Transfer {
    fn process(&mut self, batch: &mut LogsBatch, rows: &mut Rows, _: &mut OperatorCx) {
        if rows.all_active() && self.renamed(batch) {
            return;
        }
        for row in 0..rows.len() {
            if !rows.is_active(row) {
                continue;
            }
            if let Err(e) = self.transfer(batch, row) {
                rows.fail(row, || e);
            }
        }
    }
}

/// `filter`: drops records for which an expression is true.
///
/// Which part of them is dropped when the ratio is below 1 follows from the record and its place
/// in its file, so that a replay drops the same ones.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) expr: Expr,
    /// 0 to 1.
    pub(super) drop_ratio: f64,
}

impl Operator for Filter {
    fn process(&mut self, batch: &mut LogsBatch, rows: &mut Rows, _: &mut OperatorCx) {
        for row in 0..rows.len() {
            if !rows.is_active(row) {
                continue;
            }
            match self.expr.truth(Record { batch, row }) {
                Ok(false) => {}
                Ok(true) => {
                    if self.drop_ratio >= 1.0 || fraction(batch, row) < self.drop_ratio {
                        rows.filter(row);
                    }
                }
                // As in the collector, whatever on_error says.
                Err(e) => rows.fail_and_drop(row, || e.into()),
            }
        }
    }
}

/// A number from 0 to 1 that depends on the body and the place of a record alone.
fn fraction(batch: &LogsBatch, row: usize) -> f64 {
    // FNV-1a, then a multiplication and a shift that carry every bit into the high ones.
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut feed = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    match batch.body(row) {
        Some(ValueRef::Str(text)) => feed(text),
        Some(other) => feed(other.to_display_string().as_bytes()),
        None => {}
    }
    feed(&batch.source_offset(row).unwrap_or(0).to_le_bytes());
    feed(&batch.time.get(row).to_le_bytes());
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}
