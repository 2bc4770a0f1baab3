//! What the programs themselves cost, as the kernel counts it while asked to.
//!
//! In: the kernel's run counts. Out: runs and run time by program. Never: the sysctl, which would
//! leave the counting on for the whole node; a descriptor ends with whoever holds it. The counting
//! itself costs every program on the node about 65 ns a run, so nobody should hold it for long.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::Duration,
};

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

/// The loaded programs, to be asked by another thread than the one that owns them.
#[derive(Debug)]
pub struct Programs(Vec<(String, OwnedFd)>);

impl Programs {
    pub(super) fn of(programs: &Ebpf) -> Self {
        let held = programs.programs().filter_map(|(name, program)| {
            // One that was refused has no descriptor.
            let held = program.fd().ok()?.as_fd().try_clone_to_owned().ok()?;
            Some((name.to_owned(), held))
        });
        Self(held.collect())
    }

    /// What each has cost so far. Asked of the descriptor's own file in procfs, which takes no
    /// right.
    #[must_use]
    pub fn costs(&self) -> Vec<Cost> {
        let cost = |(name, held): &(String, OwnedFd)| {
            let file = format!("/proc/self/fdinfo/{}", held.as_raw_fd());
            let (runs, time) = counts(&fs::read_to_string(file).ok()?)?;
            Some(Cost {
                program: name.clone(),
                runs,
                time,
            })
        };
        self.0.iter().filter_map(cost).collect()
    }
}

/// `run_cnt` and `run_time_ns` of a program's descriptor.
fn counts(fdinfo: &str) -> Option<(u64, Duration)> {
    let field = |name: &str| {
        let line = fdinfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.strip_prefix(':')?.trim().parse().ok()
    };
    Some((
        field("run_cnt")?,
        Duration::from_nanos(field("run_time_ns")?),
    ))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptors_counts_are_read() {
        let text = "pos:\t0\nprog_tag:\t1f\nrun_time_ns:\t1500\nrun_cnt:\t3\nverified_insns:\t9\n";
        assert_eq!(counts(text), Some((3, Duration::from_nanos(1500))));
        assert_eq!(counts("pos:\t0\n"), None);
    }
}
