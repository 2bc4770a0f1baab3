//! `/api/v1/events`: the newest event lines, each with its number.

use serde::Serialize;
use serde_json::value::RawValue;

use super::leases::raw;
use super::ledger::Event;
use super::reply::{Asked, Reply, json};
use super::{MAX_PAGE, PAGE, Sources};

/// A line and its number.
#[derive(Debug, Serialize)]
pub struct EventObject {
    seq: u64,
    event: Option<Box<RawValue>>,
}

impl From<&Event> for EventObject {
    fn from(event: &Event) -> Self {
        Self {
            seq: event.seq,
            event: raw(&event.line),
        }
    }
}

#[derive(Serialize)]
struct Page {
    mono_us: u64,
    /// Number of the oldest that is kept: what came before `after` and this is lost.
    oldest: u64,
    events: Vec<EventObject>,
    /// What to ask for next as `after`.
    next: u64,
    /// Whether there are more already.
    more: bool,
}

/// `GET /api/v1/events`: oldest first, from `after` on.
#[expect(clippy::result_large_err, reason = "an error is an answer, made once")]
pub fn list(asked: &Asked, sources: &Sources) -> Result<Reply, Reply> {
    let given = asked.parameters(&["after", "limit"])?;
    let limit = given.number("limit", 1, MAX_PAGE)?.unwrap_or(PAGE);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    // The largest number that one more can be counted from.
    let after = given.number("after", 0, u64::MAX - 1)?.unwrap_or(0);
    let newest = *sources.ledger.watch().borrow();
    let (events, oldest) = sources.ledger.events_after(after, limit);
    let next = events.last().map_or(after.min(newest), |event| event.seq);
    Ok(json(&Page {
        mono_us: (sources.clock)().0 / 1000,
        oldest,
        more: next < newest,
        events: events.iter().map(EventObject::from).collect(),
        next,
    }))
}
