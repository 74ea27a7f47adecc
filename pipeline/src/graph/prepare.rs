//! Building beside what runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tailwater_pdata::Signal;
use tailwater_telemetry::metrics::{ConnectorMetrics, ConnectorOutputMetrics, ProcessorMetrics};

use super::succession::{LaneKey, Reading, Sending, Waits};
use super::{Graph, Resolved};
use crate::auth::{Authenticator, Authenticators};
use crate::budget::Budget;
use crate::component::{BuildError, ExtensionNode, ReceiverNode};
use crate::factory::{ExporterSettings, NodeCx, ProcessorSettings, ReceiverSettings, Succession};
use crate::lanes::{Lane, Wiring, lanes};
use crate::plan::{Change, GraphSpec, NodeKey, Plan, plan};
use crate::shard::{NextChain, NextLink, NextStage, NextWay, Stage};

/// New parts, built but not started, and what stays.
pub struct Prepared {
    pub(super) receivers: Vec<Reading>,
    pub(super) exporters: Vec<Sending>,
    pub(super) extensions: Vec<(String, Box<dyn ExtensionNode>)>,
    /// Per shard: its chains.
    pub(super) chains: Vec<Vec<NextChain>>,
    /// Of the lanes of receivers that stay, by name: the chains they feed.
    pub(super) feeds: Vec<(Arc<str>, Vec<Arc<str>>)>,
    /// What lanes of receivers that stay take over.
    pub(super) successors: Vec<(LaneKey, Box<dyn ReceiverNode>)>,
    /// Lanes of receivers, and ids of extensions, that stay.
    pub(super) lanes_kept: BTreeSet<LaneKey>,
    /// Ids of receivers that begin when nothing of those before them is under way.
    pub(super) waiting: BTreeSet<String>,
    pub(super) extensions_kept: BTreeSet<String>,
    pub(super) exporters_kept: BTreeSet<(String, Signal)>,
    pub(super) settings: BTreeMap<String, Box<dyn ReceiverSettings>>,
    /// Memory of each destination.
    pub(super) parts: BTreeMap<String, Arc<Budget>>,
    pub(super) pipelines: Vec<Wiring>,
    pub(super) spec: GraphSpec,
    /// The generation it was prepared for.
    pub(super) base: u64,
    /// What changes.
    pub plan: Plan,
}

impl Graph {
    /// What has to change to get to `wanted`.
    ///
    /// # Errors
    /// A receiver cannot take the change while the agent runs; every one that cannot.
    pub fn plan(&self, wanted: &Resolved) -> Result<Plan, Vec<BuildError>> {
        let mut refused: BTreeMap<&str, BuildError> = BTreeMap::new();
        let mut in_place = BTreeSet::new();
        for (id, settings) in &wanted.receivers {
            let Some(running) = self.settings.get(id) else {
                continue;
            };
            if receiver_text(&self.spec, id) == receiver_text(&wanted.spec, id) {
                continue;
            }
            match settings.succession(&**running) {
                Succession::InPlace => {
                    in_place.insert(id.as_str());
                }
                Succession::Restart(why) => {
                    let node = format!("receiver {id:?}");
                    refused.insert(id, BuildError::new(node, why));
                }
                Succession::Replace => {}
            }
        }
        if !refused.is_empty() {
            return Err(refused.into_values().collect());
        }
        let updates = |key: &NodeKey, _: &str, _: &str| match key {
            NodeKey::Receiver { id, .. } => in_place.contains(id.as_str()),
            _ => false,
        };
        Ok(plan(&self.spec, &wanted.spec, &updates))
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
    /// A node cannot be built, or the change cannot be made while the agent runs; what was built is
    /// dropped.
    pub fn prepare(&self, wanted: Resolved) -> Result<Prepared, BuildError> {
        let plan = self.plan(&wanted).map_err(join)?;
        let stays = |key: &NodeKey| plan.change(key) == Some(Change::Keep);
        let mut p = Prepared {
            receivers: Vec::new(),
            exporters: Vec::new(),
            extensions: Vec::new(),
            chains: Vec::new(),
            feeds: Vec::new(),
            successors: Vec::new(),
            lanes_kept: BTreeSet::new(),
            waiting: BTreeSet::new(),
            extensions_kept: BTreeSet::new(),
            exporters_kept: BTreeSet::new(),
            settings: BTreeMap::new(),
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
        self.prepare_exporters(&wanted, &stays, &authenticators, &mut p)?;
        for _ in &self.shards {
            let ends = |w| Wiring::ends(w).map(move |exporter| (w, exporter));
            let ends = wanted.pipelines.iter().flat_map(ends);
            let chains = ends.map(|(w, exporter)| self.chain(w, exporter, &wanted));
            p.chains.push(chains.collect::<Result<_, _>>()?);
        }
        self.prepare_receivers(&wanted, &authenticators, &mut p)?;
        p.settings = wanted.receivers;
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
        let offer =
            |(id, e): &(String, Box<dyn ExtensionNode>)| -> Option<(String, Authenticator)> {
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
                    node: ExporterSettings::build(&**settings, &cx)?,
                    waits: Waits::default(),
                    gate: None,
                });
            }
        }
        Ok(())
    }

    /// Lanes of a receiver that stay: all as they are, or with new settings and beside new lanes, if
    /// the receiver can. Another one takes the place of any other.
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
            let (mut lanes, feeds): (Vec<Lane>, Vec<_>) =
                lanes(id, &wanted.pipelines, &self.cx.metrics, part)
                    .into_iter()
                    .unzip();
            let same_text = receiver_text(&self.spec, id) == receiver_text(&wanted.spec, id);
            let same = same_text && self.has_lanes(id, &lanes);
            let succession = self.settings.get(id).map(|r| settings.succession(&**r));
            let mut stay = vec![false; lanes.len()];
            if same || succession == Some(Succession::InPlace) {
                for ((lane, feeds), stays) in lanes.iter_mut().zip(&feeds).zip(&mut stay) {
                    let mut running = self.receivers.iter();
                    let is_it = |r: &&Reading| r.id == *id && r.lane.is_like(lane);
                    if let Some(running) = running.find(is_it) {
                        // As long as it runs it has the name that it began with.
                        *lane = running.lane.clone();
                        *stays = true;
                        p.lanes_kept.insert(running.key());
                        p.feeds.push((lane.name(id).into(), feeds.clone()));
                    }
                }
            }
            if same {
                continue;
            }
            let cx = NodeCx {
                authenticators: authenticators.clone(),
                ..self.cx_of(id, None)
            };
            let nodes = settings.build(&cx, &lanes)?;
            if settings.takes_in_again() {
                p.waiting.insert(id.clone());
            }
            let readings = lanes.into_iter().zip(feeds).zip(nodes);
            for (((lane, feeds), node), stays) in readings.zip(stay) {
                let next = Reading {
                    id: id.clone(),
                    lane,
                    feeds,
                    node,
                    waits: Waits::default(),
                };
                match stays {
                    true => p.successors.push((next.key(), next.node)),
                    false => p.receivers.push(next),
                }
            }
        }
        Ok(())
    }

    /// Whether the receiver `id` runs with these lanes.
    fn has_lanes(&self, id: &str, lanes: &[Lane]) -> bool {
        let running = || self.receivers.iter().filter(|r| r.id == id);
        let runs = |lane: &Lane| running().any(|r| r.lane.is_like(lane));
        running().count() == lanes.len() && lanes.iter().all(runs)
    }

    /// The chain of a pipeline that ends in `exporter`: of a chain that runs already, the processors
    /// with the same settings stay.
    fn chain(
        &self,
        w: &Wiring,
        exporter: &str,
        wanted: &Resolved,
    ) -> Result<NextChain, BuildError> {
        let cx = |id| NodeCx {
            metrics: w.metrics(exporter, &self.cx.metrics),
            signal: Some(w.signal),
            ..self.cx_of(id, Some(&w.chain_id(exporter)))
        };
        let runs = |r: &&Wiring| r.id == w.id && r.leads_to(exporter);
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
                processor: ProcessorSettings::build(&**settings, &cx)?,
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
            direct: w.exporters.iter().any(|e| e == exporter),
            links: self.links(w, exporter, wanted)?,
        })
    }

    /// The connectors at the end of a pipeline that lead on to `exporter`.
    fn links(
        &self,
        w: &Wiring,
        exporter: &str,
        wanted: &Resolved,
    ) -> Result<Vec<NextLink>, BuildError> {
        let (metrics, signal) = (w.metrics(exporter, &self.cx.metrics), w.signal.as_str());
        let mut links = Vec::new();
        for onward in &w.connectors {
            let id = &onward.connector;
            let behind = wanted.pipelines.iter();
            let behind = behind.filter(|b| onward.pipelines.contains(&b.id));
            let behind: Vec<&Wiring> = behind.filter(|b| b.leads_to(exporter)).collect();
            let way = |b: &Wiring| {
                let out = ConnectorOutputMetrics::new(&metrics, id, signal, &b.id);
                NextWay {
                    chain: b.chain_id(exporter),
                    produced: Arc::new(move |n| out.produced_items.inc_by(n)),
                }
            };
            let ways: Vec<NextWay> = behind.iter().map(|b| way(b)).collect();
            if ways.is_empty() {
                continue;
            }
            let cx = NodeCx {
                metrics: metrics.clone(),
                signal: Some(w.signal),
                ..self.cx_of(id, Some(&w.chain_id(exporter)))
            };
            let names: Vec<&str> = behind.iter().map(|b| &*b.id).collect();
            let by = match wanted.connectors.get(id) {
                Some(settings) => settings.build(&cx, &names)?,
                None => None,
            };
            let consumed = ConnectorMetrics::new(&metrics, id, signal);
            links.push(NextLink {
                connector: id.as_str().into(),
                consumed: Arc::new(move |n| consumed.consumed_items.inc_by(n)),
                ways,
                by,
            });
        }
        Ok(links)
    }
}

/// The settings of the receiver `id`.
fn receiver_text<'a>(spec: &'a GraphSpec, id: &str) -> Option<&'a str> {
    let of = |(key, _): &(&NodeKey, _)| matches!(key, NodeKey::Receiver { id: other, .. } if other == id);
    let node = spec.nodes.iter().find(of);
    node.map(|(_, n)| n.settings.as_str())
}

/// All of them in one.
fn join(mut errors: Vec<BuildError>) -> BuildError {
    let first = errors.remove(0);
    let rest = errors.iter().map(|e| format!("; {e}"));
    let text = std::iter::once(first.message)
        .chain(rest)
        .collect::<String>();
    BuildError::new(first.node, text)
}
