//! Saving off the data threads: puts go to memory and return, a thread of its own commits.
//!
//! [`CheckpointHandle`]s are what receivers use. [`WriterCore`] decides when to commit and does
//! it, without a thread and with the time as an argument; [`CheckpointWriter`] is a thread around
//! it. A commit happens at once when something waits for it ([`CheckpointHandle::put_durable`],
//! [`CheckpointHandle::flush`]) and otherwise at most once per interval; everything that came
//! in meanwhile is in it, so waiting ones share their `fdatasync`. The latest value of a key wins:
//! memory is that of the live keys, whatever the rate of puts.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::OpenReport;
use super::disk::lock;
use super::store::{Alarm, CheckpointStore, CommitReport, StoreStats, copy_prefix};
use super::table::{Changes, Checkpoint, PutError, Table};
use crate::clock::{Clock, Mono};
use crate::component::Wake;

/// The rate of bytes is kept over this time.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// When to commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriterOptions {
    /// Commits nobody waits for are at least this far apart; also the first pause after a failed
    /// commit. Default 1 s.
    pub interval: Duration,
    /// The pause doubles with each further failure up to this. Default 8 s.
    pub retry_interval_max: Duration,
    /// Commits are so rare that no more than this is written per second in the long run, except
    /// for what somebody waits for (see [`CheckpointHandle::overdrawn`]), and for keys that would
    /// not be saved for 90 s because of that. Default 64 KiB, at most one second's worth at once.
    pub bytes_per_second_max: u64,
}

/// However much was written, the next commit is not later than this.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// No key waits longer for being saved, whatever others wait for.
const UNSAVED_MAX: Duration = Duration::from_secs(90);
/// How often it is noted how far changes are.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

impl Default for WriterOptions {
    fn default() -> Self {
        let (interval, retry_interval_max) = (Duration::from_secs(1), Duration::from_secs(8));
        WriterOptions {
            interval,
            retry_interval_max,
            bytes_per_second_max: 64 << 10,
        }
    }
}

/// How far the saving of a batch is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TicketState {
    /// Not on disk yet.
    Pending,
    /// On disk.
    Durable,
    /// Saving failed at least once (the alarm says why) and is tried again and again. Who waits
    /// may go on: nothing is lost unless the process ends before a later attempt succeeds.
    Failing,
    /// The writer has ended without saving it.
    Abandoned,
}

/// Tells when a batch is on disk.
#[derive(Clone, Debug)]
pub struct Ticket(Arc<AtomicU8>);

const STATES: [TicketState; 4] = [
    TicketState::Pending,
    TicketState::Durable,
    TicketState::Failing,
    TicketState::Abandoned,
];

impl Ticket {
    /// How far it is.
    pub fn state(&self) -> TicketState {
        STATES[usize::from(self.0.load(Ordering::Acquire)) % STATES.len()]
    }
}

/// A ticket and who to wake when its state changes.
struct Waiter {
    state: Arc<AtomicU8>,
    wake: Option<Arc<dyn Wake>>,
    /// For everything that was put before, or only for what was put as urgent.
    waits_for: Changes,
}

impl Waiter {
    fn tell(&self, state: TicketState) {
        let before = self.state.swap(state as u8, Ordering::AcqRel);
        if before != state as u8
            && let Some(wake) = &self.wake
        {
            wake.wake();
        }
    }
}

/// What handles and the writer tell each other besides the checkpoints.
#[derive(Default)]
struct Mail {
    /// Waiting for the next commit.
    waiters: Vec<Waiter>,
    /// Something was put since the writer looked.
    changed: bool,
    /// The writer is to commit what is left and end.
    stop: bool,
    /// It has ended.
    ended: bool,
    alarm: Option<Alarm>,
    stats: StoreStats,
    /// Since when there is something that is not on disk.
    unsaved_since: Option<Mono>,
    /// Time that commits took, those that failed included.
    write_time: Duration,
    /// Since when a commit is under way.
    writing_since: Option<Mono>,
    /// When the bytes of commits that did not wait for the rate are within it.
    overdrawn_until: Mono,
}

struct Shared {
    opened: OpenReport,
    table: Arc<Mutex<Table>>,
    mail: Mutex<Mail>,
    /// Signals the writer.
    work: Condvar,
    /// Signals those that wait in `flush`.
    done: Condvar,
}

impl Shared {
    fn mail(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        let mut mail = self.mail();
        if !std::mem::replace(&mut mail.changed, true) {
            self.work.notify_one();
        }
    }
}

/// How a flush ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Flush {
    /// Everything put before is on disk.
    Done,
    /// It is not, yet.
    TimedOut,
    /// Saving failed, and is tried again.
    Failing,
    /// The writer has ended without it.
    Abandoned,
}

/// Puts and reads checkpoints from any thread. Cheap to clone. No call but
/// [`CheckpointHandle::flush`] waits for the disk.
#[derive(Clone)]
pub struct CheckpointHandle(Arc<Shared>);

impl CheckpointHandle {
    /// The checkpoint of a key, saved or not.
    pub fn get(&self, key: &[u8]) -> Option<Checkpoint> {
        lock(&self.0.table).get(key).cloned()
    }

    /// All checkpoints whose keys begin with `prefix`, in order of keys.
    pub fn with_prefix(&self, prefix: &[u8]) -> Vec<(Box<[u8]>, Checkpoint)> {
        copy_prefix(&self.0.table, prefix)
    }

    /// Stores a checkpoint; it is on disk about an interval later.
    pub fn put(&self, key: &[u8], checkpoint: Checkpoint) -> Result<(), PutError> {
        let result = lock(&self.0.table).put(key, checkpoint, false);
        self.0.changed();
        result
    }

    /// Stores checkpoints that are right only together: whatever happens, the disk has all of them
    /// or none, nor a part of what an earlier call has tied to one of them. They are on disk about
    /// an interval later.
    ///
    /// # Errors
    /// The first checkpoint that is refused; the others are stored.
    pub fn put_all<'a>(
        &self,
        batch: impl IntoIterator<Item = (&'a [u8], Checkpoint)>,
    ) -> Result<(), PutError> {
        let result = lock(&self.0.table).put_all(batch);
        self.0.changed();
        result
    }

    /// Removes keys and stores checkpoints in their place: all of it or nothing, here and on disk.
    /// What is stored may be behind what was there; it makes room for others until it is put again.
    ///
    /// # Errors
    /// One of them is too long, or there is no room for all. Nothing is changed then.
    pub fn replace(
        &self,
        remove: &[Vec<u8>],
        put: &[(Vec<u8>, Checkpoint)],
    ) -> Result<(), PutError> {
        let result = lock(&self.0.table).replace(remove, put);
        self.0.changed();
        result
    }

    /// What a key belongs to is gone for good. Its checkpoint is kept for the case that it comes
    /// back, but makes room for others when the store is full, the one first that was not written
    /// for the longest time. A key that was put in this run and not released is never removed by
    /// the store itself.
    pub fn release(&self, key: &[u8]) {
        lock(&self.0.table).release(key);
    }

    /// Removes a key; false if there is none.
    pub fn remove(&self, key: &[u8]) -> bool {
        let removed = lock(&self.0.table).remove(key);
        self.0.changed();
        removed
    }

    /// Stores a batch and has it saved without delay. `wake` is woken when the ticket's state
    /// changes.
    ///
    /// # Errors
    /// The first checkpoint that is refused; those before it are stored, those after it are not.
    pub fn put_durable<'a>(
        &self,
        batch: impl IntoIterator<Item = (&'a [u8], Checkpoint)>,
        wake: Option<Arc<dyn Wake>>,
    ) -> Result<Ticket, PutError> {
        for (key, checkpoint) in batch {
            let result = lock(&self.0.table).put(key, checkpoint, true);
            result.inspect_err(|_| self.0.changed())?;
        }
        Ok(self.ticket(wake, Changes::Urgent))
    }

    /// A ticket for what was put so far.
    fn ticket(&self, wake: Option<Arc<dyn Wake>>, waits_for: Changes) -> Ticket {
        let state = Arc::new(AtomicU8::new(TicketState::Pending as u8));
        let waiter = Waiter {
            state: state.clone(),
            wake,
            waits_for,
        };
        let mut mail = self.0.mail();
        if mail.ended {
            waiter.tell(TicketState::Abandoned);
        } else {
            mail.waiters.push(waiter);
            self.0.work.notify_one();
        }
        Ticket(state)
    }

    /// Waits until everything put before is on disk, an attempt to save it has failed, or
    /// `timeout` (of real time) has passed.
    pub fn flush(&self, timeout: Duration) -> Flush {
        let ticket = self.ticket(None, Changes::All);
        let mail = self.0.mail();
        let pending = |_: &mut Mail| ticket.state() == TicketState::Pending;
        let waited = self.0.done.wait_timeout_while(mail, timeout, pending);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        match ticket.state() {
            TicketState::Durable => Flush::Done,
            TicketState::Pending => Flush::TimedOut,
            TicketState::Failing => Flush::Failing,
            TicketState::Abandoned => Flush::Abandoned,
        }
    }

    /// What was found when the store was opened: whether positions may be missing that were
    /// stored once.
    pub fn opened(&self) -> OpenReport {
        self.0.opened
    }

    /// Why the disk does not have what memory has; `None` while saving works.
    pub fn alarm(&self) -> Option<Alarm> {
        self.0.mail().alarm.clone()
    }

    /// Numbers about the store: keys as they are now, files as of the newest commit.
    pub fn stats(&self) -> StoreStats {
        let stats = self.0.mail().stats;
        lock(&self.0.table).count_into(stats)
    }

    /// How long the oldest change that is not on disk has been waiting.
    pub fn unsaved_for(&self, now: Mono) -> Duration {
        let since = self.0.mail().unsaved_since;
        since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// How long the commit that is under way has been waiting for the disk.
    pub fn writing_for(&self, now: Mono) -> Duration {
        let since = self.0.mail().writing_since;
        since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// For how long nothing should be put that somebody waits for, so that what is written for that
    /// is within the rate of bytes. Who can do with fewer of such puts keeps them rare accordingly.
    /// At most a minute.
    pub fn overdrawn(&self, now: Mono) -> Duration {
        self.0.mail().overdrawn_until.since(now)
    }

    /// Time that commits have taken so far, those that failed included.
    pub fn write_time(&self) -> Duration {
        self.0.mail().write_time
    }
}

/// Decides when to commit, and commits. Driven by one thread, or by a simulation.
pub struct WriterCore {
    store: CheckpointStore,
    shared: Arc<Shared>,
    options: WriterOptions,
    /// No commit that nobody waits for before this.
    not_before: Mono,
    /// When the bytes written so far are within the rate again.
    paid_at: Mono,
    /// No commit at all before this: the last one failed.
    retry_at: Option<Mono>,
    /// When keys that had waited for too long were saved.
    older_saved_at: Mono,
    /// Numbers of the newest change at times, about a second apart and as far back as needed.
    changes_at: VecDeque<(Mono, u64)>,
    /// Waiting for a commit that covers them.
    waiters: Vec<Waiter>,
}

impl WriterCore {
    /// Takes over a store.
    pub fn new(store: CheckpointStore, options: WriterOptions) -> (WriterCore, CheckpointHandle) {
        let shared = Arc::new(Shared {
            opened: store.opened(),
            table: store.table().clone(),
            mail: Mutex::new(Mail {
                stats: store.stats(),
                ..Mail::default()
            }),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        let handle = CheckpointHandle(shared.clone());
        let (not_before, waiters) = (Mono(0), Vec::new());
        (
            WriterCore {
                store,
                shared,
                options,
                not_before,
                paid_at: Mono(0),
                retry_at: None,
                older_saved_at: Mono(0),
                changes_at: VecDeque::new(),
                waiters,
            },
            handle,
        )
    }

    /// Commits if it is time to, and says when it wants to be called again: at the given time, or
    /// (`None`) only when something is put. A put, a ticket or a flush may come earlier than that.
    pub fn step(&mut self, now: Mono) -> Option<Mono> {
        self.take_mail();
        self.note_changes(now);
        if self.store.needs_commit() {
            self.shared.mail().unsaved_since.get_or_insert(now);
        } else if self.waiters.is_empty() {
            return None;
        }
        let due = match self.retry_at {
            Some(at) => at,
            None if self.waiters.is_empty() => self.all_at().min(self.older_at()),
            None => now,
        };
        if now < due {
            if self.retry_at.is_some() {
                self.tell(TicketState::Failing);
            }
            return Some(due);
        }
        let which = self.which(now);
        if which == Changes::Urgent && self.waiters.is_empty() {
            return Some(self.all_at().min(now.after(NOTE_INTERVAL)));
        }
        self.commit(now, which);
        let more = self.retry_at.is_some() || self.store.needs_commit();
        let next = self.all_at().min(self.older_at());
        more.then(|| self.retry_at.unwrap_or(next))
    }

    /// When everything may be committed without anybody waiting for it.
    fn all_at(&self) -> Mono {
        self.not_before.max(self.within_rate_at())
    }

    /// From when on there is less than one second's worth of bytes too much.
    fn within_rate_at(&self) -> Mono {
        Mono(self.paid_at.0.saturating_sub(RATE_WINDOW.as_nanos() as u64))
    }

    fn note_changes(&mut self, now: Mono) {
        let due = |(at, _): &(Mono, u64)| now.since(*at) >= NOTE_INTERVAL;
        if self.changes_at.back().is_none_or(due) {
            let newest = lock(&self.shared.table).sequence();
            self.changes_at.push_back((now, newest));
        }
        // The newest one that is old enough stays.
        let is_old = |(at, _): &(Mono, u64)| now.since(*at) >= UNSAVED_MAX;
        while self.changes_at.get(1).is_some_and(is_old) {
            self.changes_at.pop_front();
        }
    }

    /// When some may be committed because they have waited for too long.
    fn older_at(&self) -> Mono {
        let (noted, _) = self.changes_at.front().copied().unwrap_or_default();
        let pause = self.older_saved_at.after(NOTE_INTERVAL);
        noted.after(UNSAVED_MAX).max(pause).max(self.not_before)
    }

    /// Who waits for one mark does not pay for everybody's positions, unless they are few, or have
    /// waited for too long.
    fn which(&self, now: Mono) -> Changes {
        let whole = |waiter: &Waiter| waiter.waits_for == Changes::All;
        let all_wait = self.waiters.iter().any(whole);
        if all_wait || now >= self.within_rate_at() || self.retry_at.is_some() {
            return Changes::All;
        }
        if now < self.older_at() {
            return Changes::Urgent;
        }
        // Half of the rate is theirs, so that what is waited for gets the other half.
        let bytes_max = self.options.bytes_per_second_max / 2;
        let (_, newest) = self.changes_at.front().copied().unwrap_or_default();
        let older = lock(&self.shared.table).older_within(newest + 1, bytes_max);
        older.map_or(Changes::Urgent, Changes::Older)
    }

    /// Takes what was written off what may be written.
    fn pay(&mut self, report: &CommitReport, which: Changes, now: Mono) {
        let rate = self.options.bytes_per_second_max.max(1);
        let latest = now.after(PAUSE_MAX + RATE_WINDOW);
        let after = |at: Mono, bytes: u64| {
            let cost = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
            let cost = Duration::from_nanos(u64::try_from(cost).unwrap_or(u64::MAX));
            at.max(now).after(cost).min(latest)
        };
        // A new generation comes when four times its bytes were appended: those pay for it.
        let bytes = match report.bytes - report.generation_bytes {
            0 => report.bytes,
            appended => appended + appended / 4,
        };
        self.paid_at = after(self.paid_at, bytes);
        if which != Changes::All {
            let mut mail = self.shared.mail();
            mail.overdrawn_until = after(mail.overdrawn_until, bytes);
        }
    }

    /// Commits once more, whatever the time, and tells all that wait that there is no more to
    /// come.
    pub fn finish(mut self, now: Mono) -> CheckpointStore {
        self.shared.mail().ended = true;
        self.take_mail();
        self.commit(now, Changes::All);
        self.tell(TicketState::Abandoned);
        self.store
    }

    fn take_mail(&mut self) {
        let mut mail = self.shared.mail();
        mail.changed = false;
        self.waiters.append(&mut mail.waiters);
    }

    fn commit(&mut self, now: Mono, which: Changes) {
        self.shared.mail().writing_since = Some(now);
        let is_first = self.store.needs_rewrite();
        let result = self.store.commit_of(which);
        match &result {
            Ok(report) => {
                self.retry_at = None;
                match which {
                    Changes::All => self.not_before = now.after(self.options.interval),
                    Changes::Older(_) => self.older_saved_at = now,
                    Changes::Urgent => {}
                }
                // A process begins with a generation of its own; that is not paid for.
                if !is_first {
                    self.pay(report, which, now);
                }
            }
            Err(e) => {
                let failures = self.store.alarm().map_or(1, |alarm| alarm.failures);
                let doubled = 1u32 << (failures - 1).min(16);
                let pause = self.options.interval.saturating_mul(doubled);
                self.retry_at = Some(now.after(pause.min(self.options.retry_interval_max)));
                if failures == 1 {
                    tracing::error!(error = %e, "checkpoints cannot be saved; trying again");
                }
            }
        }
        let (stats, more) = (self.store.stats(), self.store.needs_commit());
        let before = {
            let mut mail = self.shared.mail();
            mail.stats = stats;
            mail.writing_since = None;
            if result.is_ok() {
                // What came in while the disk was busy is not older than that.
                mail.unsaved_since = more.then_some(now);
            }
            std::mem::replace(&mut mail.alarm, self.store.alarm().cloned())
        };
        if result.is_ok() && before.is_some() {
            tracing::info!("checkpoints are saved again");
        }
        self.tell(if result.is_ok() {
            TicketState::Durable
        } else {
            TicketState::Failing
        });
    }

    /// Tells all that wait; keeps those that have more to come.
    fn tell(&mut self, state: TicketState) {
        for waiter in &self.waiters {
            waiter.tell(state);
        }
        if state != TicketState::Failing {
            self.waiters.clear();
        }
        // Under the lock, so that nobody is between looking at a ticket and waiting.
        let _mail = self.shared.mail();
        self.shared.done.notify_all();
    }

    fn attempts(&self) -> u64 {
        let stats = self.store.totals();
        stats.commits + stats.failed_commits
    }

    /// Runs until it is told to stop.
    fn run(mut self, clock: &dyn Clock) {
        loop {
            let now = clock.now();
            let attempts = self.attempts();
            let next = self.step(now);
            let took = clock.now().since(now);
            let mut mail = self.shared.mail();
            if self.attempts() != attempts {
                mail.write_time += took;
            }
            if mail.stop {
                break;
            }
            // A change waits for `next` anyway; only who waits for the disk does not.
            let asleep = |mail: &mut Mail| !mail.stop && mail.waiters.is_empty();
            match next {
                Some(at) => {
                    let pause = at.since(now);
                    drop(self.shared.work.wait_timeout_while(mail, pause, asleep));
                }
                None => drop(
                    self.shared
                        .work
                        .wait_while(mail, |m| asleep(m) && !m.changed),
                ),
            }
        }
        self.finish(clock.now());
    }
}

/// The thread that saves checkpoints. Dropping it saves what is left and ends it.
pub struct CheckpointWriter {
    handle: CheckpointHandle,
    thread: Option<JoinHandle<()>>,
}

impl CheckpointWriter {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn spawn(
        store: CheckpointStore,
        clock: Arc<dyn Clock>,
        options: WriterOptions,
    ) -> io::Result<CheckpointWriter> {
        let (core, handle) = WriterCore::new(store, options);
        let run = move || core.run(&*clock);
        let thread = std::thread::Builder::new()
            .name("checkpoints".to_owned())
            .spawn(run)?;
        Ok(CheckpointWriter {
            handle,
            thread: Some(thread),
        })
    }

    /// A handle for a receiver.
    pub fn handle(&self) -> CheckpointHandle {
        self.handle.clone()
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        let shared = &self.handle.0;
        shared.mail().stop = true;
        shared.work.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoint thread panicked; its last commit may be missing");
        }
    }
}
