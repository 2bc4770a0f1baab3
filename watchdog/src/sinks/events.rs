//! The event stream's objects: one JSON object a line.
//!
//! In: messages of the tick, changes of incidents. Out: lines, each with its newline. The same
//! lines go to every sink. Changes to them are additive: a field keeps its name and meaning.
//! Never: a lookup for a lease that is late (where its process runs is looked up when the lease is first seen).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use watchdog_model::causes::{Cause, Fact, Verdict};
use watchdog_model::leases::note::{
    FalseExpiry, GoneReason, LeaseId, Note, Outcome, Stage, Subject, Transition,
};
use watchdog_model::time::{MS, Mono};

use super::incidents::{Change, IncidentId, State};
use super::words;
use crate::collect::place::Place;
use crate::limits::Exceeded;
use crate::outbox::Lost;
use crate::priority::Granted;

/// Places kept; one a process that owns a lease.
const MAX_PLACES: usize = 4096;

/// What the daemon found when it started.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Started {
    /// Version of the daemon.
    pub version: String,
    /// Release of the running kernel.
    pub kernel: String,
    /// What listens to each signal.
    pub attached: Vec<Attached>,
    /// What was tried and refused.
    pub refused: Vec<Refused>,
    /// Where timeouts can be known from.
    pub timeout_sources: Vec<&'static str>,
    /// Whether the tick has real-time priority, and all that an alert passes through.
    pub real_time: bool,
    /// What they have.
    pub priority: Granted,
    /// Whether its memory is locked.
    pub memory_locked: bool,
    /// Where metrics and health are served.
    pub http: Option<SocketAddr>,
    /// What of the node is watched.
    pub scope: ScopeSaid,
    /// Which kernel programs are loaded, by the oldest kernel that they are made for.
    pub programs: &'static str,
}

/// What of the node is watched.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ScopeSaid {
    /// Only what runs under it.
    pub cgroup: String,
    /// Only this network namespace; null: all.
    pub netns: Option<String>,
}

/// A hook in use.
#[derive(Clone, Debug, Serialize)]
pub struct Attached {
    /// The signal.
    pub signal: String,
    /// The hook that gives it.
    pub hook: String,
}

/// A hook that could not be used.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// The signal.
    pub signal: String,
    /// The hook that was tried.
    pub hook: String,
    /// What the kernel said.
    pub why: String,
}

/// When that was on the wall clock. The offset between the clocks is taken now and not kept, so a
/// clock that was set is right from the next line on.
#[must_use]
pub fn wall_clock(at: Mono) -> SystemTime {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where wall time is taken"
    )]
    let wall = SystemTime::now();
    let now = crate::tick::clock();
    if at > now {
        wall + Duration::from_nanos(at.since(now))
    } else {
        wall.checked_sub(Duration::from_nanos(now.since(at)))
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

#[derive(Serialize)]
struct Head {
    ts: String,
    mono_us: u64,
    event: &'static str,
}

#[derive(Serialize)]
struct Name<'a> {
    lease: &'a str,
    id: String,
    role: &'static str,
}

#[derive(Serialize)]
struct Timeout {
    timeout_ms: Option<u64>,
    timeout_source: Option<&'static str>,
}

#[derive(Serialize)]
struct Ends<'a> {
    local: SocketAddr,
    peer: SocketAddr,
    pid: Option<u32>,
    comm: Option<String>,
    cgroup: Option<&'a str>,
    /// These four only where there is something to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    inner_pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
enum FactObject {
    ThreadState {
        side: &'static str,
        tid: u32,
        comm: String,
        state: &'static str,
        for_ms: u64,
    },
    Unanswered {
        for_ms: u64,
    },
    Unread {
        side: &'static str,
        for_ms: u64,
    },
    Silent {
        for_ms: u64,
    },
    Unacknowledged {
        for_ms: u64,
        retransmits: u32,
    },
    FlowClosed {
        how: &'static str,
        for_ms: u64,
    },
    ThreadWaits {
        side: &'static str,
        part: &'static str,
        tid: u32,
        comm: String,
        state: Option<&'static str>,
        at: String,
    },
    Device {
        side: &'static str,
        device: String,
        in_flight: u64,
        silent_ms: u64,
        oldest_ms: Option<u64>,
        committing_ms: Option<u64>,
    },
    CgroupFrozen {
        side: &'static str,
        cgroup: String,
    },
    CgroupThrottled {
        side: &'static str,
        cgroup: String,
        throttled_ms: u64,
        over_ms: u64,
    },
    CpuTime {
        side: &'static str,
        tid: u32,
        ran_ms: u64,
        waited_ms: u64,
        over_ms: u64,
    },
    RunsInstead {
        side: &'static str,
        tid: u32,
        comm: String,
        cgroup: String,
    },
    Memory {
        side: &'static str,
        major_faults: u64,
        refaults: u64,
        pressure_ms: u64,
        over_ms: u64,
    },
    WaitsForSocket {
        side: &'static str,
        peer: SocketAddr,
    },
    Tcp {
        unacked_segments: u32,
        unsent_bytes: u32,
        send_window_bytes: u32,
        rto_ms: u64,
    },
    NodePaused {
        for_ms: u64,
        steal_ms: u64,
    },
    RuledOut {
        causes: Vec<&'static str>,
    },
}

fn fact(fact: &Fact) -> FactObject {
    let to_ms = words::to_ms;
    match *fact {
        Fact::ThreadState {
            side,
            tid,
            comm,
            state,
            for_ns,
        } => FactObject::ThreadState {
            side: words::side(side),
            tid,
            comm: words::name(&comm),
            state: words::stall(state),
            for_ms: to_ms(for_ns),
        },
        Fact::Unanswered { for_ns } => FactObject::Unanswered {
            for_ms: to_ms(for_ns),
        },
        Fact::Unread { side, for_ns } => FactObject::Unread {
            side: words::side(side),
            for_ms: to_ms(for_ns),
        },
        Fact::Silent { for_ns } => FactObject::Silent {
            for_ms: to_ms(for_ns),
        },
        Fact::Unacknowledged {
            for_ns,
            retransmits,
        } => FactObject::Unacknowledged {
            for_ms: to_ms(for_ns),
            retransmits,
        },
        Fact::FlowClosed { how, for_ns } => FactObject::FlowClosed {
            how: words::close_how(how),
            for_ms: to_ms(for_ns),
        },
        _ => gathered(fact),
    }
}

/// The same for what is gathered when a lease is late.
fn gathered(fact: &Fact) -> FactObject {
    let to_ms = words::to_ms;
    let known = |span_ns: u64| (span_ns != 0).then(|| to_ms(span_ns));
    match *fact {
        Fact::ThreadWaits {
            side,
            part,
            tid,
            comm,
            doing,
            at,
        } => FactObject::ThreadWaits {
            side: words::side(side),
            part: words::part(part),
            tid,
            comm: words::name(&comm),
            state: words::doing(doing),
            at: words::text(&at),
        },
        Fact::Device {
            side,
            name,
            in_flight,
            silent_ns,
            oldest_ns,
            committing_ns,
        } => FactObject::Device {
            side: words::side(side),
            device: words::text(&name),
            in_flight,
            silent_ms: to_ms(silent_ns),
            oldest_ms: known(oldest_ns),
            committing_ms: known(committing_ns),
        },
        Fact::Frozen { side, cgroup } => FactObject::CgroupFrozen {
            side: words::side(side),
            cgroup: words::text(&cgroup),
        },
        Fact::Throttled {
            side,
            cgroup,
            throttled_ns,
            over_ns,
        } => FactObject::CgroupThrottled {
            side: words::side(side),
            cgroup: words::text(&cgroup),
            throttled_ms: to_ms(throttled_ns),
            over_ms: to_ms(over_ns),
        },
        Fact::CpuTime {
            side,
            tid,
            ran_ns,
            waited_ns,
            over_ns,
        } => FactObject::CpuTime {
            side: words::side(side),
            tid,
            ran_ms: to_ms(ran_ns),
            waited_ms: to_ms(waited_ns),
            over_ms: to_ms(over_ns),
        },
        Fact::RunsInstead {
            side,
            tid,
            comm,
            cgroup,
        } => FactObject::RunsInstead {
            side: words::side(side),
            tid,
            comm: words::name(&comm),
            cgroup: words::text(&cgroup),
        },
        Fact::Memory {
            side,
            major_faults,
            refaults,
            pressure_ns,
            over_ns,
        } => FactObject::Memory {
            side: words::side(side),
            major_faults,
            refaults,
            pressure_ms: to_ms(pressure_ns),
            over_ms: to_ms(over_ns),
        },
        Fact::WaitsForSocket { side, peer } => FactObject::WaitsForSocket {
            side: words::side(side),
            peer,
        },
        Fact::Tcp {
            unacked,
            unsent_bytes,
            send_window,
            rto_ns,
        } => FactObject::Tcp {
            unacked_segments: unacked,
            unsent_bytes,
            send_window_bytes: send_window,
            rto_ms: to_ms(rto_ns),
        },
        Fact::NodePaused { for_ns, steal_ns } => FactObject::NodePaused {
            for_ms: to_ms(for_ns),
            steal_ms: to_ms(steal_ns),
        },
        Fact::RuledOut { causes } => FactObject::RuledOut {
            causes: words::cause_words(causes),
        },
        // Told by `fact`, before it comes here.
        Fact::ThreadState { .. }
        | Fact::Unanswered { .. }
        | Fact::Unread { .. }
        | Fact::Silent { .. }
        | Fact::Unacknowledged { .. }
        | Fact::FlowClosed { .. } => FactObject::RuledOut { causes: Vec::new() },
    }
}

fn facts(verdict: &Verdict) -> Vec<FactObject> {
    verdict.facts().map(fact).collect()
}

#[derive(Serialize)]
struct StartedEvent<'a> {
    #[serde(flatten)]
    head: Head,
    #[serde(flatten)]
    started: &'a Started,
}

#[derive(Serialize)]
struct SeenEvent<'a> {
    #[serde(flatten)]
    head: Head,
    #[serde(flatten)]
    name: Name<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    was: Option<String>,
    #[serde(flatten)]
    timeout: Timeout,
    #[serde(flatten)]
    ends: Ends<'a>,
}

#[derive(Serialize)]
struct TransitionEvent<'a> {
    #[serde(flatten)]
    head: Head,
    #[serde(flatten)]
    name: Name<'a>,
    from: &'static str,
    to: &'static str,
    condition: Option<&'static str>,
    cause: Option<&'static str>,
    incident: Option<String>,
    summary: String,
    evidence: Vec<FactObject>,
    #[serde(flatten)]
    timeout: Timeout,
    remaining_ms: Option<i64>,
    silent_ms: Option<u64>,
    #[serde(flatten)]
    ends: Ends<'a>,
}

#[derive(Serialize)]
struct GoneEvent<'a> {
    #[serde(flatten)]
    head: Head,
    #[serde(flatten)]
    name: Name<'a>,
    reason: &'static str,
    #[serde(flatten)]
    ends: Ends<'a>,
}

#[derive(Serialize)]
struct FalseExpiryEvent<'a> {
    #[serde(flatten)]
    head: Head,
    #[serde(flatten)]
    name: Name<'a>,
    arrived_mono_us: u64,
    read_mono_us: Option<u64>,
    expired_mono_us: u64,
    cause: &'static str,
    incident: Option<String>,
    summary: String,
    evidence: Vec<FactObject>,
    #[serde(flatten)]
    timeout: Timeout,
    #[serde(flatten)]
    ends: Ends<'a>,
}

#[derive(Serialize)]
struct IncidentEvent {
    #[serde(flatten)]
    head: Head,
    state: &'static str,
    /// The stage that the alert is for; alerts only.
    #[serde(skip_serializing_if = "Option::is_none")]
    on: Option<&'static str>,
    incident: String,
    leases: usize,
    worst: String,
    stage: &'static str,
    cause: &'static str,
    thing: String,
    expired: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    joined: Option<String>,
    summary: String,
}

/// What an alert says beside its incident.
#[derive(Clone, Copy, Debug)]
pub struct AlertFields<'a> {
    /// What became of it.
    pub state: super::alerts::message::State,
    /// The stage that it is for.
    pub on: Stage,
    /// This node.
    pub node: &'a str,
    /// What tells it from others over incidents that come again.
    pub key: &'a str,
    /// Role of the worst lease.
    pub role: watchdog_model::leases::observation::Role,
    /// How long that lease has, ns; None: not known, or over.
    pub remaining_ns: Option<i64>,
}

#[derive(Serialize)]
struct AlertEvent<'a> {
    #[serde(flatten)]
    incident: IncidentEvent,
    node: &'a str,
    key: &'a str,
    lease: &'a str,
    role: &'static str,
    remaining_ms: Option<i64>,
}

#[derive(Serialize)]
struct MuteEvent<'a> {
    #[serde(flatten)]
    head: Head,
    state: &'static str,
    lease: &'a str,
    until: Option<String>,
}

#[derive(Serialize)]
struct StalledEvent {
    #[serde(flatten)]
    head: Head,
    for_ms: u64,
}

#[derive(Serialize)]
struct LimitExceededEvent {
    #[serde(flatten)]
    head: Head,
    what: &'static str,
    summary: String,
}

#[derive(Serialize)]
struct DroppedEvent {
    #[serde(flatten)]
    head: Head,
    what: &'static str,
    count: u64,
    since_mono_us: u64,
}

/// Makes lines.
pub struct Renderer {
    entries: Vec<String>,
    places: HashMap<u32, Place>,
    place_of: Box<dyn FnMut(u32) -> Option<Place> + Send>,
    wall: fn(Mono) -> SystemTime,
}

impl Renderer {
    /// Lines about the leases of these config entries.
    #[must_use]
    pub fn new(entries: Vec<String>) -> Self {
        Self {
            entries,
            places: HashMap::new(),
            place_of: Box::new(|pid| Some(Place::of(pid))),
            wall: wall_clock,
        }
    }

    /// Has others look up where processes run, and say None where they cannot yet.
    #[must_use]
    pub fn looking_up(
        mut self,
        place_of: impl FnMut(u32) -> Option<Place> + Send + 'static,
    ) -> Self {
        self.place_of = Box::new(place_of);
        self
    }

    /// The same with a world that a test can foresee.
    #[cfg(test)]
    pub fn in_test() -> Self {
        Self {
            entries: vec!["zookeeper".to_owned()],
            places: HashMap::new(),
            place_of: Box::new(|pid| {
                Some(Place {
                    cgroup: Some("/system.slice/meta.service".to_owned()),
                    inner_pid: (pid == 7).then_some(1),
                    unit: (pid == 7).then(|| "meta.service".to_owned()),
                    container: (pid == 7).then(|| "0123".to_owned()),
                    pod: (pid == 7).then(|| "prod/meta-0".to_owned()),
                })
            }),
            wall: |at| {
                // 2026-11-24T10:00:00Z
                SystemTime::UNIX_EPOCH
                    + Duration::new(1_795_514_400, 0)
                    + Duration::from_nanos(at.0)
            },
        }
    }

    /// Names of the config entries, in order.
    #[must_use]
    pub fn entries(&self) -> &[String] {
        &self.entries
    }

    /// Takes other config entries on.
    pub fn set_entries(&mut self, entries: Vec<String>) {
        self.entries = entries;
    }

    fn head(&self, at: Mono, event: &'static str) -> Head {
        Head {
            ts: humantime::format_rfc3339_micros((self.wall)(at)).to_string(),
            mono_us: at.0 / 1000,
            event,
        }
    }

    fn name(&self, subject: &Subject) -> Name<'_> {
        Name {
            lease: words::entry_name(&self.entries, subject.entry),
            id: words::lease_id(&subject.id),
            role: words::role(subject.role),
        }
    }

    fn ends(&self, subject: &Subject) -> Ends<'_> {
        let pid = subject.owner.map(|owner| owner.pid);
        let place = pid.and_then(|pid| self.places.get(&pid));
        let said = |of: fn(&Place) -> &Option<String>| place.and_then(|place| of(place).as_deref());
        Ends {
            local: subject.endpoints.local,
            peer: subject.endpoints.peer,
            pid,
            comm: subject.owner.map(|owner| words::name(&owner.comm)),
            cgroup: said(|place| &place.cgroup),
            inner_pid: place.and_then(|place| place.inner_pid),
            unit: said(|place| &place.unit),
            container: said(|place| &place.container),
            pod: said(|place| &place.pod),
        }
    }

    /// Looks up where a process runs: anew when a lease of it is first seen (process ids are used
    /// again), else only when it is not known.
    fn learn_place(&mut self, subject: &Subject, anew: bool) {
        let Some(owner) = subject.owner else { return };
        if !anew && self.places.contains_key(&owner.pid) {
            return;
        }
        if self.places.len() >= MAX_PLACES {
            self.places.clear();
        }
        match (self.place_of)(owner.pid) {
            Some(place) => self.places.insert(owner.pid, place),
            None => self.places.remove(&owner.pid),
        };
    }

    /// `started`.
    #[must_use]
    pub fn started(&self, at: Mono, started: &Started) -> String {
        line(&StartedEvent {
            head: self.head(at, "started"),
            started,
        })
    }

    /// `lease_seen`, `transition`, `lease_gone` or `false_expiry`, of a lease that is alone in its
    /// incident.
    pub fn note(&mut self, at: Mono, note: &Note, incident: Option<IncidentId>) -> String {
        self.note_among(at, note, incident, 1)
    }

    /// The same of a lease that is one of `leases` in its incident.
    pub fn note_among(
        &mut self,
        at: Mono,
        note: &Note,
        incident: Option<IncidentId>,
        leases: usize,
    ) -> String {
        match note {
            Note::Seen { subject, was } => {
                self.learn_place(subject, true);
                self.seen(at, subject, was.as_ref())
            }
            Note::Transition(transition) => {
                // An owner may become known only after the lease was seen.
                self.learn_place(&transition.subject, false);
                self.transition(at, transition, incident, leases)
            }
            Note::Gone { subject, reason } => self.gone(at, subject, *reason),
            Note::FalseExpiry(expiry) => self.false_expiry(at, expiry, incident),
        }
    }

    fn seen(&self, at: Mono, subject: &Subject, was: Option<&LeaseId>) -> String {
        line(&SeenEvent {
            head: self.head(at, "lease_seen"),
            name: self.name(subject),
            was: was.map(words::lease_id),
            timeout: timeout(subject),
            ends: self.ends(subject),
        })
    }

    fn transition(
        &self,
        at: Mono,
        transition: &Transition,
        incident: Option<IncidentId>,
        leases: usize,
    ) -> String {
        let subject = &transition.subject;
        let cause = transition.verdict.cause;
        let well = matches!(
            transition.to,
            Outcome::Renewed | Outcome::Stage(Stage::Healthy)
        );
        line(&TransitionEvent {
            head: self.head(at, "transition"),
            name: self.name(subject),
            from: words::stage(transition.from),
            to: words::outcome(transition.to),
            condition: words::condition(transition.condition),
            // Nothing is late, so nothing is unknown.
            cause: (!(well && cause == Cause::Unknown)).then(|| words::cause(cause)),
            incident: incident.map(|id| id.0.to_string()),
            summary: if well {
                words::summary(&self.entries, transition, at)
            } else {
                words::summary(&self.entries, transition, at) + &words::others(leases)
            },
            evidence: facts(&transition.verdict),
            timeout: timeout(subject),
            // Towards minus infinity: nobody is promised a millisecond that is not there.
            remaining_ms: transition
                .remaining_ns
                .map(|left| left.div_euclid(MS.cast_signed())),
            silent_ms: transition.silent_ns.map(words::to_ms),
            ends: self.ends(subject),
        })
    }

    fn gone(&self, at: Mono, subject: &Subject, reason: GoneReason) -> String {
        line(&GoneEvent {
            head: self.head(at, "lease_gone"),
            name: self.name(subject),
            reason: words::gone_reason(reason),
            ends: self.ends(subject),
        })
    }

    fn false_expiry(&self, at: Mono, expiry: &FalseExpiry, incident: Option<IncidentId>) -> String {
        let waited = expiry.expired_at.since(expiry.arrived_at) as f64 / 1e9;
        let read = match expiry.read_at {
            Some(_) => "was read too late",
            None => "was never read",
        };
        line(&FalseExpiryEvent {
            head: self.head(at, "false_expiry"),
            name: self.name(&expiry.subject),
            arrived_mono_us: expiry.arrived_at.0 / 1000,
            read_mono_us: expiry.read_at.map(|read| read.0 / 1000),
            expired_mono_us: expiry.expired_at.0 / 1000,
            cause: words::cause(expiry.verdict.cause),
            incident: incident.map(|id| id.0.to_string()),
            summary: format!(
                "{}: expired by its server although the renewal had arrived {waited:.1} s before \
                 and {read}; {}",
                words::subject_called(&self.entries, &expiry.subject),
                words::cause_both(expiry.verdict.cause).1
            ),
            evidence: facts(&expiry.verdict),
            timeout: timeout(&expiry.subject),
            ends: self.ends(&expiry.subject),
        })
    }

    /// `incident`.
    #[must_use]
    pub fn incident(&self, at: Mono, change: &Change, state: State) -> String {
        let closed = state == State::Closed;
        line(&self.change(
            self.head(at, "incident"),
            words::incident_state(state),
            None,
            change,
            closed,
        ))
    }

    /// `alert`: an incident has reached, or left, the stage of an alert, or has grown.
    #[must_use]
    pub fn alert(&self, at: Mono, change: &Change, alert: AlertFields<'_>) -> String {
        let over = alert.state == super::alerts::message::State::Resolved;
        line(&AlertEvent {
            incident: self.change(
                self.head(at, "alert"),
                alert.state.word(),
                Some(words::stage(alert.on)),
                change,
                over,
            ),
            node: alert.node,
            key: alert.key,
            lease: words::entry_name(&self.entries, change.entry),
            role: words::role(alert.role),
            remaining_ms: alert
                .remaining_ns
                .map(|left| left.div_euclid(MS.cast_signed())),
        })
    }

    /// `mute`: leases of an entry are muted until then, or no more.
    #[must_use]
    pub fn mute(&self, at: Mono, lease: &str, state: &'static str, until: Option<Mono>) -> String {
        line(&MuteEvent {
            head: self.head(at, "mute"),
            state,
            lease,
            until: until
                .map(|until| humantime::format_rfc3339_millis((self.wall)(until)).to_string()),
        })
    }

    /// When that was on the wall clock.
    #[must_use]
    pub fn wall(&self, at: Mono) -> SystemTime {
        (self.wall)(at)
    }

    fn change(
        &self,
        head: Head,
        state: &'static str,
        on: Option<&'static str>,
        change: &Change,
        over: bool,
    ) -> IncidentEvent {
        IncidentEvent {
            head,
            state,
            on,
            incident: change.id.0.to_string(),
            leases: change.leases,
            worst: words::lease_id(&change.worst),
            stage: words::stage(change.stage),
            cause: words::cause(change.cause),
            thing: words::thing(change, &self.entries),
            expired: change.expired,
            joined: change.joined.map(|IncidentId(whole)| whole.to_string()),
            summary: words::incident_summary(&self.entries, change, over),
        }
    }

    /// `stalled`.
    #[must_use]
    pub fn stalled(&self, at: Mono, from: Mono, to: Mono) -> String {
        line(&StalledEvent {
            head: self.head(at, "stalled"),
            for_ms: words::to_ms(to.since(from)),
        })
    }

    /// `limit_exceeded`: the daemon's last word but for the leases'.
    #[must_use]
    pub fn limit_exceeded(&self, at: Mono, exceeded: &Exceeded) -> String {
        line(&LimitExceededEvent {
            head: self.head(at, "limit_exceeded"),
            what: exceeded.what(),
            summary: format!("own cost is beyond its limit, leaving: {exceeded}"),
        })
    }

    /// `dropped`.
    #[must_use]
    pub fn dropped(&self, at: Mono, what: Lost, count: u64, since: Mono) -> String {
        line(&DroppedEvent {
            head: self.head(at, "dropped"),
            what: what.as_str(),
            count,
            since_mono_us: since.0 / 1000,
        })
    }
}

fn timeout(subject: &Subject) -> Timeout {
    Timeout {
        timeout_ms: subject.timeout_ns.map(words::to_ms),
        timeout_source: subject
            .timeout_ns
            .map(|_| words::timeout_source(subject.timeout_source)),
    }
}

fn line(object: &impl Serialize) -> String {
    // These objects hold numbers and text under keys that are text: nothing JSON could refuse.
    let mut line = serde_json::to_string(object).unwrap_or_default();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests;
