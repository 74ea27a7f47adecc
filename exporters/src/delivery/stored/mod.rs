//! A queue on disk in front of a delivery service, for data that nobody else keeps.
//!
//! A request is acknowledged when it is on disk, and is sent from there. What that means:
//!
//! - Who handed it over is told [`Outcome::Delivered`] once the segment with it is synchronised. From
//!   then on the duty to deliver it is the queue's, with an account of its own (kind `queue`).
//! - What is not settled by the destination is sent again after a restart, be it a stop, a kill or a
//!   power loss. A stop deletes nothing; what is under way is waited for, the rest is kept.
//! - While the disk does not take anything, requests wait in memory up to a bound and are not
//!   acknowledged; while the queue is full, [`StoredIntake::admission`] says so.
//! - Of what is stored, only what is about to be sent is in memory.
//!
//! One thread per queue does all the reading and writing, so that a slow disk holds up nobody else.
//! Requests that come while it writes share the next synchronisation.

mod item;
mod worker;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use tailwater_pdata::Signal;
use tailwater_pipeline::ack::{AckSink, Counts};
use tailwater_pipeline::clock::Clock;
use tailwater_pipeline::fs::Fs;
use tailwater_pipeline::queue::{DurableQueue, QueueError, QueueLimits};
use tailwater_pipeline::{Admission, Outcome, Stored, Wake};
use tailwater_telemetry::metrics::MetricsRegistry;

use super::options::{QueueOptions, Sizer};
use super::request::{Acks, Duty, OutgoingRequest};
use super::service::DeliveryHandle;
use super::stats::Load;
use worker::{Metrics, Worker};

/// How long [`StoredQueue::finish`] waits for the disk.
const FINISH_MAX: Duration = Duration::from_secs(5);

/// What a queue is made of.
pub struct StoredParts {
    /// The exporter's name in logs and metrics, such as `otlp/main`.
    pub name: Arc<str>,
    /// What it carries.
    pub signal: Signal,
    /// The queue's own directory.
    pub dir: PathBuf,
    /// `sending_queue`.
    pub options: QueueOptions,
    /// Where the directory is.
    pub fs: Arc<dyn Fs>,
    /// The agent's clock.
    pub clock: Arc<dyn Clock>,
    /// Decides what is left to chance.
    pub seed: u64,
    /// Where the queue is shown.
    pub metrics: Arc<MetricsRegistry>,
}

/// What waits for the thread.
#[derive(Default)]
struct Inbox {
    /// Not stored yet.
    requests: Vec<OutgoingRequest<Acks>>,
    /// Requests that the destination answered, by number.
    settled: Vec<(u64, Outcome, Counts)>,
    /// The delivery service has room again.
    room: bool,
    stage: Stage,
    /// Bytes that are in memory only: those of `requests`, and of what the thread could not store.
    bytes: u64,
    /// What the queue on disk leaves room for.
    disk: Admission,
    ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Stage {
    #[default]
    Running,
    /// Takes and sends nothing more.
    Closed,
    /// Everything is settled that will be.
    Finishing,
}

struct Shared {
    inbox: Mutex<Inbox>,
    news: Condvar,
    ended: Condvar,
    /// The last published [`Admission`].
    admission: AtomicU8,
    wakers: Mutex<Vec<Arc<dyn Wake>>>,
    /// Bytes that may wait in memory.
    bytes_max: u64,
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Publishes what there is room for; wakes the shards if it is more than before.
    fn publish(&self, inbox: &Inbox) {
        let memory = Load {
            used: inbox.bytes,
            capacity: self.bytes_max.max(1),
        };
        let now = inbox.disk.max(memory.admission()) as u8;
        let before = self.admission.swap(now, Ordering::AcqRel);
        if now < before {
            for waker in self.wakers.lock().unwrap_or_else(|e| e.into_inner()).iter() {
                waker.wake();
            }
        }
    }

    fn set_stage(&self, stage: Stage) {
        let mut inbox = self.inbox();
        inbox.stage = inbox.stage.max(stage);
        drop(inbox);
        self.news.notify_one();
    }
}

impl AckSink for Shared {
    fn settled(&self, seq: u64, outcome: Outcome, counts: &Counts) {
        self.inbox().settled.push((seq, outcome, counts.clone()));
        self.news.notify_one();
    }
}

impl Wake for Shared {
    fn wake(&self) {
        self.inbox().room = true;
        self.news.notify_one();
    }
}

/// The shards' side of a queue. Cheap to clone.
#[derive(Clone)]
pub struct StoredIntake(Arc<Shared>);

impl StoredIntake {
    /// Takes a request; its duty is resolved when it is stored. Never blocks for long, never
    /// refuses: ask [`Self::admission`] before reading more. After [`StoredQueue::close`], the duty
    /// is resolved as retry at once.
    pub fn submit(&self, request: OutgoingRequest<Acks>) {
        let mut inbox = self.0.inbox();
        if inbox.stage > Stage::Running || inbox.ended {
            drop(inbox);
            request.duty.resolve(Outcome::Retry);
            return;
        }
        if request.items == 0 && request.body.is_empty() {
            drop(inbox);
            request.duty.resolve(Outcome::Delivered);
            return;
        }
        inbox.bytes += request.body_bytes() as u64;
        inbox.requests.push(request);
        self.0.publish(&inbox);
        drop(inbox);
        self.0.news.notify_one();
    }

    /// What sources should do. One atomic read.
    pub fn admission(&self) -> Admission {
        match self.0.admission.load(Ordering::Acquire) {
            0 => Admission::Open,
            1 => Admission::Scarce,
            _ => Admission::Closed,
        }
    }

    /// Has `waker` woken whenever [`Self::admission`] becomes less restrictive.
    pub fn add_waker(&self, waker: Arc<dyn Wake>) {
        let mut wakers = self.0.wakers.lock().unwrap_or_else(|e| e.into_inner());
        wakers.push(waker);
    }
}

/// A queue on disk: the owner's side.
pub struct StoredQueue {
    shared: Arc<Shared>,
    parts: StoredParts,
    metrics: Metrics,
    thread: Option<JoinHandle<u64>>,
}

impl StoredQueue {
    /// A queue that is not opened yet: another one may have its directory until this one is started.
    pub fn new(parts: StoredParts) -> StoredQueue {
        let shared = Arc::new(Shared {
            inbox: Mutex::default(),
            news: Condvar::new(),
            ended: Condvar::new(),
            admission: AtomicU8::new(Admission::Open as u8),
            wakers: Mutex::default(),
            bytes_max: parts.options.queue_bytes_max,
        });
        let metrics = Metrics::new(&parts.metrics, &parts.name, parts.signal);
        StoredQueue {
            shared,
            parts,
            metrics,
            thread: None,
        }
    }

    fn open(&self) -> Result<Worker, QueueError> {
        let (parts, o) = (&self.parts, &self.parts.options);
        let bytes_max = match o.sizer {
            Sizer::Bytes => o.queue_size,
            Sizer::Requests | Sizer::Items => o.storage_bytes_max,
        };
        let limits = QueueLimits::of_bytes(bytes_max);
        let open = || DurableQueue::open(parts.fs.clone(), &parts.dir, limits, parts.seed);
        let mut items = 0;
        if o.sizer == Sizer::Items {
            // How many records there are is only in the requests.
            let (mut queue, mut item) = (open()?, Vec::new());
            loop {
                match queue.next(&mut item) {
                    Ok(Some(_)) => items += item::items(&item),
                    Ok(None) => break,
                    // After a few times others are read; what this one holds is not counted.
                    Err(_) => {}
                }
            }
        }
        let queue = open()?;
        sync_parents(&*parts.fs, &parts.dir)?;
        let (shared, metrics) = (self.shared.clone(), self.metrics.clone());
        Ok(Worker::new(parts, shared, queue, metrics, items))
    }

    /// The shards' side.
    pub fn intake(&self) -> StoredIntake {
        StoredIntake(self.shared.clone())
    }

    /// Opens the queue, and starts storing, and sending through `delivery`, which is fed by this queue
    /// alone. A second call does nothing.
    ///
    /// # Errors
    /// The queue cannot be opened, or there is no thread. It may be tried again.
    pub fn start(&mut self, delivery: DeliveryHandle<Acks>) -> io::Result<()> {
        if self.thread.is_some() {
            return Ok(());
        }
        let worker = self.open().map_err(io::Error::other)?;
        worker.publish();
        delivery.add_waker(self.shared.clone());
        let thread = std::thread::Builder::new().name("queue".into());
        self.thread = Some(thread.spawn(move || worker.run(&delivery))?);
        Ok(())
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.parts.dir
    }

    /// What is in it, as it was last shown. Nothing before it is started.
    pub fn on_disk(&self) -> Stored {
        let number = |n: i64| u64::try_from(n).unwrap_or(0);
        Stored {
            requests: number(self.metrics.stored.requests.get()),
            bytes: number(self.metrics.stored.bytes.get()),
        }
    }

    /// Takes nothing more and sends nothing more; what was taken is stored. To be called before the
    /// delivery service is stopped.
    pub fn close(&self) {
        self.shared.set_stage(Stage::Closed);
    }

    /// Waits until what was taken is stored and what is settled is written down. To be called
    /// when the delivery service has stopped. Returns the records that could not be stored.
    pub fn finish(&mut self) -> u64 {
        self.shared.set_stage(Stage::Finishing);
        let Some(thread) = self.thread.take() else {
            return self.hand_back();
        };
        let inbox = self.shared.inbox();
        let ended = &self.shared.ended;
        let (inbox, _) = ended
            .wait_timeout_while(inbox, FINISH_MAX, |inbox| !inbox.ended)
            .unwrap_or_else(|e| e.into_inner());
        let ended = inbox.ended;
        drop(inbox);
        if !ended {
            tracing::error!(
                exporter = &*self.parts.name,
                "the disk does not answer: what is settled is not written down, and is sent again"
            );
            return 0;
        }
        thread.join().unwrap_or(0)
    }
}

impl StoredQueue {
    /// Hands back what was taken before there was anybody to store it. Returns the records.
    fn hand_back(&self) -> u64 {
        let requests = std::mem::take(&mut self.shared.inbox().requests);
        let records = requests.iter().map(|r| r.items).sum();
        for request in requests {
            request.duty.resolve(Outcome::Retry);
        }
        records
    }
}

/// Makes the name of a directory durable, in case it is new. Parents that may not be read were not
/// made by us.
fn sync_parents(fs: &dyn Fs, dir: &Path) -> Result<(), QueueError> {
    for parent in dir
        .ancestors()
        .skip(1)
        .filter(|p| !p.as_os_str().is_empty())
    {
        match fs.sync_dir(parent) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            Err(source) => {
                return Err(QueueError::Io {
                    action: "synchronise",
                    path: parent.to_owned(),
                    source,
                });
            }
            Ok(()) => {}
        }
    }
    Ok(())
}
