//! One file, many programs: syslog, the journal, `docker compose logs`.
//!
//! In: wrapped lines. Out: a source for each program whose lines are of a known kind, and how many lines the
//! others wrote. Never: a program's lines taken for another's; more than a few hundred programs apart.

use std::collections::HashMap;

use super::input::Series;
use super::meaning::Event;
use super::readers::{Kind, detect};
use super::scan::{Outer, Reading, Source, Tools};
use super::wrap::{Wrap, peel};

/// Programs that are told apart; what others write is counted.
const MOST: usize = 256;
/// Of a line that its runtime split so much is put together again.
const LINE: usize = 1 << 20;
/// A program's kind is found by so many lines, or so many bytes: always the same ones, wherever buffers end.
const LOOKED_AT: usize = 400;
const LOOKED_AT_BYTES: usize = 64 << 10;
/// Names that are said.
const NAMED: usize = 12;

/// The lines of one program.
struct Lane<'a> {
    host: Vec<u8>,
    program: Vec<u8>,
    /// Lines of this block, unwrapped, and what is known of each.
    text: Vec<u8>,
    lines: Vec<Outer>,
    /// The last line goes on.
    partial: bool,
    reading: Option<Reading<'a>>,
    /// Lines of no known kind.
    unread: u64,
}

impl Lane<'_> {
    /// Hands on what has come, but for a line that goes on.
    fn read(&mut self) {
        let kept = if self.partial && !self.text.is_empty() {
            memchr::memrchr(b'\n', &self.text[..self.text.len() - 1]).map_or(0, |at| at + 1)
        } else {
            self.text.len()
        };
        let lines = self.lines.len() - usize::from(kept < self.text.len());
        match &mut self.reading {
            Some(reading) => reading.block(&self.text[..kept], &self.lines[..lines]),
            None => self.unread += lines as u64,
        }
        self.text.drain(..kept);
        self.lines.drain(..lines);
    }
}

/// A file's programs.
pub struct Mixed<'a> {
    tools: Tools<'a>,
    series: Series,
    named: Option<Kind>,
    lanes: Vec<Lane<'a>>,
    by_name: HashMap<(Vec<u8>, Vec<u8>), usize>,
    last: usize,
    file: usize,
    line: u64,
    /// Lines of programs above what is told apart.
    beyond: u64,
}

impl<'a> Mixed<'a> {
    /// Nothing read yet; `named` is the kind of all lines where it was typed.
    #[must_use]
    pub fn new(tools: Tools<'a>, series: Series, named: Option<Kind>) -> Self {
        Self {
            tools,
            series,
            named,
            lanes: Vec::new(),
            by_name: HashMap::new(),
            last: 0,
            file: 0,
            line: 0,
            beyond: 0,
        }
    }

    /// What follows is of the set's next file.
    pub fn next_file(&mut self, place: usize) {
        self.read(true);
        self.file = place;
        self.line = 0;
        for lane in &mut self.lanes {
            lane.partial = false;
            if let Some(reading) = &mut lane.reading {
                reading.next_file(place);
            }
        }
    }

    /// Whole lines.
    pub fn block(&mut self, wraps: &[Wrap], block: &[u8]) {
        let mut rest = block;
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest);
            let line = &rest[..end.unwrap_or(rest.len())];
            rest = &rest[end.map_or(rest.len(), |end| end + 1)..];
            self.line += 1;
            let peeled = peel(wraps, line.strip_suffix(b"\r").unwrap_or(line));
            // What is not wrapped goes on with what was before it.
            let lane = if peeled.whole || self.lanes.is_empty() {
                self.lane(&peeled.host, &peeled.program)
            } else {
                Some(self.last)
            };
            let Some(place) = lane else {
                self.beyond += 1;
                continue;
            };
            self.last = place;
            let lane = &mut self.lanes[place];
            if lane.partial && !lane.text.is_empty() {
                lane.text.pop();
                let begun = memchr::memrchr(b'\n', &lane.text).map_or(0, |at| at + 1);
                let room = LINE.saturating_sub(lane.text.len() - begun);
                lane.text
                    .extend_from_slice(&peeled.text[..peeled.text.len().min(room)]);
            } else {
                lane.text.extend_from_slice(&peeled.text);
                lane.lines.push(Outer {
                    number: self.line,
                    stamp: peeled.stamp,
                });
            }
            lane.text.push(b'\n');
            lane.partial = peeled.partial;
            let enough = lane.lines.len() >= LOOKED_AT || lane.text.len() >= LOOKED_AT_BYTES;
            if lane.reading.is_none() && enough {
                Self::decide(self.tools, &self.series, self.named, self.file, lane);
            }
        }
        self.read(false);
    }

    fn lane(&mut self, host: &[u8], program: &[u8]) -> Option<usize> {
        if let Some(lane) = self.lanes.get(self.last)
            && lane.host == host
            && lane.program == program
        {
            return Some(self.last);
        }
        let name = (host.to_vec(), program.to_vec());
        if let Some(place) = self.by_name.get(&name) {
            return Some(*place);
        }
        if self.lanes.len() >= MOST {
            return None;
        }
        self.lanes.push(Lane {
            host: name.0.clone(),
            program: name.1.clone(),
            text: Vec::new(),
            lines: Vec::new(),
            partial: false,
            reading: None,
            unread: 0,
        });
        self.by_name.insert(name, self.lanes.len() - 1);
        Some(self.lanes.len() - 1)
    }

    /// Reads what each has said, of those whose kind is known; at a file's end of all.
    fn read(&mut self, all: bool) {
        for lane in &mut self.lanes {
            if all {
                lane.partial = false;
            }
            if lane.reading.is_some() {
                lane.read();
            } else if all {
                Self::decide(self.tools, &self.series, self.named, self.file, lane);
            }
        }
    }

    /// Finds a lane's kind by what has come so far, and reads that; without a kind it is counted.
    fn decide(
        tools: Tools<'a>,
        series: &Series,
        named: Option<Kind>,
        file: usize,
        lane: &mut Lane<'a>,
    ) {
        if lane.lines.is_empty() {
            return;
        }
        let by_name = match lane.program.as_slice() {
            b"kernel" => Some(Kind::Kernel),
            b"etcd" => Some(Kind::Etcd),
            _ => None,
        };
        let kind = named
            .or(by_name)
            .or_else(|| detect(&lane.text))
            .filter(|kind| *kind != Kind::Recording)
            // Who passes lines on has stamps, so a line needs none of its own.
            .or_else(|| {
                let says = tools.search.automaton.is_match(&lane.text);
                says.then_some(Kind::ZookeeperJava)
            });
        lane.reading = kind.map(|kind| {
            let series = Series {
                kind,
                ..series.clone()
            };
            let mut reading = Reading::new(tools, series);
            reading.next_file(file);
            let host = String::from_utf8_lossy(&lane.host).into_owned();
            reading.of_host((!host.is_empty()).then_some(host), lane.text.clone());
            reading
        });
        lane.read();
    }

    /// The programs that said something, and a word about the others.
    #[must_use]
    pub fn end(mut self) -> (Vec<(Source, Vec<Event>)>, Option<String>) {
        self.read(true);
        let many = self.lanes.len() > 1;
        let mut hosts: Vec<&[u8]> = self.lanes.iter().map(|lane| lane.host.as_slice()).collect();
        hosts.retain(|host| !host.is_empty());
        hosts.sort_unstable();
        hosts.dedup();
        let several_hosts = hosts.len() > 1;
        let mut read = Vec::new();
        let mut quiet: Vec<String> = Vec::new();
        let mut unread = self.beyond;
        for lane in self.lanes {
            let program = String::from_utf8_lossy(&lane.program).into_owned();
            unread += lane.unread;
            let Some(reading) = lane.reading else {
                quiet.push(program);
                continue;
            };
            let (mut source, events) = reading.end();
            let counts = source.counts;
            if many && counts.understood + counts.cut == 0 {
                unread += counts.lines;
                quiet.push(program);
                continue;
            }
            // Before it became clear what they are.
            source.counts.lines += lane.unread;
            source.counts.continued += lane.unread;
            unread -= lane.unread;
            if many && !program.is_empty() {
                let host = source.host.as_deref().filter(|_| several_hosts);
                let of = host.map_or_else(|| program.clone(), |host| format!("{host}/{program}"));
                source.series.stem = format!("{}:{of}", source.series.stem);
            }
            read.push((source, events));
        }
        quiet.sort();
        quiet.dedup();
        let more = quiet.len().saturating_sub(NAMED);
        quiet.truncate(NAMED);
        let said = (unread > 0).then(|| {
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            format!(
                "{}: {unread} lines of other programs, which say nothing that is known: {}{more}",
                self.series.dir.join(&self.series.stem).display(),
                quiet.join(", ")
            )
        });
        (read, said)
    }
}
