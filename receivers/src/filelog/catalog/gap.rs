//! What comes after generations that cannot be opened yet.
//!
//! Only so many unread generations of a log are opened at once, and now and then one cannot be told
//! from a copy of what is being read. What comes after such a gap is opened, so that rotation does
//! not take it away, but kept from its shard until the gap is closed: generations are read in order,
//! however many they are.

use std::path::{Path, PathBuf};

use tailwater_pipeline::clock::Mono;

use super::memory::bases;
use super::{Action, Catalog, Deferred, FileNo, OpenFile};

/// A gap in the generations of a log.
pub(super) struct Gap {
    /// The newest file before it, if it is being read.
    before: Option<FileNo>,
    /// What comes after it, in order. The first one's place is told by `before`.
    #[expect(clippy::vec_box, reason = "boxed for its action")]
    after: Vec<Box<OpenFile>>,
}

impl Catalog {
    /// Not all of what comes after the newest file of `base` can be opened.
    pub(super) fn open_gap(&mut self, base: &Path) {
        let before = self.by_path.get(base).copied();
        let gap = || Gap {
            before,
            after: Vec::new(),
        };
        self.gaps.entry(base.to_path_buf()).or_insert_with(gap);
    }

    /// The first file behind the gap of `base`, if there are a gap and such a file.
    pub(super) fn behind_gap(&self, base: &Path) -> Option<FileNo> {
        self.gaps.get(base)?.after.first().map(|open| open.no)
    }

    /// True if a log is behind the gap of `base`, and unknown to its shard.
    pub(super) fn is_kept(&self, base: &Path, no: FileNo) -> bool {
        let gap = self.gaps.get(base);
        gap.is_some_and(|gap| gap.after.iter().any(|open| open.no == no))
    }

    /// What a generation of `base` that is opened now is read after.
    pub(super) fn predecessor(&self, base: &Path) -> Option<FileNo> {
        match self.gaps.get(base) {
            Some(gap) if !gap.after.is_empty() => gap.before,
            _ => self.by_path.get(base).copied(),
        }
    }

    /// The files behind gaps.
    pub(super) fn kept(&self) -> impl Iterator<Item = FileNo> {
        let gaps = self.gaps.values();
        gaps.flat_map(|gap| gap.after.iter().map(|open| open.no))
    }

    /// Sends a file to its shard, or keeps it if it is the log at `base` and has to wait.
    pub(super) fn send_open(
        &mut self,
        base: &Path,
        open: Box<OpenFile>,
        actions: &mut Vec<(usize, Action)>,
    ) {
        match self.gaps.get_mut(base) {
            Some(gap) if !open.finish_only => {
                if gap.after.is_empty() {
                    gap.before = open.after;
                }
                gap.after.push(open);
            }
            Some(gap) => {
                let is_last = |no: FileNo| open.after == Some(no) || !self.live.contains_key(&no);
                if gap.before.is_none_or(is_last) {
                    gap.before = Some(open.no);
                }
                actions.push((open.shard, Action::Open(open)));
            }
            None => actions.push((open.shard, Action::Open(open))),
        }
    }

    /// Every generation before what was kept is opened or was read.
    pub(super) fn close_gap(&mut self, base: &Path, actions: &mut Vec<(usize, Action)>) {
        if let Some(gap) = self.gaps.remove(base) {
            self.send_kept(gap.before, gap.after, actions);
        }
    }

    /// As [`Catalog::close_gap`], for the file `no` and what was opened before it: what comes after it
    /// goes on waiting.
    pub(super) fn release(&mut self, base: &Path, no: FileNo, actions: &mut Vec<(usize, Action)>) {
        let Some(gap) = self.gaps.get_mut(base) else {
            return;
        };
        let Some(last) = gap.after.iter().position(|open| open.no == no) else {
            return;
        };
        if last + 1 == gap.after.len() {
            return self.close_gap(base, actions);
        }
        let kept = gap.after.drain(..=last).collect();
        let before = gap.before.replace(no);
        self.send_kept(before, kept, actions);
    }

    #[expect(clippy::vec_box, reason = "boxed for its action")]
    fn send_kept(
        &mut self,
        before: Option<FileNo>,
        kept: Vec<Box<OpenFile>>,
        actions: &mut Vec<(usize, Action)>,
    ) {
        let mut before = before.filter(|no| self.live.contains_key(no));
        for mut open in kept {
            let Some(live) = self.live.get_mut(&open.no) else {
                continue;
            };
            live.named = live.path.clone();
            // Its shard was told nothing of what became of it meanwhile.
            open.after = before.replace(open.no);
            open.finish_only = live.gone;
            open.left |= live.left;
            open.path = live.path.clone();
            open.position.path = live.path.clone();
            let moved = (live.place != live.path).then(|| live.place.clone());
            let (no, shard) = (open.no, open.shard);
            actions.push((shard, Action::Open(open)));
            actions.extend(moved.map(|place| (shard, Action::Moved(no, place))));
        }
    }

    /// Where the log is that a file belongs to.
    pub fn log_of(&self, no: FileNo) -> Option<PathBuf> {
        Some(self.live.get(&no)?.lineage().to_path_buf())
    }

    /// Opens what comes after a file in its log, and says when that is all there is.
    pub fn look_after(&mut self, no: FileNo, now: Mono) -> Vec<(usize, Action)> {
        let mut actions = Vec::new();
        let Some(base) = self.log_of(no) else {
            return actions;
        };
        self.look_around(now);
        self.listings.forget(&base);
        let base_known = self.by_path.contains_key(base.as_path());
        self.reconcile(&base, base_known, &mut actions);
        let is_of = |d: &Deferred| bases(&d.seen.path).contains(&base);
        let is_all = !self.gaps.contains_key(&base) && !self.deferred.iter().any(is_of);
        if let Some(live) = self.live.get(&no).filter(|_| is_all) {
            actions.push((live.shard, Action::Looked(no)));
        }
        actions
    }
}
