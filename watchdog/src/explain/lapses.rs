//! Which leases were lost, and which of them falsely.

use std::collections::{HashMap, HashSet};

use super::incidents::Scene;
use super::meaning::{Event, Meaning, host_of};
use super::report::{HostStall, Lapse};
use super::wall::{SECOND, Wall};

/// A grantor that expires a lease so soon after it runs again has hardly read what waits for it.
const JUST_RESUMED: i64 = SECOND;

/// What other lines say of leases that expire, by lease: of thousands each is looked up.
struct Known<'a> {
    details: HashMap<(usize, &'a str), &'a Event>,
    /// To whom a session was granted, by the first line that says so.
    granted: HashMap<&'a str, &'a str>,
    /// By source and thread, in order of time: expiries, and the grantor's word about them.
    expiries: HashMap<(usize, &'a str), Vec<Wall>>,
    blamed: HashMap<(usize, &'a str), Vec<&'a Event>>,
    /// When each source said anything.
    spoke: HashMap<usize, Vec<Wall>>,
}

impl<'a> Known<'a> {
    fn of(scene: &Scene<'a>) -> Self {
        let mut known = Self {
            details: HashMap::new(),
            granted: HashMap::new(),
            expiries: HashMap::new(),
            blamed: HashMap::new(),
            spoke: HashMap::new(),
        };
        for event in scene.logs.events.iter().rev() {
            if event.meaning == Meaning::Granted
                && let (Some(lease), Some(peer)) = (event.lease(), event.get("peer"))
            {
                known.granted.insert(lease, peer);
            }
        }
        for event in scene.events.iter().copied() {
            let thread = (event.source, event.thread.as_str());
            known.spoke.entry(event.source).or_default().push(event.at);
            match (event.meaning, event.lease()) {
                (Meaning::LeaseDetails, Some(lease)) => {
                    known.details.entry((event.source, lease)).or_insert(event);
                }
                (Meaning::LeaseExpired, _) => {
                    known.expiries.entry(thread).or_default().push(event.at);
                }
                (Meaning::ExpiryBlamed, _) => known.blamed.entry(thread).or_default().push(event),
                _ => {}
            }
        }
        known
    }

    /// The grantor's word stands behind the expiry, on the same thread and before the next.
    fn blame(&self, event: &'a Event) -> Option<&'a Event> {
        let thread = (event.source, event.thread.as_str());
        let rows = self.blamed.get(&thread)?;
        let place = rows.partition_point(|blamed| blamed.at < event.at);
        let expiries = self.expiries.get(&thread)?;
        let next = expiries.get(expiries.partition_point(|at| *at <= event.at));
        let blamed = *rows.get(place)?;
        next.is_none_or(|next| blamed.at < *next).then_some(blamed)
    }

    /// The last thing that a source said within ten seconds of a moment.
    fn last_word(&self, source: usize, at: Wall) -> Option<Wall> {
        let rows = self.spoke.get(&source)?;
        let place = rows.partition_point(|spoke| spoke.since(at) <= 10 * SECOND);
        let last = *rows.get(place.checked_sub(1)?)?;
        (at.since(last) <= 10 * SECOND).then_some(last)
    }
}

/// All that were lost in an incident, in order of time.
#[must_use]
pub fn of(scene: &Scene, stalls: &[HostStall]) -> Vec<Lapse> {
    let known = Known::of(scene);
    let mut lapses: Vec<Lapse> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    // A client that names no session says the same in several lines.
    let mut nameless: HashSet<String> = HashSet::new();
    for event in scene.of(Meaning::LeaseExpired) {
        if let Some(lease) = event.lease() {
            if places.contains_key(lease) {
                continue;
            }
            places.insert(lease, lapses.len());
        }
        lapses.push(expired(scene, event, stalls, &known));
    }
    let mut told_of: HashSet<String> = HashSet::new();
    for event in scene.of(Meaning::SessionExpired) {
        let holder = scene.called(event.source);
        if let Some(place) = event.lease().and_then(|lease| places.get(lease)) {
            let lapse = &mut lapses[*place];
            if lapse.learned.is_none() {
                lapse.learned = Some(event.at);
                lapse.holder.clone_from(&holder);
            }
            told_of.insert(holder);
            continue;
        }
        let again = match event.lease() {
            None => told_of.contains(&holder),
            Some(_) => nameless.contains(&holder),
        };
        if !again {
            match event.lease() {
                Some(lease) => {
                    places.insert(lease, lapses.len());
                }
                None => {
                    nameless.insert(holder.clone());
                }
            }
            lapses.push(told(scene, event));
            told_of.insert(holder);
        }
    }
    lapses.sort_by_key(|lapse| lapse.expired.or(lapse.learned));
    lapses
}

/// A lease whose grantor's log is here.
fn expired<'a>(
    scene: &Scene<'a>,
    event: &'a Event,
    stalls: &[HostStall],
    known: &Known<'a>,
) -> Lapse {
    let details = event
        .lease()
        .and_then(|lease| known.details.get(&(event.source, lease)));
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
    let blamed = known.blame(event);
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
        && let Some(at) = known.last_word(source, event.at)
    {
        why.push(format!(
            "the holder is alive: its own log goes on, {}",
            at.time()
        ));
    }
    let holder = match (address, member) {
        (Some(address), Some(member)) => format!("{address} (member {member})"),
        (Some(address), None) => address,
        _ => {
            let granted = event.lease().and_then(|lease| known.granted.get(lease));
            granted.map_or_else(|| "not named".to_owned(), |peer| (*peer).to_owned())
        }
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
    // A session has an id; what has a name is another sort of lease.
    let named = event.get("lease").is_some();
    Lapse {
        lease: event.lease().map(str::to_owned),
        what: if named { "lease" } else { "ZooKeeper session" }.to_owned(),
        holder: scene.called(event.source),
        grantor: event.get("server").map_or_else(
            || {
                let who = if named { "its grantor" } else { "the ensemble" };
                format!("{who} (its log is not here)")
            },
            |server| format!("the ensemble, by {server} (its log is not here)"),
        ),
        expired: None,
        learned: Some(event.at),
        expired_by: taken.or(Some(event.at)),
        false_expiry: false,
        why,
    }
}
