//! Time and randomness, injected so that a simulation decides both.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point of monotonic time: nanoseconds since an arbitrary start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// This time plus `d`.
    pub fn after(self, d: Duration) -> Mono {
        Mono(
            self.0
                .saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Where time comes from.
pub trait Clock: Send + Sync {
    /// Monotonic time.
    fn now(&self) -> Mono;
    /// Wall time in ns since the Unix epoch. May jump.
    fn wall_ns(&self) -> i64;
}

/// The system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock {
            start: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Mono {
        Mono(self.start.elapsed().as_nanos() as u64)
    }

    fn wall_ns(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
    }
}

/// A clock that moves when it is told to.
#[derive(Debug, Default)]
pub struct SimClock {
    now: AtomicU64,
    wall_ns: AtomicI64,
}

impl SimClock {
    /// A clock at monotonic zero and the given wall time.
    pub fn new(wall_ns: i64) -> SimClock {
        SimClock {
            now: AtomicU64::new(0),
            wall_ns: AtomicI64::new(wall_ns),
        }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, d: Duration) {
        let ns = d.as_nanos() as u64;
        self.now.fetch_add(ns, Ordering::SeqCst);
        self.wall_ns.fetch_add(ns as i64, Ordering::SeqCst);
    }

    /// Sets the wall clock, as an administrator or NTP would.
    pub fn set_wall_ns(&self, wall_ns: i64) {
        self.wall_ns.store(wall_ns, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Mono {
        Mono(self.now.load(Ordering::SeqCst))
    }

    fn wall_ns(&self) -> i64 {
        self.wall_ns.load(Ordering::SeqCst)
    }
}

/// Seeded randomness (splitmix64, Steele, Lea and Flood 2014): for jitter and tests, not secrets.
#[derive(Clone, Debug)]
pub struct Rng64(u64);

impl Rng64 {
    /// A generator; the same seed gives the same numbers.
    pub fn new(seed: u64) -> Rng64 {
        Rng64(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n` (0 if `n` is 0).
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// A number in 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulated_time_moves_only_when_told() {
        let c = SimClock::new(100);
        let t = c.now();
        c.advance(Duration::from_nanos(5));
        assert_eq!(c.now().since(t), Duration::from_nanos(5));
        assert_eq!(t.since(c.now()), Duration::ZERO);
        assert_eq!(c.wall_ns(), 105);
        c.set_wall_ns(-1);
        assert_eq!(
            (c.wall_ns(), c.now()),
            (-1, t.after(Duration::from_nanos(5)))
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers_within_bounds() {
        let (mut a, mut b) = (Rng64::new(7), Rng64::new(7));
        for _ in 0..1000 {
            let n = a.below(10);
            assert!(n < 10);
            assert_eq!(n, b.below(10));
            assert!((0.0..1.0).contains(&a.unit()));
            b.unit();
        }
        assert_eq!(a.below(0), 0);
    }
}
