//! Connectors: which pipelines they lead from and to, signal by signal.

use tailwater_config::{
    ComponentKind as Kind, ConfigError, ConfigFile, Errors, Pipeline, Reference, Signal,
    canonical_type,
};

use crate::factory::Registry;
use crate::lanes::Onward;

/// A connector must be used as an exporter and as a receiver of the same signal, one that it passes on.
/// What is used at one end alone was reported when the file was read, as was what runs in circles.
pub(super) fn check(file: &ConfigFile, registry: &Registry, errors: &mut Errors) {
    // What is misspelt at one end would be missed at the other.
    let is_there = |kind, r: &&Reference| {
        [kind, Kind::Connector]
            .iter()
            .any(|k| file.component(*k, &r.id).is_some())
    };
    let complete = file.service.pipelines.iter().all(|p| {
        p.receivers.iter().all(|r| is_there(Kind::Receiver, &r))
            && p.exporters.iter().all(|r| is_there(Kind::Exporter, &r))
    });
    if !complete {
        return;
    }
    for connector in &file.connectors {
        let ty = canonical_type(Kind::Connector, connector.id.type_name()).name;
        let Some(factory) = registry.connectors.iter().find(|f| f.kind == ty) else {
            continue;
        };
        let named = |list: fn(&Pipeline) -> &[Reference]| {
            let named = move |p| {
                let mut refs = list(p).iter();
                Some((p, refs.find(|r| r.id == connector.id)?))
            };
            let all = file.service.pipelines.iter().filter_map(named);
            all.collect::<Vec<(&Pipeline, &Reference)>>()
        };
        let (from, into) = (named(|p| &p.exporters), named(|p| &p.receivers));
        if from.is_empty() || into.is_empty() {
            continue;
        }
        let ends = [
            ("exporter", "receiver", &from, &into),
            ("receiver", "exporter", &into, &from),
        ];
        for (used, unused, here, there) in ends {
            for (pipeline, reference) in here {
                let signal = pipeline.id.signal;
                let passes = factory.signals.contains(&signal.as_str());
                if passes && there.iter().any(|(p, _)| p.id.signal == signal) {
                    continue;
                }
                let text = format!(
                    "connector \"{}\" used as {used} in {signal} pipeline but not used in any \
                     supported {unused} pipeline; {}",
                    connector.id,
                    remedy(ty, factory.signals, signal, unused)
                );
                let path = format!("service::pipelines::{}", pipeline.id);
                errors.push(ConfigError::new(reference.span.clone(), path, text));
            }
        }
    }
}

fn remedy(ty: &str, signals: &[&str], signal: Signal, unused: &str) -> String {
    match signals.contains(&signal.as_str()) {
        true => format!(
            "{ty} passes {signal} on as {signal}: name it among the {unused}s of another pipeline \
             of {signal}, or take it out"
        ),
        false => format!("{ty} passes on {}; take it out", signals.join(", ")),
    }
}

/// The connectors at the end of `pipeline`, each with the pipelines that it leads to.
pub(super) fn behind(file: &ConfigFile, pipeline: &Pipeline) -> Vec<Onward> {
    let connectors = pipeline.exporters.iter();
    let connectors = connectors.filter(|r| file.component(Kind::Connector, &r.id).is_some());
    let onward = |connector: &Reference| {
        let behind = file.service.pipelines.iter().filter(|p| {
            p.id.signal == pipeline.id.signal && p.receivers.iter().any(|r| r.id == connector.id)
        });
        Onward {
            connector: connector.id.to_string(),
            pipelines: behind.map(|p| p.id.to_string()).collect(),
        }
    };
    connectors.map(onward).collect()
}
