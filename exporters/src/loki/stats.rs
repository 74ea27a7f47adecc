//! Counters of one exporter, read by telemetry at any time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tailwater_pipeline::DropReason;

/// What happened before requests were handed to delivery, whose counters go on from there.
#[derive(Debug, Default)]
pub struct LokiStats {
    pub(super) streams_active: AtomicU64,
    pub(super) streams_created: AtomicU64,
    pub(super) truncated_lines: AtomicU64,
    pub(super) clamped_times: AtomicU64,
    pub(super) untimed_entries: AtomicU64,
    pub(super) trimmed_metadata: AtomicU64,
    pub(super) dropped_labels: AtomicU64,
    pub(super) moved_labels: AtomicU64,
    pub(super) probing_requests: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) request_raw_bytes: AtomicU64,
    pub(super) request_bytes: AtomicU64,
    pub(super) dropped: [AtomicU64; DropReason::COUNT],
}

macro_rules! readers {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        impl LokiStats {
            $($(#[$doc])* pub fn $name(&self) -> u64 {
                self.$name.load(Relaxed)
            })*
        }
    };
}

readers! {
    /// Streams that had entries lately, over all shards. A gauge.
    streams_active,
    /// Streams that became active. A counter.
    streams_created,
    /// Lines that were cut because they were too long. A counter.
    truncated_lines,
    /// Entries that got the nearest accepted time. A counter.
    clamped_times,
    /// Entries without any time, which got the time of encoding. A counter.
    untimed_entries,
    /// Pairs of structured metadata that found no room. A counter.
    trimmed_metadata,
    /// Labels of batches that found no room. A counter.
    dropped_labels,
    /// Entries with a label moved to structured metadata because there were too many streams. A
    /// counter.
    moved_labels,
    /// Requests with a stream that could be refused. A counter.
    probing_requests,
    /// Requests handed to delivery. A counter.
    requests,
    /// Their size before compression. A counter.
    request_raw_bytes,
    /// Their size. A counter.
    request_bytes,
}

impl LokiStats {
    /// Records given up here for `reason`. A counter.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize].load(Relaxed)
    }
}
