//! Stories: what the running daemon may still do, and what a second one on the same node may.

use crate::harness::client::{Client, Kind, Order};
use crate::harness::clock;
use crate::harness::daemon::{Daemon, Home};
use crate::harness::event::Stage;
use crate::harness::process::exit_in_words;
use crate::harness::world::{TIMEOUT, World};
use std::time::Duration;
use watchdog::rights::{kept, running_kernel};

/// Every thread, not only the first: what one may, all may.
#[test]
fn once_attached_no_thread_may_load_or_attach() {
    let home = Home::watching(&[2181], "");
    let daemon = Daemon::start(&home);
    let allowed = kept(running_kernel())
        .iter()
        .fold(0, |bits, capability| bits | capability.bitmask());
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("it runs");
    let mut threads = 0;
    for task in tasks {
        let path = task.expect("a thread").path().join("status");
        // A thread may end meanwhile.
        let Ok(status) = std::fs::read_to_string(&path) else {
            continue;
        };
        threads += 1;
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
    println!("story (rights): {threads} threads within {allowed:#x}");
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
