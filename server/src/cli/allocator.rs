//! The allocator of the process.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::c_long;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The option `mi_option_arena_max_object_size` of mimalloc 3, in KiB.
const ARENA_MAX_OBJECT_SIZE: libmimalloc_sys::mi_option_t = 45;

/// Objects above this are got from the system, and given back to it as soon as they are freed.
const ARENA_OBJECT_KIB_MAX: c_long = 4 * 1024;

/// How often a thread looks for memory that others freed.
const COLLECT_EVERY: Duration = Duration::from_secs(1);

/// Gives large objects back to the system at once. Otherwise they stay with the process for a second,
/// and what many inflate one after the other is held several times.
pub(crate) fn keep_no_large_objects() {
    // SAFETY: It is not thread safe, and `main` calls it before there is another thread.
    unsafe { libmimalloc_sys::mi_option_set(ARENA_MAX_OBJECT_SIZE, ARENA_OBJECT_KIB_MAX) }
}

/// Called by a thread that goes to sleep: takes back what other threads freed of what it allocated,
/// once a second at most. Nobody else does it, and a thread that sleeps would keep it (40 to 60 MiB
/// after 80 MB of messages that waited).
pub(crate) fn collect() {
    thread_local!(static LAST: Cell<Option<Instant>> = const { Cell::new(None) });
    let now = Instant::now();
    let is_time = |last: Instant| now.duration_since(last) >= COLLECT_EVERY;
    if LAST.get().is_none_or(is_time) {
        LAST.set(Some(now));
        // SAFETY: It asks for nothing.
        unsafe { libmimalloc_sys::mi_collect(true) }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn resident_bytes() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
        pages.unwrap_or(0) * 4096
    }

    #[test]
    fn what_is_large_is_given_back_when_it_is_freed() {
        const LARGE: usize = 64 * 1024 * 1024;
        keep_no_large_objects();
        let before = resident_bytes();
        let large = std::hint::black_box(vec![1u8; LARGE]);
        assert!(resident_bytes() >= before + LARGE / 2);
        drop(large);
        assert!(resident_bytes() < before + LARGE / 2);
    }
}
