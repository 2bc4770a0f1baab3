//! What a user gets wrong, or the node lacks: each time the daemon says what, where and the
//! mend, and leaves with the exit code that says whose turn it is (1 failed while running, 2
//! usage or configuration, 3 a missing prerequisite). What goes wrong *beside* it (a hook that
//! hangs, a reader that leaves) does not stop it.

use crate::harness::client::{Client, Kind, Order};
use crate::harness::clock::{self, SECOND};
use crate::harness::daemon::{self, Daemon, GRACE_US, Home};
use crate::harness::event::{Event, Stage};
use crate::harness::http;
use crate::harness::process::{Child, exit_in_words};
use crate::harness::transcript::{Line, Transcript, text_of};
use crate::harness::world::{TIMEOUT, World};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A port that no story listens on.
const ANY_PORT: u16 = 2181;
/// The user and group `nobody` and `nogroup`.
const NOBODY: u32 = 65_534;

/// Runs a daemon that must leave by itself, with this exit code and all these words on standard
/// error.
#[track_caller]
fn refuses(command: Command, code: i32, words: &[&str]) {
    let mut daemon = Daemon::launch(command);
    let status = daemon.exit(Duration::from_secs(20));
    // The pipe is read to its end by its own thread.
    for word in words {
        daemon.wait_stderr(word, Duration::from_secs(2));
    }
    daemon.check(
        status.code() == Some(code),
        &format!("{} instead of exit {code}", exit_in_words(status)),
    );
    daemon.check(!daemon.stderr().contains("panicked"), "it panicked");
    println!(
        "story (bad input): {}",
        daemon.stderr().lines().next().unwrap_or_default()
    );
}

#[test]
fn without_root_it_says_which_right_it_lacks() {
    let home = Home::watching(&[ANY_PORT], "");
    let copy = home.path().join("lease-watchdog");
    std::fs::copy(daemon::binary(), &copy).expect("the daemon can be copied");
    let open = std::fs::Permissions::from_mode(0o755);
    for path in [home.path(), &home.state(), &copy] {
        std::fs::set_permissions(path, open.clone()).expect("permissions can be set");
    }
    chown(home.state(), Some(NOBODY), Some(NOBODY)).expect("root can give away");
    let mut command = Command::new("setpriv");
    command.args([
        &format!("--reuid={NOBODY}"),
        &format!("--regid={NOBODY}"),
        "--clear-groups",
    ]);
    command.arg(&copy);
    home.add_arguments(&mut command);
    refuses(command, 3, &["CAP_BPF"]);
}

#[test]
fn a_kernel_without_type_information_is_a_missing_prerequisite() {
    let home = Home::watching(&[ANY_PORT], "");
    let mut command = home.command();
    command.args(["--btf", "/nonexistent"]);
    refuses(command, 3, &["/nonexistent", "BTF"]);
}

#[test]
fn a_node_without_cgroup_v2_is_a_missing_prerequisite() {
    let home = Home::watching(&[ANY_PORT], "");
    let mut command = home.command();
    command.args(["--cgroup-root", "/nonexistent"]);
    refuses(command, 3, &["/nonexistent", "cgroup"]);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    let home = Home::with(&format!("http: {{ listen: \"{address}\" }}\n"));
    refuses(home.command(), 1, &[&address]);
}

#[test]
fn an_unknown_key_is_refused_with_file_line_key_and_mend() {
    let home =
        Home::with("leases:\n  - name: zookeeper\n    protocol: zookeeper\n    portz: [2181]\n");
    let file = home.config().display().to_string();
    refuses(home.command(), 2, &[&file, "4", "portz", "ports"]);
}

#[test]
fn a_span_without_a_unit_is_refused_with_the_mend() {
    let home = Home::with(
        "leases:\n  - name: chunk\n    protocol: request_reply\n    ports: [10103]\n    \
         timeout: 12\n",
    );
    let file = home.config().display().to_string();
    refuses(home.command(), 2, &[&file, "timeout", "12s"]);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let home = Home::with("leazes: []\nhttp: { listen: \"nowhere\" }\n");
    refuses(home.command(), 2, &["leazes", "nowhere"]);
}

#[test]
fn a_missing_configuration_is_named() {
    let home = Home::watching(&[ANY_PORT], "");
    std::fs::remove_file(home.config()).expect("it was there");
    refuses(home.command(), 2, &[&home.config().display().to_string()]);
}

#[test]
fn a_hook_that_does_not_exist_is_refused_at_the_start() {
    let hook = "/nonexistent/page.sh";
    let alerts = format!("alerts:\n  - on: late\n    exec: {{ argv: [\"{hook}\"] }}");
    let home = Home::watching(&[ANY_PORT], &alerts);
    refuses(home.command(), 2, &[hook]);
}

/// The hook gets its line and never ends; the warnings of the next client come as fast as ever.
#[test]
fn a_hook_that_hangs_holds_up_nothing() {
    let world = World::shared();
    let place = tempfile::tempdir().expect("a temporary directory");
    let (hook, proof) = (place.path().join("hang.sh"), place.path().join("called"));
    let script = format!(
        "#!/bin/sh\nread line\necho \"$line\" >> {}\nexec tail -f /dev/null\n",
        proof.display()
    );
    std::fs::write(&hook, script).expect("the hook can be written");
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o700)).expect("it is ours");
    let alerts = format!(
        "alerts:\n  - on: late\n    exec: {{ argv: [\"{}\"], timeout: 1s }}",
        hook.display()
    );
    let home = Home::watching(&[world.server.port()], &alerts);
    let daemon = Daemon::start(&home);
    let clients = [Kind::C, Kind::Kazoo].map(|kind| client_seen(&world, &daemon, kind));
    for client in &clients {
        let late_after = freeze_until_late(&world, &daemon, client);
        daemon.check(
            late_after <= SECOND + GRACE_US,
            "the hook held up a warning",
        );
    }
    let called = clock::poll(Duration::from_secs(5), || {
        let text = std::fs::read_to_string(&proof).ok()?;
        text.lines().next().map(str::to_owned)
    });
    let event = called.and_then(|line| Event::parse(0, &line));
    let told = event.is_some_and(|event| event.is("alert") && !event.text("summary").is_empty());
    daemon.check(told, "the hook was told of no alert");
    daemon.wait_stderr(&hook.display().to_string(), Duration::from_secs(5));
    assert_healthy(&daemon.http());
    println!("story (bad input): a hook that hangs holds up nothing");
    assert_eq!(daemon.terminate().code(), Some(0));
}

/// Whoever read the events has gone: the daemon goes on, and says so once.
#[test]
fn a_reader_that_leaves_does_not_stop_it() {
    let world = World::shared();
    let home = Home::watching(&[world.server.port()], "");
    let mut child = Child::start(home.command());
    let errors = Transcript::new();
    errors.feed(child.take_stderr(), Line::keep);
    let mut events = BufReader::new(child.take_stdout());
    let mut first = String::new();
    events.read_line(&mut first).expect("the daemon speaks");
    drop(events);
    let started = Event::parse(0, &first).filter(|event| event.is("started"));
    let started = started.unwrap_or_else(|| panic!("`started` comes first, not {first}"));

    // Each of these is an event that nobody reads.
    let order = |kind| Order::idle(kind, world.server.port(), TIMEOUT);
    let clients = [Kind::C, Kind::Rust].map(|kind| Client::start(order(kind)));
    for client in clients {
        client.session();
        client.close();
    }
    clock::observe_for(Duration::from_secs(2));
    let said = || text_of(&errors.since(0));
    assert!(child.is_running(), "it went with its reader\n{}", said());
    assert_healthy(started.text("http"));
    child.signal(libc::SIGTERM);
    let status = child.wait_exit(Duration::from_secs(10));
    assert_eq!(
        status.and_then(|status| status.code()),
        Some(0),
        "{}",
        said()
    );
    let complaints = errors.since(0);
    let complaints = complaints
        .iter()
        .filter(|line| line.text.contains("reader"));
    assert_eq!(
        complaints.count(),
        1,
        "it says once that its reader has gone:\n{}",
        said()
    );
    println!("story (bad input): a reader that leaves does not stop it");
}

fn client_seen(world: &World, daemon: &Daemon, kind: Kind) -> Client {
    let client = Client::start(Order::idle(kind, world.server.port(), TIMEOUT));
    daemon.wait_seen(client.id(), "holder", Duration::from_secs(5));
    client
}

/// Freezes a client; gives the time from the stop to the warning.
fn freeze_until_late(world: &World, daemon: &Daemon, client: &Client) -> i64 {
    world.server.next_renewal(client.id());
    let mark = daemon.mark();
    let stopped = client.freeze();
    let late = daemon.wait_stage(mark, client.id(), "holder", Stage::Late, TIMEOUT);
    late.at_us - stopped.since_us
}

fn assert_healthy(address: &str) {
    let health = http::get(address, "/healthz");
    assert!(
        health.as_ref().is_some_and(|answer| answer.status == 200),
        "{health:?}"
    );
}

/// The binary is where the stories look for it, or they all fail with a message that says how to
/// build it.
#[test]
fn the_binary_is_built() {
    assert!(Path::new(&daemon::binary()).exists());
}
