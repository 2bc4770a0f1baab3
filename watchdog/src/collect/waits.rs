//! What a thread waits for: from its system call, its kernel stack and its descriptors.
//!
//! In: a thread that is in trouble. Out: a [`Wait`], where it waits by name, and what else that
//! tells (the lock, the device). Never: a guess; what is not understood is [`Wait::None`].

use std::net::SocketAddr;

use watchdog_model::causes::collected::{Doing, Wait};
use watchdog_model::causes::text::Label;

use super::{disks, proc, sockets::Borrowed};

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// What.
    pub wait: Wait,
    /// By name.
    pub at: Label,
    /// The futex that it waits for.
    pub futex: Option<Futex>,
    /// The device of the file that it waits for.
    pub device: Option<(u32, u32)>,
    /// Whether it waits in a page fault or otherwise outside of a system call.
    pub fault: bool,
}

/// A futex, as its waiter named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Futex {
    /// Where it lies.
    pub address: u64,
    /// FUTEX_* without flags.
    pub operation: u64,
    /// The value that it is to have.
    pub value: u64,
}

impl Found {
    fn of(wait: Wait, at: &str) -> Self {
        Self {
            wait,
            at: Label::end_of(at.as_bytes()),
            futex: None,
            device: None,
            fault: false,
        }
    }
}

/// The lease's own flow: whoever waits for it is idle and not elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    /// Its socket's cookie; 0: it has none now.
    pub cookie: u64,
    /// The grantor's address: a client that connects anew waits for it too.
    pub grantor: SocketAddr,
}

/// Functions on the way to memory (mm/vmscan.c, mm/memcontrol.c, mm/page_io.c).
const MEMORY_FRAMES: [&str; 9] = [
    "try_to_free",
    "shrink_",
    "mem_cgroup_handle_over_high",
    "throttle_direct_reclaim",
    "reclaim_throttle",
    "do_swap_page",
    "swap_read",
    "mem_cgroup_oom",
    "__alloc_pages_direct",
];
/// Functions that wait for a file's data, a file system or a block device.
const FILE_FRAMES: [&str; 22] = [
    "folio_wait_",
    "wait_on_page_",
    "filemap_fault",
    "filemap_",
    "io_schedule",
    "ext4_",
    "xfs_",
    "btrfs_",
    "f2fs_",
    "jbd2_",
    "nfs_",
    "fuse_",
    "ceph_",
    "submit_bio_wait",
    "wait_on_buffer",
    "balance_dirty_pages",
    "writeback_",
    "vfs_fsync",
    "blkdev_",
    "blk_mq_",
    "percpu_rwsem_wait",
    "rwsem_down_",
];

/// Whether a stack has one of these.
fn has(stack: &str, frames: &[&str]) -> bool {
    stack
        .lines()
        .filter_map(|line| line.rsplit(' ').next())
        .any(|function| frames.iter().any(|frame| function.starts_with(frame)))
}

/// How a system call waits.
enum Kind {
    Futex,
    /// On the descriptor in its first argument.
    Descriptor,
    /// On an array of struct pollfd.
    Poll,
    /// On sets of bits.
    Select,
    /// On an epoll descriptor.
    Epoll,
    Time,
    Child,
    Unknown,
}

fn kind(number: i64) -> (Kind, &'static str) {
    match number {
        libc::SYS_futex => (Kind::Futex, "futex"),
        libc::SYS_read => (Kind::Descriptor, "read"),
        libc::SYS_write => (Kind::Descriptor, "write"),
        libc::SYS_pread64 => (Kind::Descriptor, "pread"),
        libc::SYS_pwrite64 => (Kind::Descriptor, "pwrite"),
        libc::SYS_readv => (Kind::Descriptor, "readv"),
        libc::SYS_writev => (Kind::Descriptor, "writev"),
        libc::SYS_fsync => (Kind::Descriptor, "fsync"),
        libc::SYS_fdatasync => (Kind::Descriptor, "fdatasync"),
        libc::SYS_ftruncate => (Kind::Descriptor, "ftruncate"),
        libc::SYS_fallocate => (Kind::Descriptor, "fallocate"),
        libc::SYS_sync_file_range => (Kind::Descriptor, "sync_file_range"),
        libc::SYS_syncfs => (Kind::Descriptor, "syncfs"),
        libc::SYS_getdents64 => (Kind::Descriptor, "getdents"),
        libc::SYS_recvfrom => (Kind::Descriptor, "recv"),
        libc::SYS_recvmsg => (Kind::Descriptor, "recvmsg"),
        libc::SYS_recvmmsg => (Kind::Descriptor, "recvmmsg"),
        libc::SYS_sendto => (Kind::Descriptor, "send"),
        libc::SYS_sendmsg => (Kind::Descriptor, "sendmsg"),
        libc::SYS_connect => (Kind::Descriptor, "connect"),
        libc::SYS_accept | libc::SYS_accept4 => (Kind::Descriptor, "accept"),
        libc::SYS_flock => (Kind::Descriptor, "flock"),
        libc::SYS_ppoll => (Kind::Poll, "poll"),
        libc::SYS_pselect6 => (Kind::Select, "select"),
        libc::SYS_epoll_pwait => (Kind::Epoll, "epoll_wait"),
        libc::SYS_nanosleep | libc::SYS_clock_nanosleep => (Kind::Time, "sleep"),
        libc::SYS_wait4 | libc::SYS_waitid => (Kind::Child, "wait"),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll => (Kind::Poll, "poll"),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_select => (Kind::Select, "select"),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_wait => (Kind::Epoll, "epoll_wait"),
        _ => (Kind::Unknown, ""),
    }
}

/// What a thread waits for, that does this.
#[must_use]
pub fn find(pid: u32, tid: u32, doing: Doing, own: &Own) -> Found {
    match doing {
        Doing::Uninterruptible => uninterruptible(pid, tid),
        Doing::Sleeping => asleep(pid, tid, own),
        Doing::Running | Doing::Stopped | Doing::Other => Found::of(Wait::None, ""),
    }
}

fn uninterruptible(pid: u32, tid: u32) -> Found {
    let wchan = proc::wchan(pid, tid);
    let mut stack = proc::stack(pid, tid);
    if stack.is_empty() {
        // Stacks take CAP_SYS_ADMIN, which the service does without: then the innermost function.
        stack.clone_from(&wchan);
    }
    let call = proc::call(pid, tid);
    let mut found = Found::of(Wait::None, &wchan);
    found.fault = call.is_none();
    if has(&stack, &MEMORY_FRAMES) {
        found.wait = Wait::Memory;
        return found;
    }
    if has(&stack, &FILE_FRAMES) {
        found.wait = Wait::File;
    }
    let Some(call) = call else {
        return found;
    };
    if let (Kind::Descriptor, name) = kind(call.number)
        && let Some(target) = proc::descriptor(pid, call.arguments[0])
        && target.starts_with(b"/")
    {
        found.wait = Wait::File;
        found.device = disks::of_descriptor(pid, call.arguments[0]);
        found.at = of_file(name, &target);
    }
    found
}

/// What is done and to which file, in the room that there is: of a long path its last parts.
#[must_use]
pub fn of_file(what: &str, path: &[u8]) -> Label {
    const ROOM: usize = size_of::<Label>();
    let mut named = what.as_bytes().to_vec();
    named.extend_from_slice(b" of ");
    let room = ROOM.saturating_sub(named.len());
    if path.len() > room {
        let tail = &path[(path.len() + 1).saturating_sub(room).min(path.len())..];
        let parts = tail.iter().position(|byte| *byte == b'/').unwrap_or(0);
        named.push(b'~');
        named.extend_from_slice(&tail[parts..]);
    } else {
        named.extend_from_slice(path);
    }
    Label::end_of(&named)
}

fn asleep(pid: u32, tid: u32, own: &Own) -> Found {
    let Some(call) = proc::call(pid, tid) else {
        return Found::of(Wait::None, &proc::wchan(pid, tid));
    };
    let (kind, name) = kind(call.number);
    let mut found = Found::of(Wait::None, name);
    match kind {
        Kind::Futex => {
            found.wait = Wait::Futex;
            found.futex = Some(Futex {
                address: call.arguments[0],
                // FUTEX_CMD_MASK: without PRIVATE and CLOCK_REALTIME (include/uapi/linux/futex.h).
                operation: call.arguments[1] & 0x7f,
                value: call.arguments[2] & u64::from(u32::MAX),
            });
        }
        Kind::Time => found.wait = Wait::Time,
        Kind::Child => found.wait = Wait::Other,
        Kind::Descriptor => found.wait = of_descriptor(pid, call.arguments[0], own),
        Kind::Poll => {
            let descriptors = polled(pid, call.arguments[0], call.arguments[1]);
            found.wait = of_many(pid, &descriptors, own);
        }
        Kind::Select => {
            let descriptors = selected(pid, call.arguments[0], &call.arguments[1..4]);
            found.wait = of_many(pid, &descriptors, own);
        }
        Kind::Epoll => {
            let descriptors = watched(pid, call.arguments[0]);
            found.wait = of_many(pid, &descriptors, own);
        }
        Kind::Unknown => {
            found.at = Label::end_of(proc::wchan(pid, tid).as_bytes());
        }
    }
    found
}

/// What one descriptor is to whoever waits for it alone.
fn of_descriptor(pid: u32, descriptor: u64, own: &Own) -> Wait {
    let Some(target) = proc::descriptor(pid, descriptor) else {
        return Wait::None;
    };
    if !target.starts_with(b"socket:") {
        return Wait::Other;
    }
    let Ok(socket) = Borrowed::of(pid, descriptor) else {
        return Wait::None;
    };
    if own.cookie != 0 && socket.cookie() == Some(own.cookie) {
        return Wait::Own;
    }
    match socket.peer() {
        Some(peer) if peer.port() == own.grantor.port() => Wait::Own,
        Some(peer) => Wait::Socket(peer),
        None => Wait::Other,
    }
}

/// Whoever waits for many is idle if its own is among them; if there is one other connection
/// beside pipes and the like, it waits for that.
fn of_many(pid: u32, descriptors: &[u64], own: &Own) -> Wait {
    if descriptors.is_empty() {
        return Wait::Time;
    }
    let waits: Vec<Wait> = descriptors
        .iter()
        .map(|descriptor| of_descriptor(pid, *descriptor, own))
        .collect();
    if waits.contains(&Wait::Own) {
        return Wait::Own;
    }
    let mut sockets = waits.iter().filter(|wait| matches!(wait, Wait::Socket(_)));
    match (sockets.next(), sockets.next()) {
        (Some(socket), None) => *socket,
        // An event loop without its own socket in it, or with a crowd: nothing is proven.
        _ => Wait::None,
    }
}

/// Descriptors looked at of a call that waits for many.
const MANY: usize = 16;

fn polled(pid: u32, address: u64, count: u64) -> Vec<u64> {
    let count = usize::try_from(count).unwrap_or(0).min(MANY);
    let Some(bytes) = proc::memory(pid, address, count * 8) else {
        return Vec::new();
    };
    bytes
        .chunks_exact(8)
        .filter_map(|one| {
            let descriptor = i32::from_ne_bytes(one[..4].try_into().ok()?);
            u64::try_from(descriptor).ok()
        })
        .collect()
}

fn selected(pid: u32, count: u64, sets: &[u64]) -> Vec<u64> {
    let count = usize::try_from(count).unwrap_or(0).min(1024);
    let mut descriptors = Vec::new();
    for address in sets.iter().filter(|address| **address != 0) {
        let Some(bytes) = proc::memory(pid, *address, count.div_ceil(64) * 8) else {
            continue;
        };
        for (at, byte) in bytes.iter().enumerate() {
            for bit in 0..8 {
                if byte & 1 << bit != 0 && at * 8 + bit < count && descriptors.len() < MANY {
                    descriptors.push((at * 8 + bit) as u64);
                }
            }
        }
    }
    descriptors
}

/// What an epoll descriptor watches (`tfd:` lines, Documentation/filesystems/proc.rst).
fn watched(pid: u32, descriptor: u64) -> Vec<u64> {
    let info = proc::descriptor_info(pid, descriptor).unwrap_or_default();
    info.lines()
        .filter_map(|line| line.strip_prefix("tfd:"))
        .filter_map(|rest| rest.split_ascii_whitespace().next()?.parse().ok())
        .take(4 * MANY)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;
    use std::sync::mpsc;

    /// Runs something on a thread and gives what it waits for once it does.
    fn waits_for(own: &Own, run: impl FnOnce() + Send + 'static) -> Found {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            // SAFETY: no arguments.
            let tid = unsafe { libc::gettid() };
            tell.send(u32::try_from(tid).unwrap()).unwrap();
            run();
        });
        let (pid, tid) = (std::process::id(), told.recv().unwrap());
        for _ in 0..500 {
            let stat = proc::stat(pid, Some(tid)).unwrap();
            let found = find(pid, tid, stat.doing, own);
            if found.wait != Wait::None {
                return found;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(2));
        }
        panic!("it never slept");
    }

    #[test]
    fn sockets_locks_and_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let peer = stream.peer_addr().unwrap();
        let descriptor = u64::try_from(stream.as_raw_fd()).unwrap();
        let cookie = Borrowed::of(std::process::id(), descriptor)
            .unwrap()
            .cookie()
            .unwrap();
        let mut again = stream.try_clone().unwrap();
        let nobody = "192.0.2.1:9".parse().unwrap();
        let elsewhere = Own {
            cookie: 0,
            grantor: nobody,
        };
        let found = waits_for(&elsewhere, move || {
            let _ended = stream.read(&mut [0]);
        });
        assert_eq!(found.wait, Wait::Socket(peer));
        let own = Own {
            cookie,
            grantor: nobody,
        };
        let found = waits_for(&own, move || {
            let _ended = again.read(&mut [0]);
        });
        assert_eq!(found.wait, Wait::Own);
        let found = waits_for(&own, || {
            std::thread::park_timeout(std::time::Duration::from_secs(5));
        });
        assert_eq!(found.wait, Wait::Futex);
        assert!(found.futex.is_some());
    }

    #[test]
    fn of_a_long_path_the_last_parts_are_kept() {
        let named = |path: &str| {
            let label = of_file("fsync", path.as_bytes());
            String::from_utf8_lossy(label.as_bytes()).into_owned()
        };
        assert_eq!(named("/var/lib/zk/log.1"), "fsync of /var/lib/zk/log.1");
        assert_eq!(
            named("/var/lib/zookeeper/version-2/log.300000001"),
            "fsync of ~/version-2/log.300000001"
        );
        let long = "x".repeat(90);
        assert_eq!(named(&long), format!("fsync of ~{}", "x".repeat(30)));
    }

    #[test]
    fn stacks_tell_files_from_memory() {
        let file = "[<0>] folio_wait_bit_common+0x1/0x2\n[<0>] ext4_sync_file+0x1/0x2";
        assert!(has(file, &FILE_FRAMES) && !has(file, &MEMORY_FRAMES));
        let memory = "[<0>] shrink_node+0x1/0x2\n[<0>] filemap_fault+0x1/0x2";
        assert!(has(memory, &MEMORY_FRAMES));
    }
}
