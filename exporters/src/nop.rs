//! The exporter `nop`: takes everything and forgets it. What it took counts as sent.

use std::sync::Arc;

use tailwater_config::Section;
use tailwater_pdata::Signal;
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::factory::{ExporterFactory, ExporterSettings, Factory, NodeCx};
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{
    Admission, Batch, BuildError, Exporter, ExporterNode, Outcome, ShardHandle,
};

use crate::delivery::ItemMetrics;

/// The kind of exporter, for the agent's registry.
pub fn factory() -> ExporterFactory {
    Factory {
        kind: "nop",
        about: "takes everything and forgets it",
        signals: &["logs", "metrics", "traces"],
        decode: |node, path, errors| {
            Section::new(node, path, errors).finish();
            Some(Box::new(Settings))
        },
    }
}

struct Settings;

impl ExporterSettings for Settings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn ExporterNode>, BuildError> {
        let signal = cx.signal.unwrap_or(Signal::Logs);
        let metrics = ItemMetrics::new(&cx.metrics, &cx.id, signal);
        Ok(Box::new(Nop(Arc::new(metrics))))
    }

    /// It writes nothing.
    fn reach(&self, _reach: &mut Reach) {}
}

/// The exporter, and the half of each shard.
#[derive(Clone)]
struct Nop(Arc<ItemMetrics>);

impl ExporterNode for Nop {
    fn front(&mut self, _shard: &ShardHandle) -> Box<dyn Exporter> {
        Box::new(self.clone())
    }

    fn start(&mut self) -> Result<(), BuildError> {
        Ok(())
    }

    /// Nothing is ever left.
    fn stop(&mut self, _deadline: Mono) -> u64 {
        0
    }
}

impl Exporter for Nop {
    fn export(&mut self, batch: Batch, _now: Mono) {
        for part in batch.parts {
            self.0.sent().inc_by(part.data.items() as u64);
            part.ack.resolve(Outcome::Delivered);
        }
    }

    fn admission(&self) -> Admission {
        Admission::Open
    }
}
