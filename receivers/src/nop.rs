//! The receiver `nop`: takes in nothing, ever. It makes a pipeline valid that is to be there without one.

use std::any::Any;

use tailwater_config::Section;
use tailwater_pipeline::factory::{Factory, NodeCx, ReceiverFactory, ReceiverSettings};
use tailwater_pipeline::lanes::Lane;
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{BuildError, Progress, ReceiverNode, ShardHandle, Source, SourceCx};

/// The kind of receiver, for the agent's registry.
pub fn factory() -> ReceiverFactory {
    Factory {
        kind: "nop",
        about: "takes in nothing",
        signals: &["logs", "metrics", "traces"],
        decode: |node, path, errors| {
            Section::new(node, path, errors).finish();
            Some(Box::new(Nop))
        },
    }
}

/// Its settings, its node and its half in each shard.
struct Nop;

impl ReceiverSettings for Nop {
    fn build(
        &self,
        _cx: &NodeCx,
        lanes: &[Lane],
    ) -> Result<Vec<Box<dyn ReceiverNode>>, BuildError> {
        let node = |_: &Lane| -> Box<dyn ReceiverNode> { Box::new(Nop) };
        Ok(lanes.iter().map(node).collect())
    }

    /// It reads nothing.
    fn reach(&self, _reach: &mut Reach) {}

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl ReceiverNode for Nop {
    fn source(&mut self, _shard: &ShardHandle) -> Box<dyn Source> {
        Box::new(Nop)
    }

    fn start(&mut self) -> Result<(), BuildError> {
        Ok(())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn stop(&mut self) {}
}

impl Source for Nop {
    fn poll(&mut self, _cx: &mut dyn SourceCx) -> Progress {
        Progress::Idle(None)
    }

    fn drain(&mut self, _cx: &mut dyn SourceCx) -> bool {
        true
    }
}
