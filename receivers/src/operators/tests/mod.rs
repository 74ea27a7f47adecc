//! Tests of whole chains, written as configurations and records.

mod chains;
mod containers;
mod formats;
mod parsers;
mod recombining;
mod routing;
mod texts;
mod transforms;

use std::time::Duration;

use tailwater_config::{Errors, KeyPath, MemoryEnvironment};
use tailwater_pdata::{Column, Entry, LogsBatch, Map, SourceRows, Value};

use super::{BuildCx, Chain, OperatorCx};

fn build(operators: &str) -> Result<Chain, Errors> {
    let list = tailwater_config::parse(operators, "test").expect("JSON, which is YAML");
    let environment = MemoryEnvironment::new().with_variable("NODE", "node-1");
    let cx = BuildCx {
        path: KeyPath::from("operators"),
        environment: &environment,
    };
    Chain::build(list.as_list().expect("a list"), &cx)
}

fn chain(operators: &str) -> Chain {
    build(operators).unwrap_or_else(|e| panic!("{operators}: {e}"))
}

fn refused(operators: &str) -> String {
    build(operators)
        .map(|_| ())
        .expect_err(operators)
        .to_string()
}

/// What the chain warns of.
fn warned(operators: &str) -> Vec<String> {
    let mut errors = Errors::new();
    Chain::report(build(operators), &mut errors);
    assert!(errors.is_empty(), "{operators}: {errors}");
    errors.warnings().iter().map(ToString::to_string).collect()
}

/// A batch of lines at `base` of a file, with its path as an attribute.
fn lines(base: u64, path: &str, lines: &[&str]) -> LogsBatch {
    let text = lines.join("\n");
    let mut at = 0;
    let mut ranges = Vec::new();
    for line in lines {
        ranges.push((at, line.len() as u32));
        at += line.len() as u32 + 1;
    }
    let mut batch = LogsBatch::from_lines(text.into_bytes().into(), &ranges);
    let rel = ranges.iter().map(|r| r.0).collect();
    batch.source = Some(SourceRows { base, rel });
    if !path.is_empty() {
        batch
            .attributes
            .set("log.file.path", Column::Const(path.into()));
    }
    batch
}

fn cx(source: u64, lineage: u64, seconds: u64) -> OperatorCx {
    OperatorCx {
        source,
        lineage,
        elapsed: Duration::from_secs(seconds),
        ..OperatorCx::default()
    }
}

/// The bodies that came out, of the batch and of those behind it.
fn bodies(batch: &LogsBatch, cx: &OperatorCx) -> Vec<String> {
    let all = std::iter::once(batch).chain(&cx.report.more);
    all.flat_map(|b| b.to_entries())
        .map(|e| e.body.as_ref().to_display_string())
        .collect()
}

fn map(entries: &[(&str, Value)]) -> Map {
    entries.iter().cloned().collect()
}

/// Runs entries as one batch and gives back all that came out.
fn run(chain: &mut Chain, entries: &[Entry]) -> (Vec<Entry>, OperatorCx) {
    let mut cx = cx(0, 0, 0);
    let mut batch = LogsBatch::from_entries(entries);
    chain.process(&mut batch, &mut cx);
    let mut out = batch.to_entries();
    out.extend(cx.report.more.iter().flat_map(|b| b.to_entries()));
    (out, cx)
}

fn text(body: &str) -> Entry {
    Entry {
        body: body.into(),
        ..Entry::default()
    }
}
