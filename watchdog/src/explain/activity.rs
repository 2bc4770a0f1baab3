//! When each thread of a log spoke.
//!
//! In: the thread and time of every line, in any order. Out: for each thread the spans in which it spoke
//! without a longer pause. Never: a line kept; memory grows with the pauses, not with the lines.

use std::collections::HashMap;

use super::wall::{MS, SECOND, Wall};

/// Lines nearer than this are one span.
const TOGETHER: i64 = 100 * MS;
/// Above so many spans the pauses that are kept must be longer.
const MOST_SPANS: usize = 1 << 20;

/// Threads that are told apart, and bytes of a name: what looks like a thread's name may be a part of the
/// message.
const MOST_THREADS: usize = 1 << 15;
const NAME: usize = 200;

/// A time without a longer pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first line.
    pub first: Wall,
    /// The last line.
    pub last: Wall,
    /// How many.
    pub lines: u64,
}

/// One thread.
#[derive(Debug, Default)]
pub struct Thread {
    /// Its name; empty where the log names none.
    pub name: String,
    /// In order.
    pub spans: Vec<Span>,
}

/// All threads of a log.
#[derive(Debug)]
pub struct Activity {
    /// The threads.
    pub threads: Vec<Thread>,
    by_name: HashMap<Box<[u8]>, usize>,
    last: usize,
    together: i64,
    spans: usize,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            threads: Vec::new(),
            by_name: HashMap::new(),
            last: 0,
            together: TOGETHER,
            spans: 0,
        }
    }
}

impl Activity {
    /// A thread said something.
    #[inline]
    pub fn spoke(&mut self, thread: &[u8], at: Wall) {
        let thread = &thread[..thread.len().min(NAME)];
        let same = self
            .threads
            .get(self.last)
            .is_some_and(|known| known.name.as_bytes() == thread);
        if !same {
            self.last = match self.by_name.get(thread) {
                Some(place) => *place,
                None => self.add(thread),
            };
        }
        let together = self.together;
        let spans = &mut self.threads[self.last].spans;
        match spans.last_mut() {
            Some(span) if at >= span.first && at.since(span.last) <= together => {
                span.last = span.last.max(at);
                span.lines += 1;
            }
            _ => {
                self.spans += insert(spans, at, together);
                if self.spans > MOST_SPANS {
                    self.thin();
                }
            }
        }
    }

    fn add(&mut self, thread: &[u8]) -> usize {
        if self.threads.len() > MOST_THREADS && !thread.is_empty() {
            return match self.by_name.get(b"".as_slice()) {
                Some(place) => *place,
                None => self.add(b""),
            };
        }
        let place = self.threads.len();
        self.threads.push(Thread {
            name: String::from_utf8_lossy(thread).into_owned(),
            spans: Vec::new(),
        });
        self.by_name.insert(thread.into(), place);
        place
    }

    /// Keeps only pauses twice as long.
    fn thin(&mut self) {
        self.together *= 2;
        self.spans = 0;
        for thread in &mut self.threads {
            let mut kept: Vec<Span> = Vec::new();
            for span in thread.spans.drain(..) {
                match kept.last_mut() {
                    Some(before) if span.first.since(before.last) <= self.together => {
                        before.last = before.last.max(span.last);
                        before.lines += span.lines;
                    }
                    _ => kept.push(span),
                }
            }
            self.spans += kept.len();
            thread.spans = kept;
        }
    }

    /// Moves everything in time.
    pub fn shift(&mut self, by: i64) {
        for span in self.threads.iter_mut().flat_map(|thread| &mut thread.spans) {
            span.first = span.first.plus(by);
            span.last = span.last.plus(by);
        }
    }

    /// First and last line of all.
    #[must_use]
    pub fn range(&self) -> Option<(Wall, Wall)> {
        let first = self
            .threads
            .iter()
            .filter_map(|thread| thread.spans.first());
        let last = self.threads.iter().filter_map(|thread| thread.spans.last());
        Some((
            first.map(|span| span.first).min()?,
            last.map(|span| span.last).max()?,
        ))
    }

    /// Threads that spoke up between `from` and `to` after they had said nothing for `quiet`: when, and
    /// for how long they had been silent. Where a thread had not spoken before, the silence is counted
    /// from the log's first line, and the third is false.
    #[must_use]
    pub fn wakes(&self, from: Wall, to: Wall, quiet: i64) -> Vec<(Wall, i64, bool, &str)> {
        let Some((begin, _)) = self.range() else {
            return Vec::new();
        };
        let mut wakes = Vec::new();
        for thread in &self.threads {
            for (index, span) in thread.spans.iter().enumerate() {
                if span.first < from || span.first > to {
                    continue;
                }
                let before = index.checked_sub(1).map(|before| thread.spans[before].last);
                let silent = span.first.since(before.unwrap_or(begin));
                if silent >= quiet {
                    wakes.push((span.first, silent, before.is_some(), thread.name.as_str()));
                }
            }
        }
        wakes.sort_unstable_by_key(|wake| wake.0);
        wakes
    }

    /// How many lines were said between two moments, and by how many threads; only spans that begin
    /// there count.
    #[must_use]
    pub fn spans_within(&self, from: Wall, to: Wall) -> usize {
        self.threads
            .iter()
            .flat_map(|thread| &thread.spans)
            .filter(|span| span.first > from && span.last < to)
            .count()
    }
}

/// Puts a line into its place; how many spans there are more (or fewer).
fn insert(spans: &mut Vec<Span>, at: Wall, together: i64) -> usize {
    let after = spans.partition_point(|span| span.first <= at);
    let joins_before = after > 0 && at.since(spans[after - 1].last) <= together;
    let joins_after = after < spans.len() && spans[after].first.since(at) <= together;
    match (joins_before, joins_after) {
        (true, true) => {
            let next = spans.remove(after);
            let span = &mut spans[after - 1];
            span.last = span.last.max(next.last);
            span.lines += next.lines + 1;
            0
        }
        (true, false) => {
            let span = &mut spans[after - 1];
            span.last = span.last.max(at);
            span.lines += 1;
            0
        }
        (false, true) => {
            spans[after].first = at;
            spans[after].lines += 1;
            0
        }
        (false, false) => {
            spans.insert(
                after,
                Span {
                    first: at,
                    last: at,
                    lines: 1,
                },
            );
            1
        }
    }
}

/// What counts as silence.
pub const QUIET: i64 = SECOND;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spans(times: &[i64]) -> Vec<Span> {
        let mut activity = Activity::default();
        for time in times {
            activity.spoke(b"t", Wall(*time * MS));
        }
        activity
            .threads
            .pop()
            .map(|thread| thread.spans)
            .unwrap_or_default()
    }

    proptest! {
        #[test]
        fn order_and_repeats_change_no_pause(
            mut times in proptest::collection::vec(0_i64..5000, 1..200),
            again in 0_usize..200,
        ) {
            let shuffled = spans(&times);
            let repeated = times[again % times.len()];
            times.sort_unstable();
            let sorted = spans(&times);
            prop_assert_eq!(&shuffled, &sorted);
            times.push(repeated);
            let edges = |spans: Vec<Span>| -> Vec<_> {
                spans.iter().map(|span| (span.first, span.last)).collect()
            };
            prop_assert_eq!(edges(spans(&times)), edges(sorted));
        }
    }

    #[test]
    fn a_wake_is_a_line_after_a_silence() {
        let mut activity = Activity::default();
        for (thread, ms) in [("a", 0), ("a", 50), ("a", 4000), ("b", 4004), ("a", 4010)] {
            activity.spoke(thread.as_bytes(), Wall(ms * MS));
        }
        let wakes = activity.wakes(Wall(3900 * MS), Wall(5000 * MS), QUIET);
        assert_eq!(
            wakes,
            [
                (Wall(4000 * MS), 3950 * MS, true, "a"),
                (Wall(4004 * MS), 4004 * MS, false, "b")
            ]
        );
    }
}
