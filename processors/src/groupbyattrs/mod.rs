//! `groupbyattrs`: moves attributes of records, points and spans to their resources, and brings what has equal
//! resources and scopes together.
//!
//! Log records in columns are touched only where there is something to do: attributes that all records of a
//! part have in common are moved as a whole. Everything else is regrouped as encoded requests.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pdata::otlp::{Encoded, Regrouped};
use tailwater_pdata::{Column, Key, LogsBatch, Signal};
use tailwater_pipeline::client::ClientInfo;
use tailwater_pipeline::factory::{Factory, NodeCx, ProcessorFactory, ProcessorSettings};
use tailwater_pipeline::{
    AckToken, Batch, Budget, BuildError, LogsPart, Output, Part, Payload, Permit, Processor,
};
use tailwater_telemetry::metrics::{
    GroupedLogsMetrics, GroupedPointsMetrics, GroupedSpansMetrics, MetricsRegistry,
};

use crate::duties::{Duty, merged};

/// The factory of this processor.
pub fn factory() -> ProcessorFactory {
    Factory {
        kind: "groupbyattrs",
        about: "Moves attributes to the resource, and brings together what has equal resources and scopes.",
        signals: &["logs", "metrics", "traces"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ProcessorSettings>> {
    let before = errors.len();
    let mut section = Section::new(node, path, errors);
    let config = GroupByAttrsConfig::decode(&mut section);
    section.finish();
    (errors.len() == before).then(|| Box::new(config) as Box<dyn ProcessorSettings>)
}

/// The section of a `groupbyattrs` processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupByAttrsConfig {
    /// The attributes that move; without any, only what is equal comes together.
    pub keys: Vec<Key>,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[(
    "keys",
    "Attributes that move: an item that has one of them comes under a resource with the attributes of its own and these, which replace those of the same name. Without keys, equal resources and scopes come together and nothing moves.",
)];

impl GroupByAttrsConfig {
    /// Reads the section; mistakes are in it.
    pub fn decode(s: &mut Section<'_, '_>) -> GroupByAttrsConfig {
        s.describe(OPTIONS);
        let mut keys: Vec<Key> = Vec::new();
        for key in s.string_list("keys").unwrap_or_default() {
            if key.is_empty() {
                s.invalid("keys", "a key cannot be empty");
            } else if !keys.iter().any(|k| **k == *key) {
                keys.push(key.into());
            }
        }
        GroupByAttrsConfig { keys }
    }
}

impl ProcessorSettings for GroupByAttrsConfig {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn Processor>, BuildError> {
        let signal = cx.signal.unwrap_or(Signal::Logs);
        Ok(Box::new(GroupByAttrs {
            keys: self.keys.clone(),
            budget: cx.budget.clone(),
            meters: Meters::new(&cx.metrics, &cx.id, signal),
        }))
    }
}

/// The metrics of one signal.
enum Meters {
    Logs(Arc<GroupedLogsMetrics>),
    Spans(Arc<GroupedSpansMetrics>),
    Points(Arc<GroupedPointsMetrics>),
}

impl Meters {
    fn new(registry: &MetricsRegistry, id: &str, signal: Signal) -> Meters {
        match signal {
            Signal::Logs => Meters::Logs(GroupedLogsMetrics::new(registry, id)),
            Signal::Traces => Meters::Spans(GroupedSpansMetrics::new(registry, id)),
            Signal::Metrics => Meters::Points(GroupedPointsMetrics::new(registry, id)),
        }
    }

    fn count(&self, told: Regrouped) {
        let (grouped, not_grouped, left, groups) = match self {
            Meters::Logs(m) => (&m.grouped, &m.not_grouped, &m.left, &m.groups),
            Meters::Spans(m) => (&m.grouped, &m.not_grouped, &m.left, &m.groups),
            Meters::Points(m) => (&m.grouped, &m.not_grouped, &m.left, &m.groups),
        };
        grouped.inc_by(told.grouped as u64);
        not_grouped.inc_by(told.not_grouped as u64);
        left.inc_by(told.left as u64);
        groups.observe(told.resources);
    }
}

/// Regroups in one chain of one shard.
struct GroupByAttrs {
    keys: Vec<Key>,
    budget: Arc<Budget>,
    meters: Meters,
}

/// Parts that go together: those of one client and, in columns, of one resource and scope.
struct Together {
    client: Option<Arc<ClientInfo>>,
    columns: bool,
    parts: Vec<Part>,
}

/// Groups in a batch that are looked through for each part. Further ones stay by themselves.
const TOGETHER_MAX: usize = 256;

impl GroupByAttrs {
    /// Moves attributes that are the same in all rows. False if rows differ, and columns cannot say so.
    fn move_whole(&self, logs: &mut LogsBatch) -> Option<Regrouped> {
        let mut told = Regrouped {
            resources: 1,
            ..Regrouped::default()
        };
        let columns = self.keys.iter().filter_map(|k| logs.attributes.get(k));
        if !columns
            .clone()
            .all(|column| matches!(column, Column::Const(_)))
        {
            return None;
        }
        match columns.count() {
            0 => told.not_grouped = logs.rows(),
            _ => told.grouped = logs.rows(),
        }
        for key in &self.keys {
            if let Some(Column::Const(value)) = logs.attributes.remove(key) {
                logs.set_resource_all(key, value);
            }
        }
        Some(told)
    }

    /// Log records, regrouped in columns or to be regrouped as a request.
    fn logs(&self, part: LogsPart, groups: &mut Vec<Together>) {
        let LogsPart {
            mut logs,
            ack,
            permit,
        } = part;
        let whole = self.move_whole(&mut logs);
        let data = match whole {
            Some(told) => {
                self.meters.count(told);
                Payload::Logs(logs)
            }
            None => Payload::Encoded(Encoded::from_logs([&logs])),
        };
        Self::add(Part { data, ack, permit }, groups);
    }

    /// Puts a part to those that it goes together with.
    fn add(part: Part, groups: &mut Vec<Together>) {
        let client = part.ack.client();
        let fits = |group: &Together| {
            let alike = match (&part.data, group.parts.first().map(|p| &p.data)) {
                (Payload::Logs(a), Some(Payload::Logs(b))) => is_alike(a, b),
                (Payload::Encoded(_), Some(Payload::Encoded(_))) => true,
                _ => false,
            };
            alike && group.client == client
        };
        let known = match groups.len() <= TOGETHER_MAX {
            true => groups.iter().position(fits),
            false => None,
        };
        match known {
            Some(at) => groups[at].parts.push(part),
            None => groups.push(Together {
                client,
                columns: matches!(part.data, Payload::Logs(_)),
                parts: vec![part],
            }),
        }
    }

    /// Makes one part of those that go together.
    fn emit(&self, mut group: Together, out: &mut Vec<Part>) {
        if group.columns && group.parts.len() == 1 {
            return out.append(&mut group.parts);
        }
        let mut duties = Vec::with_capacity(group.parts.len());
        let mut permits = Vec::with_capacity(group.parts.len());
        let mut all: Option<Encoded> = None;
        for Part { data, ack, permit } in group.parts {
            let encoded = match data {
                Payload::Logs(logs) => Encoded::from_logs([&logs]),
                Payload::Encoded(encoded) => encoded,
            };
            duties.push(Duty {
                records: u32::try_from(encoded.items()).unwrap_or(u32::MAX),
                token: ack,
            });
            permits.push(permit);
            match &mut all {
                Some(all) => all.append(encoded),
                None => all = Some(encoded),
            }
        }
        let Some(all) = all else { return };
        let (regrouped, told) = all.group_by_attributes(&self.keys);
        if !group.columns {
            self.meters.count(told);
        }
        let ack: AckToken = merged(duties);
        let permit: Permit = self.budget.take(regrouped.heap_bytes());
        drop(permits);
        let part = Part {
            data: regrouped.into(),
            ack,
            permit,
        };
        out.extend(part.non_empty());
    }
}

/// Whether records of both are of one resource and scope.
fn is_alike(a: &LogsBatch, b: &LogsBatch) -> bool {
    let fields = |logs: &LogsBatch| {
        logs.otlp
            .as_ref()
            .map(|o| o.resource.clone())
            .unwrap_or_default()
    };
    (Arc::ptr_eq(&a.resource, &b.resource) || a.resource == b.resource)
        && (Arc::ptr_eq(&a.scope, &b.scope) || a.scope == b.scope)
        && fields(a) == fields(b)
}

impl Processor for GroupByAttrs {
    fn process(&mut self, batch: Batch, out: &mut dyn Output) {
        let mut groups = Vec::new();
        let mut pieces = Vec::new();
        for part in batch.parts {
            let Part { data, ack, permit } = part;
            match data {
                Payload::Logs(logs) => {
                    LogsPart { logs, ack, permit }.split_by_resource(&mut pieces);
                    pieces
                        .drain(..)
                        .for_each(|piece| self.logs(piece, &mut groups));
                }
                data => Self::add(Part { data, ack, permit }, &mut groups),
            }
        }
        let mut parts = Vec::with_capacity(groups.len());
        groups
            .into_iter()
            .for_each(|group| self.emit(group, &mut parts));
        if !parts.is_empty() {
            out.emit(Batch { parts });
        }
    }
}
