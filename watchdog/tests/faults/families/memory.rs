//! The holder's cgroup has less memory than its I/O thread works with: every other touch of a page is
//! a read from the disk.

use crate::fault::Fault;
use crate::harness::clock;
use crate::rig::cgroup::Cgroup;
use crate::rig::programs::{Habit, MAPPED_BYTES};
use crate::rig::victim::{Holder, Victim, own_file};
use crate::sample::Sample;
use crate::scene::{Scene, T, demand_held_up};

/// The faults of this family.
pub const FAULTS: &[Fault] = &[Fault::new(
    "memory-thrash",
    "a working set of 64 MB in a memory cgroup of 12 MB",
    &["memory_pressure"],
    thrash,
)
.sized(2, 0)];

fn thrash(scene: &Scene, count: usize) -> Vec<Sample> {
    let port = scene.server.port();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let groups: Vec<Cgroup> = (0..count).map(|_| Cgroup::create("memory")).collect();
    let start = |group: &Cgroup| {
        let file = own_file(folder.path());
        let text = vec![b'x'; MAPPED_BYTES];
        std::fs::write(&file, text).expect("the disk has room");
        // Its pages are to be the victim's, not the writer's.
        let name = file.display().to_string();
        crate::harness::process::run("sync", &[&name]);
        let input = format!("if={name}");
        crate::harness::process::run(
            "dd",
            &[
                "status=none",
                "of=/dev/null",
                "count=0",
                "iflag=nocache",
                &input,
            ],
        );
        let inside = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.folder());
        let holder = Holder {
            inside: &["sh", "-c", &inside, "sh"],
            ..Holder::new(port, T, Habit::Thrash, &file)
        };
        Victim::Own(holder.start())
    };
    let holders: Vec<Victim> = groups.iter().map(start).collect();
    scene.settle(&holders, &["holder"]);
    let by_pid: Vec<(i32, &Cgroup)> = holders.iter().map(Victim::pid).zip(&groups).collect();
    let mut samples = scene.strike_each(&holders, "holder", |victim| {
        let since_us = clock::now_us();
        let group = by_pid.iter().find(|(pid, _)| *pid == victim.pid());
        let (_, group) = group.expect("each victim has its group");
        let hold = group.hold("memory.limit_in_bytes", "12M", "-1");
        (since_us, Box::new(hold))
    });
    demand_held_up(&mut samples, &holders);
    drop(holders);
    samples
}
