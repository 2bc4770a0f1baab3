//! Which leases need facts that only a look into procfs and the like can give, and what was found.
//!
//! In: leases that are late or will be in a moment, and ends that these wait for. Out: questions, a
//! bounded number at a time, each lease again and again while it stays late; and for the rules what
//! was found last. Never: an allocation, a question about a lease that is well.

use std::net::SocketAddr;

use super::Book;
use super::lease::Lease;
use crate::causes::collected::Collected;
use crate::leases::note::{Condition, LeaseHandle, Note, Stage};
use crate::leases::observation::{FlowKey, Role};
use crate::time::{MS, Mono};

/// How many ends are asked about at once; what is late beyond waits until others are well.
const ROOM: usize = 1024;
/// How often each is asked about.
const AGAIN_NS: u64 = 500 * MS;
/// How long before a lease becomes late it is asked about, so that its first warning can say why.
/// What must be seen twice takes 110 ms and two ticks; and it is shorter than the shortest margin
/// (250 ms), so that who renews when it always does is not asked about.
pub(super) const AHEAD_NS: u64 = 200 * MS;
/// For so long after that moment it counts as about to be late.
const SOON_LASTS_NS: u64 = 100 * MS;
/// Threads remembered of a flow.
pub const TIDS: usize = 8;

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The lease.
    pub handle: LeaseHandle,
    /// Which end.
    pub role: Role,
    /// Process that owns this end.
    pub pid: u32,
    /// The flow that carries it now.
    pub flow: Option<FlowKey>,
    /// Whether the flow's TCP may tell something.
    pub path: bool,
    /// The grantor's address.
    pub grantor: SocketAddr,
    /// A grantor that has not answered what it may have read.
    pub owes_answer: bool,
}

#[derive(Clone, Debug)]
struct Entry {
    slot: u32,
    asked_at: Option<Mono>,
    /// Until when it is asked about though nothing is late.
    soon_until: Mono,
    /// Threads that served it when last asked about: a lost flow has none any more.
    tids: [u32; TIDS],
    collected: Option<Collected>,
}

/// All ends that are asked about.
#[derive(Debug)]
pub(super) struct Wants {
    entries: Vec<Entry>,
    /// Where each slot's entry is, plus one; 0: it has none.
    places: Vec<u16>,
    room: usize,
    cursor: usize,
}

impl Wants {
    pub fn new(capacity: usize) -> Self {
        let room = ROOM.min(capacity);
        Self {
            entries: Vec::with_capacity(room),
            places: vec![0; capacity],
            room,
            cursor: 0,
        }
    }

    fn place(&self, slot: u32) -> Option<usize> {
        usize::from(*self.places.get(slot as usize)?).checked_sub(1)
    }

    fn set_place(&mut self, slot: u32, place: Option<usize>) {
        if let Some(known) = self.places.get_mut(slot as usize) {
            *known = place.map_or(0, |place| u16::try_from(place + 1).unwrap_or(0));
        }
    }

    pub fn add(&mut self, slot: u32, soon_until: Mono) {
        if let Some(place) = self.place(slot) {
            let until = &mut self.entries[place].soon_until;
            *until = soon_until.max(*until);
            return;
        }
        if self.entries.len() >= self.room {
            return;
        }
        self.set_place(slot, Some(self.entries.len()));
        self.entries.push(Entry {
            slot,
            asked_at: None,
            soon_until,
            tids: [0; TIDS],
            collected: None,
        });
    }

    pub fn forget(&mut self, slot: u32) {
        let Some(place) = self.place(slot) else {
            return;
        };
        self.entries.swap_remove(place);
        self.set_place(slot, None);
        if let Some(moved) = self.entries.get(place) {
            let moved = moved.slot;
            self.set_place(moved, Some(place));
        }
    }

    pub fn collected(&self, slot: u32) -> Option<&Collected> {
        self.entries[self.place(slot)?].collected.as_ref()
    }
}

impl Book {
    /// Remembers to ask about a lease that is late since `due` or will be then, and about its other
    /// end if that may be why.
    pub(super) fn want(&mut self, slot: u32, condition: Condition, due: Mono) {
        let soon_until = due.plus(SOON_LASTS_NS);
        self.wants.add(slot, soon_until);
        let other_may_be_why = matches!(
            condition,
            Condition::RenewalUnanswered | Condition::HolderSilent | Condition::ConnectionLost
        );
        if other_may_be_why && let Some(other) = self.other_end(slot) {
            self.wants.add(other, soon_until);
        }
    }

    fn is_late(&self, slot: u32) -> bool {
        let late = |lease: &Lease| lease.stage != Stage::Healthy;
        self.slots[slot as usize].as_ref().is_some_and(late)
    }

    /// Asks about at most `limit` ends, those that were not asked about for half a second. `ask`
    /// gets the threads remembered of the flow and may put others there; it says whether the
    /// question was taken.
    pub fn wanted(
        &mut self,
        now: Mono,
        limit: usize,
        ask: &mut dyn FnMut(Want, &mut [u32; TIDS]) -> bool,
    ) {
        let mut asked = 0;
        for _ in 0..self.wants.entries.len() {
            if asked >= limit {
                return;
            }
            if self.wants.cursor >= self.wants.entries.len() {
                self.wants.cursor = 0;
                if self.wants.entries.is_empty() {
                    return;
                }
            }
            let place = self.wants.cursor;
            let slot = self.wants.entries[place].slot;
            let needed = now < self.wants.entries[place].soon_until
                || self.is_late(slot)
                || self
                    .other_end(slot)
                    .is_some_and(|other| self.is_late(other));
            if !needed {
                self.wants.forget(slot);
                continue;
            }
            self.wants.cursor += 1;
            let recent = self.wants.entries[place]
                .asked_at
                .is_some_and(|at| now.since(at) < AGAIN_NS);
            let Some(lease) = self.slots[slot as usize].as_ref().filter(|_| !recent) else {
                continue;
            };
            let Some(owner) = lease.owner else {
                continue;
            };
            let want = Want {
                handle: lease.handle,
                role: lease.role,
                pid: owner.pid,
                flow: lease.flow,
                path: lease.facts.unsent_since.is_some()
                    || lease.facts.unacknowledged_since.is_some(),
                grantor: match lease.role {
                    Role::Holder => lease.endpoints.peer,
                    Role::Grantor => lease.endpoints.local,
                },
                owes_answer: lease.role == Role::Grantor && lease.facts.pending_since.is_some(),
            };
            let entry = &mut self.wants.entries[place];
            if !ask(want, &mut entry.tids) {
                return;
            }
            entry.asked_at = Some(now);
            asked += 1;
        }
    }

    /// What was found about a lease. It is judged at once, and its other end with the next
    /// [`Book::advance`].
    pub fn evidence(
        &mut self,
        handle: LeaseHandle,
        collected: &Collected,
        now: Mono,
        say: &mut dyn FnMut(Note),
    ) {
        let found = self.wants.entries.iter_mut().find(|entry| {
            self.slots[entry.slot as usize]
                .as_ref()
                .is_some_and(|lease| lease.handle == handle)
        });
        let Some(entry) = found else {
            return;
        };
        entry.collected = Some(*collected);
        let slot = entry.slot;
        if self.is_late(slot) {
            self.judge(slot, now, say);
        }
        self.remind_other_end(slot, now);
    }
}
