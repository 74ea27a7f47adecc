//! The running graph: validated settings become nodes, nodes become chains in shards.
//!
//! [`resolve`] (decode everything, all mistakes at once) -> [`plan`](crate::plan::plan) ->
//! [`Graph::prepare`] (build beside, nothing spawned) -> [`Graph::commit`]: take what can be had only
//! once (addresses), start new ends, swap between two batches of each shard, let go of what went. A
//! failure before the swap drops the new parts; there is no restore path. The first start is the same
//! from a graph without nodes.
//!
//! What goes does not hold up what comes: it retires beside it ([`Graph::tick`]). Only where both at
//! once would do harm does the new part wait for the old one: an exporter until the one before it has
//! delivered, so that order holds, and a receiver that would read again what is under way.

mod connectors;
mod left;
mod prepare;
mod resolve;
mod succession;
mod trial;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tailwater_telemetry::metrics::{Accounting, EngineMetrics};

use self::left::LeftQueues;
pub use self::left::{DiskQueue, LeftBy};
pub use self::prepare::Prepared;
pub use self::resolve::{Resolved, resolve};
use self::succession::{Leaving, Reading, Retiring, Sending, Waits};
pub use self::trial::Trial;
use crate::ack::DropReason;
use crate::budget::Budget;
use crate::clock::{Clock, Mono};
use crate::component::{BuildError, ExtensionNode, Stored};
use crate::factory::{NodeCx, ReceiverSettings};
use crate::files::TailedFiles;
use crate::handover::{Gate, Outlet};
use crate::lanes::{Lane, Wiring};
use crate::plan::GraphSpec;
use crate::shard::{NewSource, ShardThread, Swap};
use crate::tap::Taps;

/// How often it is looked whether something is done.
const LOOK: Duration = Duration::from_millis(2);

/// The running graph and its shards.
pub struct Graph {
    cx: NodeCx,
    engine: Arc<EngineMetrics>,
    shards: Vec<ShardThread>,
    taps: Arc<Taps>,
    receivers: Vec<Reading>,
    exporters: Vec<Sending>,
    extensions: Vec<(String, Box<dyn ExtensionNode>)>,
    settings: BTreeMap<String, Box<dyn ReceiverSettings>>,
    parts: BTreeMap<String, Arc<Budget>>,
    pipelines: Vec<Wiring>,
    spec: GraphSpec,
    generation: u64,
    pause: Duration,
    retiring: Vec<Retiring>,
    leaving: Vec<Leaving>,
    left: LeftQueues,
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
        let taps = Taps::new(shards.iter().map(|s| s.port().clone()).collect());
        Ok(Graph {
            cx,
            engine,
            shards,
            taps,
            receivers: Vec::new(),
            exporters: Vec::new(),
            extensions: Vec::new(),
            settings: BTreeMap::new(),
            parts: BTreeMap::new(),
            pipelines: Vec::new(),
            spec: GraphSpec::default(),
            generation: 0,
            pause: Duration::ZERO,
            retiring: Vec::new(),
            leaving: Vec::new(),
            left: LeftQueues::default(),
        })
    }

    /// Number of the configuration in force, from 1; 0 = none yet.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Counts configurations on from this one. For a graph without any.
    pub fn count_from(&mut self, generation: u64) {
        self.generation = generation;
    }

    /// For how long the newest change kept the shard that it kept longest from its work.
    pub fn pause(&self) -> Duration {
        self.pause
    }

    /// What is built from now on uses this runtime for its sockets.
    pub fn set_runtime(&mut self, runtime: tokio::runtime::Handle) {
        self.cx.runtime = runtime;
    }

    /// Goes on with the shards in threads that the calling one starts, and which have its rights.
    ///
    /// # Errors
    /// There are no threads. Those that could not be replaced go on.
    pub fn move_shards(&mut self) -> std::io::Result<()> {
        self.shards.iter_mut().try_for_each(ShardThread::move_here)
    }

    /// The taps on its edges, which go with it from one generation to the next.
    pub fn taps(&self) -> &Arc<Taps> {
        &self.taps
    }

    /// The graph in force, as the plan sees it.
    pub fn spec(&self) -> &GraphSpec {
        &self.spec
    }

    /// Exporters, and for how long each has had something to send while nothing was accepted.
    pub fn exporters_stalled(&self) -> impl Iterator<Item = (&str, Duration)> {
        self.exporters
            .iter()
            .map(|e| (e.id.as_str(), e.node.stalled_for()))
    }

    /// What the exporter `id` of `signal` (`logs`, `metrics`, `traces`) has on disk.
    pub fn stored(&self, id: &str, signal: &str) -> Stored {
        let mut exporters = self.exporters.iter();
        let it = exporters.find(|e| e.id == id && e.signal.as_str() == signal);
        it.map(|e| e.node.stored()).unwrap_or_default()
    }

    /// Ids of the receivers that run, once for each of their lanes.
    pub fn receivers(&self) -> impl Iterator<Item = (&str, &Lane)> {
        self.receivers.iter().map(|r| (r.id.as_str(), &r.lane))
    }

    /// The receivers that read files, once for each of their lanes, and where each is asked for them.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Lane, Arc<dyn TailedFiles>)> {
        let asked = self.receivers.iter().map(|r| (r, r.node.files()));
        asked.filter_map(|(r, files)| Some((r.id.as_str(), &r.lane, files?)))
    }

    /// Starts what was prepared and puts it in the place of what goes, between two batches of each
    /// shard. What waits for something that goes is started by [`Graph::tick`].
    ///
    /// # Errors
    /// An extension, an exporter or a listener does not start: what runs goes on as it was. In the
    /// first generation also a receiver: the graph is of no use then.
    pub fn commit(&mut self, mut p: Prepared) -> Result<(), BuildError> {
        if p.base != self.generation {
            let text = "another configuration came into force meanwhile";
            return Err(BuildError::new("graph", text));
        }
        let first = self.spec.nodes.is_empty();
        for r in &mut p.receivers {
            r.node.acquire().map_err(|e| start_failed(&r.id, e))?;
        }
        self.start_ends(&mut p)?;
        self.retire_receivers(&mut p);
        self.swap_shards(&mut p);
        for (key, next) in std::mem::take(&mut p.successors) {
            let mut running = self.receivers.iter_mut();
            if let Some(r) = running.find(|r| r.key() == key) {
                r.node.take_over(next);
            }
        }
        let mut failed = None;
        for r in &mut p.receivers {
            r.waits.start(|| r.node.start());
            if let Some(error) = r.waits.error(&r.id) {
                failed.get_or_insert(error);
            }
        }
        for (_, e) in &mut p.extensions {
            e.pipelines_ready(true);
        }
        self.take(p);
        match failed {
            Some(error) if first => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes what was prepared what there is.
    fn take(&mut self, p: Prepared) {
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
        self.forget_left();
        for part in p.parts.values() {
            part.set_limit(self.cx.budget.limit_bytes() / p.parts.len().max(1));
        }
        (self.parts, self.pipelines, self.spec) = (p.parts, p.pipelines, p.spec);
        self.settings = p.settings;
        self.generation += 1;
        self.taps.generation(self.generation, &self.spec);
        self.engine
            .config_generation
            .set(i64::try_from(self.generation).unwrap_or(i64::MAX));
    }

    /// Starts new extensions and exporters; if one does not start, those that did are stopped. An
    /// exporter that takes the place of one that runs, or still retires, waits for it.
    fn start_ends(&self, p: &mut Prepared) -> Result<(), BuildError> {
        let result = self.try_start_ends(p);
        if result.is_err() {
            let now = self.cx.clock.now();
            for e in p.exporters.iter_mut().filter(|e| e.waits.is_over()) {
                e.node.stop(now);
            }
            for (_, e) in p.extensions.iter_mut().rev() {
                e.stop();
            }
        }
        result
    }

    fn try_start_ends(&self, p: &mut Prepared) -> Result<(), BuildError> {
        for (id, e) in &mut p.extensions {
            e.start().map_err(|e| start_failed(id, e))?;
        }
        let kept = &p.exporters_kept;
        for e in &mut p.exporters {
            let running = self.exporters.iter();
            let mut goes =
                running.filter(|r| r.id == e.id && !kept.contains(&(r.id.clone(), r.signal)));
            let retires = self.retiring.iter().any(|r| r.id == e.id && !r.is_done());
            if goes.next().is_some() || retires {
                e.waits = Waits::for_something();
                e.gate = Some(Arc::new(Gate::default()));
                continue;
            }
            e.waits.start(|| e.node.start());
            if let Some(error) = e.waits.error(&e.id) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Changes the shards; exporters that go begin to retire.
    fn swap_shards(&mut self, p: &mut Prepared) {
        let exporters = std::mem::take(&mut self.exporters).into_iter();
        let stays = |e: &Sending| p.exporters_kept.contains(&(e.id.clone(), e.signal));
        let (stay, gone): (Vec<_>, Vec<_>) = exporters.partition(stays);
        self.exporters = stay;
        let mut swapped = Vec::new();
        let pause_ns = Arc::new(AtomicU64::new(0));
        for (shard, chains) in self.shards.iter().zip(std::mem::take(&mut p.chains)) {
            let handle = shard.handle();
            let outlet = |e: &mut Sending| Outlet {
                key: Arc::from(e.id.as_str()),
                signal: e.signal,
                exporter: e.node.front(handle),
                account: Accounting::new(&self.cx.metrics, "exporter", &e.id, DropReason::NAMES),
                gate: e.gate.clone(),
            };
            let source = |r: &mut Reading| NewSource {
                id: Arc::from(r.lane.name(&r.id)),
                receiver: Arc::from(r.id.as_str()),
                source: r.node.source(handle),
                chains: r.feeds.clone(),
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
            let (clock, pause_ns) = (self.cx.clock.clone(), pause_ns.clone());
            shard.run(Box::new(move |s| {
                let begin = clock.now();
                s.swap(swap);
                let took = clock.now().since(begin).as_nanos();
                pause_ns.fetch_max(u64::try_from(took).unwrap_or(u64::MAX), Ordering::AcqRel);
                done.store(true, Ordering::Release);
            }));
        }
        // What goes may be stopped only when no shard hands it anything any more. A turn is short;
        // one that hangs hangs the shard, whatever is configured.
        while !swapped.iter().all(|done| done.load(Ordering::Acquire)) {
            std::thread::park_timeout(LOOK);
        }
        self.pause = Duration::from_nanos(pause_ns.load(Ordering::Acquire));
        self.let_go(gone, p);
        for e in &mut p.exporters {
            let mine = self.retiring.iter().filter(|r| r.id == e.id);
            e.waits.add(mine.map(Retiring::done));
        }
    }

    /// Stops everything: receivers first, then what is under way is delivered until `deadline`,
    /// then exporters and extensions. `abort` ends the wait early.
    pub fn stop(mut self, deadline: Mono, abort: &dyn Fn() -> bool) -> StopReport {
        self.taps.stop();
        self.extensions
            .iter_mut()
            .for_each(|(_, e)| e.pipelines_ready(false));
        self.receivers.iter_mut().for_each(|r| r.node.stop());
        self.shards.iter().for_each(ShardThread::drain);
        let late = |clock: &Arc<dyn Clock>| clock.now() >= deadline || abort();
        while !self.shards.iter().all(ShardThread::is_drained) && !late(&self.cx.clock) {
            self.start_exporters();
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let clean = self.shards.iter().all(ShardThread::is_drained);
        let until = if abort() {
            self.cx.clock.now()
        } else {
            deadline
        };
        let left: u64 = self.exporters.iter_mut().map(|e| e.node.stop(until)).sum();
        while self.retiring.iter().any(|r| !r.is_done()) && self.cx.clock.now() < until {
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
}

fn start_failed(id: &str, e: BuildError) -> BuildError {
    BuildError::new(e.node, format!("cannot start {id}: {}", e.message))
}

#[cfg(test)]
mod connector_tests;
#[cfg(test)]
mod fakes;
#[cfg(test)]
mod tap_tests;
#[cfg(test)]
mod tests;
