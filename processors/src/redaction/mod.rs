//! `redaction`: removes attributes that are not allowed, and masks or hashes what should not be seen in
//! the others and in the bodies of log records.
//!
//! Rules are the collector's, with ready-made patterns besides. Log records are looked at in columns;
//! of traces and metrics only the lists in which something is found are written anew. Attributes of
//! events, links and exemplars are redacted like any other; names, status messages and severity texts
//! are no attributes, and stay.

mod columns;
mod config;
mod encoded;
mod fields;
mod mask;
mod patterns;
mod rules;
mod summary;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pdata::{Map, Scope, Signal};
use tailwater_pipeline::factory::{Factory, NodeCx, ProcessorFactory, ProcessorSettings};
use tailwater_pipeline::{Batch, BuildError, LogsPart, Output, Part, Payload, Processor};
use tailwater_telemetry::metrics::RedactionMetrics;

pub use mask::Mask;
pub use rules::Rules;
pub use summary::Summary;

use fields::change_attributes;
use rules::Judge;
use summary::Notes;

/// The factory of this processor.
pub fn factory() -> ProcessorFactory {
    Factory {
        kind: "redaction",
        about: "Removes attributes that are not allowed, and masks or hashes what should not be seen, also in bodies.",
        signals: &["logs", "metrics", "traces"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ProcessorSettings>> {
    let before = errors.len();
    let mut section = Section::new(node, path, errors);
    let rules = Rules::decode(&mut section);
    section.finish();
    (errors.len() == before).then(|| Box::new(rules) as Box<dyn ProcessorSettings>)
}

impl ProcessorSettings for Rules {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn Processor>, BuildError> {
        let signal = cx.signal.map_or("logs", |s| s.as_str());
        let metrics = RedactionMetrics::new(&cx.metrics, &cx.id, signal);
        Ok(Box::new(RedactionProcessor::new(
            self.clone(),
            Some(metrics),
        )))
    }
}

/// Redacts in one chain of one shard.
pub struct RedactionProcessor {
    judge: Judge,
    notes: Notes,
    metrics: Option<Arc<RedactionMetrics>>,
    /// Resources and scopes as they came, and what became of them.
    resources: Remembered<Map>,
    scopes: Remembered<Scope>,
}

/// What became of values that are shared by batches. Both sides are held, so that an address cannot come
/// to mean another value; the most recent ones are at the end.
struct Remembered<T>(Vec<(Arc<T>, Arc<T>)>);

impl<T: Clone> Remembered<T> {
    /// Batches of so many origins come in turns.
    const MAX: usize = 64;

    /// What `change` makes of a value; it says whether it changed anything.
    fn get(&mut self, from: &Arc<T>, change: impl FnOnce(&mut T) -> bool) -> Arc<T> {
        let known = self.0.iter().rposition(|(k, _)| Arc::ptr_eq(k, from));
        let entry = match known {
            Some(at) => self.0.remove(at),
            None => {
                let mut value = (**from).clone();
                let to = match change(&mut value) {
                    true => Arc::new(value),
                    false => from.clone(),
                };
                (from.clone(), to)
            }
        };
        let to = entry.1.clone();
        if self.0.len() == Self::MAX {
            self.0.remove(0);
        }
        self.0.push(entry);
        to
    }
}

impl RedactionProcessor {
    /// A processor for one chain.
    pub fn new(rules: Rules, metrics: Option<Arc<RedactionMetrics>>) -> RedactionProcessor {
        RedactionProcessor {
            judge: Judge::new(rules),
            notes: Notes::default(),
            metrics,
            resources: Remembered(Vec::new()),
            scopes: Remembered(Vec::new()),
        }
    }

    fn logs(&mut self, part: &mut LogsPart) {
        let (judge, notes, logs) = (&mut self.judge, &mut self.notes, &mut part.logs);
        logs.resource = self
            .resources
            .get(&logs.resource, |map| change_attributes(judge, map, notes));
        logs.scope = self.scopes.get(&logs.scope, |scope| {
            change_attributes(judge, &mut scope.attributes, notes)
        });
        columns::change(judge, logs, notes);
    }

    fn count(&mut self) {
        let (masked, removed) = (
            std::mem::take(&mut self.judge.masked),
            std::mem::take(&mut self.judge.removed),
        );
        if let Some(metrics) = &self.metrics {
            metrics.values_masked.inc_by(masked);
            metrics.attributes_removed.inc_by(removed);
        }
    }
}

impl Processor for RedactionProcessor {
    fn process(&mut self, batch: Batch, out: &mut dyn Output) {
        if self.judge.rules.is_idle() {
            return out.emit(batch);
        }
        let mut parts: Vec<Part> = Vec::with_capacity(batch.parts.len());
        let mut pieces = Vec::new();
        for mut part in batch.parts {
            match &mut part.data {
                Payload::Encoded(encoded) if encoded.signal() != Signal::Logs => {
                    encoded.edit(&mut encoded::Change {
                        judge: &mut self.judge,
                        notes: &mut self.notes,
                    });
                    parts.push(part);
                }
                _ => {
                    for logs in part.into_logs() {
                        logs.split_by_resource(&mut pieces);
                    }
                    for mut piece in pieces.drain(..) {
                        self.logs(&mut piece);
                        parts.push(piece.into());
                    }
                }
            }
        }
        self.count();
        if !parts.is_empty() {
            out.emit(Batch { parts });
        }
    }
}
