//! Journals: since when a commit is under way on each device, and how long commits take.
//!
//! Hooks: tp_btf `jbd2_start_commit`, `jbd2_end_commit`. One journal commits one transaction at a
//! time, so the device tells which. Writes the device's slot, and the histogram of all commits.

use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::BtfTracePointContext};
use watchdog_common::layout::DeviceSlot;

use crate::{
    devices, histogram,
    offsets::{self, DEVICE_NUMBER, JOURNAL_DEVICE},
    sync,
};

#[inline(always)]
fn slot_of(ctx: &BtfTracePointContext) -> Option<*mut DeviceSlot> {
    let journal: *const u8 = ctx.arg(0);
    // SAFETY: the argument is a journal_s, its j_fs_dev a block_device; the verifier knows both.
    let device: u32 = unsafe {
        let device: *const u8 = offsets::load(journal, &JOURNAL_DEVICE);
        offsets::load(device, &DEVICE_NUMBER)
    };
    devices::slot(device)
}

/// A journal begins to commit.
#[inline(always)]
pub fn start(ctx: &BtfTracePointContext) {
    let Some(slot) = slot_of(ctx) else {
        return;
    };
    // SAFETY: a word of a map value.
    unsafe { (&raw mut (*slot).commit_since_ns).write_volatile(bpf_ktime_get_ns()) };
}

/// A journal has committed.
#[inline(always)]
pub fn end(ctx: &BtfTracePointContext) {
    let Some(slot) = slot_of(ctx) else {
        return;
    };
    // SAFETY: words of a map value.
    unsafe {
        let since_ns = (&raw const (*slot).commit_since_ns).read_volatile();
        (&raw mut (*slot).commit_since_ns).write_volatile(0);
        if since_ns == 0 {
            return;
        }
        let took_ns = bpf_ktime_get_ns().saturating_sub(since_ns);
        sync::add(&raw mut (*slot).commits, 1);
        sync::add(&raw mut (*slot).commit_sum_ns, took_ns);
        histogram::count(|waits| &raw mut (*waits).commits, took_ns);
    }
}
