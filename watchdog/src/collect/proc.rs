//! Threads as procfs shows them.
//!
//! In: process and thread ids. Out: what their files say, parsed. A file that is gone is `None`, as
//! the thread is. Never: a conclusion.

use std::fs;
use std::os::unix::ffi::OsStringExt as _;

use watchdog_model::causes::collected::Doing;
use watchdog_model::leases::observation::Comm;

/// A thread's stat line, as far as it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its name.
    pub comm: Comm,
    /// What it does.
    pub doing: Doing,
    /// Major faults so far.
    pub major_faults: u64,
    /// When it was started, in ticks since boot: with the id it names a thread for good.
    pub started: u64,
}

/// Reads /proc/PID/task/TID/stat, or with `tid` = None /proc/PID/stat, whose counts are those of
/// all threads.
#[must_use]
pub fn stat(pid: u32, tid: Option<u32>) -> Option<Stat> {
    let line = match tid {
        Some(tid) => fs::read(format!("/proc/{pid}/task/{tid}/stat")),
        None => fs::read(format!("/proc/{pid}/stat")),
    };
    parse_stat(&line.ok()?)
}

/// The name may contain anything, so what follows it is counted from its last bracket (proc(5)).
fn parse_stat(line: &[u8]) -> Option<Stat> {
    let open = line.iter().position(|byte| *byte == b'(')?;
    let close = line.iter().rposition(|byte| *byte == b')')?;
    let mut comm = [0; 16];
    for (to, from) in comm[..15].iter_mut().zip(line.get(open + 1..close)?) {
        *to = *from;
    }
    let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The first of them is field 3 of proc(5).
    let number = |field: usize| fields.get(field - 3)?.parse().ok();
    Some(Stat {
        comm,
        doing: match *fields.first()? {
            "R" => Doing::Running,
            "S" | "I" => Doing::Sleeping,
            "D" => Doing::Uninterruptible,
            "T" | "t" => Doing::Stopped,
            _ => Doing::Other,
        },
        major_faults: number(12)?,
        started: number(22)?,
    })
}

/// Ids of a process's threads, at most `limit`.
#[must_use]
pub fn threads(pid: u32, limit: usize) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .take(limit)
        .collect()
}

/// A thread's time so far (schedstat).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// On a CPU, ns.
    pub ran_ns: u64,
    /// Waiting for one, ns; a wait counts when it is over.
    pub waited_ns: u64,
    /// How often it was given one.
    pub slices: u64,
}

/// Reads a thread's time.
#[must_use]
pub fn cpu_times(pid: u32, tid: u32) -> Option<Times> {
    let line = fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat")).ok()?;
    let mut words = line.split_ascii_whitespace().map(str::parse);
    Some(Times {
        ran_ns: words.next()?.ok()?,
        waited_ns: words.next()?.ok()?,
        slices: words.next()?.ok()?,
    })
}

/// The function of the kernel that a thread waits in; empty if it does not.
#[must_use]
pub fn wchan(pid: u32, tid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/task/{tid}/wchan"))
        .ok()
        .filter(|name| name != "0")
        .unwrap_or_default()
}

/// The functions of the kernel that a thread is in, innermost first.
#[must_use]
pub fn stack(pid: u32, tid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/task/{tid}/stack")).unwrap_or_default()
}

/// The system call that a thread is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// Reads /proc/PID/task/TID/syscall; None: it runs, or waits outside of one (a page fault).
#[must_use]
pub fn call(pid: u32, tid: u32) -> Option<Call> {
    let line = fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")).ok()?;
    parse_call(&line)
}

fn parse_call(line: &str) -> Option<Call> {
    let mut words = line.split_ascii_whitespace();
    let number: i64 = words.next()?.parse().ok()?;
    if number < 0 {
        return None;
    }
    let mut arguments = [0; 6];
    for argument in &mut arguments {
        *argument = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
    }
    Some(Call { number, arguments })
}

/// Reads a process's memory; None: it is not there. May wait for whoever holds the process's
/// memory map, as any reader of it does.
#[must_use]
pub fn memory(pid: u32, address: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0_u8; length];
    let local = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: length,
    };
    let remote = libc::iovec {
        iov_base: usize::try_from(address).ok()? as *mut libc::c_void,
        iov_len: length,
    };
    let pid = libc::pid_t::try_from(pid).ok()?;
    // SAFETY: the local vector names `bytes`; the remote one is only read, by the kernel.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    (usize::try_from(read).ok()? == length).then_some(bytes)
}

/// What a descriptor is: the path that it was opened by, or `socket:[…]` and the like.
#[must_use]
pub fn descriptor(pid: u32, descriptor: u64) -> Option<Vec<u8>> {
    let target = fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).ok()?;
    Some(target.into_os_string().into_vec())
}

/// A field of /proc/PID/fdinfo/N, as `mnt_id`.
#[must_use]
pub fn descriptor_info(pid: u32, descriptor: u64) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/fdinfo/{descriptor}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks() {
        let line = b"7 (a) (b) D 1 7 7 0 -1 4194304 120 0 33 0 5 6 0 0 20 0 1 0 8812 0 0";
        let stat = parse_stat(line).unwrap();
        assert_eq!(&stat.comm[..5], b"a) (b");
        assert_eq!(stat.doing, Doing::Uninterruptible);
        assert_eq!((stat.major_faults, stat.started), (33, 8812));
        assert_eq!(parse_stat(b"7 (a D"), None);
    }

    #[test]
    fn calls_and_what_is_none() {
        let line = "202 0x7f00 0x80 0x2 0x0 0x0 0x0 0x7ffc 0x7f11\n";
        assert_eq!(
            parse_call(line),
            Some(Call {
                number: 202,
                arguments: [0x7f00, 0x80, 2, 0, 0, 0]
            })
        );
        assert_eq!(parse_call("running\n"), None);
        assert_eq!(parse_call("-1 0x7ffc 0x7f11\n"), None);
    }

    #[test]
    fn this_very_process() {
        let pid = std::process::id();
        let own = stat(pid, None).unwrap();
        assert!(own.started > 0);
        assert!(threads(pid, 100).contains(&pid));
        assert!(cpu_times(pid, pid).unwrap().slices > 0);
        let word = 0x1122_3344_u32;
        let read = memory(pid, (&raw const word) as u64, 4).unwrap();
        assert_eq!(read, word.to_ne_bytes());
        assert_eq!(memory(pid, 8, 4), None);
        assert_eq!(stat(u32::MAX, None), None);
    }
}
