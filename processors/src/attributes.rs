//! `attributes`: changes attributes of the log records, spans and data points that `include` and
//! `exclude` select. What came as OTLP is changed where it lies; what is not changed stays the bytes
//! it was.

use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pdata::otlp::edit::{Attributes, Edit, Next, View};
use tailwater_pdata::{LogsBatch, Signal};
use tailwater_pipeline::factory::{Factory, NodeCx, ProcessorFactory, ProcessorSettings};
use tailwater_pipeline::{Batch, BuildError, Output, Payload, Processor};

use crate::action::{
    Action, ActionsConfig, Rows, apply_to_encoded, apply_to_rows, decode_actions, for_client,
    need_client,
};
use crate::matching::{Choice, Chosen, MatchConfig, Place, Selected, Selection, decode_match};

/// The factory of this processor.
pub fn factory() -> ProcessorFactory {
    Factory {
        kind: "attributes",
        about: "Changes attributes of the records, spans and data points that include and exclude select.",
        signals: &["logs", "metrics", "traces"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ProcessorSettings>> {
    let before = errors.len();
    let mut section = Section::new(node, path, errors);
    let mut config = AttributesConfig::decode(&mut section);
    section.finish();
    let settings = AttributesFactory {
        actions: std::mem::take(&mut config.actions).for_use(errors),
        config,
    };
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

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    ("actions", "What is done, in order. Required."),
    ("include", "What is processed; everything unless set."),
    ("exclude", "What is left alone."),
];

impl AttributesConfig {
    /// Reads the section; mistakes are in it.
    pub fn decode(s: &mut Section<'_, '_>) -> AttributesConfig {
        s.describe(OPTIONS);
        AttributesConfig {
            actions: decode_actions(s, "actions"),
            include: s.section_if_present("include", decode_match),
            exclude: s.section_if_present("exclude", decode_match),
        }
    }

    /// What it means for `signal`; conditions on another signal are mistakes.
    pub fn for_signal(self, signal: Signal, errors: &mut Errors) -> AttributesSettings {
        let choice = self.choice(signal, errors);
        let actions = self.actions.for_use(errors);
        AttributesSettings { choice, actions }
    }

    fn choice(&self, signal: Signal, errors: &mut Errors) -> Choice {
        let mut of = |m: &Option<MatchConfig>| m.as_ref().map(|m| m.for_signal(signal, errors));
        Choice {
            include: of(&self.include),
            exclude: of(&self.exclude),
        }
    }
}

/// What processors of each signal are built from.
struct AttributesFactory {
    config: AttributesConfig,
    actions: Vec<Action>,
}

impl ProcessorSettings for AttributesFactory {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn Processor>, BuildError> {
        let signal = cx.signal.unwrap_or(Signal::Logs);
        let mut errors = Errors::new();
        let choice = self.config.choice(signal, &mut errors);
        if !errors.is_empty() {
            let node = format!("processor {:?}", cx.id);
            return Err(BuildError::new(node, errors.to_string()));
        }
        let actions = self.actions.clone();
        Ok(Box::new(AttributesProcessor::new(AttributesSettings {
            choice,
            actions,
        })))
    }

    fn check(&self, signal: Signal, errors: &mut Errors) {
        self.config.choice(signal, errors);
    }
}

/// What an `attributes` processor does, for one signal.
#[derive(Clone, Debug)]
pub struct AttributesSettings {
    /// The items it applies to.
    pub choice: Choice,
    /// What it does, in order.
    pub actions: Vec<Action>,
}

/// Changes attributes in one chain of one shard.
pub struct AttributesProcessor {
    settings: AttributesSettings,
    selection: Selection,
    flags: Vec<bool>,
    /// The actions as they are configured, if they read what is known of the client.
    of_any_client: Option<Vec<Action>>,
}

impl AttributesProcessor {
    /// A processor for one signal.
    pub fn new(settings: AttributesSettings) -> AttributesProcessor {
        AttributesProcessor {
            selection: settings.choice.for_columns(),
            of_any_client: need_client(&settings.actions).then(|| settings.actions.clone()),
            settings,
            flags: Vec::new(),
        }
    }

    fn change_columns(&mut self, logs: &mut LogsBatch) {
        let rows = match self.selection.select(logs, &mut self.flags) {
            Selected::All => Rows::All,
            Selected::None => return,
            Selected::Marked => Rows::Marked(&self.flags),
        };
        apply_to_rows(&self.settings.actions, logs, rows);
    }
}

impl Processor for AttributesProcessor {
    fn process(&mut self, mut batch: Batch, out: &mut dyn Output) {
        for part in &mut batch.parts {
            if let Some(actions) = &self.of_any_client {
                self.settings.actions = for_client(actions, part.ack.client().as_deref());
            }
            match &mut part.data {
                Payload::Logs(logs) => self.change_columns(logs),
                Payload::Encoded(encoded) => encoded.edit(&mut Change::new(&self.settings)),
            }
        }
        out.emit(batch);
    }
}

/// The same in a request as it came.
struct Change<'s> {
    settings: &'s AttributesSettings,
    resource: Chosen,
    scope: Chosen,
    /// Of a metric, or of the scope where there are none.
    metric: Chosen,
}

impl Change<'_> {
    fn new(settings: &AttributesSettings) -> Change<'_> {
        Change {
            settings,
            resource: Chosen::default(),
            scope: Chosen::default(),
            metric: Chosen::default(),
        }
    }
}

fn next(chosen: Chosen) -> Next {
    match chosen.may_be() {
        true => Next::Look,
        false => Next::Leave,
    }
}

impl Edit for Change<'_> {
    fn resource(&mut self, attributes: &mut Attributes<'_>) -> Next {
        let choice = &self.settings.choice;
        self.resource = Chosen::by(choice).step(choice, &Place::Resource(attributes));
        next(self.resource)
    }

    fn scope(&mut self, scope: &View<'_>, _: &mut Attributes<'_>) -> Next {
        self.scope = self
            .resource
            .step(&self.settings.choice, &Place::Scope(scope));
        self.metric = self.scope;
        next(self.scope)
    }

    fn metric(&mut self, metric: &View<'_>) -> Next {
        self.metric = self
            .scope
            .step(&self.settings.choice, &Place::Metric(metric));
        next(self.metric)
    }

    fn item(&mut self, item: &View<'_>, attributes: &mut Attributes<'_>) -> bool {
        let place = Place::Item(item, attributes);
        if self.metric.step(&self.settings.choice, &place).is() {
            apply_to_encoded(&self.settings.actions, attributes);
        }
        true
    }
}
