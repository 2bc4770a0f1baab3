//! The daemon's own log: lines on standard error.
//!
//! In: what `tracing` is told. Out: lines, written by a thread of its own: whoever logs must not
//! wait for a journal that waits for a frozen disk. Lines that find the queue full are lost and
//! counted. Quiet by default; `RUST_LOG` is honoured.

use std::env;
use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::relay::{self, Sender};

/// Lines that may wait.
const QUEUE: usize = 1024;

/// How long the end of the daemon waits for its last lines.
const FLUSH: Duration = Duration::from_millis(200);

static LOST: AtomicU64 = AtomicU64::new(0);

/// Takes the number of lines lost since the last call.
pub fn take_lost() -> u64 {
    LOST.swap(0, Ordering::Relaxed)
}

/// Ends the log with its last lines written, when dropped.
pub struct Log {
    queue: Sender<Item>,
    done: Receiver<()>,
}

enum Item {
    Line(Vec<u8>),
    End,
}

struct Lines(Sender<Item>);

/// One line under construction.
struct Line {
    queue: Sender<Item>,
    text: Vec<u8>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line {
            queue: self.0.clone(),
            text: Vec::new(),
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        if self.queue.send(Item::Line(text)).is_err() {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What is logged, if `RUST_LOG` doesn't say.
const fn level(verbose: u8) -> &'static str {
    match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    }
}

/// Starts the log. Once in a process.
pub fn start(verbose: u8) -> io::Result<Log> {
    let (finished, done) = sync_channel(1);
    let queue = relay::spawn(
        "log",
        128 * 1024,
        QUEUE,
        move |lines: relay::Receiver<Item>| {
            while let Some(item) = lines.next() {
                match item {
                    // A log without a reader is nobody's loss.
                    Item::Line(line) => drop(io::stderr().write_all(&line)),
                    Item::End => break,
                }
            }
            // Nobody may be waiting any more.
            let _told = finished.send(());
        },
    )?;
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(level(verbose)))
        .unwrap_or_default();
    let colour =
        io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        .with_target(false)
        .with_writer(Lines(queue.clone()))
        .init();
    Ok(Log { queue, done })
}

impl Drop for Log {
    fn drop(&mut self) {
        let queued = self.queue.send(Item::End).is_ok();
        if queued && let Err(RecvTimeoutError::Timeout) = self.done.recv_timeout(FLUSH) {
            // Standard error is stuck; whoever reads it later gets the rest never.
        }
    }
}
