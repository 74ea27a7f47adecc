//! `attributes`: changes attributes of the records that `include` and `exclude` select.

use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pipeline::factory::{Factory, NodeCx, ProcessorFactory, ProcessorSettings};
use tailwater_pipeline::{Batch, BuildError, LogsPart, Output, Processor};

use crate::action::{Action, ActionsConfig, Rows, apply_to_rows, decode_actions};
use crate::matching::{MatchConfig, Selected, Selection, decode_match};

/// The factory of this processor.
pub fn factory() -> ProcessorFactory {
    Factory {
        kind: "attributes",
        about: "Changes attributes of the records that include and exclude select.",
        signals: &["logs"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ProcessorSettings>> {
    let before = errors.len();
    let mut section = Section::new(node, path, errors);
    let config = AttributesConfig::decode(&mut section);
    section.finish();
    let settings = config.for_logs(errors);
    (errors.len() == before).then(|| Box::new(settings) as Box<dyn ProcessorSettings>)
}

/// The section of an `attributes` processor, for any signal.
#[derive(Clone, Debug)]
pub struct AttributesConfig {
    /// What is processed; `None` = everything.
    pub include: Option<MatchConfig>,
    /// What is left alone.
    pub exclude: Option<MatchConfig>,
    /// What is done, in order.
    pub actions: ActionsConfig,
}

impl AttributesConfig {
    /// Reads the section; mistakes are in it.
    pub fn decode(s: &mut Section<'_, '_>) -> AttributesConfig {
        AttributesConfig {
            actions: decode_actions(s, "actions"),
            include: s.section_if_present("include", decode_match),
            exclude: s.section_if_present("exclude", decode_match),
        }
    }

    /// What it means for logs; conditions on another signal are mistakes.
    pub fn for_logs(self, errors: &mut Errors) -> AttributesSettings {
        let include = self.include.map(|m| m.for_logs(errors));
        let exclude = self.exclude.map(|m| m.for_logs(errors));
        let actions = self.actions.for_use(errors);
        AttributesSettings {
            selection: Selection { include, exclude },
            actions,
        }
    }
}

/// What an `attributes` processor does, for logs.
#[derive(Clone, Debug)]
pub struct AttributesSettings {
    /// The records it applies to.
    pub selection: Selection,
    /// What it does, in order.
    pub actions: Vec<Action>,
}

impl ProcessorSettings for AttributesSettings {
    fn build(&self, _cx: &NodeCx) -> Result<Box<dyn Processor>, BuildError> {
        Ok(Box::new(AttributesProcessor::new(self.clone())))
    }
}

/// Changes attributes in one chain of one shard.
pub struct AttributesProcessor {
    settings: AttributesSettings,
    flags: Vec<bool>,
}

impl AttributesProcessor {
    /// A processor for logs.
    pub fn new(settings: AttributesSettings) -> AttributesProcessor {
        AttributesProcessor {
            settings,
            flags: Vec::new(),
        }
    }
}

impl Processor for AttributesProcessor {
    fn process(&mut self, batch: Batch, out: &mut dyn Output) {
        let mut parts: Vec<LogsPart> = Vec::with_capacity(batch.parts.len());
        parts.extend(batch.into_logs());
        for part in &mut parts {
            let rows = match self.settings.selection.select(&part.logs, &mut self.flags) {
                Selected::All => Rows::All,
                Selected::None => continue,
                Selected::Marked => Rows::Marked(&self.flags),
            };
            apply_to_rows(&self.settings.actions, &mut part.logs, rows);
        }
        out.emit(Batch::of_logs(parts));
    }
}
