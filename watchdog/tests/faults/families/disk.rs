//! A disk hangs under the holder's I/O thread: in an fsync, in a log write that meets the journal, in
//! a page fault of a mapped file; and behind a mutex whose owner hangs there.

use crate::fault::Fault;
use crate::harness::clock;
use crate::rig::hung_disk::HungDisk;
use crate::rig::mapped_disk::{Hold, MappedDisk};
use crate::rig::programs::{Habit, MAPPED_BYTES};
use crate::rig::victim::{Holder, Victim, own_file};
use crate::sample::Sample;
use crate::scene::{Scene, T, demand_held_up};
use std::time::Duration;

const EXPECTED: &[&str] = &["disk_stall"];

/// The faults of this family.
pub const FAULTS: &[Fault] = &[
    Fault::new("disk-fsync", "disk hung under an fsync", EXPECTED, |scene, count| {
        hung(scene, count, &[Habit::Fsync], "defaults")
    })
    .sized(8, 3),
    Fault::new(
        "disk-journal",
        "disk hung under a log write, which waits for the journal",
        EXPECTED,
        |scene, count| hung(scene, count, &[Habit::Log], "data=writeback,commit=1"),
    ),
    Fault::new(
        "disk-mapped",
        "disk hung under a page fault of a mapped file",
        EXPECTED,
        |scene, count| hung(scene, count, &[Habit::Mapped], "defaults"),
    )
    .sized(4, 0),
    Fault::new(
        "disk-behind-mutex",
        "the I/O thread waits for a mutex whose owner hangs in an fsync (C's mutex and Rust's in turn)",
        EXPECTED,
        |scene, count| {
            hung(
                scene,
                count,
                &[Habit::MutexDisk, Habit::PlainMutexDisk],
                "defaults",
            )
        },
    )
    .sized(8, 2),
    Fault::new(
        "disk-suspended",
        "the device mapper keeps every request, under an fsync",
        EXPECTED,
        |scene, count| held(scene, count, Hold::Suspend),
    )
    .where_not(MappedDisk::lacking),
    Fault::new(
        "disk-delayed",
        "the device mapper passes writes on ten seconds late, under an fsync",
        EXPECTED,
        |scene, count| held(scene, count, Hold::Delay),
    )
    .where_not(MappedDisk::lacking),
];

fn held(scene: &Scene, count: usize, how: Hold) -> Vec<Sample> {
    let disk = MappedDisk::create();
    let port = scene.server.port();
    let files: Vec<_> = (0..count).map(|_| own_file(disk.mount())).collect();
    let start = |file: &std::path::PathBuf| {
        clock::observe_for(crate::rig::random::within(T / 4));
        Victim::Own(Holder::new(port, T, Habit::Fsync, file).start())
    };
    let holders: Vec<Victim> = files.iter().map(start).collect();
    scene.settle(&holders, &["holder"]);
    let mut samples = scene.strike_all(&holders, "holder", || {
        let (since_us, held) = disk.hold(how);
        (since_us, Box::new(held))
    });
    demand_held_up(&mut samples, &holders);
    for sample in &mut samples {
        sample.thing = Some(disk.device.clone());
    }
    // They hang in there, and the disk goes on when the guard is gone.
    drop(holders);
    samples
}

fn hung(scene: &Scene, count: usize, habits: &[Habit], options: &str) -> Vec<Sample> {
    let disk = HungDisk::create(options);
    let port = scene.server.port();
    let files: Vec<_> = (0..count).map(|_| own_file(disk.mount())).collect();
    if habits[0] == Habit::Mapped {
        for file in &files {
            let text = vec![b'x'; MAPPED_BYTES / 2];
            std::fs::write(file, text).expect("the disk has room");
        }
        disk.forget_cache();
    }
    let start = |(index, file): (usize, &std::path::PathBuf)| {
        clock::observe_for(crate::rig::random::within(T / 4));
        let habit = habits[index % habits.len()];
        // Every other one works between its pings too; a log is written all the time.
        let often = index / habits.len() % 2 == 1 || habit == Habit::Log;
        let pace = Duration::from_millis(if often { 300 } else { 0 });
        let holder = Holder {
            pace,
            ..Holder::new(port, T, habit, file)
        };
        Victim::Own(holder.start())
    };
    let holders: Vec<Victim> = files.iter().enumerate().map(start).collect();
    scene.settle(&holders, &["holder"]);
    let mut samples = scene.strike_all(&holders, "holder", || {
        let hanging = disk.hang();
        (hanging.since_us, Box::new(hanging))
    });
    demand_held_up(&mut samples, &holders);
    for sample in &mut samples {
        sample.thing = Some(disk.device.clone());
    }
    samples
}
