//! Requests and their replies, whatever is in them: which of them renew, and which are answered.
//!
//! In: that a request or reply has begun or is whole, and what it is. Out: newest renewal, renewals
//! that wait and that are answered. Replies are told by order (the n-th answers the n-th request) or
//! by an id that both carry. Requests that do not renew are counted for the order's sake and are
//! otherwise of no account. Never: a reply taken for the answer to a later request than its own.
//!
//! Where the stream is not framed, a request begins with the first byte after a reply has begun, and
//! the first byte after that which comes back answers it: so a holder that sends on without waiting
//! for replies is credited with the first of what it sent, too early and never too late.

use crate::consul;
use crate::flow::Segment;
use crate::layout::{
    Direction, EntryShape, FlowSlot, HEAD_MOST, KIND_OPEN, KIND_OTHER, KIND_RENEWAL, MARKS,
    PROTOCOL_CONSUL, SIGNATURE, SYNCED,
};
use crate::stream::Payload;
use crate::zookeeper::{note_message, reaches};

/// How a reply is told to be a request's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Matching {
    /// The n-th reply answers the n-th request.
    Order,
    /// By `pending_xid`.
    Id,
}

/// Bytes of a request that must be seen to know whether it renews.
#[inline(always)]
#[must_use]
pub fn signature_end(shape: &EntryShape) -> u32 {
    if shape.protocol == PROTOCOL_CONSUL {
        return consul::REQUEST_HEAD;
    }
    if shape.signature_len == 0 {
        return 0;
    }
    u32::from(shape.signature_at) + u32::from(shape.signature_len)
}

/// Whether the request whose first bytes lie in `head` carries the signature.
#[inline(always)]
#[must_use]
pub fn is_renewal(dir: &Direction, shape: &EntryShape) -> bool {
    let mut difference = 0_u8;
    let mut n = 0;
    while n < SIGNATURE {
        if n < shape.signature_len as usize {
            // A mask, for the verifier; by configuration it ends within.
            let at = (shape.signature_at as usize + n) & (HEAD_MOST - 1);
            difference |= dir.head[at] & shape.signature_mask[n] ^ shape.signature[n];
        }
        n += 1;
    }
    difference == 0
}

/// Puts a renewal among those that wait for a reply.
///
/// # Safety
/// `slot` is a flow slot whose requests' direction is locked by the caller.
#[inline(always)]
unsafe fn wait(slot: *mut FlowSlot, id: i32, note: u32, at_ns: u64) {
    // SAFETY: by contract; of the replies one word is read, racy: at worst the ring looks fuller.
    unsafe {
        let dir = &mut (*slot).requests;
        let tail = core::ptr::read_volatile(&raw const (*slot).replies.marks);
        let head = dir.marks;
        // A full ring leaves requests out, so "answered" lags behind: early, never late.
        if head.wrapping_sub(tail) < MARKS as u32 {
            let at = (head as usize) & (MARKS - 1);
            (*slot).unanswered[at].xid = id;
            (*slot).unanswered[at].note = note;
            core::ptr::write_volatile(&raw mut (*slot).unanswered[at].at_ns, at_ns);
            dir.marks = head.wrapping_add(1);
        }
    }
}

/// Finds the renewal that a reply answers and notes that it is answered; its note, plus one, or 0
/// where there is none.
///
/// # Safety
/// `slot` is a flow slot whose replies' direction is locked by the caller.
#[inline(always)]
unsafe fn answer(slot: *mut FlowSlot, matching: Matching, id: i32, now_ns: u64) -> u32 {
    // SAFETY: by contract; entries from tail to head are handed over by the requests' counter.
    unsafe {
        let dir = &mut (*slot).replies;
        let head = core::ptr::read_volatile(&raw const (*slot).requests.marks);
        let tail = dir.marks;
        let mut past = 0;
        while past < MARKS as u32 {
            let mark = tail.wrapping_add(past);
            if mark == head {
                break;
            }
            let at = (mark as usize) & (MARKS - 1);
            let (mark_id, mark_note, mark_ns) = (
                (*slot).unanswered[at].xid,
                (*slot).unanswered[at].note,
                (*slot).unanswered[at].at_ns,
            );
            let later = mark_id.wrapping_sub(id) > 0;
            if matching == Matching::Order && later {
                dir.marks = mark;
                return 0;
            }
            if mark_id == id {
                dir.answered_ns = mark_ns;
                dir.answer_ns = now_ns;
                dir.rtt_ns = now_ns.saturating_sub(mark_ns);
                dir.answers += 1;
                dir.marks = mark.wrapping_add(1);
                return mark_note.wrapping_add(1);
            }
            past += 1;
        }
        if matching == Matching::Order {
            // All that wait were asked before the one that is answered, and went unseen.
            dir.marks = head;
        }
        0
    }
}

/// A framed message counts: it was sent, or all of it has arrived. What it is stands in `kind`,
/// `pending_xid` and `pending_err` of its direction.
///
/// # Safety
/// `slot` is a flow slot whose direction (by `requests`) is locked by the caller.
#[inline(always)]
pub unsafe fn count(
    slot: *mut FlowSlot,
    requests: bool,
    matching: Matching,
    end_seq: u32,
    now_ns: u64,
) -> u32 {
    // SAFETY: by contract; of what is not locked single words are read.
    unsafe {
        let read_seq = core::ptr::read_volatile(&raw const (*slot).reads.read_seq);
        if requests {
            let dir = &mut (*slot).requests;
            let ordinal = dir.ordinal.wrapping_add(1);
            if dir.kind == KIND_RENEWAL {
                note_message(dir, end_seq, read_seq, now_ns, true);
                let id = match matching {
                    Matching::Order => ordinal as i32,
                    Matching::Id => dir.pending_xid,
                };
                let note = dir.pending_err as u32;
                wait(slot, id, note, now_ns);
            }
            // Last, so that whoever sees the number sees the mark too.
            core::ptr::write_volatile(&raw mut (*slot).requests.ordinal, ordinal);
            return 0;
        }
        let asked = core::ptr::read_volatile(&raw const (*slot).requests.ordinal);
        let dir = &mut (*slot).replies;
        let id = match matching {
            Matching::Order => {
                if dir.ordinal == asked {
                    // Nothing was asked: no answer to anything.
                    return 0;
                }
                dir.ordinal = dir.ordinal.wrapping_add(1);
                dir.ordinal as i32
            }
            Matching::Id => dir.pending_xid,
        };
        let note = answer(slot, matching, id, now_ns);
        if note != 0 {
            note_message(&mut (*slot).replies, end_seq, read_seq, now_ns, false);
        }
        note
    }
}

/// A message counts of which only its direction is known: a request begins with the first after a
/// reply has begun, and the first that comes back after that answers it.
///
/// # Safety
/// As for [`count`].
#[inline(always)]
pub unsafe fn count_turns(slot: *mut FlowSlot, requests: bool, end_seq: u32, now_ns: u64) {
    // SAFETY: by contract; of what is not locked single words are read.
    unsafe {
        let read_seq = core::ptr::read_volatile(&raw const (*slot).reads.read_seq);
        if requests {
            let answered = core::ptr::read_volatile(&raw const (*slot).replies.ordinal);
            let dir = &mut (*slot).requests;
            if dir.kind != KIND_RENEWAL {
                return;
            }
            if dir.ordinal != answered {
                reaches(dir, end_seq, read_seq, now_ns);
                return;
            }
            let ordinal = dir.ordinal.wrapping_add(1);
            note_message(dir, end_seq, read_seq, now_ns, true);
            wait(slot, ordinal as i32, 0, now_ns);
            core::ptr::write_volatile(&raw mut (*slot).requests.ordinal, ordinal);
            return;
        }
        let asked = core::ptr::read_volatile(&raw const (*slot).requests.ordinal);
        let dir = &mut (*slot).replies;
        if dir.kind != KIND_RENEWAL {
            return;
        }
        if dir.ordinal == asked {
            reaches(dir, end_seq, read_seq, now_ns);
            return;
        }
        dir.ordinal = asked;
        if answer(slot, Matching::Order, asked as i32, now_ns) != 0 {
            note_message(&mut (*slot).replies, end_seq, read_seq, now_ns, false);
        }
    }
}

/// Forgets every request that waits for a reply.
///
/// # Safety
/// `slot` is a flow slot whose replies' direction is locked by the caller.
#[inline(always)]
pub unsafe fn forget_waiting(slot: *mut FlowSlot) {
    // SAFETY: by contract; the other direction's counters are single words.
    unsafe {
        (*slot).replies.marks = core::ptr::read_volatile(&raw const (*slot).requests.marks);
        (*slot).replies.ordinal = core::ptr::read_volatile(&raw const (*slot).requests.ordinal);
    }
}

/// A segment of a stream that is not framed. `edge_before`: where the furthest byte ever seen ended.
///
/// # Safety
/// `slot` is a flow slot whose direction (by `requests`) is locked by the caller.
#[inline(always)]
pub unsafe fn unframed<P: Payload>(
    slot: *mut FlowSlot,
    requests: bool,
    shape: &EntryShape,
    segment: Segment,
    edge_before: u32,
    now_ns: u64,
    payload: &P,
) {
    let end = segment.seq.wrapping_add(segment.len);
    let fresh = end.wrapping_sub(edge_before) as i32;
    // SAFETY: by contract.
    unsafe {
        let dir = if requests {
            &mut (*slot).requests
        } else {
            &mut (*slot).replies
        };
        dir.flags |= SYNCED;
        if fresh <= 0 {
            return;
        }
        let hole = segment.seq.wrapping_sub(edge_before) as i32 > 0;
        if requests {
            request_bytes(
                slot,
                shape,
                end,
                fresh as u32,
                hole,
                segment.len,
                now_ns,
                payload,
            );
        } else {
            reply_bytes(
                slot,
                shape,
                end,
                fresh as u32,
                hole,
                segment.len,
                now_ns,
                payload,
            );
        }
    }
}

/// New bytes of a request.
///
/// # Safety
/// As for [`unframed`].
#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "a part of `unframed`; the kernel takes no more than five through a call, so it is inlined"
)]
unsafe fn request_bytes<P: Payload>(
    slot: *mut FlowSlot,
    shape: &EntryShape,
    end: u32,
    fresh: u32,
    hole: bool,
    len: u32,
    now_ns: u64,
    payload: &P,
) {
    // SAFETY: by contract; of what is not locked single words are read.
    unsafe {
        let read_seq = core::ptr::read_volatile(&raw const (*slot).reads.read_seq);
        let answered = core::ptr::read_volatile(&raw const (*slot).replies.ordinal);
        let dir = &mut (*slot).requests;
        let begins = dir.ordinal == answered;
        if begins {
            dir.head_len = 0;
            dir.begun_ns = now_ns;
            dir.kind = KIND_OPEN;
        }
        let was_renewal = dir.kind == KIND_RENEWAL;
        let ordinal = if begins {
            dir.ordinal.wrapping_add(1)
        } else {
            dir.ordinal
        };
        if dir.kind == KIND_OPEN {
            dir.kind = kind(dir, shape, fresh, hole, len, payload);
        }
        if dir.kind == KIND_RENEWAL {
            if was_renewal {
                reaches(dir, end, read_seq, now_ns);
            } else {
                let begun_ns = dir.begun_ns;
                note_message(dir, end, read_seq, begun_ns, true);
                wait(slot, ordinal as i32, 0, begun_ns);
            }
        }
        core::ptr::write_volatile(&raw mut (*slot).requests.ordinal, ordinal);
    }
}

/// How far a message's first bytes are gathered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gathered {
    /// All of them, just now.
    Whole,
    /// More are to come.
    NotYet,
    /// They were missed, or are behind.
    Never,
}

/// Gathers a message's first `want` bytes in `head`.
#[inline(always)]
fn gather<P: Payload>(
    dir: &mut Direction,
    want: u32,
    fresh: u32,
    hole: bool,
    len: u32,
    payload: &P,
) -> Gathered {
    let have = dir.head_len;
    if hole || have >= want || have >= HEAD_MOST as u32 {
        return Gathered::Never;
    }
    let missing = want - have;
    let take = if missing < fresh { missing } else { fresh };
    // As in `frames::step`.
    let bounded = core::hint::black_box(u64::from(take.wrapping_sub(1)));
    if bounded >= HEAD_MOST as u64 {
        return Gathered::Never;
    }
    let at = core::hint::black_box(u64::from(have)) & (HEAD_MOST as u64 - 1);
    let take = bounded as u32 + 1;
    let from = len.wrapping_sub(fresh);
    // SAFETY: have < HEAD_MOST and take ≤ HEAD_MOST, so the end is within HEAD.
    let copied = unsafe { payload.copy(from, dir.head.as_mut_ptr().add(at as usize), take) };
    if !copied {
        return Gathered::Never;
    }
    dir.head_len = have + take;
    if dir.head_len < want {
        Gathered::NotYet
    } else {
        Gathered::Whole
    }
}

/// What a request is, as far as its bytes tell by now.
#[inline(always)]
fn kind<P: Payload>(
    dir: &mut Direction,
    shape: &EntryShape,
    fresh: u32,
    hole: bool,
    len: u32,
    payload: &P,
) -> u32 {
    let want = signature_end(shape);
    if want == 0 {
        return KIND_RENEWAL;
    }
    match gather(dir, want, fresh, hole, len, payload) {
        Gathered::Never => return KIND_OTHER,
        Gathered::NotYet => return KIND_OPEN,
        Gathered::Whole => {}
    }
    if shape.protocol == PROTOCOL_CONSUL {
        let now_ns = dir.begun_ns;
        return consul::request(dir, now_ns);
    }
    if is_renewal(dir, shape) {
        KIND_RENEWAL
    } else {
        KIND_OTHER
    }
}

/// New bytes of a reply: the first of them answers.
///
/// # Safety
/// As for [`unframed`].
#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "a part of `unframed`; the kernel takes no more than five through a call, so it is inlined"
)]
unsafe fn reply_bytes<P: Payload>(
    slot: *mut FlowSlot,
    shape: &EntryShape,
    end: u32,
    fresh: u32,
    hole: bool,
    len: u32,
    now_ns: u64,
    payload: &P,
) {
    // SAFETY: by contract; of what is not locked single words are read.
    unsafe {
        let read_seq = core::ptr::read_volatile(&raw const (*slot).reads.read_seq);
        let asked = core::ptr::read_volatile(&raw const (*slot).requests.ordinal);
        let dir = &mut (*slot).replies;
        if dir.ordinal != asked {
            dir.ordinal = asked;
            dir.kind = KIND_OTHER;
            dir.head_len = 0;
            if answer(slot, Matching::Order, asked as i32, now_ns) != 0 {
                let dir = &mut (*slot).replies;
                dir.kind = KIND_RENEWAL;
                note_message(dir, end, read_seq, now_ns, false);
            }
        } else if dir.kind == KIND_RENEWAL {
            reaches(dir, end, read_seq, now_ns);
        }
        let dir = &mut (*slot).replies;
        if shape.protocol == PROTOCOL_CONSUL
            && dir.kind == KIND_RENEWAL
            && gather(dir, consul::REPLY_HEAD, fresh, hole, len, payload) == Gathered::Whole
        {
            consul::reply(dir, now_ns);
        }
    }
}
