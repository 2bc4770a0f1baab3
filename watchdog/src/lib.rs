//! The daemon behind `lease-watchdog`: kernel state in, warnings out.
//!
//! [`config`] says what to watch, the tick moves the model and speaks through the [`outbox`],
//! [`sinks`] turn what it said into events, metrics and alerts, [`run`] holds the sinks together.

pub mod cli;
pub mod config;
pub mod failure;
pub mod log;
pub mod outbox;
pub mod run;
pub mod sinks;
