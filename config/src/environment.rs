//! What a configuration may refer to outside of itself: variables and files.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::parse::SOURCE_BYTES_MAX;

/// Access to variables and files. The only input of this crate.
pub trait Environment {
    /// The value of an environment variable; `None` if it is not set.
    fn variable(&self, name: &str) -> Option<OsString>;

    /// The content of a file. A relative path is relative to the working directory.
    ///
    /// # Errors
    /// What opening or reading gave, or that the file is larger than [`SOURCE_BYTES_MAX`].
    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// The environment of this process and the file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let limit = SOURCE_BYTES_MAX as u64;
        let mut bytes = Vec::new();
        File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() > SOURCE_BYTES_MAX {
            let message = format!("larger than {SOURCE_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        Ok(bytes)
    }
}

/// Variables and files that exist in memory only: for tests, and for validating a configuration
/// on behalf of another machine.
#[derive(Clone, Debug, Default)]
pub struct MemoryEnvironment {
    /// The variables that are set.
    pub variables: BTreeMap<String, String>,
    /// The files that exist.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

impl MemoryEnvironment {
    /// Nothing set, no files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a variable.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Adds a file.
    #[must_use]
    pub fn with_file(mut self, path: impl Into<PathBuf>, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.into(), content.into());
        self
    }
}

impl Environment for MemoryEnvironment {
    fn variable(&self, name: &str) -> Option<OsString> {
        self.variables.get(name).map(OsString::from)
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files
            .get(path)
            .cloned()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}
