//! `filter`: leaves out log records, spans, metrics and data points for which a condition holds.
//!
//! Conditions are OTTL; the older `include` and `exclude` are understood, too. Log records are looked at in
//! columns, which allocates nothing per record; spans and data points are cut out of the request where they
//! lie. What is left out counts as filtered.

mod config;
mod encoded;
mod records;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pdata::Signal;
use tailwater_pipeline::clock::Clock;
use tailwater_pipeline::factory::{Factory, NodeCx, ProcessorFactory, ProcessorSettings};
use tailwater_pipeline::{Batch, BuildError, Outcome, Output, Part, Payload, Processor};
use tailwater_telemetry::metrics::{
    FilteredLogsMetrics, FilteredPointsMetrics, FilteredSpansMetrics,
};

pub use config::{FilterSettings, LogRules, MetricRules, TraceRules};

use crate::ottl::Report;

/// The factory of this processor.
pub fn factory() -> ProcessorFactory {
    Factory {
        kind: "filter",
        about: "Leaves out records, spans, metrics and data points for which a condition of OTTL holds.",
        signals: &["logs", "metrics", "traces"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ProcessorSettings>> {
    let before = errors.len();
    let mut section = Section::new(node, path, errors);
    let settings = FilterSettings::decode(&mut section);
    section.finish();
    (errors.len() == before).then(|| Box::new(settings) as Box<dyn ProcessorSettings>)
}

impl ProcessorSettings for FilterSettings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn Processor>, BuildError> {
        Ok(Box::new(FilterProcessor {
            settings: self.clone(),
            counter: Some(Filtered::new(cx)),
            report: Report::new(cx),
            clock: Some(cx.clock.clone()),
            keep: Vec::new(),
        }))
    }
}

/// The counter of one signal.
enum Filtered {
    Logs(Arc<FilteredLogsMetrics>),
    Spans(Arc<FilteredSpansMetrics>),
    Points(Arc<FilteredPointsMetrics>),
}

impl Filtered {
    fn new(cx: &NodeCx) -> Filtered {
        match cx.signal {
            Some(Signal::Traces) => Filtered::Spans(FilteredSpansMetrics::new(&cx.metrics, &cx.id)),
            Some(Signal::Metrics) => {
                Filtered::Points(FilteredPointsMetrics::new(&cx.metrics, &cx.id))
            }
            _ => Filtered::Logs(FilteredLogsMetrics::new(&cx.metrics, &cx.id)),
        }
    }

    fn count(&self, items: usize) {
        let counter = match self {
            Filtered::Logs(m) => &m.filtered,
            Filtered::Spans(m) => &m.filtered,
            Filtered::Points(m) => &m.filtered,
        };
        counter.inc_by(items as u64);
    }
}

/// Filters in one chain of one shard.
pub struct FilterProcessor {
    settings: FilterSettings,
    counter: Option<Filtered>,
    report: Report,
    clock: Option<Arc<dyn Clock>>,
    /// One flag per row, to use again.
    keep: Vec<bool>,
}

impl FilterProcessor {
    /// A processor that counts nowhere but in the duties of what it is given.
    pub fn new(settings: FilterSettings) -> FilterProcessor {
        FilterProcessor {
            settings,
            counter: None,
            report: Report::uncounted(),
            clock: None,
            keep: Vec::new(),
        }
    }

    /// Leaves in `part` what no condition holds for; `None` if nothing is left or it was given up.
    fn part(&mut self, mut part: Part, now_ns: i64) -> Option<Part> {
        let before = part.data.items();
        match &mut part.data {
            Payload::Logs(logs) => {
                self.settings
                    .logs
                    .apply(logs, &mut self.keep, now_ns, &mut self.report);
            }
            Payload::Encoded(encoded) => match encoded.signal() {
                Signal::Metrics => {
                    encoded::metrics(&self.settings.metrics, encoded, now_ns, &mut self.report)
                }
                Signal::Traces => {
                    encoded::traces(&self.settings.traces, encoded, now_ns, &mut self.report)
                }
                Signal::Logs => {}
            },
        }
        let after = part.data.items();
        if let Some(reason) = self.report.finish() {
            let given_up = u32::try_from(before).unwrap_or(u32::MAX);
            part.ack.count_dropped(reason, given_up);
            part.ack.resolve(Outcome::Refused);
            return None;
        }
        let filtered = before.saturating_sub(after);
        part.ack
            .count_filtered(u32::try_from(filtered).unwrap_or(u32::MAX));
        if let Some(counter) = &self.counter
            && filtered > 0
        {
            counter.count(filtered);
        }
        part.non_empty()
    }

    /// Whether log records have to be looked at.
    fn looks_at_logs(&self) -> bool {
        !self.settings.logs.is_empty()
    }
}

impl Processor for FilterProcessor {
    fn process(&mut self, batch: Batch, out: &mut dyn Output) {
        let now_ns = self.clock.as_ref().map_or(0, |c| c.wall_ns());
        let mut parts: Vec<Part> = Vec::with_capacity(batch.parts.len());
        for part in batch.parts {
            let is_logs = part.data.signal() == Signal::Logs;
            if is_logs && self.looks_at_logs() {
                for logs in part.into_logs() {
                    parts.extend(self.part(logs.into(), now_ns));
                }
            } else if is_logs {
                parts.push(part);
            } else {
                parts.extend(self.part(part, now_ns));
            }
        }
        if !parts.is_empty() {
            out.emit(Batch { parts });
        }
    }
}
