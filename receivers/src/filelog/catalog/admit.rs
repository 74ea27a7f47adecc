//! Files that are new are opened and put on their way to a shard.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::file_path::FilePath;
use super::super::position::Position;
use super::content::Opened;
use super::cut::Begin;
use super::{Action, Catalog, FileNo, Live, OpenFile, Rotated, Seen, Shared, inode, lineage};

impl Catalog {
    /// Opens a file that matches, after all generations before it.
    pub(super) fn open_new(
        &mut self,
        mut s: Seen,
        first: bool,
        actions: &mut Vec<(usize, Action)>,
    ) {
        let at_end = first && !self.rules.from_beginning && !self.had_stored;
        let seen_before = self.memory.knows(&s.path);
        match (
            first,
            seen_before || self.by_path.contains_key(s.path.as_path()),
        ) {
            // What was left behind is under way already.
            (true, true) => {}
            (true, false) => self.take_as_read(&s, first),
            (false, false) => {
                self.take_as_read(&s, first);
                self.reconcile_before(&mut s, actions);
            }
            (false, true) => self.reconcile_before(&mut s, actions),
        }
        match self.look(&s, at_end) {
            Ok((opened, position)) => {
                if position.id != s.meta.id {
                    // It was replaced since it was seen: that one is a generation by now.
                    self.listings.forget(&s.path);
                    self.reconcile(&s.path, false, actions);
                }
                if !self.is_live(position.id) {
                    let before = self.place(&s.path, self.at_base(&s.path));
                    let replaced = self.by_path.get(s.path.as_path()).copied();
                    let is_there = |l: &Live| !l.gone && *l.path == *s.path;
                    if let Some(no) = replaced
                        && self.live.get(&no).is_some_and(|l| is_there(l))
                    {
                        // Should it be closed, and not be beside it, it need not be waited for.
                        self.mark_gone(no, actions);
                    }
                    let base = s.path.clone();
                    let no = self.admit(s, opened, position, before, None, actions);
                    self.leave_older(&base, [replaced, Some(no)], actions);
                }
            }
            // A later scan tries again.
            Err(e) => self.problems.push((s.path, e)),
        }
    }

    /// Opens the generations before `s`. What is at its path may be replaced while they are looked
    /// at; then it is one of them, and `s` becomes what is there now.
    fn reconcile_before(&mut self, s: &mut Seen, actions: &mut Vec<(usize, Action)>) {
        for _ in 0..lineage::OPENED_AT_ONCE {
            self.reconcile(&s.path, false, actions);
            match self.fs.meta(&s.path) {
                Ok(meta) if meta.id != s.meta.id => s.meta = meta,
                _ => return,
            }
            self.listings.forget(&s.path);
        }
    }

    /// Puts a file on its way to a shard. `rotated`: it is a rotated file, to be read to its end.
    pub(super) fn admit(
        &mut self,
        s: Seen,
        opened: Opened,
        mut position: Position,
        after: Option<FileNo>,
        rotated: Option<Rotated>,
        actions: &mut Vec<(usize, Action)>,
    ) -> FileNo {
        let after = after.filter(|no| self.live.contains_key(no));
        let base = rotated.as_ref().map_or(&*s.path, |r| &*r.written_at);
        let base = base.to_path_buf();
        let behind = self.behind_gap(&base);
        let next = rotated.as_ref().and_then(|r| r.next);
        let shard = match after.or(behind).or(next).and_then(|no| self.live.get(&no)) {
            Some(l) => l.shard,
            None => (0..self.load.len())
                .min_by_key(|i| self.load[*i])
                .unwrap_or(0),
        };
        let no = self.next_no;
        self.next_no += 1;
        self.load[shard] += 1;
        let finish_only = rotated.is_some();
        let left = rotated.as_ref().is_some_and(|r| r.left);
        let written_at = rotated.map(|r| r.written_at);
        let known = self.memory.take(position.id);
        if let Some(displaced) = known.as_ref().filter(|p| p.path != position.path) {
            self.keep_displaced(displaced);
        }
        self.raise_generation(&mut position, known);
        position.surveyed = true;
        let path = FilePath::from(s.path);
        if position.path == path {
            position.path = path.clone();
        }
        let shared = Arc::new(Shared::default());
        shared
            .acked_offset
            .store(position.offset, Ordering::Release);
        shared.size.store(s.meta.size, Ordering::Release);
        shared.set_known(position.known());
        self.by_inode.insert(inode(position.id), no);
        // One that was deleted has no other path than its log's.
        let is_newest = behind.is_none() && next.is_none();
        if is_newest || written_at.as_ref() != Some(&path) {
            self.by_path.insert(path.clone(), no);
        }
        if let Some(base) = &written_at
            && is_newest
        {
            self.by_path.insert(base.clone(), no);
        }
        if let Some(target) = &s.target {
            self.by_target.insert(target.clone(), no);
        }
        // What has other content than before may have had others in between; so may what follows one that
        // has, of which it is not known yet.
        let is_cut = |l: &Live| l.told || l.shared.cut.load(Ordering::Acquire);
        let follows_cut = after
            .and_then(|no| self.live.get(&no))
            .is_some_and(|l| is_cut(l));
        let ask = (position.generation > 0 || follows_cut)
            && position.offset == 0
            && !finish_only
            && !self.rules.keep_offset;
        let live = Live {
            id: position.id,
            path: path.clone(),
            place: path.clone(),
            named: position.path.clone(),
            written_at,
            target: s.target,
            shard,
            matched: !finish_only,
            gone: finish_only,
            deselected: false,
            left,
            gzip: opened.gzip,
            shared: shared.clone(),
            generation: position.generation,
            mtime_ns: s.meta.mtime_ns,
            since: self.now,
            begin: if ask { Begin::Open } else { Begin::Free },
            told: false,
            last: after,
        };
        let lineage = live.written_at.as_ref().unwrap_or(&live.path).clone();
        let files = self.lineages.entry(lineage).or_default();
        files.reserve_exact(1);
        files.push(no);
        self.live.insert(no, Box::new(live));
        // What rotation may take away at any moment is not left closed.
        let fragile = finish_only || after.is_some() || self.gaps.contains_key(&base);
        let crowded = self.rules.open_files.load(Ordering::Acquire) >= self.rules.open_files_max;
        let file = (fragile || !crowded).then_some(opened.file);
        if file.is_some() {
            shared.show(&opened.handle);
        }
        match file.is_some() {
            true => _ = self.rules.open_files.fetch_add(1, Ordering::AcqRel),
            false => shared.closed.store(true, Ordering::Release),
        }
        let open = OpenFile {
            no,
            file,
            path,
            position,
            after,
            finish_only,
            left,
            ask,
            shared,
            shard,
        };
        self.send_open(&base, Box::new(open), actions);
        no
    }
}
