//! Connections that are older than the daemon.
//!
//! In: procfs: who has an established TCP socket on a watched port, in any network namespace.
//! Out: a slot for each, tied to the socket, with what TCP itself remembers of its last messages.
//! So a daemon that is started, restarted or upgraded sees every lease at once, and not at the
//! next packet. Runs before the tick starts.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

use procfs::{
    net::{TcpNetEntry, TcpState},
    process::{FDTarget, Process},
};
use watchdog_common::layout::{
    AT_BOUNDARY, FlowSlot, ORIGIN_DAEMON, OUTGOING, PORTS, REQUESTS, ROLE_GRANTOR, ROLE_HOLDER,
    SLOT_LIVE, SYNCED, SlotRef,
};
use watchdog_model::{Mono, time::MS};

use crate::kernel::state::State;

/// TCP keeps its stamps in jiffies, 10 ms at the coarsest (CONFIG_HZ=100).
const JIFFY_NS: u64 = 10 * MS;
/// A flow that has been silent in both directions for so long stands between two frames.
const IDLE_NS: u64 = 100 * MS;

/// Gives every established flow on a watched port a slot; returns how many.
pub fn adopt(state: &mut State, ports: &[u8; PORTS], now: Mono) -> usize {
    let Ok(processes) = procfs::process::all_processes() else {
        return 0;
    };
    let mut namespaces: HashMap<u64, HashSet<u64>> = HashMap::new();
    let mut adopted = HashSet::new();
    for process in processes.flatten() {
        let Some(namespace) = namespace(&process) else {
            continue;
        };
        let inodes = namespaces
            .entry(namespace)
            .or_insert_with(|| watched_inodes(&process, ports));
        if inodes.is_empty() {
            continue;
        }
        let Ok(descriptors) = process.fd() else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            let FDTarget::Socket(inode) = descriptor.target else {
                continue;
            };
            if !inodes.contains(&inode) || !adopted.insert(inode) {
                continue;
            }
            match adopt_one(state, ports, &process, descriptor.fd, now) {
                Ok(()) => {}
                Err(error) => {
                    adopted.remove(&inode);
                    tracing::debug!(pid = process.pid, fd = descriptor.fd, %error, "not adopted");
                }
            }
        }
    }
    adopted.len()
}

fn namespace(process: &Process) -> Option<u64> {
    let namespaces = process.namespaces().ok()?;
    namespaces
        .0
        .get(std::ffi::OsStr::new("net"))
        .map(|net| net.identifier)
}

/// Inodes of the established sockets on watched ports in this process's network namespace.
fn watched_inodes(process: &Process, ports: &[u8; PORTS]) -> HashSet<u64> {
    let watched = |entry: &TcpNetEntry| {
        entry.state == TcpState::Established
            && (ports[entry.local_address.port() as usize] != 0
                || ports[entry.remote_address.port() as usize] != 0)
    };
    let mut inodes = HashSet::new();
    for entries in [process.tcp(), process.tcp6()].into_iter().flatten() {
        inodes.extend(
            entries
                .iter()
                .filter(|entry| watched(entry))
                .map(|entry| entry.inode),
        );
    }
    inodes
}

fn adopt_one(
    state: &mut State,
    ports: &[u8; PORTS],
    process: &Process,
    descriptor: i32,
    now: Mono,
) -> io::Result<()> {
    let socket = duplicate(process.pid, descriptor)?;
    let local = name(&socket, libc::getsockname)?;
    let peer = name(&socket, libc::getpeername)?;
    let (local_entry, peer_entry) = (ports[local.1 as usize], ports[peer.1 as usize]);
    // The same rule as for a packet in mid-stream: of two watched ports the lower one listens.
    let holder = peer_entry != 0 && (local_entry == 0 || peer.1 < local.1);
    let entry = if holder { peer_entry } else { local_entry };
    if entry == 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    let info: libc::tcp_info = option(&socket, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    let cookie: u64 = option(&socket, libc::SOL_SOCKET, libc::SO_COOKIE)?;
    let unread = queued(&socket)?;
    let comm = process.stat().map(|stat| stat.comm).unwrap_or_default();
    let index = state.take_flow().ok_or(io::ErrorKind::OutOfMemory)?;
    let Some(slot) = state.flows.at(index) else {
        return Err(io::ErrorKind::OutOfMemory.into());
    };
    // SAFETY: a slot off the free stack is ours until it is tied to the socket below.
    let generation = unsafe {
        (*slot).cookie = cookie;
        (*slot).local_addr = local.0;
        (*slot).peer_addr = peer.0;
        (*slot).local_port = local.1;
        (*slot).peer_port = peer.1;
        (*slot).role = if holder { ROLE_HOLDER } else { ROLE_GRANTOR };
        (*slot).origin = ORIGIN_DAEMON;
        (*slot).entry = entry - 1;
        (*slot).owner = u32::try_from(process.pid).unwrap_or(0);
        let name = &mut (*slot).owner_comm;
        for (to, from) in name[..15].iter_mut().zip(comm.bytes()) {
            *to = from;
        }
        (*slot).life.opened_ns = now.0;
        stamp(&mut *slot, holder, &info, unread, now);
        (&raw mut (*slot).state).write_volatile(SLOT_LIVE);
        (*slot).generation
    };
    state.raise_high_water(index);
    let at = SlotRef {
        index: u32::try_from(index).unwrap_or(u32::MAX),
        generation,
    };
    if let Err(error) = state.tie(socket.as_fd(), cookie, at) {
        // A packet was quicker: the kernel has given it a slot of its own.
        state.free_flow(index);
        tracing::debug!(%error, "flow has a slot already");
    }
    Ok(())
}

/// Fills in what TCP remembers: when data last went and came.
fn stamp(slot: &mut FlowSlot, holder: bool, info: &libc::tcp_info, unread: i32, now: Mono) {
    let ago = |millis: u32| u64::from(millis) * MS + JIFFY_NS;
    let sent_ago = ago(info.tcpi_last_data_sent);
    let received_ago = ago(info.tcpi_last_data_recv);
    let quiet = info.tcpi_unacked == 0 && unread == 0;
    let idle = quiet && sent_ago > IDLE_NS && received_ago > IDLE_NS;
    let boundary = if idle { SYNCED | AT_BOUNDARY } else { 0 };
    slot.requests.flags = REQUESTS | boundary | if holder { OUTGOING } else { 0 };
    slot.replies.flags = boundary | if holder { 0 } else { OUTGOING };
    let (request_ago, reply_ago) = if holder {
        (sent_ago, received_ago)
    } else {
        (received_ago, sent_ago)
    };
    slot.requests.newest_ns = now.minus(request_ago).0;
    slot.replies.newest_ns = now.minus(reply_ago).0;
    if quiet && reply_ago <= request_ago {
        slot.replies.answered_ns = slot.requests.newest_ns;
    }
    if unread == 0 {
        slot.reads.read_ns = now.minus(received_ago).0;
    }
}

/// Another process's descriptor, as one of ours: the same socket (pidfd_getfd(2), ≥ 5.6).
pub(super) fn duplicate(pid: i32, descriptor: i32) -> io::Result<OwnedFd> {
    let own = |answer: libc::c_long| {
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that was just made for us.
        Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(answer).unwrap_or(-1)) })
    };
    // SAFETY: integers only.
    let process = own(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: integers only.
    own(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor, 0) })
}

pub(super) type NameCall =
    unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

/// An address of a socket, IPv4 in IPv6 form, and its port.
pub(super) fn name(socket: &OwnedFd, call: NameCall) -> io::Result<([u8; 16], u16)> {
    // SAFETY: all-zero is a valid sockaddr_in6.
    let mut at: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    let mut len = libc::socklen_t::try_from(size_of_val(&at)).unwrap_or(0);
    // SAFETY: a valid place of that length.
    if unsafe { call(socket.as_raw_fd(), (&raw mut at).cast(), &raw mut len) } != 0 {
        return Err(io::Error::last_os_error());
    }
    match i32::from(at.sin6_family) {
        libc::AF_INET6 => Ok((at.sin6_addr.s6_addr, u16::from_be(at.sin6_port))),
        libc::AF_INET => {
            // SAFETY: the kernel wrote a sockaddr_in, which is shorter.
            let at: libc::sockaddr_in =
                unsafe { (&raw const at).cast::<libc::sockaddr_in>().read() };
            let v4 = std::net::Ipv4Addr::from(u32::from_be(at.sin_addr.s_addr));
            Ok((v4.to_ipv6_mapped().octets(), u16::from_be(at.sin_port)))
        }
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// A socket option of plain data.
pub(super) fn option<T: Copy>(socket: &OwnedFd, level: i32, option: i32) -> io::Result<T> {
    // SAFETY: callers ask for integers and tcp_info, of which all-zero is valid.
    let mut value: T = unsafe { std::mem::zeroed() };
    let mut len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: a valid place of that length.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    if answer == 0 {
        Ok(value)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Bytes that have come and are not read (SIOCINQ, which is FIONREAD).
fn queued(socket: &OwnedFd) -> io::Result<i32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: a valid place to write an int to.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut bytes) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(bytes)
}
