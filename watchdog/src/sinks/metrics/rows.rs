//! The table of metrics as others read it. In: the table, the words of the labels. Out: rows for
//! the reference page.

use watchdog_model::leases::note::Outcome;

use super::{FLOW_STATES, Kind, PREFIX, ROLES, SLOT_STATES, SOURCES, STAGES, TABLE, WORST, words};
use crate::outbox::Lost;

/// One metric.
pub struct Row {
    /// Its whole name.
    pub name: String,
    /// Gauge, counter or histogram.
    pub kind: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it is, in a sentence.
    pub help: &'static str,
    /// Upper bounds of a histogram's buckets; empty: it is none.
    pub buckets: &'static [f64],
}

/// All of them, in the table's order.
#[must_use]
pub fn rows() -> Vec<Row> {
    let row = |definition: &'static super::Definition| {
        let (kind, buckets): (_, &[f64]) = match definition.kind {
            Kind::Gauge => ("gauge", &[]),
            Kind::Counter => ("counter", &[]),
            Kind::Histogram(buckets) => ("histogram", buckets),
        };
        Row {
            name: format!("{PREFIX}{}", definition.name),
            kind,
            labels: definition.labels,
            help: definition.help,
            buckets,
        }
    };
    TABLE.iter().map(row).collect()
}

/// Each label with its values.
#[must_use]
pub fn label_values() -> Vec<(&'static str, String)> {
    let list = |words: Vec<&str>| {
        let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        words.join(", ")
    };
    let ends = [Outcome::Renewed, Outcome::Expired];
    let to = STAGES.map(Outcome::Stage).into_iter().chain(ends);
    vec![
        (
            "lease",
            "the entry's `name` in the configuration".to_owned(),
        ),
        ("role", list(ROLES.map(words::role).to_vec())),
        ("stage", list(STAGES.map(words::stage).to_vec())),
        (
            "to",
            format!(
                "of transitions_total: {}; of alerts: the way out, `exec`, `webhook` or `alertmanager`",
                list(to.map(words::outcome).collect())
            ),
        ),
        (
            "alert",
            "place in `alerts` of the configuration, from 0".to_owned(),
        ),
        ("result", "`sent`, `failed`".to_owned()),
        ("cause", list(words::CAUSES.map(words::cause).to_vec())),
        ("rank", format!("`1` (nearest to lapsing) to `{WORST}`")),
        (
            "state",
            format!(
                "of flows: {}; of slots: {}",
                list(FLOW_STATES.to_vec()),
                list(SLOT_STATES.to_vec())
            ),
        ),
        ("source", list(SOURCES.map(words::timeout_source).to_vec())),
        (
            "what",
            format!(
                "of lost_total: {}; of limit_used_ratio: `cpu`, `memory`",
                list(Lost::ALL.map(Lost::as_str).to_vec())
            ),
        ),
        ("signal", "as in the event `started`".to_owned()),
        ("hook", "as in the event `started`".to_owned()),
        ("probe", "names of the kernel programs".to_owned()),
        ("version", "the daemon's".to_owned()),
    ]
}
