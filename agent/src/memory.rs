//! The allocator and its settings.
//!
//! What load took goes back to the system when the load has gone, also from threads that rest: jemalloc sees to it in
//! threads of its own. That, and few arenas, keeps what is resident close to what is in use, however often the
//! configuration changes.
//!
//! Source of the settings: `jemalloc(3)`, section "TUNING", of jemalloc 5.3.
#![allow(unsafe_code)]

use std::ffi::c_char;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// `narenas`: threads share these, the more there are the more pages are nearly empty. `background_thread`,
/// `dirty_decay_ms`, `muzzy_decay_ms`: unused pages go back within a second, by a thread for it. `thp`: no huge pages,
/// of which a part would be used. `_RJEM_MALLOC_CONF` in the environment comes on top of it.
const SETTINGS: &[u8] =
    b"narenas:2,background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0,thp:never\0";

/// A text that ends with a zero, as C has it.
#[repr(transparent)]
pub struct Text(*const c_char);

// SAFETY: it leads to constant bytes, which nobody writes to.
unsafe impl Sync for Text {}

/// Where jemalloc looks for settings before its first allocation.
// SAFETY: jemalloc declares the symbol weakly, as a `const char *`, for programs to define it. It is defined here
// once, and leads to a text that ends with a zero and lives for ever.
#[used]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: Text = Text(SETTINGS.as_ptr().cast());
