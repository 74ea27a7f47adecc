//! What was added between two values of a stream.

use tailwater_pdata::otlp::metrics::Number;
use tailwater_pdata::otlp::rewrite::{Buckets, Exponential, Histogram, PointValue};

use crate::streams::exponential::{rescale, subtract, widen_zero};

/// What two values of a stream say.
#[derive(Debug, PartialEq)]
pub(super) enum Difference {
    /// So much was added.
    Added(PointValue),
    /// It was begun anew: there is less than before.
    Reset,
    /// They have other buckets and cannot be compared.
    Mismatch,
}

/// What was added from `last` to `now`, which is what comes next after it.
pub(super) fn difference(now: &PointValue, last: &PointValue) -> Difference {
    match (now, last) {
        (PointValue::Number(Some(now)), PointValue::Number(Some(last))) => numbers(*now, *last),
        (PointValue::Histogram(now), PointValue::Histogram(last)) => histograms(now, last),
        (PointValue::Exponential(now), PointValue::Exponential(last)) => {
            match exponentials(now, last) {
                Some(added) => Difference::Added(PointValue::Exponential(added.into())),
                None => Difference::Reset,
            }
        }
        // Streams of different kinds are different streams.
        _ => Difference::Mismatch,
    }
}

fn numbers(now: Number, last: Number) -> Difference {
    let added = match (now, last) {
        (Number::Int(now), Number::Int(last)) if now >= last => Number::Int(now.wrapping_sub(last)),
        (Number::Double(now), Number::Double(last)) if now >= last => Number::Double(now - last),
        _ => return Difference::Reset,
    };
    Difference::Added(PointValue::Number(Some(added)))
}

/// A sum that was not kept is 0, as in the collector; one that is no number stays one.
fn sums(now: Option<f64>, last: Option<f64>) -> Option<f64> {
    let now = now?;
    Some(if now.is_nan() {
        now
    } else {
        now - last.unwrap_or(0.0)
    })
}

fn histograms(now: &Histogram, last: &Histogram) -> Difference {
    if now.counts.len() != last.counts.len() || now.bounds != last.bounds {
        return Difference::Mismatch;
    }
    let Some(count) = now.count.checked_sub(last.count) else {
        return Difference::Reset;
    };
    let pairs = now.counts.iter().zip(&last.counts);
    let counts: Option<Vec<u64>> = pairs.map(|(now, last)| now.checked_sub(*last)).collect();
    let Some(counts) = counts else {
        return Difference::Reset;
    };
    let added = Histogram {
        count,
        sum: sums(now.sum, last.sum),
        min: None,
        max: None,
        counts,
        bounds: now.bounds.clone(),
    };
    Difference::Added(PointValue::Histogram(added.into()))
}

/// Adding only makes histograms coarser and their zeros wider.
fn exponentials(now: &Exponential, last: &Exponential) -> Option<Exponential> {
    if now.zero_threshold < last.zero_threshold || now.scale > last.scale {
        return None;
    }
    let mut last = last.clone();
    widen_zero(&mut last, now.zero_threshold);
    rescale(&mut last, now.scale);
    let none = Buckets::default();
    let side = |now: &Option<Buckets>, last: &Option<Buckets>| {
        let left = subtract(
            now.as_ref().unwrap_or(&none),
            last.as_ref().unwrap_or(&none),
        )?;
        Some(now.is_some().then_some(left))
    };
    Some(Exponential {
        count: now.count.checked_sub(last.count)?,
        sum: sums(now.sum, last.sum),
        min: None,
        max: None,
        scale: now.scale,
        zero_count: now.zero_count.checked_sub(last.zero_count)?,
        zero_threshold: now.zero_threshold,
        positive: side(&now.positive, &last.positive)?,
        negative: side(&now.negative, &last.negative)?,
    })
}

/// Makes of `last` what it would be without `added`, so that the next difference has it again. False
/// if it was begun anew since.
pub(super) fn take_back(last: &mut PointValue, added: &PointValue) -> bool {
    match (&mut *last, added) {
        (PointValue::Number(Some(last)), PointValue::Number(Some(added))) => {
            match (last, added) {
                (Number::Int(last), Number::Int(added)) => *last = last.wrapping_sub(*added),
                (Number::Double(last), Number::Double(added)) => *last -= added,
                _ => return false,
            }
            true
        }
        (PointValue::Histogram(before), PointValue::Histogram(added)) => {
            let kept = before.sum;
            match histograms(before, added) {
                Difference::Added(mut rest) => {
                    if let PointValue::Histogram(rest) = &mut rest {
                        rest.sum = sums(kept, added.sum.filter(|sum| !sum.is_nan()));
                    }
                    *last = rest;
                    true
                }
                _ => false,
            }
        }
        (PointValue::Exponential(before), PointValue::Exponential(added)) => {
            match exponentials(before, added) {
                Some(rest) => {
                    *last = PointValue::Exponential(rest.into());
                    true
                }
                None => false,
            }
        }
        _ => false,
    }
}

/// What is remembered of a value: a sum that is no number is the one before.
pub(super) fn remembered(now: PointValue, last: Option<&PointValue>) -> PointValue {
    let mut now = now;
    if let (PointValue::Histogram(now), Some(PointValue::Histogram(last))) = (&mut now, last)
        && now.sum.is_some_and(f64::is_nan)
    {
        now.sum = last.sum;
    }
    now
}
