//! What becomes of batches under way: positions move, files go back, accounts are settled.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{DropReason, Front, Outcome, Settled, SourceCx};
use tailwater_telemetry::metrics::{Accounting, Amount, Settlement};

use super::super::catalog::FileNo;
use super::super::position::Position;
use super::super::tail::{AskedAfter, Tail};
use super::super::under_way::{Joint, UnderWay};
use super::{CLOSED_PAUSE, Feedback, FileSource, MISSING_PAUSE};

fn count(accounting: &Accounting, s: &Settled<UnderWay>) {
    accounting.settled(Settlement {
        batch: Amount::new(u64::from(s.records), s.bytes),
        filtered_by: &s.position.filtered,
        filtered: u64::from(s.counts.filtered),
        dropped: &s.counts.dropped,
    });
}

/// Everything up to `position` is settled; what has to be saved of the file now.
fn acknowledge(tail: &mut Tail, position: Arc<Position>, wall_ns: i64) -> Position {
    let shared = &tail.shared;
    shared
        .acked_offset
        .store(position.offset, Ordering::Release);
    tail.acked = position;
    tail.position.marks.prune(tail.acked.offset);
    tail.durable(wall_ns)
}

/// The other files that batches of this one are a duty of, too.
pub(super) fn partners(tail: &Tail) -> Vec<FileNo> {
    let joint = tail.window.positions().filter_map(|u| u.joint.as_ref());
    let files = joint.flat_map(|j| &j.files).copied();
    let mut others: Vec<FileNo> = files.filter(|n| *n != tail.no).collect();
    others.sort_unstable();
    others.dedup();
    others
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

    /// Moves the position of a file over what is settled, together with those of others where they
    /// have to move together.
    pub(super) fn settle(&mut self, no: FileNo) {
        let mut todo = vec![no];
        while let Some(no) = todo.pop() {
            if let Some(joint) = self.advance(no)
                && self.pass(&joint)
            {
                todo.extend(&joint.files);
            }
        }
    }

    /// Moves the position of a file up to the next batch that is a duty of several files, which it
    /// gives if it is settled.
    fn advance(&mut self, no: FileNo) -> Option<Arc<Joint>> {
        let tail = self.tails.get_mut(&no)?;
        let mut newest = None;
        let front = tail.window.advance_while(
            |u| u.joint.is_none(),
            |s| {
                count(&self.p.accounting, &s);
                newest = Some(s.position.position);
            },
        );
        if let Some(position) = newest {
            let position = acknowledge(tail, position, self.p.clock.wall_ns());
            self.p.saver.save(&position);
        }
        let next = tail.window.front_final().and_then(|u| u.joint.clone());
        if let Front::Rewind(outcome) = front {
            self.rewind(no, outcome);
        }
        self.queue(no);
        next
    }

    /// Moves the positions of all files of `joint` over their batch, if it is the next one of each.
    fn pass(&mut self, joint: &Arc<Joint>) -> bool {
        let is_next = |no: &FileNo| {
            self.tails.get(no).is_none_or(|t| {
                t.window.front_final().is_some_and(|u| u.is_of(joint))
                    || !t.window.positions().any(|u| u.is_of(joint))
            })
        };
        if !joint.files.iter().all(is_next) {
            return false;
        }
        let mut positions = Vec::with_capacity(joint.files.len());
        for no in &joint.files {
            let Some(tail) = self.tails.get_mut(no) else {
                continue;
            };
            let mut newest = None;
            tail.window.advance_while(
                |u| u.is_of(joint),
                |s| {
                    count(&self.p.accounting, &s);
                    newest = Some(s.position.position);
                },
            );
            if let Some(position) = newest {
                positions.push(acknowledge(tail, position, self.p.clock.wall_ns()));
            }
        }
        self.p.saver.save_all(&positions);
        true
    }

    /// Something was not delivered: read again from where everything before it was.
    pub(super) fn rewind(&mut self, no: FileNo, outcome: Outcome) {
        let Some(tail) = self.tails.get_mut(&no) else {
            return;
        };
        let partners = partners(tail);
        let (records, bytes) = tail.window.clear();
        self.p.accounting.rewound(Amount::new(records, bytes));
        if outcome == Outcome::Lost {
            tracing::error!(path = %tail.path.display(), records, "records were dropped without a decision; they are read again");
        }
        tail.owed = (tail.owed.0 + records, tail.owed.1 + bytes);
        tail.go_back();
        // Parts of its first line may be in the file before it.
        tail.after = tail.predecessor;
        let others = self.p.cutter.moved(tail);
        self.forget_marked(no);
        // Parts of a line that is read again here are in these.
        let waiting = |other: &FileNo| {
            let tail = self.tails.get(other);
            tail.is_some_and(|t| t.window.positions().any(|u| u.has(no)))
        };
        let partners: Vec<FileNo> = partners.into_iter().filter(waiting).collect();
        for other in others.into_iter().chain(partners) {
            self.rewind(other, Outcome::Retry);
            self.queue(other);
        }
    }

    /// Lines that operators held back until their time was up.
    pub(super) fn take_held(&mut self, cx: &mut dyn SourceCx) {
        let now = cx.now();
        let due = self.p.cutter.deadline().filter(|at| *at <= now);
        if due.is_none_or(|at| self.rest_may_be_there(at, now)) {
            return;
        }
        let wall = self.p.clock.wall_ns();
        for passed in self.p.cutter.due(now, wall) {
            // The newest of its files: the others are let go with it.
            let owner = passed
                .covers
                .last()
                .and_then(|c| Some((c.source, self.tails.get_mut(&c.source)?)));
            let Some((no, tail)) = owner else {
                tracing::error!("a held line belongs to no file");
                continue;
            };
            let cut = self.p.cutter.held(tail, passed);
            self.emit(no, cut, cx);
        }
    }

    /// True if the rest of a line that is held may be in a file already: while reading waits, for
    /// delivery or for its turn, the time of the line goes on. It is given up only when all files
    /// it may go on in were read to their ends after `due`, those included of which no news came.
    fn rest_may_be_there(&mut self, due: Mono, now: Mono) -> bool {
        let unread = |no: &FileNo| {
            let tail = self.tails.get(no);
            tail.is_some_and(|t| t.failures == 0 && t.ended_at.is_none_or(|at| at < due))
        };
        let files = self.p.cutter.held_in();
        let unread: Vec<FileNo> = files.into_iter().filter(unread).collect();
        for no in &unread {
            self.look_again(*no, now.after(CLOSED_PAUSE));
        }
        !unread.is_empty() || self.ask_for_rest(due, now)
    }

    /// True if the catalog has not told yet that all there is of the logs of lines that are held is open.
    fn ask_for_rest(&mut self, due: Mono, now: Mono) -> bool {
        let mut asked = false;
        for no in self.p.cutter.newest_held() {
            let Some(tail) = self.tails.get_mut(&no) else {
                continue;
            };
            let before = tail.asked_after.as_deref();
            let answered = before.and_then(|a| a.answered);
            if answered.is_some_and(|at| at >= due) {
                continue;
            }
            asked = true;
            let is_asked = |a: &AskedAfter| a.at >= due && now.since(a.at) < MISSING_PAUSE;
            if !before.is_some_and(is_asked) {
                tail.asked_after = Some(Box::new(AskedAfter { at: now, answered }));
                let _ = self.p.feedback.send(Feedback::Held(no));
            }
        }
        asked
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
