//! `cargo xtask bench`. In: the tree. Out: the product and the empty programs it is compared with,
//! both built; then one run of the measuring program (watchdog-bench), which prints the table.

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{
    build::{self, Profile},
    layout::Layout,
    process::{host_cargo, program, run as run_child, say},
    setup,
    toolchain::Choice,
};

/// Measures what the kernel programs and the daemon cost, against the targets.
///
/// Needs root. Prints one table from one run: nanoseconds per event of each hot program over an
/// empty one on the same hook, then the daemon's memory, CPU, start and lateness by sessions.
#[derive(clap::Args)]
pub struct Args {
    /// Handed to the measuring program as they are (`--help` shows them)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// `cargo xtask bench`.
pub fn run(layout: &Layout, choice: Choice, args: &Args) -> Result<ExitCode> {
    say("1/3 toolchain");
    let toolchain = setup::toolchain(layout, choice)?;
    say("2/3 build");
    let daemon = build::all(layout, &toolchain, Profile::Release)?;
    let mut empty = toolchain.cargo(layout, "build");
    empty.args(["--bin", "watchdog-empty", "--features", "empty"]);
    run_child(&mut empty).context("building the empty programs")?;
    let mut bench = host_cargo(layout, "build");
    bench.args(["--package", "watchdog-bench", "--release"]);
    run_child(&mut bench).context("building the measuring program")?;
    say("3/3 bench");
    let mut bench = program(layout.bench("release"));
    bench.arg("--empty").arg(layout.empty_object());
    bench.arg("--daemon").arg(&daemon).args(&args.args);
    run_child(&mut bench)?;
    Ok(ExitCode::SUCCESS)
}
