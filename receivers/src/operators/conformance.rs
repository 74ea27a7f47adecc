//! Runs single records through a chain, as test vectors state them.

use tailwater_pdata::{Entry, LogsBatch, ValueRef};

use super::chain::Chain;
use super::operator::{OperatorCx, Report};

/// Sends `entries` through `chain` one by one, each as a batch of its own, and gives back what came
/// out, in order, with the sum of the reports (their `more` is empty: it is part of what came
/// out). Entries with the same `log.file.path` belong to one file. `now_ns` is the time of day in
/// ns since the epoch; no time passes between the entries, so nothing is passed on by the clock.
pub fn run_entries(chain: &mut Chain, entries: &[Entry], now_ns: i64) -> (Vec<Entry>, Report) {
    let mut cx = OperatorCx {
        now_ns,
        ..OperatorCx::default()
    };
    let mut paths: Vec<String> = Vec::new();
    let mut out = Vec::new();
    for entry in entries {
        let path = entry.attributes.get("log.file.path");
        let path = path
            .map(|v| ValueRef::to_display_string(v.as_ref()))
            .unwrap_or_default();
        let file = paths.iter().position(|p| *p == path).unwrap_or_else(|| {
            paths.push(path);
            paths.len() - 1
        });
        (cx.source, cx.lineage) = (file as u64, file as u64);
        let mut batch = LogsBatch::from_entries(std::slice::from_ref(entry));
        chain.process(&mut batch, &mut cx);
        out.extend(batch.to_entries());
        out.extend(cx.report.more.drain(..).flat_map(|b| b.to_entries()));
    }
    (out, cx.report)
}
