//! Whether the parts of a configuration fit together: every component that is named exists, every
//! pipeline has two ends, connectors connect, and nothing runs in circles.
//!
//! Messages are those of the collector, whose checks these are. The work grows with the size of
//! the configuration and not with its square.

use std::collections::{HashMap, HashSet};

use crate::component_id::{ComponentId, ComponentKind};
use crate::connections::Connections;
use crate::envelope::{ConfigFile, Pipeline, Reference};
use crate::error::{ConfigError, Errors, KeyPath};
use crate::node::{Node, Span};
use crate::suggest::{name_list, nearest};

/// Checks a configuration; `root` is its tree, for positions.
pub(crate) fn check(file: &ConfigFile, root: &Node, errors: &mut Errors) {
    let kinds = ComponentKind::ALL.into_iter();
    let all = kinds.flat_map(|kind| {
        file.components(kind)
            .iter()
            .map(move |c| ((kind, &c.id), c))
    });
    let configured = all.map(|(key, entry)| (key, &entry.span)).collect();
    let mut check = Check {
        file,
        root,
        errors,
        configured,
        unresolved: false,
    };
    if !check.something_is_configured() {
        return;
    }
    check.ambiguous_ids();
    for reference in &file.service.extensions {
        check.resolve(
            reference,
            &[ComponentKind::Extension],
            &"service::extensions".into(),
        );
    }
    for pipeline in &file.service.pipelines {
        check.pipeline(pipeline);
    }
    // A connector whose name is misspelt in a pipeline would be reported a second time.
    if !check.unresolved {
        check.connectors();
    }
}

struct Check<'a> {
    file: &'a ConfigFile,
    root: &'a Node,
    errors: &'a mut Errors,
    /// Every component, with the position of its key.
    configured: HashMap<(ComponentKind, &'a ComponentId), &'a Span>,
    /// Whether something is named that is not configured.
    unresolved: bool,
}

impl Check<'_> {
    fn push(&mut self, span: &Span, path: KeyPath, message: impl Into<String>) {
        self.errors
            .push(ConfigError::new(span.clone(), path, message));
    }

    /// Where the value at a path was written, or the nearest thing around it.
    fn span_at(&self, path: &str) -> Span {
        let mut node = self.root;
        for part in path.split("::") {
            match node.get(part) {
                Some(inner) => node = inner,
                None => break,
            }
        }
        node.span.clone()
    }

    /// False if there is nothing at all, which is one problem and not three.
    fn something_is_configured(&mut self) -> bool {
        if self.configured.is_empty() {
            let span = self.root.span.clone();
            self.push(&span, KeyPath::root(), "empty configuration file");
            return false;
        }
        let file = self.file;
        for (path, missing, message) in [
            (
                "receivers",
                file.receivers.is_empty(),
                "no receiver configuration specified in config",
            ),
            (
                "exporters",
                file.exporters.is_empty(),
                "no exporter configuration specified in config",
            ),
            (
                "service::pipelines",
                file.service.pipelines.is_empty(),
                "service must have at least one pipeline",
            ),
        ] {
            if missing {
                let span = self.span_at(path);
                self.push(&span, path.into(), message);
            }
        }
        true
    }

    fn ambiguous_ids(&mut self) {
        for connector in &self.file.connectors {
            for kind in [ComponentKind::Exporter, ComponentKind::Receiver] {
                let id = &connector.id;
                let Some(other) = self.configured.get(&(kind, id)) else {
                    continue;
                };
                let message = format!(
                    "ambiguous ID: Found both \"{id}\" {kind} and \"{id}\" connector. Change one \
                     of the components' IDs to eliminate ambiguity (e.g. rename \"{id}\" connector \
                     to \"{id}/connector\"); the {kind} is at {other}",
                );
                self.push(
                    &connector.span,
                    connector.path(ComponentKind::Connector),
                    message,
                );
            }
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline) {
        use ComponentKind::{Connector, Exporter, Processor, Receiver};
        let path = KeyPath::from("service::pipelines").child(&pipeline.id);
        for (kind, list) in [
            (Receiver, &pipeline.receivers),
            (Exporter, &pipeline.exporters),
        ] {
            if list.is_empty() {
                let message = format!("must have at least one {kind}");
                self.push(&pipeline.span, path.clone(), message);
            }
        }
        for reference in &pipeline.receivers {
            self.resolve(reference, &[Receiver, Connector], &path);
        }
        let mut seen = HashSet::new();
        for reference in &pipeline.processors {
            self.resolve(reference, &[Processor], &path);
            if !seen.insert(&reference.id) {
                let message = format!("references processor \"{}\" multiple times", reference.id);
                self.push(&reference.span, path.clone(), message);
            }
        }
        for reference in &pipeline.exporters {
            self.resolve(reference, &[Exporter, Connector], &path);
        }
    }

    /// Reports a reference to what is not configured. The first of `kinds` gives it its name.
    fn resolve(&mut self, reference: &Reference, kinds: &[ComponentKind], path: &KeyPath) {
        let id = &reference.id;
        if kinds
            .iter()
            .any(|kind| self.configured.contains_key(&(*kind, id)))
        {
            return;
        }
        self.unresolved = true;
        let file = self.file;
        self.errors.push_with(|| {
            let message = format!("references {} \"{id}\" which is not configured", kinds[0]);
            let entries = kinds.iter().flat_map(|kind| file.components(*kind));
            let names: Vec<String> = entries.map(|entry| entry.id.to_string()).collect();
            let names = || names.iter().map(String::as_str);
            ConfigError::new(reference.span.clone(), path, message)
                .allowed(name_list(names()))
                .suggest(nearest(&id.to_string(), names()))
        });
    }

    /// A connector that is used must be used at both ends, and must not lead back to where its
    /// data came from.
    fn connectors(&mut self) {
        let connections = Connections::of(self.file);
        let mut complete = true;
        for (i, connector) in self.file.connectors.iter().enumerate() {
            let (from, into) = (connections.names_from(i), connections.names_into(i));
            let (used, unused, names) = match (from.is_empty(), into.is_empty()) {
                (false, true) => ("exporter", "receiver", from),
                (true, false) => ("receiver", "exporter", into),
                _ => continue,
            };
            complete = false;
            let message = format!(
                "connector \"{}\" used as {used} in [{}] pipeline but not used in any supported \
                 {unused} pipeline; name it among the {unused}s of another pipeline, or take it out",
                connector.id,
                names.join(" ")
            );
            self.push(
                &connector.span,
                connector.path(ComponentKind::Connector),
                message,
            );
        }
        if !complete {
            return;
        }
        if let Some((connector, steps)) = connections.cycle() {
            let message = format!(
                "cycle detected: {}; take one of these connectors out of the exporters of the \
                 pipeline before it",
                steps.join(" -> ")
            );
            self.push(
                &connector.span,
                connector.path(ComponentKind::Connector),
                message,
            );
        } else if let Some((pipeline, text)) = connections.excess() {
            let path = KeyPath::from("service::pipelines").child(&pipeline.id);
            self.push(&pipeline.span, path, text);
        }
    }
}
