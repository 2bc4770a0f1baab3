//! The daemon behind `lease-watchdog`: kernel state in, warnings out.
//!
//! [`config`] says what to watch, [`kernel`] attaches the programs and maps their memory, [`tick`]
//! moves the model and speaks through the [`outbox`], [`sinks`] turn what it said into events,
//! metrics and alerts.

pub mod collect;
pub mod config;
pub mod demo;
pub mod kernel;
pub mod memory;
pub mod outbox;
pub mod sinks;
pub mod tick;
