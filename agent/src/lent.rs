//! What the agent lends to those of its extensions that look after the agent itself.

use std::sync::{Arc, OnceLock};

use tailwater_control_plane::store::Store;

use crate::admin::shown::Shown;
use crate::control::Control;

/// See the module's documentation.
pub struct Lent {
    /// Where changes are asked for.
    pub control: Control,
    /// What is in force.
    pub shown: Arc<Shown>,
    /// Held by the one that speaks to a control plane: where one takes the place of another, that one
    /// says farewell first.
    pub turn: Arc<tokio::sync::Mutex<()>>,
    /// Where discovery of this process has its registry, if there is discovery.
    pub registry: OnceLock<Arc<dyn Store>>,
}

impl Lent {
    /// With nobody speaking yet.
    pub fn new(control: Control, shown: Arc<Shown>) -> Lent {
        Lent {
            control,
            shown,
            turn: Arc::default(),
            registry: OnceLock::new(),
        }
    }
}
