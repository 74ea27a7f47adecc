//! Which files there are, which of them we knew, and in what order they are read.
//!
//! The catalog is the one place that gives a path an identity. It is fed with what a scan saw and
//! answers with [`Action`]s for the shards; it opens files (to look at their first bytes) but
//! never reads a line. It has no thread: `watcher` drives it, tests do too.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tailwater_pipeline::clock::Mono;

use super::gzip_reader::GzipFile;
use super::hash::stable_hash;
use super::identity::{
    Found, Head, TRAIL_BYTES, Trail, Verdict, is_copy, is_rotated_name, judge, rotated_from,
};
use super::logfs::{FileId, LogFile, LogFs, Meta};
use super::position::Position;

/// Number of a file within one run of a receiver.
pub type FileNo = u64;

/// One match of a scan.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The path that matched.
    pub path: PathBuf,
    /// What it leads to.
    pub meta: Meta,
    /// The path without links, if `path` is a link.
    pub target: Option<PathBuf>,
}

/// What shard and catalog both know of a file. Written by the shard, read by the catalog and by
/// telemetry.
#[derive(Debug, Default)]
pub struct Shared {
    /// Next byte to read.
    pub read_offset: AtomicU64,
    /// Everything before it was delivered.
    pub acked_offset: AtomicU64,
    /// Size when it was last looked at.
    pub size: AtomicU64,
    /// Wall time of the oldest unread or undelivered byte's arrival, ns; 0 = nothing pending.
    pub pending_since_ns: AtomicU64,
    /// The shard is done with it: everything read, delivered and saved, or abandoned.
    pub finished: AtomicBool,
    /// The descriptor was closed to keep within the budget.
    pub closed: AtomicBool,
    /// There may be something new to read; cleared by the shard before it looks.
    pub dirty: AtomicBool,
}

/// A file to read.
pub struct OpenFile {
    /// Its number.
    pub no: FileNo,
    /// The open file.
    pub file: Box<dyn LogFile>,
    /// The path it is known by.
    pub path: PathBuf,
    /// Where to start, and what is known of it.
    pub position: Position,
    /// Read after this one has been read to its end (an older generation of the same path).
    pub after: Option<FileNo>,
    /// Not matched (any more): finish it and let go.
    pub finish_only: bool,
    /// Shared state.
    pub shared: Arc<Shared>,
    /// Shard that reads it.
    pub shard: usize,
}

/// What a shard is told.
pub enum Action {
    /// Read this file.
    Open(Box<OpenFile>),
    /// The file has another name now, and it matches: records name it from now on.
    Renamed(FileNo, PathBuf),
    /// The file is somewhere else now, where it does not match: records go on naming the old path.
    Moved(FileNo, PathBuf),
    /// Its path is gone or no longer matches: finish it and let go.
    Gone(FileNo),
    /// Its path matches (again).
    Back(FileNo),
}

/// Rules the catalog follows, from the receiver's settings.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `fingerprint_size`.
    pub head_bytes: usize,
    /// `start_at: beginning`.
    pub from_beginning: bool,
    /// Decompress: never, always, or by magic bytes.
    pub gzip: GzipRule,
    /// Shards to spread files over.
    pub shards: usize,
    /// Look for rotated siblings of files that were being read when the agent stopped.
    pub siblings: bool,
}

/// `compression`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GzipRule {
    /// Plain files only.
    Never,
    /// Every file is gzip.
    Always,
    /// By the first two bytes.
    Auto,
}

struct Live {
    id: FileId,
    path: PathBuf,
    target: Option<PathBuf>,
    shard: usize,
    matched: bool,
    gone: bool,
    shared: Arc<Shared>,
}

/// A new file that may be a copy which copytruncate is making of a live one.
struct Deferred {
    seen: Seen,
    since: Mono,
}

/// Positions of files that are gone which are remembered at most.
const REMEMBERED_MAX: usize = 20_000;

/// How long the truncation that makes a file a copy is waited for.
const COPY_WAIT: Duration = Duration::from_secs(2);

/// See the module's documentation.
pub struct Catalog {
    rules: Rules,
    fs: Arc<dyn LogFs>,
    live: HashMap<FileNo, Live>,
    by_inode: HashMap<(u64, u64), FileNo>,
    by_path: HashMap<PathBuf, FileNo>,
    /// Where links lead to: notifications name that place.
    by_target: HashMap<PathBuf, FileNo>,
    stored: HashMap<FileId, Position>,
    /// Where the stored positions' files were.
    stored_at: HashMap<PathBuf, Vec<FileId>>,
    load: Vec<usize>,
    next_no: FileNo,
    scans: u64,
    had_stored: bool,
    deferred: Vec<Deferred>,
    /// Errors of single files, to be logged (rate-limited) by the driver.
    pub problems: Vec<(PathBuf, std::io::Error)>,
}

impl Catalog {
    /// A catalog that knows `stored` positions of earlier runs.
    pub fn new(rules: Rules, fs: Arc<dyn LogFs>, stored: Vec<Position>) -> Catalog {
        let shards = rules.shards.max(1);
        Catalog {
            had_stored: !stored.is_empty(),
            stored_at: by_path_of(&stored),
            stored: stored.into_iter().map(|p| (p.id, p)).collect(),
            rules,
            fs,
            live: HashMap::new(),
            by_inode: HashMap::new(),
            by_path: HashMap::new(),
            by_target: HashMap::new(),
            load: vec![0; shards],
            next_no: 1,
            scans: 0,
            deferred: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Files under way.
    pub fn files(&self) -> impl Iterator<Item = (FileNo, &Path, &Arc<Shared>, usize)> {
        self.live
            .iter()
            .map(|(no, l)| (*no, l.path.as_path(), &l.shared, l.shard))
    }

    /// The file at `path` and its shard.
    pub fn at_path(&self, path: &Path) -> Option<(FileNo, usize, &Arc<Shared>)> {
        let named = self.by_path.get(path).copied();
        let named = named.filter(|no| self.live.get(no).is_some_and(|l| l.path == path));
        let no = named.or_else(|| self.by_target.get(path).copied())?;
        let live = self.live.get(&no)?;
        Some((no, live.shard, &live.shared))
    }

    /// Stored positions that no file has claimed (yet).
    pub fn unclaimed(&self) -> impl Iterator<Item = &Position> {
        self.stored.values()
    }

    /// Takes a complete scan: every path that matches now, in the order to read them.
    pub fn scan(&mut self, seen: Vec<Seen>, now: Mono) -> Vec<(usize, Action)> {
        let mut actions = Vec::new();
        self.forget_finished();
        let mut present = HashSet::with_capacity(seen.len());
        // A file that moved away is noticed before its successor is opened.
        for s in &seen {
            self.rematch(s, &mut present, &mut actions);
        }
        self.mark_missing(&present, &mut actions);
        let first = self.scans == 0;
        self.scans += 1;
        if first && self.rules.siblings {
            self.open_left_behind(&seen, &mut actions);
        }
        for s in seen {
            self.take_new(s, first, now, &mut actions);
        }
        self.release_deferred(now, &mut actions);
        actions
    }

    /// When the next deferred file is due, if any.
    pub fn deadline(&self) -> Option<Mono> {
        self.deferred.iter().map(|d| d.since.after(COPY_WAIT)).min()
    }

    /// Opens deferred files whose time is up: they are files of their own.
    pub fn release_deferred(&mut self, now: Mono, actions: &mut Vec<(usize, Action)>) {
        let due = |d: &mut Deferred| d.since.after(COPY_WAIT) <= now;
        let due: Vec<Deferred> = self.deferred.extract_if(.., due).collect();
        for d in due {
            if !self.by_inode.contains_key(&inode(d.seen.meta.id)) {
                self.open_new(d.seen, false, actions);
            }
        }
    }

    fn take_new(&mut self, s: Seen, first: bool, now: Mono, actions: &mut Vec<(usize, Action)>) {
        if self.by_inode.contains_key(&inode(s.meta.id))
            || self.deferred.iter().any(|d| d.seen.meta.id == s.meta.id)
        {
            return;
        }
        if self.may_be_copy_in_the_making(&s) {
            self.deferred.push(Deferred {
                seen: s,
                since: now,
            });
            return;
        }
        self.open_new(s, first, actions);
    }

    /// True if a live file with a related name begins alike and has been read: copytruncate copies
    /// first and truncates after, so what this is can only be told a moment later.
    fn may_be_copy_in_the_making(&self, s: &Seen) -> bool {
        let (Some(dir), Some(name)) =
            (s.path.parent(), s.path.file_name().and_then(|n| n.to_str()))
        else {
            return false;
        };
        let head = |path: &Path| -> Option<Vec<u8>> {
            let mut head = Vec::new();
            let file = self.fs.open(path).ok()?;
            file.read_at(0, self.rules.head_bytes, &mut head).ok()?;
            Some(head)
        };
        let read = |l: &&Live| l.shared.read_offset.load(Ordering::Acquire) > 0;
        let bases = rotated_from(name).into_iter().map(|base| dir.join(base));
        let live = |path: PathBuf| self.by_path.get(&path).and_then(|no| self.live.get(no));
        let mut candidates = bases.filter_map(live).filter(|l| !l.gone).filter(read);
        candidates.any(|l| {
            let (Some(mine), Some(theirs)) = (head(&s.path), head(&l.path)) else {
                return false;
            };
            // A copy in the making may still be short; an original just truncated, too.
            let n = mine.len().min(theirs.len());
            mine[..n] == theirs[..n]
        })
    }

    /// Takes one path that appeared between scans. Does nothing if it is known.
    pub fn appeared(&mut self, seen: Seen, now: Mono) -> Vec<(usize, Action)> {
        let mut actions = Vec::new();
        let mut present = HashSet::new();
        self.rematch(&seen, &mut present, &mut actions);
        self.take_new(seen, false, now, &mut actions);
        actions
    }

    fn forget_finished(&mut self) {
        let done = |l: &Live| l.shared.finished.load(Ordering::Acquire);
        let gone: Vec<FileNo> = self
            .live
            .iter()
            .filter(|(_, l)| done(l))
            .map(|(n, _)| *n)
            .collect();
        for no in gone {
            self.forget(no);
        }
    }

    fn forget(&mut self, no: FileNo) {
        let Some(live) = self.live.remove(&no) else {
            return;
        };
        self.load[live.shard] -= 1;
        if self.by_inode.get(&inode(live.id)) == Some(&no) {
            self.by_inode.remove(&inode(live.id));
        }
        if self.by_path.get(&live.path) == Some(&no) {
            self.by_path.remove(&live.path);
        }
        if let Some(target) = &live.target
            && self.by_target.get(target) == Some(&no)
        {
            self.by_target.remove(target);
        }
    }

    /// Recognises a file that is under way: the same inode, maybe under another path.
    fn rematch(
        &mut self,
        s: &Seen,
        present: &mut HashSet<FileNo>,
        actions: &mut Vec<(usize, Action)>,
    ) {
        let Some(&no) = self.by_inode.get(&inode(s.meta.id)) else {
            return;
        };
        let Some(live) = self.live.get_mut(&no) else {
            return;
        };
        let closed = live.shared.closed.load(Ordering::Acquire);
        let reused = live.id.birth_ns != s.meta.id.birth_ns
            && live.id.birth_ns != 0
            && s.meta.id.birth_ns != 0;
        if reused && closed {
            // Nothing pins the inode of a closed file, so this is another file.
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
        if live.path != s.path {
            // `by_path` keeps leading from the old path to this file until a successor is opened
            // there, which then knows what it comes after.
            live.path = s.path.clone();
            self.by_path.insert(s.path.clone(), no);
            actions.push((shard, Action::Renamed(no, s.path.clone())));
        }
    }

    /// Files that no path of the scan leads to any more.
    fn mark_missing(&mut self, present: &HashSet<FileNo>, actions: &mut Vec<(usize, Action)>) {
        let missing: Vec<FileNo> = self
            .live
            .keys()
            .filter(|no| !present.contains(no))
            .copied()
            .collect();
        for no in missing {
            let Some(live) = self.live.get_mut(&no) else {
                continue;
            };
            live.matched = false;
            if std::mem::replace(&mut live.gone, true) {
                continue;
            }
            actions.push((live.shard, Action::Gone(no)));
            let (id, path, shard) = (live.id, live.path.clone(), live.shard);
            if let Some(now_at) = self.find_sibling(&path, id) {
                actions.push((shard, Action::Moved(no, now_at)));
            }
        }
    }

    /// Where the rotated file `id` that used to be at `path` is now, in the same directory.
    fn find_sibling(&self, path: &Path, id: FileId) -> Option<PathBuf> {
        self.siblings(path)
            .into_iter()
            .find(|(_, m)| m.id == id)
            .map(|(p, _)| p)
    }

    /// Files beside `path` whose names say they are rotated generations of it, oldest first.
    fn siblings(&self, path: &Path) -> Vec<(PathBuf, Meta)> {
        let (Some(dir), Some(base)) = (path.parent(), path.file_name().and_then(|n| n.to_str()))
        else {
            return Vec::new();
        };
        let rotated = |n: &PathBuf| n.to_str().is_some_and(|n| is_rotated_name(base, n));
        let all = self.fs.names(dir).unwrap_or_default();
        // A compressed file beside its original is still being written.
        let unfinished = |n: &PathBuf| {
            let plain = n.to_str().and_then(|n| n.strip_suffix(".gz"));
            plain.is_some_and(|plain| all.iter().any(|n| n.as_os_str() == plain))
        };
        let names = all.iter().filter(|n| rotated(n) && !unfinished(n)).cloned();
        let meta = |n: PathBuf| {
            let path = dir.join(n);
            self.fs.meta(&path).ok().map(|m| (path, m))
        };
        let mut found: Vec<_> = names.filter_map(meta).collect();
        // Equal times are common; then the larger number (`.2` before `.1`) is the older file.
        let age = |path: &Path| {
            let digits = path
                .extension()
                .and_then(|e| e.to_str())
                .filter(|e| e.len() <= 4);
            digits
                .and_then(|d| d.parse::<u32>().ok())
                .map_or(0, |n| u32::MAX - n)
        };
        found.sort_by(|a, b| (a.1.mtime_ns, age(&a.0), &a.0).cmp(&(b.1.mtime_ns, age(&b.0), &b.0)));
        found
    }

    /// At the first scan: files that were being read when the agent stopped and that were rotated
    /// since then are finished first, then the generations that came and went in between.
    fn open_left_behind(&mut self, seen: &[Seen], actions: &mut Vec<(usize, Action)>) {
        let matched: HashMap<(u64, u64), &Seen> =
            seen.iter().map(|s| (inode(s.meta.id), s)).collect();
        let stays = |p: &Position| matched.get(&inode(p.id)).is_some_and(|s| self.holds(p, s));
        let mut left: Vec<Position> = self
            .stored
            .values()
            .filter(|p| !stays(p))
            .cloned()
            .collect();
        left.sort_by(|a, b| a.path.cmp(&b.path));
        let taken: HashSet<FileId> = seen.iter().map(|s| s.meta.id).collect();
        for p in left {
            self.finish_lineage(&p, &taken, actions);
        }
    }

    /// True if the file that `s` found still holds the content that `p` was read from.
    fn holds(&self, p: &Position, s: &Seen) -> bool {
        let Ok(file) = self.open_content(&s.path, p.gzip) else {
            return true;
        };
        let mut head = Vec::new();
        if file.read_at(0, self.rules.head_bytes, &mut head).is_err() {
            return true;
        }
        let size = if p.gzip { u64::MAX } else { s.meta.size };
        let found = Found {
            id: s.meta.id,
            size,
            head: &head,
        };
        let verdict = judge(&p.known(), &found, |o, l| trail_hash(&*file, o, l));
        matches!(verdict, Verdict::Same | Verdict::Shrunk)
    }

    /// True if a file of exactly this identity is under way or has a stored position.
    fn knows(&self, id: FileId) -> bool {
        let live = self
            .by_inode
            .get(&inode(id))
            .and_then(|no| self.live.get(no));
        live.is_some_and(|l| l.id == id) || self.stored.contains_key(&id)
    }

    /// Reads the rest of `p`'s content from wherever rotation put it, and then the generations
    /// that came after it. `taken` are inodes that match by themselves.
    fn finish_lineage(
        &mut self,
        p: &Position,
        taken: &HashSet<FileId>,
        actions: &mut Vec<(usize, Action)>,
    ) {
        let siblings = self.siblings(&p.path);
        let by_inode = siblings.iter().position(|(_, m)| m.id == p.id);
        let by_content = || {
            siblings
                .iter()
                .position(|(path, m)| self.continues(p, path, m))
        };
        let rest = by_inode.or_else(by_content);
        if let Some(i) = rest {
            let (path, meta) = siblings[i].clone();
            if !self.by_inode.contains_key(&inode(meta.id)) {
                self.open_sibling(path, meta, &p.path, actions);
            }
        }
        for (i, (path, meta)) in siblings.iter().enumerate() {
            let known = rest == Some(i) || self.knows(meta.id) || taken.contains(&meta.id);
            // Every file that was ever opened has a stored position, so one that has none and is
            // younger than this one is a generation that nobody has read.
            let births = (meta.id.birth_ns, p.id.birth_ns);
            let younger = match births {
                (0, _) | (_, 0) => meta.mtime_ns > p.seen_ns,
                // File times tick in milliseconds, so equal ones tell nothing.
                (this, known) => this >= known,
            };
            if younger && !known {
                self.open_sibling(path.clone(), *meta, &p.path, actions);
            }
        }
    }

    /// True if the file at `path` is a copy (plain or compressed) of what `p` was read from.
    fn continues(&self, p: &Position, path: &Path, meta: &Meta) -> bool {
        let check = || -> std::io::Result<bool> {
            let plain = self.fs.open(path)?;
            let gzip = is_gzip(&*plain)?;
            let file = if gzip { wrap_gzip(plain) } else { plain };
            let mut head = Vec::new();
            file.read_at(0, self.rules.head_bytes, &mut head)?;
            let size = if gzip { u64::MAX } else { meta.size };
            let found = Found {
                id: meta.id,
                size,
                head: &head,
            };
            Ok(is_copy(&p.known(), &found, |o, l| trail_hash(&*file, o, l)))
        };
        check().unwrap_or(false)
    }

    fn open_content(&self, path: &Path, gzip: bool) -> std::io::Result<Box<dyn LogFile>> {
        let file = self.fs.open(path)?;
        Ok(if gzip { wrap_gzip(file) } else { file })
    }

    fn open_sibling(
        &mut self,
        path: PathBuf,
        meta: Meta,
        lineage: &Path,
        actions: &mut Vec<(usize, Action)>,
    ) {
        let seen = Seen {
            path,
            meta,
            target: None,
        };
        let before = self.by_path.get(lineage).copied();
        let Some((file, mut position)) = self.look(&seen, false, true) else {
            return;
        };
        // Its records go on naming the path they were written to.
        position.path = lineage.to_path_buf();
        let no = self.admit(seen, file, position, before, true, actions);
        self.by_path.insert(lineage.to_path_buf(), no);
    }

    fn open_new(&mut self, s: Seen, first: bool, actions: &mut Vec<(usize, Action)>) {
        let at_end = first && !self.rules.from_beginning && !self.had_stored;
        self.open_generations_between(&s, actions);
        let before = self.by_path.get(&s.path).copied();
        let Some((file, position)) = self.look(&s, at_end, false) else {
            return;
        };
        self.admit(s, file, position, before, false, actions);
    }

    /// A file that takes the place of one we read: generations that came and went between the two
    /// without being seen at this path are beside it, under rotated names.
    fn open_generations_between(&mut self, s: &Seen, actions: &mut Vec<(usize, Action)>) {
        let before = self.by_path.get(&s.path).and_then(|no| self.live.get(no));
        let Some(before) = before.map(|l| l.id).filter(|_| self.rules.siblings) else {
            return;
        };
        for (path, meta) in self.siblings(&s.path) {
            let births = (meta.id.birth_ns, before.birth_ns);
            let younger = births.0 != 0 && births.1 != 0 && births.0 >= births.1;
            // What is compressed while we look was read before, from its original.
            let compressed = path.extension().is_some_and(|e| e == "gz");
            if younger
                && !compressed
                && meta.id != s.meta.id
                && meta.id != before
                && !self.knows(meta.id)
            {
                self.open_sibling(path, meta, &s.path.clone(), actions);
            }
        }
    }

    fn admit(
        &mut self,
        s: Seen,
        file: Box<dyn LogFile>,
        position: Position,
        after: Option<FileNo>,
        finish_only: bool,
        actions: &mut Vec<(usize, Action)>,
    ) -> FileNo {
        let after = after.filter(|no| self.live.contains_key(no));
        let shard = match after.and_then(|no| self.live.get(&no)) {
            Some(l) => l.shard,
            None => (0..self.load.len())
                .min_by_key(|i| self.load[*i])
                .unwrap_or(0),
        };
        let no = self.next_no;
        self.next_no += 1;
        self.load[shard] += 1;
        let shared = Arc::new(Shared::default());
        shared.read_offset.store(position.offset, Ordering::Release);
        shared
            .acked_offset
            .store(position.offset, Ordering::Release);
        shared.size.store(s.meta.size, Ordering::Release);
        self.by_inode.insert(inode(s.meta.id), no);
        self.by_path.insert(s.path.clone(), no);
        if let Some(target) = &s.target {
            self.by_target.insert(target.clone(), no);
        }
        let live = Live {
            id: s.meta.id,
            path: s.path.clone(),
            target: s.target.clone(),
            shard,
            matched: !finish_only,
            gone: finish_only,
            shared: shared.clone(),
        };
        self.live.insert(no, live);
        let open = OpenFile {
            no,
            file,
            path: s.path,
            position,
            after,
            finish_only,
            shared,
            shard,
        };
        actions.push((shard, Action::Open(Box::new(open))));
        no
    }

    /// Opens a file and finds out where to start. `None` if it cannot be opened (a later scan
    /// tries again).
    fn look(
        &mut self,
        s: &Seen,
        at_end: bool,
        sibling: bool,
    ) -> Option<(Box<dyn LogFile>, Position)> {
        match self.try_look(s, at_end, sibling) {
            Ok(found) => Some(found),
            Err(e) => {
                self.problems.push((s.path.clone(), e));
                None
            }
        }
    }

    fn try_look(
        &mut self,
        s: &Seen,
        at_end: bool,
        sibling: bool,
    ) -> std::io::Result<(Box<dyn LogFile>, Position)> {
        let mut file = self.fs.open(&s.path)?;
        let meta = file.meta()?;
        let gzip = match self.rules.gzip {
            GzipRule::Never => sibling && is_gzip(&*file)?,
            GzipRule::Always => true,
            GzipRule::Auto => is_gzip(&*file)?,
        };
        if gzip {
            file = wrap_gzip(file);
        }
        let mut head = Vec::new();
        file.read_at(0, self.rules.head_bytes, &mut head)?;
        let size = if gzip { u64::MAX } else { meta.size };
        let found = Found {
            id: meta.id,
            size,
            head: &head,
        };
        let mut position = Position {
            id: meta.id,
            head: Head::of(&head),
            gzip,
            path: s.path.clone(),
            ..Position::default()
        };
        let trail = |offset: u64, len: u16| trail_hash(&*file, offset, len);
        if let Some(known) = self.stored.get(&meta.id) {
            // A file that was compressed in place keeps its content but not its bytes.
            match judge(&known.known(), &found, trail) {
                Verdict::Same => position = resumed(known, &position),
                Verdict::Shrunk => {
                    position = resumed(known, &position);
                }
                Verdict::Rewritten => {
                    position.generation = known.generation + 1;
                }
                Verdict::Other => {
                    if let Some(p) = self.copied_from(&found, &s.path, &*file) {
                        position = resumed(&p, &position);
                    }
                }
            }
        } else if let Some(p) = self.copied_from(&found, &s.path, &*file) {
            position = resumed(&p, &position);
        } else if at_end && !gzip {
            position.offset = meta.size;
            let mut last = Vec::new();
            let from = meta.size.saturating_sub(TRAIL_BYTES as u64);
            file.read_at(from, (meta.size - from) as usize, &mut last)?;
            position.trail = Trail::of(&last);
        }
        self.stored.remove(&meta.id);
        Ok((file, position))
    }

    /// The position of a file that `found` is a copy of: its original no longer holds the content
    /// and the names are related.
    fn copied_from(&self, found: &Found<'_>, path: &Path, file: &dyn LogFile) -> Option<Position> {
        let name = path.file_name()?.to_str()?;
        let gone = |p: &&Position| match self.fs.meta(&p.path) {
            Ok(m) => m.id != p.id || m.size < p.offset,
            Err(_) => true,
        };
        let copy = |p: &&Position| is_copy(&p.known(), found, |o, l| trail_hash(file, o, l));
        let dir = path.parent()?;
        let bases = std::iter::once(name.to_owned()).chain(rotated_from(name));
        let known = bases
            .filter_map(|base| self.stored_at.get(&dir.join(base)))
            .flatten();
        let known = known.filter_map(|key| self.stored.get(key));
        known.filter(copy).find(gone).cloned()
    }

    /// Told by a shard where it left a file that is finished: if rotation compresses it later, the
    /// copy is recognised.
    pub fn remember(&mut self, position: Position) {
        if self.stored.len() >= REMEMBERED_MAX {
            return;
        }
        let key = position.id;
        let at = self.stored_at.entry(position.path.clone()).or_default();
        if !at.contains(&key) {
            at.push(key);
        }
        self.stored.insert(key, position);
    }

    /// Told by a shard where it stood in a file that was truncated under it: what it had not read
    /// yet is read from the copy that rotation made, if there is one.
    pub fn truncated(&mut self, position: Position) -> Vec<(usize, Action)> {
        let mut actions = Vec::new();
        let waiting = std::mem::take(&mut self.deferred);
        let mut copy = None;
        for d in waiting {
            let is_copy = copy.is_none() && self.continues(&position, &d.seen.path, &d.seen.meta);
            if is_copy {
                copy = Some(d.seen)
            } else {
                self.deferred.push(d)
            }
        }
        let sibling = || {
            let found = self.siblings(&position.path).into_iter();
            let mut found = found.filter(|(_, m)| !self.by_inode.contains_key(&inode(m.id)));
            found.find(|(path, m)| self.continues(&position, path, m))
        };
        let matched = copy.is_some();
        let copy = copy.or_else(|| {
            sibling().map(|(path, meta)| Seen {
                path,
                meta,
                target: None,
            })
        });
        if let Some(seen) = copy
            && let Ok(file) = self.fs.open(&seen.path)
            && let Ok(gzip) = is_gzip(&*file)
        {
            let file = if gzip { wrap_gzip(file) } else { file };
            let now = Position {
                id: seen.meta.id,
                gzip,
                path: seen.path.clone(),
                ..Position::default()
            };
            let resumed = resumed(&position, &now);
            self.admit(seen, file, resumed, None, !matched, &mut actions);
        }
        actions
    }
}

fn by_path_of(stored: &[Position]) -> HashMap<PathBuf, Vec<FileId>> {
    let mut by_path: HashMap<PathBuf, Vec<FileId>> = HashMap::new();
    for p in stored {
        by_path.entry(p.path.clone()).or_default().push(p.id);
    }
    by_path
}

fn resumed(known: &Position, now: &Position) -> Position {
    Position {
        id: now.id,
        path: now.path.clone(),
        gzip: now.gzip,
        generation: if known.id == now.id {
            known.generation
        } else {
            0
        },
        ..known.clone()
    }
}

fn inode(id: FileId) -> (u64, u64) {
    (id.dev, id.ino)
}

fn wrap_gzip(file: Box<dyn LogFile>) -> Box<dyn LogFile> {
    Box::new(GzipFile::new(file))
}

fn is_gzip(file: &dyn LogFile) -> std::io::Result<bool> {
    let mut magic = Vec::new();
    file.read_at(0, 2, &mut magic)?;
    Ok(magic == [0x1f, 0x8b])
}

fn trail_hash(file: &dyn LogFile, offset: u64, len: u16) -> Option<u64> {
    let mut buf = Vec::new();
    let from = offset.checked_sub(u64::from(len))?;
    let n = file.read_at(from, usize::from(len), &mut buf).ok()?;
    (n == usize::from(len)).then(|| stable_hash(&buf))
}
