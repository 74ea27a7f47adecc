//! What is known of a file in all threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::super::identity::Known;
use super::super::logfs::LogFile;

/// What shard and catalog both know of a file. Written by the shard, read by the catalog and by
/// telemetry.
#[derive(Default)]
pub struct Shared {
    /// Next byte to read.
    pub read_offset: AtomicU64,
    /// Everything before it was delivered.
    pub acked_offset: AtomicU64,
    /// Size when it was last looked at.
    pub size: AtomicU64,
    /// Wall time when bytes up to `pending_to` were found to be undelivered, ns; 0 = none.
    pub pending_since_ns: AtomicU64,
    /// See `pending_since_ns`.
    pub pending_to: AtomicU64,
    /// The shard is done with it: everything read, delivered and saved, or abandoned.
    pub finished: AtomicBool,
    /// The descriptor was closed to keep within the budget.
    pub closed: AtomicBool,
    /// Its content was cut away, as its reader has found out, and is looked for in copies.
    pub cut: AtomicBool,
    /// Its reader waits until what comes before it is read.
    pub waits: AtomicBool,
    /// There may be something new to read; cleared by the shard before it looks.
    pub dirty: AtomicBool,
    /// It was read as far as it goes since its path was gone.
    pub looked_into: AtomicBool,
    /// What reading has seen of its content.
    known: Mutex<Known>,
    /// The descriptor it is read with, as long as that is open.
    handle: Mutex<Option<Weak<dyn LogFile>>>,
}

impl Shared {
    /// What reading has seen of the content.
    pub fn known(&self) -> Known {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what reading has seen of the content; once per read.
    pub fn set_known(&self, known: Known) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
        self.read_offset.store(known.offset, Ordering::Release);
    }

    /// Lets the catalog look at a file as long as its reader has it open, whatever became of its name.
    pub fn show(&self, file: &Arc<dyn LogFile>) {
        let handle = Some(Arc::downgrade(file));
        *self.handle.lock().unwrap_or_else(PoisonError::into_inner) = handle;
    }

    /// The file as its reader has it open, compressed if it is.
    pub fn handle(&self) -> Option<Arc<dyn LogFile>> {
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        handle.as_ref().and_then(Weak::upgrade)
    }
}
