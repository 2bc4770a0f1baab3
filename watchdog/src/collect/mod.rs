//! Facts from procfs, cgroups, block devices and sockets, had outside the tick.

pub mod admission;
pub mod cgroups;
pub mod connections;
pub mod disks;
pub mod executables;
pub mod existing;
pub mod helper;
pub mod library;
pub mod look;
pub mod membership;
pub mod place;
pub mod places;
pub mod probe_cost;
pub mod proc;
pub mod sockets;
pub mod stacked;
pub mod tls;
pub mod waits;
