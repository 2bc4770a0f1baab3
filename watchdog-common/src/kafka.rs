//! Kafka's frames: which requests keep a membership alive, and what a reply says of it.
//!
//! In: a frame's first bytes, and of a JoinGroup the session timeout behind two strings. Out: what
//! [`crate::frames`] and [`crate::exchange`] count; JoinGroup as `handshake` (its correlation id as
//! `session`), so that whoever waits for a rebalance is not taken for silent; LeaveGroup and the loss of
//! a membership as `ending_ns`.
//!
//! Source of the layouts: the message definitions of Apache Kafka 3.9 (clients/src/main/resources/
//! common/message): RequestHeader, ResponseHeader, JoinGroup, Heartbeat, ConsumerGroupHeartbeat,
//! BrokerHeartbeat, LeaveGroup; error codes from Errors.java.

use crate::frames::Next;
use crate::layout::{Direction, FlowSlot, HEAD_MOST, KIND_OTHER, KIND_RENEWAL};
use crate::stream::{self, Framing, Length};
use crate::zookeeper::note_message;

/// Both directions: a big-endian length. Of a request key, version, correlation id and the length of
/// the client's name; of a reply the correlation id and where an error may stand.
#[must_use]
#[inline(always)]
pub const fn framing(requests: bool) -> Framing {
    Framing {
        length: Length::PLAIN,
        head: if requests { 14 } else { 15 },
        handshake_head: 0,
        min_len: 4,
        // socket.request.max.bytes is 100 MiB; what is longer than this is nothing that renews.
        max_len: 64 * 1024 * 1024,
    }
}

const JOIN_GROUP: u32 = 11;
const HEARTBEAT: u32 = 12;
const LEAVE_GROUP: u32 = 13;
const BROKER_HEARTBEAT: u32 = 63;
const CONSUMER_GROUP_HEARTBEAT: u32 = 68;
/// Keys and versions beyond these are no Kafka (92 keys in 4.0, versions up to 18).
const KEYS: u32 = 256;
const VERSIONS: u32 = 64;
/// From these versions on strings are compact and headers carry tagged fields.
const JOIN_GROUP_FLEXIBLE: u32 = 6;
const HEARTBEAT_FLEXIBLE: u32 = 4;

const UNKNOWN_MEMBER_ID: u32 = 25;
const FENCED_INSTANCE_ID: u32 = 82;
const FENCED_MEMBER_EPOCH: u32 = 110;

/// Big-endian 16 bits at `at` of the gathered header.
#[inline(always)]
fn head_u16(dir: &Direction, at: usize) -> u32 {
    let at = at & (HEAD_MOST - 1);
    u32::from(dir.head[at]) << 8 | u32::from(dir.head[at + 1])
}

/// Where a reply's error stands: behind length and correlation id, a tag from the flexible versions
/// on, and the throttle time where there is one.
#[inline(always)]
fn error_at(key: u32, version: u32) -> u32 {
    match key {
        HEARTBEAT if version == 0 => 8,
        HEARTBEAT if version < HEARTBEAT_FLEXIBLE => 12,
        JOIN_GROUP if version < 2 => 8,
        JOIN_GROUP if version < JOIN_GROUP_FLEXIBLE => 12,
        _ => 13,
    }
}

/// Reads the bytes gathered in `head`.
#[inline(always)]
pub fn understand(dir: &mut Direction, requests: bool, now_ns: u64) -> Next {
    if !requests {
        dir.pending_xid = stream::head_u32(dir, 4) as i32;
        return Next::Rest;
    }
    match dir.phase {
        0 => request(dir, now_ns),
        1 => {
            // The group's name comes next.
            let flexible = dir.pending_err as u32 >= JOIN_GROUP_FLEXIBLE;
            let (tags, compact) = (dir.head[0], dir.head[1]);
            let skip = if !flexible {
                head_u16(dir, 0)
            } else if tags == 0 && compact & 0x80 == 0 {
                u32::from(compact).saturating_sub(1)
            } else {
                return Next::Rest;
            };
            if skip > 0x7fff {
                return Next::Rest;
            }
            Next::Part { skip, need: 4 }
        }
        _ => {
            dir.handshake.timeout_ms = stream::head_u32(dir, 0) as i32;
            Next::Rest
        }
    }
}

#[inline(always)]
fn request(dir: &mut Direction, now_ns: u64) -> Next {
    let (key, version) = (head_u16(dir, 4), head_u16(dir, 6));
    if key >= KEYS || version >= VERSIONS {
        return Next::Broken;
    }
    dir.pending_xid = stream::head_u32(dir, 8) as i32;
    dir.pending_err = version as i32;
    dir.kind = KIND_OTHER;
    match key {
        HEARTBEAT | BROKER_HEARTBEAT | CONSUMER_GROUP_HEARTBEAT => {
            dir.kind = KIND_RENEWAL;
            dir.pending_err = error_at(key, version) as i32;
        }
        LEAVE_GROUP => dir.ending_ns = now_ns,
        JOIN_GROUP => {
            dir.ending_ns = 0;
            dir.handshake.at_ns = now_ns;
            dir.handshake.session = u64::from(dir.pending_xid as u32);
            dir.handshake.note = error_at(key, version);
            let name = head_u16(dir, 12);
            // A name of −1 bytes is none.
            let skip = if name > 0x7fff { 0 } else { name };
            return Next::Part { skip, need: 2 };
        }
        _ => {}
    }
    Next::Rest
}

/// A reply has counted. `note`: that of the renewal which it answers, plus one; 0: none.
///
/// # Safety
/// `slot` is a flow slot whose replies' direction is locked by the caller, and whose `head` still holds
/// the reply's first bytes.
#[inline(always)]
pub unsafe fn replied(slot: *mut FlowSlot, note: u32, end_seq: u32, now_ns: u64) {
    // SAFETY: by contract; of the requests single words are read.
    unsafe {
        let dir = &mut (*slot).replies;
        if note != 0 {
            let error = head_u16(dir, note.wrapping_sub(1) as usize);
            if is_lost(error) {
                dir.ending_ns = now_ns;
            }
            return;
        }
        let join = core::ptr::read_volatile(&raw const (*slot).requests.handshake);
        let answers = join.at_ns != 0
            && join.at_ns > dir.handshake.at_ns
            && join.session == u64::from(dir.pending_xid as u32);
        if !answers {
            return;
        }
        dir.handshake.at_ns = now_ns;
        if head_u16(dir, join.note as usize) == 0 {
            // A broker begins to count when the rebalance is over and it answers.
            dir.ending_ns = 0;
            dir.answered_ns = now_ns;
            dir.answer_ns = now_ns;
            let read_seq = core::ptr::read_volatile(&raw const (*slot).reads.read_seq);
            note_message(dir, end_seq, read_seq, now_ns, false);
        }
    }
}

/// Whether an error says that the membership is no more.
#[inline(always)]
const fn is_lost(error: u32) -> bool {
    matches!(
        error,
        UNKNOWN_MEMBER_ID | FENCED_INSTANCE_ID | FENCED_MEMBER_EPOCH
    )
}
