//! Story (f): the server restarts within T. The sessions move to new connections, and each lease
//! stays what it was.

use crate::harness::client::Client;
use crate::harness::clock;
use crate::harness::event::Stage;
use crate::harness::world::{ROLES, World};
use crate::harness::zookeeper::Listen;
use std::time::Duration;

const T: Duration = Duration::from_secs(12);

#[test]
fn a_lease_keeps_its_identity_over_a_restart_of_its_server() {
    let mut world = World::new(T, Listen::Loopback, "");
    let clients = world.idle_clients(T);
    let ids: Vec<u64> = clients.iter().map(Client::id).collect();
    let marks: Vec<usize> = clients.iter().map(Client::mark).collect();
    let mark = world.daemon.mark();
    let from_us = clock::now_us();
    world.server.restart();
    for (client, said) in clients.iter().zip(marks) {
        let back_us = client.wait_back(said, world.server.port());
        let name = client.name();
        println!(
            "story (f) {name}: back after {:.2} s",
            clock::seconds(back_us - from_us)
        );
    }
    let World { server, daemon, .. } = &world;
    daemon.assert_never_above(mark, Stage::Jeopardy, &ids);
    for event in daemon.events_since(mark) {
        let ours = event.session().is_some_and(|id| ids.contains(&id));
        let gone = event.is("lease_gone") && event.text("role") == "holder";
        daemon.check(
            !(ours && gone),
            "a lease is gone although its session lives",
        );
        daemon.check(
            !event.is("lease_seen") || ours,
            "a lease is seen that was none of the four sessions",
        );
    }

    // The old id on the new connection: freeze each client, and look at what is said of it.
    std::thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| {
                let session = server.next_renewal(client.id());
                let mark = daemon.mark();
                let stopped = client.freeze();
                for role in ROLES {
                    let late = daemon.wait_stage(mark, session.id, role, Stage::Late, T);
                    let field = if role == "holder" { "local" } else { "peer" };
                    daemon.check(
                        late.text(field) == session.client.to_string(),
                        &format!("{} as {role} is not on {}", client.name(), session.client),
                    );
                }
                stopped.resume();
            });
        }
    });
}
