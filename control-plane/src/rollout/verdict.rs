//! Whether a configuration does harm: what agents under test count, against what they counted before
//! the change, and against agents that did not change.
//!
//! Pure, and of three values. Nothing is a pass without data. A signal is held against the configuration
//! only if it is worse than the agent's own past **and** the control group is spared: what both suffer has a
//! cause of its own, usually the backend. Without a control group, a signal that a backend can cause is no
//! evidence at all.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A queue that is this full, of a hundred, is no past to compare with.
const QUEUE_FULL: u64 = 90;
/// A queue that is less full than this, of a hundred, may fill as fast as it likes: batches come and go.
const QUEUE_RISING_MIN: u64 = 25;
/// So many of a hundred more within a window is filling.
const QUEUE_RISE_MIN: u64 = 15;
/// More of what was read being of a backlog is catching up, of all that was read.
const BACKLOG_SHARE_MAX: f64 = 0.2;
/// Fewer lines in a window say nothing about how much is read.
const INTAKE_MIN: f64 = 20.0;

/// What an agent counts, as it was received. Counters begin at 0 with each process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// When it was received, by the clock of the control plane, ms.
    pub at_ms: u64,
    /// Another one for each process of the agent.
    pub incarnation: u64,
    /// Lines read or received.
    pub lines_read: u64,
    /// Lines that the destination has acknowledged.
    pub lines_delivered: u64,
    /// Lines that the configuration leaves out on purpose.
    pub lines_filtered: u64,
    /// Lines given up, for whatever reason.
    pub lines_dropped: u64,
    /// Of these, those that a destination would not have.
    pub lines_rejected: u64,
    /// Lines read, and nothing of these yet.
    pub lines_in_flight: u64,
    /// Requests to destinations.
    pub requests: u64,
    /// Of these, refused for good.
    pub errors_permanent: u64,
    /// Of these, to be tried again.
    pub errors_retryable: u64,
    /// Of these, put off by a destination that has too much to do.
    pub errors_throttled: u64,
    /// Bytes that wait in queues.
    pub queue_bytes: u64,
    /// Bytes that may wait there; 0 if there is no queue.
    pub queue_bytes_max: u64,
    /// Bytes that are on disk and not delivered.
    pub lag_bytes: u64,
    /// Bytes of the lines read; 0 if it does not say.
    pub bytes_read: u64,
    /// Sample lines that were injected long enough ago to have arrived.
    pub probes_due: u64,
    /// Of these, found at the destination.
    pub probes_found: u64,
    /// Resident memory, bytes; 0 if it does not say.
    pub memory_bytes: u64,
    /// Processor time of all threads since its start, ms.
    pub cpu_ms: u64,
    /// How long the newest offer that came into force took from its receipt, by the agent's clock, ms; 0 if it does not say.
    pub apply_ms: u64,
}

impl Sample {
    /// Lines of which nobody knows what became; 0 in an agent that keeps its account.
    pub fn unaccounted(&self) -> i64 {
        let known = self.lines_delivered + self.lines_filtered + self.lines_dropped;
        self.lines_read as i64 - (known + self.lines_in_flight) as i64
    }
}

/// From where on something is worse, and what is no data.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// A shorter window says nothing.
    pub window_ms_min: u64,
    /// Longer ones begin anew, so that what begins late is not thinned out.
    pub window_ms_max: u64,
    /// So many times the own past is worse.
    pub factor: f64,
    /// A share (of lines, requests, sample lines) below this is noise.
    pub share_floor: f64,
    /// So few errors, lines or probes are chance.
    pub events_min: u64,
    /// A lag below this is noise.
    pub lag_bytes_floor: u64,
    /// So many times the own past is worse, of memory and processor time: a change may cost something.
    pub resources_factor: f64,
    /// So much more memory is noise, bytes.
    pub memory_bytes_floor: u64,
    /// So much more of a processor is noise.
    pub cpu_share_floor: f64,
    /// A configuration may take so much longer to come into force, ms.
    pub apply_ms_floor: u64,
    /// An agent that says nothing for this long, while the control group does, is gone.
    pub gone_ms: u64,
    /// A sample that is older than this is none.
    pub stale_ms: u64,
    /// So many restarts in a soak are a loop.
    pub restarts_max: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            window_ms_min: 10_000,
            window_ms_max: 60_000,
            factor: 1.5,
            share_floor: 0.02,
            events_min: 2,
            lag_bytes_floor: 64 << 10,
            resources_factor: 2.0,
            memory_bytes_floor: 64 << 20,
            cpu_share_floor: 0.2,
            apply_ms_floor: 20_000,
            gone_ms: 20_000,
            stale_ms: 15_000,
            restarts_max: 2,
        }
    }
}

/// What is looked at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Lines are unaccounted for: read is not delivered, filtered, dropped and in flight.
    Unaccounted,
    /// The agent drops lines.
    Dropped,
    /// A destination will not have lines.
    Rejected,
    /// Less is read.
    Intake,
    /// Requests are refused for good.
    PermanentErrors,
    /// Requests fail, and are tried again.
    RetryableErrors,
    /// Requests are put off.
    ThrottledErrors,
    /// Queues fill.
    Queue,
    /// What is not delivered grows.
    Lag,
    /// More memory is used.
    Memory,
    /// More processor time is used for the same.
    Cpu,
    /// It takes longer to come into force.
    Apply,
    /// Sample lines do not arrive.
    Probe,
    /// The agent is not heard of any more.
    Gone,
    /// The agent begins again and again.
    CrashLoop,
}

impl Signal {
    /// Those that a window shows.
    const OF_WINDOWS: [Signal; 13] = [
        Signal::Unaccounted,
        Signal::Dropped,
        Signal::Rejected,
        Signal::Intake,
        Signal::PermanentErrors,
        Signal::RetryableErrors,
        Signal::ThrottledErrors,
        Signal::Queue,
        Signal::Lag,
        Signal::Memory,
        Signal::Cpu,
        Signal::Apply,
        Signal::Probe,
    ];

    /// Those that are so many of so many.
    const OF_PARTS: [Signal; 6] = [
        Signal::Dropped,
        Signal::Rejected,
        Signal::PermanentErrors,
        Signal::RetryableErrors,
        Signal::ThrottledErrors,
        Signal::Probe,
    ];

    /// Its name in alerts.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Unaccounted => "lines unaccounted for",
            Signal::Dropped => "dropped lines",
            Signal::Rejected => "rejected lines",
            Signal::Intake => "less is read",
            Signal::PermanentErrors => "permanent errors",
            Signal::RetryableErrors => "retryable errors",
            Signal::ThrottledErrors => "throttling",
            Signal::Queue => "queues fill",
            Signal::Lag => "lag",
            Signal::Memory => "memory",
            Signal::Cpu => "processor time",
            Signal::Apply => "it takes long to come into force",
            Signal::Probe => "sample lines are missing",
            Signal::Gone => "the agent is gone",
            Signal::CrashLoop => "the agent restarts",
        }
    }

    /// Something outside of the agent can cause it, so without a control group it proves nothing.
    fn has_other_causes(self) -> bool {
        !matches!(self, Signal::Unaccounted | Signal::Dropped)
    }

    /// Nothing is lost by it, and a backend that stumbles causes it at some agents and not at others, by chance: it is
    /// held against a configuration only if it goes on.
    pub(super) fn is_fleeting(self) -> bool {
        matches!(self, Signal::RetryableErrors | Signal::ThrottledErrors)
    }
}

/// What happened between two samples of one process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Window {
    /// How long it is.
    pub ms: u64,
    /// Lines read.
    pub read: u64,
    /// Their bytes; 0 if it is not known.
    pub bytes_read: u64,
    /// Lines delivered.
    pub delivered: u64,
    /// Lines that got lost sight of.
    pub unaccounted: u64,
    /// Lines that the agent dropped for reasons of its own.
    pub dropped: u64,
    /// Lines that a destination would not have.
    pub rejected: u64,
    /// Requests.
    pub requests: u64,
    /// Of these, refused for good.
    pub permanent: u64,
    /// Of these, to be tried again.
    pub retryable: u64,
    /// Of these, put off.
    pub throttled: u64,
    /// How full queues are at the begin, of a hundred.
    pub queue_percent_before: u64,
    /// How full queues are at the end, of a hundred.
    pub queue_percent: u64,
    /// Bytes not delivered, at the begin.
    pub lag_before: u64,
    /// Bytes not delivered, at the end.
    pub lag: u64,
    /// Sample lines that should have arrived.
    pub probes_due: u64,
    /// Of these, missing.
    pub probes_missing: u64,
    /// Resident memory at the end, bytes; 0 if it is not known.
    pub memory_bytes: u64,
    /// Processor time, ms.
    pub cpu_ms: u64,
    /// How long what is in force at the end took to come into force, ms; 0 if it is not known.
    pub apply_ms: u64,
}

/// So many of so many.
#[derive(Clone, Copy, Debug)]
struct Part(u64, u64);

impl Part {
    fn share(self) -> f64 {
        self.0 as f64 / self.1.max(1) as f64
    }

    /// One of something is chance.
    fn is_above(self, past: Part, limits: &Limits) -> bool {
        let limit = past.share() * limits.factor + limits.share_floor;
        self.0 >= limits.events_min && self.share() > limit
    }
}

impl Window {
    /// None if the samples are not of one process, or not apart.
    pub fn between(a: &Sample, b: &Sample) -> Option<Window> {
        let ms = b.at_ms.checked_sub(a.at_ms).filter(|ms| *ms > 0)?;
        if a.incarnation != b.incarnation {
            return None;
        }
        let due = b.probes_due.checked_sub(a.probes_due)?;
        let found = b.probes_found.checked_sub(a.probes_found)?;
        let rejected = b.lines_rejected.checked_sub(a.lines_rejected)?;
        let dropped = b.lines_dropped.checked_sub(a.lines_dropped)?;
        let queue = |s: &Sample| s.queue_bytes * 100 / s.queue_bytes_max.max(1);
        Some(Window {
            ms,
            read: b.lines_read.checked_sub(a.lines_read)?,
            bytes_read: b.bytes_read.saturating_sub(a.bytes_read),
            delivered: b.lines_delivered.checked_sub(a.lines_delivered)?,
            unaccounted: b.unaccounted().abs_diff(a.unaccounted()),
            dropped: dropped.saturating_sub(rejected),
            rejected,
            requests: b.requests.checked_sub(a.requests)?,
            permanent: b.errors_permanent.checked_sub(a.errors_permanent)?,
            retryable: b.errors_retryable.checked_sub(a.errors_retryable)?,
            throttled: b.errors_throttled.checked_sub(a.errors_throttled)?,
            queue_percent_before: queue(a),
            queue_percent: queue(b),
            lag_before: a.lag_bytes,
            lag: b.lag_bytes,
            probes_due: due,
            probes_missing: due.saturating_sub(found),
            memory_bytes: b.memory_bytes,
            cpu_ms: b.cpu_ms.saturating_sub(a.cpu_ms),
            apply_ms: b.apply_ms,
        })
    }

    /// Whether a past like this can be compared with: nothing in it is in trouble.
    pub fn is_sound(&self, limits: &Limits) -> bool {
        let none = Part(0, 1);
        let (before, lag) = (self.lag_before as f64, self.lag as f64);
        // Neither falling behind nor catching up: what is read then is not what it usually is.
        let factor = (1.0 + limits.factor) / 2.0;
        let moves = lag > before * factor
            || lag * factor < before
            || self.backlog_share() > BACKLOG_SHARE_MAX;
        let moves = moves && self.lag.max(self.lag_before) > limits.lag_bytes_floor;
        let mut parts = Signal::OF_PARTS.into_iter().filter_map(|s| self.part(s));
        let troubled = parts.any(|p| p.is_above(none, limits));
        self.unaccounted == 0
            && !troubled
            && !moves
            && self.queue_percent < QUEUE_FULL
            && self.is_evidence()
    }

    /// Something came through, be it only a sample line.
    fn is_evidence(&self) -> bool {
        match self.probes_due {
            0 => self.delivered > 0,
            due => self.probes_missing < due,
        }
    }

    fn part(&self, signal: Signal) -> Option<Part> {
        match signal {
            Signal::Dropped => Some(Part(self.dropped, self.read)),
            Signal::Rejected => Some(Part(self.rejected, self.read)),
            Signal::PermanentErrors => Some(Part(self.permanent, self.requests)),
            Signal::RetryableErrors => Some(Part(self.retryable, self.requests)),
            Signal::ThrottledErrors => Some(Part(self.throttled, self.requests)),
            Signal::Probe => Some(Part(self.probes_missing, self.probes_due)),
            _ => None,
        }
    }

    /// Whether a signal is worse here than in the past.
    fn is_worse(&self, signal: Signal, past: &Window, limits: &Limits) -> bool {
        if let (Some(now), Some(past)) = (self.part(signal), past.part(signal)) {
            return now.is_above(past, limits);
        }
        match signal {
            Signal::Unaccounted => self.unaccounted > past.unaccounted,
            Signal::Intake => {
                // Less than half as much in the same time, where there was enough to say so.
                let expected = past.steady_read() * self.ms as f64 / past.ms as f64;
                expected >= INTAKE_MIN && (self.read as f64) < expected / 2.0
            }
            Signal::Queue => {
                let is_fuller =
                    self.queue_percent as f64 > past.queue_percent as f64 * limits.factor;
                is_fuller && (self.queue_percent >= QUEUE_FULL / 2 || self.fills(past, limits))
            }
            Signal::Lag => {
                let most = past.lag.max(past.lag_before);
                let more = self.lag as f64 > most as f64 * limits.factor;
                // A backlog that is being delivered is on the way out.
                let shrinks = (self.lag as f64) < self.lag_before as f64 * 0.8;
                more && self.lag > limits.lag_bytes_floor && !shrinks
            }
            Signal::Memory => {
                let more = self.memory_bytes.saturating_sub(past.memory_bytes);
                let limit = past.memory_bytes as f64 * limits.resources_factor;
                past.memory_bytes > 0
                    && more > limits.memory_bytes_floor
                    && self.memory_bytes as f64 > limit
            }
            Signal::Cpu => {
                let share = |w: &Window| w.cpu_ms as f64 / w.ms.max(1) as f64;
                let per_line = |w: &Window| w.cpu_ms as f64 / w.read.max(1) as f64;
                let limit = share(past) * limits.resources_factor;
                // Who has more to do may take more.
                past.cpu_ms > 0
                    && share(self) > limit + limits.cpu_share_floor
                    && per_line(self) > per_line(past) * limits.resources_factor
            }
            Signal::Apply => {
                let limit = past.apply_ms as f64 * limits.resources_factor;
                // Of an agent that was never offered anything there is no past.
                past.apply_ms > 0 && self.apply_ms as f64 > limit + limits.apply_ms_floor as f64
            }
            _ => false,
        }
    }

    /// How much of what was read is of a backlog that was worked off meanwhile, from 0 to 1; 0 if it is not known.
    fn backlog_share(&self) -> f64 {
        let backlog = self.lag_before.saturating_sub(self.lag) as f64;
        match self.bytes_read {
            0 => 0.0,
            bytes => (backlog / bytes as f64).min(1.0),
        }
    }

    /// Lines read without those of a backlog: less is read when that is gone.
    fn steady_read(&self) -> f64 {
        self.read as f64 * (1.0 - self.backlog_share())
    }

    /// Whether this is another number of events of a signal than there was then. What is no number of events goes on.
    pub(super) fn goes_on(&self, signal: Signal, then: &Window) -> bool {
        match (self.part(signal), then.part(signal)) {
            (Some(now), Some(then)) => now.0 != then.0,
            _ => true,
        }
    }

    /// Whether queues fill, and faster than before.
    fn fills(&self, past: &Window, limits: &Limits) -> bool {
        let rise = |w: &Window| w.queue_percent.saturating_sub(w.queue_percent_before);
        let slope = |w: &Window| rise(w) as f64 / w.ms.max(1) as f64;
        self.queue_percent >= QUEUE_RISING_MIN
            && rise(self) >= QUEUE_RISE_MIN
            && slope(self) > slope(past) * limits.factor
    }
}

/// An agent, under test or in the control group.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Compared {
    /// Before the change.
    pub past: Window,
    /// Since; none if there is no data.
    pub now: Option<Window>,
    /// Not heard of for so long, ms.
    pub silent_ms: u64,
    /// Processes that it began since.
    pub restarts: u32,
}

impl Compared {
    /// One that is as it was.
    pub(super) fn spared(&self) -> Compared {
        Compared {
            past: self.past,
            now: Some(self.past),
            silent_ms: 0,
            restarts: 0,
        }
    }

    fn suffers(&self, signal: Signal, limits: &Limits) -> bool {
        match signal {
            Signal::Gone => self.silent_ms >= limits.gone_ms,
            Signal::CrashLoop => self.restarts >= limits.restarts_max,
            _ => (self.now).is_some_and(|now| now.is_worse(signal, &self.past, limits)),
        }
    }
}

/// What is said of all agents under test.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Judgement {
    /// So many were judged.
    pub tested: usize,
    /// So many do well.
    pub good: usize,
    /// What is held against the configuration, by the place of the agent among those under test.
    pub bad: BTreeMap<usize, BTreeSet<Signal>>,
    /// What the control group suffers, too, or what there is no control group for.
    pub shared: BTreeSet<Signal>,
}

/// In one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Most have data, and are no worse; as many as are allowed are.
    Good,
    /// More than are allowed are worse, and the control group is not.
    Bad,
    /// It cannot be said.
    NoData,
}

impl Judgement {
    /// With so many bad ones allowed.
    pub fn verdict(&self, failures_max: usize) -> Verdict {
        if self.bad.len() > failures_max {
            Verdict::Bad
        } else if self.good * 2 > self.tested && self.shared.is_empty() {
            Verdict::Good
        } else {
            Verdict::NoData
        }
    }

    fn blame(&mut self, agent: usize, signal: Signal) {
        self.bad.entry(agent).or_default().insert(signal);
    }

    /// Holds nothing against the configuration that something else can cause.
    pub(super) fn keep_own_causes(&mut self) {
        self.keep(|_, signal| !signal.has_other_causes());
    }

    /// Holds nothing else against it, by the place of the agent and the signal.
    pub(super) fn keep(&mut self, counts: impl Fn(usize, Signal) -> bool) {
        for (agent, signals) in &mut self.bad {
            signals.retain(|signal| counts(*agent, *signal));
        }
        self.bad.retain(|_, signals| !signals.is_empty());
    }

    /// All that is held against the configuration, for people.
    pub fn reasons(&self) -> String {
        let signals: BTreeSet<_> = self.bad.values().flatten().collect();
        let names: Vec<_> = signals.into_iter().map(|s| s.name()).collect();
        names.join(", ")
    }
}

/// See the module's documentation.
pub fn judge(limits: &Limits, tested: &[Compared], control: &[Compared]) -> Judgement {
    let mut judgement = Judgement {
        tested: tested.len(),
        ..Judgement::default()
    };
    let others = [Signal::Gone, Signal::CrashLoop];
    let signals = Signal::OF_WINDOWS.into_iter().chain(others);
    let signals: Vec<_> = signals
        .map(|signal| (signal, standing(signal, limits, control)))
        .collect();
    for (i, agent) in tested.iter().enumerate() {
        let mut is_clean = true;
        for (signal, standing) in &signals {
            if !agent.suffers(*signal, limits) {
                continue;
            }
            match standing {
                // Less is written everywhere, as by night. What else is wrong then is another signal.
                Standing::Suffers if *signal == Signal::Intake => continue,
                Standing::Nobody if !signal.has_other_causes() => judgement.blame(i, *signal),
                Standing::Spared => judgement.blame(i, *signal),
                Standing::Suffers | Standing::Nobody => {
                    judgement.shared.insert(*signal);
                }
            }
            is_clean = false;
        }
        let is_told = |now: &Window| {
            let probed = agent.past.probes_due == 0 || now.probes_due > 0;
            now.ms >= limits.window_ms_min && probed && now.is_evidence()
        };
        if is_clean && agent.now.as_ref().is_some_and(is_told) {
            judgement.good += 1;
        }
    }
    judgement
}

/// How the control group fares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// It does not suffer the signal.
    Spared,
    /// A quarter of it does, so the signal may have another cause than the configuration.
    Suffers,
    /// There is nobody to compare with.
    Nobody,
}

/// It takes less to say that the control group suffers than that an agent under test does, as being wrong
/// there costs time, and here a good configuration.
fn standing(signal: Signal, limits: &Limits, control: &[Compared]) -> Standing {
    let limits = &Limits {
        share_floor: limits.share_floor / 2.0,
        ..*limits
    };
    let with_data = |c: &&Compared| match signal {
        Signal::Gone | Signal::CrashLoop => true,
        _ => c.now.is_some_and(|now| now.ms >= limits.window_ms_min),
    };
    let compared: Vec<_> = control.iter().filter(with_data).collect();
    let suffering = compared.iter().filter(|c| c.suffers(signal, limits));
    match (compared.len(), suffering.count()) {
        (0, _) => Standing::Nobody,
        (all, some) if some * 4 >= all => Standing::Suffers,
        _ => Standing::Spared,
    }
}

#[cfg(test)]
mod tests;
