//! A token bucket on an injected clock.

use crate::time::NANOS_PER_SECOND;

/// A bucket of bytes, full at first. Rate and size come with each call, for they may change.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    /// What was taken and has not flowed back, in bytes. At most the bucket's size.
    used: f64,
    last_ns: i64,
}

impl Bucket {
    /// Takes `bytes` if they are there. A clock going back refills nothing.
    pub(super) fn take(&mut self, now_ns: i64, bytes: u64, rate: u64, burst: u64) -> bool {
        let elapsed_ns = now_ns.saturating_sub(self.last_ns).max(0);
        let refill = elapsed_ns as f64 * rate as f64 / NANOS_PER_SECOND as f64;
        self.used = (self.used - refill).max(0.0);
        self.last_ns = self.last_ns.max(now_ns);
        let fits = self.used + bytes as f64 <= burst as f64;
        if fits {
            self.used += bytes as f64;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_starts_full_and_refills_at_its_rate() {
        let mut bucket = Bucket::default();
        let second = NANOS_PER_SECOND;
        assert!(bucket.take(0, 100, 10, 100));
        assert!(!bucket.take(0, 1, 10, 100));
        assert!(!bucket.take(second, 11, 10, 100));
        assert!(bucket.take(second, 10, 10, 100));
        assert!(!bucket.take(0, 1, 10, 100));
        assert!(bucket.take(100 * second, 100, 10, 100));
        assert!(
            !bucket.take(1_000 * second, 101, 10, 100),
            "more than the bucket never passes"
        );
    }
}
