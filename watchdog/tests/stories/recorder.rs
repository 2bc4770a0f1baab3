//! Story: a client freezes, its session is in jeopardy, and the daemon is killed with -9 in the middle of it.
//! What its recorder had written by then tells the incident with its proven cause, and replays to the same
//! words.

use crate::harness::client::{Client, Kind, Order};
use crate::harness::clock;
use crate::harness::daemon::{Daemon, Home, binary};
use crate::harness::event::Stage;
use crate::harness::world::{TIMEOUT, World};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[test]
fn a_recording_outlives_a_kill_and_tells_the_cause() {
    let world = World::shared();
    let port = world.server.port();
    let records = tempfile::tempdir().expect("a temporary directory");
    let home = Home::watching(
        &[port],
        &format!("recorder: {{ dir: \"{}\" }}", records.path().display()),
    );
    let daemon = Daemon::start(&home);
    let clients = world.connect(vec![Client::start(Order::idle(Kind::C, port, TIMEOUT))]);
    let client = &clients[0];
    daemon.wait_seen(client.id(), "holder", Duration::from_secs(10));
    // Two idle gaps: the cadence has been learned.
    clock::observe_for(TIMEOUT);
    let mark = daemon.mark();
    let stopped = client.freeze();
    daemon.wait_stage(mark, client.id(), "holder", Stage::Jeopardy, TIMEOUT * 2);
    let file = clock::poll(Duration::from_secs(10), || incident(records.path()));
    let file = file.expect("jeopardy is written to the disk");
    daemon.kill();
    drop(stopped);

    let told = explain(&["--json", "--recording"], &file);
    let report: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let incident = &report["incidents"][0];
    let cause = &incident["causes"][0];
    assert_eq!(cause["cause"], "process_stopped", "{told}");
    assert_eq!(cause["standing"], "proven", "{told}");
    let id = format!("{:#x}", client.id());
    assert!(incident["timeline"].to_string().contains(&id), "{told}");

    let told = explain(&["--replay"], &file);
    assert!(told.contains("the same as recorded"), "{told}");
    let told = explain(&["--recording"], &records.path().join("rolling.lwr"));
    assert!(told.contains("process_stopped: proven"), "{told}");
}

/// The newest incident's file, once a block is in it.
fn incident(dir: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(dir).ok()?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("incident-"))
        })
        .max()
}

fn explain(options: &[&str], file: &Path) -> String {
    let output = Command::new(binary())
        .arg("explain")
        .args(options)
        .arg(file)
        .output()
        .expect("the daemon's binary runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}
