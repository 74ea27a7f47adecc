//! The duties of records that were merged.

use std::sync::{Arc, Mutex, PoisonError};

use tailwater_pipeline::ack::{AckSink, AckToken, Counts, DropReason, SourceId};
use tailwater_pipeline::client::ClientInfo;
use tailwater_pipeline::{Outcome, Permit};

use super::held::Stream;

/// The duty of one part, and how many of the records that are passed on are its own: the others of it are
/// counted as filtered already.
pub(super) struct Duty {
    pub token: AckToken,
    pub records: u32,
}

/// One token for the records of several duties. Their outcome is that of all; what becomes of single records
/// is shared out, so that none of the duties counts more than it has.
pub(super) fn merged(mut duties: Vec<Duty>) -> AckToken {
    match duties.pop() {
        None => AckToken::detached(),
        Some(only) if duties.is_empty() => only.token,
        Some(last) => {
            duties.push(last);
            AckToken::new(Arc::new(Merged(Mutex::new(duties))), 0)
        }
    }
}

struct Merged(Mutex<Vec<Duty>>);

impl Merged {
    fn first<T>(&self, of: impl FnOnce(&AckToken) -> T) -> Option<T> {
        let duties = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        duties.first().map(|duty| of(&duty.token))
    }
}

impl AckSink for Merged {
    fn settled(&self, _key: u64, outcome: Outcome, counts: &Counts) {
        let mut duties = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut duties = std::mem::take(&mut *duties);
        let mut share = |mut records: u32, count: &dyn Fn(&AckToken, u32)| {
            for duty in &mut duties {
                let n = records.min(duty.records);
                if n > 0 {
                    count(&duty.token, n);
                }
                duty.records -= n;
                records -= n;
            }
        };
        share(counts.filtered, &|token, n| token.count_filtered(n));
        for (reason, n) in DropReason::ALL.iter().zip(counts.dropped) {
            share(n, &|token, n| token.count_dropped(*reason, n));
        }
        duties.into_iter().for_each(|d| d.token.resolve(outcome));
    }

    fn offers_again(&self) -> bool {
        self.first(AckToken::offers_again).unwrap_or(true)
    }

    fn client(&self) -> Option<Arc<ClientInfo>> {
        self.first(AckToken::client).flatten()
    }

    fn source(&self, key: u64) -> SourceId {
        let own = SourceId::of(self, key);
        self.first(AckToken::source).unwrap_or(own)
    }
}

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
