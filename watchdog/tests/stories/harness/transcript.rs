//! What a process has said so far, each line with the moment of its arrival, and a way to wait
//! for the next thing it says.
//!
//! In: a stream that a thread reads to its end. Out: stamped entries, kept for good, so that a
//! wait can never miss what came before it. Never: a time-out without a deadline.

use super::clock;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Entries of one or more streams in their order of arrival. Clones share the entries.
#[derive(Debug)]
pub struct Transcript<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    entries: Mutex<Vec<T>>,
    grown: Condvar,
}

impl<T> Clone for Transcript<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T: Clone + Send + 'static> Transcript<T> {
    /// An empty transcript.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                entries: Mutex::new(Vec::new()),
                grown: Condvar::new(),
            }),
        }
    }

    /// Starts a thread that reads `stream` line by line to its end. `parse` gets the moment of
    /// arrival and the line, and says what to keep.
    pub fn feed(
        &self,
        stream: impl Read + Send + 'static,
        mut parse: impl FnMut(i64, &str) -> Option<T> + Send + 'static,
    ) {
        let transcript = self.clone();
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            loop {
                line.clear();
                match stream.read_until(b'\n', &mut line) {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
                let at_us = clock::now_us();
                let text = String::from_utf8_lossy(&line);
                if let Some(entry) = parse(at_us, text.trim_end()) {
                    transcript.push(entry);
                }
            }
        });
    }

    /// Adds one entry and wakes whoever waits.
    pub fn push(&self, entry: T) {
        self.lock().push(entry);
        self.shared.grown.notify_all();
    }

    /// How many entries there are: a mark to wait from.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// All entries from the mark `from` on.
    pub fn since(&self, from: usize) -> Vec<T> {
        self.lock()
            .get(from..)
            .map(<[T]>::to_vec)
            .unwrap_or_default()
    }

    /// The last `count` entries.
    pub fn tail(&self, count: usize) -> Vec<T> {
        self.since(self.len().saturating_sub(count))
    }

    /// Waits for an entry at or after the mark `from` for which `pick` has an answer; `None` if
    /// none came within the deadline.
    pub fn wait<R>(
        &self,
        from: usize,
        within: Duration,
        mut pick: impl FnMut(&T) -> Option<R>,
    ) -> Option<R> {
        let deadline = clock::now_us() + clock::micros(within);
        let mut next = from;
        let mut entries = self.lock();
        loop {
            while let Some(entry) = entries.get(next) {
                if let Some(found) = pick(entry) {
                    return Some(found);
                }
                next += 1;
            }
            let left = deadline - clock::now_us();
            if left <= 0 {
                return None;
            }
            let left = Duration::from_micros(left.unsigned_abs());
            entries = self
                .shared
                .grown
                .wait_timeout(entries, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.shared
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line as it was said.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it arrived, in microseconds of CLOCK_MONOTONIC.
    pub at_us: i64,
    /// The line without its end.
    pub text: String,
}

impl Line {
    /// Keeps every line.
    pub fn keep(at_us: i64, text: &str) -> Option<Self> {
        Some(Self {
            at_us,
            text: text.to_owned(),
        })
    }
}

/// Lines in one block of text, for a failure's report.
pub fn text_of(lines: &[Line]) -> String {
    lines
        .iter()
        .map(|line| format!("  {:.6} {}\n", clock::seconds(line.at_us), line.text))
        .collect()
}
