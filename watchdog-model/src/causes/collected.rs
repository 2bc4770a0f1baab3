//! What was gathered about one end of a late lease, outside the tick: procfs, cgroups, block
//! devices, sockets. Plain data of fixed size.
//!
//! In: filled by whoever looks (or read from a recording, or written by a test). Out: read by the
//! rules. Never: a conclusion; that a device has completed nothing for a second is a figure here
//! and a cause there.

use std::net::SocketAddr;

use super::text::{Label, Text};
use crate::leases::observation::Comm;
use crate::time::Mono;

/// What a thread does, as /proc shows it.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doing {
    /// R: on a CPU, or waits for one.
    Running,
    /// S.
    Sleeping,
    /// D.
    Uninterruptible,
    /// T or t.
    Stopped,
    /// Anything else, or not known.
    Other,
}

/// What a sleeping thread waits for.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not known, or it does not wait.
    None,
    /// A user-space lock or condition (futex).
    Futex,
    /// A file's data or a file system's journal.
    File,
    /// Memory: direct reclaim, swap.
    Memory,
    /// Its lease's own socket, alone or among others: idle, as far as the lease is concerned.
    Own,
    /// A socket with another end.
    Socket(SocketAddr),
    /// Time: a sleep.
    Time,
    /// Another descriptor: a pipe, a terminal, a local socket, a child.
    Other,
}

/// How the thread is related to the flow.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// It reads or writes the flow's socket.
    Serving,
    /// It owns the lock that a serving thread waits for: read in the lock itself.
    Owner,
    /// Another of the same process, that the serving threads may wait for.
    Other,
    /// One of the runtime's own: garbage collection, safepoints.
    Runtime,
}

/// One thread.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThreadLook {
    /// Its part in this.
    pub part: Part,
    /// Thread id.
    pub tid: u32,
    /// Name.
    pub comm: Comm,
    /// What it does.
    pub doing: Doing,
    /// What it waits for.
    pub wait: Wait,
    /// Where in the kernel it waits (wchan), or what it waits for by name (a file's path).
    pub at: Label,
    /// Time on a CPU within `over_ns`, ns.
    pub ran_ns: u64,
    /// Time that it wanted a CPU and had none within `over_ns`, ns.
    pub waited_ns: u64,
    /// Major faults within `over_ns`.
    pub major_faults: u64,
    /// The span of these figures, ns; 0: seen only once.
    pub over_ns: u64,
}

/// A block device that a thread of the process waits for, or might.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceLook {
    /// Name as under /sys/block.
    pub name: Text<16>,
    /// Whether a thread is known to wait for a file on it; else it is only the one device that
    /// stands still while a thread waits for some file.
    pub proven: bool,
    /// Requests in flight.
    pub in_flight: u64,
    /// How long it has finished none, ns; None: it has finished all that it was given.
    pub silent_ns: Option<u64>,
    /// Age of the oldest request in flight, ns.
    pub oldest_ns: Option<u64>,
    /// How long a journal on it has been committing, ns; None: none is.
    pub committing_ns: Option<u64>,
}

/// The cgroup that limits the process's CPU time.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CgroupLook {
    /// Path below its hierarchy.
    pub path: Label,
    /// Whether it is frozen.
    pub frozen: bool,
    /// Time that its threads were throttled within `over_ns`, ns (all CPUs together).
    pub throttled_ns: u64,
    /// The span, ns.
    pub over_ns: u64,
}

/// Who has the CPU that a thread waits for.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunnerLook {
    /// Thread id.
    pub tid: u32,
    /// Name.
    pub comm: Comm,
    /// Its cgroup.
    pub cgroup: Label,
}

/// Memory as the process feels it.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MemoryLook {
    /// Major faults of the whole process within `over_ns`.
    pub major_faults: u64,
    /// Pages that were thrown out and came back within `over_ns`, in its cgroup.
    pub refaults: u64,
    /// Time that some thread waited for memory (PSI `some`) within `over_ns`, ns.
    pub pressure_ns: u64,
    /// The span, ns.
    pub over_ns: u64,
}

/// What TCP says of the flow (tcp_info).
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpLook {
    /// Segments not acknowledged.
    pub unacked: u32,
    /// Times the oldest of them was sent again.
    pub backoff: u32,
    /// Retransmission timeout, ns.
    pub rto_ns: u64,
    /// The window that the peer offers, bytes.
    pub send_window: u32,
    /// Bytes written and not yet sent.
    pub unsent_bytes: u32,
    /// Zero-window probes without an answer that opened it.
    pub probes: u32,
    /// How long ago an acknowledgement came, ns.
    pub acked_ago_ns: u64,
}

/// Threads kept: the serving one that says most, whom it waits for, the runtime's.
pub const MAX_THREADS: usize = 3;

/// All of it.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Collected {
    /// When it was looked at.
    pub at: Mono,
    /// Threads, in the order of their parts.
    pub threads: [Option<ThreadLook>; MAX_THREADS],
    /// The device.
    pub device: Option<DeviceLook>,
    /// The cgroup.
    pub cgroup: Option<CgroupLook>,
    /// Who runs instead.
    pub runner: Option<RunnerLook>,
    /// Memory.
    pub memory: MemoryLook,
    /// The flow's TCP.
    pub tcp: Option<TcpLook>,
    /// Time stolen by the hypervisor within `over_ns`, ns, per CPU.
    pub steal_ns: u64,
    /// The span of `steal_ns`, ns.
    pub over_ns: u64,
}

impl Collected {
    /// Nothing found.
    #[must_use]
    pub const fn nothing(at: Mono) -> Self {
        Self {
            at,
            threads: [None; MAX_THREADS],
            device: None,
            cgroup: None,
            runner: None,
            memory: MemoryLook {
                major_faults: 0,
                refaults: 0,
                pressure_ns: 0,
                over_ns: 0,
            },
            tcp: None,
            steal_ns: 0,
            over_ns: 0,
        }
    }

    /// The thread with this part.
    #[must_use]
    pub fn thread(&self, part: Part) -> Option<&ThreadLook> {
        self.threads
            .iter()
            .flatten()
            .find(|thread| thread.part == part)
    }

    /// The thread that the serving one waits for: the lock's owner, else another that stands out.
    #[must_use]
    pub fn behind(&self) -> Option<&ThreadLook> {
        self.thread(Part::Owner).or(self.thread(Part::Other))
    }
}
