//! Stories of what goes while it is watched: thousands of processes that live some milliseconds, an id that the
//! kernel gives to another process, a network namespace that is deleted. The daemon keeps nothing of what has gone,
//! and takes nobody for somebody else.

use crate::crowd::{metric, nothing_lost};
use crate::harness::client::{Client, Kind, Order};
use crate::harness::clock;
use crate::harness::crowd::Crowd;
use crate::harness::daemon::{Daemon, Home};
use crate::harness::event::Stage;
use crate::harness::faults::Namespace;
use crate::harness::group::Group;
use crate::harness::process;
use crate::harness::world::TIMEOUT;
use crate::harness::zookeeper::{Listen, ZooKeeper};
use std::net::SocketAddr;
use std::time::Duration;

const PROCESSES: u32 = 5_000;
/// Until nothing is left of what has gone.
const GONE: Duration = Duration::from_secs(30);
const USED: &str = "lease_watchdog_slots{state=\"used\"}";
/// Threads of two servers.
const SERVERS: f64 = 10.0;
const THREADS: &str = "lease_watchdog_threads_watched";

#[test]
fn five_thousand_short_processes_leave_nothing_behind() {
    let server = ZooKeeper::start(TIMEOUT, Listen::Loopback);
    let (_granting, port) = Crowd::gentle_server();
    let home = Home::watching(&[server.port(), port], "limits: { cpu: 100% }");
    let daemon = Daemon::start(&home);
    let stays = Client::start(Order::idle(Kind::C, server.port(), TIMEOUT));
    for role in ["holder", "grantor"] {
        daemon.wait_seen(stays.id(), role, Duration::from_secs(5));
    }
    let before = clock::poll(GONE, || {
        Some((metric(&daemon, USED)?, metric(&daemon, THREADS)?))
    })
    .expect("the metrics page");
    let objects = daemon.bpf_objects().len();
    let mark = daemon.mark();
    let group = Group::counting("burst");
    let begun_us = clock::now_us();
    drop(Crowd::burst(port, PROCESSES, &group));
    let seconds = clock::seconds(clock::now_us() - begun_us);
    // The crowd's server thread is watched from now on, and whichever of ZooKeeper's serve the one that stays.
    let left = clock::poll(GONE, || {
        let (slots, threads) = (metric(&daemon, USED)?, metric(&daemon, THREADS)?);
        (slots <= before.0 && threads <= before.1 + SERVERS).then_some(())
    });
    daemon.check(
        left.is_some(),
        &format!(
            "before {before:?}, now {:?} slots, {:?} threads",
            metric(&daemon, USED),
            metric(&daemon, THREADS)
        ),
    );
    daemon.check(
        daemon.bpf_objects().len() == objects,
        "as many kernel objects",
    );
    nothing_lost(&daemon);
    let seen = daemon.events_since(mark).into_iter();
    let seen = seen.filter(|event| event.is("lease_seen")).count();
    daemon.assert_never_above(mark, Stage::Late, &[stays.id()]);
    // It sees as before.
    let mark = daemon.mark();
    let stopped = stays.freeze();
    daemon.wait_stage(mark, stays.id(), "holder", Stage::AtRisk, TIMEOUT);
    drop(stopped);
    println!(
        "story: {PROCESSES} processes in {seconds:.1} s, {seen} of their leases told of, nothing left"
    );
}

/// The next process gets this id, unless another is faster: the kernel counts on from the last that it gave
/// (kernel/pid.c, pid_ns_ctl_handler).
fn start_as(pid: i32, order: impl Fn() -> Order<'static>) -> Client {
    let started = clock::poll(Duration::from_secs(60), || {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())
            .expect("the kernel takes a last id");
        let client = Client::start(order());
        (client.pid() == pid).then_some(client)
    });
    started.unwrap_or_else(|| panic!("no process gets the id {pid}"))
}

#[test]
fn whoever_gets_the_id_of_one_that_has_gone_is_not_taken_for_it() {
    let server = ZooKeeper::start(TIMEOUT, Listen::Loopback);
    let home = Home::watching(&[server.port()], "");
    let daemon = Daemon::start(&home);
    let order = |kind| Order::idle(kind, server.port(), TIMEOUT);
    let first = Client::start(order(Kind::C));
    let (first_id, pid) = (first.id(), first.pid());
    daemon.wait_seen(first_id, "holder", Duration::from_secs(5));
    let mark = daemon.mark();
    // It stands still when it goes: what is known of its threads is that they are stopped.
    let stopped = first.freeze();
    daemon.wait_stage(mark, first_id, "holder", Stage::Late, TIMEOUT);
    first.kill();
    drop(stopped);
    let mark = daemon.mark();
    let second = start_as(pid, || order(Kind::Kazoo));
    let id = second.id();
    let seen = daemon.wait_seen(id, "holder", Duration::from_secs(5));
    daemon.check(seen.number("pid") == Some(pid.into()), "the same id");
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).expect("it runs");
    daemon.check(
        seen.text("comm") == name.trim_end(),
        &format!("it is {name}, and not {}", seen.text("comm")),
    );
    // The first one's session runs out at the server meanwhile.
    server.wait_expiry(first_id, TIMEOUT * 3);
    daemon.assert_never_above(mark, Stage::Healthy, &[id]);
    let mark = daemon.mark();
    let stopped = second.freeze();
    let warned = daemon.wait_stage(mark, id, "holder", Stage::AtRisk, TIMEOUT);
    daemon.check(
        warned.text("cause") == "process_stopped",
        "what it does itself",
    );
    drop(stopped);
    println!(
        "story: {} has the id {pid} of another, and its own name and state",
        name.trim_end()
    );
}

#[test]
fn a_network_namespace_that_is_deleted_takes_its_leases_along() {
    let server = ZooKeeper::start(TIMEOUT, Listen::Everywhere);
    let namespace = Namespace::create();
    let node = SocketAddr::new(
        namespace.node_address.parse().expect("an address"),
        server.port(),
    );
    let scope = format!("scope: {{ netns: /run/netns/{} }}", namespace.enter()[3]);
    let inner = Home::watching(&[server.port()], &scope);
    let outer = Home::watching(&[server.port()], "");
    let (inner, outer) = (Daemon::start(&inner), Daemon::start(&outer));
    let outside = Client::start(Order::idle(Kind::C, server.port(), TIMEOUT));
    let client = Client::start(Order {
        server: node,
        inside: Some(&namespace),
        ..Order::idle(Kind::C, server.port(), TIMEOUT)
    });
    // Its orphans are given up after the first try; the daemon holds the namespace, and would wait for them.
    let [ip, words @ ..] = namespace.enter();
    let limit = "net.ipv4.tcp_orphan_retries=1";
    process::run(ip, &[&words[..], &["sysctl", "-qw", limit]].concat());
    let id = client.id();
    for daemon in [&inner, &outer] {
        daemon.wait_seen(id, "holder", Duration::from_secs(5));
    }
    let mark = outer.mark();
    // The link goes first: nobody hears of the end of its connections.
    drop(namespace);
    client.kill();
    server.wait_expiry(id, TIMEOUT * 3);
    // The server's end is the node's, whose TCP still tries to be heard for some minutes.
    for (daemon, ends) in [(&inner, 0.0), (&outer, 3.0)] {
        let left = clock::poll(GONE, || (metric(daemon, USED)? <= ends).then_some(()));
        daemon.check(
            left.is_some(),
            &format!("{:?} slots are used, and not {ends}", metric(daemon, USED)),
        );
        let ready = daemon.get("/healthz").map(|page| page.status);
        daemon.check(ready == Some(200), "it goes on");
        nothing_lost(daemon);
    }
    outer.assert_never_above(mark, Stage::Late, &[outside.id()]);
    inner.wait_stderr("is deleted or names another namespace", GONE);
    process::send_signal(inner.pid(), libc::SIGHUP);
    inner.wait_stderr("reload refused", GONE);
    let status = inner.terminate();
    assert_eq!(status.code(), Some(0), "it ends as it is asked to");
    println!("story: a namespace is gone, and its leases with it");
}
