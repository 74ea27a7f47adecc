//! The queue itself: see the module above.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::found::{SAVED_NAMES, Segment, find_segments, newest_saved};
use super::segment::{self, FRAME_BYTES, HEADER_BYTES, SegmentId, Walk};
use super::settled::{Saved, Settled};
use super::{ITEM_BYTES_MAX, QueueError, QueueLimits, QueueStats};
use crate::clock::Rng64;
use crate::fs::{Fs, FsFile};

/// Permission bits of the directory.
const DIR_MODE: u32 = 0o700;
/// How often in a row the next item may be unreadable before others are read instead.
const FAILURES_MAX: u32 = 8;
/// Ranges of unreadable items that are told apart.
const ASIDE_MAX: usize = 1024;

/// The segment that is written.
struct Active {
    file: Box<dyn FsFile>,
    /// Its name is not durable yet.
    is_new: bool,
}

/// The segment that is read.
struct Reading {
    id: SegmentId,
    walk: Walk,
    /// Items below are behind it.
    seq: u64,
}

/// A queue on disk. Nothing in it blocks but the file system. Used by one thread.
pub struct DurableQueue {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    /// Held for as long as the queue is used.
    _lock: Box<dyn FsFile>,
    limits: QueueLimits,
    /// Oldest first.
    segments: VecDeque<Segment>,
    /// Writes the last segment; `None` before the first item and after an error.
    active: Option<Active>,
    serial: u64,
    salts: Rng64,
    /// Items from here on are not there yet.
    next_seq: u64,
    /// Items below are on disk.
    durable: u64,
    /// Items that were appended went with a segment that was given up; nobody was told.
    untold: bool,
    /// Items that were found when the queue was opened and of which is not known whether a process
    /// before said that they are stored.
    unsure: Range<u64>,
    settled: Settled,
    saved: Saved,
    /// Whether the files of `SAVED_NAMES` have a durable name and were never synchronised in vain.
    saved_files: [bool; 2],
    /// The next item to be handed out.
    read_seq: u64,
    reading: Option<Reading>,
    /// Items that could not be read. They stay where they are, and are tried again.
    aside: VecDeque<Range<u64>>,
    /// How many of these are to be tried now.
    retrying: usize,
    /// Times in a row that the next item could not be read.
    failures: u32,
    stats: QueueStats,
}

impl DurableQueue {
    /// Opens the queue in `dir`, which is created if need be. `seed` decides what is left to chance.
    pub fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        limits: QueueLimits,
        seed: u64,
    ) -> Result<DurableQueue, QueueError> {
        fs.create_dir(dir, DIR_MODE)
            .map_err(|e| QueueError::io("create", dir, e))?;
        let lock_path = dir.join("lock");
        let lock = fs
            .open_append(&lock_path)
            .map_err(|e| QueueError::io("open", &lock_path, e))?;
        match lock.try_lock_exclusive() {
            Ok(true) => {}
            Ok(false) => {
                let dir = dir.to_owned();
                return Err(QueueError::Locked { dir });
            }
            Err(e) => return Err(QueueError::io("lock", &lock_path, e)),
        }
        let segments = find_segments(&*fs, dir)?;
        let saved = newest_saved(&*fs, dir)?;
        let serial = segments.iter().map(|s| s.id.serial).max().unwrap_or(0);
        let mut settled = saved.settled.clone();
        if saved.generation == 0 {
            // Segments are removed only when they are settled.
            settled.insert(0, segments.front().map_or(0, |s| s.id.first));
        }
        let mut queue = DurableQueue {
            fs,
            dir: dir.to_owned(),
            _lock: lock,
            limits,
            active: None,
            serial,
            salts: Rng64::new(seed),
            next_seq: 0,
            durable: 0,
            untold: false,
            unsure: 0..0,
            read_seq: settled.mark,
            saved_files: [false; 2],
            settled,
            saved,
            reading: None,
            aside: VecDeque::new(),
            retrying: 0,
            failures: 0,
            stats: QueueStats::default(),
            segments,
        };
        let found = queue.end_of_last_segment()?;
        // No number that anybody may have settled is given to another item.
        let used = queue.saved.durable.max(queue.settled.highest());
        queue.next_seq = found.max(used).max(queue.settled.mark);
        queue.durable = queue.next_seq;
        queue.unsure = queue.saved.durable..queue.next_seq;
        queue.remove_settled();
        Ok(queue)
    }

    /// One more than the number of the last item, as far as whole headers say. Where they cannot be
    /// read, one more than it can be at most: no number is used again.
    fn end_of_last_segment(&self) -> Result<u64, QueueError> {
        let Some(last) = self.segments.back() else {
            return Ok(0);
        };
        let mut walk = self.walk(last.id)?;
        let mut end = last.id.first;
        loop {
            match walk.peek(last.len) {
                Ok(Some(frame)) => {
                    end = end.max(frame.seq + 1);
                    walk.step_over(&frame, last.len);
                }
                Ok(None) => return Ok(end),
                Err(_) => return Ok(end.max(last.id.first + last.len / FRAME_BYTES)),
            }
        }
    }

    fn walk(&self, id: SegmentId) -> Result<Walk, QueueError> {
        let path = self.dir.join(id.file_name());
        let file = self.fs.open(&path);
        let file = file.map_err(|e| QueueError::io("open", path, e))?;
        Ok(Walk::new(file, id.salt))
    }

    /// What there is, and what happened.
    pub fn stats(&self) -> QueueStats {
        QueueStats {
            items: self.next_seq - self.settled.mark - self.settled.above_mark(),
            bytes: self.bytes(),
            unreadable_items: self
                .aside
                .iter()
                .map(|r| self.settled.open_between(r.start, r.end))
                .sum(),
            ..self.stats
        }
    }

    /// Adds an item, which may be in pieces, and returns its number. It is stored for sure once
    /// [`DurableQueue::sync`] returned `Ok`. After an error it is not there, nor perhaps those before it
    /// that were not synchronised: `sync` says so.
    pub fn append(&mut self, item: &[&[u8]]) -> Result<u64, QueueError> {
        let len: usize = item.iter().map(|piece| piece.len()).sum();
        let needed = FRAME_BYTES + len as u64;
        let bytes_max = self.limits.bytes_max;
        if len > ITEM_BYTES_MAX || needed + HEADER_BYTES > bytes_max {
            return Err(QueueError::TooLarge { needed, bytes_max });
        }
        let full = self.limits.segment_bytes.saturating_sub(needed);
        self.close_if_longer_than(full.max(HEADER_BYTES));
        if !self.has_room(needed) {
            // The last segment may hold nothing but settled items.
            if self.settled.mark == self.next_seq {
                self.close_if_longer_than(HEADER_BYTES);
            }
            let _ = self.save_settled();
        }
        if !self.has_room(needed) {
            let bytes = self.bytes();
            return Err(QueueError::Full {
                bytes,
                bytes_max,
                needed,
            });
        }
        let seq = self.next_seq;
        self.write(seq, item)?;
        self.next_seq += 1;
        Ok(seq)
    }

    /// Bytes of all segments.
    fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.len).sum()
    }

    fn has_room(&self, needed: u64) -> bool {
        let header = if self.active.is_none() {
            HEADER_BYTES
        } else {
            0
        };
        self.bytes() + header + needed <= self.limits.bytes_max
    }

    /// Writes to the segment no longer, if it is longer and everything in it is durable.
    fn close_if_longer_than(&mut self, bytes: u64) {
        let long = self.segments.back().is_some_and(|s| s.len > bytes);
        if long && self.durable == self.next_seq {
            self.active = None;
        }
    }

    fn write(&mut self, seq: u64, item: &[&[u8]]) -> Result<(), QueueError> {
        if self.active.is_none() {
            self.begin_segment(seq)?;
        }
        let (Some(active), Some(segment)) = (&mut self.active, self.segments.back_mut()) else {
            unreachable!("begin_segment makes both");
        };
        let frame = segment::frame(segment.id.salt, seq, item);
        let pieces = std::iter::once(&frame[..]).chain(item.iter().copied());
        let mut written = 0;
        for piece in pieces {
            if let Err(e) = active.file.append(piece) {
                let path = self.dir.join(segment.id.file_name());
                if active.file.truncate(segment.len).is_err() {
                    self.abandon();
                }
                return Err(QueueError::io("append to", path, e));
            }
            written += piece.len() as u64;
        }
        segment.len += written;
        Ok(())
    }

    fn begin_segment(&mut self, first: u64) -> Result<(), QueueError> {
        self.serial += 1;
        let id = SegmentId {
            first,
            serial: self.serial,
            salt: self.salts.next_u64(),
        };
        let path = self.dir.join(id.file_name());
        let written = self.fs.create(&path).and_then(|mut file| {
            file.append(&id.header())?;
            Ok(file)
        });
        match written {
            Ok(file) => {
                self.active = Some(Active { file, is_new: true });
                let len = HEADER_BYTES;
                self.segments.push_back(Segment { id, len });
                Ok(())
            }
            Err(e) => {
                let _ = self.fs.remove(&path);
                Err(QueueError::io("create", path, e))
            }
        }
    }

    /// Makes every appended item durable, and returns the numbers of those that were not before.
    /// After an error these are not there any more: offer them again.
    pub fn sync(&mut self) -> Result<Range<u64>, QueueError> {
        if self.untold {
            self.abandon();
            self.untold = false;
            let lost = io::Error::other("items went with a segment that was given up");
            return Err(QueueError::io("synchronise", &self.dir, lost));
        }
        let new = self.durable..self.next_seq;
        if new.is_empty() {
            return Ok(new);
        }
        let synced = match &mut self.active {
            Some(active) => active.file.sync_data().and_then(|()| {
                if active.is_new {
                    self.fs.sync_dir(&self.dir)?;
                    active.is_new = false;
                }
                Ok(())
            }),
            None => Err(io::Error::other("it was given up after an error")),
        };
        match synced {
            Ok(()) => {
                self.durable = self.next_seq;
                Ok(new)
            }
            Err(e) => {
                let path = match self.segments.back() {
                    Some(s) => self.dir.join(s.id.file_name()),
                    None => self.dir.clone(),
                };
                self.abandon();
                self.untold = false;
                Err(QueueError::io("synchronise", path, e))
            }
        }
    }

    /// The segment is not written any more; what is not durable in it is not there.
    fn abandon(&mut self) {
        self.active = None;
        self.untold |= self.next_seq > self.durable;
        self.next_seq = self.durable;
    }

    /// Reads the next durable item that is not settled into `item` and returns its number; `None` if
    /// there is none now. Each is handed out once; after a crash or stop, those that are not settled
    /// are handed out again.
    ///
    /// # Errors
    /// It cannot be read. The next call tries again; after eight in vain, others are read instead, and
    /// it waits for [`DurableQueue::retry_unreadable`].
    pub fn next(&mut self, item: &mut Vec<u8>) -> Result<Option<u64>, QueueError> {
        while self.retrying > 0 {
            self.retrying -= 1;
            let Some(mut range) = self.aside.pop_front() else {
                break;
            };
            let read = self.read_from(&mut range.start, range.end, item);
            match &read {
                Ok(None) => continue,
                Ok(Some(_)) if range.start < range.end => {
                    self.aside.push_front(range);
                    self.retrying += 1;
                }
                Ok(Some(_)) => {}
                Err(_) => self.aside.push_back(range),
            }
            return read;
        }
        let mut at = self.read_seq;
        let read = self.read_from(&mut at, self.durable, item);
        self.read_seq = at;
        match read {
            Ok(_) => self.failures = 0,
            Err(_) => {
                self.failures += 1;
                if self.failures >= FAILURES_MAX {
                    self.set_aside();
                }
            }
        }
        read
    }

    /// Has [`DurableQueue::next`] try once more what could not be read.
    pub fn retry_unreadable(&mut self) {
        self.retrying = self.aside.len();
    }

    /// Goes on behind the next item, which cannot be read; behind its whole segment if not even its
    /// end can be told.
    fn set_aside(&mut self) {
        let Some((_, len, segment_end)) = self.segment_of(self.read_seq) else {
            return;
        };
        let mut end = segment_end;
        if self.aside.len() < ASIDE_MAX
            && let Some(reading) = &mut self.reading
            && let Ok(Some(frame)) = reading.walk.peek(len)
            && frame.seq == self.read_seq
        {
            end = frame.seq + 1;
        }
        self.aside.push_back(self.read_seq..end);
        self.read_seq = end;
        // What follows is likely to be as bad.
        self.failures = FAILURES_MAX - 1;
    }

    /// Reads the first item from `at` on and below `until`, and goes on behind it.
    fn read_from(
        &mut self,
        at: &mut u64,
        until: u64,
        item: &mut Vec<u8>,
    ) -> Result<Option<u64>, QueueError> {
        while *at < until {
            if let Some(end) = self.settled.end_of(*at) {
                *at = end;
                continue;
            }
            let Some((id, len, end)) = self.segment_of(*at) else {
                // Nobody but a person removes a segment with items in it.
                let next = self.segments.iter().map(|s| s.id.first);
                let next = next.filter(|first| first > at).min();
                *at = self.give_up(*at, next.unwrap_or(until).min(until));
                continue;
            };
            let goes_on = |r: &Reading| r.id == id && r.seq <= *at;
            if !self.reading.as_ref().is_some_and(goes_on) {
                match self.walk(id) {
                    Ok(walk) => {
                        let seq = id.first;
                        self.reading = Some(Reading { id, walk, seq });
                    }
                    Err(e) if e.is_not_found() => {
                        *at = self.give_up(*at, end.min(until));
                        continue;
                    }
                    Err(e) => return Err(e),
                }
            }
            match self.read_in(*at, len, end, item) {
                Ok(Found::Whole) => {
                    *at += 1;
                    return Ok(Some(*at - 1));
                }
                Ok(Found::Earlier) => {}
                Ok(Found::MissingUpTo(next)) => *at = self.give_up(*at, next.min(until)),
                Err(e) => {
                    let path = self.dir.join(id.file_name());
                    return Err(QueueError::io("read", path, e));
                }
            }
        }
        Ok(None)
    }

    /// The segment that `seq` is in: its identity, its bytes, and the end of what counts in it.
    fn segment_of(&self, seq: u64) -> Option<(SegmentId, u64, u64)> {
        let after = self.segments.partition_point(|s| s.id.first <= seq);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        let end = self.segments.get(after).map(|s| s.id.first);
        let end = end.unwrap_or(self.durable);
        Some((segment.id, segment.len, end))
    }

    /// Goes on in the open segment, of which what is below `end` counts, to item number `seq`.
    fn read_in(&mut self, seq: u64, len: u64, end: u64, item: &mut Vec<u8>) -> io::Result<Found> {
        let Some(reading) = &mut self.reading else {
            return Ok(Found::MissingUpTo(end));
        };
        let before = reading.walk.skipped_bytes;
        let found = match reading.walk.peek(len) {
            Err(e) => Err(e),
            Ok(Some(frame)) if frame.seq < seq => {
                reading.walk.step_over(&frame, len);
                reading.seq = frame.seq + 1;
                Ok(Found::Earlier)
            }
            Ok(Some(frame)) if frame.seq == seq && seq < end => {
                match reading.walk.read(&frame, len, item) {
                    Ok(true) => {
                        reading.walk.pass(&frame);
                        reading.seq = seq + 1;
                        Ok(Found::Whole)
                    }
                    Ok(false) => {
                        reading.walk.step_over(&frame, len);
                        reading.seq = seq + 1;
                        Ok(Found::MissingUpTo(seq + 1))
                    }
                    Err(e) => Err(e),
                }
            }
            Ok(frame) => Ok(Found::MissingUpTo(frame.map_or(end, |f| f.seq.min(end)))),
        };
        self.stats.skipped_bytes += reading.walk.skipped_bytes - before;
        found
    }

    /// The items from `from` up to `end` are not there. Returns `end`.
    fn give_up(&mut self, from: u64, end: u64) -> u64 {
        let open = |from: u64, to: u64| self.settled.open_between(from, to);
        let lost = open(from, end);
        let unsure = self.unsure.start.max(from)..self.unsure.end.min(end);
        let unfinished = open(unsure.start, unsure.end);
        self.stats.unfinished_items += unfinished;
        self.stats.damaged_items += lost - unfinished;
        self.settle(from, end);
        end
    }

    /// The items from `from` up to `to` need not be handed out again.
    pub fn settle(&mut self, from: u64, to: u64) {
        self.settled.insert(from, to);
    }

    /// Removes segments without an item that is not settled for sure, also those behind one that
    /// cannot be read.
    fn remove_settled(&mut self) {
        let mut at = 0;
        while at < self.segments.len() {
            let id = self.segments[at].id;
            let after = self.segments.get(at + 1);
            let is_written = after.is_none() && self.active.is_some();
            let end = after.map_or(self.next_seq, |s| s.id.first);
            if is_written || !self.saved.covers(id.first, end) {
                at += 1;
                continue;
            }
            // One that cannot be removed is found, and found to be settled, at the next start.
            let _ = self.fs.remove(&self.dir.join(id.file_name()));
            if self.reading.as_ref().is_some_and(|r| r.id == id) {
                self.reading = None;
            }
            self.segments.remove(at);
        }
    }

    /// Makes durable what is settled, and removes segments without anything else: to be called once a
    /// second, and before a stop. Does nothing without news.
    pub fn save_settled(&mut self) -> Result<(), QueueError> {
        // What was found may be in memory only, by a write that failed: it is not vouched for.
        let durable = if self.settled.mark < self.unsure.end {
            self.unsure.start
        } else {
            self.durable
        };
        if self.settled == self.saved.settled && durable == self.saved.durable {
            self.remove_settled();
            return Ok(());
        }
        let saved = Saved {
            generation: self.saved.generation + 1,
            settled: self.settled.clone(),
            durable,
        };
        let which = (saved.generation % 2) as usize;
        let path = self.dir.join(SAVED_NAMES[which]);
        let known = std::mem::replace(&mut self.saved_files[which], false);
        if !known {
            // A file whose synchronisation failed would lie about the next one.
            let _ = self.fs.remove(&path);
        }
        let written = self.fs.create(&path).and_then(|mut file| {
            file.append(&saved.encode())?;
            file.sync_data()?;
            if known {
                Ok(())
            } else {
                self.fs.sync_dir(&self.dir)
            }
        });
        written.map_err(|e| QueueError::io("write", path, e))?;
        self.saved_files[which] = true;
        self.saved = saved;
        self.remove_settled();
        Ok(())
    }
}

/// What stands where an item should be.
enum Found {
    /// The item, whole.
    Whole,
    /// An earlier one.
    Earlier,
    /// The items up to this one are not there, or damaged.
    MissingUpTo(u64),
}
