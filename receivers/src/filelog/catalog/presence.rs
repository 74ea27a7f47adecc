//! Which files are still where they were, and which of them nobody writes to any more.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use tailwater_pipeline::clock::Mono;

use super::super::logfs::{FileId, Meta};
use super::super::position::Position;
use super::memory::bases;
use super::siblings::{Siblings, Stays};
use super::{Action, Catalog, FileNo, Live, Seen, inode};

/// So many positions that were given up are looked after at once. For all of them a directory is listed once.
const EVICTED_AT_ONCE: usize = 512;

impl Catalog {
    /// Takes news of a path that lost its file. There is `seen` now, if anything.
    pub fn vanished(&mut self, path: &Path, seen: Option<Seen>, now: Mono) -> Vec<(usize, Action)> {
        let mut actions = Vec::new();
        let mut present = HashSet::new();
        self.look_around(now);
        if let Some(seen) = &seen {
            self.has_new_links |= self.listings.leads(&seen.path, seen.target.as_deref());
            self.rematch(seen, &mut present, &mut actions);
        }
        let files = self.lineages.get(path).into_iter().flatten();
        let files = files.chain(self.by_path.get(path));
        let is_at = |l: &Live| !l.gone && *l.path == *path;
        let missing =
            |no: &&FileNo| !present.contains(no) && self.live.get(no).is_some_and(|l| is_at(l));
        let missing: BTreeSet<FileNo> = files.filter(missing).copied().collect();
        for no in missing {
            self.is_missing(no, &mut actions);
        }
        if let Some(seen) = seen {
            self.take_new(seen, false, &mut actions);
        }
        actions
    }

    /// Something happened to what is at `path`.
    pub fn touched(&mut self, path: &Path) {
        self.listings.touched(path);
    }

    /// Nothing may come for a while: what can be looked up again is forgotten.
    pub fn rest(&mut self, now: Mono) {
        self.listings.forget_large(now);
    }

    /// Whether news of all changes come until the next scan, or nearly all.
    pub fn hears(&mut self, all: bool) {
        self.listings.hears = all;
    }

    /// A file is not at its path any more.
    pub(super) fn is_missing(&mut self, no: FileNo, actions: &mut Vec<(usize, Action)>) {
        self.mark_gone(no, actions);
        let Some(live) = self.live.get(&no) else {
            return;
        };
        let (id, path) = (live.id, live.path.clone());
        self.deselect(no, actions);
        let found = self.listings.find(&*self.fs, &path, id, self.now);
        if let Some(now_at) = found {
            self.tell_place(no, &now_at, actions);
        }
    }

    /// The writer of the log at `base` has begun another file since the one before, so it has closed
    /// all that came before the `newest` two.
    pub(super) fn leave_older(
        &mut self,
        base: &Path,
        newest: [Option<FileNo>; 2],
        actions: &mut Vec<(usize, Action)>,
    ) {
        for no in self.lineages.get(base).into_iter().flatten() {
            if let Some(live) = self.live.get_mut(no)
                && !newest.contains(&Some(*no))
                && !std::mem::replace(&mut live.left, true)
            {
                actions.push((live.shard, Action::Left(*no)));
            }
        }
    }

    /// What rotation put beside the log at `base`, without the oldest files in which nothing is left to
    /// read, unless it is to be the `whole`.
    pub(super) fn siblings(&mut self, base: &Path, whole: bool) -> Siblings {
        let (live, by_inode, memory) = (&self.live, &self.by_inode, &self.memory);
        let stays = |meta: &Meta| {
            let reader = by_inode.get(&inode(meta.id)).and_then(|no| live.get(no));
            match reader.filter(|l| l.id == meta.id) {
                Some(l) if l.is_open() => Stays::Open,
                Some(_) => Stays::Perhaps,
                None if meta.id.birth_ns == 0 => Stays::Perhaps,
                None => match memory.get(meta.id) {
                    Some(p) if p.has_all_of(meta) => Stays::Read,
                    _ => Stays::Perhaps,
                },
            }
        };
        self.listings.of(&*self.fs, base, self.now, whole, &stays)
    }

    /// Some of the positions that were given up for want of room: those of files that are gone, which need not be
    /// stored any more, and how many others. Not all at once: there may be thousands, and what looks for their files
    /// is to find new ones meanwhile.
    pub fn take_evicted(&mut self) -> (Vec<Position>, usize) {
        let rest = self.memory.evicted.len().saturating_sub(EVICTED_AT_ONCE);
        let evicted = self.memory.evicted.split_off(rest);
        let all = evicted.len();
        // Without birth times another file may be stored under that name.
        let mut is_gone =
            |p: &Position| p.complete && p.id.birth_ns != 0 && !self.is_there_still(p);
        let gone: Vec<Position> = evicted.into_iter().filter(|p| is_gone(p)).collect();
        let others = all - gone.len();
        (gone, others)
    }

    /// How many there are.
    pub fn evicted(&self) -> usize {
        self.memory.evicted.len()
    }

    /// True if the file of a position is where it was or beside it under a rotated name.
    fn is_there_still(&mut self, p: &Position) -> bool {
        let (listings, fs, now) = (&mut self.listings, &*self.fs, self.now);
        let may_hold = |base: &PathBuf| listings.may_hold(fs, base, p.id, now);
        let is_at = self.fs.meta(&p.path).is_ok_and(|m| m.id == p.id);
        is_at || bases(&p.path).iter().any(may_hold) && self.find(p.id, &p.path).is_some()
    }

    /// Positions of files that are not being read.
    pub fn remembered(&self) -> impl Iterator<Item = &Position> {
        self.memory.iter()
    }

    /// For what changes neither identity nor path.
    pub fn remembered_mut(&mut self, id: FileId) -> Option<&mut Position> {
        self.memory.get_mut(id)
    }

    /// Positions in content that was overwritten.
    pub fn overwritten(&self) -> impl Iterator<Item = &Position> {
        self.memory.overwritten()
    }

    /// Files that no path of the scan leads to any more.
    pub(super) fn mark_missing(
        &mut self,
        present: &HashSet<FileNo>,
        actions: &mut Vec<(usize, Action)>,
    ) {
        let missing = |(no, l): (&FileNo, &Live)| (!l.gone && !present.contains(no)).then_some(*no);
        let missing: Vec<FileNo> = self
            .live
            .iter()
            .map(|(no, l)| (no, &**l))
            .filter_map(missing)
            .collect();
        for no in missing {
            self.is_missing(no, actions);
        }
    }

    pub(super) fn mark_gone(&mut self, no: FileNo, actions: &mut Vec<(usize, Action)>) {
        if let Some(live) = self.live.get_mut(&no) {
            live.matched = false;
            live.gone = true;
            live.shared.looked_into.store(false, Ordering::Release);
            actions.push((live.shard, Action::Gone(no)));
        }
    }

    /// Tells the reader of a file that is at `path` now where to find it, should it be closed.
    pub(super) fn tell_place(
        &mut self,
        no: FileNo,
        path: &Path,
        actions: &mut Vec<(usize, Action)>,
    ) {
        if self.live.get(&no).is_none_or(|l| *l.place == *path) {
            return;
        }
        match self.is_there(no, path) {
            Some(true) => {}
            Some(false) => return self.let_inode_go(no, actions),
            None => return,
        }
        if let Some(live) = self.live.get_mut(&no) {
            self.by_place.remove(&live.place);
            live.place = path.into();
            self.by_place.insert(live.place.clone(), no);
            actions.push((live.shard, Action::Moved(no, live.place.clone())));
        }
    }
}
