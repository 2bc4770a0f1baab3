//! `cargo xtask bench`. In: the tree. Out: the product and the empty programs it is compared with,
//! both built; then one run of the measuring program (watchdog-bench), which prints the table. A run
//! without arguments writes it to docs/benchmarks.md.

use std::{ffi::OsString, fs, process::ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::{self, Profile},
    layout::Layout,
    process::{host_cargo, line_of, output_of, program, run as run_child, run_by_line, say},
    setup,
    targets::{self, Pages},
    toolchain::Choice,
};

const HEAD: &str = "# What it costs\n\n\
    Times are of one run on one machine: compare figures within a table, not across machines. \
    Each program's figure is the difference to an empty one on the same hook in the same round, and \
    what the node does while somebody watches is measured by turns: what else runs on the machine \
    meets both alike.\n\n";

/// Where the measuring program's tables end and its text on growth begins.
const GROWTH: &str = "## How it grows";

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
    setup::bench_software()?;
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
    let mut lines = String::new();
    let status = run_by_line(&mut bench, |line| {
        println!("{line}");
        lines.push_str(line);
        lines.push('\n');
    })?;
    if !status.success() {
        bail!("{}: {status}", line_of(&bench));
    }
    if args.args.is_empty() {
        let made = output_of(program("date").args(["-u", "+%F %H:%M UTC"]))?;
        let docs = layout.root().join("docs");
        fs::create_dir_all(&docs).context("making docs")?;
        let page = docs.join("benchmarks.md");
        // One that was not made yet has no figures.
        let page_of = |name: &str| fs::read_to_string(docs.join(name)).unwrap_or_default();
        let (tables, growth) = lines.split_at(lines.find(GROWTH).unwrap_or(lines.len()));
        let text = format!(
            "{HEAD}Made by `cargo xtask bench` on {}.\n\n{}\n```text\n{}\n```\n\n{growth}",
            made.trim(),
            targets::table(&Pages {
                bench: tables,
                reliability: &page_of("reliability.md"),
                faults: &page_of("faults.md"),
                kernels: &page_of("kernels.md"),
            }),
            tables.trim_end()
        );
        fs::write(&page, text).with_context(|| page.display().to_string())?;
        say(format_args!("written to {}", page.display()));
    }
    Ok(ExitCode::SUCCESS)
}
