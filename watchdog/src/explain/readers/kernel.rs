//! The kernel's log: `dmesg` (seconds since boot), `dmesg -T`, `dmesg --time-format=iso`, syslog and
//! `journalctl -k`.
//!
//! The "thread" is empty: the ring buffer has no threads that a silence could speak of.

use super::{Head, Kind, Moment, Reader, has};
use crate::explain::stamp::{ctime, iso, seconds, syslog};

/// This layout.
pub const READER: Reader = Reader {
    kind: Kind::Kernel,
    name: "kernel",
    head,
    claims,
};

fn head(line: &[u8]) -> Option<Head<'_>> {
    let none = |moment, message| {
        Some(Head {
            moment,
            thread: b"",
            message,
        })
    };
    if line.first() == Some(&b'[') {
        let blanks = line[1..].iter().take_while(|byte| **byte == b' ').count();
        let inner = &line[1 + blanks..];
        if let Some((uptime, taken)) = seconds(inner) {
            return none(Moment::Uptime(uptime), 1 + blanks + taken);
        }
        let stamp = ctime(inner)?;
        return none(Moment::Wall(stamp), 1 + blanks + stamp.len);
    }
    let stamp = syslog(line).or_else(|| iso(line))?;
    none(Moment::Wall(stamp), stamp.len)
}

fn claims(line: &[u8]) -> u32 {
    let Some(found) = head(line) else { return 0 };
    if line.first() == Some(&b'[') {
        // A unified JVM log begins with uptime or time in brackets too, and goes on with "[".
        let close = memchr::memchr(b']', line).map_or(0, |close| close + 1);
        return 3 * u32::from(line.get(close) == Some(&b' '));
    }
    4 * u32::from(has(&line[found.message..], b" kernel: "))
}
