//! Which cause is charged for a late lease.
//!
//! In: [`Evidence`], what is measured on this end and, where the same daemon sees it, on the other.
//! Out: one [`Verdict`]. Never: a guess; `unknown` is an answer.
//!
//! The rules stand in tables, tried from the top: own node first, then the path, then the peer, of
//! which the own node's rules are tried again with what is measured over there. The first that is
//! proven is the cause, with its proof on top; whatever else is true stands under it. A rule must
//! also *explain* the condition: a stopped client does not explain why the server does not answer
//! what was sent before.

use super::collected::{Collected, TcpLook, ThreadLook};
use super::{Cause, CauseSet, Fact, Side, Verdict, elsewhere, node, path, peer, process};
use crate::leases::note::Condition;
use crate::leases::observation::{CloseHow, Role, Stall};
use crate::time::{Mono, SECOND};

/// How long a device must have completed nothing, a node have stood still, to be a cause. The same
/// second that a thread must stand still for to be proof (`hard_stall`).
pub const HARD_STALL_NS: u64 = SECOND;
/// What was gathered longer ago than this is no evidence for now. It is gathered every half second
/// while a lease is late.
pub const FRESH_NS: u64 = 2 * SECOND;
/// After this time in a condition something should have been gathered: a stall is late after a
/// second, and the first answer takes some hundred milliseconds more.
const LOOKS_DUE_NS: u64 = 2 * SECOND;

/// What is measured on one end of a flow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct End<'a> {
    /// Whether it is this end or the other.
    pub side: Side,
    /// Which end.
    pub role: Role,
    /// Where the renewal stands.
    pub condition: Condition,
    /// Since when.
    pub since: Mono,
    /// The stall of all threads that serve the flow.
    pub stall: Option<Stall>,
    /// Oldest message that lies unread.
    pub unread_since: Option<Mono>,
    /// Oldest bytes that the other end's TCP has not acknowledged.
    pub unacknowledged_since: Option<Mono>,
    /// Retransmissions since an acknowledgement moved.
    pub retransmits: u32,
    /// What was gathered last.
    pub collected: Option<&'a Collected>,
}

impl<'a> End<'a> {
    /// What was gathered, if it is of now.
    #[must_use]
    pub fn looks(&self, now: Mono) -> Option<&'a Collected> {
        self.collected
            .filter(|collected| now.since(collected.at) <= FRESH_NS)
    }

    /// The fact that bytes are not acknowledged.
    #[must_use]
    pub fn unacknowledged(&self, now: Mono) -> Option<Fact> {
        self.unacknowledged_since.map(|since| Fact::Unacknowledged {
            for_ns: now.since(since),
            retransmits: self.retransmits,
        })
    }

    /// Whether something should have been gathered by now.
    #[must_use]
    pub fn is_overdue_for_looks(&self, now: Mono) -> bool {
        now.since(self.since) >= LOOKS_DUE_NS
    }
}

/// All that is measured of a lease.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence<'a> {
    /// This end.
    pub own: End<'a>,
    /// The other end, where the same daemon sees it.
    pub peer: Option<End<'a>>,
    /// Oldest request without an answer.
    pub pending_since: Option<Mono>,
    /// Newest thing that came from the other end.
    pub heard_at: Option<Mono>,
    /// The flow's end.
    pub closed: Option<(Mono, Option<CloseHow>)>,
    /// For how long the whole node stood still before or while this was late, ns.
    pub paused_ns: Option<u64>,
}

/// A rule about one end's own node: whether it is proven; if so, it puts its proof into the verdict.
struct NodeRule {
    cause: Cause,
    proven: fn(&End<'_>, Mono, &mut Verdict) -> bool,
    /// Whether a thread may be so because the connection is gone: it waits to try again.
    fits_reconnecting: bool,
}

/// A rule about the path or the peer.
struct Rule {
    cause: Cause,
    proven: fn(&Evidence<'_>, Mono, &mut Verdict) -> bool,
}

/// The own node's rules, first to last.
const NODE: &[NodeRule] = &[
    NodeRule {
        cause: Cause::ProcessStopped,
        proven: process::stopped,
        fits_reconnecting: false,
    },
    NodeRule {
        cause: Cause::DiskStall,
        proven: node::disk,
        fits_reconnecting: false,
    },
    NodeRule {
        cause: Cause::MemoryPressure,
        proven: node::memory,
        fits_reconnecting: false,
    },
    NodeRule {
        cause: Cause::CpuThrottled,
        proven: node::throttled,
        fits_reconnecting: false,
    },
    NodeRule {
        cause: Cause::CpuStarved,
        proven: node::starved,
        fits_reconnecting: false,
    },
    NodeRule {
        cause: Cause::RuntimePause,
        proven: node::runtime,
        fits_reconnecting: false,
    },
    NodeRule {
        cause: Cause::LockWait,
        proven: node::lock,
        fits_reconnecting: true,
    },
    NodeRule {
        cause: Cause::ThreadBusy,
        proven: node::busy,
        fits_reconnecting: true,
    },
    NodeRule {
        cause: Cause::WaitingElsewhere,
        proven: elsewhere::elsewhere,
        fits_reconnecting: true,
    },
];

/// The path's and the peer's rules, first to last. Between the window and the silence stands what
/// is measured at the peer.
const PATH: &[Rule] = &[
    Rule {
        cause: Cause::NetworkLoss,
        proven: path::network_loss,
    },
    Rule {
        cause: Cause::PeerDown,
        proven: peer::down,
    },
    Rule {
        cause: Cause::PeerWindow,
        proven: peer::window,
    },
];

/// Whether the own node may be why the renewal stands where it does.
fn own_node_explains(evidence: &Evidence<'_>) -> bool {
    !matches!(
        evidence.own.condition,
        Condition::RenewalUnanswered | Condition::RenewalStuckSending | Condition::HolderSilent
    )
}

/// The node rule that is proven of an end.
fn of_node(end: &End<'_>, now: Mono, verdict: &mut Verdict) -> Option<Cause> {
    let reconnects = end.condition == Condition::ConnectionLost;
    NODE.iter()
        .filter(|rule| !(reconnects && rule.fits_reconnecting))
        .find(|rule| (rule.proven)(end, now, verdict))
        .map(|rule| rule.cause)
}

fn cause_of(evidence: &Evidence<'_>, now: Mono, verdict: &mut Verdict) -> Cause {
    let steal_ns = evidence.own.looks(now).map_or(0, |looks| looks.steal_ns);
    if let Some(paused_ns) = evidence.paused_ns
        && node::pause(paused_ns, steal_ns, verdict)
    {
        return Cause::NodePause;
    }
    if own_node_explains(evidence)
        && let Some(cause) = of_node(&evidence.own, now, verdict)
    {
        return cause;
    }
    if let Some(rule) = PATH
        .iter()
        .find(|rule| (rule.proven)(evidence, now, verdict))
    {
        return rule.cause;
    }
    if !peer::explains(evidence) {
        return Cause::Unknown;
    }
    // The grantor's (or holder's) own cause, measured there by this same daemon; and what it sends
    // may be lost on the way here.
    if let Some(end) = &evidence.peer {
        if let Some(cause) = of_node(end, now, verdict) {
            return cause;
        }
        if path::is_lost(end, now, verdict) {
            return Cause::NetworkLoss;
        }
    }
    if peer::silent(evidence, now, verdict) {
        return Cause::PeerSilent;
    }
    Cause::Unknown
}

/// The cause that is proven, and the facts under it.
#[must_use]
pub fn verdict(evidence: &Evidence<'_>, now: Mono) -> Verdict {
    let mut verdict = Verdict::UNKNOWN;
    verdict.cause = cause_of(evidence, now, &mut verdict);
    for fact in facts(evidence, now).into_iter().flatten() {
        if !verdict.facts().any(|known| *known == fact) {
            verdict.push(fact);
        }
    }
    if verdict.cause == Cause::Unknown
        && own_node_explains(evidence)
        && let Some(looks) = evidence.own.looks(now)
    {
        if let Some(thread) = looks.threads.iter().flatten().next() {
            verdict.push(thread_fact(Side::Own, thread));
        }
        let causes = NODE
            .iter()
            .fold(CauseSet::default(), |set, rule| set.with(rule.cause));
        verdict.push(Fact::RuledOut { causes });
    }
    verdict
}

/// A thread's stall as a fact.
pub(super) fn stall_fact(side: Side, stall: Stall, now: Mono) -> Fact {
    Fact::ThreadState {
        side,
        tid: stall.tid,
        comm: stall.comm,
        state: stall.kind,
        for_ns: now.since(stall.since),
    }
}

/// What a thread does as a fact.
pub(super) fn thread_fact(side: Side, thread: &ThreadLook) -> Fact {
    Fact::ThreadWaits {
        side,
        part: thread.part,
        tid: thread.tid,
        comm: thread.comm,
        doing: thread.doing,
        at: thread.at,
    }
}

/// The flow's TCP as a fact.
pub(super) fn tcp_fact(tcp: &TcpLook) -> Fact {
    Fact::Tcp {
        unacked: tcp.unacked,
        unsent_bytes: tcp.unsent_bytes,
        send_window: tcp.send_window,
        rto_ns: tcp.rto_ns,
    }
}

/// All that is true, most telling first: stalls, then what they hold up, then the path.
fn facts(evidence: &Evidence<'_>, now: Mono) -> [Option<Fact>; 8] {
    let peer = evidence.peer;
    let unread = |side, since: Option<Mono>| {
        since.map(|since| Fact::Unread {
            side,
            for_ns: now.since(since),
        })
    };
    [
        evidence
            .own
            .stall
            .map(|stall| stall_fact(Side::Own, stall, now)),
        peer.and_then(|peer| peer.stall)
            .map(|stall| stall_fact(Side::Peer, stall, now)),
        evidence.closed.and_then(|(at, how)| {
            Some(Fact::FlowClosed {
                how: how?,
                for_ns: now.since(at),
            })
        }),
        unread(Side::Own, evidence.own.unread_since),
        unread(Side::Peer, peer.and_then(|peer| peer.unread_since)),
        evidence.own.unacknowledged(now),
        evidence.pending_since.map(|since| Fact::Unanswered {
            for_ns: now.since(since),
        }),
        evidence
            .heard_at
            .filter(|_| evidence.own.condition == Condition::HolderSilent)
            .map(|at| Fact::Silent {
                for_ns: now.since(at),
            }),
    ]
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::collected::{Doing, Part, Wait};
    use super::super::text::Label;
    use super::*;
    use crate::leases::observation::StallKind;
    use crate::time::ms;

    const COMM: [u8; 16] = *b"QuorumPeer\0\0\0\0\0\0";

    /// A moment for tests.
    pub const NOW: Mono = Mono(ms(10_000));

    fn end(side: Side, role: Role, condition: Condition) -> End<'static> {
        End {
            side,
            role,
            condition,
            since: Mono(0),
            stall: None,
            unread_since: None,
            unacknowledged_since: None,
            retransmits: 0,
            collected: None,
        }
    }

    /// An end of this role of which nothing but its condition is known.
    pub fn evidence(role: Role, condition: Condition) -> Evidence<'static> {
        Evidence {
            own: end(Side::Own, role, condition),
            peer: None,
            pending_since: None,
            heard_at: None,
            closed: None,
            paused_ns: None,
        }
    }

    /// A stall of this kind, two seconds old.
    pub fn stall(kind: StallKind) -> Stall {
        Stall {
            kind,
            ..stopped(NOW.minus(ms(2_000)))
        }
    }

    /// A thread that is measured over 100 ms and neither ran nor waited.
    pub fn thread(part: Part, doing: Doing) -> ThreadLook {
        ThreadLook {
            part,
            tid: 7,
            comm: COMM,
            doing,
            wait: Wait::None,
            at: Label::EMPTY,
            ran_ns: 0,
            waited_ns: 0,
            major_faults: 0,
            over_ns: ms(100),
        }
    }

    /// These threads, gathered just now.
    pub fn looks_of<const N: usize>(threads: [Option<ThreadLook>; N]) -> Collected {
        let mut looks = Collected::nothing(NOW.minus(ms(100)));
        looks.threads[..N].copy_from_slice(&threads);
        looks
    }

    /// The cause of a holder's renewal that is not sent.
    pub fn cause_of(stall: Option<Stall>, looks: Option<Collected>) -> Cause {
        let mut own = evidence(Role::Holder, Condition::RenewalNotSent);
        own.own.stall = stall;
        own.own.collected = looks.as_ref();
        own.own.since = NOW.minus(ms(100));
        verdict(&own, NOW).cause
    }

    fn stopped(since: Mono) -> Stall {
        Stall {
            since,
            kind: StallKind::Stopped,
            tid: 138_783,
            comm: COMM,
        }
    }

    #[test]
    fn a_stopped_process_is_charged_before_the_peer() {
        let mut own = evidence(Role::Holder, Condition::ReplyUnread);
        own.own.stall = Some(stopped(Mono(ms(100))));
        own.own.unread_since = Some(Mono(ms(400)));
        let verdict = verdict(&own, Mono(ms(1_100)));
        assert_eq!(verdict.cause, Cause::ProcessStopped);
        assert_eq!(
            verdict.facts[0],
            Some(Fact::ThreadState {
                side: Side::Own,
                tid: 138_783,
                comm: COMM,
                state: StallKind::Stopped,
                for_ns: ms(1_000)
            })
        );
        assert_eq!(verdict.facts().count(), 2);
    }

    #[test]
    fn an_own_stop_does_not_explain_an_answer_that_does_not_come() {
        let mut own = evidence(Role::Holder, Condition::RenewalUnanswered);
        own.own.stall = Some(stopped(Mono(0)));
        own.pending_since = Some(Mono(0));
        assert_eq!(verdict(&own, Mono(ms(900))).cause, Cause::PeerSilent);
    }

    #[test]
    fn the_peers_own_cause_takes_the_place_of_its_silence() {
        for (role, condition) in [
            (Role::Holder, Condition::RenewalUnanswered),
            (Role::Grantor, Condition::HolderSilent),
        ] {
            let mut own = evidence(role, condition);
            let other = if role == Role::Holder {
                Role::Grantor
            } else {
                Role::Holder
            };
            let mut peer = end(Side::Peer, other, Condition::None);
            peer.stall = Some(stopped(Mono(ms(5))));
            peer.unread_since = Some(Mono(ms(6)));
            own.peer = Some(peer);
            let verdict = verdict(&own, Mono(ms(905)));
            assert_eq!(verdict.cause, Cause::ProcessStopped);
            assert!(matches!(
                verdict.facts[0],
                Some(Fact::ThreadState { side: Side::Peer, for_ns, .. }) if for_ns == ms(900)
            ));
        }
    }

    #[test]
    fn loss_needs_retransmissions_and_time() {
        let mut own = evidence(Role::Holder, Condition::RenewalStuckSending);
        own.own.unacknowledged_since = Some(Mono(0));
        assert_eq!(verdict(&own, Mono(ms(500))).cause, Cause::Unknown);
        own.own.retransmits = 1;
        assert_eq!(verdict(&own, Mono(ms(200) - 1)).cause, Cause::Unknown);
        assert_eq!(verdict(&own, Mono(ms(200))).cause, Cause::NetworkLoss);
    }

    #[test]
    fn who_ended_the_flow_decides() {
        let cause = |role, how| {
            let mut own = evidence(role, Condition::ConnectionLost);
            own.closed = Some((Mono(0), Some(how)));
            own.pending_since = Some(Mono(0));
            verdict(&own, Mono(ms(1))).cause
        };
        assert_eq!(cause(Role::Holder, CloseHow::PeerReset), Cause::PeerDown);
        assert_eq!(cause(Role::Holder, CloseHow::PeerFin), Cause::PeerDown);
        assert_eq!(cause(Role::Holder, CloseHow::TimedOut), Cause::NetworkLoss);
        assert_eq!(cause(Role::Holder, CloseHow::OwnClose), Cause::PeerSilent);
        assert_eq!(cause(Role::Grantor, CloseHow::PeerFin), Cause::Unknown);
    }

    #[test]
    fn other_stalls_are_told_but_not_charged_yet() {
        let mut own = evidence(Role::Grantor, Condition::RenewalUnread);
        own.own.stall = Some(Stall {
            kind: StallKind::Uninterruptible,
            ..stopped(Mono(0))
        });
        let verdict = verdict(&own, Mono(ms(1)));
        assert_eq!(verdict.cause, Cause::Unknown);
        assert_eq!(verdict.facts().count(), 1);
    }

    #[test]
    fn the_tables_go_in_the_causes_own_order() {
        assert!(NODE.is_sorted_by_key(|rule| rule.cause));
        assert!(PATH.is_sorted_by_key(|rule| rule.cause));
        let last = NODE.last().unwrap().cause;
        assert!(last < PATH.first().unwrap().cause);
        assert!(PATH.last().unwrap().cause < Cause::PeerSilent);
    }

    #[test]
    fn a_cause_over_there_takes_the_place_of_silence() {
        let mut hung = thread(Part::Other, Doing::Uninterruptible);
        hung.wait = Wait::File;
        let mut idle = thread(Part::Serving, Doing::Sleeping);
        idle.wait = Wait::Own;
        let looks = looks_of([Some(idle), Some(hung)]);
        let mut peer = end(Side::Peer, Role::Grantor, Condition::RenewalUnprocessed);
        let mut own = evidence(Role::Holder, Condition::RenewalUnanswered);
        own.pending_since = Some(NOW.minus(ms(1_500)));
        peer.collected = Some(&looks);
        own.peer = Some(peer);
        assert_eq!(verdict(&own, NOW).cause, Cause::PeerSilent);
        let mut looks = looks;
        looks.device = Some(super::super::collected::DeviceLook {
            name: super::super::text::Text::end_of(b"sda"),
            proven: true,
            in_flight: 1,
            silent_ns: Some(HARD_STALL_NS),
            oldest_ns: None,
            committing_ns: None,
        });
        peer.collected = Some(&looks);
        own.peer = Some(peer);
        let found = verdict(&own, NOW);
        assert_eq!(found.cause, Cause::DiskStall);
        assert!(matches!(
            found.facts[0],
            Some(Fact::ThreadWaits {
                side: Side::Peer,
                part: Part::Other,
                ..
            })
        ));
    }

    #[test]
    fn what_was_gathered_long_ago_proves_nothing() {
        let mut looks = looks_of([Some(thread(Part::Serving, Doing::Stopped))]);
        assert_eq!(
            super::tests::cause_of(None, Some(looks)),
            Cause::ProcessStopped
        );
        looks.at = NOW.minus(FRESH_NS + 1);
        assert_eq!(super::tests::cause_of(None, Some(looks)), Cause::Unknown);
    }

    #[test]
    fn who_tries_to_reconnect_is_not_charged_for_waiting() {
        let mut waits = thread(Part::Serving, Doing::Sleeping);
        waits.wait = Wait::Time;
        let looks = looks_of([Some(waits)]);
        let mut own = evidence(Role::Holder, Condition::ConnectionLost);
        own.own.collected = Some(&looks);
        own.closed = Some((Mono(0), Some(CloseHow::PeerReset)));
        assert_eq!(verdict(&own, NOW).cause, Cause::PeerDown);
    }

    #[test]
    fn unknown_says_what_was_looked_for() {
        let mut idle = thread(Part::Serving, Doing::Sleeping);
        idle.wait = Wait::Own;
        let looks = looks_of([Some(idle)]);
        let mut own = evidence(Role::Holder, Condition::RenewalNotSent);
        own.own.collected = Some(&looks);
        let found = verdict(&own, NOW);
        assert_eq!(found.cause, Cause::Unknown);
        let Some(Fact::RuledOut { causes }) = found.facts[1] else {
            panic!("{found:?}");
        };
        assert!(causes.has(Cause::DiskStall) && !causes.has(Cause::NetworkLoss));
    }

    #[test]
    fn a_node_that_stood_still_is_charged_before_anybody_on_it() {
        let mut own = evidence(Role::Holder, Condition::RenewalNotSent);
        own.own.stall = Some(stall(StallKind::Stopped));
        own.paused_ns = Some(HARD_STALL_NS - 1);
        assert_eq!(verdict(&own, NOW).cause, Cause::ProcessStopped);
        own.paused_ns = Some(HARD_STALL_NS);
        assert_eq!(verdict(&own, NOW).cause, Cause::NodePause);
    }

    #[test]
    fn a_window_that_is_shut_is_the_peers() {
        let mut looks = Collected::nothing(NOW);
        let mut own = evidence(Role::Holder, Condition::RenewalStuckSending);
        looks.tcp = Some(TcpLook {
            unsent_bytes: 12,
            ..TcpLook::default()
        });
        own.own.collected = Some(&looks);
        assert_eq!(verdict(&own, NOW).cause, Cause::PeerWindow);
        let mut open = looks;
        open.tcp = Some(TcpLook {
            unsent_bytes: 12,
            send_window: 65_536,
            ..TcpLook::default()
        });
        own.own.collected = Some(&open);
        assert_eq!(verdict(&own, NOW).cause, Cause::Unknown);
    }
}
