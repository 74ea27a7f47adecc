//! Guarantee: OTTL costs a record no allocation in the steady state: conditions of a filter at all, and
//! statements that store literals and parts of text only what a column takes for a batch.

use bytes::Bytes;
use tailwater_benches::allocations::{self, CountingAllocator};
use tailwater_config::{Errors, Section, parse};
use tailwater_pdata::LogsBatch;
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{AckToken, Batch, LogsPart, Outcome, Output, Part, Permit, Processor};
use tailwater_processors::filter::{FilterProcessor, FilterSettings};
use tailwater_processors::transform::{TransformProcessor, TransformSettings};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const ROWS: u32 = 4096;
const LINE: &[u8] = b"2026-03-01 WARN GET /index.html 200\n";

/// Takes what comes out, and counts it.
#[derive(Default)]
struct Out(usize);

impl Output for Out {
    fn emit(&mut self, batch: Batch) {
        self.0 += batch.items();
        for part in batch.parts {
            part.ack.resolve(Outcome::Delivered);
        }
    }
    fn now(&self) -> Mono {
        Mono::default()
    }
}

/// The batch and the records that are left of it.
fn batch() -> Batch {
    let text = Bytes::from(LINE.repeat(ROWS as usize));
    let length = LINE.len() as u32;
    let lines: Vec<(u32, u32)> = (0..ROWS).map(|i| (i * length, length - 1)).collect();
    Batch::of(Part::from(LogsPart {
        logs: LogsBatch::from_lines(text, &lines),
        ack: AckToken::detached(),
        permit: Permit::none(),
    }))
}

/// Allocations of the second batch that `processor` is given, and records it passes on.
fn second(processor: &mut dyn Processor) -> (u64, usize) {
    processor.process(batch(), &mut Out::default());
    let (batch, mut out) = (batch(), Out::default());
    let before = allocations::count();
    processor.process(batch, &mut out);
    (allocations::count() - before, out.0)
}

fn decoded<T>(yaml: &str, decode: impl FnOnce(&mut Section<'_, '_>) -> T) -> T {
    let node = parse(yaml, "a.yaml").expect("valid YAML");
    let mut errors = Errors::new();
    let mut section = Section::new(&node, "p", &mut errors);
    let made = decode(&mut section);
    section.finish();
    assert!(errors.is_empty(), "{errors}");
    made
}

/// Both in one test: what is counted is the whole process.
#[test]
fn a_record_costs_no_allocation() {
    let yaml = r#"
log_conditions:
  - IsMatch(log.body, "healthz") or log.attributes["none"] != nil
  - log.severity_number > SEVERITY_NUMBER_INFO and HasPrefix(log.body, "2026")
  - Substring(log.body, 0, 4) == "2025" or resource.attributes["env"] == "test"
"#;
    let mut filter = FilterProcessor::new(decoded(yaml, FilterSettings::decode));
    let (count, left) = second(&mut filter);
    assert_eq!(left, ROWS as usize);
    assert!(count < 16, "filter: {count} allocations for {ROWS} records");

    let yaml = r#"
log_statements:
  - set(log.attributes["env"], "prod")
  - set(log.attributes["day"], Substring(log.body, 0, 10))
  - set(log.severity_text, "WARN") where IsMatch(log.body, " WARN ")
  - set(log.severity_number, SEVERITY_NUMBER_WARN) where IsMatch(log.body, " WARN ")
  - set(log.body, TrimPrefix(log.body, "2026-03-01 "))
"#;
    let mut transform = TransformProcessor::new(decoded(yaml, TransformSettings::decode));
    let (count, left) = second(&mut transform);
    assert_eq!(left, ROWS as usize);
    assert!(
        count < 64,
        "transform: {count} allocations for {ROWS} records"
    );
}
