//! A victim: a real client, or a holder whose I/O thread has a habit.

use super::names;
use super::programs::Habit;
use crate::harness::client::{Client, Kind, Order, State};
use crate::harness::clock;
use crate::harness::process::Child;
use crate::harness::transcript::Transcript;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ChildStdin, Command};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Something that holds a lease.
#[derive(Debug)]
pub enum Victim {
    /// One of the four libraries, with the id of the session that it had at first: a client whose
    /// session has expired opens another at once.
    Real(Client, OnceLock<u64>),
    /// A holder of this program's own.
    Own(Program),
}

impl Victim {
    /// A real client as a victim.
    pub fn real(client: Client) -> Self {
        Self::Real(client, OnceLock::new())
    }

    /// The id of its session, the one that the fault is to meet.
    pub fn id(&self) -> u64 {
        match self {
            Self::Real(client, first) => *first.get_or_init(|| client.id()),
            Self::Own(program) => program.id(),
        }
    }

    /// What it is, for the table.
    pub fn name(&self) -> String {
        match self {
            Self::Real(client, _) => client.name().to_owned(),
            Self::Own(program) => program.name.clone(),
        }
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        match self {
            Self::Real(client, _) => client.pid(),
            Self::Own(program) => program.pid(),
        }
    }

    /// When it first said, after `from_us`, that its connection was gone or its session expired.
    pub fn lost_us(&self, from_us: i64) -> Option<i64> {
        match self {
            Self::Real(client, _) => client
                .changes_since(0)
                .into_iter()
                .find(|change| {
                    change.at_us >= from_us
                        && matches!(change.state, State::Disconnected | State::Expired)
                })
                .map(|change| change.at_us),
            Self::Own(program) => program.first("disconnected", from_us),
        }
    }

    /// Where its I/O thread is in the kernel now, for one of our own: `; D in folio_wait_bit`.
    pub fn now_in(&self) -> String {
        let Self::Own(program) = self else {
            return String::new();
        };
        let pid = program.pid();
        let state = crate::harness::process::state(pid).unwrap_or('?');
        let wchan = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        match wchan.as_str() {
            "" | "0" => format!("; {state}"),
            wchan => format!("; {state} in {wchan}"),
        }
    }

    /// When it last said a word, by `until_us`; a real client says none.
    pub fn last_said_us(&self, word: &str, until_us: i64) -> Option<i64> {
        let Self::Own(program) = self else {
            return None;
        };
        program.last(word, until_us)
    }

    /// By the victim's own log, the work that it had begun at `until_us` or before and not ended by
    /// then: since when. A real client keeps no such log.
    pub fn held_up_since(&self, until_us: i64) -> Option<i64> {
        match self {
            Self::Real(..) => None,
            Self::Own(program) => program.open_at(until_us),
        }
    }
}

/// A word that a program of ours said, and when by its own clock.
#[derive(Clone, Debug)]
struct Said {
    at_us: i64,
    word: String,
    id: u64,
}

/// A way to set a program off.
#[derive(Clone, Debug)]
pub struct Commands(Arc<Mutex<ChildStdin>>);

impl Commands {
    /// Sets off what it does when it is told to.
    pub fn go(&self) {
        let mut stdin = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(stdin.write_all(b"go\n").and_then(|()| stdin.flush()));
    }
}

/// A running program of ours.
#[derive(Debug)]
pub struct Program {
    /// What it is, for the table.
    pub name: String,
    child: Child,
    commands: Commands,
    said: Transcript<Said>,
}

/// How to start a holder of our own.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// The server.
    pub server: SocketAddr,
    /// The session's timeout.
    pub timeout: Duration,
    /// What its I/O thread does beside.
    pub habit: Habit,
    /// The file that it does it with.
    pub file: &'a Path,
    /// How often it does it between its pings; zero is never.
    pub pace: Duration,
    /// Words before the command.
    pub inside: &'a [&'a str],
}

impl<'a> Holder<'a> {
    /// A holder of the server on 127.0.0.1, which works before its pings only.
    pub fn new(port: u16, timeout: Duration, habit: Habit, file: &'a Path) -> Self {
        Self {
            server: SocketAddr::from(([127, 0, 0, 1], port)),
            timeout,
            habit,
            file,
            pace: Duration::ZERO,
            inside: &[],
        }
    }

    /// Starts it; [`Program::id`] waits for its session.
    pub fn start(&self) -> Program {
        let words = [
            "holder".to_owned(),
            self.server.to_string(),
            self.timeout.as_millis().to_string(),
            self.habit.name().to_owned(),
            self.file.display().to_string(),
            self.pace.as_millis().to_string(),
        ];
        Program::start(self.inside, &words, self.habit.name())
    }
}

impl Program {
    /// Starts this binary with `words`, after the words of `inside`.
    pub fn start(inside: &[&str], words: &[String], name: &str) -> Self {
        let binary = std::env::current_exe().expect("a program knows its own binary");
        let mut all: Vec<String> = inside.iter().map(|word| (*word).to_owned()).collect();
        all.push(binary.display().to_string());
        all.extend_from_slice(words);
        let mut command = Command::new(&all[0]);
        command.args(&all[1..]);
        Self::launch(command, name)
    }

    /// Starts any program that speaks in the same lines.
    pub fn launch(command: Command, name: &str) -> Self {
        let mut child = Child::start(command);
        let said = Transcript::new();
        said.feed(child.take_stdout(), |_, line| parse(line));
        let errors = child.take_stderr();
        let who = name.to_owned();
        Transcript::<()>::new().feed(errors, move |_, line| {
            eprintln!("{who}: {line}");
            None
        });
        Self {
            name: name.to_owned(),
            commands: Commands(Arc::new(Mutex::new(child.take_stdin()))),
            child,
            said,
        }
    }

    /// The id of its session.
    ///
    /// # Panics
    /// If it has none within 30 s.
    pub fn id(&self) -> u64 {
        self.wait("connected", 0)
            .unwrap_or_else(|| panic!("{} has no session: {:?}", self.name, self.said.tail(5)))
            .1
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// What sets it off, for whoever no longer has the program itself at hand.
    pub fn commands(&self) -> Commands {
        self.commands.clone()
    }

    /// Waits for a word said at or after `from_us`; gives the moment and the id.
    pub fn wait(&self, word: &str, from_us: i64) -> Option<(i64, u64)> {
        self.said.wait(0, Duration::from_secs(30), |said| {
            (said.word == word && said.at_us >= from_us).then_some((said.at_us, said.id))
        })
    }

    /// Waits for a word that may take a minute or two.
    ///
    /// # Panics
    /// If it does not come.
    pub fn wait_long(&self, word: &str) {
        let said = self.said.wait(0, Duration::from_secs(120), |said| {
            (said.word == word).then_some(())
        });
        assert!(said.is_some(), "{} does not say `{word}`", self.name);
    }

    /// When a word was first said at or after `from_us`.
    pub fn first(&self, word: &str, from_us: i64) -> Option<i64> {
        let all = self.said.since(0);
        let found = all
            .iter()
            .find(|said| said.word == word && said.at_us >= from_us);
        found.map(|said| said.at_us)
    }

    /// When it last said a word, by `until_us`.
    pub fn last(&self, word: &str, until_us: i64) -> Option<i64> {
        let all = self.said.since(0);
        let found = all
            .iter()
            .rfind(|said| said.word == word && said.at_us <= until_us);
        found.map(|said| said.at_us)
    }

    /// How often it has said a word.
    pub fn count(&self, word: &str) -> usize {
        let all = self.said.since(0);
        all.iter().filter(|said| said.word == word).count()
    }

    /// When it said a word of one session.
    pub fn first_of(&self, word: &str, id: u64) -> Option<i64> {
        let all = self.said.since(0);
        let found = all.iter().find(|said| said.word == word && said.id == id);
        found.map(|said| said.at_us)
    }

    /// The `begin` without an `end` at a moment.
    fn open_at(&self, until_us: i64) -> Option<i64> {
        let mut open = None;
        for said in self.said.since(0) {
            if said.at_us > until_us {
                break;
            }
            match said.word.as_str() {
                "begin" => open = Some(said.at_us),
                "end" => open = None,
                _ => {}
            }
        }
        open
    }
}

fn parse(line: &str) -> Option<Said> {
    let mut words = line.strip_prefix("@ ")?.split(' ');
    Some(Said {
        at_us: words.next()?.parse().ok()?,
        word: words.next()?.to_owned(),
        id: words
            .next()
            .and_then(crate::harness::zookeeper::parse_id)
            .unwrap_or(0),
    })
}

/// Real clients in turn, all four kinds from a random one on; each is started a random part of its
/// cycle after the one before, so that no two are in step.
pub fn real(count: usize, order: impl Fn(Kind) -> Order<'static>, cycle: Duration) -> Vec<Victim> {
    let first = super::random::next();
    (0..count)
        .map(|index| {
            clock::observe_for(super::random::within(cycle / 4));
            let turn = usize::try_from(first % 4).unwrap_or(0) + index;
            Victim::real(Client::start(order(Kind::ALL[turn % 4])))
        })
        .collect()
}

/// A file of its own in a folder.
pub fn own_file(folder: &Path) -> std::path::PathBuf {
    folder.join(format!("file-{}", names::number()))
}
