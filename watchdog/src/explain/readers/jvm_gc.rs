//! The JVM's garbage collection log: unified (`-Xlog:gc*,safepoint`, since 9) and older
//! (`-XX:+PrintGCDetails -XX:+PrintGCDateStamps -XX:+PrintGCApplicationStoppedTime`).

use super::{Head, Kind, Moment, Reader, has};
use crate::explain::stamp::{iso, seconds};

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
    } else {
        let (uptime, len) = seconds(inner)?;
        (Moment::Uptime(uptime), len)
    };
    Some(Head {
        moment,
        thread: b"",
        message: open + len,
    })
}

fn claims(line: &[u8]) -> u32 {
    if head(line).is_none() {
        return 0;
    }
    let speaks = [
        b"[gc".as_slice(),
        b"[safepoint",
        b": [GC",
        b": [Full GC",
        b"application threads were stopped",
    ];
    5 * u32::from(speaks.iter().any(|needle| has(line, needle)))
}
