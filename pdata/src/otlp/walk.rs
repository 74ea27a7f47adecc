//! One pass over a request that finds out whether it is one, and how many items it holds.

use super::error::{Problem, WireError};
use super::limits::Limits;
use super::schema::{self, Count, Field, I64, Kind, LEN, Message, Role, VARINT};
use super::wire;

/// A message that has been entered.
#[derive(Clone, Copy)]
struct Frame {
    /// Where it ends.
    end: usize,
    message: &'static Message,
    /// The field of the message around it that it is the value of.
    field: Option<&'static Field>,
    /// Attributes among its fields so far.
    attributes: usize,
    /// In a metric: the number of the kind of data given last, 0 before the first.
    data: u32,
    /// In a metric: items counted before it.
    items_before: usize,
}

/// Walks `buf`, a message `root`. Gives the number of items in it.
pub(super) fn walk(
    root: &'static Message,
    buf: &[u8],
    limits: &Limits,
) -> Result<usize, WireError> {
    let mut walk = Walk {
        depth: 0,
        depth_max: limits.depth.min(Limits::DEPTH_MAX),
        limits,
        stack: [Frame::of(root, buf.len()); Limits::DEPTH_MAX + 1],
        items: 0,
        scopes: 0,
    };
    if buf.len() > Limits::BYTES_MAX {
        return Err(walk.error(Problem::Bytes, 0, None));
    }
    walk.run(buf)?;
    Ok(walk.items)
}

impl Frame {
    fn of(message: &'static Message, end: usize) -> Frame {
        Frame {
            end,
            message,
            field: None,
            attributes: 0,
            data: 0,
            items_before: 0,
        }
    }
}

struct Walk<'l> {
    /// The message that is being read is `stack[depth]`.
    depth: usize,
    depth_max: usize,
    limits: &'l Limits,
    stack: [Frame; Limits::DEPTH_MAX + 1],
    items: usize,
    scopes: usize,
}

impl Walk<'_> {
    fn run(&mut self, whole: &[u8]) -> Result<(), WireError> {
        let mut at = 0;
        loop {
            let Frame { end, message, .. } = self.stack[self.depth];
            let buf = &whole[..end];
            // The fields of one message, up to one that is a message.
            loop {
                if at == end {
                    if self.depth == 0 {
                        return Ok(());
                    }
                    self.depth -= 1;
                    break;
                }
                let (field, found, next) = match message.tagged(buf[at]) {
                    Some(field) => (field, buf[at] & 7, at + 1),
                    None => match self.unusual(message, buf, at)? {
                        (Some(field), found, next) => (field, found, next),
                        (None, _, next) => {
                            at = next;
                            continue;
                        }
                    },
                };
                if found != LEN {
                    at = wire::skip(buf, next, found)
                        .map_err(|f| self.error(f.into(), next, Some(field)))?;
                    continue;
                }
                let (from, to) =
                    wire::range(buf, next).map_err(|f| self.error(f.into(), next, Some(field)))?;
                match field.kind {
                    Kind::Message(message) => {
                        at = self.enter(message, field, buf, (from, to))?;
                        if at == from {
                            break;
                        }
                    }
                    Kind::Str if !is_utf8(&buf[from..to]) => {
                        return Err(self.error(Problem::Utf8, from, Some(field)));
                    }
                    _ => at = to,
                }
            }
        }
    }

    /// Reads a tag that is not one byte which names a field and its wire type. Gives the field, its
    /// wire type and where its value begins; or no field, and where one ends that was skipped.
    #[inline(never)]
    fn unusual(
        &self,
        message: &'static Message,
        buf: &[u8],
        at: usize,
    ) -> Result<(Option<&'static Field>, u8, usize), WireError> {
        let (number, found, next) =
            wire::tag(buf, at).map_err(|f| self.error(f.into(), at, None))?;
        let Some(field) = message.field(number) else {
            let end = wire::skip(buf, next, found).map_err(|f| self.error(f.into(), next, None))?;
            return Ok((None, found, end));
        };
        if found != field.wire() {
            let end = self.packed(buf, next, field, found)?;
            return Ok((None, found, end));
        }
        Ok((Some(field), found, next))
    }

    /// A field with another wire type than that of one value: right only if it may come many times
    /// and all are in one range.
    /// Gives its end.
    fn packed(
        &self,
        buf: &[u8],
        at: usize,
        field: &'static Field,
        found: u8,
    ) -> Result<usize, WireError> {
        let wanted = field.wire();
        if found != LEN || field.count != Count::Many {
            return Err(self.error(Problem::Mismatch { found, wanted }, at, Some(field)));
        }
        let (from, to) = wire::range(buf, at).map_err(|f| self.error(f.into(), at, Some(field)))?;
        match wanted {
            VARINT => {
                let mut at = from;
                while at < to {
                    (_, at) = wire::varint(&buf[..to], at)
                        .map_err(|f| self.error(f.into(), at, Some(field)))?;
                }
            }
            I64 if (to - from) % 8 == 0 => {}
            _ => return Err(self.error(Problem::Packed, from, Some(field))),
        }
        Ok(to)
    }

    /// Goes into the message in a range of `buf`, a value of `field`. Gives where to go on: its begin,
    /// or its end if it has been looked at as a whole.
    #[inline]
    fn enter(
        &mut self,
        message: &'static Message,
        field: &'static Field,
        buf: &[u8],
        (from, to): (usize, usize),
    ) -> Result<usize, WireError> {
        if self.depth == self.depth_max {
            return Err(self.error(Problem::Depth(self.depth_max), from, Some(field)));
        }
        let around = &mut self.stack[self.depth];
        match message.role {
            Role::Attribute => {
                around.attributes += 1;
                if around.attributes > self.limits.attributes {
                    let problem = Problem::Attributes(self.limits.attributes);
                    return Err(self.error(problem, from, Some(field)));
                }
                if self.depth + 2 <= self.depth_max && is_plain_pair(&buf[from..to]) {
                    return Ok(to);
                }
            }
            Role::Item => {
                self.items += 1;
                if self.items > self.limits.items {
                    return Err(self.error(Problem::Items(self.limits.items), from, Some(field)));
                }
            }
            Role::Scope => {
                self.scopes += 1;
                if self.scopes > self.limits.scopes {
                    return Err(self.error(Problem::Scopes(self.limits.scopes), from, Some(field)));
                }
            }
            Role::Data => {
                // Whoever reads a metric with two kinds of data sees the last one.
                if around.data != field.number {
                    around.data = field.number;
                    self.items = around.items_before;
                }
            }
            Role::Metric => {}
            Role::Other => {
                let is_value = std::ptr::eq(message, &schema::ANY_VALUE);
                if is_value && is_plain_value(&buf[from..to]) {
                    return Ok(to);
                }
            }
        }
        self.depth += 1;
        self.stack[self.depth] = Frame {
            field: Some(field),
            items_before: self.items,
            ..Frame::of(message, to)
        };
        Ok(from)
    }

    #[cold]
    fn error(&self, problem: Problem, offset: usize, field: Option<&'static Field>) -> WireError {
        let around = self.stack[..=self.depth].iter().filter_map(|f| f.field);
        let names: Vec<&str> = around.chain(field).map(|f| f.name).collect();
        let path = match names.is_empty() {
            true => "the request".into(),
            false => names.join("."),
        };
        WireError {
            problem,
            offset,
            path,
        }
    }
}

/// Most strings are short and ASCII.
#[inline]
fn is_utf8(bytes: &[u8]) -> bool {
    is_ascii(bytes) || std::str::from_utf8(bytes).is_ok()
}

/// Whether all bytes are ASCII, in words: that of the standard library is made for long ones.
#[inline]
fn is_ascii(bytes: &[u8]) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let Some(last) = bytes.last_chunk::<8>() else {
        return bytes.iter().fold(0, |all, b| all | b) < 0x80;
    };
    let (words, _) = bytes.as_chunks::<8>();
    let all = words.iter().fold(u64::from_ne_bytes(*last), |all, word| {
        all | u64::from_ne_bytes(*word)
    });
    all & HIGH == 0
}

/// True for a `KeyValue` as nearly all are: a key, then one plain value, nothing else, no length of
/// more than 127. Others are told nothing of, they are walked field by field.
#[inline]
fn is_plain_pair(pair: &[u8]) -> bool {
    let [0x0a, len, rest @ ..] = pair else {
        return false;
    };
    let Some((key, [0x12, len, value @ ..])) = rest.split_at_checked(usize::from(*len)) else {
        return false;
    };
    // A length with its top bit set goes on, and is longer than what is here.
    value.len() == usize::from(*len)
        && value.len() <= 127
        && key.len() <= 127
        && is_plain_value(value)
        && is_utf8(key)
}

/// True for an `AnyValue` as nearly all are: one text, number or truth, and nothing else. Of others
/// nothing is said.
#[inline]
fn is_plain_value(value: &[u8]) -> bool {
    match value {
        [0x0a, len @ ..=0x7f, text @ ..] => text.len() == usize::from(*len) && is_utf8(text),
        [0x0a, low, high @ 1..=0x7f, text @ ..] => {
            let len = usize::from(low & 0x7f) | usize::from(*high) << 7;
            text.len() == len && is_utf8(text)
        }
        [0x10 | 0x18, varint @ .., last] => {
            // One varint, of which only the last byte ends it. One of ten bytes may be too much.
            *last < 0x80 && varint.len() < 9 && varint.iter().all(|b| *b >= 0x80)
        }
        [0x21, double @ ..] => double.len() == 8,
        _ => false,
    }
}
