//! A process's cgroups: throttling, the freezer, memory, in either version of the hierarchy.
//!
//! In: a process id. Out: figures of the groups that it is in, limits of the groups above included.
//! Never: a cgroup changed.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the hierarchies are mounted.
#[derive(Clone, Debug, Default)]
pub struct Mounts {
    /// By controller; version 2 under the empty name.
    by_controller: HashMap<String, PathBuf>,
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
            if root != "/" {
                continue;
            }
            if kind == "cgroup2" {
                mounts.add("", at);
            } else if kind == "cgroup" {
                for option in options.split(',').filter(|name| CONTROLLERS.contains(name)) {
                    mounts.add(option, at);
                }
            }
        }
        mounts
    }

    fn add(&mut self, controller: &str, at: &str) {
        self.by_controller
            .entry(controller.to_owned())
            .or_insert_with(|| PathBuf::from(at));
    }
}

/// The groups of one process.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    /// Path of the group that limits its CPU time, below its hierarchy.
    pub cpu_path: String,
    cpu: Option<(PathBuf, PathBuf)>,
    freezer: Option<PathBuf>,
    memory: Option<PathBuf>,
    unified: Option<(PathBuf, PathBuf)>,
}

/// Figures of a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Time throttled so far, ns: of the group or one above it, whichever has more.
    pub throttled_ns: u64,
    /// Pages thrown out and fetched back so far.
    pub refaults: u64,
    /// Time that somebody waited for memory so far, ns.
    pub pressure_ns: u64,
}

impl Groups {
    /// The groups that a process is in now.
    #[must_use]
    pub fn of(pid: u32, mounts: &Mounts) -> Self {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let mut groups = Self::default();
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
                continue;
            };
            for controller in controllers.split(',') {
                let Some(mount) = mounts.by_controller.get(controller) else {
                    continue;
                };
                let place = mount.join(path.trim_start_matches('/'));
                match controller {
                    "cpu" => {
                        path.clone_into(&mut groups.cpu_path);
                        groups.cpu = Some((mount.clone(), place));
                    }
                    "freezer" => groups.freezer = Some(place),
                    "memory" => groups.memory = Some(place),
                    "" => {
                        if groups.cpu_path.is_empty() || groups.cpu.is_none() {
                            path.clone_into(&mut groups.cpu_path);
                        }
                        groups.unified = Some((mount.clone(), place));
                    }
                    _ => {}
                }
            }
        }
        groups
    }

    /// Whether it is frozen, by either version's freezer.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        let old = self.freezer.as_ref().is_some_and(|place| {
            fs::read_to_string(place.join("freezer.state"))
                .is_ok_and(|state| state.trim() != "THAWED")
        });
        let new = self.unified.as_ref().is_some_and(|(_, place)| {
            fs::read_to_string(place.join("cgroup.events"))
                .is_ok_and(|events| value(&events, "frozen") == Some(1))
        });
        old || new
    }

    /// Its figures now.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for (root, place) in [&self.cpu, &self.unified].into_iter().flatten() {
            for group in place.ancestors().take_while(|group| *group != root) {
                figures.throttled_ns = figures.throttled_ns.max(throttled(group));
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

fn throttled(group: &Path) -> u64 {
    let Ok(text) = fs::read_to_string(group.join("cpu.stat")) else {
        return 0;
    };
    value(&text, "throttled_time")
        .or_else(|| Some(value(&text, "throttled_usec")?.saturating_mul(1000)))
        .unwrap_or(0)
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
        assert!(!groups.is_frozen());
        let _figures = groups.figures();
    }
}
