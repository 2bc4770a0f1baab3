//! Leases of requests and replies, beyond the story that all protocols have in common: long polls, a
//! connection for each renewal, expiry that is seen on the wire, and connections that nobody wants.

use crate::harness::clock;
use crate::harness::daemon::Daemon;
use crate::harness::event::{Event, Stage};
use crate::harness::faults::Stopped;
use crate::harness::program::Program;
use crate::harness::world::ROLES;
use crate::protocols::{Cast, LONG, exchange, given_up, healthy, of, renewed, warned};
use std::time::Duration;

/// What is granted to whom, of 6 s, by a server that is started so.
fn cast(server: &[&str], extra: &str) -> Cast {
    let server = Program::python("exchange.py", server);
    Cast {
        entry: format!("    protocol: request_reply\n    timeout: 6s\n{extra}"),
        port: server.port(),
        server,
        timeout_ms: 6_000,
        timeout_source: "config",
        busy: None,
    }
}

fn seen(daemon: &Daemon) {
    for role in ROLES {
        daemon.wait_for(&format!("seen as {role}"), LONG, of(role, "lease_seen"));
    }
}

/// A long-polling client: healthy for a minute, though each answer is held back for most of the lease.
fn polls(hold: [&str; 2], extra: &str) {
    let cast = cast(
        &["serve-polls", hold[0], hold[1]],
        &format!("    renews_from: reply\n{extra}"),
    );
    let daemon = cast.daemon();
    let port = cast.port.to_string();
    let mut client = Program::python("exchange.py", &["poll", &port]);
    seen(&daemon);
    healthy(&daemon, None);
    for frozen in [client.pid(), cast.server.pid()] {
        let mark = daemon.mark();
        let frozen = Stopped::stop(frozen);
        for role in ROLES {
            warned(&daemon, mark, role);
        }
        let mark = daemon.mark();
        frozen.resume();
        renewed(&daemon, mark);
    }
    let mark = daemon.mark();
    client.tell("close");
    client.wait(0, "closed");
    given_up(&daemon, mark);
}

#[test]
fn a_slow_but_healthy_long_poll_is_never_accused() {
    // Whoever knows how long answers are held back says so, and any shorter hold is as good.
    polls(["0.5", "4"], "    hold: 4s\n");
}

#[test]
fn how_long_a_long_poll_is_held_back_is_learned() {
    polls(["3.4", "3.6"], "");
}

#[test]
fn a_connection_for_each_renewal_is_one_lease_and_staying_away_is_no_goodbye() {
    let cast = exchange("");
    let daemon = cast.daemon();
    let port = cast.port.to_string();
    let client = Program::python("exchange.py", &["visit", &port, "1.5"]);
    seen(&daemon);
    let mark = daemon.mark();
    healthy(&daemon, None);
    let again = daemon.events_since(mark).into_iter();
    let again: Vec<Event> = again.filter(|event| event.is("lease_seen")).collect();
    daemon.check(again.is_empty(), &format!("it is one lease: {again:?}"));
    let mark = daemon.mark();
    let frozen = Stopped::stop(client.pid());
    for role in ROLES {
        let said = daemon.wait_from(mark, &format!("{role} at risk"), LONG, |event| {
            event.text("role") == role && event.stage() >= Some(Stage::AtRisk)
        });
        let left = said.number("remaining_ms");
        daemon.check(
            left.is_some_and(|left| left > 0),
            "warned before it may lapse",
        );
    }
    let mark = daemon.mark();
    frozen.resume();
    renewed(&daemon, mark);
}

#[test]
fn a_renewal_that_lay_in_the_socket_of_who_expires_its_holder_is_a_false_expiry() {
    let cast = cast(&["serve-strictly", "6"], "");
    let daemon = cast.daemon();
    let client = Program::python("exchange.py", &["hold", &cast.port.to_string(), "2"]);
    seen(&daemon);
    for mark in 0..3 {
        client.wait(mark, "renewed");
    }
    let mark = daemon.mark();
    let frozen = Stopped::stop(cast.server.pid());
    warned(&daemon, mark, "grantor");
    warned(&daemon, mark, "holder");
    daemon.wait_from(mark, "lapsed", LONG, |event| {
        of("grantor", "transition")(event) && event.stage() == Some(Stage::Lapsed)
    });
    let mark = daemon.mark();
    frozen.resume();
    cast.server.wait(0, "expired");
    let wrong = daemon.wait_from(mark, "false_expiry", LONG, |event| event.is("false_expiry"));
    daemon.check(
        wrong.text("cause") == "process_stopped",
        &format!("{}", wrong.value),
    );
    daemon.wait_from(mark, "expired", LONG, |event| {
        of("grantor", "lease_gone")(event) && event.text("reason") == "expired"
    });
}

/// A figure of /metrics.
fn metric(daemon: &Daemon, name: &str) -> Option<f64> {
    let body = daemon.get("/metrics")?.body;
    let value = body.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().parse().ok()
}

#[test]
fn connections_that_nobody_wants_keep_no_slot() {
    let cast = exchange("    role: holder\n    processes: [no-such-name]\n");
    let daemon = cast.daemon();
    let port = cast.port.to_string();
    let mut crowd = Program::python("exchange.py", &["crowd", &port, "100"]);
    crowd.wait(0, "there");
    let used = "lease_watchdog_slots{state=\"used\"}";
    let most = clock::poll(LONG, || metric(&daemon, used).filter(|used| *used > 0.0));
    daemon.check(
        most.is_some(),
        "they had slots until it was known whose they are",
    );
    let free = clock::poll(LONG, || metric(&daemon, used).filter(|used| *used == 0.0));
    daemon.check(
        free.is_some(),
        &format!("{:?} slots", metric(&daemon, used)),
    );
    // They go on talking, and do not get another.
    clock::observe_for(Duration::from_secs(5));
    daemon.check(metric(&daemon, used) == Some(0.0), "they stay without");
    let said = daemon.events_since(0).into_iter();
    daemon.check(
        !said.into_iter().any(|event| event.is("lease_seen")),
        "none of them is told",
    );
    crowd.tell("close");
    crowd.wait(0, "closed");
}
