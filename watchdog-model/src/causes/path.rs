//! The path's causes: `network_loss`.
//!
//! Proof: bytes that the peer's TCP does not acknowledge although they were sent again, or TCP
//! that has given up. A kernel that only says how often it has backed off says the same.

use super::Verdict;
use super::verdict::{Evidence, tcp_fact};
use crate::leases::observation::CloseHow;
use crate::time::{MS, Mono};

/// Bytes that stay unacknowledged for less than this are ordinary: it is the shortest time after
/// which Linux retransmits (TCP_RTO_MIN).
const UNACKNOWLEDGED_LONG_NS: u64 = 200 * MS;

/// Whether it is proven; the facts if so.
pub(super) fn network_loss(evidence: &Evidence<'_>, now: Mono, verdict: &mut Verdict) -> bool {
    let gave_up = matches!(evidence.closed, Some((_, Some(CloseHow::TimedOut))));
    let unacknowledged_long = evidence
        .unacknowledged_since
        .is_some_and(|since| now.since(since) >= UNACKNOWLEDGED_LONG_NS);
    let tcp = evidence.own.looks(now).and_then(|looks| looks.tcp);
    let backs_off = tcp.is_some_and(|tcp| tcp.unacked > 0 && tcp.backoff > 0 && tcp.probes == 0);
    if !gave_up && !(unacknowledged_long && (evidence.retransmits > 0 || backs_off)) {
        return false;
    }
    if let Some(fact) = evidence.unacknowledged(now) {
        verdict.push(fact);
    }
    if let Some(tcp) = tcp {
        verdict.push(tcp_fact(&tcp));
    }
    true
}
