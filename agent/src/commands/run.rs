//! `tailwater run`: from configuration to a running graph, and back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use tailwater_pipeline::Budget;
use tailwater_pipeline::ack::tokens_lost;
use tailwater_pipeline::clock::{Clock, SystemClock};
use tailwater_pipeline::factory::NodeCx;
use tailwater_pipeline::graph::{Graph, StopReport};
use tailwater_telemetry::health::{ComponentHealth, HealthRegistry};
use tailwater_telemetry::logs::{
    EVERYTHING_IS_READY, SHUTDOWN_COMPLETE, STARTING_SHUTDOWN, SelfLog,
};
use tailwater_telemetry::metrics::{
    EngineMetrics, Exposition, MetricsRegistry, ProcessMetrics, SERIES_MAX_DEFAULT, SelfLogMetrics,
};

use super::check::{Checked, check, complain};
use crate::cli::{ConfigArgs, exit};
use crate::progress::{ReceiverWatch, judge_exporter, watched};
use crate::sandbox::Sandbox;
use crate::serve::{HttpServer, Page, serve};
use crate::signals::{Caught, Signals};
use crate::storages::AgentStorages;

/// Bytes of records that may be held between a read and their encoding.
const BUDGET_BYTES_DEFAULT: usize = 64 << 20;

/// How often health is looked at.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);

/// Runs the agent until a signal stops it.
pub fn run(args: &ConfigArgs) -> Result<u8> {
    let checked = match check(args) {
        Ok(checked) => checked,
        Err(errors) => return Ok(complain(&errors)),
    };
    // From the beginning: a signal during a long start must not end the process half-way. Not before
    // the configuration is read: that may wait for a pipe, and nothing is begun until then.
    let signals = Caught::catch()?;
    // Before there is any other thread: it holds for those that come.
    let sandbox = Sandbox::enter(&checked);
    let signals = signals.listen()?;
    let agent = Agent::start(&checked, sandbox)?;
    agent.serve_until_stopped(checked.loaded.file.service.shutdown_timeout, &signals)
}

/// A running agent.
pub struct Agent {
    /// The graph.
    graph: Graph,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: Arc<MetricsRegistry>,
    health: Arc<HealthRegistry>,
    storages: Arc<AgentStorages>,
    log: SelfLog,
    _process: Arc<ProcessMetrics>,
    _servers: Vec<HttpServer>,
    exporters: Vec<(String, Arc<ComponentHealth>)>,
    receivers: Vec<ReceiverWatch>,
    checkpoints: Arc<ComponentHealth>,
    _sockets: Sockets,
}

/// The runtime for sockets, on one thread of its own.
struct Sockets {
    handle: tokio::runtime::Handle,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Sockets {
    fn start() -> Result<Sockets> {
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

impl Agent {
    /// Builds and starts everything: plan, prepare, commit. All threads but the ones that exist,
    /// and the one for sockets, are inside of `sandbox`.
    pub fn start(checked: &Checked, sandbox: Sandbox) -> Result<Agent> {
        let service = &checked.loaded.file.service;
        let reader = checked.telemetry.readers.first();
        let exposition = reader.map(|r| r.exposition.clone()).unwrap_or_default();
        let metrics = Arc::new(MetricsRegistry::new(exposition, SERIES_MAX_DEFAULT));
        let log_metrics = SelfLogMetrics::new(&metrics);
        let log = SelfLog::new(checked.telemetry.logs.clone(), log_metrics)?;
        log.install()?;
        for w in &checked.warnings {
            tracing::warn!("{w}");
        }
        raise_open_files_limit();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let health = Arc::new(HealthRegistry::new());
        let sockets = Sockets::start()?;
        sandbox.enter_inner();
        let storages = Arc::new(AgentStorages::new(
            &checked.loaded.file,
            clock.clone(),
            metrics.clone(),
        ));
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let shards = if service.workers == 0 {
            cores
        } else {
            service.workers
        };
        let budget = service
            .memory_limit_mib
            .map_or(BUDGET_BYTES_DEFAULT, |m| (m as usize) << 19);
        let cx = NodeCx {
            id: "".into(),
            pipeline: None,
            signal: None,
            shards,
            clock: clock.clone(),
            seed: seed(&*clock),
            budget: Budget::new(budget),
            metrics: metrics.clone(),
            health: health.clone(),
            runtime: sockets.handle.clone(),
            storages: storages.clone(),
            authenticators: Default::default(),
        };
        let observe = observer(&cx, &storages);
        let mut servers = Vec::new();
        for r in &checked.telemetry.readers {
            servers.push(metrics_server(
                &format!("{}:{}", r.host, r.port),
                &r.exposition,
                &metrics,
                &observe,
                &sockets,
            )?);
        }
        let mut graph = Graph::new(cx).context("cannot start the shards")?;
        let prepared = graph.prepare(&checked.resolved)?;
        for line in prepared.plan.to_string().lines() {
            tracing::debug!(step = line, "plan");
        }
        graph.commit(prepared)?;
        health.pipelines_up(clock.wall_ns(), clock.now().0);
        tracing::info!(
            shards,
            generation = graph.generation(),
            "{EVERYTHING_IS_READY}"
        );
        let process = ProcessMetrics::new(&metrics);
        let now = clock.now();
        let exporters = graph
            .exporters_stalled()
            .map(|(id, _)| (id.to_owned(), watched(&health, "exporter", id, now)))
            .collect();
        let receivers = graph
            .receivers()
            .map(|(id, lane)| ReceiverWatch::new(id, lane, &health, now))
            .collect();
        let checkpoints = watched(&health, "store", "positions", now);
        Ok(Agent {
            graph,
            clock,
            metrics,
            health,
            storages,
            log,
            _process: process,
            _servers: servers,
            exporters,
            receivers,
            checkpoints,
            _sockets: sockets,
        })
    }

    /// Waits for SIGTERM or SIGINT, then stops within `timeout`; a second signal stops at once.
    fn serve_until_stopped(mut self, timeout: Duration, signals: &Signals) -> Result<u8> {
        while signals.stops() == 0 {
            std::thread::park_timeout(HOUSEKEEPING_INTERVAL);
            self.housekeeping();
        }
        let stopped = self.stop(timeout, &|| signals.stops() > 1);
        let aborted = signals.stops() > 1;
        Ok(match stopped {
            StopReport { clean: true, .. } => exit::OK,
            _ if aborted => exit::INTERRUPTED,
            _ => exit::UNDELIVERED,
        })
    }

    /// What is looked at every now and then: health, and what the log left out.
    fn housekeeping(&mut self) {
        let now = self.clock.now();
        for (id, stalled) in self.graph.exporters_stalled() {
            if let Some((_, health)) = self.exporters.iter().find(|(e, _)| e == id) {
                judge_exporter(health, stalled, now);
            }
        }
        self.receivers.iter_mut().for_each(|r| r.look(now));
        match self.storages.alarms().first() {
            Some(text) => self.checkpoints.raise("not saved", text.clone(), now.0),
            None => self.checkpoints.clear("not saved"),
        }
        self.log.report_suppressed();
    }

    /// Stops everything: what is under way is delivered until the timeout, positions are saved.
    pub fn stop(self, timeout: Duration, abort: &dyn Fn() -> bool) -> StopReport {
        tracing::info!("{STARTING_SHUTDOWN}");
        self.health.pipelines_stopping();
        let deadline = self.clock.now().after(timeout);
        let report = self.graph.stop(deadline, abort);
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

/// Brings up to date, at a scrape, what nobody counts while it happens.
fn observer(cx: &NodeCx, storages: &Arc<AgentStorages>) -> Arc<dyn Fn() + Send + Sync> {
    let engine = EngineMetrics::new(&cx.metrics);
    let (budget, storages) = (cx.budget.clone(), storages.clone());
    let gauge = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
    engine.data_bytes_max.set(gauge(budget.limit_bytes()));
    // Scrapes may come at once from several addresses.
    let counting = Mutex::new(());
    Arc::new(move || {
        let _counting = counting.lock().unwrap_or_else(|e| e.into_inner());
        storages.observe();
        engine.data_bytes.set(gauge(budget.used_bytes()));
        let lost = tokens_lost().saturating_sub(engine.tokens_lost.get());
        engine.tokens_lost.inc_by(lost);
    })
}

fn metrics_server(
    endpoint: &str,
    exposition: &Exposition,
    metrics: &Arc<MetricsRegistry>,
    observe: &Arc<dyn Fn() + Send + Sync>,
    sockets: &Sockets,
) -> Result<HttpServer> {
    let (metrics, observe, exposition) = (metrics.clone(), observe.clone(), exposition.clone());
    let pages = Arc::new(move |path: &str| {
        (path == "/metrics").then(|| {
            observe();
            Page {
                status: hyper::StatusCode::OK,
                content_type: tailwater_telemetry::metrics::CONTENT_TYPE,
                body: metrics.render_with(&exposition),
            }
        })
    });
    serve(endpoint, pages, &sockets.handle).with_context(|| {
        format!(
            "cannot listen on {endpoint} for metrics; set service::telemetry::metrics to another \
             address, or its level to none"
        )
    })
}

/// Differs between processes that start in the same instant.
fn seed(clock: &dyn Clock) -> u64 {
    (clock.wall_ns() as u64) ^ u64::from(std::process::id()) << 32
}
