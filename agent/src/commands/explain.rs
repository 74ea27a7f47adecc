//! `validate --explain`: the graph, the defaults in force, and what is easily got wrong.

mod traps;

use std::fmt::Write as _;

use anyhow::Result;
use tailwater_config::{
    ComponentKind as Kind, ConfigFile, DefaultValue, Environment, ProcessEnvironment, Source,
};
use tailwater_pipeline::plan::{GraphSpec, NodeKey};

use super::check::{Checked, warn};
use crate::cli::exit;

/// Prints what a valid configuration means; warnings go to standard error.
pub fn explain(checked: &Checked, sources: &[Source]) -> Result<u8> {
    say!("{}", graph(&checked.resolved.spec).trim_end());
    let defaults = defaults(&checked.loaded.file, &checked.defaults);
    if !defaults.is_empty() {
        say!("\n{}", defaults.trim_end());
    }
    let env: &dyn Environment = &ProcessEnvironment;
    let mut traps = traps::written(&checked.loaded.root);
    traps.extend(traps::dollars(sources, env));
    traps.extend(traps::in_defaults(&checked.defaults));
    traps.extend(traps::between(sources, env));
    warn(&traps);
    Ok(exit::OK)
}

/// The pipelines, each with the ways in and out.
fn graph(spec: &GraphSpec) -> String {
    let mut out = String::new();
    for (key, node) in &spec.nodes {
        let NodeKey::Pipeline(id) = key else {
            continue;
        };
        let _ = writeln!(out, "pipeline {id}");
        let into = spec.nodes.iter().filter(|(_, n)| n.outputs.contains(key));
        let into: Vec<String> = into.map(|(from, _)| name(from)).collect();
        let _ = writeln!(out, "  from        {}", into.join(", "));
        let mut stages = Vec::new();
        let mut outputs = &node.outputs;
        while let [next @ NodeKey::Processor { .. }] = &outputs[..] {
            stages.push(name(next));
            match spec.nodes.get(next) {
                Some(node) => outputs = &node.outputs,
                None => break,
            }
        }
        if !stages.is_empty() {
            let _ = writeln!(out, "  processors  {}", stages.join(" -> "));
        }
        for (i, end) in outputs.iter().enumerate() {
            let label = if i == 0 { "to" } else { "" };
            let on: Vec<String> = match (end, spec.nodes.get(end)) {
                (NodeKey::Connector { .. }, Some(node)) => node.outputs.iter().map(name).collect(),
                _ => Vec::new(),
            };
            let on = match on.is_empty() {
                true => String::new(),
                false => format!(" -> {}", on.join(", ")),
            };
            let _ = writeln!(out, "  {label:10}  {}{on}", name(end));
        }
    }
    out
}

fn name(key: &NodeKey) -> String {
    match key {
        NodeKey::Processor { id, .. } => id.clone(),
        NodeKey::Receiver { id, .. } => format!("receiver {id}"),
        NodeKey::Exporter { id, .. } => format!("exporter {id}"),
        NodeKey::Connector { id, .. } => format!("connector {id}"),
        NodeKey::Pipeline(id) => format!("pipeline {id}"),
        NodeKey::Extension(id) => format!("extension {id}"),
    }
}

/// The defaults of each component, in the order of the sections.
fn defaults(file: &ConfigFile, all: &[DefaultValue]) -> String {
    let mut out = String::new();
    for kind in [
        Kind::Receiver,
        Kind::Processor,
        Kind::Exporter,
        Kind::Connector,
        Kind::Extension,
    ] {
        for entry in file.components(kind) {
            let head = format!("{}::", entry.path(kind));
            let mut own: Vec<(&str, &str)> = Vec::new();
            for default in all {
                let Some(option) = default.path.as_str().strip_prefix(&head) else {
                    continue;
                };
                if !own.iter().any(|(o, _)| *o == option) && !default.value.is_empty() {
                    own.push((option, &default.value));
                }
            }
            if own.is_empty() {
                continue;
            }
            let _ = writeln!(
                out,
                "{kind} {} ({}): defaults in force",
                entry.id, entry.span
            );
            let width = own.iter().map(|(option, _)| option.len()).max();
            let width = width.unwrap_or(0).min(48);
            for (option, value) in own {
                let _ = writeln!(out, "  {option:width$}  {value}");
            }
        }
    }
    out
}
