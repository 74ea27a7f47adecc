//! What the driver acts through, and how each command is carried out. The only place with effects.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::command::{Action, Alert, Command, Fence, Outcome};
use super::model::{AgentId, Collector, Generation, Report};
use super::verdict::Sample;
use crate::model::Digest;
use crate::store::{Artefacts, StoreError};

/// Of one attempt of a command.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Who asks. What is smaller than one that was obeyed is refused.
    pub fence: Fence,
    /// The same for each attempt. What is carried out twice under it has the effect of once.
    pub key: &'a str,
    /// It may take so long; then it is [`Failure::Unavailable`].
    pub timeout: Duration,
}

/// What keeps a command from being carried out. It says nothing about the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It may be tried again.
    #[error("{0}")]
    Unavailable(String),
    /// A newer leader was obeyed.
    #[error("there is a newer leader")]
    Fenced,
    /// What the store says.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The agents of a group.
pub trait Fleet {
    /// All agents, connected or known.
    ///
    /// # Errors
    /// It cannot be said. So of all methods.
    fn collectors(&mut self, call: &Call<'_>) -> Result<Vec<Collector>, Failure>;

    /// Has each of these agents offered this digest as soon as it is connected. An agent refuses an offer
    /// whose fence is not above that of the last one it took. What becomes of it is seen in [`Fleet::reports`].
    ///
    /// # Errors
    /// As [`Fleet::collectors`]; some may have been offered it.
    fn offer(
        &mut self,
        call: &Call<'_>,
        agents: &BTreeSet<AgentId>,
        digest: &Digest,
    ) -> Result<(), Failure>;

    /// As [`Fleet::offer`], to agents that may have been offered and may have answered the same: what is
    /// offered now is another offer to them.
    ///
    /// # Errors
    /// As [`Fleet::offer`].
    fn reoffer(
        &mut self,
        call: &Call<'_>,
        agents: &BTreeSet<AgentId>,
        digest: &Digest,
    ) -> Result<(), Failure>;

    /// Has those of these agents restarted that can be, and says which ones: connected, and willing. They end as by
    /// a signal, lose nothing, and begin with what they run.
    ///
    /// # Errors
    /// As [`Fleet::offer`].
    fn restart(
        &mut self,
        call: &Call<'_>,
        agents: &BTreeSet<AgentId>,
    ) -> Result<BTreeSet<AgentId>, Failure>;

    /// What these agents run; those that are not connected are left out.
    ///
    /// # Errors
    /// As [`Fleet::collectors`].
    fn reports(
        &mut self,
        call: &Call<'_>,
        agents: &BTreeSet<AgentId>,
    ) -> Result<BTreeMap<AgentId, Report>, Failure>;

    /// What these agents run and count; those that are not connected are left out.
    ///
    /// # Errors
    /// As [`Fleet::collectors`].
    fn health(
        &mut self,
        call: &Call<'_>,
        agents: &BTreeSet<AgentId>,
    ) -> Result<BTreeMap<AgentId, (Report, Option<Sample>)>, Failure>;

    /// From now on agents that connect are to run this. One with a smaller number is refused.
    ///
    /// # Errors
    /// As [`Fleet::collectors`].
    fn promote(&mut self, call: &Call<'_>, generation: &Generation) -> Result<(), Failure>;

    /// Tells people that something is the matter, or, if it is `resolved`, not any more.
    ///
    /// # Errors
    /// As [`Fleet::collectors`].
    fn alert(
        &mut self,
        call: &Call<'_>,
        alert: Alert,
        text: &str,
        resolved: bool,
    ) -> Result<(), Failure>;
}

/// A configuration that was rendered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Built {
    /// Canonical.
    pub body: String,
    /// Types of components that it needs.
    pub requires: BTreeSet<String>,
}

/// What renders and checks configurations. The same revision always gives the same body.
pub trait Configs {
    /// Renders the inputs of a revision; or all reasons why not.
    ///
    /// # Errors
    /// It cannot be said now.
    fn build(
        &mut self,
        call: &Call<'_>,
        revision: &str,
    ) -> Result<Result<Built, Vec<String>>, Failure>;

    /// All reasons to refuse it: by a static check, and by the dry build of an agent.
    ///
    /// # Errors
    /// As [`Configs::build`].
    fn validate(&mut self, call: &Call<'_>, built: &Built) -> Result<Vec<String>, Failure>;
}

/// Carries out a command. Any driver of the machine does it by this.
///
/// # Errors
/// It could not be carried out, or it is not known whether it was. It may be tried again.
pub fn perform(
    fence: Fence,
    command: &Command,
    fleet: &mut dyn Fleet,
    configs: &mut dyn Configs,
    artefacts: &dyn Artefacts,
) -> Result<Outcome, Failure> {
    let call = &Call {
        fence,
        key: &command.key,
        timeout: Duration::from_millis(command.timeout_ms),
    };
    if let Action::ReofferConfig { agents, digest } = &command.action {
        fleet.reoffer(call, agents, digest)?;
        return Ok(Outcome::Done);
    }
    if let Some((agents, digest)) = command.action.offer() {
        fleet.offer(call, agents, digest)?;
        return Ok(Outcome::Done);
    }
    match &command.action {
        Action::BuildConfig { revision } => Ok(match configs.build(call, revision)? {
            Ok(built) => Outcome::Built {
                digest: Digest::of(built.body.as_bytes()),
                requires: built.requires,
            },
            Err(reasons) => Outcome::Refused { reasons },
        }),
        Action::ValidateConfig { revision, digest } => {
            let built = match again(call, configs, revision, digest)? {
                Ok(built) => built,
                Err(refused) => return Ok(refused),
            };
            let reasons = configs.validate(call, &built)?;
            Ok(match reasons.is_empty() {
                true => Outcome::Done,
                false => Outcome::Refused { reasons },
            })
        }
        Action::StoreConfigArtifact { revision, digest } => {
            let built = match again(call, configs, revision, digest)? {
                Ok(built) => built,
                Err(refused) => return Ok(refused),
            };
            artefacts.put_artefact("pipeline", digest, &built.body)?;
            Ok(Outcome::Done)
        }
        Action::ListActiveCollectors => Ok(Outcome::Collectors {
            collectors: fleet.collectors(call)?,
        }),
        Action::VerifyReload { agents } => Ok(Outcome::Reports {
            reports: fleet.reports(call, agents)?,
        }),
        Action::VerifyCollectorHealth { agents } => Ok(Outcome::Health {
            agents: fleet.health(call, agents)?,
        }),
        Action::PromoteConfig { generation } => {
            fleet.promote(call, generation)?;
            Ok(Outcome::Done)
        }
        Action::RestartCollector { agents } => Ok(Outcome::Restarted {
            agents: fleet.restart(call, agents)?,
        }),
        Action::SendAlert {
            alert,
            text,
            resolved,
        } => {
            fleet.alert(call, *alert, text, *resolved)?;
            Ok(Outcome::Done)
        }
        // These are offers, and done.
        Action::RegisterNewCollector { .. }
        | Action::CanaryReload { .. }
        | Action::PushConfig { .. }
        | Action::ReofferConfig { .. }
        | Action::RollbackConfig { .. } => Ok(Outcome::Done),
    }
}

/// Renders it again, as bodies are not kept between steps; and refuses what comes out otherwise.
fn again(
    call: &Call<'_>,
    configs: &mut dyn Configs,
    revision: &str,
    digest: &Digest,
) -> Result<Result<Built, Outcome>, Failure> {
    Ok(match configs.build(call, revision)? {
        Ok(built) if Digest::of(built.body.as_bytes()) == *digest => Ok(built),
        Ok(_) => Err(Outcome::Refused {
            reasons: vec![format!("{revision} does not always give the same")],
        }),
        Err(reasons) => Err(Outcome::Refused { reasons }),
    })
}
