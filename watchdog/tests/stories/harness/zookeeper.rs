//! A real ZooKeeper server (Debian's, standalone) and what it knows: the oracle of every story.
//!
//! Out: sessions with id, timeout and the moment of the last answer (four-letter word `cons`),
//! the ids the server still tracks (`dump`), and the moments at which it expired sessions (its
//! log). Never: anything learned from the daemon under test.

use super::clock;
use super::faults::Stopped;
use super::process::Child;
use super::transcript::{Line, Transcript, text_of};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The server's tick: expiry is rounded up to it.
pub const TICK_US: i64 = 2 * clock::SECOND;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// A session as the server's `cons` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The session's id.
    pub id: u64,
    /// The negotiated timeout.
    pub timeout_ms: u64,
    /// The client's end of the connection.
    pub client: SocketAddr,
    /// When the server last answered, in microseconds of CLOCK_MONOTONIC (of 1 ms precision).
    pub answered_us: i64,
    /// Requests read on this connection so far.
    pub received: u64,
}

/// A standalone server on a port of its own, with a data directory of its own.
#[derive(Debug)]
pub struct ZooKeeper {
    directory: tempfile::TempDir,
    port: u16,
    /// The address at which the harness itself asks.
    address: SocketAddr,
    process: Option<Child>,
    log: Transcript<Line>,
    /// When the server was last asked for its sessions on behalf of many, and its answer.
    asked: Mutex<(i64, BTreeMap<u64, Session>)>,
}

/// Where a server listens.
#[derive(Clone, Copy, Debug)]
pub enum Listen {
    /// On 127.0.0.1 alone.
    Loopback,
    /// On every address of both families, by one IPv6 socket, as a server does by default.
    Everywhere,
}

impl ZooKeeper {
    /// Starts a server that grants timeouts from 4 s up to `max_timeout`, and waits until it
    /// serves.
    ///
    /// # Panics
    /// If it does not serve within 60 s; the message has its log.
    pub fn start(max_timeout: Duration, listen: Listen) -> Self {
        Self::start_with(max_timeout, listen, "")
    }

    /// The same, with `extra` lines in its configuration.
    ///
    /// # Panics
    /// As [`ZooKeeper::start`].
    pub fn start_with(max_timeout: Duration, listen: Listen, extra: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let port = free_port();
        let bind = match listen {
            Listen::Loopback => "clientPortAddress=127.0.0.1\n",
            Listen::Everywhere => "",
        };
        let config = format!(
            "dataDir={data}\nclientPort={port}\n{bind}tickTime=2000\nmaxSessionTimeout={max}\n\
             maxClientCnxns=0\n4lw.commands.whitelist=*\nadmin.enableServer=false\n\
             {extra}\n",
            data = directory.path().join("data").display(),
            max = max_timeout.as_millis(),
        );
        std::fs::write(directory.path().join("zoo.cfg"), config).expect("zoo.cfg can be written");
        let mut server = Self {
            directory,
            port,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            process: None,
            log: Transcript::new(),
            asked: Mutex::default(),
        };
        server.launch();
        server
    }

    /// The port it serves.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's process id.
    pub fn pid(&self) -> i32 {
        self.process.as_ref().expect("the server runs").pid()
    }

    /// Stops the server's process; it runs again when the guard is dropped.
    pub fn freeze(&self) -> Stopped {
        Stopped::stop(self.pid())
    }

    /// Ends the server as a restart does, and starts it again on the same data and port.
    pub fn restart(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(libc::SIGTERM);
            if process.wait_exit(Duration::from_secs(5)).is_none() {
                process.kill();
            }
        }
        self.launch();
    }

    /// The sessions that were connected at most 20 ms ago: stories that watch for a moment at
    /// the same time share one question to the server.
    fn sessions_lately(&self) -> BTreeMap<u64, Session> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if clock::now_us() - asked.0 > 20_000 {
            *asked = (clock::now_us(), self.sessions());
        }
        asked.1.clone()
    }

    /// The sessions that are connected now.
    pub fn sessions(&self) -> BTreeMap<u64, Session> {
        let answer = self.ask("cons").unwrap_or_default();
        answer
            .lines()
            .filter_map(session_of)
            .map(|session| (session.id, session))
            .collect()
    }

    /// One connected session.
    ///
    /// # Panics
    /// If the server does not show it within 5 s.
    pub fn session(&self, id: u64) -> Session {
        clock::poll(Duration::from_secs(5), || self.sessions().remove(&id)).unwrap_or_else(|| {
            panic!(
                "the server shows no connection of session {id:#x}: {:?}",
                self.sessions()
            )
        })
    }

    /// Waits until the server has answered another request of the session, so that the caller
    /// knows its renewal to be milliseconds old.
    ///
    /// # Panics
    /// If none comes within the session's own timeout.
    pub fn next_renewal(&self, id: u64) -> Session {
        let before = self.session(id);
        let within = Duration::from_millis(before.timeout_ms);
        clock::poll(within, || {
            let now = self.sessions_lately().remove(&id)?;
            (now.answered_us > before.answered_us).then_some(now)
        })
        .unwrap_or_else(|| panic!("session {id:#x} renewed nothing in {within:?}"))
    }

    /// The ids of all sessions that have not expired, connected or not.
    pub fn tracked(&self) -> BTreeSet<u64> {
        let answer = self.ask("dump").unwrap_or_default();
        let tracker = answer
            .split("ephemeral nodes dump")
            .next()
            .unwrap_or_default();
        tracker
            .lines()
            .filter_map(|line| parse_id(line.trim()))
            .collect()
    }

    /// The sessions that the server says it has expired, with the moments by its own log.
    pub fn expiries(&self) -> Vec<(u64, i64)> {
        self.log.since(0).iter().filter_map(expiry_of).collect()
    }

    /// Waits for the server to expire the session; gives the moment by the server's own log.
    ///
    /// # Panics
    /// If it does not within the deadline.
    pub fn wait_expiry(&self, id: u64, within: Duration) -> i64 {
        self.log
            .wait(0, within, |line| {
                expiry_of(line).filter(|(expired, _)| *expired == id)
            })
            .unwrap_or_else(|| panic!("the server did not expire {id:#x} within {within:?}"))
            .1
    }

    /// Prints the end of the server's log, for a story that failed.
    pub fn report(&self) {
        eprintln!(
            "server on port {}; end of its log:\n{}",
            self.port,
            self.log_tail()
        );
    }

    fn log_tail(&self) -> String {
        text_of(&self.log.tail(25))
    }

    fn launch(&mut self) {
        let mut command = java();
        command
            .arg("-Dorg.slf4j.simpleLogger.showDateTime=true")
            .arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS")
            .arg("-cp")
            .arg(format!("{ZOOKEEPER_JAR}:{LOGGER_JAR}:{NETTY_JARS}"))
            .arg("org.apache.zookeeper.server.ZooKeeperServerMain")
            .arg(self.config_path());
        let mut process = Child::start(command);
        self.log.feed(process.take_stderr(), |at_us, text| {
            // Stack traces of clients that were killed say nothing; nor do our own questions.
            let noise = text.starts_with("\tat ") || text.contains("- Processing ");
            if noise { None } else { Line::keep(at_us, text) }
        });
        self.log.feed(process.take_stdout(), Line::keep);
        self.process = Some(process);
        let serves = clock::poll(Duration::from_secs(60), || {
            self.ask("srvr").filter(|answer| answer.contains("Mode:"))
        });
        assert!(
            serves.is_some(),
            "ZooKeeper does not serve; its log:\n{}",
            self.log_tail()
        );
    }

    fn config_path(&self) -> PathBuf {
        self.directory.path().join("zoo.cfg")
    }

    /// Sends a four-letter word; `None` if nobody answers.
    fn ask(&self, word: &str) -> Option<String> {
        let limit = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&self.address, limit).ok()?;
        stream.set_read_timeout(Some(limit)).ok()?;
        stream.write_all(word.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

impl Drop for ZooKeeper {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "server on port {}; end of its log:\n{}",
                self.port,
                self.log_tail()
            );
        }
    }
}

/// Debian's ZooKeeper; its manifest names the jars it needs.
pub const ZOOKEEPER_JAR: &str = "/usr/share/java/zookeeper.jar";
/// The logger that writes to standard error.
pub const LOGGER_JAR: &str = "/usr/share/java/slf4j-simple.jar";

/// What the secure port needs beside those that the manifest names; absent they are no harm.
const NETTY_JARS: &str = "/usr/share/java/netty-codec.jar:/usr/share/java/netty-resolver.jar:\
                          /usr/share/java/netty-transport-native-unix-common.jar";

/// A Java command that starts fast and stays small.
///
/// # Panics
/// If Debian's ZooKeeper is not installed.
pub fn java() -> Command {
    for jar in [ZOOKEEPER_JAR, LOGGER_JAR] {
        assert!(
            Path::new(jar).exists(),
            "{jar} is missing: run `cargo xtask setup`"
        );
    }
    let mut command = Command::new("java");
    command.args([
        "-Xmx128m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xshare:auto",
    ]);
    command.args(["-Duser.timezone=UTC", "-Dzookeeper.jmx.log4j.disable=true"]);
    command
}

/// A port that nobody listens on, below the kernel's ephemeral range: a client that looks for a
/// server that is down must not be given the server's own port, or it connects to itself.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap_or(0);
    for _ in 0..1_000 {
        let port = start + NEXT.fetch_add(1, Ordering::Relaxed);
        let any = (IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
        if TcpListener::bind(any).is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {start} on");
}

/// `0x1000…` as a number.
pub fn parse_id(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// One line of `cons`: ` /127.0.0.1:35174[1](queued=0,recved=2,sent=2,sid=0x…,to=6000,…)`; an
/// IPv6 address stands in brackets of its own.
fn session_of(line: &str) -> Option<Session> {
    let (head, fields) = line.trim().strip_prefix('/')?.split_once('(')?;
    let client = head.rsplit_once('[')?.0;
    let fields = fields.trim_end_matches(')');
    let fields: BTreeMap<&str, &str> = fields
        .split(',')
        .filter_map(|field| field.split_once('='))
        .collect();
    Some(Session {
        id: parse_id(fields.get("sid")?)?,
        timeout_ms: fields.get("to")?.parse().ok()?,
        client: socket_address(client)?,
        answered_us: fields.get("lresp")?.parse::<i64>().ok()? * 1_000,
        received: fields.get("recved")?.parse().ok()?,
    })
}

/// An address as Java writes it, an IPv6 one in full: `[0:0:0:0:0:0:0:1]:40222`.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.rsplit_once(':')?;
    let host: IpAddr = host.trim_matches(['[', ']']).parse().ok()?;
    Some(SocketAddr::new(host.to_canonical(), port.parse().ok()?))
}

/// `07:21:52.576 [SessionTracker] INFO … - Expiring session 0x…, timeout of 6000ms exceeded`.
fn expiry_of(line: &Line) -> Option<(u64, i64)> {
    let id = line
        .text
        .split_once("Expiring session ")?
        .1
        .split(',')
        .next()?;
    Some((parse_id(id)?, stamp_of(line)?))
}

/// A log line's own stamp (wall clock, UTC, time of day) on the monotonic clock.
fn stamp_of(line: &Line) -> Option<i64> {
    let time_of_day = line.text.split(' ').next()?;
    let (clock_time, millis) = time_of_day.split_once('.')?;
    let mut stamp_ms: i64 = 0;
    for part in clock_time.split(':') {
        stamp_ms = stamp_ms * 60 + part.parse::<i64>().ok()?;
    }
    stamp_ms = stamp_ms * 1_000 + millis.parse::<i64>().ok()?;
    let (wall_us, mono_us) = (clock::wall_us(), clock::now_us());
    let age_us = (wall_us - stamp_ms * 1_000).rem_euclid(DAY_MS * 1_000);
    Some(mono_us - age_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_read() {
        let line = " /[0:0:0:0:0:0:0:1]:35174[1](queued=0,recved=2,sent=2,sid=0x100000f17e50000,\
                    lop=GETD,est=1795504913105,to=6000,lcxid=0x6b053b11,lzxid=0x1,lresp=990179)";
        let session = session_of(line).expect("a session");
        assert_eq!(session.id, 0x100_000f_17e5_0000);
        assert_eq!(session.client, "[::1]:35174".parse().expect("an address"));
        assert_eq!(
            (session.timeout_ms, session.answered_us),
            (6_000, 990_179_000)
        );
        assert_eq!(
            session_of(" /127.0.0.1:35154[1](queued=0,recved=0,sent=0)"),
            None
        );
    }
}
