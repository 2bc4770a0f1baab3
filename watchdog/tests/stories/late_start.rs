//! Story (g): the daemon comes after the sessions. It locks on at the next keepalive, says that
//! it does not know id and timeout, warns with care, and learns both when the session next
//! shakes hands.

use crate::harness::client::{Client, Order};
use crate::harness::clock::{self, SECOND};
use crate::harness::daemon::{Daemon, Home};
use crate::harness::event::Stage;
use crate::harness::world::{ROLES, TIMEOUT};
use crate::harness::zookeeper::{Listen, ZooKeeper};

#[test]
fn a_daemon_that_comes_late_locks_on_at_the_next_keepalive() {
    let mut server = ZooKeeper::start(TIMEOUT, Listen::Loopback);
    let clients = Client::start_all(|kind| Order::idle(kind, server.port(), TIMEOUT));
    let sessions: Vec<_> = clients
        .iter()
        .map(|client| server.session(client.id()))
        .collect();
    let home = Home::watching(&[server.port()], "");
    let daemon = Daemon::start(&home);
    let started_us = clock::now_us();
    let address = format!("127.0.0.1:{}", server.port());

    let mut flows = Vec::new();
    for (client, session) in clients.iter().zip(&sessions) {
        for role in ROLES {
            let (local, peer) = (session.client.to_string(), address.clone());
            let (local, peer) = if role == "holder" {
                (local, peer)
            } else {
                (peer, local)
            };
            let flow = format!("{local}>{peer}");
            let seen = daemon.wait_for(&format!("lease {flow}"), TIMEOUT, |event| {
                event.is("lease_seen") && event.text("id") == flow && event.text("role") == role
            });
            let after_us = seen.at_us - started_us;
            println!(
                "story (g) {}: {role} seen {:.2} s after the start",
                client.name(),
                clock::seconds(after_us)
            );
            daemon.check(
                after_us <= 2 * SECOND + SECOND,
                &format!("{} as {role}: a keepalive was missed", client.name()),
            );
            flows.push((session.id, role, flow));
        }
    }

    // With a cadence but no timeout: a warning, no figure, nothing beyond at_risk.
    clock::observe_until(started_us + 10 * SECOND);
    let frozen = &clients[0];
    let flow = flows[0].2.clone();
    let of_frozen = |event: &crate::harness::event::Event| {
        event.text("id") == flow && event.text("role") == "holder"
    };
    server.next_renewal(frozen.id());
    let mark = daemon.mark();
    let stopped = frozen.freeze();
    let at_risk = daemon.wait_from(mark, "`at_risk`", TIMEOUT, |event| {
        of_frozen(event) && event.stage() == Some(Stage::AtRisk)
    });
    clock::observe_until(stopped.since_us + clock::micros(TIMEOUT) * 3 / 4);
    stopped.resume();
    daemon.check(
        at_risk.value["remaining_ms"].is_null(),
        "nobody knows what remains",
    );
    daemon.check(
        at_risk.text("timeout_source") == "inferred",
        "T is a guess, and says so",
    );
    for event in daemon
        .events_since(mark)
        .iter()
        .filter(|event| of_frozen(event))
    {
        daemon.check(
            event.stage() <= Some(Stage::AtRisk),
            "a guess goes no further than at_risk",
        );
    }

    // The next handshake reveals both. (The first client, frozen for longer than it is patient,
    // may have shaken hands already.)
    let marks: Vec<usize> = clients.iter().map(Client::mark).collect();
    server.restart();
    for (client, said) in clients.iter().zip(marks) {
        client.wait_back(said, server.port());
    }
    for (id, role, flow) in flows.iter().filter(|(_, role, _)| *role == "holder") {
        daemon.wait_for(&format!("{id:#x} that was {flow}"), TIMEOUT, |event| {
            event.is("lease_seen") && event.of(*id, role) && event.text("was") == flow
        });
        daemon.wait_for(&format!("timeout of {id:#x}"), TIMEOUT, |event| {
            event.is("lease_seen")
                && event.of(*id, role)
                && event.text("timeout_source") == "handshake"
                && event.number("timeout_ms") == Some(6_000)
        });
    }
}
