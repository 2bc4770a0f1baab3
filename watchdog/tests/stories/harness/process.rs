//! Child processes that never outlive the tests.
//!
//! In: a command. Out: a child that is killed when dropped, and by the kernel should the test
//! process die first. Never: a child of a test's own thread, because the kernel sends the death
//! signal when the *thread* that forked ends, and a server outlives the story that started it.

use super::clock;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

type Order = (Command, mpsc::Sender<io::Result<std::process::Child>>);

/// A running child with its three streams piped.
#[derive(Debug)]
pub struct Child {
    inner: std::process::Child,
    command: String,
}

impl Child {
    /// Starts `command` with all three streams piped.
    ///
    /// # Panics
    /// If the program cannot be started; the message names it.
    pub fn start(mut command: Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let shown = shown(&command);
        let inner = fork(command)
            .unwrap_or_else(|error| panic!("cannot start `{shown}`: {error}; is it installed?"));
        Self {
            inner,
            command: shown,
        }
    }

    /// The process id, as signals want it.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.inner.id()).expect("process ids fit in 31 bits")
    }

    /// The command line, for reports.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// The child's standard input; only once.
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.inner.stdin.take().expect("stdin is taken once")
    }

    /// The child's standard output; only once.
    pub fn take_stdout(&mut self) -> ChildStdout {
        self.inner.stdout.take().expect("stdout is taken once")
    }

    /// The child's standard error; only once.
    pub fn take_stderr(&mut self) -> ChildStderr {
        self.inner.stderr.take().expect("stderr is taken once")
    }

    /// Sends a signal. A child that has gone already is no error.
    pub fn signal(&self, signal: i32) {
        send_signal(self.pid(), signal);
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.inner.try_wait(), Ok(None))
    }

    /// Its exit status, if it ends within the deadline.
    pub fn wait_exit(&mut self, within: Duration) -> Option<ExitStatus> {
        clock::poll(within, || self.inner.try_wait().ok().flatten())
    }

    /// SIGKILL, and wait until it is gone.
    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        drop(self.inner.wait());
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a short command to its end and gives its standard output.
///
/// # Panics
/// If it cannot be started or fails; the message has the command and its standard error.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot start `{}`: {error}", shown(&command)));
    assert!(
        output.status.success(),
        "`{}` failed ({}): {}",
        shown(&command),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Sends `signal` to a process. One that has gone already is no error.
pub fn send_signal(pid: i32, signal: i32) {
    assert!(pid > 1, "refusing to signal pid {pid}");
    // SAFETY: kill takes no pointers; the pid is of a child that this harness started.
    unsafe { libc::kill(pid, signal) };
}

/// The state letter of a process in `/proc/PID/stat`: `S`, `T`, …; `None` if it has gone.
pub fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    after_name.trim_start().chars().next()
}

/// An exit in words: `exit 3`, `signal 9`.
pub fn exit_in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => format!("{status:?}"),
    }
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

/// Forks from the one thread that lives as long as the test process.
fn fork(mut command: Command) -> io::Result<std::process::Child> {
    static FORKER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    // SAFETY: the closure runs between fork and exec and makes one system call, which is
    // async-signal-safe and touches no memory of ours.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let forker = FORKER.get_or_init(|| {
        let (orders, incoming) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in incoming {
                drop(reply.send(command.spawn()));
            }
        });
        orders
    });
    let (reply, result) = mpsc::channel();
    forker
        .send((command, reply))
        .expect("the forker runs as long as the tests do");
    result.recv().expect("the forker answers every order")
}
