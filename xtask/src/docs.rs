//! `cargo xtask docs`. In: the daemon's own tables, printed by the daemon. Out: the reference pages
//! under `docs/`. That they are current is a unit test's business.

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{
    build::{self, Profile},
    layout::Layout,
    process::{output_of, program, run as run_child, say},
    setup,
    suite::cargo_test,
    toolchain::Choice,
};

/// What `lease-watchdog reference` prints; each is `docs/NAME.md`.
const PAGES: &[&str] = &["metrics", "config"];

/// The story whose panels are drawn, where this names a folder.
const PICTURED: &str = "every_query_of_dashboards_and_rules";
const PICTURES_ENV: &str = "LEASE_WATCHDOG_PICTURES";

/// Writes the reference pages of metrics and configuration keys anew, from the daemon's tables.
#[derive(clap::Args)]
pub struct Args {
    /// Draws docs/pictures anew too: a story with a real ZooKeeper, fault and Prometheus (half a minute)
    #[arg(long)]
    pictures: bool,
}

/// `cargo xtask docs`.
pub fn run(layout: &Layout, choice: Choice, args: &Args) -> Result<ExitCode> {
    let toolchain = setup::toolchain(layout, choice)?;
    let daemon = build::all(layout, &toolchain, Profile::Debug)?;
    for page in PAGES {
        let text = output_of(program(&daemon).args(["reference", page]))?;
        let file = layout.root().join("docs").join(format!("{page}.md"));
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        say(format_args!("wrote {}", file.display()));
    }
    if args.pictures {
        setup::test_software()?;
        build::all(layout, &toolchain, Profile::Release)?;
        let mut story = cargo_test(layout, &["-p", "watchdog", "--test", "stories", PICTURED]);
        story.env(PICTURES_ENV, layout.root().join("docs/pictures"));
        run_child(&mut story).context("the story that is drawn")?;
    }
    Ok(ExitCode::SUCCESS)
}
