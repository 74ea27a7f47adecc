//! The wait before the next attempt.

use std::time::Duration;

use tailwater_pipeline::clock::Rng64;

use super::options::RetryOptions;

/// Shortest wait, whatever is configured: nothing may spin.
const WAIT_MIN: Duration = Duration::from_millis(10);

/// Exponential backoff with jitter, as `retry_on_failure` describes it: wait n (from 0) is
/// `min(initial_interval * multiplier^n, max_interval)`, times a random factor in
/// `1 - randomization_factor ..= 1 + randomization_factor`.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial_seconds: f64,
    max_seconds: f64,
    multiplier: f64,
    randomization: f64,
    rng: Rng64,
}

impl Backoff {
    /// A backoff whose jitter is a function of `seed`.
    pub fn new(options: &RetryOptions, seed: u64) -> Backoff {
        Backoff {
            initial_seconds: options.initial_interval.as_secs_f64(),
            max_seconds: options.max_interval.as_secs_f64(),
            multiplier: options.multiplier,
            randomization: options.randomization_factor,
            rng: Rng64::new(seed),
        }
    }

    /// The wait after `failures` earlier failures, but not less than `floor`, the wait that the
    /// destination asked for.
    pub fn wait(&mut self, failures: u32, floor: Option<Duration>) -> Duration {
        let exponent = i32::try_from(failures).unwrap_or(i32::MAX);
        // An overflow gives infinity, which the maximum cuts.
        let plain = (self.initial_seconds * self.multiplier.powi(exponent)).min(self.max_seconds);
        let spread = 1.0 + self.randomization * (2.0 * self.rng.unit() - 1.0);
        let wait = Duration::try_from_secs_f64(plain * spread).unwrap_or(Duration::ZERO);
        wait.max(floor.unwrap_or(Duration::ZERO)).max(WAIT_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(randomization_factor: f64) -> RetryOptions {
        RetryOptions {
            randomization_factor,
            ..RetryOptions::default()
        }
    }

    #[test]
    fn waits_grow_to_the_maximum() {
        let mut b = Backoff::new(&options(0.0), 1);
        let waits: Vec<_> = (0..7).map(|n| b.wait(n, None).as_millis()).collect();
        assert_eq!(waits, [5000, 7500, 11250, 16875, 25312, 30000, 30000]);
        assert_eq!(b.wait(u32::MAX, None).as_secs(), 30);
    }

    #[test]
    fn jitter_stays_in_its_range_and_the_floor_wins() {
        let mut b = Backoff::new(&options(0.5), 7);
        let waits: Vec<_> = (0..1000).map(|_| b.wait(0, None).as_secs_f64()).collect();
        assert!(waits.iter().all(|w| (2.5..=7.5).contains(w)));
        let mean = waits.iter().sum::<f64>() / 1000.0;
        assert!((4.7..5.3).contains(&mean), "{mean}");
        assert_eq!(b.wait(0, Some(Duration::from_secs(60))).as_secs(), 60);
    }

    #[test]
    fn a_seed_repeats_its_jitter() {
        let (mut a, mut b) = (
            Backoff::new(&options(0.5), 3),
            Backoff::new(&options(0.5), 3),
        );
        assert!((0..50).all(|n| a.wait(n, None) == b.wait(n, None)));
    }
}
