//! Connectors: which pipelines they lead from and to, signal by signal.

use std::collections::{BTreeMap, BTreeSet};

use tailwater_config::{
    ComponentEntry, ComponentKind as Kind, ConfigError, ConfigFile, Errors, Pipeline, Reference,
    canonical_type,
};
use tailwater_pdata::Signal;

use super::resolve::signal_of;
use crate::factory::{ConnectorSettings, ConnectorUse, Registry};
use crate::lanes::Onward;

/// The settings of connectors, by id.
pub(super) type Connectors = BTreeMap<String, Box<dyn ConnectorSettings>>;

/// A connector must be used as an exporter of a signal that it takes and as a receiver of what it gives
/// then. What is used at one end alone was reported when the file was read, as was what runs in circles.
pub(super) fn check(
    file: &ConfigFile,
    registry: &Registry,
    settings: &Connectors,
    errors: &mut Errors,
) {
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
        let factory = registry.connectors.iter().find(|f| f.kind == ty);
        let settings = settings.get(&connector.id.to_string());
        let (Some(factory), Some(settings)) = (factory, settings) else {
            continue;
        };
        let gives = |signal: Signal| {
            let takes = factory.signals.contains(&signal.as_str());
            takes.then(|| settings.gives(signal))
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
        let signal_of = |(p, _): &(&Pipeline, &Reference)| signal_of(p.id.signal);
        let used: BTreeSet<Signal> = from.iter().map(signal_of).collect();
        let made: BTreeSet<Signal> = into.iter().map(signal_of).collect();
        for end in &from {
            let signal = signal_of(end);
            let is_taken = |gives| made.contains(&gives);
            if gives(signal).is_some_and(is_taken) {
                continue;
            }
            let remedy = match gives(signal) {
                Some(out) => format!(
                    "{ty} passes {signal} on as {out}: name it among the receivers of another pipeline \
                     of {out}, or take it out"
                ),
                None => format!("{ty} passes on {}; take it out", factory.signals.join(", ")),
            };
            let text = unused(connector, ("exporter", "receiver"), signal, &remedy);
            errors.push(at(end, text));
        }
        for end in &into {
            let signal = signal_of(end);
            let gives_it = |from: &&Signal| gives(**from) == Some(signal);
            if used.iter().any(|from| gives_it(&from)) {
                continue;
            }
            let can = Signal::ALL.iter().filter(gives_it);
            let can: Vec<&str> = can.map(|s| s.as_str()).collect();
            let remedy = match can.is_empty() {
                false => format!(
                    "{ty} passes {} on as {signal}: name it among the exporters of another pipeline \
                     of {}, or take it out",
                    can.join(", "),
                    can.join(" or ")
                ),
                true => {
                    let all = factory.signals.iter();
                    let all = all.filter_map(|s| Signal::ALL.iter().find(|x| x.as_str() == *s));
                    let out: BTreeSet<&str> = all.map(|s| settings.gives(*s).as_str()).collect();
                    let out: Vec<&str> = out.into_iter().collect();
                    format!("{ty} passes on {}; take it out", out.join(", "))
                }
            };
            let text = unused(connector, ("receiver", "exporter"), signal, &remedy);
            errors.push(at(end, text));
        }
        for signal in used {
            let Some(out) = gives(signal) else { continue };
            let behind = into.iter().filter(|end| signal_of(end) == out);
            let behind = behind.map(|(p, _)| p.id.to_string()).collect();
            settings.check(&ConnectorUse { signal, behind }, errors);
        }
    }
}

fn unused(
    connector: &ComponentEntry,
    (used, unused): (&str, &str),
    signal: Signal,
    remedy: &str,
) -> String {
    format!(
        "connector \"{}\" used as {used} in {signal} pipeline but not used in any supported {unused} \
         pipeline; {remedy}",
        connector.id
    )
}

fn at((pipeline, reference): &(&Pipeline, &Reference), text: String) -> ConfigError {
    let path = format!("service::pipelines::{}", pipeline.id);
    ConfigError::new(reference.span.clone(), path, text)
}

/// What comes out of a connector if `signal` goes in.
pub(super) fn gives(settings: &Connectors, id: &str, signal: Signal) -> Signal {
    settings.get(id).map_or(signal, |s| s.gives(signal))
}

/// The connectors at the end of `pipeline`, each with the pipelines that it leads to.
pub(super) fn behind(file: &ConfigFile, settings: &Connectors, pipeline: &Pipeline) -> Vec<Onward> {
    let connectors = pipeline.exporters.iter();
    let connectors = connectors.filter(|r| file.component(Kind::Connector, &r.id).is_some());
    let onward = |connector: &Reference| {
        let signal = signal_of(pipeline.id.signal);
        let out = gives(settings, &connector.id.to_string(), signal);
        let behind = file.service.pipelines.iter().filter(|p| {
            signal_of(p.id.signal) == out && p.receivers.iter().any(|r| r.id == connector.id)
        });
        Onward {
            connector: connector.id.to_string(),
            pipelines: behind.map(|p| p.id.to_string()).collect(),
        }
    };
    connectors.map(onward).collect()
}
