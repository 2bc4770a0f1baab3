//! ZooKeeper's frames: what a header means for the flow's slot.
//!
//! In: a complete header in a [`Direction`], the time. Out: newest request, keepalives and their
//! gaps, requests waiting and answered, handshakes, endings. Which direction is which comes from
//! the socket's role, never from the bytes: a zxid's epoch of 11 looks like an operation code.
//!
//! Source of the layouts: ZooKeeper 3.8, zookeeper.jute (ConnectRequest, ConnectResponse,
//! RequestHeader, ReplyHeader), ClientCnxn.java and zookeeper.c for the special xids.

use crate::layout::{
    BY_CALLS, COUNT_AT_END, Direction, FOREIGN, FlowSlot, HANDSHAKE_DUE, MARKS, OUTGOING, REQUESTS,
};
use crate::stream::{self, Framing, Length, Payload, Step};

/// Frames from the holder. A ConnectRequest's first 28 bytes reach past its session id.
pub const REQUEST_FRAMING: Framing = Framing {
    length: Length::PLAIN,
    head: 12,
    handshake_head: 28,
    min_len: 8,
    max_len: MAX_FRAME,
};
/// Frames from the grantor. Both a reply header and a ConnectResponse need 20 bytes.
pub const REPLY_FRAMING: Framing = Framing {
    length: Length::PLAIN,
    head: 20,
    handshake_head: 20,
    min_len: 16,
    max_len: MAX_FRAME,
};
/// The longest frame taken for one: `jute.maxbuffer` is 1 MiB by default and set to 64 MiB at
/// most in practice. A four-letter word read as a length is far above (`mntr` is 0x6d6e7472).
pub const MAX_FRAME: u32 = 64 * 1024 * 1024;

/// xid of a watch event, which answers nothing (ClientCnxn.NOTIFICATION_XID).
pub const XID_WATCH: i32 = -1;
/// xid of a ping (ClientCnxn.PING_XID).
pub const XID_PING: i32 = -2;
/// xid of an auth packet (ClientCnxn.AUTHPACKET_XID).
pub const XID_AUTH: i32 = -4;
/// Operation: close the session (ZooDefs.OpCode.closeSession).
pub const OP_CLOSE: i32 = -11;
/// Operation: auth (ZooDefs.OpCode.auth).
pub const OP_AUTH: i32 = 100;
/// Operation: SASL (ZooDefs.OpCode.sasl).
pub const OP_SASL: i32 = 102;
/// Reply error: the session has expired (KeeperException.Code.SESSIONEXPIRED).
pub const ERR_EXPIRED: i32 = -112;
/// Stands for the handshake among the marks; no client counts down to it.
pub const XID_HANDSHAKE: i32 = i32::MIN;

/// How a direction's frames look.
#[inline(always)]
#[must_use]
pub fn framing(flags: u32) -> &'static Framing {
    if flags & REQUESTS != 0 {
        &REQUEST_FRAMING
    } else {
        &REPLY_FRAMING
    }
}

/// One turn of the parser over the payload at hand; true while there is more to do.
///
/// # Safety
/// `slot` points to a flow slot whose direction (requests or replies, by `requests`) this caller
/// has locked. The other direction may be written by another CPU meanwhile: only its `marks`
/// counter is read (and the shared ring, whose entries are handed over by that counter).
#[inline(always)]
pub unsafe fn turn<P: Payload>(
    slot: *mut FlowSlot,
    requests: bool,
    payload: &P,
    segment_seq: u32,
    now_ns: u64,
) -> bool {
    let framing = if requests {
        &REQUEST_FRAMING
    } else {
        &REPLY_FRAMING
    };
    // SAFETY: by this function's contract the direction is ours alone.
    let dir = unsafe {
        if requests {
            &mut (*slot).requests
        } else {
            &mut (*slot).replies
        }
    };
    match stream::step(dir, framing, payload) {
        Step::Done => false,
        Step::More => true,
        Step::Unreadable => {
            stream::lose_sync(dir, now_ns);
            false
        }
        Step::FrameEnd => {
            if dir.flags & COUNT_AT_END != 0 {
                dir.flags &= !COUNT_AT_END;
                let end = segment_seq.wrapping_add(dir.cursor);
                // SAFETY: as above.
                unsafe { count(slot, requests, end, now_ns) };
            }
            true
        }
        Step::Header => {
            let handshake = dir.flags & HANDSHAKE_DUE != 0;
            if !understand(dir, requests, handshake, now_ns) || !stream::accept(dir, framing) {
                if handshake {
                    dir.flags |= FOREIGN;
                }
                stream::lose_sync(dir, now_ns);
                return false;
            }
            if dir.flags & OUTGOING != 0 || dir.body_left == 0 {
                let end = segment_seq
                    .wrapping_add(dir.cursor)
                    .wrapping_add(dir.body_left);
                // SAFETY: as above.
                unsafe { count(slot, requests, end, now_ns) };
            } else {
                dir.flags |= COUNT_AT_END;
            }
            true
        }
    }
}

/// Reads the header in `head`. False: this is no ZooKeeper frame.
#[inline(always)]
fn understand(dir: &mut Direction, requests: bool, handshake: bool, now_ns: u64) -> bool {
    if handshake {
        // proto is 0 in both; a ConnectRequest is 44 or 45 long, a ConnectResponse 36 or 37, more
        // with a longer password.
        let len = stream::head_u32(dir, 0);
        if stream::head_u32(dir, 4) != 0 || !(36..=1024).contains(&len) {
            return false;
        }
        dir.handshake.at_ns = now_ns;
        if requests {
            dir.handshake.timeout_ms = stream::head_u32(dir, 16) as i32;
            dir.handshake.session = stream::head_u64(dir, 20);
        } else {
            dir.handshake.timeout_ms = stream::head_u32(dir, 8) as i32;
            dir.handshake.session = stream::head_u64(dir, 12);
        }
        dir.pending_xid = XID_HANDSHAKE;
        dir.pending_err = 0;
        return true;
    }
    let xid = stream::head_u32(dir, 4) as i32;
    dir.pending_xid = xid;
    dir.pending_err = 0;
    if requests {
        let op = stream::head_u32(dir, 8) as i32;
        // Operation codes run from -11 to 107 (3.9), and some room is left above.
        if !(-20..=1000).contains(&op) {
            return false;
        }
        if op == OP_CLOSE {
            dir.ending_ns = now_ns;
        }
        // Auth and SASL are answered at once by the thread that reads them, out of the order of
        // the pipeline (ZooKeeperServer.processPacket), so they cannot be matched in order.
        if op == OP_AUTH || op == OP_SASL || xid == XID_AUTH {
            dir.pending_xid = XID_AUTH;
        }
    } else {
        let err = stream::head_u32(dir, 16) as i32;
        // KeeperException codes lie between -1000 and 0.
        if !(-1000..=0).contains(&err) {
            return false;
        }
        dir.pending_err = err;
        if err == ERR_EXPIRED {
            dir.ending_ns = now_ns;
        }
    }
    true
}

/// A message counts: it was sent, or all of it has arrived.
///
/// # Safety
/// As for [`turn`].
#[inline(always)]
unsafe fn count(slot: *mut FlowSlot, requests: bool, end_seq: u32, now_ns: u64) {
    if requests {
        // SAFETY: the requests' direction is locked by this caller.
        let dir = unsafe { &mut (*slot).requests };
        let xid = dir.pending_xid;
        // SAFETY: a racy read of one word, see `note_message`.
        let read_seq = unsafe { core::ptr::read_volatile(&raw const (*slot).reads.read_seq) };
        note_message(dir, end_seq, read_seq, now_ns, xid == XID_PING);
        if xid == XID_AUTH {
            return;
        }
        // SAFETY: a racy read of a counter that only grows: at worst the ring looks fuller.
        let tail = unsafe { core::ptr::read_volatile(&raw const (*slot).replies.marks) };
        let head = dir.marks;
        if head.wrapping_sub(tail) < MARKS as u32 {
            let at = (head as usize) & (MARKS - 1);
            // SAFETY: entries from tail to head belong to the replies, this one to us.
            unsafe {
                (*slot).unanswered[at].xid = xid;
                core::ptr::write_volatile(&raw mut (*slot).unanswered[at].at_ns, now_ns);
            }
            dir.marks = head.wrapping_add(1);
        }
        // A full ring leaves requests out, so "answered" lags behind: early, never late.
    } else {
        // SAFETY: the replies' direction is locked by this caller.
        let dir = unsafe { &mut (*slot).replies };
        let xid = dir.pending_xid;
        // SAFETY: a racy read of one word, see `note_message`.
        let read_seq = unsafe { core::ptr::read_volatile(&raw const (*slot).reads.read_seq) };
        note_message(dir, end_seq, read_seq, now_ns, false);
        if xid == XID_WATCH {
            // Not an answer, though the application has to read it as well.
            return;
        }
        // SAFETY: see above.
        let head = unsafe { core::ptr::read_volatile(&raw const (*slot).requests.marks) };
        let tail = dir.marks;
        if head == tail {
            return;
        }
        // Replies come in the order of the requests, so the oldest mark of that xid is the one,
        // nearly always the oldest mark of all. What lies before it was answered unseen.
        let mut past = 0;
        while past < MARKS as u32 {
            let mark = tail.wrapping_add(past);
            if mark == head {
                return;
            }
            let at = (mark as usize) & (MARKS - 1);
            // SAFETY: entries from tail to head are ours to read.
            let (mark_xid, mark_ns) =
                unsafe { ((*slot).unanswered[at].xid, (*slot).unanswered[at].at_ns) };
            if mark_xid == xid {
                dir.answered_ns = mark_ns;
                dir.rtt_ns = now_ns.saturating_sub(mark_ns);
                dir.answers += 1;
                dir.marks = mark.wrapping_add(1);
                return;
            }
            past += 1;
        }
    }
}

/// Stamps a message in its direction. `read_seq`: how far the application has read; where the
/// read hook is at work on another CPU it may be one read old, which makes an unread message look
/// unread for longer by the time between the two messages.
#[inline(always)]
pub(crate) fn note_message(
    dir: &mut Direction,
    end_seq: u32,
    read_seq: u32,
    now_ns: u64,
    keepalive: bool,
) {
    if keepalive {
        dir.keepalive_gap_ns = if dir.newest_ns == 0 {
            0
        } else {
            now_ns.saturating_sub(dir.newest_ns)
        };
        dir.keepalives = dir.keepalives.wrapping_add(1);
    }
    reaches(dir, end_seq, read_seq, now_ns);
    dir.newest_ns = now_ns;
    dir.messages += 1;
}

/// A message, or more of it, ends at `end_seq`: whoever has read that far has read it.
#[inline(always)]
pub(crate) fn reaches(dir: &mut Direction, end_seq: u32, read_seq: u32, now_ns: u64) {
    if dir.flags & OUTGOING == 0 {
        if dir.flags & BY_CALLS != 0 {
            // Of what came through a call it is the packets that tell how far it is read.
            return;
        }
        if read_seq.wrapping_sub(dir.unread_end_seq) as i32 >= 0 {
            dir.unread_end_seq = end_seq;
            dir.unread_at_ns = now_ns;
        }
    }
    dir.newest_end_seq = end_seq;
}
