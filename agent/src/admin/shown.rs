//! What the supervisor shows: replaced as a whole after each change.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use tailwater_config::{Node, NodeValue, Span};
use tailwater_pipeline::plan::GraphSpec;

use super::files::Reader;
use crate::layer::Layer;

/// A configuration that is or was in force.
#[derive(Clone, PartialEq, Debug)]
pub struct Record {
    /// Its generation.
    pub number: u64,
    /// Since when, in Unix time.
    pub unix_ns: i64,
    /// Who asked for it.
    pub by: Cow<'static, str>,
    /// What it changed, a line each.
    pub changes: Vec<String>,
    /// The whole of it without its secrets, as YAML.
    pub config: Arc<str>,
}

/// What is in force.
#[derive(Debug)]
pub struct InForce {
    /// Its generation.
    pub generation: u64,
    /// The whole configuration without its secrets.
    pub config: Node,
    /// Its nodes.
    pub graph: GraphSpec,
    /// What a control plane has laid over the local configuration.
    pub layer: Option<Arc<Layer>>,
    /// Attributes of the agent's own telemetry.
    pub resource: Vec<(String, String)>,
    /// The generations that can be gone back to, and this one.
    pub generations: Vec<Record>,
    /// Its receivers of files.
    pub readers: Vec<Reader>,
}

/// Ids of what does not run although the configuration says so, and why if it was tried.
pub type NotStarted = Vec<(String, Option<String>)>;

/// See the module's documentation.
#[derive(Debug)]
pub struct Shown {
    in_force: Mutex<Arc<InForce>>,
    not_started: Mutex<Arc<NotStarted>>,
}

impl Default for Shown {
    fn default() -> Shown {
        let nothing = InForce {
            generation: 0,
            config: Node::new(NodeValue::Null, Span::start_of("config")),
            graph: GraphSpec::default(),
            layer: None,
            resource: Vec::new(),
            generations: Vec::new(),
            readers: Vec::new(),
        };
        Shown {
            in_force: Mutex::new(Arc::new(nothing)),
            not_started: Mutex::default(),
        }
    }
}

impl Shown {
    /// Shows another configuration.
    pub fn in_force(&self, new: InForce) {
        *self.in_force.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
    }

    /// Shows what does not run.
    pub fn not_started(&self, new: NotStarted) {
        *self
            .not_started
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
    }

    /// What is in force.
    pub fn get(&self) -> Arc<InForce> {
        self.in_force
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What does not run.
    pub fn get_not_started(&self) -> Arc<NotStarted> {
        self.not_started
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
