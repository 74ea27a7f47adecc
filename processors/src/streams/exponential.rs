//! Arithmetic of exponential histograms: what the data model of OpenTelemetry says about merging them.
//!
//! Buckets of a scale are pairs of those of the next finer one, so a histogram can be made coarser
//! exactly, and never finer. Indices are what clients send: all arithmetic on them is in 64 bits, and
//! nothing is allocated for a range that they only claim.

use tailwater_pdata::otlp::rewrite::{Buckets, Exponential};

/// Buckets of one sign at most, after adding.
pub const BUCKETS_MAX: i64 = 160;

/// The index a bucket has after `bits` steps to coarser ones.
fn coarser(index: i64, bits: u32) -> i64 {
    index >> bits.min(63)
}

/// Index of the first bucket, and of the one behind the last; equal without any.
fn range(b: &Buckets) -> (i64, i64) {
    let from = i64::from(b.offset);
    (from, from + b.counts.len() as i64)
}

/// Leaves out empty buckets at both ends.
fn trim(b: &mut Buckets) {
    let end = b.counts.iter().rposition(|c| *c > 0).map_or(0, |i| i + 1);
    b.counts.truncate(end);
    let start = b.counts.iter().position(|c| *c > 0).unwrap_or(0);
    b.counts.drain(..start);
    b.offset = match b.counts.is_empty() {
        true => 0,
        // Within the range it was in.
        false => b
            .offset
            .saturating_add(i32::try_from(start).unwrap_or(i32::MAX)),
    };
}

/// Makes buckets `bits` steps coarser.
pub fn coarsen(b: &mut Buckets, bits: u32) {
    if bits == 0 || b.counts.is_empty() {
        return;
    }
    let (from, to) = range(b);
    let first = coarser(from, bits);
    let last = coarser(to - 1, bits);
    let mut counts = vec![0_u64; usize::try_from(last - first + 1).unwrap_or(0)];
    for (index, count) in (from..to).zip(&b.counts) {
        let at = usize::try_from(coarser(index, bits) - first).unwrap_or(0);
        counts[at] = counts[at].saturating_add(*count);
    }
    // A coarser index is nearer to zero.
    b.offset = i32::try_from(first).unwrap_or(0);
    b.counts = counts;
}

fn signs(e: &mut Exponential) -> impl Iterator<Item = &mut Buckets> {
    e.positive.iter_mut().chain(e.negative.iter_mut())
}

/// Brings a histogram to a coarser scale. Does nothing if its own is not finer.
pub fn rescale(e: &mut Exponential, scale: i32) {
    let bits = i64::from(e.scale) - i64::from(scale);
    if let Some(bits) = u32::try_from(bits).ok().filter(|bits| *bits > 0) {
        signs(e).for_each(|b| coarsen(b, bits));
        e.scale = scale;
    }
}

/// Lets what is within `threshold` of zero count as zero. Does nothing if the threshold is not larger
/// than that of now.
pub fn widen_zero(e: &mut Exponential, threshold: f64) {
    if threshold.is_nan() || threshold <= e.zero_threshold {
        return;
    }
    // The last bucket whose lower bound is below the threshold.
    let index = (threshold.log2() * f64::from(e.scale).exp2()).ceil() as i64 - 1;
    let mut moved = 0_u64;
    for b in signs(e) {
        let (from, to) = range(b);
        let n = (index + 1 - from).clamp(0, to - from);
        for count in b.counts.drain(..usize::try_from(n).unwrap_or(0)) {
            moved = moved.saturating_add(count);
        }
        b.offset = i32::try_from(from + n).unwrap_or(i32::MAX);
    }
    e.zero_count = e.zero_count.saturating_add(moved);
    e.zero_threshold = threshold;
}

/// How many steps coarser both must be for their sum to have no more than [`BUCKETS_MAX`] buckets.
fn bits_for(a: &mut Buckets, b: &mut Buckets) -> u32 {
    trim(a);
    trim(b);
    let ((a_from, a_to), (b_from, b_to)) = (range(a), range(b));
    let (mut from, mut last) = match (a.counts.is_empty(), b.counts.is_empty()) {
        (true, true) => return 0,
        (true, false) => (b_from, b_to - 1),
        (false, true) => (a_from, a_to - 1),
        (false, false) => (a_from.min(b_from), a_to.max(b_to) - 1),
    };
    let mut bits = 0;
    while last - from >= BUCKETS_MAX {
        (from, last, bits) = (from >> 1, last >> 1, bits + 1);
    }
    bits
}

/// Adds buckets of the same scale, which together have few.
fn add_buckets(to: &mut Buckets, more: &Buckets) {
    if more.counts.is_empty() {
        return;
    }
    if to.counts.is_empty() {
        to.clone_from(more);
        return;
    }
    let ((from, end), (more_from, more_end)) = (range(to), range(more));
    let first = from.min(more_from);
    let len = usize::try_from(end.max(more_end) - first).unwrap_or(0);
    let shift = usize::try_from(from - first).unwrap_or(0);
    to.counts.splice(..0, std::iter::repeat_n(0, shift));
    to.counts.resize(len, 0);
    to.offset = i32::try_from(first).unwrap_or(to.offset);
    let shift = usize::try_from(more_from - first).unwrap_or(0);
    for (sum, count) in to.counts[shift..].iter_mut().zip(&more.counts) {
        *sum = sum.saturating_add(*count);
    }
}

/// The sum, minimum or maximum of two, if both have it.
pub fn both(a: Option<f64>, b: Option<f64>, f: impl Fn(f64, f64) -> f64) -> Option<f64> {
    Some(f(a?, b?))
}

/// Adds `more` to `to`. Both are brought to the coarser scale and the wider zero, and are made
/// coarser until there are few buckets.
pub fn add(to: &mut Exponential, mut more: Exponential) {
    let scale = to.scale.min(more.scale);
    rescale(to, scale);
    rescale(&mut more, scale);
    let sides = [
        (&mut to.positive, &mut more.positive),
        (&mut to.negative, &mut more.negative),
    ];
    let bits = sides.into_iter().map(|(a, b)| match (a, b) {
        (Some(a), Some(b)) => bits_for(a, b),
        (Some(one), None) | (None, Some(one)) => bits_for(one, &mut Buckets::default()),
        (None, None) => 0,
    });
    let bits = bits.max().unwrap_or(0);
    let scale = scale.saturating_sub(i32::try_from(bits).unwrap_or(0));
    rescale(to, scale);
    rescale(&mut more, scale);
    let threshold = to.zero_threshold.max(more.zero_threshold);
    widen_zero(to, threshold);
    widen_zero(&mut more, threshold);
    for (to, more) in [
        (&mut to.positive, &more.positive),
        (&mut to.negative, &more.negative),
    ] {
        if let Some(more) = more {
            add_buckets(to.get_or_insert_default(), more);
        }
    }
    to.count = to.count.saturating_add(more.count);
    to.zero_count = to.zero_count.saturating_add(more.zero_count);
    to.sum = both(to.sum, more.sum, |a, b| a + b);
    to.min = both(to.min, more.min, f64::min);
    to.max = both(to.max, more.max, f64::max);
}

/// What is in `b` and not in `old`, both of the same scale. `None` if there is less of anything.
pub fn subtract(b: &Buckets, old: &Buckets) -> Option<Buckets> {
    let ((from, to), (old_from, old_to)) = (range(b), range(old));
    let gone = |i: i64| i < from || i >= to;
    let mut olds = (old_from..old_to).zip(&old.counts);
    if olds.any(|(i, count)| *count > 0 && gone(i)) {
        return None;
    }
    let less = |(i, count): (i64, &u64)| {
        let at = usize::try_from(i - old_from).ok();
        let old = at.and_then(|at| old.counts.get(at)).copied();
        count.checked_sub(old.unwrap_or(0))
    };
    let counts = (from..to).zip(&b.counts).map(less);
    let mut left = Buckets {
        offset: b.offset,
        counts: counts.collect::<Option<_>>()?,
    };
    trim(&mut left);
    Some(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn buckets(offset: i32, counts: &[u64]) -> Buckets {
        Buckets {
            offset,
            counts: counts.to_vec(),
        }
    }

    #[test]
    fn pairs_of_buckets_become_one_whatever_their_sign() {
        for (offset, counts, bits, want) in [
            (0, &[1, 2, 3, 4][..], 1, buckets(0, &[3, 7])),
            (1, &[1, 2, 3], 1, buckets(0, &[1, 5])),
            (-1, &[1, 2, 3], 1, buckets(-1, &[1, 5])),
            (-3, &[1, 2, 3, 4], 2, buckets(-1, &[6, 4])),
            (i32::MAX, &[7, 8], 40, buckets(0, &[15])),
            (i32::MIN, &[7], 63, buckets(-1, &[7])),
        ] {
            let mut b = buckets(offset, counts);
            coarsen(&mut b, bits);
            assert_eq!(b, want, "{offset} by {bits}");
        }
    }

    #[test]
    fn what_is_near_zero_is_moved_to_it() {
        // Scale 0: bucket i holds what is above 2^i and up to 2^(i+1).
        let mut e = Exponential {
            positive: Some(buckets(-1, &[1, 2, 4])),
            negative: Some(buckets(3, &[8])),
            zero_count: 16,
            ..Default::default()
        };
        widen_zero(&mut e, 1.0);
        assert_eq!(
            (e.zero_count, e.positive.clone()),
            (17, Some(buckets(0, &[2, 4])))
        );
        widen_zero(&mut e, 1.5);
        assert_eq!(
            (e.zero_count, e.positive.clone()),
            (19, Some(buckets(1, &[4])))
        );
        widen_zero(&mut e, 0.5);
        assert_eq!(
            (e.zero_count, e.zero_threshold),
            (19, 1.5),
            "never narrower"
        );
        widen_zero(&mut e, f64::NAN);
        widen_zero(&mut e, f64::INFINITY);
        assert_eq!(e.zero_count, 31);
    }

    #[test]
    fn far_apart_histograms_are_made_coarse() {
        let one = |offset| Exponential {
            count: 1,
            scale: 20,
            positive: Some(buckets(offset, &[1])),
            ..Default::default()
        };
        let mut sum = one(i32::MIN);
        add(&mut sum, one(i32::MAX));
        let positive = sum.positive.expect("added");
        assert!(positive.counts.len() as i64 <= BUCKETS_MAX);
        assert_eq!((sum.count, positive.counts.iter().sum::<u64>()), (2, 2));
    }

    fn any_histogram() -> impl Strategy<Value = Exponential> {
        let side = || {
            let counts = prop::collection::vec(0_u64..5, 0..40);
            prop::option::of((-500_i32..500, counts).prop_map(|(o, c)| buckets(o, &c)))
        };
        (-4_i32..8, side(), side(), 0_u64..5).prop_map(|(scale, positive, negative, zero_count)| {
            let mut e = Exponential {
                scale,
                positive,
                negative,
                zero_count,
                ..Default::default()
            };
            e.count = total(&e);
            e
        })
    }

    fn total(e: &Exponential) -> u64 {
        let signs = e.positive.iter().chain(&e.negative);
        e.zero_count + signs.flat_map(|b| &b.counts).sum::<u64>()
    }

    proptest! {
        /// Guarantee: nothing that was measured is lost or made up by adding, and taking one of the
        /// two away again leaves the other one, as coarse as the sum.
        #[test]
        fn adding_and_taking_away(a in any_histogram(), b in any_histogram()) {
            let mut sum = a.clone();
            add(&mut sum, b.clone());
            prop_assert_eq!(total(&sum), a.count + b.count);
            prop_assert_eq!(sum.count, a.count + b.count);
            for side in sum.positive.iter().chain(&sum.negative) {
                prop_assert!(side.counts.len() as i64 <= BUCKETS_MAX);
            }
            let (mut a, mut b) = (a, b);
            rescale(&mut a, sum.scale);
            rescale(&mut b, sum.scale);
            for (sum, a, b) in [(sum.positive, a.positive, b.positive), (sum.negative, a.negative, b.negative)] {
                let mut b = b.unwrap_or_default();
                trim(&mut b);
                let left = subtract(&sum.unwrap_or_default(), &a.unwrap_or_default());
                prop_assert_eq!(left, Some(b));
            }
        }
    }
}
