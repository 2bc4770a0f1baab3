//! Each signal alone: the real programs in this kernel, one real thing done to it, and what the
//! slot says then.
//!
//! In: root, a kernel with BTF, the object that `cargo xtask build` made. Out: a verdict per
//! signal, or one line `SKIPPED: name: reason` where a capability is missing. Probes share the
//! kernel, so run them with `--test-threads=1`. Never: the daemon, but in `lifetime`.

mod bed;
mod harness;
#[expect(dead_code, reason = "the parser's own tests use the rest")]
#[path = "../../../watchdog-common/tests/inputs/mod.rs"]
mod inputs;

mod block;
mod flow_start;
mod flow_state;
mod hung_disk;
mod journal;
mod lifetime;
mod objects;
mod offsets;
mod packets;
mod parser;
mod reads;
mod retransmits;
mod sched;
mod writes;
