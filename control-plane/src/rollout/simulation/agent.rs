//! An agent: what it does with offers, and what it counts.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::model::Digest;
use crate::rollout::command::Fence;
use crate::rollout::model::Report;
use crate::rollout::verdict::Sample;

use super::dice::Dice;

/// What a configuration does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// What it should.
    Good,
    /// As good, but needs a component that not all agents have.
    Needs,
    /// Drops a fifth of the lines, and counts them.
    Drops,
    /// Loses a tenth of the lines, and counts nothing.
    Loses,
    /// Twice the lag.
    Lags,
    /// Three of ten requests are refused.
    SinkErrors,
    /// Reads nothing.
    Deaf,
    /// Ends every few seconds.
    Crashes,
    /// Agents refuse it.
    Refused,
    /// The static check refuses it.
    Invalid,
}

impl Kind {
    /// It runs, and does harm.
    pub fn is_harmful(self) -> bool {
        use Kind::{Crashes, Deaf, Drops, Lags, Loses, SinkErrors};
        matches!(self, Drops | Loses | Lags | SinkErrors | Deaf | Crashes)
    }

    /// Agents may be left with it.
    pub fn is_good(self) -> bool {
        matches!(self, Kind::Good | Kind::Needs)
    }
}

/// What is wrong with an agent, each until a time, ms.
#[derive(Clone, Copy, Default, Debug)]
pub struct Faults {
    /// It does not run.
    pub down: u64,
    /// Nothing reaches it, and nothing comes from it.
    pub cut_off: u64,
    /// What it says and hears takes seconds, and so does what it does.
    pub slow: u64,
    /// It says that it runs what it was offered, and does not.
    pub lies: u64,
    /// It cannot keep what it is offered, and says so.
    pub disk_full: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Agent {
    pub id: String,
    pub labels: BTreeMap<String, String>,
    pub components: BTreeSet<String>,
    /// What it runs, and begins with after a restart.
    pub runs: Digest,
    pub kind: Kind,
    pub faults: Faults,
    /// What it is putting into force, and when it is.
    pub applies: Option<(u64, Digest, Kind)>,
    fence: Fence,
    answered: Option<Digest>,
    refused: Option<String>,
    /// What it says of these, until they change.
    says: Option<Rc<Report>>,
    incarnation: u64,
    counted_ms: u64,
    began_ms: u64,
    rate: f64,
    lag: f64,
    written: f64,
    delivered: f64,
    dropped: f64,
    lost: f64,
    requests: f64,
    permanent: f64,
    retryable: f64,
    queue: f64,
    probes_due: f64,
    probes_found: f64,
    /// How long its newest change took, ms.
    took_ms: u64,
    offered_ms: u64,
}

impl Agent {
    pub fn new(n: usize, runs: Digest, dice: &mut Dice) -> Agent {
        let zone = format!("z{}", n % 3);
        let mut components = BTreeSet::from(["loki".to_owned(), "file_log".to_owned()]);
        if !n.is_multiple_of(20) {
            components.insert("extra".to_owned());
        }
        // Some have nothing to read but sample lines.
        let rate = if n % 17 == 3 { 0 } else { dice.range(20, 200) };
        Agent {
            id: format!("agent-{n:03}"),
            labels: BTreeMap::from([("zone".to_owned(), zone)]),
            components,
            runs,
            kind: Kind::Good,
            faults: Faults::default(),
            applies: None,
            fence: Fence::default(),
            answered: None,
            refused: None,
            says: None,
            incarnation: 1,
            counted_ms: 0,
            began_ms: 0,
            rate: rate as f64,
            lag: (rate * dice.range(5, 15)) as f64,
            written: 0.0,
            delivered: 0.0,
            dropped: 0.0,
            lost: 0.0,
            requests: 0.0,
            permanent: 0.0,
            retryable: 0.0,
            queue: 0.0,
            probes_due: 0.0,
            probes_found: 0.0,
            took_ms: 0,
            offered_ms: 0,
        }
    }

    pub fn is_down(&self, now: u64) -> bool {
        self.faults.down > now
    }

    pub fn is_reachable(&self, now: u64) -> bool {
        !self.is_down(now) && self.faults.cut_off <= now
    }

    /// Begins anew, with what it ran.
    pub fn restart(&mut self, now: u64) {
        self.incarnation += 1;
        (self.counted_ms, self.began_ms) = (now, now);
        (self.applies, self.took_ms) = (None, 0);
        self.delivered = 0.0;
        (self.dropped, self.lost) = (0.0, 0.0);
        (self.requests, self.permanent, self.retryable) = (0.0, 0.0, 0.0);
        (self.probes_due, self.probes_found) = (0.0, 0.0);
        self.written = self.lag;
    }

    /// Takes an offer, unless it has obeyed a newer leader or step.
    pub fn offered(
        &mut self,
        digest: &Digest,
        kind: Kind,
        fence: Fence,
        now: u64,
        dice: &mut Dice,
    ) {
        if fence <= self.fence {
            return;
        }
        self.fence = fence;
        self.says = None;
        let reason = match kind {
            Kind::Refused => Some("unknown option"),
            _ if self.faults.disk_full > now => Some("no space left on device"),
            _ => None,
        };
        if self.faults.lies > now {
            (self.answered, self.refused) = (Some(digest.clone()), None);
            return;
        }
        if let Some(reason) = reason {
            self.answered = Some(digest.clone());
            self.refused = Some(reason.to_owned());
            return;
        }
        let takes = match self.faults.slow > now {
            true => dice.range(3_000, 12_000),
            false => dice.range(50, 1_500),
        };
        self.offered_ms = now;
        self.applies = Some((now + takes, digest.clone(), kind));
    }

    /// Puts into force what it took.
    pub fn apply(&mut self, now: u64, is_out: bool) {
        if self.applies.as_ref().is_some_and(|(at, ..)| *at <= now)
            && let Some((_, digest, kind)) = self.applies.take()
        {
            self.count(now, is_out);
            self.says = None;
            (self.answered, self.refused) = (Some(digest.clone()), None);
            (self.runs, self.kind) = (digest, kind);
            self.took_ms = now.saturating_sub(self.offered_ms);
        }
    }

    /// What it does until now.
    pub fn count(&mut self, now: u64, is_out: bool) {
        let seconds = (now - self.counted_ms) as f64 / 1e3;
        self.counted_ms = now;
        self.probes_due += seconds / 2.0;
        if self.kind == Kind::Deaf {
            return;
        }
        self.written += self.rate * seconds;
        self.requests += seconds * 2.0;
        if is_out {
            self.retryable += seconds * 2.0;
            self.queue = (self.queue + seconds / 20.0).min(1.0);
            return;
        }
        self.queue = (self.queue - seconds / 5.0).max(0.0);
        self.probes_found += seconds / 2.0;
        if self.kind == Kind::SinkErrors {
            self.permanent += seconds * 0.6;
        }
        let lag = self.lag * if self.kind == Kind::Lags { 2.0 } else { 1.0 };
        let done = self.delivered + self.dropped + self.lost;
        let may = (self.written - lag - done).max(0.0);
        let moved = may.min(self.rate * 3.0 * seconds);
        match self.kind {
            Kind::Drops => self.dropped += moved * 0.2,
            Kind::Loses => self.lost += moved * 0.1,
            _ => {}
        }
        self.delivered = done + moved - self.dropped - self.lost;
    }

    /// What it says of itself. An agent that crashes has a new life every few seconds.
    pub fn report(&mut self, now: u64, is_out: bool, dice: &mut Dice) -> (Rc<Report>, Sample) {
        if self.kind == Kind::Crashes && now >= self.began_ms + 6_000 {
            self.restart(now);
        }
        self.count(now, is_out);
        let whole = |value: f64| value as u64;
        let behind = self.written - self.delivered - self.dropped - self.lost;
        let in_flight = match self.kind {
            Kind::Deaf => 0,
            _ => whole(behind.clamp(0.0, 1_000.0)),
        };
        let known = whole(self.delivered) + whole(self.dropped) + whole(self.lost);
        let says = || {
            Rc::new(Report {
                effective: Some(self.runs.clone()),
                answered: self.answered.clone(),
                refused: self.refused.clone(),
            })
        };
        let report = self.says.take().unwrap_or_else(says);
        self.says = Some(report.clone());
        let sample = Sample {
            at_ms: 0,
            incarnation: self.incarnation,
            lines_read: known + in_flight,
            bytes_read: (known + in_flight) * 200,
            lines_delivered: whole(self.delivered),
            lines_filtered: 0,
            lines_dropped: whole(self.dropped),
            lines_in_flight: in_flight,
            requests: whole(self.requests),
            errors_permanent: whole(self.permanent),
            errors_retryable: whole(self.retryable),
            errors_throttled: 0,
            queue_bytes: whole(self.queue * 1e6),
            queue_bytes_max: 1_000_000,
            lag_bytes: whole(behind.max(0.0) * 200.0 * dice.noise()),
            probes_due: whole(self.probes_due),
            probes_found: whole(self.probes_found),
            lines_rejected: 0,
            memory_bytes: 80 << 20,
            cpu_ms: whole((self.delivered + self.dropped) / 10.0),
            apply_ms: self.took_ms,
        };
        (report, sample)
    }
}
