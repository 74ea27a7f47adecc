//! The counters of a delivery service under the names that the agent exposes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tailwater_telemetry::metrics::{ExporterMetrics, MetricsRegistry, QueueMetrics};

use super::stats::{DeliveryStats, Load};
use super::verdict::{RetryScope, Verdict};

/// Copies [`DeliveryStats`] to the agent's metrics. Called with the queue locked, so that the
/// values of one copy belong together.
pub(super) struct Mirror {
    exporter: Arc<ExporterMetrics>,
    queue: Arc<QueueMetrics>,
    copied: [AtomicU64; 4],
}

impl Mirror {
    pub fn new(registry: &MetricsRegistry, exporter: &str) -> Mirror {
        Mirror {
            exporter: ExporterMetrics::new(registry, exporter),
            queue: QueueMetrics::new(registry, exporter, "logs"),
            copied: Default::default(),
        }
    }

    /// An attempt was judged.
    pub fn attempt<D>(&self, verdict: &Verdict<D>) {
        self.exporter.requests.inc();
        let slow_down = match verdict {
            Verdict::Retry { scope, after, .. } => {
                after.is_some() || matches!(scope, RetryScope::Lanes | RetryScope::Tenant)
            }
            _ => false,
        };
        if slow_down {
            self.exporter.throttled.inc();
        }
    }

    /// Brings the metrics up to date. `load` is in the unit of the queue's sizer.
    pub fn copy(&self, stats: &DeliveryStats, load: Load, stalled: Duration) {
        let m = &self.exporter;
        let counters = [
            (stats.sent_items(), &m.sent_log_records),
            (stats.dropped_items(), &m.send_failed_log_records),
            (stats.sent_bytes(), &m.sent_bytes),
            (stats.retried_requests(), &m.retries),
        ];
        for ((now, counter), copied) in counters.into_iter().zip(&self.copied) {
            counter.inc_by(now.saturating_sub(copied.swap(now, Relaxed)));
        }
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        m.in_flight_requests.set(gauge(stats.in_flight_requests()));
        m.stalled_seconds.set(stalled.as_secs_f64());
        self.queue.queue_size.set(gauge(load.used));
        self.queue.queue_capacity.set(gauge(load.capacity));
        self.queue.queue_bytes.set(gauge(stats.queue_bytes()));
    }
}
