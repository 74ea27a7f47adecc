//! `k8s_attributes`: metadata of Kubernetes pods, and of what is around them, for resources.
//!
//! What happens in the cluster is followed beside the data ([`Cluster`]), once for all shards, pipelines and signals of a
//! processor. A resource is looked up when it is seen first, and again when something is known that was not; records cost
//! nothing.
//!
//! Metadata may come later than the lines it is for. At the start data waits until everything was told once, and later that of a
//! pod which is not known yet waits by itself; neither longer than it may. Then it passes without, which is counted. What waits is in
//! memory and keeps its duty, so none of it is lost or out of order.

pub(crate) mod access;
mod association;
mod cluster;
mod config;
pub mod conformance;
mod rules;
mod table;
#[cfg(test)]
mod tests;
mod waiting;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tailwater_config::{Errors, KeyPath, Node, ProcessEnvironment, Section};
use tailwater_pdata::otlp::edit::{Attributes, Edit, Next};
use tailwater_pdata::{Map, Signal};
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::factory::{Factory, NodeCx, ProcessorFactory, ProcessorSettings};
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{
    Admission, Batch, BuildError, LogsPart, Output, Part, Payload, Processor,
};
use tailwater_telemetry::metrics::{K8sClusterMetrics, K8sWaitingMetrics};

pub use config::{Filter, K8sAttributesConfig};

use crate::joint::Joint;
use association::{Asked, Resource, Source, asked};
use cluster::Cluster;
use table::{Found, PodEntry, Table};
use waiting::Waiting;

/// How often it is looked for what is waited for.
const LOOK: Duration = Duration::from_millis(5);
/// Resources of which it is remembered what they became.
const REMEMBERED_MAX: usize = 256;
/// Bytes of what waits at which only sources with nothing under way read, and at which none does.
const SCARCE_BYTES: usize = 1 << 20;
const CLOSED_BYTES: usize = 64 << 20;
const POD_IP: &str = "k8s.pod.ip";

static CLUSTERS: Joint<Cluster> = Joint::new();

/// The factory of this processor.
pub fn factory() -> ProcessorFactory {
    Factory {
        kind: "k8s_attributes",
        about: "Adds metadata of Kubernetes pods, and of what they belong to, to resources.",
        signals: &["logs", "metrics", "traces"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ProcessorSettings>> {
    let before = errors.len();
    let mut section = Section::new(node, path, errors);
    let config = K8sAttributesConfig::decode(&mut section);
    section.finish();
    (errors.len() == before).then(|| Box::new(Settings(config)) as Box<dyn ProcessorSettings>)
}

struct Settings(K8sAttributesConfig);

impl ProcessorSettings for Settings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn Processor>, BuildError> {
        let config = &self.0;
        // Without an agent around it, as when records are tried out, nothing is asked.
        let runs = cx.agent.is_some() && !config.passthrough;
        let node = match &config.filter.node_variable {
            Some(variable) if runs => {
                let node = access::node_from(variable, &ProcessEnvironment);
                let failed =
                    |e| BuildError::new(format!("processor {:?}", cx.id), format!("filter: {e}"));
                Some(node.map_err(failed)?)
            }
            _ => config.filter.node.clone(),
        };
        let key = format!("{} {node:?} {config:?}", cx.id);
        let make = || {
            let meters = K8sClusterMetrics::new(&cx.metrics, &cx.id);
            let clock = cx.clock.clone();
            Cluster::new(config.clone(), node, cx.seed, meters, clock, runs)
        };
        let cluster = CLUSTERS.of(cx, &key, make);
        let signal = cx.signal.map_or("logs", Signal::as_str);
        let meters = K8sWaitingMetrics::new(&cx.metrics, &cx.id, signal);
        Ok(Box::new(K8sAttributes::new(
            cluster,
            config,
            cx.runtime.clone(),
            meters,
        )))
    }

    fn reach(&self, reach: &mut Reach) {
        if !self.0.passthrough {
            access::reach(&self.0.access, reach);
        }
    }
}

/// A resource, and what it became.
struct Known {
    from: Arc<Map>,
    client: Option<IpAddr>,
    /// What was known then.
    number: u64,
    to: Arc<Map>,
    pod: Option<Arc<PodEntry>>,
}

/// The instance of one chain in one shard.
struct K8sAttributes {
    cluster: Arc<Cluster>,
    runtime: tokio::runtime::Handle,
    associations: Vec<association::Association>,
    passthrough: bool,
    /// It makes a difference who sent something.
    by_client: bool,
    late: Duration,
    /// The most recent ones are at the end.
    known: Vec<Known>,
    /// When to look again whether the first lists are there; none once they are, or were waited for.
    look_at: Option<Mono>,
    /// What came before that, in order.
    early: Vec<Part>,
    waiting: Waiting,
}

impl K8sAttributes {
    fn new(
        cluster: Arc<Cluster>,
        config: &K8sAttributesConfig,
        runtime: tokio::runtime::Handle,
        meters: Arc<K8sWaitingMetrics>,
    ) -> K8sAttributes {
        let associations = config.wanted.associations.clone();
        let by_client = associations.is_empty()
            || associations
                .iter()
                .flatten()
                .any(|s| *s == Source::Connection);
        K8sAttributes {
            cluster,
            runtime,
            passthrough: config.passthrough,
            by_client,
            associations,
            late: config.late,
            known: Vec::new(),
            look_at: (!config.passthrough).then_some(Mono(0)),
            early: Vec::new(),
            waiting: Waiting::new(meters),
        }
    }

    /// Begins to follow the cluster, and lets pass what waited for that.
    fn look(&mut self, out: &mut dyn Output) {
        if self.look_at.is_none() {
            return;
        }
        let now = out.now();
        self.cluster.start(&self.runtime, now);
        if self.cluster.is_open(now) {
            self.look_at = None;
            let early = std::mem::take(&mut self.early);
            self.take(early, out);
        } else {
            self.look_at = Some(now.after(LOOK));
        }
    }

    fn client(&self, part: &Part) -> Option<IpAddr> {
        match self.by_client {
            true => part.ack.client()?.address,
            false => None,
        }
    }

    /// Passes on what is complete, and keeps what waits.
    fn take(&mut self, parts: Vec<Part>, out: &mut dyn Output) {
        let now = out.now();
        let mut done = Vec::with_capacity(parts.len());
        let mut pieces = Vec::new();
        for part in parts {
            let Part { data, ack, permit } = part;
            match data {
                Payload::Logs(logs) => {
                    LogsPart { logs, ack, permit }.split_by_resource(&mut pieces);
                    for piece in pieces.drain(..) {
                        done.extend(self.take_part(piece.into(), now));
                    }
                }
                data => done.extend(self.take_part(Part { data, ack, permit }, now)),
            }
        }
        if !done.is_empty() {
            out.emit(Batch { parts: done });
        }
    }

    /// The part with what it gets, unless it waits.
    fn take_part(&mut self, mut part: Part, now: Mono) -> Option<Part> {
        let missing = self.missing(&mut part);
        if missing.is_empty() {
            return Some(self.enrich(part, now));
        }
        self.waiting.push(missing, part, now, self.late);
        None
    }

    /// What is to be waited for before a part can pass.
    fn missing(&mut self, part: &mut Part) -> Vec<Asked> {
        let waits = !self.passthrough && !self.late.is_zero() && self.cluster.is_synced();
        if !waits {
            return Vec::new();
        }
        let client = self.client(part);
        if let Payload::Logs(logs) = &part.data
            && self.waiting.is_empty()
            && self.remembered(&logs.resource, client).is_some()
        {
            return Vec::new();
        }
        let table = self.cluster.table();
        let mut look = Look {
            table: &table,
            associations: &self.associations,
            waiting: &self.waiting,
            client,
            missing: Vec::new(),
        };
        match &mut part.data {
            Payload::Logs(logs) => look.at(&*logs.resource),
            Payload::Encoded(encoded) => encoded.edit(&mut look),
        }
        look.missing
    }

    /// What a resource became, if nothing is known since that was not known then.
    fn remembered(&self, resource: &Arc<Map>, client: Option<IpAddr>) -> Option<usize> {
        let number = self.cluster.number();
        let is_it =
            |k: &Known| Arc::ptr_eq(&k.from, resource) && k.client == client && k.number == number;
        self.known.iter().rposition(is_it)
    }

    fn enrich(&mut self, mut part: Part, now: Mono) -> Part {
        let client = self.client(&part);
        match &mut part.data {
            Payload::Logs(logs) => {
                logs.resource = self.resource(&logs.resource, client, now);
            }
            Payload::Encoded(encoded) => {
                let mut add = Add {
                    cluster: &self.cluster,
                    table: &self.cluster.table(),
                    associations: &self.associations,
                    passthrough: self.passthrough,
                    client,
                    now,
                };
                encoded.edit(&mut add);
            }
        }
        part
    }

    /// What a resource becomes. The same one becomes the same one.
    fn resource(&mut self, from: &Arc<Map>, client: Option<IpAddr>, now: Mono) -> Arc<Map> {
        if let Some(at) = self.remembered(from, client) {
            let known = self.known.remove(at);
            if let Some(pod) = &known.pod {
                pod.touch(now);
            }
            let to = known.to.clone();
            self.known.push(known);
            return to;
        }
        let number = self.cluster.number();
        let mut map = (**from).clone();
        let found = {
            let table = self.cluster.table();
            let by = asked(&self.associations, &**from, client);
            let found = find(&self.cluster, &table, &by, &**from, self.passthrough);
            add(&by, &found, &mut map);
            found
        };
        if let Some(pod) = &found.pod {
            pod.touch(now);
        }
        let mut before = self.known.iter();
        let before = before.rposition(|k| Arc::ptr_eq(&k.from, from) && k.client == client);
        let before = before.map(|at| self.known.remove(at).to);
        let to = match before {
            Some(before) if *before == map => before,
            _ if map == **from => from.clone(),
            _ => Arc::new(map),
        };
        if self.known.len() == REMEMBERED_MAX {
            self.known.remove(0);
        }
        self.known.push(Known {
            from: from.clone(),
            client,
            number,
            to: to.clone(),
            pod: found.pod,
        });
        to
    }

    /// Passes on what waited long enough, or for what is known now.
    fn release(&mut self, out: &mut dyn Output) {
        let now = out.now();
        let released = self
            .waiting
            .release(now, self.cluster.number(), || self.cluster.table());
        self.pass(released, out);
    }

    fn pass(&mut self, parts: Vec<Part>, out: &mut dyn Output) {
        if parts.is_empty() {
            return;
        }
        let now = out.now();
        let parts = parts
            .into_iter()
            .map(|part| self.enrich(part, now))
            .collect();
        out.emit(Batch { parts });
    }
}

/// What a resource gets that is looked up by `by`.
fn find(
    cluster: &Cluster,
    table: &Table,
    by: &Option<Asked>,
    resource: &dyn Resource,
    passthrough: bool,
) -> Found {
    if passthrough {
        return Found::default();
    }
    let pod = by.as_ref().and_then(|by| table.pod(&by.ident));
    if by.is_some() && pod.is_none() {
        cluster.missed();
    }
    table.of(pod, resource)
}

/// Adds it. What is there and not empty stays. True if that changed anything.
fn add(by: &Option<Asked>, found: &Found, to: &mut Map) -> bool {
    let mut changed = false;
    let mut put = |key: tailwater_pdata::Key, value: tailwater_pdata::Value| {
        let is_free = match to.get(&key) {
            None => true,
            Some(there) => there.as_ref().to_display_string().is_empty(),
        };
        if is_free {
            to.insert(key, value);
            changed = true;
        }
    };
    if let Some(address) = by.as_ref().and_then(|by| by.address.as_deref()) {
        put(POD_IP.into(), address.into());
    }
    for (key, value) in &found.attributes {
        put(key.clone(), value.clone());
    }
    changed
}

/// Looks at resources for what they have to wait for.
struct Look<'l> {
    table: &'l Table,
    associations: &'l [association::Association],
    waiting: &'l Waiting,
    client: Option<IpAddr>,
    missing: Vec<Asked>,
}

impl Look<'_> {
    fn at(&mut self, resource: &dyn Resource) {
        let Some(by) = asked(self.associations, resource, self.client) else {
            return;
        };
        // What waits already goes first.
        let waits = self.waiting.waits_for(&by.ident)
            || (!self.waiting.gave_up(&by.ident) && is_missing(self.table, &by));
        if waits && !self.missing.iter().any(|known| known.ident == by.ident) {
            self.missing.push(by);
        }
    }
}

/// Whether something of its pod may become known soon.
fn is_missing(table: &Table, by: &Asked) -> bool {
    match table.pod(&by.ident) {
        None => by.names_pod,
        Some(pod) => !table.is_complete(pod),
    }
}

impl Edit for Look<'_> {
    fn resource(&mut self, attributes: &mut Attributes<'_>) -> Next {
        self.at(&*attributes);
        Next::Leave
    }
}

/// Adds it in a request as it came.
struct Add<'a> {
    cluster: &'a Cluster,
    table: &'a Table,
    associations: &'a [association::Association],
    passthrough: bool,
    client: Option<IpAddr>,
    now: Mono,
}

impl Edit for Add<'_> {
    fn resource(&mut self, attributes: &mut Attributes<'_>) -> Next {
        let by = asked(self.associations, &*attributes, self.client);
        let found = find(
            self.cluster,
            self.table,
            &by,
            &*attributes,
            self.passthrough,
        );
        if let Some(pod) = &found.pod {
            pod.touch(self.now);
        }
        if by.is_some() || !found.attributes.is_empty() {
            attributes.update(|map| add(&by, &found, map));
        }
        Next::Leave
    }
}

impl Processor for K8sAttributes {
    fn process(&mut self, batch: Batch, out: &mut dyn Output) {
        self.look(out);
        if self.look_at.is_some() {
            self.early.extend(batch.parts);
            return;
        }
        self.release(out);
        self.take(batch.parts, out);
    }

    fn admission(&self) -> Admission {
        match self.look_at {
            Some(_) => Admission::Closed,
            None if self.waiting.bytes() > CLOSED_BYTES => Admission::Closed,
            None if self.waiting.bytes() > SCARCE_BYTES => Admission::Scarce,
            None => Admission::Open,
        }
    }

    fn deadline(&self) -> Option<Mono> {
        self.look_at.or_else(|| self.waiting.look_at())
    }

    fn tick(&mut self, out: &mut dyn Output) {
        self.look(out);
        if self.look_at.is_none() {
            self.release(out);
        }
    }

    fn flush(&mut self, out: &mut dyn Output) {
        let early = std::mem::take(&mut self.early);
        self.pass(early, out);
        let waiting = self.waiting.take_all();
        self.pass(waiting, out);
    }
}
