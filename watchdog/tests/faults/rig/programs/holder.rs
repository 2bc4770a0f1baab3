//! A holder with one I/O thread: it pings at T/3, and does its work before each ping and, if it has a
//! pace, in between. Whoever holds up the work holds up the lease.

use super::say;
use super::wire;
use super::work::{Habit, Work};
use crate::harness::clock;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Set by a line on standard input.
static GO: AtomicBool = AtomicBool::new(false);

pub fn run(server: &str, timeout_ms: &str, habit: &str, file: &str, pace_ms: &str) {
    let habit = Habit::named(habit).expect("a known habit");
    let timeout_ms = timeout_ms.parse().expect("a timeout in ms");
    let pace_us: i64 = pace_ms.parse::<i64>().expect("a pace in ms") * 1_000;
    let mut work = Work::new(habit, file, &GO);
    if habit == Habit::Thrash {
        // All pages come in once before there is a lease to lose.
        work.once();
    }
    let mut stream = TcpStream::connect(server).expect("the server is there");
    stream.set_nodelay(true).expect("a TCP socket");
    let (timeout_ms, id) = wire::open(&mut stream, timeout_ms).expect("a session");
    let ping_every_us = i64::from(timeout_ms) * 1_000 / 3;
    say("connected", id);
    std::thread::spawn(|| {
        for _line in std::io::stdin().lines().map_while(Result::ok) {
            GO.store(true, Ordering::Release);
        }
        std::process::exit(0);
    });
    let mut sent_us = clock::now_us();
    let mut worked_us = sent_us;
    let mut xid = 0;
    loop {
        let ping_due = sent_us + ping_every_us;
        let work_due = if pace_us > 0 {
            worked_us + pace_us
        } else {
            i64::MAX
        };
        match wait(&mut stream, ping_due.min(work_due)) {
            Wait::Due => {}
            Wait::Heard => continue,
            Wait::Ended => {
                say("disconnected", id);
                // The session is lost, and the process goes on, as daemons do.
                loop {
                    std::thread::park();
                }
            }
        }
        say("begin", id);
        let requests = work.once();
        say("end", id);
        worked_us = clock::now_us();
        let mut out = Vec::new();
        for _ in 0..requests.small {
            xid += 1;
            out.extend(wire::exists(xid));
        }
        for _ in 0..requests.large {
            xid += 1;
            out.extend(wire::set_data(xid, 60_000));
        }
        if worked_us >= ping_due && out.is_empty() {
            out.extend(wire::ping());
        }
        if out.is_empty() {
            continue;
        }
        sent_us = clock::now_us();
        if stream.write_all(&out).is_err() {
            say("disconnected", id);
            loop {
                std::thread::park();
            }
        }
        say("sent", id);
    }
}

enum Wait {
    Due,
    Heard,
    Ended,
}

/// Reads what comes, until there is something to do.
fn wait(stream: &mut TcpStream, until_us: i64) -> Wait {
    let left = until_us - clock::now_us();
    if left <= 0 {
        return Wait::Due;
    }
    let left = Duration::from_micros(left.unsigned_abs().max(1_000));
    stream.set_read_timeout(Some(left)).expect("a TCP socket");
    let mut buffer = [0; 65_536];
    match stream.read(&mut buffer) {
        Ok(0) => Wait::Ended,
        Ok(_) => Wait::Heard,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Wait::Due
        }
        Err(error) if error.kind() == ErrorKind::Interrupted => Wait::Heard,
        Err(_) => Wait::Ended,
    }
}

/// Opens and closes `count` sessions, one after the other, spread over `seconds`.
pub fn churn(server: &str, timeout_ms: &str, count: &str, seconds: &str) {
    let timeout_ms = timeout_ms.parse().expect("a timeout in ms");
    let count: i64 = count.parse().expect("a count");
    let span: i64 = seconds.parse::<i64>().expect("seconds") * clock::SECOND;
    let start = clock::now_us();
    for number in 0..count {
        clock::observe_until(start + span * number / count);
        let mut stream = TcpStream::connect(server).expect("the server is there");
        let (_, id) = wire::open(&mut stream, timeout_ms).expect("a session");
        stream.write_all(&wire::ping()).expect("a ping");
        drop(wire::read_frame(&mut stream));
        stream.write_all(&wire::close(1)).expect("a close");
        drop(wire::read_frame(&mut stream));
        say("closed", id);
    }
}
