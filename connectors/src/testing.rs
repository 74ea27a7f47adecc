//! What the tests of connectors share.

use std::sync::Arc;

use tailwater_config::Errors;
use tailwater_pdata::Signal;
use tailwater_pipeline::checkpoint::CheckpointHandle;
use tailwater_pipeline::clock::SimClock;
use tailwater_pipeline::factory::{ConnectorSettings, Decode, NodeCx};
use tailwater_pipeline::storage::Storages;
use tailwater_pipeline::{Budget, BuildError};

struct NoStorages;

impl Storages for NoStorages {
    fn open(&self, _: Option<&str>) -> Result<CheckpointHandle, BuildError> {
        Err(BuildError::new("storage", "none"))
    }
}

/// What a connector is built with.
pub(crate) fn cx(signal: Signal) -> NodeCx {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    NodeCx {
        id: "connector".into(),
        pipeline: None,
        signal: Some(signal),
        shards: 1,
        clock: Arc::new(SimClock::default()),
        seed: 0,
        budget: Budget::new(1 << 20),
        metrics: Arc::default(),
        health: Arc::default(),
        runtime: runtime.handle().clone(),
        listeners: Arc::default(),
        connections: Arc::default(),
        storages: Arc::new(NoStorages),
        authenticators: Default::default(),
        agent: None,
    }
}

/// The mistakes in a section.
pub(crate) fn errors_of(decode: Decode<dyn ConnectorSettings>, yaml: &str) -> Vec<String> {
    let mut errors = Errors::new();
    let node = tailwater_config::parse(yaml, "c.yaml").unwrap();
    let settings = decode(&node, &"connectors::routing".into(), &mut errors);
    assert_eq!(settings.is_none(), !errors.is_empty(), "{yaml}");
    errors.iter().map(ToString::to_string).collect()
}
