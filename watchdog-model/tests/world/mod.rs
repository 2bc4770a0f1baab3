//! A simulated world: clients and servers with the rules of the real ones, links between them, and a
//! daemon that sees what its kernel would show it.
//!
//! In: a seed, actors, faults set between two steps. Out: what the daemon said, and when each session
//! truly expired, by the grantor's own reckoning, which shares nothing with the model. Never: the
//! wall clock, unseeded chance. Events are ordered by (time, sequence), so a seed is a story.

pub mod daemon;
pub mod flow;
pub mod grantor;
pub mod holder;
pub mod rng;

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

use watchdog_model::Mono;
use watchdog_model::leases::observation::{Role, Stall, StallKind};
use watchdog_model::time::SECOND;

use self::daemon::Daemon;
use self::flow::Flow;
use self::grantor::Grantor;
use self::holder::{Client, Holder};
use self::rng::Rng;

/// When every story begins: well after boot.
pub const START: Mono = Mono(100_000 * SECOND);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// A holder's next ping may be due.
    PingTimer(usize),
    /// A holder's application asks something.
    Ask(usize),
    /// A holder's patience may be over.
    Patience(usize),
    /// A holder opens a connection.
    Connect(usize),
    /// The oldest message on its way in this direction arrives (the receiving end is named).
    Arrive(usize, Role),
    /// TCP tries again.
    Retransmit(usize, Role),
    /// A session's bucket may be over.
    ExpiryCheck(usize, u64),
    /// A process goes on.
    Resume(Process),
    /// The daemon looks.
    Tick,
    /// The state of a process's threads has become visible.
    ShowStall(Process),
    /// The flow's slot is used for another.
    Recycle(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Process {
    Holder(usize),
    Grantor(usize),
}

/// What holds a process up.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub since: Mono,
    /// What the scheduler shows; None: nothing, because the whole node stands still with it.
    pub kind: Option<StallKind>,
}

/// What lies between a holder and its grantor.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub latency_ns: u64,
    pub jitter_ns: u64,
    /// One packet in so many is lost; 0: none.
    pub loss_one_in: u64,
    pub cut: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency_ns: 200_000,
            jitter_ns: 300_000,
            loss_one_in: 0,
            cut: false,
        }
    }
}

/// A session's true end.
#[derive(Clone, Copy, Debug)]
pub struct TrueExpiry {
    pub session: u64,
    pub holder: usize,
    pub at: Mono,
    /// Whether the holder had gone by itself before.
    pub holder_left: bool,
    /// Whether it had hung up at the grantor and not come back there: no more than `late`, there.
    pub hung_up: bool,
    /// The earliest floor that the daemon had for it, per role.
    pub floors: [Option<Mono>; 2],
}

/// An event in the queue, ordered by time and then by when it was put there.
#[derive(Clone, Copy, Debug)]
struct Queued {
    order: Reverse<u128>,
    at: Mono,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order.cmp(&other.order)
    }
}

pub struct World {
    pub seed: u64,
    pub now: Mono,
    pub rng: Rng,
    queue: BinaryHeap<Queued>,
    sequence: u64,
    pub holders: Vec<Holder>,
    pub grantors: Vec<Grantor>,
    pub flows: Vec<Flow>,
    pub links: Vec<Link>,
    pub daemon: Daemon,
    pub expiries: Vec<TrueExpiry>,
    /// When each session's first welcome arrived at its holder's node. (One that is lost on the way
    /// leaves a session behind that its holder never hears of.)
    pub welcomed: BTreeMap<u64, Mono>,
}

impl World {
    pub fn new(seed: u64, daemon: Daemon) -> Self {
        Self {
            seed,
            now: START,
            rng: Rng::new(seed),
            queue: BinaryHeap::new(),
            sequence: 0,
            holders: Vec::new(),
            grantors: Vec::new(),
            flows: Vec::new(),
            links: Vec::new(),
            daemon,
            expiries: Vec::new(),
            welcomed: BTreeMap::new(),
        }
    }

    pub fn add_grantor(&mut self, tick_ns: u64) -> usize {
        self.grantors.push(Grantor::new(tick_ns));
        self.grantors.len() - 1
    }

    /// A holder that connects somewhere within the first cycle.
    pub fn add_holder(&mut self, client: Client, timeout_ns: u64, grantor: usize) -> usize {
        let holder = self.holders.len();
        self.holders.push(Holder::new(client, timeout_ns, grantor));
        self.links.push(Link::default());
        let wait = self.rng.between(0, timeout_ns);
        self.at(self.now.plus(wait), Event::Connect(holder));
        holder
    }

    pub fn at(&mut self, at: Mono, event: Event) {
        self.sequence += 1;
        let at = at.max(self.now);
        let order = Reverse(u128::from(at.0) << 64 | u128::from(self.sequence));
        self.queue.push(Queued { order, at, event });
    }

    pub fn run_for(&mut self, span_ns: u64) {
        let end = self.now.plus(span_ns);
        while let Some(Queued { at, event, .. }) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            assert!(at >= self.now, "time went backwards");
            self.now = at;
            self.happen(event);
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::PingTimer(holder) => self.ping_timer(holder),
            Event::Ask(holder) => self.ask(holder),
            Event::Patience(holder) => self.patience(holder),
            Event::Connect(holder) => self.connect(holder),
            Event::Arrive(flow, to) => self.arrive(flow, to),
            Event::Retransmit(flow, from) => self.retransmit(flow, from),
            Event::ExpiryCheck(grantor, session) => self.expiry_check(grantor, session),
            Event::Resume(process) => self.resume(process),
            Event::Tick => self.tick(),
            Event::ShowStall(process) => self.show_stall(process),
            Event::Recycle(flow) => self.recycle(flow),
        }
    }

    pub fn held(&self, process: Process) -> Option<Held> {
        match process {
            Process::Holder(holder) => self.holders[holder].held,
            Process::Grantor(grantor) => self.grantors[grantor].held,
        }
    }

    fn set_held(&mut self, process: Process, held: Option<Held>) {
        match process {
            Process::Holder(holder) => self.holders[holder].held = held,
            Process::Grantor(grantor) => self.grantors[grantor].held = held,
        }
    }

    /// The process makes no progress for a while.
    pub fn hold(&mut self, process: Process, kind: StallKind, span_ns: u64) {
        self.hold_as(process, Some(kind), span_ns);
    }

    /// The daemon's node stands still, with all processes on it and the daemon.
    pub fn pause_node(&mut self, span_ns: u64) {
        if self.daemon.sees.contains(&Role::Holder) {
            for holder in 0..self.holders.len() {
                self.hold_as(Process::Holder(holder), None, span_ns);
            }
        }
        if self.daemon.sees.contains(&Role::Grantor) {
            for grantor in 0..self.grantors.len() {
                self.hold_as(Process::Grantor(grantor), None, span_ns);
            }
        }
        self.hold_daemon(span_ns);
    }

    fn hold_as(&mut self, process: Process, kind: Option<StallKind>, span_ns: u64) {
        if self.held(process).is_some() {
            return;
        }
        let since = self.now;
        self.set_held(process, Some(Held { since, kind }));
        // Starvation is a verdict over a second, the others are states.
        let shown = match kind {
            Some(StallKind::Starved) => since.plus(SECOND),
            _ => since,
        };
        self.at(shown, Event::ShowStall(process));
        self.at(since.plus(span_ns), Event::Resume(process));
    }

    fn show_stall(&mut self, process: Process) {
        let stall = self.held(process).and_then(|held| {
            let starved_long = self.now.since(held.since) >= SECOND;
            let kind = held.kind?;
            (kind != StallKind::Starved || starved_long).then_some(Stall {
                since: held.since,
                kind,
                tid: 1,
                comm: [0; 16],
            })
        });
        let role = match process {
            Process::Holder(_) => Role::Holder,
            Process::Grantor(_) => Role::Grantor,
        };
        let flows = match process {
            Process::Holder(holder) => self.holders[holder].flow.into_iter().collect(),
            Process::Grantor(grantor) => self.grantors[grantor].open_flows(),
        };
        for flow in flows {
            self.flows[flow].end_mut(role).seen.stall = stall;
            self.mark(flow, role);
        }
    }

    fn resume(&mut self, process: Process) {
        self.set_held(process, None);
        self.show_stall(process);
        match process {
            Process::Holder(holder) => self.holder_resumes(holder),
            Process::Grantor(grantor) => self.grantor_resumes(grantor),
        }
    }

    /// Nothing passes between this holder and its grantor until [`World::heal`].
    pub fn cut(&mut self, holder: usize) {
        self.links[holder].cut = true;
    }

    pub fn heal(&mut self, holder: usize) {
        self.links[holder].cut = false;
    }
}
