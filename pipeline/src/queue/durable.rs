//! The queue itself: see the module above.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::segment::{self, FRAME_BYTES, Frame, HEADER_BYTES, SegmentId, Walk};
use super::settled::{Saved, SavedRead, Settled};
use super::{ITEM_BYTES_MAX, QueueError, QueueLimits, QueueStats};
use crate::clock::Rng64;
use crate::fs::{Fs, FsFile};

/// Permission bits of the directory.
const DIR_MODE: u32 = 0o700;
const SAVED_NAMES: [&str; 2] = ["settled.0", "settled.1"];

/// A file of the queue.
struct Segment {
    id: SegmentId,
    /// Bytes that may hold frames.
    len: u64,
}

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

    /// One more than the number of the last item, as far as whole headers say.
    fn end_of_last_segment(&self) -> Result<u64, QueueError> {
        let Some(last) = self.segments.back() else {
            return Ok(0);
        };
        let mut walk = self.walk(last.id)?;
        let mut end = last.id.first;
        while let Some(frame) = walk.peek(last.len) {
            end = end.max(frame.seq + 1);
            step_over(&mut walk, &frame, last.len);
        }
        Ok(end)
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
    pub fn next(&mut self, item: &mut Vec<u8>) -> Result<Option<u64>, QueueError> {
        while self.read_seq < self.durable {
            if let Some(end) = self.settled.end_of(self.read_seq) {
                self.read_seq = end;
                continue;
            }
            let Some((id, len, end)) = self.segment_of(self.read_seq) else {
                // Nobody but a person removes a segment with items in it.
                let next = self.segments.iter().map(|s| s.id.first);
                let next = next.filter(|first| *first > self.read_seq).min();
                self.give_up(next.unwrap_or(self.durable));
                continue;
            };
            if self.reading.as_ref().is_none_or(|r| r.id != id) {
                match self.walk(id) {
                    Ok(walk) => self.reading = Some(Reading { id, walk }),
                    Err(e) if e.is_not_found() => {
                        self.give_up(end);
                        continue;
                    }
                    Err(e) => return Err(e),
                }
            }
            if self.read_in(len, end, item) {
                let seq = self.read_seq;
                self.read_seq += 1;
                return Ok(Some(seq));
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

    /// Goes on in the open segment; true if `item` is the item number `read_seq`. What is missing
    /// is given up.
    fn read_in(&mut self, len: u64, end: u64, item: &mut Vec<u8>) -> bool {
        let Some(reading) = &mut self.reading else {
            return false;
        };
        let before = reading.walk.skipped_bytes;
        let frame = reading.walk.peek(len);
        let whole = frame.filter(|f| f.seq < end);
        let is_it = match &whole {
            Some(f) if f.seq == self.read_seq => reading.walk.read(f, len, item),
            _ => false,
        };
        match &whole {
            Some(f) if is_it => reading.walk.pass(f),
            Some(f) if f.seq > self.read_seq => {}
            Some(f) => step_over(&mut reading.walk, f, len),
            None => {}
        }
        self.stats.skipped_bytes += reading.walk.skipped_bytes - before;
        match whole {
            _ if is_it => {}
            Some(f) if f.seq < self.read_seq => {}
            Some(f) if f.seq > self.read_seq => self.give_up(f.seq),
            Some(_) => self.give_up(self.read_seq + 1),
            None => self.give_up(end),
        }
        is_it
    }

    /// The items up to `end` cannot be read.
    fn give_up(&mut self, end: u64) {
        let open = |from: u64, to: u64| self.settled.open_between(from, to);
        let lost = open(self.read_seq, end);
        let unsure = self.unsure.start.max(self.read_seq)..self.unsure.end.min(end);
        let unfinished = open(unsure.start, unsure.end);
        self.stats.unfinished_items += unfinished;
        self.stats.damaged_items += lost - unfinished;
        self.settle(self.read_seq, end);
        self.read_seq = end;
    }

    /// The items from `from` up to `to` need not be handed out again.
    pub fn settle(&mut self, from: u64, to: u64) {
        self.settled.insert(from, to);
    }

    /// Removes segments without an item that is not settled for sure.
    fn remove_settled(&mut self) {
        while let Some(segment) = self.segments.front() {
            let is_last = self.segments.len() == 1;
            let end = self.segments.get(1).map_or(self.next_seq, |s| s.id.first);
            if end > self.saved.settled.mark || (is_last && self.active.is_some()) {
                return;
            }
            // One that cannot be removed is found, and found to be settled, at the next start.
            let _ = self.fs.remove(&self.dir.join(segment.id.file_name()));
            if self.reading.as_ref().is_some_and(|r| r.id == segment.id) {
                self.reading = None;
            }
            self.segments.pop_front();
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

/// Goes on behind a frame that is not wanted, or whose item is damaged.
fn step_over(walk: &mut Walk, frame: &Frame, len: u64) {
    if frame.end() <= len && walk.read(frame, len, &mut Vec::new()) {
        walk.pass(frame);
    } else {
        walk.distrust(frame);
    }
}

fn find_segments(fs: &dyn Fs, dir: &Path) -> Result<VecDeque<Segment>, QueueError> {
    let names = fs.list(dir).map_err(|e| QueueError::io("list", dir, e))?;
    let ids = names
        .iter()
        .filter_map(|name| SegmentId::of_file_name(name.to_str()?));
    let mut segments = Vec::new();
    for id in ids {
        let path = dir.join(id.file_name());
        let file = fs.open(&path);
        let file = file.map_err(|e| QueueError::io("open", &path, e))?;
        if let Some(found) = segment::newer_version(&*file) {
            let supported = segment::VERSION;
            return Err(QueueError::Newer {
                path,
                found,
                supported,
            });
        }
        let len = file
            .byte_len()
            .map_err(|e| QueueError::io("look at", &path, e))?;
        segments.push(Segment { id, len });
    }
    segments.sort_by_key(|s| s.id);
    Ok(segments.into())
}

/// The newer of the two states that is whole; nothing is settled if none is.
fn newest_saved(fs: &dyn Fs, dir: &Path) -> Result<Saved, QueueError> {
    let mut newest = Saved::default();
    for name in SAVED_NAMES {
        let path = dir.join(name);
        let file = match fs.open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(QueueError::io("open", path, e)),
        };
        let len = file.byte_len().unwrap_or(0).min(1 << 20) as usize;
        let mut bytes = vec![0; len];
        let read = segment::read_up_to(&*file, 0, &mut bytes).unwrap_or(0);
        match Saved::decode(&bytes[..read]) {
            SavedRead::Whole(saved) if saved.generation > newest.generation => newest = saved,
            SavedRead::Whole(_) | SavedRead::Damaged => {}
            SavedRead::Newer(found) => {
                let supported = segment::VERSION;
                return Err(QueueError::Newer {
                    path,
                    found,
                    supported,
                });
            }
        }
    }
    Ok(newest)
}
