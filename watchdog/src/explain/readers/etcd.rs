//! etcd: JSON of zap since 3.4, `2019-03-01 12:00:00.123456 W | package: message` before (capnslog).
//!
//! etcd names no threads.

use super::{Head, Kind, Moment, Reader, has};
use crate::explain::stamp::iso;

/// This layout.
pub const READER: Reader = Reader {
    kind: Kind::Etcd,
    name: "etcd",
    head,
    claims,
};

fn head(line: &[u8]) -> Option<Head<'_>> {
    let (stamp, message) = if line.first() == Some(&b'{') {
        let at = memchr::memmem::find(&line[..line.len().min(120)], b"\"ts\":\"")? + 6;
        (iso(&line[at..])?, 0)
    } else {
        let stamp = iso(line)?;
        (stamp, stamp.len)
    };
    Some(Head {
        moment: Moment::Wall(stamp),
        thread: b"",
        message,
    })
}

fn claims(line: &[u8]) -> u32 {
    if head(line).is_none() {
        return 0;
    }
    if line[0] == b'{' {
        return 4;
    }
    4 * u32::from(has(&line[..line.len().min(40)], b" | "))
}
