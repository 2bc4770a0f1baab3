//! The timeline. In: all that was said. Out: it, in the order of time, for people or for machines.

use crate::harness::clock::{self, SECOND};
use crate::harness::event::{Event, Stage};
use crate::judge::warning;
use crate::network::NODES;
use crate::play::{MACHINE, SERVER_NODE, Told};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// One line of it.
struct Row {
    at_us: i64,
    who: String,
    what: String,
}

/// The timeline as an array.
pub fn json(told: &Told) -> String {
    let rows: Vec<Value> = rows(told)
        .into_iter()
        .map(|row| json!({ "mono_us": row.at_us, "who": row.who, "what": row.what }))
        .collect();
    format!("{:#}\n", Value::from(rows))
}

/// The timeline as text.
pub fn text(told: &Told) -> String {
    let mut text = String::new();
    let first_us = told.first_expiry_us();
    let lines = [
        "\nThe incident, live. A metadata server on .161 grants four chunk servers (.161 to .164) an access",
        "lease of 12 s, and holds a session of ZooKeeper (on .1). One thread does it all, and logs to a disk.",
        "One daemon a node, each told its own network namespace. Seconds count from when the disk hangs;",
        "`lead` is the time left until the first lease or session is expired.\n",
    ];
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    let _ = writeln!(text, "{:>8} {:>8}  {:<11} what", "seconds", "lead", "who");
    for row in rows(told) {
        let lead = first_us.map(|first_us| first_us - row.at_us);
        let lead = match lead {
            Some(lead_us) if lead_us > 0 => format!("{:.2}", clock::seconds(lead_us)),
            _ => String::new(),
        };
        let since = clock::seconds(row.at_us - told.hang_us.0);
        let mut head = format!("{since:>8.2} {lead:>8}  {:<11} ", row.who);
        for line in folded(&row.what) {
            let _ = writeln!(text, "{head}{line}");
            head = " ".repeat(head.len());
        }
    }
    text.push('\n');
    for (what, warned) in warnings(told) {
        let lead = warned.zip(first_us).map(|(event, first_us)| {
            format!(
                "{:>5.1} s before the first expiry, {} s after the disk hung",
                clock::seconds(first_us - event.at_us),
                format_args!("{:.1}", clock::seconds(event.at_us - told.hang_us.0)),
            )
        });
        let _ = writeln!(
            text,
            "{what:<44} {}",
            lead.as_deref().unwrap_or("no warning")
        );
    }
    let wrong = told.events(SERVER_NODE).iter();
    let wrong = wrong.filter(|event| event.is("false_expiry")).count();
    let _ = writeln!(text, "{:<44} {wrong}\n", "false expiries told");
    text
}

/// Lines that fit beside what stands before them.
fn folded(what: &str) -> Vec<String> {
    const WIDTH: usize = 88;
    let mut lines = vec![String::new()];
    for word in what.split(' ') {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(format!("  {word}"));
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// The first warnings, at risk or worse with a cause, of whom.
fn warnings(told: &Told) -> Vec<(String, Option<&Event>)> {
    let own = told.events(SERVER_NODE);
    let mut warnings: Vec<(String, Option<&Event>)> = told
        .expiries()
        .into_iter()
        .map(|(name, _)| {
            let of = |event: &Event| {
                event.text("role") == "grantor"
                    && event.text("peer").starts_with(&format!("{name}:"))
            };
            (
                format!(".161: lease of {name}, disk_stall"),
                warning(own, "disk_stall", of),
            )
        })
        .collect();
    warnings.push((
        ".161: ZooKeeper session, disk_stall".to_owned(),
        warning(own, "disk_stall", |event| event.of(told.session, "holder")),
    ));
    for node in NODES.into_iter().filter(|node| *node != SERVER_NODE) {
        let of = |event: &Event| event.text("peer") == told.service;
        warnings.push((
            format!(".{node}: its own lease, peer_silent"),
            warning(told.events(node), "peer_silent", of),
        ));
    }
    let of = |event: &Event| event.of(told.session, "grantor");
    warnings.push((
        ".1: ZooKeeper session, peer_silent".to_owned(),
        warning(told.events(MACHINE), "peer_silent", of),
    ));
    warnings
}

fn rows(told: &Told) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |at_us: i64, who: &str, what: String| {
        rows.push(Row {
            at_us,
            who: who.to_owned(),
            what,
        });
    };
    let (hang_us, over_us) = told.hang_us;
    row(hang_us, "disk", format!("--- {} hangs", told.device));
    row(over_us, "disk", format!("--- {} works again", told.device));
    let lately = hang_us - 4 * SECOND;
    for said in told.meta.iter().filter(|said| said.at_us > lately) {
        let what = match said.word.as_str() {
            "renewed" if said.at_us < hang_us => format!("renews the lease of {}", said.name),
            "expired" => format!(
                "EXPIRES the lease of {}, whose renewal waits unread",
                said.name
            ),
            "zookeeper-expired" => format!("learns that session {} is gone", said.name),
            "zookeeper-disconnected" => {
                format!("has lost its connection to ZooKeeper ({})", said.name)
            }
            _ => continue,
        };
        row(said.at_us, "server .161", what);
    }
    if let Some(at_us) = told.session_expired_us {
        row(
            at_us,
            "ZooKeeper",
            format!("EXPIRES session {:#x}", told.session),
        );
    }
    for (node, said) in &told.chunks {
        for said in said.iter().filter(|said| said.at_us > hang_us) {
            let what = match said.word.as_str() {
                "sent" if said.at_us < over_us => "renews in time".to_owned(),
                "lost" | "closed" => "is hung up on: its lease is gone".to_owned(),
                "registered" => "registers anew".to_owned(),
                _ => continue,
            };
            row(said.at_us, &format!("chunk .{node}"), what);
        }
    }
    for watched in &told.daemons {
        let mut told_in_full = BTreeSet::new();
        let events = watched.events.iter();
        for event in events.filter(|event| event.at_us > hang_us) {
            if let Some(what) = said(event, &mut told_in_full) {
                row(event.at_us, &format!("daemon .{}", watched.node), what);
            }
        }
    }
    rows.sort_by_key(|row| row.at_us);
    rows
}

/// What a daemon's event says, if it belongs into the timeline: in full the first time, of other
/// leases whose course is the same only that it is.
fn said(event: &Event, told_in_full: &mut BTreeSet<String>) -> Option<String> {
    let (to, cause) = (event.text("to"), event.text("cause"));
    let (kind, head, name) = match event.kind() {
        "transition" => {
            let rises = event.stage() > Some(Stage::Healthy) && event.text("from") != to;
            let becomes_known = event.text("from") == to;
            let ends = event.enters("expired") || event.enters("renewed");
            if !(rises || becomes_known || ends) {
                return None;
            }
            let head = format!("{} {to}, {cause}", event.text("role"));
            (format!("{} {head}", event.text("lease")), head, "id")
        }
        "false_expiry" => ("false".to_owned(), "FALSE EXPIRY".to_owned(), "id"),
        "incident" => {
            let state = event.text("state");
            let head = format!("incident {} {state}", event.text("incident"));
            (head.clone(), head, "worst")
        }
        _ => return None,
    };
    Some(if event.is("incident") || told_in_full.insert(kind) {
        format!("{head}: {}", event.text("summary"))
    } else {
        format!("{head}, likewise: {}", event.text(name))
    })
}
