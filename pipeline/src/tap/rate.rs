//! How many records a tap takes, and which.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Mono;

const SECOND_NS: u64 = 1_000_000_000;

/// So many per second on average, and as many as in a second at once. Shared by all shards, without a lock.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: u64,
    /// Until when what was taken is paid for.
    paid: AtomicU64,
}

impl Rate {
    pub fn new(per_second: u32) -> Rate {
        Rate {
            per_second: u64::from(per_second.max(1)),
            paid: AtomicU64::new(0),
        }
    }

    /// Takes as many of `wanted` as it allows now.
    pub fn take(&self, now: Mono, wanted: usize) -> usize {
        // What was not taken for longer than a second is not saved up.
        let (now, each) = (now.0.saturating_add(SECOND_NS), SECOND_NS / self.per_second);
        let mut taken = 0;
        let pay = |paid: u64| {
            let from = paid.max(now - SECOND_NS);
            taken = (now.saturating_sub(from) / each).min(wanted as u64);
            (taken > 0).then(|| from + taken * each)
        };
        let paid = self
            .paid
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay);
        match paid {
            Ok(_) => taken as usize,
            Err(_) => 0,
        }
    }
}

/// `n` of `of` numbers, in order and far from each other; `seed` says with which they begin.
pub(super) fn spread(of: usize, n: usize, seed: u64) -> impl Iterator<Item = usize> {
    let (n, of) = (n as u64, of as u64);
    let begin = mix(seed) % of.max(1);
    (0..n).map(move |i| ((i * of + begin) / n) as usize)
}

/// Scatters numbers that follow each other (splitmix64).
fn mix(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: on average no more than the rate, whatever comes; all of what is slower.
    #[test]
    fn the_rate_holds_on_average_and_at_once() {
        let rate = Rate::new(10);
        assert_eq!(rate.take(Mono(0), 3), 3);
        assert_eq!(rate.take(Mono(0), 300), 7);
        assert_eq!(rate.take(Mono(SECOND_NS / 10 - 1), 300), 0);
        assert_eq!(rate.take(Mono(SECOND_NS / 10), 300), 1);
        assert_eq!(rate.take(Mono(100 * SECOND_NS), 300), 10);
        let (mut taken, from) = (0, 200 * SECOND_NS);
        for ms in 0..10_000 {
            taken += rate.take(Mono(from + ms * 1_000_000), 500);
        }
        assert!((100..=110).contains(&taken), "{taken}");
        let slow = Rate::new(1_000);
        let all = (0..1_000).map(|ms| slow.take(Mono(ms * 1_000_000), 1));
        assert_eq!(all.sum::<usize>(), 1_000);
    }

    /// Guarantee: each number once, in order, none that is not there; any of them may be chosen.
    #[test]
    fn what_is_chosen_is_spread() {
        let mut seen = [false; 100];
        for seed in 0..1_000 {
            for n in [1, 7, 99, 100] {
                let chosen: Vec<usize> = spread(100, n, seed).collect();
                assert_eq!(chosen.len(), n);
                assert!(chosen.windows(2).all(|w| w[0] < w[1]), "{chosen:?}");
                assert!(chosen.last().is_some_and(|last| *last < 100));
                chosen.iter().for_each(|i| seen[*i] |= n == 1);
            }
        }
        assert!(seen.iter().all(|s| *s));
    }
}
