//! How full a queue is, and who has to pause for it.

use super::options::Sizer;
use super::queue::DeliveryQueue;
use super::request::Duty;
use super::slots::Usage;
use super::stats::Load;

/// What waits by itself counts for at most this many fourths of the room.
const WAITING_FOURTHS_MAX: u64 = 3;
/// Nothing makes a queue larger than this many times its size.
const OVERFILL_MAX: u64 = 2;

impl<D: Duty> DeliveryQueue<D> {
    /// How full the queue is for those who want to add to it, see
    /// [`QueueOptions`](super::options::QueueOptions).
    ///
    /// Streams and tenants that are refused for long must not close the queue for the others. So
    /// what waits for them alone fills it at most to the point where sources go on that have
    /// nothing under way, unless the queue is twice its size.
    pub fn load(&self) -> Load {
        let all = self.usage();
        let none = Usage::default();
        let plain = self.load_of(all, none);
        if plain.used <= plain.capacity / 2 || !self.queue.enabled || !self.destination.is_open() {
            return plain;
        }
        self.load_of(all, self.waiting())
    }

    /// How full the queue is in the unit of its sizer.
    pub fn sized_load(&self) -> Load {
        let (used, capacity) = self.sized(self.usage());
        Load {
            used,
            capacity: capacity.max(1),
        }
    }

    fn usage(&self) -> Usage {
        Usage {
            requests: self.slots.len() as u64,
            items: self.items,
            bytes: self.bytes,
        }
    }

    /// What is not sent for a reason of its own: its stream or tenant was refused, or it is behind
    /// something.
    pub(super) fn waiting(&self) -> Usage {
        let mut sum = Usage::default();
        for (tenant, usage) in self.slots.usage() {
            let tenant = self.tenants.get(tenant);
            let refused = tenant.is_some_and(|t| !t.gate.is_open());
            sum.add(if refused { usage.all } else { usage.parked });
        }
        sum
    }

    fn load_of(&self, all: Usage, waiting: Usage) -> Load {
        let (used, capacity) = self.sized(all);
        let sized = count(used, self.sized(waiting).0, capacity);
        let bytes = count(all.bytes, waiting.bytes, self.queue.queue_bytes_max);
        sized.fuller(bytes)
    }

    /// A usage in the unit of the queue's sizer, and the queue's size.
    fn sized(&self, usage: Usage) -> (u64, u64) {
        let size = self.queue.queue_size;
        match (self.queue.enabled, self.queue.sizer) {
            (false, _) => (usage.requests, 1),
            (true, Sizer::Requests) => (usage.requests, size),
            (true, Sizer::Items) => (usage.items, size),
            (true, Sizer::Bytes) => (usage.bytes, size),
        }
    }
}

fn count(used: u64, waiting: u64, capacity: u64) -> Load {
    let capacity = capacity.max(1);
    if used >= capacity.saturating_mul(OVERFILL_MAX) {
        return Load { used, capacity };
    }
    let moving = used.saturating_sub(waiting);
    let used = moving + waiting.min(capacity.saturating_mul(WAITING_FOURTHS_MAX) / 4);
    Load { used, capacity }
}
