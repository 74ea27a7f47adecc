//! Sample lines: what a control plane has injected where lines come in, to see whether they arrive.
//!
//! Who wants one asks [`Probes::inject`]; the receiver `probe` puts it into the pipelines that name it, and says
//! what became of it. There is one [`probes`] in a process, as there is one agent. Nothing of a line can be
//! chosen from outside: it says which agent it is of, which process of that, and its number.
//!
//! Invariants: numbers grow by one; a line counts as due once, when it is settled or [`WAIT`] is over, and as
//! delivered once, when every destination of it has it; delivered lines are due. What a component leaves out
//! on purpose is neither.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Mono;

/// The attribute of the resource of each sample line. No other line has it.
pub const ATTRIBUTE: &str = "tailwater.probe";
/// What each sample line begins with; the name of the agent, its process and a number follow.
pub const PREFIX: &str = "tailwater sample line";
/// A line that is under way for longer should have arrived.
pub const WAIT: Duration = Duration::from_secs(10);
/// So many are followed at the same time; then the oldest is taken for lost.
const FOLLOWED_MAX: usize = 1_000;

/// A sample line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    /// Its number, from 1.
    pub number: u64,
    /// Its text.
    pub line: Arc<str>,
}

/// What became of a sample line in one lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The destination has it.
    Delivered,
    /// A component left it out on purpose.
    Filtered,
    /// It was given up.
    Dropped,
}

/// Takes sample lines into the pipelines of one lane.
pub trait Injector: Send + Sync {
    /// Takes one; its fate is told by [`Probes::settled`]. Does not block.
    fn inject(&self, probe: &Probe);
}

/// How many there were.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProbeCounts {
    /// Injected: the number of the newest one.
    pub sent: u64,
    /// Long enough ago to have arrived.
    pub due: u64,
    /// Of these, acknowledged by every destination.
    pub delivered: u64,
    /// All with this number or a smaller one are due, delivered or left out.
    pub due_up_to: u64,
}

struct Followed {
    number: u64,
    since: Mono,
    pending: usize,
    worst: Option<Fate>,
    is_due: bool,
}

#[derive(Default)]
struct State {
    injectors: Vec<(u64, Arc<dyn Injector>)>,
    registered: u64,
    followed: VecDeque<Followed>,
    counts: ProbeCounts,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Probes(Mutex<State>);

static PROBES: Probes = Probes(Mutex::new(State {
    injectors: Vec::new(),
    registered: 0,
    followed: VecDeque::new(),
    counts: ProbeCounts {
        sent: 0,
        due: 0,
        delivered: 0,
        due_up_to: 0,
    },
}));

/// Those of this process.
pub fn probes() -> &'static Probes {
    &PROBES
}

impl Probes {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on lines go there, too, until [`Probes::leave`] with the number that this gives.
    pub fn register(&self, injector: Arc<dyn Injector>) -> u64 {
        let mut state = self.lock();
        state.registered += 1;
        let number = state.registered;
        state.injectors.push((number, injector));
        number
    }

    /// No line goes there any more.
    pub fn leave(&self, number: u64) {
        self.lock().injectors.retain(|(n, _)| *n != number);
    }

    /// Whether a pipeline takes sample lines.
    pub fn has_way(&self) -> bool {
        !self.lock().injectors.is_empty()
    }

    /// Injects a line of the agent `name`, of its process `process`, into every lane that takes some. False if
    /// there is none.
    pub fn inject(&self, name: &str, process: u64, now: Mono) -> bool {
        let mut state = self.lock();
        if state.injectors.is_empty() {
            return false;
        }
        state.counts.sent += 1;
        let number = state.counts.sent;
        if state.followed.len() >= FOLLOWED_MAX
            && let Some(oldest) = state.followed.pop_front()
            && !oldest.is_due
        {
            state.counts.due += 1;
        }
        let followed = Followed {
            number,
            since: now,
            pending: state.injectors.len(),
            worst: None,
            is_due: false,
        };
        state.followed.push_back(followed);
        let probe = Probe {
            number,
            line: format!("{PREFIX} {name} {process} {number}").into(),
        };
        let injectors = state.injectors.clone();
        // They may settle it at once.
        drop(state);
        for (_, injector) in injectors {
            injector.inject(&probe);
        }
        true
    }

    /// What became of the line with this number in one lane.
    pub fn settled(&self, number: u64, fate: Fate) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(at) = state.followed.iter().position(|f| f.number == number) else {
            return;
        };
        let followed = &mut state.followed[at];
        followed.pending = followed.pending.saturating_sub(1);
        followed.worst = match (followed.worst, fate) {
            (Some(Fate::Dropped), _) | (_, Fate::Dropped) => Some(Fate::Dropped),
            (Some(Fate::Filtered), _) | (_, Fate::Filtered) => Some(Fate::Filtered),
            _ => Some(Fate::Delivered),
        };
        if followed.pending > 0 {
            return;
        }
        let (worst, is_due) = (followed.worst, followed.is_due);
        state.followed.remove(at);
        let counts = &mut state.counts;
        match worst {
            Some(Fate::Delivered) => {
                counts.due += u64::from(!is_due);
                counts.delivered += 1;
            }
            Some(Fate::Dropped) => counts.due += u64::from(!is_due),
            _ => {}
        }
    }

    /// How many there were until now.
    pub fn counts(&self, now: Mono) -> ProbeCounts {
        let mut state = self.lock();
        let state = &mut *state;
        for followed in &mut state.followed {
            if !followed.is_due && now.since(followed.since) >= WAIT {
                followed.is_due = true;
                state.counts.due += 1;
            }
        }
        let young = state.followed.iter().find(|f| !f.is_due);
        state.counts.due_up_to = young.map_or(state.counts.sent, |f| f.number - 1);
        state.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Lane(Mutex<Vec<Probe>>);

    impl Injector for Lane {
        fn inject(&self, probe: &Probe) {
            self.0.lock().unwrap().push(probe.clone());
        }
    }

    fn seconds(n: u64) -> Mono {
        Mono(n * 1_000_000_000)
    }

    #[test]
    fn a_line_is_delivered_when_every_lane_has_delivered_it() {
        let probes = Probes::default();
        assert!(!probes.inject("a", 1, seconds(0)) && !probes.has_way());
        let lanes = [Arc::new(Lane::default()), Arc::new(Lane::default())];
        let first = probes.register(lanes[0].clone());
        probes.register(lanes[1].clone());
        assert!(probes.inject("agent", 7, seconds(0)));
        let seen = lanes[1].0.lock().unwrap().clone();
        assert_eq!(&*seen[0].line, "tailwater sample line agent 7 1");
        probes.settled(1, Fate::Delivered);
        assert_eq!(probes.counts(seconds(1)).due, 0);
        probes.settled(1, Fate::Delivered);
        let counts = probes.counts(seconds(1));
        assert_eq!((counts.sent, counts.due, counts.delivered), (1, 1, 1));
        probes.leave(first);
        probes.inject("agent", 7, seconds(2));
        assert_eq!(lanes[0].0.lock().unwrap().len(), 1);
    }

    #[test]
    fn what_is_dropped_or_late_is_missing_and_what_is_left_out_is_nothing() {
        let probes = Probes::default();
        probes.register(Arc::new(Lane::default()));
        for _ in 0..4 {
            probes.inject("a", 1, seconds(0));
        }
        probes.settled(1, Fate::Dropped);
        probes.settled(2, Fate::Filtered);
        let counts = probes.counts(seconds(5));
        assert_eq!((counts.due, counts.delivered, counts.due_up_to), (1, 0, 2));
        let late = probes.counts(seconds(10));
        assert_eq!((late.due, late.due_up_to), (3, 4));
        // Late, and there all the same.
        probes.settled(3, Fate::Delivered);
        probes.settled(3, Fate::Delivered);
        let counts = probes.counts(seconds(11));
        assert_eq!((counts.due, counts.delivered), (3, 1));
    }

    #[test]
    fn what_is_followed_is_bounded() {
        let probes = Probes::default();
        probes.register(Arc::new(Lane::default()));
        for _ in 0..FOLLOWED_MAX + 5 {
            probes.inject("a", 1, seconds(0));
        }
        assert_eq!(probes.lock().followed.len(), FOLLOWED_MAX);
        assert_eq!(probes.counts(seconds(0)).due, 5);
    }
}
