//! One segment of one direction: what it moves in the slot, and how the parser is run over it.
//!
//! In: sequence number, length, bytes, time; the direction is locked by the caller. Out: the
//! slot's fields. How the parser's turns are repeated is the caller's: `bpf_loop` in the kernel, a
//! plain loop on a host.

use crate::{
    exchange, frames,
    layout::{Direction, EARLY, EDGE_KNOWN, EntryShape, FlowSlot, SYNCED},
    stream::{self, Enter, Framing, Payload},
    zookeeper,
};

/// Repeats the parser's turns.
pub trait Turns {
    /// Runs the protocol's `turn` over the segment's payload until it returns false.
    ///
    /// # Safety
    /// `slot` is a flow slot whose direction is locked.
    unsafe fn over_segment(&mut self, slot: *mut FlowSlot, seq: u32, now_ns: u64);

    /// The same over the stashed early segment in the slot.
    ///
    /// # Safety
    /// As above.
    unsafe fn over_stash(&mut self, slot: *mut FlowSlot, seq: u32, now_ns: u64);

    /// Copies the segment's `len` bytes (1 to [`EARLY`]) to `dst`.
    ///
    /// # Safety
    /// `dst` has room for [`EARLY`] bytes.
    unsafe fn stash(&mut self, dst: *mut u8, len: u32);
}

/// Where a segment lies.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Sequence number of its first byte of payload.
    pub seq: u32,
    /// Length of its payload, not 0.
    pub len: u32,
    /// Whether it leaves the host.
    pub outgoing: bool,
}

/// The direction that carries requests or replies.
///
/// # Safety
/// `slot` is a flow slot.
#[inline(always)]
#[must_use]
pub unsafe fn direction(slot: *mut FlowSlot, requests: bool) -> *mut Direction {
    // SAFETY: by contract.
    unsafe {
        if requests {
            &raw mut (*slot).requests
        } else {
            &raw mut (*slot).replies
        }
    }
}

/// A segment with payload of ZooKeeper's, of the direction that carries requests or replies.
///
/// # Safety
/// `slot` is a flow slot; the direction is locked by the caller.
#[inline(always)]
pub unsafe fn segment<P: Payload, T: Turns>(
    slot: *mut FlowSlot,
    requests: bool,
    segment: Segment,
    now_ns: u64,
    payload: &P,
    turns: &mut T,
) {
    let framing = if requests {
        &zookeeper::REQUEST_FRAMING
    } else {
        &zookeeper::REPLY_FRAMING
    };
    // SAFETY: by contract.
    unsafe {
        edges(slot, requests, segment, now_ns);
        framed(slot, requests, framing, segment, now_ns, payload, turns);
    }
}

/// The same of an entry with this shape.
///
/// # Safety
/// As above.
#[inline(always)]
pub unsafe fn shaped<P: Payload, T: Turns>(
    slot: *mut FlowSlot,
    requests: bool,
    shape: &EntryShape,
    segment: Segment,
    now_ns: u64,
    payload: &P,
    turns: &mut T,
) {
    // SAFETY: by contract.
    unsafe {
        let edge_before = edges(slot, requests, segment, now_ns);
        bytes(
            slot,
            requests,
            shape,
            segment,
            edge_before,
            now_ns,
            payload,
            turns,
        );
    }
}

/// Makes of a segment's bytes what its shape says they are.
///
/// # Safety
/// As above.
#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "a part of `shaped`; the kernel takes no more than five through a call, so it is inlined"
)]
pub(crate) unsafe fn bytes<P: Payload, T: Turns>(
    slot: *mut FlowSlot,
    requests: bool,
    shape: &EntryShape,
    segment: Segment,
    edge_before: u32,
    now_ns: u64,
    payload: &P,
    turns: &mut T,
) {
    // SAFETY: by contract.
    unsafe {
        if !frames::are_in(shape) {
            exchange::unframed(slot, requests, shape, segment, edge_before, now_ns, payload);
        } else {
            let framing = frames::framing(shape, requests);
            framed(slot, requests, &framing, segment, now_ns, payload, turns);
        }
    }
}

/// Moves the direction's edge; returns where it was.
///
/// # Safety
/// `slot` is a flow slot; the direction is locked by the caller.
#[inline(always)]
pub(crate) unsafe fn edges(
    slot: *mut FlowSlot,
    requests: bool,
    segment: Segment,
    now_ns: u64,
) -> u32 {
    let Segment { seq, len, outgoing } = segment;
    // SAFETY: by contract; of what is not locked only single words are touched.
    unsafe {
        let dir = direction(slot, requests);
        let end = seq.wrapping_add(len);
        if (*dir).flags & EDGE_KNOWN == 0 {
            (*dir).flags |= EDGE_KNOWN;
            // The first bytes of a stream that began before the programs did: what came before
            // them is taken as read and acknowledged.
            (*dir).edge_seq = seq;
            (*dir).unread_end_seq = seq;
            (*dir).newest_end_seq = seq;
            (*dir).unacked_at_ns = now_ns;
            if !outgoing && (*slot).reads.servers == 0 {
                (*slot).reads.read_seq = seq;
                (*slot).reads.credited_seq = seq;
            }
        }
        let before = (*dir).edge_seq;
        if end.wrapping_sub(before) as i32 > 0 {
            if outgoing && (*slot).life.acked_seq.wrapping_sub(before) as i32 >= 0 {
                (*dir).unacked_at_ns = now_ns;
            }
            if !outgoing {
                (*dir).arrived_ns = now_ns;
            }
            (*dir).edge_seq = end;
        }
        before
    }
}

/// Runs the parser over a segment of a framed stream.
///
/// # Safety
/// `slot` is a flow slot; the direction is locked by the caller.
#[inline(always)]
pub(crate) unsafe fn framed<P: Payload, T: Turns>(
    slot: *mut FlowSlot,
    requests: bool,
    framing: &Framing,
    segment: Segment,
    now_ns: u64,
    payload: &P,
    turns: &mut T,
) {
    let Segment { seq, len, .. } = segment;
    // SAFETY: by contract; of what is not locked only single words are touched.
    unsafe {
        let dir = direction(slot, requests);
        let (synced, losses) = ((*dir).flags & SYNCED, (*dir).lost_syncs);
        let enter = stream::enter(&mut *dir, framing, seq, len, now_ns, payload);
        if !requests && ((*dir).flags & SYNCED != synced || (*dir).lost_syncs != losses) {
            // Replies may have been missed: which request the next one answers is not known.
            exchange::forget_waiting(slot);
        }
        match enter {
            Enter::Skip => {}
            Enter::Stash => {
                // An old verifier learns 1 ≤ n ≤ 64 only from n − 1 < 64.
                let n = core::hint::black_box(u64::from(len.wrapping_sub(1)));
                if n < EARLY as u64 {
                    turns.stash((&raw mut (*dir).early).cast(), n as u32 + 1);
                }
            }
            Enter::Run => {
                turns.over_segment(slot, seq, now_ns);
                if !requests && (*dir).flags & SYNCED == 0 {
                    exchange::forget_waiting(slot);
                }
                if stream::leave(&mut *dir, seq, len) {
                    turns.over_stash(slot, (*dir).early_seq, now_ns);
                    stream::leave_early(&mut *dir);
                }
            }
        }
    }
}
