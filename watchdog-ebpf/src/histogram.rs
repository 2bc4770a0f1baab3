//! Durations in bins that double, as `watchdog_common::layout::BINS` says.

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use watchdog_common::layout::{BINS, Durations, WAIT_SHARDS, Waits};

use crate::{maps::WAITS, sync};

/// Counts a wait that is over, among those of its kind.
#[inline(always)]
pub fn count(kind: fn(*mut Waits) -> *mut Durations, took_ns: u64) {
    // SAFETY: no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(waits) = WAITS.get_ptr_mut(cpu & (WAIT_SHARDS as u32 - 1)) else {
        return;
    };
    let durations = kind(waits);
    // SAFETY: words of a map value.
    unsafe {
        sync::add(&raw mut (*durations).sum_ns, took_ns);
        bin((&raw mut (*durations).bins).cast(), took_ns);
    }
}

/// # Safety
/// `bins` are `BINS` words inside a map value.
#[inline(always)]
unsafe fn bin(bins: *mut u64, took_ns: u64) {
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
