//! `deltatocumulative`: adds up what comes, and passes on totals.
//!
//! The total of each stream is remembered ([`crate::streams`]). A point that comes again because its
//! total was not delivered is in that total already; so the total is passed on once more.

mod add;

use std::sync::Arc;
use std::time::Duration;

use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pdata::otlp::metrics::{Metric, MetricKind, Temporality};
use tailwater_pdata::otlp::rewrite::{Point, PointValue};
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::factory::{Factory, NodeCx, ProcessorFactory, ProcessorSettings};
use tailwater_pipeline::{BuildError, Processor};
use tailwater_telemetry::metrics::{CumulativePointsMetrics, DeltaToCumulativeMetrics};

use crate::streams::{Chains, Conversion, Converter, STREAMS_MAX, Shared, StreamId, Streams};
use add::{Added, add};

/// The factory of this processor.
pub fn factory() -> ProcessorFactory {
    Factory {
        kind: "deltatocumulative",
        about: "Adds up sums and histograms that are reported as differences, and passes on totals.",
        signals: &["metrics"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ProcessorSettings>> {
    let before = errors.len();
    let mut section = Section::new(node, path, errors);
    let config = DeltaToCumulativeConfig::decode(&mut section);
    section.finish();
    let settings = Settings {
        config,
        chains: Chains::default(),
    };
    (errors.len() == before).then(|| Box::new(settings) as Box<dyn ProcessorSettings>)
}

/// The section of a `deltatocumulative` processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaToCumulativeConfig {
    /// How long a stream is remembered after its last point.
    pub max_stale: Duration,
    /// Streams at most. Points of further ones are left out.
    pub max_streams: usize,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "max_stale",
        "How long a stream is remembered after its last point; then it begins anew.",
    ),
    (
        "max_streams",
        "Points of further streams are left out. 0 means 1000000.",
    ),
];

impl DeltaToCumulativeConfig {
    /// Reads the section; mistakes are in it.
    pub fn decode(s: &mut Section<'_, '_>) -> DeltaToCumulativeConfig {
        s.describe(OPTIONS);
        let max_stale = s.duration("max_stale", Duration::from_secs(300));
        if max_stale.is_zero() {
            s.invalid("max_stale", "must be a positive duration");
        }
        let why = "totals are kept in memory. Remove it; they begin anew when the agent starts, and say so \
                   by their start times, which is a reset to whoever reads them";
        s.refuse("storage", why);
        let max_streams = match s.usize("max_streams", STREAMS_MAX, ..) {
            0 => STREAMS_MAX,
            max => max,
        };
        DeltaToCumulativeConfig {
            max_stale,
            max_streams,
        }
    }
}

struct Settings {
    config: DeltaToCumulativeConfig,
    chains: Chains<Shared<ToCumulative>>,
}

impl ProcessorSettings for Settings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn Processor>, BuildError> {
        let make = || {
            let of = |error: &str| CumulativePointsMetrics::new(&cx.metrics, &cx.id, error);
            let meters = DeltaToCumulativeMetrics::new(&cx.metrics, &cx.id);
            let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            let config = self.config.clone();
            meters.streams_limit.set(gauge(config.max_streams as u64));
            let stale = gauge(config.max_stale.as_secs());
            meters.streams_max_stale.set(stale);
            ToCumulative {
                config,
                meters,
                passed: of(""),
                dropped: REASONS.map(of),
            }
        };
        Ok(Box::new(Converter::new(&self.chains, cx, make)))
    }
}

/// What the shards of a chain do.
struct ToCumulative {
    config: DeltaToCumulativeConfig,
    meters: Arc<DeltaToCumulativeMetrics>,
    passed: Arc<CumulativePointsMetrics>,
    dropped: [Arc<CumulativePointsMetrics>; REASONS.len()],
}

/// The total of a stream.
#[derive(Debug)]
struct Total {
    start_ns: u64,
    time_ns: u64,
    value: PointValue,
    /// It was passed on and came back.
    undelivered: bool,
}

/// Why a point is left out.
#[derive(Clone, Copy)]
enum Reason {
    /// There are too many streams.
    Limit,
    /// It belongs to what was counted before the stream was begun anew.
    OlderStart,
    /// It is not newer than the last one.
    OutOfOrder,
}

/// The values of the label `error` in the collector.
const REASONS: [&str; 3] = ["limit", "delta.ErrOlderStart", "delta.ErrOutOfOrder"];

impl Conversion for ToCumulative {
    type Last = Total;

    const TEMPORALITY: Temporality = Temporality::Cumulative;

    fn limits(&self) -> (usize, Duration) {
        (self.config.max_streams, self.config.max_stale)
    }

    fn applies(&self, metric: &Metric<'_>) -> bool {
        use MetricKind::{ExponentialHistogram, Histogram, Sum};
        let kind = matches!(metric.kind, Some(Sum | Histogram | ExponentialHistogram));
        kind && metric.temporality == Temporality::Delta
    }

    fn convert<'a>(
        &self,
        streams: &mut Streams<Total>,
        id: StreamId,
        point: Point<'a>,
        now: Mono,
    ) -> Option<Point<'a>> {
        match self.step(streams, id, point, now) {
            Ok(point) => {
                self.passed.datapoints.inc();
                Some(point)
            }
            Err(reason) => {
                self.dropped[reason as usize].datapoints.inc();
                None
            }
        }
    }

    fn returned(&self, total: &mut Total, _: Point<'_>) {
        total.undelivered = true;
    }

    fn observe(&self, streams: usize) {
        let n = i64::try_from(streams).unwrap_or(i64::MAX);
        self.meters.streams_tracked.set(n);
    }
}

impl ToCumulative {
    fn step<'a>(
        &self,
        streams: &mut Streams<Total>,
        id: StreamId,
        mut point: Point<'a>,
        now: Mono,
    ) -> Result<Point<'a>, Reason> {
        let Some(total) = streams.see(id, now) else {
            return self.first(streams, id, point, now);
        };
        if point.start_ns < total.start_ns {
            return Err(Reason::OlderStart);
        }
        if point.time_ns == total.time_ns && total.undelivered {
            self.meters.datapoints_repeated.inc();
        } else if point.time_ns <= total.time_ns {
            return Err(Reason::OutOfOrder);
        } else {
            total.undelivered = false;
            total.time_ns = point.time_ns;
            if add(&mut total.value, &point.value) == Added::Anew {
                total.start_ns = point.start_ns;
            }
        }
        point.start_ns = total.start_ns;
        if !point.no_value() {
            point.value = total.value.clone();
        }
        Ok(point)
    }

    fn first<'a>(
        &self,
        streams: &mut Streams<Total>,
        id: StreamId,
        point: Point<'a>,
        now: Mono,
    ) -> Result<Point<'a>, Reason> {
        if streams.is_full() && streams.next_sweep().is_some_and(|at| at <= now) {
            streams.expire(now);
        }
        if streams.is_full() {
            return Err(Reason::Limit);
        }
        let total = Total {
            start_ns: point.start_ns,
            time_ns: point.time_ns,
            value: point.value.clone(),
            undelivered: false,
        };
        streams.insert(id, total, now);
        Ok(point)
    }
}
