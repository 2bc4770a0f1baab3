//! A process's cgroups by the paths that the node has for them.
//!
//! In: a process id. Out: `/proc/PID/cgroup`, as it reads in the node's own cgroup namespace. In another
//! one (a pod's, unless its runtime is told otherwise) paths are told from where that one begins: a process
//! beside it is in `/../other`. What lies above is found once, by looking for this very process below the
//! node's hierarchies, where those are mounted here. Never: a guess; where they are not, paths stay as told.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Inode of the node's own cgroup namespace (PROC_CGROUP_INIT_INO, include/linux/proc_ns.h).
const NODES_NAMESPACE: &str = "cgroup:[4026531835]";
/// Directories that are looked into for this process: more than any node has cgroups.
const MAX_LOOKED_AT: usize = 200_000;

/// Where this process's cgroup namespace begins, by hierarchy (controllers, as `/proc/PID/cgroup` calls it).
static BEGINS: OnceLock<HashMap<String, Vec<String>>> = OnceLock::new();

/// The text of `/proc/PID/cgroup`; empty if the process is gone.
#[must_use]
pub fn of(pid: u32) -> String {
    let text = fs::read(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let begins = BEGINS.get_or_init(begins);
    if begins.is_empty() {
        return text.into_owned();
    }
    text.lines()
        .map(|line| resolved(line, begins) + "\n")
        .collect()
}

fn in_nodes_namespace() -> bool {
    fs::read_link("/proc/self/ns/cgroup").is_ok_and(|link| link == Path::new(NODES_NAMESPACE))
}

/// Where the v2 hierarchy is mounted, as high as it is to be had here.
#[must_use]
pub fn unified() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    highest(&mounts, "").map(|(at, _)| PathBuf::from(at))
}

/// Whether that is only a part of it: a container's own, with nothing of what runs beside it.
#[must_use]
pub fn is_a_part() -> bool {
    // Which only the hierarchy's own root has not.
    unified().is_some_and(|at| at.join("cgroup.events").exists())
}

/// How many steps above the namespace's own beginning the root of a mount lies, by its root as mountinfo tells
/// it; None: it is no root of the node's hierarchy, nor above here.
#[must_use]
pub fn steps_up(root: &str) -> Option<usize> {
    if root == "/" {
        return Some(0);
    }
    let parts = root.strip_prefix('/')?.split('/');
    parts.map(|part| (part == "..").then_some(1)).sum()
}

fn resolved(line: &str, begins: &HashMap<String, Vec<String>>) -> String {
    let mut fields = line.splitn(3, ':');
    let (Some(number), Some(hierarchy), Some(path)) = (fields.next(), fields.next(), fields.next())
    else {
        return line.to_owned();
    };
    let Some(begin) = begins.get(hierarchy) else {
        return line.to_owned();
    };
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let up = parts.iter().take_while(|part| **part == "..").count();
    let kept = begin
        .iter()
        .map(String::as_str)
        .take(begin.len().saturating_sub(up));
    let whole: Vec<&str> = kept.chain(parts.iter().skip(up).copied()).collect();
    format!("{number}:{hierarchy}:/{}", whole.join("/"))
}

fn begins() -> HashMap<String, Vec<String>> {
    let mut begins = HashMap::new();
    if in_nodes_namespace() {
        return begins;
    }
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(hierarchy), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let Some((mount, up)) = highest(&mounts, hierarchy) else {
            continue;
        };
        if let Some(begin) = begin_of(Path::new(mount), path, up) {
            begins.insert(hierarchy.to_owned(), begin);
        }
    }
    begins
}

/// The mount of a hierarchy whose root lies highest, and how high.
fn highest<'a>(mountinfo: &'a str, hierarchy: &str) -> Option<(&'a str, usize)> {
    let of = mountinfo.lines().filter_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let (kind, options) = (kind.next()?, kind.nth(1)?);
        let fits = match hierarchy {
            "" => kind == "cgroup2",
            _ => {
                kind == "cgroup"
                    && hierarchy
                        .split(',')
                        .all(|one| options.split(',').any(|has| has == one))
            }
        };
        let mut place = place.split(' ').skip(3);
        let (root, at) = (place.next()?, place.next()?);
        fits.then_some(())?;
        Some((at, steps_up(root)?))
    });
    of.max_by_key(|(_, up)| *up)
}

/// The names of the first `up` cgroups on the way from the mount's root to this process.
fn begin_of(mount: &Path, own_path: &str, up: usize) -> Option<Vec<String>> {
    let own_parts = own_path
        .split('/')
        .filter(|part| !part.is_empty() && *part != "..");
    let depth = up + own_parts.count();
    let own = std::process::id().to_string();
    let mut level = vec![Vec::new()];
    let mut looked_at = 0;
    for _ in 0..depth {
        let mut next = Vec::new();
        for names in level {
            let folder: PathBuf = names
                .iter()
                .fold(mount.to_owned(), |at, name: &String| at.join(name));
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                looked_at += 1;
                if looked_at > MAX_LOOKED_AT {
                    return None;
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir())
                    && let Ok(name) = entry.file_name().into_string()
                {
                    next.push([names.as_slice(), &[name]].concat());
                }
            }
        }
        level = next;
    }
    let holds_this = |names: &Vec<String>| {
        let folder = names
            .iter()
            .fold(mount.to_owned(), |at, name| at.join(name));
        let inside = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        inside.lines().any(|pid| pid == own)
    };
    let mut found = level.into_iter().find(holds_this)?;
    found.truncate(up);
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_the_nodes_root() {
        let begin = ["kubepods", "pod1", "own"].map(str::to_owned).to_vec();
        let begins = HashMap::from([(String::new(), begin)]);
        for (told, node) in [
            ("0::/", "0::/kubepods/pod1/own"),
            ("0::/below", "0::/kubepods/pod1/own/below"),
            ("0::/../other", "0::/kubepods/pod1/other"),
            ("0::/../../pod2/its", "0::/kubepods/pod2/its"),
            ("0::/../../../init.scope", "0::/init.scope"),
            ("0::/../../..", "0::/"),
            ("4:cpu:/../x", "4:cpu:/../x"),
            ("garbage", "garbage"),
        ] {
            assert_eq!(resolved(told, &begins), node);
        }
    }

    #[test]
    fn the_root_is_found_beside_v1_and_a_sub_tree_is_not_taken_for_it() {
        let hybrid =
            "36 27 0:31 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(highest(hybrid, ""), Some(("/sys/fs/cgroup/unified", 0)));
        for other in [
            "36 27 0:31 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
            "36 27 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw",
            "garbage",
        ] {
            assert_eq!(highest(other, ""), None);
        }
    }

    #[test]
    fn the_nodes_hierarchy_is_the_highest() {
        let mounts = "1 2 0:31 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n\
                      1 2 0:31 /../.. /host/cgroup ro - cgroup2 cgroup rw\n\
                      1 2 0:31 /docker/1 /other ro - cgroup2 cgroup rw\n\
                      1 2 0:30 /.. /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n";
        assert_eq!(highest(mounts, ""), Some(("/host/cgroup", 2)));
        assert_eq!(highest(mounts, "cpu"), Some(("/sys/fs/cgroup/cpu", 1)));
        assert_eq!(highest(mounts, "memory"), None);
        assert_eq!(steps_up("/docker/1"), None);
    }
}
