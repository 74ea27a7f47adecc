//! What there is to configure: a page for each component and a schema for editors, both made of what the
//! decoders themselves read ([`tailwater_config::reference`]).

mod examples;
mod page;
mod schema;
#[cfg(test)]
mod tests;
mod tree;

use std::sync::LazyLock;

use tailwater_config::reference::{OptionRecord, Reference, ValueKind, learn};
use tailwater_config::{ComponentKind, ConfigFile, Section, spellings};
use tailwater_pipeline::factory::Factory;
use tailwater_telemetry::settings::TelemetrySettings;

use crate::registry::registry;

/// What a page is about.
pub struct Entry {
    /// Section of the configuration: `receivers`; `service` for that section itself.
    pub class: &'static str,
    /// Canonical type; `service` for the section.
    pub kind: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Signals it supports.
    pub signals: &'static [&'static str],
    /// Older spellings of the type.
    pub aliases: Vec<&'static str>,
    /// Its options.
    pub reference: Reference,
}

/// Everything that can be configured, in the order of the registry; `service` is last.
pub fn entries() -> &'static [Entry] {
    static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(learned);
    &ENTRIES
}

fn learned() -> Vec<Entry> {
    let r = registry();
    let mut all = Vec::new();
    add(&mut all, ComponentKind::Receiver, &r.receivers);
    add(&mut all, ComponentKind::Processor, &r.processors);
    add(&mut all, ComponentKind::Exporter, &r.exporters);
    add(&mut all, ComponentKind::Connector, &r.connectors);
    add(&mut all, ComponentKind::Extension, &r.extensions);
    all.push(service());
    all
}

fn add<S: ?Sized>(all: &mut Vec<Entry>, kind: ComponentKind, factories: &[Factory<S>]) {
    for f in factories {
        all.push(Entry {
            class: kind.section(),
            kind: f.kind,
            about: f.about,
            signals: f.signals,
            aliases: spellings(kind, f.kind),
            reference: learn(|node, path, errors| {
                (f.decode)(node, path, errors);
            }),
        });
    }
}

/// The section `service`, with `service::telemetry`.
fn service() -> Entry {
    let all = learn(|node, _, errors| {
        ConfigFile::decode(node, errors);
    });
    let telemetry = learn(|node, _, errors| {
        let mut section = Section::new(node, "telemetry", errors);
        TelemetrySettings::decode(&mut section, &[]);
        section.finish();
    });
    let below = |mut option: OptionRecord| {
        let is_below = option.path.first().is_some_and(|p| p == "service");
        option.path.remove(0);
        (is_below && !option.path.is_empty()).then_some(option)
    };
    let mut reference = Reference {
        is_cut: all.is_cut || telemetry.is_cut,
        strays: [all.strays, telemetry.strays].concat(),
        ..telemetry
    };
    let mut options: Vec<OptionRecord> = all.options.into_iter().filter_map(below).collect();
    // It is only handed on there.
    for option in options.iter_mut().filter(|o| o.path == ["telemetry"]) {
        option.kinds = vec![ValueKind::Section];
    }
    options.append(&mut reference.options);
    reference.options = options;
    Entry {
        class: "service",
        kind: "service",
        about: "How the components are put together, and the agent itself.",
        signals: &[],
        aliases: Vec::new(),
        reference,
    }
}

/// The schema of the whole configuration, as JSON.
pub fn json_schema() -> String {
    schema::text(entries())
}

/// The page of `kind`, which may be `receivers/otlp` where several have the name, an older spelling or
/// `operators`; all pages without one. `None` if there is no such thing.
pub fn pages(kind: Option<&str>) -> Option<String> {
    let entries = entries();
    let Some(wanted) = kind else {
        return Some(page::index(entries));
    };
    if wanted == "operators" {
        return page::operators(entries);
    }
    let (class, kind) = match wanted.split_once('/') {
        Some((class, kind)) => (Some(class), kind),
        None => (None, wanted),
    };
    let is_wanted = |e: &&Entry| {
        class.is_none_or(|c| c == e.class) && (e.kind == kind || e.aliases.contains(&kind))
    };
    let found: Vec<String> = entries.iter().filter(is_wanted).map(page::text).collect();
    (!found.is_empty()).then(|| found.join("\n"))
}

/// What [`pages`] has a page for.
pub fn names() -> Vec<String> {
    let entries = entries();
    let mut names: Vec<String> = entries.iter().map(|e| e.kind.to_owned()).collect();
    names.push("operators".to_owned());
    names
}
