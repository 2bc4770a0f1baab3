//! Runs the demo: starts the actors, freezes a client, then the server, and waits.
//!
//! In: the switches, and the actors' lines. Out: the story on the screen, and an exit code. What was
//! seen is worked out by `story` alone; here is only who does what when.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::DemoArgs;
use super::children::{Actor, News, Who};
use super::clock::{MS, mono_us, until};
use super::happening::Happening;
use super::lines::{ClientKind, DaemonEvent};
use super::screen::Screen;
use super::story::Story;

/// What the clients ask for; with ticks of 2 s they get it.
const TIMEOUT_MS: u64 = 6_000;
/// ZooKeeper's own default.
const TICK_MS: u64 = 2_000;
/// Everything together ends before this, cleaning up included.
const WHOLE_US: u64 = 36_000 * MS;
/// How long the server stands still: well beyond a warning, short of any expiry (a ping may have
/// been T/3 old).
const SERVER_FREEZE_US: u64 = 3_000 * MS;
/// Time in which nothing is done, so that healthy sessions are seen to be healthy.
const SETTLE_US: u64 = 3_000 * MS;
/// How often the live block is redrawn.
const DRAW_US: u64 = 100 * MS;
/// Lines of the daemon's stderr that are shown when the demo fails.
const LOG_TAIL: usize = 20;
/// And at most so many bytes.
const LOG_TAIL_BYTES: u64 = 8 * 1024;

/// Why the play ends before its end.
enum Stop {
    /// Ctrl-C, or a kind request to end.
    Interrupted,
    /// An actor ended that shouldn't have.
    Ended(Who),
    /// Something else went wrong.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(e: E) -> Self {
        Self::Failed(e.into())
    }
}

/// Runs it.
pub fn run(args: &DemoArgs) -> ExitCode {
    let started = Demo::new(args);
    match started.and_then(|demo| demo.perform(args)) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("demo: {e:#}");
            ExitCode::FAILURE
        }
    }
}

struct Demo {
    actors: Vec<Actor>,
    /// What the actors write to stderr, in files without a name: nothing to clean up.
    logs: Vec<(Who, File)>,
    /// Holds the daemon's configuration and memory; dropped after the actors.
    dir: Option<tempfile::TempDir>,
    own: PathBuf,
    news: Receiver<News>,
    tell: Sender<News>,
    story: Story,
    screen: Screen,
    start_us: u64,
    drawn_us: u64,
    frozen: bool,
    /// From here on actors end because they are asked to.
    winding_up: bool,
}

impl Demo {
    fn new(args: &DemoArgs) -> anyhow::Result<Self> {
        let start_us = mono_us();
        let (tell, news) = mpsc::channel();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("signal handlers")?;
        let interrupts = tell.clone();
        std::thread::Builder::new().spawn(move || {
            for _ in signals.forever() {
                if interrupts.send(News::Signal).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self {
            actors: Vec::new(),
            logs: Vec::new(),
            dir: None,
            own: std::env::current_exe().context("the path of this program")?,
            news,
            tell,
            story: Story::default(),
            screen: Screen::new(args.json, start_us),
            start_us,
            drawn_us: 0,
            frozen: false,
            winding_up: false,
        })
    }

    /// Plays, cleans up, tells the result.
    fn perform(mut self, args: &DemoArgs) -> anyhow::Result<ExitCode> {
        let ended = self.play(args);
        let mut lacking = false;
        match &ended {
            Ok(()) | Err(Stop::Interrupted) => {}
            Err(Stop::Ended(who)) => {
                let at = self.actors.iter().position(|a| a.who == *who);
                let status = at.and_then(|at| self.actors.swap_remove(at).reap());
                lacking = *who == Who::Daemon && status.and_then(|s| s.code()) == Some(3);
                let how = status.map_or(String::new(), |s| format!(": {s}"));
                // A stdout that is gone must not keep us from cleaning up, here and below.
                let _ = self.note(format!("{who} ended before its time{how}"));
            }
            Err(Stop::Failed(e)) => {
                let _ = self.note(format!("{e:#}"));
            }
        }
        self.wind_up();
        if let Err(Stop::Interrupted) = ended {
            let _ = self.note("interrupted; all that was started has ended".to_owned());
            return Ok(ExitCode::from(130));
        }
        let mut verdict = self.story.verdict();
        verdict.passed &= ended.is_ok();
        let passed = verdict.passed;
        if !passed {
            self.show_logs();
        }
        let mono_us = mono_us();
        let took_s = (mono_us - self.start_us) as f64 / 1e6;
        self.screen.say(&Happening::Result {
            mono_us,
            took_s,
            verdict,
        })?;
        Ok(match (passed, lacking) {
            (true, _) => ExitCode::SUCCESS,
            (false, true) => ExitCode::from(3),
            (false, false) => ExitCode::FAILURE,
        })
    }

    /// The play. It returns early where going on would show nothing; the verdict says what is
    /// missing.
    fn play(&mut self, args: &DemoArgs) -> Result<(), Stop> {
        if !self.start_all(args)? {
            return Ok(());
        }
        if !self.wait(5_000, Story::all_seen)? {
            return Ok(());
        }
        self.wait_out(SETTLE_US)?;
        self.wait(4_000, Story::all_healthy)?;
        self.freeze_client(args.freeze)?;
        self.wait(4_000, Story::all_healthy)?;
        self.wait_out(1_000 * MS)?;
        self.freeze_server()
    }

    /// Server, daemon, clients, in this order: the daemon needs the port, and must see handshakes.
    fn start_all(&mut self, args: &DemoArgs) -> Result<bool, Stop> {
        let mut server = self.own_role("demo-server");
        server.args(["--tick-ms", &TICK_MS.to_string()]);
        let server_pid = self.start(Who::Server, &mut server)?;
        self.wait(5_000, |story| story.port.is_some())?;
        let Some(port) = self.story.port else {
            return Ok(false);
        };

        let config = self.write_config(port)?;
        // Its own memory: an installed daemon's is none of the demo's business.
        let state = config.with_file_name("state");
        let mut daemon = Command::new(args.daemon.as_ref().unwrap_or(&self.own));
        daemon
            .arg("run")
            .arg("--config")
            .arg(config)
            .arg("--state-dir")
            .arg(state)
            .args(["--events", "-"]);
        if args.no_probes {
            daemon.arg("--no-probes");
        }
        let daemon_pid = self.start(Who::Daemon, &mut daemon)?;
        // Verifiers have much to walk, and processors are slow or busy.
        let started = self.wait(30_000, |story| story.daemon_started)?;
        if !started {
            return Ok(false);
        }
        self.say(&Happening::Started {
            mono_us: mono_us(),
            port,
            daemon_pid,
            server_pid,
        })?;

        for kind in ClientKind::ALL {
            let mut client = self.own_role("demo-client");
            client.args(["--kind", kind.name(), "--port", &port.to_string()]);
            client.args(["--timeout-ms", &TIMEOUT_MS.to_string()]);
            self.start(Who::Client(kind), &mut client)?;
        }
        self.wait(3_000, Story::all_connected)
    }

    /// Act one: a client stands still until the server has expired its session.
    fn freeze_client(&mut self, client: ClientKind) -> Result<(), Stop> {
        let who = Who::Client(client);
        self.freeze(who)?;
        // The last request may be as good as new, and the bucket adds up to a tick.
        let expired = self.wait(TIMEOUT_MS + TICK_MS + 1_500, Story::frozen_client_expired)?;
        self.thaw(who)?;
        if expired {
            self.wait(3_000, |story| story.told_expired(client))?;
        }
        Ok(())
    }

    /// Act two: the server stands still for a while.
    fn freeze_server(&mut self) -> Result<(), Stop> {
        self.freeze(Who::Server)?;
        self.wait_out(SERVER_FREEZE_US)?;
        self.thaw(Who::Server)?;
        self.wait(5_000, Story::all_renewed)?;
        Ok(())
    }

    fn freeze(&mut self, who: Who) -> Result<(), Stop> {
        let Some(actor) = self.actors.iter().find(|a| a.who == who) else {
            return Ok(());
        };
        let pid = actor.pid();
        let client = client_of(who);
        let mono_us = mono_us();
        actor.signal(libc::SIGSTOP);
        self.frozen = true;
        self.story.froze(client, mono_us);
        self.say(&Happening::Freeze {
            mono_us,
            client,
            pid,
        })
    }

    fn thaw(&mut self, who: Who) -> Result<(), Stop> {
        let mono_us = mono_us();
        let frozen_for_ms = self.story.thaws(mono_us) / MS;
        if let Some(actor) = self.actors.iter().find(|a| a.who == who) {
            actor.signal(libc::SIGCONT);
        }
        self.frozen = false;
        self.say(&Happening::Thaw {
            mono_us,
            client: client_of(who),
            frozen_for_ms,
        })
    }

    fn own_role(&self, role: &str) -> Command {
        let mut command = Command::new(&self.own);
        command.arg(role).env_clear();
        command
    }

    fn start(&mut self, who: Who, command: &mut Command) -> anyhow::Result<u32> {
        let log = tempfile::tempfile().context("a log file")?;
        self.logs.push((who, log.try_clone()?));
        let program = command.get_program().to_owned();
        let actor = Actor::start(who, command, log, self.tell.clone())
            .with_context(|| format!("{who} can't be started ({})", program.display()))?;
        let pid = actor.pid();
        self.actors.push(actor);
        Ok(pid)
    }

    fn write_config(&mut self, port: u16) -> anyhow::Result<PathBuf> {
        let dir = tempfile::Builder::new()
            .prefix("lease-watchdog-demo-")
            .tempdir();
        let dir = dir.context("a directory for the daemon's configuration")?;
        let path = dir.path().join("demo.yaml");
        self.dir = Some(dir);
        // The daemon refuses a configuration that others may write.
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        write!(
            file,
            "leases:\n  - name: zookeeper\n    protocol: zookeeper\n    ports: [{port}]\n\
             http: {{ listen: \"127.0.0.1:0\" }}\n"
        )?;
        Ok(path)
    }

    /// Waits until the story has got so far, at most so many milliseconds; false if it hasn't.
    fn wait(&mut self, at_most_ms: u64, done: impl Fn(&Story) -> bool) -> Result<bool, Stop> {
        let deadline = (mono_us() + at_most_ms * MS).min(self.start_us + WHOLE_US);
        loop {
            if done(&self.story) {
                return Ok(true);
            }
            let now = mono_us();
            if now >= deadline {
                return Ok(false);
            }
            self.draw(now)?;
            match self
                .news
                .recv_timeout(until(deadline.min(self.drawn_us + DRAW_US), now))
            {
                Ok(news) => self.hear(news)?,
                // The channel can't close: `tell` is ours.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    /// Lets time pass.
    fn wait_out(&mut self, time_us: u64) -> Result<(), Stop> {
        self.wait(time_us / MS, |_| false).map(drop)
    }

    fn hear(&mut self, news: News) -> Result<(), Stop> {
        let (who, at_us, text) = match news {
            News::Signal => return Err(Stop::Interrupted),
            News::Ended(who) => {
                let told = client_of(who).is_some_and(|client| self.story.told_expired(client));
                if !told {
                    return Err(Stop::Ended(who));
                }
                self.actors.retain(|a| a.who != who);
                return Ok(());
            }
            News::Line { who, at_us, text } => (who, at_us, text),
        };
        let happening = match who {
            Who::Daemon => serde_json::from_str::<DaemonEvent>(&text)
                .map(|event| self.story.daemon_said(&event, at_us)),
            Who::Server => serde_json::from_str(&text).map(|line| self.story.server_said(&line)),
            Who::Client(kind) => {
                serde_json::from_str(&text).map(|line| self.story.client_said(kind, &line))
            }
        };
        match happening {
            Ok(Some(happening)) => self.say(&happening),
            Ok(None) => Ok(()),
            Err(e) => self.note(format!("{who} said what the demo can't read ({e}): {text}")),
        }
    }

    fn say(&mut self, happening: &Happening) -> Result<(), Stop> {
        if self.winding_up {
            // What comes now is about the cleaning up: sessions that are closed, leases that go.
            return Ok(());
        }
        Ok(self.screen.say(happening)?)
    }

    fn note(&mut self, text: String) -> Result<(), Stop> {
        Ok(self.screen.say(&Happening::Note {
            mono_us: mono_us(),
            text,
        })?)
    }

    fn draw(&mut self, now: u64) -> Result<(), Stop> {
        if now >= self.drawn_us + DRAW_US && !self.winding_up {
            self.screen.draw(&self.story.rows(now), self.frozen, now)?;
            self.drawn_us = now;
        }
        Ok(())
    }

    /// Ends everybody: clients first, so that their sessions are closed in order, the server last.
    /// Whoever doesn't go when asked is killed.
    fn wind_up(&mut self) {
        self.winding_up = true;
        self.end_politely(|who| matches!(who, Who::Client(_)), 1_000);
        self.end_politely(|who| who == Who::Daemon, 2_000);
        self.actors.clear();
    }

    fn end_politely(&mut self, whom: impl Fn(Who) -> bool, at_most_ms: u64) {
        let mut running = Vec::new();
        for actor in self.actors.iter().filter(|a| whom(a.who)) {
            // A frozen process takes no other signal in.
            actor.signal(libc::SIGTERM);
            actor.signal(libc::SIGCONT);
            running.push(actor.who);
        }
        let deadline = mono_us() + at_most_ms * MS;
        while !running.is_empty() && mono_us() < deadline {
            match self.news.recv_timeout(until(deadline, mono_us())) {
                Ok(News::Ended(who)) => running.retain(|still| *still != who),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        let (theirs, others) = self.actors.drain(..).partition(|a| whom(a.who));
        self.actors = others;
        drop::<Vec<Actor>>(theirs);
    }

    /// The last lines that the actors wrote to stderr, on ours: JSON readers aren't disturbed.
    fn show_logs(&self) {
        for (who, log) in &self.logs {
            let tail = tail_of(log);
            if !tail.is_empty() {
                eprintln!("--- {who} wrote to stderr:\n{tail}");
            }
        }
    }
}

fn client_of(who: Who) -> Option<ClientKind> {
    match who {
        Who::Client(kind) => Some(kind),
        Who::Daemon | Who::Server => None,
    }
}

/// The writer shares this file's offset, so it is read by position and not from there.
fn tail_of(log: &File) -> String {
    let size = log.metadata().map_or(0, |m| m.len());
    let from = size.saturating_sub(LOG_TAIL_BYTES);
    let mut bytes = vec![0; (size - from) as usize];
    if log.read_exact_at(&mut bytes, from).is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
}
