//! etcd's lease keepalives: gRPC over HTTP/2 in plaintext.
//!
//! In: an HTTP/2 frame's first bytes and those of the message in it. Out: which DATA frame is a
//! LeaseKeepAliveRequest or its response, the lease's id as `handshake.session`, its TTL as
//! `handshake.timeout_ms`, and its end as `ending_ns`. Method names are never read: they are compressed
//! against a table that is not kept. A keepalive is told by its form: a DATA frame that does not end its
//! stream, with one uncompressed message of nothing but a number in field 1. Of the methods of etcd 3.4 to
//! 3.6 only LeaseKeepAlive sends that; a unary request ends its stream.
//!
//! Sources: RFC 9113 (4.1, 6.1), gRPC over HTTP/2 (Length-Prefixed-Message), etcd's rpc.proto
//! (LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest).

use crate::frames::Next;
use crate::layout::{Direction, HEAD_MOST, KIND_OTHER, KIND_RENEWAL};
use crate::stream::{self, Framing, Length};

/// Bytes of the client's preface, before its first frame.
pub const PREFACE: u32 = 24;
/// Where the gRPC message begins: behind a frame's header and the message's own.
const MESSAGE: usize = 14;
/// Longest varint.
const VARINT: usize = 10;
/// Of a response, behind its header: a number of a byte and a varint each, twice.
const ID_AND_TTL: u32 = 22;

/// After so long a silence of the lease that was followed another may take its place: a third of six
/// minutes, and few TTLs are longer.
const SILENT_NS: u64 = 120_000_000_000;

const DATA: u8 = 0;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;
/// Types of frames are below this (RFC 9113 has ten, RFCs since some more).
const TYPES: u8 = 0x20;

/// Both directions: three bytes of length, which count what stands behind the nine of the header.
#[must_use]
#[inline(always)]
pub const fn framing(requests: bool) -> Framing {
    Framing {
        length: Length {
            at: 0,
            bytes: 3,
            little: false,
            adjust: 9,
        },
        head: if requests { 25 } else { 16 },
        handshake_head: 0,
        min_len: 0,
        max_len: u32::MAX,
    }
}

/// Reads the bytes gathered in `head`.
#[inline(always)]
pub fn understand(dir: &mut Direction, requests: bool, now_ns: u64) -> Next {
    if dir.phase != 0 {
        let (id, after) = varint(dir, 1);
        let (ttl, _) = varint(dir, after + 1);
        let whole = dir.head[0] == 0x10 && after != 0;
        let has_ttl = dir.head[after & (HEAD_MOST - 1)] == 0x18;
        dir.pending_err = if !whole || id == 0 {
            -1
        } else if has_ttl {
            (ttl & 0x7fff_ffff) as i32
        } else {
            // Fields that are 0 are left out: the lease is no more.
            0
        };
        return Next::Rest;
    }
    dir.kind = KIND_OTHER;
    // Of a request it is the note that its mark keeps.
    dir.pending_err = if requests { 0 } else { -1 };
    let (kind, flags) = (dir.head[3], dir.head[4]);
    if kind >= TYPES {
        return Next::Broken;
    }
    // A stream that nothing waits on.
    dir.pending_xid = 0;
    let payload = stream::head_u32(dir, 0) >> 8;
    let message = stream::head_u32(dir, 10);
    let is_whole = payload == message.wrapping_add(5) && dir.head[9] == 0;
    if kind != DATA || flags & PADDED != 0 || !is_whole || message == 0 {
        return Next::Rest;
    }
    let on_stream = stream::head_u32(dir, 5) as i32 & i32::MAX;
    if requests {
        let (id, after) = varint(dir, MESSAGE + 1);
        let is_one_number =
            dir.head[MESSAGE] == 0x08 && after != 0 && after as u32 == MESSAGE as u32 + message;
        if !is_one_number || id == 0 {
            return Next::Rest;
        }
        if flags & END_STREAM != 0 {
            // LeaseRevoke, or LeaseTimeToLive of which the next keepalive shows that it was that.
            if id == dir.handshake.session {
                dir.ending_ns = now_ns;
            }
            return Next::Rest;
        }
        // Of several leases on one connection the first is followed, until it ends or falls silent.
        let followed = dir.handshake.session;
        let lives = dir.ending_ns == 0 && now_ns.wrapping_sub(dir.newest_ns) < SILENT_NS;
        if followed != 0 && followed != id && lives {
            return Next::Rest;
        }
        dir.kind = KIND_RENEWAL;
        dir.pending_xid = on_stream;
        dir.handshake.session = id;
        dir.ending_ns = 0;
        return Next::Rest;
    }
    let header = u32::from(dir.head[MESSAGE + 1]);
    if dir.head[MESSAGE] != 0x0a || header >= 0x80 || message < header + 2 {
        return Next::Rest;
    }
    dir.pending_xid = on_stream;
    let behind = message - header - 2;
    let need = if behind < ID_AND_TTL {
        behind
    } else {
        ID_AND_TTL
    };
    if need == 0 {
        return Next::Rest;
    }
    let mut n = 0;
    while n < ID_AND_TTL as usize {
        // What is shorter than that must not be read on into what lay there before.
        dir.head[n] = 0;
        n += 1;
    }
    Next::Part { skip: header, need }
}

/// The number that begins at `at` of `head`, and where it ends; 0: it does not.
#[inline(always)]
fn varint(dir: &Direction, at: usize) -> (u64, usize) {
    let mut value = 0_u64;
    let mut end = 0;
    let mut n = 0;
    while n < VARINT {
        if end == 0 {
            let byte = dir.head[(at + n) & (HEAD_MOST - 1)];
            value |= u64::from(byte & 0x7f) << (7 * n);
            if byte & 0x80 == 0 {
                end = at + n + 1;
            }
        }
        n += 1;
    }
    (value, end)
}

/// A response has answered a keepalive: `pending_err` is its TTL in seconds, −1: not known.
#[inline(always)]
pub fn answered(dir: &mut Direction, now_ns: u64) {
    if dir.pending_err > 0 && dir.pending_err < i32::MAX / 1_000 {
        dir.handshake.timeout_ms = dir.pending_err * 1_000;
        dir.ending_ns = 0;
    } else if dir.pending_err == 0 {
        dir.ending_ns = now_ns;
    }
}
