//! All that the stage rules look at, for one lease at one moment. Plain data: the book keeps it up
//! to date from observations, tests write it by hand.

use super::normal::Normal;
use super::note::Condition;
use super::observation::{CloseHow, Role, Stall, TimeoutSource};
use super::settings::EntrySettings;
use crate::time::Mono;

/// A lease's length and how it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// Length, ns.
    pub ns: u64,
    /// Where it is known from.
    pub source: TimeoutSource,
}

/// A ConnectRequest for the lease that has not been answered: the grantor may already have touched
/// the lease with the timeout that it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconnect {
    /// When it was sent (holder) or arrived (grantor).
    pub at: Mono,
    /// The timeout it will get at least, ns.
    pub asked_ns: u64,
}

/// The lease's flow has ended and no other has taken it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// When.
    pub at: Mono,
    /// Who ended it; None: not seen.
    pub how: Option<CloseHow>,
}

/// A lateness that only a renewal ends. A client that gives up an unanswered connection and opens
/// another is no less late for it, though nothing is outstanding on the new one yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What was late.
    pub condition: Condition,
    /// Since when.
    pub since: Mono,
}

/// A time in which nobody looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Last look before.
    pub from: Mono,
    /// First look after.
    pub to: Mono,
    /// Whether nothing ran on the whole node meanwhile, and not only the daemon stood still.
    pub node: bool,
}

/// What is known of one lease.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeaseFacts {
    /// Which end this node is.
    pub role: Role,
    /// When the lease's flow was opened or first seen: where silence counts from if nothing was.
    pub opened_at: Mono,
    /// The timeout, if known.
    pub timeout: Option<Timeout>,
    /// The cadence if learned, shared or configured; None: the assumed share of the timeout.
    pub cadence_ns: Option<u64>,
    /// The newest renewal that the grantor has surely seen: `a` (holder: sent, and answered since)
    /// or `p` (grantor: read by the application).
    pub base: Option<Mono>,
    /// The newest request: `s` (holder: sent) or `n` (grantor: arrived).
    pub request_at: Option<Mono>,
    /// `r`, the newest reply: read by the application (holder) or sent (grantor).
    pub reply_at: Option<Mono>,
    /// When the newest handshake was answered: a client's cadence begins there.
    pub welcomed_at: Option<Mono>,
    /// Oldest unanswered request.
    pub pending_since: Option<Mono>,
    /// Oldest complete message that lies unread in this end's socket.
    pub unread_since: Option<Mono>,
    /// Oldest bytes written but not sent.
    pub unsent_since: Option<Mono>,
    /// Oldest bytes sent but not acknowledged.
    pub unacknowledged_since: Option<Mono>,
    /// Retransmissions since an acknowledgement moved.
    pub retransmits: u32,
    /// An unanswered ConnectRequest for this lease; of several, the one that lets it lapse first.
    pub reconnect: Option<Reconnect>,
    /// The stall of all serving threads.
    pub stall: Option<Stall>,
    /// The flow has ended.
    pub lost: Option<Loss>,
    /// What the lease has been late for since its newest renewal, if that cannot pass by itself.
    pub trouble: Option<Trouble>,
    /// Normal time from request to answer.
    pub answer_normal: Normal,
    /// Normal time from arrival to read.
    pub read_normal: Normal,
    /// The frames are not being followed: nothing may be concluded from silence.
    pub blind: bool,
    /// What was seen before this moment is out of date: silence counts from here at the earliest.
    pub fresh_from: Option<Mono>,
    /// The newest time in which nobody looked.
    pub gap: Option<Gap>,
}

impl LeaseFacts {
    /// A lease of which nothing is known but that its flow was opened.
    #[must_use]
    pub fn opened(role: Role, opened_at: Mono) -> Self {
        Self {
            role,
            opened_at,
            timeout: None,
            cadence_ns: None,
            base: None,
            request_at: None,
            reply_at: None,
            welcomed_at: None,
            pending_since: None,
            unread_since: None,
            unsent_since: None,
            unacknowledged_since: None,
            retransmits: 0,
            reconnect: None,
            stall: None,
            lost: None,
            trouble: None,
            answer_normal: Normal::default(),
            read_normal: Normal::default(),
            blind: false,
            fresh_from: None,
            gap: None,
        }
    }

    /// Whether the newest renewal known may not be the newest there was: requests may have gone
    /// past unseen since.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.blind
            || match (self.base, self.fresh_from) {
                (None, _) => true,
                (Some(base), Some(fresh_from)) => base < fresh_from,
                (Some(_), None) => false,
            }
    }

    /// Whether the holder has closed its connection of its own accord, with nothing outstanding, in
    /// a protocol where that is how a lease is given up. Should it come back, the lease goes on.
    #[must_use]
    pub fn is_goodbye(&self, settings: &EntrySettings) -> bool {
        let by_holder = matches!(
            (self.role, self.lost.and_then(|loss| loss.how)),
            (Role::Holder, Some(CloseHow::OwnClose)) | (Role::Grantor, Some(CloseHow::PeerFin))
        );
        let quiet =
            (self.pending_since, self.unread_since, self.unsent_since) == (None, None, None);
        !settings.has_goodbye && by_holder && quiet && self.trouble.is_none()
    }

    /// Whether the lease is between two connections, in a protocol where each renewal may have one of
    /// its own: silence is judged as if there were one.
    #[must_use]
    pub fn is_between(&self, settings: &EntrySettings) -> bool {
        let cut = matches!(
            self.lost.and_then(|loss| loss.how),
            Some(CloseHow::PeerReset | CloseHow::TimedOut)
        );
        settings.comes_and_goes && self.lost.is_some() && !cut && self.pending_since.is_none()
    }

    /// The cadence in use.
    #[must_use]
    pub fn cadence(&self, settings: &EntrySettings, timeout_ns: u64) -> u64 {
        settings
            .renew_every_ns
            .or(self.cadence_ns)
            .unwrap_or_else(|| settings.assumed_cadence.of(timeout_ns))
    }

    /// The earliest moment at which the grantor may expire the lease; None if that cannot be known:
    /// the timeout is only inferred, or renewals may have gone past unseen.
    #[must_use]
    pub fn floor(&self) -> Option<Mono> {
        let timeout = self.timeout?;
        if timeout.source == TimeoutSource::Inferred || self.is_stale() {
            return None;
        }
        let floor = self.base?.plus(timeout.ns);
        Some(match self.reconnect {
            Some(reconnect) => floor.min(reconnect.at.plus(reconnect.asked_ns.min(timeout.ns))),
            None => floor,
        })
    }

    /// The moment after which the lease must have ended if nothing more was heard of it.
    ///
    /// A grantor that has answered expires at the latest a timeout and a bucket after its answer. A
    /// request that was not answered may lie unread while the grantor stands still, and be read just
    /// before the bucket of the one before it is over: then all of that comes once more.
    #[must_use]
    pub fn latest_expiry(&self, settings: &EntrySettings) -> Mono {
        // Longest timeout in common use (20 ticks of 2 s), for leases whose own is not known.
        const UNKNOWN_TIMEOUT_NS: u64 = 40 * crate::time::SECOND;
        let timeout_ns = self
            .timeout
            .map_or(UNKNOWN_TIMEOUT_NS, |timeout| timeout.ns);
        // A follower tells its leader every half tick, the leader looks once a tick.
        let look_ns = settings.grantor_tick_ns() / 2 * 3;
        let answered_at = [self.base, self.reply_at, self.fresh_from]
            .into_iter()
            .flatten()
            .fold(self.opened_at, Mono::max);
        let mut latest = answered_at.plus(timeout_ns + look_ns);
        let unheard_at = self.request_at.max(self.unsent_since);
        if let Some(unheard_at) = unheard_at.filter(|at| Some(*at) > self.base) {
            latest = latest.max(unheard_at.plus(2 * (timeout_ns + look_ns)));
        }
        if let Some(reconnect) = self.reconnect {
            let longer_ns = timeout_ns.max(reconnect.asked_ns);
            latest = latest.max(reconnect.at.plus(timeout_ns + longer_ns + 2 * look_ns));
        }
        latest
    }
}
