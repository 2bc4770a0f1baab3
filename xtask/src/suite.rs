//! `cargo xtask test`. In: the tree. Out: every check run in turn, each timed; then a table, and one
//! line of totals. A failed check never hides the next one; a skipped test never looks like a passed
//! one.

use std::{
    env, fs,
    io::IsTerminal as _,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::{
    build::{self, Profile},
    dependencies, faults, fuzz,
    layout::Layout,
    mutate, package,
    process::{host_cargo, program, run as run_child, run_by_line, say},
    setup,
    stopwatch::Stopwatch,
    tally::{NameLists, Tally},
    toolchain::{Choice, Toolchain},
    vm,
};

/// The daemon that stories run.
const DAEMON_ENV: &str = "LEASE_WATCHDOG_BIN";
/// Set to 1 by `--long`.
const LONG_ENV: &str = "LEASE_WATCHDOG_LONG";
/// Crates that are tested without the eBPF object.
const PURE_CRATES: &[&str] = &["watchdog-common", "watchdog-model", "xtask"];
/// The daemon's integration tests that have a step of their own: a file or folder of this name, or
/// files whose name begins so.
const KERNEL: Family = Family {
    whole: "kernel",
    prefix: "kernel_",
    // Probes share the kernel.
    at_once: "1",
};
const STORIES: Family = Family {
    whole: "stories",
    prefix: "story_",
    // Stories wait most of the time, each for its own server and clients.
    at_once: "6",
};

const PACKAGE: Family = Family {
    whole: "package",
    prefix: "package_",
    at_once: "2",
};

/// The fault matrix: no libtest program, and a step of its own.
const FAULTS: Family = Family {
    whole: "faults",
    prefix: "faults_",
    at_once: "1",
};

/// Integration tests that belong together.
#[derive(Clone, Copy)]
struct Family {
    whole: &'static str,
    prefix: &'static str,
    /// How many of its tests may run at once.
    at_once: &'static str,
}

impl Family {
    fn holds(self, name: &str) -> bool {
        name == self.whole || name.starts_with(self.prefix)
    }
}

/// Runs every check: format, lints, docs, unit, kernel and story tests, a starved node, mutations; with --long the
/// fault matrix's short form and more on other kernels too.
///
/// Sets up and builds first. Ends with the seconds of each step and the line `xtask: N passed, N
/// failed`. With CI=true a skipped test is a failure.
#[derive(clap::Args)]
pub struct Args {
    /// Runs the long tests too (those marked `#[ignore]`), and tells tests by LEASE_WATCHDOG_LONG=1
    #[arg(long)]
    long: bool,
    /// Runs this step alone; may be given several times
    #[arg(long, value_enum, value_name = "STEP")]
    only: Vec<Step>,
    /// Runs only tests whose name contains this, and no step but unit, kernel and story tests
    #[arg(value_name = "NAME-FILTER")]
    filter: Option<String>,
}

/// One check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// rustfmt agrees
    Format,
    /// clippy finds nothing, in any crate and target
    Lints,
    /// rustdoc finds nothing
    Docs,
    /// Unit and property tests
    Units,
    /// Tests that load programs into this kernel
    Kernel,
    /// Real servers and clients, real faults
    Stories,
    /// The Debian package: its unit, its rights, its installation
    Package,
    /// Warnings from a node without CPU, disk and memory left, in a short form
    Starved,
    /// The fault matrix in its short form
    Faults,
    /// The programs loaded on Debian's oldest kernel, in QEMU; with --long all that is tried on all of them
    Kernels,
    /// Everything that reads others' bytes, led by coverage, a minute each
    Fuzz,
    /// Licences, sources and known defects of what it is built of
    Dependencies,
    /// Mutated daemons, which the tests must refuse
    Mutations,
}

impl Step {
    const ALL: [Self; 13] = [
        Self::Format,
        Self::Lints,
        Self::Docs,
        Self::Units,
        Self::Kernel,
        Self::Stories,
        Self::Package,
        Self::Starved,
        Self::Faults,
        Self::Kernels,
        Self::Fuzz,
        Self::Dependencies,
        Self::Mutations,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Lints => "lints",
            Self::Docs => "docs",
            Self::Units => "units",
            Self::Kernel => "kernel",
            Self::Stories => "stories",
            Self::Package => "package",
            Self::Starved => "starved",
            Self::Faults => "faults",
            Self::Kernels => "kernels",
            Self::Fuzz => "fuzz",
            Self::Dependencies => "dependencies",
            Self::Mutations => "mutations",
        }
    }

    /// Whether a name filter leaves anything of it.
    fn has_named_tests(self) -> bool {
        matches!(self, Self::Units | Self::Kernel | Self::Stories)
    }

    /// Whether it runs real servers and clients.
    fn needs_software(self) -> bool {
        matches!(
            self,
            Self::Kernel
                | Self::Stories
                | Self::Package
                | Self::Starved
                | Self::Faults
                | Self::Mutations
        )
    }
}

/// `cargo xtask test`.
pub fn run(layout: &Layout, choice: Choice, args: &Args) -> Result<ExitCode> {
    let steps = chosen(args);
    if steps == [Step::Format] {
        let mut suite = Suite::new(layout, None, args);
        suite.step(Step::Format);
        return suite.conclude();
    }
    let watch = Stopwatch::start();
    say("== setup");
    let toolchain = setup::toolchain(layout, choice)?;
    if steps.contains(&Step::Lints) {
        setup::linter(&toolchain)?;
    }
    if steps.iter().any(|step| step.needs_software()) {
        setup::test_software()?;
    }
    let mut suite = Suite::new(layout, Some(&toolchain), args);
    suite.row("setup", true, watch.read());
    let watch = Stopwatch::start();
    say("== build");
    build::all(layout, &toolchain, Profile::Release)?;
    suite.row("build", true, watch.read());
    for step in steps {
        suite.step(step);
    }
    suite.conclude()
}

fn chosen(args: &Args) -> Vec<Step> {
    let wanted = |step: &Step| match args.only[..] {
        // Samples of a matrix scatter: a run of it is looked at, and not a gate of every change.
        [] if *step == Step::Faults => args.long,
        // Other kernels, and what judges dependencies, are had from elsewhere, where a change is no reason to refuse
        // one of ours. That
        // both objects load on this kernel, within the bounds of the old ones, is a kernel test.
        [] if matches!(step, Step::Kernels | Step::Dependencies) => args.long,
        // The units have the same laws, a second each.
        [] if *step == Step::Fuzz => args.long,
        [] => args.filter.is_none() || step.has_named_tests(),
        _ => args.only.contains(step),
    };
    Step::ALL.into_iter().filter(wanted).collect()
}

/// One line of the closing table.
struct Row {
    name: &'static str,
    passed: bool,
    took: Duration,
}

/// The run so far.
struct Suite<'a> {
    layout: &'a Layout,
    toolchain: Option<&'a Toolchain>,
    args: &'a Args,
    tally: Tally,
    rows: Vec<Row>,
    /// Checks that failed otherwise than by a failed test.
    failed_checks: Vec<String>,
}

impl<'a> Suite<'a> {
    fn new(layout: &'a Layout, toolchain: Option<&'a Toolchain>, args: &'a Args) -> Self {
        Self {
            layout,
            toolchain,
            args,
            tally: Tally::default(),
            rows: Vec::new(),
            failed_checks: Vec::new(),
        }
    }

    fn row(&mut self, name: &'static str, passed: bool, took: Duration) {
        self.rows.push(Row { name, passed, took });
    }

    /// Runs a step; its error is a failed check, and no reason to stop.
    fn step(&mut self, step: Step) {
        let watch = Stopwatch::start();
        say(format_args!("== {}", step.name()));
        let (failed_before, checks_before) = (self.tally.failed, self.failed_checks.len());
        if let Err(error) = self.check(step) {
            say(format_args!("{}: {error:#}", step.name()));
            if self.tally.failed == failed_before {
                self.failed_checks.push(step.name().to_owned());
            }
        }
        let passed =
            self.tally.failed == failed_before && self.failed_checks.len() == checks_before;
        self.row(step.name(), passed, watch.read());
    }

    fn check(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Format => self.format(),
            Step::Lints => self.lints(),
            Step::Docs => self.docs(),
            Step::Units => self.units(),
            Step::Kernel => self.daemon_tests(KERNEL),
            Step::Stories => self.daemon_tests(STORIES),
            Step::Package => self.package(),
            Step::Starved => self.faults(&["--starved", "1", "--short"]),
            Step::Faults => self.faults(&[]),
            Step::Kernels => self.kernels(),
            Step::Fuzz => self.fuzz(),
            Step::Dependencies => self.dependencies(),
            Step::Mutations => self.mutations(),
        }
    }

    fn format(&self) -> Result<()> {
        for folder in [self.layout.root().to_owned(), self.layout.ebpf()] {
            let mut cargo = program("cargo");
            cargo.current_dir(&folder).args(["fmt", "--check"]);
            run_child(&mut cargo)
                .with_context(|| format!("{}: run `cargo fmt` there", folder.display()))?;
        }
        Ok(())
    }

    fn lints(&self) -> Result<()> {
        let mut clippy = host_cargo(self.layout, "clippy");
        clippy.args(["--workspace", "--all-targets", "--", "-D", "warnings"]);
        let host = run_child(&mut clippy);
        let toolchain = self.toolchain()?;
        let mut outcome = host;
        // Both objects.
        for features in [&[][..], &["--features", "old"]] {
            let mut of_kernel_side = match toolchain.clippy(self.layout) {
                Some(clippy) => clippy,
                None => {
                    say(format_args!(
                        "watchdog-ebpf: {} has no clippy; rustc's warnings are its lint, as errors",
                        toolchain.compiler
                    ));
                    toolchain.cargo(self.layout, "rustc")
                }
            };
            of_kernel_side.args(features).args(["--", "-D", "warnings"]);
            let kernel_side = run_child(&mut of_kernel_side);
            outcome = outcome.and(kernel_side.context("watchdog-ebpf"));
        }
        outcome
    }

    fn docs(&self) -> Result<()> {
        let mut doc = host_cargo(self.layout, "doc");
        doc.args(["--workspace", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "-D warnings");
        run_child(&mut doc)
    }

    fn units(&mut self) -> Result<()> {
        let pure: Vec<_> = PURE_CRATES.iter().flat_map(|name| ["-p", name]).collect();
        let mut daemon = vec!["-p", "watchdog", "--lib", "--bins"];
        // Whatever is no kernel test and no story runs here, so that no file is left out.
        let others = self.daemon_test_names(|name| {
            ![KERNEL, STORIES, PACKAGE, FAULTS]
                .iter()
                .any(|family| family.holds(name))
        })?;
        daemon.extend(others.iter().flat_map(|name| ["--test", name]));
        let runs = [
            self.cargo_test(&pure, &[]),
            self.cargo_test(&daemon, &[]),
            self.cargo_test(&["-p", "watchdog", "--doc"], &[]),
        ];
        runs.into_iter().collect()
    }

    fn daemon_tests(&mut self, family: Family) -> Result<()> {
        let names = self.daemon_test_names(|name| family.holds(name))?;
        if names.is_empty() {
            let folder = self.layout.daemon_tests();
            let Family { whole, prefix, .. } = family;
            bail!(
                "no test {whole}/main.rs or {prefix}*.rs in {}",
                folder.display()
            );
        }
        let mut args = vec!["-p", "watchdog"];
        args.extend(names.iter().flat_map(|name| ["--test", name]));
        self.cargo_test(&args, &["--test-threads", family.at_once])
    }

    /// Names of the daemon's integration tests, in order.
    fn daemon_test_names(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let folder = self.layout.daemon_tests();
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        for entry in
            fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))?
        {
            let path = entry
                .with_context(|| format!("listing {}", folder.display()))?
                .path();
            let is_test =
                path.extension().is_some_and(|ext| ext == "rs") || path.join("main.rs").is_file();
            let name = path.file_stem().and_then(|stem| stem.to_str());
            names.extend(
                name.filter(|name| is_test && wanted(name))
                    .map(str::to_owned),
            );
        }
        names.sort();
        Ok(names)
    }

    fn package(&mut self) -> Result<()> {
        let made = package::make(self.layout, self.toolchain()?)?;
        say(format_args!("{}", made.display()));
        self.daemon_tests(PACKAGE)
    }

    fn faults(&mut self, words: &[&str]) -> Result<()> {
        let mut command = cargo_test(self.layout, faults::TEST);
        command.arg("--").args(words);
        self.counted(command, faults::TEST)
    }

    /// cargo test of programs made with libtest.
    fn cargo_test(&mut self, which: &[&str], how: &[&str]) -> Result<()> {
        let mut command = cargo_test(self.layout, which);
        command
            .args(&self.args.filter)
            .args(["--", "--show-output"])
            .args(how);
        if self.args.long {
            command.arg("--include-ignored").env(LONG_ENV, "1");
        }
        self.counted(command, which)
    }

    /// Tests, their output shown as it comes and counted.
    fn counted(&mut self, mut command: Command, which: &[&str]) -> Result<()> {
        let (mut tally, mut lists) = (Tally::default(), NameLists::default());
        let status = run_by_line(&mut command, |line| {
            tally.feed(line);
            if !lists.holds(line) {
                println!("{line}");
            }
        })?;
        let failed = tally.failed;
        self.tally.add(tally);
        if status.success() {
            return Ok(());
        }
        if failed == 0 {
            // A crash or a compiler's error: no failed test stands for it.
            self.failed_checks
                .push(format!("cargo test {}", which.join(" ")));
        }
        bail!("cargo test {} failed ({status})", which.join(" "))
    }

    fn kernels(&mut self) -> Result<()> {
        let (failed, absent) = vm::check(self.layout, self.args.long)?;
        self.failed_checks.extend(failed);
        self.tally.skipped.extend(absent);
        Ok(())
    }

    fn fuzz(&mut self) -> Result<()> {
        let findings = fuzz::check(self.layout, self.toolchain()?)?;
        self.failed_checks.extend(findings);
        Ok(())
    }

    fn dependencies(&mut self) -> Result<()> {
        let (failed, absent) = dependencies::check(self.layout)?;
        self.failed_checks.extend(failed);
        self.tally.skipped.extend(absent);
        Ok(())
    }

    fn mutations(&mut self) -> Result<()> {
        let baseline = match self.rows.iter().all(|row| row.passed) && self.args.only.is_empty() {
            true => mutate::Baseline::JustPassed,
            false => mutate::Baseline::Run,
        };
        let failed = mutate::all(self.layout, self.toolchain()?, baseline, &[])?;
        self.failed_checks
            .extend(failed.into_iter().map(|name| format!("mutation {name}")));
        Ok(())
    }

    fn toolchain(&self) -> Result<&'a Toolchain> {
        self.toolchain.context("this step needs the BPF toolchain")
    }

    /// The table, the names, the line of totals.
    fn conclude(self) -> Result<ExitCode> {
        self.print_table();
        for name in &self.tally.failures {
            println!("failed: {name}");
        }
        for name in &self.failed_checks {
            println!("failed: {name}");
        }
        for skipped in &self.tally.skipped {
            println!("skipped: {skipped}");
        }
        let nothing_matched = self.args.filter.is_some() && self.tally.ran() == 0;
        if nothing_matched {
            println!("failed: no test has that name");
        }
        let skips = self.tally.skipped.len();
        let skips_count = env::var("CI").is_ok_and(|value| value == "true");
        let failed = self.tally.failed
            + self.failed_checks.len() as u64
            + u64::from(nothing_matched)
            + if skips_count { skips as u64 } else { 0 };
        let passed = self.tally.passed.saturating_sub(skips as u64);
        let and_skipped = if skips > 0 {
            format!(", {skips} skipped")
        } else {
            String::new()
        };
        println!("xtask: {passed} passed, {failed} failed{and_skipped}");
        Ok(if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn print_table(&self) {
        println!("\n{:<12}{:>9}", "step", "seconds");
        for row in &self.rows {
            let verdict = if row.passed { "" } else { "  failed" };
            println!("{:<12}{:>9.1}{verdict}", row.name, row.took.as_secs_f64());
        }
        let total: Duration = self.rows.iter().map(|row| row.took).sum();
        println!("{:<12}{:>9.1}\n", "all", total.as_secs_f64());
    }
}

/// `cargo test` in a tree, with that tree's daemon for the stories.
pub fn cargo_test(layout: &Layout, which: &[&str]) -> Command {
    let mut command = host_cargo(layout, "test");
    command
        .arg("--no-fail-fast")
        .args(which)
        .env(DAEMON_ENV, layout.daemon("release"));
    if std::io::stderr().is_terminal() && env::var_os("CARGO_TERM_COLOR").is_none() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    command
}
