//! What takes the node away from everybody: CPUs, disks, memory.
//!
//! Out: the load, until it is dropped, and what it did, by the kernel's own counts. Never: a part of
//! it left behind: a switch apart ends it, within half an hour at the latest.

use crate::harness::clock;
use crate::harness::process::Child;
use crate::rig::cgroup::Cgroup;
use crate::rig::switch::{self, Switch};
use std::process::Command;

/// Memory of the load's own cgroup, MiB.
const MEMORY_MIB: u64 = 64;
/// Of it, what is never given back: the rest is too little for what it reads.
const HELD_MIB: u64 = 56;

/// Everything that takes the node away from others, ended when dropped.
pub struct Load {
    _children: Vec<Child>,
    memory: Option<Cgroup>,
    _switch: Switch,
    _folder: tempfile::TempDir,
    began: (i64, u64),
}

/// A shell that runs `script` at nice −20.
fn shell(script: &str) -> Child {
    let mut command = Command::new("nice");
    command.args(["-n", "-20", "sh", "-c", script]);
    Child::start(command)
}

/// Context switches since the boot.
fn switches() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let count = stat.lines().find_map(|line| line.strip_prefix("ctxt "));
    count
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

impl Load {
    /// Begins.
    pub fn begin() -> Self {
        let binary = std::env::current_exe().expect("a program knows its own binary");
        let binary = binary.display();
        let folder = tempfile::tempdir().expect("a folder");
        let files = folder.path().display();
        let mut children = vec![
            shell(&format!("exec {binary} switches 64")),
            shell(&format!("exec {binary} fsyncs {files}/a 4")),
        ];
        let memory = Cgroup::has("memory").then(|| {
            let group = Cgroup::create("memory");
            let bytes = MEMORY_MIB << 20;
            group.write("memory.limit_in_bytes", &bytes.to_string());
            children.push(shell(&format!(
                "echo $$ > {}/cgroup.procs; exec {binary} squeezed {files}/b {HELD_MIB}",
                group.folder()
            )));
            group
        });
        // Last: under it nothing more would start.
        children.push(shell(&format!("exec {binary} crowd 300")));
        let pids: Vec<String> = children
            .iter()
            .map(|child| child.pid().to_string())
            .collect();
        // Should this program be killed, the crowd must not stay.
        let switch = Switch::arm(
            switch::GROUND,
            &format!("kill -9 {} 2>/dev/null; true", pids.join(" ")),
        );
        Self {
            _children: children,
            memory,
            _switch: switch,
            _folder: folder,
            began: (clock::now_us(), switches()),
        }
    }

    /// What it has done so far.
    pub fn did(&self) -> String {
        let (at_us, before) = self.began;
        let took = clock::seconds(clock::now_us() - at_us).max(0.1);
        let each_second = switches().saturating_sub(before) as f64 / took;
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default().to_owned();
        let refused = self.memory.as_ref().map_or_else(
            || "no memory cgroup here".to_owned(),
            |group| {
                let count = group.read("memory.failcnt");
                format!("its cgroup had no page left {} times", count.trim())
            },
        );
        format!("{each_second:.0} context switches a second, load {load}, {refused}")
    }
}
