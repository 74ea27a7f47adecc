//! A data point on its way from one set of bytes to another.

use std::borrow::Cow;

use super::super::metrics::MetricKind;
use super::super::metrics::{Number, Point as View};
use super::super::points::Buckets as BucketsView;
use super::super::value::{Entries, put_map};
use super::super::wire::{
    Fields, Open, Raw, put_bytes, put_i64, put_number, put_tag, put_varint, varint_len,
};
use super::copy_except;
use crate::value::Map;

/// A data point. What is not shown here stays as it was.
#[derive(Clone, Debug)]
pub struct Point<'a> {
    /// The message it was made of.
    source: Cow<'a, [u8]>,
    numbers: &'static Numbers,
    /// The attributes, once they were decoded.
    attributes: Option<Map>,
    /// The exemplars as fields of the message, once they are not those of `source`.
    exemplars: Option<Vec<u8>>,
    /// When what is counted began, in ns since the epoch, 0 = not known.
    pub start_ns: u64,
    /// When the value was taken, in ns since the epoch, 0 = not known.
    pub time_ns: u64,
    /// See `DataPointFlags`.
    pub flags: u32,
    /// What was measured.
    pub value: PointValue,
}

/// What was measured.
#[derive(Clone, PartialEq, Debug)]
pub enum PointValue {
    /// Of a gauge or sum.
    Number(Option<Number>),
    /// Of a histogram.
    Histogram(Box<Histogram>),
    /// Of an exponential histogram.
    Exponential(Box<Exponential>),
    /// Of a summary: not shown.
    Summary,
}

/// Measurements in buckets with bounds that are written out.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Histogram {
    /// Number of measurements.
    pub count: u64,
    /// Their sum, if it was kept.
    pub sum: Option<f64>,
    /// The smallest, if it was kept.
    pub min: Option<f64>,
    /// The largest, if it was kept.
    pub max: Option<f64>,
    /// Measurements per bucket, one more than there are bounds, or none.
    pub counts: Vec<u64>,
    /// The upper bounds of the buckets, but for the last one, which has none.
    pub bounds: Vec<f64>,
}

/// Measurements in buckets whose bounds are powers of 2^(2^-scale).
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Exponential {
    /// Number of measurements.
    pub count: u64,
    /// Their sum, if it was kept.
    pub sum: Option<f64>,
    /// The smallest, if it was kept.
    pub min: Option<f64>,
    /// The largest, if it was kept.
    pub max: Option<f64>,
    /// Says how wide the buckets are.
    pub scale: i32,
    /// Number of measurements that count as zero.
    pub zero_count: u64,
    /// Up to which distance from zero they do; 0 if it is not known.
    pub zero_threshold: f64,
    /// The buckets of positive measurements, if they were sent.
    pub positive: Option<Buckets>,
    /// The buckets of negative measurements, if they were sent.
    pub negative: Option<Buckets>,
}

/// The buckets of one sign of an exponential histogram.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Buckets {
    /// Index of the first one: it ends at the power `offset + 1` of the base.
    pub offset: i32,
    /// Measurements per bucket.
    pub counts: Vec<u64>,
}

/// The numbers of the fields of one kind of point.
#[derive(Debug)]
struct Numbers {
    attributes: u32,
    exemplars: u32,
    flags: u32,
    /// All that are in [`Point`] besides attributes and exemplars.
    shown: &'static [u32],
}

static NUMBER: Numbers = Numbers {
    attributes: 7,
    exemplars: 5,
    flags: 8,
    shown: &[2, 3, 4, 6, 8],
};
static HISTOGRAM: Numbers = Numbers {
    attributes: 9,
    exemplars: 8,
    flags: 10,
    shown: &[2, 3, 4, 5, 6, 7, 10, 11, 12],
};
static EXPONENTIAL: Numbers = Numbers {
    attributes: 1,
    exemplars: 11,
    flags: 10,
    shown: &[2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14],
};
static SUMMARY: Numbers = Numbers {
    attributes: 7,
    exemplars: 0,
    flags: 8,
    shown: &[2, 3, 8],
};

/// `DataPointFlags`: there is no value.
const NO_RECORDED_VALUE: u32 = 1;

impl<'a> Point<'a> {
    /// The point that was found.
    pub fn of(point: View<'a>) -> Point<'a> {
        let (source, numbers, value) = match point {
            View::Number(p) => (p.buf, &NUMBER, PointValue::Number(p.value)),
            View::Histogram(p) => {
                let (min, max) = extremes(p.buf, 11);
                let value = Histogram {
                    count: p.count,
                    sum: p.sum,
                    min,
                    max,
                    counts: p.bucket_counts().collect(),
                    bounds: p.explicit_bounds().collect(),
                };
                (p.buf, &HISTOGRAM, PointValue::Histogram(value.into()))
            }
            View::Exponential(p) => {
                let (min, max) = extremes(p.buf, 12);
                let value = Exponential {
                    count: p.count,
                    sum: p.sum,
                    min,
                    max,
                    scale: p.scale,
                    zero_count: p.zero_count,
                    zero_threshold: p.zero_threshold,
                    positive: Buckets::of(p.buf, 8),
                    negative: Buckets::of(p.buf, 9),
                };
                (p.buf, &EXPONENTIAL, PointValue::Exponential(value.into()))
            }
            View::Summary(p) => (p.buf, &SUMMARY, PointValue::Summary),
        };
        let head = point.head();
        Point {
            source: Cow::Borrowed(source),
            numbers,
            attributes: None,
            exemplars: None,
            start_ns: head.start_ns,
            time_ns: head.time_ns,
            flags: head.flags,
            value,
        }
    }

    /// The kind of metric it can be in; of a number, a gauge or a sum.
    pub fn fits(&self, kind: MetricKind) -> bool {
        match self.value {
            PointValue::Number(_) => matches!(kind, MetricKind::Gauge | MetricKind::Sum),
            PointValue::Histogram(_) => kind == MetricKind::Histogram,
            PointValue::Exponential(_) => kind == MetricKind::ExponentialHistogram,
            PointValue::Summary => kind == MetricKind::Summary,
        }
    }

    /// True if the point says that there is no value any more.
    pub fn no_value(&self) -> bool {
        self.flags & NO_RECORDED_VALUE != 0
    }

    /// Its attributes, decoded.
    pub fn attributes(&mut self) -> &mut Map {
        let (source, number) = (&self.source, self.numbers.attributes);
        self.attributes.get_or_insert_with(|| {
            let mut entries = Entries::default();
            entries.decode(source, number);
            entries.into_map()
        })
    }

    /// Leaves its exemplars out.
    pub fn clear_exemplars(&mut self) {
        self.exemplars = Some(Vec::new());
    }

    /// Takes the exemplars of `other`, a point of the same kind, behind its own.
    pub fn append_exemplars(&mut self, other: &Point<'_>) {
        let mut all = self.exemplar_fields();
        all.extend(other.exemplar_fields());
        self.exemplars = Some(all);
    }

    /// Multiplies the values of its exemplars; whole numbers are cut to whole numbers.
    pub fn scale_exemplars(&mut self, factor: f64) {
        let fields = self.exemplar_fields();
        let mut scaled = Vec::with_capacity(fields.len());
        for (number, raw) in Fields::new(&fields, 0) {
            let Raw::Len(from, to) = raw else { continue };
            let exemplar = &fields[from..to];
            let mut new = Vec::with_capacity(exemplar.len());
            copy_except(exemplar, &[3, 6], &mut new);
            match exemplar_value(exemplar) {
                Some(Number::Double(v)) => put_i64(&mut new, 3, (v * factor).to_bits()),
                Some(Number::Int(v)) => put_i64(&mut new, 6, (v as f64 * factor) as i64 as u64),
                None => {}
            }
            put_bytes(&mut scaled, number, &new);
        }
        self.exemplars = Some(scaled);
    }

    fn exemplar_fields(&self) -> Vec<u8> {
        if let Some(fields) = &self.exemplars {
            return fields.clone();
        }
        let mut out = Vec::new();
        for (number, raw) in Fields::new(&self.source, 0) {
            if let (true, Raw::Len(from, to)) = (number == self.numbers.exemplars, raw) {
                put_bytes(&mut out, number, &self.source[from..to]);
            }
        }
        out
    }

    /// The same without borrowing from what it was made of.
    pub fn into_owned(self) -> Point<'static> {
        Point {
            source: Cow::Owned(self.source.into_owned()),
            numbers: self.numbers,
            attributes: self.attributes,
            exemplars: self.exemplars,
            start_ns: self.start_ns,
            time_ns: self.time_ns,
            flags: self.flags,
            value: self.value,
        }
    }

    /// Bytes of memory behind it, for budgets.
    pub fn heap_bytes(&self) -> usize {
        let map = self.attributes.iter().flat_map(Map::iter);
        let map: usize = map.map(|(k, v)| k.len() + v.heap_bytes() + 48).sum();
        let value = match &self.value {
            PointValue::Number(_) | PointValue::Summary => 0,
            PointValue::Histogram(h) => {
                size_of::<Histogram>() + 8 * (h.counts.len() + h.bounds.len())
            }
            PointValue::Exponential(e) => {
                let signs = e.positive.iter().chain(&e.negative);
                size_of::<Exponential>() + signs.map(|b| 8 * b.counts.len()).sum::<usize>()
            }
        };
        size_of::<Self>() + self.source.len() + map + value
    }

    /// Appends the fields of the message.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let numbers = self.numbers;
        put_time(out, 2, self.start_ns);
        put_time(out, 3, self.time_ns);
        if self.flags != 0 {
            put_number(out, numbers.flags, self.flags.into());
        }
        match &self.value {
            PointValue::Number(None) | PointValue::Summary => {}
            PointValue::Number(Some(Number::Double(v))) => put_i64(out, 4, v.to_bits()),
            PointValue::Number(Some(Number::Int(v))) => put_i64(out, 6, *v as u64),
            PointValue::Histogram(h) => h.write(out),
            PointValue::Exponential(e) => e.write(out),
        }
        let mut gone = [0; 14];
        let shown = numbers.shown.len();
        gone[..shown].copy_from_slice(numbers.shown);
        if let Some(map) = &self.attributes {
            gone[shown] = numbers.attributes;
            put_map(out, numbers.attributes, map);
        }
        if let Some(fields) = &self.exemplars {
            gone[shown + 1] = numbers.exemplars;
            out.extend_from_slice(fields);
        }
        copy_except(&self.source, &gone, out);
    }
}

/// The last values of the doubles `min` and `min + 1`.
fn extremes(buf: &[u8], min: u32) -> (Option<f64>, Option<f64>) {
    let mut found = (None, None);
    for (number, raw) in Fields::new(buf, 0) {
        match raw {
            Raw::I64(v) if number == min => found.0 = Some(f64::from_bits(v)),
            Raw::I64(v) if number == min + 1 => found.1 = Some(f64::from_bits(v)),
            _ => {}
        }
    }
    found
}

fn exemplar_value(buf: &[u8]) -> Option<Number> {
    let mut value = None;
    for (number, raw) in Fields::new(buf, 0) {
        match (number, raw) {
            (3, Raw::I64(v)) => value = Some(Number::Double(f64::from_bits(v))),
            (6, Raw::I64(v)) => value = Some(Number::Int(v as i64)),
            _ => {}
        }
    }
    value
}

fn put_time(out: &mut Vec<u8>, number: u32, ns: u64) {
    if ns != 0 {
        put_i64(out, number, ns);
    }
}

fn put_optional(out: &mut Vec<u8>, number: u32, value: Option<f64>) {
    if let Some(value) = value {
        put_i64(out, number, value.to_bits());
    }
}

/// Appends numbers of eight bytes each, packed.
fn put_fixed(out: &mut Vec<u8>, number: u32, values: impl ExactSizeIterator<Item = u64>) {
    if values.len() == 0 {
        return;
    }
    put_tag(out, number, super::super::schema::LEN);
    put_varint(out, 8 * values.len() as u64);
    values.for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
}

/// As a `sint32` is on the wire.
pub(in super::super) fn zigzag(v: i32) -> u64 {
    u64::from(((v << 1) ^ (v >> 31)) as u32)
}

impl Histogram {
    fn write(&self, out: &mut Vec<u8>) {
        put_time(out, 4, self.count);
        put_optional(out, 5, self.sum);
        put_fixed(out, 6, self.counts.iter().copied());
        put_fixed(out, 7, self.bounds.iter().map(|b| b.to_bits()));
        put_optional(out, 11, self.min);
        put_optional(out, 12, self.max);
    }
}

impl Exponential {
    fn write(&self, out: &mut Vec<u8>) {
        put_time(out, 4, self.count);
        put_optional(out, 5, self.sum);
        if self.scale != 0 {
            put_number(out, 6, zigzag(self.scale));
        }
        put_time(out, 7, self.zero_count);
        for (number, buckets) in [(8, &self.positive), (9, &self.negative)] {
            if let Some(buckets) = buckets {
                let open = Open::field(out, number, 2);
                buckets.write(out);
                open.close(out);
            }
        }
        put_optional(out, 12, self.min);
        put_optional(out, 13, self.max);
        put_time(out, 14, self.zero_threshold.to_bits());
    }
}

impl Buckets {
    /// The buckets in the fields `number` of a point, if there are any.
    fn of(point: &[u8], number: u32) -> Option<Buckets> {
        let is = |f: (u32, Raw)| f.0 == number && matches!(f.1, Raw::Len(..));
        Fields::new(point, 0).any(is).then(|| {
            let view = BucketsView::of(point, number);
            Buckets {
                offset: view.offset,
                counts: view.counts().collect(),
            }
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        if self.offset != 0 {
            put_number(out, 1, zigzag(self.offset));
        }
        if self.counts.is_empty() {
            return;
        }
        let len: usize = self.counts.iter().map(|c| varint_len(*c)).sum();
        put_tag(out, 2, super::super::schema::LEN);
        put_varint(out, len as u64);
        self.counts.iter().for_each(|c| put_varint(out, *c));
    }
}
