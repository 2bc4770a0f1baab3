//! Rows on the terminal, as they come; one object for machines.
//!
//! Out: colours only on a terminal that wants them (NO_COLOR, TERM). Never: an escape sequence into
//! a pipe.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use super::{Check, State};
use crate::printable::printable;

/// Columns of the check's name.
const NAME: usize = 26;

/// The table, row by row.
pub struct Table {
    shown: bool,
    colours: bool,
}

/// Whether standard output wants colours.
#[must_use]
pub fn wants_colours() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && !set("NO_COLOR") && !dumb
}

const fn look(state: State) -> (&'static str, &'static str) {
    match state {
        State::Ok => ("ok", "32"),
        State::Note => ("note", "36"),
        State::Less => ("less", "33"),
        State::Wrong => ("wrong", "31"),
        State::Missing => ("missing", "1;31"),
    }
}

impl Table {
    /// A table that is shown, or not.
    pub fn new(shown: bool) -> Self {
        Self {
            shown,
            colours: wants_colours(),
        }
    }

    /// Shows a row.
    pub fn row(&mut self, check: &Check) {
        if !self.shown {
            return;
        }
        let (word, colour) = look(check.state);
        let word = self.coloured(&format!("{word:<8}"), colour);
        let mut row = format!(
            "{word} {:<NAME$} {}\n",
            check.check,
            printable(&check.found)
        );
        if let Some(mend) = check.mend.as_ref().filter(|_| check.state != State::Ok) {
            let mend = self.coloured(&format!("mend: {}", printable(mend)), "1");
            row += &format!("{:9}{mend}\n", "");
        }
        self.print(&row);
    }

    /// Ends it with the verdict.
    pub fn end(&mut self, checks: &[Check], verdict: &str) {
        if !self.shown {
            return;
        }
        let count = |state| checks.iter().filter(|check| check.state == state).count();
        let line = format!(
            "\n{verdict}: {} ok, {} with less, {} wrong, {} missing\n",
            count(State::Ok) + count(State::Note),
            count(State::Less),
            count(State::Wrong),
            count(State::Missing),
        );
        self.print(&line);
    }

    fn coloured(&self, text: &str, colour: &str) -> String {
        if self.colours {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Whoever reads may have gone: then nobody misses the rest.
    fn print(&self, text: &str) {
        let mut out = io::stdout().lock();
        let _gone = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// Prints one object.
pub fn print_json(report: &impl Serialize) {
    let mut out = io::stdout().lock();
    let _gone = serde_json::to_writer_pretty(&mut out, report)
        .map_err(io::Error::from)
        .and_then(|()| out.write_all(b"\n"));
}
