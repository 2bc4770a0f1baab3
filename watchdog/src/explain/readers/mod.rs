//! Log layouts, one a file: where a line's time, thread and message stand.
//!
//! In: one line's bytes. Out: its [`Head`], or `None` for a line that continues another or is of
//! another layout. Never: what the message means; that is in `patterns.yaml`.

pub mod dumpe2fs;
pub mod etcd;
pub mod glog;
pub mod jvm_gc;
pub mod kazoo;
pub mod kernel;
pub mod recording;
pub mod zookeeper_c;
pub mod zookeeper_java;

use serde::{Deserialize, Serialize};

use super::stamp::Stamp;

/// When a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// By the wall clock.
    Wall(Stamp),
    /// Nanoseconds since the kernel or the process started.
    Uptime(i64),
    /// The layout has no times.
    None,
}

/// What stands before a message.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// When.
    pub moment: Moment,
    /// Who, as the log names its threads; empty if it does not.
    pub thread: &'a [u8],
    /// Where the message begins in the line.
    pub message: usize,
}

/// A kind of log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The C client's own log.
    ZookeeperC,
    /// Log4j and logback layouts: ZooKeeper servers, and programs with the Java client.
    ZookeeperJava,
    /// Python's logging with the kazoo client.
    Kazoo,
    /// glog.
    Glog,
    /// dmesg, syslog's kernel lines, journalctl -k.
    Kernel,
    /// etcd, both its JSON and its older layout.
    Etcd,
    /// The JVM's garbage collection log, unified or older.
    JvmGc,
    /// The journal's part of `dumpe2fs -h`.
    Dumpe2fs,
    /// Our own.
    Recording,
}

/// A layout.
pub struct Reader {
    /// Which.
    pub kind: Kind,
    /// As in `--log KIND:FILE`.
    pub name: &'static str,
    /// A line's head.
    pub head: for<'a> fn(&'a [u8]) -> Option<Head<'a>>,
    /// How much a line speaks for this layout against the others: 0 not at all.
    pub claims: fn(&[u8]) -> u32,
}

/// All layouts. Of two that claim a log equally the first is taken.
pub const READERS: [Reader; 9] = [
    glog::READER,
    zookeeper_c::READER,
    etcd::READER,
    jvm_gc::READER,
    kernel::READER,
    kazoo::READER,
    zookeeper_java::READER,
    dumpe2fs::READER,
    recording::READER,
];

impl Kind {
    /// The layout.
    #[must_use]
    pub fn reader(self) -> &'static Reader {
        READERS
            .iter()
            .find(|reader| reader.kind == self)
            .unwrap_or(&READERS[0])
    }

    /// As in `--log KIND:FILE`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.reader().name
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        READERS
            .iter()
            .find(|reader| reader.name == name)
            .map(|reader| reader.kind)
    }
}

/// The kind that most of these lines speak for; `None` if none does.
#[must_use]
pub fn detect(head: &[u8]) -> Option<Kind> {
    let mut points = [0_u32; READERS.len()];
    for line in head.split(|byte| *byte == b'\n').take(400) {
        for (points, reader) in points.iter_mut().zip(&READERS) {
            *points += (reader.claims)(line);
        }
    }
    let most = *points.iter().max()?;
    let place = points.iter().position(|points| *points == most)?;
    (most > 0).then(|| READERS[place].kind)
}

/// The first `[…]` within the first bytes of a message, brackets inside it included.
pub(crate) fn bracketed(bytes: &[u8]) -> Option<&[u8]> {
    let near = &bytes[..bytes.len().min(300)];
    let start = memchr::memchr(b'[', near)? + 1;
    let mut depth = 1;
    for (index, byte) in near.iter().enumerate().skip(start) {
        match byte {
            b'[' => depth += 1,
            b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(&near[start..index]);
                }
            }
            _ => {}
        }
    }
    None
}

/// Whether `needle` stands in `line`.
pub(crate) fn has(line: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(line, needle).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lead_back() {
        for reader in &READERS {
            assert_eq!(Kind::from_name(reader.name), Some(reader.kind));
            assert_eq!(reader.kind.name(), reader.name);
        }
    }

    #[test]
    fn each_kind_is_detected() {
        for (text, kind) in [
            ("W1104 22:36:43.185218 147990 a.cc:288] x", Kind::Glog),
            (
                "2022-11-04 22:36:43,020:138783(0x7f28408aa700):ZOO_WARN@zookeeper_interest@2288: Exceeded deadline by 3302ms",
                Kind::ZookeeperC,
            ),
            (
                "2016-03-01 12:00:00,123 [myid:] - INFO  [main:Environment@100] - x",
                Kind::ZookeeperJava,
            ),
            (
                "2022-11-04 22:36:43,020 WARNING kazoo.client: Connection dropped",
                Kind::Kazoo,
            ),
            (
                "[123456.789012] INFO: task jbd2/sda1-8:345 blocked",
                Kind::Kernel,
            ),
            (
                "Nov  4 22:36:43 n1 kernel: [1.5] EXT4-fs (sda1): mounted",
                Kind::Kernel,
            ),
            (
                r#"{"level":"warn","ts":"2022-11-04T22:36:43.020Z","caller":"a/b.go:1","msg":"x"}"#,
                Kind::Etcd,
            ),
            (
                "2019-03-01 12:00:00.123456 W | wal: sync duration of 3.302s",
                Kind::Etcd,
            ),
            (
                "[2022-11-04T22:36:43.020+0800][info][gc] GC(1) Pause Young 3.3ms",
                Kind::JvmGc,
            ),
            ("Journal start:            1", Kind::Dumpe2fs),
        ] {
            assert_eq!(detect(text.as_bytes()), Some(kind), "{text}");
        }
        assert_eq!(detect(b"\xff\xfe nothing known"), None);
    }
}
