//! Causes: why a renewal is late, and the measured facts that prove it.

pub mod collected;
mod elsewhere;
mod node;
mod path;
mod peer;
mod process;
pub mod text;
pub mod verdict;

use std::net::SocketAddr;

use self::collected::{Doing, Part};
use self::text::{Label, Text};
use crate::leases::observation::{Comm, StallKind};

/// Why, in the order in which they are tried: own node first, then the path, then the peer.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The whole node stood still.
    NodePause,
    /// Signal-stopped or frozen.
    ProcessStopped,
    /// Waits for a device that completes nothing.
    DiskStall,
    /// Reclaim or refaults.
    MemoryPressure,
    /// Its cgroup's quota is used up.
    CpuThrottled,
    /// Runnable, others run.
    CpuStarved,
    /// The runtime stopped its world.
    RuntimePause,
    /// Waits for a lock whose owner is not stalled.
    LockWait,
    /// Runs and never returns to its socket.
    ThreadBusy,
    /// Sleeps on something else.
    WaitingElsewhere,
    /// Retransmissions without acknowledgement, or no route.
    NetworkLoss,
    /// Reset, refused or closed by the peer.
    PeerDown,
    /// The peer's receive window is shut.
    PeerWindow,
    /// TCP acknowledges, the application over there does not answer (or, at a grantor, does not ask).
    PeerSilent,
    /// None proven.
    Unknown,
}

/// Whose side a fact was measured on.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// This end of the flow.
    Own,
    /// The other end, seen by the same daemon.
    Peer,
}

/// One measured fact.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fact {
    /// A thread that serves the flow makes no progress.
    ThreadState {
        /// Whose thread.
        side: Side,
        /// Thread id.
        tid: u32,
        /// Thread name.
        comm: Comm,
        /// In what way.
        state: StallKind,
        /// For how long, ns.
        for_ns: u64,
    },
    /// A request is acknowledged by the peer's TCP and not answered.
    Unanswered {
        /// For how long, ns.
        for_ns: u64,
    },
    /// A message lies unread in the socket.
    Unread {
        /// Whose socket.
        side: Side,
        /// For how long, ns.
        for_ns: u64,
    },
    /// Nothing has come from the other end.
    Silent {
        /// For how long, ns.
        for_ns: u64,
    },
    /// Bytes not acknowledged by the peer's TCP.
    Unacknowledged {
        /// For how long, ns.
        for_ns: u64,
        /// Retransmissions so far.
        retransmits: u32,
    },
    /// The flow has ended.
    FlowClosed {
        /// Who ended it.
        how: crate::leases::observation::CloseHow,
        /// How long ago, ns.
        for_ns: u64,
    },
    /// What a thread waits for, or that it runs.
    ThreadWaits {
        /// Whose thread.
        side: Side,
        /// Its part in this: serving the flow, or waited for by one that does.
        part: Part,
        /// Thread id.
        tid: u32,
        /// Thread name.
        comm: Comm,
        /// What it does.
        doing: Doing,
        /// Where in the kernel it waits, or the file that it waits for.
        at: Label,
    },
    /// A device that requests are in flight to.
    Device {
        /// Whose node's.
        side: Side,
        /// Name as under /sys/block.
        name: Text<16>,
        /// Requests in flight.
        in_flight: u64,
        /// How long it has finished none, ns.
        silent_ns: u64,
        /// Age of the oldest request, ns; 0: not known.
        oldest_ns: u64,
        /// How long a journal on it has been committing, ns; 0: none is.
        committing_ns: u64,
    },
    /// A cgroup is frozen.
    Frozen {
        /// Whose node's.
        side: Side,
        /// Its path.
        cgroup: Label,
    },
    /// A cgroup has used up its quota.
    Throttled {
        /// Whose node's.
        side: Side,
        /// Its path.
        cgroup: Label,
        /// Time that its threads were kept from running, ns …
        throttled_ns: u64,
        /// … within this span, ns.
        over_ns: u64,
    },
    /// How much of a span a thread ran, and how much it waited for a CPU.
    CpuTime {
        /// Whose thread.
        side: Side,
        /// Thread id.
        tid: u32,
        /// Time on a CPU, ns.
        ran_ns: u64,
        /// Time that it wanted one, ns.
        waited_ns: u64,
        /// The span, ns.
        over_ns: u64,
    },
    /// Who has the CPU.
    RunsInstead {
        /// Whose node's.
        side: Side,
        /// Thread id.
        tid: u32,
        /// Thread name.
        comm: Comm,
        /// Its cgroup.
        cgroup: Label,
    },
    /// Memory has to be fetched back.
    Memory {
        /// Whose process.
        side: Side,
        /// Major faults within the span.
        major_faults: u64,
        /// Pages thrown out and fetched back within the span.
        refaults: u64,
        /// Time that somebody waited for memory, ns.
        pressure_ns: u64,
        /// The span, ns.
        over_ns: u64,
    },
    /// The other end of a connection that the thread waits for.
    WaitsForSocket {
        /// Whose thread.
        side: Side,
        /// The other end.
        peer: SocketAddr,
    },
    /// What TCP says of the flow.
    Tcp {
        /// Segments not acknowledged.
        unacked: u32,
        /// Bytes written and not yet sent.
        unsent_bytes: u32,
        /// Window that the peer offers, bytes.
        send_window: u32,
        /// Retransmission timeout, ns.
        rto_ns: u64,
    },
    /// The node stood still.
    NodePaused {
        /// For how long nothing ran, ns.
        for_ns: u64,
        /// Time stolen by the hypervisor, ns.
        steal_ns: u64,
    },
    /// What was looked for and not found.
    RuledOut {
        /// The causes.
        causes: CauseSet,
    },
}

impl Fact {
    /// Whose it is; None for what is between the two.
    #[must_use]
    pub const fn side(&self) -> Option<Side> {
        match self {
            Self::ThreadState { side, .. }
            | Self::Unread { side, .. }
            | Self::ThreadWaits { side, .. }
            | Self::Device { side, .. }
            | Self::Frozen { side, .. }
            | Self::Throttled { side, .. }
            | Self::CpuTime { side, .. }
            | Self::RunsInstead { side, .. }
            | Self::Memory { side, .. }
            | Self::WaitsForSocket { side, .. } => Some(*side),
            Self::Unanswered { .. }
            | Self::Silent { .. }
            | Self::Unacknowledged { .. }
            | Self::FlowClosed { .. }
            | Self::Tcp { .. }
            | Self::NodePaused { .. }
            | Self::RuledOut { .. } => None,
        }
    }
}

/// Several causes.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CauseSet(u16);

impl CauseSet {
    /// With this one too.
    #[must_use]
    pub const fn with(self, cause: Cause) -> Self {
        Self(self.0 | 1 << cause as u16)
    }

    /// Whether it is one of them.
    #[must_use]
    pub const fn has(self, cause: Cause) -> bool {
        self.0 & 1 << cause as u16 != 0
    }
}

/// How many facts a verdict can carry.
pub const MAX_FACTS: usize = 6;

/// A cause and the facts under it.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// The cause.
    pub cause: Cause,
    /// The facts, most telling first.
    pub facts: [Option<Fact>; MAX_FACTS],
}

impl Verdict {
    /// Nothing proven, nothing measured.
    pub const UNKNOWN: Self = Self {
        cause: Cause::Unknown,
        facts: [None; MAX_FACTS],
    };

    /// The facts.
    pub fn facts(&self) -> impl Iterator<Item = &Fact> {
        self.facts.iter().flatten()
    }

    /// Adds a fact; one more than [`MAX_FACTS`] is left out.
    pub fn push(&mut self, fact: Fact) {
        if let Some(place) = self.facts.iter_mut().find(|place| place.is_none()) {
            *place = Some(fact);
        }
    }
}
