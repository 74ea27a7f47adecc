//! A directory that exists as long as its handle.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Names tried before giving up; more than a handful means the directory is not writable.
const ATTEMPTS_MAX: u32 = 1_000;

/// A fresh, empty directory under [`std::env::temp_dir`], removed with its content on drop.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
}

impl TempDir {
    /// Makes a directory that nothing else uses; `label` becomes part of its name.
    ///
    /// # Errors
    /// What creating it fails with: no permission, no space.
    pub fn new(label: &str) -> io::Result<Self> {
        let base = std::env::temp_dir();
        for _ in 0..ATTEMPTS_MAX {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("tailwater-{label}-{}-{number}", std::process::id()));
            // `create_dir` refuses a name that exists (a left-over of an earlier process with
            // this id), so the directory is ours alone.
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "no unused temporary name found",
        ))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside it; nothing is created.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // Nobody is left to tell; a left-over in the temporary directory does no harm.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_distinct_and_vanish_with_their_content() {
        let (a, b) = (TempDir::new("t").unwrap(), TempDir::new("t").unwrap());
        assert_ne!(a.path(), b.path());
        std::fs::create_dir(a.join("sub")).unwrap();
        std::fs::write(a.join("sub/file"), b"x").unwrap();
        let path = a.path().to_path_buf();
        drop(a);
        assert!(!path.exists());
        assert!(b.path().is_dir());
    }

    #[test]
    fn a_label_that_cannot_be_a_name_is_an_error() {
        assert!(TempDir::new("no/such/parent").is_err());
    }
}
