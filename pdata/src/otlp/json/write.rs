//! Protobuf to JSON, by the table.

use std::ops::Range;

use crate::json_text as text;
use crate::number::Digits;
use crate::otlp::schema::{Count, Field, I64, Kind, LEN, Message};
use crate::otlp::value::merged;
use crate::otlp::wire::{self, Fields, Raw};

/// No message has more fields.
const FIELDS_MAX: usize = 16;

/// Where a field is in a message.
#[derive(Clone, Copy, Default)]
struct Found {
    times: usize,
    /// Where its first value begins, tag included.
    from: usize,
    /// Where its last value begins.
    last: usize,
    /// Where its last value ends.
    to: usize,
}

/// Appends the message `buf`, which has been walked, as an object.
pub(super) fn message(message: &'static Message, buf: &[u8], out: &mut Vec<u8>) {
    let (found, chosen) = find(message, buf);
    out.push(b'{');
    let empty = out.len();
    for (i, field) in message.fields.iter().enumerate() {
        let at = found[i];
        if at.times == 0 || (field.count == Count::OneOf && chosen != Some(i)) {
            continue;
        }
        let before = out.len();
        if before > empty {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(field.json.as_bytes());
        out.extend_from_slice(b"\":");
        let written = match field.count {
            Count::Many => list(field, &buf[at.from..at.to], out),
            _ => single(field, buf, at, out),
        };
        if !written {
            out.truncate(before);
        }
    }
    out.push(b'}');
}

/// One pass over a message: where each of its fields is, and which member of a `oneof` counts.
fn find(message: &'static Message, buf: &[u8]) -> ([Found; FIELDS_MAX], Option<usize>) {
    let mut found = [Found::default(); FIELDS_MAX];
    let mut chosen = None;
    let mut fields = Fields::new(buf, 0);
    loop {
        let from = fields.at();
        let Some((number, _)) = fields.next() else {
            return (found, chosen);
        };
        let Some(i) = message.position(number) else {
            continue;
        };
        let at = &mut found[i];
        if message.fields[i].count == Count::OneOf && chosen != Some(i) {
            chosen = Some(i);
            at.times = 0;
        }
        if at.times == 0 {
            at.from = from;
        }
        at.times += 1;
        at.last = from;
        at.to = fields.at();
    }
}

/// Appends a value that comes once. False if it is a default that is not told from none.
fn single(field: &'static Field, buf: &[u8], at: Found, out: &mut Vec<u8>) -> bool {
    if let (Kind::Message(inner, _), 2..) = (field.kind, at.times) {
        message(inner, &merged(&buf[at.from..at.to], field.number), out);
        return true;
    }
    let Some((_, raw)) = Fields::new(&buf[..at.to], at.last).next() else {
        return false;
    };
    if field.count == Count::One && !matches!(field.kind, Kind::Message(..)) && is_default(raw) {
        return false;
    }
    value(field, buf, raw, out);
    true
}

fn is_default(raw: Raw) -> bool {
    match raw {
        Raw::Varint(v) | Raw::I64(v) => v == 0,
        Raw::I32(v) => v == 0,
        Raw::Len(from, to) => from == to,
    }
}

/// Appends all values of a field that repeats, from `buf`. False if there are none.
fn list(field: &'static Field, buf: &[u8], out: &mut Vec<u8>) -> bool {
    out.push(b'[');
    let empty = out.len();
    let next = |raw: Raw, out: &mut Vec<u8>| {
        if out.len() > empty {
            out.push(b',');
        }
        value(field, buf, raw, out);
    };
    for (number, raw) in Fields::new(buf, 0) {
        if number != field.number {
            continue;
        }
        match raw {
            Raw::Len(from, to) if field.wire() != LEN => {
                packed(field, buf, from..to, |raw| next(raw, out));
            }
            raw => next(raw, out),
        }
    }
    out.push(b']');
    out.len() > empty + 1
}

/// Gives each of the numbers that are packed in a range.
fn packed(field: &Field, buf: &[u8], range: Range<usize>, mut give: impl FnMut(Raw)) {
    if field.wire() == I64 {
        for bytes in buf[range].chunks_exact(8) {
            let number = bytes.try_into().map_or(0, u64::from_le_bytes);
            give(Raw::I64(number));
        }
        return;
    }
    let mut at = range.start;
    while at < range.end
        && let Ok((v, next)) = wire::varint(&buf[..range.end], at)
    {
        give(Raw::Varint(v));
        at = next;
    }
}

fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

/// Appends one value.
fn value(field: &'static Field, buf: &[u8], raw: Raw, out: &mut Vec<u8>) {
    match (field.kind, raw) {
        (Kind::Message(inner, _), Raw::Len(from, to)) => message(inner, &buf[from..to], out),
        (Kind::Str, Raw::Len(from, to)) => text::string(&buf[from..to], out),
        (Kind::Bytes, Raw::Len(from, to)) => quoted(out, |out| text::base64(&buf[from..to], out)),
        (Kind::Id, Raw::Len(from, to)) => quoted(out, |out| text::hex(&buf[from..to], out)),
        (Kind::Int64, Raw::Varint(v)) | (Kind::Sfixed64, Raw::I64(v)) => {
            quoted(out, |out| {
                out.extend_from_slice(Digits::of(v as i64).text())
            });
        }
        (Kind::Uint64, Raw::Varint(v)) | (Kind::Fixed64, Raw::I64(v)) => {
            quoted(out, |out| match i64::try_from(v) {
                Ok(v) => out.extend_from_slice(Digits::of(v).text()),
                Err(_) => out.extend_from_slice(v.to_string().as_bytes()),
            });
        }
        (Kind::Bool, Raw::Varint(v)) => {
            out.extend_from_slice(if v != 0 { b"true" } else { b"false" });
        }
        (Kind::Double, Raw::I64(v)) => text::any_double(f64::from_bits(v), out),
        (Kind::Enum(_), Raw::Varint(v)) => {
            out.extend_from_slice(Digits::of((v as i32).into()).text());
        }
        (Kind::Uint32, Raw::Varint(v)) => {
            out.extend_from_slice(Digits::of((v as u32).into()).text());
        }
        (Kind::Sint32, Raw::Varint(v)) => {
            let v = v as u32;
            let zigzag = (v >> 1) as i32 ^ -((v & 1) as i32);
            out.extend_from_slice(Digits::of(zigzag.into()).text());
        }
        (Kind::Fixed32, Raw::I32(v)) => out.extend_from_slice(Digits::of(v.into()).text()),
        // What has been walked has no other.
        _ => out.extend_from_slice(b"null"),
    }
}
