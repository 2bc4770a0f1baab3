//! Stories (i) and (j): IPv6 loopback, IPv4 on the IPv6 sockets that Java uses, and clients in
//! another network namespace. The daemon, outside, sees them all, by their plain addresses.

use crate::harness::client::{Client, Kind, Order};
use crate::harness::clock::{self, SECOND};
use crate::harness::daemon::GRACE_US;
use crate::harness::event::Stage;
use crate::harness::faults::Namespace;
use crate::harness::world::{ROLES, TIMEOUT, World};
use crate::harness::zookeeper::Listen;
use std::net::{IpAddr, SocketAddr};

#[test]
fn leases_are_seen_on_every_path() {
    let world = World::new(TIMEOUT, Listen::Everywhere, "");
    let World { server, daemon, .. } = &world;
    let namespace = Namespace::create();
    let paths: [(&str, &str, Option<&Namespace>); 3] = [
        ("IPv4", "127.0.0.1", None),
        ("IPv6", "::1", None),
        ("namespace", &namespace.node_address, Some(&namespace)),
    ];
    for (path, address, inside) in paths {
        let address: IpAddr = address.parse().expect("an address");
        let target = SocketAddr::new(address, server.port());
        let clients = Kind::ALL.map(|kind| {
            let order = Order {
                server: target,
                inside,
                ..Order::idle(kind, 0, TIMEOUT)
            };
            Client::start(order)
        });
        let clients = world.connect(clients.into());
        for client in &clients {
            let (id, name) = (client.id(), client.name());
            let session = server.session(id);
            for role in ROLES {
                let seen = daemon.wait_seen(id, role, TIMEOUT);
                let (local, peer) = (session.client.to_string(), target.to_string());
                let (local, peer) = if role == "holder" {
                    (local, peer)
                } else {
                    (peer, local)
                };
                daemon.check(
                    seen.text("local") == local,
                    &format!("{path} {name}: not {local}"),
                );
                daemon.check(
                    seen.text("peer") == peer,
                    &format!("{path} {name}: not {peer}"),
                );
            }
        }
        std::thread::scope(|scope| {
            for client in &clients {
                scope.spawn(|| {
                    server.next_renewal(client.id());
                    let mark = daemon.mark();
                    let stopped = client.freeze();
                    let late = daemon.wait_stage(mark, client.id(), "holder", Stage::Late, TIMEOUT);
                    let after_us = late.at_us - stopped.since_us;
                    stopped.resume();
                    println!(
                        "story (i, j) {path} {}: late {:.2} s after the stop",
                        client.name(),
                        clock::seconds(after_us)
                    );
                    daemon.check(
                        after_us <= SECOND + GRACE_US,
                        &format!("{path} {}: late too late", client.name()),
                    );
                });
            }
        });
    }
    for event in daemon.events_since(0) {
        daemon.check(
            !event.value.to_string().contains("::ffff:"),
            "a mapped address is shown",
        );
    }
}
