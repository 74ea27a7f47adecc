//! Reading any field of a request where it lies, for who shows it to people.
//!
//! Fields have the names of the `.proto` files. A name that the message does not have, or not of the
//! kind that is asked for, reads as one that is not there.

use std::borrow::Cow;

use super::Encoded;
use super::edit::{Found, View, found, one, pairs};
use super::schema::{self, Count, Field, I64, Kind};
use super::value::text;
use super::wire::{self, Fields, Raw};

impl Encoded {
    /// The requests that it is made of, in order.
    pub fn views(&self) -> impl Iterator<Item = View<'_>> {
        let message = schema::request(self.signal());
        self.chunks().map(move |buf| View { message, buf })
    }
}

impl<'a> View<'a> {
    fn field(&self, name: &str) -> Option<&'static Field> {
        self.message.fields.iter().find(|f| f.name == name)
    }

    /// True if the message has a field of that name, whether it is there or not.
    pub fn knows(&self, name: &str) -> bool {
        self.field(name).is_some()
    }

    /// Fields of the first message in it, as of a resource.
    pub(super) fn inner_fields(&self) -> usize {
        let first = self.message.fields.first();
        let inner = first.and_then(|f| self.inner(f.name));
        inner.map_or(0, |v| Fields::new(v.buf, 0).count())
    }

    /// All values of a field.
    fn all(&self, field: Option<&'static Field>) -> impl Iterator<Item = Raw> + use<'a> {
        let number = field.map(|f| f.number);
        let fields = Fields::new(self.buf, 0);
        fields.filter_map(move |(n, raw)| (Some(n) == number).then_some(raw))
    }

    /// All values of a field that have a length.
    fn ranges(&self, field: Option<&'static Field>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let buf = self.buf;
        self.all(field).filter_map(move |raw| match raw {
            Raw::Len(from, to) => Some(&buf[from..to]),
            _ => None,
        })
    }

    /// The messages in a field that may come many times, as `scope_spans`.
    pub fn messages(&self, name: &str) -> impl Iterator<Item = View<'a>> + use<'a> {
        let field = self.field(name).and_then(|f| match f.kind {
            Kind::Message(message, _) => Some((f, message)),
            _ => None,
        });
        let ranges = self.ranges(field.map(|(f, _)| f));
        ranges.filter_map(move |buf| field.map(|(_, message)| View { message, buf }))
    }

    /// Shows the message in a field that comes once, as `resource`: an empty one if it is not there.
    /// `None` if the message has no such field.
    pub fn message<T>(&self, name: &str, read: impl FnOnce(&View<'_>) -> T) -> Option<T> {
        let field = self.field(name)?;
        let Kind::Message(message, _) = field.kind else {
            return None;
        };
        let buf = &one(self.buf, field.number);
        Some(read(&View { message, buf }))
    }

    /// Keys and values of a list of attributes, in order. A key that comes twice is here twice.
    pub fn pairs(&self, name: &str) -> impl Iterator<Item = (Cow<'a, str>, Found<'a>)> + use<'a> {
        let buf = self.buf;
        let number = self.field(name).map_or(0, |f| f.number);
        pairs(buf, number).map(move |pair| (text(pair.key(buf)), found(buf, &pair)))
    }

    /// Texts of a field that may come many times, as `id_keys`.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.ranges(self.field(name))
    }

    /// The double in a field; `None` if it is not there.
    pub fn double(&self, name: &str) -> Option<f64> {
        let last = self.all(self.field(name)).last()?;
        match last {
            Raw::I64(bits) => Some(f64::from_bits(bits)),
            _ => None,
        }
    }

    /// A number of 32 bits that is written zigzag, as `scale`; 0 if it is not there.
    pub fn zigzag(&self, name: &str) -> i32 {
        match self.all(self.field(name)).last() {
            Some(Raw::Varint(v)) => (v as u32 >> 1) as i32 ^ -((v & 1) as i32),
            _ => 0,
        }
    }

    /// Whole numbers of a field that may come many times, as `bucket_counts`, packed or not.
    pub fn numbers(&self, name: &str) -> Vec<u64> {
        let field = self.field(name);
        let mut numbers = Vec::new();
        for raw in self.all(field) {
            match raw {
                Raw::Varint(v) | Raw::I64(v) => numbers.push(v),
                Raw::I32(v) => numbers.push(v.into()),
                Raw::Len(from, to) => unpack(field, &self.buf[from..to], &mut numbers),
            }
        }
        numbers
    }

    /// Doubles of a field that may come many times, as `explicit_bounds`, packed or not.
    pub fn doubles(&self, name: &str) -> Vec<f64> {
        self.numbers(name).into_iter().map(f64::from_bits).collect()
    }

    /// The name of the one field that counts of those of which only one may be there, as `gauge` of a
    /// metric; `None` if none is.
    pub fn chosen(&self) -> Option<&'static str> {
        let fields = Fields::new(self.buf, 0).filter_map(|(n, _)| self.message.field(n));
        let members = fields.filter(|f| f.count == Count::OneOf);
        members.last().map(|f| f.name)
    }
}

/// Appends the numbers that are packed in `buf`.
fn unpack(field: Option<&'static Field>, buf: &[u8], numbers: &mut Vec<u64>) {
    if field.is_some_and(|f| f.wire() == I64) {
        let (all, _) = buf.as_chunks();
        numbers.extend(all.iter().map(|bytes| u64::from_le_bytes(*bytes)));
        return;
    }
    let mut at = 0;
    while let Ok((v, next)) = wire::varint(buf, at) {
        numbers.push(v);
        at = next;
    }
}
