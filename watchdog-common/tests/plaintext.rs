//! Streams inside TLS whose plaintext comes by calls: the frames tell what they tell in the open, however
//! the calls cut them, and what the records told before is forgotten.

#[expect(dead_code, reason = "shared with the tests of other protocols")]
mod inputs;

use inputs::{
    Flow, Kind, START, connect, connected, cut, kinds, replies_of, reply, request, stream_of,
};
use proptest::prelude::*;
use watchdog_common::layout::{EntryShape, PROTOCOL_TLS, PROTOCOL_ZOOKEEPER, SYNCED};
use watchdog_common::plaintext::{self, Beginning};
use watchdog_common::zookeeper::XID_PING;

fn records() -> EntryShape {
    EntryShape {
        protocol: PROTOCOL_TLS,
        ..EntryShape::default()
    }
}

fn record(length: usize) -> Vec<u8> {
    let mut bytes = vec![23, 3, 3];
    bytes.extend((length as u16).to_be_bytes());
    bytes.resize(5 + length, 0xa5);
    bytes
}

/// A flow whose records made an exchange, and where its two directions stand.
fn guessed(flow: Flow) -> (Flow, u32) {
    let mut flow = flow.of(records());
    flow.request(START, &record(60));
    flow.reply(START, &record(60));
    assert_eq!(flow.slot.replies.answers, 1);
    (flow, START.wrapping_add(65))
}

#[test]
fn what_records_told_is_forgotten_and_the_handshake_is_read() {
    for flow in [Flow::started(), Flow::accepted()] {
        let (mut flow, at) = guessed(flow);
        flow.reveal(EntryShape::default(), Beginning::First);
        let slot = &flow.slot;
        assert_eq!(slot.protocol, PROTOCOL_ZOOKEEPER);
        assert_eq!((slot.requests.messages, slot.replies.answered_ns), (0, 0));
        assert_eq!(slot.requests.marks, slot.replies.marks);
        flow.chunk(true, at.wrapping_add(90), &connect(6_000, 0));
        let asked = flow.now_ns;
        flow.chunk(false, at.wrapping_add(90), &connected(4_000, 7));
        let slot = &flow.slot;
        assert_eq!(slot.requests.handshake.timeout_ms, 6_000);
        assert_eq!(slot.replies.handshake.timeout_ms, 4_000);
        assert_eq!(slot.replies.handshake.session, 7);
        assert_eq!(slot.replies.answered_ns, asked);
    }
}

#[test]
fn met_in_mid_stream_a_call_that_is_one_frame_shows_where_frames_begin() {
    let (mut flow, at) = guessed(Flow::started());
    flow.reveal(EntryShape::default(), Beginning::Anywhere);
    let revealed = flow.now_ns;
    assert!(!flow.synced());
    assert_eq!(flow.slot.requests.lost_sync_ns, revealed);
    // The rest of something that began before.
    flow.chunk(true, at.wrapping_add(50), &[0xee; 21]);
    assert!(!flow.synced());
    flow.chunk(true, at.wrapping_add(100), &request(XID_PING, 11, 0));
    assert!(flow.synced());
    // Taken in two calls: the length first, as a client does that reads it before the rest.
    let answer = reply(XID_PING, 0, 0);
    flow.chunk(false, at.wrapping_add(100), &answer[..4]);
    flow.chunk(false, at.wrapping_add(100), &answer[4..]);
    assert_ne!(flow.slot.replies.flags & SYNCED, 0);
    // What it answers may have been asked before anybody looked.
    assert_eq!(flow.slot.replies.answers, 0);
    flow.chunk(true, at.wrapping_add(200), &request(XID_PING, 11, 0));
    let asked = flow.now_ns;
    flow.chunk(false, at.wrapping_add(200), &answer);
    let slot = &flow.slot;
    assert_eq!((slot.requests.keepalives, slot.replies.answers), (2, 1));
    assert_eq!(slot.replies.answered_ns, asked);
}

#[test]
fn a_request_that_is_all_that_is_under_way_begins_a_frame() {
    let alone = |flow: &Flow, begun_ns| {
        // SAFETY: our own slot.
        unsafe { plaintext::is_alone(&raw const *flow.slot, begun_ns) }
    };
    let (mut flow, at) = guessed(Flow::started());
    let answered = flow.now_ns;
    flow.slot.reads.read_seq = at;
    let quick = flow.now_ns + 10_000_000;
    assert!(!alone(&flow, quick), "nothing was asked");
    flow.now_ns = quick;
    flow.request(at, &record(29));
    assert!(!alone(&flow, quick), "the reply before may go on");

    let (mut flow, at) = guessed(Flow::started());
    let begun = answered + 100_000_000;
    flow.now_ns = begun;
    flow.request(at, &record(29));
    assert!(!alone(&flow, begun), "the reply before is not read");
    flow.slot.reads.read_seq = at;
    assert!(alone(&flow, begun));
    assert!(
        !alone(&flow, flow.now_ns + 1),
        "it was asked before the call"
    );
    let edge = at.wrapping_add(34);
    flow.reveal(EntryShape::default(), Beginning::Frame);
    flow.chunk(true, edge, &request(XID_PING, 11, 0));
    let asked = flow.now_ns;
    flow.chunk(false, at.wrapping_add(42), &reply(XID_PING, 0, 0));
    assert_eq!(flow.slot.replies.answered_ns, asked, "answered at once");
    flow.request(edge, &record(29));
    assert!(!alone(&flow, begun));

    let (mut flow, at) = guessed(Flow::accepted());
    flow.slot.writes.write_ns = flow.now_ns;
    flow.now_ns += 100_000_000;
    flow.request(at, &record(29));
    assert!(alone(&flow, 0), "a call may wait for long");
    flow.slot.writes.write_ns = flow.now_ns - 1_000;
    assert!(!alone(&flow, 0));
}

#[test]
fn what_lies_unread_is_known_by_its_packets() {
    let (mut flow, at) = guessed(Flow::accepted());
    flow.reveal(EntryShape::default(), Beginning::First);
    flow.slot.reads.read_seq = at;
    flow.pass(true, at, 90);
    let arrived = flow.now_ns;
    flow.pass(true, at.wrapping_add(90), 40);
    let requests = &flow.slot.requests;
    assert_eq!(requests.unread_at_ns, arrived);
    assert_eq!(requests.unread_end_seq, at.wrapping_add(90));
    assert_eq!(requests.newest_end_seq, at.wrapping_add(130));
    assert_eq!(requests.arrived_ns, arrived + 1_000);
    // Read, and only then told: that moves nothing of it.
    flow.slot.reads.read_seq = at.wrapping_add(130);
    flow.chunk(true, at.wrapping_add(130), &connect(6_000, 0));
    let requests = &flow.slot.requests;
    assert_eq!(requests.messages, 1);
    assert_eq!(requests.unread_end_seq, at.wrapping_add(90));
    // The same packet again is nothing new.
    flow.pass(true, at, 130);
    assert_eq!(flow.slot.requests.arrived_ns, arrived + 1_000);
}

#[test]
fn what_left_is_acknowledged_where_its_call_ended() {
    let (mut flow, at) = guessed(Flow::started());
    flow.reveal(EntryShape::default(), Beginning::First);
    flow.pass(true, at, 71);
    flow.chunk(true, at.wrapping_add(71), &connect(6_000, 0));
    let requests = &flow.slot.requests;
    assert_eq!(requests.newest_end_seq, at.wrapping_add(71));
    assert_eq!(requests.edge_seq, at.wrapping_add(71));
}

#[test]
fn after_a_call_that_was_missed_nothing_is_credited_until_frames_are_found_again() {
    let (mut flow, at) = guessed(Flow::started());
    let ping = request(XID_PING, 11, 0);
    flow.reveal(EntryShape::default(), Beginning::Frame);
    flow.chunk(true, at.wrapping_add(40), &ping);
    flow.miss(true);
    assert!(!flow.synced());
    flow.chunk(true, at.wrapping_add(80), &[0xee; 21]);
    assert_eq!(flow.slot.requests.messages, 1);
    flow.chunk(true, at.wrapping_add(120), &ping);
    assert!(flow.synced());
    // What waits may have been answered by what was missed.
    flow.miss(false);
    assert_eq!(flow.slot.requests.marks, flow.slot.replies.marks);
}

#[test]
fn a_flow_whose_calls_are_seen_no_more_is_one_of_records_again() {
    let (mut flow, at) = guessed(Flow::started());
    flow.reveal(EntryShape::default(), Beginning::First);
    flow.chunk(true, at.wrapping_add(71), &connect(6_000, 0));
    flow.seal();
    let mut flow = flow.of(records());
    assert_eq!(flow.slot.protocol, PROTOCOL_TLS);
    assert_eq!((flow.slot.requests.messages, flow.synced()), (0, false));
    flow.request(at.wrapping_add(71), &record(29));
    flow.reply(at, &record(29));
    assert!(flow.synced());
    assert_eq!(flow.slot.requests.messages, 1);
}

/// What the parser says in the end.
fn told(flow: &Flow) -> [u64; 5] {
    let (requests, replies) = (&flow.slot.requests, &flow.slot.replies);
    [
        requests.messages,
        u64::from(requests.keepalives),
        replies.messages,
        replies.answers,
        u64::from(requests.marks.wrapping_sub(replies.marks)),
    ]
}

proptest! {
    #[test]
    fn calls_tell_what_the_same_bytes_tell_in_the_open(
        kinds in kinds(),
        cuts in prop::collection::vec(0..100_000_usize, 0..30),
        holder in any::<bool>(),
    ) {
        let kinds: Vec<Kind> = kinds.into_iter().take(15).collect();
        let ends = || if holder { Flow::started() } else { Flow::accepted() };
        let (asked, _, _) = stream_of(&kinds);
        let answered = replies_of(&kinds);
        let mut open = ends();
        open.request(START, &asked);
        open.reply(START, &answered);

        let (mut sealed, at) = guessed(ends());
        sealed.reveal(EntryShape::default(), Beginning::First);
        let mut end = at;
        for (requests, bytes) in [(true, &asked), (false, &answered)] {
            for (_, part) in cut(bytes, &cuts) {
                // More than the plaintext, and not always by as much.
                end = end.wrapping_add(part.len() as u32 + 22 + part.len() as u32 % 7);
                sealed.chunk(requests, end, &part);
            }
        }
        prop_assert_eq!(told(&sealed), told(&open));
    }
}
