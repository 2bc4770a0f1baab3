//! A small program of a story's own, and what it says.

use super::process::Child;
use super::transcript::{Line, Transcript, text_of};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{ChildStdin, Command};
use std::time::Duration;

/// Long enough for a program to say what it says at its start.
const SOON: Duration = Duration::from_secs(30);

/// A running program. Killed when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    said: Transcript<Line>,
    complaints: Transcript<Line>,
}

impl Program {
    /// A Python program of `harness/programs`.
    pub fn python(file: &str, arguments: &[&str]) -> Self {
        let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        path.push("tests/stories/harness/programs");
        path.push(file);
        let mut command = Command::new("/usr/bin/python3");
        command.arg(path).args(arguments);
        Self::start(command)
    }

    /// Any program.
    pub fn start(command: Command) -> Self {
        let mut child = Child::start(command);
        let (said, complaints) = (Transcript::new(), Transcript::new());
        let stdin = Some(child.take_stdin());
        said.feed(child.take_stdout(), Line::keep);
        complaints.feed(child.take_stderr(), Line::keep);
        Self {
            child,
            stdin,
            said,
            complaints,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// Waits for a line that begins so, from a mark on; gives the rest of it.
    ///
    /// # Panics
    /// If none comes, with all it said.
    #[track_caller]
    pub fn wait(&self, mark: usize, beginning: &str) -> String {
        let found = self.said.wait(mark, SOON, |line| {
            line.text
                .strip_prefix(beginning)
                .map(|rest| rest.trim().to_owned())
        });
        found.unwrap_or_else(|| panic!("no line `{beginning}`\n{}", self.report()))
    }

    /// The port that it says it listens on.
    #[track_caller]
    pub fn port(&self) -> u16 {
        let port = self.wait(0, "port ");
        port.parse().expect("a port number")
    }

    /// Tells it a line.
    pub fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its input is open");
        writeln!(stdin, "{line}").expect("it reads its input");
    }

    /// All it said, for a failure.
    pub fn report(&self) -> String {
        format!(
            "`{}`\n{}{}",
            self.child.command(),
            text_of(&self.said.tail(40)),
            text_of(&self.complaints.tail(40))
        )
    }
}
