//! What makes records the same.

use std::hash::Hash;

use tailwater_pdata::{Cell, Column, Key, LogsBatch, Map, Value, ValueRef};

use crate::streams::{Identity, put_text};

/// A place in a record: the names of keys, each within the one before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Field {
    /// In a body that is a map.
    Body(Vec<Key>),
    /// In the attributes; without a name, all of them.
    Attributes(Vec<Key>),
}

impl Field {
    /// Reads `body.a.b` or `attributes.a`; a dot that is a part of a key is written `\.`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Field, String> {
        let mut names: Vec<String> = vec![String::new()];
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '\\' if rest.peek() == Some(&'.') => {
                    rest.next();
                    names.last_mut().expect("begins with one").push('.');
                }
                '.' => names.push(String::new()),
                c => names.last_mut().expect("begins with one").push(c),
            }
        }
        let mut names = names.into_iter();
        let first = names.next().unwrap_or_default();
        let names: Vec<Key> = names.map(Key::from).collect();
        if names.iter().any(|name| name.is_empty()) {
            return Err("has an empty name between dots; write \\. for a dot in a key".to_owned());
        }
        match first.as_str() {
            "body" if names.is_empty() => {
                Err("the whole body cannot be named, only fields in it".to_owned())
            }
            "body" => Ok(Field::Body(names)),
            "attributes" => Ok(Field::Attributes(names)),
            _ => Err(
                "must begin with body or attributes, as body.field or attributes.key".to_owned(),
            ),
        }
    }

    /// Takes the field out of all records.
    fn remove(&self, batch: &mut LogsBatch) {
        match self {
            Field::Attributes(names) => match &names[..] {
                [] => batch.attributes.clear(),
                [name] => {
                    batch.attributes.remove(name);
                }
                [name, inner @ ..] => {
                    for row in 0..batch.rows() {
                        let value = batch.attribute(row, name);
                        if let Some(new) = value.and_then(|v| without(v, inner)) {
                            let cell = batch.cell(&new);
                            batch.set_attribute(row, name, cell);
                        }
                    }
                }
            },
            Field::Body(names) => {
                if let Column::Slices(_) = batch.body {
                    return;
                }
                for row in 0..batch.rows() {
                    let new = batch.body(row).and_then(|body| without(body, names));
                    if let Some(new) = new {
                        let cell: Cell = batch.cell(&new);
                        batch.set_body(row, cell);
                    }
                }
            }
        }
    }

    /// The value of the field in a record.
    fn of<'b>(&self, batch: &'b LogsBatch, row: usize) -> Option<ValueRef<'b>> {
        let (value, names) = match self {
            Field::Body(names) => (batch.body(row)?, &names[..]),
            Field::Attributes(names) => {
                let (first, inner) = names.split_first()?;
                (batch.attribute(row, first)?, inner)
            }
        };
        names.iter().try_fold(value, |value, name| match value {
            ValueRef::Map(map) => map.get(name).map(Value::as_ref),
            _ => None,
        })
    }
}

/// A map without the field `names`; `None` if it is not in it.
fn without(value: ValueRef<'_>, names: &[Key]) -> Option<Value> {
    let ValueRef::Map(map) = value else {
        return None;
    };
    let (name, inner) = names.split_first()?;
    let found = map.get(name)?;
    let mut map = map.clone();
    match inner {
        [] => map.remove(name),
        inner => map.insert(name.clone(), without(found.as_ref(), inner)?),
    };
    Some(Value::Map(map))
}

/// What is looked at to tell whether records are the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fields {
    /// Body, attributes and severity.
    All,
    /// The same without these, which are removed.
    Without(Vec<Field>),
    /// Only these; all, of a record that has none of them.
    Only(Vec<Field>),
}

/// Computes what records are, with buffers to use again.
pub(super) struct Identities {
    identity: Identity,
    sums: Vec<u128>,
    text: Vec<u8>,
}

impl Identities {
    pub fn new(identity: Identity) -> Identities {
        Identities {
            identity,
            sums: Vec::new(),
            text: Vec::new(),
        }
    }

    /// Removes what does not count, and gives one identity for each row. `around` is what they are in.
    pub fn of(&mut self, fields: &Fields, batch: &mut LogsBatch, around: u128) -> &[u128] {
        if let Fields::Without(fields) = fields {
            fields.iter().for_each(|field| field.remove(batch));
        }
        self.attributes(batch);
        for row in 0..batch.rows() {
            let id = match fields {
                Fields::Only(fields) => self.only(fields, batch, row, around),
                _ => None,
            };
            self.sums[row] = id.unwrap_or_else(|| self.whole(batch, row, around));
        }
        &self.sums
    }

    /// A sum over the attributes of each row, which does not depend on their order.
    fn attributes(&mut self, batch: &LogsBatch) {
        self.sums.clear();
        self.sums.resize(batch.rows(), 0);
        let identity = &self.identity;
        for (key, column) in batch.attributes.iter() {
            let pair = |value: ValueRef<'_>| pair(identity, key, value);
            match column {
                Column::Const(value) => {
                    let pair = pair(value.as_ref());
                    self.sums.iter_mut().for_each(|s| *s = s.wrapping_add(pair));
                }
                Column::Dict { codes, values } => {
                    let pairs: Vec<u128> = values.iter().map(|v| pair(v.as_ref())).collect();
                    for (sum, code) in self.sums.iter_mut().zip(codes) {
                        let pair = pairs.get(usize::from(*code)).copied().unwrap_or(0);
                        *sum = sum.wrapping_add(pair);
                    }
                }
                column => {
                    for (row, sum) in self.sums.iter_mut().enumerate() {
                        if let Some(value) = batch.value(column, row) {
                            *sum = sum.wrapping_add(pair(value));
                        }
                    }
                }
            }
        }
    }

    /// Of all that counts of a record; the sum of its attributes is there.
    fn whole(&self, batch: &LogsBatch, row: usize, around: u128) -> u128 {
        let body = batch.body(row).unwrap_or(ValueRef::Null);
        let body = value(&self.identity, body);
        let severity = batch.severity_text(row).and_then(ValueRef::as_text);
        self.identity.hash(|h| {
            h.write_u128(around);
            h.write_u128(self.sums[row]);
            h.write_u128(body);
            h.write_u8(batch.severity.get(row));
            put_text(h, severity.unwrap_or_default());
        })
    }

    /// Of some fields, as text; `None` if the record has none of them.
    fn only(
        &mut self,
        fields: &[Field],
        batch: &LogsBatch,
        row: usize,
        around: u128,
    ) -> Option<u128> {
        let mut sum = None;
        for (i, field) in fields.iter().enumerate() {
            let Some(value) = field.of(batch, row) else {
                continue;
            };
            self.text.clear();
            value.write_string(&mut self.text);
            let before = sum.unwrap_or(around);
            sum = Some(self.identity.hash(|h| {
                h.write_u128(before);
                h.write_usize(i);
                put_text(h, &self.text);
            }));
        }
        sum
    }
}

/// Of a key and its value.
fn pair(identity: &Identity, key: &str, of: ValueRef<'_>) -> u128 {
    let of = value(identity, of);
    identity.hash(|h| {
        put_text(h, key.as_bytes());
        h.write_u128(of);
    })
}

/// Of a map, whatever the order of its keys.
pub(super) fn map(identity: &Identity, map: &Map) -> u128 {
    let add =
        |sum: u128, (key, of): (&Key, &Value)| sum.wrapping_add(pair(identity, key, of.as_ref()));
    map.iter().fold(0, add)
}

/// Of a value.
fn value(identity: &Identity, of: ValueRef<'_>) -> u128 {
    match of {
        ValueRef::List(list) => list.iter().fold(6, |before, of| {
            let of = value(identity, of.as_ref());
            identity.hash(|h| {
                h.write_u128(before);
                h.write_u128(of);
            })
        }),
        ValueRef::Map(fields) => {
            let sum = map(identity, fields);
            identity.hash(|h| {
                h.write_u8(7);
                h.write_u128(sum);
            })
        }
        scalar => identity.hash(|mut h| match scalar {
            ValueRef::Bool(b) => (1_u8, b).hash(&mut h),
            ValueRef::Int(i) => (2_u8, i).hash(&mut h),
            ValueRef::Double(d) => (3_u8, d.to_bits()).hash(&mut h),
            ValueRef::Str(text) => {
                h.write_u8(4);
                put_text(h, text);
            }
            ValueRef::Bytes(bytes) => {
                h.write_u8(5);
                put_text(h, bytes);
            }
            _ => h.write_u8(0),
        }),
    }
}
