//! The parser in the kernel against the parser on the host: the same segments give the same slot,
//! field by field.
//!
//! What arrives can be chosen to the byte: segments are put on loopback by a raw socket under the
//! peer's address, and the ingress program sees each before TCP has looked at it, so holes,
//! repetitions and swaps are as wanted. What is sent can be split but not reordered: there TCP is
//! the one that sends. Inputs are those of the parser's own property tests.

use std::{
    cell::RefCell,
    net::SocketAddr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use watchdog_common::layout::{
    Direction, EntryShape, FlowSlot, PROTOCOL_CONSUL, PROTOCOL_ETCD, PROTOCOL_KAFKA,
    PROTOCOL_REQUEST_REPLY, PROTOCOL_TLS, SYNCED,
};

use crate::{
    bed::{Bed, End, Pair, Pinned, here, soon},
    inputs::{
        Flow, START, Segment, connect, cut, holed, kinds, mutated, repeated, replies_of, stream_of,
        swapped,
    },
};

const ONLY: &[&str] = &["flow_start", "packets_in", "packets_out", "flow_state"];
/// Streams put in by each property.
const CASES: u32 = 256;

/// The same, but where proptest's own variable says otherwise: an emulated machine has no time for all.
fn cases() -> u32 {
    let said = std::env::var("PROPTEST_CASES").ok();
    said.and_then(|count| count.parse().ok()).unwrap_or(CASES)
}

/// Everything in a direction that does not depend on the clock, sequence numbers from the stream's
/// first byte on.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    flags: u32,
    next: Option<u32>,
    edge: u32,
    newest_end: u32,
    unread_end: u32,
    body_left: u32,
    head: Vec<u8>,
    early: Option<(u32, u32)>,
    messages: u64,
    keepalives: u32,
    answers: u64,
    marks: u32,
    lost_syncs: u32,
    handshake: (u64, i32),
    pending: (i32, i32),
    ended: bool,
    part: (u32, u32, u32, u32, u32),
}

impl Seen {
    fn of(direction: &Direction, base: u32) -> Self {
        let from_start = |seq: u32| seq.wrapping_sub(base);
        Self {
            flags: direction.flags,
            next: (direction.flags & SYNCED != 0).then(|| from_start(direction.next_seq)),
            edge: from_start(direction.edge_seq),
            newest_end: from_start(direction.newest_end_seq),
            unread_end: from_start(direction.unread_end_seq),
            body_left: direction.body_left,
            head: direction.head[..direction.head_len as usize].to_vec(),
            early: (direction.early_len != 0)
                .then(|| (from_start(direction.early_seq), direction.early_len)),
            messages: direction.messages,
            keepalives: direction.keepalives,
            answers: direction.answers,
            marks: direction.marks,
            lost_syncs: direction.lost_syncs,
            handshake: (direction.handshake.session, direction.handshake.timeout_ms),
            pending: (direction.pending_xid, direction.pending_err),
            ended: direction.ending_ns != 0,
            part: (
                direction.ordinal,
                direction.need,
                direction.frame_left,
                direction.phase,
                direction.kind,
            ),
        }
    }
}

fn both(slot: &FlowSlot, bases: [u32; 2]) -> [Seen; 2] {
    [
        Seen::of(&slot.requests, bases[0]),
        Seen::of(&slot.replies, bases[1]),
    ]
}

/// A raw socket: packets with headers of our own making.
struct Injector(OwnedFd);

impl Injector {
    fn new() -> Self {
        // SAFETY: takes integers, gives a new descriptor or an error.
        let fd = unsafe {
            libc::socket(
                libc::AF_INET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                libc::IPPROTO_RAW,
            )
        };
        assert!(fd >= 0, "raw socket: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor was just made and belongs to nobody else.
        Self(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// A segment to `to`, as if its peer had sent it. At most what loopback takes in one packet.
    fn segment(&self, to: &End, seq: u32, bytes: &[u8]) {
        let (SocketAddr::V4(source), SocketAddr::V4(destination)) = (
            to.stream.peer_addr().expect("connected"),
            to.stream.local_addr().expect("connected"),
        ) else {
            panic!("IPv4 only");
        };
        let length = u16::try_from(40 + bytes.len()).expect("one packet");
        let mut packet = vec![0x45, 0];
        packet.extend(length.to_be_bytes());
        packet.extend([0, 0, 0x40, 0, 64, 6, 0, 0]); // Not to be fragmented; TCP; kernel sums.
        packet.extend(source.ip().octets());
        packet.extend(destination.ip().octets());
        packet.extend(source.port().to_be_bytes());
        packet.extend(destination.port().to_be_bytes());
        packet.extend(seq.to_be_bytes());
        // No ACK number: without the flag it means nothing, and TCP drops the segment after it was
        // seen, so that what is put in by hand never becomes part of the real stream.
        packet.extend([0, 0, 0, 0, 0x50, 0x08, 0x7f, 0xff, 0, 0, 0, 0]); // PSH alone.
        packet.extend(bytes);
        let mut pseudo = packet[12..20].to_vec();
        pseudo.extend([0, 6]);
        pseudo.extend((length - 20).to_be_bytes());
        pseudo.extend(&packet[20..]);
        let sum = checksum(&pseudo);
        packet[36..38].copy_from_slice(&sum.to_be_bytes());
        let address = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: 0,
            sin_addr: libc::in_addr {
                s_addr: u32::from_ne_bytes(destination.ip().octets()),
            },
            sin_zero: [0; 8],
        };
        // SAFETY: a buffer and an address with their sizes, both outlive the call.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                size_of_val(&address) as u32,
            )
        };
        assert_eq!(
            sent,
            libc::ssize_t::try_from(packet.len()).expect("small"),
            "{}",
            std::io::Error::last_os_error()
        );
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Segments of more than this are split: a packet holds no more.
const ROOM: usize = 60_000;

fn in_packets(segments: Vec<Segment>) -> Vec<Segment> {
    segments
        .into_iter()
        .flat_map(|(seq, bytes)| {
            let parts = bytes.chunks(ROOM).enumerate();
            parts
                .map(|(n, part)| (seq.wrapping_add((n * ROOM) as u32), part.to_vec()))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Runs a property over connections of their own.
struct Laboratory {
    bed: RefCell<Bed>,
    injector: Injector,
    shape: EntryShape,
    _in_order: Pinned,
}

impl Laboratory {
    fn open(name: &str) -> Option<Self> {
        Self::of(name, EntryShape::default())
    }

    fn of(name: &str, shape: EntryShape) -> Option<Self> {
        let bed = Bed::with(name, ONLY)?;
        bed.describe(shape);
        Some(Self {
            bed: RefCell::new(bed),
            shape,
            injector: Injector::new(),
            _in_order: Pinned::here(),
        })
    }

    fn prove<S: Strategy>(&self, input: S, case: impl Fn(S::Value) -> Result<(), TestCaseError>)
    where
        S::Value: std::fmt::Debug,
    {
        let mut runner = TestRunner::new(Config {
            cases: cases(),
            failure_persistence: None,
            max_shrink_iters: 20,
            ..Config::default()
        });
        runner
            .run(&input, case)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    fn connection(&self) -> (Pair, [u32; 2]) {
        self.bed.borrow_mut().sweep();
        let bed = self.bed.borrow();
        let pair = bed.pair();
        let slot = bed.until(pair.holder.cookie, "a slot", |_| true);
        (pair, [slot.requests.next_seq, slot.replies.next_seq])
    }

    /// Puts the requests into the grantor's socket and compares.
    fn requests_arrive(&self, segments: Vec<Segment>) -> Result<(), TestCaseError> {
        let (pair, bases) = self.connection();
        let mut host = Flow::accepted().of(self.shape);
        for (seq, bytes) in in_packets(segments) {
            if bytes.is_empty() {
                continue;
            }
            host.request(seq, &bytes);
            let seq = bases[0].wrapping_add(seq.wrapping_sub(START));
            self.injector.segment(&pair.grantor, seq, &bytes);
        }
        self.compare(pair, bases, &host, |pair| pair.grantor.cookie)
    }

    /// Sends requests from the holder, puts the replies into its socket, and compares.
    fn replies_arrive(&self, requests: &[u8], segments: Vec<Segment>) -> Result<(), TestCaseError> {
        let (pair, bases) = self.connection();
        let mut host = Flow::started().of(self.shape);
        host.request(START, requests);
        std::thread::scope(|scope| {
            scope.spawn(|| drain(&pair.grantor, requests.len()));
            pair.holder.send(requests);
        });
        for (seq, bytes) in in_packets(segments) {
            if bytes.is_empty() {
                continue;
            }
            host.reply(seq, &bytes);
            let seq = bases[1].wrapping_add(seq.wrapping_sub(START));
            self.injector.segment(&pair.holder, seq, &bytes);
        }
        self.compare(pair, bases, &host, |pair| pair.holder.cookie)
    }

    /// Writes the requests part by part and compares both ends.
    fn requests_sent(&self, parts: &[Segment]) -> Result<(), TestCaseError> {
        let (pair, bases) = self.connection();
        let (mut sender, mut receiver) = (
            Flow::started().of(self.shape),
            Flow::accepted().of(self.shape),
        );
        let all = parts.iter().map(|(_, part)| part.len()).sum();
        std::thread::scope(|scope| {
            scope.spawn(|| drain(&pair.grantor, all));
            for (seq, part) in parts {
                sender.request(*seq, part);
                receiver.request(*seq, part);
                pair.holder.send(part);
            }
        });
        let grantor = pair.grantor.cookie;
        self.same(grantor, bases, &receiver)?;
        self.compare(pair, bases, &sender, |pair| pair.holder.cookie)
    }

    fn same(&self, cookie: u64, bases: [u32; 2], host: &Flow) -> Result<(), TestCaseError> {
        let comparable = |mut seen: [Seen; 2]| {
            if self.shape.protocol == PROTOCOL_REQUEST_REPLY && self.shape.length_bytes == 0 {
                // Without a frame a message ends where its segment does, and TCP cuts as it likes.
                for direction in &mut seen {
                    direction.unread_end = 0;
                }
            }
            seen
        };
        let on_host = comparable(both(&host.slot, [START; 2]));
        let look = || Some(comparable(both(&self.bed.borrow().slot(cookie)?, bases)));
        let same = soon(|| look().filter(|seen| *seen == on_host));
        if same.is_none() {
            prop_assert_eq!(look(), Some(on_host), "kernel, host");
        }
        Ok(())
    }

    fn compare(
        &self,
        pair: Pair,
        bases: [u32; 2],
        host: &Flow,
        which: impl Fn(&Pair) -> u64,
    ) -> Result<(), TestCaseError> {
        let verdict = self.same(which(&pair), bases, host);
        let cookies = [pair.holder.cookie, pair.grantor.cookie];
        pair.holder.reset();
        pair.grantor.reset();
        for cookie in cookies {
            self.bed.borrow().until(cookie, "dead", |slot| {
                slot.state == watchdog_common::layout::SLOT_DEAD
            });
        }
        verdict
    }
}

fn drain(end: &End, bytes: usize) {
    use std::io::Read as _;
    let mut room = vec![0; bytes];
    (&end.stream)
        .read_exact(&mut room)
        .expect("all of it comes");
}

fn cuts(most: usize) -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(any::<usize>(), 0..most)
}

#[test]
fn requests_sent_in_any_split_are_the_same_at_both_ends() {
    let Some(laboratory) = Laboratory::open(here!()) else {
        return;
    };
    laboratory.prove((kinds(), cuts(60)), |(kinds, cuts)| {
        laboratory.requests_sent(&cut(&stream_of(&kinds).0, &cuts))
    });
}

#[test]
fn requests_that_arrive_in_any_split_are_the_same() {
    let Some(laboratory) = Laboratory::open(here!()) else {
        return;
    };
    laboratory.prove((kinds(), cuts(60)), |(kinds, cuts)| {
        laboratory.requests_arrive(cut(&stream_of(&kinds).0, &cuts))
    });
}

#[test]
fn repeated_and_overlapping_requests_are_the_same() {
    let Some(laboratory) = Laboratory::open(here!()) else {
        return;
    };
    let again = prop::collection::vec((any::<usize>(), any::<usize>()), 0..20);
    laboratory.prove((kinds(), cuts(30), again), |(kinds, cuts, again)| {
        laboratory.requests_arrive(repeated(&stream_of(&kinds).0, &cuts, &again))
    });
}

#[test]
fn holes_are_the_same_and_the_ping_after_them() {
    let Some(laboratory) = Laboratory::open(here!()) else {
        return;
    };
    let missed = prop::collection::vec(any::<bool>(), 32);
    let input = (kinds(), cuts(30), missed, any::<bool>());
    laboratory.prove(input, |(kinds, cuts, missed, in_two)| {
        laboratory.requests_arrive(holed(&stream_of(&kinds).0, &cuts, &missed, in_two))
    });
}

#[test]
fn swapped_neighbours_are_the_same() {
    let Some(laboratory) = Laboratory::open(here!()) else {
        return;
    };
    let input = (kinds(), any::<usize>(), 1..60_usize, 1..60_usize);
    laboratory.prove(input, |(kinds, at, first, second)| {
        let bytes = replies_of(&kinds);
        prop_assume!(bytes.len() > first + second);
        let at = at % (bytes.len() - first - second);
        laboratory.replies_arrive(&connect(6_000, 0), swapped(&bytes, at, first, second))
    });
}

#[test]
fn replies_packed_and_split_answer_the_same_requests() {
    let Some(laboratory) = Laboratory::open(here!()) else {
        return;
    };
    // No more than the ring of unanswered requests holds, handshake included.
    let few = prop::collection::vec((0..200_usize).prop_map(crate::inputs::Kind::Data), 1..14);
    laboratory.prove((few, cuts(20)), |(kinds, cuts)| {
        laboratory.replies_arrive(&stream_of(&kinds).0, cut(&replies_of(&kinds), &cuts))
    });
}

#[test]
fn garbage_is_the_same() {
    let Some(laboratory) = Laboratory::open(here!()) else {
        return;
    };
    let segment = (any::<u32>(), prop::collection::vec(any::<u8>(), 1..300));
    let segments = prop::collection::vec(segment, 1..40);
    laboratory.prove(segments, |segments| laboratory.requests_arrive(segments));
}

/// Streams that are not ZooKeeper's: framed in odd ways and not at all, with a signature and without; and
/// each protocol that is known, of which the same bytes are as good as any garbage.
fn shapes() -> [EntryShape; 8] {
    let bare = EntryShape {
        protocol: PROTOCOL_REQUEST_REPLY,
        ..EntryShape::default()
    };
    let mut signed = EntryShape {
        signature_at: 7,
        signature_len: 1,
        ..bare
    };
    (signed.signature_mask[0], signed.signature[0]) = (0x1, 0x1);
    let big = EntryShape {
        length_bytes: 4,
        adjust: 4,
        ..signed
    };
    let little = EntryShape {
        length_bytes: 2,
        length_at: 3,
        little: 1,
        adjust: 5,
        ..signed
    };
    let of = |protocol| EntryShape {
        protocol,
        ..EntryShape::default()
    };
    let (kafka, consul, etcd) = (of(PROTOCOL_KAFKA), of(PROTOCOL_CONSUL), of(PROTOCOL_ETCD));
    let tls = of(PROTOCOL_TLS);
    [bare, signed, big, little, kafka, consul, etcd, tls]
}

#[test]
fn requests_of_any_shape_are_the_same_at_both_ends() {
    let [bare, signed, big, _, _, consul, _, _] = shapes();
    // Only those that stay synchronised whatever the bytes: an anchor depends on where segments end,
    // and TCP may pack what is sent in two into one.
    for shape in [bare, signed, big, consul] {
        let Some(laboratory) = Laboratory::of(here!(), shape) else {
            return;
        };
        laboratory.prove((kinds(), cuts(60)), |(kinds, cuts)| {
            laboratory.requests_sent(&cut(&stream_of(&kinds).0, &cuts))
        });
    }
}

#[test]
fn replies_of_any_shape_are_the_same_in_any_split_and_order() {
    for shape in shapes() {
        let Some(laboratory) = Laboratory::of(here!(), shape) else {
            return;
        };
        let input = (kinds(), any::<usize>(), 1..60_usize, 1..60_usize);
        laboratory.prove(input, |(kinds, at, first, second)| {
            let bytes = replies_of(&kinds);
            prop_assume!(bytes.len() > first + second);
            let at = at % (bytes.len() - first - second);
            laboratory.replies_arrive(&stream_of(&kinds).0, swapped(&bytes, at, first, second))
        });
    }
}

#[test]
fn garbage_of_any_shape_is_the_same() {
    for shape in shapes() {
        let Some(laboratory) = Laboratory::of(here!(), shape) else {
            return;
        };
        let segment = (any::<u32>(), prop::collection::vec(any::<u8>(), 1..300));
        let segments = prop::collection::vec(segment, 1..40);
        laboratory.prove(segments, |segments| laboratory.requests_arrive(segments));
    }
}

/// The fuzzer's own inputs (`watchdog-common/tests/fuzz.rs`), in both directions.
#[test]
fn streams_that_go_wrong_are_the_same() {
    for subject in mutated::subjects() {
        let Some(laboratory) = Laboratory::of(here!(), subject.shape) else {
            return;
        };
        let requests = mutated::segments(subject.requests.clone());
        let replies = mutated::segments(subject.replies.clone());
        laboratory.prove(requests, |segments| laboratory.requests_arrive(segments));
        laboratory.prove(replies, |segments| {
            laboratory.replies_arrive(&subject.requests, segments)
        });
    }
}
