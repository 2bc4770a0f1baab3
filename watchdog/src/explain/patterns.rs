//! The pattern file, compiled.
//!
//! In: `patterns.yaml` and a user's own. Out: for a kind of log, one automaton over all needles and, for
//! a line that holds one, the event and its fields. Never: a line's time or thread; a `panic` on what a
//! user wrote.

use std::sync::{Arc, OnceLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use anyhow::{Context as _, Result, bail};
use regex::bytes::Regex;
use serde::Deserialize;

use super::meaning::Meaning;
use super::readers::Kind;

const OWN: &str = include_str!("patterns.yaml");
/// What a line of the C client holds, wherever it stands.
const EMBEDDED: &str = ":ZOO_";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    event: Meaning,
    kinds: Vec<Kind>,
    needle: String,
    #[serde(default)]
    fields: Vec<String>,
    #[serde(default)]
    needs: Vec<String>,
    #[serde(default)]
    else_unknown: bool,
    follows: Option<Meaning>,
}

/// One entry, compiled.
#[derive(Debug)]
pub struct Pattern {
    /// What such a line says.
    pub event: Meaning,
    /// The event before it that it belongs to.
    pub follows: Option<Meaning>,
    kinds: Vec<Kind>,
    needle: String,
    fields: Vec<Regex>,
    needs: Vec<String>,
    /// Without what it needs a line is another one, not one that was cut.
    pub else_unknown: bool,
}

/// What was read off a line: names of groups and what they hold.
pub type Fields = Vec<(String, String)>;

impl Pattern {
    /// The kinds of log that it stands in.
    #[must_use]
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// The fields, or `None` where one is missing that the line is worth nothing without.
    #[must_use]
    pub fn fields(&self, message: &[u8]) -> Option<Fields> {
        let mut found = Fields::new();
        for regex in &self.fields {
            let Some(groups) = regex.captures(message) else {
                continue;
            };
            for name in regex.capture_names().flatten() {
                if let Some(group) = groups.name(name) {
                    let text = String::from_utf8_lossy(group.as_bytes()).into_owned();
                    // `took2` is another way to say `took`: group names are unique in a pattern.
                    let name = name.trim_end_matches(|c: char| c.is_ascii_digit());
                    found.push((name.to_owned(), text));
                }
            }
        }
        let whole = self
            .needs
            .iter()
            .all(|need| found.iter().any(|(name, _)| name == need));
        whole.then_some(found)
    }
}

/// All entries.
pub struct Patterns {
    all: Vec<Arc<Pattern>>,
}

/// The needles of all kinds of log.
pub struct Search {
    /// Over all needles; its pattern numbers are places in `entries`.
    pub automaton: AhoCorasick,
    /// For each needle its pattern; `None` is a line of the C client inside another.
    pub entries: Vec<Option<usize>>,
}

impl Patterns {
    /// The project's own and, before them, those of the files named.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, is not a list of entries, or holds a bad expression, by name.
    pub fn load(files: &[std::path::PathBuf]) -> Result<Self> {
        // Compiled once a process.
        static COMPILED: OnceLock<Vec<Arc<Pattern>>> = OnceLock::new();
        let mut all: Vec<Arc<Pattern>> = Vec::new();
        for file in files {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("--patterns {}", file.display()))?;
            let name = format!("--patterns {}", file.display());
            all.extend(
                compile(&text)
                    .with_context(|| name)?
                    .into_iter()
                    .map(Arc::new),
            );
        }
        let own = match COMPILED.get() {
            Some(own) => own,
            None => {
                let own = compile(OWN).context("the project's own patterns.yaml")?;
                COMPILED.get_or_init(|| own.into_iter().map(Arc::new).collect())
            }
        };
        all.extend(own.iter().cloned());
        Ok(Self { all })
    }

    /// The pattern of this number.
    #[must_use]
    pub fn get(&self, number: usize) -> &Pattern {
        &self.all[number]
    }

    /// All needles. A log of one kind may hold lines of another, so they are looked for together.
    ///
    /// # Errors
    ///
    /// When the automaton would be too large.
    pub fn search(&self) -> Result<Search> {
        let mut needles: Vec<&str> = self
            .all
            .iter()
            .map(|pattern| pattern.needle.as_str())
            .collect();
        let mut entries: Vec<Option<usize>> = (0..self.all.len()).map(Some).collect();
        needles.push(EMBEDDED);
        entries.push(None);
        let automaton = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::DFA))
            .match_kind(MatchKind::Standard)
            .build(needles)
            .context("the needles of the patterns")?;
        Ok(Search { automaton, entries })
    }

    /// The patterns of one kind whose needle a message holds.
    pub fn of(&self, kind: Kind, message: &[u8]) -> impl Iterator<Item = &Pattern> {
        self.all.iter().map(Arc::as_ref).filter(move |pattern| {
            pattern.kinds.contains(&kind)
                && memchr::memmem::find(message, pattern.needle.as_bytes()).is_some()
        })
    }
}

fn compile(text: &str) -> Result<Vec<Pattern>> {
    let entries: Vec<Entry> = serde_yaml::from_str(text).context("is not a list of patterns")?;
    entries
        .into_iter()
        .map(|entry| {
            let of = || format!("the pattern with needle {:?}", entry.needle);
            if entry.needle.len() < 4 {
                bail!("{}: a needle has at least four characters", of());
            }
            let fields = entry
                .fields
                .iter()
                .map(|text| Regex::new(text))
                .collect::<Result<Vec<_>, _>>()
                .with_context(of)?;
            for need in &entry.needs {
                let named = fields
                    .iter()
                    .flat_map(|regex| regex.capture_names().flatten())
                    .any(|name| name == need);
                if !named {
                    bail!("{}: needs {need:?}, which no field has", of());
                }
            }
            Ok(Pattern {
                event: entry.event,
                follows: entry.follows,
                kinds: entry.kinds,
                needle: entry.needle,
                fields,
                needs: entry.needs,
                else_unknown: entry.else_unknown,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_projects_own_patterns_compile_and_every_kind_has_some() {
        let patterns = Patterns::load(&[]).unwrap();
        assert_eq!(
            patterns.search().unwrap().entries.len(),
            patterns.all.len() + 1
        );
        for reader in &crate::explain::readers::READERS {
            let some = patterns
                .all
                .iter()
                .any(|pattern| pattern.kinds.contains(&reader.kind));
            assert!(some || reader.kind == Kind::Recording, "{}", reader.name);
        }
    }

    #[test]
    fn a_bad_pattern_is_named() {
        for (text, says) in [
            (
                "- {event: jeopardy, kinds: [glog], needle: abc}",
                "at least four",
            ),
            (
                "- {event: jeopardy, kinds: [glog], needle: abcd, fields: ['(']}",
                "abcd",
            ),
            (
                "- {event: jeopardy, kinds: [glog], needle: abcd, needs: [x]}",
                "which no field",
            ),
            (
                "- {event: nonsense, kinds: [glog], needle: abcd}",
                "nonsense",
            ),
        ] {
            let error = format!("{:#}", compile(text).unwrap_err());
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_cut_line_says_nothing_without_what_it_needs() {
        let patterns = Patterns::load(&[]).unwrap();
        let of = |message: &str| {
            patterns
                .of(Kind::ZookeeperC, message.as_bytes())
                .find_map(|pattern| pattern.fields(message.as_bytes()))
        };
        assert!(of("Exceeded deadline by 3302ms").is_some());
        assert!(of("Exceeded deadline by 330").is_none());
    }
}
