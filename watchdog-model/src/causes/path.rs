//! The path's causes: `network_loss`.
//!
//! Proof: bytes that the other end's TCP does not acknowledge although they were sent again, or TCP
//! that has given up. Where a packet does not even leave the node, no program sees it go; then TCP
//! itself says that it has backed off.

use super::Verdict;
use super::verdict::{End, Evidence, tcp_fact};
use crate::leases::observation::CloseHow;
use crate::time::{MS, Mono};

/// Bytes that stay unacknowledged for less than this are ordinary: it is the shortest time after
/// which Linux retransmits (TCP_RTO_MIN).
const UNACKNOWLEDGED_LONG_NS: u64 = 200 * MS;

/// Whether it is proven of this flow; the facts if so.
pub(super) fn network_loss(evidence: &Evidence<'_>, now: Mono, verdict: &mut Verdict) -> bool {
    let gave_up = matches!(evidence.closed, Some((_, Some(CloseHow::TimedOut))));
    is_lost(&evidence.own, now, verdict) || gave_up
}

/// Whether what an end sends is lost; the facts if so.
pub(super) fn is_lost(end: &End<'_>, now: Mono, verdict: &mut Verdict) -> bool {
    let unacknowledged_long = end
        .unacknowledged_since
        .is_some_and(|since| now.since(since) >= UNACKNOWLEDGED_LONG_NS);
    let tcp = end.looks(now).and_then(|looks| looks.tcp);
    // A shut window is probed with a backoff too, but with nothing unacknowledged.
    let backs_off = tcp.is_some_and(|tcp| tcp.unacked > 0 && tcp.backoff > 0 && tcp.probes == 0);
    let goes_unheard = unacknowledged_long && end.retransmits > 0;
    if !(backs_off || goes_unheard) {
        return false;
    }
    if let Some(fact) = end.unacknowledged(now) {
        verdict.push(fact);
    }
    if let Some(tcp) = tcp {
        verdict.push(tcp_fact(&tcp));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::Cause;
    use super::super::collected::{Collected, TcpLook};
    use super::super::verdict::{tests, verdict};
    use super::*;
    use crate::leases::note::Condition;
    use crate::leases::observation::Role;

    /// A firewall of the own node drops what TCP sends before any program sees it.
    #[test]
    fn tcp_that_backs_off_is_loss_though_nothing_was_seen_to_leave() {
        let mut looks = Collected::nothing(tests::NOW);
        let mut tcp = TcpLook {
            unacked: 1,
            backoff: 1,
            ..TcpLook::default()
        };
        let cause = |looks: &Collected| {
            let mut evidence = tests::evidence(Role::Holder, Condition::RenewalStuckSending);
            evidence.own.collected = Some(looks);
            verdict(&evidence, tests::NOW).cause
        };
        looks.tcp = Some(tcp);
        assert_eq!(cause(&looks), Cause::NetworkLoss);
        tcp.backoff = 0;
        looks.tcp = Some(tcp);
        assert_eq!(cause(&looks), Cause::Unknown);
        (tcp.backoff, tcp.unacked) = (1, 0);
        looks.tcp = Some(tcp);
        assert_eq!(cause(&looks), Cause::Unknown);
    }

    #[test]
    fn what_the_other_end_sends_and_is_lost_is_no_silence_of_its() {
        let mut evidence = tests::evidence(Role::Grantor, Condition::HolderSilent);
        let mut peer = tests::evidence(Role::Holder, Condition::RenewalStuckSending).own;
        evidence.peer = Some(peer);
        assert_eq!(verdict(&evidence, tests::NOW).cause, Cause::PeerSilent);
        peer.unacknowledged_since = Some(tests::NOW.minus(UNACKNOWLEDGED_LONG_NS));
        peer.retransmits = 1;
        evidence.peer = Some(peer);
        assert_eq!(verdict(&evidence, tests::NOW).cause, Cause::NetworkLoss);
    }
}
