//! From nothing to the first generation.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use tailwater_config::{Node, to_yaml};
use tailwater_pipeline::Budget;
use tailwater_pipeline::ack::tokens_lost;
use tailwater_pipeline::clock::{Clock, SystemClock};
use tailwater_pipeline::factory::NodeCx;
use tailwater_pipeline::graph::Graph;
use tailwater_telemetry::health::HealthRegistry;
use tailwater_telemetry::logs::{EVERYTHING_IS_READY, SelfLog};
#[cfg(feature = "jemalloc")]
use tailwater_telemetry::metrics::ProcessUsage;
use tailwater_telemetry::metrics::{
    EngineMetrics, MetricsRegistry, ProcessMetrics, SERIES_MAX_DEFAULT, SelfLogMetrics,
};

use super::change::{redacted, state_directory};
use super::kept::Kept;
use super::queues::KnownQueues;
use super::{Agent, Running, Service};
use crate::admin::shown::Shown;
use crate::commands::check::Checked;
use crate::control::Control;
use crate::lent::Lent;
use crate::offer::Offer;
use crate::progress::watched;
use crate::sandbox::{Ring, Sandbox};
use crate::storages::{self, AgentStorages};

/// Bytes of records that may be held between a read and their encoding.
const BUDGET_BYTES_DEFAULT: usize = 64 << 20;

/// The runtime for sockets, on one thread of its own.
pub(super) struct Sockets {
    pub handle: tokio::runtime::Handle,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Sockets {
    pub fn start() -> std::io::Result<Sockets> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("sockets".into())
            .spawn(move || {
                let _ = runtime.block_on(stopped);
            })?;
        Ok(Sockets {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Allows as many open files as the system permits; the agent keeps its own budget below that.
fn raise_open_files_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(e) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(error = %e, "cannot raise the limit of open files");
        }
    }
}

/// Bytes of records under way that an agent with this memory may hold.
pub(super) fn budget_bytes(memory_limit_mib: Option<u64>) -> usize {
    memory_limit_mib.map_or(BUDGET_BYTES_DEFAULT, |m| (m as usize) << 19)
}

impl Agent {
    /// Builds and starts everything. All threads but the ones that exist are inside of `sandbox`.
    /// Through `control` the agent's own API asks for changes.
    ///
    /// # Errors
    /// Something does not start.
    pub fn start(checked: Checked, mut sandbox: Sandbox, control: Control) -> Result<Agent> {
        #[cfg(feature = "jemalloc")]
        {
            crate::memory::give_back_in_background();
            ProcessUsage::count_heap_by(crate::memory::allocated_bytes);
        }
        let service = &checked.loaded.file.service;
        let reader = checked.telemetry.readers.first();
        let exposition = reader.map(|r| r.exposition.clone()).unwrap_or_default();
        let metrics = Arc::new(MetricsRegistry::new(exposition, SERIES_MAX_DEFAULT));
        let log_metrics = SelfLogMetrics::new(&metrics);
        let settings = checked.telemetry.logs.clone();
        let log = SelfLog::new(settings, log_metrics)?;
        log.install()?;
        for w in &checked.warnings {
            tracing::warn!("{w}");
        }
        raise_open_files_limit();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let health = Arc::new(HealthRegistry::new());
        let sockets = sandbox.within(Ring::Outer, Sockets::start)??;
        let storages = Arc::new(AgentStorages::new(clock.clone(), metrics.clone()));
        storages.set(AgentStorages::named(&checked.loaded.file));
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let shards = if service.workers == 0 {
            cores
        } else {
            service.workers
        };
        let budget = Budget::new(budget_bytes(service.memory_limit_mib));
        let shown: Arc<Shown> = Arc::default();
        let lent = Arc::new(Lent::new(control.clone(), shown.clone()));
        let cx = NodeCx {
            id: "".into(),
            pipeline: None,
            signal: None,
            shards,
            clock: clock.clone(),
            seed: seed(&*clock),
            budget: budget.clone(),
            metrics: metrics.clone(),
            health: health.clone(),
            runtime: sockets.handle.clone(),
            listeners: Arc::default(),
            connections: Arc::default(),
            storages: storages.clone(),
            authenticators: Default::default(),
            agent: Some(lent.clone()),
        };
        let listeners = cx.listeners.clone();
        let layer = checked.offer.layer.clone();
        let observe = observer(&cx, &storages);
        let now = clock.now();
        let graph = sandbox.within(Ring::Inner, || Graph::new(cx))?;
        let mut agent = Agent {
            graph: Running::new(graph.context("cannot start the shards")?),
            health: health.clone(),
            storages,
            log,
            _process: ProcessMetrics::new(&metrics),
            servers: Vec::new(),
            admin: Vec::new(),
            shown,
            lent,
            streams: Arc::default(),
            control,
            exporters: Default::default(),
            receivers: Vec::new(),
            checkpoints: watched(&health, "store", "positions", now),
            configuration: watched(&health, "agent", "configuration", now),
            budget,
            listeners,
            observe,
            sandbox,
            service: Service::of(&checked),
            layer,
            generations: Vec::new(),
            kept: state_directory().map(|state| Kept::below(&state)),
            queues: state_directory().map(|state| KnownQueues::below(&state)),
            watched: Arc::default(),
            sockets: vec![sockets],
            clock,
            metrics,
        };
        agent.servers = agent.serve_metrics(&checked.telemetry.readers)?;
        agent.admin = agent.serve_admin(service.admin.as_ref())?;
        let shown = redacted(&checked);
        let resumed = agent.resume_generations(&checked.offer, &shown);
        let resolved = checked.resolved;
        agent.within(move |graph| {
            let prepared = graph.prepare(resolved)?;
            for line in prepared.plan.to_string().lines() {
                tracing::debug!(step = line, "plan");
            }
            graph.commit(prepared)
        })??;
        let (wall, now) = (agent.clock.wall_ns(), agent.clock.now().0);
        health.pipelines_up(wall, now);
        agent.watch_components();
        agent.find_left_queues();
        match resumed {
            true => agent.resume(checked.offer, shown),
            false => {
                let record = agent.record("start", Vec::new(), &shown);
                agent.remember(checked.offer, record, shown);
            }
        }
        // Whoever waits for this may ask what is in force.
        let generation = agent.graph.generation();
        tracing::info!(shards, generation, "{EVERYTHING_IS_READY}");
        Ok(agent)
    }
}

impl Agent {
    /// Takes the generations that are kept, and counts on from the newest. True if the configuration is that
    /// of the newest one, which then has the same number again: a start that changes nothing takes no place
    /// of one that can be gone back to.
    fn resume_generations(&mut self, offer: &Offer, shown: &Node) -> bool {
        let found = self.kept.as_ref().map(Kept::load).unwrap_or_default();
        if !found.skipped.is_empty() {
            tracing::warn!(
                skipped = ?found.skipped,
                "kept generations that cannot be used; they cannot be gone back to"
            );
        }
        self.generations = found.generations;
        let newest = self.generations.last();
        let same = newest
            .is_some_and(|g| g.record.number == found.highest && g.is(offer, &to_yaml(shown)));
        self.graph.count_from(found.highest - u64::from(same));
        same
    }

    /// Goes on with the newest generation that is kept.
    fn resume(&mut self, offer: Offer, shown: Node) {
        self.keep_last_good(&offer);
        self.show(shown);
    }
}

impl Service {
    pub(super) fn of(checked: &Checked) -> Service {
        let service = &checked.loaded.file.service;
        Service {
            workers: service.workers,
            sandboxed: service.sandbox.enabled,
            shutdown_timeout: service.shutdown_timeout,
            memory_limit_mib: service.memory_limit_mib,
            telemetry: checked.telemetry.clone(),
            admin: service.admin.clone(),
            queues: storages::queues(&checked.loaded.file),
            positions: storages::positions(&checked.loaded.file, &checked.resolved),
        }
    }
}

/// Brings up to date, at a scrape, what nobody counts while it happens.
fn observer(cx: &NodeCx, storages: &Arc<AgentStorages>) -> Arc<dyn Fn() + Send + Sync> {
    let engine = EngineMetrics::new(&cx.metrics);
    let (budget, storages) = (cx.budget.clone(), storages.clone());
    let gauge = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
    // Scrapes may come at once from several addresses.
    let counting = Mutex::new(());
    Arc::new(move || {
        let _counting = counting.lock().unwrap_or_else(|e| e.into_inner());
        storages.observe();
        engine.data_bytes_max.set(gauge(budget.limit_bytes()));
        engine.data_bytes.set(gauge(budget.used_bytes()));
        let lost = tokens_lost().saturating_sub(engine.tokens_lost.get());
        engine.tokens_lost.inc_by(lost);
    })
}

/// Differs between processes that start in the same instant.
fn seed(clock: &dyn Clock) -> u64 {
    (clock.wall_ns() as u64) ^ u64::from(std::process::id()) << 32
}
