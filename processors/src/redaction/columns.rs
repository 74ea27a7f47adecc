//! Log records, column by column. Where nothing is found, nothing is allocated for a record.

use std::mem;

use tailwater_pdata::{Cell, Column, Key, LogsBatch, Value, ValueRef};

use super::fields::{change_body, touches_body};
use super::rules::{Judge, KeyFate, ValueFate};
use super::summary::{Kind, Notes};

/// Does what the rules say to the attributes and the bodies of all records.
pub(super) fn change(judge: &mut Judge, batch: &mut LogsBatch, notes: &mut Notes) {
    let mut removed: Vec<Key> = Vec::new();
    for i in 0..batch.attributes.len() {
        let Some(key) = batch.attributes.at(i).map(|(key, _)| key.clone()) else {
            continue;
        };
        let fate = judge.key(&key);
        match fate {
            KeyFate::Ignored => note_present(judge, batch, i, (Kind::Ignored, &key), notes),
            KeyFate::Removed => {
                note_present(judge, batch, i, (Kind::Redacted, &key), notes);
                judge.removed += present(batch, i).count() as u64;
                removed.push(key);
            }
            KeyFate::Masked | KeyFate::Checked => {
                let mut column = Attribute {
                    judge: &mut *judge,
                    key: &key,
                    masked_key: fate == KeyFate::Masked,
                    notes: &mut *notes,
                };
                column.change(batch, i);
            }
        }
    }
    for key in &removed {
        batch.attributes.remove(key);
    }
    change_bodies(judge, batch, notes);
    notes.tell_rows(judge.rules.summary, batch);
}

/// The rows that have the attribute at position `i`.
fn present(batch: &LogsBatch, i: usize) -> impl Iterator<Item = usize> {
    let column = batch.attributes.at(i).map(|(_, column)| column);
    (0..batch.rows()).filter(move |row| column.is_some_and(|c| batch.value(c, *row).is_some()))
}

fn note_present(
    judge: &Judge,
    batch: &LogsBatch,
    i: usize,
    (kind, key): (Kind, &Key),
    notes: &mut Notes,
) {
    if judge.tells() {
        present(batch, i).for_each(|row| notes.add(row, kind, key));
    }
}

/// An attribute whose values decide.
struct Attribute<'j> {
    judge: &'j mut Judge,
    key: &'j Key,
    masked_key: bool,
    notes: &'j mut Notes,
}

impl Attribute<'_> {
    fn change(&mut self, batch: &mut LogsBatch, i: usize) {
        let Some(place) = batch.attributes.at_mut(i) else {
            return;
        };
        let mut column = mem::replace(place, Column::Cells(Vec::new()));
        match &mut column {
            Column::Const(value) => {
                let fate = self.value(value);
                (0..batch.rows()).for_each(|row| self.note(row, fate));
            }
            Column::Dict { codes, values } => {
                let fates: Vec<ValueFate> = values.iter_mut().map(|v| self.value(v)).collect();
                if self.judge.tells() {
                    for (row, code) in codes.iter().enumerate() {
                        let fate = fates.get(usize::from(*code));
                        self.note(row, fate.copied().unwrap_or(ValueFate::Same));
                    }
                }
            }
            Column::Slices(slices) => {
                for (row, slice) in slices.iter_mut().enumerate() {
                    if slice.is_absent() {
                        continue;
                    }
                    let fate = self.fate(ValueRef::Str(batch.text.get(*slice)));
                    if fate == ValueFate::Masked {
                        *slice = batch.text.push(self.judge.masked_text());
                    }
                    self.note(row, fate);
                }
            }
            Column::Cells(cells) => {
                for (row, cell) in cells.iter_mut().enumerate() {
                    let Some(value) = value_of(batch, *cell) else {
                        continue;
                    };
                    let fate = self.fate(value);
                    if fate == ValueFate::Masked {
                        *cell = Cell::Str(batch.text.push(self.judge.masked_text()));
                    }
                    self.note(row, fate);
                }
            }
        }
        if let Some(place) = batch.attributes.at_mut(i) {
            *place = column;
        }
    }

    fn fate(&mut self, value: ValueRef<'_>) -> ValueFate {
        self.judge.attribute(self.masked_key, value)
    }

    fn value(&mut self, value: &mut Value) -> ValueFate {
        let fate = self.fate(value.as_ref());
        if fate == ValueFate::Masked {
            *value = ValueRef::Str(self.judge.masked_text()).to_value();
        }
        fate
    }

    fn note(&mut self, row: usize, fate: ValueFate) {
        let kind = match fate {
            ValueFate::Same => return,
            ValueFate::Allowed => Kind::Allowed,
            ValueFate::Masked => Kind::Masked,
        };
        if self.judge.tells() {
            self.notes.add(row, kind, self.key);
        }
    }
}

fn value_of(batch: &LogsBatch, cell: Cell) -> Option<ValueRef<'_>> {
    match cell {
        Cell::Absent => None,
        Cell::Null => Some(ValueRef::Null),
        Cell::Bool(b) => Some(ValueRef::Bool(b)),
        Cell::Int(i) => Some(ValueRef::Int(i)),
        Cell::Double(d) => Some(ValueRef::Double(d)),
        Cell::Str(slice) => Some(ValueRef::Str(batch.text.get(slice))),
        Cell::Value(i) => batch.values().get(i as usize).map(Value::as_ref),
    }
}

fn change_bodies(judge: &mut Judge, batch: &mut LogsBatch, notes: &mut Notes) {
    for row in 0..batch.rows() {
        let body = batch.body(row).unwrap_or(ValueRef::Null);
        if matches!(body, ValueRef::Map(_) | ValueRef::List(_)) {
            if touches_body(judge, body) {
                let mut body = body.to_value();
                change_body(judge, &mut body, row, notes);
                let cell = batch.cell(&body);
                batch.set_body(row, cell);
            }
        } else if judge.body(body) == ValueFate::Masked {
            let cell = Cell::Str(batch.text.push(judge.masked_text()));
            batch.set_body(row, cell);
            if judge.tells() {
                notes.add(row, Kind::BodyMasked, &"body".into());
            }
        }
    }
}
