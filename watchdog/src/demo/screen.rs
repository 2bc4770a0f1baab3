//! Where the story is told: a terminal with a live block under it, plain lines, or JSON lines.
//!
//! In: happenings, and rows for the block. Out: stdout. No clock: `now` comes in.
//!
//! The block is redrawn in place below the story, on the normal screen, so that the story stays in
//! the scrollback. Without a terminal no escape code is written.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Stdout, Write};

use crossterm::cursor::MoveToPreviousLine;
use crossterm::style::{Color, Stylize};
use crossterm::terminal::{Clear, ClearType};
use crossterm::{QueueableCommand, terminal};

use super::clock::MS;
use super::happening::{Happening, Tone};
use super::lines::Stage;
use super::story::{End, Row};

/// Cells of a full bar.
const BAR: usize = 24;
/// Without a live block, what is left is said this often while something is frozen.
const PLAIN_EVERY_US: u64 = 1_000 * MS;

enum Mode {
    Json,
    Plain { last_us: u64 },
    Live { block: u16, colour: bool },
}

/// The demo's stdout.
pub struct Screen {
    mode: Mode,
    out: Stdout,
    start_us: u64,
}

impl Screen {
    /// Looks what stdout is.
    pub fn new(json: bool, start_us: u64) -> Self {
        let out = io::stdout();
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let mode = if json {
            Mode::Json
        } else if out.is_terminal() && !dumb {
            Mode::Live {
                block: 0,
                colour: !set("NO_COLOR"),
            }
        } else {
            Mode::Plain { last_us: 0 }
        };
        Self {
            mode,
            out,
            start_us,
        }
    }

    /// Tells a happening.
    pub fn say(&mut self, happening: &Happening) -> io::Result<()> {
        let at = happening.mono_us().saturating_sub(self.start_us) as f64 / 1e6;
        let mut out = Vec::new();
        match &mut self.mode {
            Mode::Json => {
                let line = serde_json::to_string(happening)?;
                writeln!(out, "{line}")?;
            }
            Mode::Plain { .. } => writeln!(out, "{at:5.1} s  {}", happening.text())?,
            Mode::Live { block, colour } => {
                erase(&mut out, block)?;
                let text = format!("{at:5.1} s  {}", happening.text());
                let tint = tone_colour(happening.tone()).filter(|_| *colour);
                match tint {
                    Some(tint) => writeln!(out, "{}", text.with(tint))?,
                    None => writeln!(out, "{text}")?,
                }
            }
        }
        self.write(&out)
    }

    /// Shows how the sessions stand. `frozen`: whether something stands still just now.
    pub fn draw(&mut self, rows: &[Row], frozen: bool, now: u64) -> io::Result<()> {
        let mut out = Vec::new();
        match &mut self.mode {
            Mode::Json => return Ok(()),
            Mode::Plain { last_us } => {
                if !frozen || now < *last_us + PLAIN_EVERY_US {
                    return Ok(());
                }
                *last_us = now;
                let at = now.saturating_sub(self.start_us) as f64 / 1e6;
                let left: Vec<_> = rows.iter().map(brief).collect();
                writeln!(out, "{at:5.1} s  left: {}", left.join(", "))?;
            }
            Mode::Live { block, colour } => {
                erase(&mut out, block)?;
                let width = terminal::size().map_or(80, |(columns, _)| usize::from(columns));
                for row in rows {
                    // A line that wraps would break the count of lines to go back.
                    let text: String = full(row).chars().take(width.saturating_sub(1)).collect();
                    match row_colour(row).filter(|_| *colour) {
                        Some(tint) => writeln!(out, "{}", text.with(tint))?,
                        None => writeln!(out, "{text}")?,
                    }
                }
                *block = rows.len() as u16;
            }
        }
        self.write(&out)
    }

    /// All at once, so that a redrawn block doesn't flicker.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.flush()
    }
}

fn erase(out: &mut Vec<u8>, block: &mut u16) -> io::Result<()> {
    if *block > 0 {
        out.queue(MoveToPreviousLine(*block))?
            .queue(Clear(ClearType::FromCursorDown))?;
    }
    *block = 0;
    Ok(())
}

fn tone_colour(tone: Tone) -> Option<Color> {
    match tone {
        Tone::Plain => None,
        Tone::Act => Some(Color::Cyan),
        Tone::Warn => Some(Color::Yellow),
        Tone::Bad => Some(Color::Red),
        Tone::Good => Some(Color::Green),
    }
}

fn row_colour(row: &Row) -> Option<Color> {
    match (row.end, row.stage) {
        (Some(End::Closed), _) | (None, None) => None,
        (Some(End::Expired(_)), _) => Some(Color::Red),
        (None, Some(Stage::Healthy)) => Some(Color::Green),
        (None, Some(Stage::Late)) => Some(Color::Yellow),
        (None, Some(_)) => Some(Color::Red),
    }
}

fn state(row: &Row) -> String {
    match (row.end, row.stage) {
        (Some(End::Expired(_)), _) => "EXPIRED".to_owned(),
        (Some(End::Closed), _) => "closed".to_owned(),
        (None, Some(stage)) => stage.to_string(),
        (None, None) => "not seen by the daemon yet".to_owned(),
    }
}

fn brief(row: &Row) -> String {
    let mut text = row.client.name().to_owned();
    if let (None, Some(ms)) = (row.end, row.remaining_ms) {
        // Writing to a String can't fail.
        let _ = write!(text, " {:.1} s", ms / MS as f64);
    }
    format!("{text} {}", state(row))
}

fn full(row: &Row) -> String {
    let id = row.session.map_or(String::from("-"), |id| id.to_string());
    let left = row.remaining_ms.filter(|_| row.end.is_none());
    let share = left
        .map_or(0.0, |ms| ms / row.timeout_ms.max(1) as f64)
        .clamp(0.0, 1.0);
    let cells = (share * BAR as f64).ceil() as usize;
    let bar: String = "█".repeat(cells) + &"░".repeat(BAR - cells);
    let seconds = left.map_or(String::from("     -"), |ms| {
        format!("{:4.1} s", ms / MS as f64)
    });
    let words = if row.end.is_none() {
        row.reason.as_str()
    } else {
        ""
    };
    let text = format!(
        "  {:<5} {id:<18} {bar} {seconds}  {:<8} {words}",
        row.client.name(),
        state(row)
    );
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::lines::{ClientKind, SessionId};
    use super::*;

    #[test]
    fn a_row_shows_what_is_left_and_why() {
        let mut row = Row {
            client: ClientKind::Java,
            session: Some(SessionId(0xabc)),
            timeout_ms: 6_000,
            remaining_ms: Some(3_000.0),
            stage: Some(Stage::AtRisk),
            end: None,
            reason: "process_stopped".to_owned(),
        };
        let text = full(&row);
        assert_eq!(text.chars().filter(|c| *c == '█').count(), BAR / 2);
        assert!(text.contains(" 3.0 s  at_risk  process_stopped"), "{text}");
        assert_eq!(brief(&row), "java 3.0 s at_risk");
        row.remaining_ms = Some(-700.0);
        assert!(full(&row).contains("-0.7 s"));
        row.end = Some(End::Expired(1));
        assert!(full(&row).ends_with("EXPIRED"));
    }
}
