//! The fault matrix as a program: each fault injected for real, each sample proved to have bitten by
//! a log that is not the daemon's, and the daemon's warnings and causes judged against it.
//!
//! `cargo xtask faults --runs 30` plays all of it; without arguments it plays its short form. It
//! needs root, Debian's packages (`cargo xtask setup`) and a built daemon, as the stories do. Every
//! fault has a dead man's switch: a process apart, which undoes it within a minute even if this one
//! is killed.

mod controls;
mod families;
mod fault;
mod record;
mod report;
mod rig;
mod sample;
mod scene;
mod starved;

#[expect(
    dead_code,
    unused_imports,
    reason = "the stories' harness has more than the faults use; its own tests run there"
)]
#[path = "../stories/harness/mod.rs"]
mod harness;

#[path = "../recordings/case.rs"]
mod case;

use clap::Parser as _;
use fault::Fault;
use report::{ControlRow, Row};
use sample::Sample;
use scene::Scene;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Injects faults and judges what the daemon says of them.
#[derive(clap::Parser)]
#[command(name = "cargo xtask faults")]
struct Args {
    /// Samples per fault, and the whole of the controls; without it the short form is played
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// Only this fault or control (or all whose name begins so); may be given several times
    #[arg(long, value_name = "FAULT")]
    only: Vec<String>,
    /// Lists faults and controls, and plays none
    #[arg(long)]
    list: bool,
    /// Writes every sample as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the table for people
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Where in the renewal cycles the faults strike; printed, so that a run can be repeated
    #[arg(long)]
    seed: Option<u64>,
    /// Measures instead how long a warning takes to leave a starved node, in so many rounds
    #[arg(long, value_name = "ROUNDS")]
    starved: Option<usize>,
    /// Records instead each fault into this folder, for the tests of the pure code
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// With --starved: its short form, with slack for a machine that does more
    #[arg(long, requires = "starved")]
    short: bool,
    /// Tells the story of every sample that went wrong
    #[arg(long)]
    stories: bool,
}

fn main() -> ExitCode {
    rig::programs::run_if_asked();
    if harness::rust_client::run_if_asked() {
        return ExitCode::SUCCESS;
    }
    let args = Args::parse();
    if let Some(rounds) = args.starved {
        let short = args.short;
        return starved(starved::Play { rounds, short }, args.page.as_deref());
    }
    let faults: Vec<&Fault> = families::all()
        .into_iter()
        .filter(|fault| {
            wanted(&args, fault.name)
                && (args.runs.is_some()
                    || args.record.is_some()
                    || fault.short > 0
                    || !args.only.is_empty())
        })
        .filter(|fault| can_be_played(fault))
        .collect();
    let controls: Vec<&controls::Control> = controls::ALL
        .iter()
        .filter(|control| {
            wanted(&args, control.name)
                && (args.runs.is_some() || control.short || !args.only.is_empty())
        })
        .collect();
    if args.list {
        for fault in families::all() {
            println!(
                "{:<22} {} -> {}",
                fault.name,
                fault.does,
                fault.expected.join(" | ")
            );
        }
        for control in controls::ALL {
            println!(
                "{:<22} {} -> nothing above late",
                control.name, control.does
            );
        }
        return ExitCode::SUCCESS;
    }
    if faults.is_empty() && controls.is_empty() {
        eprintln!(
            "faults: no fault or control is called {:?}; see --list",
            args.only
        );
        return ExitCode::from(2);
    }
    if let Some(dir) = &args.record {
        return record(&faults, dir);
    }
    run(&args, &faults, &controls)
}

fn record(faults: &[&Fault], dir: &std::path::Path) -> ExitCode {
    rig::random::seed(harness::clock::wall_us().unsigned_abs());
    let failures = record::all(faults, dir);
    let mut tally = Tally::default();
    tally.add("recordings", failures);
    tally.conclude()
}

fn starved(play: starved::Play, page: Option<&std::path::Path>) -> ExitCode {
    rig::random::seed(harness::clock::wall_us().unsigned_abs());
    let measured = match starved::run(play) {
        Ok(measured) => measured,
        Err(why) => {
            println!("test starved ... FAILED\n{why}");
            return ExitCode::FAILURE;
        }
    };
    println!("the load: {}\n{}", measured.load, measured.table);
    if let Some(path) = page {
        let made = harness::process::run("date", &["-u", "+%F %H:%M UTC"]);
        let text = starved::page(play.rounds, made.trim(), &measured);
        std::fs::write(path, text).expect("the page can be written");
    }
    let mut tally = Tally::default();
    let late = |row: &String| format!("later than promised (p99): {row}");
    tally.add("starved", measured.broken.iter().map(late).collect());
    tally.conclude()
}

/// Whether a fault can be played on this kernel; if not, that is said.
fn can_be_played(fault: &Fault) -> bool {
    let lacking = (fault.lacking)();
    if let Some(reason) = lacking {
        println!("SKIPPED: {}: {reason}", fault.name);
    }
    lacking.is_none()
}

fn wanted(args: &Args, name: &str) -> bool {
    args.only.is_empty() || args.only.iter().any(|only| name.starts_with(only.as_str()))
}

fn run(args: &Args, faults: &[&Fault], controls: &[&controls::Control]) -> ExitCode {
    let seed = args
        .seed
        .unwrap_or_else(|| harness::clock::wall_us().unsigned_abs());
    rig::random::seed(seed);
    println!("faults: seed {seed}");
    let start_us = harness::clock::now_us();
    let (mut rows, mut calm): (Vec<Row>, Vec<ControlRow>) = Default::default();
    let mut tally = Tally::default();
    // Controls have a scene each, and want no other daemon beside theirs.
    let mut scene = None;
    let mut take = |fault: &Fault, samples: Vec<Sample>| {
        let row = Row::new(fault, samples);
        println!("{}", row.line());
        if args.stories || args.runs.is_none() {
            print!("{}", row.stories());
        }
        tally.add(row.name, row.failures());
        rows.push(row);
    };
    let together = |fault: &&&Fault| args.runs.is_none() && !fault.alone;
    let (side_by_side, in_turn): (Vec<&Fault>, Vec<&Fault>) =
        faults.iter().partition(|fault| together(fault));
    if !faults.is_empty() {
        let scene = scene.get_or_insert_with(|| Scene::new(scene::T, &[], ""));
        for (fault, samples) in play_together(&side_by_side, scene) {
            take(fault, samples);
        }
        for fault in in_turn {
            take(fault, play(fault, scene, args.runs));
        }
    }
    drop(scene);
    for row in play_controls(args, controls) {
        println!("{}", row.line());
        tally.add(row.name, row.failures());
        calm.push(row);
    }
    if !rows.is_empty() {
        println!("\n{}\n", report::confusion(&rows));
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let command = format!("cargo xtask faults {}", shown(&words));
    let made = harness::process::run("date", &["-u", "+%F %H:%M UTC"]);
    if let Some(path) = &args.json {
        let text = report::json(&command, &rows, &calm).to_string();
        std::fs::write(path, text).expect("the JSON file can be written");
    }
    if let Some(path) = &args.page {
        let text = report::page(&command, made.trim(), &rows, &calm);
        std::fs::write(path, text).expect("the page can be written");
    }
    println!(
        "faults: {:.0} s",
        harness::clock::seconds(harness::clock::now_us() - start_us)
    );
    tally.conclude()
}

/// What passed and what failed, said as other tests say it.
#[derive(Debug, Default)]
struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
    fn add(&mut self, name: &str, failures: Vec<String>) {
        for failure in &failures {
            println!("failed: {failure}");
        }
        if failures.is_empty() {
            println!("test {name} ... ok");
            self.passed += 1;
        } else {
            println!("test {name} ... FAILED");
            self.failed += 1;
        }
    }

    fn conclude(&self) -> ExitCode {
        let (passed, failed) = (self.passed, self.failed);
        let (word, code) = match failed {
            0 => ("ok", ExitCode::SUCCESS),
            _ => ("FAILED", ExitCode::FAILURE),
        };
        println!("test result: {word}. {passed} passed; {failed} failed; 0 ignored");
        code
    }
}

/// Plays the short form of faults that do not disturb each other, all at the same time.
fn play_together<'a>(faults: &[&'a Fault], scene: &Scene) -> Vec<(&'a Fault, Vec<Sample>)> {
    std::thread::scope(|scope| {
        let playing: Vec<_> = faults
            .iter()
            .map(|fault| (*fault, scope.spawn(|| play(fault, scene, None))))
            .collect();
        playing
            .into_iter()
            .map(|(fault, thread)| (fault, thread.join().expect("a fault that can be played")))
            .collect()
    })
}

/// Plays the controls, in the short form all at the same time.
fn play_controls(args: &Args, controls: &[&controls::Control]) -> Vec<ControlRow> {
    if args.runs.is_some() {
        return controls
            .iter()
            .map(|control| control.play(control.span))
            .collect();
    }
    let span = Duration::from_secs(8);
    std::thread::scope(|scope| {
        let playing: Vec<_> = controls
            .iter()
            .map(|control| scope.spawn(move || control.play(span)))
            .collect();
        playing
            .into_iter()
            .map(|thread| thread.join().expect("a control that can be played"))
            .collect()
    })
}

/// Plays batches until there are enough samples.
fn play(fault: &Fault, scene: &Scene, runs: Option<usize>) -> Vec<Sample> {
    let target = runs.unwrap_or(fault.short.max(1));
    let mut samples = Vec::new();
    while samples.len() < target {
        let count = fault.batch.min(target - samples.len());
        samples.extend((fault.play)(scene, count));
    }
    samples
}

/// The command without where its output went.
fn shown(words: &[String]) -> String {
    let mut kept = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--page" || word == "--json" {
            words.next();
        } else {
            kept.push(word.as_str());
        }
    }
    kept.join(" ")
}
