//! `transform`: changes logs, spans and metrics, what is in them and what is around them, by statements of
//! OTTL.
//!
//! Statements of one group are carried out on each record, one after another: on log records in the columns
//! of the batch, on spans, events, metrics and points in the request as it came. Neighbouring groups about
//! the same kind of thing are carried out on a record before the next one.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_ottl::logs::LogScene;
use tailwater_ottl::requests::PlaceScene;
use tailwater_ottl::{Context, SceneMut};
use tailwater_pdata::otlp::Encoded;
use tailwater_pdata::otlp::revise::Level;
use tailwater_pdata::{LogsBatch, Signal};
use tailwater_pipeline::clock::Clock;
use tailwater_pipeline::factory::{Factory, NodeCx, ProcessorFactory, ProcessorSettings};
use tailwater_pipeline::{
    AckToken, Batch, BuildError, LogsPart, Outcome, Output, Part, Payload, Processor,
};

use crate::ottl::{Report, StatementGroup, edit_metric, error_mode, statement_groups};

/// The factory of this processor.
pub fn factory() -> ProcessorFactory {
    Factory {
        kind: "transform",
        about: "Changes log records, spans and their events, metrics and their points, scopes and resources by statements of OTTL.",
        signals: &["logs", "metrics", "traces"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ProcessorSettings>> {
    let before = errors.len();
    let mut section = Section::new(node, path, errors);
    let settings = TransformSettings::decode(&mut section);
    section.finish();
    (errors.len() == before).then(|| Box::new(settings) as Box<dyn ProcessorSettings>)
}

/// What a `transform` does.
#[derive(Clone, Debug, Default)]
pub struct TransformSettings {
    /// To logs, group by group.
    pub logs: Vec<StatementGroup>,
    /// To traces.
    pub traces: Vec<StatementGroup>,
    /// To metrics.
    pub metrics: Vec<StatementGroup>,
}

const LOGS: &[Context] = &[Context::Resource, Context::Scope, Context::Log];
const TRACES: &[Context] = &[
    Context::Resource,
    Context::Scope,
    Context::Span,
    Context::SpanEvent,
];
const METRICS: &[Context] = &[
    Context::Resource,
    Context::Scope,
    Context::Metric,
    Context::DataPoint,
];

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "log_statements",
        "Statements for logs, with paths that begin with their context; or groups of them.",
    ),
    ("trace_statements", "The same for traces."),
    ("metric_statements", "The same for metrics."),
    ("log_statements::0::statements", "Statements, in order."),
    ("trace_statements::0::statements", "Statements, in order."),
    ("metric_statements::0::statements", "Statements, in order."),
    (
        "flatten_data",
        "True is refused: write `flatten(log.attributes)` as a statement.",
    ),
];

impl TransformSettings {
    /// Reads the section; mistakes are in it.
    pub fn decode(s: &mut Section<'_, '_>) -> TransformSettings {
        s.describe(OPTIONS);
        let mode = error_mode(s);
        let settings = TransformSettings {
            logs: statement_groups(s, "log_statements", LOGS, mode),
            traces: statement_groups(s, "trace_statements", TRACES, mode),
            metrics: statement_groups(s, "metric_statements", METRICS, mode),
        };
        s.refuse("profile_statements", "profiles are no signal of this agent");
        let flatten = "write flatten(log.attributes) as a statement instead";
        if s.bool("flatten_data", false) {
            s.invalid("flatten_data", format!("is not supported: {flatten}"));
        }
        settings
    }

    fn groups(&self, signal: Signal) -> &[StatementGroup] {
        match signal {
            Signal::Logs => &self.logs,
            Signal::Traces => &self.traces,
            Signal::Metrics => &self.metrics,
        }
    }
}

impl ProcessorSettings for TransformSettings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn Processor>, BuildError> {
        Ok(Box::new(TransformProcessor {
            settings: self.clone(),
            report: Report::new(cx),
            clock: Some(cx.clock.clone()),
        }))
    }
}

/// Transforms in one chain of one shard.
pub struct TransformProcessor {
    settings: TransformSettings,
    report: Report,
    clock: Option<Arc<dyn Clock>>,
}

impl TransformProcessor {
    /// A processor that counts nowhere but in the duties of what it is given.
    pub fn new(settings: TransformSettings) -> TransformProcessor {
        TransformProcessor {
            settings,
            report: Report::uncounted(),
            clock: None,
        }
    }

    /// Carries all groups out on `logs`.
    fn change(&mut self, logs: &mut LogsBatch, now_ns: i64) {
        let mut scene = LogScene::new(logs);
        let groups = &self.settings.logs;
        for groups in groups.chunk_by(|a, b| a.context == b.context) {
            let Some(first) = groups.first() else { break };
            let (rows, done) = match first.context {
                Context::Log => (scene.rows(), first.run_on_all(&mut scene)),
                // There is one resource and one scope, if there is anything at all.
                _ => (scene.rows().min(1), 0),
            };
            if done == first.statements.len() && groups.len() == 1 {
                continue;
            }
            for row in 0..rows {
                for (i, group) in groups.iter().enumerate() {
                    scene.go_to(row);
                    let from = if i == 0 { done } else { 0 };
                    if !group.run(from, &mut scene, now_ns, &mut self.report) {
                        return;
                    }
                }
            }
        }
    }
}

/// How deep what a context is about is in a request.
fn level(context: Context) -> Level {
    match context {
        Context::Resource => Level::Resource,
        Context::Scope => Level::Scope,
        Context::Log | Context::Span | Context::Metric => Level::Item,
        Context::SpanEvent | Context::DataPoint => Level::Part,
    }
}

/// Carries all groups out on a request.
fn change(groups: &[StatementGroup], encoded: &mut Encoded, now_ns: i64, report: &mut Report) {
    let mut go_on = true;
    for groups in groups.chunk_by(|a, b| a.context == b.context) {
        let Some(first) = groups.first() else { break };
        let done = encoded.revise(level(first.context), &mut |place| {
            let mut scene = PlaceScene::editing(place, edit_metric);
            for group in groups {
                scene.forget();
                go_on = go_on && group.run(0, &mut scene, now_ns, report);
            }
            true
        });
        if let Err(why) = done {
            report.too_much(why);
            go_on = false;
        }
        if !go_on {
            return;
        }
    }
}

impl StatementGroup {
    /// Carries the first statements out on all records at once, as far as that can be done; says how many.
    fn run_on_all(&self, scene: &mut LogScene<'_>) -> usize {
        let all = self.statements.iter();
        match self.conditions.is_empty() {
            true => all.take_while(|s| scene.run_on_all(s)).count(),
            false => 0,
        }
    }

    /// Carries the group out on what `scene` shows, from the statement at `from` on; false if the batch is to be given up.
    fn run(&self, from: usize, scene: &mut dyn SceneMut, now_ns: i64, report: &mut Report) -> bool {
        let mut wanted = self.conditions.is_empty();
        for condition in &self.conditions {
            match condition.holds(scene, now_ns) {
                Ok(true) => {
                    wanted = true;
                    break;
                }
                Ok(false) => {}
                Err(fault) => {
                    if report.error(self.mode, condition.text(), fault) {
                        return false;
                    }
                }
            }
        }
        if !wanted {
            return true;
        }
        for statement in &self.statements[from..] {
            if let Err(fault) = statement.run(scene, now_ns)
                && report.error(self.mode, statement.text(), fault)
            {
                return false;
            }
        }
        true
    }
}

impl TransformProcessor {
    /// Takes the errors of a batch together; gives its duty back unless the batch is given up.
    fn finish(&mut self, items: usize, ack: AckToken) -> Option<AckToken> {
        let Some(reason) = self.report.finish() else {
            return Some(ack);
        };
        let given_up = u32::try_from(items).unwrap_or(u32::MAX);
        ack.count_dropped(reason, given_up);
        ack.resolve(Outcome::Refused);
        None
    }

    fn logs(&mut self, part: LogsPart, now_ns: i64) -> Option<Part> {
        let LogsPart {
            mut logs,
            ack,
            permit,
        } = part;
        self.change(&mut logs, now_ns);
        let ack = self.finish(logs.rows(), ack)?;
        Some(LogsPart { logs, ack, permit }.into())
    }

    fn encoded(&mut self, part: Part, now_ns: i64) -> Option<Part> {
        let Part {
            mut data,
            ack,
            permit,
        } = part;
        let before = data.items();
        if let Payload::Encoded(encoded) = &mut data {
            let groups = self.settings.groups(encoded.signal());
            change(groups, encoded, now_ns, &mut self.report);
        }
        let ack = self.finish(before, ack)?;
        // Points that are in others now.
        let gone = before.saturating_sub(data.items());
        ack.count_filtered(u32::try_from(gone).unwrap_or(u32::MAX));
        Part { data, ack, permit }.non_empty()
    }
}

impl Processor for TransformProcessor {
    fn process(&mut self, batch: Batch, out: &mut dyn Output) {
        let now_ns = self.clock.as_ref().map_or(0, |c| c.wall_ns());
        let mut parts: Vec<Part> = Vec::with_capacity(batch.parts.len());
        for part in batch.parts {
            let signal = part.data.signal();
            match self.settings.groups(signal).is_empty() {
                true => parts.push(part),
                false if signal == Signal::Logs => {
                    let logs = part.into_logs();
                    parts.extend(logs.filter_map(|part| self.logs(part, now_ns)));
                }
                false => parts.extend(self.encoded(part, now_ns)),
            }
        }
        if !parts.is_empty() {
            out.emit(Batch { parts });
        }
    }
}
