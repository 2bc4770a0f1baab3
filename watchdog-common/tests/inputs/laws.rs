//! What must hold of a flow whatever comes: for the property tests and for `cargo xtask fuzz` alike.
//!
//! In: streams, segments, or bytes that say by themselves what is done with them. Out: nothing, or a panic
//! that says which law was broken.

use super::{Flow, Segment, cut, mutated::Subject};
use watchdog_common::layout::{
    Direction, EntryShape, HEAD_MOST, MARKS, PROTOCOL_TLS, PROTOCOL_ZOOKEEPER, SYNCED,
};
use watchdog_common::plaintext::Beginning;

/// No read or write out of place, and nothing answered that was not asked.
pub fn sound(flow: &Flow) {
    let slot = &flow.slot;
    for direction in [&slot.requests, &slot.replies] {
        assert!(direction.cursor <= direction.limit);
        assert!(direction.head_len as usize <= HEAD_MOST);
        assert!(direction.newest_ns <= flow.now_ns);
    }
    let waiting = slot.requests.marks.wrapping_sub(slot.replies.marks);
    assert!(waiting as usize <= MARKS, "{waiting} wait");
    // A ConnectRequest is answered too, and is no message.
    assert!(slot.replies.answers <= slot.requests.messages);
    assert!(slot.replies.answered_ns <= slot.replies.answer_ns || slot.replies.answer_ns == 0);
}

/// What must not depend on where segments end.
fn essence(direction: &Direction) -> (u64, u32, u64, i32, u32, u32) {
    (
        direction.messages,
        direction.keepalives,
        direction.handshake.session,
        direction.handshake.timeout_ms,
        direction.body_left,
        direction.phase,
    )
}

/// As long as frames are not lost, the same state however the bytes are cut.
pub fn whole_and_cut(subject: &Subject, (to, from): (&[u8], &[u8]), cuts: &[usize]) {
    let play = |cuts: &[usize]| {
        let mut flow = Flow::accepted().of(subject.shape);
        for (seq, part) in cut(to, cuts) {
            flow.request(seq, &part);
        }
        for (seq, part) in cut(from, cuts) {
            flow.reply(seq, &part);
        }
        flow
    };
    let (whole, parts) = (play(&[]), play(cuts));
    for flow in [&whole, &parts] {
        sound(flow);
    }
    let kept = |direction: &Direction| direction.flags & SYNCED != 0 && direction.lost_syncs == 0;
    let asked = kept(&whole.slot.requests);
    for which in [
        |flow: &Flow| flow.slot.requests,
        |flow: &Flow| flow.slot.replies,
    ] {
        let (mut whole, mut parts) = (which(&whole), which(&parts));
        assert_eq!(kept(&whole), kept(&parts), "{}", subject.name);
        if !asked {
            // A reply counts if its request was seen, and which are seen after frames were lost
            // depends on the segments: one that is a frame by itself is an anchor.
            (whole.messages, parts.messages) = (0, 0);
        }
        if kept(&whole) {
            assert_eq!(essence(&whole), essence(&parts), "{}", subject.name);
        }
    }
}

/// How a flow is met: from its beginning, at either end, or on its way.
pub fn met(how: u8) -> Flow {
    [Flow::started, Flow::accepted, Flow::middle][usize::from(how % 3)]()
}

/// Segments of both directions, in turns.
pub fn torn(subject: &Subject, how: u8, segments: impl IntoIterator<Item = (bool, Segment)>) {
    let mut flow = met(how).of(subject.shape);
    for (requests, (seq, bytes)) in segments {
        flow.feed(requests, seq, &bytes);
        sound(&flow);
    }
}

/// Takes numbers and stretches off bytes, for as long as there are any.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn half(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes([self.byte()?, self.byte()?]))
    }

    fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Streams that are cut: how many cuts, each of two bytes; the length of what the holder sends; both streams.
pub fn cut_script(to: &[u8], from: &[u8], cuts: &[u16]) -> Vec<u8> {
    let mut bytes = vec![0, cuts.len() as u8];
    bytes.extend(cuts.iter().flat_map(|cut| cut.to_le_bytes()));
    bytes.extend((to.len() as u16).to_le_bytes());
    [bytes.as_slice(), to, from].concat()
}

/// The same in pieces of this length, by turns.
pub fn torn_script(how: u8, to: &[u8], from: &[u8], length: u8) -> Vec<u8> {
    let mut bytes = vec![1 + how % 3];
    let (mut to, mut from) = (Script(to), Script(from));
    while !to.0.is_empty() || !from.0.is_empty() {
        for (direction, of) in [(1, &mut to), (0, &mut from)] {
            let part = of.take(usize::from(length));
            bytes.extend([direction, part.len() as u8]);
            bytes.extend(part);
        }
    }
    bytes
}

/// Any bytes, of the forms above: a stream that is cut, or segments each with where it goes (as it follows, one
/// byte on, at the beginning, again) and its length.
pub fn by_script(subject: &Subject, script: &[u8]) {
    let mut script = Script(script);
    let Some(how) = script.byte() else { return };
    if how % 4 == 0 {
        let count = script.byte().unwrap_or(0) % 24;
        let cuts: Vec<usize> = (0..count)
            .filter_map(|_| script.half().map(usize::from))
            .collect();
        let length = usize::from(script.half().unwrap_or(0));
        let (to, from) = (script.take(length), script.0);
        if !to.is_empty() && !from.is_empty() {
            whole_and_cut(subject, (to, from), &cuts);
        }
        return;
    }
    let mut places = [super::START; 2];
    let segments = std::iter::from_fn(|| {
        let act = script.byte()?;
        let length = usize::from(script.byte()?);
        let bytes = script.take(length);
        let place = &mut places[usize::from(act & 1)];
        let seq = match act >> 1 & 7 {
            1 => place.wrapping_add(1),
            2 => super::START,
            3 => place.wrapping_sub(bytes.len() as u32),
            4 => place.wrapping_add(64),
            _ => *place,
        };
        *place = seq.wrapping_add(bytes.len() as u32);
        Some((act & 1 == 1, (seq, bytes.to_vec())))
    });
    torn(subject, how, segments);
}

/// A flow of records whose plaintext is had at times: for each act what is done, how long, and the bytes of it.
pub fn revealed_script(inside: &Subject, script: &[u8]) {
    let mut script = Script(script);
    let records = EntryShape {
        protocol: PROTOCOL_TLS,
        ..EntryShape::default()
    };
    let mut flow = met(script.byte().unwrap_or(0)).of(records);
    let mut places = [super::START; 2];
    let mut open = false;
    while let (Some(act), Some(length)) = (script.byte(), script.byte()) {
        let bytes = script.take(usize::from(length));
        let requests = act & 1 == 1;
        let place = &mut places[usize::from(requests)];
        match act >> 1 & 7 {
            0 if !open => {
                let from = [Beginning::First, Beginning::Frame, Beginning::Anywhere];
                flow.reveal(inside.shape, from[usize::from(length) % 3]);
                open = true;
            }
            0 => flow.miss(requests),
            1 if open => {
                flow.seal();
                flow = flow.of(records);
                open = false;
            }
            _ if open => {
                let sealed = bytes.len() as u32 + 22;
                if act & 0x80 == 0 {
                    flow.pass(requests, *place, sealed);
                }
                *place = place.wrapping_add(sealed);
                flow.chunk(requests, *place, bytes);
            }
            _ => {
                flow.feed(requests, *place, bytes);
                *place = place.wrapping_add(bytes.len() as u32);
            }
        }
        sound(&flow);
        let told = flow.slot.protocol;
        let inner = inside.shape.protocol;
        assert!(told == inner || told == PROTOCOL_TLS || told == PROTOCOL_ZOOKEEPER);
    }
}

/// The streams of a subject as scripts: cut, torn, and inside TLS behind a record of each direction, revealed.
pub fn seeds(subject: &Subject) -> impl Iterator<Item = Vec<u8>> + use<> {
    let (to, from) = (&subject.requests, &subject.replies);
    let mut seeds = vec![
        cut_script(to, from, &[]),
        cut_script(to, from, &[3, 11, 40, 77]),
    ];
    for how in 0..3 {
        seeds.push(torn_script(how, to, from, 255));
        seeds.push(torn_script(how, to, from, 7));
        let mut sealed = vec![how];
        for direction in [5, 4] {
            sealed.extend([direction, 45, 23, 3, 3, 0, 40]);
            sealed.resize(sealed.len() + 40, 0xa5);
        }
        sealed.extend([0, 0]);
        // Acts that are neither a beginning nor an end: what they carry is given by calls.
        let acts = torn_script(how, to, from, 60);
        let mut script = Script(&acts[1..]);
        while let (Some(act), Some(length)) = (script.byte(), script.byte()) {
            sealed.extend([act | 4, length]);
            sealed.extend(script.take(usize::from(length)));
        }
        seeds.push(sealed);
    }
    seeds.into_iter()
}
