//! Log4j and logback layouts: ZooKeeper 3.4 to 3.9, and what embeds its Java client (HBase, Kafka,
//! Hadoop, ClickHouse's keeper in part).
//!
//! `2016-03-01 12:00:00,123 [myid:1] - INFO  [thread:Class@1299] - message` (ZooKeeper's own
//! `log4j.properties` and `logback.xml`), `2016-03-01 12:00:00,123 WARN  [thread] a.b.Class: …`
//! (HBase), `[2016-03-01 12:00:00,123] INFO … (a.b.Class)` (Kafka).

use super::{Head, Kind, Moment, Reader, bracketed, has};
use crate::explain::stamp::iso;

/// This layout.
pub const READER: Reader = Reader {
    kind: Kind::ZookeeperJava,
    name: "zookeeper-java",
    head,
    claims,
};

pub(super) fn head(line: &[u8]) -> Option<Head<'_>> {
    let open = usize::from(line.first() == Some(&b'['));
    let stamp = iso(line.get(open..)?)?;
    let mut message = open + stamp.len;
    if open == 1 {
        message += usize::from(line.get(message) == Some(&b']'));
    }
    let mut rest = line.get(message..)?;
    if let Some(mine) = memchr::memmem::find(&rest[..rest.len().min(40)], b"[myid:") {
        let close = memchr::memchr(b']', &rest[mine..])?;
        rest = &rest[mine + close + 1..];
    }
    Some(Head {
        moment: Moment::Wall(stamp),
        thread: bracketed(rest).map_or(b"".as_slice(), without_place),
        message,
    })
}

/// `thread:Class@line` without the class.
fn without_place(thread: &[u8]) -> &[u8] {
    let Some(at) = memchr::memrchr(b'@', thread) else {
        return thread;
    };
    memchr::memrchr(b':', &thread[..at]).map_or(thread, |colon| &thread[..colon])
}

fn claims(line: &[u8]) -> u32 {
    if head(line).is_none() {
        return 0;
    }
    1 + u32::from(has(line, b"[myid:")) + u32::from(has(line, b"ookeeper"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_all_layouts() {
        for (line, thread) in [
            (
                "2016-03-01 12:00:00,123 [myid:1] - INFO  [main-SendThread(localhost:2181):ClientCnxn$SendThread@1299] - x",
                "main-SendThread(localhost:2181)",
            ),
            (
                "2024-05-01 12:00:00,123 [myid:] - WARN  [QuorumPeer[myid=1](plain=0.0.0.0:2181)(secure=disabled):o.a.z.s.q.Follower@96] - x",
                "QuorumPeer[myid=1](plain=0.0.0.0:2181)(secure=disabled)",
            ),
            (
                "2014-01-01 10:00:00,123 WARN  [worker-1] zookeeper.ClientCnxn: x",
                "worker-1",
            ),
            (
                "[2020-01-01 10:00:00,123] INFO x (org.apache.zookeeper.ClientCnxn)",
                "",
            ),
        ] {
            let head = head(line.as_bytes()).unwrap();
            assert_eq!(head.thread, thread.as_bytes(), "{line}");
        }
    }
}
