//! The harness is proven before it proves anything: real server, real clients and faults,
//! without the daemon.

use crate::harness::client::{Client, Order, State};
use crate::harness::clock::{self, SECOND};
use crate::harness::faults::Namespace;
use crate::harness::zookeeper::{Listen, TICK_US, ZooKeeper};
use std::time::Duration;

const T: Duration = Duration::from_secs(6);

/// Every client's id and timeout are what the server shows; a frozen client's session expires
/// between T and T + tick (+ 0.5 s of scheduling) after the server's last answer; a closed one
/// leaves nothing; a stopped one that runs again in time keeps its session.
#[test]
fn the_server_expires_frozen_clients_and_only_them() {
    let server = ZooKeeper::start(T, Listen::Loopback);
    let frozen = Client::start_all(|kind| Order::idle(kind, server.port(), T));
    let busy = Client::start_all(|kind| Order::busy(kind, server.port(), T));
    for client in frozen.iter().chain(&busy) {
        let session = server.session(client.id());
        assert_eq!(session.timeout_ms, 6_000, "{}", client.name());
        assert!(server.tracked().contains(&session.id));
    }
    let before: Vec<u64> = busy
        .iter()
        .map(|client| server.session(client.id()).received)
        .collect();
    let from_us = clock::now_us();
    std::thread::scope(|scope| {
        for client in &frozen {
            scope.spawn(|| {
                let id = client.id();
                let renewed = server.next_renewal(id);
                let mark = client.mark();
                let stopped = client.freeze();
                let phase = stopped.since_us - renewed.answered_us;
                let expired_us = server.wait_expiry(id, T * 2);
                let age = expired_us - renewed.answered_us;
                println!(
                    "harness {}: stopped {:.3} s after its renewal, expired {:.3} s after it",
                    client.name(),
                    clock::seconds(phase),
                    clock::seconds(age)
                );
                assert!(
                    (0..200_000).contains(&phase),
                    "stopped {phase} us after the renewal"
                );
                assert!((6 * SECOND..6 * SECOND + TICK_US + 500_000).contains(&age));
                assert!(!server.tracked().contains(&id));
                stopped.resume();
                client.wait_for(mark, T * 2, |state| state == State::Expired);
            });
        }
    });
    let elapsed = clock::seconds(clock::now_us() - from_us);
    for (client, before) in busy.into_iter().zip(before) {
        let (id, name) = (client.id(), client.name());
        let rate = (server.session(id).received - before) as f64 / elapsed;
        println!("harness {name}: busy, {rate:.0} requests/s");
        assert!(rate > 20.0, "{name} reads {rate:.1} times a second");
        client.close();
        // C's client does not wait for the server's answer.
        let gone = clock::poll(T / 2, || (!server.tracked().contains(&id)).then_some(()));
        assert!(gone.is_some(), "{name} closed, yet its session lives");
    }
}

/// Sessions survive a restart of the server by another connection, and a stop of 0.4 T.
#[test]
fn sessions_survive_a_restart() {
    let timeout = Duration::from_secs(12);
    let mut server = ZooKeeper::start(timeout, Listen::Loopback);
    let clients = Client::start_all(|kind| Order::idle(kind, server.port(), timeout));
    let ids: Vec<u64> = clients.iter().map(Client::id).collect();
    let marks: Vec<usize> = clients.iter().map(Client::mark).collect();
    let from_us = clock::now_us();
    server.restart();
    println!(
        "harness: restart took {:.2} s",
        clock::seconds(clock::now_us() - from_us)
    );
    for ((client, id), mark) in clients.iter().zip(ids).zip(marks) {
        let back_us = client.wait_back(mark, server.port());
        let name = client.name();
        println!(
            "harness {name}: back after {:.2} s",
            clock::seconds(back_us - from_us)
        );
        assert_eq!(client.id(), id, "{name} has another session");
        assert_eq!(server.session(id).timeout_ms, 12_000, "{name}");
    }
}

/// IPv6, IPv4 on a socket for both, and another network namespace.
#[test]
fn clients_come_by_every_path() {
    let server = ZooKeeper::start(T, Listen::Everywhere);
    let namespace = Namespace::create();
    let port = server.port();
    let addresses = ["127.0.0.1", "::1", &namespace.node_address];
    let clients: Vec<(&str, Client)> = addresses
        .into_iter()
        .flat_map(|address| {
            let inside = (address == namespace.node_address).then_some(&namespace);
            crate::harness::client::Kind::ALL.map(|kind| {
                let server = (
                    address.parse::<std::net::IpAddr>().expect("an address"),
                    port,
                )
                    .into();
                (
                    address,
                    Client::start(Order {
                        server,
                        inside,
                        ..Order::idle(kind, port, T)
                    }),
                )
            })
        })
        .collect();
    for (address, client) in &clients {
        let session = server.session(client.id());
        let expected = if *address == namespace.node_address {
            namespace.inner_address.as_str()
        } else {
            address
        };
        assert_eq!(
            session.client.ip().to_string(),
            expected,
            "{}",
            client.name()
        );
    }
}
