//! How much time and memory an input may cost. In: allocations, the process' CPU time. Out: a panic where a case
//! took more than its target allows.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Counts what is allocated.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn more(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(live, Relaxed);
}

fn less(bytes: usize) {
    LIVE.fetch_sub(bytes, Relaxed);
}

// SAFETY: everything is the system's; only sizes are counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: as the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        less(layout.size());
        // SAFETY: as the caller's.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // While it is moved both are there.
        more(size);
        less(layout.size());
        // SAFETY: as the caller's.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// CPU time of the process, ms: what else runs on the machine does not count.
fn cpu_ms() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: one valid structure.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1000
        + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Runs a case of so many bytes.
///
/// # Panics
/// It takes more CPU time than `most_ms`, or more memory at once than `most_mib`.
pub fn within(most_ms: u64, most_mib: usize, case: impl FnOnce()) {
    let (before, began) = (LIVE.load(Relaxed), cpu_ms());
    PEAK.store(before, Relaxed);
    case();
    let took = cpu_ms() - began;
    let held = PEAK.load(Relaxed).saturating_sub(before) >> 20;
    assert!(
        took <= most_ms,
        "took {took} ms of CPU time, at most {most_ms}"
    );
    assert!(
        held <= most_mib,
        "held {held} MiB at once, at most {most_mib}"
    );
}
