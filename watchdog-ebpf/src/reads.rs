//! Reads: how far the application has read, when, and which thread.
//!
//! Hook: tp_btf `tcp_rcv_space_adjust` (≥ 4.16), which fires under the socket's lock after recv,
//! readv, recvmsg, splice and io_uring, with `copied_seq` moved already; also for MSG_PEEK, where
//! it has not moved. Writes `reads` and the owner.

use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::BtfTracePointContext};
use watchdog_common::layout::{Direction, FlowSlot, ROLE_HOLDER};

use crate::{
    offsets::{self, TCP_COPIED_SEQ, TCP_SRTT},
    plaintext, sockets, sync,
};

/// The application has read.
#[inline(always)]
pub fn read(ctx: &BtfTracePointContext) {
    let sk: *const u8 = ctx.arg(0);
    // SAFETY: the tracepoint's argument is a struct sock.
    unsafe {
        if let Some((slot, tcp)) = sockets::watched(sk) {
            plaintext::touches(slot);
            let srtt_us = offsets::load::<u32>(tcp, &TCP_SRTT) >> 3;
            advanced(slot, offsets::load(tcp, &TCP_COPIED_SEQ), srtt_us);
        }
    }
}

/// # Safety
/// `slot` is a flow slot; runs in the reading thread.
#[inline(always)]
unsafe fn advanced(slot: *mut FlowSlot, copied: u32, srtt_us: u32) {
    // SAFETY: by contract; the arrival fields may be written meanwhile, each is one word.
    unsafe {
        let reads = &raw mut (*slot).reads;
        if copied == (*reads).read_seq {
            return;
        }
        let arrivals: *const Direction = if (*slot).role == ROLE_HOLDER {
            &raw const (*slot).replies
        } else {
            &raw const (*slot).requests
        };
        let newest_end = (&raw const (*arrivals).newest_end_seq).read_volatile();
        let unread_end = (&raw const (*arrivals).unread_end_seq).read_volatile();
        let unread_at = (&raw const (*arrivals).unread_at_ns).read_volatile();
        let past_oldest =
            copied.wrapping_sub(unread_end) as i32 >= 0 && (*reads).credited_seq != unread_end;
        let past_newest = copied.wrapping_sub(newest_end) as i32 >= 0;
        if !sync::lock(&raw mut (*reads).version) {
            return;
        }
        (*reads).read_seq = copied;
        (*reads).srtt_us = srtt_us;
        if past_oldest || past_newest {
            let now = bpf_ktime_get_ns();
            (*reads).read_ns = now;
            if past_oldest {
                (*reads).credited_seq = unread_end;
                (*reads).wait_ns = now.saturating_sub(unread_at);
                (*reads).reads += 1;
            }
            sockets::served(slot, &raw mut (*reads).threads, &raw mut (*reads).servers);
        }
        sync::unlock(&raw mut (*reads).version);
    }
}
