//! Seconds per step, for the closing table: the only reader of a clock in xtask.

use std::time::{Duration, Instant};

/// Runs from its making.
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self(now())
    }

    /// Time since the start.
    pub fn read(&self) -> Duration {
        now() - self.0
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "seconds of a build step, for people; no lease is judged by them"
)]
fn now() -> Instant {
    Instant::now()
}
