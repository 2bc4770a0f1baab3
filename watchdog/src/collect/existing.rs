//! Connections that are older than the daemon, or than the entry that watches them.
//!
//! In: procfs: who has an established TCP socket on a watched port, in any network namespace.
//! Out: a slot for each, tied to the socket, with what TCP itself remembers of its last messages.
//! So a daemon that is started, restarted, upgraded or given another port sees every lease at once,
//! and not at the next packet. What is found before the tick starts is taken in at once; what is
//! found later goes to the tick in batches, ready to be taken in without a file.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crossbeam_queue::SegQueue;
use procfs::{
    net::{TcpNetEntry, TcpState},
    process::{FDTarget, Process},
};
use watchdog_common::layout::{
    AT_BOUNDARY, EntryShape, FlowSlot, ORIGIN_DAEMON, OUTGOING, PORTS, PROTOCOL_REQUEST_REPLY,
    REQUESTS, ROLE_GRANTOR, ROLE_HOLDER, SLOT_LIVE, SYNCED, ShapeTable, SlotRef,
};
use watchdog_model::{Mono, time::MS};

use crate::{kernel::state::State, priority};

/// TCP keeps its stamps in jiffies, 10 ms at the coarsest (CONFIG_HZ=100).
const JIFFY_NS: u64 = 10 * MS;
/// A flow that has been silent in both directions for so long stands between two frames.
const IDLE_NS: u64 = 100 * MS;
/// What is found is open here until the tick has taken it in, and a connection that its owner
/// closes meanwhile stays open for so long: a few at a time.
const BATCH: usize = 128;
/// Batches that wait for the tick, which takes so many a time: some milliseconds' work.
pub const BATCHES: usize = 4;
/// How often it is looked whether the tick is done, and how often at most.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const LOOKS: usize = 400;

/// Which connections are looked for.
pub struct Search {
    /// Config entry's index plus one, by port.
    pub ports: Box<[u8; PORTS]>,
    /// How the entries' streams look.
    pub shapes: Box<ShapeTable>,
    /// The one network namespace that is watched; None: all.
    pub netns: Option<u32>,
    /// The monotonic clock.
    pub clock: fn() -> Mono,
}

/// A connection that was found.
pub struct Found {
    socket: OwnedFd,
    at: Mono,
    cookie: u64,
    local: ([u8; 16], u16),
    peer: ([u8; 16], u16),
    holder: bool,
    entry: u8,
    shape: EntryShape,
    pid: u32,
    comm: [u8; 16],
    info: libc::tcp_info,
    unread: i32,
}

/// The established sockets on watched ports, by inode, and the ports that are listened on, in one
/// network namespace.
#[derive(Default)]
struct Sockets {
    inodes: HashSet<u64>,
    listening: HashSet<u16>,
}

/// Gives every established flow on a watched port a slot; returns how many were found.
pub fn adopt(state: &mut State, search: &Search) -> usize {
    let mut found = 0;
    search.each(|one| {
        found += 1;
        if let Err(error) = one.take_in(state) {
            tracing::debug!(pid = one.pid, %error, "not adopted");
        }
    });
    found
}

/// Looks, on a thread of its own and once `ports` are watched (the tick sets `watching`), for what
/// was there before they were, and hands it to the tick.
pub fn later(search: Search, watching: Arc<AtomicBool>, to: Arc<SegQueue<Arc<[Found]>>>) {
    let spawned = std::thread::Builder::new()
        .name("existing".into())
        .stack_size(256 * 1024)
        .spawn(move || {
            // Whoever reloads is in real time, and so is what it starts.
            priority::leave();
            if !wait_until(|| watching.load(Ordering::Acquire)) {
                return;
            }
            let mut batch = Vec::with_capacity(BATCH);
            let mut handed = Vec::with_capacity(BATCHES);
            search.each(|one| {
                batch.push(one);
                if batch.len() == BATCH {
                    hand_over(&mut batch, &mut handed, &to);
                }
            });
            hand_over(&mut batch, &mut handed, &to);
            take_back(&mut handed);
        });
    if let Err(error) = spawned {
        tracing::warn!(%error, "connections that were there before are seen at their next packet");
    }
}

/// Hands some over, and keeps the last hold of them so that it is not the tick that closes them.
fn hand_over(batch: &mut Vec<Found>, handed: &mut Vec<Arc<[Found]>>, to: &SegQueue<Arc<[Found]>>) {
    if handed.len() == BATCHES {
        take_back(handed);
    }
    let all: Arc<[Found]> = batch.drain(..).collect();
    to.push(Arc::clone(&all));
    handed.push(all);
}

/// Closes what the tick has taken in.
fn take_back(handed: &mut Vec<Arc<[Found]>>) {
    for all in handed.drain(..) {
        // Else the tick is at its end, and so is the process.
        wait_until(|| Arc::strong_count(&all) == 1);
    }
}

fn wait_until(done: impl Fn() -> bool) -> bool {
    (0..LOOKS).any(|_| {
        let done = done();
        if !done {
            std::thread::park_timeout(LOOK_EVERY);
        }
        done
    })
}

impl Search {
    /// Finds every established flow on a watched port.
    fn each(&self, mut tell: impl FnMut(Found)) {
        let Ok(processes) = procfs::process::all_processes() else {
            return;
        };
        let processes: Vec<Process> = processes.flatten().collect();
        let mut namespaces: HashMap<u64, Sockets> = HashMap::new();
        for process in &processes {
            let Some(namespace) = namespace(process) else {
                continue;
            };
            if self.netns.is_none_or(|only| u64::from(only) == namespace) {
                namespaces
                    .entry(namespace)
                    .or_insert_with(|| self.sockets(process));
            }
        }
        namespaces.retain(|_, sockets| !sockets.inodes.is_empty());
        if namespaces.is_empty() {
            return;
        }
        // A socket stays in the namespace that it was made in, whatever becomes of the process; no
        // two sockets of a node have the same inode.
        let mut found = HashSet::new();
        for process in &processes {
            let Ok(descriptors) = process.fd() else {
                continue;
            };
            for descriptor in descriptors.flatten() {
                let FDTarget::Socket(inode) = descriptor.target else {
                    continue;
                };
                let within = namespaces
                    .values()
                    .find(|sockets| sockets.inodes.contains(&inode));
                let Some(within) = within else { continue };
                if !found.insert(inode) {
                    continue;
                }
                match self.one(process, descriptor.fd, within) {
                    Ok(one) => tell(one),
                    Err(error) => {
                        found.remove(&inode);
                        tracing::debug!(pid = process.pid, fd = descriptor.fd, %error, "not found");
                    }
                }
            }
        }
    }

    /// The sockets of the network namespace that a process is in.
    fn sockets(&self, process: &Process) -> Sockets {
        let watched = |port: u16| self.ports[usize::from(port)] != 0;
        let mut sockets = Sockets::default();
        let mut sort = |entry: &TcpNetEntry| {
            let (local, peer) = (entry.local_address.port(), entry.remote_address.port());
            if entry.state == TcpState::Listen {
                sockets.listening.insert(local);
            } else if entry.state == TcpState::Established && (watched(local) || watched(peer)) {
                sockets.inodes.insert(entry.inode);
            }
        };
        for entries in [process.tcp(), process.tcp6()].into_iter().flatten() {
            entries.iter().for_each(&mut sort);
        }
        sockets
    }

    fn one(&self, process: &Process, descriptor: i32, within: &Sockets) -> io::Result<Found> {
        let socket = duplicate(process.pid, descriptor)?;
        let local = name(&socket, libc::getsockname)?;
        let peer = name(&socket, libc::getpeername)?;
        let entry = |port: u16| self.ports[usize::from(port)];
        let (local_entry, peer_entry) = (entry(local.1), entry(peer.1));
        // A watched range may take in ephemeral ports. The end that listens grants; where neither
        // does, the lower port is the likelier to have, as for a packet in mid-stream.
        let client = !within.listening.contains(&local.1) && peer.1 < local.1;
        let holder = peer_entry != 0 && (local_entry == 0 || client);
        let entry = if holder { peer_entry } else { local_entry };
        if entry == 0 || (client && !holder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut comm = [0; 16];
        let named = process.stat().map(|stat| stat.comm).unwrap_or_default();
        for (to, from) in comm[..15].iter_mut().zip(named.bytes()) {
            *to = from;
        }
        Ok(Found {
            cookie: option(&socket, libc::SOL_SOCKET, libc::SO_COOKIE)?,
            unread: queued(&socket)?,
            info: option(&socket, libc::IPPROTO_TCP, libc::TCP_INFO)?,
            at: (self.clock)(),
            socket,
            local,
            peer,
            holder,
            entry: entry - 1,
            shape: self
                .shapes
                .shapes
                .get(usize::from(entry - 1))
                .copied()
                .unwrap_or_default(),
            pid: u32::try_from(process.pid).unwrap_or(0),
            comm,
        })
    }
}

fn namespace(process: &Process) -> Option<u64> {
    let namespaces = process.namespaces().ok()?;
    namespaces
        .0
        .get(std::ffi::OsStr::new("net"))
        .map(|net| net.identifier)
}

impl Found {
    /// Gives it a slot, unless it has one.
    ///
    /// # Errors
    /// No slot is free.
    pub fn take_in(&self, state: &mut State) -> io::Result<()> {
        let index = state.take_flow().ok_or(io::ErrorKind::OutOfMemory)?;
        let Some(slot) = state.flows.at(index) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        // SAFETY: a slot off the free stack is ours until it is tied to the socket below.
        let generation = unsafe {
            (*slot).cookie = self.cookie;
            (*slot).local_addr = self.local.0;
            (*slot).peer_addr = self.peer.0;
            (*slot).local_port = self.local.1;
            (*slot).peer_port = self.peer.1;
            (*slot).role = if self.holder {
                ROLE_HOLDER
            } else {
                ROLE_GRANTOR
            };
            (*slot).origin = ORIGIN_DAEMON;
            (*slot).index = u32::try_from(index).unwrap_or(u32::MAX);
            (*slot).entry = self.entry;
            (*slot).protocol = self.shape.protocol;
            (*slot).owner = self.pid;
            (*slot).owner_comm = self.comm;
            (*slot).life.opened_ns = self.at.0;
            self.stamp(&mut *slot);
            (&raw mut (*slot).state).write_volatile(SLOT_LIVE);
            (*slot).generation
        };
        let at = SlotRef {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            generation,
        };
        if let Err(error) = state.tie(self.socket.as_fd(), self.cookie, at) {
            // A packet was quicker: the kernel has given it a slot of its own. Or it had one
            // before the search began.
            state.free_flow(index);
            tracing::debug!(%error, "flow has a slot already");
        }
        Ok(())
    }
}

impl Found {
    /// Fills in what TCP remembers: when data last went and came.
    fn stamp(&self, slot: &mut FlowSlot) {
        let (now, unread) = (self.at, self.unread);
        let ago = |millis: u32| u64::from(millis) * MS + JIFFY_NS;
        let sent_ago = ago(self.info.tcpi_last_data_sent);
        let received_ago = ago(self.info.tcpi_last_data_recv);
        let quiet = self.info.tcpi_unacked == 0 && unread == 0;
        let idle = quiet && sent_ago > IDLE_NS && received_ago > IDLE_NS;
        let boundary = if idle { SYNCED | AT_BOUNDARY } else { 0 };
        slot.requests.flags = REQUESTS | boundary | if self.holder { OUTGOING } else { 0 };
        slot.replies.flags = boundary | if self.holder { 0 } else { OUTGOING };
        let (request_ago, reply_ago) = if self.holder {
            (sent_ago, received_ago)
        } else {
            (received_ago, sent_ago)
        };
        if unread == 0 {
            slot.reads.read_ns = now.minus(received_ago).0;
        }
        if self.shape.signature_len != 0 || self.shape.protocol > PROTOCOL_REQUEST_REPLY {
            // What came and went last may not have been a renewal.
            return;
        }
        slot.requests.newest_ns = now.minus(request_ago).0;
        slot.replies.newest_ns = now.minus(reply_ago).0;
        if quiet && reply_ago <= request_ago {
            slot.replies.answered_ns = slot.requests.newest_ns;
            slot.replies.answer_ns = slot.replies.newest_ns;
        }
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
