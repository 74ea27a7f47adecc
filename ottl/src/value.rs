//! Values while a statement is carried out: borrowed from the record wherever that is possible.

use std::borrow::Cow;

use bytes::Bytes;
use tailwater_pdata::{Map, Slice, Value, ValueRef};

use crate::error::Fault;

/// A value. Text is bytes: valid UTF-8 unless a receiver was told to keep raw bytes.
#[derive(Clone, Debug)]
pub enum Val<'a> {
    /// Nothing: a key that is not there, an empty body.
    Nil,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A double.
    Double(f64),
    /// Text.
    Str(Cow<'a, [u8]>),
    /// Bytes, ids among them.
    Bytes(Cow<'a, [u8]>),
    /// Nanoseconds since 1970, UTC.
    Time(i64),
    /// Nanoseconds.
    Duration(i64),
    /// A list.
    List(Cow<'a, [Value]>),
    /// Keys and values.
    Map(Cow<'a, Map>),
}

impl<'a> From<ValueRef<'a>> for Val<'a> {
    #[inline]
    fn from(value: ValueRef<'a>) -> Val<'a> {
        match value {
            ValueRef::Null => Val::Nil,
            ValueRef::Bool(b) => Val::Bool(b),
            ValueRef::Int(i) => Val::Int(i),
            ValueRef::Double(d) => Val::Double(d),
            ValueRef::Str(s) => Val::Str(Cow::Borrowed(s)),
            ValueRef::Bytes(b) => Val::Bytes(Cow::Borrowed(b)),
            ValueRef::List(l) => Val::List(Cow::Borrowed(l)),
            ValueRef::Map(m) => Val::Map(Cow::Borrowed(m)),
        }
    }
}

impl From<Value> for Val<'_> {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Val::Nil,
            Value::Bool(b) => Val::Bool(b),
            Value::Int(i) => Val::Int(i),
            Value::Double(d) => Val::Double(d),
            Value::Str(s) => Val::text(&*s),
            Value::Bytes(b) => Val::Bytes(Cow::Owned(b.to_vec())),
            Value::List(l) => Val::List(Cow::Owned(l)),
            Value::Map(m) => Val::Map(Cow::Owned(m)),
        }
    }
}

impl<'a> Val<'a> {
    /// Text of its own.
    pub fn text(text: impl Into<String>) -> Val<'a> {
        Val::Str(Cow::Owned(text.into().into_bytes()))
    }

    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Val::Nil => "nil",
            Val::Bool(_) => "a boolean",
            Val::Int(_) => "an integer",
            Val::Double(_) => "a double",
            Val::Str(_) => "text",
            Val::Bytes(_) => "bytes",
            Val::Time(_) => "a time",
            Val::Duration(_) => "a duration",
            Val::List(_) => "a list",
            Val::Map(_) => "a map",
        }
    }

    /// True if there is nothing.
    pub fn is_nil(&self) -> bool {
        matches!(self, Val::Nil)
    }

    /// The same as a borrowed value of the data model; times and durations have none.
    pub fn as_value(&self) -> Option<ValueRef<'_>> {
        Some(match self {
            Val::Nil => ValueRef::Null,
            Val::Bool(b) => ValueRef::Bool(*b),
            Val::Int(i) => ValueRef::Int(*i),
            Val::Double(d) => ValueRef::Double(*d),
            Val::Str(s) => ValueRef::Str(s),
            Val::Bytes(b) => ValueRef::Bytes(b),
            Val::List(l) => ValueRef::List(l),
            Val::Map(m) => ValueRef::Map(m),
            Val::Time(_) | Val::Duration(_) => return None,
        })
    }

    /// The same, owned, to be part of a list or map.
    ///
    /// # Errors
    /// Times and durations are no values of records.
    pub fn into_value(self, field: &'static str) -> Result<Value, Fault> {
        Ok(match self {
            Val::Bytes(b) => Value::Bytes(Bytes::from(b.into_owned())),
            Val::List(l) => Value::List(l.into_owned()),
            Val::Map(m) => Value::Map(m.into_owned()),
            other => match other.as_value() {
                Some(value) => value.to_value(),
                None => {
                    let found = other.kind();
                    return Err(Fault::Store { field, found });
                }
            },
        })
    }
}

/// A value on its way into a record: it borrows nothing of it any more.
#[derive(Clone, Debug)]
pub enum Stored {
    /// Text that the record's batch holds already.
    Slice(Slice),
    /// Text that was computed.
    Text(Vec<u8>),
    /// Nanoseconds since 1970.
    Time(i64),
    /// Nanoseconds.
    Duration(i64),
    /// Anything else.
    Value(Value),
}

impl Stored {
    /// What was computed, owned; text that is borrowed is copied.
    pub fn of(val: Val<'_>) -> Stored {
        match val {
            Val::Str(text) => Stored::Text(text.into_owned()),
            Val::Time(ns) => Stored::Time(ns),
            Val::Duration(ns) => Stored::Duration(ns),
            Val::Nil => Stored::Value(Value::Null),
            Val::Bool(b) => Stored::Value(Value::Bool(b)),
            Val::Int(i) => Stored::Value(Value::Int(i)),
            Val::Double(d) => Stored::Value(Value::Double(d)),
            Val::Bytes(b) => Stored::Value(Value::Bytes(Bytes::from(b.into_owned()))),
            Val::List(l) => Stored::Value(Value::List(l.into_owned())),
            Val::Map(m) => Stored::Value(Value::Map(m.into_owned())),
        }
    }

    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Stored::Slice(_) | Stored::Text(_) => "text",
            Stored::Time(_) => "a time",
            Stored::Duration(_) => "a duration",
            Stored::Value(value) => value.as_ref().kind_name(),
        }
    }

    /// As a value of the data model; `text` gives the bytes of a slice.
    ///
    /// # Errors
    /// Times and durations are no values of records.
    pub fn into_value(
        self,
        field: &'static str,
        text: impl FnOnce(Slice) -> Vec<u8>,
    ) -> Result<Value, Fault> {
        let owned = |bytes: Vec<u8>| Value::from(String::from_utf8_lossy(&bytes).into_owned());
        match self {
            Stored::Slice(slice) => Ok(owned(text(slice))),
            Stored::Text(bytes) => Ok(owned(bytes)),
            Stored::Value(value) => Ok(value),
            Stored::Time(_) | Stored::Duration(_) => Err(Fault::Store {
                field,
                found: self.kind(),
            }),
        }
    }
}
