//! What the programs themselves cost, as the kernel counts it while asked to.
//!
//! In: the kernel's run counts. Out: runs and run time by program. Never: the sysctl, which would
//! leave the counting on for the whole node; a descriptor ends with whoever holds it. The counting
//! itself costs every program on the node about 65 ns a run, so nobody should hold it for long.

use std::{os::fd::OwnedFd, time::Duration};

use aya::{
    Ebpf,
    sys::{Stats, enable_stats},
};

use super::Missing;

/// The kernel counts as long as this lives.
#[derive(Debug)]
pub struct Counting {
    _descriptor: OwnedFd,
}

/// Asks the kernel to count.
///
/// # Errors
/// It refuses: older than 5.8, or not allowed.
pub fn count() -> Result<Counting, Missing> {
    let descriptor = enable_stats(Stats::RunTime).map_err(|error| {
        Missing(format!(
            "the kernel does not count what programs cost: {error}; run as root, on 5.8 or later"
        ))
    })?;
    Ok(Counting {
        _descriptor: descriptor,
    })
}

/// What one program has cost since it was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Its name in the object.
    pub program: String,
    /// How often it ran.
    pub runs: u64,
    /// For how long in all.
    pub time: Duration,
}

/// The costs of an object's loaded programs, in the order of their names.
#[must_use]
pub fn of(programs: &Ebpf) -> Vec<Cost> {
    let mut costs: Vec<Cost> = programs
        .programs()
        .filter_map(|(name, program)| {
            // One that was not loaded has none.
            let info = program.info().ok()?;
            Some(Cost {
                program: name.to_owned(),
                runs: info.run_count(),
                time: info.run_time(),
            })
        })
        .collect();
    costs.sort_by(|one, other| one.program.cmp(&other.program));
    costs
}
