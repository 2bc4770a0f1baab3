//! Story: a client freezes, its session is in jeopardy, and the daemon is killed with -9 in the middle of it.
//! What its recorder had written by then tells the incident with its proven cause, and replays to the same
//! words.

use crate::alerting::hung_disk::HungDisk;
use crate::harness::client::{Client, Kind, Order};
use crate::harness::clock;
use crate::harness::daemon::{Daemon, Home, binary};
use crate::harness::event::Stage;
use crate::harness::world::{TIMEOUT, World};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use watchdog::recorder::Op;
use watchdog::recorder::format::Recording;

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

/// The recorder's disk hangs for half a minute, and in the middle of it there is an incident to record. Nothing
/// waits for it, nothing is lost, and once the disk is back all of it is written.
#[test]
fn while_the_recorders_disk_hangs_the_tick_goes_on_and_nothing_is_lost() {
    const HANG: Duration = Duration::from_secs(30);
    let world = World::shared();
    let port = world.server.port();
    let disk = HungDisk::new("recorder");
    let dir = disk.path().join("records");
    let all = disk.path().join("all.lwr");
    let home = Home::watching(
        &[port],
        &format!("recorder: {{ dir: \"{}\" }}", dir.display()),
    );
    let mut command = home.command();
    command.arg("--record-all").arg(&all);
    let daemon = Daemon::launch(command);
    daemon.wait_for("`started`", Duration::from_secs(30), |event| {
        event.is("started")
    });
    let client = Client::start(Order::idle(Kind::C, port, TIMEOUT));
    daemon.wait_seen(client.id(), "holder", Duration::from_secs(30));
    clock::observe_for(TIMEOUT);

    let began_us = clock::now_us();
    disk.hang();
    let mark = daemon.mark();
    let stopped = client.freeze();
    daemon.wait_stage(mark, client.id(), "holder", Stage::Jeopardy, TIMEOUT * 2);
    drop(stopped);
    clock::observe_until(began_us + clock::micros(HANG));
    let stalled = daemon
        .events_since(mark)
        .iter()
        .any(|event| event.is("stalled"));
    daemon.check(!stalled, "the tick was held up");
    let ended_us = clock::now_us();
    disk.heal();
    // What came after the disk was back is on it: so all before is.
    let written = clock::poll(Duration::from_secs(20), || {
        let recording = Recording::read(&all).ok()?;
        let last = recording.calls.last()?.0.0;
        (last > ended_us.unsigned_abs() * 1000).then_some(recording)
    });
    daemon.check(written.is_some(), "what waited for the disk is not written");
    let recording = written.expect("checked");
    let metrics = daemon
        .get("/metrics")
        .map(|answer| answer.body)
        .unwrap_or_default();
    daemon.check(
        metrics.contains("lease_watchdog_lost_total{what=\"record\"} 0"),
        "something was lost",
    );
    let looks: Vec<u64> = recording
        .calls
        .iter()
        .filter(|(_, _, op)| matches!(op, Op::Advance))
        .map(|(at, ..)| at.0)
        .filter(|at| (began_us..=ended_us).contains(&i64::try_from(at / 1000).expect("a time")))
        .collect();
    let apart = looks.windows(2).map(|two| two[1] - two[0]).max();
    daemon.check(
        looks.len() > 500 && apart.is_some_and(|ns| ns < 500_000_000),
        &format!(
            "{} looks in {HANG:?}, at most {apart:?} ns apart",
            looks.len()
        ),
    );
    let file = clock::poll(Duration::from_secs(10), || incident(&dir));
    let file = file.unwrap_or_else(|| panic!("no incident is written\n{}", daemon.report()));
    let told = explain(&["--replay"], &file);
    assert!(told.contains("process_stopped"), "{told}");
    println!(
        "story (recorder): {} looks while the disk hung, {} ms apart at most",
        looks.len(),
        apart.unwrap_or(0) / 1_000_000
    );
    drop(daemon);
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
