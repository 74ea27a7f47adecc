//! Making one point of several.

use std::collections::HashMap;

use tailwater_pdata::otlp::metrics::{Number, Temporality};
use tailwater_pdata::otlp::rewrite::{Exponential, Histogram, Metric, Point, PointValue};

use super::exponential::{self, both};

/// How values become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// Their sum.
    Sum,
    /// Their mean; of integers, without what is behind the point.
    Mean,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// How many there are.
    Count,
    /// The one in the middle, or the mean of the two there.
    Median,
}

impl Aggregation {
    /// All of them by name.
    pub const NAMES: [(&str, Aggregation); 6] = [
        ("sum", Aggregation::Sum),
        ("mean", Aggregation::Mean),
        ("min", Aggregation::Min),
        ("max", Aggregation::Max),
        ("count", Aggregation::Count),
        ("median", Aggregation::Median),
    ];

    /// The one of that name in configurations.
    pub fn named(name: &str) -> Option<Aggregation> {
        let mut all = Aggregation::NAMES.iter();
        all.find(|(n, _)| *n == name).map(|(_, how)| *how)
    }
}

/// Makes one of all points that have equal attributes and times, and can be put together, in the order
/// of the first of each. Points of summaries stay as they are. Returns how many points are gone.
pub fn aggregate(metric: &mut Metric<'_>, how: Option<Aggregation>) -> usize {
    let by_start = metric.temporality() == Temporality::Delta;
    let before = metric.points.len();
    let mut places: HashMap<Vec<u8>, usize> = HashMap::with_capacity(before);
    let mut groups: Vec<Vec<Point<'_>>> = Vec::new();
    for mut point in metric.points.drain(..) {
        let summary = matches!(point.value, PointValue::Summary);
        let key = key_of(&mut point, by_start);
        match places.get(&key).filter(|_| !summary) {
            Some(&at) => groups[at].push(point),
            None => {
                places.insert(key, groups.len());
                groups.push(vec![point]);
            }
        }
    }
    let merged = groups.into_iter().filter_map(|group| merge(group, how));
    metric.points.extend(merged);
    before - metric.points.len()
}

/// What points that become one have in common.
fn key_of(point: &mut Point<'_>, by_start: bool) -> Vec<u8> {
    let mut pairs: Vec<Vec<u8>> = Vec::new();
    for (name, value) in point.attributes().iter() {
        let mut pair = Vec::new();
        put(&mut pair, name.as_bytes());
        let mut text = Vec::new();
        value.as_ref().write_string(&mut text);
        // Texts that look like numbers are none.
        pair.push(kind_of(value));
        put(&mut pair, &text);
        pairs.push(pair);
    }
    pairs.sort_unstable();
    let mut key = pairs.concat();
    key.push(u8::MAX);
    key.extend(point.time_ns.to_le_bytes());
    if by_start {
        key.extend(point.start_ns.to_le_bytes());
    }
    let extremes = match &point.value {
        PointValue::Histogram(h) => {
            let bounds = h.bounds.iter();
            bounds.for_each(|b| key.extend(b.to_bits().to_le_bytes()));
            Some((h.min.is_some(), h.max.is_some()))
        }
        PointValue::Exponential(e) => Some((e.min.is_some(), e.max.is_some())),
        PointValue::Number(_) | PointValue::Summary => None,
    };
    if let Some((min, max)) = extremes {
        key.extend([u8::from(min), u8::from(max)]);
        key.extend(point.flags.to_le_bytes());
    }
    key
}

fn put(key: &mut Vec<u8>, text: &[u8]) {
    key.extend(text.len().to_le_bytes());
    key.extend_from_slice(text);
}

fn kind_of(value: &tailwater_pdata::Value) -> u8 {
    use tailwater_pdata::Value;
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Int(_) | Value::Double(_) => 2,
        Value::Str(_) => 3,
        Value::Bytes(_) => 4,
        Value::List(_) => 5,
        Value::Map(_) => 6,
    }
}

fn merge<'a>(group: Vec<Point<'a>>, how: Option<Aggregation>) -> Option<Point<'a>> {
    if let Some(PointValue::Number(_)) = group.first().map(|p| &p.value) {
        return merge_numbers(group, how);
    }
    let mut points = group.into_iter();
    let mut first = points.next()?;
    for point in points {
        let added = match (&mut first.value, &point.value) {
            (PointValue::Histogram(sum), PointValue::Histogram(more)) if more.count > 0 => {
                add_histogram(sum, more);
                true
            }
            (PointValue::Exponential(sum), PointValue::Exponential(more)) if more.count > 0 => {
                add_exponential(sum, more.as_ref().clone());
                true
            }
            _ => false,
        };
        if added {
            first.append_exemplars(&point);
            first.start_ns = first.start_ns.min(point.start_ns);
        }
    }
    Some(first)
}

/// The sum if any of the two has one, as in the collector.
fn sums(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (None, None) => None,
        _ => Some(a.unwrap_or(0.0) + b.unwrap_or(0.0)),
    }
}

fn add_histogram(sum: &mut Histogram, more: &Histogram) {
    sum.count = sum.count.saturating_add(more.count);
    sum.sum = sums(sum.sum, more.sum);
    sum.min = both(sum.min, more.min, f64::min);
    sum.max = both(sum.max, more.max, f64::max);
    if sum.counts.len() < more.counts.len() {
        sum.counts.resize(more.counts.len(), 0);
    }
    for (all, more) in sum.counts.iter_mut().zip(&more.counts) {
        *all = all.saturating_add(*more);
    }
}

fn add_exponential(sum: &mut Exponential, more: Exponential) {
    let total = sums(sum.sum, more.sum);
    exponential::add(sum, more);
    sum.sum = total;
}

/// What comes out is of the kind of the first one.
fn merge_numbers<'a>(group: Vec<Point<'a>>, how: Option<Aggregation>) -> Option<Point<'a>> {
    let number = |p: &Point<'_>| match p.value {
        PointValue::Number(number) => number,
        _ => None,
    };
    let values: Vec<Number> = group.iter().filter_map(number).collect();
    let start_ns = group.iter().map(|p| p.start_ns).min();
    let mut first = group.into_iter().next()?;
    first.start_ns = start_ns.unwrap_or(first.start_ns);
    let Some(kind) = values.first() else {
        return Some(first);
    };
    let value = match (how, kind) {
        (None, _) => *kind,
        (Some(how), Number::Double(_)) => {
            Number::Double(doubles(values.iter().map(|v| v.as_f64()).collect(), how))
        }
        (Some(how), Number::Int(_)) => {
            let int = |v: &Number| match *v {
                Number::Int(v) => v,
                Number::Double(v) => v as i64,
            };
            Number::Int(ints(values.iter().map(int).collect(), how))
        }
    };
    first.value = PointValue::Number(Some(value));
    Some(first)
}

/// `values` are some.
fn doubles(mut values: Vec<f64>, how: Aggregation) -> f64 {
    let n = values.len();
    match how {
        Aggregation::Sum => values.iter().sum(),
        Aggregation::Mean => values.iter().sum::<f64>() / n as f64,
        Aggregation::Min => values.iter().copied().fold(f64::INFINITY, f64::min),
        Aggregation::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        Aggregation::Count => n as f64,
        Aggregation::Median => {
            values.sort_unstable_by(f64::total_cmp);
            match n % 2 {
                0 => (values[n / 2 - 1] + values[n / 2]) / 2.0,
                _ => values[n / 2],
            }
        }
    }
}

/// `values` are some.
fn ints(mut values: Vec<i64>, how: Aggregation) -> i64 {
    let n = values.len();
    let sum = || values.iter().fold(0_i64, |sum, v| sum.wrapping_add(*v));
    match how {
        Aggregation::Sum => sum(),
        Aggregation::Mean => sum() / n as i64,
        Aggregation::Min => values.iter().copied().min().unwrap_or(0),
        Aggregation::Max => values.iter().copied().max().unwrap_or(0),
        Aggregation::Count => n as i64,
        Aggregation::Median => {
            values.sort_unstable();
            match n % 2 {
                0 => values[n / 2 - 1].wrapping_add(values[n / 2]) / 2,
                _ => values[n / 2],
            }
        }
    }
}
