//! A queue on disk: what is in it survives a crash, and is handed out until it is settled.
//!
//! For data that cannot be read again. An item is bytes of whoever uses the queue. A directory holds
//!
//! ```text
//! <first item>-<serial>-<salt>.queue   a segment: header, one frame per item
//! settled.0, settled.1                 which items are settled, by turns
//! lock                                 held by flock while a process uses the directory
//! ```
//!
//! INVARIANTS
//! - After [`DurableQueue::sync`] returned `Ok`, a crash at any moment brings back every item that
//!   was appended before and is not settled, unchanged and in order.
//! - An item that was settled may come back after a crash (whoever it is for gets it twice); after a
//!   stop, and once [`DurableQueue::save_settled`] returned `Ok`, it does not.
//! - A segment is removed when each of its items is settled and that is on disk, never before,
//!   whatever its age.
//! - Damage is skipped and counted: items that were surely stored and are missing are
//!   [`QueueStats::damaged_items`]. What a crash interrupted was never said to be stored; it is not
//!   counted as damage.
//! - What cannot be read is not damaged: it is tried again, set aside if that is in vain so that it
//!   holds up nobody else, and neither settled nor removed.
//! - Memory does not grow with the number of items: what is not handed out is on disk only.
//! - No content of these files makes opening fail or panic, but for a format that a newer version
//!   wrote. What the system does not open or read at the start makes it fail, but for items.
//! - A file whose synchronisation failed is never written again: the kernel reports lost pages once.

mod durable;
mod found;
mod segment;
mod settled;

#[cfg(test)]
mod tests;

pub use durable::DurableQueue;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fs::Fs;

/// Longest item, in bytes.
pub const ITEM_BYTES_MAX: usize = 256 << 20;

/// Bounds of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// All segments together, in bytes.
    pub bytes_max: u64,
    /// A segment is closed when it has this many bytes.
    pub segment_bytes: u64,
}

impl QueueLimits {
    /// Limits of a queue of `bytes_max` bytes: segments of a sixteenth of it, of 16 MiB at most.
    pub fn of_bytes(bytes_max: u64) -> QueueLimits {
        QueueLimits {
            bytes_max,
            segment_bytes: (bytes_max / 16).clamp(4 << 10, 16 << 20),
        }
    }
}

/// What there is, and what happened since the queue was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QueueStats {
    /// Items that are not settled.
    pub items: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Items that were stored and cannot be read any more.
    pub damaged_items: u64,
    /// Items that cannot be read now. They are tried again.
    pub unreadable_items: u64,
    /// Items that a crash interrupted. They were never said to be stored.
    pub unfinished_items: u64,
    /// Bytes that were skipped for not being whole items.
    pub skipped_bytes: u64,
}

/// Why a queue cannot be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// It has no room for the item now.
    #[error("the queue is full: {bytes} of {bytes_max} bytes are in use, {needed} more are needed")]
    Full {
        /// Bytes in use.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
        /// What the item takes.
        needed: u64,
    },
    /// It will never have room for the item.
    #[error("an item of {needed} bytes can never be stored in a queue of {bytes_max} bytes")]
    TooLarge {
        /// What the item takes.
        needed: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// Another process uses the directory.
    #[error("the queue in {} is in use by another process: stop it first", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// A file was written by a later version; it is left alone.
    #[error(
        "{} was written by a newer version (format {found}, this version reads up to {supported}): \
         run that version until the queue is empty, or move the directory away",
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
    /// Reading or writing failed.
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

/// What is in the queue in `dir`, which nobody has open; `None` if there is none.
///
/// # Errors
/// Somebody has it open, a later version wrote it, or the system does not let it be read.
pub fn look(fs: Arc<dyn Fs>, dir: &Path) -> Result<Option<QueueStats>, QueueError> {
    match fs.list(dir) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(QueueError::io("list", dir, e)),
    }
    // Limits and seed are about what is appended.
    let queue = DurableQueue::open(fs, dir, QueueLimits::of_bytes(0), 0)?;
    Ok(Some(queue.stats()))
}

impl QueueError {
    fn is_not_found(&self) -> bool {
        matches!(self, QueueError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> QueueError {
        QueueError::Io {
            action,
            path: path.into(),
            source,
        }
    }
}
