//! The shard's half: makes records of lines, runs the operators, keeps what it passed on until it is delivered,
//! and stores the cursor behind that.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tailwater_pdata::LogsBatch;
use tailwater_pipeline::checkpoint::{Checkpoint, CheckpointHandle};
use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_pipeline::{Budget, Permit, Progress, ShardHandle, Source, SourceCx};
use tailwater_telemetry::metrics::{Accounting, JournalMetrics, ReceiverMetrics};

use super::child::Lines;
use super::entry::{Entry, records};
use super::position::Positions;
use crate::input::constants::Constants;
use crate::input::kept::{Outbox, PAUSE, warn};
use crate::operators::{Chain, OperatorCx, Passed, Report};

/// Bytes of lines, entries and fields that become a batch.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_ENTRIES: usize = 256;
const BATCH_FIELDS: usize = 8192;
/// Memory of what is under way, and its number of entries: beyond it nothing more is taken.
const UNDER_WAY_BYTES: usize = 16 << 20;
const UNDER_WAY_ENTRIES: usize = 64 << 10;
/// The only log that the operators see.
const LOG: u64 = 0;

/// What a source needs.
pub struct Parts {
    /// Where lines come from.
    pub lines: Arc<Lines>,
    /// The operators.
    pub chain: Chain,
    /// `attributes` and `resource`.
    pub constants: Constants,
    /// `convert_message_bytes` and `convert_to_semantic_conventions`.
    pub message_bytes: bool,
    /// See `message_bytes`.
    pub conventions: bool,
    /// Where the cursor is stored, and under which key.
    pub store: (CheckpointHandle, Arc<[u8]>),
    /// The lane's account.
    pub account: Arc<Accounting>,
    /// What is counted of a receiver.
    pub metrics: Arc<ReceiverMetrics>,
    /// What is counted of the journal.
    pub journal: Arc<JournalMetrics>,
    /// The lane's memory.
    pub budget: Arc<Budget>,
    /// For the time at which entries are seen.
    pub clock: Arc<dyn Clock>,
    /// The receiver, for messages.
    pub id: Arc<str>,
}

/// See the module's documentation.
pub struct JournaldSource {
    p: Parts,
    outbox: Outbox,
    /// Memory of what is under way.
    under_way: Arc<Budget>,
    positions: Positions,
    /// Numbers of what was settled since.
    settled: Arc<Mutex<Vec<u64>>>,
}

impl JournaldSource {
    /// The source in `shard`.
    pub fn new(p: Parts, shard: &ShardHandle) -> JournaldSource {
        let settled: Arc<Mutex<Vec<u64>>> = Arc::default();
        let told = settled.clone();
        let waker = shard.waker.clone();
        let outbox = Outbox::new(p.account.clone(), shard.waker.clone(), move |number| {
            told.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(number);
            waker.wake();
        });
        JournaldSource {
            p,
            outbox,
            under_way: Budget::new(UNDER_WAY_BYTES),
            positions: Positions::default(),
            settled,
        }
    }

    /// Takes in what was settled, and stores the cursor that this allows.
    fn settle(&mut self) {
        let settled =
            std::mem::take(&mut *self.settled.lock().unwrap_or_else(PoisonError::into_inner));
        settled.into_iter().for_each(|n| self.positions.settled(n));
        let before = self.positions.len();
        let held = self.p.chain.held_from(LOG);
        let Some(cursor) = self.positions.advance(held) else {
            return;
        };
        let passed = (before - self.positions.len()) as u64;
        let (store, key) = &self.p.store;
        let offset = store.get(key).map_or(0, |stored| stored.offset);
        let position = Checkpoint {
            offset: offset.saturating_add(passed),
            generation: 0,
            payload: cursor.as_bytes().to_vec(),
        };
        if let Err(e) = store.put(key, position) {
            tracing::error!(receiver = %self.p.id, error = %e, "a cursor cannot be stored");
        }
    }

    /// The next entries, and the bytes of their lines.
    fn read(&mut self) -> (Vec<Entry>, usize) {
        let (mut entries, mut bytes, mut fields) = (Vec::new(), 0, 0);
        while bytes < BATCH_BYTES && entries.len() < BATCH_ENTRIES && fields < BATCH_FIELDS {
            let Some(line) = self.p.lines.pop() else {
                break;
            };
            match Entry::read(&line, self.p.message_bytes) {
                Ok(entry) => {
                    bytes += line.len();
                    fields += entry.fields.len();
                    self.positions.came(&entry.cursor);
                    entries.push(entry);
                }
                Err(problem) => {
                    self.p.journal.unreadable_entries.inc();
                    tracing::warn!(
                        receiver = %self.p.id, problem, "an entry cannot be read, and is left out"
                    );
                }
            }
        }
        (entries, bytes)
    }

    /// Makes records of the next entries and passes them on; false if there are none.
    fn take(&mut self, cx: &mut dyn SourceCx) -> bool {
        let first = self.positions.next();
        let (entries, bytes) = self.read();
        if entries.is_empty() {
            return false;
        }
        let seen_ns = self.p.clock.wall_ns();
        let constants = &self.p.constants;
        let mut batch = records(entries, first, seen_ns, constants, self.p.conventions);
        let mut operators = OperatorCx {
            source: LOG,
            lineage: LOG,
            now_ns: seen_ns,
            elapsed: elapsed(cx.now()),
            ..OperatorCx::default()
        };
        self.p.chain.process(&mut batch, &mut operators);
        let mut report = operators.report;
        warn(&report);
        let more = std::mem::take(&mut report.more);
        let batches = std::iter::once(batch).chain(more).collect();
        let covers = report.covers.iter().flatten().map(|cover| cover.offset);
        let low = covers.min().map_or(first, |low| low.min(first));
        self.pass_on(batches, report, low, bytes, cx);
        true
    }

    /// Passes on what came out of operators, whose first entry is `low`.
    fn pass_on(
        &mut self,
        batches: Vec<LogsBatch>,
        report: Report,
        low: u64,
        bytes: usize,
        cx: &mut dyn SourceCx,
    ) {
        let memory = batches.iter().map(LogsBatch::heap_bytes).sum();
        let room = [self.under_way.take(memory), self.p.budget.take(memory)];
        let Report {
            filtered, dropped, ..
        } = report;
        let kept = self
            .outbox
            .keep(batches, filtered, dropped, bytes as u64, room);
        self.p
            .metrics
            .accepted_log_records
            .inc_by(kept.amount().records);
        self.p.account.reread(kept.amount());
        self.positions.passed_on(kept.number(), low);
        self.outbox.emit(kept, &self.hold(), cx);
    }

    /// Memory of what is under way.
    fn hold(&self) -> impl Fn(usize) -> Permit + use<> {
        let budget = self.p.budget.clone();
        move |bytes| budget.take(bytes)
    }

    /// Passes on what operators have held back and is due.
    fn pass_due(&mut self, cx: &mut dyn SourceCx) {
        let mut operators = OperatorCx {
            elapsed: elapsed(cx.now()),
            ..OperatorCx::default()
        };
        let passed = self.p.chain.tick(&mut operators);
        warn(&operators.report);
        for Passed {
            covers,
            batches,
            filtered,
            dropped,
        } in passed
        {
            let low = covers.iter().map(|cover| cover.offset).min();
            let low = low.unwrap_or(self.positions.next());
            let report = Report {
                filtered,
                dropped,
                ..Report::default()
            };
            // Their bytes were counted when they came.
            self.pass_on(batches, report, low, 0, cx);
        }
    }

    fn has_room(&self) -> bool {
        !self.under_way.is_exhausted() && self.positions.len() < UNDER_WAY_ENTRIES
    }
}

/// The operators' clock.
fn elapsed(now: Mono) -> Duration {
    now.since(Mono::default())
}

impl Source for JournaldSource {
    fn poll(&mut self, cx: &mut dyn SourceCx) -> Progress {
        let now = cx.now();
        let due = self.p.chain.deadline().is_some_and(|at| at <= elapsed(now));
        if due {
            self.pass_due(cx);
        }
        let open = self.outbox.may_emit(cx);
        if open {
            self.outbox.offer_again(now, &self.hold(), cx);
        }
        let took = open && self.has_room() && self.take(cx);
        self.settle();
        if took {
            return Progress::Busy;
        }
        let pause = (!open).then(|| now.after(PAUSE));
        let held = self.p.chain.deadline().map(|at| Mono::default().after(at));
        let times = [pause, self.outbox.again_at(), held];
        Progress::Idle(times.into_iter().flatten().min())
    }

    fn drain(&mut self, _cx: &mut dyn SourceCx) -> bool {
        self.settle();
        // It is read again by who comes next: the cursor stays before it.
        for kept in self.outbox.take_back() {
            self.p.account.rewound(kept.amount());
        }
        let is_over = self.outbox.under_way() == 0 && !self.outbox.has_to_offer_again();
        if is_over {
            self.settle();
        }
        is_over
    }
}
