//! Where the files under way are: at their paths, elsewhere, or nowhere.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use tailwater_pipeline::clock::Mono;

use super::super::file_path::FilePath;
use super::super::identity::Verdict;
use super::content::Opened;
use super::memory::bases;
use super::{Action, Catalog, FileNo, Live, Seen, inode};

impl Catalog {
    /// Recognises a file that is under way: the same inode, maybe under another path.
    pub(super) fn rematch(
        &mut self,
        s: &Seen,
        present: &mut HashSet<FileNo>,
        actions: &mut Vec<(usize, Action)>,
    ) {
        let Some(&no) = self.by_inode.get(&inode(s.meta.id)) else {
            return;
        };
        let Some(live) = self.live.get(&no) else {
            return;
        };
        let closed = live.shared.closed.load(Ordering::Acquire);
        let finished = live.shared.finished.load(Ordering::Acquire);
        let has_births = live.id.birth_ns != 0 && s.meta.id.birth_ns != 0;
        let reused = match has_births {
            true => live.id.birth_ns != s.meta.id.birth_ns,
            // Its reader knows it elsewhere; only the content tells.
            false => closed && *live.place != *s.path && !self.is_same(live, &s.path),
        };
        let Some(live) = self.live.get_mut(&no) else {
            return;
        };
        if reused && (closed || finished) {
            // Nothing pins the inode of a file that is not open, so this is another file.
            let shard = live.shard;
            actions.push((shard, Action::Gone(no)));
            self.by_inode.remove(&inode(s.meta.id));
            return;
        }
        if !present.insert(no) {
            return; // a second path to the same file
        }
        let shard = live.shard;
        live.matched = true;
        if std::mem::take(&mut live.gone) {
            actions.push((shard, Action::Back(no)));
        }
        if s.meta.size != live.shared.size.load(Ordering::Acquire) {
            live.shared.dirty.store(true, Ordering::Release);
        }
        if *live.path != s.path {
            // `by_path` keeps leading from the old path to this file until a successor is opened
            // there, which then knows what it comes after.
            let path = FilePath::from(s.path.as_path());
            let before = std::mem::replace(&mut live.path, path.clone());
            live.place = path.clone();
            live.written_at.get_or_insert(before);
            self.by_path.insert(path.clone(), no);
            actions.push((shard, Action::Renamed(no, path)));
        } else if live.place != live.path {
            live.place = live.path.clone();
            actions.push((shard, Action::Moved(no, live.place.clone())));
        }
    }

    /// True if what is at `path` is the content of `live`.
    fn is_same(&self, live: &Live, path: &Path) -> bool {
        let known = live.shared.known();
        let same = |o: Opened| matches!(o.compare(&known), Verdict::Same);
        self.open(path, live.gzip).is_ok_and(same)
    }

    /// Files that no path of the scan leads to any more.
    pub(super) fn mark_missing(
        &mut self,
        present: &HashSet<FileNo>,
        actions: &mut Vec<(usize, Action)>,
    ) {
        let missing = |(no, l): (&FileNo, &Live)| (!l.gone && !present.contains(no)).then_some(*no);
        let missing: Vec<FileNo> = self.live.iter().filter_map(missing).collect();
        for no in missing {
            self.is_missing(no, actions);
        }
    }

    /// A file is not at its path any more.
    fn is_missing(&mut self, no: FileNo, actions: &mut Vec<(usize, Action)>) {
        self.mark_gone(no, actions);
        let Some(live) = self.live.get(&no) else {
            return;
        };
        let (id, path) = (live.id, live.path.clone());
        let siblings = self.listings.of(&*self.fs, &path, self.now).files;
        if let Some(now_at) = siblings.into_iter().find(|s| s.meta.id == id) {
            self.tell_place(no, &now_at.path, actions);
        }
    }

    /// Takes news of a path that lost its file. None if only a complete look can tell what that means.
    pub fn vanished(&mut self, path: &Path, now: Mono) -> Option<Vec<(usize, Action)>> {
        let mut actions = Vec::new();
        let live = self.by_path.get(path).and_then(|no| self.live.get(no));
        let live = live.filter(|l| *l.path == *path);
        let Some(live) = live.filter(|l| !l.gone) else {
            // A rotated file that has another name or is deleted is no news to its reader.
            let is_log = |base: PathBuf| self.by_path.contains_key(base.as_path());
            let beside = live.is_some() || bases(path).into_iter().skip(1).any(is_log);
            let wanted = (self.rules.selects)(path) || self.by_target.contains_key(path);
            return (beside && !wanted).then_some(actions);
        };
        let no = *self.by_path.get(path)?;
        match self.fs.meta(path) {
            Ok(meta) if inode(meta.id) == inode(live.id) => return Some(actions),
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return None,
            _ => {}
        }
        self.look_around(now);
        self.is_missing(no, &mut actions);
        Some(actions)
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
        let Some(live) = self.live.get(&no).filter(|l| *l.place != *path) else {
            return;
        };
        // Without birth times another file may have the inode of one that is not open.
        let doubtful = live.id.birth_ns == 0 && live.shared.closed.load(Ordering::Acquire);
        if doubtful && !self.is_same(live, path) {
            return;
        }
        if let Some(live) = self.live.get_mut(&no) {
            live.place = path.into();
            actions.push((live.shard, Action::Moved(no, live.place.clone())));
        }
    }
}
