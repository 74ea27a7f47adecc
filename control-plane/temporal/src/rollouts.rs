//! Temporal as a service: connecting, workers, and the workflow of each group by its id.

use anyhow::{Context, Result};
use tailwater_control_plane::rollout::{Operator, State};
use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions, Url, WorkflowQueryOptions,
    WorkflowSignalOptions, WorkflowStartOptions,
};
use temporalio_sdk::{Runtime, Worker, WorkerOptions};

use crate::activities::Activities;
use crate::workflow::{Begin, Reload};

/// The queue of tasks that workers of ours take.
pub const QUEUE: &str = "tailwater-rollouts";
/// In front of the name of a group in the id of its workflow: there is one of each.
const ID: &str = "tailwater-rollout/";

/// A client of the Temporal at this URL.
///
/// # Errors
/// It cannot be reached.
pub async fn connect(url: &str, namespace: &str) -> Result<Client> {
    let url: Url = url.parse().context("the URL of Temporal")?;
    let options = ConnectionOptions::new(url).build();
    let connection = Connection::connect(options).await?;
    Ok(Client::new(
        connection,
        ClientOptions::new(namespace).build(),
    )?)
}

/// One that runs workflows of groups, and carries out their commands.
///
/// # Errors
/// It cannot be made of the client.
pub fn worker(runtime: &Runtime, client: Client, activities: Activities) -> Result<Worker> {
    let options = WorkerOptions::new(QUEUE)
        .register_activities(activities)
        .register_workflow::<Reload>()?
        .build();
    Ok(Worker::new(runtime, client, options)?)
}

/// What is asked and told of groups. Each is known by its id alone, as a run is followed by the next one.
pub struct Rollouts {
    client: Client,
}

impl Rollouts {
    /// By this client.
    pub fn new(client: Client) -> Rollouts {
        Rollouts { client }
    }

    /// The id of the workflow of a group.
    pub fn id(group: &str) -> String {
        format!("{ID}{group}")
    }

    /// Begins with a group.
    ///
    /// # Errors
    /// It has begun already, or cannot be.
    pub async fn start(&self, begin: Begin) -> Result<()> {
        let options = WorkflowStartOptions::new(QUEUE, Rollouts::id(&begin.group)).build();
        self.client
            .start_workflow(Reload::run, begin, options)
            .await?;
        Ok(())
    }

    /// Says that the inputs of the configuration changed.
    ///
    /// # Errors
    /// It cannot be told. So of all methods.
    pub async fn source_changed(&self, group: &str, revision: &str) -> Result<()> {
        let handle = self
            .client
            .get_workflow_handle::<Reload>(Rollouts::id(group));
        let (signal, revision) = (Reload::source_changed, revision.to_owned());
        handle
            .signal(signal, revision, WorkflowSignalOptions::default())
            .await?;
        Ok(())
    }

    /// Says what somebody wants.
    ///
    /// # Errors
    /// As [`Rollouts::source_changed`].
    pub async fn operator(&self, group: &str, wants: Operator) -> Result<()> {
        let handle = self
            .client
            .get_workflow_handle::<Reload>(Rollouts::id(group));
        let options = WorkflowSignalOptions::default();
        match wants {
            Operator::Approve => handle.signal(Reload::approve, (), options).await?,
            Operator::Abort => handle.signal(Reload::abort, (), options).await?,
            Operator::Pause => handle.signal(Reload::pause, (), options).await?,
            other => handle.signal(Reload::operator, other, options).await?,
        }
        Ok(())
    }

    /// Where a group is.
    ///
    /// # Errors
    /// As [`Rollouts::source_changed`].
    pub async fn state(&self, group: &str) -> Result<State> {
        let handle = self
            .client
            .get_workflow_handle::<Reload>(Rollouts::id(group));
        let options = WorkflowQueryOptions::default();
        Ok(handle.query(Reload::state, (), options).await?)
    }
}
