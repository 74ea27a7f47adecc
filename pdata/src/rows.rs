//! Operations on the rows of a batch: set one cell, filter, split.

use std::sync::Arc;

use crate::column::{Cell, Column, Columns, DICT_ABSENT, Key};
use crate::logs::{LogsBatch, Severities, Times};
use crate::text::Slice;
use crate::value::{Map, Value, ValueRef};

/// Turns `column` into one cell per row and returns the cells.
fn cells_of<'c>(
    column: &'c mut Column,
    rows: usize,
    text: &mut crate::Text,
    values: &mut Vec<Value>,
) -> &'c mut Vec<Cell> {
    let mut own = |v: &Value| match v {
        Value::Null => Cell::Null,
        Value::Bool(b) => Cell::Bool(*b),
        Value::Int(i) => Cell::Int(*i),
        Value::Double(d) => Cell::Double(*d),
        Value::Str(s) => Cell::Str(text.push(s.as_bytes())),
        other => {
            values.push(other.clone());
            Cell::Value((values.len() - 1) as u32)
        }
    };
    let cells = match column {
        Column::Cells(_) => None,
        Column::Const(v) => Some(vec![own(v); rows]),
        Column::Dict { codes, values } => {
            let table: Vec<Cell> = values.iter().map(own).collect();
            let cell = |c: &u8| table.get(*c as usize).copied().unwrap_or(Cell::Absent);
            Some(codes.iter().map(cell).collect())
        }
        Column::Slices(s) => {
            let cell = |s: &Slice| {
                if s.is_absent() {
                    Cell::Absent
                } else {
                    Cell::Str(*s)
                }
            };
            Some(s.iter().map(cell).collect())
        }
    };
    if let Some(cells) = cells {
        *column = Column::Cells(cells);
    }
    match column {
        Column::Cells(c) => c,
        _ => unreachable!("made cells above"),
    }
}

/// Sets the cell of one row.
fn put(
    column: &mut Column,
    rows: usize,
    text: &mut crate::Text,
    values: &mut Vec<Value>,
    (row, cell): (usize, Cell),
) {
    match (&mut *column, cell) {
        // The usual cases need no wider form.
        (Column::Cells(cells), cell) => cells[row] = cell,
        (Column::Slices(s), Cell::Str(slice)) => s[row] = slice,
        _ => cells_of(column, rows, text, values)[row] = cell,
    }
}

fn set_in(
    columns: &mut Columns,
    rows: usize,
    text: &mut crate::Text,
    values: &mut Vec<Value>,
    (row, key, cell): (usize, &str, Cell),
) {
    match columns.position(key) {
        Some(i) => {
            let column = columns.at_mut(i).expect("position() returned it");
            put(column, rows, text, values, (row, cell));
        }
        None if cell == Cell::Absent => {}
        None => {
            let mut cells = vec![Cell::Absent; rows];
            cells[row] = cell;
            columns.set(key, Column::Cells(cells));
        }
    }
}

impl LogsBatch {
    /// Sets the attribute `key` of one row. [`Cell::Absent`] removes it from that row.
    pub fn set_attribute(&mut self, row: usize, key: &str, cell: Cell) {
        let (rows, text, values) = (self.rows, &mut self.text, &mut self.values);
        set_in(&mut self.attributes, rows, text, values, (row, key, cell));
    }

    /// [`LogsBatch::set_attribute`] for the attribute at a position that [`Columns::position`] gave.
    ///
    /// # Panics
    /// There is no such position or row.
    #[inline]
    pub fn set_attribute_at(&mut self, row: usize, position: usize, cell: Cell) {
        let (rows, text, values) = (self.rows, &mut self.text, &mut self.values);
        let column = self
            .attributes
            .at_mut(position)
            .expect("the caller's promise");
        put(column, rows, text, values, (row, cell));
    }

    /// Sets the resource attribute `key` of one row, leaving the other rows as they are.
    pub fn set_resource_attribute(&mut self, row: usize, key: &str, cell: Cell) {
        if self.resource_rows.position(key).is_none()
            && let Some(v) = self.resource.get(key)
        {
            self.resource_rows.set(key, Column::Const(v.clone()));
        }
        let (rows, text, values) = (self.rows, &mut self.text, &mut self.values);
        set_in(
            &mut self.resource_rows,
            rows,
            text,
            values,
            (row, key, cell),
        );
    }

    /// Sets a resource attribute of every row.
    pub fn set_resource_all(&mut self, key: &str, value: Value) {
        self.resource_rows.remove(key);
        if self.resource.get(key) != Some(&value) {
            Arc::make_mut(&mut self.resource).insert(key, value);
        }
    }

    /// Removes a resource attribute from every row.
    pub fn remove_resource_all(&mut self, key: &str) {
        self.resource_rows.remove(key);
        if self.resource.get(key).is_some() {
            Arc::make_mut(&mut self.resource).remove(key);
        }
    }

    /// Sets the body of one row. [`Cell::Absent`] empties it.
    pub fn set_body(&mut self, row: usize, cell: Cell) {
        if let (Column::Slices(s), Cell::Str(slice)) = (&mut self.body, cell) {
            s[row] = slice;
            return;
        }
        cells_of(&mut self.body, self.rows, &mut self.text, &mut self.values)[row] = cell;
    }

    /// Sets the severity text of one row.
    pub fn set_severity_text(&mut self, row: usize, cell: Cell) {
        let column = self
            .severity_text
            .get_or_insert_with(|| Column::Slices(vec![Slice::ABSENT; self.rows]));
        if let (Column::Slices(s), Cell::Str(slice)) = (&mut *column, cell) {
            s[row] = slice;
            return;
        }
        cells_of(column, self.rows, &mut self.text, &mut self.values)[row] = cell;
    }

    /// The attributes of one row as an owned map, in column order.
    pub fn attributes_of(&self, row: usize) -> Map {
        let get = |(k, c): (&Key, &Column)| Some((k.clone(), self.value(c, row)?.to_value()));
        Map::from_unique(self.attributes.iter().filter_map(get))
    }

    /// The resource attributes of one row as an owned map.
    pub fn resource_of(&self, row: usize) -> Map {
        if self.resource_rows.is_empty() {
            return (*self.resource).clone();
        }
        let mut map = (*self.resource).clone();
        for (k, c) in self.resource_rows.iter() {
            match self.value(c, row) {
                Some(v) => map.insert(k.clone(), v.to_value()),
                None => map.remove(k),
            };
        }
        map
    }

    /// Keeps the rows for which `keep` is true (one flag per row).
    pub fn retain_rows(&mut self, keep: &[bool]) {
        assert_eq!(keep.len(), self.rows, "one flag per row");
        let kept = keep.iter().filter(|k| **k).count();
        if kept == self.rows {
            return;
        }
        fn apply<T>(v: &mut Vec<T>, keep: &[bool]) {
            let mut i = 0;
            v.retain(|_| {
                i += 1;
                keep[i - 1]
            });
        }
        for times in [&mut self.time, &mut self.observed] {
            if let Times::Each(v) = times {
                apply(v, keep);
            }
        }
        if let Severities::Each(v) = &mut self.severity {
            apply(v, keep);
        }
        self.body.retain_rows(keep);
        self.severity_text
            .iter_mut()
            .for_each(|c| c.retain_rows(keep));
        self.attributes
            .iter_mut()
            .for_each(|(_, c)| c.retain_rows(keep));
        self.resource_rows
            .iter_mut()
            .for_each(|(_, c)| c.retain_rows(keep));
        if let Some(t) = &mut self.trace {
            apply(&mut t.trace_id, keep);
            apply(&mut t.span_id, keep);
            apply(&mut t.flags, keep);
        }
        if let Some(s) = &mut self.source {
            apply(&mut s.rel, keep);
        }
        if let Some(o) = &mut self.otlp {
            apply(&mut o.event_name, keep);
            apply(&mut o.dropped_attributes, keep);
        }
        if !self.scope_names.is_empty() {
            apply(&mut self.scope_names, keep);
        }
        self.rows = kept;
    }

    /// Splits off the rows from `at`; both halves share the text buffer.
    pub fn split_off(&mut self, at: usize) -> LogsBatch {
        assert!(at <= self.rows, "split beyond the last row");
        let times = |t: &mut Times| match t {
            Times::Const(c) => Times::Const(*c),
            Times::Each(v) => Times::Each(v.split_off(at)),
        };
        let columns = |c: &mut Columns| {
            let mut tail = Columns::default();
            for (k, c) in c.iter_mut() {
                tail.set(k.clone(), c.split_off(at));
            }
            tail
        };
        let tail = LogsBatch {
            rows: self.rows - at,
            text: self.text.clone(),
            values: self.values.clone(),
            time: times(&mut self.time),
            observed: times(&mut self.observed),
            severity: match &mut self.severity {
                Severities::Const(s) => Severities::Const(*s),
                Severities::Each(v) => Severities::Each(v.split_off(at)),
            },
            severity_text: self.severity_text.as_mut().map(|c| c.split_off(at)),
            body: self.body.split_off(at),
            attributes: columns(&mut self.attributes),
            resource: self.resource.clone(),
            resource_rows: columns(&mut self.resource_rows),
            scope: self.scope.clone(),
            scope_names: self.scope_names.split_off(at.min(self.scope_names.len())),
            trace: self.trace.as_mut().map(|t| {
                Box::new(crate::TraceColumns {
                    trace_id: t.trace_id.split_off(at),
                    span_id: t.span_id.split_off(at),
                    flags: t.flags.split_off(at),
                })
            }),
            source: self.source.as_mut().map(|s| crate::SourceRows {
                base: s.base,
                rel: s.rel.split_off(at),
            }),
            otlp: self.otlp.as_mut().map(|o| {
                Box::new(crate::OtlpFields {
                    event_name: o.event_name.split_off(at.min(o.event_name.len())),
                    dropped_attributes: o
                        .dropped_attributes
                        .split_off(at.min(o.dropped_attributes.len())),
                    resource: o.resource.clone(),
                })
            }),
        };
        self.rows = at;
        tail
    }

    /// Folds the per-row resource attributes and names of scopes away: one batch per distinct
    /// resource and scope, in order of first appearance. Costs nothing when no row has its own.
    pub fn split_by_resource(self) -> Vec<LogsBatch> {
        match self.scope_names.is_empty() {
            true => self.split_resources(),
            false => {
                let scopes = self.split_scopes().into_iter();
                scopes.flat_map(LogsBatch::split_resources).collect()
            }
        }
    }

    /// One batch per name of a scope.
    fn split_scopes(self) -> Vec<LogsBatch> {
        let mut groups: Vec<(Arc<str>, Vec<bool>)> = Vec::new();
        // Neighbours mostly agree; beyond a few names a search in all of them would cost too much.
        let mut known: std::collections::HashMap<Vec<u8>, usize> = Default::default();
        for row in 0..self.rows {
            let name = self.scope_name(row);
            let i = match known.get(name) {
                Some(i) => *i,
                None => {
                    known.insert(name.to_vec(), groups.len());
                    let text = String::from_utf8_lossy(name);
                    groups.push((Arc::from(&*text), Vec::new()));
                    groups.len() - 1
                }
            };
            let keep = &mut groups[i].1;
            keep.resize(self.rows, false);
            keep[row] = true;
        }
        let mut whole = self;
        whole.scope_names = Vec::new();
        let named = |mut part: LogsBatch, name: Arc<str>| {
            if part.scope.name != name {
                Arc::make_mut(&mut part.scope).name = name;
            }
            part
        };
        if groups.len() == 1 {
            let name = groups.remove(0).0;
            return vec![named(whole, name)];
        }
        let split = |(name, keep): (Arc<str>, Vec<bool>)| {
            let mut part = whole.clone();
            part.retain_rows(&keep);
            named(part, name)
        };
        groups.into_iter().map(split).collect()
    }

    fn split_resources(mut self) -> Vec<LogsBatch> {
        if self.resource_rows.is_empty() {
            return vec![self];
        }
        let constant = |(k, c): (&Key, &Column)| c.as_const().map(|v| (k.clone(), v.clone()));
        let constants: Vec<_> = self.resource_rows.iter().filter_map(constant).collect();
        for (k, v) in constants {
            self.set_resource_all(&k, v);
        }
        if self.resource_rows.is_empty() {
            return vec![self];
        }
        let mut groups: Vec<(Map, Vec<bool>)> = Vec::new();
        for row in 0..self.rows {
            let map = self.resource_of(row);
            let i = groups
                .iter()
                .position(|(m, _)| *m == map)
                .unwrap_or_else(|| {
                    groups.push((map, vec![false; self.rows]));
                    groups.len() - 1
                });
            groups[i].1[row] = true;
        }
        self.resource_rows.clear();
        let split = |(map, keep): (Map, Vec<bool>)| {
            let mut part = self.clone();
            part.retain_rows(&keep);
            part.resource = Arc::new(map);
            part
        };
        groups.into_iter().map(split).collect()
    }

    /// Turns a text column with few distinct values into a dictionary; used by parsers that know
    /// their column is one of a few words. `None` if there are more than 254 distinct values.
    pub fn to_dict(&self, column: &Column) -> Option<Column> {
        let mut values: Vec<Value> = Vec::new();
        let mut codes = Vec::with_capacity(self.rows);
        for row in 0..self.rows {
            let Some(v) = self.value(column, row) else {
                codes.push(DICT_ABSENT);
                continue;
            };
            let code = match values.iter().position(|x| x.as_ref() == v) {
                Some(i) => i,
                None if values.len() < DICT_ABSENT as usize => {
                    values.push(ValueRef::to_value(v));
                    values.len() - 1
                }
                None => return None,
            };
            codes.push(code as u8);
        }
        Some(Column::Dict { codes, values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn batch() -> LogsBatch {
        let mut b = LogsBatch::from_lines(Bytes::from_static(b"abc"), &[(0, 1), (1, 1), (2, 1)]);
        b.attributes.set("k", Column::Const(Value::str("v")));
        b.attributes.set(
            "d",
            Column::dict(vec![0, 255, 1], vec!["x".into(), "y".into()]),
        );
        b.source = Some(crate::SourceRows {
            base: 100,
            rel: vec![0, 1, 2],
        });
        b
    }

    #[test]
    fn setting_one_row_leaves_the_others() {
        let mut b = batch();
        b.set_attribute(1, "k", Cell::Int(7));
        b.set_attribute(1, "d", Cell::Bool(true));
        b.set_attribute(2, "k", Cell::Absent);
        b.set_attribute(0, "new", Cell::Null);
        assert_eq!(b.attribute(0, "k"), Some(ValueRef::Str(b"v")));
        assert_eq!(b.attribute(1, "k"), Some(ValueRef::Int(7)));
        assert_eq!(b.attribute(2, "k"), None);
        assert_eq!(b.attribute(0, "d"), Some(ValueRef::Str(b"x")));
        assert_eq!(b.attribute(1, "d"), Some(ValueRef::Bool(true)));
        assert_eq!(b.attribute(0, "new"), Some(ValueRef::Null));
        assert_eq!(b.attribute(1, "new"), None);
    }

    #[test]
    fn splitting_and_filtering_keep_rows_together() {
        let mut b = batch();
        let tail = b.split_off(1);
        assert_eq!((b.rows(), tail.rows()), (1, 2));
        assert_eq!(tail.body(1), Some(ValueRef::Str(b"c")));
        assert_eq!(tail.source_offset(1), Some(102));
        let mut t = tail;
        t.retain_rows(&[false, true]);
        assert_eq!(t.rows(), 1);
        assert_eq!(t.attribute(0, "d"), Some(ValueRef::Str(b"y")));
        assert_eq!(t.source_offset(0), Some(102));
    }

    #[test]
    fn rows_with_their_own_resource_become_batches_of_their_own() {
        let mut b = batch();
        b.set_resource_all("host", "h".into());
        let cell = b.cell(&Value::str("other"));
        b.set_resource_attribute(1, "host", cell);
        let parts = b.split_by_resource();
        let hosts: Vec<_> = parts
            .iter()
            .map(|p| (p.rows(), p.resource.get("host")))
            .collect();
        assert_eq!(hosts, [(2, Some(&"h".into())), (1, Some(&"other".into()))]);
        assert_eq!(parts[0].body(1), Some(ValueRef::Str(b"c")));
    }

    #[test]
    fn a_resource_column_that_became_constant_does_not_split() {
        let mut b = batch();
        b.resource_rows.set("a", Column::Const(1i64.into()));
        let parts = b.split_by_resource();
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].resource.get("a"), Some(&Value::Int(1)));
    }
}
