//! From a decoded request to the shards, and from the fate of its records to the answer.
//!
//! A request carries a token that is forked over the lanes which take its signal. Nobody is told
//! that a request succeeded before its token is resolved. A request whose client went away before
//! a shard took it is not taken; one that a shard took goes on, and is counted when it is settled.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tailwater_pdata::Signal;
use tailwater_pdata::otlp::Encoded;
use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_pipeline::{
    AckSink, AckToken, Budget, Counts, DropReason, Outcome, Permit, ShardHandle,
};
use tailwater_telemetry::metrics::IntakeMetrics;
use tokio::sync::oneshot;

use super::config::Limits;
use super::room::Room;
use super::stats::Stats;
use super::status::{Code, Status};

/// What a request costs besides its bytes.
const REQUEST_BYTES: usize = 512;

/// Where the requests of one lane wait for a shard: a queue for each signal, so that one whose
/// destination has no room does not hold up the others.
pub struct Queue {
    waiting: Mutex<[VecDeque<Waiting>; Signal::ALL.len()]>,
    shard: ShardHandle,
}

/// A request that no shard has taken yet.
pub struct Waiting {
    /// The records.
    pub encoded: Encoded,
    /// The duty of this lane.
    pub token: AckToken,
    /// The memory, until it is encoded for its destination.
    pub permit: Permit,
    /// The same memory in the account of the whole agent, until it is settled.
    pub held: Permit,
    /// Since when it waits.
    pub since: Mono,
    gone: Arc<AtomicBool>,
}

impl Waiting {
    /// The client does not wait for an answer any more.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

impl Queue {
    /// A queue of the source in `shard`.
    pub fn new(shard: &ShardHandle) -> Arc<Queue> {
        Arc::new(Queue {
            waiting: Mutex::default(),
            shard: shard.clone(),
        })
    }

    fn push(&self, request: Waiting) {
        let signal = request.encoded.signal();
        self.lock()[place_of(signal)].push_back(request);
        self.shard.waker.wake();
    }

    /// The oldest request of a signal.
    pub fn pop(&self, signal: Signal) -> Option<Waiting> {
        self.lock()[place_of(signal)].pop_front()
    }

    /// Whether none of a signal waits.
    pub fn is_empty(&self, signal: Signal) -> bool {
        self.lock()[place_of(signal)].is_empty()
    }

    /// Takes out those that are to be given up.
    pub fn take_out(&self, give_up: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let mut out = Vec::new();
        for waiting in self.lock().iter_mut() {
            if waiting.iter().any(&give_up) {
                let all = std::mem::take(waiting);
                let (back, keep): (VecDeque<_>, VecDeque<_>) = all.into_iter().partition(&give_up);
                *waiting = keep;
                out.extend(back);
            }
        }
        out
    }

    fn lock(&self) -> MutexGuard<'_, [VecDeque<Waiting>; Signal::ALL.len()]> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a signal has its place among all.
pub fn place_of(signal: Signal) -> usize {
    match signal {
        Signal::Logs => 0,
        Signal::Metrics => 1,
        Signal::Traces => 2,
    }
}

/// One lane as the listeners see it.
pub struct LaneLink {
    /// What its pipelines take.
    pub signals: Vec<Signal>,
    /// A queue for each shard; set once, before anything listens.
    pub queues: OnceLock<Vec<Arc<Queue>>>,
    next: AtomicUsize,
}

impl LaneLink {
    /// A lane without shards yet.
    pub fn new(signals: Vec<Signal>) -> LaneLink {
        LaneLink {
            signals,
            queues: OnceLock::new(),
            next: AtomicUsize::new(0),
        }
    }

    /// The next queue in turn.
    fn queue(&self) -> Option<&Arc<Queue>> {
        let queues = self.queues.get()?;
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        queues.get(turn % queues.len().max(1))
    }
}

/// What all listeners of one receiver share.
pub struct Intake {
    lanes: Vec<LaneLink>,
    budget: Arc<Budget>,
    /// What the whole agent holds.
    held: Arc<Budget>,
    /// Room for bodies.
    pub room: Arc<Room>,
    clock: Arc<dyn Clock>,
    requests: AtomicUsize,
    requests_max: usize,
    stopping: AtomicBool,
    metrics: Arc<IntakeMetrics>,
}

/// A request that takes one of the places there are.
pub struct Place<'a>(&'a Intake);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let before = self.0.requests.fetch_sub(1, Ordering::AcqRel);
        self.0.metrics.requests.set(gauge(before.saturating_sub(1)));
    }
}

fn gauge(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Intake {
    /// What `lanes` share; what they hold counts for `held`, too.
    pub fn new(
        lanes: Vec<LaneLink>,
        limits: &Limits,
        held: Arc<Budget>,
        clock: Arc<dyn Clock>,
        metrics: Arc<IntakeMetrics>,
    ) -> Intake {
        metrics
            .in_flight_bytes_max
            .set(gauge(limits.in_flight_bytes_max));
        Intake {
            lanes,
            budget: Budget::new(limits.in_flight_bytes_max),
            held,
            room: Room::new(limits.in_flight_bytes_max / 2),
            clock,
            requests: AtomicUsize::new(0),
            requests_max: limits.requests_max,
            stopping: AtomicBool::new(false),
            metrics,
        }
    }

    /// The lane with this number.
    pub fn lane(&self, number: usize) -> &LaneLink {
        &self.lanes[number]
    }

    /// Whether any pipeline takes the signal.
    pub fn takes(&self, signal: Signal) -> bool {
        self.lanes.iter().any(|lane| lane.signals.contains(&signal))
    }

    /// From now on nothing is taken.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// A place for a request, before its body is read.
    ///
    /// # Errors
    /// There are too many, or the agent stops.
    pub fn place(&self) -> Result<Place<'_>, Status> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(Status::unavailable("the agent is stopping"));
        }
        let now = self.requests.fetch_add(1, Ordering::AcqRel) + 1;
        let place = Place(self);
        if now > self.requests_max {
            return Err(Status::unavailable("too many requests at the same time"));
        }
        self.metrics.requests.set(gauge(now));
        Ok(place)
    }

    /// Hands a request to the shards.
    ///
    /// # Errors
    /// There is no room for it, nobody takes it, or the agent stops; it is counted as refused.
    pub fn offer(&self, encoded: Encoded, stats: &Arc<Stats>) -> Result<Pending, Status> {
        let signal = encoded.signal();
        let items = encoded.items() as u64;
        let (tell, told) = oneshot::channel();
        if items == 0 {
            // An empty request is a success; there is nothing to deliver.
            let _ = tell.send((Outcome::Delivered, Counts::default()));
            return Ok(Pending::new(told));
        }
        let taken = self.admit(&encoded);
        if taken.is_err() {
            stats.count(signal, items, false);
        }
        let lanes = taken?;
        let pending = Pending::new(told);
        let answer = Answer {
            tell: Mutex::new(Some(tell)),
            signal,
            items,
            stats: stats.clone(),
        };
        let token = AckToken::new(Arc::new(answer), 0);
        let since = self.clock.now();
        for ((queue, token), encoded) in lanes
            .iter()
            .zip(token.fork(lanes.len()))
            .zip(std::iter::repeat(encoded))
        {
            let bytes = encoded.len() + REQUEST_BYTES;
            let (permit, held) = (self.budget.take(bytes), self.held.take(bytes));
            queue.push(Waiting {
                encoded,
                token,
                permit,
                held,
                since,
                gone: pending.gone.clone(),
            });
        }
        self.observe();
        Ok(pending)
    }

    fn admit(&self, encoded: &Encoded) -> Result<Vec<&Arc<Queue>>, Status> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(Status::unavailable("the agent is stopping"));
        }
        let lanes = self
            .lanes
            .iter()
            .filter(|lane| lane.signals.contains(&encoded.signal()));
        let queues: Vec<_> = lanes.filter_map(LaneLink::queue).collect();
        if queues.is_empty() {
            let text = format!("no pipeline takes {}", encoded.signal());
            return Err(Status::new(Code::Unimplemented, text));
        }
        let cost = (encoded.len() + REQUEST_BYTES) * queues.len();
        let used = self.budget.used_bytes();
        // A request that is larger than everything may still come alone.
        if used > 0 && used.saturating_add(cost) > self.budget.limit_bytes() {
            self.observe();
            return Err(Status::unavailable(
                "no room: too much is not delivered yet",
            ));
        }
        Ok(queues)
    }

    /// Brings the gauges up to date.
    pub fn observe(&self) {
        self.metrics
            .in_flight_bytes
            .set(gauge(self.budget.used_bytes()));
        self.metrics
            .incoming_bytes
            .set(gauge(self.room.taken_bytes()));
    }
}

/// A request that waits for the fate of its records. Dropping it says that nobody waits.
pub struct Pending {
    told: oneshot::Receiver<(Outcome, Counts)>,
    gone: Arc<AtomicBool>,
}

impl Pending {
    fn new(told: oneshot::Receiver<(Outcome, Counts)>) -> Pending {
        Pending {
            told,
            gone: Arc::default(),
        }
    }

    /// Waits for the answer, at most `for_at_most`.
    ///
    /// # Errors
    /// What the request is answered with if it was not delivered.
    pub async fn answer(mut self, for_at_most: Duration) -> Result<(), Status> {
        let told = tokio::time::timeout(for_at_most, &mut self.told).await;
        let Ok(told) = told else {
            return Err(Status::unavailable(
                "not delivered in time; it may be delivered still",
            ));
        };
        // A token tells its sink even when it is dropped, so the other end is not dropped untold.
        let (outcome, counts) = told.unwrap_or((Outcome::Lost, Counts::default()));
        match outcome {
            Outcome::Delivered | Outcome::Filtered => Ok(()),
            Outcome::Refused => Err(Status::new(Code::Internal, reasons(&counts))),
            Outcome::Retry | Outcome::Lost => Err(Status::unavailable("not delivered")),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Release);
    }
}

fn reasons(counts: &Counts) -> String {
    let named = DropReason::ALL.iter().zip(counts.dropped);
    let named: Vec<String> = named
        .filter(|(_, n)| *n > 0)
        .map(|(reason, n)| format!("{n} {}", reason.as_str()))
        .collect();
    format!("given up: {}", named.join(", "))
}

/// Told what became of a request; counts it, once, and answers it if somebody waits.
struct Answer {
    tell: Mutex<Option<oneshot::Sender<(Outcome, Counts)>>>,
    signal: Signal,
    items: u64,
    stats: Arc<Stats>,
}

impl AckSink for Answer {
    fn settled(&self, _key: u64, outcome: Outcome, counts: &Counts) {
        let tell = self
            .tell
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(tell) = tell else { return };
        let accepted = matches!(outcome, Outcome::Delivered | Outcome::Filtered);
        self.stats.count(self.signal, self.items, accepted);
        // Fails only if nobody waits any more.
        let _ = tell.send((outcome, counts.clone()));
    }
}
