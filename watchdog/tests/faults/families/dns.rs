//! The I/O thread looks up a name, and the name server does not answer.

use crate::fault::Fault;
use crate::harness::clock;
use crate::rig::name_server::NameServer;
use crate::rig::programs::Habit;
use crate::rig::victim::{Holder, Victim};
use crate::sample::Sample;
use crate::scene::{Scene, T, demand_held_up};
use std::path::Path;

/// The faults of this family.
pub const FAULTS: &[Fault] = &[Fault::new(
    "dns",
    "a name looked up on the I/O thread; the DNS server does not answer",
    &["waiting_elsewhere"],
    silent_server,
)
.sized(8, 2)];

fn silent_server(scene: &Scene, count: usize) -> Vec<Sample> {
    let port = scene.server.port();
    let names = NameServer::start();
    let inside = names.enter();
    let inside: Vec<&str> = inside.iter().map(String::as_str).collect();
    let start = |_| {
        clock::observe_for(crate::rig::random::within(T / 4));
        let holder = Holder {
            inside: &inside,
            ..Holder::new(port, T, Habit::Lookup, Path::new("-"))
        };
        Victim::Own(holder.start())
    };
    let holders: Vec<Victim> = (0..count).map(start).collect();
    scene.settle(&holders, &["holder"]);
    let mut samples = scene.strike_all(&holders, "holder", || {
        let since_us = clock::now_us();
        (since_us, Box::new(names.silence()))
    });
    demand_held_up(&mut samples, &holders);
    samples
}
