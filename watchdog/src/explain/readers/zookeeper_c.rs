//! The ZooKeeper C client: `2022-11-04 22:36:43,020:138783(0x7f28408aa700):ZOO_WARN@function@2288: …`.
//!
//! The layout stands in `format_log_message` of `zk_log.c`. A program that passes a log callback has
//! the same line inside its own logger's; [`embedded`] finds it there.

use super::{Head, Kind, Moment, Reader};
use crate::explain::stamp::{Stamp, iso};

/// This layout.
pub const READER: Reader = Reader {
    kind: Kind::ZookeeperC,
    name: "zookeeper-c",
    head,
    claims,
};

/// A line of the C client inside another line.
#[derive(Clone, Copy, Debug)]
pub struct Embedded<'a> {
    /// The client's own stamp, taken before the log callback was called.
    pub stamp: Stamp,
    /// The function that speaks.
    pub function: &'a [u8],
    /// The thread, as an address.
    pub thread: &'a [u8],
    /// The message.
    pub message: &'a [u8],
}

fn parse(line: &[u8]) -> Option<(Embedded<'_>, usize)> {
    let stamp = iso(line)?;
    let rest = line.get(stamp.len..)?.strip_prefix(b":")?;
    let pid = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let thread = rest.get(pid..)?.strip_prefix(b"(")?;
    let close = memchr::memchr(b')', &thread[..thread.len().min(32)])?;
    let level = thread.get(close + 1..)?.strip_prefix(b":ZOO_")?;
    let mut parts = level.splitn(3, |byte| *byte == b'@');
    let (_, function, last) = (parts.next()?, parts.next()?, parts.next()?);
    let colon = memchr::memchr(b':', last)?;
    let message = last.get(colon + 1..)?;
    let message = message.strip_prefix(b" ").unwrap_or(message);
    let at = line.len() - message.len();
    Some((
        Embedded {
            stamp,
            function,
            thread: &thread[..close],
            message,
        },
        at,
    ))
}

fn head(line: &[u8]) -> Option<Head<'_>> {
    let (found, message) = parse(line)?;
    Some(Head {
        moment: Moment::Wall(found.stamp),
        thread: found.thread,
        message,
    })
}

/// The C client's line inside a message.
#[must_use]
pub fn embedded(message: &[u8]) -> Option<Embedded<'_>> {
    let level = memchr::memmem::find(message, b":ZOO_")?;
    // Stamp, pid and thread take 23 + 1 + 10 + 20 bytes at most.
    let near = level.saturating_sub(60);
    (near..level).find_map(|start| {
        (start == 0 || !message[start - 1].is_ascii_digit())
            .then(|| parse(&message[start..]))
            .flatten()
            .map(|(found, _)| found)
    })
}

fn claims(line: &[u8]) -> u32 {
    4 * u32::from(head(line).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_inside_another_is_found() {
        let found = embedded(
            b"[ZOO] zookeeper_interest:2288 2022-11-04 22:36:43,020:138783(0x7f28408aa700):ZOO_WARN@zookeeper_interest@2288: Exceeded deadline by 3302ms",
        )
        .unwrap();
        assert_eq!(found.function, b"zookeeper_interest");
        assert_eq!(found.thread, b"0x7f28408aa700");
        assert_eq!(found.message, b"Exceeded deadline by 3302ms");
        assert!(embedded(b":ZOO_").is_none());
    }
}
