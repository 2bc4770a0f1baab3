//! The table of kernels. In: what guests said. Out: text for a terminal, Markdown for docs/kernels.md,
//! and what failed.

use std::fmt::Write as _;

use anyhow::Error;
use serde_json::Value;

use super::{
    guest::{Console, Step},
    parcel::{self, Parcel},
};
use crate::tally::Tally;

/// What is lost without a signal.
const LOST: [(&str, &str); 10] = [
    ("flow_start", "no lease can be seen"),
    ("packets_in", "no lease can be seen"),
    ("packets_out", "no lease can be seen"),
    ("flow_state", "no lease can be seen"),
    (
        "reads",
        "that a renewal or reply lies unread in its socket (`renewal_unread`, `reply_unread`) is not \
         told from one that is not answered; threads that only read are not known to serve the flow",
    ),
    (
        "writes",
        "that a renewal is stuck in sending (`renewal_stuck_sending`) is not told from one that was \
         not sent; threads that only write are not known to serve the flow",
    ),
    ("retransmits", "`network_loss` lacks its best proof"),
    (
        "switches",
        "what a thread does is read from /proc when the lease is late, and its history is not known",
    ),
    ("wakeups", "a starved thread is known by /proc alone"),
    (
        "plaintext",
        "what is inside TLS is not read; its flows are followed by their records",
    ),
];

/// Steps that are the demo: by itself, and while something goes on.
const DEMOS: [&str; 3] = ["demo", "clock-jumps", "real-time-hog"];

/// What one kernel made of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    name: String,
    release: String,
    /// Why it was not tried.
    absent: Option<String>,
    /// The guest itself failed.
    broken: Option<String>,
    hooks: Vec<Hook>,
    steps: Vec<Step>,
}

/// A way to a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hook {
    signal: String,
    program: String,
    hook: String,
    what: String,
    instructions: Option<u64>,
    refused: Option<String>,
}

impl Outcome {
    /// A kernel that could not be fetched.
    pub fn absent(name: &str, why: String) -> Self {
        Self {
            name: name.to_owned(),
            absent: Some(why),
            ..Self::default()
        }
    }

    /// What a guest's console says.
    pub fn of(name: &str, release: &str, console: Result<&Console, &Error>) -> Self {
        let mut outcome = Self {
            name: name.to_owned(),
            release: release.to_owned(),
            ..Self::default()
        };
        match console {
            Ok(console) => {
                outcome.steps.clone_from(&console.steps);
                let lines = outcome.step("probes").into_iter();
                let lines = lines.flat_map(|step| &step.lines);
                outcome.hooks = lines.filter_map(|line| hook(line)).collect();
            }
            Err(error) => outcome.broken = Some(format!("{error:#}")),
        }
        outcome
    }

    /// What failed, a line each.
    pub fn failures(&self) -> Vec<String> {
        let name = &self.name;
        let mut failures: Vec<String> = Vec::new();
        failures.extend(
            self.broken
                .iter()
                .map(|why| format!("kernel {name}: {why}")),
        );
        for step in &self.steps {
            let as_wanted = match step.code {
                Some(0) => true,
                // It starts with less: what is lost stands in the page.
                Some(1) => step.name == "doctor",
                _ => false,
            };
            if !as_wanted {
                let mut said = step.lines.iter().rev().filter(|line| !line.is_empty());
                let last = said.next().map_or("", String::as_str);
                failures.push(format!("kernel {name}: {}: {last}", step.name));
            }
        }
        failures
    }

    fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == name)
    }

    fn cell(&self, program: &str) -> Option<String> {
        let hook = self.hooks.iter().find(|hook| hook.program == program)?;
        Some(match (&hook.what[..], hook.instructions) {
            ("refused", _) => "refused".to_owned(),
            ("spare", _) => "spare".to_owned(),
            (_, Some(walked)) => format!("used ({walked})"),
            (_, None) => "used".to_owned(),
        })
    }

    /// What `doctor --json` says.
    fn report(&self) -> Option<Value> {
        let lines = &self.step("doctor")?.lines;
        let first = lines.iter().position(|line| line.starts_with('{'))?;
        serde_json::from_str(&lines[first..].join("\n")).ok()
    }

    fn doctor(&self) -> String {
        match (self.step("doctor"), self.report()) {
            (None, _) => String::new(),
            (_, Some(report)) => report["verdict"].as_str().unwrap_or("?").to_owned(),
            (_, None) => "FAILED".to_owned(),
        }
    }

    /// What doctor finds less of than there could be.
    fn lessened(&self) -> Vec<String> {
        let report = self.report().unwrap_or_default();
        let rows = report["checks"].as_array().cloned().unwrap_or_default();
        let lesser =
            |row: &&Value| ["less", "missing"].contains(&row["state"].as_str().unwrap_or(""));
        let told = |row: &Value| {
            let text = |key: &str| row[key].as_str().unwrap_or("").to_owned();
            format!("{}: {}", text("check"), text("found"))
        };
        rows.iter().filter(lesser).map(told).collect()
    }

    /// Each fault that was played, and what came of it.
    fn faults(&self) -> Vec<(String, String)> {
        let lines = self.step("faults").into_iter().flat_map(|step| &step.lines);
        lines.filter_map(|line| fault(line)).collect()
    }

    /// What came of the demo, by itself or while something goes on.
    fn demo(&self, step: &str) -> String {
        let Some(step) = self.step(step) else {
            return String::new();
        };
        let result = step.lines.iter().rev().find_map(|line| {
            let value: Value = serde_json::from_str(line).ok()?;
            value.get("passed").is_some().then_some(value)
        });
        match (step.code, result) {
            (Some(0), Some(result)) => {
                let lead = result["frozen_client"]["lead_s"].as_f64().unwrap_or(0.0);
                let cause = result["frozen_client"]["cause"].as_str().unwrap_or("?");
                format!("{lead:.1} s lead, {cause}")
            }
            (Some(0), None) => "passed".to_owned(),
            _ => "FAILED".to_owned(),
        }
    }

    fn tests(&self) -> String {
        let Some(step) = self.step("tests") else {
            return String::new();
        };
        let mut tally = Tally::default();
        step.lines.iter().for_each(|line| tally.feed(line));
        let skipped = tally.skipped.len() as u64;
        let passed = tally.passed.saturating_sub(skipped);
        match (step.code, tally.failed) {
            (Some(0), _) => format!("{passed} passed, {skipped} skipped"),
            (_, failed) => format!("{passed} passed, {failed} FAILED, {skipped} skipped"),
        }
    }

    fn skipped(&self) -> Vec<String> {
        let mut tally = Tally::default();
        let lines = self.steps.iter().flat_map(|step| &step.lines);
        lines.for_each(|line| tally.feed(line));
        tally.skipped
    }
}

/// A row of the fault matrix, as a cell: how long before the harm it was warned of at the least, and the
/// causes that were named.
fn fault(line: &str) -> Option<(String, String)> {
    let parts: Vec<&str> = line.split('|').map(str::trim).collect();
    let name = parts.first()?.split(' ').next()?;
    let lead = parts.iter().find_map(|part| part.strip_prefix("lead "))?;
    let lead = lead.split('/').next()?;
    Some((name.to_owned(), format!("{lead} s lead, {}", parts.last()?)))
}

fn hook(line: &str) -> Option<Hook> {
    let value: Value = serde_json::from_str(line).ok()?;
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    Some(Hook {
        signal: text("signal")?,
        program: text("program")?,
        hook: text("hook")?,
        what: text("use")?,
        instructions: value["instructions"].as_u64(),
        refused: text("refused"),
    })
}

/// All kernels.
#[derive(Clone, Debug, Default)]
pub struct Page {
    outcomes: Vec<Outcome>,
}

impl Page {
    /// Takes one in.
    pub fn add(&mut self, outcome: Outcome) {
        self.outcomes.push(outcome);
    }

    /// The files that a step gave away.
    pub fn files(&self, step: &str) -> anyhow::Result<Vec<Parcel>> {
        let steps = self
            .outcomes
            .iter()
            .filter_map(|outcome| outcome.step(step));
        let found: anyhow::Result<Vec<_>> = steps.map(|step| parcel::read(&step.lines)).collect();
        Ok(found?.concat())
    }

    /// What failed on any.
    pub fn failures(&self) -> Vec<String> {
        self.outcomes.iter().flat_map(Outcome::failures).collect()
    }

    /// What could not be tried, as `name: reason`.
    pub fn absent(&self) -> Vec<String> {
        let absent = |outcome: &Outcome| {
            let why = outcome.absent.as_ref()?;
            Some(format!("kernel {}: {why}", outcome.name))
        };
        self.outcomes.iter().filter_map(absent).collect()
    }

    /// Rows of cells, the first of them the head.
    fn rows(&self) -> Vec<Vec<String>> {
        let tried: Vec<_> = self
            .outcomes
            .iter()
            .filter(|o| o.absent.is_none())
            .collect();
        let mut head = vec!["signal".to_owned(), "hook".to_owned()];
        head.extend(tried.iter().map(|outcome| outcome.release.clone()));
        let mut rows = vec![head];
        let mut known: Vec<&Hook> = Vec::new();
        for hook in tried.iter().flat_map(|outcome| &outcome.hooks) {
            if known.iter().all(|other| other.program != hook.program) {
                known.push(hook);
            }
        }
        for hook in known {
            let mut row = vec![hook.signal.clone(), hook.hook.clone()];
            row.extend(
                tried
                    .iter()
                    .map(|o| o.cell(&hook.program).unwrap_or_default()),
            );
            rows.push(row);
        }
        let mut add = |name: &str, cell: &dyn Fn(&Outcome) -> String| {
            let mut row = vec![name.to_owned(), String::new()];
            row.extend(tried.iter().map(|outcome| cell(outcome)));
            if row[2..].iter().any(|cell| !cell.is_empty()) {
                rows.push(row);
            }
        };
        add("doctor", &Outcome::doctor);
        for step in DEMOS {
            add(step, &|outcome| outcome.demo(step));
        }
        let mut faults: Vec<String> = Vec::new();
        for (name, _) in tried.iter().flat_map(|outcome| outcome.faults()) {
            if !faults.contains(&name) {
                faults.push(name);
            }
        }
        for fault in faults {
            add(&format!("fault {fault}"), &|outcome| {
                let found = outcome
                    .faults()
                    .into_iter()
                    .find(|(name, _)| *name == fault);
                found.map_or_else(String::new, |(_, cell)| cell)
            });
        }
        add("kernel tests", &Outcome::tests);
        rows
    }

    /// For a terminal.
    pub fn table(&self) -> String {
        let rows = self.rows();
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |at: usize| {
            let cells = rows.iter().filter_map(|row| row.get(at));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:<width$}  ");
            }
            let _ = writeln!(text, "{}", line.trim_end());
        }
        for outcome in &self.outcomes {
            if let Some(why) = &outcome.absent {
                let _ = writeln!(text, "{}: not tried: {why}", outcome.name);
            }
        }
        text
    }

    /// docs/kernels.md.
    pub fn markdown(&self, date: &str) -> String {
        let mut text = format!(
            "# Kernels\n\n\
             Made by `cargo xtask vm` on {date}: Debian's stock kernels (x86-64, the `cloud` variant) in QEMU, \
             with the release binary. What this very machine's kernel takes is said by `lease-watchdog \
             probes`.\n\n\
             A signal is had by the first of its hooks that the kernel takes (*used*, with the number of \
             instructions that the verifier walked, where the kernel tells it); further ones are *spare*. The \
             demo's row says how long before the server expired the session the first warning came, and the \
             cause it named.\n\n"
        );
        let rows = self.rows();
        for (at, row) in rows.iter().enumerate() {
            let _ = writeln!(text, "| {} |", row.join(" | "));
            if at == 0 {
                let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
            }
        }
        text.push_str("\n## What is lost where\n\n");
        for outcome in &self.outcomes {
            let _ = writeln!(text, "**{}**", heading(outcome));
            text.push_str(&self.losses(outcome));
            text.push('\n');
        }
        text.push_str(NOTES);
        text
    }

    fn losses(&self, outcome: &Outcome) -> String {
        if let Some(why) = &outcome.absent {
            return format!("- not tried: {why}\n");
        }
        let mut text = String::new();
        let refused = outcome.hooks.iter().filter(|hook| hook.what == "refused");
        for hook in refused {
            let had = |other: &&Hook| other.signal == hook.signal && other.what == "used";
            let used = outcome.hooks.iter().find(had);
            let lost = LOST.iter().find(|(signal, _)| *signal == hook.signal);
            let then = match (used, lost) {
                (Some(other), _) => format!("`{}` takes its place", other.hook),
                (None, Some((_, lost))) => (*lost).to_owned(),
                (None, None) => "its facts are not given".to_owned(),
            };
            let why = hook.refused.as_deref().unwrap_or("no reason given");
            let short: String = why.chars().take(160).collect();
            let _ = writeln!(
                text,
                "- {} by `{}`: refused ({short}); {then}",
                hook.signal, hook.hook
            );
        }
        for row in outcome.lessened() {
            let _ = writeln!(text, "- doctor: {row}");
        }
        if text.is_empty() && outcome.broken.is_none() {
            text.push_str("- nothing\n");
        }
        for skipped in outcome.skipped() {
            let _ = writeln!(text, "- not played there: {skipped}");
        }
        for failure in outcome.failures() {
            let _ = writeln!(text, "- FAILED: {failure}");
        }
        text
    }
}

fn heading(outcome: &Outcome) -> &str {
    match &outcome.release[..] {
        "" => &outcome.name,
        release => release,
    }
}

/// What the table cannot say by itself.
const NOTES: &str = include_str!("notes.md");

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(lines: &[&str]) -> Outcome {
        let mut console = Console::default();
        lines.iter().for_each(|line| console.feed(line));
        Outcome::of("6.1", "6.1.0-50", Ok(&console))
    }

    const LINES: &[&str] = &[
        "vm: begin probes",
        r#"{"signal":"writes","hook":"tp_btf a","program":"a","use":"refused","refused":"no such","instructions":null}"#,
        r#"{"signal":"writes","hook":"fexit b","program":"b","use":"used","refused":null,"instructions":12}"#,
        "vm: end probes 0",
        "vm: begin demo",
        r#"{"passed":true,"frozen_client":{"lead_s":5.04,"cause":"process_stopped"}}"#,
        "vm: end demo 0",
        "vm: done",
    ];

    #[test]
    fn the_page_says_what_was_used_and_why_not_the_other() {
        let mut page = Page::default();
        page.add(outcome(LINES));
        page.add(Outcome::absent("5.10", "no network".to_owned()));
        let text = page.markdown("2026-11-24");
        assert!(text.contains("| writes | tp_btf a | refused |"), "{text}");
        assert!(text.contains("| writes | fexit b | used (12) |"), "{text}");
        assert!(
            text.contains("| demo |  | 5.0 s lead, process_stopped |"),
            "{text}"
        );
        assert!(
            text.contains("refused (no such); `fexit b` takes its place"),
            "{text}"
        );
        assert!(text.contains("- not tried: no network"), "{text}");
        assert!(page.failures().is_empty());
        assert_eq!(page.absent(), ["kernel 5.10: no network"]);
    }

    #[test]
    fn what_doctor_and_the_faults_say_stands_in_the_page() {
        let mut page = Page::default();
        page.add(outcome(&[
            "vm: begin doctor",
            r#"{"verdict":"starts with less","checks":[{"check":"a","state":"less","found":"b"},"#,
            r#"{"check":"c","state":"ok","found":"d"}]}"#,
            "vm: end doctor 1",
            "vm: begin faults",
            "SKIPPED: disk-delayed: no such target",
            "loss   1 bit  0 not | warned   1 | right   1, at once   1 | lead 4.10/4.20 s | named after 1.00/1.00 s | network_loss 1",
            "vm: end faults 0",
            "vm: done",
        ]));
        let text = page.markdown("2026-11-24");
        assert!(text.contains("| doctor |  | starts with less |"), "{text}");
        assert!(text.contains("- doctor: a: b\n"), "{text}");
        assert!(
            text.contains("| fault loss |  | 4.10 s lead, network_loss 1 |"),
            "{text}"
        );
        assert!(
            text.contains("- not played there: disk-delayed: no such target"),
            "{text}"
        );
        assert!(page.failures().is_empty());
    }

    #[test]
    fn a_step_that_fails_is_named_with_its_last_line() {
        let failed = outcome(&["vm: begin demo", "why", "vm: end demo 3", "vm: done"]);
        assert_eq!(failed.failures(), ["kernel 6.1: demo: why"]);
        assert_eq!(failed.demo("demo"), "FAILED");
    }
}
