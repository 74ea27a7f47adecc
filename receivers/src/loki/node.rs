//! From configuration to a running receiver.

use std::any::Any;
use std::sync::Arc;

use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pipeline::factory::{NodeCx, ReceiverFactory, ReceiverSettings};
use tailwater_pipeline::lanes::Lane;
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{BuildError, ReceiverNode};

use super::config::LokiConfig;
use super::protocol::Loki;
use crate::server::{self, PushNode};

/// The factory of `loki`.
pub fn factory() -> ReceiverFactory {
    ReceiverFactory {
        kind: "loki",
        about: "takes what is pushed to Loki's API; success means delivered",
        signals: &["logs"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ReceiverSettings>> {
    Some(Box::new(LokiSettings::decode(node, path, errors)?))
}

/// A decoded configuration.
pub struct LokiSettings {
    config: LokiConfig,
}

impl LokiSettings {
    /// Reads the section. `None` only together with an error.
    pub fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<LokiSettings> {
        let before = errors.len();
        let mut section = Section::new(node, path, errors);
        let config = LokiConfig::decode(&mut section);
        section.finish();
        (errors.len() == before).then_some(LokiSettings { config })
    }

    /// Builds the nodes of `lanes`.
    ///
    /// # Errors
    /// Certificates cannot be used.
    pub fn nodes(&self, cx: &NodeCx, lanes: &[Lane]) -> Result<Vec<PushNode>, BuildError> {
        let protocol = Loki::new(self.config.incoming_timestamp, cx.clock.clone());
        server::nodes("loki", Arc::new(protocol), &self.config.server, cx, lanes)
    }
}

impl ReceiverSettings for LokiSettings {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn build(&self, cx: &NodeCx, lanes: &[Lane]) -> Result<Vec<Box<dyn ReceiverNode>>, BuildError> {
        let nodes = self.nodes(cx, lanes)?.into_iter();
        Ok(nodes.map(|node| Box::new(node) as _).collect())
    }

    fn reach(&self, reach: &mut Reach) {
        server::reach(&self.config.server, reach);
    }
}
