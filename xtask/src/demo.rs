//! From a fresh clone to the demo in one command.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{
    build::{self, Profile},
    layout::Layout,
    process::{program, say},
    setup,
    toolchain::Choice,
};

/// Sets up the toolchain, builds, and runs `lease-watchdog demo` in this terminal.
#[derive(clap::Args)]
pub struct Args {
    /// Handed to `lease-watchdog demo` as they are
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// `cargo xtask demo`: becomes the demo, whose exit code is then this command's.
pub fn run(layout: &Layout, choice: Choice, args: &Args) -> Result<ExitCode> {
    say("1/3 toolchain");
    let toolchain = setup::toolchain(layout, choice)?;
    say("2/3 build");
    let daemon = build::all(layout, &toolchain, Profile::Release)?;
    say("3/3 demo");
    let error = program(&daemon).arg("demo").args(&args.args).exec();
    Err(error).with_context(|| format!("starting {}", daemon.display()))
}
