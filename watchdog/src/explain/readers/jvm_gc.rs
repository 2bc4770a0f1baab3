//! The JVM's garbage collection log: unified (`-Xlog:gc*,safepoint`, since 9, whatever decorations) and older
//! (`-XX:+PrintGCDetails -XX:+PrintGCDateStamps -XX:+PrintGCApplicationStoppedTime`).

use super::{Head, Kind, Moment, Reader, has};
use crate::explain::stamp::{Stamp, digits, iso, seconds};
use crate::explain::wall::MS;

/// This layout.
pub const READER: Reader = Reader {
    kind: Kind::JvmGc,
    name: "jvm-gc",
    head,
    claims,
};

fn head(line: &[u8]) -> Option<Head<'_>> {
    let open = usize::from(line.first() == Some(&b'['));
    let inner = line.get(open..)?;
    let (moment, len) = if let Some(stamp) = iso(inner) {
        (Moment::Wall(stamp), stamp.len)
    } else if let Some((uptime, len)) = seconds(inner) {
        (Moment::Uptime(uptime), len)
    } else {
        counted(inner)?
    };
    Some(Head {
        moment,
        thread: b"",
        message: open + len,
    })
}

/// `1667572603020ms` since 1970 (decoration `timemillis`), `1234ms` and `1234567890ns` since the start.
fn counted(bytes: &[u8]) -> Option<(Moment, usize)> {
    /// No process runs for so long: thirty years.
    const SINCE_1970_MS: i64 = 1_000_000_000_000;
    let count = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if !(1..=15).contains(&count) {
        return None;
    }
    let number = digits(bytes, 0, count)?;
    let moment = match bytes.get(count..count + 3)? {
        b"ms]" if number >= SINCE_1970_MS => Moment::Wall(Stamp::of_unix_us(number * 1000)?),
        b"ms]" => Moment::Uptime(number * MS),
        b"ns]" => Moment::Uptime(number),
        _ => return None,
    };
    Some((moment, count + 2))
}

fn claims(line: &[u8]) -> u32 {
    if head(line).is_none() {
        return 0;
    }
    let speaks = [
        b"[gc".as_slice(),
        b"[safepoint",
        b"] GC(",
        b": [GC",
        b": [Full GC",
        b"application threads were stopped",
    ];
    5 * u32::from(speaks.iter().any(|needle| has(line, needle)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decorations() {
        for (line, moment) in [
            (
                "[2022-11-04T22:36:43.020+0800][info][gc] GC(1) Pause",
                "wall",
            ),
            (
                "[2022-11-04T22:36:43.020+0800][12.345s][7][info][gc,start] GC(1) Pause",
                "wall",
            ),
            ("[1667572603020ms][info][gc] GC(1) Pause", "wall"),
            ("[12.345s][info][safepoint] Safepoint", "uptime"),
            ("[12345ms][info][gc] GC(1) Pause", "uptime"),
            ("[12345678901ns][info][gc] GC(1) Pause", "uptime"),
            (
                "2015-05-26T14:45:37.987-0200: 151.126: [GC (Allocation Failure) x",
                "wall",
            ),
            ("151.126: [Full GC (Ergonomics) x", "uptime"),
        ] {
            let found = head(line.as_bytes()).unwrap().moment;
            assert_eq!(matches!(found, Moment::Wall(_)), moment == "wall", "{line}");
            assert_eq!(claims(line.as_bytes()), 5, "{line}");
        }
        assert!(head(b"[info][gc] GC(1) Pause").is_none());
    }
}
