//! Checkpoints: what is delivered, so that a restart goes on and loses nothing.
//!
//! A [`CheckpointStore`] maps opaque keys (a receiver's namespace and a file's identity) to a
//! [`Checkpoint`]. Memory holds all of it; the disk holds two generations of
//!
//! ```text
//! <generation>.snapshot   header, one record per key, an end record with their number
//! <generation>.log        header, one record per change since that snapshot
//! lock                    held by flock while a process uses the directory
//! ```
//!
//! A commit appends the changed records and waits for `fdatasync`: O(changed) bytes. A log that
//! has grown much beyond the live state is replaced by a new generation: the new log and snapshot
//! are written and synchronised, the snapshot gets its name, the directory is synchronised, and
//! only then generations older than the previous one are removed.
//!
//! INVARIANTS
//! - After `commit` returned `Ok`, a crash at any moment brings back every checkpoint at least as
//!   new as at that commit, and never one that was not put.
//! - Every prefix of every file is readable. Records carry a CRC; a damaged one is skipped and
//!   counted, a damaged snapshot is replaced by the previous generation's snapshot and log, which
//!   lead to the same state. A skipped record leaves an older offset of its key: data may be read
//!   again, none is lost. No content of these files makes opening fail or panic, but for a format
//!   that a newer version wrote.
//! - Checkpoints that were put together come back together: a group of which a part is damaged is
//!   skipped as a whole.
//! - Offsets never move back within a generation of a key.
//! - A file whose synchronisation failed is never written again: the kernel reports lost pages
//!   once, so everything is written anew.
//! - When nothing can be written, memory keeps everything and each later commit tries again.

mod disk;
mod frame;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod recover;
mod state_dir;
mod store;
mod table;
mod writer;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod read_only_tests;
#[cfg(test)]
mod writer_tests;

pub use state_dir::{StateDirError, state_dir, state_dir_from};
pub use store::{Alarm, CheckpointStore, CommitReport, ReadErrors, StoreOptions, StoreStats};
pub use table::{Changes, Checkpoint, PutError};
pub use writer::{
    CheckpointHandle, CheckpointWriter, Flush, Ticket, TicketState, WriterCore, WriterOptions,
};

use std::io;
use std::path::PathBuf;

/// Longest key, in bytes. Keys are not empty.
pub const KEY_BYTES_MAX: usize = 256;
/// Longest payload, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 8 << 10;

/// Why checkpoints cannot be opened or saved.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Another process, or another store of this one, uses the directory.
    #[error(
        "the state directory {} is in use by {holder}: stop it, or give this agent a directory of \
         its own with TAILWATER_STATE_DIR",
        dir.display()
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Who holds it, as far as is known.
        holder: String,
    },
    /// The directory cannot be used at all.
    #[error(
        "cannot use the state directory {}: {source}; create it for this user, or set \
         TAILWATER_STATE_DIR to a directory that this user may write to",
        dir.display()
    )]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file was written by a later version; it is left alone.
    #[error(
        "{} was written by a newer version (format {found}, this version reads up to \
         {supported}): run that version, or move the directory away to read all logs again",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u16,
        /// The newest format that is understood.
        supported: u16,
    },
    /// Reading or writing failed. What was not saved is kept in memory.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as an infinitive: `append to`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl CheckpointError {
    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, CheckpointError::Io { source, .. }
            if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}

/// What was found when a store was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenReport {
    /// Checkpoints that were read.
    pub recovered: usize,
    /// Bytes cut from the ends of logs: writes that a crash interrupted.
    pub torn_bytes: u64,
    /// Damaged stretches that were skipped: at least this many records.
    pub damaged_records: u64,
    /// Bytes in those stretches.
    pub damaged_bytes: u64,
    /// The newest snapshot was damaged; the state was rebuilt from the previous generation.
    pub used_previous_generation: bool,
    /// No snapshot was whole; every record that could be read was taken.
    pub salvaged: bool,
}

impl OpenReport {
    /// Whether something that was stored is missing or older than it was. Torn ends do not count:
    /// what a crash interrupted was never said to be saved.
    pub fn is_damaged(&self) -> bool {
        self.may_lack_keys() || self.used_previous_generation
    }

    /// Whether a key that was stored may be missing: one that is not there is not certainly new.
    pub fn may_lack_keys(&self) -> bool {
        self.damaged_records > 0 || self.salvaged
    }
}
