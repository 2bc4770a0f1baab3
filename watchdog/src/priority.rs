//! Who of the daemon's threads runs before whom, and what keeps them from running others down.
//!
//! In: what a thread is for. Out: SCHED_FIFO where the kernel grants it; else nice −20 with the
//! shortest slice, which wakes up before others of its weight (6.12 and later); else nothing more.
//! Never: a thread in real time without a bound. A tick sleeps after each look, everything else
//! that runs in real time goes by a [`Pace`], and RLIMIT_RTTIME ends the process where both fail.
//!
//! An alert's way out: tick → dispatch and alerts' tasks (main) → event writer; with the causes from
//! the evidence threads. All of these are in real time, and no lock that they take is held by a
//! thread that is not: what goes to others goes by a [`relay`](crate::relay).

use std::io;
use std::time::Duration;

use serde::Serialize;
use watchdog_model::time::{MS, Mono};

/// The longest that a thread in real time may run without sleeping before the kernel warns it
/// (SIGXCPU) and then kills the process, microseconds.
const RUNAWAY_US: libc::rlim_t = 500_000;

/// The shortest slice that the fair scheduler takes (sched_setattr(2)), ns.
const SLICE_NS: u64 = 100_000;

/// SCHED_FLAG_RESET_ON_FORK (uapi/linux/sched.h): what it starts has no such nice value.
const RESET_ON_FORK: u64 = 1;

/// What a thread is for, the most urgent last; as SCHED_FIFO priorities 1 to 3, below every other
/// use of real time on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A hook's own process.
    Hook = 1,
    /// What stands on an alert's way out.
    Alert = 2,
    /// The tick.
    Tick = 3,
}

/// What the kernel grants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Granted {
    /// SCHED_FIFO.
    #[serde(rename = "real_time")]
    RealTime,
    /// Nice −20.
    #[serde(rename = "nice -20")]
    Nice,
    /// Nothing.
    #[default]
    #[serde(rename = "normal")]
    Normal,
}

/// What can be had, without keeping it.
#[must_use]
pub fn granted() -> Granted {
    std::thread::Builder::new()
        .stack_size(64 * 1024)
        .spawn(|| take(Priority::Tick))
        .ok()
        .and_then(|probe| probe.join().ok())
        .unwrap_or_default()
}

/// Gives the calling thread its place; threads and processes that it starts begin at the normal
/// one.
pub fn take(priority: Priority) -> Granted {
    place(priority, libc::SCHED_RESET_ON_FORK)
}

/// The same; threads that it starts have it too. For who starts hooks: one that began at the normal
/// priority would wait for its turn before it could be given another. [`as_hook`] and [`leave`] end
/// it.
pub fn take_with_children(priority: Priority) -> Granted {
    place(priority, 0)
}

fn place(priority: Priority, flags: libc::c_int) -> Granted {
    guard();
    if real_time(libc::SCHED_FIFO | flags, priority).is_ok() {
        Granted::RealTime
    } else if fair(-20, SLICE_NS, 0).is_ok() || nice(-20).is_ok() {
        Granted::Nice
    } else {
        Granted::Normal
    }
}

/// Makes the calling thread one like any other.
pub fn leave() {
    // A refusal leaves what there was, which was no more.
    let _ = fair(0, 0, 0).or_else(|_| nice(0));
}

/// In a hook's process, before its program begins: in real time, or as any program runs. What it
/// starts itself is never in real time. Only system calls, which take no lock and no memory.
pub fn as_hook(in_real_time: bool) {
    if in_real_time {
        guard();
        // By turns: hooks that compute do so in slices.
        let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
        let nice = || fair(-20, SLICE_NS, RESET_ON_FORK);
        if real_time(policy, Priority::Hook)
            .or_else(|_| nice())
            .is_ok()
        {
            return;
        }
    }
    let normal = libc::sched_param { sched_priority: 0 };
    // SAFETY: plain system calls on the calling thread; `normal` lives across the call. Where they
    // fail the hook runs at the priority it has, which is no reason not to run it.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const normal);
        libc::setpriority(libc::PRIO_PROCESS, 0, 0);
    }
}

/// Has the kernel end what runs away in real time.
fn guard() {
    let limit = libc::rlimit {
        rlim_cur: RUNAWAY_US,
        rlim_max: 2 * RUNAWAY_US,
    };
    // SAFETY: a valid structure. A refusal only means that nothing guards against a runaway.
    unsafe { libc::setrlimit(libc::RLIMIT_RTTIME, &raw const limit) };
}

fn real_time(policy: libc::c_int, priority: Priority) -> io::Result<()> {
    let priority = libc::sched_param {
        sched_priority: priority as libc::c_int,
    };
    // SAFETY: a valid structure; 0 is the calling thread.
    told(unsafe { libc::sched_setscheduler(0, policy, &raw const priority) }.into())
}

/// `struct sched_attr` as it began (sched_setattr(2), 3.14); kernels take it at this size.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// The fair scheduler, with a slice (ns; 0: the usual one; older kernels know none).
fn fair(nice: i32, slice_ns: u64, flags: u64) -> io::Result<()> {
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: libc::SCHED_OTHER.unsigned_abs(),
        flags,
        nice,
        priority: 0,
        runtime: slice_ns,
        deadline: 0,
        period: 0,
    };
    // SAFETY: a structure of the size that it names; 0 is the calling thread.
    told(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) })
}

fn nice(nice: i32) -> io::Result<()> {
    // SAFETY: takes integers; 0 is the calling thread.
    told(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }.into())
}

fn told(answer: libc::c_long) -> io::Result<()> {
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// CPU time of the calling thread, ns.
#[must_use]
pub fn cpu_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid place to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let part = |part: i64| u64::try_from(part).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

/// CPU time after which a thread sleeps, whatever there is to do: long before RLIMIT_RTTIME, and
/// short enough for others of its priority.
const PIECE_NS: u64 = 10 * MS;
/// CPU time in real time that a thread may save up: thousands of lines at once.
const SAVED_NS: u64 = 250 * MS;
/// It is earned at one part in so many of the time that passes.
const EARNED: u64 = 20;
/// How long a thread sleeps between two pieces: any real sleep gives the CPU away.
const REST: Duration = Duration::from_micros(100);

/// What to do after a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// More work.
    GoOn,
    /// A sleep.
    Rest,
    /// The budget is used up: a sleep, and more work as one among others.
    Lower,
    /// Before others again.
    Raise,
}

/// How much a thread may run before others: [`SAVED_NS`] at once, one part in [`EARNED`] for ever.
/// Beyond, it works on as one among them. So a storm is met at once, and a long one starves nobody.
#[derive(Clone, Copy, Debug)]
struct Budget {
    left_ns: u64,
    raised: bool,
    /// The CPU time and the moment of the last look.
    last: Option<(u64, Mono)>,
    /// The CPU time at the last rest.
    rested_ns: u64,
}

impl Budget {
    const FULL: Self = Self {
        left_ns: SAVED_NS,
        raised: true,
        last: None,
        rested_ns: 0,
    };

    fn look(&mut self, cpu_ns: u64, now: Mono) -> Step {
        let Some((last_ns, at)) = self.last.replace((cpu_ns, now)) else {
            self.rested_ns = cpu_ns;
            return Step::GoOn;
        };
        let earned = now.since(at) / EARNED;
        self.left_ns = self.left_ns.saturating_add(earned).min(SAVED_NS);
        if self.raised {
            self.left_ns = self.left_ns.saturating_sub(cpu_ns.saturating_sub(last_ns));
        }
        let step = match self.raised {
            true if self.left_ns == 0 => Step::Lower,
            false if self.left_ns >= SAVED_NS / 2 => Step::Raise,
            _ if cpu_ns.saturating_sub(self.rested_ns) >= PIECE_NS => Step::Rest,
            _ => return Step::GoOn,
        };
        self.raised = self.left_ns > 0 && (self.raised || step == Step::Raise);
        self.rested_ns = cpu_ns;
        step
    }
}

/// A thread's own bound on its running before others.
#[derive(Debug)]
pub struct Pace {
    budget: Budget,
    take: fn(Priority) -> Granted,
}

impl Pace {
    /// Gives the calling thread its place, to be used by it alone.
    #[must_use]
    pub fn begin() -> Self {
        Self::with(take)
    }

    /// The same by [`take_with_children`].
    #[must_use]
    pub fn begin_with_children() -> Self {
        Self::with(take_with_children)
    }

    fn with(take: fn(Priority) -> Granted) -> Self {
        take(Priority::Alert);
        Self {
            budget: Budget::FULL,
            take,
        }
    }

    /// To be called between pieces of work, none of which takes milliseconds. Whether a sleep is
    /// due now.
    #[must_use]
    pub fn rest_is_due(&mut self) -> bool {
        match self.budget.look(cpu_ns(), crate::tick::clock()) {
            Step::GoOn => return false,
            Step::Rest => {}
            Step::Lower => {
                tracing::debug!("real time is used up; normal priority for a while");
                leave();
            }
            Step::Raise => {
                (self.take)(Priority::Alert);
            }
        }
        true
    }

    /// Sleeps if it is due.
    pub fn breathe(&mut self) {
        if self.rest_is_due() {
            let rest = libc::timespec {
                tv_sec: 0,
                tv_nsec: libc::c_long::from(REST.subsec_nanos() as i32),
            };
            // SAFETY: valid arguments; an early return only means a shorter sleep.
            unsafe { libc::nanosleep(&raw const rest, std::ptr::null_mut()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use watchdog_model::time::SECOND;

    /// Works through `span_ns`, looking after each `piece_ns` of CPU time; gives the CPU time spent
    /// in real time, and the longest that it ran so without a sleep.
    fn work(budget: &mut Budget, from: &mut (u64, u64), span_ns: u64, piece_ns: u64) -> (u64, u64) {
        let (mut in_real_time, mut run, mut longest) = (0, 0, 0);
        let until = from.1 + span_ns;
        while from.1 < until {
            from.0 += piece_ns;
            from.1 += piece_ns;
            if budget.raised {
                in_real_time += piece_ns;
                run += piece_ns;
                longest = longest.max(run);
            }
            if budget.look(from.0, Mono(from.1)) != Step::GoOn {
                run = 0;
            }
        }
        (in_real_time, longest)
    }

    #[test]
    fn a_storm_is_met_in_real_time_and_a_long_one_starves_nobody() {
        let mut budget = Budget::FULL;
        let mut at = (0, 0);
        assert_eq!(budget.look(0, Mono(0)), Step::GoOn);
        let (first, longest) = work(&mut budget, &mut at, 250 * MS, MS);
        assert_eq!(first, 250 * MS, "what was saved is there at once");
        assert!(longest <= PIECE_NS, "{longest}");
        // Whoever never stops has one part in twenty, and what was saved.
        let (long, longest) = work(&mut budget, &mut at, 100 * SECOND, MS);
        assert!(long <= 5 * SECOND + SAVED_NS, "{long}");
        assert!(long >= 4 * SECOND, "{long}");
        assert!(longest <= PIECE_NS, "{longest}");
        // Left in peace it is as it was.
        at.1 += 5 * SECOND;
        budget.look(at.0, Mono(at.1));
        assert_eq!((budget.raised, budget.left_ns), (true, SAVED_NS));
    }

    #[test]
    fn who_works_now_and_then_is_always_in_real_time() {
        let mut budget = Budget::FULL;
        let (mut cpu_ns, mut now) = (0, 0);
        for _ in 0..10_000 {
            cpu_ns += 2 * MS;
            now += 50 * MS;
            let step = budget.look(cpu_ns, Mono(now));
            assert!(matches!(step, Step::GoOn | Step::Rest), "{step:?}");
            assert!(budget.raised);
        }
    }

    #[test]
    fn a_thread_of_its_own_is_what_the_kernel_says_and_leaves_it_again() {
        let policy = || {
            // SAFETY: takes an integer; 0 is the calling thread.
            unsafe { libc::sched_getscheduler(0) & !libc::SCHED_RESET_ON_FORK }
        };
        std::thread::spawn(move || {
            let granted = take(Priority::Alert);
            let fifo = granted == Granted::RealTime;
            assert_eq!(policy() == libc::SCHED_FIFO, fifo, "{granted:?}");
            // Who may not have it is told, and a thread that it starts has none of it.
            let child = std::thread::spawn(policy).join().unwrap();
            assert_eq!(child, libc::SCHED_OTHER);
            take_with_children(Priority::Alert);
            let child = std::thread::spawn(policy).join().unwrap();
            assert_eq!(child == libc::SCHED_FIFO, fifo);
            leave();
            assert_eq!(policy(), libc::SCHED_OTHER);
        })
        .join()
        .unwrap();
    }
}
