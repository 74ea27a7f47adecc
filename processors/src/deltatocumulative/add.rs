//! Adding differences.

use tailwater_pdata::otlp::metrics::Number;
use tailwater_pdata::otlp::rewrite::{Histogram, PointValue};

use crate::streams::exponential::{self, both};

/// What became of a total.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Added {
    /// There is more in it.
    Sum,
    /// The two could not be added: it is what came, and begins with that.
    Anew,
}

/// Adds what came to a total.
pub(super) fn add(total: &mut PointValue, more: &PointValue) -> Added {
    match (&mut *total, more) {
        (_, PointValue::Number(None) | PointValue::Summary) => Added::Sum,
        (PointValue::Number(sum), PointValue::Number(Some(more))) => {
            *sum = Some(match (*sum, *more) {
                (None, more) => more,
                // As in the collector, which wraps.
                (Some(Number::Int(a)), Number::Int(b)) => Number::Int(a.wrapping_add(b)),
                (Some(a), b) => Number::Double(a.as_f64() + b.as_f64()),
            });
            Added::Sum
        }
        (PointValue::Histogram(sum), PointValue::Histogram(more)) if sum.bounds == more.bounds => {
            add_histogram(sum, more);
            Added::Sum
        }
        (PointValue::Exponential(sum), PointValue::Exponential(more)) => {
            exponential::add(sum, more.as_ref().clone());
            Added::Sum
        }
        _ => {
            total.clone_from(more);
            Added::Anew
        }
    }
}

fn add_histogram(sum: &mut Histogram, more: &Histogram) {
    sum.count = sum.count.saturating_add(more.count);
    for (all, more) in sum.counts.iter_mut().zip(&more.counts) {
        *all = all.saturating_add(*more);
    }
    sum.sum = both(sum.sum, more.sum, |a, b| a + b);
    sum.min = both(sum.min, more.min, f64::min);
    sum.max = both(sum.max, more.max, f64::max);
}
