//! What one watched thread has been doing, and whether all that serve a flow stand still.
//!
//! In: once a tick, the thread's state as the scheduler last left it. Out: a [`Stall`] if the thread
//! makes no progress. Never: a stall from a state that is not known; an allocation.
//!
//! Stopped, frozen and uninterruptible are stalls from their first moment (whoever asks decides how
//! long is long). Starved is a verdict over the last [`STARVATION_WINDOW_NS`]: wanting a CPU for most
//! of it, having had one for less than a twentieth.

use super::observation::{Comm, Stall, StallKind};
use crate::time::{MS, Mono};

/// State of a thread as the scheduler last left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ThreadState {
    /// On a CPU.
    Running,
    /// Wants a CPU.
    Runnable,
    /// Waits for something and can be woken.
    Sleeping,
    /// Waits and cannot be woken (state D).
    Uninterruptible,
    /// Signal-stopped or traced.
    Stopped,
    /// Its cgroup is frozen.
    Frozen,
    /// Gone.
    Dead,
    /// Not known.
    Unknown,
}

/// Span over which starvation is judged, anew with every sample: long against a scheduler's slice,
/// short against a timeout; and so much shorter than `hard_stall` (1 s) that the question why can be
/// asked and answered before the stall has lasted long enough to be told.
pub const STARVATION_WINDOW_NS: u64 = 700 * MS;
/// Below this share of the window on a CPU (one twentieth) a thread that wants to run is starved.
const STARVED_SHARE: u64 = 20;
/// And it must be known to have waited for a CPU for this part of the window (one fifth). A sample
/// only tells of the wait that is going on, so under a tick longer than the waits much of what a
/// starved thread waited stays unknown; one that sleeps and just wakes in step with the tick is
/// known to have waited for a hundredth.
const WAITED_SHARE: u64 = 5;
/// Samples kept. The window at a tick of 50 ms needs 15; at faster ticks some are skipped.
const SAMPLES: usize = 18;
/// Samples closer together than this are not kept, so that the ring always covers the window.
const SAMPLE_EVERY_NS: u64 = 45 * MS;

#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    at: Mono,
    ran_total_ns: u64,
    /// Time known to have been spent wanting a CPU, summed since the thread was first seen.
    waited_total_ns: u64,
    wants_cpu: bool,
}

/// The last window of one thread.
#[derive(Clone, Debug)]
pub struct ThreadHistory {
    tid: u32,
    comm: Comm,
    state: ThreadState,
    /// Since when the thread is in its state, or since when it was seen so.
    state_since: Mono,
    seen_at: Option<Mono>,
    waited_total_ns: u64,
    starved_since: Option<Mono>,
    samples: [Sample; SAMPLES],
    newest: usize,
    kept: usize,
}

impl ThreadHistory {
    /// A thread of which nothing is known yet.
    #[must_use]
    pub fn new(tid: u32, comm: Comm) -> Self {
        Self {
            tid,
            comm,
            state: ThreadState::Unknown,
            state_since: Mono(0),
            seen_at: None,
            waited_total_ns: 0,
            starved_since: None,
            samples: [Sample::default(); SAMPLES],
            newest: 0,
            kept: 0,
        }
    }

    /// Takes in the thread's state: since when it is in it (None: since before it was watched) and
    /// how long it has been on a CPU altogether.
    pub fn feed(&mut self, state: ThreadState, since: Option<Mono>, ran_total_ns: u64, now: Mono) {
        if self.seen_at.is_some_and(|seen_at| now < seen_at) {
            return;
        }
        let seen_since = if self.state == state {
            self.state_since
        } else {
            now
        };
        // A stamp of another CPU's clock may lie a little ahead.
        let state_since = since.map_or(seen_since, |since| since.min(now));
        if state == ThreadState::Runnable
            && let (Some(since), Some(seen_at)) = (since, self.seen_at)
        {
            self.waited_total_ns += now.since(since.max(seen_at));
        }
        self.state = state;
        self.state_since = state_since;
        self.seen_at = Some(now);
        let sample = Sample {
            at: now,
            ran_total_ns,
            waited_total_ns: self.waited_total_ns,
            wants_cpu: matches!(state, ThreadState::Runnable | ThreadState::Running),
        };
        self.judge_starvation(&sample);
        self.keep(sample);
    }

    fn keep(&mut self, sample: Sample) {
        if self.kept > 0 {
            if !sample.wants_cpu {
                // It slept: nothing before this moment can belong to a starvation.
                self.kept = 0;
            } else if sample.at.since(self.samples[self.newest].at) < SAMPLE_EVERY_NS {
                return;
            }
        }
        self.newest = (self.newest + 1) % SAMPLES;
        self.samples[self.newest] = sample;
        self.kept = (self.kept + 1).min(SAMPLES);
    }

    /// The newest kept sample that is at least a window old, all later ones wanting a CPU.
    fn window_start(&self, now: Mono) -> Option<Sample> {
        (0..self.kept)
            .map(|back| self.samples[(self.newest + SAMPLES - back) % SAMPLES])
            .find(|sample| now.since(sample.at) >= STARVATION_WINDOW_NS)
    }

    fn judge_starvation(&mut self, sample: &Sample) {
        if !sample.wants_cpu {
            self.starved_since = None;
            return;
        }
        let Some(start) = self.window_start(sample.at) else {
            return;
        };
        let window_ns = sample.at.since(start.at);
        let ran_ns = sample.ran_total_ns.saturating_sub(start.ran_total_ns);
        let waited_ns = sample.waited_total_ns.saturating_sub(start.waited_total_ns);
        let starved = ran_ns < window_ns / STARVED_SHARE && waited_ns >= window_ns / WAITED_SHARE;
        if !starved {
            self.starved_since = None;
        } else if self.starved_since.is_none() {
            self.starved_since = Some(start.at);
        }
    }

    /// The state last fed, and since when.
    #[must_use]
    pub const fn state(&self) -> (ThreadState, Mono) {
        (self.state, self.state_since)
    }

    /// The thread's stall, if it makes no progress now.
    #[must_use]
    pub fn stall(&self) -> Option<Stall> {
        let (kind, since) = match self.state {
            ThreadState::Stopped => (StallKind::Stopped, self.state_since),
            ThreadState::Frozen => (StallKind::Frozen, self.state_since),
            ThreadState::Uninterruptible => (StallKind::Uninterruptible, self.state_since),
            ThreadState::Runnable | ThreadState::Running => {
                (StallKind::Starved, self.starved_since?)
            }
            ThreadState::Sleeping | ThreadState::Dead | ThreadState::Unknown => return None,
        };
        Some(Stall {
            since,
            kind,
            tid: self.tid,
            comm: self.comm,
        })
    }
}

/// The stall of a flow, from the stalls of all threads that served its last renewals: the one that
/// began last, or none if any of them makes progress, is not known, or there is no thread at all.
pub fn flow_stall(threads: impl IntoIterator<Item = Option<Stall>>) -> Option<Stall> {
    let mut latest: Option<Stall> = None;
    for stall in threads {
        let stall = stall?;
        if latest.is_none_or(|latest| stall.since > latest.since) {
            latest = Some(stall);
        }
    }
    latest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::ms;

    const COMM: Comm = *b"meta\0\0\0\0\0\0\0\0\0\0\0\0";

    #[test]
    fn a_stop_is_a_stall_from_its_first_moment() {
        let mut thread = ThreadHistory::new(7, COMM);
        thread.feed(ThreadState::Sleeping, Some(Mono(ms(5))), 0, Mono(ms(50)));
        assert_eq!(thread.stall(), None);
        thread.feed(ThreadState::Stopped, Some(Mono(ms(60))), 0, Mono(ms(100)));
        let stall = thread.stall().unwrap();
        assert_eq!(
            (stall.since, stall.kind),
            (Mono(ms(60)), StallKind::Stopped)
        );
    }

    #[test]
    fn without_a_stamp_a_state_counts_from_when_it_was_seen() {
        let mut thread = ThreadHistory::new(7, COMM);
        thread.feed(ThreadState::Uninterruptible, None, 0, Mono(ms(100)));
        thread.feed(ThreadState::Uninterruptible, None, 0, Mono(ms(200)));
        assert_eq!(thread.stall().unwrap().since, Mono(ms(100)));
        thread.feed(ThreadState::Unknown, None, 0, Mono(ms(300)));
        assert_eq!(thread.stall(), None);
    }

    /// Wants a CPU from 0 on and gets 2 ms of it in every 100 ms: starved once a second has been seen.
    #[test]
    fn starved_after_a_window_with_hardly_any_cpu() {
        for tick in [50, 100] {
            let mut thread = ThreadHistory::new(7, COMM);
            let mut found = None;
            for at in (0..3_000).step_by(tick) {
                let slice = if at < 30 {
                    0
                } else {
                    (at - 30) / 100 * 100 + 30
                };
                let now = Mono(ms(at as u64));
                let ran = ms(2 * (at as u64 / 100));
                thread.feed(
                    ThreadState::Runnable,
                    Some(Mono(ms(slice as u64))),
                    ran,
                    now,
                );
                if found.is_none() {
                    found = thread.stall().map(|stall| (now, stall));
                }
            }
            let (now, stall) = found.unwrap();
            let window = Mono(STARVATION_WINDOW_NS);
            assert!(now >= window && now <= window.plus(ms(200)), "{now:?}");
            assert_eq!(stall.since, Mono(0));
            assert_eq!(thread.stall().unwrap().since, Mono(0), "does not slide");
        }
    }

    #[test]
    fn a_fair_share_is_no_starvation() {
        let mut thread = ThreadHistory::new(7, COMM);
        for tick in 0..100_u64 {
            let now = Mono(ms(50 * tick));
            thread.feed(
                ThreadState::Runnable,
                Some(now.minus(ms(20))),
                ms(5 * tick),
                now,
            );
            assert_eq!(thread.stall(), None);
        }
    }

    #[test]
    fn waking_in_step_with_the_tick_is_no_starvation() {
        let mut thread = ThreadHistory::new(7, COMM);
        for tick in 0..100_u64 {
            let now = Mono(ms(50 * tick));
            thread.feed(ThreadState::Runnable, Some(now.minus(ms(1))), ms(tick), now);
            assert_eq!(thread.stall(), None);
        }
    }

    #[test]
    fn backward_time_is_survived() {
        let mut thread = ThreadHistory::new(7, COMM);
        thread.feed(ThreadState::Stopped, Some(Mono(90)), 5, Mono(100));
        thread.feed(ThreadState::Running, Some(Mono(40)), 1, Mono(50));
        assert_eq!(thread.stall().unwrap().since, Mono(90));
    }

    #[test]
    fn a_flow_stalls_with_the_last_of_its_threads() {
        let stall = |since| {
            Some(Stall {
                since: Mono(since),
                kind: StallKind::Stopped,
                tid: 1,
                comm: COMM,
            })
        };
        assert_eq!(flow_stall([]), None);
        assert_eq!(flow_stall([stall(3), None]), None);
        assert_eq!(
            flow_stall([stall(3), stall(9), stall(5)]).unwrap().since,
            Mono(9)
        );
    }
}
