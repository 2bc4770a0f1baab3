//! The memory: the last minutes at full resolution, and what to write when.
//!
//! In: calls from the tick's queue. Out: jobs for the writer. Never: a file. Bounded by bytes; what falls out
//! at its old end is folded into the context with which a recording begins.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use watchdog_model::leases::note::{LeaseHandle, LeaseId, Note, Outcome, Stage, Subject};
use watchdog_model::leases::observation::{
    Endpoints, FlowKey, FlowObservation, Remembered, Role, TimeoutSource,
};
use watchdog_model::time::{MS, Mono, SECOND};

use super::format::{BlockWriter, Context, Header, beginning, unpack};
use super::writer::{Job, Target};
use super::{Op, Plan, Shared, Stamped, lock};
use crate::sinks::events::wall_clock;
use crate::surge;
use crate::tick::clock;

/// How often the queue is emptied.
const LOOK: Duration = Duration::from_millis(100);
/// A block is closed at this size …
const BLOCK_BYTES: usize = 32 << 10;
/// … or this age: what a kill -9 can take.
const BLOCK_AGE_NS: u64 = 250 * MS;
/// An incident is written until this long after the last reason to.
const AFTER_NS: u64 = 30 * SECOND;
/// Observations of a healthy flow in the rolling file are this far apart.
const THIN_NS: u64 = 10 * SECOND;

struct Ring {
    header: Header,
    blocks: VecDeque<Arc<[u8]>>,
    bytes: usize,
    /// The flows as they were when the oldest block begins.
    base: HashMap<FlowKey, (Mono, FlowObservation, u64)>,
    /// Which lease each number means.
    names: HashMap<LeaseHandle, (u16, LeaseId, Role)>,
    full: BlockWriter,
    /// The rolling file's next block.
    thin: Option<Thin>,
    to_dir: bool,
    to_all: bool,
    kept_bytes: usize,
    /// Until when an incident is being written.
    hot_until: Option<Mono>,
}

#[derive(Default)]
struct Thin {
    block: BlockWriter,
    told: HashMap<FlowKey, Mono>,
    unhealthy: HashSet<(Role, Endpoints)>,
}

/// Runs until it is told to stop.
pub(super) fn run(
    shared: &Shared,
    mut queue: surge::Receiver<Stamped>,
    plan: &Plan,
    header: Header,
) {
    let mut ring = Ring::new(plan, header);
    ring.open_first(shared);
    loop {
        let stop = shared.stop.load(Ordering::Acquire);
        if let Some(settings) = lock(&shared.settings).take() {
            for (entry, new) in ring.header.entries.iter_mut().zip(&settings) {
                entry.1 = *new;
            }
            ring.take(shared, clock(), &Op::Settings(settings));
        }
        // Bounded: what comes meanwhile waits for the next look.
        for _ in 0..super::CALM + super::STORM {
            let Some((at, op)) = queue.take() else {
                break;
            };
            ring.take(shared, at, &op);
        }
        let now = clock();
        let lost = shared.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(lost, "the recorder could not keep up");
            ring.take(shared, now, &Op::Lost(lost));
        }
        if shared.asked.swap(false, Ordering::Relaxed) {
            ring.dump(shared, "asked", now);
        }
        ring.turn(shared, now, stop);
        if stop {
            shared.write(Job::End);
            return;
        }
        std::thread::park_timeout(LOOK);
    }
}

impl Ring {
    fn new(plan: &Plan, header: Header) -> Self {
        Self {
            header,
            blocks: VecDeque::new(),
            bytes: 0,
            base: HashMap::new(),
            names: HashMap::new(),
            full: BlockWriter::default(),
            thin: plan.dir.is_some().then(Thin::default),
            to_dir: plan.dir.is_some(),
            to_all: plan.all.is_some(),
            kept_bytes: plan.kept_bytes,
            hot_until: None,
        }
    }

    fn header(&self, reason: &str, thin: bool) -> Header {
        Header {
            reason: reason.to_owned(),
            thin,
            ..self.header.clone()
        }
    }

    fn open_first(&self, shared: &Shared) {
        let empty = Context::default();
        if self.to_all {
            let bytes = beginning(&self.header("all", false), &empty);
            shared.write(Job::Open(Target::All, bytes.into()));
        }
        if self.to_dir {
            let bytes = beginning(&self.header("rolling", true), &empty);
            shared.write(Job::Open(Target::Rolling, bytes.into()));
        }
    }

    fn take(&mut self, shared: &Shared, at: Mono, op: &Op) {
        self.full.push(at, op);
        if let Some(thin) = &mut self.thin {
            thin.take(at, op);
        }
        let mut why = None;
        if let Op::Said(note) = op {
            self.name(note);
            why = reason(note);
        }
        if self.full.len() >= BLOCK_BYTES {
            self.close(shared, at);
        }
        if let Some(why) = why {
            self.dump(shared, why, at);
        }
    }

    fn name(&mut self, note: &Note) {
        let subject = subject(note);
        let name = (subject.entry, subject.id, subject.role);
        if matches!(note, Note::Gone { .. }) {
            // Evidence may still be under way, and numbers are never used again: a few are kept.
            if self.names.len() > 1 << 16 {
                self.names.remove(&subject.handle);
            }
        } else {
            self.names.insert(subject.handle, name);
        }
    }

    /// Closes what is old enough, ends what is over.
    fn turn(&mut self, shared: &Shared, now: Mono, stop: bool) {
        let old = |block: &BlockWriter| {
            block
                .first()
                .is_some_and(|first| stop || now.since(first) >= BLOCK_AGE_NS)
        };
        if old(&self.full) {
            self.close(shared, now);
        }
        if let Some(thin) = &mut self.thin
            && (old(&thin.block) || thin.block.len() >= BLOCK_BYTES)
            && let calls = thin.block.calls()
            && let Some(bytes) = thin.block.close(wall_less_mono(now))
        {
            shared.write(Job::Append(Target::Rolling, bytes.into(), calls));
        }
        if stop {
            self.dump(shared, "exit", now);
        }
        if self.hot_until.is_some_and(|until| stop || now >= until) {
            self.hot_until = None;
            shared.write(Job::Close(Target::Incident));
        }
    }

    fn close(&mut self, shared: &Shared, now: Mono) {
        let calls = self.full.calls();
        let Some(bytes) = self.full.close(wall_less_mono(now)) else {
            return;
        };
        let block: Arc<[u8]> = bytes.into();
        if self.to_all {
            shared.write(Job::Append(Target::All, Arc::clone(&block), calls));
        }
        if self.hot_until.is_some() {
            shared.write(Job::Append(Target::Incident, Arc::clone(&block), calls));
        }
        if !self.to_dir {
            return;
        }
        self.bytes += block.len();
        self.blocks.push_back(block);
        while self.bytes > self.kept_bytes {
            let Some(oldest) = self.blocks.pop_front() else {
                break;
            };
            self.bytes -= oldest.len();
            self.fold(&oldest);
        }
    }

    /// Keeps of a block what later ones build upon.
    fn fold(&mut self, block: &[u8]) {
        for (at, op) in unpack(block) {
            match op {
                Op::Observe { flow, cadence_ns } => {
                    self.base.insert(flow.key, (at, flow, cadence_ns));
                }
                Op::FlowGone(key) => {
                    self.base.remove(&key);
                }
                _ => {}
            }
        }
    }

    /// Begins to write an incident, or goes on with the one that is being written.
    fn dump(&mut self, shared: &Shared, why: &str, now: Mono) {
        if !self.to_dir {
            return;
        }
        let going_on = self.hot_until.replace(now.plus(AFTER_NS)).is_some();
        if going_on {
            // What led here goes to the disk at once.
            self.close(shared, now);
            return;
        }
        // Into the ring first, or it would come twice.
        self.hot_until = None;
        self.close(shared, now);
        self.hot_until = Some(now.plus(AFTER_NS));
        let context = self.context();
        let mut bytes = beginning(&self.header(why, false), &context);
        for block in &self.blocks {
            bytes.extend_from_slice(block);
        }
        shared.write(Job::Open(Target::Incident, bytes.into()));
    }

    fn context(&self) -> Context {
        let mut flows: Vec<(Mono, FlowObservation)> = self
            .base
            .values()
            .map(|(at, flow, cadence_ns)| {
                let mut flow = *flow;
                // What the lease had learned comes with its flow, as after a restart of the daemon.
                let before = flow.remembered.unwrap_or(Remembered {
                    session: 0,
                    timeout_ns: 0,
                    timeout_source: TimeoutSource::Inferred,
                    cadence_ns: 0,
                });
                if *cadence_ns != 0 {
                    flow.remembered = Some(Remembered {
                        cadence_ns: *cadence_ns,
                        ..before
                    });
                }
                (*at, flow)
            })
            .collect();
        flows.sort_by_key(|(at, flow)| (*at, flow.key));
        let mut names: Vec<_> = self
            .names
            .iter()
            .map(|(handle, (entry, id, role))| (*handle, *entry, *id, *role))
            .collect();
        names.sort_by_key(|name| name.0);
        Context { flows, names }
    }
}

impl Thin {
    fn take(&mut self, at: Mono, op: &Op) {
        match op {
            Op::Advance | Op::Asked => return,
            Op::Observe { flow, .. } => {
                let unhealthy = self.unhealthy.contains(&(flow.role, flow.endpoints));
                let recent = self
                    .told
                    .get(&flow.key)
                    .is_some_and(|told| at.since(*told) < THIN_NS);
                if recent && !unhealthy {
                    return;
                }
                self.told.insert(flow.key, at);
            }
            Op::FlowGone(key) => {
                self.told.remove(key);
            }
            Op::Said(note) => {
                let subject = subject(note);
                let place = (subject.role, subject.endpoints);
                let late = matches!(note, Note::Transition(said)
                    if matches!(said.to, Outcome::Stage(stage) if stage != Stage::Healthy));
                if late {
                    self.unhealthy.insert(place);
                } else {
                    self.unhealthy.remove(&place);
                }
            }
            _ => {}
        }
        self.block.push(at, op);
    }
}

/// Whom a note is about.
fn subject(note: &Note) -> &Subject {
    match note {
        Note::Seen { subject, .. } | Note::Gone { subject, .. } => subject,
        Note::Transition(said) => &said.subject,
        Note::FalseExpiry(said) => &said.subject,
    }
}

/// Whether this is worth a file, and its word in the file's name.
fn reason(note: &Note) -> Option<&'static str> {
    match note {
        Note::Transition(said) => match said.to {
            Outcome::Stage(Stage::Jeopardy) => Some("jeopardy"),
            Outcome::Stage(Stage::Lapsed) => Some("lapsed"),
            Outcome::Expired => Some("expired"),
            _ => None,
        },
        Note::FalseExpiry(_) => Some("false_expiry"),
        _ => None,
    }
}

fn wall_less_mono(now: Mono) -> i64 {
    let wall = wall_clock(now)
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(0));
    wall.saturating_sub(i64::try_from(now.0).unwrap_or(0))
}
