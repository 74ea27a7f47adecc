//! One pass over a request that finds out whether it is one, and how many items it holds.

use super::error::{Problem, WireError};
use super::limits::Limits;
use super::schema::{Count, Field, I64, Kind, LEN, Message, Role, VARINT};
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
        at: 0,
        items: 0,
        scopes: 0,
    };
    if buf.len() > Limits::BYTES_MAX {
        return Err(walk.error(Problem::Bytes, None));
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
    /// The value or tag that is being read.
    at: usize,
    items: usize,
    scopes: usize,
}

impl Walk<'_> {
    fn run(&mut self, whole: &[u8]) -> Result<(), WireError> {
        loop {
            let Frame { end, message, .. } = self.stack[self.depth];
            let buf = &whole[..end];
            // The fields of one message, up to one that is a message.
            loop {
                if self.at == end {
                    if self.depth == 0 {
                        return Ok(());
                    }
                    self.depth -= 1;
                    break;
                }
                let (number, found, next) =
                    wire::tag(buf, self.at).map_err(|f| self.error(f.into(), None))?;
                self.at = next;
                let Some(field) = message.field(number) else {
                    self.at =
                        wire::skip(buf, next, found).map_err(|f| self.error(f.into(), None))?;
                    continue;
                };
                if found != field.wire() {
                    self.packed(buf, field, found)?;
                    continue;
                }
                if found != LEN {
                    self.at = wire::skip(buf, next, found)
                        .map_err(|f| self.error(f.into(), Some(field)))?;
                    continue;
                }
                let (from, to) =
                    wire::range(buf, next).map_err(|f| self.error(f.into(), Some(field)))?;
                self.at = from;
                match field.kind {
                    Kind::Message(message) => {
                        self.enter(message, field, to)?;
                        break;
                    }
                    Kind::Str if !is_utf8(&buf[from..to]) => {
                        return Err(self.error(Problem::Utf8, Some(field)));
                    }
                    _ => self.at = to,
                }
            }
        }
    }

    /// A field with another wire type than that of one value: right only if it may come many times
    /// and all are in one range.
    fn packed(&mut self, buf: &[u8], field: &'static Field, found: u8) -> Result<(), WireError> {
        let wanted = field.wire();
        if found != LEN || field.count != Count::Many {
            return Err(self.error(Problem::Mismatch { found, wanted }, Some(field)));
        }
        let (from, to) =
            wire::range(buf, self.at).map_err(|f| self.error(f.into(), Some(field)))?;
        self.at = from;
        match wanted {
            VARINT => {
                while self.at < to {
                    let (_, next) = wire::varint(&buf[..to], self.at)
                        .map_err(|f| self.error(f.into(), Some(field)))?;
                    self.at = next;
                }
            }
            I64 if (to - from) % 8 == 0 => {}
            _ => return Err(self.error(Problem::Packed, Some(field))),
        }
        self.at = to;
        Ok(())
    }

    #[inline]
    fn enter(
        &mut self,
        message: &'static Message,
        field: &'static Field,
        end: usize,
    ) -> Result<(), WireError> {
        if self.depth == self.depth_max {
            return Err(self.error(Problem::Depth(self.depth_max), Some(field)));
        }
        let around = &mut self.stack[self.depth];
        match message.role {
            Role::Attribute => {
                around.attributes += 1;
                if around.attributes > self.limits.attributes {
                    return Err(
                        self.error(Problem::Attributes(self.limits.attributes), Some(field))
                    );
                }
            }
            Role::Item => {
                self.items += 1;
                if self.items > self.limits.items {
                    return Err(self.error(Problem::Items(self.limits.items), Some(field)));
                }
            }
            Role::Scope => {
                self.scopes += 1;
                if self.scopes > self.limits.scopes {
                    return Err(self.error(Problem::Scopes(self.limits.scopes), Some(field)));
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
            ..Frame::of(message, end)
        };
        Ok(())
    }

    #[cold]
    fn error(&self, problem: Problem, field: Option<&'static Field>) -> WireError {
        let around = self.stack[..=self.depth].iter().filter_map(|f| f.field);
        let names: Vec<&str> = around.chain(field).map(|f| f.name).collect();
        let path = match names.is_empty() {
            true => "the request".into(),
            false => names.join("."),
        };
        WireError {
            problem,
            offset: self.at,
            path,
        }
    }
}

/// Most strings are short and ASCII.
#[inline]
fn is_utf8(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok()
}
