//! `cargo xtask vm`. In: names of kernels. Out: what the daemon can do on each of Debian's stock
//! kernels, as a table; a whole run writes it to docs/kernels.md.
//!
//! | file | what |
//! |---|---|
//! | `kernels` | fetches the kernels, apart from the machine's own packages |
//! | `image`, `init.sh` | the guest's files and its first process |
//! | `guest` | boots it and reads its console |
//! | `page` | the table |

mod guest;
mod image;
mod kernels;
mod page;

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};

use crate::{
    apt::{self, Package},
    build::{self, Profile},
    layout::Layout,
    process::{Missing, host_cargo, output_of, program, run as run_child, say},
    setup,
    toolchain::Choice,
};
use guest::Boot;
use image::Program;
use kernels::Kernel;
use page::{Outcome, Page};

/// What guests are made with.
const SOFTWARE: &[Package] = &[
    Package::any("qemu-system-x86"),
    Package::any("busybox-static"),
    Package::any("debian-archive-keyring"),
];

/// Boots Debian's stock kernels in QEMU and tries the daemon in each: which hooks they take, the
/// demo, with --tests the kernel tests too.
///
/// The kernels are fetched once, as packages, to target/vm, whatever this machine's own sources say. A
/// run of all kernels, with the demo, writes docs/kernels.md.
#[derive(clap::Args)]
pub struct Args {
    /// Which kernels: 5.10, 6.1, 6.12, newest; all unless given
    #[arg(value_name = "KERNEL")]
    kernels: Vec<String>,
    /// Only loads every program, and says how much the verifier had to walk
    #[arg(long)]
    load_only: bool,
    /// Runs the kernel tests too: some minutes a kernel
    #[arg(long, conflicts_with = "load_only")]
    tests: bool,
    /// Boots with cgroup v1 hierarchies alone
    #[arg(long)]
    cgroup_v1: bool,
}

/// `cargo xtask vm`.
pub fn run(layout: &Layout, choice: Choice, args: &Args) -> Result<ExitCode> {
    let kernels = Kernel::named(&args.kernels)?;
    let toolchain = setup::toolchain(layout, choice)?;
    build::all(layout, &toolchain, Profile::Release)?;
    let steps: &[&str] = match (args.load_only, args.tests) {
        (true, _) => &["probes"],
        (false, true) => &["probes", "demo", "tests"],
        (false, false) => &["probes", "demo"],
    };
    let page = boot_all(layout, &kernels, steps, args.cgroup_v1)?;
    println!("{}", page.table());
    let whole = args.kernels.is_empty() && !args.load_only && !args.cgroup_v1;
    if whole {
        let file = layout.root().join("docs/kernels.md");
        fs::create_dir_all(layout.root().join("docs")).context("making docs")?;
        let date = output_of(program("date").args(["-u", "+%Y-%m-%d"]))?;
        fs::write(&file, page.markdown(date.trim()))
            .with_context(|| format!("writing {}", file.display()))?;
        say(format_args!("the table is in {}", file.display()));
    }
    for line in page.failures() {
        println!("failed: {line}");
    }
    Ok(match page.failures().is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Boots each kernel; one that cannot be had is a row that says so.
fn boot_all(layout: &Layout, kernels: &[Kernel], steps: &[&str], v1: bool) -> Result<Page> {
    apt::ensure(SOFTWARE, "to boot other kernels")?;
    let folder = layout.target().join("vm");
    fs::create_dir_all(folder.join("kernels")).context("making target/vm")?;
    let files = folder.join("files.cpio");
    let mut programs = vec![Program {
        from: layout.daemon("release"),
        to: "bin/lease-watchdog",
    }];
    if steps.contains(&"tests") {
        programs.push(Program {
            from: kernel_tests(layout, &folder)?,
            to: "tests/kernel",
        });
    }
    image::write(&files, &programs)?;
    let mut page = Page::default();
    for kernel in kernels {
        let fetched = match kernel.fetch(&folder) {
            Ok(fetched) => fetched,
            Err(error) => {
                say(format_args!("{error:#}"));
                page.add(Outcome::absent(kernel.name, format!("{error:#}")));
                continue;
            }
        };
        say(format_args!("booting {}", fetched.release));
        let log_file = folder.join(format!("{}.log", kernel.name));
        let mut log =
            File::create(&log_file).with_context(|| format!("writing {}", log_file.display()))?;
        let boot = Boot {
            image: &fetched.image,
            files: &files,
            steps,
            cgroups: if v1 { "v1" } else { "v2" },
        };
        // A log that cannot be written is no reason to stop: what matters is read from the pipe.
        let console = boot.run(|line| drop(writeln!(log, "{line}")));
        let outcome = Outcome::of(kernel.name, &fetched.release, console.as_ref());
        for line in outcome.failures() {
            say(format_args!("{line}; see {}", log_file.display()));
        }
        page.add(outcome);
    }
    Ok(page)
}

/// The short form for `cargo xtask test --long`: every kernel loads what it is said to load, and
/// shows the demo. Gives what failed, and what could not be tried.
pub fn short(layout: &Layout) -> Result<(Vec<String>, Vec<String>)> {
    let page = boot_all(layout, &kernels::KERNELS, &["probes", "demo"], false)?;
    println!("{}", page.table());
    Ok((page.failures(), page.absent()))
}

/// The kernel tests, built and stripped of what a guest does not need.
fn kernel_tests(layout: &Layout, folder: &Path) -> Result<PathBuf> {
    let mut cargo = host_cargo(layout, "test");
    cargo.args(["-p", "watchdog", "--test", "kernel", "--no-run"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    let text = output_of(cargo.stderr(std::process::Stdio::inherit()))?;
    let built = text.lines().rev().find_map(executable).ok_or_else(|| {
        Missing("cargo built no test `kernel` of the package `watchdog`".to_owned())
    })?;
    let stripped = folder.join("kernel-tests");
    run_child(program("strip").arg("-o").arg(&stripped).arg(built))?;
    Ok(stripped)
}

/// The path of the kernel tests in one of cargo's messages.
fn executable(line: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let kernel = message["target"]["name"] == "kernel";
    let path = message["executable"].as_str().filter(|_| kernel)?;
    Some(path.into())
}
