//! The machine: what follows from a state and an input. No I/O and no clock.
//!
//! What it wants done is part of the state until an outcome comes, so a driver that keeps each state
//! before it carries out what is new in it can end at any point and go on.

mod back;
mod prepare;
mod stages;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::Flaw;
use super::command::{Action, Alert, Command, Outcome};
use super::model::{Candidate, Collector, Generation, Input, Phase, Policy, SCHEMA, State};
use super::repair::{Ailments, Firing};
use crate::model::Digest;

/// One attempt of a command may take so long, ms.
const TIMEOUT_MS: u64 = 10_000;
/// Of those that render and check.
const BUILD_TIMEOUT_MS: u64 = 60_000;
/// After this, what was asked is asked anew, ms.
const ASK_EXPIRES_MS: u64 = 30_000;
/// After this, a configuration that nobody could build or check is given up, ms.
const BUILD_EXPIRES_MS: u64 = 900_000;
/// After this, an alert is not sent any more, ms.
const ALERT_EXPIRES_MS: u64 = 3_600_000;
/// People are told of isolated agents for so long, ms.
const ISOLATED_TOLD_MS: u64 = 24 * 3_600_000;
/// So many digests stay quarantined.
const QUARANTINE_MAX: usize = 256;

/// A newer leader has taken a step. This one is none any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the rollout is led by epoch {0}")]
pub struct Stale(pub u64);

impl State {
    /// A group that was never rolled out to.
    pub fn new(group: &str, policy: &Policy) -> State {
        State {
            schema: SCHEMA,
            group: group.to_owned(),
            epoch: 0,
            step: 0,
            clock_ms: 0,
            good: Generation {
                number: 0,
                digest: policy.fallback.clone(),
                requires: BTreeSet::new(),
            },
            phase: Phase::Idle,
            candidate: None,
            rollout: 0,
            pending: None,
            begin_ms: 0,
            quarantine: BTreeMap::new(),
            quarantined: Vec::new(),
            rollbacks_ms: Vec::new(),
            frozen: false,
            firing: BTreeMap::new(),
            ailing: BTreeMap::new(),
            restarted: BTreeMap::new(),
            isolated: BTreeSet::new(),
            reconcile_ms: 0,
            outstanding: BTreeMap::new(),
            issued: 0,
            due_ms: 0,
        }
    }

    /// Takes a step, and says what is newly wanted. `now_ms` may go back; durations do not.
    ///
    /// # Errors
    /// A newer leader has taken a step. Nothing changed then.
    pub fn step(
        &mut self,
        policy: &Policy,
        epoch: u64,
        now_ms: u64,
        input: Input,
    ) -> Result<Vec<Command>, Stale> {
        if epoch < self.epoch {
            return Err(Stale(self.epoch));
        }
        self.epoch = epoch;
        self.step += 1;
        self.clock_ms = self.clock_ms.max(now_ms);
        let mut machine = Machine {
            p: policy,
            s: self,
            new: Vec::new(),
        };
        match input {
            Input::Changed { revision } => machine.changed(revision),
            Input::Operator { wants } => machine.operator(wants),
            Input::Done { key, outcome } => machine.done(&key, outcome),
            Input::Tick => {}
        }
        machine.advance();
        let new = std::mem::take(&mut machine.new);
        self.due_ms = self.due(policy);
        // What was wanted and is not any more within one step was never wanted.
        Ok(new
            .into_iter()
            .filter(|c| self.outstanding.contains_key(&c.key))
            .collect())
    }

    /// Digests that must not be forgotten as long as this state holds.
    pub fn pins(&self) -> BTreeSet<&Digest> {
        let candidate = self.candidate.as_ref().and_then(|c| c.digest.as_ref());
        let good = [&self.good.digest];
        good.into_iter().chain(candidate).collect()
    }

    fn due(&self, policy: &Policy) -> u64 {
        let phase = match &self.phase {
            Phase::Select { poll_ms } => Some(*poll_ms),
            Phase::Approve { until_ms } => Some(*until_ms),
            Phase::Baseline { poll_ms, .. } => Some(*poll_ms),
            Phase::Offer {
                until_ms, poll_ms, ..
            }
            | Phase::RollBack {
                until_ms, poll_ms, ..
            } => Some(*until_ms.min(poll_ms)),
            Phase::Soak { poll_ms, .. } => Some(*poll_ms),
            _ => None,
        };
        let waits = matches!(self.phase, Phase::Idle) && self.pending.is_some() && !self.frozen;
        let begin = waits.then_some(self.begin_ms);
        let expiries = self.outstanding.values().filter_map(|c| c.expires_ms);
        let dues = [phase, begin, Some(self.reconcile_ms)];
        let first = dues.into_iter().flatten().chain(expiries).min();
        // What is due and waits for an outcome is looked at again soon enough.
        first
            .unwrap_or(0)
            .max(self.clock_ms + policy.poll_ms.min(1_000))
    }
}

/// A step under way.
struct Machine<'a> {
    p: &'a Policy,
    s: &'a mut State,
    new: Vec<Command>,
}

impl Machine<'_> {
    fn now(&self) -> u64 {
        self.s.clock_ms
    }

    /// Asks for something.
    fn issue(&mut self, action: Action) {
        let (timeout_ms, expires) = match &action {
            Action::BuildConfig { .. } | Action::ValidateConfig { .. } => {
                (BUILD_TIMEOUT_MS, Some(BUILD_EXPIRES_MS))
            }
            Action::StoreConfigArtifact { .. } | Action::PromoteConfig { .. } => (TIMEOUT_MS, None),
            Action::SendAlert { .. } => (TIMEOUT_MS, Some(ALERT_EXPIRES_MS)),
            _ => (TIMEOUT_MS, Some(ASK_EXPIRES_MS)),
        };
        self.s.issued += 1;
        let stage = self.s.candidate.as_ref().map_or(0, |c| c.stage);
        let key = format!(
            "{}/{}/{}/{stage}/{}/{}",
            self.s.group,
            self.s.rollout,
            self.s.phase.name(),
            action.activity().name(),
            self.s.issued
        );
        let command = Command {
            key: key.clone(),
            timeout_ms,
            expires_ms: expires.map(|ms| self.now() + ms),
            action,
        };
        self.s.outstanding.insert(key, command.clone());
        self.new.push(command);
    }

    fn alert(&mut self, alert: Alert, text: impl Into<String>) {
        let text = text.into();
        let since_ms = match self.s.firing.get(&alert) {
            Some(firing) => firing.since_ms,
            None => self.now(),
        };
        let firing = Firing {
            since_ms,
            text: text.clone(),
            generation: self.s.good.number,
        };
        self.s.firing.insert(alert, firing);
        let resolved = false;
        self.issue(Action::SendAlert {
            alert,
            text,
            resolved,
        });
    }

    /// Whether what people were told of is over.
    fn is_over(&self, alert: Alert, firing: &Firing) -> bool {
        let told = |f: &Firing| {
            let is_followed = self.s.good.number > f.generation;
            is_followed || self.now() >= f.since_ms + self.p.told_ms
        };
        match alert {
            Alert::Rejected | Alert::RolledBack => told(firing),
            // Agents that never come back may be none any more.
            Alert::RollbackPartial => {
                let is_long = self.now() >= firing.since_ms + ISOLATED_TOLD_MS;
                self.s.isolated.is_empty() || is_long
            }
            Alert::Paused | Alert::Backend => !self.is_paused(),
            Alert::Frozen => !self.s.frozen,
            Alert::Ailing => {
                let mut ailing = self.s.ailing.values();
                !ailing.any(|since| self.now() >= since + self.p.ailing_ms)
            }
        }
    }

    /// Tells people what is over.
    fn resolve(&mut self) {
        let firing = self.s.firing.iter();
        let over = firing.filter(|(alert, firing)| self.is_over(**alert, firing));
        let over: Vec<_> = over.map(|(a, f)| (*a, f.text.clone())).collect();
        for (alert, text) in over {
            self.s.firing.remove(&alert);
            let resolved = true;
            self.issue(Action::SendAlert {
                alert,
                text,
                resolved,
            });
        }
    }

    /// Agents that are not well, or do not run what they should, for too long: they are told to begin anew, and then people
    /// are told of them.
    fn look_for_ailing(&mut self, collectors: &[Collector]) {
        let good = &self.s.good;
        let none = BTreeSet::new();
        let offered = self.s.candidate.as_ref().map_or(&none, |c| &c.offered);
        let ails = |a: &&Collector| {
            let runs = a.report.effective.as_ref() == Some(&good.digest);
            let is_able = good.requires.is_subset(&a.components);
            let strays = is_able && !runs && !offered.contains(&a.id);
            // Those that did not come back are told of already.
            a.connected && !self.s.isolated.contains(&a.id) && (strays || a.healthy == Some(false))
        };
        let ailing = collectors.iter().filter(ails).map(|a| a.id.clone());
        let away = collectors.iter().filter(|a| !a.connected);
        let away: BTreeSet<_> = away.map(|a| &a.id).collect();
        let connected = collectors.len() - away.len();
        let (now, after) = (self.s.clock_ms, self.p.ailing_ms);
        let (mut known, mut restarted) = (
            std::mem::take(&mut self.s.ailing),
            std::mem::take(&mut self.s.restarted),
        );
        let mut ailments = Ailments {
            ailing: &mut known,
            restarted: &mut restarted,
        };
        ailments.look(ailing, |id| away.contains(id), now, self.p.rollback_ms);
        // Who begins anew is nothing to compare with, and no rollout is the time for it.
        let agents = match self.s.candidate {
            None => ailments.tell_restart(after / 2, connected, now),
            Some(_) => BTreeSet::new(),
        };
        let long = ailments.for_long(after, now);
        (self.s.ailing, self.s.restarted) = (known, restarted);
        if !agents.is_empty() {
            self.issue(Action::RestartCollector { agents });
        }
        if !long.is_empty() && !self.s.firing.contains_key(&Alert::Ailing) {
            let names: Vec<_> = long.iter().take(10).cloned().collect();
            let text = format!(
                "{} agents are not healthy, or do not run what they should: {}",
                long.len(),
                names.join(", ")
            );
            self.alert(Alert::Ailing, text);
        }
    }

    /// Nothing that the former phase waits for concerns this one.
    fn enter(&mut self, phase: Phase) {
        self.s.phase = phase;
        let outlives = |c: &Command| c.action.outlives_its_phase();
        self.s.outstanding.retain(|_, c| outlives(c));
    }

    fn is_asked(&self, is: impl Fn(&Action) -> bool) -> bool {
        self.s.outstanding.values().any(|c| is(&c.action))
    }

    fn candidate_digest(&self) -> Option<Digest> {
        self.s.candidate.as_ref()?.digest.clone()
    }

    fn is_paused(&self) -> bool {
        (self.s.candidate.as_ref()).is_some_and(|c| c.paused.is_some())
    }

    fn pause(&mut self, why: &str) {
        let Some(candidate) = &mut self.s.candidate else {
            return;
        };
        if candidate.paused.is_none() {
            candidate.paused = Some(why.to_owned());
            let text = format!("the rollout of {} waits: {why}", candidate.revision);
            self.alert(Alert::Paused, text);
        }
    }

    fn done(&mut self, key: &str, outcome: Outcome) {
        // What nobody waits for any more was answered late, or twice.
        let Some(command) = self.s.outstanding.remove(key) else {
            return;
        };
        match (command.action, outcome) {
            (Action::BuildConfig { .. }, Outcome::Built { digest, requires }) => {
                self.built(digest, requires);
            }
            (
                Action::BuildConfig { .. }
                | Action::ValidateConfig { .. }
                | Action::StoreConfigArtifact { .. },
                Outcome::Refused { reasons },
            ) => self.rejected(&reasons.join("; ")),
            (Action::ValidateConfig { .. }, _) => self.validated(),
            (Action::StoreConfigArtifact { .. }, _) => self.stored(),
            (Action::ListActiveCollectors, Outcome::Collectors { collectors }) => {
                self.compared(&collectors);
                self.look_for_ailing(&collectors);
                if matches!(self.s.phase, Phase::Select { .. }) {
                    self.select(&collectors);
                }
            }
            (Action::VerifyReload { .. }, Outcome::Reports { reports }) => match self.s.phase {
                Phase::RollBack { .. } => self.back(&reports),
                _ => self.answered(&reports),
            },
            (Action::VerifyCollectorHealth { .. }, Outcome::Health { agents }) => {
                match self.s.phase {
                    Phase::Baseline { .. } => self.past(&agents),
                    _ => self.looked(&agents),
                }
            }
            (Action::RestartCollector { .. }, Outcome::Restarted { agents }) => {
                self.restarted(&agents);
            }
            (Action::PromoteConfig { .. }, _) => {
                if matches!(self.s.phase, Phase::Promote) {
                    self.enter(Phase::Idle);
                }
            }
            _ => {}
        }
    }

    /// Does what time and the state ask for.
    fn advance(&mut self) {
        self.expire();
        if self.now() >= self.s.reconcile_ms {
            self.s.reconcile_ms = self.now() + self.p.reconcile_ms;
            if !self.is_asked(|a| matches!(a, Action::ListActiveCollectors)) {
                self.issue(Action::ListActiveCollectors);
            }
        }
        match self.s.phase {
            Phase::Idle => self.begin(),
            Phase::Approve { until_ms } if self.now() >= until_ms => {
                self.dropped();
            }
            Phase::Select { poll_ms } if self.now() >= poll_ms => self.ask_for_agents(),
            Phase::Baseline { poll_ms, .. } if self.now() >= poll_ms => self.poll_baseline(),
            Phase::Offer { .. } => self.poll_offer(),
            Phase::Soak { poll_ms, .. } if self.now() >= poll_ms => self.poll_soak(),
            Phase::RollBack { .. } => self.poll_back(),
            _ => {}
        }
        self.resolve();
    }

    /// Forgets what is not waited for any more.
    fn expire(&mut self) {
        let now = self.now();
        let is_over = |c: &Command| c.expires_ms.is_some_and(|at| at <= now);
        let over = |a: &Action| {
            matches!(
                a,
                Action::BuildConfig { .. } | Action::ValidateConfig { .. }
            )
        };
        let mut outstanding = self.s.outstanding.values();
        let gives_up = outstanding.any(|c| is_over(c) && over(&c.action));
        self.s.outstanding.retain(|_, c| !is_over(c));
        if gives_up {
            let text = "nobody could build or check it";
            self.alert(Alert::Rejected, text);
            self.dropped();
        }
    }

    /// Agents that do not run what they should, whatever became of them, are offered it.
    fn compared(&mut self, collectors: &[Collector]) {
        let good = self.s.good.clone();
        let none = BTreeSet::new();
        // Those that were offered the candidate are the rollout's.
        let offered = self.s.candidate.as_ref().map_or(&none, |c| &c.offered);
        let mut strays = BTreeSet::new();
        let mut home = Vec::new();
        for agent in collectors.iter().filter(|a| a.connected) {
            let runs = agent.report.effective.as_ref();
            if runs == Some(&good.digest) {
                home.push(&agent.id);
                continue;
            }
            let is_able = good.requires.is_subset(&agent.components);
            let is_bad = runs.is_some_and(|d| self.s.quarantine.contains_key(d));
            if !offered.contains(&agent.id) && (is_able || is_bad) {
                strays.insert(agent.id.clone());
            }
        }
        for id in home {
            self.s.isolated.remove(id);
        }
        let is_offered = |a: &Action| matches!(a, Action::RegisterNewCollector { .. });
        if !strays.is_empty() && !self.is_asked(is_offered) {
            let digest = good.digest;
            let agents = strays;
            self.issue(Action::RegisterNewCollector { agents, digest });
        }
    }

    fn quarantine(&mut self, digest: &Digest, reason: &str) {
        if self.p.has(Flaw::NoQuarantine) {
            return;
        }
        if self.s.quarantine.contains_key(digest) {
            return;
        }
        self.s.quarantine.insert(digest.clone(), reason.to_owned());
        self.s.quarantined.push(digest.clone());
        if self.s.quarantined.len() > QUARANTINE_MAX {
            let oldest = self.s.quarantined.remove(0);
            self.s.quarantine.remove(&oldest);
        }
    }

    fn start(&mut self, revision: String) {
        self.s.rollout += 1;
        self.s.candidate = Some(Candidate {
            revision: revision.clone(),
            digest: None,
            requires: BTreeSet::new(),
            stage: 0,
            offered: BTreeSet::new(),
            replacements: 0,
            paused: None,
        });
        self.enter(Phase::Build);
        self.issue(Action::BuildConfig { revision });
    }
}
