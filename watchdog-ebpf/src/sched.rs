//! The scheduler: what each watched thread does now, and since when.
//!
//! Hooks: tp_btf `sched_switch` and `sched_wakeup`. The state of the thread that leaves is the
//! fourth argument (≥ 5.18), else read from the thread itself.
//! Writes the thread's slot, and histograms of waits that are over. An unwatched thread costs two
//! direct loads and two bit tests.

use aya_ebpf::{
    helpers::{bpf_ktime_get_ns, generated::bpf_get_current_comm},
    programs::BtfTracePointContext,
};
use watchdog_common::layout::{
    THREAD_DEAD, THREAD_FROZEN, THREAD_RUNNABLE, THREAD_RUNNING, THREAD_SLEEPING, THREAD_STOPPED,
    THREAD_UNINTERRUPTIBLE, TID_LIMIT, ThreadBits, ThreadSlot,
};

use crate::{
    histogram,
    maps::{THREAD_BITS, THREAD_SLOTS, THREADS},
    offsets::{self, SWITCH_ARGUMENTS, TASK_PID, TASK_STATE, TASK_STATE_OLD},
    sync,
};

// Task states (include/linux/sched.h).
const TASK_UNINTERRUPTIBLE: u32 = 0x2;
const TASK_STOPPED: u32 = 0x4;
const TASK_TRACED: u32 = 0x8;
const EXIT_OR_DEAD: u32 = 0x10 | 0x20 | 0x80;
/// An uninterruptible sleep that does not count as load: a kernel thread's idling.
const TASK_NOLOAD: u32 = 0x400;
/// A frozen cgroup or a suspending system, from 6.1 on.
const TASK_FROZEN: u32 = 0x8000;
/// Threads rename themselves, seldom: the name is read again once in so many switches.
const NAME_EVERY: u64 = 64;

#[inline(always)]
fn watched(bits: *const ThreadBits, tid: u32) -> bool {
    if tid >= TID_LIMIT {
        return false;
    }
    // SAFETY: within the table.
    let word = unsafe {
        (&raw const (*bits).words)
            .cast::<u64>()
            .add((tid / 64) as usize)
            .read_volatile()
    };
    word & (1 << (tid % 64)) != 0
}

#[inline(always)]
fn slot_of(tid: u32) -> Option<*mut ThreadSlot> {
    // SAFETY: the value is copied out at once.
    let index = unsafe { *THREAD_SLOTS.get(tid)? };
    let slot = THREADS.get_ptr_mut(index)?;
    // SAFETY: one word of a map value.
    (unsafe { (*slot).tid } == tid).then_some(slot)
}

/// A CPU goes from one thread to another.
#[inline(always)]
pub fn switch(ctx: &BtfTracePointContext) {
    let Some(bits) = THREAD_BITS.get_ptr(0) else {
        return;
    };
    let prev: *const u8 = ctx.arg(1);
    let next: *const u8 = ctx.arg(2);
    // SAFETY: both arguments are task_structs.
    let (prev_tid, next_tid) = unsafe {
        (
            offsets::load::<u32>(prev, &TASK_PID),
            offsets::load::<u32>(next, &TASK_PID),
        )
    };
    // Branch on each: look-ups whose results are or-ed together are refused.
    if watched(bits, prev_tid) {
        leaves(ctx, prev_tid, next_tid);
    }
    if watched(bits, next_tid) {
        enters(next_tid);
    }
}

#[inline(always)]
fn leaves(ctx: &BtfTracePointContext, tid: u32, next_tid: u32) {
    let Some(slot) = slot_of(tid) else {
        return;
    };
    let preempted: u8 = ctx.arg(0);
    let task_state = state_of(ctx);
    // A kernel without preemption switches an interrupted thread with the flag at 0 and state 0.
    let state = if preempted != 0 || task_state == 0 {
        THREAD_RUNNABLE
    } else if task_state & EXIT_OR_DEAD != 0 {
        THREAD_DEAD
    } else if task_state & (TASK_STOPPED | TASK_TRACED) != 0 {
        THREAD_STOPPED
    } else if task_state & TASK_FROZEN != 0 {
        THREAD_FROZEN
    } else if task_state & TASK_UNINTERRUPTIBLE != 0 && task_state & TASK_NOLOAD == 0 {
        THREAD_UNINTERRUPTIBLE
    } else {
        THREAD_SLEEPING
    };
    // SAFETY: a map value, written under its lock.
    unsafe {
        if !sync::lock(&raw mut (*slot).version) {
            return;
        }
        let now = bpf_ktime_get_ns();
        if (*slot).state == THREAD_RUNNING && (*slot).since_ns != 0 {
            (*slot).ran_ns += now.saturating_sub((*slot).since_ns);
        }
        (*slot).state = state;
        (*slot).since_ns = now;
        (*slot).next_tid = next_tid;
        if (*slot).switches % NAME_EVERY <= 1 {
            // The thread that leaves is still the current one.
            bpf_get_current_comm((&raw mut (*slot).comm).cast(), 16);
        }
        sync::unlock(&raw mut (*slot).version);
    }
}

/// The state in which a thread leaves its CPU.
#[inline(always)]
fn state_of(ctx: &BtfTracePointContext) -> u32 {
    if offsets::takes(&SWITCH_ARGUMENTS, 4) {
        return ctx.arg(3);
    }
    // Another CPU may wake it between its own last look and this one: then it says runnable a
    // moment early, which the switch that follows makes true.
    let prev: *const u8 = ctx.arg(1);
    // SAFETY: the argument is a task_struct. The older field has 64 bits, of which the lower are
    // loaded: all states fit.
    unsafe {
        if offsets::has(&TASK_STATE) {
            offsets::load(prev, &TASK_STATE)
        } else {
            offsets::load(prev, &TASK_STATE_OLD)
        }
    }
}

#[inline(always)]
fn enters(tid: u32) {
    let Some(slot) = slot_of(tid) else {
        return;
    };
    // SAFETY: as above.
    unsafe {
        if !sync::lock(&raw mut (*slot).version) {
            return;
        }
        let now = bpf_ktime_get_ns();
        let (state, since_ns) = ((*slot).state, (*slot).since_ns);
        (*slot).state = THREAD_RUNNING;
        (*slot).since_ns = now;
        (*slot).switches += 1;
        sync::unlock(&raw mut (*slot).version);
        over(state, since_ns, now);
    }
}

/// Counts a wait in this state that has ended.
#[inline(always)]
fn over(state: u32, since_ns: u64, now: u64) {
    // What began before the thread was watched has no known length.
    if since_ns == 0 {
        return;
    }
    let took_ns = now.saturating_sub(since_ns);
    if state == THREAD_RUNNABLE {
        // SAFETY: a field of a map value.
        histogram::count(|waits| unsafe { &raw mut (*waits).runqueue }, took_ns);
    } else if state == THREAD_UNINTERRUPTIBLE {
        // SAFETY: as above.
        histogram::count(|waits| unsafe { &raw mut (*waits).blocked }, took_ns);
    }
}

/// A thread becomes runnable.
#[inline(always)]
pub fn wakeup(ctx: &BtfTracePointContext) {
    let Some(bits) = THREAD_BITS.get_ptr(0) else {
        return;
    };
    let task: *const u8 = ctx.arg(0);
    // SAFETY: the argument is a task_struct.
    let tid = unsafe { offsets::load::<u32>(task, &TASK_PID) };
    if !watched(bits, tid) {
        return;
    }
    let Some(slot) = slot_of(tid) else {
        return;
    };
    // SAFETY: as above.
    unsafe {
        if (*slot).state == THREAD_RUNNING || (*slot).state == THREAD_RUNNABLE {
            // Woken before it had gone to sleep.
            return;
        }
        if !sync::lock(&raw mut (*slot).version) {
            return;
        }
        let now = bpf_ktime_get_ns();
        let (state, since_ns) = ((*slot).state, (*slot).since_ns);
        (*slot).state = THREAD_RUNNABLE;
        (*slot).since_ns = now;
        sync::unlock(&raw mut (*slot).version);
        over(state, since_ns, now);
    }
}
