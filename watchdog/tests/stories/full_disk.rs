//! Story of a full disk: the daemon's state, its recordings and its event file lie where nothing can be written any
//! more, a file system of the story's own. It starts, warns in time by what needs no disk, says what it cannot
//! write, and writes again once there is room.

use crate::crowd::metric;
use crate::harness::client::{Client, Kind, Order};
use crate::harness::clock;
use crate::harness::daemon::{Daemon, Home};
use crate::harness::event::Stage;
use crate::harness::process::send_signal;
use crate::harness::world::TIMEOUT;
use crate::harness::zookeeper::{Listen, ZooKeeper, free_port};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use watchdog::recorder::format::Recording;

const SOON: Duration = Duration::from_secs(20);
/// Mounts a small file system at $1 that the daemon alone sees, and fills it but for its directory and $2: so that
/// something is cut off in its middle.
const FULL: &str = "mount -t tmpfs -o size=1m none \"$1\" && mkdir \"$1/state\" && \
    { dd if=/dev/zero of=\"$1/filler\" bs=4k status=none 2>/dev/null; \
    truncate -s \"-$2\" \"$1/filler\"; shift 2; exec \"$@\"; }";

/// The daemon on a full file system, and where that is seen from outside.
fn on_a_full_disk(
    home: &Home,
    events: &str,
    left: &str,
) -> (Daemon, impl Fn(&Daemon) -> PathBuf + use<>) {
    let disk = home.path().join("disk");
    std::fs::create_dir(&disk).expect("a mount point");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    command.args(["sh", "-c", FULL, "sh"]).arg(&disk).arg(left);
    command.arg(crate::harness::daemon::binary());
    command.arg("run").arg("--config").arg(home.config());
    command.args(["--events", events, "--state-dir"]);
    command.arg(disk.join("state"));
    let inside = move |daemon: &Daemon| {
        let root = PathBuf::from(format!("/proc/{}/root", daemon.pid()));
        root.join(disk.strip_prefix("/").expect("an absolute path"))
    };
    (Daemon::launch(command), inside)
}

#[test]
fn on_a_full_disk_it_warns_and_writes_again_when_there_is_room() {
    let server = ZooKeeper::start(TIMEOUT, Listen::Loopback);
    let config = |dir: &str| format!("recorder: {{ dir: \"{dir}\" }}\n");
    let home = Home::watching(&[server.port()], "");
    let records = home.path().join("disk/state");
    let text = std::fs::read_to_string(home.config()).expect("a configuration");
    let text = text + &config(&records.display().to_string());
    std::fs::write(home.config(), text).expect("it can be written");
    let (daemon, disk) = on_a_full_disk(&home, "-", "8K");
    daemon.wait_for("`started`", SOON, |event| event.is("started"));
    let filler = disk(&daemon).join("filler");
    assert!(filler.exists(), "the disk is there, and full");
    let client = Client::start(Order::idle(Kind::C, server.port(), TIMEOUT));
    daemon.wait_seen(client.id(), "holder", SOON);
    server.next_renewal(client.id());
    let mark = daemon.mark();
    let stopped = client.freeze();
    let warned = daemon.wait_stage(mark, client.id(), "holder", Stage::AtRisk, TIMEOUT);
    let expired_us = server.wait_expiry(client.id(), TIMEOUT * 2);
    daemon.check(warned.at_us < expired_us, "warned before it expired");
    daemon.wait_stderr("cannot write", SOON);
    drop(stopped);
    let lost = metric(&daemon, "lease_watchdog_lost_total{what=\"record\"}");
    println!(
        "story: on a full disk warned {:.2} s before expiry; records lost: {lost:?}",
        clock::seconds(expired_us - warned.at_us)
    );
    // There is room again: what is asked for is written.
    std::fs::remove_file(&filler).expect("it can be removed");
    let named = |kind: &str| {
        let entries = std::fs::read_dir(disk(&daemon).join("state")).expect("its directory");
        let mut paths = entries.flatten().map(|entry| entry.path());
        paths.find(|path| {
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            name.is_some_and(|name| name.starts_with(kind))
        })
    };
    send_signal(daemon.pid(), libc::SIGUSR1);
    // What stands in them is whole: nothing follows half a block, where no reader would come to it.
    for kind in ["incident", "rolling.lwr"] {
        let whole = clock::poll(SOON, || {
            let recording = Recording::read(&named(kind)?).ok()?;
            (recording.torn.is_none() && !recording.calls.is_empty()).then_some(())
        });
        daemon.check(whole.is_some(), &format!("{kind} is whole"));
    }
    let known = clock::poll(SOON, || {
        std::fs::metadata(named("flows")?)
            .ok()?
            .len()
            .checked_sub(1)
    });
    daemon.check(known.is_some(), "known flows are written");
}

#[test]
fn events_that_find_no_room_are_counted_and_come_again_with_it() {
    let server = ZooKeeper::start(TIMEOUT, Listen::Loopback);
    let home = Home::watching(&[server.port()], "");
    let port = free_port();
    let text = std::fs::read_to_string(home.config()).expect("a configuration");
    let text = text.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    std::fs::write(home.config(), text).expect("it can be written");
    let events = home.path().join("disk/events.jsonl");
    let (daemon, disk) = on_a_full_disk(&home, &events.display().to_string(), "0");
    daemon.wait_stderr("cannot write", SOON);
    let get = |path: &str| crate::harness::http::get(&format!("127.0.0.1:{port}"), path);
    let lost = clock::poll(SOON, || {
        let page = get("/metrics")?.body;
        let line = "lease_watchdog_lost_total{what=\"event_line\"} ";
        let count = page.lines().find_map(|one| one.strip_prefix(line))?;
        count.parse::<f64>().ok().filter(|lost| *lost > 0.0)
    });
    daemon.check(lost.is_some(), "what is lost is counted");
    std::fs::remove_file(disk(&daemon).join("filler")).expect("it can be removed");
    let client = Client::start(Order::idle(Kind::C, server.port(), TIMEOUT));
    let id = format!("{:#x}", client.id());
    let file = disk(&daemon).join("events.jsonl");
    let told = clock::poll(SOON, || {
        let text = std::fs::read_to_string(&file).ok()?;
        // Each line is whole: what was cut off by the full disk is not glued to what came after it.
        let mut lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines.find(|event: &serde_json::Value| event["id"] == *id)
    });
    daemon.check(told.is_some(), "events are written again");
    daemon.wait_stderr("takes lines again", SOON);
    println!("story: {lost:?} lines found no room; then there was some");
}
