//! The peer's causes, as they show from here: `peer_down`, `peer_window`, `peer_silent`.

use super::Verdict;
use super::verdict::{Evidence, tcp_fact};
use crate::leases::note::Condition;
use crate::leases::observation::{CloseHow, Role};
use crate::time::Mono;

/// Whether it is for the other end to move.
pub(super) fn explains(evidence: &Evidence<'_>) -> bool {
    match evidence.own.condition {
        Condition::RenewalUnanswered | Condition::HolderSilent => true,
        // The holder gave up on a peer that did not answer.
        Condition::ConnectionLost => {
            evidence.own.role == Role::Holder
                && evidence.pending_since.is_some()
                && matches!(evidence.closed, Some((_, Some(CloseHow::OwnClose) | None)))
        }
        _ => false,
    }
}

/// `peer_down`: the peer has closed or reset the connection.
pub(super) fn down(evidence: &Evidence<'_>, _: Mono, _: &mut Verdict) -> bool {
    evidence.own.role == Role::Holder
        && matches!(
            evidence.closed,
            Some((_, Some(CloseHow::PeerFin | CloseHow::PeerReset)))
        )
}

/// `peer_window`: bytes wait to be sent, and the peer offers no room for them.
pub(super) fn window(evidence: &Evidence<'_>, now: Mono, verdict: &mut Verdict) -> bool {
    let Some(tcp) = evidence.own.looks(now).and_then(|looks| looks.tcp) else {
        return false;
    };
    let stuck = evidence.own.condition == Condition::RenewalStuckSending;
    if !stuck || tcp.unsent_bytes == 0 || tcp.send_window >= tcp.unsent_bytes || tcp.unacked > 0 {
        return false;
    }
    verdict.push(tcp_fact(&tcp));
    true
}

/// `peer_silent`: its TCP answers, its application does not (or, of a holder, does not ask).
pub(super) fn silent(evidence: &Evidence<'_>, _: Mono, _: &mut Verdict) -> bool {
    explains(evidence)
}
