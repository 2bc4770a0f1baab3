//! What a recorded fault must be judged as. In: `NAME.json` beside `NAME.lwr.gz`. Plain data, written by
//! `cargo xtask faults --record DIR` and read by the test.

use serde::{Deserialize, Serialize};

/// One fault, recorded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    /// Its name in the matrix.
    pub fault: String,
    /// What was done.
    pub does: String,
    /// The causes that are right.
    pub expected: Vec<String>,
    /// The leases that were harmed.
    pub leases: Vec<Harmed>,
}

/// A lease that was harmed, as another log than the daemon's tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Harmed {
    /// The session's id, hexadecimal.
    pub session: String,
    /// Which end is judged.
    pub role: String,
    /// When the fault was in force, ns of the recording's monotonic clock.
    pub onset_ns: u64,
    /// When the harm was done, by the same clock.
    pub harm_ns: u64,
    /// The stage that counts as a warning of it.
    pub warned_by: String,
    /// What the evidence must name, where one thing is to blame.
    pub thing: Option<String>,
}
