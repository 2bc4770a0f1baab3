//! What becomes of what the tick says: events, metrics, alerts, each for itself. A sink that is
//! stuck holds up neither another sink nor the tick.

pub mod events;
pub mod incidents;
#[cfg(test)]
mod samples;
pub mod words;
