//! Story (d): a client freezes and runs again in time. The warning is followed by `renewed`, and
//! nothing ever says that the lease lapsed.

use crate::harness::clock;
use crate::harness::event::Stage;
use crate::harness::world::{ROLES, TIMEOUT, World};
use std::time::Duration;

#[test]
fn a_client_that_runs_again_in_time_is_renewed() {
    let world = World::shared();
    let World { server, daemon, .. } = &*world;
    let clients = world.idle_clients(TIMEOUT);
    std::thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| {
                let (id, name) = (client.id(), client.name());
                server.next_renewal(id);
                let mark = daemon.mark();
                let stopped = client.freeze();
                daemon.wait_stage(mark, id, "holder", Stage::AtRisk, TIMEOUT);
                let resumed_us = stopped.resume();
                let within = Duration::from_secs(3);
                let renewed = daemon.wait_from(mark, "`renewed`", within, |event| {
                    event.of(id, "holder") && event.enters("renewed")
                });
                println!(
                    "story (d) {name}: renewed {:.2} s after it ran again",
                    clock::seconds(renewed.at_us - resumed_us)
                );
                // A whole timeout more: what follows a renewal is health.
                clock::observe_for(TIMEOUT);
                daemon.assert_never_above(mark, Stage::Jeopardy, &[id]);
                for role in ROLES {
                    let last = daemon.transitions(mark, id, role).pop();
                    let last = last.map(|event| event.text("to").to_owned());
                    daemon.check(
                        last.as_deref().is_none_or(|to| to == "renewed"),
                        &format!("{name} as {role} ends {last:?}"),
                    );
                }
                assert!(
                    server.tracked().contains(&id),
                    "{name}: the session has expired"
                );
            });
        }
    });
}
