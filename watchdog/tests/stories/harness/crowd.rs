//! A server with thousands of sessions, one thread that serves them all, and a process that holds
//! them: raw sockets that speak ZooKeeper's protocol and no more of it than sessions need.
//!
//! Both are this test binary run again with [`ROLE`] set. In: their standard input, whose end ends
//! them. Out: a line `listening PORT`, `open COUNT`.

use super::clock;
use super::group::Group;
use super::process::Child;
use super::transcript::{Line, Transcript};
use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;

/// What the process is to be: `grant`, `grant gently`, `hold PORT COUNT`, `visit PORT COUNT SECONDS`,
/// `again PORT COUNT`, `flood PORT COUNT`, or `burst PORT COUNT`.
const ROLE: &str = "LEASE_STORY_CROWD";
/// The name of [`process`] among the tests.
const TEST_NAME: &str = "harness::crowd::process";
/// Every session's timeout.
pub const TIMEOUT: Duration = Duration::from_secs(12);
/// Connections that are being opened at once.
const OPENING: usize = 64;

/// A ConnectRequest that asks for [`TIMEOUT`].
const CONNECT: usize = 49;
const CONNECTED: usize = 41;
const PING: [u8; 12] = *b"\0\0\0\x08\xff\xff\xff\xfe\0\0\0\x0b";
const PONG: [u8; 20] = *b"\0\0\0\x10\xff\xff\xff\xfe\0\0\0\0\0\0\0\x05\0\0\0\0";
/// closeSession, and its answer's length.
const CLOSE: [u8; 12] = *b"\0\0\0\x08\0\0\0\x01\xff\xff\xff\xf5";

fn timeout_ms() -> [u8; 4] {
    i32::try_from(TIMEOUT.as_millis())
        .expect("a short timeout")
        .to_be_bytes()
}

/// Not a story: the processes themselves. Without [`ROLE`] in its environment it does nothing.
#[test]
fn process() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    std::thread::spawn(|| {
        drop(io::stdin().read_to_end(&mut Vec::new()));
        std::process::exit(0);
    });
    as_many_descriptors_as_there_are();
    let words: Vec<&str> = role.split(' ').collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        match words[..] {
            ["grant"] => serve().await,
            ["grant", "gently"] => {
                give_way();
                serve().await;
            }
            ["hold", port, count] => hold_all(number(port), number(count)).await,
            ["visit", port, count, seconds] => {
                visit_all(number(port), number(count), number(seconds)).await;
            }
            ["flood", port, count] => {
                give_way();
                flood_all(number(port), number(count)).await;
            }
            ["burst", port, count] => burst(number(port), number(count)),
            ["again", port, count] => open_again(number(port), number(count)).await,
            _ => panic!("no such role: {role}"),
        }
    });
}

fn number(word: &str) -> u32 {
    word.parse().expect("a number")
}

/// A storm takes what CPU time there is: not from the stories beside it.
fn give_way() {
    // SAFETY: three numbers; of this thread alone.
    let status = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
    assert_eq!(status, 0, "nice 19: {}", io::Error::last_os_error());
}

fn as_many_descriptors_as_there_are() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: valid places to write to and read from.
    let status = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    };
    assert_eq!(status, 0, "RLIMIT_NOFILE: {}", io::Error::last_os_error());
}

async fn serve() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    println!("listening {port}");
    let mut session = 0x0200_0000_0000_0000;
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        session += 1;
        tokio::spawn(grant(stream, session));
    }
}

async fn grant(mut stream: TcpStream, session: u64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.read_exact(&mut [0; CONNECT]).await?;
    let mut granted = [0; CONNECTED];
    granted[3] = 37;
    granted[8..12].copy_from_slice(&timeout_ms());
    granted[12..20].copy_from_slice(&session.to_be_bytes());
    granted[23] = 16;
    stream.write_all(&granted).await?;
    let mut request = [0; PING.len()];
    loop {
        stream.read_exact(&mut request).await?;
        let mut answer = PONG;
        answer[4..8].copy_from_slice(&request[4..8]);
        stream.write_all(&answer).await?;
        if request == CLOSE {
            return Ok(());
        }
    }
}

async fn open(port: u32) -> io::Result<TcpStream> {
    let port = u16::try_from(port).expect("a port");
    shake_hands(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?).await
}

async fn shake_hands(mut stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.write_all(&wish()).await?;
    stream.read_exact(&mut [0; CONNECTED]).await?;
    Ok(stream)
}

/// A ConnectRequest.
fn wish() -> [u8; CONNECT] {
    let mut wish = [0; CONNECT];
    wish[3] = 45;
    wish[16..20].copy_from_slice(&timeout_ms());
    wish[31] = 16;
    wish
}

async fn hold_all(port: u32, count: u32) {
    let opening = std::sync::Arc::new(Semaphore::new(OPENING));
    let mut sessions = Vec::new();
    for _ in 0..count {
        let room = std::sync::Arc::clone(&opening)
            .acquire_owned()
            .await
            .expect("never closed");
        sessions.push(tokio::spawn(async move {
            let stream = open(port).await;
            drop(room);
            stream
        }));
    }
    for session in sessions {
        let stream = session.await.expect("no panic").expect("a session");
        tokio::spawn(hold(stream));
    }
    println!("open {count}");
    std::future::pending::<()>().await;
}

async fn hold(mut stream: TcpStream) -> io::Result<()> {
    loop {
        tokio::time::sleep(TIMEOUT / 3).await;
        stream.write_all(&PING).await?;
        stream.read_exact(&mut [0; PONG.len()]).await?;
    }
}

/// Opens so many sessions, each of which pings as fast as it can.
async fn flood_all(port: u32, count: u32) {
    for _ in 0..count {
        let (mut answers, mut pings) = open(port).await.expect("a session").into_split();
        tokio::spawn(async move { while matches!(answers.read(&mut [0; 4096]).await, Ok(1..)) {} });
        tokio::spawn(async move {
            // A packet each; the others have their turn whenever one has to wait for room.
            while pings.write_all(&PING).await.is_ok() {}
        });
    }
    println!("open {count}");
    std::future::pending::<()>().await;
}

/// Opens so many sessions one after the other from the same port, each reset by the holder.
async fn open_again(port: u32, count: u32) {
    let to = (Ipv4Addr::LOCALHOST, u16::try_from(port).expect("a port"));
    let mut own = (Ipv4Addr::LOCALHOST, 0).into();
    for _ in 0..count {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("a socket option");
        socket.bind(own).expect("the port is free again");
        own = socket.local_addr().expect("it is bound");
        let stream = socket.connect(to.into()).await.expect("it listens");
        let stream = shake_hands(stream).await.expect("a session");
        stream.set_zero_linger().expect("a socket option");
    }
    println!("open {}", own.port());
    std::future::pending::<()>().await;
}

/// Processes of a burst that live at once.
const ALIVE: u32 = 100;

/// So many processes, each with a session of its own for as long as it lives: some milliseconds.
fn burst(port: u32, count: u32) {
    give_way();
    let mut alive = 0;
    for _ in 0..count {
        if alive == ALIVE {
            alive -= u32::from(one_has_ended());
        }
        // SAFETY: the child talks to one socket and ends without going back to what the other threads share.
        match unsafe { libc::fork() } {
            0 => {
                let spoke = speak_once(port).is_ok();
                // SAFETY: takes a number and does not return.
                unsafe { libc::_exit(i32::from(!spoke)) };
            }
            pid => {
                assert!(pid > 0, "no process: {}", io::Error::last_os_error());
                alive += 1;
            }
        }
    }
    while alive > 0 {
        alive -= u32::from(one_has_ended());
    }
    println!("open {count}");
}

/// A session, a ping and its answer.
fn speak_once(port: u32) -> io::Result<()> {
    let port = u16::try_from(port).expect("a port");
    let mut stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.write_all(&wish())?;
    stream.read_exact(&mut [0; CONNECTED])?;
    stream.write_all(&PING)?;
    stream.read_exact(&mut [0; PONG.len()])
}

/// Waits for a child, which must have done its part.
fn one_has_ended() -> bool {
    let mut status = 0;
    // SAFETY: a valid place to write to.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, 0) };
    assert!(pid > 0 && status == 0, "a child ended with {status}");
    true
}

/// Opens and ends so many connections, evenly over a time: one in five never says a word, one is
/// reset in the middle of a handshake, one is half closed, the others come and go as they should.
async fn visit_all(port: u32, count: u32, seconds: u32) {
    let begin_us = clock::now_us();
    let opening = std::sync::Arc::new(Semaphore::new(4 * OPENING));
    for visit in 0..count {
        let due_us =
            begin_us + i64::from(visit) * i64::from(seconds) * clock::SECOND / i64::from(count);
        let wait_us = due_us - clock::now_us();
        if wait_us > 0 {
            tokio::time::sleep(Duration::from_micros(wait_us.unsigned_abs())).await;
        }
        let room = std::sync::Arc::clone(&opening)
            .acquire_owned()
            .await
            .expect("never closed");
        tokio::spawn(async move {
            drop(visit_once(port, visit).await);
            drop(room);
        });
    }
    let all = u32::try_from(4 * OPENING).expect("few");
    drop(opening.acquire_many(all).await);
    println!("open {count}");
    std::future::pending::<()>().await;
}

async fn visit_once(port: u32, visit: u32) -> io::Result<()> {
    let to = (Ipv4Addr::LOCALHOST, u16::try_from(port).expect("a port"));
    match visit % 5 {
        0 => drop(TcpStream::connect(to).await?),
        1 => {
            let mut stream = TcpStream::connect(to).await?;
            stream.write_all(&[0, 0, 0, 45, 0, 0]).await?;
            stream.set_zero_linger()?;
        }
        2 => {
            let mut stream = open(port).await?;
            stream.shutdown().await?;
            drop(stream.read(&mut [0; 64]).await);
        }
        _ => {
            let mut stream = open(port).await?;
            stream.write_all(&CLOSE).await?;
            stream.read_exact(&mut [0; PONG.len()]).await?;
        }
    }
    Ok(())
}

/// One of the processes. Killed when dropped.
#[derive(Debug)]
pub struct Crowd {
    child: Child,
    said: Transcript<Line>,
}

impl Crowd {
    /// A server; gives its port too.
    ///
    /// # Panics
    /// If it does not listen within 30 s.
    pub fn server() -> (Self, u16) {
        Self::start("grant").listening()
    }

    /// A server that takes no CPU time from others.
    ///
    /// # Panics
    /// As [`Crowd::server`].
    pub fn gentle_server() -> (Self, u16) {
        Self::start("grant gently").listening()
    }

    fn listening(self) -> (Self, u16) {
        let port = self.wait("listening ", Duration::from_secs(30));
        (self, u16::try_from(port).expect("a port"))
    }

    /// Holders of `count` sessions, once all are granted.
    ///
    /// # Panics
    /// If that takes longer than two minutes.
    pub fn holders(port: u16, count: u32) -> Self {
        let holders = Self::start(&format!("hold {port} {count}"));
        holders.wait("open ", Duration::from_secs(120));
        holders
    }

    /// Holders of `count` sessions that ping as fast as they can without taking CPU time from others, once
    /// all are granted.
    ///
    /// # Panics
    /// If that takes longer than a minute.
    pub fn flood(port: u16, count: u32) -> Self {
        let flood = Self::start(&format!("flood {port} {count}"));
        flood.wait("open ", Duration::from_secs(60));
        flood
    }

    /// So many connections that come and go within `seconds`, once all have gone.
    ///
    /// # Panics
    /// If it takes a minute longer.
    pub fn visits(port: u16, count: u32, seconds: u32) -> Self {
        let visits = Self::start(&format!("visit {port} {count} {seconds}"));
        visits.wait("open ", Duration::from_secs(u64::from(seconds) + 60));
        visits
    }

    /// So many processes with a session each, few at once, in a group that holds no more than that; once all
    /// have ended.
    ///
    /// # Panics
    /// If it takes longer than a minute.
    pub fn burst(port: u16, count: u32, group: &Group) -> Self {
        group.bound(2 * ALIVE);
        let burst = Self::started(&format!("burst {port} {count}"), &group.enter());
        burst.wait("open ", Duration::from_secs(60));
        burst
    }

    /// So many sessions, one after the other, from one port, which it gives too.
    ///
    /// # Panics
    /// If it takes longer than a minute.
    pub fn again(port: u16, count: u32) -> (Self, u16) {
        let again = Self::start(&format!("again {port} {count}"));
        let own = again.wait("open ", Duration::from_secs(60));
        (again, u16::try_from(own).expect("a port"))
    }

    fn start(role: &str) -> Self {
        Self::started(role, "exec \"$@\"")
    }

    /// `enter` are words for a shell that end in what it is given.
    fn started(role: &str, enter: &str) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", enter, "sh"]);
        command.arg(std::env::current_exe().expect("a test knows its binary"));
        command
            .args(["--exact", TEST_NAME, "--nocapture"])
            .env(ROLE, role);
        let mut child = Child::start(command);
        let said = Transcript::new();
        said.feed(child.take_stdout(), Line::keep);
        said.feed(child.take_stderr(), Line::keep);
        Self { child, said }
    }

    fn wait(&self, word: &str, within: Duration) -> u32 {
        let found = self.said.wait(0, within, |line| {
            line.text.split_once(word)?.1.trim().parse().ok()
        });
        found.unwrap_or_else(|| panic!("nobody said {word:?}: {:?}", self.said.tail(10)))
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.pid()
    }
}
