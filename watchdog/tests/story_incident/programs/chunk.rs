//! A chunk server's access lease: it renews every four seconds, has one keepalive on its way at a
//! time, and registers anew when the server has hung up on it.
//!
//! All chunk servers renew at the same seconds of the clock, a little apart, so that the age of their
//! leases is known when the disk hangs.

use super::{RENEW_US, end_with_input, frame, say};
use crate::harness::clock;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Bytes of a keepalive and of its answer.
const KEEPALIVE: usize = 93;

pub fn run(meta: &str, name: &str, offset_us: &str) {
    let offset_us: i64 = offset_us.parse().expect("an offset in µs");
    end_with_input();
    loop {
        if let Ok(stream) = TcpStream::connect(meta) {
            say("registered", name);
            let lost = hold(stream, name, offset_us);
            say(if lost.is_err() { "lost" } else { "closed" }, name);
        }
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

fn hold(mut stream: TcpStream, name: &str, offset_us: i64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = frame(name, KEEPALIVE);
    loop {
        say("sent", name);
        stream.write_all(&keepalive)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        stream.read_exact(&mut body)?;
        say("answered", name);
        let now_us = clock::now_us();
        let next_us = (now_us / RENEW_US + 1) * RENEW_US + offset_us;
        // A first one in the middle of a period is followed by one at the common second.
        clock::observe_until(next_us);
    }
}
