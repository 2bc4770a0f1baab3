//! The table: from samples to figures, and from figures to a verdict.

use crate::fault::Fault;
use crate::harness::clock;
use crate::sample::{Sample, Verdict};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The share of causes that must be right.
const CAUSE_TARGET: f64 = 0.95;
/// The share of samples that may fail to bite.
const NOT_BITTEN_LIMIT: f64 = 0.10;

/// What became of one fault.
#[derive(Debug)]
pub struct Row {
    /// The fault's name.
    pub name: &'static str,
    does: &'static str,
    expected: &'static [&'static str],
    /// Samples that bit, with the daemon's verdicts.
    bitten: Vec<(Sample, Verdict)>,
    /// Samples that did not.
    not_bitten: Vec<Sample>,
}

impl Row {
    /// Judges a fault's samples.
    pub fn new(fault: &Fault, samples: Vec<Sample>) -> Self {
        let (bitten, not_bitten): (Vec<_>, Vec<_>) =
            samples.into_iter().partition(|sample| sample.proof.is_ok());
        let judged = bitten.into_iter().map(|sample| {
            let verdict = sample.verdict(fault.expected);
            (sample, verdict)
        });
        Self {
            name: fault.name,
            does: fault.does,
            expected: fault.expected,
            bitten: judged.collect(),
            not_bitten,
        }
    }

    fn right(&self, verdict: &Verdict) -> bool {
        self.expected.contains(&verdict.cause.as_str()) && verdict.names_thing
    }

    fn flagged(&self) -> usize {
        let flagged = |(_, verdict): &&(Sample, Verdict)| verdict.lead_us.is_some();
        self.bitten.iter().filter(flagged).count()
    }

    fn rightly(&self) -> usize {
        let right = |(_, verdict): &&(Sample, Verdict)| self.right(verdict);
        self.bitten.iter().filter(right).count()
    }

    fn rightly_at_once(&self) -> usize {
        let right = |(_, verdict): &&(Sample, Verdict)| {
            self.expected.contains(&verdict.first_cause.as_str())
        };
        self.bitten.iter().filter(right).count()
    }

    fn leads(&self) -> Vec<i64> {
        let mut leads: Vec<i64> = self
            .bitten
            .iter()
            .filter_map(|(_, verdict)| verdict.lead_us)
            .collect();
        leads.sort_unstable();
        leads
    }

    fn named(&self) -> Vec<i64> {
        let mut named: Vec<i64> = self
            .bitten
            .iter()
            .filter_map(|(_, verdict)| verdict.named_us)
            .collect();
        named.sort_unstable();
        named
    }

    /// Why the run fails by this fault.
    pub fn failures(&self) -> Vec<String> {
        let (bitten, missed) = (self.bitten.len(), self.not_bitten.len());
        let mut failures = Vec::new();
        let limit = NOT_BITTEN_LIMIT * (bitten + missed) as f64;
        if bitten == 0 || missed as f64 > limit {
            failures.push(format!(
                "{}: {missed} of {} samples did not bite",
                self.name,
                bitten + missed
            ));
        }
        let unflagged = bitten - self.flagged();
        if unflagged > 0 {
            failures.push(format!(
                "{}: {unflagged} of {bitten} not warned of in time",
                self.name
            ));
        }
        let right = self.rightly();
        if (right as f64) < CAUSE_TARGET * bitten as f64 {
            failures.push(format!("{}: cause right in {right} of {bitten}", self.name));
        }
        failures
    }

    /// The causes that stood at the harm, most frequent first.
    fn causes(&self) -> Vec<(String, usize)> {
        let mut causes: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, verdict) in &self.bitten {
            *causes.entry(&verdict.cause).or_default() += 1;
        }
        let mut causes: Vec<(String, usize)> = causes
            .into_iter()
            .map(|(cause, count)| (cause.to_owned(), count))
            .collect();
        causes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        causes
    }

    fn causes_in_words(&self) -> String {
        let words: Vec<String> = self
            .causes()
            .into_iter()
            .map(|(cause, count)| format!("{cause} {count}"))
            .collect();
        words.join(", ")
    }

    /// A summary line as printed, of a sample with the right cause if there is one.
    fn summary(&self) -> &str {
        let right = self.bitten.iter().find(|(_, verdict)| self.right(verdict));
        let any = right.or(self.bitten.first());
        any.map_or("", |(_, verdict)| &verdict.summary)
    }

    /// One line for the terminal.
    pub fn line(&self) -> String {
        format!(
            "{:<22} {:>3} bit {:>2} not | warned {:>3} | right {:>3}, at once {:>3} | lead {} | named after {} | {}",
            self.name,
            self.bitten.len(),
            self.not_bitten.len(),
            self.flagged(),
            self.rightly(),
            self.rightly_at_once(),
            low_and_middle(&self.leads()),
            low_and_middle(&self.named()),
            self.causes_in_words(),
        )
    }

    /// The samples that went wrong, told in full.
    pub fn stories(&self) -> String {
        let mut text = String::new();
        for sample in &self.not_bitten {
            writeln!(text, "  did not bite: {}", sample.story()).expect("a string");
        }
        for (sample, verdict) in &self.bitten {
            if verdict.lead_us.is_none() || !self.right(verdict) {
                writeln!(text, "  {}", sample.story()).expect("a string");
            }
        }
        text
    }

    /// A proof, as an example.
    fn proof(&self) -> &str {
        let first = self.bitten.first();
        first.map_or("", |(sample, _)| sample.proof.as_deref().unwrap_or(""))
    }

    fn json(&self) -> Value {
        let of = |(sample, verdict): &(Sample, Verdict)| {
            json!({
                "victim": sample.victim, "id": format!("{:#x}", sample.id), "role": sample.role,
                "proof": sample.proof.as_deref().unwrap_or(""),
                "harm_after_s": clock::seconds(sample.harm_us - sample.onset_us),
                "lead_s": verdict.lead_us.map(clock::seconds),
                "named_after_s": verdict.named_us.map(clock::seconds),
                "cause": verdict.cause, "first_cause": verdict.first_cause,
                "summary": verdict.summary,
            })
        };
        let missed =
            |sample: &Sample| json!({"victim": sample.victim, "why": sample.proof.as_ref().err()});
        json!({
            "fault": self.name, "expected": self.expected,
            "bitten": self.bitten.iter().map(of).collect::<Vec<_>>(),
            "not_bitten": self.not_bitten.iter().map(missed).collect::<Vec<_>>(),
        })
    }
}

/// What became of one control.
#[derive(Debug)]
pub struct ControlRow {
    /// Its name.
    pub name: &'static str,
    /// What was done.
    pub does: &'static str,
    /// How long it was watched.
    pub watched_us: i64,
    /// Leases that the daemon saw meanwhile.
    pub leases: usize,
    /// `late` warnings.
    pub late: usize,
    /// What went above `late`, as printed: each is a false alarm.
    pub alarms: Vec<String>,
    /// What else was wrong.
    pub wrong: Vec<String>,
}

impl ControlRow {
    /// One line for the terminal.
    pub fn line(&self) -> String {
        format!(
            "{:<22} {:>5.0} s, {:>4} leases | late {:>3} | above late {:>3}",
            self.name,
            clock::seconds(self.watched_us),
            self.leases,
            self.late,
            self.alarms.len(),
        )
    }

    /// Why the run fails by this control.
    pub fn failures(&self) -> Vec<String> {
        let alarm = self.alarms.first().map(|first| {
            format!(
                "{}: {} false alarms, the first: {first}",
                self.name,
                self.alarms.len()
            )
        });
        let wrong = self
            .wrong
            .iter()
            .map(|wrong| format!("{}: {wrong}", self.name));
        alarm.into_iter().chain(wrong).collect()
    }
}

/// The least and the median, in seconds.
fn low_and_middle(sorted: &[i64]) -> String {
    match sorted.first() {
        None => "-".to_owned(),
        Some(least) => format!(
            "{:.2}/{:.2} s",
            clock::seconds(*least),
            clock::seconds(sorted[sorted.len() / 2])
        ),
    }
}

/// The confusion matrix in plain text: a line per fault, a column per cause that was said.
pub fn confusion(rows: &[Row]) -> String {
    let mut said: Vec<String> = rows
        .iter()
        .flat_map(|row| row.causes().into_iter().map(|(cause, _)| cause))
        .collect();
    said.sort();
    said.dedup();
    let mut text = format!("{:<22}", "fault \\ said");
    for cause in &said {
        write!(text, " {cause:>16}").expect("a string");
    }
    for row in rows {
        write!(text, "\n{:<22}", row.name).expect("a string");
        let causes: BTreeMap<String, usize> = row.causes().into_iter().collect();
        for cause in &said {
            let count = causes.get(cause).copied().unwrap_or(0);
            let mark = if row.expected.contains(&cause.as_str()) {
                "+"
            } else {
                ""
            };
            let cell = if count == 0 {
                ".".to_owned()
            } else {
                format!("{mark}{count}")
            };
            write!(text, " {cell:>16}").expect("a string");
        }
    }
    text
}

/// Everything, for machines.
pub fn json(command: &str, rows: &[Row], controls: &[ControlRow]) -> Value {
    let control = |row: &ControlRow| {
        json!({"control": row.name, "watched_s": clock::seconds(row.watched_us),
               "leases": row.leases, "late": row.late, "alarms": row.alarms, "wrong": row.wrong})
    };
    json!({
        "command": command,
        "faults": rows.iter().map(Row::json).collect::<Vec<_>>(),
        "controls": controls.iter().map(control).collect::<Vec<_>>(),
    })
}

/// The page for people.
pub fn page(command: &str, made: &str, rows: &[Row], controls: &[ControlRow]) -> String {
    let mut page = format!(
        "# The fault matrix\n\n\
         Made by `{command}` on {made}. Each fault is injected for real, on real servers and clients, \
         at random phases of the renewal cycle; the daemon is not told. A sample counts only if \
         another log than the daemon's proves that the fault bit.\n\n\
         *Warned*: at `at_risk` or worse before the session expired; where it was spared, at `late` or worse before the client gave its connection up. *Right*: the cause that stood at the \
         harm; *at once*: the cause in the first warning. *Lead*: from the first warning to the harm. \
         *Named*: from the onset to the first line with the right cause. Seconds: least / median.\n\n\
         | fault | what is done | bit (not) | warned | right cause | at once | lead | named | causes said |\n\
         |---|---|---|---|---|---|---|---|---|\n"
    );
    for row in rows {
        writeln!(
            page,
            "| {} | {} → `{}` | {} ({}) | {} | {} | {} | {} | {} | {} |",
            row.name,
            row.does,
            row.expected.join("` or `"),
            row.bitten.len(),
            row.not_bitten.len(),
            row.flagged(),
            row.rightly(),
            row.rightly_at_once(),
            low_and_middle(&row.leads()),
            low_and_middle(&row.named()),
            row.causes_in_words(),
        )
        .expect("a string");
    }
    page.push_str("\n## Controls\n\nNothing may go above `late`.\n\n| control | what is done | watched | leases | late | above late |\n|---|---|---|---|---|---|\n");
    for row in controls {
        writeln!(
            page,
            "| {} | {} | {:.0} s | {} | {} | {} |",
            row.name,
            row.does,
            clock::seconds(row.watched_us),
            row.leases,
            row.late,
            row.alarms.len()
        )
        .expect("a string");
    }
    page.push_str("\n## What the person on call reads\n\nThe summary as printed, and how the harm is known.\n\n");
    for row in rows {
        let summary = row.summary().replace('`', "'");
        writeln!(
            page,
            "- **{}**: `{summary}`  \n  ({})",
            row.name,
            row.proof()
        )
        .expect("a string");
    }
    page
}
