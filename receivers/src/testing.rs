//! What tests of receivers share: what surrounds a node, and records as text.

use std::sync::Arc;

use tailwater_pdata::{LogsBatch, Signal};
use tailwater_pipeline::checkpoint::CheckpointHandle;
use tailwater_pipeline::clock::SystemClock;
use tailwater_pipeline::factory::NodeCx;
use tailwater_pipeline::lanes::Lane;
use tailwater_pipeline::storage::Storages;
use tailwater_pipeline::{Budget, BuildError};
use tailwater_telemetry::health::HealthRegistry;
use tailwater_telemetry::metrics::MetricsRegistry;

struct NoStorages;

impl Storages for NoStorages {
    fn open(&self, _id: Option<&str>) -> Result<CheckpointHandle, BuildError> {
        Err(BuildError::new("test", "the receiver stores nothing"))
    }
}

/// What surrounds the receiver `id`: one shard, and nothing else.
pub fn context(id: &str, metrics: &Arc<MetricsRegistry>) -> NodeCx {
    NodeCx {
        id: id.into(),
        pipeline: None,
        signal: None,
        shards: 1,
        clock: Arc::new(SystemClock::default()),
        seed: 1,
        budget: Budget::new(1 << 20),
        metrics: metrics.clone(),
        health: Arc::new(HealthRegistry::new()),
        runtime: tokio::runtime::Handle::current(),
        listeners: Default::default(),
        connections: Default::default(),
        storages: Arc::new(NoStorages),
        agent: None,
        authenticators: Default::default(),
    }
}

/// Lanes to these exporters.
pub fn lanes(cx: &NodeCx, exporters: &[&str], signals: &[Signal]) -> Vec<Lane> {
    let alone = exporters.len() == 1;
    let lane = |exporter: &&str| Lane {
        exporter: Arc::from(*exporter),
        metrics: match alone {
            true => cx.metrics.clone(),
            false => Arc::new(cx.metrics.scoped("exporter", exporter)),
        },
        budget: cx.budget.clone(),
        signals: signals.to_vec(),
        alone,
    };
    exporters.iter().map(lane).collect()
}

/// A record: severity, time in seconds, body, attributes and resource in order of their names.
pub fn text(logs: &LogsBatch, row: usize) -> String {
    let body = logs.body(row).map(|b| b.to_display_string());
    let attributes = logs.attributes_of(row);
    let mut attributes: Vec<String> = attributes
        .iter()
        .chain(logs.resource.iter())
        .map(|(key, value)| format!("{key}={}", value.as_ref().to_display_string()))
        .collect();
    attributes.sort();
    format!(
        "{} {} {} | {}",
        logs.severity.get(row),
        logs.time.get(row) / 1_000_000_000,
        body.unwrap_or_default(),
        attributes.join(" ")
    )
}
