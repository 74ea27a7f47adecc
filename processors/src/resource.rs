//! `resource`: changes the attributes of resources.
//!
//! The batches of one file share one resource, so what the actions make of it is worked out once
//! and shared again, for as long as the same resource keeps coming. In what came as OTLP, of any
//! signal, resources are changed where they lie, and all else stays the bytes it was.

use std::sync::Arc;

use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pdata::Map;
use tailwater_pdata::otlp::edit::{Attributes, Edit, Next};
use tailwater_pipeline::factory::{Factory, NodeCx, ProcessorFactory, ProcessorSettings};
use tailwater_pipeline::{Batch, BuildError, LogsPart, Output, Part, Payload, Processor};

use crate::action::{
    Action, apply_to_encoded, apply_to_map, decode_actions, for_client, need_client,
};
use crate::remembered::Remembered;

/// The factory of this processor.
pub fn factory() -> ProcessorFactory {
    Factory {
        kind: "resource",
        about: "Changes the attributes of resources.",
        signals: &["logs", "metrics", "traces"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ProcessorSettings>> {
    let before = errors.len();
    let mut section = Section::new(node, path, errors);
    let settings = ResourceSettings::decode(&mut section);
    section.finish();
    (errors.len() == before).then(|| Box::new(settings) as Box<dyn ProcessorSettings>)
}

/// What a `resource` processor does.
#[derive(Clone, Debug)]
pub struct ResourceSettings {
    /// What it does, in order.
    pub actions: Vec<Action>,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[(
    "attributes",
    "What is done to the resource, in order. Required.",
)];

impl ResourceSettings {
    /// Reads the section; mistakes are in it.
    pub fn decode(s: &mut Section<'_, '_>) -> ResourceSettings {
        s.describe(OPTIONS);
        let actions = decode_actions(s, "attributes").for_use(s.errors());
        ResourceSettings { actions }
    }
}

impl ProcessorSettings for ResourceSettings {
    fn build(&self, _cx: &NodeCx) -> Result<Box<dyn Processor>, BuildError> {
        Ok(Box::new(ResourceProcessor::new(self.clone())))
    }
}

/// Changes resources in one chain of one shard.
pub struct ResourceProcessor {
    settings: ResourceSettings,
    remembered: Remembered,
    /// The actions as they are configured, if they read what is known of the client. Then nothing is
    /// remembered.
    of_any_client: Option<Vec<Action>>,
}

impl ResourceProcessor {
    /// A processor that has seen no resource.
    pub fn new(settings: ResourceSettings) -> ResourceProcessor {
        ResourceProcessor {
            of_any_client: need_client(&settings.actions).then(|| settings.actions.clone()),
            settings,
            remembered: Remembered::default(),
        }
    }

    fn change(&mut self, resource: &Arc<Map>) -> Arc<Map> {
        let actions = &self.settings.actions;
        let change = |map: &mut Map| apply_to_map(actions, map);
        self.remembered.of(resource, change)
    }
}

impl Processor for ResourceProcessor {
    fn process(&mut self, batch: Batch, out: &mut dyn Output) {
        let mut parts: Vec<Part> = Vec::with_capacity(batch.parts.len());
        let mut folded = Vec::new();
        for part in batch.parts {
            let Part { data, ack, permit } = part;
            if let Some(actions) = &self.of_any_client {
                self.settings.actions = for_client(actions, ack.client().as_deref());
                self.remembered.clear();
            }
            match data {
                Payload::Logs(logs) => {
                    LogsPart { logs, ack, permit }.split_by_resource(&mut folded);
                }
                Payload::Encoded(mut encoded) => {
                    encoded.edit(&mut Change(&self.settings.actions));
                    let data = encoded.into();
                    parts.push(Part { data, ack, permit });
                }
            }
            for mut part in folded.drain(..) {
                part.logs.resource = self.change(&part.logs.resource);
                parts.push(part.into());
            }
        }
        out.emit(Batch { parts });
    }
}

/// The same in a request as it came.
struct Change<'s>(&'s [Action]);

impl Edit for Change<'_> {
    fn resource(&mut self, attributes: &mut Attributes<'_>) -> Next {
        apply_to_encoded(self.0, attributes);
        Next::Leave
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{Origin, Put, Source};
    use tailwater_pdata::{LogsBatch, Value};
    use tailwater_pipeline::clock::Mono;
    use tailwater_pipeline::{AckSink, AckToken, Budget, Counts, Outcome};

    #[derive(Default)]
    struct Out(Vec<LogsPart>);

    impl Output for Out {
        fn emit(&mut self, batch: Batch) {
            self.0.extend(batch.into_logs());
        }
        fn now(&self) -> Mono {
            Mono(0)
        }
    }

    fn processor() -> ResourceProcessor {
        let source = Source {
            origin: Origin::Value("z1".into()),
            default: None,
        };
        let actions = vec![Action::Put {
            key: "zone".into(),
            put: Put::Upsert,
            source,
        }];
        ResourceProcessor::new(ResourceSettings { actions })
    }

    fn part(resource: &Arc<Map>) -> LogsPart {
        let text = bytes::Bytes::from_static(b"abc");
        let mut logs = LogsBatch::from_lines(text, &[(0, 1), (1, 1), (2, 1)]);
        logs.resource = resource.clone();
        LogsPart {
            logs,
            ack: AckToken::detached(),
            permit: Budget::new(100).take(30),
        }
    }

    fn run(processor: &mut ResourceProcessor, part: LogsPart) -> Vec<LogsPart> {
        let mut out = Out::default();
        processor.process(Batch::of(part), &mut out);
        out.0
    }

    fn deliver(parts: Vec<LogsPart>) {
        for part in parts {
            part.ack.resolve(Outcome::Delivered);
        }
    }

    #[test]
    fn batches_of_one_file_go_on_sharing_one_resource() {
        let mut p = processor();
        let from = Arc::new(Map::from_iter([("host", "h")]));
        let mut parts = run(&mut p, part(&from));
        parts.extend(run(&mut p, part(&from)));
        assert!(Arc::ptr_eq(
            &parts[0].logs.resource,
            &parts[1].logs.resource
        ));
        assert_eq!(
            *parts[0].logs.resource,
            Map::from_iter([("host", "h"), ("zone", "z1")])
        );
        assert_eq!(from.len(), 1, "the shared original is not touched");
        let unchanged = Arc::new(Map::from_iter([("zone", "z1")]));
        parts.extend(run(&mut p, part(&unchanged)));
        assert!(Arc::ptr_eq(&parts[2].logs.resource, &unchanged));
        deliver(parts);
        for i in 0..2 * Remembered::MAX as i64 {
            deliver(run(&mut p, part(&Arc::new(Map::from_iter([("n", i)])))));
        }
        assert_eq!(p.remembered.len(), Remembered::MAX);
    }

    struct Told(std::sync::Mutex<Vec<Outcome>>);
    impl AckSink for Told {
        fn settled(&self, _: u64, outcome: Outcome, _: &Counts) {
            self.0.lock().unwrap().push(outcome);
        }
    }

    #[test]
    fn rows_with_their_own_resource_become_parts_that_share_the_duty() {
        let told = Arc::new(Told(Default::default()));
        let mut own = part(&Arc::new(Map::from_iter([("zone", "z0")])));
        let before = std::mem::replace(&mut own.ack, AckToken::new(told.clone(), 0));
        before.resolve(Outcome::Delivered);
        let cell = own.logs.cell(&Value::str("h2"));
        own.logs.set_resource_attribute(1, "host", cell);
        let parts = run(&mut processor(), own);
        let seen: Vec<_> = parts
            .iter()
            .map(|p| {
                (
                    p.logs.rows(),
                    p.permit.bytes(),
                    p.logs.resource.get("zone").cloned(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [(2, 20, Some("z1".into())), (1, 10, Some("z1".into()))]
        );
        deliver(parts);
        assert_eq!(*told.0.lock().unwrap(), [Outcome::Delivered]);
    }
}
