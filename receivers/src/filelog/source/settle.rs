//! What becomes of batches under way: positions move, files go back, accounts are settled.

use std::sync::atomic::Ordering;

use tailwater_pipeline::{DropReason, Front, Outcome, Settled};
use tailwater_telemetry::metrics::{Accounting, Amount, Settlement};

use super::super::catalog::FileNo;
use super::super::tail::Tail;
use super::super::under_way::UnderWay;
use super::FileSource;

fn count(accounting: &Accounting, s: &Settled<UnderWay>) {
    accounting.settled(Settlement {
        batch: Amount::new(u64::from(s.records), s.bytes),
        filtered_by: &s.position.filtered,
        filtered: u64::from(s.counts.filtered),
        dropped: &s.counts.dropped,
    });
}

impl FileSource {
    /// Takes in what was delivered: checkpoints move, blocked files go on.
    pub(super) fn take_settled(&mut self) {
        let mut bits = Vec::new();
        self.p.settled.take(|bit| bits.push(bit));
        for bit in bits {
            for no in self.bits.get(&bit).cloned().unwrap_or_default() {
                self.settle(no);
            }
        }
    }

    fn settle(&mut self, no: FileNo) {
        let Some(tail) = self.tails.get_mut(&no) else {
            return;
        };
        let accounting = &self.p.accounting;
        let mut newest = None;
        let front = tail.window.advance(|s| {
            count(accounting, &s);
            newest = Some(s.position.position);
        });
        if let Some(position) = newest {
            tail.shared
                .acked_offset
                .store(position.offset, Ordering::Release);
            tail.acked = position;
            let position = tail.durable(self.p.clock.wall_ns());
            if position.generation == tail.position.generation {
                tail.position.marks.prune(position.offset);
            }
            self.p.saver.save(&position);
        }
        if let Front::Rewind(outcome) = front {
            self.rewind(no, outcome);
        }
        self.queue(no);
    }

    /// Something was not delivered: read again from where everything before it was.
    pub(super) fn rewind(&mut self, no: FileNo, outcome: Outcome) {
        let Some(tail) = self.tails.get_mut(&no) else {
            return;
        };
        let (records, bytes) = tail.window.clear();
        self.p.accounting.rewound(Amount::new(records, bytes));
        if outcome == Outcome::Lost {
            tracing::error!(path = %tail.path.display(), records, "records were dropped without a decision; they are read again");
        }
        tail.owed = (tail.owed.0 + records, tail.owed.1 + bytes);
        tail.go_back();
        // Parts of its first line may be in the file before it.
        tail.after = tail.predecessor;
        self.marked.retain(|(n, _)| *n != no);
        for other in self.p.cutter.moved(tail) {
            self.rewind(other, Outcome::Retry);
            self.queue(other);
        }
    }

    /// Ends the account of a file that is let go: what is still under way was given up.
    pub(super) fn settle_account(&self, tail: &mut Tail) {
        let accounting = &self.p.accounting;
        let reason = DropReason::Abandoned as usize;
        let (records, bytes) = tail.window.give_up(|s| count(accounting, &s));
        accounting.dropped(reason, Amount::new(records, bytes));
        let (records, bytes) = std::mem::take(&mut tail.owed);
        accounting.owed_lost(reason, Amount::new(records, bytes));
    }
}
