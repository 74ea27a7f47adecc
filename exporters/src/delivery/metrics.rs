//! The counters of a delivery service under the names that the agent exposes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tailwater_pdata::Signal;
use tailwater_telemetry::metrics::{
    Counter, ExporterMetrics, ExporterPointsMetrics, ExporterSpansMetrics, MetricsRegistry,
    QueueMetrics,
};

use super::stats::{DeliveryStats, Load};
use super::verdict::{RetryScope, Verdict};

/// What became of the items of an exporter, under the names of its signal.
pub(crate) enum ItemMetrics {
    Logs(Arc<ExporterMetrics>),
    Metrics(Arc<ExporterPointsMetrics>),
    Traces(Arc<ExporterSpansMetrics>),
}

impl ItemMetrics {
    pub fn new(registry: &MetricsRegistry, exporter: &str, signal: Signal) -> ItemMetrics {
        match signal {
            Signal::Logs => ItemMetrics::Logs(ExporterMetrics::new(registry, exporter)),
            Signal::Metrics => ItemMetrics::Metrics(ExporterPointsMetrics::new(registry, exporter)),
            Signal::Traces => ItemMetrics::Traces(ExporterSpansMetrics::new(registry, exporter)),
        }
    }

    pub fn sent(&self) -> &Counter {
        match self {
            ItemMetrics::Logs(m) => &m.sent_log_records,
            ItemMetrics::Metrics(m) => &m.sent,
            ItemMetrics::Traces(m) => &m.sent,
        }
    }

    pub fn failed(&self) -> &Counter {
        match self {
            ItemMetrics::Logs(m) => &m.send_failed_log_records,
            ItemMetrics::Metrics(m) => &m.send_failed,
            ItemMetrics::Traces(m) => &m.send_failed,
        }
    }

    pub fn enqueue_failed(&self) -> &Counter {
        match self {
            ItemMetrics::Logs(m) => &m.enqueue_failed_log_records,
            ItemMetrics::Metrics(m) => &m.enqueue_failed,
            ItemMetrics::Traces(m) => &m.enqueue_failed,
        }
    }
}

/// Copies [`DeliveryStats`] to the agent's metrics. Called with the queue locked, so that the
/// values of one copy belong together.
pub(super) struct Mirror {
    exporter: Arc<ExporterMetrics>,
    items: ItemMetrics,
    /// Not of a service that a queue on disk feeds.
    queue: Option<Arc<QueueMetrics>>,
    copied: [AtomicU64; 4],
    in_flight: AtomicU64,
    stalled_nanos: AtomicU64,
}

impl Mirror {
    pub fn new(
        registry: &MetricsRegistry,
        exporter: &str,
        signal: Signal,
        with_queue: bool,
    ) -> Mirror {
        let queue = || QueueMetrics::new(registry, exporter, signal.as_str());
        Mirror {
            exporter: ExporterMetrics::new(registry, exporter),
            items: ItemMetrics::new(registry, exporter, signal),
            queue: with_queue.then(queue),
            copied: Default::default(),
            in_flight: AtomicU64::new(0),
            stalled_nanos: AtomicU64::new(0),
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
        let is_refused = match verdict {
            Verdict::Drop { .. } => true,
            Verdict::DeliveredExcept { dropped } | Verdict::Replace { dropped, .. } => {
                !dropped.is_empty()
            }
            Verdict::Delivered | Verdict::Retry { .. } | Verdict::Hold { .. } => false,
        };
        if is_refused {
            self.exporter.refused.inc();
        }
    }

    /// Brings the metrics up to date. `load` is in the unit of the queue's sizer.
    pub fn copy(&self, stats: &DeliveryStats, load: Load, stalled: Duration) {
        let m = &self.exporter;
        let counters = [
            (stats.sent_items(), self.items.sent()),
            (stats.dropped_items(), self.items.failed()),
            (stats.sent_bytes(), &m.sent_bytes),
            (stats.retried_requests(), &m.retries),
        ];
        for ((now, counter), copied) in counters.into_iter().zip(&self.copied) {
            counter.inc_by(now.saturating_sub(copied.swap(now, Relaxed)));
        }
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        // An exporter of several signals has one such gauge for all of them.
        let (now, before) = (stats.in_flight_requests(), &self.in_flight);
        let before = before.swap(now, Relaxed);
        m.in_flight_requests.add(gauge(now) - gauge(before));
        let now = u64::try_from(stalled.as_nanos()).unwrap_or(u64::MAX);
        let before = self.stalled_nanos.swap(now, Relaxed);
        if before != now {
            let seconds = |nanos: u64| Duration::from_nanos(nanos).as_secs_f64();
            m.stalled_seconds.add(seconds(now) - seconds(before));
        }
        let Some(queue) = &self.queue else { return };
        queue.queue_size.set(gauge(load.used));
        queue.queue_capacity.set(gauge(load.capacity));
        queue.queue_bytes.set(gauge(stats.queue_bytes()));
    }
}
