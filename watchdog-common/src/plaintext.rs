//! A stream inside TLS whose plaintext is had where the program hands it to its TLS library, or takes it.
//!
//! In: what each call gave or took, in the order of the calls, and where TCP's stream stood by then; and
//! from the packets, that something arrived or left. Out: what the protocol's own parser makes of the
//! plaintext. Places are TCP's: a chunk is said to end where TCP's stream stood after its call, so what is
//! asked of acknowledgements and reads has an answer. Never: a chunk that arrives before it is read. What
//! lies unread in the socket is known by its arrival alone.

use crate::{
    exchange,
    flow::{self, Segment, Turns},
    layout::{
        BY_CALLS, Direction, EDGE_KNOWN, EntryShape, FlowSlot, HANDSHAKE_DUE, MARKS, OUTGOING,
        PROTOCOL_TLS, PROTOCOL_ZOOKEEPER, REQUESTS, ROLE_HOLDER, SYNCED,
    },
    stream::{self, Payload},
    zookeeper,
};

/// Where a stream's plaintext begins to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// With its first byte.
    First,
    /// With a request, when nothing else was under way.
    Frame,
    /// Somewhere.
    Anywhere,
}

/// A reply that takes longer than this to come, or to be written, is taken for two.
const QUIET_NS: u64 = 50_000_000;

/// Whether a request that a call has just told of is all that is under way, as far as the records and TCP
/// tell: so that a frame begins with it, and one with what is answered next. `begun_ns`: when the call began.
///
/// # Safety
/// `slot` is a flow slot whose records have been followed. Racy: single words are read.
#[inline(always)]
#[must_use]
pub unsafe fn is_alone(slot: *const FlowSlot, begun_ns: u64) -> bool {
    // SAFETY: by contract.
    unsafe {
        let (requests, replies) = (&raw const (*slot).requests, &raw const (*slot).replies);
        let followed = (*requests).flags & (*replies).flags & SYNCED != 0;
        let waiting = (*requests).marks.wrapping_sub((*replies).marks);
        if !followed || waiting != 1 {
            return false;
        }
        let at = (*replies).marks as usize & (MARKS - 1);
        let asked_ns = (*slot).unanswered[at].at_ns;
        if (*slot).role == ROLE_HOLDER {
            let arrived_ns = (*replies).arrived_ns;
            let all_read = (*slot).reads.read_seq.wrapping_sub((*replies).edge_seq) as i32 >= 0;
            asked_ns >= begun_ns
                && arrived_ns != 0
                && arrived_ns.wrapping_add(QUIET_NS) < begun_ns
                && all_read
        } else {
            let written_ns = (*slot).writes.write_ns;
            written_ns != 0 && written_ns.wrapping_add(QUIET_NS) < asked_ns
        }
    }
}

/// From here on the flow's plaintext is had. Of what its records told nothing is kept, for it was a guess.
///
/// # Safety
/// `slot` is a flow slot; both directions are locked by the caller.
#[inline(always)]
pub unsafe fn begin(slot: *mut FlowSlot, protocol: u8, from: Beginning, now_ns: u64) {
    // SAFETY: by contract.
    unsafe {
        anew(&mut (*slot).requests, from, now_ns);
        anew(&mut (*slot).replies, from, now_ns);
        // Last: whoever sees records no more sees nothing that they told.
        core::ptr::write_volatile(&raw mut (*slot).protocol, protocol);
    }
}

/// The flow's plaintext is had no more: from here on its records are followed again.
///
/// # Safety
/// As above.
#[inline(always)]
pub unsafe fn end(slot: *mut FlowSlot, now_ns: u64) {
    // SAFETY: by contract.
    unsafe {
        for dir in [&mut (*slot).requests, &mut (*slot).replies] {
            anew(dir, Beginning::Anywhere, now_ns);
            dir.flags &= !BY_CALLS;
        }
        core::ptr::write_volatile(&raw mut (*slot).protocol, PROTOCOL_TLS);
    }
}

#[inline(always)]
fn anew(dir: &mut Direction, from: Beginning, now_ns: u64) {
    dir.flags = dir.flags & (OUTGOING | REQUESTS | EDGE_KNOWN) | BY_CALLS;
    dir.lost_sync_ns = 0;
    match from {
        Beginning::First => dir.flags |= SYNCED | HANDSHAKE_DUE,
        Beginning::Frame => dir.flags |= SYNCED,
        Beginning::Anywhere => dir.lost_sync_ns = now_ns,
    }
    (dir.body_left, dir.head_len, dir.early_len, dir.marks) = (0, 0, 0, 0);
    (dir.need, dir.frame_left, dir.phase, dir.kind) = (0, 0, 0, 0);
    (dir.newest_ns, dir.messages, dir.begun_ns) = (0, 0, 0);
    (dir.keepalives, dir.keepalive_gap_ns, dir.ordinal) = (0, 0, 0);
    (dir.answered_ns, dir.answer_ns, dir.answers) = (0, 0, 0);
    (dir.rtt_ns, dir.ending_ns) = (0, 0);
}

/// A packet with payload of such a flow: what is in it is not read.
///
/// # Safety
/// `slot` is a flow slot; the direction is locked by the caller.
#[inline(always)]
pub unsafe fn passes(slot: *mut FlowSlot, requests: bool, segment: Segment, now_ns: u64) {
    // SAFETY: by contract; of what is not locked single words are read.
    unsafe {
        let before = flow::edges(slot, requests, segment, now_ns);
        let end = segment.seq.wrapping_add(segment.len);
        if segment.outgoing || end.wrapping_sub(before) as i32 <= 0 {
            return;
        }
        let dir = flow::direction(slot, requests);
        let read_seq = core::ptr::read_volatile(&raw const (*slot).reads.read_seq);
        if read_seq.wrapping_sub((*dir).unread_end_seq) as i32 >= 0 {
            (*dir).unread_end_seq = end;
            (*dir).unread_at_ns = now_ns;
        }
        (*dir).newest_end_seq = end;
    }
}

/// A chunk of plaintext: `len` bytes, after which TCP's stream stood at `end_seq`. It follows on the one
/// before it.
///
/// # Safety
/// As above.
#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "the kernel takes no more than five through a call, so it is inlined"
)]
pub unsafe fn chunk<P: Payload, T: Turns>(
    slot: *mut FlowSlot,
    requests: bool,
    shape: &EntryShape,
    end_seq: u32,
    len: u32,
    now_ns: u64,
    payload: &P,
    turns: &mut T,
) {
    let seq = end_seq.wrapping_sub(len);
    // SAFETY: by contract.
    unsafe {
        let dir = flow::direction(slot, requests);
        (*dir).next_seq = seq;
        let segment = Segment {
            seq,
            len,
            outgoing: (*dir).flags & OUTGOING != 0,
        };
        if shape.protocol == PROTOCOL_ZOOKEEPER {
            let framing = zookeeper::framing((*dir).flags);
            flow::framed(slot, requests, framing, segment, now_ns, payload, turns);
        } else {
            flow::bytes(slot, requests, shape, segment, seq, now_ns, payload, turns);
        }
    }
}

/// Bytes of the stream went past unseen.
///
/// # Safety
/// As above.
#[inline(always)]
pub unsafe fn missed(slot: *mut FlowSlot, requests: bool, now_ns: u64) {
    // SAFETY: by contract.
    unsafe {
        stream::lose_sync(&mut *flow::direction(slot, requests), now_ns);
        if !requests {
            exchange::forget_waiting(slot);
        }
    }
}
