//! Log4j and logback layouts: ZooKeeper 3.4 to 3.9, and what embeds its Java client (HBase, Kafka, Hadoop,
//! Solr, Pulsar, Curator, Spring), and whatever else begins its lines with a level and a stamp.
//!
//! `2016-03-01 12:00:00,123 [myid:1] - INFO  [thread:Class@1299] - message` (ZooKeeper's own
//! `log4j.properties` and `logback.xml`), `2016-03-01 12:00:00,123 WARN  [thread] a.b.Class: …` (HBase),
//! `[2016-03-01 12:00:00,123] INFO … (a.b.Class)` (Kafka), `2016-03-01 12:00:00.123 WARN  (thread) [ ] …` (Solr),
//! `INFO [2016-03-01 12:00:00,123] …` (Dropwizard), `time="2016-03-01T12:00:00Z" level=info …` (logfmt).

use super::{Head, Kind, Moment, Reader, bracketed, has};
use crate::explain::stamp::{Stamp, iso, loose};

/// This layout.
pub const READER: Reader = Reader {
    kind: Kind::ZookeeperJava,
    name: "zookeeper-java",
    head,
    claims,
};

pub(super) fn head(line: &[u8]) -> Option<Head<'_>> {
    let (stamp, start) = stamp(line)?;
    let mut message = start + stamp.len;
    if start > 0 {
        message += usize::from(matches!(line.get(message), Some(b']' | b'"')));
    }
    let mut rest = line.get(message..)?;
    if let Some(mine) = memchr::memmem::find(&rest[..rest.len().min(40)], b"[myid:") {
        let close = memchr::memchr(b']', &rest[mine..])?;
        rest = &rest[mine + close + 1..];
    }
    Some(Head {
        moment: Moment::Wall(stamp),
        thread: thread(rest),
        message,
    })
}

/// The stamp, and where it begins: behind a bracket, a level, a key of logfmt.
fn stamp(line: &[u8]) -> Option<(Stamp, usize)> {
    /// What may stand before a stamp.
    const BEFORE: usize = 16;
    let first = *line.first()?;
    if first.is_ascii_digit() {
        return Some((loose(line)?, 0));
    }
    if first == b'[' {
        if let Some(stamp) = line.get(1..).and_then(iso) {
            return Some((stamp, 1));
        }
    } else if !first.is_ascii_uppercase() && !matches!(first, b't' | b' ') {
        return None;
    }
    if let Some(stamp) = loose(line) {
        return Some((stamp, 0));
    }
    let near = &line[..line.len().min(BEFORE)];
    let start = near.iter().position(u8::is_ascii_digit)?;
    let before = &near[..start];
    let known = before.iter().all(|byte| {
        byte.is_ascii_uppercase() || matches!(byte, b' ' | b'[' | b']' | b'-' | b':' | b'|')
    }) || matches!(
        before,
        b"time=\"" | b"ts=" | b"t=" | b"time=" | b"timestamp="
    );
    if !known {
        return None;
    }
    Some((loose(&line[start..])?, start))
}

/// The thread: in brackets, or as Solr has it in parentheses behind the level.
fn thread(rest: &[u8]) -> &[u8] {
    /// What stands between stamp and thread: a level, a pid.
    const BEFORE: usize = 48;
    let near = &rest[..rest.len().min(BEFORE)];
    let open = near.iter().position(|byte| matches!(byte, b'[' | b'('));
    let Some(open) = open else { return b"" };
    if near[open] == b'[' {
        return bracketed(&rest[open..])
            .map_or(b"".as_slice(), |thread| without_place(thread.trim_ascii()));
    }
    let level = near[..open]
        .iter()
        .all(|byte| byte.is_ascii_uppercase() || *byte == b' ');
    let end = memchr::memmem::find(&rest[open..rest.len().min(300)], b") [");
    match end {
        Some(end) if level => &rest[open + 1..open + end],
        _ => b"",
    }
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
    1 + u32::from(has(line, b"[myid:"))
        + u32::from(has(line, b"ookeeper") || has(line, b"ClientCnxn"))
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
            (
                "2022-05-14T04:49:40,253+0000 [SessionTracker] INFO  o.a.z.s.ZooKeeperServer - x",
                "SessionTracker",
            ),
            (
                "2023-07-27 10:00:00.123  WARN 1 --- [  main-SendThread(a:1)] o.a.z.ClientCnxn : x",
                "main-SendThread(a:1)",
            ),
            (
                "2023-07-27 10:00:00.123 WARN  (main-SendThread(a:1)) [   ] o.a.z.ClientCnxn x",
                "main-SendThread(a:1)",
            ),
            (
                "INFO [2022-03-13 03:19:29,589] jepsen worker 4-SendThread(n5:2181) - x",
                "",
            ),
            ("14/01/01 10:00:00 WARN ClientCnxn: x", ""),
            ("WARN  - 2015-01-01 10:00:00.123; org.x.Y; z", ""),
            ("time=\"2022-03-13T03:19:29Z\" level=info msg=\"x\"", ""),
            ("04-Nov-2022 22:36:43.020 WARNING [main] o.a.z.X y", "main"),
        ] {
            let head = head(line.as_bytes()).unwrap();
            assert_eq!(head.thread, thread.as_bytes(), "{line}");
        }
        for line in [
            "\tat a.b.C(D.java:1)",
            "java.lang.X: y",
            "EndOfStream 2022-01-01 00:00:00",
            "",
        ] {
            assert!(super::head(line.as_bytes()).is_none(), "{line}");
        }
    }
}
