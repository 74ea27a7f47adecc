//! A message on its way to another one, field by field.

use std::borrow::Cow;
use std::mem;

use super::super::edit::{Attributes, View, one};
use super::super::metrics;
use super::super::rewrite;
use super::super::schema::{self, Count, Field, I64, Kind, LEN, Message};
use super::super::wire::{
    put_bytes, put_i32, put_i64, put_number, put_tag, put_varint, varint_len,
};

/// What a field becomes.
#[derive(Clone, Copy, Debug)]
pub enum FieldValue<'v> {
    /// It goes.
    Absent,
    /// A number: as it is, the bits of a double, 0 or 1 of a boolean, the sign extended of one of 32 bits.
    Number(u64),
    /// Text, bytes or an id.
    Bytes(&'v [u8]),
    /// Numbers of a field that may come many times.
    Numbers(&'v [u64]),
    /// Messages of a field that may come many times.
    Messages(&'v [Draft]),
}

/// A message as bytes of its own. Fields have the names of the `.proto` files; those that are not known
/// stay as they are.
#[derive(Clone, Debug)]
pub struct Draft {
    message: &'static Message,
    buf: Vec<u8>,
    changed: bool,
    /// Buffers to use again.
    pool: Vec<Vec<u8>>,
}

impl Draft {
    pub(super) fn empty() -> Draft {
        Draft {
            message: &schema::RESOURCE,
            buf: Vec::new(),
            changed: false,
            pool: Vec::new(),
        }
    }

    /// A metric with nothing in it.
    pub fn metric() -> Draft {
        Draft {
            message: &schema::METRIC,
            ..Draft::empty()
        }
    }

    /// A point of a gauge or sum with nothing in it.
    pub fn number_point() -> Draft {
        Draft {
            message: &schema::NUMBER_POINT,
            ..Draft::empty()
        }
    }

    /// A message that was found.
    pub fn of(view: &View<'_>) -> Draft {
        Draft {
            message: view.message,
            buf: view.buf.to_vec(),
            ..Draft::empty()
        }
    }

    /// Begins with a message that `fill` writes.
    pub(super) fn begin(&mut self, message: &'static Message, fill: impl FnOnce(&mut Vec<u8>)) {
        self.message = message;
        self.changed = false;
        self.buf.clear();
        fill(&mut self.buf);
    }

    /// The fields of the message.
    pub fn view(&self) -> View<'_> {
        View {
            message: self.message,
            buf: &self.buf,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.buf
    }

    /// True once anything was set.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// The message as a metric with its points; `None` if it is none.
    pub fn as_metric(&self) -> Option<metrics::Metric<'_>> {
        std::ptr::eq(self.message, &schema::METRIC).then(|| metrics::Metric::of(&self.buf))
    }

    /// Makes the message what `metric` is.
    pub fn set_metric(&mut self, metric: &rewrite::Metric<'_>) {
        // Whose buffer comes back: one for each metric would stay until the request is through.
        let mut out = self.spare();
        metric.write(&mut out);
        self.put(out);
        self.message = &schema::METRIC;
    }

    fn put(&mut self, new: Vec<u8>) {
        self.changed |= new != self.buf;
        self.pool.push(mem::replace(&mut self.buf, new));
    }

    fn spare(&mut self) -> Vec<u8> {
        let mut spare = self.pool.pop().unwrap_or_default();
        spare.clear();
        spare
    }

    /// Sets the field `name`, of the message in the field `within` if one is given. False if there is no
    /// such field, or none for such a value; then nothing is changed.
    pub fn set(&mut self, within: Option<&str>, name: &str, value: FieldValue<'_>) -> bool {
        let mut out = self.spare();
        let done = match within {
            None => put_field(self.message, &self.buf, name, value, &mut out),
            Some(within) => self.around(within).is_some_and(|(number, message)| {
                let content = one(&self.buf, number);
                let mut inner = Vec::with_capacity(content.len() + 16);
                let done = put_field(message, &content, name, value, &mut inner);
                rewrite::copy_except(&self.buf, &gone(self.message, number), &mut out);
                put_bytes(&mut out, number, &inner);
                done
            }),
        };
        match done {
            true => self.put(out),
            false => self.pool.push(out),
        }
        done
    }

    /// Lets `change` work on a list of attributes.
    pub fn attributes(
        &mut self,
        within: Option<&str>,
        name: &str,
        change: impl FnOnce(&mut Attributes<'_>),
    ) {
        let around = within.map(|w| self.around(w));
        let message = match around {
            Some(Some((_, message))) => message,
            Some(None) => return,
            None => self.message,
        };
        let Some(list) = field(message, name) else {
            return;
        };
        let content = match around.flatten() {
            Some((number, _)) => one(&self.buf, number),
            None => Cow::Borrowed(&self.buf[..]),
        };
        let mut attributes = Attributes::of(content, list.number, &mut self.pool);
        change(&mut attributes);
        let Some(new) = attributes.into_changed() else {
            return;
        };
        match around.flatten() {
            None => self.put(new),
            Some((number, _)) => {
                let mut out = self.spare();
                rewrite::copy_except(&self.buf, &[number], &mut out);
                put_bytes(&mut out, number, &new);
                self.put(out);
                self.pool.push(new);
            }
        }
    }

    /// Number and message of a field that is a message.
    fn around(&self, within: &str) -> Option<(u32, &'static Message)> {
        let field = field(self.message, within)?;
        match field.kind {
            Kind::Message(message, _) => Some((field.number, message)),
            _ => None,
        }
    }
}

fn field(message: &'static Message, name: &str) -> Option<&'static Field> {
    message.fields.iter().find(|f| f.name == name)
}

/// The fields that go when field `number` is set: itself, or all of which only one may be there.
fn gone(message: &'static Message, number: u32) -> Vec<u32> {
    let is_one_of = |n| message.field(n).is_some_and(|f| f.count == Count::OneOf);
    match is_one_of(number) {
        true => {
            let members = message.fields.iter().filter(|f| f.count == Count::OneOf);
            members.map(|f| f.number).collect()
        }
        false => vec![number],
    }
}

/// Appends the message `buf` with another value of a field; false if it cannot have it.
fn put_field(
    message: &'static Message,
    buf: &[u8],
    name: &str,
    value: FieldValue<'_>,
    out: &mut Vec<u8>,
) -> bool {
    let Some(field) = field(message, name) else {
        return false;
    };
    rewrite::copy_except(buf, &gone(message, field.number), out);
    put_value(field, value, out)
}

fn put_value(field: &Field, value: FieldValue<'_>, out: &mut Vec<u8>) -> bool {
    let number = field.number;
    match (field.kind, value) {
        (_, FieldValue::Absent) => {}
        (Kind::Message(..), FieldValue::Messages(all)) => {
            all.iter().for_each(|m| put_bytes(out, number, &m.buf));
        }
        (Kind::Message(..), _) => return false,
        (Kind::Str | Kind::Bytes | Kind::Id, FieldValue::Bytes(bytes)) => {
            if !bytes.is_empty() || field.count != Count::One {
                put_bytes(out, number, bytes);
            }
        }
        (Kind::Str | Kind::Bytes | Kind::Id, _) => return false,
        (_, FieldValue::Numbers(all)) if field.count == Count::Many => packed(field, all, out),
        (kind, FieldValue::Number(v)) if field.count != Count::Many => {
            if v == 0 && field.count == Count::One {
                return true;
            }
            match kind {
                Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => put_i64(out, number, v),
                Kind::Fixed32 => put_i32(out, number, v as u32),
                Kind::Sint32 => put_number(out, number, rewrite::zigzag(v as i32)),
                Kind::Bool => put_number(out, number, u64::from(v != 0)),
                _ => put_number(out, number, v),
            }
        }
        _ => return false,
    }
    true
}

/// Appends numbers, packed.
fn packed(field: &Field, all: &[u64], out: &mut Vec<u8>) {
    if all.is_empty() {
        return;
    }
    let fixed = field.wire() == I64;
    let len: usize = match fixed {
        true => 8 * all.len(),
        false => all.iter().map(|v| varint_len(*v)).sum(),
    };
    put_tag(out, field.number, LEN);
    put_varint(out, len as u64);
    for v in all {
        match fixed {
            true => out.extend_from_slice(&v.to_le_bytes()),
            false => put_varint(out, *v),
        }
    }
}
