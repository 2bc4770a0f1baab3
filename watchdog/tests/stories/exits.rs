//! Story (k): clients that die. A process killed with SIGKILL leaves a session that nobody will
//! renew: that is told, but is no alarm, whether it is one crash or a deploy of ten.

use crate::harness::client::{Client, Kind, Order};
use crate::harness::clock;
use crate::harness::event::Stage;
use crate::harness::world::{TIMEOUT, World};
use std::time::Duration;

#[test]
fn a_killed_client_is_gone_and_nobody_is_alarmed() {
    let world = World::shared();
    let World { server, daemon, .. } = &*world;
    let clients = world.idle_clients(TIMEOUT);
    let mark = daemon.mark();
    let killed: Vec<(Kind, u64, i64)> = clients
        .into_iter()
        .map(|client| (client.kind, client.id(), client.kill()))
        .collect();
    for (kind, id, killed_us) in &killed {
        let gone = wait_gone(&world, *id);
        println!(
            "story (k) {}: gone {:.2} s after the kill",
            kind.name(),
            clock::seconds(gone.at_us - killed_us)
        );
    }
    for (_, id, _) in &killed {
        server.wait_expiry(*id, TIMEOUT * 2);
    }
    clock::observe_for(Duration::from_secs(1));
    let ids: Vec<u64> = killed.iter().map(|(_, id, _)| *id).collect();
    assert_quiet(&world, mark, &ids);
}

#[test]
fn a_deploy_of_ten_clients_is_quiet() {
    let world = World::shared();
    let World { server, .. } = &*world;
    let kinds = [
        [Kind::C; 4].as_slice(),
        [Kind::Kazoo; 3].as_slice(),
        [Kind::Rust; 2].as_slice(),
        [Kind::Java; 1].as_slice(),
    ]
    .concat();
    let start = || {
        let order = |kind| Order::idle(kind, server.port(), TIMEOUT);
        world.connect(
            kinds
                .iter()
                .map(|kind| Client::start(order(*kind)))
                .collect(),
        )
    };
    let old = start();
    let mark = world.daemon.mark();
    let mut ids: Vec<u64> = old.iter().map(Client::id).collect();
    for client in old {
        client.kill();
    }
    let new = start();
    for id in &ids {
        wait_gone(&world, *id);
    }
    for id in &ids {
        server.wait_expiry(*id, TIMEOUT * 2);
    }
    ids.extend(new.iter().map(Client::id));
    assert_quiet(&world, mark, &ids);
    println!(
        "story (k): {} clients killed and replaced, no alarm",
        new.len()
    );
}

fn wait_gone(world: &World, id: u64) -> crate::harness::event::Event {
    let what = format!("lease_gone of {id:#x}");
    let gone = world.daemon.wait_for(&what, TIMEOUT, |event| {
        event.is("lease_gone") && event.of(id, "holder")
    });
    world.daemon.check(
        gone.text("reason") == "holder_exited",
        "its process had exited",
    );
    gone
}

/// The server's expiry of a session whose holder has exited is in order: only that may follow.
fn assert_quiet(world: &World, mark: usize, ids: &[u64]) {
    for event in world.daemon.events_since(mark) {
        let ours = event.session().is_some_and(|id| ids.contains(&id));
        let alarming = event.stage() > Some(Stage::Late) || event.is("false_expiry");
        world
            .daemon
            .check(!(ours && alarming), &format!("an alarm: {}", event.value));
    }
}
