//! What is inside TLS, taken where a program hands its plaintext to its TLS library, or is handed it.
//!
//! Hooks: uprobes on OpenSSL's SSL_write, SSL_write_ex, SSL_read, SSL_read_ex and SSL_free, and the returns
//! of the first four, in processes that the daemon chose. Which flow a stream is of is learned from the
//! socket that its thread reads or writes during a call: `SSL` objects say it nowhere that can be had
//! without their layout. A stream that is moved by other calls than these (memory BIOs, which asyncio and
//! Node use) never meets a socket, and its flow stays one of records. Writes the slot's two directions.
//!
//! All of it may be preempted, other than what runs in packets: a thread that stands still in the middle
//! keeps its direction's version odd, and the daemon goes on with what it saw before.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid, bpf_ktime_get_ns,
        generated::{bpf_loop, bpf_probe_read_user},
    },
    programs::{ProbeContext, RetProbeContext},
};
use watchdog_common::{
    flow::{Turns, direction},
    frames,
    layout::{
        EntryShape, FlowSlot, ORIGIN_START, PROTOCOL_TLS, PROTOCOL_ZOOKEEPER, ROLE_HOLDER, SlotRef,
        TlsCall, TlsStream,
    },
    plaintext::{self, Beginning},
    stream::Payload,
    zookeeper,
};

use crate::{
    maps::{self, TLS_CALLS, TLS_PROCESSES, TLS_STREAMS},
    sockets, sync,
};

/// As for packets: twice the frames that a call may hold.
const MAX_TURNS: u32 = 1 << 15;
/// So long a busy stream is waited for.
const PATIENCE_NS: u64 = 30_000_000_000;
/// Nothing longer is given or taken in one call.
const LONGEST: u64 = 1 << 26;

/// A thread hands plaintext to its library, or asks for some. `tells_apart`: the library puts the number of
/// bytes where the fourth argument says, instead of returning it.
#[inline(always)]
pub fn called(ctx: &ProbeContext, outgoing: bool, tells_apart: bool) {
    let id = bpf_get_current_pid_tgid();
    let process = (id >> 32) as u32;
    let Some(process) = TLS_PROCESSES.get_ptr_mut(process) else {
        return;
    };
    // SAFETY: a map value.
    sync::add(unsafe { &raw mut (*process).calls }, 1);
    let (Some(ssl), Some(buffer)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1)) else {
        return;
    };
    let done = if tells_apart {
        ctx.arg::<u64>(3).unwrap_or(0)
    } else {
        0
    };
    let call = TlsCall {
        ssl,
        buffer,
        done,
        // SAFETY: has no preconditions.
        begun_ns: unsafe { bpf_ktime_get_ns() },
        outgoing: outgoing.into(),
        ..TlsCall::default()
    };
    if TLS_CALLS.insert(id, call, 0).is_err() {
        // Its bytes will be missing. If its flow is known, say so to its parser.
        // SAFETY: a field of a map value.
        maps::lose(|losses| unsafe { &raw mut (*losses).calls });
        let stream = TlsStream {
            ssl,
            pid: (id >> 32) as u32,
            pad: 0,
        };
        lost(stream, outgoing);
    }
}

/// A call of a known stream could not be followed.
#[inline(always)]
fn lost(stream: TlsStream, outgoing: bool) {
    let Some(at) = TLS_STREAMS.get_ptr(stream) else {
        return;
    };
    // SAFETY: a map value.
    let Some(slot) = sockets::slot_at(unsafe { *at }) else {
        return;
    };
    // SAFETY: a flow slot; the direction is locked in between.
    unsafe {
        if (*slot).protocol == PROTOCOL_TLS {
            return;
        }
        let requests = ((*slot).role == ROLE_HOLDER) == outgoing;
        let dir = direction(slot, requests);
        if sync::lock(&raw mut (*dir).version) {
            plaintext::missed(slot, requests, bpf_ktime_get_ns());
            sync::unlock(&raw mut (*dir).version);
        }
    }
}

/// The current thread has read or written a flow's socket: if it does so for its TLS library, the stream
/// is that flow's.
///
/// # Safety
/// `slot` is the flow's slot; runs in the thread that reads or writes.
#[inline(always)]
pub unsafe fn touches(slot: *mut FlowSlot) {
    // SAFETY: by contract.
    if unsafe { (*slot).protocol } != PROTOCOL_TLS {
        return;
    }
    let id = bpf_get_current_pid_tgid();
    if let Some(call) = TLS_CALLS.get_ptr_mut(id) {
        // SAFETY: a map value, of which only this thread's programs know.
        unsafe {
            (*call).flow = SlotRef {
                index: (*slot).index,
                generation: (*slot).generation,
            };
            (*call).has_flow = 1;
        }
    }
}

/// A stream's `SSL` is given back: another may get its address.
#[inline(always)]
pub fn freed(ctx: &ProbeContext) {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if let Some(ssl) = ctx.arg::<u64>(0) {
        let stream = TlsStream { ssl, pid, pad: 0 };
        // Most are of no flow that is followed.
        let _ = TLS_STREAMS.remove(stream);
    }
}

/// A call returns.
#[inline(always)]
pub fn returned(ctx: &RetProbeContext) {
    let id = bpf_get_current_pid_tgid();
    let pid = (id >> 32) as u32;
    let Some(at) = TLS_CALLS.get_ptr(id) else {
        return;
    };
    // SAFETY: a map value, of which only this thread's programs know.
    let call = unsafe { *at };
    let _ = TLS_CALLS.remove(id);
    let result = ctx.ret::<u64>() as i32;
    let mut len = u64::from(result.max(0) as u32);
    if call.done != 0 {
        len = 0;
        if result == 1 {
            // SAFETY: the helper checks what it reads.
            unsafe {
                bpf_probe_read_user((&raw mut len).cast(), 8, call.done as *const c_void);
            }
        }
    }
    if len == 0 || len > LONGEST {
        return;
    }
    let stream = TlsStream {
        ssl: call.ssl,
        pid,
        pad: 0,
    };
    let flow = if call.has_flow != 0 {
        // Without room the next call learns it again; one that touches no socket is then missed.
        if TLS_STREAMS.insert(stream, call.flow, 0).is_err() {
            // SAFETY: a field of a map value.
            maps::lose(|losses| unsafe { &raw mut (*losses).calls });
            return;
        }
        call.flow
    } else {
        let Some(known) = TLS_STREAMS.get_ptr(stream) else {
            return;
        };
        // SAFETY: a map value.
        unsafe { *known }
    };
    if let Some(slot) = sockets::slot_at(flow) {
        // SAFETY: a flow slot.
        unsafe { told(slot, pid, &call, len as u32) };
    }
}

/// Plaintext of a flow.
///
/// # Safety
/// `slot` is a flow slot.
#[inline(always)]
unsafe fn told(slot: *mut FlowSlot, pid: u32, call: &TlsCall, len: u32) {
    // SAFETY: by contract; of what is not locked single words are read.
    unsafe {
        let outgoing = call.outgoing != 0;
        let requests = ((*slot).role == ROLE_HOLDER) == outgoing;
        let Some(shape) = maps::inside((*slot).entry) else {
            return;
        };
        let is_first = (*slot).protocol == PROTOCOL_TLS;
        // A reply before that answers what was not seen.
        if is_first && (!requests || !reveal(slot, pid, (*shape).protocol, call.begun_ns)) {
            return;
        }
        let (end_seq, now_ns) = if outgoing {
            let end_seq = if (*slot).writes.writes == 0 {
                // Without the write hook (before 6.3): most has left by now.
                (&raw const (*direction(slot, requests)).edge_seq).read_volatile()
            } else {
                (&raw const (*slot).writes.write_seq).read_volatile()
            };
            (end_seq, call.begun_ns)
        } else {
            let read_seq = (&raw const (*slot).reads.read_seq).read_volatile();
            let dir = direction(slot, requests);
            let arrived_ns = (&raw const (*dir).arrived_ns).read_volatile();
            // What came before the flow was known to be of calls: it has come by now.
            let at_ns = if arrived_ns == 0 {
                bpf_ktime_get_ns()
            } else {
                arrived_ns
            };
            (read_seq, at_ns)
        };
        let turn = Turn {
            slot,
            buffer: call.buffer,
            now_ns,
            seq: end_seq.wrapping_sub(len),
            shape,
        };
        if requests {
            feed::<true>(turn, end_seq, len, is_first);
        } else {
            feed::<false>(turn, end_seq, len, false);
        }
    }
}

/// The flow's plaintext is had from here on, and the requests are left locked, so that nobody sees the flow
/// before its first request is told; false: not yet, its records go on to be followed.
///
/// # Safety
/// `slot` is a flow slot.
#[inline(always)]
unsafe fn reveal(slot: *mut FlowSlot, pid: u32, protocol: u8, begun_ns: u64) -> bool {
    // SAFETY: by contract.
    unsafe {
        let Some(process) = TLS_PROCESSES.get_ptr(pid) else {
            return false;
        };
        let since_ns = (*process).since_ns;
        let now_ns = bpf_ktime_get_ns();
        // Else there may have been calls that nobody saw.
        let from = if (*slot).origin == ORIGIN_START && since_ns < (*slot).life.opened_ns {
            Beginning::First
        } else if plaintext::is_alone(slot, begun_ns) {
            Beginning::Frame
        } else if now_ns.saturating_sub(since_ns) > PATIENCE_NS {
            // It is never alone. Until a call shows where frames begin, nothing is seen of it.
            Beginning::Anywhere
        } else {
            return false;
        };
        if !sync::lock(&raw mut (*slot).requests.version) {
            return false;
        }
        let both = sync::lock(&raw mut (*slot).replies.version);
        if both {
            plaintext::begin(slot, protocol, from, now_ns);
            sync::unlock(&raw mut (*slot).replies.version);
        } else {
            sync::unlock(&raw mut (*slot).requests.version);
        }
        both
    }
}

/// Whether the calls of a flow are not seen any more: its process was left alone, or handed it to another,
/// which then has it now. The flow is one of records again. `requests`: the direction that the caller has locked.
///
/// # Safety
/// `slot` is a flow slot.
#[inline(always)]
pub unsafe fn is_over(slot: *mut FlowSlot, requests: bool, now_ns: u64) -> bool {
    // SAFETY: by contract.
    unsafe {
        if TLS_PROCESSES.get_ptr((*slot).owner).is_some() {
            return false;
        }
        let other = direction(slot, !requests);
        if !sync::lock(&raw mut (*other).version) {
            // The next packet will do.
            return false;
        }
        plaintext::end(slot, now_ns);
        sync::unlock(&raw mut (*other).version);
        true
    }
}

/// What the loop's body is given. Nothing in it changes while the loop runs.
struct Turn {
    slot: *mut FlowSlot,
    buffer: u64,
    now_ns: u64,
    seq: u32,
    shape: *const EntryShape,
}

/// Bytes of the process's memory.
struct User {
    buffer: u64,
}

impl Payload for User {
    #[inline(always)]
    unsafe fn copy(&self, offset: u32, dst: *mut u8, len: u32) -> bool {
        let from = self.buffer.wrapping_add(offset.into()) as *const c_void;
        // SAFETY: by the trait's contract; the helper checks what it reads.
        unsafe { bpf_probe_read_user(dst.cast(), len, from) == 0 }
    }
}

/// `is_locked`: the direction is, by the caller.
///
/// # Safety
/// `turn.slot` is a flow slot.
#[inline(always)]
unsafe fn feed<const REQUESTS: bool>(mut turn: Turn, end_seq: u32, len: u32, is_locked: bool) {
    // SAFETY: by contract.
    unsafe {
        let (slot, now_ns, shape) = (turn.slot, turn.now_ns, turn.shape);
        let payload = User {
            buffer: turn.buffer,
        };
        let dir = direction(slot, REQUESTS);
        if !is_locked && !sync::lock(&raw mut (*dir).version) {
            maps::lose(|losses| &raw mut (*losses).contended);
            return;
        }
        let mut turns = Loop::<REQUESTS>(&raw mut turn);
        plaintext::chunk(
            slot, REQUESTS, &*shape, end_seq, len, now_ns, &payload, &mut turns,
        );
        sync::unlock(&raw mut (*dir).version);
    }
}

/// Repeats the parser's turns with bpf_loop (≥ 5.17).
struct Loop<const REQUESTS: bool>(*mut Turn);

impl<const REQUESTS: bool> Turns for Loop<REQUESTS> {
    #[inline(always)]
    unsafe fn over_segment(&mut self, _slot: *mut FlowSlot, _seq: u32, _now_ns: u64) {
        // SAFETY: both bodies take a Turn.
        unsafe {
            let body = if (*(*self.0).shape).protocol == PROTOCOL_ZOOKEEPER {
                zookeepers::<REQUESTS> as *const () as *mut c_void
            } else {
                others::<REQUESTS> as *const () as *mut c_void
            };
            bpf_loop(MAX_TURNS, body, self.0.cast(), 0);
        }
    }

    // Chunks come in order: none is ever early.
    #[inline(always)]
    unsafe fn over_stash(&mut self, _slot: *mut FlowSlot, _seq: u32, _now_ns: u64) {}

    #[inline(always)]
    unsafe fn stash(&mut self, _dst: *mut u8, _len: u32) {}
}

extern "C" fn zookeepers<const REQUESTS: bool>(_index: u32, turn: *mut Turn) -> i64 {
    // SAFETY: called by bpf_loop with the Turn given to it, under the direction's lock.
    unsafe {
        let payload = User {
            buffer: (*turn).buffer,
        };
        let more = zookeeper::turn(
            (*turn).slot,
            REQUESTS,
            &payload,
            (*turn).seq,
            (*turn).now_ns,
        );
        i64::from(!more)
    }
}

extern "C" fn others<const REQUESTS: bool>(_index: u32, turn: *mut Turn) -> i64 {
    // SAFETY: as above.
    unsafe {
        let payload = User {
            buffer: (*turn).buffer,
        };
        let shape = &*(*turn).shape;
        let more = frames::turn(
            (*turn).slot,
            REQUESTS,
            shape,
            &payload,
            (*turn).seq,
            (*turn).now_ns,
        );
        i64::from(!more)
    }
}
