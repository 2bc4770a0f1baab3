//! etcd's frames on a host: keepalives among other HTTP/2 frames, in any split.

#[expect(dead_code, reason = "shared with the tests of other protocols")]
mod inputs;

use inputs::{Flow, START, cut};
use proptest::prelude::*;
use watchdog_common::layout::{EntryShape, PROTOCOL_ETCD, SYNCED};

const LEASE: u64 = 0x694d_81a2_c3d4_0a05;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn etcd() -> EntryShape {
    EntryShape {
        protocol: PROTOCOL_ETCD,
        ..EntryShape::default()
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn message(flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let mut payload = vec![0];
    payload.extend((body.len() as u32).to_be_bytes());
    payload.extend(body);
    frame(0, flags, stream, &payload)
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn number(field: u8, value: u64) -> Vec<u8> {
    let mut bytes = vec![field << 3];
    bytes.extend(varint(value));
    bytes
}

fn keepalive(stream: u32, id: u64) -> Vec<u8> {
    message(0, stream, &number(1, id))
}

fn response(stream: u32, id: u64, ttl: u64, header: &[u8]) -> Vec<u8> {
    let mut body = vec![0x0a, header.len() as u8];
    body.extend(header);
    body.extend(number(2, id));
    if ttl > 0 {
        body.extend(number(3, ttl));
    }
    message(0, stream, &body)
}

fn header() -> Vec<u8> {
    let mut bytes = number(1, 0xcdf8_1818_2b6d_0a05);
    bytes.extend(number(2, 0x8e9e_05c5_2164_694d));
    bytes.extend(number(3, 17));
    bytes.extend(number(4, 2));
    bytes
}

struct Talk(Flow, [u32; 2]);

impl Talk {
    fn new(flow: Flow) -> Self {
        let mut talk = Self(flow.of(etcd()), [START; 2]);
        talk.ask(PREFACE);
        talk
    }

    fn ask(&mut self, bytes: &[u8]) -> u64 {
        self.0.request(self.1[0], bytes);
        self.1[0] = self.1[0].wrapping_add(bytes.len() as u32);
        self.0.now_ns
    }

    fn tell(&mut self, bytes: &[u8]) -> u64 {
        self.0.reply(self.1[1], bytes);
        self.1[1] = self.1[1].wrapping_add(bytes.len() as u32);
        self.0.now_ns
    }
}

#[test]
fn a_keepalive_tells_its_lease_and_its_answer_the_ttl() {
    let mut talk = Talk::new(Flow::started());
    talk.ask(&frame(4, 0, 0, &[0; 6]));
    talk.tell(&frame(4, 0, 0, &[]));
    // Other streams: a unary request, a watch and its event.
    talk.ask(&message(1, 1, &number(1, 0x1234)));
    talk.ask(&message(0, 3, &[0x0a, 3, 0x0a, 1, b'k']));
    talk.tell(&response(3, 77, 99, &header()));
    assert_eq!(talk.0.slot.requests.messages, 0);
    let asked = talk.ask(&keepalive(5, LEASE));
    assert_eq!(talk.0.slot.requests.handshake.session, LEASE);
    talk.tell(&response(3, 77, 99, &header()));
    assert_eq!(talk.0.slot.replies.answers, 0, "another stream");
    talk.tell(&response(5, LEASE, 6, &header()));
    assert_eq!(talk.0.slot.replies.answered_ns, asked);
    assert_eq!(talk.0.slot.replies.handshake.timeout_ms, 6_000);
    assert_eq!(talk.0.slot.replies.ending_ns, 0);
    // Revoked.
    let revoked = talk.ask(&message(1, 7, &number(1, LEASE)));
    assert_eq!(talk.0.slot.requests.ending_ns, revoked);
}

#[test]
fn an_answer_without_a_ttl_says_that_the_lease_is_gone() {
    let mut talk = Talk::new(Flow::accepted());
    talk.ask(&keepalive(1, LEASE));
    let told = talk.tell(&response(1, LEASE, 0, &header()));
    assert_eq!(talk.0.slot.replies.ending_ns, told);
}

#[test]
fn of_two_leases_on_one_connection_the_first_is_followed() {
    let mut talk = Talk::new(Flow::started());
    let asked = talk.ask(&keepalive(1, LEASE));
    talk.ask(&keepalive(1, LEASE + 1));
    talk.tell(&response(1, LEASE, 6, &header()));
    talk.tell(&response(1, LEASE + 1, 60, &header()));
    assert_eq!(talk.0.slot.requests.messages, 1);
    assert_eq!(talk.0.slot.replies.answered_ns, asked);
    assert_eq!(talk.0.slot.replies.handshake.timeout_ms, 6_000);
}

proptest! {
    #[test]
    fn any_split_gives_the_same(
        id in 1..u64::MAX,
        ttl in 1..100_000_u64,
        others in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 1..12),
        cuts in prop::collection::vec(any::<usize>(), 0..60),
        holder in any::<bool>(),
    ) {
        let (mut to, mut from) = (PREFACE.to_vec(), Vec::new());
        for other in &others {
            to.extend(frame(1, 4, 1, other));
            to.extend(keepalive(1, id));
            from.extend(frame(1, 4, 1, other));
            from.extend(response(1, id, ttl, &header()));
        }
        let flow = if holder { Flow::started() } else { Flow::accepted() };
        let mut flow = flow.of(etcd());
        for (seq, part) in cut(&to, &cuts) {
            flow.request(seq, &part);
        }
        for (seq, part) in cut(&from, &cuts) {
            flow.reply(seq, &part);
        }
        prop_assert_eq!(flow.slot.requests.keepalives as usize, others.len());
        prop_assert_eq!(flow.slot.requests.handshake.session, id);
        prop_assert_eq!(flow.slot.replies.answers as usize, others.len());
        prop_assert_eq!(flow.slot.replies.handshake.timeout_ms as u64, ttl * 1_000);
        prop_assert!(flow.slot.requests.flags & flow.slot.replies.flags & SYNCED != 0);
    }

    #[test]
    fn garbage_neither_panics_nor_answers_what_was_not_asked(
        segments in prop::collection::vec((any::<u32>(), any::<bool>(), prop::collection::vec(any::<u8>(), 1..300)), 1..40),
    ) {
        let mut flow = Flow::middle().of(etcd());
        for (seq, requests, bytes) in segments {
            flow.feed(requests, seq, &bytes);
            prop_assert!(flow.slot.replies.answers <= flow.slot.requests.messages);
        }
    }
}
