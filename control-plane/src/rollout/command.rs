//! What the machine asks of the world. Each command has a key under which it may be carried out any
//! number of times with the effect of one, and a time after which it is not waited for.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::model::{AgentId, Collector, Generation, Report};
use super::verdict::Sample;
use crate::metrics::Activity;
use crate::model::Digest;

/// Who speaks, and when: grows with each leader, and with each step of one. Whoever has obeyed one obeys
/// no smaller one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Fence {
    /// Of the lease.
    pub epoch: u64,
    /// Of the machine.
    pub step: u64,
}

/// See the module's documentation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Command {
    /// `group/rollout/phase/stage/activity/number`. With the id of an agent behind it, the key of what
    /// concerns that agent.
    pub key: String,
    /// One attempt may take so long, ms.
    pub timeout_ms: u64,
    /// After this it is not waited for any more; none if it has to succeed.
    pub expires_ms: Option<u64>,
    /// What to do.
    pub action: Action,
}

/// What there is to be asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "activity", rename_all = "snake_case")]
pub enum Action {
    /// Render a revision of the inputs, without keeping it.
    BuildConfig {
        /// Which one.
        revision: String,
    },
    /// Have it checked, statically and by an agent's dry build.
    ValidateConfig {
        /// Of which inputs.
        revision: String,
        /// What came of them.
        digest: Digest,
    },
    /// Keep it, so that it is there after any crash.
    StoreConfigArtifact {
        /// Of which inputs.
        revision: String,
        /// What came of them.
        digest: Digest,
    },
    /// Say which agents there are.
    ListActiveCollectors,
    /// Offer what is good to agents that run something else, and to new ones.
    RegisterNewCollector {
        /// To whom.
        agents: BTreeSet<AgentId>,
        /// What.
        digest: Digest,
    },
    /// Offer the candidate to the canary.
    CanaryReload {
        /// To whom.
        agents: BTreeSet<AgentId>,
        /// What.
        digest: Digest,
    },
    /// Offer the candidate to a wave.
    PushConfig {
        /// To whom.
        agents: BTreeSet<AgentId>,
        /// What.
        digest: Digest,
    },
    /// Say what these agents run.
    VerifyReload {
        /// Which ones.
        agents: BTreeSet<AgentId>,
    },
    /// Say what these agents run and count.
    VerifyCollectorHealth {
        /// Which ones.
        agents: BTreeSet<AgentId>,
    },
    /// Make known what is good from now on.
    PromoteConfig {
        /// What.
        generation: Generation,
    },
    /// Offer what was good before to those that were offered the candidate.
    RollbackConfig {
        /// To whom.
        agents: BTreeSet<AgentId>,
        /// What.
        digest: Digest,
    },
    /// Offer these what was good before anew, whatever they answered.
    ReofferConfig {
        /// To whom.
        agents: BTreeSet<AgentId>,
        /// What.
        digest: Digest,
    },
    /// Have these begin anew.
    RestartCollector {
        /// Which ones.
        agents: BTreeSet<AgentId>,
    },
    /// Tell people.
    SendAlert {
        /// What about.
        alert: Alert,
        /// In words.
        text: String,
        /// It is over.
        #[serde(default)]
        resolved: bool,
    },
}

impl Action {
    /// Under which name it is logged and counted.
    pub fn activity(&self) -> Activity {
        match self {
            Action::BuildConfig { .. } => Activity::BuildConfig,
            Action::ValidateConfig { .. } => Activity::ValidateConfig,
            Action::StoreConfigArtifact { .. } => Activity::StoreConfigArtifact,
            Action::ListActiveCollectors => Activity::ListActiveCollectors,
            Action::RegisterNewCollector { .. } => Activity::RegisterNewCollector,
            Action::CanaryReload { .. } => Activity::CanaryReload,
            Action::PushConfig { .. } => Activity::PushConfig,
            Action::VerifyReload { .. } => Activity::VerifyReload,
            Action::VerifyCollectorHealth { .. } => Activity::VerifyCollectorHealth,
            Action::PromoteConfig { .. } => Activity::PromoteConfig,
            Action::RollbackConfig { .. } | Action::ReofferConfig { .. } => {
                Activity::RollbackConfig
            }
            Action::RestartCollector { .. } => Activity::RestartCollector,
            Action::SendAlert { .. } => Activity::SendAlert,
        }
    }

    /// Whether it only looks at what there is.
    pub(super) fn is_a_look(&self) -> bool {
        matches!(
            self,
            Action::ListActiveCollectors
                | Action::VerifyReload { .. }
                | Action::VerifyCollectorHealth { .. }
        )
    }

    /// Whether it goes on when the phase that asked for it is over.
    pub(super) fn outlives_its_phase(&self) -> bool {
        matches!(
            self,
            Action::SendAlert { .. } | Action::PromoteConfig { .. }
        )
    }

    /// What is offered to whom.
    pub fn offer(&self) -> Option<(&BTreeSet<AgentId>, &Digest)> {
        match self {
            Action::RegisterNewCollector { agents, digest }
            | Action::CanaryReload { agents, digest }
            | Action::PushConfig { agents, digest }
            | Action::RollbackConfig { agents, digest }
            | Action::ReofferConfig { agents, digest } => Some((agents, digest)),
            _ => None,
        }
    }
}

/// What people are told about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alert {
    /// A configuration was refused before any agent was offered it.
    Rejected,
    /// A configuration did harm, and was taken back.
    RolledBack,
    /// Agents did not come back from it. Somebody has to look at them.
    RollbackPartial,
    /// A rollout waits for somebody.
    Paused,
    /// Agents suffer that did not change: the backend, or what is between.
    Backend,
    /// Too many rollbacks: nothing is rolled out any more by itself.
    Frozen,
    /// Agents are not healthy, or do not run what they should, and that does not pass by itself.
    Ailing,
}

impl Alert {
    /// All there are.
    pub const ALL: [Alert; 7] = [
        Alert::Rejected,
        Alert::RolledBack,
        Alert::RollbackPartial,
        Alert::Paused,
        Alert::Backend,
        Alert::Frozen,
        Alert::Ailing,
    ];

    /// Its name in logs, metrics and notifications.
    pub fn name(self) -> &'static str {
        match self {
            Alert::Rejected => "rejected",
            Alert::RolledBack => "rolled_back",
            Alert::RollbackPartial => "rollback_partial",
            Alert::Paused => "paused",
            Alert::Backend => "backend",
            Alert::Frozen => "frozen",
            Alert::Ailing => "ailing",
        }
    }

    /// Whether somebody has to look at it now; else when there is time.
    pub fn is_urgent(self) -> bool {
        matches!(
            self,
            Alert::RollbackPartial | Alert::Frozen | Alert::Backend | Alert::Ailing
        )
    }
}

/// What came of a command. What is wrong with a configuration is an outcome; what keeps a command from
/// being carried out is none, and is tried again.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Done,
    /// What was built.
    Built {
        /// Of its canonical bytes.
        digest: Digest,
        /// Types of components that it needs.
        requires: BTreeSet<String>,
    },
    /// The configuration is refused; all reasons.
    Refused {
        /// For people.
        reasons: Vec<String>,
    },
    /// Agents, connected or known.
    Collectors {
        /// All of the group.
        collectors: Vec<Collector>,
    },
    /// What agents run; those that are not connected are not named.
    Reports {
        /// By agent.
        reports: BTreeMap<AgentId, Report>,
    },
    /// Those that can be restarted, and are to be.
    Restarted {
        /// Which ones.
        agents: BTreeSet<AgentId>,
    },
    /// What agents run and count; those that are not connected are not named.
    Health {
        /// By agent.
        agents: BTreeMap<AgentId, (Report, Option<Sample>)>,
    },
}

impl Outcome {
    /// Has times of it as a clock says that is so far ahead of the wall's.
    pub fn shift(&mut self, ahead_ms: u64) {
        if let Outcome::Health { agents } = self {
            for sample in agents.values_mut().filter_map(|(_, s)| s.as_mut()) {
                sample.at_ms += ahead_ms;
            }
        }
    }
}
