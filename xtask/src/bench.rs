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
    toolchain::Choice,
};

const HEAD: &str = "# What it costs\n\n\
    Times are of one run on one machine: compare figures within a table, not across machines. Targets \
    stand beside their figures, met or missed.\n\n";

/// How the costs grow, and where they end.
const GROWTH: &str = "\n## How it grows\n\n\
    - **Context switches**: each costs what `thread_switch` and `thread_wakeup` unwatched cost, on the \
    CPU where it happens; no state is shared, so a node of 128 CPUs that switches 20,000 times a second \
    on each pays the same share of each CPU as one with two: about 10 ns of 50 µs, 0.02 %.\n\
    - **Packets** of unwatched ports: two loads each, on their own CPU. Watched: a few hundred ns and a \
    lock per direction of a flow, which only two CPUs that handle the same flow at once contend for. At \
    100,000 flows that ping every 2 s there are 100,000 messages a second in all, each seen once by \
    its sender and once by its receiver: 200,000 times 0.3 µs is 6 % of one CPU, spread over all.\n\
    - **Leases**: the tick reads five cache lines of each flow twenty times a second and judges only \
    those whose deadline has come. The daemon's CPU grows with the leases (table above); at 100,000 \
    flows it is ten times the figure at 10,000 and takes about a third of a core, on the one CPU that \
    the tick runs on. That is where it breaks first: beyond it the tick's 50 ms would have to grow.\n\
    - **Memory**: about 1.1 KiB a flow in the kernel's table and 1.2 KiB a lease in the daemon, so \
    100,000 flows with a lease each take some 230 MiB; the default table holds 16,384 (`--flows`).\n\
    - **Late leases**: twenty questions a tick at most, 400 a second, whatever is late.\n";

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
        let text = format!(
            "{HEAD}Made by `cargo xtask bench` on {}.\n\n```text\n{lines}```\n{GROWTH}",
            made.trim()
        );
        fs::write(&page, text).with_context(|| page.display().to_string())?;
        say(format_args!("written to {}", page.display()));
    }
    Ok(ExitCode::SUCCESS)
}
