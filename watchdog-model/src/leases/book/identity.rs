//! Which lease a flow carries, and what a lease is called.
//!
//! In: an observation. Out: the lease's slot, found, taken over from another flow, or newly made.
//! Never: a second `Seen` for the same key.

use super::lease::{Expiry, Lease};
use super::{Book, FlowUse};
use crate::leases::note::{GoneReason, LeaseHandle, LeaseId, Note};
use crate::leases::observation::{Endpoints, FlowObservation, Role};
use crate::time::Mono;

/// What a flow says of its lease's name.
enum Name {
    /// Nothing yet.
    NotYet,
    /// It wants or has this session.
    Session(u64),
    /// It carries a lease that has no name of its own, or one that was not seen.
    Flow,
}

/// The session that the flow is certain to carry or asks for.
fn name(flow: &FlowObservation) -> Name {
    if let Some(id) = flow.lease_id {
        return Name::Session(id);
    }
    let welcomed = flow
        .welcome
        .filter(|welcome| welcome.timeout_ms > 0 && welcome.session != 0);
    if let Some(welcome) = welcomed {
        return Name::Session(welcome.session);
    }
    match flow.hello {
        Some(hello) if hello.session != 0 => Name::Session(hello.session),
        // A new session is known by its answer; one whose welcome was not seen, by a later one.
        Some(hello) if flow.answered_at > Some(hello.at) => Name::Flow,
        Some(_) => Name::NotYet,
        None => match flow.remembered {
            Some(remembered) if remembered.session != 0 => Name::Session(remembered.session),
            Some(_) => Name::Flow,
            None if flow.answered_at.is_some() => Name::Flow,
            None => Name::NotYet,
        },
    }
}

/// Leases without a name of their own that a flow may go on with.
enum Nameless {
    None,
    One(u32),
    Several { longest_adrift: u32 },
}

/// Whether the grantor has confirmed that the lease lives.
fn is_proven(flow: &FlowObservation) -> bool {
    if let Some(welcome) = flow.welcome {
        return welcome.timeout_ms > 0;
    }
    match flow.hello {
        Some(hello) => flow.answered_at > Some(hello.at),
        None => flow.answered_at.is_some() || flow.remembered.is_some(),
    }
}

impl Book {
    /// The slot of the lease that this flow carries.
    pub(super) fn carried_by(
        &mut self,
        flow: &FlowObservation,
        now: Mono,
        say: &mut dyn FnMut(Note),
    ) -> Option<u32> {
        match self.by_flow.get(&flow.key) {
            Some(FlowUse::Done) => {
                let again = self.settings_for(flow).rejoins
                    && flow.close_request_at.is_none()
                    && flow.expired_reply_at.is_none()
                    && flow.closed.is_none();
                if !again {
                    return None;
                }
                self.first_sight(flow, now, say)
            }
            Some(FlowUse::Carries(slot)) => {
                let slot = *slot;
                if self.is_of_another(slot, flow) {
                    return self.changed_lease(slot, flow, now, say);
                }
                Some(self.named_at_last(slot, flow, now, say))
            }
            None => self.first_sight(flow, now, say),
        }
    }

    /// Whether the flow's renewals name another lease than the one it has carried so far.
    fn is_of_another(&self, slot: u32, flow: &FlowObservation) -> bool {
        let carried = self.slots[slot as usize].as_ref().map(|lease| lease.id);
        match (flow.lease_id, carried) {
            (Some(id), Some(LeaseId::Session(known))) => id != known,
            _ => false,
        }
    }

    /// The flow goes on with another lease; the one it has carried has none any more.
    fn changed_lease(
        &mut self,
        slot: u32,
        flow: &FlowObservation,
        now: Mono,
        say: &mut dyn FnMut(Note),
    ) -> Option<u32> {
        let another = self.first_sight(flow, now, say)?;
        if let Some(lease) = self.slots[slot as usize].as_mut() {
            lease.flow_gone(now);
        }
        self.judge(slot, now, say);
        Some(another)
    }

    fn first_sight(
        &mut self,
        flow: &FlowObservation,
        now: Mono,
        say: &mut dyn FnMut(Note),
    ) -> Option<u32> {
        let id = match name(flow) {
            Name::NotYet => return None,
            Name::Session(session) => LeaseId::Session(session),
            Name::Flow => LeaseId::Flow {
                local: flow.endpoints.local,
                peer: flow.endpoints.peer,
            },
        };
        let key = (flow.entry, id, flow.role);
        if let Some(slot) = self.by_key.get(&key, &self.slots) {
            self.take_over(slot, flow);
            return Some(slot);
        }
        let nameless = self.nameless_of(flow, id);
        if let Nameless::One(slot) = nameless {
            self.take_over(slot, flow);
            // What is asked for is its name only once the grantor has agreed.
            return Some(self.named_at_last(slot, flow, now, say));
        }
        if !is_proven(flow) {
            return None;
        }
        if let Nameless::Several { longest_adrift } = nameless {
            // One of them has come back under its name, and which cannot be told.
            self.end(longest_adrift, GoneReason::FlowLost, say);
        }
        self.replaced_by(flow, now, say);
        self.create(id, flow, now, say)
    }

    /// A holder in trouble asks on one connection after the other. Whichever of them the grantor
    /// comes to answer, "that session has expired" holds for the lease wherever it is by then.
    pub(super) fn refused_there(
        &mut self,
        flow: &FlowObservation,
        now: Mono,
        say: &mut dyn FnMut(Note),
    ) {
        let (Some(hello), Some(welcome)) = (flow.hello, flow.welcome) else {
            return;
        };
        if hello.session == 0 || welcome.timeout_ms > 0 {
            return;
        }
        let key = (flow.entry, LeaseId::Session(hello.session), flow.role);
        let Some(slot) = self.by_key.get(&key, &self.slots) else {
            return;
        };
        let expiry = self.slots[slot as usize]
            .as_ref()
            .map(|lease| lease.expiry_at(welcome.at));
        if let Some(expiry) = expiry {
            self.expire(slot, expiry, now, say);
        }
    }

    /// A handshake may reveal the true name of a lease that its flow carries already.
    fn named_at_last(
        &mut self,
        slot: u32,
        flow: &FlowObservation,
        now: Mono,
        say: &mut dyn FnMut(Note),
    ) -> u32 {
        let Some(welcome) = flow
            .welcome
            .filter(|welcome| welcome.timeout_ms > 0 && welcome.session != 0)
        else {
            return slot;
        };
        let id = LeaseId::Session(welcome.session);
        let known = self.slots[slot as usize].as_ref().map(|lease| lease.id);
        if known == Some(id) {
            return slot;
        }
        let key = (flow.entry, id, flow.role);
        if let Some(other) = self.by_key.get(&key, &self.slots) {
            self.end(slot, GoneReason::FlowLost, say);
            self.by_flow.remove(&flow.key);
            self.take_over(other, flow);
            return other;
        }
        if matches!(known, Some(LeaseId::Flow { .. })) {
            self.rename(slot, id, flow, now, say);
            return slot;
        }
        // The session that was asked for is not the one that was given: it is lost, this is another.
        let another = self.create(id, flow, now, say);
        if let Some(lease) = self.slots[slot as usize].as_mut() {
            lease.flow_gone(now);
        }
        self.judge(slot, now, say);
        another.unwrap_or(slot)
    }

    /// A slot that was never used, while there is room without an allocation.
    fn fresh_slot(&mut self) -> Option<u32> {
        if self.slots.len() >= self.capacity {
            return None;
        }
        self.slots.push(None);
        u32::try_from(self.slots.len() - 1).ok()
    }

    fn create(
        &mut self,
        id: LeaseId,
        flow: &FlowObservation,
        now: Mono,
        say: &mut dyn FnMut(Note),
    ) -> Option<u32> {
        let Some(slot) = self.free.pop().or_else(|| self.fresh_slot()) else {
            self.refused = self.refused.saturating_add(1);
            return None;
        };
        let handle = LeaseHandle(self.next_handle);
        self.next_handle += 1;
        let mut lease = Lease::new(handle, id, flow, now);
        let settings = self.settings_for(flow);
        lease.facts.gap = self.gap;
        lease.take_in(flow, &settings, &mut self.shared, now);
        say(Note::Seen {
            subject: lease.subject(),
            was: None,
        });
        self.slots[slot as usize] = Some(lease);
        self.by_key.put(slot, &self.slots);
        self.by_flow.insert(flow.key, FlowUse::Carries(slot));
        self.by_ends.put(slot, &self.slots);
        Some(slot)
    }

    /// The lease goes on, on this flow.
    fn take_over(&mut self, slot: u32, flow: &FlowObservation) {
        let settings = self.settings_for(flow);
        let Some(lease) = self.slots[slot as usize].as_mut() else {
            return;
        };
        self.by_ends.remove(&lease.ends(), slot);
        if let Some(before) = lease.flow {
            self.by_flow.insert(before, FlowUse::Done);
        }
        lease.move_to(flow, &settings);
        self.by_ends.put(slot, &self.slots);
        self.by_flow.insert(flow.key, FlowUse::Carries(slot));
    }

    fn rename(
        &mut self,
        slot: u32,
        id: LeaseId,
        flow: &FlowObservation,
        now: Mono,
        say: &mut dyn FnMut(Note),
    ) {
        let settings = self.settings_for(flow);
        let Some(lease) = self.slots[slot as usize].as_mut() else {
            return;
        };
        let was = lease.id;
        if was == id {
            return;
        }
        self.by_key.remove(&lease.key(), slot);
        lease.id = id;
        // The handshake that reveals the name reveals the timeout too.
        lease.take_in(flow, &settings, &mut self.shared, now);
        say(Note::Seen {
            subject: lease.subject(),
            was: Some(was),
        });
        self.by_key.put(slot, &self.slots);
    }

    /// A lease without a name of its own, adrift, that this flow goes on with: same owner (holder)
    /// or same host (grantor) and the same port on the other side.
    fn nameless_of(&self, flow: &FlowObservation, id: LeaseId) -> Nameless {
        let may_go_on = match flow.hello {
            Some(hello) => hello.session != 0,
            // A lease that never had a handshake: kept by the same process to the same address.
            // At the other end only its host is known.
            None => matches!(id, LeaseId::Flow { .. }),
        };
        if !may_go_on {
            return Nameless::None;
        }
        let fits = |lease: &Lease| {
            let same_end = match flow.role {
                Role::Holder => {
                    let same_owner = lease.owner.is_some_and(|owner| {
                        flow.owner.is_some_and(|other| other.pid == owner.pid)
                    });
                    let same_peer = match flow.hello {
                        Some(_) => lease.endpoints.peer.port() == flow.endpoints.peer.port(),
                        None => lease.endpoints.peer == flow.endpoints.peer,
                    };
                    same_owner && same_peer
                }
                Role::Grantor => {
                    lease.endpoints.peer.ip() == flow.endpoints.peer.ip()
                        && lease.endpoints.local.port() == flow.endpoints.local.port()
                }
            };
            lease.entry == flow.entry
                && lease.role == flow.role
                && matches!(lease.id, LeaseId::Flow { .. })
                && same_end
        };
        let fitting = || self.leases_adrift().filter(|(_, lease)| fits(lease));
        let longest = fitting().min_by_key(|(_, lease)| lease.facts.lost.map(|lost| lost.at));
        match (longest, fitting().nth(1)) {
            (None, _) => Nameless::None,
            (Some((slot, _)), None) => Nameless::One(slot),
            // Whichever of its leases a process goes on with, one is as good as the other; which of
            // a host's processes has come back cannot be told.
            (Some((slot, _)), Some(_)) if flow.hello.is_none() => match flow.role {
                Role::Holder => Nameless::One(slot),
                Role::Grantor => Nameless::None,
            },
            (Some((longest_adrift, _)), Some(_)) => Nameless::Several { longest_adrift },
        }
    }

    /// A new session of a process that has one left which lapsed and has no flow any more: the
    /// process knows that it is lost, or it would have asked for it.
    fn replaced_by(&mut self, flow: &FlowObservation, now: Mono, say: &mut dyn FnMut(Note)) {
        let asked_anew = flow.hello.is_some_and(|hello| hello.session == 0);
        let (Some(owner), true, true) = (flow.owner, asked_anew, flow.role == Role::Holder) else {
            return;
        };
        let replaced = self
            .leases_adrift()
            .filter(|(_, lease)| {
                lease.role == Role::Holder
                    && lease.entry == flow.entry
                    && lease.owner.is_some_and(|other| other.pid == owner.pid)
                    && lease.facts.floor().is_some_and(|floor| floor <= now)
            })
            .min_by_key(|(_, lease)| lease.facts.floor())
            .map(|(slot, _)| slot);
        if let Some(slot) = replaced {
            self.expire(slot, Expiry::replaced(now), now, say);
        }
    }

    fn leases_adrift(&self) -> impl Iterator<Item = (u32, &Lease)> {
        self.adrift
            .iter()
            .filter_map(|slot| Some((*slot, self.slots[*slot as usize].as_ref()?)))
    }

    /// The lease at the other end of the same flow, where this daemon sees both.
    pub(super) fn other_end(&self, slot: u32) -> Option<u32> {
        let lease = self.slots[slot as usize].as_ref()?;
        let other_role = match lease.role {
            Role::Holder => Role::Grantor,
            Role::Grantor => Role::Holder,
        };
        let swapped = Endpoints {
            local: lease.endpoints.peer,
            peer: lease.endpoints.local,
        };
        // Several may share a connection, whose ends name one of them.
        let key = (lease.entry, lease.id, other_role);
        let same = self.by_key.get(&key, &self.slots).filter(|other| {
            let other = self.slots[*other as usize].as_ref();
            other.is_some_and(|other| other.endpoints == swapped)
        });
        same.or_else(|| self.by_ends.get(&(other_role, swapped), &self.slots))
    }
}
