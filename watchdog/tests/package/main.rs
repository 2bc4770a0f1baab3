//! The Debian package: its unit is sound and narrow, lintian finds no error, the daemon in it runs
//! under the unit's user and rights, and what it knows of leases outlives a restart. With `--long` it is
//! installed into a fresh Debian, upgraded and purged.
//!
//! In: root, `cargo xtask package`'s result (or the package that `LEASE_WATCHDOG_DEB` names). Out: a
//! verdict. systemd is not needed as PID 1 of this machine: who starts the daemon here is setpriv, with what
//! the unit says, and in [`booted`] a systemd of its own.

#[expect(dead_code, reason = "the stories use the rest")]
#[path = "../stories/harness/mod.rs"]
mod harness;

mod booted;
mod contained;
mod installed;
mod unit;

use harness::client::{Client, Kind, Order};
use harness::clock;
use harness::daemon::Daemon;
use harness::event::Stage;
use harness::process;
use harness::zookeeper::{Listen, ZooKeeper};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use unit::Unit;

/// A user id that nobody has.
const NOBODY_ELSE: u32 = 64_321;
const TIMEOUT: Duration = Duration::from_secs(6);

/// The package under test.
///
/// # Panics
/// If it is not made; the message says how to.
fn package() -> PathBuf {
    if let Some(named) = std::env::var_os("LEASE_WATCHDOG_DEB") {
        return PathBuf::from(named);
    }
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debian/lease-watchdog.deb");
    assert!(
        made.exists(),
        "{} is missing: run `cargo xtask package`, or name one in LEASE_WATCHDOG_DEB",
        made.display()
    );
    made
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// The package's files in a folder of their own.
fn extracted() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory");
    process::run("dpkg-deb", &["-x", shown(&package()), shown(folder.path())]);
    // For a user that is not root.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("own folder");
    folder
}

#[test]
fn lintian_finds_no_error() {
    let output = Command::new("lintian")
        .args(["--fail-on", "error", "--allow-root"])
        .arg(package())
        .output()
        .expect("lintian is installed");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    println!("lintian: {} warnings", said.matches("W: ").count());
}

#[test]
fn manual_and_completions_know_every_verb() {
    let files = extracted();
    for file in [
        "usr/share/man/man8/lease-watchdog.8.gz",
        "usr/share/man/man8/lease-watchdog-doctor.8.gz",
        "usr/share/man/man8/lease-watchdog-run.8.gz",
        "usr/share/zsh/vendor-completions/_lease-watchdog",
        "usr/share/fish/vendor_completions.d/lease-watchdog.fish",
        "usr/share/doc/lease-watchdog/examples/fence.sh",
    ] {
        assert!(files.path().join(file).exists(), "{file} is missing");
    }
    // What a shell would offer after `lease-watchdog d`.
    let completions = files
        .path()
        .join("usr/share/bash-completion/completions/lease-watchdog");
    let script = format!(
        "source {}; COMP_WORDS=(lease-watchdog d); COMP_CWORD=1; _lease__watchdog lease-watchdog d \
         lease-watchdog; echo ${{COMPREPLY[*]}}",
        shown(&completions)
    );
    let output = Command::new("bash").args(["-c", &script]).output();
    let output = output.expect("bash is there");
    let offered = String::from_utf8_lossy(&output.stdout);
    assert!(
        offered.contains("demo") && offered.contains("discover") && offered.contains("doctor"),
        "{offered}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_unit_is_sound_and_narrow() {
    let files = extracted();
    let unit = Unit::read(files.path());
    // Its program lies elsewhere here; everything else is as it is installed.
    let folder = tempfile::tempdir().expect("a temporary directory");
    let copy = folder.path().join("lease-watchdog.service");
    let program = files.path().join("usr/sbin/lease-watchdog");
    let text = unit
        .text
        .replace("/usr/sbin/lease-watchdog", shown(&program));
    fs::write(&copy, text).expect("the copy can be written");
    let analyze = |words: &[&str]| {
        let output = Command::new("systemd-analyze")
            .args(words)
            .arg(&copy)
            .env("SYSTEMD_LOG_TARGET", "console")
            .output()
            .expect("systemd-analyze is installed");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "{words:?}: {said}");
        said
    };
    let complaints = analyze(&["verify", "--man=no"]);
    let ours = |line: &&str| line.contains("lease-watchdog");
    assert_eq!(complaints.lines().find(ours), None);
    // 4.0, in tenths.
    let judged = analyze(&["security", "--offline=true", "--threshold=40", "--no-pager"]);
    println!("{}", judged.lines().last().unwrap_or_default());
    for (key, value) in [
        ("Type", "notify"),
        ("User", "lease-watchdog"),
        ("RuntimeDirectory", "lease-watchdog"),
        ("RuntimeDirectoryPreserve", "yes"),
    ] {
        assert_eq!(unit.value(key), Some(value), "{key}");
    }
    for key in ["WatchdogSec", "Restart", "MemoryMax", "OOMScoreAdjust"] {
        assert!(unit.value(key).is_some(), "{key}");
    }
}

/// Whether the manager hears these words in time.
fn hears(manager: &UnixDatagram, wanted: &str, within: Duration) -> bool {
    let mut room = [0; 256];
    clock::poll(within, || {
        let length = manager.recv(&mut room).ok()?;
        let said = String::from_utf8_lossy(&room[..length]);
        said.lines().any(|line| line == wanted).then_some(())
    })
    .is_some()
}

#[test]
fn under_the_units_rights_it_warns_and_knows_its_leases_after_a_restart() {
    let files = extracted();
    let unit = Unit::read(files.path());
    let server = ZooKeeper::start(TIMEOUT, Listen::Loopback);
    let home = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("own folder");
    let state = home.path().join("state");
    fs::create_dir(&state).expect("a folder");
    std::os::unix::fs::chown(&state, Some(NOBODY_ELSE), Some(NOBODY_ELSE)).expect("as root");
    // The shipped configuration, on the story's ports.
    let shipped = files.path().join("etc/lease-watchdog/lease-watchdog.yaml");
    let text = fs::read_to_string(shipped).expect("a configuration");
    let config = home.path().join("lease-watchdog.yaml");
    let text = text
        .replace("ports: [2181]", &format!("ports: [{}]", server.port()))
        .replace("127.0.0.1:9527", "127.0.0.1:0");
    fs::write(&config, text).expect("the configuration can be written");

    let socket = home.path().join("notify");
    let manager = UnixDatagram::bind(&socket).expect("a socket");
    manager.set_nonblocking(true).expect("a socket");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).expect("own socket");
    let start = || {
        let mut command = unit.setpriv(NOBODY_ELSE);
        command.arg(files.path().join("usr/sbin/lease-watchdog"));
        command.arg("run").arg("--config").arg(&config);
        command.args(["--events", "-", "--state-dir"]).arg(&state);
        command.env("NOTIFY_SOCKET", &socket);
        command.env("WATCHDOG_USEC", "2000000");
        let daemon = Daemon::launch(command);
        let started = daemon.wait_for("`started`", Duration::from_secs(30), |event| {
            event.is("started")
        });
        let refused = started.value["refused"].as_array();
        daemon.check(refused.is_some_and(Vec::is_empty), "a hook was refused");
        for asked in ["real_time", "memory_locked"] {
            daemon.check(started.value[asked] == true, asked);
        }
        let soon = Duration::from_secs(10);
        daemon.check(hears(&manager, "READY=1", soon), "it never says READY=1");
        // The tick's own word, again and again.
        for _ in 0..3 {
            daemon.check(hears(&manager, "WATCHDOG=1", soon), "the tick never feeds");
        }
        let path = format!("/proc/{}", daemon.pid());
        let owner = fs::metadata(path).expect("it runs").uid();
        daemon.check(owner == NOBODY_ELSE, "it runs as somebody else");
        daemon
    };
    let daemon = start();
    let client = Client::start(Order::idle(Kind::C, server.port(), TIMEOUT));
    let id = client.id();
    for role in ["holder", "grantor"] {
        daemon.wait_seen(id, role, Duration::from_secs(5));
    }
    // Written at most 200 ms after something changed; its presence is what is waited for.
    let known = clock::poll(Duration::from_secs(10), || {
        let text = fs::read_to_string(state.join("flows.json")).ok()?;
        (text.matches("handshake").count() >= 2).then_some(())
    });
    daemon.check(known.is_some(), "flows.json never knows both ends");
    let ended = daemon.terminate();
    assert!(ended.success(), "{ended:?}");
    assert!(hears(&manager, "STOPPING=1", Duration::from_secs(5)));

    // The second time with a hook, which says whose rights it has.
    let rights = state.join("rights");
    let hook = home.path().join("hook.sh");
    let script = format!(
        "#!/bin/sh\nexec cat /proc/self/status > {}\n",
        shown(&rights)
    );
    fs::write(&hook, script).expect("a hook");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("own hook");
    let alert = format!(
        "alerts: [{{ on: lapsed, exec: {{ argv: [\"{}\"] }} }}]\n",
        shown(&hook)
    );
    let text = fs::read_to_string(&config).expect("a configuration");
    fs::write(&config, text.replace("alerts: []\n", &alert)).expect("a configuration");
    let daemon = start();
    for role in ["holder", "grantor"] {
        let seen = daemon.wait_seen(id, role, Duration::from_secs(10));
        daemon.check(
            seen.text("timeout_source") == "handshake",
            "after a restart the handshake is not known any more",
        );
    }
    // A ping shows which thread serves the connection: without one the cause is not known.
    clock::observe_for(TIMEOUT / 2);
    let mark = daemon.mark();
    let stopped = client.freeze();
    daemon.wait_stage(mark, id, "holder", Stage::AtRisk, TIMEOUT * 2);
    // Its threads were not seen to do anything since the restart: the cause may follow the warning.
    daemon.wait_from(mark, "the cause", TIMEOUT, |event| {
        event.of(id, "holder") && event.text("cause") == "process_stopped"
    });
    let status = clock::poll(TIMEOUT * 3, || {
        let text = fs::read_to_string(&rights).ok()?;
        text.contains("NoNewPrivs").then_some(text)
    });
    stopped.resume();
    let status = status.unwrap_or_else(|| panic!("the hook never ran\n{}", daemon.report()));
    for which in ["CapEff", "CapPrm", "CapAmb"] {
        let none = format!("{which}:\t0000000000000000\n");
        assert!(
            status.contains(&none),
            "a hook has the daemon's rights: {status}"
        );
    }
}
