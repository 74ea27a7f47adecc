//! The shard's half: makes records of messages, runs the operators, and keeps what it passed on until it
//! is delivered.

use std::sync::Arc;
use std::time::Duration;

use tailwater_pdata::LogsBatch;
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{Permit, Progress, Source, SourceCx};
use tailwater_telemetry::metrics::{Accounting, MessageMetrics};

use super::config::TextOptions;
use super::intake::{Intake, Queue, Waiting};
use super::message::Transport;
use crate::input::constants::Constants;
use crate::input::kept::{Outbox, PAUSE, warn};
use crate::operators::{Chain, OperatorCx, Passed};

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
    outbox: Outbox,
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
        let outbox = Outbox::new(account.clone(), queue.waker(), {
            let intake = intake.clone();
            move |_| intake.freed()
        });
        SyslogSource {
            queue,
            intake,
            lane,
            rules,
            chain,
            account,
            outbox,
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
        let room = [room, held];
        let kept = self
            .outbox
            .keep(batches, filtered, dropped, bytes as u64, room);
        let amount = kept.amount();
        self.intake
            .count_accepted(self.lane, transport, amount.records);
        self.account.read(amount);
        self.outbox.emit(kept, &self.hold(), cx);
        bytes
    }

    fn count_repaired(&self, transport: Transport, repaired: u64) {
        if let Some(metrics) = &self.rules.metrics[transport as usize] {
            metrics.repaired_messages.inc_by(repaired);
        }
    }

    /// Memory of what is under way.
    fn hold(&self) -> impl Fn(usize) -> Permit + use<> {
        let (intake, lane) = (self.intake.clone(), self.lane);
        move |bytes| intake.hold(lane, bytes)
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
            let kept = self.outbox.keep(batches, filtered, dropped, 0, room);
            self.account.read(kept.amount());
            self.outbox.emit(kept, &self.hold(), cx);
        }
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
        if self.outbox.may_emit(cx) {
            self.outbox.offer_again(now, &self.hold(), cx);
        } else {
            closed = self.outbox.has_to_offer_again();
        }
        while bytes < TURN_BYTES && !self.queue.is_empty() {
            if !self.outbox.may_emit(cx) {
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
        let times = [pause, self.outbox.again_at(), held];
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
        self.outbox.offer_again(cx.now(), &self.hold(), cx);
        let is_read = self.intake.is_closed() && self.queue.is_empty();
        if is_read && self.chain.deadline().is_some() {
            self.pass_due(elapsed(cx.now()) + AT_THE_END, cx);
        }
        is_read
            && self.chain.deadline().is_none()
            && !self.outbox.has_to_offer_again()
            && self.outbox.under_way() == 0
    }
}
