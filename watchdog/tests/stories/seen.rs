//! Story (a): the daemon sees each lease within a second of its handshake, from both ends, with
//! the id and the timeout that the server itself shows.

use crate::harness::client::{Client, Order};
use crate::harness::clock;
use crate::harness::world::{ROLES, TIMEOUT, World};
use std::time::Duration;

#[test]
fn each_lease_is_seen_within_a_second_of_its_handshake() {
    let world = World::shared();
    let World { server, daemon, .. } = &*world;
    let clients = Client::start_all(|kind| Order::idle(kind, server.port(), TIMEOUT));
    for client in &clients {
        let (id, connected_us) = client.session();
        let truth = server.session(id);
        for role in ROLES {
            let seen = daemon.wait_seen(id, role, Duration::from_secs(5));
            let name = client.name();
            let after_us = seen.at_us - connected_us;
            println!(
                "story (a) {name}: seen as {role} {:.3} s after",
                clock::seconds(after_us)
            );
            daemon.check(
                after_us <= clock::SECOND,
                &format!("{name}, {role}: seen too late"),
            );
            let timeout = seen.number("timeout_ms");
            daemon.check(
                timeout == i64::try_from(truth.timeout_ms).ok(),
                &format!("{name}, {role}: the server grants {} ms", truth.timeout_ms),
            );
            daemon.check(
                seen.text("timeout_source") == "handshake",
                "T was read on the wire",
            );
            daemon.check(seen.text("lease") == "zookeeper", "it has its entry's name");
            let (here, there) = (
                truth.client.to_string(),
                format!("127.0.0.1:{}", server.port()),
            );
            let (local, peer, pid) = if role == "holder" {
                (here, there, client.pid())
            } else {
                (there, here, server.pid())
            };
            daemon.check(
                seen.text("local") == local,
                &format!("{name}, {role}: not {local}"),
            );
            daemon.check(
                seen.text("peer") == peer,
                &format!("{name}, {role}: not {peer}"),
            );
            let owner = seen.number("pid");
            daemon.check(
                owner == Some(pid.into()),
                &format!("{name}, {role}: not pid {pid}"),
            );
        }
    }
}
