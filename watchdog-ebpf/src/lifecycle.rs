//! Loss and end of a flow.
//!
//! Hooks: tp_btf `inet_sock_set_state`, `tcp_destroy_sock` and `tcp_retransmit_skb`. Gated by slot
//! and not by port: when an accepted socket closes, its port is already 0. Writes `life` and, at
//! the very end, the slot's state.
//!
//! The end is told twice because the kernel runs no program within itself on one CPU
//! (`bpf_trace_run`: a nested run is skipped and counted as missed): a packet that closes one
//! connection, handled in the middle of another's close, would leave its slot in use for ever.

use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::BtfTracePointContext};
use watchdog_common::layout::{
    CLOSE_EXIT, CLOSE_OWN, CLOSE_PEER_FIN, CLOSE_PEER_RESET, CLOSE_TIMEOUT, SLOT_DEAD,
};

use crate::{
    offsets::{self, SOCK_ERR, TASK_FLAGS},
    sockets,
};

/// TCP_ESTABLISHED, TCP_CLOSE, TCP_CLOSE_WAIT (include/net/tcp_states.h).
const ESTABLISHED: i32 = 1;
const CLOSE: i32 = 7;
const CLOSE_WAIT: i32 = 8;
/// ECONNRESET and EPIPE (what tcp_reset leaves in sk_err), ETIMEDOUT (tcp_write_err).
const ECONNRESET: i32 = 104;
const EPIPE: i32 = 32;
const ETIMEDOUT: i32 = 110;
/// PF_EXITING (include/linux/sched.h).
const EXITING: u32 = 4;

/// A TCP socket changes its state.
#[inline(always)]
pub fn state(ctx: &BtfTracePointContext) {
    let sk: *const u8 = ctx.arg(0);
    let old: i32 = ctx.arg(1);
    let new: i32 = ctx.arg(2);
    if old != ESTABLISHED && new != CLOSE {
        return;
    }
    // SAFETY: the tracepoint's argument is a struct sock.
    unsafe {
        let Some(slot) = sockets::slot_of(sockets::traced(sk)) else {
            return;
        };
        if old == ESTABLISHED {
            let how = if new == CLOSE_WAIT {
                CLOSE_PEER_FIN
            } else {
                broken(sk)
                    .filter(|_| new == CLOSE)
                    .unwrap_or_else(own_close)
            };
            if offsets::debug() {
                let (local, peer) = ((*slot).local_port, (*slot).peer_port);
                aya_log_ebpf::debug!(ctx, "flow {} > {} ends, how {}", local, peer, how);
            }
            (*slot).life.how = how;
            (*slot).life.closed_ns = bpf_ktime_get_ns();
        }
        if new == CLOSE {
            (&raw mut (*slot).state).write_volatile(SLOT_DEAD);
        }
    }
}

/// A TCP socket is gone; its slot too, if its last state was missed.
#[inline(always)]
pub fn destroyed(ctx: &BtfTracePointContext) {
    let sk: *const u8 = ctx.arg(0);
    // SAFETY: the tracepoint's argument is a struct sock.
    unsafe {
        let key = sockets::traced(sk);
        let Some(slot) = sockets::slot_of(key) else {
            sockets::gone(key);
            return;
        };
        if (*slot).life.closed_ns == 0 {
            (*slot).life.how = broken(sk).unwrap_or(CLOSE_OWN);
            (*slot).life.closed_ns = bpf_ktime_get_ns();
        }
        (&raw mut (*slot).state).write_volatile(SLOT_DEAD);
    }
}

/// How a connection was broken that neither side closed, by the socket's error.
///
/// # Safety
/// `sk` is a BTF pointer to a `struct sock`.
#[inline(always)]
unsafe fn broken(sk: *const u8) -> Option<u32> {
    // SAFETY: by contract.
    match unsafe { offsets::load::<i32>(sk, &SOCK_ERR) } {
        ECONNRESET | EPIPE => Some(CLOSE_PEER_RESET),
        ETIMEDOUT => Some(CLOSE_TIMEOUT),
        _ => None,
    }
}

/// Our side closes: because somebody called close, or because the process exits?
#[inline(always)]
fn own_close() -> u32 {
    // Both state changes of an own close run in the task that closes.
    if current_flags() & EXITING != 0 {
        CLOSE_EXIT
    } else {
        CLOSE_OWN
    }
}

/// The current task's flags.
#[cfg(not(feature = "old"))]
#[inline(always)]
fn current_flags() -> u32 {
    // SAFETY: the current task is always there.
    unsafe {
        let task = aya_ebpf::helpers::generated::bpf_get_current_task_btf();
        offsets::load(task.cast::<u8>().cast_const(), &TASK_FLAGS)
    }
}

/// The same before 5.11, where the verifier does not know what the current task is.
#[cfg(feature = "old")]
#[inline(always)]
fn current_flags() -> u32 {
    use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_probe_read_kernel};
    let mut flags = 0_u32;
    // SAFETY: a read that the helper makes safely, into four bytes.
    unsafe {
        let at = bpf_get_current_task() + u64::from(offsets::value(&TASK_FLAGS));
        bpf_probe_read_kernel((&raw mut flags).cast(), 4, at as *const core::ffi::c_void);
    }
    flags
}

/// TCP sends a segment again.
#[inline(always)]
pub fn retransmit(ctx: &BtfTracePointContext) {
    let sk: *const u8 = ctx.arg(0);
    // SAFETY: the tracepoint's argument is a struct sock.
    unsafe {
        let Some(slot) = sockets::slot_of(sockets::traced(sk)) else {
            return;
        };
        (*slot).life.retransmits = (*slot).life.retransmits.wrapping_add(1);
        (*slot).life.retransmit_ns = bpf_ktime_get_ns();
    }
}
