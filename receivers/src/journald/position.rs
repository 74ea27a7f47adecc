//! Which cursor may be stored: that of the last entry before the first one that is not delivered.
//!
//! Entries have numbers, in the order in which they came. What was passed on together is known by the first of
//! its entries; of what operators hold back the chain knows the first.

use std::collections::{BTreeMap, VecDeque};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Positions {
    /// The number of the first entry whose cursor is known.
    first: u64,
    cursors: VecDeque<Box<str>>,
    /// The first entry of each that is under way, by its own number.
    under_way: BTreeMap<u64, u64>,
}

impl Positions {
    /// The number of the next entry.
    pub fn next(&self) -> u64 {
        self.first + self.cursors.len() as u64
    }

    /// Entries whose cursors are kept.
    pub fn len(&self) -> usize {
        self.cursors.len()
    }

    /// The next entry has this cursor.
    pub fn came(&mut self, cursor: &str) {
        self.cursors.push_back(cursor.into());
    }

    /// Something is under way of which `low` is the first entry.
    pub fn passed_on(&mut self, number: u64, low: u64) {
        self.under_way.insert(number, low);
    }

    /// It is delivered, or need not be.
    pub fn settled(&mut self, number: u64) {
        self.under_way.remove(&number);
    }

    /// The cursor that may be stored now, if it is another one than before. `held_from` is the first entry of
    /// those that operators hold back.
    pub fn advance(&mut self, held_from: Option<u64>) -> Option<Box<str>> {
        let lows = self.under_way.values().copied().chain(held_from);
        let safe = lows.min().unwrap_or(u64::MAX).min(self.next());
        let passed = usize::try_from(safe.saturating_sub(self.first)).unwrap_or(0);
        let last = self.cursors.drain(..passed).next_back();
        self.first += passed as u64;
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_that_is_not_delivered_holds_it() {
        let mut p = Positions::default();
        assert_eq!(p.advance(None), None);
        ["a", "b", "c", "d"].iter().for_each(|c| p.came(c));
        p.passed_on(1, 0);
        p.passed_on(2, 2);
        assert_eq!(p.advance(None), None);
        p.settled(2);
        assert_eq!(p.advance(None), None, "the first is under way");
        p.settled(1);
        assert_eq!(p.advance(Some(3)).as_deref(), Some("c"), "d is held back");
        assert_eq!(p.advance(Some(3)), None);
        p.passed_on(3, 3);
        assert_eq!(p.advance(None), None);
        p.settled(3);
        assert_eq!(p.advance(None).as_deref(), Some("d"));
        assert_eq!((p.next(), p.len()), (4, 0));
    }

    proptest! {
        /// Guarantee: whatever is settled in which order, a stored cursor is never behind an entry that is not
        /// delivered, never goes back, and is the last in the end.
        #[test]
        fn no_entry_is_passed(order in proptest::collection::vec((0..4usize, 1..4usize), 1..40)) {
            let mut p = Positions::default();
            let mut open: Vec<(u64, u64, u64)> = Vec::new();
            let mut stored = 0;
            for (number, (settle, entries)) in (0..).zip(order) {
                let low = p.next();
                for _ in 0..entries {
                    p.came(&p.next().to_string());
                }
                p.passed_on(number, low);
                open.push((number, low, p.next()));
                for _ in 0..settle.min(open.len()) {
                    let (number, ..) = open.remove(open.len() / 2);
                    p.settled(number);
                }
                if let Some(cursor) = p.advance(None) {
                    let after = cursor.parse::<u64>().unwrap() + 1;
                    prop_assert!(after > stored);
                    stored = after;
                }
                prop_assert!(open.iter().all(|(_, low, _)| *low >= stored));
            }
            open.iter().for_each(|(number, ..)| p.settled(*number));
            p.advance(None);
            prop_assert_eq!(p.len(), 0);
        }
    }
}
