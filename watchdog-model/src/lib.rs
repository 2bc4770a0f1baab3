//! The lease and cause models.
//!
//! In: observations of flows (copied from kernel state) and the time. Out: notes (lease seen,
//! transition, lease gone, …) as data. Never: a clock, I/O, a log call, randomness, an allocation
//! after the book was made. Whoever calls passes `now`, so every rule can be tested at its exact
//! nanosecond and a recording replays through the same code.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods)]

pub mod causes;
pub mod leases;
pub mod time;

pub use time::Mono;
