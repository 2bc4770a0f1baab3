//! The view's picture: state in, cells out. Never: a question to the daemon, a clock.
//!
//! Three widths: with everything, without addresses and ids, and with a sign, a bar, a time and a
//! name only. A stage is a sign and a word as well as a colour, so that a terminal without colours
//! and eyes that see few tell it too.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};
use serde_json::Value;

use super::data::Lease;
use super::{Popup, View};

/// From this width on everything is shown.
const WIDE: u16 = 110;
/// From this width on stage words and causes are.
const MIDDLE: u16 = 64;
/// Open incidents shown above the leases.
const MAX_INCIDENTS: usize = 4;

/// What a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Means {
    /// Colours.
    pub colours: bool,
    /// More than ASCII.
    pub unicode: bool,
}

impl Means {
    fn sign(self, stage: &str) -> &'static str {
        match (stage, self.unicode) {
            ("healthy", true) => "●",
            ("late", true) => "◔",
            ("at_risk", true) => "▲",
            ("jeopardy", true) => "◆",
            ("lapsed", true) => "✕",
            ("healthy", false) => " ",
            ("late", false) => "-",
            ("at_risk", false) => "!",
            ("jeopardy", false) => "#",
            ("lapsed", false) => "X",
            _ => "?",
        }
    }

    fn style(self, stage: &str) -> Style {
        let style = Style::new();
        if !self.colours {
            return match stage {
                "healthy" => style,
                "late" => style.add_modifier(Modifier::UNDERLINED),
                "at_risk" => style.add_modifier(Modifier::BOLD),
                _ => style.add_modifier(Modifier::BOLD | Modifier::REVERSED),
            };
        }
        match stage {
            "healthy" => style.fg(Color::Indexed(36)),
            "late" => style.fg(Color::Indexed(74)),
            "at_risk" => style.fg(Color::Indexed(214)),
            "jeopardy" => style.fg(Color::Indexed(202)).add_modifier(Modifier::BOLD),
            "lapsed" => style.fg(Color::Indexed(175)).add_modifier(Modifier::BOLD),
            _ => style,
        }
    }

    fn soft(self) -> Style {
        if self.colours {
            Style::new().fg(Color::DarkGray)
        } else {
            Style::new()
        }
    }

    /// A bar of so many cells, filled to a share.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a few cells"
    )]
    fn bar(self, share: f64, cells: usize) -> (String, String) {
        let filled = ((share * cells as f64).ceil() as usize).min(cells);
        let (full, empty) = if self.unicode {
            ("█", "░")
        } else {
            ("#", ".")
        };
        (full.repeat(filled), empty.repeat(cells - filled))
    }
}

/// Words of the API, for people.
fn words(word: &str) -> String {
    word.replace('_', " ")
}

/// A span for people.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
pub fn span(ms: i64) -> String {
    let s = ms as f64 / 1000.0;
    match s.abs() {
        s_abs if s_abs < 100.0 => format!("{s:.1} s"),
        s_abs if s_abs < 5400.0 => format!("{:.0} min", s / 60.0),
        _ => format!("{:.1} h", s / 3600.0),
    }
}

/// How many rows of leases fit.
#[must_use]
pub fn rows(view: &View, area: Rect) -> usize {
    usize::from(parts(view, area)[2].height)
}

fn parts(view: &View, area: Rect) -> [Rect; 4] {
    let incidents = view.open_incidents().count().min(MAX_INCIDENTS);
    let incidents = u16::try_from(incidents).unwrap_or(0);
    Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(incidents),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(area)
}

/// Draws all of it. `passed` ms have gone since the answers.
pub fn draw(frame: &mut Frame<'_>, view: &View, means: Means, passed: i64) {
    let [head, incidents, list, foot] = parts(view, frame.area());
    frame.render_widget(header(view, means, head.width), head);
    frame.render_widget(incident_lines(view, means), incidents);
    let lines: Vec<Line<'_>> = view
        .leases
        .leases
        .iter()
        .take(usize::from(list.height))
        .enumerate()
        .map(|(index, lease)| {
            let line = row(lease, means, list.width, passed);
            if view.first + index == view.selected {
                line.style(Style::new().add_modifier(Modifier::REVERSED))
            } else {
                line
            }
        })
        .collect();
    let empty = lines.is_empty();
    frame.render_widget(Paragraph::new(lines), list);
    if empty {
        let what = match (&view.trouble, view.filter.is_empty() && !view.late_only) {
            (Some(_), _) => "",
            (None, true) => "no lease is seen yet",
            (None, false) => "no lease matches",
        };
        frame.render_widget(Paragraph::new(what).style(means.soft()), list);
    }
    frame.render_widget(footer(view, means, foot.width), foot);
    if let Some(popup) = &view.popup {
        draw_popup(frame, view, popup, means, passed);
    }
}

fn header<'a>(view: &'a View, means: Means, width: u16) -> Paragraph<'a> {
    let overview = &view.overview;
    let mut first = vec![Span::styled(
        format!("{} ", overview.node),
        Style::new().add_modifier(Modifier::BOLD),
    )];
    if let Some(trouble) = &view.trouble {
        first.push(Span::styled(
            format!("no word from the daemon: {trouble}"),
            means.style("jeopardy"),
        ));
    } else if !overview.watching {
        first.push(Span::styled(
            "the daemon is not watching: its tick stands still",
            means.style("jeopardy"),
        ));
    } else {
        let of = format!("{} leases  ", overview.total);
        first.push(Span::raw(of));
        for stage in ["lapsed", "jeopardy", "at_risk", "late", "healthy"] {
            let count = overview.stages.get(stage).copied().unwrap_or(0);
            if count > 0 {
                first.push(Span::styled(
                    format!("{} {count} {}  ", means.sign(stage), words(stage)),
                    means.style(stage),
                ));
            }
        }
    }
    let titles = if width >= WIDE {
        format!(
            "  {:<10} {:<28} {:<18} {:<22} {:<8} {:<22} {}",
            "stage", "left", "", "process", "end", "cause", "lease"
        )
    } else if width >= MIDDLE {
        format!("  {:<10} {:<28} {:<22} cause", "stage", "left", "process")
    } else {
        "  left".to_owned()
    };
    Paragraph::new(vec![
        Line::from(first),
        Line::styled(titles, means.soft().add_modifier(Modifier::UNDERLINED)),
    ])
}

fn incident_lines<'a>(view: &'a View, means: Means) -> Paragraph<'a> {
    let lines: Vec<Line<'_>> = view
        .open_incidents()
        .take(MAX_INCIDENTS)
        .map(|incident| {
            Line::from(vec![
                Span::styled(
                    format!(
                        "{} {} ",
                        means.sign(&incident.stage),
                        words(&incident.stage)
                    ),
                    means.style(&incident.stage),
                ),
                Span::raw(format!(
                    "{} (for {})",
                    incident.summary,
                    span(incident.lasted_ms)
                )),
            ])
        })
        .collect();
    Paragraph::new(lines)
}

fn cut(text: &str, cells: usize) -> String {
    let width = text.chars().count();
    if width <= cells {
        return format!("{text:<cells$}");
    }
    let kept: String = text.chars().take(cells.saturating_sub(1)).collect();
    kept + "~"
}

fn row<'a>(lease: &Lease, means: Means, width: u16, passed: i64) -> Line<'a> {
    let style = means.style(&lease.stage);
    let process = match (&lease.comm, lease.pid) {
        (Some(comm), Some(pid)) => format!("{comm}/{pid}"),
        _ => lease.id.clone(),
    };
    let left = match lease.left_ms(passed) {
        None => "?".to_owned(),
        Some((left, guess)) => {
            let of = lease
                .timeout_ms
                .map(|timeout| format!(" of {}", span(timeout)));
            format!(
                "{}{}{}",
                if guess { "~" } else { "" },
                span(left),
                of.unwrap_or_default()
            )
        }
    };
    let cells = match width {
        WIDE.. => 28,
        MIDDLE.. => 10,
        _ => 8,
    };
    let (full, empty) = means.bar(lease.share(passed).unwrap_or(0.0), cells);
    let cause = match (lease.cause.as_deref(), lease.condition.as_deref()) {
        (Some("unknown") | None, Some(condition)) => words(condition),
        (Some("unknown") | None, None) => String::new(),
        (Some(cause), _) => words(cause),
    };
    let mut spans = vec![Span::styled(
        format!("{} ", means.sign(&lease.stage)),
        style,
    )];
    if width >= MIDDLE {
        spans.push(Span::styled(cut(&words(&lease.stage), 10) + " ", style));
    }
    spans.push(Span::styled(full, style));
    spans.push(Span::styled(empty, means.soft()));
    if width >= WIDE {
        spans.push(Span::raw(format!(
            " {} {} {} {} {} {}",
            cut(&left, 18),
            cut(&process, 22),
            cut(&lease.role, 8),
            cut(&cause, 22),
            lease.lease,
            lease.id
        )));
    } else if width >= MIDDLE {
        spans.push(Span::raw(format!(
            " {} {} {}",
            cut(&left, 17),
            cut(&process, 22),
            cause
        )));
    } else {
        let left = lease
            .left_ms(passed)
            .map_or_else(|| "?".to_owned(), |(left, _)| span(left));
        spans.push(Span::raw(format!(" {} {process}", cut(&left, 8))));
    }
    Line::from(spans)
}

fn footer<'a>(view: &'a View, means: Means, width: u16) -> Paragraph<'a> {
    let place = format!(
        "{}/{}",
        view.selected.saturating_add(1).min(view.leases.total),
        view.leases.total
    );
    let text = if view.typing {
        format!("filter: {}_", view.filter)
    } else {
        let mut text = format!("{place}  by {}", view.sort.word());
        if !view.filter.is_empty() {
            text += &format!("  filter {:?}", view.filter);
        }
        if view.late_only {
            text += "  late only";
        }
        if let Some(role) = view.role {
            text += &format!("  {role}s");
        }
        if width >= MIDDLE {
            text +=
                "   s sort  / filter  l late  r role  enter evidence  i incident  ? keys  q quit";
        }
        text
    };
    Paragraph::new(text).style(if view.typing {
        Style::new().add_modifier(Modifier::BOLD)
    } else {
        means.soft()
    })
}

fn draw_popup(frame: &mut Frame<'_>, view: &View, popup: &Popup, means: Means, passed: i64) {
    let area = frame.area();
    let (title, lines) = match popup {
        Popup::Keys => (
            " keys ".to_owned(),
            [
                "up down pgup pgdn home end   move",
                "enter, e                     evidence of the lease",
                "i                            its incident, or all",
                "s                            sort by risk, left, process, silence",
                "/                            filter by id, name, pid, address, cause",
                "l                            late and worse only",
                "r                            holders, grantors, both",
                "esc                          back",
                "q                            quit",
            ]
            .map(Line::from)
            .to_vec(),
        ),
        Popup::Evidence => match view.selected_lease() {
            Some(lease) => (
                format!(" {} {} ", lease.lease, lease.id),
                evidence(lease, means, passed),
            ),
            None => (
                " evidence ".to_owned(),
                vec![Line::from("no lease is selected")],
            ),
        },
        Popup::Incident => incident_popup(view, means),
    };
    let height = u16::try_from(lines.len())
        .unwrap_or(u16::MAX)
        .saturating_add(6);
    let width = area.width.saturating_sub(4).clamp(1, 100).min(area.width);
    let height = height.clamp(5, area.height.max(5)).min(area.height);
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, place);
    frame.render_widget(
        Paragraph::new(lines).wrap(Wrap { trim: false }).block(
            Block::bordered()
                .title(title)
                .title_alignment(Alignment::Left)
                .title_bottom(" esc back "),
        ),
        place,
    );
}

fn evidence<'a>(lease: &Lease, means: Means, passed: i64) -> Vec<Line<'a>> {
    let mut lines = vec![Line::styled(
        format!(
            "{} {}, {}",
            means.sign(&lease.stage),
            words(&lease.stage),
            lease.role
        ),
        means.style(&lease.stage),
    )];
    if let Some(said) = &lease.transition {
        let summary = said["summary"].as_str().unwrap_or_default();
        lines.push(Line::from(summary.to_owned()));
        for fact in said["evidence"].as_array().into_iter().flatten() {
            lines.push(Line::from(format!("  - {}", fact_text(fact))));
        }
    }
    lines.push(Line::from(""));
    let known = |span_ms: Option<i64>| span_ms.map_or_else(|| "unknown".to_owned(), span);
    let left = match lease.left_ms(passed) {
        Some((left, false)) => span(left),
        Some((left, true)) => format!("{} (the timeout is inferred)", span(left)),
        None => "unknown".to_owned(),
    };
    let process = match (&lease.comm, lease.pid) {
        (Some(comm), Some(pid)) => format!("{comm}/{pid}"),
        _ => "unknown".to_owned(),
    };
    for (what, value) in [
        ("left", left),
        (
            "timeout",
            format!(
                "{} ({})",
                known(lease.timeout_ms),
                lease.timeout_source.as_deref().unwrap_or("unknown")
            ),
        ),
        ("silent for", known(lease.silent_ms)),
        ("usual silence", known(lease.cadence_ms)),
        ("process", process),
        ("connection", format!("{} > {}", lease.local, lease.peer)),
    ] {
        lines.push(Line::from(format!("{what:<14} {value}")));
    }
    lines
}

/// A fact of the evidence, for people.
fn fact_text(fact: &Value) -> String {
    let mut text = words(fact["fact"].as_str().unwrap_or("fact")) + ":";
    for (key, value) in fact.as_object().into_iter().flatten() {
        if key == "fact" || value.is_null() {
            continue;
        }
        let shown = match (value, key.strip_suffix("_ms")) {
            (Value::Number(number), Some(what)) => {
                format!("{} {}", words(what), span(number.as_i64().unwrap_or(0)))
            }
            (Value::String(word), _) => format!("{} {word}", words(key)),
            (Value::Array(items), _) => {
                let items: Vec<String> = items
                    .iter()
                    .filter_map(|item| item.as_str().map(words))
                    .collect();
                format!("{} {}", words(key), items.join(", "))
            }
            (other, _) => format!("{} {other}", words(key)),
        };
        text += &format!(" {shown},");
    }
    text.trim_end_matches([',', ':']).to_owned()
}

fn incident_popup<'a>(view: &View, means: Means) -> (String, Vec<Line<'a>>) {
    let wanted = view
        .selected_lease()
        .and_then(|lease| lease.incident.clone());
    let mut lines = Vec::new();
    for incident in view
        .incidents
        .incidents
        .iter()
        .filter(|one| wanted.as_ref().is_none_or(|wanted| *wanted == one.incident))
    {
        lines.push(Line::styled(
            format!(
                "{} incident {} ({}), {}",
                means.sign(&incident.stage),
                incident.incident,
                incident.state,
                words(&incident.cause)
            ),
            means.style(&incident.stage),
        ));
        lines.push(Line::from(incident.summary.clone()));
        lines.push(Line::from(format!(
            "{}; {} leases, {} expired; from {} for {}",
            incident.thing,
            incident.leases,
            incident.expired,
            incident.opened_ts,
            span(incident.lasted_ms)
        )));
        lines.push(Line::from(""));
    }
    if lines.is_empty() {
        lines.push(Line::from("no incidents"));
    }
    let title = match wanted {
        Some(_) => " incident of the lease ",
        None => " incidents, newest first ",
    };
    (title.to_owned(), lines)
}

#[cfg(test)]
mod tests;
