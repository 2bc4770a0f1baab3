//! The small programs that this binary becomes when its first argument names one: a holder of a
//! ZooKeeper session whose I/O thread does more than it should, a grantor that stops reading, a hog.
//!
//! Out: `@ MONO_US WORD ID` a line, as the harness's clients say it; `begin` and `end` stand around
//! what a fault may hold up, and so prove that it did. In: a line on standard input sets the fault
//! off, where the program itself is the fault.

mod grantor;
mod holder;
mod load;
mod wire;
mod work;

pub use work::{Habit, MAPPED_BYTES};

use super::switch;
use crate::harness::clock;
use std::io::Write as _;

/// Becomes the program that the first argument names; returns if it names none.
pub fn run_if_asked() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [switch::PROGRAM, limit, undo] => switch::run(limit, undo),
        ["holder", server, timeout_ms, habit, file, pace_ms] => {
            holder::run(server, timeout_ms, habit, file, pace_ms);
        }
        ["grantor", listen, timeout_ms] => grantor::run(listen, timeout_ms),
        ["churn", server, timeout_ms, count, seconds] => {
            holder::churn(server, timeout_ms, count, seconds);
        }
        ["hog"] => loop {
            std::hint::spin_loop();
        },
        ["crowd", count] => load::crowd(count),
        ["switches", pairs] => load::switches(pairs),
        ["fsyncs", file, count] => load::fsyncs(file, count),
        _ => return,
    }
    std::process::exit(0);
}

/// Says a line at once: a program that stops must have said so before.
fn say(word: &str, id: u64) {
    let line = format!("@ {} {word} {id:#x}\n", clock::now_us());
    let mut out = std::io::stdout().lock();
    if out
        .write_all(line.as_bytes())
        .and_then(|()| out.flush())
        .is_err()
    {
        // Nobody listens any more: the test is gone.
        std::process::exit(0);
    }
}
