//! Story (e): the server freezes. Its own leases say what is wrong (renewals lie unread in a
//! stopped process); the clients' leases name the same cause, seen at the peer; and when it runs
//! again and expires clients that had done their part, that is reported as what it is.

use crate::harness::client::Client;
use crate::harness::clock;
use crate::harness::daemon::{Daemon, GRACE_US};
use crate::harness::event::{Event, Stage};
use crate::harness::world::World;
use crate::harness::zookeeper::Listen;
use std::collections::BTreeSet;
use std::time::Duration;

const T: Duration = Duration::from_secs(12);

#[test]
fn a_frozen_server_is_the_cause_of_what_it_expires() {
    let world = World::new(T, Listen::Loopback, "");
    let World { server, daemon, .. } = &world;
    let clients = world.idle_clients(T);
    let ids: Vec<u64> = clients.iter().map(Client::id).collect();
    // Three idle gaps of a third of T.
    clock::observe_for(T + Duration::from_secs(2));

    // A pause of an eighth of T is no reason to alarm anyone.
    let mark = daemon.mark();
    let stopped = server.freeze();
    clock::observe_for(Duration::from_millis(1_500));
    stopped.resume();
    clock::observe_for(T / 3);
    daemon.assert_never_above(mark, Stage::Late, &ids);
    println!("story (e): a pause of 1.5 s at T = 12 s gives nothing above late");

    let mark = daemon.mark();
    let before = server.sessions();
    let stopped = server.freeze();
    std::thread::scope(|scope| {
        for client in &clients {
            let renewed_us = before[&client.id()].answered_us;
            scope.spawn(move || watch_one(daemon, mark, client, renewed_us));
        }
    });
    clock::observe_until(stopped.since_us + clock::micros(T) * 13 / 10);
    let resumed_us = stopped.resume();
    clock::poll(T, || (!server.tracked().is_empty()).then_some(()));
    clock::observe_for(Duration::from_secs(5));

    let ours = |id: &u64| ids.contains(id);
    let logged: BTreeSet<u64> = server
        .expiries()
        .into_iter()
        .map(|(id, _)| id)
        .filter(ours)
        .collect();
    let events = daemon.events_since(mark);
    let reported = |wanted: &dyn Fn(&Event) -> bool| -> BTreeSet<u64> {
        events
            .iter()
            .filter(|event| wanted(event))
            .filter_map(Event::session)
            .filter(ours)
            .collect()
    };
    let expired = reported(&|event| event.enters("expired"));
    let falsely = reported(&|event| event.is("false_expiry"));
    println!(
        "story (e): resumed, the server expired {} of {} sessions; the daemon says {}, {} of \
         them falsely",
        logged.len(),
        ids.len(),
        expired.len(),
        falsely.len(),
    );
    // What was not expired must not be called so. And all is known of those whose clients go on
    // asking until the server answers; the Rust client stops when its own clock says that the
    // session is gone, so the server's word may never be on the wire.
    daemon.check(
        expired.is_subset(&logged),
        &format!("the server's log has expired {logged:x?}, the daemon says {expired:x?}"),
    );
    let asking: BTreeSet<u64> = clients
        .iter()
        .filter(|client| client.name() != "Rust")
        .map(Client::id)
        .collect();
    let told: BTreeSet<u64> = logged.intersection(&asking).copied().collect();
    daemon.check(
        told.is_subset(&expired),
        &format!("the server has told {told:x?}, the daemon says {expired:x?}"),
    );
    // Every client had sent renewals that the server had not read.
    daemon.check(
        falsely == expired,
        &format!("these expiries were the server's: {expired:x?}"),
    );
    for event in events.iter().filter(|event| event.is("false_expiry")) {
        let times = ["arrived_mono_us", "read_mono_us", "expired_mono_us"];
        let [arrived, read, ended] = times.map(|field| event.number(field));
        daemon.check(
            arrived.is_some_and(|at_us| at_us < resumed_us),
            "the renewal came while the server stood still",
        );
        daemon.check(
            read.is_none_or(|at_us| at_us >= resumed_us),
            "it was not read before the server ran again",
        );
        daemon.check(
            ended.is_some_and(|at_us| at_us >= resumed_us),
            "it expired when the server ran again",
        );
        daemon.check(
            event.text("cause") == "process_stopped",
            "for the server had stood still",
        );
    }
}

/// What must be said of one client's lease, whose newest answered renewal was at `renewed_us`.
fn watch_one(daemon: &Daemon, mark: usize, client: &Client, renewed_us: i64) {
    let (id, name) = (client.id(), client.name());
    let unread = daemon.wait_from(mark, "`renewal_unread` at the grantor", T, |event| {
        event.of(id, "grantor")
            && event.is("transition")
            && event.text("condition") == "renewal_unread"
            && event.text("cause") == "process_stopped"
    });
    let at_risk = daemon.wait_stage(mark, id, "holder", Stage::AtRisk, T);
    println!(
        "story (e) {name}: unread at {:.2} s, its holder at_risk at {:.2} s of 12 s",
        clock::seconds(unread.at_us - renewed_us),
        clock::seconds(at_risk.at_us - renewed_us),
    );
    daemon.check(
        at_risk.at_us <= renewed_us + clock::micros(T) / 2 + GRACE_US,
        &format!("{name}: half of T had gone before its holder was at risk"),
    );
    daemon.wait_from(mark, "the grantor's cause at the holder", T, |event| {
        event.of(id, "holder")
            && event.stage() >= Some(Stage::AtRisk)
            && event.text("cause") == "process_stopped"
            && event.has_evidence_from("peer")
    });
}
