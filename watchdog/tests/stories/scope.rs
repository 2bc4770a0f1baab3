//! Stories of what belongs to whom: several daemons on one node, each told its own scope; an entry
//! told its processes; a port that is added while everything runs.

use crate::harness::client::{Client, Kind, Order};
use crate::harness::clock::{self, SECOND};
use crate::harness::daemon::{Daemon, Home};
use crate::harness::event::Event;
use crate::harness::faults::Namespace;
use crate::harness::group::Group;
use crate::harness::process;
use crate::harness::world::{ROLES, TIMEOUT};
use crate::harness::zookeeper::{Listen, ZooKeeper};
use std::net::SocketAddr;
use std::time::Duration;

/// A lease is told this soon, whatever else the machine does.
const SOON: Duration = Duration::from_secs(3);

/// The leases that a daemon has told of: where each begins, and its role.
fn told(daemon: &Daemon) -> Vec<(String, String)> {
    let events = daemon.events_since(0).into_iter();
    let seen = events.filter(|event| event.is("lease_seen"));
    seen.map(|event| {
        (
            event.text("local").to_owned(),
            event.text("role").to_owned(),
        )
    })
    .collect()
}

fn seen_at<'a>(local: &'a str, role: &'a str) -> impl Fn(&Event) -> bool + 'a {
    move |event| {
        event.is("lease_seen") && event.text("role") == role && event.text("local") == local
    }
}

#[test]
fn each_of_two_daemons_watches_its_own_namespace_alone() {
    let server = ZooKeeper::start(TIMEOUT, Listen::Everywhere);
    let namespace = Namespace::create();
    let node = SocketAddr::new(
        namespace.node_address.parse().expect("an address"),
        server.port(),
    );
    let start = |kind| {
        let order = Order {
            server: node,
            inside: Some(&namespace),
            ..Order::idle(kind, server.port(), TIMEOUT)
        };
        let client = Client::start(order);
        let session = server.session(client.id());
        (client, session.client.to_string())
    };
    // One client is older than the daemons, one younger.
    let (_old, old_at) = start(Kind::Kazoo);
    let path = format!("/run/netns/{}", namespace.enter()[3]);
    let homes = [path.as_str(), "self"]
        .map(|netns| Home::watching(&[server.port()], &format!("scope: {{ netns: {netns} }}")));
    let [inner, outer] = homes.each_ref().map(Daemon::start);
    let (_young, young_at) = start(Kind::C);
    let node = node.to_string();
    for at in [&old_at, &young_at] {
        let seen = inner.wait_for("the holder's end", SOON, seen_at(at, "holder"));
        inner.check(seen.text("peer") == node, "it leads to the server");
        outer.wait_for("the grantor's end", SOON, |event| {
            seen_at(&node, "grantor")(event) && event.text("peer") == at
        });
    }
    for (daemon, role) in [(&inner, "holder"), (&outer, "grantor")] {
        let all = told(daemon);
        daemon.check(
            all.iter().all(|(_, told)| told == role),
            &format!("a daemon that sees {role}s only told of {all:?}"),
        );
    }
    let started = inner.wait_for("`started`", SOON, |event| event.is("started"));
    inner.check(
        started.value["scope"]["netns"] == path.as_str() && started.value["scope"]["cgroup"] == "/",
        "`started` says what is watched",
    );
}

#[test]
fn what_a_scope_or_an_entry_does_not_take_is_not_told() {
    let server = ZooKeeper::start(TIMEOUT, Listen::Loopback);
    let group = Group::create("scope");
    let enter = group.enter();
    let inside = ["sh", "-c", &enter, "sh"];
    let order = |kind, before| Order {
        before,
        ..Order::idle(kind, server.port(), TIMEOUT)
    };
    let port = server.port();
    let scoped = Home::watching(
        &[port],
        &format!("scope: {{ cgroup: \"/{}\" }}", group.name()),
    );
    let named = Home::with(&format!(
        "leases:\n  - name: c\n    protocol: zookeeper\n    ports: [{port}]\n    role: holder\n    \
         processes: [cli_mt, \"/{}/deeper\"]\nhttp: {{ listen: \"127.0.0.1:0\" }}\n",
        group.name()
    ));
    let old = Client::start(order(Kind::Kazoo, &inside));
    let old_at = server.session(old.id()).client.to_string();
    let (scoped, named) = (Daemon::start(&scoped), Daemon::start(&named));
    let young = Client::start(order(Kind::C, &inside));
    // It runs as the first process of a pid namespace, as in a container.
    let contained = ["unshare", "--pid", "--fork", "--kill-child"];
    let outside = Client::start(order(Kind::C, &contained));
    let [young_at, outside_at] =
        [&young, &outside].map(|client| server.session(client.id()).client.to_string());
    for at in [&old_at, &young_at] {
        let seen = scoped.wait_for("a lease in the group", SOON, seen_at(at, "holder"));
        scoped.check(
            seen.text("cgroup") == format!("/{}", group.name()),
            "it says where",
        );
    }
    for (at, inner_pid) in [(&young_at, None), (&outside_at, Some(1))] {
        let seen = named.wait_for("a lease of a named process", SOON, seen_at(at, "holder"));
        named.check(
            seen.number("inner_pid") == inner_pid,
            "it has both of its ids where it has two",
        );
        let pid = seen.number("pid").expect("a pid");
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        named.check(name.trim_end() == "cli_mt", "the node's id is its own");
    }
    // Both daemons have met every flow by now: each was told apart by a question of its own, and
    // those asked last are answered.
    clock::observe_until(clock::now_us() + SECOND);
    let mut expected = [
        vec![
            (old_at, "holder".to_owned()),
            (young_at.clone(), "holder".to_owned()),
        ],
        vec![
            (young_at, "holder".to_owned()),
            (outside_at, "holder".to_owned()),
        ],
    ];
    for (daemon, expected) in [&scoped, &named].into_iter().zip(&mut expected) {
        let mut all = told(daemon);
        all.sort();
        expected.sort();
        daemon.check(all == *expected, &format!("{all:?} and not {expected:?}"));
    }
}

#[test]
fn a_port_added_by_a_reload_takes_in_what_was_there() {
    let server = ZooKeeper::start(TIMEOUT, Listen::Loopback);
    let client = Client::start(Order::idle(Kind::C, server.port(), TIMEOUT));
    let session = server.session(client.id());
    // The client's own port is watched too: which end grants is told by who listens.
    let (grantor, holder) = (server.port(), session.client.port());
    let home = Home::watching(&[1], "");
    let daemon = Daemon::start(&home);
    server.next_renewal(client.id());
    // It sends nothing from here on, so no packet can tell of it.
    let stopped = client.freeze();
    let text = std::fs::read_to_string(home.config()).expect("its configuration");
    std::fs::write(
        home.config(),
        text.replace("[1]", &format!("[1, {grantor}, \"{holder}-{holder}\"]")),
    )
    .expect("it can be written");
    let mark = daemon.mark();
    process::send_signal(daemon.pid(), libc::SIGHUP);
    let (client_at, server_at) = (
        session.client.to_string(),
        format!("127.0.0.1:{}", server.port()),
    );
    for (role, local, owner) in [
        (ROLES[0], &client_at, client.pid()),
        (ROLES[1], &server_at, server.pid()),
    ] {
        let within = Duration::from_secs(10);
        let seen = daemon.wait_from(mark, &format!("the lease of {local}"), within, |event| {
            event.is("lease_seen") && event.text("role") == role && event.text("local") == local
        });
        daemon.check(
            seen.number("pid") == Some(owner.into()),
            "whose it is is known at once",
        );
    }
    drop(stopped);
}
