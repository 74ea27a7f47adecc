//! The top level of a configuration: components, and the pipelines that connect them.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::time::Duration;

use crate::admin::{self, AdminOptions};
use crate::component_id::{
    ComponentId, ComponentKind, IdError, PipelineId, Signal, canonical_type,
};
use crate::error::{ConfigError, Errors, KeyPath, Warning};
use crate::node::{Key, Node, NodeValue, Span};
use crate::references;
use crate::section::{Section, mismatch};
use crate::suggest::nearest;

/// One configured component. Its own options are not looked at here.
#[derive(Clone, PartialEq, Debug)]
pub struct ComponentEntry {
    /// Its id, unique among the components of its kind.
    pub id: ComponentId,
    /// Its options: a map, or null for all defaults.
    pub node: Node,
    /// Where its key stands.
    pub span: Span,
}

impl ComponentEntry {
    /// The path of the component, for its [`Section`].
    pub fn path(&self, kind: ComponentKind) -> KeyPath {
        KeyPath::from(kind.section()).child(&self.id)
    }
}

/// A component named in a pipeline or in `service::extensions`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reference {
    /// Which component.
    pub id: ComponentId,
    /// Where it is named.
    pub span: Span,
}

/// A way that data takes. The references are in the order as written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pipeline {
    /// Its id.
    pub id: PipelineId,
    /// Where its key stands.
    pub span: Span,
    /// Receivers and connectors, at least one, none twice.
    pub receivers: Vec<Reference>,
    /// Processors, none twice.
    pub processors: Vec<Reference>,
    /// Exporters and connectors, at least one, none twice.
    pub exporters: Vec<Reference>,
}

/// The section `service`.
#[derive(Clone, PartialEq, Debug)]
pub struct Service {
    /// Options of the agent's own telemetry; null if not given. Decoded by whoever provides it.
    pub telemetry: Node,
    /// Extensions to run, in the order they start, none twice.
    pub extensions: Vec<Reference>,
    /// The pipelines, at least one.
    pub pipelines: Vec<Pipeline>,
    /// Threads that move data; 0 lets the agent choose. An option of ours, not of the collector.
    pub workers: usize,
    /// How long stopping may take before what is still under way is given up. An option of ours.
    pub shutdown_timeout: Duration,
    /// Memory that the agent may use, in MiB; `None` leaves it to the agent. An option of ours.
    pub memory_limit_mib: Option<u64>,
    /// What the agent may use of the file system. An option of ours.
    pub sandbox: SandboxOptions,
    /// Where the running agent is asked and told; `None` = nowhere. An option of ours.
    pub admin: Option<AdminOptions>,
}

/// `service::sandbox`: the agent shuts itself into what its configuration needs, where the kernel
/// can do that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SandboxOptions {
    /// Default true.
    pub enabled: bool,
    /// Directories that may be read besides, such as those that links will lead to.
    pub read: Vec<String>,
    /// Directories that may be written besides.
    pub write: Vec<String>,
}

/// Default of `service::shutdown_timeout`.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
/// Most threads that `service::workers` may ask for.
pub const WORKERS_MAX: usize = 1024;

/// A configuration whose references are proven: each names a component that is configured.
#[derive(Clone, PartialEq, Debug)]
pub struct ConfigFile {
    /// In the order as written, as all of these.
    pub receivers: Vec<ComponentEntry>,
    /// Components that change data.
    pub processors: Vec<ComponentEntry>,
    /// Components that send data.
    pub exporters: Vec<ComponentEntry>,
    /// Components between pipelines.
    pub connectors: Vec<ComponentEntry>,
    /// Components that serve others.
    pub extensions: Vec<ComponentEntry>,
    /// How they are put together.
    pub service: Service,
}

impl ConfigFile {
    /// Reads and proves the top level of a resolved configuration. All problems go to `errors`;
    /// what is given back is only good if there were none.
    pub fn decode(root: &Node, errors: &mut Errors) -> Self {
        // Whether every component that is written was read. If not, checking the references would
        // report what is there as missing.
        let mut complete = root
            .as_map()
            .is_some_and(|map| map.iter().all(|(k, _)| is_top_key(k)));
        let mut top = Section::new(root, KeyPath::root(), errors);
        let mut read = |kind| components(&mut top, kind, &mut complete);
        let receivers = read(ComponentKind::Receiver);
        let processors = read(ComponentKind::Processor);
        let exporters = read(ComponentKind::Exporter);
        let connectors = read(ComponentKind::Connector);
        let extensions = read(ComponentKind::Extension);
        let service = top.section("service", service);
        top.finish();
        let file = Self {
            receivers,
            processors,
            exporters,
            connectors,
            extensions,
            service,
        };
        if complete {
            references::check(&file, root, errors);
        }
        file
    }

    /// The components of a kind.
    pub fn components(&self, kind: ComponentKind) -> &[ComponentEntry] {
        match kind {
            ComponentKind::Receiver => &self.receivers,
            ComponentKind::Processor => &self.processors,
            ComponentKind::Exporter => &self.exporters,
            ComponentKind::Connector => &self.connectors,
            ComponentKind::Extension => &self.extensions,
        }
    }

    /// A component by kind and id.
    pub fn component(&self, kind: ComponentKind, id: &ComponentId) -> Option<&ComponentEntry> {
        self.components(kind).iter().find(|entry| entry.id == *id)
    }
}

fn is_top_key(key: &Key) -> bool {
    key.text == "service"
        || ComponentKind::ALL
            .iter()
            .any(|kind| kind.section() == key.text)
}

/// Reads a section of components. Sets `complete` to false if one had to be left out.
fn components(
    top: &mut Section<'_, '_>,
    kind: ComponentKind,
    complete: &mut bool,
) -> Vec<ComponentEntry> {
    let before = top.errors().len();
    let Some(entries) = top.map(kind.section()) else {
        *complete &= top.errors().len() == before;
        return Vec::new();
    };
    let section = KeyPath::from(kind.section());
    let mut found: Vec<ComponentEntry> = Vec::with_capacity(entries.len());
    let mut seen: HashMap<ComponentId, Span> = HashMap::with_capacity(entries.len());
    for (key, node) in entries {
        let path = section.child(&key.text);
        let id = match ComponentId::parse(&key.text) {
            Ok(id) => id,
            Err(error) => {
                top.errors().push(id_error(&key.span, &path, &error));
                *complete = false;
                continue;
            }
        };
        if let Some(first) = seen.get(&id) {
            top.errors().push(duplicate_id(key, path, &id, first));
            continue;
        }
        seen.insert(id.clone(), key.span.clone());
        if !matches!(node.value, NodeValue::Null | NodeValue::Map(_)) {
            top.errors()
                .push(mismatch(node, &path, "a map, or null for all defaults"));
        }
        warn_alias(top, kind, &id, key, path);
        found.push(ComponentEntry {
            id,
            node: node.clone(),
            span: key.span.clone(),
        });
    }
    found
}

fn duplicate_id(key: &Key, path: KeyPath, id: &dyn Display, first: &Span) -> ConfigError {
    let message = format!(
        "duplicate name {:?} after unmarshaling {id}, first at {first}",
        key.text
    );
    ConfigError::new(key.span.clone(), path, message)
}

fn id_error(span: &Span, path: &KeyPath, error: &IdError) -> ConfigError {
    ConfigError::new(span.clone(), path, error.to_string())
}

fn warn_alias(
    top: &mut Section<'_, '_>,
    kind: ComponentKind,
    id: &ComponentId,
    key: &Key,
    path: KeyPath,
) {
    let canonical = canonical_type(kind, id.type_name());
    if canonical.is_alias {
        let (old, new) = (id.type_name(), canonical.name);
        let message = format!("{old:?} alias is deprecated; use {new:?} instead");
        top.errors().warn(Warning {
            span: Some(key.span.clone()),
            path,
            message,
        });
    }
}

/// What its options do.
const SERVICE: &[(&str, &str)] = &[
    ("telemetry", "The agent's own log and metrics."),
    ("extensions", "Ids of extensions to run."),
    (
        "pipelines",
        "How components are put together: `logs`, `metrics` or `traces`, with `/NAME` if there are several.",
    ),
    (
        "pipelines::NAME::receivers",
        "Ids of receivers, or of connectors at the end of other pipelines.",
    ),
    (
        "pipelines::NAME::processors",
        "Ids of processors, in order.",
    ),
    (
        "pipelines::NAME::exporters",
        "Ids of exporters, or of connectors.",
    ),
    (
        "workers",
        "own: Shards, each one thread; 0 = one per core. 1 suits a sidecar.",
    ),
    ("shutdown_timeout", "own: How long stopping may take."),
    (
        "memory_limit_mib",
        "own: Half of it is the budget for records between reading and encoding; without it that is 64 MiB.",
    ),
    (
        "sandbox",
        "own: What the agent may use of the file system; see [SECURITY](SECURITY.md#the-sandbox).",
    ),
    (
        "sandbox::enabled",
        "own: Where the kernel can, shut the process into what the configuration names.",
    ),
    (
        "sandbox::read",
        "own: Absolute paths that it may read besides.",
    ),
    (
        "sandbox::write",
        "own: Absolute paths that it may write besides.",
    ),
    (
        "admin",
        "own: Where the running agent is asked and told; nowhere unless set.",
    ),
];

fn service(s: &mut Section<'_, '_>) -> Service {
    s.describe(SERVICE);
    let null = Node::new(NodeValue::Null, s.span().clone());
    Service {
        telemetry: s.node("telemetry").cloned().unwrap_or(null),
        extensions: references_once(s, "extensions"),
        pipelines: pipelines(s),
        workers: s.usize("workers", 0, ..=WORKERS_MAX),
        shutdown_timeout: s.duration("shutdown_timeout", SHUTDOWN_TIMEOUT),
        memory_limit_mib: s.u64_optional("memory_limit_mib", 1..=1 << 30),
        sandbox: s.section("sandbox", |s| SandboxOptions {
            enabled: s.bool("enabled", true),
            read: directories(s, "read"),
            write: directories(s, "write"),
        }),
        admin: s.section_if_present("admin", admin::decode),
    }
}

/// Absolute paths: what a relative one means depends on where the agent is started.
fn directories(s: &mut Section<'_, '_>, key: &str) -> Vec<String> {
    let list = s.string_list(key).unwrap_or_default();
    if list.iter().any(|path| !path.starts_with('/')) {
        s.invalid(key, "each must be an absolute path");
    }
    list
}

fn pipelines(s: &mut Section<'_, '_>) -> Vec<Pipeline> {
    let Some(entries) = s.map("pipelines") else {
        return Vec::new();
    };
    let section = s.path().child("pipelines");
    let mut found: Vec<Pipeline> = Vec::with_capacity(entries.len());
    let mut seen: HashMap<PipelineId, Span> = HashMap::with_capacity(entries.len());
    for (key, node) in entries {
        let path = section.child(&key.text);
        // Of which signal it is says nothing about its options.
        let name = match s.is_recording() {
            true => "logs",
            false => key.text.as_str(),
        };
        let id = match PipelineId::parse(name) {
            Ok(id) => id,
            Err(error) => {
                s.errors().push(pipeline_id_error(&error, key, path));
                continue;
            }
        };
        if let Some(first) = seen.get(&id) {
            s.errors().push(duplicate_id(key, path, &id, first));
            continue;
        }
        seen.insert(id.clone(), key.span.clone());
        let mut inner = Section::new(node, path, s.errors());
        let receivers = references_once(&mut inner, "receivers");
        let processors = references_of(&mut inner, "processors");
        let exporters = references_once(&mut inner, "exporters");
        inner.finish();
        found.push(Pipeline {
            id,
            span: key.span.clone(),
            receivers,
            processors,
            exporters,
        });
    }
    found
}

fn pipeline_id_error(error: &IdError, key: &Key, path: KeyPath) -> ConfigError {
    let span = key.span.clone();
    match error {
        IdError::Signal { signal, .. } if signal == "profiles" => ConfigError::new(
            span,
            path,
            format!(
                "pipeline {:?}: profiling signal support is at alpha level, gated under the \
                 \"service.profilesSupport\" feature gate; it is not supported here",
                key.text
            ),
        ),
        IdError::Signal { signal, .. } => {
            let names = Signal::ALL.map(Signal::as_str);
            id_error(&span, &path, error)
                .allowed(names.join(", "))
                .suggest(nearest(signal, names))
        }
        _ => id_error(&span, &path, error),
    }
}

/// Reads a list of ids.
fn references_of(s: &mut Section<'_, '_>, key: &str) -> Vec<Reference> {
    let Some(nodes) = s.text_nodes(key) else {
        return Vec::new();
    };
    let path = s.path().child(key);
    let mut found = Vec::with_capacity(nodes.len());
    for (text, node) in nodes {
        match ComponentId::parse(text) {
            Ok(id) => found.push(Reference {
                id,
                span: node.span.clone(),
            }),
            Err(error) => s.errors().push(id_error(&node.span, &path, &error)),
        }
    }
    found
}

/// Reads a list of ids in which a repetition has no meaning: it is left out, with a warning.
fn references_once(s: &mut Section<'_, '_>, key: &str) -> Vec<Reference> {
    let mut found: Vec<Reference> = Vec::new();
    let mut seen = HashSet::new();
    for reference in references_of(s, key) {
        if seen.insert(reference.id.clone()) {
            found.push(reference);
            continue;
        }
        let message = format!(
            "\"{}\" is named more than once, which has no effect",
            reference.id
        );
        let (span, path) = (Some(reference.span), s.path().child(key));
        s.errors().warn(Warning {
            span,
            path,
            message,
        });
    }
    found
}
