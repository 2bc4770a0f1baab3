//! Which leases were lost, and which of them falsely.

use super::incidents::Scene;
use super::meaning::{Event, Meaning, host_of};
use super::report::{HostStall, Lapse};
use super::wall::{SECOND, Wall};

/// A grantor that expires a lease so soon after it runs again has hardly read what waits for it.
const JUST_RESUMED: i64 = SECOND;

/// All that were lost in an incident, in order of time.
#[must_use]
pub fn of(scene: &Scene, stalls: &[HostStall]) -> Vec<Lapse> {
    let mut lapses: Vec<Lapse> = Vec::new();
    for event in scene.of(Meaning::LeaseExpired) {
        let known = lapses
            .iter()
            .any(|lapse| lapse.lease.is_some() && lapse.lease.as_deref() == event.lease());
        if !known {
            lapses.push(expired(scene, event, stalls));
        }
    }
    for event in scene.of(Meaning::SessionExpired) {
        let same = lapses
            .iter_mut()
            .find(|lapse| lapse.lease.is_some() && lapse.lease.as_deref() == event.lease());
        if let Some(lapse) = same {
            if lapse.learned.is_none() {
                lapse.learned = Some(event.at);
                lapse.holder = scene.called(event.source);
            }
            continue;
        }
        // A client that names no session says the same in several lines.
        let again = lapses.iter().any(|lapse| {
            lapse.holder == scene.called(event.source)
                && (event.lease().is_none() || lapse.lease.is_none())
        });
        if !again {
            lapses.push(told(scene, event));
        }
    }
    lapses.sort_by_key(|lapse| lapse.expired.or(lapse.learned));
    lapses
}

/// A lease whose grantor's log is here.
fn expired(scene: &Scene, event: &Event, stalls: &[HostStall]) -> Lapse {
    let details = scene.of(Meaning::LeaseDetails).find(|other| {
        other.source == event.source && other.lease().is_some() && other.lease() == event.lease()
    });
    let address = details.and_then(|details| {
        let ip = details.get("ip")?;
        Some(
            details
                .get("port")
                .map_or_else(|| ip.to_owned(), |port| format!("{ip}:{port}")),
        )
    });
    let member = details.and_then(|details| details.get("member"));
    let mut why = Vec::new();
    // The grantor's word stands behind the expiry, on the same thread and before the next.
    let next = scene
        .of(Meaning::LeaseExpired)
        .filter(|other| {
            other.source == event.source && other.thread == event.thread && other.at > event.at
        })
        .map(|other| other.at)
        .min();
    let blamed = scene.of(Meaning::ExpiryBlamed).find(|blamed| {
        blamed.source == event.source
            && blamed.thread == event.thread
            && blamed.at >= event.at
            && next.is_none_or(|next| blamed.at < next)
    });
    if let Some(blamed) = blamed {
        why.push(format!(
            "{} the grantor itself says \"{}\"",
            blamed.at.time(),
            blamed.text.trim_start_matches("[BUG]: ")
        ));
    }
    let host = &scene.party(event.source).host;
    let resumed = stalls.iter().find(|stall| {
        let after = event.at.since(stall.to);
        stall.host == *host && (-JUST_RESUMED / 20..=JUST_RESUMED).contains(&after)
    });
    if let Some(stall) = resumed {
        why.push(format!(
            "{} had stalled until {}: renewals could not have been read in time, whenever they came",
            stall.host,
            stall.to.time()
        ));
    }
    if let Some(address) = address.as_deref()
        && let Some(source) = holder_source(scene, host_of(address))
    {
        let spoke = scene
            .events
            .iter()
            .filter(|other| other.source == source && other.at.since(event.at).abs() <= 10 * SECOND)
            .map(|other| other.at)
            .max();
        if let Some(at) = spoke {
            why.push(format!(
                "the holder is alive: its own log goes on, {}",
                at.time()
            ));
        }
    }
    let holder = match (address, member) {
        (Some(address), Some(member)) => format!("{address} (member {member})"),
        (Some(address), None) => address,
        _ => granted_to(scene, event).unwrap_or_else(|| "not named".to_owned()),
    };
    Lapse {
        lease: event.lease().map(str::to_owned),
        what: event.get("group").map_or_else(
            || "ZooKeeper session".to_owned(),
            |group| format!("\"{group}\" lease"),
        ),
        holder,
        grantor: scene.called(event.source),
        expired: Some(event.at),
        learned: None,
        expired_by: None,
        false_expiry: blamed.is_some() || resumed.is_some(),
        why,
    }
}

/// The log on a host that held a lease.
fn holder_source(scene: &Scene, host: &str) -> Option<usize> {
    scene
        .events
        .iter()
        .find(|event| {
            scene.party(event.source).host == host
                && matches!(event.meaning, Meaning::Jeopardy | Meaning::RenewalTimedOut)
        })
        .map(|event| event.source)
}

fn granted_to(scene: &Scene, event: &Event) -> Option<String> {
    let lease = event.lease()?;
    scene
        .logs
        .events
        .iter()
        .find(|other| other.meaning == Meaning::Granted && other.lease() == Some(lease))
        .and_then(|granted| granted.get("peer").map(str::to_owned))
}

/// A lease whose holder's log alone is here.
fn told(scene: &Scene, event: &Event) -> Lapse {
    // Someone else took the role that hung on it: it must have expired by then.
    let taken: Option<Wall> = scene
        .of(Meaning::RoleGained)
        .filter(|other| other.source != event.source && other.at < event.at)
        .map(|other| other.at)
        .min();
    let mut why = Vec::new();
    if let Some(taken) = taken {
        why.push(format!(
            "another leads since {}: it had expired by then, if the role hangs on it",
            taken.time()
        ));
    }
    Lapse {
        lease: event.lease().map(str::to_owned),
        what: "ZooKeeper session".to_owned(),
        holder: scene.called(event.source),
        grantor: event.get("server").map_or_else(
            || "the ensemble (its log is not here)".to_owned(),
            |server| format!("the ensemble, by {server} (its log is not here)"),
        ),
        expired: None,
        learned: Some(event.at),
        expired_by: taken.or(Some(event.at)),
        false_expiry: false,
        why,
    }
}
