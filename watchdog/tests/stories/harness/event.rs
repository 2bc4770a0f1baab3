//! One event of the daemon, as a JSON line says it, with the moment of its arrival.

use super::zookeeper::parse_id;
use serde_json::Value;

/// The stages of a lease, in their order; what only ends a lateness is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// All is well.
    Healthy,
    /// Later than the flow's own normal.
    Late,
    /// Late, and half of the lease is gone (or a third, with proof of a stall).
    AtRisk,
    /// The holder's own patience is over.
    Jeopardy,
    /// The grantor may expire it at any moment.
    Lapsed,
}

impl Stage {
    /// A stage by its name in the events.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "healthy" => Some(Self::Healthy),
            "late" => Some(Self::Late),
            "at_risk" => Some(Self::AtRisk),
            "jeopardy" => Some(Self::Jeopardy),
            "lapsed" => Some(Self::Lapsed),
            _ => None,
        }
    }
}

/// One line of the daemon's standard output.
#[derive(Clone, Debug)]
pub struct Event {
    /// When the line arrived here, in microseconds of CLOCK_MONOTONIC.
    pub at_us: i64,
    /// The object.
    pub value: Value,
}

impl Event {
    /// Reads a line. One that is no JSON object is kept as a string, so that a test can find
    /// fault with it.
    pub fn parse(at_us: i64, line: &str) -> Option<Self> {
        let value = serde_json::from_str(line).unwrap_or_else(|_| Value::String(line.to_owned()));
        Some(Self { at_us, value })
    }

    /// A field that is text; empty if it is missing.
    pub fn text(&self, field: &str) -> &str {
        self.value
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// A field that is a whole number.
    pub fn number(&self, field: &str) -> Option<i64> {
        self.value.get(field).and_then(Value::as_i64)
    }

    /// What kind of event: `started`, `transition`, ….
    pub fn kind(&self) -> &str {
        self.text("event")
    }

    /// Whether it is of this kind.
    pub fn is(&self, kind: &str) -> bool {
        self.kind() == kind
    }

    /// The session's id, where the lease has one.
    pub fn session(&self) -> Option<u64> {
        parse_id(self.text("id"))
    }

    /// Whether it speaks of this session's lease, seen from this end.
    pub fn of(&self, session: u64, role: &str) -> bool {
        self.session() == Some(session) && self.text("role") == role
    }

    /// The stage that a transition enters; `None` for every other event, `renewed` and
    /// `expired`.
    pub fn stage(&self) -> Option<Stage> {
        if self.is("transition") {
            Stage::named(self.text("to"))
        } else {
            None
        }
    }

    /// Whether it is a transition to `to` from another stage.
    pub fn enters(&self, to: &str) -> bool {
        self.is("transition") && self.text("to") == to && self.text("from") != to
    }

    /// Whether a fact of its evidence was measured at this `side` of the flow.
    pub fn has_evidence_from(&self, side: &str) -> bool {
        let facts = self.value.get("evidence").and_then(Value::as_array);
        facts.is_some_and(|facts| facts.iter().any(|fact| fact["side"] == side))
    }
}
