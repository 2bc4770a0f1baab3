//! What flows do over half a minute: who asks, how regularly, in what words.
//!
//! In: the first bytes of segments, with the moment. Out: for each flow its protocol, if its frames tell,
//! and its cadence. Pure: no clock, no socket. Never: a payload kept; of each request's head 24 bytes are
//! compared with the one before and overwritten.

use std::collections::HashMap;
use std::net::SocketAddr;

use watchdog_model::Mono;
use watchdog_model::time::{MS, SECOND};

use super::recognise::{self, Seen, Spoken};

/// Flows beyond these are not looked at: a node has fewer that renew leases.
const MAX_FLOWS: usize = 20_000;
/// Gaps kept of a flow.
const MAX_GAPS: usize = 64;
/// Bytes of a request's head that are compared.
pub const HEAD: usize = 24;
/// Segments closer to the one before than this belong to the same message.
const SAME_MESSAGE_NS: u64 = 5 * MS;
/// What is more frequent is traffic, not a keepalive.
const SHORTEST_CADENCE_NS: u64 = 200 * MS;
/// So many equal gaps, at least, make a rhythm.
const GAPS_NEEDED: usize = 3;
/// By so much may gaps differ from their median: timers of busy processes.
const JITTER: f64 = 0.2;
/// A reply that is held back for so long, while the next request follows at once, is a long poll's.
const HOLD_NS: u64 = SECOND;

/// A segment with payload.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Who sent it.
    pub from: SocketAddr,
    /// Whom to.
    pub to: SocketAddr,
    /// Its sequence number.
    pub seq: u32,
    /// Bytes of payload.
    pub len: u32,
    /// The first of them.
    pub head: &'a [u8],
    /// When it was seen.
    pub at: Mono,
}

/// One direction of a flow.
#[derive(Debug, Default)]
struct Way {
    /// Behind the newest byte; a segment that ends before it was seen already (each packet of the
    /// loopback, or through a bridge, is seen more than once).
    end: Option<u32>,
    last: Option<Mono>,
    messages: u64,
}

/// Requests of one length.
#[derive(Debug, Default)]
pub struct Kind {
    /// When the newest began.
    last: Option<Mono>,
    /// Between the beginnings, ns.
    gaps: Vec<u64>,
    /// The head of the newest.
    head: [u8; HEAD],
    /// Which of its bytes were the same in all.
    same: [bool; HEAD],
    /// How many there were.
    pub count: u64,
}

/// A connection.
#[derive(Debug)]
pub struct Flow {
    /// The end that listens, or would: the grantor.
    pub server: SocketAddr,
    /// The other end.
    pub client: SocketAddr,
    requests: Way,
    replies: Way,
    /// From the end of a reply to the next request, and from a request to its reply; ns.
    pauses: Vec<u64>,
    holds: Vec<u64>,
    kinds: HashMap<u32, Kind>,
    /// What its frames say.
    pub spoken: Spoken,
}

/// A rhythm that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Rhythm {
    /// Between two renewals, ns.
    pub cadence_ns: u64,
    /// Whether the reply is held back: the cadence is then the hold.
    pub long_poll: bool,
    /// Where it goes among other requests: offset and bytes that are the same in all of its kind.
    pub signature: Option<(usize, Vec<u8>)>,
}

/// All flows that were seen.
#[derive(Debug, Default)]
pub struct Flows {
    flows: HashMap<(SocketAddr, SocketAddr), Flow>,
    /// Segments that found no place.
    pub lost: u64,
}

impl Flows {
    /// Takes in a segment; `listens` says which addresses are listened on.
    pub fn take(&mut self, segment: &Segment<'_>, listens: impl Fn(SocketAddr) -> bool) {
        let (from, to) = (segment.from, segment.to);
        let key = if from < to { (from, to) } else { (to, from) };
        let full = self.flows.len() >= MAX_FLOWS;
        let flow = match self.flows.entry(key) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(_) if full => {
                self.lost += 1;
                return;
            }
            std::collections::hash_map::Entry::Vacant(place) => {
                // Where neither end listens here (or both do), the lower port is likelier to.
                let serves = match (listens(from), listens(to)) {
                    (true, false) => from,
                    (false, true) => to,
                    _ if from.port() < to.port() => from,
                    _ => to,
                };
                let client = if serves == from { to } else { from };
                place.insert(Flow::new(serves, client))
            }
        };
        flow.take(segment);
    }

    /// Every flow.
    pub fn all(&self) -> impl Iterator<Item = &Flow> {
        self.flows.values()
    }
}

impl Flow {
    fn new(server: SocketAddr, client: SocketAddr) -> Self {
        Self {
            server,
            client,
            requests: Way::default(),
            replies: Way::default(),
            pauses: Vec::new(),
            holds: Vec::new(),
            kinds: HashMap::new(),
            spoken: Spoken::default(),
        }
    }

    fn take(&mut self, segment: &Segment<'_>) {
        let is_request = segment.from == self.client;
        let way = if is_request {
            &mut self.requests
        } else {
            &mut self.replies
        };
        let end = segment.seq.wrapping_add(segment.len);
        if way
            .end
            .is_some_and(|seen| end.wrapping_sub(seen).cast_signed() <= 0)
        {
            return;
        }
        way.end = Some(end);
        let before = way.last.replace(segment.at);
        let goes_on = before.is_some_and(|before| since(before, segment.at) < SAME_MESSAGE_NS);
        let (asked, answered) = (self.requests.last, self.replies.last);
        if !goes_on {
            if is_request {
                self.requests.messages += 1;
                keep(&mut self.pauses, answered, segment.at);
                self.count(segment);
            } else {
                self.replies.messages += 1;
                keep(&mut self.holds, asked, segment.at);
            }
        }
        let seen = Seen {
            head: segment.head,
            len: segment.len,
            is_request,
        };
        recognise::look(&mut self.spoken, &seen);
    }

    fn count(&mut self, segment: &Segment<'_>) {
        // A flow whose requests all differ in length has no keepalive to find.
        if self.kinds.len() >= 32 && !self.kinds.contains_key(&segment.len) {
            return;
        }
        let kind = self.kinds.entry(segment.len).or_default();
        let mut head = [0; HEAD];
        for (to, from) in head.iter_mut().zip(segment.head) {
            *to = *from;
        }
        for (at, same) in kind.same.iter_mut().enumerate() {
            let known = at < segment.head.len();
            *same = known && (kind.count == 0 || (*same && head[at] == kind.head[at]));
        }
        kind.head = head;
        kind.count += 1;
        let last = kind.last.replace(segment.at);
        keep(&mut kind.gaps, last, segment.at);
    }

    /// Requests seen.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.messages
    }

    /// Replies seen.
    #[must_use]
    pub fn replies(&self) -> u64 {
        self.replies.messages
    }

    /// The rhythm of its most regular kind of request, if it has one and is answered.
    #[must_use]
    pub fn rhythm(&self) -> Option<Rhythm> {
        if self.replies.messages * 2 < self.requests.messages {
            return None;
        }
        let (len, cadence_ns) = self
            .kinds
            .iter()
            .filter_map(|(len, kind)| Some((*len, steady(&kind.gaps)?)))
            .max_by_key(|(_, cadence)| *cadence)?;
        let kind = self.kinds.get(&len)?;
        let all = self.requests.messages;
        // A gap or two of other lengths are no other requests: replies' rhythms are what counts.
        let alone = kind.count * 10 >= all * 9;
        let signature = if alone { None } else { self.signature(len) };
        if !alone && signature.is_none() {
            return None;
        }
        let (hold, pause) = (median(&self.holds), median(&self.pauses));
        let long_poll = alone && hold > HOLD_NS && pause * 10 < hold;
        Some(Rhythm {
            cadence_ns: if long_poll { hold } else { cadence_ns },
            long_poll,
            signature,
        })
    }

    /// The longest run of bytes that all requests of this length share and no other kind has there.
    fn signature(&self, len: u32) -> Option<(usize, Vec<u8>)> {
        let kind = self.kinds.get(&len)?;
        let mut best: Option<(usize, usize)> = None;
        let mut start = None;
        for at in 0..=HEAD {
            let same = at < HEAD && kind.same[at];
            match (same, start) {
                (true, None) => start = Some(at),
                (false, Some(from)) => {
                    let run = (at - from).min(16);
                    if best.is_none_or(|(_, most)| run > most) {
                        best = Some((from, run));
                    }
                    start = None;
                }
                _ => {}
            }
        }
        let (offset, run) = best.filter(|(_, run)| *run >= 2)?;
        let bytes = kind.head[offset..offset + run].to_vec();
        let others = self.kinds.iter().filter(|(other, _)| **other != len);
        let unlike = others
            .into_iter()
            .all(|(_, other)| other.head[offset..offset + run] != bytes[..]);
        unlike.then_some((offset, bytes))
    }
}

fn since(before: Mono, now: Mono) -> u64 {
    now.0.saturating_sub(before.0)
}

fn keep(gaps: &mut Vec<u64>, before: Option<Mono>, now: Mono) {
    if let Some(before) = before
        && gaps.len() < MAX_GAPS
    {
        gaps.push(since(before, now));
    }
}

fn median(gaps: &[u64]) -> u64 {
    let mut sorted = gaps.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

/// The median, if four of five gaps are near it. One may be twice as long: a segment was missed.
#[expect(clippy::cast_precision_loss, reason = "half a minute in ns is exact")]
fn steady(gaps: &[u64]) -> Option<u64> {
    let median = median(gaps);
    if gaps.len() < GAPS_NEEDED || median < SHORTEST_CADENCE_NS {
        return None;
    }
    let near = |gap: &&u64| (**gap as f64 - median as f64).abs() <= JITTER * median as f64;
    (gaps.iter().filter(near).count() * 5 >= gaps.len() * 4).then_some(median)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn server() -> SocketAddr {
        "10.0.0.9:10103".parse().unwrap()
    }
    fn client() -> SocketAddr {
        "10.0.0.7:40222".parse().unwrap()
    }

    /// Sends a request or reply of these bytes.
    fn say(flows: &mut Flows, seq: &mut u32, request: bool, bytes: &[u8], at_ms: u64) {
        let (from, to) = if request {
            (client(), server())
        } else {
            (server(), client())
        };
        let len = u32::try_from(bytes.len()).unwrap();
        let segment = Segment {
            from,
            to,
            seq: *seq,
            len,
            head: bytes,
            at: Mono(at_ms * MS),
        };
        *seq = seq.wrapping_add(len);
        flows.take(&segment, |address| address == server());
        // And seen again, as on a loopback.
        flows.take(&segment, |address| address == server());
    }

    fn one(flows: &Flows) -> &Flow {
        assert_eq!(flows.all().count(), 1);
        flows.all().next().unwrap()
    }

    #[test]
    fn a_keepalive_every_four_seconds_has_that_cadence() {
        let (mut flows, mut up, mut down) = (Flows::default(), u32::MAX - 10, 0);
        for n in 0..7 {
            // Some jitter, as timers have.
            let at = 1000 + n * 4000 + (n % 3) * 90;
            say(&mut flows, &mut up, true, b"\x00\x05renew", at);
            say(&mut flows, &mut down, false, b"\x00\x07granted", at + 1);
        }
        let flow = one(&flows);
        assert_eq!(
            (flow.requests(), flow.replies()),
            (7, 7),
            "repeats count once"
        );
        assert_eq!(flow.server, server());
        let rhythm = flow.rhythm().unwrap();
        assert!(
            (3800..4200).contains(&(rhythm.cadence_ns / MS)),
            "{rhythm:?}"
        );
        assert_eq!((rhythm.long_poll, rhythm.signature), (false, None));
    }

    #[test]
    fn a_keepalive_among_other_requests_gets_a_signature() {
        let (mut flows, mut up, mut down) = (Flows::default(), 0, 0);
        for n in 0..30_u64 {
            let at = n * 1000;
            if n % 4 == 0 {
                let counter = u8::try_from(n).unwrap();
                let bytes = [0, 0, 0, 8, 0x0c, 1, 0xaa, counter];
                say(&mut flows, &mut up, true, &bytes, at);
            } else {
                let bytes = vec![7; 20 + usize::try_from(n * n % 11).unwrap()];
                say(&mut flows, &mut up, true, &bytes, at + n * n * 37 % 400);
            }
            say(&mut flows, &mut down, false, b"ok", at + 410);
        }
        let rhythm = one(&flows).rhythm().unwrap();
        assert_eq!(rhythm.cadence_ns, 4 * SECOND);
        assert_eq!(rhythm.signature, Some((0, vec![0, 0, 0, 8, 0x0c, 1, 0xaa])));
    }

    #[test]
    fn a_held_reply_is_a_long_poll() {
        let (mut flows, mut up, mut down) = (Flows::default(), 0, 0);
        for n in 0..6 {
            say(&mut flows, &mut up, true, b"keep", n * 5000);
            say(&mut flows, &mut down, false, b"kept", n * 5000 + 4990);
        }
        let rhythm = one(&flows).rhythm().unwrap();
        assert!(rhythm.long_poll, "{rhythm:?}");
        assert_eq!(rhythm.cadence_ns, 4990 * MS);
    }

    #[test]
    fn what_is_irregular_unanswered_or_rare_has_no_rhythm() {
        let (mut flows, mut up, mut down) = (Flows::default(), 0, 0);
        for at in [0, 300, 4000, 4200, 9000, 9100, 20_000] {
            say(&mut flows, &mut up, true, b"what", at);
            say(&mut flows, &mut down, false, b"this", at + 20);
        }
        assert_eq!(one(&flows).rhythm(), None);
        let (mut flows, mut up) = (Flows::default(), 0);
        for n in 0..9 {
            say(&mut flows, &mut up, true, b"what", n * 1000);
        }
        assert_eq!(one(&flows).rhythm(), None, "nobody answers");
        let (mut flows, mut up, mut down) = (Flows::default(), 0, 0);
        for n in 0..3 {
            say(&mut flows, &mut up, true, b"what", n * 9000);
            say(&mut flows, &mut down, false, b"this", n * 9000 + 1);
        }
        assert_eq!(one(&flows).rhythm(), None, "two gaps are chance");
    }

    proptest! {
        #[test]
        fn no_segment_is_too_odd(
            segments in proptest::collection::vec(
                (any::<bool>(), any::<u32>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..80), any::<u32>()),
                0..60,
            )
        ) {
            let mut flows = Flows::default();
            for (request, seq, len, head, at) in &segments {
                let (from, to) = if *request { (client(), server()) } else { (server(), client()) };
                let segment = Segment { from, to, seq: *seq, len: *len, head, at: Mono(u64::from(*at)) };
                flows.take(&segment, |_| true);
            }
            for flow in flows.all() {
                let _any = flow.rhythm();
            }
        }
    }
}
