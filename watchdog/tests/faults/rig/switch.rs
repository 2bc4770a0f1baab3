//! The dead man's switch: a process apart, which undoes a fault when it is told to, when the process
//! that armed it is gone (kill -9 included), or when its time is over.
//!
//! In: shell commands that undo. Out: they run once, whatever happens to the test. Never: two ways to
//! undo a fault; dropping a [`Switch`] is telling it to.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

/// The first argument that makes this program a switch.
pub const PROGRAM: &str = "dead-mans-switch";
/// A fault lasts this long at most.
pub const FAULT: Duration = Duration::from_secs(60);
/// What a fault stands on (a mount, a cgroup, a namespace) lasts this long at most.
pub const GROUND: Duration = Duration::from_secs(30 * 60);

/// An armed switch. Dropping it undoes, and waits until that is done.
#[derive(Debug)]
pub struct Switch {
    process: Child,
    line: Option<ChildStdin>,
    undo: String,
}

impl Switch {
    /// Arms a switch that runs the shell commands `undo`, within `limit` at the latest.
    ///
    /// # Panics
    /// If the process cannot be started: then no fault must begin.
    pub fn arm(limit: Duration, undo: &str) -> Self {
        let binary = std::env::current_exe().expect("a program knows its own binary");
        let mut command = Command::new(binary);
        command
            .args([PROGRAM, &limit.as_secs().to_string(), undo])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Out of reach of a signal to the test's process group.
            .process_group(0);
        let mut process = command.spawn().expect("the dead man's switch starts");
        let line = process.stdin.take();
        Self {
            process,
            line,
            undo: undo.to_owned(),
        }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.line = None;
        match self.process.wait() {
            Ok(status) if status.success() => {}
            other => eprintln!("left behind? `{}`: {other:?}", self.undo),
        }
    }
}

/// The switch itself: waits for the other end of its standard input to go, at most `limit`.
pub fn run(limit: &str, undo: &str) -> ! {
    let limit = Duration::from_secs(limit.parse().unwrap_or(FAULT.as_secs()));
    let (ended, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        drop(std::io::stdin().read_to_end(&mut rest));
        ended.send(()).ok();
    });
    if wait.recv_timeout(limit).is_err() {
        eprintln!("the time of a fault is over after {limit:?}: {undo}");
    }
    let status = Command::new("sh").args(["-c", undo]).status();
    std::process::exit(status.ok().and_then(|status| status.code()).unwrap_or(1));
}

/// Undoes with patience: retries a shell command for some seconds, since a mount is busy as long as
/// its last user is dying.
pub fn patiently(command: &str) -> String {
    format!("for i in $(seq 50); do {command} 2>/dev/null && break; sleep 0.1; done")
}
