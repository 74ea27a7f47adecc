//! Records that were passed on, kept until they are delivered: what comes back is offered again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tailwater_pdata::{LogsBatch, Signal};
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{
    AckSink, AckToken, Admission, Batch, Counts, DropReason, Outcome, Part, Permit, SourceCx, Wake,
};
use tailwater_telemetry::metrics::{Accounting, Amount, FilterCount, Settlement};

use crate::operators::Report;

/// How long what came back waits before it is offered again.
pub const PAUSE: Duration = Duration::from_millis(50);

/// Records that came out of operators together.
pub struct Kept {
    number: u64,
    batches: Vec<LogsBatch>,
    amount: Amount,
    filtered: Vec<(Arc<FilterCount>, u64)>,
    dropped: u32,
    /// The memory they hold.
    _room: [Permit; 2],
}

impl Kept {
    /// What they are called when they are settled.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many they are, with those that operators removed.
    pub fn amount(&self) -> Amount {
        self.amount
    }
}

/// What a source passed on in one shard.
pub struct Outbox {
    account: Arc<Accounting>,
    returns: Arc<Returns>,
    /// What came back is offered again then.
    again_at: Option<Mono>,
    next: u64,
}

struct Returns {
    again: Mutex<VecDeque<Kept>>,
    under_way: AtomicUsize,
    waker: Arc<dyn Wake>,
    /// Told the numbers of those that are settled, on any thread.
    settled: Box<dyn Fn(u64) + Send + Sync>,
}

impl Returns {
    fn again(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.again.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outbox {
    /// One that keeps `account`. `waker` is woken when something comes back, `settled` is told what need not
    /// be offered again.
    pub fn new(
        account: Arc<Accounting>,
        waker: Arc<dyn Wake>,
        settled: impl Fn(u64) + Send + Sync + 'static,
    ) -> Outbox {
        Outbox {
            account,
            returns: Arc::new(Returns {
                again: Mutex::default(),
                under_way: AtomicUsize::new(0),
                waker,
                settled: Box::new(settled),
            }),
            again_at: None,
            next: 0,
        }
    }

    /// How much was passed on and is not settled.
    pub fn under_way(&self) -> usize {
        self.returns.under_way.load(Ordering::Acquire)
    }

    /// Whether something came back.
    pub fn has_to_offer_again(&self) -> bool {
        !self.returns.again().is_empty()
    }

    /// When what came back is to be offered again.
    pub fn again_at(&self) -> Option<Mono> {
        self.again_at
    }

    /// Whether what is behind a source takes log records now.
    pub fn may_emit(&self, cx: &dyn SourceCx) -> bool {
        // What is refused would only come back.
        if cx.refuses(Signal::Logs) {
            return false;
        }
        match cx.admission_of(Signal::Logs) {
            Admission::Open => true,
            Admission::Scarce => self.under_way() == 0,
            Admission::Closed => false,
        }
    }

    /// What came out of operators, of `bytes` of text: `batches`, and how many they filtered and dropped.
    pub fn keep(
        &mut self,
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
        self.next += 1;
        Kept {
            number: self.next,
            batches: parts,
            amount: Amount::new(out as u64 + removed + dropped, bytes),
            filtered: filtered.into_iter().map(by).collect(),
            dropped: u32::try_from(dropped).unwrap_or(u32::MAX),
            _room: room,
        }
    }

    /// Passes records on. `hold` gives the memory of those that are under way.
    pub fn emit(&self, kept: Kept, hold: &dyn Fn(usize) -> Permit, cx: &mut dyn SourceCx) {
        if kept.amount.records == 0 {
            // All of it is held back; its text goes with what it becomes a part of.
            self.account.settled(Settlement {
                batch: kept.amount,
                filtered_by: &[],
                filtered: 0,
                dropped: &[],
            });
            let number = kept.number;
            drop(kept);
            return (self.returns.settled)(number);
        }
        self.returns.under_way.fetch_add(1, Ordering::AcqRel);
        let data = kept.batches.clone();
        let dropped = kept.dropped;
        let token = AckToken::new(
            Arc::new(Duty {
                account: self.account.clone(),
                returns: self.returns.clone(),
                kept: Mutex::new(Some(kept)),
            }),
            0,
        );
        token.count_dropped(DropReason::OperatorError, dropped);
        let parts = data.into_iter().map(|logs| Part {
            permit: hold(logs.heap_bytes()),
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
    pub fn offer_again(
        &mut self,
        now: Mono,
        hold: &dyn Fn(usize) -> Permit,
        cx: &mut dyn SourceCx,
    ) {
        if !self.has_to_offer_again() {
            self.again_at = None;
            return;
        }
        if now < *self.again_at.get_or_insert(now.after(PAUSE)) {
            return;
        }
        self.again_at = None;
        // What comes back at once waits for the next time.
        for kept in self.take_back() {
            self.emit(kept, hold, cx);
        }
    }

    /// Takes what came back, which is not offered again with that; what came first is first.
    pub fn take_back(&self) -> VecDeque<Kept> {
        std::mem::take(&mut *self.returns.again())
    }
}

/// Says what operators could not treat.
pub fn warn(report: &Report) {
    for e in report.errors.iter().filter(|e| !e.quiet) {
        tracing::warn!(
            operator = %e.operator, records = e.records, error = %e.first,
            "an operator could not treat some records"
        );
    }
}

/// Records in the pipelines of one lane.
struct Duty {
    account: Arc<Accounting>,
    returns: Arc<Returns>,
    /// Taken once.
    kept: Mutex<Option<Kept>>,
}

impl AckSink for Duty {
    fn settled(&self, _key: u64, outcome: Outcome, counts: &Counts) {
        let kept = self.kept.lock();
        let kept = kept.unwrap_or_else(PoisonError::into_inner).take();
        let Some(kept) = kept else { return };
        let returns = &self.returns;
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
            let number = kept.number;
            drop(kept);
            (returns.settled)(number);
            returns.under_way.fetch_sub(1, Ordering::AcqRel);
        } else {
            returns.again().push_back(kept);
            // In this order: at no moment it is nowhere.
            returns.under_way.fetch_sub(1, Ordering::AcqRel);
            returns.waker.wake();
        }
    }
}
