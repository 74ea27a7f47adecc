//! Sample lines of an agent that were found at the destination, by their numbers.

use std::collections::BTreeSet;

/// So many numbers are kept; smaller ones are counted.
const NUMBERS_MAX: usize = 4_096;

/// See the module's documentation. Of one process of the agent; another one begins anew.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Arrivals {
    process: u64,
    /// Those up to this number should have arrived: it was looked for them.
    due_up_to: u64,
    found: BTreeSet<u64>,
    /// Found ones that are not kept any more; all are smaller than those that are.
    former: u64,
    forgotten_up_to: u64,
}

impl Arrivals {
    /// It was looked at the destination when the agent's process said that all lines up to a number should have
    /// arrived, and these were there. A look that found out nothing is not told here.
    pub fn looked(&mut self, process: u64, due_up_to: u64, found: impl IntoIterator<Item = u64>) {
        if self.process != process {
            *self = Arrivals {
                process,
                ..Arrivals::default()
            };
        }
        self.due_up_to = self.due_up_to.max(due_up_to);
        let forgotten = self.forgotten_up_to;
        self.found
            .extend(found.into_iter().filter(|n| *n > forgotten));
        while self.found.len() > NUMBERS_MAX {
            if let Some(number) = self.found.pop_first() {
                self.forgotten_up_to = number;
                self.former += 1;
            }
        }
    }

    /// How many should have arrived, and how many of these did.
    pub fn counts(&self, process: u64) -> (u64, u64) {
        if self.process != process {
            return (0, 0);
        }
        let found = self.found.range(..=self.due_up_to).count() as u64;
        (self.due_up_to, self.former + found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_looked_for_is_not_missing() {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.counts(7), (0, 0));
        arrivals.looked(7, 3, [1, 2, 3, 4]);
        assert_eq!(arrivals.counts(7), (3, 3));
        // Found twice, and one is missing.
        arrivals.looked(7, 6, [3, 4, 6]);
        assert_eq!(arrivals.counts(7), (6, 5));
        assert_eq!(arrivals.counts(8), (0, 0));
        arrivals.looked(8, 1, []);
        assert_eq!((arrivals.counts(8), arrivals.counts(7)), ((1, 0), (0, 0)));
    }

    #[test]
    fn numbers_are_bounded_and_counts_go_on() {
        let mut arrivals = Arrivals::default();
        let many = NUMBERS_MAX as u64 + 100;
        arrivals.looked(1, many, 1..=many);
        assert_eq!(arrivals.found.len(), NUMBERS_MAX);
        arrivals.looked(1, many, 1..=many);
        assert_eq!(arrivals.counts(1), (many, many));
    }
}
