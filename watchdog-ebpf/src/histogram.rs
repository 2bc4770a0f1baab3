//! Durations in bins that double, as `watchdog_common::layout::BINS` says.

use watchdog_common::layout::BINS;

use crate::sync;

/// Counts a duration in one of `BINS` words at `bins`.
///
/// # Safety
/// `bins` are those words, inside a map value.
#[inline(always)]
pub unsafe fn count(bins: *mut u64, took_ns: u64) {
    let mut left = took_ns / 1000;
    let mut bin = 0_usize;
    // Halving and not a count of leading zeros: the BPF target has no instruction for that.
    for step in [16, 8, 4, 2, 1] {
        if left >> step != 0 {
            left >>= step;
            bin += step;
        }
    }
    if left != 0 {
        bin += 1;
    }
    if bin >= BINS {
        bin = BINS - 1;
    }
    // SAFETY: by contract, and within the words.
    sync::add(unsafe { bins.add(bin) }, 1);
}
