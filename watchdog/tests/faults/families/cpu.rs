//! The holder is runnable and does not run: its cgroup's quota is used up, or others run.

use crate::fault::Fault;
use crate::harness::clock;
use crate::rig::cgroup::Cgroup;
use crate::rig::programs::Habit;
use crate::rig::switch::{self, Switch};
use crate::rig::victim::{Holder, Program, Victim};
use crate::sample::Sample;
use crate::scene::{Guard, Scene, T, demand_held_up};
use std::path::Path;

/// The faults of this family.
pub const FAULTS: &[Fault] = &[
    Fault::new(
        "cpu-quota",
        "the I/O thread computes 0.2 s before each ping, in a cgroup with a quota of 1 %",
        &["cpu_throttled"],
        quota,
    )
    .sized(6, 2),
    Fault::new(
        "cpu-idle-class",
        "the same under SCHED_IDLE, pinned beside hogs",
        &["cpu_starved"],
        starved,
    )
    .sized(4, 0),
];

fn holders(scene: &Scene, count: usize) -> Vec<Victim> {
    let port = scene.server.port();
    let start = |_| {
        clock::observe_for(crate::rig::random::within(T / 4));
        Victim::Own(Holder::new(port, T, Habit::Compute, Path::new("-")).start())
    };
    (0..count).map(start).collect()
}

fn quota(scene: &Scene, count: usize) -> Vec<Sample> {
    let holders = holders(scene, count);
    scene.settle(&holders, &["holder"]);
    let mut samples = scene.strike_each(&holders, "holder", |victim| {
        let group = Cgroup::create("cpu");
        group.write("cpu.cfs_period_us", "100000");
        let hold = group.hold("cpu.cfs_quota_us", "1000", "-1");
        let since_us = clock::now_us();
        group.adopt(victim.pid());
        (since_us, Box::new((hold, group)))
    });
    demand_held_up(&mut samples, &holders);
    samples
}

fn starved(scene: &Scene, count: usize) -> Vec<Sample> {
    let holders = holders(scene, count);
    scene.settle(&holders, &["holder"]);
    let mut samples = scene.strike_all(&holders, "holder", || {
        let since_us = clock::now_us();
        for holder in &holders {
            pin(holder.pid());
            idle_class(holder.pid());
        }
        let hogs: Vec<Program> = (0..3)
            .map(|_| Program::start(&["taskset", "-c", "1"], &["hog".to_owned()], "hog"))
            .collect();
        let pids: Vec<String> = hogs.iter().map(|hog| hog.pid().to_string()).collect();
        let switch = Switch::arm(
            switch::FAULT,
            &format!("kill -9 {} 2>/dev/null; true", pids.join(" ")),
        );
        let guard: Guard = Box::new((hogs, switch));
        (since_us, guard)
    });
    demand_held_up(&mut samples, &holders);
    samples
}

/// All threads on the second CPU: the first is left to the server and the daemon.
fn pin(pid: i32) {
    crate::harness::process::run("taskset", &["-a", "-cp", "1", &pid.to_string()]);
}

fn idle_class(pid: i32) {
    crate::harness::process::run("chrt", &["-a", "-i", "-p", "0", &pid.to_string()]);
}
