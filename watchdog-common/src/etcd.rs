//! etcd's lease keepalives: gRPC over HTTP/2 in plaintext.
//!
//! In: an HTTP/2 frame's first bytes and those of the message in it. Out: which DATA frame is a
//! LeaseKeepAliveRequest or its response; of each lease that is kept alive there (`FlowSlot::kept`) when it
//! was renewed and answered, its TTL, and its end. Method names are never read: they are compressed
//! against a table that is not kept. A keepalive is told by its form: a DATA frame that does not end its
//! stream, with one uncompressed message of nothing but a number in field 1. Of the methods of etcd 3.4 to
//! 3.6 only LeaseKeepAlive sends that; a unary request ends its stream.
//!
//! Sources: RFC 9113 (4.1, 6.1), gRPC over HTTP/2 (Length-Prefixed-Message), etcd's rpc.proto
//! (LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest).

use crate::frames::Next;
use crate::layout::{Direction, FlowSlot, HEAD_MOST, KEPT, KIND_OTHER, KIND_RENEWAL};
use crate::stream::{self, Framing, Length};

/// Bytes of the client's preface, before its first frame.
pub const PREFACE: u32 = 24;
/// Where the gRPC message begins: behind a frame's header and the message's own.
const MESSAGE: usize = 14;
/// Longest varint.
const VARINT: usize = 10;
/// Of a response, behind its header: a number of a byte and a varint each, twice.
const ID_AND_TTL: u32 = 22;

/// After so long a silence of a lease another may take its place: a third of six
/// minutes, and few TTLs are longer.
const SILENT_NS: u64 = 120_000_000_000;

/// [`Handshake::note`](crate::layout::Handshake): the request at hand ends the lease that it names.
const ENDS: u32 = 1;

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
pub fn understand(dir: &mut Direction, requests: bool) -> Next {
    if dir.phase != 0 {
        let (id, after) = varint(dir, 1);
        let (ttl, _) = varint(dir, after + 1);
        let whole = dir.head[0] == 0x10 && after != 0;
        dir.handshake.session = if whole { id } else { 0 };
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
    dir.handshake.note = 0;
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
            dir.handshake.session = id;
            dir.handshake.note = ENDS;
            return Next::Rest;
        }
        dir.kind = KIND_RENEWAL;
        dir.pending_xid = on_stream;
        dir.handshake.session = id;
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

/// A request counts: which of the flow's leases it renews is noted for its answer.
///
/// # Safety
/// `slot` is a flow slot whose requests' direction is locked by the caller.
#[inline(always)]
pub unsafe fn asked(slot: *mut FlowSlot, now_ns: u64) {
    // SAFETY: by contract; of what the replies write single words are read.
    unsafe {
        let dir = &mut (*slot).requests;
        let id = dir.handshake.session;
        let ends = dir.handshake.note == ENDS;
        if dir.kind != KIND_RENEWAL && !ends {
            return;
        }
        // Its own place, else the first that is free: from the back, so that the last match stands.
        let (mut own, mut free) = (KEPT, KEPT);
        let mut n = KEPT;
        while n > 0 {
            n -= 1;
            let kept = &raw const (*slot).kept[n];
            let over = (*kept).ending_ns != 0
                || (&raw const (*kept).expired_ns).read_volatile() != 0
                || now_ns.wrapping_sub((*kept).request_ns) >= SILENT_NS;
            if (*kept).id == id {
                own = n;
            }
            if (*kept).id == 0 || over {
                free = n;
            }
        }
        if ends {
            if own < KEPT {
                (*slot).kept[own & (KEPT - 1)].ending_ns = now_ns;
            }
            return;
        }
        let taken = if own < KEPT { own } else { free };
        if taken >= KEPT {
            // It renews nothing that is followed, and nothing may be taken for its answer.
            dir.kind = KIND_OTHER;
            dir.left_out = dir.left_out.wrapping_add(1);
            return;
        }
        let kept = &raw mut (*slot).kept[taken & (KEPT - 1)];
        if own >= KEPT {
            (*kept).requests = 0;
            (*kept).answered_ns = 0;
            (*kept).answer_ns = 0;
            (*kept).answers = 0;
            (*kept).expired_ns = 0;
            (*kept).timeout_ms = 0;
            (*kept).id = id;
            (*kept).gap_ns = 0;
        } else {
            (*kept).gap_ns = now_ns.saturating_sub((*kept).request_ns);
        }
        (*kept).request_ns = now_ns;
        (*kept).requests += 1;
        (*kept).ending_ns = 0;
        dir.pending_err = taken as i32;
        dir.pending_xid = ticket(dir.pending_xid, taken);
    }
}

/// By what the answer to a keepalive is told: its stream, and which lease it names there.
#[inline(always)]
const fn ticket(stream: i32, place: usize) -> i32 {
    // Clients count their streams from 1 on, and have not come that far.
    stream ^ ((place as i32) << 28)
}

/// A response counts: of which of the flow's leases it is.
///
/// # Safety
/// `slot` is a flow slot whose replies' direction is locked by the caller.
#[inline(always)]
pub unsafe fn telling(slot: *mut FlowSlot) {
    // SAFETY: by contract; of what the requests write single words are read.
    unsafe {
        let dir = &mut (*slot).replies;
        let id = dir.handshake.session;
        let mut own = KEPT;
        let mut n = KEPT;
        while n > 0 {
            n -= 1;
            if (&raw const (*slot).kept[n].id).read_volatile() == id {
                own = n;
            }
        }
        // Stream 0 has no messages: nothing waits there.
        dir.pending_xid = if id == 0 || own >= KEPT || dir.pending_xid == 0 {
            0
        } else {
            ticket(dir.pending_xid, own)
        };
        dir.handshake.session = 0;
    }
}

/// A response has answered the keepalive of the lease at `place`; `pending_err` is its TTL in seconds,
/// −1: not known.
///
/// # Safety
/// `slot` is a flow slot whose replies' direction is locked by the caller.
#[inline(always)]
pub unsafe fn answered(slot: *mut FlowSlot, place: u32, now_ns: u64) {
    // SAFETY: by contract.
    unsafe {
        let dir = &raw const (*slot).replies;
        let kept = &raw mut (*slot).kept[place as usize & (KEPT - 1)];
        (*kept).answered_ns = (*dir).answered_ns;
        (*kept).answer_ns = now_ns;
        (*kept).answers += 1;
        let ttl = (*dir).pending_err;
        if ttl > 0 && ttl < i32::MAX / 1_000 {
            (*kept).timeout_ms = ttl * 1_000;
            (*kept).expired_ns = 0;
        } else if ttl == 0 {
            (*kept).expired_ns = now_ns;
        }
    }
}
