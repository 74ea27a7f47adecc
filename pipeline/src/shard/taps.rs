//! Where taps are in the chains of a shard.

use std::sync::Arc;

use tailwater_pdata::Signal;

use super::beyond::Beyond;
use super::{Chain, Feed, Shard};
use crate::batch::Batch;
use crate::clock::Mono;
use crate::plan::NodeKey;
use crate::tap::{Edge, Probe};

/// A tap on an edge.
pub(super) struct Spot {
    probe: Arc<Probe>,
    edge: Arc<Edge>,
}

impl Spot {
    pub fn offer(&self, batch: &Batch, now: Mono) {
        self.probe.offer(batch, &self.edge, now);
    }
}

/// The taps on the edges of a chain.
#[derive(Default)]
pub(super) struct Tapped {
    /// Between receivers or connectors and the chain, by their ids, which differ, and what goes into
    /// the connectors.
    entry: Vec<(Arc<str>, Signal, Spot)>,
    /// Before each stage, and behind the last one.
    pub edges: Vec<Vec<Spot>>,
}

impl Tapped {
    /// A receiver or a connector hands a batch to the chain.
    pub fn enter(&self, giver: (&Arc<str>, Signal), batch: &Batch, now: Mono) {
        for (from, signal, spot) in &self.entry {
            if (from, *signal) == giver {
                spot.offer(batch, now);
            }
        }
    }

    fn of(
        number: usize,
        chain: &Chain,
        beyond: &[Beyond],
        feeds: &[Feed],
        probes: &[Arc<Probe>],
    ) -> Option<Box<Tapped>> {
        let signal = || chain.signal.as_str().to_owned();
        let exporter = chain.exporters.first()?;
        let pipeline = NodeKey::Pipeline(chain.pipeline.to_string()).to_string();
        let stages = chain.processors.iter().map(|stage| NodeKey::Processor {
            pipeline: chain.pipeline.to_string(),
            id: stage.id.to_string(),
        });
        let end = NodeKey::Exporter {
            id: exporter.to_string(),
            signal: signal(),
        };
        let (direct, connectors) = match beyond.get(number) {
            Some(beyond) => (beyond.direct, beyond.connectors().collect()),
            None => (true, Vec::new()),
        };
        let connectors = connectors.into_iter().map(|c| connector(c, chain.signal));
        let ends = direct.then_some(end).into_iter().chain(connectors);
        let ends: Vec<String> = ends.map(|key| key.to_string()).collect();
        let nodes: Vec<String> = stages.map(|key| key.to_string()).collect();
        let mut any = false;
        let mut spots = |from: &str, to: &str| -> Vec<Spot> {
            let on = probes.iter().filter(|p| p.is_on(from, to));
            let edge = Edge {
                from: from.to_owned(),
                to: to.to_owned(),
                pipeline: chain.pipeline.clone(),
                exporter: exporter.clone(),
            };
            let edge = Arc::new(edge);
            let spot = |probe: &Arc<Probe>| Spot {
                probe: probe.clone(),
                edge: edge.clone(),
            };
            let spots: Vec<Spot> = on.map(spot).collect();
            any |= !spots.is_empty();
            spots
        };
        let mut tapped = Tapped::default();
        let mut from = pipeline.as_str();
        for to in &nodes {
            tapped.edges.push(spots(from, to));
            from = to;
        }
        let last = ends.iter().flat_map(|to| spots(from, to)).collect();
        tapped.edges.push(last);
        let mut receivers: Vec<&Arc<str>> = Vec::new();
        let fed = feeds.iter().filter(|f| f.pipelines.contains(&chain.id));
        for receiver in fed.map(|f| &f.receiver) {
            if receivers.contains(&receiver) {
                continue;
            }
            receivers.push(receiver);
            let key = NodeKey::Receiver {
                id: receiver.to_string(),
                signal: signal(),
            };
            let spots = spots(&key.to_string(), &pipeline).into_iter();
            let entry = spots.map(|spot| (receiver.clone(), chain.signal, spot));
            tapped.entry.extend(entry);
        }
        let mut givers: Vec<(&Arc<str>, Signal)> = Vec::new();
        for giver in beyond.iter().flat_map(|b| b.leads_to(number)) {
            if givers.contains(&giver) {
                continue;
            }
            givers.push(giver);
            let (id, signal) = giver;
            let from = connector(id, signal).to_string();
            let entry = spots(&from, &pipeline).into_iter();
            let entry = entry.map(|spot| (id.clone(), signal, spot));
            tapped.entry.extend(entry);
        }
        any.then(|| Box::new(tapped))
    }
}

fn connector(id: &Arc<str>, signal: Signal) -> NodeKey {
    NodeKey::Connector {
        id: id.to_string(),
        signal: signal.as_str().to_owned(),
    }
}

impl Shard {
    /// From now on there are these taps, and no others.
    pub fn set_taps(&mut self, probes: Vec<Arc<Probe>>) {
        self.probes = probes;
        self.attach_taps();
    }

    /// Whether there is a tap on one of its chains.
    #[cfg(test)]
    pub(crate) fn is_tapped(&self) -> bool {
        self.tapped.iter().any(Option::is_some)
    }

    /// Puts the taps on the edges that there are now.
    pub(super) fn attach_taps(&mut self) {
        if self.probes.is_empty() {
            self.tapped = Vec::new();
            return;
        }
        let chains = self.chains.iter().enumerate();
        self.tapped = chains
            .map(|(i, chain)| Tapped::of(i, chain, &self.beyond, &self.feeds, &self.probes))
            .collect();
    }
}

/// The taps of the chain with this number.
pub(super) fn of_chain(tapped: &[Option<Box<Tapped>>], chain: usize) -> Option<&Tapped> {
    tapped.get(chain)?.as_deref()
}
