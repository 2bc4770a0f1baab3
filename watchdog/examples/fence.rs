//! A leader that fences itself: it holds a ZooKeeper session, works only while that is good, and stops
//! *before* it may be expired, whatever its own client knows.
//!
//! ```text
//! cargo run --example fence -- 127.0.0.1:2181 /run/lease-watchdog/api.sock
//! ```
//!
//! It asks lease-watchdog on its Unix socket, which knows by the kernel's word who asks. Two things fence
//! it: the answer "at risk", and the time that the newest answer gave it running out. So it is safe too if
//! the daemon dies or hangs; where nobody has ever answered it says so, and has only its own client.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A wait's length: so old the newest answer is at most.
const WAIT: Duration = Duration::from_secs(1);
/// Between two questions while it is fenced, or nobody answers.
const AGAIN: Duration = Duration::from_millis(200);
/// Between two pieces of work.
const WORK_EVERY: Duration = Duration::from_millis(50);

/// Whether to work.
#[derive(Debug)]
enum Standing {
    /// No answer yet, or no lease is seen: not safe to begin.
    Unknown,
    /// Good at least until then.
    GoodUntil(Instant),
    /// At risk, or gone.
    Fenced,
}

#[expect(
    clippy::disallowed_methods,
    reason = "an example of another program, which has a clock of its own"
)]
fn now() -> Instant {
    Instant::now()
}

/// Asks for this process's own leases; with `wait` the answer comes at once when one is at risk.
fn ask(socket: &Path, wait: bool) -> io::Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(WAIT * 2))?;
    stream.set_write_timeout(Some(WAIT))?;
    let query = if wait {
        format!("?wait=at_risk&timeout={}", WAIT.as_secs())
    } else {
        String::new()
    };
    // HTTP/1.0: the body ends with the connection.
    stream
        .write_all(format!("GET /api/v1/mine{query} HTTP/1.0\r\nHost: lease\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(1 << 20).read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::InvalidData)?;
    // 503: nobody watches.
    if head.split(' ').nth(1) != Some("200") {
        return Err(io::Error::other(
            head.lines().next().unwrap_or_default().to_owned(),
        ));
    }
    Ok(serde_json::from_str(body)?)
}

/// What an answer to a question asked at `asked` means.
fn standing(answer: &Value, asked: Instant) -> Standing {
    let stage = answer["stage"].as_str();
    let ended = answer["gone"]
        .as_array()
        .is_some_and(|gone| !gone.is_empty());
    let good = match (stage, answer["remaining_ms"].as_i64()) {
        (Some("healthy" | "late"), Some(left)) => u64::try_from(left).ok(),
        _ => None,
    };
    match (stage, good) {
        (None, _) if !ended => Standing::Unknown,
        // Counted from before the question: never too long.
        (_, Some(left)) if !ended => Standing::GoodUntil(asked + Duration::from_millis(left)),
        _ => Standing::Fenced,
    }
}

/// Keeps the standing up to date, for ever.
fn guard(socket: &Path, shared: &Mutex<Standing>) {
    let mut silent = false;
    loop {
        let is_good = matches!(
            *shared.lock().unwrap_or_else(PoisonError::into_inner),
            Standing::GoodUntil(_)
        );
        let asked = now();
        match ask(socket, is_good) {
            Ok(answer) => {
                silent = false;
                let new = standing(&answer, asked);
                *shared.lock().unwrap_or_else(PoisonError::into_inner) = new;
            }
            Err(error) if !silent => {
                silent = true;
                say(&format!("nobody watches: {error}"));
            }
            Err(_) => {}
        }
        if silent || !is_good {
            std::thread::park_timeout(AGAIN);
        }
    }
}

/// Works while the standing is good; says when that changes.
fn work(shared: &Mutex<Standing>) {
    let mut working = false;
    loop {
        let good = match *shared.lock().unwrap_or_else(PoisonError::into_inner) {
            Standing::GoodUntil(until) => now() < until,
            Standing::Unknown | Standing::Fenced => false,
        };
        match (good, working) {
            (true, false) => say("leading"),
            (false, true) => say("fenced"),
            _ => {}
        }
        working = good;
        if working {
            say("work");
        }
        std::thread::park_timeout(WORK_EVERY);
    }
}

fn say(what: &str) {
    println!("{what}");
}

/// Holds a session of `servers` and works under it, until the process ends.
///
/// # Errors
/// No session can be had.
pub fn run(servers: &str, socket: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let connector = zookeeper_client::Client::connector();
    let client = runtime.block_on(
        connector
            .with_session_timeout(Duration::from_secs(6))
            .connect(servers),
    )?;
    say(&format!("session {:#x}", client.session_id().0));
    let shared = Arc::new(Mutex::new(Standing::Unknown));
    let (theirs, place) = (Arc::clone(&shared), socket.to_owned());
    std::thread::spawn(move || guard(&place, &theirs));
    work(&shared);
    Ok(())
}

#[cfg_attr(
    test,
    expect(dead_code, reason = "the story runs it as a part of itself")
)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let servers = arguments.next().unwrap_or("127.0.0.1:2181".to_owned());
    let socket = arguments
        .next()
        .unwrap_or("/run/lease-watchdog/api.sock".to_owned());
    run(&servers, Path::new(&socket))
}
