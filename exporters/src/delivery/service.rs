//! Runs a [`DeliveryQueue`] on tokio: one task per exporter on the agent's socket runtime.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_pipeline::{Admission, Wake};
use tailwater_telemetry::metrics::MetricsRegistry;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::metrics::Mirror;
use super::options::{QueueOptions, RetryOptions};
use super::queue::{Attempt, Decision, DeliveryQueue};
use super::request::{Duty, OutgoingRequest};
use super::stats::{DeliveryStats, Load};
use super::verdict::{Judge, RetryScope, Transport, Verdict};

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
        self.0.publish(&queue);
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
    pub fn expose(&self, registry: &MetricsRegistry) {
        let shared = &self.shared;
        shared
            .mirror
            .get_or_init(|| Mirror::new(registry, &shared.name));
        shared.publish(&shared.queue());
    }

    /// The shards' side.
    pub fn handle(&self) -> DeliveryHandle<D> {
        DeliveryHandle(self.shared.clone())
    }

    /// Starts sending on `runtime`. A second call does nothing.
    pub fn start<T: Transport, J: Judge<D>>(
        &mut self,
        runtime: &Handle,
        transport: Arc<T>,
        judge: Arc<J>,
    ) {
        if !std::mem::replace(&mut self.started, true) {
            runtime.spawn(run(self.shared.clone(), transport, judge));
        }
    }

    /// Stops taking requests, sends what can be sent until `deadline` (what waits in a backoff or
    /// behind a pause is not waited for), then resolves the rest as retry. Returns the records
    /// that were handed back. Blocks the calling thread, which must not be the runtime's.
    pub fn stop(&mut self, deadline: Mono) -> u64 {
        let shared = &self.shared;
        let returned = &shared.stats;
        let before = returned.returned_items();
        shared.queue().drain(shared.clock.now());
        if self.started {
            shared.set_phase(Phase::Draining);
            let left = deadline.since(shared.clock.now());
            if !self.wait(left) {
                shared.set_phase(Phase::Cut);
                self.wait(CUT_GRACE);
            }
        }
        let mut queue = shared.queue();
        queue.abandon();
        shared.publish(&queue);
        let stuck = shared.stats.queue_items();
        returned.returned_items() - before + stuck
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

async fn run<D: Duty, T: Transport, J: Judge<D>>(
    shared: Arc<Shared<D>>,
    transport: Arc<T>,
    judge: Arc<J>,
) {
    let _end = TaskEnd(shared.clone());
    let mut sending = JoinSet::new();
    let mut divisions = judge.divisions();
    while shared.phase() < Phase::Cut as u8 {
        let now = shared.clock.now();
        let (wakeup, empty) = {
            let mut queue = shared.queue();
            let before = std::mem::replace(&mut divisions, judge.divisions());
            queue.divide_waiting(before != divisions, |request| judge.divide(request));
            while let Some(attempt) = queue.next_to_send(now) {
                let open = OpenAttempt {
                    shared: shared.clone(),
                    attempt: Some(attempt),
                };
                sending.spawn(send_one(open, transport.clone(), judge.clone()));
            }
            shared.publish(&queue);
            (queue.next_wakeup(), queue.is_empty())
        };
        if empty && shared.phase() >= Phase::Draining as u8 {
            break;
        }
        // While there is something to send, the age of the stall is kept up to date; an idle agent
        // has no timer.
        let sleep = wakeup.map_or(STALL_TICK, |at| at.since(now).min(STALL_TICK));
        tokio::select! {
            () = shared.news.notified() => {}
            () = tokio::time::sleep(sleep), if !empty => {}
            Some(_) = sending.join_next(), if !sending.is_empty() => {}
        }
    }
    // Every attempt that is cut here hands itself back.
    sending.shutdown().await;
}

/// An attempt that is under way. If it ends in any other way than by an answer (it is cut, or its
/// judge panics), it goes back to the queue.
struct OpenAttempt<D: Duty> {
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

async fn send_one<D: Duty, T: Transport, J: Judge<D>>(
    mut open: OpenAttempt<D>,
    transport: Arc<T>,
    judge: Arc<J>,
) {
    let Some(attempt) = &mut open.attempt else {
        return;
    };
    let request = &mut attempt.request;
    let (headers, body) = (request.headers.clone(), request.body.clone());
    let result = transport.send(&headers, body).await;
    let verdict = judge.judge(request, result);
    let (cause, items) = (verdict.cause(), request.items);
    let (tenant, body) = (request.tenant.clone(), request.body.clone());
    let judged = matches!(verdict, Verdict::Drop { .. });
    if let Some(attempt) = open.attempt.take() {
        let decision = open.shared.on_result(attempt, verdict);
        if let (Decision::Dropped(reason), false) = (&decision, judged) {
            let cause = cause.as_deref().unwrap_or_default();
            judge.given_up(&body, tenant.as_deref(), *reason, cause);
        }
        log(
            &open.shared.name,
            tenant.as_deref(),
            items,
            &decision,
            cause.as_deref(),
        );
    }
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
