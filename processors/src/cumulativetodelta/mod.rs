//! `cumulativetodelta`: passes on what was added to a sum or histogram instead of its total.
//!
//! The last value of each stream is remembered ([`crate::streams`]). What was passed on and not
//! delivered is taken back: it is part of the next difference, be that of the same point, sent
//! again, or of a later one.

mod config;
mod difference;

use std::sync::Arc;
use std::time::Duration;

use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pdata::otlp::metrics::{Metric, MetricKind, Number, Temporality};
use tailwater_pdata::otlp::rewrite::{Point, PointValue};
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::factory::{Factory, NodeCx, ProcessorFactory, ProcessorSettings};
use tailwater_pipeline::{BuildError, Processor};
use tailwater_telemetry::metrics::{
    CumulativeToDeltaMetrics, DeltaDropsMetrics, DeltaPointsMetrics, MetricsRegistry,
};

use crate::streams::{Chains, Conversion, Converter, Shared, StreamId, Streams, Taken};
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
    let config = CumulativeToDeltaConfig::decode(&mut section);
    section.finish();
    let settings = Settings {
        config,
        chains: Chains::default(),
    };
    (errors.len() == before).then(|| Box::new(settings) as Box<dyn ProcessorSettings>)
}

struct Settings {
    config: CumulativeToDeltaConfig,
    chains: Chains<Shared<ToDelta>>,
}

impl ProcessorSettings for Settings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn Processor>, BuildError> {
        let make = || ToDelta {
            config: self.config.clone(),
            made_ns: u64::try_from(cx.clock.wall_ns()).unwrap_or(0),
            meters: Meters::new(&cx.metrics, &cx.id),
        };
        Ok(Box::new(Converter::new(&self.chains, cx, make)))
    }
}

/// What the shards of a chain do.
struct ToDelta {
    config: CumulativeToDeltaConfig,
    /// Unix time in ns at which the processor was made.
    made_ns: u64,
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

impl Conversion for ToDelta {
    type Last = Last;

    const TEMPORALITY: Temporality = Temporality::Delta;

    fn limits(&self) -> (usize, Duration) {
        (self.config.streams_max, self.config.max_staleness)
    }

    fn applies(&self, metric: &Metric<'_>) -> bool {
        let kind = match metric.kind {
            Some(MetricKind::Sum) => metric.monotonic,
            Some(MetricKind::Histogram | MetricKind::ExponentialHistogram) => true,
            _ => false,
        };
        kind && metric.temporality == Temporality::Cumulative && self.config.converts(metric)
    }

    fn convert<'a>(
        &self,
        streams: &mut Streams<Last>,
        id: StreamId,
        point: Point<'a>,
        now: Mono,
    ) -> Option<Point<'a>> {
        let kind = kind_of(&point.value);
        match self.step(streams, id, point, now) {
            Ok(point) => {
                self.meters.passed[kind].datapoints.inc();
                Some(point)
            }
            Err(reason) => {
                let dropped = &self.meters.dropped[kind][reason as usize];
                dropped.datapoints_dropped.inc();
                None
            }
        }
    }

    fn returned(&self, last: &mut Last, point: Point<'_>) {
        if take_back(&mut last.value, &point.value) {
            last.time_ns = last.time_ns.min(point.start_ns);
            self.meters.all.datapoints_returned.inc();
        }
    }

    fn observe(&self, streams: usize) {
        let n = i64::try_from(streams).unwrap_or(i64::MAX);
        self.meters.all.streams_tracked.set(n);
    }
}

impl ToDelta {
    fn step<'a>(
        &self,
        streams: &mut Streams<Last>,
        id: StreamId,
        mut point: Point<'a>,
        now: Mono,
    ) -> Result<Point<'a>, Reason> {
        if point.no_value() {
            return Err(Reason::NoRecordedValue);
        }
        match point.value {
            // A number that is none says nothing about what was added.
            PointValue::Number(Some(Number::Double(v))) if v.is_nan() => return Ok(point),
            PointValue::Number(None) => return Err(Reason::NoRecordedValue),
            _ => {}
        }
        let Some(last) = streams.see(id, now) else {
            return self.first(streams, id, point, now);
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

    fn first<'a>(
        &self,
        streams: &mut Streams<Last>,
        id: StreamId,
        point: Point<'a>,
        now: Mono,
    ) -> Result<Point<'a>, Reason> {
        let last = Last {
            time_ns: point.time_ns,
            value: remembered(point.value.clone(), None),
        };
        if let Taken::Evicted(n) = streams.insert(id, last, now) {
            self.meters.all.streams_evicted.inc_by(n as u64);
        }
        let began_here = point.start_ns >= self.made_ns && point.time_ns != point.start_ns;
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
