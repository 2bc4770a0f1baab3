//! `cargo xtask incident`. In: the tree. Out: the incident that this project exists for, played live
//! with real servers, namespaces and a disk that hangs, and told as a timeline with leads.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::{
    build::{self, Profile},
    layout::Layout,
    process::line_of,
    setup,
    suite::cargo_test,
    toolchain::Choice,
};

/// The test binary that plays it.
const TEST: &[&str] = &["-p", "watchdog", "--test", "story_incident"];

/// Plays the incident live, a hung log disk under a server that grants leases, and prints its timeline.
///
/// A server grants four holders, in network namespaces, a lease of 12 s, and holds a session of a real
/// ZooKeeper; its log disk hangs for 10 s. The exit code is 0 only if the daemons warned of it in time,
/// with the cause and the device, and told of the false expiries. Takes half a minute.
#[derive(clap::Args)]
pub struct Args {
    /// Prints the timeline as JSON
    #[arg(long)]
    json: bool,
}

/// `cargo xtask incident`.
pub fn run(layout: &Layout, choice: Choice, args: &Args) -> Result<ExitCode> {
    let toolchain = setup::toolchain(layout, choice)?;
    setup::test_software()?;
    build::all(layout, &toolchain, Profile::Release)?;
    let mut command = cargo_test(layout, TEST);
    command.args(["--quiet", "--", "--tell"]);
    if args.json {
        command.arg("--json");
    }
    let status = command
        .status()
        .with_context(|| format!("starting {}", line_of(&command)))?;
    Ok(match status.success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
