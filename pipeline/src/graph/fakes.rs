//! Components for tests of the graph: receivers that have numbered items and remember up to where they
//! were accepted, processors that hold back, exporters that accept when they are told to.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tailwater_config::{Errors, Node, ProcessEnvironment, Source as ConfigSource, load};
use tailwater_pdata::{LogsBatch, Signal, ValueRef};
use tailwater_telemetry::health::HealthRegistry;
use tailwater_telemetry::metrics::MetricsRegistry;

use super::{Graph, Resolved, resolve};
use crate::ack::{AckSink, AckWindow, Counts, Front, Outcome};
use crate::batch::{Batch, LogsPart};
use crate::budget::{Budget, Permit};
use crate::checkpoint::CheckpointHandle;
use crate::clock::{Clock, Mono, SystemClock};
use crate::component::*;
use crate::factory::*;
use crate::lanes::Lane;
use crate::reach::Reach;
use crate::storage::Storages;

/// Shards of the graphs.
pub const SHARDS: usize = 2;
/// A receiver, what number an item of it has.
pub type Item = (String, u64);

/// Everything that the components of one test share. Settings name it by number.
#[derive(Default)]
pub struct World {
    number: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Items that each receiver has.
    given: BTreeMap<String, u64>,
    /// By receiver, exporter and shard: what was accepted.
    positions: BTreeMap<(String, String, usize), u64>,
    arrived: Vec<(String, Item)>,
    /// Exporters that accept nothing.
    holding: BTreeSet<String>,
    /// What cannot be started or acquired.
    broken: BTreeSet<String>,
    /// Each build, start and stop, as a word and an id.
    log: Vec<String>,
    wakers: Vec<Arc<dyn Wake>>,
    queues: Vec<Arc<Queue>>,
    /// Sources that were made, by receiver and exporter.
    sources: BTreeMap<(String, String), usize>,
}

static WORLDS: Mutex<Vec<Arc<World>>> = Mutex::new(Vec::new());

impl World {
    pub fn new() -> Arc<World> {
        let mut worlds = WORLDS.lock().unwrap();
        let number = worlds.len() as u64;
        let world = Arc::new(World {
            number,
            ..World::default()
        });
        worlds.push(world.clone());
        world
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Gives a receiver `n` more items.
    pub fn give(&self, receiver: &str, n: u64) {
        let mut state = self.state();
        *state.given.entry(receiver.into()).or_default() += n;
        state.wakers.iter().for_each(|w| w.wake());
    }

    pub fn given(&self, receiver: &str) -> u64 {
        self.state().given.get(receiver).copied().unwrap_or(0)
    }

    /// How often the shards got sources of the lane from `receiver` to `exporter`.
    pub fn began(&self, receiver: &str, exporter: &str) -> usize {
        let lane = (receiver.to_owned(), exporter.to_owned());
        let sources = self.state().sources.get(&lane).copied();
        sources.unwrap_or(0) / SHARDS
    }

    /// What arrived at `exporter`, in order.
    pub fn arrived(&self, exporter: &str) -> Vec<Item> {
        let state = self.state();
        let of = state.arrived.iter().filter(|(e, _)| e == exporter);
        of.map(|(_, item)| item.clone()).collect()
    }

    /// Batches that `exporter` has and has not accepted.
    pub fn waiting(&self, exporter: &str) -> usize {
        let queues = self.state().queues.clone();
        let of = queues.iter().filter(|q| q.id == exporter);
        of.map(|q| q.waiting.lock().unwrap().1.len()).sum()
    }

    pub fn hold(&self, exporter: &str) {
        self.state().holding.insert(exporter.into());
    }

    /// Accepts what was held, and what comes.
    pub fn accept(&self, exporter: &str) {
        self.state().holding.remove(exporter);
        let queues = self.state().queues.clone();
        queues.iter().for_each(|q| q.pump(self));
        self.state().wakers.iter().for_each(|w| w.wake());
    }

    pub fn set_broken(&self, id: &str, broken: bool) {
        match broken {
            true => self.state().broken.insert(id.into()),
            false => self.state().broken.remove(id),
        };
    }

    fn try_it(&self, what: &str, id: &str) -> Result<(), BuildError> {
        let mut state = self.state();
        state.log.push(format!("{what} {id}"));
        match state.broken.contains(id) {
            true => Err(BuildError::new(id, "broken")),
            false => Ok(()),
        }
    }

    /// What happened since the last call.
    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }

    /// A configuration from YAML in which `W` is this world.
    pub fn config(&self, yaml: &str) -> Resolved {
        let yaml = yaml.replace("W", &format!("w{}", self.number));
        let source = ConfigSource::parse(&format!("yaml:{yaml}")).unwrap();
        let mut errors = Errors::new();
        let loaded = load(&[source], &[], &ProcessEnvironment, &mut errors);
        let resolved = loaded.and_then(|l| resolve(&l.file, &registry(), &mut errors));
        resolved.unwrap_or_else(|| panic!("{yaml}\n{:?}", errors.iter().collect::<Vec<_>>()))
    }
}

fn world_of(node: &Node) -> Arc<World> {
    let number = node.get("world").and_then(Node::as_text).unwrap();
    WORLDS.lock().unwrap()[number[1..].parse::<usize>().unwrap()].clone()
}

fn text(node: &Node, key: &str) -> String {
    node.get(key).and_then(Node::as_text).unwrap_or("").into()
}

pub fn registry() -> Registry {
    const SIGNALS: &[&str] = &["logs"];
    Registry {
        receivers: vec![Factory {
            kind: "feed",
            about: "",
            signals: SIGNALS,
            decode: |node, _, _| {
                Some(Box::new(FeedSettings {
                    world: world_of(node),
                    how: text(node, "how"),
                }))
            },
        }],
        processors: vec![Factory {
            kind: "keep",
            about: "",
            signals: SIGNALS,
            decode: |node, _, _| Some(Box::new(KeepSettings(world_of(node)))),
        }],
        exporters: vec![Factory {
            kind: "sink",
            about: "",
            signals: SIGNALS,
            decode: |node, _, _| Some(Box::new(SinkSettings(world_of(node)))),
        }],
        connectors: vec![Factory {
            kind: "forward",
            about: "",
            signals: &["logs", "traces"],
            decode: |_, _, _| Some(Box::new(ForwardSettings)),
        }],
        extensions: vec![Factory {
            kind: "aside",
            about: "",
            signals: &[],
            decode: |node, _, _| Some(Box::new(AsideSettings(world_of(node)))),
        }],
    }
}

struct ForwardSettings;

impl ConnectorSettings for ForwardSettings {}

struct NoStorages;

impl Storages for NoStorages {
    fn open(&self, _: Option<&str>) -> Result<CheckpointHandle, BuildError> {
        Err(BuildError::new("storage", "none"))
    }
}

/// A graph without nodes, and what keeps its runtime alive.
pub fn graph() -> (Graph, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let cx = NodeCx {
        id: "".into(),
        pipeline: None,
        signal: None,
        shards: SHARDS,
        clock: Arc::new(SystemClock::default()),
        seed: 1,
        budget: Budget::new(1 << 20),
        metrics: Arc::new(MetricsRegistry::default()),
        health: Arc::new(HealthRegistry::new()),
        runtime: runtime.handle().clone(),
        listeners: Default::default(),
        connections: Default::default(),
        storages: Arc::new(NoStorages),
        authenticators: Default::default(),
        agent: None,
    };
    (Graph::new(cx).unwrap(), runtime)
}

/// Waits, with the graph going on, at most 20 s.
pub fn until(graph: &mut Graph, mut true_is: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(20) {
        graph.tick();
        if true_is() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

struct FeedSettings {
    world: Arc<World>,
    how: String,
}

impl ReceiverSettings for FeedSettings {
    fn build(&self, cx: &NodeCx, lanes: &[Lane]) -> Result<Vec<Box<dyn ReceiverNode>>, BuildError> {
        self.world.try_it("build", &cx.id)?;
        let node = |lane: &Lane| FeedNode {
            world: self.world.clone(),
            receiver: cx.id.to_string(),
            exporter: lane.exporter.to_string(),
            started: Arc::default(),
        };
        Ok(lanes.iter().map(|l| Box::new(node(l)) as _).collect())
    }

    fn reach(&self, _: &mut Reach) {}

    fn succession(&self, _: &dyn ReceiverSettings) -> Succession {
        match &*self.how {
            "replace" | "pushed" => Succession::Replace,
            "restart" => Succession::Restart("it cannot".into()),
            _ => Succession::InPlace,
        }
    }

    fn takes_in_again(&self) -> bool {
        self.how != "pushed"
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct FeedNode {
    world: Arc<World>,
    receiver: String,
    exporter: String,
    started: Arc<AtomicU64>,
}

impl ReceiverNode for FeedNode {
    fn source(&mut self, shard: &ShardHandle) -> Box<dyn Source> {
        let mut state = self.world.state();
        state.wakers.push(shard.waker.clone());
        let lane = (self.receiver.clone(), self.exporter.clone());
        *state.sources.entry(lane).or_default() += 1;
        Box::new(Feed {
            world: self.world.clone(),
            receiver: self.receiver.clone(),
            exporter: self.exporter.clone(),
            shard: shard.index,
            started: self.started.clone(),
            next: None,
            accepted: 0,
            window: AckWindow::new(Arc::new(Waking(shard.waker.clone())), 0),
        })
    }

    fn acquire(&mut self) -> Result<(), BuildError> {
        self.world.try_it("acquire", &self.receiver)
    }

    fn start(&mut self) -> Result<(), BuildError> {
        self.world.try_it("start", &self.receiver)?;
        self.started.store(1, Ordering::SeqCst);
        self.world.state().wakers.iter().for_each(|w| w.wake());
        Ok(())
    }

    fn take_over(&mut self, next: Box<dyn ReceiverNode>) {
        assert!(next.into_any().is::<FeedNode>());
        let text = format!("update {}", self.receiver);
        self.world.state().log.push(text);
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn stop(&mut self) {
        self.started.store(0, Ordering::SeqCst);
    }
}

struct Waking(Arc<dyn Wake>);

impl AckSink for Waking {
    fn settled(&self, _: u64, _: Outcome, _: &Counts) {
        self.0.wake();
    }
}

/// Reads the items whose number belongs to its shard.
struct Feed {
    world: Arc<World>,
    receiver: String,
    exporter: String,
    shard: usize,
    started: Arc<AtomicU64>,
    /// Index among its items; none before the first turn.
    next: Option<u64>,
    accepted: u64,
    window: AckWindow<u64>,
}

impl Feed {
    fn key(&self) -> (String, String, usize) {
        (self.receiver.clone(), self.exporter.clone(), self.shard)
    }

    fn take_settled(&mut self) {
        let accepted = &mut self.accepted;
        let front = self.window.advance(|s| *accepted = s.position);
        if let Front::Rewind(_) = front {
            self.window.clear();
            self.next = Some(self.accepted);
        }
        if self.next.is_some() {
            self.world
                .state()
                .positions
                .insert(self.key(), self.accepted);
        }
    }
}

impl Source for Feed {
    fn poll(&mut self, cx: &mut dyn SourceCx) -> Progress {
        if self.started.load(Ordering::SeqCst) == 0 {
            return Progress::Idle(None);
        }
        if self.next.is_none() {
            let known = self.world.state().positions.get(&self.key()).copied();
            (self.next, self.accepted) = (Some(known.unwrap_or(0)), known.unwrap_or(0));
        }
        self.take_settled();
        let next = self.next.unwrap();
        let number = next * SHARDS as u64 + self.shard as u64;
        let room = cx.admission() == Admission::Open && self.window.len() < 4;
        if !room || number >= self.world.given(&self.receiver) {
            return Progress::Idle(None);
        }
        let line = format!("{} {number}", self.receiver);
        let logs = LogsBatch::from_lines(Bytes::from(line.clone()), &[(0, line.len() as u32)]);
        let ack = self.window.reserve(next + 1, 1, 1);
        self.next = Some(next + 1);
        let permit = Permit::none();
        cx.emit(Batch::of(LogsPart { logs, ack, permit }));
        Progress::Busy
    }

    fn drain(&mut self, _: &mut dyn SourceCx) -> bool {
        self.take_settled();
        self.window.is_empty()
    }
}

struct KeepSettings(Arc<World>);

impl ProcessorSettings for KeepSettings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn Processor>, BuildError> {
        self.0.try_it("build", &cx.id)?;
        let clock = cx.clock.clone();
        Ok(Box::new(Keep {
            kept: Vec::new(),
            since: None,
            clock,
        }))
    }
}

/// Passes on three batches at a time, or what it has after 5 ms.
struct Keep {
    kept: Vec<Batch>,
    since: Option<Mono>,
    clock: Arc<dyn Clock>,
}

impl Processor for Keep {
    fn process(&mut self, batch: Batch, out: &mut dyn Output) {
        self.kept.push(batch);
        self.since.get_or_insert(self.clock.now());
        if self.kept.len() >= 3 {
            self.flush(out);
        }
    }
    fn deadline(&self) -> Option<Mono> {
        self.since.map(|t| t.after(Duration::from_millis(5)))
    }
    fn tick(&mut self, out: &mut dyn Output) {
        self.flush(out);
    }
    fn flush(&mut self, out: &mut dyn Output) {
        self.since = None;
        self.kept.drain(..).for_each(|b| out.emit(b));
    }
}

struct SinkSettings(Arc<World>);

impl ExporterSettings for SinkSettings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn ExporterNode>, BuildError> {
        self.0.try_it("build", &cx.id)?;
        assert_eq!(cx.signal, Some(Signal::Logs));
        let queue = Arc::new(Queue {
            id: cx.id.to_string(),
            waiting: Mutex::default(),
        });
        self.0.state().queues.push(queue.clone());
        Ok(Box::new(SinkNode {
            world: self.0.clone(),
            queue,
        }))
    }

    fn reach(&self, _: &mut Reach) {}
}

/// What waits in an exporter; none while it does not run.
struct Queue {
    id: String,
    waiting: Mutex<(bool, Vec<Batch>)>,
}

impl Queue {
    fn pump(&self, world: &World) {
        let mut waiting = self.waiting.lock().unwrap();
        let held = world.state().holding.contains(&self.id);
        if !waiting.0 || held {
            return;
        }
        for batch in waiting.1.drain(..) {
            for part in batch.into_logs() {
                let Some(ValueRef::Str(body)) = part.logs.body(0) else {
                    panic!("an item has text");
                };
                let body = std::str::from_utf8(body).unwrap().to_owned();
                let (receiver, number) = body.split_once(' ').unwrap();
                let item = (receiver.to_owned(), number.parse().unwrap());
                world.state().arrived.push((self.id.clone(), item));
                part.ack.resolve(Outcome::Delivered);
            }
        }
    }
}

struct SinkNode {
    world: Arc<World>,
    queue: Arc<Queue>,
}

impl ExporterNode for SinkNode {
    fn front(&mut self, _: &ShardHandle) -> Box<dyn Exporter> {
        Box::new(SinkFront {
            world: self.world.clone(),
            queue: self.queue.clone(),
        })
    }

    fn start(&mut self) -> Result<(), BuildError> {
        self.world.try_it("start", &self.queue.id)?;
        self.queue.waiting.lock().unwrap().0 = true;
        self.queue.pump(&self.world);
        Ok(())
    }

    fn stalled_for(&self) -> Duration {
        match self.queue.waiting.lock().unwrap().1.is_empty() {
            true => Duration::ZERO,
            false => Duration::from_secs(60),
        }
    }

    fn stop(&mut self, _: Mono) -> u64 {
        self.queue.pump(&self.world);
        let mut waiting = self.queue.waiting.lock().unwrap();
        waiting.0 = false;
        let mut left = 0;
        for part in waiting.1.drain(..).flat_map(Batch::into_logs) {
            left += 1;
            part.ack.resolve(Outcome::Retry);
        }
        self.world
            .state()
            .log
            .push(format!("stop {}", self.queue.id));
        left
    }
}

struct SinkFront {
    world: Arc<World>,
    queue: Arc<Queue>,
}

impl Exporter for SinkFront {
    fn export(&mut self, batch: Batch, _: Mono) {
        self.queue.waiting.lock().unwrap().1.push(batch);
        self.queue.pump(&self.world);
    }

    fn admission(&self) -> Admission {
        match self.queue.waiting.lock().unwrap().1.len() < 8 {
            true => Admission::Open,
            false => Admission::Closed,
        }
    }
}

struct AsideSettings(Arc<World>);

impl ExtensionSettings for AsideSettings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn ExtensionNode>, BuildError> {
        self.0.try_it("build", &cx.id)?;
        Ok(Box::new(Aside(self.0.clone(), cx.id.to_string())))
    }
    fn reach(&self, _: &mut Reach) {}
}

struct Aside(Arc<World>, String);

impl ExtensionNode for Aside {
    fn start(&mut self) -> Result<(), BuildError> {
        self.0.try_it("start", &self.1)
    }
    fn stop(&mut self) {
        self.0.state().log.push(format!("stop {}", self.1));
    }
}
