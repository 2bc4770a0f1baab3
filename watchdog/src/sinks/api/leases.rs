//! `/api/v1/leases`: all leases as they stand now, and one with its evidence.
//!
//! In: the newest sheet, and what was said since. Out: JSON. What is left of a lease is counted
//! at the moment of the answer.

use std::cmp::Ordering;
use std::net::SocketAddr;

use hyper::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;
use watchdog_model::causes::Cause;
use watchdog_model::leases::note::{LeaseHandle, Stage};
use watchdog_model::leases::observation::Role;
use watchdog_model::time::{MS, Mono};

use super::ledger::Said;
use super::overview::Counts;
use super::reply::{Asked, Reply, json, refuse};
use super::{MAX_PAGE, PAGE, Sources, sheet_age_ok};
use crate::live::LiveLease;
use crate::sinks::words;

/// Words for `stage=`.
pub const STAGES: &[(&str, Stage)] = &[
    ("healthy", Stage::Healthy),
    ("late", Stage::Late),
    ("at_risk", Stage::AtRisk),
    ("jeopardy", Stage::Jeopardy),
    ("lapsed", Stage::Lapsed),
];

/// Words for `role=`.
pub const ROLES: &[(&str, Role)] = &[("holder", Role::Holder), ("grantor", Role::Grantor)];

/// A lease as the API tells it.
#[derive(Debug, Serialize)]
pub struct LeaseObject {
    /// Names it while the daemon runs, whatever it is called.
    handle: u64,
    lease: String,
    id: String,
    role: &'static str,
    pub(super) stage: &'static str,
    condition: Option<&'static str>,
    cause: Option<&'static str>,
    incident: Option<String>,
    timeout_ms: Option<u64>,
    timeout_source: Option<&'static str>,
    pub(super) remaining_ms: Option<i64>,
    silent_ms: Option<u64>,
    cadence_ms: Option<u64>,
    /// Since when the condition holds.
    since_ms: Option<u64>,
    connected: bool,
    synchronised: bool,
    local: SocketAddr,
    peer: SocketAddr,
    pid: Option<u32>,
    comm: Option<String>,
    /// The newest `transition` event, while it is late or worse.
    transition: Option<Box<RawValue>>,
}

/// A lease with what was said of it since the sheet was written.
pub struct Standing {
    /// As the sheet has it.
    pub lease: LiveLease,
    /// Its stage now.
    pub stage: Stage,
    /// The newest that was said of it.
    pub said: Option<Said>,
}

impl Standing {
    /// Puts the two together: the newer of them tells the stage.
    #[must_use]
    pub fn of(mut lease: LiveLease, sheet_at: Mono, said: Option<Said>) -> Self {
        lease.stage = effective_stage(&lease, sheet_at, said.as_ref());
        if let Some(said) = said.as_ref().filter(|said| said.at >= sheet_at) {
            lease.condition = said.condition;
            lease.cause = said.cause;
        }
        Self {
            stage: lease.stage,
            lease,
            said,
        }
    }

    /// Share of the timeout that is left, in millionths; counted from the newest renewal where the
    /// timeout is only inferred.
    fn left(&self, now: Mono) -> i64 {
        let lease = &self.lease;
        let Some(timeout) = lease.subject.timeout_ns.filter(|timeout| *timeout > 0) else {
            return i64::MAX;
        };
        let remaining = match (lease.floor, lease.answered_at) {
            (Some(floor), _) => signed_span(floor, now),
            (None, Some(answered)) => signed_span(answered.plus(timeout), now),
            (None, None) => return i64::MAX,
        };
        let share = i128::from(remaining) * 1_000_000 / i128::from(timeout);
        i64::try_from(share).unwrap_or(i64::MAX)
    }

    /// Worse first, then what has less left.
    fn risk(&self, other: &Self, now: Mono) -> Ordering {
        other
            .stage
            .cmp(&self.stage)
            .then_with(|| self.left(now).cmp(&other.left(now)))
            .then_with(|| self.lease.subject.handle.cmp(&other.lease.subject.handle))
    }

    /// As the API tells it.
    #[must_use]
    pub fn object(&self, entries: &[String], now: Mono) -> LeaseObject {
        let lease = &self.lease;
        let subject = &lease.subject;
        let well = self.stage == Stage::Healthy;
        let said = self.said.as_ref().filter(|_| !well);
        LeaseObject {
            handle: subject.handle.0,
            lease: words::entry_name(entries, subject.entry).to_owned(),
            id: words::lease_id(&subject.id),
            role: words::role(subject.role),
            stage: words::stage(self.stage),
            condition: (!well).then(|| words::condition(lease.condition)).flatten(),
            cause: (!well).then(|| words::cause(lease.cause)),
            incident: said
                .and_then(|said| said.incident)
                .map(|incident| incident.0.to_string()),
            timeout_ms: subject.timeout_ns.map(words::to_ms),
            timeout_source: subject
                .timeout_ns
                .map(|_| words::timeout_source(subject.timeout_source)),
            remaining_ms: self.remaining_ms(now),
            silent_ms: lease.answered_at.map(|at| words::to_ms(now.since(at))),
            cadence_ms: lease.cadence_ns.map(words::to_ms),
            since_ms: (!well).then(|| words::to_ms(now.since(lease.since))),
            connected: lease.connected,
            synchronised: lease.synchronised,
            local: subject.endpoints.local,
            peer: subject.endpoints.peer,
            pid: subject.owner.map(|owner| owner.pid),
            comm: subject.owner.map(|owner| words::name(&owner.comm)),
            transition: said.and_then(|said| said.line.as_deref()).and_then(raw),
        }
    }

    /// What is left, ms, towards minus infinity: nobody is promised a millisecond that is not
    /// there.
    #[must_use]
    pub fn remaining_ms(&self, now: Mono) -> Option<i64> {
        let floor = self.lease.floor?;
        Some(signed_span(floor, now).div_euclid(MS.cast_signed()))
    }
}

/// to − from, ns.
fn signed_span(to: Mono, from: Mono) -> i64 {
    if to >= from {
        i64::try_from(to.since(from)).unwrap_or(i64::MAX)
    } else {
        i64::try_from(from.since(to)).map_or(i64::MIN, |span| -span)
    }
}

/// A line as a value inside another object.
pub fn raw(line: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(line.trim_end().to_owned()).ok()
}

/// The stage that a lease is in: what was said last, on the sheet or after it.
pub fn effective_stage(lease: &LiveLease, sheet_at: Mono, said: Option<&Said>) -> Stage {
    match said {
        Some(said) if said.at >= sheet_at => said.stage,
        _ => lease.stage,
    }
}

/// All leases that pass, as they stand.
pub fn standings(sources: &Sources, pass: impl Fn(&LiveLease) -> bool) -> Vec<Standing> {
    sources.ledger.with_said(|said| {
        sources.board.read(|sheet| {
            sheet
                .leases
                .iter()
                .filter(|lease| pass(lease))
                .map(|lease| {
                    let said = said.get(&lease.subject.handle).cloned();
                    Standing::of(*lease, sheet.at, said)
                })
                .collect()
        })
    })
}

#[derive(Serialize)]
struct Page {
    mono_us: u64,
    /// How old the sheet is; what is left is counted now all the same.
    age_ms: u64,
    total: usize,
    stages: Counts,
    leases: Vec<LeaseObject>,
    next: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Handle,
    Risk,
    Left,
    Process,
    Silent,
}

const SORTS: &[(&str, Sort)] = &[
    ("handle", Sort::Handle),
    ("risk", Sort::Risk),
    ("left", Sort::Left),
    ("process", Sort::Process),
    ("silent", Sort::Silent),
];

const PARAMETERS: &[&str] = &[
    "after", "limit", "offset", "pid", "q", "role", "sort", "stage",
];

/// `GET /api/v1/leases`.
#[expect(clippy::result_large_err, reason = "an error is an answer, made once")]
pub fn list(asked: &Asked, sources: &Sources) -> Result<Reply, Reply> {
    let given = asked.parameters(PARAMETERS)?;
    let limit = given.number("limit", 1, MAX_PAGE)?.unwrap_or(PAGE);
    let after = given.number("after", 0, u64::MAX)?;
    let offset = given.number("offset", 0, u64::MAX)?;
    let pid = given.number("pid", 1, u64::from(u32::MAX))?;
    let role = given.word("role", ROLES)?;
    let stage = given.word("stage", STAGES)?;
    let sort = given.word("sort", SORTS)?.unwrap_or(Sort::Handle);
    let (limit, offset) = (
        usize::try_from(limit).unwrap_or(usize::MAX),
        usize::try_from(offset.unwrap_or(0)).unwrap_or(usize::MAX),
    );
    let entries = sources.ledger.entries();
    let wanted = given.text("q").map(str::to_lowercase);
    let mut leases = standings(sources, |lease| {
        let owner = lease.subject.owner;
        pid.is_none_or(|pid| owner.is_some_and(|owner| u64::from(owner.pid) == pid))
            && role.is_none_or(|role| lease.subject.role == role)
            && wanted
                .as_deref()
                .is_none_or(|wanted| mentions(lease, &entries, wanted))
    });
    leases.retain(|lease| stage.is_none_or(|stage| lease.stage >= stage));
    let mut stages = Counts::default();
    for lease in &leases {
        stages.add(lease.stage);
    }
    let total = leases.len();
    let now = (sources.clock)();
    match sort {
        Sort::Handle => {
            leases.sort_by_key(|lease| lease.lease.subject.handle);
            if let Some(after) = after {
                leases.retain(|lease| lease.lease.subject.handle.0 > after);
            }
        }
        Sort::Risk => leases.sort_by(|one, other| one.risk(other, now)),
        // Stable sorts over the risk's order: what is alike stands worst first.
        Sort::Left => {
            leases.sort_by(|one, other| one.risk(other, now));
            leases.sort_by_key(|lease| lease.lease.floor.unwrap_or(Mono(u64::MAX)));
        }
        Sort::Process => {
            leases.sort_by(|one, other| one.risk(other, now));
            leases.sort_by_key(|lease| {
                let owner = lease.lease.subject.owner;
                owner.map_or(([u8::MAX; 16], 0), |owner| (owner.comm, owner.pid))
            });
        }
        Sort::Silent => {
            leases.sort_by(|one, other| one.risk(other, now));
            leases.sort_by_key(|lease| lease.lease.answered_at.unwrap_or(Mono(0)));
        }
    }
    let rest = leases.len().saturating_sub(offset) > limit;
    let page: Vec<Standing> = leases.into_iter().skip(offset).take(limit).collect();
    let next = page
        .last()
        .filter(|_| rest && sort == Sort::Handle)
        .map(|lease| lease.lease.subject.handle.0);
    Ok(json(&Page {
        mono_us: now.0 / 1000,
        age_ms: sheet_age_ok(sources),
        total,
        stages,
        leases: page
            .iter()
            .map(|lease| lease.object(&entries, now))
            .collect(),
        next,
    }))
}

/// Whether any of what is shown of a lease has the word in it.
fn mentions(lease: &LiveLease, entries: &[String], wanted: &str) -> bool {
    let subject = &lease.subject;
    let has = |text: &str| text.to_lowercase().contains(wanted);
    has(words::entry_name(entries, subject.entry))
        || has(&words::lease_id(&subject.id))
        || has(&subject.endpoints.local.to_string())
        || has(&subject.endpoints.peer.to_string())
        || has(words::role(subject.role))
        || subject
            .owner
            .is_some_and(|owner| has(&words::name(&owner.comm)) || owner.pid.to_string() == wanted)
        || (lease.cause != Cause::Unknown && has(words::cause(lease.cause)))
}

/// `GET /api/v1/leases/HANDLE`.
pub fn one(rest: &str, sources: &Sources) -> Reply {
    let found = rest.parse().ok().map(LeaseHandle).and_then(|handle| {
        standings(sources, |lease| lease.subject.handle == handle)
            .into_iter()
            .next()
    });
    match found {
        Some(lease) => json(&lease.object(&sources.ledger.entries(), (sources.clock)())),
        None => refuse(
            StatusCode::NOT_FOUND,
            "no such lease; /api/v1/leases lists all with their handles",
        ),
    }
}
