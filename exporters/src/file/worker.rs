//! The queue between the shards and the writing thread, and the thread.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tailwater_pipeline::clock::Clock;
use tailwater_pipeline::{AckToken, Admission, DropReason, Outcome, Permit, Wake};
use tailwater_telemetry::metrics::ExporterMetrics;

use super::rotate::LogFile;
use crate::delivery::{ItemMetrics, Load};

const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// One encoded batch.
pub(super) struct Job {
    pub bytes: Vec<u8>,
    /// Items in it: log records, data points or spans.
    records: u64,
    items: Arc<ItemMetrics>,
    /// The duties, each with the number of its items.
    duties: Vec<(AckToken, u32)>,
    _permits: Vec<Permit>,
}

impl Job {
    /// A job without bytes yet, whose items are counted in `items`.
    pub fn new(items: Arc<ItemMetrics>) -> Job {
        Job {
            bytes: Vec::new(),
            records: 0,
            items,
            duties: Vec::new(),
            _permits: Vec::new(),
        }
    }

    /// Adds the duty and the memory of a part with so many items.
    pub fn keep(&mut self, ack: AckToken, items: usize, permit: Permit) {
        self.records += items as u64;
        let items = u32::try_from(items).unwrap_or(u32::MAX);
        self.duties.push((ack, items));
        self._permits.push(permit);
    }

    /// Says what became of it.
    pub fn resolve(self, outcome: Outcome) {
        for (ack, _) in self.duties {
            ack.resolve(outcome);
        }
    }

    /// Gives it up.
    pub fn give_up(self, reason: DropReason) {
        self.items.failed().inc_by(self.records);
        for (ack, items) in self.duties {
            ack.count_dropped(reason, items);
            ack.resolve(Outcome::Refused);
        }
    }
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Bytes of jobs that are not settled, the one being written included.
    bytes: u64,
    /// Records of them.
    records: u64,
    /// Records handed back to their sources.
    returned: u64,
    /// Nothing more is taken; what is there is written if it can be at once.
    finishing: bool,
    /// Nothing more is written.
    over: bool,
    worker_gone: bool,
}

/// The jobs between shards and writer.
pub(super) struct Lines {
    state: Mutex<State>,
    changed: Condvar,
    capacity: u64,
    admission: AtomicU8,
    wakers: Mutex<Vec<Arc<dyn Wake>>>,
    metrics: Arc<ExporterMetrics>,
}

impl Lines {
    pub fn new(capacity: u64, metrics: Arc<ExporterMetrics>) -> Lines {
        Lines {
            state: Mutex::default(),
            changed: Condvar::new(),
            capacity: capacity.max(1),
            admission: AtomicU8::new(Admission::Open as u8),
            wakers: Mutex::default(),
            metrics,
        }
    }

    pub fn add_waker(&self, waker: Arc<dyn Wake>) {
        self.wakers
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .push(waker);
    }

    pub fn admission(&self) -> Admission {
        match self.admission.load(Ordering::Acquire) {
            0 => Admission::Open,
            1 => Admission::Scarce,
            _ => Admission::Closed,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn publish(&self, used: u64) {
        let now = Load {
            used,
            capacity: self.capacity,
        }
        .admission() as u8;
        if now < self.admission.swap(now, Ordering::AcqRel) {
            for waker in self.wakers.lock().unwrap_or_else(|e| e.into_inner()).iter() {
                waker.wake();
            }
        }
    }

    /// Takes a job; hands it back at once if the exporter has stopped.
    pub fn push(&self, job: Job) {
        let mut state = self.state();
        if state.finishing {
            drop(state);
            return job.resolve(Outcome::Retry);
        }
        state.bytes += job.bytes.len() as u64;
        state.records += job.records;
        state.jobs.push_back(job);
        self.publish(state.bytes);
        drop(state);
        self.changed.notify_all();
    }

    /// Nothing more is taken; what is there is written if it can be at once.
    pub fn finish(&self) {
        self.state().finishing = true;
        self.changed.notify_all();
    }

    /// Waits for the end of the writer. True if it ended within `time`.
    pub fn wait_idle(&self, time: Duration) -> bool {
        let state = self.state();
        let waited = self
            .changed
            .wait_timeout_while(state, time, |s| !s.worker_gone);
        let (mut state, _) = waited.unwrap_or_else(|e| e.into_inner());
        state.over = true;
        state.worker_gone
    }

    /// Hands back what was not written. Returns the records handed back, and those in the hands of
    /// a writer that hangs.
    pub fn hand_back(&self) -> u64 {
        let mut state = self.state();
        state.over = true;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        for job in jobs {
            self.settle(job, Outcome::Retry);
        }
        let state = self.state();
        state.returned + state.records
    }

    fn settle(&self, job: Job, outcome: Outcome) {
        let mut state = self.state();
        state.bytes -= job.bytes.len() as u64;
        state.records -= job.records;
        if outcome == Outcome::Retry {
            state.returned += job.records;
        }
        self.publish(state.bytes);
        drop(state);
        if outcome == Outcome::Delivered {
            job.items.sent().inc_by(job.records);
            self.metrics.sent_bytes.inc_by(job.bytes.len() as u64);
        }
        job.resolve(outcome);
    }

    /// The next job to write; `None` when the exporter stops and nothing is left.
    fn next(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            if state.over {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.finishing {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
        }
    }

    /// Waits before another try. False if there shall be none, as the exporter stops.
    fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.state();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if state.over || state.finishing {
                return false;
            }
            if left.is_zero() {
                return true;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(|e| e.into_inner()).0;
        }
    }
}

/// Says that the thread is gone, however it ended.
struct Gone<'a>(&'a Lines);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.state().worker_gone = true;
        self.0.changed.notify_all();
    }
}

/// The writing thread.
pub(super) fn run(lines: &Lines, mut file: LogFile, clock: &dyn Clock, name: &str) {
    let _gone = Gone(lines);
    let mut wait = RETRY_MIN;
    while let Some(job) = lines.next() {
        loop {
            match file.write(&job.bytes, clock.wall_ns()) {
                Ok(()) => {
                    wait = RETRY_MIN;
                    lines.settle(job, Outcome::Delivered);
                    break;
                }
                Err(e) => {
                    lines.metrics.retries.inc();
                    tracing::warn!(exporter = name, error = %e, interval = ?wait,
                        "Exporting failed. Will retry the request after interval.");
                }
            }
            if !lines.pause(wait) {
                file.give_up_line();
                lines.settle(job, Outcome::Retry);
                break;
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
    }
    if let Err(e) = file.sync() {
        tracing::warn!(exporter = name, error = %e, "cannot sync the file");
    }
}
