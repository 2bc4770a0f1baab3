//! One pass over every log.
//!
//! In: files. Out: for each source its events, its threads' activity and what it was made of. Never: more
//! memory than events and pauses need; a line that ends the reading.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use anyhow::Result;
use indicatif::ProgressBar;
use serde::Serialize;

use super::activity::Activity;
use super::input::{Input, Series, blocks, open, progress};
use super::meaning::{Event, Meaning};
use super::patterns::{Fields, Pattern, Patterns, Search};
use super::readers::{Kind, Moment, zookeeper_c};
use super::wall::{DAY, Wall};
use super::years::{Calendar, Zone, dates_in, offset_of};

/// A message is kept up to here.
const TEXT: usize = 400;
/// Lines after its event in which a continuation may stand.
const CONTINUES: u64 = 8;
/// Events that are kept of one source; the rest are counted.
const MOST_EVENTS: usize = 400_000;

/// What a log was made of.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Counts {
    /// Lines.
    pub lines: u64,
    /// Lines that say something known.
    pub understood: u64,
    /// Lines with a head whose message is of no known shape.
    pub unknown: u64,
    /// Lines without a head: they continue another, or are of no known layout.
    pub continued: u64,
    /// Lines that were cut before the figure that they are read for.
    pub cut: u64,
    /// Lines that stand there twice.
    pub repeated: u64,
    /// Understood lines whose time cannot be told: uptime only, or the line that they continue is not
    /// there.
    pub unplaced: u64,
    /// Understood lines above what is kept.
    pub left_out: u64,
}

/// One log, of one process.
#[derive(Debug)]
pub struct Source {
    /// Its files' common name.
    pub series: Series,
    /// Its files.
    pub files: Vec<String>,
    /// The first bytes of each.
    pub heads: Vec<Vec<u8>>,
    /// Who spoke when.
    pub activity: Activity,
    /// What it was made of.
    pub counts: Counts,
    /// What could be read of it without a time: a journal's header.
    pub timeless: Vec<(Meaning, Fields)>,
    /// Why reading ended early, if it did.
    pub trouble: Vec<String>,
}

/// All logs.
#[derive(Debug)]
pub struct Logs {
    /// One for each log.
    pub sources: Vec<Source>,
    /// Of all of them, in order of time.
    pub events: Vec<Event>,
    /// The report's zone.
    pub zone: Zone,
    /// What the years that are not written are known from.
    pub years: Years,
}

/// What years that are not written are known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Years {
    /// Other lines, or names.
    Logs,
    /// When the files were last written.
    FileTimes,
    /// Nothing.
    Nothing,
}

/// Reads them all.
///
/// # Errors
///
/// A file that cannot be opened, a zone that does not exist.
pub fn scan(inputs: Vec<Input>, patterns: &Patterns, timezone: Option<&str>) -> Result<Logs> {
    let (calendar, years) = calendar(&inputs, timezone)?;
    let mut groups: Vec<(Series, Vec<Input>)> = Vec::new();
    for input in inputs {
        let series = input.series();
        match groups.iter_mut().find(|(known, _)| *known == series) {
            Some((_, files)) => files.push(input),
            None => groups.push((series, vec![input])),
        }
    }
    let size = |input: &Input| std::fs::metadata(&input.path).map_or(0, |meta| meta.len());
    let total = groups.iter().flat_map(|(_, files)| files).map(size).sum();
    let bar = progress(total);
    let mut logs = Logs {
        sources: Vec::new(),
        events: Vec::new(),
        zone: calendar.zone.clone(),
        years,
    };
    for (series, files) in groups {
        bar.set_message(series.stem.clone());
        let number = logs.sources.len();
        let (source, events) = read(series, files, number, patterns, &calendar, &bar)?;
        logs.sources.push(source);
        logs.events.extend(events);
    }
    bar.finish_and_clear();
    without_repeats(&mut logs);
    Ok(logs)
}

/// Years and zone, from what is seen before the reading.
fn calendar(inputs: &[Input], timezone: Option<&str>) -> Result<(Calendar, Years)> {
    let mut known = Vec::new();
    let mut zone = None;
    for input in inputs {
        known.extend(dates_in(&input.head, 64));
        known.extend(dates_in(input.path.to_string_lossy().as_bytes(), 4));
        let reader = input.kind.reader();
        for line in input.head.split(|byte| *byte == b'\n').take(200) {
            if let Some(Moment::Wall(stamp)) = (reader.head)(line).map(|head| head.moment)
                && let Some(east) = stamp.zone
            {
                // A local zone tells more than UTC, which programs also write on their own account.
                if zone.is_none_or(|known| known == 0) {
                    zone = Some(east);
                }
            }
        }
    }
    let mut years = Years::Logs;
    if known.is_empty() {
        years = Years::FileTimes;
        let modified = inputs.iter().filter_map(|input| input.modified);
        known.extend(modified.map(|seconds| seconds.div_euclid(DAY / 1_000_000_000)));
    }
    if known.is_empty() {
        years = Years::Nothing;
    }
    let zone = match (timezone, zone) {
        (Some(name), _) => Zone {
            east: offset_of(name, known.first().copied().unwrap_or(0))
                .map_err(anyhow::Error::msg)?,
            source: "--timezone",
        },
        (None, Some(east)) => Zone {
            east,
            source: "the logs",
        },
        (None, None) => Zone {
            east: 0,
            source: "nothing",
        },
    };
    Ok((Calendar::new(known, zone), years))
}

struct Reading<'a> {
    patterns: &'a Patterns,
    search: Search,
    kind: Kind,
    number: usize,
    file: usize,
    calendar: Calendar,
    source: Source,
    events: Vec<Event>,
    /// The last event with a head, for lines that continue it: its place and line.
    open: Option<(usize, u64)>,
    /// Continuations whose event was not before them.
    orphans: Vec<(Meaning, Meaning, Fields)>,
    line: u64,
    /// Events of a thread whose lines have no thread of their own, none.
    found: Vec<(usize, usize)>,
}

fn read(
    series: Series,
    mut files: Vec<Input>,
    number: usize,
    patterns: &Patterns,
    calendar: &Calendar,
    bar: &ProgressBar,
) -> Result<(Source, Vec<Event>)> {
    // Rotated files oldest first: by name `.2` is older than `.1`, by date the other way; what the
    // first lines say decides, and times in any order are put right later.
    files.sort_by_key(|input| input.modified);
    let kind = series.kind;
    let mut reading = Reading {
        patterns,
        search: patterns.search(kind)?,
        kind,
        number,
        file: 0,
        calendar: calendar.clone(),
        source: Source {
            series,
            files: Vec::new(),
            heads: Vec::new(),
            activity: Activity::default(),
            counts: Counts::default(),
            timeless: Vec::new(),
            trouble: Vec::new(),
        },
        events: Vec::new(),
        open: None,
        orphans: Vec::new(),
        line: 0,
        found: Vec::new(),
    };
    for (place, input) in files.into_iter().enumerate() {
        reading.file = place;
        reading.line = 0;
        reading.open = None;
        let reader = open(&input.path, Some(bar))?;
        if let Err(error) = blocks(reader, |block| reading.block(block)) {
            let where_ = format!("{}: {error}; read up to there", input.path.display());
            reading.source.trouble.push(where_);
        }
        reading.source.files.push(input.path.display().to_string());
        reading.source.heads.push(input.head);
    }
    reading.place_orphans();
    Ok((reading.source, reading.events))
}

impl Reading<'_> {
    /// Whole lines: first all needles in one go, then line by line.
    fn block(&mut self, block: &[u8]) {
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        found.extend(
            self.search
                .automaton
                .find_iter(block)
                .map(|hit| (hit.start(), hit.pattern().as_usize())),
        );
        let mut hits = found.as_slice();
        let mut start = 0;
        while start < block.len() {
            let end = memchr::memchr(b'\n', &block[start..]).map_or(block.len(), |at| start + at);
            let of_line = hits.partition_point_small(end);
            let (mine, rest) = hits.split_at(of_line);
            hits = rest;
            self.line(&block[start..end], mine);
            start = end + 1;
        }
        self.found = found;
    }

    fn line(&mut self, line: &[u8], hits: &[(usize, usize)]) {
        self.line += 1;
        let counts = &mut self.source.counts;
        counts.lines += 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(head) = (self.kind.reader().head)(line) else {
            counts.continued += 1;
            if !hits.is_empty() {
                self.continuation(line, hits);
            }
            return;
        };
        let at = match head.moment {
            Moment::Wall(stamp) => {
                let at = self.calendar.moment(stamp);
                self.source.activity.spoke(head.thread, at);
                Some(at)
            }
            Moment::Uptime(_) | Moment::None => None,
        };
        if hits.is_empty() {
            self.source.counts.unknown += 1;
            return;
        }
        let message = &line[head.message.min(line.len())..];
        self.event(at, head.thread, message, hits);
    }

    fn event(&mut self, at: Option<Wall>, thread: &[u8], message: &[u8], hits: &[(usize, usize)]) {
        let inside = if hits
            .iter()
            .any(|(_, hit)| self.search.entries[*hit].is_none())
        {
            zookeeper_c::embedded(message)
        } else {
            None
        };
        let patterns = self.patterns;
        let mut cut = false;
        let mut said: Option<(Meaning, Fields)> = None;
        let mut consider =
            |pattern: &Pattern, message: &[u8]| match (pattern.fields(message), &mut said) {
                (None, _) => cut = true,
                (Some(fields), None) => said = Some((pattern.event, fields)),
                // A line that holds an event and what usually continues it.
                (Some(fields), Some(before)) if pattern.follows == Some(before.0) => {
                    before.0 = pattern.event;
                    before.1.extend(fields);
                }
                (Some(_), Some(_)) => {}
            };
        if let Some(inside) = inside {
            for pattern in patterns.of(Kind::ZookeeperC, inside.message) {
                consider(pattern, inside.message);
            }
        }
        for (_, hit) in hits {
            if let Some(number) = self.search.entries[*hit] {
                consider(patterns.get(number), message);
            }
        }
        let counts = &mut self.source.counts;
        let Some((meaning, fields)) = said else {
            if cut {
                counts.cut += 1;
            } else {
                counts.unknown += 1;
            }
            return;
        };
        counts.understood += 1;
        let Some(at) = at else {
            if self.source.timeless.len() < MOST_EVENTS {
                self.source.timeless.push((meaning, fields));
            }
            counts.unplaced += u64::from(self.kind != Kind::Dumpe2fs);
            return;
        };
        if self.events.len() >= MOST_EVENTS {
            counts.left_out += 1;
            return;
        }
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(&bytes[..bytes.len().min(TEXT)])
                .trim()
                .to_owned()
        };
        self.open = Some((self.events.len(), self.line));
        self.events.push(Event {
            at,
            own: inside.map(|inside| own_stamp(at, self.calendar.moment(inside.stamp))),
            source: self.number,
            thread: text(thread),
            own_thread: inside.map(|inside| text(inside.thread)),
            function: inside.map(|inside| text(inside.function)),
            meaning,
            fields,
            place: (self.file, self.line),
            text: text(inside.map_or(message, |inside| inside.message)),
        });
    }

    /// A line without a head.
    fn continuation(&mut self, line: &[u8], hits: &[(usize, usize)]) {
        for (_, hit) in hits {
            let Some(pattern) = self.search.entries[*hit].map(|number| self.patterns.get(number))
            else {
                continue;
            };
            let Some(follows) = pattern.follows else {
                continue;
            };
            let Some(fields) = pattern.fields(line) else {
                self.source.counts.cut += 1;
                continue;
            };
            self.source.counts.understood += 1;
            match self.open {
                Some((place, at))
                    if self.line - at <= CONTINUES && self.events[place].meaning == follows =>
                {
                    self.events[place].meaning = pattern.event;
                    self.events[place].fields.extend(fields);
                }
                // The same again: a line that stands there twice.
                Some((place, at))
                    if self.line - at <= CONTINUES
                        && fields
                            .iter()
                            .all(|field| self.events[place].fields.contains(field)) => {}
                _ => self.orphans.push((follows, pattern.event, fields)),
            }
            return;
        }
    }

    /// Where lines were put out of order, one continuation and one event that lacks it belong together.
    fn place_orphans(&mut self) {
        let orphans = std::mem::take(&mut self.orphans);
        let mut distinct: Vec<(Meaning, Meaning, Fields)> = Vec::new();
        for orphan in orphans {
            let known = self.events.iter().any(|event| {
                event.meaning == orphan.1
                    && orphan.2.iter().all(|field| event.fields.contains(field))
            });
            if !known && !distinct.contains(&orphan) {
                distinct.push(orphan);
            }
        }
        for (follows, meaning, fields) in &distinct {
            let alone = distinct.iter().filter(|other| other.0 == *follows).count() == 1;
            let mut lacking: Vec<usize> = Vec::new();
            for (place, event) in self.events.iter().enumerate() {
                let again = lacking.iter().any(|known| {
                    self.events[*known].at == event.at && self.events[*known].text == event.text
                });
                if event.meaning == *follows && !again {
                    lacking.push(place);
                }
            }
            if let ([place], true) = (lacking.as_slice(), alone) {
                self.events[*place].meaning = *meaning;
                self.events[*place].fields.extend(fields.iter().cloned());
            } else {
                self.source.counts.unplaced += 1;
            }
        }
    }
}

/// A message's own stamp next to its logger's: whole quarters of an hour between them are another zone.
fn own_stamp(logged: Wall, own: Wall) -> Wall {
    const QUARTER: i64 = 900 * 1_000_000_000;
    let apart = logged.since(own);
    let quarters = (apart + QUARTER / 2).div_euclid(QUARTER);
    let shifted = own.plus(quarters * QUARTER);
    // A long stall looks like another zone only if it is as long as one, to the minute.
    if quarters.abs() <= 14 * 4 && logged.since(shifted).abs() < QUARTER / 15 {
        shifted
    } else {
        own
    }
}

/// The hits in a line are few: counted, not searched for.
trait HitsExt {
    fn partition_point_small(&self, end: usize) -> usize;
}

impl HitsExt for [(usize, usize)] {
    fn partition_point_small(&self, end: usize) -> usize {
        self.iter().take_while(|(at, _)| *at < end).count()
    }
}

/// Puts events in order and leaves out those that stand there twice (in one log, or in two that overlap).
fn without_repeats(logs: &mut Logs) {
    // Of two the one that knows more is kept.
    logs.events
        .sort_by_key(|event| (event.at, std::cmp::Reverse(event.fields.len())));
    let mut seen: HashSet<u64> = HashSet::new();
    let mut repeated: HashMap<usize, u64> = HashMap::new();
    logs.events.retain(|event| {
        let mut hasher = DefaultHasher::new();
        (event.at, &event.thread, &event.text, event.own).hash(&mut hasher);
        // Times without fractions say too little for two lines to be one.
        let new =
            seen.insert(hasher.finish()) || event.at.0 % 1_000_000 == 0 && event.thread.is_empty();
        if !new {
            *repeated.entry(event.source).or_default() += 1;
        }
        new
    });
    logs.events
        .sort_by_key(|event| (event.at, event.source, event.place));
    for (source, count) in repeated {
        logs.sources[source].counts.repeated = count;
    }
}
