//! The faults, one file per family.

mod cpu;
mod disk;
mod dns;
mod jvm;
mod lock;
mod memory;
mod network;
mod peer;
mod stopped;

use crate::fault::Fault;

/// All of them, in the order of the table.
pub fn all() -> Vec<&'static Fault> {
    [
        stopped::FAULTS,
        cpu::FAULTS,
        disk::FAULTS,
        lock::FAULTS,
        jvm::FAULTS,
        memory::FAULTS,
        dns::FAULTS,
        network::FAULTS,
        peer::FAULTS,
    ]
    .into_iter()
    .flatten()
    .collect()
}
