//! What the daemons must have said. In: all that was said. Out: complaints, none of which is good.

use crate::harness::clock::{self, SECOND};
use crate::harness::event::{Event, Stage};
use crate::network::NODES;
use crate::play::{MACHINE, SERVER_NODE, Told};

/// The warning on the server's own node comes so long before the first expiry.
const LEAD_US: i64 = 5 * SECOND;
/// From a fact to its stamp in an event, on a machine that does much else.
const SLACK_US: i64 = SECOND;

/// The first event of a warning: at risk or worse, with this cause.
pub fn warning<'a>(
    events: &'a [Event],
    cause: &str,
    of: impl Fn(&Event) -> bool,
) -> Option<&'a Event> {
    events.iter().find(|event| {
        event.stage() >= Some(Stage::AtRisk) && event.text("cause") == cause && of(event)
    })
}

/// All that is wrong with what they said.
pub fn complaints(told: &Told) -> Vec<String> {
    let mut complaints = Vec::new();
    let Some(first_us) = told.first_expiry_us() else {
        return vec!["nothing expired: the fault did not bite".to_owned()];
    };
    let mut check = |holds: bool, what: String| {
        if !holds {
            complaints.push(what);
        }
    };
    check(
        told.expiries().len() == NODES.len(),
        format!(
            "the server expired {:?} and not four leases",
            told.expiries()
        ),
    );
    let own = told.events(SERVER_NODE);
    for (name, _) in told.expiries() {
        let warned = warning(own, "disk_stall", |event| {
            event.text("lease") == "access"
                && event.text("role") == "grantor"
                && event.text("peer").starts_with(&format!("{name}:"))
        });
        warned_in_time(
            told,
            warned,
            &format!("the lease of {name}"),
            first_us,
            &mut check,
        );
    }
    let session = told.session;
    let warned = warning(own, "disk_stall", |event| event.of(session, "holder"));
    warned_in_time(
        told,
        warned,
        "the session of ZooKeeper",
        first_us,
        &mut check,
    );
    false_expiries(told, &mut check);
    for node in NODES.into_iter().filter(|node| *node != SERVER_NODE) {
        let events = told.events(node);
        let warned = warning(events, "peer_silent", |event| {
            event.text("role") == "holder" && event.text("peer") == told.service
        });
        check(
            warned.is_some(),
            format!("the daemon of .{node} did not warn with `peer_silent`"),
        );
        check(
            blamed(events, &told.service),
            format!("no incident of .{node} points at {}", told.service),
        );
    }
    let machine = told.events(MACHINE);
    let warned = warning(machine, "peer_silent", |event| event.of(session, "grantor"));
    check(
        warned.is_some() && blamed(machine, &told.server),
        format!(
            "the daemon at ZooKeeper's end does not point at {}",
            told.server
        ),
    );
    quiet_before(told, &mut check);
    in_scope(told, &mut check);
    complaints
}

fn warned_in_time(
    told: &Told,
    warned: Option<&Event>,
    what: &str,
    first_us: i64,
    check: &mut impl FnMut(bool, String),
) {
    let Some(warned) = warned else {
        check(false, format!("{what} was not warned of with `disk_stall`"));
        return;
    };
    check(
        warned.value.to_string().contains(&told.device),
        format!(
            "the warning of {what} does not name {}: {}",
            told.device, warned.value
        ),
    );
    let lead_us = first_us - warned.at_us;
    check(
        lead_us >= LEAD_US,
        format!(
            "{what} was warned of only {:.1} s before",
            clock::seconds(lead_us)
        ),
    );
}

fn false_expiries(told: &Told, check: &mut impl FnMut(bool, String)) {
    let events = told.events(SERVER_NODE);
    let wrong: Vec<&Event> = events.iter().filter(|one| one.is("false_expiry")).collect();
    check(
        wrong.len() == NODES.len(),
        format!("{} false expiries and not four", wrong.len()),
    );
    for (name, expired_us) in told.expiries() {
        let of = wrong
            .iter()
            .find(|event| event.text("peer").starts_with(&format!("{name}:")));
        let Some(event) = of else {
            check(false, format!("no false expiry of the lease of {name}"));
            continue;
        };
        let chunk = told
            .chunks
            .iter()
            .find(|(node, _)| told.node_of(event.text("peer")) == Some(*node));
        let sent_us = chunk.and_then(|(_, said)| {
            let in_time = said
                .iter()
                .filter(|said| said.word == "sent" && said.at_us < expired_us);
            in_time.map(|said| said.at_us).next_back()
        });
        let near = |field: &str, to: Option<i64>| {
            let at = event.number(field);
            matches!((at, to), (Some(at), Some(to)) if (at - to).abs() < SLACK_US)
        };
        check(
            near("arrived_mono_us", sent_us),
            format!("{name} renewed at {sent_us:?}: {}", event.value),
        );
        check(
            near("expired_mono_us", Some(expired_us)),
            format!("{name} was expired at {expired_us}: {}", event.value),
        );
        check(
            event.text("cause") == "disk_stall",
            format!("not for a hung disk: {}", event.value),
        );
    }
}

/// Whether an incident is charged to a host or service.
fn blamed(events: &[Event], whom: &str) -> bool {
    events.iter().any(|event| {
        event.is("incident")
            && event.text("cause") == "peer_silent"
            && event.text("thing").contains(whom)
    })
}

/// Nobody is worried before there is a reason.
fn quiet_before(told: &Told, check: &mut impl FnMut(bool, String)) {
    for watched in &told.daemons {
        let early = watched
            .events
            .iter()
            .find(|event| event.at_us < told.hang_us.0 && event.stage() > Some(Stage::Late));
        if let Some(early) = early {
            check(
                false,
                format!("before the disk hung, .{}: {}", watched.node, early.value),
            );
        }
    }
}

/// No daemon tells of what is another's.
fn in_scope(told: &Told, check: &mut impl FnMut(bool, String)) {
    for watched in &told.daemons {
        let strange = watched.events.iter().find(|event| {
            event.is("lease_seen") && told.node_of(event.text("local")) != Some(watched.node)
        });
        if let Some(strange) = strange {
            check(
                false,
                format!("not of .{}: {}", watched.node, strange.value),
            );
        }
    }
}
