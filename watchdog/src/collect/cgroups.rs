//! A process's cgroups: throttling, the freezer, memory, in either version of the hierarchy.
//!
//! In: a process id. Out: figures of the groups that it is in, limits of the groups above included.
//! Never: a cgroup changed.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::membership;

/// Where the hierarchies are mounted.
#[derive(Clone, Debug, Default)]
pub struct Mounts {
    /// By controller; version 2 under the empty name. With it, how far above this process's own cgroup
    /// namespace it begins.
    by_controller: HashMap<String, (PathBuf, usize)>,
}

/// The controllers that are looked at.
const CONTROLLERS: [&str; 3] = ["cpu", "freezer", "memory"];

impl Mounts {
    /// Finds them.
    #[must_use]
    pub fn find() -> Self {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut mounts = Self::default();
        for line in text.lines() {
            let Some((place, kind)) = line.split_once(" - ") else {
                continue;
            };
            let mut kind = kind.split(' ');
            let (Some(kind), Some(options)) = (kind.next(), kind.nth(1)) else {
                continue;
            };
            let mut place = place.split(' ').skip(3);
            let (Some(root), Some(at)) = (place.next(), place.next()) else {
                continue;
            };
            let Some(up) = membership::steps_up(root) else {
                continue;
            };
            if kind == "cgroup2" {
                mounts.add("", at, up);
            } else if kind == "cgroup" {
                for option in options.split(',').filter(|name| CONTROLLERS.contains(name)) {
                    mounts.add(option, at, up);
                }
            }
        }
        mounts
    }

    /// The highest counts, and of equals the first.
    fn add(&mut self, controller: &str, at: &str, up: usize) {
        let known = self.by_controller.get(controller);
        if known.is_none_or(|(_, height)| *height < up) {
            let place = (PathBuf::from(at), up);
            self.by_controller.insert(controller.to_owned(), place);
        }
    }
}

/// The groups of one process.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    /// Path of the group that limits its CPU time, below its hierarchy.
    pub cpu_path: String,
    cpu: Option<(PathBuf, PathBuf)>,
    freezer: Option<(String, PathBuf)>,
    memory: Option<PathBuf>,
    unified: Option<(PathBuf, PathBuf)>,
    unified_path: String,
}

/// Figures of a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Time throttled so far, ns: of the group or one above it, whichever has more. The kernel adds
    /// it up when a throttled CPU may run again, which can be a second later.
    pub throttled_ns: u64,
    /// The same in whole periods, counted while it goes on, ns.
    pub throttled_periods_ns: u64,
    /// Pages thrown out and fetched back so far.
    pub refaults: u64,
    /// Time that somebody waited for memory so far, ns.
    pub pressure_ns: u64,
}

impl Groups {
    /// The groups that a process is in now.
    #[must_use]
    pub fn of(pid: u32, mounts: &Mounts) -> Self {
        let text = membership::of(pid);
        let mut groups = Self::default();
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
                continue;
            };
            for controller in controllers.split(',') {
                let Some((mount, _)) = mounts.by_controller.get(controller) else {
                    continue;
                };
                let place = mount.join(path.trim_start_matches('/'));
                match controller {
                    "cpu" => {
                        path.clone_into(&mut groups.cpu_path);
                        groups.cpu = Some((mount.clone(), place));
                    }
                    "freezer" => groups.freezer = Some((path.to_owned(), place)),
                    "memory" => groups.memory = Some(place),
                    "" => {
                        if groups.cpu_path.is_empty() || groups.cpu.is_none() {
                            path.clone_into(&mut groups.cpu_path);
                        }
                        path.clone_into(&mut groups.unified_path);
                        groups.unified = Some((mount.clone(), place));
                    }
                    _ => {}
                }
            }
        }
        groups
    }

    /// The group that is frozen, by either version's freezer, if one is.
    #[must_use]
    pub fn frozen(&self) -> Option<String> {
        if let Some((path, place)) = &self.freezer
            && fs::read_to_string(place.join("freezer.state"))
                .is_ok_and(|state| state.trim() != "THAWED")
        {
            return Some(path.clone());
        }
        let (_, place) = self.unified.as_ref()?;
        let events = fs::read_to_string(place.join("cgroup.events")).ok()?;
        (value(&events, "frozen") == Some(1)).then(|| self.unified_path.clone())
    }

    /// Its figures now.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for (root, place) in [&self.cpu, &self.unified].into_iter().flatten() {
            for group in place.ancestors().take_while(|group| *group != root) {
                let (time_ns, periods_ns) = throttled(group);
                figures.throttled_ns = figures.throttled_ns.max(time_ns);
                figures.throttled_periods_ns = figures.throttled_periods_ns.max(periods_ns);
            }
        }
        let unified = self.unified.as_ref().map(|(_, place)| place);
        for place in [self.memory.as_ref(), unified].into_iter().flatten() {
            let Ok(text) = fs::read_to_string(place.join("memory.stat")) else {
                continue;
            };
            let refaults = ["workingset_refault_file", "workingset_refault_anon"]
                .iter()
                .filter_map(|name| value(&text, name))
                .sum();
            figures.refaults = figures.refaults.max(refaults);
        }
        let pressure = unified
            .and_then(|place| fs::read_to_string(place.join("memory.pressure")).ok())
            .or_else(|| fs::read_to_string("/proc/pressure/memory").ok());
        if let Some(total) = pressure.as_deref().and_then(some_total) {
            figures.pressure_ns = total.saturating_mul(1000);
        }
        figures
    }
}

/// Time that a group was throttled, ns: as the kernel adds it up, and as periods counted.
fn throttled(group: &Path) -> (u64, u64) {
    /// The length of a period unless the group says otherwise, µs.
    const PERIOD_US: u64 = 100_000;
    let Ok(text) = fs::read_to_string(group.join("cpu.stat")) else {
        return (0, 0);
    };
    let time_ns = value(&text, "throttled_time")
        .or_else(|| Some(value(&text, "throttled_usec")?.saturating_mul(1000)))
        .unwrap_or(0);
    let periods = value(&text, "nr_throttled").unwrap_or(0);
    if periods == 0 {
        return (time_ns, 0);
    }
    // Version 1 has a file for it; version 2 says "quota period".
    let period_us = fs::read_to_string(group.join("cpu.cfs_period_us"))
        .ok()
        .or_else(|| {
            let max = fs::read_to_string(group.join("cpu.max")).ok()?;
            max.split_ascii_whitespace().nth(1).map(str::to_owned)
        })
        .and_then(|period| period.trim().parse().ok())
        .unwrap_or(PERIOD_US);
    (
        time_ns,
        periods.saturating_mul(period_us).saturating_mul(1000),
    )
}

/// The number behind a word at the beginning of a line.
fn value(text: &str, word: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(word)?.strip_prefix(' '))
        .and_then(|value| value.trim().parse().ok())
}

/// `some … total=N`, microseconds (Documentation/accounting/psi.rst).
fn some_total(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    line.rsplit_once("total=")?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_behind_words() {
        let text = "nr_periods 4\nthrottled_time 17\nthrottled_usec 9\n";
        assert_eq!(value(text, "throttled_time"), Some(17));
        assert_eq!(value(text, "throttled"), None);
        assert_eq!(
            some_total("some avg10=0.00 avg60=0.00 avg300=0.00 total=12345\nfull total=1\n"),
            Some(12_345)
        );
    }

    #[test]
    fn this_very_process_is_in_some_group() {
        let groups = Groups::of(std::process::id(), &Mounts::find());
        assert_eq!(groups.frozen(), None);
        let _figures = groups.figures();
    }
}
