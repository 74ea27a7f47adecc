//! `transform`: changes log records, their scopes and resources by statements of OTTL.
//!
//! Statements of one group are carried out on each record, one after another, in the columns of the batch.
//! Neighbouring groups about the same kind of thing are carried out on a record before the next one.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_ottl::Context;
use tailwater_ottl::logs::LogScene;
use tailwater_pdata::{LogsBatch, Signal};
use tailwater_pipeline::ack::DropReason;
use tailwater_pipeline::clock::Clock;
use tailwater_pipeline::factory::{Factory, NodeCx, ProcessorFactory, ProcessorSettings};
use tailwater_pipeline::{Batch, BuildError, LogsPart, Outcome, Output, Part, Processor};

use crate::ottl::{Report, StatementGroup, error_mode, statement_groups};

/// The factory of this processor.
pub fn factory() -> ProcessorFactory {
    Factory {
        kind: "transform",
        about: "Changes log records, their scopes and resources by statements of OTTL.",
        signals: &["logs"],
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
}

const LOGS: &[Context] = &[Context::Resource, Context::Scope, Context::Log];

impl TransformSettings {
    /// Reads the section; mistakes are in it.
    pub fn decode(s: &mut Section<'_, '_>) -> TransformSettings {
        let mode = error_mode(s);
        let settings = TransformSettings {
            logs: statement_groups(s, "log_statements", LOGS, mode),
        };
        let spans = "spans are not changed by OTTL yet; use the processors attributes and resource";
        s.refuse("trace_statements", spans);
        let metrics = "metrics are not changed by OTTL yet; use the processors metricstransform, attributes and resource";
        s.refuse("metric_statements", metrics);
        s.refuse("profile_statements", "profiles are no signal of this agent");
        let flatten = "write flatten(log.attributes) as a statement instead";
        if s.bool("flatten_data", false) {
            s.invalid("flatten_data", format!("is not supported: {flatten}"));
        }
        settings
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
            let rows = match groups.first().map(|g| g.context) {
                Some(Context::Log) => scene.rows(),
                // There is one resource and one scope, if there is anything at all.
                _ => scene.rows().min(1),
            };
            for row in 0..rows {
                for group in groups {
                    scene.go_to(row);
                    if !group.run(&mut scene, now_ns, &mut self.report) {
                        return;
                    }
                }
            }
        }
    }
}

impl StatementGroup {
    /// Carries the group out on what `scene` shows; false if the batch is to be given up.
    fn run(&self, scene: &mut LogScene<'_>, now_ns: i64, report: &mut Report) -> bool {
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
        for statement in &self.statements {
            if let Err(fault) = statement.run(scene, now_ns)
                && report.error(self.mode, statement.text(), fault)
            {
                return false;
            }
        }
        true
    }
}

impl Processor for TransformProcessor {
    fn process(&mut self, batch: Batch, out: &mut dyn Output) {
        if self.settings.logs.is_empty() || batch.signal() != Some(Signal::Logs) {
            return out.emit(batch);
        }
        let now_ns = self.clock.as_ref().map_or(0, |c| c.wall_ns());
        let mut parts: Vec<Part> = Vec::with_capacity(batch.parts.len());
        for LogsPart {
            mut logs,
            ack,
            permit,
        } in batch.into_logs()
        {
            self.change(&mut logs, now_ns);
            if self.report.finish() {
                let given_up = u32::try_from(logs.rows()).unwrap_or(u32::MAX);
                ack.count_dropped(DropReason::OperatorError, given_up);
                ack.resolve(Outcome::Refused);
                continue;
            }
            parts.push(LogsPart { logs, ack, permit }.into());
        }
        if !parts.is_empty() {
            out.emit(Batch { parts });
        }
    }
}
