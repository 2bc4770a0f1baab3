//! What one flow shows at one moment. In: copied from the kernel's flow slot and the watched
//! threads by the tick (or read from a recording, or made by the simulated world). Plain data.
//!
//! "Request" is what the holder sends, "reply" what the grantor sends, at both ends. Times are
//! those at which *this end's kernel* saw the thing.

use std::net::SocketAddr;

use crate::time::Mono;

/// Which end of the flow this node is.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Renews the lease.
    Holder,
    /// Grants and expires it.
    Grantor,
}

/// Names one flow for as long as it is known: slot index in the low, slot generation in the high half.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey(pub u64);

/// A thread or process name as the kernel keeps it (TASK_COMM_LEN), zero-padded, any bytes.
pub type Comm = [u8; 16];

/// Both addresses of a flow, normalised (`::ffff:a.b.c.d` is `a.b.c.d`).
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoints {
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
}

/// Who owns this end of the flow, once a thread has read or written it.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Process id (tgid) in the daemon's pid namespace.
    pub pid: u32,
    /// Name of the thread that last touched the flow.
    pub comm: Comm,
    /// Identity of the executable (device and inode hashed; never its name); 0 while unknown.
    pub executable: u64,
}

/// A ConnectRequest seen on the flow.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// When it was sent (holder) or arrived (grantor).
    pub at: Mono,
    /// The timeout that the client asks for, milliseconds as on the wire (negative is possible garbage).
    pub asked_timeout_ms: i32,
    /// The session it wants back; 0 asks for a new one.
    pub session: u64,
}

/// A ConnectResponse seen on the flow.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// When it arrived (holder) or was sent (grantor).
    pub at: Mono,
    /// The negotiated timeout, milliseconds; 0 (or less): the session asked for has expired.
    pub timeout_ms: i32,
    /// The session granted; 0 when expired.
    pub session: u64,
}

/// How this end of a flow came to its end.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseHow {
    /// The peer sent FIN first.
    PeerFin,
    /// The peer sent RST.
    PeerReset,
    /// Our own process closed (or reset) it and lives on.
    OwnClose,
    /// Our own process exited.
    OwnExit,
    /// TCP gave up: retransmissions or keepalive probes without answer.
    TimedOut,
}

/// The end of a flow.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// When the state left ESTABLISHED.
    pub at: Mono,
    /// Who ended it.
    pub how: CloseHow,
}

/// Why a thread makes no progress although it should.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StallKind {
    /// Signal-stopped or traced (state T or t).
    Stopped,
    /// Its cgroup is frozen.
    Frozen,
    /// Uninterruptible sleep (state D).
    Uninterruptible,
    /// Runnable, with less than 5 % of the last window (700 ms) on a CPU.
    Starved,
}

/// A stall of one thread or, for a flow, of *every* thread that served its last renewals.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Since when.
    pub since: Mono,
    /// Of which kind (of the thread that stalled last).
    pub kind: StallKind,
    /// The thread.
    pub tid: u32,
    /// Its name.
    pub comm: Comm,
}

/// How much of a flow's stream is seen. Recordings keep it as they kept, before there was a third, whether
/// it is `FromStart`.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sight {
    /// Its frames, but a handshake may have gone past before.
    MidStream,
    /// Its frames from the first byte on: a handshake cannot have been missed.
    FromStart,
    /// Only when data went and came, not what it was.
    ByTiming,
}

/// One flow of one lease, at one moment.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowObservation {
    /// The flow.
    pub key: FlowKey,
    /// Index of the config entry (`leases[entry]`) whose ports it matches.
    pub entry: u16,
    /// Which end this is.
    pub role: Role,
    /// Its addresses.
    pub endpoints: Endpoints,
    /// When the flow was established or, for one older than the daemon, first seen.
    pub opened_at: Mono,
    /// How much of its stream is seen.
    pub sight: Sight,
    /// Who owns this end.
    pub owner: Option<Owner>,

    /// Newest ConnectRequest.
    pub hello: Option<Hello>,
    /// Newest ConnectResponse.
    pub welcome: Option<Welcome>,
    /// What is known of it from before a restart of the daemon.
    pub remembered: Option<Remembered>,
    /// Whether both directions' frames are being followed. While false, times below may be stale,
    /// and nothing may be concluded from silence.
    pub synchronised: bool,
    /// When it last became false; None if it never was.
    pub unsynchronised_at: Option<Mono>,

    /// Newest request: sent (holder: `s`) or arrived (grantor: `n`).
    pub request_at: Option<Mono>,
    /// Number of requests seen so far on this flow.
    pub requests: u64,
    /// Send time (holder) or arrival time (grantor) of the newest request that has been answered
    /// (holder: `a`).
    pub answered_at: Option<Mono>,
    /// Number of request-to-reply times taken so far (see `rtt_ns`).
    pub answers: u64,
    /// Newest request-to-reply time, ns.
    pub rtt_ns: u64,
    /// When the answer to that request came (holder: its first byte) or was sent (grantor).
    pub answer_at: Option<Mono>,
    /// TCP's smoothed round trip time at this end, ns; 0: not known.
    pub srtt_ns: u64,
    /// The lease that its renewals name, where each of them does; 0 is none.
    pub lease_id: Option<u64>,
    /// The timeout that something else than a handshake told on the wire, ns.
    pub told_timeout_ns: Option<u64>,
    /// Same stamp as `request_at` semantics, of the *oldest* request that is not answered yet.
    pub pending_since: Option<Mono>,
    /// Number of keepalives (ZooKeeper xid −2) seen.
    pub keepalives: u64,
    /// Idle gap before the newest keepalive: from the send of anything before it, ns; 0 if none.
    pub keepalive_gap_ns: u64,
    /// When a closeSession request was seen.
    pub close_request_at: Option<Mono>,

    /// Newest complete reply: arrived (holder) or sent (grantor: `r`).
    pub reply_at: Option<Mono>,
    /// When a reply with err −112 (session expired) was seen.
    pub expired_reply_at: Option<Mono>,

    /// When the application last read, such that everything complete at an earlier moment was read:
    /// requests at a grantor (`p`), replies at a holder (`r`).
    pub read_at: Option<Mono>,
    /// Arrival of the oldest complete message that the application has not read.
    pub unread_since: Option<Mono>,
    /// Newest arrival-to-read time, ns, and how many were taken.
    pub unread_ns: u64,
    /// Number of arrival-to-read times taken.
    pub reads: u64,

    /// Since when bytes written by the application have not left (window shut, no route); None: all sent.
    pub unsent_since: Option<Mono>,
    /// Since when sent bytes have not been acknowledged by the peer's TCP; None: all acknowledged.
    pub unacknowledged_since: Option<Mono>,
    /// Retransmissions since the last acknowledgement that moved.
    pub retransmits: u32,

    /// The stall of every serving thread, if there is one now (any length; the rules ask how long).
    pub stall: Option<Stall>,
    /// The flow's end.
    pub closed: Option<Closed>,
}

/// What an earlier run of the daemon knew of a flow.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Session id; 0: not known.
    pub session: u64,
    /// Timeout, ns, and where it came from; 0: not known.
    pub timeout_ns: u64,
    /// Source of `timeout_ns`.
    pub timeout_source: TimeoutSource,
    /// Learned cadence, ns; 0: not known.
    pub cadence_ns: u64,
}

/// Where a lease's timeout is known from, best last.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TimeoutSource {
    /// Guessed from the cadence: three times it. Never alone a reason to go beyond `at_risk`.
    Inferred,
    /// Written in the configuration.
    Config,
    /// Read on the wire.
    Handshake,
}

impl FlowObservation {
    /// A flow of which only the opening is known.
    #[must_use]
    pub fn opened(
        key: FlowKey,
        entry: u16,
        role: Role,
        endpoints: Endpoints,
        opened_at: Mono,
    ) -> Self {
        Self {
            key,
            entry,
            role,
            endpoints,
            opened_at,
            sight: Sight::FromStart,
            owner: None,
            hello: None,
            welcome: None,
            remembered: None,
            synchronised: true,
            unsynchronised_at: None,
            request_at: None,
            requests: 0,
            answered_at: None,
            answers: 0,
            rtt_ns: 0,
            answer_at: None,
            srtt_ns: 0,
            lease_id: None,
            told_timeout_ns: None,
            pending_since: None,
            keepalives: 0,
            keepalive_gap_ns: 0,
            close_request_at: None,
            reply_at: None,
            expired_reply_at: None,
            read_at: None,
            unread_since: None,
            unread_ns: 0,
            reads: 0,
            unsent_since: None,
            unacknowledged_since: None,
            retransmits: 0,
            stall: None,
            closed: None,
        }
    }
}
