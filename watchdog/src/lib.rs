//! The daemon.
pub mod kernel;
