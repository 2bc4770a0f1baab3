//! What a log's lines say of its sessions, put so that it is found without a walk through all lines.
//!
//! In: events in order of time. Out: a session's timeout at a moment; state changes. Never: a conclusion.

use std::collections::HashMap;

use super::meaning::{Event, Meaning};
use super::wall::{MS, Wall};

/// When each was said, and the timeout in ns.
type Rows = Vec<(Wall, i64)>;

/// Of all sources.
#[derive(Debug, Default)]
pub struct Sessions<'a> {
    /// By source and session, and by source alone.
    timeouts: HashMap<(usize, Option<&'a str>), Rows>,
    changes: HashMap<usize, Vec<&'a Event>>,
}

impl<'a> Sessions<'a> {
    /// Of events in order of time.
    #[must_use]
    pub fn of(events: &'a [Event]) -> Self {
        let mut all = Self::default();
        for event in events {
            match event.meaning {
                Meaning::Established => {
                    let Some(ms) = event.number("timeout_ms").filter(|ms| *ms > 0) else {
                        continue;
                    };
                    let said = (event.at, ms.saturating_mul(MS));
                    let mut keep = |lease| {
                        let rows = all.timeouts.entry((event.source, lease)).or_default();
                        rows.push(said);
                    };
                    keep(None);
                    if let Some(lease) = event.lease() {
                        keep(Some(lease));
                    }
                }
                Meaning::SessionEvent => all.changes.entry(event.source).or_default().push(event),
                _ => {}
            }
        }
        all
    }

    /// The timeout in ns that a session had: the last that any of its lines names before `at`, or the first
    /// after it; of a session that no line names, the same of any of that source.
    #[must_use]
    pub fn timeout(&self, source: usize, lease: Option<&str>, at: Wall) -> Option<i64> {
        let named = lease.and_then(|lease| self.timeouts.get(&(source, Some(lease))));
        let rows = named.or_else(|| self.timeouts.get(&(source, None)))?;
        let after = rows.partition_point(|row| row.0 <= at);
        let row = rows.get(after.saturating_sub(1))?;
        Some(row.1)
    }

    /// The first state change of a source from `from` on.
    #[must_use]
    pub fn change(&self, source: usize, from: Wall) -> Option<&'a Event> {
        let rows = self.changes.get(&source)?;
        let place = rows.partition_point(|event| event.at < from);
        rows.get(place).copied()
    }
}
