//! The daemon: ticks on its own grid, late when the story says so, and hands to the book what has
//! changed. And the checks that hold in every story.

use std::collections::HashMap;

use watchdog_model::Mono;
use watchdog_model::leases::book::Book;
use watchdog_model::leases::note::{LeaseHandle, LeaseId, Note, Outcome, Stage, Transition};
use watchdog_model::leases::observation::Role;
use watchdog_model::leases::settings::EntrySettings;
use watchdog_model::time::MS;

use super::{Event, START, World};

pub struct Daemon {
    pub book: Book,
    pub period_ns: u64,
    /// Which ends it sees.
    pub sees: Vec<Role>,
    /// It does not look before this moment.
    pub held_until: Mono,
    pub said: Vec<(Mono, Note)>,
    looked_at: Mono,
    marked: Vec<(usize, Role)>,
    tick_set_at: Option<Mono>,
    /// Flows that are to be recycled at the next tick.
    recycled: Vec<usize>,
    pub observations: u64,
}

impl Daemon {
    pub fn new(period_ns: u64, sees: &[Role], settings: EntrySettings, capacity: usize) -> Self {
        Self {
            book: Book::new(vec![settings], capacity),
            period_ns,
            sees: sees.to_vec(),
            held_until: START,
            said: Vec::new(),
            looked_at: START,
            marked: Vec::new(),
            tick_set_at: None,
            recycled: Vec::new(),
            observations: 0,
        }
    }
}

impl World {
    /// Something about this end has changed.
    pub fn mark(&mut self, flow: usize, role: Role) {
        if !self.daemon.sees.contains(&role) || self.flows[flow].recycled {
            return;
        }
        let end = self.flows[flow].end_mut(role);
        if !end.marked {
            end.marked = true;
            self.daemon.marked.push((flow, role));
            self.set_tick(self.now.plus(1));
        }
    }

    /// The first tick at or after `at`.
    fn set_tick(&mut self, at: Mono) {
        let at = at.max(self.daemon.held_until).max(self.now.plus(1));
        let period_ns = self.daemon.period_ns;
        let on_grid = Mono(at.0.div_ceil(period_ns) * period_ns);
        if self.daemon.tick_set_at.is_none_or(|set| on_grid < set) {
            self.daemon.tick_set_at = Some(on_grid);
            self.at(on_grid, Event::Tick);
        }
    }

    pub fn recycle(&mut self, flow: usize) {
        self.flows[flow].recycled = true;
        self.daemon.recycled.push(flow);
        self.set_tick(self.now.plus(1));
    }

    /// Nobody looks for a while.
    pub fn hold_daemon(&mut self, span_ns: u64) {
        // It had looked at its last tick, whether or not the story had anything to show then.
        let period_ns = self.daemon.period_ns;
        self.daemon.looked_at = Mono(self.now.0 / period_ns * period_ns);
        self.daemon.held_until = self.now.plus(span_ns);
        self.daemon.tick_set_at = None;
        self.set_tick(self.daemon.held_until);
    }

    pub fn tick(&mut self) {
        let now = self.now;
        if self.daemon.tick_set_at != Some(now) || now < self.daemon.held_until {
            return; // set anew since
        }
        self.daemon.tick_set_at = None;
        if self.daemon.looked_at < self.daemon.held_until {
            let from = self.daemon.looked_at;
            if now.since(from) > 2 * self.daemon.period_ns && self.daemon.held_until > START {
                self.daemon.book.daemon_gap(from, now);
            }
            self.daemon.looked_at = now;
        }
        let Daemon {
            book,
            said,
            marked,
            recycled,
            observations,
            ..
        } = &mut self.daemon;
        let mut say = |note| said.push((now, note));
        for (flow, role) in marked.drain(..) {
            let end = self.flows[flow].end_mut(role);
            end.marked = false;
            *observations += 1;
            book.observe(&end.seen, now, &mut say);
        }
        for flow in recycled.drain(..) {
            for role in [Role::Holder, Role::Grantor] {
                book.flow_gone(self.flows[flow].end(role).seen.key, now, &mut say);
            }
        }
        book.advance(now, &mut say);
        if let Some(next) = self.daemon.book.next_change() {
            assert!(next > now, "the book wants to be called at once, for ever");
            self.set_tick(next);
        }
    }

    /// All that was said of one session, for the message of a failed check.
    pub fn told(&self, id: LeaseId) -> String {
        let mut told = String::new();
        for (at, note) in &self.daemon.said {
            let (subject, what) = match note {
                Note::Seen { subject, .. } => (subject, "seen".to_owned()),
                Note::Transition(said) => (
                    &said.subject,
                    format!(
                        "{:?} > {:?} {:?} {:?}, silent {:?} ms",
                        said.from,
                        said.to,
                        said.condition,
                        said.verdict.cause,
                        said.silent_ns.map(|silent_ns| silent_ns / MS)
                    ),
                ),
                Note::Gone { subject, reason } => (subject, format!("gone {reason:?}")),
                Note::FalseExpiry(said) => (&said.subject, "false expiry".to_owned()),
            };
            if subject.id == id {
                let after = at.since(START) / MS;
                let timeout = subject.timeout_ns.map(|timeout_ns| timeout_ns / MS);
                told += &format!(
                    "\n+{after} ms {:?} of {timeout:?} ms, port {}: {what}",
                    subject.role,
                    subject
                        .endpoints
                        .local
                        .port()
                        .min(subject.endpoints.peer.port())
                );
            }
        }
        told
    }

    /// What the daemon believes to be the earliest end of this session, per role.
    pub fn floors_of(&self, session: u64) -> [Option<Mono>; 2] {
        let mut floors = [None; 2];
        for lease in self.daemon.book.leases(self.now) {
            if lease.subject.id == LeaseId::Session(session) {
                floors[lease.subject.role as usize] = lease.floor;
            }
        }
        floors
    }

    pub fn transitions(&self) -> impl Iterator<Item = (Mono, &Transition)> {
        self.daemon.said.iter().filter_map(|(at, note)| match note {
            Note::Transition(transition) => Some((*at, transition)),
            _ => None,
        })
    }

    /// The worst stage said so far.
    pub fn worst(&self) -> Stage {
        self.transitions()
            .filter_map(|(_, transition)| match transition.to {
                Outcome::Stage(stage) => Some(stage),
                _ => None,
            })
            .max()
            .unwrap_or(Stage::Healthy)
    }

    /// What holds in every story, whatever happens in it.
    pub fn check(&self) {
        self.check_floors();
        self.check_stages();
        self.check_seen();
    }

    fn check_floors(&self) {
        for expiry in &self.expiries {
            for floor in expiry.floors.into_iter().flatten() {
                assert!(
                    floor <= expiry.at,
                    "seed {}: session {:#x} expired at {:?}, {} ms before its floor",
                    self.seed,
                    expiry.session,
                    expiry.at,
                    floor.since(expiry.at) / MS
                );
            }
        }
    }

    /// A stage rises, or is renewed by a newer renewal than the one it rose with.
    fn check_stages(&self) {
        let mut stages: HashMap<LeaseHandle, (Stage, Option<Mono>)> = HashMap::new();
        for (at, transition) in self.transitions() {
            let base = transition.silent_ns.map(|silent_ns| at.minus(silent_ns));
            let known = stages
                .entry(transition.subject.handle)
                .or_insert((Stage::Healthy, None));
            assert_eq!(
                known.0, transition.from,
                "seed {}: {transition:?}",
                self.seed
            );
            match transition.to {
                Outcome::Stage(stage) => {
                    assert!(stage >= known.0, "seed {}: {transition:?}", self.seed);
                    if stage > known.0 {
                        *known = (stage, base);
                    }
                }
                Outcome::Renewed => {
                    assert!(base > known.1, "seed {}: {transition:?}", self.seed);
                    *known = (Stage::Healthy, None);
                }
                Outcome::Expired => {}
            }
        }
    }

    /// One `Seen` per lease, before anything else is said of it; nothing after its end.
    fn check_seen(&self) {
        let mut known: HashMap<(LeaseId, Role), bool> = HashMap::new();
        for (_, note) in &self.daemon.said {
            match note {
                Note::Seen { subject, was } => {
                    if let Some(was) = was {
                        known.remove(&(*was, subject.role));
                    }
                    let before = known.insert((subject.id, subject.role), true);
                    let told = self.told(subject.id);
                    assert_eq!(before, None, "seed {}: seen twice: {told}", self.seed);
                }
                Note::Transition(Transition { subject, .. }) => {
                    assert_eq!(known.get(&(subject.id, subject.role)), Some(&true));
                }
                Note::Gone { subject, .. } => {
                    assert_eq!(known.insert((subject.id, subject.role), false), Some(true));
                }
                Note::FalseExpiry(_) => {}
            }
        }
    }

    /// Every session that truly expired, its holder not having gone by itself, stood at risk or worse
    /// at that moment, at every end that the daemon sees. (Late at a grantor whose holder hung up.)
    pub fn check_warned(&self) {
        for expiry in self.expiries.iter().filter(|expiry| !expiry.holder_left) {
            for role in &self.daemon.sees {
                let welcomed_at = self.welcomed.get(&expiry.session);
                if *role == Role::Holder && welcomed_at.is_none_or(|at| *at >= expiry.at) {
                    continue;
                }
                let mut stage = Stage::Healthy;
                for (at, transition) in self.transitions() {
                    let subject = transition.subject;
                    let this = subject.id == LeaseId::Session(expiry.session);
                    if at > expiry.at || !this || subject.role != *role {
                        continue;
                    }
                    stage = match transition.to {
                        Outcome::Stage(stage) => stage,
                        Outcome::Renewed => Stage::Healthy,
                        Outcome::Expired => stage,
                    };
                }
                let least = if *role == Role::Grantor && expiry.hung_up {
                    Stage::Late
                } else {
                    Stage::AtRisk
                };
                assert!(
                    stage >= least,
                    "seed {}: {role:?}'s lease {:#x} of {:?} expired at +{} ms, only {stage:?}: {}",
                    self.seed,
                    expiry.session,
                    self.holders[expiry.holder].client,
                    expiry.at.since(START) / MS,
                    self.told(LeaseId::Session(expiry.session))
                );
            }
        }
    }
}
