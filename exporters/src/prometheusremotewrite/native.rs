//! Exponential histograms of OTLP as native histograms of Prometheus.
//!
//! Both have buckets whose bounds are powers of 2^(2^-scale). A bucket of OTLP with index `i` lies
//! between the powers `i` and `i + 1`, one of Prometheus between `i - 1` and `i`. Prometheus has the
//! scales (schemas) -4 to 8; finer ones are made coarser here, which is exact: 2^n buckets become
//! one. The message is `Histogram` of `prompb/types.proto` and of `io.prometheus.write.v2`, which
//! are the same.

use tailwater_pdata::otlp::metrics::{Buckets, ExponentialPoint};

use super::wire::{
    put_double, put_head, put_varint, put_varint_field, put_zigzag, varint_len, zigzag,
};

/// Coarsest scale that Prometheus has.
const SCALE_MIN: i32 = -4;
/// Finest scale that Prometheus has.
const SCALE_MAX: i32 = 8;
/// Distance from zero up to which measurements count as zero, where the point does not say.
const ZERO_THRESHOLD: f64 = 1e-128;
/// So many empty buckets in a row are written out rather than skipped by a new span.
const GAP_MAX: i64 = 2;
/// The value that says that a series has ended.
pub(super) const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Why a point has no native histogram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotNative {
    /// The scale is below -4, and buckets cannot be made finer.
    TooCoarse,
    /// Bucket indices do not fit into 32 bits.
    OutOfRange,
}

impl NotNative {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            NotNative::TooCoarse => "its scale is below -4, the coarsest that Prometheus has",
            NotNative::OutOfRange => "its bucket indices do not fit into 32 bits",
        }
    }
}

/// Scratch of [`encode`].
#[derive(Default)]
pub(super) struct Spans {
    spans: Vec<(i32, u32)>,
    deltas: Vec<i64>,
}

/// Appends the fields of a `Histogram` but its times.
pub(super) fn encode(
    point: &ExponentialPoint<'_>,
    scratch: &mut Spans,
    out: &mut Vec<u8>,
) -> Result<(), NotNative> {
    if point.head.no_value() {
        put_varint_field(out, 1, 0);
        put_double(out, 3, f64::from_bits(STALE));
        put_varint_field(out, 6, 0);
        return Ok(());
    }
    if point.scale < SCALE_MIN {
        return Err(NotNative::TooCoarse);
    }
    let scale = point.scale.min(SCALE_MAX);
    let shift = point.scale.abs_diff(scale);
    let threshold = match point.zero_threshold {
        known if known > 0.0 => known,
        _ => ZERO_THRESHOLD,
    };
    let start = out.len();
    put_varint_field(out, 1, point.count);
    put_double(out, 3, point.sum.unwrap_or_default());
    put_zigzag(out, 4, scale.into());
    put_double(out, 5, threshold);
    put_varint_field(out, 6, point.zero_count);
    for (buckets, spans, deltas) in [(point.negative(), 8, 9), (point.positive(), 11, 12)] {
        let made = scratch.fill(buckets, shift);
        if made.is_none() {
            out.truncate(start);
            return Err(NotNative::OutOfRange);
        }
        scratch.put(out, spans, deltas);
    }
    Ok(())
}

impl Spans {
    /// Takes the buckets that are not empty. 2^`shift` of them become one. `None` if an index does
    /// not fit.
    fn fill(&mut self, buckets: Buckets<'_>, shift: u32) -> Option<()> {
        self.spans.clear();
        self.deltas.clear();
        let mut state = (0i64, None);
        let mut open: Option<(i64, i64)> = None;
        for (i, count) in buckets.counts().enumerate() {
            if count == 0 {
                continue;
            }
            let index = (i64::from(buckets.offset) + i64::try_from(i).ok()?) >> shift.min(63);
            let index = index + 1;
            let count = i64::try_from(count).ok()?;
            match &mut open {
                Some((known, sum)) if *known == index => *sum = sum.checked_add(count)?,
                _ => {
                    if let Some((index, count)) = open.replace((index, count)) {
                        self.bucket(&mut state, index, count)?;
                    }
                }
            }
        }
        if let Some((index, count)) = open {
            self.bucket(&mut state, index, count)?;
        }
        Some(())
    }

    /// Takes a bucket; `state` is the count and the index of the one before.
    fn bucket(&mut self, state: &mut (i64, Option<i64>), index: i64, count: i64) -> Option<()> {
        let gap = match state.1 {
            Some(before) => index - before - 1,
            None => index,
        };
        if state.1.is_none() || gap > GAP_MAX {
            self.spans.push((i32::try_from(gap).ok()?, 0));
        } else {
            for _ in 0..gap {
                self.delta(state, 0);
            }
        }
        self.delta(state, count);
        state.1 = Some(index);
        Some(())
    }

    fn delta(&mut self, state: &mut (i64, Option<i64>), count: i64) {
        if let Some((_, length)) = self.spans.last_mut() {
            *length += 1;
        }
        self.deltas.push(count - state.0);
        state.0 = count;
    }

    /// Appends spans and deltas as the fields of those numbers.
    fn put(&self, out: &mut Vec<u8>, spans: u32, deltas: u32) {
        for (offset, length) in &self.spans {
            let offset = zigzag(i64::from(*offset));
            let length = u64::from(*length);
            let len = 2 + varint_len(offset) + varint_len(length);
            put_head(out, spans, len);
            put_varint_field(out, 1, offset);
            put_varint_field(out, 2, length);
        }
        if !self.deltas.is_empty() {
            let len = self.deltas.iter().map(|d| varint_len(zigzag(*d))).sum();
            put_head(out, deltas, len);
            for delta in &self.deltas {
                put_varint(out, zigzag(*delta));
            }
        }
    }
}
