//! `cargo xtask vm`. In: names of kernels. Out: what the daemon can do on each of Debian's stock
//! kernels, as a table; a whole run writes it to docs/kernels.md.
//!
//! | file | what |
//! |---|---|
//! | `kernels` | fetches the kernels, apart from the machine's own packages |
//! | `modules` | what of a kernel's modules faults are made of |
//! | `image`, `init.sh` | the guest's files and its first process |
//! | `guest` | boots it and reads its console |
//! | `page` | the table |
//! | `parcel` | files that come out of a guest, as text on its console |

mod guest;
mod image;
mod kernels;
mod modules;
mod page;
mod parcel;

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
use image::{Contents, Program};
use kernels::Kernel;
use page::{Outcome, Page};

/// What guests are made with.
const SOFTWARE: &[Package] = &[
    Package::any("qemu-system-x86"),
    Package::any("busybox-static"),
    Package::any("debian-archive-keyring"),
];
/// What the guests' faults and kernel tests need besides: found here, and taken into the guest.
const GUEST_SOFTWARE: &[Package] = &[
    Package::any("kmod"),
    Package::any("xz-utils"),
    Package::any("zstd"),
    // Busybox's own shell runs its own programs, whatever else is there.
    Package::any("dash"),
    Package::any("bash"),
    Package::any("coreutils"),
    Package::any("grep"),
    Package::any("sed"),
    Package::any("util-linux"),
    Package::any("mount"),
    Package::any("procps"),
    Package::any("iproute2"),
    Package::any("e2fsprogs"),
    Package::any("dmsetup"),
    Package::any("bindfs"),
    Package::any("libzookeeper-java"),
    Package::any("zookeeper"),
];
/// Where Debian's Java libraries lie.
const JARS: &str = "/usr/share/java";

/// Boots Debian's stock kernels in QEMU and tries the daemon in each: doctor, which hooks they take, the
/// demo, faults that this machine's kernel cannot make; with --tests the kernel tests too.
///
/// The kernels are fetched once, as packages, to target/vm, whatever this machine's own sources say. A
/// whole run of all kernels, if nothing fails, writes docs/kernels.md.
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
    /// Only these steps: doctor, probes, demo, clock-jumps, real-time-hog, faults, tests
    #[arg(long, value_name = "STEP", value_delimiter = ',', conflicts_with_all = ["load_only", "tests"])]
    steps: Vec<String>,
    /// Instead: records the faults that only guests can have, into this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["load_only", "tests", "steps"])]
    record: Option<PathBuf>,
    /// With the kernel tests: only those whose names contain this
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Boots with cgroup v1 hierarchies alone
    #[arg(long)]
    cgroup_v1: bool,
    /// Takes the binaries as they are, and builds nothing
    #[arg(long)]
    no_build: bool,
}

/// `cargo xtask vm`.
pub fn run(layout: &Layout, choice: Choice, args: &Args) -> Result<ExitCode> {
    let kernels = Kernel::named(&args.kernels)?;
    if !args.no_build {
        let toolchain = setup::toolchain(layout, choice)?;
        build::all(layout, &toolchain, Profile::Release)?;
    }
    let named: Vec<&str> = args.steps.iter().map(String::as_str).collect();
    let steps: &[&str] = match (args.load_only, args.tests) {
        _ if args.record.is_some() => &["record"],
        _ if !named.is_empty() => &named,
        (true, _) => &WHOLE[1..2],
        (false, true) => &[WHOLE, &["tests"]].concat(),
        (false, false) => WHOLE,
    };
    let page = boot_all(layout, &kernels, steps, args.cgroup_v1, &args.filter)?;
    if let Some(folder) = &args.record {
        for file in page.files("record").context("what a guest recorded")? {
            say(format_args!(
                "recorded {}",
                file.write_to(folder)?.display()
            ));
        }
    }
    println!("{}", page.table());
    let all = args.kernels.is_empty() && named.is_empty() && args.record.is_none();
    let whole = all && !args.load_only && !args.cgroup_v1 && args.filter.is_empty();
    if whole && !page.failures().is_empty() {
        say("something failed: docs/kernels.md stays as it is");
    } else if whole {
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
fn boot_all(
    layout: &Layout,
    kernels: &[Kernel],
    steps: &[&str],
    v1: bool,
    filter: &str,
) -> Result<Page> {
    apt::ensure(SOFTWARE, "to boot other kernels")?;
    let folder = layout.target().join("vm");
    fs::create_dir_all(folder.join("kernels")).context("making target/vm")?;
    let files = folder.join("files.cpio");
    let mut contents = Contents::default();
    contents.programs.push(Program {
        from: layout.daemon("release"),
        to: "bin/lease-watchdog",
    });
    for (step, test, to) in TESTS {
        if steps.contains(&step) {
            contents.programs.push(Program {
                from: built_test(layout, &folder, test)?,
                to,
            });
        }
    }
    let has_tests = contents.programs.len() > 1;
    // Busybox has none.
    contents.programs.push(Program {
        from: "/usr/bin/chrt".into(),
        to: "bin/chrt",
    });
    if has_tests {
        contents.files = software()?;
    }
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
        if has_tests {
            let to = folder.join("modules").join(kernel.name);
            contents.modules = modules::unpack(&fetched, &to)?;
        }
        image::write(&files, &contents)?;
        say(format_args!("booting {}", fetched.release));
        let log_file = folder.join(format!("{}.log", kernel.name));
        let mut log =
            File::create(&log_file).with_context(|| format!("writing {}", log_file.display()))?;
        let boot = Boot {
            image: &fetched.image,
            files: &files,
            steps,
            filter,
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

/// For `cargo xtask test`: the oldest kernel loads what it is said to load; with `--long` all of them, and
/// doctor, demo and faults too. Gives what failed, and what could not be tried.
pub fn check(layout: &Layout, long: bool) -> Result<(Vec<String>, Vec<String>)> {
    let (kernels, steps) = match long {
        true => (&kernels::KERNELS[..], WHOLE),
        false => (&kernels::KERNELS[..1], &WHOLE[1..2]),
    };
    let page = boot_all(layout, kernels, steps, false, "")?;
    println!("{}", page.table());
    Ok((page.failures(), page.absent()))
}

/// What is tried, in order, but for the kernel tests.
const WHOLE: &[&str] = &[
    "doctor",
    "probes",
    "demo",
    "clock-jumps",
    "real-time-hog",
    "faults",
];

/// Steps that are test programs: which, and where they lie in the guest.
const TESTS: [(&str, &str, &str); 3] = [
    ("faults", "faults", "tests/faults"),
    ("record", "faults", "tests/faults"),
    ("tests", "kernel", "tests/kernel"),
];

/// A test program, built and stripped of what a guest does not need.
fn built_test(layout: &Layout, folder: &Path, name: &str) -> Result<PathBuf> {
    let mut cargo = host_cargo(layout, "test");
    cargo.args(["-p", "watchdog", "--test", name, "--no-run"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    let text = output_of(cargo.stderr(std::process::Stdio::inherit()))?;
    let built = text
        .lines()
        .rev()
        .find_map(|line| executable(line, name))
        .ok_or_else(|| {
            Missing(format!(
                "cargo built no test `{name}` of the package `watchdog`"
            ))
        })?;
    let stripped = folder.join(format!("{name}-tests"));
    run_child(program("strip").arg("-o").arg(&stripped).arg(built))?;
    Ok(stripped)
}

/// The path of a test program in one of cargo's messages.
fn executable(line: &str, name: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let path = message["executable"].as_str()?;
    (message["target"]["name"] == name).then(|| path.into())
}

/// The files of the software that tests in a guest need, Java's runtime among them.
fn software() -> Result<Vec<PathBuf>> {
    apt::ensure(GUEST_SOFTWARE, "for tests in guests")?;
    let java =
        fs::canonicalize("/usr/bin/java").context("a Java runtime: run `cargo xtask setup`")?;
    let owner = output_of(program("dpkg").arg("-S").arg(&java))?;
    let java = owner.split(':').next().unwrap_or_default().to_owned();
    let mut packages: Vec<String> = GUEST_SOFTWARE
        .iter()
        .map(|package| package.name.to_owned())
        .collect();
    packages.push(java);
    let mut files = image::files_of(&packages)?;
    for entry in fs::read_dir(JARS).with_context(|| format!("listing {JARS}"))? {
        let path = entry.with_context(|| format!("listing {JARS}"))?.path();
        let is_jar = path.extension().is_some_and(|end| end == "jar");
        if is_jar && path.exists() && !files.contains(&path) {
            files.push(path);
        }
    }
    files.retain(|file| file != Path::new("/bin/sh"));
    // What these are called by, and no package owns.
    files.extend(["/bin/sh", "/usr/bin/java", "/etc/alternatives/java"].map(PathBuf::from));
    Ok(files)
}
