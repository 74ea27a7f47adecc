//! From a configuration to validated settings, the wiring of pipelines and what the plan compares.

use std::collections::{BTreeMap, BTreeSet};

use tailwater_config::{
    self as config, ComponentEntry, ComponentKind as Kind, ConfigError, ConfigFile, Errors, Node,
    NodeValue, Reference, canonical_type, is_collector_type, nearest,
};
use tailwater_pdata::Signal;

use super::connectors::{self, Connectors};
use crate::auth;
use crate::factory::{
    ExporterSettings, ExtensionSettings, Factory, ProcessorSettings, ReceiverSettings, Registry,
};
use crate::lanes::{Wiring, in_order};
use crate::plan::{GraphSpec, NodeKey, NodeSpec, canonical};
use crate::reach::Reach;

/// Every component of a configuration, decoded and validated.
#[derive(Default)]
pub struct Resolved {
    pub(super) receivers: BTreeMap<String, Box<dyn ReceiverSettings>>,
    pub(super) processors: BTreeMap<String, Box<dyn ProcessorSettings>>,
    pub(super) exporters: BTreeMap<String, Box<dyn ExporterSettings>>,
    pub(super) connectors: Connectors,
    pub(super) extensions: Vec<(String, Box<dyn ExtensionSettings>)>,
    pub(super) pipelines: Vec<Wiring>,
    /// The graph as the plan sees it.
    pub spec: GraphSpec,
}

impl Resolved {
    /// The receivers of the pipelines that keep positions in a storage extension, each with its id.
    pub fn positions(&self) -> impl Iterator<Item = (&str, String)> {
        let running = |id: &str| {
            let mut named = self.pipelines.iter().flat_map(|p| &p.receivers);
            named.any(|r| r == id)
        };
        let receivers = self.receivers.iter().filter(move |(id, _)| running(id));
        receivers.filter_map(|(id, receiver)| Some((id.as_str(), receiver.storage()?)))
    }

    /// What the components of the pipelines, and the extensions, use of the file system.
    pub fn reach(&self) -> Reach {
        let mut reach = Reach::default();
        for (id, receiver) in &self.receivers {
            if self.pipelines.iter().any(|p| p.receivers.contains(id)) {
                receiver.reach(&mut reach);
            }
        }
        for (id, processor) in &self.processors {
            if self.pipelines.iter().any(|p| p.processors.contains(id)) {
                processor.reach(&mut reach);
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
    decode_all(
        &file.connectors,
        Kind::Connector,
        &registry.connectors,
        errors,
        |id, s| {
            out.connectors.insert(id, s);
        },
    );
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
    connectors::check(file, registry, &out.connectors, errors);
    for (id, processor) in &out.processors {
        let named = |p: &&config::Pipeline| p.processors.iter().any(|r| r.id.to_string() == *id);
        let pipelines = file.service.pipelines.iter().filter(named);
        let signals: BTreeSet<Signal> = pipelines.map(|p| signal_of(p.id.signal)).collect();
        signals
            .into_iter()
            .for_each(|signal| processor.check(signal, errors));
    }
    let roles = |id: &str| extensions.get(id).map(|s| s.authenticates());
    let carries = |id: &str| out.exporters.get(id).is_none_or(|s| s.carries_clients());
    auth::check(file, roles, carries, errors);
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
        (Kind::Extension, "pprof") => format!(
            "unknown type: {ty:?} for id: {id:?}: it serves profiles of the runtime of Go, which this agent does \
             not have; take it out. Where the agent's time goes is told by perf, what it does by its metrics, \
             by top and by diagnostics"
        ),
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

pub(super) fn signal_of(signal: config::Signal) -> Signal {
    match signal {
        config::Signal::Logs => Signal::Logs,
        config::Signal::Metrics => Signal::Metrics,
        config::Signal::Traces => Signal::Traces,
    }
}

/// Builds the plan's view of the graph and the wiring of pipelines.
fn wire(file: &ConfigFile, out: &mut Resolved) {
    let text = |entries: &[ComponentEntry], id: &str| {
        let named = entries.iter().find(|e| e.id.to_string() == id);
        let mut text = named.map(|e| canonical(&e.node)).unwrap_or_default();
        // Who uses an extension is another one when that is.
        if let Some(e) = named {
            used_extensions(&e.node, &file.extensions, &mut |x| {
                text.push_str(&canonical(&x.node));
            });
        }
        text
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
    let mut pipelines = Vec::new();
    for p in &file.service.pipelines {
        let (pipeline, signal) = (p.id.to_string(), p.id.signal.as_str().to_owned());
        let ids =
            |list: &[Reference]| -> Vec<String> { list.iter().map(|r| r.id.to_string()).collect() };
        let is_connector = |r: &&Reference| file.component(Kind::Connector, &r.id).is_some();
        let split = |list: &[Reference]| -> (Vec<Reference>, Vec<Reference>) {
            list.iter().cloned().partition(|r| is_connector(&r))
        };
        let (from, receivers) = split(&p.receivers);
        let (into, exporters) = split(&p.exporters);
        let (receivers, processors, exporters) =
            (ids(&receivers), ids(&p.processors), ids(&exporters));
        let end = |id: &String| NodeKey::Exporter {
            id: id.clone(),
            signal: signal.clone(),
        };
        let connector = |id: String| NodeKey::Connector {
            id,
            signal: signal.clone(),
        };
        // A connector is one for each signal that goes into it.
        let behind = |id: &String| -> Vec<NodeKey> {
            let is_used = |p: &&config::Pipeline| {
                let gives = connectors::gives(&out.connectors, id, signal_of(p.id.signal));
                gives.as_str() == signal && p.exporters.iter().any(|r| r.id.to_string() == *id)
            };
            let users = file.service.pipelines.iter().filter(is_used);
            let used: BTreeSet<&str> = users.map(|p| p.id.signal.as_str()).collect();
            let key = |signal: &str| NodeKey::Connector {
                id: id.clone(),
                signal: signal.to_owned(),
            };
            used.into_iter().map(key).collect()
        };
        for id in &exporters {
            let settings = text(&file.exporters, id);
            let outputs = Vec::new();
            nodes.insert(end(id), NodeSpec { settings, outputs });
        }
        for id in ids(&into) {
            let settings = text(&file.connectors, &id);
            nodes.entry(connector(id)).or_default().settings = settings;
        }
        // In the order as written.
        let ends = p.exporters.iter().map(|r| match is_connector(&r) {
            true => connector(r.id.to_string()),
            false => end(&r.id.to_string()),
        });
        let ends: Vec<NodeKey> = ends.collect();
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
        for key_of in ids(&from).iter().flat_map(behind) {
            let spec = nodes.entry(key_of).or_default();
            spec.outputs.push(key.clone());
        }
        for id in &receivers {
            let receiver = NodeKey::Receiver {
                id: id.clone(),
                signal: signal.clone(),
            };
            let spec = nodes.entry(receiver).or_default();
            spec.settings = text(&file.receivers, id);
            spec.outputs.push(key.clone());
        }
        pipelines.push(Wiring {
            id: pipeline,
            signal: signal_of(p.id.signal),
            receivers,
            processors,
            exporters,
            connectors: connectors::behind(file, &out.connectors, p),
            reaches: Vec::new(),
        });
    }
    out.pipelines = in_order(pipelines);
    out.spec = GraphSpec { nodes };
}

/// Calls `found` with each extension that a component names as its authenticator or its storage.
fn used_extensions<'a>(
    node: &Node,
    extensions: &'a [ComponentEntry],
    found: &mut dyn FnMut(&'a ComponentEntry),
) {
    match &node.value {
        NodeValue::Map(entries) => {
            for (key, child) in entries {
                let names = matches!(&*key.text, "authenticator" | "storage" | "additional_auth");
                match child.as_text().filter(|_| names) {
                    Some(id) => {
                        let named = extensions.iter().filter(|e| e.id.to_string() == id);
                        for e in named {
                            found(e);
                            used_extensions(&e.node, extensions, found);
                        }
                    }
                    None => used_extensions(child, extensions, found),
                }
            }
        }
        NodeValue::List(items) => {
            for item in items {
                used_extensions(item, extensions, found);
            }
        }
        _ => {}
    }
}
