//! The account of an exporter: what it was handed, and what became of it.
//!
//! A receiver's account says what became of what it read, over all destinations. Behind a fan-out
//! that is not enough to see which of them gives records up, so each exporter has one as well. Its
//! bytes are those a batch holds in memory when it is handed over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tailwater_pdata::Signal;
use tailwater_telemetry::metrics::{Accounting, Amount, Settlement};

use crate::ack::{AckSink, AckToken, Counts, DropReason, Outcome};
use crate::batch::Batch;
use crate::client::ClientInfo;
use crate::clock::Mono;
use crate::component::{Admission, Exporter};

/// An exporter's half in one shard, with the account of the exporter.
pub struct Outlet {
    /// The exporter's id.
    pub key: Arc<str>,
    /// What it is handed.
    pub signal: Signal,
    /// Its half in the shard.
    pub exporter: Box<dyn Exporter>,
    /// The account, shared by the halves in all shards.
    pub account: Arc<Accounting>,
    /// Opens when what was there before it has nothing under way any more; none: nothing was.
    pub gate: Option<Arc<Gate>>,
}

/// Keeps an exporter from taking anything until the one whose place it takes is done, so that what that
/// one still has arrives first.
#[derive(Debug, Default)]
pub struct Gate(AtomicBool);

impl Gate {
    /// From now on the exporter takes what it is handed.
    pub fn open(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Outlet {
    /// How much more the exporter takes.
    pub fn admission(&self) -> Admission {
        match &self.gate {
            Some(gate) if !gate.is_open() => Admission::Closed,
            _ => self.exporter.admission(),
        }
    }

    /// Hands a batch to the exporter.
    pub fn export(&mut self, mut batch: Batch, now: Mono) {
        for part in &mut batch.parts {
            let records = u32::try_from(part.data.items()).unwrap_or(u32::MAX);
            let amount = Amount::new(u64::from(records), part.data.heap_bytes() as u64);
            let comes_again = part.ack.offers_again();
            if comes_again {
                // What was handed back before pays for itself first.
                self.account.reread(amount);
            } else {
                self.account.read(amount);
            }
            let duty = Arc::new(Handed {
                account: self.account.clone(),
                records,
                amount,
                comes_again,
                above: Mutex::new(None),
            });
            let own = AckToken::new(duty.clone(), 0);
            let above = std::mem::replace(&mut part.ack, own);
            *duty.above.lock().unwrap_or_else(|e| e.into_inner()) = Some(above);
        }
        self.exporter.export(batch, now);
    }
}

/// One part in the hands of an exporter.
struct Handed {
    account: Arc<Accounting>,
    records: u32,
    amount: Amount,
    /// What is handed back is offered again, and stays in flight until then.
    comes_again: bool,
    /// Who waits for the outcome. Taken once.
    above: Mutex<Option<AckToken>>,
}

/// An exporter that refuses or filters a part as a whole need not count it record by record. What goes
/// back to its sender does so as a whole, whatever became of single records.
fn complete(outcome: Outcome, counts: &Counts, records: u32) -> Counts {
    if !outcome.is_final() {
        let mut whole = Counts::default();
        whole.dropped[DropReason::HandedBack as usize] = records;
        return whole;
    }
    let mut counts = counts.clone();
    let uncounted = counts.filtered == 0 && counts.dropped_total() == 0;
    match outcome {
        Outcome::Filtered if uncounted => counts.filtered = records,
        Outcome::Refused if uncounted => {
            counts.dropped[DropReason::Rejected as usize] = records;
        }
        _ => {}
    }
    counts
}

impl AckSink for Handed {
    fn settled(&self, _key: u64, outcome: Outcome, counts: &Counts) {
        let above = self.above.lock().unwrap_or_else(|e| e.into_inner()).take();
        let counts = if self.comes_again && !outcome.is_final() {
            self.account.rewound(self.amount);
            counts.clone()
        } else {
            let counts = complete(outcome, counts, self.records);
            self.account.settled(Settlement {
                batch: self.amount,
                filtered_by: &[],
                filtered: u64::from(counts.filtered),
                dropped: &counts.dropped,
            });
            counts
        };
        let Some(above) = above else { return };
        above.count_filtered(counts.filtered);
        for (reason, n) in DropReason::ALL.iter().zip(counts.dropped) {
            above.count_dropped(*reason, n);
        }
        above.resolve(outcome);
    }

    fn offers_again(&self) -> bool {
        self.comes_again
    }

    fn client(&self) -> Option<Arc<ClientInfo>> {
        let above = self.above.lock().unwrap_or_else(|e| e.into_inner());
        above.as_ref().and_then(AckToken::client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ack::{AckWindow, Front, NoSink};
    use crate::batch::{LogsPart, Part};
    use crate::budget::Permit;
    use bytes::Bytes;
    use tailwater_pdata::LogsBatch;
    use tailwater_telemetry::metrics::{MetricsRegistry, Snapshot};

    /// Keeps what it gets until the test says what becomes of it.
    #[derive(Clone, Default)]
    struct Keeper(Arc<Mutex<Vec<Part>>>);

    impl Exporter for Keeper {
        fn export(&mut self, batch: Batch, _now: Mono) {
            self.0.lock().unwrap().extend(batch.parts);
        }
        fn admission(&self) -> Admission {
            Admission::Open
        }
    }

    fn outlet() -> (Outlet, Keeper) {
        let keeper = Keeper::default();
        let registry = MetricsRegistry::default();
        let account = Accounting::new(&registry, "exporter", "loki", DropReason::NAMES);
        let outlet = Outlet {
            key: "loki".into(),
            signal: Signal::Logs,
            exporter: Box::new(keeper.clone()),
            account,
            gate: None,
        };
        (outlet, keeper)
    }

    fn part(ack: AckToken) -> Part {
        let logs = LogsBatch::from_lines(Bytes::from_static(b"abcd"), &[(0, 1), (1, 1), (2, 1)]);
        let permit = Permit::none();
        LogsPart { logs, ack, permit }.into()
    }

    fn records(s: &Snapshot) -> [u64; 5] {
        s.check().unwrap();
        let sum = |parts: Vec<u64>| parts.into_iter().sum::<u64>();
        [
            s.read.records,
            s.delivered.records,
            s.in_flight.records,
            sum(s.filtered.iter().map(|f| f.1.records).collect()),
            sum(s.dropped.iter().map(|d| d.1.records).collect()),
        ]
    }

    /// Guarantee: the outcome of a part reaches the source unchanged, and the exporter's account
    /// has each record once: also what was handed back and comes again.
    #[test]
    fn outcomes_pass_through_and_are_booked_once() {
        let (mut outlet, keeper) = outlet();
        let mut window = AckWindow::new(Arc::new(NoSink), 0);
        for i in 0..3u64 {
            let token = window.reserve(i, 3, 0);
            outlet.export(Batch::of(part(token)), Mono(0));
        }
        assert_eq!(records(&outlet.account.snapshot()), [9, 0, 9, 0, 0]);
        let mut parts = keeper.0.lock().unwrap().drain(..).collect::<Vec<_>>();
        let (c, b, a) = (
            parts.pop().unwrap(),
            parts.pop().unwrap(),
            parts.pop().unwrap(),
        );
        a.ack.count_dropped(DropReason::TooOld, 1);
        a.ack.resolve(Outcome::Delivered);
        b.ack.resolve(Outcome::Refused);
        drop(c);
        assert_eq!(records(&outlet.account.snapshot()), [9, 2, 3, 0, 4]);
        let mut dropped = Vec::new();
        let front = window.advance(|s| dropped.push(s.counts.dropped_total()));
        assert_eq!(front, Front::Rewind(Outcome::Lost));
        assert_eq!(dropped, [1, 3], "what was refused without a count has one");
        let again = window.reserve(9, 3, 0);
        outlet.export(Batch::of(part(again)), Mono(0));
        let part = keeper.0.lock().unwrap().pop().unwrap();
        part.ack.resolve(Outcome::Delivered);
        assert_eq!(records(&outlet.account.snapshot()), [9, 5, 0, 0, 4]);
    }

    /// Someone who pushes: told of the fate, and offers nothing again.
    #[derive(Default)]
    struct Sender(Mutex<Vec<(Outcome, Counts)>>);

    impl AckSink for Sender {
        fn settled(&self, _key: u64, outcome: Outcome, counts: &Counts) {
            self.0.lock().unwrap().push((outcome, counts.clone()));
        }
        fn offers_again(&self) -> bool {
            false
        }
    }

    /// Guarantee: what was pushed and is handed back is out of the account at once, whether or not
    /// it comes again and however it was forked, and pays no debt of a file that was read in between.
    #[test]
    fn what_was_pushed_and_handed_back_is_not_in_flight() {
        let (mut outlet, keeper) = outlet();
        let sender = Arc::new(Sender::default());
        let mut window = AckWindow::new(Arc::new(NoSink), 0);
        let of_file = window.reserve(1, 3, 0);
        outlet.export(Batch::of(part(of_file)), Mono(0));
        drop(keeper.0.lock().unwrap().pop());
        for round in 1..4u64 {
            let token = AckToken::new(sender.clone(), 0);
            let mut branches = token.fork(2);
            outlet.export(Batch::of(part(branches.remove(0))), Mono(0));
            branches.remove(0).resolve(Outcome::Delivered);
            let part = keeper.0.lock().unwrap().pop().unwrap();
            part.ack.count_dropped(DropReason::TooOld, 1);
            part.ack.resolve(Outcome::Retry);
            assert_eq!(
                records(&outlet.account.snapshot()),
                [3 + 3 * round, 0, 3, 0, 3 * round],
                "only the file's are in flight"
            );
        }
        assert_eq!(outlet.account.snapshot().owed.records, 3);
        let told = sender.0.lock().unwrap();
        assert!(told.iter().all(|(outcome, _)| *outcome == Outcome::Retry));
        assert_eq!(told.len(), 3);
    }
}
