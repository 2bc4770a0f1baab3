//! The four real clients, behind one face: each holds one session, idle or busy, and says when
//! it is connected, disconnected or expired.
//!
//! The C client is ZooKeeper's own `cli_mt`, which always asks for 30 s: a server's
//! `maxSessionTimeout` makes it shorter. kazoo and Java run a small program that lies beside
//! this file; the Rust client is [`rust_client`](super::rust_client).

use super::clock;
use super::faults::{Namespace, Stopped, cut};
use super::process::{self, Child};
use super::rust_client;
use super::transcript::{Line, Transcript, text_of};
use super::zookeeper::{LOGGER_JAR, ZOOKEEPER_JAR, java, parse_id};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::{ChildStdin, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Which client library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// ZooKeeper's C library, multi-threaded.
    C,
    /// Python's kazoo.
    Kazoo,
    /// ZooKeeper's Java library.
    Java,
    /// The Rust crate `zookeeper-client`.
    Rust,
}

impl Kind {
    /// All four.
    pub const ALL: [Self; 4] = [Self::C, Self::Kazoo, Self::Java, Self::Rust];

    /// Its name in the stories' output.
    pub fn name(self) -> &'static str {
        match self {
            Self::C => "C",
            Self::Kazoo => "kazoo",
            Self::Java => "Java",
            Self::Rust => "Rust",
        }
    }
}

/// What a client does with its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Nothing: only keepalives renew it.
    Idle,
    /// Reads about 50 times a second.
    Busy,
}

/// What a client says of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Connected, by the session with this id.
    Connected(u64),
    /// The connection is lost, the session may live.
    Disconnected,
    /// The server has said that the session expired.
    Expired,
    /// The session was closed in order.
    Closed,
}

/// A state and when it was entered.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// By the client's own stamp; for the C client, the arrival of its line.
    pub at_us: i64,
    /// The state entered.
    pub state: State,
}

/// Finds the state in a line that came at a moment.
type ParseChange = Box<dyn FnMut(i64, &str) -> Option<Change> + Send>;

/// How to start a client.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Which library.
    pub kind: Kind,
    /// Idle or busy.
    pub load: Load,
    /// The server.
    pub server: SocketAddr,
    /// The session timeout to ask for.
    pub timeout: Duration,
    /// The network namespace to run in.
    pub inside: Option<&'a Namespace>,
    /// More words to put before the command.
    pub before: &'a [&'a str],
}

impl Order<'_> {
    /// An idle client of the server on 127.0.0.1 at `port`, asking for `timeout`.
    pub fn idle(kind: Kind, port: u16, timeout: Duration) -> Self {
        let server = SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            kind,
            load: Load::Idle,
            server,
            timeout,
            inside: None,
            before: &[],
        }
    }

    /// The same, busy.
    pub fn busy(kind: Kind, port: u16, timeout: Duration) -> Self {
        Self {
            load: Load::Busy,
            ..Self::idle(kind, port, timeout)
        }
    }
}

/// A running client. Killed when dropped, which leaves its session to expire.
#[derive(Debug)]
pub struct Client {
    /// Which library.
    pub kind: Kind,
    child: Child,
    commands: Arc<Mutex<Option<ChildStdin>>>,
    stop_reading: Arc<AtomicBool>,
    changes: Transcript<Change>,
    output: Transcript<Line>,
}

impl Client {
    /// Starts a client; [`Client::session`] waits for its session.
    pub fn start(order: Order<'_>) -> Self {
        let mut child = Child::start(command(order));
        let (changes, output) = (Transcript::new(), Transcript::new());
        let mut parse: ParseChange = match order.kind {
            Kind::C => Box::new(c_change()),
            Kind::Kazoo | Kind::Java | Kind::Rust => Box::new(own_change),
        };
        let (said, heard) = (output.clone(), changes.clone());
        let mut follow = move |at_us: i64, text: &str| {
            if let Some(change) = parse(at_us, text) {
                heard.push(change);
            } else if said.len() < 200 {
                said.push(Line {
                    at_us,
                    text: text.to_owned(),
                });
            }
            None::<Change>
        };
        match order.kind {
            // cli_mt writes everything of interest to standard error.
            Kind::C => {
                changes.feed(child.take_stderr(), follow);
                output.feed(child.take_stdout(), |_, _| None);
            }
            Kind::Kazoo | Kind::Java | Kind::Rust => {
                changes.feed(child.take_stdout(), move |at_us, text| follow(at_us, text));
                output.feed(child.take_stderr(), Line::keep);
            }
        }
        let client = Self {
            kind: order.kind,
            commands: Arc::new(Mutex::new(Some(child.take_stdin()))),
            stop_reading: Arc::new(AtomicBool::new(false)),
            child,
            changes,
            output,
        };
        if order.kind == Kind::C && order.load == Load::Busy {
            client.read_in_a_loop();
        }
        client
    }

    /// Starts one client of each kind at once.
    pub fn start_all(order: impl Fn(Kind) -> Order<'static>) -> Vec<Self> {
        Kind::ALL
            .into_iter()
            .map(|kind| Self::start(order(kind)))
            .collect()
    }

    /// The id of its current session and the moment it was connected.
    ///
    /// # Panics
    /// If it is not connected within 60 s; the message has its output.
    pub fn session(&self) -> (u64, i64) {
        let first = self
            .changes
            .wait(0, Duration::from_secs(60), |change| match change.state {
                State::Connected(id) => Some((id, change.at_us)),
                _ => None,
            });
        let Some(first) = first else {
            panic!("{} is not connected\n{}", self.name(), self.report())
        };
        let connected = self
            .changes
            .since(0)
            .into_iter()
            .filter_map(|change| match change.state {
                State::Connected(id) => Some((id, change.at_us)),
                _ => None,
            });
        connected.fold(first, |_, newer| newer)
    }

    /// The id of its current session.
    pub fn id(&self) -> u64 {
        self.session().0
    }

    /// A mark to wait from.
    pub fn mark(&self) -> usize {
        self.changes.len()
    }

    /// What it said of its session from a mark on.
    pub fn changes_since(&self, mark: usize) -> Vec<Change> {
        self.changes.since(mark)
    }

    /// Waits for a state after `mark`; gives the moment.
    ///
    /// # Panics
    /// If it does not come within the deadline; the message has what it said instead.
    pub fn wait_for(&self, mark: usize, within: Duration, wanted: impl Fn(State) -> bool) -> i64 {
        self.changes
            .wait(mark, within, |change| {
                wanted(change.state).then_some(change.at_us)
            })
            .unwrap_or_else(|| {
                panic!(
                    "{} did not get there within {within:?}\n{}",
                    self.name(),
                    self.report()
                )
            })
    }

    /// Waits until it is connected again after its server, on loopback, was restarted; gives the
    /// moment.
    ///
    /// A client that knocks while the server is still starting may be let in and get no answer,
    /// and kazoo waits for one as long as T. Such a connection is cut after 2 s.
    ///
    /// # Panics
    /// If it is not back within 12 s; the message has its output.
    pub fn wait_back(&self, mark: usize, port: u16) -> i64 {
        let connected = |state| matches!(state, State::Connected(_));
        let soon = self.changes.wait(mark, Duration::from_secs(2), |change| {
            connected(change.state).then_some(change.at_us)
        });
        soon.unwrap_or_else(|| {
            cut(self.pid(), SocketAddr::from(([127, 0, 0, 1], port)));
            self.wait_for(mark, Duration::from_secs(10), connected)
        })
    }

    /// The client's process.
    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// Its name in the stories' output.
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Stops the whole process; it runs again when the guard is dropped.
    pub fn freeze(&self) -> Stopped {
        Stopped::stop(self.pid())
    }

    /// Ends the session in order and waits for the process to end.
    ///
    /// # Panics
    /// If it does not within 10 s.
    pub fn close(mut self) {
        self.stop_reading.store(true, Ordering::Relaxed);
        let word = if self.kind == Kind::C {
            "quit\n"
        } else {
            "close\n"
        };
        self.command(word);
        let ended = self.child.wait_exit(Duration::from_secs(10));
        assert!(
            ended.is_some(),
            "{} did not close\n{}",
            self.name(),
            self.report()
        );
    }

    /// Kills it with SIGKILL, as a crash or an impatient deploy does; gives the moment.
    pub fn kill(mut self) -> i64 {
        let at_us = clock::now_us();
        self.child.kill();
        at_us
    }

    /// What it said, for reports.
    pub fn report(&self) -> String {
        format!(
            "{} client `{}`\nstates: {:?}\noutput:\n{}",
            self.name(),
            self.child.command(),
            self.changes_since(0),
            text_of(&self.output.tail(40)),
        )
    }

    fn command(&self, word: &str) -> bool {
        let mut stdin = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        stdin
            .as_mut()
            .is_some_and(|pipe| pipe.write_all(word.as_bytes()).is_ok())
    }

    /// cli_mt reads when told to: a thread tells it, until the pipe breaks.
    fn read_in_a_loop(&self) {
        let (commands, stop) = (Arc::clone(&self.commands), Arc::clone(&self.stop_reading));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                {
                    let mut stdin = commands.lock().unwrap_or_else(PoisonError::into_inner);
                    let Some(pipe) = stdin.as_mut() else { return };
                    if pipe.write_all(b"get /\n").is_err() {
                        return;
                    }
                }
                clock::observe_for(Duration::from_millis(20));
            }
        });
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop_reading.store(true, Ordering::Relaxed);
        if std::thread::panicking() {
            eprintln!("{}", self.report());
        }
    }
}

fn command(order: Order<'_>) -> Command {
    let Order {
        kind,
        load,
        server,
        timeout,
        inside,
        before,
    } = order;
    let load = if load == Load::Busy { "busy" } else { "idle" };
    let (program, arguments): (String, Vec<String>) = match kind {
        Kind::C => {
            // It wants IPv6 without brackets.
            let host = match server.ip() {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => ip.to_string(),
            };
            (
                "/usr/lib/zookeeper/bin/cli_mt".into(),
                vec![format!("{host}:{}", server.port())],
            )
        }
        Kind::Kazoo => {
            let script = programs().join("kazoo_client.py").display().to_string();
            let seconds = timeout.as_secs_f64().to_string();
            let arguments = vec![script, server.to_string(), seconds, load.into()];
            ("/usr/bin/python3".into(), arguments)
        }
        Kind::Java => {
            let mut java = java();
            java.arg("-cp").arg(format!(
                "{}:{ZOOKEEPER_JAR}:{LOGGER_JAR}",
                programs().display()
            ));
            java.args([
                "JavaClient",
                &server.to_string(),
                &timeout.as_millis().to_string(),
                load,
            ]);
            let words = java
                .get_args()
                .map(|word| word.to_string_lossy().into_owned());
            ("java".into(), words.collect())
        }
        Kind::Rust => {
            let binary = std::env::current_exe().expect("a test knows its own binary");
            let arguments = [
                "--exact",
                rust_client::TEST_NAME,
                "--nocapture",
                "--test-threads=1",
            ];
            (
                binary.display().to_string(),
                arguments.map(String::from).to_vec(),
            )
        }
    };
    let mut words: Vec<String> = inside
        .map(|space| space.enter().map(String::from).to_vec())
        .unwrap_or_default();
    words.extend(before.iter().map(|word| (*word).to_owned()));
    words.push(program);
    words.extend(arguments);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    if kind == Kind::Rust {
        command.env(rust_client::HOSTS, server.to_string());
        command.env(rust_client::TIMEOUT_MS, timeout.as_millis().to_string());
        command.env(rust_client::LOAD, load);
    }
    command
}

/// The folder with the clients' programs, written and compiled once per run.
fn programs() -> &'static std::path::Path {
    static PROGRAMS: OnceLock<std::path::PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("story-clients");
        std::fs::create_dir_all(&directory).expect("the target directory can be written");
        let java = directory.join("JavaClient.java");
        std::fs::write(
            directory.join("kazoo_client.py"),
            include_str!("kazoo_client.py"),
        )
        .and_then(|()| std::fs::write(&java, include_str!("JavaClient.java")))
        .expect("the clients' programs can be written");
        let (target, source) = (directory.display().to_string(), java.display().to_string());
        process::run("javac", &["-cp", ZOOKEEPER_JAR, "-d", &target, &source]);
        directory
    })
}

/// `@ MONO_US STATE ID`, anywhere in a line (the test binary puts its own words before it).
fn own_change(_at_us: i64, line: &str) -> Option<Change> {
    let mut words = line.split_once("@ ")?.1.split(' ');
    let at_us = words.next()?.parse().ok()?;
    let state = match words.next()? {
        "connected" => State::Connected(parse_id(words.next()?)?),
        "disconnected" => State::Disconnected,
        "expired" => State::Expired,
        "closed" => State::Closed,
        _ => return None,
    };
    Some(Change { at_us, state })
}

/// Follows `cli_mt`: a new session's id comes on a line after its state, a known one's does not
/// come again.
fn c_change() -> impl FnMut(i64, &str) -> Option<Change> + Send {
    let mut known = None;
    move |at_us, line| {
        let state = if let Some((_, id)) = line.split_once("Got a new session id: ") {
            known = parse_id(id.trim());
            State::Connected(known?)
        } else if line.contains("state = CONNECTED_STATE") {
            State::Connected(known?)
        } else if line.contains("state = CONNECTING_STATE") {
            State::Disconnected
        } else if line.contains("state = EXPIRED_SESSION_STATE") {
            State::Expired
        } else {
            return None;
        };
        Some(Change { at_us, state })
    }
}
