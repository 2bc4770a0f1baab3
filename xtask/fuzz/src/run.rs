//! Between libFuzzer and the targets: which target it is, and inputs handed on.

use std::env;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

use crate::bounds::within;
use crate::targets::{self, Target};

/// Which target.
const TARGET: &str = "WATCHDOG_FUZZ_TARGET";
/// A folder that its seeds are written into; then nothing else is done.
const SEEDS: &str = "WATCHDOG_FUZZ_SEEDS";

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

/// Lists the targets, writes seeds, or goes on with the fuzzer.
fn choose() {
    let Ok(name) = env::var(TARGET) else {
        for target in targets::all() {
            println!("{} {}", target.name, target.longest);
        }
        std::process::exit(0);
    };
    let Some(target) = targets::all().find(|target| target.name == name) else {
        eprintln!("{TARGET}={name}: there is no such target");
        std::process::exit(2);
    };
    if let Some(folder) = env::var_os(SEEDS) {
        for (at, seed) in (target.seeds)().iter().enumerate() {
            let file = Path::new(&folder).join(format!("seed-{at:03}"));
            let length = seed.len().min(target.longest);
            if let Err(error) = fs::write(&file, &seed[..length]) {
                eprintln!("{}: {error}", file.display());
                std::process::exit(1);
            }
        }
        std::process::exit(0);
    }
    let _first = CHOSEN.set(target);
}

fuzz_target!(
    init: choose(),
    |bytes: &[u8]| {
        if let Some(target) = CHOSEN.get() {
            within(target.most_ms, target.most_mib, || (target.run)(bytes));
        }
    }
);
