//! What operators must do with any bytes. Bodies of fuzz targets: they panic where it does not hold.

mod containers;
mod expressions;
mod formats;
mod parsers;
mod paths;

pub use containers::{cri_lines, docker_lines};
pub use expressions::expressions;
pub use formats::formats;
pub use parsers::parsers;
pub use paths::container_paths;

use std::time::Duration;

use tailwater_config::{KeyPath, MemoryEnvironment};
use tailwater_pdata::{Column, LogsBatch, Map, SourceRows, ValueRef};

use super::{BuildCx, Chain, OperatorCx};

/// The source and the lineage that all lines belong to.
const SOURCE: u64 = 7;
/// 2024-04-13T08:00:00Z, in ns.
const NOW_NS: i64 = 1_712_995_200_000_000_000;

/// A chain of `operators`, written as JSON.
fn chain(operators: &str) -> Chain {
    let environment = MemoryEnvironment::new().with_variable("NODE", "node-1");
    let cx = BuildCx {
        path: KeyPath::from("operators"),
        environment: &environment,
    };
    let list = tailwater_config::parse(operators, "fuzz").expect("JSON, which is YAML");
    let nodes = list.as_list().expect("a list of operators");
    Chain::build(nodes, &cx).unwrap_or_else(|e| panic!("{operators}: {e}"))
}

/// What came of lines.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    /// Records in order, with the offset of the line they come from.
    records: Vec<String>,
    /// Bytes of their bodies.
    body_bytes: usize,
    filtered: u64,
    dropped: u64,
    joined: u64,
    cut: u64,
    flushed: u64,
    /// Records with an error.
    failed: u64,
}

impl Outcome {
    fn take(&mut self, batch: &LogsBatch) {
        for row in 0..batch.rows() {
            let mut entry = batch.entry(row);
            // Columns stand in the order in which their names came up in the batch.
            for map in [&mut entry.attributes, &mut entry.resource] {
                *map = sorted(map);
            }
            let body = batch.body(row).and_then(ValueRef::as_text);
            self.body_bytes += body.map_or(0, <[u8]>::len);
            let from = batch.source_offset(row);
            // As text: a number that is none equals itself then.
            self.records.push(format!("{from:?} {entry:?}"));
        }
    }
}

fn sorted(map: &Map) -> Map {
    let mut entries: Vec<_> = map.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    entries.into_iter().collect()
}

/// Sends `lines` through `chain`, `per_batch` at a time, and lets time pass then.
fn run(chain: &mut Chain, lines: &[&[u8]], per_batch: usize) -> Outcome {
    let mut out = Outcome::default();
    let mut cx = OperatorCx {
        source: SOURCE,
        lineage: SOURCE,
        now_ns: NOW_NS,
        ..OperatorCx::default()
    };
    let mut base = 0;
    for group in lines.chunks(per_batch.max(1)) {
        let (mut batch, end) = batch(group, base);
        chain.process(&mut batch, &mut cx);
        out.take(&batch);
        for more in std::mem::take(&mut cx.report.more) {
            out.take(&more);
        }
        if chain.held_bytes() > 0 {
            let from = chain.held_from(SOURCE).expect("held lines have a source");
            assert!(from < end && chain.holds(SOURCE, SOURCE));
        }
        base = end;
    }
    let mut passed = Vec::new();
    // What one operator passes on, another may hold back.
    for _ in 0..2 {
        cx.elapsed += Duration::from_secs(60);
        passed.extend(chain.tick(&mut cx));
    }
    passed
        .iter()
        .flat_map(|p| &p.batches)
        .for_each(|b| out.take(b));
    assert!(chain.deadline().is_none() && chain.held_from(SOURCE).is_none());
    assert_eq!(chain.held_bytes(), 0, "nothing is held for ever");
    let by_clock = |n: fn(&super::Passed) -> u64| passed.iter().map(n).sum::<u64>();
    let report = &cx.report;
    out.filtered =
        report.filtered_total() + by_clock(|p| p.filtered.iter().map(|(_, records)| records).sum());
    out.failed = report.errors.iter().map(|e| e.records).sum();
    (out.dropped, out.joined) = (report.dropped, report.joined);
    (out.cut, out.flushed) = (report.cut, report.flushed);
    out
}

/// A batch of `lines`, of which the first begins at `base`, and where the next one begins.
fn batch(lines: &[&[u8]], base: u64) -> (LogsBatch, u64) {
    let mut text = Vec::new();
    let mut ranges = Vec::new();
    for line in lines {
        ranges.push((text.len() as u32, line.len() as u32));
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    let end = base + text.len() as u64;
    let mut batch = LogsBatch::from_lines(text.into(), &ranges);
    let rel = ranges.iter().map(|r| r.0).collect();
    batch.source = Some(SourceRows { base, rel });
    let path = Column::Const("/var/log/pods/a_b_0c/d/0.log".into());
    batch.attributes.set("log.file.path", path);
    (batch, end)
}

/// Runs `lines` at once, in groups of `per_batch` and one by one: the records are the same, and
/// each line is accounted for. Gives back what came of them.
fn check(operators: &str, lines: &[&[u8]], per_batch: usize) -> Outcome {
    let whole = run(&mut chain(operators), lines, lines.len());
    let came_out = whole.records.len() as u64;
    assert_eq!(
        lines.len() as u64 + whole.flushed,
        came_out + whole.filtered + whole.dropped + whole.joined,
        "{whole:?}"
    );
    for n in [per_batch, 1] {
        let parts = run(&mut chain(operators), lines, n);
        for (got, want) in parts.records.iter().zip(&whole.records) {
            assert_eq!(got, want, "in batches of {n}");
        }
        assert_eq!(parts, whole, "in batches of {n}");
    }
    whole
}

/// The lines of `text`: what stands between LF.
fn lines_of(text: &[u8]) -> Vec<&[u8]> {
    text.split(|b| *b == b'\n').collect()
}
