//! One life of the agent: the production parts, built from a configuration, without their threads.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tailwater_config::{Errors, KeyPath, Node, Section, parse};
use tailwater_exporters::delivery::{Acks, Courier, Delivery, Judge};
use tailwater_exporters::loki::{LokiExporter, LokiParts, LokiSettings};
use tailwater_pipeline::checkpoint::{
    CheckpointError, CheckpointHandle, CheckpointStore, ReadErrors, StoreOptions, WriterCore,
    WriterOptions,
};
use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_pipeline::factory::{NodeCx, ProcessorSettings};
use tailwater_pipeline::fs::Fs;
use tailwater_pipeline::handover::Outlet;
use tailwater_pipeline::shard::{Chain, Shard, Stage};
use tailwater_pipeline::storage::Storages;
use tailwater_pipeline::{
    Budget, BuildError, DropReason, ExporterNode, ReceiverNode, ShardHandle, Wake,
};
use tailwater_receivers::filelog::{Driver, FilelogSettings};
use tailwater_telemetry::health::HealthRegistry;
use tailwater_telemetry::metrics::{Accounting, MetricsRegistry};

use crate::canary::Breaks;
use crate::plan::Plan;
use crate::views::{AgentFs, SimNews};
use crate::world::STATE_DIR;

/// Memory for records under way.
const BUDGET_BYTES: usize = 4 << 20;
/// The receiver's id.
const RECEIVER: &str = "file_log";
/// The exporter's id.
const EXPORTER: &str = "loki";

/// A validated configuration; lives are built from it.
pub struct Settings {
    receiver: FilelogSettings,
    batch: Option<Box<dyn ProcessorSettings>>,
    exporter: LokiSettings,
}

impl Settings {
    /// Decodes the configuration of a plan, as the agent does.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(plan: &Plan) -> Result<Settings, String> {
        let root = parse(&plan.config(), "sim").map_err(|e| e.to_string())?;
        let mut errors = Errors::new();
        let find = |kind: &str, id: &str| -> Result<(Node, KeyPath), String> {
            let node = root.get(kind).and_then(|k| k.get(id));
            let path = KeyPath::root().child(kind).child(id);
            Ok((node.ok_or(format!("no {kind}"))?.clone(), path))
        };
        let (node, path) = find("receivers", RECEIVER)?;
        let receiver = FilelogSettings::decode(&node, &path, &mut errors);
        let (node, path) = find("exporters", EXPORTER)?;
        let exporter = {
            let mut section = Section::new(&node, path, &mut errors);
            let settings = LokiSettings::decode(&mut section);
            section.finish();
            settings
        };
        let (node, path) = find("processors", "batch")?;
        let batch = (tailwater_processors::batch::factory().decode)(&node, &path, &mut errors);
        let problems = || errors.to_string();
        Ok(Settings {
            receiver: receiver.ok_or_else(problems)?,
            exporter: exporter.ok_or_else(problems)?,
            batch: plan.batch.then_some(batch).flatten(),
        })
    }
}

/// Wakes a shard of the simulation.
#[derive(Default)]
pub struct SimWaker(AtomicBool);

impl Wake for SimWaker {
    fn wake(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A shard and when it runs again.
pub struct SimShard {
    /// The shard.
    pub shard: Shard,
    waker: Arc<SimWaker>,
    /// When it has something to do; `None` = when it is woken.
    pub next: Option<Mono>,
}

impl SimShard {
    /// True if it has something to do.
    pub fn is_ready(&self, now: Mono) -> bool {
        self.waker.0.load(Ordering::Acquire) || self.next.is_some_and(|at| at <= now)
    }

    /// Takes note of having been woken.
    pub fn wake(&mut self) {
        if self.waker.0.swap(false, Ordering::AcqRel) {
            self.shard.woken();
        }
    }
}

/// The one store of positions.
struct OneStorage(CheckpointHandle);

impl Storages for OneStorage {
    fn open(&self, _id: Option<&str>) -> Result<CheckpointHandle, BuildError> {
        Ok(self.0.clone())
    }
}

/// See the module's documentation.
pub struct Life {
    /// Finds files.
    pub driver: Driver,
    /// When it has something to do without news.
    pub driver_at: Mono,
    /// The shards.
    pub shards: Vec<SimShard>,
    /// Positions as the receiver sees them.
    pub positions: CheckpointHandle,
    /// Saves positions.
    pub store: WriterCore,
    /// When it wants to be called; `None` = when something is put.
    pub store_at: Option<Mono>,
    /// Something may have been put.
    pub store_news: bool,
    /// Says what to send.
    pub courier: Courier<Acks, dyn Judge<Acks>>,
    /// When it wants to be called.
    pub courier_at: Option<Mono>,
    /// Something may have been submitted or answered.
    pub courier_news: bool,
    /// Decides about answers.
    pub judge: Arc<dyn Judge<Acks>>,
    /// The exporter; the queue is in it.
    pub exporter: LokiExporter,
    /// The accounts of receiver and exporter.
    pub accounts: [Arc<Accounting>; 2],
}

fn open_store(fs: Arc<dyn Fs>, plan: &Plan, seed: u64) -> Result<CheckpointStore, CheckpointError> {
    let open = |read_errors| {
        let options = StoreOptions {
            read_errors,
            seed,
            log_bytes_min: plan.log_bytes_min,
            ..StoreOptions::default()
        };
        CheckpointStore::open(fs.clone(), Path::new(STATE_DIR), options)
    };
    // As the agent does: what cannot be read must not keep it from starting.
    let opened = match open(ReadErrors::Refuse) {
        Err(CheckpointError::Io {
            action: "open" | "read",
            ..
        }) => open(ReadErrors::TakeAsDamage),
        other => other,
    };
    opened.map(|(store, _)| store)
}

impl Life {
    /// Starts the agent.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn start(
        settings: &Settings,
        plan: &Plan,
        fs: &AgentFs,
        variant: &dyn Breaks,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Life, String> {
        let (clock, seed) = {
            let mut world = fs.world.lock();
            (world.clock.clone(), world.dice.lives.next_u64())
        };
        let clock: Arc<dyn Clock> = clock;
        let state = variant.state_fs(Arc::new(fs.clone()));
        let store = open_store(state, plan, seed).map_err(|e| e.to_string())?;
        let options = WriterOptions {
            interval: std::time::Duration::from_millis(250),
            ..WriterOptions::default()
        };
        let (store, positions) = WriterCore::new(store, options);
        let cx = NodeCx {
            id: RECEIVER.into(),
            pipeline: None,
            shards: plan.shards,
            clock: clock.clone(),
            seed,
            budget: Budget::new(BUDGET_BYTES),
            metrics: Arc::new(MetricsRegistry::default()),
            health: Arc::new(HealthRegistry::new()),
            runtime: runtime.clone(),
            storages: Arc::new(OneStorage(positions.clone())),
        };
        let logs = variant.log_fs(Arc::new(fs.clone()));
        let mut receiver = settings
            .receiver
            .node(&cx, logs)
            .map_err(|e| e.to_string())?;
        let parts = LokiParts {
            name: EXPORTER.into(),
            settings: settings.exporter.clone(),
            clock: clock.clone(),
            seed,
            runtime: runtime.clone(),
        };
        let mut exporter = LokiExporter::new(parts, &cx.metrics).map_err(|e| e.to_string())?;
        let account = |kind, id| Accounting::new(&cx.metrics, kind, id, DropReason::NAMES);
        let accounts = [account("receiver", RECEIVER), account("exporter", EXPORTER)];
        let mut shards = Vec::new();
        for index in 0..plan.shards {
            let waker = Arc::new(SimWaker::default());
            let handle = ShardHandle {
                index,
                waker: waker.clone(),
            };
            let mut shard = Shard::new(clock.clone());
            shard.add_exporter(Outlet {
                key: EXPORTER.into(),
                exporter: variant.exporter(exporter.front(&handle)),
                account: accounts[1].clone(),
            });
            shard.add_chain(chain(settings, &cx, variant)?);
            let source = receiver.source(&handle);
            shard.add_source(RECEIVER.into(), source, vec!["logs".into()]);
            shards.push(SimShard {
                shard,
                waker,
                next: Some(Mono(0)),
            });
        }
        let news = variant.news(Box::new(SimNews(fs.clone())));
        let driver = receiver.driver(news);
        let (delivery, judge) = exporter.sender();
        let judge = variant.judge(judge);
        let courier = delivery.courier(judge.clone());
        Ok(Life {
            driver,
            driver_at: Mono(0),
            shards,
            positions,
            store,
            store_at: Some(Mono(0)),
            store_news: true,
            courier,
            courier_at: Some(Mono(0)),
            courier_news: true,
            judge,
            exporter,
            accounts,
        })
    }

    /// The queue.
    pub fn delivery(&self) -> &Delivery<Acks> {
        self.exporter.sender().0
    }

    /// What does not add up.
    pub fn check_accounts(&self) -> Result<(), String> {
        let names = ["receiver", "exporter"];
        for (account, name) in self.accounts.iter().zip(names) {
            account
                .snapshot()
                .check()
                .map_err(|e| format!("{name}: {e}"))?;
        }
        Ok(())
    }
}

fn chain(settings: &Settings, cx: &NodeCx, variant: &dyn Breaks) -> Result<Chain, String> {
    let stage = |processor| Stage {
        processor,
        incoming: Arc::new(|_| {}),
        outgoing: Arc::new(|_| {}),
    };
    let cx = NodeCx {
        id: "batch".into(),
        pipeline: Some("logs".into()),
        ..cx.clone()
    };
    let mut processors = Vec::new();
    if let Some(batch) = &settings.batch {
        processors.push(stage(batch.build(&cx).map_err(|e| e.to_string())?));
    }
    processors.extend(variant.processor(&cx).map(stage));
    Ok(Chain {
        id: "logs".into(),
        processors,
        exporters: vec![EXPORTER.into()],
    })
}
