//! `AnyValue` and lists of `KeyValue`, to and from [`Value`].

use std::collections::HashMap;

use bytes::Bytes;

use super::wire::{
    Fields, Open, Raw, put_bytes, put_i64, put_number, put_tag, put_varint, varint_len,
};
use crate::column::Key;
use crate::value::{Map, Value, ValueRef};

/// Above this number of keys, repeated ones are found by hashing.
const FEW: usize = 16;

/// Text that has been walked is UTF-8.
pub(super) fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Decodes an `AnyValue`. Of several members the last counts; lists and maps given several times
/// in a row are one.
pub(super) fn decode(buf: &[u8]) -> Value {
    let mut value = Value::Null;
    for (number, raw) in Fields::new(buf, 0) {
        value = match (number, raw, value) {
            (1, Raw::Len(from, to), _) => Value::Str(text(&buf[from..to]).into()),
            (2, Raw::Varint(v), _) => Value::Bool(v != 0),
            (3, Raw::Varint(v), _) => Value::Int(v as i64),
            (4, Raw::I64(v), _) => Value::Double(f64::from_bits(v)),
            (5, Raw::Len(from, to), before) => {
                let mut list = match before {
                    Value::List(list) => list,
                    _ => Vec::new(),
                };
                for (number, raw) in Fields::new(&buf[..to], from) {
                    if let (1, Raw::Len(from, to)) = (number, raw) {
                        list.push(decode(&buf[from..to]));
                    }
                }
                Value::List(list)
            }
            (6, Raw::Len(from, to), before) => {
                let mut entries = Entries::default();
                if let Value::Map(map) = before {
                    map.entries.into_iter().for_each(|(k, v)| entries.add(k, v));
                }
                entries.decode(&buf[from..to], 1);
                Value::Map(entries.into_map())
            }
            (7, Raw::Len(from, to), _) => Value::Bytes(Bytes::copy_from_slice(&buf[from..to])),
            (_, _, before) => before,
        };
    }
    value
}

/// Keys and values on the way to a [`Map`]. Of a key that comes again, the last value counts, at the
/// place of the first.
#[derive(Default)]
pub(super) struct Entries {
    map: Map,
    /// Where each key is, once there are many.
    index: HashMap<Key, usize>,
}

impl Entries {
    /// Adds the `KeyValue`s that are the fields `number` of the message `buf`.
    pub fn decode(&mut self, buf: &[u8], number: u32) {
        for field in Fields::new(buf, 0) {
            if let (n, Raw::Len(from, to)) = field
                && n == number
            {
                let pair = KeyValue::of(buf, from, to);
                let value = pair.with_value(buf, decode);
                self.add(text(pair.key(buf)).into(), value);
            }
        }
    }

    pub fn add(&mut self, key: Key, value: Value) {
        let entries = &mut self.map.entries;
        if entries.len() < FEW {
            self.map.insert(key, value);
            return;
        }
        if self.index.is_empty() {
            let keys = entries.iter().enumerate();
            self.index = keys.map(|(i, (k, _))| (k.clone(), i)).collect();
        }
        match self.index.get(&key) {
            Some(&i) => entries[i].1 = value,
            None => {
                self.index.insert(key.clone(), entries.len());
                entries.push((key, value));
            }
        }
    }

    pub fn into_map(self) -> Map {
        self.map
    }
}

/// Where key and value of a `KeyValue` are.
pub(super) struct KeyValue {
    key: (usize, usize),
    value: (usize, usize),
    /// The message, if its value came more than once.
    merged: Option<(usize, usize)>,
}

impl KeyValue {
    /// The pair that is `buf[from..to]`.
    #[inline]
    pub fn of(buf: &[u8], from: usize, to: usize) -> KeyValue {
        let mut pair = KeyValue {
            key: (from, from),
            value: (from, from),
            merged: None,
        };
        let mut values = 0;
        for (number, raw) in Fields::new(&buf[..to], from) {
            match (number, raw) {
                (1, Raw::Len(from, to)) => pair.key = (from, to),
                (2, Raw::Len(from, to)) => {
                    pair.value = (from, to);
                    values += 1;
                }
                _ => {}
            }
        }
        if values > 1 {
            pair.merged = Some((from, to));
        }
        pair
    }

    /// Its key.
    #[inline]
    pub fn key<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        &buf[self.key.0..self.key.1]
    }

    /// Where its `AnyValue` is, if it came at most once.
    #[inline]
    pub fn value_range(&self) -> Option<(usize, usize)> {
        self.merged.is_none().then_some(self.value)
    }

    /// Gives its `AnyValue` to `read`.
    pub fn with_value<T>(&self, buf: &[u8], read: impl FnOnce(&[u8]) -> T) -> T {
        match self.merged {
            None => read(&buf[self.value.0..self.value.1]),
            Some((from, to)) => read(&merged(&buf[from..to], 2)),
        }
    }
}

/// The values of the fields `number` of the message `buf`, one after the other: of messages, that
/// is what they are merged.
pub(super) fn merged(buf: &[u8], number: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for (n, raw) in Fields::new(buf, 0) {
        if let Raw::Len(from, to) = raw
            && n == number
        {
            out.extend_from_slice(&buf[from..to]);
        }
    }
    out
}

/// Bytes of an `AnyValue` without lists and maps in it; `None` for those.
#[inline]
fn plain_len(value: ValueRef<'_>) -> Option<usize> {
    Some(match value {
        ValueRef::Null => 0,
        ValueRef::Bool(_) => 2,
        ValueRef::Int(i) => 1 + varint_len(i as u64),
        ValueRef::Double(_) => 9,
        ValueRef::Str(s) | ValueRef::Bytes(s) => 1 + varint_len(s.len() as u64) + s.len(),
        ValueRef::List(_) | ValueRef::Map(_) => return None,
    })
}

/// Appends an `AnyValue` as field `number`. Text that is not UTF-8 becomes `bytes_value`, since a
/// `string` must be.
pub(super) fn put_value(out: &mut Vec<u8>, number: u32, value: ValueRef<'_>) {
    if let Some(len) = plain_len(value) {
        put_tag(out, number, super::schema::LEN);
        put_varint(out, len as u64);
        return put_content(out, value);
    }
    let open = Open::field(out, number, 2);
    put_content(out, value);
    open.close(out);
}

/// Appends the fields of an `AnyValue`.
fn put_content(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => {}
        ValueRef::Bool(b) => put_number(out, 2, b.into()),
        ValueRef::Int(i) => put_number(out, 3, i as u64),
        ValueRef::Double(d) => put_i64(out, 4, d.to_bits()),
        ValueRef::Str(s) => put_bytes(out, if std::str::from_utf8(s).is_ok() { 1 } else { 7 }, s),
        ValueRef::Bytes(b) => put_bytes(out, 7, b),
        ValueRef::List(list) => {
            let open = Open::field(out, 5, 2);
            list.iter().for_each(|v| put_value(out, 1, v.as_ref()));
            open.close(out);
        }
        ValueRef::Map(map) => {
            let open = Open::field(out, 6, 2);
            put_map(out, 1, map);
            open.close(out);
        }
    }
}

/// Appends a `KeyValue` as field `number`.
#[inline]
pub(super) fn put_pair(out: &mut Vec<u8>, number: u32, key: &str, value: ValueRef<'_>) {
    let key_len = 1 + varint_len(key.len() as u64) + key.len();
    let Some(len) = plain_len(value) else {
        let open = Open::field(out, number, 2);
        put_bytes(out, 1, key.as_bytes());
        put_value(out, 2, value);
        open.close(out);
        return;
    };
    put_tag(out, number, super::schema::LEN);
    put_varint(out, (key_len + 1 + varint_len(len as u64) + len) as u64);
    put_bytes(out, 1, key.as_bytes());
    put_value(out, 2, value);
}

/// Appends a map as fields `number`, each a `KeyValue`.
pub(super) fn put_map(out: &mut Vec<u8>, number: u32, map: &Map) {
    map.iter()
        .for_each(|(k, v)| put_pair(out, number, k, v.as_ref()));
}
