//! `lease-watchdog explain`: what happened, from logs.
//!
//! Data flows one way: `gather` finds files, `input` and `unpack` open them, `wrap` takes off what others put
//! around lines, `readers` find each line's head, `patterns` its meaning, `scan` (for a file of many programs
//! `mixed`) gathers events and the threads' activity; `findings` derives moments by named [`rules`];
//! `incidents` puts them together with `stalls`, `lapses`, `roles`, `causes` and `leads` into a
//! [`report`], which `text` and `html` show. Never: this machine's clock, a resolver, a claim that no line
//! or rule stands under.

mod activity;
mod causes;
mod clocks;
mod findings;
mod gather;
mod html;
mod incidents;
mod input;
mod lanes;
mod lapses;
#[cfg(any(test, fuzzing))]
pub mod laws;
mod leads;
mod meaning;
mod mixed;
mod parties;
mod patterns;
mod readers;
mod recorded;
pub mod report;
mod roles;
pub mod rules;
mod scan;
mod sessions;
mod stalls;
mod stamp;
mod text;
mod unpack;
pub mod wall;
mod wrap;
mod years;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::printable::printable_lines;

use incidents::Which;
use report::{Report, SourceReport};
use rules::RULES;
use scan::Logs;
use wall::{DAY, Wall};

/// Incidents that are told at most; `--at` leads to the others.
const MOST_INCIDENTS: usize = 50;

/// Options of `explain`.
#[derive(Args, Clone, Debug, Default)]
pub struct ExplainArgs {
    /// Logs: files, directories, tar archives, "-" for standard input; gzip, bzip2, xz and zstd are unpacked,
    /// files of one rotated set are one log. Where the kind is not given it is found: zookeeper-c,
    /// zookeeper-java, kazoo, glog, kernel, etcd, jvm-gc, dumpe2fs.
    #[arg(long = "log", value_name = "[KIND:]FILE", num_args = 1.., required_unless_present_any = ["recordings", "replay"])]
    pub logs: Vec<String>,
    /// Recordings of the daemon (recorder.dir, --record-all), of any number of nodes.
    #[arg(long = "recording", value_name = "FILE", num_args = 1..)]
    pub recordings: Vec<PathBuf>,
    /// Judge a recording anew, by the rules of this version, and say where that differs.
    #[arg(long, value_name = "RECORDING", conflicts_with_all = ["logs", "recordings", "html"])]
    pub replay: Option<PathBuf>,
    /// Only the incident at or next to this time, "22:36:49" or "2022-11-04 22:36:49".
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// The zone of stamps that name none, "+08:00" or "Europe/Berlin", and of the report.
    #[arg(long, value_name = "ZONE")]
    pub timezone: Option<String>,
    /// More patterns of messages, in the form of the project's own.
    #[arg(long, value_name = "FILE")]
    pub patterns: Vec<PathBuf>,
    /// Write JSON to standard output.
    #[arg(long, conflicts_with = "text")]
    pub json: bool,
    /// Write text to standard output; so it does without --json or --html.
    #[arg(long)]
    pub text: bool,
    /// Write a page with a timeline to this file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Reads, derives, tells.
///
/// # Errors
///
/// A file that cannot be read or written, a kind, time or zone that does not exist: with its name.
pub fn run(args: &ExplainArgs) -> Result<()> {
    if let Some(file) = &args.replay {
        return tell(&replayed(file, args.json)?);
    }
    let report = explain(args)?;
    if let Some(file) = &args.html {
        std::fs::write(file, html::render(&report))
            .with_context(|| format!("--html {}", file.display()))?;
    }
    let told = if args.json {
        serde_json::to_string_pretty(&report)? + "\n"
    } else if args.text || args.html.is_none() {
        text::render(&report)
    } else {
        return Ok(());
    };
    tell(&told)
}

fn tell(told: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(told.as_bytes()) {
        // The reader has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context("standard output"),
    }
}

/// The report.
///
/// # Errors
///
/// As [`run`], but for writing.
pub fn explain(args: &ExplainArgs) -> Result<Report> {
    let patterns = patterns::Patterns::load(&args.patterns)?;
    let recordings = args.recordings.iter();
    let typed: Vec<String> = recordings
        .map(|path| format!("recording:{}", path.display()))
        .chain(args.logs.iter().cloned())
        .collect();
    let mut gathered = gather::gather(&typed)?;
    let (recordings, inputs): (Vec<_>, Vec<_>) = std::mem::take(&mut gathered.inputs)
        .into_iter()
        .partition(|input| input.kind == readers::Kind::Recording);
    let mut logs = scan::scan(inputs, &patterns, args.timezone.as_deref())?;
    logs.unread.splice(0..0, gathered.unread.iter().cloned());
    let mut clocks = clocks::Clocks::default();
    for input in &recordings {
        let recording = input::open(&input.path, None)
            .and_then(crate::recorder::format::Recording::from_reader);
        let recording = match recording {
            Ok(recording) => recording,
            // Others may tell enough.
            Err(error) => {
                logs.unread.push(format!("{}: {error:#}", input.name));
                continue;
            }
        };
        clocks.add(logs.sources.len(), &recording);
        recorded::add(&mut logs, input, recording);
    }
    if logs.sources.is_empty() && !typed.is_empty() {
        bail!("nothing to explain: {}", logs.unread.join("\n"));
    }
    logs.aliases = clocks.aliases();
    let parties = parties::parties(&logs);
    logs.clocks = clocks.settle(&mut logs, &parties);
    report_of(&logs, args.at.as_deref())
}

/// What this version says to a recording, and whether that is what was said then.
fn replayed(file: &std::path::Path, json: bool) -> Result<String> {
    let recording = crate::recorder::format::Recording::read(file)?;
    retold(&recording, json).with_context(|| file.display().to_string())
}

fn retold(recording: &crate::recorder::format::Recording, json: bool) -> Result<String> {
    let outcome = crate::recorder::replay::replay(recording)?;
    let mut out = recorded::lines(recording, &outcome.now, json).join("\n");
    if json {
        return Ok(out + "\n");
    }
    if let Some(torn) = &recording.torn {
        out.push_str(&format!("\n\n{torn}"));
    }
    let verdict = match outcome.difference() {
        None => format!("{} lines, the same as recorded", outcome.now.len()),
        Some((then, now)) => {
            let one = |said: Option<_>| {
                let said: Vec<_> = said.into_iter().collect();
                let lines = recorded::lines(recording, &said, false);
                lines
                    .first()
                    .cloned()
                    .unwrap_or_else(|| "nothing more".to_owned())
            };
            format!(
                "{} lines, {} recorded; the first difference:\n  then: {}\n  now:  {}",
                outcome.now.len(),
                outcome.then.len(),
                one(then),
                one(now)
            )
        }
    };
    // Names are the recording's.
    Ok(printable_lines(&format!("{out}\n\n{verdict}\n")))
}

fn report_of(logs: &Logs, at: Option<&str>) -> Result<Report> {
    let parties = parties::parties(logs);
    let derived = findings::derive(logs);
    let which = match at {
        Some(text) => Which::At(moment(text, logs)?),
        None => Which::Last(MOST_INCIDENTS),
    };
    let (incidents, all) = incidents::incidents(logs, &parties, &derived, which);
    let mut assumptions = assumptions(logs);
    if at.is_none() && all > MOST_INCIDENTS {
        assumptions.push(format!(
            "{all} incidents; the last {MOST_INCIDENTS} are told, --at TIME leads to the others"
        ));
    }
    let used: BTreeSet<_> = incidents
        .iter()
        .flat_map(|incident| {
            let rows = incident.timeline.iter().filter_map(|row| row.rule);
            let falsely = incident.lapsed.iter().any(|lapse| lapse.false_expiry);
            rows.chain(falsely.then_some(rules::Rule::DelayedExpiry))
                .chain(
                    incident
                        .dual_leader
                        .as_ref()
                        .map(|_| rules::Rule::TwoLeaders),
                )
                .chain(incident.same_host.then_some(rules::Rule::SameHost))
                .chain((!incident.stalls.is_empty()).then_some(rules::Rule::Silence))
        })
        .collect();
    let sources = logs.sources.iter().zip(parties).map(|(source, party)| {
        let range = source.activity.range();
        SourceReport {
            party,
            kind: source.series.kind.name(),
            files: source.files.clone(),
            first: range.map(|range| range.0),
            last: range.map(|range| range.1),
            counts: source.counts,
            trouble: source.trouble.clone(),
        }
    });
    Ok(Report {
        sources: sources.collect(),
        unread: logs.unread.clone(),
        assumptions,
        incidents,
        rules: RULES
            .into_iter()
            .filter(|about| used.contains(&about.rule))
            .collect(),
    })
}

fn assumptions(logs: &Logs) -> Vec<String> {
    let mut said = Vec::new();
    let recording = |source: &scan::Source| source.series.kind == readers::Kind::Recording;
    if logs.sources.iter().any(recording) {
        said.push("recordings have their times in UTC".to_owned());
    }
    said.extend(logs.clocks.iter().cloned());
    if logs.sources.iter().all(recording) {
        return said;
    }
    let zone = &logs.zone;
    let east = zone.east;
    let sign = if east < 0 { '-' } else { '+' };
    let offset = format!("{sign}{:02}:{:02}", east.abs() / 3600, east.abs() / 60 % 60);
    said.push(match zone.source {
        "nothing" => {
            "no stamp names a zone: all are taken to be of one, --timezone names it".to_owned()
        }
        source => format!(
            "times are told in {offset} ({source}); stamps without a zone are taken to be of it"
        ),
    });
    match logs.years {
        scan::Years::Logs => {}
        scan::Years::FileTimes => {
            said.push(
                "no line tells a year: dates are taken to be near the files' own times".to_owned(),
            );
        }
        scan::Years::Nothing => {
            said.push(
                "no line, name or file time tells a year: dates are shown in 2000".to_owned(),
            );
        }
    }
    said
}

/// `--at`: a time, with its date or on the last day of the logs.
fn moment(text: &str, logs: &Logs) -> Result<Wall> {
    let text = text.trim();
    if let Some(stamp) = stamp::iso(text.as_bytes()) {
        return Ok(Wall(stamp.local));
    }
    let Some((of_day, _)) = stamp::clock(text.as_bytes()) else {
        bail!("--at {text}: write \"22:36:49\" or \"2022-11-04 22:36:49\"");
    };
    let last = logs
        .sources
        .iter()
        .filter_map(|source| source.activity.range())
        .map(|range| range.1)
        .max();
    let day = last.unwrap_or_default().0.div_euclid(DAY);
    Ok(Wall(day * DAY + of_day))
}
