//! Which files there are, which of them we knew, and in what order they are read.
//!
//! The catalog is the one place that gives a path an identity. It is fed with what a scan saw and
//! answers with [`Action`]s for the shards; it opens files (to look at their first bytes) but
//! never reads a line. It has no thread: the driver drives it, tests do too.
//!
//! Here are the files under way and what scans and notifications mean for them. `admit` opens what is
//! new, `presence` tells which are gone or left, `report` what there is to say of each. `lineage`
//! finds the generations that rotation put beside a log, `content` tells whether one is a copy of what
//! was read, `gap` keeps what has to wait for it, `memory` holds the positions of files that are not
//! being read, `pairs` looks into files beside their compressed forms, `reuse` tells files from others
//! that had their inodes, `select` follows patterns that change, `siblings` says which names are rotated
//! forms of a log and how old each is.

mod admit;
mod content;
mod cut;
mod gap;
mod lineage;
mod memory;
mod pairs;
mod presence;
mod report;
mod reuse;
mod select;
mod shared;
mod siblings;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tailwater_pipeline::clock::Mono;

use self::cut::Begin;
pub use self::cut::CutAway;
use self::memory::{Memory, bases};
pub use self::select::NewSettings;
pub use self::shared::Shared;
use self::siblings::Listings;
use super::file_path::FilePath;
use super::logfs::{FileId, LogFile, LogFs, Meta};
use super::position::Position;
use super::tail::ContentCopy;

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

/// A file to read.
pub struct OpenFile {
    /// Its number.
    pub no: FileNo,
    /// The open file; none where too many are open: it is opened in its turn.
    pub file: Option<Box<dyn LogFile>>,
    /// The path it is known by.
    pub path: FilePath,
    /// Where to start, and what is known of it.
    pub position: Position,
    /// Read after this one has been read to its end (an older generation of the same path).
    pub after: Option<FileNo>,
    /// Not matched (any more): finish it and let go.
    pub finish_only: bool,
    /// Nobody writes to it any more: it is compressed, or there is a younger generation.
    pub left: bool,
    /// Its content began anew: before the first of it is read, the catalog is asked.
    pub ask: bool,
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
    Renamed(FileNo, FilePath),
    /// The file is somewhere else now, where it does not match: records go on naming the old path.
    Moved(FileNo, FilePath),
    /// Its path is gone or no longer matches: finish it and let go.
    Gone(FileNo),
    /// The patterns do not select its path any more: it is read as far as it goes now, and let go.
    Deselected(FileNo),
    /// They select its path again, whatever is there by now.
    Reselected(FileNo),
    /// It is let go.
    LetGo(FileNo),
    /// What the files are read by from now on.
    Settings(Box<NewSettings>),
    /// No name leads to it any more, as far as can be seen.
    Vanished(FileNo),
    /// Its path matches (again).
    Back(FileNo),
    /// Nobody writes to it any more.
    Left(FileNo),
    /// It seems to hold other content than was read: its reader says whether that is so.
    IsCut(FileNo),
    /// What was cut away from it is in a copy: reading goes on there.
    Copied(FileNo, Box<ContentCopy>),
    /// What was cut away from it is in no copy.
    Lost(FileNo),
    /// Nothing was read of it yet, and it is read after this one.
    After(FileNo, FileNo),
    /// Nothing comes before its content: it is read from now on.
    Begin(FileNo),
    /// All that comes after it in its log is opened.
    Looked(FileNo),
}

/// Says whether the receiver's patterns select a path by themselves.
pub type Selects = Box<dyn Fn(&Path) -> bool + Send>;

/// Rules the catalog follows, from the receiver's settings.
pub struct Rules {
    /// `fingerprint_size`.
    pub head_bytes: usize,
    /// `start_at: beginning`.
    pub from_beginning: bool,
    /// Decompress: never, always, or by magic bytes.
    pub gzip: GzipRule,
    /// `on_truncate: ignore`: a file that begins as before is read on from its offset, whatever
    /// is before it now.
    pub keep_offset: bool,
    /// A file that was cut and begins as before is read from its start.
    pub anew_when_cut: bool,
    /// Shards to spread files over.
    pub shards: usize,
    /// Which paths are read for their own sake.
    pub selects: Selects,
    /// Wall time of the start, ns since the epoch: what was born before it was there before us.
    pub started_ns: i64,
    /// Files that the receiver has open now, in all its threads.
    pub open_files: Arc<AtomicUsize>,
    /// At so many a file that is new is left closed until its turn.
    pub open_files_max: usize,
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
    path: FilePath,
    /// Where its reader looks for it, if it has to open it again.
    place: FilePath,
    /// The path that its records name.
    named: FilePath,
    /// The path it was written to, where that is another one.
    written_at: Option<FilePath>,
    target: Option<PathBuf>,
    shard: usize,
    matched: bool,
    gone: bool,
    /// The patterns do not select its path any more.
    deselected: bool,
    /// Nobody writes to it any more.
    left: bool,
    gzip: bool,
    shared: Arc<Shared>,
    /// The generation that its position had when it was opened.
    generation: u64,
    /// When it was changed last, as far as is known.
    mtime_ns: i64,
    /// Since when it is known.
    since: Mono,
    /// Whether its first bytes may be read.
    begin: Begin,
    /// Its reader was told, or has told, that its content was cut away.
    told: bool,
    /// Of a log: the newest generation that was opened before its content, or if that is read
    /// already, after it.
    last: Option<FileNo>,
}

impl Live {
    fn lineage(&self) -> &Path {
        self.written_at.as_deref().unwrap_or(&self.path)
    }

    /// True if its reader has it open.
    fn is_open(&self) -> bool {
        let s = &self.shared;
        !s.closed.load(Ordering::Acquire) && !s.finished.load(Ordering::Acquire)
    }
}

/// What is known of a file that is not the log itself, but what rotation made of it.
struct Rotated {
    /// The log's path.
    written_at: FilePath,
    /// Nobody writes to it any more.
    left: bool,
    /// What it comes before, if that is being read: a generation that was found sooner, or the log.
    next: Option<FileNo>,
}

/// A new file that may be a copy which copytruncate is making of a live one.
struct Deferred {
    seen: Seen,
    since: Mono,
}

/// How long the truncation that makes a file a copy is waited for.
const COPY_WAIT: Duration = Duration::from_secs(2);
/// File times tick in steps of up to this, in ns.
const TICK_NS: i64 = 20_000_000;
/// More undecided files than this are looked through for those that are long gone.
const UNDECIDED_KEPT: usize = 1_000;
/// Nothing stays undecided for so long that still exists.
const UNDECIDED_MAX: Duration = Duration::from_secs(3_600);
/// So many actions of a scan are handed over at once.
const TAKEN_AT_ONCE: usize = 64;
/// How soon a rotated file that appeared is looked at.
const BESIDE_WAIT: Duration = Duration::from_millis(100);

/// See the module's documentation.
pub struct Catalog {
    rules: Rules,
    fs: Arc<dyn LogFs>,
    /// In order: what is decided must not depend on how a map is laid out.
    /// Boxed: a map that grows at its end is half empty.
    live: BTreeMap<FileNo, Box<Live>>,
    /// The files of each log, in order.
    lineages: HashMap<FilePath, Vec<FileNo>>,
    by_inode: HashMap<(u64, u64), FileNo>,
    /// The newest file of each path. A path that a file was renamed from leads to it until its
    /// successor is there.
    by_path: HashMap<FilePath, FileNo>,
    /// Files that are elsewhere than at their paths, by where they are.
    by_place: HashMap<FilePath, FileNo>,
    /// Where links lead to: notifications name that place.
    by_target: HashMap<PathBuf, FileNo>,
    memory: Memory,
    listings: Listings,
    load: Vec<usize>,
    next_no: FileNo,
    now: Mono,
    scans: u64,
    had_stored: bool,
    deferred: Vec<Deferred>,
    /// Logs whose generations have to be looked at (again), and when.
    pending: BTreeMap<PathBuf, Mono>,
    /// The same, as a rotated file appeared: any look until then will do.
    beside: BTreeMap<PathBuf, Mono>,
    /// Logs of which generations are not opened yet.
    gaps: HashMap<PathBuf, gap::Gap>,
    /// Files whose content was cut away.
    cuts: Vec<cut::Pending>,
    /// Files whose shards ask whether they may be read.
    asking: Vec<FileNo>,
    /// Files that may be copies of what is being read, since when.
    undecided: HashMap<FileId, Mono>,
    /// Set when whoever asks is to stop: what is not begun is left to the next run.
    pub stop: Arc<AtomicBool>,
    /// A link appeared, or leads to another place: whoever asks has to follow what happens there.
    pub has_new_links: bool,
    /// Errors of single files, to be logged (rate-limited) by the driver.
    pub problems: Vec<(PathBuf, std::io::Error)>,
    /// Positions to be stored, by the driver.
    pub to_save: Vec<Position>,
    /// Positions whose content is known under another identity now: to be removed from the store
    /// when that one is surely stored.
    pub superseded: Vec<Position>,
    /// Generation and offset of positions without birth times that are no file's any more, and stored.
    given_up: HashMap<FileId, (u64, u64)>,
}

impl Catalog {
    /// A catalog that knows `stored` positions of earlier runs.
    pub fn new(rules: Rules, fs: Arc<dyn LogFs>, stored: Vec<Position>) -> Catalog {
        let shards = rules.shards.max(1);
        let is_there = |p: &Position| fs.meta(&p.path).is_ok_and(|m| m.id == p.id);
        Catalog {
            had_stored: !stored.is_empty(),
            memory: Memory::new(stored, is_there),
            fs,
            live: BTreeMap::new(),
            lineages: HashMap::new(),
            by_inode: HashMap::new(),
            by_path: HashMap::new(),
            by_place: HashMap::new(),
            by_target: HashMap::new(),
            listings: Listings::new(rules.started_ns),
            load: vec![0; shards],
            next_no: 1,
            now: Mono::default(),
            scans: 0,
            deferred: Vec::new(),
            pending: BTreeMap::new(),
            beside: BTreeMap::new(),
            gaps: HashMap::new(),
            cuts: Vec::new(),
            asking: Vec::new(),
            undecided: HashMap::new(),
            stop: Arc::default(),
            has_new_links: false,
            problems: Vec::new(),
            to_save: Vec::new(),
            superseded: Vec::new(),
            given_up: HashMap::new(),
            rules,
        }
    }

    /// Files under way.
    pub fn files(&self) -> impl Iterator<Item = (FileNo, &Path, &Arc<Shared>, usize)> {
        self.live
            .iter()
            .map(|(no, l)| (*no, &*l.path, &l.shared, l.shard))
    }

    /// The file at `path` and its shard.
    pub fn at_path(&self, path: &Path) -> Option<(FileNo, usize, &Arc<Shared>)> {
        let named = self.by_path.get(path).copied();
        let named = named.filter(|no| self.live.get(no).is_some_and(|l| *l.path == *path));
        let at_place = || {
            let no = self.by_place.get(path).copied();
            no.filter(|no| self.live.get(no).is_some_and(|l| *l.place == *path))
        };
        let at_target = || self.by_target.get(path).copied();
        let no = named.or_else(at_place).or_else(at_target)?;
        let live = self.live.get(&no)?;
        Some((no, live.shard, &live.shared))
    }

    /// The link by which the log at `path` is read.
    pub fn link_to(&self, path: &Path) -> Option<PathBuf> {
        let live = self.live.get(self.by_target.get(path)?)?;
        Some(live.lineage().to_path_buf())
    }

    /// Where links among the logs lead, also while nothing is there.
    pub fn link_dirs(&self) -> BTreeSet<PathBuf> {
        self.listings.link_dirs()
    }

    /// As [`Catalog::scan_with`], with all actions at once.
    #[cfg(test)]
    pub fn scan(&mut self, seen: Vec<Seen>, now: Mono) -> Vec<(usize, Action)> {
        let mut all = Vec::new();
        self.scan_with(seen, now, &mut |actions| all.extend(actions));
        all
    }

    /// Takes a complete scan: every path that matches now, in the order to read them. The actions go
    /// to `take` in pieces: of ten thousand files they are a lot of memory.
    pub fn scan_with(
        &mut self,
        seen: Vec<Seen>,
        now: Mono,
        take: &mut dyn FnMut(Vec<(usize, Action)>),
    ) {
        let mut actions = Vec::new();
        self.listings.forget_all();
        self.look_around(now);
        self.forget_links();
        let mut present = HashSet::with_capacity(seen.len());
        // A file that moved away is noticed before its successor is opened.
        for s in &seen {
            let _ = self.listings.leads(&s.path, s.target.as_deref());
            self.rematch(s, &mut present, &mut actions);
        }
        self.mark_missing(&present, &mut actions);
        self.reselect(&mut actions);
        let first = self.scans == 0;
        self.scans += 1;
        if first {
            self.open_left_behind(&seen, &mut actions);
        }
        for s in seen {
            self.take_new(s, first, &mut actions);
            if actions.len() >= TAKEN_AT_ONCE {
                take(std::mem::take(&mut actions));
            }
        }
        self.do_due(&mut actions);
        take(actions);
    }

    fn look_around(&mut self, now: Mono) {
        self.now = now;
        self.listings.refresh(now);
        // Files that vanished before it was decided what they are.
        let recent = |at: &Mono| now.since(*at) < UNDECIDED_MAX;
        if self.undecided.len() > UNDECIDED_KEPT {
            self.undecided.retain(|_, at| recent(at));
        }
    }

    /// Links that no log is read by any more.
    fn forget_links(&mut self) {
        let (by_path, memory) = (&self.by_path, &self.memory);
        let is_log = |path: &Path| by_path.contains_key(path) || memory.of(path).next().is_some();
        self.listings.retain_links(is_log);
    }

    /// When [`Catalog::catch_up`] has something to do, if ever.
    pub fn deadline(&self) -> Option<Mono> {
        let deferred = self.deferred.iter().map(|d| d.since.after(COPY_WAIT));
        let logs = self.pending.values().chain(self.beside.values());
        deferred.chain(logs.copied()).min()
    }

    /// Does what was put off until `now`: opens files that turned out to be no copies, and looks at
    /// the generations of logs that had to wait.
    pub fn catch_up(&mut self, now: Mono) -> Vec<(usize, Action)> {
        let mut actions = Vec::new();
        if self.deadline().is_some_and(|at| at <= now) {
            self.look_around(now);
            self.do_due(&mut actions);
        }
        actions
    }

    fn do_due(&mut self, actions: &mut Vec<(usize, Action)>) {
        let now = self.now;
        let due = |d: &mut Deferred| d.since.after(COPY_WAIT) <= now;
        let due: Vec<Deferred> = self.deferred.extract_if(.., due).collect();
        for d in due {
            if self.by_inode.contains_key(&inode(d.seen.meta.id)) {
                continue;
            }
            if self.awaits_cut(&d.seen.path, actions) {
                let since = now;
                self.deferred.push(Deferred { since, ..d });
            } else {
                self.open_new(d.seen, false, actions);
            }
        }
        let due = |logs: &mut BTreeMap<PathBuf, Mono>| {
            let due = logs.extract_if(.., |_, at| *at <= now);
            due.map(|(path, _)| path).collect::<BTreeSet<_>>()
        };
        let due = &due(&mut self.pending) | &due(&mut self.beside);
        for base in due {
            // What comes after one that is not selected any more is not read, until it is again.
            let waits = |no: &FileNo| self.is_of(*no, &base);
            let has_asked =
                self.asking.iter().any(waits) || self.cuts.iter().any(|c| waits(&c.no()));
            if !has_asked && !(self.rules.selects)(&base) {
                continue;
            }
            let base_known = self.by_path.contains_key(base.as_path());
            self.reconcile(&base, base_known, actions);
        }
    }

    /// The files of the log at `base` that are being read.
    fn lineage(&self, base: &Path) -> impl Iterator<Item = &Live> {
        let files = self.lineages.get(base).into_iter().flatten();
        files.filter_map(|no| self.live.get(no).map(|l| &**l))
    }

    fn is_live(&self, id: FileId) -> bool {
        let live = self.by_inode.get(&inode(id));
        let live = live.and_then(|no| self.live.get(no));
        live.is_some_and(|l| l.id == id)
    }

    fn take_new(&mut self, s: Seen, first: bool, actions: &mut Vec<(usize, Action)>) {
        if self.by_inode.contains_key(&inode(s.meta.id))
            || self.deferred.iter().any(|d| d.seen.meta.id == s.meta.id)
        {
            return;
        }
        if self.may_be_copy_in_the_making(&s) {
            self.deferred.push(Deferred {
                seen: s,
                since: self.now,
            });
            return;
        }
        self.open_new(s, first, actions);
    }

    /// Takes one path that appeared between scans. Does nothing if it is known.
    pub fn appeared(&mut self, seen: Seen, now: Mono) -> Vec<(usize, Action)> {
        let mut actions = Vec::new();
        let mut present = HashSet::new();
        self.look_around(now);
        self.has_new_links |= self.listings.leads(&seen.path, seen.target.as_deref());
        self.rematch(&seen, &mut present, &mut actions);
        self.take_new(seen, false, &mut actions);
        actions
    }

    fn forget(&mut self, no: FileNo) {
        let Some(live) = self.live.remove(&no) else {
            return;
        };
        self.load[live.shard] -= 1;
        if let Some(files) = self.lineages.get_mut(live.lineage()) {
            files.retain(|n| *n != no);
            if files.is_empty() {
                self.lineages.remove(live.lineage());
            }
        }
        if self.by_inode.get(&inode(live.id)) == Some(&no) {
            self.by_inode.remove(&inode(live.id));
        }
        for path in [Some(&live.path), live.written_at.as_ref()] {
            if let Some(path) = path
                && self.by_path.get(path) == Some(&no)
            {
                self.by_path.remove(path);
            }
        }
        if self.by_place.get(&live.place) == Some(&no) {
            self.by_place.remove(&live.place);
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
        let finished = live.shared.finished.load(Ordering::Acquire);
        let reused = live.id.birth_ns != s.meta.id.birth_ns
            && live.id.birth_ns != 0
            && s.meta.id.birth_ns != 0;
        if reused && (closed || finished) {
            // Nothing pins the inode of a file that is not open, so this is another file.
            return self.let_inode_go(no, actions);
        }
        if *live.path != s.path && !present.contains(&no) {
            match self.is_there(no, &s.path) {
                Some(true) => {}
                Some(false) => return self.let_inode_go(no, actions),
                None => {
                    present.insert(no);
                    return;
                }
            }
        }
        let Some(live) = self.live.get_mut(&no) else {
            return;
        };
        if !present.insert(no) {
            return; // a second path to the same file
        }
        let shard = live.shard;
        live.matched = true;
        live.deselected = false;
        if std::mem::take(&mut live.gone) {
            actions.push((shard, Action::Back(no)));
        }
        if s.meta.size != live.shared.size.load(Ordering::Acquire) {
            live.shared.dirty.store(true, Ordering::Release);
        }
        let changed = std::mem::replace(&mut live.mtime_ns, s.meta.mtime_ns) != s.meta.mtime_ns;
        if changed && s.meta.size == 0 {
            // What was in it may have been copied and cut away before anyone read it.
            let base = live.lineage().to_path_buf();
            let due = self.pending.entry(base).or_insert(self.now);
            *due = self.now.min(*due);
        }
        if *live.path != s.path {
            // `by_path` keeps leading from the old path to this file until a successor is opened
            // there, which then knows what it comes after.
            let path = FilePath::from(s.path.as_path());
            let before = std::mem::replace(&mut live.path, path.clone());
            live.place = path.clone();
            live.named = path.clone();
            live.written_at.get_or_insert(before);
            self.by_path.insert(path.clone(), no);
            actions.push((shard, Action::Renamed(no, path)));
        }
    }

    /// Told by a shard where it left a file that is finished: if rotation compresses it later, the
    /// copy is recognised.
    pub fn finished(&mut self, no: FileNo, position: Position) {
        for base in bases(&position.path) {
            if let Some(at) = self.pending.get_mut(&base) {
                *at = self.now;
            }
        }
        self.forget(no);
        if self.is_reused_since(&position) {
            return;
        }
        match position.overwritten {
            true => self.memory.insert_overwritten(position),
            false => self.memory.insert(position),
        }
    }

    /// Takes news of a path that does not match: if it is a rotated form of a known log, what is
    /// beside that log is looked at soon.
    pub fn appeared_beside(&mut self, path: &Path, now: Mono) {
        self.now = now;
        let log = |base: PathBuf| {
            let named = self.by_path.get(base.as_path());
            let live = named.and_then(|no| self.live.get(no));
            if live.is_some_and(|l| l.lineage() == base) {
                // What comes after one that is not selected any more is not read.
                return (self.rules.selects)(&base).then_some(base);
            }
            self.link_to(&base)
        };
        let logs: Vec<PathBuf> = bases(path).into_iter().skip(1).filter_map(log).collect();
        for base in logs {
            let at = now.after(BESIDE_WAIT);
            self.beside.entry(base).or_insert(at);
        }
    }
}

fn inode(id: FileId) -> (u64, u64) {
    (id.dev, id.ino)
}

#[cfg(test)]
mod order_tests;
#[cfg(test)]
mod report_tests;
#[cfg(test)]
mod tests;
