//! kazoo, the Python client, under Python's `logging`: any format that begins with `asctime`.

use super::{Head, Kind, Reader, has, zookeeper_java};

/// This layout.
pub const READER: Reader = Reader {
    kind: Kind::Kazoo,
    name: "kazoo",
    head,
    claims,
};

fn head(line: &[u8]) -> Option<Head<'_>> {
    zookeeper_java::head(line)
}

fn claims(line: &[u8]) -> u32 {
    4 * u32::from(has(line, b"kazoo") && head(line).is_some())
}
