//! From events and findings to incidents.
//!
//! In: logs, their writers, what was derived. Out: incidents, each with what was lost, who was at fault and
//! what followed. Never: a claim without the line or rule under it.

use super::causes;
use super::findings::{Finding, Findings, Stall};
use super::lapses;
use super::leads;
use super::meaning::{Event, Meaning};
use super::parties::Party;
use super::report::{Bar, Followed, Incident, Known, Row};
use super::roles;
use super::rules::Rule;
use super::scan::Logs;
use super::stalls;
use super::wall::{SECOND, Wall, exact};

/// Anchors nearer than this belong together.
const APART: i64 = 30 * SECOND;
/// What happens so soon before is a part of it.
const BEFORE: i64 = 2 * SECOND;
/// What happens so soon after follows from it.
const AFTER: i64 = 20 * SECOND;

/// All that one incident is made of.
pub struct Scene<'a> {
    /// The logs.
    pub logs: &'a Logs,
    /// Their writers.
    pub parties: &'a [Party],
    /// The first moment that is known of it.
    pub from: Wall,
    /// The last.
    pub to: Wall,
    /// The events in it.
    pub events: Vec<&'a Event>,
    /// What was derived of it.
    pub findings: Vec<&'a Finding>,
    /// The threads that stood still.
    pub stalls: Vec<&'a Stall>,
    /// All that was derived.
    pub derived: &'a Findings,
}

impl Scene<'_> {
    /// Whether a moment lies in it.
    #[must_use]
    pub fn holds(&self, at: Wall) -> bool {
        at >= self.from && at <= self.to
    }

    /// A source's writer.
    #[must_use]
    pub fn party(&self, source: usize) -> &Party {
        &self.parties[source]
    }

    /// A source's writer and host: `meta (10.10.10.161)`.
    #[must_use]
    pub fn called(&self, source: usize) -> String {
        let party = self.party(source);
        if party.host == party.name {
            party.name.clone()
        } else {
            format!("{} ({})", party.name, party.host)
        }
    }

    /// The events of one meaning.
    pub fn of(&self, meaning: Meaning) -> impl Iterator<Item = &Event> {
        self.events
            .iter()
            .copied()
            .filter(move |event| event.meaning == meaning)
    }
}

/// Whether this event alone makes an incident: a warning from `at_risk` on.
fn made_by(event: &Event) -> bool {
    match event.meaning {
        Meaning::Warned => event.get("stage") != Some("late"),
        meaning => makes_one(meaning),
    }
}

/// Whether this alone makes an incident.
const fn makes_one(meaning: Meaning) -> bool {
    matches!(
        meaning,
        Meaning::RenewalFailed
            | Meaning::RenewalTimedOut
            | Meaning::Jeopardy
            | Meaning::ReadTimedOut
            | Meaning::SessionExpired
            | Meaning::LeaseExpired
            | Meaning::ExpiryBlamed
            | Meaning::QuorumLost
    )
}

/// Whether this belongs to an incident that is near.
const fn joins_one(meaning: Meaning) -> bool {
    makes_one(meaning)
        || matches!(
            meaning,
            Meaning::LoopLate
                | Meaning::Warned
                | Meaning::HungTask
                | Meaning::SoftLockup
                | Meaning::RoleLost
                | Meaning::OutOfMemory
                | Meaning::IoError
        )
}

/// Which incidents are told.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    /// The one at or next to this moment.
    At(Wall),
    /// So many of the last.
    Last(usize),
}

/// The incidents, oldest first, and how many there are.
#[must_use]
pub fn incidents(
    logs: &Logs,
    parties: &[Party],
    derived: &Findings,
    which: Which,
) -> (Vec<Incident>, usize) {
    let mut anchors: Vec<(Wall, Wall, bool)> = Vec::new();
    for event in &logs.events {
        if joins_one(event.meaning) {
            let at = event.said().min(event.at);
            anchors.push((at, event.at, made_by(event)));
        }
    }
    for renewal in &derived.renewals {
        anchors.push((renewal.sent, renewal.noticed, true));
    }
    for finding in &derived.all {
        if matches!(finding.rule, Rule::Deadline | Rule::Expiry) {
            anchors.push((finding.at, finding.at, false));
        }
    }
    for deadline in &derived.deadlines {
        anchors.push((deadline.at, deadline.last, false));
    }
    for stall in &derived.stalls {
        anchors.push((stall.from, stall.to, false));
    }
    anchors.sort_unstable();
    let mut clusters: Vec<(Wall, Wall, bool)> = Vec::new();
    for (from, to, makes) in anchors {
        match clusters.last_mut() {
            Some(cluster) if from.since(cluster.1) <= APART => {
                cluster.1 = cluster.1.max(to);
                cluster.2 |= makes;
            }
            _ => clusters.push((from, to, makes)),
        }
    }
    clusters.retain(|cluster| cluster.2);
    let all = clusters.len();
    let apart =
        |(from, to, _): (Wall, Wall, bool), at: Wall| from.since(at).max(at.since(to)).max(0);
    let nearest = |at: Wall| (0..all).min_by_key(|place| apart(clusters[*place], at));
    let told = match which {
        Which::At(at) => nearest(at).map_or(0..0, |place| place..place + 1),
        Which::Last(most) => all.saturating_sub(most)..all,
    };
    let incidents = told
        .map(|place| {
            let (from, to, _) = clusters[place];
            one(place + 1, from, to, logs, parties, derived)
        })
        .collect();
    (incidents, all)
}

fn one(
    number: usize,
    from: Wall,
    to: Wall,
    logs: &Logs,
    parties: &[Party],
    derived: &Findings,
) -> Incident {
    let (begin, end) = (from.plus(-BEFORE), to.plus(AFTER));
    let first = logs.events.partition_point(|event| event.at < begin);
    let events: Vec<&Event> = logs.events[first..]
        .iter()
        .take_while(|event| event.at <= end)
        .collect();
    let within = |at: Wall| at >= begin && at <= end;
    let mut scene = Scene {
        logs,
        parties,
        from: begin,
        to: end,
        findings: derived
            .all
            .iter()
            .filter(|finding| within(finding.at))
            .collect(),
        stalls: derived
            .stalls
            .iter()
            .filter(|stall| within(stall.from))
            .collect(),
        events,
        derived,
    };
    scene.stalls.sort_by_key(|stall| stall.from);
    let host_stalls = stalls::of_hosts(&scene);
    let lapsed = lapses::of(&scene, &host_stalls);
    let dual_leader = roles::two_leaders(&scene);
    let leads = leads::of(&scene, &lapsed, &host_stalls);
    let causes = causes::candidates(&scene, &host_stalls);
    let fault = causes::fault(&scene, &lapsed, &host_stalls);
    let followed = followed(&scene);
    let known = known(&scene);
    let timeline = timeline(&scene, &host_stalls, &followed, &known);
    let headline = headline(&lapsed, &host_stalls, &scene);
    Incident {
        number,
        from: timeline.first().map_or(from, |row| row.at),
        to: timeline
            .last()
            .map_or(to, |row| row.until.unwrap_or(row.at)),
        headline,
        first_knowable: leads.as_ref().and_then(|leads| {
            let row = leads.rows.first()?;
            Some(Known {
                at: row.at,
                by: row.trigger.clone(),
            })
        }),
        known,
        fault,
        causes,
        followed,
        leads,
        timeline,
        bars: bars(&scene),
        same_host: derived
            .renewals
            .iter()
            .any(|renewal| scene.holds(renewal.sent) && renewal.on_one_host()),
        not_claimed: causes::not_claimed(&scene, &lapsed),
        lapsed,
        stalls: host_stalls,
        dual_leader,
    }
}

fn headline(
    lapsed: &[super::report::Lapse],
    stalls: &[super::report::HostStall],
    scene: &Scene,
) -> String {
    let falsely = lapsed.iter().filter(|lapse| lapse.false_expiry).count();
    let lost = match (lapsed.len(), falsely) {
        (0, _) if scene.of(Meaning::Jeopardy).next().is_some() => {
            "a lease was in jeopardy".to_owned()
        }
        (0, _) => "renewals were late; no lease is known to have been lost".to_owned(),
        (count, 0) => format!("{} lost", leases(count)),
        (count, falsely) => format!("{} lost, {falsely} of them expired falsely", leases(count)),
    };
    match stalls.first() {
        Some(stall) => format!(
            "{lost}; {} stalled {}-{} ({})",
            stall.host,
            stall.from.time(),
            stall.to.time(),
            exact(stall.to.since(stall.from))
        ),
        None => lost,
    }
}

/// "1 lease", "4 leases".
#[must_use]
pub fn leases(count: usize) -> String {
    if count == 1 {
        "1 lease".to_owned()
    } else {
        format!("{count} leases")
    }
}

/// The first line that any process wrote about it.
fn known(scene: &Scene) -> Option<Known> {
    let first = first_event(scene)?;
    Some(Known {
        at: first.at,
        by: format!("{}: {}", scene.called(first.source), words(first)),
    })
}

/// When it was.
#[must_use]
pub fn first_line(scene: &Scene) -> Option<Wall> {
    first_event(scene).map(|event| event.at)
}

fn first_event<'a>(scene: &Scene<'a>) -> Option<&'a Event> {
    let about = |event: &&&Event| {
        event.meaning != Meaning::Warned && joins_one(event.meaning)
            || matches!(event.meaning, Meaning::Pause | Meaning::DiskSlow)
    };
    scene
        .events
        .iter()
        .filter(about)
        .min_by_key(|event| event.at)
        .copied()
}

/// What followed, in groups of one sort and one process.
fn followed(scene: &Scene) -> Vec<Followed> {
    let mut groups: Vec<Followed> = Vec::new();
    for event in &scene.events {
        let Some((what, detail)) = consequence(event) else {
            continue;
        };
        let party = scene.called(event.source);
        match groups
            .iter_mut()
            .find(|group| group.what == what && group.party == party)
        {
            Some(group) => {
                group.count += 1;
                group.last = event.at;
                if group.details.len() < 20 && !group.details.contains(&detail) {
                    group.details.push(detail);
                }
            }
            None => groups.push(Followed {
                what: what.to_owned(),
                count: 1,
                first: event.at,
                last: event.at,
                party,
                details: vec![detail],
            }),
        }
    }
    groups.sort_by_key(|group| group.first);
    groups
}

fn consequence(event: &Event) -> Option<(&'static str, String)> {
    let field = |name: &str| event.get(name).unwrap_or("?").to_owned();
    Some(match event.meaning {
        Meaning::RoleGained => (
            "role change: leads now",
            event
                .get("seq")
                .map_or_else(|| "leader".to_owned(), |seq| format!("sequence {seq}")),
        ),
        Meaning::SteppingDown => ("role change: stops", "stopping".to_owned()),
        Meaning::RoleLost => ("role change: leads no longer", "stopped".to_owned()),
        Meaning::QuorumLost => ("leader lost", event.text.clone()),
        Meaning::Serving => ("service running", field("to")),
        Meaning::OwnerReleased => (
            "owners released",
            format!("process {} of lease {}", field("pid"), field("lease")),
        ),
        Meaning::ReplicaRemoved => (
            "replicas removed",
            format!("data {} at {}", field("pid"), field("member")),
        ),
        Meaning::ConnectionLost => (
            "connections lost",
            event
                .get("peer")
                .or(event.get("server"))
                .unwrap_or("?")
                .to_owned(),
        ),
        Meaning::StatusChange => (
            "status changes",
            format!(
                "{}{} -> {}",
                event
                    .get("member")
                    .map_or_else(String::new, |member| format!("{member}: ")),
                field("from"),
                field("to")
            ),
        ),
        _ => return None,
    })
}

/// What an event says, for people.
#[must_use]
pub fn words(event: &Event) -> String {
    let lease = event
        .lease()
        .map_or_else(String::new, |lease| format!(" {lease}"));
    let of = |name: &str| event.get(name).unwrap_or("?");
    match event.meaning {
        Meaning::RenewalFailed | Meaning::RenewalTimedOut => "keepalive failed".to_owned(),
        Meaning::Jeopardy => {
            "JEOPARDY: the holder no longer knows whether its lease is alive".to_owned()
        }
        Meaning::Retry => event.text.trim_matches(['[', ']']).to_lowercase(),
        Meaning::LoopLate => format!(
            "the client's loop ran late ({})",
            event
                .get("by_ms")
                .map_or_else(|| of("took").to_owned(), |ms| format!("{ms} ms"))
        ),
        Meaning::ReadTimedOut => format!("the client gives up its connection{lease}"),
        Meaning::SessionEvent => format!("session {} -> {}", of("from"), of("to")),
        Meaning::Connecting => format!("connects to {}", of("server")),
        Meaning::Established => format!("has session{lease}"),
        Meaning::SessionExpired => format!("is told that session{lease} has expired"),
        Meaning::Granted => format!("grants session{lease}"),
        Meaning::LeaseExpired => format!("expires lease{lease}"),
        Meaning::ExpiryBlamed => "says: expired because of its own delay".to_owned(),
        Meaning::RoleGained => "is the leader now".to_owned(),
        Meaning::RoleLost => "leads no longer".to_owned(),
        Meaning::SteppingDown => "tells its upper layer to stop".to_owned(),
        Meaning::Serving => format!("{} (was {})", of("to"), of("from")),
        Meaning::StatusChange => format!(
            "{}{} -> {}",
            event
                .get("member")
                .map_or_else(String::new, |member| format!("{member}: ")),
            of("from"),
            of("to")
        ),
        Meaning::ConnectionLost => format!(
            "loses its connection with {}",
            event
                .get("peer")
                .or(event.get("server"))
                .unwrap_or("its peer")
        ),
        Meaning::Warned => format!(
            "lease-watchdog warns: {}, {}: {}",
            of("stage"),
            of("cause"),
            event.text
        ),
        Meaning::Renewed => format!("lease{lease} is renewed"),
        _ => event.text.clone(),
    }
}

fn timeline(
    scene: &Scene,
    stalls: &[super::report::HostStall],
    followed: &[Followed],
    known: &Option<Known>,
) -> Vec<Row> {
    let mut rows = Vec::new();
    for finding in &scene.findings {
        rows.push(Row {
            at: finding.at,
            until: finding.until,
            party: scene.party(finding.source).name.clone(),
            host: scene.party(finding.source).host.clone(),
            text: finding.text.clone(),
            rule: Some(finding.rule),
            from: finding.from.clone(),
            deadline: finding.deadline,
        });
    }
    for stall in stalls {
        if let Some((first, last)) = stall.unblocked {
            rows.push(Row {
                at: first,
                until: Some(last),
                party: stall.processes.join(", "),
                host: stall.host.clone(),
                text: format!("everything on {} unblocks at once", stall.host),
                rule: Some(Rule::Unblocking),
                from: stall.why.last().cloned().unwrap_or_default(),
                deadline: false,
            });
        }
    }
    rows.extend(expiries(scene));
    // Sorts that come in numbers stand as one line each; single ones as they are.
    let many = |event: &Event| {
        consequence(event).is_some_and(|(what, _)| {
            let party = scene.called(event.source);
            followed
                .iter()
                .any(|group| group.what == what && group.party == party && group.count > 4)
        })
    };
    for event in &scene.events {
        let hidden = matches!(
            event.meaning,
            Meaning::LeaseDetails
                | Meaning::SocketError
                | Meaning::Granted
                | Meaning::Pause
                | Meaning::LeaseExpired
                | Meaning::ExpiryBlamed
        );
        if hidden || many(event) {
            continue;
        }
        let source = &scene.logs.sources[event.source];
        let mut text = words(event);
        if known.as_ref().is_some_and(|known| known.at == event.at) {
            text.push_str(" (the first line that any process logged)");
        }
        rows.push(Row {
            at: event.at,
            until: None,
            party: scene.party(event.source).name.clone(),
            host: scene.party(event.source).host.clone(),
            text,
            rule: None,
            from: format!("{}:{}", source.files[event.place.0], event.place.1),
            deadline: false,
        });
    }
    for group in followed.iter().filter(|group| group.count > 4) {
        rows.push(Row {
            at: group.first,
            until: Some(group.last),
            party: group.party.clone(),
            host: String::new(),
            text: format!("{} {}", group.count, group.what),
            rule: None,
            from: format!("{} lines", group.count),
            deadline: false,
        });
    }
    rows.sort_by(|one, two| one.at.cmp(&two.at).then_with(|| one.text.cmp(&two.text)));
    rows.dedup_by(|one, two| one.at == two.at && one.text == two.text && one.party == two.party);
    rows
}

/// A grantor's expiries: one row for each process that expires.
fn expiries(scene: &Scene) -> Vec<Row> {
    let mut rows: Vec<(usize, Row, Vec<&str>)> = Vec::new();
    for event in &scene.events {
        if !matches!(event.meaning, Meaning::LeaseExpired | Meaning::ExpiryBlamed) {
            continue;
        }
        let near = rows.iter_mut().find(|(source, row, _)| {
            *source == event.source && event.at.since(row.until.unwrap_or(row.at)) < SECOND
        });
        let party = scene.party(event.source);
        match near {
            Some((_, row, leases)) => {
                row.until = Some(event.at);
                leases.extend(
                    event
                        .lease()
                        .filter(|lease| !leases.contains(lease))
                        .into_iter()
                        .collect::<Vec<_>>(),
                );
                if event.meaning == Meaning::ExpiryBlamed {
                    row.text.clone_from(&event.text);
                }
            }
            None => rows.push((
                event.source,
                Row {
                    at: event.at,
                    until: None,
                    party: party.name.clone(),
                    host: party.host.clone(),
                    text: String::new(),
                    rule: None,
                    from: format!(
                        "{}:{}",
                        scene.logs.sources[event.source].files[event.place.0], event.place.1
                    ),
                    deadline: false,
                },
                event.lease().into_iter().collect(),
            )),
        }
    }
    rows.into_iter()
        .map(|(_, mut row, names)| {
            let said = std::mem::take(&mut row.text);
            let said = if said.is_empty() {
                said
            } else {
                format!(", \"{said}\"")
            };
            let named = match names.as_slice() {
                [one] => format!(" {one}"),
                _ => String::new(),
            };
            row.text = format!("expires {}{named}{said}", leases(names.len().max(1)));
            row
        })
        .collect()
}

fn bars(scene: &Scene) -> Vec<Bar> {
    let mut bars: Vec<Bar> = scene
        .stalls
        .iter()
        .map(|stall| Bar {
            party: scene.party(stall.source).name.clone(),
            thread: stall.thread.clone(),
            from: stall.from,
            to: stall.to,
            text: stall.text.clone(),
        })
        .collect();
    for renewal in &scene.derived.renewals {
        if scene.holds(renewal.sent) {
            bars.push(Bar {
                party: scene.party(renewal.source).name.clone(),
                thread: "keepalive".to_owned(),
                from: renewal.sent,
                to: renewal.noticed,
                text: "keepalive unanswered".to_owned(),
            });
        }
    }
    bars
}
