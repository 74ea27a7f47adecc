//! Data points of metrics, read where they lie: see [`super::metrics`].

use super::metrics::{Attributes, Subs};
use super::wire::{Fields, Raw, varint};

/// The flag of a data point that says that there is no value: `NO_RECORDED_VALUE`.
const NO_RECORDED_VALUE: u32 = 1;

/// A data point.
#[derive(Clone, Copy)]
pub enum Point<'a> {
    /// Of a gauge or a sum.
    Number(NumberPoint<'a>),
    /// Of a histogram.
    Histogram(HistogramPoint<'a>),
    /// Of an exponential histogram.
    Exponential(ExponentialPoint<'a>),
    /// Of a summary.
    Summary(SummaryPoint<'a>),
}

impl<'a> Point<'a> {
    /// What all kinds of points have.
    pub fn head(&self) -> PointHead {
        match self {
            Point::Number(p) => p.head,
            Point::Histogram(p) => p.head,
            Point::Exponential(p) => p.head,
            Point::Summary(p) => p.head,
        }
    }

    /// Its attributes.
    pub fn attributes(&self) -> Attributes<'a> {
        let (buf, number) = match self {
            Point::Number(p) => (p.buf, 7),
            Point::Histogram(p) => (p.buf, 9),
            Point::Exponential(p) => (p.buf, 1),
            Point::Summary(p) => (p.buf, 7),
        };
        Attributes::new(buf, number)
    }

    /// Its exemplars.
    pub fn exemplars(&self) -> impl Iterator<Item = Exemplar<'a>> + use<'a> {
        let (buf, number) = match self {
            Point::Number(p) => (p.buf, 5),
            Point::Histogram(p) => (p.buf, 8),
            Point::Exponential(p) => (p.buf, 11),
            Point::Summary(_) => (&[][..], 0),
        };
        Subs::new(buf, number).map(Exemplar::of)
    }
}

/// What all kinds of points have. Times are in ns since the epoch, 0 = not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PointHead {
    /// When what is counted began.
    pub start_ns: u64,
    /// When the value was taken.
    pub time_ns: u64,
    /// See `DataPointFlags`.
    pub flags: u32,
}

impl PointHead {
    /// True if the point says that there is no value any more.
    pub fn no_value(self) -> bool {
        self.flags & NO_RECORDED_VALUE != 0
    }

    /// Takes a field if it is one of the head; `flags` is the number of that field.
    #[inline]
    fn take(&mut self, number: u32, raw: Raw, flags: u32) {
        match raw {
            Raw::I64(v) if number == 2 => self.start_ns = v,
            Raw::I64(v) if number == 3 => self.time_ns = v,
            Raw::Varint(v) if number == flags => self.flags = v as u32,
            _ => {}
        }
    }
}

/// A point of a gauge or a sum.
#[derive(Clone, Copy)]
pub struct NumberPoint<'a> {
    pub(super) buf: &'a [u8],
    /// Times and flags.
    pub head: PointHead,
    /// The value, if there is one.
    pub value: Option<Number>,
}

/// A number of one of the two kinds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Number {
    /// An integer.
    Int(i64),
    /// A double.
    Double(f64),
}

impl Number {
    /// The number as a double, rounded if it is an integer beyond 2^53.
    pub fn as_f64(self) -> f64 {
        match self {
            Number::Int(v) => v as f64,
            Number::Double(v) => v,
        }
    }
}

impl<'a> NumberPoint<'a> {
    pub(super) fn of(buf: &'a [u8]) -> NumberPoint<'a> {
        let mut point = NumberPoint {
            buf,
            head: PointHead::default(),
            value: None,
        };
        for (number, raw) in Fields::new(buf, 0) {
            match (number, raw) {
                (4, Raw::I64(v)) => point.value = Some(Number::Double(f64::from_bits(v))),
                (6, Raw::I64(v)) => point.value = Some(Number::Int(v as i64)),
                _ => point.head.take(number, raw, 8),
            }
        }
        point
    }
}

/// A point of a histogram.
#[derive(Clone, Copy)]
pub struct HistogramPoint<'a> {
    pub(super) buf: &'a [u8],
    /// Times and flags.
    pub head: PointHead,
    /// Number of measurements.
    pub count: u64,
    /// Their sum, if it was kept.
    pub sum: Option<f64>,
}

impl<'a> HistogramPoint<'a> {
    pub(super) fn of(buf: &'a [u8]) -> HistogramPoint<'a> {
        let mut point = HistogramPoint {
            buf,
            head: PointHead::default(),
            count: 0,
            sum: None,
        };
        for (number, raw) in Fields::new(buf, 0) {
            match (number, raw) {
                (4, Raw::I64(v)) => point.count = v,
                (5, Raw::I64(v)) => point.sum = Some(f64::from_bits(v)),
                _ => point.head.take(number, raw, 10),
            }
        }
        point
    }

    /// Measurements per bucket, one more than there are bounds.
    pub fn bucket_counts(&self) -> impl Iterator<Item = u64> + use<'a> {
        Numbers::new(self.buf, 6, true)
    }

    /// The upper bounds of the buckets, but for the last one, which has none.
    pub fn explicit_bounds(&self) -> impl Iterator<Item = f64> + use<'a> {
        Numbers::new(self.buf, 7, true).map(f64::from_bits)
    }
}

/// A point of an exponential histogram.
#[derive(Clone, Copy)]
pub struct ExponentialPoint<'a> {
    pub(super) buf: &'a [u8],
    /// Times and flags.
    pub head: PointHead,
    /// Number of measurements.
    pub count: u64,
    /// Their sum, if it was kept.
    pub sum: Option<f64>,
    /// The bounds are powers of 2^(2^-scale).
    pub scale: i32,
    /// Number of measurements that count as zero.
    pub zero_count: u64,
    /// Up to which distance from zero they do; 0 if it is not known.
    pub zero_threshold: f64,
}

impl<'a> ExponentialPoint<'a> {
    pub(super) fn of(buf: &'a [u8]) -> ExponentialPoint<'a> {
        let mut point = ExponentialPoint {
            buf,
            head: PointHead::default(),
            count: 0,
            sum: None,
            scale: 0,
            zero_count: 0,
            zero_threshold: 0.0,
        };
        for (number, raw) in Fields::new(buf, 0) {
            match (number, raw) {
                (4, Raw::I64(v)) => point.count = v,
                (5, Raw::I64(v)) => point.sum = Some(f64::from_bits(v)),
                (6, Raw::Varint(v)) => point.scale = zigzag(v),
                (7, Raw::I64(v)) => point.zero_count = v,
                (14, Raw::I64(v)) => point.zero_threshold = f64::from_bits(v),
                _ => point.head.take(number, raw, 10),
            }
        }
        point
    }

    /// The buckets of positive measurements.
    pub fn positive(&self) -> Buckets<'a> {
        Buckets::of(self.buf, 8)
    }

    /// The buckets of negative measurements.
    pub fn negative(&self) -> Buckets<'a> {
        Buckets::of(self.buf, 9)
    }
}

/// The buckets of one sign of an exponential histogram.
#[derive(Clone, Copy)]
pub struct Buckets<'a> {
    messages: Subs<'a>,
    /// Index of the first one: it ends at the power `offset + 1` of the base.
    pub offset: i32,
}

impl<'a> Buckets<'a> {
    pub(super) fn of(point: &'a [u8], number: u32) -> Buckets<'a> {
        let messages = Subs::new(point, number);
        let mut offset = 0;
        for buf in messages {
            for (number, raw) in Fields::new(buf, 0) {
                if let (1, Raw::Varint(v)) = (number, raw) {
                    offset = zigzag(v);
                }
            }
        }
        Buckets { messages, offset }
    }

    /// Measurements per bucket.
    pub fn counts(self) -> impl Iterator<Item = u64> + use<'a> {
        self.messages.flat_map(|buf| Numbers::new(buf, 2, false))
    }
}

/// A point of a summary.
#[derive(Clone, Copy)]
pub struct SummaryPoint<'a> {
    pub(super) buf: &'a [u8],
    /// Times and flags.
    pub head: PointHead,
    /// Number of measurements.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
}

impl<'a> SummaryPoint<'a> {
    pub(super) fn of(buf: &'a [u8]) -> SummaryPoint<'a> {
        let mut point = SummaryPoint {
            buf,
            head: PointHead::default(),
            count: 0,
            sum: 0.0,
        };
        for (number, raw) in Fields::new(buf, 0) {
            match (number, raw) {
                (4, Raw::I64(v)) => point.count = v,
                (5, Raw::I64(v)) => point.sum = f64::from_bits(v),
                _ => point.head.take(number, raw, 8),
            }
        }
        point
    }

    /// Quantiles (0 to 1) and their values.
    pub fn quantiles(&self) -> impl Iterator<Item = (f64, f64)> + use<'a> {
        Subs::new(self.buf, 6).map(|buf| {
            let mut pair = (0.0, 0.0);
            for (number, raw) in Fields::new(buf, 0) {
                match (number, raw) {
                    (1, Raw::I64(v)) => pair.0 = f64::from_bits(v),
                    (2, Raw::I64(v)) => pair.1 = f64::from_bits(v),
                    _ => {}
                }
            }
            pair
        })
    }
}

/// A single measurement that stands for others.
#[derive(Clone, Copy)]
pub struct Exemplar<'a> {
    buf: &'a [u8],
    /// When it was taken, in ns since the epoch, 0 = not known.
    pub time_ns: u64,
    /// The measurement, if there is one.
    pub value: Option<Number>,
    /// The trace that it was taken in, mostly 16 bytes or none.
    pub trace_id: &'a [u8],
    /// The span that it was taken in, mostly 8 bytes or none.
    pub span_id: &'a [u8],
}

impl<'a> Exemplar<'a> {
    fn of(buf: &'a [u8]) -> Exemplar<'a> {
        let mut exemplar = Exemplar {
            buf,
            time_ns: 0,
            value: None,
            trace_id: &[],
            span_id: &[],
        };
        for (number, raw) in Fields::new(buf, 0) {
            match (number, raw) {
                (2, Raw::I64(v)) => exemplar.time_ns = v,
                (3, Raw::I64(v)) => exemplar.value = Some(Number::Double(f64::from_bits(v))),
                (4, Raw::Len(from, to)) => exemplar.span_id = &buf[from..to],
                (5, Raw::Len(from, to)) => exemplar.trace_id = &buf[from..to],
                (6, Raw::I64(v)) => exemplar.value = Some(Number::Int(v as i64)),
                _ => {}
            }
        }
        exemplar
    }

    /// Attributes that the series does not have.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::new(self.buf, 7)
    }
}

/// Repeated numbers of a message, packed or not.
struct Numbers<'a> {
    fields: Fields<'a>,
    buf: &'a [u8],
    number: u32,
    /// Eight bytes each, else varints.
    fixed: bool,
    packed: &'a [u8],
}

impl<'a> Numbers<'a> {
    fn new(buf: &'a [u8], number: u32, fixed: bool) -> Numbers<'a> {
        Numbers {
            fields: Fields::new(buf, 0),
            buf,
            number,
            fixed,
            packed: &[],
        }
    }
}

impl Iterator for Numbers<'_> {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        loop {
            if !self.packed.is_empty() {
                let (value, next) = if self.fixed {
                    (u64::from_le_bytes(*self.packed.first_chunk()?), 8)
                } else {
                    varint(self.packed, 0).ok()?
                };
                self.packed = &self.packed[next..];
                return Some(value);
            }
            match self.fields.next()? {
                (n, Raw::Len(from, to)) if n == self.number => self.packed = &self.buf[from..to],
                (n, Raw::I64(v)) if n == self.number && self.fixed => return Some(v),
                (n, Raw::Varint(v)) if n == self.number && !self.fixed => return Some(v),
                _ => {}
            }
        }
    }
}

/// A `sint32` as it is on the wire.
#[inline]
fn zigzag(v: u64) -> i32 {
    let v = v as u32;
    (v >> 1) as i32 ^ -((v & 1) as i32)
}
