//! Actions on record attributes, column by column.
//!
//! Without include and exclude an action that names a value costs the same for any number of
//! rows. Text that is copied or cut out of other text stays where it is and is pointed to.

use regex::Regex;
use regex::bytes::CaptureLocations;
use tailwater_pdata::{Cell, Column, Key, LogsBatch, Slice, Value, ValueRef};

use super::value::{self, Made};
use super::{Action, Origin, Put, Source};

/// The rows an action applies to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rows<'a> {
    /// Every row.
    All,
    /// Those whose flag is true.
    Marked(&'a [bool]),
}

impl Rows<'_> {
    #[inline]
    fn contains(self, row: usize) -> bool {
        match self {
            Rows::All => true,
            Rows::Marked(flags) => flags.get(row).copied().unwrap_or(false),
        }
    }

    fn is_all(self) -> bool {
        matches!(self, Rows::All)
    }
}

/// Applies one action to the attributes of the rows.
pub(crate) fn apply(action: &Action, batch: &mut LogsBatch, rows: Rows<'_>) {
    match action {
        Action::Put { key, put, source } => apply_put(batch, key, *put, source, rows),
        Action::Delete { key, pattern } => {
            for name in names(batch, key.as_ref(), pattern.as_ref()) {
                delete(batch, &name, rows);
            }
        }
        Action::Hash { key, pattern } => {
            for name in names(batch, key.as_ref(), pattern.as_ref()) {
                rewrite(batch, &name, rows, &mut value::hash);
            }
        }
        Action::Convert { key, to } => {
            rewrite(batch, key, rows, &mut |v, scratch| {
                value::convert(v, *to, scratch)
            });
        }
        Action::Extract {
            key,
            pattern,
            targets,
        } => {
            for (target, column) in extract(batch, key, pattern, targets.len(), rows)
                .into_iter()
                .enumerate()
                .filter_map(|(i, column)| Some((targets.get(i)?, column)))
            {
                overlay(batch, target, column, Put::Upsert, rows);
            }
        }
    }
}

/// The existing attributes that an action means.
fn names(batch: &LogsBatch, key: Option<&Key>, pattern: Option<&Regex>) -> Vec<Key> {
    let matched = |k: &Key| pattern.is_some_and(|p| p.is_match(k)) || key == Some(k);
    batch
        .attributes
        .iter()
        .map(|(k, _)| k)
        .filter(|k| matched(k))
        .cloned()
        .collect()
}

fn apply_put(batch: &mut LogsBatch, key: &Key, put: Put, source: &Source, rows: Rows<'_>) {
    let fallback = source.default.as_ref();
    let column = match &source.origin {
        Origin::Value(value) => Some(Column::Const(value.clone())),
        Origin::Attribute(from) => with_default(batch, from, fallback),
        Origin::Context(_) => fallback.map(|v| Column::Const(v.clone())),
    };
    if let Some(column) = column {
        overlay(batch, key, column, put, rows);
    }
}

/// A copy of the attribute `from`, with `fallback` where a row does not have it.
fn with_default(batch: &mut LogsBatch, from: &str, fallback: Option<&Value>) -> Option<Column> {
    let column = batch.attributes.get(from).cloned();
    let Some(fallback) = fallback else {
        return column;
    };
    match column {
        None => Some(Column::Const(fallback.clone())),
        Some(column @ Column::Const(_)) => Some(column),
        Some(column) => {
            let cell = batch.cell(fallback);
            let mut cells = cells_of(batch, column);
            for c in cells.iter_mut().filter(|c| **c == Cell::Absent) {
                *c = cell;
            }
            Some(compact(cells))
        }
    }
}

fn delete(batch: &mut LogsBatch, key: &Key, rows: Rows<'_>) {
    if rows.is_all() {
        batch.attributes.remove(key);
    } else if let Some(mut cells) = take_cells(batch, key) {
        for (row, cell) in cells.iter_mut().enumerate() {
            if rows.contains(row) {
                *cell = Cell::Absent;
            }
        }
        batch.attributes.set(key.clone(), compact(cells));
    }
}

/// Puts the values of `new` over the attribute `key`. Rows that `new` has no value for keep what
/// they have.
fn overlay(batch: &mut LogsBatch, key: &Key, new: Column, put: Put, rows: Rows<'_>) {
    let constant = matches!(new, Column::Const(_));
    let old_is_constant = batch
        .attributes
        .get(key)
        .map(|c| matches!(c, Column::Const(_)));
    match (put, old_is_constant) {
        (Put::Insert, Some(true)) | (Put::Update, None) => return,
        (Put::Insert | Put::Upsert, None) if rows.is_all() => {
            batch.attributes.set(key.clone(), new);
            return;
        }
        (Put::Upsert, _) | (Put::Update, Some(true)) if constant && rows.is_all() => {
            batch.attributes.set(key.clone(), new);
            return;
        }
        _ => {}
    }
    let new = cells_of(batch, new);
    let absent = || vec![Cell::Absent; new.len()];
    let mut cells = take_cells(batch, key).unwrap_or_else(absent);
    for (row, (cell, new)) in cells.iter_mut().zip(new).enumerate() {
        let wanted = match put {
            Put::Insert => *cell == Cell::Absent,
            Put::Update => *cell != Cell::Absent,
            Put::Upsert => true,
        };
        if wanted && new != Cell::Absent && rows.contains(row) {
            *cell = new;
        }
    }
    batch.attributes.set(key.clone(), compact(cells));
}

/// Replaces the values of one attribute by what `f` makes of them.
fn rewrite(
    batch: &mut LogsBatch,
    key: &Key,
    rows: Rows<'_>,
    f: &mut dyn FnMut(ValueRef<'_>, &mut Vec<u8>) -> Made,
) {
    let mut scratch = Vec::new();
    if rows.is_all() {
        let table = match batch.attributes.get_mut(key) {
            None => return,
            Some(Column::Const(value)) => std::slice::from_mut(value),
            Some(Column::Dict { values, .. }) => values.as_mut_slice(),
            Some(_) => &mut [],
        };
        if !table.is_empty() {
            for value in table {
                if let Some(new) = f(value.as_ref(), &mut scratch).into_value(&scratch) {
                    *value = new;
                }
            }
            return;
        }
    }
    let Some(mut cells) = take_cells(batch, key) else {
        return;
    };
    for (row, cell) in cells.iter_mut().enumerate() {
        if !rows.contains(row) {
            continue;
        }
        let made = match value_of(batch, *cell) {
            Some(value) => f(value, &mut scratch),
            None => continue,
        };
        match made {
            Made::Keep => {}
            Made::Text => *cell = Cell::Str(batch.text.push(&scratch)),
            Made::Int(i) => *cell = Cell::Int(i),
            Made::Double(d) => *cell = Cell::Double(d),
        }
    }
    batch.attributes.set(key.clone(), compact(cells));
}

/// One column per group of `pattern`, for the rows whose text matches. A group that took no part
/// in the match gives empty text.
fn extract(
    batch: &mut LogsBatch,
    key: &str,
    pattern: &regex::bytes::Regex,
    groups: usize,
    rows: Rows<'_>,
) -> Vec<Column> {
    let column = match batch.attributes.get(key) {
        None => return Vec::new(),
        // One match for all rows.
        Some(Column::Const(value)) => {
            let value = value.clone();
            let Some(text) = value.as_ref().as_text() else {
                return Vec::new();
            };
            let Some(found) = pattern.captures(text) else {
                return Vec::new();
            };
            let group = |i: usize| found.get(i + 1).map_or(&b""[..], |m| m.as_bytes());
            let column = |i| Column::Const(ValueRef::Str(group(i)).to_value());
            return (0..groups).map(column).collect();
        }
        Some(column) => column.clone(),
    };
    let cells = cells_of(batch, column);
    let mut columns = vec![vec![Slice::ABSENT; cells.len()]; groups];
    let mut matched = false;
    // Used for every row: a match allocates nothing.
    let mut found = pattern.capture_locations();
    for (row, cell) in cells.into_iter().enumerate() {
        let Cell::Str(slice) = cell else { continue };
        if !rows.contains(row) {
            continue;
        }
        if pattern
            .captures_read(&mut found, batch.text.get(slice))
            .is_some()
        {
            matched = true;
            for (i, column) in columns.iter_mut().enumerate() {
                column[row] = part_of(slice, &found, i + 1);
            }
        }
    }
    if !matched {
        return Vec::new();
    }
    columns.into_iter().map(Column::Slices).collect()
}

/// Where group `group` of a match lies in the text that was searched.
fn part_of(slice: Slice, found: &CaptureLocations, group: usize) -> Slice {
    found
        .get(group)
        .map_or(Slice::EMPTY, |(start, end)| slice.part(start, end - start))
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

/// Takes an attribute out as cells; its place in the order stays.
fn take_cells(batch: &mut LogsBatch, key: &str) -> Option<Vec<Cell>> {
    let place = batch.attributes.get_mut(key)?;
    let column = std::mem::replace(place, Column::Cells(Vec::new()));
    Some(cells_of(batch, column))
}

/// A column as one cell per row. What a constant or a dictionary holds enters the batch once.
fn cells_of(batch: &mut LogsBatch, column: Column) -> Vec<Cell> {
    let text = |s: Slice| {
        if s.is_absent() {
            Cell::Absent
        } else {
            Cell::Str(s)
        }
    };
    match column {
        Column::Cells(cells) => cells,
        Column::Slices(slices) => slices.into_iter().map(text).collect(),
        Column::Const(value) => {
            let cell = batch.cell(&value);
            vec![cell; batch.rows()]
        }
        Column::Dict { codes, values } => {
            let table: Vec<Cell> = values.iter().map(|v| batch.cell(v)).collect();
            let cell = |code: u8| {
                table
                    .get(usize::from(code))
                    .copied()
                    .unwrap_or(Cell::Absent)
            };
            codes.into_iter().map(cell).collect()
        }
    }
}

/// Cells as the narrowest column: slices when there is nothing but text.
fn compact(cells: Vec<Cell>) -> Column {
    let text = |c: &Cell| matches!(c, Cell::Str(_) | Cell::Absent);
    if !cells.iter().all(text) {
        return Column::Cells(cells);
    }
    let slice = |c| {
        if let Cell::Str(slice) = c {
            slice
        } else {
            Slice::ABSENT
        }
    };
    Column::Slices(cells.into_iter().map(slice).collect())
}
