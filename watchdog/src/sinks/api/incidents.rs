//! `/api/v1/incidents`: open ones and the newest closed ones.

use serde::Serialize;
use watchdog_model::time::Mono;

use super::ledger::Record;
use super::reply::{Asked, Reply, json, refuse};
use super::{MAX_PAGE, PAGE, Sources};
use crate::sinks::events::wall_clock;
use crate::sinks::words;
use hyper::StatusCode;

/// An incident as the API tells it.
#[derive(Debug, Serialize)]
pub struct IncidentObject {
    incident: String,
    state: &'static str,
    opened_ts: String,
    opened_mono_us: u64,
    changed_ts: String,
    closed_ts: Option<String>,
    lasted_ms: u64,
    stage: &'static str,
    cause: &'static str,
    thing: String,
    leases: usize,
    expired: usize,
    worst: String,
    summary: String,
}

fn stamp(at: Mono) -> String {
    humantime::format_rfc3339_micros(wall_clock(at)).to_string()
}

/// As the API tells it.
#[must_use]
pub fn object(record: &Record, entries: &[String], now: Mono) -> IncidentObject {
    let change = &record.change;
    IncidentObject {
        incident: change.id.0.to_string(),
        state: if record.closed.is_some() {
            "closed"
        } else {
            "open"
        },
        opened_ts: stamp(record.opened),
        opened_mono_us: record.opened.0 / 1000,
        changed_ts: stamp(record.changed),
        closed_ts: record.closed.map(stamp),
        lasted_ms: words::to_ms(record.closed.unwrap_or(now).since(record.opened)),
        stage: words::stage(change.stage),
        cause: words::cause(change.cause),
        thing: words::thing(change, entries),
        leases: change.leases,
        expired: change.expired,
        worst: words::lease_id(&change.worst),
        summary: words::incident_summary(entries, change, record.closed.is_some()),
    }
}

#[derive(Serialize)]
struct Page {
    mono_us: u64,
    total: usize,
    open: usize,
    incidents: Vec<IncidentObject>,
    next: Option<u64>,
}

/// `GET /api/v1/incidents`: newest first.
#[expect(clippy::result_large_err, reason = "an error is an answer, made once")]
pub fn list(asked: &Asked, sources: &Sources) -> Result<Reply, Reply> {
    let given = asked.parameters(&["before", "limit", "state"])?;
    let limit = given.number("limit", 1, MAX_PAGE)?.unwrap_or(PAGE);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let before = given.number("before", 0, u64::MAX)?;
    let open = given.word("state", &[("open", true), ("closed", false)])?;
    let entries = sources.ledger.entries();
    let now = (sources.clock)();
    let mut records = sources.ledger.incidents();
    let open_now = records.iter().filter(|one| one.closed.is_none()).count();
    records.retain(|record| open.is_none_or(|open| record.closed.is_none() == open));
    let total = records.len();
    records.retain(|record| before.is_none_or(|before| record.change.id.0 < before));
    let rest = records.len() > limit;
    records.truncate(limit);
    Ok(json(&Page {
        mono_us: now.0 / 1000,
        total,
        open: open_now,
        next: records
            .last()
            .filter(|_| rest)
            .map(|record| record.change.id.0),
        incidents: records
            .iter()
            .map(|record| object(record, &entries, now))
            .collect(),
    }))
}

/// `GET /api/v1/incidents/NUMBER`.
pub fn one(rest: &str, sources: &Sources) -> Reply {
    let records = sources.ledger.incidents();
    match records
        .iter()
        .find(|record| record.change.id.0.to_string() == rest)
    {
        Some(record) => json(&object(
            record,
            &sources.ledger.entries(),
            (sources.clock)(),
        )),
        None => refuse(
            StatusCode::NOT_FOUND,
            "no such incident, or one closed long ago; /api/v1/incidents lists those that are kept",
        ),
    }
}
