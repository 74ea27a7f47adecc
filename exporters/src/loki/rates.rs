//! What to do with something that a rate limit of Loki refused.
//!
//! Loki keeps a bucket of bytes per stream and per tenant. It refuses what is larger than what is
//! in the bucket now, and can never take what is larger than the bucket (the burst). An answer
//! names the rate, not the burst, and for a stream the size of one entry, not of all of them. A
//! burst is at least as large as its rate wherever the configuration makes sense, so:
//!
//! - what is larger than one second of the rate is cut into pieces that are not;
//! - what is not larger waits for as long as the rate needs for it, and is halved if that does not
//!   help for long;
//! - one entry that is larger and was refused though its bucket had the time to fill is given up.

use std::time::Duration;

use tailwater_pipeline::clock::Mono;

use crate::delivery::Refusals;

/// Most pieces that something is cut into at once; the pieces are cut again where they must be.
const PIECES_MAX: u64 = 16;
/// Refusals after which something that should fit is halved: the burst is below the rate, or the
/// answers do not name the rate. Twice as many for each time that it was divided before, as the
/// reason is more likely that others use the rate up, and parts would only be more to send.
const PATIENCE: u32 = 8;
/// Bound of the doublings of [`PATIENCE`].
const DOUBLINGS_MAX: u32 = 16;
/// How much more than enough the bucket of an entry must have got before the entry is given up.
const FILLED_TIMES: f64 = 4.0;

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Send it again, not before this time has passed.
    Wait(Duration),
    /// Send it in pieces of at most this many bytes, or of one entry.
    Cut(u64),
    /// It can never pass.
    GiveUp,
}

/// Decides about `entries` entries of `size` bytes, as Loki counts them, that were refused by a
/// limit of `rate` bytes per second. `refusals` are those so far, this one included.
pub(super) fn step(
    size: u64,
    entries: usize,
    rate: Option<u64>,
    refusals: &Refusals,
    now: Mono,
) -> Step {
    let patience = PATIENCE << refusals.divisions.min(DOUBLINGS_MAX);
    let halve = refusals.count >= patience && entries > 1;
    let Some(rate) = rate.filter(|rate| *rate > 0) else {
        return match halve {
            true => Step::Cut(size / 2),
            false => Step::Wait(Duration::ZERO),
        };
    };
    // What does not fit is cut by the queue, which bounds every wait.
    let wait = Duration::try_from_secs_f64(size as f64 / rate as f64).unwrap_or(Duration::MAX);
    if size <= rate {
        return match halve {
            true => Step::Cut(size / 2),
            false => Step::Wait(wait),
        };
    }
    if entries > 1 {
        return Step::Cut(rate.max(size.div_ceil(PIECES_MAX)));
    }
    let waited = refusals.since.map_or(Duration::ZERO, |t| now.since(t));
    let filled = waited.as_secs_f64() * rate as f64;
    if refusals.count >= PATIENCE && filled >= FILLED_TIMES * size as f64 {
        return Step::GiveUp;
    }
    Step::Wait(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(size: u64, entries: usize, rate: Option<u64>, count: u32, seconds: u64) -> Step {
        let refusals = Refusals {
            count,
            since: Some(Mono(0)),
            divisions: 0,
        };
        step(
            size,
            entries,
            rate,
            &refusals,
            Mono(seconds * 1_000_000_000),
        )
    }

    #[test]
    fn what_may_pass_waits_and_what_cannot_is_cut_down_to_one_entry_and_then_given_up() {
        let wait = |ms| Step::Wait(Duration::from_millis(ms));
        for (size, entries, rate, count, seconds, want) in [
            // Fits into a second of the rate: waits for as long as the rate needs.
            (500, 9, Some(1_000), 1, 0, wait(500)),
            (1_000, 9, Some(1_000), 7, 900, wait(1_000)),
            (1_000, 9, Some(1_000), 8, 900, Step::Cut(500)),
            (1_000, 1, Some(1_000), 9_999, 90_000, wait(1_000)),
            // Larger: cut at once, into pieces of a second, at most sixteen of them.
            (1_001, 9, Some(1_000), 1, 0, Step::Cut(1_000)),
            (160_000, 9, Some(1_000), 1, 0, Step::Cut(10_000)),
            // One entry: given up when its bucket had the time to fill four times over.
            (2_000, 1, Some(1_000), 1, 900, wait(2_000)),
            (2_000, 1, Some(1_000), 8, 7, wait(2_000)),
            (2_000, 1, Some(1_000), 8, 8, Step::GiveUp),
            // No figures.
            (2_000, 4, None, 7, 900, wait(0)),
            (2_000, 4, None, 8, 0, Step::Cut(1_000)),
            (2_000, 4, Some(0), 8, 0, Step::Cut(1_000)),
            (2_000, 1, None, 9_999, 90_000, wait(0)),
        ] {
            let got = decide(size, entries, rate, count, seconds);
            assert_eq!(
                got, want,
                "{size} bytes, {entries} entries, {rate:?}, {count}"
            );
        }
    }

    #[test]
    fn what_was_divided_before_is_divided_later() {
        for (divisions, count, want) in [
            (1, 15, Step::Wait(Duration::ZERO)),
            (1, 16, Step::Cut(5)),
            (4, 127, Step::Wait(Duration::ZERO)),
            (4, 128, Step::Cut(5)),
            (99, 100_000, Step::Wait(Duration::ZERO)),
        ] {
            let since = None;
            let refusals = Refusals {
                count,
                since,
                divisions,
            };
            assert_eq!(step(10, 2, None, &refusals, Mono(0)), want, "{divisions}");
        }
    }

    #[test]
    fn a_rate_too_small_for_any_wait_does_not_overflow() {
        assert!(matches!(decide(u64::MAX, 1, Some(1), 1, 0), Step::Wait(_)));
    }
}
