//! The programs that this binary becomes when its first argument names one.
//!
//! Out: `@ MONO_US WORD NAME` a line. In: the end of standard input ends them.
//!
//! The access lease's keepalive is opaque to whoever watches: a frame is a length (4 bytes, little
//! endian, not counting itself) and so many bytes; each request has one answer; an answer renews.

mod chunk;
mod meta;

use crate::harness::{clock, rust_client};
use crate::rig::switch;
use std::io::Write as _;

/// The access lease's length.
pub const LEASE_US: i64 = 12_000_000;
/// How often a chunk server renews it.
pub const RENEW_US: i64 = 4_000_000;

/// Becomes the program that the first argument names, and says at its end that it was one.
pub fn run_if_asked() -> bool {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [switch::PROGRAM, limit, undo] => switch::run(limit, undo),
        ["meta", listen, zookeeper, log] => {
            be_called(c"meta");
            meta::run(listen, zookeeper, log);
        }
        ["chunk", meta, name, offset_us] => {
            be_called(c"chunk");
            chunk::run(meta, name, offset_us);
        }
        _ => return rust_client::run_if_asked(),
    }
    true
}

/// Names the process, as the events show it.
fn be_called(name: &std::ffi::CStr) {
    // SAFETY: the name is a string that lives for good; the kernel copies it.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Says a line at once: a program that stops must have said so before.
fn say(word: &str, name: &str) {
    let line = format!("@ {} {word} {name}\n", clock::now_us());
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

/// A frame with a body of `size` bytes that begins with a name.
fn frame(name: &str, size: usize) -> Vec<u8> {
    let mut body = vec![0x5a; size];
    body[..name.len()].copy_from_slice(name.as_bytes());
    body[name.len()] = 0;
    let length = u32::try_from(size).expect("a small frame");
    [&length.to_le_bytes()[..], &body].concat()
}

/// The name at the beginning of a body.
fn name_in(body: &[u8]) -> String {
    let end = body.iter().position(|byte| *byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&body[..end]).into_owned()
}

/// Ends the process with its standard input.
fn end_with_input() {
    std::thread::spawn(|| {
        for _line in std::io::stdin().lines().map_while(Result::ok) {}
        std::process::exit(0);
    });
}
