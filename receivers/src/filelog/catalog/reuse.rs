//! Files that have the inode of another one. Where file systems have no birth times, content has to tell.

use std::path::Path;
use std::sync::atomic::Ordering;

use super::super::identity::Verdict;
use super::super::logfs::{FileId, Meta};
use super::super::position::Position;
use super::memory::bases;
use super::{Action, Catalog, FileNo, Live, inode};

impl Catalog {
    /// True if the file at `path`, which has the inode of a live one, is that one; `None` if that cannot
    /// be told now. Without birth times another file may have the inode of one that is not open.
    pub(super) fn is_there(&self, no: FileNo, path: &Path) -> Option<bool> {
        let live = self.live.get(&no)?;
        // A plain file does not become a compressed one: that was made in the same tick of file times.
        let is_alike = live.gzip || path.extension().is_none_or(|e| e != "gz");
        if (live.id.birth_ns != 0 && is_alike) || live.is_open() {
            return Some(true);
        }
        let (known, gzip) = (live.shared.known(), live.gzip);
        let is_taken = live.gone && (path == &*live.path || path == live.lineage());
        if known.head.len == 0 && (is_taken || !self.is_name_of(live, path)) {
            // Nothing of it was read that could tell. No rotation gives one log's name to another's, or a
            // file back the name that it took away.
            return Some(false);
        }
        match self.open(path, gzip) {
            Ok(o) if o.gzip != gzip => Some(false),
            Ok(o) => Some(matches!(o.compare(&known), Verdict::Same | Verdict::Shrunk)),
            Err(_) => None,
        }
    }

    /// True if rotation may have given this name to a file.
    fn is_name_of(&self, live: &Live, path: &Path) -> bool {
        let named = bases(path);
        let is_named = |log: &Path| named.iter().any(|base| base == log);
        is_named(live.lineage()) || is_named(self.listings.place(live.lineage()))
    }

    /// Another file has the inode of one that is closed: that one is gone.
    pub(super) fn let_inode_go(&mut self, no: FileNo, actions: &mut Vec<(usize, Action)>) {
        if let Some(live) = self.live.get(&no) {
            self.by_inode.remove(&inode(live.id));
        }
        self.mark_gone(no, actions);
    }

    /// True if nothing is left to read in a file, as far as that can be told without a look into it.
    /// Without birth times another file may have got its inode; and birth times tick so slowly that one
    /// made at once can have the same. Such a file was changed later.
    pub(super) fn is_done(&self, meta: &Meta) -> bool {
        let known = self.memory.get(meta.id).filter(|p| p.complete);
        let known = known.filter(|p| p.gzip || meta.size <= p.offset);
        meta.id.birth_ns != 0 && known.is_some_and(|p| meta.mtime_ns <= p.seen_ns)
    }

    /// True if another file has got the inode of one that is let go, and was read: without birth times it
    /// goes by the same name, and its position is the one to remember.
    pub(super) fn is_reused_since(&self, position: &Position) -> bool {
        let known = self.memory.get(position.id);
        let is_later = |p: &Position| p.generation > position.generation;
        position.id.birth_ns == 0 && !position.overwritten && known.is_some_and(is_later)
    }

    /// A file of another log has got the inode that goes with a position, and its name in the store where
    /// there are no birth times. If nothing else is known of that log, it is not forgotten that it was read:
    /// what rotation put beside it is news then.
    pub(super) fn keep_displaced(&mut self, position: &Position) {
        if position.id.birth_ns == 0 && !self.memory.knows(&position.path) {
            let overwritten = true;
            let kept = Position {
                overwritten,
                ..position.clone()
            };
            self.to_save.push(kept.clone());
            self.memory.insert_overwritten(kept);
        }
    }

    /// Takes note of a position that is no file's any more, but goes on being stored for a while.
    pub(super) fn note_given_up(&mut self, id: FileId, generation: u64, offset: u64) {
        if id.birth_ns == 0 {
            self.given_up.insert(id, (generation, offset));
        }
    }

    /// Forgets a position.
    pub fn forget_position(&mut self, position: &Position) {
        if !position.overwritten {
            self.memory.take(position.id);
            return;
        }
        let known = self.memory.overwritten_of(&position.path);
        if let Some(i) = known.iter().position(|p| p == position) {
            self.memory.take_overwritten(&position.path, i);
        }
    }

    /// True if a position that was superseded can be removed from the store: without birth times, what is
    /// stored under its name may be the position of another file by now.
    pub fn forget_superseded(&mut self, position: &Position) -> bool {
        let id = position.id;
        if position.overwritten || id.birth_ns != 0 {
            return true;
        }
        let is_used = self.memory.get(id).is_some() || self.live.values().any(|l| l.id == id);
        if !is_used {
            self.given_up.remove(&id);
        }
        !is_used
    }

    /// Makes sure that the position of a file that is opened now can be saved: without birth times, that of
    /// another file with its inode has the same name on disk, where none moves back. `known` is what was
    /// remembered under that name.
    pub(super) fn raise_generation(&mut self, position: &mut Position, known: Option<Position>) {
        if position.id.birth_ns != 0 {
            return;
        }
        let live = self.live.values().filter(|l| l.id == position.id);
        let live = live.map(|l| (l.generation, l.shared.acked_offset.load(Ordering::Acquire)));
        let known = known.map(|p| (p.generation, p.offset));
        let given_up = self.given_up.remove(&position.id);
        if let Some(newest) = live.chain(known).chain(given_up).max()
            && (position.generation, position.offset) < newest
        {
            position.generation = newest.0 + 1;
        }
    }
}
