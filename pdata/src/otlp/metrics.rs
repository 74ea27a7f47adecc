//! Requests of metrics, read where they lie: nothing is copied, and nothing is allocated per point.
//!
//! What repeated values mean is as everywhere in this module: of single values the last counts,
//! messages are merged, and of two kinds of data of a metric the last one counts.

use super::Encoded;
pub use super::points::{
    Buckets, Exemplar, ExponentialPoint, HistogramPoint, Number, NumberPoint, Point, PointHead,
    SummaryPoint,
};
use super::value::{self, KeyValue};
use super::wire::{Fields, Raw};
use crate::Signal;
use crate::value::{Value, ValueRef};

impl Encoded {
    /// The metrics in it, by resource. Nothing for a request of another signal.
    pub fn resource_metrics(&self) -> impl Iterator<Item = ResourceMetrics<'_>> {
        let metrics = self.signal() == Signal::Metrics;
        let chunks = self.chunks().filter(move |_| metrics);
        chunks
            .flat_map(|body| Subs::new(body, 1))
            .map(ResourceMetrics)
    }
}

/// The values of the fields `number` of a message, all of them messages.
#[derive(Clone, Copy)]
pub(super) struct Subs<'a> {
    buf: &'a [u8],
    at: usize,
    number: u32,
}

impl<'a> Subs<'a> {
    pub(super) fn new(buf: &'a [u8], number: u32) -> Subs<'a> {
        Subs::from(buf, 0, number)
    }

    /// The same, from the field on that begins at `at`.
    pub(super) fn from(buf: &'a [u8], at: usize, number: u32) -> Subs<'a> {
        Subs { buf, at, number }
    }
}

impl<'a> Iterator for Subs<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let mut fields = Fields::new(self.buf, self.at);
        while let Some((number, raw)) = fields.next() {
            if let Raw::Len(from, to) = raw
                && number == self.number
            {
                self.at = fields.at();
                return Some(&self.buf[from..to]);
            }
        }
        self.at = self.buf.len();
        None
    }
}

/// The metrics of one resource.
#[derive(Clone, Copy)]
pub struct ResourceMetrics<'a>(pub(super) &'a [u8]);

impl<'a> ResourceMetrics<'a> {
    /// The resource's attributes, in order. A key may come more than once.
    pub fn attributes(self) -> Attributes<'a> {
        Attributes::nested(self.0, 1, 1)
    }

    /// Its metrics, by scope.
    pub fn scopes(self) -> impl Iterator<Item = ScopeMetrics<'a>> + use<'a> {
        Subs::new(self.0, 2).map(ScopeMetrics::of)
    }
}

/// The metrics of one scope. Text is UTF-8.
#[derive(Clone, Copy)]
pub struct ScopeMetrics<'a> {
    pub(super) buf: &'a [u8],
    /// The scope's name.
    pub name: &'a [u8],
    /// The scope's version.
    pub version: &'a [u8],
    /// The schema of the metrics.
    pub schema_url: &'a [u8],
}

impl<'a> ScopeMetrics<'a> {
    pub(super) fn of(buf: &'a [u8]) -> ScopeMetrics<'a> {
        let mut scope = ScopeMetrics {
            buf,
            name: &[],
            version: &[],
            schema_url: &[],
        };
        for (number, raw) in Fields::new(buf, 0) {
            match (number, raw) {
                (1, Raw::Len(from, to)) => {
                    for (number, raw) in Fields::new(&buf[..to], from) {
                        match (number, raw) {
                            (1, Raw::Len(from, to)) => scope.name = &buf[from..to],
                            (2, Raw::Len(from, to)) => scope.version = &buf[from..to],
                            _ => {}
                        }
                    }
                }
                (3, Raw::Len(from, to)) => scope.schema_url = &buf[from..to],
                _ => {}
            }
        }
        scope
    }

    /// The scope's attributes.
    pub fn attributes(self) -> Attributes<'a> {
        Attributes::nested(self.buf, 1, 3)
    }

    /// Its metrics.
    pub fn metrics(self) -> impl Iterator<Item = Metric<'a>> + use<'a> {
        Subs::new(self.buf, 2).map(Metric::of)
    }
}

/// What kind of data a metric has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MetricKind {
    /// Values as they are at a moment.
    Gauge,
    /// Sums of measurements.
    Sum,
    /// Histograms with bounds that are written out.
    Histogram,
    /// Histograms whose bounds are powers of a base.
    ExponentialHistogram,
    /// Quantiles.
    Summary,
}

/// What time the values of a metric are about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Temporality {
    /// Not said, or a number without a meaning.
    #[default]
    Unspecified,
    /// From the last report on.
    Delta,
    /// From a fixed start on.
    Cumulative,
}

/// A metric. Text is UTF-8.
#[derive(Clone, Copy)]
pub struct Metric<'a> {
    pub(super) buf: &'a [u8],
    /// Where the first of the messages is that make up its data.
    pub(super) data_at: usize,
    pub(super) data_number: u32,
    /// Its name.
    pub name: &'a [u8],
    /// What it is, for people.
    pub description: &'a [u8],
    /// Its unit, as in UCUM.
    pub unit: &'a [u8],
    /// `None` if it has no data that is known.
    pub kind: Option<MetricKind>,
    /// Of sums and histograms; [`Temporality::Unspecified`] for the others.
    pub temporality: Temporality,
    /// Of sums: it never falls but by a new start.
    pub monotonic: bool,
}

impl<'a> Metric<'a> {
    pub(super) fn of(buf: &'a [u8]) -> Metric<'a> {
        let mut metric = Metric {
            buf,
            data_at: buf.len(),
            data_number: 0,
            name: &[],
            description: &[],
            unit: &[],
            kind: None,
            temporality: Temporality::default(),
            monotonic: false,
        };
        let mut fields = Fields::new(buf, 0);
        let mut at = 0;
        while let Some((number, raw)) = fields.next() {
            if let Raw::Len(from, to) = raw {
                match number {
                    1 => metric.name = &buf[from..to],
                    2 => metric.description = &buf[from..to],
                    3 => metric.unit = &buf[from..to],
                    _ => metric.data(number, at, &buf[from..to]),
                }
            }
            at = fields.at();
        }
        metric
    }

    /// Takes a field that is perhaps data.
    fn data(&mut self, number: u32, at: usize, data: &[u8]) {
        let kind = match number {
            5 => MetricKind::Gauge,
            7 => MetricKind::Sum,
            9 => MetricKind::Histogram,
            10 => MetricKind::ExponentialHistogram,
            11 => MetricKind::Summary,
            _ => return,
        };
        if self.data_number != number {
            (self.data_number, self.data_at, self.kind) = (number, at, Some(kind));
            (self.temporality, self.monotonic) = (Temporality::Unspecified, false);
        }
        if matches!(kind, MetricKind::Gauge | MetricKind::Summary) {
            return;
        }
        // Points are many, and what follows them is found from the end of each.
        for (number, raw) in Fields::new(data, 0) {
            match (number, raw) {
                (2, Raw::Varint(1)) => self.temporality = Temporality::Delta,
                (2, Raw::Varint(2)) => self.temporality = Temporality::Cumulative,
                (2, Raw::Varint(_)) => self.temporality = Temporality::Unspecified,
                (3, Raw::Varint(v)) if kind == MetricKind::Sum => self.monotonic = v != 0,
                _ => {}
            }
        }
    }

    /// Its data points. Nothing without data.
    pub fn points(self) -> impl Iterator<Item = Point<'a>> + use<'a> {
        let data = Subs::from(self.buf, self.data_at, self.data_number);
        let kind = self.kind;
        data.flat_map(|data| Subs::new(data, 1))
            .filter_map(move |buf| {
                Some(match kind? {
                    MetricKind::Gauge | MetricKind::Sum => Point::Number(NumberPoint::of(buf)),
                    MetricKind::Histogram => Point::Histogram(HistogramPoint::of(buf)),
                    MetricKind::ExponentialHistogram => {
                        Point::Exponential(ExponentialPoint::of(buf))
                    }
                    MetricKind::Summary => Point::Summary(SummaryPoint::of(buf)),
                })
            })
    }
}

/// A list of keys and values, in order. A key may come more than once.
#[derive(Clone)]
pub struct Attributes<'a> {
    /// Messages whose attributes are still to come.
    around: Subs<'a>,
    within: Subs<'a>,
}

impl<'a> Attributes<'a> {
    /// The fields `number` of the message `buf`.
    pub(super) fn new(buf: &'a [u8], number: u32) -> Attributes<'a> {
        Attributes {
            around: Subs::new(&[], 0),
            within: Subs::new(buf, number),
        }
    }

    /// The fields `number` of all messages that are fields `around` of `buf`.
    fn nested(buf: &'a [u8], around: u32, number: u32) -> Attributes<'a> {
        Attributes {
            around: Subs::new(buf, around),
            within: Subs::new(&[], number),
        }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    #[inline]
    fn next(&mut self) -> Option<Attribute<'a>> {
        loop {
            if let Some(pair) = self.within.next() {
                return Some(Attribute::of(pair));
            }
            self.within = Subs::new(self.around.next()?, self.within.number);
        }
    }
}

/// A key and its value.
pub struct Attribute<'a> {
    pair: &'a [u8],
    parsed: KeyValue,
}

impl<'a> Attribute<'a> {
    #[inline]
    fn of(pair: &'a [u8]) -> Attribute<'a> {
        Attribute {
            pair,
            parsed: KeyValue::of(pair, 0, pair.len()),
        }
    }

    /// The key: UTF-8.
    #[inline]
    pub fn key(&self) -> &'a [u8] {
        self.parsed.key(self.pair)
    }

    /// The value.
    #[inline]
    pub fn value(&self) -> AnyValue<'a> {
        match self.parsed.value_range() {
            Some((from, to)) => AnyValue::of(&self.pair[from..to]),
            None => AnyValue::Nested(self.parsed.with_value(self.pair, value::decode)),
        }
    }
}

/// A value of an attribute.
#[derive(Clone, Debug)]
pub enum AnyValue<'a> {
    /// One without others in it.
    Plain(ValueRef<'a>),
    /// One that had to be decoded: a list, a map, or a value in pieces.
    Nested(Value),
}

impl<'a> AnyValue<'a> {
    #[inline]
    fn of(buf: &'a [u8]) -> AnyValue<'a> {
        let mut plain = ValueRef::Null;
        for (number, raw) in Fields::new(buf, 0) {
            plain = match (number, raw) {
                (1, Raw::Len(from, to)) => ValueRef::Str(&buf[from..to]),
                (2, Raw::Varint(v)) => ValueRef::Bool(v != 0),
                (3, Raw::Varint(v)) => ValueRef::Int(v as i64),
                (4, Raw::I64(v)) => ValueRef::Double(f64::from_bits(v)),
                (5 | 6, Raw::Len(..)) => return AnyValue::Nested(value::decode(buf)),
                (7, Raw::Len(from, to)) => ValueRef::Bytes(&buf[from..to]),
                _ => plain,
            }
        }
        AnyValue::Plain(plain)
    }

    /// The value.
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            AnyValue::Plain(plain) => *plain,
            AnyValue::Nested(value) => value.as_ref(),
        }
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
