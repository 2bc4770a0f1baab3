//! The report as one page that needs nothing else: no script, no font, no network.
//!
//! Each incident is a picture of lanes (one for each process and each thread of it that stood still) over
//! time, and what the text report says below it. Where the last moments are crowded a second picture shows
//! them alone.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::lanes;
use super::report::{Incident, Report, Standing};
use super::wall::{MS, exact, span};

const STYLE: &str = include_str!("page.css");

/// The page.
#[must_use]
pub fn render(report: &Report) -> String {
    let title = report.incidents.first().map_or_else(
        || "No incident".to_owned(),
        |incident| format!("{}: {}", incident.from.date(), incident.headline),
    );
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    @if report.incidents.is_empty() {
                        h1 { "No incident" }
                        p { "No lease was lost or in danger, as far as these logs tell." }
                    }
                    @for incident in &report.incidents { (one(incident)) }
                    (read(report))
                }
            }
        }
    }
    .into_string()
}

fn one(incident: &Incident) -> Markup {
    html! {
        article {
            h1 { "Incident " (incident.number) ", " (incident.from.date()) }
            p.headline { (incident.headline) }
            (facts(incident))
            (lanes::picture(incident))
            (leads(incident))
            (lapsed(incident))
            (why(incident))
            (followed(incident))
            h2 { "Timeline" }
            table {
                tr { th { "time" } th { "who" } th { "what" } th { "known from" } }
                @for row in &incident.timeline {
                    tr.derived[row.rule.is_some()] {
                        td.time { (row.at.time()) @if let Some(until) = row.until { " – " (until.time()) } }
                        td { (row.party) }
                        td { (row.text) }
                        td.from {
                            @if let Some(rule) = row.rule { b { (rule.name()) } ": " }
                            (row.from)
                        }
                    }
                }
            }
            @if !incident.not_claimed.is_empty() {
                h2 { "Not told by these logs" }
                ul { @for open in &incident.not_claimed { li { (open) } } }
            }
        }
    }
}

/// The three answers that are asked for first.
fn facts(incident: &Incident) -> Markup {
    html! {
        dl.facts {
            @if let Some(known) = &incident.first_knowable {
                div { dt { "first knowable" } dd { b { (known.at.time()) } br; (known.by) } }
            }
            @if let Some(known) = &incident.known {
                div { dt { "first known" } dd { b { (known.at.time()) } br; (known.by) } }
            }
            @if let Some(fault) = &incident.fault {
                div { dt { "at fault" } dd { b { (fault.who) } br; (fault.why.first().cloned().unwrap_or_default()) } }
            }
            @if let Some(dual) = &incident.dual_leader {
                div { dt { "two leaders at once" } dd { b { "≥ " (dual.at_least_ms) " ms" } br; (dual.new) " and " (dual.old) } }
            }
        }
    }
}

fn leads(incident: &Incident) -> Markup {
    html! {
        @if let Some(leads) = &incident.leads {
            h2 { "What would have warned how much earlier" }
            p { "Before " (leads.until.time()) ", " (leads.until_what) "." }
            table.leads {
                @let most = leads.rows.iter().map(|row| row.lead_ms).max().unwrap_or(1).max(1);
                @for row in &leads.rows {
                    tr {
                        td.time { (row.at.time()) }
                        td { (row.trigger) }
                        td.lead { (span(row.lead_ms * MS)) }
                        td.bar title=(exact(row.lead_ms * MS)) {
                            span style={ "width:" (row.lead_ms * 100 / most) "%" } {}
                        }
                    }
                }
            }
        }
    }
}

fn lapsed(incident: &Incident) -> Markup {
    html! {
        @if !incident.lapsed.is_empty() {
            h2 { "What lapsed" }
            table {
                tr { th { "when" } th { "lease" } th { "held by" } th { "granted by" } th { "" } }
                @for lapse in &incident.lapsed {
                    tr {
                        td.time {
                            @if let Some(at) = lapse.expired { (at.time()) }
                            @else if let Some(by) = lapse.expired_by { "by " (by.time()) }
                            @if let Some(at) = lapse.learned { br; "learned " (at.time()) }
                        }
                        td { (lapse.what) br; code { (lapse.lease.as_deref().unwrap_or("(not named)")) } }
                        td { (lapse.holder) }
                        td { (lapse.grantor) }
                        td {
                            @if lapse.false_expiry { b.false { "false expiry" } br; }
                            @for why in &lapse.why { (why) br; }
                        }
                    }
                }
            }
        }
    }
}

fn why(incident: &Incident) -> Markup {
    let proven = incident
        .causes
        .iter()
        .any(|cause| cause.standing <= Standing::Supported);
    html! {
        @if let Some(fault) = &incident.fault {
            h2 { "At fault: " (fault.who) }
            ul { @for why in &fault.why { li { (why) } } }
        }
        @for stall in &incident.stalls {
            h2 { (stall.host) " stalled " (stall.from.time()) " – " (stall.to.time()) }
            ul { @for why in &stall.why { li { (why) } } }
        }
        @if !incident.causes.is_empty() {
            h2 { "Cause" @if !proven { ": not proven" } }
            div.causes {
                @for cause in &incident.causes {
                    section class=(match cause.standing {
                        Standing::Proven | Standing::Supported => "supported",
                        Standing::Candidate => "candidate",
                        Standing::Partial => "partial",
                        Standing::Excluded => "excluded",
                    }) {
                        h3 { (cause.cause) span {
                            (match cause.standing {
                                Standing::Proven => "proven: measured in the kernel",
                                Standing::Supported => "a log says so",
                                Standing::Candidate => "candidate",
                                Standing::Partial => "explains a part at most",
                                Standing::Excluded => "spoken against",
                            })
                        } }
                        ul {
                            @for line in &cause.for_it { li.plus { (line) } }
                            @for line in &cause.against { li.minus { (line) } }
                        }
                    }
                }
            }
        }
    }
}

fn followed(incident: &Incident) -> Markup {
    html! {
        @if !incident.followed.is_empty() {
            h2 { "What followed" }
            table {
                @for group in &incident.followed {
                    tr {
                        td.time { (group.first.time()) @if group.count > 1 { " – " (group.last.time()) } }
                        td { (group.party) }
                        td { (group.count) " × " (group.what) }
                        td.from {
                            @if group.count <= 8 { (group.details.join("; ")) }
                        }
                    }
                }
            }
        }
    }
}

fn read(report: &Report) -> Markup {
    html! {
        footer {
            h2 { "Read" }
            table {
                tr { th { "log" } th { "host" } th { "kind" } th { "lines" } th { "understood" } th { "unknown" } th { "without a head" } th { "cut" } th { "repeated" } }
                @for source in &report.sources {
                    tr {
                        td title=(source.files.join(", ")) { (source.party.name) }
                        td title=(source.party.host_from) { (source.party.host) }
                        td { (source.kind) }
                        @let counts = source.counts;
                        @for count in [counts.lines, counts.understood, counts.unknown, counts.continued, counts.cut, counts.repeated] {
                            td.number { (count) }
                        }
                    }
                }
            }
            @for unread in &report.unread { p { "Not read: " (unread) } }
            @for assumption in &report.assumptions { p { (assumption) } }
            @if !report.rules.is_empty() {
                h2 { "Rules used" }
                @for rule in &report.rules {
                    p { b { (rule.rule.name()) } ": " (rule.says) ". " i { "Does not prove " (rule.not_proven) "." } }
                }
            }
        }
    }
}
