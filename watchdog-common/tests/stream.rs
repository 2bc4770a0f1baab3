//! The parser on a host: any split, any packing, repeated bytes, holes, reordering, garbage.
//!
//! The reference is the list of frames that was put in; what is asked is what the slot says.

#[expect(dead_code, reason = "shared with the tests of other protocols")]
mod inputs;

use inputs::{
    Flow, START, connect, connected, cut, holed, kinds, repeated, replies_of, reply, request,
    stream_of, swapped,
};
use proptest::prelude::*;
use watchdog_common::{layout::FOREIGN, zookeeper};

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
fn a_segment_that_ends_where_sequence_numbers_wrap_is_like_any_other() {
    let mut flow = Flow::accepted();
    let mut stream = connect(6_000, 0);
    let to_wrap = START.wrapping_neg() as usize;
    stream.extend(request(1, 4, to_wrap - stream.len() - 12));
    stream.extend(request(2, 4, 0));
    flow.request(START, &stream[..to_wrap]);
    assert_eq!(flow.slot.requests.edge_seq, 0);
    let oldest = flow.slot.requests.unread_end_seq;
    flow.request(0, &stream[to_wrap..]);
    assert_eq!(flow.slot.requests.unread_end_seq, oldest);
    assert_eq!(flow.slot.requests.messages, 3);
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
        for (seq, part) in repeated(&bytes, &cuts, &again) {
            flow.request(seq, &part);
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
        let bytes = replies_of(&kinds);
        prop_assume!(bytes.len() > first + second);
        let at = at % (bytes.len() - first - second);
        let mut flow = Flow::started();
        for (seq, part) in swapped(&bytes, at, first, second) {
            flow.reply(seq, &part);
        }
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
        for (seq, part) in holed(&bytes, &cuts, &missed, in_two) {
            flow.request(seq, &part);
        }
        if flow.slot.requests.newest_ns >= flow.now_ns {
            return Ok(());
        }
        let foreign = flow.slot.requests.flags & FOREIGN != 0;
        let skipping = flow.slot.requests.body_left > 0;
        prop_assert!(foreign || skipping, "{:?}", flow.slot.requests.flags);
    }
}

/// At the grantor a request counts when its last byte has arrived; at the holder when it is sent.
#[test]
fn a_request_counts_at_the_grantor_when_it_is_whole() {
    let mut flow = Flow::accepted();
    let hello = connect(6_000, 0);
    flow.request(START, &hello[..40]);
    assert_eq!(flow.slot.requests.messages, 0, "nine bytes are missing");
    flow.request(START.wrapping_add(40), &hello[40..]);
    assert_eq!(flow.slot.requests.messages, 1);
    assert_eq!(flow.slot.requests.newest_ns, flow.now_ns);
    assert_eq!(flow.slot.requests.unread_at_ns, flow.now_ns);

    let mut flow = Flow::started();
    flow.request(START, &hello[..40]);
    assert_eq!(flow.slot.requests.messages, 1, "it is on its way");
}
