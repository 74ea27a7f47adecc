//! The running graph: validated settings become nodes, nodes become chains in shards.
//!
//! `resolve` (decode everything, all mistakes at once) -> [`plan`](crate::plan::plan) ->
//! [`Graph::prepare`] (build beside, nothing spawned) -> [`Graph::commit`] (start, then swap at a batch
//! boundary, then let go of what went). A failure before the swap drops the new parts; there is no
//! restore path. The first start is the same from a graph without nodes.

mod resolve;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tailwater_pdata::Signal;
use tailwater_telemetry::metrics::{Accounting, EngineMetrics, ProcessorMetrics};

pub use self::resolve::{Resolved, resolve};
use crate::ack::DropReason;
use crate::auth::{Authenticator, Authenticators};
use crate::budget::Budget;
use crate::clock::{Clock, Mono};
use crate::component::{BuildError, ExporterNode, ExtensionNode, ReceiverNode};
use crate::factory::NodeCx;
use crate::handover::{Gate, Outlet};
use crate::lanes::{Lane, Wiring, lanes};
use crate::plan::{Change, GraphSpec, NodeKey, Plan, plan};
use crate::shard::{NextChain, NextStage, ShardThread, Stage, Swap};

/// How long a receiver that goes is waited for until what it read is delivered. After that its
/// successor reads it again.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// The same for an exporter that goes; and if nothing was accepted lately, so that nobody waits for a
/// destination that may be the reason for the change.
const RETIRE_MAX: Duration = Duration::from_secs(10);
const RETIRE_STALLED_MAX: Duration = Duration::from_secs(1);
/// How often it is looked whether something is done.
const LOOK: Duration = Duration::from_millis(5);

/// The running graph and its shards.
pub struct Graph {
    cx: NodeCx,
    engine: Arc<EngineMetrics>,
    shards: Vec<ShardThread>,
    receivers: Vec<Reading>,
    exporters: Vec<Sending>,
    extensions: Vec<(String, Box<dyn ExtensionNode>)>,
    parts: BTreeMap<String, Arc<Budget>>,
    pipelines: Vec<Wiring>,
    spec: GraphSpec,
    generation: u64,
    retiring: Vec<Retiring>,
}

/// A receiver's node in one lane.
struct Reading {
    id: String,
    lane: Lane,
    /// Ids of the chains it feeds.
    feeds: Vec<Arc<str>>,
    node: Box<dyn ReceiverNode>,
}

/// An exporter's node for one signal.
struct Sending {
    id: String,
    signal: Signal,
    node: Box<dyn ExporterNode>,
}

/// New parts, built but not started, and what stays.
pub struct Prepared {
    receivers: Vec<Reading>,
    exporters: Vec<Sending>,
    extensions: Vec<(String, Box<dyn ExtensionNode>)>,
    /// Per shard: its chains.
    chains: Vec<Vec<NextChain>>,
    /// Of the lanes of receivers that stay, by name: the chains they feed.
    feeds: Vec<(Arc<str>, Vec<Arc<str>>)>,
    /// Ids of the receivers, and of the extensions, that stay.
    receivers_kept: BTreeSet<String>,
    extensions_kept: BTreeSet<String>,
    exporters_kept: BTreeSet<(String, Signal)>,
    /// Memory of each destination.
    parts: BTreeMap<String, Arc<Budget>>,
    pipelines: Vec<Wiring>,
    spec: GraphSpec,
    /// The generation it was prepared for.
    base: u64,
    /// What changes.
    pub plan: Plan,
}

/// An exporter that goes, until it is done.
struct Retiring {
    thread: JoinHandle<u64>,
}

/// How a stop went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StopReport {
    /// Records that were under way when the deadline passed. They are read again at the next start.
    pub undelivered_records: u64,
    /// Everything was delivered in time.
    pub clean: bool,
}

impl Graph {
    /// A graph without nodes, and its shards.
    pub fn new(cx: NodeCx) -> std::io::Result<Graph> {
        let engine = EngineMetrics::new(&cx.metrics);
        let spawn = |i| ShardThread::spawn(i, cx.clock.clone(), engine.clone(), &cx.health);
        let shards = (0..cx.shards.max(1))
            .map(spawn)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Graph {
            cx,
            engine,
            shards,
            receivers: Vec::new(),
            exporters: Vec::new(),
            extensions: Vec::new(),
            parts: BTreeMap::new(),
            pipelines: Vec::new(),
            spec: GraphSpec::default(),
            generation: 0,
            retiring: Vec::new(),
        })
    }

    /// Number of the configuration in force, from 1; 0 = none yet.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Exporters, and for how long each has had something to send while nothing was accepted.
    pub fn exporters_stalled(&self) -> impl Iterator<Item = (&str, Duration)> {
        self.exporters
            .iter()
            .map(|e| (e.id.as_str(), e.node.stalled_for()))
    }

    /// Ids of the receivers that run, once for each of their lanes.
    pub fn receivers(&self) -> impl Iterator<Item = (&str, &Lane)> {
        self.receivers.iter().map(|r| (r.id.as_str(), &r.lane))
    }

    fn cx_of(&self, id: &str, pipeline: Option<&str>) -> NodeCx {
        NodeCx {
            id: id.into(),
            pipeline: pipeline.map(Arc::from),
            signal: None,
            ..self.cx.clone()
        }
    }

    /// Builds what `wanted` needs and does not run yet, beside whatever runs. Nothing is spawned or
    /// stopped.
    ///
    /// # Errors
    /// A node cannot be built; what was built is dropped.
    pub fn prepare(&self, wanted: &Resolved) -> Result<Prepared, BuildError> {
        let plan = plan(&self.spec, &wanted.spec, &|_, _, _| false);
        let stays = |key: &NodeKey| plan.change(key) == Some(Change::Keep);
        let mut p = Prepared {
            receivers: Vec::new(),
            exporters: Vec::new(),
            extensions: Vec::new(),
            chains: Vec::new(),
            feeds: Vec::new(),
            receivers_kept: BTreeSet::new(),
            extensions_kept: BTreeSet::new(),
            exporters_kept: BTreeSet::new(),
            parts: self.parts_of(&wanted.pipelines),
            pipelines: wanted.pipelines.clone(),
            spec: wanted.spec.clone(),
            base: self.generation,
            plan: plan.clone(),
        };
        for (id, settings) in &wanted.extensions {
            if stays(&NodeKey::Extension(id.clone())) {
                p.extensions_kept.insert(id.clone());
            } else {
                let node = settings.build(&self.cx_of(id, None))?;
                p.extensions.push((id.clone(), node));
            }
        }
        let authenticators = self.authenticators(&p);
        self.prepare_exporters(wanted, &stays, &authenticators, &mut p)?;
        for _ in &self.shards {
            let ends = |w| Wiring::ends(w).map(move |exporter| (w, exporter));
            let ends = wanted.pipelines.iter().flat_map(ends);
            let chains = ends.map(|(w, exporter)| self.chain(w, exporter, wanted));
            p.chains.push(chains.collect::<Result<_, _>>()?);
        }
        self.prepare_receivers(wanted, &authenticators, &mut p)?;
        Ok(p)
    }

    /// The part of the memory of each destination of `pipelines`.
    fn parts_of(&self, pipelines: &[Wiring]) -> BTreeMap<String, Arc<Budget>> {
        let ids: BTreeSet<&String> = pipelines.iter().flat_map(|w| &w.exporters).collect();
        let new = || self.cx.budget.part_of(ids.len());
        let part = |id: &&String| self.parts.get(*id).cloned().unwrap_or_else(new);
        ids.iter().map(|id| ((*id).clone(), part(id))).collect()
    }

    /// What the extensions of the next generation offer.
    fn authenticators(&self, p: &Prepared) -> Authenticators {
        let offer = |(id, e): &(String, Box<dyn ExtensionNode>)| -> Option<(String, Authenticator)> {
            Some((id.clone(), e.authenticator()?))
        };
        let kept = self.extensions.iter();
        let kept = kept.filter(|(id, _)| p.extensions_kept.contains(id));
        kept.chain(&p.extensions).filter_map(offer).collect()
    }

    fn prepare_exporters(
        &self,
        wanted: &Resolved,
        stays: &dyn Fn(&NodeKey) -> bool,
        authenticators: &Authenticators,
        p: &mut Prepared,
    ) -> Result<(), BuildError> {
        let ends = wanted.pipelines.iter();
        let ends: BTreeSet<(&String, Signal)> = ends
            .flat_map(|w| w.exporters.iter().map(|id| (id, w.signal)))
            .collect();
        for (id, signal) in ends {
            let key = NodeKey::Exporter {
                id: id.clone(),
                signal: signal.as_str().to_owned(),
            };
            if stays(&key) {
                p.exporters_kept.insert((id.clone(), signal));
            } else if let Some(settings) = wanted.exporters.get(id) {
                let cx = NodeCx {
                    signal: Some(signal),
                    authenticators: authenticators.clone(),
                    ..self.cx_of(id, None)
                };
                p.exporters.push(Sending {
                    id: id.clone(),
                    signal,
                    node: settings.build(&cx)?,
                });
            }
        }
        Ok(())
    }

    /// A receiver stays if its settings do and it has the same lanes.
    fn prepare_receivers(
        &self,
        wanted: &Resolved,
        authenticators: &Authenticators,
        p: &mut Prepared,
    ) -> Result<(), BuildError> {
        let named = wanted.pipelines.iter().flat_map(|w| &w.receivers);
        for id in named.collect::<BTreeSet<_>>() {
            let Some(settings) = wanted.receivers.get(id) else {
                continue;
            };
            let part = |exporter: &str| p.parts.get(exporter).unwrap_or(&self.cx.budget).clone();
            let (lanes, feeds): (Vec<Lane>, Vec<_>) =
                lanes(id, &wanted.pipelines, &self.cx.metrics, part)
                    .into_iter()
                    .unzip();
            if self.runs_as_it_is(id, &lanes, &wanted.spec) {
                p.receivers_kept.insert(id.clone());
                let names = lanes.iter().map(|lane| Arc::from(lane.name(id)));
                p.feeds.extend(names.zip(feeds));
                continue;
            }
            let cx = NodeCx {
                authenticators: authenticators.clone(),
                ..self.cx_of(id, None)
            };
            let nodes = settings.build(&cx, &lanes)?;
            let readings = lanes.into_iter().zip(feeds).zip(nodes);
            p.receivers.extend(readings.map(|((lane, feeds), node)| Reading {
                id: id.clone(),
                lane,
                feeds,
                node,
            }));
        }
        Ok(())
    }

    /// Whether the receiver `id` runs with the same settings and lanes.
    fn runs_as_it_is(&self, id: &str, lanes: &[Lane], wanted: &GraphSpec) -> bool {
        let running = self.receivers.iter().filter(|r| r.id == id);
        let same_lanes = running.clone().count() == lanes.len()
            && running.zip(lanes).all(|(r, lane)| r.lane.is_like(lane));
        let settings = |spec: &GraphSpec| {
            let of = |(key, _): &(&NodeKey, _)| {
                matches!(key, NodeKey::Receiver { id: other, .. } if other == id)
            };
            let node = spec.nodes.iter().find(of);
            node.map(|(_, n)| n.settings.clone())
        };
        same_lanes && settings(&self.spec) == settings(wanted)
    }

    /// The chain of a pipeline that ends in `exporter`: of a chain that runs already, the processors
    /// with the same settings stay.
    fn chain(&self, w: &Wiring, exporter: &str, wanted: &Resolved) -> Result<NextChain, BuildError> {
        let cx = |id| NodeCx {
            metrics: w.metrics(exporter, &self.cx.metrics),
            signal: Some(w.signal),
            ..self.cx_of(id, Some(&w.chain_id(exporter)))
        };
        let runs = |r: &&Wiring| r.id == w.id && r.exporters.iter().any(|e| e == exporter);
        let running = self.pipelines.iter().find(runs);
        let mut stages = Vec::new();
        for id in &w.processors {
            let Some(settings) = wanted.processors.get(id) else {
                continue;
            };
            let key = NodeKey::Processor {
                pipeline: w.id.clone(),
                id: id.clone(),
            };
            let text = |spec: &GraphSpec| spec.nodes.get(&key).map(|n| n.settings.clone());
            let ran = running.is_some_and(|r| r.processors.contains(id));
            if ran && text(&self.spec) == text(&wanted.spec) {
                stages.push(NextStage::Kept(id.as_str().into()));
                continue;
            }
            let cx = cx(id);
            let metrics = ProcessorMetrics::new(&cx.metrics, id, w.signal.as_str());
            let (incoming, outgoing) = (metrics.clone(), metrics);
            stages.push(NextStage::New(Stage {
                id: id.as_str().into(),
                processor: settings.build(&cx)?,
                incoming: Arc::new(move |n| incoming.incoming_items.inc_by(n)),
                outgoing: Arc::new(move |n| outgoing.outgoing_items.inc_by(n)),
            }));
        }
        Ok(NextChain {
            id: w.chain_id(exporter),
            pipeline: w.id.as_str().into(),
            signal: w.signal,
            stages,
            exporter: exporter.into(),
        })
    }

    /// Starts what was prepared and puts it in the place of what goes, between two batches of each
    /// shard. Exporters that go deliver what they have for a while yet; until then those that take
    /// their places wait, so order holds.
    ///
    /// # Errors
    /// An extension or an exporter does not start: what runs goes on as it was. A receiver does not
    /// start: everything else is in force.
    pub fn commit(&mut self, mut p: Prepared) -> Result<(), BuildError> {
        if p.base != self.generation {
            let text = "another configuration came into force meanwhile";
            return Err(BuildError::new("graph", text));
        }
        self.start_ends(&mut p)?;
        self.drain_receivers(&p);
        let (gates, gone) = self.swap_shards(&mut p);
        let mut failed = None;
        for r in &mut p.receivers {
            if let Err(e) = r.node.start() {
                failed.get_or_insert(start_failed(&r.id, e));
            }
        }
        for (_, e) in &mut p.extensions {
            e.pipelines_ready(true);
        }
        self.let_go(gone, gates);
        self.receivers.retain(|r| p.receivers_kept.contains(&r.id));
        for r in &mut self.receivers {
            let name = r.lane.name(&r.id);
            if let Some((_, chains)) = p.feeds.iter().find(|(id, _)| **id == *name) {
                r.feeds.clone_from(chains);
            }
        }
        self.receivers.extend(p.receivers);
        let extensions = std::mem::take(&mut self.extensions);
        let (stay, go): (Vec<_>, Vec<_>) = extensions
            .into_iter()
            .partition(|(id, _)| p.extensions_kept.contains(id));
        go.into_iter().rev().for_each(|(_, mut e)| e.stop());
        self.extensions = stay;
        self.extensions.extend(p.extensions);
        self.exporters.extend(p.exporters);
        for part in p.parts.values() {
            part.set_limit(self.cx.budget.limit_bytes() / p.parts.len().max(1));
        }
        (self.parts, self.pipelines, self.spec) = (p.parts, p.pipelines, p.spec);
        self.generation += 1;
        self.engine
            .config_generation
            .set(i64::try_from(self.generation).unwrap_or(i64::MAX));
        failed.map_or(Ok(()), Err)
    }

    /// Starts new extensions and exporters; if one does not start, those that did are stopped.
    fn start_ends(&self, p: &mut Prepared) -> Result<(), BuildError> {
        let mut failed = None;
        let (mut extensions, mut exporters) = (0, 0);
        for (id, e) in &mut p.extensions {
            match e.start() {
                Ok(()) => extensions += 1,
                Err(e) => {
                    failed = Some(start_failed(id, e));
                    break;
                }
            }
        }
        for e in &mut p.exporters {
            if failed.is_some() {
                break;
            }
            match e.node.start() {
                Ok(()) => exporters += 1,
                Err(err) => failed = Some(start_failed(&e.id, err)),
            }
        }
        let Some(error) = failed else { return Ok(()) };
        let now = self.cx.clock.now();
        for e in &mut p.exporters[..exporters] {
            e.node.stop(now);
        }
        for (_, e) in p.extensions[..extensions].iter_mut().rev() {
            e.stop();
        }
        Err(error)
    }

    /// Receivers that go read nothing new, and what they read is delivered, if it can be.
    fn drain_receivers(&mut self, p: &Prepared) {
        let mut waiting = Vec::new();
        for r in &mut self.receivers {
            if p.receivers_kept.contains(&r.id) {
                continue;
            }
            r.node.stop();
            let name = r.lane.name(&r.id);
            for shard in &self.shards {
                let (name, done) = (name.clone(), Arc::new(AtomicBool::new(false)));
                waiting.push(done.clone());
                shard.run(Box::new(move |s| s.retire(&name, done)));
            }
        }
        let deadline = self.cx.clock.now().after(DRAIN_MAX);
        let drained = || waiting.iter().all(|done| done.load(Ordering::Acquire));
        while !drained() && self.cx.clock.now() < deadline {
            std::thread::park_timeout(LOOK);
        }
    }

    /// Changes the shards. Gives the gates of exporters that take the places of others, and those that
    /// go.
    fn swap_shards(&mut self, p: &mut Prepared) -> (Vec<(String, Signal, Arc<Gate>)>, Vec<Sending>) {
        let exporters = std::mem::take(&mut self.exporters).into_iter();
        let stays = |e: &Sending| p.exporters_kept.contains(&(e.id.clone(), e.signal));
        let (stay, gone): (Vec<_>, Vec<_>) = exporters.partition(stays);
        self.exporters = stay;
        let is_gone = |e: &Sending| gone.iter().any(|g| g.id == e.id && g.signal == e.signal);
        let replacing = p.exporters.iter().filter(|e| is_gone(e));
        let gates: Vec<_> = replacing
            .map(|e| (e.id.clone(), e.signal, Arc::new(Gate::default())))
            .collect();
        let mut swapped = Vec::new();
        for (shard, chains) in self.shards.iter().zip(std::mem::take(&mut p.chains)) {
            let handle = shard.handle();
            let outlet = |e: &mut Sending| Outlet {
                key: Arc::from(e.id.as_str()),
                signal: e.signal,
                exporter: e.node.front(handle),
                account: Accounting::new(&self.cx.metrics, "exporter", &e.id, DropReason::NAMES),
                gate: gates
                    .iter()
                    .find(|(id, signal, _)| *id == e.id && *signal == e.signal)
                    .map(|(.., gate)| gate.clone()),
            };
            let source = |r: &mut Reading| {
                let name = Arc::from(r.lane.name(&r.id));
                (name, r.node.source(handle), r.feeds.clone())
            };
            let swap = Swap {
                outlets: p.exporters.iter_mut().map(outlet).collect(),
                outlets_gone: gone
                    .iter()
                    .map(|e| (Arc::from(e.id.as_str()), e.signal))
                    .collect(),
                chains,
                feeds: p.feeds.clone(),
                sources: p.receivers.iter_mut().map(source).collect(),
            };
            let done = Arc::new(AtomicBool::new(false));
            swapped.push(done.clone());
            shard.run(Box::new(move |s| {
                s.swap(swap);
                done.store(true, Ordering::Release);
            }));
        }
        // What goes may be stopped only when no shard hands it anything any more. A turn is short;
        // one that hangs hangs the shard, whatever is configured.
        while !swapped.iter().all(|done| done.load(Ordering::Acquire)) {
            std::thread::park_timeout(LOOK);
        }
        (gates, gone)
    }

    /// Stops exporters that go, beside everything else, and opens the gates of those that follow.
    fn let_go(&mut self, gone: Vec<Sending>, mut gates: Vec<(String, Signal, Arc<Gate>)>) {
        self.retiring.retain(|r| !r.thread.is_finished());
        for mut e in gone {
            let follows = |(id, signal, _): &mut (String, Signal, Arc<Gate>)| {
                *id == e.id && *signal == e.signal
            };
            let gate = gates.extract_if(.., follows).map(|(.., gate)| gate).next();
            let handles: Vec<_> = self.shards.iter().map(|s| s.handle().clone()).collect();
            let max = match e.node.stalled_for() >= RETIRE_STALLED_MAX {
                true => RETIRE_STALLED_MAX,
                false => RETIRE_MAX,
            };
            let deadline = self.cx.clock.now().after(max);
            let (id, opens) = (e.id.clone(), gate.clone());
            let stop = move || {
                let left = e.node.stop(deadline);
                if left > 0 {
                    tracing::info!(
                        exporter = e.id,
                        records = left,
                        "not delivered before the change; whoever read them offers them again"
                    );
                }
                if let Some(gate) = gate {
                    gate.open();
                }
                handles.iter().for_each(|h| h.waker.wake());
                left
            };
            let thread = std::thread::Builder::new()
                .name("retire".into())
                .spawn(stop);
            match thread {
                Ok(thread) => self.retiring.push(Retiring { thread }),
                // It is dropped, and what it had is handed back.
                Err(error) => {
                    tracing::warn!(%error, exporter = id, "no thread to wait for an exporter that goes");
                    opens.iter().for_each(|gate| gate.open());
                }
            }
        }
    }

    /// Stops everything: receivers first, then what is under way is delivered until `deadline`,
    /// then exporters and extensions. `abort` ends the wait early.
    pub fn stop(mut self, deadline: Mono, abort: &dyn Fn() -> bool) -> StopReport {
        self.extensions
            .iter_mut()
            .for_each(|(_, e)| e.pipelines_ready(false));
        self.receivers.iter_mut().for_each(|r| r.node.stop());
        self.shards.iter().for_each(ShardThread::drain);
        let late = |clock: &Arc<dyn Clock>| clock.now() >= deadline || abort();
        while !self.shards.iter().all(ShardThread::is_drained) && !late(&self.cx.clock) {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let clean = self.shards.iter().all(ShardThread::is_drained);
        let until = if abort() {
            self.cx.clock.now()
        } else {
            deadline
        };
        let left: u64 = self.exporters.iter_mut().map(|e| e.node.stop(until)).sum();
        while self.is_letting_go() && self.cx.clock.now() < until {
            std::thread::park_timeout(LOOK);
        }
        // What came back undelivered is seen by the sources before their threads end.
        self.shards.iter().for_each(ShardThread::drain);
        self.shards.drain(..).for_each(ShardThread::stop);
        self.extensions.iter_mut().rev().for_each(|(_, e)| e.stop());
        StopReport {
            undelivered_records: left,
            clean: clean && left == 0,
        }
    }

    /// True while an exporter that went is not done.
    pub fn is_letting_go(&self) -> bool {
        self.retiring.iter().any(|r| !r.thread.is_finished())
    }
}

fn start_failed(id: &str, e: BuildError) -> BuildError {
    BuildError::new(e.node, format!("cannot start {id}: {}", e.message))
}

#[cfg(test)]
#[path = "graph/tests.rs"]
mod tests;
