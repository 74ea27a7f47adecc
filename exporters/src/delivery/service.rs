//! Runs a [`DeliveryQueue`] on tokio: one task per exporter on the agent's socket runtime.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use tailwater_pdata::Signal;
use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_pipeline::{Admission, Outcome, Wake};
use tailwater_telemetry::metrics::MetricsRegistry;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::metrics::Mirror;
use super::options::{QueueOptions, RetryOptions};
use super::queue::{Attempt, Decision, DeliveryQueue};
use super::request::{Duty, OutgoingRequest};
use super::stats::{DeliveryStats, Load};
use super::verdict::{Judge, Reply, RetryScope, SendError, Transport, Verdict};

/// How long [`Delivery::stop`] waits, after its deadline, for cut attempts to be handed back.
const CUT_GRACE: Duration = Duration::from_millis(500);

/// How often the age of a stall is published.
const STALL_TICK: Duration = Duration::from_secs(5);

/// What a delivery service is made of.
pub struct DeliveryParts {
    /// The exporter's name in logs, such as `loki/main`.
    pub name: Arc<str>,
    /// `sending_queue`.
    pub queue: QueueOptions,
    /// `retry_on_failure`.
    pub retry: RetryOptions,
    /// Determines the jitter of the backoff.
    pub seed: u64,
    /// The agent's clock.
    pub clock: Arc<dyn Clock>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
enum Phase {
    Running = 0,
    Draining = 1,
    Cut = 2,
}

struct Shared<D> {
    name: Arc<str>,
    queue: Mutex<DeliveryQueue<D>>,
    stats: Arc<DeliveryStats>,
    clock: Arc<dyn Clock>,
    /// Something happened that the task should look at.
    news: Notify,
    phase: AtomicU8,
    /// The last published [`Admission`].
    admission: AtomicU8,
    wakers: Mutex<Vec<Arc<dyn Wake>>>,
    mirror: OnceLock<Mirror>,
    task_done: Mutex<bool>,
    ended: Condvar,
}

impl<D: Duty> Shared<D> {
    /// Locked once per request, never per record.
    fn queue(&self) -> MutexGuard<'_, DeliveryQueue<D>> {
        self.queue.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn task_done(&self) -> MutexGuard<'_, bool> {
        self.task_done.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn phase(&self) -> u8 {
        self.phase.load(Ordering::Acquire)
    }

    fn set_phase(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        self.news.notify_one();
    }

    /// Publishes the state of the locked queue; wakes the shards if there is more room than before.
    fn publish(&self, queue: &DeliveryQueue<D>) {
        if let Some(mirror) = self.mirror.get() {
            let stalled = queue.stalled_for(self.clock.now());
            mirror.copy(&self.stats, queue.sized_load(), stalled);
        }
        self.publish_admission(queue);
    }

    /// What sources should do; wakes the shards if there is more room than before.
    fn publish_admission(&self, queue: &DeliveryQueue<D>) {
        let now = queue.load().admission() as u8;
        let before = self.admission.swap(now, Ordering::AcqRel);
        if now < before {
            for waker in self.wakers.lock().unwrap_or_else(|e| e.into_inner()).iter() {
                waker.wake();
            }
        }
    }

    fn on_result(&self, attempt: Attempt<D>, verdict: Verdict<D>) -> Decision {
        let now = self.clock.now();
        let mut queue = self.queue();
        if let Some(mirror) = self.mirror.get() {
            mirror.attempt(&verdict);
        }
        let decision = queue.on_result(now, attempt, verdict);
        self.publish(&queue);
        decision
    }
}

/// The shards' side of a delivery service. Cheap to clone.
pub struct DeliveryHandle<D>(Arc<Shared<D>>);

impl<D> Clone for DeliveryHandle<D> {
    fn clone(&self) -> DeliveryHandle<D> {
        DeliveryHandle(self.0.clone())
    }
}

impl<D: Duty> DeliveryHandle<D> {
    /// Takes a finished request. Never blocks for long, never refuses: ask
    /// [`Self::admission`] before reading more. After [`Delivery::stop`] began, the request's duty
    /// is resolved as retry at once.
    pub fn submit(&self, request: OutgoingRequest<D>) {
        let now = self.0.clock.now();
        let mut queue = self.0.queue();
        queue.submit(now, request);
        // Metrics are brought up to date by the task, which is woken: they are not carried from one
        // processor to the other and back for each request.
        self.0.publish_admission(&queue);
        drop(queue);
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

    /// How full the queue is.
    pub fn load(&self) -> Load {
        self.0.queue().load()
    }

    /// Has `waker` woken whenever [`Self::admission`] becomes less restrictive.
    pub fn add_waker(&self, waker: Arc<dyn Wake>) {
        self.0
            .wakers
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .push(waker);
    }

    /// The counters.
    pub fn stats(&self) -> &Arc<DeliveryStats> {
        &self.0.stats
    }

    /// For how long there has been something to send while nothing was settled: for health.
    pub fn stalled_for(&self) -> Duration {
        self.0.queue().stalled_for(self.0.clock.now())
    }
}

/// A delivery service: the owner's side.
pub struct Delivery<D> {
    shared: Arc<Shared<D>>,
    started: bool,
}

impl<D: Duty> Delivery<D> {
    /// A service that takes requests and sends nothing until it is started.
    pub fn new(parts: DeliveryParts) -> Delivery<D> {
        let queue = DeliveryQueue::new(parts.queue, parts.retry, parts.seed);
        let shared = Shared {
            name: parts.name,
            stats: queue.stats().clone(),
            queue: Mutex::new(queue),
            clock: parts.clock,
            news: Notify::new(),
            phase: AtomicU8::new(Phase::Running as u8),
            admission: AtomicU8::new(Admission::Open as u8),
            wakers: Mutex::default(),
            mirror: OnceLock::new(),
            task_done: Mutex::default(),
            ended: Condvar::new(),
        };
        Delivery {
            shared: Arc::new(shared),
            started: false,
        }
    }

    /// Shows the counters among the agent's metrics, under the exporter's name.
    pub fn expose(&self, registry: &MetricsRegistry, signal: Signal) {
        self.show(registry, signal, true);
    }

    /// As [`Delivery::expose`], for a service that is fed by a queue on disk, which shows its own
    /// size.
    pub fn expose_sending(&self, registry: &MetricsRegistry, signal: Signal) {
        self.show(registry, signal, false);
    }

    fn show(&self, registry: &MetricsRegistry, signal: Signal, with_queue: bool) {
        let shared = &self.shared;
        shared
            .mirror
            .get_or_init(|| Mirror::new(registry, &shared.name, signal, with_queue));
        shared.publish(&shared.queue());
    }

    /// The shards' side.
    pub fn handle(&self) -> DeliveryHandle<D> {
        DeliveryHandle(self.shared.clone())
    }

    /// Starts sending on `runtime`. A second call does nothing.
    pub fn start<T: Transport, J: Judge<D> + ?Sized>(
        &mut self,
        runtime: &Handle,
        transport: Arc<T>,
        judge: Arc<J>,
    ) {
        if !std::mem::replace(&mut self.started, true) {
            runtime.spawn(run(self.shared.clone(), transport, judge));
        }
    }

    /// Sends without a task: whoever has the courier decides when. Instead of [`Delivery::start`].
    pub fn courier<J: Judge<D> + ?Sized>(&self, judge: Arc<J>) -> Courier<D, J> {
        Courier::new(self.shared.clone(), judge)
    }

    /// Stops taking requests, sends what can be sent until `deadline` (what waits in a backoff or
    /// behind a pause is not waited for), then resolves the rest as retry. Returns the records
    /// that were handed back. Blocks the calling thread, which must not be the runtime's.
    pub fn stop(&mut self, deadline: Mono) -> u64 {
        let shared = self.shared.clone();
        let before = shared.stats.returned_items();
        self.close();
        if self.started {
            shared.set_phase(Phase::Draining);
            let left = deadline.since(shared.clock.now());
            if !self.wait(left) {
                shared.set_phase(Phase::Cut);
                self.wait(CUT_GRACE);
            }
        }
        self.abandon();
        shared.stats.returned_items() - before + shared.stats.queue_items()
    }

    /// Takes no more requests: the first thing that [`Delivery::stop`] does.
    pub fn close(&self) {
        let shared = &self.shared;
        shared.queue().drain(shared.clock.now());
    }

    /// Hands back what is left: the last thing that [`Delivery::stop`] does.
    pub fn abandon(&self) {
        let mut queue = self.shared.queue();
        queue.abandon();
        self.shared.publish(&queue);
    }

    /// Waits for the end of the task, at most `time`. True if it ended.
    fn wait(&self, time: Duration) -> bool {
        let done = self.shared.task_done();
        let ended = &self.shared.ended;
        let (done, _) = ended
            .wait_timeout_while(done, time, |done| !*done)
            .unwrap_or_else(|e| e.into_inner());
        *done
    }
}

/// Tells [`Delivery::stop`] that the task is gone, however it ended.
struct TaskEnd<D: Duty>(Arc<Shared<D>>);

impl<D: Duty> Drop for TaskEnd<D> {
    fn drop(&mut self) {
        *self.0.task_done() = true;
        self.0.ended.notify_all();
    }
}

/// Says what is to be sent, and takes in what came of it: what the task of a [`Delivery`] does
/// between its waits. A simulation calls it without any task.
pub struct Courier<D: Duty, J: ?Sized> {
    shared: Arc<Shared<D>>,
    judge: Arc<J>,
    divisions: u64,
}

/// What a [`Courier`] found to do.
pub struct Due<D: Duty> {
    /// To be sent now.
    pub attempts: Vec<OpenAttempt<D>>,
    /// When there is something to do without any news.
    pub wakeup: Option<Mono>,
    /// Every request was settled.
    pub empty: bool,
}

impl<D: Duty, J: Judge<D> + ?Sized> Courier<D, J> {
    fn new(shared: Arc<Shared<D>>, judge: Arc<J>) -> Courier<D, J> {
        let divisions = judge.divisions();
        Courier {
            shared,
            judge,
            divisions,
        }
    }

    /// What is to be sent at `now`.
    pub fn due(&mut self, now: Mono) -> Due<D> {
        let judge = &self.judge;
        let mut queue = self.shared.queue();
        let before = std::mem::replace(&mut self.divisions, judge.divisions());
        queue.divide_waiting(now, before != self.divisions, |request| {
            judge.divide(request)
        });
        let mut attempts = Vec::new();
        while let Some(attempt) = queue.next_to_send(now) {
            attempts.push(OpenAttempt {
                shared: self.shared.clone(),
                attempt: Some(attempt),
            });
        }
        self.shared.publish(&queue);
        Due {
            attempts,
            wakeup: queue.next_wakeup(),
            empty: queue.is_empty(),
        }
    }
}

async fn run<D: Duty, T: Transport, J: Judge<D> + ?Sized>(
    shared: Arc<Shared<D>>,
    transport: Arc<T>,
    judge: Arc<J>,
) {
    let _end = TaskEnd(shared.clone());
    let mut sending = JoinSet::new();
    let mut courier = Courier::new(shared.clone(), judge.clone());
    while shared.phase() < Phase::Cut as u8 {
        let now = shared.clock.now();
        let due = courier.due(now);
        for open in due.attempts {
            sending.spawn(send_one(open, transport.clone(), judge.clone()));
        }
        if due.empty && shared.phase() >= Phase::Draining as u8 {
            break;
        }
        // While there is something to send, the age of the stall is kept up to date; an idle agent
        // has no timer.
        let sleep = due
            .wakeup
            .map_or(STALL_TICK, |at| at.since(now).min(STALL_TICK));
        tokio::select! {
            () = shared.news.notified() => {}
            () = tokio::time::sleep(sleep), if !due.empty => {}
            Some(_) = sending.join_next(), if !sending.is_empty() => {}
        }
    }
    // Every attempt that is cut here hands itself back.
    sending.shutdown().await;
}

/// An attempt that is under way. If it ends in any other way than by an answer (it is cut, or its
/// judge panics), it goes back to the queue.
pub struct OpenAttempt<D: Duty> {
    shared: Arc<Shared<D>>,
    attempt: Option<Attempt<D>>,
}

impl<D: Duty> Drop for OpenAttempt<D> {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            let cause = "the attempt was cut".into();
            let verdict = Verdict::Retry {
                scope: RetryScope::Request,
                after: None,
                cause,
            };
            self.shared.on_result(attempt, verdict);
        }
    }
}

impl<D: Duty> OpenAttempt<D> {
    /// What is sent.
    pub fn request(&self) -> Option<&OutgoingRequest<D>> {
        self.attempt.as_ref().map(|a| &a.request)
    }

    /// Takes what the attempt brought.
    pub fn answered<J: Judge<D> + ?Sized>(mut self, judge: &J, result: Result<Reply, SendError>) {
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        let request = &mut attempt.request;
        let verdict = judge.judge(request, result);
        let (cause, items) = (verdict.cause(), request.items);
        let (tenant, body) = (request.tenant.clone(), request.body.clone());
        let judged = matches!(verdict, Verdict::Drop { .. });
        // Nothing is settled before what was given up is written down.
        let failed = matches!(verdict, Verdict::Retry { .. } | Verdict::Hold { .. });
        let unsettled = failed.then(|| request.duty.share());
        if let Some(attempt) = self.attempt.take() {
            let decision = self.shared.on_result(attempt, verdict);
            let (name, tenant, cause) = (&self.shared.name, tenant.as_deref(), cause.as_deref());
            if let (Decision::Dropped(reason), false) = (&decision, judged) {
                judge.given_up(&body, tenant, *reason, cause.unwrap_or_default());
            }
            log(name, tenant, items, &decision, cause);
        }
        if let Some(duty) = unsettled {
            duty.resolve(Outcome::Delivered);
        }
    }
}

async fn send_one<D: Duty, T: Transport, J: Judge<D> + ?Sized>(
    open: OpenAttempt<D>,
    transport: Arc<T>,
    judge: Arc<J>,
) {
    let Some(request) = open.request() else {
        return;
    };
    let (headers, body) = (request.headers.clone(), request.body.clone());
    let result = transport.send(&headers, body).await;
    open.answered(&*judge, result);
}

fn log(name: &str, tenant: Option<&str>, items: u64, decision: &Decision, cause: Option<&str>) {
    let (tenant, error) = (tenant.unwrap_or(""), cause.unwrap_or(""));
    match decision {
        Decision::RetryIn(wait) => tracing::warn!(
            exporter = name,
            tenant,
            items,
            error,
            interval = ?wait,
            "Exporting failed. Will retry the request after interval."
        ),
        Decision::Held(wait) => tracing::error!(
            exporter = name,
            tenant,
            items,
            error,
            interval = ?wait,
            "The destination refuses this configuration. Data is kept and tried again slowly."
        ),
        Decision::Dropped(reason) => tracing::error!(
            exporter = name,
            tenant,
            dropped_items = items,
            error,
            reason = reason.as_str(),
            "Exporting failed. Dropping data."
        ),
        Decision::Returned => tracing::info!(
            exporter = name,
            tenant,
            items,
            error,
            "Not sent before the stop; the source will offer it again."
        ),
        Decision::Delivered | Decision::Replaced => {}
    }
}
