//! `log_dedup`: log records that are the same become one in an interval, which says how many they were.
//!
//! They wait in memory. What that means for whoever sent them:
//!
//! - The duty of each is resolved when the record that it became was delivered; so a position of a file or an
//!   answer of success never stands for something that is only in memory. Those that were merged into another one
//!   count as filtered.
//! - Sources that have much under way do not have to pause for the interval to end: all is passed on before
//!   its time then, which is counted.
//! - With `acknowledge: held` the duty ends when a record is held. What is handed back by the destination is
//!   held again; a kill loses what is held, a stop passes it on first.

mod config;
mod fields;
mod held;
mod returns;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_ottl::logs::LogScene;
use tailwater_pdata::{LogsBatch, Signal};
use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_pipeline::factory::{Factory, NodeCx, ProcessorFactory, ProcessorSettings};
use tailwater_pipeline::{
    AckToken, Batch, Budget, BuildError, LogsPart, Outcome, Output, Part, Processor,
};
use tailwater_telemetry::metrics::LogDedupMetrics;

pub use config::{Acknowledge, LogDedupConfig, TimestampMode};
pub use fields::{Field, Fields};

use crate::duties::merged;
use crate::ottl::{ConditionGroup, Report};
use crate::streams::{Chains, Identity, put_text};
use fields::Identities;
use held::{Held, Stream};
use returns::Returns;

/// The factory of this processor.
pub fn factory() -> ProcessorFactory {
    Factory {
        kind: "log_dedup",
        about: "Makes one of log records that are the same in an interval, with their number.",
        signals: &["logs"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ProcessorSettings>> {
    let before = errors.len();
    let mut section = Section::new(node, path, errors);
    let config = LogDedupConfig::decode(&mut section);
    section.finish();
    let settings = Settings {
        config,
        chains: Chains::default(),
    };
    (errors.len() == before).then(|| Box::new(settings) as Box<dyn ProcessorSettings>)
}

struct Settings {
    config: LogDedupConfig,
    chains: Chains<Shared>,
}

impl ProcessorSettings for Settings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn Processor>, BuildError> {
        let make = || Shared {
            config: self.config.clone(),
            identity: Identity::new(cx.seed),
            held: Mutex::default(),
            returns: Arc::default(),
            started: cx.clock.now(),
            emit_at: AtomicU64::new(u64::MAX),
            clock: cx.clock.clone(),
            budget: cx.budget.clone(),
            meters: LogDedupMetrics::new(&cx.metrics, &cx.id),
        };
        let shared = self.chains.of(cx, make);
        Ok(Box::new(LogDedup::of(shared, Report::new(cx))))
    }
}

/// What all shards of a chain have in common.
struct Shared {
    config: LogDedupConfig,
    identity: Identity,
    held: Mutex<Held>,
    returns: Arc<Returns>,
    /// Intervals are counted from here.
    started: Mono,
    /// When the interval ends; `u64::MAX`: nothing is held.
    emit_at: AtomicU64,
    clock: Arc<dyn Clock>,
    budget: Arc<Budget>,
    meters: Arc<LogDedupMetrics>,
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of the interval that `now` is in.
    fn end_of_interval(&self, now: Mono) -> Mono {
        let interval = u64::try_from(self.config.interval.as_nanos()).unwrap_or(u64::MAX);
        let since = now.0.saturating_sub(self.started.0);
        let next = (since / interval).saturating_add(1);
        Mono(self.started.0.saturating_add(next.saturating_mul(interval)))
    }

    /// What the records of a batch are in: resource, scope, and the metadata of who sent them.
    fn around(&self, batch: &LogsBatch, metadata: u128) -> u128 {
        let resource = fields::map(&self.identity, &batch.resource);
        let scope = fields::map(&self.identity, &batch.scope.attributes);
        self.identity.hash(|h| {
            h.write_u128(resource);
            h.write_u128(scope);
            put_text(h, batch.scope.name.as_bytes());
            put_text(h, batch.scope.version.as_bytes());
            h.write_u128(metadata);
        })
    }

    /// The values of `metadata_keys` of who sent a part.
    fn metadata(&self, token: &AckToken) -> Option<u128> {
        if self.config.metadata_keys.is_empty() {
            return None;
        }
        let client = token.client();
        let values = |key: &String| client.as_ref().map_or(&[][..], |c| c.metadata(key));
        Some(self.identity.hash(|h| {
            for key in &self.config.metadata_keys {
                h.write_usize(values(key).len());
                values(key).iter().for_each(|v| put_text(h, v.as_bytes()));
            }
        }))
    }

    fn observe(&self, held: &mut Held, now: Mono) {
        held.permit = self.budget.take(held.bytes());
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.meters.records_held.set(gauge(held.len()));
        self.meters.bytes_held.set(gauge(held.bytes()));
        if held.len() == 0 {
            self.emit_at.store(u64::MAX, Ordering::Release);
        } else if self.emit_at.load(Ordering::Acquire) == u64::MAX {
            let at = self.end_of_interval(now);
            self.emit_at.store(at.0, Ordering::Release);
        }
    }

    /// Takes what came back in again. Its duty ended before.
    fn settle(&self, held: &mut Held) {
        self.returns
            .take()
            .into_iter()
            .for_each(|s| held.take_back(s));
    }

    /// All that is held, as parts.
    fn take_out(&self, held: &mut Held) -> Vec<Part> {
        let mut at_ns = self.clock.wall_ns();
        let bytes = held.bytes();
        let records = held.len().max(1);
        let streams = std::mem::take(held).into_streams().into_iter();
        let streams = streams.filter(|stream| !stream.rows.is_empty());
        streams
            .flat_map(|stream| self.parts(stream, bytes / records, &mut at_ns))
            .collect()
    }

    fn parts(&self, mut stream: Stream, row_bytes: usize, at_ns: &mut i64) -> Vec<Part> {
        let batches = stream.batches(&self.config, at_ns);
        for row in &stream.rows {
            let count = usize::try_from(row.count).unwrap_or(usize::MAX);
            self.meters.aggregated.observe(count);
        }
        let duties = std::mem::take(&mut stream.duties);
        let ack = match self.config.acknowledge {
            Acknowledge::Delivered => merged(duties),
            Acknowledge::Held => {
                let kept = self.budget.take(row_bytes * stream.rows.len());
                self.returns.watch(stream, kept)
            }
        };
        let part = |logs: LogsBatch| LogsPart {
            permit: self.budget.take(logs.heap_bytes()),
            ack: ack.clone(),
            logs,
        };
        let parts = batches.into_iter().map(|logs| part(logs).into()).collect();
        ack.resolve(Outcome::Delivered);
        parts
    }
}

/// The instance of one shard.
struct LogDedup {
    shared: Arc<Shared>,
    identities: Identities,
    report: Report,
    /// A flag for each row, to use again.
    wanted: Vec<bool>,
}

/// Log records of one part that are to be merged.
struct Taken {
    logs: LogsBatch,
    around: u128,
    metadata: Option<u128>,
}

impl LogDedup {
    fn of(shared: Arc<Shared>, report: Report) -> LogDedup {
        LogDedup {
            identities: Identities::new(shared.identity.clone()),
            report,
            wanted: Vec::new(),
            shared,
        }
    }

    /// Takes the records that conditions are for out of a batch.
    fn split(&mut self, logs: &mut LogsBatch) -> Option<LogsBatch> {
        let Some(group) = &self.shared.config.conditions else {
            return Some(std::mem::take(logs));
        };
        let now_ns = self.shared.clock.wall_ns();
        mark(group, logs, now_ns, &mut self.wanted, &mut self.report);
        let wanted = self.wanted.iter().filter(|w| **w).count();
        if wanted == 0 {
            return None;
        }
        if wanted == self.wanted.len() {
            return Some(std::mem::take(logs));
        }
        let mut taken = logs.clone();
        taken.retain_rows(&self.wanted);
        self.wanted.iter_mut().for_each(|w| *w = !*w);
        logs.retain_rows(&self.wanted);
        Some(taken)
    }

    /// Merges what is to be merged of a part; the rest is given back.
    fn take_in(&mut self, mut part: LogsPart, now: Mono) -> Option<Part> {
        let bytes = part.permit.bytes();
        let Some(logs) = self.split(&mut part.logs) else {
            return Some(part.into());
        };
        let metadata = self.shared.metadata(&part.ack);
        let around = self.shared.around(&logs, metadata.unwrap_or(0));
        let taken = Taken {
            logs,
            around,
            metadata,
        };
        let merged = self.merge(taken, &part.ack, bytes, now);
        part.ack
            .count_filtered(u32::try_from(merged).unwrap_or(u32::MAX));
        if part.logs.is_empty() {
            // What is held carries the duty, or it ends here.
            part.ack.resolve(Outcome::Delivered);
            return None;
        }
        Some(part.into())
    }

    /// Returns how many records became one with others.
    fn merge(&mut self, mut taken: Taken, ack: &AckToken, bytes: usize, now: Mono) -> usize {
        let shared = &self.shared;
        let config = &shared.config;
        let ids = self
            .identities
            .of(&config.fields, &mut taken.logs, taken.around);
        let waits = config.acknowledge == Acknowledge::Delivered;
        let now_ns = shared.clock.wall_ns();
        let mut held = shared.held();
        let token = waits.then_some(ack);
        let merged = held.merge(taken.around, &taken.logs, ids, token, now_ns);
        if waits {
            held.count_source(ack, bytes);
        }
        held.combinations.extend(taken.metadata);
        shared.observe(&mut held, now);
        shared.meters.records_merged.inc_by(merged as u64);
        merged
    }
}

/// One flag for each row: whether a condition holds for it. One that cannot be told does not.
fn mark(
    group: &ConditionGroup,
    logs: &mut LogsBatch,
    now_ns: i64,
    wanted: &mut Vec<bool>,
    report: &mut Report,
) {
    wanted.clear();
    let mut scene = LogScene::new(logs);
    for row in 0..scene.rows() {
        scene.go_to(row);
        let mut holds = false;
        for condition in &group.conditions {
            match condition.holds(&scene, now_ns) {
                Ok(true) => {
                    holds = true;
                    break;
                }
                Ok(false) => {}
                Err(fault) => {
                    report.error(group.mode, condition.text(), fault);
                }
            }
        }
        wanted.push(holds);
    }
}

impl Processor for LogDedup {
    fn process(&mut self, batch: Batch, out: &mut dyn Output) {
        if batch.signal() != Some(Signal::Logs) {
            return out.emit(batch);
        }
        let now = out.now();
        let shared = self.shared.clone();
        shared.settle(&mut shared.held());
        let mut parts = Vec::new();
        let mut pieces = Vec::new();
        for part in batch.into_logs() {
            part.split_by_resource(&mut pieces);
        }
        for piece in pieces {
            parts.extend(self.take_in(piece, now));
        }
        self.report.finish();
        let mut held = shared.held();
        if held.is_full(&shared.config) {
            shared.meters.early_emissions.inc();
            parts.extend(shared.take_out(&mut held));
            shared.observe(&mut held, now);
        }
        drop(held);
        if !parts.is_empty() {
            out.emit(Batch { parts });
        }
    }

    fn deadline(&self) -> Option<Mono> {
        match self.shared.emit_at.load(Ordering::Acquire) {
            u64::MAX => None,
            at => Some(Mono(at)),
        }
    }

    fn tick(&mut self, out: &mut dyn Output) {
        if self.deadline().is_some_and(|at| at <= out.now()) {
            self.flush(out);
        }
    }

    fn flush(&mut self, out: &mut dyn Output) {
        let mut held = self.shared.held();
        self.shared.settle(&mut held);
        let parts = self.shared.take_out(&mut held);
        self.shared.observe(&mut held, out.now());
        drop(held);
        if !parts.is_empty() {
            out.emit(Batch { parts });
        }
    }
}
