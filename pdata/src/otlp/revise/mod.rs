//! Changing any field of a request at any depth, with all that is around it at hand.
//!
//! [`Encoded::revise`] goes to each resource, scope, span or metric, or event or data point, and shows a
//! [`Place`]: the message itself and those it is in as [`Draft`]s, each without what is shown by itself.
//! All of them may be changed; a metric may be added. Resources in which nothing was changed are not
//! even copied.
//!
//! ```
//! use tailwater_pdata::Signal;
//! use tailwater_pdata::otlp::revise::{FieldValue, Level};
//! use tailwater_pdata::otlp::{Encoded, Limits};
//! // resource_metrics { scope_metrics { metrics { name: "a" } } }
//! let body = b"\x0a\x07\x12\x05\x12\x03\x0a\x01a".as_slice().into();
//! let mut metrics = Encoded::parse(Signal::Metrics, body, &Limits::default())?;
//! metrics.revise(Level::Item, &mut |place| {
//!     place.at_mut(Level::Item).set(None, "name", FieldValue::Bytes(b"b"));
//!     true
//! })?;
//! assert_eq!(&metrics.body()[..], b"\x0a\x07\x12\x05\x12\x03\x0a\x01b");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod apart;
mod draft;

pub use draft::{Draft, FieldValue};

use std::borrow::Cow;
use std::mem;

use super::Encoded;
use super::edit::one;
use super::metrics::{Metric, Subs};
use super::rewrite::{DATA, copy_except};
use super::schema::{self, Message};
use super::wire::{Fields, Open, Raw, put_bytes, varint_len};
use crate::Signal;

/// How deep something is in a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// `ResourceSpans` and its like.
    Resource,
    /// `ScopeSpans` and its like.
    Scope,
    /// A span, metric or log record.
    Item,
    /// An event of a span, or a point of a metric.
    Part,
}

const LEVELS: [Level; 4] = [Level::Resource, Level::Scope, Level::Item, Level::Part];

/// Metrics that may be added to one request.
const METRICS_MADE_MAX: usize = 10_000;
/// Bytes of them.
const METRICS_MADE_BYTES_MAX: usize = 16 << 20;

/// Bytes by which a request may grow.
const GROWTH_BYTES_MAX: usize = 64 << 20;
/// Bytes of what is around items that may be gone through on their account, besides
/// [`WORK_TIMES_MAX`] times the request.
const WORK_BYTES_MAX: u64 = if cfg!(test) { 16 << 20 } else { 256 << 20 };
const WORK_TIMES_MAX: u64 = 16;

/// Why [`Encoded::revise`] did not come to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TooMuch {
    /// It grew.
    #[error("it would make the request longer by more than {} MiB", GROWTH_BYTES_MAX >> 20)]
    Growth,
    /// All of what is around items was gone through for too many of them.
    #[error("it goes through too large a resource, scope or metric for each of too many items")]
    Work,
}

/// What has become of a request so far, for its limits.
#[derive(Default)]
struct Spent {
    work: u64,
    work_max: u64,
    /// By what is done with.
    growth: usize,
    too_much: Option<TooMuch>,
}

/// What is looked at, with what is around it.
pub struct Place {
    signal: Signal,
    level: Level,
    drafts: [Draft; 4],
    index: usize,
    /// Messages of each level that were gone into.
    begun: [usize; 4],
    /// Metrics that were added to the scope, and what has been added to the request.
    made: Vec<Vec<u8>>,
    made_count: usize,
    made_bytes: usize,
    spent: Spent,
}

impl Place {
    /// The signal of the request.
    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// What is looked at.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Its position among those it is with.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The number of what is looked at among all of the request, or of what is around it among those of its
    /// level: the same each time a request is gone through.
    pub fn number(&self, level: Level) -> usize {
        self.begun[level as usize].saturating_sub(1)
    }

    /// The message at `level`; what is deeper than [`Place::level`] is not about this place.
    pub fn at(&self, level: Level) -> &Draft {
        &self.drafts[level as usize]
    }

    /// The same, to change.
    pub fn at_mut(&mut self, level: Level) -> &mut Draft {
        &mut self.drafts[level as usize]
    }

    /// Adds a metric behind those of the scope, where it is shown in its turn. False if the request has
    /// been given so many that there is no room for another one.
    pub fn add_metric(&mut self, metric: &Draft) -> bool {
        let bytes = self.made_bytes + metric.bytes().len();
        if self.made_count == METRICS_MADE_MAX || bytes > METRICS_MADE_BYTES_MAX {
            return false;
        }
        (self.made_count, self.made_bytes) = (self.made_count + 1, bytes);
        self.made.push(metric.bytes().to_vec());
        true
    }
}

impl Encoded {
    /// Shows each message at `level` to `visit`, which says whether it stays. Of resources, scopes and
    /// metrics of which nothing stayed that was shown, nothing stays; spans stay without events.
    ///
    /// One attribute of what is around items takes as long as it is itself, to read and to set, so all
    /// takes as long as the request and what it becomes. What has to go through all of them for each item
    /// counts as work.
    ///
    /// # Errors
    /// The request grew too much, or took too much work. It is as it was before.
    pub fn revise(
        &mut self,
        level: Level,
        visit: &mut dyn FnMut(&mut Place) -> bool,
    ) -> Result<(), TooMuch> {
        let root = schema::request(self.signal());
        let mut new = Encoded::empty(self.signal());
        let mut reviser = Reviser {
            place: Place {
                signal: self.signal(),
                level,
                drafts: std::array::from_fn(|_| Draft::empty()),
                index: 0,
                begun: [0; 4],
                made: Vec::new(),
                made_count: 0,
                made_bytes: 0,
                spent: Spent {
                    work_max: WORK_BYTES_MAX + WORK_TIMES_MAX * self.len() as u64,
                    ..Spent::default()
                },
            },
            visit,
            inner: Default::default(),
        };
        for chunk in self.parts() {
            chunk
                .with_fields_replaced(root, &mut new, |found, out| reviser.message(0, &found, out));
        }
        match reviser.place.spent.too_much {
            None => *self = new,
            Some(too_much) => return Err(too_much),
        }
        Ok(())
    }
}

/// A field that holds a message.
pub(super) struct Found<'a> {
    pub message: &'static Message,
    pub number: u32,
    /// Tag, length and message.
    pub field: &'a [u8],
    /// Where the message begins in it.
    pub at: usize,
}

struct Reviser<'v> {
    place: Place,
    visit: &'v mut dyn FnMut(&mut Place) -> bool,
    /// What becomes of what is in a message, by level, to use again.
    inner: [Vec<u8>; 4],
}

impl Reviser<'_> {
    /// Appends what becomes of a message at `level`; false if nothing was changed, and then nothing is
    /// appended.
    fn message(&mut self, level: usize, found: &Found<'_>, out: &mut Vec<u8>) -> bool {
        let depth = self.place.level as usize;
        self.place.begun[level] += 1;
        let buf = &found.field[found.at..];
        let is_leaf = level == depth;
        if is_leaf && level >= Level::Item as usize {
            let draft = &mut self.place.drafts[level];
            draft.begin(found.message, |out| put_whole(found.message, buf, out));
            let keep = self.visit();
            let draft = &self.place.drafts[level];
            if keep && draft.is_changed() {
                put_bytes(out, found.number, draft.bytes());
            }
            self.place.spent.growth += draft.growth();
            let draft = &self.place.drafts[level];
            return !keep || draft.is_changed();
        }
        let Some(inside) = self.begin(level, found.message, buf) else {
            return false;
        };
        let mut inner = mem::take(&mut self.inner[level]);
        inner.clear();
        let (mut changed, mut shown) = (false, 0);
        if is_leaf {
            if !self.visit() {
                self.inner[level] = inner;
                return true;
            }
            copy_only(&inside.list, inside.number, &mut inner);
        } else {
            (changed, shown) = self.inside(level + 1, &inside, &mut inner);
        }
        let draft = &self.place.drafts[level];
        changed |= draft.is_changed();
        let is_empty = shown > 0 && inner.is_empty() && !inside.may_be_empty;
        if changed && !is_empty {
            let width = varint_len(buf.len() as u64).min(5);
            let open = Open::field(out, found.number, width);
            put_around(draft, &inside, &inner, out);
            open.close(out);
        }
        self.place.spent.growth += self.place.drafts[level].growth();
        self.inner[level] = inner;
        changed
    }

    /// Shows the place, unless there was too much already.
    fn visit(&mut self) -> bool {
        if self.place.spent.too_much.is_some() {
            return true;
        }
        let keep = (self.visit)(&mut self.place);
        let Place {
            drafts,
            spent,
            level,
            ..
        } = &mut self.place;
        let shown = &drafts[..=*level as usize];
        spent.work += shown.iter().map(Draft::take_spent).sum::<u64>();
        let growth: usize = shown.iter().map(Draft::growth).sum();
        if spent.growth + growth > GROWTH_BYTES_MAX {
            spent.too_much = Some(TooMuch::Growth);
        } else if spent.work > spent.work_max {
            spent.too_much = Some(TooMuch::Work);
        }
        keep
    }

    /// Makes the draft of a message around others; `None` if there can be none in it.
    fn begin<'b>(
        &mut self,
        level: usize,
        message: &'static Message,
        buf: &'b [u8],
    ) -> Option<Inside<'b>> {
        let draft = &mut self.place.drafts[level];
        if !std::ptr::eq(message, &schema::METRIC) {
            let is_span = std::ptr::eq(message, &schema::SPAN);
            let number = if is_span { 11 } else { 2 };
            draft.begin_around(message, |out| match is_span {
                true => copy_except(buf, &[number], out),
                // A resource or scope in pieces becomes one.
                false => {
                    copy_except(buf, &[1, number], out);
                    if Fields::new(buf, 0).any(|(number, _)| number == 1) {
                        put_bytes(out, 1, &one(buf, 1));
                    }
                }
            });
            let schema::Kind::Message(child, _) = message.field(number)?.kind else {
                return None;
            };
            return Some(Inside {
                message: child,
                number,
                list: Cow::Borrowed(buf),
                data: None,
                may_be_empty: is_span,
            });
        }
        let metric = Metric::of(buf);
        let data = message.field(metric.data_number)?;
        let schema::Kind::Message(kind, _) = data.kind else {
            return None;
        };
        let list = joined(Subs::from(buf, metric.data_at, metric.data_number));
        draft.begin_around(message, |out| {
            copy_except(buf, &DATA, out);
            let mut rest = Vec::new();
            copy_except(&list, &[1], &mut rest);
            put_bytes(out, data.number, &rest);
        });
        let schema::Kind::Message(child, _) = kind.field(1)?.kind else {
            return None;
        };
        Some(Inside {
            message: child,
            number: 1,
            list,
            data: Some(data.number),
            may_be_empty: false,
        })
    }

    /// Goes to each of the messages in another one, and to metrics that are added meanwhile. Says
    /// whether anything was changed, and how many there were.
    fn inside(&mut self, level: usize, inside: &Inside<'_>, out: &mut Vec<u8>) -> (bool, usize) {
        let (mut changed, mut shown) = (false, 0);
        let buf = &inside.list[..];
        let mut fields = Fields::new(buf, 0);
        loop {
            let from = fields.at();
            let Some((number, raw)) = fields.next() else {
                break;
            };
            let (true, Raw::Len(at, to)) = (number == inside.number, raw) else {
                continue;
            };
            let found = Found {
                message: inside.message,
                number,
                field: &buf[from..to],
                at: at - from,
            };
            changed |= self.child(level, shown, &found, out);
            shown += 1;
        }
        // Only metrics are added.
        if level != Level::Item as usize {
            return (changed, shown);
        }
        let mut at = 0;
        while at < self.place.made.len() {
            let metric = mem::take(&mut self.place.made[at]);
            at += 1;
            let mut field = Vec::with_capacity(metric.len() + 6);
            put_bytes(&mut field, inside.number, &metric);
            let found = Found {
                message: inside.message,
                number: inside.number,
                at: field.len() - metric.len(),
                field: &field,
            };
            self.child(level, shown, &found, out);
            (shown, changed) = (shown + 1, true);
        }
        self.place.made.clear();
        (changed, shown)
    }

    fn child(&mut self, level: usize, index: usize, found: &Found<'_>, out: &mut Vec<u8>) -> bool {
        if LEVELS.get(level) == Some(&self.place.level) {
            self.place.index = index;
        }
        let changed = self.message(level, found, out);
        if !changed {
            out.extend_from_slice(found.field);
        }
        changed
    }
}

/// What is in a message.
struct Inside<'b> {
    /// What kind of message, and in which fields.
    message: &'static Message,
    number: u32,
    /// The message they are fields of.
    list: Cow<'b, [u8]>,
    /// The field of that message, if they are not in the one around it.
    data: Option<u32>,
    /// The message stays if nothing in it does.
    may_be_empty: bool,
}

/// Appends a message with all that is in it. The data of a metric is in one piece then.
fn put_whole(message: &'static Message, buf: &[u8], out: &mut Vec<u8>) {
    let is_metric = std::ptr::eq(message, &schema::METRIC);
    let is_data = |(number, _): &(u32, Raw)| DATA.contains(number);
    if !is_metric || Fields::new(buf, 0).filter(is_data).count() < 2 {
        return out.extend_from_slice(buf);
    }
    let metric = Metric::of(buf);
    copy_except(buf, &DATA, out);
    let data = Subs::from(buf, metric.data_at, metric.data_number);
    put_bytes(out, metric.data_number, &joined(data));
}

/// Messages of one field as one.
fn joined(mut all: Subs<'_>) -> Cow<'_, [u8]> {
    let first = all.next().unwrap_or_default();
    let rest: Vec<&[u8]> = all.collect();
    match rest.is_empty() {
        true => Cow::Borrowed(first),
        false => Cow::Owned([&[first], &rest[..]].concat().concat()),
    }
}

/// Appends the fields `number` of `buf`.
fn copy_only(buf: &[u8], number: u32, out: &mut Vec<u8>) {
    let mut fields = Fields::new(buf, 0);
    loop {
        let from = fields.at();
        match fields.next() {
            Some((n, _)) if n == number => out.extend_from_slice(&buf[from..fields.at()]),
            Some(_) => {}
            None => return,
        }
    }
}

/// Appends a message with what has become of what is in it.
fn put_around(draft: &Draft, inside: &Inside<'_>, inner: &[u8], out: &mut Vec<u8>) {
    let Some(data) = inside.data else {
        draft.write(&[], out);
        return out.extend_from_slice(inner);
    };
    draft.write(&[data], out);
    let open = Open::field(out, data, varint_len(inner.len() as u64).min(5));
    out.extend_from_slice(inner);
    out.extend_from_slice(&one(draft.bytes(), data));
    open.close(out);
}

#[cfg(test)]
mod tests;
