//! `resource_detection`: attributes of the host, container engine or node that this runs on, for resources.
//!
//! Detection runs beside the data, once for all shards, pipelines and signals. At first data waits for it: sources pause, so
//! files wait where they are. That ends when all detectors have succeeded, or when the time for it is over; from then on
//! data passes with what is known, and what is found later is added from then on. No detector can stop the agent, and none
//! can cost a record.

mod config;
mod detection;
mod docker;
mod env;
mod kubernetes;
mod system;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pdata::Map;
use tailwater_pdata::otlp::edit::{Attributes, Edit, Next};
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::factory::{Factory, NodeCx, ProcessorFactory, ProcessorSettings};
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{
    Admission, Batch, BuildError, LogsPart, Output, Part, Payload, Processor,
};
use tailwater_telemetry::metrics::ResourceDetectionMetrics;

pub use config::{DetectorConfig, ResourceDetectionConfig, Retry};
use detection::Detection;

use crate::joint::Joint;
use crate::remembered::Remembered;

/// How often it is looked whether detection is through, while data waits for it.
const LOOK: Duration = Duration::from_millis(5);

static DETECTIONS: Joint<Detection> = Joint::new();

/// The factory of this processor.
pub fn factory() -> ProcessorFactory {
    Factory {
        kind: "resource_detection",
        about: "Adds attributes of the host, Docker Engine or Kubernetes node that this runs on to resources.",
        signals: &["logs", "metrics", "traces"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ProcessorSettings>> {
    let before = errors.len();
    let mut section = Section::new(node, path, errors);
    let config = ResourceDetectionConfig::decode(&mut section);
    section.finish();
    (errors.len() == before).then(|| Box::new(Settings(config)) as Box<dyn ProcessorSettings>)
}

struct Settings(ResourceDetectionConfig);

impl ProcessorSettings for Settings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn Processor>, BuildError> {
        let config = &self.0;
        // Without an agent around it, as when records are tried out, nothing is asked.
        let runs = cx.agent.is_some();
        let detectors = match runs {
            true => config.detectors(),
            false => Ok(Vec::new()),
        };
        let failed = |problem| BuildError::new(format!("processor {:?}", cx.id), problem);
        let detectors = detectors.map_err(failed)?;
        let meters = ResourceDetectionMetrics::new(&cx.metrics, &cx.id);
        let key = format!("{} {config:?}", cx.id);
        let make = || Detection::new(config, detectors, cx.seed, meters, runs);
        let detection = DETECTIONS.of(cx, &key, make);
        Ok(Box::new(ResourceDetection::new(
            detection,
            config.overrides,
            cx.runtime.clone(),
        )))
    }

    fn reach(&self, reach: &mut Reach) {
        self.0.reach(reach);
    }
}

/// Adds what was detected in one chain of one shard.
struct ResourceDetection {
    detection: Arc<Detection>,
    overrides: bool,
    runtime: tokio::runtime::Handle,
    /// What was found last, with its number.
    found: (u64, Arc<Map>),
    remembered: Remembered,
    /// What came before detection was through, in order.
    held: Vec<Part>,
    /// When to look again; none once data passes.
    look_at: Option<Mono>,
}

impl ResourceDetection {
    fn new(
        detection: Arc<Detection>,
        overrides: bool,
        runtime: tokio::runtime::Handle,
    ) -> ResourceDetection {
        ResourceDetection {
            found: (0, Arc::default()),
            overrides,
            runtime,
            remembered: Remembered::default(),
            held: Vec::new(),
            look_at: Some(Mono(0)),
            detection,
        }
    }

    /// Starts detection, and passes on what waited once it is through.
    fn look(&mut self, out: &mut dyn Output) {
        if self.look_at.is_none() {
            return;
        }
        let now = out.now();
        self.detection.start(&self.runtime, now);
        if self.detection.is_open(now) {
            self.look_at = None;
            self.flush(out);
        } else {
            self.look_at = Some(now.after(LOOK));
        }
    }

    fn pass(&mut self, parts: Vec<Part>, out: &mut dyn Output) {
        let detected = self.detection.number();
        if detected != self.found.0 {
            self.found = self.detection.found();
            self.remembered.clear();
        }
        if self.found.1.is_empty() {
            return out.emit(Batch { parts });
        }
        let (map, overrides) = (&self.found.1, self.overrides);
        let mut done = Vec::with_capacity(parts.len());
        let mut pieces = Vec::new();
        for part in parts {
            let Part { data, ack, permit } = part;
            match data {
                Payload::Logs(logs) => {
                    LogsPart { logs, ack, permit }.split_by_resource(&mut pieces);
                }
                Payload::Encoded(mut encoded) => {
                    encoded.edit(&mut Add(map, overrides));
                    let data = encoded.into();
                    done.push(Part { data, ack, permit });
                }
            }
            for mut piece in pieces.drain(..) {
                let resource = &piece.logs.resource;
                let added = self.remembered.of(resource, |to| {
                    merge(map, overrides, to);
                });
                piece.logs.resource = added;
                done.push(piece.into());
            }
        }
        out.emit(Batch { parts: done });
    }
}

/// Adds `from` to `to`; what is there already is replaced only if it `overrides`. True if that changed anything.
fn merge(from: &Map, overrides: bool, to: &mut Map) -> bool {
    let mut changed = false;
    for (key, value) in from.iter() {
        let there = to.get(key);
        if there.is_none() || (overrides && there != Some(value)) {
            to.insert(key.clone(), value.clone());
            changed = true;
        }
    }
    changed
}

/// The same in a request as it came.
struct Add<'m>(&'m Map, bool);

impl Edit for Add<'_> {
    fn resource(&mut self, attributes: &mut Attributes<'_>) -> Next {
        let Add(from, overrides) = *self;
        attributes.update(|to| merge(from, overrides, to));
        Next::Leave
    }
}

impl Processor for ResourceDetection {
    fn process(&mut self, batch: Batch, out: &mut dyn Output) {
        self.look(out);
        if self.look_at.is_some() {
            self.held.extend(batch.parts);
        } else {
            self.pass(batch.parts, out);
        }
    }

    fn admission(&self) -> Admission {
        match self.look_at {
            Some(_) => Admission::Closed,
            None => Admission::Open,
        }
    }

    fn deadline(&self) -> Option<Mono> {
        self.look_at
    }

    fn tick(&mut self, out: &mut dyn Output) {
        self.look(out);
    }

    fn flush(&mut self, out: &mut dyn Output) {
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            self.pass(held, out);
        }
    }
}
