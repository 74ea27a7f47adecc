//! Kinds `processor` and `batch`: settings of a processor, records in, records or batches out.

use serde_json::Value as Json;
use tailwater_config::{Errors, Section, parse};
use tailwater_pdata::{Entry, LogsBatch, Map, Signal};
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{AckToken, Batch, Budget, LogsPart, Outcome, Output, Part, Processor};
use tailwater_processors::attributes::{AttributesConfig, AttributesProcessor};
use tailwater_processors::batch::{BatchConfig, BatchProcessor};
use tailwater_processors::filter::{FilterProcessor, FilterSettings};
use tailwater_processors::resource::{ResourceProcessor, ResourceSettings};
use tailwater_processors::transform::{TransformProcessor, TransformSettings};
use tailwater_telemetry::metrics::{BatchMetrics, MetricsRegistry};

use crate::case::{Case, Verdict};
use crate::records;

/// Memory for one case.
const BUDGET_BYTES: usize = 1 << 30;

/// What comes out of a processor, each with when it did.
#[derive(Default)]
struct Collected {
    now: Mono,
    batches: Vec<(Mono, Batch)>,
}

impl Collected {
    fn into_entries(self) -> Vec<Entry> {
        let batches = self.batches.into_iter();
        batches.flat_map(|(_, batch)| deliver(batch)).collect()
    }
}

impl Output for Collected {
    fn emit(&mut self, batch: Batch) {
        self.batches.push((self.now, batch));
    }

    fn now(&self) -> Mono {
        self.now
    }
}

fn build(kind: &str, config: &Json) -> Result<Box<dyn Processor>, Errors> {
    let node = parse(&config.to_string(), "vector")?;
    let mut errors = Errors::new();
    let mut section = Section::new(&node, kind, &mut errors);
    let processor: Box<dyn Processor> = match kind {
        "attributes" => {
            let config = AttributesConfig::decode(&mut section);
            section.finish();
            Box::new(AttributesProcessor::new(
                config.for_signal(Signal::Logs, &mut errors),
            ))
        }
        "resource" => {
            let settings = ResourceSettings::decode(&mut section);
            section.finish();
            Box::new(ResourceProcessor::new(settings))
        }
        "filter" => {
            let settings = FilterSettings::decode(&mut section);
            section.finish();
            Box::new(FilterProcessor::new(settings))
        }
        "transform" => {
            let settings = TransformSettings::decode(&mut section);
            section.finish();
            Box::new(TransformProcessor::new(settings))
        }
        _ => {
            let config = BatchConfig::decode(&mut section);
            section.finish();
            let metrics = BatchMetrics::new(&MetricsRegistry::default(), "batch");
            Box::new(BatchProcessor::new(config, metrics))
        }
    };
    errors.into_result(processor)
}

fn part(entries: &[Entry]) -> Part {
    Part {
        data: LogsBatch::from_entries(entries).into(),
        ack: AckToken::detached(),
        permit: Budget::new(BUDGET_BYTES).take(1),
    }
}

/// Settles a batch and gives its records.
fn deliver(batch: Batch) -> Vec<Entry> {
    let deliver = |part: LogsPart| {
        part.ack.resolve(Outcome::Delivered);
        part.logs.to_entries()
    };
    batch.into_logs().flat_map(deliver).collect()
}

/// Runs a case about single records.
pub fn run(case: &Case) -> Verdict {
    let config = &case.json["config"];
    let kind = config
        .as_object()
        .and_then(|o| o.keys().next())
        .map(String::as_str);
    match kind {
        Some(kind @ ("attributes" | "filter" | "resource" | "transform")) => {
            compare(kind, &case.json).into()
        }
        Some(kind) => Verdict::NotRun(format!("needs the processor {kind}")),
        None => Verdict::Failed("the vector configures nothing".to_owned()),
    }
}

fn compare(kind: &str, vector: &Json) -> Result<(), String> {
    let built = build(kind, &vector["config"][kind]);
    if let Some(error) = vector["expect"].get("error") {
        let text = built.err().ok_or("it must be refused")?.to_string();
        let want = error["contains"].as_str().unwrap_or_default();
        return text.contains(want).then_some(()).ok_or(text);
    }
    let mut processor = built.map_err(|e| e.to_string())?;
    let cases = |from: &str| {
        vector[from]["cases"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    let (inputs, wanted) = (cases("input"), cases("expect"));
    if inputs.is_empty() || inputs.len() != wanted.len() {
        return Err("the vector has not one expectation per input".to_owned());
    }
    for (i, (input, want)) in inputs.iter().zip(&wanted).enumerate() {
        let entry = Entry {
            attributes: records::map(&input["input"]["attributes"]),
            resource: records::map(&input["input"]["resource"]),
            ..Entry::default()
        };
        let mut out = Collected::default();
        processor.process(Batch::of(part(&[entry])), &mut out);
        let got = out.into_entries();
        if want["dropped"] == true {
            if !got.is_empty() {
                return Err(format!("case {i}: it was to be left out"));
            }
            continue;
        }
        let [got] = &got[..] else {
            return Err(format!("case {i}: {} records", got.len()));
        };
        for (field, map) in [("attributes", &got.attributes), ("resource", &got.resource)] {
            if let Some(want) = want.get(field).filter(|want| *map != records::map(want)) {
                return Err(format!("case {i}, {field}: got {map:?}, want {want}"));
            }
        }
    }
    Ok(())
}

/// Runs a case about batches.
pub fn run_batch(case: &Case) -> Verdict {
    let vector = &case.json;
    if vector["input"]["signal"]
        .as_str()
        .is_some_and(|s| s != "logs" && s != "traces")
    {
        return Verdict::NotRun("needs batches of metrics".to_owned());
    }
    compare_batches(vector).into()
}

fn compare_batches(vector: &Json) -> Result<(), String> {
    let mut processor = build("batch", &vector["config"]["batch"]).map_err(|e| e.to_string())?;
    let mut out = Collected::default();
    let mut number = 0_i64;
    for request in vector["input"]["requests"]
        .as_array()
        .ok_or("no requests")?
    {
        let records = request["records"].as_u64().ok_or("no number of records")? as usize;
        for _ in 0..request["repeat"].as_u64().unwrap_or(1) {
            let resource = Map::from_iter([("request", number)]);
            number += 1;
            let entries = vec![
                Entry {
                    resource,
                    ..Entry::default()
                };
                records
            ];
            processor.process(Batch::of(part(&entries)), &mut out);
        }
    }
    if vector["input"]["then"] == "shutdown" {
        processor.flush(&mut out);
    }
    // Time is made up: it goes on to whatever the processor waits for next.
    while let Some(next) = processor.deadline() {
        out.now = out.now.max(next);
        processor.tick(&mut out);
    }
    let of = |number: fn(&Batch) -> usize| -> Vec<u64> {
        let batches = out.batches.iter();
        batches.map(|(_, batch)| number(batch) as u64).collect()
    };
    let (sizes, groups) = (of(Batch::items), of(|batch| batch.parts.len()));
    let first_ms = out.batches.first().map(|(at, _)| at.0 / 1_000_000);
    out.into_entries();
    if let Some(bound) = vector["expect"]["not_before_ms"].as_u64()
        && first_ms.is_none_or(|at| at < bound)
    {
        return Err(format!("the first batch came after {first_ms:?} ms"));
    }
    check_batches(&vector["expect"], &sizes, &groups)
}

fn check_batches(expect: &Json, sizes: &[u64], groups: &[u64]) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{what}: sizes {sizes:?}, groups {groups:?}"));
    let differs = |key: &str, got: u64| expect[key].as_u64().is_some_and(|want| want != got);
    if differs("batches", sizes.len() as u64) || differs("total", sizes.iter().sum()) {
        return wrong("number of batches or records");
    }
    match &expect["records_per_batch"] {
        Json::Array(each)
            if !each
                .iter()
                .filter_map(Json::as_u64)
                .eq(sizes.iter().copied()) =>
        {
            return wrong("records per batch");
        }
        Json::Number(each) if sizes.iter().any(|n| Some(*n) != each.as_u64()) => {
            return wrong("records per batch");
        }
        _ => {}
    }
    if let Some((last, rest)) = sizes.split_last() {
        let rest_wrong = rest
            .iter()
            .any(|n| differs("records_per_batch_all_but_last", *n));
        if rest_wrong || differs("last_batch", *last) {
            return wrong("the last batch or the ones before it");
        }
    }
    if groups
        .iter()
        .any(|n| differs("resource_groups_per_batch", *n))
    {
        return wrong("resource groups per batch");
    }
    Ok(())
}
