//! Packets: renewals sent and answered, handshakes, acknowledgements.
//!
//! Hooks: cgroup_skb ingress and egress on the cgroup v2 root. Writes the slot's two directions
//! and `life.acked_seq`. Egress runs under the socket's lock and in order; ingress runs outside
//! of it, before TCP drops duplicates, and on two CPUs at once: hence a lock per direction.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_get_socket_cookie, bpf_probe_read_kernel, bpf_skb_load_bytes},
    },
};
use watchdog_common::{
    flow::{self, Turns},
    frames,
    layout::{
        BY_CALLS, Direction, EARLY, EntryShape, FlowSlot, ORIGIN_PACKET, PROTOCOL_ZOOKEEPER,
        ROLE_GRANTOR, ROLE_HOLDER, SLOT_DEAD,
    },
    plaintext,
    stream::Payload,
    zookeeper,
};

use crate::{
    maps::{self, PORTS},
    plaintext as calls,
    sockets::{self, Identity},
    sync,
};

/// TCP_CLOSE (include/net/tcp_states.h).
const TCP_CLOSE: u32 = 7;

/// Verdict of a cgroup_skb program: let it pass.
pub const PASS: i32 = 1;
/// TCP_ESTABLISHED (include/net/tcp_states.h).
const ESTABLISHED: u32 = 1;
/// The parser's turns per segment: every header takes two, and the largest super-segment seen
/// (131,018 bytes) holds 10,918 pings.
#[cfg(not(feature = "old"))]
const MAX_TURNS: u32 = 1 << 15;
const IP_TCP: u8 = 6;
const TCP_ACK: u8 = 0x10;
const TCP_SYN: u8 = 0x02;

/// What the headers say.
struct Segment {
    seq: u32,
    ack: u32,
    has_ack: bool,
    syn: bool,
    payload_at: u32,
    len: u32,
    source: [u32; 4],
    destination: [u32; 4],
}

/// Bytes of the packet.
struct Packet {
    skb: *mut __sk_buff,
    payload_at: u32,
}

impl Payload for Packet {
    #[inline(always)]
    unsafe fn copy(&self, offset: u32, dst: *mut u8, len: u32) -> bool {
        // SAFETY: by the trait's contract; the helper checks the packet's end.
        unsafe {
            bpf_skb_load_bytes(self.skb.cast(), self.payload_at + offset, dst.cast(), len) == 0
        }
    }
}

/// Bytes of the stashed early segment.
struct Stashed {
    early: *const u8,
}

impl Payload for Stashed {
    #[inline(always)]
    unsafe fn copy(&self, offset: u32, dst: *mut u8, len: u32) -> bool {
        // A mask, since the verifier does not carry `cursor < limit` here from where it was tested.
        let offset = core::hint::black_box(u64::from(offset)) & (EARLY as u64 - 1);
        // SAFETY: a read of map memory that the helper makes safely; what lies behind the stash
        // in the slot is never read, since the parser stops at `limit`.
        unsafe {
            bpf_probe_read_kernel(dst.cast(), len, self.early.add(offset as usize).cast()) == 0
        }
    }
}

/// One packet of any socket on the node.
#[inline(always)]
pub fn packet(skb: *mut __sk_buff, outgoing: bool) {
    let Some(ports) = PORTS.get_ptr(0) else {
        return;
    };
    // SAFETY: plain context fields.
    let (local, remote) = unsafe {
        (
            (*skb).local_port as u16,
            u32::from_be((*skb).remote_port) as u16,
        )
    };
    let mut entry = maps::port_entry(ports, local);
    let mut role = ROLE_GRANTOR;
    let peer_entry = maps::port_entry(ports, remote);
    if peer_entry != 0 && (entry == 0 || remote < local) {
        // Both may be watched: a port range that takes in ephemeral ports. Of a flow in
        // mid-stream nothing tells then which end listens, and the lower port is the likelier.
        entry = peer_entry;
        role = ROLE_HOLDER;
    }
    if entry == 0 {
        return;
    }
    watched(skb, outgoing, local, remote, role, entry);
}

#[inline(always)]
fn watched(
    skb: *mut __sk_buff,
    outgoing: bool,
    local_port: u16,
    peer_port: u16,
    role: u8,
    entry: u8,
) {
    // SAFETY: plain context field, may be null.
    let sk = unsafe { (*skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return;
    }
    let Some(segment) = headers(skb) else {
        // SAFETY: a field of a map value.
        maps::lose(|losses| unsafe { &raw mut (*losses).unreadable });
        return;
    };
    if segment.syn {
        return;
    }
    // SAFETY: the program's context.
    let cookie = || unsafe { bpf_get_socket_cookie(skb.cast()) };
    let key = sockets::key(sk.cast(), cookie);
    // SAFETY: not null.
    let slot = match unsafe { sockets::slot_of(key) } {
        Some(slot) => slot,
        None => {
            // SAFETY: not null; the field is readable for every kind of socket.
            if segment.len == 0 || unsafe { (*sk).state } != ESTABLISHED {
                return;
            }
            let (local_addr, peer_addr) = if outgoing {
                (segment.source, segment.destination)
            } else {
                (segment.destination, segment.source)
            };
            let who = Identity {
                local_addr,
                peer_addr,
                local_port,
                peer_port,
                role,
                entry: entry - 1,
                cookie: cookie(),
            };
            // SAFETY: not null.
            match unsafe { sockets::open(sk.cast(), key, &who, ORIGIN_PACKET, None) } {
                // A packet that comes in is seen before its socket is locked (tcp_v4_rcv filters
                // first): another CPU may have told this socket's end already, to a slot before
                // this one or to none. Who ends later than this look meets the slot.
                // SAFETY: a plain field of the socket.
                Some(slot) if unsafe { (*sk).state } == TCP_CLOSE => {
                    // SAFETY: a field of a flow slot.
                    unsafe { (&raw mut (*slot).state).write_volatile(SLOT_DEAD) };
                    // SAFETY: not null.
                    unsafe { sockets::gone(key) };
                    return;
                }
                Some(slot) => slot,
                None => return,
            }
        }
    };
    // SAFETY: a flow slot.
    unsafe {
        if !outgoing && segment.has_ack {
            acknowledged(slot, segment.ack);
        }
        if segment.len == 0 {
            return;
        }
        let requests = ((*slot).role == ROLE_HOLDER) == outgoing;
        if requests {
            feed::<true>(slot, skb, &segment, outgoing);
        } else {
            feed::<false>(slot, skb, &segment, outgoing);
        }
    }
}

/// The peer's TCP has everything before `ack`.
///
/// # Safety
/// `slot` is a flow slot.
#[inline(always)]
unsafe fn acknowledged(slot: *mut FlowSlot, ack: u32) {
    // SAFETY: single words; two CPUs may race, and the next acknowledgement mends it.
    unsafe {
        let known = (*slot).life.acked_known != 0;
        if known && (ack.wrapping_sub((*slot).life.acked_seq) as i32) <= 0 {
            return;
        }
        (*slot).life.acked_seq = ack;
        (*slot).life.acked_known = 1;
        (*slot).life.retransmits_at_ack = (*slot).life.retransmits;
    }
}

/// Runs the parser over a segment's payload.
///
/// # Safety
/// `slot` is a flow slot and the segment belongs to its direction `REQUESTS`.
#[inline(always)]
unsafe fn feed<const REQUESTS: bool>(
    slot: *mut FlowSlot,
    skb: *mut __sk_buff,
    segment: &Segment,
    outgoing: bool,
) {
    // SAFETY: by contract.
    unsafe {
        let dir: *mut Direction = if REQUESTS {
            &raw mut (*slot).requests
        } else {
            &raw mut (*slot).replies
        };
        if !sync::lock(&raw mut (*dir).version) {
            // As if the segment were lost: a hole, which the parser knows how to meet.
            maps::lose(|losses| &raw mut (*losses).contended);
            return;
        }
        let now = bpf_ktime_get_ns();
        let payload = Packet {
            skb,
            payload_at: segment.payload_at,
        };
        let at = flow::Segment {
            seq: segment.seq,
            len: segment.len,
            outgoing,
        };
        let by_calls = (*dir).flags & BY_CALLS != 0;
        if by_calls && !calls::is_over(slot, REQUESTS, now) {
            plaintext::passes(slot, REQUESTS, at, now);
        } else if (*slot).protocol == PROTOCOL_ZOOKEEPER {
            let mut turns = Loop::<REQUESTS> {
                skb,
                payload_at: segment.payload_at,
            };
            flow::segment(slot, REQUESTS, at, now, &payload, &mut turns);
        } else if let Some(shape) = maps::shape((*slot).entry) {
            let mut turns = ShapedLoop::<REQUESTS> {
                skb,
                payload_at: segment.payload_at,
                shape,
            };
            flow::shaped(slot, REQUESTS, &*shape, at, now, &payload, &mut turns);
        }
        sync::unlock(&raw mut (*dir).version);
    }
}

/// Repeats the parser's turns.
struct Loop<const REQUESTS: bool> {
    skb: *mut __sk_buff,
    payload_at: u32,
}

impl<const REQUESTS: bool> Turns for Loop<REQUESTS> {
    #[inline(always)]
    unsafe fn over_segment(&mut self, slot: *mut FlowSlot, seq: u32, now: u64) {
        let (skb, payload_at) = (self.skb, self.payload_at);
        let mut turn = Turn {
            slot,
            skb,
            now,
            payload_at,
            seq,
        };
        repeat::packet::<REQUESTS>(&mut turn);
    }

    #[inline(always)]
    unsafe fn over_stash(&mut self, slot: *mut FlowSlot, seq: u32, now: u64) {
        let (skb, payload_at) = (self.skb, self.payload_at);
        let mut turn = Turn {
            slot,
            skb,
            now,
            payload_at,
            seq,
        };
        repeat::stashed::<REQUESTS>(&mut turn);
    }

    #[inline(always)]
    unsafe fn stash(&mut self, dst: *mut u8, len: u32) {
        // SAFETY: by the trait's contract.
        unsafe { bpf_skb_load_bytes(self.skb.cast(), self.payload_at, dst.cast(), len) };
    }
}

/// The same for an entry with a shape.
struct ShapedLoop<const REQUESTS: bool> {
    skb: *mut __sk_buff,
    payload_at: u32,
    shape: *const EntryShape,
}

impl<const REQUESTS: bool> ShapedLoop<REQUESTS> {
    #[inline(always)]
    fn turn(&self, slot: *mut FlowSlot, seq: u32, now: u64) -> ShapedTurn {
        ShapedTurn {
            turn: Turn {
                slot,
                skb: self.skb,
                now,
                payload_at: self.payload_at,
                seq,
            },
            shape: self.shape,
        }
    }
}

impl<const REQUESTS: bool> Turns for ShapedLoop<REQUESTS> {
    #[inline(always)]
    unsafe fn over_segment(&mut self, slot: *mut FlowSlot, seq: u32, now: u64) {
        repeat::shaped_packet::<REQUESTS>(&mut self.turn(slot, seq, now));
    }

    #[inline(always)]
    unsafe fn over_stash(&mut self, slot: *mut FlowSlot, seq: u32, now: u64) {
        repeat::shaped_stashed::<REQUESTS>(&mut self.turn(slot, seq, now));
    }

    #[inline(always)]
    unsafe fn stash(&mut self, dst: *mut u8, len: u32) {
        // SAFETY: by the trait's contract.
        unsafe { bpf_skb_load_bytes(self.skb.cast(), self.payload_at, dst.cast(), len) };
    }
}

/// What the loop's body is given for an entry with a shape.
struct ShapedTurn {
    turn: Turn,
    shape: *const EntryShape,
}

extern "C" fn shaped_packet<const REQUESTS: bool>(_index: u32, at: *mut ShapedTurn) -> i64 {
    // SAFETY: called by bpf_loop with the ShapedTurn given to it, under the direction's lock.
    unsafe {
        let turn = &(*at).turn;
        let payload = Packet {
            skb: turn.skb,
            payload_at: turn.payload_at,
        };
        let shape = &*(*at).shape;
        let more = frames::turn(turn.slot, REQUESTS, shape, &payload, turn.seq, turn.now);
        i64::from(!more)
    }
}

extern "C" fn shaped_stashed<const REQUESTS: bool>(_index: u32, at: *mut ShapedTurn) -> i64 {
    // SAFETY: as above.
    unsafe {
        let turn = &(*at).turn;
        let early = if REQUESTS {
            (&raw const (*turn.slot).requests.early).cast()
        } else {
            (&raw const (*turn.slot).replies.early).cast()
        };
        let shape = &*(*at).shape;
        let stashed = Stashed { early };
        let more = frames::turn(turn.slot, REQUESTS, shape, &stashed, turn.seq, turn.now);
        i64::from(!more)
    }
}

/// What the loop's body is given. Nothing in it changes while the loop runs.
struct Turn {
    slot: *mut FlowSlot,
    skb: *mut __sk_buff,
    now: u64,
    payload_at: u32,
    seq: u32,
}

/// With bpf_loop (≥ 5.17).
#[cfg(not(feature = "old"))]
mod repeat {
    use core::ffi::c_void;

    use aya_ebpf::helpers::generated::bpf_loop;

    use super::{MAX_TURNS, ShapedTurn, Turn, turn_packet, turn_stashed};

    #[inline(always)]
    pub fn packet<const REQUESTS: bool>(turn: &mut Turn) {
        run(turn_packet::<REQUESTS> as *const () as *mut c_void, turn);
    }

    #[inline(always)]
    pub fn stashed<const REQUESTS: bool>(turn: &mut Turn) {
        run(turn_stashed::<REQUESTS> as *const () as *mut c_void, turn);
    }

    #[inline(always)]
    pub fn shaped_packet<const REQUESTS: bool>(turn: &mut ShapedTurn) {
        run(
            super::shaped_packet::<REQUESTS> as *const () as *mut c_void,
            turn,
        );
    }

    #[inline(always)]
    pub fn shaped_stashed<const REQUESTS: bool>(turn: &mut ShapedTurn) {
        run(
            super::shaped_stashed::<REQUESTS> as *const () as *mut c_void,
            turn,
        );
    }

    #[inline(always)]
    fn run<T>(body: *mut c_void, turn: &mut T) {
        // SAFETY: the body takes a T.
        unsafe { bpf_loop(MAX_TURNS, body, core::ptr::from_mut(turn).cast(), 0) };
    }
}

/// With a loop around a function that the verifier checks by itself, once (a global one: what it
/// knows of the arguments is their types). So a turn in the loop costs it a few instructions, however
/// much the parser does. Who sends more messages in one segment is out of step until a segment shows
/// where frames begin.
#[cfg(feature = "old")]
mod repeat {
    use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_get_socket_cookie};
    use watchdog_common::{layout::PROTOCOL_ZOOKEEPER, stream};

    use super::{ShapedTurn, Turn, shaped_packet as shaped, shaped_stashed as shaped_early};
    use super::{turn_packet, turn_stashed};
    use crate::{
        maps::{self, FLOWS},
        sockets,
    };

    /// The parser's turns per segment, two for each of 512 messages.
    const TURNS: u32 = 1024;

    /// Which direction and which bytes, beside the slot's index.
    const REQUEST: u32 = 1;
    const STASH: u32 = 2;
    const BITS: u32 = 2;

    #[inline(always)]
    pub fn packet<const REQUESTS: bool>(turn: &mut Turn) {
        run::<REQUESTS>(turn, 0);
    }

    #[inline(always)]
    pub fn stashed<const REQUESTS: bool>(turn: &mut Turn) {
        run::<REQUESTS>(turn, STASH);
    }

    #[inline(always)]
    pub fn shaped_packet<const REQUESTS: bool>(turn: &mut ShapedTurn) {
        run::<REQUESTS>(&mut turn.turn, 0);
    }

    #[inline(always)]
    pub fn shaped_stashed<const REQUESTS: bool>(turn: &mut ShapedTurn) {
        run::<REQUESTS>(&mut turn.turn, STASH);
    }

    #[inline(always)]
    fn run<const REQUESTS: bool>(turn: &mut Turn, bytes: u32) {
        let what = if REQUESTS { bytes | REQUEST } else { bytes };
        let (skb, payload_at, seq, now) = (turn.skb, turn.payload_at, turn.seq, turn.now);
        if walk(skb, what, payload_at, seq, now) {
            return;
        }
        // SAFETY: under the direction's lock, as the turns.
        unsafe {
            let dir = if REQUESTS {
                &mut (*turn.slot).requests
            } else {
                &mut (*turn.slot).replies
            };
            if dir.cursor < dir.limit {
                stream::lose_sync(dir, now);
            }
        }
    }

    /// The turns; whether they came to their end.
    #[inline(never)]
    fn walk(skb: *mut __sk_buff, what: u32, payload_at: u32, seq: u32, now: u64) -> bool {
        // The slot is found again, since a pointer to it cannot be handed on.
        // SAFETY: the program's context; its socket is there, or there would be no turn.
        let found = unsafe { sockets::find(bpf_get_socket_cookie(skb.cast())) };
        let Some(at) = found else {
            return false;
        };
        for _ in 0..TURNS {
            if one_turn(skb, at.index << BITS | what, payload_at, seq, now) != 0 {
                return true;
            }
        }
        false
    }

    /// One turn; not 0: it was the last. Exported, or it would not be a global function; and before
    /// 5.12 such a one takes nothing but numbers and the context.
    #[unsafe(no_mangle)]
    #[inline(never)]
    pub extern "C" fn one_turn(
        skb: *mut __sk_buff,
        what: u32,
        payload_at: u32,
        seq: u32,
        now: u64,
    ) -> u32 {
        let Some(slot) = FLOWS.get_ptr_mut(what >> BITS) else {
            return 1;
        };
        let mut turn = Turn {
            slot,
            skb,
            now,
            payload_at,
            seq,
        };
        let (requests, stash) = (what & REQUEST != 0, what & STASH != 0);
        // SAFETY: a flow slot, whose direction the caller has locked.
        let (zookeeper, entry) = unsafe { ((*slot).protocol == PROTOCOL_ZOOKEEPER, (*slot).entry) };
        let last = if zookeeper {
            match (requests, stash) {
                (true, false) => turn_packet::<true>(0, &mut turn),
                (false, false) => turn_packet::<false>(0, &mut turn),
                (true, true) => turn_stashed::<true>(0, &mut turn),
                (false, true) => turn_stashed::<false>(0, &mut turn),
            }
        } else {
            let Some(shape) = maps::shape(entry) else {
                return 1;
            };
            let mut turn = ShapedTurn { turn, shape };
            match (requests, stash) {
                (true, false) => shaped::<true>(0, &mut turn),
                (false, false) => shaped::<false>(0, &mut turn),
                (true, true) => shaped_early::<true>(0, &mut turn),
                (false, true) => shaped_early::<false>(0, &mut turn),
            }
        };
        u32::from(last != 0)
    }
}

extern "C" fn turn_packet<const REQUESTS: bool>(_index: u32, turn: *mut Turn) -> i64 {
    // SAFETY: called by bpf_loop with the Turn given to `run`, under the direction's lock.
    unsafe {
        let payload = Packet {
            skb: (*turn).skb,
            payload_at: (*turn).payload_at,
        };
        let more = zookeeper::turn((*turn).slot, REQUESTS, &payload, (*turn).seq, (*turn).now);
        i64::from(!more)
    }
}

extern "C" fn turn_stashed<const REQUESTS: bool>(_index: u32, turn: *mut Turn) -> i64 {
    // SAFETY: as above.
    unsafe {
        let slot = (*turn).slot;
        let early = if REQUESTS {
            (&raw const (*slot).requests.early).cast()
        } else {
            (&raw const (*slot).replies.early).cast()
        };
        let more = zookeeper::turn(slot, REQUESTS, &Stashed { early }, (*turn).seq, (*turn).now);
        i64::from(!more)
    }
}

/// Reads the IP and TCP headers. By version nibble, not by socket family: an IPv4 packet of a
/// dual-stack socket says family 10. None: not TCP, or IPv6 extension headers.
#[inline(always)]
fn headers(skb: *mut __sk_buff) -> Option<Segment> {
    let mut ip = [0u32; 10];
    let raw = (&raw mut ip).cast::<u8>();
    // 40 bytes are there in any TCP packet: 20 + 20, or the IPv6 header.
    // SAFETY: the buffer has 40 bytes.
    unsafe {
        if bpf_skb_load_bytes(skb.cast(), 0, raw.cast(), 40) != 0 {
            return None;
        }
    }
    // SAFETY: within the buffer.
    let byte = |at: usize| unsafe { *raw.add(at) };
    let version = byte(0) >> 4;
    let mut tcp = [0u32; 5];
    let (tcp_at, source, destination);
    if version == 4 {
        if byte(9) != IP_TCP {
            return None;
        }
        tcp_at = u32::from(byte(0) & 0xf) * 4;
        source = sockets::mapped(ip[3]);
        destination = sockets::mapped(ip[4]);
        if tcp_at == 20 {
            tcp = [ip[5], ip[6], ip[7], ip[8], ip[9]];
        }
    } else if version == 6 {
        if byte(6) != IP_TCP {
            return None;
        }
        tcp_at = 40;
        source = [ip[2], ip[3], ip[4], ip[5]];
        destination = [ip[6], ip[7], ip[8], ip[9]];
    } else {
        return None;
    }
    if tcp_at != 20 {
        // SAFETY: the buffer has 20 bytes.
        unsafe {
            if bpf_skb_load_bytes(skb.cast(), tcp_at, (&raw mut tcp).cast(), 20) != 0 {
                return None;
            }
        }
    }
    let word3 = u32::from_be(tcp[3]);
    let flags = (word3 >> 16) as u8;
    let payload_at = tcp_at + (word3 >> 28) * 4;
    // skb->len and not the IP header's length, which is 0 in a super-segment.
    // SAFETY: a plain context field.
    let total = unsafe { (*skb).len };
    if payload_at > total {
        return None;
    }
    Some(Segment {
        seq: u32::from_be(tcp[1]),
        ack: u32::from_be(tcp[2]),
        has_ack: flags & TCP_ACK != 0,
        syn: flags & TCP_SYN != 0,
        payload_at,
        len: total - payload_at,
        source,
        destination,
    })
}
