//! Proves that the tests would notice. In: a table of small source mutations. Out: for each, a copy of
//! the tree with that one change, and the verdict whether the named tests fail on it. A mutation whose
//! text isn't found exactly once is an error: the table must follow the code.
//!
//! One copy serves all mutations in turn, and only changed files are written to it: cargo then builds
//! again what the mutation touches, and nothing else.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    build::{self, Profile},
    layout::Layout,
    process::{Missing, program, run as run_child, run_by_line},
    setup,
    stopwatch::Stopwatch,
    suite::cargo_test,
    tally::Tally,
    toolchain::{Choice, Toolchain},
};

/// Folders that are no part of a tree's sources.
const NOT_SOURCES: &[&str] = &["target", ".git"];

/// Folders of a target folder that hold compiled dependencies.
const SEEDS: &[&str] = &[
    "bpf",
    "debug/.fingerprint",
    "debug/build",
    "debug/deps",
    "release/.fingerprint",
    "release/build",
    "release/deps",
];

/// One change that the tests must notice.
struct Mutation {
    /// What it breaks, as a name for the command line.
    name: &'static str,
    /// The file, from the tree's top.
    file: &'static str,
    /// Stands in the file exactly once …
    from: &'static str,
    /// … and is replaced by this.
    to: &'static str,
    /// What the tests run against.
    subject: Subject,
    /// Arguments of `cargo test` that choose tests which must fail.
    tests: &'static [&'static str],
}

/// What has to be built before a mutation's tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// A crate that needs no eBPF object: cargo test builds all.
    Crate,
    /// The daemon, or its kernel programs: both are built first, as they ship.
    Daemon,
}

/// The table.
const MUTATIONS: &[Mutation] = &[
    Mutation {
        name: "backward-time-wraps",
        file: "watchdog-model/src/time.rs",
        from: "self.0.saturating_sub(earlier.0)",
        to: "self.0.wrapping_sub(earlier.0)",
        subject: Subject::Crate,
        tests: &["-p", "watchdog-model", "--lib", "time::"],
    },
    Mutation {
        name: "thresholds-halved",
        file: "watchdog-model/src/leases/settings.rs",
        from: "u128::from(span_ns) * u128::from(self.numerator) / u128::from(self.denominator)",
        to: "u128::from(span_ns) * u128::from(self.numerator) / u128::from(2 * self.denominator)",
        subject: Subject::Crate,
        tests: &["-p", "watchdog-model", "--lib", "stage::"],
    },
    Mutation {
        name: "cadence-fixed",
        file: "watchdog-model/src/leases/facts.rs",
        from: ".or(self.cadence_ns)",
        to: ".or(Some(timeout_ns / 3))",
        subject: Subject::Crate,
        tests: &["-p", "watchdog-model", "--test", "properties"],
    },
    Mutation {
        name: "parser-deaf",
        file: "watchdog-common/src/zookeeper.rs",
        from: "    dir.messages += 1;",
        to: "",
        subject: Subject::Crate,
        tests: &["-p", "watchdog-common", "--test", "stream"],
    },
    Mutation {
        name: "probes-detached",
        file: "watchdog/src/main.rs",
        from: "(!args.no_probes).then(",
        to: "(args.no_probes && false).then(",
        subject: Subject::Daemon,
        tests: &["-p", "watchdog", "--test", "stories", "the_demo_sees"],
    },
];

/// Builds mutated copies and proves that the tests fail on each.
///
/// The copy and the logs are under target/mutants. A mutation that no test notices, or that no longer
/// fits the code, is a failure.
#[derive(clap::Args)]
pub struct Args {
    /// Lists the mutations and ends
    #[arg(long)]
    list: bool,
    /// Tries these alone
    #[arg(value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(
        MUTATIONS.iter().map(|mutation| mutation.name)
    ))]
    names: Vec<String>,
}

/// Whether the tests are known to pass on the unchanged tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// They passed a moment ago.
    JustPassed,
    /// They run on the unchanged copy first: a test that fails anyway proves nothing.
    Run,
}

/// `cargo xtask mutate`.
pub fn run(layout: &Layout, choice: Choice, args: &Args) -> Result<ExitCode> {
    if args.list {
        for mutation in MUTATIONS {
            println!("{:<24}{}", mutation.name, mutation.file);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let toolchain = setup::toolchain(layout, choice)?;
    let failed = all(layout, &toolchain, Baseline::Run, &args.names)?;
    Ok(match failed.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Tries the named mutations, or all; gives the names of those that failed.
pub fn all(
    layout: &Layout,
    toolchain: &Toolchain,
    baseline: Baseline,
    names: &[String],
) -> Result<Vec<&'static str>> {
    let chosen = |m: &&Mutation| names.is_empty() || names.iter().any(|name| name == m.name);
    let chosen: Vec<_> = MUTATIONS.iter().filter(chosen).collect();
    let bench = Bench {
        source: layout,
        toolchain,
        copy: Layout::at(layout.mutants().join("tree")),
    };
    bench.sync(None)?;
    bench.seed()?;
    if baseline == Baseline::Run {
        bench.baseline(&chosen)?;
    }
    let mut failed = Vec::new();
    for mutation in chosen {
        if let Err(error) = bench.try_out(mutation) {
            if error.is::<Missing>() {
                return Err(error);
            }
            println!("mutation {}: {error:#}", mutation.name);
            failed.push(mutation.name);
        }
    }
    // Nobody shall mistake the copy for the project.
    bench.sync(None)?;
    Ok(failed)
}

/// The copy of the tree, and where it comes from.
struct Bench<'a> {
    source: &'a Layout,
    toolchain: &'a Toolchain,
    copy: Layout,
}

impl Bench<'_> {
    /// Gives a new copy the project's compiled dependencies. Time stamps stay, and the copy's sources
    /// are younger: the project's own crates are all built again.
    fn seed(&self) -> Result<()> {
        let (from, to) = (self.source.target(), self.copy.target());
        if to.exists() {
            return Ok(());
        }
        for folder in SEEDS.iter().filter(|folder| from.join(folder).is_dir()) {
            let to = to.join(folder);
            fs::create_dir_all(&to).with_context(|| format!("making {}", to.display()))?;
            let mut copy = program("cp");
            copy.args(["-a", "--reflink=auto", "-T"])
                .arg(from.join(folder))
                .arg(&to);
            run_child(&mut copy)?;
        }
        Ok(())
    }

    /// The chosen tests must pass on the unchanged copy.
    fn baseline(&self, mutations: &[&Mutation]) -> Result<()> {
        let mut done: Vec<(Subject, &[&str])> = Vec::new();
        for mutation in mutations {
            let run = (mutation.subject, mutation.tests);
            if done.contains(&run) {
                continue;
            }
            done.push(run);
            let verdict = self.test(mutation, "unchanged")?;
            let tests = mutation.tests.join(" ");
            ensure!(
                verdict.passed && verdict.tally.passed > 0,
                "cargo test {tests} doesn't pass on the unchanged tree, so it proves nothing \
                 ({} passed, {} failed); see {}",
                verdict.tally.passed,
                verdict.tally.failed,
                verdict.log.display()
            );
        }
        Ok(())
    }

    /// An error if the tests don't notice, or if the mutation fits no more.
    fn try_out(&self, mutation: &Mutation) -> Result<()> {
        let watch = Stopwatch::start();
        self.sync(Some(mutation))?;
        let verdict = self.test(mutation, mutation.name)?;
        let log = verdict.log.display();
        if verdict.passed {
            bail!(
                "not noticed: {} tests passed on it; see {log}",
                verdict.tally.passed
            );
        }
        let [first, others @ ..] = &verdict.tally.failures[..] else {
            bail!("no verdict: it ended without a failed test; see {log}");
        };
        let more = match others.len() {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let seconds = watch.read().as_secs_f64();
        println!(
            "mutation {}: noticed by {first}{more} ({seconds:.1} s)",
            mutation.name
        );
        Ok(())
    }

    /// Builds, then runs the tests; what they print goes to a log, since their failing is success.
    fn test(&self, mutation: &Mutation, name: &str) -> Result<Verdict> {
        if mutation.subject == Subject::Daemon {
            build::all(&self.copy, self.toolchain, Profile::Release)
                .with_context(|| format!("{name}: it must build, so that tests can refuse it"))?;
        }
        let log = self.source.mutants().join(format!("{name}.log"));
        let mut file = File::create(&log).with_context(|| format!("writing {}", log.display()))?;
        let mut write = |line: &str| writeln!(file, "{line}");
        let mut written = Ok(());
        let mut compile = cargo_test(&self.copy, mutation.tests);
        let compiled = run_by_line(compile.arg("--no-run"), |line| {
            if written.is_ok() {
                written = write(line);
            }
        })?;
        ensure!(
            compiled.success(),
            "its tests don't compile; see {}",
            log.display()
        );
        let mut tally = Tally::default();
        let mut command = cargo_test(&self.copy, mutation.tests);
        let status = run_by_line(command.args(["--", "--test-threads=1"]), |line| {
            tally.feed(line);
            if written.is_ok() {
                written = write(line);
            }
        })?;
        written.with_context(|| format!("writing {}", log.display()))?;
        Ok(Verdict {
            passed: status.success(),
            tally,
            log,
        })
    }

    /// Makes the copy equal to the source but for one mutation. Writes only files that differ, so
    /// that their new time stamps tell cargo what to build again.
    fn sync(&self, mutation: Option<&Mutation>) -> Result<()> {
        let (from, to) = (self.source.root(), self.copy.root());
        fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
        let wanted = sources(from)?;
        for gone in sources(to)?.difference(&wanted) {
            let gone = to.join(gone);
            fs::remove_file(&gone).with_context(|| format!("removing {}", gone.display()))?;
        }
        for file in &wanted {
            let path = from.join(file);
            let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let bytes = match mutation {
                Some(mutation) if Path::new(mutation.file) == file => mutation.apply(bytes)?,
                _ => bytes,
            };
            write_if_changed(&path, &to.join(file), &bytes)?;
        }
        match mutation {
            Some(m) if !wanted.contains(Path::new(m.file)) => bail!("{} is gone", m.file),
            _ => Ok(()),
        }
    }
}

/// How a run of tests ended.
struct Verdict {
    passed: bool,
    tally: Tally,
    log: PathBuf,
}

impl Mutation {
    fn apply(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let text =
            String::from_utf8(bytes).with_context(|| format!("{} is not text", self.file))?;
        let found = text.matches(self.from).count();
        ensure!(
            found == 1,
            "stale: `{}` stands {found} times in {}, not once; write its entry anew",
            self.from,
            self.file
        );
        Ok(text.replacen(self.from, self.to, 1).into_bytes())
    }
}

/// Files of a tree, from its top; without what is built.
fn sources(top: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = top.join(&folder);
        for entry in fs::read_dir(&path).with_context(|| format!("listing {}", path.display()))? {
            let entry = entry.with_context(|| format!("listing {}", path.display()))?;
            let name = entry.file_name();
            if NOT_SOURCES.iter().any(|skipped| name == **skipped) {
                continue;
            }
            let inside = folder.join(&name);
            if entry.path().is_dir() {
                folders.push(inside);
            } else {
                files.insert(inside);
            }
        }
    }
    Ok(files)
}

fn write_if_changed(like: &Path, to: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    fs::write(to, bytes).with_context(|| format!("writing {}", to.display()))?;
    let mode = fs::metadata(like)
        .with_context(|| format!("reading {}", like.display()))?
        .permissions();
    fs::set_permissions(to, mode).with_context(|| format!("setting the mode of {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutation_fits_the_code() {
        let top = Layout::of_project().unwrap();
        for mutation in MUTATIONS {
            let bytes = fs::read(top.root().join(mutation.file))
                .unwrap_or_else(|error| panic!("{}: {}: {error}", mutation.name, mutation.file));
            if let Err(error) = mutation.apply(bytes) {
                panic!("{}: {error}", mutation.name);
            }
            assert_ne!(
                mutation.from, mutation.to,
                "{} changes nothing",
                mutation.name
            );
            assert!(
                !mutation.tests.is_empty(),
                "{} names no test",
                mutation.name
            );
        }
    }

    #[test]
    fn mutation_names_are_unique() {
        let names: BTreeSet<_> = MUTATIONS.iter().map(|mutation| mutation.name).collect();
        assert_eq!(names.len(), MUTATIONS.len());
    }

    #[test]
    fn a_stale_mutation_is_refused() {
        for text in ["nothing of the sort", "self.0 self.0"] {
            let mutation = Mutation {
                name: "stale",
                file: "a.rs",
                from: "self.0",
                to: "self.1",
                subject: Subject::Daemon,
                tests: &[],
            };
            let error = mutation.apply(text.into()).unwrap_err().to_string();
            assert!(error.starts_with("stale: "), "{error}");
        }
    }
}
