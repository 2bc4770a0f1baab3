//! Keeps the process in memory.
//!
//! Out: what a warning needs is resident before it is needed, so that it waits for no page while the
//! disk hangs. What the kernel refuses is said by the caller.

use std::io;

/// Has the allocator return what is large as soon as it is free. Left alone it learns from the first large
/// thing that is freed, the kernel's types while programs are loaded, to keep all that is smaller.
pub fn return_what_is_large() {
    /// Its own first value; once set it stays (mallopt(3)).
    #[cfg(target_env = "gnu")]
    const LARGE_BYTES: libc::c_int = 128 * 1024;
    // SAFETY: two numbers; no other thread allocates yet that would mind.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE_BYTES);
    }
}

/// Gives free memory of all threads' heaps back. To be called before [`lock_memory`]: the kernel takes
/// nothing back from the middle of a locked heap.
pub fn give_back() {
    // SAFETY: a number; heaps are locked while they are trimmed.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

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

/// Whether memory could be locked, without keeping it so.
///
/// # Errors
/// As [`lock_memory`].
pub fn can_lock() -> io::Result<()> {
    let locked = lock_memory();
    // SAFETY: has no preconditions.
    unsafe { libc::munlockall() };
    locked
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
