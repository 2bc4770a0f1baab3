//! Story (b): a minute in which all is well. Idle and busy clients, some that lose their
//! connection and come back, some that close in order: nothing is said of them but that they
//! came and went.

use crate::harness::client::{Client, Order, State};
use crate::harness::clock::{self, SECOND};
use crate::harness::event::Stage;
use crate::harness::faults::cut;
use crate::harness::world::{ROLES, TIMEOUT, World};
use std::time::Duration;

const MINUTE_US: i64 = 60 * SECOND;

#[test]
fn a_healthy_minute_is_silent() {
    let world = World::shared();
    let World { server, daemon, .. } = &*world;
    let port = server.port();
    let mark = daemon.mark();
    let start = |load: fn(_, _, _) -> Order<'static>| {
        world.connect(Client::start_all(|kind| load(kind, port, TIMEOUT)))
    };
    let (idle, busy, closing) = (start(Order::idle), start(Order::busy), start(Order::idle));
    let from_us = clock::now_us();
    let clients = || idle.iter().chain(&busy).chain(&closing);
    let ids: Vec<u64> = clients().map(Client::id).collect();

    // Each client's cadence has been learned after two idle gaps.
    clock::observe_until(from_us + 10 * SECOND);
    for client in &closing {
        let mark = client.mark();
        let cut_us = clock::now_us();
        cut(server.pid(), server.session(client.id()).client);
        let back_us = client.wait_for(mark, TIMEOUT, |state| matches!(state, State::Connected(_)));
        // Java's takes 1 to 2 s: it waits that long before it tries again.
        println!(
            "story (b) {}: back {:.2} s after its connection was cut",
            client.name(),
            clock::seconds(back_us - cut_us)
        );
    }
    clock::observe_until(from_us + MINUTE_US - 20 * SECOND);
    let closed: Vec<u64> = closing.iter().map(Client::id).collect();
    closing.into_iter().for_each(Client::close);
    clock::observe_until(from_us + MINUTE_US);

    daemon.assert_never_above(mark, Stage::Healthy, &ids);
    for id in closed {
        for role in ROLES {
            let gone = daemon.wait_for("lease_gone", Duration::from_secs(1), |event| {
                event.is("lease_gone") && event.of(id, role)
            });
            daemon.check(gone.text("reason") == "closed", "it was closed in order");
        }
    }
    let gone = daemon
        .events_since(mark)
        .into_iter()
        .filter(|event| event.is("lease_gone"));
    let lost = gone.filter(|event| {
        idle.iter()
            .chain(&busy)
            .any(|client| event.session() == Some(client.id()))
    });
    daemon.check(lost.count() == 0, "a lease that lives is gone");
    println!("story (b): {} sessions, a minute, not a word", ids.len());
}
