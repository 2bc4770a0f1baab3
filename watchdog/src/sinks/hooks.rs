//! Hooks: programs that are told of alerts.
//!
//! In: messages (JSON lines) of one alert. Out: the same on a program's standard input; what it
//! says goes to the log, within bounds. Never: a hook that hangs, exits at once or does not exist
//! holding up anything but later messages of its own alert. Starting a program can hang too (its
//! file may lie on the frozen disk), so that happens on a thread that may be given up.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, timeout};
use watchdog_model::time::Mono;

use super::alerts::message::Message;
use super::tally::Tally;
use super::webhook::{Queued, TOO_OLD_NS};
use crate::config::{ExecHook, trusted_program};
use crate::tick::clock;

/// The search path that a program finds; the daemon's own environment is not handed on.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a hook may say in the log, in bytes a minute.
const LOG_BUDGET: usize = 8 * 1024;

/// A hook that is kept: how often one message is offered before it is given up.
const OFFERS: u32 = 3;

/// Messages taken from the queue for a kept hook that does not run.
const PENDING: usize = 256;

/// How long a kept hook may take to leave when the daemon stops.
const LEAVE: Duration = Duration::from_millis(300);

/// How often it is looked whether a kept hook has read what it was told.
const LOOK: Duration = Duration::from_millis(50);

/// How long the output of a hook that has ended is still read.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How long to wait before a hook that left is started again; doubled each time up to `longest`,
/// and back to `first` once it has stayed for `longest`.
#[derive(Clone, Copy, Debug)]
struct Backoff {
    first: Duration,
    longest: Duration,
}

/// A program to tell.
pub struct Hook {
    name: String,
    argv: Vec<String>,
    persistent: bool,
    limit: Duration,
    backoff: Backoff,
    tally: Tally,
}

impl Hook {
    /// A hook as configured.
    #[must_use]
    pub fn new(config: &ExecHook, name: String, tally: Tally) -> Self {
        Self {
            name,
            argv: config.argv.clone(),
            persistent: config.persistent,
            limit: Duration::from_nanos(config.timeout_ns),
            backoff: Backoff {
                first: Duration::from_secs(1),
                longest: Duration::from_secs(60),
            },
            tally,
        }
    }

    fn lose(&self, why: &str) {
        self.tally.lose();
        tracing::error!("alert {}: {why}; an alert was not told", self.name);
    }
}

/// Tells a hook of its messages until there are no more to come.
pub async fn run(hook: Hook, mut messages: mpsc::Receiver<Queued>) {
    if hook.persistent {
        Keeper::new(hook, messages).run().await;
    } else {
        while let Some((_, message)) = messages.recv().await {
            match once(&hook, &message.lines()).await {
                Ok(()) => hook.tally.sent.inc(),
                Err(why) => hook.lose(&why),
            }
        }
    }
}

/// Tells a hook once, for a test; gives what it did. A kept one is started, told, and let go.
///
/// # Errors
/// What went wrong.
pub async fn test(config: &ExecHook, tally: Tally, message: &Message) -> Result<String, String> {
    let hook = Hook::new(config, config.argv.join(" "), tally);
    if !hook.persistent {
        return once(&hook, &message.lines())
            .await
            .map(|()| "left with exit status 0".to_owned());
    }
    let mut running = start(&hook).await?;
    let Some(mut stdin) = running.stdin.take() else {
        return Err("has no standard input".to_owned());
    };
    let lines = message.lines();
    let reads = async {
        stdin
            .write_all(lines.as_bytes())
            .await
            .map_err(|error| format!("did not take the alert: {error}"))?;
        // Until it has read it, or has left without.
        while unread(&stdin) > 0 {
            tokio::select! {
                status = running.wait() => return Err(match status {
                    Ok(status) => format!("left without reading the alert ({status})"),
                    Err(error) => format!("cannot be waited for: {error}"),
                }),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        Ok(())
    };
    match timeout(hook.limit, reads).await {
        Ok(outcome) => outcome?,
        Err(_) => return Err(format!("did not read the alert within {:?}", hook.limit)),
    }
    drop(stdin);
    match timeout(hook.limit, running.wait()).await {
        Ok(Ok(status)) if status.success() => {
            Ok("read the alert and left with exit status 0".to_owned())
        }
        Ok(Ok(status)) => Err(format!("read the alert and failed ({status})")),
        Ok(Err(error)) => Err(format!("cannot be waited for: {error}")),
        Err(_) => Ok(format!(
            "read the alert; did not leave within {:?} when its input ended, and was killed",
            hook.limit
        )),
    }
}

/// Bytes in a pipe that its reader has not read yet.
fn unread(pipe: &ChildStdin) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as `pipe` is borrowed, and FIONREAD writes one
    // int, which `bytes` is.
    let answer = unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if answer == 0 {
        usize::try_from(bytes).unwrap_or(0)
    } else {
        0
    }
}

/// A started program; killed with its whole group when dropped.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    group: Option<i32>,
    /// What copies its output to the log.
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await;
        // Its id may belong to somebody else from now on.
        self.group = None;
        status
    }

    /// Lets its last words reach the log. What it left running in the background may keep its
    /// output open for ever, so that is not waited for.
    async fn last_words(&mut self) {
        let all = async {
            for reader in &mut self.readers {
                // One that panicked has nothing more to say.
                let _ended = reader.await;
            }
        };
        if timeout(LAST_WORDS, all).await.is_ok() {
            self.readers.clear();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for reader in &self.readers {
            reader.abort();
        }
        if let Some(group) = self.group {
            // SAFETY: kill takes two integers. The child was made leader of a group of its own
            // and has not been waited for, so the number still names that group.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
    }
}

/// Starts the program, in at most `hook.limit`.
async fn start(hook: &Hook) -> Result<Running, String> {
    let mut command = Command::new(&hook.argv[0]);
    command
        .args(&hook.argv[1..])
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    // SAFETY: between fork and exec only system calls are made, which take no lock and no memory.
    unsafe { command.pre_exec(normal_priority) };
    let program = hook.argv[0].clone();
    let started = tokio::task::spawn_blocking(move || {
        // What was fine when the configuration was read may have been given away since.
        trusted_program(Path::new(&program)).map_err(io::Error::other)?;
        let child = command.spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok());
        Ok::<_, io::Error>(Running {
            child,
            stdin: None,
            group,
            readers: Vec::new(),
        })
    });
    let mut running = match timeout(hook.limit, started).await {
        Err(_) => return Err(format!("could not be started within {:?}", hook.limit)),
        Ok(Err(error)) => return Err(format!("could not be started: {error}")),
        Ok(Ok(Err(error))) => return Err(format!("could not be started: {error}")),
        Ok(Ok(Ok(running))) => running,
    };
    running.stdin = running.child.stdin.take();
    if let Some(stdout) = running.child.stdout.take() {
        let reader = tokio::spawn(log_output(hook.name.clone(), stdout));
        running.readers.push(reader);
    }
    if let Some(stderr) = running.child.stderr.take() {
        let reader = tokio::spawn(log_output(hook.name.clone(), stderr));
        running.readers.push(reader);
    }
    Ok(running)
}

/// In the child: as any program runs, whatever the daemon gave itself or was given: with ambient
/// capabilities a service's user would hand its rights to whatever it starts.
fn normal_priority() -> io::Result<()> {
    let normal = libc::sched_param { sched_priority: 0 };
    // SAFETY: plain system calls on the calling process; `normal` lives across the call. Where
    // they fail the hook runs at the priority it has, which is no reason not to run it.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const normal);
        libc::setpriority(libc::PRIO_PROCESS, 0, 0);
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        );
    }
    Ok(())
}

/// One run for one message.
async fn once(hook: &Hook, message: &str) -> Result<(), String> {
    let mut running = start(hook).await?;
    let told = async {
        if let Some(mut stdin) = running.stdin.take() {
            match stdin.write_all(message.as_bytes()).await {
                // A program need not read what it does not care for.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    return Err(format!("did not take the alert: {error}"));
                }
                _ => {}
            }
        }
        let status = running
            .wait()
            .await
            .map_err(|error| format!("cannot be waited for: {error}"))?;
        running.last_words().await;
        if status.success() {
            Ok(())
        } else {
            Err(format!("failed ({status})"))
        }
    };
    match timeout(hook.limit, told).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!(
            "was not done within {:?} and was killed",
            hook.limit
        )),
    }
}

/// Keeps a program running and feeds it.
struct Keeper {
    hook: Hook,
    messages: mpsc::Receiver<Queued>,
    /// Taken from the queue, not yet written.
    pending: VecDeque<Offered>,
    /// Written, and perhaps not yet read; the newest last.
    written: VecDeque<Offered>,
    /// No more messages are to come.
    ended: bool,
    pause: Duration,
    /// Whether it was said that it does not stay.
    said: bool,
}

/// Why a kept program is fed no more.
enum Left {
    /// It went, or there is nothing more to say.
    Itself(String),
    /// It took nothing.
    Hung(String),
}

/// A message, since when it waits, and how often it was offered to a program that did not take it.
struct Offered {
    since: Mono,
    lines: String,
    offers: u32,
}

impl Keeper {
    fn new(hook: Hook, messages: mpsc::Receiver<Queued>) -> Self {
        let pause = hook.backoff.first;
        Self {
            hook,
            messages,
            pending: VecDeque::new(),
            written: VecDeque::new(),
            ended: false,
            pause,
            said: false,
        }
    }

    async fn run(mut self) {
        loop {
            let why = match start(&self.hook).await {
                Ok(running) => {
                    let why = self.feed(running).await;
                    if self.ended && self.pending.is_empty() {
                        return;
                    }
                    why
                }
                Err(why) => {
                    self.offered(false);
                    why
                }
            };
            if self.ended {
                // The daemon stops; there is no time for another try.
                for _ in self.pending.drain(..) {
                    self.hook.lose("it is not running");
                }
                return;
            }
            // One that leaves at once for ever is counted each time and said once.
            if std::mem::replace(&mut self.said, true) {
                tracing::debug!("alert {}: {why}", self.hook.name);
            } else {
                tracing::warn!(
                    "alert {}: {why}; started again and again, at most every {:?}; not said again \
                     until it stays for that long (alert_retries_total counts)",
                    self.hook.name,
                    self.hook.backoff.longest
                );
            }
            self.hook.tally.retries.inc();
            if !self.ended {
                self.sleep().await;
            }
            if self.ended && self.pending.is_empty() {
                return;
            }
            self.pause = (self.pause * 2).min(self.hook.backoff.longest);
        }
    }

    /// Waits before the next start. Messages that come meanwhile are taken, so that their end is
    /// noticed.
    async fn sleep(&mut self) {
        let pause = tokio::time::sleep(self.pause);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return,
                message = self.messages.recv(), if self.pending.len() < PENDING && !self.ended => {
                    self.take(message);
                    if self.ended {
                        return;
                    }
                }
            }
        }
    }

    fn take(&mut self, message: Option<Queued>) {
        match message {
            Some((since, message)) => self.pending.push_back(Offered {
                since,
                lines: message.lines(),
                offers: 0,
            }),
            None => self.ended = true,
        }
    }

    /// Counts an offer of the oldest pending message that failed. It is given up when it was not
    /// taken by a program that runs, for it may be to blame itself; or when it is too old.
    fn offered(&mut self, hung: bool) {
        let Some(oldest) = self.pending.front_mut() else {
            return;
        };
        oldest.offers += u32::from(hung);
        if oldest.offers >= OFFERS {
            self.pending.pop_front();
            self.hook.lose("did not take it three times over");
        } else if clock().since(oldest.since) > TOO_OLD_NS {
            self.pending.pop_front();
            self.hook.lose("did not stay for long enough to take it");
        }
    }

    /// What was read is told; what was not is to be offered again, the oldest first.
    fn settle(&mut self, unread: usize) {
        let mut rest = unread;
        while let Some(newest) = self.written.pop_back() {
            if rest == 0 {
                self.hook.tally.sent.inc();
                continue;
            }
            rest = rest.saturating_sub(newest.lines.len());
            self.pending.push_front(newest);
        }
    }

    /// Of what was written, takes out what has been read.
    fn read_so_far(&mut self, unread: usize) {
        let mut waiting: usize = self.written.iter().map(|one| one.lines.len()).sum();
        while let Some(oldest) = self.written.front() {
            waiting -= oldest.lines.len();
            if waiting < unread {
                return;
            }
            self.written.pop_front();
            self.hook.tally.sent.inc();
        }
    }

    /// Feeds a running program until it is gone, or until the messages are. Says why.
    async fn feed(&mut self, mut running: Running) -> String {
        let Some(mut stdin) = running.stdin.take() else {
            return "has no standard input".to_owned();
        };
        let (why, hung) = match self.feed_into(&mut running, &mut stdin).await {
            Left::Itself(why) => (why, false),
            Left::Hung(why) => (why, true),
        };
        self.settle(unread(&stdin));
        self.offered(hung);
        if self.ended && self.pending.is_empty() {
            drop(stdin);
            // Killed by the drop if it does not leave.
            let _left = timeout(LEAVE, running.wait()).await;
        }
        why
    }

    async fn feed_into(&mut self, running: &mut Running, stdin: &mut ChildStdin) -> Left {
        let steady = tokio::time::sleep(self.hook.backoff.longest);
        tokio::pin!(steady);
        let mut is_steady = false;
        let mut look = tokio::time::interval(LOOK);
        // Looks are counted as time: those that were not needed must not be made up for.
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // How much was unread when that last became less, and how long ago in looks.
        let (mut least_unread, mut looks) = (0, 0);
        let patience = (self.hook.limit.as_millis() / LOOK.as_millis()).max(1);
        loop {
            if let Some(message) = self.pending.pop_front() {
                let write = stdin.write_all(message.lines.as_bytes());
                match timeout(self.hook.limit, write).await {
                    Ok(Ok(())) => {
                        self.written.push_back(message);
                        look.reset();
                        (least_unread, looks) = (unread(stdin), 0);
                        continue;
                    }
                    Ok(Err(error)) => {
                        self.pending.push_front(message);
                        return Left::Itself(format!("is gone ({error})"));
                    }
                    Err(_) => {
                        self.pending.push_front(message);
                        return Left::Hung(format!(
                            "did not take an alert within {:?} and was killed",
                            self.hook.limit
                        ));
                    }
                }
            }
            if self.ended && self.written.is_empty() {
                return Left::Itself("is done".to_owned());
            }
            tokio::select! {
                // What it is told comes first: a program that is about to leave may still take it.
                biased;
                message = self.messages.recv(), if !self.ended => self.take(message),
                status = running.wait() => {
                    running.last_words().await;
                    return Left::Itself(match status {
                        Ok(status) => format!("left ({status})"),
                        Err(error) => format!("cannot be waited for: {error}"),
                    });
                }
                _ = look.tick(), if !self.written.is_empty() => {
                    let unread = unread(stdin);
                    self.read_so_far(unread);
                    if unread < least_unread || unread == 0 {
                        (least_unread, looks) = (unread, 0);
                    } else {
                        looks += 1;
                    }
                    if looks >= patience {
                        return Left::Hung(format!(
                            "did not read an alert within {:?} and was killed",
                            self.hook.limit
                        ));
                    }
                }
                () = &mut steady, if !is_steady => {
                    is_steady = true;
                    self.pause = self.hook.backoff.first;
                    if std::mem::take(&mut self.said) {
                        tracing::warn!("alert {}: stays now", self.hook.name);
                    }
                }
            }
        }
    }
}

/// Copies what a program says to the log: printable, and not more than [`LOG_BUDGET`] a minute.
async fn log_output(name: String, mut output: impl AsyncRead + Unpin) {
    let mut minute = tokio::time::interval(Duration::from_secs(60));
    let mut budget = LOG_BUDGET;
    let mut buffer = [0; 1024];
    loop {
        tokio::select! {
            _ = minute.tick() => budget = LOG_BUDGET,
            read = output.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) if budget > 0 => {
                    let shown = &buffer[..length.min(budget)];
                    budget -= shown.len();
                    for line in shown.split(|byte| *byte == b'\n') {
                        if !line.is_empty() {
                            let line = String::from_utf8_lossy(line);
                            tracing::warn!("alert {name} says: {}", line.escape_debug());
                        }
                    }
                    if budget == 0 {
                        tracing::warn!("alert {name} says more; left out for a minute");
                    }
                }
                Ok(_) => {}
            },
        }
    }
}

#[cfg(test)]
mod tests;
