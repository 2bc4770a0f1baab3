//! The report as text.

use std::fmt::{self, Write as _};

use crate::printable::printable_lines;

use super::report::{Incident, Report, Standing};
use super::wall::{MS, exact, span};

/// A lease's name is not cut, a message is.
const WIDTH: usize = 100;

/// The whole report.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = all(&mut out, report);
    // It quotes whoever wrote the logs.
    printable_lines(&out)
}

fn all(out: &mut String, report: &Report) -> fmt::Result {
    writeln!(out, "READ")?;
    for source in &report.sources {
        let counts = &source.counts;
        write!(
            out,
            "  {} on {} (by {}): {}, {} lines, {} understood, {} of unknown shape, {} without a head",
            source.party.name,
            source.party.host,
            source.party.host_from,
            source.kind,
            counts.lines,
            counts.understood,
            counts.unknown,
            counts.continued
        )?;
        for (count, what) in [
            (counts.cut, "cut"),
            (counts.repeated, "repeated"),
            (counts.unplaced, "without a time"),
            (counts.left_out, "left out"),
        ] {
            if count > 0 {
                write!(out, ", {count} {what}")?;
            }
        }
        writeln!(out)?;
        for trouble in &source.trouble {
            writeln!(out, "    {trouble}")?;
        }
    }
    for unread in &report.unread {
        writeln!(out, "  not read: {unread}")?;
    }
    for assumption in &report.assumptions {
        writeln!(out, "  {assumption}")?;
    }
    if report.incidents.is_empty() {
        writeln!(
            out,
            "\nNo incident: no lease was lost or in danger, as far as these logs tell."
        )?;
    }
    for incident in &report.incidents {
        one(out, incident)?;
    }
    if !report.rules.is_empty() {
        writeln!(out, "\nRULES USED (docs/explain.md has their sources)")?;
        for rule in &report.rules {
            writeln!(out, "  {}: {}.", rule.rule.name(), rule.says)?;
            writeln!(out, "    Does not prove {}.", rule.not_proven)?;
        }
    }
    Ok(())
}

fn one(out: &mut String, incident: &Incident) -> fmt::Result {
    writeln!(
        out,
        "\nINCIDENT {}  {} {} - {}\n  {}",
        incident.number,
        incident.from.date(),
        incident.from.time(),
        incident.to.time(),
        incident.headline
    )?;
    section(out, "WHAT LAPSED")?;
    if incident.lapsed.is_empty() {
        writeln!(out, "  nothing, as far as these logs tell")?;
    }
    for lapse in &incident.lapsed {
        let when = match (lapse.expired, lapse.learned, lapse.expired_by) {
            (Some(at), Some(learned), _) => {
                format!("{} (the holder learns it at {})", at.time(), learned.time())
            }
            (Some(at), ..) => at.time(),
            (None, Some(learned), Some(by)) => {
                format!(
                    "by {} at the latest (the holder learns it at {})",
                    by.time(),
                    learned.time()
                )
            }
            _ => "?".to_owned(),
        };
        writeln!(
            out,
            "  {when}  {} {}{}",
            lapse.what,
            lapse.lease.as_deref().unwrap_or("(not named)"),
            if lapse.false_expiry {
                "  FALSE EXPIRY"
            } else {
                ""
            }
        )?;
        writeln!(
            out,
            "      held by {}, granted by {}",
            lapse.holder, lapse.grantor
        )?;
        for why in &lapse.why {
            writeln!(out, "      {why}")?;
        }
    }
    if let Some(known) = &incident.first_knowable {
        writeln!(out, "\nFIRST KNOWABLE  {}  {}", known.at.time(), known.by)?;
    }
    if let Some(known) = &incident.known {
        writeln!(out, "FIRST KNOWN     {}  {}", known.at.time(), known.by)?;
        if let Some(knowable) = &incident.first_knowable {
            writeln!(
                out,
                "                that is {} later",
                exact(known.at.since(knowable.at))
            )?;
        }
    }
    if let Some(fault) = &incident.fault {
        writeln!(out, "\nAT FAULT  {}", fault.who)?;
        for why in &fault.why {
            writeln!(out, "  {why}")?;
        }
    }
    if !incident.stalls.is_empty() {
        section(out, "STALLS")?;
    }
    for stall in &incident.stalls {
        writeln!(
            out,
            "  {} stalled {}-{} ({}): {}",
            stall.host,
            stall.from.time(),
            stall.to.time(),
            span(stall.to.since(stall.from)),
            stall.processes.join(", ")
        )?;
        for why in &stall.why {
            writeln!(out, "    {why}")?;
        }
    }
    causes(out, incident)?;
    if let Some(dual) = &incident.dual_leader {
        section(out, "TWO LEADERS AT ONCE")?;
        writeln!(
            out,
            "  >= {} ms: {} leads from {}, {} learns that it does not at {} (two_leaders)",
            dual.at_least_ms,
            dual.new,
            dual.from.time(),
            dual.old,
            dual.to.time()
        )?;
        if !dual.acts.is_empty() {
            writeln!(
                out,
                "  in that time the old one still acted: {}",
                dual.acts.join(", ")
            )?;
        }
    }
    if !incident.followed.is_empty() {
        section(out, "WHAT FOLLOWED")?;
    }
    for group in &incident.followed {
        let when = if group.count == 1 {
            group.first.time()
        } else {
            format!("{}-{}", group.first.time(), group.last.time())
        };
        writeln!(
            out,
            "  {when}  {}: {} x {}",
            group.party, group.count, group.what
        )?;
        if group.count <= 8 {
            for detail in &group.details {
                writeln!(out, "      {}", cut(detail))?;
            }
        }
    }
    section(out, "TIMELINE (derived lines name their rule)")?;
    for row in &incident.timeline {
        let until = row
            .until
            .map_or_else(String::new, |until| format!("-{}", until.time()));
        let by = row.rule.map_or_else(
            || row.from.clone(),
            |rule| format!("{}: {}", rule.name(), cut(&row.from)),
        );
        writeln!(
            out,
            "  {}{until}  {}{}: {}  [{by}]",
            row.at.time(),
            row.party,
            if row.host.is_empty() || row.host == row.party {
                String::new()
            } else {
                format!(" on {}", row.host)
            },
            row.text
        )?;
    }
    if let Some(leads) = &incident.leads {
        section(out, "WHAT WOULD HAVE WARNED HOW MUCH EARLIER")?;
        writeln!(out, "  before {}, {}", leads.until.time(), leads.until_what)?;
        for lead in &leads.rows {
            let ns = lead.lead_ms * MS;
            writeln!(
                out,
                "  {}  lead {:>7}  ({})  {}",
                lead.at.time(),
                span(ns),
                exact(ns),
                lead.trigger
            )?;
        }
    }
    if !incident.not_claimed.is_empty() {
        section(out, "NOT TOLD BY THESE LOGS")?;
    }
    for open in &incident.not_claimed {
        writeln!(out, "  {open}")?;
    }
    Ok(())
}

fn causes(out: &mut String, incident: &Incident) -> fmt::Result {
    if incident.causes.is_empty() {
        return Ok(());
    }
    section(out, "CAUSE")?;
    if !incident
        .causes
        .iter()
        .any(|cause| cause.standing <= Standing::Supported)
    {
        writeln!(out, "  not proven; candidates:")?;
    }
    for cause in &incident.causes {
        let standing = match cause.standing {
            Standing::Proven => "proven: measured in the kernel",
            Standing::Supported => "a log says so, and the times fit",
            Standing::Candidate => "candidate",
            Standing::Partial => "explains a part at most",
            Standing::Excluded => "spoken against",
        };
        writeln!(out, "  {}: {standing}", cause.cause)?;
        for why in &cause.for_it {
            writeln!(out, "    + {why}")?;
        }
        for why in &cause.against {
            writeln!(out, "    - {why}")?;
        }
    }
    Ok(())
}

fn section(out: &mut String, title: &str) -> fmt::Result {
    writeln!(out, "\n{title}")
}

fn cut(text: &str) -> String {
    if text.chars().count() <= WIDTH {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(WIDTH - 1).collect();
    let _ = short.write_char('…');
    short
}
