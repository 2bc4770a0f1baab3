//! Follows the frames of one direction of one TCP flow, whatever segments they come in.
//!
//! In: segments (sequence number, length, bytes), in any order, repeated, with holes. Out: "a
//! header is complete", "a frame is complete". Frames say their length near their beginning.
//! Never: a guess. A hole inside a body is subtracted; a short early segment waits for the hole
//! before it to be filled; anything else is *unsynchronised* until an anchor is seen: a segment
//! that is exactly one frame, or one that ends with the length, followed by exactly as many bytes as
//! that says.
//!
//! Everything that one turn of the loop leaves to the next lives in the [`Direction`], since the
//! kernel's verifier would otherwise follow each of its values separately.

use crate::layout::{
    AT_BOUNDARY, CANDIDATE, COUNT_AT_END, Direction, EARLY, EDGE_KNOWN, FOREIGN, HANDSHAKE_DUE,
    HEAD, HEAD_MOST, LENGTH_WITHIN, OUTGOING, SYNCED,
};

/// Where a segment's bytes are had from: a packet in the kernel, a slice in a test.
pub trait Payload {
    /// Copies `len` bytes (1 to 28) at `offset` of the payload to `dst`.
    ///
    /// # Safety
    /// `dst` is valid for writing `len` bytes.
    unsafe fn copy(&self, offset: u32, dst: *mut u8, len: u32) -> bool;
}

/// How a frame says its length.
#[derive(Clone, Copy)]
pub struct Length {
    /// Where in the frame the field begins.
    pub at: u32,
    /// Its width, 1 to 4 bytes. It ends within [`LENGTH_WITHIN`].
    pub bytes: u32,
    /// Whether it is little-endian.
    pub little: bool,
    /// Added to its value it gives the whole frame's length.
    pub adjust: i32,
}

impl Length {
    /// A big-endian word that does not count itself, at the very beginning.
    pub const PLAIN: Self = Self {
        at: 0,
        bytes: 4,
        little: false,
        adjust: 4,
    };

    /// Bytes of a frame by whose end its length is known.
    #[inline(always)]
    #[must_use]
    pub const fn prefix(&self) -> u32 {
        self.at.wrapping_add(self.bytes)
    }

    /// The field's value, in a frame whose first bytes lie at `room` of `head`.
    #[inline(always)]
    fn value(&self, dir: &Direction, room: usize) -> u32 {
        if self.at == 0 && self.bytes == 4 && !self.little {
            return head_u32(dir, room);
        }
        let mut value = 0_u32;
        let mut n = 0;
        while n < 4 {
            if n < self.bytes {
                // A mask, for the verifier; by configuration the field ends within.
                let at = self.at.wrapping_add(n) as usize & (LENGTH_WITHIN - 1);
                let byte = u32::from(dir.head[room + at]);
                value = if self.little {
                    value | byte << (8 * n)
                } else {
                    value << 8 | byte
                };
            }
            n += 1;
        }
        value
    }
}

/// What a protocol says of a direction's frames.
#[derive(Clone, Copy)]
pub struct Framing {
    /// How their length is told.
    pub length: Length,
    /// Bytes of an ordinary frame that must be seen, length field included.
    pub head: u32,
    /// Bytes of the handshake frame that must be seen.
    pub handshake_head: u32,
    /// Smallest length field.
    pub min_len: u32,
    /// Largest length field.
    pub max_len: u32,
}

impl Framing {
    /// The whole length of the frame whose first bytes lie at `room` of `head`; 0: it is absurd.
    #[inline(always)]
    #[must_use]
    pub fn total(&self, dir: &Direction, room: usize) -> u32 {
        let value = self.length.value(dir, room);
        if value < self.min_len || value > self.max_len {
            return 0;
        }
        let total = value.wrapping_add(self.length.adjust as u32);
        if total < self.length.prefix() || total > TOTAL_MOST {
            return 0;
        }
        total
    }
}

/// No frame is longer: 64 MiB and what stands before it.
const TOTAL_MOST: u32 = 64 * 1024 * 1024 + 64;

/// What to do with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enter {
    /// Nothing in it is new, or nothing can be made of it.
    Skip,
    /// Run [`step`] until it says `Done`, then [`leave`].
    Run,
    /// It is early and short: copy its bytes to `early` (at most [`EARLY`]), then it is done.
    Stash,
}

/// One turn's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The payload is used up.
    Done,
    /// Go on.
    More,
    /// `head` holds a frame's first bytes; `cursor` stands behind them.
    Header,
    /// The last byte of a frame's body was seen.
    FrameEnd,
    /// A byte could not be read.
    Unreadable,
}

/// Big-endian 32 bits at `at` of the gathered header.
#[inline(always)]
#[must_use]
pub fn head_u32(dir: &Direction, at: usize) -> u32 {
    u32::from_be_bytes([
        dir.head[at],
        dir.head[at + 1],
        dir.head[at + 2],
        dir.head[at + 3],
    ])
}

/// Big-endian 64 bits at `at` of the gathered header.
#[inline(always)]
#[must_use]
pub fn head_u64(dir: &Direction, at: usize) -> u64 {
    (u64::from(head_u32(dir, at)) << 32) | u64::from(head_u32(dir, at + 4))
}

/// The stream begins here: `next_seq` is the first byte of the handshake.
#[inline(always)]
pub fn begin(dir: &mut Direction, next_seq: u32) {
    dir.flags |= SYNCED | HANDSHAKE_DUE | EDGE_KNOWN;
    dir.edge_seq = next_seq;
    dir.next_seq = next_seq;
    dir.newest_end_seq = next_seq;
    dir.unread_end_seq = next_seq;
}

/// Gives up the frame boundary.
#[inline(always)]
pub fn lose_sync(dir: &mut Direction, now_ns: u64) {
    if dir.flags & SYNCED != 0 {
        dir.lost_sync_ns = now_ns;
        dir.lost_syncs = dir.lost_syncs.wrapping_add(1);
    }
    // A handshake that was due may lie in what was not seen: from here on a frame is a frame.
    dir.flags &= !(SYNCED | CANDIDATE | HANDSHAKE_DUE | COUNT_AT_END);
    dir.body_left = 0;
    dir.head_len = 0;
    dir.early_len = 0;
    (dir.need, dir.frame_left, dir.phase) = (0, 0, 0);
}

/// Looks at a segment of `len` bytes at `seq` and says what to do with it.
#[inline(always)]
pub fn enter<P: Payload>(
    dir: &mut Direction,
    framing: &Framing,
    seq: u32,
    len: u32,
    now_ns: u64,
    payload: &P,
) -> Enter {
    if dir.flags & FOREIGN != 0 {
        return Enter::Skip;
    }
    dir.cursor = 0;
    dir.limit = len;
    if dir.flags & AT_BOUNDARY != 0 {
        dir.flags = (dir.flags & !AT_BOUNDARY) | SYNCED;
        dir.next_seq = seq;
    }
    if dir.flags & SYNCED != 0 {
        let ahead = seq.wrapping_sub(dir.next_seq) as i32;
        if ahead <= 0 {
            let old = ahead.unsigned_abs();
            if old >= len {
                return Enter::Skip;
            }
            dir.cursor = old;
            return Enter::Run;
        }
        let hole = ahead as u32;
        if hole <= dir.body_left {
            // The hole lies inside a body, of which nothing is ever read.
            dir.body_left -= hole;
            dir.next_seq = seq;
            return Enter::Run;
        }
        // What leaves the host is seen in order: there a hole is something missed, never to be
        // filled. And a segment that shows by itself where frames begin need not wait.
        let wait = dir.flags & OUTGOING == 0 && !is_one_frame(dir, framing, len, payload);
        if wait && dir.early_len == 0 && len <= EARLY as u32 {
            dir.early_seq = seq;
            dir.early_len = len;
            return Enter::Stash;
        }
        lose_sync(dir, now_ns);
    }
    anchor(dir, framing, seq, len, payload)
}

/// Copies a segment's bytes as far as they tell its first frame's length to `room` of `head`.
#[inline(always)]
fn copy_prefix<P: Payload>(
    dir: &mut Direction,
    framing: &Framing,
    room: usize,
    payload: &P,
) -> bool {
    let prefix = framing.length.prefix();
    // An old verifier does not learn 1 ≤ n ≤ 16 from a test against 0; it does from n − 1 < 16.
    let bounded = core::hint::black_box(u64::from(prefix.wrapping_sub(1)));
    if bounded >= LENGTH_WITHIN as u64 {
        return false;
    }
    // SAFETY: callers leave LENGTH_WITHIN bytes behind `room`.
    unsafe { payload.copy(0, dir.head.as_mut_ptr().add(room), bounded as u32 + 1) }
}

/// Whether the segment is exactly one frame. Reads into the room behind the gathered header, of
/// which nothing may be lost yet.
#[inline(always)]
fn is_one_frame<P: Payload>(dir: &mut Direction, framing: &Framing, len: u32, payload: &P) -> bool {
    // The last of `head`'s bytes, where no header ever reaches.
    const ROOM: usize = HEAD - LENGTH_WITHIN;
    if len < framing.head || len < framing.length.prefix() {
        return false;
    }
    copy_prefix(dir, framing, ROOM, payload) && framing.total(dir, ROOM) == len
}

/// Unsynchronised: is this segment one that shows where frames begin?
#[inline(always)]
fn anchor<P: Payload>(
    dir: &mut Direction,
    framing: &Framing,
    seq: u32,
    len: u32,
    payload: &P,
) -> Enter {
    let prefix = framing.length.prefix();
    if dir.flags & CANDIDATE != 0 {
        dir.flags &= !CANDIDATE;
        if seq == dir.next_seq && framing.total(dir, 0).wrapping_sub(prefix) == len {
            // The bytes before said so, and exactly so many have come.
            dir.head_len = prefix;
            dir.flags |= SYNCED;
            return Enter::Run;
        }
        dir.head_len = 0;
    }
    if len < prefix {
        return Enter::Skip;
    }
    if !copy_prefix(dir, framing, 0, payload) {
        return Enter::Skip;
    }
    let total = framing.total(dir, 0);
    if total == 0 {
        return Enter::Skip;
    }
    if len == prefix && total > prefix {
        dir.flags |= CANDIDATE;
        dir.next_seq = seq.wrapping_add(prefix);
        return Enter::Skip;
    }
    if total == len {
        dir.flags |= SYNCED;
        dir.next_seq = seq;
        dir.body_left = 0;
        dir.head_len = 0;
        return Enter::Run;
    }
    Enter::Skip
}

/// One turn: skips body bytes or gathers header bytes.
#[inline(always)]
pub fn step<P: Payload>(dir: &mut Direction, framing: &Framing, payload: &P) -> Step {
    if dir.flags & SYNCED == 0 || dir.cursor >= dir.limit {
        return Step::Done;
    }
    if dir.body_left == 0 && dir.flags & COUNT_AT_END != 0 {
        // Its last bytes lay in a hole.
        return Step::FrameEnd;
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
        return if dir.body_left == 0 {
            Step::FrameEnd
        } else {
            Step::More
        };
    }
    let need = if dir.flags & HANDSHAKE_DUE != 0 {
        framing.handshake_head
    } else {
        framing.head
    };
    let have = dir.head_len;
    if have >= need || have > 27 {
        // Cannot be: a complete header is taken away at once. The verifier has to be told.
        dir.head_len = 0;
        return Step::More;
    }
    let missing = need - have;
    let take = if missing < left { missing } else { left };
    // An old verifier does not learn 1 ≤ n ≤ 28 from a test against 0; it does from n − 1 ≤ 27.
    let bounded = core::hint::black_box(u64::from(take.wrapping_sub(1)));
    if bounded > 27 {
        return Step::Done;
    }
    let take = bounded as u32 + 1;
    // SAFETY: have ≤ 27 and take ≤ 28, so the end is within HEAD (128).
    let copied =
        unsafe { payload.copy(dir.cursor, dir.head.as_mut_ptr().add(have as usize), take) };
    if !copied {
        return Step::Unreadable;
    }
    dir.cursor += take;
    dir.head_len = have + take;
    if dir.head_len == need {
        Step::Header
    } else {
        Step::More
    }
}

/// The header in `head` is understood: the rest of its frame is body. False: the length is absurd.
#[inline(always)]
pub fn accept(dir: &mut Direction, framing: &Framing) -> bool {
    let frame = head_u32(dir, 0);
    if frame < framing.min_len || frame > framing.max_len {
        return false;
    }
    let seen = dir.head_len;
    dir.head_len = 0;
    dir.flags &= !HANDSHAKE_DUE;
    dir.body_left = (frame + 4).saturating_sub(seen);
    true
}

/// The payload of `len` bytes at `seq` is used up. True: the stashed early segment is next; run
/// the loop again over its `early_len` bytes, then call [`leave_early`].
#[inline(always)]
pub fn leave(dir: &mut Direction, seq: u32, len: u32) -> bool {
    if dir.flags & SYNCED == 0 {
        return false;
    }
    dir.next_seq = seq.wrapping_add(len);
    if dir.early_len == 0 {
        return false;
    }
    let ahead = dir.early_seq.wrapping_sub(dir.next_seq) as i32;
    if ahead > 0 {
        let hole = ahead as u32;
        if hole > dir.body_left {
            return false;
        }
        dir.body_left -= hole;
        dir.next_seq = dir.early_seq;
        dir.cursor = 0;
        dir.limit = dir.early_len;
        return true;
    }
    let old = ahead.unsigned_abs();
    if old >= dir.early_len {
        dir.early_len = 0;
        return false;
    }
    dir.cursor = old;
    dir.limit = dir.early_len;
    true
}

/// The stashed segment is used up.
#[inline(always)]
pub fn leave_early(dir: &mut Direction) {
    if dir.flags & SYNCED != 0 {
        dir.next_seq = dir.early_seq.wrapping_add(dir.early_len);
    }
    dir.early_len = 0;
}

const _: () = assert!(HEAD >= 27 + 28 && HEAD >= HEAD_MOST + LENGTH_WITHIN);
