//! What was passed on and came back undelivered.
//!
//! A processor that remembers what it passed on has to take it back where it was not delivered: its
//! sender sends the same again, and the second time there would be nothing new in it.

use std::sync::{Arc, Mutex, PoisonError};

use tailwater_pdata::otlp::Encoded;
use tailwater_pipeline::ack::{AckSink, AckToken, Counts, DropReason};
use tailwater_pipeline::{Budget, Outcome, Part, Payload, Permit};

/// Data that came back, in the order it did.
#[derive(Debug, Default)]
pub struct Returns(Mutex<Vec<Encoded>>);

impl Returns {
    /// Takes out what came back since the last time.
    pub fn take(&self) -> Vec<Encoded> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The part, with its data kept until it is known what became of it. The bytes are shared with
    /// the part, and count for `budget` for as long.
    pub fn watch(self: &Arc<Returns>, part: Part, budget: &Arc<Budget>) -> Part {
        let Payload::Encoded(data) = &part.data else {
            return part;
        };
        let watched = Watched {
            returns: self.clone(),
            _permit: budget.take(data.heap_bytes()),
            data: Mutex::new(Some((data.clone(), part.ack))),
        };
        Part {
            data: part.data,
            ack: AckToken::new(Arc::new(watched), 0),
            permit: part.permit,
        }
    }
}

struct Watched {
    returns: Arc<Returns>,
    _permit: Permit,
    /// What was passed on, and who waits for the outcome. Taken once.
    data: Mutex<Option<(Encoded, AckToken)>>,
}

impl AckSink for Watched {
    fn settled(&self, _key: u64, outcome: Outcome, counts: &Counts) {
        let data = self
            .data
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some((data, above)) = data else { return };
        if !outcome.is_final() {
            // Before the sender is told, so that it is here when it comes again.
            let mut back = self
                .returns
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            back.push(data);
        }
        above.count_filtered(counts.filtered);
        for (reason, n) in DropReason::ALL.iter().zip(counts.dropped) {
            above.count_dropped(*reason, n);
        }
        above.resolve(outcome);
    }
}
