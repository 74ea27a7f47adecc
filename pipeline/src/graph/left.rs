//! What stays on disk of exporters that a change took away: said once, and shown until they are back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tailwater_pdata::Signal;
use tailwater_telemetry::metrics::{MetricsRegistry, QueueLeftMetrics};

use crate::component::Stored;

/// Of which exporters something stays. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct LeftQueues(Arc<Mutex<Left>>);

type Left = BTreeMap<(String, Signal), Arc<QueueLeftMetrics>>;

impl LeftQueues {
    fn lock(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An exporter was taken away and has stopped; this is in its queue.
    pub fn note(&self, metrics: &MetricsRegistry, id: &str, signal: Signal, stored: Stored) {
        let Stored { requests, bytes } = stored;
        if requests == 0 {
            return;
        }
        tracing::warn!(
            exporter = id,
            signal = signal.as_str(),
            requests,
            bytes,
            "exporter removed with requests in its queue on disk: they stay there, and are delivered \
             when it is configured again under the same id and with the same storage"
        );
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let left = QueueLeftMetrics::new(metrics, id, signal.as_str());
        left.requests.set(gauge(requests));
        left.bytes.set(gauge(bytes));
        self.lock().insert((id.to_owned(), signal), left);
    }

    /// Forgets those that are back.
    pub fn forget(&self, is_back: impl Fn(&str, Signal) -> bool) {
        self.lock().retain(|(id, signal), _| !is_back(id, *signal));
    }
}
