//! Before any agent is offered something: changes, rendering, checks, keeping, approval; and what
//! people want.

use std::collections::BTreeSet;

use super::Machine;
use crate::model::Digest;
use crate::rollout::Flaw;
use crate::rollout::command::{Action, Alert};
use crate::rollout::model::{Operator, Phase};

impl Machine<'_> {
    /// Only the newest change counts. What has not left the canary makes way for it; waves end first.
    pub(super) fn changed(&mut self, revision: String) {
        let candidate = self.s.candidate.as_ref();
        if candidate.is_some_and(|c| c.revision == revision) {
            self.s.pending = None;
            return;
        }
        self.s.pending = Some(revision);
        self.s.begin_ms = self.now() + self.p.debounce_ms;
        let Some(candidate) = candidate else {
            return;
        };
        let makes_way = match self.s.phase {
            Phase::Promote | Phase::RollBack { .. } | Phase::Idle => false,
            _ => candidate.stage == 0,
        };
        if makes_way {
            self.roll_back(false, "a newer change takes its place");
        }
    }

    /// Begins with the newest change when it has settled.
    pub(super) fn begin(&mut self) {
        if self.s.frozen || self.now() < self.s.begin_ms {
            return;
        }
        if let Some(revision) = self.s.pending.take() {
            self.start(revision);
        }
    }

    pub(super) fn built(&mut self, digest: Digest, requires: BTreeSet<String>) {
        let Some(candidate) = &mut self.s.candidate else {
            return;
        };
        let revision = candidate.revision.clone();
        if digest == self.s.good.digest {
            return self.dropped();
        }
        if let Some(reason) = self.s.quarantine.get(&digest) {
            let text = format!("{revision} is {digest}, which is quarantined: {reason}");
            self.alert(Alert::Rejected, text);
            return self.dropped();
        }
        candidate.digest = Some(digest.clone());
        candidate.requires = requires;
        self.enter(Phase::Validate);
        self.issue(Action::ValidateConfig { revision, digest });
    }

    /// It is refused before any agent was offered it.
    pub(super) fn rejected(&mut self, reasons: &str) {
        if let Some(digest) = self.candidate_digest() {
            self.quarantine(&digest, reasons);
        }
        let revision = self.s.candidate.as_ref().map(|c| c.revision.clone());
        let revision = revision.unwrap_or_default();
        self.alert(Alert::Rejected, format!("{revision} is refused: {reasons}"));
        self.dropped();
    }

    pub(super) fn validated(&mut self) {
        let (Some(candidate), Some(digest)) = (&self.s.candidate, self.candidate_digest()) else {
            return;
        };
        let revision = candidate.revision.clone();
        if self.p.has(Flaw::OffersUnstored) {
            return self.stored();
        }
        self.enter(Phase::Store);
        self.issue(Action::StoreConfigArtifact { revision, digest });
    }

    pub(super) fn stored(&mut self) {
        match self.p.approval_ms {
            Some(ms) => {
                let until_ms = self.now() + ms;
                self.enter(Phase::Approve { until_ms });
            }
            None => self.next_stage(0),
        }
    }

    /// The candidate ends without having been offered to anybody.
    pub(super) fn dropped(&mut self) {
        self.s.candidate = None;
        self.enter(Phase::Idle);
    }

    pub(super) fn operator(&mut self, wants: Operator) {
        let approves = matches!(self.s.phase, Phase::Approve { .. });
        let is_exposed = !matches!(
            self.s.phase,
            Phase::Idle | Phase::Promote | Phase::RollBack { .. }
        );
        match wants {
            Operator::Approve if approves => self.next_stage(0),
            Operator::Deny if approves => self.dropped(),
            Operator::Pause if is_exposed => {
                if let Some(candidate) = &mut self.s.candidate {
                    candidate.paused = Some("somebody said so".to_owned());
                }
            }
            Operator::Resume => self.resume(),
            Operator::Rollback if is_exposed => self.roll_back(true, "somebody said so"),
            Operator::Abort if is_exposed => self.roll_back(false, "somebody said so"),
            Operator::Unfreeze => {
                self.s.frozen = false;
                self.s.rollbacks_ms.clear();
            }
            _ => {}
        }
    }

    /// What waited begins its phase again, with the time that it has.
    fn resume(&mut self) {
        let Some(candidate) = &mut self.s.candidate else {
            return;
        };
        if candidate.paused.take().is_none() {
            return;
        }
        candidate.replacements = 0;
        let (now, stage) = (self.s.clock_ms, candidate.stage);
        let soak = self.p.stage(stage).map_or(0, |s| s.soak_ms);
        match &mut self.s.phase {
            Phase::Approve { until_ms } => *until_ms = now + self.p.approval_ms.unwrap_or(0),
            Phase::Offer { until_ms, .. } => *until_ms = now + self.p.offer_ms,
            Phase::Soak {
                until_ms,
                extended,
                begun_ms,
                judged,
                control,
                ..
            } => {
                (*until_ms, *extended) = (now + soak, false);
                *begun_ms = None;
                for subject in judged.values_mut().chain(control.values_mut()) {
                    subject.restarts = 0;
                    subject.seen_ms = subject.seen_ms.max(now);
                }
            }
            Phase::Baseline { tries, poll_ms, .. } => (*tries, *poll_ms) = (0, now),
            Phase::Select { poll_ms } => *poll_ms = now,
            _ => {}
        }
    }
}
