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

/// Brings all code and constants of the process into memory, where [`lock_memory`] keeps them: what
/// is run for the first time while the disk hangs (an alert's way out) must not be read from it then.
///
/// # Errors
/// The list of mappings cannot be read. A mapping that the kernel refuses to fill (before 5.14) is
/// left as it is.
pub fn load_code() -> io::Result<()> {
    for line in std::fs::read_to_string("/proc/self/maps")?.lines() {
        let Some((start, end)) = file_mapping(line) else {
            continue;
        };
        // SAFETY: the range is a mapping of this process, and filling it changes no byte of it.
        unsafe {
            libc::madvise(
                start as *mut libc::c_void,
                end - start,
                libc::MADV_POPULATE_READ,
            )
        };
    }
    Ok(())
}

/// Start and end of a mapping of a file that may be read and not written.
fn file_mapping(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, rights) = (fields.next()?, fields.next()?);
    let path = fields.nth(3)?;
    if !rights.starts_with("r-") || !path.starts_with('/') {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let parse = |text| usize::from_str_radix(text, 16).ok();
    Some((parse(start)?, parse(end)?))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_told_from_data() {
        let code = "7f0000001000-7f0000003000 r-xp 00001000 08:01 123   /usr/sbin/lease-watchdog";
        assert_eq!(
            file_mapping(code),
            Some((0x7f00_0000_1000, 0x7f00_0000_3000))
        );
        for other in [
            "7f0000001000-7f0000003000 rw-p 00001000 08:01 123   /usr/sbin/lease-watchdog",
            "7f0000001000-7f0000003000 r-xp 00000000 00:00 0     [vdso]",
            "7f0000001000-7f0000003000 r--p 00000000 00:00 0",
        ] {
            assert_eq!(file_mapping(other), None, "{other}");
        }
        load_code().unwrap();
    }
}
