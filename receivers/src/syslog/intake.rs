//! From sockets to shards: one queue for each lane and shard, and room that all share.
//!
//! What was taken is kept in memory until it is delivered, or durable at an exporter that has a queue on
//! disk: nobody could be asked to send it again. So there is room for a certain number of bytes; where
//! there is none, connections are not read, and datagrams are dropped and counted, of each lane those
//! that it has no room for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tailwater_pipeline::{Budget, DropReason, Permit, ShardHandle, Wake};
use tailwater_telemetry::metrics::{Accounting, Amount, IntakeMetrics, ReceiverMetrics};
use tokio::sync::Notify;

use super::message::{Chunk, Transport};

/// Who waits for room looks again after this time even if nothing was said.
const ROOM_PAUSE: Duration = Duration::from_millis(50);

/// Messages that no shard has taken yet.
pub struct Waiting {
    /// The messages.
    pub chunk: Arc<Chunk>,
    /// Their memory in the lane's share of the room.
    pub room: Permit,
    /// The same in the account of the whole agent.
    pub held: Permit,
}

/// Where messages of one lane wait for a shard.
pub struct Queue {
    waiting: Mutex<VecDeque<Waiting>>,
    shard: ShardHandle,
}

impl Queue {
    /// The queue of the source in `shard`.
    pub fn new(shard: &ShardHandle) -> Arc<Queue> {
        Arc::new(Queue {
            waiting: Mutex::default(),
            shard: shard.clone(),
        })
    }

    fn push(&self, waiting: Waiting) {
        lock(&self.waiting).push_back(waiting);
        self.shard.waker.wake();
    }

    /// The oldest messages.
    pub fn pop(&self) -> Option<Waiting> {
        lock(&self.waiting).pop_front()
    }

    /// Whether none wait.
    pub fn is_empty(&self) -> bool {
        lock(&self.waiting).is_empty()
    }

    /// Wakes its shard.
    pub fn waker(&self) -> Arc<dyn Wake> {
        self.shard.waker.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One lane as the sockets see it.
pub struct LaneLink {
    /// A queue for each shard; set once, before anything listens.
    pub queues: OnceLock<Vec<Arc<Queue>>>,
    /// Its share of the room: one that delivers nothing does not take that of the others.
    room: Arc<Budget>,
    account: Arc<Accounting>,
    /// By transport.
    metrics: [Option<Arc<ReceiverMetrics>>; 2],
}

impl LaneLink {
    /// A lane that keeps `account`; `metrics` are those of TCP and of UDP.
    pub fn new(account: Arc<Accounting>, metrics: [Option<Arc<ReceiverMetrics>>; 2]) -> LaneLink {
        LaneLink {
            queues: OnceLock::new(),
            room: Budget::new(0),
            account,
            metrics,
        }
    }

    /// What is larger than everything may still come alone.
    fn has_room(&self, bytes: usize) -> bool {
        let used = self.room.used_bytes();
        used == 0 || used.saturating_add(bytes) <= self.room.limit_bytes()
    }
}

/// What all sockets of one receiver share.
pub struct Intake {
    lanes: Vec<LaneLink>,
    room: Arc<Budget>,
    /// For what has come of messages that are not complete.
    pub incoming: Arc<Budget>,
    /// What the whole agent holds.
    held: Arc<Budget>,
    /// There may be room again.
    news: Notify,
    /// Nothing will come any more.
    closed: AtomicBool,
    logs: AtomicUsize,
    metrics: Arc<IntakeMetrics>,
}

impl Intake {
    /// What `lanes` share. There is room for `bytes_max` of messages, and for half as much of such that are
    /// not complete; what they hold counts for `held`, too.
    pub fn new(
        mut lanes: Vec<LaneLink>,
        bytes_max: usize,
        held: Arc<Budget>,
        metrics: Arc<IntakeMetrics>,
    ) -> Intake {
        let room = Budget::new(bytes_max);
        let parts = lanes.len();
        lanes
            .iter_mut()
            .for_each(|lane| lane.room = room.part_of(parts));
        let gauge = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        metrics.in_flight_bytes_max.set(gauge);
        Intake {
            lanes,
            room,
            incoming: Budget::new(bytes_max / 2),
            held,
            news: Notify::new(),
            closed: AtomicBool::new(true),
            logs: AtomicUsize::new(0),
            metrics,
        }
    }

    /// The lane with this number.
    pub fn lane(&self, number: usize) -> &LaneLink {
        &self.lanes[number]
    }

    /// A number for another connection or socket.
    pub fn next_log(&self) -> u64 {
        self.logs.fetch_add(1, Ordering::Relaxed) as u64
    }

    /// Messages may come from now on.
    pub fn open(&self) {
        self.closed.store(false, Ordering::Release);
    }

    /// No more come; those who wait for that are told.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let lanes = self.lanes.iter().filter_map(|lane| lane.queues.get());
        lanes.flatten().for_each(|queue| queue.shard.waker.wake());
    }

    /// Whether nothing can come any more.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Something was delivered.
    pub fn freed(&self) {
        self.news.notify_waiters();
        self.observe();
    }

    /// Whether all lanes have room for so many bytes.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.lanes.iter().all(|lane| lane.has_room(bytes))
    }

    /// Waits until all lanes have room for so many bytes.
    pub async fn wait_for_room(&self, bytes: usize) {
        while !self.has_room(bytes) {
            // What is said between the look and this is found by the next look.
            let _ = tokio::time::timeout(ROOM_PAUSE, self.news.notified()).await;
        }
    }

    /// Takes messages, whether there is room or not.
    pub fn take(&self, chunk: Chunk) {
        let chunk = Arc::new(chunk);
        self.lanes.iter().for_each(|lane| self.hand(lane, &chunk));
        self.observe();
    }

    /// Takes messages whose sender does not wait. A lane without room for them does not get them; false if
    /// there is one.
    pub fn take_or_drop(&self, chunk: Chunk) -> bool {
        let bytes = chunk.cost_bytes();
        let chunk = Arc::new(chunk);
        let mut all = true;
        for lane in &self.lanes {
            if lane.has_room(bytes) {
                self.hand(lane, &chunk);
                continue;
            }
            all = false;
            let records = chunk.tokens.len() as u64;
            let amount = Amount::new(records, chunk.text.len() as u64);
            lane.account.read(amount);
            lane.account.dropped(DropReason::NoRoom as usize, amount);
            if let Some(metrics) = &lane.metrics[chunk.transport as usize] {
                metrics.refused_log_records.inc_by(records);
            }
        }
        self.observe();
        all
    }

    fn hand(&self, lane: &LaneLink, chunk: &Arc<Chunk>) {
        let Some(queues) = lane.queues.get() else {
            return;
        };
        // What comes over a connection stays in order.
        let shard = chunk.log % queues.len().max(1) as u64;
        let bytes = chunk.cost_bytes();
        if let Some(queue) = queues.get(shard as usize) {
            queue.push(Waiting {
                chunk: chunk.clone(),
                room: lane.room.take(bytes),
                held: self.held.take(bytes),
            });
        }
    }

    /// Memory of records of a lane, which is taken whether there is room or not.
    pub fn hold(&self, lane: usize, bytes: usize) -> Permit {
        self.lanes[lane].room.take(bytes)
    }

    /// Counts records that a lane took of `transport`.
    pub fn count_accepted(&self, lane: usize, transport: Transport, records: u64) {
        if let Some(metrics) = &self.lanes[lane].metrics[transport as usize] {
            metrics.accepted_log_records.inc_by(records);
        }
    }

    fn observe(&self) {
        let gauge = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        let m = &self.metrics;
        m.in_flight_bytes.set(gauge(self.room.used_bytes()));
        m.incoming_bytes.set(gauge(self.incoming.used_bytes()));
    }
}
