//! The judge of delivery: what was written against what arrived.
//!
//! Writers announce a line before they write it and confirm it afterwards, so a line that a fast
//! reader delivers in between is known. Every delivered entry is shown to
//! [`DeliveryOracle::observe`], usually by a fake server's hook. Lines carry a
//! [`crate::message`], so the oracle needs no copy of them: a few bits per line say whether it
//! arrived, and 32 bits in which form, to tell a repeat that Loki removes from one that it shows.
//!
//! All methods may be called from any thread; writers do not wait for each other.

mod report;
mod seqs;
mod tracker;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::entry::{EntryHook, EntryRef};
use crate::http::lock;
use crate::message::{self, Found};
use tracker::Tracker;

pub use report::{
    Accounted, Balance, FileReport, OracleReport, StreamReport, Totals, WriterReport,
};

/// A shared handle; clones are the same oracle.
#[derive(Clone, Default)]
pub struct DeliveryOracle {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    writers: RwLock<BTreeMap<u32, Arc<Mutex<Tracker>>>>,
    /// Entries without a message.
    foreign: AtomicU64,
    /// Damaged or well-formed messages that name a writer nobody knows.
    unknown: AtomicU64,
    /// Lines of a writer whose repeats are told apart, if not the usual number.
    remembered: Option<u64>,
}

/// How far a writer's lines have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The writer's number.
    pub writer: u32,
    /// Lines confirmed.
    pub written: u64,
    /// Those of them that arrived, repeats counted once.
    pub delivered: u64,
}

impl DeliveryOracle {
    /// An oracle that knows no writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// An oracle for long runs: it can tell a repeat that Loki removes from one that it shows
    /// among the newest `lines` lines of each writer, and not among older ones. A line costs it 4
    /// bytes for so long, and none afterwards.
    pub fn remembering(lines: u64) -> Self {
        Self {
            inner: Arc::new(Inner {
                remembered: Some(lines),
                ..Inner::default()
            }),
        }
    }

    /// Says that `writer` is about to write the lines `seqs` to `file`. The numbers of a writer
    /// count up from 0 without gaps: numbers below `seqs.start` that were never announced count
    /// as announced, and numbers announced before are not announced again.
    pub fn announce(&self, writer: u32, file: &str, seqs: Range<u64>) {
        lock(&self.tracker_or_new(writer)).announce(file, seqs);
    }

    /// Says that every line below `end` is in its file, line end included. Only such lines can be
    /// missing. Lines that were not announced cannot be confirmed.
    pub fn confirm(&self, writer: u32, end: u64) {
        lock(&self.tracker_or_new(writer)).confirm(end);
    }

    /// Says that these lines can no longer be read from any file: it was deleted or truncated.
    /// Those not delivered by the time of a report count as missing but excusable.
    pub fn removed(&self, writer: u32, seqs: Range<u64>) {
        lock(&self.tracker_or_new(writer)).removed(seqs);
    }

    /// Takes note of one delivered entry.
    pub fn observe(&self, entry: &EntryRef<'_>) {
        match message::find(entry.line) {
            Found::Foreign => {
                self.inner.foreign.fetch_add(1, Ordering::Relaxed);
            }
            Found::Corrupt { writer } => match self.tracker(writer) {
                Some(tracker) => lock(&tracker).corrupt += 1,
                None => self.count_unknown(),
            },
            Found::Valid { writer, seq } => match self.tracker(writer) {
                Some(tracker) => lock(&tracker).deliver(seq, entry),
                None => self.count_unknown(),
            },
        }
    }

    /// [`DeliveryOracle::observe`] as a hook for a fake server.
    pub fn hook(&self) -> EntryHook {
        let oracle = self.clone();
        Arc::new(move |entry| oracle.observe(entry))
    }

    /// Whether every confirmed line has been delivered, those in removed files excepted. Cheap
    /// enough to wait for in a loop.
    pub fn is_complete(&self) -> bool {
        self.trackers()
            .iter()
            .all(|(_, tracker)| lock(tracker).missing().readable == 0)
    }

    /// How far the lines of each writer have come, by number of the writer. Cheap enough for many
    /// times a second.
    pub fn progress(&self) -> Vec<Progress> {
        let of = |(writer, tracker): &(u32, Arc<Mutex<Tracker>>)| {
            let (written, delivered) = lock(tracker).progress();
            Progress {
                writer: *writer,
                written,
                delivered,
            }
        };
        self.trackers().iter().map(of).collect()
    }

    /// The state of everything. Writers are looked at one after the other, so a report made while
    /// they run is exact for each but not one instant for all.
    pub fn report(&self) -> OracleReport {
        let writers: Vec<WriterReport> = self
            .trackers()
            .iter()
            .map(|(id, tracker)| lock(tracker).report(*id))
            .collect();
        let foreign = self.inner.foreign.load(Ordering::Relaxed);
        let unknown = self.inner.unknown.load(Ordering::Relaxed);
        OracleReport {
            totals: Totals::of(&writers),
            writers,
            foreign,
            unknown,
        }
    }

    /// Compares what is missing with what the product says about it.
    pub fn balance(&self, accounted: &Accounted) -> Balance {
        Balance::of(&self.report().totals, accounted)
    }

    fn count_unknown(&self) {
        self.inner.unknown.fetch_add(1, Ordering::Relaxed);
    }

    fn tracker(&self, writer: u32) -> Option<Arc<Mutex<Tracker>>> {
        let writers = self
            .inner
            .writers
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        writers.get(&writer).cloned()
    }

    fn tracker_or_new(&self, writer: u32) -> Arc<Mutex<Tracker>> {
        if let Some(tracker) = self.tracker(writer) {
            return tracker;
        }
        let mut writers = self
            .inner
            .writers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let tracker = || match self.inner.remembered {
            Some(lines) => Arc::new(Mutex::new(Tracker::remembering(lines))),
            None => Arc::default(),
        };
        Arc::clone(writers.entry(writer).or_insert_with(tracker))
    }

    fn trackers(&self) -> Vec<(u32, Arc<Mutex<Tracker>>)> {
        let writers = self
            .inner
            .writers
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        writers
            .iter()
            .map(|(id, tracker)| (*id, Arc::clone(tracker)))
            .collect()
    }
}

impl std::fmt::Debug for DeliveryOracle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeliveryOracle").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
