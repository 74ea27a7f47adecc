//! The receiver's own thread: finds files, listens for changes, tells the shards.
//!
//! It never reads a line. Notifications make it quick, a complete scan every now and then makes it
//! right: an overflow of the notification queue, a lost event or a directory that cannot be
//! watched only cost time until the next scan.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use tailwater_pipeline::ShardHandle;
use tailwater_pipeline::checkpoint::CheckpointHandle;
use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_telemetry::metrics::{FilesMetrics, LagMetrics};

use super::catalog::{Action, Catalog, FileNo, Rules, Seen};
use super::desk::Question;
use super::discover::{Discovery, FoundFile, Problem};
use super::logfs::{Kind, LogFs};
use super::position::Position;
use super::saver::Saver;
use super::settings::Settings;
use super::source::Feedback;
use super::watch::{News, WatchEvent};

/// A scan that something asked for happens this much later, so that one scan serves many events.
const SCAN_DELAY: Duration = Duration::from_millis(50);
/// More names than this that are gone are looked at all at once, by a complete scan.
const VANISHED_MAX: usize = 4_096;
/// The position of a file that is not found is kept this long.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(7 * 24 * 3_600);
/// The same for a file that was read and delivered to its end.
const FORGET_COMPLETE_AFTER: Duration = Duration::from_secs(600);
/// Positions that are checked for it in one go.
const FORGET_AT_ONCE: usize = 4_000;
/// A position that another one took the place of is kept this long.
const SUPERSEDED_KEPT: Duration = Duration::from_secs(5);
/// Positions that were given up are looked after this often: directories are listed for it, which rotate meanwhile.
const EVICTED_INTERVAL: Duration = Duration::from_millis(200);
/// More of them than this do not wait for that.
const EVICTED_MANY: usize = 4_096;
/// Lag is measured this often.
const LAG_INTERVAL: Duration = Duration::from_secs(2);
/// The longest wait, so that a stop is noticed.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// So many notifications at once are a full buffer.
const FLOOD: usize = 256;
/// A pause after a full buffer of notifications, so that the kernel can merge equal ones.
const FLOOD_PAUSE: Duration = Duration::from_millis(5);

/// What helps where something may not be opened. Whether the user or the sandbox lacks the right
/// cannot be told from the error.
fn remedy(error: Option<&io::Error>) -> &'static str {
    match error.map(io::Error::kind) {
        Some(io::ErrorKind::PermissionDenied) => {
            "; if this user may read it (CAP_DAC_READ_SEARCH reads everything), add its directory \
             to service::sandbox::read"
        }
        _ => "",
    }
}

/// The way to one shard.
#[derive(Clone)]
pub struct ShardLink {
    /// Its handle.
    pub handle: ShardHandle,
    /// What it is told.
    pub actions: Sender<Action>,
    /// Files that may have something new.
    pub dirty: Sender<FileNo>,
}

/// What the thread works with.
pub struct DriverParts {
    /// Validated settings.
    pub settings: Arc<Settings>,
    /// Finds files.
    pub finder: Discovery,
    /// Listens for changes.
    pub watch: Box<dyn News>,
    /// Which files there are.
    pub catalog: Catalog,
    /// The shards.
    pub shards: Vec<ShardLink>,
    /// From the shards.
    pub feedback: Receiver<Feedback>,
    /// From whoever wants to know which files there are.
    pub questions: Receiver<Question>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The file system.
    pub fs: Arc<dyn LogFs>,
    /// The store of positions.
    pub store: CheckpointHandle,
    /// A complete scan happens this often although notifications work.
    pub rescan_interval: Duration,
    /// How far behind.
    pub lag: Arc<LagMetrics>,
    /// Counters of files.
    pub files: Arc<FilesMetrics>,
}

/// What a driver takes over from settings that changed.
pub struct Update {
    /// Validated settings.
    pub settings: Arc<Settings>,
    /// Finds files.
    pub finder: Discovery,
    /// What the catalog goes by.
    pub rules: Rules,
    /// The file system.
    pub fs: Arc<dyn LogFs>,
    /// A complete scan happens this often although notifications work.
    pub rescan_interval: Duration,
    /// Listens for changes, if not as before.
    pub watch: Option<Box<dyn News>>,
}

/// See the module's documentation.
pub struct Driver {
    p: DriverParts,
    scan_at: Mono,
    lag_at: Mono,
    /// The directories that the newest scan went through.
    dirs: BTreeSet<PathBuf>,
    /// Paths that lost their files, and when they are looked at.
    vanished: BTreeMap<PathBuf, Mono>,
    complained: HashSet<PathBuf>,
    /// The newest scan found a link to nothing.
    leads_nowhere: bool,
    superseded: Vec<(Mono, Position)>,
    /// Positions that were given up for want of room, of files that are there, since it was said last.
    evicted: usize,
    /// When those that were given up are looked after.
    evicted_at: Mono,
}

impl Driver {
    /// A driver that scans at once.
    pub fn new(parts: DriverParts) -> Driver {
        let now = parts.clock.now();
        Driver {
            p: parts,
            scan_at: now,
            lag_at: now,
            dirs: BTreeSet::new(),
            vanished: BTreeMap::new(),
            complained: HashSet::new(),
            leads_nowhere: false,
            superseded: Vec::new(),
            evicted: 0,
            evicted_at: now,
        }
    }

    /// Goes on with other settings, and scans at once.
    pub fn take_over(&mut self, update: Update) {
        self.p.settings = update.settings;
        self.p.finder = update.finder;
        self.p.catalog.take_over(update.rules, update.fs.clone());
        self.p.fs = update.fs;
        self.p.rescan_interval = update.rescan_interval;
        if let Some(watch) = update.watch {
            self.p.watch = watch;
        }
        self.complained.clear();
        self.scan_at = self.p.clock.now();
    }

    /// Runs until it is told to stop, or between two turns to `pause`: then another thread can go on.
    pub fn run(mut self, stop: &Arc<AtomicBool>, pause: &AtomicBool) -> Driver {
        self.p.catalog.stop = stop.clone();
        while !stop.load(Ordering::Acquire) && !pause.load(Ordering::Acquire) {
            let now = self.p.clock.now();
            let next = self.turn(now);
            let timeout = next.since(now).min(WAIT_MAX).max(Duration::from_millis(1));
            if self.listen(now, timeout) > FLOOD {
                std::thread::park_timeout(FLOOD_PAUSE);
            }
        }
        self
    }

    /// Does what is due, and says when there will be something to do without any news.
    pub fn turn(&mut self, now: Mono) -> Mono {
        if now >= self.scan_at {
            self.scan(now);
        }
        if now >= self.lag_at {
            self.measure_lag();
            self.p.catalog.rest(now);
            self.lag_at = now.after(LAG_INTERVAL);
        }
        self.look_at_vanished(now);
        self.take_feedback(now);
        let actions = self.p.catalog.catch_up(now);
        self.send(actions);
        self.report_problems();
        self.save();
        self.answer_questions();
        let due = [
            (self.p.catalog.evicted() > 0).then(|| self.evicted_due(now)),
            Some(self.scan_at),
            Some(self.lag_at),
            self.p.catalog.deadline(),
            self.vanished.values().min().copied(),
        ];
        due.into_iter().flatten().min().unwrap_or(now)
    }

    /// Takes news, waiting for at most `timeout` for some. Returns how many there were.
    pub fn listen(&mut self, now: Mono, timeout: Duration) -> usize {
        let events = match self.p.watch.wait(timeout) {
            Ok(events) => events,
            Err(e) => {
                tracing::warn!(error = %e, "notifications of file changes failed; looking instead");
                self.scan_soon(now);
                Vec::new()
            }
        };
        let count = events.len();
        for event in events {
            self.take_event(event);
        }
        count
    }

    /// How many files are under way.
    #[cfg(test)]
    pub fn files(&self) -> usize {
        self.p.catalog.files().count()
    }

    fn scan_soon(&mut self, now: Mono) {
        self.scan_at = self.scan_at.min(now.after(SCAN_DELAY));
    }

    fn take_event(&mut self, event: WatchEvent) {
        let now = self.p.clock.now();
        match event {
            WatchEvent::Modified(path) => {
                if let Some((no, shard, shared)) = self.p.catalog.at_path(&path)
                    && !shared.dirty.swap(true, Ordering::AcqRel)
                {
                    let _ = self.p.shards[shard].dirty.send(no);
                    self.p.shards[shard].handle.waker.wake();
                } else if self.p.catalog.at_path(&path).is_none() {
                    self.appeared(path, now);
                }
            }
            WatchEvent::Appeared(path) => self.appeared(path, now),
            WatchEvent::Gone(path) => self.vanished(path, now),
            WatchEvent::Rescan => self.scan_soon(now),
        }
    }

    /// A path that lost what was there.
    fn vanished(&mut self, path: PathBuf, now: Mono) {
        if self.p.finder.ordering.is_some() || self.dirs.contains(&path) {
            return self.scan_soon(now);
        }
        self.p.catalog.touched(&path);
        // What links lead to is told of by its own name.
        let path = self.p.catalog.link_to(&path).unwrap_or(path);
        // A rotated file that has another name now or is deleted is no news to its reader.
        if self.p.finder.matches(&path) {
            self.look_again(path, now);
        }
    }

    /// Looks at a path a little later, when rotation has put another file there.
    fn look_again(&mut self, path: PathBuf, now: Mono) {
        if self.vanished.len() >= VANISHED_MAX {
            return self.scan_soon(now);
        }
        self.vanished.entry(path).or_insert(now.after(SCAN_DELAY));
    }

    /// Looks at paths that lost their files.
    fn look_at_vanished(&mut self, now: Mono) {
        let due = self.vanished.extract_if(.., |_, at| *at <= now);
        for path in due.map(|(path, _)| path).collect::<Vec<_>>() {
            let wall = self.p.clock.wall_ns();
            let found = self.p.finder.look(&*self.p.fs, &path, wall).map(seen);
            let actions = self.p.catalog.vanished(&path, found, now);
            self.took(actions, now);
        }
    }

    /// A path that is new, or leads to another file than before.
    fn appeared(&mut self, path: PathBuf, now: Mono) {
        self.p.catalog.touched(&path);
        if self.p.finder.ordering.is_some() {
            // Which files are read depends on all of them.
            if self.p.finder.matches(&path) {
                self.scan_soon(now);
            }
            return;
        }
        // What links lead to is told of by its own name.
        let path = self.p.catalog.link_to(&path).unwrap_or(path);
        if self.look_at(&path, now) {
            return;
        }
        let is_log = self.p.finder.matches(&path);
        if !is_log && !self.p.finder.may_hold_matches(&path) {
            return self.p.catalog.appeared_beside(&path, now);
        }
        match self.p.fs.look(&path) {
            // A link that led nowhere may lead to it.
            Ok((Kind::File, _)) if !is_log && !self.leads_nowhere => {
                self.p.catalog.appeared_beside(&path, now);
            }
            // It has another name by now.
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.look_again(path, now),
            Ok(_) | Err(_) => self.scan_soon(now),
        }
    }

    /// Takes what is at `path`. False if that is nothing that matches.
    fn look_at(&mut self, path: &Path, now: Mono) -> bool {
        let wall = self.p.clock.wall_ns();
        let Some(found) = self.p.finder.look(&*self.p.fs, path, wall) else {
            return false;
        };
        let actions = self.p.catalog.appeared(seen(found), now);
        self.took(actions, now);
        true
    }

    /// The catalog has taken news of a path.
    fn took(&mut self, actions: Vec<(usize, Action)>, now: Mono) {
        self.send(actions);
        if std::mem::take(&mut self.p.catalog.has_new_links) {
            // A scan finds out which directories are to be watched.
            self.scan_soon(now);
        }
        self.report_problems();
    }

    fn scan(&mut self, now: Mono) {
        self.vanished.clear();
        let mut found = self.p.finder.scan(&*self.p.fs, self.p.clock.wall_ns());
        // While a log behind a link is renamed, the link leads to nothing, and no match tells of it.
        found.dirs.extend(self.p.catalog.link_dirs());
        self.p.watch.follow(&found.dirs);
        self.dirs = found.dirs;
        let polling = self.p.watch.is_polling();
        self.p.catalog.hears(!polling);
        if self.p.settings.polling.swap(polling, Ordering::AcqRel) != polling && polling {
            tracing::warn!(
                receiver = %self.p.settings.id, why = %self.p.watch.why_polling(),
                "changes of files are found by looking at them every poll_interval"
            );
            self.p.shards.iter().for_each(|s| s.handle.waker.wake());
        }
        let is_broken = |(_, problem): &(PathBuf, Problem)| matches!(problem, Problem::BrokenLink);
        self.leads_nowhere = found.problems.iter().any(is_broken);
        for (path, problem) in found.problems {
            if matches!(problem, Problem::Refused(_)) && !self.complained.contains(&path) {
                self.p.files.file_errors.inc();
            }
            self.complain(path, &format!("{problem}{}", remedy(problem.io_error())));
        }
        self.warn_of_hard_links(&found.files);
        let files = found.files.into_iter().map(seen).collect();
        let (stop, shards) = (self.p.catalog.stop.clone(), &self.p.shards);
        let take = &mut |actions| send(&stop, shards, actions);
        self.p.catalog.scan_with(files, now, take);
        self.wake_dirty();
        self.report_problems();
        self.forget_gone();
        let interval = if polling {
            self.p.settings.poll_interval
        } else {
            self.p.rescan_interval
        };
        self.scan_at = self.p.clock.now().after(interval);
    }

    /// Files that the scan found to have changed.
    fn wake_dirty(&mut self) {
        let mut woken = vec![false; self.p.shards.len()];
        for (no, _, shared, shard) in self.p.catalog.files() {
            if shared.dirty.load(Ordering::Acquire) {
                let _ = self.p.shards[shard].dirty.send(no);
                woken[shard] = true;
            }
        }
        for (shard, _) in woken.into_iter().enumerate().filter(|(_, w)| *w) {
            self.p.shards[shard].handle.waker.wake();
        }
    }

    /// A link can be judged by who made it (see [`super::links`]), a further name of a file cannot: it
    /// may be of anybody who may write to its directory, and of a file that is no log.
    fn warn_of_hard_links(&mut self, files: &[FoundFile]) {
        for file in files.iter().filter(|f| f.meta.links > 1) {
            if self.is_first_complaint(&file.path) {
                tracing::warn!(
                    receiver = %self.p.settings.id, path = %file.path.display(), names = file.meta.links,
                    "the file has further names (hard links): it is read once, under one that matches; see that the content of no other file is meant"
                );
            }
        }
    }

    fn is_first_complaint(&mut self, path: &Path) -> bool {
        if self.complained.len() > 10_000 {
            self.complained.clear();
        }
        self.complained.insert(path.to_path_buf())
    }

    fn complain(&mut self, path: PathBuf, problem: &str) {
        if self.is_first_complaint(&path) {
            tracing::warn!(
                receiver = %self.p.settings.id, path = %path.display(), problem,
                "a path cannot be used now; it is tried again"
            );
        }
    }

    fn report_problems(&mut self) {
        for (path, error) in std::mem::take(&mut self.p.catalog.problems) {
            self.p.files.file_errors.inc();
            self.complain(path, &format!("{error}{}", remedy(Some(&error))));
        }
    }

    /// Stores what the catalog found out, and removes what is known under another name by now.
    fn save(&mut self) {
        let wall = self.p.clock.wall_ns();
        for mut position in std::mem::take(&mut self.p.catalog.to_save) {
            position.seen_ns = wall;
            if let Some(p) = self.p.catalog.remembered_mut(position.id) {
                p.seen_ns = wall;
            }
            Saver::store_left(&self.p.store, &self.p.settings.namespace, &position);
        }
        // Not before what took their place is surely on disk.
        let now = self.p.clock.now();
        let new = std::mem::take(&mut self.p.catalog.superseded);
        self.superseded.extend(new.into_iter().map(|p| (now, p)));
        let due = |(at, _): &mut (Mono, Position)| now.since(*at) >= SUPERSEDED_KEPT;
        for (_, p) in self.superseded.extract_if(.., due) {
            if self.p.catalog.forget_superseded(&p) {
                Saver::forget(&self.p.store, &self.p.settings.namespace, &p);
            }
        }
        if self.p.catalog.evicted() > 0 && now >= self.evicted_due(now) {
            self.look_after_evicted(now);
        }
    }

    /// When positions that were given up are looked after.
    fn evicted_due(&self, now: Mono) -> Mono {
        match self.p.catalog.evicted() > EVICTED_MANY {
            true => now,
            false => self.evicted_at,
        }
    }

    /// Forgets positions that were given up, of files that are gone.
    fn look_after_evicted(&mut self, now: Mono) {
        self.evicted_at = now.after(EVICTED_INTERVAL);
        let (gone, others) = self.p.catalog.take_evicted();
        for p in gone {
            Saver::forget(&self.p.store, &self.p.settings.namespace, &p);
        }
        self.evicted += others;
        if self.evicted > 0 && self.p.catalog.evicted() == 0 {
            tracing::warn!(
                receiver = %self.p.settings.id, positions = std::mem::take(&mut self.evicted),
                "too many rotated files are remembered; if one of these is compressed later, it is read again"
            );
        }
    }

    /// Stored positions of files that were not found for a long time.
    fn forget_gone(&mut self) {
        let wall = self.p.clock.wall_ns();
        let old = |p: &&Position| {
            let soon = p.complete || p.overwritten;
            let keep = if soon {
                FORGET_COMPLETE_AFTER
            } else {
                FORGET_AFTER
            };
            wall.saturating_sub(p.seen_ns) > keep.as_nanos() as i64
        };
        let catalog = &self.p.catalog;
        let known = catalog.remembered().chain(catalog.overwritten());
        let old: Vec<Position> = known.filter(old).take(FORGET_AT_ONCE).cloned().collect();
        for p in old {
            if !p.overwritten && self.p.catalog.exists(&p) {
                if let Some(p) = self.p.catalog.remembered_mut(p.id) {
                    p.seen_ns = wall;
                }
                continue;
            }
            self.p.catalog.forget_position(&p);
            Saver::forget(&self.p.store, &self.p.settings.namespace, &p);
        }
    }

    fn take_feedback(&mut self, now: Mono) {
        // What comes meanwhile is for the next turn: where logs are cut faster than their directory can
        // be looked through, nothing else would be done, and nobody would hear that it is to stop.
        for _ in 0..self.p.feedback.len() {
            let Ok(feedback) = self.p.feedback.try_recv() else {
                break;
            };
            match feedback {
                Feedback::Cut(cut) => {
                    let actions = self.p.catalog.cut(*cut, now);
                    self.send(actions);
                }
                Feedback::Uncut(no) => self.p.catalog.uncut(no, now),
                Feedback::Begun(no) => {
                    let actions = self.p.catalog.begun(no, now);
                    self.send(actions);
                }
                Feedback::Missing(no) => {
                    let actions = self.p.catalog.missing(no, now);
                    self.send(actions);
                }
                Feedback::LetGo(no, position) => {
                    let actions = self.p.catalog.let_go(no, *position);
                    self.send(actions);
                }
                Feedback::Held(no) => {
                    // Nothing may have told of what is at the log's path.
                    match self.p.catalog.log_of(no) {
                        Some(_) if self.p.finder.ordering.is_some() => self.scan(now),
                        Some(log) => _ = self.look_at(&log, now),
                        None => {}
                    }
                    let actions = self.p.catalog.look_after(no, now);
                    self.send(actions);
                }
                Feedback::Finished(no, position) => self.p.catalog.finished(no, *position),
                Feedback::Delete(no) => {
                    let path = self
                        .p
                        .catalog
                        .files()
                        .find(|f| f.0 == no)
                        .map(|f| f.1.to_path_buf());
                    if let Some(path) = path
                        && let Err(e) = self.p.fs.remove(&path)
                    {
                        tracing::warn!(path = %path.display(), error = %e, "a file that was read cannot be deleted");
                    }
                }
            }
        }
    }

    fn answer_questions(&self) {
        // What comes meanwhile is for the next turn.
        for Question { query, answer } in self.p.questions.try_iter().take(self.p.questions.len()) {
            answer(self.p.catalog.report(&query, self.p.clock.wall_ns()));
        }
    }

    fn send(&self, actions: Vec<(usize, Action)>) {
        send(&self.p.catalog.stop, &self.p.shards, actions);
    }

    fn measure_lag(&self) {
        let wall = self.p.clock.wall_ns();
        let (mut bytes, mut oldest, mut files) = (0u64, 0u64, 0i64);
        for (no, _, shared, _) in self.p.catalog.files() {
            files += 1;
            let acked = shared.acked_offset.load(Ordering::Acquire);
            let mut size = shared.size.load(Ordering::Acquire);
            let read = shared.read_offset.load(Ordering::Acquire);
            let closed = shared.closed.load(Ordering::Acquire);
            if !closed
                && (read < size || acked < read)
                && let Some(now) = self.p.catalog.size_now(no)
            {
                size = size.max(now);
                shared.size.store(size, Ordering::Release);
            }
            let behind = size.max(read).saturating_sub(acked);
            if behind == 0 {
                shared.pending_since_ns.store(0, Ordering::Release);
                continue;
            }
            bytes += behind;
            // The oldest byte that is not delivered arrived after the mark was set, or is part of
            // what was there then.
            let mut since = shared.pending_since_ns.load(Ordering::Acquire);
            if since == 0 || acked >= shared.pending_to.load(Ordering::Acquire) {
                since = wall as u64;
                shared.pending_since_ns.store(since, Ordering::Release);
                shared.pending_to.store(size.max(read), Ordering::Release);
            }
            oldest = oldest.max((wall as u64).saturating_sub(since));
        }
        self.p.lag.lag_bytes.set(bytes as i64);
        self.p.lag.lag_seconds.set(oldest as f64 / 1e9);
        self.p.lag.files.set(files);
    }
}

/// Tells the shards.
fn send(stop: &AtomicBool, shards: &[ShardLink], actions: Vec<(usize, Action)>) {
    if stop.load(Ordering::Acquire) {
        // They may be the part of a look at a directory that was broken off.
        return;
    }
    let mut woken = vec![false; shards.len()];
    for (shard, action) in actions {
        let _ = shards[shard].actions.send(action);
        woken[shard] = true;
    }
    for (shard, _) in woken.into_iter().enumerate().filter(|(_, w)| *w) {
        shards[shard].handle.waker.wake();
    }
}

fn seen(found: FoundFile) -> Seen {
    Seen {
        path: found.path,
        meta: found.meta,
        target: found.target,
    }
}
