//! The stories: what a user would tell of the daemon, each played with real ZooKeeper servers
//! and clients. One module per story; `harness` holds what they share.
//!
//! `cargo test --test stories -- --nocapture --test-threads=8` prints one line per result. They
//! need root, Debian's packages (`cargo xtask setup`) and a built daemon:
//! `target/release/lease-watchdog`, or the binary that `LEASE_WATCHDOG_BIN` names.

mod harness;
mod harness_itself;

mod alerting;
mod bad_input;
mod crowd;
mod daemon_killed;
mod dashboards;
mod demo;
mod discover;
mod doctor;
mod exchanges;
mod exits;
mod fence;
mod frozen_client;
mod frozen_server;
mod full_disk;
mod healthy;
mod hostile;
mod https;
mod late_start;
mod page;
mod paths;
mod privacy;
mod prometheus;
mod protocols;
mod recorder;
mod refused;
mod rights;
mod scope;
mod seen;
mod server_restart;
mod short_lives;
mod soak;
mod storm;
mod thawed_client;
mod tls;
mod top;
