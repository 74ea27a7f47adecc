//! The allocator and its settings.
//!
//! What load took goes back to the system when the load has gone, also from threads that rest: jemalloc sees to it in
//! threads of its own. That, and few arenas, keeps what is resident close to what is in use, however often the
//! configuration changes.
//!
//! Source of the settings: `jemalloc(3)`, section "TUNING", of jemalloc 5.3.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// `narenas`: threads share these, the more there are the more pages are nearly empty. `dirty_decay_ms`,
/// `muzzy_decay_ms`: unused pages go back within a second. `thp`: no huge pages, of which a part would be used.
/// `_RJEM_MALLOC_CONF` in the environment comes on top of it.
const SETTINGS: &[u8] = b"narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0,thp:never\0";

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

unsafe extern "C" {
    fn _rjem_mallctl(
        name: *const c_char,
        old: *mut c_void,
        old_len: *mut usize,
        new: *mut c_void,
        new_len: usize,
    ) -> c_int;
}

/// Has threads give back unused pages from now on. They begin here, not with the process, and so may do no more than
/// the calling thread. Without them pages go back when their arena is used the next time, so a failure is no harm.
pub fn give_back_in_background() {
    let (mut on, name) = (true, c"background_thread");
    // SAFETY: declared as in `jemalloc.h`; the name ends with a zero, is one of `jemalloc(3)`, and its value is a
    // `bool`, which is read before the call returns. No old value is asked for.
    unsafe {
        let value = ptr::from_mut(&mut on).cast();
        let none = ptr::null_mut();
        _rjem_mallctl(
            name.as_ptr(),
            none,
            ptr::null_mut(),
            value,
            size_of::<bool>(),
        );
    }
}

/// Bytes of what is allocated and not freed, as of now; `None` where jemalloc does not count it.
pub fn allocated_bytes() -> Option<u64> {
    let mut epoch = 1_u64;
    let mut allocated = 0_usize;
    let mut len = size_of::<usize>();
    // SAFETY: declared as in `jemalloc.h`; the names end with a zero and are of `jemalloc(3)`: `epoch`, a `uint64_t`,
    // renews the statistics when it is written, and `stats.allocated` is a `size_t`, for which there is room. Both
    // are written or read before the calls return.
    let failed = unsafe {
        let value = ptr::from_mut(&mut epoch).cast();
        let none = ptr::null_mut();
        let renewed = c"epoch".as_ptr();
        _rjem_mallctl(renewed, none, ptr::null_mut(), value, size_of::<u64>())
            | _rjem_mallctl(
                c"stats.allocated".as_ptr(),
                ptr::from_mut(&mut allocated).cast(),
                &raw mut len,
                ptr::null_mut(),
                0,
            )
    };
    (failed == 0).then_some(allocated as u64)
}
