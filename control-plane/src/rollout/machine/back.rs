//! The way back: every agent that may have got the candidate is offered what was good before.

use std::collections::{BTreeMap, BTreeSet};

use super::Machine;
use crate::rollout::command::{Action, Alert};
use crate::rollout::model::{AgentId, Phase, Reason, Report};
use crate::rollout::repair::{Repair, is_flapping};

impl Machine<'_> {
    /// Takes the candidate back. Who is to blame is decided here, and kept before anything is offered.
    pub(super) fn roll_back(&mut self, blame: bool, why: &str) {
        let Some(candidate) = self.s.candidate.clone() else {
            return;
        };
        if blame {
            if let Some(digest) = &candidate.digest {
                self.quarantine(digest, why);
            }
            self.count_rollback();
            let text = format!("{} is taken back: {why}", candidate.revision);
            self.alert(Alert::RolledBack, text);
        }
        if candidate.offered.is_empty() {
            return self.dropped();
        }
        let reason = Reason {
            blame,
            text: why.to_owned(),
        };
        self.enter(Phase::RollBack {
            reason,
            waiting: candidate.offered,
            repair: Repair::None,
            until_ms: self.now() + self.p.rollback_ms,
            poll_ms: self.now(),
        });
        self.poll_back();
    }

    /// Too many of them, and nothing is begun by itself any more.
    fn count_rollback(&mut self) {
        let now = self.now();
        let (within, most) = (self.p.freeze_within_ms, self.p.freeze_after);
        let is_flapping = is_flapping(&mut self.s.rollbacks_ms, now, within, most);
        if is_flapping && !self.s.frozen {
            self.s.frozen = true;
            let text = format!("{} rollbacks", self.s.rollbacks_ms.len());
            self.alert(Alert::Frozen, text);
        }
    }

    /// Offers it to those that are not back, as an offer may have got lost; and looks at them.
    pub(super) fn poll_back(&mut self) {
        let now = self.s.clock_ms;
        let Phase::RollBack {
            waiting,
            repair,
            until_ms,
            poll_ms,
            ..
        } = &mut self.s.phase
        else {
            return;
        };
        if now >= *until_ms {
            return self.not_back();
        }
        if now < *poll_ms {
            return;
        }
        *poll_ms = now + self.p.poll_ms;
        let agents = waiting.clone();
        let digest = match repair {
            Repair::Fallback => self.p.fallback.clone(),
            _ => self.s.good.digest.clone(),
        };
        let is_it = |a: &Action| {
            matches!(
                a,
                Action::RollbackConfig { .. } | Action::ReofferConfig { .. }
            )
        };
        if !self.is_asked(is_it) {
            let agents = agents.clone();
            self.issue(Action::RollbackConfig { agents, digest });
        }
        if !self.is_asked(|a| matches!(a, Action::VerifyReload { .. })) {
            self.issue(Action::VerifyReload { agents });
        }
    }

    /// What counts is what an agent runs, not what it says of the offer.
    pub(super) fn back(&mut self, reports: &BTreeMap<AgentId, Report>) {
        let good = self.s.good.digest.clone();
        let Phase::RollBack {
            waiting, repair, ..
        } = &mut self.s.phase
        else {
            return;
        };
        let mut on_fallback = Vec::new();
        waiting.retain(|id| {
            let Some(report) = reports.get(id) else {
                return true;
            };
            if *repair == Repair::Fallback && report.effective.as_ref() == Some(&self.p.fallback) {
                on_fallback.push(id.clone());
                return false;
            }
            report.effective.as_ref() != Some(&good)
        });
        let is_over = waiting.is_empty();
        if !on_fallback.is_empty() {
            let text = format!("{} run the fallback only", on_fallback.join(", "));
            self.alert(Alert::RollbackPartial, text);
        }
        self.s.isolated.extend(on_fallback);
        if is_over {
            self.finish_back();
        }
    }

    /// The time is up: the next rung, and at the end people.
    fn not_back(&mut self) {
        let now = self.s.clock_ms;
        let has_fallback = self.p.fallback != self.s.good.digest;
        let good = self.s.good.digest.clone();
        let Phase::RollBack {
            waiting,
            repair,
            until_ms,
            poll_ms,
            ..
        } = &mut self.s.phase
        else {
            return;
        };
        *repair = repair.next(has_fallback);
        (*until_ms, *poll_ms) = (now + self.p.rollback_ms, now);
        let (rung, agents) = (*repair, waiting.clone());
        // What is under way offers something else.
        let outlives = |a: &Action| a.outlives_its_phase();
        self.s.outstanding.retain(|_, c| outlives(&c.action));
        match rung {
            Repair::Isolate => return self.isolate(agents),
            Repair::Restart => self.issue(Action::RestartCollector { agents }),
            Repair::Reoffer => {
                let digest = good;
                self.issue(Action::ReofferConfig { agents, digest });
            }
            Repair::None | Repair::Fallback => {}
        }
        self.poll_back();
    }

    /// Nobody can be restarted: that is not waited for.
    pub(super) fn restarted(&mut self, agents: &BTreeSet<AgentId>) {
        let now = self.s.clock_ms;
        if let Phase::RollBack {
            repair: Repair::Restart,
            until_ms,
            ..
        } = &mut self.s.phase
            && agents.is_empty()
        {
            *until_ms = now;
            self.poll_back();
        }
    }

    /// They are in no stage until they run what is good, and somebody has to look at them.
    fn isolate(&mut self, agents: BTreeSet<AgentId>) {
        let names: Vec<_> = agents.iter().take(10).cloned().collect();
        let text = format!("{} did not come back: {}", agents.len(), names.join(", "));
        self.s.isolated.extend(agents);
        self.alert(Alert::RollbackPartial, text);
        self.finish_back();
    }

    fn finish_back(&mut self) {
        self.s.candidate = None;
        self.enter(Phase::Idle);
        self.begin();
    }
}
