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
    let start = prefix(line);
    let line = &line[start..];
    let none = |moment, message: usize| {
        Some(Head {
            moment,
            thread: b"",
            message: start + message,
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

/// `<6>` of `dmesg --raw`, `kern  :info  : ` of `dmesg --decode`.
fn prefix(line: &[u8]) -> usize {
    /// Two names of seven letters and what stands between.
    const DECODED: usize = 20;
    let mut near = line[..line.len().min(DECODED)].iter();
    if line.first() == Some(&b'<') {
        let digits = line[1..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        return if line.get(1 + digits) == Some(&b'>') {
            digits + 2
        } else {
            0
        };
    }
    if line.first().is_some_and(u8::is_ascii_lowercase) {
        let colons = near
            .by_ref()
            .enumerate()
            .filter(|(_, byte)| **byte == b':')
            .map(|(at, _)| at);
        let second = colons.take(2).last().unwrap_or(0);
        if line.get(second + 1..second + 3) == Some(b" [") {
            return second + 2;
        }
    }
    0
}

fn claims(line: &[u8]) -> u32 {
    let Some(found) = head(line) else { return 0 };
    let start = prefix(line);
    if line.get(start) == Some(&b'[') {
        // A unified JVM log begins with uptime or time in brackets too, and goes on with "[".
        let close = memchr::memchr(b']', line).map_or(0, |close| close + 1);
        let threads = line.get(close..close + 3) == Some(b" [ ");
        return 3 * u32::from(line.get(close) == Some(&b' ') || threads);
    }
    let message = &line[found.message..];
    if has(message, b" kernel: ") {
        return 4;
    }
    // `dmesg --time-format=iso` says nowhere that it is the kernel that speaks.
    let own: [&[u8]; 17] = [
        b" INFO: task ",
        b" Linux version ",
        b" Command line: ",
        b" systemd[1]:",
        b" EXT4-fs",
        b" XFS (",
        b" JBD2: ",
        b" nvme ",
        b" blk_update_request",
        b" I/O error, dev ",
        b" watchdog: ",
        b" rcu: ",
        b" Call Trace:",
        b" Out of memory: ",
        b" Memory cgroup out of memory",
        b" ata",
        b" audit: ",
    ];
    3 * u32::from(own.iter().any(|needle| message.starts_with(needle)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dmesg_and_syslog_write() {
        for (line, wall) in [
            ("[123456.789012] INFO: task x:1 blocked", false),
            ("[    1.789012] [  T123] INFO: task x:1 blocked", false),
            ("<4>[123456.789012] INFO: task x:1 blocked", false),
            (
                "kern  :err   : [123456.789012] INFO: task x:1 blocked",
                false,
            ),
            (
                "kern  :warn  : [Fri Nov  4 22:36:43 2022] INFO: task x:1 blocked",
                true,
            ),
            ("[Fri Nov  4 22:36:43 2022] INFO: task x:1 blocked", true),
            (
                "2022-11-04T22:36:43,020000+08:00 INFO: task x:1 blocked",
                true,
            ),
            (
                "Nov  4 22:36:43 n1 kernel: [1.5] INFO: task x:1 blocked",
                true,
            ),
            (
                "2022-11-04T22:36:43.020+08:00 n1 kernel: INFO: task x:1 blocked",
                true,
            ),
        ] {
            let found = head(line.as_bytes()).unwrap();
            assert_eq!(matches!(found.moment, Moment::Wall(_)), wall, "{line}");
            assert!(claims(line.as_bytes()) >= 3, "{line}");
        }
        assert!(head(b"INFO: task x:1 blocked").is_none());
    }
}
