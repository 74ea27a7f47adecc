//! What the control plane asks of an agent, whatever is between them.

use std::path::{Path, PathBuf};

use crate::model::Manifest;

/// What an agent made of an offer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is in force; what changed, a line each. Nothing if it was in force.
    Applied(Vec<String>),
    /// Nothing was touched, what was in force is; all reasons.
    Refused(Vec<String>),
}

/// There was no answer: the agent is not there, or ends.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the agent does not answer: {0}")]
pub struct Silent(pub String);

/// How far an agent is in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileProgress {
    /// The path that its records name.
    pub path: PathBuf,
    /// Bytes of content that are on disk and neither delivered nor given up by a counted decision.
    pub lag_bytes: u64,
    /// Up to here it is read.
    pub read: u64,
    /// Bytes on the disk.
    pub size: u64,
}

/// See the module's documentation.
pub trait AgentPort: Send {
    /// Offers a configuration, whole: `targets` is to be laid over the base that the manifest names.
    ///
    /// # Errors
    /// There is no answer. It is not known what is in force then.
    fn offer(&mut self, manifest: &Manifest, targets: &str) -> Result<Answer, Silent>;

    /// Says whether the agent would take this, without any effect; else all reasons.
    ///
    /// # Errors
    /// As [`AgentPort::offer`].
    fn validate(&mut self, targets: &str) -> Result<Answer, Silent>;

    /// How far it is in the files at these paths, a row for each generation of each; none for a path
    /// at which it has none.
    ///
    /// # Errors
    /// As [`AgentPort::offer`].
    fn states(&mut self, paths: &[&Path]) -> Result<Vec<FileProgress>, Silent>;
}
