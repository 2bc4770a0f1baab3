//! Story (h): the daemon is killed with SIGKILL. Nothing of it stays in the kernel; started
//! again, it knows every lease by the same id and timeout.

use crate::harness::client::{Client, Kind, Order};
use crate::harness::clock;
use crate::harness::daemon::{Daemon, Home};
use crate::harness::process::send_signal;
use crate::harness::world::{ROLES, TIMEOUT, World};
use crate::harness::zookeeper::{Listen, ZooKeeper};
use std::time::Duration;

#[test]
fn a_killed_daemon_leaves_nothing_and_comes_back_knowing() {
    let world = World::shared();
    let home = Home::watching(&[world.server.port()], "");
    let daemon = Daemon::start(&home);
    let clients = world.idle_clients(TIMEOUT);
    for client in &clients {
        for role in ROLES {
            daemon.wait_seen(client.id(), role, Duration::from_secs(5));
        }
    }
    // What is known of a flow is kept for the next daemon once a second or so.
    clock::observe_for(Duration::from_secs(3));
    let objects = daemon.bpf_objects();
    daemon.check(objects.len() >= 3, "it holds programs, maps and links");
    daemon.kill();
    assert_gone(&objects);

    let daemon = Daemon::start(&home);
    for client in &clients {
        let id = client.id();
        for role in ROLES {
            // At the latest with the next keepalive.
            let seen = daemon.wait_seen(id, role, TIMEOUT / 3 + Duration::from_secs(2));
            let name = client.name();
            daemon.check(
                seen.number("timeout_ms") == Some(6_000),
                &format!("{name}: T is lost"),
            );
            daemon.check(
                seen.text("timeout_source") == "handshake",
                &format!("{name}: where T came from is lost"),
            );
        }
    }
    let objects_again = daemon.bpf_objects();
    let status = daemon.terminate();
    assert_eq!(status.code(), Some(0), "asked to stop, it stops");
    assert_gone(&objects_again);
    println!(
        "story (h): {} kernel objects gone after SIGKILL, {} leases known again",
        objects.len(),
        clients.len() * ROLES.len()
    );
}

/// While it reads the kernel's types, loads, attaches, runs, reads its configuration again, writes a recording,
/// says its last words: whatever it is at, the next one starts in the same place and knows the lease.
#[test]
fn killed_at_any_moment_it_leaves_nothing_and_the_next_one_starts() {
    const START: Duration = Duration::from_millis(1_200);
    let long = std::env::var_os("LEASE_WATCHDOG_LONG").is_some();
    let moments = if long { 60 } else { 6 };
    let server = ZooKeeper::start(TIMEOUT, Listen::Loopback);
    let home = Home::watching(&[server.port()], "");
    let daemon = Daemon::start(&home);
    let client = Client::start(Order::idle(Kind::C, server.port(), TIMEOUT));
    let knows = |daemon: &Daemon| {
        daemon.wait_seen(client.id(), "holder", TIMEOUT / 3 + Duration::from_secs(3));
    };
    knows(&daemon);
    // As above.
    clock::observe_for(Duration::from_secs(3));
    daemon.kill();
    let mut met = std::collections::BTreeSet::new();
    for moment in 0..moments {
        let daemon = Daemon::launch(home.command());
        clock::observe_for(START * moment / moments);
        let objects = daemon.bpf_objects();
        met.insert(objects.len());
        daemon.kill();
        assert_gone(&objects);
    }
    for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGTERM] {
        for moment in 0..moments {
            let daemon = Daemon::start(&home);
            let objects = daemon.bpf_objects();
            send_signal(daemon.pid(), signal);
            clock::observe_for(Duration::from_millis(30) * moment / moments);
            daemon.kill();
            assert_gone(&objects);
        }
    }
    let daemon = Daemon::start(&home);
    knows(&daemon);
    daemon.check(
        met.len() > 2,
        &format!("killed with {met:?} kernel objects"),
    );
    println!(
        "story: killed {} times, on its start with {met:?} kernel objects; none is left",
        4 * moments + 1
    );
}

/// The kernel frees programs some milliseconds after their last user has gone.
fn assert_gone(objects: &[crate::harness::bpf::Object]) {
    let left = || -> Vec<_> { objects.iter().filter(|object| object.exists()).collect() };
    let gone = clock::poll(Duration::from_secs(5), || left().is_empty().then_some(()));
    assert!(gone.is_some(), "left in the kernel: {:?}", left());
}
