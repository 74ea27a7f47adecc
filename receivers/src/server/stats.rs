//! Counters of one listener, under the collector's names.

use std::sync::Arc;

use tailwater_pdata::Signal;
use tailwater_telemetry::metrics::{
    ListenerMetrics, MetricsRegistry, ReceiverMetrics, ReceiverPointMetrics, ReceiverSpanMetrics,
};

/// Which protocol a listener speaks: the value of the label `transport`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// gRPC.
    Grpc,
    /// HTTP.
    Http,
}

impl Transport {
    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Grpc => "grpc",
            Transport::Http => "http",
        }
    }
}

/// Counters of one listener. Only signals that lead somewhere are shown.
pub struct Stats {
    logs: Option<Arc<ReceiverMetrics>>,
    points: Option<Arc<ReceiverPointMetrics>>,
    spans: Option<Arc<ReceiverSpanMetrics>>,
    /// What is counted by request.
    pub listener: Arc<ListenerMetrics>,
}

impl Stats {
    /// The counters of receiver `id`.
    pub fn new(
        registry: &MetricsRegistry,
        id: &str,
        transport: Transport,
        signals: &[Signal],
    ) -> Arc<Stats> {
        let t = transport.as_str();
        let has = |signal| signals.contains(&signal);
        Arc::new(Stats {
            logs: has(Signal::Logs).then(|| ReceiverMetrics::new(registry, id, t)),
            points: has(Signal::Metrics).then(|| ReceiverPointMetrics::new(registry, id, t)),
            spans: has(Signal::Traces).then(|| ReceiverSpanMetrics::new(registry, id, t)),
            listener: ListenerMetrics::new(registry, id, t),
        })
    }

    /// Counts the records of a request: what was answered with success, or not.
    pub fn count(&self, signal: Signal, items: u64, accepted: bool) {
        let counter = match signal {
            Signal::Logs => self
                .logs
                .as_ref()
                .map(|m| pick(accepted, &m.accepted_log_records, &m.refused_log_records)),
            Signal::Metrics => self.points.as_ref().map(|m| {
                pick(
                    accepted,
                    &m.accepted_metric_points,
                    &m.refused_metric_points,
                )
            }),
            Signal::Traces => self
                .spans
                .as_ref()
                .map(|m| pick(accepted, &m.accepted_spans, &m.refused_spans)),
        };
        if let Some(counter) = counter {
            counter.inc_by(items);
        }
    }
}

fn pick<T>(first: bool, a: T, b: T) -> T {
    if first { a } else { b }
}
