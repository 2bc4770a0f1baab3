//! What must hold whatever segments go past: for the property tests and for `cargo xtask fuzz` alike.

use std::net::SocketAddr;
use std::path::Path;

use watchdog_model::time::{MS, Mono};

use super::flows::{Flows, HEAD, Segment};
use super::proposal::{Around, Proposal};
use crate::config::Config;

/// A script is a segment after the other: which end of which of a few connections sends it, how long after the
/// one before, how many bytes it has, and its first bytes. What is proposed is a configuration.
///
/// # Panics
/// Where it is not.
pub fn any_segments(script: &[u8]) {
    let mut flows = Flows::default();
    let mut rest = script;
    let mut seq = [[1_u32; 2]; 8];
    let mut at = Mono(1);
    while let [who, after, len, given, more @ ..] = rest {
        let (head, behind) = more.split_at(usize::from(*given).min(more.len()).min(HEAD));
        rest = behind;
        let client = SocketAddr::from(([10, 0, 0, 9], 40_000 + u16::from(who >> 4)));
        let server = SocketAddr::from(([10, 0, 0, 1], 1 + 1090 * u16::from(who >> 1 & 7)));
        let asks = who & 1 == 1;
        let (from, to) = if asks {
            (client, server)
        } else {
            (server, client)
        };
        at = at.plus(u64::from(*after) * 40 * MS);
        let len = u32::from(*len).max(u32::try_from(head.len()).unwrap_or(0));
        let place = &mut seq[usize::from(who >> 1 & 7)][usize::from(asks)];
        let segment = Segment {
            from,
            to,
            seq: *place,
            len,
            head,
            at,
        };
        *place = place.wrapping_add(len);
        flows.take(&segment, |address| address.port() < 10_000);
    }
    let around = Around::default();
    let text = Proposal::of(flows.all(), &around).yaml(&around);
    if let Err(errors) = Config::parse(Path::new("proposed.yaml"), &text) {
        panic!("{errors}\n{text}");
    }
}

/// Segments of each protocol, a few times at a cadence.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let asked: [&[u8]; 6] = [
        b"\0\0\0\x08\xff\xff\xff\xfe\0\0\0\x0b",
        b"\0\0\0\x19\0\x0c\0\x01\0\0\0\x03\0\x02me\0\x01g",
        b"PUT /v1/session/renew/adf4",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x17\x03\x03\0\x28abcd",
        b"\x09\x04\0\0\x07\0\x01",
    ];
    let answered: [&[u8]; 6] = [
        b"\0\0\0\x10\xff\xff\xff\xfe\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\0\0\0\x0a\0\0\0\x03\0\0\0\0\0\0",
        b"HTTP/1.1 200 OK\r\n",
        b"\0\0\x0b\0\0\0\0\0\x05\0\0\0\0\x06\x0a\x04",
        b"\x17\x03\x03\0\x28efgh",
        b"\x09\x04\0\0\x07\0\x01",
    ];
    (0..asked.len())
        .map(|which| {
            let place = u8::try_from(which).unwrap_or(0) << 1;
            let one = |who: u8, after: u8, head: &[u8]| {
                let length = u8::try_from(head.len()).unwrap_or(0);
                [&[who, after, length + 4, length], head].concat()
            };
            let turn = [
                one(place | 1, 50, asked[which]),
                one(place, 1, answered[which]),
            ];
            turn.concat().repeat(6)
        })
        .collect()
}
