//! Cutting a request between two items.

use std::mem;
use std::ops::Range;

use super::encoded::Chunk;
use super::schema::{Message, Role};
use super::wire::{Fields, Open, Raw};
use super::{Encoded, schema};

impl Encoded {
    /// Keeps the first `items` log records, data points or spans and gives the rest.
    ///
    /// A resource, scope or metric that is cut is in both halves, with all it has besides items.
    /// What is not cut is not copied. Only a metric that has several times data, which encoders do
    /// not write, stays whole.
    pub fn split_off(&mut self, items: usize) -> Encoded {
        let signal = self.signal();
        if items >= self.items() {
            return Encoded::empty(signal);
        }
        let whole = mem::replace(self, Encoded::empty(signal));
        if items == 0 {
            return whole;
        }
        let mut pieces = Cutter::new(&whole, items, usize::MAX)
            .pieces(&whole)
            .into_iter();
        *self = pieces.next().unwrap_or(Encoded::empty(signal));
        let mut rest = pieces.next().unwrap_or(Encoded::empty(signal));
        pieces.for_each(|piece| rest.append(piece));
        rest
    }

    /// Cuts it into pieces of `items_max` log records, data points or spans, the last of which has
    /// what is left. In one pass; else as [`Encoded::split_off`]. 0 is no limit.
    pub fn split(self, items_max: usize) -> Vec<Encoded> {
        if items_max == 0 || self.items() <= items_max {
            return vec![self];
        }
        Cutter::new(&self, items_max, items_max).pieces(&self)
    }
}

/// A message that is cut, as far as it is written into the piece of now.
struct Level {
    number: u32,
    /// Its fields that lead to no items: they are in each part.
    heading: Vec<u8>,
    open: Open,
}

struct Cutter {
    done: Vec<Encoded>,
    /// The piece that is being made.
    piece: Encoded,
    /// How many items it may still take.
    room: usize,
    /// How many each of the next may have.
    next: usize,
    /// What of the piece had to be written anew, and the items in it.
    out: Vec<u8>,
    out_items: usize,
    levels: Vec<Level>,
}

impl Cutter {
    fn new(whole: &Encoded, first: usize, next: usize) -> Cutter {
        Cutter {
            done: Vec::new(),
            piece: Encoded::empty(whole.signal()),
            room: first,
            next,
            out: Vec::new(),
            out_items: 0,
            levels: Vec::new(),
        }
    }

    fn pieces(mut self, whole: &Encoded) -> Vec<Encoded> {
        let root = schema::request(whole.signal());
        for chunk in whole.parts() {
            self.chunk(root, chunk);
        }
        self.done.push(self.piece);
        self.done
    }

    fn chunk(&mut self, root: &'static Message, chunk: &Chunk) {
        let body = &chunk.body;
        // Fields that go into the piece as they are.
        let (mut start, mut items) = (0, 0);
        let mut fields = Fields::new(body, 0);
        loop {
            let from = fields.at();
            let Some((number, raw)) = fields.next() else {
                let body = body.slice(start..);
                self.piece.push(Chunk { body, items });
                return;
            };
            let (Some(message), Raw::Len(at, to)) = (root.towards_items(number), raw) else {
                continue;
            };
            let more = count(message, &body[at..to]);
            if self.room == 0 && more > 0 {
                let body = body.slice(start..from);
                self.piece.push(Chunk { body, items });
                self.end_piece();
                (start, items) = (from, 0);
            }
            if more <= self.room {
                items += more;
                self.room -= more;
                continue;
            }
            let before = body.slice(start..from);
            self.piece.push(Chunk {
                body: before,
                items,
            });
            self.add(message, number, &body[from..to], at - from);
            self.flush();
            (start, items) = (to, 0);
        }
    }

    /// Adds a field, cutting it if it has too many items. `at` is where its message begins in it.
    fn add(&mut self, message: &'static Message, number: u32, field: &[u8], at: usize) {
        let body = &field[at..];
        let items = count(message, body);
        if items > self.room && self.room == 0 {
            self.end_piece();
        }
        if items > self.room && !is_cut(message, body) && self.piece.items() + self.out_items > 0 {
            self.end_piece();
        }
        if items <= self.room || !is_cut(message, body) {
            self.out.extend_from_slice(field);
            self.out_items += items;
            self.room = self.room.saturating_sub(items);
            return;
        }
        let heading = heading(message, body);
        self.open(number, heading);
        let mut fields = Fields::new(body, 0);
        loop {
            let from = fields.at();
            let Some((number, raw)) = fields.next() else {
                break;
            };
            if let (Some(inner), Raw::Len(at, to)) = (message.towards_items(number), raw) {
                self.add(inner, number, &body[from..to], at - from);
            }
        }
        if let Some(level) = self.levels.pop() {
            level.open.close(&mut self.out);
        }
    }

    fn open(&mut self, number: u32, heading: Vec<u8>) {
        // Most of what is cut is long.
        let open = Open::field(&mut self.out, number, 3);
        self.out.extend_from_slice(&heading);
        self.levels.push(Level {
            number,
            heading,
            open,
        });
    }

    /// Ends the piece of now, and begins the next one in the same messages.
    fn end_piece(&mut self) {
        let mut again = Vec::new();
        while let Some(level) = self.levels.pop() {
            level.open.close(&mut self.out);
            again.push((level.number, level.heading));
        }
        self.flush();
        let empty = Encoded::empty(self.piece.signal());
        self.done.push(mem::replace(&mut self.piece, empty));
        self.room = self.next;
        while let Some((number, heading)) = again.pop() {
            self.open(number, heading);
        }
    }

    /// Moves what was written into the piece.
    fn flush(&mut self) {
        self.piece.push(Chunk {
            body: mem::take(&mut self.out).into(),
            items: mem::take(&mut self.out_items),
        });
    }
}

/// The items of a message; of a metric as [`Encoded::items`] says.
pub(super) fn count(message: &'static Message, buf: &[u8]) -> usize {
    if message.role == Role::Item {
        return 1;
    }
    let (mut items, mut data) = (0, 0);
    for (number, raw) in Fields::new(buf, 0) {
        if let (Some(inner), Raw::Len(from, to)) = (message.towards_items(number), raw) {
            if message.role == Role::Metric && data != number {
                (items, data) = (0, number);
            }
            items += count(inner, &buf[from..to]);
        }
    }
    items
}

/// True if a message can be cut: it has items below it, each in a field of its own. Of data that is
/// given several times to a metric, the parts belong together.
fn is_cut(message: &'static Message, buf: &[u8]) -> bool {
    let data = |f: &(u32, Raw)| message.towards_items(f.0).is_some();
    match message.role {
        Role::Scope | Role::Data => true,
        Role::Metric => Fields::new(buf, 0).filter(data).count() == 1,
        Role::Item | Role::Attribute | Role::Other => false,
    }
}

/// The fields of a message that lead to no items.
pub(super) fn heading(message: &'static Message, buf: &[u8]) -> Vec<u8> {
    let mut heading = Vec::new();
    let mut kept: Range<usize> = 0..0;
    let mut fields = Fields::new(buf, 0);
    loop {
        let from = fields.at();
        let Some((number, _)) = fields.next() else {
            break;
        };
        if message.towards_items(number).is_none() {
            if kept.end != from {
                heading.extend_from_slice(&buf[kept]);
                kept = from..from;
            }
            kept.end = fields.at();
        }
    }
    heading.extend_from_slice(&buf[kept]);
    heading
}
