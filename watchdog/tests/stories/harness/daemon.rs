//! The daemon under test, run as a user runs it: its binary, a configuration file, events on
//! standard output.
//!
//! Out: its events with the moment of their arrival, its exit, its standard error, its HTTP
//! answers. Never: a look into its insides; what cannot be seen from outside is not promised.

use super::bpf;
use super::clock;
use super::event::{Event, Stage};
use super::http;
use super::process::{self, Child};
use super::transcript::{Line, Transcript, text_of};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// From a threshold to the line that says so: the promise is 150 ms; the rest is for two cores
/// that also run servers and clients.
pub const GRACE_US: i64 = 400_000;

/// A private folder with a configuration and a state directory: what a daemon is started from,
/// and started from again.
#[derive(Debug)]
pub struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    /// A home whose configuration watches the ZooKeeper `ports`, with `extra` lines of YAML at
    /// the top level.
    pub fn watching(ports: &[u16], extra: &str) -> Self {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        Self::with(&format!(
            "leases:\n  - name: zookeeper\n    protocol: zookeeper\n    ports: [{}]\n\
             http: {{ listen: \"127.0.0.1:0\" }}\n{extra}\n",
            ports.join(", ")
        ))
    }

    /// A home with exactly this configuration.
    pub fn with(config: &str) -> Self {
        let home = Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
        };
        std::fs::write(home.config(), config).expect("the configuration can be written");
        std::fs::create_dir(home.state()).expect("the state directory can be made");
        home
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.path().join("watchdog.yaml")
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// The command that runs the daemon here, events on standard output.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary());
        self.add_arguments(&mut command);
        command
    }

    /// Adds the words that run a daemon from this home.
    pub fn add_arguments(&self, command: &mut Command) {
        command.arg("run").arg("--config").arg(self.config());
        command
            .args(["--events", "-", "--state-dir"])
            .arg(self.state());
    }
}

/// The daemon's binary.
///
/// # Panics
/// If it is not built; the message says how to.
pub fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("LEASE_WATCHDOG_BIN") {
        return PathBuf::from(named);
    }
    let this = std::env::current_exe().expect("a test knows its own binary");
    let target = this
        .ancestors()
        .nth(3)
        .expect("tests lie in target/PROFILE/deps");
    let binary = target.join("release/lease-watchdog");
    assert!(
        binary.exists(),
        "{} is missing: run `cargo xtask build`, or name the daemon in LEASE_WATCHDOG_BIN",
        binary.display()
    );
    binary
}

/// A running daemon. Killed when dropped; if the story fails, everything it said is printed.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    events: Transcript<Event>,
    errors: Transcript<Line>,
}

impl Daemon {
    /// Starts a daemon from its home and waits until it says `started`.
    ///
    /// # Panics
    /// If it does not within 30 s; the message has all it said.
    pub fn start(home: &Home) -> Self {
        let daemon = Self::launch(home.command());
        daemon.wait_for("`started`", Duration::from_secs(30), |event| {
            event.is("started")
        });
        daemon
    }

    /// Starts a command as a daemon and waits for nothing.
    pub fn launch(command: Command) -> Self {
        let mut child = Child::start(command);
        let (events, errors) = (Transcript::new(), Transcript::new());
        events.feed(child.take_stdout(), Event::parse);
        errors.feed(child.take_stderr(), Line::keep);
        Self {
            child,
            events,
            errors,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// A mark to wait from.
    pub fn mark(&self) -> usize {
        self.events.len()
    }

    /// All events from a mark on.
    pub fn events_since(&self, mark: usize) -> Vec<Event> {
        self.events.since(mark)
    }

    /// Waits for an event, from the beginning on.
    ///
    /// # Panics
    /// If it does not come within the deadline: with `what`, and all the daemon said.
    pub fn wait_for(&self, what: &str, within: Duration, wanted: impl Fn(&Event) -> bool) -> Event {
        self.wait_from(0, what, within, wanted)
    }

    /// Waits for an event at or after a mark.
    ///
    /// # Panics
    /// As [`Daemon::wait_for`].
    pub fn wait_from(
        &self,
        mark: usize,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> Event {
        self.events
            .wait(mark, within, |event| wanted(event).then(|| event.clone()))
            .unwrap_or_else(|| panic!("no {what} within {within:?}\n{}", self.report()))
    }

    /// Waits until the lease of a session is seen at this end.
    ///
    /// # Panics
    /// As [`Daemon::wait_for`].
    pub fn wait_seen(&self, session: u64, role: &str, within: Duration) -> Event {
        self.wait_for(
            &format!("lease_seen of {session:#x} as {role}"),
            within,
            |event| event.is("lease_seen") && event.of(session, role),
        )
    }

    /// Waits until the lease is at `stage` or beyond it.
    ///
    /// # Panics
    /// As [`Daemon::wait_for`].
    pub fn wait_stage(
        &self,
        mark: usize,
        session: u64,
        role: &str,
        stage: Stage,
        within: Duration,
    ) -> Event {
        self.wait_from(
            mark,
            &format!("{stage:?} of {session:#x} as {role}"),
            within,
            |event| {
                event.of(session, role) && event.stage().is_some_and(|reached| reached >= stage)
            },
        )
    }

    /// The transitions of a lease from a mark on.
    pub fn transitions(&self, mark: usize, session: u64, role: &str) -> Vec<Event> {
        let mut events = self.events_since(mark);
        events.retain(|event| event.is("transition") && event.of(session, role));
        events
    }

    /// Asserts that neither end of these sessions' leases went above `limit` since the mark.
    ///
    /// # Panics
    /// With the first transition that did.
    pub fn assert_never_above(&self, mark: usize, limit: Stage, sessions: &[u64]) {
        let sessions: BTreeSet<u64> = sessions.iter().copied().collect();
        for event in self.events_since(mark) {
            let watched = event.session().is_some_and(|id| sessions.contains(&id));
            let beyond = event.stage().is_some_and(|stage| stage > limit)
                || (event.is("transition") && event.text("to") == "expired");
            assert!(
                !watched || !beyond,
                "above {limit:?}: {}\n{}",
                event.value,
                self.report()
            );
        }
    }

    /// Asserts a fact; if it does not hold, everything the daemon said is in the message.
    ///
    /// # Panics
    /// If `holds` is false.
    #[track_caller]
    pub fn check(&self, holds: bool, what: &str) {
        assert!(holds, "{what}\n{}", self.report());
    }

    /// The address of its HTTP server, as `started` says.
    pub fn http(&self) -> String {
        let started = self.wait_for("`started`", Duration::from_secs(30), |e| e.is("started"));
        self.check(
            !started.text("http").is_empty(),
            "`started` names no http address",
        );
        started.text("http").to_owned()
    }

    /// Gets a page of its HTTP server; `None` if nobody answers.
    pub fn get(&self, path: &str) -> Option<http::Answer> {
        http::get(&self.http(), path)
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill();
    }

    /// Asks it to stop with SIGTERM; gives its exit.
    ///
    /// # Panics
    /// If it does not end within 10 s.
    pub fn terminate(mut self) -> ExitStatus {
        self.child.signal(libc::SIGTERM);
        self.exit(Duration::from_secs(10))
    }

    /// Waits for it to end by itself.
    ///
    /// # Panics
    /// If it does not within the deadline.
    pub fn exit(&mut self, within: Duration) -> ExitStatus {
        let status = self.child.wait_exit(within);
        status.unwrap_or_else(|| panic!("the daemon does not end\n{}", self.report()))
    }

    /// Its exit, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.wait_exit(Duration::ZERO)
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        self.errors
            .since(0)
            .iter()
            .map(|line| format!("{}\n", line.text))
            .collect()
    }

    /// Waits until a line of standard error contains `text`.
    ///
    /// # Panics
    /// If none does within the deadline.
    pub fn wait_stderr(&self, text: &str, within: Duration) {
        let found = self
            .errors
            .wait(0, within, |line| line.text.contains(text).then_some(()));
        self.check(
            found.is_some(),
            &format!("standard error does not say `{text}`"),
        );
    }

    /// The ids of the kernel's BPF objects that it holds.
    pub fn bpf_objects(&self) -> Vec<bpf::Object> {
        bpf::held_by(self.pid())
    }

    /// All it said, for a failure.
    pub fn report(&self) -> String {
        let mut report = format!("daemon `{}`\n", self.child.command());
        if let Some(state) = process::state(self.pid()) {
            writeln!(report, "process state {state}").expect("a string takes everything");
        }
        for event in self.events.tail(150) {
            writeln!(
                report,
                "  {:.6} {}",
                clock::seconds(event.at_us),
                event.value
            )
            .expect("a string takes everything");
        }
        report + "standard error:\n" + &text_of(&self.errors.tail(60))
    }
}
