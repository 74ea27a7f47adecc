//! Where receivers keep their positions, as they see it.

use crate::checkpoint::CheckpointHandle;
use crate::component::BuildError;

/// Opens stores of positions by the id of a storage extension; `None` is the agent's own state
/// directory. The same id gives the same store.
pub trait Storages: Send + Sync {
    /// The store.
    fn open(&self, id: Option<&str>) -> Result<CheckpointHandle, BuildError>;
}
