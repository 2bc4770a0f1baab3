//! Block requests: what each disk has in flight, and when it last finished anything.
//!
//! Hooks: tp_btf `block_rq_issue`, `block_rq_complete`. Requests are known by their address: flushes
//! and requeued ones would make a mere counter drift. The disk is found through the request's
//! queue: most requests name no partition. Writes the disk's slot and the table of requests.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::programs::BtfTracePointContext;
use watchdog_common::layout::{DeviceSlot, RequestInFlight, device_number};

use crate::{
    devices,
    maps::{self, REQUESTS},
    offsets::{
        self, DISK_MAJOR, DISK_MINOR, ISSUE_ARGUMENTS, QUEUE_DISK, REQUEST_DISK, REQUEST_QUEUE,
    },
    sync,
};

/// BPF_ANY and BPF_NOEXIST (include/uapi/linux/bpf.h).
const ANY: u64 = 0;
const NO_EXIST: u64 = 1;
/// EEXIST: the request is known already.
const EXISTS: i32 = -17;

/// The number of the disk that a request is for; 0: it has none.
#[inline(always)]
fn disk_of(request: *const u8) -> u32 {
    // SAFETY: each pointer is of the kind that the offset belongs to, and the verifier knows it;
    // a null pointer reads as zeros.
    unsafe {
        let disk = if offsets::has(&QUEUE_DISK) {
            let queue: *const u8 = offsets::load(request, &REQUEST_QUEUE);
            offsets::load::<*const u8>(queue, &QUEUE_DISK)
        } else {
            offsets::load::<*const u8>(request, &REQUEST_DISK)
        };
        let major: u32 = offsets::load(disk, &DISK_MAJOR);
        let minor: u32 = offsets::load(disk, &DISK_MINOR);
        device_number(major, minor)
    }
}

/// A request is given to the driver.
#[inline(always)]
pub fn issue(ctx: &BtfTracePointContext) {
    // Before 5.11 the request's queue comes first.
    let request: *const u8 = if offsets::takes(&ISSUE_ARGUMENTS, 2) {
        ctx.arg(1)
    } else {
        ctx.arg(0)
    };
    let device = disk_of(request);
    if device == 0 {
        return;
    }
    let flight = RequestInFlight {
        // SAFETY: no preconditions.
        issued_ns: unsafe { bpf_ktime_get_ns() },
        device,
        pad: 0,
    };
    let key = request as u64;
    match REQUESTS.insert(key, flight, NO_EXIST) {
        Ok(()) => {}
        Err(EXISTS) => {
            // Given to the driver again, or another request where one was of which the end was
            // not seen: counted already.
            let _ = REQUESTS.insert(key, flight, ANY);
            return;
        }
        Err(_) => {
            // SAFETY: a field of a map value.
            maps::lose(|losses| unsafe { &raw mut (*losses).requests });
            return;
        }
    }
    let Some(slot) = devices::slot(device) else {
        return;
    };
    // SAFETY: words of a map value.
    unsafe {
        sync::add(&raw mut (*slot).issued, 1);
        (&raw mut (*slot).issued_ns).write_volatile(flight.issued_ns);
    }
}

/// The driver has finished a request, or a part of it.
#[inline(always)]
pub fn complete(ctx: &BtfTracePointContext) {
    let request: *const u8 = ctx.arg(0);
    let key = request as u64;
    // SAFETY: the value is copied out at once.
    let Some(device) = (unsafe { REQUESTS.get(key) }).map(|flight| flight.device) else {
        return;
    };
    if REQUESTS.remove(key).is_err() {
        return;
    }
    let Some(slot): Option<*mut DeviceSlot> = devices::slot(device) else {
        return;
    };
    // SAFETY: words of a map value.
    unsafe {
        sync::add(&raw mut (*slot).completed, 1);
        (&raw mut (*slot).completed_ns).write_volatile(bpf_ktime_get_ns());
    }
}
