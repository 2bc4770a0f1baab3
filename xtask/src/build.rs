//! Builds the kernel programs with the BPF toolchain, then the daemon that carries them with the
//! user's own. Two cargos, two lock files, two target folders; this is where they meet.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};

use crate::{
    layout::Layout,
    process::{host_cargo, run as run_child, say},
    setup,
    toolchain::{Choice, Toolchain},
};

/// Builds the kernel programs, then the daemon that carries them.
///
/// The object goes to target/bpf/watchdog-ebpf.o, the daemon to target/release/lease-watchdog. Sets
/// up the BPF toolchain first if it is missing.
#[derive(clap::Args)]
pub struct Args {
    /// Builds the daemon unoptimised, to target/debug (the kernel programs are always optimised: the
    /// verifier refuses them otherwise)
    #[arg(long)]
    debug: bool,
}

/// `cargo xtask build`.
pub fn run(layout: &Layout, choice: Choice, args: &Args) -> Result<ExitCode> {
    let toolchain = setup::toolchain(layout, choice)?;
    let profile = if args.debug {
        Profile::Debug
    } else {
        Profile::Release
    };
    let daemon = all(layout, &toolchain, profile)?;
    say(format_args!("built {}", daemon.display()));
    Ok(ExitCode::SUCCESS)
}

/// How the daemon is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// As it ships.
    Release,
    /// Unoptimised.
    Debug,
}

/// The kernel programs and the daemon of a tree; gives the daemon's path.
pub fn all(layout: &Layout, toolchain: &Toolchain, profile: Profile) -> Result<PathBuf> {
    say(format_args!("kernel programs, with {}", toolchain.compiler));
    object(layout, toolchain)?;
    say("daemon");
    daemon(layout, profile)
}

/// The kernel programs, where the daemon's build script looks for them.
pub fn object(layout: &Layout, toolchain: &Toolchain) -> Result<()> {
    for (features, to) in [(None, layout.object()), (Some("old"), layout.old_object())] {
        let mut cargo = toolchain.cargo(layout, "build");
        cargo.args(
            features
                .iter()
                .flat_map(|features| ["--features", features]),
        );
        run_child(&mut cargo).context("building the kernel programs")?;
        copy_if_changed(&layout.bpf_artifact(), &to)?;
    }
    Ok(())
}

fn daemon(layout: &Layout, profile: Profile) -> Result<PathBuf> {
    let mut cargo = host_cargo(layout, "build");
    cargo.args(["--package", "watchdog"]);
    let folder = match profile {
        Profile::Release => {
            cargo.arg("--release");
            "release"
        }
        Profile::Debug => "debug",
    };
    run_child(&mut cargo).context("building the daemon")?;
    Ok(layout.daemon(folder))
}

/// An unchanged object keeps its time stamp, so the daemon isn't built again for nothing.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    // Complete or not there: a build script may be reading.
    let half = to.with_extension("o.new");
    fs::write(&half, new).with_context(|| format!("writing {}", half.display()))?;
    fs::rename(&half, to).with_context(|| format!("renaming to {}", to.display()))
}
