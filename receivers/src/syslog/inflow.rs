//! What has come over a connection and is not taken yet.

use std::sync::Arc;

use tailwater_pipeline::{Budget, Permit};

/// Bytes that each connection may have.
const FREE_BYTES: usize = 16 << 10;
/// Bytes that one read may bring.
const READ_BYTES_MAX: usize = 64 << 10;

/// A buffer that grows with what comes, as far as there is room for all connections together.
pub struct Inflow {
    bytes: Vec<u8>,
    budget: Arc<Budget>,
    /// For what it has beyond [`FREE_BYTES`].
    permit: Permit,
}

impl Inflow {
    /// A buffer that grows out of `budget`, with what there is of it.
    pub fn new(budget: &Arc<Budget>, unread: Vec<u8>) -> Inflow {
        let permit = budget.take(unread.capacity().saturating_sub(FREE_BYTES));
        Inflow {
            bytes: unread,
            budget: budget.clone(),
            permit,
        }
    }

    /// What has come.
    pub fn content(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes all that has come.
    pub fn take(&mut self) -> Vec<u8> {
        self.permit = Permit::none();
        std::mem::take(&mut self.bytes)
    }

    /// Makes space for the next read. `most` bytes of content are enough for any message. False if there
    /// is no room for it.
    pub fn make_space(&mut self, most: usize) -> bool {
        if self.bytes.is_empty() && self.bytes.capacity() > READ_BYTES_MAX {
            // It was a long message.
            self.bytes = Vec::new();
            self.permit = Permit::none();
        }
        let (length, capacity) = (self.bytes.len(), self.bytes.capacity());
        // Twice of what has come: who sends much gets much.
        let enough = most.max(READ_BYTES_MAX) + 1;
        let wanted = (2 * length).clamp(FREE_BYTES, enough).max(length + 1);
        let is_tight = capacity < wanted && capacity - length < length.max(FREE_BYTES / 2);
        if !is_tight {
            return true;
        }
        let held = wanted.saturating_sub(FREE_BYTES);
        let more = held.saturating_sub(self.permit.bytes());
        let used = self.budget.used_bytes();
        if more > 0 && used.saturating_add(more) > self.budget.limit_bytes() {
            return capacity > length;
        }
        self.permit = self.budget.take(held);
        self.bytes.reserve_exact(wanted - length);
        true
    }

    /// Where the next read goes.
    pub fn space(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The first `n` bytes are taken.
    pub fn consume(&mut self, n: usize) {
        self.bytes.drain(..n);
    }
}
