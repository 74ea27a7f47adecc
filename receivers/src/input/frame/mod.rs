//! Cuts the content of a file into records, without copying and without I/O.
//!
//! [`FrameSpec`] holds the rules (shared by all files of a receiver), [`FrameState`] the two facts
//! that have to survive from one call to the next (and a restart), [`Frames`] the outcome of one
//! call. The caller offers a buffer that starts at its read position; what was not consumed is
//! offered again, followed by more, next time.
//!
//! INVARIANT: in every mode but [`Split::None`] the records depend only on the bytes of the file
//! and on where a flush happened, never on how the bytes were cut into buffers. It holds for
//! patterns whose matches are at most [`LOOKAHEAD_BYTES`] long and do not move when text is added
//! behind them.
//!
//! INVARIANT: every byte is accounted for: it belongs to a record, is white space or a separator
//! around one, or is counted in [`Frames::nul_bytes`] or [`Frames::truncated_bytes`].
//!
//! Rules, as the collector has them (its documentation of the filelog receiver):
//! - a record ends at LF; one CR before it is no content;
//! - with `line_start_pattern` a record goes from one match to the next, text before the first
//!   match is a record of its own; with `line_end_pattern` it ends with a match; a match at the
//!   very end of what is there waits, since it could go on;
//! - a longer record than `max_log_size` is split, or its rest up to the next boundary is dropped;
//! - white space (space, tab, CR, LF) is trimmed at both ends, empty records are skipped.
//!
//! Beyond it: a record is not split inside a UTF-8 or UTF-16 character; NUL bytes where a record
//! would start (a hole, left by a writer that kept its offset over a truncation) are skipped and
//! counted; patterns also work on UTF-16.

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod lines;
mod pattern;
#[cfg(test)]
mod tests;
mod units;

use std::sync::Arc;
use std::time::Duration;

use regex::bytes::Regex;

pub use units::{Trim, Units};

/// Longest match of a pattern that is found wherever buffers end, in bytes.
pub const LOOKAHEAD_BYTES: usize = 4096;
/// While the rest of a truncated record is dropped, a pattern may begin in so many of its last bytes.
const SKIPPED_KEPT_BYTES: usize = LOOKAHEAD_BYTES + 2;

/// Where records end.
#[derive(Clone, Debug)]
pub enum Split {
    /// At each LF.
    Newline,
    /// Before each match.
    LineStart {
        /// Compiled with `(?m)`.
        pattern: Arc<Regex>,
        /// The match is not part of the record.
        omit: bool,
    },
    /// After each match.
    LineEnd {
        /// Compiled with `(?m)`.
        pattern: Arc<Regex>,
        /// The match is not part of the record.
        omit: bool,
    },
    /// Nowhere: pieces of the largest size, and what is left at the end of the file.
    None,
}

/// What happens to a record longer than `max_log_bytes`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Oversize {
    /// The rest becomes further records.
    #[default]
    Split,
    /// The rest is dropped up to the end of the record, and counted.
    Truncate,
}

/// The rules of framing.
#[derive(Clone, Debug)]
pub struct FrameSpec {
    /// Where records end.
    pub split: Split,
    /// How characters are made of bytes.
    pub units: Units,
    /// Longest record in bytes of the file, before trimming; at least 1.
    pub max_log_bytes: usize,
    /// What happens to longer ones.
    pub oversize: Oversize,
    /// White space to remove.
    pub trim: Trim,
}

/// What is behind the buffer that is offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// More content of the file.
    More,
    /// The end of the file, for now.
    End,
    /// The end of the file, and nothing came for the flush period: the unfinished record at the
    /// end is to be given out.
    Flush,
}

/// What has to be known of the bytes before the buffer. Default at the start of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FrameState {
    /// The rest of a truncated record is being dropped.
    skipping: bool,
    /// The character before the buffer, if the buffer starts inside a record (it was split, or
    /// flushed); characters beyond ASCII are stored as `x`.
    prev: Option<u8>,
}

/// A stored [`FrameState`] that cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the stored state of the record splitter is damaged")]
pub struct DamagedState;

impl FrameState {
    const SKIPPING: u8 = 1;
    const HAS_PREV: u8 = 2;

    /// Inside a record whose rest is being dropped.
    pub fn in_skipped_line() -> FrameState {
        FrameState {
            skipping: true,
            prev: None,
        }
    }

    /// The state as bytes for a checkpoint: none at rest, else a byte of flags (1 = skipping, 2 =
    /// a byte follows) and perhaps the character before.
    pub fn encode(&self) -> Vec<u8> {
        match (self.skipping, self.prev) {
            (false, None) => Vec::new(),
            (true, None) => vec![Self::SKIPPING],
            (skipping, Some(prev)) => {
                vec![
                    Self::HAS_PREV | if skipping { Self::SKIPPING } else { 0 },
                    prev,
                ]
            }
        }
    }

    /// Reads what [`FrameState::encode`] wrote.
    ///
    /// # Errors
    /// If `bytes` is nothing that `encode` writes.
    pub fn decode(bytes: &[u8]) -> Result<FrameState, DamagedState> {
        match *bytes {
            [] => Ok(FrameState::default()),
            [Self::SKIPPING] => Ok(FrameState {
                skipping: true,
                prev: None,
            }),
            [flags @ 2..=3, prev] => Ok(FrameState {
                skipping: flags & Self::SKIPPING != 0,
                prev: Some(prev),
            }),
            _ => Err(DamagedState),
        }
    }
}

/// One record. Offsets count from the start of the buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    /// Where the record begins, what was trimmed or omitted included.
    pub from: u32,
    /// Number of the record within the call, from 0; empty ones count, though they give no token.
    pub index: u32,
    /// First byte of the content, trimmed.
    pub start: u32,
    /// Behind the content. Never equal to `start`.
    pub end: u32,
    /// Where the next record starts to be looked for: behind separators.
    pub next: u32,
    /// The record is longer than `max_log_bytes`: this is a part of it that is followed by more,
    /// or by what was dropped.
    pub cut: bool,
}

impl Token {
    /// The content within the buffer.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// What one call of [`FrameSpec::frame`] found. Reused from call to call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frames {
    /// The records in order.
    pub tokens: Vec<Token>,
    /// Records of `consumed`, the empty ones included.
    pub records: u32,
    /// Bytes of the buffer that are done with; the rest has to be offered again.
    pub consumed: usize,
    /// Bytes behind `consumed` that a flush would give out as a record.
    pub unfinished: usize,
    /// Bytes behind `consumed` that were searched and hold no end of a record; for the next call.
    pub searched: usize,
    /// Bytes that were searched for ends of records in this call.
    pub scanned: u64,
    /// NUL bytes skipped where a record would start.
    pub nul_bytes: u64,
    /// Bytes dropped by [`Oversize::Truncate`], with the separator that ends the record.
    pub truncated_bytes: u64,
}

impl Frames {
    fn clear(&mut self) {
        self.tokens.clear();
        (self.records, self.consumed, self.unfinished) = (0, 0, 0);
        (self.searched, self.scanned) = (0, 0);
        (self.nul_bytes, self.truncated_bytes) = (0, 0);
    }
}

impl FrameSpec {
    /// The buffer that is needed so that every call can get on: what stays unconsumed is shorter, also
    /// while a record shorter than the lookahead is truncated.
    pub fn buffer_bytes_max(&self) -> usize {
        let ahead = match self.split {
            Split::Newline => 4,
            Split::None => 0,
            Split::LineStart { .. } | Split::LineEnd { .. } => LOOKAHEAD_BYTES,
        };
        let record = self.max_bytes().saturating_add(ahead);
        match (self.oversize, &self.split) {
            (Oversize::Truncate, Split::LineStart { .. } | Split::LineEnd { .. }) => {
                record.max(2 * SKIPPED_KEPT_BYTES + self.units.size())
            }
            _ => record,
        }
    }

    /// The longest record, a whole number of units.
    fn max_bytes(&self) -> usize {
        let size = self.units.size();
        (self.max_log_bytes / size * size).max(size)
    }

    /// What has to be remembered of `gone`, behind which a record goes on: patterns see it.
    fn context(&self, gone: &[u8]) -> Option<u8> {
        match self.split {
            Split::Newline | Split::None => None,
            Split::LineStart { .. } | Split::LineEnd { .. } => Some(self.units.last_ascii(gone)),
        }
    }

    /// Finds the records of `buf`, which starts where the last call stopped consuming. `input` says
    /// what follows it. Fills `out` anew and moves `state` to the end of what was consumed. Of a
    /// buffer of 4 GiB or more only the beginning is looked at.
    pub fn frame(&self, state: &mut FrameState, buf: &[u8], input: Input, out: &mut Frames) {
        self.frame_on(state, buf, 0, input, out);
    }

    /// [`FrameSpec::frame`] of a buffer whose first `searched` bytes are the same as before
    /// ([`Frames::searched`] of the last call): patterns do not look at them again, so a long
    /// record that grows bit by bit is searched once. Line ends are looked for anew, which costs
    /// less than reading the bytes did, and so are patterns in UTF-16.
    pub fn frame_on(
        &self,
        state: &mut FrameState,
        buf: &[u8],
        searched: usize,
        input: Input,
        out: &mut Frames,
    ) {
        out.clear();
        let (buf, input) = match buf.get(..u32::MAX as usize) {
            Some(first) if first.len() < buf.len() => (first, Input::More),
            _ => (buf, input),
        };
        let mut cutter = Cutter {
            spec: self,
            max: self.max_bytes(),
            buf,
            pos: 0,
            searched,
            state,
            input,
            out,
        };
        match (&self.split, self.units) {
            (Split::None, _) => cutter.pieces(),
            (Split::Newline, Units::Utf8 | Units::Bytes) => cutter.lines(),
            _ => while cutter.step() {},
        }
        let pos = cutter.pos;
        out.consumed = pos;
    }
}

/// Where the record at the start of `rest` ends.
enum Boundary {
    /// The content is `start..end`, the next record starts at `next`. `length` is what is compared
    /// with the longest size.
    Found {
        start: usize,
        end: usize,
        next: usize,
        length: usize,
    },
    /// Not in what was looked at. The content starts at `start`.
    Missing { start: usize },
    /// More text has to be seen.
    Unclear,
}

/// One call's work.
struct Cutter<'a> {
    spec: &'a FrameSpec,
    max: usize,
    buf: &'a [u8],
    pos: usize,
    /// Between the position and here no record ends.
    searched: usize,
    state: &'a mut FrameState,
    input: Input,
    out: &'a mut Frames,
}

impl Cutter<'_> {
    /// Does one record, or skips something. False if nothing more can be done with this buffer.
    fn step(&mut self) -> bool {
        if self.state.skipping {
            return self.skip_to_boundary();
        }
        match self.skip_nuls() {
            Some(true) => {}
            Some(false) => return true,
            None => return false,
        }
        let rest = &self.buf[self.pos..];
        if rest.len() < self.spec.units.size() {
            return false;
        }
        let seen_max = self.spec.buffer_bytes_max();
        let view = &rest[..rest.len().min(seen_max)];
        let full = view.len() >= seen_max;
        match self.boundary(view, full || self.input == Input::Flush) {
            Boundary::Found {
                start,
                end,
                next,
                length,
            } if length <= self.max => {
                self.push(start, end, next, false);
                self.state.prev = None;
                true
            }
            Boundary::Found { start, .. } => self.cut(start),
            Boundary::Missing { start } if full => self.cut(start),
            Boundary::Missing { start } if self.input == Input::Flush => {
                if view.len() > self.max {
                    return self.cut(start);
                }
                self.flush(start);
                false
            }
            Boundary::Missing { .. } | Boundary::Unclear => {
                self.out.unfinished = self.spec.units.whole(rest.len());
                // NULs at the end may be room that is filled later.
                self.out.searched = self.spec.units.without_nuls(rest);
                false
            }
        }
    }

    /// Adds the record `start..end` (from the position) and moves the position by `next`.
    #[inline]
    fn push(&mut self, start: usize, end: usize, next: usize, cut: bool) {
        let base = self.pos;
        let content = &self.buf[base + start..base + end];
        let (from, to) = self.spec.units.trim(content, self.spec.trim);
        self.pos = base + next;
        if from < to {
            let at = (base + start) as u32;
            let token = Token {
                from: base as u32,
                index: self.out.records,
                start: at + from as u32,
                end: at + to as u32,
                next: self.pos as u32,
                cut,
            };
            self.out.tokens.push(token);
        }
        self.out.records += 1;
    }

    /// Cuts a record that is too long.
    fn cut(&mut self, start: usize) -> bool {
        let rest = &self.buf[self.pos..];
        let at = self.spec.units.floor(rest, self.max);
        // NULs at the cut are the beginning of a hole: they are skipped like at a record's start.
        let end = self.spec.units.without_nuls(&rest[..at]);
        let hole = end < at;
        self.state.prev = self.spec.context(&rest[..end]);
        self.state.skipping = self.spec.oversize == Oversize::Truncate && !hole;
        self.searched = self.pos;
        self.push(start.min(end), end, end, true);
        true
    }

    /// Gives out the unfinished record at the end.
    fn flush(&mut self, start: usize) {
        let rest = &self.buf[self.pos..];
        let end = self
            .spec
            .units
            .floor(rest, self.spec.units.whole(rest.len()));
        let left = rest.len() - end;
        self.state.prev = self.spec.context(&rest[..end]);
        self.push(start.min(end), end, end, false);
        self.out.unfinished = self.spec.units.whole(left);
    }

    /// Skips NULs where a record would start. `Some(false)` if some were skipped, `None` if they
    /// reach the end of the buffer: a preallocated file may still be written there, so a run that
    /// fits a buffer is left until something follows it.
    fn skip_nuls(&mut self) -> Option<bool> {
        let rest = &self.buf[self.pos..];
        let run = self.spec.units.nul_run(rest);
        if run == 0 {
            return Some(true);
        }
        if rest.len() - run < self.spec.units.size() && rest.len() < self.spec.buffer_bytes_max() {
            return None;
        }
        self.out.nul_bytes += run as u64;
        self.pos += run;
        self.state.prev = None;
        Some(false)
    }

    /// Drops the rest of a truncated record.
    fn skip_to_boundary(&mut self) -> bool {
        let rest = &self.buf[self.pos..];
        let keep = match self.spec.split {
            Split::LineStart { .. } | Split::LineEnd { .. } => SKIPPED_KEPT_BYTES,
            Split::Newline | Split::None => 0,
        };
        let decide = self.input == Input::Flush || (keep > 0 && rest.len() > 2 * keep);
        match self.boundary(rest, decide) {
            Boundary::Found { next, .. } => {
                self.out.truncated_bytes += next as u64;
                self.pos += next;
                *self.state = FrameState::default();
                true
            }
            Boundary::Unclear => false,
            Boundary::Missing { .. } => {
                let gone = self.spec.units.whole(rest.len().saturating_sub(keep));
                if gone > 0 {
                    self.state.prev = self.spec.context(&rest[..gone]);
                    self.out.truncated_bytes += gone as u64;
                    self.pos += gone;
                }
                false
            }
        }
    }

    /// Where the record at the start of `view` ends. `accept`: no more text comes before this has
    /// to be decided.
    fn boundary(&mut self, view: &[u8], accept: bool) -> Boundary {
        let (units, state) = (self.spec.units, *self.state);
        // A match may begin in what was searched and end behind it.
        let searched = self.searched.saturating_sub(self.pos).min(view.len());
        let from = match units {
            Units::Utf8 | Units::Bytes => searched.saturating_sub(LOOKAHEAD_BYTES),
            Units::Utf16Le | Units::Utf16Be => 0,
        };
        let (found, from) = match &self.spec.split {
            Split::Newline => (lines::newline(view, units), 0),
            Split::LineStart { pattern, omit } => {
                let search = |text: &[u8], accept| {
                    pattern::line_start(pattern, *omit, text, from, state, accept)
                };
                (pattern::decoded(view, units, accept, &search), from)
            }
            Split::LineEnd { pattern, omit } => {
                let search = |text: &[u8], accept| {
                    pattern::line_end(pattern, *omit, text, from, state, accept)
                };
                (pattern::decoded(view, units, accept, &search), from)
            }
            Split::None => (Boundary::Missing { start: 0 }, 0),
        };
        let end = match found {
            Boundary::Found { next, .. } => next,
            Boundary::Missing { .. } | Boundary::Unclear => view.len(),
        };
        self.out.scanned += end.saturating_sub(from) as u64;
        found
    }

    /// [`Split::None`].
    fn pieces(&mut self) {
        loop {
            let left = self.buf.len() - self.pos;
            let n = if left >= self.max { self.max } else { left };
            if n == 0 || (n < self.max && self.input == Input::More) {
                return;
            }
            let (start, end) = (self.pos as u32, (self.pos + n) as u32);
            self.out.tokens.push(Token {
                from: start,
                index: self.out.records,
                start,
                end,
                next: end,
                cut: false,
            });
            self.out.records += 1;
            self.pos += n;
        }
    }
}

/// Tells when an unfinished record at the end of a file has not grown for the flush period.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlushClock {
    waiting: Option<(u64, Duration)>,
}

impl FlushClock {
    /// Takes note that at `now` (any clock that does not go back) the file ends at `end_offset`
    /// behind an unfinished record. True if it has been the same for `period`; a period of zero
    /// never is over.
    pub fn is_due(&mut self, end_offset: u64, now: Duration, period: Duration) -> bool {
        match self.waiting {
            Some((end, since)) if end == end_offset => {
                !period.is_zero() && now.saturating_sub(since) >= period
            }
            _ => {
                self.waiting = Some((end_offset, now));
                false
            }
        }
    }

    /// When it will be due, in the same clock; `None` if nothing waits or the period is zero.
    pub fn due_at(&self, period: Duration) -> Option<Duration> {
        let (_, since) = self.waiting?;
        (!period.is_zero()).then(|| since.saturating_add(period))
    }

    /// Nothing is unfinished (any more).
    pub fn clear(&mut self) {
        self.waiting = None;
    }
}
