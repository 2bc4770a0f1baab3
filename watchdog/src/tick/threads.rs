//! The watched threads: learned from who reads and writes, looked at every tick.
//!
//! In: thread slots. Out: each thread's stall. A thread that has served no flow for a minute, or
//! has exited, is forgotten.

use std::collections::HashMap;

use watchdog_common::layout::{
    THREAD_DEAD, THREAD_FROZEN, THREAD_RUNNABLE, THREAD_RUNNING, THREAD_SLEEPING, THREAD_STOPPED,
    THREAD_UNINTERRUPTIBLE, THREADS, ThreadSlot,
};
use watchdog_model::{
    Mono,
    leases::{
        observation::Stall,
        threads::{ThreadHistory, ThreadState},
    },
    time::SECOND,
};

use super::flows::Servers;
use crate::kernel::state::{self, State};

/// A thread that served nothing for so long is no longer watched.
const FORGET_AFTER_NS: u64 = 120 * SECOND;
/// How often that is looked for.
const SWEEP_EVERY_NS: u64 = SECOND;

struct Watched {
    tid: u32,
    index: usize,
    history: ThreadHistory,
    stall: Option<Stall>,
    next_tid: u32,
    dead: bool,
    used_at: Mono,
}

/// All watched threads.
pub struct ThreadTable {
    watched: Vec<Watched>,
    by_tid: HashMap<u32, usize>,
    free: Vec<usize>,
    sweep_due: Mono,
    refused: u64,
}

impl Default for ThreadTable {
    fn default() -> Self {
        Self::new()
    }
}

impl ThreadTable {
    /// Room for as many threads as there are slots.
    #[must_use]
    pub fn new() -> Self {
        Self {
            watched: Vec::with_capacity(THREADS),
            by_tid: HashMap::with_capacity(THREADS * 2),
            free: (0..THREADS).rev().collect(),
            sweep_due: Mono(0),
            refused: 0,
        }
    }

    /// Takes in every thread's state; true if any stall began or ended.
    pub fn look(&mut self, state: &State, now: Mono) -> bool {
        let mut changed = false;
        for thread in &mut self.watched {
            let Some(slot) = state.threads.at(thread.index) else {
                continue;
            };
            // SAFETY: a slot in the mapping.
            let Some(slot) = (unsafe { state::copy(slot.cast_const()) }) else {
                continue;
            };
            if slot.tid != thread.tid {
                continue;
            }
            thread.dead = slot.state == THREAD_DEAD;
            thread.next_tid = slot.next_tid;
            let since = (slot.since_ns != 0).then_some(Mono(slot.since_ns));
            let running = match (slot.state, since) {
                (THREAD_RUNNING, Some(since)) => now.since(since),
                _ => 0,
            };
            thread
                .history
                .feed(thread_state(slot.state), since, slot.ran_ns + running, now);
            let stall = thread.history.stall().map(|stall| Stall {
                comm: slot.comm,
                ..stall
            });
            changed |= stall != thread.stall;
            thread.stall = stall;
        }
        changed
    }

    /// Starts watching those of a flow's threads that are not watched yet.
    pub fn learn(&mut self, state: &mut State, servers: Servers, now: Mono) {
        for tid in servers.into_iter().filter(|tid| *tid != 0) {
            if let Some(at) = self.by_tid.get(&tid) {
                self.watched[*at].used_at = now;
                continue;
            }
            let Some(index) = self.free.pop() else {
                self.refused += 1;
                continue;
            };
            if !state.watch_thread(tid, index, ThreadSlot::default()) {
                self.free.push(index);
                self.refused += 1;
                continue;
            }
            self.by_tid.insert(tid, self.watched.len());
            self.watched.push(Watched {
                tid,
                index,
                history: ThreadHistory::new(tid, [0; 16]),
                stall: None,
                next_tid: 0,
                dead: false,
                used_at: now,
            });
        }
    }

    /// The stall of a thread, if it is watched and has one.
    #[must_use]
    pub fn stall_of(&self, tid: u32) -> Option<Stall> {
        self.watched[*self.by_tid.get(&tid)?].stall
    }

    /// When each watched thread last changed its state, as the kernel has it now, ns.
    pub fn stamps(&self, state: &State) -> impl Iterator<Item = u64> {
        self.watched.iter().filter_map(|thread| {
            let slot = state.threads.at(thread.index)?;
            // SAFETY: a slot in the mapping; one word.
            Some(unsafe { (&raw const (*slot).since_ns).read_volatile() })
        })
    }

    /// The state of a thread as last looked at, if it is watched.
    #[must_use]
    pub fn state_of(&self, tid: u32) -> Option<ThreadState> {
        Some(self.watched[*self.by_tid.get(&tid)?].history.state().0)
    }

    /// Who took the CPU when a thread last left one; 0: not known.
    #[must_use]
    pub fn next_of(&self, tid: u32) -> u32 {
        self.by_tid
            .get(&tid)
            .map_or(0, |at| self.watched[*at].next_tid)
    }

    /// Forgets threads that are gone or serve nothing any more.
    pub fn sweep(&mut self, state: &mut State, now: Mono) {
        if now < self.sweep_due {
            return;
        }
        self.sweep_due = now.plus(SWEEP_EVERY_NS);
        let mut at = 0;
        while at < self.watched.len() {
            let thread = &self.watched[at];
            let idle = thread.stall.is_none() && now.since(thread.used_at) > FORGET_AFTER_NS;
            if !thread.dead && !idle {
                at += 1;
                continue;
            }
            state.unwatch_thread(thread.tid);
            self.free.push(thread.index);
            self.by_tid.remove(&thread.tid);
            self.watched.swap_remove(at);
            if let Some(moved) = self.watched.get(at) {
                self.by_tid.insert(moved.tid, at);
            }
        }
    }

    /// How many are watched.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.watched.len()
    }

    /// How many found no slot.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

fn thread_state(state: u32) -> ThreadState {
    match state {
        THREAD_RUNNING => ThreadState::Running,
        THREAD_RUNNABLE => ThreadState::Runnable,
        THREAD_SLEEPING => ThreadState::Sleeping,
        THREAD_UNINTERRUPTIBLE => ThreadState::Uninterruptible,
        THREAD_STOPPED => ThreadState::Stopped,
        THREAD_FROZEN => ThreadState::Frozen,
        THREAD_DEAD => ThreadState::Dead,
        _ => ThreadState::Unknown,
    }
}
