//! What is handed from node to node.

use tailwater_pdata::{LogsBatch, Signal};

use crate::ack::{AckToken, Outcome};
use crate::budget::Permit;
use crate::payload::{Logs, Payload};

/// Data with the duty to deliver it and the memory it holds.
#[derive(Debug)]
pub struct Part {
    /// The data.
    pub data: Payload,
    /// The delivery duty.
    pub ack: AckToken,
    /// The memory.
    pub permit: Permit,
}

/// Log records of one resource and scope, with their duty and memory: what nodes that look at
/// records work on.
#[derive(Debug)]
pub struct LogsPart {
    /// The records.
    pub logs: LogsBatch,
    /// The delivery duty.
    pub ack: AckToken,
    /// The memory.
    pub permit: Permit,
}

impl LogsPart {
    /// Appends itself to `parts`, or one part for each resource and scope if rows have their own; duty
    /// and memory are shared out. Nearly always it is the part itself.
    pub fn split_by_resource(self, parts: &mut Vec<LogsPart>) {
        if self.logs.resource_rows.is_empty() && self.logs.scope_names.is_empty() {
            parts.push(self);
            return;
        }
        let LogsPart {
            logs,
            ack,
            mut permit,
        } = self;
        let total = logs.rows().max(1);
        let bytes = permit.bytes();
        let mut pieces = logs.split_by_resource().into_iter().peekable();
        while let Some(logs) = pieces.next() {
            if pieces.peek().is_none() {
                parts.push(LogsPart { logs, ack, permit });
                return;
            }
            let share = permit.split(bytes * logs.rows() / total);
            parts.push(LogsPart {
                logs,
                ack: ack.clone(),
                permit: share,
            });
        }
        // No piece at all: a batch without rows.
        ack.resolve(Outcome::Filtered);
    }
}

impl From<LogsPart> for Part {
    fn from(part: LogsPart) -> Part {
        Part {
            data: part.logs.into(),
            ack: part.ack,
            permit: part.permit,
        }
    }
}

impl Part {
    /// Splits off the items from `at`, duty and memory included.
    pub fn split_off(&mut self, at: usize) -> Part {
        let total = self.data.items().max(1);
        let tail = self.data.split_off(at);
        let share = self.permit.bytes() * tail.items() / total;
        Part {
            data: tail,
            ack: self.ack.clone(),
            permit: self.permit.split(share),
        }
    }

    /// The part itself, or its duty resolved as filtered if it has no items left.
    pub fn non_empty(self) -> Option<Part> {
        if self.data.is_empty() {
            self.ack.resolve(Outcome::Filtered);
            return None;
        }
        Some(self)
    }

    /// The log records in it, decoded if they are not yet. Duty and memory are shared out; a part
    /// without records resolves its duty as filtered.
    pub fn into_logs(self) -> LogsParts {
        let total = self.data.items().max(1);
        LogsParts {
            total,
            bytes: self.permit.bytes(),
            logs: self.data.into_logs(),
            duty: Some((self.ack, self.permit)),
        }
    }
}

/// The parts that [`Part::into_logs`] makes of one.
pub struct LogsParts {
    total: usize,
    bytes: usize,
    logs: Logs,
    /// Goes with the last one.
    duty: Option<(AckToken, Permit)>,
}

impl Iterator for LogsParts {
    type Item = LogsPart;

    fn next(&mut self) -> Option<LogsPart> {
        let Some(logs) = self.logs.next() else {
            if let Some((ack, _)) = self.duty.take() {
                ack.resolve(Outcome::Filtered);
            }
            return None;
        };
        if self.logs.len() == 0 {
            let (ack, permit) = self.duty.take()?;
            return Some(LogsPart { logs, ack, permit });
        }
        let (ack, permit) = self.duty.as_mut()?;
        let share = permit.split(self.bytes * logs.rows() / self.total);
        Some(LogsPart {
            logs,
            ack: ack.clone(),
            permit: share,
        })
    }
}

/// The unit of hand-off between nodes: parts of possibly different origin, not copied together, all of
/// one signal.
#[derive(Debug, Default)]
pub struct Batch {
    /// The parts, in order.
    pub parts: Vec<Part>,
}

impl Batch {
    /// A batch of one part.
    pub fn of(part: impl Into<Part>) -> Batch {
        Batch {
            parts: vec![part.into()],
        }
    }

    /// The signal of its parts; `None` without any.
    pub fn signal(&self) -> Option<Signal> {
        self.parts.first().map(|p| p.data.signal())
    }

    /// Number of items: log records, data points or spans.
    pub fn items(&self) -> usize {
        self.parts.iter().map(|p| p.data.items()).sum()
    }

    /// Bytes of memory it holds, as its permits say.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|p| p.permit.bytes()).sum()
    }

    /// True without parts.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Its log records, decoded where they are not yet.
    pub fn into_logs(self) -> impl Iterator<Item = LogsPart> {
        self.parts.into_iter().flat_map(Part::into_logs)
    }

    /// `n` batches with the same items for `n` branches; the duties are forked. Text and encoded
    /// bytes are shared, columns are copied for all but the last branch.
    pub fn fork(self, n: usize) -> Vec<Batch> {
        if n == 1 {
            return vec![self];
        }
        let mut branches: Vec<Batch> = (0..n).map(|_| Batch::default()).collect();
        for part in self.parts {
            let mut tokens = part.ack.fork(n);
            let last = tokens.pop();
            for (branch, ack) in branches.iter_mut().zip(tokens) {
                branch.parts.push(Part {
                    data: part.data.clone(),
                    ack,
                    permit: Permit::none(),
                });
            }
            if let (Some(branch), Some(ack)) = (branches.last_mut(), last) {
                branch.parts.push(Part {
                    data: part.data,
                    ack,
                    permit: part.permit,
                });
            }
        }
        branches
    }
}

impl Batch {
    /// A batch of parts that hold log records.
    pub fn of_logs(parts: impl IntoIterator<Item = LogsPart>) -> Batch {
        Batch {
            parts: parts.into_iter().map(Part::from).collect(),
        }
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
            data: logs.into(),
            ack: AckToken::detached(),
            permit: Budget::new(1000).take(bytes),
        }
    }

    #[test]
    fn splitting_shares_the_duty_and_the_memory() {
        let mut a = part(&[(0, 1), (1, 1), (2, 1), (3, 1)], 100);
        let b = a.split_off(1);
        assert_eq!((a.data.items(), b.data.items()), (1, 3));
        assert_eq!((a.permit.bytes(), b.permit.bytes()), (25, 75));
        assert!(a.ack.same_as(&b.ack));
        a.ack.resolve(Outcome::Delivered);
        b.ack.resolve(Outcome::Delivered);
    }

    #[test]
    fn a_part_without_records_resolves_itself() {
        assert!(part(&[], 0).non_empty().is_none());
    }
}
