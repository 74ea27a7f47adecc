//! The running graph: validated settings become nodes, nodes become chains in shards.
//!
//! `resolve` (decode everything, all mistakes at once) -> [`plan`](crate::plan::plan) ->
//! [`Graph::prepare`] (build beside, nothing spawned) -> [`Prepared::commit`] (start, install at a
//! batch boundary). A failure before commit drops the new parts; there is no restore path.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tailwater_config::{
    self as config, ComponentEntry, ComponentKind as Kind, ConfigError, ConfigFile, Errors,
    NodeValue, Reference, canonical_type, is_collector_type, nearest,
};
use tailwater_pdata::Signal;
use tailwater_telemetry::metrics::{Accounting, EngineMetrics, ProcessorMetrics};

use crate::ack::DropReason;
use crate::auth::{self, Authenticators};
use crate::clock::{Clock, Mono};
use crate::component::{BuildError, ExporterNode, ExtensionNode, ReceiverNode};
use crate::factory::{
    ExporterSettings, ExtensionSettings, Factory, NodeCx, ProcessorSettings, ReceiverSettings,
    Registry,
};
use crate::handover::Outlet;
use crate::lanes::{Lane, Wiring, lanes};
use crate::plan::{GraphSpec, NodeKey, NodeSpec, Plan, canonical, plan};
use crate::reach::Reach;
use crate::shard::{Chain, ShardThread, Stage};

/// Every component of a configuration, decoded and validated.
#[derive(Default)]
pub struct Resolved {
    receivers: BTreeMap<String, Box<dyn ReceiverSettings>>,
    processors: BTreeMap<String, Box<dyn ProcessorSettings>>,
    exporters: BTreeMap<String, Box<dyn ExporterSettings>>,
    extensions: Vec<(String, Box<dyn ExtensionSettings>)>,
    pipelines: Vec<Wiring>,
    /// The graph as the plan sees it.
    pub spec: GraphSpec,
}

impl Resolved {
    /// What the components of the pipelines, and the extensions, use of the file system.
    pub fn reach(&self) -> Reach {
        let mut reach = Reach::default();
        for (id, receiver) in &self.receivers {
            if self.pipelines.iter().any(|p| p.receivers.contains(id)) {
                receiver.reach(&mut reach);
            }
        }
        for (id, exporter) in &self.exporters {
            if self.pipelines.iter().any(|p| p.exporters.contains(id)) {
                exporter.reach(&mut reach);
            }
        }
        for (_, extension) in &self.extensions {
            extension.reach(&mut reach);
        }
        reach
    }
}

/// Decodes and validates every component of `file`, the unreferenced ones included. All problems
/// and warnings go to `errors`; `None` if it holds a problem, its own or an earlier one.
pub fn resolve(file: &ConfigFile, registry: &Registry, errors: &mut Errors) -> Option<Resolved> {
    let mut out = Resolved::default();
    for e in &file.connectors {
        let (ty, id) = (e.id.type_name(), e.id.to_string());
        let text = format!("unknown type: {ty:?} for id: {id:?}; connectors are not supported yet");
        let path = e.path(Kind::Connector);
        errors.push(ConfigError::new(e.span.clone(), path, text));
    }
    decode_all(
        &file.receivers,
        Kind::Receiver,
        &registry.receivers,
        errors,
        |id, s| {
            out.receivers.insert(id, s);
        },
    );
    decode_all(
        &file.processors,
        Kind::Processor,
        &registry.processors,
        errors,
        |id, s| {
            out.processors.insert(id, s);
        },
    );
    decode_all(
        &file.exporters,
        Kind::Exporter,
        &registry.exporters,
        errors,
        |id, s| {
            out.exporters.insert(id, s);
        },
    );
    let mut extensions: BTreeMap<String, Box<dyn ExtensionSettings>> = BTreeMap::new();
    decode_all(
        &file.extensions,
        Kind::Extension,
        &registry.extensions,
        errors,
        |id, s| {
            extensions.insert(id, s);
        },
    );
    check_signals(file, registry, errors);
    for (id, processor) in &out.processors {
        let named = |p: &&config::Pipeline| p.processors.iter().any(|r| r.id.to_string() == *id);
        let pipelines = file.service.pipelines.iter().filter(named);
        let signals: BTreeSet<Signal> = pipelines.map(|p| signal_of(p.id.signal)).collect();
        signals
            .into_iter()
            .for_each(|signal| processor.check(signal, errors));
    }
    let roles = |id: &str| extensions.get(id).map(|s| s.authenticates());
    auth::check(file, roles, errors);
    crate::client::check(file, errors);
    if !errors.is_empty() {
        return None;
    }
    for id in &file.service.extensions {
        if let Some(s) = extensions.remove(&id.id.to_string()) {
            out.extensions.push((id.id.to_string(), s));
        }
    }
    wire(file, &mut out);
    Some(out)
}

fn decode_all<S: ?Sized>(
    entries: &[ComponentEntry],
    kind: Kind,
    factories: &[Factory<S>],
    errors: &mut Errors,
    mut keep: impl FnMut(String, Box<S>),
) {
    for e in entries {
        // What is no map was reported when the file was read.
        if !matches!(e.node.value, NodeValue::Null | NodeValue::Map(_)) {
            continue;
        }
        let id = e.id.to_string();
        let wanted = canonical_type(kind, e.id.type_name()).name;
        match factories.iter().find(|f| f.kind == wanted) {
            Some(factory) => {
                if let Some(settings) = (factory.decode)(&e.node, &e.path(kind), errors) {
                    keep(id, settings);
                }
            }
            None => errors.push(unknown_type(e, kind, factories)),
        }
    }
}

fn unknown_type<S: ?Sized>(
    e: &ComponentEntry,
    kind: Kind,
    factories: &[Factory<S>],
) -> ConfigError {
    let kinds: Vec<&str> = factories.iter().map(|f| f.kind).collect();
    let (id, ty) = (e.id.to_string(), e.id.type_name());
    let known = is_collector_type(kind, ty);
    let message = match (kind, ty) {
        (Kind::Exporter, "logging") => {
            "the logging exporter has been deprecated, use the debug exporter instead".to_owned()
        }
        _ if known => format!(
            "unknown type: {ty:?} for id: {id:?}: the collector has this {kind}, this build does not"
        ),
        _ => format!("unknown type: {ty:?} for id: {id:?}"),
    };
    let meant = nearest(ty, kinds.iter().copied()).filter(|_| !known);
    ConfigError::new(e.span.clone(), e.path(kind), message)
        .allowed(kinds.join(", "))
        .suggest(meant)
}

/// A component must support the signal of the pipeline it is used in. What is not configured or of
/// an unknown type was reported as that.
fn check_signals(file: &ConfigFile, registry: &Registry, errors: &mut Errors) {
    fn signals_of<S: ?Sized>(
        factories: &[Factory<S>],
        ty: &str,
    ) -> Option<&'static [&'static str]> {
        let factory = factories.iter().find(|f| f.kind == ty);
        factory.map(|f| f.signals)
    }
    for p in &file.service.pipelines {
        let signal = p.id.signal.as_str();
        let ends = [
            (Kind::Receiver, &p.receivers),
            (Kind::Processor, &p.processors),
            (Kind::Exporter, &p.exporters),
        ];
        for (kind, r) in ends
            .iter()
            .flat_map(|(kind, list)| list.iter().map(|r| (*kind, r)))
        {
            let ty = canonical_type(kind, r.id.type_name()).name;
            let signals = match kind {
                Kind::Receiver => signals_of(&registry.receivers, ty),
                Kind::Processor => signals_of(&registry.processors, ty),
                _ => signals_of(&registry.exporters, ty),
            };
            let configured = file.component(kind, &r.id).is_some();
            if configured && signals.is_some_and(|s| !s.contains(&signal)) {
                let text = format!("{kind} \"{}\" does not support {signal} yet", r.id);
                let path = format!("service::pipelines::{}", p.id);
                errors.push(ConfigError::new(r.span.clone(), path, text));
            }
        }
    }
}

fn signal_of(signal: config::Signal) -> Signal {
    match signal {
        config::Signal::Logs => Signal::Logs,
        config::Signal::Metrics => Signal::Metrics,
        config::Signal::Traces => Signal::Traces,
    }
}

/// Builds the plan's view of the graph and the wiring of pipelines.
fn wire(file: &ConfigFile, out: &mut Resolved) {
    let text = |entries: &[ComponentEntry], id: &str| {
        entries
            .iter()
            .find(|e| e.id.to_string() == id)
            .map(|e| canonical(&e.node))
            .unwrap_or_default()
    };
    let mut nodes: BTreeMap<NodeKey, NodeSpec> = BTreeMap::new();
    for (id, _) in &out.extensions {
        let settings = text(&file.extensions, id);
        nodes.insert(
            NodeKey::Extension(id.clone()),
            NodeSpec {
                settings,
                outputs: vec![],
            },
        );
    }
    for p in &file.service.pipelines {
        let (pipeline, signal) = (p.id.to_string(), p.id.signal.as_str().to_owned());
        let ids =
            |list: &[Reference]| -> Vec<String> { list.iter().map(|r| r.id.to_string()).collect() };
        let (receivers, processors, exporters) =
            (ids(&p.receivers), ids(&p.processors), ids(&p.exporters));
        let ends: Vec<NodeKey> = exporters
            .iter()
            .map(|id| NodeKey::Exporter {
                id: id.clone(),
                signal: signal.clone(),
            })
            .collect();
        for (id, key) in exporters.iter().zip(&ends) {
            let settings = text(&file.exporters, id);
            nodes.insert(
                key.clone(),
                NodeSpec {
                    settings,
                    outputs: vec![],
                },
            );
        }
        let stages: Vec<NodeKey> = processors
            .iter()
            .map(|id| NodeKey::Processor {
                pipeline: pipeline.clone(),
                id: id.clone(),
            })
            .collect();
        for (i, key) in stages.iter().enumerate() {
            let outputs = match stages.get(i + 1) {
                Some(next) => vec![next.clone()],
                None => ends.clone(),
            };
            let settings = text(&file.processors, &processors[i]);
            nodes.insert(key.clone(), NodeSpec { settings, outputs });
        }
        let first = stages.first().map_or(ends, |k| vec![k.clone()]);
        let key = NodeKey::Pipeline(pipeline.clone());
        nodes.insert(
            key.clone(),
            NodeSpec {
                settings: String::new(),
                outputs: first,
            },
        );
        for id in &receivers {
            let receiver = NodeKey::Receiver {
                id: id.clone(),
                signal: signal.clone(),
            };
            let spec = nodes.entry(receiver).or_default();
            spec.settings = text(&file.receivers, id);
            spec.outputs.push(key.clone());
        }
        out.pipelines.push(Wiring {
            id: pipeline,
            signal: signal_of(p.id.signal),
            receivers,
            processors,
            exporters,
        });
    }
    out.spec = GraphSpec { nodes };
}

/// The running graph and its shards.
pub struct Graph {
    cx: NodeCx,
    engine: Arc<EngineMetrics>,
    shards: Vec<ShardThread>,
    receivers: Vec<Reading>,
    exporters: Vec<Sending>,
    extensions: Vec<(String, Box<dyn ExtensionNode>)>,
    spec: GraphSpec,
    generation: u64,
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

/// New parts, built but not started.
pub struct Prepared {
    receivers: Vec<Reading>,
    exporters: Vec<Sending>,
    extensions: Vec<(String, Box<dyn ExtensionNode>)>,
    /// Per shard: its chains.
    chains: Vec<Vec<Chain>>,
    spec: GraphSpec,
    /// What changes.
    pub plan: Plan,
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
            spec: GraphSpec::default(),
            generation: 0,
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

    /// Builds what `wanted` needs, beside whatever runs. Nothing is spawned or stopped.
    pub fn prepare(&self, wanted: &Resolved) -> Result<Prepared, BuildError> {
        let plan = plan(&self.spec, &wanted.spec, &|_, _, _| false);
        let mut extensions = Vec::new();
        for (id, settings) in &wanted.extensions {
            extensions.push((id.clone(), settings.build(&self.cx_of(id, None))?));
        }
        let offers =
            |(id, e): &(String, Box<dyn ExtensionNode>)| Some((id.clone(), e.authenticator()?));
        let authenticators: Authenticators = extensions.iter().filter_map(offers).collect();
        let used = |f: fn(&Wiring) -> &Vec<String>| {
            let mut ids: Vec<&String> = wanted.pipelines.iter().flat_map(f).collect();
            ids.sort();
            ids.dedup();
            ids
        };
        let ends = wanted.pipelines.iter();
        let ends: BTreeSet<(&String, Signal)> = ends
            .flat_map(|w| w.exporters.iter().map(|id| (id, w.signal)))
            .collect();
        let mut exporters = Vec::new();
        for (id, signal) in ends {
            if let Some(settings) = wanted.exporters.get(id) {
                let cx = NodeCx {
                    signal: Some(signal),
                    authenticators: authenticators.clone(),
                    ..self.cx_of(id, None)
                };
                exporters.push(Sending {
                    id: id.clone(),
                    signal,
                    node: settings.build(&cx)?,
                });
            }
        }
        let chains = (0..self.shards.len())
            .map(|_| {
                let ends = |w| Wiring::ends(w).map(move |exporter| (w, exporter));
                let ends = wanted.pipelines.iter().flat_map(ends);
                ends.map(|(w, exporter)| self.chain(w, exporter, wanted))
                    .collect()
            })
            .collect::<Result<Vec<Vec<Chain>>, BuildError>>()?;
        let destinations = used(|w| &w.exporters);
        let parts: BTreeMap<&str, _> = destinations
            .iter()
            .map(|id| (id.as_str(), self.cx.budget.part_of(destinations.len())))
            .collect();
        let part = |exporter: &str| parts.get(exporter).unwrap_or(&self.cx.budget).clone();
        let mut receivers = Vec::new();
        for id in used(|w| &w.receivers) {
            let Some(settings) = wanted.receivers.get(id) else {
                continue;
            };
            let (lanes, feeds): (Vec<Lane>, Vec<_>) =
                lanes(id, &wanted.pipelines, &self.cx.metrics, part)
                    .into_iter()
                    .unzip();
            let cx = NodeCx {
                authenticators: authenticators.clone(),
                ..self.cx_of(id, None)
            };
            let nodes = settings.build(&cx, &lanes)?;
            let readings = lanes.into_iter().zip(feeds).zip(nodes);
            receivers.extend(readings.map(|((lane, feeds), node)| Reading {
                id: id.clone(),
                lane,
                feeds,
                node,
            }));
        }
        let spec = wanted.spec.clone();
        Ok(Prepared {
            receivers,
            exporters,
            extensions,
            chains,
            spec,
            plan,
        })
    }

    /// The chain of a pipeline that ends in `exporter`.
    fn chain(&self, w: &Wiring, exporter: &str, wanted: &Resolved) -> Result<Chain, BuildError> {
        let cx = |id| NodeCx {
            metrics: w.metrics(exporter, &self.cx.metrics),
            signal: Some(w.signal),
            ..self.cx_of(id, Some(&w.chain_id(exporter)))
        };
        let mut processors = Vec::new();
        for id in &w.processors {
            let Some(settings) = wanted.processors.get(id) else {
                continue;
            };
            let cx = cx(id);
            let metrics = ProcessorMetrics::new(&cx.metrics, id, w.signal.as_str());
            let (incoming, outgoing) = (metrics.clone(), metrics);
            processors.push(Stage {
                processor: settings.build(&cx)?,
                incoming: Arc::new(move |n| incoming.incoming_items.inc_by(n)),
                outgoing: Arc::new(move |n| outgoing.outgoing_items.inc_by(n)),
            });
        }
        Ok(Chain {
            id: w.chain_id(exporter),
            signal: w.signal,
            processors,
            exporters: vec![exporter.into()],
        })
    }

    /// Starts and installs what was prepared. On a start error everything that was started is
    /// stopped again and the error returned.
    pub fn commit(&mut self, mut p: Prepared) -> Result<(), BuildError> {
        for (id, e) in &mut p.extensions {
            e.start().map_err(|e| self.start_failed(id, e))?;
        }
        for e in &mut p.exporters {
            e.node
                .start()
                .map_err(|err| self.start_failed(&e.id, err))?;
        }
        for (shard, chains) in self.shards.iter().zip(p.chains) {
            let handle = shard.handle();
            let fronts: Vec<_> = p
                .exporters
                .iter_mut()
                .map(|e| Outlet {
                    key: Arc::from(e.id.as_str()),
                    signal: e.signal,
                    exporter: e.node.front(handle),
                    account: Accounting::new(
                        &self.cx.metrics,
                        "exporter",
                        &e.id,
                        DropReason::NAMES,
                    ),
                })
                .collect();
            let sources: Vec<_> = p
                .receivers
                .iter_mut()
                .map(|r| {
                    let name = Arc::from(r.lane.name(&r.id));
                    (name, r.node.source(handle), r.feeds.clone())
                })
                .collect();
            shard.run(Box::new(move |s| {
                fronts.into_iter().for_each(|outlet| s.add_exporter(outlet));
                chains.into_iter().for_each(|c| s.add_chain(c));
                for (id, source, feeds) in sources {
                    s.add_source(id, source, feeds);
                }
            }));
        }
        for r in &mut p.receivers {
            r.node.start().map_err(|e| self.start_failed(&r.id, e))?;
        }
        p.extensions
            .iter_mut()
            .for_each(|(_, e)| e.pipelines_ready(true));
        self.receivers.extend(p.receivers);
        self.exporters.extend(p.exporters);
        self.extensions.extend(p.extensions);
        self.spec = p.spec;
        self.generation += 1;
        self.engine
            .config_generation
            .set(i64::try_from(self.generation).unwrap_or(i64::MAX));
        Ok(())
    }

    fn start_failed(&self, id: &str, e: BuildError) -> BuildError {
        BuildError::new(e.node, format!("cannot start {id}: {}", e.message))
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
