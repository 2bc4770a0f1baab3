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
    process::{program, run as run_child, say},
    setup,
    toolchain::{Choice, Toolchain},
};

/// What packs. Its output is compared with nothing, so any 3.x that is there will do.
const PACKER: &str = "cargo-deb";
const PACKER_VERSION: &str = "3.8.0";

/// Where man pages and completions are written, of the command line's one definition, to be packed.
const MANUAL: &str = "target/manual";

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
    let manual = layout.root().join(MANUAL);
    run_child(program(&daemon).arg("manual").arg(&manual)).context("writing the man pages")?;
    let packer = setup::tool(layout, PACKER, PACKER_VERSION)?;
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
