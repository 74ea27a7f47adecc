//! How long to wait before a server is asked again.

use std::time::Duration;

/// The wait after the first failure, before jitter.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait of our own: jitter takes away from it.
pub const RETRY_MAX: Duration = Duration::from_secs(120);
/// What a server that has too much to do is given at least.
/// Source: the specification, "Throttling".
const THROTTLED: Duration = Duration::from_secs(30);
/// The longest wait that a server can ask for: a mistake there must not cut an agent off for days.
const ASKED_MAX: Duration = Duration::from_secs(3600);

/// Waits that double from failure to failure, with jitter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// All was well for a while.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after a failure. `random` decides the jitter.
    pub fn next(&mut self, random: u64) -> Duration {
        let wait = FIRST * (1 << self.failures.min(7));
        self.failures = self.failures.saturating_add(1);
        jittered(wait.min(RETRY_MAX), random)
    }

    /// The wait after the server said that it has too much to do, and perhaps for how long.
    pub fn throttled(&mut self, asked: Option<Duration>, random: u64) -> Duration {
        let own = self.next(random);
        match asked {
            // All that were told the same come back spread over a tenth of it.
            Some(asked) => {
                let asked = asked.min(ASKED_MAX);
                asked + (asked / 10).mul_f64(unit(random))
            }
            None => own.max(THROTTLED + THROTTLED.mul_f64(unit(random))),
        }
    }
}

/// Between half of `wait` and all of it.
fn jittered(wait: Duration, random: u64) -> Duration {
    wait / 2 + (wait / 2).mul_f64(unit(random))
}

/// From 0 to 1.
fn unit(random: u64) -> f64 {
    // 53 bits are what a double holds.
    (random >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_start_again() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..9).map(|_| backoff.next(0).as_millis() as u64).collect();
        assert_eq!(
            waits,
            [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]
        );
        backoff.reset();
        assert!(backoff.next(u64::MAX) <= FIRST);
        assert!(backoff.next(u64::MAX) > FIRST, "jitter adds to the half");
    }

    #[test]
    fn a_server_is_given_the_time_it_asks_for_within_reason() {
        let asked = |seconds| Some(Duration::from_secs(seconds));
        let mut backoff = Backoff::default();
        assert_eq!(backoff.throttled(asked(7), 0), Duration::from_secs(7));
        let most = backoff.throttled(asked(10), u64::MAX);
        assert!(most > Duration::from_secs(10) && most <= Duration::from_secs(11));
        assert_eq!(backoff.throttled(asked(1 << 40), 0), ASKED_MAX);
        assert_eq!(Backoff::default().throttled(None, 0), THROTTLED);
        for _ in 0..200 {
            assert!(backoff.throttled(None, u64::MAX) <= RETRY_MAX);
        }
    }
}
