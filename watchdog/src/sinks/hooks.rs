//! Hooks: programs that are told of alerts.
//!
//! In: messages (JSON lines) of one alert. Out: the same on a program's standard input; what it
//! says goes to the log, within bounds. Never: a hook that hangs, exits at once or does not exist
//! holding up anything but later messages of its own alert. Starting a program can hang too (its
//! file may lie on the frozen disk), so that happens on a thread that may be given up.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::ExecHook;

/// The search path that a program finds; the daemon's own environment is not handed on.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a hook may say in the log, in bytes a minute.
const LOG_BUDGET: usize = 8 * 1024;

/// A hook that is kept: how often one message is offered before it is given up.
const OFFERS: u32 = 3;

/// How long a kept hook may take to leave when the daemon stops.
const LEAVE: Duration = Duration::from_millis(300);

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
    lost: IntCounter,
}

impl Hook {
    /// A hook as configured. `lost` counts messages that did not get through.
    #[must_use]
    pub fn new(config: &ExecHook, lost: IntCounter) -> Self {
        Self {
            name: config.argv.first().cloned().unwrap_or_default(),
            argv: config.argv.clone(),
            persistent: config.persistent,
            limit: Duration::from_nanos(config.timeout_ns),
            backoff: Backoff {
                first: Duration::from_secs(1),
                longest: Duration::from_secs(60),
            },
            lost,
        }
    }

    /// What it is called in the log.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn lose(&self, why: &str) {
        self.lost.inc();
        tracing::error!("alert {}: {why}; an alert was not told", self.name);
    }
}

/// Tells a hook of its messages until there are no more to come.
pub async fn run(hook: Hook, mut messages: mpsc::Receiver<Arc<str>>) {
    if hook.persistent {
        Keeper::new(hook, messages).run().await;
    } else {
        while let Some(message) = messages.recv().await {
            if let Err(why) = once(&hook, &message).await {
                hook.lose(&why);
            }
        }
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
    let started = tokio::task::spawn_blocking(move || {
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

/// In the child: as any program runs, whatever the daemon gave itself.
fn normal_priority() -> io::Result<()> {
    let normal = libc::sched_param { sched_priority: 0 };
    // SAFETY: plain system calls on the calling process; `normal` lives across the call. Where
    // they fail the hook runs at the priority it has, which is no reason not to run it.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const normal);
        libc::setpriority(libc::PRIO_PROCESS, 0, 0);
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
    messages: mpsc::Receiver<Arc<str>>,
    /// Taken from the queue, not yet delivered, and how often it was offered.
    pending: Option<(Arc<str>, u32)>,
    /// No more messages are to come.
    ended: bool,
    pause: Duration,
}

impl Keeper {
    fn new(hook: Hook, messages: mpsc::Receiver<Arc<str>>) -> Self {
        let pause = hook.backoff.first;
        Self {
            hook,
            messages,
            pending: None,
            ended: false,
            pause,
        }
    }

    async fn run(mut self) {
        loop {
            match start(&self.hook).await {
                Ok(running) => {
                    let why = self.feed(running).await;
                    if self.ended && self.pending.is_none() {
                        return;
                    }
                    tracing::warn!(
                        "alert {}: {why}; started again in {:?}",
                        self.hook.name,
                        self.pause
                    );
                }
                Err(why) => {
                    self.offered();
                    tracing::error!(
                        "alert {}: {why}; tried again in {:?}",
                        self.hook.name,
                        self.pause
                    );
                }
            }
            if self.ended {
                // The daemon stops; there is no time for another try.
                if self.pending.take().is_some() {
                    self.hook.lose("it is not running");
                }
                return;
            }
            self.sleep().await;
            if self.ended && self.pending.is_none() {
                return;
            }
            self.pause = (self.pause * 2).min(self.hook.backoff.longest);
        }
    }

    /// Waits before the next start. A message that comes meanwhile is taken, so that the end of
    /// messages is noticed.
    async fn sleep(&mut self) {
        let pause = tokio::time::sleep(self.pause);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return,
                message = self.messages.recv(), if self.pending.is_none() && !self.ended => {
                    match message {
                        Some(message) => self.pending = Some((message, 0)),
                        None => {
                            self.ended = true;
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Counts an offer of the pending message that failed; gives it up when there were enough.
    fn offered(&mut self) {
        let Some((_, offers)) = &mut self.pending else {
            return;
        };
        *offers += 1;
        if *offers >= OFFERS {
            self.pending = None;
            self.hook.lose("did not take it three times over");
        }
    }

    /// Feeds a running program until it is gone, or until the messages are. Says why.
    async fn feed(&mut self, mut running: Running) -> String {
        let steady = tokio::time::sleep(self.hook.backoff.longest);
        tokio::pin!(steady);
        let mut is_steady = false;
        let Some(mut stdin) = running.stdin.take() else {
            return "has no standard input".to_owned();
        };
        loop {
            if let Some((message, _)) = &self.pending {
                let written = timeout(self.hook.limit, stdin.write_all(message.as_bytes())).await;
                match written {
                    Ok(Ok(())) => self.pending = None,
                    Ok(Err(error)) => {
                        self.offered();
                        return format!("is gone ({error})");
                    }
                    Err(_) => {
                        self.offered();
                        return format!(
                            "did not take an alert within {:?} and was killed",
                            self.hook.limit
                        );
                    }
                }
            }
            if self.ended {
                drop(stdin);
                // Killed by the drop if it does not leave.
                let _left = timeout(LEAVE, running.wait()).await;
                return "is done".to_owned();
            }
            tokio::select! {
                // What it is told comes first: a program that is about to leave may still take it.
                biased;
                message = self.messages.recv(), if !self.ended => match message {
                    Some(message) => self.pending = Some((message, 0)),
                    None => self.ended = true,
                },
                status = running.wait() => {
                    running.last_words().await;
                    return match status {
                        Ok(status) => format!("left ({status})"),
                        Err(error) => format!("cannot be waited for: {error}"),
                    };
                }
                () = &mut steady, if !is_steady => {
                    is_steady = true;
                    self.pause = self.hook.backoff.first;
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
