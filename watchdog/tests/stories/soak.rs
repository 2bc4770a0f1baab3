//! Story of a long time: clients that freeze, come and go, a server that stands still, connections by the
//! hundred, reloads and scrapes, in an order that chance makes. In the end the daemon has what it had in the
//! beginning, and every transition that it counted it has told. A minute; half an hour with
//! LEASE_WATCHDOG_LONG.

use crate::crowd::{metric, nothing_lost, sockets};
use crate::harness::client::{Client, Kind, Order, State};
use crate::harness::clock;
use crate::harness::crowd::Crowd;
use crate::harness::daemon::{Daemon, Home};
use crate::harness::event::Event;
use crate::harness::process::send_signal;
use crate::harness::world::TIMEOUT;
use crate::harness::zookeeper::{Listen, ZooKeeper};
use std::time::Duration;

const SHORT: Duration = Duration::from_secs(45);
const LONG: Duration = Duration::from_secs(30 * 60);
/// Until all has been touched that is touched once, and how much is kept more from then on, KiB. The short form
/// ends while what is kept of the past (4 MiB of events, 4 MiB of recording) is still filled; the long one begins
/// to count when it is full.
const WARM: (Duration, u64) = (Duration::from_secs(20), 8 << 10);
const WARM_LONG: (Duration, u64) = (Duration::from_secs(10 * 60), 2 << 10);
/// Both ends of three clients' connections.
const ENDS: f64 = 6.0;
/// Until everybody is back.
const BACK: Duration = Duration::from_secs(60);

/// What a daemon takes of the node.
#[derive(Clone, Copy, Debug)]
struct Taken {
    resident_kib: u64,
    descriptors: usize,
    threads: usize,
    kernel_objects: usize,
}

impl Taken {
    fn of(daemon: &Daemon) -> Self {
        let own = format!("/proc/{}", daemon.pid());
        let status = std::fs::read_to_string(format!("{own}/status")).expect("it runs");
        let resident = status.lines().find_map(|line| {
            let kib = line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?;
            kib.parse().ok()
        });
        let count = |what: &str| {
            let entries = std::fs::read_dir(format!("{own}/{what}")).expect("it runs");
            entries.count()
        };
        Self {
            resident_kib: resident.expect("a size"),
            descriptors: count("fd"),
            threads: count("task"),
            kernel_objects: daemon.bpf_objects().len(),
        }
    }
}

/// The same numbers each time (Knuth's MMIX).
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

const KINDS: [Kind; 3] = [Kind::C, Kind::Kazoo, Kind::Rust];

fn start(kind: Kind, server: &ZooKeeper) -> Client {
    Client::start(Order::idle(kind, server.port(), TIMEOUT))
}

/// A client that loses its session is one of the things that happen, to whoever is frozen near its end on a busy
/// machine: another takes its place.
fn replace_lost(clients: &mut [Client], server: &ZooKeeper) {
    for (client, kind) in clients.iter_mut().zip(KINDS) {
        let changes = client.changes_since(0);
        if changes.iter().any(|change| change.state == State::Expired) {
            *client = start(kind, server);
        }
    }
}

/// Something of what happens to a node.
fn happen(
    chance: &mut Chance,
    daemon: &Daemon,
    server: &ZooKeeper,
    clients: &[Client],
    crowd_port: u16,
) {
    match chance.below(8) {
        0 | 1 => {
            let at = usize::try_from(chance.below(clients.len() as u64)).expect("few");
            let frozen = clients[at].freeze();
            clock::observe_for(chance.millis(300, 4_000));
            drop(frozen);
        }
        2 => {
            let frozen = server.freeze();
            clock::observe_for(chance.millis(300, 3_000));
            drop(frozen);
        }
        3 => drop(Crowd::visits(crowd_port, 200, 1)),
        4 => {
            let short = start(Kind::C, server);
            if chance.below(2) == 0 {
                short.close();
            } else {
                short.kill();
            }
        }
        5 => send_signal(daemon.pid(), libc::SIGHUP),
        _ => {
            for page in ["/", "/metrics", "/api/v1/leases", "/api/v1/events"] {
                daemon.check(daemon.get(page).is_some(), page);
            }
        }
    }
    clock::observe_for(chance.millis(50, 500));
}

/// All transitions by the daemon's own count.
fn transitions_counted(daemon: &Daemon) -> Option<u64> {
    let page = daemon.get("/metrics")?.body;
    let counts = page
        .lines()
        .filter(|line| line.starts_with("lease_watchdog_transitions_total{"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
    Some(counts.sum())
}

#[test]
fn a_long_time_of_faults_and_churn_leaves_nothing_behind() {
    let long = std::env::var_os("LEASE_WATCHDOG_LONG").is_some();
    let server = ZooKeeper::start(TIMEOUT, Listen::Loopback);
    let (_crowd, crowd_port) = Crowd::gentle_server();
    // It is not its cost that is looked at here.
    let home = Home::watching(&[server.port(), crowd_port], "limits: { cpu: 100% }");
    let daemon = Daemon::start(&home);
    let mut clients = KINDS.map(|kind| start(kind, &server));
    let mut chance = Chance(4);
    let mut run_for = |span: Duration, clients: &mut [Client]| {
        let end_us = clock::now_us() + i64::try_from(span.as_micros()).expect("no age");
        let mut times = 0;
        while clock::now_us() < end_us {
            happen(&mut chance, &daemon, &server, clients, crowd_port);
            replace_lost(clients, &server);
            times += 1;
        }
        times
    };
    let (warm, more_kib) = if long { WARM_LONG } else { WARM };
    run_for(warm, &mut clients);
    let before = Taken::of(&daemon);
    let times = run_for(if long { LONG } else { SHORT }, &mut clients);

    // Everybody comes back, and what was killed expires.
    let used = "lease_watchdog_slots{state=\"used\"}";
    let calm = clock::poll(BACK, || {
        replace_lost(&mut clients, &server);
        let page = daemon.get("/api/v1/incidents")?.body;
        let healthy =
            !page.contains("\"state\":\"opened\"") && !page.contains("\"state\":\"grown\"");
        let own = healthy && sockets(crowd_port) == 0;
        (own && metric(&daemon, used)? == ENDS).then_some(())
    });
    daemon.check(
        calm.is_some(),
        &format!(
            "six ends are left: {:?} slots, {} sockets of the crowd; {}",
            metric(&daemon, used),
            sockets(crowd_port),
            clients.each_ref().map(Client::report).join("\n")
        ),
    );
    let after = Taken::of(&daemon);
    println!("story (soak): {times} things happened; {before:?}, then {after:?}");
    daemon.check(
        after.resident_kib < before.resident_kib + more_kib,
        &format!("it has grown: {before:?}, {after:?}"),
    );
    // A connection of this test's may still be open, and an idle thread of the runtime's end later.
    daemon.check(
        after.descriptors <= before.descriptors + 3 && after.threads <= before.threads + 3,
        &format!("something was not given back: {before:?}, {after:?}"),
    );
    daemon.check(
        after.kernel_objects == before.kernel_objects,
        &format!("something is left in the kernel: {before:?}, {after:?}"),
    );
    nothing_lost(&daemon);
    // Counted and told: the one may be ahead of the other for a moment.
    let agree = clock::poll(BACK, || {
        let told = daemon.events_since(0).into_iter();
        let moves =
            |event: &Event| event.is("transition") && event.text("from") != event.text("to");
        let told = told.filter(moves).count() as u64;
        (transitions_counted(&daemon)? == told && told > 0).then_some(told)
    });
    daemon.check(agree.is_some(), "what is counted is told");
    println!(
        "story (soak): {} transitions counted and told",
        agree.unwrap_or(0)
    );
}
