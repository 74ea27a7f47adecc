//! Content that is cut away under its reader: copytruncate.
//!
//! A copy holds the bytes that the log held, so the reader of a log that was cut goes on in its
//! copy, as if the log had been renamed. What is in the log then is another content: a file of its
//! own, with the same inode, that is read after all generations before it. Since it may have been
//! cut again before anyone looked, its reader asks before it emits anything: nothing that was copied
//! before its first bytes were there can be missed by then.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tailwater_pipeline::clock::Mono;

use super::super::file_path::FilePath;
use super::super::gzip_reader::GzipFile;
use super::super::identity::{Head, Known, Likeness, Trail, Verdict};
use super::super::logfs::{LogFile, Meta};
use super::super::position::Position;
use super::super::tail::ContentCopy;
use super::content::Opened;
use super::memory::bases;
use super::{Action, Catalog, FileNo, Live, Rotated, Seen, inode};

/// How often a copy is looked for, while something that may be it cannot be looked at.
const SEARCHES: u32 = 8;
/// How long after one another.
const SEARCH_WAIT: Duration = Duration::from_millis(250);
/// The rank of a copy that holds all that was read.
const HOLDS_ALL: u32 = 3;

/// What a shard tells of a file whose content was cut away.
pub struct CutAway {
    /// The file.
    pub no: FileNo,
    /// Where delivery stood in what was cut away.
    pub before: Position,
    /// Where reading of what is there now begins.
    pub anew: Position,
    /// The file, as it is on the disk.
    pub file: Arc<dyn LogFile>,
}

/// One that is being dealt with.
pub(super) struct Pending {
    cut: CutAway,
    searches: u32,
}

impl Pending {
    /// The file.
    pub(super) fn no(&self) -> FileNo {
        self.cut.no
    }
}

/// How much is known of whether the first bytes of a file may be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Begin {
    /// They may be.
    Free,
    /// Its shard will ask.
    Open,
    /// Its shard has asked.
    Asked,
}

impl Catalog {
    /// Told by a shard that the content of a file was cut away.
    pub fn cut(&mut self, cut: CutAway, now: Mono) -> Vec<(usize, Action)> {
        let mut actions = Vec::new();
        self.look_around(now);
        let Some(live) = self.live.get_mut(&cut.no) else {
            return actions;
        };
        live.told = true;
        let base = live.lineage().to_path_buf();
        self.listings.forget(&base);
        self.cuts.push(Pending { cut, searches: 0 });
        self.reconcile(&base, true, &mut actions);
        actions
    }

    /// Told by a shard that a file holds what it held.
    pub fn uncut(&mut self, no: FileNo, now: Mono) {
        self.now = now;
        if let Some(live) = self.live.get_mut(&no) {
            live.told = false;
            let base = live.lineage().to_path_buf();
            self.put_off(&base, SEARCH_WAIT);
        }
    }

    /// Told by a shard that the first bytes of a file are known, of which it has read nothing yet.
    pub fn begun(&mut self, no: FileNo, now: Mono) -> Vec<(usize, Action)> {
        let mut actions = Vec::new();
        self.look_around(now);
        let Some(live) = self.live.get_mut(&no) else {
            return actions;
        };
        live.begin = Begin::Asked;
        let base = live.lineage().to_path_buf();
        self.asking.push(no);
        self.listings.forget(&base);
        self.reconcile(&base, true, &mut actions);
        actions
    }

    /// Makes sure that every generation of the log at `base` that can be read is read or was read.
    /// `base_known`: what is at `base` itself is content that was known before.
    pub(super) fn reconcile(
        &mut self,
        base: &Path,
        base_known: bool,
        actions: &mut Vec<(usize, Action)>,
    ) {
        while let Some(i) = self.cuts.iter().position(|p| self.is_of(p.cut.no, base)) {
            let pending = self.cuts.swap_remove(i);
            let Some(cut) = self.part(base, pending, actions) else {
                return self.put_off(base, SEARCH_WAIT);
            };
            if self.admit_rotated(base, &cut, actions) {
                continue;
            }
            self.open_generations_of(base, true, actions);
            self.admit_anew(base, cut, actions);
        }
        match self.at_base(base) {
            // Where its content belongs in the order has to be known first.
            Some(no) if self.is_cut(no, actions) => return,
            _ => {}
        }
        if self.open_generations_of(base, base_known, actions) {
            self.let_begin(base, actions);
        }
    }

    pub(super) fn is_of(&self, no: FileNo, base: &Path) -> bool {
        self.live.get(&no).is_some_and(|l| l.lineage() == base)
    }

    /// The file at `base` that is being read.
    pub(super) fn at_base(&self, base: &Path) -> Option<FileNo> {
        let no = *self.by_path.get(base)?;
        let live = self.live.get(&no)?;
        if *live.path != *base || live.gone {
            return None;
        }
        let is_there = match self.fs.meta(base) {
            Ok(meta) => meta.id == live.id,
            // An error says nothing about what is there.
            Err(e) => e.kind() != io::ErrorKind::NotFound,
        };
        is_there.then_some(no)
    }

    /// True if a file at its path has other content than its reader knows. The reader is told, and
    /// tells where it is.
    fn is_cut(&mut self, no: FileNo, actions: &mut Vec<(usize, Action)>) -> bool {
        let Some(live) = self.live.get(&no) else {
            return false;
        };
        if live.told || live.shared.cut.load(Ordering::Acquire) {
            return true;
        }
        if self.is_kept(live.lineage(), no) {
            return false;
        }
        let holds = self.holds_what_was_read(no);
        if self.rules.keep_offset || holds == Some(true) {
            return false;
        }
        let Some(live) = self.live.get_mut(&no) else {
            return false;
        };
        if holds.is_some() {
            live.told = true;
            actions.push((live.shard, Action::IsCut(no)));
        } else {
            let base = live.lineage().to_path_buf();
            self.put_off(&base, SEARCH_WAIT);
        }
        true
    }

    /// True if a file at its path holds what its reader has read of it, as far as is known; `None` if
    /// that cannot be told now.
    fn holds_what_was_read(&self, no: FileNo) -> Option<bool> {
        let live = self.live.get(&no)?;
        // First what was read, then what is there.
        let known = live.shared.known();
        if live.shared.closed.load(Ordering::Acquire) || known.head.len == 0 {
            return Some(true);
        }
        let opened = match self.open(&live.path, false) {
            Ok(opened) if inode(opened.meta.id) == inode(live.id) => opened,
            // Renamed or deleted: nothing of it was cut.
            Ok(_) => return Some(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Some(true),
            Err(_) => return None,
        };
        match known.trail.len {
            0 => Some(known.head.starts(&opened.head)),
            _ => opened.holds_up_to(&known),
        }
    }

    /// Told by a shard that a closed file is not where it was. It is answered with the place where it is
    /// now, or that there is none; with nothing where that cannot be told yet.
    pub fn missing(&mut self, no: FileNo, now: Mono) -> Vec<(usize, Action)> {
        self.look_around(now);
        let Some(live) = self.live.get(&no) else {
            return Vec::new();
        };
        let (shard, is_gone) = (live.shard, live.gone);
        let (id, known) = (live.id, live.shared.known());
        let base = live.lineage().to_path_buf();
        let mut places = vec![live.path.to_path_buf(), base.clone()];
        self.listings.forget(&base);
        let beside = self.siblings(&base, false);
        let mut sure = beside.stable;
        places.extend(beside.files.into_iter().map(|s| s.path));
        for place in places {
            match self.fs.meta(&place) {
                Ok(meta) if meta.id == id => {}
                Ok(_) => continue,
                Err(e) => {
                    sure &= e.kind() == io::ErrorKind::NotFound;
                    continue;
                }
            }
            match self.is_there(no, &place) {
                Some(true) => {}
                Some(false) => continue,
                None => {
                    sure = false;
                    continue;
                }
            }
            let place = FilePath::from(place);
            if let Some(live) = self.live.get_mut(&no) {
                live.place = place.clone();
            }
            return vec![(shard, Action::Moved(no, place))];
        }
        if !is_gone {
            return Vec::new();
        }
        // Its content may be in a compressed form of it.
        let mut actions = Vec::new();
        match self.find_copy(&base, &known, &known) {
            (Some((path, opened)), _) => {
                if let Some(live) = self.live.get_mut(&no) {
                    live.written_at.get_or_insert(live.path.clone());
                }
                self.go_on_in(no, path, opened, &mut actions);
            }
            (None, true) if sure => actions.push((shard, Action::Vanished(no))),
            (None, _) => {}
        }
        actions
    }

    /// Parts the reader of a file from its inode: it goes on in a copy, if there is one. Gives the
    /// cut back when that is done.
    fn part(
        &mut self,
        base: &Path,
        mut pending: Pending,
        actions: &mut Vec<(usize, Action)>,
    ) -> Option<CutAway> {
        let no = pending.cut.no;
        let (read, shard) = self.live.get(&no).map(|l| (l.shared.known(), l.shard))?;
        let (copy, sure) = self.find_copy(base, &read, &pending.cut.before.known());
        tracing::debug!(
            log = %base.display(), file = no, read = read.offset, sure,
            copy = ?copy.as_ref().map(|c| &c.0), "a copy of what was cut was looked for"
        );
        pending.searches += 1;
        if !sure && pending.searches < SEARCHES {
            self.listings.forget(base);
            self.cuts.push(pending);
            return None;
        }
        let live = self.live.get_mut(&no)?;
        live.told = false;
        live.begin = Begin::Free;
        live.written_at.get_or_insert(live.path.clone());
        let Some((path, opened)) = copy else {
            let (was, target) = (inode(live.id), live.target.take());
            (live.gone, live.matched) = (true, false);
            self.unlink(no, was, target);
            actions.push((shard, Action::Lost(no)));
            return Some(pending.cut);
        };
        self.go_on_in(no, path, opened, actions);
        Some(pending.cut)
    }

    /// The reader of a file goes on in a copy of it.
    fn go_on_in(
        &mut self,
        no: FileNo,
        path: PathBuf,
        opened: Opened,
        actions: &mut Vec<(usize, Action)>,
    ) {
        let Some(live) = self.live.get_mut(&no) else {
            return;
        };
        let (id, path) = (opened.meta.id, FilePath::from(path));
        let (was, target) = (inode(live.id), live.target.take());
        let acked = live.shared.acked_offset.load(Ordering::Acquire);
        let left = (live.id, live.generation, acked);
        live.matched = (self.rules.selects)(&path);
        (live.id, live.path, live.gone) = (id, path.clone(), !live.matched);
        (live.place, live.gzip) = (path.clone(), opened.gzip);
        if live.matched {
            live.named = path.clone();
        }
        live.shared.size.store(opened.meta.size, Ordering::Release);
        let (matched, shard) = (live.matched, live.shard);
        self.note_given_up(left.0, left.1, left.2);
        self.unlink(no, was, target);
        self.by_inode.insert(inode(id), no);
        self.by_path.insert(path.clone(), no);
        self.undecided.remove(&id);
        self.deferred.retain(|d| d.seen.meta.id != id);
        self.memory.take(id);
        let end = match opened.gzip {
            true => (u64::MAX, Trail::default()),
            false => (opened.size, opened.trail_at(opened.size)),
        };
        let copy = ContentCopy {
            end,
            file: opened.file,
            handle: opened.handle,
            id,
            head: Head::of(&opened.head),
            path,
            gzip: opened.gzip,
            matched,
        };
        actions.push((shard, Action::Copied(no, Box::new(copy))));
    }

    /// Its inode is another one's from now on.
    fn unlink(&mut self, no: FileNo, was: (u64, u64), target: Option<PathBuf>) {
        if self.by_inode.get(&was) == Some(&no) {
            self.by_inode.remove(&was);
        }
        if let Some(target) = target
            && self.by_target.get(&target) == Some(&no)
        {
            self.by_target.remove(&target);
        }
    }

    /// The copy of what was read up to `read` and delivered up to `before`, and whether another look
    /// would find no other one.
    fn find_copy(
        &mut self,
        base: &Path,
        read: &Known,
        before: &Known,
    ) -> (Option<(PathBuf, Opened)>, bool) {
        let found = self.siblings(base, false);
        let mut sure = found.stable;
        let mut best: Option<(u32, PathBuf, Opened)> = None;
        for s in found.files {
            let id = s.meta.id;
            if self.is_live(id) || self.is_done(&s.meta) {
                continue;
            }
            let opened = match self.open(&s.path, true) {
                Ok(opened) if opened.meta.id == id => opened,
                Ok(_) => {
                    sure = false;
                    continue;
                }
                Err(e) => {
                    sure = false;
                    if e.kind() != io::ErrorKind::NotFound {
                        self.problems.push((s.path, e));
                    }
                    continue;
                }
            };
            // What is known by itself is no copy of this.
            let same = |p: &Position| {
                matches!(opened.compare(&p.known()), Verdict::Same | Verdict::Shrunk)
            };
            if self.memory.get(id).is_some_and(same) {
                continue;
            }
            let Some(rank) = opened.rank_as_copy(read, before) else {
                sure = false;
                continue;
            };
            // The oldest of equals: the others came after it.
            if rank > 0 && best.as_ref().is_none_or(|b| b.0 < rank) {
                best = Some((rank, s.path, opened));
            }
        }
        // One that was broken off may hold as much as was delivered, too.
        sure |= best.as_ref().is_some_and(|b| b.0 == HOLDS_ALL);
        (best.map(|(_, path, opened)| (path, opened)), sure)
    }

    /// Puts what is in a file that was cut on its way, if it is a rotated one by now: between what was
    /// in it and what came after that. False if it is no such file.
    fn admit_rotated(
        &mut self,
        base: &Path,
        cut: &CutAway,
        actions: &mut Vec<(usize, Action)>,
    ) -> bool {
        let id = cut.anew.id;
        if self.fs.meta(base).is_ok_and(|m| m.id == id) {
            return false;
        }
        let siblings = self.siblings(base, false).files;
        let Some(s) = siblings.into_iter().find(|s| s.meta.id == id) else {
            return false;
        };
        let seen = Seen {
            path: s.path,
            meta: s.meta,
            target: None,
        };
        let rotated = Rotated {
            written_at: base.into(),
            left: false,
            next: self.at_base(base),
        };
        let opened = cut.opened(s.meta);
        let (anew, before) = (cut.anew.clone(), Some(cut.no));
        self.admit(seen, opened, anew, before, Some(rotated), actions);
        true
    }

    /// Puts what is in a file that was cut on its way, after all generations before it.
    fn admit_anew(&mut self, base: &Path, cut: CutAway, actions: &mut Vec<(usize, Action)>) {
        let id = cut.anew.id;
        let Ok(meta) = cut.file.meta() else {
            return;
        };
        let at_base = self.fs.meta(base).is_ok_and(|m| m.id == id);
        if !at_base && meta.links > 0 {
            // By another name: it is found as what it is.
            if !self.by_inode.contains_key(&inode(id)) {
                self.memory.insert(cut.before);
                self.put_off(base, Duration::ZERO);
            }
            return;
        }
        let path = base.to_path_buf();
        // Deleted: only who has it open can read it.
        let log = self.at_base(base);
        let rotated = (!at_base).then(|| Rotated {
            written_at: base.into(),
            left: false,
            next: log,
        });
        let target = self.fs.resolve(&path).ok().filter(|t| *t != path);
        let after = self.place(base, log).or(Some(cut.no));
        let opened = cut.opened(meta);
        let seen = Seen { path, meta, target };
        let no = self.admit(seen, opened, cut.anew, after, rotated, actions);
        if !at_base {
            self.placed(base, no, log, actions);
        }
    }

    /// What a generation of the log at `base` that is opened now is read after, where `log` is the log
    /// itself, if it is being read: asked anew, that may have another answer.
    pub(super) fn place(&self, base: &Path, log: Option<FileNo>) -> Option<FileNo> {
        if self.behind_gap(base).is_some() {
            return self.predecessor(base);
        }
        let no = *self.by_path.get(base)?;
        let live = self.live.get(&no)?;
        let last = live.last.filter(|n| self.live.contains_key(n));
        match self.is_unread(live) {
            true if log.is_some() => last,
            true => Some(no),
            // What was opened before it comes before it.
            false => last.filter(|last| *last > no).or(Some(no)),
        }
    }

    /// True if nothing of a log was read yet, as far as is known: what is found beside it comes before
    /// its content.
    pub(super) fn is_unread(&self, live: &Live) -> bool {
        let known = live.shared.known();
        let is_empty = known.offset == 0 && known.head.len == 0 && !self.rules.keep_offset;
        live.begin != Begin::Free || is_empty
    }

    /// A generation of the log at `base` was opened: before the content of `next`, the log or an other
    /// generation, if nothing of that was read yet.
    pub(super) fn placed(
        &mut self,
        base: &Path,
        no: FileNo,
        next: Option<FileNo>,
        actions: &mut Vec<(usize, Action)>,
    ) {
        let Some(next) = next.filter(|no| !self.is_kept(base, *no)) else {
            return;
        };
        let is_unread = self.live.get(&next).is_some_and(|l| self.is_unread(l));
        let Some(live) = self.live.get_mut(&next) else {
            return;
        };
        live.last = Some(no);
        if is_unread {
            live.begin = Begin::Open;
            self.asking.retain(|n| *n != next);
            actions.push((live.shard, Action::After(next, no)));
        }
    }

    /// Nothing is left that comes before the content of the log at `base`.
    fn let_begin(&mut self, base: &Path, actions: &mut Vec<(usize, Action)>) {
        let asking = std::mem::take(&mut self.asking);
        for no in asking {
            match self.live.get_mut(&no) {
                Some(live) if live.lineage() == base => {
                    live.begin = Begin::Free;
                    live.last = None;
                    actions.push((live.shard, Action::Begin(no)));
                }
                Some(_) => self.asking.push(no),
                None => {}
            }
        }
    }

    /// True if a live file with a related name begins alike and has been read: copytruncate copies
    /// first and truncates after, so what this is can only be told a moment later.
    pub(super) fn may_be_copy_in_the_making(&self, s: &Seen) -> bool {
        let head = |path: &Path| -> Option<Vec<u8>> {
            let mut head = Vec::new();
            let file = self.fs.open(path).ok()?;
            file.read_whole_at(0, self.rules.head_bytes, &mut head)
                .ok()?;
            Some(head)
        };
        let live = |path: PathBuf| {
            self.by_path
                .get(path.as_path())
                .and_then(|no| self.live.get(no).map(|l| &**l))
        };
        let read = |l: &&Live| l.shared.read_offset.load(Ordering::Acquire) > 0;
        let originals = bases(&s.path).into_iter().skip(1).filter_map(live);
        let mut originals = originals.filter(|l| !l.gone).filter(read);
        originals.any(|l| {
            let (Some(mine), Some(theirs)) = (head(&s.path), head(&l.path)) else {
                return false;
            };
            // A copy in the making may still be short; an original just truncated, too.
            let n = mine.len().min(theirs.len());
            mine[..n] == theirs[..n]
        })
    }

    /// True if a file that matches may be a copy of what a log held before it was cut, of which its
    /// reader has not told yet.
    pub(super) fn awaits_cut(&mut self, path: &Path, actions: &mut Vec<(usize, Action)>) -> bool {
        let logs = bases(path).into_iter().skip(1);
        let logs: Vec<FileNo> = logs.filter_map(|base| self.at_base(&base)).collect();
        logs.into_iter().any(|no| self.is_cut(no, actions))
    }
}

impl CutAway {
    /// What is in the file now, of which nothing was read.
    fn opened(&self, meta: Meta) -> Opened {
        let gzip = self.anew.gzip;
        Opened {
            file: match gzip {
                true => Box::new(GzipFile::new(Box::new(self.file.clone()))),
                false => Box::new(self.file.clone()),
            },
            handle: self.file.clone(),
            gzip,
            meta,
            head: Vec::new(),
            size: meta.size,
            told_size: None,
        }
    }
}

impl Opened {
    /// How sure it is that this is a copy of what was read up to `read` and delivered up to `before`;
    /// 0 = it is none, `None` = that cannot be told now.
    fn rank_as_copy(&self, read: &Known, before: &Known) -> Option<u32> {
        if self.holds_up_to(read)? {
            return Some(HOLDS_ALL);
        }
        // What was written after copying was read.
        let is_short = self.told_size.is_none_or(|size| size < read.offset);
        if is_short && self.holds_up_to(before)? {
            return Some(2);
        }
        let begins = read.trail.len == 0 && self.likeness(read) == Likeness::Begins;
        Some(u32::from(begins || self.is_cut_short(read)))
    }

    /// True if what was read is there, up to the position; `None` if that cannot be read now.
    pub(super) fn holds_up_to(&self, known: &Known) -> Option<bool> {
        let is_short = self.told_size.is_some_and(|size| size < known.offset);
        if known.trail.len == 0 || is_short || !known.head.starts(&self.head) {
            return Some(false);
        }
        let hash = self.read_trail(known.offset, known.trail.len).ok()?;
        Some(hash == Some(known.trail.hash))
    }
}
