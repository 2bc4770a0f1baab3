//! Requests and replies of any protocol on a host: with frames and without, with a signature and
//! without, in any split, repeated, pipelined, out of order, and garbage.

#[expect(dead_code, reason = "shared with the tests of ZooKeeper's frames")]
mod inputs;

use inputs::{Flow, START, cut, repeated};
use proptest::prelude::*;
use watchdog_common::layout::{EntryShape, PROTOCOL_REQUEST_REPLY};

/// Any request that is answered.
fn bare() -> EntryShape {
    EntryShape {
        protocol: PROTOCOL_REQUEST_REPLY,
        ..EntryShape::default()
    }
}

/// Requests with these bytes at `offset` renew.
fn signed(shape: EntryShape, offset: u8, bytes: &[u8]) -> EntryShape {
    let mut shape = EntryShape {
        signature_at: offset,
        signature_len: bytes.len() as u8,
        ..shape
    };
    shape.signature[..bytes.len()].copy_from_slice(bytes);
    shape.signature_mask[..bytes.len()].fill(0xff);
    shape
}

/// Frames with a little-endian length of two bytes at 3, which counts what follows it.
fn framed() -> EntryShape {
    EntryShape {
        little: 1,
        length_bytes: 2,
        length_at: 3,
        adjust: 5,
        ..bare()
    }
}

/// A frame for [`framed`]: a kind, and so many bytes.
fn message(kind: u8, body: usize) -> Vec<u8> {
    let mut bytes = vec![0xaa, 0xbb, 0xcc];
    bytes.extend((body as u16 + 1).to_le_bytes());
    bytes.push(kind);
    bytes.resize(6 + body, 0xee);
    bytes
}

const RENEWAL: u8 = 7;

/// A conversation, with the next sequence numbers.
struct Talk {
    flow: Flow,
    to: u32,
    from: u32,
}

impl Talk {
    fn over(flow: Flow) -> Self {
        Self {
            flow,
            to: START,
            from: START,
        }
    }

    fn ask(&mut self, bytes: &[u8]) -> u64 {
        self.flow.request(self.to, bytes);
        self.to = self.to.wrapping_add(bytes.len() as u32);
        self.flow.now_ns
    }

    fn tell(&mut self, bytes: &[u8]) -> u64 {
        self.flow.reply(self.from, bytes);
        self.from = self.from.wrapping_add(bytes.len() as u32);
        self.flow.now_ns
    }

    fn answered(&self) -> (u64, u64) {
        (
            self.flow.slot.replies.answered_ns,
            self.flow.slot.replies.answers,
        )
    }

    /// How many requests wait.
    fn waiting(&self) -> u32 {
        let slot = &self.flow.slot;
        slot.requests.marks.wrapping_sub(slot.replies.marks)
    }
}

#[test]
fn the_first_byte_after_a_request_answers_it() {
    let mut talk = Talk::over(Flow::started().of(bare()));
    let asked = talk.ask(b"renew");
    talk.ask(b" me, please");
    assert_eq!((talk.answered(), talk.waiting()), ((0, 0), 1));
    assert_eq!(talk.flow.slot.requests.messages, 1, "it is one request");
    let told = talk.tell(b"y");
    assert_eq!(talk.answered(), (asked, 1));
    assert_eq!(talk.flow.slot.replies.answer_ns, told);
    talk.tell(b"es");
    assert_eq!(talk.flow.slot.replies.answer_ns, told, "the same reply");
    assert_eq!(talk.waiting(), 0);
    let again = talk.ask(b"renew");
    talk.tell(b"yes");
    assert_eq!(talk.answered(), (again, 2));
    assert_eq!(talk.flow.slot.requests.messages, 2);
}

#[test]
fn what_nobody_asked_for_answers_nothing() {
    let mut talk = Talk::over(Flow::started().of(bare()));
    talk.tell(b"220 welcome");
    assert_eq!(talk.answered(), (0, 0));
    let asked = talk.ask(b"renew");
    talk.tell(b"yes");
    talk.tell(b"news");
    assert_eq!(talk.answered(), (asked, 1));
}

#[test]
fn only_what_carries_the_signature_renews() {
    let shape = signed(bare(), 2, &[0x0c, 0x01]);
    let mut talk = Talk::over(Flow::accepted().of(shape));
    talk.ask(&[0, 0, 0x0c, 0x02, 9]);
    talk.tell(b"data");
    assert_eq!((talk.answered(), talk.waiting()), ((0, 0), 0));
    assert_eq!(talk.flow.slot.requests.messages, 0);
    // In two segments, split within the signature.
    let asked = talk.ask(&[0, 0, 0x0c]);
    talk.ask(&[0x01, 9]);
    assert_eq!(talk.waiting(), 1);
    talk.tell(b"renewed");
    assert_eq!(talk.answered(), (asked, 1));
    // Too short to tell.
    talk.ask(&[0, 0]);
    talk.tell(b"no");
    assert_eq!(talk.answered(), (asked, 1));
}

#[test]
fn a_mask_leaves_bits_out() {
    let mut shape = signed(bare(), 0, &[0x40]);
    shape.signature_mask[0] = 0xf0;
    let mut talk = Talk::over(Flow::started().of(shape));
    talk.ask(&[0x51]);
    talk.tell(b"x");
    talk.ask(&[0x4f]);
    talk.tell(b"x");
    assert_eq!(talk.answered().1, 1);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let mut talk = Talk::over(Flow::started().of(signed(framed(), 5, &[RENEWAL])));
    talk.ask(&message(1, 30));
    let first = talk.ask(&message(RENEWAL, 8));
    talk.ask(&message(2, 0));
    let second = talk.ask(&message(RENEWAL, 8));
    talk.tell(&message(9, 3));
    assert_eq!(talk.answered(), (0, 0), "that answers the first request");
    talk.tell(&message(9, 3));
    assert_eq!(talk.answered(), (first, 1));
    talk.tell(&message(9, 3));
    assert_eq!(talk.answered(), (first, 1));
    talk.tell(&message(9, 3));
    assert_eq!(talk.answered(), (second, 2));
    talk.tell(&message(9, 3));
    assert_eq!(talk.answered(), (second, 2), "nothing was asked");
}

#[test]
fn more_requests_than_can_be_kept_are_answered_no_later_than_true() {
    let mut talk = Talk::over(Flow::started().of(framed()));
    let asked: Vec<u64> = (0..40).map(|n| talk.ask(&message(1, n))).collect();
    for asked in asked {
        talk.tell(&message(2, 0));
        assert!(talk.answered().0 <= asked);
    }
    let asked = talk.ask(&message(1, 0));
    talk.tell(&message(2, 0));
    assert_eq!(talk.answered().0, asked, "as good as ever");
}

#[test]
fn a_flow_met_between_frames_is_followed_from_its_next_one() {
    let mut talk = Talk::over(Flow::middle().of(framed()));
    talk.ask(&message(1, 20));
    talk.tell(&message(1, 20)[..4]);
    talk.tell(&message(1, 20)[4..]);
    talk.ask(&message(1, 3));
    talk.tell(&message(1, 2));
    assert_eq!(talk.answered(), (0, 0), "it may answer the one before");
    let asked = talk.ask(&message(1, 3));
    talk.tell(&message(1, 2));
    assert_eq!(talk.answered(), (asked, 1));
}

#[test]
fn an_absurd_length_is_owned_up_to() {
    // A length that says less than its own field takes.
    let shape = EntryShape {
        length_bytes: 4,
        adjust: 0,
        ..bare()
    };
    let mut talk = Talk::over(Flow::started().of(shape));
    talk.ask(&[0, 0, 0, 3, 1, 2, 3]);
    assert!(!talk.flow.synced());
    assert_eq!(talk.flow.slot.requests.lost_syncs, 1);
    talk.ask(&[0, 0, 0, 6, 1, 2]);
    assert!(talk.flow.synced(), "one frame and nothing else");
}

/// Requests of [`framed`], renewals and others.
fn requests() -> impl Strategy<Value = Vec<(bool, usize)>> {
    prop::collection::vec((any::<bool>(), 0..600_usize), 1..30)
}

fn stream(requests: &[(bool, usize)]) -> (Vec<u8>, u64) {
    let kind = |renews| if renews { RENEWAL } else { 1 };
    let bytes = requests
        .iter()
        .flat_map(|(renews, body)| message(kind(*renews), *body))
        .collect();
    (
        bytes,
        requests.iter().filter(|(renews, _)| *renews).count() as u64,
    )
}

proptest! {
    #[test]
    fn any_split_of_frames_gives_the_same(
        requests in requests(),
        cuts in prop::collection::vec(any::<usize>(), 0..60),
        holder in any::<bool>(),
    ) {
        let (bytes, renewals) = stream(&requests);
        let flow = if holder { Flow::started() } else { Flow::accepted() };
        let mut flow = flow.of(signed(framed(), 5, &[RENEWAL]));
        for (seq, part) in cut(&bytes, &cuts) {
            flow.request(seq, &part);
        }
        prop_assert_eq!(flow.slot.requests.messages, renewals);
        prop_assert_eq!(flow.slot.requests.ordinal, requests.len() as u32);
        prop_assert_eq!(flow.slot.requests.lost_syncs, 0);
    }

    #[test]
    fn repeated_bytes_change_nothing(
        requests in requests(),
        cuts in prop::collection::vec(any::<usize>(), 0..30),
        again in prop::collection::vec((any::<usize>(), any::<usize>()), 0..20),
        with_frames in any::<bool>(),
    ) {
        let (bytes, renewals) = stream(&requests);
        let shape = if with_frames { signed(framed(), 5, &[RENEWAL]) } else { bare() };
        let mut flow = Flow::accepted().of(shape);
        for (seq, part) in repeated(&bytes, &cuts, &again) {
            flow.request(seq, &part);
        }
        prop_assert_eq!(flow.slot.requests.messages, if with_frames { renewals } else { 1 });
    }

    #[test]
    fn any_split_without_frames_gives_the_same(
        requests in prop::collection::vec((any::<bool>(), 1..300_usize, 1..300_usize), 1..20),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
        holder in any::<bool>(),
    ) {
        let flow = if holder { Flow::started() } else { Flow::accepted() };
        let mut talk = Talk::over(flow.of(signed(bare(), 5, &[RENEWAL])));
        let mut renewals = 0;
        for (renews, ask, tell) in requests {
            let bytes = message(if renews { RENEWAL } else { 1 }, ask);
            let mut begun = None;
            for (_, part) in cut(&bytes, &cuts) {
                let at = talk.ask(&part);
                begun.get_or_insert(at);
            }
            let before = talk.answered();
            for (_, part) in cut(&vec![0; tell], &cuts) {
                talk.tell(&part);
            }
            renewals += u64::from(renews);
            let expected = if renews { begun.unwrap() } else { before.0 };
            prop_assert_eq!(talk.answered(), (expected, renewals));
            prop_assert_eq!(talk.waiting(), 0);
        }
    }

    #[test]
    fn garbage_neither_panics_nor_answers_what_was_not_asked(
        segments in prop::collection::vec((any::<u32>(), any::<bool>(), prop::collection::vec(any::<u8>(), 1..300)), 1..40),
        length_bytes in 0..5_u8,
        length_at in 0..12_u8,
        little in any::<bool>(),
        adjust in any::<i32>(),
        signature_at in 0..48_u8,
        signature_len in 0..17_u8,
        started in any::<bool>(),
    ) {
        let shape = EntryShape {
            little: little.into(), length_bytes, length_at, adjust, signature_at, signature_len, ..bare()
        };
        let flow = if started { Flow::started() } else { Flow::middle() };
        let mut flow = flow.of(shape);
        for (seq, requests, bytes) in segments {
            flow.feed(requests, seq, &bytes);
            prop_assert!(flow.slot.replies.answers <= flow.slot.requests.messages);
            prop_assert!(flow.slot.replies.answered_ns <= flow.now_ns);
        }
    }
}
