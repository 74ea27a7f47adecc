//! Owned and borrowed attribute values (OTLP `AnyValue`).

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::column::Key;

/// An owned value, as OTLP's `AnyValue` defines it. Cloning strings and bytes is a counter bump.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// No value (OTLP: an `AnyValue` without a kind).
    #[default]
    Null,
    /// A boolean.
    Bool(bool),
    /// A signed 64 bit integer; never equal to a [`Value::Double`].
    Int(i64),
    /// An IEEE 754 double.
    Double(f64),
    /// UTF-8 text.
    Str(Arc<str>),
    /// Raw bytes.
    Bytes(Bytes),
    /// An ordered list.
    List(Vec<Value>),
    /// Keys and values in insertion order.
    Map(Map),
}

impl Value {
    /// A text value.
    pub fn str(s: impl AsRef<str>) -> Value {
        Value::Str(Arc::from(s.as_ref()))
    }

    /// A borrowed view.
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Value::Null => ValueRef::Null,
            Value::Bool(b) => ValueRef::Bool(*b),
            Value::Int(i) => ValueRef::Int(*i),
            Value::Double(d) => ValueRef::Double(*d),
            Value::Str(s) => ValueRef::Str(s.as_bytes()),
            Value::Bytes(b) => ValueRef::Bytes(b),
            Value::List(l) => ValueRef::List(l),
            Value::Map(m) => ValueRef::Map(m),
        }
    }

    /// Bytes of memory behind this value, for budgets; shared text counts in full.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Double(_) => 0,
            Value::Str(s) => s.len() + 16,
            Value::Bytes(b) => b.len(),
            Value::List(l) => l.iter().map(|v| v.heap_bytes() + size_of::<Value>()).sum(),
            Value::Map(m) => m.iter().map(|(k, v)| k.len() + v.heap_bytes() + 48).sum(),
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        self.as_ref() == other.as_ref()
    }
}

impl From<&str> for Value {
    fn from(s: &str) -> Value {
        Value::str(s)
    }
}
impl From<String> for Value {
    fn from(s: String) -> Value {
        Value::Str(s.into())
    }
}
impl From<i64> for Value {
    fn from(i: i64) -> Value {
        Value::Int(i)
    }
}
impl From<f64> for Value {
    fn from(d: f64) -> Value {
        Value::Double(d)
    }
}
impl From<bool> for Value {
    fn from(b: bool) -> Value {
        Value::Bool(b)
    }
}
impl From<Map> for Value {
    fn from(m: Map) -> Value {
        Value::Map(m)
    }
}

/// A borrowed value. `Str` is text as bytes: valid UTF-8 unless the receiver keeps raw bytes.
#[derive(Clone, Copy, Debug)]
pub enum ValueRef<'a> {
    /// No value.
    Null,
    /// A boolean.
    Bool(bool),
    /// A signed 64 bit integer.
    Int(i64),
    /// A double.
    Double(f64),
    /// Text (see the type's note on UTF-8).
    Str(&'a [u8]),
    /// Raw bytes.
    Bytes(&'a [u8]),
    /// A list.
    List(&'a [Value]),
    /// A map.
    Map(&'a Map),
}

impl<'a> ValueRef<'a> {
    /// The text of a string value; invalid UTF-8 becomes U+FFFD. `None` for other kinds.
    pub fn to_str_lossy(self) -> Option<Cow<'a, str>> {
        match self {
            ValueRef::Str(s) => Some(String::from_utf8_lossy(s)),
            _ => None,
        }
    }

    /// The bytes of a text value.
    pub fn as_text(self) -> Option<&'a [u8]> {
        match self {
            ValueRef::Str(s) => Some(s),
            _ => None,
        }
    }

    /// What it is, with its article, for messages.
    pub fn kind_name(self) -> &'static str {
        match self {
            ValueRef::Null => "null",
            ValueRef::Bool(_) => "a boolean",
            ValueRef::Int(_) => "an integer",
            ValueRef::Double(_) => "a double",
            ValueRef::Str(_) => "text",
            ValueRef::Bytes(_) => "bytes",
            ValueRef::List(_) => "a list",
            ValueRef::Map(_) => "a map",
        }
    }

    /// An owned copy; invalid UTF-8 becomes U+FFFD.
    pub fn to_value(self) -> Value {
        match self {
            ValueRef::Null => Value::Null,
            ValueRef::Bool(b) => Value::Bool(b),
            ValueRef::Int(i) => Value::Int(i),
            ValueRef::Double(d) => Value::Double(d),
            ValueRef::Str(s) => Value::Str(Arc::from(&*String::from_utf8_lossy(s))),
            ValueRef::Bytes(b) => Value::Bytes(Bytes::copy_from_slice(b)),
            ValueRef::List(l) => Value::List(l.to_vec()),
            ValueRef::Map(m) => Value::Map(m.clone()),
        }
    }

    /// Appends the text form the collector's `AsString` gives: text as it is, numbers in their
    /// shortest form, bytes in base64, lists and maps as JSON (map keys sorted).
    pub fn write_string(self, out: &mut Vec<u8>) {
        crate::json_text::write_as_string(self, out);
    }

    /// [`Self::write_string`] as an owned string.
    pub fn to_display_string(self) -> String {
        let mut out = Vec::new();
        self.write_string(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

impl PartialEq for ValueRef<'_> {
    /// Same kind and same content; doubles compare by value with NaN equal to NaN.
    fn eq(&self, other: &ValueRef<'_>) -> bool {
        match (*self, *other) {
            (ValueRef::Null, ValueRef::Null) => true,
            (ValueRef::Bool(a), ValueRef::Bool(b)) => a == b,
            (ValueRef::Int(a), ValueRef::Int(b)) => a == b,
            (ValueRef::Double(a), ValueRef::Double(b)) => a == b || (a.is_nan() && b.is_nan()),
            (ValueRef::Str(a), ValueRef::Str(b)) | (ValueRef::Bytes(a), ValueRef::Bytes(b)) => {
                a == b
            }
            (ValueRef::List(a), ValueRef::List(b)) => a == b,
            (ValueRef::Map(a), ValueRef::Map(b)) => a == b,
            _ => false,
        }
    }
}

/// Keys and values in insertion order, unique keys. Equality ignores order, as OTLP's does.
#[derive(Clone, Debug, Default)]
pub struct Map {
    pub(crate) entries: Vec<(Key, Value)>,
}

impl Map {
    /// An empty map.
    pub fn new() -> Map {
        Map::default()
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries
            .iter()
            .find(|(k, _)| &**k == key)
            .map(|(_, v)| v)
    }

    /// The value of `key`, to change.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.entries
            .iter_mut()
            .find(|(k, _)| &**k == key)
            .map(|(_, v)| v)
    }

    /// Sets `key`, in place when it exists; returns the old value.
    pub fn insert(&mut self, key: impl Into<Key>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        match self.get_mut(&key) {
            Some(slot) => Some(std::mem::replace(slot, value)),
            None => {
                self.entries.push((key, value));
                None
            }
        }
    }

    /// Removes `key`, keeping the order of the others.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let i = self.entries.iter().position(|(k, _)| &**k == key)?;
        Some(self.entries.remove(i).1)
    }

    /// Keeps the entries for which `f` is true.
    pub fn retain(&mut self, mut f: impl FnMut(&Key, &Value) -> bool) {
        self.entries.retain(|(k, v)| f(k, v));
    }

    /// Keys and values in insertion order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Key, &Value)> {
        self.entries.iter().map(|(k, v)| (k, v))
    }
}

impl PartialEq for Map {
    fn eq(&self, other: &Map) -> bool {
        self.len() == other.len() && self.iter().all(|(k, v)| other.get(k) == Some(v))
    }
}

impl<K: Into<Key>, V: Into<Value>> FromIterator<(K, V)> for Map {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(iter: I) -> Map {
        let mut m = Map::new();
        for (k, v) in iter {
            m.insert(k, v);
        }
        m
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_equal_in_any_order_and_keep_insertion_order() {
        let a: Map = [("a", 1i64), ("b", 2)].into_iter().collect();
        let b: Map = [("b", 2i64), ("a", 1)].into_iter().collect();
        assert_eq!(a, b);
        assert_eq!(b.iter().map(|(k, _)| &**k).collect::<Vec<_>>(), ["b", "a"]);
        assert_ne!(Value::Int(1), Value::Double(1.0));
    }

    #[test]
    fn display_strings_follow_the_collectors_as_string() {
        let m: Map = [("b", Value::Int(1)), ("a", Value::Double(2.5))]
            .into_iter()
            .collect();
        for (v, want) in [
            (Value::Double(1.0), "1"),
            (Value::Double(1.5e300), "1.5e+300"),
            (Value::Int(-7), "-7"),
            (Value::Bool(true), "true"),
            (Value::Null, ""),
            (Value::Bytes(Bytes::from_static(b"hi")), "aGk="),
            (Value::Map(m), r#"{"a":2.5,"b":1}"#),
            (
                Value::List(vec![Value::str("x\"y"), Value::Null]),
                r#"["x\"y",null]"#,
            ),
        ] {
            assert_eq!(v.as_ref().to_display_string(), want);
        }
    }
}
