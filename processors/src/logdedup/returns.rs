//! Records that were passed on and came back undelivered.

use std::sync::{Arc, Mutex, PoisonError};

use tailwater_pipeline::ack::{AckSink, AckToken, Counts};
use tailwater_pipeline::{Outcome, Permit};

use super::held::Stream;

/// Records that nobody waits for, and that came back undelivered.
#[derive(Default)]
pub(super) struct Returns(Mutex<Vec<Stream>>);

impl Returns {
    /// Takes out what came back since the last time.
    pub fn take(&self) -> Vec<Stream> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A token that keeps the records until they are delivered; `permit` is for their memory.
    pub fn watch(self: &Arc<Returns>, stream: Stream, permit: Permit) -> AckToken {
        let watched = Watched {
            returns: self.clone(),
            stream: Mutex::new(Some((stream, permit))),
        };
        AckToken::new(Arc::new(watched), 0)
    }
}

struct Watched {
    returns: Arc<Returns>,
    stream: Mutex<Option<(Stream, Permit)>>,
}

impl AckSink for Watched {
    fn settled(&self, _key: u64, outcome: Outcome, _counts: &Counts) {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((stream, _)) = stream.take() else {
            return;
        };
        if !outcome.is_final() {
            let mut back = self
                .returns
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            back.push(stream);
        }
    }
}
