//! The duty of what was made of records and stands for them, as numbers of them do.

use std::sync::{Arc, Mutex, PoisonError};

use super::{AckSink, AckToken, Counts, DropReason, Outcome, SourceId};
use crate::client::ClientInfo;

impl AckToken {
    /// One token for what was made of the records of several tokens, as numbers of them: it is not those
    /// records, so what becomes of single items of it says nothing of them. The outcome goes to all.
    /// With each token comes the number of its records, which are all given up if the outcome says so.
    pub fn made_of(tokens: Vec<(AckToken, u32)>) -> AckToken {
        AckToken::new(Arc::new(MadeOf(Mutex::new(tokens))), 0)
    }
}

/// Passes the outcome on to the tokens of what something was made of.
struct MadeOf(Mutex<Vec<(AckToken, u32)>>);

impl MadeOf {
    fn first<T>(&self, ask: impl FnOnce(&AckToken) -> T) -> Option<T> {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.first().map(|(token, _)| ask(token))
    }
}

impl AckSink for MadeOf {
    fn settled(&self, _key: u64, outcome: Outcome, counts: &Counts) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = std::mem::take(&mut *tokens);
        let most = (0..DropReason::COUNT).max_by_key(|i| counts.dropped[*i]);
        let reason = most.filter(|i| counts.dropped[*i] > 0);
        let reason = reason.map_or(DropReason::Rejected, |i| DropReason::ALL[i]);
        for (token, records) in tokens {
            match outcome {
                Outcome::Refused => token.count_dropped(reason, records),
                Outcome::Filtered => token.count_filtered(records),
                _ => {}
            }
            token.resolve(outcome);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Told(Mutex<Vec<(u64, Outcome, u32, u32)>>);

    impl AckSink for Told {
        fn settled(&self, key: u64, outcome: Outcome, counts: &Counts) {
            let told = (key, outcome, counts.filtered, counts.dropped_total());
            self.0.lock().unwrap().push(told);
        }
        fn offers_again(&self) -> bool {
            false
        }
    }

    /// Guarantee: each source is told once, of all of its records; what became of single items of what was
    /// made of them is not told, and neither is what is offered again counted.
    #[test]
    fn the_outcome_is_that_of_all_records() {
        for (outcome, filtered, dropped) in [
            (Outcome::Delivered, [0, 0], [0, 0]),
            (Outcome::Filtered, [3, 5], [0, 0]),
            (Outcome::Refused, [0, 0], [3, 5]),
            (Outcome::Retry, [0, 0], [0, 0]),
        ] {
            let told = Arc::new(Told::default());
            let token = |key| AckToken::new(told.clone(), key);
            let made = AckToken::made_of(vec![(token(1), 3), (token(2), 5)]);
            assert!(!made.offers_again());
            made.count_dropped(DropReason::TooOld, 9);
            made.count_filtered(9);
            made.resolve(outcome);
            let want = [1, 2].map(|n| (n as u64, outcome, filtered[n - 1], dropped[n - 1]));
            assert_eq!(*told.0.lock().unwrap(), want);
        }
    }
}
