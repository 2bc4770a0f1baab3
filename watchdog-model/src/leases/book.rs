//! All leases, across flows.
//!
//! In: [`Book::observe`] for a flow about which something changed, [`Book::flow_gone`] when its slot
//! is used for another, [`Book::daemon_gap`] when nobody looked for a while, and [`Book::advance`]
//! as time passes. Out: notes, handed to `say` as they arise, and [`Book::leases`] for whoever wants
//! to see all. Never: a clock, an allocation after [`Book::new`] while the capacity holds, a scan of
//! all leases where only some are due.
//!
//! The order within one tick is: `daemon_gap` if the tick was late, `observe` for what changed,
//! `flow_gone`, then `advance`. A note is said at the first call at which it is true; a lease makes at
//! most one transition per call, to the worst stage that is reached.
//!
//! A lease's key is (entry, id, role); one `Seen` is said of it in its life. Which proof wins when
//! several hold: an expiry before a close before a stage. A stage falls only by a renewal newer than
//! the one that was the newest when it rose; that is said as `Renewed`, and if something else is late
//! even then, the next call says so.

mod deadlines;
mod identity;
mod index;
mod judge;
mod lease;
mod verdicts;
mod wants;

use std::collections::HashMap;

use self::deadlines::Deadlines;
use self::index::SlotIndex;
use self::lease::Lease;
use self::verdicts::Verdicts;
use self::wants::Wants;
pub use self::wants::{TIDS, Want};
use super::cadence::SharedCadences;
use super::facts::Gap;
use super::note::{Condition, GoneReason, LeaseHandle, LeaseId, Note, Stage, Subject};
use super::observation::{Endpoints, FlowKey, FlowObservation, Role, Sight, TimeoutSource};
use super::settings::EntrySettings;
use crate::causes::Cause;
use crate::time::Mono;

type LeaseKey = (u16, LeaseId, Role);

/// What is known of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FlowUse {
    /// It carries the lease in this slot.
    Carries(u32),
    /// The lease that it carried has ended or moved on; whatever it still shows is of no account.
    Done,
}

/// All leases.
#[derive(Debug)]
pub struct Book {
    entries: Vec<EntrySettings>,
    slots: Vec<Option<Lease>>,
    free: Vec<u32>,
    capacity: usize,
    deadlines: Deadlines,
    by_key: SlotIndex<LeaseKey>,
    by_flow: HashMap<FlowKey, FlowUse>,
    by_ends: SlotIndex<(Role, Endpoints)>,
    verdicts: Verdicts,
    shared: SharedCadences,
    gap: Option<Gap>,
    next_handle: u64,
    /// Leases without a flow: the ones that a new flow may go on with.
    adrift: Vec<u32>,
    /// Leases about which more is to be found out.
    wants: Wants,
    refused: u64,
    /// A bit an entry: its leases look like long polls, and whether that has been asked for.
    long_polls: u64,
    long_polls_told: u64,
}

/// One lease as it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeaseView {
    /// The lease.
    pub subject: Subject,
    /// How far it is from lapsing, as last said.
    pub stage: Stage,
    /// Where the renewal stands, as last said.
    pub condition: Condition,
    /// Since when.
    pub since: Mono,
    /// The cause, as last said; unknown while healthy.
    pub cause: Cause,
    /// The earliest moment at which the grantor may expire it, if known.
    pub floor: Option<Mono>,
    /// floor − now, ns.
    pub remaining_ns: Option<i64>,
    /// `a` (holder) or `p` (grantor): the newest renewal that the grantor has surely seen.
    pub answered_at: Option<Mono>,
    /// now − `answered_at`, ns.
    pub silent_ns: Option<u64>,
    /// The cadence in use, ns; None while no timeout is known either.
    pub cadence_ns: Option<u64>,
    /// The cadence that this lease's own keepalives taught, if it is known.
    pub learned_cadence_ns: Option<u64>,
    /// The flow that carries it.
    pub flow: Option<FlowKey>,
    /// Whether its frames are being followed.
    pub synchronised: bool,
}

/// What the figures need of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseBrief {
    /// Config entry.
    pub entry: u16,
    /// Which end this node is.
    pub role: Role,
    /// How far it is from lapsing, as last said.
    pub stage: Stage,
    /// Timeout in ns; None: not known.
    pub timeout_ns: Option<u64>,
    /// Where the timeout is known from.
    pub timeout_source: TimeoutSource,
    /// floor − now, ns; None: not known.
    pub remaining_ns: Option<i64>,
}

/// What is known of the lease that a flow carries, whatever the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Its name.
    pub id: LeaseId,
    /// Timeout in ns; None: not known.
    pub timeout_ns: Option<u64>,
    /// Where the timeout is known from.
    pub timeout_source: TimeoutSource,
    /// The cadence that its own keepalives taught, ns; None: not known.
    pub learned_cadence_ns: Option<u64>,
}

impl Book {
    /// An empty book with all its room for `capacity` leases.
    #[must_use]
    pub fn new(entries: Vec<EntrySettings>, capacity: usize) -> Self {
        let slots = u32::try_from(capacity).unwrap_or(u32::MAX - 1);
        let capacity = slots as usize;
        // Twice the room: a map that stays under half of its room tidies up in place after removals.
        let map_room = 2 * capacity + 1;
        Self {
            entries,
            // Filled as leases come: memory that is never touched costs nothing.
            slots: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            capacity,
            deadlines: Deadlines::new(capacity),
            by_key: SlotIndex::new(map_room, Lease::key),
            // A flow stays in the map until its slot is used again, so there may be more of them.
            by_flow: HashMap::with_capacity(2 * map_room),
            by_ends: SlotIndex::new(map_room, Lease::ends),
            verdicts: Verdicts::new(capacity),
            shared: SharedCadences::new(),
            gap: None,
            next_handle: 1,
            adrift: Vec::with_capacity(capacity),
            wants: Wants::new(capacity),
            refused: 0,
            long_polls: 0,
            long_polls_told: 0,
        }
    }

    /// Uses other settings from now on. Entries keep their index; a lease whose role is no longer
    /// followed is dropped without a note. All others are judged anew at the next [`Book::advance`].
    pub fn reconfigure(&mut self, entries: Vec<EntrySettings>) {
        self.entries = entries;
        for slot in 0..self.slots.len() {
            let Some(lease) = self.slots[slot].as_ref() else {
                continue;
            };
            let wanted = self.settings(lease.entry).roles.include(lease.role);
            #[expect(
                clippy::cast_possible_truncation,
                reason = "there are at most u32::MAX slots"
            )]
            let slot = slot as u32;
            if wanted {
                self.deadlines.set(slot, Some(Mono(0)));
            } else {
                self.drop_lease(slot);
            }
        }
    }

    /// Something about this flow has changed.
    pub fn observe(&mut self, flow: &FlowObservation, now: Mono, say: &mut dyn FnMut(Note)) {
        let settings = self.settings_for(flow);
        if !settings.roles.include(flow.role) {
            return;
        }
        let Some(slot) = self.carried_by(flow, now, say) else {
            self.refused_there(flow, now, say);
            return;
        };
        let gap = self.gap;
        let Some(lease) = self.slots[slot as usize].as_mut() else {
            return;
        };
        lease.facts.gap = gap;
        lease.take_in(flow, &settings, &mut self.shared, now);
        if lease.is_long_poll(&settings) {
            self.long_polls |= 1 << (flow.entry & 63);
        }
        if let Some(expiry) = lease.expiry(flow, &settings) {
            self.expire(slot, expiry, now, say);
            return;
        }
        if lease.is_closed(flow) {
            self.end(slot, GoneReason::Closed, say);
            return;
        }
        self.judge(slot, now, say);
        self.remind_other_end(slot, now);
    }

    /// The flow's slot is used for another flow; whatever was not seen of its end will not be.
    pub fn flow_gone(&mut self, key: FlowKey, now: Mono, say: &mut dyn FnMut(Note)) {
        let Some(FlowUse::Carries(slot)) = self.by_flow.remove(&key) else {
            return;
        };
        let Some(lease) = self.slots[slot as usize].as_mut() else {
            return;
        };
        lease.flow_gone(now);
        let closing = lease.closing;
        if closing {
            self.end(slot, GoneReason::Closed, say);
        } else {
            self.judge(slot, now, say);
        }
    }

    /// Time has passed. Looks at the leases that are due and at no others.
    pub fn advance(&mut self, now: Mono, say: &mut dyn FnMut(Note)) {
        while let Some(slot) = self.deadlines.take_due(now) {
            let settings = self.settings_of(slot);
            let Some(lease) = self.slots[slot as usize].as_ref() else {
                continue;
            };
            let given_up = lease
                .given_up_at(&settings)
                .filter(|(due, _)| *due <= now)
                .map(|(_, reason)| reason);
            let closing = lease.closing;
            self.judge(slot, now, say);
            match given_up {
                Some(_) if closing => self.end(slot, GoneReason::Closed, say),
                Some(reason) => self.end(slot, reason, say),
                None => {}
            }
        }
    }

    /// Names the flows that [`Book::advance`] will judge by: those of leases that are due, and of their
    /// other ends. What these show must be known by then; of all others it may be known a little later.
    pub fn due(&self, now: Mono, name: &mut dyn FnMut(FlowKey)) {
        self.deadlines.due(now, &mut |slot| {
            for slot in [Some(slot), self.other_end(slot)].into_iter().flatten() {
                let lease = self.slots[slot as usize].as_ref();
                if let Some(flow) = lease.and_then(|lease| lease.flow) {
                    name(flow);
                }
            }
        });
    }

    /// When [`Book::advance`] would next say or do something if nothing is observed until then.
    #[must_use]
    pub fn next_change(&self) -> Option<Mono> {
        self.deadlines.earliest()
    }

    /// Nobody looked between these two moments. Nothing that was not seen in between counts against
    /// a peer, and new accusations (of silence, or of a connection lost and not taken up again) wait
    /// until what has piled up had time to arrive and be seen. Stalls, which the kernel has stamped
    /// meanwhile, count as ever.
    pub fn daemon_gap(&mut self, from: Mono, to: Mono) {
        self.note_gap(from, to, false);
    }

    /// The same, where nothing ran on the whole node: not only nobody looked, nobody could do
    /// anything.
    pub fn node_gap(&mut self, from: Mono, to: Mono) {
        self.note_gap(from, to, true);
    }

    fn note_gap(&mut self, from: Mono, to: Mono, node: bool) {
        // A gap that follows closely upon another is one with it.
        let gap = match self.gap {
            Some(before) if from <= before.to.plus(super::stage::SETTLE_NS) => Gap {
                from: before.from.min(from),
                to,
                node: node && before.node,
            },
            _ => Gap { from, to, node },
        };
        self.gap = Some(gap);
    }

    /// What the figures need of every lease: a pass over many thousand, several times a second.
    pub fn briefs(&self, now: Mono) -> impl Iterator<Item = LeaseBrief> + '_ {
        self.slots.iter().flatten().map(move |lease| LeaseBrief {
            entry: lease.entry,
            role: lease.role,
            stage: lease.stage,
            timeout_ns: lease.facts.timeout.map(|timeout| timeout.ns),
            timeout_source: lease.timeout_source(),
            remaining_ns: lease
                .facts
                .floor()
                .map(|floor| judge::signed_span(floor, now)),
        })
    }

    /// All leases as they stand. For the API, which is seldom asked.
    pub fn leases(&self, now: Mono) -> impl Iterator<Item = LeaseView> + '_ {
        self.slots
            .iter()
            .flatten()
            .map(move |lease| self.view(lease, now))
    }

    /// One lease as it stands.
    #[must_use]
    pub fn lease(&self, handle: LeaseHandle, now: Mono) -> Option<LeaseView> {
        self.slots
            .iter()
            .flatten()
            .find(|lease| lease.handle == handle)
            .map(|lease| self.view(lease, now))
    }

    /// The lease that a flow carries.
    #[must_use]
    pub fn carried(&self, flow: FlowKey) -> Option<Carried> {
        let Some(FlowUse::Carries(slot)) = self.by_flow.get(&flow) else {
            return None;
        };
        let lease = self.slots[*slot as usize].as_ref()?;
        Some(Carried {
            id: lease.id,
            timeout_ns: lease.facts.timeout.map(|timeout| timeout.ns),
            timeout_source: lease.timeout_source(),
            learned_cadence_ns: lease.cadence.known(),
        })
    }

    /// How many leases are followed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether no lease is followed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An entry that `renews_from: request` does not fit: its grantor holds replies back for more than a
    /// third of the timeout, time after time. Each is told once.
    pub fn take_long_poll(&mut self) -> Option<u16> {
        let new = self.long_polls & !self.long_polls_told;
        let entry = new.trailing_zeros();
        if entry >= u64::BITS {
            return None;
        }
        self.long_polls_told |= 1 << entry;
        u16::try_from(entry).ok()
    }

    /// How often a lease could not be followed because the book was full.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn view(&self, lease: &Lease, now: Mono) -> LeaseView {
        let settings = self.settings_by(lease);
        let floor = lease.facts.floor();
        let healthy = lease.stage == Stage::Healthy;
        LeaseView {
            subject: lease.subject(),
            stage: lease.stage,
            condition: lease.condition,
            since: lease.since,
            cause: if healthy {
                Cause::Unknown
            } else {
                self.verdicts.of(lease).cause
            },
            floor,
            remaining_ns: floor.map(|floor| judge::signed_span(floor, now)),
            answered_at: lease.facts.base,
            silent_ns: lease.facts.base.map(|base| now.since(base)),
            cadence_ns: lease
                .facts
                .timeout
                .map(|timeout| lease.facts.cadence(&settings, timeout.ns)),
            learned_cadence_ns: lease.cadence.known(),
            flow: lease.flow,
            synchronised: !lease.facts.blind,
        }
    }

    fn settings(&self, entry: u16) -> EntrySettings {
        self.entries
            .get(usize::from(entry))
            .copied()
            .unwrap_or_default()
    }

    /// The settings that hold for a flow as it is seen.
    fn settings_for(&self, flow: &FlowObservation) -> EntrySettings {
        let settings = self.settings(flow.entry);
        match flow.sight {
            Sight::ByTiming => settings.by_timing(),
            Sight::MidStream | Sight::FromStart => settings,
        }
    }

    fn settings_of(&self, slot: u32) -> EntrySettings {
        self.slots[slot as usize]
            .as_ref()
            .map(|lease| self.settings_by(lease))
            .unwrap_or_default()
    }

    fn settings_by(&self, lease: &Lease) -> EntrySettings {
        let settings = self.settings(lease.entry);
        if lease.by_timing {
            settings.by_timing()
        } else {
            settings
        }
    }
}

#[cfg(test)]
mod tests;
