//! Causes: why a renewal is late, and the measured facts that prove it.

pub mod verdict;

use crate::leases::observation::{Comm, StallKind};

/// Why, in the order in which they are tried: own node first, then the path, then the peer.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// This end of the flow.
    Own,
    /// The other end, seen by the same daemon.
    Peer,
}

/// One measured fact.
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
}

/// How many facts a verdict can carry.
pub const MAX_FACTS: usize = 6;

/// A cause and the facts under it.
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
