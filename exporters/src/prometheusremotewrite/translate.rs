//! From metrics of OTLP to series of Prometheus.

use std::collections::HashMap;
use std::fmt::Write as _;

use foldhash::fast::FixedState;
use tailwater_pdata::otlp::Encoded;
use tailwater_pdata::otlp::metrics::{
    Exemplar, ExponentialPoint, HistogramPoint, Metric, MetricKind, NumberPoint, Point, PointHead,
    ResourceMetrics, ScopeMetrics, SummaryPoint, Temporality,
};

use super::labels::{Candidate, LabelMaker, Rank};
use super::names::NameKind;
use super::native::{self, STALE, Spans};
use super::options::{ResourceLabels, TranslationOptions};
use super::series::{Collected, Family, Label, MetricType, Value, lane};
use super::symbols::{Symbol, Symbols};

/// Texts that are remembered over batches, at most.
const SYMBOLS_MAX: usize = 100_000;
/// The same in bytes.
const SYMBOL_BYTES_MAX: usize = 8 << 20;
/// Most characters of the labels of an exemplar, names included, as OpenMetrics has it.
const EXEMPLAR_CHARS_MAX: usize = 128;

/// Points that have no series.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    /// How many.
    pub points: u32,
    /// Why one of them has none.
    pub cause: Option<String>,
}

impl Dropped {
    fn add(&mut self, points: usize, cause: impl FnOnce() -> String) {
        if points > 0 {
            self.points += u32::try_from(points).unwrap_or(u32::MAX);
            self.cause.get_or_insert_with(cause);
        }
    }
}

/// Names that are used again and again.
#[derive(Clone, Copy)]
struct Fixed {
    name: Symbol,
    le: Symbol,
    quantile: Symbol,
    infinite: Symbol,
    trace_id: Symbol,
    span_id: Symbol,
}

impl Fixed {
    fn new(symbols: &mut Symbols) -> Fixed {
        Fixed {
            name: symbols.intern(b"__name__"),
            le: symbols.intern(b"le"),
            quantile: symbols.intern(b"quantile"),
            infinite: symbols.intern(b"+Inf"),
            trace_id: symbols.intern(b"trace_id"),
            span_id: symbols.intern(b"span_id"),
        }
    }
}

/// The names of the series of a metric.
#[derive(Clone, Copy)]
struct Names {
    base: Symbol,
    /// With `_bucket`, `_sum` and `_count`; `base` for those that have no such series.
    bucket: Symbol,
    sum: Symbol,
    count: Symbol,
    /// The unit in words.
    unit: Symbol,
}

/// What decides about the names of a metric: its name and unit, kind, and whether it is a counter.
type NameKey = (Symbol, Symbol, MetricKind, bool);

/// The metric whose points are translated.
#[derive(Clone, Copy)]
struct Current {
    /// The number of its family.
    family: u32,
    names: Names,
    /// Values count from a start on.
    counts: bool,
}

/// Translates batches, one after another.
pub(super) struct Translator {
    options: TranslationOptions,
    pub labels: LabelMaker,
    /// The series of the batch.
    pub data: Collected,
    fixed: Fixed,
    /// Names of metrics, kept over batches as symbols are; `None` if there is none.
    names: HashMap<NameKey, Option<Names>, FixedState>,
    /// Labels of the resource and the scope.
    common: Vec<Candidate>,
    /// Those of the point, too.
    candidates: Vec<Candidate>,
    /// The labels of the point.
    base: Vec<Label>,
    /// The labels of a series.
    full: Vec<Label>,
    spans: Spans,
    /// Upper bounds of buckets and their series.
    buckets: Vec<(f64, u32)>,
    text: String,
}

impl Translator {
    pub fn new(options: TranslationOptions) -> Translator {
        let mut labels = LabelMaker::new(&options);
        Translator {
            options,
            fixed: Fixed::new(&mut labels.symbols),
            labels,
            data: Collected::default(),
            names: HashMap::default(),
            common: Vec::new(),
            candidates: Vec::new(),
            base: Vec::new(),
            full: Vec::new(),
            spans: Spans::default(),
            buckets: Vec::new(),
            text: String::new(),
        }
    }

    /// Forgets the series of the batch before.
    pub fn begin(&mut self) {
        self.data.clear();
        let full = self.labels.len() > SYMBOLS_MAX || self.labels.heap_bytes() > SYMBOL_BYTES_MAX;
        if full {
            self.labels.clear();
            self.fixed = Fixed::new(&mut self.labels.symbols);
            self.names.clear();
        }
    }

    /// Adds the series of the part with that number of the batch.
    pub fn part(&mut self, part: u32, metrics: &Encoded, dropped: &mut Dropped) {
        for resource in metrics.resource_metrics() {
            self.resource(part, resource, dropped);
        }
    }

    fn resource(&mut self, part: u32, resource: ResourceMetrics<'_>, dropped: &mut Dropped) {
        self.common.clear();
        let identified = self.labels.target(resource, &mut self.common);
        let target = self.common.clone();
        match self.options.resource_labels {
            ResourceLabels::None => {}
            ResourceLabels::All => self.labels.resource(resource, true, &mut self.common),
            ResourceLabels::WithoutService => {
                self.labels.resource(resource, false, &mut self.common);
            }
        }
        let of_resource = self.common.len();
        let mut newest = 0;
        for scope in resource.scopes() {
            self.common.truncate(of_resource);
            newest = newest.max(self.scope(part, scope, dropped));
        }
        if self.options.target_info && identified && newest != 0 {
            self.target_info(resource, target, newest);
        }
    }

    /// Gives the time of the newest point, in ns, 0 if there is none.
    fn scope(&mut self, part: u32, scope: ScopeMetrics<'_>, dropped: &mut Dropped) -> u64 {
        if self.options.scope_info {
            self.labels.scope(scope, &mut self.common);
        }
        let mut newest = 0;
        for metric in scope.metrics() {
            let Some(current) = self.metric(&metric, dropped) else {
                continue;
            };
            for point in metric.points() {
                match self.point(current, part, &point) {
                    Ok(()) => newest = newest.max(point.head().time_ns),
                    Err(why) => dropped.add(1, || {
                        let name = String::from_utf8_lossy(metric.name);
                        format!("a point of {name:?} cannot be written: {why}")
                    }),
                }
            }
        }
        newest
    }

    /// What its points have in common. `None` if they cannot be written.
    fn metric(&mut self, metric: &Metric<'_>, dropped: &mut Dropped) -> Option<Current> {
        let shown = || String::from_utf8_lossy(metric.name).into_owned();
        let kind = metric.kind?;
        let of_time = !matches!(kind, MetricKind::Gauge | MetricKind::Summary);
        if of_time && metric.temporality != Temporality::Cumulative {
            dropped.add(metric.points().count(), || {
                let temporality = match metric.temporality {
                    Temporality::Delta => "delta",
                    _ => "no",
                };
                format!(
                    "{:?} has {temporality} temporality, and Prometheus has cumulative values only",
                    shown()
                )
            });
            return None;
        }
        let counter = kind == MetricKind::Sum && metric.monotonic;
        let symbols = &mut self.labels.symbols;
        let (name, unit) = (symbols.intern(metric.name), symbols.intern(metric.unit));
        let known = self.names.get(&(name, unit, kind, counter)).copied();
        let names = known.unwrap_or_else(|| {
            let made = self.make_names(metric, kind, counter);
            self.names.insert((name, unit, kind, counter), made);
            made
        });
        let Some(names) = names else {
            dropped.add(metric.points().count(), || {
                format!("no name of a metric can be made of {:?}", shown())
            });
            return None;
        };
        let in_metadata = match kind {
            MetricKind::Sum if counter => MetricType::Counter,
            MetricKind::Sum | MetricKind::Gauge => MetricType::Gauge,
            MetricKind::Summary => MetricType::Summary,
            MetricKind::Histogram | MetricKind::ExponentialHistogram => MetricType::Histogram,
        };
        self.data.families.push(Family {
            name: names.base,
            kind: in_metadata,
            help: self.labels.symbols.intern(metric.description),
            unit: names.unit,
        });
        Some(Current {
            family: self.data.families.len() as u32 - 1,
            names,
            counts: counter || in_metadata != MetricType::Gauge,
        })
    }

    /// The names of a metric that was not seen before.
    #[cold]
    fn make_names(
        &mut self,
        metric: &Metric<'_>,
        kind: MetricKind,
        counter: bool,
    ) -> Option<Names> {
        let name_kind = match kind {
            MetricKind::Gauge => NameKind::Gauge,
            MetricKind::Sum if counter => NameKind::Counter,
            _ => NameKind::Other,
        };
        let [name, unit] = [metric.name, metric.unit].map(String::from_utf8_lossy);
        let naming = &self.options.naming;
        let name = naming.metric(&name, &unit, name_kind);
        if name.is_empty() {
            return None;
        }
        let unit = naming.unit(&unit);
        let symbols = &mut self.labels.symbols;
        let mut with = |suffix: &str| symbols.intern(format!("{name}{suffix}").as_bytes());
        let base = with("");
        let (bucket, sum, count) = match kind {
            MetricKind::Histogram => (with("_bucket"), with("_sum"), with("_count")),
            MetricKind::Summary => (base, with("_sum"), with("_count")),
            _ => (base, base, base),
        };
        Some(Names {
            base,
            bucket,
            sum,
            count,
            unit: symbols.intern(unit.as_bytes()),
        })
    }

    fn point(&mut self, m: Current, part: u32, point: &Point<'_>) -> Result<(), &'static str> {
        self.candidates.clear();
        self.candidates.extend_from_slice(&self.common);
        for attribute in point.attributes() {
            let label = self.labels.attribute(&attribute, Rank::Point);
            self.candidates.push(label);
        }
        let base = &mut self.base;
        self.labels.resolve(&self.candidates, base);
        let at = At::new(
            &point.head(),
            m.counts,
            lane(&self.labels.symbols, m.names.base, base),
        );
        let home = match point {
            Point::Number(p) => self.number(m, at, p)?,
            Point::Histogram(p) => self.histogram(m, at, p),
            Point::Exponential(p) => self.exponential(m, at, p)?,
            Point::Summary(p) => self.summary(m, at, p),
        };
        self.data.homes.push((home, part));
        match point {
            // Those of a histogram belong to its buckets.
            Point::Histogram(_) => {
                for exemplar in point.exemplars() {
                    let value = exemplar.value.map_or(0.0, |v| v.as_f64());
                    let bucket = self.buckets.iter().find(|(bound, _)| value <= *bound);
                    if let Some(&(_, series)) = bucket {
                        self.exemplar(series, at, &exemplar);
                    }
                }
            }
            _ => point
                .exemplars()
                .for_each(|exemplar| self.exemplar(home, at, &exemplar)),
        }
        Ok(())
    }

    /// The series of the point with that name, and with that label in the place of one of its own.
    fn series(
        &mut self,
        m: Current,
        at: At,
        name: Symbol,
        extra: Option<Label>,
        native: bool,
    ) -> u32 {
        let symbols = &self.labels.symbols;
        self.full.clear();
        let mut added = [Some((self.fixed.name, name)), extra].into_iter().flatten();
        let mut next = added.next();
        for label in &self.base {
            while let Some(new) = next {
                if label.0 != new.0 && symbols.get(label.0) < symbols.get(new.0) {
                    break;
                }
                self.full.push(new);
                next = added.next();
            }
            if self.full.last().is_none_or(|last| last.0 != label.0) {
                self.full.push(*label);
            }
        }
        self.full.extend(next.into_iter().chain(added));
        self.data.series(&self.full, native, m.family, at.lane)
    }

    fn push(&mut self, series: u32, at: At, value: f64) {
        let value = match at.stale {
            true => f64::from_bits(STALE),
            false => value,
        };
        self.data
            .push(series, at.time, at.start, Value::Number(value));
    }

    fn number(&mut self, m: Current, at: At, p: &NumberPoint<'_>) -> Result<u32, &'static str> {
        let value = match p.value {
            Some(value) => value.as_f64(),
            None if at.stale => 0.0,
            None => return Err("it has no value"),
        };
        let series = self.series(m, at, m.names.base, None, false);
        self.push(series, at, value);
        Ok(series)
    }

    fn histogram(&mut self, m: Current, at: At, p: &HistogramPoint<'_>) -> u32 {
        if let Some(sum) = p.sum {
            let series = self.series(m, at, m.names.sum, None, false);
            self.push(series, at, sum);
        }
        let home = self.series(m, at, m.names.count, None, false);
        self.push(home, at, p.count as f64);
        self.buckets.clear();
        let mut below = 0u64;
        for (bound, count) in p.explicit_bounds().zip(p.bucket_counts()) {
            if bound == f64::INFINITY {
                break;
            }
            below = below.saturating_add(count);
            let le = self.float(bound);
            self.bucket(m, at, (bound, le), below);
        }
        self.bucket(m, at, (f64::INFINITY, self.fixed.infinite), p.count);
        home
    }

    fn bucket(&mut self, m: Current, at: At, (bound, le): (f64, Symbol), count: u64) {
        let label = Some((self.fixed.le, le));
        let series = self.series(m, at, m.names.bucket, label, false);
        self.push(series, at, count as f64);
        self.buckets.push((bound, series));
    }

    fn exponential(
        &mut self,
        m: Current,
        at: At,
        p: &ExponentialPoint<'_>,
    ) -> Result<u32, &'static str> {
        let from = self.data.native.len();
        native::encode(p, &mut self.spans, &mut self.data.native).map_err(|e| e.as_str())?;
        let len = self.data.native.len() - from;
        let (Ok(from), Ok(len)) = (u32::try_from(from), u32::try_from(len)) else {
            self.data.native.truncate(from);
            return Err("the batch has more than 4 GiB of histograms");
        };
        let series = self.series(m, at, m.names.base, None, true);
        self.data
            .push(series, at.time, at.start, Value::Native { from, len });
        Ok(series)
    }

    fn summary(&mut self, m: Current, at: At, p: &SummaryPoint<'_>) -> u32 {
        let sum = self.series(m, at, m.names.sum, None, false);
        self.push(sum, at, p.sum);
        let home = self.series(m, at, m.names.count, None, false);
        self.push(home, at, p.count as f64);
        for (quantile, value) in p.quantiles() {
            let label = (self.fixed.quantile, self.float(quantile));
            let series = self.series(m, At { start: 0, ..at }, m.names.base, Some(label), false);
            self.push(series, At { start: 0, ..at }, value);
        }
        home
    }

    /// A number as a label: the shortest digits that mean it, without an exponent.
    fn float(&mut self, v: f64) -> Symbol {
        self.text.clear();
        // Writing to a string cannot fail.
        let _ = match v {
            v if v == f64::INFINITY => self.text.write_str("+Inf"),
            v if v == f64::NEG_INFINITY => self.text.write_str("-Inf"),
            v => write!(self.text, "{v}"),
        };
        self.labels.symbols.intern(self.text.as_bytes())
    }

    fn exemplar(&mut self, series: u32, at: At, exemplar: &Exemplar<'_>) {
        let value = exemplar.value.map_or(0.0, |v| v.as_f64());
        let time = match exemplar.time_ns {
            0 => at.time,
            ns => millis(ns),
        };
        self.candidates.clear();
        for attribute in exemplar.attributes() {
            let label = self.labels.attribute(&attribute, Rank::Point);
            self.candidates.push(label);
        }
        self.labels.resolve(&self.candidates, &mut self.full);
        let ids = [
            (self.fixed.trace_id, exemplar.trace_id),
            (self.fixed.span_id, exemplar.span_id),
        ];
        let symbols = &mut self.labels.symbols;
        let ids: Vec<Label> = ids
            .into_iter()
            .filter(|(_, id)| id.iter().any(|b| *b != 0))
            .map(|(name, id)| {
                self.text.clear();
                id.iter().for_each(|b| {
                    let _ = write!(self.text, "{b:02x}");
                });
                (name, symbols.intern(self.text.as_bytes()))
            })
            .collect();
        self.full
            .retain(|label| ids.iter().all(|id| id.0 != label.0));
        let chars = |labels: &[Label]| -> usize {
            let texts = labels.iter().flat_map(|(name, value)| [*name, *value]);
            let count = |s| String::from_utf8_lossy(symbols.get(s)).chars().count();
            texts.map(count).sum()
        };
        if chars(&ids) + chars(&self.full) > EXEMPLAR_CHARS_MAX {
            self.full.clear();
        }
        self.full.extend(ids);
        self.full
            .sort_unstable_by(|a, b| symbols.get(a.0).cmp(symbols.get(b.0)));
        self.data.push_exemplar(series, value, time, &self.full);
    }

    /// The series that has the attributes of the resource as labels.
    fn target_info(&mut self, resource: ResourceMetrics<'_>, target: Vec<Candidate>, newest: u64) {
        self.candidates.clear();
        self.labels.resource(resource, false, &mut self.candidates);
        if self.candidates.is_empty() {
            return;
        }
        self.candidates.extend(target);
        self.labels.resolve(&self.candidates, &mut self.base);
        let symbols = &mut self.labels.symbols;
        let name = self.options.naming.own("target_info");
        let (name, empty) = (symbols.intern(name.as_bytes()), symbols.intern(b""));
        self.data.families.push(Family {
            name,
            kind: MetricType::Gauge,
            help: symbols.intern(b"Target metadata"),
            unit: empty,
        });
        let head = PointHead {
            time_ns: newest,
            ..PointHead::default()
        };
        let at = At::new(&head, false, lane(symbols, name, &self.base));
        let current = Current {
            family: self.data.families.len() as u32 - 1,
            names: Names {
                base: name,
                bucket: name,
                sum: name,
                count: name,
                unit: empty,
            },
            counts: false,
        };
        let series = self.series(current, at, name, None, false);
        if !self.data.ends_at(series, at.time) {
            self.push(series, at, 1.0);
        }
    }
}

/// Where and when the values of a point are.
#[derive(Clone, Copy)]
struct At {
    time: i64,
    start: i64,
    stale: bool,
    lane: u8,
}

impl At {
    fn new(head: &PointHead, counts: bool, lane: u8) -> At {
        At {
            time: millis(head.time_ns),
            start: if counts { millis(head.start_ns) } else { 0 },
            stale: head.no_value(),
            lane,
        }
    }
}

fn millis(ns: u64) -> i64 {
    // Less than 2^63 after the division.
    (ns / 1_000_000) as i64
}
