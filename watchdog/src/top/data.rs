//! What the view shows, as the API tells it. Fields that are not needed are left out; unknown words
//! are shown as they are.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A lease.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Lease {
    /// Names it while the daemon runs.
    pub handle: u64,
    /// Configuration's entry.
    pub lease: String,
    /// Its name.
    pub id: String,
    /// Which end.
    pub role: String,
    /// Stage.
    pub stage: String,
    /// Where the renewal stands.
    pub condition: Option<String>,
    /// Why.
    pub cause: Option<String>,
    /// Number of its incident.
    pub incident: Option<String>,
    /// Length, ms.
    pub timeout_ms: Option<i64>,
    /// What is left, ms.
    pub remaining_ms: Option<i64>,
    /// Since the newest renewal, ms.
    pub silent_ms: Option<i64>,
    /// Usual silence, ms.
    pub cadence_ms: Option<i64>,
    /// Where the timeout is known from.
    pub timeout_source: Option<String>,
    /// This end.
    pub local: String,
    /// The other end.
    pub peer: String,
    /// Process.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
    /// Newest transition.
    pub transition: Option<Value>,
}

impl Lease {
    /// What is left `passed` ms after the answer, and whether that is only inferred.
    #[must_use]
    pub fn left_ms(&self, passed: i64) -> Option<(i64, bool)> {
        if let Some(left) = self.remaining_ms {
            return Some((left.saturating_sub(passed), false));
        }
        let left = self.timeout_ms?.saturating_sub(self.silent_ms?);
        Some((left.saturating_sub(passed), true))
    }

    /// Share of the timeout that is left, from 0 to 1.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "spans of leases are small")]
    pub fn share(&self, passed: i64) -> Option<f64> {
        let (left, _) = self.left_ms(passed)?;
        let timeout = self.timeout_ms.filter(|timeout| *timeout > 0)?;
        Some((left as f64 / timeout as f64).clamp(0.0, 1.0))
    }
}

/// A page of leases.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Leases {
    /// How many match.
    pub total: usize,
    /// Those of the page.
    pub leases: Vec<Lease>,
}

/// An incident.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Incident {
    /// Its number.
    pub incident: String,
    /// `open` or `closed`.
    pub state: String,
    /// When it was opened.
    pub opened_ts: String,
    /// How long it has lasted, ms.
    pub lasted_ms: i64,
    /// Stage of its worst lease.
    pub stage: String,
    /// Why.
    pub cause: String,
    /// On what.
    pub thing: String,
    /// How many leases.
    pub leases: usize,
    /// Of which have expired.
    pub expired: usize,
    /// Told in a line.
    pub summary: String,
}

/// Incidents.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Incidents {
    /// Newest first.
    pub incidents: Vec<Incident>,
}

/// The node in one look.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Overview {
    /// Its name.
    pub node: String,
    /// Whether the daemon watches.
    pub watching: bool,
    /// How many leases.
    pub total: usize,
    /// By stage.
    pub stages: BTreeMap<String, usize>,
}
