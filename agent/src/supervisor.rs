//! The agent as a whole: what runs, and how another configuration comes into force.
//!
//! One thread does all of it, one configuration after the other: checked as a whole, planned against
//! what runs, built beside it, and put into force at once, or not at all. That thread stays outside of
//! the sandbox; whatever it starts is inside.

mod change;
mod kept;
mod queues;
mod start;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use tailwater_config::AdminOptions;
use tailwater_pipeline::Budget;
use tailwater_pipeline::clock::Clock;
use tailwater_pipeline::graph::{Graph, StopReport};
use tailwater_pipeline::listeners::Listeners;
use tailwater_telemetry::health::{ComponentHealth, HealthRegistry};
use tailwater_telemetry::logs::{SHUTDOWN_COMPLETE, STARTING_SHUTDOWN, SelfLog};
use tailwater_telemetry::metrics::{MetricsRegistry, ProcessMetrics};
use tailwater_telemetry::settings::TelemetrySettings;

pub use self::change::last_good;
use self::kept::Kept;
use self::queues::KnownQueues;
use self::start::Sockets;
use crate::admin::server::AdminServer;
use crate::admin::shown::{Record, Shown};
use crate::control::Control;
use crate::layer::Layer;
use crate::lent::Lent;
use crate::offer::Offer;
use crate::progress::{ReceiverWatch, judge_exporter, watched};
use crate::sandbox::{Ring, Sandbox};
use crate::serve::HttpServer;
use crate::storages::AgentStorages;
use crate::watch::Watched;

/// Raised while something else is in force than what was offered at the start.
const LAST_GOOD_ALARM: &str = "last good configuration";

/// How long a stop waits for those who watch to take what is left for them.
const STREAMS_END_MAX: Duration = Duration::from_millis(200);

/// A running agent.
pub struct Agent {
    graph: Running,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: Arc<MetricsRegistry>,
    health: Arc<HealthRegistry>,
    storages: Arc<AgentStorages>,
    log: SelfLog,
    _process: Arc<ProcessMetrics>,
    servers: Vec<HttpServer>,
    admin: Vec<AdminServer>,
    /// What the admin API shows of this.
    shown: Arc<Shown>,
    /// What extensions are given.
    lent: Arc<Lent>,
    /// Answers of the admin API that come as it happens and are not at their end.
    streams: Arc<AtomicUsize>,
    control: Control,
    exporters: BTreeMap<String, Arc<ComponentHealth>>,
    receivers: Vec<ReceiverWatch>,
    checkpoints: Arc<ComponentHealth>,
    configuration: Arc<ComponentHealth>,
    budget: Arc<Budget>,
    listeners: Arc<Listeners>,
    observe: Arc<dyn Fn() + Send + Sync>,
    sandbox: Sandbox,
    service: Service,
    /// What a control plane has laid over the local configuration that is in force.
    layer: Option<Arc<Layer>>,
    generations: Vec<Generation>,
    /// Where they are kept; nowhere if there is no state directory.
    kept: Option<Kept>,
    /// Which queues on disk there were; nowhere if there is no state directory.
    queues: Option<KnownQueues>,
    watched: Watched,
    /// The newest one serves what is built; others serve what was built before.
    sockets: Vec<Sockets>,
}

/// The graph, which is away only while it is changed within the sandbox.
struct Running(Option<Graph>);

/// Nobody asks while it is away: the thread that has it waits for its return.
const IS_BACK: &str = "whoever takes the graph away puts it back before anything else happens";

impl Running {
    fn new(graph: Graph) -> Running {
        Running(Some(graph))
    }

    fn into_inner(self) -> Graph {
        self.0.expect(IS_BACK)
    }
}

impl std::ops::Deref for Running {
    type Target = Graph;

    fn deref(&self) -> &Graph {
        self.0.as_ref().expect(IS_BACK)
    }
}

impl std::ops::DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Graph {
        self.0.as_mut().expect(IS_BACK)
    }
}

/// Of `service`: what is in force.
struct Service {
    workers: usize,
    sandboxed: bool,
    shutdown_timeout: Duration,
    memory_limit_mib: Option<u64>,
    telemetry: TelemetrySettings,
    admin: Option<AdminOptions>,
    /// Where exporters have their queues on disk, by exporter.
    queues: BTreeMap<String, PathBuf>,
    /// Where receivers have their positions, by receiver and storage; of those that name one.
    positions: BTreeMap<(String, String), PathBuf>,
}

/// A configuration that was in force.
pub struct Generation {
    offer: Offer,
    record: Record,
}

impl Agent {
    /// How long a stop may take, as the configuration says.
    pub fn shutdown_timeout(&self) -> Duration {
        self.service.shutdown_timeout
    }

    /// The files that the configuration was read from.
    pub fn watched(&self) -> &Watched {
        &self.watched
    }

    /// What is in force, for who looks at it while it runs.
    pub fn shown(&self) -> &Arc<Shown> {
        &self.shown
    }

    /// Says where discovery of this process has its registry, for extensions that tell of it.
    pub fn has_registry(&self, store: Arc<dyn tailwater_control_plane::store::Store>) {
        // There is one discovery, so nothing was there before.
        let _ = self.lent.registry.set(store);
    }

    /// Says what kept the configuration that was offered from being in force, if something did.
    pub fn runs_last_good(&self, refused: Vec<String>) {
        let Some(first) = refused.first().cloned() else {
            return;
        };
        for reason in &refused {
            tracing::error!("configuration refused: {reason}");
        }
        tracing::error!(
            mistakes = refused.len(),
            "started with the newest configuration that was in force; --no-last-good forbids it"
        );
        let text = format!("the configuration on the command line is refused: {first}");
        self.configuration
            .raise(LAST_GOOD_ALARM, text, self.clock.now().0);
    }

    /// Changes the graph in a thread of the sandbox, from which all threads that it starts inherit.
    ///
    /// # Errors
    /// There is no such thread. Nothing was done then.
    fn within<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Graph) -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let graph = std::mem::take(&mut self.graph.0);
        let lent = Arc::new(Mutex::new(graph));
        let there = lent.clone();
        let done = self.sandbox.within(Ring::Inner, move || {
            let mut graph = there.lock().unwrap_or_else(|e| e.into_inner());
            work(graph.as_mut().expect(IS_BACK))
        });
        self.graph.0 = lent.lock().unwrap_or_else(|e| e.into_inner()).take();
        done.context("no thread for changes")
    }

    /// What is looked at every now and then: health, and what the log left out.
    pub fn housekeeping(&mut self) {
        let now = self.clock.now();
        let mut stalled: BTreeMap<&str, Duration> = BTreeMap::new();
        for (id, time) in self.graph.exporters_stalled() {
            let longest = stalled.entry(id).or_default();
            *longest = time.max(*longest);
        }
        for (id, time) in stalled {
            if let Some(health) = self.exporters.get(id) {
                judge_exporter(health, time, now);
            }
        }
        self.receivers.iter_mut().for_each(|r| r.look(now));
        match self.storages.alarms().first() {
            Some(text) => self.checkpoints.raise("not saved", text.clone(), now.0),
            None => self.checkpoints.clear("not saved"),
        }
        self.show_not_started();
        let failed = self.graph.not_started();
        match failed.filter_map(|(_, why)| why).next() {
            Some(why) => self.configuration.raise("not started", why, now.0),
            None => self.configuration.clear("not started"),
        }
        self.log.report_suppressed();
    }

    /// Says to the admin API what does not run although the configuration says so.
    fn show_not_started(&self) {
        let waiting = self.graph.not_started();
        let waiting = waiting.map(|(id, why)| (id.to_owned(), why));
        self.shown.not_started(waiting.collect());
    }

    /// Brings the report of health in line with the graph.
    fn watch_components(&mut self) {
        let now = self.clock.now();
        let mut before = std::mem::take(&mut self.exporters);
        for (id, _) in self.graph.exporters_stalled() {
            let known = before.remove(id);
            let watch = || watched(&self.health, "exporter", id, now);
            self.exporters
                .entry(id.to_owned())
                .or_insert_with(|| known.unwrap_or_else(watch));
        }
        let lanes = self.graph.receivers();
        let watch = |(id, lane)| ReceiverWatch::new(id, lane, &self.health, now);
        self.receivers = lanes.map(watch).collect();
    }

    /// Stops everything: what is under way is delivered until the timeout, positions are saved.
    pub fn stop(self, timeout: Duration, abort: &dyn Fn() -> bool) -> StopReport {
        tracing::info!("{STARTING_SHUTDOWN}");
        self.health.pipelines_stopping();
        let deadline = self.clock.now().after(timeout);
        let report = self.graph.into_inner().stop(deadline, abort);
        // Whoever watches is told that it is over.
        let begin = Instant::now();
        while self.streams.load(Ordering::Acquire) > 0 && begin.elapsed() < STREAMS_END_MAX {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        // Positions are saved even when the time is up: that is what makes stopping safe.
        let saved = self
            .storages
            .close(self.clock.now().after(Duration::from_secs(5)));
        if !saved {
            tracing::error!("positions could not be saved; some lines will be delivered again");
        }
        if !report.clean {
            tracing::warn!(
                records = report.undelivered_records,
                "stopped with records undelivered; they are read again at the next start"
            );
        }
        tracing::info!("{SHUTDOWN_COMPLETE}");
        // What cannot be written to the log cannot be said anywhere else.
        let _ = self.log.flush(Duration::from_secs(1));
        report
    }
}
