//! What keeps the daemon in its place: it goes when it costs more than it may, and the kernel ends what runs in
//! real time for too long.
//!
//! In: the daemon's binary. Out: two lines, each with its verdict.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use watchdog::tick::clock;

use crate::daemon::Daemon;
use crate::sessions::Sessions;

/// A share of a core that no start stays below.
const TOO_LITTLE: &str = "limits: { cpu: 0.001% }\n";
/// A daemon that is still there after so long does not go.
const GOES_WITHIN: Duration = Duration::from_secs(60);

/// Measures and prints.
pub fn measure(binary: &Path) -> Result<()> {
    let sessions = Sessions::serve()?;
    let home = tempfile::tempdir()?;
    let mut daemon = Daemon::start_with(binary, home.path(), sessions.port, 1, TOO_LITTLE)?;
    let started = clock();
    let end = daemon.exit(GOES_WITHIN)?;
    let seconds = clock().since(started) as f64 / 1e9;
    let said = match end {
        Some(code) => format!("gone {seconds:.1} s after `started`, exit code {code}"),
        None => format!("still there after {seconds:.0} s"),
    };
    println!(
        "\nTold to cost no more than 0.001 % of a core: {said}  (target gone, exit code 1: {})",
        if end == Some(1) { "met" } else { "missed" }
    );

    let home = tempfile::tempdir()?;
    let daemon = Daemon::start(binary, home.path(), sessions.port, 1)?;
    let threads = real_time_threads(daemon.pid())?;
    let limit_us = real_time_limit_us(daemon.pid())?;
    let shown = limit_us.map_or_else(
        || "no bound".to_owned(),
        |us| {
            format!(
                "each ended by the kernel after {} ms without a rest",
                us / 1000
            )
        },
    );
    println!(
        "In real time: {threads} threads under SCHED_FIFO, {shown}  (target bounded: {})",
        if limit_us.is_some() { "met" } else { "missed" }
    );
    Ok(())
}

/// Threads whose policy is SCHED_FIFO: field 41 of their stat, proc(5).
fn real_time_threads(pid: u32) -> Result<usize> {
    let fifo = libc::SCHED_FIFO.to_string();
    let mut found = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(task?.path().join("stat"))?;
        let after_name = stat.rsplit_once(')').context("a stat line")?.1;
        // The first of these is field 3.
        let policy = after_name.split_ascii_whitespace().nth(41 - 3);
        found += usize::from(policy == Some(&fifo));
    }
    Ok(found)
}

/// RLIMIT_RTTIME in force, microseconds; None: unlimited.
fn real_time_limit_us(pid: u32) -> Result<Option<u64>> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max realtime timeout"));
    let word = line.and_then(|line| line.split_ascii_whitespace().next());
    Ok(word.context("a realtime timeout")?.parse().ok())
}
