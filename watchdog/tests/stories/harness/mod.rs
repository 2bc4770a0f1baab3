//! What the stories stand on: real servers, real clients, real faults, and the daemon under
//! test.
//!
//! In: Debian's packages (`cargo xtask setup` installs them) and root. Out: guards that undo
//! themselves, stamps that all share CLOCK_MONOTONIC, and reports that say everything when a
//! story fails. Never: a wait without a deadline, or an oracle that the daemon has a part in.

pub mod authority;
pub mod bpf;
pub mod browser;
pub mod client;
pub mod clock;
pub mod crowd;
pub mod daemon;
pub mod event;
pub mod faults;
pub mod group;
pub mod http;
pub mod process;
pub mod program;
pub mod prometheus;
pub mod receiver;
pub mod rust_client;
pub mod transcript;
pub mod world;
pub mod zookeeper;
