//! Kafka's frames on a host: heartbeats among other requests, JoinGroup in all its layouts, in any
//! split.

#[expect(dead_code, reason = "shared with the tests of other protocols")]
mod inputs;

use inputs::{Flow, START, cut, frame};
use proptest::prelude::*;
use watchdog_common::layout::{EntryShape, PROTOCOL_KAFKA, SYNCED};

fn kafka() -> EntryShape {
    EntryShape {
        protocol: PROTOCOL_KAFKA,
        ..EntryShape::default()
    }
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend(text.bytes());
    bytes
}

fn request(key: u16, version: u16, id: u32, client: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = key.to_be_bytes().to_vec();
    bytes.extend(version.to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend(string(client));
    bytes.extend(body);
    frame(&bytes)
}

fn join(version: u16, id: u32, client: &str, group: &str, timeout_ms: i32) -> Vec<u8> {
    let mut body = Vec::new();
    if version >= 6 {
        body.push(0);
        body.push(group.len() as u8 + 1);
        body.extend(group.bytes());
    } else {
        body.extend(string(group));
    }
    body.extend(timeout_ms.to_be_bytes());
    body.extend([7; 40]);
    request(11, version, id, client, &body)
}

fn reply(id: u32, rest: &[u8]) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend(rest);
    frame(&bytes)
}

struct Talk(Flow, [u32; 2]);

impl Talk {
    fn new(flow: Flow) -> Self {
        Self(flow.of(kafka()), [START; 2])
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
fn a_heartbeat_is_answered_by_its_own_reply_only() {
    let mut talk = Talk::new(Flow::started());
    talk.ask(&request(3, 1, 1, "c", &[0; 30]));
    let asked = talk.ask(&request(12, 1, 2, "c", &[0; 30]));
    assert_eq!(talk.0.slot.requests.keepalives, 1);
    talk.tell(&reply(1, &[0; 20]));
    assert_eq!(talk.0.slot.replies.answers, 0);
    talk.tell(&reply(2, &[0; 6]));
    assert_eq!(talk.0.slot.replies.answered_ns, asked);
    assert_eq!(talk.0.slot.replies.ending_ns, 0);
}

#[test]
fn each_layout_says_where_the_loss_of_a_membership_stands() {
    for (key, version, before) in [(12, 0, 0), (12, 3, 4), (12, 4, 5), (68, 0, 5), (63, 1, 5)] {
        let mut talk = Talk::new(Flow::accepted());
        talk.ask(&request(key, version, 9, "", &[0; 30]));
        let mut rest = vec![0; before];
        rest.extend(27_u16.to_be_bytes());
        talk.tell(&reply(9, &rest));
        assert_eq!(talk.0.slot.replies.ending_ns, 0, "a rebalance");
        talk.ask(&request(key, version, 10, "", &[0; 30]));
        rest[before + 1] = 25;
        let told = talk.tell(&reply(10, &rest));
        assert_eq!(talk.0.slot.replies.ending_ns, told, "key {key} v{version}");
    }
}

#[test]
fn a_join_is_a_renewal_from_when_it_was_answered() {
    for (version, before) in [(1, 0), (5, 4), (9, 5)] {
        let mut talk = Talk::new(Flow::started());
        talk.ask(&request(13, 0, 1, "c", b""));
        assert_ne!(talk.0.slot.requests.ending_ns, 0, "left");
        talk.ask(&join(version, 5, "c", "g", 6_000));
        assert_eq!(talk.0.slot.requests.ending_ns, 0, "back again");
        let mut rest = vec![0; before];
        rest.extend(79_u16.to_be_bytes());
        talk.tell(&reply(5, &rest));
        assert_eq!(talk.0.slot.replies.answered_ns, 0, "it was refused");
        talk.ask(&join(version, 6, "c", "g", 6_000));
        rest[before + 1] = 0;
        let told = talk.tell(&reply(6, &rest));
        assert_eq!(talk.0.slot.replies.answered_ns, told);
        assert_eq!(talk.0.slot.replies.handshake.at_ns, told);
    }
}

proptest! {
    #[test]
    fn any_split_gives_the_same_timeout_and_heartbeats(
        version in 0..10_u16,
        client in "[a-z-]{0,90}",
        group in "[a-z-]{0,100}",
        timeout_ms in 1..1_800_000_i32,
        heartbeats in 1..12_u32,
        cuts in prop::collection::vec(any::<usize>(), 0..60),
        holder in any::<bool>(),
    ) {
        let mut bytes = request(18, 3, 0, &client, &[0; 20]);
        bytes.extend(join(version, 1, &client, &group, timeout_ms));
        for id in 0..heartbeats {
            bytes.extend(request(12, version % 5, id + 2, &client, &[0; 50]));
            bytes.extend(request(1, 11, id + 200, &client, &[0; 90]));
        }
        let flow = if holder { Flow::started() } else { Flow::accepted() };
        let mut flow = flow.of(kafka());
        for (seq, part) in cut(&bytes, &cuts) {
            flow.request(seq, &part);
        }
        prop_assert_eq!(flow.slot.requests.handshake.timeout_ms, timeout_ms);
        prop_assert_eq!(flow.slot.requests.keepalives, heartbeats);
        prop_assert_eq!(flow.slot.requests.lost_syncs, 0);
        prop_assert!(flow.slot.requests.flags & SYNCED != 0);
    }

    #[test]
    fn garbage_neither_panics_nor_answers_what_was_not_asked(
        segments in prop::collection::vec((any::<u32>(), any::<bool>(), prop::collection::vec(any::<u8>(), 1..300)), 1..40),
    ) {
        let mut flow = Flow::middle().of(kafka());
        for (seq, requests, bytes) in segments {
            flow.feed(requests, seq, &bytes);
            prop_assert!(flow.slot.replies.answers <= flow.slot.requests.messages);
        }
    }
}
