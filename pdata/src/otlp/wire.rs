//! The wire format of protobuf: tags, varints, lengths.

use super::schema::{I32, I64, LEN, VARINT};

/// Largest field number of protobuf.
const NUMBER_MAX: u64 = (1 << 29) - 1;

/// Reads a varint at `at`. `None` if the bytes end inside of it; `Some(Err(()))` if it has more
/// than ten bytes or 64 bits.
#[inline]
pub(super) fn varint(buf: &[u8], at: usize) -> Result<(u64, usize), Fault> {
    match buf.get(at) {
        Some(&b) if b < 0x80 => Ok((u64::from(b), at + 1)),
        _ => varint_long(buf, at),
    }
}

fn varint_long(buf: &[u8], at: usize) -> Result<(u64, usize), Fault> {
    let mut value = 0;
    for i in 0..10 {
        let b = *buf.get(at + i).ok_or(Fault::Truncated)?;
        if i == 9 && b > 1 {
            break;
        }
        value |= u64::from(b & 0x7f) << (7 * i);
        if b < 0x80 {
            return Ok((value, at + i + 1));
        }
    }
    Err(Fault::Varint)
}

/// Why bytes are not a protobuf message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// They end inside of a value.
    Truncated,
    /// A varint of more than ten bytes, or of more than 64 bits.
    Varint,
    /// A field number that is 0 or too large.
    Number,
    /// A wire type that is a group (3, 4) or unknown (6, 7).
    Type(u8),
}

/// Reads a tag: field number and wire type. The wire type is one of the four that are allowed.
#[inline]
pub(super) fn tag(buf: &[u8], at: usize) -> Result<(u32, u8, usize), Fault> {
    let (tag, next) = varint(buf, at)?;
    let (number, wire) = (tag >> 3, (tag & 7) as u8);
    if number == 0 || number > NUMBER_MAX {
        return Err(Fault::Number);
    }
    match wire {
        VARINT | I64 | LEN | I32 => Ok((number as u32, wire, next)),
        other => Err(Fault::Type(other)),
    }
}

/// Reads a length that must not reach beyond `buf`; gives the range that it means.
#[inline]
pub(super) fn range(buf: &[u8], at: usize) -> Result<(usize, usize), Fault> {
    let (len, from) = varint(buf, at)?;
    if len > (buf.len() - from) as u64 {
        return Err(Fault::Truncated);
    }
    Ok((from, from + len as usize))
}

/// Where a value of wire type `wire` at `at` ends.
#[inline]
pub(super) fn skip(buf: &[u8], at: usize, wire: u8) -> Result<usize, Fault> {
    let end = match wire {
        VARINT => return Ok(varint(buf, at)?.1),
        LEN => return Ok(range(buf, at)?.1),
        I64 => at + 8,
        _ => at + 4,
    };
    if end > buf.len() {
        return Err(Fault::Truncated);
    }
    Ok(end)
}

/// One value of a field.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Raw {
    /// A varint.
    Varint(u64),
    /// Eight bytes.
    I64(u64),
    /// A range of the message, from and to.
    Len(usize, usize),
    /// Four bytes.
    I32(u32),
}

#[cfg(test)]
thread_local! {
    /// Fields that were gone through on this thread: what looking through messages costs.
    pub(super) static STEPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// The fields of a message in a buffer that has been walked. Ends at the first fault, so it is total.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    buf: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// The fields of the message that is `buf[at..]`; ranges count from the start of `buf`.
    pub fn new(buf: &'a [u8], at: usize) -> Fields<'a> {
        Fields { buf, at }
    }

    /// Where the next field begins.
    pub fn at(&self) -> usize {
        self.at
    }
}

impl Iterator for Fields<'_> {
    type Item = (u32, Raw);

    #[inline]
    fn next(&mut self) -> Option<(u32, Raw)> {
        if self.at >= self.buf.len() {
            return None;
        }
        #[cfg(test)]
        STEPS.set(STEPS.get() + 1);
        let (number, wire, at) = tag(self.buf, self.at).ok()?;
        let (raw, next) = match wire {
            VARINT => {
                let (v, next) = varint(self.buf, at).ok()?;
                (Raw::Varint(v), next)
            }
            LEN => {
                let (from, to) = range(self.buf, at).ok()?;
                (Raw::Len(from, to), to)
            }
            I64 => {
                let bytes = self.buf.get(at..)?.first_chunk()?;
                (Raw::I64(u64::from_le_bytes(*bytes)), at + 8)
            }
            _ => {
                let bytes = self.buf.get(at..)?.first_chunk()?;
                (Raw::I32(u32::from_le_bytes(*bytes)), at + 4)
            }
        };
        self.at = next;
        Some((number, raw))
    }
}

/// Bytes that `value` takes as a varint.
#[inline]
pub(super) fn varint_len(value: u64) -> usize {
    (63 - (value | 1).leading_zeros() as usize) / 7 + 1
}

/// Appends a varint.
#[inline]
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a tag.
#[inline]
pub(super) fn put_tag(out: &mut Vec<u8>, number: u32, wire: u8) {
    put_varint(out, u64::from(number) << 3 | u64::from(wire));
}

/// Appends a field of bytes.
#[inline]
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number, LEN);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a field of varint type.
#[inline]
pub(super) fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_tag(out, number, VARINT);
    put_varint(out, value);
}

/// Appends a field of eight bytes.
#[inline]
pub(super) fn put_i64(out: &mut Vec<u8>, number: u32, value: u64) {
    put_tag(out, number, I64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a field of four bytes.
#[inline]
pub(super) fn put_i32(out: &mut Vec<u8>, number: u32, value: u32) {
    put_tag(out, number, I32);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A length that is written before what it measures: as many bytes as it will probably take.
#[must_use]
pub(super) struct Open {
    at: usize,
    width: usize,
}

impl Open {
    /// Begins a field with a length of `width` bytes, 1 to 5.
    pub fn field(out: &mut Vec<u8>, number: u32, width: usize) -> Open {
        put_tag(out, number, LEN);
        let at = out.len();
        out.extend_from_slice(&[0; 5][..width]);
        Open { at, width }
    }

    /// Ends it: everything appended since is its content. Moves it if the length takes more or fewer
    /// bytes than expected. Gives the bytes that it took.
    pub fn close(self, out: &mut Vec<u8>) -> usize {
        let from = self.at + self.width;
        let len = out.len() - from;
        let width = varint_len(len as u64);
        if width != self.width {
            let to = self.at + width;
            if width > self.width {
                out.resize(to + len, 0);
            }
            out.copy_within(from..from + len, to);
            out.truncate(to + len);
        }
        let mut rest = len;
        for byte in &mut out[self.at..self.at + width] {
            *byte = rest as u8 | 0x80;
            rest >>= 7;
        }
        out[self.at + width - 1] &= 0x7f;
        width
    }
}
