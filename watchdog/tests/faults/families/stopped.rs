//! The holder's process stands still: by a signal, by the freezer of cgroup v1, by that of v2.

use crate::fault::Fault;
use crate::harness::client::Order;
use crate::harness::clock;
use crate::rig::cgroup::Cgroup;
use crate::rig::switch::{self, Switch};
use crate::rig::victim::{Victim, real};
use crate::sample::Sample;
use crate::scene::{Scene, T};

const EXPECTED: &[&str] = &["process_stopped"];

/// The faults of this family.
pub const FAULTS: &[Fault] = &[
    Fault::new("sigstop", "SIGSTOP of a client", EXPECTED, sigstop).sized(8, 3),
    Fault::new(
        "freezer-v1",
        "cgroup v1 freezer around a client",
        EXPECTED,
        |scene, count| {
            frozen(
                scene,
                count,
                "freezer",
                "freezer.state",
                ["FROZEN", "THAWED"],
            )
        },
    )
    .sized(8, 2),
    Fault::new(
        "freezer-v2",
        "cgroup v2 freezer around a client",
        EXPECTED,
        |scene, count| frozen(scene, count, v2(), "cgroup.freeze", ["1", "0"]),
    ),
];

fn v2() -> &'static str {
    if Cgroup::has("unified") {
        "unified"
    } else {
        "."
    }
}

fn clients(scene: &Scene, count: usize) -> Vec<Victim> {
    let port = scene.server.port();
    let clients = real(count, |kind| Order::idle(kind, port, T), T);
    scene.settle(&clients, &["holder", "grantor"]);
    clients
}

fn sigstop(scene: &Scene, count: usize) -> Vec<Sample> {
    let clients = clients(scene, count);
    scene.strike_each(&clients, "holder", |victim| {
        let pid = victim.pid();
        let switch = Switch::arm(switch::FAULT, &format!("kill -CONT {pid}"));
        let stopped = crate::harness::faults::Stopped::stop(pid);
        (stopped.since_us, Box::new((stopped, switch)))
    })
}

fn frozen(
    scene: &Scene,
    count: usize,
    hierarchy: &str,
    file: &str,
    words: [&str; 2],
) -> Vec<Sample> {
    let clients = clients(scene, count);
    scene.strike_each(&clients, "holder", |victim| {
        let group = Cgroup::create(hierarchy);
        group.adopt(victim.pid());
        let since_us = clock::now_us();
        let [freeze, thaw] = words;
        let hold = group.hold(file, freeze, thaw);
        if file == "freezer.state" {
            group.wait(file, freeze);
        }
        (since_us, Box::new((hold, group)))
    })
}
