//! Fields: the places of a record that operators read and write.
//!
//! `body`, `body.a.b`, `attributes.x`, `resource["k8s.pod.name"]`. Source of the rules: the
//! collector's field syntax and its entry package.

use std::fmt;

use tailwater_pdata::{Cell, Column, Key, LogsBatch, Map, Value, ValueRef};

use super::record_error::RecordError;

/// The part of the record a field is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Root {
    /// The body.
    Body,
    /// The attributes of the record.
    Attributes,
    /// The attributes of its resource.
    Resource,
}

impl Root {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Root::Body => "body",
            Root::Attributes => "attributes",
            Root::Resource => "resource",
        }
    }
}

/// A place of a record: a part of it and the keys that lead there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// The part of the record.
    pub root: Root,
    /// Keys from the part's root to the value; none = the whole part.
    pub keys: Vec<Key>,
}

/// Why a text is not a field.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FieldError {
    /// It does not begin with a part of the record.
    #[error("a field begins with body, attributes or resource, not {0:?}")]
    Root(String),
    /// The whole of attributes or resource is not allowed here.
    #[error("{0} as a whole cannot be used here; name a key, as in {0}.key")]
    Whole(&'static str),
    /// The keys cannot be read.
    #[error("{0}")]
    Syntax(&'static str),
}

impl Field {
    /// The whole body.
    pub fn body() -> Field {
        Field {
            root: Root::Body,
            keys: Vec::new(),
        }
    }

    /// The whole of the attributes.
    pub fn attributes() -> Field {
        Field {
            root: Root::Attributes,
            keys: Vec::new(),
        }
    }

    /// Reads a field that names one value: the body or a key of something.
    ///
    /// # Errors
    /// See [`FieldError`].
    pub fn parse(text: &str) -> Result<Field, FieldError> {
        let field = Field::parse_rootable(text)?;
        match (field.root, field.keys.is_empty()) {
            (Root::Attributes | Root::Resource, true) => Err(FieldError::Whole(field.root.name())),
            _ => Ok(field),
        }
    }

    /// Reads a field that may also be the whole of `attributes` or `resource`.
    ///
    /// # Errors
    /// See [`FieldError`].
    pub fn parse_rootable(text: &str) -> Result<Field, FieldError> {
        let end = text.find(['.', '[']).unwrap_or(text.len());
        let root = match &text[..end] {
            "body" => Root::Body,
            "attributes" => Root::Attributes,
            "resource" => Root::Resource,
            other => return Err(FieldError::Root(other.to_owned())),
        };
        Ok(Field {
            root,
            keys: keys(&text[end..])?,
        })
    }

    /// The value at `row`. The body is always there, as null when it is empty; the whole of
    /// attributes or resource has no borrowed form and reads as not there.
    pub fn get<'a>(&self, batch: &'a LogsBatch, row: usize) -> Option<ValueRef<'a>> {
        let (first, rest) = match (self.root, self.keys.split_first()) {
            (Root::Body, _) => (
                Some(batch.body(row).unwrap_or(ValueRef::Null)),
                &self.keys[..],
            ),
            (Root::Attributes, Some((key, rest))) => (batch.attribute(row, key), rest),
            (Root::Resource, Some((key, rest))) => (batch.resource_attribute(row, key), rest),
            _ => (None, &self.keys[..]),
        };
        rest.iter().try_fold(first?, |value, key| match value {
            ValueRef::Map(map) => map.get(key).map(Value::as_ref),
            _ => None,
        })
    }

    /// The value at `row` as a cell of the batch. Text that is in the batch is not copied.
    pub fn cell(&self, batch: &mut LogsBatch, row: usize) -> Option<Cell> {
        let column = match (self.root, &self.keys[..]) {
            (Root::Body, []) => Some(&batch.body),
            (Root::Attributes, [key]) => batch.attributes.get(key),
            (Root::Resource, [key]) => batch.resource_rows.get(key),
            _ => None,
        };
        match column {
            Some(Column::Slices(s)) if !s[row].is_absent() => return Some(Cell::Str(s[row])),
            Some(Column::Cells(c)) if c[row] != Cell::Absent => return Some(c[row]),
            _ => {}
        }
        let value = self.get(batch, row)?.to_value();
        Some(batch.cell(&value))
    }

    /// Sets the value at `row`. Maps on the way there are made when they are not there; a map is
    /// merged into a map that is there, key by key.
    ///
    /// # Errors
    /// Something else than a map for the whole of attributes or resource.
    pub fn set(&self, batch: &mut LogsBatch, row: usize, cell: Cell) -> Result<(), RecordError> {
        if let Cell::Value(i) = cell
            && let Some(Value::Map(map)) = batch.values().get(i as usize)
        {
            let map = map.clone();
            self.merge(batch, row, map);
            return Ok(());
        }
        match (self.root, &self.keys[..]) {
            (Root::Body, []) => batch.set_body(row, cell),
            (Root::Attributes, [key]) => batch.set_attribute(row, key, cell),
            (Root::Resource, [key]) => batch.set_resource_attribute(row, key, cell),
            (Root::Attributes | Root::Resource, []) => {
                return Err(RecordError::Root(self.root.name()));
            }
            (_, keys) => {
                let value = value_of(batch, cell);
                let (at, path) = self.split(keys);
                let mut whole = at.map_at(batch, row);
                if let Some(slot) = descend(&mut whole, path) {
                    *slot = value;
                }
                at.put_map(batch, row, whole);
            }
        }
        Ok(())
    }

    /// Merges `map` into the map at this field, key by key; makes that map if it is not there.
    pub fn merge(&self, batch: &mut LogsBatch, row: usize, map: Map) {
        match (self.root, &self.keys[..]) {
            (Root::Attributes, []) => {
                for (key, value) in map.iter() {
                    let cell = batch.cell(value);
                    batch.set_attribute(row, key, cell);
                }
            }
            (Root::Resource, []) => {
                for (key, value) in map.iter() {
                    let cell = batch.cell(value);
                    batch.set_resource_attribute(row, key, cell);
                }
            }
            (_, keys) => {
                let (at, path) = self.split(keys);
                let mut whole = at.map_at(batch, row);
                let target = match path {
                    [] => &mut whole,
                    _ => match descend(&mut whole, path).map(map_in) {
                        Some(map) => map,
                        None => return,
                    },
                };
                for (key, value) in map.iter() {
                    target.insert(key.clone(), value.clone());
                }
                at.put_map(batch, row, whole);
            }
        }
    }

    /// Removes the value at `row`.
    ///
    /// # Errors
    /// There is none. Whole parts are always there.
    pub fn remove(&self, batch: &mut LogsBatch, row: usize) -> Result<(), RecordError> {
        match (self.root, &self.keys[..]) {
            (Root::Body, []) => batch.set_body(row, Cell::Absent),
            (Root::Attributes, []) => {
                for key in names(&batch.attributes) {
                    batch.set_attribute(row, &key, Cell::Absent);
                }
            }
            (Root::Resource, []) => {
                let mut all = names(&batch.resource_rows);
                all.extend(batch.resource.iter().map(|(k, _)| k.clone()));
                for key in all {
                    batch.set_resource_attribute(row, &key, Cell::Absent);
                }
            }
            (Root::Attributes, [key]) if batch.attribute(row, key).is_some() => {
                batch.set_attribute(row, key, Cell::Absent);
            }
            (Root::Resource, [key]) if batch.resource_attribute(row, key).is_some() => {
                batch.set_resource_attribute(row, key, Cell::Absent);
            }
            (_, keys) if self.get(batch, row).is_some() => {
                let (at, path) = self.split(keys);
                let mut whole = at.map_at(batch, row);
                if let Some((last, path)) = path.split_last() {
                    let parent = match path {
                        [] => Some(&mut whole),
                        _ => descend(&mut whole, path).map(map_in),
                    };
                    parent.map(|map| map.remove(last));
                }
                at.put_map(batch, row, whole);
            }
            _ => return Err(self.missing()),
        }
        Ok(())
    }

    /// The error of a record without this field.
    pub fn missing(&self) -> RecordError {
        RecordError::Missing(self.to_string())
    }

    /// The cell that holds the value, and the path within it.
    fn split<'k>(&self, keys: &'k [Key]) -> (Place<'k>, &'k [Key]) {
        match (self.root, keys) {
            (Root::Attributes, [first, rest @ ..]) => (Place::Attribute(first), rest),
            (Root::Resource, [first, rest @ ..]) => (Place::Resource(first), rest),
            _ => (Place::Body, keys),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.root.name())?;
        for key in &self.keys {
            match key.contains(['.', '[']) {
                true => write!(f, "[{key:?}]")?,
                false => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

/// A cell of a row.
enum Place<'k> {
    Body,
    Attribute(&'k str),
    Resource(&'k str),
}

impl Place<'_> {
    /// The map that is there, an empty one if something else is.
    fn map_at(&self, batch: &LogsBatch, row: usize) -> Map {
        let value = match self {
            Place::Body => batch.body(row),
            Place::Attribute(key) => batch.attribute(row, key),
            Place::Resource(key) => batch.resource_attribute(row, key),
        };
        match value {
            Some(ValueRef::Map(map)) => map.clone(),
            _ => Map::new(),
        }
    }

    fn put_map(&self, batch: &mut LogsBatch, row: usize, map: Map) {
        let cell = batch.big_cell(Value::Map(map));
        match self {
            Place::Body => batch.set_body(row, cell),
            Place::Attribute(key) => batch.set_attribute(row, key, cell),
            Place::Resource(key) => batch.set_resource_attribute(row, key, cell),
        }
    }
}

fn names(columns: &tailwater_pdata::Columns) -> Vec<Key> {
    columns.iter().map(|(k, _)| k.clone()).collect()
}

fn value_of(batch: &LogsBatch, cell: Cell) -> Value {
    match cell {
        Cell::Absent | Cell::Null => Value::Null,
        Cell::Bool(b) => Value::Bool(b),
        Cell::Int(i) => Value::Int(i),
        Cell::Double(d) => Value::Double(d),
        Cell::Str(s) => ValueRef::Str(batch.bytes(s)).to_value(),
        Cell::Value(i) => batch.values().get(i as usize).cloned().unwrap_or_default(),
    }
}

/// The map in `value`, which becomes an empty one if it is something else.
fn map_in(value: &mut Value) -> &mut Map {
    if !matches!(value, Value::Map(_)) {
        *value = Value::Map(Map::new());
    }
    match value {
        Value::Map(map) => map,
        _ => unreachable!("made a map above"),
    }
}

/// The slot at `path`, made of maps on the way; `None` for an empty path.
fn descend<'m>(map: &'m mut Map, path: &[Key]) -> Option<&'m mut Value> {
    let (first, rest) = path.split_first()?;
    if map.get(first).is_none() {
        map.insert(first.clone(), Value::Null);
    }
    let slot = map.get_mut(first)?;
    match rest {
        [] => Some(slot),
        _ => descend(map_in(slot), rest),
    }
}

/// The keys of `.a["b.c"].d`.
fn keys(text: &str) -> Result<Vec<Key>, FieldError> {
    let mut out: Vec<Key> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(r) = rest.strip_prefix('[') {
            let quote = r.chars().next().filter(|c| matches!(c, '"' | '\''));
            let quote = quote.ok_or(FieldError::Syntax("a key in brackets has to be quoted"))?;
            let r = &r[1..];
            let end = r
                .find(quote)
                .ok_or(FieldError::Syntax("a quoted key is never closed"))?;
            out.push(r[..end].into());
            rest = r[end + 1..]
                .strip_prefix(']')
                .ok_or(FieldError::Syntax("a bracket is never closed"))?;
        } else if let Some(r) = rest.strip_prefix('.') {
            let end = r.find(['.', '[']).unwrap_or(r.len());
            if end == 0 {
                return Err(FieldError::Syntax("a key after a dot is empty"));
            }
            out.push(r[..end].into());
            rest = &r[end..];
        } else {
            return Err(FieldError::Syntax(
                "after a bracket comes a dot or another bracket",
            ));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_pdata::Entry;

    fn field(text: &str) -> Field {
        Field::parse_rootable(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn map(entries: &[(&str, Value)]) -> Map {
        entries.iter().cloned().collect()
    }

    #[test]
    fn fields_are_written_with_dots_and_brackets() {
        for (text, root, keys, shown) in [
            ("body", Root::Body, &[][..], "body"),
            ("body.a.b", Root::Body, &["a", "b"][..], "body.a.b"),
            (
                "attributes['a.b'].c",
                Root::Attributes,
                &["a.b", "c"][..],
                "attributes[\"a.b\"].c",
            ),
            (
                "resource[\"x\"]['y']",
                Root::Resource,
                &["x", "y"][..],
                "resource.x.y",
            ),
            ("attributes", Root::Attributes, &[][..], "attributes"),
        ] {
            let f = field(text);
            assert_eq!(f.root, root);
            assert_eq!(f.keys.iter().map(|k| &**k).collect::<Vec<_>>(), keys);
            assert_eq!(f.to_string(), shown);
        }
        for (text, want) in [
            ("", "begins with body"),
            ("attribute.x", "not \"attribute\""),
            ("body.", "empty"),
            ("body..a", "empty"),
            ("body[a]", "quoted"),
            ("body['a", "never closed"),
            ("body['a'x", "never closed"),
            ("body['a']x", "after a bracket"),
            ("attributes", "as a whole"),
            ("resource", "as a whole"),
        ] {
            let e = Field::parse(text).expect_err(text).to_string();
            assert!(e.contains(want), "{text}: {e}");
        }
    }

    #[test]
    fn setting_makes_the_maps_on_the_way_and_merges_maps() {
        let entry = Entry {
            body: "text".into(),
            ..Entry::default()
        };
        let mut b = LogsBatch::from_entries(&[entry.clone(), entry.clone()]);
        field("body.a.b")
            .set(&mut b, 0, Cell::Int(1))
            .expect("sets");
        field("attributes.x.y")
            .set(&mut b, 0, Cell::Bool(true))
            .expect("sets");
        field("resource.r")
            .set(&mut b, 0, Cell::Int(2))
            .expect("sets");
        let m = b.big_cell(Value::Map(map(&[("z", Value::Int(3))])));
        field("attributes.x").set(&mut b, 0, m).expect("merges");
        field("attributes").set(&mut b, 0, m).expect("merges");
        field("body.a").set(&mut b, 0, m).expect("merges");
        let want = Entry {
            body: Value::Map(map(&[(
                "a",
                Value::Map(map(&[("b", Value::Int(1)), ("z", Value::Int(3))])),
            )])),
            attributes: map(&[
                (
                    "x",
                    Value::Map(map(&[("y", Value::Bool(true)), ("z", Value::Int(3))])),
                ),
                ("z", Value::Int(3)),
            ]),
            resource: map(&[("r", Value::Int(2))]),
            ..Entry::default()
        };
        assert_eq!(b.to_entries(), [want, entry]);
        assert_eq!(
            field("attributes").set(&mut b, 0, Cell::Int(1)),
            Err(RecordError::Root("attributes"))
        );
    }

    #[test]
    fn removing_what_is_not_there_is_an_error_and_whole_parts_can_go() {
        let entry = Entry {
            body: Value::Map(map(&[("a", Value::Map(map(&[("b", Value::Int(1))])))])),
            attributes: map(&[("k", Value::Int(1))]),
            resource: map(&[("r", Value::Int(2))]),
            ..Entry::default()
        };
        let mut b = LogsBatch::from_entries(&[entry.clone(), entry.clone()]);
        assert_eq!(
            field("body.a.x").remove(&mut b, 0),
            Err(field("body.a.x").missing())
        );
        assert_eq!(
            field("attributes.x").remove(&mut b, 0),
            Err(field("attributes.x").missing())
        );
        field("body.a.b").remove(&mut b, 0).expect("is there");
        assert_eq!(
            b.entry(0).body,
            Value::Map(map(&[("a", Value::Map(Map::new()))]))
        );
        for whole in ["body", "attributes", "resource"] {
            field(whole).remove(&mut b, 0).expect("always there");
        }
        assert_eq!(b.to_entries(), [Entry::default(), entry]);
    }
}
