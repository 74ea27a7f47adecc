//! Guarantee: every test vector of these processors holds. A vector is one JSON file under
//! `tests/vectors`; it restates the facts of one test of the collector (see its `source`).

use std::path::Path;
use std::sync::Arc;

use serde_json::Value as Json;
use tailwater_config::{Errors, Section, parse};
use tailwater_pdata::{Entry, LogsBatch, Map, Value};
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{AckToken, Batch, Budget, Outcome, Output, Part, Processor};
use tailwater_processors::attributes::{AttributesConfig, AttributesProcessor};
use tailwater_processors::batch::{BatchConfig, BatchProcessor};
use tailwater_processors::resource::{ResourceProcessor, ResourceSettings};
use tailwater_telemetry::metrics::{BatchMetrics, MetricsRegistry};

#[derive(Default)]
struct Out {
    now: Mono,
    passed: Vec<Batch>,
}

impl Output for Out {
    fn emit(&mut self, batch: Batch) {
        self.passed.push(batch);
    }
    fn now(&self) -> Mono {
        self.now
    }
}

fn vectors(group: &str) -> Vec<(String, Json)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(group);
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .expect("the folder is part of the repository")
        .collect();
    files.sort_by_key(|f| f.as_ref().map(|f| f.path()).ok());
    files
        .into_iter()
        .map(|file| {
            let path = file.expect("a readable folder").path();
            let text = std::fs::read_to_string(&path).expect("a readable file");
            (
                path.display().to_string(),
                serde_json::from_str(&text).expect("JSON"),
            )
        })
        .collect()
}

fn value_of(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) if n.is_i64() => Value::Int(n.as_i64().expect("just asked")),
        Json::Number(n) => Value::Double(n.as_f64().expect("a number")),
        Json::String(s) => Value::str(s),
        Json::Array(items) => Value::List(items.iter().map(value_of).collect()),
        Json::Object(_) => Value::Map(map_of(json)),
    }
}

fn map_of(json: &Json) -> Map {
    let entries = json.as_object().into_iter().flatten();
    entries.map(|(k, v)| (k.as_str(), value_of(v))).collect()
}

/// Decodes `config` and builds the processor, or says what is wrong.
fn build(kind: &str, config: &Json) -> Result<Box<dyn Processor>, Errors> {
    let node = parse(&config.to_string(), "vector").expect("JSON is YAML");
    let mut errors = Errors::new();
    let mut section = Section::new(&node, kind, &mut errors);
    let processor: Box<dyn Processor> = match kind {
        "attributes" => {
            let config = AttributesConfig::decode(&mut section);
            section.finish();
            Box::new(AttributesProcessor::new(config.for_logs(&mut errors)))
        }
        "resource" => {
            let settings = ResourceSettings::decode(&mut section);
            section.finish();
            Box::new(ResourceProcessor::new(settings))
        }
        "batch" => {
            let config = BatchConfig::decode(&mut section);
            section.finish();
            let metrics = BatchMetrics::new(&MetricsRegistry::default(), "batch");
            Box::new(BatchProcessor::new(config, metrics))
        }
        other => panic!("no vector is about {other}"),
    };
    errors.into_result(processor)
}

fn part(entries: &[Entry]) -> Part {
    Part {
        logs: LogsBatch::from_entries(entries),
        ack: AckToken::detached(),
        permit: Budget::new(1 << 30).take(1),
    }
}

fn deliver(batch: Batch) -> Vec<Entry> {
    let deliver = |part: Part| {
        part.ack.resolve(Outcome::Delivered);
        part.logs.to_entries()
    };
    batch.parts.into_iter().flat_map(deliver).collect()
}

/// Runs one `processor` vector: records go in one by one, maps are compared.
fn check_processor(name: &str, kind: &str, vector: &Json) {
    let built = build(kind, &vector["config"][kind]);
    if let Some(error) = vector["expect"].get("error") {
        let errors = built
            .err()
            .unwrap_or_else(|| panic!("{name}: must be refused"));
        let want = error["contains"].as_str().expect("a text");
        assert!(errors.to_string().contains(want), "{name}: {errors}");
        return;
    }
    let mut processor = built.unwrap_or_else(|e| panic!("{name}: {e}"));
    let inputs = vector["input"]["cases"].as_array().expect("cases");
    let wanted = vector["expect"]["cases"].as_array().expect("cases");
    assert_eq!(inputs.len(), wanted.len(), "{name}");
    for (i, (case, want)) in inputs.iter().zip(wanted).enumerate() {
        let entry = Entry {
            attributes: map_of(&case["input"]["attributes"]),
            resource: map_of(&case["input"]["resource"]),
            ..Entry::default()
        };
        let mut out = Out::default();
        processor.process(Batch::of(part(&[entry])), &mut out);
        let got: Vec<Entry> = out.passed.into_iter().flat_map(deliver).collect();
        assert_eq!(got.len(), 1, "{name} case {i}");
        for (field, map) in [
            ("attributes", &got[0].attributes),
            ("resource", &got[0].resource),
        ] {
            if let Some(want) = want.get(field) {
                assert_eq!(*map, map_of(want), "{name} case {i}: {field}");
            }
        }
    }
}

/// Runs one `batch` vector.
fn check_batch(name: &str, vector: &Json) {
    let mut processor =
        build("batch", &vector["config"]["batch"]).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut out = Out::default();
    let mut number = 0_i64;
    for request in vector["input"]["requests"].as_array().expect("requests") {
        let records = request["records"].as_u64().expect("a number");
        for _ in 0..request["repeat"].as_u64().unwrap_or(1) {
            let resource = Map::from_iter([("request", number)]);
            let entry = Entry {
                resource,
                ..Entry::default()
            };
            number += 1;
            let entries = vec![entry; usize::try_from(records).expect("small")];
            processor.process(Batch::of(part(&entries)), &mut out);
        }
    }
    if vector["input"]["then"] == "shutdown" {
        processor.flush(&mut out);
    }
    let expect = &vector["expect"];
    let sizes: Vec<u64> = out.passed.iter().map(|b| b.records() as u64).collect();
    assert_eq!(
        Some(sizes.len() as u64),
        expect["batches"].as_u64(),
        "{name}: {sizes:?}"
    );
    assert_eq!(
        Some(sizes.iter().sum()),
        expect["total"].as_u64(),
        "{name}: {sizes:?}"
    );
    if let Some(each) = expect.get("records_per_batch") {
        assert!(
            sizes.iter().all(|n| Some(*n) == each.as_u64()),
            "{name}: {sizes:?}"
        );
    }
    for batch in out.passed {
        if let Some(groups) = expect.get("resource_groups_per_batch") {
            assert_eq!(Some(batch.parts.len() as u64), groups.as_u64(), "{name}");
        }
        deliver(batch);
    }
}

#[test]
fn the_vectors_of_attributes_and_resource_hold() {
    let mut ran = 0;
    for kind in ["attributes", "resource"] {
        for (name, vector) in vectors(kind) {
            check_processor(&name, kind, &vector);
            ran += 1;
        }
    }
    assert_eq!(ran, 6, "a vector is missing or new");
}

#[test]
fn the_vectors_of_batch_hold() {
    let all = vectors("batch");
    assert_eq!(all.len(), 3, "a vector is missing or new");
    for (name, vector) in all {
        check_batch(&name, &vector);
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
                config.for_logs(&mut errors);
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

/// Parts that share one resource go on sharing it behind both processors.
#[test]
fn a_shared_resource_stays_shared() {
    let config = serde_json::json!({"actions": [{"key": "a", "value": 1, "action": "insert"}]});
    let mut processor = build("attributes", &config).unwrap_or_else(|e| panic!("{e}"));
    let resource = Arc::new(Map::from_iter([("host", "h")]));
    let mut one = part(&[Entry::default()]);
    one.logs.resource = resource.clone();
    let mut out = Out::default();
    processor.process(Batch::of(one), &mut out);
    assert!(Arc::ptr_eq(
        &out.passed[0].parts[0].logs.resource,
        &resource
    ));
    out.passed
        .into_iter()
        .for_each(|batch| drop(deliver(batch)));
}
