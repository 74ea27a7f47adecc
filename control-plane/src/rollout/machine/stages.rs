//! A stage: agents are chosen, their past is taken, they are offered the candidate, and looked at.

mod choose;
mod soak;

use std::collections::{BTreeMap, BTreeSet};

use super::Machine;
use crate::model::Digest;
use crate::rollout::Flaw;
use crate::rollout::command::{Action, Alert};
use crate::rollout::model::{AgentId, Collector, Phase, Policy, Report, Subject, Subjects};
use crate::rollout::verdict::{Sample, Window};

/// What agents run and count.
pub(super) type Health = BTreeMap<AgentId, (Report, Option<Sample>)>;

impl Machine<'_> {
    /// Goes to a stage, or promotes behind the last one.
    pub(super) fn next_stage(&mut self, stage: usize) {
        if self.p.stage(stage).is_none() {
            return self.promote();
        }
        if let Some(candidate) = &mut self.s.candidate {
            candidate.stage = stage;
            candidate.replacements = 0;
        }
        let poll_ms = self.now();
        self.enter(Phase::Select { poll_ms });
        self.ask_for_agents();
    }

    pub(super) fn ask_for_agents(&mut self) {
        if self.is_paused() {
            // Somebody ends this.
            self.poll_again_in(self.p.reconcile_ms);
            return;
        }
        self.poll_again_in(self.p.poll_ms);
        if !self.is_asked(|a| matches!(a, Action::ListActiveCollectors)) {
            self.issue(Action::ListActiveCollectors);
        }
    }

    fn poll_again_in(&mut self, ms: u64) {
        let at = self.s.clock_ms + ms;
        match &mut self.s.phase {
            Phase::Select { poll_ms }
            | Phase::Baseline { poll_ms, .. }
            | Phase::Offer { poll_ms, .. }
            | Phase::Soak { poll_ms, .. } => *poll_ms = at,
            _ => {}
        }
    }

    /// Chooses the agents of the stage. None for a wave: it has nothing to do. None for the canary:
    /// nobody knows what the candidate does.
    pub(super) fn select(&mut self, collectors: &[Collector]) {
        let (Some(candidate), false) = (self.s.candidate.clone(), self.is_paused()) else {
            return;
        };
        let chosen = choose::choose(self.p, self.s, &candidate, collectors);
        match (chosen.members.is_empty(), candidate.stage) {
            (true, 0) => {
                self.pause("no agent can be the canary");
            }
            (true, stage) => self.next_stage(stage + 1),
            (false, _) => {
                self.enter(Phase::Baseline {
                    members: chosen.members,
                    judged: chosen.judged,
                    control: chosen.control,
                    first: BTreeMap::new(),
                    since_ms: self.s.clock_ms,
                    poll_ms: self.s.clock_ms,
                    tries: 0,
                });
                self.poll_baseline();
            }
        }
    }

    pub(super) fn poll_baseline(&mut self) {
        let Phase::Baseline {
            judged, control, ..
        } = &self.s.phase
        else {
            return;
        };
        let agents = judged.union(control).cloned().collect();
        self.poll_again_in(self.p.poll_ms);
        if !self.is_asked(|a| matches!(a, Action::VerifyCollectorHealth { .. })) {
            self.issue(Action::VerifyCollectorHealth { agents });
        }
    }

    /// Takes the past of the agents; if it is sound, they are offered the candidate.
    pub(super) fn past(&mut self, health: &Health) {
        let (now, limits) = (self.s.clock_ms, self.p.limits);
        let is_paused = self.is_paused();
        let Phase::Baseline {
            members,
            judged,
            control,
            first,
            since_ms,
            tries,
            ..
        } = &mut self.s.phase
        else {
            return;
        };
        let asked = judged.len() + control.len();
        let mut windows = take_past(first, health, now, self.p);
        let is_time = now >= *since_ms + self.p.baseline_ms + limits.stale_ms;
        if windows.len() < asked && !is_time {
            return;
        }
        windows.retain(|_, window| window.is_sound(&limits));
        let of = |agents: &BTreeSet<AgentId>| -> Subjects {
            let known = agents.iter().filter_map(|id| {
                let past = *windows.get(id)?;
                Some((id.clone(), Subject::new(past, now)))
            });
            known.collect()
        };
        let (tested, compared) = (of(judged), of(control));
        let is_enough = windows.len() * 2 > asked && !tested.is_empty();
        if is_enough && !is_paused {
            let mut members = members.clone();
            if self.s.candidate.as_ref().is_some_and(|c| c.stage == 0) {
                // A canary of which nothing is known is none.
                members.retain(|id| tested.contains_key(id));
            }
            return self.offer(members, tested, compared);
        }
        *since_ms = now;
        first.clear();
        *tries += u32::from(!is_paused);
        if *tries > self.p.baseline_tries {
            let text = "agents are not well before they change";
            self.alert(Alert::Backend, text);
            self.pause(text);
            let poll_ms = self.now();
            self.enter(Phase::Select { poll_ms });
        }
    }

    fn offer(&mut self, members: BTreeSet<AgentId>, judged: Subjects, control: Subjects) {
        let digest = self.candidate_digest();
        let (Some(candidate), Some(digest)) = (&mut self.s.candidate, digest) else {
            return;
        };
        let is_canary = candidate.stage == 0;
        if is_canary || !self.p.has(Flaw::ForgetsWaves) {
            candidate.offered.extend(members.iter().cloned());
        }
        let until_ms = self.s.clock_ms + self.p.offer_ms;
        self.enter(Phase::Offer {
            waiting: members.clone(),
            members: members.clone(),
            judged,
            control,
            until_ms,
            poll_ms: self.s.clock_ms + self.p.poll_ms.min(2_000),
        });
        self.push(members, digest, is_canary);
    }

    fn push(&mut self, agents: BTreeSet<AgentId>, digest: Digest, is_canary: bool) {
        self.issue(match is_canary {
            true => Action::CanaryReload { agents, digest },
            false => Action::PushConfig { agents, digest },
        });
    }

    /// Looks at those that have not answered, and offers it again, as an offer may have got lost.
    pub(super) fn poll_offer(&mut self) {
        let now = self.s.clock_ms;
        let Phase::Offer {
            waiting,
            until_ms,
            poll_ms,
            ..
        } = &self.s.phase
        else {
            return;
        };
        if now >= *until_ms && !self.is_paused() {
            return self.silent();
        }
        if now < *poll_ms {
            return;
        }
        let agents = waiting.clone();
        let again = *until_ms <= now + self.p.offer_ms / 2;
        let is_canary = self.s.candidate.as_ref().is_some_and(|c| c.stage == 0);
        self.poll_again_in(self.p.poll_ms);
        if !self.is_asked(|a| matches!(a, Action::VerifyReload { .. })) {
            let agents = agents.clone();
            self.issue(Action::VerifyReload { agents });
        }
        let pushes =
            |a: &Action| matches!(a, Action::CanaryReload { .. } | Action::PushConfig { .. });
        if let (true, Some(digest)) = (again && !self.is_asked(pushes), self.candidate_digest()) {
            self.push(agents, digest, is_canary);
        }
    }

    /// What agents made of the offer.
    pub(super) fn answered(&mut self, reports: &BTreeMap<AgentId, Report>) {
        let Some(digest) = self.candidate_digest() else {
            return;
        };
        let Phase::Offer {
            members, waiting, ..
        } = &mut self.s.phase
        else {
            return;
        };
        let mut refused = BTreeMap::new();
        waiting.retain(|id| {
            let report = reports.get(id);
            let Some(report) = report.filter(|r| r.answered.as_ref() == Some(&digest)) else {
                return true;
            };
            let differs = report.effective.as_ref() != Some(&digest);
            match &report.refused {
                Some(reason) => refused.insert(id.clone(), reason.clone()),
                None if differs => refused.insert(id.clone(), DIFFERS.to_owned()),
                None => None,
            };
            false
        });
        let (count, is_over) = (members.len(), waiting.is_empty());
        // Those count against the budget of their stage; they are judged no more.
        if refused.len() > self.budget(count) {
            let (id, reason) = refused.pop_first().unwrap_or_default();
            let text = format!("{} agents refuse it, {id}: {reason}", refused.len() + 1);
            return self.roll_back(true, &text);
        }
        self.not_judged(&refused.into_keys().collect());
        if is_over {
            self.soak();
        }
    }

    fn not_judged(&mut self, ids: &BTreeSet<AgentId>) {
        if let Phase::Offer { judged, .. } = &mut self.s.phase {
            judged.retain(|id, _| !ids.contains(id));
        }
    }

    /// How many of so many may fail.
    fn budget(&self, members: usize) -> usize {
        let stage = self.s.candidate.as_ref().map_or(0, |c| c.stage);
        let percent = self.p.stage(stage).map_or(0, |s| s.failures_percent_max);
        members * usize::from(percent) / 100
    }

    /// The time of the offer is up. Silence is no failure, and no success.
    fn silent(&mut self) {
        let Phase::Offer {
            members, waiting, ..
        } = &self.s.phase
        else {
            return;
        };
        let waiting = waiting.clone();
        let most = waiting.len() * 2 > members.len();
        let Some(candidate) = &mut self.s.candidate else {
            return;
        };
        match (most, candidate.stage) {
            (true, 0) if candidate.replacements < self.p.replacements_max => {
                candidate.replacements += 1;
                let poll_ms = self.s.clock_ms;
                self.enter(Phase::Select { poll_ms });
                self.ask_for_agents();
            }
            (true, _) => self.pause("most agents of the stage are silent"),
            (false, _) => {
                self.not_judged(&waiting);
                self.soak();
            }
        }
    }

    fn promote(&mut self) {
        let Some(candidate) = self.s.candidate.take() else {
            return;
        };
        let Some(digest) = candidate.digest else {
            return;
        };
        self.s.good.number += 1;
        self.s.good.digest = digest;
        self.s.good.requires = candidate.requires;
        self.enter(Phase::Promote);
        let generation = self.s.good.clone();
        self.issue(Action::PromoteConfig { generation });
        // Those that were in no stage follow at once.
        self.s.reconcile_ms = self.now();
    }
}

/// The pasts that are long enough; the others go on.
fn take_past(
    first: &mut BTreeMap<AgentId, Sample>,
    health: &Health,
    now: u64,
    policy: &Policy,
) -> BTreeMap<AgentId, Window> {
    let mut windows = BTreeMap::new();
    for (id, (_, sample)) in health {
        let fresh = |s: &Sample| s.at_ms + policy.limits.stale_ms >= now;
        let Some(sample) = (*sample).filter(fresh) else {
            continue;
        };
        let begin = first.entry(id.clone()).or_insert(sample);
        if begin.incarnation != sample.incarnation {
            *begin = sample;
        }
        let window = Window::between(begin, &sample);
        if let Some(window) = window.filter(|w| w.ms >= policy.baseline_ms) {
            windows.insert(id.clone(), window);
        }
    }
    windows
}

/// Why an agent that says yes may count as one that says no.
const DIFFERS: &str = "it says that it runs it, and runs something else";
