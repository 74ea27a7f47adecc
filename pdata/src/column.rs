//! Columns: one attribute over all rows of a batch.

use std::sync::Arc;

use crate::text::{Slice, Text};
use crate::value::{Value, ValueRef};

/// An attribute name. Cloning is a counter bump.
pub type Key = Arc<str>;

/// One value of a [`Column::Cells`] column. 16 bytes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Cell {
    /// The row does not have the attribute.
    Absent,
    /// An attribute that is there without a value.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A double.
    Double(f64),
    /// Text of the batch.
    Str(Slice),
    /// Index into the batch's table of larger values (maps, lists, bytes).
    Value(u32),
}

/// Code of a [`Column::Dict`] row that does not have the attribute.
pub(crate) const DICT_ABSENT: u8 = u8::MAX;

/// The values of one attribute.
#[derive(Clone, Debug)]
pub enum Column {
    /// Every row has this value.
    Const(Value),
    /// A byte per row that selects one of at most 255 values; 255 means absent.
    Dict {
        /// One code per row.
        codes: Vec<u8>,
        /// The values the codes select.
        values: Vec<Value>,
    },
    /// Text per row ([`Slice::ABSENT`] = the row does not have it).
    Slices(Vec<Slice>),
    /// Anything per row.
    Cells(Vec<Cell>),
}

impl Column {
    /// A dictionary column. Codes at or above `values.len()` read as absent.
    pub fn dict(codes: Vec<u8>, values: Vec<Value>) -> Column {
        debug_assert!(values.len() < DICT_ABSENT as usize);
        Column::Dict { codes, values }
    }

    /// The value at `row`; `None` if the row does not have the attribute.
    #[inline]
    pub fn get<'a>(
        &'a self,
        row: usize,
        text: &'a Text,
        values: &'a [Value],
    ) -> Option<ValueRef<'a>> {
        match self {
            Column::Const(v) => Some(v.as_ref()),
            Column::Dict { codes, values } => {
                values.get(*codes.get(row)? as usize).map(Value::as_ref)
            }
            Column::Slices(s) => {
                let s = *s.get(row)?;
                (!s.is_absent()).then(|| ValueRef::Str(text.get(s)))
            }
            Column::Cells(c) => match *c.get(row)? {
                Cell::Absent => None,
                Cell::Null => Some(ValueRef::Null),
                Cell::Bool(b) => Some(ValueRef::Bool(b)),
                Cell::Int(i) => Some(ValueRef::Int(i)),
                Cell::Double(d) => Some(ValueRef::Double(d)),
                Cell::Str(s) => Some(ValueRef::Str(text.get(s))),
                Cell::Value(i) => values.get(i as usize).map(Value::as_ref),
            },
        }
    }

    /// The constant, if the column is one.
    pub fn as_const(&self) -> Option<&Value> {
        match self {
            Column::Const(v) => Some(v),
            _ => None,
        }
    }

    /// True if no row has a value (an empty batch counts as true).
    pub fn is_absent(&self, rows: usize) -> bool {
        match self {
            Column::Const(_) => rows == 0,
            Column::Dict { codes, values } => codes.iter().all(|&c| c as usize >= values.len()),
            Column::Slices(s) => s.iter().all(|s| s.is_absent()),
            Column::Cells(c) => c.iter().all(|c| *c == Cell::Absent),
        }
    }

    /// Keeps the rows for which `keep` is true. `keep` has one flag per row.
    pub(crate) fn retain_rows(&mut self, keep: &[bool]) {
        fn apply<T>(v: &mut Vec<T>, keep: &[bool]) {
            let mut i = 0;
            v.retain(|_| {
                i += 1;
                keep[i - 1]
            });
        }
        match self {
            Column::Const(_) => {}
            Column::Dict { codes, .. } => apply(codes, keep),
            Column::Slices(s) => apply(s, keep),
            Column::Cells(c) => apply(c, keep),
        }
    }

    /// Splits off the rows from `at`.
    pub(crate) fn split_off(&mut self, at: usize) -> Column {
        match self {
            Column::Const(v) => Column::Const(v.clone()),
            Column::Dict { codes, values } => Column::Dict {
                codes: codes.split_off(at),
                values: values.clone(),
            },
            Column::Slices(s) => Column::Slices(s.split_off(at)),
            Column::Cells(c) => Column::Cells(c.split_off(at)),
        }
    }
}

/// Columns that a batch has room for from its first one on.
const COLUMNS_USUAL: usize = 8;

/// Named columns in insertion order, unique names. Adding, renaming and removing a whole column
/// costs the same for any number of rows.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    cols: Vec<(Key, Column)>,
}

impl Columns {
    /// Columns whose names are known to differ: other than with [`Columns::set`] that is not looked at, which
    /// for many columns takes long.
    pub fn from_unique(cols: Vec<(Key, Column)>) -> Columns {
        Columns { cols }
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.cols.len()
    }

    /// True without columns.
    pub fn is_empty(&self) -> bool {
        self.cols.is_empty()
    }

    /// Position of `key`.
    #[inline]
    pub fn position(&self, key: &str) -> Option<usize> {
        self.cols.iter().position(|(k, _)| &**k == key)
    }

    /// The column `key`.
    #[inline]
    pub fn get(&self, key: &str) -> Option<&Column> {
        self.position(key).map(|i| &self.cols[i].1)
    }

    /// The column `key`, to change.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Column> {
        self.position(key).map(|i| &mut self.cols[i].1)
    }

    /// The name and column at position `i`.
    pub fn at(&self, i: usize) -> Option<(&Key, &Column)> {
        self.cols.get(i).map(|(k, c)| (k, c))
    }

    /// The column at position `i`, to change.
    pub fn at_mut(&mut self, i: usize) -> Option<&mut Column> {
        self.cols.get_mut(i).map(|(_, c)| c)
    }

    /// Sets a whole column, in place when the name exists; returns its position.
    pub fn set(&mut self, key: impl Into<Key>, column: Column) -> usize {
        let key = key.into();
        match self.position(&key) {
            Some(i) => {
                self.cols[i].1 = column;
                i
            }
            None => {
                if self.cols.is_empty() {
                    // Most batches have a handful: one allocation instead of one for 4 and 8.
                    self.cols.reserve(COLUMNS_USUAL);
                }
                self.cols.push((key, column));
                self.cols.len() - 1
            }
        }
    }

    /// Removes a whole column.
    pub fn remove(&mut self, key: &str) -> Option<Column> {
        self.position(key).map(|i| self.cols.remove(i).1)
    }

    /// Renames a column, replacing one that has the new name. False if `from` does not exist.
    pub fn rename(&mut self, from: &str, to: impl Into<Key>) -> bool {
        let to = to.into();
        let Some(column) = self.remove(from) else {
            return false;
        };
        self.set(to, column);
        true
    }

    /// Keeps the columns for which `f` is true.
    pub fn retain(&mut self, mut f: impl FnMut(&Key, &Column) -> bool) {
        self.cols.retain(|(k, c)| f(k, c));
    }

    /// Removes all columns.
    pub fn clear(&mut self) {
        self.cols.clear();
    }

    /// Names and columns in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Key, &Column)> {
        self.cols.iter().map(|(k, c)| (k, c))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&Key, &mut Column)> {
        self.cols.iter_mut().map(|(k, c)| (&*k, c))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_stays_within_two_words() {
        assert_eq!(size_of::<Cell>(), 16);
    }

    #[test]
    fn rename_replaces_and_keeps_one_column_per_name() {
        let mut c = Columns::default();
        c.set("a", Column::Const(Value::Int(1)));
        c.set("b", Column::Const(Value::Int(2)));
        assert!(c.rename("a", "b"));
        assert!(!c.rename("a", "x"));
        assert_eq!(c.len(), 1);
        assert_eq!(c.get("b").and_then(Column::as_const), Some(&Value::Int(1)));
    }
}
