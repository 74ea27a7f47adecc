//! Guarantee: the collector's own example sections of `attributes` and `resource` are understood.

use std::path::Path;
use std::sync::Arc;

use tailwater_config::{Errors, Section, parse};
use tailwater_pdata::{Entry, LogsBatch, Map, Signal};
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{AckToken, Batch, Budget, LogsPart, Outcome, Output, Processor};
use tailwater_processors::attributes::{AttributesConfig, AttributesProcessor};
use tailwater_processors::resource::ResourceSettings;

#[derive(Default)]
struct Out(Vec<Batch>);

impl Output for Out {
    fn emit(&mut self, batch: Batch) {
        self.0.push(batch);
    }
    fn now(&self) -> Mono {
        Mono::default()
    }
}

/// The collector's own examples: all are understood. Those the collector does not create a
/// processor for logs from are refused for logs: conditions on spans, a group without a name.
#[test]
fn the_collectors_example_sections_are_understood() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs");
    let mut for_spans = Vec::new();
    let mut ran = 0;
    for file in ["attributes-config.yaml", "resource-config.yaml"] {
        let text = std::fs::read_to_string(dir.join(file)).expect("part of the repository");
        let root = parse(&text, file).expect("valid YAML");
        for (id, node) in root.as_map().expect("a map of components") {
            ran += 1;
            let mut errors = Errors::new();
            let mut section = Section::new(node, id.text.as_str(), &mut errors);
            if id.text.starts_with("attributes") {
                let config = AttributesConfig::decode(&mut section);
                section.finish();
                assert!(errors.is_empty(), "{errors}");
                config.for_signal(Signal::Logs, &mut errors);
            } else {
                ResourceSettings::decode(&mut section);
                section.finish();
            }
            if !errors.is_empty() {
                for_spans.push((id.text.clone(), errors.to_string()));
            }
        }
    }
    assert_eq!(ran, 22);
    let names: Vec<&str> = for_spans.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(
        names,
        [
            "attributes/regex_insert",
            "attributes/excludemulti",
            "attributes/includeservices",
            "attributes/selectiveprocessing",
            "attributes/regexp",
            "attributes/servicesmetrics",
            "resource/empty",
        ]
    );
    for (id, text) in &for_spans {
        let want = match id.as_str() {
            "resource/empty" => "at least one action",
            "attributes/regex_insert" => "every group needs a name",
            _ => "another signal",
        };
        assert!(text.contains(want), "{text}");
    }
}

/// Parts that share one resource go on sharing it behind the processor.
#[test]
fn a_shared_resource_stays_shared() {
    let yaml = "actions: [{key: a, value: 1, action: insert}]";
    let node = parse(yaml, "test").expect("valid YAML");
    let mut errors = Errors::new();
    let mut section = Section::new(&node, "attributes", &mut errors);
    let config = AttributesConfig::decode(&mut section);
    let mut processor = AttributesProcessor::new(config.for_signal(Signal::Logs, &mut errors));
    assert!(errors.is_empty(), "{errors}");
    let mut logs = LogsBatch::from_entries(&[Entry::default()]);
    let resource = Arc::new(Map::from_iter([("host", "h")]));
    logs.resource = resource.clone();
    let part = LogsPart {
        logs,
        ack: AckToken::detached(),
        permit: Budget::new(1 << 20).take(1),
    };
    let mut out = Out::default();
    processor.process(Batch::of(part), &mut out);
    let parts: Vec<LogsPart> = out.0.into_iter().flat_map(Batch::into_logs).collect();
    assert!(Arc::ptr_eq(&parts[0].logs.resource, &resource));
    for part in parts {
        part.ack.resolve(Outcome::Delivered);
    }
}
