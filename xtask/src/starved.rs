//! `cargo xtask starved`. In: the tree. Out: how long a warning takes to leave a starved node, in a
//! table on standard output and in docs/reliability.md.

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{
    build::{self, Profile},
    faults::TEST,
    layout::Layout,
    made,
    process::{line_of, say},
    setup,
    suite::cargo_test,
    toolchain::Choice,
};

/// Measures how long a warning takes to leave the node, quiet and starved of CPU, disk and memory.
///
/// Takes the whole machine for some minutes. Fails where 99 of 100 warnings are not there within
/// 150 ms. Writes its part of docs/reliability.md.
#[derive(clap::Args)]
pub struct Args {
    /// Rounds, quiet and starved; ten samples each
    #[arg(long, default_value_t = 12)]
    rounds: usize,
}

/// `cargo xtask starved`.
pub fn run(layout: &Layout, choice: Choice, args: &Args) -> Result<ExitCode> {
    let toolchain = setup::toolchain(layout, choice)?;
    setup::test_software()?;
    build::all(layout, &toolchain, Profile::Release)?;
    let page = layout.root().join("docs/reliability.md");
    say(format_args!("the table goes to {}", page.display()));
    let part = layout.target().join("starved.md");
    let mut command = cargo_test(layout, TEST);
    command.arg("--quiet").arg("--");
    command.args(["--starved", &args.rounds.to_string()]);
    command.arg("--page").arg(&part);
    let status = command
        .status()
        .with_context(|| format!("starting {}", line_of(&command)))?;
    if let Ok(text) = fs::read_to_string(&part) {
        made::set(&page, "starved", &text)?;
        fs::remove_file(&part).with_context(|| part.display().to_string())?;
    }
    Ok(match status.success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
