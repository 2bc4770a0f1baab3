//! TLS records on a host: exchanges told by when application data goes and comes, in any split.

#[expect(dead_code, reason = "shared with the tests of other protocols")]
mod inputs;

use inputs::{Flow, START, cut};
use proptest::prelude::*;
use watchdog_common::layout::{EntryShape, FOREIGN, PROTOCOL_TLS, SYNCED};

const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

fn tls() -> EntryShape {
    EntryShape {
        protocol: PROTOCOL_TLS,
        ..EntryShape::default()
    }
}

fn record(kind: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![kind, 3, 3];
    bytes.extend((length as u16).to_be_bytes());
    bytes.resize(5 + length, 0xa5);
    bytes
}

struct Talk(Flow, [u32; 2]);

impl Talk {
    fn new(flow: Flow) -> Self {
        Self(flow.of(tls()), [START; 2])
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
fn data_that_goes_and_data_that_comes_are_an_exchange() {
    for flow in [Flow::started(), Flow::accepted()] {
        let mut talk = Talk::new(flow);
        talk.ask(&record(HANDSHAKE, 300));
        talk.tell(&record(HANDSHAKE, 1_500));
        talk.tell(&record(20, 1));
        assert_eq!(talk.0.slot.replies.answers, 0);
        let asked = talk.ask(&record(DATA, 40));
        // A second record of the same request, and two of one reply.
        talk.ask(&record(DATA, 40));
        assert_eq!(talk.0.slot.requests.messages, 1);
        let told = talk.tell(&record(DATA, 60));
        talk.tell(&record(DATA, 60));
        let replies = &talk.0.slot.replies;
        assert_eq!((replies.answers, replies.messages), (1, 1));
        assert_eq!((replies.answered_ns, replies.answer_ns), (asked, told));
    }
}

#[test]
fn a_close_notify_is_no_request() {
    for sealed in [19, 11] {
        let mut talk = Talk::new(Flow::started());
        talk.ask(&record(DATA, 40));
        talk.tell(&record(DATA, 40));
        talk.ask(&record(DATA, sealed));
        talk.ask(&record(21, 26));
        let requests = &talk.0.slot.requests;
        assert_eq!(requests.messages, 1);
        assert_eq!(requests.marks, talk.0.slot.replies.marks, "nothing waits");
    }
}

#[test]
fn the_end_of_the_handshake_is_credited_early_and_never_late() {
    // TLS 1.3: the server's part of it is called data, so are the client's last word and the tickets.
    let mut talk = Talk::new(Flow::started());
    talk.ask(&record(HANDSHAKE, 300));
    talk.tell(&[record(HANDSHAKE, 120), record(DATA, 900)].concat());
    assert_eq!(talk.0.slot.replies.messages, 0, "nothing was asked");
    let finished = talk.ask(&record(DATA, 53));
    let asked = talk.ask(&record(DATA, 66));
    talk.tell(&record(DATA, 250));
    assert_eq!(talk.0.slot.replies.answered_ns, finished);
    assert!(talk.0.slot.replies.answered_ns < asked);
}

#[test]
fn what_begins_otherwise_is_foreign() {
    for bytes in [
        b"\0\0\0\x2d\0\0\0".as_slice(),
        b"\0\x05renew",
        b"\x16\x02\0\0\x10ab",
    ] {
        let mut talk = Talk::new(Flow::started());
        talk.ask(bytes);
        assert_eq!(talk.0.slot.requests.flags & (FOREIGN | SYNCED), FOREIGN);
    }
}

#[test]
fn met_in_mid_stream_a_segment_that_is_one_record_tells_where_they_begin() {
    let mut talk = Talk(Flow::middle().of(tls()), [START; 2]);
    talk.tell(&[7; 90]);
    talk.ask(&[7; 90]);
    talk.ask(&record(DATA, 40));
    talk.tell(&record(DATA, 40));
    let asked = talk.ask(&record(DATA, 40));
    talk.tell(&record(DATA, 40));
    assert_eq!(talk.0.slot.replies.answered_ns, asked);
}

proptest! {
    #[test]
    fn any_split_gives_the_same(
        lengths in prop::collection::vec((20..18_432_usize, any::<bool>()), 1..12),
        cuts in prop::collection::vec(any::<usize>(), 0..60),
        holder in any::<bool>(),
    ) {
        let bytes: Vec<u8> = lengths
            .iter()
            .flat_map(|(length, data)| record(if *data { DATA } else { HANDSHAKE }, *length))
            .collect();
        let any_data = lengths.iter().any(|(_, data)| *data);
        let flow = if holder { Flow::started() } else { Flow::accepted() };
        let mut flow = flow.of(tls());
        for (seq, part) in cut(&bytes, &cuts) {
            flow.request(seq, &part);
        }
        for (seq, part) in cut(&bytes, &cuts) {
            flow.reply(seq, &part);
        }
        prop_assert_eq!(flow.slot.requests.messages, u64::from(any_data));
        prop_assert_eq!(flow.slot.replies.answers, u64::from(any_data));
        prop_assert!(flow.slot.requests.flags & flow.slot.replies.flags & SYNCED != 0);
    }

    #[test]
    fn garbage_neither_panics_nor_answers_what_was_not_asked(
        segments in prop::collection::vec((any::<u32>(), any::<bool>(), prop::collection::vec(any::<u8>(), 1..300)), 1..40),
    ) {
        let mut flow = Flow::middle().of(tls());
        for (seq, requests, bytes) in segments {
            flow.feed(requests, seq, &bytes);
            prop_assert!(flow.slot.replies.answers <= flow.slot.requests.messages);
        }
    }
}
