//! Queues on disk: which there are, and what stays in those that no exporter has any more. That is said
//! once, and shown until an exporter has the queue again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tailwater_pdata::Signal;
use tailwater_telemetry::metrics::{MetricsRegistry, QueueLeftMetrics};

use super::Graph;
use super::succession::Sending;
use crate::component::Stored;

/// A queue on disk.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DiskQueue {
    /// Its directory, which no other queue has.
    pub dir: PathBuf,
    /// Id of the exporter that has it, or had it last.
    pub exporter: String,
    /// What is in it.
    pub signal: Signal,
}

/// How a queue on disk came to be nobody's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeftBy {
    /// Its exporter was removed.
    Removal,
    /// Its exporter has another queue, or one in memory.
    Exchange,
    /// No exporter had it at the start.
    Restart,
}

impl DiskQueue {
    /// That of an exporter, if it has one.
    pub(super) fn of(exporter: &Sending) -> Option<DiskQueue> {
        Some(DiskQueue {
            dir: exporter.node.queue_dir()?.to_owned(),
            exporter: exporter.id.clone(),
            signal: exporter.signal,
        })
    }
}

/// What stays in queues that no exporter has. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct LeftQueues(Arc<Mutex<Left>>);

#[derive(Default)]
struct Left {
    queues: BTreeMap<DiskQueue, Stored>,
    /// The sums of each exporter.
    shown: BTreeMap<(String, Signal), Arc<QueueLeftMetrics>>,
}

impl Left {
    /// Brings what is shown in line with what there is.
    fn show(&mut self, metrics: Option<&MetricsRegistry>) {
        let mut sums: BTreeMap<(String, Signal), Stored> = BTreeMap::new();
        for (queue, stored) in &self.queues {
            let key = (queue.exporter.clone(), queue.signal);
            let sum = sums.entry(key).or_default();
            sum.requests += stored.requests;
            sum.bytes += stored.bytes;
        }
        self.shown.retain(|key, _| sums.contains_key(key));
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        for (key, sum) in sums {
            if let (None, Some(metrics)) = (self.shown.get(&key), metrics) {
                let new = QueueLeftMetrics::new(metrics, &key.0, key.1.as_str());
                self.shown.insert(key.clone(), new);
            }
            if let Some(shown) = self.shown.get(&key) {
                shown.requests.set(gauge(sum.requests));
                shown.bytes.set(gauge(sum.bytes));
            }
        }
    }
}

impl LeftQueues {
    fn lock(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No exporter has this queue any more; this is in it.
    pub fn note(&self, metrics: &MetricsRegistry, queue: DiskQueue, stored: Stored, by: LeftBy) {
        let Stored { requests, bytes } = stored;
        if requests == 0 {
            return;
        }
        let (exporter, signal) = (&queue.exporter, queue.signal.as_str());
        let directory = queue.dir.display();
        match by {
            LeftBy::Removal => tracing::warn!(
                exporter, signal, requests, bytes, %directory,
                "exporter removed with requests in its queue on disk: they stay there, and are delivered \
                 when it is configured again under the same id and with the same storage"
            ),
            LeftBy::Exchange => tracing::warn!(
                exporter, signal, requests, bytes, %directory,
                "exporter goes on without the queue on disk that it had, which has requests in it: they \
                 stay there, and are delivered when it is configured with that storage again"
            ),
            LeftBy::Restart => tracing::warn!(
                exporter, signal, requests, bytes, %directory,
                "requests are in a queue on disk that no exporter has: they stay there, and are delivered \
                 when the exporter is configured again under the same id and with the same storage"
            ),
        }
        let mut left = self.lock();
        left.queues.insert(queue, stored);
        left.show(Some(metrics));
    }

    /// Forgets those that an exporter has again.
    pub fn forget(&self, is_back: impl Fn(&DiskQueue) -> bool) {
        let mut left = self.lock();
        let before = left.queues.len();
        left.queues.retain(|queue, _| !is_back(queue));
        if left.queues.len() != before {
            left.show(None);
        }
    }

    fn queues(&self) -> Vec<DiskQueue> {
        self.lock().queues.keys().cloned().collect()
    }
}

impl Graph {
    /// The queues on disk that there are: of exporters, of those that go, and those that are left.
    pub fn disk_queues(&self) -> Vec<DiskQueue> {
        let mut queues: Vec<DiskQueue> = self.exporters.iter().filter_map(DiskQueue::of).collect();
        queues.extend(self.retiring.iter().filter_map(|r| r.queue.clone()));
        queues.extend(self.left.queues());
        queues.sort();
        queues.dedup();
        queues
    }

    /// Whether an exporter has the queue in the directory of `queue`.
    pub fn has_queue(&self, queue: &DiskQueue) -> bool {
        let mut exporters = self.exporters.iter();
        exporters.any(|e| e.node.queue_dir() == Some(&*queue.dir))
    }

    /// Says, and shows from now on, what is in a queue that no exporter has.
    pub fn note_left(&self, queue: DiskQueue, stored: Stored) {
        if !self.has_queue(&queue) {
            let by = LeftBy::Restart;
            self.left.note(&self.cx.metrics, queue, stored, by);
        }
    }

    /// What exporters that are back had left is theirs again.
    pub(super) fn forget_left(&self) {
        self.left.forget(|queue| self.has_queue(queue));
    }
}
