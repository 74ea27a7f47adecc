//! From a decoded request to the shards, and from the fate of its records to the answer.
//!
//! Each lane that takes the signal of a request gets a token of its own. Nobody is told that a request
//! succeeded before all of them are resolved. A request whose client went away before
//! a shard took it is not taken; one that a shard took goes on, and is counted when it is settled.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tailwater_pdata::Signal;
use tailwater_pipeline::client::ClientInfo;
use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_pipeline::{AckToken, Budget, Outcome, Permit, ShardHandle};
use tailwater_telemetry::metrics::IntakeMetrics;

use super::answers::Answers;
use super::memory::Memory;
use super::options::Limits;
use super::protocol::{Decoded, Records};
use super::request::{Pending, Request, Told};
use super::room::{Room, Share};
use super::stats::Stats;
use super::status::{Code, Status};

/// What a request costs besides its bytes, the sender that waits for it included.
pub const REQUEST_BYTES: usize = 2 << 10;

/// So much may be put into a queue before its shard is told; see [`Queue::push`].
const UNTOLD_BYTES_MAX: usize = 1 << 20;

/// Where the requests of one lane wait for a shard: a queue for each signal, so that one whose
/// destination has no room does not hold up the others.
pub struct Queue {
    waiting: Mutex<[VecDeque<Waiting>; Signal::ALL.len()]>,
    shard: ShardHandle,
    /// Bytes, and one for each request, that the shard has not been told of.
    untold: AtomicUsize,
}

/// A request that no shard has taken yet.
pub struct Waiting {
    /// The records.
    pub records: Records,
    /// The duty of this lane.
    pub token: AckToken,
    /// The memory, until it is encoded for its destination.
    pub permit: Permit,
    /// The same memory in the account of the whole agent, until it is settled.
    pub held: Permit,
    /// Since when it waits.
    pub since: Mono,
    /// Who sent it.
    pub client: Arc<ClientInfo>,
    request: Arc<Request>,
}

impl Waiting {
    /// The client does not wait for an answer any more.
    pub fn is_gone(&self) -> bool {
        self.request.is_gone()
    }
}

impl Queue {
    /// A queue of the source in `shard`.
    pub fn new(shard: &ShardHandle) -> Arc<Queue> {
        Arc::new(Queue {
            waiting: Mutex::default(),
            shard: shard.clone(),
            untold: AtomicUsize::new(0),
        })
    }

    /// Puts a request behind the others. Its shard is told after what else has come in at the same time:
    /// to wake a thread takes about as long as to look through a request, and once for all is enough.
    fn push(self: &Arc<Self>, request: Waiting) {
        let signal = request.records.signal();
        let bytes = request.records.bytes() + 1;
        self.lock()[place_of(signal)].push_back(request);
        let before = self.untold.fetch_add(bytes, Ordering::AcqRel);
        match tokio::runtime::Handle::try_current() {
            Ok(_) if before > 0 && before + bytes < UNTOLD_BYTES_MAX => {}
            Ok(runtime) if before == 0 && bytes < UNTOLD_BYTES_MAX => {
                // Its turn is behind those who can go on now.
                let queue = self.clone();
                runtime.spawn(async move { queue.tell() });
            }
            _ => self.tell(),
        }
    }

    /// Wakes the shard if there is something that it does not know of.
    fn tell(&self) {
        if self.untold.swap(0, Ordering::AcqRel) > 0 {
            self.shard.waker.wake();
        }
    }

    /// Whether its shard has been told of what waits, and has not come to it yet.
    fn is_behind(&self) -> bool {
        let untold = self.untold.load(Ordering::Acquire);
        untold == 0 && Signal::ALL.iter().any(|signal| !self.is_empty(*signal))
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
    signals: Vec<Signal>,
    /// A queue for each shard; set once, before anything listens.
    pub queues: OnceLock<Vec<Arc<Queue>>>,
    turn: AtomicUsize,
    /// Its share of the memory: one that takes nothing does not take that of the others.
    budget: Arc<Budget>,
}

impl LaneLink {
    /// The queue of the shard that was given something last, as long as it keeps up: one that is awake
    /// costs less than two. Else the next in turn.
    fn queue(&self) -> Option<&Arc<Queue>> {
        let queues = self.queues.get()?;
        let turn = self.turn.load(Ordering::Relaxed);
        let queue = queues.get(turn % queues.len().max(1))?;
        if !queue.is_behind() {
            return Some(queue);
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) + 1;
        queues.get(turn % queues.len())
    }

    /// A request that is larger than everything may still come alone.
    fn fits(&self, bytes: usize) -> bool {
        let used = self.budget.used_bytes();
        used == 0 || used.saturating_add(bytes) <= self.budget.limit_bytes()
    }

    /// Makes room, if there is none for `bytes`: what nobody waits for any more goes back now, not when
    /// its shard looks at it.
    fn make_room(&self, bytes: usize) {
        if self.fits(bytes) {
            return;
        }
        for queue in self.queues.get().into_iter().flatten() {
            for request in queue.take_out(Waiting::is_gone) {
                request.token.resolve(Outcome::Retry);
            }
        }
    }

    /// Room for a request, and the queue it has to go to.
    fn room(&self, bytes: usize) -> Option<(&Arc<Queue>, Permit)> {
        let queue = self.queue().filter(|_| self.fits(bytes))?;
        Some((queue, self.budget.take(bytes)))
    }
}

/// What all listeners of one receiver share.
pub struct Intake {
    lanes: Vec<LaneLink>,
    budget: Arc<Budget>,
    /// What the whole agent holds.
    held: Arc<Budget>,
    /// Requests of which some lanes have the records and others do not; with one lane there are none.
    memory: Option<Arc<Memory>>,
    /// Room for bodies.
    pub room: Arc<Room>,
    /// Those that are to be told on the thread of the listeners, which delivers them.
    pub answers: Arc<Answers<Told>>,
    clock: Arc<dyn Clock>,
    requests: AtomicUsize,
    requests_max: usize,
    stopping: AtomicBool,
    metrics: Arc<IntakeMetrics>,
}

/// A place among the requests at the same time: there are no more of them than places.
pub struct Place(Arc<Intake>, Arc<Share>);

impl Drop for Place {
    fn drop(&mut self) {
        self.1.leave();
        let before = self.0.requests.fetch_sub(1, Ordering::AcqRel);
        self.0.metrics.requests.set(gauge(before.saturating_sub(1)));
        // What it held was given back before: where no other comes, nobody else shows that.
        self.0.show_bytes();
    }
}

fn gauge(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Intake {
    /// What lanes share that take these signals; what they hold counts for `held`, too.
    pub fn new(
        lanes: Vec<Vec<Signal>>,
        limits: &Limits,
        held: Arc<Budget>,
        clock: Arc<dyn Clock>,
        metrics: Arc<IntakeMetrics>,
    ) -> Intake {
        metrics
            .in_flight_bytes_max
            .set(gauge(limits.in_flight_bytes_max));
        let budget = Budget::new(limits.in_flight_bytes_max);
        let memory = (lanes.len() > 1).then(Arc::default);
        let parts = lanes.len();
        let link = |signals| LaneLink {
            signals,
            queues: OnceLock::new(),
            turn: AtomicUsize::new(0),
            budget: budget.part_of(parts),
        };
        Intake {
            lanes: lanes.into_iter().map(link).collect(),
            budget,
            held,
            memory,
            answers: Arc::default(),
            room: Room::new(limits.in_flight_bytes_max / 2, limits.decode_timeout),
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

    /// Whether it is of use to know a request again.
    pub fn remembers(&self) -> bool {
        self.memory.is_some()
    }

    /// From now on nothing is taken.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// A place for a request on the connection of `share`, before its body is read. No connection takes more
    /// places than it leaves to the others; where there is none, a request makes way whose body does not
    /// come.
    ///
    /// # Errors
    /// There are too many, or the agent stops.
    pub fn place(self: &Arc<Self>, share: &Arc<Share>) -> Result<Place, Status> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(Status::unavailable("the agent is stopping"));
        }
        let now = self.requests.fetch_add(1, Ordering::AcqRel) + 1;
        let own = share.enter();
        let place = Place(self.clone(), share.clone());
        let left_before = (self.requests_max + 1).saturating_sub(now);
        if own > left_before && !self.room.make_place(share) {
            return Err(Status::unavailable("too many requests at the same time"));
        }
        self.metrics.requests.set(gauge(now));
        Ok(place)
    }

    /// Hands a request to the shards: to the lanes that do not have its records yet.
    ///
    /// # Errors
    /// There is no room for it, nobody takes it, or the agent stops; it is counted as refused.
    pub fn offer(
        &self,
        decoded: Decoded,
        client: Arc<ClientInfo>,
        place: Place,
        stats: &Arc<Stats>,
    ) -> Result<Pending, Status> {
        let Decoded { records, digest } = decoded;
        let signal = records.signal();
        let items = records.items() as u64;
        if items == 0 {
            // An empty request is a success; there is nothing to deliver.
            return Ok(Pending::empty());
        }
        let refuse = |status| {
            stats.count(signal, items, false);
            Err(status)
        };
        if self.stopping.load(Ordering::Acquire) {
            return refuse(Status::unavailable("the agent is stopping"));
        }
        let lanes = self.lanes.iter().filter(|l| l.signals.contains(&signal));
        let lanes: Vec<_> = lanes.collect();
        if lanes.is_empty() {
            let text = format!("no pipeline takes {signal}");
            return refuse(Status::new(Code::Unimplemented, text));
        }
        let digest = digest.map(|digest| digest.sent_by(&client));
        let memory = self.memory.as_ref().zip(digest);
        let again = memory.and_then(|(memory, digest)| memory.take(&digest));
        if again.is_some() {
            self.metrics.resumed.inc();
        }
        let request = again.unwrap_or_else(|| {
            let memory = memory.map(|(memory, digest)| (digest, Arc::downgrade(memory)));
            let answers = self.answers.clone();
            Request::new(signal, items, lanes.len(), memory, answers, stats.clone())
        });
        let bytes = records.bytes() + client.heap_bytes() + REQUEST_BYTES;
        lanes.iter().for_each(|lane| lane.make_room(bytes));
        let begun = request.begin(place, stats, |number| lanes[number].room(bytes));
        self.observe();
        let Some((pending, to)) = begun else {
            return Err(Status::unavailable(
                "no room: too much is not delivered yet",
            ));
        };
        let since = self.clock.now();
        for (number, (queue, permit)) in to {
            queue.push(Waiting {
                records: records.clone(),
                token: AckToken::new(request.clone(), number as u64),
                permit,
                held: self.held.take(bytes),
                since,
                client: client.clone(),
                request: request.clone(),
            });
        }
        Ok(pending)
    }

    fn show_bytes(&self) {
        let m = &self.metrics;
        m.in_flight_bytes.set(gauge(self.budget.used_bytes()));
        m.incoming_bytes.set(gauge(self.room.taken_bytes()));
    }

    /// Brings the gauges up to date.
    fn observe(&self) {
        self.show_bytes();
        let m = &self.metrics;
        let remembered = self.memory.as_ref().map_or(0, |memory| memory.len());
        m.remembered.set(gauge(remembered));
    }
}
