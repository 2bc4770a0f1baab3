//! Story (b): a minute in which all is well. Idle and busy clients, some that lose their
//! connection and come back, some that close in order: nothing is said of them but that they
//! came and went.
//!
//! Who loses its connection has sessions of 12 s: Java's client waits up to 2 s before it connects
//! again, and with 6 s a lease without a connection for that long is rightly late.

use crate::harness::client::{Client, Order, State};
use crate::harness::clock::{self, SECOND};
use crate::harness::event::Stage;
use crate::harness::faults::cut;
use crate::harness::world::{ROLES, TIMEOUT, World};
use crate::harness::zookeeper::Listen;
use std::time::Duration;

const MINUTE_US: i64 = 60 * SECOND;

#[test]
fn a_healthy_minute_is_silent() {
    let (steady, moving) = (
        World::shared(),
        World::new(2 * TIMEOUT, Listen::Loopback, ""),
    );
    let marks = (steady.daemon.mark(), moving.daemon.mark());
    let start = |world: &World, timeout, load: fn(_, _, _) -> Order<'static>| {
        let port = world.server.port();
        world.connect(Client::start_all(|kind| load(kind, port, timeout)))
    };
    let idle = start(&steady, TIMEOUT, Order::idle);
    let busy = start(&steady, TIMEOUT, Order::busy);
    let closing = start(&moving, 2 * TIMEOUT, Order::idle);
    let from_us = clock::now_us();
    let steadies = || idle.iter().chain(&busy);
    let stay: Vec<u64> = steadies().map(Client::id).collect();
    let closed: Vec<u64> = closing.iter().map(Client::id).collect();

    // Each client's cadence has been learned after two idle gaps.
    clock::observe_until(from_us + 10 * SECOND);
    for client in &closing {
        let mark = client.mark();
        let cut_us = clock::now_us();
        let server = &moving.server;
        cut(server.pid(), server.session(client.id()).client);
        let back_us = client.wait_for(mark, 2 * TIMEOUT, |state| {
            matches!(state, State::Connected(_))
        });
        // Java's takes 1 to 2 s: it waits that long before it tries again.
        println!(
            "story (b) {}: back {:.2} s after its connection was cut",
            client.name(),
            clock::seconds(back_us - cut_us)
        );
    }
    clock::observe_until(from_us + MINUTE_US - 20 * SECOND);
    closing.into_iter().for_each(Client::close);
    clock::observe_until(from_us + MINUTE_US);

    steady
        .daemon
        .assert_never_above(marks.0, Stage::Healthy, &stay);
    let daemon = &moving.daemon;
    daemon.assert_never_above(marks.1, Stage::Healthy, &closed);
    for &id in &closed {
        for role in ROLES {
            let gone = daemon.wait_for("lease_gone", Duration::from_secs(1), |event| {
                event.is("lease_gone") && event.of(id, role)
            });
            daemon.check(gone.text("reason") == "closed", "it was closed in order");
        }
    }
    let lost = steady
        .daemon
        .events_since(marks.0)
        .into_iter()
        .find(|event| event.is("lease_gone") && stay.iter().any(|id| event.session() == Some(*id)));
    steady.daemon.check(
        lost.is_none(),
        &format!("a lease that lives is gone: {lost:?}"),
    );
    let sessions = stay.len() + closed.len();
    println!("story (b): {sessions} sessions, a minute, not a word");
}
