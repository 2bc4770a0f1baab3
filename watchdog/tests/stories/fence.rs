//! Programs that fence themselves: they ask the daemon's socket how long their own lease is good, and stop
//! working while their frozen server cannot have expired them yet. The examples of `examples/fence.rs` and
//! `configs/fence.sh`, played for real.

use crate::harness::client::{Client, Kind, Order};
use crate::harness::clock;
use crate::harness::daemon::{Daemon, Home};
use crate::harness::faults::Stopped;
use crate::harness::process::Child;
use crate::harness::program::Program;
use crate::harness::transcript::{Line, Transcript, text_of};
use crate::harness::zookeeper::{Listen, ZooKeeper};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[path = "../../examples/fence.rs"]
mod example;

const TIMEOUT: Duration = Duration::from_secs(6);
const SOON: Duration = Duration::from_secs(30);

/// Names the servers and the socket, and makes [`process`] the example.
const SERVERS: &str = "LEASE_STORY_FENCE_SERVERS";
const SOCKET: &str = "LEASE_STORY_FENCE_SOCKET";

/// Not a story: the example itself. Without [`SERVERS`] in its environment it does nothing.
#[test]
fn process() {
    let (Ok(servers), Ok(socket)) = (std::env::var(SERVERS), std::env::var(SOCKET)) else {
        return;
    };
    example::run(&servers, Path::new(&socket)).expect("a session can be had");
}

fn socket(home: &Home) -> PathBuf {
    home.state().join("api.sock")
}

#[test]
fn a_leader_fences_itself_before_its_frozen_server_may_expire_it() {
    let server = ZooKeeper::start(TIMEOUT, Listen::Loopback);
    let home = Home::watching(&[server.port()], "");
    let daemon = Daemon::start(&home);
    let mut command = Command::new(std::env::current_exe().expect("a test knows its own binary"));
    command
        .args(["fence::process", "--exact", "--nocapture"])
        .env(SERVERS, format!("127.0.0.1:{}", server.port()))
        .env(SOCKET, socket(&home));
    let mut leader = Child::start(command);
    let said: Transcript<Line> = Transcript::new();
    said.feed(leader.take_stdout(), Line::keep);
    let wait = |mark: usize, what: &str| {
        said.wait(mark, SOON, |line| {
            (line.text.trim() == what).then_some(line.at_us)
        })
        .unwrap_or_else(|| {
            panic!(
                "no `{what}`\n{}{}",
                text_of(&said.tail(40)),
                daemon.report()
            )
        })
    };
    wait(0, "leading");
    let id = said
        .wait(0, SOON, |line| {
            let id = line.text.split_once("session 0x")?.1;
            u64::from_str_radix(id.trim(), 16).ok()
        })
        .expect("it tells its session");
    let renewal = server.next_renewal(id);
    let mark = said.len();
    let frozen = server.freeze();
    let fenced = wait(mark, "fenced");
    let latest = frozen.since_us.max(renewal.answered_us) + clock::micros(TIMEOUT);
    daemon.check(
        fenced < latest,
        &format!("fenced {} us after its lease was over", fenced - latest),
    );
    println!(
        "story (fence): fenced {:.1} s after the freeze, {:.1} s before its lease could be over",
        clock::seconds(fenced - frozen.since_us),
        clock::seconds(latest - fenced)
    );
    let after = said.len();
    clock::observe_for(Duration::from_secs(1));
    assert!(
        said.since(after)
            .iter()
            .all(|line| line.text.trim() != "work"),
        "it works while it is fenced: {}",
        text_of(&said.tail(40))
    );
    let mark = said.len();
    frozen.resume();
    wait(mark, "leading");
}

#[test]
fn the_shell_example_runs_its_command_at_risk_and_not_before() {
    let server = ZooKeeper::start(TIMEOUT, Listen::Loopback);
    let home = Home::watching(&[server.port()], "");
    let daemon = Daemon::start(&home);
    let client = Client::start(Order::idle(Kind::C, server.port(), TIMEOUT));
    let id = client.id();
    daemon.wait_seen(id, "holder", SOON);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/fence.sh");
    let mut command = Command::new(&script);
    command
        .arg(client.pid().to_string())
        .args(["echo", "stop leading"])
        .env("SOCKET", socket(&home));
    let fence = Program::start(command);
    let mark = daemon.mark();
    // A whole wait of the script's passes, and is asked again.
    clock::observe_for(Duration::from_secs(11));
    // Behind its own command line.
    let said: Vec<String> = fence.report().lines().skip(1).map(str::to_owned).collect();
    assert!(
        !said.iter().any(|line| line.contains("stop leading")),
        "{said:?}"
    );
    server.next_renewal(id);
    let frozen: Stopped = server.freeze();
    fence.wait(0, "stop leading");
    let at_us = clock::now_us();
    daemon.check(
        at_us < frozen.since_us + clock::micros(TIMEOUT),
        "before the lease could be over",
    );
    daemon.wait_from(mark, "at risk", SOON, |event| {
        event.of(id, "holder") && event.enters("at_risk")
    });
    drop(frozen);
    // Wrong usage, and a process that has gone.
    let run = |arguments: &[&str]| {
        let status = Command::new(&script).args(arguments).output();
        status.expect("it can be started").status.code()
    };
    assert_eq!(run(&["1"]), Some(2));
    assert_eq!(run(&["4194305", "false"]), Some(0));
}
