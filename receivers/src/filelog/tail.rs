//! One file being read: where it stands, what is under way, when it may be let go.
//!
//! A [`Tail`] reads from its position to the end of the file in turns, cuts what it read into
//! records and remembers, per emitted batch, the position behind it. It never advances over bytes
//! that were not cut into records or skipped by a counted decision.

mod reopen;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tailwater_pipeline::AckWindow;
use tailwater_pipeline::clock::Mono;

use super::catalog::{FileNo, OpenFile, Shared};
use super::file_path::FilePath;
use super::hash::stable_hash;
use super::holes::hole_bytes;
use super::identity::{Found, Head, TRAIL_BYTES, Trail, Verdict, judge};
use super::logfs::{FileId, LogFile, Meta};
use super::position::Position;
use super::under_way::UnderWay;
use crate::input::charset::Charset;
use crate::input::frame::FlushClock;

/// Batches of one file that may be under way.
pub const WINDOW_BATCHES_MAX: usize = 64;
/// Bytes of one file that may be under way.
pub const WINDOW_BYTES_MAX: u64 = 16 << 20;

/// How long a file that was rotated away may still get lines before its successor is read.
const LATE_WRITES: Duration = Duration::from_millis(250);
/// After so many failures in a row, half a minute, what comes after a file does not wait for it.
const FAILURES_MAX: u32 = 8;

/// Why a file is not read although there may be something to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Hold {
    /// It is read.
    #[default]
    None,
    /// When its first bytes are there, the catalog is asked for generations before them.
    Ask,
    /// The catalog was asked.
    Asked,
    /// Its content was cut away, and the catalog looks for a copy.
    Cut,
    /// There is no copy: what is under way is waited for.
    Lost,
    /// It is not selected any more, and the catalog was told that it is read.
    LetGo,
}

/// A copy of what a file held before it was cut.
pub struct ContentCopy {
    /// Its content.
    pub file: Box<dyn LogFile>,
    /// The same as it is on the disk.
    pub handle: Arc<dyn LogFile>,
    /// Its identity.
    pub id: FileId,
    /// Its first bytes: it may be shorter than what was read of the original.
    pub head: Head,
    /// Its size in bytes of content and what it ends with; of compressed ones no end is known.
    pub end: (u64, Trail),
    /// Where it is.
    pub path: FilePath,
    /// It is compressed.
    pub gzip: bool,
    /// It matches by itself: records name it from now on.
    pub matched: bool,
}

/// What became of a file under a tail.
#[derive(Debug, PartialEq)]
pub enum Fate {
    /// As it was.
    Same,
    /// Cut or rewritten: what is there now is other content, which begins here.
    Cut(Box<Position>),
    /// Cut, but beginning as before, and the user wants it left alone.
    Held,
    /// The same, and it has grown past the offset again: reading goes on there, in other content.
    Kept,
}

/// `on_truncate`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnTruncate {
    /// Not set: a file that was cut starts anew.
    #[default]
    Detect,
    /// Keep the offset and wait until the file has grown past it. What is there by then is taken
    /// for the continuation, as the collector does: it compares no more than the first bytes.
    Ignore,
    /// Read from the start.
    ReadWholeFile,
    /// Go on at the new end.
    ReadNew,
}

/// One file.
pub struct Tail {
    /// Its number.
    pub no: FileNo,
    /// Its path.
    pub path: FilePath,
    /// The descriptor; `None` while closed to keep within the budget.
    pub file: Option<Box<dyn LogFile>>,
    /// Where reading stands; `position.offset` is the next byte to cut.
    pub position: Position,
    /// Where everything before is delivered.
    pub acked: Arc<Position>,
    /// Batches under way, with the position behind each.
    pub window: AckWindow<UnderWay>,
    /// The newest position at which no operator held anything back.
    pub clean: Arc<Position>,
    /// Shared with the catalog.
    pub shared: Arc<Shared>,
    /// Not read before this file has been read to its end.
    pub after: Option<FileNo>,
    /// Nobody writes to it any more.
    pub left: bool,
    /// Why it is not read.
    pub hold: Hold,
    /// It is a copy of what was read first, and ends here: what was written after copying is not in it.
    pub copy_end: Option<Box<(u64, Trail)>>,
    /// Lines without a time of their own get no earlier one, in ns since the epoch: it comes after what
    /// the file before it gave to its own.
    pub stamps_from: Option<i64>,
    /// The file it came after.
    pub predecessor: Option<FileNo>,
    /// When it was last renamed or lost its path.
    pub moved_at: Option<Mono>,
    /// Its path is gone or does not match any more.
    pub gone_since: Option<Mono>,
    /// It is not selected any more: it is read up to here, and let go. `u64::MAX`: to its end.
    pub until: Option<u64>,
    /// Queued for reading.
    pub queued: bool,
    /// Is closed, and among those that are opened when others are closed.
    pub waits_to_open: bool,
    /// The last read reached the end.
    pub at_end: bool,
    /// When a read reached the end the last time.
    pub ended_at: Option<Mono>,
    /// Tells when an unfinished record at the end has waited long enough.
    pub flush_clock: FlushClock,
    /// An unfinished record waits at the end.
    pub unfinished: bool,
    /// What was cut last waits until its time mark is on disk.
    pub waits_for_mark: bool,
    /// The file's encoding: the receiver's, unless a byte order mark says otherwise.
    pub charset: Charset,
    /// Bytes to read at once; grows for a line longer than the buffer.
    pub read_bytes: usize,
    /// The record that is next did not fit the last read: it is read whole, however scarce room is.
    pub long_record: bool,
    /// When it was last found to have something new.
    pub active_at: Mono,
    /// When it has a turn without any news.
    pub look_at: Option<Mono>,
    /// Not tried again before, after an error.
    pub retry_at: Option<Mono>,
    /// Errors in a row.
    pub failures: u32,
    /// Since when it was closed and could not be opened again, as it is not where it was.
    pub missing_since: Option<Mono>,
    /// The catalog says that no name leads to it any more.
    pub vanished: bool,
    /// The catalog was asked what comes after it.
    pub asked_after: Option<Box<AskedAfter>>,
    /// The highest offset that was cut into records in this generation: below it, a read is a
    /// replay after a rewind.
    pub cut_before: u64,
    /// Lines before it may have been emitted by an earlier run, so they keep their time marks: the
    /// file's size when it was opened with a stored position.
    pub replay_until: u64,
    /// Records and bytes that were under way at a rewind and have not been read again yet.
    pub owed: (u64, u64),
}

/// When the catalog was asked what comes after a file.
#[derive(Clone, Copy, Debug)]
pub struct AskedAfter {
    /// The newest time.
    pub at: Mono,
    /// The newest of those that were answered.
    pub answered: Option<Mono>,
}

/// Bytes read for one turn. `content` starts at `position.offset`.
pub struct Chunk {
    /// The buffer: `skip` bytes that confirm the position, then the content.
    pub buf: Vec<u8>,
    /// Where the content starts in `buf`.
    pub skip: usize,
    /// The read reached the end of the file.
    pub at_end: bool,
}

impl Tail {
    /// A tail of a file that the catalog opened.
    pub fn new(
        open: OpenFile,
        sink: Arc<dyn tailwater_pipeline::AckSink>,
        read_bytes: usize,
        now: Mono,
    ) -> Tail {
        let at_open = Arc::new(open.position.clone());
        open.shared
            .waits
            .store(open.after.is_some(), Ordering::Release);
        let replay_until = match open.position.marks.entries() {
            [] => 0,
            // The size of compressed content is not known; all of it was written before.
            _ if open.position.gzip => u64::MAX,
            _ => open.shared.size.load(Ordering::Acquire),
        };
        Tail {
            no: open.no,
            path: open.path,
            file: open.file,
            acked: at_open.clone(),
            clean: at_open,
            cut_before: open.position.offset,
            position: open.position,
            window: AckWindow::new(sink, open.no),
            shared: open.shared,
            after: open.after,
            stamps_from: None,
            predecessor: open.after,
            left: open.left,
            hold: if open.ask { Hold::Ask } else { Hold::None },
            copy_end: None,
            moved_at: None,
            gone_since: open.finish_only.then_some(now),
            until: None,
            queued: false,
            waits_to_open: false,
            at_end: false,
            ended_at: None,
            flush_clock: FlushClock::default(),
            unfinished: false,
            waits_for_mark: false,
            charset: Charset::Utf8,
            read_bytes,
            long_record: false,
            active_at: now,
            look_at: None,
            retry_at: None,
            failures: 0,
            missing_since: None,
            vanished: false,
            asked_after: None,
            replay_until,
            owed: (0, 0),
        }
    }

    /// The patterns do not select it any more: what comes from now on is not read.
    pub fn end_here(&mut self, now: Mono) {
        self.until = Some(u64::MAX);
        self.gone_since = Some(now);
        self.moved_at = Some(now);
    }

    /// The earliest time that a line at the position could get, if lines of it, or of what came before
    /// it, get times.
    pub fn next_stamp(&self) -> Option<i64> {
        let own = self.position.marks.time_of(self.position.offset);
        own.max(self.stamps_from)
    }

    /// True if it is closed and could not be opened for a while, and nothing of it is under way.
    pub fn is_out_of_reach(&self) -> bool {
        self.file.is_none() && self.failures >= FAILURES_MAX && self.window.is_empty()
    }

    /// True if it was read as far as it is to be read. A line that goes on behind that is read whole.
    pub fn is_past_end(&mut self) -> bool {
        let Some(until) = self.until else {
            return false;
        };
        let Some(file) = self.file.as_ref().filter(|_| !self.position.gzip) else {
            return self.position.offset >= until;
        };
        let until = match until {
            u64::MAX => file.meta().map_or(u64::MAX, |m| m.size),
            until => until,
        };
        self.until = Some(until);
        self.position.offset >= until
    }

    /// True if more batches may be under way.
    pub fn has_room(&self) -> bool {
        self.window.len() < WINDOW_BATCHES_MAX && self.window.bytes() < WINDOW_BYTES_MAX
    }

    /// Reads up to `max` bytes of content, confirming first that the bytes before the position
    /// are still what they were. `Ok(Err(fate))` if they are not.
    pub fn read(&mut self, max: usize, mut buf: Vec<u8>) -> io::Result<Result<Chunk, Vec<u8>>> {
        let Some(file) = &self.file else {
            return Err(io::Error::other("the file is closed"));
        };
        // While reading waits (for delivery, for its turn) a file can be cut and grow past the
        // position again, so every read confirms what it goes on from.
        let trail = self.position.trail;
        let skip = usize::from(trail.len);
        let from = self.position.offset - skip as u64;
        let mut n = file.read_at(from, skip + max, &mut buf)?;
        let head = match self.position.offset {
            0 => (self.position.head.len as usize).min(max),
            _ => 0,
        };
        if n < skip.max(head) {
            // Less than what confirms the position: the end, or a read that was cut short.
            n += file.read_whole_at(from + n as u64, skip + max - n, &mut buf)?;
        }
        if n < skip && self.copy_end.is_some() {
            // What was read from the original went on behind the end of its copy.
            buf.clear();
            let (skip, at_end) = (0, true);
            return Ok(Ok(Chunk { buf, skip, at_end }));
        }
        if n < skip || (skip > 0 && stable_hash(&buf[..skip]) != trail.hash) {
            return Ok(Err(buf));
        }
        if self.position.offset == 0 && self.position.head.len > 0 {
            let len = (self.position.head.len as usize).min(max);
            let whole = len == self.position.head.len as usize;
            if n < len || (whole && !self.position.head.starts(&buf)) {
                return Ok(Err(buf));
            }
        }
        let at_end = n < skip + max;
        if at_end {
            self.shared.looked_into.store(true, Ordering::Release);
        }
        Ok(Ok(Chunk { buf, skip, at_end }))
    }

    /// Moves the position over `consumed` bytes of what [`Tail::read`] gave: `buf` from `skip` on.
    pub fn advance(&mut self, buf: &[u8], skip: usize, consumed: usize, head_bytes: usize) {
        self.extend_head(&buf[skip..], self.position.offset, head_bytes);
        if consumed > 0 {
            // What was confirmed before the content is part of the evidence for the next read.
            self.position.trail = Trail::of(&buf[..skip + consumed]);
        }
        self.position.offset += consumed as u64;
        self.cut_before = self.cut_before.max(self.position.offset);
        self.shared.set_known(self.position.known());
    }

    /// Bytes from the position on that can be skipped, where `read` of them are NUL and nothing was
    /// ever written behind these: 0, or more than `keep`, which are left at the end of the file.
    pub fn hole_ahead(&self, read: u64, keep: u64) -> io::Result<u64> {
        let Some(file) = &self.file else {
            return Ok(0);
        };
        let bytes = match hole_bytes(&**file, self.position.offset + read, keep)? {
            0 => 0,
            // Whole characters of every encoding.
            beyond => (read + beyond) / 4 * 4,
        };
        Ok(if bytes > keep { bytes } else { 0 })
    }

    /// Moves the position over `bytes` that read as NUL, at least [`TRAIL_BYTES`].
    pub fn skip_hole(&mut self, bytes: u64) {
        self.position.trail = Trail::of(&[0; TRAIL_BYTES]);
        self.position.offset += bytes;
        self.cut_before = self.cut_before.max(self.position.offset);
        self.shared.set_known(self.position.known());
    }

    /// A file that was short when it was first seen gets a longer head as it grows.
    fn extend_head(&mut self, content: &[u8], offset: u64, head_bytes: usize) {
        let have = self.position.head.len as usize;
        let end = (offset as usize + content.len()).min(head_bytes);
        // What was read before its beginning was known cannot be told from other content.
        if end <= have || (offset > 0 && have == 0) {
            return;
        }
        let mut head = Vec::new();
        let n = match (offset, &self.file) {
            (0, _) => {
                head.extend_from_slice(&content[..end]);
                Ok(end)
            }
            (_, Some(file)) => file.read_whole_at(0, end, &mut head),
            (_, None) => return,
        };
        // Where it cannot be read now, the next read tries again.
        if n.is_ok_and(|n| n > have) && self.position.head.starts(&head) {
            self.position.head = Head::of(&head);
        }
    }

    /// Finds out what happened to a file whose bytes are not what they were, and puts the position
    /// where reading has to go on. Nothing of the old content may be under way.
    pub fn reassess(&mut self, head_bytes: usize, rule: OnTruncate) -> io::Result<Fate> {
        let Some(file) = &self.file else {
            return Err(io::Error::other("the file is closed"));
        };
        let meta = file.meta()?;
        let mut head = Vec::new();
        file.read_whole_at(0, head_bytes, &mut head)?;
        let size = if self.position.gzip {
            u64::MAX
        } else {
            meta.size
        };
        let found = Found {
            id: meta.id,
            size,
            head: &head,
        };
        let trail = |offset: u64, len: u16| {
            let mut b = Vec::new();
            let n = file
                .read_whole_at(offset - u64::from(len), usize::from(len), &mut b)
                .ok()?;
            (n == usize::from(len)).then(|| stable_hash(&b))
        };
        let offset = self.position.offset;
        self.shared.size.store(meta.size, Ordering::Release);
        match (judge(&self.position.known(), &found, trail), rule) {
            (Verdict::Same, _) => Ok(Fate::Same),
            (Verdict::Shrunk, OnTruncate::Ignore) => Ok(Fate::Held),
            (Verdict::Rewritten, OnTruncate::Ignore) if meta.size < offset => {
                // Cut to less than its head: too little to tell, so the rule holds.
                Ok(Fate::Held)
            }
            (Verdict::Rewritten, OnTruncate::Ignore)
                if size >= offset && self.position.head.starts(&head) =>
            {
                let len = usize::from(self.position.trail.len);
                let mut before = Vec::new();
                file.read_whole_at(offset - len as u64, len, &mut before)?;
                self.position.trail = Trail::of(&before);
                self.shared.set_known(self.position.known());
                Ok(Fate::Kept)
            }
            (_, OnTruncate::ReadNew) if meta.size < offset => {
                let mut last = Vec::new();
                let from = meta.size.saturating_sub(TRAIL_BYTES as u64);
                file.read_whole_at(from, (meta.size - from) as usize, &mut last)?;
                Ok(Fate::Cut(Box::new(Position {
                    offset: meta.size,
                    trail: Trail::of(&last),
                    ..self.anew(&head, &meta)
                })))
            }
            _ => Ok(Fate::Cut(Box::new(self.anew(&head, &meta)))),
        }
    }

    /// The start of what is in the file now: a new generation.
    fn anew(&self, head: &[u8], meta: &Meta) -> Position {
        Position {
            id: meta.id,
            ..self.position.anew(Head::of(head))
        }
    }

    /// Its content was cut away: it is not read until the catalog has found a copy of it. What is in
    /// the file now is another one's, which gets the descriptor.
    pub fn cut(&mut self) -> Option<Arc<dyn LogFile>> {
        let file = self.shared.handle()?;
        self.hold = Hold::Cut;
        self.at_end = false;
        self.unfinished = false;
        self.shared.cut.store(true, Ordering::Release);
        self.close();
        Some(file)
    }

    /// Reading goes on in a copy, where it was in the original.
    pub fn go_on_in(&mut self, copy: ContentCopy, now: Mono) {
        self.hold = Hold::None;
        self.at_end = false;
        self.copy_end = Some(Box::new(copy.end));
        self.left = true;
        self.moved_at = Some(now);
        self.gone_since = (!copy.matched).then_some(now);
        self.retry_at = None;
        (self.position.id, self.position.gzip) = (copy.id, copy.gzip);
        self.position.head = copy.head;
        if copy.matched {
            self.position.path = copy.path.clone();
        }
        self.path = copy.path;
        self.file = Some(copy.file);
        self.shared.show(&copy.handle);
        self.shared.cut.store(false, Ordering::Release);
        self.shared.set_known(self.position.known());
        self.shared.closed.store(false, Ordering::Release);
    }

    /// There is no copy of its content: nothing more can be read.
    pub fn lose(&mut self) {
        self.hold = Hold::Lost;
        self.left = true;
        self.at_end = true;
        self.position.overwritten = true;
    }

    /// True if the file is known to be longer than `end`.
    pub fn has_grown(&self, end: u64) -> bool {
        let meta = self.file.as_ref().and_then(|f| f.meta().ok());
        !self.position.gzip && meta.is_some_and(|m| m.size > end)
    }

    /// Bytes of a closed file that nobody has read, as far as is known.
    pub fn unread_of_closed(&self) -> u64 {
        let size = self.shared.size.load(Ordering::Acquire);
        match self.position.gzip {
            true => 0,
            false => size.saturating_sub(self.position.offset),
        }
    }

    /// Gives the descriptor back; only for files that are at rest.
    pub fn close(&mut self) {
        self.file = None;
        self.shared.closed.store(true, Ordering::Release);
    }

    /// True if what comes after this file may be read: a writer that still had it open when it was
    /// moved has had a moment to finish, and it was read to its end since then. That it once was
    /// says nothing: while reading waits for delivery, it grows.
    pub fn is_read_out(&self, now: Mono) -> bool {
        // A file that cannot be read holds nobody up. One that was closed is opened for a last look.
        let unreadable = self.failures > 0;
        let due = self.late_until();
        if self.failures >= FAILURES_MAX {
            return now >= due;
        }
        self.at_end && now >= due && (unreadable || self.ended_at.is_some_and(|at| at >= due))
    }

    /// True if an unfinished record at its end is one by itself when `force_flush_period` is over.
    pub fn waits_for_flush(&self, force_flush_period: Duration) -> bool {
        let due = self.flush_clock.due_at(force_flush_period);
        self.unfinished && self.file.is_some() && self.failures == 0 && due.is_some()
    }

    /// True if all that keeps it from being read out is a look at its end.
    pub fn wants_last_read(&self, now: Mono) -> bool {
        self.at_end && now >= self.late_until() && !self.is_read_out(now)
    }

    /// Until when a writer that does not know that it was moved may write to it.
    fn late_until(&self) -> Mono {
        if self.left {
            return Mono::default();
        }
        let moved = self.moved_at.unwrap_or(self.active_at);
        moved.max(self.active_at).after(LATE_WRITES)
    }

    /// A read reached the end, or there is nothing to read for now.
    pub fn reached_end(&mut self, now: Mono) {
        self.at_end = true;
        self.ended_at = Some(now);
    }

    /// True if nothing is left to read, to deliver or to wait for.
    pub fn is_at_rest(&self) -> bool {
        self.at_end && self.window.is_empty() && !self.unfinished
    }

    /// True if nothing is left of what is to be read of a file that is not selected any more. A line
    /// that nobody ends stays for whoever selects it again.
    pub fn is_let_go(&mut self, force_flush_period: Duration) -> bool {
        let waits = self.unfinished && !force_flush_period.is_zero();
        self.window.is_empty() && (self.is_past_end() || self.at_end && !waits)
    }

    /// Goes back to where everything before is delivered.
    pub fn go_back(&mut self) {
        let now = std::mem::take(&mut self.position);
        self.position = Position {
            marks: now.marks.clone(),
            head: now.head,
            ..self.of_file(&now)
        };
        self.at_end = false;
        self.unfinished = false;
        self.flush_clock.clear();
    }

    /// The delivered position, in the file that `now` is a position of: it may have been reached
    /// before a copy took the place of the original.
    fn of_file(&self, now: &Position) -> Position {
        Position {
            id: now.id,
            gzip: now.gzip,
            overwritten: now.overwritten,
            path: now.path.clone(),
            ..(*self.acked).clone()
        }
    }

    /// What a checkpoint stores now: the delivered position, under the path records name, with
    /// the time marks that lines behind it still need.
    pub fn durable(&self, wall_ns: i64) -> Position {
        let mut position = Position {
            seen_ns: wall_ns,
            // With nothing delivered yet, they are what a compressed copy is recognised by.
            head: self.position.head,
            marks: self.position.marks.clone(),
            ..self.of_file(&self.position)
        };
        position.marks.prune(position.offset);
        if let Some((size, trail)) = self.copy_end.as_deref().copied()
            && position.offset > size
        {
            (position.offset, position.trail) = (size, trail);
        }
        position
    }

    /// What a checkpoint stores of a file that is let go now.
    pub fn left(&self, wall_ns: i64) -> Position {
        let mut left = self.durable(wall_ns);
        let read_out = self.is_at_rest() && self.acked.offset == self.position.offset;
        // What comes in one that is not selected any more, nobody knows.
        left.complete = read_out && !left.overwritten && self.until.is_none();
        left
    }

    /// After an I/O error: not again before a while. The position stays where it is.
    pub fn failed(&mut self, now: Mono) -> Duration {
        self.failures = (self.failures + 1).min(FAILURES_MAX);
        let pause = Duration::from_millis(100 << self.failures.min(6));
        self.retry_at = Some(now.after(pause));
        pause
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::logfs::{LogFs, OsLogFs};
    use super::*;
    use tailwater_pipeline::{AckSink, Counts, Outcome};

    struct NobodyWaits;

    impl AckSink for NobodyWaits {
        fn settled(&self, _key: u64, _outcome: Outcome, _counts: &Counts) {}
    }

    fn read(tail: &mut Tail, now: Mono) -> usize {
        let chunk = tail.read(1 << 16, Vec::new()).unwrap().ok().unwrap();
        let n = chunk.buf.len() - chunk.skip;
        tail.advance(&chunk.buf, chunk.skip, n, 1000);
        if n > 0 {
            tail.active_at = now;
        }
        if chunk.at_end {
            tail.reached_end(now);
        }
        n
    }

    /// Guarantee: the successor of a file waits for lines that were written after the last read,
    /// however long ago that was and the file was moved.
    #[test]
    fn a_file_that_grew_since_its_last_read_is_not_read_out() {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        log.write_all(b"one\n").unwrap();
        let file = OsLogFs.open(log.path()).unwrap();
        let position = Position {
            id: file.meta().unwrap().id,
            ..Position::default()
        };
        let open = OpenFile {
            no: 1,
            file: Some(file),
            path: log.path().into(),
            position,
            after: None,
            finish_only: false,
            left: false,
            ask: false,
            shared: Arc::default(),
            shard: 0,
        };
        let at = |ms: u64| Mono(ms * 1_000_000);
        let mut tail = Tail::new(open, Arc::new(NobodyWaits), 1 << 16, at(0));
        assert_eq!(read(&mut tail, at(0)), 4);
        // It grows, is moved, and reading has to wait for delivery.
        log.write_all(b"two\n").unwrap();
        tail.moved_at = Some(at(10));
        assert!(!tail.is_read_out(at(60_000)) && tail.wants_last_read(at(60_000)));
        assert_eq!(read(&mut tail, at(60_000)), 4);
        assert!(!tail.is_read_out(at(60_100)), "it may still be written to");
        assert_eq!(read(&mut tail, at(60_250)), 0);
        assert!(tail.is_read_out(at(60_250)));
    }

    /// Guarantee: a file that is closed is looked at once more before its successor is read; one that
    /// cannot be read holds it up no longer than a late write.
    #[test]
    fn a_closed_file_is_looked_at_before_its_successor() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let file = OsLogFs.open(log.path()).unwrap();
        let open = OpenFile {
            no: 1,
            file: Some(file),
            path: log.path().into(),
            position: Position::default(),
            after: None,
            finish_only: false,
            left: false,
            ask: false,
            shared: Arc::default(),
            shard: 0,
        };
        let mut tail = Tail::new(open, Arc::new(NobodyWaits), 1 << 16, Mono(0));
        tail.reached_end(Mono(0));
        tail.close();
        let due = Mono(0).after(LATE_WRITES);
        assert!(!tail.is_read_out(due) && tail.wants_last_read(due));
        tail.failed(due);
        assert!(!tail.is_read_out(Mono(0)) && tail.is_read_out(due));
    }

    /// Guarantee: a file of which nothing can be read holds its successor up for a while only.
    #[test]
    fn a_file_that_fails_from_its_start_holds_nobody_up_for_ever() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let open = OpenFile {
            no: 1,
            file: Some(OsLogFs.open(log.path()).unwrap()),
            path: log.path().into(),
            position: Position::default(),
            after: None,
            finish_only: true,
            left: true,
            ask: false,
            shared: Arc::default(),
            shard: 0,
        };
        let mut tail = Tail::new(open, Arc::new(NobodyWaits), 1 << 16, Mono(0));
        let mut now = Mono(0);
        while !tail.is_read_out(now) {
            now = now.after(tail.failed(now));
            assert!(now < Mono(60_000_000_000));
        }
        assert!(now > Mono(10_000_000_000), "it is tried for a while");
    }
}
