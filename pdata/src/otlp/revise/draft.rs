//! A message on its way to another one, field by field.

use std::borrow::Cow;
use std::cell::Cell;
use std::mem;

use super::super::edit::{Attributes, Found, View, one};
use super::super::metrics;
use super::super::rewrite;
use super::super::schema::{self, Count, Field, I64, Kind, LEN, Message};
use super::super::wire::{
    Fields, put_bytes, put_i32, put_i64, put_number, put_tag, put_varint, varint_len,
};
use super::apart::Apart;
use super::copy_only;
use crate::value::{Map, ValueRef};

/// Fields that a message around others may have before looking through it counts as work.
const FIELDS_FREE: usize = 32;

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
    /// The attributes of what is around others; they are not in `buf`.
    apart: Option<Apart>,
    /// How long it was at first.
    begun: usize,
    /// What looking through its fields costs each time.
    toll: u64,
    /// Work that was done on what is around others, in bytes.
    spent: Cell<u64>,
}

impl Draft {
    pub(super) fn empty() -> Draft {
        Draft {
            message: &schema::RESOURCE,
            buf: Vec::new(),
            changed: false,
            pool: Vec::new(),
            apart: None,
            begun: 0,
            toll: 0,
            spent: Cell::new(0),
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
        self.apart = None;
        self.toll = 0;
        fill(&mut self.buf);
        self.begun = self.buf.len();
    }

    /// Begins with a message around others, which `fill` writes, and keeps its attributes apart.
    pub(super) fn begin_around(
        &mut self,
        message: &'static Message,
        fill: impl FnOnce(&mut Vec<u8>),
    ) {
        self.begin(message, fill);
        if let Some((within, list)) = attributes_of(message) {
            let (mut rest, mut pairs) = (self.spare(), Vec::new());
            let content = match within {
                Some(within) => one(&self.buf, within.number),
                None => Cow::Borrowed(&self.buf[..]),
            };
            copy_only(&content, list.number, &mut pairs);
            let names = (within.map(|w| w.name), list.name);
            match within {
                None => rewrite::copy_except(&self.buf, &[list.number], &mut rest),
                Some(within) => {
                    rewrite::copy_except(&self.buf, &[within.number], &mut rest);
                    if Fields::new(&self.buf, 0).any(|(n, _)| n == within.number) {
                        let mut inner = Vec::new();
                        rewrite::copy_except(&content, &[list.number], &mut inner);
                        put_bytes(&mut rest, within.number, &inner);
                    }
                }
            }
            drop(content);
            self.pool.push(mem::replace(&mut self.buf, rest));
            self.apart = Some(Apart::new(names, list.number, pairs));
            self.begun = self.len();
        }
        let fields = Fields::new(&self.buf, 0).count();
        let inner = self.view().inner_fields();
        self.toll = (fields + inner).saturating_sub(FIELDS_FREE) as u64;
    }

    /// Bytes it takes, about.
    fn len(&self) -> usize {
        self.buf.len() + self.apart.as_ref().map_or(0, Apart::len)
    }

    /// By how much it is longer than at first.
    pub(super) fn growth(&self) -> usize {
        self.len().saturating_sub(self.begun)
    }

    /// Work since this was asked last.
    pub(super) fn take_spent(&self) -> u64 {
        self.spent.take()
    }

    fn spend(&self, bytes: usize) {
        if self.apart.is_some() {
            self.spent
                .set(self.spent.get().saturating_add(bytes as u64));
        }
    }

    /// Appends the message as it is now.
    pub(super) fn write(&self, except: &[u32], out: &mut Vec<u8>) {
        let Some(apart) = &self.apart else {
            return rewrite::copy_except(&self.buf, except, out);
        };
        let within = apart.within.and_then(|w| field(self.message, w));
        let Some(within) = within else {
            rewrite::copy_except(&self.buf, except, out);
            return apart.write(out);
        };
        rewrite::copy_except(&self.buf, &[except, &[within.number]].concat(), out);
        let is_there = || Fields::new(&self.buf, 0).any(|(n, _)| n == within.number);
        if apart.len() > 0 || is_there() {
            let mut inner = one(&self.buf, within.number).into_owned();
            apart.write(&mut inner);
            put_bytes(out, within.number, &inner);
        }
    }

    /// The list `name`, of the message in the field `within` if one is given, if it is kept apart.
    fn apart(&self, within: Option<&str>, name: &str) -> Option<&Apart> {
        let apart = self.apart.as_ref()?;
        (apart.within == within && apart.name == name).then_some(apart)
    }

    /// An attribute of a list; the last one, if it comes twice.
    pub fn attribute(&self, within: Option<&str>, name: &str, key: &str) -> Option<Found<'_>> {
        if let Some(apart) = self.apart(within, name) {
            return apart.get(key);
        }
        let view = match within {
            Some(within) => self.view().inner(within)?,
            None => self.view(),
        };
        let found = view.pairs(name).filter(|(k, _)| *k == key).last();
        found.map(|(_, value)| value)
    }

    /// A list of attributes as a map; `None` if it is in the fields of the message.
    pub fn attributes_apart(&self, within: Option<&str>, name: &str) -> Option<Map> {
        let apart = self.apart(within, name)?;
        self.spend(apart.len());
        Some(apart.map())
    }

    /// Sets an attribute of a list.
    pub fn set_attribute(
        &mut self,
        within: Option<&str>,
        name: &str,
        key: &str,
        value: ValueRef<'_>,
    ) {
        if self.apart(within, name).is_none() {
            return self.attributes(within, name, |list| list.set(key, value));
        }
        if let Some(apart) = &mut self.apart {
            self.changed |= apart.set(key, value);
        }
    }

    /// Removes an attribute of a list.
    pub fn remove_attribute(&mut self, within: Option<&str>, name: &str, key: &str) {
        if self.apart(within, name).is_none() {
            return self.attributes(within, name, |list| list.remove_if(|k| k == key));
        }
        if let Some(apart) = &mut self.apart {
            self.changed |= apart.remove(key);
        }
    }

    /// The fields of the message, but for attributes of what is around others: of these,
    /// [`Draft::attribute`] and [`Draft::attributes_apart`] tell.
    pub fn view(&self) -> View<'_> {
        if self.toll > 0 {
            self.spent.set(self.spent.get().saturating_add(self.toll));
        }
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
        if self.apart.is_some() {
            if self.has_text(within, name, value) {
                return true;
            }
            self.spend(self.buf.len());
        }
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

    /// Whether a field has this text, which is not none.
    fn has_text(&self, within: Option<&str>, name: &str, value: FieldValue<'_>) -> bool {
        let FieldValue::Bytes(text) = value else {
            return false;
        };
        let view = match within {
            None => Some(self.view()),
            Some(within) => self.view().inner(within),
        };
        !text.is_empty() && view.is_some_and(|v| v.bytes(name) == text)
    }

    /// Lets `change` work on a list of attributes.
    pub fn attributes(
        &mut self,
        within: Option<&str>,
        name: &str,
        change: impl FnOnce(&mut Attributes<'_>),
    ) {
        if let Some(apart) = self.apart(within, name) {
            self.spend(apart.len());
            if let Some(apart) = &mut self.apart {
                self.changed |= apart.edit(&mut self.pool, change);
            }
            return;
        }
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

/// The list of attributes of a message that may be around others, and the field in which it is.
fn attributes_of(message: &'static Message) -> Option<(Option<&'static Field>, &'static Field)> {
    let heading = message.fields.first().and_then(|f| match f.kind {
        Kind::Message(m, _) if ["resource", "scope"].contains(&f.name) => Some((f, m)),
        _ => None,
    });
    match heading {
        Some((within, inner)) => Some((Some(within), field(inner, "attributes")?)),
        None => {
            let own = field(message, "attributes").or_else(|| field(message, "metadata"));
            Some((None, own?))
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
