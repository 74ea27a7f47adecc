//! What is handed from node to node.

use tailwater_pdata::LogsBatch;

use crate::ack::{AckToken, DropReason, Outcome};
use crate::budget::Permit;

/// Records of one resource with the duty to deliver them and the memory they hold.
#[derive(Debug)]
pub struct Part {
    /// The records.
    pub logs: LogsBatch,
    /// The delivery duty.
    pub ack: AckToken,
    /// The memory.
    pub permit: Permit,
}

impl Part {
    /// Splits off the rows from `at`, duty and memory included.
    pub fn split_off(&mut self, at: usize) -> Part {
        let total = self.logs.rows().max(1);
        let tail = self.logs.split_off(at);
        let share = self.permit.bytes() * tail.rows() / total;
        Part {
            logs: tail,
            ack: self.ack.clone(),
            permit: self.permit.split(share),
        }
    }

    /// Keeps the rows for which `keep` is true and counts the others as filtered. `None` (and the
    /// duty resolved) if none is left.
    pub fn filter(mut self, keep: &[bool]) -> Option<Part> {
        let before = self.logs.rows();
        self.logs.retain_rows(keep);
        self.ack.count_filtered((before - self.logs.rows()) as u32);
        self.non_empty()
    }

    /// Keeps the rows for which `keep` is true and counts the others as dropped for `reason`.
    pub fn drop_rows(mut self, keep: &[bool], reason: DropReason) -> Option<Part> {
        let before = self.logs.rows();
        self.logs.retain_rows(keep);
        self.ack
            .count_dropped(reason, (before - self.logs.rows()) as u32);
        self.non_empty()
    }

    /// The part itself, or its duty resolved as filtered if it has no records left.
    pub fn non_empty(self) -> Option<Part> {
        if self.logs.is_empty() {
            self.ack.resolve(Outcome::Filtered);
            return None;
        }
        Some(self)
    }
}

/// The unit of hand-off between nodes: parts of possibly different origin, not copied together.
#[derive(Debug, Default)]
pub struct Batch {
    /// The parts, in order.
    pub parts: Vec<Part>,
}

impl Batch {
    /// A batch of one part.
    pub fn of(part: Part) -> Batch {
        Batch { parts: vec![part] }
    }

    /// Number of records.
    pub fn records(&self) -> usize {
        self.parts.iter().map(|p| p.logs.rows()).sum()
    }

    /// Bytes of memory it holds, as its permits say.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|p| p.permit.bytes()).sum()
    }

    /// True without records.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// `n` batches with the same records for `n` branches; the duties are forked. Text is shared,
    /// columns are copied for all but the last branch.
    pub fn fork(self, n: usize) -> Vec<Batch> {
        if n == 1 {
            return vec![self];
        }
        let mut branches: Vec<Batch> = (0..n).map(|_| Batch::default()).collect();
        for part in self.parts {
            let mut tokens = part.ack.fork(n);
            let last = tokens.pop();
            for (branch, ack) in branches.iter_mut().zip(tokens) {
                let logs = part.logs.clone();
                branch.parts.push(Part {
                    logs,
                    ack,
                    permit: Permit::none(),
                });
            }
            if let (Some(branch), Some(ack)) = (branches.last_mut(), last) {
                branch.parts.push(Part {
                    logs: part.logs,
                    ack,
                    permit: part.permit,
                });
            }
        }
        branches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use bytes::Bytes;

    fn part(lines: &[(u32, u32)], bytes: usize) -> Part {
        let logs = LogsBatch::from_lines(Bytes::from_static(b"abcdef"), lines);
        Part {
            logs,
            ack: AckToken::detached(),
            permit: Budget::new(1000).take(bytes),
        }
    }

    #[test]
    fn splitting_shares_the_duty_and_the_memory() {
        let mut a = part(&[(0, 1), (1, 1), (2, 1), (3, 1)], 100);
        let b = a.split_off(1);
        assert_eq!((a.logs.rows(), b.logs.rows()), (1, 3));
        assert_eq!((a.permit.bytes(), b.permit.bytes()), (25, 75));
        assert!(a.ack.same_as(&b.ack));
        a.ack.resolve(Outcome::Delivered);
        b.ack.resolve(Outcome::Delivered);
    }

    #[test]
    fn a_part_without_records_resolves_itself() {
        assert!(part(&[(0, 1)], 0).filter(&[false]).is_none());
    }
}
