//! Streams to put in, and the parser run over them on the host: for the parser's own tests, and for
//! those that ask whether the kernel makes the same of the same segments.

pub mod laws;
pub mod mutated;

use proptest::prelude::*;
use watchdog_common::{
    flow::{self, Turns},
    frames,
    layout::{EntryShape, FlowSlot, OUTGOING, PROTOCOL_ZOOKEEPER, REQUESTS, ROLE_GRANTOR, SYNCED},
    plaintext::{self, Beginning},
    stream::{self, Payload},
    zookeeper,
};

/// Sequence number of a stream's first byte: it wraps within the first segments.
pub const START: u32 = 0xffff_ff00;

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
    shape: EntryShape,
}

impl Plain<'_> {
    /// All turns over some bytes.
    unsafe fn all(&self, slot: *mut FlowSlot, bytes: &[u8], seq: u32, now_ns: u64) {
        let (requests, shape) = (self.requests, &self.shape);
        // Two turns for each byte are more than any parser takes.
        let most = 2 * bytes.len() + 16;
        let bytes = Bytes(bytes);
        // SAFETY: by the trait's contract.
        let turn = || unsafe {
            if shape.protocol == PROTOCOL_ZOOKEEPER {
                zookeeper::turn(slot, requests, &bytes, seq, now_ns)
            } else {
                frames::turn(slot, requests, shape, &bytes, seq, now_ns)
            }
        };
        assert!((0..most).any(|_| !turn()), "the parser goes on for ever");
    }
}

impl Turns for Plain<'_> {
    unsafe fn over_segment(&mut self, slot: *mut FlowSlot, seq: u32, now_ns: u64) {
        // SAFETY: by the trait's contract.
        unsafe { self.all(slot, self.bytes, seq, now_ns) };
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
        unsafe { self.all(slot, &early, seq, now_ns) };
    }
    unsafe fn stash(&mut self, dst: *mut u8, len: u32) {
        // SAFETY: by the trait's contract.
        unsafe { dst.copy_from_nonoverlapping(self.bytes.as_ptr(), len as usize) };
    }
}

/// One end of a flow.
pub struct Flow {
    /// What the parser has made of it.
    pub slot: Box<FlowSlot>,
    /// Time of the newest segment.
    pub now_ns: u64,
    holder: bool,
    shape: EntryShape,
}

impl Flow {
    /// The holder's end, from the first byte on.
    pub fn started() -> Self {
        Self::middle().begun()
    }

    /// The grantor's end, from the first byte on.
    pub fn accepted() -> Self {
        let mut flow = Self::middle();
        flow.holder = false;
        flow.slot.role = ROLE_GRANTOR;
        flow.slot.requests.flags = REQUESTS;
        flow.slot.replies.flags = OUTGOING;
        flow.begun()
    }

    /// Of an entry that looks like this.
    pub fn of(self, shape: EntryShape) -> Self {
        Self { shape, ..self }
    }

    fn begun(self) -> Self {
        let mut flow = self;
        stream::begin(&mut flow.slot.requests, START);
        stream::begin(&mut flow.slot.replies, START);
        flow.slot.reads.read_seq = START;
        flow
    }

    /// The holder's end, met in mid-stream.
    pub fn middle() -> Self {
        // SAFETY: plain integers, of which all-zero is valid.
        let mut slot: Box<FlowSlot> = unsafe { Box::new(std::mem::zeroed()) };
        slot.requests.flags = REQUESTS | OUTGOING;
        Self {
            slot,
            now_ns: 1_000,
            holder: true,
            shape: EntryShape::default(),
        }
    }

    /// A segment of either direction.
    pub fn feed(&mut self, requests: bool, seq: u32, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.now_ns += 1_000;
        let shape = self.shape;
        let mut turns = Plain {
            bytes,
            requests,
            shape,
        };
        let segment = flow::Segment {
            seq,
            len: bytes.len() as u32,
            outgoing: requests == self.holder,
        };
        let (slot, now_ns, bytes) = (&raw mut *self.slot, self.now_ns, Bytes(bytes));
        // SAFETY: our own slot.
        unsafe {
            if shape.protocol == PROTOCOL_ZOOKEEPER {
                flow::segment(slot, requests, segment, now_ns, &bytes, &mut turns);
            } else {
                flow::shaped(slot, requests, &shape, segment, now_ns, &bytes, &mut turns);
            }
        }
    }

    /// From here on the plaintext is had, of which this shape tells.
    pub fn reveal(&mut self, shape: EntryShape, from: Beginning) {
        self.now_ns += 1_000;
        self.shape = shape;
        // SAFETY: our own slot.
        unsafe { plaintext::begin(&raw mut *self.slot, shape.protocol, from, self.now_ns) };
    }

    /// A call of either direction went past unseen.
    pub fn miss(&mut self, requests: bool) {
        self.now_ns += 1_000;
        // SAFETY: our own slot.
        unsafe { plaintext::missed(&raw mut *self.slot, requests, self.now_ns) };
    }

    /// From here on it is not had any more.
    pub fn seal(&mut self) {
        self.now_ns += 1_000;
        // SAFETY: our own slot.
        unsafe { plaintext::end(&raw mut *self.slot, self.now_ns) };
    }

    /// A packet of either direction, with payload that cannot be read.
    pub fn pass(&mut self, requests: bool, seq: u32, len: u32) {
        self.now_ns += 1_000;
        let segment = flow::Segment {
            seq,
            len,
            outgoing: requests == self.holder,
        };
        // SAFETY: our own slot.
        unsafe { plaintext::passes(&raw mut *self.slot, requests, segment, self.now_ns) };
    }

    /// Plaintext that a call gave or took, after which TCP's stream stood at `end_seq`.
    pub fn chunk(&mut self, requests: bool, end_seq: u32, bytes: &[u8]) {
        self.now_ns += 1_000;
        let shape = self.shape;
        let mut turns = Plain {
            bytes,
            requests,
            shape,
        };
        let (slot, now_ns, len) = (&raw mut *self.slot, self.now_ns, bytes.len() as u32);
        let bytes = Bytes(bytes);
        // SAFETY: our own slot.
        unsafe {
            plaintext::chunk(
                slot, requests, &shape, end_seq, len, now_ns, &bytes, &mut turns,
            );
        }
    }

    /// A segment of the holder's.
    pub fn request(&mut self, seq: u32, bytes: &[u8]) {
        self.feed(true, seq, bytes);
    }

    /// A segment of the grantor's.
    pub fn reply(&mut self, seq: u32, bytes: &[u8]) {
        self.feed(false, seq, bytes);
    }

    /// Whether the requests' frame boundary is known.
    pub fn synced(&self) -> bool {
        self.slot.requests.flags & SYNCED != 0
    }
}

/// A frame around a body.
pub fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// A request: xid, operation, and so many bytes more.
pub fn request(xid: i32, op: i32, extra: usize) -> Vec<u8> {
    let mut body = xid.to_be_bytes().to_vec();
    body.extend(op.to_be_bytes());
    body.resize(8 + extra, 0xee);
    frame(&body)
}

/// A reply: xid, error, and so many bytes more.
pub fn reply(xid: i32, err: i32, extra: usize) -> Vec<u8> {
    let mut body = xid.to_be_bytes().to_vec();
    body.extend(0x0b_0000_0005_u64.to_be_bytes());
    body.extend(err.to_be_bytes());
    body.resize(16 + extra, 0xdd);
    frame(&body)
}

/// A ConnectRequest.
pub fn connect(timeout_ms: i32, session: u64) -> Vec<u8> {
    let mut body = vec![0; 12];
    body.extend(timeout_ms.to_be_bytes());
    body.extend(session.to_be_bytes());
    body.extend(16_i32.to_be_bytes());
    body.resize(45, 0);
    frame(&body)
}

/// A ConnectResponse.
pub fn connected(timeout_ms: i32, session: u64) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(timeout_ms.to_be_bytes());
    body.extend(session.to_be_bytes());
    body.extend(16_i32.to_be_bytes());
    body.resize(37, 0);
    frame(&body)
}

/// What a holder sends.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A keepalive.
    Ping,
    /// A request with so many bytes behind its header.
    Data(usize),
}

/// Streams of requests.
pub fn kinds() -> impl Strategy<Value = Vec<Kind>> {
    let data = prop_oneof![0..40_usize, 0..5_000_usize];
    prop::collection::vec(
        prop_oneof![Just(Kind::Ping), data.prop_map(Kind::Data)],
        1..40,
    )
}

/// The requests' stream, and how many messages and keepalives it holds, handshake included.
pub fn stream_of(kinds: &[Kind]) -> (Vec<u8>, u64, u32) {
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

/// The replies' stream that answers them, handshake included.
pub fn replies_of(kinds: &[Kind]) -> Vec<u8> {
    let mut bytes = connected(6_000, 9);
    for (n, kind) in kinds.iter().enumerate() {
        let extra = if let Kind::Data(extra) = kind {
            *extra
        } else {
            0
        };
        bytes.extend(reply(n as i32 + 1, 0, extra));
    }
    bytes
}

/// Sequence number and bytes.
pub type Segment = (u32, Vec<u8>);

fn piece(bytes: &[u8], from: usize, to: usize) -> Segment {
    (START.wrapping_add(from as u32), bytes[from..to].to_vec())
}

/// The stream in segments, split at `cuts`.
pub fn cut(bytes: &[u8], cuts: &[usize]) -> Vec<Segment> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut % bytes.len()).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.dedup();
    places
        .windows(2)
        .map(|pair| piece(bytes, pair[0], pair[1]))
        .collect()
}

/// The same, with stretches of what was sent already sent again in between.
pub fn repeated(bytes: &[u8], cuts: &[usize], again: &[(usize, usize)]) -> Vec<Segment> {
    let parts = cut(bytes, cuts);
    let count = parts.len();
    let mut segments = Vec::new();
    for (n, (seq, part)) in parts.into_iter().enumerate() {
        let end = (seq.wrapping_sub(START) as usize) + part.len();
        segments.push((seq, part));
        for (from, len) in again.iter().filter(|(from, _)| from % count == n) {
            // Any stretch that ends no later than what was sent.
            let from = from % end;
            segments.push(piece(bytes, from, (from + 1 + len % 3_000).min(end)));
        }
    }
    segments
}

/// The stream in four segments, of which the two in the middle, of `first` and `second` bytes, are
/// swapped. `at` is where they begin.
pub fn swapped(bytes: &[u8], at: usize, first: usize, second: usize) -> Vec<Segment> {
    let places = [0, at, at + first, at + first + second, bytes.len()];
    [0, 2, 1, 3]
        .map(|n| piece(bytes, places[n], places[n + 1]))
        .into()
}

/// The stream with segments missing (never the first), then a ping, whole or in two.
pub fn holed(bytes: &[u8], cuts: &[usize], missed: &[bool], in_two: bool) -> Vec<Segment> {
    let mut segments: Vec<Segment> = cut(bytes, cuts)
        .into_iter()
        .enumerate()
        .filter_map(|(n, segment)| (n == 0 || !missed[n % missed.len()]).then_some(segment))
        .collect();
    let end = START.wrapping_add(bytes.len() as u32);
    let mut ping = request(zookeeper::XID_PING, 11, 0);
    if in_two {
        let body = ping.split_off(4);
        segments.push((end, ping));
        segments.push((end.wrapping_add(4), body));
    } else {
        segments.push((end, ping));
    }
    segments
}
