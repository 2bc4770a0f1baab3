//! Before 5.17 there is no `bpf_loop`, which the parser of plaintext goes by: flows inside TLS stay flows of
//! records there.

use watchdog_common::layout::FlowSlot;

/// A flow's socket is read or written; nobody asks.
///
/// # Safety
/// Always safe; as its counterpart is called.
#[inline(always)]
pub const unsafe fn touches(_slot: *mut FlowSlot) {}

/// Whether the calls of a flow are not seen any more: they never were.
///
/// # Safety
/// As above.
#[inline(always)]
pub const unsafe fn is_over(_slot: *mut FlowSlot, _requests: bool, _now_ns: u64) -> bool {
    true
}
