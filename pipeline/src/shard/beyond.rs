//! Where a chain goes on behind connectors: in other chains of the same shard, by a plain call.
//!
//! A connector has no queue and no thread. What enters it keeps its duty, which is forked for the ways
//! behind it, so it counts as delivered when each of them has delivered it, whatever a connector makes of it; sources in front of it ask
//! everything behind it whether they may read; and the memory of a batch goes with it on its last way, of
//! which the others share the bytes.

use std::sync::Arc;

use tailwater_pdata::Signal;

use super::taps::{Tapped, of_chain};
use super::{Chain, Meter, NextChain, Shard, Tail};
use crate::batch::Batch;
use crate::component::{Connector, Output, Ways};

/// A connector that a chain is to end in.
pub struct NextLink {
    /// Its id.
    pub connector: Arc<str>,
    /// Called with the number of items that go in.
    pub consumed: Meter,
    /// The chains behind it.
    pub ways: Vec<NextWay>,
    /// Who says what each of them gets; without, each gets all.
    pub by: Option<Box<dyn Connector>>,
}

/// A way behind a connector.
pub struct NextWay {
    /// Id of the chain that it leads to.
    pub chain: Arc<str>,
    /// Called with the number of items that it gets.
    pub produced: Meter,
}

/// Where a chain goes on.
pub(super) struct Beyond {
    /// What the chain carries.
    signal: Signal,
    /// Whether the exporter at its end is handed what comes out of it, too.
    pub direct: bool,
    links: Vec<Link>,
    /// All chains behind it, in order.
    reach: Vec<usize>,
}

struct Link {
    connector: Arc<str>,
    consumed: Meter,
    ways: Vec<Way>,
    by: Option<Box<dyn Connector>>,
}

struct Way {
    /// Number of the chain, which is higher than that of the one that leads there.
    to: usize,
    chain: Arc<str>,
    produced: Meter,
}

impl Beyond {
    /// The connectors that the chain ends in.
    pub fn connectors(&self) -> impl Iterator<Item = &Arc<str>> {
        self.links.iter().map(|l| &l.connector)
    }

    /// Those of them that lead to the chain with this number, with what goes into them.
    pub fn leads_to(&self, chain: usize) -> impl Iterator<Item = (&Arc<str>, Signal)> {
        let leads = move |l: &&Link| l.ways.iter().any(|w| w.to == chain);
        let links = self.links.iter().filter(leads);
        links.map(|l| (&l.connector, self.signal))
    }
}

/// Where the chain of a number goes on, if it does.
#[derive(Clone, Copy)]
pub(super) struct Links<'a>(Option<&'a Beyond>);

impl Links<'_> {
    /// Whether `next` ends in the same connectors, which lead to the same chains.
    pub fn leads_on_as(&self, next: &NextChain) -> bool {
        let links = self.0.map_or(&[][..], |b| &b.links);
        let direct = self.0.is_none_or(|b| b.direct);
        let same_ways = |(old, new): (&Way, &NextWay)| old.chain == new.chain;
        let same = |(old, new): (&Link, &NextLink)| {
            old.connector == new.connector
                && old.ways.len() == new.ways.len()
                && old.ways.iter().zip(&new.ways).all(same_ways)
        };
        direct == next.direct
            && links.len() == next.links.len()
            && links.iter().zip(&next.links).all(same)
    }
}

/// Connects chains that will have these numbers. Empty if none ends in a connector.
pub(super) fn connect(chains: &mut [NextChain]) -> Vec<Beyond> {
    if chains.iter().all(|c| c.links.is_empty()) {
        return Vec::new();
    }
    let mut beyond: Vec<Beyond> = Vec::new();
    // From the last one, so that what is behind a chain is known.
    for i in (0..chains.len()).rev() {
        let next_links = std::mem::take(&mut chains[i].links);
        let chain = &chains[i];
        let way = |way: &NextWay| {
            let behind = chains.iter().skip(i + 1);
            let to = behind.clone().position(|c| c.id == way.chain);
            debug_assert!(to.is_some(), "what a chain leads to stands behind it");
            Some(Way {
                to: i + 1 + to?,
                chain: way.chain.clone(),
                produced: way.produced.clone(),
            })
        };
        let link = |link: NextLink| Link {
            ways: link.ways.iter().filter_map(way).collect(),
            connector: link.connector,
            consumed: link.consumed,
            by: link.by,
        };
        let links: Vec<Link> = next_links.into_iter().map(link).collect();
        let mut reach: Vec<usize> = Vec::new();
        for to in links.iter().flat_map(|l| &l.ways).map(|w| w.to) {
            reach.push(to);
            // Those before it in `beyond` are the ones with higher numbers, backwards.
            reach.extend(&beyond[chains.len() - 1 - to].reach);
        }
        reach.sort_unstable();
        reach.dedup();
        beyond.push(Beyond {
            signal: chain.signal,
            direct: chain.direct,
            links,
            reach,
        });
    }
    beyond.reverse();
    beyond
}

/// The chains behind the one with number `i`.
pub(super) fn behind<'a>(
    beyond: &'a [Beyond],
    i: usize,
    chains: &'a [Chain],
) -> impl Iterator<Item = &'a Chain> {
    let reach = beyond.get(i).map_or(&[][..], |b| &b.reach[..]);
    reach.iter().filter_map(|j| chains.get(*j))
}

impl Shard {
    /// Where chain `i` goes on.
    pub(super) fn links_of(&self, i: usize) -> Links<'_> {
        Links(self.beyond.get(i))
    }

    /// Numbers of the chains behind chain `i`, in order.
    pub(super) fn chains_behind(&self, i: usize) -> &[usize] {
        self.beyond.get(i).map_or(&[], |b| &b.reach)
    }
}

/// Where a batch goes on that comes to the end of a chain.
pub(super) struct Onward<'a> {
    this: &'a Beyond,
    /// The chains behind it in number, from `first` on.
    chains: &'a mut [Chain],
    first: usize,
    tapped: &'a [Option<Box<Tapped>>],
    beyond: &'a [Beyond],
}

impl<'a> Onward<'a> {
    /// Of chain `i`; `chains` are those behind it.
    pub fn of(
        i: usize,
        chains: &'a mut [Chain],
        tapped: &'a [Option<Box<Tapped>>],
        beyond: &'a [Beyond],
    ) -> Option<Onward<'a>> {
        let this = beyond.get(i).filter(|b| !b.links.is_empty())?;
        Some(Onward {
            this,
            chains,
            first: i + 1,
            tapped,
            beyond,
        })
    }

    /// The same for somebody who needs it for a while.
    pub fn again(&mut self) -> Onward<'_> {
        Onward {
            this: self.this,
            chains: self.chains,
            first: self.first,
            tapped: self.tapped,
            beyond: self.beyond,
        }
    }
}

impl Tail<'_> {
    /// Hands a batch to the connectors at the end, and to the exporter if it is at the end, too.
    pub(super) fn pass_on(&mut self, batch: Batch) {
        // Until the end, for what comes next.
        let Some(mut onward) = self.onward.take() else {
            return self.export(batch);
        };
        let (this, items) = (onward.this, batch.items() as u64);
        let hands = |l: &Link| l.by.as_ref().map_or(l.ways.len(), |_| 1);
        let ways = this.links.iter().map(hands).sum::<usize>();
        let mut branches = batch.fork(ways + usize::from(this.direct)).into_iter();
        if this.direct
            && let Some(branch) = branches.next()
        {
            self.export(branch);
        }
        for link in &this.links {
            (link.consumed)(items);
            let mut out = LinkOut {
                link,
                onward: &mut onward,
                tail: self,
            };
            match &link.by {
                Some(by) => {
                    if let Some(branch) = branches.next() {
                        by.pass(branch, &mut out);
                    }
                }
                None => {
                    for (way, branch) in (0..link.ways.len()).zip(&mut branches) {
                        out.emit(way, branch);
                    }
                }
            }
        }
        self.onward = Some(onward);
    }
}

/// What a connector at the end of a chain hands to.
struct LinkOut<'l, 'a, 't> {
    link: &'l Link,
    onward: &'l mut Onward<'a>,
    tail: &'l mut Tail<'t>,
}

impl Ways for LinkOut<'_, '_, '_> {
    fn emit(&mut self, way: usize, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        let Some(way) = self.link.ways.get(way) else {
            debug_assert!(false, "a connector has as many ways as it was told");
            return;
        };
        (way.produced)(batch.items() as u64);
        let onward = &mut *self.onward;
        if let Some(tapped) = of_chain(onward.tapped, way.to) {
            let giver = (&self.link.connector, onward.this.signal);
            tapped.enter(giver, &batch, self.tail.now);
        }
        let edges = (onward.tapped, onward.beyond);
        let chains = (onward.first, &mut *onward.chains);
        let (exporters, now) = (&mut *self.tail.exporters, self.tail.now);
        if let Some(mut tail) = Tail::of(way.to, chains, edges, exporters, now) {
            tail.emit(batch);
        }
    }
}
