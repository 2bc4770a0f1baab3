//! Writes: how far the application has written, when, and which thread.
//!
//! Hooks: tp_btf `sock_send_length` (≥ 6.3), else fexit `tcp_sendmsg`; both fire in the writing
//! thread after the bytes were taken. (The second does not see sendfile before 6.5.) With an open window the packet is seen before it, with a shut one after: both
//! orders must work, so this only compares how far was written with how far was sent. Never from
//! egress: there the current thread is chance. Writes `writes` and the owner.

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    programs::{BtfTracePointContext, FExitContext},
};
use watchdog_common::layout::FlowSlot;

use crate::{
    offsets::{self, TCP_WRITE_SEQ},
    plaintext, sockets, sync,
};

/// The application has written.
#[inline(always)]
pub fn write(ctx: &BtfTracePointContext) {
    let sk: *const u8 = ctx.arg(0);
    taken(sk, ctx.arg(1));
}

/// `tcp_sendmsg` returns.
#[inline(always)]
pub fn sent(ctx: &FExitContext) {
    // tcp_sendmsg(sk, msg, size), then what it returns.
    taken(ctx.arg(0), ctx.arg(3));
}

/// So many bytes were taken from the application, or an error was given to it.
#[inline(always)]
fn taken(sk: *const u8, bytes: i32) {
    if bytes <= 0 {
        return;
    }
    // SAFETY: the hook's argument is a struct sock.
    unsafe {
        if let Some((slot, tcp)) = sockets::watched(sk) {
            plaintext::touches(slot);
            advanced(slot, offsets::load(tcp, &TCP_WRITE_SEQ));
        }
    }
}

/// # Safety
/// `slot` is a flow slot; runs in the writing thread.
#[inline(always)]
unsafe fn advanced(slot: *mut FlowSlot, written: u32) {
    // SAFETY: by contract.
    unsafe {
        let writes = &raw mut (*slot).writes;
        let (sending, _) = sockets::directions(slot);
        let sent = (&raw const (*sending).edge_seq).read_volatile();
        if !sync::lock(&raw mut (*writes).version) {
            return;
        }
        let now = bpf_ktime_get_ns();
        let all_before_sent = sent.wrapping_sub((*writes).write_seq) as i32 >= 0;
        if all_before_sent || (*writes).unsent_at_ns == 0 {
            (*writes).unsent_at_ns = now;
        }
        (*writes).write_seq = written;
        (*writes).write_ns = now;
        (*writes).writes += 1;
        sockets::served(slot, &raw mut (*writes).threads, &raw mut (*writes).servers);
        sync::unlock(&raw mut (*writes).version);
    }
}
