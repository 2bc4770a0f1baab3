//! Packets: what is sent and what arrives is counted at both ends, however it is packed.

use std::{
    io::Read as _,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use watchdog_common::{
    layout::{FOREIGN, ORIGIN_PACKET, SYNCED},
    zookeeper::{XID_PING, XID_WATCH},
};

use crate::{
    bed::{Bed, Pair, Pinned, here},
    inputs::{connect, connected, reply, request},
};

const ONLY: &[&str] = &["flow_start", "packets_in", "packets_out"];
const SESSION: u64 = 0x0300_1e64_7d60_0030;

fn ping() -> Vec<u8> {
    request(XID_PING, 11, 0)
}

/// A pair whose session is established.
fn session(bed: &Bed, pair: &Pair) {
    pair.holder.send(&connect(6_000, 0));
    pair.grantor.send(&connected(4_000, SESSION));
    bed.until(pair.holder.cookie, "a session", |slot| {
        slot.replies.handshake.session == SESSION
    });
}

fn now_ns() -> u64 {
    watchdog::tick::clock().0
}

fn a_session_and_a_renewal_are_seen(bed: &Bed, address: SocketAddr) {
    let before = now_ns();
    let pair = bed.pair_by(address);
    session(bed, &pair);
    pair.holder.send(&ping());
    pair.grantor.send(&reply(XID_PING, 0, 0));
    for cookie in [pair.holder.cookie, pair.grantor.cookie] {
        let slot = bed.until(cookie, "an answered ping", |slot| slot.replies.answers == 2);
        assert_eq!(slot.requests.handshake.timeout_ms, 6_000);
        assert_eq!(slot.requests.handshake.session, 0);
        assert_eq!(slot.replies.handshake.timeout_ms, 4_000);
        assert_eq!(slot.replies.handshake.session, SESSION);
        assert_eq!((slot.requests.messages, slot.requests.keepalives), (2, 1));
        assert_eq!(slot.replies.messages, 2);
        assert_eq!(slot.requests.lost_syncs + slot.replies.lost_syncs, 0);
        let moments = [
            before,
            slot.requests.handshake.at_ns,
            slot.replies.handshake.at_ns,
            slot.requests.newest_ns,
            slot.replies.newest_ns,
            now_ns() + 1_000,
        ];
        assert!(moments.is_sorted(), "{moments:?}");
        assert_eq!(slot.replies.answered_ns, slot.requests.newest_ns);
        assert_eq!(
            slot.replies.rtt_ns,
            slot.replies.newest_ns - slot.requests.newest_ns
        );
    }
    // The reply has told the holder that the ping arrived.
    let slot = bed.slot(pair.holder.cookie).expect("a slot");
    assert_eq!(slot.life.acked_seq, slot.requests.edge_seq);
}

#[test]
fn a_session_and_a_renewal_are_seen_over_ipv4() {
    let Some(bed) = Bed::with(here!(), ONLY) else {
        return;
    };
    a_session_and_a_renewal_are_seen(&bed, (Ipv4Addr::LOCALHOST, 0).into());
}

#[test]
fn a_session_and_a_renewal_are_seen_over_ipv6_and_ipv4_in_ipv6_sockets() {
    let Some(bed) = Bed::at(here!(), ONLY, (Ipv6Addr::UNSPECIFIED, 0).into()) else {
        return;
    };
    a_session_and_a_renewal_are_seen(&bed, (Ipv6Addr::LOCALHOST, 0).into());
    a_session_and_a_renewal_are_seen(&bed, (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 0).into());
    a_session_and_a_renewal_are_seen(&bed, (Ipv4Addr::LOCALHOST, 0).into());
}

#[test]
fn a_c_clients_ping_of_four_and_eight_bytes_is_one_keepalive() {
    let Some(bed) = Bed::with(here!(), ONLY) else {
        return;
    };
    let pair = bed.pair();
    session(&bed, &pair);
    for _ in 0..3 {
        pair.holder.send(&ping()[..4]);
        pair.holder.send(&ping()[4..]);
    }
    for cookie in [pair.holder.cookie, pair.grantor.cookie] {
        let slot = bed.until(cookie, "three pings", |slot| slot.requests.keepalives == 3);
        assert_eq!(slot.requests.messages, 4);
    }
}

#[test]
fn many_replies_in_one_segment_answer_each_its_request() {
    let Some(bed) = Bed::with(here!(), ONLY) else {
        return;
    };
    let pair = bed.pair();
    session(&bed, &pair);
    for xid in 1..=10 {
        pair.holder.send(&request(xid, 4, 20));
    }
    let mut packed = reply(XID_WATCH, 0, 40);
    for xid in 1..=10 {
        packed.extend(reply(xid, 0, 7 * usize::try_from(xid).expect("small")));
    }
    pair.grantor.send(&packed);
    for cookie in [pair.holder.cookie, pair.grantor.cookie] {
        let slot = bed.until(cookie, "ten answers", |slot| slot.replies.answers == 11);
        assert_eq!(slot.replies.messages, 12, "the watch event is a message");
        assert_eq!(slot.requests.marks, slot.replies.marks);
        assert_eq!(slot.replies.answered_ns, slot.requests.newest_ns);
    }
}

#[test]
fn ten_thousand_pings_in_super_segments_are_all_counted() {
    const PINGS: u32 = 10_900;
    let Some(bed) = Bed::with(here!(), ONLY) else {
        return;
    };
    let _in_order = Pinned::here();
    let pair = bed.pair();
    session(&bed, &pair);
    let burst = ping().repeat(PINGS as usize);
    let mut room = vec![0; connect(0, 0).len() + burst.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| (&pair.grantor.stream).read_exact(&mut room));
        pair.holder.send(&burst);
    });
    if !bed.kernel.report.follows_any_segment {
        // The programs for kernels before 5.17 count what they follow, know that they are out of
        // step, and are in step again by the next segment that is one frame.
        bed.until(pair.holder.cookie, "out of step", |slot| {
            slot.requests.lost_syncs > 0
        });
        pair.holder.send(&ping());
        for cookie in [pair.holder.cookie, pair.grantor.cookie] {
            let slot = bed.until(cookie, "in step again", |slot| {
                slot.requests.flags & SYNCED != 0
            });
            assert!((500..PINGS).contains(&slot.requests.keepalives));
        }
        return;
    }
    for cookie in [pair.holder.cookie, pair.grantor.cookie] {
        let slot = bed.until(cookie, "all pings", |slot| {
            slot.requests.keepalives == PINGS
        });
        assert_eq!(slot.requests.messages, u64::from(PINGS) + 1);
        assert_eq!(slot.requests.lost_syncs, 0);
    }
}

#[test]
fn a_frame_larger_than_any_segment_is_one_message() {
    let Some(bed) = Bed::with(here!(), ONLY) else {
        return;
    };
    let _in_order = Pinned::here();
    let pair = bed.pair();
    session(&bed, &pair);
    let big = request(1, 5, 3_000_000);
    let mut room = vec![0; connect(0, 0).len() + big.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| (&pair.grantor.stream).read_exact(&mut room));
        pair.holder.send(&big);
    });
    pair.holder.send(&ping());
    for cookie in [pair.holder.cookie, pair.grantor.cookie] {
        let slot = bed.until(cookie, "the ping", |slot| slot.requests.keepalives == 1);
        assert_eq!(slot.requests.messages, 3);
        assert_eq!(slot.requests.lost_syncs, 0);
    }
}

#[test]
fn four_letter_words_are_no_session() {
    let Some(bed) = Bed::with(here!(), ONLY) else {
        return;
    };
    for word in ["ruok", "mntr", "srvr"] {
        let pair = bed.pair();
        pair.holder.send(word.as_bytes());
        pair.grantor
            .send(b"imok, and a long line of what is well here\n");
        for cookie in [pair.holder.cookie, pair.grantor.cookie] {
            let slot = bed.until(cookie, "an answer", |slot| {
                slot.replies.edge_seq != slot.replies.newest_end_seq
            });
            assert_eq!(slot.requests.messages + slot.replies.messages, 0);
            assert_eq!(slot.requests.handshake.at_ns, 0);
            assert_ne!(slot.replies.flags & FOREIGN, 0, "no ZooKeeper speaks so");
        }
    }
}

#[test]
fn a_stranger_on_the_port_is_left_alone() {
    let Some(bed) = Bed::with(here!(), ONLY) else {
        return;
    };
    let pair = bed.pair();
    pair.holder
        .send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for cookie in [pair.holder.cookie, pair.grantor.cookie] {
        let slot = bed.until(cookie, "foreign", |slot| slot.requests.flags & FOREIGN != 0);
        assert_eq!(slot.requests.messages, 0);
    }
    pair.holder.send(&ping());
    let slot = bed.slot(pair.holder.cookie).expect("a slot");
    assert_eq!(slot.requests.keepalives, 0);
}

#[test]
fn a_connection_older_than_the_programs_locks_on_at_its_next_ping() {
    let Some(bed) = Bed::with(here!(), ONLY) else {
        return;
    };
    bed.watch_port(0);
    let whole = bed.pair();
    let in_two = bed.pair();
    for pair in [&whole, &in_two] {
        pair.holder.send(&connect(6_000, 0));
        pair.grantor.send(&connected(6_000, SESSION));
    }
    bed.watch_port(1);
    assert!(bed.slot(whole.holder.cookie).is_none());
    whole.holder.send(&ping());
    in_two.holder.send(&ping()[..4]);
    in_two.holder.send(&ping()[4..]);
    for pair in [&whole, &in_two] {
        for cookie in [pair.holder.cookie, pair.grantor.cookie] {
            let slot = bed.until(cookie, "a ping", |slot| slot.requests.keepalives == 1);
            assert_eq!(slot.origin, ORIGIN_PACKET);
            assert_ne!(slot.requests.flags & SYNCED, 0);
            assert_eq!(slot.requests.messages, 1);
        }
    }
}

#[test]
fn packets_of_a_port_that_is_not_watched_take_no_slot() {
    let Some(bed) = Bed::with(here!(), ONLY) else {
        return;
    };
    bed.watch_port(0);
    let pair = bed.pair();
    pair.holder.send(&ping());
    let mut room = [0; 12];
    (&pair.grantor.stream)
        .read_exact(&mut room)
        .expect("it was sent");
    assert_eq!(bed.kernel.state.losses().high_water, 0);
}
