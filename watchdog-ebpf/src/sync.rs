//! The version word: lock among writers, and for readers the sign of a torn copy.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

/// Tries before a writer gives up. The other writer holds it for a microsecond.
const TRIES: u32 = 24;

/// Takes the lock; false if somebody else kept it for all the tries.
#[inline(always)]
pub fn lock(version: *mut u32) -> bool {
    for _ in 0..TRIES {
        // SAFETY: callers pass a version word inside a map value.
        let seen = unsafe { core::ptr::read_volatile(version) };
        if seen & 1 != 0 {
            continue;
        }
        // SAFETY: as above. SeqCst: with Relaxed the compiler drops the fetched value.
        let (_, taken) = unsafe {
            atomic_cxchg::<u32, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                version,
                seen,
                seen.wrapping_add(1),
            )
        };
        if taken {
            return true;
        }
    }
    false
}

/// Writes a word if it is still what it was.
#[inline(always)]
pub fn exchange(word: *mut u32, was: u32, is: u32) {
    // SAFETY: callers pass an aligned word inside a map value.
    unsafe {
        atomic_cxchg::<u32, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, was, is)
    };
}

/// Gives the lock back; what was written is whole from here on.
#[inline(always)]
pub fn unlock(version: *mut u32) {
    // SAFETY: as above; a full barrier on every architecture.
    unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(version, 1) };
}

/// Adds to a counter that several CPUs write.
#[inline(always)]
pub fn add(counter: *mut u64, by: u64) {
    // SAFETY: callers pass an aligned word inside a map value.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(counter, by) };
}
