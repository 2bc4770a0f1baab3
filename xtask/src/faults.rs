//! `cargo xtask faults`. In: the tree. Out: the fault matrix, played for real; a whole run writes its
//! table to docs/faults.md.

use std::{
    fs,
    path::{self, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};

use crate::{
    build::{self, Profile},
    layout::Layout,
    process::{line_of, say},
    setup,
    suite::cargo_test,
    toolchain::Choice,
};

/// The test binary that is the matrix.
pub const TEST: &[&str] = &["-p", "watchdog", "--test", "faults"];

/// Injects every fault for real and judges what the daemon says: warned in time, by its true cause?
///
/// Each sample counts only if another log than the daemon's proves that the fault bit. Fails below
/// target: every one warned of before the harm, the cause right in 95 %, nothing above `late` in the
/// controls. A run of all faults with --runs writes docs/faults.md.
#[derive(clap::Args)]
pub struct Args {
    /// Samples per fault, and the whole of the controls; without it the short form is played
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// Only this fault or control, or all whose name begins so; may be given several times
    #[arg(long, value_name = "FAULT")]
    only: Vec<String>,
    /// Lists faults and controls, and plays none
    #[arg(long)]
    list: bool,
    /// Writes every sample as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Strikes where a run with this seed struck
    #[arg(long)]
    seed: Option<u64>,
    /// Records instead each fault into this folder: watchdog/tests/recordings, for the tests of the
    /// pure code. A fault on which the daemon was wrong is played again, and not kept.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Tells the story of every sample that went wrong
    #[arg(long)]
    stories: bool,
}

/// `cargo xtask faults`.
pub fn run(layout: &Layout, choice: Choice, args: &Args) -> Result<ExitCode> {
    if !args.list {
        let toolchain = setup::toolchain(layout, choice)?;
        setup::test_software()?;
        build::all(layout, &toolchain, Profile::Release)?;
    }
    let mut command = cargo_test(layout, TEST);
    command.arg("--quiet").arg("--");
    if let Some(runs) = args.runs {
        command.args(["--runs", &runs.to_string()]);
    }
    for only in &args.only {
        command.args(["--only", only]);
    }
    if let Some(file) = &args.json {
        let file = path::absolute(file).with_context(|| format!("{}", file.display()))?;
        command.arg("--json").arg(file);
    }
    if let Some(dir) = &args.record {
        let dir = path::absolute(dir).with_context(|| format!("{}", dir.display()))?;
        command.arg("--record").arg(dir);
    }
    if let Some(seed) = args.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    for (flag, wanted) in [("--list", args.list), ("--stories", args.stories)] {
        if wanted {
            command.arg(flag);
        }
    }
    if args.runs.is_some() && args.only.is_empty() && !args.list {
        let page = layout.root().join("docs/faults.md");
        fs::create_dir_all(layout.root().join("docs")).context("making docs")?;
        say(format_args!("the table goes to {}", page.display()));
        command.arg("--page").arg(page);
    }
    let status = command
        .status()
        .with_context(|| format!("starting {}", line_of(&command)))?;
    Ok(match status.success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
