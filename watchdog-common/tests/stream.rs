//! The parser on a host: any split, any packing, repeated bytes, holes, reordering, garbage.
//!
//! The reference is the list of frames that was put in; what is asked is what the slot says.

use proptest::prelude::*;
use watchdog_common::{
    flow::{self, Turns},
    layout::{FOREIGN, FlowSlot, OUTGOING, REQUESTS, SYNCED},
    stream::{self, Payload},
    zookeeper,
};

const START: u32 = 0xffff_ff00;

struct Bytes<'a>(&'a [u8]);

impl Payload for Bytes<'_> {
    unsafe fn copy(&self, offset: u32, dst: *mut u8, len: u32) -> bool {
        let Some(from) = self.0.get(offset as usize..(offset + len) as usize) else {
            return false;
        };
        // SAFETY: by the trait's contract.
        unsafe { dst.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        true
    }
}

struct Plain<'a> {
    bytes: &'a [u8],
    requests: bool,
}

impl Turns for Plain<'_> {
    unsafe fn over_segment(&mut self, slot: *mut FlowSlot, seq: u32, now_ns: u64) {
        // SAFETY: by the trait's contract.
        while unsafe { zookeeper::turn(slot, self.requests, &Bytes(self.bytes), seq, now_ns) } {}
    }
    unsafe fn over_stash(&mut self, slot: *mut FlowSlot, seq: u32, now_ns: u64) {
        // SAFETY: by the trait's contract.
        let early = unsafe {
            if self.requests {
                (*slot).requests.early
            } else {
                (*slot).replies.early
            }
        };
        // SAFETY: by the trait's contract.
        while unsafe { zookeeper::turn(slot, self.requests, &Bytes(&early), seq, now_ns) } {}
    }
    unsafe fn stash(&mut self, dst: *mut u8, len: u32) {
        // SAFETY: by the trait's contract.
        unsafe { dst.copy_from_nonoverlapping(self.bytes.as_ptr(), len as usize) };
    }
}

/// The holder's end of a flow.
struct Flow {
    slot: Box<FlowSlot>,
    now_ns: u64,
}

impl Flow {
    fn started() -> Self {
        let mut flow = Self::middle();
        stream::begin(&mut flow.slot.requests, START);
        stream::begin(&mut flow.slot.replies, START);
        flow.slot.requests.edge_seq = START;
        flow.slot.replies.edge_seq = START;
        flow.slot.reads.read_seq = START;
        flow
    }

    fn middle() -> Self {
        // SAFETY: plain integers, of which all-zero is valid.
        let mut slot: Box<FlowSlot> = unsafe { Box::new(std::mem::zeroed()) };
        slot.requests.flags = REQUESTS | OUTGOING;
        Self {
            slot,
            now_ns: 1_000,
        }
    }

    fn feed(&mut self, requests: bool, seq: u32, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.now_ns += 1_000;
        let mut turns = Plain { bytes, requests };
        // SAFETY: our own slot.
        unsafe {
            flow::segment(
                &raw mut *self.slot,
                requests,
                flow::Segment {
                    seq,
                    len: bytes.len() as u32,
                    outgoing: requests,
                },
                self.now_ns,
                &Bytes(bytes),
                &mut turns,
            );
        }
    }

    fn request(&mut self, seq: u32, bytes: &[u8]) {
        self.feed(true, seq, bytes);
    }

    fn reply(&mut self, seq: u32, bytes: &[u8]) {
        self.feed(false, seq, bytes);
    }

    fn synced(&self) -> bool {
        self.slot.requests.flags & SYNCED != 0
    }
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

fn request(xid: i32, op: i32, extra: usize) -> Vec<u8> {
    let mut body = xid.to_be_bytes().to_vec();
    body.extend(op.to_be_bytes());
    body.resize(8 + extra, 0xee);
    frame(&body)
}

fn reply(xid: i32, err: i32, extra: usize) -> Vec<u8> {
    let mut body = xid.to_be_bytes().to_vec();
    body.extend(0x0b_0000_0005_u64.to_be_bytes());
    body.extend(err.to_be_bytes());
    body.resize(16 + extra, 0xdd);
    frame(&body)
}

fn connect(timeout_ms: i32, session: u64) -> Vec<u8> {
    let mut body = vec![0; 12];
    body.extend(timeout_ms.to_be_bytes());
    body.extend(session.to_be_bytes());
    body.extend(16_i32.to_be_bytes());
    body.resize(45, 0);
    frame(&body)
}

fn connected(timeout_ms: i32, session: u64) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(timeout_ms.to_be_bytes());
    body.extend(session.to_be_bytes());
    body.extend(16_i32.to_be_bytes());
    body.resize(37, 0);
    frame(&body)
}

#[test]
fn a_handshake_gives_session_and_both_timeouts() {
    let mut flow = Flow::started();
    flow.request(START, &connect(6_000, 0));
    flow.reply(START, &connected(4_000, 0x0300_1e64_7d60_0030));
    assert_eq!(flow.slot.requests.handshake.timeout_ms, 6_000);
    assert_eq!(flow.slot.requests.handshake.session, 0);
    assert_eq!(flow.slot.replies.handshake.timeout_ms, 4_000);
    assert_eq!(flow.slot.replies.handshake.session, 0x0300_1e64_7d60_0030);
    assert_eq!(
        flow.slot.replies.answered_ns, 2_000,
        "the answer renews from when it was asked"
    );
    assert_eq!(flow.slot.replies.rtt_ns, 1_000);
}

#[test]
fn a_c_clients_ping_in_two_segments_is_one_keepalive() {
    let mut flow = Flow::started();
    let hello = connect(6_000, 0);
    flow.request(START, &hello);
    let ping = request(zookeeper::XID_PING, 11, 0);
    let at = START.wrapping_add(hello.len() as u32);
    flow.request(at, &ping[..4]);
    flow.request(at.wrapping_add(4), &ping[4..]);
    assert_eq!(flow.slot.requests.keepalives, 1);
    assert_eq!(flow.slot.requests.messages, 2);
}

#[test]
fn a_reply_to_an_older_request_does_not_renew_from_the_newer() {
    let mut flow = Flow::started();
    let mut at = START;
    let mut send = |flow: &mut Flow, bytes: Vec<u8>| {
        flow.request(at, &bytes);
        at = at.wrapping_add(bytes.len() as u32);
        flow.now_ns
    };
    send(&mut flow, connect(6_000, 0));
    let first = send(&mut flow, request(1, 4, 20));
    let second = send(&mut flow, request(2, 4, 20));
    let mut back = START;
    let mut answer = |flow: &mut Flow, bytes: Vec<u8>| {
        flow.reply(back, &bytes);
        back = back.wrapping_add(bytes.len() as u32);
    };
    answer(&mut flow, connected(6_000, 7));
    answer(&mut flow, reply(1, 0, 50));
    assert_eq!(flow.slot.replies.answered_ns, first);
    answer(&mut flow, reply(zookeeper::XID_WATCH, 0, 30));
    assert_eq!(
        flow.slot.replies.answered_ns, first,
        "a watch event answers nothing"
    );
    answer(&mut flow, reply(2, zookeeper::ERR_EXPIRED, 0));
    assert_eq!(flow.slot.replies.answered_ns, second);
    assert_ne!(flow.slot.replies.ending_ns, 0);
}

#[test]
fn auth_is_answered_out_of_order_and_renews_nothing_wrongly() {
    let mut flow = Flow::started();
    let hello = connect(6_000, 0);
    flow.request(START, &hello);
    flow.reply(START, &connected(6_000, 7));
    let back = START.wrapping_add(connected(6_000, 7).len() as u32);
    let mut burst = request(5, 4, 9);
    burst.extend(request(zookeeper::XID_AUTH, zookeeper::OP_AUTH, 30));
    flow.request(START.wrapping_add(hello.len() as u32), &burst);
    let asked = flow.now_ns;
    flow.reply(back, &reply(zookeeper::XID_AUTH, 0, 0));
    assert_eq!(flow.slot.replies.answers, 1, "only the handshake so far");
    flow.reply(back.wrapping_add(20), &reply(5, 0, 0));
    assert_eq!(flow.slot.replies.answered_ns, asked);
}

#[test]
fn four_letter_words_and_garbage_are_no_lease() {
    for bytes in [
        &b"mntr"[..],
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[0xff; 300],
    ] {
        let mut flow = Flow::started();
        flow.request(START, bytes);
        flow.reply(START, b"imok");
        assert_eq!(flow.slot.requests.messages, 0);
        assert_eq!(flow.slot.requests.handshake.at_ns, 0);
        assert_eq!(flow.slot.requests.flags & FOREIGN != 0, bytes.len() > 28);
    }
}

#[test]
fn a_frame_of_64_mib_is_skipped_whatever_it_contains() {
    let mut flow = Flow::started();
    let hello = connect(6_000, 0);
    flow.request(START, &hello);
    let mut at = START.wrapping_add(hello.len() as u32);
    let big = request(1, 5, zookeeper::MAX_FRAME as usize - 8);
    for part in big.chunks(131_018) {
        flow.request(at, part);
        at = at.wrapping_add(part.len() as u32);
    }
    flow.request(at, &request(zookeeper::XID_PING, 11, 0));
    assert_eq!(flow.slot.requests.messages, 3);
    assert_eq!(flow.slot.requests.keepalives, 1);
    assert!(flow.synced());
}

#[test]
fn mid_stream_locks_on_at_a_ping_whole_or_in_two() {
    let ping = request(zookeeper::XID_PING, 11, 0);
    let mut flow = Flow::middle();
    flow.request(500, &ping);
    assert!(flow.synced());
    assert_eq!(flow.slot.requests.keepalives, 1);

    let mut flow = Flow::middle();
    flow.request(500, &[1, 2, 3]);
    flow.request(503, &ping[..4]);
    assert!(!flow.synced(), "four bytes may be anything");
    flow.request(507, &ping[4..]);
    assert!(flow.synced());
    assert_eq!(flow.slot.requests.keepalives, 1);
    flow.request(515, &ping);
    assert_eq!(flow.slot.requests.keepalives, 2);
}

#[test]
fn a_hole_between_frames_is_met_at_the_next_whole_frame() {
    let mut flow = Flow::started();
    let hello = connect(6_000, 0);
    flow.request(START, &hello);
    let at = START.wrapping_add(hello.len() as u32);
    // 100 bytes are never seen.
    flow.request(at.wrapping_add(100), &request(3, 4, 200));
    assert!(flow.synced(), "one frame and nothing else is an anchor");
    assert_eq!(flow.slot.requests.messages, 2);
    assert_eq!(flow.slot.requests.lost_syncs, 1);
    // What was missing comes after all: it is old by now.
    flow.request(at, &[0; 100]);
    assert_eq!(flow.slot.requests.messages, 2);
    assert!(flow.synced());
}

#[derive(Clone, Debug)]
enum Kind {
    Ping,
    Data(usize),
}

fn kinds() -> impl Strategy<Value = Vec<Kind>> {
    let data = prop_oneof![0..40_usize, 0..5_000_usize];
    prop::collection::vec(
        prop_oneof![Just(Kind::Ping), data.prop_map(Kind::Data)],
        1..40,
    )
}

/// The stream, and how many messages and keepalives it holds, handshake included.
fn stream_of(kinds: &[Kind]) -> (Vec<u8>, u64, u32) {
    let mut bytes = connect(6_000, 0);
    let mut keepalives = 0;
    for (n, kind) in kinds.iter().enumerate() {
        match kind {
            Kind::Ping => {
                keepalives += 1;
                bytes.extend(request(zookeeper::XID_PING, 11, 0));
            }
            Kind::Data(extra) => bytes.extend(request(n as i32 + 1, 4, *extra)),
        }
    }
    (bytes, kinds.len() as u64 + 1, keepalives)
}

fn cut(bytes: &[u8], cuts: &[usize]) -> Vec<(u32, Vec<u8>)> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut % bytes.len()).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.dedup();
    places
        .windows(2)
        .map(|pair| {
            (
                START.wrapping_add(pair[0] as u32),
                bytes[pair[0]..pair[1]].to_vec(),
            )
        })
        .collect()
}

proptest! {
    #[test]
    fn any_split_gives_the_same(kinds in kinds(), cuts in prop::collection::vec(any::<usize>(), 0..60)) {
        let (bytes, messages, keepalives) = stream_of(&kinds);
        let mut flow = Flow::started();
        for (seq, part) in cut(&bytes, &cuts) {
            flow.request(seq, &part);
        }
        prop_assert_eq!(flow.slot.requests.messages, messages);
        prop_assert_eq!(flow.slot.requests.keepalives, keepalives);
        prop_assert_eq!(flow.slot.requests.lost_syncs, 0);
        prop_assert!(flow.synced());
    }

    #[test]
    fn repeated_and_overlapping_bytes_change_nothing(
        kinds in kinds(),
        cuts in prop::collection::vec(any::<usize>(), 0..30),
        again in prop::collection::vec((any::<usize>(), any::<usize>()), 0..20),
    ) {
        let (bytes, messages, keepalives) = stream_of(&kinds);
        let mut flow = Flow::started();
        let parts = cut(&bytes, &cuts);
        for (n, (seq, part)) in parts.iter().enumerate() {
            flow.request(*seq, part);
            let end = (seq.wrapping_sub(START) as usize) + part.len();
            for (from, len) in again.iter().filter(|(from, _)| from % parts.len() == n) {
                // Any stretch that ends no later than what was sent.
                let from = from % end;
                let to = (from + 1 + len % 3_000).min(end);
                flow.request(START.wrapping_add(from as u32), &bytes[from..to]);
            }
        }
        prop_assert_eq!(flow.slot.requests.messages, messages);
        prop_assert_eq!(flow.slot.requests.keepalives, keepalives);
    }

    #[test]
    fn two_short_neighbours_swapped_change_nothing_or_are_owned_up_to(
        kinds in kinds(),
        at in any::<usize>(),
        first in 1..60_usize,
        second in 1..60_usize,
    ) {
        // The replies' side, since what leaves the host is never swapped.
        let mut bytes = connected(6_000, 9);
        for (n, kind) in kinds.iter().enumerate() {
            let extra = if let Kind::Data(extra) = kind { *extra } else { 0 };
            bytes.extend(reply(n as i32 + 1, 0, extra));
        }
        prop_assume!(bytes.len() > first + second);
        let at = at % (bytes.len() - first - second);
        let mut flow = Flow::started();
        let piece = |flow: &mut Flow, from: usize, to: usize| {
            flow.reply(START.wrapping_add(from as u32), &bytes[from..to]);
        };
        piece(&mut flow, 0, at);
        piece(&mut flow, at + first, at + first + second);
        piece(&mut flow, at, at + first);
        piece(&mut flow, at + first + second, bytes.len());
        let replies = &flow.slot.replies;
        let all = replies.messages == kinds.len() as u64 + 1;
        prop_assert!(all || replies.lost_syncs > 0 || replies.flags & FOREIGN != 0);
    }

    #[test]
    fn a_frame_in_two_swapped_halves_is_whole(split in 1..19_usize) {
        let mut flow = Flow::started();
        let hello = connected(6_000, 9);
        flow.reply(START, &hello);
        let at = START.wrapping_add(hello.len() as u32);
        let pong = reply(zookeeper::XID_PING, 0, 0);
        flow.reply(at.wrapping_add(split as u32), &pong[split..]);
        flow.reply(at, &pong[..split]);
        prop_assert_eq!(flow.slot.replies.messages, 2);
        prop_assert_eq!(flow.slot.replies.lost_syncs, 0);
    }

    #[test]
    fn replies_packed_and_split_answer_each_request_once(
        sizes in prop::collection::vec(0..200_usize, 1..14),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let mut flow = Flow::started();
        let mut out = connect(6_000, 0);
        let mut back = connected(6_000, 9);
        for (n, size) in sizes.iter().enumerate() {
            out.extend(request(n as i32 + 1, 4, *size));
            back.extend(reply(n as i32 + 1, 0, *size));
        }
        flow.request(START, &out);
        for (seq, part) in cut(&back, &cuts) {
            flow.reply(seq, &part);
        }
        prop_assert_eq!(flow.slot.replies.answers, sizes.len() as u64 + 1);
        prop_assert_eq!(flow.slot.requests.marks, flow.slot.replies.marks);
    }

    #[test]
    fn garbage_neither_panics_nor_claims_a_session(
        segments in prop::collection::vec((any::<u32>(), any::<bool>(), prop::collection::vec(any::<u8>(), 1..300)), 1..40),
        started in any::<bool>(),
    ) {
        let mut flow = if started { Flow::started() } else { Flow::middle() };
        for (seq, requests, bytes) in segments {
            flow.feed(requests, seq, &bytes);
        }
        if !started {
            prop_assert_eq!(flow.slot.replies.handshake.at_ns, 0);
        }
    }

    #[test]
    fn whatever_was_missed_the_next_ping_is_seen(
        kinds in kinds(),
        cuts in prop::collection::vec(any::<usize>(), 1..30),
        missed in prop::collection::vec(any::<bool>(), 32),
        in_two in any::<bool>(),
    ) {
        let (bytes, ..) = stream_of(&kinds);
        let mut flow = Flow::started();
        for (n, (seq, part)) in cut(&bytes, &cuts).iter().enumerate() {
            if n == 0 || !missed[n % missed.len()] {
                flow.request(*seq, part);
            }
        }
        let end = START.wrapping_add(bytes.len() as u32);
        let ping = request(zookeeper::XID_PING, 11, 0);
        if in_two {
            flow.request(end, &ping[..4]);
            flow.request(end.wrapping_add(4), &ping[4..]);
        } else {
            flow.request(end, &ping);
        }
        if flow.slot.requests.newest_ns >= flow.now_ns {
            return Ok(());
        }
        let foreign = flow.slot.requests.flags & FOREIGN != 0;
        let skipping = flow.slot.requests.body_left > 0;
        prop_assert!(foreign || skipping, "{:?}", flow.slot.requests.flags);
    }
}
