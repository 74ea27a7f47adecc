//! The duties of parts that become one.

use std::sync::{Arc, Mutex, PoisonError};

use tailwater_pipeline::Outcome;
use tailwater_pipeline::ack::{AckSink, AckToken, Counts, DropReason, SourceId};
use tailwater_pipeline::client::ClientInfo;

/// The duty of one part, and how many of the records that are passed on are its own: the others of it are
/// counted as filtered already.
pub(crate) struct Duty {
    pub token: AckToken,
    pub records: u32,
}

/// One token for the records of several duties. Their outcome is that of all; what becomes of single records
/// is shared out, so that none of the duties counts more than it has.
pub(crate) fn merged(mut duties: Vec<Duty>) -> AckToken {
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
