//! Where receivers keep their positions and exporters their queues, as they see it.

use std::path::PathBuf;

use crate::checkpoint::CheckpointHandle;
use crate::component::BuildError;

/// Opens what is stored by the id of a storage extension; `None` is the agent's own state
/// directory. The same id gives the same store.
pub trait Storages: Send + Sync {
    /// The store.
    fn open(&self, id: Option<&str>) -> Result<CheckpointHandle, BuildError>;

    /// The directory of the queue called `name` in the storage extension `id`: the same for the
    /// same names, whatever runs. It need not exist yet.
    fn queue_dir(&self, id: &str, name: &str) -> Result<PathBuf, BuildError> {
        let text = format!("has no place for the queue {name:?}");
        Err(BuildError::new(format!("storage {id:?}"), text))
    }
}
