//! What is borrowed from the fault matrix: a disk that can hang, and the dead man's switch.

#[expect(dead_code, reason = "the fault matrix uses the rest")]
#[path = "../faults/rig/hung_disk.rs"]
pub mod hung_disk;
#[path = "../faults/rig/names.rs"]
pub mod names;
#[path = "../faults/rig/switch.rs"]
pub mod switch;
