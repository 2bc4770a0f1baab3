//! Incidents: leases late for one cause on one thing.
//!
//! In: notes of the model, in order. Out: which incident a transition belongs to, and
//! [`Change`]s of incidents. Never: a clock, I/O, words.
//!
//! A lease belongs to an incident from `late` on until it is renewed or has ended. One whose
//! cause becomes known takes its incident along (the number stays, so nobody is paged twice),
//! unless there is one already for that cause and thing. One whose cause is `unknown` again stays
//! where it is: nothing proven is no reason to think of another incident.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use watchdog_model::causes::text::{Label, Text};
use watchdog_model::causes::{Cause, Fact, Side};
use watchdog_model::leases::note::{
    GoneReason, LeaseHandle, LeaseId, Note, Outcome, Stage, Subject, Transition,
};
use watchdog_model::leases::observation::{Comm, Endpoints, Role};
use watchdog_model::time::Mono;

/// Leases followed at once. Notes can be lost, the end of a lease among them; then the oldest is
/// forgotten for the newest.
const MAX_FOLLOWED: usize = 65_536;

/// Number of an incident, unique while the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IncidentId(pub u64);

/// What the cause sits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Thing {
    /// The whole node.
    Node,
    /// A process of this node.
    Process(u32),
    /// A block device of this node.
    Device(Text<16>),
    /// A cgroup of this node.
    Cgroup(Label),
    /// A service elsewhere (a grantor, seen from its holder).
    Service(SocketAddr),
    /// A host elsewhere (of holders, seen from their grantor).
    Host(IpAddr),
    /// The leases of one entry that one process holds or grants; the thing itself is not known.
    Entry {
        /// Index of the entry.
        entry: u16,
        /// The process, if known.
        pid: Option<u32>,
    },
    /// One lease, of which the owner is not known.
    Lease(LeaseHandle),
}

/// What makes two leases one incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    cause: Cause,
    thing: Thing,
}

/// What became of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its first lease is late.
    Opened,
    /// More leases, or a cause that is known now.
    Grown,
    /// Its last lease was renewed or has ended.
    Closed,
}

/// An incident as it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Which.
    pub id: IncidentId,
    /// Why.
    pub cause: Cause,
    /// On what.
    pub thing: Thing,
    /// Name of the process, where the thing is one.
    pub comm: Option<Comm>,
    /// Leases in it; of a closed one: that ever were.
    pub leases: usize,
    /// Of which have expired.
    pub expired: usize,
    /// The lease nearest to lapsing; of a closed one: that ever was.
    pub worst: LeaseId,
    /// Entry of that lease.
    pub entry: u16,
    /// Stage of that lease.
    pub stage: Stage,
    /// Where the last lease of a closed one went, if not to an end of its own: their cause turned
    /// out to be that of another incident.
    pub joined: Option<IncidentId>,
}

/// The leases of one entry in one role within an incident.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// The entry's index.
    pub entry: u16,
    /// The role.
    pub role: Role,
    /// How many.
    pub leases: usize,
    /// The one nearest to lapsing.
    pub worst: LeaseId,
    /// Its stage.
    pub stage: Stage,
    /// When it may lapse; `Mono(u64::MAX)` where that is not known.
    pub floor: Mono,
}

/// An incident that was touched since the last [`Incidents::settle`].
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// How it stands.
    pub change: Change,
    /// The leases in it now, by entry and role; none: it is over.
    pub parts: Vec<Part>,
    /// What there is to say of it, if anything (`Opened` was said by [`Incidents::step`]).
    pub say: Option<State>,
    /// Worst stage of the leases in it now; `None`: none is left.
    pub stage_now: Option<Stage>,
}

/// What a note means for incidents.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Step {
    /// The incident that the note's lease is in, or was until this note.
    pub incident: Option<IncidentId>,
    /// An incident that starts with it.
    pub opened: Option<Change>,
    /// Leases that are in the incident now.
    pub leases: usize,
}

#[derive(Clone, Copy)]
struct Member {
    incident: IncidentId,
    id: LeaseId,
    entry: u16,
    role: Role,
    stage: Stage,
    /// When it may lapse; `Mono(u64::MAX)` where that is not known.
    floor: Mono,
}

struct Incident {
    key: Key,
    comm: Option<Comm>,
    members: BTreeSet<LeaseHandle>,
    ever: usize,
    expired: usize,
    worst_ever: (Stage, LeaseId, u16),
    /// Where the lease went that left last.
    joined: Option<IncidentId>,
    to_say: Option<State>,
}

/// All open incidents.
#[derive(Default)]
pub struct Incidents {
    open: BTreeMap<IncidentId, Incident>,
    by_key: HashMap<Key, IncidentId>,
    members: BTreeMap<LeaseHandle, Member>,
    /// Which process has which end, to find the owner of the other end on this node.
    owners: HashMap<Endpoints, (u32, Comm)>,
    flows: BTreeMap<LeaseHandle, Endpoints>,
    touched: BTreeSet<IncidentId>,
    last_id: u64,
}

impl Incidents {
    /// Takes a note in.
    pub fn step(&mut self, at: Mono, note: &Note) -> Step {
        match note {
            Note::Seen { subject, .. } => {
                self.follow(subject);
                self.answer(subject.handle)
            }
            Note::Transition(transition) => {
                self.follow(&transition.subject);
                self.transition(at, transition)
            }
            Note::Gone { subject, reason } => {
                let step = self.answer(subject.handle);
                self.leave(subject.handle, *reason == GoneReason::Expired);
                if let Some(flow) = self.flows.remove(&subject.handle) {
                    self.owners.remove(&flow);
                }
                step
            }
            Note::FalseExpiry(expiry) => self.answer(expiry.subject.handle),
        }
    }

    /// What became of the incidents touched since the last call. Called after each batch of notes,
    /// so that a thousand leases late at once are one line and not a thousand.
    pub fn settle(&mut self) -> Vec<Settled> {
        let touched = std::mem::take(&mut self.touched);
        let mut settled = Vec::new();
        for id in touched {
            let Some(change) = self.look(id) else {
                continue;
            };
            let parts = self.parts(id);
            let Some(incident) = self.open.get_mut(&id) else {
                continue;
            };
            let closed = incident.members.is_empty();
            let say = if closed {
                Some(State::Closed)
            } else {
                incident.to_say.take()
            };
            if closed && let Some(gone) = self.open.remove(&id) {
                self.by_key.remove(&gone.key);
            }
            settled.push(Settled {
                change,
                parts,
                say,
                stage_now: (!closed).then_some(change.stage),
            });
        }
        settled
    }

    fn answer(&self, handle: LeaseHandle) -> Step {
        let incident = self.members.get(&handle).map(|member| member.incident);
        Step {
            incident,
            opened: None,
            leases: incident.map_or(0, |id| self.size(id)),
        }
    }

    fn follow(&mut self, subject: &Subject) {
        if let Some(owner) = subject.owner {
            if let Some(earlier) = self.flows.insert(subject.handle, subject.endpoints)
                && earlier != subject.endpoints
            {
                self.owners.remove(&earlier);
            }
            self.owners
                .insert(subject.endpoints, (owner.pid, owner.comm));
        }
        if self.flows.len() > MAX_FOLLOWED
            && let Some((handle, flow)) = self.flows.pop_first()
        {
            self.owners.remove(&flow);
            self.leave(handle, false);
        }
    }

    fn transition(&mut self, at: Mono, transition: &Transition) -> Step {
        let handle = transition.subject.handle;
        let stage = match transition.to {
            Outcome::Stage(Stage::Healthy) | Outcome::Renewed => {
                let step = self.answer(handle);
                self.leave(handle, false);
                return step;
            }
            Outcome::Expired => {
                let step = self.answer(handle);
                self.leave(handle, true);
                return step;
            }
            Outcome::Stage(stage) => stage,
        };
        let (key, comm) = self.key(transition);
        let (incident, opened) = self.place(handle, key, comm, transition);
        let floor = transition.remaining_ns.map_or(Mono(u64::MAX), |remaining| {
            Mono(at.0.saturating_add_signed(remaining))
        });
        self.members.insert(
            handle,
            Member {
                incident,
                id: transition.subject.id,
                entry: transition.subject.entry,
                role: transition.subject.role,
                stage,
                floor,
            },
        );
        self.touched.insert(incident);
        if let Some(open) = self.open.get_mut(&incident)
            && stage > open.worst_ever.0
        {
            open.worst_ever = (stage, transition.subject.id, transition.subject.entry);
        }
        Step {
            incident: Some(incident),
            opened: opened.then(|| self.look(incident)).flatten(),
            leases: self.size(incident),
        }
    }

    fn size(&self, id: IncidentId) -> usize {
        self.open
            .get(&id)
            .map_or(0, |incident| incident.members.len())
    }

    /// Puts a lease where it belongs; says where, and whether that was opened for it.
    fn place(
        &mut self,
        handle: LeaseHandle,
        key: Key,
        comm: Option<Comm>,
        transition: &Transition,
    ) -> (IncidentId, bool) {
        let mut left = None;
        if let Some(id) = self.members.get(&handle).map(|member| member.incident)
            && let Some(incident) = self.open.get_mut(&id)
        {
            // A process that is gone is known no more; what it did is not another incident.
            let vaguer = incident.key.cause == key.cause
                && matches!(key.thing, Thing::Service(_) | Thing::Host(_));
            if key.cause == Cause::Unknown || incident.key == key || vaguer {
                return (id, false);
            }
            let takes_it_along =
                incident.key.cause == Cause::Unknown || incident.members.len() == 1;
            if takes_it_along && !self.by_key.contains_key(&key) {
                self.by_key.remove(&incident.key);
                self.by_key.insert(key, id);
                incident.key = key;
                incident.comm = comm;
                incident.to_say = Some(State::Grown);
                return (id, false);
            }
            self.leave(handle, false);
            left = Some(id);
        }
        if let Some(id) = self.by_key.get(&key).copied()
            && let Some(incident) = self.open.get_mut(&id)
        {
            incident.members.insert(handle);
            incident.ever += 1;
            incident.to_say = Some(State::Grown);
            self.joined(left, id);
            return (id, false);
        }
        self.last_id += 1;
        let id = IncidentId(self.last_id);
        self.joined(left, id);
        let subject = &transition.subject;
        self.open.insert(
            id,
            Incident {
                key,
                comm,
                members: BTreeSet::from([handle]),
                ever: 1,
                expired: 0,
                worst_ever: (Stage::Healthy, subject.id, subject.entry),
                joined: None,
                to_say: None,
            },
        );
        self.by_key.insert(key, id);
        (id, true)
    }

    fn leave(&mut self, handle: LeaseHandle, expired: bool) {
        let Some(member) = self.members.remove(&handle) else {
            return;
        };
        if let Some(incident) = self.open.get_mut(&member.incident) {
            incident.members.remove(&handle);
            incident.joined = None;
            incident.expired += usize::from(expired);
            self.touched.insert(member.incident);
        }
    }

    /// A lease has left one incident for another.
    fn joined(&mut self, left: Option<IncidentId>, to: IncidentId) {
        if let Some(left) = left.and_then(|id| self.open.get_mut(&id)) {
            left.joined = Some(to);
        }
    }

    fn parts(&self, id: IncidentId) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        let members = self.open.get(&id).into_iter().flat_map(|incident| {
            incident
                .members
                .iter()
                .filter_map(|handle| self.members.get(handle))
        });
        for member in members {
            let same = |part: &&mut Part| part.entry == member.entry && part.role == member.role;
            let Some(part) = parts.iter_mut().find(same) else {
                parts.push(Part {
                    entry: member.entry,
                    role: member.role,
                    leases: 1,
                    worst: member.id,
                    stage: member.stage,
                    floor: member.floor,
                });
                continue;
            };
            part.leases += 1;
            if (member.stage, std::cmp::Reverse(member.floor))
                > (part.stage, std::cmp::Reverse(part.floor))
            {
                part.worst = member.id;
                part.stage = member.stage;
                part.floor = member.floor;
            }
        }
        parts
    }

    /// The incident as it stands now.
    fn look(&self, id: IncidentId) -> Option<Change> {
        let incident = self.open.get(&id)?;
        let worst = incident
            .members
            .iter()
            .filter_map(|handle| self.members.get(handle))
            .max_by_key(|member| (member.stage, std::cmp::Reverse(member.floor)));
        let (stage, worst, entry) = worst.map_or(incident.worst_ever, |member| {
            (member.stage, member.id, member.entry)
        });
        Some(Change {
            id,
            cause: incident.key.cause,
            thing: incident.key.thing,
            comm: incident.comm,
            leases: if incident.members.is_empty() {
                incident.ever
            } else {
                incident.members.len()
            },
            expired: incident.expired,
            worst,
            entry,
            stage,
            joined: incident.joined.filter(|_| incident.members.is_empty()),
        })
    }

    fn key(&self, transition: &Transition) -> (Key, Option<Comm>) {
        let subject = &transition.subject;
        let cause = transition.verdict.cause;
        let own = subject.owner.map(|owner| (owner.pid, owner.comm));
        let peer = match subject.role {
            Role::Holder => Thing::Service(subject.endpoints.peer),
            // A holder's port is another for every flow; its host is what they share.
            Role::Grantor => Thing::Host(subject.endpoints.peer.ip()),
        };
        let process = |owner: Option<(u32, Comm)>, otherwise: Thing| match owner {
            Some((pid, comm)) => (Thing::Process(pid), Some(comm)),
            None => (otherwise, None),
        };
        let named = thing_of(transition);
        let (thing, comm) = match cause {
            Cause::NodePause => (Thing::Node, None),
            // All that waits for one disk is one incident, whoever waits; all that one quota holds
            // back likewise.
            Cause::DiskStall | Cause::CpuThrottled if named.is_some() => {
                (named.unwrap_or(peer), None)
            }
            Cause::NetworkLoss | Cause::PeerDown | Cause::PeerWindow | Cause::PeerSilent => {
                (peer, None)
            }
            Cause::Unknown => (
                Thing::Entry {
                    entry: subject.entry,
                    pid: own.map(|(pid, _)| pid),
                },
                own.map(|(_, comm)| comm),
            ),
            _ if is_of_peer(transition) => {
                let other_end = Endpoints {
                    local: subject.endpoints.peer,
                    peer: subject.endpoints.local,
                };
                process(self.owners.get(&other_end).copied(), peer)
            }
            _ => process(own, Thing::Lease(subject.handle)),
        };
        (Key { cause, thing }, comm)
    }
}

/// The device or cgroup that the cause's proof names.
fn thing_of(transition: &Transition) -> Option<Thing> {
    transition.verdict.facts().find_map(|fact| match fact {
        Fact::Device { name, .. } => Some(Thing::Device(*name)),
        Fact::Throttled { cgroup, .. } => Some(Thing::Cgroup(*cgroup)),
        _ => None,
    })
}

/// Whether the cause was proven at the other end.
pub fn is_of_peer(transition: &Transition) -> bool {
    transition
        .verdict
        .facts()
        .find_map(Fact::side)
        .is_some_and(|side| side == Side::Peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::samples::{Sample, gone};

    fn ids(settled: &[Settled]) -> Vec<(u64, Option<State>, usize)> {
        settled
            .iter()
            .map(|one| (one.change.id.0, one.say, one.change.leases))
            .collect()
    }

    fn step(incidents: &mut Incidents, sample: Sample) -> Step {
        incidents.step(Mono(0), &sample.note())
    }

    #[test]
    fn leases_of_one_process_late_for_one_cause_are_one_incident() {
        let mut incidents = Incidents::default();
        let stopped = |handle| Sample::late(handle).cause(Cause::ProcessStopped).pid(7);
        let first = step(&mut incidents, stopped(1));
        let opened = first.opened.unwrap();
        assert_eq!(opened.thing, Thing::Process(7));
        assert_eq!(opened.leases, 1);
        for handle in 2..=5 {
            let next = step(&mut incidents, stopped(handle));
            assert_eq!(next.incident, first.incident);
            assert_eq!(next.opened, None);
        }
        // Another process, and another cause in the first: each its own.
        let other = step(&mut incidents, stopped(6).pid(8));
        let busy = step(&mut incidents, stopped(7).cause(Cause::ThreadBusy));
        assert_eq!(
            [other.incident, busy.incident],
            [2, 3].map(|n| Some(IncidentId(n)))
        );
        assert_eq!(
            ids(&incidents.settle()),
            [(1, Some(State::Grown), 5), (2, None, 1), (3, None, 1)]
        );
        assert_eq!(incidents.settle(), []);
    }

    #[test]
    fn it_closes_with_its_last_lease() {
        let mut incidents = Incidents::default();
        for handle in 1..=3 {
            step(&mut incidents, Sample::late(handle).pid(7));
        }
        incidents.settle();
        let renewed = step(&mut incidents, Sample::late(1).to(Outcome::Renewed));
        assert_eq!(
            renewed.incident,
            Some(IncidentId(1)),
            "said of the incident it leaves"
        );
        step(&mut incidents, Sample::late(2).to(Outcome::Expired));
        incidents.step(Mono(0), &gone(2, GoneReason::Expired));
        assert_eq!(ids(&incidents.settle()), [(1, None, 1)]);
        incidents.step(Mono(0), &gone(3, GoneReason::Closed));
        let settled = incidents.settle();
        assert_eq!(ids(&settled), [(1, Some(State::Closed), 3)]);
        assert_eq!(settled[0].change.expired, 1);
        assert_eq!(settled[0].stage_now, None);
        // The same again is another incident.
        let again = step(&mut incidents, Sample::late(4).pid(7));
        assert_eq!(again.incident, Some(IncidentId(2)));
    }

    #[test]
    fn the_worst_is_the_furthest_and_then_the_nearest_to_its_floor() {
        let mut incidents = Incidents::default();
        step(&mut incidents, Sample::late(1).remaining_ms(900));
        step(
            &mut incidents,
            Sample::late(2)
                .to(Outcome::Stage(Stage::AtRisk))
                .remaining_ms(5000),
        );
        step(
            &mut incidents,
            Sample::late(3)
                .to(Outcome::Stage(Stage::AtRisk))
                .remaining_ms(4000),
        );
        let settled = incidents.settle();
        assert_eq!(settled[0].change.worst, LeaseId::Session(3));
        assert_eq!(settled[0].stage_now, Some(Stage::AtRisk));
    }

    #[test]
    fn a_cause_that_becomes_known_takes_the_incident_along() {
        let mut incidents = Incidents::default();
        let unknown = |handle| Sample::late(handle).pid(7);
        let known = |handle| unknown(handle).cause(Cause::DiskStall);
        for handle in 1..=3 {
            step(&mut incidents, unknown(handle));
        }
        incidents.settle();
        for handle in 1..=3 {
            let moved = step(&mut incidents, known(handle));
            assert_eq!(moved.incident, Some(IncidentId(1)));
            assert_eq!(moved.opened, None);
        }
        let settled = incidents.settle();
        assert_eq!(ids(&settled), [(1, Some(State::Grown), 3)]);
        assert_eq!(settled[0].change.cause, Cause::DiskStall);
        // And is not lost again with the proof.
        assert_eq!(
            step(&mut incidents, unknown(2)).incident,
            Some(IncidentId(1))
        );
        // A lease that was alone joins the incident there is, and its own closes.
        step(&mut incidents, unknown(4));
        assert_eq!(step(&mut incidents, known(4)).incident, Some(IncidentId(1)));
        assert_eq!(
            ids(&incidents.settle()),
            [(1, Some(State::Grown), 4), (2, Some(State::Closed), 1)]
        );
    }

    #[test]
    fn what_peers_do_groups_by_peer() {
        let mut incidents = Incidents::default();
        let silent = |handle| Sample::late(handle).cause(Cause::PeerSilent);
        step(&mut incidents, silent(1).pid(1).peer("10.0.0.3:2181"));
        step(&mut incidents, silent(2).pid(2).peer("10.0.0.3:2181"));
        let other = step(&mut incidents, silent(3).pid(2).peer("10.0.0.3:2182"));
        assert_eq!(other.incident, Some(IncidentId(2)));
        // At a grantor every flow of one holder's host has another port.
        step(&mut incidents, silent(4).grantor().peer("10.0.0.9:4001"));
        let same = step(&mut incidents, silent(5).grantor().peer("10.0.0.9:4002"));
        assert_eq!(same.incident, Some(IncidentId(3)));
    }

    #[test]
    fn both_ends_on_one_node_are_one_incident() {
        let mut incidents = Incidents::default();
        let holder = Sample::late(1)
            .cause(Cause::ProcessStopped)
            .pid(7)
            .local("127.0.0.1:4000")
            .peer("127.0.0.1:2181")
            .stopped(Side::Own);
        let grantor = Sample::late(2)
            .grantor()
            .cause(Cause::ProcessStopped)
            .pid(9)
            .local("127.0.0.1:2181")
            .peer("127.0.0.1:4000")
            .stopped(Side::Peer);
        step(&mut incidents, holder);
        assert_eq!(step(&mut incidents, grantor).incident, Some(IncidentId(1)));
    }

    #[test]
    fn an_incident_whose_leases_turn_out_to_be_anothers_is_part_of_it() {
        let mut incidents = Incidents::default();
        let stopped = |handle: u64| Sample::late(handle).cause(Cause::ProcessStopped).pid(7);
        step(&mut incidents, stopped(1));
        for handle in [2, 3] {
            step(&mut incidents, Sample::late(handle).pid(7));
        }
        incidents.settle();
        step(&mut incidents, stopped(2));
        let first = incidents.settle();
        assert!(first.iter().all(|one| one.change.joined.is_none()));
        step(&mut incidents, stopped(3));
        let closed: Vec<_> = incidents
            .settle()
            .into_iter()
            .filter(|one| one.say == Some(State::Closed))
            .collect();
        assert_eq!(closed.len(), 1);
        assert_eq!(closed[0].change.joined, Some(IncidentId(1)));
        assert_eq!(closed[0].change.leases, 2);
    }

    #[test]
    fn ends_that_were_never_told_do_not_pile_up() {
        let mut incidents = Incidents::default();
        for handle in 0..MAX_FOLLOWED as u64 + 10 {
            step(
                &mut incidents,
                Sample::late(handle)
                    .pid(7)
                    .peer_port(handle as u16)
                    .local_port((handle >> 16) as u16),
            );
        }
        assert!(incidents.members.len() <= MAX_FOLLOWED);
        assert!(incidents.owners.len() <= MAX_FOLLOWED);
    }
}
