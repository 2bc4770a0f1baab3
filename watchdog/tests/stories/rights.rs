//! Stories: what the running daemon may still do, and what a second one on the same node may.

use crate::harness::client::{Client, Kind, Order};
use crate::harness::clock;
use crate::harness::daemon::{self, Daemon, Home};
use crate::harness::event::Stage;
use crate::harness::process::exit_in_words;
use crate::harness::world::{TIMEOUT, World};
use caps::{Capability, CapsHashSet};
use std::process::Command;
use std::time::Duration;
use watchdog::rights::{kept, running_kernel};

/// Every thread, not only the first: what one may, all may.
#[test]
fn once_attached_no_thread_may_load_or_attach() {
    let home = Home::watching(&[2181], "");
    let threads = threads_within(&Daemon::start(&home), &[]);
    println!("story (rights): {threads} threads load nothing any more");
}

/// Where streams inside TLS are read, one thread may attach to the processes that come.
#[test]
fn with_tls_one_thread_may_still_attach_and_no_other() {
    let daemon = Daemon::start(&Home::with(
        "leases:\n  - name: sealed\n    protocol: zookeeper\n    tls: true\n    ports: [2281]\n\
         http: { listen: \"127.0.0.1:0\" }\n",
    ));
    threads_within(&daemon, &["tls"]);
}

/// Every thread has what is kept and no more, but that those of these names may attach. How many there are.
#[track_caller]
fn threads_within(daemon: &Daemon, attaching: &[&str]) -> usize {
    let bits = |all: &CapsHashSet| all.iter().fold(0, |bits, one| bits | one.bitmask());
    let kept = bits(&kept(running_kernel()));
    let mut found = Vec::new();
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("it runs");
    let mut threads = 0;
    for task in tasks {
        let path = task.expect("a thread").path().join("status");
        // A thread may end meanwhile.
        let Ok(status) = std::fs::read_to_string(&path) else {
            continue;
        };
        threads += 1;
        let name = status.lines().find_map(|line| line.strip_prefix("Name:\t"));
        let attaches = name.filter(|name| attaching.contains(name));
        found.extend(attaches.map(str::to_owned));
        let allowed = match attaches {
            Some(_) => kept | Capability::CAP_PERFMON.bitmask(),
            None => kept,
        };
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            let bits = status
                .lines()
                .find_map(|line| line.strip_prefix(set)?.strip_prefix(":\t"))
                .and_then(|bits| u64::from_str_radix(bits, 16).ok());
            let bits = bits.unwrap_or_else(|| panic!("{set} of {}: {status}", path.display()));
            daemon.check(
                bits & !allowed == 0,
                &format!(
                    "{set} of {} is {bits:#x}, not within {allowed:#x}",
                    path.display()
                ),
            );
        }
    }
    daemon.check(threads > 5, "its threads are not looked at");
    daemon.check(found == attaching, &format!("{found:?} may attach"));
    threads
}

/// With the same state directory it refuses and says so; with its own it sees what the first sees, and
/// neither minds the other's end.
#[test]
fn a_second_daemon_refuses_the_firsts_place_and_lives_beside_it_in_its_own() {
    let world = World::shared();
    let port = world.server.port();
    let home = Home::watching(&[port], "");
    let first = Daemon::start(&home);
    let mut same = Daemon::launch(home.command());
    let status = same.exit(Duration::from_secs(20));
    same.wait_stderr("another lease-watchdog is running", Duration::from_secs(2));
    same.wait_stderr(&home.state().display().to_string(), Duration::from_secs(2));
    same.check(status.code() == Some(1), &exit_in_words(status));

    let elsewhere = Home::watching(&[port], "");
    let second = Daemon::start(&elsewhere);
    let client = Client::start(Order::idle(Kind::C, port, TIMEOUT));
    for daemon in [&first, &second] {
        daemon.wait_seen(client.id(), "holder", Duration::from_secs(10));
    }
    second.kill();
    clock::observe_for(TIMEOUT);
    let mark = first.mark();
    let stopped = client.freeze();
    first.wait_stage(mark, client.id(), "holder", Stage::AtRisk, TIMEOUT * 2);
    drop(stopped);
    println!("story (rights): a second daemon lives beside the first");
}

/// A daemon without this right (nor CAP_SYS_ADMIN, which stands for some of them).
fn without(home: &Home, right: &str) -> Daemon {
    let taken = format!("-{right},-sys_admin");
    let mut command = Command::new("prlimit");
    command.args(["--memlock=65536", "--rtprio=0", "setpriv"]);
    command.args(["--inh-caps", &taken, "--bounding-set", &taken]);
    command.arg(daemon::binary());
    home.add_arguments(&mut command);
    Daemon::launch(command)
}

/// What loading takes is asked for by name; without any other right it starts, and says what it lacks.
#[test]
fn a_right_that_is_taken_away_is_missed_by_name() {
    for right in ["bpf", "perfmon", "net_admin"] {
        let home = Home::watching(&[2181], "");
        let mut refused = without(&home, right);
        let status = refused.exit(Duration::from_secs(20));
        refused.check(status.code() == Some(3), &exit_in_words(status));
        refused.wait_stderr(
            &format!("CAP_{}", right.to_uppercase()),
            Duration::from_secs(2),
        );
    }
    for (right, said) in [
        ("sys_nice", Some("CAP_SYS_NICE")),
        ("ipc_lock", Some("memory not locked")),
        ("sys_ptrace", None),
        ("dac_read_search", None),
    ] {
        let home = Home::watching(&[2181], "");
        let daemon = without(&home, right);
        let started = daemon.wait_for("`started`", Duration::from_secs(20), |event| {
            event.is("started")
        });
        if let Some(said) = said {
            daemon.wait_stderr(said, Duration::from_secs(2));
        }
        let lacks = |what: &str| started.value[what] == false;
        daemon.check(
            lacks("real_time") || right != "sys_nice",
            "it says so of its priority",
        );
        daemon.check(
            lacks("memory_locked") || right != "ipc_lock",
            "it says so of its memory",
        );
    }
}
