//! The one activity: carries out a command of the machine.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tailwater_control_plane::metrics::Metrics;
use tailwater_control_plane::rollout::ports::{Configs, Failure, Fleet, perform};
use tailwater_control_plane::rollout::{Command, Fence, Outcome};
use tailwater_control_plane::store::Artefacts;
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};

/// One attempt of a command.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Of which group.
    pub group: String,
    /// Who asks. What is smaller than one that was obeyed is refused.
    pub fence: Fence,
    /// What to do.
    pub command: Command,
}

/// What came of an attempt. What keeps a command from being carried out is an error of the activity instead.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attempt {
    /// It was carried out.
    Done(Outcome),
    /// Another driver was obeyed that is newer than this one.
    Fenced,
}

/// What commands are carried out with.
pub trait Hands: Send + Sync + 'static {
    /// Carries out a command of a group. It may wait, within the time that the command has.
    ///
    /// # Errors
    /// It could not be carried out, or it is not known whether it was. It is tried again.
    fn perform(&self, group: &str, fence: Fence, command: &Command) -> Result<Outcome, Failure>;
}

/// Hands for one group, in this process.
pub struct Local {
    ports: Mutex<(Box<dyn Fleet + Send>, Box<dyn Configs + Send>)>,
    artefacts: Arc<dyn Artefacts>,
}

impl Local {
    /// With these ports.
    pub fn new(
        fleet: Box<dyn Fleet + Send>,
        configs: Box<dyn Configs + Send>,
        artefacts: Arc<dyn Artefacts>,
    ) -> Local {
        Local {
            ports: Mutex::new((fleet, configs)),
            artefacts,
        }
    }
}

impl Hands for Local {
    fn perform(&self, _group: &str, fence: Fence, command: &Command) -> Result<Outcome, Failure> {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let (fleet, configs) = &mut *ports;
        perform(
            fence,
            command,
            &mut **fleet,
            &mut **configs,
            &*self.artefacts,
        )
    }
}

/// See the module's documentation.
pub struct Activities {
    hands: Arc<dyn Hands>,
    metrics: Metrics,
}

impl Activities {
    /// What is done is counted, under the same names as by the embedded driver.
    pub fn new(hands: Arc<dyn Hands>, metrics: Metrics) -> Activities {
        Activities { hands, metrics }
    }

    fn attempt(&self, order: &Order) -> Result<Attempt, Failure> {
        let activity = order.command.action.activity();
        let (name, key) = (activity.name(), &order.command.key);
        let done = self
            .hands
            .perform(&order.group, order.fence, &order.command);
        match done {
            Ok(outcome) => {
                self.metrics.did(activity);
                tracing::info!(activity = name, key, "done");
                Ok(Attempt::Done(outcome))
            }
            Err(Failure::Fenced) => {
                self.metrics.failed(activity);
                tracing::warn!(activity = name, key, "there is a newer leader");
                Ok(Attempt::Fenced)
            }
            Err(error) => {
                self.metrics.failed(activity);
                tracing::warn!(activity = name, key, %error, "is tried again");
                Err(error)
            }
        }
    }
}

#[activities]
impl Activities {
    /// Carries out a command.
    #[activity(name = "perform")]
    pub async fn perform(
        self: Arc<Self>,
        _ctx: ActivityContext,
        order: Order,
    ) -> Result<Attempt, ActivityError> {
        // Agents, files and databases are waited for.
        let attempt = tokio::task::spawn_blocking(move || self.attempt(&order)).await;
        Ok(attempt.map_err(anyhow::Error::from)??)
    }
}
