//! In: the eBPF objects that `cargo xtask build` made. Out: copies in OUT_DIR, for
//! `include_bytes_aligned!`. Never builds the object itself: that takes another toolchain.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Names another object than the workspace's own.
const OBJECT_ENV: &str = "WATCHDOG_EBPF_OBJECT";
/// Where `cargo xtask build` puts the object, from the workspace's top.
const OBJECT_DEFAULT: &str = "target/bpf/watchdog-ebpf.o";
/// The copy's name in OUT_DIR.
const OBJECT_COPY: &str = "watchdog-ebpf";
/// The object for old kernels, beside the other one; and its copy's name.
const OLD_OBJECT: &str = "watchdog-ebpf-old.o";
const OLD_COPY: &str = "watchdog-ebpf-old";

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed={OBJECT_ENV}");
    println!("cargo::rerun-if-changed=build.rs");
    let object = object_path();
    // Beside it lies the one for old kernels.
    let old = object.with_file_name(OLD_OBJECT);
    for object in [&object, &old] {
        println!("cargo::rerun-if-changed={}", object.display());
    }
    match copy(&object, OBJECT_COPY).and_then(|()| copy(&old, OLD_COPY)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            println!("cargo::error={line}");
            ExitCode::FAILURE
        }
    }
}

/// The object asked for by the environment, else the workspace's own.
fn object_path() -> PathBuf {
    match env::var_os(OBJECT_ENV) {
        Some(path) if !path.is_empty() => path.into(),
        _ => from_cargo("CARGO_MANIFEST_DIR")
            .with_file_name("")
            .join(OBJECT_DEFAULT),
    }
}

fn copy(object: &Path, name: &str) -> Result<(), String> {
    if !object.is_file() {
        return Err(format!(
            "run `cargo xtask build`: the eBPF object {} is not built yet",
            object.display()
        ));
    }
    let copy = from_cargo("OUT_DIR").join(name);
    std::fs::copy(object, &copy).map_err(|error| {
        format!(
            "copying {} to {}: {error}",
            object.display(),
            copy.display()
        )
    })?;
    Ok(())
}

/// A folder that cargo hands to every build script.
fn from_cargo(name: &str) -> PathBuf {
    env::var_os(name).unwrap_or_default().into()
}
