//! Counters of one delivery queue, to be read by telemetry at any time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tailwater_pipeline::{Admission, DropReason};

/// Counters and gauges of one delivery queue. Written by the queue only.
#[derive(Debug, Default)]
pub struct DeliveryStats {
    pub(super) sent_items: AtomicU64,
    pub(super) sent_requests: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) failed_attempts: AtomicU64,
    pub(super) retried_requests: AtomicU64,
    pub(super) dropped: [AtomicU64; DropReason::COUNT],
    pub(super) returned_items: AtomicU64,
    pub(super) backoff_nanos: AtomicU64,
    pub(super) in_flight_requests: AtomicU64,
    pub(super) queue_requests: AtomicU64,
    pub(super) queue_items: AtomicU64,
    pub(super) queue_bytes: AtomicU64,
    pub(super) paused_tenants: AtomicU64,
    alarm: Mutex<Option<Arc<str>>>,
}

macro_rules! readers {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        impl DeliveryStats {
            $($(#[$doc])* pub fn $name(&self) -> u64 {
                self.$name.load(Relaxed)
            })*
        }
    };
}

readers! {
    /// Records that the destination accepted. A counter.
    sent_items,
    /// Requests that the destination accepted. A counter.
    sent_requests,
    /// Bytes of bodies that the destination accepted. A counter.
    sent_bytes,
    /// Attempts that did not end in acceptance. A counter.
    failed_attempts,
    /// Attempts that will be repeated. A counter.
    retried_requests,
    /// Records handed back to their sources (at shutdown) to be offered again. A counter.
    returned_items,
    /// Requests under way now.
    in_flight_requests,
    /// Requests that are submitted and not resolved: waiting, under way, in backoff.
    queue_requests,
    /// Records in those requests.
    queue_items,
    /// Bytes of the bodies of those requests.
    queue_bytes,
    /// Tenants that wait for the end of a pause now.
    paused_tenants,
}

impl DeliveryStats {
    /// Records given up for `reason`. A counter.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize].load(Relaxed)
    }

    /// Records given up for any reason. A counter.
    pub fn dropped_items(&self) -> u64 {
        self.dropped.iter().map(|n| n.load(Relaxed)).sum()
    }

    /// Sum of all waits that were decided on. A counter.
    pub fn backoff(&self) -> Duration {
        Duration::from_nanos(self.backoff_nanos.load(Relaxed))
    }

    /// What keeps the destination from accepting data until a person acts, if anything.
    pub fn alarm(&self) -> Option<Arc<str>> {
        self.alarm.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    pub(super) fn set_alarm(&self, cause: Option<Arc<str>>) {
        *self.alarm.lock().unwrap_or_else(|e| e.into_inner()) = cause;
    }

    pub(super) fn add_dropped(&self, dropped: &[(DropReason, u64)]) {
        for (reason, n) in dropped {
            self.dropped[*reason as usize].fetch_add(*n, Relaxed);
        }
    }
}

/// How full a queue is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    /// Used, in the unit that is nearest to its limit.
    pub used: u64,
    /// The limit in that unit, at least 1.
    pub capacity: u64,
}

impl Load {
    /// What sources should do: pause at the limit, be careful above half of it.
    pub fn admission(self) -> Admission {
        if self.used >= self.capacity {
            Admission::Closed
        } else if self.used > self.capacity / 2 {
            Admission::Scarce
        } else {
            Admission::Open
        }
    }

    /// The fuller of two.
    pub(super) fn fuller(self, other: Load) -> Load {
        let share = |load: Load| load.used as f64 / load.capacity as f64;
        if share(other) > share(self) {
            other
        } else {
            self
        }
    }
}
