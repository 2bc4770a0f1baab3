//! Facts from procfs and sockets, had outside the tick.

pub mod existing;
