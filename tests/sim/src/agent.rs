//! One life of the agent: the production parts, built from a configuration, without their threads.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tailwater_config::{Errors, KeyPath, Node, Section, parse};
use tailwater_exporters::delivery::{Acks, Courier, Delivery, Judge};
use tailwater_exporters::loki::{LokiExporter, LokiParts, LokiSettings};
use tailwater_pdata::Signal;
use tailwater_pipeline::checkpoint::{
    CheckpointError, CheckpointHandle, CheckpointStore, ReadErrors, StoreOptions, WriterCore,
    WriterOptions,
};
use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_pipeline::factory::{NodeCx, ProcessorSettings};
use tailwater_pipeline::fs::Fs;
use tailwater_pipeline::handover::Outlet;
use tailwater_pipeline::lanes::{LANE_LABEL, Lane};
use tailwater_pipeline::shard::{Chain, Shard, Stage};
use tailwater_pipeline::storage::Storages;
use tailwater_pipeline::{
    Admission, Batch, Budget, BuildError, DropReason, Exporter, ExporterNode, Outcome,
    ReceiverNode, ShardHandle, Wake,
};
use tailwater_receivers::filelog::logfs::LogFs;
use tailwater_receivers::filelog::watch::{News, WatchEvent};
use tailwater_receivers::filelog::{Driver, FilelogNode, FilelogSettings};
use tailwater_telemetry::health::HealthRegistry;
use tailwater_telemetry::metrics::{Accounting, MetricsRegistry};

use crate::canary::Breaks;
use crate::plan::{Plan, Shape};
use crate::views::{AgentFs, SimNews};
use crate::world::STATE_DIR;

/// Memory for records under way.
const BUDGET_BYTES: usize = 4 << 20;
/// The receiver's id.
const RECEIVER: &str = "file_log";
/// The exporter's id.
const EXPORTER: &str = "loki";
/// The id of the second one.
const DOWN: &str = "loki/down";

/// A validated configuration; lives are built from it.
pub struct Settings {
    receiver: FilelogSettings,
    batch: Option<Box<dyn ProcessorSettings>>,
    exporter: LokiSettings,
    /// There is a lane to the second destination.
    second: bool,
}

impl Settings {
    /// Decodes the configuration of a plan in a shape, as the agent does.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(plan: &Plan, shape: &Shape) -> Result<Settings, String> {
        let root = parse(&plan.config(shape), "sim").map_err(|e| e.to_string())?;
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
            second: plan.second && !shape.alone,
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
    cx: NodeCx,
    /// Of the receiver: the node of each lane.
    nodes: (FilelogNode, Option<FilelogNode>),
    /// The lanes; none if the plan has one destination.
    lanes: Vec<Lane>,
    /// What the second destination has of each shard.
    down: Vec<Arc<Mutex<Vec<Batch>>>>,
    /// Told when nothing of a lane that went is under way, by each shard.
    leaving: Vec<Arc<AtomicBool>>,
    /// Finds files.
    pub driver: Driver,
    /// When it has something to do without news.
    pub driver_at: Mono,
    /// Finds files for the second destination, once it begins.
    pub second: Option<Driver>,
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
            signal: Some(Signal::Logs),
            shards: plan.shards,
            clock: clock.clone(),
            seed,
            budget: Budget::new(BUDGET_BYTES),
            metrics: Arc::new(MetricsRegistry::default()),
            health: Arc::new(HealthRegistry::new()),
            runtime: runtime.clone(),
            listeners: Default::default(),
            connections: Default::default(),
            storages: Arc::new(OneStorage(positions.clone())),
            authenticators: Default::default(),
            agent: None,
        };
        let lanes = lanes(settings, plan, &cx, &[]);
        let readings = readings(settings, &lanes, &cx, fs, variant);
        let (mut receiver, mut second) = readings.map_err(|e| e.to_string())?;
        receiver.arrange().map_err(|e| e.to_string())?;
        let metrics = lanes.first().map_or(&cx.metrics, |l| &l.metrics).clone();
        let parts = LokiParts {
            name: EXPORTER.into(),
            settings: settings.exporter.clone(),
            clock: clock.clone(),
            seed,
            runtime: runtime.clone(),
            authenticators: Default::default(),
            connections: Default::default(),
            queue_dir: None,
        };
        let mut exporter = LokiExporter::new(parts, &cx.metrics).map_err(|e| e.to_string())?;
        let account = |of, kind, id| Accounting::new(of, kind, id, DropReason::NAMES);
        let accounts = [
            account(&metrics, "receiver", RECEIVER),
            account(&cx.metrics, "exporter", EXPORTER),
        ];
        let (mut shards, mut down) = (Vec::new(), Vec::new());
        for index in 0..plan.shards {
            let waker = Arc::new(SimWaker::default());
            let handle = ShardHandle {
                index,
                waker: waker.clone(),
            };
            let mut shard = Shard::new(clock.clone());
            shard.add_exporter(Outlet {
                key: EXPORTER.into(),
                signal: Signal::Logs,
                exporter: variant.exporter(exporter.front(&handle)),
                account: accounts[1].clone(),
                gate: None,
            });
            shard.add_chain(chain(settings, &cx, variant)?);
            let source = receiver.source(&handle);
            shard.add_source(RECEIVER.into(), source, vec!["logs".into()]);
            if plan.second {
                let has = Arc::<Mutex<Vec<Batch>>>::default();
                down.push(has.clone());
                shard.add_exporter(Outlet {
                    key: DOWN.into(),
                    signal: Signal::Logs,
                    exporter: Box::new(Down(has)),
                    account: account(&cx.metrics, "exporter", DOWN),
                    gate: None,
                });
                shard.add_chain(Chain {
                    id: DOWN.into(),
                    pipeline: DOWN.into(),
                    signal: Signal::Logs,
                    processors: Vec::new(),
                    exporters: vec![DOWN.into()],
                });
            }
            if let Some(second) = &mut second {
                shard.add_source(DOWN.into(), second.source(&handle), vec![DOWN.into()]);
            }
            shards.push(SimShard {
                shard,
                waker,
                next: Some(Mono(0)),
            });
        }
        let news = variant.news(Box::new(SimNews(fs.clone())));
        let driver = receiver.driver(news);
        let beside = second.as_mut().map(|node| node.driver(Box::new(NoNews)));
        let (delivery, judge) = exporter.sender();
        let judge = variant.judge(judge);
        let courier = delivery.courier(judge.clone());
        Ok(Life {
            cx,
            nodes: (receiver, second),
            lanes,
            down,
            leaving: Vec::new(),
            driver,
            driver_at: Mono(0),
            second: beside,
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

    /// Other settings come into force while it runs.
    ///
    /// # Errors
    /// They cannot be built.
    pub fn reload(
        &mut self,
        settings: &Settings,
        plan: &Plan,
        fs: &AgentFs,
        variant: &dyn Breaks,
    ) -> Result<(), String> {
        let lanes = lanes(settings, plan, &self.cx, &self.lanes);
        let next = readings(settings, &lanes, &self.cx, fs, variant);
        let (receiver, second) = next.map_err(|e| e.to_string())?;
        self.lanes = lanes;
        self.driver.take_over(self.nodes.0.update(receiver));
        self.driver_at = Mono(0);
        match (self.nodes.1.as_mut(), second) {
            (Some(node), Some(next)) => {
                let update = node.update(next);
                if let Some(driver) = &mut self.second {
                    driver.take_over(update);
                }
            }
            (Some(_), None) => self.retire_second(),
            (None, Some(mut node)) => {
                for (index, s) in self.shards.iter_mut().enumerate() {
                    let waker = s.waker.clone();
                    let source = node.source(&ShardHandle { index, waker });
                    s.shard.add_source(DOWN.into(), source, vec![DOWN.into()]);
                }
                self.nodes.1 = Some(node);
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// The second destination gives back what it has, and its lane goes.
    fn retire_second(&mut self) {
        (self.nodes.1, self.second) = (None, None);
        for (s, has) in self.shards.iter_mut().zip(&self.down) {
            let done = Arc::new(AtomicBool::new(false));
            self.leaving.push(done.clone());
            s.shard.retire(DOWN, done);
            s.next = Some(Mono(0));
            let has = std::mem::take(&mut *has.lock().unwrap_or_else(PoisonError::into_inner));
            for part in has.into_iter().flat_map(Batch::into_logs) {
                part.ack.resolve(Outcome::Retry);
            }
        }
    }

    /// The second lane's driver has a turn. It begins when nothing of those before it is under way.
    pub fn turn_second(&mut self, now: Mono) {
        self.leaving.retain(|done| !done.load(Ordering::Acquire));
        if self.second.is_none()
            && self.leaving.is_empty()
            && let Some(node) = &mut self.nodes.1
            && node.arrange().is_ok()
        {
            self.second = Some(node.driver(Box::new(NoNews)));
        }
        if let Some(second) = &mut self.second {
            second.turn(now);
        }
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

/// The lanes that there are to be, those of `running` as they are; none if the plan has one destination.
fn lanes(settings: &Settings, plan: &Plan, cx: &NodeCx, running: &[Lane]) -> Vec<Lane> {
    let exporters: &[&str] = match (plan.second, settings.second) {
        (false, _) => &[],
        (true, true) => &[EXPORTER, DOWN],
        (true, false) => &[EXPORTER],
    };
    let alone = exporters.len() == 1;
    let lane = |exporter: &&str| {
        let runs = running.iter().find(|l| *l.exporter == **exporter);
        runs.cloned().unwrap_or_else(|| Lane {
            exporter: (*exporter).into(),
            metrics: match alone {
                true => cx.metrics.clone(),
                false => Arc::new(cx.metrics.scoped(LANE_LABEL, exporter)),
            },
            budget: cx.budget.part_of(2),
            alone,
            signals: vec![Signal::Logs],
        })
    };
    exporters.iter().map(lane).collect()
}

/// The nodes of the receiver: for the destination that is judged, and for the second one.
type Readings = (FilelogNode, Option<FilelogNode>);

fn readings(
    settings: &Settings,
    lanes: &[Lane],
    cx: &NodeCx,
    fs: &AgentFs,
    variant: &dyn Breaks,
) -> Result<Readings, BuildError> {
    let logs = variant.log_fs(Arc::new(fs.clone()));
    if lanes.is_empty() {
        return Ok((settings.receiver.node(cx, logs)?, None));
    }
    let beside: Arc<dyn LogFs> = Arc::new(AgentFs {
        keeps: false,
        ..fs.clone()
    });
    let fs_of = |lane: &Lane| match &*lane.exporter {
        EXPORTER => logs.clone(),
        _ => beside.clone(),
    };
    let mut nodes = settings.receiver.nodes(cx, lanes, &fs_of)?.into_iter();
    let node = nodes.next();
    let node = node.ok_or_else(|| BuildError::new(RECEIVER, "it has no node".to_owned()))?;
    Ok((node, nodes.next()))
}

/// A destination that takes some and answers nothing.
struct Down(Arc<Mutex<Vec<Batch>>>);

impl Down {
    fn has(&self) -> MutexGuard<'_, Vec<Batch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exporter for Down {
    fn export(&mut self, batch: Batch, _now: Mono) {
        self.has().push(batch);
    }

    fn admission(&self) -> Admission {
        match self.has().len() {
            0..4 => Admission::Open,
            _ => Admission::Closed,
        }
    }
}

/// Complete looks find everything.
struct NoNews;

impl News for NoNews {
    fn follow(&mut self, _dirs: &BTreeSet<PathBuf>) {}

    fn is_polling(&self) -> bool {
        false
    }

    fn why_polling(&self) -> &str {
        ""
    }

    fn wait(&mut self, _timeout: Duration) -> std::io::Result<Vec<WatchEvent>> {
        Ok(Vec::new())
    }
}

fn chain(settings: &Settings, cx: &NodeCx, variant: &dyn Breaks) -> Result<Chain, String> {
    let stage = |processor| Stage {
        id: "stage".into(),
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
        pipeline: "logs".into(),
        signal: Signal::Logs,
        processors,
        exporters: vec![EXPORTER.into()],
    })
}
