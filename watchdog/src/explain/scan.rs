//! One pass over every log.
//!
//! In: files. Out: for each source its events, its threads' activity and what it was made of; each line is
//! counted once. Never: more memory than events and pauses need; a line that ends the reading.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use anyhow::Result;
use indicatif::ProgressBar;
use serde::Serialize;

use super::activity::Activity;
use super::clocks::Alias;
use super::input::{Input, Series, blocks, open, progress};
use super::meaning::{Event, Meaning};
use super::mixed::Mixed;
use super::patterns::{Fields, Pattern, Patterns, Search};
use super::readers::{Head, Kind, Moment, zookeeper_c};
use super::stamp::Stamp;
use super::wall::{DAY, SECOND, Wall};
use super::years::{Calendar, Zone, dates_in, offset_of};

/// A message is kept up to here.
const TEXT: usize = 400;
/// Lines after its event in which a continuation may stand.
const CONTINUES: u64 = 8;
/// Events that are kept of one source; the rest are counted.
const MOST_EVENTS: usize = 200_000;
/// Lines without their event that are kept until it comes.
const MOST_ORPHANS: usize = 1000;
/// A line of another layout than its file's must speak for that so clearly.
const CLEARLY: u32 = 2;

/// What a log was made of.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Counts {
    /// Lines.
    pub lines: u64,
    /// Lines that say something known.
    pub understood: u64,
    /// Lines with a head whose message is of no known shape.
    pub unknown: u64,
    /// Lines without a head that say nothing known: they continue another, or are of no known layout.
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
    /// The host that who passed its lines on says it ran on.
    pub host: Option<String>,
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
    /// What the nodes that recorded are called.
    pub aliases: Vec<Alias>,
    /// What is known of their clocks.
    pub clocks: Vec<String>,
    /// Hosts whose times are by one clock.
    pub settled: BTreeSet<String>,
    /// What was not read, and why.
    pub unread: Vec<String>,
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
        aliases: Vec::new(),
        clocks: Vec::new(),
        settled: BTreeSet::new(),
        unread: Vec::new(),
    };
    let search = patterns.search()?;
    for (series, files) in groups {
        bar.set_message(series.stem.clone());
        let tools = Tools {
            patterns,
            search: &search,
            calendar: &calendar,
        };
        read(series, files, tools, &bar, &mut logs);
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
                learn(&mut zone, east);
            }
        }
        for stamp in &input.stamps {
            if let Some(east) = stamp.zone {
                learn(&mut zone, east);
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

/// A local zone tells more than UTC, which programs also write on their own account.
fn learn(zone: &mut Option<i32>, east: i32) {
    if zone.is_none_or(|known| known == 0) {
        *zone = Some(east);
    }
}

/// What every reading needs.
#[derive(Clone, Copy)]
pub struct Tools<'a> {
    /// All patterns.
    pub patterns: &'a Patterns,
    /// Their needles.
    pub search: &'a Search,
    /// Years and zone.
    pub calendar: &'a Calendar,
}

/// What is known of a line from around it.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    /// Which line of its file it is.
    pub number: u64,
    /// When it was passed on.
    pub stamp: Option<Stamp>,
}

/// The reading of one source.
pub struct Reading<'a> {
    patterns: &'a Patterns,
    search: &'a Search,
    kind: Kind,
    file: usize,
    calendar: Calendar,
    /// Seconds east of UTC of stamps without a zone, where those around them tell it.
    east: Option<i32>,
    source: Source,
    events: Vec<Event>,
    /// The last event with a head, for lines that continue it: its place and line.
    open: Option<(usize, u64)>,
    /// The last head: its time, thread and line.
    spoke: Option<(Wall, Vec<u8>, u64)>,
    /// Continuations whose event was not before them.
    orphans: Vec<(Meaning, Meaning, Fields)>,
    line: u64,
    /// Events of a thread whose lines have no thread of their own, none.
    found: Vec<(usize, usize)>,
}

fn read(
    series: Series,
    mut files: Vec<Input>,
    tools: Tools<'_>,
    bar: &ProgressBar,
    logs: &mut Logs,
) {
    // Rotated files oldest first: by name `.2` is older than `.1`, by date the other way; what the
    // first lines say decides, and times in any order are put right later.
    files.sort_by_key(|input| input.modified);
    let names: Vec<String> = files.iter().map(|input| input.name.clone()).collect();
    let mut trouble = Vec::new();
    let mut read = |input: &Input, each: &mut dyn FnMut(&[u8])| {
        let outcome = open(&input.path, Some(bar))
            .and_then(|reader| blocks(reader, each).map_err(anyhow::Error::from));
        if let Err(error) = outcome {
            trouble.push(format!("{}: {error}; read up to there", input.name));
        }
    };
    let mut sources: Vec<(Source, Vec<Event>)> = Vec::new();
    if files.iter().all(|input| input.wraps.is_empty()) {
        let mut reading = Reading::new(tools, series);
        for (place, input) in files.into_iter().enumerate() {
            reading.next_file(place);
            read(&input, &mut |block| reading.block(block, &[]));
            reading.source.heads.push(input.head);
        }
        sources.push(reading.end());
    } else {
        let named = files.iter().find_map(|input| input.named);
        let mut mixed = Mixed::new(tools, series, named);
        for (place, input) in files.iter().enumerate() {
            mixed.next_file(place);
            read(input, &mut |block| mixed.block(&input.wraps, block));
        }
        let (readings, unread) = mixed.end();
        sources.extend(readings);
        logs.unread.extend(unread);
    }
    if sources.is_empty() {
        logs.unread.extend(std::mem::take(&mut trouble));
    }
    for (mut source, mut events) in sources {
        source.files.clone_from(&names);
        source.trouble.append(&mut trouble);
        for event in &mut events {
            event.source = logs.sources.len();
        }
        logs.sources.push(source);
        logs.events.extend(events);
    }
}

impl<'a> Reading<'a> {
    /// Nothing read yet.
    #[must_use]
    pub fn new(tools: Tools<'a>, series: Series) -> Self {
        Self {
            patterns: tools.patterns,
            search: tools.search,
            kind: series.kind,
            file: 0,
            calendar: tools.calendar.clone(),
            east: None,
            source: Source {
                series,
                files: Vec::new(),
                heads: Vec::new(),
                host: None,
                activity: Activity::default(),
                counts: Counts::default(),
                timeless: Vec::new(),
                trouble: Vec::new(),
            },
            events: Vec::new(),
            open: None,
            spoke: None,
            orphans: Vec::new(),
            line: 0,
            found: Vec::new(),
        }
    }

    /// What follows is of the set's next file.
    pub fn next_file(&mut self, place: usize) {
        self.file = place;
        self.line = 0;
        self.open = None;
        self.spoke = None;
    }

    /// The host that who passed the lines on says, and their first bytes.
    pub fn of_host(&mut self, host: Option<String>, head: Vec<u8>) {
        self.source.host = host;
        self.source.heads.push(head);
    }

    /// What was read.
    #[must_use]
    pub fn end(mut self) -> (Source, Vec<Event>) {
        self.place_orphans();
        (self.source, self.events)
    }

    /// Whole lines: first all needles in one go, then line by line. `outer` is empty, or has what is known
    /// of each line.
    pub fn block(&mut self, block: &[u8], outer: &[Outer]) {
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        found.extend(
            self.search
                .automaton
                .find_overlapping_iter(block)
                .map(|hit| (hit.start(), hit.pattern().as_usize())),
        );
        let mut hits = found.as_slice();
        let mut start = 0;
        let mut outer = outer.iter();
        while start < block.len() {
            let end = memchr::memchr(b'\n', &block[start..]).map_or(block.len(), |at| start + at);
            let of_line = hits.partition_point_small(end);
            let (mine, rest) = hits.split_at(of_line);
            hits = rest;
            let known = outer.next();
            self.line = known.map_or(self.line + 1, |outer| outer.number);
            let stamp = known.and_then(|outer| outer.stamp);
            self.line(&block[start..end], mine, stamp);
            start = end + 1;
        }
        self.found = found;
    }

    fn line(&mut self, line: &[u8], hits: &[(usize, usize)], outer: Option<Stamp>) {
        self.source.counts.lines += 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let head = (self.kind.reader().head)(line);
        if hits.is_empty() {
            match head {
                Some(head) => self.headed(line, self.kind, head, hits, outer),
                None => self.headless(line, hits, outer),
            }
            return;
        }
        // Two programs, or two libraries of one program, may write into one file.
        let own = (self.kind.reader().claims)(line).max(CLEARLY - 1);
        let other = hits
            .iter()
            .filter_map(|(_, hit)| self.search.entries[*hit])
            .flat_map(|number| self.patterns.get(number).kinds())
            .filter(|kind| **kind != self.kind)
            .map(|kind| ((kind.reader().claims)(line), *kind))
            .max_by_key(|(claims, _)| *claims)
            .filter(|(claims, _)| *claims > own)
            .and_then(|(_, kind)| Some((kind, (kind.reader().head)(line)?)));
        match (other, head) {
            (Some((kind, head)), _) => self.headed(line, kind, head, hits, outer),
            (None, Some(head)) => self.headed(line, self.kind, head, hits, outer),
            (None, None) => self.headless(line, hits, outer),
        }
    }

    /// Whether one of these needles is of this log's kind.
    fn speaks(&self, hits: &[(usize, usize)]) -> bool {
        hits.iter().any(|(_, hit)| match self.search.entries[*hit] {
            Some(number) => self.patterns.get(number).kinds().contains(&self.kind),
            None => self.kind != Kind::ZookeeperC,
        })
    }

    fn headed(
        &mut self,
        line: &[u8],
        kind: Kind,
        head: Head<'_>,
        hits: &[(usize, usize)],
        outer: Option<Stamp>,
    ) {
        let at = match (head.moment, outer) {
            (Moment::Wall(stamp), outer) => Some(self.moment(stamp, outer)),
            (Moment::Uptime(_) | Moment::None, Some(outer)) => Some(self.calendar.moment(outer)),
            (Moment::Uptime(_) | Moment::None, None) => None,
        };
        if let Some(at) = at {
            self.source.activity.spoke(head.thread, at);
            let (when, thread, place) = self.spoke.get_or_insert_default();
            *when = at;
            *place = self.line;
            thread.clear();
            thread.extend_from_slice(&head.thread[..head.thread.len().min(TEXT)]);
        }
        if hits.is_empty() {
            self.source.counts.unknown += 1;
            return;
        }
        let message = &line[head.message.min(line.len())..];
        self.event(kind, at, head.thread, message, hits);
    }

    /// A stamp's moment; one without a zone is of the zone that the stamp around it tells.
    fn moment(&mut self, mut stamp: Stamp, outer: Option<Stamp>) -> Wall {
        const QUARTER: i64 = 900 * SECOND;
        if stamp.zone.is_none() {
            if self.east.is_none()
                && stamp.yearless.is_none()
                && let Some(outer) = outer
                && let Some(zone) = outer.zone
            {
                let passed_on = outer.local.saturating_sub(i64::from(zone) * SECOND);
                let apart = stamp.local.saturating_sub(passed_on);
                let quarters = apart.saturating_add(QUARTER / 2).div_euclid(QUARTER);
                // It is passed on at once, or it tells nothing.
                let near = (apart - quarters.saturating_mul(QUARTER)).abs() < QUARTER / 15;
                if near && quarters.abs() <= 14 * 4 {
                    self.east = i32::try_from(quarters * 900).ok();
                }
            }
            stamp.zone = self.east;
        }
        self.calendar.moment(stamp)
    }

    fn event(
        &mut self,
        kind: Kind,
        at: Option<Wall>,
        thread: &[u8],
        message: &[u8],
        hits: &[(usize, usize)],
    ) {
        let inside = if kind != Kind::ZookeeperC
            && hits
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
                (None, _) => cut |= !pattern.else_unknown,
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
            if let Some(number) = self.search.entries[*hit]
                && patterns.get(number).kinds().contains(&kind)
            {
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
            counts.unplaced += u64::from(kind != Kind::Dumpe2fs);
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
            source: 0,
            thread: text(thread),
            own_thread: inside.map(|inside| text(inside.thread)),
            function: inside.map(|inside| text(inside.function)),
            meaning,
            fields,
            place: (self.file, self.line),
            text: text(inside.map_or(message, |inside| inside.message)),
        });
    }

    /// A line without a head: it belongs to one before it, or has no time but that of who passed it on.
    fn headless(&mut self, line: &[u8], hits: &[(usize, usize)], outer: Option<Stamp>) {
        if !hits.is_empty() && self.continuation(line, hits) {
            return;
        }
        let before = self
            .spoke
            .as_ref()
            .filter(|(_, _, place)| self.line - place <= CONTINUES)
            .map(|(at, thread, _)| (*at, thread.clone()));
        let passed_on = outer.map(|stamp| (self.calendar.moment(stamp), Vec::new()));
        let counts = self.source.counts;
        if let (Some((at, thread)), false) = (before.or(passed_on), hits.is_empty()) {
            if self.speaks(hits) {
                self.event(self.kind, Some(at), &thread, line, hits);
            } else {
                // A layout that only has a message, of whatever library.
                let kinds = hits
                    .iter()
                    .filter_map(|(_, hit)| self.search.entries[*hit])
                    .flat_map(|number| self.patterns.get(number).kinds());
                let kind = kinds
                    .copied()
                    .find(|kind| outer.is_some() && *kind != Kind::Dumpe2fs);
                if let Some(kind) = kind {
                    self.event(kind, Some(at), &thread, line, hits);
                }
            }
        }
        // Whatever was not understood is a line without a head.
        let now = &mut self.source.counts;
        if now.understood == counts.understood && now.cut == counts.cut {
            now.unknown = counts.unknown;
            now.continued += 1;
        }
    }

    /// A line that goes on with the event before it; false if no pattern says that it does.
    fn continuation(&mut self, line: &[u8], hits: &[(usize, usize)]) -> bool {
        for (_, hit) in hits {
            let Some(pattern) = self.search.entries[*hit].map(|number| self.patterns.get(number))
            else {
                continue;
            };
            let Some(follows) = pattern.follows else {
                continue;
            };
            if !pattern.kinds().contains(&self.kind) {
                continue;
            }
            let Some(fields) = pattern.fields(line) else {
                self.source.counts.cut += 1;
                return true;
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
                _ if self.orphans.len() < MOST_ORPHANS => {
                    self.orphans.push((follows, pattern.event, fields));
                }
                _ => self.source.counts.unplaced += 1,
            }
            return true;
        }
        false
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
                if lacking.len() > 1 {
                    break;
                }
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
