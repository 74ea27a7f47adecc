//! The shard's half: makes records of messages, runs the operators, and keeps what it passed on until it
//! is delivered.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tailwater_pdata::{LogsBatch, Signal};
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{
    AckSink, AckToken, Admission, Batch, Counts, DropReason, Outcome, Part, Permit, Progress,
    Source, SourceCx,
};
use tailwater_telemetry::metrics::{Accounting, Amount, FilterCount, MessageMetrics, Settlement};

use super::config::TextOptions;
use super::intake::{Intake, Queue, Waiting};
use super::message::Transport;
use crate::input::constants::Constants;
use crate::operators::{Chain, OperatorCx, Passed, Report};

/// How long the source waits before it looks again whether more is admitted, and before it offers again
/// what came back.
const PAUSE: Duration = Duration::from_millis(50);
/// Bytes of text that are passed on in one turn.
const TURN_BYTES: usize = 256 << 10;
/// When everything that operators hold back is due.
const AT_THE_END: Duration = Duration::from_secs(365 * 86_400);

/// What the sources of a receiver have in common.
pub struct Rules {
    /// Of TCP and of UDP.
    pub text: [Option<TextOptions>; 2],
    /// Counters of both.
    pub metrics: [Option<Arc<MessageMetrics>>; 2],
    /// `attributes` and `resource`.
    pub constants: Constants,
}

/// See the module's documentation.
pub struct SyslogSource {
    queue: Arc<Queue>,
    intake: Arc<Intake>,
    /// The number of its lane.
    lane: usize,
    rules: Arc<Rules>,
    chain: Chain,
    account: Arc<Accounting>,
    /// What was passed on and is not settled.
    under_way: Arc<AtomicUsize>,
    /// What came back is offered again then.
    again_at: Option<Mono>,
}

/// Records that were passed on, kept until they are delivered.
pub struct Kept {
    batches: Vec<LogsBatch>,
    amount: Amount,
    filtered: Vec<(Arc<FilterCount>, u64)>,
    dropped: u32,
    /// The memory they hold.
    _room: [Permit; 2],
}

impl SyslogSource {
    /// A source of lane `lane` that keeps `account` and runs `chain`.
    pub fn new(
        queue: Arc<Queue>,
        (intake, lane): (Arc<Intake>, usize),
        rules: Arc<Rules>,
        chain: Chain,
        account: Arc<Accounting>,
    ) -> SyslogSource {
        SyslogSource {
            queue,
            intake,
            lane,
            rules,
            chain,
            account,
            under_way: Arc::default(),
            again_at: None,
        }
    }

    fn may_emit(&self, cx: &dyn SourceCx) -> bool {
        // What is refused would only come back.
        if cx.refuses(Signal::Logs) {
            return false;
        }
        match cx.admission_of(Signal::Logs) {
            Admission::Open => true,
            Admission::Scarce => self.under_way.load(Ordering::Acquire) == 0,
            Admission::Closed => false,
        }
    }

    /// Makes records of messages and passes them on. Returns the bytes of their text.
    fn take(&mut self, waiting: Waiting, cx: &mut dyn SourceCx) -> usize {
        let Waiting { chunk, room, held } = waiting;
        let transport = chunk.transport;
        let Some(options) = self.rules.text[transport as usize] else {
            return 0;
        };
        let mut repaired = 0;
        let mut batch = chunk.records(options, &self.rules.constants, &mut repaired);
        self.count_repaired(transport, repaired);
        let mut operators = OperatorCx {
            source: chunk.log,
            lineage: chunk.log,
            now_ns: chunk.seen_ns,
            elapsed: elapsed(cx.now()),
            ..OperatorCx::default()
        };
        self.chain.process(&mut batch, &mut operators);
        let mut report = operators.report;
        warn(&report);
        let more = std::mem::take(&mut report.more);
        let batches = std::iter::once(batch).chain(more).collect();
        let dropped = report.dropped;
        let bytes = chunk.text.len();
        let filtered = report.filtered;
        let kept = self.keep(batches, filtered, dropped, bytes as u64, [room, held]);
        let records = kept.amount.records;
        self.intake.count_accepted(self.lane, transport, records);
        self.account.read(kept.amount);
        self.emit(kept, cx);
        bytes
    }

    fn count_repaired(&self, transport: Transport, repaired: u64) {
        if let Some(metrics) = &self.rules.metrics[transport as usize] {
            metrics.repaired_messages.inc_by(repaired);
        }
    }

    fn keep(
        &self,
        batches: Vec<LogsBatch>,
        filtered: Vec<(Arc<str>, u64)>,
        dropped: u64,
        bytes: u64,
        room: [Permit; 2],
    ) -> Kept {
        let mut parts = Vec::with_capacity(batches.len());
        for batch in batches.into_iter().filter(|b| !b.is_empty()) {
            if batch.resource_rows.is_empty() && batch.scope_names.is_empty() {
                parts.push(batch);
            } else {
                parts.extend(batch.split_by_resource());
            }
        }
        let out: usize = parts.iter().map(LogsBatch::rows).sum();
        let removed: u64 = filtered.iter().map(|(_, n)| n).sum();
        let by = |(id, n): (Arc<str>, u64)| (self.account.filter(&id), n);
        Kept {
            batches: parts,
            amount: Amount::new(out as u64 + removed + dropped, bytes),
            filtered: filtered.into_iter().map(by).collect(),
            dropped: u32::try_from(dropped).unwrap_or(u32::MAX),
            _room: room,
        }
    }

    /// Passes on what operators have held back and is due at `elapsed`.
    fn pass_due(&mut self, elapsed: Duration, cx: &mut dyn SourceCx) {
        let mut operators = OperatorCx {
            elapsed,
            ..OperatorCx::default()
        };
        let passed = self.chain.tick(&mut operators);
        warn(&operators.report);
        for Passed {
            batches,
            filtered,
            dropped,
            ..
        } in passed
        {
            let bytes = batches.iter().map(LogsBatch::heap_bytes).sum();
            let room = [self.intake.hold(self.lane, bytes), Permit::none()];
            // Their text was counted when it came.
            let kept = self.keep(batches, filtered, dropped, 0, room);
            self.account.read(kept.amount);
            self.emit(kept, cx);
        }
    }

    fn emit(&self, kept: Kept, cx: &mut dyn SourceCx) {
        if kept.amount.records == 0 {
            // All of it is held back; its text goes with what it becomes a part of.
            self.account.settled(Settlement {
                batch: kept.amount,
                filtered_by: &[],
                filtered: 0,
                dropped: &[],
            });
            drop(kept);
            return self.intake.freed();
        }
        self.under_way.fetch_add(1, Ordering::AcqRel);
        let data = kept.batches.clone();
        let dropped = kept.dropped;
        let token = AckToken::new(
            Arc::new(Duty {
                account: self.account.clone(),
                queue: self.queue.clone(),
                intake: self.intake.clone(),
                under_way: self.under_way.clone(),
                kept: Mutex::new(Some(kept)),
            }),
            0,
        );
        token.count_dropped(DropReason::OperatorError, dropped);
        let parts = data.into_iter().map(|logs| Part {
            permit: self.intake.hold(self.lane, logs.heap_bytes()),
            data: logs.into(),
            ack: token.clone(),
        });
        let parts: Vec<Part> = parts.collect();
        token.resolve(if parts.is_empty() {
            Outcome::Filtered
        } else {
            Outcome::Delivered
        });
        cx.emit(Batch { parts });
    }

    /// Offers again what came back, if its time has come.
    fn offer_again(&mut self, now: Mono, cx: &mut dyn SourceCx) {
        if !self.queue.has_to_offer_again() {
            self.again_at = None;
            return;
        }
        if now < *self.again_at.get_or_insert(now.after(PAUSE)) {
            return;
        }
        self.again_at = None;
        // What comes back at once waits for the next time.
        let mut waiting = Vec::new();
        while let Some(kept) = self.queue.take_back() {
            waiting.push(kept);
        }
        waiting.into_iter().for_each(|kept| self.emit(kept, cx));
    }
}

/// Says what operators could not treat.
fn warn(report: &Report) {
    for e in report.errors.iter().filter(|e| !e.quiet) {
        tracing::warn!(
            operator = %e.operator, records = e.records, error = %e.first,
            "an operator could not treat some records"
        );
    }
}

/// The operators' clock.
fn elapsed(now: Mono) -> Duration {
    now.since(Mono::default())
}

impl Source for SyslogSource {
    fn poll(&mut self, cx: &mut dyn SourceCx) -> Progress {
        let now = cx.now();
        let due = |chain: &Chain| chain.deadline().is_some_and(|at| at <= elapsed(now));
        if due(&self.chain) {
            self.pass_due(elapsed(now), cx);
        }
        let mut bytes = 0;
        let mut closed = false;
        if self.may_emit(cx) {
            self.offer_again(now, cx);
        } else {
            closed = self.queue.has_to_offer_again();
        }
        while bytes < TURN_BYTES && !self.queue.is_empty() {
            if !self.may_emit(cx) {
                closed = true;
                break;
            }
            let Some(waiting) = self.queue.pop() else {
                break;
            };
            bytes += self.take(waiting, cx);
        }
        if bytes >= TURN_BYTES && !closed {
            return Progress::Busy;
        }
        let pause = closed.then(|| now.after(PAUSE));
        let held = self.chain.deadline().map(|at| Mono::default().after(at));
        let times = [pause, self.again_at, held];
        Progress::Idle(times.into_iter().flatten().min())
    }

    fn drain(&mut self, cx: &mut dyn SourceCx) -> bool {
        // What was taken in is passed on: nobody has it but this.
        let mut bytes = 0;
        while bytes < TURN_BYTES {
            let Some(waiting) = self.queue.pop() else {
                break;
            };
            bytes += self.take(waiting, cx);
        }
        self.offer_again(cx.now(), cx);
        let is_read = self.intake.is_closed() && self.queue.is_empty();
        if is_read && self.chain.deadline().is_some() {
            self.pass_due(elapsed(cx.now()) + AT_THE_END, cx);
        }
        is_read
            && self.chain.deadline().is_none()
            && !self.queue.has_to_offer_again()
            && self.under_way.load(Ordering::Acquire) == 0
    }
}

/// Records in the pipelines of one lane.
struct Duty {
    account: Arc<Accounting>,
    queue: Arc<Queue>,
    intake: Arc<Intake>,
    under_way: Arc<AtomicUsize>,
    /// Taken once.
    kept: Mutex<Option<Kept>>,
}

impl AckSink for Duty {
    fn settled(&self, _key: u64, outcome: Outcome, counts: &Counts) {
        let kept = self.kept.lock();
        let kept = kept.unwrap_or_else(PoisonError::into_inner).take();
        let Some(kept) = kept else { return };
        if outcome.is_final() {
            // Where a destination is gone there is nobody who counts.
            let uncounted = counts.filtered == 0 && counts.dropped_total() == kept.dropped;
            let gone = outcome == Outcome::Filtered && uncounted;
            let filtered = match gone {
                true => kept.batches.iter().map(|b| b.rows() as u64).sum(),
                false => u64::from(counts.filtered),
            };
            self.account.settled(Settlement {
                batch: kept.amount,
                filtered_by: &kept.filtered,
                filtered,
                dropped: &counts.dropped,
            });
            drop(kept);
            self.under_way.fetch_sub(1, Ordering::AcqRel);
            self.intake.freed();
        } else {
            self.queue.put_back(kept);
            // In this order: at no moment it is nowhere.
            self.under_way.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
