//! Facts from procfs and sockets, had outside the tick.

pub mod executables;
pub mod existing;
