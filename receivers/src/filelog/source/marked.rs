//! What was cut and waits until its time mark is on disk.
//!
//! Ten thousand files that are found at once wait for their first marks together, so what happens
//! per turn here does not depend on how many wait.

use std::collections::VecDeque;

use tailwater_pipeline::checkpoint::{Ticket, TicketState};
use tailwater_pipeline::{Budget, Permit, SourceCx};

use super::super::catalog::FileNo;
use super::super::cutter::Cut;
use super::FileSource;
use std::sync::Arc;

/// See the module's documentation. In the order in which the marks were put: the store saves them in
/// that order.
#[derive(Default)]
pub(super) struct Marked(VecDeque<Waiting>);

struct Waiting {
    no: FileNo,
    cut: Cut,
    /// None if the mark could not be put: that is not waited for.
    ticket: Option<Ticket>,
    /// It counts as memory of data under way.
    _permit: Permit,
}

impl Waiting {
    /// A save that fails (a full disk) is not waited for: the store raises its alarm and goes on
    /// trying.
    fn is_over(&self) -> bool {
        let ticket = self.ticket.as_ref();
        ticket.is_none_or(|t| t.state() != TicketState::Pending)
    }
}

impl Marked {
    fn push(&mut self, no: FileNo, cut: Cut, ticket: Option<Ticket>, budget: &Arc<Budget>) {
        let bytes = cut.batches.iter().map(|b| b.heap_bytes()).sum();
        self.0.push_back(Waiting {
            no,
            cut,
            ticket,
            _permit: budget.take(bytes),
        });
    }

    /// Forgets what a file has here: it will be read again.
    fn forget(&mut self, no: FileNo) {
        self.0.retain(|w| w.no != no);
    }

    /// The next one that waits no longer.
    fn pop(&mut self) -> Option<(FileNo, Cut)> {
        let waiting = self.0.pop_front_if(|w| w.is_over())?;
        Some((waiting.no, waiting.cut))
    }
}

impl FileSource {
    /// Keeps what was cut until the mark that was added to the position of its file is on disk.
    pub(super) fn wait_for_mark(&mut self, no: FileNo, cut: Cut) {
        let Some(tail) = self.tails.get_mut(&no) else {
            return;
        };
        tail.waits_for_mark = true;
        let position = tail.durable(self.p.clock.wall_ns());
        let ticket = self.p.saver.save_durably(&position);
        self.marked.push(no, cut, ticket, &self.p.budget);
    }

    /// What waits for the mark of a file is read again.
    pub(super) fn forget_marked(&mut self, no: FileNo) {
        if let Some(tail) = self.tails.get_mut(&no)
            && std::mem::take(&mut tail.waits_for_mark)
        {
            self.marked.forget(no);
        }
    }

    /// Emits what has its time mark on disk by now.
    pub(super) fn take_marked(&mut self, cx: &mut dyn SourceCx) {
        while let Some((no, cut)) = self.marked.pop() {
            if let Some(tail) = self.tails.get_mut(&no) {
                tail.waits_for_mark = false;
            }
            self.emit(no, cut, cx);
            self.queue(no);
        }
    }
}
