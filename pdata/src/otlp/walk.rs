//! One pass over a request that finds out whether it is one, and how many items it holds.

use super::error::{Problem, WireError};
use super::limits::Limits;
use super::schema::{Count, Field, I64, Kind, LEN, Message, Role, Step, VARINT};
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
                at = self.leap(message, buf, at);
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
                    Kind::Message(message, _) => {
                        self.enter(message, field, from, to)?;
                        at = from;
                        break;
                    }
                    Kind::Str if !is_utf8(&buf[from..to]) => {
                        return Err(self.error(Problem::Utf8, from, Some(field)));
                    }
                    _ => at = to,
                }
            }
        }
    }

    /// Passes fields that are as nearly all are: short, right, and with nothing in them to go into. Gives
    /// where the first of the others begins, of which nothing is said, or the end.
    #[inline]
    fn leap(&mut self, message: &'static Message, buf: &[u8], mut at: usize) -> usize {
        // A plain pair is a message with one in it.
        if self.depth + 2 > self.depth_max {
            return at;
        }
        let attributes = &mut self.stack[self.depth].attributes;
        while let Some([tag, first, rest @ ..]) = buf.get(at..) {
            let step = message.step(*tag);
            at += match step {
                Step::Varint if *first < 0x80 => 2,
                Step::Four if rest.len() >= 3 => 5,
                Step::Eight if rest.len() >= 7 => 9,
                Step::FarFour if *first == 1 && rest.len() >= 4 => 6,
                Step::Varint | Step::Four | Step::Eight | Step::FarFour | Step::Think => return at,
                _ => {
                    let Some((head, content)) = content(*first, rest) else {
                        return at;
                    };
                    let right = match step {
                        Step::Text => is_utf8(content),
                        Step::Packed => content.len().is_multiple_of(8),
                        Step::Value => is_plain_value(content),
                        Step::Pair => {
                            let right =
                                *attributes < self.limits.attributes && is_plain_pair(content);
                            *attributes += usize::from(right);
                            right
                        }
                        _ => true,
                    };
                    if !right {
                        return at;
                    }
                    head + content.len()
                }
            };
        }
        at
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

    /// Goes into the message in a range, a value of `field`.
    #[inline]
    fn enter(
        &mut self,
        message: &'static Message,
        field: &'static Field,
        from: usize,
        to: usize,
    ) -> Result<(), WireError> {
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
            Role::Metric | Role::Other => {}
        }
        self.depth += 1;
        self.stack[self.depth] = Frame {
            field: Some(field),
            items_before: self.items,
            ..Frame::of(message, to)
        };
        Ok(())
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

/// The content behind a length that begins with `first`, if that takes one byte or two and all of it is
/// there; with the bytes that its tag and its length take.
#[inline]
fn content(first: u8, rest: &[u8]) -> Option<(usize, &[u8])> {
    if first < 0x80 {
        return Some((2, rest.get(..usize::from(first))?));
    }
    let (second, rest) = rest.split_first()?;
    let length = usize::from(first & 0x7f) | usize::from(*second) << 7;
    match second {
        1..=0x7f => Some((3, rest.get(..length)?)),
        _ => None,
    }
}

/// Most strings are short and ASCII.
#[inline]
fn is_utf8(bytes: &[u8]) -> bool {
    is_ascii(bytes) || std::str::from_utf8(bytes).is_ok()
}

/// Whether all bytes are ASCII. Its begin and its end are looked at, which overlap, as most are short:
/// that of the standard library is made for long ones.
#[inline]
fn is_ascii(bytes: &[u8]) -> bool {
    const HIGH: u128 = u128::from_ne_bytes([0x80; 16]);
    let whole = |block: &[u8; 16]| u128::from_ne_bytes(*block);
    if let Some(last) = bytes.last_chunk::<16>() {
        let (blocks, _) = bytes.as_chunks::<16>();
        let all = blocks.iter().fold(whole(last), |all, b| all | whole(b));
        return all & HIGH == 0;
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        let all = u64::from_ne_bytes(*first) | u64::from_ne_bytes(*last);
        return all & HIGH as u64 == 0;
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let all = u32::from_ne_bytes(*first) | u32::from_ne_bytes(*last);
        return all & HIGH as u32 == 0;
    }
    bytes.iter().fold(0, |all, b| all | b) < 0x80
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
    if value.len() != usize::from(*len) || value.len() > 127 || key.len() > 127 {
        return false;
    }
    match value {
        // All of it at once: tags and lengths are ASCII, too.
        [0x0a, len, text @ ..] if text.len() == usize::from(*len) && is_ascii(pair) => true,
        _ => is_plain_value(value) && is_utf8(key),
    }
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
