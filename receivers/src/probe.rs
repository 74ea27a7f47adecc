//! The receiver `probe`: sample lines that a control plane asks for, put into the pipelines that name it, to see
//! whether they arrive. It takes in nothing from outside, and says nothing unless it is asked.
//!
//! A line is a record of its own, with a resource of its own: `tailwater.probe` and `service.name`. So it is never
//! one of somebody else's stream, and is left out or found by that attribute. Who asks, and how often, is in
//! [`tailwater_pipeline::probes`].

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tailwater_config::Section;
use tailwater_pdata::{LogsBatch, Map, Severities, Signal, Times, Value};
use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_pipeline::factory::{Factory, NodeCx, ReceiverFactory, ReceiverSettings};
use tailwater_pipeline::lanes::Lane;
use tailwater_pipeline::probes::{ATTRIBUTE, Fate, Injector, Probe, probes};
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{
    AckSink, AckToken, Admission, Batch, Budget, BuildError, Counts, DropReason, Outcome, Part,
    Progress, ReceiverNode, ShardHandle, Source, SourceCx, Wake,
};
use tailwater_telemetry::metrics::{Accounting, Amount, Settlement};

/// The name of the service that sample lines are of.
const SERVICE: &str = "tailwater-probe";
/// INFO of OTLP.
const SEVERITY: u8 = 9;
/// So many wait for their turn; then one is given up.
const WAITING_MAX: usize = 64;
/// How long nothing is passed on when there is no room, or something came back.
const PAUSE: Duration = Duration::from_millis(100);

/// The kind of receiver, for the agent's registry.
pub fn factory() -> ReceiverFactory {
    Factory {
        kind: "probe",
        about: "sample lines that a control plane asks for",
        signals: &["logs"],
        decode: |node, path, errors| {
            Section::new(node, path, errors).finish();
            Some(Box::new(Settings))
        },
    }
}

struct Settings;

impl ReceiverSettings for Settings {
    fn build(&self, cx: &NodeCx, lanes: &[Lane]) -> Result<Vec<Box<dyn ReceiverNode>>, BuildError> {
        let node = |lane: &Lane| -> Box<dyn ReceiverNode> {
            let account = Accounting::new(&lane.metrics, "receiver", &cx.id, DropReason::NAMES);
            Box::new(Node {
                parts: Some(Parts {
                    account,
                    budget: lane.budget.clone(),
                    clock: cx.clock.clone(),
                }),
                waiting: None,
                registered: None,
            })
        };
        Ok(lanes.iter().map(node).collect())
    }

    /// It reads nothing.
    fn reach(&self, _reach: &mut Reach) {}

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The node of one lane.
struct Node {
    /// Until there is a source.
    parts: Option<Parts>,
    waiting: Option<Arc<Waiting>>,
    registered: Option<u64>,
}

/// What a source is made of.
struct Parts {
    account: Arc<Accounting>,
    budget: Arc<Budget>,
    clock: Arc<dyn Clock>,
}

impl ReceiverNode for Node {
    fn source(&mut self, shard: &ShardHandle) -> Box<dyn Source> {
        let Some(Parts {
            account,
            budget,
            clock,
        }) = self.parts.take()
        else {
            // One shard is enough.
            return Box::new(Nothing);
        };
        let waiting = Arc::new(Waiting {
            lines: Mutex::default(),
            under_way: AtomicUsize::new(0),
            account,
            waker: shard.waker.clone(),
        });
        self.waiting = Some(waiting.clone());
        let resource = Map::from_unique([
            (ATTRIBUTE, Value::str("true")),
            ("service.name", Value::str(SERVICE)),
        ]);
        Box::new(ProbeSource {
            waiting,
            budget,
            clock,
            resource: Arc::new(resource),
        })
    }

    fn start(&mut self) -> Result<(), BuildError> {
        self.registered = self.waiting.clone().map(|w| probes().register(w));
        Ok(())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn stop(&mut self) {
        if let Some(number) = self.registered.take() {
            probes().leave(number);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Lines that were asked for and are not passed on.
struct Waiting {
    lines: Mutex<VecDeque<Probe>>,
    under_way: AtomicUsize,
    account: Arc<Accounting>,
    waker: Arc<dyn Wake>,
}

impl Waiting {
    fn lines(&self) -> MutexGuard<'_, VecDeque<Probe>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Injector for Waiting {
    fn inject(&self, probe: &Probe) {
        let mut lines = self.lines();
        lines.push_back(probe.clone());
        let over = (lines.len() > WAITING_MAX).then(|| lines.pop_front());
        drop(lines);
        if let Some(oldest) = over.flatten() {
            probes().settled(oldest.number, Fate::Dropped);
        }
        self.waker.wake();
    }
}

/// The shard's half.
struct ProbeSource {
    waiting: Arc<Waiting>,
    budget: Arc<Budget>,
    clock: Arc<dyn Clock>,
    resource: Arc<Map>,
}

impl ProbeSource {
    fn emit(&self, probe: Probe, cx: &mut dyn SourceCx) {
        let text = Bytes::copy_from_slice(probe.line.as_bytes());
        let length = u32::try_from(text.len()).unwrap_or(0);
        let amount = Amount::new(1, u64::from(length));
        let mut batch = LogsBatch::from_lines(text, &[(0, length)]);
        let now = self.clock.wall_ns();
        (batch.time, batch.observed) = (Times::Const(now), Times::Const(now));
        batch.severity = Severities::Const(SEVERITY);
        batch.resource = self.resource.clone();
        // One that came back is not read twice.
        self.waiting.account.reread(amount);
        self.waiting.under_way.fetch_add(1, Ordering::AcqRel);
        let duty = Duty {
            waiting: self.waiting.clone(),
            amount,
            probe: Mutex::new(Some(probe)),
        };
        let part = Part {
            permit: self.budget.take(batch.heap_bytes()),
            data: batch.into(),
            ack: AckToken::new(Arc::new(duty), 0),
        };
        cx.emit(Batch { parts: vec![part] });
    }

    fn may_emit(&self, cx: &dyn SourceCx) -> bool {
        !cx.refuses(Signal::Logs)
            && match cx.admission_of(Signal::Logs) {
                Admission::Open => true,
                Admission::Scarce => self.waiting.under_way.load(Ordering::Acquire) == 0,
                Admission::Closed => false,
            }
    }
}

impl Source for ProbeSource {
    fn poll(&mut self, cx: &mut dyn SourceCx) -> Progress {
        // What comes back at once waits for the next turn.
        let turn = self.waiting.lines().len();
        for _ in 0..turn {
            if !self.may_emit(cx) {
                break;
            }
            let Some(probe) = self.waiting.lines().pop_front() else {
                break;
            };
            self.emit(probe, cx);
        }
        let is_left = !self.waiting.lines().is_empty();
        let at: Option<Mono> = is_left.then(|| cx.now().after(PAUSE));
        Progress::Idle(at)
    }

    fn drain(&mut self, _cx: &mut dyn SourceCx) -> bool {
        // A sample line is nothing that has to survive; it was neither found nor dropped.
        for probe in std::mem::take(&mut *self.waiting.lines()) {
            probes().settled(probe.number, Fate::Filtered);
        }
        self.waiting.under_way.load(Ordering::Acquire) == 0
    }
}

/// One line in the pipelines.
struct Duty {
    waiting: Arc<Waiting>,
    amount: Amount,
    /// Taken once.
    probe: Mutex<Option<Probe>>,
}

impl AckSink for Duty {
    fn settled(&self, _key: u64, outcome: Outcome, counts: &Counts) {
        let mut taken = self.probe.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(probe) = taken.take() else { return };
        let waiting = &self.waiting;
        if !outcome.is_final() {
            // It is read anew when it is offered again.
            waiting.account.rewound(self.amount);
            waiting.lines().push_back(probe);
            waiting.under_way.fetch_sub(1, Ordering::AcqRel);
            waiting.waker.wake();
            return;
        }
        let filtered = match outcome {
            Outcome::Filtered => 1,
            _ => u64::from(counts.filtered),
        };
        let mut dropped = counts.dropped;
        if outcome == Outcome::Refused && counts.dropped_total() == 0 {
            dropped[DropReason::Rejected as usize] = 1;
        }
        let fate = match (filtered, dropped.iter().sum::<u32>()) {
            (0, 0) => Fate::Delivered,
            (_, 0) => Fate::Filtered,
            _ => Fate::Dropped,
        };
        waiting.account.settled(Settlement {
            batch: self.amount,
            filtered_by: &[],
            filtered,
            dropped: &dropped,
        });
        waiting.under_way.fetch_sub(1, Ordering::AcqRel);
        probes().settled(probe.number, fate);
    }
}

/// The half of a shard that has nothing to do.
struct Nothing;

impl Source for Nothing {
    fn poll(&mut self, _cx: &mut dyn SourceCx) -> Progress {
        Progress::Idle(None)
    }

    fn drain(&mut self, _cx: &mut dyn SourceCx) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
