//! `interval`: of each stream, only the newest point of an interval is passed on.
//!
//! Points wait in memory. What that means for whoever sent them:
//!
//! - A point that is superseded by a newer one of its stream is left out, and its duty is resolved as
//!   filtered at that moment.
//! - The duty of the newest one is resolved when the interval has ended and the destination has
//!   accepted it; so an answer of success never stands for something that is only in memory. Clients
//!   that do not wait so long send the same again, which supersedes itself.
//! - With `acknowledge: held` the duty ends when the point is held. What is handed back by the
//!   destination is held again; a kill loses what is held, a stop passes it on first.

mod held;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pdata::otlp::Encoded;
use tailwater_pdata::otlp::metrics::{
    Metric, MetricKind, ResourceMetrics, ScopeMetrics, Temporality,
};
use tailwater_pdata::otlp::rewrite::{Entry, Rewrite};
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::factory::{Factory, NodeCx, ProcessorFactory, ProcessorSettings};
use tailwater_pipeline::{
    AckToken, Batch, Budget, BuildError, Outcome, Output, Part, Payload, Processor,
};
use tailwater_telemetry::metrics::IntervalMetrics;

use crate::streams::{Chains, Identity, Returns};
use held::{Held, Newest};

/// Bytes of memory of held points at which all of them are passed on before their time.
const HELD_BYTES_MAX: u64 = 64 << 20;
/// Clients of OTLP wait 5 to 10 s for an answer if nothing else is said.
const CLIENTS_WAIT: Duration = Duration::from_secs(5);

/// The factory of this processor.
pub fn factory() -> ProcessorFactory {
    Factory {
        kind: "interval",
        about: "Passes on the newest point of each stream once in an interval.",
        signals: &["metrics"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ProcessorSettings>> {
    let before = errors.len();
    let mut section = Section::new(node, path, errors);
    let config = IntervalConfig::decode(&mut section);
    section.finish();
    let settings = Settings {
        config,
        chains: Chains::default(),
    };
    (errors.len() == before).then(|| Box::new(settings) as Box<dyn ProcessorSettings>)
}

/// When senders are told that their points are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Acknowledge {
    /// When they were delivered or superseded.
    #[default]
    Delivered,
    /// When they are held.
    Held,
}

/// The section of an `interval` processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntervalConfig {
    /// How long points wait at most.
    pub interval: Duration,
    /// Gauges are passed on at once.
    pub pass_gauges: bool,
    /// Summaries are passed on at once.
    pub pass_summaries: bool,
    /// When senders are told.
    pub acknowledge: Acknowledge,
    /// Bytes of memory of held points at which all are passed on.
    pub held_bytes_max: u64,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "interval",
        "How long points wait at most; intervals are counted from the start of the agent.",
    ),
    ("pass_through", "What is passed on at once."),
    ("pass_through::gauge", "Gauges are."),
    ("pass_through::summary", "Summaries are."),
    (
        "acknowledge",
        "own: When senders are answered: when their points were delivered or superseded, or at once. See [DELIVERY](DELIVERY.md#points-that-wait-for-an-interval).",
    ),
    (
        "held_bytes_max",
        "own: When held points take so much memory, all of them are passed on early, and that is counted.",
    ),
];

impl IntervalConfig {
    /// Reads the section; mistakes are in it.
    pub fn decode(s: &mut Section<'_, '_>) -> IntervalConfig {
        s.describe(OPTIONS);
        let interval = s.duration("interval", Duration::from_secs(60));
        if interval.is_zero() {
            s.invalid("interval", "must be greater than zero");
        }
        let (pass_gauges, pass_summaries) = s.section("pass_through", |p| {
            (p.bool("gauge", false), p.bool("summary", false))
        });
        let when = [
            ("delivered", Acknowledge::Delivered),
            ("held", Acknowledge::Held),
        ];
        if !s.has("acknowledge") && interval >= CLIENTS_WAIT {
            s.warn(
                "interval",
                "senders are answered when their points are delivered, up to an interval later; many wait \
                 for 5 to 10s only and then send again. Let them and the receiver's limits wait longer, or \
                 set acknowledge: held, which answers at once (what is held is lost if the agent is killed)",
            );
        }
        IntervalConfig {
            interval,
            pass_gauges,
            pass_summaries,
            acknowledge: s.choice("acknowledge", &when, Acknowledge::default()),
            held_bytes_max: s.byte_size("held_bytes_max", HELD_BYTES_MAX, 1..),
        }
    }

    /// Whether the points of a metric wait.
    fn holds(&self, metric: &Metric<'_>) -> bool {
        let cumulative = metric.temporality == Temporality::Cumulative;
        match metric.kind {
            Some(MetricKind::Gauge) => !self.pass_gauges,
            Some(MetricKind::Summary) => !self.pass_summaries,
            Some(MetricKind::Sum) => cumulative && metric.monotonic,
            Some(MetricKind::Histogram | MetricKind::ExponentialHistogram) => cumulative,
            None => false,
        }
    }
}

struct Settings {
    config: IntervalConfig,
    chains: Chains<Shared>,
}

impl ProcessorSettings for Settings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn Processor>, BuildError> {
        let make = || Shared {
            config: self.config.clone(),
            identity: Identity::new(cx.seed),
            held: Mutex::default(),
            returns: Arc::default(),
            started: cx.clock.now(),
            emit_at: AtomicU64::new(u64::MAX),
            budget: cx.budget.clone(),
            meters: IntervalMetrics::new(&cx.metrics, &cx.id),
        };
        let shared = self.chains.of(cx, make);
        Ok(Box::new(Interval(shared)))
    }
}

/// What all shards of a chain have in common.
struct Shared {
    config: IntervalConfig,
    identity: Identity,
    held: Mutex<Held>,
    returns: Arc<Returns>,
    /// Intervals are counted from here.
    started: Mono,
    /// When the interval ends; `u64::MAX`: nothing is held.
    emit_at: AtomicU64,
    budget: Arc<Budget>,
    meters: Arc<IntervalMetrics>,
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of the interval that `now` is in.
    fn end_of_interval(&self, now: Mono) -> Mono {
        let interval = u64::try_from(self.config.interval.as_nanos()).unwrap_or(u64::MAX);
        let since = now.0.saturating_sub(self.started.0);
        let ended = since / interval;
        let next = ended.saturating_add(1).saturating_mul(interval);
        Mono(self.started.0.saturating_add(next))
    }

    fn observe(&self, held: &mut Held, now: Mono) {
        held.permit = self.budget.take(held.bytes());
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.meters.streams_held.set(gauge(held.len()));
        self.meters.bytes_held.set(gauge(held.bytes()));
        if held.len() == 0 {
            self.emit_at.store(u64::MAX, Ordering::Release);
        } else if self.emit_at.load(Ordering::Acquire) == u64::MAX {
            let at = self.end_of_interval(now);
            self.emit_at.store(at.0, Ordering::Release);
        }
    }

    /// Takes what came back in again, where nothing newer is held. Its duty ended before.
    fn settle(&self, held: &mut Held) {
        for mut encoded in self.returns.take() {
            self.take_in(held, &mut encoded, None);
        }
    }

    /// Moves the points that wait out of a request; returns how many of them are left out for good.
    fn take_in(&self, held: &mut Held, encoded: &mut Encoded, ack: Option<&AckToken>) -> usize {
        let mut taking = Taking {
            shared: self,
            held,
            ack,
            superseded: 0,
            left_out: 0,
        };
        encoded.rewrite(&mut taking);
        let superseded = taking.superseded as u64;
        let left_out = taking.left_out;
        self.meters.datapoints_superseded.inc_by(superseded);
        left_out
    }

    /// All that is held, as parts.
    fn take_out(&self, held: &mut Held) -> Vec<Part> {
        let resources = std::mem::take(held).into_resources();
        let part = |(encoded, duties): (Encoded, Vec<AckToken>)| {
            let mut duties = duties.into_iter();
            let permit = self.budget.take(encoded.heap_bytes());
            let part = |ack| Part {
                data: Payload::Encoded(encoded),
                ack,
                permit,
            };
            match duties.next() {
                Some(first) => part(first.join(duties.collect())),
                None => self.returns.watch(part(AckToken::detached()), &self.budget),
            }
        };
        resources.map(part).collect()
    }
}

/// The instance of one shard.
struct Interval(Arc<Shared>);

impl Processor for Interval {
    fn process(&mut self, batch: Batch, out: &mut dyn Output) {
        let now = out.now();
        let mut held = self.0.held();
        self.0.settle(&mut held);
        let mut parts = Vec::new();
        for part in batch.parts {
            parts.extend(self.hold(&mut held, part));
        }
        if held.bytes() as u64 >= self.0.config.held_bytes_max {
            self.0.meters.early_emissions.inc();
            parts.extend(self.0.take_out(&mut held));
        }
        self.0.observe(&mut held, now);
        drop(held);
        if !parts.is_empty() {
            out.emit(Batch { parts });
        }
    }

    fn deadline(&self) -> Option<Mono> {
        match self.0.emit_at.load(Ordering::Acquire) {
            u64::MAX => None,
            at => Some(Mono(at)),
        }
    }

    fn tick(&mut self, out: &mut dyn Output) {
        if self.deadline().is_some_and(|at| at <= out.now()) {
            self.flush(out);
        }
    }

    fn flush(&mut self, out: &mut dyn Output) {
        let mut held = self.0.held();
        self.0.settle(&mut held);
        let parts = self.0.take_out(&mut held);
        self.0.observe(&mut held, out.now());
        drop(held);
        if !parts.is_empty() {
            out.emit(Batch { parts });
        }
    }
}

impl Interval {
    /// Holds what waits of a part; the rest is given back.
    fn hold(&self, held: &mut Held, mut part: Part) -> Option<Part> {
        let Payload::Encoded(encoded) = &mut part.data else {
            return Some(part);
        };
        let before = encoded.items();
        let waits = self.0.config.acknowledge == Acknowledge::Delivered;
        let left_out = self.0.take_in(held, encoded, waits.then_some(&part.ack));
        part.ack
            .count_filtered(u32::try_from(left_out).unwrap_or(u32::MAX));
        let taken = before.saturating_sub(encoded.items());
        if part.data.is_empty() && taken > left_out {
            // What is held carries the duty, or it ends here.
            part.ack.resolve(Outcome::Delivered);
            return None;
        }
        part.non_empty()
    }
}

/// One request on its way in.
struct Taking<'s> {
    shared: &'s Shared,
    held: &'s mut Held,
    /// Whoever waits for its points.
    ack: Option<&'s AckToken>,
    /// Points that are left out, of this request or of those that were held.
    superseded: usize,
    /// Those of this request.
    left_out: usize,
}

impl Rewrite for Taking<'_> {
    fn scope<'a>(
        &mut self,
        resource: ResourceMetrics<'a>,
        scope: ScopeMetrics<'a>,
    ) -> Option<Vec<Entry<'a>>> {
        let config = &self.shared.config;
        if !scope.metrics().any(|m| config.holds(&m)) {
            return None;
        }
        let mut passed = Vec::new();
        for metric in scope.metrics() {
            if !config.holds(&metric) {
                passed.push(Entry::Same(metric));
                continue;
            }
            if metric.points().next().is_none() {
                continue;
            }
            let identity = &self.shared.identity;
            let mut place = self.held.metric(identity, resource, scope, metric);
            for point in metric.points() {
                let id = identity.point(place.id(), &point);
                let newest = place.hold(id, point, self.ack);
                self.left_out += usize::from(newest == Newest::Held);
                self.superseded += usize::from(newest != Newest::First);
            }
        }
        Some(passed)
    }
}
