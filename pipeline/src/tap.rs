//! Taps: samples of what passes an edge of the running graph, for people to look at.
//!
//! A tap is put on the edges between two batches of each shard, as a change of the graph is, and taken
//! off the same way: where none is, nothing is asked per batch but whether a list is empty. Where one
//! is, a shard counts what passes, copies the few records that the rate allows, or, of what is encoded,
//! the reference to it, and puts them into a short queue; what does not fit is counted and left. All
//! else is done by the thread that reads from the [`Tap`].
//!
//! A tap is about a node by its key and not by its object: it stays on the node of the same key in
//! the next generation, and ends when there is none.

mod rate;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use tailwater_pdata::otlp::Encoded;

use self::rate::{Rate, spread};
use crate::batch::{Batch, Part};
use crate::clock::Mono;
use crate::payload::Payload;
use crate::plan::{GraphSpec, NodeKey};
use crate::shard::ShardPort;

/// Taps at the same time.
pub const TAPS_MAX: usize = 4;
/// The highest rate, in records per second.
pub const RATE_MAX: u32 = 1_000;
/// Samples of a tap that wait to be looked into.
const WAITING_MAX: usize = 64;
/// What these may hold, in bytes. One alone may hold more: as much as a request.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// On which side of a node a tap is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Before it: every edge that leads to it.
    In,
    /// After it: every edge that leaves it.
    Out,
}

/// An edge of the graph, in one chain. A pipeline with several exporters has a chain for each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edge {
    /// Key of the node that it leaves.
    pub from: String,
    /// Key of the node that it leads to.
    pub to: String,
    /// Id of the pipeline.
    pub pipeline: Arc<str>,
    /// Id of the exporter at the end of the chain.
    pub exporter: Arc<str>,
}

/// Items that passed.
#[derive(Debug)]
pub struct Sample {
    /// Where.
    pub edge: Arc<Edge>,
    /// When, by the clock of the shards.
    pub at: Mono,
    /// A request that they are in.
    pub data: Encoded,
    /// Their numbers in it, in order.
    pub items: Vec<usize>,
}

/// The half of a tap that is in the shards.
#[derive(Debug)]
pub struct Probe {
    id: u64,
    node: String,
    side: Side,
    rate: Rate,
    passed: AtomicU64,
    missed: AtomicU64,
    /// Bytes of the samples that wait.
    waiting: AtomicUsize,
    /// None: somebody has said something that is to be looked for.
    samples: Sender<Option<Sample>>,
    /// Why it is over.
    end: Mutex<Option<String>>,
    /// In how many shards it is not yet.
    missing: AtomicUsize,
}

impl Probe {
    /// Whether it is on the edge between these nodes.
    pub(crate) fn is_on(&self, from: &str, to: &str) -> bool {
        match self.side {
            Side::In => self.node == to,
            Side::Out => self.node == from,
        }
    }

    /// Ends the tap; whoever reads from it is told why. Only the first reason counts.
    pub fn end(&self, why: impl Into<String>) {
        lock(&self.end).get_or_insert_with(|| why.into());
        // If it is full, somebody is reading and will see it.
        let _ = self.samples.try_send(None);
    }

    /// Counts what passes, and takes samples if it is time.
    pub(crate) fn offer(&self, batch: &Batch, edge: &Arc<Edge>, now: Mono) {
        let items = batch.items();
        let before = self.passed.fetch_add(items as u64, Ordering::Relaxed);
        let n = self.rate.take(now, items);
        if n == 0 {
            return;
        }
        let mut chosen = spread(items, n, before).peekable();
        let mut begin = 0;
        for part in &batch.parts {
            let end = begin + part.data.items();
            let mut mine = Vec::new();
            while let Some(i) = chosen.next_if(|i| *i < end) {
                mine.push(i - begin);
            }
            if !mine.is_empty() {
                self.sample(part, mine, edge, now);
            }
            begin = end;
        }
    }

    fn sample(&self, part: &Part, mut items: Vec<usize>, edge: &Arc<Edge>, at: Mono) {
        let n = items.len() as u64;
        let missed = || self.missed.fetch_add(n, Ordering::Relaxed);
        if self.samples.is_full() {
            missed();
            return;
        }
        let data = match &part.data {
            Payload::Encoded(encoded) => encoded.clone(),
            Payload::Logs(logs) => {
                let some = Encoded::from_rows(logs, &items);
                items = (0..items.len()).collect();
                some
            }
        };
        let bytes = data.heap_bytes();
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let edge = edge.clone();
        let sample = Sample {
            edge,
            at,
            data,
            items,
        };
        let fits = before == 0 || before + bytes <= WAITING_BYTES_MAX;
        if !fits || self.samples.try_send(Some(sample)).is_err() {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            missed();
        }
    }
}

/// What [`Tap::next`] gives.
#[derive(Debug)]
pub enum Next {
    /// Something passed.
    Sample(Sample),
    /// Nothing for the time that was given.
    Quiet,
    /// It is over, and why.
    Ended(String),
}

/// How much passed since a tap began, in items.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Passed {
    /// All.
    pub all: u64,
    /// Of these: what was chosen to be shown, and whoever reads was too slow for.
    pub missed: u64,
}

/// A tap. Dropping it takes it off.
#[derive(Debug)]
pub struct Tap {
    probe: Arc<Probe>,
    samples: Receiver<Option<Sample>>,
    taps: Arc<Taps>,
}

impl Tap {
    /// What it is on.
    pub fn node(&self) -> (&str, Side) {
        (&self.probe.node, self.probe.side)
    }

    /// Whether it is in place in all shards: what passes from then on is seen. That is between two batches
    /// of each, about a millisecond after it was opened, unless one hangs.
    pub fn is_in_place(&self) -> bool {
        self.probe.missing.load(Ordering::Acquire) == 0
    }

    /// Waits for something, for so long.
    pub fn next(&self, timeout: Duration) -> Next {
        if let Some(why) = lock(&self.probe.end).clone() {
            return Next::Ended(why);
        }
        match self.samples.recv_timeout(timeout) {
            Ok(Some(sample)) => {
                let bytes = sample.data.heap_bytes();
                self.probe.waiting.fetch_sub(bytes, Ordering::Relaxed);
                Next::Sample(sample)
            }
            Ok(None) | Err(_) => match lock(&self.probe.end).clone() {
                Some(why) => Next::Ended(why),
                None => Next::Quiet,
            },
        }
    }

    /// What passed.
    pub fn passed(&self) -> Passed {
        // In this order: what is missed has passed.
        let missed = self.probe.missed.load(Ordering::Acquire);
        Passed {
            all: self.probe.passed.load(Ordering::Acquire),
            missed,
        }
    }

    /// Counts items that were chosen and are not shown either.
    pub fn miss(&self, items: u64) {
        self.probe.missed.fetch_add(items, Ordering::Relaxed);
    }

    /// To end it from elsewhere.
    pub fn probe(&self) -> Arc<Probe> {
        self.probe.clone()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.taps.remove(self.probe.id);
    }
}

/// Why there is no tap.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoTap {
    /// There are as many as there may be.
    #[error("{TAPS_MAX} taps are open, which is the most at a time; end one of them")]
    TooMany,
    /// No such node; what there is.
    #[error("no node {0:?} in generation {1}")]
    NoNode(String, u64, Vec<String>),
    /// Nothing passes there; why.
    #[error("{0}")]
    NothingPasses(String),
    /// The agent stops.
    #[error("the agent stops")]
    Stopping,
}

/// The taps of a graph.
#[derive(Debug, Default)]
pub struct Taps(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    shards: Vec<ShardPort>,
    nodes: BTreeMap<String, NodeKey>,
    generation: u64,
    probes: Vec<Arc<Probe>>,
    next_id: u64,
    stopping: bool,
}

impl State {
    /// Tells the shards which taps there are, of which one may be new.
    fn send(&self, new: Option<&Arc<Probe>>) {
        for shard in &self.shards {
            let (probes, new) = (self.probes.clone(), new.cloned());
            shard.run(Box::new(move |s| {
                s.set_taps(probes);
                if let Some(probe) = new {
                    probe.missing.fetch_sub(1, Ordering::AcqRel);
                }
            }));
        }
    }
}

impl Taps {
    /// For the shards of a graph without nodes.
    pub(crate) fn new(shards: Vec<ShardPort>) -> Arc<Taps> {
        Arc::new(Taps(Mutex::new(State {
            shards,
            ..State::default()
        })))
    }

    /// Opens a tap at the node with this key, on this side, or the one on which something passes; with at
    /// most `rate` records per second, which is from 1 to [`RATE_MAX`].
    ///
    /// # Errors
    /// There is no such node, nothing passes there, or there are too many taps.
    pub fn open(self: &Arc<Self>, node: &str, side: Option<Side>, rate: u32) -> Result<Tap, NoTap> {
        let mut state = lock(&self.0);
        if state.stopping {
            return Err(NoTap::Stopping);
        }
        let Some(key) = state.nodes.get(node) else {
            let known = state.nodes.keys().cloned().collect();
            return Err(NoTap::NoNode(node.to_owned(), state.generation, known));
        };
        let side = side_of(key, side)?;
        if state.probes.len() >= TAPS_MAX {
            return Err(NoTap::TooMany);
        }
        let (samples, inbox) = bounded(WAITING_MAX);
        let probe = Arc::new(Probe {
            id: state.next_id,
            node: node.to_owned(),
            side,
            rate: Rate::new(rate.clamp(1, RATE_MAX)),
            passed: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            samples,
            end: Mutex::new(None),
            missing: AtomicUsize::new(state.shards.len()),
        });
        state.next_id += 1;
        state.probes.push(probe.clone());
        state.send(Some(&probe));
        Ok(Tap {
            probe,
            samples: inbox,
            taps: self.clone(),
        })
    }

    fn remove(&self, id: u64) {
        let mut state = lock(&self.0);
        state.probes.retain(|p| p.id != id);
        state.send(None);
    }

    /// Another generation is in force: taps at nodes that it does not have are over.
    pub(crate) fn generation(&self, generation: u64, spec: &GraphSpec) {
        let mut state = lock(&self.0);
        let nodes = spec.nodes.keys();
        state.nodes = nodes.map(|key| (key.to_string(), key.clone())).collect();
        state.generation = generation;
        for probe in &state.probes {
            if !state.nodes.contains_key(&probe.node) {
                probe.end(format!("{} is not in generation {generation}", probe.node));
            }
        }
    }

    /// All are over, and no more are opened.
    pub(crate) fn stop(&self) {
        let mut state = lock(&self.0);
        state.stopping = true;
        state.probes.iter().for_each(|p| p.end("the agent stops"));
    }
}

/// The side of a node that is tapped.
fn side_of(key: &NodeKey, wanted: Option<Side>) -> Result<Side, NoTap> {
    let nothing = |text: &str| Err(NoTap::NothingPasses(format!("{key}: {text}")));
    match (key, wanted) {
        (NodeKey::Extension(_), _) => nothing("nothing passes an extension"),
        (NodeKey::Receiver { .. }, Some(Side::In)) => {
            nothing("what comes into a receiver is no record yet; take the side out")
        }
        (NodeKey::Exporter { .. }, Some(Side::Out)) => {
            nothing("what leaves an exporter are requests; take the side in")
        }
        (NodeKey::Receiver { .. }, _) => Ok(Side::Out),
        (_, side) => Ok(side.unwrap_or(Side::In)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
