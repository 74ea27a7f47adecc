//! What editors make of histograms: percentiles and fewer buckets.

use std::borrow::Cow;

use tailwater_ottl::Fault;
use tailwater_pdata::otlp::edit::View;
use tailwater_pdata::otlp::revise::{Draft, FieldValue};

const PERCENTILE: &str = "extract_percentile_metric";

/// A bound that is not there.
const MALFORMED: &str = "the counts of the buckets do not reach the count of the point";

/// The value that so many percent of what a point counts are not above: within a bucket, as if they were
/// spread evenly, or by the logarithm where buckets are exponential. NaN if nothing is counted.
///
/// # Errors
/// The buckets hold less than the point says.
pub(super) fn percentile(point: &View<'_>, exponential: bool, percent: f64) -> Result<f64, Fault> {
    let count = point.number("count");
    // No count is so large that this matters.
    let target = (count as f64 * (percent / 100.0)).ceil() as u64;
    match (count, exponential) {
        (0, _) => Ok(f64::NAN),
        (_, false) => explicit(point, target),
        (_, true) => by_exponents(point, target),
    }
}

fn malformed() -> Fault {
    Fault::failed(PERCENTILE, Cow::Borrowed(MALFORMED))
}

fn between(lower: f64, upper: f64, ratio: f64) -> f64 {
    lower + ratio * (upper - lower)
}

/// How far into a bucket of `count` the one is that `before` and so many in it make `target`. The first of an
/// empty one.
fn ratio(target: u64, before: u64, count: u64) -> f64 {
    match count {
        0 => 0.0,
        _ => target.saturating_sub(before) as f64 / count as f64,
    }
}

/// The bucket in which the one with number `target` is, with how far into it; or how many there are.
fn bucket(counts: &[u64], target: u64, mut before: u64) -> Result<(usize, f64), u64> {
    for (i, count) in counts.iter().enumerate() {
        let with = before.saturating_add(*count);
        if with >= target {
            return Ok((i, ratio(target, before, *count)));
        }
        before = with;
    }
    Err(before)
}

fn explicit(point: &View<'_>, target: u64) -> Result<f64, Fault> {
    let (counts, bounds) = (
        point.numbers("bucket_counts"),
        point.doubles("explicit_bounds"),
    );
    let (Some(first), false) = (bounds.first(), counts.is_empty()) else {
        return Ok(f64::NAN);
    };
    let (at, ratio) = bucket(&counts, target, 0).map_err(|_| malformed())?;
    if at == 0 {
        return Ok(between(0.0, *first, ratio));
    }
    let lower = *bounds.get(at - 1).ok_or_else(malformed)?;
    // The last bucket ends at the largest value, if that is known.
    let largest = point.double("max").filter(|max| *max > lower);
    let upper = bounds.get(at).copied().or(largest);
    Ok(upper.map_or(lower, |upper| between(lower, upper, ratio)))
}

fn by_exponents(point: &View<'_>, target: u64) -> Result<f64, Fault> {
    let side = |name: &str| {
        let side = point.inner(name);
        let counts = side.map(|s| s.numbers("bucket_counts")).unwrap_or_default();
        (counts, side.map_or(0, |s| s.zigzag("offset")))
    };
    let ((negative, below), (positive, above)) = (side("negative"), side("positive"));
    let zeros = point.number("zero_count");
    if negative.is_empty() && positive.is_empty() && zeros == 0 {
        return Ok(f64::NAN);
    }
    let scale = point.zigzag("scale");
    let bound = |offset: i32, at: usize| {
        let index = i64::from(offset).saturating_add(at as i64);
        (index as f64 * (-f64::from(scale)).exp2()).exp2()
    };
    let by_logarithm =
        |lower: f64, upper: f64, ratio: f64| between(lower.log2(), upper.log2(), ratio).exp2();
    // In the order in which they are counted: those next to zero first.
    let before = match bucket(&negative, target, 0) {
        Ok((at, ratio)) => {
            let (near, far) = (bound(below, at), bound(below, at + 1));
            return Ok(-by_logarithm(near, far, 1.0 - ratio));
        }
        Err(before) => before,
    };
    let with_zeros = before.saturating_add(zeros);
    if with_zeros >= target {
        let threshold = point.double("zero_threshold").unwrap_or(0.0);
        let lower = match negative.is_empty() && !positive.is_empty() {
            true => 0.0,
            false => -threshold,
        };
        let upper = match positive.is_empty() && !negative.is_empty() {
            true => 0.0,
            false => threshold,
        };
        return Ok(between(lower, upper, ratio(target, before, zeros)));
    }
    let (at, ratio) = bucket(&positive, target, with_zeros).map_err(|_| malformed())?;
    Ok(by_logarithm(bound(above, at), bound(above, at + 1), ratio))
}

/// Puts neighbouring buckets of a point together, equally many each, until there are at most `most`.
pub(super) fn limit_buckets(point: &mut Draft, most: usize) {
    let view = point.view();
    let (counts, bounds) = (
        view.numbers("bucket_counts"),
        view.doubles("explicit_bounds"),
    );
    let rises = bounds.windows(2).all(|pair| pair[0] < pair[1]);
    if counts.len() != bounds.len() + 1 || counts.len() <= most.max(1) || !rises {
        return;
    }
    let each = counts.len().div_ceil(most.max(1));
    let sum = |some: &[u64]| some.iter().fold(0u64, |a, b| a.saturating_add(*b));
    let counts: Vec<u64> = counts.chunks(each).map(sum).collect();
    let bounds = bounds.iter().skip(each - 1).step_by(each);
    let bounds: Vec<u64> = bounds.map(|b| b.to_bits()).collect();
    point.set(None, "bucket_counts", FieldValue::Numbers(&counts));
    point.set(None, "explicit_bounds", FieldValue::Numbers(&bounds));
}
