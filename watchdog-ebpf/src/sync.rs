//! The version word: lock among writers, and for readers the sign of a torn copy.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

/// Tries before a writer gives up. The other writer holds it for a microsecond.
const TRIES: u32 = 24;

#[cfg(feature = "old")]
pub use by_claim::{add, exchange, lock, unlock};
#[cfg(not(feature = "old"))]
pub use by_swap::{add, exchange, lock, unlock};

/// By compare-and-swap.
#[cfg(not(feature = "old"))]
mod by_swap {
    use core::intrinsics::atomic_cxchg;

    use super::{AtomicOrdering, TRIES, atomic_xadd};

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
            atomic_cxchg::<u32, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                word, was, is,
            )
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
}

/// By additions alone: before 5.12 a program cannot see what an atomic operation found.
///
/// Who wants the lock adds a claim and looks. Whoever sees no claim but its own has it: a claim that
/// comes later sees this one and is taken back. Two that come together may both see both, and both
/// try again. Bit 0 stays what readers know it as, and uses are counted from bit 16 up, where
/// what overflows is gone.
///
/// It wants additions that are barriers, as they are on x86. On processors with weaker order these
/// kernels are not supported.
#[cfg(feature = "old")]
mod by_claim {
    use super::{AtomicOrdering, TRIES, atomic_xadd};

    const WRITING: u32 = 1;
    const CLAIM: u32 = 2;
    const USE: u32 = 1 << 16;

    /// Takes the lock; false if somebody else kept it for all the tries.
    #[inline(always)]
    pub fn lock(version: *mut u32) -> bool {
        for _ in 0..TRIES {
            plus(version, CLAIM);
            // SAFETY: callers pass a version word inside a map value.
            let seen = unsafe { core::ptr::read_volatile(version) };
            if seen & (USE - 1) == CLAIM {
                plus(version, WRITING);
                return true;
            }
            plus(version, CLAIM.wrapping_neg());
        }
        false
    }

    /// Gives the lock back; what was written is whole from here on.
    #[inline(always)]
    pub fn unlock(version: *mut u32) {
        plus(version, USE - CLAIM - WRITING);
    }

    /// Writes a word if it is what it was a moment ago. Who writes in between is overruled, so it is
    /// for words that nobody else has found yet.
    #[inline(always)]
    pub fn exchange(word: *mut u32, was: u32, is: u32) {
        // SAFETY: callers pass an aligned word inside a map value.
        unsafe {
            if word.read_volatile() == was {
                word.write_volatile(is);
            }
        }
    }

    /// Adds to a counter that several CPUs write.
    #[inline(always)]
    pub fn add(counter: *mut u64, by: u64) {
        // Relaxed: what is found is not fetched.
        // SAFETY: callers pass an aligned word inside a map value.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, by) };
    }

    #[inline(always)]
    fn plus(word: *mut u32, by: u32) {
        // SAFETY: as above, and an instruction that is none but keeps the compiler from moving
        // others across it.
        unsafe {
            core::arch::asm!("", options(nostack));
            atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(word, by);
            core::arch::asm!("", options(nostack));
        }
    }
}
