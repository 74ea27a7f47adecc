//! The shard's half of the receiver: reads its files fairly, cuts records, runs the operators and
//! emits batches whose delivery moves the checkpoints.
//!
//! One call of `poll` does one file's turn (at most one buffer), so a shard stays responsive. Files
//! with something to read take turns; a file with too much under way waits until some of it is
//! delivered; nothing is read while the nodes behind admit nothing.

mod change;
mod cut;
mod leave;
mod marked;
mod open;
mod order;
mod settle;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_pipeline::{
    Admission, Batch, Budget, BufferPool, DropReason, Outcome, Part, Progress, Source, SourceCx,
};
use tailwater_telemetry::metrics::{Accounting, Amount, FilesMetrics, ReceiverMetrics};

use self::marked::Marked;
use super::catalog::{Action, CutAway, FileNo};
use super::cutter::{Cut, Cutter};
use super::identity::TRAIL_BYTES;
use super::logfs::LogFs;
use super::position::Position;
use super::saver::Saver;
use super::settings::Settings;
use super::settled::SettledFiles;
use super::tail::{Hold, Tail};
use super::under_way::{Joint, UnderWay};

/// How long sources wait before they look again whether more is admitted.
const CLOSED_PAUSE: Duration = Duration::from_millis(50);
/// The catalog is asked this often where a file is that is not where it was.
const MISSING_PAUSE: Duration = Duration::from_millis(250);
/// Bytes read at once while room is scarce.
const SCARCE_READ_BYTES: usize = 64 << 10;

/// What a shard tells the catalog.
pub enum Feedback {
    /// A file was truncated or rewritten.
    Cut(Box<CutAway>),
    /// A file holds what it held, whatever the catalog saw.
    Uncut(FileNo),
    /// The first bytes of content that began anew in its file are known.
    Begun(FileNo),
    /// A closed file is not where it was.
    Missing(FileNo),
    /// A file that is not selected any more was read as far as it is to be read, up to here.
    LetGo(FileNo, Box<Position>),
    /// Nothing that is known to come after this file holds the rest of a line that is held, and its
    /// time is up.
    Held(FileNo),
    /// A file is finished; this is where it was left.
    Finished(FileNo, Box<Position>),
    /// A file was read and delivered as a whole and is to be deleted (`delete_after_read`).
    Delete(FileNo),
}

/// Everything one source shares with its receiver.
pub struct SourceParts {
    /// Validated settings.
    pub settings: Arc<Settings>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The file system.
    pub fs: Arc<dyn LogFs>,
    /// From the catalog.
    pub inbox: Receiver<Action>,
    /// Files that may have something new.
    pub dirty: Receiver<FileNo>,
    /// To the catalog.
    pub feedback: Sender<Feedback>,
    /// Which files have settled batches.
    pub settled: Arc<SettledFiles>,
    /// Cuts content into records and runs the operators.
    pub cutter: Cutter,
    /// Stores positions.
    pub saver: Saver,
    /// Memory of data under way.
    pub budget: Arc<Budget>,
    /// The account of the receiver.
    pub accounting: Arc<Accounting>,
    /// Counters of the receiver.
    pub metrics: Arc<ReceiverMetrics>,
    /// Counters of its files.
    pub files: Arc<FilesMetrics>,
}

/// See the module's documentation.
pub struct FileSource {
    p: SourceParts,
    /// Boxed: most of ten thousand files are at rest, and a map keeps room to grow.
    tails: HashMap<FileNo, Box<Tail>>,
    /// Files to read, in turn.
    ready: VecDeque<FileNo>,
    /// Files to look at again at a time.
    timers: BTreeMap<(Mono, FileNo), ()>,
    /// File numbers by their settled bit.
    bits: HashMap<u64, Vec<FileNo>>,
    /// Open files at rest, least recently active first; may hold stale entries.
    at_rest: VecDeque<(FileNo, Mono)>,
    marked: Marked,
    /// Undelivered bytes of deleted files that are held.
    held_bytes: HashMap<FileNo, u64>,
    /// Files that are read after others, by those.
    followers: HashMap<FileNo, FileNo>,
    open: usize,
    /// Files that are closed and wait until fewer are open.
    wait_to_open: VecDeque<FileNo>,
    /// Open files, and deleted ones that are held, as they were told last.
    reported: (i64, i64),
    pool: Arc<BufferPool>,
}

/// Why a turn ended.
enum Turn {
    /// There may be more to read.
    More,
    /// Nothing more to read now.
    Rest,
    /// Waits for delivery or for a mark.
    Blocked,
}

/// What a read came to.
enum Got {
    /// Records.
    Cut(Cut),
    /// Nothing to cut: the file ends here, or what is there does not fit the buffer.
    Nothing,
    /// Somebody else has the file locked; it is looked at again later.
    Locked,
}

impl FileSource {
    /// A source without files.
    pub fn new(parts: SourceParts) -> FileSource {
        FileSource {
            p: parts,
            tails: HashMap::new(),
            ready: VecDeque::new(),
            timers: BTreeMap::new(),
            bits: HashMap::new(),
            at_rest: VecDeque::new(),
            marked: Marked::default(),
            held_bytes: HashMap::new(),
            followers: HashMap::new(),
            open: 0,
            wait_to_open: VecDeque::new(),
            reported: (0, 0),
            pool: Arc::default(),
        }
    }

    fn take_actions(&mut self, now: Mono) {
        while let Ok(action) = self.p.inbox.try_recv() {
            match action {
                Action::Open(mut open) => {
                    // Should one be asked for later, it is not looked for in the middle.
                    let at = &mut open.position;
                    at.header_done |= at.offset > 0 && self.p.settings.header.is_none();
                    let (no, bit) = (open.no, SettledFiles::bit_of(open.no));
                    let read_bytes = self.p.settings.read_bytes;
                    let mut tail = Tail::new(*open, self.p.settled.clone(), read_bytes, now);
                    self.p.cutter.opened(&mut tail);
                    // From now on the file is known, whatever happens before its first delivery.
                    self.p.saver.save(&tail.durable(self.p.clock.wall_ns()));
                    self.bits.entry(bit).or_default().push(no);
                    if let Some(before) = tail.after {
                        self.follow(no, before, now);
                    }
                    // The catalog has counted it for all.
                    self.open += usize::from(tail.file.is_some());
                    self.tails.insert(no, Box::new(tail));
                    self.queue(no);
                    self.keep_budget();
                }
                Action::Renamed(no, path) => {
                    if let Some(tail) = self.tails.get_mut(&no) {
                        tail.path = path.clone();
                        tail.position.path = path;
                        tail.moved_at = Some(now);
                        tail.is_missing_no_more();
                        self.p.files.files_rotated.inc();
                        self.p.cutter.opened(tail);
                    }
                    self.queue(no);
                }
                Action::Moved(no, path) => {
                    if let Some(tail) = self.tails.get_mut(&no) {
                        tail.path = path;
                        tail.is_missing_no_more();
                        self.p.files.files_rotated.inc();
                    }
                    self.queue(no);
                }
                Action::Vanished(no) => {
                    if let Some(tail) = self.tails.get_mut(&no) {
                        tail.vanished = true;
                        tail.retry_at = None;
                    }
                    self.queue(no);
                }
                Action::Gone(no) => {
                    if let Some(tail) = self.tails.get_mut(&no) {
                        tail.gone_since = Some(now);
                        tail.moved_at = Some(now);
                    }
                    self.queue(no);
                }
                Action::Deselected(no) => self.end_here(no, now),
                Action::Reselected(no) => self.go_on(no),
                Action::LetGo(no) => _ = self.end(no),
                Action::Back(no) => {
                    if let Some(tail) = self.tails.get_mut(&no) {
                        tail.gone_since = None;
                    }
                    self.go_on(no);
                }
                Action::Settings(next) => self.take_over(*next),
                Action::Left(no) => {
                    if let Some(tail) = self.tails.get_mut(&no) {
                        tail.left = true;
                        // Its last lines may be there since it was read.
                        tail.at_end = false;
                    }
                    self.queue(no);
                }
                Action::IsCut(no) => self.confirm_cut(no, now),
                Action::Copied(no, copy) => self.go_on_in(no, *copy, now),
                Action::Lost(no) => self.lose(no),
                Action::After(no, before) => self.wait_for(no, before, now),
                Action::Begin(no) => self.begin(no),
                Action::Looked(no) => {
                    let tail = self.tails.get_mut(&no);
                    if let Some(asked) = tail.and_then(|t| t.asked_after.as_mut()) {
                        asked.answered = Some(asked.at);
                    }
                }
            }
        }
        while let Ok(no) = self.p.dirty.try_recv() {
            if let Some(tail) = self.tails.get_mut(&no) {
                tail.shared.dirty.store(false, Ordering::Release);
                tail.active_at = now;
                self.queue(no);
            }
        }
    }

    /// Notes that a file is read after another one. What waited for that comes after both.
    fn follow(&mut self, no: FileNo, before: FileNo, now: Mono) {
        let waited = self.followers.insert(before, no).filter(|n| *n != no);
        if let Some(next) = waited
            && let Some(t) = self.tails.get_mut(&next)
            && t.after == Some(before)
        {
            (t.after, t.predecessor) = (Some(no), Some(no));
            self.followers.insert(no, next);
        }
        // Its place was taken, whether that was noticed or not: what it got until now, and late
        // lines, come first.
        if let Some(t) = self.tails.get_mut(&before) {
            t.moved_at.get_or_insert(now);
        }
    }

    fn queue(&mut self, no: FileNo) {
        if let Some(tail) = self.tails.get_mut(&no)
            && !std::mem::replace(&mut tail.queued, true)
        {
            self.ready.push_back(no);
        }
    }

    /// Has a turn of the file by `at`. What it waits for besides is found out in that turn again,
    /// so the earliest time is all that is kept: else each turn would leave one more timer behind.
    fn look_again(&mut self, no: FileNo, at: Mono) {
        let Some(tail) = self.tails.get_mut(&no) else {
            return;
        };
        if tail.look_at.is_none_or(|earlier| at < earlier) {
            if let Some(later) = tail.look_at.replace(at) {
                self.timers.remove(&(later, no));
            }
            self.timers.insert((at, no), ());
        }
    }

    fn take_timers(&mut self, now: Mono) {
        while let Some((&(at, no), ())) = self.timers.first_key_value() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            if let Some(tail) = self.tails.get_mut(&no) {
                tail.look_at = None;
            }
            self.queue(no);
        }
    }

    /// One turn of one file.
    fn turn(&mut self, no: FileNo, cx: &mut dyn SourceCx) -> Turn {
        let now = cx.now();
        let Some(tail) = self.tails.get_mut(&no) else {
            return Turn::Rest;
        };
        match tail.hold {
            Hold::None | Hold::Ask => {}
            // The catalog has the word.
            Hold::Asked | Hold::Cut | Hold::LetGo => return Turn::Blocked,
            Hold::Lost => {
                self.end_lost(no);
                return Turn::Blocked;
            }
        }
        if tail.retry_at.is_some_and(|at| at > now) {
            return Turn::Rest;
        }
        if self.waits_for_earlier(no, now) {
            return Turn::Blocked;
        }
        let Some(tail) = self.tails.get_mut(&no) else {
            return Turn::Rest;
        };
        // One that others wait for, or a line that is held, is read however many are open: what waits
        // for it may be all that is open.
        let is_crowded = tail.file.is_none() && self.open >= self.p.settings.open_files_max;
        let needed = || self.followers.contains_key(&no) || self.p.cutter.is_held_in(no);
        if is_crowded && !needed() {
            // Whatever is closed makes the first of those that wait go on.
            if !std::mem::replace(&mut tail.waits_to_open, true) {
                self.wait_to_open.push_back(no);
            }
            self.keep_budget();
            return Turn::Blocked;
        }
        if tail.hold == Hold::Ask {
            return match self.ask(no, now) {
                Ok(turn) => turn,
                Err(e) => {
                    self.failed(no, &e, now);
                    Turn::Rest
                }
            };
        }
        let Some(tail) = self.tails.get_mut(&no) else {
            return Turn::Rest;
        };
        let scarce = cx.admission() == Admission::Scarce;
        if !tail.has_room() || (scarce && !tail.window.is_empty()) {
            return Turn::Blocked;
        }
        if tail.waits_for_mark {
            return Turn::Blocked;
        }
        // A line that is held may go on behind it.
        if tail.is_past_end() && !self.p.cutter.is_held_in(no) {
            tail.reached_end(now);
            return Turn::Rest;
        }
        let max = if scarce && !tail.long_record {
            SCARCE_READ_BYTES.min(tail.read_bytes)
        } else {
            tail.read_bytes
        };
        match self.read(no, max, now) {
            Ok(Got::Cut(cut)) => self.emit_or_hold(no, cut, cx),
            Ok(Got::Nothing) if self.is_held(no) => Turn::Blocked,
            // Nothing could be cut, but there is more: a longer buffer, or beyond a hole.
            Ok(Got::Nothing) if self.has_more(no) => Turn::More,
            Ok(Got::Nothing | Got::Locked) => Turn::Rest,
            Err(e) => {
                self.failed(no, &e, now);
                Turn::Rest
            }
        }
    }

    fn is_held(&self, no: FileNo) -> bool {
        self.tails.get(&no).is_some_and(|t| t.hold != Hold::None)
    }

    fn has_more(&self, no: FileNo) -> bool {
        self.tails
            .get(&no)
            .is_some_and(|t| !t.at_end && t.file.is_some())
    }

    fn failed(&mut self, no: FileNo, e: &std::io::Error, now: Mono) {
        let Some(tail) = self.tails.get_mut(&no) else {
            return;
        };
        self.p.files.file_errors.inc();
        if e.kind() == std::io::ErrorKind::InvalidData {
            // Damaged for good, as compressed content is: nothing more of it can be read.
            tail.reached_end(now);
            tracing::warn!(
                path = %tail.path.display(), error = %e, offset = tail.position.offset,
                "a file ends with damage; what is behind it is lost"
            );
            return;
        }
        let pause = tail.failed(now);
        tracing::warn!(
            path = %tail.path.display(), error = %e, offset = tail.position.offset,
            "a file cannot be read now; reading goes on from the same place"
        );
        self.look_again(no, now.after(pause));
    }

    /// Reads and cuts.
    fn read(&mut self, no: FileNo, max: usize, now: Mono) -> std::io::Result<Got> {
        if !self.reopen(no, now)? {
            return Ok(Got::Nothing);
        }
        let Some(tail) = self.tails.get_mut(&no) else {
            return Ok(Got::Nothing);
        };
        if self.p.settings.acquire_fs_lock
            && !tail
                .file
                .as_ref()
                .is_some_and(|f| f.try_lock_shared().unwrap_or(true))
        {
            let at = now.after(self.p.settings.poll_interval);
            self.look_again(no, at);
            return Ok(Got::Locked);
        }
        let chunk = tail.read(max, self.pool.take(max + TRAIL_BYTES));
        if self.p.settings.acquire_fs_lock {
            let _ = tail.file.as_ref().map(|f| f.unlock());
        }
        let chunk = chunk?;
        tail.failures = 0;
        tail.retry_at = None;
        match chunk {
            Ok(chunk) => {
                tail.at_end = chunk.at_end;
                if chunk.at_end {
                    tail.reached_end(now);
                }
                let wall = self.p.clock.wall_ns();
                let cut = self.p.cutter.cut(tail, chunk, &self.pool, now, wall)?;
                if self.p.settings.forget_pages
                    && tail.at_end
                    && let Some(Err(e)) = tail.file.as_ref().map(|f| f.forget_pages())
                {
                    tracing::debug!(path = %tail.path.display(), error = %e, "file_cache_advise");
                }
                Ok(cut.map_or(Got::Nothing, Got::Cut))
            }
            Err(buf) => {
                self.pool.put(buf);
                self.reassess(no)?;
                Ok(Got::Nothing)
            }
        }
    }

    /// Emits what was cut, or keeps it until its time mark is on disk.
    fn emit_or_hold(&mut self, no: FileNo, cut: Cut, cx: &mut dyn SourceCx) -> Turn {
        let Some(tail) = self.tails.get_mut(&no) else {
            return Turn::Rest;
        };
        let (wall, from) = (self.p.clock.wall_ns(), cut.from_offset);
        let age_max = || self.p.saver.mark_age_max(cx.now());
        if cut.wants_mark && tail.position.marks.is_stale(from, wall, age_max()) {
            let from_ns = tail.stamps_from.map_or(wall, |ns| ns.max(wall));
            tail.position.marks.add(from, from_ns);
            self.wait_for_mark(no, cut);
            return Turn::Blocked;
        }
        self.emit(no, cut, cx)
    }

    fn emit(&mut self, no: FileNo, mut cut: Cut, cx: &mut dyn SourceCx) -> Turn {
        let Some(tail) = self.tails.get_mut(&no) else {
            return Turn::Rest;
        };
        let wall = self.p.clock.wall_ns();
        self.p.cutter.stamp(tail, &mut cut, wall);
        let more = !tail.at_end;
        if cut.records == 0 && !cut.moved {
            return if more { Turn::More } else { Turn::Rest };
        }
        let amount = Amount::new(u64::from(cut.records), cut.bytes);
        if cut.replay {
            self.p.accounting.reread(amount);
            tail.owed.0 = tail.owed.0.saturating_sub(amount.records);
            tail.owed.1 = tail.owed.1.saturating_sub(amount.bytes);
            if tail.position.offset >= tail.cut_before {
                let (records, bytes) = std::mem::take(&mut tail.owed);
                self.p.accounting.replay_ended(Amount::new(records, bytes));
            }
        } else {
            let (records, bytes) = std::mem::take(&mut tail.owed);
            if records + bytes > 0 {
                // Cut differently than the first time: what is left is not owed any more.
                self.p.accounting.replay_ended(Amount::new(records, bytes));
            }
            self.p.accounting.read(amount);
        }
        self.p
            .metrics
            .accepted_log_records
            .inc_by(u64::from(cut.records));
        let joint = self.joint(no, cut.parts_of);
        let Some(tail) = self.tails.get_mut(&no) else {
            return Turn::Rest;
        };
        let by = |(id, n): (Arc<str>, u64)| (self.p.accounting.filter(&id), n);
        let under_way = UnderWay {
            position: cut.position,
            filtered: cut.filtered.into_iter().map(by).collect(),
            joint: joint.clone(),
        };
        let token = tail.window.reserve(under_way, cut.records, cut.bytes);
        let mut others = Vec::new();
        let relatives = joint.iter().flat_map(|j| &j.files);
        for other in relatives.filter(|other| **other != no) {
            if let Some(tail) = self.tails.get_mut(other) {
                let under_way = UnderWay {
                    position: tail.clean.clone(),
                    filtered: Vec::new(),
                    joint: joint.clone(),
                };
                others.push(tail.window.reserve(under_way, 0, 0));
            }
        }
        let token = token.join(others);
        token.count_dropped(DropReason::OperatorError, cut.dropped);
        let mut parts = Vec::with_capacity(cut.batches.len());
        for logs in cut.batches {
            let permit = self.p.budget.take(logs.heap_bytes());
            parts.push(Part {
                data: logs.into(),
                ack: token.clone(),
                permit,
            });
        }
        token.resolve(if parts.is_empty() {
            Outcome::Filtered
        } else {
            Outcome::Delivered
        });
        cx.emit(Batch { parts });
        if more { Turn::More } else { Turn::Rest }
    }

    /// The files whose positions pass a batch of `no` together: those of `relatives` that can move.
    fn joint(&mut self, no: FileNo, relatives: Vec<FileNo>) -> Option<Arc<Joint>> {
        let mut files = Vec::new();
        for other in relatives {
            let Some(tail) = self.tails.get_mut(&other) else {
                continue;
            };
            self.p.cutter.release(tail);
            if !tail.window.is_empty() || tail.clean.offset != tail.acked.offset {
                files.push(other);
            }
        }
        if files.is_empty() {
            return None;
        }
        files.push(no);
        Some(Arc::new(Joint { files }))
    }

    fn progress(&self, now: Mono, admitted: bool) -> Progress {
        if !self.ready.is_empty() {
            return if admitted {
                Progress::Busy
            } else {
                Progress::Idle(Some(now.after(CLOSED_PAUSE)))
            };
        }
        let timer = self.timers.first_key_value().map(|((at, _), ())| *at);
        // A held line that is overdue waits for its files to be read.
        let held = self.p.cutter.deadline();
        let held = held.map(|at| {
            if at > now {
                at
            } else {
                now.after(CLOSED_PAUSE)
            }
        });
        Progress::Idle(timer.into_iter().chain(held).min())
    }
}

impl Source for FileSource {
    fn poll(&mut self, cx: &mut dyn SourceCx) -> Progress {
        let now = cx.now();
        self.take_actions(now);
        self.take_settled();
        self.take_marked(cx);
        self.take_held(cx);
        self.take_timers(now);
        let progress = self.take_turn(now, cx);
        self.report();
        progress
    }

    fn drain(&mut self, _cx: &mut dyn SourceCx) -> bool {
        self.take_settled();
        self.ready.clear();
        self.tails.values_mut().for_each(|t| t.queued = false);
        self.tails.values().all(|t| t.window.is_empty())
    }
}

impl FileSource {
    fn take_turn(&mut self, now: Mono, cx: &mut dyn SourceCx) -> Progress {
        if cx.admission() == Admission::Closed || self.p.budget.is_exhausted() {
            return self.progress(now, false);
        }
        if let Some(no) = self.ready.pop_front() {
            if let Some(tail) = self.tails.get_mut(&no) {
                tail.queued = false;
            }
            match self.turn(no, cx) {
                Turn::More => self.queue(no),
                Turn::Rest => {
                    self.rest(no, now);
                    self.queue_follower(no, now);
                }
                Turn::Blocked => {}
            }
        }
        self.use_room();
        self.progress(now, true)
    }

    /// What was to be read after `no` has its turn as soon as that is read out.
    fn queue_follower(&mut self, no: FileNo, now: Mono) {
        let read_out = self.tails.get(&no).is_none_or(|t| t.is_read_out(now));
        if read_out && let Some(next) = self.followers.get(&no) {
            self.queue(*next);
        }
    }

    /// Numbers that all shards of the receiver add up in.
    fn report(&mut self) {
        let now = (self.open as i64, self.held_bytes.len() as i64);
        let before = std::mem::replace(&mut self.reported, now);
        if now != before {
            self.p.files.open_files.add(now.0 - before.0);
            self.p.files.files_held_deleted.add(now.1 - before.1);
        }
    }
}
