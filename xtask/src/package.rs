//! `cargo xtask package`. In: the built daemon, its unit and documents. Out: a Debian package in
//! `target/debian`. What is in it stands in watchdog/Cargo.toml (`package.metadata.deb`), its scripts
//! in configs/packaging/debian.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};

use crate::{
    build::{self, Profile},
    layout::Layout,
    process::{gather, program, run as run_child, say},
    setup,
    toolchain::{Choice, Toolchain},
};

/// What packs. Its output is compared with nothing, so any 3.x that is there will do.
const PACKER: &str = "cargo-deb";
const PACKER_VERSION: &str = "3.8.0";

/// Builds the daemon and packs it as target/debian/lease-watchdog.deb.
///
/// Sets up the BPF toolchain and cargo-deb first if they are missing. `dpkg -i` installs it, as a
/// service that logs and pages nobody.
#[derive(clap::Args)]
pub struct Args {}

/// `cargo xtask package`.
pub fn run(layout: &Layout, choice: Choice, _: &Args) -> Result<ExitCode> {
    let toolchain = setup::toolchain(layout, choice)?;
    let package = make(layout, &toolchain)?;
    say(format_args!("made {}", package.display()));
    Ok(ExitCode::SUCCESS)
}

/// Builds and packs; gives the package's path. Quick if nothing has changed.
pub fn make(layout: &Layout, toolchain: &Toolchain) -> Result<PathBuf> {
    let daemon = build::all(layout, toolchain, Profile::Release)?;
    let package = layout.package();
    if is_newer(&package, &parts(layout, &daemon)) {
        return Ok(package);
    }
    let packer = packer(layout)?;
    let folder = package.parent().context("the package has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let mut pack = program(packer);
    pack.current_dir(layout.root().join("watchdog"))
        .env("CARGO_TARGET_DIR", layout.target())
        .args(["deb", "--no-build", "--strip", "--output"])
        .arg(&package);
    run_child(&mut pack).context("packing")?;
    Ok(package)
}

/// What a package is made of, but for documents.
fn parts(layout: &Layout, daemon: &Path) -> Vec<PathBuf> {
    let mut parts = vec![daemon.to_owned(), layout.root().join("watchdog/Cargo.toml")];
    for folder in [
        "configs",
        "configs/packaging",
        "configs/packaging/debian",
        "docs",
        "dashboards",
    ] {
        let entries = fs::read_dir(layout.root().join(folder));
        parts.extend(entries.into_iter().flatten().flatten().map(|e| e.path()));
    }
    parts
}

fn is_newer(made: &Path, parts: &[PathBuf]) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let Some(made) = changed(made) else {
        return false;
    };
    parts
        .iter()
        .all(|part| changed(part).is_some_and(|at| at < made))
}

/// The packing program, installed for this tree where there is none.
fn packer(layout: &Layout) -> Result<PathBuf> {
    let own = layout.tools().join("bin").join(PACKER);
    for found in [own.clone(), PathBuf::from(PACKER)] {
        let version = gather(program(&found).arg("--version"));
        if version.is_ok_and(|said| said.stdout.starts_with(b"cargo-deb 3.")) {
            return Ok(found);
        }
    }
    say(format_args!(
        "building {PACKER} {PACKER_VERSION} (a minute or two)"
    ));
    let mut cargo = program("cargo");
    cargo
        .args(["install", PACKER, "--version", PACKER_VERSION, "--locked"])
        .arg("--root")
        .arg(layout.tools())
        // It runs for seconds: what counts is how long it takes to build.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_LTO", "off");
    run_child(&mut cargo).with_context(|| format!("building {PACKER}"))?;
    Ok(own)
}
