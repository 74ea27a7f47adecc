//! Memory budgets in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A budget of bytes shared by threads. Taking never fails or blocks: who takes asks
/// [`Budget::is_exhausted`] first and pauses its source instead.
#[derive(Debug)]
pub struct Budget {
    used_bytes: AtomicUsize,
    limit_bytes: AtomicUsize,
    /// The budget that this one is a part of.
    whole: Option<Arc<Budget>>,
}

impl Budget {
    /// A budget of `limit_bytes`.
    pub fn new(limit_bytes: usize) -> Arc<Budget> {
        Arc::new(Budget {
            used_bytes: AtomicUsize::new(0),
            limit_bytes: AtomicUsize::new(limit_bytes),
            whole: None,
        })
    }

    /// One of `parts` equal parts: what is taken from it counts for the whole, too, but only this
    /// part is exhausted by it.
    pub fn part_of(self: &Arc<Budget>, parts: usize) -> Arc<Budget> {
        Arc::new(Budget {
            used_bytes: AtomicUsize::new(0),
            limit_bytes: AtomicUsize::new(self.limit_bytes() / parts.max(1)),
            whole: Some(self.clone()),
        })
    }

    /// This budget and those it is a part of.
    fn chain(&self) -> impl Iterator<Item = &Budget> {
        std::iter::successors(Some(self), |b| b.whole.as_deref())
    }

    /// Takes `bytes` until the permit is dropped.
    pub fn take(self: &Arc<Budget>, bytes: usize) -> Permit {
        for budget in self.chain() {
            budget.used_bytes.fetch_add(bytes, Ordering::AcqRel);
        }
        Permit {
            budget: Some(self.clone()),
            bytes,
        }
    }

    /// Bytes taken now.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Acquire)
    }

    /// The limit.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes.load(Ordering::Relaxed)
    }

    /// Another limit from now on. What is taken stays taken.
    pub fn set_limit(&self, bytes: usize) {
        self.limit_bytes.store(bytes, Ordering::Relaxed);
    }

    /// True if at least the limit is taken.
    pub fn is_exhausted(&self) -> bool {
        self.used_bytes() >= self.limit_bytes()
    }
}

/// Bytes taken from a [`Budget`]; given back on drop.
#[derive(Debug, Default)]
pub struct Permit {
    budget: Option<Arc<Budget>>,
    bytes: usize,
}

impl Permit {
    /// A permit that belongs to no budget.
    pub fn none() -> Permit {
        Permit::default()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Moves up to `bytes` of this permit into another one.
    pub fn split(&mut self, bytes: usize) -> Permit {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Permit {
            budget: self.budget.clone(),
            bytes,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        for budget in self.budget.iter().flat_map(|b| b.chain()) {
            budget.used_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_once() {
        let b = Budget::new(100);
        let mut p = b.take(80);
        let q = p.split(30);
        assert_eq!((p.bytes(), q.bytes(), b.used_bytes()), (50, 30, 80));
        let r = b.take(20);
        assert!(b.is_exhausted());
        drop((p, r));
        assert_eq!(b.used_bytes(), 30);
        drop(q);
        assert_eq!(b.used_bytes(), 0);
    }

    /// Guarantee: who uses up a part leaves the others theirs, and the whole knows of all of them.
    #[test]
    fn parts_are_exhausted_each_for_itself() {
        let whole = Budget::new(100);
        let (a, b) = (whole.part_of(2), whole.part_of(2));
        let mut permit = a.take(50);
        assert!(a.is_exhausted() && !b.is_exhausted() && !whole.is_exhausted());
        let half = permit.split(25);
        let other = b.take(50);
        assert!(whole.is_exhausted());
        drop((permit, other));
        assert_eq!((a.used_bytes(), b.used_bytes()), (25, 0));
        drop(half);
        assert_eq!((a.used_bytes(), whole.used_bytes()), (0, 0));
    }
}
