//! Flow start: at ESTABLISHED both ends have a slot that says who they are and where their bytes
//! begin.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use watchdog_common::layout::{
    EDGE_KNOWN, FlowSlot, HANDSHAKE_DUE, ORIGIN_START, OUTGOING, REQUESTS, ROLE_GRANTOR,
    ROLE_HOLDER, SLOT_LIVE, SYNCED,
};

use crate::bed::{Bed, End, FLOWS, here};

const ONLY: &[&str] = &["flow_start"];

/// An address as a slot keeps it.
fn kept(address: SocketAddr) -> ([u8; 16], u16) {
    let ip = match address {
        SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped(),
        SocketAddr::V6(v6) => *v6.ip(),
    };
    (ip.octets(), address.port())
}

fn assert_introduced(slot: &FlowSlot, end: &End, role: u8) {
    let local = kept(end.stream.local_addr().expect("connected"));
    let peer = kept(end.stream.peer_addr().expect("connected"));
    assert_eq!((slot.local_addr, slot.local_port), local);
    assert_eq!((slot.peer_addr, slot.peer_port), peer);
    assert_eq!((slot.state, slot.role), (SLOT_LIVE, role));
    assert_eq!((slot.origin, slot.entry), (ORIGIN_START, 0));
    assert_ne!(slot.life.opened_ns, 0);
    let begun = SYNCED | HANDSHAKE_DUE | EDGE_KNOWN;
    let (requests, replies) = if role == ROLE_HOLDER {
        (REQUESTS | OUTGOING, 0)
    } else {
        (REQUESTS, OUTGOING)
    };
    assert_eq!(slot.requests.flags, begun | requests);
    assert_eq!(slot.replies.flags, begun | replies);
}

fn both_ends_are_introduced(bed: &Bed, address: SocketAddr) {
    let pair = bed.pair_by(address);
    let holder = bed.until(pair.holder.cookie, "a slot", |_| true);
    let grantor = bed.until(pair.grantor.cookie, "a slot", |_| true);
    assert_introduced(&holder, &pair.holder, ROLE_HOLDER);
    assert_introduced(&grantor, &pair.grantor, ROLE_GRANTOR);
    // What one end sends first is what the other receives first.
    assert_eq!(holder.requests.next_seq, grantor.requests.next_seq);
    assert_eq!(holder.replies.next_seq, grantor.replies.next_seq);
    assert_ne!(holder.requests.next_seq, holder.replies.next_seq);
}

#[test]
fn both_ends_have_a_slot_over_ipv4() {
    let Some(bed) = Bed::with(here!(), ONLY) else {
        return;
    };
    both_ends_are_introduced(&bed, (Ipv4Addr::LOCALHOST, 0).into());
}

#[test]
fn both_ends_have_a_slot_over_ipv6_and_over_ipv4_in_ipv6_sockets() {
    let Some(bed) = Bed::at(here!(), ONLY, (Ipv6Addr::UNSPECIFIED, 0).into()) else {
        return;
    };
    both_ends_are_introduced(&bed, (Ipv6Addr::LOCALHOST, 0).into());
    both_ends_are_introduced(&bed, (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 0).into());
    // One end each.
    both_ends_are_introduced(&bed, (Ipv4Addr::LOCALHOST, 0).into());
}

#[test]
fn a_port_that_is_not_watched_takes_no_slot() {
    let Some(bed) = Bed::with(here!(), ONLY) else {
        return;
    };
    bed.watch_port(0);
    let unwatched = bed.pair();
    bed.watch_port(3);
    let watched = bed.pair();
    // Once the later one is there, the earlier one would be.
    let slot = bed.until(watched.grantor.cookie, "a slot", |_| true);
    assert_eq!(slot.entry, 2, "the entry's index, without the one added");
    assert!(bed.slot(unwatched.holder.cookie).is_none());
    assert!(bed.slot(unwatched.grantor.cookie).is_none());
    assert_eq!(bed.kernel.state.losses().high_water, 2);
}

#[test]
fn a_client_whose_own_port_is_watched_is_no_flow() {
    let Some(bed) = Bed::with(here!(), &["flow_start", "packets_in", "packets_out"]) else {
        return;
    };
    // As a range does that takes in ephemeral ports, and not the port that is connected to.
    let pair = bed.pair_from_watched_port();
    pair.holder.send(b"GET / HTTP/1.0\r\n\r\n");
    pair.grantor.send(b"HTTP/1.0 200 OK\r\n\r\n");
    // Once the later one is there, the earlier one would be.
    bed.watch_port(1);
    let watched = bed.pair();
    bed.until(watched.grantor.cookie, "a slot", |_| true);
    assert!(bed.slot(pair.holder.cookie).is_none());
    assert!(bed.slot(pair.grantor.cookie).is_none());
    assert_eq!(bed.kernel.state.losses().high_water, 2);
}

#[test]
fn a_flow_without_room_is_counted_and_the_others_stay() {
    let Some(bed) = Bed::with(here!(), ONLY) else {
        return;
    };
    let pairs: Vec<_> = (0..FLOWS / 2 + 1).map(|_| bed.pair()).collect();
    assert_eq!(bed.kernel.state.losses().no_slot, 2);
    let (last, first) = pairs.split_last().expect("some");
    assert!(bed.slot(last.holder.cookie).is_none());
    for pair in first {
        assert!(bed.slot(pair.holder.cookie).is_some());
        assert!(bed.slot(pair.grantor.cookie).is_some());
    }
}

#[test]
fn a_slot_given_back_is_taken_again_by_another_socket() {
    let Some(mut bed) = Bed::with(here!(), &["flow_start", "flow_state"]) else {
        return;
    };
    for _ in 0..FLOWS {
        let pair = bed.pair();
        let cookies = [pair.holder.cookie, pair.grantor.cookie];
        for cookie in cookies {
            bed.until(cookie, "a live slot", |slot| slot.state == SLOT_LIVE);
        }
        pair.holder.reset();
        drop(pair.grantor);
        for cookie in cookies {
            bed.until(cookie, "dead", |slot| slot.state != SLOT_LIVE);
        }
        bed.sweep();
    }
    assert_eq!(bed.kernel.state.losses().no_slot, 0);
    assert_eq!(bed.kernel.state.losses().high_water, 2);
}
