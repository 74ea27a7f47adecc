//! Log records in columns.

mod whole;

use std::borrow::Cow;
use std::cell::Cell as Slot;
use std::sync::Arc;

use bytes::Bytes;
use tailwater_pdata::{
    Cell, Key, LogsBatch, Map, OtlpFields, Slice, TraceColumns, Value, ValueRef,
};

use crate::error::Fault;
use crate::field::Field;
use crate::functions::{hex, unhex};
use crate::scene::{Scene, SceneMut};
use crate::value::{Stored, Val};

/// Columns of attributes that a batch may get from statements in any case.
const COLUMNS_FREE: usize = 64;
/// Cells of attributes that a batch may have beyond that: records that have hardly a key in common would
/// take rows times columns.
const CELLS_MAX: usize = 1 << 20;

/// Columns of attributes that statements may bring a batch to: a key is looked for in all of them.
const COLUMNS_MAX: usize = 1024;

/// A record of a batch, or its resource and scope.
pub struct LogScene<'b> {
    batch: &'b mut LogsBatch,
    row: usize,
    cache: Map,
    /// Literals that were stored in this batch already, by where they lie.
    literals: Vec<(usize, Cell)>,
    /// Where keys were found the last time, see [`LogScene::position`].
    places: [Slot<usize>; PLACES],
}

/// Positions that are kept for the next record.
const PLACES: usize = 8;

impl<'b> LogScene<'b> {
    /// The first record of `batch`.
    pub fn new(batch: &'b mut LogsBatch) -> LogScene<'b> {
        LogScene {
            batch,
            row: 0,
            cache: Map::new(),
            literals: Vec::new(),
            places: Default::default(),
        }
    }

    /// Goes to the record `row`, which begins with an empty cache.
    pub fn go_to(&mut self, row: usize) {
        self.row = row;
        if !self.cache.is_empty() {
            self.cache.retain(|_, _| false);
        }
    }

    /// Number of records.
    pub fn rows(&self) -> usize {
        self.batch.rows()
    }

    /// The column of the attribute `key`. Each place in a statement looks for the same key in every record, so
    /// the column that was found from there is looked at first.
    #[inline]
    fn position(&self, key: &str) -> Option<usize> {
        // Where the key lies says which place asks; what it is is compared in any case.
        let place = &self.places[(key.as_ptr() as usize >> 4) % PLACES];
        let at = place.get();
        if let Some((found, _)) = self.batch.attributes.at(at)
            && **found == *key
        {
            return Some(at);
        }
        let at = self.batch.attributes.position(key)?;
        place.set(at);
        Some(at)
    }

    fn attribute(&self, key: &str) -> Option<ValueRef<'_>> {
        let (_, column) = self.batch.attributes.at(self.position(key)?)?;
        self.batch.value(column, self.row)
    }

    fn set_attribute(&mut self, key: &str, cell: Cell) {
        match self.position(key) {
            Some(at) => self.batch.set_attribute_at(self.row, at, cell),
            None => self.batch.set_attribute(self.row, key, cell),
        }
    }

    fn trace_id(&self) -> &[u8] {
        let trace = self.batch.trace.as_deref();
        trace.map_or(&[0; 16][..], |t| &t.trace_id[self.row])
    }

    fn span_id(&self) -> &[u8] {
        let trace = self.batch.trace.as_deref();
        trace.map_or(&[0; 8][..], |t| &t.span_id[self.row])
    }

    fn trace_mut(&mut self) -> &mut TraceColumns {
        let rows = self.batch.rows();
        self.batch.trace.get_or_insert_with(|| {
            Box::new(TraceColumns {
                trace_id: vec![[0; 16]; rows],
                span_id: vec![[0; 8]; rows],
                flags: vec![0; rows],
            })
        })
    }

    fn otlp_mut(&mut self) -> &mut OtlpFields {
        self.batch.otlp.get_or_insert_with(Box::default)
    }

    fn map_of(&self, field: Field) -> Option<Cow<'_, Map>> {
        Some(match field {
            Field::Cache => Cow::Borrowed(&self.cache),
            Field::Attributes => Cow::Owned(self.batch.attributes_of(self.row)),
            Field::ResourceAttributes if self.batch.resource_rows.is_empty() => {
                Cow::Borrowed(&*self.batch.resource)
            }
            Field::ResourceAttributes => Cow::Owned(self.batch.resource_of(self.row)),
            Field::ScopeAttributes => Cow::Borrowed(&self.batch.scope.attributes),
            _ => return None,
        })
    }

    /// A literal as a cell, which enters the batch once.
    fn literal(&mut self, value: &Value) -> Cell {
        // It is part of a statement, which outlives the batch: its place is its name.
        let place = std::ptr::from_ref(value) as usize;
        if let Some((_, cell)) = self.literals.iter().find(|(p, _)| *p == place) {
            return *cell;
        }
        let cell = self.batch.cell(value);
        self.literals.push((place, cell));
        cell
    }

    /// A value on its way into a cell.
    fn cell(&mut self, field: &'static str, value: Stored) -> Result<Cell, Fault> {
        Ok(match value {
            Stored::Slice(slice) => Cell::Str(slice),
            Stored::Text(text) => Cell::Str(self.batch.text.push(&text)),
            Stored::Value(value) => self.batch.cell(&value),
            Stored::Time(_) | Stored::Duration(_) => {
                let found = value.kind();
                return Err(Fault::Store { field, found });
            }
        })
    }

    fn value(&self, field: &'static str, value: Stored) -> Result<Value, Fault> {
        value.into_value(field, |slice| self.batch.bytes(slice).to_vec())
    }

    fn text(&self, field: &'static str, value: Stored) -> Result<String, Fault> {
        match self.value(field, value)? {
            Value::Str(text) => Ok(text.to_string()),
            other => Err(Fault::Store {
                field,
                found: other.as_ref().kind_name(),
            }),
        }
    }

    fn int(&self, field: &'static str, value: &Stored) -> Result<i64, Fault> {
        match value {
            Stored::Value(Value::Int(i)) => Ok(*i),
            other => Err(Fault::Store {
                field,
                found: other.kind(),
            }),
        }
    }

    fn small<T: TryFrom<i64>>(&self, field: &'static str, value: &Stored) -> Result<T, Fault> {
        let found = "a number that is out of range";
        T::try_from(self.int(field, value)?).map_err(|_| Fault::Store { field, found })
    }

    fn map(&self, field: &'static str, value: Stored) -> Result<Map, Fault> {
        match self.value(field, value)? {
            Value::Map(map) => Ok(map),
            other => Err(Fault::Store {
                field,
                found: other.as_ref().kind_name(),
            }),
        }
    }

    /// Whether there is room for another column.
    fn has_room(&self, key: &str) -> Result<(), Fault> {
        let columns = self.batch.attributes.len();
        let few = (columns + 1).saturating_mul(self.batch.rows()) <= CELLS_MAX;
        if columns < COLUMNS_FREE || (few && columns < COLUMNS_MAX) || self.position(key).is_some()
        {
            return Ok(());
        }
        Err(Fault::failed(
            "attributes",
            "the records of this batch have too many different keys",
        ))
    }

    fn put_attribute(&mut self, key: &str, value: Stored) -> Result<(), Fault> {
        self.has_room(key)?;
        let cell = self.cell("an attribute", value)?;
        self.set_attribute(key, cell);
        Ok(())
    }

    /// Makes the attributes of the record those of `map`.
    fn put_attributes(&mut self, map: &Map) -> Result<(), Fault> {
        let row = self.row;
        if map.len() > COLUMNS_MAX.max(self.batch.attributes.len()) {
            return Err(Fault::failed("attributes", "there are too many of them"));
        }
        let gone: Vec<Key> = {
            let columns = self.batch.attributes.iter();
            let there = columns.filter(|(_, c)| self.batch.value(c, row).is_some());
            there
                .map(|(k, _)| k)
                .filter(|k| map.get(k).is_none())
                .cloned()
                .collect()
        };
        for (key, _) in map.iter() {
            self.has_room(key)?;
        }
        for key in gone {
            self.remove_entry(Field::Attributes, &key);
        }
        for (key, value) in map.iter() {
            if self.batch.attribute(row, key) != Some(value.as_ref()) {
                let cell = self.batch.cell(value);
                self.batch.set_attribute(row, key, cell);
            }
        }
        Ok(())
    }

    fn put_map(&mut self, field: Field, map: Map) -> Result<(), Fault> {
        match field {
            Field::Cache => self.cache = map,
            Field::Attributes => self.put_attributes(&map)?,
            Field::ResourceAttributes => {
                self.batch.resource_rows.clear();
                if *self.batch.resource != map {
                    self.batch.resource = Arc::new(map);
                }
            }
            _ => {
                if self.batch.scope.attributes != map {
                    Arc::make_mut(&mut self.batch.scope).attributes = map;
                }
            }
        }
        Ok(())
    }
}

fn or_empty(text: Option<&[u8]>) -> Val<'_> {
    Val::Str(Cow::Borrowed(text.unwrap_or_default()))
}

fn or_nil(value: Option<ValueRef<'_>>) -> Val<'_> {
    value.map_or(Val::Nil, Val::from)
}

impl Scene for LogScene<'_> {
    fn get(&self, field: Field) -> Val<'_> {
        let (batch, row) = (&*self.batch, self.row);
        let otlp = batch.otlp.as_deref();
        match field {
            Field::Time => Val::Time(batch.time.get(row)),
            Field::TimeUnixNano => Val::Int(batch.time.get(row)),
            Field::ObservedTime => Val::Time(batch.observed.get(row)),
            Field::ObservedTimeUnixNano => Val::Int(batch.observed.get(row)),
            Field::SeverityNumber => Val::Int(batch.severity.get(row).into()),
            Field::SeverityText => match batch.severity_text(row) {
                None => or_empty(None),
                text => or_nil(text),
            },
            Field::Body => or_nil(batch.body(row)),
            Field::BodyString => match batch.body(row) {
                Some(ValueRef::Str(text)) => Val::Str(Cow::Borrowed(text)),
                Some(other) => Val::text(other.to_display_string()),
                None => or_empty(None),
            },
            Field::TraceId => Val::Bytes(Cow::Borrowed(self.trace_id())),
            Field::TraceIdString => Val::text(hex(self.trace_id())),
            Field::SpanId => Val::Bytes(Cow::Borrowed(self.span_id())),
            Field::SpanIdString => Val::text(hex(self.span_id())),
            Field::Flags => Val::Int(batch.trace.as_deref().map_or(0, |t| t.flags[row]).into()),
            Field::EventName => or_empty(batch.event_name(row)),
            Field::DroppedAttributes => Val::Int(batch.dropped_attributes(row).into()),
            Field::ResourceDropped => {
                Val::Int(otlp.map_or(0, |o| o.resource.dropped_attributes).into())
            }
            Field::ResourceSchemaUrl => or_empty(otlp.map(|o| o.resource.schema_url.as_bytes())),
            Field::ScopeName => or_empty(Some(batch.scope_name(row))),
            Field::ScopeVersion => or_empty(Some(batch.scope.version.as_bytes())),
            Field::ScopeDropped => Val::Int(batch.scope.dropped_attributes.into()),
            Field::ScopeSchemaUrl => or_empty(Some(batch.scope.schema_url.as_bytes())),
            map => self.map_of(map).map_or(Val::Nil, Val::Map),
        }
    }

    fn entry(&self, field: Field, key: &str) -> Val<'_> {
        let of = |map: Option<&'_ Value>| or_nil(map.map(Value::as_ref)).into_static();
        match field {
            Field::Attributes => or_nil(self.attribute(key)),
            Field::ResourceAttributes => or_nil(self.batch.resource_attribute(self.row, key)),
            Field::ScopeAttributes => {
                or_nil(self.batch.scope.attributes.get(key).map(Value::as_ref))
            }
            Field::Cache => or_nil(self.cache.get(key).map(Value::as_ref)),
            _ => of(None),
        }
    }
}

impl SceneMut for LogScene<'_> {
    fn store(&self, val: Val<'_>) -> Stored {
        if let Val::Str(Cow::Borrowed(text)) = &val
            && let Some(slice) = self.batch.text.slice_of(text)
        {
            return Stored::Slice(slice);
        }
        Stored::of(val)
    }

    fn has_columns(&self) -> bool {
        true
    }

    fn text_of(&self, slice: Slice) -> Vec<u8> {
        self.batch.bytes(slice).to_vec()
    }

    fn set(&mut self, field: Field, value: Stored) -> Result<(), Fault> {
        let (row, rows) = (self.row, self.batch.rows());
        let time = |name: &'static str, value: &Stored| match value {
            Stored::Time(ns) => Ok(*ns),
            other => Err(Fault::Store {
                field: name,
                found: other.kind(),
            }),
        };
        match field {
            Field::Time => self.batch.time.each_mut(rows)[row] = time("time", &value)?,
            Field::TimeUnixNano => {
                let ns = self.int("time_unix_nano", &value)?;
                self.batch.time.each_mut(rows)[row] = ns;
            }
            Field::ObservedTime => {
                self.batch.observed.each_mut(rows)[row] = time("observed_time", &value)?;
            }
            Field::ObservedTimeUnixNano => {
                let ns = self.int("observed_time_unix_nano", &value)?;
                self.batch.observed.each_mut(rows)[row] = ns;
            }
            Field::SeverityNumber => {
                let number = self.small("severity_number", &value)?;
                self.batch.severity.each_mut(rows)[row] = number;
            }
            Field::SeverityText => {
                let cell = self.text_cell("severity_text", value)?;
                self.batch.set_severity_text(row, cell);
            }
            Field::Body => {
                let cell = self.cell("body", value)?;
                self.batch.set_body(row, cell);
            }
            Field::BodyString => {
                let cell = self.text_cell("body.string", value)?;
                self.batch.set_body(row, cell);
            }
            Field::TraceId | Field::TraceIdString => {
                let id = self.id("trace_id", value)?;
                self.trace_mut().trace_id[row] = id;
            }
            Field::SpanId | Field::SpanIdString => {
                let id = self.id("span_id", value)?;
                self.trace_mut().span_id[row] = id;
            }
            Field::Flags => {
                let flags = self.small("flags", &value)?;
                self.trace_mut().flags[row] = flags;
            }
            Field::EventName => {
                let Cell::Str(name) = self.text_cell("event_name", value)? else {
                    return Ok(());
                };
                let names = &mut self.otlp_mut().event_name;
                names.resize(rows, Slice::ABSENT);
                names[row] = name;
            }
            Field::DroppedAttributes => {
                let count = self.small("dropped_attributes_count", &value)?;
                let counts = &mut self.otlp_mut().dropped_attributes;
                counts.resize(rows, 0);
                counts[row] = count;
            }
            Field::ResourceDropped => {
                let count = self.small("resource.dropped_attributes_count", &value)?;
                Arc::make_mut(&mut self.otlp_mut().resource).dropped_attributes = count;
            }
            Field::ResourceSchemaUrl => {
                let url = self.text("resource.schema_url", value)?;
                Arc::make_mut(&mut self.otlp_mut().resource).schema_url = url.into();
            }
            Field::ScopeName => {
                let name = self.text("scope.name", value)?;
                self.batch.scope_names.clear();
                Arc::make_mut(&mut self.batch.scope).name = name.into();
            }
            Field::ScopeVersion => {
                let version = self.text("scope.version", value)?;
                Arc::make_mut(&mut self.batch.scope).version = version.into();
            }
            Field::ScopeDropped => {
                let count = self.small("scope.dropped_attributes_count", &value)?;
                Arc::make_mut(&mut self.batch.scope).dropped_attributes = count;
            }
            Field::ScopeSchemaUrl => {
                let url = self.text("scope.schema_url", value)?;
                Arc::make_mut(&mut self.batch.scope).schema_url = url.into();
            }
            map => {
                let value = self.map("a map", value)?;
                self.put_map(map, value)?;
            }
        }
        Ok(())
    }

    fn set_entry(&mut self, field: Field, key: &Key, value: Stored) -> Result<(), Fault> {
        if field == Field::Attributes {
            return self.put_attribute(key, value);
        }
        let value = self.value("an attribute", value)?;
        match field {
            Field::Cache => {
                self.cache.insert(key.clone(), value);
            }
            Field::ResourceAttributes => self.batch.set_resource_all(key, value),
            _ => {
                if self.batch.scope.attributes.get(key) != Some(&value) {
                    let scope = Arc::make_mut(&mut self.batch.scope);
                    scope.attributes.insert(key.clone(), value);
                }
            }
        }
        Ok(())
    }

    fn set_literal(&mut self, field: Field, key: Option<&Key>, value: &Value) -> Result<(), Fault> {
        match (field, key) {
            (Field::Attributes, Some(key)) => {
                self.has_room(key)?;
                let cell = self.literal(value);
                self.set_attribute(key, cell);
                Ok(())
            }
            (Field::Body, None) => {
                let cell = self.literal(value);
                self.batch.set_body(self.row, cell);
                Ok(())
            }
            (Field::SeverityText, None) if matches!(value, Value::Str(_)) => {
                let cell = self.literal(value);
                self.batch.set_severity_text(self.row, cell);
                Ok(())
            }
            (_, None) => self.set(field, Stored::Value(value.clone())),
            (_, Some(key)) => {
                // Resources and scopes are shared, and mostly have it since the first record.
                let map = match field {
                    Field::ResourceAttributes if self.batch.resource_rows.is_empty() => {
                        Some(&*self.batch.resource)
                    }
                    Field::ScopeAttributes => Some(&self.batch.scope.attributes),
                    _ => None,
                };
                match map.is_some_and(|m| m.get(key) == Some(value)) {
                    true => Ok(()),
                    false => self.set_entry(field, key, Stored::Value(value.clone())),
                }
            }
        }
    }

    fn remove_entry(&mut self, field: Field, key: &str) {
        match field {
            Field::Attributes => {
                if self.attribute(key).is_some() {
                    self.set_attribute(key, Cell::Absent);
                }
            }
            Field::ResourceAttributes => self.batch.remove_resource_all(key),
            Field::Cache => {
                self.cache.remove(key);
            }
            _ => {
                if self.batch.scope.attributes.get(key).is_some() {
                    Arc::make_mut(&mut self.batch.scope).attributes.remove(key);
                }
            }
        }
    }

    fn retain(&mut self, field: Field, keep: &mut dyn FnMut(&str) -> bool) {
        if field == Field::Attributes {
            for i in 0..self.batch.attributes.len() {
                let Some((key, column)) = self.batch.attributes.at(i) else {
                    break;
                };
                if self.batch.value(column, self.row).is_some() && !keep(key) {
                    let key = key.clone();
                    self.batch.set_attribute(self.row, &key, Cell::Absent);
                }
            }
            return;
        }
        let Some(map) = self.map_of(field) else {
            return;
        };
        let gone: Vec<Key> = map
            .iter()
            .map(|(k, _)| k)
            .filter(|k| !keep(k))
            .cloned()
            .collect();
        for key in gone {
            self.remove_entry(field, &key);
        }
    }

    fn update(
        &mut self,
        field: Field,
        change: &mut dyn FnMut(&mut Map) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let Some(map) = self.map_of(field) else {
            return Ok(());
        };
        let mut map = map.into_owned();
        change(&mut map)?;
        self.put_map(field, map)
    }
}

impl LogScene<'_> {
    fn text_cell(&mut self, field: &'static str, value: Stored) -> Result<Cell, Fault> {
        match self.cell(field, value)? {
            Cell::Str(slice) => Ok(Cell::Str(slice)),
            _ => Err(Fault::Store {
                field,
                found: "what is no text",
            }),
        }
    }

    /// An id as bytes, or as text of hexadecimal digits.
    fn id<const N: usize>(&self, field: &'static str, value: Stored) -> Result<[u8; N], Fault> {
        let bytes = match self.value(field, value)? {
            Value::Bytes(bytes) => bytes,
            Value::Str(text) => Bytes::from(unhex(text.as_bytes()).unwrap_or_default()),
            other => {
                let found = other.as_ref().kind_name();
                return Err(Fault::Store { field, found });
            }
        };
        let found = "what is no id of this length";
        bytes[..]
            .try_into()
            .map_err(|_| Fault::Store { field, found })
    }
}
