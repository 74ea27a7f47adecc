//! What the control plane counts. Names of activities are those of its log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tailwater_telemetry::metrics::{ActivityMetrics, MetricsRegistry, SourcesMetrics};

use crate::model::Origin;

/// What is done, under the names that logs and metrics have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Activity {
    /// The stream of events of a Docker Engine.
    DockerWatch,
    /// Patterns of files.
    FilesystemWatch,
    /// The pods of a node of Kubernetes.
    KubernetesWatch,
    /// A source becomes part of what is tailed.
    RegisterService,
    /// A source is read to its end and leaves.
    DeregisterService,
    /// A row of the registry is written.
    UpsertRegistryRecord,
    /// What is to be tailed is put together.
    BuildConfig,
    /// It is shown to the agent's validator.
    ValidateConfig,
    /// One source becomes configuration.
    RenderConfig,
    /// It is kept before it is offered.
    StoreConfigArtifact,
    /// It is offered.
    PushConfig,
    /// The agent says what it reads.
    VerifyReload,
    /// A turn of the loop that found something to do.
    ScheduleReconcile,
    /// A candidate is offered to the first agents.
    CanaryReload,
    /// A candidate becomes what is good.
    PromoteConfig,
    /// Agents are offered what was good before.
    RollbackConfig,
    /// Agents are to begin anew.
    RestartCollector,
    /// People are told.
    SendAlert,
    /// What agents count is asked for.
    VerifyCollectorHealth,
    /// Which agents there are is asked for.
    ListActiveCollectors,
    /// An agent that came late is offered what is good.
    RegisterNewCollector,
}

impl Activity {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Activity::DockerWatch => "docker_watch",
            Activity::FilesystemWatch => "filesystem_watch",
            Activity::KubernetesWatch => "k8s_watch",
            Activity::RegisterService => "register_service",
            Activity::DeregisterService => "deregister_service",
            Activity::UpsertRegistryRecord => "upsert_registry_record",
            Activity::BuildConfig => "build_config",
            Activity::ValidateConfig => "validate_config",
            Activity::RenderConfig => "render_config",
            Activity::StoreConfigArtifact => "store_config_artifact",
            Activity::PushConfig => "push_config",
            Activity::VerifyReload => "verify_reload",
            Activity::ScheduleReconcile => "schedule_reconcile",
            Activity::CanaryReload => "canary_reload",
            Activity::PromoteConfig => "promote_config",
            Activity::RollbackConfig => "rollback_config",
            Activity::RestartCollector => "restart_collector",
            Activity::SendAlert => "send_alert",
            Activity::VerifyCollectorHealth => "verify_collector_health",
            Activity::ListActiveCollectors => "list_active_collectors",
            Activity::RegisterNewCollector => "register_new_collector",
        }
    }
}

/// See the module's documentation. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<MetricsRegistry>,
    activities: Arc<Mutex<BTreeMap<Activity, Arc<ActivityMetrics>>>>,
    sources: Arc<BTreeMap<Origin, Arc<SourcesMetrics>>>,
}

impl Metrics {
    /// Counted in this registry.
    pub fn new(registry: Arc<MetricsRegistry>) -> Metrics {
        let of = |origin: Origin| (origin, SourcesMetrics::new(&registry, origin.name()));
        Metrics {
            sources: Arc::new(Origin::ALL.into_iter().map(of).collect()),
            activities: Arc::default(),
            registry,
        }
    }

    /// Counts that something was done.
    pub fn did(&self, activity: Activity) {
        self.of(activity).runs.inc();
    }

    /// Counts that something was done, and did not succeed.
    pub fn failed(&self, activity: Activity) {
        let counts = self.of(activity);
        counts.runs.inc();
        counts.failures.inc();
    }

    fn of(&self, activity: Activity) -> Arc<ActivityMetrics> {
        let mut known = self
            .activities
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let new = || ActivityMetrics::new(&self.registry, activity.name());
        known.entry(activity).or_insert_with(new).clone()
    }

    /// What is counted of the sources of an origin.
    pub fn sources(&self, origin: Origin) -> Option<&SourcesMetrics> {
        self.sources.get(&origin).map(|m| &**m)
    }
}
