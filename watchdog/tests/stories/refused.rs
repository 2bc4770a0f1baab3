//! Stories of a start on which the kernel refuses something half-way: memory for a map, a program, a hook.
//! Whatever it is, the daemon either runs, or ends with a line that says what was refused and what helps.
//!
//! strace makes the refusals, one call a start. Some calls in the short form; with LEASE_WATCHDOG_LONG each.

use crate::harness::clock;
use crate::harness::daemon::{Daemon, Home};
use crate::harness::process::exit_in_words;
use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A start takes under a second; strace stops it at each of thousands of calls.
const START: Duration = Duration::from_secs(60);
/// Exit codes that say what they mean: it could not go on, something is missing.
const ENDS: [i32; 2] = [1, 3];
/// How many calls are tried in the short form.
const TRIED: usize = 8;
/// With what they are refused.
const ERRORS: [&str; 2] = ["ENOMEM", "EPERM"];

/// The daemon in strace's hands: it stays the child that the harness kills, and the tracer ends with it.
fn traced(home: &Home, words: &[&str]) -> Command {
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "--seccomp-bpf", "-qqq", "-o"]);
    command.arg(home.path().join("trace")).args(words).arg("--");
    command.arg(crate::harness::daemon::binary());
    home.add_arguments(&mut command);
    // There is a call a slot.
    command.args(["--flows", "64"]);
    command
}

/// How many calls of bpf(2) a start makes.
fn calls() -> usize {
    let home = Home::watching(&[2181], "");
    let daemon = Daemon::launch(traced(&home, &["-e", "trace=bpf"]));
    daemon.wait_for("`started`", START, |event| event.is("started"));
    daemon.kill();
    let trace = std::fs::read_to_string(home.path().join("trace")).expect("a trace");
    let calls = trace.lines().filter(|line| line.contains("bpf("));
    calls.count()
}

/// What became of a start on which one call was refused.
fn outcome(error: &str, when: usize) -> Result<String, String> {
    let home = Home::watching(&[2181], "");
    let inject = format!("inject=bpf:error={error}:when={when}");
    let mut daemon = Daemon::launch(traced(&home, &["-e", "trace=bpf", "-e", &inject]));
    let case = format!("call {when} refused with {error}");
    let end = clock::poll(START, || {
        let started = daemon
            .events_since(0)
            .into_iter()
            .find(|event| event.is("started"));
        match started {
            Some(event) => Some(Ok(event)),
            None => daemon.ended().map(Err),
        }
    });
    match end {
        None => Err(format!(
            "{case}: neither started nor ended\n{}",
            daemon.report()
        )),
        Some(Ok(started)) => {
            let refused = started.value["refused"].as_array().map_or(0, Vec::len);
            let status = daemon.terminate();
            match status.code() {
                Some(0) => Ok(format!("ran, {refused} hooks refused")),
                _ => Err(format!("{case}: started, then {}", exit_in_words(status))),
            }
        }
        Some(Err(status)) => {
            // What it wrote last may still be on its way.
            let said = clock::poll(Duration::from_secs(2), || {
                let text = daemon.stderr();
                (!text.is_empty()).then_some(text)
            });
            let said = said.unwrap_or_default();
            let last = said.lines().last().unwrap_or_default().to_owned();
            let named = status.code().is_some_and(|code| ENDS.contains(&code));
            if !named || said.contains("panicked") || last.is_empty() {
                return Err(format!(
                    "{case}: {}\n{}",
                    exit_in_words(status),
                    daemon.report()
                ));
            }
            // Memory is not had by rights, nor rights by memory.
            let helps = match error {
                "ENOMEM" => "give it more memory",
                _ => "it has the rights",
            };
            let number = if error == "ENOMEM" {
                "(os error 12)"
            } else {
                "(os error 1)"
            };
            if last.contains(number) && !last.contains(helps) {
                return Err(format!("{case}: no word of what helps: {last}"));
            }
            Ok(format!("{}: {last}", exit_in_words(status)))
        }
    }
}

#[test]
fn whatever_the_kernel_refuses_half_way_it_runs_without_or_says_so_and_leaves() {
    assert!(
        Command::new("strace")
            .arg("-V")
            .stdout(Stdio::null())
            .status()
            .is_ok(),
        "strace is missing: run `cargo xtask setup`"
    );
    let long = std::env::var_os("LEASE_WATCHDOG_LONG").is_some();
    let mut failures = String::new();
    let mut tried = 0;
    let all = calls();
    assert!(all > 0, "a start calls the kernel");
    let step = if long { 1 } else { all.div_ceil(TRIED) };
    for error in ERRORS {
        for when in (1..=all).step_by(step) {
            tried += 1;
            match outcome(error, when) {
                Ok(how) => println!("story (refused): call {when} of {all}, {error}: {how}"),
                Err(why) => writeln!(failures, "{why}").expect("a string takes everything"),
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
    println!("story (refused): {tried} starts, each with a call refused");
}
