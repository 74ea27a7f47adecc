//! Shards: threads that own sources and the chains behind them, and run each batch to completion.
//!
//! [`Shard`] itself has no thread and no clock of its own: `step` does one turn, so a simulation
//! can drive it. [`ShardThread`] is the production driver: it sleeps until data or the next timer.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tailwater_pdata::Signal;

use crate::batch::Batch;
use crate::clock::{Clock, Mono};
use crate::component::{Admission, Output, Processor, Progress, Source, SourceCx};
use crate::handover::Outlet;
use crate::tap::Probe;

mod beyond;
#[cfg(test)]
mod beyond_tests;
mod swap;
mod taps;
mod thread;

use beyond::{Beyond, Onward, behind};
pub use beyond::{NextLink, NextWay};
pub use swap::{NewSource, NextChain, NextStage, Swap};
use taps::{Spot, Tapped, of_chain};
pub use thread::{Command, ShardPort, ShardThread, ShardWaker};

/// How often a draining shard looks again without being woken.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// The chain of one pipeline in one shard.
pub struct Chain {
    /// The chain's id: the pipeline's, with the exporter where it has several.
    pub id: Arc<str>,
    /// The pipeline's id, e.g. `logs/app`.
    pub pipeline: Arc<str>,
    /// What it carries; of what a source emits it gets this signal alone.
    pub signal: Signal,
    /// Processors in order.
    pub processors: Vec<Stage>,
    /// Keys of the exporters it ends in, be it behind connectors.
    pub exporters: Vec<Arc<str>>,
}

/// A processor in a chain with its item counters.
pub struct Stage {
    /// The processor's id.
    pub id: Arc<str>,
    /// The processor.
    pub processor: Box<dyn Processor>,
    /// Called with the number of items that went in.
    pub incoming: Meter,
    /// Called with the number of items that came out.
    pub outgoing: Meter,
}

/// Counts items at an edge of the graph; called once per batch.
pub type Meter = Arc<dyn Fn(u64) + Send + Sync>;

struct Feed {
    id: Arc<str>,
    /// The receiver whose lane it is.
    receiver: Arc<str>,
    source: Box<dyn Source>,
    pipelines: Vec<Arc<str>>,
    next: Option<Mono>,
    ready: bool,
    /// It is to go: set to true when nothing of it is under way.
    retiring: Option<Arc<AtomicBool>>,
}

/// One shard's part of the graph.
pub struct Shard {
    clock: Arc<dyn Clock>,
    feeds: Vec<Feed>,
    /// Those that others lead to stand behind these.
    chains: Vec<Chain>,
    /// By chain, where it goes on behind connectors. Empty without connectors.
    beyond: Vec<Beyond>,
    exporters: Vec<Outlet>,
    probes: Vec<Arc<Probe>>,
    /// By chain, where its taps are. Empty without taps.
    tapped: Vec<Option<Box<Tapped>>>,
}

/// What a turn of a shard did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// There is more to do.
    Busy,
    /// Nothing to do until woken or until the given time.
    Idle(Option<Mono>),
}

/// Passes a batch along the rest of a chain, then to its exporters.
struct Tail<'a> {
    rest: &'a mut [Stage],
    /// Those before each of them, and behind the last one; none at all in a chain without taps.
    taps: &'a [Vec<Spot>],
    exporters: &'a mut [Outlet],
    targets: &'a [Arc<str>],
    signal: Signal,
    now: Mono,
    /// Where it goes on behind connectors; none in a chain that ends in none.
    onward: Option<Onward<'a>>,
}

impl<'a> Tail<'a> {
    /// The whole of chain `i`. `chains` are those from number `first` on.
    fn of(
        i: usize,
        (first, chains): (usize, &'a mut [Chain]),
        (tapped, beyond): (&'a [Option<Box<Tapped>>], &'a [Beyond]),
        exporters: &'a mut [Outlet],
        now: Mono,
    ) -> Option<Tail<'a>> {
        let (to_it, behind) = chains.split_at_mut_checked(i + 1 - first)?;
        let chain = to_it.last_mut()?;
        Some(Tail {
            rest: &mut chain.processors,
            taps: of_chain(tapped, i).map_or(&[][..], |t| &t.edges[..]),
            exporters,
            targets: &chain.exporters,
            signal: chain.signal,
            now,
            onward: Onward::of(i, behind, tapped, beyond),
        })
    }

    /// Hands a batch to the exporters at its end.
    fn export(&mut self, batch: Batch) {
        let targets = self.targets;
        let find = |key: &Arc<str>| {
            let same = |o: &Outlet| Arc::ptr_eq(&o.key, key) || o.key == *key;
            self.exporters
                .iter()
                .position(|o| o.signal == self.signal && same(o))
        };
        let found: Vec<usize> = targets.iter().filter_map(find).collect();
        for (i, branch) in found.iter().zip(batch.fork(found.len())) {
            self.exporters[*i].export(branch, self.now);
        }
    }
}

impl Output for Tail<'_> {
    fn emit(&mut self, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        let mut taps = self.taps;
        if let Some((here, behind)) = taps.split_first() {
            here.iter().for_each(|spot| spot.offer(&batch, self.now));
            taps = behind;
        }
        if let Some((stage, rest)) = self.rest.split_first_mut() {
            (stage.incoming)(batch.items() as u64);
            let outgoing = stage.outgoing.clone();
            let next = Tail {
                rest,
                taps,
                exporters: self.exporters,
                targets: self.targets,
                signal: self.signal,
                now: self.now,
                onward: self.onward.as_mut().map(Onward::again),
            };
            return stage
                .processor
                .process(batch, &mut Counted { next, outgoing });
        }
        match self.onward {
            None => self.export(batch),
            Some(_) => self.pass_on(batch),
        }
    }

    fn now(&self) -> Mono {
        self.now
    }
}

/// Counts what leaves a stage.
struct Counted<'a> {
    next: Tail<'a>,
    outgoing: Meter,
}

impl Output for Counted<'_> {
    fn emit(&mut self, batch: Batch) {
        (self.outgoing)(batch.items() as u64);
        self.next.emit(batch);
    }

    fn now(&self) -> Mono {
        self.next.now
    }
}

/// What a source emits into: the chains of its pipelines.
struct Emit<'a> {
    chains: &'a mut [Chain],
    beyond: &'a [Beyond],
    exporters: &'a mut [Outlet],
    tapped: &'a [Option<Box<Tapped>>],
    receiver: &'a Arc<str>,
    pipelines: &'a [Arc<str>],
    admission: Admission,
    draining: bool,
    now: Mono,
}

impl Output for Emit<'_> {
    fn emit(&mut self, batch: Batch) {
        let Some(signal) = batch.signal() else {
            return;
        };
        let find = |id: &Arc<str>| {
            let mut chains = self.chains.iter();
            chains.position(|c| c.signal == signal && c.id == *id)
        };
        let found: Vec<usize> = self.pipelines.iter().filter_map(find).collect();
        for (i, branch) in found.iter().zip(batch.fork(found.len())) {
            if let Some(tapped) = of_chain(self.tapped, *i) {
                tapped.enter((self.receiver, signal), &branch, self.now);
            }
            let edges = (self.tapped, self.beyond);
            let chains = (0, &mut *self.chains);
            if let Some(mut tail) = Tail::of(*i, chains, edges, self.exporters, self.now) {
                tail.emit(branch);
            }
        }
        self.admission = self.admission_now(None);
    }

    fn now(&self) -> Mono {
        self.now
    }
}

impl Emit<'_> {
    fn admission_now(&self, signal: Option<Signal>) -> Admission {
        let behind = (&*self.chains, self.beyond);
        admission_of(self.pipelines, behind, self.exporters, signal)
    }
}

impl SourceCx for Emit<'_> {
    fn admission(&self) -> Admission {
        self.admission
    }

    fn admission_of(&self, signal: Signal) -> Admission {
        match self.draining {
            true => Admission::Closed,
            false => self.admission_now(Some(signal)),
        }
    }

    fn refuses(&self, signal: Signal) -> bool {
        let refuses = |c: &Chain| c.processors.iter().any(|s| s.processor.refuses());
        let mut chains = self.chains.iter().enumerate();
        !self.draining
            && chains.any(|(i, c)| {
                c.signal == signal
                    && self.pipelines.contains(&c.id)
                    && (refuses(c) || behind(self.beyond, i, self.chains).any(refuses))
            })
    }
}

/// How much is taken behind a source that feeds `pipelines`: by all of them, or by those of a signal.
fn admission_of(
    pipelines: &[Arc<str>],
    (chains, beyond): (&[Chain], &[Beyond]),
    exporters: &[Outlet],
    signal: Option<Signal>,
) -> Admission {
    let stages = |c: &Chain| {
        let stages = c.processors.iter().map(|s| s.processor.admission());
        stages.max().unwrap_or_default()
    };
    let own = |c: &Chain| {
        let of_chain = |o: &&Outlet| o.signal == c.signal && c.exporters.contains(&o.key);
        let ends = exporters.iter().filter(of_chain).map(Outlet::admission);
        ends.max().unwrap_or_default().max(stages(c))
    };
    // What is behind a connector may be of another signal, and end in another half of the exporter.
    let of_chain = |(i, c): (usize, &Chain)| {
        let behind = behind(beyond, i, chains).map(&own);
        behind.chain([own(c)]).max()
    };
    let is_fed = |(_, c): &(usize, &Chain)| {
        signal.is_none_or(|signal| c.signal == signal) && pipelines.contains(&c.id)
    };
    let mine = chains.iter().enumerate().filter(is_fed);
    mine.filter_map(of_chain).max().unwrap_or_default()
}

impl Shard {
    /// A shard without anything in it.
    pub fn new(clock: Arc<dyn Clock>) -> Shard {
        Shard {
            clock,
            feeds: Vec::new(),
            chains: Vec::new(),
            beyond: Vec::new(),
            exporters: Vec::new(),
            probes: Vec::new(),
            tapped: Vec::new(),
        }
    }

    /// Adds an exporter's half.
    pub fn add_exporter(&mut self, outlet: Outlet) {
        self.exporters.push(outlet);
    }

    /// Adds a pipeline's chain. Its exporters must have been added.
    pub fn add_chain(&mut self, chain: Chain) {
        self.chains.push(chain);
    }

    /// Adds the source of the only lane of a receiver, which feeds `pipelines`.
    pub fn add_source(&mut self, id: Arc<str>, source: Box<dyn Source>, pipelines: Vec<Arc<str>>) {
        self.add_feed(NewSource {
            receiver: id.clone(),
            id,
            source,
            chains: pipelines,
        });
    }

    fn add_feed(&mut self, new: NewSource) {
        self.feeds.push(Feed {
            id: new.id,
            receiver: new.receiver,
            source: new.source,
            pipelines: new.chains,
            next: None,
            ready: true,
            retiring: None,
        });
    }

    /// Marks every source as having something to do; called when the shard was woken.
    pub fn woken(&mut self) {
        self.feeds.iter_mut().for_each(|f| f.ready = true);
    }

    /// One turn: due timers, then one poll of each source that has something to do.
    pub fn step(&mut self) -> Step {
        let now = self.clock.now();
        self.tick(now);
        self.retire_turn(now);
        let Shard {
            feeds,
            chains,
            beyond,
            exporters,
            tapped,
            ..
        } = self;
        let mut busy = false;
        for feed in feeds.iter_mut() {
            let waits = !feed.ready && feed.next.is_none_or(|t| t > now);
            if waits || feed.retiring.is_some() {
                continue;
            }
            let behind = (&**chains, &**beyond);
            let admission = admission_of(&feed.pipelines, behind, exporters, None);
            let pipelines = &feed.pipelines;
            let mut emit = Emit {
                chains,
                beyond,
                exporters,
                tapped,
                receiver: &feed.receiver,
                pipelines,
                admission,
                draining: false,
                now,
            };
            match feed.source.poll(&mut emit) {
                Progress::Busy => busy = true,
                Progress::Idle(next) => (feed.ready, feed.next) = (false, next),
            }
        }
        if busy {
            Step::Busy
        } else {
            Step::Idle(self.next_deadline())
        }
    }

    fn next_deadline(&self) -> Option<Mono> {
        let feeds = self.feeds.iter().filter_map(|f| f.next);
        let stages = self.chains.iter().flat_map(|c| &c.processors);
        let stages = stages.filter_map(|s| s.processor.deadline());
        let ends = self.exporters.iter().filter_map(|o| o.exporter.deadline());
        feeds.chain(stages).chain(ends).min()
    }

    fn tick(&mut self, now: Mono) {
        self.each_stage(now, |stage, out| {
            if stage.deadline().is_some_and(|d| d <= now) {
                stage.tick(out);
            }
        });
        for Outlet { exporter, .. } in &mut self.exporters {
            if exporter.deadline().is_some_and(|d| d <= now) {
                exporter.tick(now);
            }
        }
    }

    fn each_stage(&mut self, now: Mono, mut f: impl FnMut(&mut dyn Processor, &mut dyn Output)) {
        for chain in 0..self.chains.len() {
            self.each_stage_of(chain, now, &mut f);
        }
    }

    fn each_stage_of(
        &mut self,
        chain: usize,
        now: Mono,
        f: &mut dyn FnMut(&mut dyn Processor, &mut dyn Output),
    ) {
        let Shard {
            chains,
            beyond,
            exporters,
            tapped,
            ..
        } = self;
        for i in 0..chains[chain].processors.len() {
            let (edges, chains) = ((&**tapped, &**beyond), (0, &mut **chains));
            let Some(mut next) = Tail::of(chain, chains, edges, exporters, now) else {
                return;
            };
            let (head, rest) = std::mem::take(&mut next.rest).split_at_mut(i + 1);
            let stage = &mut head[i];
            next.rest = rest;
            next.taps = next.taps.get(i + 1..).unwrap_or_default();
            let mut out = Counted {
                next,
                outgoing: stage.outgoing.clone(),
            };
            f(&mut *stage.processor, &mut out);
        }
    }

    /// Passes on everything that processors and exporters keep.
    pub fn flush(&mut self) {
        let now = self.clock.now();
        self.each_stage(now, |stage, out| stage.flush(out));
        self.exporters
            .iter_mut()
            .for_each(|o| o.exporter.flush(now));
    }

    /// One turn of stopping. True when no source has anything under way.
    pub fn drain(&mut self) -> bool {
        let now = self.clock.now();
        let Shard {
            feeds,
            chains,
            beyond,
            exporters,
            tapped,
            ..
        } = self;
        let mut done = true;
        for feed in feeds.iter_mut() {
            let pipelines = &feed.pipelines;
            let admission = Admission::Closed;
            let mut emit = Emit {
                chains,
                beyond,
                exporters,
                tapped,
                receiver: &feed.receiver,
                pipelines,
                admission,
                draining: true,
                now,
            };
            done &= feed.source.drain(&mut emit);
        }
        self.flush();
        done
    }

    /// Ids of the sources, for messages.
    pub fn source_ids(&self) -> Vec<Arc<str>> {
        self.feeds.iter().map(|f| f.id.clone()).collect()
    }
}
