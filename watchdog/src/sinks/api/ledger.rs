//! What the API remembers of what was said: the newest event lines, incidents, and why each late
//! lease is late.
//!
//! In: what [`Dispatch`](super::super::dispatch::Dispatch) says, in order. Out: copies, to whoever
//! asks, and a wake-up for whoever waits. Bounded in all directions. Never: a wait at the
//! dispatcher's end beyond the few microseconds that a reader copies for.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use watchdog_model::causes::Cause;
use watchdog_model::leases::note::{Condition, LeaseHandle, Note, Outcome, Stage};
use watchdog_model::time::Mono;

use super::super::incidents::{Change, IncidentId};

/// Bytes of event lines that are kept: the last hour of a node with a busy day, and no more than
/// the daemon can spare.
const MAX_EVENT_BYTES: usize = 4 << 20;
/// Closed incidents that are kept.
const MAX_CLOSED: usize = 256;
/// Leases of which the newest transition is kept; the same bound as the incidents' own.
const MAX_LATE: usize = 65_536;

/// An event line and its number.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Counted from 1 since the daemon started.
    pub seq: u64,
    /// When it was said.
    pub at: Mono,
    /// The line, newline included.
    pub line: Arc<str>,
}

/// The newest that was said of a lease.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// When.
    pub at: Mono,
    /// The stage that it has since.
    pub stage: Stage,
    /// Where the renewal stands since.
    pub condition: Condition,
    /// Why.
    pub cause: Cause,
    /// The transition's line; None: it is well again.
    pub line: Option<Arc<str>>,
    /// The incident that it is in.
    pub incident: Option<IncidentId>,
}

/// An incident over its whole life.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    /// When it was opened.
    pub opened: Mono,
    /// When it was last said to change.
    pub changed: Mono,
    /// When it was closed; None: it is open.
    pub closed: Option<Mono>,
    /// As last said.
    pub change: Change,
}

#[derive(Default)]
struct Kept {
    entries: Vec<String>,
    events: VecDeque<Event>,
    event_bytes: usize,
    said: HashMap<LeaseHandle, Said>,
    incidents: BTreeMap<IncidentId, Record>,
    closed: VecDeque<IncidentId>,
}

struct Shared {
    kept: Mutex<Kept>,
    newest: watch::Sender<u64>,
}

/// What was said.
#[derive(Clone)]
pub struct Ledger(Arc<Shared>);

impl Default for Ledger {
    fn default() -> Self {
        Self(Arc::new(Shared {
            kept: Mutex::default(),
            newest: watch::channel(0).0,
        }))
    }
}

impl Ledger {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Whoever died in here left whole values.
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The config entries' names from now on.
    pub fn set_entries(&self, entries: &[String]) {
        self.kept().entries = entries.to_vec();
    }

    /// Names of the config entries.
    #[must_use]
    pub fn entries(&self) -> Vec<String> {
        self.kept().entries.clone()
    }

    /// A line was written.
    pub fn event(&self, at: Mono, line: &Arc<str>) {
        let mut kept = self.kept();
        let seq = *self.0.newest.borrow() + 1;
        kept.event_bytes += line.len();
        kept.events.push_back(Event {
            seq,
            at,
            line: Arc::clone(line),
        });
        while kept.event_bytes > MAX_EVENT_BYTES
            && let Some(oldest) = kept.events.pop_front()
        {
            kept.event_bytes -= oldest.line.len();
        }
        self.0.newest.send_replace(seq);
    }

    /// A note was told by this line.
    pub fn note(&self, at: Mono, note: &Note, line: &Arc<str>, incident: Option<IncidentId>) {
        let mut kept = self.kept();
        match note {
            Note::Transition(transition) => {
                let handle = transition.subject.handle;
                let stage = match transition.to {
                    Outcome::Stage(stage) => stage,
                    Outcome::Expired => Stage::Lapsed,
                    Outcome::Renewed => Stage::Healthy,
                };
                let well = stage == Stage::Healthy;
                let said = Said {
                    at,
                    stage,
                    condition: transition.condition,
                    cause: transition.verdict.cause,
                    line: (!well).then(|| Arc::clone(line)),
                    incident: incident.filter(|_| !well),
                };
                if kept.said.len() < MAX_LATE || kept.said.contains_key(&handle) {
                    kept.said.insert(handle, said);
                }
            }
            Note::Gone { subject, .. } => {
                kept.said.remove(&subject.handle);
            }
            Note::Seen { .. } | Note::FalseExpiry(_) => {}
        }
    }

    /// An incident stands like this now.
    pub fn incident(&self, at: Mono, change: &Change, closed: bool) {
        let mut kept = self.kept();
        let record = kept.incidents.entry(change.id).or_insert(Record {
            opened: at,
            changed: at,
            closed: None,
            change: *change,
        });
        record.changed = at;
        record.change = *change;
        if closed && record.closed.is_none() {
            record.closed = Some(at);
            kept.closed.push_back(change.id);
            if kept.closed.len() > MAX_CLOSED
                && let Some(oldest) = kept.closed.pop_front()
            {
                kept.incidents.remove(&oldest);
            }
        }
    }

    /// Number of the newest event, to wait for the next.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.newest.subscribe()
    }

    /// Events after this number, oldest first, `limit` at most; and the number of the oldest that
    /// is kept.
    #[must_use]
    pub fn events_after(&self, after: u64, limit: usize) -> (Vec<Event>, u64) {
        let kept = self.kept();
        let oldest = kept.events.front().map_or(1, |event| event.seq);
        let skip = usize::try_from((after + 1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        let events = kept.events.iter().skip(skip).take(limit).cloned().collect();
        (events, oldest)
    }

    /// Looks at what was last said of all leases of which something was. Meanwhile nothing new is
    /// taken in.
    pub fn with_said<T>(&self, look: impl FnOnce(&HashMap<LeaseHandle, Said>) -> T) -> T {
        look(&self.kept().said)
    }

    /// Incidents, newest first.
    #[must_use]
    pub fn incidents(&self) -> Vec<Record> {
        self.kept().incidents.values().rev().copied().collect()
    }
}
