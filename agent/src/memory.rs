//! Memory that load took goes back to the system when the load has gone.
//!
//! mimalloc keeps for each thread what was in use there, and looks for what other threads have given back of it only
//! when that thread asks for much again. Threads that rest are asked to look.
#![allow(unsafe_code)]

use std::time::Duration;

/// How often it is done.
pub const GIVE_BACK_INTERVAL: Duration = Duration::from_secs(10);

// SAFETY: it is declared as in `mimalloc.h`, takes no pointer, may be called by any thread at any time, and touches
// only what is free: of the calling thread, and of threads that have ended.
unsafe extern "C" {
    safe fn mi_collect(force: bool);
}

/// Gives back what this thread does not use.
pub fn give_back() {
    mi_collect(true);
}
