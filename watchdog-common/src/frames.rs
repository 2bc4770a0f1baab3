//! Follows frames whose layout the entry's configuration says, and hands their first bytes to the
//! protocol: [`turn`] is to these what `zookeeper::turn` is to ZooKeeper's.
//!
//! In: payload, the entry's shape. Out: what `exchange` is told. A protocol may ask for more of a
//! frame than its head: it names how much to skip and how much to gather next, so a field behind a
//! string is found in whatever segments the frame comes. Never: more than [`HEAD_MOST`] bytes of a
//! frame at once.

use crate::exchange::{self, Matching};
use crate::layout::{
    COUNT_AT_END, Direction, EntryShape, FOREIGN, FlowSlot, HANDSHAKE_DUE, HEAD_MOST, KIND_OTHER,
    KIND_RENEWAL, OUTGOING, PROTOCOL_ETCD, PROTOCOL_KAFKA, PROTOCOL_TLS, SYNCED,
};
use crate::stream::{self, Framing, Length, Payload};
use crate::{etcd, kafka, tls};

/// What a protocol makes of the bytes that were gathered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// All is known: skip what is left of the frame, then it counts.
    Rest,
    /// Skip so many bytes, gather so many.
    Part {
        /// Bytes to skip.
        skip: u32,
        /// Bytes to gather, 1 to [`HEAD_MOST`].
        need: u32,
    },
    /// This is no frame of the protocol.
    Broken,
}

/// One turn's result.
enum Step {
    Done,
    More,
    Gathered,
    FrameEnd,
    Broken,
}

/// Whether an entry's streams are framed.
#[inline(always)]
#[must_use]
pub const fn are_in(shape: &EntryShape) -> bool {
    shape.length_bytes != 0
        || shape.protocol == PROTOCOL_KAFKA
        || shape.protocol == PROTOCOL_ETCD
        || shape.protocol == PROTOCOL_TLS
}

/// How a direction's frames look.
#[inline(always)]
#[must_use]
pub fn framing(shape: &EntryShape, requests: bool) -> Framing {
    if shape.protocol == PROTOCOL_KAFKA {
        return kafka::framing(requests);
    }
    if shape.protocol == PROTOCOL_ETCD {
        return etcd::framing(requests);
    }
    if shape.protocol == PROTOCOL_TLS {
        return tls::FRAMING;
    }
    let length = Length {
        at: u32::from(shape.length_at),
        bytes: u32::from(shape.length_bytes),
        little: shape.little != 0,
        adjust: shape.adjust,
    };
    let prefix = length.prefix();
    let signature = if requests {
        exchange::signature_end(shape)
    } else {
        0
    };
    Framing {
        length,
        head: if signature > prefix {
            signature
        } else {
            prefix
        },
        handshake_head: 0,
        min_len: 0,
        max_len: u32::MAX,
    }
}

/// How replies are told.
#[inline(always)]
#[must_use]
pub fn matching(shape: &EntryShape) -> Matching {
    if shape.protocol == PROTOCOL_KAFKA || shape.protocol == PROTOCOL_ETCD {
        Matching::Id
    } else {
        Matching::Order
    }
}

#[inline(always)]
fn step<P: Payload>(dir: &mut Direction, framing: &Framing, payload: &P) -> Step {
    if dir.flags & SYNCED == 0 || dir.cursor >= dir.limit {
        return Step::Done;
    }
    let left = dir.limit - dir.cursor;
    if dir.body_left > 0 {
        let skip = if dir.body_left < left {
            dir.body_left
        } else {
            left
        };
        dir.cursor += skip;
        dir.body_left -= skip;
        return if dir.body_left == 0 && dir.phase == 0 {
            Step::FrameEnd
        } else {
            Step::More
        };
    }
    if dir.flags & COUNT_AT_END != 0 {
        // Its last bytes lay in a hole.
        return Step::FrameEnd;
    }
    let prefix = framing.length.prefix();
    let need = if dir.need == 0 { prefix } else { dir.need };
    let have = dir.head_len;
    if have < need {
        let missing = need - have;
        let take = if missing < left { missing } else { left };
        // An old verifier does not learn 1 ≤ n ≤ 64 from a test against 0; it does from n − 1 < 64.
        let bounded = core::hint::black_box(u64::from(take.wrapping_sub(1)));
        if bounded >= HEAD_MOST as u64 || have >= HEAD_MOST as u32 {
            return Step::Broken;
        }
        // And a mask, since what it learns of 32 bits it does not carry to an address. (A second
        // test of 64 bits the compiler would make one with the first.)
        let at = core::hint::black_box(u64::from(have)) & (HEAD_MOST as u64 - 1);
        let take = bounded as u32 + 1;
        // SAFETY: have < HEAD_MOST and take ≤ HEAD_MOST, so the end is within HEAD.
        let copied =
            unsafe { payload.copy(dir.cursor, dir.head.as_mut_ptr().add(at as usize), take) };
        if !copied {
            return Step::Broken;
        }
        dir.cursor += take;
        dir.head_len = have + take;
        if dir.head_len < need {
            return Step::More;
        }
    }
    if dir.need == 0 {
        let total = framing.total(dir, 0);
        if total == 0 {
            return Step::Broken;
        }
        let want = if framing.head < total {
            framing.head
        } else {
            total
        };
        dir.frame_left = total - prefix;
        if want > prefix {
            dir.frame_left = total - want;
            dir.need = want;
            return Step::More;
        }
    }
    Step::Gathered
}

/// Reads the bytes gathered in `head`.
#[inline(always)]
fn understand(dir: &mut Direction, shape: &EntryShape, requests: bool, now_ns: u64) -> Next {
    if shape.protocol == PROTOCOL_KAFKA {
        return kafka::understand(dir, requests, now_ns);
    }
    if shape.protocol == PROTOCOL_ETCD {
        return etcd::understand(dir, requests);
    }
    if shape.protocol == PROTOCOL_TLS {
        return tls::understand(dir);
    }
    if requests {
        let whole = dir.head_len >= exchange::signature_end(shape);
        dir.kind = if whole && exchange::is_renewal(dir, shape) {
            KIND_RENEWAL
        } else {
            KIND_OTHER
        };
    }
    Next::Rest
}

/// One turn over the payload at hand; true while there is more to do.
///
/// # Safety
/// As for `zookeeper::turn`.
#[inline(always)]
pub unsafe fn turn<P: Payload>(
    slot: *mut FlowSlot,
    requests: bool,
    shape: &EntryShape,
    payload: &P,
    segment_seq: u32,
    now_ns: u64,
) -> bool {
    let framing = framing(shape, requests);
    // SAFETY: by this function's contract the direction is ours alone.
    let dir = unsafe {
        if requests {
            &mut (*slot).requests
        } else {
            &mut (*slot).replies
        }
    };
    if shape.protocol == PROTOCOL_ETCD && dir.flags & HANDSHAKE_DUE != 0 {
        dir.flags &= !HANDSHAKE_DUE;
        dir.body_left = if requests { etcd::PREFACE } else { 0 };
    }
    match step(dir, &framing, payload) {
        Step::Done => false,
        Step::More => true,
        Step::Broken => {
            let is_first = dir.flags & HANDSHAKE_DUE != 0;
            stream::lose_sync(dir, now_ns);
            if is_first && shape.protocol == PROTOCOL_TLS {
                // Nor will it ever be.
                dir.flags |= FOREIGN;
            }
            false
        }
        Step::FrameEnd => {
            if dir.flags & COUNT_AT_END != 0 {
                dir.flags &= !COUNT_AT_END;
                let end = segment_seq.wrapping_add(dir.cursor);
                // SAFETY: as above.
                unsafe { counts(slot, requests, shape, end, now_ns) };
            }
            true
        }
        Step::Gathered => {
            let is_first = dir.flags & HANDSHAKE_DUE != 0;
            dir.flags &= !HANDSHAKE_DUE;
            match understand(dir, shape, requests, now_ns) {
                Next::Part { skip, need }
                    if skip <= dir.frame_left && need <= dir.frame_left - skip =>
                {
                    dir.frame_left = dir.frame_left - skip - need;
                    dir.body_left = skip;
                    dir.head_len = 0;
                    dir.need = need;
                    dir.phase += 1;
                    return true;
                }
                Next::Part { .. } | Next::Rest => {}
                Next::Broken => {
                    stream::lose_sync(dir, now_ns);
                    if is_first && shape.protocol == PROTOCOL_TLS {
                        dir.flags |= FOREIGN;
                    }
                    return false;
                }
            }
            dir.body_left = dir.frame_left;
            (dir.head_len, dir.need, dir.frame_left, dir.phase) = (0, 0, 0, 0);
            if dir.flags & OUTGOING != 0 || dir.body_left == 0 {
                let end = segment_seq
                    .wrapping_add(dir.cursor)
                    .wrapping_add(dir.body_left);
                // SAFETY: as above.
                unsafe { counts(slot, requests, shape, end, now_ns) };
            } else {
                dir.flags |= COUNT_AT_END;
            }
            true
        }
    }
}

/// A message counts.
///
/// # Safety
/// As for [`turn`].
#[inline(always)]
unsafe fn counts(
    slot: *mut FlowSlot,
    requests: bool,
    shape: &EntryShape,
    end_seq: u32,
    now_ns: u64,
) {
    // SAFETY: by contract.
    unsafe {
        if shape.protocol == PROTOCOL_TLS {
            exchange::count_turns(slot, requests, end_seq, now_ns);
            return;
        }
        if shape.protocol == PROTOCOL_ETCD {
            if requests {
                etcd::asked(slot, now_ns);
            } else {
                etcd::telling(slot);
            }
        }
        let note = exchange::count(slot, requests, matching(shape), end_seq, now_ns);
        if shape.protocol == PROTOCOL_KAFKA && !requests {
            kafka::replied(slot, note, end_seq, now_ns);
        }
        if shape.protocol == PROTOCOL_ETCD && note != 0 {
            etcd::answered(slot, note.wrapping_sub(1), now_ns);
        }
    }
}
