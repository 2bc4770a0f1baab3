//! The runtime stops its world: a full collection of a large heap in a real Java client.

use crate::fault::Fault;
use crate::harness::clock;
use crate::rig::java::start;
use crate::rig::victim::{Program, Victim};
use crate::sample::Sample;
use crate::scene::Scene;
use std::time::Duration;

/// The faults of this family.
pub const FAULTS: &[Fault] = &[Fault::new(
    "java-gc",
    "a full collection of a large heap in a real Java client, T = 4 s",
    &["runtime_pause"],
    collection,
)
.sized(2, 0)];

/// The shortest that a server grants: the pause must be longer.
const SHORT: Duration = Duration::from_secs(4);

fn collection(scene: &Scene, count: usize) -> Vec<Sample> {
    let port = scene.server.port();
    let programs: Vec<Program> = (0..count).map(|_| start(port, SHORT)).collect();
    for program in &programs {
        program.wait_long("built");
    }
    let commands: Vec<_> = programs.iter().map(Program::commands).collect();
    let clients: Vec<Victim> = programs.into_iter().map(Victim::Own).collect();
    scene.settle(&clients, &["holder"]);
    let mut samples = scene.strike_all(&clients, "holder", || {
        let since_us = clock::now_us();
        for command in &commands {
            command.go();
        }
        (since_us, Box::new(()))
    });
    crate::scene::demand_held_up(&mut samples, &clients);
    samples
}
