//! `sending_queue` and `retry_on_failure`.

use std::sync::Arc;
use std::time::Duration;

/// In what the size of a queue or batch is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sizer {
    /// Requests.
    #[default]
    Requests,
    /// Records.
    Items,
    /// Bytes of bodies, as sent.
    Bytes,
}

/// `retry_on_failure`.
#[derive(Clone, PartialEq, Debug)]
pub struct RetryOptions {
    /// False: one attempt, then the request is dropped and counted as `retries_exhausted`.
    pub enabled: bool,
    /// First wait. Default 5 s.
    pub initial_interval: Duration,
    /// Jitter, 0 to 1. Default 0.5.
    pub randomization_factor: f64,
    /// Growth of the wait per failure, at least 1. Default 1.5.
    pub multiplier: f64,
    /// Longest wait before jitter. Default 30 s.
    pub max_interval: Duration,
    /// How long after its first attempt a request is given up; zero = never, which is the default
    /// (the collector's is 300 s). Files are the buffer, so giving up is a choice, not a default.
    pub max_elapsed_time: Duration,
}

impl Default for RetryOptions {
    fn default() -> RetryOptions {
        RetryOptions {
            enabled: true,
            initial_interval: Duration::from_secs(5),
            randomization_factor: 0.5,
            multiplier: 1.5,
            max_interval: Duration::from_secs(30),
            max_elapsed_time: Duration::ZERO,
        }
    }
}

/// `sending_queue::batch`. The exporter that builds requests acts on it.
#[derive(Clone, PartialEq, Debug)]
pub struct BatchOptions {
    /// Longest time a request that is not full stays open. Default 200 ms.
    pub flush_timeout: Duration,
    /// Size from which a request is sent. Default 8192 items.
    pub min_size: u64,
    /// Size that a request must not exceed; 0 = no limit but the exporter's own.
    pub max_size: u64,
    /// In what the sizes are counted; `requests` is not allowed.
    pub sizer: Sizer,
    /// `partition::metadata_keys`, in lower case: what differs in these headers of its sender does not go
    /// into one request. Data from files has none.
    pub partition: Vec<String>,
}

impl Default for BatchOptions {
    fn default() -> BatchOptions {
        BatchOptions {
            flush_timeout: Duration::from_millis(200),
            min_size: 8192,
            max_size: 0,
            sizer: Sizer::Items,
            partition: Vec::new(),
        }
    }
}

/// `sending_queue`. What counts is everything that was submitted and is not resolved: waiting,
/// under way and in backoff.
#[derive(Clone, PartialEq, Debug)]
pub struct QueueOptions {
    /// False: one request at a time, and sources pause while there is one.
    pub enabled: bool,
    /// Requests under way at the same time. Default 10.
    pub num_consumers: usize,
    /// Size at which sources pause, counted by `sizer`. Default 1000.
    pub queue_size: u64,
    /// In what `queue_size` is counted. Default requests.
    pub sizer: Sizer,
    /// Size in bytes at which sources pause, whatever `sizer` says (an option of our own).
    /// Default 8 MiB.
    pub queue_bytes_max: u64,
    /// The storage extension in whose directory the queue is; without one it is in memory.
    pub storage: Option<Arc<str>>,
    /// Size in bytes of the files of a queue on disk at which sources pause, whatever `sizer` says
    /// (an option of our own). Default 1 GiB.
    pub storage_bytes_max: u64,
    /// Batching, if the section `batch` is present.
    pub batch: Option<BatchOptions>,
}

impl Default for QueueOptions {
    fn default() -> QueueOptions {
        QueueOptions {
            enabled: true,
            num_consumers: 10,
            queue_size: 1000,
            sizer: Sizer::Requests,
            queue_bytes_max: 8 << 20,
            storage: None,
            storage_bytes_max: 1 << 30,
            batch: None,
        }
    }
}

impl QueueOptions {
    /// For the service that sends what is stored: as much as is needed to keep all consumers busy.
    pub fn sending(&self) -> QueueOptions {
        QueueOptions {
            // Half of it is filled.
            queue_size: 2 * self.num_consumers as u64 + 2,
            sizer: Sizer::Requests,
            ..self.clone()
        }
    }

    /// Requests that may be under way at the same time, at least 1.
    pub fn in_flight_max(&self) -> usize {
        if self.enabled {
            self.num_consumers.max(1)
        } else {
            1
        }
    }
}
