//! A metric on its way from one set of bytes to another.

use std::borrow::Cow;

use super::super::metrics::{self, MetricKind, Subs, Temporality};
use super::super::value::text;
use super::super::wire::{Fields, Open, Raw, put_bytes, put_number};
use super::copy_except;
use super::point::Point;

/// Numbers of `name` and of the kinds of data.
const NAME: u32 = 1;
pub(in super::super) const DATA: [u32; 5] = [5, 7, 9, 10, 11];
/// Numbers in data: points, temporality, monotonic.
const POINTS: u32 = 1;
const TEMPORALITY: u32 = 2;
const MONOTONIC: u32 = 3;

/// A metric with its points. What is not shown here (description, unit, metadata, unknown fields)
/// stays as it was.
#[derive(Clone, Debug)]
pub struct Metric<'a> {
    /// The message it was made of.
    source: Cow<'a, [u8]>,
    /// Fields of its data that are not known.
    unknown: Vec<u8>,
    /// Its name.
    pub name: Cow<'a, str>,
    /// `None` if it has no data that is known; then it has no points either.
    pub kind: Option<MetricKind>,
    /// The number of the temporality of sums and histograms: see [`Metric::temporality`].
    temporality: u64,
    /// Of sums: it never falls but by a new start.
    pub monotonic: bool,
    /// Its points, all of [`Metric::kind`].
    pub points: Vec<Point<'a>>,
}

impl<'a> Metric<'a> {
    /// The metric that was found.
    pub fn of(metric: metrics::Metric<'a>) -> Metric<'a> {
        let mut out = Metric::without_points(metric);
        out.points = metric.points().map(Point::of).collect();
        out
    }

    /// The same, with no points.
    pub fn without_points(metric: metrics::Metric<'a>) -> Metric<'a> {
        let mut out = Metric {
            source: Cow::Borrowed(metric.buf),
            unknown: Vec::new(),
            name: text(metric.name),
            kind: metric.kind,
            temporality: 0,
            monotonic: metric.monotonic,
            points: Vec::new(),
        };
        for data in Subs::from(metric.buf, metric.data_at, metric.data_number) {
            let known: &[u32] = match metric.kind {
                Some(MetricKind::Sum) => &[POINTS, TEMPORALITY, MONOTONIC],
                Some(MetricKind::Gauge | MetricKind::Summary) | None => &[POINTS],
                Some(_) => &[POINTS, TEMPORALITY],
            };
            for (number, raw) in Fields::new(data, 0) {
                match (number, raw) {
                    (TEMPORALITY, Raw::Varint(v)) if known.contains(&TEMPORALITY) => {
                        out.temporality = v;
                    }
                    _ => {}
                }
            }
            copy_except(data, known, &mut out.unknown);
        }
        out
    }

    /// What time the values are about.
    pub fn temporality(&self) -> Temporality {
        match self.temporality {
            1 => Temporality::Delta,
            2 => Temporality::Cumulative,
            _ => Temporality::Unspecified,
        }
    }

    /// Says what time the values are about.
    pub fn set_temporality(&mut self, temporality: Temporality) {
        self.temporality = match temporality {
            Temporality::Unspecified => 0,
            Temporality::Delta => 1,
            Temporality::Cumulative => 2,
        };
    }

    /// Its unit.
    pub fn unit(&self) -> Cow<'_, str> {
        let unit = Fields::new(&self.source, 0).filter_map(|f| match f {
            (3, Raw::Len(from, to)) => Some(&self.source[from..to]),
            _ => None,
        });
        text(unit.last().unwrap_or_default())
    }

    /// The same without borrowing from what it was made of.
    pub fn into_owned(self) -> Metric<'static> {
        Metric {
            source: Cow::Owned(self.source.into_owned()),
            unknown: self.unknown,
            name: Cow::Owned(self.name.into_owned()),
            kind: self.kind,
            temporality: self.temporality,
            monotonic: self.monotonic,
            points: self.points.into_iter().map(Point::into_owned).collect(),
        }
    }

    /// The metric without points, and without the room its points took.
    pub fn into_heading(mut self) -> Metric<'static> {
        self.points = Vec::new();
        let mut source = Vec::new();
        copy_except(&self.source, &DATA, &mut source);
        let heading = Metric {
            source: Cow::Owned(source),
            ..self
        };
        heading.into_owned()
    }

    /// Bytes of memory behind it, for budgets.
    pub fn heap_bytes(&self) -> usize {
        let points = self.points.iter().map(Point::heap_bytes).sum::<usize>();
        self.source.len() + self.unknown.len() + self.name.len() + points
    }

    /// Appends the fields of the message.
    pub(in super::super) fn write(&self, out: &mut Vec<u8>) {
        if !self.name.is_empty() {
            put_bytes(out, NAME, self.name.as_bytes());
        }
        copy_except(&self.source, &[&[NAME], &DATA[..]].concat(), out);
        let Some(kind) = self.kind else {
            return;
        };
        let number = match kind {
            MetricKind::Gauge => 5,
            MetricKind::Sum => 7,
            MetricKind::Histogram => 9,
            MetricKind::ExponentialHistogram => 10,
            MetricKind::Summary => 11,
        };
        let open = Open::field(out, number, 2);
        for point in &self.points {
            let open = Open::field(out, POINTS, 1);
            point.write(out);
            open.close(out);
        }
        if self.temporality != 0 {
            put_number(out, TEMPORALITY, self.temporality);
        }
        if self.monotonic {
            put_number(out, MONOTONIC, 1);
        }
        out.extend_from_slice(&self.unknown);
        open.close(out);
    }
}
