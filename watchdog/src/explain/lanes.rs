//! The picture of an incident: lanes over time, stalls as bars, deadlines as marks.
//!
//! In: an incident. Out: SVG. Never: a colour; `page.css` has them, light and dark.

use maud::{Markup, html};

use super::report::{Bar, Incident, Row};
use super::wall::{MS, SECOND, Wall, span};

const WIDTH: f64 = 1180.0;
/// Names of the lanes stand left of this.
const LEFT: f64 = 210.0;
const RIGHT: f64 = 24.0;
const LANE: f64 = 22.0;
const HEAD: f64 = 40.0;
/// A part of the whole that is shown again alone if it holds half of all rows.
const CROWDED: i64 = 12;

/// One process, and its threads that stood still.
struct Lanes<'a> {
    party: &'a str,
    host: &'a str,
    threads: Vec<(&'a str, Vec<&'a Bar>)>,
    rows: Vec<&'a Row>,
}

fn lanes(incident: &Incident) -> Vec<Lanes<'_>> {
    let mut all: Vec<Lanes> = Vec::new();
    for row in incident.timeline.iter().filter(|row| !row.party.is_empty()) {
        // A row of several processes is their host's.
        if row.rule == Some(super::rules::Rule::Unblocking) {
            continue;
        }
        let name = row.party.split(" (").next().unwrap_or(&row.party);
        match all.iter_mut().find(|lanes| lanes.party == name) {
            Some(lanes) => lanes.rows.push(row),
            None => all.push(Lanes {
                party: name,
                host: &row.host,
                threads: Vec::new(),
                rows: vec![row],
            }),
        }
    }
    for lanes in &mut all {
        if let Some(row) = lanes.rows.iter().find(|row| !row.host.is_empty()) {
            lanes.host = &row.host;
        }
    }
    for bar in &incident.bars {
        let Some(lanes) = all.iter_mut().find(|lanes| lanes.party == bar.party) else {
            continue;
        };
        match lanes
            .threads
            .iter_mut()
            .find(|(thread, _)| *thread == bar.thread)
        {
            Some((_, bars)) => bars.push(bar),
            None => lanes.threads.push((&bar.thread, vec![bar])),
        }
    }
    all.sort_by_key(|lanes| lanes.host);
    all
}

/// All of the incident and, where it is crowded, its crowded part again.
pub fn picture(incident: &Incident) -> Markup {
    let lanes = lanes(incident);
    let length = incident.to.since(incident.from).max(SECOND);
    let (from, to) = (
        incident.from.plus(-length / 30),
        incident.to.plus(length / 30),
    );
    let near = crowded(incident, length);
    html! {
        figure {
            figcaption { "All of it" (legend()) }
            (chart(incident, &lanes, from, to))
        }
        @if let Some((from, to)) = near {
            figure {
                figcaption { "From " (from.time()) ", " (span(to.since(from))) }
                (chart(incident, &lanes, from, to))
            }
        }
    }
}

fn legend() -> Markup {
    let entry = |colour: &str, what: &str| {
        html! { span { i style={ "background:var(--" (colour) ")" } {} (what) } }
    };
    html! {
        div.legend {
            (entry("host", "the host's stall")) (entry("stall", "a thread's stall"))
            (entry("wait", "unanswered")) (entry("deadline", "deadline, role"))
            (entry("bad", "lease lost")) (entry("good", "would have warned"))
        }
    }
}

/// A twelfth of the time with half of the rows.
fn crowded(incident: &Incident, length: i64) -> Option<(Wall, Wall)> {
    let rows = &incident.timeline;
    let width = length / CROWDED;
    let best = rows
        .iter()
        .map(|row| {
            let to = row.at.plus(width);
            let inside = rows
                .iter()
                .filter(|other| other.at >= row.at && other.at <= to);
            (inside.count(), row.at)
        })
        .max_by_key(|(count, at)| (*count, std::cmp::Reverse(*at)))?;
    if best.0 * 5 < rows.len() * 2 || rows.len() < 8 {
        return None;
    }
    let to = rows
        .iter()
        .map(|row| row.at)
        .filter(|at| *at <= best.1.plus(width))
        .max()?;
    let pad = (to.since(best.1) / 12).max(10 * MS);
    Some((best.1.plus(-pad), to.plus(pad)))
}

fn chart(incident: &Incident, all: &[Lanes], from: Wall, to: Wall) -> Markup {
    let length = to.since(from).max(1) as f64;
    let x = |at: Wall| {
        let share = at.since(from) as f64 / length;
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    };
    let inside = |at: Wall| at >= from && at <= to;
    let overlaps = |begin: Wall, end: Wall| end >= from && begin <= to;
    let warns = incident.leads.as_ref().map_or(&[][..], |leads| &leads.rows);
    let count: usize = all
        .iter()
        .map(|lanes| lanes.threads.len() + 1)
        .sum::<usize>()
        + 1;
    let bottom = HEAD + count as f64 * LANE + 8.0;
    let mut y = HEAD;
    let mut next = || {
        y += LANE;
        y - LANE
    };
    html! {
        svg viewBox={ "0 0 " (WIDTH) " " (bottom) } role="img" aria-label=(incident.headline) {
            @for (at, label) in ticks(from, to) {
                line.grid x1=(x(at)) x2=(x(at)) y1=(HEAD - 8.0) y2=(bottom) {}
                @if x(at) < WIDTH - 2.0 * RIGHT {
                    text.dim x=(x(at)) y=(HEAD - 14.0) text-anchor="middle" { (label) }
                }
            }
            @let top = next();
            text x="4" y=(top + 15.0) { "would have warned" }
            @for row in warns.iter().filter(|row| inside(row.at)) {
                path.warn d={ "M" (x(row.at)) " " (top + 18.0) "l-6 -12h12z" } {
                    title { (row.at.time()) " " (row.trigger) ", lead " (span(row.lead_ms * MS)) }
                }
            }
            @if let Some(leads) = incident.leads.as_ref().filter(|leads| inside(leads.until)) {
                line.end x1=(x(leads.until)) x2=(x(leads.until)) y1=(top) y2=(bottom) {
                    title { (leads.until.time()) " " (leads.until_what) }
                }
            }
            @for lanes in all {
                @let begin = next();
                @let height = (lanes.threads.len() + 1) as f64 * LANE;
                @for stall in incident.stalls.iter().filter(|stall| stall.host == lanes.host && overlaps(stall.from, stall.to)) {
                    rect.host x=(x(stall.from)) y=(begin) width=((x(stall.to) - x(stall.from)).max(1.0)) height=(height) {
                        title { (stall.host) " stalled " (stall.from.time()) " – " (stall.to.time()) }
                    }
                }
                line.grid x1="0" x2=(WIDTH) y1=(begin) y2=(begin) {}
                text x="4" y=(begin + 15.0) font-weight="600" {
                    (lanes.party) @if lanes.host != lanes.party { " · " (lanes.host) }
                }
                @for row in lanes.rows.iter().filter(|row| row.deadline && inside(row.at)) {
                    line.deadline x1=(x(row.at)) x2=(x(row.at)) y1=(begin) y2=(begin + height) {}
                    path.deadline-mark d={ "M" (x(row.at)) " " (begin + 4.0) "l5 7l-5 7l-5 -7z" } {
                        title { (row.at.time()) " " (row.text) }
                    }
                }
                @for row in lanes.rows.iter().filter(|row| !row.deadline && inside(row.at)) {
                    circle class=(look(row)) cx=(x(row.at)) cy=(begin + 11.0) r="4" {
                        title { (row.at.time()) " " (row.text) }
                    }
                }
                @for (thread, bars) in &lanes.threads {
                    @let lane = next();
                    text.dim x="16" y=(lane + 15.0) { (thread) }
                    @for bar in bars.iter().filter(|bar| overlaps(bar.from, bar.to)) {
                        rect class=(if bar.thread == "keepalive" { "wait" } else { "stall" })
                            x=(x(bar.from)) y=(lane + 4.0) rx="2"
                            width=((x(bar.to) - x(bar.from)).max(2.0)) height=(LANE - 9.0) {
                            title { (bar.from.time()) " – " (bar.to.time()) " " (bar.text) }
                        }
                    }
                }
            }
        }
    }
}

/// The class of an event's mark.
fn look(row: &Row) -> &'static str {
    let any = |words: &[&str]| words.iter().any(|word| row.text.contains(word));
    if any(&["expires ", "has expired", "JEOPARDY"]) {
        "loss"
    } else if any(&["leader", "leads"]) {
        "role"
    } else {
        "event"
    }
}

/// Moments for the scale: about ten, at round seconds or milliseconds.
fn ticks(from: Wall, to: Wall) -> Vec<(Wall, String)> {
    const STEPS_MS: [i64; 20] = [
        1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 60_000, 120_000,
        300_000, 600_000, 1_800_000, 3_600_000,
    ];
    let about = to.since(from) / 10;
    let step = STEPS_MS
        .into_iter()
        .map(|ms| ms * MS)
        .find(|step| *step >= about)
        .unwrap_or(24 * 3600 * SECOND);
    let first = (from.0.div_euclid(step) + 1) * step;
    (0..20)
        .map(|place| Wall(first + place * step))
        .take_while(|at| *at < to)
        .map(|at| {
            let text = at.time();
            let end = if step >= SECOND {
                text.len() - 4
            } else {
                text.len()
            };
            (at, text[..end].to_owned())
        })
        .collect()
}
