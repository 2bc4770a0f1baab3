//! The flight recorders of two nodes, and what `explain` makes of them.
//!
//! The recorder beside the server is killed with -9 in the middle of the incident; one beside a holder lives on.
//! Each runs under a host name of its own, as on two nodes. Out: what `explain` says of both files.

use crate::harness::clock;
use crate::harness::daemon::{Daemon, Home, binary};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Host names of the recorders: the server's node, a holder's.
pub const NAMES: [&str; 2] = ["meta-161", "chunk-162"];

/// One daemon that records.
pub struct BlackBox {
    daemon: Daemon,
    home: Home,
}

impl BlackBox {
    /// Starts one with this configuration, on a node of this name.
    pub fn start(name: &str, config: &str) -> Self {
        let home = Home::with(config);
        let recorder = format!(
            "{config}recorder: {{ dir: \"{}\" }}\n",
            records(&home).display()
        );
        std::fs::write(home.config(), recorder).expect("the configuration can be written");
        let plain = home.command();
        let mut command = Command::new("unshare");
        command.args(["--uts", "sh", "-c", "hostname \"$0\" && exec \"$@\"", name]);
        command.arg(plain.get_program()).args(plain.get_args());
        let daemon = Daemon::launch(command);
        daemon.wait_for("`started`", Duration::from_secs(30), |event| {
            event.is("started")
        });
        Self { daemon, home }
    }

    /// Waits until an incident is being written, and kills it with -9.
    pub fn kill(self) -> Killed {
        let found = clock::poll(Duration::from_secs(5), || incident(&records(&self.home)));
        self.daemon
            .check(found.is_some(), "no incident is written while it goes on");
        self.daemon.kill();
        Killed { home: self.home }
    }

    /// Ends it in peace.
    pub fn end(self) -> Killed {
        let _ = self.daemon.terminate();
        Killed { home: self.home }
    }
}

/// What is left of one.
pub struct Killed {
    home: Home,
}

impl Killed {
    /// Its first incident.
    pub fn recording(&self) -> Option<PathBuf> {
        incident(&records(&self.home))
    }
}

fn records(home: &Home) -> PathBuf {
    home.path().join("records")
}

fn incident(dir: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(dir).ok()?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("incident-"))
        })
        .min()
}

/// What is told of these recordings, as JSON.
pub fn explain(recordings: &[PathBuf]) -> serde_json::Value {
    let output = Command::new(binary())
        .args(["explain", "--json", "--recording"])
        .args(recordings)
        .output()
        .expect("the daemon's binary runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&said).unwrap_or_else(|_| said.into())
}

/// The short of it, for people.
pub fn text(told: &serde_json::Value) -> String {
    let incident = &told["incidents"][0];
    let mut text = "\nfrom the recordings, one ended by kill -9 in the middle:\n".to_owned();
    for said in told["assumptions"].as_array().into_iter().flatten() {
        text.push_str(&format!("  {}\n", said.as_str().unwrap_or_default()));
    }
    for cause in incident["causes"].as_array().into_iter().flatten() {
        text.push_str(&format!("  {}: {}\n", cause["cause"], cause["standing"]));
    }
    let leads = &incident["leads"];
    text.push_str(&format!("  counted to: {}\n", leads["until_what"]));
    for lead in leads["rows"].as_array().into_iter().flatten() {
        text.push_str(&format!("  {} ms: {}\n", lead["lead_ms"], lead["trigger"]));
    }
    text
}

/// All that is wrong with it.
pub fn complaints(told: &serde_json::Value, device: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut check = |holds: bool, what: &str| {
        if !holds {
            complaints.push(format!("explain: {what}: {told}"));
        }
    };
    let incident = &told["incidents"][0];
    let causes = incident["causes"].as_array();
    let proven = causes
        .into_iter()
        .flatten()
        .find(|cause| cause["cause"] == "disk_stall" && cause["standing"] == "proven");
    check(proven.is_some(), "`disk_stall` is not proven");
    check(
        proven.is_some_and(|cause| cause.to_string().contains(device)),
        "the cause does not name the device",
    );
    let leads = incident["leads"]["rows"].as_array();
    let best = leads
        .into_iter()
        .flatten()
        .filter(|lead| {
            let trigger = lead["trigger"].as_str().unwrap_or_default();
            trigger.starts_with("lease-watchdog warned") && trigger.contains("disk_stall")
        })
        .filter_map(|lead| lead["lead_ms"].as_i64())
        .max();
    check(
        best.is_some_and(|lead_ms| lead_ms >= 4000),
        "no lead of four seconds and more is stated",
    );
    let said = told["assumptions"].as_array();
    let clocks = said.into_iter().flatten().find(|said| {
        let said = said.as_str().unwrap_or_default();
        NAMES.iter().all(|name| said.contains(name)) && said.contains("seen at both ends")
    });
    check(clocks.is_some(), "the two nodes' clocks are not compared");
    complaints
}
