//! What `cargo xtask fuzz` runs. In: a target's name (in the environment, for the command line is libFuzzer's),
//! and inputs that libFuzzer makes of the seeds, led by which edges of the product they reach. Out: an input
//! that breaks a law. Never: a law of its own but those of time and memory; the others stand beside the code that
//! they hold, and are those of the property tests.
//!
//! Built without `--cfg fuzzing` it is empty.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod bounds;
#[cfg(fuzzing)]
#[expect(dead_code, reason = "shared with the parsers' tests")]
#[path = "../../../watchdog-common/tests/inputs/mod.rs"]
mod inputs;
#[cfg(fuzzing)]
mod run;
#[cfg(fuzzing)]
mod targets;

#[cfg(not(fuzzing))]
fn main() {
    eprintln!("watchdog-fuzz: built without a fuzzer; run `cargo xtask fuzz`");
    std::process::exit(2);
}
