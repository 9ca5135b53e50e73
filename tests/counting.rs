//! An allocator that counts, for the tests that say `mod counting`. It is no part of their library,
//! which forbids unsafe code.

#![allow(dead_code, reason = "each test uses some of it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};

/// Counts what a thread has allocated, and the most of it at a time.
struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

static ALL: AtomicIsize = AtomicIsize::new(0);

fn count(bytes: isize) {
    ALL.fetch_add(bytes, Ordering::Relaxed);
    // A thread that ends frees after its variables are gone.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: everything is done by the system's allocator; counting touches no memory of it. A
// reallocation is the default: allocate, copy, free, so old and new are counted together.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What this thread has allocated by now, less what it freed.
pub(crate) fn live() -> isize {
    LIVE.get()
}

/// The same of all threads together.
pub(crate) fn live_of_all() -> isize {
    ALL.load(Ordering::Relaxed)
}

/// The most that `read` had allocated at a time.
pub(crate) fn allocated(read: impl FnOnce()) -> usize {
    let before = LIVE.get();
    PEAK.set(before);
    read();
    (PEAK.get() - before).cast_unsigned()
}
