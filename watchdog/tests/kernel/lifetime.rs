//! Nothing is left in the kernel: not after the programs' owner has dropped them, and not after it
//! was killed.

use std::{
    io::{BufRead as _, BufReader},
    process::Command,
};

use crate::{
    bed::{SOON, here, load},
    harness::{
        bpf::{self, Object},
        clock,
        process::Child,
    },
};

const ALL: &[&str] = &[
    "flow_start",
    "packets_in",
    "packets_out",
    "reads",
    "writes",
    "flow_state",
    "flow_end",
    "retransmits",
    "switches",
    "wakeups",
];

fn links(objects: &[Object]) -> usize {
    let link = |object: &&Object| matches!(object, Object::Link(_));
    objects.iter().filter(link).count()
}

/// The kernel frees programs a moment after the last reference.
#[track_caller]
fn assert_gone(objects: &[Object]) {
    for object in objects {
        let gone = clock::poll(SOON, || (!object.exists()).then_some(()));
        assert!(gone.is_some(), "{object:?} is left");
    }
}

#[test]
fn nothing_is_left_when_the_programs_are_dropped() {
    let Some(kernel) = load(here!(), ALL) else {
        return;
    };
    let pid = i32::try_from(std::process::id()).expect("a pid fits");
    let held = bpf::held_by(pid);
    assert!(links(&held) >= ALL.len(), "{held:?}");
    assert!(held.iter().all(|object| object.exists()));
    drop(kernel);
    assert_gone(&held);
    assert_eq!(bpf::held_by(pid), [], "descriptors are left");
}

#[test]
fn only_what_was_asked_for_is_attached() {
    let Some(kernel) = load(here!(), &["flow_start"]) else {
        return;
    };
    let pid = i32::try_from(std::process::id()).expect("a pid fits");
    assert_eq!(links(&bpf::held_by(pid)), 1);
    assert_eq!(kernel.report.hooks.len(), 1);
}

#[test]
fn nothing_is_left_when_the_daemon_is_killed() {
    // SAFETY: has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        crate::bed::skip(here!(), "loading programs takes root");
        return;
    }
    let state = tempfile::tempdir().expect("a temporary directory");
    let config = state.path().join("watchdog.yaml");
    std::fs::write(&config, "http: { listen: \"127.0.0.1:0\" }\n").expect("a file");
    // In a guest the daemon lies elsewhere than where it was built.
    let named = std::env::var_os("LEASE_WATCHDOG_BIN");
    let daemon = named.unwrap_or_else(|| env!("CARGO_BIN_EXE_lease-watchdog").into());
    let mut command = Command::new(daemon);
    command.arg("run").arg("--config").arg(&config);
    command.args(["--events", "-", "--state-dir"]);
    command.arg(state.path());
    let mut daemon = Child::start(command);
    let mut line = String::new();
    BufReader::new(daemon.take_stdout())
        .read_line(&mut line)
        .expect("it says that it has started");
    assert!(line.contains("\"event\":\"started\""), "{line}");
    let held = bpf::held_by(daemon.pid());
    assert!(links(&held) >= ALL.len(), "{held:?}");
    daemon.kill();
    assert_gone(&held);
}
