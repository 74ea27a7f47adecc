//! Whether a tenant or a destination is let through.

use std::time::Duration;

use tailwater_pipeline::clock::Mono;

use super::backoff::Backoff;

/// Open, paused until a time, or on probation: one request at a time until one succeeds.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate {
    state: State,
    failures: u32,
    /// Raised with every pause, so that answers to what was sent before it are told apart.
    epoch: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Open,
    Paused(Mono),
    Probation,
}

impl Gate {
    /// To be stored with what is sent now.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// When the pause ends, if there is one.
    pub fn paused_until(&self) -> Option<Mono> {
        match self.state {
            State::Paused(until) => Some(until),
            State::Open | State::Probation => None,
        }
    }

    /// True if nothing is known against it.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Ends a pause whose time has come. True if it did.
    pub fn refresh(&mut self, now: Mono) -> bool {
        match self.state {
            State::Paused(until) if until <= now => {
                self.state = State::Probation;
                true
            }
            _ => false,
        }
    }

    /// Whether one more may be sent while `in_flight` are under way.
    pub fn admits(&self, in_flight: usize) -> bool {
        match self.state {
            State::Open => true,
            State::Paused(_) => false,
            State::Probation => in_flight == 0,
        }
    }

    /// Something that was sent in `epoch` was accepted. An acceptance of something that was sent
    /// before the pause says nothing about its end. True if the gate was opened by it.
    pub fn succeeded(&mut self, epoch: u32) -> bool {
        if epoch != self.epoch {
            return false;
        }
        self.failures = 0;
        self.state = match self.state {
            State::Paused(until) => State::Paused(until),
            State::Open | State::Probation => State::Open,
        };
        self.is_open()
    }

    /// Something that was sent in `epoch` failed. Failures of what was under way together count as
    /// one; what was sent before the last pause only brings its floor. Returns the wait.
    pub fn failed(
        &mut self,
        now: Mono,
        epoch: u32,
        backoff: &mut Backoff,
        floor: Option<Duration>,
    ) -> Duration {
        if epoch != self.epoch {
            return self.failed_late(now, floor);
        }
        let wait = backoff.wait(self.failures, floor);
        self.failures = self.failures.saturating_add(1);
        self.pause(now.after(wait));
        wait
    }

    /// Nothing helps until a person acts: pause for `wait` without growing it.
    pub fn hold(&mut self, now: Mono, epoch: u32, wait: Duration) -> Duration {
        if epoch != self.epoch {
            return self.failed_late(now, None);
        }
        self.pause(now.after(wait));
        wait
    }

    fn failed_late(&mut self, now: Mono, floor: Option<Duration>) -> Duration {
        let asked = floor.map(|f| now.after(f));
        match (self.state, asked) {
            (State::Paused(until), _) => {
                self.state = State::Paused(until.max(asked.unwrap_or(until)));
            }
            (State::Open | State::Probation, Some(until)) => self.pause(until),
            (State::Open | State::Probation, None) => {}
        }
        self.paused_until()
            .map_or(Duration::ZERO, |until| until.since(now))
    }

    fn pause(&mut self, until: Mono) {
        self.epoch = self.epoch.wrapping_add(1);
        self.state = State::Paused(until);
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::RetryOptions;
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000_000)
    }

    fn backoff() -> Backoff {
        let o = RetryOptions {
            randomization_factor: 0.0,
            ..RetryOptions::default()
        };
        Backoff::new(&o, 1)
    }

    #[test]
    fn failures_that_were_under_way_together_count_once() {
        let (mut g, mut b) = (Gate::default(), backoff());
        let sent_in = g.epoch();
        for _ in 0..10 {
            assert_eq!(g.failed(at(0), sent_in, &mut b, None).as_secs(), 5);
        }
        assert!(!g.admits(0) && !g.refresh(at(4)) && g.refresh(at(5)));
        assert!(g.admits(0) && !g.admits(1));
        assert_eq!(g.failed(at(5), g.epoch(), &mut b, None).as_millis(), 7500);
    }

    #[test]
    fn only_a_success_after_the_pause_opens() {
        let (mut g, mut b) = (Gate::default(), backoff());
        let before = g.epoch();
        g.failed(at(0), before, &mut b, None);
        assert!(!g.succeeded(before));
        g.refresh(at(5));
        assert!(!g.succeeded(before) && !g.admits(1));
        assert!(g.succeeded(g.epoch()) && g.admits(99));
        assert_eq!(
            g.failed(at(6), g.epoch(), &mut b, None).as_secs(),
            5,
            "counts from new"
        );
    }

    #[test]
    fn the_wait_the_destination_asked_for_is_a_floor() {
        let (mut g, mut b) = (Gate::default(), backoff());
        let e = g.epoch();
        assert_eq!(
            g.failed(at(0), e, &mut b, Some(Duration::from_secs(60)))
                .as_secs(),
            60
        );
        assert_eq!(
            g.failed(at(1), e, &mut b, Some(Duration::from_secs(90)))
                .as_secs(),
            90
        );
        assert_eq!(g.paused_until(), Some(at(91)));
    }
}
