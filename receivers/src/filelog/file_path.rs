//! Paths that many hold at once.

use std::borrow::Borrow;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A path that is cheap to copy: with ten thousand files at rest, copies of their paths would be
/// most of the memory. Equal, ordered and hashed as its [`Path`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilePath(Arc<Path>);

impl Default for FilePath {
    fn default() -> FilePath {
        FilePath::from(Path::new(""))
    }
}

impl FilePath {
    /// The same path for whoever does not know this type.
    pub fn shared(&self) -> Arc<Path> {
        self.0.clone()
    }
}

impl Deref for FilePath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for FilePath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Borrow<Path> for FilePath {
    fn borrow(&self) -> &Path {
        &self.0
    }
}

impl From<&Path> for FilePath {
    fn from(path: &Path) -> FilePath {
        FilePath(path.into())
    }
}

impl From<PathBuf> for FilePath {
    fn from(path: PathBuf) -> FilePath {
        FilePath(path.into())
    }
}

impl From<&str> for FilePath {
    fn from(path: &str) -> FilePath {
        FilePath::from(Path::new(path))
    }
}
