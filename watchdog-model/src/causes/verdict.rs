//! Which cause is charged for a late lease.
//!
//! In: [`Evidence`], what is measured on this end and, where the same daemon sees it, on the other.
//! Out: one [`Verdict`]. Never: a guess; `unknown` is an answer.
//!
//! The rules stand in a table, tried from the top: own node first, then the path, then the peer. The
//! first that is proven is the cause, and the facts of all that is true stand under it. A rule must
//! also *explain* the condition: a stopped client does not explain why the server does not answer
//! what was sent before.

use super::{Cause, Fact, Side, Verdict};
use crate::leases::note::Condition;
use crate::leases::observation::{CloseHow, Role, Stall, StallKind};
use crate::time::{MS, Mono};

/// Bytes that stay unacknowledged for less than this are ordinary: it is the shortest time after
/// which Linux retransmits (TCP_RTO_MIN).
const UNACKNOWLEDGED_LONG_NS: u64 = 200 * MS;

/// What is measured on one end of a flow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// Which end.
    pub role: Role,
    /// Where the renewal stands.
    pub condition: Condition,
    /// The stall of all threads that serve the flow.
    pub stall: Option<Stall>,
    /// Oldest request without an answer.
    pub pending_since: Option<Mono>,
    /// Oldest message that lies unread.
    pub unread_since: Option<Mono>,
    /// Newest thing that came from the other end.
    pub heard_at: Option<Mono>,
    /// Oldest bytes that the peer's TCP has not acknowledged.
    pub unacknowledged_since: Option<Mono>,
    /// Retransmissions since an acknowledgement moved.
    pub retransmits: u32,
    /// The flow's end.
    pub closed: Option<(Mono, Option<CloseHow>)>,
    /// The other end, where the same daemon sees it.
    pub peer: Option<PeerEvidence>,
}

/// What is measured on the other end of the same flow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeerEvidence {
    /// The stall of all threads that serve it there.
    pub stall: Option<Stall>,
    /// Oldest message that lies unread there.
    pub unread_since: Option<Mono>,
}

/// A rule: what it charges, and whether it is proven at a moment.
struct Row {
    cause: Cause,
    proven: fn(&Evidence, Mono) -> bool,
}

/// The rules, first to last.
const TABLE: &[Row] = &[
    Row {
        cause: Cause::ProcessStopped,
        proven: |evidence, _| own_node_explains(evidence) && is_stopped(evidence.stall),
    },
    Row {
        cause: Cause::NetworkLoss,
        proven: network_loss,
    },
    Row {
        cause: Cause::PeerDown,
        proven: peer_down,
    },
    Row {
        // The grantor's (or holder's) own cause, measured there by this same daemon.
        cause: Cause::ProcessStopped,
        proven: |evidence, _| {
            peer_explains(evidence) && is_stopped(evidence.peer.and_then(|peer| peer.stall))
        },
    },
    Row {
        cause: Cause::PeerSilent,
        proven: |evidence, _| peer_explains(evidence),
    },
];

fn is_stopped(stall: Option<Stall>) -> bool {
    stall.is_some_and(|stall| matches!(stall.kind, StallKind::Stopped | StallKind::Frozen))
}

/// Whether the own node may be why the renewal stands where it does.
fn own_node_explains(evidence: &Evidence) -> bool {
    !matches!(
        evidence.condition,
        Condition::RenewalUnanswered | Condition::RenewalStuckSending | Condition::HolderSilent
    )
}

/// Whether it is for the other end to move.
fn peer_explains(evidence: &Evidence) -> bool {
    match evidence.condition {
        Condition::RenewalUnanswered | Condition::HolderSilent => true,
        // The holder gave up on a peer that did not answer.
        Condition::ConnectionLost => {
            evidence.role == Role::Holder
                && evidence.pending_since.is_some()
                && matches!(evidence.closed, Some((_, Some(CloseHow::OwnClose) | None)))
        }
        _ => false,
    }
}

fn network_loss(evidence: &Evidence, now: Mono) -> bool {
    let gave_up = matches!(evidence.closed, Some((_, Some(CloseHow::TimedOut))));
    let unacknowledged_long = evidence
        .unacknowledged_since
        .is_some_and(|since| now.since(since) >= UNACKNOWLEDGED_LONG_NS);
    gave_up || (evidence.retransmits > 0 && unacknowledged_long)
}

fn peer_down(evidence: &Evidence, _: Mono) -> bool {
    evidence.role == Role::Holder
        && matches!(
            evidence.closed,
            Some((_, Some(CloseHow::PeerFin | CloseHow::PeerReset)))
        )
}

/// The cause that is proven, and the facts under it.
#[must_use]
pub fn verdict(evidence: &Evidence, now: Mono) -> Verdict {
    let row = TABLE.iter().find(|row| (row.proven)(evidence, now));
    let mut verdict = Verdict {
        cause: row.map_or(Cause::Unknown, |row| row.cause),
        ..Verdict::UNKNOWN
    };
    for fact in facts(evidence, now).into_iter().flatten() {
        verdict.push(fact);
    }
    verdict
}

fn stall_fact(side: Side, stall: Stall, now: Mono) -> Fact {
    Fact::ThreadState {
        side,
        tid: stall.tid,
        comm: stall.comm,
        state: stall.kind,
        for_ns: now.since(stall.since),
    }
}

/// All that is true, most telling first: stalls, then what they hold up, then the path.
fn facts(evidence: &Evidence, now: Mono) -> [Option<Fact>; 8] {
    let peer = evidence.peer;
    let unread = |side, since: Option<Mono>| {
        since.map(|since| Fact::Unread {
            side,
            for_ns: now.since(since),
        })
    };
    [
        evidence
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
        unread(Side::Own, evidence.unread_since),
        unread(Side::Peer, peer.and_then(|peer| peer.unread_since)),
        evidence
            .unacknowledged_since
            .map(|since| Fact::Unacknowledged {
                for_ns: now.since(since),
                retransmits: evidence.retransmits,
            }),
        evidence.pending_since.map(|since| Fact::Unanswered {
            for_ns: now.since(since),
        }),
        evidence
            .heard_at
            .filter(|_| evidence.condition == Condition::HolderSilent)
            .map(|at| Fact::Silent {
                for_ns: now.since(at),
            }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::ms;

    const COMM: [u8; 16] = *b"QuorumPeer\0\0\0\0\0\0";

    fn evidence(role: Role, condition: Condition) -> Evidence {
        Evidence {
            role,
            condition,
            stall: None,
            pending_since: None,
            unread_since: None,
            heard_at: None,
            unacknowledged_since: None,
            retransmits: 0,
            closed: None,
            peer: None,
        }
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
        own.stall = Some(stopped(Mono(ms(100))));
        own.unread_since = Some(Mono(ms(400)));
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
        own.stall = Some(stopped(Mono(0)));
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
            own.peer = Some(PeerEvidence {
                stall: Some(stopped(Mono(ms(5)))),
                unread_since: Some(Mono(ms(6))),
            });
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
        own.unacknowledged_since = Some(Mono(0));
        assert_eq!(verdict(&own, Mono(ms(500))).cause, Cause::Unknown);
        own.retransmits = 1;
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
        own.stall = Some(Stall {
            kind: StallKind::Uninterruptible,
            ..stopped(Mono(0))
        });
        let verdict = verdict(&own, Mono(ms(1)));
        assert_eq!(verdict.cause, Cause::Unknown);
        assert_eq!(verdict.facts().count(), 1);
    }

    #[test]
    fn the_table_goes_from_own_node_to_path_to_peer() {
        let first = |cause| TABLE.iter().position(|row| row.cause == cause);
        assert!(first(Cause::ProcessStopped) < first(Cause::NetworkLoss));
        assert!(first(Cause::NetworkLoss) < first(Cause::PeerDown));
        assert!(first(Cause::PeerDown) < first(Cause::PeerSilent));
    }
}
