//! Runs single records through a chain, as test vectors state them.

use std::time::Duration;

use tailwater_pdata::{Entry, LogsBatch, ValueRef};

use super::chain::Chain;
use super::operator::{OperatorCx, Report};

/// Sends `entries` through `chain` one by one, each as a batch of its own, and gives back what came
/// out, in order, with the sum of the reports (their `more` is empty: it is part of what came
/// out). Entries with the same `log.file.path` belong to one file. `now_ns` is the time of day in
/// ns since the epoch. No time passes between the entries, and `after` behind the last one.
pub fn run_entries(
    chain: &mut Chain,
    entries: &[Entry],
    now_ns: i64,
    after: Duration,
) -> (Vec<Entry>, Report) {
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
        pass_on(chain, &mut cx, &mut out);
    }
    cx.elapsed += after;
    pass_on(chain, &mut cx, &mut out);
    (out, cx.report)
}

/// Passes on what is due.
fn pass_on(chain: &mut Chain, cx: &mut OperatorCx, out: &mut Vec<Entry>) {
    for passed in chain.tick(cx) {
        let batches = passed.batches.iter();
        out.extend(batches.flat_map(LogsBatch::to_entries));
        let filtered = passed.filtered.iter();
        cx.report.filtered.extend(filtered.cloned());
    }
}

/// The operators to put behind a router to see where it sends records: each marks them by the
/// attribute `routed` of the resource. In JSON, which is YAML; `ids` are the outputs of its routes.
pub fn marks_behind_router(ids: &[&str]) -> String {
    let mark = |id: &&str| {
        format!(
            r#",{{"type":"add","id":"{id}","field":"resource.routed","value":"{id}","output":"end"}}"#
        )
    };
    let marks: String = ids.iter().map(mark).collect();
    format!(r#"{marks},{{"type":"noop","id":"end"}}"#)
}
