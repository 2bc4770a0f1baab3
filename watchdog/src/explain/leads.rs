//! What would have warned how much earlier.
//!
//! The triggers are those of a watchdog that sees the kernel: a renewal unanswered, shares of the lease used
//! up, the client's own deadlines; and the first line that was really logged.

use super::incidents::Scene;
use super::meaning::Meaning;
use super::report::{HostStall, Lapse, Lead, Leads};
use super::wall::{MS, SECOND, Wall, span};

/// An expiry logged so soon after the host runs again is counted from there: the lead is then the least
/// that it can have been.
const WITH_THE_UNBLOCKING: i64 = 10 * MS;

/// The table, if there was an end to count to.
#[must_use]
pub fn of(scene: &Scene, lapsed: &[Lapse], stalls: &[HostStall]) -> Option<Leads> {
    let (until, until_what) = end(scene, lapsed, stalls)?;
    let mut rows: Vec<(Wall, String)> = Vec::new();
    let first = scene
        .derived
        .renewals
        .iter()
        .filter(|renewal| scene.holds(renewal.sent))
        .min_by_key(|renewal| renewal.sent);
    if let Some(renewal) = first {
        rows.push((
            renewal.sent.plus(SECOND),
            "keepalive unanswered for 1 s".to_owned(),
        ));
        if let Some(timeout) = renewal.timeout {
            for (share, part) in [
                ("1/3", timeout / 3),
                ("1/2", timeout / 2),
                ("2/3", timeout / 3 * 2),
            ] {
                rows.push((
                    renewal.sent.plus(part),
                    format!(
                        "{share} of the {} lease used up unanswered",
                        length(timeout)
                    ),
                ));
            }
        }
        if let Some(limit) = renewal.limit {
            rows.push((limit, "the application's own deadline".to_owned()));
        }
    }
    for deadline in scene
        .derived
        .deadlines
        .iter()
        .filter(|deadline| scene.holds(deadline.at))
    {
        rows.push((
            deadline.at,
            if deadline.proven {
                "ZooKeeper read deadline passed".to_owned()
            } else {
                "ZooKeeper client's deadline (ping or read) passed".to_owned()
            },
        ));
        if let Some(timeout) = deadline.timeout.filter(|_| deadline.proven) {
            let heard = deadline.at.plus(-(timeout / 3 * 2));
            rows.push((
                heard.plus(timeout / 2),
                format!("1/2 of the {} session used up unanswered", length(timeout)),
            ));
        }
    }
    for event in scene.of(Meaning::LeaseExpired) {
        if let Some(timeout) = event.number("timeout_ms").filter(|ms| *ms > 0) {
            let timeout = timeout.saturating_mul(MS);
            rows.push((
                event.at.plus(-timeout / 2),
                format!(
                    "1/2 of the {} session used up, at the latest",
                    length(timeout)
                ),
            ));
        }
    }
    let mut told = std::collections::BTreeSet::new();
    for event in scene.of(Meaning::Warned) {
        let stage = event.get("stage").unwrap_or("?");
        let cause = event.get("cause").unwrap_or("unknown");
        if told.insert((stage, cause)) {
            rows.push((event.at, format!("lease-watchdog warned: {stage}, {cause}")));
        }
    }
    if let Some(known) = super::incidents::first_line(scene) {
        rows.push((known, "first line that any application logged".to_owned()));
    }
    rows.sort();
    rows.dedup();
    rows.retain(|(at, _)| *at < until);
    (!rows.is_empty()).then(|| Leads {
        until,
        until_what,
        rows: rows
            .into_iter()
            .map(|(at, trigger)| Lead {
                at,
                trigger,
                lead_ms: (until.since(at) + MS / 2) / MS,
            })
            .collect(),
    })
}

fn length(timeout: i64) -> String {
    if timeout % SECOND == 0 {
        format!("{} s", timeout / SECOND)
    } else {
        span(timeout)
    }
}

/// The first loss, and how it is known.
fn end(scene: &Scene, lapsed: &[Lapse], stalls: &[HostStall]) -> Option<(Wall, String)> {
    if let Some(first) = lapsed.iter().filter_map(|lapse| lapse.expired).min() {
        let unblocked = stalls
            .iter()
            .filter(|stall| stall.unblocked.is_some())
            .map(|stall| stall.to)
            .find(|to| (0..=WITH_THE_UNBLOCKING).contains(&first.since(*to)));
        return Some(match unblocked {
            Some(at) => (
                at,
                format!(
                    "the first expiry; its line is stamped {}, right behind the unblocking that it came with",
                    first.time()
                ),
            ),
            None => (first, "the first expiry in a grantor's log".to_owned()),
        });
    }
    if let Some(first) = lapsed.iter().filter_map(|lapse| lapse.expired_by).min() {
        return Some((
            first,
            "the first loss, at the latest (no grantor's log)".to_owned(),
        ));
    }
    let lapsed = scene
        .of(Meaning::Warned)
        .find(|event| event.get("stage") == Some("lapsed"));
    if let Some(event) = lapsed {
        return Some((
            event.at,
            "the floor: from then on it may be expired".to_owned(),
        ));
    }
    scene
        .of(Meaning::Jeopardy)
        .map(|event| event.at)
        .min()
        .map(|at| (at, "jeopardy; no loss is known".to_owned()))
}
