//! Reading and changing attributes, and leaving items out, without decoding anything else.
//!
//! [`Encoded::edit`] shows an [`Edit`] each resource, scope, metric and item with its attributes as
//! they are in the bytes. What is around a list that is changed is copied as it is, unknown fields
//! included, and resources in which nothing changed are not even copied.
//!
//! ```
//! use tailwater_pdata::{Signal, ValueRef, otlp::{Encoded, Limits, edit::{Attributes, Edit, Next}}};
//! struct Zone;
//! impl Edit for Zone {
//!     fn resource(&mut self, attributes: &mut Attributes<'_>) -> Next {
//!         attributes.set("zone", ValueRef::Str(b"z1"));
//!         Next::Leave
//!     }
//! }
//! // resource_logs { scope_logs { log_records {} } }
//! let body = b"\x0a\x04\x12\x02\x12\x00".as_slice().into();
//! let mut logs = Encoded::parse(Signal::Logs, body, &Limits::default())?;
//! logs.edit(&mut Zone);
//! assert!(logs.body().windows(4).any(|w| w == b"zone"));
//! # Ok::<(), tailwater_pdata::otlp::WireError>(())
//! ```

mod within;

use std::borrow::Cow;
use std::mem;

use super::Encoded;
use super::schema::{self, Kind, Message, Role};
use super::value::{Entries, KeyValue, decode, merged, put_map, put_pair, text};
use super::wire::{Fields, Open, Raw, put_bytes, varint_len};
use crate::value::{Map, Value, ValueRef};

/// What becomes of a resource, scope or metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// What is in it is shown, too.
    Look,
    /// What is in it stays as it is.
    Leave,
    /// It is left out with all that is in it.
    Drop,
}

/// Somebody who looks through a request. What is not said otherwise stays, and all is shown.
pub trait Edit {
    /// Each resource, before what it has. One that was not sent has no attributes.
    fn resource(&mut self, attributes: &mut Attributes<'_>) -> Next {
        let _ = attributes;
        Next::Look
    }

    /// Each scope, before what it has; `scope` knows `name` and `version`.
    fn scope(&mut self, scope: &View<'_>, attributes: &mut Attributes<'_>) -> Next {
        let _ = (scope, attributes);
        Next::Look
    }

    /// Each metric, before its points.
    fn metric(&mut self, metric: &View<'_>) -> Next {
        let _ = metric;
        Next::Look
    }

    /// Each log record, data point or span. False leaves it out.
    fn item(&mut self, item: &View<'_>, attributes: &mut Attributes<'_>) -> bool {
        let _ = (item, attributes);
        true
    }

    /// Asked after each item that stays: the name of one of its fields of text, as `trace_state`, and
    /// what it becomes. A name that the item does not have changes nothing.
    fn text(&mut self) -> Option<(&str, &[u8])> {
        None
    }

    /// Whether [`Edit::within`] is to be asked.
    fn looks_within(&self) -> bool {
        false
    }

    /// Each list of attributes further within an item that stays: of its events, links and exemplars.
    fn within(&mut self, attributes: &mut Attributes<'_>) {
        let _ = attributes;
    }
}

/// The fields of a message, by the names of the `.proto` files.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(super) message: &'static Message,
    pub(super) buf: &'a [u8],
}

impl<'a> View<'a> {
    fn last(&self, name: &str) -> Option<Raw> {
        let field = self.message.fields.iter().find(|f| f.name == name)?;
        let values = Fields::new(self.buf, 0).filter(|(number, _)| *number == field.number);
        values.last().map(|(_, raw)| raw)
    }

    /// A field of text or bytes, as `name`, `unit` or `trace_id`; empty if it is not there.
    pub fn bytes(&self, name: &str) -> &'a [u8] {
        match self.last(name) {
            Some(Raw::Len(from, to)) => &self.buf[from..to],
            _ => &[],
        }
    }

    /// A field of a whole number that is not zigzag, as `kind`, `flags` or `time_unix_nano`; 0 if it is not
    /// there.
    pub fn number(&self, name: &str) -> u64 {
        match self.last(name) {
            Some(Raw::Varint(v) | Raw::I64(v)) => v,
            Some(Raw::I32(v)) => v.into(),
            _ => 0,
        }
    }

    /// A field of any value, as `body`; null if it is not there.
    pub fn value(&self, name: &str) -> Found<'a> {
        let null = Found::Plain(ValueRef::Null);
        let Some(field) = self.message.fields.iter().find(|f| f.name == name) else {
            return null;
        };
        let mut values = Fields::new(self.buf, 0).filter_map(|value| match value {
            (n, Raw::Len(from, to)) if n == field.number => Some((from, to)),
            _ => None,
        });
        match (values.next(), values.next()) {
            (None, _) => null,
            (Some((from, to)), None) => plain(self.buf, from, to),
            _ => Found::Decoded(decode(&merged(self.buf, field.number))),
        }
    }

    /// A message in it, as `status` of a span or `sum` of a metric; the last one, if it comes in pieces.
    pub fn inner(&self, name: &str) -> Option<View<'a>> {
        let field = self.message.fields.iter().find(|f| f.name == name)?;
        match (&field.kind, self.last(name)?) {
            (Kind::Message(message, _), Raw::Len(from, to)) => Some(View {
                message,
                buf: &self.buf[from..to],
            }),
            _ => None,
        }
    }

    /// True if the field is there, as `sum` of a metric that is one.
    pub fn has(&self, name: &str) -> bool {
        self.last(name).is_some()
    }
}

/// A value of an attribute.
#[derive(Clone, Debug)]
pub enum Found<'a> {
    /// One that is read where it is.
    Plain(ValueRef<'a>),
    /// A list or map.
    Decoded(Value),
}

impl Found<'_> {
    /// The value.
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Found::Plain(value) => *value,
            Found::Decoded(value) => value.as_ref(),
        }
    }
}

/// A list of attributes.
pub struct Attributes<'a> {
    /// The message they are fields of, as it came or as it was changed to.
    buf: Cow<'a, [u8]>,
    number: u32,
    /// Buffers to use again.
    pool: &'a mut Vec<Vec<u8>>,
}

impl<'a> Attributes<'a> {
    /// The list that the fields `number` of the message `buf` are.
    pub(super) fn of(
        buf: Cow<'a, [u8]>,
        number: u32,
        pool: &'a mut Vec<Vec<u8>>,
    ) -> Attributes<'a> {
        Attributes { buf, number, pool }
    }

    /// Keys and values in order. A key that comes twice is here twice.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'_, str>, Found<'_>)> {
        let pair = |pair: KeyValue| (text(pair.key(&self.buf)), found(&self.buf, &pair));
        pairs(&self.buf, self.number).map(pair)
    }

    /// The value of `key`; the last one, if it comes twice.
    pub fn get(&self, key: &str) -> Option<Found<'_>> {
        let wanted = |pair: &KeyValue| pair.key(&self.buf) == key.as_bytes();
        let pair = pairs(&self.buf, self.number).filter(wanted).last()?;
        Some(found(&self.buf, &pair))
    }

    /// Sets `key`, in its place if it is there, else at the end.
    pub fn set(&mut self, key: &str, value: ValueRef<'_>) {
        let mut done = false;
        self.rewrite(|pair_key, number, out| {
            if pair_key.is_some_and(|k| k != key.as_bytes()) {
                return false;
            }
            if !mem::replace(&mut done, true) {
                put_pair(out, number, key, value);
            }
            true
        });
    }

    /// Removes the attributes whose keys `is_wanted` says true to.
    pub fn remove_if(&mut self, mut is_wanted: impl FnMut(&str) -> bool) {
        let is_there =
            pairs(&self.buf, self.number).any(|pair| is_wanted(&text(pair.key(&self.buf))));
        if is_there {
            self.rewrite(|key, _, _| key.is_some_and(|key| is_wanted(&text(key))));
        }
    }

    /// Lets `change` work on the list, decoded; it says whether it changed anything, without which
    /// all stays as it was. Of a key that comes twice the last value is there.
    pub fn update(&mut self, change: impl FnOnce(&mut Map) -> bool) {
        let mut entries = Entries::default();
        entries.decode(&self.buf, self.number);
        let mut map = entries.into_map();
        if change(&mut map) {
            let mut done = false;
            self.rewrite(|_, number, out| {
                if !mem::replace(&mut done, true) {
                    put_map(out, number, &map);
                }
                true
            });
        }
    }

    /// Writes the message anew. `replace` is asked for each attribute by its key, and at the end with
    /// none: it may write something there, and says whether the attribute goes.
    fn rewrite(&mut self, mut replace: impl FnMut(Option<&[u8]>, u32, &mut Vec<u8>) -> bool) {
        let mut out = self.pool.pop().unwrap_or_default();
        out.clear();
        let buf = &*self.buf;
        let mut start = 0;
        let mut fields = Fields::new(buf, 0);
        loop {
            let from = fields.at();
            let Some((number, raw)) = fields.next() else {
                break;
            };
            if let Raw::Len(at, to) = raw
                && number == self.number
            {
                let pair = KeyValue::of(buf, at, to);
                out.extend_from_slice(&buf[start..from]);
                start = from;
                if replace(Some(pair.key(buf)), number, &mut out) {
                    start = fields.at();
                }
            }
        }
        out.extend_from_slice(&buf[start..]);
        replace(None, self.number, &mut out);
        if let Cow::Owned(old) = mem::replace(&mut self.buf, Cow::Owned(out)) {
            self.pool.push(old);
        }
    }

    /// The message, if the list was changed.
    pub(super) fn into_changed(self) -> Option<Vec<u8>> {
        match self.buf {
            Cow::Owned(buf) => Some(buf),
            Cow::Borrowed(_) => None,
        }
    }
}

/// The `KeyValue`s in fields `number` of `buf`.
pub(super) fn pairs(buf: &[u8], number: u32) -> impl Iterator<Item = KeyValue> {
    Fields::new(buf, 0).filter_map(move |field| match field {
        (n, Raw::Len(from, to)) if n == number => Some(KeyValue::of(buf, from, to)),
        _ => None,
    })
}

pub(super) fn found<'b>(buf: &'b [u8], pair: &KeyValue) -> Found<'b> {
    match pair.value_range() {
        Some((from, to)) => plain(buf, from, to),
        None => Found::Decoded(pair.with_value(buf, decode)),
    }
}

/// The `AnyValue` at `from..to` of `buf`.
fn plain(buf: &[u8], from: usize, to: usize) -> Found<'_> {
    let mut value = ValueRef::Null;
    for (number, raw) in Fields::new(&buf[..to], from) {
        value = match (number, raw) {
            (1, Raw::Len(from, to)) => ValueRef::Str(&buf[from..to]),
            (2, Raw::Varint(v)) => ValueRef::Bool(v != 0),
            (3, Raw::Varint(v)) => ValueRef::Int(v as i64),
            (4, Raw::I64(v)) => ValueRef::Double(f64::from_bits(v)),
            (7, Raw::Len(from, to)) => ValueRef::Bytes(&buf[from..to]),
            (5 | 6, _) => return Found::Decoded(decode(&buf[from..to])),
            _ => value,
        };
    }
    Found::Plain(value)
}

impl Encoded {
    /// Shows all to `editor` and does what it says. Resources, scopes and metrics of which all items
    /// were left out are left out, too.
    pub fn edit(&mut self, editor: &mut dyn Edit) {
        let root = schema::request(self.signal());
        let mut edited = Encoded::empty(self.signal());
        for chunk in self.parts() {
            let mut writer = Writer {
                editor: &mut *editor,
                out: Vec::new(),
                changed: false,
                kept: 0,
                dropped: 0,
                pool: Vec::new(),
            };
            chunk.with_fields_replaced(root, &mut edited, |found, out| {
                writer.out.clear();
                writer.changed = false;
                writer.message(found.message, found.number, found.field, found.at);
                if writer.changed {
                    out.append(&mut writer.out);
                }
                writer.changed
            });
        }
        *self = edited;
    }
}

struct Writer<'e> {
    editor: &'e mut dyn Edit,
    /// The resource of now, as it becomes.
    out: Vec<u8>,
    /// True if that is not as it was.
    changed: bool,
    /// Items, or more than none of them, that stay.
    kept: usize,
    dropped: usize,
    /// Buffers to use again.
    pool: Vec<Vec<u8>>,
}

impl Writer<'_> {
    /// Writes the field `field`, whose message begins at `at` in it, as the editor wants it.
    fn message(&mut self, message: &'static Message, number: u32, field: &[u8], at: usize) {
        let buf = &field[at..];
        let view = View { message, buf };
        let mut head = None;
        let next = match (message.role, heading(message)) {
            (Role::Item, _) => return self.item(message, number, field, at),
            (Role::Metric, _) => self.editor.metric(&view),
            (_, Some(inner)) => {
                let content = one(buf, 1);
                let mut attributes = Attributes {
                    buf: Cow::Borrowed(&content),
                    number: attributes_of(inner),
                    pool: &mut self.pool,
                };
                let next = if std::ptr::eq(inner, &schema::SCOPE) {
                    let buf = &content;
                    let view = View {
                        message: inner,
                        buf,
                    };
                    self.editor.scope(&view, &mut attributes)
                } else {
                    self.editor.resource(&mut attributes)
                };
                head = attributes.into_changed();
                next
            }
            _ => Next::Look,
        };
        match next {
            Next::Drop => {
                self.changed = true;
                self.dropped += 1;
            }
            Next::Leave if head.is_none() => {
                self.kept += 1;
                self.out.extend_from_slice(field);
            }
            next => {
                let look = next == Next::Look;
                self.container((message, number), buf, head.as_deref(), look);
                self.pool.extend(head);
            }
        }
    }

    /// Writes a message with others in it; `head` is what its field 1 becomes.
    fn container(
        &mut self,
        (message, number): (&'static Message, u32),
        buf: &[u8],
        head: Option<&[u8]>,
        look: bool,
    ) {
        let (start, kept, dropped) = (self.out.len(), self.kept, self.dropped);
        let open = Open::field(&mut self.out, number, varint_len(buf.len() as u64).min(5));
        if let Some(head) = head {
            put_bytes(&mut self.out, 1, head);
            self.changed = true;
        }
        let mut fields = Fields::new(buf, 0);
        loop {
            let from = fields.at();
            let Some((number, raw)) = fields.next() else {
                break;
            };
            let field = &buf[from..fields.at()];
            match (message.towards_items(number), raw) {
                (Some(inner), Raw::Len(at, _)) if look => {
                    self.message(inner, number, field, at - from);
                }
                _ if number == 1 && head.is_some() => {}
                _ => self.out.extend_from_slice(field),
            }
        }
        open.close(&mut self.out);
        if self.dropped > dropped && self.kept == kept {
            self.out.truncate(start);
        }
        self.kept += usize::from(!look);
    }

    fn item(&mut self, message: &'static Message, number: u32, field: &[u8], at: usize) {
        let buf = &field[at..];
        let mut attributes = Attributes {
            buf: Cow::Borrowed(buf),
            number: attributes_of(message),
            pool: &mut self.pool,
        };
        let keep = self.editor.item(&View { message, buf }, &mut attributes);
        let mut changed = attributes.into_changed();
        if !keep {
            self.changed = true;
            self.dropped += 1;
            return;
        }
        if self.editor.looks_within() {
            let content = changed.as_deref().unwrap_or(buf);
            if let Some(new) = self.within(message, content) {
                self.pool.extend(changed.replace(new));
            }
        }
        self.kept += 1;
        let text = self.editor.text().and_then(|(name, text)| {
            let mut fields = message.fields.iter();
            let field = fields.find(|f| f.name == name && matches!(f.kind, Kind::Str))?;
            Some((field.number, text))
        });
        if changed.is_none() && text.is_none() {
            return self.out.extend_from_slice(field);
        }
        self.changed = true;
        let content = changed.as_deref().unwrap_or(buf);
        match text {
            None => put_bytes(&mut self.out, number, content),
            Some(text) => {
                let width = varint_len(content.len() as u64).min(5);
                let open = Open::field(&mut self.out, number, width);
                put_text(content, text, &mut self.out);
                open.close(&mut self.out);
            }
        }
        self.pool.extend(changed);
    }
}

/// The message in field 1, if it is a resource or scope.
fn heading(message: &'static Message) -> Option<&'static Message> {
    match message.field(1)?.kind {
        Kind::Message(m, _) if std::ptr::eq(m, &schema::RESOURCE) => Some(m),
        Kind::Message(m, _) if std::ptr::eq(m, &schema::SCOPE) => Some(m),
        _ => None,
    }
}

/// The number of the field `attributes`.
pub(super) fn attributes_of(message: &'static Message) -> u32 {
    let mut fields = message.fields.iter();
    fields
        .find(|f| f.name == "attributes")
        .map_or(0, |f| f.number)
}

/// The message in the fields `number` of `buf`, which come once, or in pieces.
pub(super) fn one(buf: &[u8], number: u32) -> Cow<'_, [u8]> {
    let mut found = Fields::new(buf, 0).filter_map(|field| match field {
        (n, Raw::Len(from, to)) if n == number => Some(&buf[from..to]),
        _ => None,
    });
    match (found.next(), found.next()) {
        (one, None) => Cow::Borrowed(one.unwrap_or_default()),
        _ => Cow::Owned(merged(buf, number)),
    }
}

/// Appends the message `buf` with another text in a field.
fn put_text(buf: &[u8], (number, text): (u32, &[u8]), out: &mut Vec<u8>) {
    replace(buf, number, out, |out| {
        if !text.is_empty() {
            put_bytes(out, number, text);
        }
    });
}

/// Appends the message `buf` with what `put` appends in place of its fields `number`.
pub(super) fn replace(buf: &[u8], number: u32, out: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
    let (mut start, mut put) = (0, Some(put));
    let mut fields = Fields::new(buf, 0);
    loop {
        let from = fields.at();
        let Some((n, _)) = fields.next() else {
            break;
        };
        if n != number {
            continue;
        }
        out.extend_from_slice(&buf[start..from]);
        start = fields.at();
        if let Some(put) = put.take() {
            put(out);
        }
    }
    out.extend_from_slice(&buf[start..]);
    if let Some(put) = put {
        put(out);
    }
}
