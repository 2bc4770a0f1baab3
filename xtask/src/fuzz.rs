//! `cargo xtask fuzz`. In: the tree. Out: everything that reads others' bytes, fed with inputs that are led by
//! which edges of the product they reach; a table on standard output and in docs/reliability.md; each input
//! that broke a law, in target/fuzz/findings.
//!
//! The fuzzer is libFuzzer (of the crate libfuzzer-sys), and LLVM's own pass counts edges: the stable compiler
//! takes both. Corpora are kept in target/fuzz/corpus from run to run.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::{self, Package},
    build,
    layout::Layout,
    made,
    process::{output_of, program, run as run_child, run_by_line, say},
    setup,
    stopwatch::Stopwatch,
    toolchain::{Choice, Toolchain},
};

/// What the fuzzer itself, in C++, is compiled by.
const COMPILER: &[Package] = &[Package::any("g++")];
/// Counters at each edge, and comparisons that the fuzzer is told of. What cargo-fuzz sets, without what only
/// a nightly compiler takes.
const COUNTED: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];
/// As optimised as what is installed, with every check that a test has.
const PROFILE: &[(&str, &str)] = &[
    ("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true"),
    ("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true"),
    ("CARGO_PROFILE_RELEASE_INCREMENTAL", "false"),
];
/// How the program is told which target it is, and where seeds belong.
const TARGET: &str = "WATCHDOG_FUZZ_TARGET";
const SEEDS: &str = "WATCHDOG_FUZZ_SEEDS";
/// An input that is not over after so many seconds breaks the laws of all targets.
const HANG_S: u32 = 20;
/// Of what it said before it broke off, lines.
const SHOWN: usize = 30;
/// Memory of the fuzzer with all it keeps, MiB.
const MOST_MIB: u32 = 1536;

/// Feeds everything that reads others' bytes with inputs led by coverage.
///
/// Each target has seeds (valid streams, files, answers) and laws: those of the property tests, and bounds of time
/// and memory. What breaks one is kept in target/fuzz/findings, to be made a test; then the run fails.
/// Writes its part of docs/reliability.md, or the rows of the targets that are named.
#[derive(clap::Args)]
pub struct Args {
    /// Minutes for each target
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// How many targets at once
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Names the targets, and does nothing else
    #[arg(long)]
    list: bool,
    /// Runs these inputs alone, once each: findings, to see whether they are mended
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "targets")]
    again: Vec<PathBuf>,
    /// Which targets; all unless named
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// What became of a target.
#[derive(Debug, Default)]
struct Row {
    name: String,
    inputs: u64,
    seconds: f64,
    edges: u64,
    corpus: u64,
    finding: Option<String>,
}

/// `cargo xtask fuzz`.
pub fn run(layout: &Layout, choice: Choice, args: &Args) -> Result<ExitCode> {
    let fuzzer = Fuzzer::built(layout, &setup::toolchain(layout, choice)?)?;
    let known = fuzzer.targets()?;
    if args.list {
        for (name, _) in &known {
            println!("{name}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
    let is_known = |name: &&String| names.contains(&name.as_str());
    if let Some(unknown) = args.targets.iter().find(|name| !is_known(name)) {
        bail!(
            "there is no target {unknown:?}; known: {}",
            names.join(", ")
        );
    }
    if !args.again.is_empty() {
        for name in &args.targets {
            run_child(fuzzer.of(name).args(&args.again))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = |name: &String| args.targets.is_empty() || args.targets.contains(name);
    let chosen = known.into_iter().filter(|(name, _)| wanted(name));
    let rows = fuzzer.feed_all(chosen.collect(), args.minutes, args.jobs)?;
    let table = table(&rows);
    println!("{table}");
    let page = layout.root().join("docs/reliability.md");
    let date = output_of(program("date").args(["-u", "+%F %H:%M UTC"]))?;
    let (date, minutes) = (date.trim(), args.minutes);
    let text = if args.targets.is_empty() {
        format!("Made by `cargo xtask fuzz --minutes {minutes}` on {date}.\n\n{table}")
    } else {
        let old = made::part(&page, "fuzz")?;
        with_rows(&old, &rows, &format!("`--minutes {minutes}` on {date}"))
    };
    made::set(&page, "fuzz", &text)?;
    say(format_args!("the table is in {}", page.display()));
    let broken = rows.iter().any(|row| row.finding.is_some());
    Ok(match broken {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// All targets, for `cargo xtask test --long`: what was found.
///
/// # Errors
/// It cannot be built or run.
pub fn check(layout: &Layout, toolchain: &Toolchain) -> Result<Vec<String>> {
    let fuzzer = Fuzzer::built(layout, toolchain)?;
    let rows = fuzzer.feed_all(fuzzer.targets()?, 1.0, 1)?;
    let found = |row: &Row| Some(format!("fuzz {}: {}", row.name, row.finding.as_ref()?));
    Ok(rows.iter().filter_map(found).collect())
}

/// The program, built.
struct Fuzzer {
    program: PathBuf,
    folder: PathBuf,
}

impl Fuzzer {
    fn built(layout: &Layout, toolchain: &Toolchain) -> Result<Self> {
        apt::ensure(COMPILER, "to build the fuzzer")?;
        build::object(layout, toolchain)?;
        let folder = layout.target().join("fuzz");
        let about = output_of(program("rustc").arg("-vV"))?;
        let host = about
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .context("rustc -vV names no host")?;
        say("building the fuzzer (some minutes the first time)");
        let mut cargo = program("cargo");
        cargo
            .current_dir(layout.root())
            .args(["build", "--release"]);
        // With a target named, build scripts and macros of the compiler are built without counters.
        cargo.args(["--package", "watchdog-fuzz", "--target", host]);
        cargo.arg("--target-dir").arg(&folder);
        cargo.env_remove("RUSTFLAGS");
        cargo.env("CARGO_ENCODED_RUSTFLAGS", COUNTED.join("\x1f"));
        run_child(cargo.envs(PROFILE.iter().copied())).context("building the fuzzer")?;
        Ok(Self {
            program: folder.join(host).join("release/watchdog-fuzz"),
            folder,
        })
    }

    /// Names, and how long an input may be.
    fn targets(&self) -> Result<Vec<(String, u64)>> {
        let listed = output_of(program(&self.program).env_remove(TARGET))?;
        let parse = |line: &str| {
            let (name, longest) = line.split_once(' ')?;
            Some((name.to_owned(), longest.parse().ok()?))
        };
        listed
            .lines()
            .map(|line| parse(line).with_context(|| format!("the fuzzer lists {line:?}")))
            .collect()
    }

    fn of(&self, name: &str) -> Command {
        let mut command = program(&self.program);
        command.env(TARGET, name).env("RUST_BACKTRACE", "0");
        command
    }

    fn subfolder(&self, what: &str, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(what).join(name);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(folder)
    }

    /// All of these, some at once; in their order.
    fn feed_all(&self, all: Vec<(String, u64)>, minutes: f64, jobs: usize) -> Result<Vec<Row>> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut rows = Vec::new();
            while let Some((name, longest)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                say(format_args!("== {name}"));
                rows.push(self.feed(name, *longest, minutes)?);
            }
            Ok(rows)
        };
        let done: Vec<Result<Vec<Row>>> = thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
            let outcome = |worker: thread::ScopedJoinHandle<'_, _>| {
                worker
                    .join()
                    .unwrap_or_else(|_| bail!("a target's thread panicked"))
            };
            workers.into_iter().map(outcome).collect()
        });
        let mut rows = Vec::new();
        for some in done {
            rows.extend(some?);
        }
        rows.sort_by_key(|row| all.iter().position(|(name, _)| *name == row.name));
        Ok(rows)
    }

    /// Seeds, then inputs for so many minutes, or to the first that breaks a law.
    fn feed(&self, name: &str, longest: u64, minutes: f64) -> Result<Row> {
        let (seeds, corpus) = (
            self.subfolder("seeds", name)?,
            self.subfolder("corpus", name)?,
        );
        let findings = self.subfolder("findings", name)?;
        run_child(self.of(name).env(SEEDS, &seeds)).context("writing seeds")?;
        let before = entries(&findings)?;
        let watch = Stopwatch::start();
        let mut command = self.of(name);
        command
            .current_dir(&self.folder)
            .arg(format!("-max_total_time={}", (minutes * 60.0).ceil()))
            .arg(format!("-max_len={longest}"))
            .arg(format!("-timeout={HANG_S}"))
            .arg(format!("-rss_limit_mb={MOST_MIB}"))
            .arg(format!("-artifact_prefix={}/", findings.display()))
            .args(["-print_final_stats=1"])
            .args([&corpus, &seeds]);
        let mut row = Row {
            name: name.to_owned(),
            ..Row::default()
        };
        let (mut last, mut said) = (VecDeque::new(), String::new());
        let status = run_by_line(&mut command, |line| {
            row.heed(line);
            if line.contains("panicked at") {
                said = line.to_owned();
            } else if said.contains("panicked at") && !said.contains(": ") && !line.is_empty() {
                said.push(' ');
                said.push_str(line);
            }
            last.push_back(line.to_owned());
            if last.len() > SHOWN {
                last.pop_front();
            }
        })?;
        row.seconds = watch.read().as_secs_f64();
        if !status.success() {
            for line in &last {
                println!("{line}");
            }
            let after = entries(&findings)?;
            let kept = after.iter().find(|file| !before.contains(file));
            let file = kept.map_or("no input kept".to_owned(), |file| {
                file.display().to_string()
            });
            say(format_args!("{name}: {said}: {file}"));
            row.finding = Some(format!("{file} ({status})"));
        }
        Ok(row)
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    listed
        .map(|entry| Ok(entry.context("listing")?.path()))
        .collect()
}

impl Row {
    fn line(&self) -> String {
        let each_s = self.inputs as f64 / self.seconds.max(0.001);
        let found = u8::from(self.finding.is_some());
        format!(
            "| `{}` | {} | {:.0} | {each_s:.0} | {} | {} | {found} |",
            self.name, self.inputs, self.seconds, self.edges, self.corpus
        )
    }

    /// What libFuzzer says: `#123 NEW cov: 45 ft: 67 corp: 8/90b …`, `stat::number_of_executed_units: 123`.
    fn heed(&mut self, line: &str) {
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            self.inputs = count.trim().parse().unwrap_or(self.inputs);
        }
        if !line.starts_with('#') {
            return;
        }
        let mut words = line.split_whitespace();
        let number = words.next().and_then(|word| word[1..].parse().ok());
        self.inputs = number.unwrap_or(self.inputs);
        while let Some(word) = words.next() {
            let value = match word {
                "cov:" => &mut self.edges,
                "corp:" => &mut self.corpus,
                _ => continue,
            };
            let figure = words.next().and_then(|word| word.split('/').next());
            *value = figure
                .and_then(|figure| figure.parse().ok())
                .unwrap_or(*value);
        }
    }
}

/// The page's part with these rows in it, which were made by themselves.
fn with_rows(old: &str, rows: &[Row], how: &str) -> String {
    let mut lines: Vec<String> = old.trim_end().lines().map(str::to_owned).collect();
    for row in rows {
        let by_itself = format!("- By itself: `{}`, ", row.name);
        lines.retain(|line| !line.starts_with(&by_itself));
        let begins = format!("| `{}` |", row.name);
        let line = row.line();
        match lines.iter().position(|line| line.starts_with(&begins)) {
            Some(place) => lines[place] = line,
            None => {
                let last = lines.iter().rposition(|line| line.starts_with('|'));
                lines.insert(last.map_or(lines.len(), |last| last + 1), line);
            }
        }
        if !lines.iter().any(|line| line.starts_with("- By itself: ")) {
            lines.push(String::new());
        }
        lines.push(format!("{by_itself}{how}."));
    }
    lines.join("\n")
}

fn table(rows: &[Row]) -> String {
    let mut text = "| target | inputs | seconds | inputs/s | edges reached | corpus | findings |\n\
                    |---|---|---|---|---|---|---|\n"
        .to_owned();
    for row in rows {
        text.push_str(&row.line());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuzzers_lines_are_understood() {
        let mut row = Row::default();
        row.heed("INFO: seed corpus: files: 3 min: 1b");
        row.heed("#4096\tpulse  cov: 1203 ft: 4000 corp: 77/9Kb lim: 4096 exec/s: 10 rss: 40Mb");
        row.heed(
            "#5000\tNEW    cov: 1204 ft: 4001 corp: 78/9Kb lim: 4096 exec/s: 10 rss: 40Mb L: 3/9",
        );
        row.heed("stat::number_of_executed_units: 6001");
        assert_eq!((row.inputs, row.edges, row.corpus), (6001, 1204, 78));
        row.seconds = 2.0;
        row.name = "x".to_owned();
        let all = table(&[row]);
        assert!(all.ends_with("| `x` | 6001 | 2 | 3000 | 1204 | 78 | 0 |\n"));
    }

    #[test]
    fn a_row_is_made_again_by_itself() {
        let row = |name: &str, inputs| Row {
            name: name.to_owned(),
            inputs,
            seconds: 1.0,
            ..Row::default()
        };
        let old = format!("Made.\n\n{}", table(&[row("a", 1), row("b", 2)]));
        let new = with_rows(&old, &[row("a", 3), row("c", 4)], "then");
        let new = with_rows(&new, &[row("a", 5)], "now");
        let lines: Vec<&str> = new.lines().skip(4).collect();
        assert_eq!(
            lines,
            [
                "| `a` | 5 | 1 | 5 | 0 | 0 | 0 |",
                "| `b` | 2 | 1 | 2 | 0 | 0 | 0 |",
                "| `c` | 4 | 1 | 4 | 0 | 0 | 0 |",
                "",
                "- By itself: `c`, then.",
                "- By itself: `a`, now."
            ]
        );
    }
}
