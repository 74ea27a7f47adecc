//! Rate limiting of log lines, per place in the code: within one `tick` the first `initial` lines
//! of a place are written, then every `thereafter`th. What is left out is counted and reported.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// How lines are limited (`service::telemetry::logs::sampling`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Length of the window lines are counted in.
    pub tick: Duration,
    /// Lines of one place that are written in each window.
    pub initial: u64,
    /// Of the lines beyond `initial`, each `thereafter`th is written; 0 = none.
    pub thereafter: u64,
}

impl Default for Sampling {
    /// The collector's defaults: 10 lines in 10 s, then every hundredth.
    fn default() -> Self {
        Sampling {
            tick: Duration::from_secs(10),
            initial: 10,
            thereafter: 100,
        }
    }
}

#[derive(Debug, Default)]
struct Place {
    window: u64,
    seen: u64,
    suppressed: u64,
}

/// What to do with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Write it, and say that so many lines of its place were left out before it.
    Write { suppressed: u64 },
    /// Leave it out.
    Suppress,
}

/// Counts lines by place. `K` names a place in the code, so there are only so many.
#[derive(Debug)]
pub(crate) struct Sampler<K> {
    places: HashMap<K, Place>,
    swept: u64,
}

impl<K> Default for Sampler<K> {
    fn default() -> Self {
        Sampler {
            places: HashMap::new(),
            swept: 0,
        }
    }
}

impl<K: Eq + Hash + Clone> Sampler<K> {
    fn window(sampling: &Sampling, now: Duration) -> u64 {
        // Windows are numbered from 1, so that a new place always begins a new one.
        (now.as_nanos() / sampling.tick.as_nanos().max(1)) as u64 + 1
    }

    /// Decides about a line of `key` at `now`.
    pub(crate) fn admit(&mut self, sampling: &Sampling, key: K, now: Duration) -> Verdict {
        let window = Self::window(sampling, now);
        let place = self.places.entry(key).or_default();
        if place.window != window {
            place.window = window;
            place.seen = 0;
        }
        place.seen += 1;
        let beyond = place.seen.saturating_sub(sampling.initial);
        let each = sampling.thereafter;
        if beyond == 0 || (each > 0 && beyond.is_multiple_of(each)) {
            return Verdict::Write {
                suppressed: std::mem::take(&mut place.suppressed),
            };
        }
        place.suppressed += 1;
        Verdict::Suppress
    }

    /// The places of which lines were left out in windows that are over, at most once per
    /// window; with `all`, in the present one too.
    pub(crate) fn report(
        &mut self,
        sampling: &Sampling,
        now: Duration,
        all: bool,
    ) -> Vec<(K, u64)> {
        let window = Self::window(sampling, now);
        if !all && self.swept == window {
            return Vec::new();
        }
        self.swept = window;
        let mut left_out = Vec::new();
        for (key, place) in &mut self.places {
            if place.suppressed > 0 && (all || place.window != window) {
                left_out.push((key.clone(), std::mem::take(&mut place.suppressed)));
            }
        }
        left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn written(sampler: &mut Sampler<u8>, sampling: &Sampling, lines: u64, at: Duration) -> u64 {
        let mut admit = |_: &u64| sampler.admit(sampling, 1, at) != Verdict::Suppress;
        (0..lines).filter(|i| admit(i)).count() as u64
    }

    #[test]
    fn first_some_then_each_nth_and_afresh_in_the_next_window() {
        let sampling = Sampling::default();
        let mut sampler = Sampler::default();
        assert_eq!(written(&mut sampler, &sampling, 10, SECOND), 10);
        assert_eq!(written(&mut sampler, &sampling, 99, SECOND), 0);
        assert_eq!(
            sampler.admit(&sampling, 1, SECOND),
            Verdict::Write { suppressed: 99 }
        );
        assert_eq!(
            sampler.admit(&sampling, 2, SECOND),
            Verdict::Write { suppressed: 0 }
        );
        assert_eq!(written(&mut sampler, &sampling, 1007, SECOND), 10);
        let next = Verdict::Write { suppressed: 7 };
        assert_eq!(sampler.admit(&sampling, 1, 11 * SECOND), next, "afresh");
    }

    #[test]
    fn every_suppressed_line_is_reported_once() {
        let sampling = Sampling {
            initial: 1,
            thereafter: 0,
            ..Sampling::default()
        };
        let mut sampler = Sampler::default();
        assert_eq!(written(&mut sampler, &sampling, 6, SECOND), 1);
        assert_eq!(
            sampler.report(&sampling, SECOND, false),
            [],
            "the window goes on"
        );
        assert_eq!(sampler.report(&sampling, 11 * SECOND, false), [(1, 5)]);
        assert_eq!(sampler.report(&sampling, 11 * SECOND, true), []);
        assert_eq!(written(&mut sampler, &sampling, 3, 12 * SECOND), 1);
        assert_eq!(sampler.report(&sampling, 12 * SECOND, true), [(1, 2)]);
    }

    #[test]
    fn a_window_of_no_length_does_not_panic() {
        let sampling = Sampling {
            tick: Duration::ZERO,
            ..Sampling::default()
        };
        assert_eq!(written(&mut Sampler::default(), &sampling, 20, SECOND), 10);
    }
}
