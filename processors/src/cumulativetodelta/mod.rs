//! `cumulativetodelta`: passes on what was added to a sum or histogram instead of its total.
//!
//! The last value of each stream is remembered ([`crate::streams`]). What was passed on and not
//! delivered is taken back: it is part of the next difference, be that of the same point, sent
//! again, or of a later one.

mod config;
mod difference;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pdata::otlp::metrics::{
    Metric, MetricKind, Number, ResourceMetrics, ScopeMetrics, Temporality,
};
use tailwater_pdata::otlp::rewrite::{Entry, Metric as Changed, Point, PointValue, Rewrite};
use tailwater_pdata::otlp::{Encoded, metrics};
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::factory::{Factory, NodeCx, ProcessorFactory, ProcessorSettings};
use tailwater_pipeline::{Batch, Budget, BuildError, Output, Part, Payload, Processor};
use tailwater_telemetry::metrics::{
    CumulativeToDeltaMetrics, DeltaDropsMetrics, DeltaPointsMetrics, MetricsRegistry,
};

use crate::streams::{Chains, Identity, Place, Returns, StreamId, Streams, Taken};
pub use config::{CumulativeToDeltaConfig, InitialValue, MetricChoice};
use difference::{Difference, difference, remembered, take_back};

/// The factory of this processor.
pub fn factory() -> ProcessorFactory {
    Factory {
        kind: "cumulativetodelta",
        about: "Passes on what was added to sums and histograms instead of their totals.",
        signals: &["metrics"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ProcessorSettings>> {
    let before = errors.len();
    let mut section = Section::new(node, path, errors);
    let config = Arc::new(CumulativeToDeltaConfig::decode(&mut section));
    section.finish();
    let settings = Settings {
        config,
        chains: Chains::default(),
    };
    (errors.len() == before).then(|| Box::new(settings) as Box<dyn ProcessorSettings>)
}

struct Settings {
    config: Arc<CumulativeToDeltaConfig>,
    chains: Chains<Shared>,
}

impl ProcessorSettings for Settings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn Processor>, BuildError> {
        let shared = self.chains.of(cx, || Shared::new(&self.config, cx));
        Ok(Box::new(CumulativeToDelta {
            config: self.config.clone(),
            budget: cx.budget.clone(),
            shared,
        }))
    }
}

/// What all shards of a chain have in common.
struct Shared {
    identity: Identity,
    /// Unix time in ns at which the processor was made.
    made_ns: u64,
    streams: Mutex<Streams<Last>>,
    returns: Arc<Returns>,
    /// When streams are to be forgotten next; `u64::MAX`: not at all.
    sweep_at: AtomicU64,
    meters: Meters,
}

/// The last value of a stream.
#[derive(Debug)]
struct Last {
    time_ns: u64,
    value: PointValue,
}

/// Why a point is not passed on. The names of the first three are the collector's.
#[derive(Clone, Copy)]
enum Reason {
    Initial,
    Reset,
    BucketMismatch,
    NoRecordedValue,
}

const REASONS: [&str; 4] = ["initial", "reset", "bucket_mismatch", "no_recorded_value"];
/// As in the collector's metrics.
const KINDS: [&str; 3] = ["sum", "histogram", "exponential_histogram"];

struct Meters {
    all: Arc<CumulativeToDeltaMetrics>,
    passed: [Arc<DeltaPointsMetrics>; 3],
    dropped: [[Arc<DeltaDropsMetrics>; 4]; 3],
}

impl Meters {
    fn new(registry: &MetricsRegistry, id: &str) -> Meters {
        Meters {
            all: CumulativeToDeltaMetrics::new(registry, id),
            passed: KINDS.map(|kind| DeltaPointsMetrics::new(registry, id, kind)),
            dropped: KINDS.map(|kind| {
                REASONS.map(|reason| DeltaDropsMetrics::new(registry, id, kind, reason))
            }),
        }
    }
}

fn kind_of(value: &PointValue) -> usize {
    match value {
        PointValue::Number(_) | PointValue::Summary => 0,
        PointValue::Histogram(_) => 1,
        PointValue::Exponential(_) => 2,
    }
}

impl Shared {
    fn new(config: &CumulativeToDeltaConfig, cx: &NodeCx) -> Shared {
        Shared {
            identity: Identity::new(cx.seed),
            made_ns: u64::try_from(cx.clock.wall_ns()).unwrap_or(0),
            streams: Mutex::new(Streams::new(config.streams_max, config.max_staleness)),
            returns: Arc::default(),
            sweep_at: AtomicU64::new(u64::MAX),
            meters: Meters::new(&cx.metrics, &cx.id),
        }
    }

    /// Takes back what came back, and says what is remembered now.
    fn settle(&self, streams: &mut Streams<Last>) {
        for encoded in self.returns.take() {
            each_point(&self.identity, &encoded, |id, point| {
                let Some(last) = streams.get_mut(id) else {
                    return;
                };
                let point = Point::of(point);
                if take_back(&mut last.value, &point.value) {
                    last.time_ns = last.time_ns.min(point.start_ns);
                    self.meters.all.datapoints_returned.inc();
                }
            });
        }
    }

    fn observe(&self, streams: &Streams<Last>) {
        let n = i64::try_from(streams.len()).unwrap_or(i64::MAX);
        self.meters.all.streams_tracked.set(n);
        let at = streams.next_sweep().map_or(u64::MAX, |at| at.0);
        self.sweep_at.store(at, Ordering::Release);
    }
}

/// Shows the points of all metrics with the streams they belong to.
fn each_point(
    identity: &Identity,
    encoded: &Encoded,
    mut show: impl FnMut(StreamId, metrics::Point<'_>),
) {
    for resource in encoded.resource_metrics() {
        let at = identity.resource(resource);
        for scope in resource.scopes() {
            let at = identity.scope(at, scope);
            for metric in scope.metrics() {
                let at = identity.metric(at, &metric);
                metric
                    .points()
                    .for_each(|p| show(identity.point(at, &p), p));
            }
        }
    }
}

/// The instance of one shard.
struct CumulativeToDelta {
    config: Arc<CumulativeToDeltaConfig>,
    budget: Arc<Budget>,
    shared: Arc<Shared>,
}

impl Processor for CumulativeToDelta {
    fn process(&mut self, batch: Batch, out: &mut dyn Output) {
        let mut parts = Vec::with_capacity(batch.parts.len());
        for part in batch.parts {
            parts.extend(self.convert(part, out.now()));
        }
        if !parts.is_empty() {
            out.emit(Batch { parts });
        }
    }

    fn deadline(&self) -> Option<Mono> {
        match self.shared.sweep_at.load(Ordering::Acquire) {
            u64::MAX => None,
            at => Some(Mono(at)),
        }
    }

    fn tick(&mut self, out: &mut dyn Output) {
        let mut streams = self.streams();
        streams.expire(out.now());
        self.shared.observe(&streams);
    }
}

impl CumulativeToDelta {
    fn streams(&self) -> std::sync::MutexGuard<'_, Streams<Last>> {
        let streams = &self.shared.streams;
        streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn convert(&self, mut part: Part, now: Mono) -> Option<Part> {
        let Payload::Encoded(encoded) = &mut part.data else {
            return Some(part);
        };
        let before = encoded.items();
        let mut streams = self.streams();
        self.shared.settle(&mut streams);
        let mut conversion = Conversion {
            config: &self.config,
            shared: &self.shared,
            streams: &mut streams,
            now,
            resource: None,
            changed: false,
        };
        encoded.rewrite(&mut conversion);
        let changed = conversion.changed;
        self.shared.observe(&streams);
        drop(streams);
        let dropped = before.saturating_sub(encoded.items());
        part.ack
            .count_filtered(u32::try_from(dropped).unwrap_or(u32::MAX));
        let part = part.non_empty()?;
        Some(match changed {
            true => self.shared.returns.watch(part, &self.budget),
            false => part,
        })
    }
}

/// One request on its way through.
struct Conversion<'s> {
    config: &'s CumulativeToDeltaConfig,
    shared: &'s Shared,
    streams: &'s mut Streams<Last>,
    now: Mono,
    /// The resource of now; known once something is converted there.
    resource: Option<Place>,
    changed: bool,
}

impl Conversion<'_> {
    fn applies(&self, metric: &Metric<'_>) -> bool {
        let kind = match metric.kind {
            Some(MetricKind::Sum) => metric.monotonic,
            Some(MetricKind::Histogram | MetricKind::ExponentialHistogram) => true,
            _ => false,
        };
        kind && metric.temporality == Temporality::Cumulative && self.config.converts(metric)
    }

    fn metric<'a>(&mut self, at: Place, metric: Metric<'a>) -> Option<Changed<'a>> {
        let at = self.shared.identity.metric(at, &metric);
        let mut new = Changed::without_points(metric);
        new.set_temporality(Temporality::Delta);
        for found in metric.points() {
            let id = self.shared.identity.point(at, &found);
            new.points.extend(self.point(id, Point::of(found)));
        }
        (!new.points.is_empty()).then_some(new)
    }

    fn point<'a>(&mut self, id: StreamId, point: Point<'a>) -> Option<Point<'a>> {
        let kind = kind_of(&point.value);
        let meters = &self.shared.meters;
        match self.step(id, point) {
            Ok(point) => {
                meters.passed[kind].datapoints.inc();
                Some(point)
            }
            Err(reason) => {
                let dropped = &meters.dropped[kind][reason as usize];
                dropped.datapoints_dropped.inc();
                None
            }
        }
    }

    fn step<'a>(&mut self, id: StreamId, mut point: Point<'a>) -> Result<Point<'a>, Reason> {
        if point.no_value() {
            return Err(Reason::NoRecordedValue);
        }
        match point.value {
            // A number that is none says nothing about what was added.
            PointValue::Number(Some(Number::Double(v))) if v.is_nan() => return Ok(point),
            PointValue::Number(None) => return Err(Reason::NoRecordedValue),
            _ => {}
        }
        let Some(last) = self.streams.see(id, self.now) else {
            return self.first(id, point);
        };
        let start_ns = last.time_ns;
        let difference = difference(&point.value, &last.value);
        last.time_ns = point.time_ns;
        last.value = remembered(point.value.clone(), Some(&last.value));
        point.value = match (difference, point.value) {
            (Difference::Added(added), _) => added,
            // As in the collector, all of a histogram that was begun anew is passed on.
            (Difference::Reset, PointValue::Histogram(all)) => PointValue::Histogram(all),
            (Difference::Reset, _) => return Err(Reason::Reset),
            (Difference::Mismatch, _) => return Err(Reason::BucketMismatch),
        };
        point.start_ns = start_ns;
        Ok(without_extremes(point))
    }

    fn first<'a>(&mut self, id: StreamId, point: Point<'a>) -> Result<Point<'a>, Reason> {
        let last = Last {
            time_ns: point.time_ns,
            value: remembered(point.value.clone(), None),
        };
        if let Taken::Evicted(n) = self.streams.insert(id, last, self.now) {
            self.shared.meters.all.streams_evicted.inc_by(n as u64);
        }
        let began_here = point.start_ns >= self.shared.made_ns && point.time_ns != point.start_ns;
        match self.config.initial_value {
            InitialValue::Keep => Ok(without_extremes(point)),
            InitialValue::Auto if began_here => Ok(without_extremes(point)),
            InitialValue::Auto | InitialValue::Drop => Err(Reason::Initial),
        }
    }
}

/// The smallest and largest of all are not those of what was added.
fn without_extremes(mut point: Point<'_>) -> Point<'_> {
    match &mut point.value {
        PointValue::Histogram(h) => (h.min, h.max) = (None, None),
        PointValue::Exponential(e) => (e.min, e.max) = (None, None),
        _ => {}
    }
    point
}

impl Rewrite for Conversion<'_> {
    fn resource(&mut self, _: ResourceMetrics<'_>) {
        self.resource = None;
    }

    fn scope<'a>(
        &mut self,
        resource: ResourceMetrics<'a>,
        scope: ScopeMetrics<'a>,
    ) -> Option<Vec<Entry<'a>>> {
        if !scope.metrics().any(|m| self.applies(&m)) {
            return None;
        }
        self.changed = true;
        let identity = &self.shared.identity;
        let around = *self
            .resource
            .get_or_insert_with(|| identity.resource(resource));
        let at = identity.scope(around, scope);
        let mut entries = Vec::new();
        for metric in scope.metrics() {
            if self.applies(&metric) {
                entries.extend(self.metric(at, metric).map(Entry::New));
            } else {
                entries.push(Entry::Same(metric));
            }
        }
        Some(entries)
    }
}
