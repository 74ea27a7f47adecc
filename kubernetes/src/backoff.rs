//! How long to wait before asking again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LAST: Duration = Duration::from_secs(30);

/// Doubles from half a second to half a minute; each pause is shortened at random by up to a half, so that
/// agents which failed together do not ask together.
pub(crate) struct Backoff {
    failures: u32,
    seed: u64,
}

impl Backoff {
    pub fn new(seed: u64) -> Backoff {
        Backoff { failures: 0, seed }
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// It failed since it worked.
    pub fn is_worn(&self) -> bool {
        self.failures > 0
    }

    /// It failed: the pause before the next attempt, not shorter than what the server asks for.
    pub fn pause(&mut self, asked: Option<Duration>) -> Duration {
        let full = FIRST.saturating_mul(1 << self.failures.min(16)).min(LAST);
        self.failures = self.failures.saturating_add(1);
        let own = full - self.part_of(full / 2);
        own.max(asked.unwrap_or_default().min(5 * LAST))
    }

    /// A part of `whole` at random.
    pub fn part_of(&mut self, whole: Duration) -> Duration {
        // SplitMix64.
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let share = ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
        whole.mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_heed_the_server() {
        for seed in 0..50 {
            let mut backoff = Backoff::new(seed);
            for n in 0..40 {
                let full = FIRST.saturating_mul(1 << n.min(16)).min(LAST);
                let pause = backoff.pause(None);
                assert!(
                    pause <= full && pause >= full / 2,
                    "{n}: {pause:?} of {full:?}"
                );
            }
            assert_eq!(
                backoff.pause(Some(Duration::from_secs(60))),
                Duration::from_secs(60)
            );
            assert_eq!(backoff.pause(Some(Duration::MAX)), 5 * LAST);
            backoff.reset();
            assert!(backoff.pause(None) <= FIRST);
        }
    }
}
