//! The I/O thread waits for a lock that somebody else holds and does not give back, or computes
//! itself and never comes back to its socket.

use crate::fault::Fault;
use crate::harness::clock;
use crate::rig::programs::Habit;
use crate::rig::victim::{Holder, Program, Victim};
use crate::sample::Sample;
use crate::scene::{Scene, T, demand_held_up};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

/// The faults of this family.
pub const FAULTS: &[Fault] = &[
    Fault::new(
        "lock-computes",
        "the owner of the mutex computes",
        &["lock_wait"],
        |scene, count| told(scene, count, Habit::MutexCompute),
    )
    .sized(3, 0),
    Fault::new(
        "lock-sleeps",
        "the owner of the mutex sleeps",
        &["lock_wait"],
        |scene, count| told(scene, count, Habit::MutexSleep),
    )
    .sized(8, 2),
    Fault::new(
        "callback",
        "a callback computes for ever on the I/O thread",
        &["thread_busy"],
        |scene, count| told(scene, count, Habit::Callback),
    )
    .sized(2, 1),
];

fn told(scene: &Scene, count: usize, habit: Habit) -> Vec<Sample> {
    let port = scene.server.port();
    let start = |_| {
        clock::observe_for(crate::rig::random::within(T / 4));
        let holder = Holder {
            pace: Duration::from_millis(100),
            ..Holder::new(port, T, habit, Path::new("-"))
        };
        holder.start()
    };
    let programs: Vec<Program> = (0..count).map(start).collect();
    let commands: Vec<_> = programs.iter().map(Program::commands).collect();
    let holders: Vec<Victim> = programs.into_iter().map(Victim::Own).collect();
    scene.settle(&holders, &["holder"]);
    let commands = Mutex::new(
        holders
            .iter()
            .map(Victim::id)
            .zip(commands)
            .collect::<Vec<_>>(),
    );
    let mut samples = scene.strike_each(&holders, "holder", |victim| {
        let since_us = clock::now_us();
        let commands = commands.lock().expect("no panic holds it");
        for (id, command) in commands.iter() {
            if *id == victim.id() {
                command.go();
            }
        }
        // The victim is killed with its batch: that is what undoes it.
        (since_us, Box::new(()))
    });
    demand_held_up(&mut samples, &holders);
    samples
}
