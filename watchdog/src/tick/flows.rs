//! From a flow's slot in the kernel's memory to an observation.
//!
//! In: slots. Out: [`FlowObservation`]s, only of those that changed since the last look. What is
//! compared are version words and a few counters, so an idle flow costs five cache lines a tick, asked
//! for some slots ahead.

#[cfg(target_arch = "x86_64")]
use std::mem::offset_of;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use watchdog_common::layout::{
    self, BY_CALLS, CLOSE_EXIT, CLOSE_OWN, CLOSE_PEER_FIN, CLOSE_PEER_RESET, CLOSE_TIMEOUT,
    Direction, EDGE_KNOWN, FOREIGN, FlowSlot, KEPT, Kept, MARKS, ORIGIN_START, PROTOCOL_CONSUL,
    PROTOCOL_ETCD, PROTOCOL_KAFKA, PROTOCOL_TLS, ROLE_HOLDER, Reads, SERVERS, SYNCED, Writes,
};
use watchdog_model::{
    Mono,
    leases::{
        book::Book,
        observation::{
            CloseHow, Closed, Endpoints, FlowKey, FlowObservation, Hello, Owner, Role, Sight,
            Welcome,
        },
        threads::flow_stall,
    },
    time::ms,
};

use super::{Gauges, threads::ThreadTable};
use crate::kernel::state;

/// Versions and counters that tell whether a slot has changed.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Stamp {
    generation: u32,
    state: u32,
    requests: u32,
    replies: u32,
    reads: u32,
    writes: u32,
    retransmits: u32,
    acked_seq: u32,
    how: u32,
    owner: u32,
}

/// The threads that served a flow's last renewals, readers and writers; 0: none.
pub type Servers = [u32; 2 * SERVERS];

/// One flow as last seen.
#[derive(Clone, Copy)]
pub struct Flow {
    /// What the model is told.
    pub observation: FlowObservation,
    /// Socket cookie.
    pub cookie: u64,
    /// Whether the model and the memory of an earlier run have met it.
    pub met: bool,
    /// Whether its entry watches the process that it belongs to; None: not known yet.
    pub watched: Option<bool>,
    /// Whether it is inside TLS.
    pub is_sealed: bool,
    /// Whether it does not speak the entry's protocol.
    pub foreign: bool,
    /// Whether it may carry several leases.
    pub is_shared: bool,
    /// How many renewals found no place among those.
    pub left_out: u32,
    /// When the stream was last read, and since when something in it is not, whichever lease it is of.
    stream_read: (Option<Mono>, Option<Mono>),
    generation: u32,
    /// The threads that serve it.
    pub servers: Servers,
    answers_shown: u64,
    reads_shown: u64,
    renewal_shown: Option<Mono>,
}

impl Flow {
    /// The names of the flows that it is to the model.
    pub fn keys(&self) -> impl Iterator<Item = FlowKey> + use<> {
        let first = self.observation.key;
        let places = if self.is_shared { KEPT } else { 1 };
        (0..places).map(move |place| shared_key(first, place))
    }

    /// Shows what is new in it as figures.
    pub fn figures(&mut self, gauges: &mut impl Gauges, book: &Book) {
        let seen = self.observation;
        if seen.answers != self.answers_shown {
            self.answers_shown = seen.answers;
            gauges.renewal_rtt(self, seen.rtt_ns);
        }
        if seen.reads != self.reads_shown {
            self.reads_shown = seen.reads;
            gauges.renewal_unread(self, seen.unread_ns);
        }
        let renewal = match seen.role {
            Role::Holder => seen.answered_at,
            Role::Grantor => seen.read_at,
        };
        if renewal != self.renewal_shown {
            if let (Some(before), Some(newest)) = (self.renewal_shown, renewal)
                && let Some(lease) = book.carried(seen.key)
                && let Some(timeout_ns) = lease.timeout_ns
            {
                gauges.renewal_gap(self, newest.since(before), timeout_ns);
            }
            self.renewal_shown = renewal;
        }
    }
}

/// All flows, by slot index.
pub struct FlowTable {
    flows: Vec<Option<Flow>>,
    /// Each slot as it was when it was last read. Apart from the flows: a look at a slot in which
    /// nothing has changed goes no further than this.
    stamps: Vec<Stamp>,
    turn: usize,
    /// Slots that are to be looked at whoever's turn it is.
    wished: Vec<bool>,
    /// How many flows it is not known of whether they are watched.
    undecided: usize,
    reads_known: bool,
    left_out: u64,
}

impl FlowTable {
    /// Room for as many flows as there are slots.
    #[must_use]
    pub fn new(capacity: usize, reads_known: bool) -> Self {
        Self {
            // Filled as slots come into use: memory that is never touched costs nothing.
            flows: Vec::with_capacity(capacity),
            stamps: Vec::with_capacity(capacity),
            turn: 0,
            wished: Vec::with_capacity(capacity),
            undecided: 0,
            reads_known,
            left_out: 0,
        }
    }

    /// Looks at a slot that is in use; true if anything in it has changed.
    ///
    /// # Safety
    /// `slot` is that slot, in the mapping.
    pub unsafe fn look(&mut self, index: usize, slot: *const FlowSlot) -> bool {
        // SAFETY: by contract.
        let stamp = unsafe { stamp(slot) };
        if self.stamps.get(index) == Some(&stamp) {
            return false;
        }
        if index >= self.flows.capacity() {
            return false;
        }
        while self.flows.len() <= index {
            self.flows.push(None);
            self.stamps.push(Stamp::default());
            self.wished.push(false);
        }
        let place = &mut self.flows[index];
        // SAFETY: by contract.
        let Some(fresh) = (unsafe { read(index, slot, stamp, self.reads_known) }) else {
            // A writer was at it; the stamp stays old, so the next tick looks again.
            return false;
        };
        let left_out = match place {
            Some(flow) if flow.generation == stamp.generation => flow.left_out,
            _ => 0,
        };
        self.left_out += u64::from(fresh.left_out.wrapping_sub(left_out));
        match place {
            Some(flow) if flow.generation == stamp.generation => {
                let (stall, remembered) = (flow.observation.stall, flow.observation.remembered);
                flow.observation = fresh.observation;
                flow.observation.stall = stall;
                flow.observation.remembered = remembered;
                flow.foreign = fresh.foreign;
                flow.is_shared = fresh.is_shared;
                flow.left_out = fresh.left_out;
                flow.stream_read = fresh.stream_read;
                flow.servers = fresh.servers;
            }
            _ => {
                let is_open = |flow: &Flow| usize::from(flow.watched.is_none());
                self.undecided -= place.as_ref().map_or(0, is_open);
                self.undecided += is_open(&fresh);
                *place = Some(fresh);
            }
        }
        self.stamps[index] = stamp;
        true
    }

    /// Whose turn the next look is, where slots take turns: those with an even or those with an odd index.
    pub fn next_turn(&mut self) -> usize {
        self.turn ^= 1;
        self.turn
    }

    /// Has the slot of this flow looked at in this tick.
    pub fn wish(&mut self, key: FlowKey) {
        let index = usize::try_from(key.0 & u64::from(u32::MAX) & !PLACE_BITS).ok();
        if let Some(wished) = index.and_then(|index| self.wished.get_mut(index)) {
            *wished = true;
        }
    }

    /// Whether it is to be, and not again.
    pub fn take_wish(&mut self, index: usize) -> bool {
        self.wished.get_mut(index).is_some_and(std::mem::take)
    }

    /// How many renewals were of leases that found no place in their flow's slot.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The flow in a slot.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut Flow> {
        self.flows.get_mut(index)?.as_mut()
    }

    /// The flow in a slot, if it is watched.
    pub fn watched_mut(&mut self, index: usize) -> Option<&mut Flow> {
        self.get_mut(index)
            .filter(|flow| flow.watched == Some(true))
    }

    /// A flow by its name, if its slot still has it.
    #[must_use]
    pub fn named(&self, key: FlowKey) -> Option<&Flow> {
        let first = FlowKey(key.0 & !PLACE_BITS);
        let index = usize::try_from(first.0 & u64::from(u32::MAX)).ok()?;
        let flow = self.flows.get(index)?.as_ref()?;
        (flow.observation.key == first).then_some(flow)
    }

    /// Whether it is still open whether the flow in a slot is watched.
    #[must_use]
    pub fn undecided(&self, index: usize) -> bool {
        // Mostly it is known of all.
        self.undecided > 0
            && self
                .flows
                .get(index)
                .and_then(Option::as_ref)
                .is_some_and(|flow| flow.watched.is_none())
    }

    /// What has been found out of whether the flow in a slot is watched; None: still nothing.
    pub fn decide(&mut self, index: usize, watched: Option<bool>) {
        if let (Some(watched), true) = (watched, self.undecided(index))
            && let Some(flow) = self.get_mut(index)
        {
            flow.watched = Some(watched);
            self.undecided -= 1;
        }
    }

    /// The threads that serve the flow in a slot; none of one that is closed: whoever comes for a moment is gone
    /// before it could be watched, and would never be seen to go.
    #[must_use]
    pub fn servers(&self, index: usize) -> Servers {
        self.flows
            .get(index)
            .and_then(Option::as_ref)
            .filter(|flow| flow.watched != Some(false) && flow.observation.closed.is_none())
            .map_or([0; 2 * SERVERS], |flow| flow.servers)
    }

    /// Sets the flow's stall from its threads'; true if that changed it.
    pub fn set_stall(&mut self, index: usize, threads: &ThreadTable) -> bool {
        let Some(flow) = self.get_mut(index) else {
            return false;
        };
        let serving = flow.servers.iter().filter(|tid| **tid != 0);
        let stall = flow_stall(serving.map(|tid| threads.stall_of(*tid)));
        let changed = flow.observation.stall != stall;
        flow.observation.stall = stall;
        changed
    }

    /// Forgets the flow in a slot.
    pub fn forget(&mut self, index: usize) {
        self.decide(index, Some(false));
        if let Some(place) = self.flows.get_mut(index) {
            *place = None;
            self.stamps[index] = Stamp::default();
        }
    }

    /// Every flow in a slot, and whether it is watched, as far as that is known.
    pub fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.flows.iter().flatten()
    }
}

/// How many slots ahead memory is asked for: a look at one takes a few nanoseconds, memory a hundred.
pub const AHEAD: usize = 8;

/// Has the CPU fetch what a look at this slot will read. A hint, which no address can make fail.
pub fn fetch(slot: *const FlowSlot) {
    #[cfg(target_arch = "x86_64")]
    for offset in [
        offset_of!(FlowSlot, state),
        offset_of!(FlowSlot, requests.version),
        offset_of!(FlowSlot, replies.version),
        offset_of!(FlowSlot, reads.version),
        offset_of!(FlowSlot, writes.version),
        offset_of!(FlowSlot, life.how),
    ] {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program could see, and no address makes it fail.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(slot.cast::<i8>().wrapping_add(offset)) };
    }
    // Elsewhere the compiler has no stable name for it.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = slot;
}

/// # Safety
/// `slot` is a slot in the mapping.
unsafe fn stamp(slot: *const FlowSlot) -> Stamp {
    // SAFETY: by contract; each is one word.
    unsafe {
        Stamp {
            generation: (&raw const (*slot).generation).read_volatile(),
            state: (&raw const (*slot).state).read_volatile(),
            requests: (&raw const (*slot).requests.version).read_volatile(),
            replies: (&raw const (*slot).replies.version).read_volatile(),
            reads: (&raw const (*slot).reads.version).read_volatile(),
            writes: (&raw const (*slot).writes.version).read_volatile(),
            retransmits: (&raw const (*slot).life.retransmits).read_volatile(),
            acked_seq: (&raw const (*slot).life.acked_seq).read_volatile(),
            how: (&raw const (*slot).life.how).read_volatile(),
            owner: (&raw const (*slot).owner).read_volatile(),
        }
    }
}

/// # Safety
/// `slot` is a slot in the mapping, in use.
unsafe fn read(
    index: usize,
    slot: *const FlowSlot,
    stamp: Stamp,
    reads_known: bool,
) -> Option<Flow> {
    // Before the directions: what a flow's records told is forgotten before it says to be of another protocol.
    // SAFETY: by contract; a single byte.
    let protocol = unsafe { (&raw const (*slot).protocol).read_volatile() };
    std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
    // SAFETY: by contract. Identity is written before the slot is LIVE; `life` is single words.
    let (requests, replies, reads, writes, life, unanswered) = unsafe {
        (
            state::copy(&raw const (*slot).requests)?,
            state::copy(&raw const (*slot).replies)?,
            state::copy(&raw const (*slot).reads)?,
            state::copy(&raw const (*slot).writes)?,
            (&raw const (*slot).life).read_volatile(),
            (&raw const (*slot).unanswered).read_volatile(),
        )
    };
    // SAFETY: as above.
    let (role, entry, origin, cookie, endpoints, comm) = unsafe {
        (
            (*slot).role,
            (*slot).entry,
            (*slot).origin,
            (*slot).cookie,
            Endpoints {
                local: address((*slot).local_addr, (*slot).local_port),
                peer: address((*slot).peer_addr, (*slot).peer_port),
            },
            (&raw const (*slot).owner_comm).read_volatile(),
        )
    };
    let role = if role == ROLE_HOLDER {
        Role::Holder
    } else {
        Role::Grantor
    };
    let key = FlowKey(u64::from(stamp.generation) << 32 | index as u64);
    let mut seen =
        FlowObservation::opened(key, entry.into(), role, endpoints, Mono(life.opened_ns));
    let by_calls = requests.flags & BY_CALLS != 0;
    seen.sight = if protocol == PROTOCOL_TLS {
        Sight::ByTiming
    } else if origin == ORIGIN_START && !(by_calls && requests.handshake.at_ns == 0) {
        Sight::FromStart
    } else {
        Sight::MidStream
    };
    seen.owner = (stamp.owner != 0).then_some(Owner {
        pid: stamp.owner,
        comm,
        executable: 0,
    });
    directions(&mut seen, protocol, &requests, &replies);
    seen.srtt_ns = u64::from(reads.srtt_us) * 1_000;
    seen.pending_since = pending(&requests, &replies, &unanswered);
    let (sending, arriving) = match role {
        Role::Holder => (&requests, &replies),
        Role::Grantor => (&replies, &requests),
    };
    if reads_known {
        read_side(&mut seen, arriving, &reads);
    } else {
        // Without the read hook, what has arrived counts as read.
        seen.read_at = at(arriving.newest_ns);
    }
    write_side(&mut seen, sending, &writes, &life);
    seen.closed = closed(&life);
    let is_shared = protocol == PROTOCOL_ETCD;
    let stream_read = (seen.read_at, seen.unread_since);
    if is_shared {
        // SAFETY: as above; single words, of which each direction has its own.
        let kept = unsafe { (&raw const (*slot).kept[0]).read_volatile() };
        let marks = (requests.marks, replies.marks);
        share(&mut seen, &kept, 0, marks, &unanswered);
    }
    Some(Flow {
        observation: seen,
        cookie,
        met: false,
        watched: None,
        is_sealed: protocol == PROTOCOL_TLS || by_calls,
        foreign: (requests.flags | replies.flags) & FOREIGN != 0,
        is_shared,
        left_out: requests.left_out,
        stream_read,
        generation: stamp.generation,
        servers: servers(&reads, &writes),
        answers_shown: 0,
        reads_shown: 0,
        renewal_shown: None,
    })
}

fn directions(seen: &mut FlowObservation, protocol: u8, requests: &Direction, replies: &Direction) {
    seen.synchronised = requests.flags & replies.flags & SYNCED != 0;
    seen.unsynchronised_at = at(requests.lost_sync_ns.max(replies.lost_sync_ns));
    if protocol == PROTOCOL_KAFKA {
        let (join, joined) = (&requests.handshake, &replies.handshake);
        seen.told_timeout_ns = u64::try_from(join.timeout_ms)
            .ok()
            .filter(|millis| *millis > 0)
            .map(ms);
        // While a rebalance goes on nobody counts, and a heartbeat is not expected.
        if join.at_ns > joined.at_ns.max(replies.answered_ns) {
            seen.synchronised = false;
            seen.unsynchronised_at = seen.unsynchronised_at.max(at(join.at_ns));
        }
    } else if protocol == PROTOCOL_CONSUL {
        let id = requests.handshake.session;
        seen.lease_id = (id != 0).then_some(id);
        seen.told_timeout_ns = u64::try_from(replies.handshake.timeout_ms)
            .ok()
            .filter(|millis| *millis > 0)
            .map(ms);
    } else {
        seen.hello = (requests.handshake.at_ns != 0).then_some(Hello {
            at: Mono(requests.handshake.at_ns),
            asked_timeout_ms: requests.handshake.timeout_ms,
            session: requests.handshake.session,
        });
        seen.welcome = (replies.handshake.at_ns != 0).then_some(Welcome {
            at: Mono(replies.handshake.at_ns),
            timeout_ms: replies.handshake.timeout_ms,
            session: replies.handshake.session,
        });
    }
    seen.request_at = at(requests.newest_ns);
    seen.requests = requests.messages;
    seen.answered_at = at(replies.answered_ns);
    seen.answers = replies.answers;
    seen.answer_at = at(replies.answer_ns);
    seen.rtt_ns = replies.rtt_ns;
    seen.keepalives = requests.keepalives.into();
    seen.keepalive_gap_ns = requests.keepalive_gap_ns;
    seen.close_request_at = at(requests.ending_ns);
    seen.reply_at = at(replies.newest_ns);
    seen.expired_reply_at = at(replies.ending_ns);
}

/// Where a flow's name says which of its leases is meant.
const PLACE_SHIFT: u32 = 29;
/// These bits of it: there are never so many slots.
const PLACE_BITS: u64 = (KEPT as u64 - 1) << PLACE_SHIFT;

/// The name of a flow as it carries the lease at `place`.
#[must_use]
pub const fn shared_key(first: FlowKey, place: usize) -> FlowKey {
    FlowKey(first.0 | (place as u64) << PLACE_SHIFT)
}

/// The other leases of a flow that carries several, as flows of their own.
///
/// # Safety
/// `slot` is the flow's slot, in the mapping.
pub unsafe fn others(
    flow: &Flow,
    slot: *const FlowSlot,
) -> impl Iterator<Item = FlowObservation> + use<> {
    let mut first = flow.observation;
    (first.read_at, first.unread_since) = flow.stream_read;
    first.remembered = None;
    let places = if flow.is_shared { 1..KEPT } else { 0..0 };
    places.filter_map(move |place| {
        // SAFETY: by contract; racy, as in `read`.
        let (kept, unanswered, requests, replies) = unsafe {
            (
                (&raw const (*slot).kept[place]).read_volatile(),
                (&raw const (*slot).unanswered).read_volatile(),
                (&raw const (*slot).requests.marks).read_volatile(),
                (&raw const (*slot).replies.marks).read_volatile(),
            )
        };
        if kept.id == 0 {
            return None;
        }
        let mut seen = first;
        seen.key = shared_key(first.key, place);
        share(&mut seen, &kept, place, (requests, replies), &unanswered);
        Some(seen)
    })
}

/// Makes of what a flow shows what it shows of one of its leases.
///
/// What is read and what is not is known of the stream alone. A renewal of this lease counts as read when it
/// arrived, if all that had arrived by then is read: that is early, and never late.
fn share(
    seen: &mut FlowObservation,
    kept: &Kept,
    place: usize,
    marks: (u32, u32),
    unanswered: &[layout::Mark; MARKS],
) {
    seen.lease_id = (kept.id != 0).then_some(kept.id);
    seen.told_timeout_ns = u64::try_from(kept.timeout_ms)
        .ok()
        .filter(|millis| *millis > 0)
        .map(ms);
    seen.request_at = at(kept.request_ns);
    seen.requests = kept.requests;
    seen.keepalives = kept.requests;
    seen.keepalive_gap_ns = kept.gap_ns;
    seen.answered_at = at(kept.answered_ns);
    seen.answer_at = at(kept.answer_ns);
    seen.answers = kept.answers;
    seen.rtt_ns = kept.answer_ns.saturating_sub(kept.answered_ns);
    seen.reply_at = at(kept.answer_ns);
    seen.close_request_at = at(kept.ending_ns);
    seen.expired_reply_at = at(kept.expired_ns);
    let waiting = marks.0.wrapping_sub(marks.1);
    let waiting = if waiting > MARKS as u32 { 0 } else { waiting };
    seen.pending_since = (0..waiting)
        .map(|n| &unanswered[marks.1.wrapping_add(n) as usize & (MARKS - 1)])
        .find(|mark| mark.note as usize == place)
        .and_then(|mark| at(mark.at_ns));
    let newest = match seen.role {
        Role::Holder => seen.answer_at,
        Role::Grantor => seen.request_at,
    };
    match seen.unread_since {
        Some(since) if newest >= Some(since) => {
            let own = seen.pending_since.filter(|_| seen.role == Role::Grantor);
            seen.unread_since = own.max(Some(since));
            // What was read last may be another lease's.
            seen.read_at = None;
        }
        _ => {
            seen.unread_since = None;
            seen.read_at = seen.read_at.min(newest);
        }
    }
}

/// The oldest request that is not answered.
fn pending(
    requests: &Direction,
    replies: &Direction,
    unanswered: &[layout::Mark; MARKS],
) -> Option<Mono> {
    let waiting = requests.marks.wrapping_sub(replies.marks);
    // The two directions were copied one after the other: a reply in between makes the tail pass
    // the head by a little.
    if waiting == 0 || waiting > MARKS as u32 {
        return None;
    }
    at(unanswered[replies.marks as usize & (MARKS - 1)].at_ns)
}

fn read_side(seen: &mut FlowObservation, arriving: &Direction, reads: &Reads) {
    seen.read_at = at(reads.read_ns);
    seen.unread_ns = reads.wait_ns;
    seen.reads = reads.reads;
    let ahead = |seq: u32| seq.wrapping_sub(reads.read_seq) as i32 > 0;
    if arriving.messages == 0 || !ahead(arriving.newest_end_seq) {
        return;
    }
    seen.unread_since = if ahead(arriving.unread_end_seq) {
        at(arriving.unread_at_ns)
    } else {
        // Messages lie behind the last read that are not the oldest one noted: they had arrived
        // by then.
        at(reads.read_ns)
    };
}

fn write_side(
    seen: &mut FlowObservation,
    sending: &Direction,
    writes: &Writes,
    life: &layout::Lifecycle,
) {
    seen.retransmits = life.retransmits.wrapping_sub(life.retransmits_at_ack);
    if sending.flags & EDGE_KNOWN == 0 {
        return;
    }
    let sent = sending.edge_seq;
    if writes.writes > 0 && writes.write_seq.wrapping_sub(sent) as i32 > 0 {
        seen.unsent_since = at(writes.unsent_at_ns);
    }
    if life.acked_known != 0 && sent.wrapping_sub(life.acked_seq) as i32 > 0 {
        seen.unacknowledged_since = at(sending.unacked_at_ns);
    }
}

fn closed(life: &layout::Lifecycle) -> Option<Closed> {
    let how = match life.how {
        CLOSE_PEER_FIN => CloseHow::PeerFin,
        CLOSE_PEER_RESET => CloseHow::PeerReset,
        CLOSE_OWN => CloseHow::OwnClose,
        CLOSE_EXIT => CloseHow::OwnExit,
        CLOSE_TIMEOUT => CloseHow::TimedOut,
        _ => return None,
    };
    Some(Closed {
        at: Mono(life.closed_ns),
        how,
    })
}

fn servers(reads: &Reads, writes: &Writes) -> Servers {
    let mut all = [0; 2 * SERVERS];
    all[..SERVERS].copy_from_slice(&reads.threads);
    all[SERVERS..].copy_from_slice(&writes.threads);
    for later in 1..all.len() {
        if all[..later].contains(&all[later]) {
            all[later] = 0;
        }
    }
    all
}

fn at(ns: u64) -> Option<Mono> {
    (ns != 0).then_some(Mono(ns))
}

/// An address as kept in the slot; IPv4 in its own form.
#[must_use]
pub fn address(bytes: [u8; 16], port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_on_an_ipv6_socket_is_an_ipv4_address() {
        let mut bytes = [0; 16];
        bytes[10..].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
        assert_eq!(address(bytes, 2181).to_string(), "127.0.0.1:2181");
        bytes = [0; 16];
        bytes[15] = 1;
        assert_eq!(address(bytes, 2181).to_string(), "[::1]:2181");
    }
}
