//! What the machine knows: its policy, its state, what it is told.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::command::{Command, Outcome};
use super::repair::{Ailing, FiringAlerts, Repair, Restarted};
use super::verdict::{Limits, Sample, Window};
use crate::model::Digest;

/// Version of [`State`]. A program that finds another one in the store does not go on with it.
pub const SCHEMA: u32 = 2;

/// What an agent is called for as long as it exists.
pub type AgentId = String;

/// Which agents a stage takes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// So many more.
    Count(usize),
    /// As many as make this percentage of all that can have it, with those of earlier stages.
    Percent(u8),
    /// All that carry this label.
    Label {
        /// Its name.
        key: String,
        /// Its value.
        value: String,
    },
}

/// A step of exposure.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stage {
    /// Who.
    pub select: Select,
    /// How long it is looked at before the next one, ms.
    pub soak_ms: u64,
    /// So many of a hundred may fail.
    pub failures_percent_max: u8,
}

/// How a group is rolled out. Not part of the state: a restart may bring another one.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// The first stage. None of it may fail.
    pub canary: Stage,
    /// Those behind it.
    pub waves: Vec<Stage>,
    /// The canary has one agent of each value of this label first.
    pub spread_by: Option<String>,
    /// Somebody has to approve before the canary, within this time, ms.
    pub approval_ms: Option<u64>,
    /// Changes that come one after the other within this time are one, ms.
    pub debounce_ms: u64,
    /// How often agents under test are looked at, ms.
    pub poll_ms: u64,
    /// How often all agents are compared with what they should run, ms.
    pub reconcile_ms: u64,
    /// How long an agent has to put an offer into force, ms.
    pub offer_ms: u64,
    /// So often another canary is looked for when the chosen ones are silent.
    pub replacements_max: u32,
    /// How long the past is that agents are compared with, ms.
    pub baseline_ms: u64,
    /// So often a past is taken anew if it is not sound.
    pub baseline_tries: u32,
    /// So many agents are the control group. As many stay out of all stages, and follow the promotion.
    pub control: usize,
    /// So many agents of a stage are judged by what they count.
    pub judged_max: usize,
    /// What is bad has to stay bad for this long, ms.
    pub confirm_ms: u64,
    /// How long nothing is judged after the control group suffered, ms.
    pub settle_ms: u64,
    /// How long agents have to come back, ms; then again for each [rung](Repair) of what is done about it.
    pub rollback_ms: u64,
    /// So many rollbacks ...
    pub freeze_after: usize,
    /// ... within this time freeze the group, ms.
    pub freeze_within_ms: u64,
    /// People are told of agents that are not well for so long, ms.
    pub ailing_ms: u64,
    /// People are told that a candidate was refused or taken back for so long, ms, or until something is promoted.
    pub told_ms: u64,
    /// What is good before anything was, and the last resort of agents that do not come back.
    pub fallback: Digest,
    /// Of the verdict.
    pub limits: Limits,
    /// A mistake that the simulation has to find.
    #[cfg(test)]
    #[serde(skip)]
    pub(super) flaw: Option<Flaw>,
}

/// A mistake that the machine or its driver could make. The simulation has to find each of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flaw {
    /// A soak without data is passed.
    NoDataPasses,
    /// Agents are compared with their past alone.
    NoControlGroup,
    /// Agents of waves are not among those that go back.
    ForgetsWaves,
    /// What did harm may come again.
    NoQuarantine,
    /// What is not kept is offered.
    OffersUnstored,
    /// What does harm stays.
    NeverRollsBack,
    /// Who is not the leader any more goes on, and is obeyed.
    Unfenced,
}

impl Policy {
    /// One canary, then 10, 50 and 100 %.
    pub fn new(fallback: Digest) -> Policy {
        let stage = |select, failures_percent_max| Stage {
            select,
            soak_ms: 300_000,
            failures_percent_max,
        };
        Policy {
            canary: stage(Select::Count(1), 0),
            waves: [10, 50, 100].map(|p| stage(Select::Percent(p), 5)).into(),
            spread_by: None,
            approval_ms: None,
            debounce_ms: 2_000,
            poll_ms: 5_000,
            reconcile_ms: 15_000,
            offer_ms: 60_000,
            replacements_max: 2,
            baseline_ms: 15_000,
            baseline_tries: 20,
            control: 10,
            judged_max: 20,
            confirm_ms: 15_000,
            settle_ms: 20_000,
            rollback_ms: 60_000,
            freeze_after: 3,
            freeze_within_ms: 3_600_000,
            ailing_ms: 600_000,
            told_ms: 3_600_000,
            fallback,
            limits: Limits::default(),
            #[cfg(test)]
            flaw: None,
        }
    }

    /// Whether the machine makes this mistake; it makes none but in a test of the simulation.
    pub(super) fn has(&self, flaw: Flaw) -> bool {
        #[cfg(test)]
        return self.flaw == Some(flaw);
        #[cfg(not(test))]
        {
            let _ = flaw;
            false
        }
    }

    pub(super) fn stage(&self, stage: usize) -> Option<&Stage> {
        match stage.checked_sub(1) {
            None => Some(&self.canary),
            Some(wave) => self.waves.get(wave),
        }
    }
}

/// What an agent says of its configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The `pipeline` part of what it runs, by its effective configuration. What it tails (`targets`)
    /// changes independently, and is not compared.
    pub effective: Option<Digest>,
    /// The newest offer that it answered.
    pub answered: Option<Digest>,
    /// Its answer: applied, or why not.
    pub refused: Option<String>,
}

/// An agent of the group.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Collector {
    /// See [`AgentId`].
    pub id: AgentId,
    /// It is connected.
    pub connected: bool,
    /// What it is selected by.
    pub labels: BTreeMap<String, String>,
    /// Types of components that it has.
    pub components: BTreeSet<String>,
    /// What it runs.
    pub report: Report,
    /// Whether it does what it is there for, as it says itself.
    #[serde(default)]
    pub healthy: Option<bool>,
}

/// What was promoted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Generation {
    /// Counts promotions; 0 is the fallback.
    pub number: u64,
    /// What.
    pub digest: Digest,
    /// Types of components that it needs.
    pub requires: BTreeSet<String>,
}

/// What somebody wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// Let the canary begin.
    Approve,
    /// Do not.
    Deny,
    /// Go no further. It is looked at all the same, and taken back if it is bad.
    Pause,
    /// Go on.
    Resume,
    /// Take it back, and never offer it again.
    Rollback,
    /// Take it back; it may be tried again.
    Abort,
    /// Roll out by itself again.
    Unfreeze,
}

/// What the machine is told.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "input", rename_all = "snake_case")]
pub enum Input {
    /// The inputs of the configuration changed; they are known by this name.
    Changed {
        /// Which one.
        revision: String,
    },
    /// See [`Operator`].
    Operator {
        /// What.
        wants: Operator,
    },
    /// What came of a command.
    Done {
        /// Its key.
        key: String,
        /// See [`Outcome`].
        outcome: Outcome,
    },
    /// Time passed.
    Tick,
}

impl Input {
    /// What a step by it is about, for the history.
    pub fn said(&self) -> String {
        match self {
            Input::Changed { revision } => format!("changed {revision}"),
            Input::Operator { wants } => format!("operator {wants:?}").to_lowercase(),
            Input::Done { key, .. } => format!("done {key}"),
            Input::Tick => "tick".to_owned(),
        }
    }
}

/// An agent that is looked at.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Subject {
    /// Before the change.
    pub past: Window,
    /// Where the window since begins.
    pub start: Option<Sample>,
    /// Its newest process.
    pub incarnation: Option<u64>,
    /// Processes that began since.
    pub restarts: u32,
    /// When it was heard of, ms.
    pub seen_ms: u64,
}

/// By agent.
pub type Subjects = BTreeMap<AgentId, Subject>;

/// Why a candidate is taken back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reason {
    /// It is the candidate's fault: it is not offered again.
    pub blame: bool,
    /// For people.
    pub text: String,
}

/// Where a group is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Nothing is rolled out.
    Idle,
    /// The candidate is rendered.
    Build,
    /// The candidate is checked.
    Validate,
    /// The candidate is kept.
    Store,
    /// Somebody has to say yes.
    Approve {
        /// Until then, ms.
        until_ms: u64,
    },
    /// Agents of a stage are chosen.
    Select {
        /// When they are asked for again, ms.
        poll_ms: u64,
    },
    /// What they count before the change is taken.
    Baseline {
        /// Agents of the stage.
        members: BTreeSet<AgentId>,
        /// Of these, those that are judged by what they count.
        judged: BTreeSet<AgentId>,
        /// Agents that do not change.
        control: BTreeSet<AgentId>,
        /// The begin of the past.
        first: BTreeMap<AgentId, Sample>,
        /// When that was, ms.
        since_ms: u64,
        /// When they are asked again, ms.
        poll_ms: u64,
        /// So often the past was not sound.
        tries: u32,
    },
    /// They are offered the candidate.
    Offer {
        /// Agents of the stage.
        members: BTreeSet<AgentId>,
        /// Of these, those that have not answered.
        waiting: BTreeSet<AgentId>,
        /// See [`Phase::Soak`].
        judged: Subjects,
        /// See [`Phase::Soak`].
        control: Subjects,
        /// They are waited for until then, ms.
        until_ms: u64,
        /// When they are looked at again, ms.
        poll_ms: u64,
    },
    /// They run it, and are looked at.
    Soak {
        /// Those that are judged.
        judged: Subjects,
        /// Those that did not change.
        control: Subjects,
        /// Until then, ms.
        until_ms: u64,
        /// It was made longer once.
        extended: bool,
        /// Bad since then, ms.
        bad_since_ms: Option<u64>,
        /// What those that are judged counted then.
        #[serde(default)]
        bad_then: BTreeMap<AgentId, Window>,
        /// When windows began, ms; none if they begin with the next look.
        begun_ms: Option<u64>,
        /// Nothing is judged before, ms.
        settle_ms: u64,
        /// When they are looked at again, ms.
        poll_ms: u64,
    },
    /// It is good; that is being made known.
    Promote,
    /// All that were offered it go back.
    RollBack {
        /// Why.
        reason: Reason,
        /// Who is not back.
        waiting: BTreeSet<AgentId>,
        /// What is done about those that are not.
        #[serde(default)]
        repair: Repair,
        /// Until then, ms.
        until_ms: u64,
        /// When they are looked at again, ms.
        poll_ms: u64,
    },
}

impl Phase {
    /// Its name in keys and in the history.
    pub fn name(&self) -> &'static str {
        match self {
            Phase::Idle => "idle",
            Phase::Build => "build",
            Phase::Validate => "validate",
            Phase::Store => "store",
            Phase::Approve { .. } => "approve",
            Phase::Select { .. } => "select",
            Phase::Baseline { .. } => "baseline",
            Phase::Offer { .. } => "offer",
            Phase::Soak { .. } => "soak",
            Phase::Promote => "promote",
            Phase::RollBack { .. } => "roll_back",
        }
    }
}

/// What is being rolled out.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Candidate {
    /// Of which inputs.
    pub revision: String,
    /// What came of them; none while it is built.
    pub digest: Option<Digest>,
    /// Types of components that it needs.
    pub requires: BTreeSet<String>,
    /// 0 is the canary.
    pub stage: usize,
    /// All agents that may have got it.
    pub offered: BTreeSet<AgentId>,
    /// How often another canary was looked for.
    pub replacements: u32,
    /// Why it goes no further.
    pub paused: Option<String>,
}

/// See the module's documentation. What a driver persists after each step.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct State {
    /// See [`SCHEMA`].
    pub schema: u32,
    /// Whose.
    pub group: String,
    /// The newest leader that took a step.
    pub epoch: u64,
    /// Counts steps.
    pub step: u64,
    /// The newest time that was heard of, ms. It never goes back.
    pub clock_ms: u64,
    /// What agents should run.
    pub good: Generation,
    /// Where the candidate is.
    pub phase: Phase,
    /// What is being rolled out.
    pub candidate: Option<Candidate>,
    /// Counts candidates.
    pub rollout: u64,
    /// The newest change that was not begun.
    pub pending: Option<String>,
    /// When it is begun, ms.
    pub begin_ms: u64,
    /// What is never offered again, and why; the newest 256.
    pub quarantine: BTreeMap<Digest, String>,
    /// In which order they came.
    pub quarantined: Vec<Digest>,
    /// When candidates were taken back for their own fault, ms.
    pub rollbacks_ms: Vec<u64>,
    /// Nothing is begun until somebody says so.
    pub frozen: bool,
    /// What people were told and is not over.
    #[serde(default)]
    pub firing: FiringAlerts,
    /// Agents that are not well, or do not run what they should.
    #[serde(default)]
    pub ailing: Ailing,
    /// Of these, those that were told to begin anew, until they are well for long.
    #[serde(default)]
    pub restarted: BTreeMap<AgentId, Restarted>,
    /// Agents that did not come back: they take part in no stage until they run what is good.
    pub isolated: BTreeSet<AgentId>,
    /// When all agents are compared next, ms.
    pub reconcile_ms: u64,
    /// Commands without an outcome. After a crash they are carried out again.
    pub outstanding: BTreeMap<String, Command>,
    /// Counts commands.
    pub issued: u64,
    /// When the machine has to be told of the time, ms.
    pub due_ms: u64,
}
