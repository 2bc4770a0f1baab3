//! The journal's part of `dumpe2fs -h`, which people keep with an incident's logs. It has no times.

use super::{Head, Kind, Moment, Reader};

/// This layout.
pub const READER: Reader = Reader {
    kind: Kind::Dumpe2fs,
    name: "dumpe2fs",
    head,
    claims,
};

fn head(line: &[u8]) -> Option<Head<'_>> {
    line.starts_with(b"Journal ").then_some(Head {
        moment: Moment::None,
        thread: b"",
        message: 0,
    })
}

fn claims(line: &[u8]) -> u32 {
    let known = [
        b"Journal start:".as_slice(),
        b"Journal size:",
        b"Journal length:",
        b"Journal sequence:",
        b"Journal features:",
        b"Journal checksum",
        b"Filesystem volume name:",
        b"Filesystem UUID:",
    ];
    2 * u32::from(known.iter().any(|needle| line.starts_with(needle)))
}
