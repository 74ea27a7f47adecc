//! Files that have the inode of another one. Where file systems have no birth times, content has to tell.

use std::path::Path;
use std::sync::atomic::Ordering;

use super::super::identity::Verdict;
use super::super::position::Position;
use super::{Action, Catalog, FileNo, inode};

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
        match self.open(path, gzip) {
            Ok(o) if o.gzip != gzip => Some(false),
            Ok(o) => Some(matches!(o.compare(&known), Verdict::Same | Verdict::Shrunk)),
            Err(_) => None,
        }
    }

    /// Another file has the inode of one that is closed: that one is gone.
    pub(super) fn let_inode_go(&mut self, no: FileNo, actions: &mut Vec<(usize, Action)>) {
        if let Some(live) = self.live.get(&no) {
            self.by_inode.remove(&inode(live.id));
        }
        self.mark_gone(no, actions);
    }

    /// Makes sure that the position of a file that is opened now can be saved: without birth times, that of
    /// another file with its inode has the same name on disk, where none moves back. `known` is what was
    /// remembered under that name.
    pub(super) fn raise_generation(&self, position: &mut Position, known: Option<Position>) {
        if position.id.birth_ns != 0 {
            return;
        }
        let live = self.live.values().filter(|l| l.id == position.id);
        let live = live.map(|l| (l.generation, l.shared.acked_offset.load(Ordering::Acquire)));
        let known = known.map(|p| (p.generation, p.offset));
        if let Some(newest) = live.chain(known).max()
            && (position.generation, position.offset) < newest
        {
            position.generation = newest.0 + 1;
        }
    }
}
