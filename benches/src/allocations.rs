//! An allocator that counts, for tests that state how many allocations a record costs, and how much
//! memory an input can take.
//!
//! A number does not depend on the machine, so it can be asserted where a time cannot. Counted is
//! every call that asks for memory (`alloc`, `alloc_zeroed`, `realloc`) on threads that did not
//! take themselves out.

// An allocator cannot be written without `unsafe`; all calls go on to the system's unchanged.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

static COUNT: AtomicU64 = AtomicU64::new(0);
/// Bytes that are allocated now, and the most since [`reset_peak`], on threads that are counted.
static LIVE: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);

thread_local! {
    // Constant and without a destructor, so the allocator may use it at any time of a thread.
    static IS_COUNTED: Cell<bool> = const { Cell::new(true) };
}

/// The system's allocator with a counter; for `#[global_allocator]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingAllocator;

/// Allocations so far.
pub fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// Begins to look for the peak anew; gives the bytes that are allocated now.
pub fn reset_peak() -> i64 {
    let live = LIVE.load(Ordering::Relaxed);
    PEAK.store(live, Ordering::Relaxed);
    live
}

/// The most bytes that were allocated at once since [`reset_peak`].
pub fn peak() -> i64 {
    PEAK.load(Ordering::Relaxed)
}

/// Takes the allocations of this thread out of the count: it is part of the test, not of what is
/// tested.
pub fn exclude_this_thread() {
    IS_COUNTED.with(|counted| counted.set(false));
}

/// A call that asks for memory, `times` 1, or gives it back, 0.
fn note(times: u64, more_bytes: i64) {
    // A thread that is ending no longer has the flag; what it allocates then counts.
    if IS_COUNTED.try_with(Cell::get).unwrap_or(true) {
        COUNT.fetch_add(times, Ordering::Relaxed);
        let live = LIVE.fetch_add(more_bytes, Ordering::Relaxed) + more_bytes;
        PEAK.fetch_max(live, Ordering::Relaxed);
    }
}

// SAFETY: every method passes its arguments on to `System`, which keeps the contract; counting
// neither allocates nor unwinds.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as i64);
        // SAFETY: the caller's promise is the one that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as i64);
        // SAFETY: the caller's promise is the one that `System` asks for.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note(1, new_size as i64 - layout.size() as i64);
        // SAFETY: the block is one of `System`'s, as all blocks given out here are.
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        note(0, -(layout.size() as i64));
        // SAFETY: the block is one of `System`'s, as all blocks given out here are.
        unsafe { System.dealloc(block, layout) }
    }
}
