//! Gives the tick its place: real-time priority, locked memory.
//!
//! What the kernel refuses is said, and the next best taken.

use std::io;

/// The longest that the tick may run without sleeping before the kernel warns it (SIGXCPU) and
/// then kills it, microseconds: a thousand times its usual run.
const RUNAWAY_US: libc::rlim_t = 500_000;

/// Locks the process's memory, present and future, each page when it is first touched
/// (MCL_ONFAULT: what is never touched costs nothing).
///
/// # Errors
/// The kernel's refusal (RLIMIT_MEMLOCK without CAP_IPC_LOCK).
pub fn lock_memory() -> io::Result<()> {
    // SAFETY: takes flags only.
    let answer =
        unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Whether real-time priority can be had, without keeping it.
#[must_use]
pub fn can() -> bool {
    std::thread::Builder::new()
        .stack_size(64 * 1024)
        .spawn(|| fifo().is_ok())
        .is_ok_and(|probe| probe.join().unwrap_or(false))
}

/// Makes the calling thread SCHED_FIFO 1, else nice −20.
pub fn apply() {
    if fifo().is_err() {
        // SAFETY: takes integers; 0 is the calling thread.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    }
}

fn fifo() -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: RUNAWAY_US,
        rlim_max: 2 * RUNAWAY_US,
    };
    // SAFETY: a valid structure. A refusal only means that nothing guards against a runaway.
    unsafe { libc::setrlimit(libc::RLIMIT_RTTIME, &raw const limit) };
    let priority = libc::sched_param { sched_priority: 1 };
    // Children (alert hooks) start at normal priority.
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: a valid structure; 0 is the calling thread.
    if unsafe { libc::sched_setscheduler(0, policy, &raw const priority) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
