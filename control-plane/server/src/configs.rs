//! What is rolled out: a text that somebody applied, known by its digest. Checked as far as a control plane can:
//! what it means is the agent's to say, by a dry run, and the canary's.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use tailwater_config::{ComponentKind, Node, canonical_type, parse};
use tailwater_control_plane::model::Digest;
use tailwater_control_plane::rollout::ports::{Built, Call, Configs, Failure};
use tailwater_control_plane::store::Artefacts;

use crate::dry_run::DryRuns;
use crate::fleet::Wanted;

/// The largest pipeline, bytes.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Sections of a configuration that hold components.
const SECTIONS: [(&str, ComponentKind); 5] = [
    ("receivers", ComponentKind::Receiver),
    ("processors", ComponentKind::Processor),
    ("exporters", ComponentKind::Exporter),
    ("connectors", ComponentKind::Connector),
    ("extensions", ComponentKind::Extension),
];

/// Types of components that a pipeline configures, as `receivers/otlp`.
///
/// # Errors
/// All mistakes that can be seen without an agent, each with its place.
pub fn check(body: &str) -> Result<BTreeSet<String>, Vec<String>> {
    if body.len() > BODY_BYTES_MAX {
        return Err(vec![format!("it is larger than {BODY_BYTES_MAX} bytes")]);
    }
    let root = parse(body, "pipeline").map_err(|errors| {
        let lines = errors.iter().map(ToString::to_string);
        lines.collect::<Vec<_>>()
    })?;
    let mut wrong = Vec::new();
    let Some(sections) = root.as_map().filter(|m| !m.is_empty()) else {
        return Err(vec!["pipeline: must be a map that is not empty".to_owned()]);
    };
    let mut types = BTreeSet::new();
    for (key, section) in sections {
        let place = &key.span;
        let Some((name, kind)) = SECTIONS.into_iter().find(|(n, _)| *n == key.text) else {
            if key.text != "service" {
                wrong.push(format!(
                    "{place}: unknown section {:?}; allowed: receivers, processors, exporters, connectors, \
                     extensions, service",
                    key.text
                ));
            }
            continue;
        };
        let entries = section.as_map().unwrap_or_default();
        if section.as_map().is_none() && !section.is_null() {
            wrong.push(format!("{place}: {name} must be a map"));
        }
        for (id, _) in entries {
            let kind_of = id.text.split('/').next().unwrap_or_default();
            if kind_of.is_empty() {
                wrong.push(format!("{}: {name}: {:?} has no type", id.span, id.text));
            }
            types.insert(format!("{name}/{}", canonical_type(kind, kind_of).name));
        }
    }
    pipelines(&root, &mut wrong);
    match wrong.is_empty() {
        true => Ok(types),
        false => Err(wrong),
    }
}

/// Each pipeline names receivers and exporters as lists.
fn pipelines(root: &Node, wrong: &mut Vec<String>) {
    let all = root.get("service").and_then(|s| s.get("pipelines"));
    for (id, pipeline) in all.and_then(Node::as_map).unwrap_or_default() {
        for part in ["receivers", "processors", "exporters"] {
            if let Some(list) = pipeline
                .get(part)
                .filter(|l| l.as_list().is_none() && !l.is_null())
            {
                wrong.push(format!(
                    "{}: service::pipelines::{}::{part} must be a list",
                    list.span, id.text
                ));
            }
        }
    }
}

/// See the module's documentation. The revision of an input is its digest.
pub struct Applied {
    /// Where the texts are.
    pub artefacts: Arc<dyn Artefacts>,
    /// See [`Wanted`].
    pub wanted: Wanted,
    /// Agents that would take it, or not.
    pub dry_runs: DryRuns,
}

impl Configs for Applied {
    fn build(
        &mut self,
        _call: &Call<'_>,
        revision: &str,
    ) -> Result<Result<Built, Vec<String>>, Failure> {
        let Some(body) = self.artefacts.artefact(&Digest::from_text(revision))? else {
            return Ok(Err(vec![format!("{revision} is not kept")]));
        };
        Ok(check(&body).map(|requires| {
            let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            wanted.extend(requires.iter().cloned());
            Built { body, requires }
        }))
    }

    fn validate(&mut self, call: &Call<'_>, built: &Built) -> Result<Vec<String>, Failure> {
        match check(&built.body) {
            Err(mistakes) => Ok(mistakes),
            Ok(_) => self.dry_runs.reasons(call, built),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_those_of_the_agent_and_mistakes_have_their_place() {
        let found = check(
            "receivers:\n  filelog/a: {}\n  otlp:\nexporters: {loki/b: {}}\nservice: {pipelines: {logs: {receivers: [otlp]}}}\n",
        );
        let wanted = ["exporters/loki", "receivers/file_log", "receivers/otlp"];
        assert_eq!(found, Ok(wanted.map(str::to_owned).into()));
        let wrong = |text: &str| check(text).unwrap_err().join("\n");
        assert!(wrong("").contains("must be a map"));
        assert!(wrong("receiver: {}").starts_with("pipeline:1:1: unknown section \"receiver\""));
        assert!(wrong("receivers: [a]").contains("must be a map"));
        assert!(wrong("a: [").contains("pipeline:"));
        let list = wrong("service:\n  pipelines:\n    logs:\n      exporters: loki\n");
        assert!(list.starts_with("pipeline:4:"), "{list}");
        assert!(check(&"#".repeat(BODY_BYTES_MAX + 1)).is_err());
    }
}
