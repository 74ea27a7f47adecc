//! Generations of a log: what became of the files that were written at one path.
//!
//! Rotation renames a log, copies it, compresses it, and may do so several times before anyone
//! looks. One rule covers all of it. Every file beside a log whose name says that it is a rotated
//! form is one of these:
//!
//! - known by its inode, or by its content (a copy or a compressed form of what was read): reading
//!   goes on where it stood, or nothing is left to read;
//! - there before the log was first seen: taken as read;
//! - a generation that nobody has read: it is read from its start, in its turn.
//!
//! What was there before is written down when a log is seen for the first time. Where that was not
//! done (positions that were imported), order decides: generations come one after the other, so
//! nothing that is older than a known one is news.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::identity::{Heads, Known, Likeness, Verdict};
use super::super::logfs::{FileId, Meta};
use super::super::position::Position;
use super::content::{Content, Opened, resumed};
use super::memory::bases;
use super::siblings::Sibling;
use super::{Action, COPY_WAIT, Catalog, FileNo, Live, Rotated, Seen, Shared, TICK_NS, inode};

/// How often a directory whose names change meanwhile is looked at again at once without finding
/// anything to open.
const ATTEMPTS: usize = 4;
/// Unread generations of one log that are opened at once; the others follow when these are read.
pub(super) const OPENED_AT_ONCE: usize = 64;
/// A rotated file that was not written to for so long is not written to any more, in ns.
const LATE_WRITES_NS: i64 = 60_000_000_000;
/// Then, or after names went on changing, the log is looked at again this much later.
const AGAIN: Duration = Duration::from_millis(500);
/// What comes after a file that may be a copy of what is being read waits for no longer than this
/// until that can be told.
const GAP_MAX: Duration = Duration::from_secs(10);
/// A file that looks like a copy of one that is being read is looked at again this often.
const UNDECIDED_WAIT: Duration = Duration::from_secs(5);

/// Whether a file is a copy of one that is being read.
enum InLive {
    No,
    /// All of it is in this one.
    Doubled(Option<FileNo>),
    /// The original cannot be looked at, or its reader has to look first.
    Perhaps,
}

/// What a rotated file is.
enum Generation {
    /// Nothing of it is left to read, or it is being read.
    Known,
    /// Known, and there is more.
    More(Opened, Position),
    /// What a file that is being read holds too, so that nothing comes too late with it; nobody
    /// knows yet whether it will be needed. That file, if it is known which one stands here.
    Doubled(Option<FileNo>),
    /// Cannot be told yet.
    Undecided,
    /// Unknown content.
    New(Opened, Position),
}

impl Generation {
    fn name(&self) -> &'static str {
        match self {
            Generation::Known => "known",
            Generation::More(..) => "more",
            Generation::Doubled(_) => "doubled",
            Generation::Undecided => "undecided",
            Generation::New(..) => "new",
        }
    }
}

impl Catalog {
    /// At the first scan: what earlier runs left unfinished and rotation moved, and the generations
    /// that came and went since then.
    pub(super) fn open_left_behind(&mut self, seen: &[Seen], actions: &mut Vec<(usize, Action)>) {
        let at: HashMap<&Path, &Seen> = seen.iter().map(|s| (s.path.as_path(), s)).collect();
        for base in self.memory.paths() {
            let here = at.get(&*base);
            let known = here.and_then(|s| self.memory.get(s.meta.id));
            let base_known = known.is_some_and(|p| self.holds(p, &base));
            self.reconcile(&base, base_known, actions);
        }
    }

    /// Looks at the log at `base` again after `wait`, if nothing makes it sooner.
    pub(super) fn put_off(&mut self, base: &Path, wait: Duration) {
        let at = self.now.after(wait);
        let due = self.pending.entry(base.to_path_buf()).or_insert(at);
        *due = at.min(*due);
    }

    /// Opens every generation of the log at `base` that can be read and was not. False if it will
    /// have to be looked at again before the log goes on.
    pub(super) fn open_generations_of(
        &mut self,
        base: &Path,
        base_known: bool,
        actions: &mut Vec<(usize, Action)>,
    ) -> bool {
        if self.listings.is_stale(base, self.now) {
            self.put_off(base, AGAIN);
        }
        let mut in_vain = 0;
        for attempt in 1..=OPENED_AT_ONCE {
            if self.stop.load(Ordering::Acquire) {
                // What comes after it may have been opened too soon; it does not reach a shard any more.
                return false;
            }
            // What exists is opened in the end, in its order or not.
            let last = in_vain + 1 == ATTEMPTS || attempt == OPENED_AT_ONCE;
            let opened = actions.len();
            if self.reconcile_once(base, base_known, last, actions) {
                self.beside.remove(base);
                return !self.gaps.contains_key(base);
            }
            self.listings.forget(base);
            if last {
                break;
            }
            in_vain = if actions.len() > opened {
                0
            } else {
                in_vain + 1
            };
        }
        self.put_off(base, AGAIN);
        !self.gaps.contains_key(base)
    }

    /// False if names changed meanwhile. What was opened stays opened; unless it is the `last`
    /// attempt, that is nothing that came after a generation which could not be looked at.
    fn reconcile_once(
        &mut self,
        base: &Path,
        base_known: bool,
        last: bool,
        actions: &mut Vec<(usize, Action)>,
    ) -> bool {
        let found = self.siblings(base, false);
        let mut stable = found.stable;
        if !stable && !last {
            return false;
        }
        let mut base_known = base_known;
        let mut generations = Vec::with_capacity(found.files.len());
        let unread = |l: &&Live| l.gone && !l.shared.looked_into.load(Ordering::Acquire);
        let mut open = self.lineage(base).filter(unread).count();
        let mut gap = false;
        let mut files = found.files.into_iter();
        while let Some(s) = files.next() {
            if let Some(no) = self.by_inode.get(&inode(s.meta.id)).copied()
                && self.is_live(s.meta.id)
            {
                // What comes after it waits for it, and it may be closed.
                self.tell_place(no, &s.path, actions);
            }
            let generation = self.examine(base, &s);
            let verdict = generation.as_ref().map(Generation::name);
            tracing::trace!(path = %s.path.display(), ino = s.meta.id.ino, ?verdict, "a rotated file was looked at");
            let generation = match generation {
                Ok(generation) => generation,
                // Renamed or deleted while it was looked at.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    stable = false;
                    if last {
                        continue;
                    }
                    base_known |= files.any(|s| self.is_known(s.meta.id));
                    break;
                }
                Err(e) => {
                    self.problems.push((s.path, e));
                    // No news will come of a file that nobody writes to.
                    self.put_off(base, UNDECIDED_WAIT);
                    continue;
                }
            };
            gap = match generation {
                Generation::More(..) | Generation::New(..) => {
                    open += 1;
                    open > OPENED_AT_ONCE
                }
                Generation::Undecided => self.undecided_for(s.meta.id) < GAP_MAX,
                Generation::Known | Generation::Doubled(_) => false,
            };
            if gap {
                // Looked at again, it would be new: its position was taken from the file that had it before.
                if let Generation::More(_, position) = generation {
                    self.to_save.push(position.clone());
                    self.memory.insert(position);
                }
                self.put_off(base, AGAIN);
                base_known |= self.is_known(s.meta.id) || files.any(|s| self.is_known(s.meta.id));
                break;
            }
            generations.push((s, generation));
        }
        self.open_generations(base, base_known, found.has_older, generations, actions);
        match gap {
            true => self.open_gap(base),
            false if stable || last => self.close_gap(base, actions),
            false => {}
        }
        stable
    }

    /// How long it has not been known whether a file is a copy.
    fn undecided_for(&self, id: FileId) -> Duration {
        let since = self.undecided.get(&id).copied().unwrap_or(self.now);
        self.now.since(since)
    }

    /// True if a file is being read or was read, as far as its identity tells.
    fn is_known(&self, id: FileId) -> bool {
        self.is_live(id) || self.memory.get(id).is_some()
    }

    /// Opens what is left to read of `generations`, which are in order, oldest first. `older_known`:
    /// there are older ones, which were read.
    fn open_generations(
        &mut self,
        base: &Path,
        base_known: bool,
        older_known: bool,
        generations: Vec<(Sibling, Generation)>,
        actions: &mut Vec<(usize, Action)>,
    ) {
        let is_known = |g: &Generation| !matches!(g, Generation::New(..));
        let newest_known = generations.iter().rposition(|(_, g)| is_known(g));
        let count = generations.len();
        let later = self.first_unread_after(base, &generations);
        let mut known_before = older_known;
        for (i, (s, generation)) in generations.into_iter().enumerate() {
            let (opened, position) = match generation {
                Generation::Known => {
                    known_before = true;
                    let live = self.by_inode.get(&inode(s.meta.id)).copied();
                    if let Some(no) = live {
                        self.release(base, no, actions);
                    }
                    continue;
                }
                Generation::Doubled(_) | Generation::Undecided => {
                    // Compressed, for example, since its original was opened: that stands here.
                    if let Generation::Doubled(Some(no)) = generation {
                        self.release(base, no, actions);
                    }
                    tracing::debug!(path = %s.path.display(), "a rotated file may be a copy of one that is being read");
                    let fresh = self.undecided_for(s.meta.id) < COPY_WAIT;
                    self.put_off(base, if fresh { COPY_WAIT } else { UNDECIDED_WAIT });
                    continue;
                }
                Generation::More(opened, position) => (opened, position),
                Generation::New(opened, position) => {
                    let known_after = base_known || newest_known.is_some_and(|n| n > i);
                    if !known_before && self.was_there_before(base, &opened, known_after) {
                        tracing::debug!(path = %s.path.display(), "a rotated file was there before its log was known; it is not read");
                        self.write_off(&opened, position);
                        continue;
                    }
                    // Where one was missed, another may just be under way.
                    self.put_off(base, AGAIN);
                    (opened, position)
                }
            };
            tracing::debug!(
                path = %s.path.display(), log = %base.display(), offset = position.offset,
                "a rotated file is read to its end"
            );
            known_before = true;
            let (next, before) = match later[i] {
                Some(next) => (Some(next), self.live.get(&next).and_then(|l| l.last)),
                None => {
                    let log = self.at_base(base);
                    (log, self.place(base, log))
                }
            };
            let seen = Seen {
                path: s.path,
                meta: opened.meta,
                target: None,
            };
            let rotated = Some(Rotated {
                written_at: base.into(),
                left: opened.gzip || i + 1 < count,
                next,
            });
            let no = self.admit(seen, opened, position, before, rotated, actions);
            self.placed(base, no, next, actions);
        }
    }

    /// Of each of `generations`, which are in order: the first one after it that is being read, if
    /// nothing of that was read yet. What is found before it now is read before it.
    fn first_unread_after(
        &self,
        base: &Path,
        generations: &[(Sibling, Generation)],
    ) -> Vec<Option<FileNo>> {
        let mut next = None;
        let mut after = Vec::with_capacity(generations.len());
        for (s, _) in generations.iter().rev() {
            after.push(next);
            let no = self.by_inode.get(&inode(s.meta.id)).copied();
            if let Some(no) = no
                && let Some(live) = self.live.get(&no).filter(|l| l.id == s.meta.id)
            {
                let is_next = self.is_unread(live) && !self.is_kept(base, no);
                next = is_next.then_some(no);
            }
        }
        after.reverse();
        after
    }

    /// True if an unknown generation without a known one before it was there before its log was
    /// known. Where that was not written down, order and times tell.
    fn was_there_before(&self, base: &Path, opened: &Opened, known_after: bool) -> bool {
        let gone = self.memory.overwritten_of(base).iter();
        let surveyed = self.memory.of(base).chain(gone).any(|p| p.surveyed);
        if surveyed || self.by_path.contains_key(base) || self.is_newborn(&opened.meta) {
            return false;
        }
        if known_after {
            return true;
        }
        // None of the known files is there any more. What is older than the newest of them is not
        // news; a compressed form is younger than its content, but keeps its time of change.
        let newest = self.memory.of(base).max_by_key(|p| p.id.birth_ns);
        let Some(newest) = newest else {
            return true;
        };
        let (born, changed) = (opened.meta.id.birth_ns, opened.meta.mtime_ns);
        match (born, newest.id.birth_ns) {
            (0, _) | (_, 0) => changed <= newest.seen_ns,
            (born, known) => born < known || changed < known,
        }
    }

    /// True if a file was made since the start.
    fn is_newborn(&self, meta: &Meta) -> bool {
        let born = match meta.id.birth_ns {
            0 => meta.mtime_ns,
            born => born,
        };
        born >= self.rules.started_ns - TICK_NS
    }

    /// Takes what is beside a log that was never seen as read: `start_at` is about the log alone.
    /// What was made since the start is news, unless this is the first scan.
    pub(super) fn take_as_read(&mut self, s: &Seen, first: bool) {
        for sibling in self.siblings(&s.path, false).files {
            let here = sibling.meta.id == s.meta.id;
            if here || (self.rules.selects)(&sibling.path) || self.is_live(sibling.meta.id) {
                continue;
            }
            if !first && self.is_newborn(&sibling.meta) {
                self.put_off(&s.path, Duration::ZERO);
                continue;
            }
            match self.open(&sibling.path, true) {
                Ok(opened) => {
                    let position = opened.start(&s.path);
                    self.write_off(&opened, position);
                }
                Err(e) => self.problems.push((sibling.path, e)),
            }
        }
    }

    /// Remembers that nothing of a file is to be read. `position` is at its start.
    fn write_off(&mut self, opened: &Opened, mut position: Position) {
        if !opened.gzip {
            position.offset = opened.size;
            position.trail = opened.trail_at(opened.size);
        }
        position.complete = true;
        position.surveyed = true;
        self.to_save.push(position.clone());
        self.memory.insert(position);
    }

    fn examine(&mut self, base: &Path, s: &Sibling) -> io::Result<Generation> {
        let id = s.meta.id;
        let deferred = || self.deferred.iter().any(|d| d.seen.meta.id == id);
        let is_done = || self.is_done(&s.meta);
        if self.is_live(id) || is_done() || deferred() || (self.rules.selects)(&s.path) {
            return Ok(Generation::Known);
        }
        let opened = self.open(&s.path, true)?;
        if opened.meta.id != id {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut start = opened.start(base);
        if opened.gzip && opened.told_size == Some(0) && opened.head.is_empty() {
            // There is nothing in it that could be told from anything else.
            self.undecided.remove(&id);
            self.remember_complete(start);
            return Ok(Generation::Known);
        }
        // Damaged from its first byte on, for example: once is enough, whoever had its inode before.
        let was_blank = |p: &Position| p.complete && p.head.len == 0 && p.gzip == opened.gzip;
        if opened.head.is_empty() && self.memory.get(id).is_some_and(was_blank) {
            return Ok(Generation::Known);
        }
        // Without birth times, one of no content may be of any file that had the inode; and what was
        // compressed and had none is not this one.
        let says = |p: &&Position| p.head.len > 0 || (id.birth_ns != 0 && !(p.gzip && p.complete));
        if let Some(p) = self.memory.get(id).filter(says) {
            match opened.compare(&p.known()) {
                Verdict::Same | Verdict::Shrunk if p.has_all_of(&opened.meta) => {
                    return Ok(Generation::Known);
                }
                // Its reader would leave it as it did before.
                Verdict::Same if p.complete && opened.is_blank_from(p.offset) == Some(true) => {
                    return Ok(Generation::Known);
                }
                // Cut: its reader would not find what it read.
                Verdict::Shrunk if !self.rules.keep_offset => start = opened.anew(p, &start),
                Verdict::Same | Verdict::Shrunk => {
                    let own = p.clone();
                    let position = self.resumed_where_known(base, &opened, &own, &start);
                    if self.is_left_behind(&opened, &position) {
                        self.remember_complete(position);
                        return Ok(Generation::Known);
                    }
                    return Ok(Generation::More(opened, position));
                }
                Verdict::Rewritten => start = opened.anew(p, &start),
                Verdict::Other => {}
            }
            start.path = base.into();
        }
        match self.in_live(base, &opened) {
            InLive::Doubled(no) => return Ok(Generation::Doubled(no)),
            InLive::Perhaps => return Ok(Generation::Undecided),
            InLive::No => {}
        }
        let since = self.undecided.get(&id);
        let fresh = since.is_some_and(|at| self.now.since(*at) < COPY_WAIT);
        let content = self.content(&opened, &start, &[base.to_path_buf()], fresh);
        if matches!(content, Content::Unreadable) {
            return Ok(Generation::Undecided);
        }
        if fresh && matches!(content, Content::Doubled) {
            // Its original is not being read yet, as at a start: it may be truncated before it is,
            // and then only the copy has what is left of it.
            return Ok(Generation::Doubled(None));
        }
        let is_same_size = |m: Meta| m.size == opened.meta.size;
        if matches!(content, Content::Unknown) && !opened.handle.meta().is_ok_and(is_same_size) {
            // A copy that is being written, of a log that may be cut by now.
            return Ok(Generation::Undecided);
        }
        self.undecided.remove(&id);
        match content {
            Content::Reached(position) if opened.told_size == Some(position.offset) => {
                self.remember_complete(*position);
                Ok(Generation::Known)
            }
            Content::Reached(position) => Ok(Generation::More(opened, *position)),
            Content::Read | Content::Doubled => {
                self.write_off(&opened, start);
                Ok(Generation::Known)
            }
            Content::Unknown | Content::Unreadable => Ok(Generation::New(opened, start)),
        }
    }

    /// True if nothing is left to read in a rotated file of an earlier run, and nobody has written
    /// to it for so long that nobody will.
    fn is_left_behind(&self, opened: &Opened, position: &Position) -> bool {
        let long_ago = self.rules.started_ns - LATE_WRITES_NS;
        opened.told_size == Some(position.offset)
            && (opened.gzip || opened.meta.mtime_ns < long_ago)
    }

    /// Nothing is left to read behind `position`, and nobody writes to its file any more.
    fn remember_complete(&mut self, position: Position) {
        let position = Position {
            complete: true,
            ..position
        };
        self.to_save.push(position.clone());
        self.memory.insert(position);
    }

    /// Whether this is a copy of what is being read from its original right now. When that is finished
    /// or truncated, its content is known and tells.
    fn in_live(&mut self, base: &Path, opened: &Opened) -> InLive {
        let since = *self.undecided.entry(opened.meta.id).or_insert(self.now);
        // Copytruncate truncates right after it has copied.
        let fresh = self.now.since(since) < COPY_WAIT;
        let mut answer = InLive::No;
        if fresh && !self.by_path.contains_key(base) {
            // As at a start, before anything is read.
            let log = self.open(base, false);
            match log.and_then(|log| opened.is_part_of(&log)) {
                Ok(true) => return InLive::Doubled(None),
                Err(e) if e.kind() != io::ErrorKind::NotFound => answer = InLive::Perhaps,
                _ => {}
            }
        }
        // Compressed content is older than its file, and a clock may have been set back since a log
        // was found, with all that was beside it.
        let any = opened.gzip || opened.is_large();
        let born = opened.meta.id.birth_ns;
        let older = |l: &&Live| any || l.id.birth_ns <= born || l.since < since;
        let originals = self.lineage(base).filter(older);
        // What its reader has read tells of most that they are others.
        let mut heads = Heads::new(&opened.head);
        let originals: Vec<_> = originals
            .map(|l| (l, l.shared.known()))
            .filter(|(_, known)| !heads.differ_from(&known.head))
            .map(|(l, known)| (l.id, l.path.clone(), l.gzip, l.shared.clone(), known))
            .collect();
        for (id, path, gzip, shared, known) in originals {
            // Each is asked once: a read that fails says neither.
            let alike = || match known.trail.len {
                0 => opened.likeness(&known) > Likeness::None,
                _ => opened.is_cut_short(&known) || opened.holds_up_to(&known) != Some(false),
            };
            match self.open_live(id, &path, gzip, &shared) {
                Some(Ok(o)) if matches!(o.compare(&known), Verdict::Same) => {
                    let told = fresh || opened.is_no_chance(id);
                    // Nobody truncates what has no name.
                    let stays = o.meta.links == 0;
                    match opened.is_part_of(&o) {
                        Ok(true) if stays || told => {
                            // Nothing is a part of anything.
                            let no = self.by_inode.get(&inode(id)).copied();
                            return InLive::Doubled(no.filter(|_| opened.told_size != Some(0)));
                        }
                        // The log may have been cut while it was looked at.
                        Ok(false)
                            if self.may_be_at(base, id)
                                && opened.holds_up_to(&known) != Some(false)
                                && !self.still_holds(id, &path, gzip, &shared, &known) =>
                        {
                            answer = InLive::Perhaps;
                        }
                        Ok(_) => {}
                        Err(_) => answer = InLive::Perhaps,
                    }
                }
                // Its reader has not noticed yet that its content is another one now.
                Some(Ok(_)) if !alike() => {}
                // It was deleted while it was closed: what of it was read is known.
                None if !alike() && (known.head.len > 0 || known.offset == 0) => {}
                _ => answer = InLive::Perhaps,
            }
        }
        answer
    }

    /// True if a live file holds what is known to have been read of it, looked at once more.
    fn still_holds(
        &mut self,
        id: FileId,
        path: &Path,
        gzip: bool,
        shared: &Shared,
        known: &Known,
    ) -> bool {
        let now = self.open_live(id, path, gzip, shared);
        now.is_some_and(|now| now.is_ok_and(|o| matches!(o.compare(known), Verdict::Same)))
    }

    /// True if a file is at `path`, or it cannot be told now what is there.
    fn may_be_at(&self, path: &Path, id: FileId) -> bool {
        let meta = self.fs.meta(path);
        meta.map_or_else(|e| e.kind() != io::ErrorKind::NotFound, |m| m.id == id)
    }

    /// A live file as it is now: as its reader has it open, else by its name.
    fn open_live(
        &mut self,
        id: FileId,
        path: &Path,
        gzip: bool,
        shared: &Shared,
    ) -> Option<io::Result<Opened>> {
        if let Some(handle) = shared.handle() {
            let opened = self.opened(Box::new(handle), gzip);
            // An error says nothing about what is there.
            if opened.as_ref().is_ok_and(|o| o.meta.id == id) || opened.is_err() {
                return Some(opened);
            }
        }
        self.find(id, path).map(|path| self.open(&path, gzip))
    }

    /// Opens a file that matches, and finds out where to start.
    pub(super) fn look(&mut self, s: &Seen, at_end: bool) -> io::Result<(Opened, Position)> {
        // Rotation may have compressed what was read before, whatever `compression` says of files
        // that are new.
        let bases = bases(&s.path);
        let compressed = s.path.extension().is_some_and(|e| e == "gz")
            && bases.iter().any(|b| self.memory.of(b).next().is_some());
        let opened = self.open(&s.path, compressed)?;
        let mut start = opened.start(&s.path);
        let mut overwritten = None;
        if let Some(p) = self.memory.get(opened.meta.id) {
            let verdict = opened.compare(&p.known());
            // Its reader would find that out, too; but by then it may have been cut once more, and what
            // came after the first cut be in a copy that is shorter than what was read.
            let is_cut = verdict == Verdict::Shrunk && self.rules.anew_when_cut;
            match verdict {
                Verdict::Same | Verdict::Shrunk if !is_cut => {
                    let position = resumed(p, &start);
                    return Ok((opened, position));
                }
                // Its reader takes what is there for the continuation.
                Verdict::Rewritten if self.rules.keep_offset && p.head.starts(&opened.head) => {
                    let position = resumed(p, &start);
                    return Ok((opened, position));
                }
                Verdict::Rewritten | Verdict::Same | Verdict::Shrunk => {
                    start = opened.anew(p, &start);
                    overwritten = Some(p.clone());
                }
                Verdict::Other => {}
            }
            start.path = s.path.as_path().into();
        }
        match self.content(&opened, &start, &bases, false) {
            Content::Reached(position) => return Ok((opened, *position)),
            Content::Read => {
                start.offset = opened.told_size.unwrap_or_default();
                start.trail = opened.trail_at(start.offset);
                return Ok((opened, start));
            }
            Content::Unreadable => {
                return Err(io::Error::other("what is in it cannot be told now"));
            }
            // A copy that matches by itself is wanted.
            Content::Doubled | Content::Unknown => {}
        }
        // No copy of it was found so far, or it would not be known under this identity any more.
        if let Some(mut p) = overwritten.filter(|p| p.head.len > 0) {
            p.overwritten = true;
            self.to_save.push(p.clone());
            self.memory.insert_overwritten(p);
        }
        if at_end && !opened.gzip && start.generation == 0 {
            start.offset = opened.size;
            start.trail = opened.trail_at(opened.size);
        }
        Ok((opened, start))
    }
}
