//! What the faults are made with: a dead man's switch that undoes each of them, a disk that can hang,
//! cgroups, a path of network namespaces, and a holder whose I/O thread does more than it should.
//!
//! Everything here undoes itself when dropped, and is undone by a process of its own if this one is
//! killed first.

pub mod cgroup;
pub mod hung_disk;
pub mod java;
pub mod mapped_disk;
pub mod name_server;
pub mod names;
pub mod path;
pub mod programs;
pub mod random;
pub mod switch;
pub mod victim;
