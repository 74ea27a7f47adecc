//! The thread of a queue on disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use foldhash::{HashMap, HashMapExt};
use tailwater_pdata::Signal;
use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_pipeline::queue::{DurableQueue, QueueError};
use tailwater_pipeline::{AckToken, Admission, DropReason, Outcome};
use tailwater_telemetry::metrics::{
    Accounting, Amount, MetricsRegistry, QueueMetrics, Settlement, StoredQueueMetrics,
};

use super::super::metrics::ItemMetrics;
use super::super::options::Sizer;
use super::super::request::{Acks, Duty, OutgoingRequest};
use super::super::service::DeliveryHandle;
use super::super::stats::Load;
use super::{Inbox, Shared, Stage, StoredParts, item};

/// How often what is settled is written down. What a kill makes the destination get twice is what
/// was settled within this time.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// The wait before a disk that refused is tried again.
const DISK_PAUSE: Duration = Duration::from_secs(1);
/// How often what could not be read is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(8);
/// The wait while there is nothing to wait for but news.
const IDLE: Duration = Duration::from_secs(3600);

/// What is shown of a queue.
#[derive(Clone)]
pub(super) struct Metrics {
    queue: Arc<QueueMetrics>,
    pub(super) stored: Arc<StoredQueueMetrics>,
    items: Arc<ItemMetrics>,
    account: Arc<Accounting>,
}

impl Metrics {
    pub fn new(registry: &MetricsRegistry, exporter: &str, signal: Signal) -> Metrics {
        let data_type = signal.as_str();
        Metrics {
            queue: QueueMetrics::new(registry, exporter, data_type),
            stored: StoredQueueMetrics::new(registry, exporter, data_type),
            items: Arc::new(ItemMetrics::new(registry, exporter, signal)),
            account: Accounting::new(registry, "queue", exporter, DropReason::NAMES),
        }
    }
}

/// A request that was handed out and is not settled.
struct Out {
    amount: Amount,
}

pub(super) struct Worker {
    name: Arc<str>,
    shared: Arc<Shared>,
    queue: DurableQueue,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    sizer: Sizer,
    size: u64,
    /// Records in the queue, if the sizer counts them.
    items: u64,
    /// Not stored yet, oldest first.
    waiting: VecDeque<OutgoingRequest<Acks>>,
    out: HashMap<u64, Out>,
    /// Requests from here on were stored by this process.
    own_from: Option<u64>,
    /// There is nothing more to hand out.
    drained: bool,
    reader: item::Reader,
    buffer: Vec<u8>,
    saved: Mono,
    unsaved: bool,
    /// Until when a disk that refused is not written, and not read.
    write_pause: Option<Mono>,
    read_pause: Option<Mono>,
    /// When what could not be read is tried again, if there is any.
    retry_at: Option<Mono>,
    damaged: u64,
}

impl Worker {
    pub fn new(
        parts: &StoredParts,
        shared: Arc<Shared>,
        queue: DurableQueue,
        metrics: Metrics,
        items: u64,
    ) -> Worker {
        Worker {
            name: parts.name.clone(),
            shared,
            queue,
            metrics,
            clock: parts.clock.clone(),
            sizer: parts.options.sizer,
            size: parts.options.queue_size,
            items,
            waiting: VecDeque::new(),
            out: HashMap::new(),
            own_from: None,
            drained: false,
            reader: item::Reader::default(),
            buffer: Vec::new(),
            saved: parts.clock.now(),
            unsaved: false,
            write_pause: None,
            read_pause: None,
            retry_at: None,
            damaged: 0,
        }
    }

    /// Runs until the queue is finished. Returns the records that could not be stored.
    pub fn run(mut self, delivery: &DeliveryHandle<Acks>) -> u64 {
        let _end = End(self.shared.clone());
        let kept = self.queue.stats().items;
        if kept > 0 {
            tracing::info!(
                exporter = &*self.name,
                requests = kept,
                "sending what was stored before"
            );
        }
        loop {
            let stage = self.take_news(delivery);
            self.store();
            if stage == Stage::Running {
                self.feed(delivery);
            }
            let now = self.clock.now();
            if self.unsaved && (now.since(self.saved) >= SAVE_EVERY || stage == Stage::Finishing) {
                self.save(now);
            }
            self.publish();
            if stage == Stage::Finishing {
                return self.end();
            }
        }
    }

    /// Waits for something to do and takes it in.
    fn take_news(&mut self, delivery: &DeliveryHandle<Acks>) -> Stage {
        let now = self.clock.now();
        let mut wait = IDLE;
        if self.unsaved {
            wait = wait.min(self.saved.after(SAVE_EVERY).since(now));
        }
        let timers = [self.write_pause, self.read_pause, self.retry_at];
        for until in timers.into_iter().flatten() {
            wait = wait.min(until.since(now));
        }
        let more = self.may_feed(delivery);
        let inbox = self.shared.inbox();
        let nothing = |inbox: &mut Inbox| {
            let news = !inbox.requests.is_empty() || !inbox.settled.is_empty() || inbox.room;
            let ready = more && inbox.stage == Stage::Running;
            !news && !ready && inbox.stage < Stage::Finishing
        };
        let waited = self.shared.news.wait_timeout_while(inbox, wait, nothing);
        let (mut inbox, _) = waited.unwrap_or_else(|e| e.into_inner());
        inbox.room = false;
        let (requests, settled, stage) = (
            std::mem::take(&mut inbox.requests),
            std::mem::take(&mut inbox.settled),
            inbox.stage,
        );
        drop(inbox);
        let now = self.clock.now();
        for pause in [&mut self.write_pause, &mut self.read_pause] {
            *pause = pause.filter(|until| *until > now);
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.queue.retry_unreadable();
            self.drained = false;
        }
        self.waiting.extend(requests);
        for (seq, outcome, counts) in settled {
            self.settle(seq, outcome, &counts.dropped, counts.filtered);
        }
        stage
    }

    /// The destination answered a request, or it was handed back.
    fn settle(&mut self, seq: u64, outcome: Outcome, dropped: &[u32], filtered: u32) {
        let Some(Out { amount }) = self.out.remove(&seq) else {
            return;
        };
        let account = &self.metrics.account;
        if !outcome.is_final() {
            // It stays on disk for the next start.
            account.rewound(amount);
            return;
        }
        account.settled(Settlement {
            batch: amount,
            filtered_by: &[],
            filtered: u64::from(filtered),
            dropped,
        });
        self.queue.settle(seq, seq + 1);
        self.items = self.items.saturating_sub(amount.records);
        self.unsaved = true;
    }

    /// Stores what waits, and says so.
    fn store(&mut self) {
        if self.waiting.is_empty() || self.write_pause.is_some() {
            return;
        }
        let mut written = Vec::new();
        let mut failed = None;
        while let Some(request) = self.waiting.pop_front() {
            match self.append(&request) {
                Ok(seq) => written.push((seq, request)),
                Err(QueueError::TooLarge { needed, bytes_max }) => {
                    self.refuse(request, needed, bytes_max);
                }
                Err(e) => {
                    self.waiting.push_front(request);
                    failed = Some(e);
                    break;
                }
            }
        }
        if !written.is_empty() {
            match self.queue.sync() {
                Ok(_) => self.stored(written),
                Err(e) => {
                    for (_, request) in written.into_iter().rev() {
                        self.waiting.push_front(request);
                    }
                    failed = Some(e);
                }
            }
        }
        match failed {
            None => {}
            // There may be room once something is settled.
            Some(QueueError::Full { .. }) => self.write_pause = Some(self.later()),
            Some(e) => {
                tracing::error!(
                    exporter = &*self.name,
                    error = %e,
                    requests = self.waiting.len(),
                    "cannot store; nothing is acknowledged until it works again"
                );
                self.metrics.stored.failures.inc();
                self.write_pause = Some(self.later());
            }
        }
    }

    fn later(&self) -> Mono {
        self.clock.now().after(DISK_PAUSE)
    }

    fn may_feed(&self, delivery: &DeliveryHandle<Acks>) -> bool {
        !self.drained && self.read_pause.is_none() && delivery.admission() == Admission::Open
    }

    fn append(&mut self, request: &OutgoingRequest<Acks>) -> Result<u64, QueueError> {
        let head = item::head(request);
        let mut pieces: Vec<&[u8]> = Vec::with_capacity(request.body.len() + 1);
        pieces.push(&head);
        pieces.extend(request.body.iter().map(|c| &c[..]));
        self.queue.append(&pieces)
    }

    fn stored(&mut self, written: Vec<(u64, OutgoingRequest<Acks>)>) {
        for (seq, request) in &written {
            self.own_from.get_or_insert(*seq);
            self.items += request.items;
            self.metrics.account.read(amount(request));
        }
        // Whoever hears that it is stored, and asks how much is, is told of it too.
        self.show();
        for (_, request) in written {
            request.duty.resolve(Outcome::Delivered);
        }
        self.drained = false;
        // What comes back next is what was written last.
        self.unsaved = true;
    }

    /// It can never be stored.
    fn refuse(&self, mut request: OutgoingRequest<Acks>, needed: u64, bytes_max: u64) {
        tracing::error!(
            exporter = &*self.name,
            dropped_items = request.items,
            reason = DropReason::TooLarge.as_str(),
            needed,
            bytes_max,
            "A request is larger than the whole queue. Dropping data."
        );
        self.metrics.items.enqueue_failed().inc_by(request.items);
        request
            .duty
            .count_dropped(DropReason::TooLarge, request.items);
        request.duty.resolve(Outcome::Refused);
    }

    /// Hands out what there is room for.
    fn feed(&mut self, delivery: &DeliveryHandle<Acks>) {
        while self.may_feed(delivery) {
            let seq = match self.queue.next(&mut self.buffer) {
                Ok(Some(seq)) => seq,
                Ok(None) => {
                    self.drained = true;
                    break;
                }
                Err(e) => {
                    tracing::error!(
                        exporter = &*self.name,
                        error = %e,
                        "cannot read what is stored; it is kept and tried again"
                    );
                    self.metrics.stored.failures.inc();
                    self.read_pause = Some(self.later());
                    break;
                }
            };
            let token = AckToken::new(self.shared.clone(), seq);
            let mut duty = Acks::new();
            let records = u32::try_from(item::items(&self.buffer)).unwrap_or(u32::MAX);
            duty.add(token, records);
            match self.reader.read(&self.buffer, duty) {
                Ok(request) => {
                    let amount = amount(&request);
                    if self.own_from.is_none_or(|own| seq < own) {
                        self.metrics.account.read(amount);
                    }
                    self.out.insert(seq, Out { amount });
                    delivery.submit(request);
                }
                Err(duty) => {
                    // Not ours, or of a newer version: it can never be sent.
                    duty.resolve(Outcome::Refused);
                    self.queue.settle(seq, seq + 1);
                    self.unsaved = true;
                    self.damaged += 1;
                }
            }
        }
        if self.queue.stats().unreadable_items > 0 && self.retry_at.is_none() {
            self.retry_at = Some(self.clock.now().after(RETRY_EVERY));
        }
        self.show_damage();
    }

    fn show_damage(&mut self) {
        let damaged = self.queue.stats().damaged_items + self.damaged;
        let shown = self.metrics.stored.damaged.get();
        if damaged > shown {
            tracing::error!(
                exporter = &*self.name,
                requests = damaged - shown,
                "stored requests are damaged and were skipped"
            );
            self.metrics.stored.damaged.inc_by(damaged - shown);
        }
    }

    fn save(&mut self, now: Mono) {
        self.saved = now;
        match self.queue.save_settled() {
            Ok(()) => self.unsaved = false,
            Err(e) => {
                tracing::error!(exporter = &*self.name, error = %e, "cannot write the queue");
                self.metrics.stored.failures.inc();
            }
        }
    }

    /// Shows what is in the queue. Returns how full it is.
    fn show(&self) -> Load {
        let stats = self.queue.stats();
        let used = match self.sizer {
            Sizer::Requests => stats.items,
            Sizer::Items => self.items,
            Sizer::Bytes => stats.bytes,
        };
        let capacity = self.size.max(1);
        let m = &self.metrics;
        m.queue.queue_size.set(gauge(used));
        m.queue.queue_capacity.set(gauge(capacity));
        m.stored.requests.set(gauge(stats.items));
        m.stored.bytes.set(gauge(stats.bytes));
        m.stored.unreadable.set(gauge(stats.unreadable_items));
        Load { used, capacity }
    }

    /// Shows what is in the queue, and whether it takes more.
    pub fn publish(&self) {
        let load = self.show();
        let disk = match self.waiting.is_empty() {
            true => load.admission(),
            false => Admission::Closed,
        };
        let waiting: usize = self.waiting.iter().map(OutgoingRequest::body_bytes).sum();
        let mut inbox = self.shared.inbox();
        let coming: usize = inbox.requests.iter().map(OutgoingRequest::body_bytes).sum();
        inbox.bytes = (waiting + coming) as u64;
        self.metrics.queue.queue_bytes.set(gauge(inbox.bytes));
        inbox.disk = disk;
        self.shared.publish(&inbox);
    }

    /// Hands back what could not be stored.
    fn end(mut self) -> u64 {
        let kept = self.queue.stats().items;
        if kept > 0 {
            tracing::info!(
                exporter = &*self.name,
                requests = kept,
                "kept on disk for the next start"
            );
        }
        let mut records = 0;
        let mut inbox = self.shared.inbox();
        inbox.ended = true;
        let left = std::mem::take(&mut inbox.requests);
        drop(inbox);
        for request in self.waiting.drain(..).chain(left) {
            records += request.items;
            request.duty.resolve(Outcome::Retry);
        }
        records
    }
}

fn gauge(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn amount(request: &OutgoingRequest<Acks>) -> Amount {
    Amount::new(request.items, request.body_bytes() as u64)
}

/// Says that the thread is gone, however it ended.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.inbox().ended = true;
        self.0.ended.notify_all();
    }
}
