//! JSON to protobuf, by the table, in one pass.

use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::JsonError;
use crate::json_text as text;
use crate::otlp::schema::{Count, Field, I32, I64, Kind, LEN, Message};
use crate::otlp::wire::{Open, put_tag, put_varint};

/// Length of the text of an error, in bytes.
const PROBLEM_MAX: usize = 200;

/// Reads an object as a message `root`.
pub(super) fn request(
    root: &'static Message,
    json: &[u8],
    depth_max: usize,
) -> Result<Bytes, JsonError> {
    let mut state = State {
        out: Vec::with_capacity(json.len() / 2),
        path: Vec::new(),
        fields: Vec::new(),
        scratch: Vec::new(),
        depth: 0,
        depth_max,
    };
    let mut json = serde_json::Deserializer::from_slice(json);
    let object = Object {
        state: &mut state,
        message: root,
    };
    let read = object.deserialize(&mut json).and_then(|()| json.end());
    read.map_err(|e| state.error(&e))?;
    Ok(state.out.into())
}

/// A field that was written into a message.
#[derive(Clone, Copy)]
struct Written {
    number: u32,
    one_of: bool,
    from: usize,
    to: usize,
}

struct State {
    out: Vec<u8>,
    /// Where in the request we are; after an error, where it is.
    path: Vec<&'static str>,
    /// Fields of the messages that are not yet complete.
    fields: Vec<Written>,
    scratch: Vec<u8>,
    depth: usize,
    depth_max: usize,
}

impl State {
    fn error(&self, e: &serde_json::Error) -> JsonError {
        let (line, column) = (e.line(), e.column());
        let message = e.to_string();
        let place = format!(" at line {line} column {column}");
        let mut problem = message.strip_suffix(&place).unwrap_or(&message).to_string();
        // It may quote a value, of any length.
        problem.truncate(problem.floor_char_boundary(PROBLEM_MAX));
        JsonError {
            problem,
            line,
            column,
            path: match self.path.is_empty() {
                true => "the request".into(),
                false => self.path.join("."),
            },
        }
    }

    /// Brings the fields of the message that began at `start`, those from `first` on, into the order
    /// of their numbers, as encoders write them, and drops those that do not count.
    fn order(&mut self, first: usize, start: usize) {
        let fields = &mut self.fields[first..];
        let mut at = start;
        let mut number = 0;
        let in_order = fields.iter().all(|f| {
            let ok = f.from == at && f.number > number;
            (at, number) = (f.to, f.number);
            ok
        });
        if !in_order || at != self.out.len() {
            fields.sort_by_key(|f| f.number);
            self.scratch.clear();
            for f in fields {
                self.scratch.extend_from_slice(&self.out[f.from..f.to]);
            }
            self.out.truncate(start);
            self.out.extend_from_slice(&self.scratch);
        }
        self.fields.truncate(first);
    }

    /// Appends a number as the field's kind is written, without a tag.
    fn number(&mut self, field: &Field, bits: u64) {
        match field.wire() {
            I64 => self.out.extend_from_slice(&bits.to_le_bytes()),
            I32 => self.out.extend_from_slice(&(bits as u32).to_le_bytes()),
            _ => put_varint(&mut self.out, bits),
        }
    }
}

/// A message that is an object.
struct Object<'s> {
    state: &'s mut State,
    message: &'static Message,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Object { state, message } = self;
        let (first, start) = (state.fields.len(), state.out.len());
        while let Some(field) = map.next_key_seed(Name(message))? {
            let Some(field) = field else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let one_of = field.count == Count::OneOf;
            let mut i = state.fields.len();
            while i > first {
                i -= 1;
                let before = &state.fields[i];
                if before.number == field.number || (one_of && before.one_of) {
                    state.fields.remove(i);
                }
            }
            state.path.push(field.json);
            let from = state.out.len();
            match field.count {
                Count::Many => map.next_value_seed(List { state, field })?,
                _ => map.next_value_seed(Single { state, field })?,
            }
            state.path.pop();
            let to = state.out.len();
            if to > from {
                let number = field.number;
                state.fields.push(Written {
                    number,
                    one_of,
                    from,
                    to,
                });
            }
        }
        state.order(first, start);
        Ok(())
    }
}

/// The name of a field of a message.
struct Name(&'static Message);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<&'static Field>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<&'static Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        let mut fields = self.0.fields.iter();
        Ok(fields.find(|f| f.json == name || f.name == name))
    }
}

/// All values of a field that repeats.
struct List<'s> {
    state: &'s mut State,
    field: &'static Field,
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let List { state, field } = self;
        if field.wire() == LEN {
            while list.next_element_seed(Element { state, field })?.is_some() {}
            return Ok(());
        }
        let from = state.out.len();
        let open = Open::field(&mut state.out, field.number, 1);
        let empty = state.out.len();
        while let Some(bits) = list.next_element_seed(Scalar(field))? {
            state.number(field, bits.unwrap_or(0));
        }
        match state.out.len() == empty {
            true => state.out.truncate(from),
            false => {
                open.close(&mut state.out);
            }
        }
        Ok(())
    }
}

/// One of the texts or messages of a list.
struct Element<'s> {
    state: &'s mut State,
    field: &'static Field,
}

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        let Element { state, field } = self;
        let from = state.out.len();
        Single { state, field }.deserialize(json)?;
        if state.out.len() == from {
            // An element is there even if it is empty.
            put_tag(&mut state.out, field.number, LEN);
            state.out.push(0);
        }
        Ok(())
    }
}

/// The value of a field that comes once.
struct Single<'s> {
    state: &'s mut State,
    field: &'static Field,
}

impl<'de> DeserializeSeed<'de> for Single<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        let Single { state, field } = self;
        match field.kind {
            Kind::Message(message, _) => json.deserialize_any(Inner {
                state,
                field,
                message,
            }),
            Kind::Str | Kind::Bytes | Kind::Id => json.deserialize_any(Content { state, field }),
            _ => {
                let Some(bits) = Scalar(field).deserialize(json)? else {
                    return Ok(());
                };
                if bits != 0 || field.count != Count::One {
                    put_tag(&mut state.out, field.number, field.wire());
                    state.number(field, bits);
                }
                Ok(())
            }
        }
    }
}

/// A message that is the value of a field.
struct Inner<'s> {
    state: &'s mut State,
    field: &'static Field,
    message: &'static Message,
}

impl<'de> Visitor<'de> for Inner<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Inner {
            state,
            field,
            message,
        } = self;
        if state.depth == state.depth_max {
            let max = state.depth_max;
            return Err(A::Error::custom(format_args!(
                "messages are nested deeper than {max}"
            )));
        }
        state.depth += 1;
        let open = Open::field(&mut state.out, field.number, 1);
        Object { state, message }.visit_map(map)?;
        open.close(&mut state.out);
        state.depth -= 1;
        Ok(())
    }
}

/// Text, or bytes that are written as text.
struct Content<'s> {
    state: &'s mut State,
    field: &'static Field,
}

impl Visitor<'_> for Content<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.field.kind {
            Kind::Bytes => "a string in base64",
            Kind::Id => "a string in hexadecimal",
            _ => "a string",
        })
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, s: &str) -> Result<(), E> {
        let Content { state, field } = self;
        if s.is_empty() && field.count != Count::OneOf {
            return Ok(());
        }
        let out = &mut state.out;
        let open = Open::field(out, field.number, if s.len() < 128 { 1 } else { 2 });
        let fault = match field.kind {
            Kind::Bytes => (!text::from_base64(s, out)).then_some("not base64"),
            Kind::Id => (!text::from_hex(s, out)).then_some("not hexadecimal digits in pairs"),
            _ => {
                out.extend_from_slice(s.as_bytes());
                None
            }
        };
        if let Some(fault) = fault {
            return Err(E::custom(fault));
        }
        open.close(out);
        Ok(())
    }
}

/// A number or boolean, as the bits that are written: varints, or the bytes of fixed width.
struct Scalar(&'static Field);

impl<'de> DeserializeSeed<'de> for Scalar {
    type Value = Option<u64>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Option<u64>, D::Error> {
        json.deserialize_any(self)
    }
}

/// Up to this size a double that is a whole number is just that number.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

impl Scalar {
    /// The bits of a whole number, if the field can hold it.
    fn whole(&self, n: i128) -> Option<u64> {
        match self.0.kind {
            Kind::Uint32 | Kind::Fixed32 => u32::try_from(n).ok().map(u64::from),
            Kind::Uint64 | Kind::Fixed64 => u64::try_from(n).ok(),
            Kind::Int64 | Kind::Sfixed64 => i64::try_from(n).ok().map(|n| n as u64),
            Kind::Enum(_) => i32::try_from(n).ok().map(|n| i64::from(n) as u64),
            Kind::Sint32 => {
                let n = i32::try_from(n).ok()?;
                Some(u64::from((n << 1 ^ n >> 31) as u32))
            }
            Kind::Double => Some((n as f64).to_bits()),
            _ => None,
        }
    }

    fn double(&self, d: f64) -> Option<u64> {
        match self.0.kind {
            Kind::Double => Some(d.to_bits()),
            _ if d.fract() == 0.0 && d.abs() <= WHOLE_MAX => self.whole(d as i128),
            _ => None,
        }
    }

    fn text(&self, s: &str) -> Option<u64> {
        if let Kind::Enum(names) = self.0.kind
            && let Some(rest) = s.strip_prefix(names.prefix)
        {
            let n = names.rest.iter().position(|name| *name == rest)?;
            return Some(n as u64);
        }
        match (self.0.kind, s) {
            (Kind::Double, "NaN") => return Some(f64::NAN.to_bits()),
            (Kind::Double, "Infinity") => return Some(f64::INFINITY.to_bits()),
            (Kind::Double, "-Infinity") => return Some(f64::NEG_INFINITY.to_bits()),
            _ => {}
        }
        let is_number = |b: u8| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
        if s.starts_with('+') || !s.bytes().all(is_number) {
            return None;
        }
        match s.parse::<i128>() {
            // A double knows a zero with a sign.
            Ok(n) if n != 0 => self.whole(n),
            _ => self.double(s.parse().ok()?),
        }
    }

    fn found<E: Error>(&self, bits: Option<u64>) -> Result<Option<u64>, E> {
        let unfit = || E::custom(format_args!("not {}", self.wanted()));
        bits.ok_or_else(unfit).map(Some)
    }

    fn wanted(&self) -> &'static str {
        match self.0.kind {
            Kind::Uint32 | Kind::Fixed32 => "a whole number from 0 to 4294967295",
            Kind::Uint64 | Kind::Fixed64 => "a whole number from 0 to 18446744073709551615",
            Kind::Int64 | Kind::Sfixed64 => "a whole number of 64 bits",
            Kind::Sint32 => "a whole number of 32 bits",
            Kind::Enum(_) => "a number or name of the enumeration",
            Kind::Double => "a number, \"NaN\", \"Infinity\" or \"-Infinity\"",
            _ => "true or false",
        }
    }
}

impl Visitor<'_> for Scalar {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wanted())
    }

    fn visit_unit<E: Error>(self) -> Result<Option<u64>, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<Option<u64>, E> {
        let bits = matches!(self.0.kind, Kind::Bool).then_some(v.into());
        self.found(bits)
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<Option<u64>, E> {
        self.found(self.whole(v.into()))
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Option<u64>, E> {
        self.found(self.whole(v.into()))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Option<u64>, E> {
        self.found(self.double(v))
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Option<u64>, E> {
        self.found(self.text(v))
    }
}
