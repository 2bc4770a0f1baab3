//! `cargo xtask docs`. In: the daemon's own tables, printed by the daemon. Out: the reference pages
//! under `docs/`. That they are current is a unit test's business.

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{
    build::{self, Profile},
    layout::Layout,
    process::{output_of, program, say},
    setup,
    toolchain::Choice,
};

/// What `lease-watchdog reference` prints; each is `docs/NAME.md`.
const PAGES: &[&str] = &["metrics", "config"];

/// Writes the reference pages of metrics and configuration keys anew, from the daemon's tables.
#[derive(clap::Args)]
pub struct Args {}

/// `cargo xtask docs`.
pub fn run(layout: &Layout, choice: Choice, _: &Args) -> Result<ExitCode> {
    let toolchain = setup::toolchain(layout, choice)?;
    let daemon = build::all(layout, &toolchain, Profile::Debug)?;
    for page in PAGES {
        let text = output_of(program(&daemon).args(["reference", page]))?;
        let file = layout.root().join("docs").join(format!("{page}.md"));
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        say(format_args!("wrote {}", file.display()));
    }
    Ok(ExitCode::SUCCESS)
}
