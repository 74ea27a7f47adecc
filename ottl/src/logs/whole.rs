//! Statements that do the same to each record, carried out on columns as a whole.
//!
//! Only those that read and write nothing but the record's own fields and cannot fail: with them it makes no
//! difference whether the records or the statements come one after another.

use tailwater_pdata::{Cell, Column, Value};

use super::LogScene;
use crate::editors::Editor;
use crate::expr::{Expr, Key};
use crate::field::Field;
use crate::statement::Statement;
use crate::value::Val;

impl LogScene<'_> {
    /// Carries `statement` out on all records, if it is of a form that can be; else false, and nothing is changed.
    pub fn run_on_all(&mut self, statement: &Statement) -> bool {
        let Some(editor) = statement.unconditional() else {
            return false;
        };
        match editor {
            Editor::DeleteKey {
                target,
                key: Expr::Const(Val::Str(key)),
            } if target.field == Field::Attributes && target.keys.is_empty() => {
                let Ok(key) = std::str::from_utf8(key) else {
                    return false;
                };
                self.batch.attributes.remove(key);
                true
            }
            Editor::Set {
                target,
                value,
                literal,
            } => {
                let column = match (literal, value) {
                    (Some(Value::Null), _) => None,
                    (Some(literal), _) => Some(Column::Const(literal.clone())),
                    (None, Expr::Entry(Field::Attributes, key)) => self.copied(key),
                    _ => None,
                };
                let Some(column) = column else {
                    return false;
                };
                match (target.field, &target.keys[..]) {
                    (Field::Attributes, [Key::Text(key)]) if self.has_room(key).is_ok() => {
                        self.batch.attributes.set(key.clone(), column);
                    }
                    (Field::SeverityText, []) if is_text(&column) => {
                        self.batch.severity_text = Some(column);
                    }
                    (Field::Body, []) => self.batch.body = column,
                    _ => return false,
                }
                true
            }
            _ => false,
        }
    }

    /// The column of an attribute that all records have, if each value is one that a cell holds by itself: nothing is to be
    /// left as it was, and nothing is shared.
    fn copied(&self, key: &str) -> Option<Column> {
        let (_, column) = self.batch.attributes.at(self.position(key)?)?;
        let all = match column {
            Column::Const(value) => !matches!(value, Value::Null),
            Column::Slices(slices) => slices.iter().all(|s| !s.is_absent()),
            Column::Cells(cells) => cells
                .iter()
                .all(|c| !matches!(c, Cell::Absent | Cell::Null | Cell::Value(_))),
            Column::Dict { .. } => false,
        };
        all.then(|| column.clone())
    }
}

fn is_text(column: &Column) -> bool {
    match column {
        Column::Const(value) => matches!(value, Value::Str(_)),
        Column::Slices(_) => true,
        Column::Cells(cells) => cells.iter().all(|c| matches!(c, Cell::Str(_))),
        Column::Dict { .. } => false,
    }
}
