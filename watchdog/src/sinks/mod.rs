//! What becomes of what the tick says: events, metrics, alerts, each for itself. A sink that is
//! stuck holds up neither another sink nor the tick.

pub mod alertmanager;
pub mod alerts;
pub mod allowance;
pub mod api;
pub mod dispatch;
pub mod events;
pub mod hooks;
pub mod http;
pub mod incidents;
pub mod metrics;
pub mod mutes;
mod post;
#[cfg(any(test, fuzzing))]
pub use post::laws as post_laws;
#[cfg(test)]
pub(crate) mod samples;
pub mod stream;
pub mod tally;
pub mod tls;
pub mod webhook;
pub mod words;
