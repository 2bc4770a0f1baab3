//! What is borrowed from the stories' harness: clocks, children, faults, the kernel's objects.

#[path = "../stories/harness/bpf.rs"]
pub mod bpf;
#[expect(dead_code, reason = "the stories use the rest")]
#[path = "../stories/harness/clock.rs"]
pub mod clock;
#[expect(dead_code, reason = "the stories use the rest")]
#[path = "../stories/harness/faults.rs"]
pub mod faults;
#[expect(dead_code, reason = "the stories use the rest")]
#[path = "../stories/harness/process.rs"]
pub mod process;
