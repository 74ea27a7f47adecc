//! From one graph to the next, between two batches of a shard.
//!
//! What stays keeps its state: exporters' halves, processors of a chain whose neighbours change, sources
//! with everything under way. What goes passes on what it keeps first, the way it would have gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tailwater_pdata::Signal;

use super::beyond::{NextLink, connect};
use super::{Chain, DRAIN_POLL, Emit, Feed, Shard, Stage};
use crate::clock::Mono;
use crate::component::{Admission, Source};
use crate::handover::Outlet;

/// What a shard runs from the next batch on.
#[derive(Default)]
pub struct Swap {
    /// New halves of exporters. One takes the place of what has the same key and signal.
    pub outlets: Vec<Outlet>,
    /// Exporters that go, by key and signal.
    pub outlets_gone: Vec<(Arc<str>, Signal)>,
    /// All chains; those that others lead to stand behind these.
    pub chains: Vec<NextChain>,
    /// Sources that stay, with the ids of the chains they feed now. Of those that are not named, the
    /// ones that retire stay until nothing of them is under way; others go.
    pub feeds: Vec<(Arc<str>, Vec<Arc<str>>)>,
    /// New sources.
    pub sources: Vec<NewSource>,
}

/// A source that comes.
pub struct NewSource {
    /// Its name.
    pub id: Arc<str>,
    /// The receiver whose lane it is.
    pub receiver: Arc<str>,
    /// The source.
    pub source: Box<dyn Source>,
    /// Ids of the chains it feeds.
    pub chains: Vec<Arc<str>>,
}

/// A chain as it is to be.
pub struct NextChain {
    /// Its id.
    pub id: Arc<str>,
    /// The pipeline it belongs to, which with the exporter tells which chain it was.
    pub pipeline: Arc<str>,
    /// What it carries.
    pub signal: Signal,
    /// Its stages, in order.
    pub stages: Vec<NextStage>,
    /// The exporter at its end, be it behind connectors.
    pub exporter: Arc<str>,
    /// Whether it hands to that exporter itself.
    pub direct: bool,
    /// The connectors it ends in, on the way to that exporter.
    pub links: Vec<NextLink>,
}

/// A stage of a chain as it is to be.
pub enum NextStage {
    /// The one with this id, as it is.
    Kept(Arc<str>),
    /// A new one.
    New(Stage),
}

impl NextChain {
    fn was(&self, old: &Chain) -> bool {
        let same_end = old.exporters.len() == 1 && old.exporters[0] == self.exporter;
        self.pipeline == old.pipeline && self.signal == old.signal && same_end
    }

    fn is_all_of(&self, old: &Chain) -> bool {
        let same = |(new, old): (&NextStage, &Stage)| match new {
            NextStage::Kept(id) => *id == old.id,
            NextStage::New(_) => false,
        };
        self.stages.len() == old.processors.len()
            && self.stages.iter().zip(&old.processors).all(same)
    }

    /// Takes what it keeps from the chains that were.
    fn build(self, old: &mut [Chain]) -> Chain {
        let mut was = old.iter_mut().find(|c| self.was(c));
        let stage = |next| match next {
            NextStage::New(stage) => Some(stage),
            NextStage::Kept(id) => {
                let stages = &mut was.as_mut()?.processors;
                let at = stages.iter().position(|s| s.id == id)?;
                Some(stages.remove(at))
            }
        };
        let processors = self.stages.into_iter().filter_map(stage).collect();
        Chain {
            id: self.id,
            pipeline: self.pipeline,
            signal: self.signal,
            processors,
            exporters: vec![self.exporter],
        }
    }
}

impl Shard {
    /// Changes what the shard runs.
    pub fn swap(&mut self, swap: Swap) {
        let now = self.clock.now();
        let goes = |key: &Arc<str>, signal: Signal| {
            let gone = |(k, s): &(Arc<str>, Signal)| k == key && *s == signal;
            let replaced = |o: &Outlet| o.key == *key && o.signal == signal;
            swap.outlets_gone.iter().any(gone) || swap.outlets.iter().any(replaced)
        };
        let mut flushed = vec![false; self.chains.len()];
        for i in 0..self.chains.len() {
            let chain = &self.chains[i];
            let links = self.links_of(i);
            let stays = swap
                .chains
                .iter()
                .any(|c| c.was(chain) && c.is_all_of(chain) && links.leads_on_as(c));
            let end_goes = chain.exporters.iter().any(|key| goes(key, chain.signal));
            // What a source has in a chain goes before what it hands to others from now on.
            let leaves = |feed: &Feed| {
                let next = swap.feeds.iter().find(|(id, _)| *id == feed.id);
                let feeds_now = next.is_some_and(|(_, chains)| *chains == feed.pipelines);
                feed.pipelines.contains(&chain.id) && !feeds_now
            };
            if flushed[i] || !stays || end_goes || self.feeds.iter().any(leaves) {
                self.flush_chain(i, now);
                // What comes out of it must not be overtaken by what goes another way from now on.
                self.chains_behind(i)
                    .iter()
                    .for_each(|j| flushed[*j] = true);
            }
        }
        let (going, staying) = std::mem::take(&mut self.exporters)
            .into_iter()
            .partition::<Vec<_>, _>(|o| goes(&o.key, o.signal));
        self.exporters = staying;
        going.into_iter().for_each(|mut o| o.exporter.flush(now));
        self.exporters.extend(swap.outlets);
        let mut old = std::mem::take(&mut self.chains);
        let mut next = swap.chains;
        // What goes may still have something to pass on, by the way that it had.
        let renamed: Vec<(Arc<str>, Arc<str>)> = old
            .iter()
            .filter_map(|old| {
                let new = next.iter().find(|c| c.was(old))?;
                Some((old.id.clone(), new.id.clone()))
            })
            .collect();
        self.beyond = connect(&mut next);
        let next = next.into_iter();
        self.chains = next.map(|c| c.build(&mut old)).collect();
        self.feeds.retain_mut(|feed| {
            if feed.retiring.is_some() {
                for id in &mut feed.pipelines {
                    if let Some((_, new)) = renamed.iter().find(|(old, _)| old == id) {
                        *id = new.clone();
                    }
                }
                return true;
            }
            let Some((_, chains)) = swap.feeds.iter().find(|(id, _)| *id == feed.id) else {
                return false;
            };
            feed.pipelines.clone_from(chains);
            true
        });
        swap.sources.into_iter().for_each(|new| self.add_feed(new));
        self.attach_taps();
        self.woken();
    }

    /// Makes a source read nothing new, and passes on what is kept on its way. `done` tells when nothing
    /// of it is under way; then it goes.
    pub fn retire(&mut self, source: &str, done: Arc<AtomicBool>) {
        let runs = |f: &&mut Feed| *f.id == *source && f.retiring.is_none();
        let Some(feed) = self.feeds.iter_mut().find(runs) else {
            done.store(true, Ordering::Release);
            return;
        };
        (feed.retiring, feed.next) = (Some(done), None);
        let (pipelines, now) = (feed.pipelines.clone(), self.clock.now());
        let mut on_its_way = vec![false; self.chains.len()];
        for chain in 0..self.chains.len() {
            if on_its_way[chain] || pipelines.contains(&self.chains[chain].id) {
                self.flush_chain(chain, now);
                self.chains_behind(chain)
                    .iter()
                    .for_each(|j| on_its_way[*j] = true);
                on_its_way[chain] = true;
            }
        }
        for chain in (0..self.chains.len()).filter(|i| on_its_way[*i]) {
            self.flush_ends(chain, now);
        }
    }

    /// A turn of the sources that are to go.
    pub(super) fn retire_turn(&mut self, now: Mono) {
        let Shard {
            feeds,
            chains,
            beyond,
            exporters,
            tapped,
            ..
        } = self;
        feeds.retain_mut(|feed| {
            let Some(done) = feed.retiring.clone() else {
                return true;
            };
            let mut emit = Emit {
                chains,
                beyond,
                exporters,
                tapped,
                receiver: &feed.receiver,
                pipelines: &feed.pipelines,
                admission: Admission::Closed,
                draining: true,
                now,
            };
            feed.next = Some(now.after(DRAIN_POLL));
            if !feed.source.drain(&mut emit) {
                return true;
            }
            done.store(true, Ordering::Release);
            false
        });
    }

    fn flush_chain(&mut self, chain: usize, now: Mono) {
        self.each_stage_of(chain, now, &mut |stage, out| stage.flush(out));
    }

    fn flush_ends(&mut self, chain: usize, now: Mono) {
        let Shard {
            chains, exporters, ..
        } = self;
        let chain = &chains[chain];
        for o in exporters {
            if o.signal == chain.signal && chain.exporters.contains(&o.key) {
                o.exporter.flush(now);
            }
        }
    }
}
