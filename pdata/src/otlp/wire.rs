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
