//! An allocator that counts, for a test that states how many allocations a record costs.
//!
//! A number does not depend on the machine, so it can be asserted where a time cannot. Counted is
//! every call that asks for memory (`alloc`, `alloc_zeroed`, `realloc`) on threads that did not
//! take themselves out.

// An allocator cannot be written without `unsafe`; all calls go on to the system's unchanged.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

static COUNT: AtomicU64 = AtomicU64::new(0);

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

/// Takes the allocations of this thread out of the count: it is part of the test, not of what is
/// tested.
pub fn exclude_this_thread() {
    IS_COUNTED.with(|counted| counted.set(false));
}

fn note() {
    // A thread that is ending no longer has the flag; what it allocates then counts.
    if IS_COUNTED.try_with(Cell::get).unwrap_or(true) {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every method passes its arguments on to `System`, which keeps the contract; counting
// neither allocates nor unwinds.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise is the one that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise is the one that `System` asks for.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note();
        // SAFETY: the block is one of `System`'s, as all blocks given out here are.
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is one of `System`'s, as all blocks given out here are.
        unsafe { System.dealloc(block, layout) }
    }
}
