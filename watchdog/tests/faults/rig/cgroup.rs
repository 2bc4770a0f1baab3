//! Control groups of this run, v1 (a folder per controller) and v2, removed when dropped.

use super::names;
use super::switch::{self, Switch};
use std::path::PathBuf;
use std::time::Duration;

/// Where the hierarchies are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// A control group. What still runs in it is moved up before it is removed.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    _ground: Switch,
}

impl Cgroup {
    /// A new group in the hierarchy mounted at `/sys/fs/cgroup/HIERARCHY`.
    ///
    /// # Panics
    /// If there is no such hierarchy, or the group cannot be made.
    pub fn create(hierarchy: &str) -> Self {
        let name = names::unique();
        let root = PathBuf::from(ROOT).join(hierarchy);
        let path = root.join(&name);
        let (up, here) = (root.display(), path.display());
        let undo = format!(
            "{thaw}; for p in $(cat {here}/cgroup.procs); do echo $p > {up}/cgroup.procs; done; {gone}",
            thaw = Self::thaw_commands(&here.to_string()),
            gone = switch::patiently(&format!("rmdir {here}")),
        );
        let ground = Switch::arm(switch::GROUND, &undo);
        std::fs::create_dir(&path)
            .unwrap_or_else(|error| panic!("cgroup {}: {error}", path.display()));
        Self {
            path,
            _ground: ground,
        }
    }

    /// Whether a hierarchy is mounted here.
    pub fn has(hierarchy: &str) -> bool {
        PathBuf::from(ROOT)
            .join(hierarchy)
            .join("cgroup.procs")
            .exists()
    }

    /// Moves a process in, with all its threads.
    pub fn adopt(&self, pid: i32) {
        self.write("cgroup.procs", &pid.to_string());
    }

    /// Its folder, for a program that moves itself in.
    pub fn folder(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    /// Writes a control file.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn write(&self, file: &str, value: &str) {
        let path = self.path.join(file);
        std::fs::write(&path, value)
            .unwrap_or_else(|error| panic!("writing {value} to {}: {error}", path.display()));
    }

    /// Writes a control file for as long as the guard lives, one minute at most; then `after`.
    pub fn hold(&self, file: &str, value: &str, after: &str) -> Switch {
        let path = self.path.join(file);
        let switch = Switch::arm(switch::FAULT, &format!("echo {after} > {}", path.display()));
        self.write(file, value);
        switch
    }

    /// Reads a control file.
    pub fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path.join(file)).unwrap_or_default()
    }

    /// Waits until a control file contains a text.
    pub fn wait(&self, file: &str, text: &str) -> bool {
        let found = || self.read(file).contains(text).then_some(());
        crate::harness::clock::poll(Duration::from_secs(3), found).is_some()
    }

    fn thaw_commands(path: &str) -> String {
        format!(
            "if [ -e {path}/freezer.state ]; then echo THAWED > {path}/freezer.state; fi; \
             if [ -e {path}/cgroup.freeze ]; then echo 0 > {path}/cgroup.freeze; fi; \
             if [ -e {path}/cpu.cfs_quota_us ]; then echo -1 > {path}/cpu.cfs_quota_us; fi"
        )
    }
}
