//! The daemon behind `lease-watchdog`: kernel state in, warnings out.
//!
//! [`config`] says what to watch, [`kernel`] attaches the programs and maps their memory, [`tick`]
//! moves the model and speaks through the [`outbox`], [`sinks`] turn what it said into events,
//! metrics and alerts, [`run`] holds the sinks together; [`daemon`] puts both halves together.

pub mod cli;
pub mod collect;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod discover;
pub mod doctor;
pub mod explain;
pub mod failure;
#[cfg(test)]
mod fuzz;
pub mod kernel;
pub mod limits;
pub mod live;
pub mod log;
pub mod manual;
pub mod memory;
pub mod mute;
pub mod netns;
pub mod outbox;
pub mod printable;
pub mod priority;
pub mod probes;
pub mod recorder;
pub mod reference;
pub mod relay;
pub mod resident;
pub mod rights;
pub mod run;
pub mod sinks;
pub mod surge;
pub mod test_alert;
pub mod tick;
pub mod top;
pub mod trusted;
