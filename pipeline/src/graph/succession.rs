//! What goes, and what waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tailwater_pdata::Signal;

use super::{DiskQueue, Graph, LeftBy, Prepared, start_failed};
use crate::clock::Mono;
use crate::component::{BuildError, ExporterNode, ReceiverNode};
use crate::handover::Gate;
use crate::lanes::Lane;

/// How long an exporter that goes is waited for until it has delivered what it has; and if nothing was
/// accepted lately, so that nobody waits for a destination that may be the reason for the change. What
/// is left then is offered again by whoever read it.
const RETIRE_MAX: Duration = Duration::from_secs(10);
const RETIRE_STALLED_MAX: Duration = Duration::from_secs(1);
/// How long a receiver that goes keeps what it needs to answer whoever waits for what it took in.
const LEAVE_MAX: Duration = Duration::from_secs(60);
/// Pause between attempts to start what cannot be started.
const START_AGAIN: Duration = Duration::from_secs(5);

/// A receiver's node in one lane.
pub(super) struct Reading {
    pub id: String,
    pub lane: Lane,
    /// Ids of the chains it feeds.
    pub feeds: Vec<Arc<str>>,
    pub node: Box<dyn ReceiverNode>,
    pub waits: Waits,
}

/// A lane of a receiver: the id of that, and the exporter.
pub(super) type LaneKey = (String, Arc<str>);

impl Reading {
    pub fn key(&self) -> LaneKey {
        (self.id.clone(), self.lane.exporter.clone())
    }
}

/// An exporter's node for one signal.
pub(super) struct Sending {
    pub id: String,
    pub signal: Signal,
    pub node: Box<dyn ExporterNode>,
    pub waits: Waits,
    /// Closed while it waits.
    pub gate: Option<Arc<Gate>>,
}

/// Until a node is started.
#[derive(Default)]
pub(super) struct Waits {
    /// What has to be done before.
    before: Vec<Arc<AtomicBool>>,
    state: State,
}

#[derive(Default)]
enum State {
    #[default]
    New,
    /// Not before it was told what for.
    Waiting,
    Started,
    /// Why it did not start.
    Failed(BuildError, Option<Mono>),
}

impl Waits {
    /// For what is named later.
    pub fn for_something() -> Waits {
        Waits {
            before: Vec::new(),
            state: State::Waiting,
        }
    }

    /// Waits for these as well.
    pub fn add(&mut self, before: impl IntoIterator<Item = Arc<AtomicBool>>) {
        self.before.extend(before);
    }

    /// True once it is started.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Started)
    }

    fn is_free(&self) -> bool {
        self.before.iter().all(|done| done.load(Ordering::Acquire))
    }

    /// True if it is to be started now.
    fn is_due(&self, now: Mono) -> bool {
        let rests = matches!(&self.state, State::Failed(_, Some(at)) if now < *at);
        !self.is_over() && self.is_free() && !rests
    }

    /// Starts it if there is nothing left to wait for. A second call does nothing.
    pub fn start(&mut self, start: impl FnOnce() -> Result<(), BuildError>) {
        if self.is_over() || !self.is_free() {
            return;
        }
        self.before.clear();
        self.state = match start() {
            Ok(()) => State::Started,
            Err(error) => State::Failed(error, None),
        };
    }

    /// Why it did not start.
    pub fn error(&self, id: &str) -> Option<BuildError> {
        let State::Failed(BuildError { node, message }, _) = &self.state else {
            return None;
        };
        let (node, message) = (node.clone(), message.clone());
        Some(start_failed(id, BuildError { node, message }))
    }

    /// As [`Waits::start`], with a pause after each failure, which is logged.
    fn start_later(&mut self, id: &str, now: Mono, start: impl FnOnce() -> Result<(), BuildError>) {
        if !self.is_due(now) {
            return;
        }
        self.start(start);
        if let State::Failed(error, at) = &mut self.state {
            tracing::error!(id, %error, "not started; it is tried again");
            *at = Some(now.after(START_AGAIN));
        } else {
            tracing::debug!(id, "begins in the place of what went");
        }
    }
}

/// An exporter that goes, until it is done.
pub(super) struct Retiring {
    pub id: String,
    /// Its queue on disk.
    pub queue: Option<DiskQueue>,
    done: Arc<AtomicBool>,
    _thread: Option<JoinHandle<()>>,
}

impl Retiring {
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    pub fn done(&self) -> Arc<AtomicBool> {
        self.done.clone()
    }
}

/// A receiver that goes, until nothing of it is under way.
pub(super) struct Leaving {
    id: String,
    /// It lives as long as somebody may wait for an answer through it.
    node: Option<Box<dyn ReceiverNode>>,
    drained: Vec<Arc<AtomicBool>>,
    until: Mono,
}

impl Graph {
    /// Goes on with what a change has left to do. True while there is something: then it is to be called
    /// again soon.
    pub fn tick(&mut self) -> bool {
        self.retiring.retain(|r| !r.is_done());
        self.forget_left();
        let now = self.cx.clock.now();
        let drained = |done: &Arc<AtomicBool>| done.load(Ordering::Acquire);
        self.leaving.retain_mut(|l| {
            l.node.take_if(|_| now >= l.until);
            !l.drained.iter().all(drained)
        });
        for r in &mut self.receivers {
            let node = &mut r.node;
            r.waits.start_later(&r.id, now, || node.start());
        }
        self.start_exporters();
        self.is_changing()
    }

    /// True if [`Graph::tick`] has something to start or to let go of now.
    pub fn has_due(&self) -> bool {
        let now = self.cx.clock.now();
        let mut receivers = self.receivers.iter().map(|r| &r.waits);
        let mut exporters = self.exporters.iter().map(|e| &e.waits);
        let drained = |done: &Arc<AtomicBool>| done.load(Ordering::Acquire);
        let mut leaving = self.leaving.iter();
        receivers.any(|w| w.is_due(now))
            || exporters.any(|w| w.is_due(now))
            || self.retiring.iter().any(Retiring::is_done)
            || leaving
                .any(|l| l.drained.iter().all(drained) || (l.node.is_some() && now >= l.until))
    }

    /// True while a change has something left to do.
    pub fn is_changing(&self) -> bool {
        let receivers = self.receivers.iter().all(|r| r.waits.is_over());
        let exporters = self.exporters.iter().all(|e| e.waits.is_over());
        let gone = self.retiring.is_empty() && self.leaving.is_empty();
        !(receivers && exporters && gone)
    }

    pub(super) fn start_exporters(&mut self) {
        let now = self.cx.clock.now();
        for e in self.exporters.iter_mut().filter(|e| !e.waits.is_over()) {
            let node = &mut e.node;
            e.waits.start_later(&e.id, now, || node.start());
            if e.waits.is_over() {
                e.gate.take().iter().for_each(|gate| gate.open());
                self.shards.iter().for_each(|s| s.handle().waker.wake());
            }
        }
    }

    /// What does not run although the configuration in force says so, and why if it was tried.
    pub fn not_started(&self) -> impl Iterator<Item = (&str, Option<String>)> {
        let why = |id, waits: &Waits| waits.error(id).map(|e| e.to_string());
        let receivers = self.receivers.iter().filter(|r| !r.waits.is_over());
        let exporters = self.exporters.iter().filter(|e| !e.waits.is_over());
        receivers
            .map(move |r| (r.id.as_str(), why(&r.id, &r.waits)))
            .chain(exporters.map(move |e| (e.id.as_str(), why(&e.id, &e.waits))))
    }

    /// Makes receivers that go read nothing new, and says to those that follow what to wait for.
    pub(super) fn retire_receivers(&mut self, p: &mut Prepared) {
        let receivers = std::mem::take(&mut self.receivers).into_iter();
        let (stay, gone): (Vec<_>, Vec<_>) =
            receivers.partition(|r| p.lanes_kept.contains(&r.key()));
        self.receivers = stay;
        for mut r in gone {
            r.node.stop();
            let name = r.lane.name(&r.id);
            let mut drained = Vec::new();
            for shard in &self.shards {
                let (name, done) = (name.clone(), Arc::new(AtomicBool::new(false)));
                drained.push(done.clone());
                shard.run(Box::new(move |s| s.retire(&name, done)));
            }
            self.leaving.push(Leaving {
                id: r.id,
                node: Some(r.node),
                drained,
                until: self.cx.clock.now().after(LEAVE_MAX),
            });
        }
        for next in p.receivers.iter_mut().filter(|n| p.waiting.contains(&n.id)) {
            let before = self.leaving.iter().filter(|l| l.id == next.id);
            next.waits
                .add(before.flat_map(|l| l.drained.iter().cloned()));
        }
    }

    /// Stops exporters that go, beside everything else.
    pub(super) fn let_go(&mut self, gone: Vec<Sending>, p: &Prepared) {
        self.retiring.retain(|r| !r.is_done());
        for mut e in gone {
            let queue = DiskQueue::of(&e);
            let left = queue
                .clone()
                .and_then(|queue| Some((left_by(&queue, p)?, queue)));
            let (queues_left, metrics) = (self.left.clone(), self.cx.metrics.clone());
            let handles: Vec<_> = self.shards.iter().map(|s| s.handle().clone()).collect();
            let max = match e.node.stalled_for() >= RETIRE_STALLED_MAX || !e.waits.is_over() {
                true => RETIRE_STALLED_MAX,
                false => RETIRE_MAX,
            };
            let deadline = self.cx.clock.now().after(max);
            let (id, done) = (e.id.clone(), Arc::new(AtomicBool::new(false)));
            let finished = Finished(done.clone());
            let stop = move || {
                let records = e.node.stop(deadline);
                if records > 0 {
                    tracing::info!(
                        exporter = e.id,
                        records,
                        "not delivered before the change; whoever read them offers them again"
                    );
                }
                if let Some((by, queue)) = left {
                    queues_left.note(&metrics, queue, e.node.stored(), by);
                }
                drop(e);
                drop(finished);
                handles.iter().for_each(|h| h.waker.wake());
            };
            let thread = std::thread::Builder::new()
                .name("retire".into())
                .spawn(stop);
            if let Err(error) = &thread {
                // It was dropped, and what it had is handed back.
                tracing::warn!(%error, exporter = id, "no thread to wait for an exporter that goes");
            }
            self.retiring.push(Retiring {
                id,
                queue,
                done,
                _thread: thread.ok(),
            });
        }
    }
}

/// How the queue of an exporter that goes comes to be nobody's with what was prepared, if it does.
fn left_by(queue: &DiskQueue, p: &Prepared) -> Option<LeftBy> {
    let mut new = p.exporters.iter();
    if new.any(|e| e.node.queue_dir() == Some(&*queue.dir)) {
        return None;
    }
    let mut new = p.exporters.iter();
    let stays = new.any(|e| e.id == queue.exporter && e.signal == queue.signal);
    Some(if stays {
        LeftBy::Exchange
    } else {
        LeftBy::Removal
    })
}

/// Says that it is over however it ends.
struct Finished(Arc<AtomicBool>);

impl Drop for Finished {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
