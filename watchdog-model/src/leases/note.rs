//! What the model says: leases seen, transitions, leases gone. Plain data of fixed size, so that
//! the tick can hand it on without allocating. Words and JSON are made of it elsewhere.

use std::net::SocketAddr;

use super::observation::{Endpoints, Owner, Role, TimeoutSource};
use crate::causes::Verdict;
use crate::time::Mono;

/// How far a lease is from lapsing, mildest first.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Renewals come as they always did.
    Healthy,
    /// Something is later than this flow's own normal.
    Late,
    /// Late, and half of the timeout is used up.
    AtRisk,
    /// The holder's own patience is over, or would be.
    Jeopardy,
    /// The grantor may expire it from now on.
    Lapsed,
}

/// Where a transition leads: a stage, or one of the two endings.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// To this stage.
    Stage(Stage),
    /// Renewed after having been late or worse; healthy from now on.
    Renewed,
    /// Expired, proven.
    Expired,
}

/// Where the renewal stands now.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// Nothing is wrong.
    None,
    /// Holder: due has passed, nothing outstanding, nothing sent.
    RenewalNotSent,
    /// Holder: written by the application, not yet sent or not yet acknowledged by the peer's TCP.
    RenewalStuckSending,
    /// Holder: acknowledged by TCP, no reply byte has come.
    RenewalUnanswered,
    /// Holder: the reply lies in our socket, the application does not read it.
    ReplyUnread,
    /// Grantor: the renewal lies in our socket, the application does not read it.
    RenewalUnread,
    /// Grantor: read, not answered.
    RenewalUnprocessed,
    /// Grantor: nothing came when it was due.
    HolderSilent,
    /// Nothing is due yet, but what serves the flow stands still.
    ThreadStalled,
    /// The flow closed or was reset, the session lives on; no new flow has taken it over yet.
    ConnectionLost,
    /// The owner process is gone without closing the session.
    HolderExited,
}

/// What a lease is called.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseId {
    /// A ZooKeeper session id.
    Session(u64),
    /// A lease without an id of its own: holder's and grantor's address.
    Flow {
        /// This end.
        local: SocketAddr,
        /// The other end.
        peer: SocketAddr,
    },
}

/// Names a lease inside one [`Book`](super::book::Book), stable for the lease's life.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseHandle(pub u64);

/// The lease that a note is about, as it stands at that moment.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Subject {
    /// Stable handle.
    pub handle: LeaseHandle,
    /// Config entry.
    pub entry: u16,
    /// Which end this node is.
    pub role: Role,
    /// Its name.
    pub id: LeaseId,
    /// Addresses of its newest flow.
    pub endpoints: Endpoints,
    /// Owner of this end, once known.
    pub owner: Option<Owner>,
    /// Timeout in ns; None: not known.
    pub timeout_ns: Option<u64>,
    /// Where the timeout is known from.
    pub timeout_source: TimeoutSource,
}

/// A change of stage, or of what is known of its cause (then `from` = `to`).
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transition {
    /// The lease.
    pub subject: Subject,
    /// Stage before; `Healthy` after `Renewed`.
    pub from: Stage,
    /// Where to.
    pub to: Outcome,
    /// Where the renewal stands.
    pub condition: Condition,
    /// Since when the condition holds (start of the stall, send time of the unanswered request, …).
    pub since: Mono,
    /// Cause and evidence.
    pub verdict: Verdict,
    /// floor − now, ns; negative after the floor; None while the timeout is only inferred.
    pub remaining_ns: Option<i64>,
    /// now − a (grantor: now − p), ns; None if no renewal has been seen.
    pub silent_ns: Option<u64>,
}

/// Why a lease is no longer followed.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GoneReason {
    /// Closed by its holder on the wire.
    Closed,
    /// Expired, proven.
    Expired,
    /// The holder's process went without closing it, and the floor has passed.
    HolderExited,
    /// Its flow went and nothing more was seen until it must have ended one way or the other.
    FlowLost,
}

/// A grantor expired a holder that had done its part.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FalseExpiry {
    /// The lease, at the grantor's end.
    pub subject: Subject,
    /// When the renewal arrived in this node's kernel, before the floor.
    pub arrived_at: Mono,
    /// When the application had read it, if ever.
    pub read_at: Option<Mono>,
    /// When the grantor closed the flow.
    pub expired_at: Mono,
    /// What delayed it.
    pub verdict: Verdict,
}

/// What the model says.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Note {
    /// First proof of a lease, or of its true id (`was` = the id it was known by until now).
    Seen {
        /// The lease.
        subject: Subject,
        /// Its earlier name.
        was: Option<LeaseId>,
    },
    /// A change of stage or cause.
    Transition(Transition),
    /// The lease has ended.
    Gone {
        /// The lease.
        subject: Subject,
        /// Why.
        reason: GoneReason,
    },
    /// The grantor was wrong.
    FalseExpiry(FalseExpiry),
}
