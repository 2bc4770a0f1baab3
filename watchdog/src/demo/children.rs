//! The demo's processes: started with a pipe for their lines, frozen and thawed, and gone with the
//! demo however it ends.
//!
//! In: a command. Out: `News` over a channel, stamped when they were received. A child is killed when
//! its `Actor` is dropped, and by the kernel if the demo itself is killed.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;

use super::clock::{mono_us, pause};
use super::lines::ClientKind;

/// How often, and how many times, a process that has closed its stdout is looked at for its end.
const REAP_EVERY_MS: u16 = 10;
const REAP_TRIES: u32 = 50;

/// One of the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The daemon under show.
    Daemon,
    /// The session server.
    Server,
    /// A client.
    Client(ClientKind),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon => f.write_str("the daemon"),
            Self::Server => f.write_str("the server"),
            Self::Client(kind) => write!(f, "client {}", kind.name()),
        }
    }
}

/// What the driver hears.
#[derive(Debug)]
pub enum News {
    /// A line of a process.
    Line {
        /// Whose.
        who: Who,
        /// When the demo received it.
        at_us: u64,
        /// Without its end.
        text: String,
    },
    /// A process has closed its stdout, which ours do only by ending.
    Ended(Who),
    /// The demo itself was asked to stop.
    Signal,
}

/// A running process.
#[derive(Debug)]
pub struct Actor {
    /// Which one.
    pub who: Who,
    child: Child,
}

impl Actor {
    /// Starts it; stderr goes to `log`. To be called on the thread that lives as long as the demo,
    /// for the kernel kills the child when the *thread* that started it ends.
    pub fn start(
        who: Who,
        command: &mut Command,
        log: File,
        news: Sender<News>,
    ) -> io::Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        // A group of its own: the terminal's Ctrl-C is for the demo, which then ends the others.
        command.process_group(0);
        let demo = std::process::id();
        // SAFETY: between fork and exec only async-signal-safe calls are made, and nothing allocates.
        unsafe { command.pre_exec(move || die_with(demo)) };
        let mut child = command.spawn()?;
        let stdout = child.stdout.take();
        let actor = Self { who, child };
        if let Some(stdout) = stdout {
            std::thread::Builder::new().spawn(move || forward(who, stdout, &news))?;
        }
        Ok(actor)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: libc::c_int) {
        let Ok(pid) = libc::pid_t::try_from(self.child.id()) else {
            return;
        };
        // SAFETY: plain system call. The pid is still ours: the child is waited for only by
        // `reap`, which consumes the actor, and by drop.
        unsafe { libc::kill(pid, signal) };
    }

    fn kill(&mut self) -> Option<ExitStatus> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Some(status);
        }
        self.signal(libc::SIGCONT);
        let _ = self.child.kill();
        self.child.wait().ok()
    }

    /// Waits for one whose stdout has ended, which is about to end too, and tells how it ended.
    pub fn reap(mut self) -> Option<ExitStatus> {
        for _ in 0..REAP_TRIES {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            pause(REAP_EVERY_MS);
        }
        self.kill()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.kill();
    }
}

/// In the child, before it becomes another program: tie its life to the demo's.
fn die_with(demo: u32) -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and no pointer.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // The demo may have died before the line above; then nobody would ever send the signal.
    // SAFETY: getppid takes nothing and can't fail.
    if unsafe { libc::getppid() } as u32 != demo {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(())
}

fn forward(who: Who, stdout: ChildStdout, news: &Sender<News>) {
    for line in BufReader::new(stdout).lines() {
        let Ok(text) = line else { break };
        if news
            .send(News::Line {
                who,
                at_us: mono_us(),
                text,
            })
            .is_err()
        {
            return;
        }
    }
    // With the driver gone there is nobody to tell.
    let _ = news.send(News::Ended(who));
}
